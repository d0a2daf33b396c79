"""Fourier features: a map of sines that can be moved and turned, the input of StyleGAN3's synthesis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.compute.precision import without_autocast

__all__ = ["FourierInput", "user_transform"]


class FourierInput(nn.Module):
    """w (N, w_dim) -> (N, C, size, size): A · sin(2π (freqs · position + phases)).

    Karras et al. 2021, sec. 3.
    The C frequencies are drawn once, evenly in the disc of radius `bandwidth`, and the phases evenly; both are buffers.
    Positions are in image widths, and 0 in the middle. A is a learned C x C matrix, its learning rate equalised.

    Each w moves and turns the map: four numbers (r_c, r_s, t_x, t_y) = affine(w), at first (1, 0, 0, 0) for all, give a
    turn by the angle of (r_c, r_s) and a translation by -(t_x, t_y). `transform` does so for all images, before w does.
    A turn can raise no frequency, but a `transform` that shrinks the image can: a frequency above the bandwidth fades
    out up to half the sampling rate, where it would alias.

    channels: C.
    size: of the map, in samples.
    sampling_rate: samples per image width.
    bandwidth: cycles per image width.
    """

    freqs: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, w_dim: int, channels: int, size: int, sampling_rate: float, bandwidth: float):
        super().__init__()
        self.size, self.sampling_rate, self.bandwidth = size, sampling_rate, bandwidth
        self.gain = 1 / math.sqrt(channels)
        freqs = torch.randn(channels, 2)
        radii = freqs.square().sum(1, keepdim=True).sqrt()
        # exp(-r² / 2) of a normal pair is uniform in [0, 1], and its root is the radius of an even draw from the disc.
        freqs = bandwidth * freqs / radii * (-radii.square() / 4).exp()
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine = Affine(w_dim)
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", freqs)
        self.register_buffer("phases", torch.rand(channels) - 0.5)

    def forward(self, w: Tensor) -> Tensor:
        with without_autocast(w):
            motion = self.motion(w)  # (N, 3, 3)
            phases = self.phases + (self.freqs @ motion[:, :2, 2:]).squeeze(2)  # (N, C)
            freqs = self.freqs @ motion[:, :2, :2]  # (N, C, 2)
            most = self.sampling_rate / 2
            amplitudes = (most - freqs.norm(dim=2)) / (most - self.bandwidth)
            steps = torch.arange(self.size, device=w.device, dtype=freqs.dtype)
            at = (steps - (self.size - 1) / 2) / self.sampling_rate
            along_x, along_y = freqs[:, None, :, 0] * at[:, None], freqs[:, None, :, 1] * at[:, None]  # (N, size, C)
            turns = along_x[:, None] + along_y[:, :, None] + phases[:, None, None]  # (N, y, x, C)
            waves = (2 * math.pi * turns).sin() * amplitudes.clamp(0, 1)[:, None, None]
            mixed: Tensor = waves @ (self.weight * self.gain).T
        return mixed.permute(0, 3, 1, 2).contiguous()

    def motion(self, w: Tensor) -> Tensor:
        """The matrix that takes positions in the image to those in the waves, (N, 3, 3)."""
        t = self.affine(w)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        cos, sin, x, y = t.unbind(1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        turn = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], 1).unflatten(1, (3, 3))
        move = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], 1).unflatten(1, (3, 3))
        motion: Tensor = turn @ move @ self.transform
        return motion


class Affine(nn.Module):
    """w (N, w_dim) -> (r_c, r_s, t_x, t_y), (N, 4): a layer whose learning rate is equalised, at first (1, 0, 0, 0).

    Not an `nn.Linear`: a normaliser would divide its weight, which starts at 0, by its size.
    """

    def __init__(self, w_dim: int):
        super().__init__()
        self.gain = 1 / math.sqrt(w_dim)
        self.weight = nn.Parameter(torch.zeros(4, w_dim))
        self.bias = nn.Parameter(torch.tensor([1.0, 0.0, 0.0, 0.0]))

    def forward(self, w: Tensor) -> Tensor:
        return F.linear(w, self.weight * self.gain, self.bias)


def user_transform(translate: Sequence[float] = (0.0, 0.0), angle: float = 0.0) -> Tensor:
    """A value for `FourierInput.transform` that turns, then moves the images of a StyleGAN3 generator. (3, 3).

    The inverse of [[cos, sin, x], [-sin, cos, y], [0, 0, 1]]: the network asks for each position of the image where it
    lay before.

    translate: (x, y) in image widths, to the right and down.
    angle: in radians, counter-clockwise.

    Example:
        >>> G.synthesis.input.transform.copy_(user_transform((0.1, 0.0), angle=math.pi / 6))  # doctest: +SKIP
    """
    x, y = translate
    cos, sin = math.cos(angle), math.sin(angle)
    forward = torch.tensor([[cos, sin, x], [-sin, cos, y], [0.0, 0.0, 1.0]], dtype=torch.float64)
    inverse: Tensor = torch.linalg.inv(forward)
    return inverse.to(torch.float32)
