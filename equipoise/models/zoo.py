"""Published pairs of networks at the sizes of their papers, as `equipoise models` lists them."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from equipoise.core.types import ImageSpec

from .base import Pair
from .stylegan2 import StyleGAN2Discriminator
from .stylegan3 import StyleGAN3Generator

__all__ = ["ZOO"]


def published() -> dict[str, Pair]:
    """The pairs of `PUBLISHED` in every file beside this one, and StyleGAN3's, oldest papers first."""
    names = [module.name for module in iter_modules([str(Path(__file__).parent)]) if module.name != "zoo"]
    pairs = stylegan3(256, 16384) | stylegan3(1024, 32768)
    for name in names:
        pairs |= getattr(import_module(f"{__package__}.{name}"), "PUBLISHED", {})
    return dict(sorted(pairs.items(), key=lambda item: item[1].paper[-4:]))  # `paper` ends with the year


def stylegan3(size: int, channel_base: int) -> dict[str, Pair]:
    """T and R of Karras et al. 2021, whose D is another file's.

    channel_base: of T and of D; R has twice the channels, in 1x1 convolutions.
    """
    beta = 0.5 ** (32 / 20000)  # for batches of 32
    T = StyleGAN3Generator(channel_base=channel_base, magnitude_ema_beta=beta)
    R = replace(T, channel_base=2 * channel_base, channel_max=1024, kernel=1, radial=True)
    D = StyleGAN2Discriminator(channel_base=channel_base)
    made = {f"stylegan3_t_{size}": T, f"stylegan3_r_{size}": R}
    return {name: Pair("Karras et al. 2021", ImageSpec(size), G, D) for name, G in made.items()}


ZOO = published()
"""Published pairs by name. A name ends with the size."""
