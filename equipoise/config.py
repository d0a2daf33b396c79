"""One typed config, three ways in: Python, `key=value` on the command line, and the text a run saves.

A config is a tree of frozen components, and stateless components (losses, penalties, ...) *are* such values, so
there is nothing to register and nothing to build twice. The text form is the call that makes it, which is also
what the command line accepts:

    loss=Hinge  'penalties=[R1(gamma=5)]'  g_optim.lr=1e-4  head.san=true  penalties.0.every=8
"""

from __future__ import annotations

import dataclasses
import inspect
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import is_pydantic_dataclass

from equipoise.augment import Augment, NoAugment
from equipoise.core import grammar
from equipoise.core.grammar import differences, parse, suggest
from equipoise.core.types import component
from equipoise.data import DatasetConfig, Images
from equipoise.losses import (
    Dragan,
    FeatureMatching,
    GANLoss,
    JointPenalty,
    NonSaturating,
    Penalty,
    Regularizer,
    Saturating,
    monotone,
)
from equipoise.models import DiscriminatorConfig, GeneratorConfig, Head
from equipoise.rules import Adam, EMAConfig, Evaluate, FreezeD, Growth, NoGrowth, OptimConfig, ToConvergence
from equipoise.weights import ClipSingularValues, ClipWeights, Constraint, NoNormalizer, Normalizer, UnitSphere

__all__ = ["TrainConfig", "components", "differences", "known_to", "override", "parse", "suggest", "to_text"]


def as_images(given: object) -> object:
    """The images at a path that exists: ``data=photos`` is ``data=Images(path="photos")``."""
    if isinstance(given, str):
        with suppress(OSError, ValueError, RuntimeError):  # no name of a file: too long, with a zero, of no user
            if Path(given).expanduser().exists():
                return Images(path=given)
    return given


def require_penalty(given: object) -> object:
    """Raises ValueError for a term that belongs into another field, with its name."""
    if isinstance(given, Regularizer | JointPenalty):
        field = "joint_penalties" if isinstance(given, JointPenalty) else "d_regularizers"
        raise ValueError(
            f"{given!r} is no penalty on images, which `penalties` holds: give it as "
            + shlex.quote(f"{field}=[{given!r}]")
        )
    return given


@component
class TrainConfig:
    """Everything that determines a run.

    d_regularizers, g_regularizers: penalties on the weights of each network; joint_penalties: on both players at once.
    feature_matching: G also, or only, matches the means of D's features.
    growth: images that start small, and the batch size of each of their sizes.
    d_steps: D updates per G update, or `ToConvergence`.
    transfer: start from the networks of another run.
    evaluation: measure the averaged generator while it trains, and keep the best.
    batch_size: images per update, over all processes.
    dequantise: width of the uniform noise U[0, dequantise] that training adds to each value of real images in [-1, 1],
        drawn anew for every batch. Published widths are 1/128, about the step between two bytes; 0: none.
    g_batches: G's update generates so many times batch_size images, with each label of the batch so many times.
    reuse_fakes: G's update takes the images of D's last one, made from D's z, and saves a forward of G.
    micro_batch: at most so many images of a process at a time; gradients add up to those of the whole batch, in less
        memory. What compares the images of a batch (batch norm, minibatch layers) compares those of a piece.
    precision: "bf16" computes the losses of both players in bfloat16, with weights, norms, logits, penalties and
        optimisers in float32; "tf32" all products of float32 numbers in TF32, on a GPU that has it. "auto" measures
        whether one of them is faster here, says what it chose, and keeps to it.
    convolutions: "measured" computes each convolution in the way that was fastest here, which rounds differently.
    compile: compile the networks for the losses (`torch.compile`); penalties, which differentiate twice, run as they
        are. "reduce-overhead" and "max-autotune" are torch's modes: on a GPU both replay CUDA graphs (not tried yet).
    total_kimg: thousands of real images shown to D.
    log_kimg, snapshot_kimg: statistics, and checkpoints with sample grids, are written every so many kimg.
    """

    data: Annotated[DatasetConfig, BeforeValidator(as_images)]
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    head: Head = Head()
    loss: GANLoss = NonSaturating()
    penalties: tuple[Annotated[Penalty, BeforeValidator(require_penalty)], ...] = ()
    g_regularizers: tuple[Regularizer, ...] = ()
    d_regularizers: tuple[Regularizer, ...] = ()
    joint_penalties: tuple[JointPenalty, ...] = ()
    feature_matching: FeatureMatching | None = None
    g_normalizer: Normalizer = NoNormalizer()
    d_normalizer: Normalizer = NoNormalizer()
    constraints: tuple[Constraint, ...] = ()
    augment: Augment = NoAugment()
    growth: Growth = NoGrowth()
    g_optim: OptimConfig = Adam()
    d_optim: OptimConfig = Adam()
    ema: EMAConfig = EMAConfig()
    d_steps: Annotated[int, Field(ge=1)] | ToConvergence = 1
    transfer: FreezeD | None = None
    evaluation: Evaluate | None = None
    batch_size: int = Field(default=64, ge=1)
    dequantise: float = Field(default=0.0, ge=0, le=1)
    g_batches: int = Field(default=1, ge=1)
    reuse_fakes: bool = False
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    precision: Literal["float32", "tf32", "bf16", "auto"] = "float32"
    convolutions: Literal["torch", "measured"] = "torch"
    compile: bool | Literal["reduce-overhead", "max-autotune"] = False
    total_kimg: float = Field(default=1000, gt=0)
    log_kimg: float = Field(default=1, gt=0)
    snapshot_kimg: float = Field(default=10, gt=0)
    seed: int = Field(default=0, ge=0)

    def __post_init__(self) -> None:
        """The illegal combinations of the library, each with its reason and its fix."""
        require_int64(self)
        if self.head.san and self.loss.paired:
            raise ValueError(
                f"head.san=true has no direction loss for the paired loss {self.loss!r}: SAN is defined for losses "
                "on single logits. Use an unpaired loss (loss=Hinge), or a plain head (head.san=false)."
            )
        if self.head.normalize_loss and not monotone(self.loss):
            raise ValueError(
                f"head.normalize_loss=true and {self.loss!r} do not go together: the g that its G minimises rises "
                "somewhere, so the weights -g' of the direction loss may be negative, and their mean 0. Use a loss "
                "that falls everywhere (loss=SoftLeastSquares, loss=NonSaturating), or head.normalize_loss=false."
            )
        if self.augment.reads_sign and not self.loss.signed:
            raise ValueError(
                f"augment={self.augment!r} goes by the sign of D's logits on real images, which says nothing with "
                f"{self.loss!r}, because a logit of 0 does not mean undecided there. Compare with images held out "
                "(augment=ADA(heuristic=rv,held_out=0.1)), keep p (augment=ADA(heuristic=fixed,initial=0.3)), or take "
                "a loss with a verdict (loss=NonSaturating, loss=Hinge)."
            )
        self.generator.check(conditional=self.head.conditioning.conditional_generator)
        if self.head.conditioning.cross_entropy and not isinstance(self.loss, Saturating | NonSaturating):
            raise ValueError(
                f"head.conditioning={self.head.conditioning!r} and {self.loss!r} do not go together: its logit is that "
                "of the probability that an image is of some real class, and the loss must be its cross-entropy. Use "
                "loss=NonSaturating or loss=Saturating, or another conditioning."
            )
        projection = next(
            (c for c in self.constraints if isinstance(c, ClipWeights | ClipSingularValues | UnitSphere)), None
        )
        if projection is not None and self.d_normalizer != NoNormalizer():
            raise ValueError(
                f"{projection!r} and d_normalizer={self.d_normalizer!r} do not go together: a normalised weight is "
                "computed at every forward, not stored, so there is nothing to project. Use one of the two: "
                "d_normalizer=NoNormalizer, or no such constraint."
            )
        if self.joint_penalties and self.head.san:
            raise ValueError(
                f"{self.joint_penalties[0]!r} and head.san=true do not go together: a SAN head makes its gradients by "
                "holding parts of itself still, and their own gradients, which a joint penalty needs, lack those "
                "parts. Take a plain head (head.san=false), or no joint penalty."
            )
        whole: tuple[object, ...] = (
            *(["head.normalize_loss=true"] if self.head.normalize_loss else []),
            *([] if self.feature_matching is None else [self.feature_matching]),
            *self.joint_penalties,
            *(penalty for penalty in self.penalties if isinstance(penalty, Dragan)),
        )
        if whole and self.micro_batch is not None:
            raise ValueError(
                f"micro_batch={self.micro_batch} and {whole[0]} do not go together: this is no mean over images, but "
                "reads a mean or spread of the batch first, so the gradients of pieces do not add up to its own. Use "
                "micro_batch=none with more processes or a smaller batch_size, or go without it."
            )
        if self.reuse_fakes and (self.g_batches > 1 or self.micro_batch is not None):
            other = f"g_batches={self.g_batches}" if self.g_batches > 1 else f"micro_batch={self.micro_batch}"
            raise ValueError(
                f"reuse_fakes=true and {other} do not go together: G would need more images than D was shown, "
                "or those of all its pieces at once. Use reuse_fakes=false, or g_batches=1 micro_batch=none."
            )
        replayed = isinstance(self.compile, str)
        if replayed and (self.reuse_fakes or self.micro_batch is not None):
            other = "reuse_fakes=true" if self.reuse_fakes else f"micro_batch={self.micro_batch}"
            raise ValueError(
                f"compile={self.compile} and {other} do not go together: a CUDA graph that is replayed overwrites what "
                "its last run left, and this is still needed. Use compile=true, or go without it."
            )
        decayed = next((o for o in (self.g_optim, self.d_optim) if isinstance(o, Adam) and o.weight_decay > 0), None)
        if decayed is not None and self.growth != NoGrowth():
            raise ValueError(
                f"{decayed!r} and growth={self.growth!r} do not go together: layers that wait to fade in have no "
                "gradient but the decay, and would be near 0 when their turn comes. Use weight_decay=0, or "
                "growth=NoGrowth."
            )
        if self.compile and self.joint_penalties:
            raise ValueError(
                f"compile=true and {self.joint_penalties[0]!r} do not go together: a joint penalty differentiates the "
                "losses twice, which compiled networks refuse. Use compile=false, or no joint penalty."
            )
        if self.compile and self.convolutions == "measured":
            raise ValueError(
                "compile=true and convolutions=measured do not go together: the compiler chooses how convolutions are "
                "computed. Use compile=false, or convolutions=torch."
            )
        of_g: tuple[Regularizer | JointPenalty, ...] = (*self.g_regularizers, *self.joint_penalties)
        lazy = next((term for term in of_g if term.every > 1), None)
        if lazy is not None and isinstance(self.d_steps, ToConvergence):
            raise ValueError(
                f"{lazy!r} and d_steps={self.d_steps!r} do not go together: `every` counts updates of G, whose number "
                "is a function of images seen only for a fixed number of D updates. Use every=1, or d_steps=5."
            )


def require_int64(config: TrainConfig) -> None:
    """Raises ValueError for a count in `config` of 2**63 or more: an integer, or thousands of images."""
    for path, value in leaves(config):
        counts = isinstance(value, int) or (isinstance(value, float) and path.endswith("kimg"))
        if counts and abs(value) >= 2**63:
            bits = int(value).bit_length()
            given = f"an integer of {bits} bits" if bits > 1024 else repr(value)  # Python prints no text that long
            raise ValueError(f"{path} takes numbers below 2**63 = 9.2e18, got {given}")


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


SCHEDULE_ONLY = ("total_kimg", "log_kimg", "snapshot_kimg", "evaluation")
"""Fields that decide how long a run goes on and what it reports, not what it computes."""


# ---- names in its text -----------------------------------------------------------------------------------


HOMES = ("core.latents", "core.schedules", "augment", "data", "weights", "losses", "models", "rules")
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
