"""The playground in a browser: headless Chromium, driven over its DevTools protocol.

It plays for minutes, so it runs when it is asked to: EQUIPOISE_BROWSER=1 pytest tests/test_playground_browser.py.
EQUIPOISE_SCREENSHOTS names a folder for pictures of it.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import multiprocessing
import os
import shutil
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from loops import loop_over
from PIL import Image

pytest.importorskip("websockets", reason="needs the extra `playground`")

from websockets.sync.client import connect

from equipoise.core.plots import film
from equipoise.lab.playground.server import listening

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif("EQUIPOISE_BROWSER" not in os.environ, reason="plays for minutes: set EQUIPOISE_BROWSER=1"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
    pytest.mark.timeout(600),
]

SMALL = "generator.width=16&discriminator.width=16&batch_size=32"
PATIENCE = 200  # seconds that something may take on a busy machine


class Browser:
    """Chromium and its DevTools: commands go out, replies and events come in."""

    def __init__(self, socket):
        self.socket, self.ids, self.events = socket, itertools.count(1), []

    def call(self, method, session=None, **params):
        number = next(self.ids)
        message = {"id": number, "method": method, "params": params}
        self.socket.send(json.dumps(message if session is None else message | {"sessionId": session}))
        while True:
            reply = json.loads(self.socket.recv(timeout=PATIENCE))
            if reply.get("id") == number:
                assert "error" not in reply, (method, reply)
                return reply["result"]
            self.events.append(reply)

    @contextmanager
    def page(self, address, *, width=1400, height=900, dark=False):
        """A tab, once it shows a frame. At its end it had no error and asked for nothing elsewhere."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable", session)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", session, **size)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", session, features=scheme)
        self.call("Page.navigate", session, url=address)
        page = Page(self, session)
        page.until("document.readyState === 'complete' && setting !== null && frame !== null")
        try:
            yield page
        finally:
            self.call("Target.closeTarget", targetId=target)
        mine = [event for event in self.events if event.get("sessionId") == session]
        assert [event for event in mine if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")] == []
        asked = [event["params"]["request"]["url"] for event in mine if event["method"] == "Network.requestWillBeSent"]
        origin = address.partition("#")[0]
        assert len(asked) >= 3
        assert [url for url in asked if not url.startswith((origin, "data:"))] == []


class Page:
    def __init__(self, browser, session):
        self.browser, self.session = browser, session

    def js(self, code):
        reply = self.browser.call("Runtime.evaluate", self.session, expression=code, returnByValue=True)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    def until(self, condition):
        """Wait for a condition in JavaScript; names of the page may not be there yet."""
        end = time.monotonic() + PATIENCE
        while not self.js(f"(() => {{ try {{ return Boolean({condition}) }} catch {{ return false }} }})()"):
            assert time.monotonic() < end, f"never: {condition}\n{self.text('body')}"
            time.sleep(0.02)

    def text(self, selector):
        return self.js(f"document.querySelector({selector!r}).textContent")

    def click(self, selector):
        """With the mouse, so that something over it would be hit in its place."""
        place = f"document.querySelector({json.dumps(selector)})"
        self.js(f"{place}.scrollIntoView({{block: 'center'}})")
        x, y = self.js(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({place}.getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            mouse = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1}
            self.browser.call("Input.dispatchMouseEvent", self.session, **mouse)

    def press(self, key):
        self.browser.call("Input.dispatchKeyEvent", self.session, type="keyDown", key=key)

    def choose(self, path, value):
        self.fill(path, value, "select")

    def fill(self, path, value, tag="input"):
        """Give the knob at `path` a value, as if it was typed, and wait for the reply."""
        replies = self.js("nextId")
        place = f"document.querySelector({json.dumps(f'{tag}[data-path={json.dumps(path)}]')})"
        self.js(f"{place}.value = {json.dumps(value)}; {place}.dispatchEvent(new Event('change'))")
        self.until(f"nextId > {replies} && waiting.size === 0")

    def iteration(self):
        return self.js("Number(document.querySelector('#iteration').textContent)")

    def picture(self, name, selector=None):
        """A screenshot, kept if a folder for them is named."""
        more = {}
        if selector is not None:
            box = f"document.querySelector({selector!r}).getBoundingClientRect()"
            x, y, width, height = self.js(f"(({{x, y, width, height}}) => [x, y, width, height])({box})")
            more["clip"] = {"x": x, "y": y, "width": width, "height": height, "scale": 1}
        content = self.browser.call("Page.captureScreenshot", self.session, format="png", **more)["data"]
        image = Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")
        folder = os.environ.get("EQUIPOISE_SCREENSHOTS")
        if folder and name:
            Path(folder).mkdir(parents=True, exist_ok=True)
            image.save(Path(folder) / f"{name}.png", optimize=True)
        return image


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    profile = tmp_path_factory.mktemp("chromium")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
    hidden = ["--disable-dev-shm-usage", "--remote-debugging-port=0", f"--user-data-dir={profile}"]
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen([CHROMIUM, *options, *hidden], stderr=subprocess.PIPE, text=True, errors="replace")
        )
        stack.callback(process.terminate)
        said = next(line for line in process.stderr if "DevTools listening on" in line)
        threading.Thread(target=lambda: [None for _ in process.stderr], daemon=True).start()  # it must not fill up
        options = {"max_size": None, "compression": None, "close_timeout": 1}
        yield Browser(stack.enter_context(connect(said.split()[-1], **options)))


@pytest.fixture(scope="module")
def address():
    with listening("127.0.0.1", 0) as (server, at):
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield at
    thread.join()


def test_a_ring_with_r1_is_played_until_eight_modes_are_covered(browser, address, record_property):
    frames = []
    with browser.page(f"{address}#setting=R1") as page:
        assert page.js("document.querySelector('#settings').value") == "R1"
        page.picture("start")
        page.click("#play")
        page.until("frame.iteration > 20")
        assert page.text("#play") == "Pause"
        end = time.monotonic() + PATIENCE
        while page.js("!(frame.measures.modes === 8 && frame.measures.high_quality > 0.7)"):
            assert time.monotonic() < end, page.text("#modes")
            if not frames or page.iteration() >= frames[-1][0] + 60:
                frames.append((page.iteration(), page.picture("", "#plane").resize((300, 300))))
        page.until("document.querySelector('#speed').textContent.includes('frames')")
        record_property("speed", page.text("#speed"))
        print(f"at iteration {page.iteration()}: {page.text('#speed')}")
        page.click("#play")
        page.until("!frame.playing && document.querySelector('#play').textContent === 'Play'")
        assert page.text("#modes") == "8 / 8"
        assert int(page.text("#quality").split()[0]) > 60
        shown = page.picture("playground")
        stopped = page.iteration()
        time.sleep(0.3)
        assert page.iteration() == stopped
        assert len(set(shown.convert("L").tobytes())) > 50
    if folder := os.environ.get("EQUIPOISE_SCREENSHOTS"):
        images = [image.convert("RGB") for _, image in frames]
        (Path(folder) / "playground.webp").write_bytes(film(images, [100] * len(images)))


def test_the_buttons(browser, address):
    with browser.page(f"{address}#{SMALL}") as page:
        page.click("#step")
        page.until("frame.iteration === 1 && !frame.playing")
        page.click("#hundred")
        page.until("frame.iteration === 101 && !frame.playing")
        page.click("#reset")
        page.until("frame.iteration === 0 && run === frame.run")
        assert page.js("charts[0].lines[0].points.length") == 0
        page.js("document.activeElement.blur()")
        page.press("s")
        page.until("frame.iteration === 1 && !frame.playing")
        page.press(" ")
        page.until("frame.iteration > 5 && frame.playing")
        page.js("$('pace').value = '2'; $('pace').dispatchEvent(new Event('change'))")
        page.until("waiting.size === 0")
        for layer in ("real", "fake", "heat", "push"):
            before = page.js("$('plane').toDataURL()")
            page.click(f"#show-{layer}")
            page.until(f"$('plane').toDataURL() !== {json.dumps(before)}")


def test_a_knob_is_turned_while_it_runs(browser, address):
    with browser.page(f"{address}#{SMALL}") as page:
        page.click("#play")
        page.until("frame.iteration > 5")
        page.choose("loss", "Hinge")
        assert page.iteration() >= 5
        page.choose("terms", "R1")
        page.fill("terms.0.gamma", "0.5")
        assert page.js("location.hash") == (
            "#setting=minimax&generator.width=16&discriminator.width=16&loss=Hinge"
            "&terms=[R1(gamma=0.5,every=1)]&batch_size=32"
        )
        assert "gamma/2 ‖grad D(x)‖² on real images" in page.text("#knobs")  # the docstring
        assert page.js("[...$('changes').children].map((item) => item.textContent.split(': ')[1])") == [
            "terms=[R1(gamma=0.5,every=1)]",
            "terms=[R1(gamma=0.1,every=1)]",
            "loss=Hinge",
        ]
        assert page.js("frame.playing")
        page.click("button[aria-label='Remove R1']")
        page.until("setting.values.terms.length === 0")
        page.click("button[aria-label='D: width: more']")
        page.until("setting.values['discriminator.width'].text === '32'")
        page.until("document.querySelector('#notice').textContent.startsWith('Started anew: discriminator.width')")
        page.until("frame.run === run && frame.playing && frame.iteration > 0")  # it plays on


def test_knobs_of_words_and_of_numbers(browser, address):
    shown = "[...document.querySelectorAll(`[data-path='%s']`)].map((field) => field.value)"
    with browser.page(f"{address}#{SMALL}&d_steps=3") as page:
        assert page.js(shown % "d_steps") == ["1", "3"]  # "a fixed number", and which
        page.click("button[aria-label='number: more']")
        page.until("setting.values.d_steps.text === '4'")
        page.choose("d_steps", "ToConvergence")
        assert "&d_steps=ToConvergence(max_steps=100)" in page.js("location.hash")
        assert page.js(shown % "d_steps.window") == ["20"]
        assert page.js(shown % "head.scale") == ["norm"]
        page.click("input[data-path='head.san']")
        page.until("setting.values['head.san'].text === 'true'")
        page.choose("head.scale", "learned")
        assert page.js(shown % "head.scale") == ["learned"]
        assert "&head.scale=learned&" in page.js("location.hash")
        page.choose("terms", "FeatureMatching")
        page.choose("terms", "Orthogonal")
        page.fill("terms.1.player", "G")
        assert "&terms=[FeatureMatching,Orthogonal(player=G)]&" in page.js("location.hash")


def test_a_value_that_is_none_is_refused_beside_its_knob(browser, address):
    with browser.page(f"{address}#{SMALL}") as page:
        before = page.js("location.hash")
        page.fill("batch_size", "100000")
        said = "[...document.querySelectorAll('.wrong')].map((place) => place.textContent).filter(Boolean)"
        assert page.js(said) == [
            "batch_size=100000 is more than the playground takes, 1024: the page would have to wait"
        ]
        assert page.js("document.querySelector('input[data-path=batch_size]').value") == "100000"
        page.fill("d_optim.lr", "fast")
        (reason,) = page.js(said)
        assert reason.startswith("Adam.lr")
        page.fill("d_optim.lr", "<img src=x onerror=alert(1)>")
        assert "img" in page.js("document.querySelector('input[data-path=\"d_optim.lr\"]').value")
        page.fill("terms", "Consensus", "select")
        assert page.js(said) == []
        page.click("input[data-path='head.san']")
        page.until(f"({said}).length === 1")
        assert "Consensus(gamma=0.1, every=1) and head.san=true do not go together" in page.js(said)[0]
        assert page.js("document.querySelector('input[data-path=\"head.san\"]').checked") is False
        assert page.js("location.hash").replace("&terms=[Consensus(gamma=0.1)]", "") == before


def test_an_address_is_the_setting(browser, address):
    query = "setting=SN&data.of=Grid(side=3,std=0.1)&augment=InstanceNoise(std=Linear(start=0.5,end=0.0,kimg=20.0))"
    with browser.page(f"{address}#{query}") as page:
        shown = (
            "Object.fromEntries([...document.querySelectorAll('[data-path]')].map((f) => [f.dataset.path, f.value]))"
        )
        knobs = page.js(shown)
        assert knobs["data.of"] == "Grid"
        assert knobs["data.of.side"] == "3"
        assert knobs["d_normalizer"] == "SpectralNorm"
        assert knobs["loss"] == "Hinge"
        assert knobs["augment.std"] == "Linear(start=0.5,end=0.0,kimg=20.0)"
        assert page.js("location.hash") == f"#{query}"
        page.js("location.hash = '#setting=WGAN'")
        page.until("setting.name === 'WGAN' && $('settings').value === 'WGAN'")
        page.js("location.hash = '#loss=Hing'")
        page.until("$('notice').textContent.includes(\"takes a GANLoss, got 'Hing'\")")
        page.until("location.hash === '#setting=WGAN'")


def test_two_tabs_go_the_same_way_and_a_closed_one_trains_no_more(browser, address):
    with browser.page(f"{address}#{SMALL}") as a:
        with browser.page(f"{address}#{SMALL}") as b:
            assert len(multiprocessing.active_children()) == 2
            for page in (a, b):
                browser.call("Page.bringToFront", page.session)
                page.click("#hundred")
            points = []
            for page in (a, b):
                browser.call("Page.bringToFront", page.session)
                page.until("frame.iteration === 100")
                points.append(page.js("[...frame.points]"))
            assert points[0] == points[1]
            b.click("#play")
        end = time.monotonic() + PATIENCE
        while len(multiprocessing.active_children()) > 1:
            assert time.monotonic() < end
            time.sleep(0.02)
        browser.call("Page.bringToFront", a.session)
        a.click("#step")
        a.until("frame.iteration === 101")


@loop_over(("width", "height"), [(1400, 900), (1000, 640), (390, 800)])
@loop_over("dark", [False, True])
def test_it_fits_the_window(browser, address, width, height, dark):
    with browser.page(f"{address}#setting=R1&{SMALL}", width=width, height=height, dark=dark) as page:
        page.click("#hundred")
        page.until("frame.iteration === 100")
        page.js("scrollTo(0, 0)")
        image = page.picture(f"{width}-{'dark' if dark else 'light'}")
        assert (sum(image.resize((1, 1)).getpixel((0, 0))) < 3 * 128) == dark
        assert page.js("document.documentElement.scrollWidth") <= width
        wide = """[...document.querySelectorAll("#knobs :not(input, option, code), .tiles *")].filter(
            (part) => part.scrollWidth > part.clientWidth + 1 && getComputedStyle(part).display !== "inline"
        ).map((part) => part.outerHTML.slice(0, 100))"""
        assert page.js(wide) == []


def test_a_server_that_is_gone_is_told_and_called_again(browser):
    with listening("127.0.0.1", 0) as (server, at):
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with browser.page(f"{at}#{SMALL}") as page:
            page.click("#play")
            page.until("frame.iteration > 3")
            (process,) = multiprocessing.active_children()
            process.kill()
            page.until("!$('trouble').hidden && $('trouble').textContent.startsWith('The process that trained')")
            page.click("#trouble button")
            page.until("$('trouble').hidden && setting !== null && frame !== null && frame.iteration === 0")
            assert "generator.width=16" in page.js("location.hash")
    thread.join()
