"""How good generated images are: pure functions on features and probabilities, and the networks that make these."""

from .classes import class_agreement, effective_classes, mean_top_probability
from .frechet import GaussianStats, frechet_distance
from .judge import DigitsJudge, class_probabilities, dataset_features, digits_judge, judge_features

__all__ = [
    "DigitsJudge",
    "GaussianStats",
    "class_agreement",
    "class_probabilities",
    "dataset_features",
    "digits_judge",
    "effective_classes",
    "frechet_distance",
    "judge_features",
    "mean_top_probability",
]
