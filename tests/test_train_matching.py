"""Feature matching in the trainer: G's gradient with and without its loss, D's untouched."""

from __future__ import annotations

import pytest
import torch
from loops import loop_over
from reference import Reference, Watch, assert_gradients, batch, build, games, small

from equipoise.losses import Consensus, FeatureMatching, GradientPenalty
from equipoise.losses import adversarial as losses
from equipoise.models import Head
from equipoise.train import d_step, g_step

UNPAIRED = [getattr(losses, name)() for name in losses.__all__ if name not in ("GANLoss", "RelativisticPairing")]
CASES = [(loss, san) for loss in UNPAIRED for san in (False, True)] + [(losses.RelativisticPairing(), False)]


@loop_over(("loss", "san"), CASES, ids=[f"{type(loss).__name__}-{'SAN' if san else 'plain'}" for loss, san in CASES])
@loop_over("adversarial", [False, True], ids=["alone", "besides"])
def test_gs_gradient_is_that_of_feature_matching_alone_or_besides_its_loss(loss, san, adversarial):
    """strength ‖mean f(x) - mean f(G(z))‖², f what comes out of D's body."""
    matching = FeatureMatching(strength=0.3, adversarial=adversarial)
    bound = (GradientPenalty(),)  # of D alone; a Wasserstein loss asks for it
    gan, real = build(small(loss=loss, head=Head(san=san), terms=(*bound, matching))), batch()
    watch, reference = Watch(gan), Reference(gan)
    stats = g_step(gan, real, 0)
    fake = reference.images(watch.z[0])
    body = reference.nets["D"].body
    distance = sum((body(real.x.double())[:, i].mean() - body(fake)[:, i].mean()) ** 2 for i in range(6))
    adversary = games(reference, loss, real, watch.z[0])[1]
    total = 0.3 * distance + (adversary if adversarial else 0)
    assert_gradients(watch.gradients[0], reference.gradient("G", total), "G")
    assert stats["G/FeatureMatching"].item() == pytest.approx(distance.item(), rel=1e-4)
    assert stats["G/loss"].item() == pytest.approx(total.item(), rel=1e-4)


def test_feature_matching_changes_nothing_for_d():
    real, gradients = batch(), []
    for matching in ((), (FeatureMatching(strength=5.0),)):
        gan = build(small(terms=matching))
        watch = Watch(gan)
        stats = d_step(gan, real, 0)
        gradients.append(watch.gradients[0]["D"])
        assert "D/FeatureMatching" not in stats
    assert all(torch.equal(gradients[0][n], gradients[1][n]) for n in gradients[0])


def test_consensus_knows_that_the_features_to_be_matched_are_ds():
    """∇_φ of the distance moves with the mean of real features, so with D."""
    cfg = small(terms=(FeatureMatching(strength=0.3), Consensus(gamma=0.7)))
    for mover, step in (("D", d_step), ("G", g_step)):
        gan, real = build(cfg), batch()
        watch, reference = Watch(gan), Reference(gan)
        step(gan, real, 0)
        d, g = games(reference, cfg.loss, real, watch.z[0])
        on_real, on_fake = (reference.logits(x).features for x in (real.x, reference.images(watch.z[0])))
        g = g + 0.3 * (on_real.mean(0) - on_fake.mean(0)).square().sum()
        field = (*reference.vectors("D", d, create_graph=True), *reference.vectors("G", g, create_graph=True))
        square = torch.stack([part.square().sum() for part in field]).sum()
        wanted = reference.gradient(mover, (d if mover == "D" else g) + 0.7 / 2 * square)
        assert_gradients(watch.gradients[0], wanted, mover)
