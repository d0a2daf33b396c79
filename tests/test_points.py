"""A GAN of points: its two steps against plain PyTorch, going on under another config, and the ten settings."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from loops import loop_over
from torch import nn
from torch.testing import assert_close

from equipoise.augment import ADA, InstanceNoise
from equipoise.config import components, override, to_text
from equipoise.core.grammar import parse
from equipoise.core.randomness import Purpose, stream
from equipoise.core.schedules import Linear
from equipoise.data import Digits, Grid, Mixture1D, Points, Ring, SwissRoll
from equipoise.lab.points.gan import PointGAN, plain_gan
from equipoise.lab.points.settings import SETTINGS
from equipoise.losses import R1, Hinge, HistoricalAverage, NonSaturating, RelativisticPairing
from equipoise.models import Head, MLPDiscriminator, MLPGenerator, Projection
from equipoise.rules import Adam, EMAConfig, FreezeD, RMSprop, ToConvergence
from equipoise.weights import ClipWeights, SpectralNorm


def tiny(**changes):
    cfg = replace(
        plain_gan(),
        generator=MLPGenerator(z_dim=3, width=12, depth=2, output="linear"),
        discriminator=MLPDiscriminator(width=12, depth=2),
        d_steps=1,
        batch_size=16,
    )
    return replace(cfg, **changes)


def weights(gan):
    return [p.detach().clone() for net in (gan.gan.G, gan.gan.D, gan.ema.model) for p in net.parameters()]


# ---- its steps against plain PyTorch ---------------------------------------------------------------------


def perceptron(sizes, bias):
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-2], nn.Linear(*sizes[-2:], bias=bias))


def reference(cfg, start, steps, gamma):
    """Non-saturating loss and R1, in plain PyTorch, on the noise and points that belong to `cfg` and its seed."""
    G, D = perceptron([3, 12, 12, 2], bias=True), perceptron([2, 12, 12, 1], bias=False)
    for net, source in ((G, start.gan.G), (D, start.gan.D)):
        for p, q in zip(net.parameters(), source.parameters(), strict=True):
            p.data.copy_(q.view_as(p))
    average = copy.deepcopy(G)
    g_adam = torch.optim.Adam(G.parameters(), lr=0.0, betas=(0.5, 0.9))
    d_adam = torch.optim.Adam(D.parameters(), lr=0.0, betas=(0.5, 0.9))

    def noise(purpose, nimg):
        return torch.randn(16, 3, generator=stream(cfg.seed, purpose, nimg))

    nimg = 0
    for _ in range(steps):
        first = nimg
        for _ in range(cfg.d_steps):
            x = Ring().sample(16, stream(cfg.seed, Purpose.POINTS, nimg)).requires_grad_(True)
            real, fake = D(x), D(G(noise(Purpose.Z_FOR_D, nimg)).detach())
            (slope,) = torch.autograd.grad(real.sum(), x, create_graph=True)
            ones, zeros = torch.ones(16, 1), torch.zeros(16, 1)
            loss = F.binary_cross_entropy_with_logits(real, ones) + F.binary_cross_entropy_with_logits(fake, zeros)
            loss = loss + gamma / 2 * (slope**2).sum() / 16
            d_adam.zero_grad()
            loss.backward()
            d_adam.param_groups[0]["lr"] = 1e-3 * max(0.0, 1 - nimg / 200)
            d_adam.step()
            nimg += 16
        g_adam.zero_grad()
        F.binary_cross_entropy_with_logits(D(G(noise(Purpose.Z_FOR_G, first))), torch.ones(16, 1)).backward()
        g_adam.param_groups[0]["lr"] = 2e-3 * max(0.0, 1 - first / 300)
        g_adam.step()
        beta = 0.5 ** ((nimg - first) / min(100.0, 0.5 * nimg))
        for old, new in zip(average.parameters(), G.parameters(), strict=True):
            old.data.mul_(beta).add_(new.data, alpha=1 - beta)
    return [p.detach() for net in (G, D, average) for p in net.parameters()], float(loss.detach())


@pytest.mark.parametrize(("d_steps", "gamma"), [(1, 0.0), (2, 0.7)])
def test_an_iteration_is_that_of_plain_pytorch(d_steps, gamma):
    cfg = tiny(
        loss=NonSaturating(),
        terms=(R1(gamma=gamma, every=1),),
        d_steps=d_steps,
        g_optim=Adam(lr=Linear(start=2e-3, end=0.0, kimg=0.3), betas=(0.5, 0.9)),
        d_optim=Adam(lr=Linear(start=1e-3, end=0.0, kimg=0.2), betas=(0.5, 0.9)),
        ema=EMAConfig(halflife_kimg=0.1, rampup=0.5),
        seed=5,
    )
    gan = PointGAN(cfg)
    expected, loss = reference(cfg, gan, 8, gamma)
    before = weights(gan)
    for _ in range(8):
        stats = gan.iterate()
    for found, want, old in zip(weights(gan), expected, before, strict=True):
        assert_close(found, want.view_as(found), atol=1e-6, rtol=1e-5)
        assert (found - old).abs().max() > 1e-4
    assert gan.nimg == 8 * 16 * d_steps
    assert stats["D/loss"] + gamma / 2 * stats["D/R1"] == pytest.approx(loss, abs=1e-5)


# ---- what it shows ---------------------------------------------------------------------------------------


def test_samples_are_of_the_average_and_of_the_same_latents():
    gan = PointGAN(tiny(ema=EMAConfig(halflife_kimg=1e6, rampup=None)))
    first = gan.samples(40)
    assert first.shape == (40, 2)
    for _ in range(3):
        gan.iterate()
    assert_close(gan.samples(40), first, atol=1e-3, rtol=0)  # an average that long has hardly moved
    z = torch.randn(40, 3, generator=stream(0, Purpose.SAMPLES))
    assert not torch.allclose(gan.gan.G(z).flatten(1), first, atol=1e-3)
    assert_close(gan.ema.model(z).flatten(1), gan.samples(40))


def test_a_look_at_the_value_changes_nothing():
    looked, left = PointGAN(tiny(d_normalizer=SpectralNorm())), PointGAN(tiny(d_normalizer=SpectralNorm()))
    x = torch.randn(9, 2, requires_grad=True)
    for _ in range(3):
        value = looked.value(x)
        (slope,) = torch.autograd.grad(value.sum(), x)
        looked.iterate()
        left.iterate()
    assert value.shape == (9,)
    assert slope.abs().max() > 0
    for name, tensor in left.gan.D.state_dict().items():
        assert torch.equal(looked.gan.D.state_dict()[name], tensor), name
    step = 1e-2 * torch.ones(9, 2)
    change = looked.value(x + step) - looked.value(x - step)
    (slope,) = torch.autograd.grad(looked.value(x).sum(), x)
    assert_close(change / 2, (slope * step).sum(1), atol=2e-3, rtol=0.05)  # it is the gradient of the value


# ---- randomness ------------------------------------------------------------------------------------------


def test_equal_configs_go_the_same_way_and_nobody_elses_randomness_is_touched():
    cfg = tiny(loss=Hinge(), head=Head(san=True), augment=InstanceNoise(std=0.1))
    one, torch_state = PointGAN(cfg), torch.get_rng_state()
    for _ in range(3):
        one.iterate()
    one.samples(5)
    assert torch.equal(torch.get_rng_state(), torch_state)
    torch.rand(11)
    other, another = PointGAN(cfg), PointGAN(replace(cfg, seed=1))
    for _ in range(3):
        torch.rand(3)
        other.iterate()
        another.iterate()
    for a, b, c in zip(weights(one), weights(other), weights(another), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_seeds_draw_other_points_and_noise_at_every_moment():
    gans = [PointGAN(tiny(seed=seed)) for seed in (0, 1)]
    drawn = []
    for _ in range(2):
        drawn += [gan.batch(16, Purpose.POINTS).x for gan in gans]
        drawn += [gan.gan.generate(gan.batch(16, Purpose.POINTS), Purpose.Z_FOR_D, gan.nimg).x for gan in gans]
        for gan in gans:
            gan.nimg += 16
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


# ---- going on under another config -----------------------------------------------------------------------


def test_a_change_keeps_the_networks_and_moves_the_loss():
    gan = PointGAN(tiny())
    for _ in range(3):
        gan.iterate()
    before, moments = weights(gan), copy.deepcopy(gan.gan.d_optim.state_dict()["state"])
    changed = tiny(
        data=Points(of=Grid()),
        loss=RelativisticPairing(),
        terms=(R1(gamma=0.3, every=1),),
        constraints=(ClipWeights(bound=0.05),),
        d_optim=Adam(lr=1e-4, betas=(0.1, 0.8), eps=1e-3),
        ema=EMAConfig(halflife_kimg=0.0),
        batch_size=8,
        d_steps=2,
    )
    gan.change(changed)
    assert all(torch.equal(a, b) for a, b in zip(weights(gan), before, strict=True))
    for number, state in gan.gan.d_optim.state_dict()["state"].items():
        assert torch.equal(state["exp_avg"], moments[number]["exp_avg"])
    assert gan.nimg == 48
    stats = gan.iterate()
    assert gan.nimg == 48 + 16
    assert "D/R1" in stats
    assert gan.batch(500, Purpose.POINTS).x.abs().max() > 3.5  # the grid's
    for _, p in gan.gan.D.named_parameters():
        assert p.abs().max() <= 0.05
    group = gan.gan.d_optim.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"]) == (1e-4, (0.1, 0.8), 1e-3)
    assert gan.gan.g_optim.param_groups[0]["eps"] == 1e-8
    for a, b in zip(gan.ema.model.parameters(), gan.gan.G.parameters(), strict=True):
        assert torch.equal(a, b)  # the average is none any more


def test_the_loss_after_a_change_is_the_new_one():
    gan = PointGAN(tiny())
    gan.change(tiny(loss=Hinge()))
    x = gan.batch(16, Purpose.POINTS)
    real = gan.value(x.x.flatten(1))
    fake = gan.value(gan.gan.generate(x, Purpose.Z_FOR_D, 0).x.flatten(1))
    expected = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    assert gan.iterate()["D/loss"] == pytest.approx(expected.item(), abs=1e-6)


def test_instance_noise_comes_and_goes():
    gan = PointGAN(tiny())
    x = gan.batch(16, Purpose.POINTS).x
    for noise, moved in ((InstanceNoise(std=0.3), True), (InstanceNoise(std=0.0), False)):
        gan.change(tiny(augment=noise))
        gan.iterate()
        assert torch.equal(gan.gan.augment(x), x) is not moved


def test_regularisers_that_did_not_change_go_on_remembering():
    cfg = tiny(terms=(HistoricalAverage(),))
    gan = PointGAN(cfg)
    for _ in range(3):
        gan.iterate()
    remembered = gan.gan.memories("D")
    gan.change(replace(cfg, loss=Hinge()))
    assert [*map(id, gan.gan.memories("D"))] == [*map(id, remembered)]
    gan.change(replace(cfg, terms=()))
    assert gan.gan.memories("D") == []


@loop_over(
    ("changes", "message"),
    [
        ({"generator": MLPGenerator(z_dim=4)}, "generator cannot change"),
        ({"discriminator": MLPDiscriminator(width=13)}, "discriminator cannot change"),
        ({"head": Head(san=True)}, "head cannot change"),
        ({"d_normalizer": SpectralNorm()}, "d_normalizer cannot change"),
        ({"g_normalizer": SpectralNorm()}, "g_normalizer cannot change"),
        ({"seed": 1}, "seed cannot change"),
        ({"d_optim": RMSprop()}, "d_optim cannot become another optimiser"),
        ({"g_optim": RMSprop()}, "g_optim cannot become another optimiser"),
        ({"data": Digits()}, "expected points"),
        ({"data": Points(of=Mixture1D())}, "data of 1 dimensions need other networks than data of 2 dimensions"),
        ({"augment": ADA(heuristic="fixed", initial=0.1)}, "is for images; points take"),
    ],
)
def test_what_was_made_with_the_networks_cannot_change(changes, message):
    gan = PointGAN(tiny())
    was, before = gan.cfg, weights(gan)
    with pytest.raises(ValueError, match=message):
        gan.change(tiny(**changes))
    assert gan.cfg is was
    assert gan.gan.cfg is was
    assert all(torch.equal(a, b) for a, b in zip(weights(gan), before, strict=True))


@loop_over(
    ("changes", "message"),
    [
        ({"data": Digits()}, r"expected points, such as data=Points\(of=Ring\), got data=Digits"),
        ({"augment": ADA(heuristic="fixed", initial=0.1)}, "augment=ADA.* is for images; points take augment=Instance"),
        ({"start": FreezeD(run="runs/a", layers=1)}, "start=FreezeD.* starts from a run, and points have none"),
        ({"head": Head(Projection())}, "points have no classes, and head.conditioning=Projection.* needs them"),
    ],
)
def test_what_has_no_meaning_for_points(changes, message):
    with pytest.raises(ValueError, match=message):
        PointGAN(tiny(**changes))


def test_points_are_no_set_of_images():
    with pytest.raises(ValueError, match=r"holds points, not images: `equipoise train` needs images"):
        Points().build()


# ---- what else it takes ----------------------------------------------------------------------------------


def test_data_of_one_dimension_and_a_critic_trained_to_convergence():
    gan = PointGAN(tiny(data=Points(of=Mixture1D()), d_steps=ToConvergence(window=2, max_steps=6)))
    gan.iterate()
    assert 4 * 16 <= gan.nimg <= 6 * 16
    assert gan.samples(7).shape == (7, 1)
    assert gan.value(torch.zeros(7, 1)).shape == (7,)


# ---- the ten settings ------------------------------------------------------------------------------------


@loop_over("name", SETTINGS)
def test_a_setting_trains_and_reads_back(name):
    cfg = SETTINGS[name](tiny())
    gan = PointGAN(cfg)  # warnings are errors: no guarantee is voided
    stats = gan.iterate()
    assert all(torch.isfinite(torch.tensor(value)) for value in stats.values())
    assert parse(to_text(cfg), components()) == cfg
    assert SETTINGS[name].source


def test_a_setting_takes_the_place_of_another_and_leaves_the_rest():
    base = tiny(data=Points(of=SwissRoll()), augment=InstanceNoise(std=0.1), seed=3)
    for setting in SETTINGS.values():
        for other in SETTINGS.values():
            assert other(setting(base)) == other(base)
        for field in fields(base):
            if field.name not in ("loss", "head", "terms", "d_normalizer", "constraints"):
                assert getattr(setting(base), field.name) == getattr(base, field.name)
    assert SETTINGS["minimax"]() == plain_gan()
    assert len({to_text(setting()) for setting in SETTINGS.values()}) == len(SETTINGS) == 10
    assert override(SETTINGS["SN+SAN"](), {"head.san": False}).d_normalizer == SETTINGS["SN+SAN"]().d_normalizer
