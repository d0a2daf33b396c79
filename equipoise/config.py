"""One typed config, written in three ways: Python, `key=value` on the command line, and the text that a run saves.

A config is a tree of frozen components. Stateless components (losses, penalties, ...) *are* such values, so there is
nothing to register and nothing to build twice. The text form is the call that makes the config. The command line
accepts the same text:

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
from equipoise.losses import GANLoss, NonSaturating, Term, share_of_steps
from equipoise.models import DiscriminatorConfig, GeneratorConfig, Head
from equipoise.models.base import require_shape
from equipoise.rules import (
    Adam,
    EMAConfig,
    Game,
    Generation,
    Growth,
    NoGrowth,
    OptimConfig,
    Report,
    Start,
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


KIMG = "give total_kimg, thousands of pictures shown to D"
SIZE = "networks take the size of the data: give data.resolution, as in data.path=photos data.resolution=64"
RESUMED = "the same command resumes its run. A new run begins with another's networks by start=Transfer(run=...)"
RATES = "each player has its own: give g_optim.lr and d_optim.lr"
PRECISION = "give compute.precision=bf16, or another precision"
ELSEWHERE: Mapping[str, str] = {
    "epochs": f"{KIMG}. 100 epochs of 5,000 pictures are total_kimg=500",
    **dict.fromkeys(("iterations", "iters", "max_steps", "steps"), f"{KIMG}: batch_size / 1000 for each update of D"),
    "kimg": KIMG,
    **dict.fromkeys(("image_size", "img_size", "resolution", "size"), SIZE),
    **dict.fromkeys(("checkpoint", "continue", "resume"), RESUMED),
    **dict.fromkeys(("d_lr", "g_lr", "learning_rate"), RATES),
    **dict.fromkeys(("amp", "fp16"), PRECISION),
    **dict.fromkeys(
        ("gpu", "gpus", "num_gpus"), "give compute.device=cuda:1 for one GPU; torchrun --nproc_per_node 2 takes several"
    ),
    **dict.fromkeys(("latent_dim", "nz"), "give generator.z_dim"),
    **dict.fromkeys(
        ("num_workers", "workers"),
        "files are read ahead without a setting. `equipoise data prepare` decodes them once for all",
    ),
    **dict.fromkeys(("out", "outdir", "output"), "the folder of the run is the second argument"),
    "path": "give data=photos, or data.path=photos with other fields of Images",
    **dict.fromkeys(("gamma", "r1_gamma"), "it belongs to a penalty: 'terms=[R1(gamma=10)]', or terms.0.gamma=10"),
    **dict.fromkeys(("batch", "bs"), "give batch_size"),
    "save_every": "give report.snapshot_kimg",
    "minutes": f"{KIMG}. `equipoise train auto RUN data=photos minutes=60` chooses it for a time",
}
"""Words for settings in other programs, which `TrainConfig` lacks: word -> what to give here."""


def as_images(given: object) -> object:
    """Images from the text of an existing path: ``data=photos`` is ``data=Images(path="photos")``.

    Raises:
        ValueError: for any other text.
    """
    if not isinstance(given, str):
        return given
    with suppress(OSError, ValueError, RuntimeError):  # not a valid path: too long, a null byte, an unknown user
        if Path(given).expanduser().exists():
            return Images(path=given)
    raise ValueError(
        f"expected a data set or a path that exists, and {shown(given)} is neither{suggest_kind(DatasetConfig, given)}"
    )


@component
class TrainConfig:
    """Everything that determines a run.

    data: where real images come from.
    generator: architecture of G.
    discriminator: architecture of D's body.
    game: the images that D is shown as real and as generated.
    head: the last layer of D: plain or SAN, and its conditioning on the class.
    loss: the adversarial loss.
    terms: terms added to a player's loss: penalties on D's gradients, penalties on weights, joint penalties, feature
        matching. Each term says which player minimises it, and how often.
    g_normalizer: parametrisation of G's weights.
    d_normalizer: parametrisation of D's weights.
    constraints: projections of D's weights after each update of D.
    augment: augmentation of all images that D sees.
    growth: images that start small, and the batch size at each size.
    g_optim: optimiser of G.
    d_optim: optimiser of D.
    ema: average of G's weights.
    d_steps: D updates per G update, or `ToConvergence`.
    batch_size: images per update, over all processes.
    dequantise: width of the uniform noise U[0, dequantise] that training adds to each value of real images in [-1, 1],
        drawn anew for every batch. Papers use 1/128, about the step between two bytes; 0: none.
    g_batches: G's update generates g_batches · batch_size images. Each label of the batch is used g_batches times.
    compute: how the run computes: precision, convolutions, the compiler, pieces of a batch, the device.
    total_kimg: thousands of real images shown to D.
    start: the networks of another run, to start from; None: initial weights.
    report: statistics, checkpoints, grids and evaluations while the run trains.
    seed: seed for everything random.
    """

    moved: ClassVar[Mapping[str, str]] = MOVED
    gone: ClassVar[Mapping[str, str]] = ELSEWHERE

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
    start: Start | None = None
    report: Report = Report()
    seed: int = Field(default=0, ge=0)

    def __post_init__(self) -> None:
        """Raises ValueError for values that do not go together. Each component checks its own conflicts."""
        require_int64(self)
        for part in (*grammar.components_in(self), *self.game.terms()):
            if isinstance(part, Checks):
                part.check(self)

    def optim(self, player: str) -> OptimConfig:
        """The optimiser of "D" or "G" with all its steps counted: those that terms take on their own, too."""
        optim = self.d_optim if player == "D" else self.g_optim
        share = share_of_steps((*self.game.terms(), *self.terms), player)
        return optim if share == 1 else optim.slowed(share)

    def spec_of_g(self, spec: ImageSpec) -> ImageSpec:
        """The data of `spec` as G sees it: with classes if G reads them.

        Raises:
            ValueError: if D needs classes and the data has none, or networks take no rectangles and the data has them.
        """
        require_shape(spec, self.generator, self.discriminator)
        return spec if self.game.tells_labels else self.head.conditioning.generator_spec(spec)


@runtime_checkable
class Checks(Protocol):
    """A component that conflicts with some configs."""

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


def leaves(config: Any) -> Iterator[tuple[str, Any]]:
    """Values of a config, by dotted path: everything but components and lists."""
    todo = [("", config)]  # a loop, because a deep config would exceed the recursion limit
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
"""Fields that decide how long a run trains, on which device, and what it reports, but not what it computes."""


# ---- names in the text of a config -----------------------------------------------------------------------


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
    """Every component of the library by name. The text of a config may call these names."""
    homes = [import_module(f"{__package__}.{home}") for home in HOMES]
    exported = {name: getattr(home, name) for home in homes for name in home.__all__}
    concrete = {
        name: item
        for name, item in exported.items()
        if isinstance(item, type) and is_pydantic_dataclass(item) and not inspect.isabstract(item)
    }
    return concrete | {"TrainConfig": TrainConfig}


def known_to(config: Any) -> dict[str, type]:
    """The library's components, and the user's own components in `config`, by name."""
    return components() | grammar.made_of(config)


def override(config: Any, changes: Mapping[str, Any]) -> Any:
    """`grammar.override`: a copy of `config` with the fields at dotted paths replaced.

    A path to images replaces any other data: ``data.path=photos data.resolution=64``.

    Raises:
        ValueError: for an unknown field, a value the field does not take, or an illegal combination.
    """
    return grammar.override(config, images_in(changes, config.data) if isinstance(config, TrainConfig) else changes)


def build(changes: Mapping[str, Any]) -> TrainConfig:
    """A config from the fields at dotted paths, with defaults for the others. Raises ValueError as `override`."""
    config: TrainConfig = grammar.build(TrainConfig, images_in(changes, None))
    return config


def images_in(changes: Mapping[str, Any], data: Any) -> Mapping[str, Any]:
    """`changes`, with `Images` built from the fields in `data.` that `Images` has and the config's data lacks.

    data: the config's data, or None.

    Raises:
        ValueError: if `Images` are needed and their path is not given.
    """
    inside = {path.removeprefix("data."): value for path, value in changes.items() if path.startswith("data.")}
    if inside and isinstance(changes.get("data"), str):
        try:
            return {**changes, "data": as_images(changes["data"])}
        except ValueError as error:
            raise ValueError(f"TrainConfig.data: {error}") from None
    present = {} if data is None else {f.name: getattr(data, f.name) for f in dataclasses.fields(data)}
    lacking = [f.name for f in dataclasses.fields(Images) if f.name in inside and f.name not in present]
    if not lacking or "data" in changes:  # keep a data set that the user names
        return changes
    name, field = "TrainConfig.data" if data is None else type(data).__name__, lacking[0]
    within = next((name for name, value in present.items() if isinstance(value, DatasetConfig)), None)
    if within is not None:  # replacing it would drop a wrapper such as Few
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
    """`grammar.to_text` with the library's components: the call that makes `config`, one field per line.

    Raises:
        ValueError: if the text would not read back as the same config, such as for a schedule that is a lambda.
    """
    return grammar.to_text(config, known_to(config))
