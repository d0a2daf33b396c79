"""Settings of the last layer of a discriminator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field
from torch import nn

from equipoise.core.types import NONE_IS_A_WORD, ImageSpec, component
from equipoise.losses import (
    ClassLoss,
    DiscriminatorLoss,
    GANLoss,
    GeneratorLoss,
    Term,
    monotone,
    require_whole_batches,
)
from equipoise.nn import (
    AuxiliaryHead,
    BiasedHead,
    Discriminator,
    HiddenConcat,
    HiddenHead,
    InputConcat,
    LearnedScale,
    LinearHead,
    PerClass,
    Projection,
    SANHead,
    SemiSupervisedHead,
    Unconditional,
    renormalize,
)
from equipoise.nn.conditioning import initialised

__all__ = ["Head", "HeadFactory"]


class HeadFactory(Protocol):
    """Number of features F -> head. An architecture calls it once per body it creates."""

    def __call__(self, features: int, positions: int = 1, *, joined: bool = False) -> nn.Module:
        """positions: how many positions of a map the features were flattened from, C · positions = F; 1 is no map.

        joined: the body is a `MiddleConcat`, so that the head need not read the class.

        Raises:
            ValueError: if it is, and that is not the conditioning.
        """


Conditioning = Annotated[
    Literal["none", "projection", "per_class", "input", "hidden", "auxiliary", "semi_supervised"],
    NONE_IS_A_WORD,
]


@component
class Head:
    """The last layer of D: how it is conditioned, and whether it is a SAN layer.

    conditioning: "none", or how D uses the class. It reads it: "projection" (`Projection`), "per_class" (`PerClass`),
        "input" (`InputConcat`), "hidden" (`HiddenConcat`, or `MiddleConcat` with discriminator.join). It gives it:
        "auxiliary" (`AuxiliaryHead`), "semi_supervised" (`SemiSupervisedHead`).
    san: a SAN head (`SANHead`), whose vector has a direction with a loss of its own, and a length.
    scale: that length. "norm": the vector's own. "learned": a parameter beside a unit vector (`LearnedScale`), which
        is renormalised after each update of D; the features have a bias then (`BiasedHead`).
    normalize_loss: divide the weights of the direction's loss by their mean, `discriminator_loss(normalize=True)`.
    init_std: standard deviation of the initial weights of the last layer and the classifier; None is 1/√F.
    labelled: how many images of the training data D may read the labels of. "semi_supervised" alone reads it.
    """

    conditioning: Conditioning = "none"
    san: bool = False
    scale: Literal["norm", "learned"] = "norm"
    normalize_loss: bool = False
    init_std: float | None = Field(default=None, gt=0)
    labelled: int = Field(default=100, ge=1)

    def __post_init__(self) -> None:
        if self.san and self.conditioning == "semi_supervised":
            raise ValueError(
                "head.san=true is not defined for head.conditioning=semi_supervised: its logit is the logsumexp of the "
                "classes, not linear in the features, so there is no one direction to train. Use a plain head "
                "(head.san=false), or a classifier beside a SAN head (head.conditioning=auxiliary)."
            )
        if self.scale == "learned" and not self.san:
            raise ValueError(
                "head.scale=learned is for SAN heads, which train the length of their vector apart from its direction; "
                "a plain head (head.san=false) trains the two as one. Set head.san=true, or head.scale=norm."
            )
        if self.normalize_loss and not self.san:
            raise ValueError(
                "head.normalize_loss=true is about the direction loss of SAN heads, and a plain head (head.san=false) "
                "has none. Set head.san=true, or head.normalize_loss=false."
            )

    def check(self, cfg: Any) -> None:
        """Raises ValueError for a loss that has no meaning for the head, and for a G that is told what D ignores."""
        if self.san and cfg.loss.paired:
            raise ValueError(
                f"head.san=true has no direction loss for the paired loss {cfg.loss!r}: SAN is defined for losses "
                "on single logits. Use an unpaired loss (loss=Hinge), or a plain head (head.san=false)."
            )
        if self.normalize_loss and not monotone(cfg.loss):
            raise ValueError(
                f"head.normalize_loss=true and {cfg.loss!r} do not go together: the g that its G minimises rises "
                "somewhere, so the weights -g' of the direction loss may be negative, and their mean 0. Use a loss "
                "that falls everywhere (loss=SoftLeastSquares, loss=NonSaturating), or head.normalize_loss=false."
            )
        if self.normalize_loss:
            require_whole_batches(cfg, "head.normalize_loss=true")
        if self.conditional_generator != cfg.generator.conditional:
            raise ValueError(
                f"head.conditioning={self.conditioning} and generator.conditional={cfg.generator.conditional} "
                "do not go together: one network would read labels that the other ignores. Set both "
                "(head.conditioning=projection generator.conditional=true) or neither."
            )
        if self.classifies == "labelled" and not cfg.loss.cross_entropy:
            raise ValueError(
                f"head.conditioning=semi_supervised and {cfg.loss!r} do not go together: the head's logit is that of "
                "the probability that an image is of some real class, and the loss must be its cross-entropy. Use "
                "loss=NonSaturating or loss=Saturating, or another conditioning."
            )

    def losses(self, loss: GANLoss) -> tuple[Term, ...]:
        """What the players minimise with this head: the loss of each, and those of the classes that D names."""
        terms: tuple[Term, ...] = (DiscriminatorLoss(loss, self.normalize_loss), GeneratorLoss(loss))
        match self.classifies:
            case "all":
                return (*terms, ClassLoss("real", "D"), ClassLoss("fake", "both"))
            case "labelled":
                return (*terms, ClassLoss("labelled", "D"))
        return terms

    @property
    def after(self) -> tuple[Callable[[nn.Module], None], ...]:
        """What is done to D after each of its updates."""
        return (renormalize,) if self.scale == "learned" else ()

    @property
    def reads_labels(self) -> bool:
        """Whether D(x, y) depends on y."""
        return self.conditioning in ("projection", "per_class", "input", "hidden")

    @property
    def conditional_generator(self) -> bool:
        """Whether G must read labels too: the classes that D reads, or that its classifier is to find in G's images."""
        return self.reads_labels or self.classifies == "all"

    @property
    def classifies(self) -> Literal["all", "labelled"] | None:
        """Whether D names the class too, and which images teach it that: all, or those whose labels it may read."""
        match self.conditioning:
            case "auxiliary":
                return "all"
            case "semi_supervised":
                return "labelled"
        return None

    def labels_read(self, images: int, num_classes: int) -> int:
        """`labelled`, for a data set of so many images and classes. Raises ValueError if it does not fit them."""
        if not num_classes <= self.labelled <= images:
            raise ValueError(
                f"head.labelled={self.labelled} must be at least one image of each of the {num_classes} classes, and "
                f"there are {images} images to train on"
            )
        return self.labelled

    def build(self, build: Callable[[ImageSpec, HeadFactory], nn.Module], spec: ImageSpec) -> nn.Module:
        """The whole discriminator with this head, D(x, y) -> Logits, for the data of `spec`.

        build: an architecture's, `DiscriminatorConfig.build`.

        Raises:
            ValueError: if the conditioning needs classes and the data has none, or the architecture does not fit the
                data or the conditioning.
        """
        self.require_classes(spec.num_classes)
        if self.conditioning != "input":
            return build(spec, self.factory(spec.num_classes))
        D = build(replace(spec, channels=spec.channels + spec.num_classes), self.heads(0))
        if not isinstance(D, Discriminator):
            raise ValueError(
                "head.conditioning='input' appends the class to what a discriminator's body reads, so the architecture "
                f"must return equipoise.Discriminator(body, head); this one returned {type(D).__name__}. Return that, "
                "or let the head read the class (head.conditioning=projection)."
            )
        D.join = InputConcat(spec.num_classes)
        return D

    def factory(self, num_classes: int) -> HeadFactory:
        """The head alone, for an architecture that is built by hand; `build` makes the whole discriminator.

        Raises:
            ValueError: if the conditioning needs classes and the data has none, or is not a matter of the head alone.
        """
        self.require_classes(num_classes)
        if self.conditioning == "input":
            raise ValueError(
                "head.conditioning='input' changes what the body reads, not the head: make the whole discriminator, "
                "Head.build(architecture.build, spec), or write Discriminator(body, head, join=InputConcat(classes))"
            )
        return self.heads(num_classes)

    def heads(self, num_classes: int) -> HeadFactory:
        """`factory`, whose head reads no class where the whole discriminator does."""

        def head(features: int, positions: int = 1, *, joined: bool = False) -> nn.Module:
            std = self.init_std
            if joined and self.conditioning != "hidden":
                raise ValueError(
                    "a class that joins the map in the middle of D (discriminator.join) is head.conditioning=hidden, "
                    f"and this is head.conditioning={self.conditioning}: set it, or discriminator.join=0"
                )
            match self.conditioning:
                case "projection":
                    return self.contraction(Projection(features, num_classes, init_std=std), features)
                case "per_class":
                    return self.contraction(PerClass(features, num_classes, init_std=std), features)
                case "hidden" if not joined:
                    join = HiddenConcat(features // positions, num_classes)
                    width = join.width * positions
                    last = self.contraction(Unconditional(width, init_std=std), width)
                    return HiddenHead(join, last, positions=positions)
                case "auxiliary":
                    unconditional = self.contraction(Unconditional(features, init_std=std), features)
                    return AuxiliaryHead(unconditional, linear_classifier(features, num_classes, std))
                case "semi_supervised":
                    return SemiSupervisedHead(linear_classifier(features, num_classes, std))
            return self.contraction(Unconditional(features, init_std=std), features)

        return head

    def contraction(self, vectors: Unconditional | Projection | PerClass, features: int) -> nn.Module:
        """The head that contracts so many features with `vectors`: plain, SAN, or SAN with a learned scale."""
        if not self.san:
            return LinearHead(vectors)
        if self.scale == "norm":
            return SANHead(vectors)
        return BiasedHead(SANHead(LearnedScale(vectors)), features)

    def require_classes(self, num_classes: int) -> None:
        if self.conditioning != "none" and num_classes == 0:
            raise ValueError(
                f"head.conditioning={self.conditioning!r} needs labelled data and this data has no labels. "
                "Give labelled data, or go without (head.conditioning=none generator.conditional=false)."
            )


def linear_classifier(features: int, num_classes: int, init_std: float | None) -> nn.Linear:
    return initialised(nn.Linear(features, num_classes, bias=False), init_std)
