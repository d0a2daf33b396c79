// The page of the playground. It knows no component by name: what can be chosen, and what it is, the server tells; each
// change goes there as text, and what comes back is shown. Messages and frames are described in session.py, picture.py.
"use strict";

const $ = (id) => document.getElementById(id);

/** An element with properties and children. Text goes in as text, never as HTML. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// ---- the server ---------------------------------------------------------------------------------------------------

let socket = null;
let catalogue = [];
let sources = new Map();
let setting = null; // as the server has it
let nextId = 1;
const waiting = new Map(); // id of a message -> [when it was sent, what to do with the reply]

function connect() {
  trouble("");
  waiting.clear();
  [run, frame, setting] = [0, null, null];
  const here = new WebSocket(`ws://${location.host}/session`);
  here.binaryType = "arraybuffer";
  here.onmessage = ({ data }) => (typeof data === "string" ? hear(JSON.parse(data)) : frameArrived(data));
  here.onclose = ({ code, reason }) => {
    const said = $("trouble").textContent || `The connection to the server is closed (${code}). ${reason}`;
    trouble(said, "Connect again");
  };
  socket = here;
  $("speed").textContent = "PyTorch is starting …";
}

/** Send a message; `then` is called with the reply. */
function ask(message, then = () => {}) {
  if (socket.readyState !== WebSocket.OPEN) return;
  const id = nextId++;
  waiting.set(id, [performance.now(), then]);
  socket.send(JSON.stringify({ id, ...message }));
}

function hear(message) {
  if (message.catalogue) {
    catalogue = message.catalogue;
    sources = new Map(message.settings.map(({ name, line }) => [name, line]));
    $("settings").replaceChildren(...message.settings.map(({ name }) => make("option", { textContent: name })));
    ask({ do: "start", setting: location.hash.slice(1) }, began);
  } else if (message.id === undefined) {
    trouble(message.error);
  } else {
    const [sent, then] = waiting.get(message.id);
    waiting.delete(message.id);
    latency = performance.now() - sent;
    show(message);
    then(message);
  }
}

function trouble(text, button = "") {
  const bar = $("trouble");
  bar.replaceChildren(text);
  if (button) bar.append(make("button", { textContent: button, onclick: connect }));
  bar.hidden = !text;
}

function notice(text, bad = false) {
  $("notice").textContent = text;
  $("notice").classList.toggle("bad", bad);
  $("notice").hidden = !text;
}

/** What every reply says: where the GAN is, and its setting. */
function show(reply) {
  playing(reply.playing);
  if (reply.run !== run) newRun(reply.run);
  $("iteration").textContent = reply.iteration;
  if (JSON.stringify(reply.setting) !== JSON.stringify(setting)) {
    setting = reply.setting;
    renderSetting();
  }
}

function began(reply) {
  notice(reply.error ? `The address holds no setting that works, so this is another one.\n${reply.error}` : "", true);
  history.replaceState(null, "", `#${setting.query}`);
}

function playing(now) {
  $("play").textContent = now ? "Pause" : "Play";
  document.body.dataset.playing = now;
}

// ---- knobs --------------------------------------------------------------------------------------------------------

const wrong = new Map(); // path -> [the last value, why it was refused]

function set(path, text) {
  ask({ do: "set", changes: { [path]: text } }, (reply) => changed(reply, path, text));
}

/** After a change of the setting as a whole, or of the field at `path` to `text`. */
function changed(reply, path = "", text = "") {
  wrong.clear();
  if (reply.error) {
    wrong.set(path, [text, reply.error]);
    if (!path) notice(reply.error, true);
  } else {
    history.replaceState(null, "", `#${setting.query}`);
    const anew = reply.anew.join(", ");
    notice(anew ? `Started anew: ${anew} cannot change in a GAN under way.` : "");
    if (!anew && reply.changed.length) remark(reply.iteration, reply.changed);
  }
  renderSetting();
}

function renderSetting() {
  const focus = document.activeElement?.dataset?.path;
  const groups = new Map();
  for (const knob of catalogue) {
    if (!groups.has(knob.group)) groups.set(knob.group, make("fieldset", {}, make("legend", { textContent: knob.group })));
    groups.get(knob.group).append(renderKnob(knob, setting.values[knob.path]));
  }
  $("knobs").replaceChildren(...groups.values());
  if (focus) document.querySelector(`[data-path="${CSS.escape(focus)}"]`)?.focus();
  $("settings").value = setting.name;
  $("source").textContent = sources.get(setting.name);
  $("notes").replaceChildren(...setting.notes.map((note) => make("li", { textContent: note })));
  renderFlow();
}

function renderKnob(knob, value) {
  const title = make("span", { textContent: knob.title });
  if (!knob.goes_on) title.append(make("span", { className: "anew", textContent: " ↻", title: "Another choice here starts anew" }));
  const head = make("div", { className: "head" }, title);
  const body = make("div", { className: "knob" }, head, make("p", { className: "what", textContent: knob.line }));
  if (knob.many) {
    head.append(adder(knob, value));
    value.forEach((item, i) => {
      const others = value.filter((_, j) => j !== i).map(({ text }) => text);
      const remove = button("×", `Remove ${item.name}`, () => set(knob.path, `[${others.join(",")}]`));
      const term = make("div", { className: "head" }, make("span", { textContent: item.name }), remove);
      body.append(make("div", { className: "term" }, term, ...described(knob, item), ...fields(`${knob.path}.${i}`, item)));
    });
  } else if (knob.options.length) {
    const select = chooser(knob.options, knob.title, (text) => set(knob.path, text));
    const plain = knob.options.filter(({ name }) => name === "");
    const now = value.name ? value : (plain.find(({ text }) => text === value.text) ?? plain[0]);
    select.value = keyOf(now);
    select.dataset.path = knob.path;
    head.append(select);
    body.append(...described(knob, value));
    if (value.name) body.append(...fields(knob.path, value));
    else if (isNumber(value.text)) body.append(row(knob.path, "number", value.text));
  } else {
    head.append(input(knob.path, value.text, knob.title));
  }
  body.append(reason(knob.path));
  return body;
}

/** What tells an option from the others of its knob: a component's name, a plain value's text. */
const keyOf = ({ name, text }) => name || text;

function chooser(options, label, chosen) {
  const select = make("select", { ariaLabel: label });
  select.append(...options.map((option) => make("option", { value: keyOf(option), textContent: option.title })));
  select.onchange = () => chosen(options.find((option) => keyOf(option) === select.value).text);
  return select;
}

function adder(knob, value) {
  const ask = { name: "+", title: "add …", text: "" };
  const select = chooser([ask, ...knob.options], `Add to ${knob.title}`, (text) => {
    set(knob.path, `[${[...value.map((item) => item.text), text].join(",")}]`);
  });
  select.dataset.path = knob.path;
  return select;
}

/** The docstring of what is chosen: its first line, and the rest to be opened. */
function described(knob, value) {
  const option = knob.options.find(({ name }) => name === value.name);
  if (!option?.line) return [];
  if (!option.more) return [make("p", { className: "what" }, ...marked(option.line))];
  const [summary, rest] = [make("summary", {}, ...marked(option.line)), make("p", {}, ...marked(option.more))];
  return [make("details", { className: "what" }, summary, rest)];
}

/** Text whose `names` are set as code. */
const marked = (text) => text.split(/`+([^`]+)`+/).map((part, i) => (i % 2 ? make("code", { textContent: part }) : part));

const fields = (path, value) => value.fields.flatMap(({ name, text }) => [
  row(`${path}.${name}`, name, text),
  reason(`${path}.${name}`),
]);

function row(path, name, text) {
  const className = isNumber(text) || text.length < 14 ? "row" : "row long";
  return make("div", { className }, make("label", { textContent: name, htmlFor: path }), input(path, text, name));
}

/** A place for why the last value was refused. */
function reason(path) {
  return make("p", { className: "wrong", textContent: wrong.get(path)?.[1] ?? "" });
}

function button(text, title, onclick) {
  return make("button", { type: "button", textContent: text, title, ariaLabel: title, onclick });
}

function input(path, text, label) {
  const boolean = text === "true" || text === "false";
  const field = make("input", { id: path, ariaLabel: label, type: boolean ? "checkbox" : "text", spellcheck: false });
  field.dataset.path = path;
  field.onchange = () => set(path, boolean ? String(field.checked) : field.value);
  if (boolean) {
    field.checked = text === "true";
    return field;
  }
  field.value = wrong.has(path) ? wrong.get(path)[0] : text;
  const value = make("div", { className: "value" }, field);
  if (isNumber(text)) {
    value.prepend(button("−", `${label}: less`, () => set(path, stepped(path, field.value, -1))));
    value.append(button("+", `${label}: more`, () => set(path, stepped(path, field.value, 1))));
  }
  return value;
}

const isNumber = (text) => text !== "" && Number.isFinite(Number(text));

/** Small counts by one, all else by a factor of two. */
function stepped(path, text, sign) {
  const number = Number(text);
  const counts = /^\d+$/.test(text) && (path === "seed" || number + sign <= 16);
  if (counts) return String(Math.max(number + sign, 0));
  if (number === 0) return sign > 0 ? "0.1" : "0.0";
  return String(/^\d+$/.test(text) ? Math.round(number * 2 ** sign) : Number((number * 2 ** sign).toPrecision(6)));
}

// ---- frames -------------------------------------------------------------------------------------------------------

let run = 0;
let frame = null; // the last one
let real = new Float32Array();
let latency = 0;
let drawn = []; // [ms, iteration] of the frames of the last two seconds

/** The length of the header in four bytes, the header as JSON, and its arrays as float32. */
function decode(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let offset = 4 + length;
  for (const [name, shape] of header.arrays) {
    const size = shape.reduce((a, b) => a * b, 1);
    header[name] = new Float32Array(buffer, offset, size);
    offset += 4 * size;
  }
  return header;
}

function frameArrived(buffer) {
  frame = decode(buffer);
  if (frame.run !== run) newRun(frame.run);
  real = frame.real ?? real;
  $("iteration").textContent = frame.iteration;
  playing(frame.playing); // now, not when it is drawn: a reply may come in between
  record();
  requestAnimationFrame((now) => {
    drawn = [...drawn.filter(([time]) => now - time < 2000), [now, frame.iteration]];
    draw();
    if (socket.readyState === WebSocket.OPEN) socket.send('{"do": "drawn"}');
  });
}

function newRun(number) {
  run = number;
  drawn = [];
  remarks.length = 0;
  $("changes").replaceChildren();
  for (const chart of charts) for (const line of chart.lines) line.points = [];
  for (const id of ["modes", "quality", "kl", "distance"]) $(id).textContent = "–";
}

function draw() {
  if (frame.notice) notice(frame.notice, true);
  drawPlane();
  charts.forEach(drawChart);
  $("end").textContent = frame.iteration;
  renderReadings();
}

const short = (value, digits = 3) => (value === null || value === undefined ? "–" : Number(value.toPrecision(digits)).toString());
const percent = (value) => `${Math.round(100 * value)} %`;

function renderReadings() {
  const { measures, stats } = frame;
  if ("of" in measures) {
    $("modes").textContent = `${measures.modes} / ${measures.of}`;
    $("quality").textContent = percent(measures.high_quality);
    $("kl").textContent = measures.kl.toFixed(3);
  }
  if ("wasserstein" in measures) {
    $("distance").textContent = short(measures.wasserstein);
    $("floor").textContent = `Wasserstein (real: ${short(measures.floor, 2)})`;
  }
  if ("D/real" in stats) $("flow-logit").textContent = `real ${short(stats["D/real"], 2)}, generated ${short(stats["D/fake"], 2)}`;
  const [first, last] = [drawn[0], drawn[drawn.length - 1]];
  const seconds = (last[0] - first[0]) / 1000;
  if (seconds > 0.3) {
    const rates = [(drawn.length - 1) / seconds, (last[1] - first[1]) / seconds].map(Math.round);
    $("speed").textContent = `${rates[1]} iterations / s · ${rates[0]} frames / s · click ${Math.round(latency)} ms`;
  } else $("speed").textContent = "";
}

function renderFlow() {
  const text = (path) => setting.values[path].text;
  const names = (path) => setting.values[path].map(({ name }) => name);
  const terms = (other) => setting.values.terms.filter(({ player }) => player !== other).map(({ name }) => name);
  const unless = (path, none) => (setting.values[path].name === none ? [] : [setting.values[path].name]);
  const layers = (net) => `${text(`${net}.depth`)} × ${text(`${net}.width`)}`;
  const ofD = [
    layers("discriminator"),
    ...unless("d_normalizer", "NoNormalizer"),
    ...(text("head.san") === "true" ? ["SAN"] : []),
    ...terms("G"),
    ...names("constraints"),
    ...unless("augment", "NoAugment"),
  ];
  const ofG = [layers("generator"), ...unless("g_normalizer", "NoNormalizer"), ...terms("D")];
  $("flow-z").textContent = `length ${text("generator.z_dim")}`;
  $("flow-g").textContent = ofG.join(" · ");
  $("flow-d").textContent = ofD.join(" · ");
}

// ---- the plane ----------------------------------------------------------------------------------------------------

let colors = {};

function readColors() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["panel", "line", "ink", "soft", "real", "fake", "third", "fourth"]) {
    colors[name] = style.getPropertyValue(`--${name}`).trim();
  }
}

const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

/** The colour of t in [-1, 1]: generated, undecided, real. */
function tint(t) {
  const [ground, end] = [channels(colors.panel), channels(t < 0 ? colors.fake : colors.real)];
  return ground.map((c, i) => Math.round(c + 0.55 * Math.abs(t) * (end[i] - c)));
}

/** A canvas at the screen's resolution, and its size in CSS pixels. */
function prepared(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return [context, width, height];
}

/** Where logits lie between sure of generated, -1, and sure of real, 1; [function, low, high]. */
function verdict() {
  if (frame.signed) return [(logit) => Math.tanh(logit / 2), "generated", "real"]; // 2 s(logit) - 1
  const finite = frame.heat.filter(Number.isFinite);
  if (!finite.length) return [() => 0, "–", "–"];
  const [low, high] = finite.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  return [(value) => (high > low ? (2 * (value - low)) / (high - low) - 1 : 0), short(low), short(high)];
}

const heat = document.createElement("canvas");

function drawPlane() {
  const [context, size] = prepared($("plane"));
  const [left, right, bottom, top] = frame.view;
  const x = (value) => ((value - left) / (right - left)) * size;
  const y = (value) => ((top - value) / (top - bottom)) * size;
  const [t, low, high] = verdict();
  $("low").textContent = `D: ${low}`;
  $("high").textContent = high;
  context.clearRect(0, 0, size, size);
  if ($("show-heat").checked) drawHeat(context, size, t);
  context.globalAlpha = 0.5;
  if ($("show-push").checked) drawPushes(context, x, y, size / (right - left));
  context.globalAlpha = 0.8;
  if ($("show-real").checked) dots(context, real, x, y, colors.real, 2);
  if ($("show-fake").checked) dots(context, frame.points, x, y, colors.fake, 2);
  context.globalAlpha = 1;
  drawScale();
}

function drawHeat(context, size, t) {
  const side = Math.round(Math.sqrt(frame.heat.length));
  heat.width = heat.height = side;
  const image = new ImageData(side, side);
  for (let row = 0; row < side; row++) {
    for (let column = 0; column < side; column++) {
      const value = t(frame.heat[(side - 1 - row) * side + column]); // rows come from the bottom
      image.data.set([...tint(Number.isFinite(value) ? value : 0), 255], 4 * (row * side + column));
    }
  }
  heat.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(heat, 0, 0, size, size);
}

function drawScale() {
  const canvas = $("scale");
  const context = canvas.getContext("2d");
  for (let i = 0; i < canvas.width; i++) {
    context.fillStyle = `rgb(${tint((2 * i) / (canvas.width - 1) - 1).join()})`;
    context.fillRect(i, 0, 1, canvas.height);
  }
}

function dots(context, points, x, y, color, radius) {
  context.fillStyle = color;
  context.beginPath();
  for (let i = 0; i < points.length; i += 2) {
    const [px, py] = [x(points[i]), y(points[i + 1])];
    context.moveTo(px + radius, py);
    context.arc(px, py, radius, 0, 7);
  }
  context.fill();
}

const LONGEST = 36; // pixels of an arrow

/** An arrow along the push on every third generated point; by default a push of 1 is one unit of the plane. */
function drawPushes(context, x, y, unit) {
  const scale = 10 ** Number($("length").value) * unit;
  context.strokeStyle = colors.ink;
  context.lineWidth = 1;
  context.beginPath();
  for (let i = 0; i < frame.points.length; i += 6) {
    const [dx, dy] = [frame.pushes[i] * scale, -frame.pushes[i + 1] * scale];
    const length = Math.hypot(dx, dy);
    if (!(length > 0.5)) continue;
    const cut = Math.min(1, LONGEST / length);
    const [px, py] = [x(frame.points[i]), y(frame.points[i + 1])];
    const [ex, ey] = [px + cut * dx, py + cut * dy];
    const [ux, uy] = [(dx / length) * 3, (dy / length) * 3];
    context.moveTo(px, py);
    context.lineTo(ex, ey);
    context.moveTo(ex - ux - uy, ey - uy + ux);
    context.lineTo(ex, ey);
    context.lineTo(ex - ux + uy, ey - uy - ux);
  }
  context.stroke();
}

/** D's logit under the pointer. */
function probe(event) {
  if (!frame) return;
  const [left, right, bottom, top] = frame.view;
  const [u, v] = [event.offsetX / event.target.clientWidth, 1 - event.offsetY / event.target.clientHeight];
  const side = Math.round(Math.sqrt(frame.heat.length));
  const cell = (t) => Math.min(side - 1, Math.max(0, Math.floor(t * side)));
  const logit = frame.heat[cell(v) * side + cell(u)];
  const [px, py] = [left + u * (right - left), bottom + v * (top - bottom)];
  $("probe").textContent = `D(${px.toFixed(2)}, ${py.toFixed(2)}) = ${short(logit)}`;
}

// ---- curves -------------------------------------------------------------------------------------------------------

const MOST = 1200; // points of a line; with more, every other one goes
const remarks = []; // iterations at which something was changed

const line = (name, color) => ({ name, color, points: [] });
const charts = [
  { title: "Losses", lines: [line("D", "real"), line("G", "fake")] },
  { title: "Share", lines: [line("modes covered", "third"), line("high quality", "fourth")], range: [0, 1] },
  { title: "Distance", lines: [line("KL to uniform", "third"), line("Wasserstein", "fourth")], from: 0 },
  { title: "Push on generated points, mean length", lines: [line("‖∇L_G‖", "fake")], log: true },
];

function record() {
  const { stats, measures, pushes, iteration } = frame;
  let push = 0;
  for (let i = 0; i < pushes.length; i += 2) push += Math.hypot(pushes[i], pushes[i + 1]) / (pushes.length / 2);
  const values = [
    [stats["D/loss"], stats["G/loss"]],
    [measures.modes / measures.of, measures.high_quality],
    [measures.kl, measures.wasserstein],
    [push],
  ];
  charts.forEach((chart, i) => chart.lines.forEach((l, j) => add(l.points, iteration, values[i][j])));
}

function add(points, iteration, value) {
  if (!Number.isFinite(value)) return;
  if (points.length && points[points.length - 1][0] === iteration) points.pop();
  points.push([iteration, value]);
  if (points.length > MOST) for (let i = points.length - 2; i > 0; i -= 2) points.splice(i, 1);
}

function remark(iteration, changes) {
  remarks.push(iteration);
  $("changes").prepend(make("li", { textContent: `${iteration}: ${changes.join(", ")}` }));
}

function buildCharts() {
  for (const chart of charts) {
    chart.legend = make("p");
    chart.canvas = make("canvas");
    $("charts").append(make("div", { className: "chart" }, chart.legend, chart.canvas));
  }
}

function drawChart(chart) {
  const labels = chart.lines.map(({ name, color, points }) => {
    const label = make("span", { textContent: `${name} ${points.length ? short(points[points.length - 1][1]) : "–"}` });
    label.style.color = colors[color];
    return label;
  });
  chart.legend.replaceChildren(make("b", { textContent: chart.title }), ...labels);
  const [context, width, height] = prepared(chart.canvas);
  context.font = "10px system-ui, sans-serif";
  const scaled = chart.log ? (value) => Math.log10(Math.max(value, 1e-12)) : (value) => value;
  const all = chart.lines.flatMap(({ points }) => points.map(([, value]) => scaled(value)));
  if (!all.length) return;
  let [low, high] = chart.range ?? [Math.min(...all, chart.from ?? Infinity), Math.max(...all)];
  if (high - low < 1e-9) [low, high] = [low - 0.5, high + 0.5];
  const [pad, gutter] = [7, 40];
  const end = Math.max(frame.iteration, 1);
  const x = (iteration) => gutter + (iteration / end) * (width - gutter - 6);
  const y = (value) => height - pad - ((scaled(value) - low) / (high - low)) * (height - 2 * pad);
  context.fillStyle = colors.soft;
  context.strokeStyle = colors.line;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const value of [low, (low + high) / 2, high].map((v) => (chart.log ? 10 ** v : v))) {
    context.fillText(short(value, 2), gutter - 5, y(value));
    stroke(context, [[gutter, y(value)], [width - 6, y(value)]]);
  }
  context.setLineDash([3, 3]);
  context.strokeStyle = colors.soft;
  for (const iteration of remarks) stroke(context, [[x(iteration), 2], [x(iteration), height - 2]]);
  context.setLineDash([]);
  context.lineWidth = 1.5;
  for (const { color, points } of chart.lines) {
    context.strokeStyle = colors[color];
    stroke(context, points.map(([iteration, value]) => [x(iteration), y(value)]));
  }
}

function stroke(context, points) {
  context.beginPath();
  points.forEach(([px, py], i) => (i ? context.lineTo(px, py) : context.moveTo(px, py)));
  context.stroke();
}

// ---- what one can click -------------------------------------------------------------------------------------------

const redraw = () => frame && requestAnimationFrame(draw);

function toggle() {
  ask({ do: document.body.dataset.playing === "true" ? "pause" : "play" });
}

$("play").onclick = toggle;
$("step").onclick = () => ask({ do: "step", iterations: 1 });
$("hundred").onclick = () => ask({ do: "step", iterations: 100 });
$("reset").onclick = () => ask({ do: "reset" }, () => notice(""));
$("pace").onchange = ({ target }) => ask({ do: "pace", per_second: target.value ? Number(target.value) : null });
$("settings").onchange = ({ target }) => ask({ do: "choose", setting: target.value }, (reply) => changed(reply));
$("knobs").onsubmit = (event) => event.preventDefault();
$("share").onclick = async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    notice("Copied: the address holds the setting.");
  } catch {
    notice("The address of this page holds the setting: copy it from there.");
  }
};
for (const id of ["show-real", "show-fake", "show-heat", "show-push", "length"]) $(id).oninput = redraw;
$("plane").onpointermove = probe;
$("plane").onpointerleave = () => ($("probe").textContent = "");

const keys = { " ": "play", s: "step", r: "reset" };
document.onkeydown = (event) => {
  const free = !event.target.closest("input, select, button, summary");
  if (!free || event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
  event.preventDefault();
  $(keys[event.key]).click();
};
onhashchange = () => ask({ do: "start", setting: location.hash.slice(1) }, began);
onresize = redraw;
matchMedia("(prefers-color-scheme: dark)").onchange = () => {
  readColors();
  redraw();
};

readColors();
buildCharts();
connect();
