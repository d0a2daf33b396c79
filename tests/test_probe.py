"""The linear probe: its minimum against scipy's, its classes, and which features it pools."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loops import loop_over
from scipy.optimize import minimize
from torch import nn

from equipoise.metrics import linear_svm, pooled_features
from equipoise.metrics.probe import Probe


def blobs(n, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    centres = np.array([[2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0]])
    return centres[y] + spread * rng.standard_normal((n, 3)), y


@loop_over("C", [0.01, 1.0, 30.0])
def test_it_is_the_minimum_that_scipy_finds_for_each_class(C):
    x, y = blobs(80)
    found = linear_svm(x, y, C=C)
    for k in range(3):
        t = np.where(y == k, 1.0, -1.0)

        def objective(w, t=t):
            return (w[:3] ** 2).sum() / 2 + C * (np.maximum(0, 1 - t * (x @ w[:3] + w[3])) ** 2).sum()

        best = minimize(objective, np.zeros(4), method="BFGS", options={"gtol": 1e-9})
        ours = np.append(found.weight[k], found.bias[k])
        assert objective(ours) == pytest.approx(best.fun, rel=1e-7)
        np.testing.assert_allclose(ours, best.x, atol=1e-4)


def test_it_tells_classes_apart_by_their_own_ids():
    x, y = blobs(300, spread=0.3)
    ids = np.array([4, 9, 2])
    fit = linear_svm(x, ids[y])
    fresh, truth = blobs(300, seed=1, spread=0.3)
    assert set(fit.predict(fresh)) == {2, 4, 9}
    assert fit.accuracy(fresh, ids[truth]) > 0.97
    assert fit.accuracy(fresh, ids[(truth + 1) % 3]) < 0.03


def test_bad_input():
    x, y = blobs(10)
    with pytest.raises(ValueError, match="C must be positive and finite, got 0"):
        linear_svm(x, y, C=0.0)
    with pytest.raises(ValueError, match="expected 10 integer class ids, one per sample, got float64"):
        linear_svm(x, y.astype(float))
    with pytest.raises(ValueError, match="all samples are of class 5"):
        linear_svm(x, np.full(10, 5))
    with pytest.raises(ValueError, match="trained on 3 features per sample, got 2"):
        linear_svm(x, y).predict(x[:, :2])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 3, 4, stride=4), nn.Linear(12, 1)

    def forward(self, x):
        return self.last(self.b(F.relu(self.a(x))).flatten(1))


def test_maps_of_every_convolution_are_pooled():
    net, x = Net(), torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        a = net.a(x)
        b = net.b(F.relu(a))  # (5, 3, 2, 2): smaller than 4x4, and kept
    expected = torch.cat([a.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5)).flatten(1), b.flatten(1)], dim=1)
    found = pooled_features(net, x)
    assert found.shape == (5, 2 * 16 + 3 * 4)
    np.testing.assert_allclose(found, expected.double())
    assert not net.a._forward_hooks


def test_a_network_without_convolutions():
    with pytest.raises(ValueError, match="Linear has no convolution"):
        pooled_features(nn.Linear(2, 2), torch.randn(3, 2))


def test_its_c_is_the_best_on_images_that_are_neither_fitted_nor_tested(monkeypatch):
    """Wrong: the one that is best on the test images, whose accuracy is then no estimate."""

    class Fitted:
        def __init__(self, x, y, C):
            assert len(x) == len(y) == 4
            self.C = C

        def accuracy(self, x, y):
            assert len(x) == len(y)
            return {3: {0.1: 0.2, 1.0: 0.9, 10.0: 0.4}, 2: {0.1: 1.0, 1.0: 0.5, 10.0: 0.0}}[len(y)][self.C]

    monkeypatch.setattr("equipoise.metrics.probe.linear_svm", lambda x, y, C: Fitted(x, y, C))
    features, y = np.random.default_rng(0).standard_normal((9, 5)), np.arange(9) % 2
    assert Probe(train=4, validation=3, test=2, C=(0.1, 1.0, 10.0)).best(features, y) == (0.5, 1.0)
