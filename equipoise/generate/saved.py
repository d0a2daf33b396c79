"""Latents on disk: z, w or a style per layer for each image, with its class, in an .npz without pickles.

The arrays of a file: `equipoise_latents`, the version of the form; one of `z` (N, z_dim), `w` (N, w_dim) and `ws`
(N, num_ws, w_dim), float32; `y` (N,) int64 for a generator that reads classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.core.files import replace_file, writing
from equipoise.data.arrays import read_plain_npz

from .generator import BATCH, Generator, draw_latents, images, require_some, sample_classes
from .style_space import images_of_styles, number_of_layers, require_styles, styles

__all__ = ["Latents", "draw_of_latents", "latents_of", "load_latents", "save_latents"]

Kind = Literal["z", "w", "ws"]
KINDS: tuple[Kind, ...] = ("z", "w", "ws")
VERSION = 1
MARK = "equipoise_latents"


@dataclasses.dataclass(frozen=True)
class Latents:
    """Inputs of a generator, one for each image.

    kind: "z", the input of the network; "w", one style for all layers; "ws", a style for each layer.
    values: (N, z_dim), (N, w_dim) or (N, num_ws, w_dim), float32 on the CPU.
    y: (N,) int64 classes, or None.
    """

    kind: Kind
    values: Tensor
    y: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)


def latents_of(
    generator: Generator, num: int, *, seed: int = 0, classes: Sequence[int] | None = None, kind: Kind = "z"
) -> Latents:
    """Latents of the first `num` images of `Generator.sample`, whose seed and classes these are.

    Styles are truncated if the generator's are.

    Raises:
        ValueError: for num < 1, classes that the generator does not know, styles of a generator without them, or "w"
            where truncation makes the styles of the layers differ.
    """
    require_some(num)
    if kind not in KINDS:
        raise ValueError(f"there are no latents {kind!r}: choose one of {', '.join(KINDS)}")
    z, y = draw_latents(generator, num, seed=seed), sample_classes(generator, num, classes)
    if kind == "z":
        return Latents(kind, z, y)
    ws = styles(generator, z, y)
    if kind == "w" and not torch.equal(ws[:, :1].expand_as(ws), ws):
        raise ValueError("with a cutoff, or for networks of your own, the layers have styles that differ: take ws")
    return Latents(kind, ws[:, 0].clone() if kind == "w" else ws, y)


def draw_of_latents(
    generator: Generator, latents: Latents, *, batch: int = BATCH, which: slice = slice(None)
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Images of latents, in batches of images (n, H, W, C) and classes (n,), as `sample` draws them.

    Classes are 0 where none is given. Styles are taken as they are: a truncation of the generator's styles is for z.
    """
    for i in range(0, len(latents), batch)[which]:
        rows = slice(i, i + batch)
        values, y = latents.values[rows], None if latents.y is None else latents.y[rows]
        if latents.kind == "z":
            x = images(generator, values, y)
        else:
            ws = values if latents.kind == "ws" else values[:, None].repeat(1, number_of_layers(generator.net), 1)
            x = images_of_styles(generator, ws)
        yield x, np.zeros(len(x), np.int64) if y is None else y.numpy()


# ---- files -----------------------------------------------------------------------------------------------


def save_latents(latents: Latents, path: Path) -> None:
    """Write `path`, an .npz. Raises ValueError for another ending, RunError if it cannot be written."""
    require_npz(path)
    arrays: dict[str, Any] = {MARK: np.int64(VERSION), latents.kind: latents.values.numpy()}
    if latents.y is not None:
        arrays["y"] = latents.y.numpy()
    content = BytesIO()
    np.savez(content, **arrays)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content.getvalue())


def require_npz(path: Path) -> None:
    if path.suffix != ".npz":
        raise ValueError(f"latents are kept in NAME.npz, got {path.name}: give a name with that ending")


def load_latents(path: Path, generator: Generator) -> Latents:
    """Read a file of `save_latents`, or of any program that writes this form, for this generator.

    Raises:
        ValueError: if the file is missing, or another kind of file, has another form or version, or does not fit the
            generator: other lengths, NaN or Inf, classes missing or unknown, styles that are to be truncated again.
    """
    arrays = read_arrays(path)
    version = arrays.pop(MARK, None)
    if version is None:
        raise ValueError(
            f"{path} holds no latents: expected the arrays {MARK} and z, w or ws, as `equipoise sample "
            "--save-latents` writes them"
        )
    if version.shape != () or version.dtype.kind not in "iu" or int(version) != VERSION:
        raise ValueError(f"{path} has version {version} of this form, and this equipoise reads {VERSION}: upgrade it")
    kinds = [kind for kind in KINDS if kind in arrays]
    if len(kinds) != 1 or not arrays.keys() <= {*KINDS, "y"}:
        raise ValueError(f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}: expected one of z, w and ws, and y")
    kind = kinds[0]
    if kind != "z":
        require_styles(generator, f"{path}, which holds {kind},")
        if generator.psi != 1:
            raise ValueError(f"{path} holds {kind}, and truncation is for z: leave the truncation of w out")
    return Latents(kind, checked_values(arrays[kind], kind, path, generator), checked_classes(arrays, path, generator))


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    require_npz(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}: `equipoise sample --save-latents {path.name}` writes one")
    try:
        return read_plain_npz(path, "it")
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is damaged, or no .npz of plain arrays: {error}") from None


def checked_values(values: NDArray[Any], kind: Kind, path: Path, generator: Generator) -> Tensor:
    """float32 values of the lengths that the generator takes."""
    if kind == "z":
        lengths = [generator.config.z_dim]
    else:
        ws = styles(generator, *some_latent(generator))
        lengths = list(ws.shape[1:] if kind == "ws" else ws.shape[2:])
    if list(values.shape[1:]) != lengths or len(values) < 1 or values.dtype.kind != "f":
        raise ValueError(
            f"{kind} of {path} is {values.dtype} of shape {values.shape}; this generator takes floats of shape "
            f"(N, {', '.join(map(str, lengths))}), N at least 1: give latents of a generator of its form"
        )
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes Inf
        narrow = values.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise ValueError(f"{kind} of {path} holds NaN, Inf or numbers beyond float32: save it again")
    return torch.from_numpy(narrow)


def some_latent(generator: Generator) -> tuple[Tensor, Tensor | None]:
    return draw_latents(generator, 1), sample_classes(generator, 1, None)


def checked_classes(arrays: dict[str, NDArray[Any]], path: Path, generator: Generator) -> Tensor | None:
    y = arrays.get("y")
    if y is None:
        if generator.conditional and "z" in arrays:
            raise ValueError(f"{path} has no classes y, and this generator reads them: add y, an integer per image")
        return None
    num, num_classes = len(next(arrays[kind] for kind in KINDS if kind in arrays)), generator.spec.num_classes
    if not generator.conditional:
        raise ValueError(f"{path} has classes y, and this generator reads none: leave y out")
    if y.shape != (num,) or y.dtype.kind not in "iu" or not ((y >= 0) & (y < num_classes)).all():
        raise ValueError(
            f"y of {path} is {y.dtype} of shape {y.shape}; expected {num} integers from 0 to {num_classes - 1}"
        )
    return torch.from_numpy(y.astype(np.int64))
