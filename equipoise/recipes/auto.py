"""The config for pictures of your own, chosen from what is known of pictures, machine and time.

    equipoise train auto runs/mine data=photos minutes=60

The command looks at the pictures, times updates of the networks on this machine, and prints its choices with their
reasons. With `--dry-run` it stops there. `choose` makes the choices.

- Networks: `progan_small` without a GPU, growing in the first 40 % of the run; with one `stylegan2_ada`, whose batch
  follows the authors' automatic configuration for one GPU.
- Size: the largest that the pictures have, the machine can train, and the time suffices for.
- Mirrored pictures too, unless a linear classifier tells pictures from their mirror images.
- Adaptive augmentation (ADA) on a GPU, where each picture is seen often. ProGAN has none: ADA goes by the sign of D's
  output, which means nothing to a Wasserstein loss.
- Classes on a GPU, if every picture has one and there are a hundred pictures per class.
- Length: what the time allows, at the measured speed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from equipoise.augment import NoAugment
from equipoise.config import TrainConfig, override
from equipoise.data import DatasetConfig, Padded
from equipoise.models import Head, MappedProjection
from equipoise.rules import Evaluate, Growth, ProgressiveGrowing

from .progan import progan_small
from .stylegan2 import stylegan2_ada

__all__ = ["Choice", "Facts", "Machine", "Pictures", "Reason", "auto", "choose"]

SIZES = (256, 128, 64, 32, 16)
NEEDED = {256: 3000, 128: 2000, 64: 150, 32: 100, 16: 50}
"""Thousands of images that a run should see, by size. With less time a smaller size is chosen."""
LARGEST = {"cuda": 256}
"""The largest size of a device; 64 for others."""
ENLARGED = 1.25
"""The largest factor by which pictures are enlarged."""
TOLD_APART = 0.65
"""The `handedness` from which pictures are not mirrored."""
OFTEN = 10
"""ADA is chosen if each picture is seen this often."""
GROWN = 0.4
"""Part of the run in which networks grow."""
GROWING = 0.5
"""Time for an image in that part, relative to one of the full size, all sizes together."""
FIRST = 4
"""Pixels of the images from which networks grow."""
CHEAP = Evaluate(metrics=("frechet",), features="cells", num=1000)
"""The measurement that decides which generator of the run is the best."""
FIELDS = {"batch": "batch_size", "mirror": "data.mirror", "augment": "augment", "classes": "head"}
"""Line of the table -> the field that it is about. A field that is given has a line of its own."""
PER_CLASS = 100
SHARE = 0.9
"""The updates' share of the time. The rest is for grids, checkpoints and measurements."""
LONGEST = 25_000
"""The longest run, in kimg: the published length."""


class Pictures(NamedTuple):
    """A data set.

    at: its config at a size.
    sizes: the sizes that it can have; None: any.
    num: number of pictures.
    side: pixels of the median picture's shorter side.
    channels: 1 grey, 3 colour.
    classes: number of classes; 0 if any picture has none.
    handedness: see `equipoise.data.handedness`.
    copies: pictures that hold the same bytes as an earlier one.
    """

    at: Callable[[int], DatasetConfig]
    sizes: tuple[int, ...] | None
    num: int
    side: int
    channels: int
    classes: int = 0
    handedness: float = 1.0
    copies: int = 0


class Machine(NamedTuple):
    """A device. kind: "cpu", "cuda" or "mps".  name: in words."""

    kind: str
    name: str


class Facts(NamedTuple):
    """All that a choice depends on. kimg: length of the run; None: as long as `minutes`."""

    pictures: Pictures
    machine: Machine
    minutes: float = 60.0
    kimg: float | None = None


class Reason(NamedTuple):
    """A choice, and why."""

    what: str
    chosen: str
    why: str


class Choice(NamedTuple):
    """recipe: the recipe that `config` changes.  speed: images per second."""

    recipe: str
    config: TrainConfig
    speed: float
    reasons: tuple[Reason, ...]


Speed = Callable[[TrainConfig, int], float]
"""Images per second of a config, at a size."""


def auto() -> TrainConfig:
    """ProGAN (Karras et al. 2018) for your own pictures: `data=photos minutes=60` decide all other settings."""
    digits = Pictures(lambda size: Padded(resolution=size), (32,), 10_000, 28, 1)
    return choose(Facts(digits, Machine("cpu", "a CPU")), lambda *_: 100.0).config


def choose(facts: Facts, speed: Speed, changes: Mapping[str, Any] | None = None) -> Choice:
    """The config for `facts`. `speed` is asked for one size after the other, until one is fast enough.

    changes: fields that are given, by dotted name.

    Raises:
        ValueError: for pictures of sizes that the networks cannot make, or changes that do not fit.
    """
    pictures, given = facts.pictures, dict(changes or {})

    cuda = facts.machine.kind == "cuda"
    conditional = cuda and pictures.classes > 1 and pictures.num >= PER_CLASS * pictures.classes
    head = Head(MappedProjection()) if conditional else Head()

    def at(size: int) -> tuple[str, TrainConfig]:
        name, cfg = networks(facts.machine, size)
        return name, replace(cfg, data=pictures.at(size), head=head)

    size, rate, because = sized(facts, lambda size: speed(override(at(size)[1], given), size))
    kimg = length(facts, rate)
    seen = 1000 * kimg / pictures.num
    recipe, cfg = at(size)
    mirror = cfg.data.mirror or pictures.handedness < TOLD_APART
    often = two_digits(max(kimg / 10, 1))
    cfg = replace(
        cfg,
        data=replace(cfg.data, mirror=mirror),
        augment=cfg.augment if seen >= OFTEN else NoAugment(),
        growth=grown(cfg.growth, size, kimg),
        total_kimg=kimg,
        report=replace(cfg.report, snapshot_kimg=often, evaluation=replace(CHEAP, every_kimg=often)),
    )
    batches = dict.fromkeys(count for _, count in cfg.growth.batches(size, cfg.batch_size))
    chosen = (
        Reason("pictures", described(pictures), f"{pictures.copies} hold the same bytes as others"),
        Reason("recipe", recipe, f"for {facts.machine.name}"),
        Reason("size", f"{size}x{size}", because),
        Reason("batch", ", then ".join(map(str, batches)), "the recipe's"),
        Reason("mirror", "yes" if mirror else "no", of_mirrors(pictures)),
        Reason(
            "augment", "none" if isinstance(cfg.augment, NoAugment) else "ADA", of_augmentation(seen, kimg, cuda=cuda)
        ),
        Reason("classes", "used" if conditional else "not used", of_classes(pictures, cuda=cuda)),
        Reason("best", "the nearest", f"by distance of colours in 4x4 cells, measured every {often:g} kimg"),
        Reason("length", f"{kimg:g} kimg", of_length(facts, rate, kimg, size)),
    )
    reasons = (
        *(reason for reason in chosen if FIELDS.get(reason.what) not in given),
        *(Reason(name, str(value), "as given") for name, value in given.items()),
    )
    return Choice(recipe, override(cfg, given), rate, reasons)


def networks(machine: Machine, size: int) -> tuple[str, TrainConfig]:
    """The recipe's name, and its config."""
    if machine.kind == "cuda":
        return "stylegan2_ada", stylegan2_ada(size, batch=min(4096 // size, 32))
    return "progan_small", progan_small()


def grown(growth: Growth, size: int, kimg: float) -> Growth:
    """The growth, over the first part of a run; each size is trained for 0.6 of its share and fades in for the rest."""
    if not isinstance(growth, ProgressiveGrowing):
        return growth
    share = GROWN * kimg / max(int(math.log2(size / FIRST)), 1)
    return replace(growth, initial=FIRST, stable_kimg=two_digits(0.6 * share), fade_kimg=two_digits(0.4 * share))


def sized(facts: Facts, speed: Callable[[int], float]) -> tuple[int, float, str]:
    """The size, images per second at this size, and the reason."""
    pictures, machine = facts.pictures, facts.machine
    most = LARGEST.get(machine.kind, 64)
    known = [size for size in SIZES if pictures.sizes is None or size in pictures.sizes]
    if not known:
        raise ValueError(
            f"these networks make images of {', '.join(map(str, sorted(SIZES)))} pixels, and the pictures have "
            f"{', '.join(map(str, pictures.sizes or ()))}: give data=Images(path=..., resolution=32), or another recipe"
        )
    if len(known) == 1:
        return known[0], speed(known[0]), "the size of the data"
    sharp = [size for size in known if size <= max(ENLARGED * pictures.side, SIZES[-1])]
    able = [size for size in sharp if size <= most]
    slow = ""
    for size in able:
        rate = speed(size)
        kimg = length(facts, rate)
        if kimg >= NEEDED[size] or size == able[-1]:
            break
        slow = f"{size}x{size} would see {kimg:g} kimg, and should see {NEEDED[size]}"
    if slow:
        return size, rate, slow
    if sharp[0] > most:
        return size, rate, f"the largest for {machine.name}"
    return size, rate, f"the pictures have {pictures.side} pixels"


def length(facts: Facts, rate: float) -> float:
    """Thousands of images, to two digits: those given, or those that the time allows at `rate` images per second."""
    if facts.kimg is not None:
        return facts.kimg
    return two_digits(min(max(SHARE * facts.minutes * 60 * rate / 1000 / work(facts.machine), 0.1), LONGEST))


def work(machine: Machine) -> float:
    """Time of a run, relative to one that does not grow."""
    return 1.0 if machine.kind == "cuda" else 1 - GROWN * (1 - GROWING)


def two_digits(number: float) -> float:
    """The number with its first two digits, rounded down."""
    unit = 10.0 ** (math.floor(math.log10(number)) - 1)
    return round(math.floor(number / unit + 1e-9) * unit, 6)


def described(pictures: Pictures) -> str:
    colour = "grey" if pictures.channels == 1 else "colour"
    return f"{pictures.num:,}, {colour}, {pictures.side} pixels"


def of_mirrors(pictures: Pictures) -> str:
    told = f"a linear classifier tells {pictures.handedness:.0%} of them from their mirror images"
    return f"{told}; 50% is a guess, {TOLD_APART:.0%} the limit"


def of_augmentation(seen: float, kimg: float, *, cuda: bool) -> str:
    often = f"each picture is seen {seen:.3g} times in {kimg:g} kimg"
    return often if cuda else f"{often}; ADA does not go with ProGAN's loss"


def of_classes(pictures: Pictures, *, cuda: bool) -> str:
    if not cuda and pictures.classes > 1:
        return "without a GPU all pictures are one kind: head.conditioning=Projection makes classes a choice"
    if pictures.classes < 2:
        return "not every picture has a class" if pictures.classes == 0 else "there is one class"
    each = pictures.num / pictures.classes
    return f"{pictures.classes} classes with {each:,.0f} pictures each; {PER_CLASS} are needed"


def of_length(facts: Facts, rate: float, kimg: float, size: int) -> str:
    minutes = 1000 * kimg * work(facts.machine) / rate / 60 / SHARE
    why = f"as given: {minutes:.3g} minutes" if facts.kimg is not None else f"{facts.minutes:g} minutes"
    short = f". Too short: {NEEDED[size]} kimg draw first shapes" if kimg < NEEDED[size] else ""
    return f"{why} at {rate:.3g} images/s{short}"
