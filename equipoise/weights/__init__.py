"""Rules for weights: spectral norm and its relatives, constraints, singular values."""

from .constraints import ClipSingularValues, ClipWeights, Constraint, UnitSphere
from .equalized import EqualizedLearningRate
from .matrices import (
    as_matrix,
    clip_singular_values,
    effective_weight,
    gram,
    lipschitz_bound,
    output_axis,
    singular_values,
    spectral_norms,
    spectral_stats,
    squared_singular_values,
    weighted_layers,
)
from .normalizers import ExactSpectralNorm, FrobeniusNorm, NoNormalizer, Normalizer, SpectralNorm, WeightNorm, remove
from .spectral import DividedBySigma

__all__ = [
    "ClipSingularValues",
    "ClipWeights",
    "Constraint",
    "DividedBySigma",
    "EqualizedLearningRate",
    "ExactSpectralNorm",
    "FrobeniusNorm",
    "NoNormalizer",
    "Normalizer",
    "SpectralNorm",
    "UnitSphere",
    "WeightNorm",
    "as_matrix",
    "clip_singular_values",
    "effective_weight",
    "gram",
    "lipschitz_bound",
    "output_axis",
    "remove",
    "singular_values",
    "spectral_norms",
    "spectral_stats",
    "squared_singular_values",
    "weighted_layers",
]
