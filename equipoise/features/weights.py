"""Published weights: find them, download them once, and check their hash."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from equipoise.data.base import PathLike
from equipoise.data.download import cache_directory, fetch

__all__ = ["WeightFile", "built"]


@dataclass(frozen=True)
class WeightFile:
    """A published file of weights, identified by its hash.

    title: name of the network, for messages.
    names: possible file names; the cache uses the first.
    sha256: hash of the file, in hex.
    urls: downloads; the first that works is used.
    advice: how to get the file by hand, for messages.
    """

    title: str
    names: tuple[str, ...]
    sha256: str
    urls: tuple[str, ...]
    advice: str

    def read(self, weights: PathLike | None, folders: Sequence[Path] = ()) -> dict[str, Tensor]:
        """The state dict, on the CPU.

        weights: a file, a directory that holds it, or a URL to download to the cache. None looks in the cache and
            `folders`, then downloads.

        Raises:
            ValueError: if the file is missing, cannot be downloaded, or is not the published one. The message says what
                to get and where to put it.
        """
        path = self.find(weights, folders)
        content = path.read_bytes()  # hash and load the same bytes: the file may change in between
        actual = hashlib.sha256(content).hexdigest()
        if actual != self.sha256:
            raise ValueError(
                f"{path} does not hold the published weights of {self.title}: it is damaged or another file. Its "
                f"SHA-256 is {actual}, expected {self.sha256}. Delete it, or name another with weights=PATH. "
                f"{self.advice}"
            )
        state: dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return state

    def find(self, weights: PathLike | None, folders: Sequence[Path]) -> Path:
        url = str(weights) if "://" in str(weights) else None
        if weights is not None and url is None:
            given = Path(weights).expanduser()
            path = given if given.is_file() else self.inside(given)
            if path is None:
                what = f"{given} holds no {' or '.join(self.names)}" if given.is_dir() else f"there is no {given}"
                raise ValueError(f"no weights of {self.title}: {what}. {self.advice}")
            return path
        cache = cache_directory() / "features"
        candidates = (self.inside(folder) for folder in (cache, *folders))
        path = next((path for path in candidates if path is not None), None)
        return path or self.fetch((url,) if url is not None else self.urls, cache)

    def inside(self, folder: Path) -> Path | None:
        return next((folder / name for name in self.names if (folder / name).is_file()), None)

    def fetch(self, urls: Sequence[str], folder: Path) -> Path:
        """Download to the cache."""
        try:
            return fetch(urls, folder / self.names[0], self.sha256)
        except ValueError as error:
            reason = f"{error}\n" if urls else "it is not installed. "
        raise ValueError(
            f"no weights of {self.title}: {reason}{self.advice}, and put {self.names[0]} into {folder} or name it with "
            "weights=PATH (--weights PATH)"
        )


def built(kind: type[nn.Module], state: dict[str, Tensor]) -> nn.Module:
    """A network with these weights. No initial weights are drawn, so torch's global generator does not move.

    Convolutions run channels-last, which takes half the time on a CPU.

    Batch norm's counters of batches may be missing: older files lack them, and inference does not read them. All other
    weights must be there.
    """
    with torch.device("meta"):
        net = kind()
    net.to_empty(device="cpu")
    counters = {name: torch.tensor(0) for name in net.state_dict() if name.endswith("num_batches_tracked")}
    net.load_state_dict(counters | state)
    fast: nn.Module = nn.utils.convert_conv2d_weight_memory_format(net, torch.channels_last)
    return fast
