"""Normalisation of activations: torch's own layers by name, and the two that torch does not have."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import labels

__all__ = ["ConditionalBatchNorm", "NormKind", "VirtualBatchNorm", "WithReference", "norm"]


# ---- torch's own, by name --------------------------------------------------------------------------------

NormKind = Literal["none", "batch", "layer", "instance", "group"]
"""Over which values of h (N, F, H, W) mean and variance are taken; see `norm`."""


def norm(kind: NormKind, features: int, *, groups: int = 32) -> nn.Module:
    """A normalisation of h (N, F, H, W): gain (h - μ) / √(σ² + 1e-5) + bias, one gain and one bias per feature.

    kind: which values share μ and σ²:
        "batch": a feature's, in all images and at all positions (Ioffe & Szegedy 2015);
        "layer": an image's, all features at all positions (Ba et al. 2016, as in the critic of WGAN-GP);
        "instance": a feature's in one image (Ulyanov et al. 2016);
        "group": an image's `groups` blocks of F/groups neighbouring features (Wu & He 2018);
        "none": h itself.

    Only "batch" mixes images, so only it takes their meaning from per-image penalties such as `R1`.

    Raises:
        ValueError: for an unknown kind, or if `groups` does not divide `features`.
    """
    match kind:
        case "none":
            return nn.Identity()
        case "batch":
            return nn.BatchNorm2d(features)
        case "layer":
            return nn.GroupNorm(1, features)
        case "instance":
            return nn.InstanceNorm2d(features, affine=True)
        case "group":
            if features % groups:
                raise ValueError(f"group norm: groups={groups} does not divide {features} features; choose a divisor")
            return nn.GroupNorm(groups, features)
    raise ValueError(f"unknown norm {kind!r}; known: none, batch, layer, instance, group")


# ---- conditional batch norm ------------------------------------------------------------------------------


class ConditionalBatchNorm(nn.Module):
    """gain[y] (h - μ) / √(σ² + ε) + bias[y], μ and σ² over the whole batch (de Vries et al. 2017).

    h (N, F, H, W), y (N,) -> (N, F, H, W). How a generator reads the class in SN-GAN with projection (Miyato & Koyama
    2018) and in SAGAN. Gains start at 1, biases at 0, so at first it is batch norm for every class.
    """

    def __init__(self, features: int, num_classes: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(features, affine=False)
        # No `nn.Embedding`: a normaliser would take the gains for weights, and spectral norm divide them by √(K F).
        self.gain = nn.Parameter(torch.ones(num_classes, features))
        self.bias = nn.Parameter(torch.zeros(num_classes, features))

    def forward(self, h: Tensor, y: Tensor | None) -> Tensor:
        """Raises ValueError without labels, IndexError for a label that is no class."""
        gain, bias = (F.embedding(labels(y), table)[:, :, None, None] for table in (self.gain, self.bias))
        out: Tensor = gain * self.norm(h) + bias
        return out


# ---- virtual batch norm ----------------------------------------------------------------------------------


class VirtualBatchNorm(nn.Module):
    """gain (h_i - μ_i) / √(σ²_i + ε) + bias, μ_i and σ²_i over a fixed reference batch and image i alone.

    h (N, F, ...) -> the same shape. Each feature's mean and variance are those of R + 1 images, at all positions: the
    R of the reference and the image itself (Salimans et al. 2016, sec. 3.5). So an image's output does not depend on
    its batch mates. The reference itself is normalised by its own statistics.

    It gets its reference from the `WithReference` around the network it is part of.
    """

    def __init__(self, features: int, *, eps: float = 1e-5):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.eps = eps
        self.references = 0  # how many rows of the input, from the first on, are the reference's; see `WithReference`

    def forward(self, h: Tensor) -> Tensor:
        """Raises ValueError if it has no reference."""
        R = self.references
        if R == 0:
            raise ValueError(
                "VirtualBatchNorm has no reference batch: wrap the network it is part of, "
                "net = WithReference(net, images), and call that"
            )
        values = h.flatten(2) if h.ndim > 2 else h.unsqueeze(2)  # (R + N, F, positions)
        values = values.to(torch.promote_types(h.dtype, torch.float32))
        reference, images = values[:R], values[R:]
        ref_var, ref_mean = torch.var_mean(reference, dim=(0, 2), correction=0, keepdim=True)  # (1, F, 1)
        own_var, own_mean = torch.var_mean(images, dim=2, correction=0, keepdim=True)  # (N, F, 1)
        # Those of the union, written without E[h²] - E[h]², which cancels.
        mean = (R * ref_mean + own_mean) / (R + 1)
        var = (R * ref_var + own_var) / (R + 1) + R / (R + 1) ** 2 * (ref_mean - own_mean).square()
        reference = (reference - ref_mean) * (ref_var + self.eps).rsqrt()
        images = (images - mean) * (var + self.eps).rsqrt()
        out = self.gain[:, None] * torch.cat([reference, images]) + self.bias[:, None]
        return out.to(h.dtype).view_as(h)


class WithReference(nn.Module):
    """`net` with a reference batch for its `VirtualBatchNorm` layers: x (N, ...) -> net(x), row by row.

    reference: (R, ...), R >= 2, of the form of x: real images for D's body, a fixed z for G. As many as the batch
        size is usual. The same on every process.

    The reference goes through the network beside every x, so each layer meets it with the weights of the moment, and
    gradients flow through its statistics. It is a buffer: checkpoints hold it, an average of the weights keeps it.

    Raises:
        ValueError: if `net` has no such layer, or the reference fewer than two rows.
    """

    reference: Tensor

    def __init__(self, net: nn.Module, reference: Tensor):
        super().__init__()
        if not any(isinstance(layer, VirtualBatchNorm) for layer in net.modules()):
            raise ValueError(f"WithReference: {type(net).__name__} has no VirtualBatchNorm layer; use it as it is")
        if len(reference) < 2:
            raise ValueError(f"WithReference: a reference of {len(reference)} has no variance; give a batch of images")
        self.net = net
        self.register_buffer("reference", reference.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        R = len(self.reference)
        layers = [layer for layer in self.net.modules() if isinstance(layer, VirtualBatchNorm)]
        # Set for this call alone: `net` called without its reference must fail, not take images for one.
        for layer in layers:
            layer.references = R
        try:
            h: Tensor = self.net(torch.cat([self.reference, x]))
        finally:
            for layer in layers:
                layer.references = 0
        return h[R:]
