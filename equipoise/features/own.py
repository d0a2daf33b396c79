"""A user's own network as a feature network: FILE.py:NAME."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from equipoise.core.plugins import from_file
from equipoise.data import to_float

from .base import FeatureNet

__all__ = ["OwnFeatures"]


class OwnFeatures(FeatureNet):
    """The network "FILE.py:NAME": your own module, or a function or class that makes one without arguments.

    The module gets x (n, C, H, W) float32 in [-1, 1], with the images' own channels and size. It returns features
    (n, F), or features and logits (n, K). It must load its own weights, and is put into eval mode.

    sha256: hash of the file's text and the module's state dict, so that cached statistics of another version are not
        used. Files that it imports are not hashed: clear the cache if they change.

    Raises:
        ValueError: if the file or the name is missing, it does not make a module, or the module returns something else.
    """

    def __init__(self, text: str, *, device: torch.device | str = "cpu", batch_size: int = 64):
        file, _, name = text.rpartition(":")
        if not file.endswith(".py") or not name:
            raise ValueError(f"{text!r} names no network: give FILE.py:NAME, a function or class that makes a module")
        made, _ = from_file(text)
        net = made if isinstance(made, nn.Module) else made()
        if not isinstance(net, nn.Module):
            raise ValueError(f"{text} made {type(net).__name__}; expected a torch.nn.Module, images -> features (n, F)")
        super().__init__(text, digest_of(net, Path(file).read_bytes()), net, device, batch_size)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        out = self.net(to_float(x))
        pair = out if isinstance(out, tuple) and len(out) == 2 else (out, None)
        for part in pair[: 1 if pair[1] is None else 2]:
            if not isinstance(part, Tensor) or part.ndim != 2 or len(part) != len(x):
                got = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
                raise ValueError(
                    f"{self.name} returned {got} for {len(x)} images; expected features ({len(x)}, F), or a pair of "
                    f"features and logits ({len(x)}, K)"
                )
        return pair


def digest_of(net: nn.Module, source: bytes) -> str:
    sha256 = hashlib.sha256(source)
    for name, value in sorted(net.state_dict().items()):
        sha256.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        sha256.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha256.hexdigest()
