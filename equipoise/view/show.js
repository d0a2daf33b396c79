// The page of `equipoise show`. The server draws every picture: its address says which (pictures.py lists the fields).
"use strict";

const $ = (id) => document.getElementById(id);

let about = null; // facts about the generator
let tab = "samples";
let drawn = null; // {kind, columns, num, asked}: what #picture shows
let chosen = 0; // the image that was clicked
let last = 0; // number of the newest request: answers to older ones are dropped
let busy = 0; // requests under way

const PERSISTENT = ["seed", "num", "label", "from-seed", "from-index", "from-label", "to-seed", "to-index", "to-label",
  "frames", "mix-seed", "rows", "columns", "first", "last", "truncation", "psi", "cutoff", "which"];
const BEGIN = { seed: 0, "from-seed": 0, "from-index": 0, "to-seed": 1, "to-index": 0, frames: 16, "mix-seed": 0,
  rows: "0, 1, 2", columns: "3, 4, 5, 6", first: 0, truncation: 0.7, psi: 1 };

// ---- what is asked ------------------------------------------------------------------------------------------------

/** Fields of the truncation, for any picture. */
function truncation() {
  const fields = about.which.length > 1 ? { which: $("which").value } : {};
  if ($("truncate").checked) fields.truncation = $("truncation").value;
  if (about.layers && $("psi").value !== "1") {
    fields.psi = $("psi").value;
    if (Number($("cutoff").value) < about.layers) fields.cutoff = $("cutoff").value;
  }
  return fields;
}

/** A field `name` for a choice of class that is not "all". */
const ofClass = (name, id) => ($(id).value && about.classes ? { [name]: $(id).value } : {});

/** A list in the syntax of configs: "0, 1" is "0,1,". Anything but numbers stays, and the server says what it expected. */
const list = (text) => text.split(",").map((part) => part.trim()).filter(Boolean).map((part) => `${part},`).join("");

/** At most `most` columns for `num` images, with full rows if that takes no more than half of the columns away. */
function even(num, most) {
  const columns = Math.min(num, most);
  for (let fewer = columns; fewer >= columns / 2; fewer--) if (num % fewer === 0) return fewer;
  return columns;
}

function asked() {
  const width = $("stage").clientWidth;
  if (tab === "walk") {
    const frames = Number($("frames").value);
    const columns = even(frames, Math.max(1, Math.min(20, Math.floor(width / Math.max(about.width, 48)))));
    return ["walk", {
      seed: $("from-seed").value, index: $("from-index").value, ...ofClass("label", "from-label"),
      to_seed: $("to-seed").value, to_index: $("to-index").value, ...ofClass("to_label", "to-label"), frames, columns,
    }];
  }
  if (tab === "mix") {
    const [from, to] = [Number($("first").value), Number($("last").value)];
    const layers = Array.from({ length: Math.max(0, Math.min(to, 9999) - from + 1) }, (_, i) => from + i);
    return ["mix", { seed: $("mix-seed").value, rows: list($("rows").value), columns: list($("columns").value),
      layers: list(layers.join(",")) || "()" }];
  }
  const num = Number($("num").value);
  const columns = even(num, Math.max(Math.ceil(Math.sqrt(num)), Math.min(10, Math.floor(width / 96))));
  return ["samples", { seed: $("seed").value, num, columns, ...ofClass("label", "label") }];
}

// ---- drawing ------------------------------------------------------------------------------------------------------

async function draw() {
  const number = ++last;
  const [kind, own] = asked();
  const fields = { ...own, ...truncation() };
  remember();
  busy += 1;
  $("stage").classList.add("old");
  $("busy").textContent = "drawing …";
  try {
    const reply = await fetch(`${kind}.png?${new URLSearchParams(fields)}`);
    if (!reply.ok) throw new Error(await reply.text());
    const picture = await createPicture(await reply.blob());
    if (number === last) show(kind, own, picture);
  } catch (error) {
    if (number === last) trouble(error instanceof TypeError ? "The server does not answer. Has it ended?" : error.message);
  } finally {
    busy -= 1;
    if (number === last) {
      $("busy").textContent = "";
      $("stage").classList.remove("old");
    }
  }
}

/** A loaded image element of a blob. */
function createPicture(blob) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("The server sent no picture."));
    image.src = URL.createObjectURL(blob);
  });
}

function show(kind, own, image) {
  trouble("");
  if (drawn) URL.revokeObjectURL(drawn.image.src);
  const columns = Math.round(image.naturalWidth / about.width);
  const num = kind === "samples" ? Number(own.num) : kind === "walk" ? Number(own.frames) : 0;
  drawn = { kind, own, image, columns, num };
  const picture = $("picture");
  picture.src = image.src;
  picture.width = Math.max(image.naturalWidth, columns * 96);
  picture.className = kind === "samples" ? "of-samples" : "";
  picture.classList.toggle("smooth", about.width > 96);
  $("download").href = image.src;
  $("download").download = `${kind}-${Object.values(own).join("-").replace(/[^\w-]+/g, "_")}.png`;
  $("frame").hidden = kind !== "walk";
  $("chosen").hidden = kind !== "samples";
  if (kind === "walk") {
    $("at").max = num - 1;
    $("at").value = Math.min($("at").value, num - 1);
    frame();
  } else {
    stop();
  }
  if (kind === "samples") choose(Math.min(chosen, num - 1));
}

/** Copy cell `index` of the picture to a canvas, in its own resolution. */
function cell(canvas, index) {
  const { width, height } = about;
  [canvas.width, canvas.height] = [width, height];
  canvas.classList.toggle("smooth", width > 96);
  const [x, y] = [index % drawn.columns, Math.floor(index / drawn.columns)];
  canvas.getContext("2d").drawImage(drawn.image, x * width, y * height, width, height, 0, 0, width, height);
}

function choose(index) {
  chosen = index;
  cell($("one"), index);
  const seed = drawn.own.seed;
  $("name").textContent = `Image ${index} of seed ${seed}`;
  $("download-one").href = $("one").toDataURL("image/png");
  $("download-one").download = `seed-${seed}-image-${index}.png`;
}

// ---- the walk -----------------------------------------------------------------------------------------------------

let timer = 0;

const frame = () => cell($("film"), Number($("at").value));

function stop() {
  clearInterval(timer);
  timer = 0;
  $("play").textContent = "Play";
}

function play() {
  if (timer) return stop();
  $("play").textContent = "Pause";
  let way = 1;
  timer = setInterval(() => {
    const [at, end] = [Number($("at").value), Number($("at").max)];
    if (at + way > end || at + way < 0) way = -way;
    $("at").value = at + way;
    frame();
  }, 80);
}

function walk(end) {
  $(`${end}-seed`).value = drawn.own.seed;
  $(`${end}-index`).value = chosen;
  if (about.classes) $(`${end}-label`).value = drawn.own.label ?? String(chosen % about.classes);
  open("walk");
}

// ---- the page -----------------------------------------------------------------------------------------------------

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

function open(name) {
  tab = name;
  for (const other of ["samples", "walk", "mix"]) {
    $(other).hidden = other !== tab;
    $(`tab-${other}`).setAttribute("aria-selected", String(other === tab));
  }
  draw();
}

/** Keep the controls in the page's address, so that it can be shared. */
function remember() {
  const fields = { tab };
  for (const id of PERSISTENT) if ($(id).value !== $(id).dataset.begin) fields[id] = $(id).value;
  if ($("truncate").checked) fields.truncate = "1";
  history.replaceState(null, "", `#${new URLSearchParams(fields)}`);
}

function recall() {
  const fields = new URLSearchParams(location.hash.slice(1));
  for (const id of PERSISTENT) {
    if (id in BEGIN) $(id).value = BEGIN[id];
    $(id).dataset.begin = $(id).value;
    if (fields.has(id)) $(id).value = fields.get(id);
  }
  $("truncate").checked = fields.has("truncate");
  const name = fields.get("tab");
  return name === "walk" || (name === "mix" && about.layers) ? name : "samples";
}

function options(id, pairs) {
  $(id).replaceChildren(...pairs.map(([value, text]) => new Option(text, value)));
}

function facts() {
  const { config, width, height, nimg, classes, layers } = about;
  const parts = [config.slice(0, config.indexOf("(")), `${width}×${height}`];
  if (classes) parts.push(`${classes} classes`);
  if (layers) parts.push(`${layers} layers of styles`);
  if (nimg) parts.push(`after ${nimg.toLocaleString("en")} real images`);
  $("facts").textContent = parts.join(", ");
}

function shown() {
  $("truncation-shown").textContent = $("truncate").checked ? `|z| ≤ ${Number($("truncation").value)}` : "off";
  $("truncation").disabled = !$("truncate").checked;
  $("psi-shown").textContent = Number($("psi").value).toFixed(2);
  $("cutoff-shown").textContent = Number($("cutoff").value) === about.layers ? "all" : $("cutoff").value;
}

async function load(which = "") {
  const reply = await fetch(`about.json${which && `?which=${which}`}`);
  if (!reply.ok) throw new Error(await reply.text());
  about = await reply.json();
  facts();
}

function prepare() {
  $("place").textContent = about.place;
  document.title = `${about.place} – Equipoise show`;
  options("which", about.which.map((name) => [name, name]));
  $("of").hidden = about.which.length < 2;
  const counts = new Set([1, 4, 9, 16, 25, 36, 49, 64, 81, 100].filter((n) => n <= about.most));
  counts.add(about.num);
  options("num", [...counts].sort((a, b) => a - b).map((n) => [n, n]));
  $("num").value = about.num;
  for (const place of document.querySelectorAll(".of-classes")) place.hidden = !about.classes;
  const classes = Array.from({ length: about.classes }, (_, i) => [i, i]);
  options("label", [["", "all in turn"], ...classes]);
  for (const id of ["from-label", "to-label"]) options(id, [["", "its own"], ...classes]);
  $("frames").max = about.most;
  $("tab-mix").hidden = !about.layers;
  $("truncation-of-w").hidden = !about.layers;
  $("truncation-of-z").hidden = about.truncation !== null;
  for (const id of ["first", "last"]) $(id).max = about.layers - 1;
  $("last").value = Math.min(3, about.layers - 1);
  $("cutoff").max = $("cutoff").value = about.layers;
}

async function begin() {
  await load();
  prepare();
  const name = recall();
  shown();
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("controls").addEventListener("input", shown);
  $("controls").addEventListener("change", draw);
  $("which").addEventListener("change", () => load($("which").value).then(draw, (error) => trouble(error.message)));
  const seed = (value) => { $("seed").value = value; draw(); };
  $("previous").onclick = () => seed(Math.max(0, Number($("seed").value) - 1));
  $("next").onclick = () => seed(Number($("seed").value) + 1);
  $("random").onclick = () => seed(Math.floor(Math.random() * 1e6));
  $("picture").onclick = ({ offsetX, offsetY, target }) => {
    if (drawn.kind !== "samples") return;
    const size = target.clientWidth / drawn.columns;
    const index = Math.floor(offsetY / size) * drawn.columns + Math.floor(offsetX / size);
    if (index < drawn.num) choose(index);
  };
  $("walk-from").onclick = () => walk("from");
  $("walk-to").onclick = () => walk("to");
  $("at").oninput = () => { stop(); frame(); };
  $("play").onclick = play;
  for (const other of ["samples", "walk", "mix"]) $(`tab-${other}`).onclick = () => open(other);
  open(name);
}

begin().catch((error) => trouble(error.message));
