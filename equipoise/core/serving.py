"""A server of pages for browsers on this machine: files, answers to requests, websockets. It does not import torch.

This is the only module of the package that imports websockets, of the extra `playground`.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import sys
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from .extras import install

try:
    from websockets.datastructures import Headers
    from websockets.exceptions import ConnectionClosed
    from websockets.http11 import Request, Response
    from websockets.sync.server import Server, ServerConnection
    from websockets.sync.server import serve as listen
except ImportError as error:
    raise ValueError(f"pages in the browser need websockets: {install('playground')}") from error

__all__ = [
    "ConnectionClosed",
    "Request",
    "Response",
    "Server",
    "ServerConnection",
    "Site",
    "listening",
    "only",
    "reply",
    "serve",
]

SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
MOST_BYTES = 2**14
"""Most bytes in a message from a page."""
LOGGER = logging.getLogger(__name__)
LOGGER.addHandler(logging.NullHandler())  # connections that ask for nothing are not worth a line


class Site(NamedTuple):
    """The contents of a server.

    folder: of the page's files.
    files: name in `folder` and media type, by path.
    answer: called with a request for any other path and the name in its `Host` header -> the response; None where a
        websocket may be opened.
    session: called with each open websocket, in a thread of its own.
    stop: called when the server ends.
    """

    folder: Path
    files: Mapping[str, tuple[str, str]]
    answer: Callable[[Request, str], Response | None]
    session: Callable[[ServerConnection], None] = lambda _: None
    stop: Callable[[], None] = lambda: None


class Doorkeeper:
    """Handler of requests, which lets in browsers that found this server by its own name.

    host: name that the server listens on. The page answers to this name, localhost, the machine's name and addresses.
    """

    def __init__(self, site: Site, host: str):
        self.site, self.names = site, {"localhost", host.lower(), socket.gethostname().lower()}

    def request(self, _: ServerConnection, request: Request) -> Response | None:
        """A file of the page, an answer, or an error. None where a websocket may be opened.

        A page of any other server may make a browser send requests here. Two headers reveal it, which a page cannot
        set. `Host` is the name under which the page found this server: its own name, if it made that lead here (DNS
        rebinding). `Origin`, for a websocket, is the address of the page itself.
        """
        method = getattr(request, "method", "GET")  # earlier versions of websockets let nothing else through
        if method != "GET":
            return reply(f"{method} is not for this server: use GET.\n", HTTPStatus.METHOD_NOT_ALLOWED)
        host = only(request.headers.get_all("Host"))
        if not self.knows(host):
            text = f"This server is not {host!r}: open it by the address that it printed.\n"
            return reply(text, HTTPStatus.FORBIDDEN)
        path = request.path.partition("?")[0]
        if path not in self.site.files:
            return self.site.answer(request, host)
        name, kind = self.site.files[path]
        return reply((self.site.folder / name).read_bytes(), kind=f"{kind}; charset=utf-8")

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


def reply(
    content: bytes | str, status: HTTPStatus = HTTPStatus.OK, kind: str = "text/plain; charset=utf-8"
) -> Response:
    """A response with the headers that every response has."""
    body = content.encode() if isinstance(content, str) else content
    headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close"}
    return Response(status, status.phrase, Headers(headers | SECURITY), body)


def only(values: list[str]) -> str:
    """The value of a header that is given exactly once; "" otherwise."""
    return values[0] if len(values) == 1 else ""


@contextmanager
def listening(site: Site, host: str, port: int) -> Iterator[tuple[Server, str]]:
    """The server of `site` and the address of its page. The server answers once `serve_forever` is called.

    port: 0 takes a free port.

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
            f"cannot listen on {host}, port {port}: {error}. Give another port, such as --port "
            f"{port + 1 if 0 < port < 2**16 - 1 else 8500}, or --port 0 for one that is free"
        ) from None
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    with listen(
        site.session,
        sock=opened,
        process_request=Doorkeeper(site, host).request,
        max_size=MOST_BYTES,
        open_timeout=3,  # browsers open connections ahead, and shutdown waits for the idle ones
        close_timeout=2,
        compression=None,  # it would cost more time than this machine's own network
        logger=LOGGER,
    ) as server:
        try:
            yield server, f"http://{name}:{opened.getsockname()[1]}/"
        finally:
            site.stop()


def serve(site: Site, host: str | None, port: int, announce: Callable[[str], None], *, browser: bool = False) -> None:
    """Serve `site` until Ctrl-C.

    host: address to listen on; None is 127.0.0.1, which only this machine reaches.
    port: 0 takes a free port.
    announce: called with the page's address.
    browser: open the page in the browser, where there is a desktop.

    Raises:
        ValueError: if the server cannot listen there.
    """
    with listening(site, host or "127.0.0.1", port) as (server, address):
        announce(address)
        if browser and has_desktop():
            webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


def has_desktop() -> bool:
    """Whether a window can open. Without one, `webbrowser` would start a browser in the terminal."""
    return sys.platform in ("win32", "darwin") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())
