"""Headless Chromium, driven over its DevTools protocol. EQUIPOISE_SCREENSHOTS names a folder for pictures of pages."""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import shutil
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

from PIL import Image
from websockets.sync.client import connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
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
    def page(self, address, ready, *, width=1400, height=900, dark=False, refused=0):
        """A tab, once `ready` holds in it. At its end it had no error and asked for nothing elsewhere.

        refused: number of requests that the server answers with an error; the console names each.
        """
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
        page.until(f"document.readyState === 'complete' && {ready}")
        try:
            yield page
        finally:
            self.call("Target.closeTarget", targetId=target)
        mine = [event for event in self.events if event.get("sessionId") == session]
        wrong = [event for event in mine if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
        assert len(wrong) == refused, wrong
        asked = [event["params"]["request"]["url"] for event in mine if event["method"] == "Network.requestWillBeSent"]
        origin = address.partition("#")[0]
        assert len(asked) >= 3
        assert [url for url in asked if not url.startswith((origin, "data:", f"blob:{origin}"))] == []


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


@contextmanager
def chromium(profile):
    """Headless Chromium, with its profile in a folder."""
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
