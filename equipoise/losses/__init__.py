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
from .gamma import ByResolution
from .joint import Consensus, JointPenalty
from .lazy import LazyStep, share_of_steps
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
from .path_length import PathLength, PathLengths, path_lengths
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
    "ByResolution",
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
    "LazyStep",
    "LeastSquares",
    "Memory",
    "NonSaturating",
    "Orthogonal",
    "Output",
    "PathLength",
    "PathLengths",
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
    "path_lengths",
    "require_whole_batches",
    "share_of_steps",
]
