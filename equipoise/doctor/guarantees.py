"""Guarantees of stabilisers that a combination voids: sentences for the user, each with a reason and a fix."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from equipoise.config import TrainConfig
from equipoise.core.types import ImageSpec
from equipoise.losses import GANLoss, Term
from equipoise.nn import SANHead, VirtualBatchNorm
from equipoise.weights import (
    Constraint,
    NoNormalizer,
    Normalizer,
)

__all__ = ["discriminator_on_paper", "voided", "voided_by"]

BATCH_NORM = nn.modules.batchnorm._BatchNorm


def norm_of_activations(layer: nn.Module) -> str | None:
    """The kind of a layer that divides by a deviation; None for other layers."""
    match layer:
        case BATCH_NORM():
            return "batch norm"
        case VirtualBatchNorm():
            return "virtual batch norm"
        case nn.LayerNorm() | nn.GroupNorm(num_groups=1):
            return "layer norm"
        case nn.GroupNorm():
            return "group norm"
        case nn.modules.instancenorm._InstanceNorm():
            return "instance norm"
    return None


def voided(
    D: nn.Module,
    *,
    loss: GANLoss | None = None,
    terms: Iterable[Term] = (),
    normalizer: Normalizer = NoNormalizer(),  # noqa: B008  (a frozen value)
    constraints: Iterable[Constraint] = (),
) -> list[str]:
    """Guarantees that `D` and the other settings void; empty if every guarantee holds. The trainer warns of each.

    Found are norms of activations in D under a bound on its Lipschitz constant, batch norm in D under a penalty on
    each image's gradient, and a Wasserstein loss without a bound.
    """
    gradient = [type(term).__name__ for term in terms if term.of_gradient]
    parts: list[Normalizer | Constraint] = [normalizer, *constraints]
    bounds = [type(part).__name__ for part in parts if part.bounds]
    warnings = []
    norms: dict[str, list[str]] = {}
    for name, layer in D.named_modules():
        kind = norm_of_activations(layer)
        if kind is not None:
            norms.setdefault(kind, []).append(name)
    if gradient and "batch norm" in norms:
        warnings.append(
            f"D has batch norm ({', '.join(norms['batch norm'])}) under {', '.join(gradient)}: the gradient of one "
            "image's logit then runs through the statistics of its whole batch, so the penalty no longer acts on "
            "each image's own gradient. Use a D without batch norm, or with layer, instance or group norm (Gulrajani "
            "et al. 2017, sec. 4)."
        )
    for kind, names in norms.items():
        if bounds:
            warnings.append(
                f"D has {kind} ({', '.join(names)}) under {', '.join(bounds)}: {kind} divides by the deviation of its "
                "input, which undoes the scale of the layer before it, so D's Lipschitz constant has no bound. Use a D "
                "without norms of activations."
            )
    if loss is not None and loss.estimates is not None and not gradient:
        if not bounds:
            warnings.append(
                f"nothing bounds D's Lipschitz constant, and {loss!r} has no minimum without a bound: logits grow for "
                "ever. Add 'terms=[GradientPenalty]', d_normalizer=SpectralNorm or 'constraints=[ClipWeights]'."
            )
        elif any(isinstance(layer, SANHead) for layer in D.modules()):
            warnings.append(
                f"{', '.join(bounds)} leaves a SAN head alone, so nothing bounds its vector and, under {loss!r}, its "
                "logits grow for ever. Add 'terms=[GradientPenalty]', or use a plain head (head.san=false)."
            )
    return warnings


def discriminator_on_paper(cfg: TrainConfig, spec: ImageSpec) -> nn.Module | None:
    """The D of `cfg` without numbers, on the meta device; None if it cannot be built there."""
    try:
        with torch.device("meta"):
            return cfg.head.build(cfg.discriminator.build, spec)
    except (ValueError, RuntimeError, TypeError, NotImplementedError):  # needs classes, or numbers
        return None


def voided_by(cfg: TrainConfig, D: nn.Module) -> list[str]:
    """`voided` for the settings of a config."""
    return voided(D, loss=cfg.loss, terms=cfg.terms, normalizer=cfg.d_normalizer, constraints=cfg.constraints)
