"""The playground in a browser: headless Chromium, driven over its DevTools protocol.

It plays for minutes, so it runs when it is asked to: EQUIPOISE_BROWSER=1 pytest tests/test_playground_browser.py.
EQUIPOISE_SCREENSHOTS names a folder for pictures of it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest
from loops import loop_over

pytest.importorskip("websockets", reason="needs the extra `playground`")

from browser import CHROMIUM, PATIENCE, chromium

from equipoise.core.plots import film
from equipoise.lab.playground.server import listening

pytestmark = [
    pytest.mark.skipif("EQUIPOISE_BROWSER" not in os.environ, reason="plays for minutes: set EQUIPOISE_BROWSER=1"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
    pytest.mark.timeout(600),
]

SMALL = "generator.width=16&discriminator.width=16&batch_size=32"
READY = "setting !== null && frame !== null"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(scope="module")
def address():
    with listening("127.0.0.1", 0) as (server, at):
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield at
    thread.join()


def test_a_ring_with_r1_is_played_until_eight_modes_are_covered(browser, address, record_property):
    frames = []
    with browser.page(f"{address}#setting=R1", READY) as page:
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
    with browser.page(f"{address}#{SMALL}", READY) as page:
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
    with browser.page(f"{address}#{SMALL}", READY) as page:
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
    with browser.page(f"{address}#{SMALL}&d_steps=3", READY) as page:
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
    with browser.page(f"{address}#{SMALL}", READY) as page:
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
    with browser.page(f"{address}#{query}", READY) as page:
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
    with browser.page(f"{address}#{SMALL}", READY) as a:
        with browser.page(f"{address}#{SMALL}", READY) as b:
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
    with browser.page(f"{address}#setting=R1&{SMALL}", READY, width=width, height=height, dark=dark) as page:
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
        with browser.page(f"{at}#{SMALL}", READY) as page:
            page.click("#play")
            page.until("frame.iteration > 3")
            (process,) = multiprocessing.active_children()
            process.kill()
            page.until("!$('trouble').hidden && $('trouble').textContent.startsWith('The process that trained')")
            page.click("#trouble button")
            page.until("$('trouble').hidden && setting !== null && frame !== null && frame.iteration === 0")
            assert "generator.width=16" in page.js("location.hash")
    thread.join()
