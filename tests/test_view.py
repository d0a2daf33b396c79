"""The page of `equipoise show`: its pictures and refusals over HTTP, and in headless Chromium where there is one."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import sys
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from io import BytesIO
from urllib.parse import quote

import numpy as np
import pytest
from loops import loop_over
from PIL import Image
from styled import Styled, build
from tiny import recipe
from typer.testing import CliRunner

from equipoise.cli.app import app
from equipoise.config import override
from equipoise.core.types import ImageSpec
from equipoise.generate import Generator, interpolate, latent, mixing_grid, save_generator, truncated
from equipoise.rules import Evaluate
from equipoise.train import train
from equipoise.view import Pictures

pytest.importorskip("websockets", reason="needs the extra `playground`")

from browser import CHROMIUM, chromium
from test_playground_server import get

from equipoise.core import serving
from equipoise.view import server as shown
from equipoise.view.pictures import most_images

SPEC = ImageSpec(16, 3, num_classes=4)


@contextmanager
def served(pictures):
    with serving.listening(shown.site(pictures), "127.0.0.1", 0) as (server, address):
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield address
        server.shutdown()
    thread.join()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A conditional run of digits, with a best/."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    evaluation = Evaluate(every_kimg=0.1, num=20, features="digits")
    train(override(recipe(), {"report.evaluation": evaluation}), folder)
    return folder


@pytest.fixture(scope="module")
def styled(tmp_path_factory):
    """An exported folder of a style-based generator in colour, with classes."""
    folder = tmp_path_factory.mktemp("styled")
    save_generator(build(Styled(z_dim=3, noise=0.1), SPEC), folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def of_run(run):
    with served(Pictures(run)) as address:
        yield address


@pytest.fixture(scope="module")
def of_styled(styled):
    with served(Pictures(styled, {"Styled": Styled})) as address:
        yield address


def fetch(address, path):
    """A picture as pixels (H, W, C), the facts as a dictionary, or a refusal: (status, text)."""
    try:
        with urllib.request.urlopen(address + path, timeout=60) as reply:
            content, kind = reply.read(), reply.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    if kind == "application/json":
        return json.loads(content)
    assert kind == "image/png"
    pixels = np.asarray(Image.open(BytesIO(content)))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def cells(picture, size):
    """The images of a grid, row by row."""
    h, w, c = picture.shape
    return picture.reshape(h // size, size, w // size, size, c).swapaxes(1, 2).reshape(-1, size, size, c)


def test_the_page_is_served_and_loads_nothing_from_elsewhere(of_run):
    for path, kind in (("/", "html"), ("/show.js", "javascript"), ("/show.css", "css")):
        response, content = get(of_run, path)
        assert (response.status, response.headers["Content-Type"]) == (200, f"text/{kind}; charset=utf-8")
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert "//" not in content.replace("http://www.w3.org/2000/svg", "") or path == "/show.js"
        assert "http" not in content.replace("http://www.w3.org/2000/svg", "")
    for path in ("/server.py", "/../server.py", "/favicon.ico", "/samples.png/", "/session"):
        assert get(of_run, path)[0].status == 404
    assert get(of_run, "/samples.png", Host="evil.example")[0].status == 403
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(urllib.request.Request(f"{of_run}samples.png", method="POST"), timeout=60)
    for site in ("cross-site", "same-site"):
        assert get(of_run, "/samples.png", **{"Sec-Fetch-Site": site})[0].status == 403


def test_samples_are_those_of_the_generator(of_run, run):
    G = Generator.from_pretrained(run)
    np.testing.assert_array_equal(cells(fetch(of_run, "samples.png?seed=3&num=12&columns=4"), 28), G.sample(12, seed=3))
    of_class = fetch(of_run, "samples.png?num=4&columns=2&label=7&truncation=0.5")
    np.testing.assert_array_equal(cells(of_class, 28), truncated(G, 0.5).sample(4, classes=[7]))
    best = Generator.from_pretrained(run / "best")
    np.testing.assert_array_equal(cells(fetch(of_run, "samples.png?num=4&columns=4&which=best"), 28), best.sample(4))
    facts = fetch(of_run, "about.json")
    assert (facts["resolution"], facts["classes"], facts["layers"], facts["nimg"]) == (28, 10, 0, 160)
    assert facts["which"] == ["latest", "best"]


def test_a_walk_goes_from_one_image_to_the_other(of_run, run):
    G = Generator.from_pretrained(run)
    strip = cells(fetch(of_run, "walk.png?seed=1&index=2&to_seed=5&to_index=3&to_label=9&frames=6&columns=3"), 28)
    np.testing.assert_array_equal(strip[0], G.sample(3, seed=1)[2])
    ends = latent(G, 2, seed=1), latent(G, 3, seed=5, label=9)
    np.testing.assert_array_equal(strip, interpolate(G, *ends, 6))


def test_styles_are_truncated_and_mixed(of_styled, styled):
    G = Generator.from_pretrained(styled, {"Styled": Styled})
    plain = cells(fetch(of_styled, "samples.png?num=6&columns=6"), 16)
    np.testing.assert_array_equal(plain, G.sample(6))
    average = cells(fetch(of_styled, "samples.png?num=6&columns=6&psi=0"), 16)
    assert (average == average[0]).all()
    coarse = cells(fetch(of_styled, "samples.png?num=6&columns=6&psi=0&cutoff=1"), 16)
    assert not (coarse == coarse[0]).all()
    assert not np.array_equal(coarse, plain)
    table = fetch(of_styled, "mix.png?rows=0,2&columns=1,3,4&layers=0,1&label=2")
    expected, columns = mixing_grid(G, [0, 2], [1, 3, 4], [0, 1], label=2)
    assert table.shape[1] == columns * 16
    np.testing.assert_array_equal(cells(table, 16), expected)
    assert fetch(of_styled, "about.json")["layers"] == 4


@loop_over(
    ("query", "said"),
    [
        ("samples.png?sed=1", "no field 'sed'.*'seed'"),
        ("samples.png?seed=-1", r"Samples\.seed.*-1"),
        ("samples.png?seed=1.5", r"Samples\.seed.*1\.5"),
        ("samples.png?seed=", r"Samples\.seed"),
        ("samples.png?seed=1e9", r"Samples\.seed"),
        (f"samples.png?seed={2**63}", r"Samples\.seed"),
        (f"samples.png?seed={'9' * 7000}", "at most 1000 digits"),
        ("samples.png?seed=1&seed=2", "seed is given twice"),
        ("samples.png?seed", "."),
        ("samples.png?seed=%ff", "."),
        ("samples.png?num=0", r"Samples\.num"),
        ("samples.png?num=101", r"Samples\.num"),
        ("samples.png?label=10", "no class 10"),
        ("samples.png?label=-1", "no class -1"),
        ("samples.png?truncation=0", r"Samples\.truncation"),
        ("samples.png?truncation=nan", r"Samples\.truncation"),
        ("samples.png?psi=0.7", "needs a generator with a space of styles"),
        ("samples.png?which=worst", r"Samples\.which"),
        ("samples.png?seed=" + quote("__import__('os').system('true')"), "cannot read|unknown component"),
        ("samples.png?seed=" + quote("(" * 200), "cannot read"),
        ("walk.png?frames=1", r"Walk\.frames"),
        ("walk.png?path=round", r"Walk\.path"),
        ("walk.png?index=10000", r"Walk\.index"),
        ("mix.png", "needs a generator with a space of styles"),
        ("about.json?which=0", r"Samples\.which"),
        ("samples.png?" + "&".join(f"a{i}=1" for i in range(60)), "."),
    ],
)
def test_a_bad_query_is_refused_in_a_sentence(of_run, query, said):
    status, text = fetch(of_run, query)
    assert status == 400, text
    assert re.search(said, text), text
    assert len(text) < 1500


@loop_over(
    ("query", "said"),
    [
        ("mix.png?layers=4", "no layer 4"),
        ("mix.png?layers=()", "at least one row, column and layer"),
        ("mix.png?rows=0,x", r"Mix\.rows"),
        ("mix.png?rows=" + ",".join(map(str, range(40))), "205 images of 16x16 pixels are more.*at most 100"),
        ("samples.png?psi=0.5&cutoff=5", "cutoff from 1 to 4"),
        ("samples.png?which=best", "holds no generator"),
        ("samples.png?psi=inf", r"Samples\.psi"),
    ],
)
def test_a_bad_query_about_styles_is_refused(of_styled, query, said):
    status, text = fetch(of_styled, query)
    assert status == 400
    assert re.search(said, text), text


def test_large_images_are_drawn_a_few_at_a_time():
    def of(size):
        return most_images(build(Styled(num_ws=1, w_dim=1), ImageSpec(size, 1)))

    assert [of(16), of(512), of(1024)] == [100, 64, 16]


def test_a_generator_that_is_written_anew_is_read_again(run, tmp_path):
    shutil.copytree(run / "generator", tmp_path / "generator")
    pictures = Pictures(tmp_path)
    before = pictures.about({})
    G = Generator.from_pretrained(tmp_path)
    save_generator(dataclasses.replace(G, nimg=999), tmp_path / "generator" / "generator.safetensors")
    os.utime(tmp_path / "generator" / "generator.safetensors", (1, 1))
    assert (before["nimg"], pictures.about({})["nimg"]) == (160, 999)
    shutil.rmtree(tmp_path / "generator")
    with pytest.raises(ValueError, match="holds no generator"):
        pictures.about({})


# ---- the command -----------------------------------------------------------------------------------------


def command(*arguments):
    result = CliRunner().invoke(app, ["show", *map(str, arguments)])
    return result.exit_code, result.output


def test_the_command_listens_on_this_machine_and_opens_a_browser_if_it_may(run, monkeypatch):
    opened, at = [], []

    class Ended:
        def serve_forever(self):
            raise KeyboardInterrupt

    @contextmanager
    def listening(site, host, port):
        at.append((host, port))
        yield Ended(), f"http://{host}:{port}/"

    monkeypatch.setattr(serving, "listening", listening)
    monkeypatch.setattr(serving.webbrowser, "open", opened.append)
    monkeypatch.setattr(serving, "has_desktop", lambda: True)
    code, said = command(run)
    assert (code, at, opened) == (0, [("127.0.0.1", 8422)], ["http://127.0.0.1:8422/"])
    assert f"{run} is shown at http://127.0.0.1:8422/ (Ctrl-C ends it)" in said
    assert command(run / "best", "--no-browser", "--host", "0.0.0.0", "--port", 0)[0] == 0
    assert (at[1:], len(opened)) == ([("0.0.0.0", 0)], 1)
    monkeypatch.setattr(serving, "has_desktop", lambda: False)
    command(run)
    assert len(opened) == 1


def test_the_command_says_what_is_wrong(tmp_path, monkeypatch):
    code, said = command(tmp_path)
    assert code == 2
    assert "holds no generator: give a run" in said
    assert command(tmp_path, "--port", 70000)[0] == 2
    monkeypatch.setitem(sys.modules, "websockets.sync.server", None)
    monkeypatch.delitem(sys.modules, "equipoise.core.serving")
    monkeypatch.delitem(sys.modules, "equipoise.view.server")
    code, said = command(tmp_path)
    assert code == 2
    assert "pages in the browser need websockets: pip install -c constraints.txt '.[playground]'" in said


# ---- in the browser --------------------------------------------------------------------------------------

READY = "drawn !== null && busy === 0"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with chromium(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


def act(page, code):
    """Do something, and wait for the picture that it asks for."""
    before = page.js("last")
    page.js(code)
    page.until(f"last > {before} && {READY}")


def change(identity, value):
    return f"$('{identity}').value = '{value}'; $('{identity}').dispatchEvent(new Event('change', {{bubbles: true}}))"


def fits(page):
    return page.js("document.documentElement.scrollWidth <= innerWidth")


def test_a_run_in_the_browser(browser, of_run):
    with browser.page(of_run, READY, width=1300, height=850) as page:
        page.picture("show-run")
        assert fits(page)
        assert page.js("$('picture').naturalWidth * $('picture').naturalHeight") == 36 * 28 * 28
        assert page.js("[$('tab-mix').hidden, $('truncation-of-w').hidden, $('of').hidden]") == [True, True, False]
        first = page.js("$('one').toDataURL()")
        act(page, change("seed", 4))
        assert page.js("location.hash") == "#tab=samples&seed=4"
        assert page.js("$('one').toDataURL()") != first
        page.js("$('picture').onclick({target: $('picture'), offsetX: $('picture').clientWidth - 3, offsetY: 3})")
        columns = page.js("drawn.columns")
        assert page.text("#name") == f"Image {columns - 1} of seed 4"
        assert page.js("$('download-one').download") == f"seed-4-image-{columns - 1}.png"
        assert page.js("$('download').href.startsWith('blob:') && $('download').download.endsWith('.png')")
        act(page, "$('walk-to').click()")
        assert page.js("[$('to-seed').value, $('to-index').value, tab]") == ["4", str(columns - 1), "walk"]
        page.js("$('at').value = $('at').max; $('at').oninput()")
        assert page.js("$('film').width") == 28
        page.picture("show-walk")


def test_a_refusal_is_shown_and_goes(browser, of_run):
    with browser.page(of_run, READY, refused=1) as page:
        before = page.js("$('picture').src")
        act(page, change("seed", -5))
        assert "Samples.seed" in page.text("#trouble")
        assert page.js("$('picture').src") == before
        act(page, change("seed", 5))
        assert page.js("$('trouble').hidden")


def test_styles_in_the_browser_on_a_phone(browser, of_styled):
    with browser.page(f"{of_styled}#psi=0.5", READY, width=390, height=844, dark=True) as page:
        page.picture("show-phone")
        assert fits(page)
        half = page.js("$('picture').src")
        act(page, change("psi", 1))
        assert page.js("$('picture').src") != half
        act(page, "$('tab-mix').click()")
        assert page.js("$('picture').naturalWidth / 16") == 5
        assert fits(page)
        page.picture("show-mix")
