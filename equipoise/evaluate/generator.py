"""A trained generator as metrics ask it."""

from __future__ import annotations

import copy
import dataclasses

from torch import Tensor, nn

from equipoise.compute.devices import WITHOUT_FLOAT64
from equipoise.core.types import ImageSpec
from equipoise.generate import Generator, draw_latents
from equipoise.generate.generator import sample_classes

__all__ = ["TrainedGenerator"]


@dataclasses.dataclass(frozen=True)
class TrainedGenerator:
    """The interface `metrics.base.AskedGenerator` of a generator."""

    generator: Generator

    @property
    def settings(self) -> str:
        return repr(self.generator.config)

    @property
    def spec(self) -> ImageSpec:
        return self.generator.spec

    @property
    def styled(self) -> bool:
        return self.generator.config.styled

    @property
    def path(self) -> str:
        return self.generator.config.prior.path

    def network(self) -> nn.Module:
        net = copy.deepcopy(self.generator.net).eval().requires_grad_(False)
        lacking = next(net.parameters()).device.type in WITHOUT_FLOAT64  # the metrics move images by float64 places
        return net.cpu() if lacking else net

    def latents(self, num: int, seed: int) -> tuple[Tensor, Tensor | None]:
        return draw_latents(self.generator, num, seed=seed), sample_classes(self.generator, num, None)
