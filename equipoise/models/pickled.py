"""Files of networks that others published: the pickles of StyleGAN2, StyleGAN2-ADA and StyleGAN3."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from equipoise.core.files import read_file
from equipoise.core.pickles import read_pickle

from . import persistent, tensorflow
from .persistent import Networks

__all__ = ["read_published"]

LARGEST = 4 << 30
"""Largest file that is read, in bytes. The networks of 1024 pixels take 0.4e9."""


def read_published(path: Path) -> tuple[Networks, str]:
    """The networks in a published pickle, and the file's SHA-256. Nothing in the file is executed.

    Raises:
        ValueError: if the file cannot be read, is damaged, or holds anything but networks of the published classes.
    """
    try:
        content = read_file(path.expanduser(), LARGEST)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}. Give the .pkl file of published networks") from None
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    try:
        value = read_pickle(io.BytesIO(content), persistent.NAMES | {tensorflow.NETWORK})
        if isinstance(value, dict):
            networks = persistent.networks_of(value, len(content))
        elif isinstance(value, tuple):
            networks = tensorflow.networks_of_tuple(value, len(content))
        else:
            raise ValueError(f"it holds a {type(value).__name__}, and a dictionary with G_ema was expected")
    except (ValueError, LookupError, TypeError, OverflowError, RuntimeError, MemoryError) as error:
        reason = str(error).partition("\n")[0][:400] or type(error).__name__
        raise ValueError(
            f"{path} holds no networks of StyleGAN2 or StyleGAN3 that can be read: {reason}. Nothing in it was "
            "executed. Give a file of NVIDIA's programs, or of one with the same classes."
        ) from None
    return networks, hashlib.sha256(content).hexdigest()
