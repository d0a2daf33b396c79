"""What a network attends to: the weights of its attention layers, read while it is called.

SAGAN's and BigGAN's networks have such layers (`models.SelfAttention`). Somebody's own takes part in one of two ways:
it is torch's `nn.MultiheadAttention`, or it lets its weights pass through an `AttentionMap`:

    self.map = AttentionMap()
    weights = self.map(scores.softmax(-1))  # the same weights
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["AttentionMap", "attention_maps"]


class AttentionMap(nn.Module):
    """The identity, in the place of an attention layer where its weights (N, ..., queries, keys) are.

    It keeps nothing: `attention_maps` reads what passes. Rows sum to 1.
    """

    def forward(self, weights: Tensor) -> Tensor:
        return weights


@torch.no_grad()
def attention_maps(net: nn.Module, *inputs: Tensor | None) -> dict[str, Tensor]:
    """The weights of every attention layer in ``net(*inputs)``, by the layer's dotted name: (N, ..., queries, keys).

    Row q of a map is where query q looks; of a layer on h x w positions, `weights[n, q].view(h, w)` is a picture.
    Of a layer that is called several times, the last call. Of `nn.MultiheadAttention` the mean over heads, unless it is
    called with `average_attn_weights=False`.

    Raises:
        ValueError: if the call met no attention layer, or one that computes no weights.

    >>> maps = attention_maps(generator.net, z, y)
    """
    found: dict[str, Tensor] = {}

    def reader(name: str) -> Any:
        def read(module: nn.Module, _: object, output: Any) -> None:
            weights = output[1] if isinstance(module, nn.MultiheadAttention) else output
            if weights is None:
                raise ValueError(
                    f"{name} is called with need_weights=False, so it has no weights to show: call with True"
                )
            found[name] = weights.detach()

        return read

    kinds = (AttentionMap, nn.MultiheadAttention)
    layers = [(name, module) for name, module in net.named_modules() if isinstance(module, kinds)]
    hooks = [module.register_forward_hook(reader(name)) for name, module in layers]
    try:
        net(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise ValueError(
            "this network met no attention layer that can be read: an nn.MultiheadAttention, or one of its own whose "
            "weights pass through an AttentionMap"
        )
    return found
