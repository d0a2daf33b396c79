"""A trained generator: its file, its truncation, and images drawn from it."""

from __future__ import annotations

import base64
import copy
import dataclasses
import html
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from equipoise.config import components
from equipoise.core.files import read_json, replace_file
from equipoise.core.grammar import parse
from equipoise.core.latents import require_threshold
from equipoise.core.misfits import first_of, misfits
from equipoise.core.randomness import Purpose, stream
from equipoise.core.tensorfile import pack, unpack
from equipoise.core.types import ImageSpec
from equipoise.data import to_uint8
from equipoise.models import GeneratorConfig
from equipoise.runs import fetched
from equipoise.weights import remove

from .pictures import grid, png
from .standing import PASSES, with_standing_statistics

__all__ = ["Generator", "draw_latents", "generator_file", "glance", "images", "sample", "save_generator", "truncated"]

BATCH = 250
"""Default number of images drawn at a time."""

GLANCE = 36
"""Images of a grid in a notebook."""
WIDEST = 512
"""Width of this grid in pixels, unless one image is wider."""
CELL = 48
"""Least width of an image in it, as shown."""

IN_RUN = Path("generator") / "generator.safetensors"
IN_FOLDER = Path("model.safetensors")
"""Place of the generator's file, in a run and in an exported folder."""

LARGEST = 1 << 20
"""Most pixels, channels or classes that a file may name."""


@dataclasses.dataclass(frozen=True)
class Generator:
    """The averaged generator of a run, in eval mode, with the settings that calling it needs.

    net: z (N, z_dim), y (N,) or None -> images (N, C, H, W) in [-1, 1].
    spec: the spec of its images and of the classes that it reads: `num_classes` is 0 if it is unconditional.
    truncation: threshold of its z, which its batch norms are made for; see `truncated`. None means untruncated.
    nimg: real images that D had seen; 0 for a generator without a run.
    psi: ψ of its styles, which `net` truncates; see `truncated_in_w`. 1 means untruncated.
    """

    net: nn.Module
    config: GeneratorConfig
    spec: ImageSpec
    truncation: float | None = None
    nimg: int = 0
    psi: float = 1.0

    @classmethod
    def from_pretrained(cls, place: str | Path, known: Mapping[str, Any] | None = None) -> Self:
        """The generator in `place`: a run, its best/, a folder or a .safetensors file from `equipoise export`.

        A place that is not on this machine may be a name on the Hugging Face Hub: you/name, or you/name@REVISION. It is
        downloaded with the extra `hub`. hf://you/name is a name of the Hub even where a folder `you` is here.

        The network is put on a GPU if there is one. The file holds weights and a config's text, and nothing in it is
        executed.

        known: your own components by name, which its config calls beside the library's.

        Raises:
            ValueError: if there is no generator, or it is damaged, holds NaN or Inf, or has unknown components; or if
                the Hub cannot be read.
        """
        path = generator_file(fetched(place, (str(IN_FOLDER),)))
        if path is None:
            raise ValueError(
                f"{place} holds no generator: give a run that has reached its first checkpoint, a folder or "
                ".safetensors file that `equipoise export` has made, or a name on the Hugging Face Hub, you/name"
            )
        weights, written = unpack(path)
        if not written.keys() >= {"generator", "spec", "nimg"}:
            raise ValueError(
                f"{path} is not a generator of equipoise: it does not name the architecture of its weights"
            )
        about = of_today(written)
        try:
            config = parse(about["generator"], components() | dict(known or {}))
        except ValueError as error:
            raise ValueError(
                f"cannot build the generator of {path}: {error}. If it comes from a file of yours, name it: "
                "--recipe FILE.py:FUNCTION, or in Python known={'NAME': CLASS}"
            ) from None
        if not isinstance(config, GeneratorConfig):
            raise ValueError(f"{path} is not a generator of equipoise: its architecture is {config!r}")
        try:
            spec, nimg, truncation = read_about(about)
            net = fitting(config, spec, weights)
        except (ValueError, RuntimeError, TypeError, OverflowError, MemoryError) as error:  # sizes that cannot be
            reason = str(error).partition("\n")[0]  # torch adds its own stack
            raise ValueError(f"cannot build the generator of {path}: {reason}") from error
        net.to("cuda" if torch.cuda.is_available() else "cpu")
        return cls(net.eval().requires_grad_(False), config, spec, truncation, nimg)

    def sample(self, num: int, *, seed: int = 0, classes: Sequence[int] | None = None) -> NDArray[np.uint8]:
        """Draw `num` images (num, H, W, C). Image i depends on `seed` and i, and has the class classes[i mod len].

        classes: None uses all classes.

        Raises:
            ValueError: for num < 1, or classes that the generator does not know.
        """
        require_some(num)
        return np.concatenate([x for x, _ in sample(self, num, seed=seed, classes=classes)])

    def _repr_html_(self) -> str:
        """Show its grid in a notebook: `GLANCE` images of seed 0, fewer if they are large, inside the page."""
        columns, num = glance(self.spec.shape[1])
        picture = base64.b64encode(png(grid(self.sample(num), columns))).decode()
        spec, classes = self.spec, f", {self.spec.num_classes} classes" if self.conditional else ""
        text = f"{self.config!r}: {spec.size}, channels: {spec.channels}{classes}"
        seen = f", after {self.nimg:,} real images" if self.nimg else ""
        return (
            f'<figure style="margin: 0"><img src="data:image/png;base64,{picture}" alt="Images of seed 0" '
            f'style="width: {columns * max(spec.shape[1], CELL)}px; max-width: 100%; image-rendering: pixelated">'
            f"<figcaption>{html.escape(text + seen)}</figcaption></figure>"
        )

    def folded(self) -> Self:
        """A copy on the CPU with its normalisers folded into plain weights: same images, within rounding."""
        return dataclasses.replace(self, net=remove(copy.deepcopy(self.net).eval()).requires_grad_(False).cpu())

    @property
    def conditional(self) -> bool:
        """Whether the generator reads the class."""
        return self.spec.num_classes > 0

    @property
    def about(self) -> dict[str, str]:
        """Metadata stored with the weights in every export format, as text: config, spec, nimg, truncation.

        Raises:
            ValueError: for a generator with truncated styles, which is not written.
        """
        if self.psi != 1:
            raise ValueError(
                f"a generator whose styles are truncated, with psi={self.psi:g}, is not written: write the untruncated "
                "one, and truncate when you draw"
            )
        about = {
            "generator": repr(self.config),
            "spec": json.dumps(self.spec.stored),
            "nimg": str(self.nimg),
        }
        return about if self.truncation is None else about | {"truncation": repr(self.truncation)}


def glance(width: int) -> tuple[int, int]:
    """Numbers of columns and images that are drawn in a moment, and seen at once: at most `GLANCE`."""
    columns = max(1, min(math.isqrt(GLANCE), WIDEST // width))
    return columns, columns**2


def generator_file(place: Path) -> Path | None:
    """The generator's file in `place`: a run, its best/, an exported folder or the file itself. None without one."""
    if place.suffix == ".safetensors" and place.is_file():
        return place
    return next((path for path in (place / IN_RUN, place / IN_FOLDER) if path.is_file()), None)


OWN_WORD = re.compile(r"(?<=\()(z_dim=\d+, )conditional=(True|False), ")


def of_today(about: Mapping[str, str]) -> Mapping[str, str]:
    """Metadata of an earlier version's file, rewritten for this version; any other metadata unchanged.

    Before the head decided whether G reads the class, a field of the generator did. The spec then counted the classes
    of the data, even if G did not read them.
    """
    word = OWN_WORD.search(about["generator"])
    if word is None:
        return about
    spec = about["spec"] if word[2] == "True" else re.sub(r'"num_classes": \d+', '"num_classes": 0', about["spec"])
    return {**about, "generator": OWN_WORD.sub(r"\1", about["generator"], count=1), "spec": spec}


def read_about(about: Mapping[str, str]) -> tuple[ImageSpec, int, float | None]:
    """Read the data's spec, nimg and truncation from `Generator.about`.

    Raises:
        ValueError: if a text is anything else. The message names it.
    """
    if unknown := about.keys() - {"generator", "spec", "nimg", "truncation"}:
        raise ValueError(f"it is damaged, or of a later version: its metadata name {min(unknown)[:100]!r}")
    spec = ImageSpec.read(read_json(about["spec"], "its spec"), most=LARGEST)
    if spec is None:
        example = json.dumps(ImageSpec(1, 1).stored)
        raise ValueError(f"its spec is {about['spec'][:100]}, expected one such as {example}")
    if not (about["nimg"].isascii() and about["nimg"].isdecimal() and len(about["nimg"]) < 20):
        raise ValueError(f"its nimg is {about['nimg'][:100]!r}, expected a number of images")
    if "truncation" not in about:
        return spec, int(about["nimg"]), None
    try:
        truncation = float(about["truncation"])
        require_threshold(truncation)
    except ValueError:
        raise ValueError(f"its truncation is {about['truncation'][:100]!r}, expected a number above 0") from None
    return spec, int(about["nimg"]), truncation


def fitting(config: GeneratorConfig, spec: ImageSpec, weights: Mapping[str, Tensor]) -> nn.Module:
    """Build the network with these weights. Shapes are compared before memory is taken: a file may ask for too much.

    Raises:
        ValueError: if the weights belong to another architecture.
    """
    try:
        with torch.device("meta"):
            wrong = misfits(weights, config.build(spec).state_dict())
    except (RuntimeError, TypeError):  # a user's own network that cannot be built on the meta device
        wrong = []
    if wrong:
        raise ValueError(f"its weights do not fit its architecture, whose code has changed since: {first_of(wrong)}")
    net = config.build(spec)
    net.load_state_dict(weights)
    return net


def save_generator(generator: Generator, path: Path) -> None:
    """Write a .safetensors file: plain weights, normalisers folded away, with the config and the data's spec inside.

    The file holds a checksum of its content, which `Generator.from_pretrained` checks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, pack(generator.folded().net.state_dict(), generator.about))


def truncated(generator: Generator, threshold: float, *, passes: int = PASSES) -> Generator:
    """A copy that draws z from its prior given |z_i| <= threshold (Brock et al. 2019, sec. 3.1).

    Activations of truncated z have other means and variances. So the copy's batch norms get standing statistics of
    their own, from batches of 250 with all classes equally often. These depend on the threshold alone.

    passes: number of batches, raised where fewer would leave a class out. 0 keeps the statistics of `generator`.

    Raises:
        ValueError: unless threshold > 0, or if the generator is truncated already.
    """
    require_threshold(threshold)
    if generator.truncation is not None:
        raise ValueError(
            f"this generator is truncated already, at {generator.truncation:g}: start from the untruncated generator"
        )
    net = with_standing_statistics(
        generator.net, generator.config, generator.spec, images=BATCH, seed=0, passes=passes, threshold=threshold
    )
    return dataclasses.replace(generator, net=net, truncation=threshold)


def draw_latents(generator: Generator, num: int, *, seed: int = 0) -> Tensor:
    """Draw z (num, z_dim) float32. Row i depends on `seed`, i and the truncation alone, not on `num`."""
    rows = -(-num // 16) * 16  # randn fills 16 numbers at a time: with another count, the last numbers would differ
    config = generator.config
    z = config.prior.draw(rows, config.z_dim, generator=stream(seed, Purpose.SAMPLES))[:num]
    return z if generator.truncation is None else config.prior.truncate(z, generator.truncation)


@torch.no_grad()
def images(generator: Generator, z: Tensor, y: Tensor | None) -> NDArray[np.uint8]:
    """G(z, y) as pixels: z (n, z_dim), y (n,) or None, on any device -> (n, H, W, C)."""
    device = next(generator.net.parameters()).device
    x = generator.net(z.to(device), None if y is None else y.to(device))
    return pixels_of(x)


def pixels_of(x: Tensor) -> NDArray[np.uint8]:
    """Images in [-1, 1] as pixels: (n, C, H, W) -> (n, H, W, C)."""
    pixels: NDArray[np.uint8] = to_uint8(x).permute(0, 2, 3, 1).cpu().numpy()
    return pixels


def sample(
    generator: Generator,
    num: int,
    *,
    seed: int = 0,
    classes: Sequence[int] | None = None,
    batch: int = BATCH,
    which: slice = slice(None),
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Draw `num` images, in batches of images (n, H, W, C) uint8 and classes (n,) int64 (zeros if unconditional).

    classes: used in turn, image i gets classes[i mod len]; None uses all. The z and class of image i depend on `seed`
        and i alone, not on `num`. A `truncated` generator gets truncated z.
    which: slice of the batches to draw.

    Raises:
        ValueError: for classes that the generator does not know.
    """
    z, y = draw_latents(generator, num, seed=seed), sample_classes(generator, num, classes)
    for i in range(0, num, batch)[which]:
        labels = None if y is None else y[i : i + batch]
        pixels = images(generator, z[i : i + batch], labels)
        yield pixels, np.zeros(len(pixels), np.int64) if labels is None else labels.numpy()


def require_some(num: int) -> None:
    """Raises ValueError unless num >= 1."""
    if num < 1:
        raise ValueError(f"num must be at least 1, got {num}")


def sample_classes(generator: Generator, num: int, classes: Sequence[int] | None) -> Tensor | None:
    """(num,) class ids, or None for an unconditional generator."""
    if not generator.conditional:
        if classes is not None:
            raise ValueError("this generator is unconditional: it was trained without classes, so none can be chosen")
        return None
    num_classes = generator.spec.num_classes
    chosen = list(range(num_classes)) if classes is None else list(classes)
    for c in chosen:
        if not 0 <= c < num_classes:
            raise ValueError(f"there is no class {c}: this generator knows classes 0 to {num_classes - 1}")
    if not chosen:
        raise ValueError("classes is empty: name at least one class")
    return torch.tensor(chosen)[torch.arange(num) % len(chosen)]
