"""Normalisation of activations: torch's layers by name, and layers that torch lacks."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.compute.distributed import stack_ranks, world_size
from equipoise.core.types import NONE_IS_A_WORD

from .layers import labels

__all__ = [
    "ConditionalBatchNorm",
    "LinearConditionalBatchNorm",
    "NormKind",
    "PixelNorm",
    "SyncBatchNorm",
    "VirtualBatchNorm",
    "WithReference",
    "norm",
]


# ---- by name ---------------------------------------------------------------------------------------------

NormKind = Literal["none", "batch", "sync_batch", "layer", "instance", "group"]
"""Values of h (N, F, H, W) that share a mean and a variance; see `norm`."""


def norm(kind: NormKind, features: int, *, groups: int = 32) -> nn.Module:
    """A normalisation of h (N, F, H, W): gain (h - μ) / √(σ² + 1e-5) + bias, one gain and one bias per feature.

    kind: which values share μ and σ²:
        "batch": a feature's, in all images and at all positions (Ioffe & Szegedy 2015);
        "sync_batch": the same, in the images of all processes (`SyncBatchNorm`);
        "layer": an image's, all features at all positions (Ba et al. 2016, as in the critic of WGAN-GP);
        "instance": a feature's in one image (Ulyanov et al. 2016);
        "group": an image's `groups` blocks of F/groups neighbouring features (Wu & He 2018);
        "none": h itself.

    Only "batch" and "sync_batch" mix images. With them a per-image penalty such as `R1` loses its meaning.

    Raises:
        ValueError: for an unknown kind, or if `groups` does not divide `features`.
    """
    match kind:
        case "none":
            return nn.Identity()
        case "batch":
            return nn.BatchNorm2d(features)
        case "sync_batch":
            return SyncBatchNorm(features)
        case "layer":
            return nn.GroupNorm(1, features)
        case "instance":
            return nn.InstanceNorm2d(features, affine=True)
        case "group":
            if features % groups:
                raise ValueError(f"group norm: groups={groups} does not divide {features} features; choose a divisor")
            return nn.GroupNorm(groups, features)
    raise ValueError(f"unknown norm {kind!r}; known: {', '.join(get_args(NormKind))}")


# ---- batch norm of several processes ---------------------------------------------------------------------


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch norm over the images of all processes: gain (h - μ) / √(σ² + ε) + bias.

    h (N, F, H, W) -> the same shape; N may differ between processes. In one process, and in eval mode, it is
    `nn.BatchNorm2d`. Unlike `torch.nn.SyncBatchNorm` it also runs on CPUs, and can be differentiated twice, as a
    gradient penalty does. Gradients belong to the sum of the processes' objectives; see `stack_ranks`.

    Processes wait for one another: all must call the layer equally often in training mode, and differentiate alike.

    alone: leave the other processes out, for a forward that only this process makes.
    """

    alone = False

    def forward(self, h: Tensor) -> Tensor:
        if self.alone or not self.training or world_size() == 1:
            return super().forward(h)
        self._check_input_dim(h)
        values = h.to(torch.promote_types(h.dtype, torch.float32))
        own_var, own_mean = torch.var_mean(values, dim=(0, 2, 3), correction=0)  # (F,)
        own_count = torch.full_like(own_mean, values[:, 0].numel())
        count, means, variances = stack_ranks(torch.stack([own_count, own_mean, own_var])).unbind(1)  # (ranks, F)
        total = count.sum(0)
        # Mean and variance of the union, written without E[h²] - E[h]², which cancels.
        mean = (count * means).sum(0) / total
        var = (count * (variances + (means - mean).square())).sum(0) / total
        self.remember(mean, var * total / (total - 1))
        out = (values - mean[:, None, None]) * (var + self.eps).rsqrt()[:, None, None]
        if self.affine:
            out = self.weight[:, None, None] * out + self.bias[:, None, None]
        return out.to(h.dtype)

    @torch.no_grad()
    def remember(self, mean: Tensor, var: Tensor) -> None:
        """Update the running averages, (F,) each, as torch's batch norm does; `var` is the unbiased variance."""
        if not self.track_running_stats:
            return
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean += share * (mean - self.running_mean)
        self.running_var += share * (var - self.running_var)


# ---- conditional batch norm ------------------------------------------------------------------------------


class ConditionalBatchNorm(nn.Module):
    """gain[y] (h - μ) / √(σ² + ε) + bias[y], μ and σ² over the whole batch (de Vries et al. 2017).

    h (N, F, H, W), y (N,) -> (N, F, H, W). The generators of SN-GAN with projection (Miyato & Koyama 2018) and of
    SAGAN read the class this way. Gains start at 1 and biases at 0: plain batch norm for every class.

    batch_norm: computes μ and σ²; `SyncBatchNorm` takes them over all processes.
    """

    def __init__(self, features: int, num_classes: int, *, batch_norm: type[nn.BatchNorm2d] = nn.BatchNorm2d):
        super().__init__()
        self.norm = batch_norm(features, affine=False)
        # Not an `nn.Embedding`: a normaliser would treat it as a weight, and spectral norm divide gains by √(K F).
        self.gain = nn.Parameter(torch.ones(num_classes, features))
        self.bias = nn.Parameter(torch.zeros(num_classes, features))

    def forward(self, h: Tensor, y: Tensor | None) -> Tensor:
        """Raises ValueError without labels, IndexError for a label out of range."""
        gain, bias = (F.embedding(labels(y), table)[:, :, None, None] for table in (self.gain, self.bias))
        out: Tensor = gain * self.norm(h) + bias
        return out


class LinearConditionalBatchNorm(nn.Module):
    """(1 + V c) (h - μ) / √(σ² + ε) + U c, μ and σ² over the whole batch, V and U learned (Brock et al. 2019, app. B).

    h (N, F, H, W), c (N, condition) -> (N, F, H, W). In BigGAN c is [e(y), chunk]: a class embedding that all such
    layers share, and this layer's chunk of z. So a class costs one embedding. `ConditionalBatchNorm` keeps a gain and
    a bias for each class and feature.

    batch_norm: as in `ConditionalBatchNorm`.
    """

    def __init__(self, features: int, condition: int, *, batch_norm: type[nn.BatchNorm2d] = nn.BatchNorm2d):
        super().__init__()
        self.norm = batch_norm(features, affine=False)
        self.gain = nn.Linear(condition, features, bias=False)
        self.bias = nn.Linear(condition, features, bias=False)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        gain, bias = (linear(c)[:, :, None, None] for linear in (self.gain, self.bias))
        out: Tensor = (1 + gain) * self.norm(h) + bias
        return out


CONDITIONAL = (ConditionalBatchNorm, LinearConditionalBatchNorm)


def normalise(norm: nn.Module, h: Tensor, condition: Tensor | None) -> Tensor:
    """norm(h), or norm(h, condition) if it is one of `CONDITIONAL`."""
    out: Tensor = norm(h, condition) if isinstance(norm, CONDITIONAL) else norm(h)
    return out


# ---- virtual batch norm ----------------------------------------------------------------------------------


class VirtualBatchNorm(nn.Module):
    """gain (h_i - μ_i) / √(σ²_i + ε) + bias, μ_i and σ²_i over a fixed reference batch and image i alone.

    h (N, F, ...) -> the same shape. Each feature's mean and variance are taken over R + 1 images, at all positions: the
    R reference images and the image itself (Salimans et al. 2016, sec. 3.5). So an image's output does not depend on
    its batch mates. The reference is normalised by its own statistics.

    The reference comes from the `WithReference` around the network that holds this layer.
    """

    def __init__(self, features: int, *, eps: float = 1e-5):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.eps = eps
        self.references = 0  # the first `references` rows of the input are the reference; set by `WithReference`

    def forward(self, h: Tensor) -> Tensor:
        """Raises ValueError outside a `WithReference`."""
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
        # Mean and variance of the union, written without E[h²] - E[h]², which cancels.
        mean = (R * ref_mean + own_mean) / (R + 1)
        var = (R * ref_var + own_var) / (R + 1) + R / (R + 1) ** 2 * (ref_mean - own_mean).square()
        reference = (reference - ref_mean) * (ref_var + self.eps).rsqrt()
        images = (images - mean) * (var + self.eps).rsqrt()
        out = self.gain[:, None] * torch.cat([reference, images]) + self.bias[:, None]
        return out.to(h.dtype).view_as(h)


class WithReference(nn.Module):
    """`net` with a reference batch for its `VirtualBatchNorm` layers: x (N, ...) -> net(x), row by row.

    reference: (R, ...), R >= 2, rows shaped like those in x: real images for D's body, a fixed z for G. R is usually
        the batch size. The same on every process.

    The reference passes through the network with every x. So its statistics follow the current weights, and gradients
    flow through them. It is a buffer: checkpoints hold it, and an average of the weights keeps it.

    Raises:
        ValueError: if `net` holds no `VirtualBatchNorm`, or the reference fewer than two rows.
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
        # Set for this call only: `net` called without its reference must fail, not read images as the reference.
        for layer in layers:
            layer.references = R
        try:
            h: Tensor = self.net(torch.cat([self.reference, x]))
        finally:
            for layer in layers:
                layer.references = 0
        return h[R:]


Norm = Annotated[NormKind | Literal["virtual"], NONE_IS_A_WORD]


BATCH_NORMS = {"batch": nn.BatchNorm2d, "sync_batch": SyncBatchNorm}
"""Norms whose gain and bias may depend on a condition."""


def make_norm(kind: Norm, features: int) -> nn.Module:
    """`norm`, or virtual batch norm. Group norm has the most groups, up to 32, with two or more features in each."""
    if kind == "virtual":
        return VirtualBatchNorm(features)
    groups = max((g for g in range(1, 33) if features % g == 0 and 2 * g <= features), default=1)
    return norm(kind, features, groups=groups)


class PixelNorm(nn.Module):
    """h / √(mean of h² over features + 1e-8), at each position: (N, F, ...), same shape (Karras et al. 2018, sec. 4.2).

    Computed in float32 at least.
    """

    def forward(self, h: Tensor) -> Tensor:
        wide = h.to(torch.promote_types(h.dtype, torch.float32))
        return (wide * (wide.square().mean(1, keepdim=True) + 1e-8).rsqrt()).to(h.dtype)


NormOfG = Annotated[Literal["batch", "sync_batch", "none"], NONE_IS_A_WORD]


NormOfD = Annotated[Literal["layer", "batch", "none"], NONE_IS_A_WORD]
