"""Feature networks: features for distances between sets of images, class probabilities, and published weights."""

from .base import Activations, FeatureNet
from .cells import CellFeatures
from .digits import DigitsFeatures
from .efficientnet import EfficientNetFeatures, EfficientNetLite0
from .inception import InceptionFeatures, InceptionV3
from .named import feature_net
from .own import OwnFeatures
from .reference import Reference, activations, reference
from .resize import bicubic, tf1_bilinear

__all__ = [
    "Activations",
    "CellFeatures",
    "DigitsFeatures",
    "EfficientNetFeatures",
    "EfficientNetLite0",
    "FeatureNet",
    "InceptionFeatures",
    "InceptionV3",
    "OwnFeatures",
    "Reference",
    "activations",
    "bicubic",
    "feature_net",
    "reference",
    "tf1_bilinear",
]
