"""Small generators with a space of styles, whose numbers are known, and generators as metrics ask them."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn

from equipoise.core.types import ImageSpec, component
from equipoise.evaluate.generator import TrainedGenerator
from equipoise.generate import Generator
from equipoise.models import GeneratorConfig

SPEC = ImageSpec(16, 1)


class Mapping(nn.Module):
    """w = A z + the class's row of B, for every layer; w_avg is not 0."""

    def __init__(self, z_dim, w_dim, num_ws, num_classes):
        super().__init__()
        self.num_ws = num_ws
        self.A = nn.Parameter(torch.randn(w_dim, z_dim))
        self.B = nn.Parameter(torch.randn(max(num_classes, 1), w_dim))
        self.register_buffer("w_avg", torch.randn(w_dim))

    def forward(self, z, y=None, truncation_psi=1.0, truncation_cutoff=None):
        w = z @ self.A.T
        if y is not None:
            w = w + (y @ self.B if y.is_floating_point() else self.B[y])
        ws = w[:, None].repeat(1, self.num_ws, 1)
        cut = self.num_ws if truncation_cutoff is None else truncation_cutoff
        ws[:, :cut] = self.w_avg + truncation_psi * (ws[:, :cut] - self.w_avg)
        return ws


class Linear(nn.Module):
    """x = sum over layers of a matrix times its w, plus noise of a stored image: linear in every style."""

    def __init__(self, spec, w_dim, num_ws, noise):
        super().__init__()
        self.spec, self.noise = spec, noise
        self.C = nn.Parameter(torch.randn(num_ws, spec.channels * spec.resolution**2, w_dim) / 30)
        self.register_buffer("noise_const", torch.zeros(spec.resolution, spec.resolution))

    def forward(self, ws, noise_mode="const"):
        assert noise_mode == "const"
        x = torch.einsum("lpw,nlw->np", self.C, ws).view(-1, self.spec.channels, *[self.spec.resolution] * 2)
        return x + self.noise * self.noise_const


class Input(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("transform", torch.eye(3))


class Waves(nn.Module):
    """A sum of waves of the styles' amplitudes, 1 to 3 across the image, seen through the input's transform."""

    def __init__(self, spec, w_dim, num_ws, noise):
        super().__init__()
        self.spec, self.noise, self.input = spec, noise, Input()
        angle = torch.arange(w_dim) * 2.4
        self.freqs = torch.stack([angle.cos(), angle.sin()], 1) * (1 + 2 * torch.rand(w_dim, 1))
        self.register_buffer("noise_const", torch.zeros(spec.resolution, spec.resolution))

    def forward(self, ws, noise_mode="const"):
        assert noise_mode == "const"
        size = self.spec.resolution
        i = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) / size
        places = torch.stack([i.expand(size, -1), i[:, None].expand(-1, size), torch.ones(size, size).double()], -1)
        places = (places @ self.input.transform.double().T)[..., :2]
        waves = torch.sin(2 * math.pi * (places @ self.freqs.double().T) + torch.arange(len(self.freqs)))
        x = torch.einsum("hwk,nk->nhw", waves, ws.mean(1).double())[:, None].float() / 10
        return x.expand(-1, self.spec.channels, -1, -1) + self.noise * self.noise_const


class Network(nn.Module):
    def __init__(self, mapping, synthesis, num_ws):
        super().__init__()
        self.mapping, self.synthesis, self.num_ws = mapping, synthesis, num_ws

    def forward(self, z, y=None):
        return self.synthesis(self.mapping(z, y), noise_mode="const")


@component
class Styled(GeneratorConfig):
    """noise: strength of the stored noise image."""

    styled: ClassVar[bool] = True
    synthesis: ClassVar[type[nn.Module]] = Linear

    w_dim: int = 5
    num_ws: int = 4
    noise: float = 0.0

    def build(self, spec):
        synthesis = self.synthesis(spec, self.w_dim, self.num_ws, self.noise)
        return Network(Mapping(self.z_dim, self.w_dim, self.num_ws, spec.num_classes), synthesis, self.num_ws)


@component
class Translated(Styled):
    """With a transform of its input."""

    synthesis: ClassVar[type[nn.Module]] = Waves


def build(config, spec=SPEC, seed=0):
    torch.manual_seed(seed)
    return Generator(config.build(spec).eval().requires_grad_(False), config, spec)


def asked(config, spec=SPEC, seed=0):
    return TrainedGenerator(build(config, spec, seed))
