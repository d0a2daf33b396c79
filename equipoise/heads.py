"""The last layer of a discriminator: a class-dependent vector w(y) contracted with features h.

Conditioning decides what w(y) is, the head decides how w(y) meets h. The two never meet elsewhere, so every
conditioning works with a plain head and with a SAN head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from .types import Logits, component

__all__ = [
    "Discriminator",
    "Head",
    "HeadFactory",
    "LinearHead",
    "PerClass",
    "Projection",
    "SANHead",
    "Unconditional",
    "split",
]

# ---- conditioning: y -> w(y), (1, F) or (N, F) -----------------------------------------------------------


class Unconditional(nn.Module):
    """w(y) = w0. Kept in an `nn.Linear` so that normalisers find it."""

    def __init__(self, features: int, num_classes: int = 0, *, init_std: float | None = None):
        super().__init__()
        self.linear = initialised(nn.Linear(features, 1, bias=False), init_std)

    def forward(self, y: Tensor | None) -> Tensor:
        return self.linear.weight  # (1, F)


class Projection(nn.Module):
    """w(y) = w0 + V[y], so that <w(y), h> = <w0, h> + <V[y], h> (Miyato & Koyama 2018, eq. 3)."""

    def __init__(self, features: int, num_classes: int, *, init_std: float | None = None):
        super().__init__()
        self.linear = initialised(nn.Linear(features, 1, bias=False), init_std)
        self.embed = initialised(nn.Embedding(num_classes, features), init_std)

    def forward(self, y: Tensor | None) -> Tensor:
        w: Tensor = self.linear.weight + self.embed(labels(y))  # (N, F)
        return w


class PerClass(nn.Module):
    """w(y) = V[y]: one last layer per class (Mescheder et al. 2018; Takida et al. 2024)."""

    def __init__(self, features: int, num_classes: int, *, init_std: float | None = None):
        super().__init__()
        self.embed = initialised(nn.Embedding(num_classes, features), init_std)

    def forward(self, y: Tensor | None) -> Tensor:
        w: Tensor = self.embed(labels(y))  # (N, F)
        return w


def initialised(layer: nn.Linear | nn.Embedding, std: float | None) -> nn.Linear | nn.Embedding:
    """Weights from N(0, std²); None is 1/√F, so that logits start at the scale of the features."""
    nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.weight.shape[1]) if std is None else std)
    return layer


def labels(y: Tensor | None) -> Tensor:
    if y is None:
        raise ValueError("this discriminator is conditioned on the class: call it with labels, D(x, y)")
    return y


# ---- contraction: (h, w) -> Logits -----------------------------------------------------------------------


def split(w: Tensor) -> tuple[Tensor, Tensor]:
    """Two copies of w (..., F), ‖w‖ sg(ω) and sg(‖w‖) ω with ω = w/‖w‖: equal values, two halves of the gradient.

    A loss on <first, h> moves w along ω only (its length); a loss on <second, h> moves it orthogonally to ω
    only (its direction). Nothing needs renormalising after a step. (Takida et al. 2024, sec. 4.2)
    """
    norm = w.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    omega = w / norm
    return norm * omega.detach(), norm.detach() * omega


def contract(w: Tensor, h: Tensor) -> Tensor:
    """<w, h>, w (1, F) or (N, F), h (N, F) or (N, F, H, W) -> (N, K), one logit per position.

    In float32 even under autocast, where bfloat16 would round logits to 3 digits; in float64 if h is.
    """
    columns = h.flatten(2) if h.ndim > 2 else h.unsqueeze(2)  # (N, F, K)
    dtype = torch.promote_types(h.dtype, torch.float32)
    with torch.autocast(h.device.type, enabled=False):
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
    """

    def __init__(self, conditioning: nn.Module):
        super().__init__()
        self.conditioning = conditioning

    def forward(self, h: Tensor, y: Tensor | None = None) -> Logits:
        length, direction = split(self.conditioning(y))
        return Logits(contract(length, h), contract(direction, h.detach()))


class Discriminator(nn.Module):
    """Features, then a head. `body`: x (N, C, H, W) -> (N, F) or (N, F, H', W')."""

    def __init__(self, body: nn.Module, head: nn.Module):
        super().__init__()
        self.body, self.head = body, head

    def forward(self, x: Tensor, y: Tensor | None = None) -> Logits:
        logits: Logits = self.head(self.body(x), y)
        return logits


# ---- settings --------------------------------------------------------------------------------------------

HeadFactory = Callable[[int], nn.Module]
"""Number of features F -> head. An architecture calls it once per body it creates."""


Conditioning = Annotated[
    Literal["none", "projection", "per_class"],
    BeforeValidator(lambda given: "none" if given is None else given),  # what `none` means on the command line
]


@component
class Head:
    """The last layer of D: how it is conditioned, and whether it is a SAN layer.

    conditioning: "none", "projection" (`Projection`) or "per_class" (`PerClass`).
    init_std: standard deviation of the initial weights; None is 1/√F.
    """

    conditioning: Conditioning = "none"
    san: bool = False
    init_std: float | None = Field(default=None, gt=0)

    def factory(self, num_classes: int) -> HeadFactory:
        """Raises ValueError if the conditioning needs classes and the data has none."""
        if self.conditioning != "none" and num_classes == 0:
            raise ValueError(
                f"head.conditioning={self.conditioning!r} needs labelled data and this data has no labels. "
                "Give labelled data, or go without (head.conditioning=none generator.conditional=false)."
            )
        conditionings = {"none": Unconditional, "projection": Projection, "per_class": PerClass}
        condition = conditionings[self.conditioning]
        head = SANHead if self.san else LinearHead
        return lambda features: head(condition(features, num_classes, init_std=self.init_std))
