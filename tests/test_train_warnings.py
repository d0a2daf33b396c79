"""Combinations that are worth a warning when the players are built, and those that are not."""

from __future__ import annotations

import warnings

import pytest
from loops import loop_over
from reference import SPEC
from tiny import recipe

from equipoise.config import override
from equipoise.doctor import voided
from equipoise.losses import R1, Dragan, GradientPenalty, Orthogonal, Wasserstein
from equipoise.models import DCGANDiscriminator
from equipoise.train import GAN
from equipoise.weights import ClipWeights, FrobeniusNorm, NoNormalizer, SpectralNorm, WeightNorm

BATCH_NORM = {"discriminator": DCGANDiscriminator(width=2), "d_normalizer": NoNormalizer()}
BATCH_FREE = {"discriminator": DCGANDiscriminator(width=2, norm="none"), "d_normalizer": NoNormalizer()}


def build_on_28(**changes):
    return GAN.build(override(recipe(), changes), SPEC)


@loop_over("penalty", [R1(), GradientPenalty(), Dragan()], ids=lambda p: type(p).__name__)
def test_batch_norm_under_a_gradient_penalty_is_warned_of(penalty):
    with pytest.warns(UserWarning, match=rf"D has batch norm \(body\..*\) under {type(penalty).__name__}: .*its whole"):
        build_on_28(**BATCH_NORM | {"terms": (penalty,)})


@loop_over("normalizer", [SpectralNorm(), FrobeniusNorm()], ids=lambda n: type(n).__name__)
def test_batch_norm_under_a_normaliser_that_bounds_d_is_warned_of(normalizer):
    with pytest.warns(UserWarning, match=rf"under {type(normalizer).__name__}: batch norm divides .* has no bound"):
        build_on_28(**BATCH_NORM | {"d_normalizer": normalizer})


@loop_over("norm", ["batch", "layer", "instance", "group"])
def test_a_norm_of_activations_under_clipping_is_warned_of(norm):
    discriminator = DCGANDiscriminator(width=2, norm=norm)
    clipped = {"discriminator": discriminator, "d_normalizer": NoNormalizer(), "constraints": (ClipWeights(),)}
    with pytest.warns(UserWarning, match=rf"D has {norm} norm \(body\..*\) under ClipWeights: .* has no bound"):
        build_on_28(**clipped)


def test_a_wasserstein_loss_that_nothing_bounds_is_warned_of():
    wasserstein = {"loss": Wasserstein(), "head.san": False, "d_normalizer": NoNormalizer()}
    with pytest.warns(UserWarning, match="nothing bounds D's Lipschitz constant, and Wasserstein"):
        build_on_28(**wasserstein)
    with pytest.warns(UserWarning, match="SpectralNorm leaves a SAN head alone"):
        build_on_28(loss=Wasserstein())  # tiny.py has both


def test_every_sentence_is_a_warning_and_one_process_says_it(monkeypatch):
    """Each guarantee that is void, once, at the line that built the players."""
    loss, penalties, normalizer = Wasserstein(), (R1(),), SpectralNorm()
    changes = BATCH_NORM | {"loss": loss, "terms": penalties, "d_normalizer": normalizer}
    with pytest.warns(UserWarning, match="D has batch norm") as caught:
        gan = build_on_28(**changes)
    said = [str(warning.message) for warning in caught]
    assert said == voided(gan.D, loss=loss, terms=penalties, normalizer=normalizer)
    assert len(said) == 2
    assert all(warning.filename == __file__ for warning in caught)
    monkeypatch.setattr("equipoise.train.warned.rank", lambda: 1)
    build_on_28(**changes)  # warnings are errors here


def test_nothing_else_is_warned_of():
    """Norms by themselves, with what makes no promise about gradients, or in G; and a bound without them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_on_28(**BATCH_NORM)
        build_on_28(**BATCH_NORM | {"d_normalizer": WeightNorm(), "terms": (Orthogonal(),)})
        build_on_28(**BATCH_NORM | {"g_normalizer": SpectralNorm()})
        build_on_28(terms=(R1(),))  # G of tiny.py has batch norm
        build_on_28(loss=Wasserstein(), **{"head.san": False})
        build_on_28(loss=Wasserstein(), constraints=(ClipWeights(),), **{"head.san": False, **BATCH_FREE})
        build_on_28(loss=Wasserstein(), terms=(GradientPenalty(),))
        for norm in ("none", "layer", "instance", "group"):
            discriminator = DCGANDiscriminator(width=2, norm=norm)
            build_on_28(discriminator=discriminator, terms=(R1(),), d_normalizer=NoNormalizer())
