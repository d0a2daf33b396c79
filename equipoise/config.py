"""One typed config, three ways in: Python, `key=value` on the command line, and the text a run saves.

A config is a tree of frozen components, and stateless components (losses, penalties, ...) *are* such values, so
there is nothing to register and nothing to build twice. The text form is the call that makes it, which is also
what the command line accepts:

    loss=Hinge  'terms=[R1(gamma=5)]'  g_optim.lr=1e-4  head.san=true  terms.0.every=8
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import is_pydantic_dataclass

from equipoise.augment import Augment, NoAugment
from equipoise.compute.settings import Compute
from equipoise.core import grammar
from equipoise.core.grammar import differences, parse, suggest
from equipoise.core.types import component
from equipoise.data import DatasetConfig, Images
from equipoise.losses import GANLoss, NonSaturating, Term
from equipoise.models import DiscriminatorConfig, GeneratorConfig, Head
from equipoise.rules import (
    Adam,
    EMAConfig,
    FreezeD,
    Game,
    Generation,
    Growth,
    NoGrowth,
    OptimConfig,
    Report,
    ToConvergence,
)
from equipoise.weights import Constraint, NoNormalizer, Normalizer

__all__ = ["TrainConfig", "components", "differences", "known_to", "override", "parse", "suggest", "to_text"]


def as_images(given: object) -> object:
    """The images at a path that exists: ``data=photos`` is ``data=Images(path="photos")``."""
    if isinstance(given, str):
        with suppress(OSError, ValueError, RuntimeError):  # no name of a file: too long, with a zero, of no user
            if Path(given).expanduser().exists():
                return Images(path=given)
    return given


@component
class TrainConfig:
    """Everything that determines a run.

    game: what D is shown as real and as generated.
    terms: what is added to a player's loss: penalties on D's gradients, penalties on weights, joint penalties, feature
        matching. Each says which player minimises it, and how often.
    growth: images that start small, and the batch size of each of their sizes.
    d_steps: D updates per G update, or `ToConvergence`.
    batch_size: images per update, over all processes.
    dequantise: width of the uniform noise U[0, dequantise] that training adds to each value of real images in [-1, 1],
        drawn anew for every batch. Published widths are 1/128, about the step between two bytes; 0: none.
    g_batches: G's update generates so many times batch_size images, with each label of the batch so many times.
    compute: how the run computes: precision, convolutions, the compiler, pieces of a batch, the device.
    total_kimg: thousands of real images shown to D.
    start: the networks of another run, to start from.
    report: statistics, checkpoints, grids and evaluations while the run trains.
    """

    data: Annotated[DatasetConfig, BeforeValidator(as_images)]
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    game: Game = Generation()
    head: Head = Head()
    loss: GANLoss = NonSaturating()
    terms: tuple[Term, ...] = ()
    g_normalizer: Normalizer = NoNormalizer()
    d_normalizer: Normalizer = NoNormalizer()
    constraints: tuple[Constraint, ...] = ()
    augment: Augment = NoAugment()
    growth: Growth = NoGrowth()
    g_optim: OptimConfig = Adam()
    d_optim: OptimConfig = Adam()
    ema: EMAConfig = EMAConfig()
    d_steps: Annotated[int, Field(ge=1)] | ToConvergence = 1
    batch_size: int = Field(default=64, ge=1)
    dequantise: float = Field(default=0.0, ge=0, le=1)
    g_batches: int = Field(default=1, ge=1)
    compute: Compute = Compute()
    total_kimg: float = Field(default=1000, gt=0)
    start: FreezeD | None = None
    report: Report = Report()
    seed: int = Field(default=0, ge=0)

    def __post_init__(self) -> None:
        """Raises ValueError for values that do not go together. The component that knows the reason checks them."""
        require_int64(self)
        for part in components_in(self):
            if isinstance(part, Checks):
                part.check(self)


@runtime_checkable
class Checks(Protocol):
    """A component that some configs have no place for."""

    def check(self, cfg: Any) -> None:
        """Raises ValueError for such a config, with the reason and what to do."""


def require_int64(config: TrainConfig) -> None:
    """Raises ValueError for a count in `config` of 2**63 or more: an integer, or thousands of images."""
    for path, value in leaves(config):
        counts = isinstance(value, int) or (isinstance(value, float) and path.endswith("kimg"))
        if counts and abs(value) >= 2**63:
            bits = int(value).bit_length()
            given = f"an integer of {bits} bits" if bits > 1024 else repr(value)  # Python prints no text that long
            raise ValueError(f"{path} takes numbers below 2**63 = 9.2e18, got {given}")


def components_in(config: Any) -> Iterator[Any]:
    """The components that `config` is made of, the outer ones first, in the order of fields."""
    todo = [getattr(config, f.name) for f in reversed(dataclasses.fields(config))]
    while todo:
        value = todo.pop()
        if isinstance(value, tuple):
            todo += reversed(value)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield value
            todo += [getattr(value, f.name) for f in reversed(dataclasses.fields(value))]


def leaves(config: Any) -> Iterator[tuple[str, Any]]:
    """What a config is made of that is neither a component nor a list, by dotted path."""
    todo = [("", config)]  # no recursion, which a deep config would end
    while todo:
        path, value = todo.pop()
        if isinstance(value, tuple):
            inner = [(str(i), item) for i, item in enumerate(value)]
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            inner = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
        else:
            yield path, value
            continue
        todo += [(f"{path}.{name}" if path else name, item) for name, item in reversed(inner)]


SCHEDULE_ONLY = ("total_kimg", "report", "compute.device")
"""Fields that decide how long a run goes on, where, and what it reports, not what it computes."""


# ---- names in its text -----------------------------------------------------------------------------------


HOMES = (
    "core.latents",
    "core.schedules",
    "compute.settings",
    "augment",
    "data",
    "weights",
    "losses",
    "models",
    "rules",
)
"""Rooms and modules whose `__all__` names components."""


def components() -> dict[str, type]:
    """Every component of the library by name: what a config's text may call."""
    homes = [import_module(f"{__package__}.{home}") for home in HOMES]
    found = {name: getattr(home, name) for home in homes for name in home.__all__}
    known = {
        name: item
        for name, item in found.items()
        if isinstance(item, type) and is_pydantic_dataclass(item) and not inspect.isabstract(item)
    }
    return known | {"TrainConfig": TrainConfig}


def known_to(config: Any) -> dict[str, type]:
    """The library's components, and those of the user's own that `config` is made of."""
    return components() | grammar.made_of(config)


def override(config: Any, changes: Mapping[str, Any]) -> Any:
    """`grammar.override` with the library's components: a copy of `config` with the fields at dotted paths replaced.

    Raises:
        ValueError: for an unknown field, a value the field does not take, or an illegal combination.
    """
    return grammar.override(config, changes, components())


def to_text(config: TrainConfig) -> str:
    """`grammar.to_text` with the library's components: the call that makes `config`, a field a line.

    Raises:
        ValueError: if it would not read back as the same config (say, with a lambda for a schedule).
    """
    return grammar.to_text(config, known_to(config))
