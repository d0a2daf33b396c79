"""A step seen from outside: small players, what their optimisers step with, and what autograd says they should."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from tiny import recipe
from torch.testing import assert_close

from equipoise.config import TrainConfig, override
from equipoise.core.types import Batch, ImageSpec
from equipoise.losses import NonSaturating
from equipoise.models import Head, MLPDiscriminator, MLPGenerator
from equipoise.train import GAN
from equipoise.weights import NoNormalizer

SPEC = ImageSpec(resolution=28, channels=1, num_classes=10)


def small(**changes) -> TrainConfig:
    """Networks of a few units, smooth but for the ReLU."""
    networks = {
        "generator": MLPGenerator(z_dim=4, width=6, depth=2),
        "discriminator": MLPDiscriminator(width=6, depth=2),
        "head": Head(),
        "d_normalizer": NoNormalizer(),
        "loss": NonSaturating(),
        "total_kimg": 0.128,
    }
    return override(recipe(), networks | changes)


def build(cfg, pixels=28):
    """With weights large enough that every term's gradient is far from 0."""
    gan = GAN.build(cfg, replace(SPEC, resolution=pixels))
    with torch.no_grad():
        for name, p in (*gan.D.named_parameters(), *gan.G.named_parameters()):
            p.mul_(2 if name.endswith("weight") else 1)
    gan.remember()
    return gan


def batch(n=8, pixels=28):
    return Batch(torch.rand(n, 1, pixels, pixels) * 2 - 1, torch.arange(n) % 10)


class Watch:
    """What the steps of `gan` see: the noise that G is given, and the gradients with which an optimiser steps."""

    def __init__(self, gan):
        self.z, self.gradients = [], []
        gan.G.register_forward_pre_hook(lambda module, args: self.z.append(args[0].clone()))
        for optimizer in (gan.d_optim, gan.g_optim):
            optimizer.register_step_pre_hook(lambda *_: self.gradients.append(self.look(gan)))

    @staticmethod
    def look(gan):
        nets = {"D": gan.D, "G": gan.G}
        return {
            player: {n: None if p.grad is None else p.grad.double() for n, p in net.named_parameters()}
            for player, net in nets.items()
        }


class Reference:
    """The players in float64 as functions of their parameters, whose gradients autograd takes of a total in one piece.

    Made before a step, because the step moves them.
    """

    def __init__(self, gan):
        self.nets = {"D": copy.deepcopy(gan.D).double(), "G": copy.deepcopy(gan.G).double()}
        self.weights = {
            player: {n: p.detach().clone().requires_grad_(True) for n, p in net.named_parameters()}
            for player, net in self.nets.items()
        }

    def logits(self, x, y=None):
        return torch.func.functional_call(self.nets["D"], self.weights["D"], (x.double(), y))

    def images(self, z, y=None):
        return torch.func.functional_call(self.nets["G"], self.weights["G"], (z.double(), y))

    def vectors(self, player, total, **options):
        return torch.autograd.grad(total, list(self.weights[player].values()), **options)

    def gradient(self, player, total):
        """By name, zeros where `total` does not depend on it."""
        found = self.vectors(player, total, allow_unused=True, materialize_grads=True)
        return dict(zip(self.weights[player], found, strict=True))

    def matrices(self, player):
        """The weights of the linear layers, which is all of them."""
        return [w for n, w in self.weights[player].items() if n.endswith("weight")]


def assert_gradients(found, wanted, mover):
    """`mover`'s are those wanted, and the other player has none."""
    for n, gradient in wanted.items():
        assert_close(found[mover][n], gradient, rtol=2e-4, atol=1e-5 * max(1.0, gradient.abs().max().item()))
    assert any(gradient.abs().max() > 1e-4 for gradient in wanted.values())
    other = "G" if mover == "D" else "D"
    assert all(gradient is None for gradient in found[other].values())


def games(reference, loss, real, z):
    """Both losses as functions of both networks."""
    fake = reference.images(z)
    on_real, on_fake = reference.logits(real.x), reference.logits(fake)
    return loss.d(on_real.fun, on_fake.fun).mean(), loss.g(on_fake.fun, on_real.fun).mean()


def cross_entropy(classes, y):
    """-log p(y | x), image by image."""
    return -torch.stack([scores.softmax(0)[label].log() for scores, label in zip(classes, y, strict=True)]).mean()
