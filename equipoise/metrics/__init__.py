"""Metrics of generated images: pure functions, each with a class of its settings, and small networks they ask."""

from .classes import class_agreement, effective_classes, mean_top_probability
from .critic import critic_distance
from .equivariance import (
    fractional_translation,
    integer_translation,
    pseudo_rotation,
    psnr,
    rotation,
    rotation_filter,
)
from .frechet import frechet_distance
from .gaussian import GaussianStats
from .inception_score import inception_score
from .judge import DigitsJudge, class_probabilities, dataset_features, digits_judge, judge_features
from .kernel import KernelDistance, kernel_distance, mmd2
from .modes import ModeCount, count_modes, stacked_modes
from .neighbours import (
    DensityAndCoverage,
    Neighbours,
    PrecisionAndRecall,
    density_coverage,
    nearest_neighbours,
    precision_recall,
)
from .parzen import parzen_bandwidth, parzen_log_likelihood
from .perceptual_path import path_lengths, trimmed_mean
from .points import high_quality, kl_to_uniform, modes_covered, transport, wasserstein
from .probe import LinearSVM, linear_svm, pooled_features
from .sliced import sliced_wasserstein

__all__ = [
    "DensityAndCoverage",
    "DigitsJudge",
    "GaussianStats",
    "KernelDistance",
    "LinearSVM",
    "ModeCount",
    "Neighbours",
    "PrecisionAndRecall",
    "class_agreement",
    "class_probabilities",
    "count_modes",
    "critic_distance",
    "dataset_features",
    "density_coverage",
    "digits_judge",
    "effective_classes",
    "fractional_translation",
    "frechet_distance",
    "high_quality",
    "inception_score",
    "integer_translation",
    "judge_features",
    "kernel_distance",
    "kl_to_uniform",
    "linear_svm",
    "mean_top_probability",
    "mmd2",
    "modes_covered",
    "nearest_neighbours",
    "parzen_bandwidth",
    "parzen_log_likelihood",
    "path_lengths",
    "pooled_features",
    "precision_recall",
    "pseudo_rotation",
    "psnr",
    "rotation",
    "rotation_filter",
    "sliced_wasserstein",
    "stacked_modes",
    "transport",
    "trimmed_mean",
    "wasserstein",
]
