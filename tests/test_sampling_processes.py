"""Images drawn on two processes: each draws its share of the batches, and one writes what one process would."""

from __future__ import annotations

import numpy as np
import pytest
from networks import of_g
from processes import on_two_processes
from reference import SPEC

from equipoise.generate import Generator, write_samples
from equipoise.generate import generator as sampling
from equipoise.models import MLPGenerator


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("conditional", [False, True])
def test_two_processes_share_the_batches_and_write_what_one_does(tmp_path, monkeypatch, conditional):
    config = MLPGenerator(z_dim=4, width=6, depth=2)
    spec = of_g(SPEC, conditional)
    generator = Generator(config.build(spec).eval().requires_grad_(False), config, spec)
    drawn, draw = [], sampling.images
    monkeypatch.setattr(sampling, "images", lambda G, z, y: drawn.append(len(z)) or draw(G, z, y))
    write_samples(generator, tmp_path / "one.npz", num=620, seed=3)
    assert drawn == [250, 250, 120]
    drawn.clear()

    def work(rank):
        for name in ("two.npz", "few"):
            write_samples(generator, tmp_path / name, num=620 if name == "two.npz" else 2, seed=3)
        with pytest.raises(ValueError, match="is not empty"):  # on both
            write_samples(generator, tmp_path / "few", num=2)
        return drawn

    assert on_two_processes(work, tmp_path / "ranks") == [[250, 120, 2], [250]]
    one, two = (np.load(tmp_path / f"{name}.npz") for name in ("one", "two"))
    assert set(one) == set(two) == ({"x", "y"} if conditional else {"x"})
    for key in one:
        assert np.array_equal(one[key], two[key])
    assert len(list((tmp_path / "few").rglob("*.png"))) == 2
