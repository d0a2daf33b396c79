"""The playground's server: its page, tabs over real websockets, what it refuses, and the command."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from loops import loop_over
from tab import SMALL, TINY, opened
from typer.testing import CliRunner

from equipoise.cli.app import app
from equipoise.lab.playground.choices import catalogue
from equipoise.lab.playground.picture import SHOWN
from equipoise.lab.points.gan import PointGAN
from equipoise.lab.points.settings import SETTINGS

pytest.importorskip("websockets", reason="needs the extra `playground`")

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from equipoise.core import serving
from equipoise.lab.playground import server as servers

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "equipoise" / "lab" / "playground"


@pytest.fixture(scope="module")
def address():
    with servers.listening("127.0.0.1", 0, sessions=2) as (server, at):
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield at
    thread.join()


def processes_left(number):
    """Whether so many processes train in the end. One that goes does so at once, but not in no time."""
    for _ in range(400):
        if len(multiprocessing.active_children()) == number:
            return True
        time.sleep(0.05)
    return False


def get(address, path="/", **headers):
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
    for name, value in {"Host": parts.netloc, **headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    content = response.read().decode()
    connection.close()
    return response, content


@loop_over(
    ("path", "name", "kind"),
    [("/", "page.html", "html"), ("/playground.js", "playground.js", "javascript"), ("/style.css", "style.css", "css")],
)
def test_the_page_is_served_and_may_load_nothing_from_elsewhere(address, path, name, kind):
    response, content = get(address, path)
    assert response.status == 200
    assert response.headers["Content-Type"] == f"text/{kind}; charset=utf-8"
    assert content == (PAGE / name).read_text("utf-8")
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    links = content.replace("http://www.w3.org/2000/svg", "")  # a name, not a place
    assert "//" not in links.replace("ws://${location.host}", "") or name == "playground.js"
    assert "http" not in links.replace("http-equiv", "")


def test_there_is_nothing_else(address):
    for path in ("/server.py", "/../server.py", "/playground.js/..", "/favicon.ico", "//page.html"):
        assert get(address, path)[0].status == 404


@loop_over(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("[::1]:{port}", 200),
        ("192.168.1.7:{port}", 200),
        ("evil.example:{port}", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example:{port}", 403),
        ("[evil", 403),
        ("", 403),
    ],
)
def test_a_name_that_is_not_the_servers_is_refused(address, host, status):
    """A page of evil.example, which had its name lead to 127.0.0.1 after it was loaded, is of the server's origin."""
    host = host.format(port=urlsplit(address).port)
    assert get(address, Host=host)[0].status == status
    if status != 200:
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
        answer, _ = get(address, "/session", Host=host, Origin=f"http://{host}", **upgrade, **key)
        assert answer.status == 403


@loop_over("origin", ["http://evil.example", "http://127.0.0.1", "https://127.0.0.1:{port}", "null"])
def test_another_page_may_not_train(address, origin):
    origin = origin.format(port=urlsplit(address).port)
    with pytest.raises(InvalidStatus, match="HTTP 403"), opened(address, origin):
        pytest.fail("it is open")
    assert processes_left(0)


def test_without_an_origin_there_is_no_session(address):
    parts = urlsplit(address)
    with pytest.raises(InvalidStatus, match="HTTP 403"), connect(f"ws://{parts.netloc}/session", origin=None):
        pytest.fail("it is open")


def full(address):
    """Whether a third tab is told that there is no room, and closed."""
    with opened(address) as another:
        with pytest.raises(ConnectionClosed, match="1013"):
            another.drain()
        return another.first == {"error": "2 tabs are training, and this server takes no more: close one, then reload."}


def test_tabs_go_the_way_of_one_alone_and_end_when_they_are_closed(address):
    """Of so many as there is room for. One ends without the closing handshake, as when a browser is killed."""
    alone = PointGAN(TINY)
    for _ in range(40):
        alone.iterate()
    expected = alone.samples(SHOWN)
    with opened(address) as a, opened(address) as b:
        assert {setting["name"] for setting in a.first["settings"]} == set(SETTINGS)
        assert a.first["catalogue"] == catalogue()
        for tab in (a, b):
            assert tab.ask("start", setting=SMALL)["iteration"] == 0
        a.socket.send(json.dumps({"id": 0, "do": "step", "iterations": 40}))  # both at once
        b.ask("step", iterations=40)

        for tab in (a, b):
            while tab.frame is None or tab.frame[0]["iteration"] < 40:
                tab.next()
            torch.testing.assert_close(torch.from_numpy(tab.frame[1]["points"].copy()), expected, rtol=0, atol=0)
        assert full(address)
        assert len(multiprocessing.active_children()) == 2
        assert a.ask("set", changes={"loss": "Hinge"})["setting"]["query"].startswith("setting=minimax&")
        assert "loss" not in b.ask("pause")["setting"]["query"]
        a.ask("play")
        a.socket.close()  # while it trains
        assert processes_left(1)
        assert b.ask("step", iterations=1)["playing"]
        with opened(address) as another:  # there is room again
            assert another.ask("play")["playing"]
            assert processes_left(2)
            another.socket.socket.shutdown(socket.SHUT_RDWR)
            assert processes_left(1)
    assert processes_left(0)


def test_what_is_too_long_closes_the_tab_and_a_process_that_dies_is_reported_to_its_page(address):
    with opened(address) as tab, opened(address) as other:
        tab.socket.send("x" * (serving.MOST_BYTES + 1))
        with pytest.raises(ConnectionClosed, match="1009"):
            tab.drain()
        assert processes_left(1)
        assert "error" not in other.ask("pause")
        other.socket.send(b"bytes")
        while (reply := other.next()) is None:
            pass
        assert reply["error"]
        other.ask("play")
        (process,) = multiprocessing.active_children()
        os.kill(process.pid, signal.SIGKILL)
        while (message := other.next()) is None:
            pass
        assert message == {"error": "The process that trained for this page has ended. Reload to start another."}
    assert processes_left(0)


def test_a_port_that_is_taken_or_a_place_that_is_not_ours():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ValueError, match=rf"cannot listen on 127\.0\.0\.1, port {port}: .*in use.*--port 0"),
            servers.listening("127.0.0.1", port),
        ):
            pytest.fail("it listens")
    for host, number in (("203.0.113.1", 0), ("nobody.invalid", 0), ("127.0.0.1", 70000)):
        with (
            pytest.raises(ValueError, match=f"cannot listen on {host}, port {number}"),
            servers.listening(host, number),
        ):
            pytest.fail("it listens")


# ---- the command -----------------------------------------------------------------------------------------


def command(*arguments):
    result = CliRunner().invoke(app, ["lab", *arguments])
    return result.exit_code, result.output


def test_the_command_lists_the_playground_and_says_what_is_wrong():
    assert "playground " in command()[1]
    assert command("saturation", "--port", "1")[0] == 2
    assert "--host and --port belong to `equipoise lab playground`" in command("saturation", "--host", "x")[1]
    code, said = command("playground", "--out", "figures")
    assert code == 2
    assert "the playground writes no files: --out belongs to experiments" in said
    code, said = command("playground", "loss=Hing")
    assert code == 2
    assert "takes a GANLoss, got 'Hing'" in said
    assert "did you mean 'playground'" in command("playgroud")[1]


def test_the_command_serves_until_it_is_interrupted():
    """In a process of its own, which goes without torch until a tab is opened, and takes its tabs with it."""
    code = """if True:
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is born deaf to Ctrl-C
        from equipoise.cli.app import app
        app(["lab", "playground", "--port", "0"])
    """
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.readline()
        address = said.split()[4]
        assert said == f"The playground is at {address} (Ctrl-C ends it)\n"
        assert address.startswith("http://127.0.0.1:")
        with opened(address) as tab:
            tab.ask("play")
            process.send_signal(signal.SIGINT)
            with pytest.raises(ConnectionClosed):
                tab.drain()
        assert process.wait(timeout=60) == 0


def test_the_server_does_not_import_torch():
    code = "import sys, equipoise.lab.playground.server; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.stdout == "False\n", done.stderr


def test_without_websockets_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "websockets.sync.server", None)
    monkeypatch.delitem(sys.modules, "equipoise.core.serving")
    monkeypatch.delitem(sys.modules, "equipoise.lab.playground.server")
    code, said = command("playground", "--port", "0")
    assert code == 2
    assert "pages in the browser need websockets: pip install -c constraints.txt '.[playground]'" in said
