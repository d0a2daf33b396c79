"""Where the class enters a discriminator D(x, y): its input, a hidden layer, or the last vector w(y).

All of these work with any head, plain or SAN. A D that outputs the class instead of reading it does so in its head:
`heads.AuxiliaryHead`, `heads.SemiSupervisedHead`.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.core.types import Told, label_of

from .initial import normal_
from .scaled import ScaledEmbedding, ScaledLinear

__all__ = [
    "HiddenConcat",
    "InputConcat",
    "LearnedScale",
    "MiddleConcat",
    "PerClassVectors",
    "ProjectionVectors",
    "UnconditionalVector",
]

EMBED = 128
"""Length of the class embedding joined to a hidden map (code of Miyato & Koyama 2018)."""

# ---- at the last vector: y -> w(y), (1, F) or (N, F) -----------------------------------------------------


class UnconditionalVector(nn.Module):
    """w(y) = w0. Kept in an `nn.Linear` so that normalisers find it.

    scaled: the learning rate is equalised, `ScaledLinear`; and with `bias`, `AffineHead` has an offset b to add.
    """

    def __init__(self, features: int, *, init_std: float | None = None, scaled: bool = False, bias: bool = False):
        super().__init__()
        self.linear = vector_layer(features, init_std, scaled, bias)

    def forward(self, y: Tensor | None) -> Tensor:
        return scaled_weight(self.linear)  # (1, F)

    def affine(self, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """w(y), and the offset, (1,), or None."""
        return self(y), self.linear.bias

    @torch.no_grad()
    def normalize_(self) -> Tensor:
        """Divide w0 by its length, in place -> the length, (1, 1)."""
        return unit_rows_(self.linear.weight) * gain_of(self.linear)


class ProjectionVectors(nn.Module):
    """w(y) = w0 + V[y], so that <w(y), h> = <w0, h> + <V[y], h> (Miyato & Koyama 2018, eq. 3).

    scaled, bias: as in `UnconditionalVector`.
    """

    def __init__(
        self,
        features: int,
        num_classes: int,
        *,
        init_std: float | None = None,
        scaled: bool = False,
        bias: bool = False,
    ):
        super().__init__()
        self.linear = vector_layer(features, init_std, scaled, bias)
        self.embed = table(num_classes, features, init_std, scaled)

    def forward(self, y: Tensor | None) -> Tensor:
        w: Tensor = scaled_weight(self.linear) + self.embed(labels(y))  # (N, F)
        return w

    def affine(self, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """w(y), and the offset, (1,), or None."""
        return self(y), self.linear.bias

    @torch.no_grad()
    def normalize_(self) -> Tensor:
        """Divide w(y) of each class by its length, in place, changing V only -> the lengths, (classes, 1)."""
        w = self.linear.weight + self.embed.weight
        lengths = unit_rows_(w)
        self.embed.weight.copy_(w - self.linear.weight)
        return lengths * gain_of(self.linear)


class PerClassVectors(nn.Module):
    """w(y) = V[y]: one last layer per class (Mescheder et al. 2018; Takida et al. 2024).

    scaled: as in `UnconditionalVector`.
    """

    def __init__(self, features: int, num_classes: int, *, init_std: float | None = None, scaled: bool = False):
        super().__init__()
        self.embed = table(num_classes, features, init_std, scaled)

    def forward(self, y: Tensor | None) -> Tensor:
        w: Tensor = self.embed(labels(y))  # (N, F)
        return w

    def affine(self, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """w(y), and no offset."""
        return self(y), None

    @torch.no_grad()
    def normalize_(self) -> Tensor:
        """Divide w(y) of each class by its length, in place -> the lengths, (classes, 1)."""
        return unit_rows_(self.embed.weight) * gain_of(self.embed)


class LearnedScale(nn.Module):
    """w(y) = s(y) ω(y) with ω = v/‖v‖: the length is a parameter s, and v(y) gives the direction only.

    s (1, 1), or (classes, 1) if v depends on the class. s starts as ‖v‖, so w(y) starts as v(y). v is made a unit
    vector here; `heads.renormalize` makes it one again after each step. (sony/san, `SANLinear`, `SANEmbedding`)

    vectors: v. Its weights are changed in place.
    """

    def __init__(self, vectors: UnconditionalVector | ProjectionVectors | PerClassVectors):
        super().__init__()
        self.vectors = vectors
        self.scale = nn.Parameter(vectors.normalize_())

    def polar(self, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Length s, (1, 1) or (N, 1), and direction ω, (1, F) or (N, F), for v of any length."""
        v: Tensor = self.vectors(y)
        scale = self.scale if len(self.scale) == 1 else F.embedding(labels(y), self.scale)
        return scale, v / v.norm(dim=1, keepdim=True).clamp_min(1e-12)

    def forward(self, y: Tensor | None) -> Tensor:
        scale, omega = self.polar(y)
        return scale * omega


# ---- before the last vector: concatenation ---------------------------------------------------------------


class InputConcat(nn.Module):
    """Append the class to an image, one-hot: a map of ones for class y, maps of zeros for the others.

    x (N, C, H, W), y (N,) -> (N, C + num_classes, H, W); points (N, 2) -> (N, 2 + num_classes). (Mirza & Osindero 2014,
    sec. 3.2; as maps, Miyato & Koyama 2018, fig. 1a)
    """

    def __init__(self, num_classes: int):
        super().__init__()
        self.num_classes = num_classes

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        return with_vector(x, F.one_hot(labels(y), self.num_classes))


class HiddenConcat(nn.Module):
    """LeakyReLU(W [h, e(y)] + b), slope 0.2: features joined with a class embedding e(y) at each position.

    h (N, F), (N, F, positions) or (N, F, H, W), y (N,) -> the same with `width` features. On a map W is a 1x1
    convolution. (Reed et al. 2016, sec. 4.2; Miyato & Koyama 2018, fig. 1b)

    embed: length of e(y).
    """

    def __init__(self, features: int, num_classes: int, *, embed: int = EMBED, width: int = 512):
        super().__init__()
        self.width = width
        self.embed = nn.Embedding(num_classes, embed)
        self.layer = nn.Linear(features + embed, width)

    def forward(self, h: Tensor, y: Tensor | None) -> Tensor:
        joined = with_vector(h, self.embed(labels(y)))  # (N, F + embed, ...)
        return F.leaky_relu(self.layer(joined.movedim(1, -1)), 0.2).movedim(-1, 1)


class MiddleConcat(nn.Module):
    """rest([front(x), e(y)]): a body of D that joins a class embedding e(y) to a hidden map, at each position.

    x (N, C, H, W), y (N,) -> features. front: x -> (N, F, H', W').  rest: (N, F + EMBED, H', W') -> features. e is
    initialised after Glorot & Bengio 2010, and orthogonally in `BigGANDiscriminator`. (Miyato & Koyama 2018, fig. 1b;
    `SNResNetConcatDiscriminator` of the authors' code)
    """

    def __init__(self, front: nn.Module, rest: nn.Module, num_classes: int):
        super().__init__()
        self.front, self.embed, self.rest = front, nn.Embedding(num_classes, EMBED), rest
        nn.init.xavier_uniform_(self.embed.weight)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        features: Tensor = self.rest(with_vector(self.front(x), self.embed(labels(y))))
        return features


def with_vector(h: Tensor, v: Tensor) -> Tensor:
    """Append v (N, V) to h (N, F, ...) at each position -> (N, F + V, ...)."""
    v = v.to(h.dtype).reshape(*v.shape, *[1] * (h.ndim - 2))
    return torch.cat([h, v.expand(-1, -1, *h.shape[2:])], dim=1)


# ---- shared ----------------------------------------------------------------------------------------------


Layer = TypeVar("Layer", nn.Linear, nn.Embedding)


def initialised(layer: Layer, std: float | None) -> Layer:
    """`layer` with weights from N(0, std²). None: std = 1/√F, so logits start at the scale of the features."""
    normal_(layer, 1 / math.sqrt(layer.weight.shape[1]) if std is None else std)
    return layer


def vector_layer(features: int, std: float | None, scaled: bool, bias: bool) -> nn.Linear:
    """F -> 1 as a layer with the weights of `initialised`, or equalised, drawn with the same standard deviation."""
    if not scaled:
        return initialised(nn.Linear(features, 1, bias=bias), std)
    return rescaled(ScaledLinear(features, 1, bias=bias), std)


def table(num: int, features: int, std: float | None, scaled: bool) -> nn.Embedding:
    """(num, F), as `vector_layer`."""
    if not scaled:
        return initialised(nn.Embedding(num, features), std)
    return rescaled(ScaledEmbedding(num, features), std)


Scaled = TypeVar("Scaled", ScaledLinear, ScaledEmbedding)


def rescaled(layer: Scaled, std: float | None) -> Scaled:
    """`layer`, with gain · weight from N(0, std²); None: std = 1/√F, as it is drawn."""
    if std is not None:
        nn.init.normal_(layer.weight, 0.0, std / layer.gain)
    return layer


def gain_of(layer: nn.Module) -> float:
    """The constant with which `layer` multiplies its weight."""
    return layer.gain if isinstance(layer, (ScaledLinear, ScaledEmbedding)) else 1.0


def scaled_weight(layer: nn.Linear) -> Tensor:
    """The weight that `layer` computes with."""
    return layer.weight * layer.gain if isinstance(layer, ScaledLinear) else layer.weight


def unit_rows_(w: Tensor) -> Tensor:
    """Divide each row of w (K, F) by its length, in place -> the lengths, (K, 1). A row of zeros stays zero."""
    lengths: Tensor = w.norm(dim=1, keepdim=True)
    w.div_(lengths.clamp_min(1e-12))
    return lengths


def labels(y: Told) -> Tensor:
    label = label_of(y)
    if label is None:
        raise ValueError("this discriminator is conditioned on the class: call it with labels, D(x, y)")
    return label
