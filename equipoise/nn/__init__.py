"""Layers and heads, and one network of several (`PerLabel`); no architecture, no loss."""

from .activations import Gate, Nonlinearity, SmoothELU, nonlinearity
from .attention import SelfAttention
from .attention_maps import AttentionMap, attention_maps
from .conditioning import (
    HiddenConcat,
    InputConcat,
    LearnedScale,
    MiddleConcat,
    PerClassVectors,
    ProjectionVectors,
    UnconditionalVector,
)
from .growing import LevelOfDetail, grows, set_lod
from .heads import (
    AuxiliaryHead,
    BiasedHead,
    Discriminator,
    HiddenHead,
    LinearHead,
    SANHead,
    SemiSupervisedHead,
    renormalize,
    split,
)
from .init import init_normal
from .initial import initial_std, normal_
from .layers import OneHot, conditions, in_a_row, joined, labels
from .minibatch import MinibatchDiscrimination, MinibatchStd
from .norms import (
    ConditionalBatchNorm,
    LinearConditionalBatchNorm,
    NormKind,
    PixelNorm,
    SyncBatchNorm,
    VirtualBatchNorm,
    WithReference,
    norm,
)
from .per_label import PerLabel
from .resample import detail, enlarge, shrink
from .san import sanify
from .tracing import Call, Origin, Place, Raw, Trace, replaced

__all__ = [
    "AttentionMap",
    "AuxiliaryHead",
    "BiasedHead",
    "Call",
    "ConditionalBatchNorm",
    "Discriminator",
    "Gate",
    "HiddenConcat",
    "HiddenHead",
    "InputConcat",
    "LearnedScale",
    "LevelOfDetail",
    "LinearConditionalBatchNorm",
    "LinearHead",
    "MiddleConcat",
    "MinibatchDiscrimination",
    "MinibatchStd",
    "Nonlinearity",
    "NormKind",
    "OneHot",
    "Origin",
    "PerClassVectors",
    "PerLabel",
    "PixelNorm",
    "Place",
    "ProjectionVectors",
    "Raw",
    "SANHead",
    "SelfAttention",
    "SemiSupervisedHead",
    "SmoothELU",
    "SyncBatchNorm",
    "Trace",
    "UnconditionalVector",
    "VirtualBatchNorm",
    "WithReference",
    "attention_maps",
    "conditions",
    "detail",
    "enlarge",
    "grows",
    "in_a_row",
    "init_normal",
    "initial_std",
    "joined",
    "labels",
    "nonlinearity",
    "norm",
    "normal_",
    "renormalize",
    "replaced",
    "sanify",
    "set_lod",
    "shrink",
    "split",
]
