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
from typing import Annotated, Any, ClassVar, Protocol, runtime_checkable

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import is_pydantic_dataclass

from equipoise.augment import Augment, NoAugment
from equipoise.compute.settings import Compute
from equipoise.core import grammar
from equipoise.core.grammar import differences, parse, suggest
from equipoise.core.mistakes import suggest_kind
from equipoise.core.nesting import shown
from equipoise.core.types import ImageSpec, component
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

__all__ = ["TrainConfig", "build", "components", "differences", "known_to", "override", "parse", "suggest", "to_text"]


MOVED: Mapping[str, str] = {
    "penalties": "terms",
    "d_regularizers": "terms",
    "g_regularizers": "terms",
    "joint_penalties": "terms",
    "feature_matching": "terms",
    "precision": "compute.precision",
    "convolutions": "compute.convolutions",
    "compile": "compute.compile",
    "micro_batch": "compute.micro_batch",
    "log_kimg": "report.log_kimg",
    "snapshot_kimg": "report.snapshot_kimg",
    "evaluation": "report.evaluation",
    "reuse_fakes": "game.reuse",
    "transfer": "start",
}
"""Fields of `TrainConfig` that have moved: the old dotted name, and the new one, which messages give."""


def as_images(given: object) -> object:
    """The images at a path that exists: ``data=photos`` is ``data=Images(path="photos")``.

    Raises:
        ValueError: for another text.
    """
    if not isinstance(given, str):
        return given
    with suppress(OSError, ValueError, RuntimeError):  # no name of a file: too long, with a zero, of no user
        if Path(given).expanduser().exists():
            return Images(path=given)
    raise ValueError(
        f"expected a data set or a path that exists, and {shown(given)} is neither{suggest_kind(DatasetConfig, given)}"
    )


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

    moved: ClassVar[Mapping[str, str]] = MOVED

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
        for part in (*components_in(self), *self.game.terms()):
            if isinstance(part, Checks):
                part.check(self)

    def spec_of_g(self, spec: ImageSpec) -> ImageSpec:
        """The data of `spec` as G sees it: with classes where it reads them.

        Raises:
            ValueError: if D needs classes and the data has none.
        """
        return spec if self.game.tells_labels else self.head.conditioning.generator_spec(spec)


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
    """`grammar.override`: a copy of `config` with the fields at dotted paths replaced.

    Images take the place of other data if their path is given: ``data.path=photos data.resolution=64``.

    Raises:
        ValueError: for an unknown field, a value the field does not take, or an illegal combination.
    """
    return grammar.override(config, images_in(changes, config.data) if isinstance(config, TrainConfig) else changes)


def build(changes: Mapping[str, Any]) -> TrainConfig:
    """The config of the fields at dotted paths; the others have their defaults. Raises ValueError as `override`."""
    config: TrainConfig = grammar.build(TrainConfig, images_in(changes, None))
    return config


def images_in(changes: Mapping[str, Any], data: Any) -> Mapping[str, Any]:
    """`changes` with `Images` made of the fields inside `data.`, if those and not `data` have such fields.

    data: what the config has, or None.

    Raises:
        ValueError: if there is no path to make them with.
    """
    inside = {path.removeprefix("data."): value for path, value in changes.items() if path.startswith("data.")}
    if inside and isinstance(changes.get("data"), str):
        try:
            return {**changes, "data": as_images(changes["data"])}
        except ValueError as error:
            raise ValueError(f"TrainConfig.data: {error}") from None
    present = {} if data is None else {f.name: getattr(data, f.name) for f in dataclasses.fields(data)}
    lacking = [f.name for f in dataclasses.fields(Images) if f.name in inside and f.name not in present]
    if not lacking or "data" in changes:  # a data set that the user names stays
        return changes
    name, field = "TrainConfig.data" if data is None else type(data).__name__, lacking[0]
    within = next((name for name, value in present.items() if isinstance(value, DatasetConfig)), None)
    if within is not None:  # Few would be lost
        raise ValueError(
            f"{name} has no field {field!r}: give data.{within}='Images(path=...)', or data='Images(path=...)' for all"
        )
    if "path" not in inside:
        raise ValueError(
            f"{name} has no field {field!r}, which Images have: give their path too, as in "
            f"data.path=photos data.{field}={shown(inside[field])}"
        )
    kept = {path: value for path, value in changes.items() if not path.startswith("data.")}
    return {**kept, "data": Images(**inside)}


def to_text(config: TrainConfig) -> str:
    """`grammar.to_text` with the library's components: the call that makes `config`, a field a line.

    Raises:
        ValueError: if it would not read back as the same config (say, with a lambda for a schedule).
    """
    return grammar.to_text(config, known_to(config))
