"""Two processes that train together hold the same players and the same pasts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from processes import on_two_processes
from reference import small
from runs import lines, newest, same

from equipoise.losses import Consensus, FeatureMatching, HistoricalAverage
from equipoise.rules import ToConvergence
from equipoise.train import GAN, train


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
