"""The interface of a feature network: uint8 images in, float64 features out, with a name and a hash to report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from equipoise.compute.devices import wide
from equipoise.compute.precision import float32_products

__all__ = ["Activations", "FeatureNet"]


class Activations(NamedTuple):
    """A network's outputs for n images.

    features: (n, F), for Fréchet and kernel distances, precision and recall.
    probabilities: (n, K), rows sum to 1, for the Inception score; None if the network is not a classifier.
    """

    features: NDArray[np.float64]
    probabilities: NDArray[np.float64] | None


class FeatureNet(ABC):
    """A frozen network on a device, called on uint8 images. It resizes and scales them itself.

    name: the name that it was requested by. Distances compare only within one name and hash.
    sha256: hash of its weights, in hex.
    batch_size: images in one forward. It bounds the memory, and does not change the result beyond rounding.
    """

    name: str
    sha256: str
    batch_size: int

    def __init__(self, name: str, sha256: str, net: nn.Module, device: torch.device | str, batch_size: int):
        self.name, self.sha256, self.batch_size = name, sha256, batch_size
        self.device = torch.device(device)
        self.net = net.to(self.device).eval().requires_grad_(False)

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images (n, C, H, W) with C = 1 or 3 -> features (n, F), and logits (n, K) or None.

        The images are bytes, or floats of the same range that are not rounded.
        """

    def __call__(self, images: NDArray[np.uint8]) -> Activations:
        """Activations for images, uint8 (n, H, W, C) of any size, C = 1 (grey) or 3 (colour), in their order.

        Raises:
            ValueError: if the images are not such an array, there are none, or the network returns NaN or Inf.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
            raise ValueError(
                "expected at least one image, as uint8 (n, H, W, C) with values 0 to 255 and C = 1 or 3, "
                f"got {images.dtype} of shape {images.shape}"
            )
        parts = []
        with exact_float32():
            for start in range(0, len(images), self.batch_size):
                x = torch.from_numpy(images[start : start + self.batch_size].transpose(0, 3, 1, 2).copy())
                features, logits = self.forward(x.to(self.device))  # x: (n, C, H, W)
                parts.append((features.cpu().double(), None if logits is None else logits.cpu().double()))
        features = torch.cat([part for part, _ in parts])
        self.check_finite(features, "features")
        if parts[0][1] is None:
            return Activations(features.numpy(), None)
        logits = torch.cat([part for _, part in parts if part is not None])
        self.check_finite(logits, "logits")
        return Activations(features.numpy(), logits.softmax(1).numpy())

    def of_floats(self, x: Tensor) -> Tensor:
        """Features (n, F), `wide`, of images (n, C, H, W) in [-1, 1], which are not rounded to bytes.

        Raises:
            ValueError: if the network returns NaN or Inf.
        """
        with exact_float32():
            batches = ((x + 1) * 127.5).to(self.device).split(self.batch_size)
            parts = [wide(self.forward(batch)[0]) for batch in batches]
        features = torch.cat(parts)
        self.check_finite(features, "features")
        return features

    def check_finite(self, values: Tensor, what: str) -> None:
        bad = (~values.isfinite()).any(1)
        if bad.any():
            raise ValueError(
                f"{self.name}: the {what} of {int(bad.sum())} of {len(values)} images hold NaN or Inf, the first is "
                f"image {int(bad.int().argmax())}. Images are bytes and cannot cause it: check the network's weights"
            )


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute reproducible float32 features in the block: without gradients, TF32, or cuDNN's choice by speed.

    TF32 has 10 bits of mantissa, which would show in the third digit of a feature. cuDNN uses it for convolutions by
    default. cuDNN may also choose another algorithm for another batch size.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    with torch.no_grad(), float32_products("ieee"):
        try:
            cudnn.benchmark, cudnn.deterministic = False, True
            yield
        finally:
            cudnn.benchmark, cudnn.deterministic = before
