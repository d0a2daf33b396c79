"""Images from a trained generator: the file it is kept in, drawing from it, grids and the formats it is written in."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from .checkpoint import save_weights
from .config import components, parse
from .data import to_uint8
from .files import flush, replace_file, writing
from .latents import require_threshold, truncate
from .models import GeneratorConfig
from .normalizers import remove
from .randomness import Purpose, stream
from .standing import standing_statistics
from .types import ImageSpec

__all__ = [
    "TrainedGenerator",
    "draw_latents",
    "grid",
    "images",
    "load_generator",
    "png",
    "sample",
    "save_generator",
    "truncated",
    "write_samples",
]

BATCH = 250
"""Images drawn at a time, unless told otherwise."""


@dataclasses.dataclass(frozen=True)
class TrainedGenerator:
    """The averaged generator of a run, in eval mode, with what it needs to be called.

    truncation: the threshold of its z, which its batch norms are made for; see `truncated`. None is no truncation.
    """

    net: nn.Module
    config: GeneratorConfig
    spec: ImageSpec
    truncation: float | None = None


def save_generator(generator: TrainedGenerator, run_dir: Path, nimg: int) -> None:
    """Write generator/generator.safetensors, with the config and the data's spec inside the file.

    Normalisers are folded away: the file holds plain weights.
    """
    folder = run_dir / "generator"
    plain = remove(copy.deepcopy(generator.net))
    spec = json.dumps(dataclasses.asdict(generator.spec))
    metadata = {"generator": repr(generator.config), "spec": spec, "nimg": str(nimg)}
    folder.mkdir(exist_ok=True)
    temporary = folder / ".generator.tmp"
    try:
        save_weights(plain.state_dict(), temporary, metadata)
        flush(temporary)
        temporary.replace(folder / "generator.safetensors")
    finally:
        temporary.unlink(missing_ok=True)
    flush(folder)


def load_generator(run_dir: Path, known: Mapping[str, Any] | None = None) -> TrainedGenerator:
    """The generator that a run has saved. `known`: components its config may call, default the library's.

    Raises:
        ValueError: if there is none, or it is damaged or made of unknown components.
    """
    path = run_dir / "generator" / "generator.safetensors"
    if not path.exists():
        raise ValueError(
            f"{run_dir} holds no generator: {path} is missing. Give the directory of a run that has reached its "
            "first checkpoint."
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (a handle, not a dict)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}). Train on from its checkpoint to write it again.") from None
    try:
        config = parse(metadata["generator"], known or components())
    except ValueError as error:
        raise ValueError(
            f"cannot build the generator of {run_dir}: {error}. If it comes from a file of yours, name it: "
            "--recipe FILE.py:FUNCTION"
        ) from None
    spec = ImageSpec(**json.loads(metadata["spec"]))
    net = config.build(spec)
    net.load_state_dict(weights)
    net.to("cuda" if torch.cuda.is_available() else "cpu")
    return TrainedGenerator(net.eval().requires_grad_(False), config, spec)


def truncated(generator: TrainedGenerator, threshold: float, *, passes: int = 20) -> TrainedGenerator:
    """A copy that draws z from the truncated normal, |z_i| <= threshold (Brock et al. 2019, sec. 3.1).

    Activations of truncated z have other means and variances, so the copy's batch norms get standing statistics of
    their own, from `passes` batches of 250 with all classes equally often. These depend on the threshold alone.

    Raises:
        ValueError: unless threshold > 0, or if it is truncated already.
    """
    require_threshold(threshold)
    if generator.truncation is not None:
        raise ValueError(f"this generator is truncated already, at {generator.truncation:g}: start from the one it was")
    device, spec = next(generator.net.parameters()).device, generator.spec

    def draw(i: int) -> tuple[Tensor | None, ...]:
        z = torch.randn(BATCH, generator.config.z_dim, generator=stream(0, Purpose.STANDING, i))
        y = torch.arange(BATCH, device=device) % spec.num_classes if generator.config.conditional else None
        return truncate(z, threshold).to(device), y

    net = standing_statistics(copy.deepcopy(generator.net), draw, passes=passes)
    return dataclasses.replace(generator, net=net, truncation=threshold)


def draw_latents(generator: TrainedGenerator, num: int, *, seed: int = 0) -> Tensor:
    """(num, z_dim) float32. Row i depends on `seed`, i and the truncation alone, not on `num`."""
    rows = -(-num // 16) * 16  # randn fills 16 numbers at a time: of any other count, the last ones would differ
    z = torch.randn(rows, generator.config.z_dim, generator=stream(seed, Purpose.SAMPLES))[:num]
    return z if generator.truncation is None else truncate(z, generator.truncation)


@torch.no_grad()
def images(generator: TrainedGenerator, z: Tensor, y: Tensor | None) -> NDArray[np.uint8]:
    """G(z, y) as pixels: z (n, z_dim), y (n,) or None, on any device -> (n, H, W, C)."""
    device = next(generator.net.parameters()).device
    x = generator.net(z.to(device), None if y is None else y.to(device))
    pixels: NDArray[np.uint8] = to_uint8(x).permute(0, 2, 3, 1).cpu().numpy()  # (n, C, H, W) -> (n, H, W, C)
    return pixels


def sample(
    generator: TrainedGenerator, num: int, *, seed: int = 0, classes: Sequence[int] | None = None, batch: int = BATCH
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Draw `num` images, in batches of images (n, H, W, C) uint8 and classes (n,) int64 (zeros if unconditional).

    classes: used in turn, image i gets classes[i mod len]; None uses all. The z and class of image i depend on `seed`
        and i alone, not on `num`. Of a `truncated` generator the z are truncated.

    Raises:
        ValueError: for classes that the generator does not know.
    """
    z, y = draw_latents(generator, num, seed=seed), sample_classes(generator, num, classes)
    for i in range(0, num, batch):
        labels = None if y is None else y[i : i + batch]
        pixels = images(generator, z[i : i + batch], labels)
        yield pixels, np.zeros(len(pixels), np.int64) if labels is None else labels.numpy()


def sample_classes(generator: TrainedGenerator, num: int, classes: Sequence[int] | None) -> Tensor | None:
    """(num,) class ids, or None for an unconditional generator."""
    if not generator.config.conditional:
        if classes is not None:
            raise ValueError("this generator is unconditional: it was trained without classes, so none can be chosen")
        return None
    known = generator.spec.num_classes
    chosen = list(range(known)) if classes is None else list(classes)
    for c in chosen:
        if not 0 <= c < known:
            raise ValueError(f"there is no class {c}: this generator knows 0 to {known - 1}")
    if not chosen:
        raise ValueError("classes is empty: name at least one class")
    return torch.tensor(chosen)[torch.arange(num) % len(chosen)]


def grid(pixels: NDArray[np.uint8], columns: int = 10) -> NDArray[np.uint8]:
    """(N, H, W, C) -> one picture (rows·H, columns·W, C), row by row; missing places are black."""
    n, h, w, c = pixels.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    full = np.zeros((rows * columns, h, w, c), np.uint8)
    full[:n] = pixels
    return full.reshape(rows, columns, h, w, c).swapaxes(1, 2).reshape(rows * h, columns * w, c)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """One picture (H, W, C) as a PNG file."""
    file = BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, format="PNG")
    return file.getvalue()


def write_samples(
    generator: TrainedGenerator, out: Path, *, num: int, seed: int = 0, classes: Sequence[int] | None = None
) -> Path:
    """Draw images and write them as `out` says: NAME.png a grid, NAME.npz arrays `x` and `y`, else a folder of PNGs.

    `x` is uint8 (num, H, W, C), `y` int64 (num,), absent for an unconditional generator. In a folder of a conditional
    generator each class has a sub-folder.
    """
    if num < 1:
        raise ValueError(f"num must be at least 1, got {num}")
    if out.suffix not in (".png", ".npz", ""):
        raise ValueError(f"cannot write {out.suffix} files: give NAME.png for a grid, NAME.npz, or a folder's name")
    if not out.suffix and out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"{out} is not empty: choose another folder, nothing of yours is overwritten")
    console = Console(stderr=True)
    steps = -(-num // BATCH)
    batches = sample(generator, num, seed=seed, classes=classes)
    shown = track(batches, "sampling", steps, console=console, transient=True, disable=not console.is_terminal)
    x, y = (np.concatenate(part) for part in zip(*shown, strict=True))
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".png":
            replace_file(out, png(grid(x)))
        elif out.suffix == ".npz":
            arrays: dict[str, Any] = {"x": x, "y": y} if generator.config.conditional else {"x": x}
            np.savez_compressed(out, **arrays)
        else:
            write_folder(x, y if generator.config.conditional else None, out)
    return out


def write_folder(x: NDArray[np.uint8], y: NDArray[np.int64] | None, out: Path) -> None:
    for i, pixels in enumerate(x):
        folder = out if y is None else out / str(y[i])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:06d}.png").write_bytes(png(pixels))
