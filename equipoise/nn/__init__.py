"""Layers and heads; no architecture, no loss."""

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
from .filtered import filtered_lrelu
from .filters import blur_filter, convolution_down, convolution_up, downsample, upfirdn, upsample
from .fourier import FourierInput, user_transform
from .growing import LevelOfDetail, grows, set_lod
from .heads import (
    AffineHead,
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
from .lowpass import lowpass, radial_lowpass
from .mapping import MappedVectors, Mapping
from .minibatch import MinibatchDiscrimination, MinibatchStd
from .modulated import modulated_convolution
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
from .scaled import ScaledConv2d, ScaledEmbedding, ScaledLinear, lrelu_gain, scaled_lrelu
from .styled import NoiseMode, StyledGenerator
from .tracing import Call, Origin, Place, Raw, Trace, replaced

__all__ = [
    "AffineHead",
    "AttentionMap",
    "AuxiliaryHead",
    "BiasedHead",
    "Call",
    "ConditionalBatchNorm",
    "Discriminator",
    "FourierInput",
    "Gate",
    "HiddenConcat",
    "HiddenHead",
    "InputConcat",
    "LearnedScale",
    "LevelOfDetail",
    "LinearConditionalBatchNorm",
    "LinearHead",
    "MappedVectors",
    "Mapping",
    "MiddleConcat",
    "MinibatchDiscrimination",
    "MinibatchStd",
    "NoiseMode",
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
    "ScaledConv2d",
    "ScaledEmbedding",
    "ScaledLinear",
    "SelfAttention",
    "SemiSupervisedHead",
    "SmoothELU",
    "StyledGenerator",
    "SyncBatchNorm",
    "Trace",
    "UnconditionalVector",
    "VirtualBatchNorm",
    "WithReference",
    "attention_maps",
    "blur_filter",
    "conditions",
    "convolution_down",
    "convolution_up",
    "detail",
    "downsample",
    "enlarge",
    "filtered_lrelu",
    "grows",
    "in_a_row",
    "init_normal",
    "initial_std",
    "joined",
    "labels",
    "lowpass",
    "lrelu_gain",
    "modulated_convolution",
    "nonlinearity",
    "norm",
    "normal_",
    "radial_lowpass",
    "renormalize",
    "replaced",
    "sanify",
    "scaled_lrelu",
    "set_lod",
    "shrink",
    "split",
    "upfirdn",
    "upsample",
    "user_transform",
]
