"""Terms in an optimiser step of their own: two gradients, two steps, their draws, and the corrected optimiser."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from processes import on_two_processes
from reference import SPEC, Reference, Watch, assert_gradients, batch, build, small
from runs import assert_resumes, newest, same
from torch.testing import assert_close

from equipoise.augment import InstanceNoise
from equipoise.compute.settings import Compute
from equipoise.core.schedules import Linear
from equipoise.losses import R1, R2, Consensus, FeatureMatching, HistoricalAverage, LazyStep, Orthogonal
from equipoise.rules import Adam, Generation, History, OptimConfig, RMSprop
from equipoise.train import d_step, g_step, iteration_flops, train
from equipoise.weights import ClipWeights


class Steps(Watch):
    """`Watch`, and the players in float64 as they are before each step."""

    def __init__(self, gan):
        super().__init__(gan)
        self.references = []
        for optimizer in (gan.d_optim, gan.g_optim):
            optimizer.register_step_pre_hook(lambda *_: self.references.append(Reference(gan)))


def squared_norms(reference, x):
    """‖grad D(x)‖² for each image."""
    x = x.double().requires_grad_(True)
    (gradient,) = torch.autograd.grad(reference.logits(x).fun.sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(1)


def test_the_term_has_a_step_after_the_loss_and_counts_as_often_as_it_is_left_out():
    """On the real images of the first step, from the weights that it has moved; no image is generated for R1.

    Wrong: both gradients in one step, the term without its interval, or the gradient at the old weights.
    """
    real = batch()
    for update, due in ((0, True), (1, False), (4, True)):
        gan = build(small(terms=(LazyStep(R1(gamma=3.0, every=4)),), d_optim=Adam(lr=0.05)))
        watch = Steps(gan)
        stats = d_step(gan, real, 8 * update)
        assert len(watch.gradients) == 1 + due
        assert len(watch.z) == 1
        first = watch.references[0]
        fake = first.images(watch.z[0]).detach()
        loss = F.softplus(-first.logits(real.x).fun).mean() + F.softplus(first.logits(fake).fun).mean()
        assert_gradients(watch.gradients[0], first.gradient("D", loss), "D")
        assert ("D/R1" in stats) == due
        if due:
            second = watch.references[1]
            assert any((a - b).abs().max() > 1e-3 for a, b in zip(first.matrices("D"), second.matrices("D"), strict=True))
            penalty = squared_norms(second, real.x).mean()
            assert_gradients(watch.gradients[1], second.gradient("D", 4 * 3.0 / 2 * penalty), "D")
            assert stats["D/R1"].item() == pytest.approx(penalty.item(), rel=1e-5)


def test_terms_of_one_player_share_the_step_and_have_latents_of_their_own():
    """R2 sees new images, R1 the real ones of the first step. Wrong: the latents of the loss, or those of G."""
    terms = (LazyStep(R1(gamma=1.0, every=2)), LazyStep(R2(gamma=4.0, every=2)), Orthogonal(strength=0.1))
    gan, real = build(small(terms=terms)), batch()
    watch = Steps(gan)
    d_step(gan, real, 0)
    g_step(gan, real, 0)
    first, own, of_g = watch.z
    assert len(watch.gradients) == 3
    assert not (first == own).any()
    assert not (of_g == own).any()
    reference = watch.references[1]
    total = 2 * 0.5 * squared_norms(reference, real.x).mean()
    total = total + 2 * 2.0 * squared_norms(reference, reference.images(own).detach()).mean()
    assert_gradients(watch.gradients[1], reference.gradient("D", total), "D")


def test_terms_of_both_players_and_of_weights():
    """Each player steps twice. A memory counts all steps of its network, and constraints follow all."""
    terms = (LazyStep(Consensus(gamma=0.1, every=1)), HistoricalAverage(strength=0.1))
    gan, real = build(small(terms=terms, constraints=(ClipWeights(bound=0.3),), d_optim=Adam(lr=0.1))), batch()
    watch = Steps(gan)
    d_step(gan, real, 0)
    assert len(watch.gradients) == 2
    assert gan.memories("D")[0].t == 3
    assert all(p.abs().max() <= 0.3 for p in gan.D.parameters())
    g_step(gan, real, 0)
    assert len(watch.gradients) == 4
    assert all(any(p.abs().max() > 0 for p in g["G"].values()) for g in watch.gradients[2:])


def test_pieces_make_the_gradient_of_the_batch():
    found = []
    for micro_batch in (None, 2):
        gan = build(small(terms=(LazyStep(R1(every=2)), LazyStep(R2(every=2))), compute=Compute(micro_batch=micro_batch)))
        watch = Watch(gan)
        stats = d_step(gan, batch_of_ones_own(), 0)
        found.append((watch.gradients[1]["D"], stats))
    for name, gradient in found[0][0].items():
        assert_close(found[1][0][name], gradient, rtol=1e-4, atol=1e-7)
    assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-6)


def batch_of_ones_own():
    torch.manual_seed(3)
    return batch()


def test_g_still_learns_from_the_images_of_ds_loss():
    """Wrong: the images that D's terms had made for themselves are kept for G, or go into the pool."""
    own = LazyStep(R2(every=1))
    gan, real = build(small(terms=(own,), game=Generation(reuse=True))), batch()
    watch = Watch(gan)
    d_step(gan, real, 0)
    assert_close(gan.showing.kept.fake.x.detach(), gan.G(watch.z[0]))
    g_step(gan, real, 0)
    assert len(watch.z) == 3  # of the loss, of the term and of the line above: G's update made none

    gan = build(small(terms=(own,), game=Generation(shown=History(size=64))))
    d_step(gan, real, 0)
    other = build(small(game=Generation(shown=History(size=64))))
    d_step(other, real, 0)
    assert same(gan.showing.pool.state_dict(), other.showing.pool.state_dict())


# ---- the optimiser -----------------------------------------------------------------------------------------


def test_the_optimiser_is_corrected_for_all_its_steps(tmp_path):
    """lr · k/(k + 1), betas ** (k/(k + 1)), at the numbers of Karras et al.: k = 16 and 4."""
    d_term, g_term = LazyStep(R1(every=16)), LazyStep(Orthogonal(player="G", every=4))
    cfg = small(terms=(d_term, g_term), d_optim=Adam(lr=0.002), g_optim=Adam(lr=Linear(0.0025, 0.0, 0.128)))
    d, g = cfg.optim("D"), cfg.optim("G")
    assert d.lr == pytest.approx(0.002 * 16 / 17)
    assert d.betas == (0.0, pytest.approx(0.990585, abs=1e-6))
    assert g.betas[1] == pytest.approx(0.991992, abs=1e-6)
    assert [g.lr(nimg) for nimg in (0, 64, 128)] == [pytest.approx(0.8 * lr) for lr in (0.0025, 0.00125, 0.0)]
    train(cfg, tmp_path)
    groups = torch.load(newest(tmp_path) / "state.pt", weights_only=True)["optimizers"]
    assert groups["D"]["param_groups"][0]["lr"] == pytest.approx(0.002 * 16 / 17)
    assert groups["D"]["param_groups"][0]["betas"][1] == pytest.approx(0.990585, abs=1e-6)
    last_update = 0.0025 * (1 - 120 / 128)
    assert groups["G"]["param_groups"][0]["lr"] == pytest.approx(0.8 * last_update)
    assert small(terms=(R1(),)).optim("D") is not None
    plain = small(terms=(d_term, Orthogonal(player="G")))
    assert plain.optim("G") is plain.g_optim  # the other player's optimiser is as configured
    built = build(plain)
    assert built.d_optim.param_groups[0]["lr"] == pytest.approx(plain.d_optim.lr * 16 / 17)
    assert built.g_optim.param_groups[0]["lr"] == plain.g_optim.lr


def test_betas_that_are_schedules_and_rmsprop():
    adam = Adam(betas=(Linear(0.5, 0.0, 1.0), 0.9)).slowed(0.75)
    assert [adam.betas[0](nimg) for nimg in (0, 500, 1000)] == [0.5**0.75, 0.25**0.75, 0.0]
    rmsprop = RMSprop(lr=0.01, alpha=0.9).slowed(0.5)
    assert (rmsprop.lr, rmsprop.alpha) == (0.005, pytest.approx(0.9**0.5))
    assert rmsprop.build(torch.nn.Linear(1, 1)).defaults["alpha"] == pytest.approx(0.9**0.5)


@dataclass(frozen=True)
class Descent(OptimConfig):
    """An optimiser of one's own, without a correction."""

    def build(self, net):
        return torch.optim.SGD(net.parameters(), lr=0.1)

    def apply(self, optimizer, nimg):
        pass


def test_what_cannot_be_corrected_or_added_is_refused():
    own = LazyStep(R1(every=4))
    with pytest.raises(ValueError, match=r"does not say how to correct for steps.*use Adam or RMSprop"):
        small(terms=(own,), d_optim=Descent())
    small(terms=(own,), g_optim=Descent())  # G has no such term
    with pytest.raises(ValueError, match=r"own steps of D's terms come at intervals of \[4, 8\].*every=4"):
        small(terms=(own, LazyStep(R2(every=8))))
    small(terms=(own, LazyStep(Orthogonal(player="G", every=8)), R2(every=8)))
    with pytest.raises(ValueError, match=r"intervals of \[2, 4\]"):
        small(terms=(own, LazyStep(Orthogonal(player="both", every=2))))
    for wrong in (FeatureMatching(adversarial=False), own):
        with pytest.raises(ValueError, match="LazyStep takes a term that is added to its player's loss"):
            LazyStep(wrong)


# ---- in a run ------------------------------------------------------------------------------------------------


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path):
    terms = (LazyStep(R1(every=3)), LazyStep(HistoricalAverage(player="G", every=2)))
    cfg = small(terms=terms, augment=InstanceNoise(std=0.1), **{"report.snapshot_kimg": 0.032})
    assert_resumes(cfg, tmp_path, ("G", "D", "ema", "G_terms"))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12, which fears for other threads
def test_two_processes_take_the_steps_of_one(tmp_path):
    """Wrong: the second step without the mean of gradients."""
    cfg = small(terms=(LazyStep(R1(every=2)), LazyStep(R2(every=2))), d_optim=Adam(lr=1e-3, eps=1e-3))
    real = batch_of_ones_own()

    def work(rank=None):
        gan = build(cfg)
        own = real if rank is None else replace(real, x=real.x[4 * rank : 4 * rank + 4], y=real.y[4 * rank : 4 * rank + 4])
        d_step(gan, own, 0)
        return gan.D.state_dict()

    a, b = on_two_processes(work, tmp_path / "ranks")
    assert same(a, b)
    assert_close(a, dict(work()), rtol=1e-4, atol=1e-6)


def test_operations_of_the_own_step_are_counted():
    """R1 in a step of its own costs what it costs beside the loss: nothing is generated for it."""
    costs = [iteration_flops(small(terms=(term,)), SPEC) for term in (R1(), LazyStep(R1()))]
    assert costs[0] == costs[1]
