"""Self-attention over the positions of a map: what far parts of an image know of each other (Zhang et al. 2019)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention_maps import AttentionMap

__all__ = ["SelfAttention"]


class SelfAttention(nn.Module):
    """y_j = x_j + γ W_o Σ_i β_ji h(x_i) with β_ji = softmax_i(<f(x_i), g(x_j)>), γ = 0 at first.

    Zhang et al. 2019, eq. 1 to 3. x (N, F, H, W) -> the same shape; H and W of 2 or more. g, f and h are 1x1
    convolutions without bias to F/8, F/8 and F/2 channels, at least one; keys f and values h are the maxima of 2x2
    blocks, so i counts a quarter of the positions, as in the authors' code. W_o leads back to F channels. Scores are
    not divided by √(F/8).

    At first it is the identity, and only γ has a gradient; the other weights follow once γ has moved.

    The weights β (N, H·W, H·W/4) are never stored, unless somebody reads `map`: see `attention_maps`.
    """

    def __init__(self, features: int):
        super().__init__()
        inner, values = max(1, features // 8), max(1, features // 2)
        self.query = nn.Conv2d(features, inner, 1, bias=False)  # g
        self.key = nn.Conv2d(features, inner, 1, bias=False)  # f
        self.value = nn.Conv2d(features, values, 1, bias=False)  # h
        self.out = nn.Conv2d(values, features, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))
        self.map = AttentionMap()

    def forward(self, x: Tensor) -> Tensor:
        q = self.query(x).flatten(2).transpose(1, 2)  # (N, H·W, F/8)
        k, v = (F.max_pool2d(layer(x), 2).flatten(2).transpose(1, 2) for layer in (self.key, self.value))
        o = self.map(weights(q, k)) @ v if self.map._forward_hooks else attend(q, k, v)  # (N, H·W, F/2)
        out: Tensor = self.out(o.transpose(1, 2).unflatten(2, x.shape[2:]))
        return x + self.gamma * out


# ---- softmax(q kᵀ) v -------------------------------------------------------------------------------------


def weights(q: Tensor, k: Tensor) -> Tensor:
    """softmax(q kᵀ), rows sum to 1: (N, Q, A), (N, K, A) -> (N, Q, K)."""
    return (q @ k.transpose(1, 2)).softmax(2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ) v, differentiable twice, weights unstored: (N, Q, A), (N, K, A), (N, K, V) -> (N, Q, V), V >= A."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v)):
        attended: Tensor = Attend.apply(q, k, v)  # type: ignore[no-untyped-call]
        return attended
    return fused(q, k, v)


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`attend` by torch's kernel, which cannot be differentiated twice.

    Where q is shorter than v, or the numbers of a vector are apart in memory, the CPU's gives way to one that stores
    the weights. Zeros at the ends of q and k leave every score as it is.
    """
    zeros = (0, v.shape[2] - q.shape[2])
    q, k, v = (t.contiguous()[:, None] for t in (F.pad(q, zeros), F.pad(k, zeros), v))  # (N, 1, ., V): one head
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)[:, 0]


class Attend(torch.autograd.Function):
    """`fused` with a backward of its own, which knows what it is for.

    A gradient that will be differentiated again, as a penalty's is, is that of softmax(q kᵀ) v written out, which
    stores the weights. Any other is the kernel's. Both start from q, k and v alone, so the forward runs once more.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, v)
        return fused(q, k, v)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        again = torch.is_grad_enabled()  # under create_graph
        inputs = ctx.saved_tensors if again else [t.detach().requires_grad_(True) for t in ctx.saved_tensors]
        with torch.enable_grad():
            q, k, v = inputs
            out = weights(q, k) @ v if again else fused(q, k, v)
        wanted = [t for t in inputs if t.requires_grad]
        found = iter(torch.autograd.grad(out, wanted, grad, create_graph=again))
        return tuple(next(found) if t.requires_grad else None for t in inputs)
