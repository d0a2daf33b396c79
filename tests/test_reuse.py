"""G's update on the images of D's last one: what it computes, what it saves, and where it is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from loops import loop_over
from runs import assert_resumes
from tiny import recipe
from torch import nn
from torch.testing import assert_close

from equipoise.augment import ADA
from equipoise.compute.settings import Compute
from equipoise.config import override
from equipoise.core.randomness import Purpose
from equipoise.core.types import Batch
from equipoise.data import Digits, InfiniteBatches
from equipoise.losses import GradientPenalty
from equipoise.rules import Generation, ToConvergence
from equipoise.train import GAN, d_step, g_step, iteration_flops


def built(**changes):
    cfg = replace(recipe(), **changes)
    dataset = cfg.data.build()
    gan = GAN.build(cfg, dataset.spec)
    z = []
    gan.G.register_forward_hook(lambda _, given, __: z.append(given[0]))
    return gan, next(InfiniteBatches(dataset, cfg.batch_size, seed=0)), z


def weights(net):
    return nn.utils.parameters_to_vector(net.parameters()).detach()


def test_d_learns_as_without():
    ends = []
    for reuse in (False, True):
        gan, batch, _ = built(game=Generation(reuse=reuse), terms=(GradientPenalty(),))
        d_step(gan, batch, 0)
        ends.append(weights(gan.D))
    assert torch.equal(*ends)


def test_g_learns_from_the_images_that_d_has_seen():
    """As if it made them again from the same z, but for batch norm's averages, which move once."""
    gan, batch, z = built(game=Generation(reuse=True))
    d_step(gan, batch, 0)
    g_step(gan, batch, 0)
    assert len(z) == 1

    again, batch, other_z = built()
    d_step(again, batch, 0)
    again.latents = lambda like, purpose, nimg: GAN.latents(again, like, Purpose.Z_FOR_D, nimg)
    g_step(again, batch, 0)
    assert torch.equal(other_z[0], other_z[1])
    assert torch.equal(z[0], other_z[0])
    assert_close(weights(gan.G), weights(again.G), rtol=0, atol=1e-7)


def test_without_it_g_meets_images_of_its_own():
    gan, batch, z = built()
    d_step(gan, batch, 0)
    g_step(gan, batch, 0)
    assert len(z) == 2
    assert not torch.equal(*z)


def test_of_several_updates_of_d_the_last_counts_and_nothing_is_kept_after():
    gan, batch, z = built(game=Generation(reuse=True), d_steps=3)
    for i in range(3):
        d_step(gan, batch, 8 * i)
    kept = gan.showing.kept.fake.x
    seen = []
    gan.D.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    g_step(gan, batch, 0)
    assert len(z) == 3
    assert torch.equal(seen[0], kept)
    assert gan.showing.kept is None
    g_step(gan, batch, 0)  # in a loop of one's own: with images of its own
    assert len(z) == 4


def test_the_graph_of_an_earlier_update_is_gone_before_the_next_is_built():
    gan, batch, _ = built(game=Generation(reuse=True), d_steps=2)
    kept = []
    gan.G.register_forward_pre_hook(lambda *_: kept.append(gan.showing.kept))
    d_step(gan, batch, 0)
    d_step(gan, batch, 8)
    assert kept == [None, None]


def test_another_batch_than_ds_is_refused():
    gan, batch, _ = built(game=Generation(reuse=True))
    d_step(gan, batch, 0)
    with pytest.raises(ValueError, match=r"update on 4 images follows one of D on 8\. Give"):
        g_step(gan, Batch(batch.x[:4], batch.y[:4]), 0)


def test_it_saves_one_forward_of_g():
    spec, cfg = Digits().build().spec, recipe()
    gan, batch, _ = built()
    forward = torch.utils.flop_counter.FlopCounterMode(display=False)
    with forward, torch.no_grad():
        gan.generate(batch, Purpose.Z_FOR_G, 0)
    saved = iteration_flops(cfg, spec) - iteration_flops(replace(cfg, game=Generation(reuse=True)), spec)
    assert saved == forward.get_total_flops() > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"compute": Compute(precision="bf16")},
        {"augment": ADA(heuristic="rv", held_out=0.1), "terms": (GradientPenalty(),)},
        {"d_steps": ToConvergence(window=1, max_steps=2)},
    ],
)
def test_resumes_bit_for_bit(changes, tmp_path):
    assert_resumes(replace(recipe(), total_kimg=0.096, game=Generation(reuse=True), **changes), tmp_path)


@loop_over("changes", [{"g_batches": 2}, {"compute.micro_batch": 4}])
def test_where_other_images_are_needed_it_is_refused(changes):
    with pytest.raises(ValueError, match=r"game.reuse=true and (g_batches|compute.micro_batch)=.*game.reuse=false"):
        override(recipe(), {"game.reuse": True} | changes)
