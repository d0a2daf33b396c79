"""The bundled judge of digits as a feature network."""

from __future__ import annotations

import hashlib
from importlib.resources import files

import torch
from torch import Tensor
from torch.nn import functional as F

from equipoise import metrics
from equipoise.data import to_float
from equipoise.metrics import DigitsJudge, digits_judge
from equipoise.metrics.judge import WEIGHTS

from .base import FeatureNet

__all__ = ["DigitsFeatures"]


class DigitsFeatures(FeatureNet):
    """The network "digits": 64 features and ten class probabilities of `metrics.digits_judge`, for images of digits.

    Colour becomes grey (ITU-R 601), and other sizes become 28x28 (bilinear, antialiased). Grey 28x28 images enter
    unchanged, so their numbers equal `metrics.judge_features` and `metrics.class_probabilities`.
    """

    net: DigitsJudge

    def __init__(self, *, device: torch.device | str = "cpu", batch_size: int = 500):
        sha256 = hashlib.sha256((files(metrics) / WEIGHTS).read_bytes()).hexdigest()
        super().__init__("digits", sha256, digits_judge(), device, batch_size)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[1] == 3:
            luma = torch.tensor([0.299, 0.587, 0.114], device=x.device)[:, None, None]
            grey = (x * luma).sum(1, keepdim=True)
            x = grey if x.is_floating_point() else grey.round()  # equal channels give exactly that byte
        if x.shape[2:] != (28, 28):
            x = F.interpolate(x.float(), (28, 28), mode="bilinear", antialias=True, align_corners=False)
        features = self.net.features(to_float(x))  # (n, 1, 28, 28) -> (n, 64)
        return features, self.net.head(features)
