"""Attention maps: the weights of a network's attention layers, read while the network is called.

SAGAN's and BigGAN's networks have such layers (`SelfAttention`). A layer of your own is read in one of two cases:
it is torch's `nn.MultiheadAttention`, or it passes its weights through an `AttentionMap`:

    self.map = AttentionMap()
    weights = self.map(scores.softmax(-1))  # the same weights
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["AttentionMap", "attention_maps"]


class AttentionMap(nn.Module):
    """The identity on an attention layer's weights (N, ..., queries, keys), where `attention_maps` reads them.

    Rows sum to 1. Nothing is stored.
    """

    def forward(self, weights: Tensor) -> Tensor:
        return weights


@torch.no_grad()
def attention_maps(net: nn.Module, *inputs: Tensor | None) -> dict[str, Tensor]:
    """The weights of every attention layer in ``net(*inputs)``, by the layer's dotted name: (N, ..., queries, keys).

    Row q of a map shows where query q looks. For a layer on h x w positions, `weights[n, q].view(h, w)` is a picture.
    A layer that is called several times gives its last call. `nn.MultiheadAttention` gives the mean over heads, unless
    it is called with `average_attn_weights=False`.

    Raises:
        ValueError: if the call reached no attention layer, or one that computes no weights.

    >>> maps = attention_maps(generator.net, z, y)
    """
    maps: dict[str, Tensor] = {}

    def reader(name: str) -> Any:
        def read(module: nn.Module, _: object, output: Any) -> None:
            weights = output[1] if isinstance(module, nn.MultiheadAttention) else output
            if weights is None:
                raise ValueError(
                    f"{name} is called with need_weights=False and returns no weights: call it with need_weights=True"
                )
            maps[name] = weights.detach()

        return read

    kinds = (AttentionMap, nn.MultiheadAttention)
    layers = [(name, module) for name, module in net.named_modules() if isinstance(module, kinds)]
    hooks = [module.register_forward_hook(reader(name)) for name, module in layers]
    try:
        net(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not maps:
        raise ValueError(
            "this network called no attention layer that can be read: an nn.MultiheadAttention, or a layer whose "
            "weights pass through an AttentionMap"
        )
    return maps
