"""The linear probe: how well do a discriminator's features separate the classes? (Radford et al. 2016, sec. 5.1)"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from torch import Tensor, nn

from equipoise.compute.devices import wide
from equipoise.core.types import ImageSpec, component

from .arrays import array, shuffled
from .base import Array, Asked, Better, Found, Labels, Number, Pixels, Samples
from .gaussian import matrix
from .of_discriminator import OfDiscriminator

__all__ = ["LinearSVM", "linear_svm", "pooled_features"]

Weight = Annotated[float, Field(gt=0)]


class LinearSVM:
    """A linear classifier: K scores W x + b of features x (F,), of which the largest gives the class.

    weight: (K, F).
    bias: (K,).
    classes: (K,) class ids, ascending.
    """

    def __init__(self, weight: NDArray[np.float64], bias: NDArray[np.float64], classes: NDArray[np.int64]):
        self.weight, self.bias, self.classes = weight, bias, classes

    def predict(self, x: ArrayLike | Tensor) -> NDArray[np.int64]:
        """Class ids for features, (N, F) -> (N,)."""
        features = matrix(x)
        if features.shape[1] != self.weight.shape[1]:
            raise ValueError(f"trained on {self.weight.shape[1]} features per sample, got {features.shape[1]}")
        best: NDArray[np.int64] = (features @ self.weight.T + self.bias).argmax(axis=1)
        return self.classes[best]

    def accuracy(self, x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> float:
        """Share of samples whose `predict(x)` equals y (N,)."""
        predicted = self.predict(x)
        return float((predicted == class_ids(y, len(predicted))).mean())


def linear_svm(x: ArrayLike | Tensor, y: ArrayLike | Tensor, *, C: float = 1.0) -> LinearSVM:
    """Fit the L2-SVM, one class against the rest: min over w, b of ½ ‖w‖² + C Σ_i max(0, 1 - t_i (<w, x_i> + b))².

    x: features (N, F).
    y: class ids (N,); t is 1 for the class and -1 for the rest.
    C: weight of the errors. It depends on the scale of the features; choose it on validation data.

    The bias is not regularised. The problem is convex and smooth, so L-BFGS finds its only minimum, in float64.

    Raises:
        ValueError: for NaN or Inf, labels that are not one integer per row, a single class, or C that is not positive.

    >>> linear_svm([[-1.0], [1.0], [2.0]], [7, 3, 3]).predict([[-3.0], [0.5]])
    array([7, 3])
    """
    if not 0 < C < math.inf:
        raise ValueError(f"C must be positive and finite, got {C:g}")
    features = torch.from_numpy(matrix(x))
    ids = class_ids(y, len(features))
    classes, which = np.unique(ids, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"all samples are of class {classes[0]}: give samples of two classes or more")
    target = 2 * F.one_hot(torch.from_numpy(which), len(classes)).double() - 1  # (N, K)
    weight = torch.zeros(len(classes), features.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(classes), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=1000, tolerance_grad=1e-8, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        errors = F.relu(1 - target * F.linear(features, weight, bias)).square().sum()
        value = (weight.square().sum() / 2 + C * errors) / len(features)
        value.backward()
        return value

    optimizer.step(objective)
    return LinearSVM(weight.detach().numpy(), bias.detach().numpy(), classes)


def pooled_features(net: nn.Module, x: Tensor, *, size: int = 4) -> NDArray[np.float64]:
    """Outputs of all convolutions of `net`, max-pooled to size x size maps and concatenated -> (N, features).

    net: a discriminator, used on its device and in its mode.
    x: (N, C, H, W) float32 in [-1, 1].

    The maps are taken before norm and activation. Maps smaller than `size` are not enlarged.

    Raises:
        ValueError: if the network has no convolution.
    """
    maps: list[Tensor] = []

    def note(_module: nn.Module, _args: tuple[Tensor, ...], out: Tensor) -> None:
        pooled = F.adaptive_max_pool2d(out, [min(size, side) for side in out.shape[2:]])
        maps.append(wide(pooled.flatten(1)).cpu())

    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    if not layers:
        raise ValueError(f"{type(net).__name__} has no convolution: the probe pools the maps of convolutions")
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.no_grad():
            net(x)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(maps, dim=1).numpy()


def class_ids(y: ArrayLike | Tensor, num: int) -> NDArray[np.int64]:
    ids = array(y)
    if ids.shape != (num,) or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"expected {num} integer class ids, one per sample, got {ids.dtype} of shape {ids.shape}")
    return ids.astype(np.int64)


def scaled(x: Array, num: int) -> Array:
    """Features (N, F) with mean 0 and variance 1/F over the first `num` rows."""
    mean, std = x[:num].mean(axis=0), x[:num].std(axis=0)
    varies = std > 1e-5 * np.abs(x[:num]).max(axis=0)
    result: Array = (x - mean) * np.where(varies, 1 / np.where(varies, std, 1), 0) / np.sqrt(max(varies.sum(), 1))
    return result


@component
class Probe(OfDiscriminator[Asked, Pixels, Labels | None]):
    """Accuracy of an L2-SVM on the max-pooled maps of D's convolutions, on real images (Radford et al. 2016, sec. 5.1).

    The number beside it is for an untrained D with the same settings. Random convolutions give fair features already;
    the difference is what D has learned. Generated images take no part.

    Features have mean 0 and variance 1/F over the training images of the SVM, so that C means the same for every D.
    Features that are constant within float32's rounding are set to 0.

    train, validation, test: numbers of random labelled images of the reference set: to fit the SVM, to choose C, and to
        measure the accuracy.
    C: values to choose from, as in `metrics.linear_svm`. The first of equally good ones is taken.
    """

    name: ClassVar[str] = "probe"
    better: ClassVar[Mapping[str, Better]] = {"probe": "higher"}
    spread: ClassVar[str | None] = "standard error over test images"
    beside: ClassVar[str] = "an untrained D"

    train: int = Field(default=2000, ge=2)
    validation: int = Field(default=500, ge=1)
    test: int = Field(default=1000, ge=1)
    C: Annotated[tuple[Weight, ...], Field(min_length=1)] = (0.1, 1.0, 10.0)

    @property
    def least(self) -> tuple[int, int]:
        return 1, self.train + self.validation + self.test

    def check(self, D: Asked, against: ImageSpec) -> None:
        if against.num_classes == 0:
            raise ValueError(
                "the probe finds out how much D knows of the classes, and the images to compare with have no labels: "
                "give labelled data, such as Digits or an .npz with y"
            )
        if not any(isinstance(layer, nn.Conv2d) for layer in D.body().modules()):
            raise ValueError(
                f"the probe reads the maps of D's convolutions, and the body of {D.settings} has none: "
                "leave the probe out"
            )

    def ask(self, fake: Samples, real: Samples) -> tuple[Asked, Pixels, Labels | None]:
        return fake.discriminator, real.pixels, real.labels

    def find(self, seed: int, D: Asked, real: Pixels, y: Labels | None) -> Found:
        assert y is not None  # see `check`
        rows = shuffled(np.arange(len(y)), seed)[: self.least[1]]
        images, y = real[rows], y[rows]
        accuracy, C = self.best(D.features(images), y)
        untrained, C_untrained = self.best(D.features(images, trained=False), y)
        number = Number(accuracy, float(np.sqrt(accuracy * (1 - accuracy) / self.test)), untrained)
        return Found({"probe": number}, {"C": C, "C_untrained": C_untrained, "nimg": D.nimg})

    def best(self, features: Array, y: Labels) -> tuple[float, float]:
        """Accuracy on the test images and the C that the validation images choose."""
        cuts = [self.train, self.train + self.validation]
        fit, validation, test = zip(np.split(scaled(features, self.train), cuts), np.split(y, cuts), strict=True)
        fits = [(linear_svm(*fit, C=C), C) for C in self.C]
        svm, C = max(fits, key=lambda pair: pair[0].accuracy(*validation))
        return svm.accuracy(*test), C
