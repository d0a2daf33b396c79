"""Nonlinearities by name, for architectures that let one choose."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Gate", "Nonlinearity", "SmoothELU", "nonlinearity"]

Nonlinearity = Literal["relu", "leaky_relu", "softplus", "tanh", "gated"]
"""See `nonlinearity`."""


def nonlinearity(kind: Nonlinearity) -> nn.Module:
    """What follows a layer (Gulrajani et al. 2017, table 1 and sec. 5.2).

    kind: "relu"; "leaky_relu", of slope 0.2; "softplus", `SmoothELU`; "tanh"; "gated", `Gate`, which halves the
        features.

    Raises:
        ValueError: for an unknown kind.
    """
    match kind:
        case "relu":
            return nn.ReLU()
        case "leaky_relu":
            return nn.LeakyReLU(0.2)
        case "softplus":
            return SmoothELU()
        case "tanh":
            return nn.Tanh()
        case "gated":
            return Gate()
    raise ValueError(f"unknown nonlinearity {kind!r}; known: {', '.join(get_args(Nonlinearity))}")


class SmoothELU(nn.Module):
    """softplus(2h + 2) / 2 - 1, an ELU all of whose derivatives are continuous (Gulrajani et al. 2017, app. D).

    About h above 1, and -1 far below 0. With a gradient penalty the second derivative is trained too, which an ELU
    has no continuous one of.
    """

    def forward(self, h: Tensor) -> Tensor:
        return F.softplus(2 * h + 2) / 2 - 1


class Gate(nn.Module):
    """sigmoid(a) tanh(b) of two halves of the features, a the first and b the second (van den Oord et al. 2016, eq. 2).

    h (N, 2F, ...) -> (N, F, ...).
    """

    def forward(self, h: Tensor) -> Tensor:
        a, b = h.chunk(2, dim=1)
        return torch.sigmoid(a) * torch.tanh(b)
