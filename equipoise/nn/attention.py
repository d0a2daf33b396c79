"""Self-attention over the positions of a map: it relates distant parts of an image (Zhang et al. 2019)."""

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
    convolutions without bias, to F/8, F/8 and F/2 channels (at least one). Keys f and values h are max-pooled over 2x2
    blocks, as in the authors' code, so i runs over a quarter of the positions. W_o maps back to F channels. Scores are
    not divided by √(F/8).

    The layer starts as the identity. Only γ has a gradient then; the other weights get theirs once γ has moved.

    The weights β (N, H·W, H·W/4) are stored only while `map` is read; see `attention_maps`.
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
    """`attend` by torch's fused kernel, which cannot be differentiated twice.

    The CPU kernel falls back to one that stores the weights if q is shorter than v, or if vectors are not contiguous.
    So q and k are padded with zeros, which changes no score, and all three are made contiguous.
    """
    zeros = (0, v.shape[2] - q.shape[2])
    q, k, v = (t.contiguous()[:, None] for t in (F.pad(q, zeros), F.pad(k, zeros), v))  # (N, 1, ., V): one head
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)[:, 0]


class Attend(torch.autograd.Function):
    """`fused` with a backward that can be differentiated again.

    Under create_graph, as in a gradient penalty, the backward differentiates softmax(q kᵀ) v written out, which stores
    the weights. Otherwise it uses the kernel's gradient. Both recompute the forward from q, k and v.
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
        gradients = iter(torch.autograd.grad(out, wanted, grad, create_graph=again))
        return tuple(next(gradients) if t.requires_grad else None for t in inputs)
