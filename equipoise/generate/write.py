"""Images on disk: grids, arrays and folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from equipoise.compute.distributed import from_rank_0, rank, world_size
from equipoise.compute.shares import together
from equipoise.core.files import replace_file, writing

from .generator import BATCH, Generator, require_some, sample
from .pictures import grid, png
from .saved import Latents, draw_of_latents

__all__ = ["write_latents", "write_samples"]

Batches = Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]


def write_samples(
    generator: Generator, out: Path, *, num: int, seed: int = 0, classes: Sequence[int] | None = None
) -> Path:
    """Draw images and write them to `out`: NAME.png a grid, NAME.npz arrays `x` and `y`, else a folder of PNGs.

    `x` is uint8 (num, H, W, C). `y` is int64 (num,), absent for an unconditional generator. In a folder of a
    conditional generator each class has a sub-folder. Several processes share out the batches. Rank 0 writes the same
    files as a single process.
    """
    require_some(num)
    share = partial(sample, generator, num, seed=seed, classes=classes)
    return write_drawn(share, num, out, labelled=generator.conditional)


def write_latents(generator: Generator, latents: Latents, out: Path) -> Path:
    """Draw the images of latents, and write them to `out` as `write_samples` does."""
    share = partial(draw_of_latents, generator, latents)
    return write_drawn(share, len(latents), out, labelled=latents.y is not None)


def write_drawn(draw: Callable[..., Batches], num: int, out: Path, *, labelled: bool) -> Path:
    """Write images that several processes draw together. draw: a slice of the batches -> images and classes."""
    if out.suffix not in (".png", ".npz", ""):
        raise ValueError(f"cannot write {out.suffix} files: give NAME.png for a grid, NAME.npz, or a folder's name")
    if not out.suffix:
        from_rank_0(lambda: require_empty(out))
    share = slice(rank(), None, world_size())
    steps = len(range(0, num, BATCH)[share])
    console = Console(stderr=True)
    hidden = rank() > 0 or not console.is_terminal
    batches = draw(which=share)
    drawn = together(lambda: track(batches, "sampling", steps, console=console, transient=True, disable=hidden))
    x, y = (np.concatenate(part) for part in zip(*drawn, strict=True))
    from_rank_0(lambda: write(x, y if labelled else None, out))
    return out


def write(x: NDArray[np.uint8], y: NDArray[np.int64] | None, out: Path) -> None:
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".png":
            replace_file(out, png(grid(x)))
        elif out.suffix == ".npz":
            arrays: dict[str, Any] = {"x": x} if y is None else {"x": x, "y": y}
            np.savez_compressed(out, **arrays)
        else:
            write_folder(x, y, out)


def require_empty(folder: Path) -> None:
    """Raise ValueError if `folder` exists and is not an empty directory."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty: choose another folder, because nothing of yours is overwritten")


def write_folder(x: NDArray[np.uint8], y: NDArray[np.int64] | None, out: Path) -> None:
    for i, pixels in enumerate(x):
        folder = out if y is None else out / str(y[i])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:06d}.png").write_bytes(png(pixels))
