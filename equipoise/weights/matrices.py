"""Weights as matrices, and their exact singular values: shared by normalisers, constraints and regularisers.

A layer's weight is read as the matrix (C_out, the rest), which is (C_out, C_in·kh·kw) for a convolution, transposed or
not (Miyato et al. 2018, sec. 2.1). Its squared singular values are the eigenvalues of the smaller Gram matrix, W Wᵀ or
Wᵀ W, which costs a tenth of a singular value decomposition.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from equipoise.compute.devices import wide
from equipoise.compute.precision import without_autocast
from equipoise.nn import Discriminator, SANHead, ScaledConv2d, ScaledEmbedding, ScaledLinear

__all__ = [
    "as_matrix",
    "clip_singular_values",
    "effective_weight",
    "gram",
    "lipschitz_bound",
    "output_axis",
    "singular_values",
    "spectral_norms",
    "spectral_stats",
    "squared_singular_values",
    "weighted_layers",
]

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
WEIGHTED = (nn.Linear, nn.Embedding, *CONVOLUTIONS, *TRANSPOSED)
SCALED = (ScaledLinear, ScaledConv2d, ScaledEmbedding)
"""Layers that multiply their weight by a constant, `gain`, when they compute."""


# ---- layers and their weights ----------------------------------------------------------------------------


def weighted_layers(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules of the linear, convolutional and embedding layers, outside SAN heads.

    A SAN head learns the direction and the length of its vector separately. A normaliser, constraint or regulariser
    would mix them again.
    """
    inside = {part for head in net.modules() if isinstance(head, SANHead) for part in head.modules()}
    return ((n, m) for n, m in net.named_modules() if isinstance(m, WEIGHTED) and m not in inside)


def effective_weight(layer: nn.Module) -> Tensor:
    """The weight that `layer` computes with, after its normaliser: differentiable, and read without side effects.

    In training mode a plain ``layer.weight`` would move the singular vectors of a spectral norm. Layers that scale
    their weight (`SCALED`) compute with gain · W.
    """
    weight, gain = normalised_weight(layer), gain_of(layer)
    return weight if gain == 1 else weight * gain


def gain_of(layer: nn.Module) -> float:
    """The constant with which `layer` multiplies its weight: 1 but for `SCALED` layers."""
    return layer.gain if isinstance(layer, SCALED) else 1.0


def normalised_weight(layer: nn.Module) -> Tensor:
    """``layer.weight``, after its normaliser, without side effects."""
    if not parametrize.is_parametrized(layer, "weight"):
        assert isinstance(layer.weight, Tensor)
        return layer.weight
    assert isinstance(layer.parametrizations, nn.ModuleDict)
    computed = layer.parametrizations["weight"]
    flags = [(module, module.training) for module in computed.modules()]
    computed.eval()
    try:
        weight: Tensor = computed()
    finally:
        for module, training in flags:
            module.training = training
    return weight


def output_axis(layer: nn.Module) -> int:
    """The axis of a layer's weight that counts its outputs."""
    return 1 if isinstance(layer, TRANSPOSED) else 0


def as_matrix(weight: Tensor, axis: int = 0) -> Tensor:
    """A weight as (C_out, the rest); `axis` counts its outputs."""
    return weight.movedim(axis, 0).flatten(1)


def matrices(net: nn.Module) -> dict[str, Tensor]:
    """The effective weight of each weighted layer, as a matrix."""
    return {name: as_matrix(effective_weight(layer), output_axis(layer)) for name, layer in weighted_layers(net)}


# ---- matrices and their singular values ------------------------------------------------------------------


def gram(matrix: Tensor) -> Tensor:
    """W Wᵀ, (m, n) -> (m, m), in float32 or wider even under autocast."""
    wide = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    with without_autocast(matrix):
        return wide @ wide.T


def squared_singular_values(matrix: Tensor) -> Tensor:
    """(m, n) -> (min(m, n),), ascending; NaN for a matrix that is not finite.

    The gradient of the i-th is exact, 2 s_i u_i v_iᵀ, and finite where s_i is 0 or repeated.
    """
    squares = gram(matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T)
    finite = squares.isfinite().all()  # LAPACK fails on NaN; the trainer reports a diverged run more clearly
    values = torch.linalg.eigvalsh(torch.where(finite, squares, 0.0))
    return torch.where(finite, values.clamp_min(0), torch.nan)


def clip_singular_values(matrix: Tensor, bound: float) -> Tensor:
    """U min(S, bound) Vᵀ of matrix = U S Vᵀ: the nearest matrix without a singular value above `bound`.

    In float64. A matrix within the bound, or with values that are not finite, is returned unchanged.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return clip_singular_values(matrix.T, bound).T
    W = wide(matrix)
    squares = gram(W)
    squared, left = torch.linalg.eigh(torch.where(squares.isfinite().all(), squares, 0.0))
    excess = (1 - bound / squared.clamp_min(0).sqrt()).clamp_min(0)  # 0 where s <= bound
    clipped: Tensor = W - (left * excess) @ (left.T @ W)
    return clipped.to(matrix)


# ---- networks --------------------------------------------------------------------------------------------


@torch.no_grad()
def singular_values(net: nn.Module) -> dict[str, Tensor]:
    """All singular values of each layer's effective weight, descending, float64, by singular value decomposition."""
    return {name: torch.linalg.svdvals(wide(matrix)) for name, matrix in matrices(net).items()}


@torch.no_grad()
def spectral_norms(net: nn.Module) -> dict[str, Tensor]:
    """The largest singular value σ, (), of each layer's effective weight, float64. Spectral norm makes it 1."""
    return {name: squared_singular_values(wide(matrix))[-1].sqrt() for name, matrix in matrices(net).items()}


def lipschitz_bound(net: nn.Module) -> Tensor:
    """Π σ_l √r_l over the linear and convolutional layers, () float64: at least ‖net‖_Lip.

    It holds for a chain of such layers with zero padding and 1-Lipschitz functions in between. ReLU, leaky ReLU, tanh,
    reshapes and mean pooling are 1-Lipschitz; batch norm is not. A layer used twice in the chain counts twice.
    Embeddings and SAN heads are left out. For a discriminator with a conditional or a SAN head, take the bound of its
    features, ``lipschitz_bound(D.body)``.

    r_l is how often a convolution reads a value: σ(W) bounds the map from one patch, and patches overlap. The usual
    product of σ (Miyato et al. 2018, sec. 2.1) leaves r_l out. It is a bound only where patches do not overlap.
    """
    norms = spectral_norms(net)
    return bound_of(net, {layer: norms[name] for name, layer in weighted_layers(net)})


def bound_of(net: nn.Module, norms: Mapping[nn.Module, Tensor]) -> Tensor:
    """`lipschitz_bound` of `net`, from the spectral norms of its layers. A layer missing from `norms` is left out."""
    bound = torch.ones((), dtype=torch.float64)
    for _, layer in net.named_modules(remove_duplicate=False):  # a chain applies a layer wherever it stands
        if layer in norms and not isinstance(layer, nn.Embedding):
            bound = bound * norms[layer] * math.sqrt(reads(layer))
    return bound


@torch.no_grad()
def spectral_stats(D: nn.Module) -> dict[str, Tensor]:
    """Statistics of D's weights at each snapshot: `D/sigma/<layer>`, and the bound of D's features as `D/lipschitz`.

    For a SAN head, which is never normalised, σ is max_y ‖w(y)‖. The bound is left out unless `is_chain` shows that it
    holds.
    """
    norms = spectral_norms(D)
    stats = {f"D/sigma/{name}": sigma for name, sigma in norms.items()}
    for name, head in D.named_modules():
        if isinstance(head, SANHead):
            stats[f"D/sigma/{name}"] = wide(every_vector(head.conditioning)).norm(dim=1).max()
    body = D.body if isinstance(D, Discriminator) else D
    if is_chain(body):
        stats["D/lipschitz"] = bound_of(body, {layer: norms[name] for name, layer in weighted_layers(D)})
    return stats


def every_vector(conditioning: nn.Module) -> Tensor:
    """w(y) for each class, (classes, F), or the vector that all classes share, (1, F)."""
    tables = [layer for layer in conditioning.modules() if isinstance(layer, nn.Embedding)]
    y = torch.arange(tables[0].num_embeddings, device=tables[0].weight.device) if tables else None
    vectors: Tensor = conditioning(y)
    return vectors


def is_chain(net: nn.Module) -> bool:
    """Whether `net` is an `nn.Sequential` of nothing but weighted layers and functions known to be 1-Lipschitz."""
    if isinstance(net, nn.Sequential):
        return all(is_chain(part) for part in net)
    if isinstance(net, nn.LeakyReLU):
        return abs(net.negative_slope) <= 1
    if isinstance(net, CONVOLUTIONS):
        return net.padding_mode == "zeros"
    return isinstance(net, (nn.Linear, *TRANSPOSED, nn.ReLU, nn.Tanh, nn.Flatten, nn.Unflatten, nn.Identity))


def reads(layer: nn.Module) -> int:
    """The largest number of patches of `layer` that contain one value of its input."""
    if isinstance(layer, TRANSPOSED):
        return math.prod(layer.kernel_size)
    if isinstance(layer, CONVOLUTIONS):
        sizes = zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)
        return math.prod(math.ceil(k * math.gcd(stride, dilation) / stride) for k, stride, dilation in sizes)
    return 1
