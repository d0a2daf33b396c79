"""What a combination takes from a stabiliser: sentences for the user, each with the reason and what to do."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from equipoise.losses import GANLoss, Penalty, Term
from equipoise.nn import SANHead, VirtualBatchNorm
from equipoise.weights import (
    ClipSingularValues,
    ClipWeights,
    Constraint,
    ExactSpectralNorm,
    FrobeniusNorm,
    NoNormalizer,
    Normalizer,
    SpectralNorm,
    UnitSphere,
)

__all__ = ["voided"]

BATCH_NORM = nn.modules.batchnorm._BatchNorm


def norm_of_activations(layer: nn.Module) -> str | None:
    """What kind of layer that divides by a deviation it is, None for another layer."""
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
    """What `D` and the rest take from one another; empty where every guarantee stands. The trainer warns of each.

    Norms of activations in D under what bounds its Lipschitz constant, batch norm in D under a penalty on the gradient
    of each image, and a Wasserstein loss that nothing bounds.
    """
    gradient = [type(term).__name__ for term in terms if isinstance(term, Penalty) and term.of_gradient]
    bounds = [
        type(part).__name__
        for part in (normalizer, *constraints)
        if isinstance(
            part, (SpectralNorm, ExactSpectralNorm, FrobeniusNorm, ClipWeights, ClipSingularValues, UnitSphere)
        )
    ]
    found = []
    norms: dict[str, list[str]] = {}
    for name, layer in D.named_modules():
        kind = norm_of_activations(layer)
        if kind is not None:
            norms.setdefault(kind, []).append(name)
    if gradient and "batch norm" in norms:
        found.append(
            f"D has batch norm ({', '.join(norms['batch norm'])}) under {', '.join(gradient)}: the gradient of one "
            "image's logit then runs through the statistics of its whole batch, so the penalty is no longer one on "
            "each image's own gradient. Use a D without it, or with layer, instance or group norm (Gulrajani et al. "
            "2017, sec. 4)."
        )
    for kind, names in norms.items():
        if bounds:
            found.append(
                f"D has {kind} ({', '.join(names)}) under {', '.join(bounds)}: {kind} divides by the deviation of its "
                "input, which undoes the scale of the layer before it, so D's Lipschitz constant has no bound. Use a D "
                "without norms of activations."
            )
    if loss is not None and loss.estimates is not None and not gradient:
        if not bounds:
            found.append(
                f"nothing bounds D's Lipschitz constant, and {loss!r} has no minimum without: logits grow for ever. "
                "Add 'terms=[GradientPenalty]', d_normalizer=SpectralNorm or 'constraints=[ClipWeights]'."
            )
        elif any(isinstance(layer, SANHead) for layer in D.modules()):
            found.append(
                f"{', '.join(bounds)} leaves a SAN head alone, whose vector is then as long as {loss!r} likes: its "
                "logits grow for ever. Add 'terms=[GradientPenalty]', or take a plain head (head.san=false)."
            )
    return found
