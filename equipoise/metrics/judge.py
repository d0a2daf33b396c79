"""The judge of digits: a small classifier that says which digit an image shows, and how sure that is.

`scripts/train_judge.py` made its weights from the bundled digits.
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor, nn

from ..data import to_float

__all__ = ["DigitsJudge", "class_probabilities", "digits_judge"]

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
        """What the last layer sees, (N, 1, 28, 28) -> (N, 64), not negative: a space for distances between sets.

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
    """Halves the resolution."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]


def digits_judge() -> DigitsJudge:
    """The trained judge, on the CPU, in eval mode and with frozen weights."""
    judge = DigitsJudge()
    judge.load_state_dict(load((files(__package__) / WEIGHTS).read_bytes()))
    return judge.eval().requires_grad_(False)


@torch.no_grad()
def class_probabilities(
    classifier: nn.Module, images: NDArray[np.uint8], *, batch_size: int = 500
) -> NDArray[np.float64]:
    """softmax(classifier(images)), uint8 (N, H, W, C) as `equipoise sample` writes them -> (N, K).

    classifier: on the device of its weights, in the mode it is in; x (n, C, H, W) float32 in [-1, 1] -> logits (n, K).

    Raises:
        ValueError: if the images are not uint8 (N, H, W, C), or there are none.

    >>> p = class_probabilities(digits_judge(), np.zeros((3, 28, 28, 1), np.uint8))
    >>> p.shape
    (3, 10)
    """
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) == 0:
        raise ValueError(
            f"expected at least one image, as uint8 (N, H, W, C) with values 0 to 255, "
            f"got {images.dtype} of shape {images.shape}"
        )
    device = next(classifier.parameters()).device
    p = []
    for start in range(0, len(images), batch_size):
        x = torch.from_numpy(images[start : start + batch_size].transpose(0, 3, 1, 2).copy())  # (n, C, H, W)
        p.append(classifier(to_float(x.to(device))).cpu().double().softmax(1))
    return torch.cat(p).numpy()
