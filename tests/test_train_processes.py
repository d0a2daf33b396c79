"""Two processes that train together hold the same players and the same pasts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from processes import on_two_processes
from reference import small
from runs import lines, newest, same

from equipoise.augment import ADA
from equipoise.augment.ada import AdaptiveAugmentation
from equipoise.core.randomness import seed_torch
from equipoise.losses import Consensus, FeatureMatching, HistoricalAverage
from equipoise.rules import ToConvergence
from equipoise.train import GAN, d_step, train


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12, which fears for other threads
@pytest.mark.parametrize("d_steps", [2, ToConvergence(window=2, max_steps=6)], ids=["fixed", "ToConvergence"])
def test_two_processes_hold_equal_players_and_equal_pasts(d_steps, tmp_path, monkeypatch):
    """And D converges on both at once."""
    average = HistoricalAverage(strength=0.5)
    cfg = small(
        terms=(
            average,
            replace(average, player="G"),
            FeatureMatching(strength=0.1),
            Consensus(gamma=0.1),
        ),
        d_steps=d_steps,
    )
    built, build = [], GAN.build
    monkeypatch.setattr(GAN, "build", lambda *args: built.append(build(*args)) or built[0])

    def work(rank):
        train(cfg, tmp_path / "run")
        (gan,) = built
        parts = {"G": gan.G, "D": gan.D, "g": gan.memories("G")[0], "d": gan.memories("D")[0]}
        return {name: part.state_dict() for name, part in parts.items()}

    a, b = on_two_processes(work, tmp_path / "ranks")
    for name in ("G", "D", "g", "d"):
        assert same(a[name], b[name]), name
    assert a["d"]["t"] == 1 + int(newest(tmp_path / "run").name) / 8  # of updates, and where they began
    assert lines(tmp_path / "run")[0]["D/Consensus"] > 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12, which fears for other threads
def test_two_processes_adapt_to_the_mean_of_their_logits_and_draw_different_numbers(tmp_path, monkeypatch):
    """Wrong: p that goes by the images of one process, and augmentation that is the same on all."""
    cfg = small(augment=ADA(heuristic="rv", held_out=0.1, groups=("blit",)), total_kimg=0.064)
    own, adapted, seeds, adapt = [], [], [], AdaptiveAugmentation.adapt

    def step(*args):
        stats = d_step(*args)
        own.append(torch.stack([stats[f"D/{name}"] for name in ("sign_real", "real", "fake", "held_out")]))
        return stats

    def adapting(self, sign_real, num_images, means):
        adapted.append(torch.stack([sign_real, *means[:3]]))
        assert num_images == 8  # of both processes
        return adapt(self, sign_real, num_images, means)

    def seeding(*args):
        seed_torch(*args)
        seeds.append(torch.initial_seed() % 2**63)

    monkeypatch.setattr("equipoise.train.loop.d_step", step)
    monkeypatch.setattr("equipoise.train.loop.seed_torch", seeding)
    monkeypatch.setattr(AdaptiveAugmentation, "adapt", adapting)

    def work(rank):
        train(cfg, tmp_path / "run")
        return torch.stack(own), torch.stack(adapted), torch.tensor(seeds)

    (own_a, a, seeds_a), (own_b, b, seeds_b) = on_two_processes(work, tmp_path / "ranks")
    assert torch.equal(a, b)
    torch.testing.assert_close(a, (own_a + own_b) / 2, rtol=1e-6, atol=1e-7)
    assert ((own_a - own_b).abs() > 1e-4).any(0).all()  # each of the four says something
    assert torch.cat([seeds_a, seeds_b]).unique().numel() == 2 * 8  # of two processes in eight iterations
