"""Attention weights of real layers, against softmax(Q Kᵀ / √d) written out."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from equipoise.nn import AttentionMap, attention_maps


class SelfAttention(nn.Module):
    """Of maps, as in SAGAN: every position looks at every other one."""

    def __init__(self, channels):
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.map = AttentionMap()

    def forward(self, h):
        q, k, v = (layer(h).flatten(2) for layer in (self.query, self.key, self.value))
        weights = self.map((q.transpose(1, 2) @ k).softmax(-1))
        return h + (v @ weights.transpose(1, 2)).view_as(h)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.early, self.late = SelfAttention(3), SelfAttention(3)

    def forward(self, x, y=None):
        return self.late(self.early(x))


def test_weights_of_every_layer_by_name():
    net, x = Net(), torch.randn(2, 3, 4, 5)
    maps = attention_maps(net, x, None)
    assert list(maps) == ["early.map", "late.map"]
    h = net.early(x)
    for name, at in (("early", x), ("late", h)):
        layer = getattr(net, name)
        scores = torch.einsum("nci,ncj->nij", layer.query(at).flatten(2), layer.key(at).flatten(2))
        assert_close(maps[f"{name}.map"], scores.exp() / scores.exp().sum(2, keepdim=True))
    assert not any(module._forward_hooks for module in net.modules())


def test_torchs_own_layer():
    layer = nn.MultiheadAttention(6, 2, batch_first=True)
    x = torch.randn(3, 4, 6)
    net = nn.Module()
    net.attend = layer
    net.forward = lambda x: layer(x, x, x)[0]
    q, k, _ = (x @ layer.in_proj_weight.T + layer.in_proj_bias).chunk(3, dim=2)
    heads = [(q[..., i : i + 3] @ k[..., i : i + 3].transpose(1, 2) / math.sqrt(3)).softmax(-1) for i in (0, 3)]
    for mode in (True, False):
        layer.train(mode)
        assert_close(attention_maps(net, x)["attend"], (heads[0] + heads[1]) / 2)


def test_the_map_changes_nothing_and_keeps_no_graph():
    weights = torch.rand(2, 3, 3, requires_grad=True)
    assert AttentionMap()(weights) is weights
    x = torch.randn(1, 3, 2, 2, requires_grad=True)
    assert not attention_maps(Net(), x)["early.map"].requires_grad


def test_a_network_without_attention_or_without_weights():
    with pytest.raises(ValueError, match="called no attention layer that can be read"):
        attention_maps(nn.Linear(2, 2), torch.zeros(1, 2))
    layer = nn.MultiheadAttention(4, 1)
    net = nn.Module()
    net.attend = layer
    net.forward = lambda x: layer(x, x, x, need_weights=False)[0]
    with pytest.raises(ValueError, match="attend is called with need_weights=False"):
        attention_maps(net, torch.zeros(2, 1, 4))
    assert not layer._forward_hooks
