"""How good generated images are: pure functions on features and probabilities, and the networks that make these."""

from .classes import class_agreement, effective_classes, mean_top_probability
from .judge import DigitsJudge, class_probabilities, digits_judge

__all__ = [
    "DigitsJudge",
    "class_agreement",
    "class_probabilities",
    "digits_judge",
    "effective_classes",
    "mean_top_probability",
]
