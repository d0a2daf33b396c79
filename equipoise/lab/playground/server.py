"""The server of the playground: three files over HTTP, and a websocket for each tab, tied to a process that trains.

This is the only module that imports websockets, of the extra `playground`. It does not import torch.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import multiprocessing
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from equipoise.core.extras import install

try:
    from websockets.datastructures import Headers
    from websockets.exceptions import ConnectionClosed
    from websockets.http11 import Request, Response
    from websockets.sync.server import Server, ServerConnection
    from websockets.sync.server import serve as listen
except ImportError as error:
    raise ValueError(f"the playground needs websockets: {install('playground')}") from error

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

__all__ = ["DEFAULT_PORT", "listening", "serve"]

DEFAULT_PORT = 8421

FILES = {
    "/": ("page.html", "text/html"),
    "/playground.js": ("playground.js", "text/javascript"),
    "/style.css": ("style.css", "text/css"),
}
SOCKET = "/session"
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
MOST_SESSIONS = 4
MOST_BYTES = 2**14
"""Most bytes in a message from the page."""
LOGGER = logging.getLogger(__name__)
LOGGER.addHandler(logging.NullHandler())  # connections that ask for nothing are not worth a line


class Playground:
    """Handlers of the server for each request and each tab.

    host: name that the server listens on. The page answers to this name, localhost, the machine's name and addresses.
    sessions: most tabs that may train at once.
    """

    def __init__(self, host: str, *, sessions: int = MOST_SESSIONS):
        self.names = {"localhost", host.lower(), socket.gethostname().lower()}
        self.sessions, self.free = sessions, threading.BoundedSemaphore(sessions)
        self.open: set[ServerConnection] = set()
        self.processes = process_maker()

    # ---- HTTP --------------------------------------------------------------------------------------------

    def request(self, connection: ServerConnection, request: Request) -> Response | None:
        """A file of the page, or an error. None where a websocket may be opened.

        A page of any other server may make a browser send requests here. Two headers reveal it, which a page cannot
        set. `Host` is the name under which the page found this server: its own name, if it made that lead here (DNS
        rebinding). `Origin`, for a websocket, is the address of the page itself.
        """
        host = only(request.headers.get_all("Host"))
        if not self.knows(host):
            return connection.respond(
                HTTPStatus.FORBIDDEN, f"This server is not {host!r}: open it by the address that it printed.\n"
            )
        path = request.path.partition("?")[0]
        if path == SOCKET:
            if only(request.headers.get_all("Origin")) == f"http://{host}":
                return None
            return connection.respond(HTTPStatus.FORBIDDEN, "Only the page of this server may train on it.\n")
        if path not in FILES:
            return connection.respond(HTTPStatus.NOT_FOUND, f"{path} does not exist here. The page is /\n")
        name, kind = FILES[path]
        content = (Path(__file__).parent / name).read_bytes()
        headers = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(content)), "Connection": "close"}
        return Response(HTTPStatus.OK, "OK", Headers(headers | SECURITY), content)

    def knows(self, host: str) -> bool:
        """Whether `host` names this server. Any numeric address does: name servers cannot redirect an address."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return True

    # ---- tabs --------------------------------------------------------------------------------------------

    def session(self, page: ServerConnection) -> None:
        """Let a page train, if there is room."""
        if not self.free.acquire(blocking=False):
            refuse(page, f"{self.sessions} tabs are training, and this server takes no more: close one, then reload.")
            return
        self.open.add(page)
        try:
            self.pass_on(page)
        finally:
            self.open.discard(page)
            self.free.release()

    def pass_on(self, page: ServerConnection) -> None:
        """Pass messages between a page and a process of its own until one of them ends. Then end the other."""
        pipe, end = self.processes.Pipe()
        process = self.processes.Process(target=start, args=(end,), daemon=True)
        process.start()
        end.close()
        replies = threading.Thread(target=to_page, args=(pipe, page))
        replies.start()
        try:
            with suppress(ConnectionClosed, OSError):  # the page or the process ended abruptly
                for message in page:
                    pipe.send(message)
        finally:
            process.kill()
            process.join()
            replies.join()
            pipe.close()
            process.close()

    def stop(self) -> None:
        """Close all tabs' connections. Their processes end with them."""
        for page in list(self.open):
            page.close(1001)


IMPORTED = [f"{__package__}.worker", "torch._dynamo", "scipy.optimize"]
"""Imports that would cost each tab seconds: torch, and modules that torch imports at the first optimiser."""


def process_maker() -> ForkServerContext | SpawnContext:
    """Maker of processes that share nothing with this one. Where possible they start with `IMPORTED` imported."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing.forkserver import ensure_running

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    ensure_running()
    return context


def start(pipe: Connection) -> None:
    """Entry of the new process. The import is here, so that the server itself goes without torch."""
    from .worker import work

    work(pipe)


def to_page(pipe: Connection, page: ServerConnection) -> None:
    try:
        while True:
            page.send(pipe.recv())
    except ConnectionClosed:
        pass
    except (EOFError, OSError):
        refuse(page, "The process that trained for this page has ended. Reload to start another.")


def refuse(page: ServerConnection, reason: str) -> None:
    """Send the reason, and close the connection. Nothing happens if the page is gone."""
    with suppress(ConnectionClosed):
        page.send(json.dumps({"error": reason}))
    page.close(1013)


def only(values: list[str]) -> str:
    """The value of a header that is given exactly once; "" otherwise."""
    return values[0] if len(values) == 1 else ""


# ---- listening -------------------------------------------------------------------------------------------


@contextmanager
def listening(host: str, port: int, *, sessions: int = MOST_SESSIONS) -> Iterator[tuple[Server, str]]:
    """The server and the address of its page. The server answers once `serve_forever` is called.

    Raises:
        ValueError: if the server cannot listen on `host` and `port`.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        if not 0 <= port < 2**16:
            raise OSError("there is no such port")
        opened = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ValueError(
            f"cannot listen on {host}, port {port}: {error}. Give another port, such as --port {DEFAULT_PORT + 1}, or "
            "--port 0 for one that is free"
        ) from None
    playground = Playground(host, sessions=sessions)
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    with listen(
        playground.session,
        sock=opened,
        process_request=playground.request,
        max_size=MOST_BYTES,
        open_timeout=3,  # browsers open connections ahead, and shutdown waits for the idle ones
        close_timeout=2,
        compression=None,  # it would cost more time than this machine's own network
        logger=LOGGER,
    ) as server:
        try:
            yield server, f"http://{name}:{opened.getsockname()[1]}/"
        finally:
            playground.stop()


def serve(host: str | None, port: int | None, settings: Iterable[str], announce: Callable[[str], None]) -> None:
    """Serve the playground until Ctrl-C. `announce` gets the page's address.

    host: address to listen on; None is 127.0.0.1, which only this machine reaches.
    port: None is `DEFAULT_PORT`, and 0 takes a free port.
    settings: ``FIELD=VALUE``, or ``setting=NAME``, that the page begins with.

    Raises:
        ValueError: if the server cannot listen there, or a setting does not exist.
    """
    begin = fragment(settings)
    with listening(host or "127.0.0.1", DEFAULT_PORT if port is None else port) as (server, address):
        announce(f"The playground is at {address}{begin} (Ctrl-C ends it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


def fragment(settings: Iterable[str]) -> str:
    """The part of the address that holds the settings. Raises ValueError for an invalid setting."""
    given = "&".join(quote(setting, safe="=") for setting in settings)
    if not given:
        return ""
    from .setting import read, written  # imports torch, which the server otherwise does without

    return f"#{written(*read(given))}"
