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
    """The nonlinearity after a layer (Gulrajani et al. 2017, table 1 and sec. 5.2).

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
    """softplus(2h + 2) / 2 - 1: an ELU with continuous derivatives of every order (Gulrajani et al. 2017, app. D).

    Close to h above 1, and to -1 far below 0. A gradient penalty also trains the second derivative, and an ELU's
    second derivative jumps.
    """

    def forward(self, h: Tensor) -> Tensor:
        return F.softplus(2 * h + 2) / 2 - 1


class Gate(nn.Module):
    """sigmoid(a) tanh(b), a the first and b the second half of the features (van den Oord et al. 2016, eq. 2).

    h (N, 2F, ...) -> (N, F, ...).
    """

    def forward(self, h: Tensor) -> Tensor:
        a, b = h.chunk(2, dim=1)
        return torch.sigmoid(a) * torch.tanh(b)
