"""Networks for 28x28 digits: the tiny DCGAN of many tutorials, and the networks of the SAN paper's digits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from equipoise.core.types import ImageSpec, component
from equipoise.nn import Discriminator, OneHot, init_normal, labels

from .base import DiscriminatorConfig, GeneratorConfig, Pair
from .head import Head, HeadFactory

__all__ = [
    "SANDigitsDiscriminator",
    "SANDigitsGenerator",
    "TinyDigitsDiscriminator",
    "TinyDigitsGenerator",
]


def require_28(spec: ImageSpec, name: str) -> None:
    if spec.shape != (28, 28):
        raise ValueError(
            f"{name} makes 28x28 images and this data has {spec.size}. "
            "Resize the data (data.resolution=28, or `equipoise data prepare SOURCE OUT --resolution 28`) "
            "or choose another architecture."
        )


# ---- the tiny networks -----------------------------------------------------------------------------------


@component
class TinyDigitsGenerator(GeneratorConfig):
    """Transposed convolutions z -> 256 -> 128 -> 64 -> C with batch norm and ReLU, tanh at the end; 28x28.

    Radford et al. 2016 at the size of digits. Conditional: the class, one-hot, is appended to z.

    width: channels of the last hidden map; the first has four times as many.
    """

    z_dim: int = Field(default=64, ge=1)
    width: int = Field(default=64, ge=1)

    def build(self, spec: ImageSpec) -> nn.Module:
        require_28(spec, type(self).__name__)
        return TinyGenerator(self, spec)


class TinyGenerator(nn.Module):
    def __init__(self, cfg: TinyDigitsGenerator, spec: ImageSpec):
        super().__init__()
        self.onehot = OneHot(spec.num_classes) if spec.num_classes else None

        def up(c_in: int, c_out: int, kernel: int, stride: int) -> list[nn.Module]:
            return [nn.ConvTranspose2d(c_in, c_out, kernel, stride), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]

        self.layers = nn.Sequential(
            *up(cfg.z_dim + spec.num_classes, 4 * cfg.width, 3, 2),  # 3x3
            *up(4 * cfg.width, 2 * cfg.width, 4, 1),  # 6x6
            *up(2 * cfg.width, cfg.width, 3, 2),  # 13x13
            nn.ConvTranspose2d(cfg.width, spec.channels, 4, 2),  # 28x28
            nn.Tanh(),
        )
        init_normal(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if self.onehot is not None:
            z = torch.cat([z, self.onehot(labels(y))], dim=1)
        x: Tensor = self.layers(z[:, :, None, None])
        return x


@component
class TinyDigitsDiscriminator(DiscriminatorConfig):
    """Convolutions C -> 16 -> 32, each k4 s2 with LeakyReLU 0.2, then the head as a last k4 s2 convolution; 28x28.

    The head reads the last convolution's windows, (N, 32·4·4, positions), so it may be plain, conditional or SAN.
    batch_norm: on all layers but the first and the last (DCGAN's rule).
    width: channels of the first convolution; the second has twice as many.
    """

    width: int = Field(default=16, ge=1)
    batch_norm: bool = False

    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        require_28(spec, type(self).__name__)
        body = nn.Sequential(
            nn.Conv2d(spec.channels, self.width, 4, stride=2, bias=True),  # 13x13
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(self.width, 2 * self.width, 4, stride=2),  # 5x5
            *([nn.BatchNorm2d(2 * self.width)] if self.batch_norm else []),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Unfold(kernel_size=4, stride=2),  # (N, 2·width·16, 1)
        )
        init_normal(body)
        return Discriminator(body, head(2 * self.width * 16, positions=16))


# ---- the networks of SAN's digits ------------------------------------------------------------------------


@component
class SANDigitsGenerator(GeneratorConfig):
    """Linear z -> 4w·3·3, then transposed convolutions 4w -> 2w -> w -> C with batch norm and SiLU, tanh; 28x28.

    The generator of the SAN paper's MNIST experiment (Takida et al. 2024); here the output is in [-1, 1].
    Conditional: a learned class embedding of length z_dim is appended to z. PyTorch's initialisation, as published.
    width: w.
    """

    z_dim: int = Field(default=100, ge=1)
    width: int = Field(default=128, ge=1)

    def build(self, spec: ImageSpec) -> nn.Module:
        require_28(spec, type(self).__name__)
        return SANGenerator(self, spec)


class SANGenerator(nn.Module):
    def __init__(self, cfg: SANDigitsGenerator, spec: ImageSpec):
        super().__init__()
        w = cfg.width
        self.embed = nn.Embedding(spec.num_classes, cfg.z_dim) if spec.num_classes else None
        self.linear = nn.Linear(cfg.z_dim * (2 if spec.num_classes else 1), 4 * w * 3 * 3)
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(4 * w, 2 * w, 4, stride=2, padding=1),  # 6x6
            nn.BatchNorm2d(2 * w),
            nn.SiLU(inplace=True),
            nn.ConvTranspose2d(2 * w, w, 4, stride=2, padding=1),  # 12x12
            nn.BatchNorm2d(w),
            nn.SiLU(inplace=True),
            nn.ConvTranspose2d(w, spec.channels, 6, stride=2),  # 28x28
            nn.Tanh(),
        )

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            z = torch.cat([z, self.embed(labels(y))], dim=1)
        h = F.leaky_relu(self.linear(z)).unflatten(1, (-1, 3, 3))  # (N, 4w, 3, 3)
        x: Tensor = self.layers(h)
        return x


@component
class SANDigitsDiscriminator(DiscriminatorConfig):
    """Convolutions C -> w (k6 s2) -> 2w -> 4w (k4 s2 p1) with LeakyReLU 0.2, then the head on 4w·3·3; 28x28.

    The discriminator of the SAN paper's MNIST experiment (Takida et al. 2024). The paper spectrally normalises all
    convolutions but the first: d_normalizer=SpectralNorm(skip=("body.0",)).

    width: w.
    """

    width: int = Field(default=128, ge=1)

    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        require_28(spec, type(self).__name__)
        w = self.width
        body = nn.Sequential(
            nn.Conv2d(spec.channels, w, 6, stride=2),  # 12x12
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(w, 2 * w, 4, stride=2, padding=1),  # 6x6
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(2 * w, 4 * w, 4, stride=2, padding=1),  # 3x3
            nn.LeakyReLU(0.2, inplace=True),
            nn.Flatten(),
        )
        return Discriminator(body, head(4 * w * 3 * 3, positions=3 * 3))


PUBLISHED = {
    "sngan_digits": Pair("Miyato et al. 2018", ImageSpec(28, 1), TinyDigitsGenerator(), TinyDigitsDiscriminator()),
    "san_digits": Pair(
        "Takida et al. 2024", ImageSpec(28, 1), SANDigitsGenerator(), SANDigitsDiscriminator(), Head(san=True)
    ),
}
