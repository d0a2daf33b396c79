"""Conditioning: where the class of an image enters the game. The choices of `Head.conditioning`, with their heads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from equipoise.core.types import ImageSpec, component
from equipoise.nn import (
    AuxiliaryHead,
    Discriminator,
    HiddenConcat,
    HiddenHead,
    InputConcat,
    MappedVectors,
    Mapping,
    PerClassVectors,
    ProjectionVectors,
    SemiSupervisedHead,
    UnconditionalVector,
)
from equipoise.nn.conditioning import initialised

__all__ = [
    "Auxiliary",
    "Conditioning",
    "HeadSpec",
    "Hidden",
    "Input",
    "MappedProjection",
    "NoConditioning",
    "PerClass",
    "Projection",
    "SemiSupervised",
    "Vectors",
]

Vectors = UnconditionalVector | ProjectionVectors | PerClassVectors | MappedVectors
"""y -> w(y)."""


@dataclass(frozen=True)
class HeadSpec:
    """The facts that a head is built from.

    features: F.
    positions: of the map that the body flattened, C · positions = F; 1: the features are not a map.
    num_classes: of the data.
    init_std: standard deviation of the initial weights; None is 1/√F.
    scaled: the architecture's learning rates are equalised inside the layers, and so is the head's.
    bias: the logit has an offset, `AffineHead`.
    contraction: (vectors, features) -> the head that contracts the features with w(y), plain or SAN.
    """

    features: int
    positions: int
    num_classes: int
    init_std: float | None
    scaled: bool
    bias: bool
    contraction: Callable[[Vectors, int], nn.Module]

    def unconditional(self, features: int) -> nn.Module:
        """The head with one vector for all classes, on `features` features."""
        vector = UnconditionalVector(features, init_std=self.init_std, scaled=self.scaled, bias=self.bias)
        return self.contraction(vector, features)

    def classifier(self) -> nn.Linear:
        return initialised(nn.Linear(self.features, self.num_classes, bias=False), self.init_std)


class Conditioning(ABC):
    """How D uses the class of an image. Whether G reads the class follows.

    reads_labels: D(x, y) depends on y.
    classifies: the images whose class D learns to name: "all", or "labelled" (D may read their labels); None: none.
    linear: D's logit is linear in the features, as a SAN head needs.
    stored: w(y) is a weight, so a head can train its length separately.
    in_head: only the head reads the class, so a body built by hand fits.
    joins: the class may join a map in the middle of D instead (`MiddleConcat`).
    """

    reads_labels: ClassVar[bool] = False
    classifies: ClassVar[Literal["all", "labelled"] | None] = None
    linear: ClassVar[bool] = True
    stored: ClassVar[bool] = True
    in_head: ClassVar[bool] = True
    joins: ClassVar[bool] = False

    @property
    def conditional_generator(self) -> bool:
        """Whether G must read labels too: D reads them, or D's classifier must find them in G's images."""
        return self.reads_labels or self.classifies == "all"

    @abstractmethod
    def head(self, spec: HeadSpec) -> nn.Module:
        """The module h (N, F) or (N, F, H, W), y (N,) or None -> `Logits`."""

    def discriminator(self, build: Callable[[ImageSpec], nn.Module], spec: ImageSpec) -> nn.Module:
        """The whole discriminator, D(x, y) -> `Logits`, for the data of `spec`.

        build: data -> an architecture with this conditioning's head.

        Raises:
            ValueError: if the architecture does not fit the conditioning.
        """
        return build(spec)

    def labels_read(self, images: int, num_classes: int) -> int | None:
        """Number of images whose labels D may read, in data of `images` images and `num_classes` classes; None: all.

        Raises:
            ValueError: if the number does not fit the data.
        """
        return None

    def generator_spec(self, spec: ImageSpec) -> ImageSpec:
        """The data as G sees it: with classes only if `conditional_generator`.

        Raises:
            ValueError: if classes are needed and the data has none.
        """
        self.require_classes(spec.num_classes)
        return spec if self.conditional_generator else replace(spec, num_classes=0)

    def require_classes(self, num_classes: int) -> None:
        """Raises ValueError if classes are needed and the data has none."""
        if num_classes == 0 and (self.reads_labels or self.classifies is not None):
            raise ValueError(
                f"head.conditioning={self!r} needs labelled data and this data has no labels. "
                "Give labelled data, or go without (head.conditioning=NoConditioning)."
            )


@component
class NoConditioning(Conditioning):
    """D ignores classes: w(y) = w0 (`UnconditionalVector`)."""

    def head(self, spec: HeadSpec) -> nn.Module:
        return spec.unconditional(spec.features)


# ---- D reads the class -----------------------------------------------------------------------------------


@component
class Projection(Conditioning):
    """w(y) = w0 + V[y] (`ProjectionVectors`; Miyato & Koyama 2018)."""

    reads_labels: ClassVar[bool] = True

    def head(self, spec: HeadSpec) -> nn.Module:
        vectors = ProjectionVectors(
            spec.features, spec.num_classes, init_std=spec.init_std, scaled=spec.scaled, bias=spec.bias
        )
        return spec.contraction(vectors, spec.features)


@component
class PerClass(Conditioning):
    """w(y) = V[y], one last layer per class (`PerClassVectors`; Mescheder et al. 2018)."""

    reads_labels: ClassVar[bool] = True

    def head(self, spec: HeadSpec) -> nn.Module:
        vectors = PerClassVectors(spec.features, spec.num_classes, init_std=spec.init_std, scaled=spec.scaled)
        return spec.contraction(vectors, spec.features)


@component
class MappedProjection(Conditioning):
    """w(y) = Aᵀ m(y) / √M, m a mapping network of the class (`MappedVectors`; Karras et al. 2020b, in their code).

    The class head of StyleGAN2-ADA and StyleGAN3. Its layers are equalised in every architecture. Classes share all
    weights but an embedding, so it suits data with many classes.

    features: M; None: F.
    layers: of the mapping.
    embed_features: length of the embedding of the class; None: M.
    hidden: width of the mapping's hidden layers; None: M.
    mapping_lr: learning rate of the mapping, relative to all others.
    """

    features: int | None = Field(default=None, ge=1)
    layers: int = Field(default=8, ge=1)
    embed_features: int | None = Field(default=None, ge=1)
    hidden: int | None = Field(default=None, ge=1)
    mapping_lr: float = Field(default=0.01, gt=0)
    reads_labels: ClassVar[bool] = True
    stored: ClassVar[bool] = False

    def head(self, spec: HeadSpec) -> nn.Module:
        mapping = Mapping(
            0,
            spec.num_classes,
            spec.features if self.features is None else self.features,
            num_ws=None,
            num_layers=self.layers,
            embed_features=self.embed_features,
            layer_features=self.hidden,
            lr_multiplier=self.mapping_lr,
        )
        vectors = MappedVectors(spec.features, mapping, init_std=spec.init_std, bias=spec.bias)
        return spec.contraction(vectors, spec.features)


@component
class Input(Conditioning):
    """The class is appended to the image, one-hot (`InputConcat`; Mirza & Osindero 2014). The head does not read it."""

    reads_labels: ClassVar[bool] = True
    in_head: ClassVar[bool] = False

    def head(self, spec: HeadSpec) -> nn.Module:
        return spec.unconditional(spec.features)

    def discriminator(self, build: Callable[[ImageSpec], nn.Module], spec: ImageSpec) -> nn.Module:
        D = build(replace(spec, channels=spec.channels + spec.num_classes))
        if not isinstance(D, Discriminator):
            raise ValueError(
                f"head.conditioning={self!r} appends the class to the input of a discriminator's body, so the "
                f"architecture must return equipoise.Discriminator(body, head); this one returned {type(D).__name__}. "
                "Return that, or let the head read the class (head.conditioning=Projection)."
            )
        D.join = InputConcat(spec.num_classes)
        return D


@component
class Hidden(Conditioning):
    """The class joins the features in a hidden layer before the last (`HiddenConcat`; Reed et al. 2016).

    With `discriminator.join` it joins a map in the middle of D instead (`MiddleConcat`; Miyato & Koyama 2018, fig. 1b).
    """

    reads_labels: ClassVar[bool] = True
    joins: ClassVar[bool] = True

    def head(self, spec: HeadSpec) -> nn.Module:
        join = HiddenConcat(spec.features // spec.positions, spec.num_classes)
        last = spec.unconditional(join.width * spec.positions)
        return HiddenHead(join, last, positions=spec.positions)


# ---- D gives the class -----------------------------------------------------------------------------------


@component
class Auxiliary(Conditioning):
    """D also names the class of real and of generated images (`AuxiliaryHead`; Odena et al. 2017)."""

    classifies: ClassVar[Literal["all", "labelled"] | None] = "all"

    def head(self, spec: HeadSpec) -> nn.Module:
        return AuxiliaryHead(spec.unconditional(spec.features), spec.classifier())


@component
class SemiSupervised(Conditioning):
    """D tells K classes and generated images apart, from few labels (`SemiSupervisedHead`; Salimans et al. 2016).

    labelled: number of training images whose labels D may read.
    """

    labelled: int = Field(default=100, ge=1)
    classifies: ClassVar[Literal["all", "labelled"] | None] = "labelled"
    linear: ClassVar[bool] = False

    def head(self, spec: HeadSpec) -> nn.Module:
        return SemiSupervisedHead(spec.classifier())

    def check(self, cfg: Any) -> None:
        """Raises ValueError for a loss other than a cross-entropy: the logit of K + 1 classes is a log-odds. Take
        `NonSaturating` or `Saturating`.
        """
        if not cfg.loss.cross_entropy:
            raise ValueError(
                f"head.conditioning={self!r} and {cfg.loss!r} do not go together: D's logit is the log-odds "
                "that an image belongs to a real class, and the loss must be its cross-entropy. Use "
                "loss=NonSaturating or loss=Saturating, or another conditioning."
            )

    def labels_read(self, images: int, num_classes: int) -> int:
        if not num_classes <= self.labelled <= images:
            raise ValueError(
                f"head.conditioning.labelled={self.labelled} must be at least one image of each of the {num_classes} "
                f"classes, and there are {images} images to train on"
            )
        return self.labelled
