"""Settings of the last layer of a discriminator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, Protocol

from pydantic import Field
from torch import nn

from equipoise.core.types import ImageSpec, component
from equipoise.losses import (
    ClassLoss,
    DiscriminatorLoss,
    GANLoss,
    GeneratorLoss,
    Term,
    monotone,
    require_whole_batches,
)
from equipoise.nn import AffineHead, BiasedHead, LearnedScale, LinearHead, MappedVectors, SANHead, renormalize

from .conditioning import Conditioning, HeadSpec, NoConditioning, Vectors

__all__ = ["Head", "HeadFactory"]


class HeadFactory(Protocol):
    """Number of features F -> head. An architecture calls it once per body it creates."""

    def __call__(self, features: int, positions: int = 1, *, joined: bool = False, scaled: bool = False) -> nn.Module:
        """The head for `features` features.

        positions: of the map that the features were flattened from, C · positions = F; 1: they are not a map.
        joined: the body is a `MiddleConcat`, so the head need not read the class.
        scaled: the body's learning rates are equalised inside its layers (`ScaledLinear`): so are the head's, and a
            plain head has a bias, as in StyleGAN2.

        Raises:
            ValueError: if `joined`, and the conditioning is not one that joins the body.
        """


@component
class Head:
    """The last layer of D: how it is conditioned, and whether it is a SAN layer.

    conditioning: how D uses the class. D reads it: `Projection`, `PerClass`, `Input`, `Hidden`. D predicts it:
        `Auxiliary`, `SemiSupervised`.
    san: a SAN head (`SANHead`): the direction of its vector has a separate loss.
    scale: the length of a SAN head's vector. "norm": the vector's norm. "learned": a parameter beside a unit vector
        (`LearnedScale`), which is renormalised after each update of D; the features then have a bias (`BiasedHead`).
    normalize_loss: divide the weights of the direction loss by their mean, `discriminator_loss(normalize=True)`.
    init_std: standard deviation of the initial weights of the last layer and the classifier; None is 1/√F.
    """

    gone: ClassVar[dict[str, str]] = {"labelled": "set head.conditioning='SemiSupervised(labelled=100)'"}

    conditioning: Conditioning = NoConditioning()
    san: bool = False
    scale: Literal["norm", "learned"] = "norm"
    normalize_loss: bool = False
    init_std: float | None = Field(default=None, gt=0)

    def __post_init__(self) -> None:
        """Raises ValueError for `san=true` with `SemiSupervised`: its logit is not linear in the features, so there is
        no direction to train. Set `san=false`, or take `Auxiliary`.

        Raises ValueError for `scale=learned` with `MappedProjection`: its vectors are computed, so their lengths are
        not parameters. Set `scale=norm`.

        Raises ValueError for `scale=learned` or `normalize_loss=true` with `san=false`: both are about SAN's direction.
        Set `san=true`.
        """
        if self.san and not self.conditioning.linear:
            raise ValueError(
                f"head.san=true is not defined for head.conditioning={self.conditioning!r}: its logit is not linear in "
                "the features, so a single direction to train does not exist. Use a plain head (head.san=false), or a "
                "classifier beside a SAN head (head.conditioning=Auxiliary)."
            )
        if self.scale == "learned" and not self.san:
            raise ValueError(
                "head.scale=learned is for SAN heads, which train the length and the direction of their vector "
                "separately; a plain head (head.san=false) does not. Set head.san=true, or head.scale=norm."
            )
        if self.scale == "learned" and not self.conditioning.stored:
            raise ValueError(
                f"head.scale=learned trains the lengths of the vectors w(y) as parameters, and with "
                f"head.conditioning={self.conditioning!r} a network computes these vectors. Set head.scale=norm, or "
                "take another conditioning (head.conditioning=Projection)."
            )
        if self.normalize_loss and not self.san:
            raise ValueError(
                "head.normalize_loss=true is about the direction loss of SAN heads, and a plain head (head.san=false) "
                "has none. Set head.san=true, or head.normalize_loss=false."
            )

    def check(self, cfg: Any) -> None:
        """Raises ValueError for `san=true` with a paired loss: SAN is defined for losses on single logits. Take an
        unpaired loss, or set `san=false`.

        Raises ValueError for `normalize_loss=true` with a loss whose g rises somewhere: the weights -g' may be
        negative. Take a loss that falls everywhere, such as `SoftLeastSquares`.

        Raises ValueError for `normalize_loss=true` with `compute.micro_batch`: it divides by a mean over the batch. Use
        more processes, or a smaller `batch_size`.
        """
        if self.san and cfg.loss.paired:
            raise ValueError(
                f"head.san=true has no direction loss for the paired loss {cfg.loss!r}: SAN is defined for losses "
                "on single logits. Use an unpaired loss (loss=Hinge), or a plain head (head.san=false)."
            )
        if self.normalize_loss and not monotone(cfg.loss):
            raise ValueError(
                f"head.normalize_loss=true and {cfg.loss!r} do not go together: its generator loss g increases "
                "somewhere, so SAN's weights -g' can be negative and average to 0. Use a loss that falls everywhere "
                "(loss=SoftLeastSquares, loss=NonSaturating), or head.normalize_loss=false."
            )
        if self.normalize_loss:
            require_whole_batches(cfg, "head.normalize_loss=true")

    def losses(self, loss: GANLoss) -> tuple[Term, ...]:
        """The loss terms of both players with this head: adversarial losses, and class losses if D classifies."""
        terms: tuple[Term, ...] = (DiscriminatorLoss(loss, self.normalize_loss), GeneratorLoss(loss))
        match self.conditioning.classifies:
            case "all":
                return (*terms, ClassLoss("real", "D"), ClassLoss("fake", "both"))
            case "labelled":
                return (*terms, ClassLoss("labelled", "D"))
        return terms

    @property
    def after(self) -> tuple[Callable[[nn.Module], None], ...]:
        """Functions applied to D after each of its updates."""
        return (renormalize,) if self.scale == "learned" else ()

    def build(self, build: Callable[[ImageSpec, HeadFactory], nn.Module], spec: ImageSpec) -> nn.Module:
        """The whole discriminator with this head, D(x, y) -> Logits, for the data of `spec`.

        build: `DiscriminatorConfig.build` of an architecture.

        Raises:
            ValueError: if the conditioning needs classes and the data has none, or the architecture does not fit the
                data or the conditioning.
        """
        self.conditioning.require_classes(spec.num_classes)
        heads = self.heads(spec.num_classes)
        return self.conditioning.discriminator(lambda data: build(data, heads), spec)

    def factory(self, num_classes: int) -> HeadFactory:
        """The head alone, for an architecture that is built by hand; `build` makes the whole discriminator.

        Raises:
            ValueError: if the conditioning needs classes and the data has none, or it changes more than the head.
        """
        self.conditioning.require_classes(num_classes)
        if not self.conditioning.in_head:
            raise ValueError(
                f"head.conditioning={self.conditioning!r} changes the body's input, not the head: build the whole "
                "discriminator, Head.build(architecture.build, spec), or write "
                "Discriminator(body, head, join=InputConcat(classes))"
            )
        return self.heads(num_classes)

    def heads(self, num_classes: int) -> HeadFactory:
        """`factory` without its checks, which `build` does not need."""

        def head(features: int, positions: int = 1, *, joined: bool = False, scaled: bool = False) -> nn.Module:
            if joined and not self.conditioning.joins:
                raise ValueError(
                    "a class that joins a map in the middle of D (discriminator.join) needs head.conditioning=Hidden, "
                    f"got head.conditioning={self.conditioning!r}: set Hidden, or discriminator.join=0"
                )
            conditioning = NoConditioning() if joined else self.conditioning  # the body reads the class already
            bias = scaled and not self.san
            contraction = affine if bias else self.contraction
            facts = HeadSpec(features, positions, num_classes, self.init_std, scaled, bias, contraction)
            return conditioning.head(facts)

        return head

    def contraction(self, vectors: Vectors, features: int) -> nn.Module:
        """The head that contracts `features` features with `vectors`: plain, SAN, or SAN with a learned scale."""
        if not self.san:
            return LinearHead(vectors)
        if self.scale == "norm":
            return SANHead(vectors)
        assert not isinstance(vectors, MappedVectors)  # `__post_init__`
        return BiasedHead(SANHead(LearnedScale(vectors)), features)


def affine(vectors: Vectors, features: int) -> nn.Module:  # noqa: ARG001
    """A plain head with an offset."""
    return AffineHead(vectors)
