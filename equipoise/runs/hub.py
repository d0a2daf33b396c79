"""The Hugging Face Hub: files of an export, downloaded and uploaded by name, you/name.

The only module that imports huggingface_hub, of the extra `hub`. Names, tokens, the cache and HF_ENDPOINT are that
package's. Only files of an export are fetched, by their exact names, and none of them is executed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from equipoise.core.extras import install
from equipoise.core.types import RunError

__all__ = ["Repo", "download", "fetched", "hub_name", "upload"]

NAME = re.compile(
    r"(?P<hub>hf:/{1,2})?(?P<name>[A-Za-z0-9_][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95})(?:@(?P<revision>[\w./-]{1,100}))?",
    re.ASCII,
)
"""you/name, you/name@REVISION; hf://you/name even where a folder `you` is here."""
FILE_ENDINGS = {".safetensors", ".pkl", ".pt", ".pt2", ".onnx", ".npz", ".txt", ".zip"}
"""Endings of names that are files of this machine, not repositories."""


class Repo(NamedTuple):
    """A repository on the Hub. revision: branch, tag or commit; None is the newest of its main branch."""

    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"


def hub_name(place: str | Path) -> Repo | None:
    """The repository that `place` names; None for a place on this machine, which comes first.

    A relative path in a folder that is here is a path too, even if it does not exist: a mistyped runs/a is not
    looked for on the Hub.
    """
    text = place.as_posix() if isinstance(place, Path) else place
    found = NAME.fullmatch(text)
    if found is None or ".." in text:
        return None
    here = Path(text).exists() or Path(text.partition("/")[0]).exists() or Path(text).suffix in FILE_ENDINGS
    return Repo(found["name"], found["revision"]) if found["hub"] or not here else None


def fetched(place: str | Path, files: Sequence[str]) -> Path:
    """`place`, if it is on this machine; else the folder of `files` that `download` returns."""
    repo = hub_name(place)
    return Path(place) if repo is None else download(repo, files)


def download(repo: Repo, files: Sequence[str]) -> Path:
    """Download `files`, as far as the repository has them, to the cache of huggingface_hub -> their folder.

    Files that are in the cache and unchanged are not downloaded again. Without a connection the cache is used.

    Raises:
        ValueError: without the extra `hub`, without a connection, or if the repository cannot be read.
    """
    hub = package(f"{repo} is not on this machine, and reading it from the Hugging Face Hub")
    try:
        folder = hub.snapshot_download(repo.name, revision=repo.revision, allow_patterns=list(files))
    except Exception as error:  # errors of HTTP libraries too, which differ between its versions
        raise ValueError(f"cannot read {repo} from the Hugging Face Hub: {reason(error)}") from error
    return Path(folder)


def upload(folder: Path, files: Sequence[str], name: str, *, private: bool = False) -> str:
    """Upload `files` of `folder` in one commit, and make the repository if it is not there -> its address.

    private: only you may see it. A repository that is public is then refused, before anything is uploaded.

    Raises:
        ValueError: without the extra `hub`.
        RunError: without a connection or a token, or if the Hub refuses.
    """
    hub = package(f"pushing to {name} on the Hugging Face Hub")
    try:
        api = hub.HfApi()
        address = str(api.create_repo(name, private=True if private else None, exist_ok=True))
        public = private and not api.repo_info(name).private
        if not public:
            api.upload_folder(
                repo_id=name, folder_path=folder, allow_patterns=list(files), commit_message="Export of Equipoise"
            )
    except Exception as error:  # as in `download`
        raise RunError(f"cannot push to {name} on the Hugging Face Hub: {reason(error)}") from error
    if public:
        raise RunError(
            f"{name} is a public repository, and --private was asked for: nothing was uploaded. Make it private on "
            f"its page {address}, or give another name"
        )
    return address


def package(task: str) -> Any:
    """huggingface_hub. Raises ValueError without it; `task` begins the message."""
    try:
        return import_module("huggingface_hub")
    except ImportError as error:
        raise ValueError(f"{task} needs the package huggingface_hub: {install('hub')}") from error


ADVICE = {
    "LocalTokenNotFoundError": "you are not logged in. Log in with `hf auth login`, or set HF_TOKEN",
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set, and the cache does not hold it. Unset it, or give a folder",
    "GatedRepoError": "it is gated. Ask for access on its page, and log in with `hf auth login`",
    "RepositoryNotFoundError": "there is no such repository, or it is private. Check the name, or `hf auth login`",
    "RevisionNotFoundError": "it has no such revision. Leave out @REVISION for the newest",
    "LocalEntryNotFoundError": "there is no connection, and the cache does not hold it. Try online, or give a folder",
    "ConnectError": "there is no connection. Try again online",
    "ConnectionError": "there is no connection. Try again online",
    "ConnectTimeout": "there is no connection. Try again online",
}
"""Class of an error, its own or a base -> the reason and the way out; the first that matches."""


def reason(error: BaseException) -> str:
    """The reason of a failed transfer, in one line."""
    names = [kind.__name__ for kind in type(error).__mro__]
    for name, text in ADVICE.items():
        if name in names:
            return text
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "it refuses your token. Log in with `hf auth login` and a token that may write, or check the name"
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
