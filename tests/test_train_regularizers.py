"""Regularisers in the trainer: gradients of both players against the whole differentiated in one piece."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from loops import loop_over
from reference import Reference, Watch, assert_gradients, batch, build, small
from runs import assert_resumes, lines, newest, saved
from tiny import recipe
from torch.testing import assert_close

import equipoise.train
from equipoise.losses import HistoricalAverage, Orthogonal, SpectralNormPenalty
from equipoise.train import d_step, g_step, train
from equipoise.weights import ClipWeights

# ---- regularisers ----------------------------------------------------------------------------------------


def correlations(matrix):
    """Σ_{i ≠ j} <w_i, w_j>² over the rows, one by one."""
    return sum((a @ b) ** 2 for i, a in enumerate(matrix) for j, b in enumerate(matrix) if i != j)


def sigma_squared(matrix):
    return torch.linalg.matrix_norm(matrix, 2) ** 2


TERMS = (Orthogonal(strength=0.02, every=3), SpectralNormPenalty(strength=0.3, every=2))


def regularised(reference, player, update):
    """Both `TERMS` as they are due: strength · every · value."""
    zero = torch.zeros((), dtype=torch.float64)
    total = {"Orthogonal": zero, "SpectralNormPenalty": zero}
    if update % 3 == 0:
        total["Orthogonal"] = 3 * 0.02 * sum(correlations(w) for w in reference.matrices(player) if len(w) > 1)
    if update % 2 == 0:
        total["SpectralNormPenalty"] = 2 * 0.3 / 2 * sum(sigma_squared(w) for w in reference.matrices(player))
    return total


@loop_over("update", [0, 2, 3, 5, 6])
def test_ds_gradient_is_that_of_its_loss_and_its_regularizers(update):
    gan, real = build(small(terms=TERMS)), batch()
    watch, reference = Watch(gan), Reference(gan)
    stats = d_step(gan, real, 8 * update)
    fake = reference.images(watch.z[0]).detach()
    adversarial = F.softplus(-reference.logits(real.x).fun).mean() + F.softplus(reference.logits(fake).fun).mean()
    terms = regularised(reference, "D", update)
    assert_gradients(watch.gradients[0], reference.gradient("D", adversarial + sum(terms.values())), "D")
    assert stats["D/loss"].item() == pytest.approx(adversarial.item(), rel=1e-5)  # a loss is reported without them
    assert ("D/Orthogonal" in stats) == (update % 3 == 0)
    assert ("D/SpectralNormPenalty" in stats) == (update % 2 == 0)
    if update == 0:
        assert stats["D/Orthogonal"].item() == pytest.approx(terms["Orthogonal"].item() / 0.06, rel=1e-5)
        assert stats["D/SpectralNormPenalty"].item() == pytest.approx(
            terms["SpectralNormPenalty"].item() / 0.3, rel=1e-5
        )


@loop_over("d_steps", [1, 2])
def test_gs_gradient_is_that_of_its_loss_and_its_regularizers(d_steps):
    """`every` counts updates of G, also where D makes more of them. Few pixels: correlations are a pair's each."""
    cfg = small(terms=tuple(replace(term, player="G") for term in TERMS), d_steps=d_steps)
    gan, real = build(cfg, pixels=3), batch(pixels=3)
    watch = Watch(gan)
    for update in range(7):
        reference = Reference(gan)
        stats = g_step(gan, real, 8 * d_steps * update)
        adversarial = F.softplus(-reference.logits(reference.images(watch.z[-1])).fun).mean()
        wanted = reference.gradient("G", adversarial + sum(regularised(reference, "G", update).values()))
        assert_gradients(watch.gradients[-1], wanted, "G")
        assert ("G/Orthogonal" in stats) == (update % 3 == 0)
        assert ("G/SpectralNormPenalty" in stats) == (update % 2 == 0)


@pytest.mark.parametrize("d_steps", [1, 2])
def test_in_a_run_a_lazy_regularizer_of_g_is_due_on_every_so_many_updates(d_steps, tmp_path):
    cfg = small(
        terms=(Orthogonal(every=3, player="G"),),
        d_steps=d_steps,
        **{"report.log_kimg": 0.008},
        total_kimg=0.056 * d_steps,
    )
    train(cfg, tmp_path)
    assert ["G/Orthogonal" in line for line in lines(tmp_path)] == [True, False, False, True, False, False, True]


# ---- the mean of the past --------------------------------------------------------------------------------

REMEMBERING = {
    "terms": (HistoricalAverage(strength=0.5, every=2), Orthogonal(), HistoricalAverage(strength=0.3, player="G")),
    "constraints": (ClipWeights(bound=0.05),),
}


def test_a_run_with_historical_averages_resumes_bit_for_bit(tmp_path):
    assert_resumes(small(**REMEMBERING), tmp_path, ("G", "D", "ema", "G_terms", "D_terms"))


def flat(net):
    return torch.cat([p.detach().double().flatten() for p in net.parameters()])


def test_the_checkpoint_holds_the_mean_of_the_parameters_that_each_step_started_from(tmp_path, monkeypatch):
    """The next step's included, so after projection: t steps have been made and t + 1 places seen."""
    past = {"D": [], "G": []}

    def noting(player, step):
        def wrapped(gan, *args):
            if not past[player]:
                past[player].append(flat(getattr(gan, player)))
            found = step(gan, *args)
            past[player].append(flat(getattr(gan, player)))
            return found

        return wrapped

    monkeypatch.setattr(equipoise.train.loop, "d_step", noting("D", d_step))
    monkeypatch.setattr(equipoise.train.loop, "g_step", noting("G", g_step))
    train(small(**REMEMBERING, d_steps=2), tmp_path)
    for player, steps in (("D", 16), ("G", 8)):
        buffers = saved(tmp_path, f"{player}_terms")
        assert set(buffers) == {"0.mean", "0.t"}
        assert buffers["0.t"].item() == len(past[player]) == steps + 1
        assert_close(buffers["0.mean"].double(), torch.stack(past[player]).mean(0), rtol=1e-5, atol=1e-7)


def test_the_gradient_of_a_historical_average_is_that_of_the_distance_to_the_mean():
    """2 · strength · (θ - mean), added to that of the loss; nothing at the first step, which has no past."""
    cfg = small(terms=(HistoricalAverage(strength=0.5),), d_optim=replace(recipe().d_optim, lr=0.05))
    gan = build(cfg)
    watch, past = Watch(gan), []
    for update in range(4):
        past.append({n: p.detach().double() for n, p in gan.D.named_parameters()})
        reference, real = Reference(gan), batch()
        stats = d_step(gan, real, 8 * update)
        fake = reference.images(watch.z[-1]).detach()
        total = F.softplus(-reference.logits(real.x).fun).mean() + F.softplus(reference.logits(fake).fun).mean()
        pull = {n: past[-1][n] - torch.stack([then[n] for then in past]).mean(0) for n in past[0]}
        wanted = {n: g + 2 * 0.5 * pull[n] for n, g in reference.gradient("D", total).items()}
        assert_gradients(watch.gradients[-1], wanted, "D")
        value = sum(part.square().sum() for part in pull.values()).item()
        assert stats["D/HistoricalAverage"].item() == pytest.approx(value, rel=1e-4, abs=1e-9)


def test_what_has_no_state_has_no_file(tmp_path):
    """So checkpoints from before there were regularisers are gone on from."""
    train(small(), tmp_path)
    assert {path.stem for path in newest(tmp_path).glob("*.safetensors")} == {"G", "D", "ema"}
