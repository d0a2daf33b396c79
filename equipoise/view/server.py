"""The server of `equipoise show`: a page that draws images of a generator."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from equipoise.core import serving
from equipoise.core.serving import Request, Response, Site, reply

from .pictures import Mix, Pictures, Query, Samples, Walk, asked, fields_of

__all__ = ["DEFAULT_PORT", "serve", "site"]

DEFAULT_PORT = 8422

FILES = {
    "/": ("page.html", "text/html"),
    "/show.js": ("show.js", "text/javascript"),
    "/show.css": ("show.css", "text/css"),
}
DRAWN: Mapping[str, type[Query]] = {"/samples.png": Samples, "/walk.png": Walk, "/mix.png": Mix}


def site(pictures: Pictures) -> Site:
    """The page, its pictures, and facts about the generator."""

    def answer(request: Request, _: str) -> Response:
        path, _, query = request.path.partition("?")
        if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return reply("Only the page of this server may draw here.\n", HTTPStatus.FORBIDDEN)
        try:
            if path == "/about.json":
                return reply(json.dumps(pictures.about(fields_of(query))), kind="application/json")
            if path in DRAWN:
                return reply(pictures.draw(asked(DRAWN[path], fields_of(query))), kind="image/png")
        except ValueError as error:
            return reply(f"{error}\n", HTTPStatus.BAD_REQUEST)
        except (RuntimeError, MemoryError, OSError) as error:  # too little memory; a run that was removed
            return reply(f"cannot draw: {str(error).partition(chr(10))[0]}\n", HTTPStatus.INTERNAL_SERVER_ERROR)
        return reply(f"{path} does not exist here. The page is /\n", HTTPStatus.NOT_FOUND)

    return Site(Path(__file__).parent, FILES, answer)


def serve(
    place: Path,
    host: str | None,
    port: int | None,
    announce: Callable[[str], None],
    *,
    known: Mapping[str, Any] | None = None,
    browser: bool = False,
) -> None:
    """Serve the page of the generator in `place` until Ctrl-C.

    place, known: as in `Pictures`.
    host: address to listen on; None is 127.0.0.1, which only this machine reaches.
    port: None is `DEFAULT_PORT`, and 0 takes a free port.
    announce: called with a sentence that names the page's address.
    browser: open the page in the browser, where there is a desktop.

    Raises:
        ValueError: if there is no generator, or the server cannot listen there.
    """
    serving.serve(
        site(Pictures(place, known)),
        host,
        DEFAULT_PORT if port is None else port,
        lambda address: announce(f"{place} is shown at {address} (Ctrl-C ends it)"),
        browser=browser,
    )
