"""Networks to start another run from: a run's newest checkpoint, an exported folder, or a name on the Hub."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from equipoise.core.files import read_file, read_json, replace_file
from equipoise.core.tensorfile import pack, unpack
from equipoise.core.types import ImageSpec

from .checkpoint import finished, newest_whole
from .directory import NOTICE, notice_of
from .hub import download, hub_name

__all__ = ["NETWORKS", "Networks", "networks_of", "save_networks"]

NETWORKS = "networks.safetensors"
"""File of G, D and the average of G in an exported folder."""
CARD = "README.md"
FORM = "1"
PARTS = ("G", "D", "ema")


class Networks(NamedTuple):
    """Weights and buffers of networks, as they train: normalisers are not folded away.

    path: their checkpoint or file.
    weights: by network, "G", "D" and "ema", and by name.
    spec: the data that they are built for; None if that is not on record.
    notice: about the weights' licence; empty if they are this user's own.
    """

    path: Path
    weights: dict[str, dict[str, Tensor]]
    spec: ImageSpec | None
    notice: str


def networks_of(place: str | Path) -> Networks:
    """The networks in `place`: a run, an import, a folder of `equipoise export --with-discriminator`, a Hub name.

    The place is only read. A damaged checkpoint stays there, with a warning on stderr, and the previous one is used.

    Raises:
        ValueError: if there are no networks, all are damaged, or the Hub cannot be read.
    """
    repo = hub_name(place)
    if repo is None:
        folder = Path(place).expanduser()
        return of_folder(folder) if (folder / NETWORKS).is_file() else of_run(folder)
    folder = download(repo, (NETWORKS, NOTICE, CARD))
    if not (folder / NETWORKS).is_file():
        raise ValueError(
            f"{repo} on the Hugging Face Hub holds no {NETWORKS}, so a run cannot start from it: it was published "
            "without D. Whoever has the run can push it with --with-discriminator"
        )
    found = of_folder(folder)
    return found._replace(notice="\n".join(filter(None, (found.notice, origin(str(repo), folder)))))


def of_run(folder: Path) -> Networks:
    """The networks of the newest intact checkpoint."""
    checkpoints = folder / "checkpoints"
    newest = newest_whole(checkpoints)
    if newest is None:
        damaged = f"every checkpoint in {checkpoints} is damaged"
        found = damaged if finished(checkpoints) else f"there is no checkpoint in {checkpoints}"
        alone = (folder / "model.safetensors").is_file()
        advice = (
            "The folder was exported without D: export it again, with --with-discriminator"
            if alone
            else 'Give the directory of a run that has saved one, such as start=FreezeD(run="runs/a")'
        )
        raise ValueError(f"cannot start from the run {folder}: {found}. {advice}.")
    path, weights, state = newest
    spec = state.get("spec")
    return Networks(path, weights, None if spec is None else ImageSpec(**spec), notice_of(folder))


def of_folder(folder: Path) -> Networks:
    """The networks of an exported folder."""
    path = folder / NETWORKS
    named, about = unpack(path)
    if about.get("networks") != FORM:
        raise ValueError(
            f"{path} has form {about.get('networks', 'none')!r:.20}, and this version of equipoise reads form {FORM}: "
            "give a file of `equipoise export --with-discriminator`, or upgrade"
        )
    weights: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, value in named.items():
        part, _, rest = name.partition(".")
        weights[part][rest] = value
    if weights.keys() != {*PARTS}:
        raise ValueError(f"{path} holds {', '.join(sorted(weights)) or 'nothing'}; expected {', '.join(PARTS)}")
    return Networks(path, dict(weights), read_spec(about.get("spec", ""), path), notice_of(folder))


def read_spec(text: str, path: Path) -> ImageSpec | None:
    """The spec that `save_networks` wrote; None if it was not on record."""
    if not text:
        return None
    values = read_json(text, f"the spec in {path}")
    spec = ImageSpec.read(values, most=1 << 20)
    if spec is None:
        raise ValueError(f"{path} is damaged: its spec is {text[:100]}")
    return spec


def save_networks(networks: Networks, path: Path) -> None:
    """Write G, D and the average of G to a safetensors file with a checksum: no pickle, no optimisers."""
    named = {f"{part}.{name}": value for part in PARTS for name, value in networks.weights[part].items()}
    about = (
        {"networks": FORM} if networks.spec is None else {"networks": FORM, "spec": json.dumps(networks.spec.stored)}
    )
    replace_file(path, pack(named, about))


def origin(name: str, folder: Path) -> str:
    """A sentence for NOTICE.txt: where on the Hub weights are from, and the licence that their card names."""
    licence = licence_of(folder / CARD)
    named = f"which names the licence {licence}" if licence else "which names no licence"
    commit = f" (commit {folder.name})" if re.fullmatch(r"[0-9a-f]{40}", folder.name) else ""
    return f"These weights began as {name}{commit} on the Hugging Face Hub, {named}."


def licence_of(card: Path) -> str:
    """The licence in a model card's front matter; empty without one."""
    try:
        text = read_file(card).decode(errors="replace")
    except (OSError, ValueError):
        return ""
    front = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    found = front and re.search(r"^licen[sc]e:[ \t]*['\"]?([\w.+-]{1,60})", front[1], re.MULTILINE)
    return found[1] if found else ""
