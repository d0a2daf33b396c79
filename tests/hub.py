"""A Hub on this machine: repositories in memory, served over HTTP to huggingface_hub, or by a stand-in of that package.

The stand-in has the four calls that `equipoise.runs.hub` makes, and raises errors of the package's names.
"""

from __future__ import annotations

import base64
import contextlib
import fnmatch
import hashlib
import importlib.util
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

__all__ = ["REAL", "Hub", "served"]

REAL = importlib.util.find_spec("huggingface_hub") is not None
TOKEN = "hf_of_the_tests"


@dataclass
class Hub:
    """repos: name -> path -> content.  private: names.  asked: paths of files that were fetched."""

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    online: bool = True
    token: str | None = TOKEN

    def commit(self, name: str) -> str:
        files = sorted((path, hashlib.sha1(content).hexdigest()) for path, content in self.repos[name].items())
        return hashlib.sha1(json.dumps([name, files]).encode()).hexdigest()


@contextlib.contextmanager
def served(cache: Path, monkeypatch: Any) -> Iterator[Hub]:
    """A Hub that `import huggingface_hub` speaks to: the package, if it is installed, else its stand-in."""
    hub = Hub()
    for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)  # it reads its settings when it is imported
    if not REAL:
        monkeypatch.setitem(sys.modules, "huggingface_hub", StandIn(hub, cache))
        yield hub
        return
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": hub}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(cache), "HF_TOKEN": TOKEN}
    for name, value in (settings | {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}).items():
        monkeypatch.setenv(name, value)
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


# ---- a stand-in of the package ---------------------------------------------------------------------------


class RepositoryNotFoundError(Exception):
    pass


class LocalEntryNotFoundError(Exception):
    pass


class StandIn(SimpleNamespace):
    """The calls of huggingface_hub, on a Hub without HTTP."""

    def __init__(self, hub: Hub, cache: Path):
        super().__init__(hub=hub, cache=cache)

    def HfApi(self) -> StandIn:  # noqa: N802  (the package's name)
        return self

    def snapshot_download(self, name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        place = self.cache / name.replace("/", "--")
        if not self.hub.online:
            newest = max(place.glob("*"), default=None, key=lambda path: path.stat().st_mtime_ns)
            if newest is None:
                raise LocalEntryNotFoundError
            return str(newest)
        if name not in self.hub.repos or revision not in (None, "main", self.hub.commit(name)):
            raise RepositoryNotFoundError
        folder = place / self.hub.commit(name)
        for path, content in self.hub.repos[name].items():
            if any(fnmatch.fnmatch(path, pattern) for pattern in allow_patterns):
                self.hub.asked.append(path)
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    def create_repo(self, name: str, *, private: bool | None, exist_ok: bool) -> str:
        if not self.hub.online:
            raise ConnectionError("no route to host")
        if name not in self.hub.repos:
            self.hub.repos[name] = {}
            self.hub.private |= {name} if private else set()
        return f"https://hub.invalid/{name}"

    def repo_info(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(private=name in self.hub.private)

    def upload_folder(self, *, repo_id: str, folder_path: Path, allow_patterns: list[str], commit_message: str) -> None:
        for path in folder_path.rglob("*"):
            name = path.relative_to(folder_path).as_posix()
            if path.is_file() and any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                self.hub.repos[repo_id][name] = path.read_bytes()


# ---- over HTTP -------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """The endpoints that huggingface_hub calls for a download and for an upload in one commit."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if not self.hub.online:
            return self.answer(503, b"")
        if path.startswith("/api/models/"):
            return self.describe(path.removeprefix("/api/models/"))
        name, _, rest = path.removeprefix("/").partition("/resolve/")
        _, _, file = rest.partition("/")
        content = self.hub.repos.get(name, {}).get(file)
        if content is None:
            return self.answer(
                404, b"", {"X-Error-Code": "EntryNotFound" if name in self.hub.repos else "RepoNotFound"}
            )
        if self.command == "GET":
            self.hub.asked.append(file)
        etag = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": self.hub.commit(name)}
        return self.answer(200, content, etag)

    do_HEAD = do_GET  # noqa: N815  (http.server's name)

    def describe(self, path: str) -> None:
        name = "/".join(path.split("/")[:2])
        if name not in self.hub.repos:
            return self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        files = self.hub.repos[name]
        if "/tree/" in path:
            entries = [
                {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for file, content in files.items()
            ]
            return self.answer(200, entries)
        return self.answer(
            200,
            {
                "id": name,
                "modelId": name,
                "_id": name,
                "sha": self.hub.commit(name),
                "tags": [],
                "private": name in self.hub.private,
                "siblings": [{"rfilename": file} for file in files],
            },
        )

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        if not self.hub.online:
            return self.answer(503, b"")
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.answer(401, b"")
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            there = name in self.hub.repos
            if not there:
                self.hub.repos[name] = {}
                hidden = asked.get("private") or asked.get("visibility") == "private"  # by version of the package
                self.hub.private |= {name} if hidden else set()
            return self.answer(409 if there else 200, {"url": f"http://{self.headers['Host']}/{name}", "id": name})
        name = "/".join(path.removeprefix("/api/models/").split("/")[:2])
        if "/preupload/" in path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": files})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.hub.repos[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        commit = self.hub.commit(name)
        return self.answer(
            200,
            {
                "success": True,
                "commitOid": commit,
                "commitUrl": f"http://{self.headers['Host']}/{name}/commit/{commit}",
            },
        )

    def answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass
