"""What players minimise: the loss, and every term that is added to it."""

from .adversarial import (
    GANLoss,
    Hinge,
    LeastSquares,
    NonSaturating,
    RelativisticPairing,
    Saturating,
    SoftLeastSquares,
    Wasserstein,
)
from .features import FeatureMatching
from .joint import Consensus, JointPenalty
from .objective import (
    Output,
    accuracy,
    class_loss,
    direction_loss,
    discriminator_loss,
    flat,
    generator_loss,
    logits,
    monotone,
    pairs,
)
from .penalties import R1, R2, Dragan, Drift, GradientPenalty, Penalty
from .regularizers import (
    HistoricalAverage,
    Orthogonal,
    Regularization,
    Regularizer,
    SingularValuePenalty,
    SpectralNormPenalty,
)

__all__ = [
    "R1",
    "R2",
    "Consensus",
    "Dragan",
    "Drift",
    "FeatureMatching",
    "GANLoss",
    "GradientPenalty",
    "Hinge",
    "HistoricalAverage",
    "JointPenalty",
    "LeastSquares",
    "NonSaturating",
    "Orthogonal",
    "Output",
    "Penalty",
    "Regularization",
    "Regularizer",
    "RelativisticPairing",
    "Saturating",
    "SingularValuePenalty",
    "SoftLeastSquares",
    "SpectralNormPenalty",
    "Wasserstein",
    "accuracy",
    "class_loss",
    "direction_loss",
    "discriminator_loss",
    "flat",
    "generator_loss",
    "logits",
    "monotone",
    "pairs",
]
