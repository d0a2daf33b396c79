"""How often D is updated before G: the rule on losses made by hand, and the trainer that follows it."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from loops import loop_over
from processes import on_two_processes
from runs import assert_same_run, lines, newest, same
from tiny import recipe

from equipoise.config import TrainConfig, override
from equipoise.core.types import ImageSpec
from equipoise.data import Digits, InfiniteBatches
from equipoise.losses import GradientPenalty, Wasserstein
from equipoise.losses import adversarial as losses
from equipoise.models import Head, MLPDiscriminator, MLPGenerator
from equipoise.rules import RMSprop, Rounds, ToConvergence
from equipoise.train import GAN, d_step, train
from equipoise.weights import ClipWeights, NoNormalizer

SPEC = ImageSpec(resolution=28, channels=1, num_classes=10)


# ---- the rule --------------------------------------------------------------------------------------------


def play(steps: int | ToConvergence, sequence) -> Rounds:
    """Update after update, with the losses of `sequence`, for as long as there are rounds."""
    rounds, found = Rounds(steps), iter(sequence)
    for i in rounds:
        assert i == len(rounds.stats)
        rounds.note({"D/loss": torch.tensor(next(found)), "D/real": torch.tensor(float(i))}, 8 * (i + 1))
    return rounds


def by_hand(until: ToConvergence, sequence: list[float]) -> int:
    """How many updates the docstring allows: the first multiple of `window` from 2 on at which the loss has settled."""
    w = until.window
    for n in range(2 * w, until.max_steps + 1, w):
        before, now = sum(sequence[n - 2 * w : n - w]) / w, sum(sequence[n - w : n]) / w
        if not before - now > until.tolerance * abs(before):
            return n
    return until.max_steps


@loop_over("steps", [1, 2, 5])
def test_a_fixed_number_of_updates_whatever_the_loss_does(steps):
    for sequence in ([1.0] * 9, [float(-i) for i in range(9)], [math.nan] * 9):
        rounds = play(steps, sequence)
        assert len(rounds.stats) == steps
        assert rounds.reported() == rounds.stats  # every one of them, and no count, which the config says already
        assert [nimg for _, nimg in rounds.reported()] == [8 * (i + 1) for i in range(steps)]


FALLING = [10.0 * 0.5**i for i in range(60)]
NEGATIVE = [-(1.5**i) for i in range(60)]  # a critic that finds ever more distance
RISING = [-value for value in NEGATIVE]
SETTLING = [max(-1 - i / 8, -3.0) for i in range(60)]  # negative, and flat in the end
CROSSING = [1.0 - 0.3 * i for i in range(60)]
NOISE = [math.sin(2.7 * i) for i in range(60)]


@loop_over(
    ("sequence", "window", "tolerance", "expected"),
    [
        ([1.0] * 60, 1, 0.01, 2),
        ([1.0] * 60, 4, 0.01, 8),
        ([1.0] * 60, 4, 0.0, 8),  # "not below" is enough
        ([0.0] * 60, 3, 0.01, 6),
        (FALLING, 3, 0.01, 50),
        (NEGATIVE, 3, 0.01, 50),  # compared with tolerance · before, and not with its magnitude, it would end at 6
        (RISING, 5, 0.01, 10),
        (CROSSING, 2, 0.01, 50),
        ([5.0, 4.0, 3.0, 2.0, 2.0, 1.0, 2.5, 1.0] + [0.0] * 52, 2, 0.01, 8),
        ([4.0, 4.0, 3.0, 3.0, 3.0, 3.0] + [0.0] * 54, 2, 0.01, 6),
        ([100.0, 100.0, 98.9, 98.9, 98.0, 98.0] + [0.0] * 54, 2, 0.01, 6),  # by 1.1 %, then by 0.9 %
        ([-100.0, -100.0, -101.1, -101.1, -102.0, -102.0] + [-200.0] * 54, 2, 0.01, 6),
        ([100.0] * 2 + [98.9] * 2 + [0.0] * 56, 2, 0.02, 4),
        ([1.0, math.nan] + [0.0] * 58, 2, 0.01, 4),
        ([4.0, 4.0, 3.0, 3.0, math.nan, 3.0] + [0.0] * 54, 2, 0.01, 6),
        ([math.inf] * 60, 2, 0.01, 4),
        ([3.0, 1.0, 3.0, 1.0] + [0.0] * 56, 2, 0.01, 4),  # the means of both windows are 2
        ([9.0, 5.0, 5.0] + [0.0] * 57, 2, 0.01, 8),  # 7, 2.5, 0, 0
    ],
)
def test_it_ends_exactly_when_the_loss_has_stopped_falling(sequence, window, tolerance, expected):
    until = ToConvergence(tolerance=tolerance, window=window, max_steps=50)
    assert len(play(until, sequence).stats) == expected


@loop_over("sequence", [FALLING, NEGATIVE, RISING, SETTLING, CROSSING, NOISE])
@loop_over("window", [1, 2, 3, 7, 20])
def test_it_is_the_rule_written_out(sequence, window):
    for tolerance, max_steps in itertools.product((0.0, 0.01, 0.2), {2 * window, 2 * window + 1, 41, 60}):
        until = ToConvergence(tolerance=tolerance, window=window, max_steps=max_steps)
        assert len(play(until, sequence).stats) == by_hand(until, sequence), until


@loop_over("window", [1, 3, 20])
def test_fewer_updates_than_two_windows_are_refused(window):
    """There would be nothing to compare, so `max_steps` would be all that counts."""
    for max_steps in {1, window, 2 * window - 1}:
        advice = f"max_steps={max_steps} is less than two windows of {window} updates .* max_steps={2 * window}, "
        with pytest.raises(ValueError, match=advice):
            ToConvergence(window=window, max_steps=max_steps)
    assert len(play(ToConvergence(window=window, max_steps=2 * window), FALLING).stats) == 2 * window


@loop_over(("sequence", "updates"), [(FALLING, 7), ([1.0] * 60, 6)])
def test_it_reports_the_last_window_and_how_many_there_were(sequence, updates):
    """Of a critic on its way to convergence, what it says at the end is worth writing."""
    rounds = play(ToConvergence(window=3, max_steps=7), sequence)
    assert len(rounds.stats) == updates
    reported = rounds.reported()
    assert [stats["D/real"].item() for stats, _ in reported] == [float(i) for i in range(updates)][-3:]
    assert [nimg for _, nimg in reported] == [8 * (i + 1) for i in range(updates)][-3:]
    assert all(stats["D/steps"].item() == updates for stats, _ in reported)
    assert all("D/steps" not in stats for stats, _ in rounds.stats)


def play_on_rank(rank: int) -> int:
    """D has converged on the images of one process, and goes on falling on those of the other: how many updates."""
    sequence = [1.0] * 60 if rank == 0 else [4.0 - 0.5 * i for i in range(7)] + [0.5] * 53
    return len(play(ToConvergence(window=1, max_steps=50), sequence).stats)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12, which fears for other threads
def test_all_processes_go_by_their_mean_loss(tmp_path):
    """Else one would wait for ever for another's gradients. The mean falls to 0.75 at the eighth update, and stays."""
    assert on_two_processes(play_on_rank, tmp_path / "ranks") == [9, 9]


# ---- in the trainer --------------------------------------------------------------------------------------

SOONER = ToConvergence(window=2, max_steps=7)
BOUNDS = {
    "clipping": {"constraints": (ClipWeights(bound=0.05),), "d_optim": RMSprop(lr=1e-3), "g_optim": RMSprop(lr=1e-3)},
    "gradient penalty": {"terms": (GradientPenalty(),)},
}


def wasserstein(**changes) -> TrainConfig:
    networks = {
        "generator": MLPGenerator(z_dim=4, width=8, depth=1),
        "discriminator": MLPDiscriminator(width=8, depth=1),
        "head": Head(),
        "d_normalizer": NoNormalizer(),
        "loss": Wasserstein(),
        "total_kimg": 0.2,
        "report.log_kimg": 0.008,  # so that each iteration writes a line
        "report.snapshot_kimg": 0.1,
    }
    return override(recipe(), networks | changes)


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(bound, tmp_path):
    cfg = wasserstein(d_steps=SOONER, **BOUNDS[bound])
    whole = train(cfg, tmp_path / "whole").state_dict()
    train(override(cfg, {"total_kimg": 0.12}), tmp_path / "cut")
    assert int(newest(tmp_path / "cut").name) < int(newest(tmp_path / "whole").name)
    assert same(train(cfg, tmp_path / "cut").state_dict(), whole)
    assert_same_run(tmp_path / "whole", tmp_path / "cut", ("G", "D"))
    of_a_snapshot = ("images_per_second", "D/sigma", "D/lipschitz", "doctor/")  # which the end of a run adds to a line
    for a, b in zip(lines(tmp_path / "whole"), lines(tmp_path / "cut"), strict=True):
        for key in a.keys() | b.keys():
            assert key.startswith(of_a_snapshot) or a[key] == b[key]


@loop_over("bound", BOUNDS)
def test_a_run_says_how_many_updates_it_took_and_counts_their_images(bound, tmp_path):
    """A line an iteration: its number of updates, an even one or the most, times the batch is how far nimg went."""
    train(wasserstein(d_steps=SOONER, **BOUNDS[bound]), tmp_path)
    written, before = lines(tmp_path), 0
    assert written[0]["nimg"] > 0
    for line in written:
        assert line["D/steps"] in (4, 6, 7)
        assert line["nimg"] - before == line["D/steps"] * 8
        before = line["nimg"]
        assert line["D/wasserstein"] == pytest.approx(line["D/real"] - line["D/fake"], rel=1e-4, abs=1e-5)
        assert line["D/wasserstein"] == pytest.approx(-line["D/loss"], rel=1e-4, abs=1e-5)
    assert before >= 200
    assert before - written[-1]["D/steps"] * 8 < 200  # no iteration began after the end


def test_a_fixed_number_counts_its_images_and_reports_no_number(tmp_path):
    train(wasserstein(d_steps=3, **BOUNDS["clipping"]), tmp_path)
    written = lines(tmp_path)
    assert [line["nimg"] for line in written] == list(range(24, 217, 24))
    assert all("D/steps" not in line for line in written)


def test_a_critic_trained_to_convergence_finds_more_distance_than_one_step_does():
    """On a generator at rest, with images that it has not been trained on. D's maximum over a ball is the distance."""
    cfg = wasserstein(constraints=(ClipWeights(bound=0.05),), d_optim=RMSprop(lr=2e-3), batch_size=32)
    gan = GAN.build(cfg, SPEC)
    batches = InfiniteBatches(Digits().build(), cfg.batch_size, seed=0)
    at_rest = {name: value.clone() for name, value in gan.G.state_dict().items()}

    def estimate():
        """The mean of the last window, as a run reports it."""
        return torch.stack([stats["D/wasserstein"] for stats, _ in rounds.reported()]).mean().item()

    nimg, found = 0, []
    for steps in (1, ToConvergence(window=5, max_steps=400)):
        rounds = Rounds(steps)
        for _ in rounds:
            stats = d_step(gan, next(batches), nimg)
            nimg += cfg.batch_size
            rounds.note(stats, nimg)
        found.append(estimate())
    assert 20 <= len(rounds.stats) < 400  # it did converge, and not at once
    assert found[1] > 2 * abs(found[0])
    assert found[1] > 0
    assert all(torch.equal(value, at_rest[name]) for name, value in gan.G.state_dict().items())


@loop_over("name", losses.__all__)
def test_only_the_wasserstein_loss_estimates_that_distance(name):
    loss = getattr(losses, name)
    if not dataclasses.is_dataclass(loss):
        return
    gan = GAN.build(wasserstein(loss=loss(), **BOUNDS["clipping"]), SPEC)
    stats = d_step(gan, next(InfiniteBatches(Digits().build(), 8, seed=0)), 0)
    assert ("D/wasserstein" in stats) == (loss is Wasserstein)
    assert "D/steps" not in stats
