"""The terms of what players minimise: the loss, and all that is added to it."""

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
from .base import BothLosses, Memory, Output, Place, Players, Seen, Term, require_whole_batches
from .features import FeatureMatching
from .joint import Consensus, JointPenalty
from .objective import (
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
from .players import ClassLoss, DiscriminatorLoss, GeneratorLoss
from .regularizers import (
    HistoricalAverage,
    Orthogonal,
    Regularization,
    Regularizer,
    Regularizing,
    SingularValuePenalty,
    SpectralNormPenalty,
)

__all__ = [
    "R1",
    "R2",
    "BothLosses",
    "ClassLoss",
    "Consensus",
    "DiscriminatorLoss",
    "Dragan",
    "Drift",
    "FeatureMatching",
    "GANLoss",
    "GeneratorLoss",
    "GradientPenalty",
    "Hinge",
    "HistoricalAverage",
    "JointPenalty",
    "LeastSquares",
    "Memory",
    "NonSaturating",
    "Orthogonal",
    "Output",
    "Penalty",
    "Place",
    "Players",
    "Regularization",
    "Regularizer",
    "Regularizing",
    "RelativisticPairing",
    "Saturating",
    "Seen",
    "SingularValuePenalty",
    "SoftLeastSquares",
    "SpectralNormPenalty",
    "Term",
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
    "require_whole_batches",
]
