"""Choices of the playground: every component that a GAN of points may be made of, found by its module."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from equipoise.augment import InstanceNoise, NoAugment
from equipoise.config import TrainConfig
from equipoise.core import schedules
from equipoise.data import Distribution, Points, toy
from equipoise.losses import adversarial as losses
from equipoise.losses import features as matching
from equipoise.losses import joint, penalties, regularizers
from equipoise.rules import ToConvergence, optim
from equipoise.weights import constraints, normalizers

__all__ = ["KNOBS", "Knob", "catalogue", "goes_on", "known", "require_knobs", "require_playable"]


def components(home: ModuleType) -> tuple[type, ...]:
    """The components that `home` names in `__all__`."""
    named = (getattr(home, name) for name in home.__all__)
    return tuple(item for item in named if isinstance(item, type) and dataclasses.is_dataclass(item))


DISTRIBUTIONS = tuple(cls for cls in components(toy) if issubclass(cls, Distribution))
PLANE = tuple(cls for cls in DISTRIBUTIONS if cls.dim == 2)


@dataclasses.dataclass(frozen=True)
class Knob:
    """A field of the config that the page shows.

    path: its place in the config.  line: its description.
    options: components that it may hold; empty for a plain value.  many: whether it holds a list of components.
    plain: other values that it may hold, as name to show -> text. A number stands for any number.
    """

    path: str
    group: str
    title: str
    line: str
    options: tuple[type, ...] = ()
    many: bool = False
    plain: Mapping[str, str] = dataclasses.field(default_factory=dict)


KNOBS = (
    Knob("data.of", "Data", "Distribution", "Distribution of the real points.", PLANE),
    Knob("loss", "Game", "Loss", "Loss that each player minimises.", components(losses)),
    Knob("head.san", "Game", "SAN", "D's last layer as direction and length, each with a loss of its own."),
    Knob(
        "head.scale",
        "Game",
        "SAN: length",
        "Length of the last layer's vector: its norm, or a learned number.",
        plain={"its norm": "norm", "learned": "learned"},
    ),
    Knob("head.normalize_loss", "Game", "SAN: weights", "Divide the weights of the direction's loss by their mean."),
    Knob(
        "d_steps",
        "Game",
        "D updates",
        "Updates of D before each update of G.",
        (ToConvergence,),
        plain={"a fixed number": "1"},
    ),
    Knob(
        "terms",
        "Game",
        "Terms",
        "Terms added to a player's loss.",
        tuple(option for module in (penalties, regularizers, joint, matching) for option in components(module)),
        many=True,
    ),
    Knob("d_normalizer", "Stabilisers of D", "Normaliser", "Parametrisation of D's weights.", components(normalizers)),
    Knob(
        "constraints",
        "Stabilisers of D",
        "Constraints",
        "Constraints on D's weights, applied after each update.",
        components(constraints),
        many=True,
    ),
    Knob(
        "augment",
        "Stabilisers of D",
        "Instance noise",
        "Noise added to every point that D sees.",
        (NoAugment, InstanceNoise),
    ),
    Knob("g_normalizer", "Stabilisers of G", "Normaliser", "Parametrisation of G's weights.", components(normalizers)),
    Knob(
        "ema.halflife_kimg",
        "Stabilisers of G",
        "Average of G",
        "Averaged G, which draws the points: half-life in thousand points, 0 for G itself.",
    ),
    Knob("d_optim", "Optimisers", "Of D", "Optimiser of D.", components(optim)),
    Knob("g_optim", "Optimisers", "Of G", "Optimiser of G.", components(optim)),
    Knob("batch_size", "Optimisers", "Batch", "Points per update."),
    Knob("discriminator.width", "Networks", "D: width", "Units of a hidden layer."),
    Knob("discriminator.depth", "Networks", "D: depth", "Number of hidden layers."),
    Knob("generator.width", "Networks", "G: width", "Units of a hidden layer."),
    Knob("generator.depth", "Networks", "G: depth", "Number of hidden layers."),
    Knob("generator.z_dim", "Networks", "G: length of z", "Dimensions of the noise that G reads."),
    Knob("seed", "Networks", "Seed", "Equal seeds start from equal weights and draw equal points."),
)

FIRST = {
    "R1": "R1(gamma=0.1,every=1)",
    "R2": "R2(gamma=0.1,every=1)",
    "GradientPenalty": "GradientPenalty(strength=0.1)",
    "Dragan": "Dragan(strength=0.1)",
    "ClipWeights": "ClipWeights(bound=0.1)",
    "Consensus": "Consensus(gamma=0.1)",
    "InstanceNoise": "InstanceNoise(std=Linear(start=0.5,end=0.0,kimg=500.0))",
    "Adam": "Adam(lr=0.005,betas=[0.5,0.9])",
    "RMSprop": "RMSprop(lr=0.001)",
    "ToConvergence": "ToConvergence(max_steps=100)",
}
"""First text of a component whose defaults, made for images, do too little or too much to points."""


def known() -> dict[str, type]:
    """The components that a setting's text may call, by name: points and losses, but nothing that reads files."""
    allowed: list[type] = [Points, *DISTRIBUTIONS, *components(schedules)]
    for knob in KNOBS:
        allowed += knob.options
    return {cls.__name__: cls for cls in allowed}


def catalogue() -> list[dict[str, Any]]:
    """The knobs for the page: their texts, and for each option its docstring and first text."""
    return [
        {
            "path": knob.path,
            "group": knob.group,
            "title": knob.title,
            "line": knob.line,
            "many": knob.many,
            "goes_on": goes_on(knob.path),
            "options": [
                *({"name": "", "title": title, "text": text} for title, text in knob.plain.items()),
                *({"name": option.__name__, "title": option.__name__, **described(option)} for option in knob.options),
            ],
        }
        for knob in KNOBS
    ]


def described(option: type) -> dict[str, str]:
    """The first text and the docstring of a component: the first line, and the rest with one line per paragraph."""
    line, _, rest = inspect.cleandoc(option.__doc__ or "").partition("\n")
    more = re.sub(r"(?<!\n)\n(?!\n|[\w, ]+: )\s*", " ", rest.strip())
    return {"text": FIRST.get(option.__name__, option.__name__), "line": line, "more": more}


# ---- what may change, and how far ------------------------------------------------------------------------

ANEW = ("generator", "discriminator", "head", "g_normalizer", "d_normalizer", "seed")


def goes_on(path: str) -> bool:
    """Whether training continues under another value at `path`. If not, networks are built with the value."""
    return path.partition(".")[0] not in ANEW and path not in ("d_optim", "g_optim")


MOST = {
    "batch_size": 1024,
    "d_steps": 20,
    "d_steps.max_steps": 100,
    "generator.width": 512,
    "generator.depth": 8,
    "generator.z_dim": 256,
    "discriminator.width": 512,
    "discriminator.depth": 8,
    "d_normalizer.iterations": 50,
    "g_normalizer.iterations": 50,
    "data.of.num": 64,
    "data.of.side": 10,
}
"""Greatest values, by path: they keep an update short and its memory small."""
MOST_TERMS = 6


def require_knobs(paths: Iterable[str]) -> None:
    """Raise ValueError for a dotted path that is neither a knob nor a field of a knob's component."""
    for path in paths:
        if not any(f"{path}.".startswith(f"{knob.path}.") for knob in KNOBS):
            raise ValueError(
                f"the playground cannot change {path}: give one of its knobs, {', '.join(knob.path for knob in KNOBS)}"
            )


def require_playable(cfg: TrainConfig) -> TrainConfig:
    """Return `cfg`. Raises ValueError if the page would have to wait for it, or cannot draw it."""
    for path, most in MOST.items():
        value = at(cfg, path)
        if isinstance(value, int) and value > most:
            raise ValueError(f"{path}={value} is more than the playground takes, {most}: the page would have to wait")
    for path in (knob.path for knob in KNOBS if knob.many):
        if len(at(cfg, path)) > MOST_TERMS:
            raise ValueError(f"{path} holds {len(at(cfg, path))} terms, and the playground takes {MOST_TERMS}")
    of = at(cfg, "data.of")
    if isinstance(of, Distribution) and of.dim != 2:
        raise ValueError(f"{of!r} has points on a line, and the playground draws the plane: try data.of=Ring(num=2)")
    return cfg


def at(cfg: object, path: str) -> Any:
    """The value at a dotted path; None if the path does not exist."""
    for field in path.split("."):
        cfg = getattr(cfg, field, None)
    return cfg
