"""The judge of digits: a small classifier that gives the probability of each digit in an image.

`scripts/train_judge.py` trained its weights on the bundled digits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from importlib.resources import files
from operator import add

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor, nn

from equipoise.data import Dataset, to_float

from .gaussian import GaussianStats

__all__ = ["DigitsJudge", "class_probabilities", "dataset_features", "digits_judge", "judge_features"]

WEIGHTS = "digits_judge.safetensors"


class DigitsJudge(nn.Module):
    """Three convolutions and a hidden layer: x (N, 1, 28, 28) float32 in [-1, 1] -> class logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *block(1, 24),  # (N, 24, 14, 14)
            *block(24, 48),  # (N, 48, 7, 7)
            *block(48, 64),  # (N, 64, 3, 3)
            nn.Flatten(),
            nn.Linear(64 * 3 * 3, 64, bias=False),
            nn.BatchNorm1d(64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, 10)

    def features(self, x: Tensor) -> Tensor:
        """Inputs of the last layer, (N, 1, 28, 28) -> (N, 64), non-negative: a space for distances between sets.

        Raises ValueError for images of another size.
        """
        if x.shape[1:] != (1, 28, 28):
            raise ValueError(f"the judge of digits sees grey 28x28 images, (N, 1, 28, 28); got {tuple(x.shape)}")
        h: Tensor = self.body(x)
        return h

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


def block(inputs: int, outputs: int) -> list[nn.Module]:
    """Layers that halve the resolution."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]


def digits_judge() -> DigitsJudge:
    """The trained judge, on the CPU, in eval mode and with frozen weights."""
    with torch.device("meta"):  # draws no initial weights from torch's global generator
        judge = DigitsJudge()
    judge.load_state_dict(load((files(__package__) / WEIGHTS).read_bytes()), assign=True)
    judge.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # pooling is five times as fast in it
    return judge.eval().requires_grad_(False)


def class_probabilities(
    classifier: nn.Module, images: NDArray[np.uint8], *, batch_size: int = 500
) -> NDArray[np.float64]:
    """softmax(classifier(images)), uint8 (N, H, W, C) as `equipoise sample` writes them -> (N, K).

    classifier: x (n, C, H, W) float32 in [-1, 1] -> logits (n, K). It runs on the device of its weights, in its current
        mode.

    Raises:
        ValueError: if the images are not uint8 (N, H, W, C), or there are none.

    >>> p = class_probabilities(digits_judge(), np.zeros((3, 28, 28, 1), np.uint8))
    >>> p.shape
    (3, 10)
    """
    return in_batches(classifier, classifier, images, batch_size).softmax(1).numpy()


def judge_features(judge: DigitsJudge, images: NDArray[np.uint8], *, batch_size: int = 500) -> NDArray[np.float64]:
    """`judge.features` of images, uint8 (N, 28, 28, 1) -> (N, 64).

    They compare sets of digits: ``frechet_distance(judge_features(judge, real), judge_features(judge, fake))``.

    Raises:
        ValueError: if the images are not uint8 (N, 28, 28, 1), or there are none.
    """
    return in_batches(judge, judge.features, images, batch_size).numpy()


def dataset_features(judge: DigitsJudge, dataset: Dataset, *, batch_size: int = 500) -> GaussianStats:
    """Mean and covariance of `judge_features` over all images of a data set, as a reference for `frechet_distance`.

    Raises:
        ValueError: if the images are not (1, 28, 28).

    >>> reference = dataset_features(digits_judge(), Digits().build())
    """
    parts = np.split(np.arange(len(dataset)), range(batch_size, len(dataset), batch_size))
    batches = (dataset.read(part).transpose(0, 2, 3, 1) for part in parts)  # (n, C, H, W) -> (n, H, W, C)
    return reduce(add, (GaussianStats(judge_features(judge, images)) for images in batches))


@torch.no_grad()
def in_batches(
    net: nn.Module, forward: Callable[[Tensor], Tensor], images: NDArray[np.uint8], batch_size: int
) -> Tensor:
    """Apply `forward`, a function of `net`, in batches: uint8 (N, H, W, C) -> (N, ...) float64, on the CPU."""
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) == 0:
        raise ValueError(
            f"expected at least one image, as uint8 (N, H, W, C) with values 0 to 255, "
            f"got {images.dtype} of shape {images.shape}"
        )
    device = next(net.parameters()).device
    out = []
    for start in range(0, len(images), batch_size):
        x = torch.from_numpy(images[start : start + batch_size].transpose(0, 3, 1, 2).copy())  # (n, C, H, W)
        out.append(forward(to_float(x.to(device))).cpu().double())
    return torch.cat(out)
