"""Feature networks by name."""

from __future__ import annotations

import torch

from equipoise.core.grammar import suggest
from equipoise.data.base import PathLike

from .base import FeatureNet
from .cells import SIDES, CellFeatures
from .digits import DigitsFeatures
from .efficientnet import EfficientNetFeatures
from .inception import InceptionFeatures
from .own import OwnFeatures

__all__ = ["check_name", "feature_net"]

PUBLISHED = {"inception": InceptionFeatures, "efficientnet_lite0": EfficientNetFeatures}


def check_name(text: str) -> None:
    """Raise ValueError unless `text` is a known name or has the form FILE.py:NAME."""
    known = ["digits", *SIDES, *PUBLISHED]
    if text not in known and ".py" not in text:
        raise ValueError(
            f"there is no feature network {text!r}{suggest(text, known)}: give {', '.join(known)} or FILE.py:NAME for "
            "one of your own"
        )


def feature_net(text: str, *, weights: PathLike | None = None, device: torch.device | str = "cpu") -> FeatureNet:
    """The feature network "digits", "cells", "colours", "inception", "efficientnet_lite0", or "FILE.py:NAME".

    weights: for "inception" or "efficientnet_lite0": the published file, a directory that holds it, or a URL. None
        looks in the usual places; see `InceptionFeatures` and `EfficientNetFeatures`.
    device: "cpu", "cuda", "cuda:1", ....

    Raises:
        ValueError: for another name, for weights that are missing, damaged or not the published ones, or for weights
            given to a network that has its own.

    >>> net = feature_net("digits")
    >>> features, probabilities = net(np.zeros((2, 28, 28, 1), np.uint8))
    >>> features.shape, probabilities.shape
    ((2, 64), (2, 10))
    """
    check_name(text)
    if text in PUBLISHED:
        return PUBLISHED[text](weights=weights, device=device)
    if weights is not None:
        raise ValueError(f"{text} brings its own weights: leave weights={str(weights)!r} out")
    if text in SIDES:
        return CellFeatures(text, device=device)
    return DigitsFeatures(device=device) if text == "digits" else OwnFeatures(text, device=device)
