"""A safetensors file of weights and texts, with a checksum over both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

__all__ = ["pack", "unpack"]

CHECKSUM = "sha256"
"""Key of the checksum among the texts."""


def pack(weights: Mapping[str, Tensor], about: Mapping[str, str]) -> bytes:
    """Bytes of a file with `weights` and the texts `about`. Equal arguments give equal bytes."""
    weights = {name: value.contiguous() for name, value in weights.items()}
    return in_order(save(weights, {**about, CHECKSUM: checksum(weights, about)}))


def in_order(content: bytes) -> bytes:
    """Sort the texts in the file by key: safetensors writes them in a different order each time."""
    end = 8 + int.from_bytes(content[:8], "little")  # 8 bytes of length, then JSON
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data
    return len(text).to_bytes(8, "little") + text + content[end:]


def unpack(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights and texts of a file, without the checksum. Files of version 0.1 lack a checksum and are read unchecked.

    Raises:
        ValueError: if the file cannot be read, does not match its checksum, or holds NaN or Inf.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (a handle, not a dict)
        expected = about.pop(CHECKSUM, None)
        if expected not in (None, checksum(weights, about)):
            raise ValueError("it does not match its checksum")
        infinite = [name for name, value in weights.items() if not is_finite(value)]
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:  # the last two: unusual dtypes
        reason = str(error).partition("\n")[0]  # torch appends a stack trace
        raise ValueError(
            f"{path} is damaged ({reason}). Copy it again, or train on from the run's checkpoint to write it again."
        ) from None
    if infinite:
        names = ", ".join(repr(name[:100]) for name in infinite[:3])
        raise ValueError(
            f"{path} holds NaN or Inf in {names}: its run diverged, or the file is damaged. Take the generator of "
            "another run or checkpoint."
        )
    return weights, about


def is_finite(value: Tensor) -> bool:
    wide = value.float() if value.is_floating_point() and value.element_size() == 1 else value  # isfinite lacks float8
    return bool(wide.isfinite().all())


def checksum(weights: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """SHA-256 of the texts and of each tensor's name, dtype, shape and bytes."""
    sha256 = hashlib.sha256(json.dumps(sorted(about.items())).encode())
    for name, value in sorted(weights.items()):
        sha256.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        sha256.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return sha256.hexdigest()
