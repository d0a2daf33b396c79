"""What tests of architectures ask of a network, and do to its weights."""

from __future__ import annotations

import inspect
from dataclasses import fields as fields_of
from dataclasses import replace

import torch
from torch import nn

from equipoise.models import conditioning
from equipoise.models.zoo import ZOO
from equipoise.nn import SelfAttention

CONDITIONINGS = [
    c
    for c in vars(conditioning).values()
    if isinstance(c, type) and issubclass(c, conditioning.Conditioning) and not inspect.isabstract(c)
]
"""Every conditioning, in the order of their definition."""


def shrunk(config, **fields):
    """`config` with these fields, of those that it has."""
    known = {field.name for field in fields_of(config)}
    return replace(config, **{name: value for name, value in fields.items() if name in known})


def published_with(field):
    """By the name of its generator, a published pair of each two architectures that have this field."""
    pairs = {}
    for pair in ZOO.values():
        networks = (pair.generator, pair.discriminator)
        if all(hasattr(network, field) for network in networks):
            pairs.setdefault(type(pair.generator).__name__, networks)
    return pairs


STYLED = {"w_dim": 16, "mapping_layers": 2, "layers": 6, "magnitude_ema_beta": 0.0, "output_scale": 1.0}
"""Small mapping networks; few layers, whose inputs have size 1 from the first update on."""


def narrow_fields(component, width):
    """What gives an architecture few layers of `width` channels. Style-based ones have them up to maps of 32 pixels."""
    known = {field.name for field in fields_of(component)}
    if "width" in known:
        return {"width": width} | ({"blocks": 1} if "blocks" in known else {})
    fields = STYLED | {"channel_base": 32 * width, "channel_max": width, "group_channels": 0}
    return {name: value for name, value in fields.items() if name in known}


def of_g(spec, conditional):
    """The data as a generator sees it that reads the class, or does not."""
    return spec if conditional else replace(spec, num_classes=0)


def count(net):
    return sum(p.numel() for p in net.parameters())


def copy_in_order(source, target):
    """Parameters of one network into another with the same layers in the same order."""
    with torch.no_grad():
        for a, b in zip(source.parameters(), target.parameters(), strict=True):
            b.copy_(a.view_as(b))
    return target


def spread(net, ndim=3):
    """Weights of so many dimensions or more at the scale of one, so that no layer's part is too small to see."""
    with torch.no_grad():
        for p in net.parameters():
            if p.ndim >= ndim:
                p.mul_(0.2 / 0.02)
    return net


def open_gates(net):
    """Attention that does something: gamma starts at 0."""
    for module in net.modules():
        if isinstance(module, SelfAttention):
            nn.init.constant_(module.gamma, 0.5)
    return net


def assert_trained(*nets, least=0.0):
    """Every weight has a gradient."""
    for net in nets:
        for name, p in net.named_parameters():
            assert p.grad.isfinite().all(), name
            assert p.grad.abs().sum() > least, name


def assert_each_moves_its_class(G, tables):
    """Each table alone: another gain or bias of class 2 changes the images of class 2 and no others. z of 6 numbers."""
    z, y = torch.randn(4, 6), torch.tensor([0, 1, 2, 3])
    before = G(z, y)
    for name, table in tables.items():
        with torch.no_grad():
            table[2] += 0.5
            changed = (G(z, y) - before).abs().amax((1, 2, 3)) > 1e-5
            table[2] -= 0.5
        assert changed.tolist() == [False, False, True, False], name
