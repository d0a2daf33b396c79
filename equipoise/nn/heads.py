"""The last layer of a discriminator: a class-dependent vector w(y) contracted with features h.

Conditioning decides where the class enters; the head decides how w(y) meets h. They meet nowhere else, so every
conditioning works with a plain head and with a SAN head. The exception is K + 1 classes, whose logit is not such a
contraction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.compute.precision import without_autocast
from equipoise.core.types import Logits

from .conditioning import LearnedScale, MiddleConcat

__all__ = [
    "AffineHead",
    "AuxiliaryHead",
    "BiasedHead",
    "Discriminator",
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

    A loss on <first, h> moves w along ω only (its length). A loss on <second, h> moves w orthogonally to ω only (its
    direction). No renormalisation is needed after a step. (Takida et al. 2024, sec. 4.2)
    """
    norm = w.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return halves(norm, w / norm)


def halves(length: Tensor, omega: Tensor) -> tuple[Tensor, Tensor]:
    """Two copies of length · ω: the first trains the length with ω frozen, the second ω with the length frozen."""
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


class AffineHead(LinearHead):
    """logit = <w(y), h> + b(y), the same offset at every position. The conditioning's `affine(y)` gives w and b."""

    def forward(self, h: Tensor, y: Tensor | None = None) -> Logits:
        w, offset = cast("Callable[[Tensor | None], tuple[Tensor, Tensor | None]]", self.conditioning.affine)(y)
        logits = contract(w, h)
        return Logits(logits if offset is None else logits + offset.to(logits.dtype)[:, None])


class SANHead(nn.Module):
    """logit = <ω, ‖w‖ h> with ω = w(y)/‖w(y)‖, as a pair with split gradients (Takida et al. 2024, eq. 14).

    h (N, F) or (N, F, H, W), y (N,) or None -> Logits(fun (N, K), dir (N, K)). fun trains h and ‖w‖ with ω
    frozen; dir trains ω with h and ‖w‖ frozen. Both equal <w, h> in value. At the input fun has a plain head's
    gradient, so G, penalties and inference read `fun`, and no train/eval flag is needed.

    conditioning: y -> w(y). For a `LearnedScale` the length is s(y): fun trains s and not v, dir trains v and not s.
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
    """Divide every v of each `LearnedScale` in `net` by its length, in place. Call it after each step of D.

    Logits change by rounding only. The gradient on v is orthogonal to v and shrinks with 1/‖v‖. So every step makes v
    longer, and a longer v turns less. On a unit vector the learning rate alone decides how far a step turns it.
    """
    for module in net.modules():
        if isinstance(module, LearnedScale):
            module.vectors.normalize_()


class BiasedHead(nn.Module):
    """A head with a bias on the features, last(h + b). b (F,) starts at 0 and is the same at every position.

    With a SAN head, logit = <w(y), h + b>; fun trains b, dir does not. (sony/san, `SANLinear`)

    last: `LinearHead` or `SANHead`, on `features` features.
    """

    def __init__(self, last: nn.Module, features: int):
        super().__init__()
        self.last, self.bias = last, nn.Parameter(torch.zeros(features))

    def forward(self, h: Tensor, y: Tensor | None = None) -> Logits:
        logits: Logits = self.last(h + self.bias.view(-1, *[1] * (h.ndim - 2)), y)
        return logits


class HiddenHead(nn.Module):
    """last(join(h, y)): a hidden layer that reads the class (`join`, a `HiddenConcat`), then a head.

    last: `LinearHead` or `SANHead`, on the features that `join` returns. Normalisers apply to `join` too.
    positions: of the map that the body flattened into h (N, F, ...), F = C · positions. The class joins each
        position, (N, C, positions, ...) -> (N, width, positions, ...), and `last` reads them all.
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
    """V h + b, h averaged over positions: (N, F) or (N, F, H, W) -> (N, classes). Precision as in `contract`."""
    dtype = torch.promote_types(h.dtype, torch.float32)
    mean = h.to(dtype) if h.ndim == 2 else h.to(dtype).flatten(2).mean(2)
    bias = None if classifier.bias is None else classifier.bias.to(dtype)
    with without_autocast(h):
        return F.linear(mean, classifier.weight.to(dtype), bias)


class AuxiliaryHead(nn.Module):
    """Two outputs, real or generated and the class: the discriminator of AC-GAN (Odena et al. 2017, sec. 3).

    h (N, F) or (N, F, H, W) -> Logits(fun, dir, classes (N, classes)). y is ignored. `objective.class_loss` is the
    loss of `classes`. D minimises it on real and on generated images, G on generated images.

    last: the head of `fun` and `dir`, `LinearHead` or `SANHead`.  classifier: F -> classes.
    """

    def __init__(self, last: nn.Module, classifier: nn.Linear):
        super().__init__()
        self.last, self.classifier = last, classifier

    def forward(self, h: Tensor, y: Tensor | None = None) -> Logits:
        logits: Logits = self.last(h)
        return logits._replace(classes=classify(self.classifier, h))


class SemiSupervisedHead(nn.Module):
    """K classes of real images, and one class of generated images whose logit is 0 (Salimans et al. 2016, sec. 5).

    h (N, F) or (N, F, H, W) -> Logits(fun (N, 1), classes l (N, K)) with l = V h and fun = log Σ_k exp(l_k). y is
    ignored. With p the softmax of (l_1, ..., l_K, 0), fun is the logit of "real": s(fun) = 1 - p(K+1 | x). So

        class_loss(real, y)  =  -log p(y | x, y < K+1)
        NonSaturating().d    =  -log(1 - p(K+1 | x)) - log p(K+1 | G(z))

    are the supervised and the unsupervised part of the paper's loss. It cannot be a SAN: `fun` is not linear in h.

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
    """Features, then a head.

    body: x (N, C, H, W) -> h (N, F) or (N, F, H', W'). A `MiddleConcat` also reads y.
    join: joins the class to x before the body, join(x, y), such as `InputConcat`; None leaves x unchanged.

    The returned `Logits` hold h as `features`.
    """

    def __init__(self, body: nn.Module, head: nn.Module, *, join: nn.Module | None = None):
        super().__init__()
        self.body, self.head, self.join = body, head, join

    def forward(self, x: Tensor, y: Tensor | None = None) -> Logits:
        """Raises ValueError unless there is a label per image: a single label would broadcast to all images."""
        if y is not None and len(y) != len(x):
            raise ValueError(f"expected a label per image, got {len(y)} for {len(x)} images")
        x = x if self.join is None else self.join(x, y)
        h = self.body(x, y) if isinstance(self.body, MiddleConcat) else self.body(x)
        logits: Logits = self.head(h, y)
        return logits._replace(features=h)
