"""Noise on real images: what it is, who gets it, and that it is a function of seed, purpose, rank and position."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from equipoise.augment import ADA
from equipoise.config import components, override, to_text
from equipoise.core.grammar import parse
from equipoise.core.randomness import Purpose
from equipoise.core.types import Batch
from equipoise.data import ArrayDataset, to_float, to_uint8
from equipoise.data.pixels import dequantise
from equipoise.models import SemiSupervised
from equipoise.nn import enlarge
from equipoise.recipes import load
from equipoise.rules import NoGrowth, ProgressiveGrowing, Stages
from equipoise.train import BatchesByStage, loop
from tests import tiny
from tests.runs import assert_resumes

WIDTH = 1 / 128


def test_it_is_uniform_between_0_and_the_width():
    x = to_float(torch.full((1, 1, 200, 500), 255, dtype=torch.uint8))
    u = ((dequantise(x.double(), WIDTH, torch.Generator().manual_seed(0)) - 1) / WIDTH).flatten()
    assert (u >= 0).all()
    assert (u < 1).all()
    assert_close(torch.histc(u, 10, 0, 1), torch.full((10,), 1e4, dtype=u.dtype), rtol=0.04, atol=0)
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.01


def test_without_width_it_is_the_image_itself_and_draws_nothing():
    x, generator = torch.rand(2, 1, 4, 4), torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert dequantise(x, 0.0, generator) is x
    assert torch.equal(generator.get_state(), before)


def noise(images=24, start=0, batches=3, growth=None, **options):
    """What is added to grey images, (batches, N, 1, 8, 8), in units of the width."""
    data = ArrayDataset(np.full((images, 1, 8, 8), 100, np.uint8), None)
    stages = Stages(growth or NoGrowth(), 8, 8)
    with BatchesByStage(data, stages=stages, seed=0, start=start, noise=WIDTH, **options) as stream:
        found = torch.stack([next(stream).x for _ in range(batches)])
    return (found - to_float(torch.tensor(100, dtype=torch.uint8))) / WIDTH


def test_no_two_values_share_a_number_and_a_stream_goes_on_as_the_whole():
    whole = noise()
    assert (whole > -1e-4).all()
    assert (whole < 1 + 1e-4).all()
    assert len(whole.unique()) > 0.9 * whole.numel()  # of 2^15 steps or so that float32 has at 1/128
    assert torch.equal(noise(start=8, batches=2), whole[1:])
    assert not torch.equal(noise(images=8)[0], noise(images=8)[1])  # another epoch, the same images


def test_ranks_and_uses_have_noise_of_their_own():
    ranks = [noise(rank=rank, world=2) for rank in (0, 1)]
    uses = [noise(purpose=p) for p in (Purpose.NOISE_ON_REAL, Purpose.NOISE_ON_HELD_OUT, Purpose.NOISE_ON_LABELLED)]
    for first, second in ((ranks[0], ranks[1]), (uses[0], uses[1]), (uses[0], uses[2]), (uses[1], uses[2])):
        assert abs(np.corrcoef(first.flatten(), second.flatten())[0, 1]) < 0.1


def test_growth_takes_detail_from_the_noisy_image():
    """As from any other: at half the size the noise of a square of four is their mean, not one draw."""
    u = noise(growth=ProgressiveGrowing(initial=4))
    assert torch.equal(u, enlarge(u[..., ::2, ::2].flatten(0, 1), 1).view_as(u))
    assert u.std().item() == pytest.approx(1 / 12**0.5 / 2, rel=0.1)


# ---- in training ---------------------------------------------------------------------------------------------------


def config(**changes):
    return override(tiny.recipe(), {"dequantise": WIDTH, "total_kimg": 0.032} | changes)


def seen(cfg, run_dir, monkeypatch):
    """The batches of each step of D: real images, held out, labelled."""
    found, step = [], loop.d_step

    def spy(gan, batch, nimg, held_out=None, labelled=None):
        found.append((batch, held_out, labelled))
        return step(gan, batch, nimg, held_out, labelled)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "d_step", spy)
        loop.train(cfg, run_dir)
    return found


def added(batch: Batch):
    """The noise of bytes, in units of the width: less than a step between two of them."""
    down = to_uint8(batch.x - WIDTH / 2)
    return (batch.x - to_float(down)) / WIDTH


def test_the_images_of_a_run_are_its_bytes_and_the_noise(tmp_path, monkeypatch):
    plain = seen(config(dequantise=0.0), tmp_path / "plain", monkeypatch)
    noisy = seen(config(), tmp_path / "noisy", monkeypatch)
    assert len(plain) == len(noisy) == 4
    for (without, *_), (batch, *_) in zip(plain, noisy, strict=True):
        u = (batch.x - without.x) / WIDTH
        assert (u > -1e-4).all()
        assert (u < 1 + 1e-4).all()
        assert u.mean().item() == pytest.approx(0.5, abs=0.03)
        assert torch.equal(batch.y, without.y)


def test_held_out_and_labelled_images_get_it_too(tmp_path, monkeypatch):
    changes = {"head.conditioning": SemiSupervised(), "head.san": False}
    ada = ADA(heuristic="rv", held_out=0.1)
    cfg = config(**changes, augment=ada, loss=load("improved_gan")[0].loss)
    for batches in seen(cfg, tmp_path, monkeypatch):
        u = torch.stack([added(batch).flatten() for batch in batches])
        assert u.mean(1).tolist() == pytest.approx([0.5, 0.5, 0.5], abs=0.03)
        assert (torch.corrcoef(u) - torch.eye(3)).abs().max() < 0.1


def test_a_run_with_noise_resumes_bit_for_bit(tmp_path):
    assert_resumes(config(), tmp_path)


def test_it_is_a_setting_like_the_others():
    cfg = config()
    assert parse(to_text(cfg), components()).dequantise == WIDTH
    older = to_text(cfg).replace("    dequantise=0.0078125,\n", "")
    assert parse(older, components()).dequantise == 0
    with pytest.raises(ValueError, match="dequantise"):
        config(dequantise=-0.1)
