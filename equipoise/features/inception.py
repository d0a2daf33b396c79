"""The network of the FID and of the Inception score: Inception v3 as TensorFlow published it on 5 December 2015.

It is the network of Szegedy et al. 2016 ("Rethinking the Inception Architecture") with one difference: the last block
takes maxima where the others average. Heusel et al. 2017 defined the FID on it. Distances from any other Inception v3
do not compare with theirs. Weights have the same names as in the file that pytorch-fid published.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from equipoise.data.base import PathLike

from .base import FeatureNet
from .resize import tf1_bilinear
from .weights import WeightFile, built

__all__ = ["InceptionFeatures", "InceptionV3"]

FILE = "pt_inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}"
OTHER = "weights-inception-2015-12-05-6726825d.pth"  # torch-fidelity's copy: another name, the same bytes
WEIGHTS = WeightFile(
    title="the FID Inception network",
    names=(FILE, OTHER),
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    urls=(URL, f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{OTHER}"),
    advice=f"Download {URL} (96 MB)",
)


class InceptionFeatures(FeatureNet):
    """The network "inception": 2,048 features from the last pooling, and probabilities of 1,008 classes.

    weights: the published file, a directory that holds it, or a URL. None looks in the cache, then where pytorch-fid
        and torch-fidelity leave it (torch.hub), and downloads 96 MB.

    Images are resized to 299x299 by `tf1_bilinear`. Grey images are repeated to three channels. Pixels are scaled
    (x - 128) / 128. Probabilities are the softmax of the last layer without its bias, as in the Inception score's own
    code. The layer has 1,008 outputs; 1,000 of them are classes of ImageNet.

    Raises:
        ValueError: if the weights are missing or wrong.
    """

    def __init__(self, *, weights: PathLike | None = None, device: torch.device | str = "cpu", batch_size: int = 32):
        state = WEIGHTS.read(weights, folders=[Path(torch.hub.get_dir()) / "checkpoints"])
        super().__init__("inception", WEIGHTS.sha256, built(InceptionV3, state), device, batch_size)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = (tf1_bilinear(x, 299) - 128) / 128
        features, logits = self.net(x.expand(-1, 3, -1, -1))  # (n, 1 or 3, 299, 299) -> (n, 3, 299, 299)
        return features, logits


class Layer(NamedTuple):
    """A convolution.

    name: its name in the weight file.
    kernel: side, or (height, width).
    stride: 1, or 2 without padding.
    """

    name: str
    outputs: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1


Branch = Sequence[Layer | tuple[Layer, Layer]]
"""Layers in sequence. A pair at the end runs in parallel on the same input."""

TALL, WIDE = (7, 1), (1, 7)


def average_pool(x: Tensor) -> Tensor:
    """Average over 3x3 existing pixels: at a border TensorFlow divides by their number, not by 9."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def maximum_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


class InceptionV3(nn.Module):
    """x (N, 3, 299, 299), (bytes - 128) / 128 -> features (N, 2048), logits without bias (N, 1008).

    Other sizes from 75 pixels up work too, but the network was not trained on them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvBN(3, 32, 3, stride=2, padded=False)
        self.Conv2d_2a_3x3 = ConvBN(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = ConvBN(32, 64, 3)
        self.Conv2d_3b_1x1 = ConvBN(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvBN(80, 192, 3, padded=False)
        self.Mixed_5b = block_a(192, pooled=32)
        self.Mixed_5c = block_a(256, pooled=64)
        self.Mixed_5d = block_a(288, pooled=64)
        self.Mixed_6a = block_b(288)
        self.Mixed_6b = block_c(768, inner=128)
        self.Mixed_6c = block_c(768, inner=160)
        self.Mixed_6d = block_c(768, inner=160)
        self.Mixed_6e = block_c(768, inner=192)
        self.Mixed_7a = block_d(768)
        self.Mixed_7b = block_e(1280, average_pool)
        self.Mixed_7c = block_e(2048, maximum_pool)
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # (N, 64, 147, 147)
        x = F.max_pool2d(x, 3, stride=2)  # (N, 64, 73, 73)
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, stride=2)  # (N, 192, 35, 35)
        for block in (self.Mixed_5b, self.Mixed_5c, self.Mixed_5d, self.Mixed_6a):
            x = block(x)  # (N, 256 then 288, 35, 35), then (N, 768, 17, 17)
        for block in (self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e, self.Mixed_7a):
            x = block(x)  # (N, 768, 17, 17), then (N, 1280, 8, 8)
        features = self.Mixed_7c(self.Mixed_7b(x)).mean((2, 3))  # (N, 2048, 8, 8) -> (N, 2048)
        return features, features @ self.fc.weight.T


class ConvBN(nn.Module):
    """Convolution without bias, batch norm, ReLU. padded: keep the size (at stride 1)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int], *, stride: int = 1, padded: bool = True
    ):
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if padded else 0
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Parallel branches, channels concatenated: (N, inputs, H, W) -> (N, sum of outputs, H', W').

    pool: pooling in the last branch, followed by a 1x1 convolution to `pooled` channels unless `pooled` is None.
    """

    def __init__(
        self, inputs: int, branches: Sequence[Branch], pool: Callable[[Tensor], Tensor], pooled: int | None = None
    ):
        super().__init__()
        self.branches, self.pool, self.pooled = branches, pool, pooled
        for branch in branches:
            channels = inputs
            for step in branch:
                for name, outputs, kernel, stride in [step] if isinstance(step, Layer) else step:
                    self.add_module(name, ConvBN(channels, outputs, kernel, stride=stride, padded=stride == 1))
                channels = outputs
        if pooled is not None:
            self.branch_pool = ConvBN(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = []
        for branch in self.branches:
            h = x
            for step in branch:
                names = [step.name] if isinstance(step, Layer) else [layer.name for layer in step]
                h = torch.cat([self.get_submodule(name)(h) for name in names], 1)
            out.append(h)
        h = self.pool(x)
        return torch.cat([*out, h if self.pooled is None else self.branch_pool(h)], 1)


def block_a(inputs: int, *, pooled: int) -> Mixed:
    """Block with 5x5 and doubled 3x3 convolutions -> 224 + pooled channels."""
    fives = [Layer("branch5x5_1", 48), Layer("branch5x5_2", 64, 5)]
    threes = [Layer("branch3x3dbl_1", 64), Layer("branch3x3dbl_2", 96, 3), Layer("branch3x3dbl_3", 96, 3)]
    return Mixed(inputs, [[Layer("branch1x1", 64)], fives, threes], average_pool, pooled)


def block_b(inputs: int) -> Mixed:
    """Block that halves the size -> inputs + 480 channels."""
    threes = [Layer("branch3x3dbl_1", 64), Layer("branch3x3dbl_2", 96, 3), Layer("branch3x3dbl_3", 96, 3, stride=2)]
    return Mixed(inputs, [[Layer("branch3x3", 384, 3, stride=2)], threes], nn.MaxPool2d(3, stride=2))


def block_c(inputs: int, *, inner: int) -> Mixed:
    """Block with 7x7 convolutions as 1x7 and 7x1 -> 768 channels."""
    once = [Layer("branch7x7_1", inner), Layer("branch7x7_2", inner, WIDE), Layer("branch7x7_3", 192, TALL)]
    twice = [
        Layer("branch7x7dbl_1", inner),
        Layer("branch7x7dbl_2", inner, TALL),
        Layer("branch7x7dbl_3", inner, WIDE),
        Layer("branch7x7dbl_4", inner, TALL),
        Layer("branch7x7dbl_5", 192, WIDE),
    ]
    return Mixed(inputs, [[Layer("branch1x1", 192)], once, twice], average_pool, 192)


def block_d(inputs: int) -> Mixed:
    """Block that halves the size -> inputs + 512 channels."""
    threes = [Layer("branch3x3_1", 192), Layer("branch3x3_2", 320, 3, stride=2)]
    sevens = [
        Layer("branch7x7x3_1", 192),
        Layer("branch7x7x3_2", 192, WIDE),
        Layer("branch7x7x3_3", 192, TALL),
        Layer("branch7x7x3_4", 192, 3, stride=2),
    ]
    return Mixed(inputs, [threes, sevens], nn.MaxPool2d(3, stride=2))


def block_e(inputs: int, pool: Callable[[Tensor], Tensor]) -> Mixed:
    """Block with 3x3 convolutions as 1x3 beside 3x1 -> 2,048 channels."""

    def fork(name: str) -> tuple[Layer, Layer]:
        return Layer(f"{name}a", 384, (1, 3)), Layer(f"{name}b", 384, (3, 1))

    threes: Branch = [Layer("branch3x3_1", 384), fork("branch3x3_2")]
    double: Branch = [Layer("branch3x3dbl_1", 448), Layer("branch3x3dbl_2", 384, 3), fork("branch3x3dbl_3")]
    return Mixed(inputs, [[Layer("branch1x1", 320)], threes, double], pool, 192)
