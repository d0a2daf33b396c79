"""Style-based generators: a mapping network, then a synthesis network that reads a style in each layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from .mapping import Mapping

__all__ = ["NoiseMode", "StyledGenerator"]

NoiseMode = Literal["const", "random", "none"]
"""Noise images of a synthesis network: the stored ones, new ones for each image, or none."""


class StyledGenerator(nn.Module):
    """x = synthesis(mapping(z, y)): z (N, z_dim), y (N,) or None -> x (N, C, H, W).

    In training mode styles are mixed and noise is new for each image. In eval mode every image has one style, and the
    stored noise.

    mapping: z, y -> ws (N, num_ws, w_dim).
    synthesis: ws, noise_mode=... -> x.
    mixing: probability that a batch in training mode mixes the styles of two latents: the first layers read one, the
        others a second one, with a cut drawn uniformly (Karras et al. 2019, sec. 3.1).
    in_use: number of styles, from the first, that the synthesis reads at present: the cut is among them; None: all.
    redraw: z -> the second latent, from the distribution of z. None: from N(0, 1).
    """

    def __init__(
        self,
        mapping: Mapping,
        synthesis: nn.Module,
        mixing: float = 0.0,
        in_use: Callable[[], int] | None = None,
        redraw: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__()
        self.synthesis, self.mapping = synthesis, mapping
        self.mixing, self.in_use = mixing, in_use
        self.redraw = torch.randn_like if redraw is None else redraw

    @property
    def num_ws(self) -> int:
        """Number of styles that an image is made from."""
        assert self.mapping.num_ws is not None
        return self.mapping.num_ws

    def styles(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Styles as training draws them, (N, num_ws, w_dim), mixed by chance. w_avg follows the styles of z."""
        ws: Tensor = self.mapping(z, y)
        layers = self.num_ws if self.in_use is None else self.in_use()
        if layers < 2 or torch.rand(()) >= self.mixing:
            return ws
        cut = int(torch.randint(1, layers, ()))  # drawn on the host: no device is waited for
        others = self.mapping(self.redraw(z), y, update=False)
        return torch.cat([ws[:, :cut], others[:, cut:]], dim=1)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Raises ValueError if classes are needed and there are none."""
        ws = self.styles(z, y) if self.training else self.mapping(z, y)
        x: Tensor = self.synthesis(ws, noise_mode="random" if self.training else "const")
        return x
