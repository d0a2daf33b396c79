"""The last layer of a discriminator: a class-dependent vector w(y) contracted with features h.

Conditioning decides where the class enters, the head decides how w(y) meets h. The two never meet elsewhere, so every
conditioning works with a plain head and with a SAN head; the one that does not, K + 1 classes, has no such contraction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Literal, Protocol

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from .conditioning import (
    HiddenConcat,
    InputConcat,
    LearnedScale,
    MiddleConcat,
    PerClass,
    Projection,
    Unconditional,
    initialised,
)
from .precision import without_autocast
from .types import NONE_IS_A_WORD, ImageSpec, Logits, component

__all__ = [
    "AuxiliaryHead",
    "BiasedHead",
    "Discriminator",
    "Head",
    "HeadFactory",
    "HiddenHead",
    "LinearHead",
    "SANHead",
    "SemiSupervisedHead",
    "renormalize",
    "split",
]

# ---- contraction: (h, w) -> Logits -----------------------------------------------------------------------


def split(w: Tensor) -> tuple[Tensor, Tensor]:
    """Two copies of w (..., F), ‖w‖ sg(ω) and sg(‖w‖) ω with ω = w/‖w‖: equal values, two halves of the gradient.

    A loss on <first, h> moves w along ω only (its length); a loss on <second, h> moves it orthogonally to ω
    only (its direction). Nothing needs renormalising after a step. (Takida et al. 2024, sec. 4.2)
    """
    norm = w.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return halves(norm, w / norm)


def halves(length: Tensor, omega: Tensor) -> tuple[Tensor, Tensor]:
    """Both are length · ω: the first trains the length, with ω held fixed, the second ω, with the length held fixed."""
    return length * omega.detach(), length.detach() * omega


def contract(w: Tensor, h: Tensor) -> Tensor:
    """<w, h>, w (1, F) or (N, F), h (N, F) or (N, F, H, W) -> (N, K), one logit per position.

    In float32 even under autocast, where bfloat16 would round logits to 3 digits; in float64 if h is.
    """
    columns = h.flatten(2) if h.ndim > 2 else h.unsqueeze(2)  # (N, F, K)
    dtype = torch.promote_types(h.dtype, torch.float32)
    with without_autocast(h):
        return torch.matmul(w.to(dtype).unsqueeze(1), columns.to(dtype)).squeeze(1)  # (N, 1, F) @ (N, F, K)


class LinearHead(nn.Module):
    """logit = <w(y), h>.  h (N, F) or (N, F, H, W), y (N,) or None -> Logits(fun (N, K))."""

    def __init__(self, conditioning: nn.Module):
        super().__init__()
        self.conditioning = conditioning

    def forward(self, h: Tensor, y: Tensor | None = None) -> Logits:
        return Logits(contract(self.conditioning(y), h))


class SANHead(nn.Module):
    """logit = <ω, ‖w‖ h> with ω = w(y)/‖w(y)‖, as a pair with split gradients (Takida et al. 2024, eq. 14).

    h (N, F) or (N, F, H, W), y (N,) or None -> Logits(fun (N, K), dir (N, K)). fun trains h and ‖w‖ with ω
    frozen; dir trains ω with h and ‖w‖ frozen. Both equal <w, h> in value and, for the input, fun has a plain
    head's gradient, so G, penalties and inference read `fun` and no train/eval flag exists.

    conditioning: y -> w(y). The length of a `LearnedScale` is s(y): fun has no gradient on v at all, and dir none on s.
    """

    def __init__(self, conditioning: nn.Module):
        super().__init__()
        self.conditioning = conditioning

    def forward(self, h: Tensor, y: Tensor | None = None) -> Logits:
        if isinstance(self.conditioning, LearnedScale):
            length, direction = halves(*self.conditioning.polar(y))
        else:
            length, direction = split(self.conditioning(y))
        return Logits(contract(length, h), contract(direction, h.detach()))


@torch.no_grad()
def renormalize(net: nn.Module) -> None:
    """Make unit vectors of all v of each `LearnedScale` in `net`, in place. To be called after each step of D.

    No logit changes, beyond rounding. The gradient on v is orthogonal to v and shrinks with 1/‖v‖, so every step makes
    v longer, and a longer v turns less; on a unit vector the learning rate alone decides how far a step turns it.
    """
    for module in net.modules():
        if isinstance(module, LearnedScale):
            module.vectors.normalize_()


class BiasedHead(nn.Module):
    """A head on features with a bias, last(h + b): b (F,), 0 at first, the same at every position.

    With a SAN head, logit = <w(y), h + b>, whose bias fun trains and dir does not. (sony/san, `SANLinear`)

    last: `LinearHead` or `SANHead`, on `features` features.
    """

    def __init__(self, last: nn.Module, features: int):
        super().__init__()
        self.last, self.bias = last, nn.Parameter(torch.zeros(features))

    def forward(self, h: Tensor, y: Tensor | None = None) -> Logits:
        logits: Logits = self.last(h + self.bias.view(-1, *[1] * (h.ndim - 2)), y)
        return logits


class HiddenHead(nn.Module):
    """A layer that reads the class, then a head.  last(join(h, y)), where `join` is a `HiddenConcat`.

    last: `LinearHead` or `SANHead`, on the features that `join` makes. Normalisers reach `join`, which is hidden.
    positions: h (N, F, ...) with F = C · positions holds a map of so many positions, which its body flattened. The
        class joins each of them, (N, C, positions, ...) -> (N, width, positions, ...), and `last` reads them all.
    """

    def __init__(self, join: nn.Module, last: nn.Module, *, positions: int = 1):
        super().__init__()
        self.join, self.last, self.positions = join, last, positions

    def forward(self, h: Tensor, y: Tensor | None = None) -> Logits:
        joined = self.join(h.unflatten(1, (-1, self.positions)), y)
        logits: Logits = self.last(joined.flatten(1, 2))
        return logits


# ---- heads that give the class ---------------------------------------------------------------------------


def classify(classifier: nn.Linear, h: Tensor) -> Tensor:
    """V h + b of the mean h over positions, (N, F) or (N, F, H, W) -> (N, classes). Precision as in `contract`."""
    dtype = torch.promote_types(h.dtype, torch.float32)
    mean = h.to(dtype) if h.ndim == 2 else h.to(dtype).flatten(2).mean(2)
    bias = None if classifier.bias is None else classifier.bias.to(dtype)
    with without_autocast(h):
        return F.linear(mean, classifier.weight.to(dtype), bias)


class AuxiliaryHead(nn.Module):
    """Real or generated, and beside it which class: the discriminator of AC-GAN (Odena et al. 2017, sec. 3).

    h (N, F) or (N, F, H, W) -> Logits(fun, dir, classes (N, classes)). It does not read y. `objective.class_loss` is
    the loss of `classes`, which D and G both minimise, on real and on generated images.

    last: the head of `fun` and `dir`, `LinearHead` or `SANHead`.  classifier: F -> classes.
    """

    def __init__(self, last: nn.Module, classifier: nn.Linear):
        super().__init__()
        self.last, self.classifier = last, classifier

    def forward(self, h: Tensor, y: Tensor | None = None) -> Logits:
        logits: Logits = self.last(h)
        return logits._replace(classes=classify(self.classifier, h))


class SemiSupervisedHead(nn.Module):
    """K classes of real images and one of generated ones, whose logit is 0 (Salimans et al. 2016, sec. 5).

    h (N, F) or (N, F, H, W) -> Logits(fun (N, 1), classes l (N, K)) with l = V h and fun = log Σ_k exp(l_k). It does
    not read y. With p the softmax of (l_1, ..., l_K, 0), fun is the logit of "real": s(fun) = 1 - p(K+1 | x). So

        class_loss(real, y)  =  -log p(y | x, y < K+1)
        NonSaturating().d    =  -log(1 - p(K+1 | x)) - log p(K+1 | G(z))

    are the supervised and the unsupervised part of the paper's loss. There is no SAN of it: `fun` is not linear in h.

    classifier: F -> K.
    """

    def __init__(self, classifier: nn.Linear):
        super().__init__()
        self.classifier = classifier

    def forward(self, h: Tensor, y: Tensor | None = None) -> Logits:
        classes = classify(self.classifier, h)
        return Logits(classes.logsumexp(1, keepdim=True), classes=classes)


# ---- the whole discriminator -----------------------------------------------------------------------------


class Discriminator(nn.Module):
    """Features, then a head. `body`: x (N, C, H, W) -> h (N, F) or (N, F, H', W'); a `MiddleConcat` reads y beside x.

    join: reads the class before the body, join(x, y), such as `InputConcat`; None leaves x as it is.

    The `Logits` it returns hold h as `features`.
    """

    def __init__(self, body: nn.Module, head: nn.Module, *, join: nn.Module | None = None):
        super().__init__()
        self.body, self.head, self.join = body, head, join

    def forward(self, x: Tensor, y: Tensor | None = None) -> Logits:
        """Raises ValueError unless there are as many labels as images: one label would be taken for all."""
        if y is not None and len(y) != len(x):
            raise ValueError(f"expected a label per image, got {len(y)} for {len(x)} images")
        x = x if self.join is None else self.join(x, y)
        h = self.body(x, y) if isinstance(self.body, MiddleConcat) else self.body(x)
        logits: Logits = self.head(h, y)
        return logits._replace(features=h)


# ---- settings --------------------------------------------------------------------------------------------


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
