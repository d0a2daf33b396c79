"""R1's and R2's gamma as a function of resolution and batch size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from reference import SPEC, batch, build, small

from equipoise.compute.settings import Compute
from equipoise.config import components, override, to_text
from equipoise.core.grammar import parse
from equipoise.core.types import Batch
from equipoise.losses import R1, R2, ByResolution, LazyStep
from equipoise.rules import ProgressiveGrowing
from equipoise.train import GAN, d_step


def test_it_is_the_published_rule():
    """0.0002 size² / batch; the numbers of Karras et al. for 1024, 512, 256 pixels with batches of 4, 8, 16."""
    for size, images, gamma in ((1024, 4, 52.4288), (512, 8, 6.5536), (256, 16, 0.8192), (32, 32, 0.0064)):
        assert ByResolution(0.0002).at(size, images) == pytest.approx(gamma)
        assert ByResolution(0.0004).at(size=size, batch=images) == pytest.approx(2 * gamma)


def test_a_run_takes_the_number_of_its_data_and_its_batch():
    """Of the whole batch and the full size, whatever pieces, copies of labels and stages. Wrong: the rule at 1 image."""
    factor = 0.5
    wanted = factor * 28**2 / 8
    changes = ({}, {"compute": Compute(micro_batch=2)}, {"g_batches": 2}, {"growth": ProgressiveGrowing(initial=7)})
    for change in changes:
        for term in (R1(gamma=ByResolution(factor)), R2(gamma=ByResolution(factor)), LazyStep(R1(gamma=ByResolution(factor)))):
            cfg = small(terms=(term,)) if "growth" in change else small(terms=(term,), **change)
            gan = GAN.build(cfg, SPEC)
            (pair,) = gan.added["D"]
            assert pair[0] == term
            assert pair[1].weight(0) == pytest.approx(wanted / 2)
    assert R1(gamma=ByResolution(factor)).for_data(replace(SPEC, resolution=64), 16).gamma == factor * 64**2 / 16
    assert R1(gamma=3.0).for_data(SPEC, 8) == R1(gamma=3.0)


def test_the_step_is_that_of_the_number():
    real, found = batch(), []
    for gamma in (ByResolution(0.05), 0.05 * 28**2 / 8, 0.05):
        gan = build(small(terms=(R1(gamma=gamma, every=1),)))
        torch.manual_seed(0)
        d_step(gan, real, 0)
        found.append(torch.nn.utils.parameters_to_vector(gan.D.parameters()))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_it_is_a_part_of_a_config():
    cfg = small(terms=(LazyStep(R1(gamma=ByResolution(0.0002))),))
    assert parse(to_text(cfg), components()) == cfg
    assert override(cfg, {"terms.0.term.gamma.factor": 0.1}).terms[0].term.gamma == ByResolution(0.1)
    with pytest.raises(ValueError, match="factor"):
        ByResolution(-1.0)


def test_outside_a_run_it_says_what_it_lacks():
    with pytest.raises(ValueError, match=r"ByResolution\(factor=0.0002\).at\(size=256, batch=16\)"):
        R1(gamma=ByResolution()).weight(0)
    value = R1(gamma=ByResolution())(lambda x, y: x.flatten(1).sum(1, keepdim=True), Batch(torch.zeros(2, 1, 3, 3)))
    assert value.tolist() == [9.0, 9.0]  # the penalty itself is unweighted
