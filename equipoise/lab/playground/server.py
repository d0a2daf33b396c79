"""The server of the playground: three files over HTTP, and a websocket for each tab, tied to a process that trains.

It does not import torch.
"""

from __future__ import annotations

import json
import multiprocessing
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from equipoise.core import serving
from equipoise.core.serving import ConnectionClosed, Request, Response, Server, ServerConnection, Site, only, reply

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
MOST_SESSIONS = 4


class Playground:
    """Handlers of the server for each request and each tab.

    sessions: most tabs that may train at once.
    """

    def __init__(self, sessions: int = MOST_SESSIONS):
        self.sessions, self.free = sessions, threading.BoundedSemaphore(sessions)
        self.open: set[ServerConnection] = set()
        self.processes = process_maker()

    @property
    def site(self) -> Site:
        return Site(Path(__file__).parent, FILES, self.answer, self.session, self.stop)

    def answer(self, request: Request, host: str) -> Response | None:
        """None where the page may open its websocket, else an error. Any page of another server is refused."""
        path = request.path.partition("?")[0]
        if path != SOCKET:
            return reply(f"{path} does not exist here. The page is /\n", HTTPStatus.NOT_FOUND)
        if only(request.headers.get_all("Origin")) == f"http://{host}":
            return None
        return reply("Only the page of this server may train on it.\n", HTTPStatus.FORBIDDEN)

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


# ---- listening -------------------------------------------------------------------------------------------


@contextmanager
def listening(host: str, port: int, *, sessions: int = MOST_SESSIONS) -> Iterator[tuple[Server, str]]:
    """The server and the address of its page, as `core.serving.listening`."""
    with serving.listening(Playground(sessions).site, host, port) as (server, address):
        yield server, address


def serve(host: str | None, port: int | None, settings: Iterable[str], announce: Callable[[str], None]) -> None:
    """Serve the playground until Ctrl-C. `announce` gets the page's address.

    host: address to listen on; None is 127.0.0.1, which only this machine reaches.
    port: None is `DEFAULT_PORT`, and 0 takes a free port.
    settings: ``FIELD=VALUE``, or ``setting=NAME``, that the page begins with.

    Raises:
        ValueError: if the server cannot listen there, or a setting does not exist.
    """
    begin = fragment(settings)
    serving.serve(
        Playground().site,
        host,
        DEFAULT_PORT if port is None else port,
        lambda address: announce(f"The playground is at {address}{begin} (Ctrl-C ends it)"),
    )


def fragment(settings: Iterable[str]) -> str:
    """The part of the address that holds the settings. Raises ValueError for an invalid setting."""
    given = "&".join(quote(setting, safe="=") for setting in settings)
    if not given:
        return ""
    from .setting import read, written  # imports torch, which the server otherwise does without

    return f"#{written(*read(given))}"
