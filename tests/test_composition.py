"""Every component with every other: the two steps of the loop, for the whole product of the axes."""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from typing import get_args, get_type_hints

import pytest
import torch
from torch.testing import assert_close

from equipoise import constraints, losses, models, normalizers, penalties
from equipoise.config import TrainConfig
from equipoise.constraints import ClipWeights
from equipoise.data import Digits
from equipoise.heads import Head
from equipoise.losses import Hinge, NonSaturating, Wasserstein
from equipoise.models import MLPDiscriminator, MLPGenerator, SANDigitsDiscriminator, SANDigitsGenerator
from equipoise.normalizers import NoNormalizer, SpectralNorm, weighted_layers
from equipoise.objective import discriminator_loss
from equipoise.optim import Adam, RMSprop
from equipoise.penalties import R1, R2, GradientPenalty
from equipoise.train import GAN, d_step, g_step
from equipoise.types import Batch, ImageSpec

SPEC = ImageSpec(resolution=28, channels=1, num_classes=10)


def components(module, base=object):
    found = [getattr(module, name) for name in module.__all__]
    return [c for c in found if dataclasses.is_dataclass(c) and issubclass(c, base)]


LOSSES = components(losses)
NORMALIZERS = components(normalizers)
CONDITIONINGS = get_args(get_type_hints(Head)["conditioning"])
GENERATORS = components(models, models.GeneratorConfig)
DISCRIMINATORS = components(models, models.DiscriminatorConfig)
LEGAL = [
    (loss, conditioning, san, normalizer)
    for loss, conditioning, san, normalizer in itertools.product(LOSSES, CONDITIONINGS, (False, True), NORMALIZERS)
    if not (san and loss.paired)
]


def name(part):
    return {True: "san", False: "plain"}.get(part) or getattr(part, "__name__", part)


def settings(
    loss=Hinge,
    conditioning="none",
    san=False,
    normalizer=NoNormalizer,
    generator=SANDigitsGenerator,
    discriminator=SANDigitsDiscriminator,
    **fields,
):
    """A config of the smallest networks."""
    optimisers = {"g_optim": Adam(lr=1e-3), "d_optim": Adam(lr=1e-3), "batch_size": 4}
    return TrainConfig(
        data=Digits(),
        generator=generator(z_dim=8, width=16 if generator is MLPGenerator else 2, conditional=conditioning != "none"),
        discriminator=discriminator(width=16 if discriminator is MLPDiscriminator else 2),
        head=Head(conditioning, san=san),
        loss=loss(),
        d_normalizer=normalizer(),
        **optimisers | fields,
    )


def build(cfg):
    return GAN.build(cfg, SPEC)


def batch(n=4):
    return Batch(torch.rand(n, 1, 28, 28) * 2 - 1, torch.arange(n))


def weights(net):
    return {n: p.detach().clone() for n, p in net.named_parameters()}


def changed(net, before):
    return {n for n, p in net.named_parameters() if not torch.equal(p, before[n])}


class Gradients:
    """What an optimiser is given when it steps: gradients of both players by name, None where there is none."""

    def __init__(self, gan):
        self.seen = {}
        for optimizer in (gan.d_optim, gan.g_optim):
            optimizer.register_step_pre_hook(lambda *_: self.look(gan))

    def look(self, gan):
        self.seen = {
            player: {n: None if p.grad is None else p.grad.clone() for n, p in net.named_parameters()}
            for player, net in (("D", gan.D), ("G", gan.G))
        }


def check_step(step, gan, mover, other):
    """One step of `mover`: finite gradients on all its weights, none on the other's, and none left behind."""
    nets = {"D": gan.D, "G": gan.G}
    before = {player: weights(net) for player, net in nets.items()}
    gradients = Gradients(gan)
    stats = step(gan, batch(), 0)
    for n, gradient in gradients.seen[mover].items():
        assert gradient.isfinite().all(), n
        assert gradient.abs().sum() > 0 or n.endswith("bias"), n  # biases before batch norm cancel
    assert all(gradient is None for gradient in gradients.seen[other].values())
    assert changed(nets[mover], before[mover]) >= {n for n in before[mover] if not n.endswith("bias")}
    assert changed(nets[other], before[other]) == set()
    for net in nets.values():
        for n, p in net.named_parameters():
            assert p.grad is None, n
            assert not p.requires_grad, n
            assert p.isfinite().all(), n
    for key, value in stats.items():
        assert value.shape == (), key
        assert value.isfinite(), key
        assert not value.requires_grad, key
    return stats


def check(cfg):
    gan = build(cfg)
    found = check_step(d_step, gan, "D", "G")
    wanted = {"D/loss", "D/real", "D/fake", "D/sign_real"} | {f"D/{type(p).__name__}" for p in cfg.penalties}
    assert set(found) == wanted
    assert set(check_step(g_step, gan, "G", "D")) == {"G/loss"}


# ---- the product of the axes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "conditioning", "san", "normalizer"), LEGAL, ids=["-".join(map(name, case)) for case in LEGAL]
)
def test_loss_conditioning_head_normalizer(loss, conditioning, san, normalizer):
    check(settings(loss, conditioning, san, normalizer))


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss.paired], ids=name)
@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_san_with_a_paired_loss_is_refused(loss, conditioning):
    with pytest.raises(ValueError, match="has no direction loss for the paired loss"):
        settings(loss, conditioning, san=True)


@pytest.mark.parametrize("generator", GENERATORS, ids=name)
@pytest.mark.parametrize("discriminator", DISCRIMINATORS, ids=name)
@pytest.mark.parametrize("san", [False, True], ids=name)
@pytest.mark.parametrize("normalizer", NORMALIZERS, ids=name)
def test_architectures(generator, discriminator, san, normalizer):
    check(settings(Hinge, "projection", san, normalizer, generator, discriminator))


@pytest.mark.parametrize("penalty", components(penalties), ids=name)
@pytest.mark.parametrize("discriminator", DISCRIMINATORS, ids=name)
@pytest.mark.parametrize("san", [False, True], ids=name)
@pytest.mark.parametrize("normalizer", NORMALIZERS, ids=name)
def test_penalties(penalty, discriminator, san, normalizer):
    check(settings(NonSaturating, "per_class", san, normalizer, discriminator=discriminator, penalties=(penalty(),)))


@pytest.mark.parametrize("constraint", components(constraints), ids=name)
@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_constraints(constraint, loss):
    check(settings(loss, constraints=(constraint(),), d_optim=RMSprop(lr=1e-3)))


def test_several_penalties_and_both_normalised():
    check(
        settings(
            Wasserstein,
            "projection",
            san=True,
            normalizer=SpectralNorm,
            g_normalizer=SpectralNorm(),
            penalties=(R1(every=1), R2(every=1), GradientPenalty()),
            constraints=(ClipWeights(bound=0.5),),
        )
    )


# ---- what a step does exactly -------------------------------------------------------------------------------------


@pytest.mark.parametrize("san", [False, True], ids=name)
def test_ds_gradient_is_that_of_its_loss_and_its_penalties(san):
    """mean loss + every · gamma/2 · mean ‖∇D‖² of R1, differentiated in one piece."""
    cfg = settings(NonSaturating, san=san, penalties=(R1(gamma=3.0, every=4),))
    gan, real = build(cfg), batch()
    gradients = Gradients(gan)
    fakes = []
    gan.G.register_forward_hook(lambda module, args, x: fakes.append(x))
    gan.D.requires_grad_(True)
    reference = {n: p.detach().clone().requires_grad_(True) for n, p in gan.D.named_parameters()}
    d_step(gan, real, 0)

    def logits(x):
        return torch.func.functional_call(gan.D, reference, (x,))

    x = real.x.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(logits(x).fun.sum(), x, create_graph=True)
    total = discriminator_loss(cfg.loss, logits(real.x), logits(fakes[0]))
    total = total + 4 * 3.0 / 2 * slope.square().sum((1, 2, 3)).mean()
    wanted = torch.autograd.grad(total, list(reference.values()))
    for n, gradient in zip(reference, wanted, strict=True):
        assert_close(gradients.seen["D"][n], gradient, rtol=1e-4, atol=1e-6)


def test_a_lazy_penalty_is_due_every_so_many_updates():
    cfg = settings(penalties=(R1(every=3), GradientPenalty(every=2)))
    gan = build(cfg)
    due = defaultdict(list)
    for update in range(7):
        for key in d_step(gan, batch(), update * cfg.batch_size):
            due[key].append(update)
    assert due["D/R1"] == [0, 3, 6]
    assert due["D/GradientPenalty"] == [0, 2, 4, 6]


def test_d_is_constrained_after_its_step():
    """Not before it, which would let the step leave the bounds."""
    gan = build(settings(Wasserstein, constraints=(ClipWeights(bound=0.01),), d_optim=Adam(lr=0.1)))
    for update in range(3):
        d_step(gan, batch(), 4 * update)
        for n, layer in weighted_layers(gan.D):
            assert all(p.abs().max() <= 0.01 for p in layer.parameters()), n


def test_a_loss_falls_when_its_player_alone_moves():
    """Thirty steps of D on one batch, then thirty of G: each lowers its own loss."""
    gan, real = build(settings(NonSaturating, "projection", san=True, normalizer=SpectralNorm)), batch()
    d = [d_step(gan, real, 0)["D/loss"].item() for _ in range(30)]
    assert d[-1] < d[0] - 0.05
    g = [g_step(gan, real, 0)["G/loss"].item() for _ in range(30)]
    assert g[-1] < g[0] - 0.001


def test_ds_step_builds_no_graph_through_g():
    """It would cost a generator's memory for nothing."""
    gan, graphs = build(settings(penalties=(R2(every=1),))), []
    gan.G.register_forward_hook(lambda module, args, x: graphs.append(x.requires_grad))
    d_step(gan, batch(), 0)
    g_step(gan, batch(), 0)
    assert graphs == [False, True]


def test_the_two_players_see_other_noise():
    """z is a function of (seed, player, nimg): fresh at each step, never shared by D and G, the same if repeated."""
    gan, real = build(settings()), batch()
    seen = []
    gan.G.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    for step, nimg in ((d_step, 0), (g_step, 0), (d_step, 4), (d_step, 0)):
        step(gan, real, nimg)
    d, g, later, again = seen
    assert torch.equal(d, again)
    assert not torch.equal(d, g)
    assert not torch.equal(d, later)
    assert d.shape == (4, 8)
