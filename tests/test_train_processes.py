"""Two processes that train together hold the same players and the same pasts."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch
from reference import small
from runs import lines, newest, same

import equipoise.train
from equipoise.config import TrainConfig
from equipoise.critic import ToConvergence
from equipoise.joint import Consensus
from equipoise.matching import FeatureMatching
from equipoise.regularizers import HistoricalAverage
from equipoise.train import GAN, train


def train_and_tell(cfg: TrainConfig, run_dir: Path, rank: int) -> None:
    """As one of two processes: train, and write what this one holds in the end."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{run_dir}.store", rank=rank, world_size=2)
    built, build = [], GAN.build
    equipoise.train.GAN.build = lambda *args: built.append(build(*args)) or built[0]
    train(cfg, run_dir)
    gan = built[0]
    parts = {"G": gan.G, "D": gan.D, "g": gan.g_regularizations[0], "d": gan.d_regularizations[0]}
    torch.save({name: part.state_dict() for name, part in parts.items()}, f"{run_dir}.rank{rank}")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12, which fears for other threads
@pytest.mark.parametrize("d_steps", [2, ToConvergence(window=2, max_steps=6)], ids=["fixed", "ToConvergence"])
def test_two_processes_hold_equal_players_and_equal_pasts(d_steps, tmp_path):
    """And D converges on both at once. Forked, which takes no time; gloo may abort after the work, so files judge."""
    average = (HistoricalAverage(strength=0.5),)
    cfg = small(
        d_regularizers=average,
        g_regularizers=average,
        joint_penalties=(Consensus(gamma=0.1),),
        feature_matching=FeatureMatching(strength=0.1),
        d_steps=d_steps,
    )
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=train_and_tell, args=(cfg, tmp_path / "run", rank)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
        process.kill()  # one that waits for the other for ever
    a, b = (torch.load(tmp_path / f"run.rank{rank}", weights_only=True) for rank in (0, 1))
    for name in ("G", "D", "g", "d"):
        assert same(a[name], b[name]), name
    assert a["d"]["t"] == 1 + int(newest(tmp_path / "run").name) / 8  # of updates, and where they began
    assert lines(tmp_path / "run")[0]["D/Consensus"] > 0
