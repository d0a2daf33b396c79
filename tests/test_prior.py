"""The distribution of z, and that training, standing statistics, sampling and a resumed run all draw from it."""

import dataclasses

import numpy as np
import pytest
import torch
from loops import loop_over
from runs import assert_resumes, saved
from scipy import stats
from tiny import recipe

from equipoise.config import components, override, to_text
from equipoise.core.grammar import parse
from equipoise.core.latents import Normal, Uniform
from equipoise.core.randomness import Purpose
from equipoise.core.types import Batch, ImageSpec
from equipoise.generate import Generator, averaged_generator, draw_latents, interpolate, latent, model_card, truncated
from equipoise.models import DCGANGenerator
from equipoise.runs import read_run
from equipoise.train import GAN, train

UNIFORM = override(recipe(), {"generator.prior": Uniform()})
SPEC = ImageSpec(28, 1, 10)


def generator():
    return torch.Generator().manual_seed(0)


@loop_over(("prior", "law"), [(Normal(), stats.norm()), (Uniform(), stats.uniform(-1, 2))])
def test_draws_and_what_is_left_of_them_within_a_threshold(prior, law):
    z = prior.draw(500, 40, generator=generator())
    assert z.dtype == torch.float32
    assert stats.kstest(z.flatten().numpy(), law.cdf).pvalue > 0.01
    for t in (0.3, 0.9, 3.0):
        inside = z[z.abs() <= t].numpy()
        assert stats.ks_2samp(prior.truncate(z, t).flatten().numpy(), inside).pvalue > 0.01
    with pytest.raises(ValueError, match="above 0"):
        prior.truncate(z, 0.0)


class Seen(torch.nn.Module):
    """Keeps the z that it is called with."""

    def __init__(self):
        super().__init__()
        self.weight, self.z = torch.nn.Parameter(torch.zeros(())), []
        self.norm = torch.nn.BatchNorm1d(4)

    def forward(self, z, y=None):
        self.z.append(z)
        return self.norm(z)[:, :1, None, None].expand(-1, 1, 28, 28)


def assert_uniform(z):
    assert z.abs().max() <= 1
    assert stats.kstest(z.flatten().numpy(), stats.uniform(-1, 2).cdf).pvalue > 0.01


@pytest.fixture(autouse=True, scope="module")
def draws_little():
    """Here statistics are of as many images as in use."""


def test_training_and_standing_statistics_draw_from_it():
    gan = GAN.build(UNIFORM, SPEC)
    gan.G = Seen()
    gan.generate(Batch(torch.zeros(1000, 1, 28, 28), torch.zeros(1000, dtype=torch.int64)), Purpose.Z_FOR_D, 0)
    assert_uniform(gan.G.z[0])
    net = averaged_generator(Seen(), UNIFORM, SPEC)
    assert len(net.z) == 20
    assert_uniform(torch.cat(net.z))


def test_a_run_resumes_and_its_generator_draws_from_it(tmp_path):
    assert_resumes(UNIFORM, tmp_path)
    G = Generator.from_pretrained(tmp_path / "whole")
    assert G.config.prior == Uniform()
    assert_uniform(draw_latents(G, 2000))
    assert torch.equal(draw_latents(G, 5), draw_latents(G, 50)[:5])
    assert_uniform(draw_latents(truncated(G, 0.25), 2000) * 4)
    assert saved(tmp_path / "whole", "G").keys() == saved(tmp_path / "cut", "G").keys()


def test_the_reference_of_virtual_batch_norm_is_drawn_from_it():
    for prior, bound in ((Uniform(), True), (Normal(), False)):
        net = DCGANGenerator(z_dim=8, width=2, norm="virtual", prior=prior).build(ImageSpec(16))
        reference = next(buffer for _, buffer in net.named_buffers() if buffer.shape[:1] == (64,))
        assert bool(reference.abs().max() <= 1) is bound


def test_the_config_is_text_and_older_text_means_normal():
    assert parse(to_text(UNIFORM), components()) == UNIFORM
    assert parse(to_text(recipe()).replace(", prior=Normal()", ""), components()) == recipe()


def test_paths_are_straight_in_a_cube():
    G = load_like(UNIFORM)
    a, b = latent(G, 0), latent(G, 10)
    np.testing.assert_array_equal(interpolate(G, a, b, 5), interpolate(G, a, b, 5, path="linear"))
    N = load_like(recipe())
    a, b = latent(N, 0), latent(N, 10)
    np.testing.assert_array_equal(interpolate(N, a, b, 5), interpolate(N, a, b, 5, path="spherical"))


def load_like(cfg):
    net = cfg.generator.build(SPEC).eval().requires_grad_(False)
    return Generator(net, dataclasses.replace(cfg.generator), SPEC)


@pytest.mark.parametrize(("cfg", "law"), [(UNIFORM, "U[-1, 1]"), (recipe(), "N(0, 1)")])
def test_a_model_card_says_what_z_is_drawn_from(tmp_path, cfg, law):
    train(dataclasses.replace(cfg, total_kimg=0.008), tmp_path)
    assert f"from {law} to" in model_card(Generator.from_pretrained(tmp_path), read_run(tmp_path))
