"""Metrics against torchmetrics, which computes them in another way, on the features of the same network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("torchmetrics")

from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from equipoise.data import Digits
from equipoise.features import feature_net
from equipoise.metrics import frechet_distance, inception_score, kernel_distance, mmd2

pytestmark = pytest.mark.filterwarnings("ignore:Metric `:UserWarning")  # that it keeps all features in memory
N = 400


class Judged(nn.Module):
    """A part of the answer of the digits judge, as torchmetrics wants a network: (N, C, H, W) -> (N, F)."""

    def __init__(self, part: int):
        super().__init__()
        self.net, self.part = feature_net("digits"), part
        self.num_features = (64, 10)[part]

    def forward(self, x):
        return self.net.forward(x)[self.part]


@pytest.fixture(scope="module")
def sets():
    """Real digits, and others of which some are noisy, uint8 (N, 1, 28, 28)."""
    data, rng = Digits().build(), np.random.default_rng(0)
    real, fake = (data.read(np.arange(i * N, i * N + N)) for i in (0, 1))
    noise = rng.integers(0, 120, fake.shape) * (np.arange(N) % 3 == 0)[:, None, None, None]
    return real, np.clip(fake + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def features(sets):
    net = feature_net("digits")
    return [net(x.transpose(0, 2, 3, 1)) for x in sets]


def told(metric, sets):
    for images, real in zip(sets, (True, False), strict=True):
        for part in np.split(images, 4):
            metric.update(torch.from_numpy(part), real=real)
    return metric.compute()


def test_frechet_distance_is_that_of_torchmetrics(sets, features):
    expected = told(FrechetInceptionDistance(feature=Judged(0)), sets)
    assert frechet_distance(*(a.features for a in features)) == pytest.approx(float(expected), rel=1e-4)


def test_kernel_distance_is_that_of_torchmetrics(sets, features):
    """On subsets of everything, which both draw in another order."""
    mean, _ = told(KernelInceptionDistance(feature=Judged(0), subsets=2, subset_size=N), sets)
    real, fake = (a.features for a in features)
    assert kernel_distance(real, fake, subsets=2, subset_size=N).mean == pytest.approx(float(mean), rel=1e-4)
    assert mmd2(real, fake) == pytest.approx(float(mean), rel=1e-4)


def test_inception_score_is_that_of_torchmetrics(sets, features):
    metric = InceptionScore(feature=Judged(1), splits=1)
    metric.update(torch.from_numpy(sets[1]))
    with pytest.warns(UserWarning, match="degrees of freedom"):  # the deviation of one split, by n - 1
        expected, _ = metric.compute()
    assert inception_score(features[1].probabilities, splits=1)[0] == pytest.approx(float(expected), rel=1e-4)
