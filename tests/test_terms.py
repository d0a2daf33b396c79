"""What the trainer adds to the losses: every term's gradient against the whole differentiated in one piece."""

from __future__ import annotations

import copy
import json
import math
import multiprocessing
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tiny import recipe
from torch import nn
from torch.testing import assert_close

import equipoise.train
from equipoise import losses
from equipoise.augment import ADA
from equipoise.config import TrainConfig, override
from equipoise.constraints import ClipWeights
from equipoise.critic import ToConvergence
from equipoise.data import Digits, hold_out
from equipoise.distributed import trainable
from equipoise.ema import EMAConfig
from equipoise.guarantees import voided
from equipoise.heads import Discriminator, Head
from equipoise.joint import Consensus
from equipoise.losses import Hinge, NonSaturating, Saturating, Wasserstein
from equipoise.matching import FeatureMatching
from equipoise.models import DCGANDiscriminator, DiscriminatorConfig, MLPDiscriminator, MLPGenerator
from equipoise.normalizers import FrobeniusNorm, NoNormalizer, SpectralNorm, WeightNorm
from equipoise.penalties import R1, Dragan, GradientPenalty
from equipoise.regularizers import HistoricalAverage, Orthogonal, SpectralNormPenalty
from equipoise.train import GAN, d_step, g_step, train
from equipoise.transfer import FreezeD
from equipoise.types import Batch, ImageSpec, component

SPEC = ImageSpec(resolution=28, channels=1, num_classes=10)
DIGITS = Digits()


def small(**changes) -> TrainConfig:
    """Networks of a few units, smooth but for the ReLU."""
    networks = {
        "generator": MLPGenerator(z_dim=4, width=6, depth=2),
        "discriminator": MLPDiscriminator(width=6, depth=2),
        "head": Head(),
        "d_normalizer": NoNormalizer(),
        "loss": NonSaturating(),
        "total_kimg": 0.128,
    }
    return override(recipe(), networks | changes)


def build(cfg, pixels=28):
    """With weights large enough that every term's gradient is far from 0."""
    gan = GAN.build(cfg, replace(SPEC, resolution=pixels))
    with torch.no_grad():
        for name, p in (*gan.D.named_parameters(), *gan.G.named_parameters()):
            p.mul_(2 if name.endswith("weight") else 1)
    gan.remember()
    return gan


def batch(n=8, pixels=28):
    return Batch(torch.rand(n, 1, pixels, pixels) * 2 - 1, torch.arange(n) % 10)


class Watch:
    """What the steps of `gan` see: the noise that G is given, and the gradients with which an optimiser steps."""

    def __init__(self, gan):
        self.z, self.gradients = [], []
        gan.G.register_forward_pre_hook(lambda module, args: self.z.append(args[0].clone()))
        for optimizer in (gan.d_optim, gan.g_optim):
            optimizer.register_step_pre_hook(lambda *_: self.gradients.append(self.look(gan)))

    @staticmethod
    def look(gan):
        nets = {"D": gan.D, "G": gan.G}
        return {
            player: {n: None if p.grad is None else p.grad.double() for n, p in net.named_parameters()}
            for player, net in nets.items()
        }


class Reference:
    """The players in float64 as functions of their parameters, whose gradients autograd takes of a total in one piece.

    Made before a step, because the step moves them.
    """

    def __init__(self, gan):
        self.nets = {"D": copy.deepcopy(gan.D).double(), "G": copy.deepcopy(gan.G).double()}
        self.weights = {
            player: {n: p.detach().clone().requires_grad_(True) for n, p in net.named_parameters()}
            for player, net in self.nets.items()
        }

    def logits(self, x, y=None):
        return torch.func.functional_call(self.nets["D"], self.weights["D"], (x.double(), y))

    def images(self, z, y=None):
        return torch.func.functional_call(self.nets["G"], self.weights["G"], (z.double(), y))

    def vectors(self, player, total, **options):
        return torch.autograd.grad(total, list(self.weights[player].values()), **options)

    def gradient(self, player, total):
        """By name, zeros where `total` does not depend on it."""
        found = self.vectors(player, total, allow_unused=True, materialize_grads=True)
        return dict(zip(self.weights[player], found, strict=True))

    def matrices(self, player):
        """The weights of the linear layers, which is all of them."""
        return [w for n, w in self.weights[player].items() if n.endswith("weight")]


def assert_gradients(found, wanted, mover):
    """`mover`'s are those wanted, and the other player has none."""
    for n, gradient in wanted.items():
        assert_close(found[mover][n], gradient, rtol=2e-4, atol=1e-5 * max(1.0, gradient.abs().max().item()))
    assert any(gradient.abs().max() > 1e-4 for gradient in wanted.values())
    other = "G" if mover == "D" else "D"
    assert all(gradient is None for gradient in found[other].values())


def run(cfg, run_dir):
    """Train to the end; the state of the averaged generator."""
    return train(cfg, run_dir).state_dict()


def newest(run_dir: Path) -> Path:
    return max(path for path in (run_dir / "checkpoints").iterdir() if path.name.isdigit())


def saved(run_dir: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(newest(run_dir) / f"{name}.safetensors")


def lines(run_dir: Path):
    return [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()]


def assert_resumes(cfg, tmp_path, names=("G", "D", "ema")):
    """A run that was cut in the middle ends as the uninterrupted one, bit for bit."""
    train(cfg, tmp_path / "whole")
    train(override(cfg, {"total_kimg": cfg.total_kimg / 2}), tmp_path / "cut")
    assert newest(tmp_path / "cut").name < newest(tmp_path / "whole").name
    train(cfg, tmp_path / "cut")
    for name in names:
        whole, cut = saved(tmp_path / "whole", name), saved(tmp_path / "cut", name)
        assert whole.keys() == cut.keys()
        assert all(torch.equal(whole[key], cut[key]) for key in whole), name


# ---- regularisers ----------------------------------------------------------------------------------------


def correlations(matrix):
    """Σ_{i ≠ j} <w_i, w_j>² over the rows, one by one."""
    return sum((a @ b) ** 2 for i, a in enumerate(matrix) for j, b in enumerate(matrix) if i != j)


def sigma_squared(matrix):
    return torch.linalg.matrix_norm(matrix, 2) ** 2


TERMS = (Orthogonal(strength=0.02, every=3), SpectralNormPenalty(strength=0.3, every=2))


def regularised(reference, player, update):
    """Both `TERMS` as they are due: strength · every · value."""
    zero = torch.zeros((), dtype=torch.float64)
    total = {"Orthogonal": zero, "SpectralNormPenalty": zero}
    if update % 3 == 0:
        total["Orthogonal"] = 3 * 0.02 * sum(correlations(w) for w in reference.matrices(player) if len(w) > 1)
    if update % 2 == 0:
        total["SpectralNormPenalty"] = 2 * 0.3 / 2 * sum(sigma_squared(w) for w in reference.matrices(player))
    return total


@pytest.mark.parametrize("update", [0, 2, 3, 5, 6])
def test_ds_gradient_is_that_of_its_loss_and_its_regularizers(update):
    gan, real = build(small(d_regularizers=TERMS)), batch()
    watch, reference = Watch(gan), Reference(gan)
    stats = d_step(gan, real, 8 * update)
    fake = reference.images(watch.z[0]).detach()
    adversarial = F.softplus(-reference.logits(real.x).fun).mean() + F.softplus(reference.logits(fake).fun).mean()
    terms = regularised(reference, "D", update)
    assert_gradients(watch.gradients[0], reference.gradient("D", adversarial + sum(terms.values())), "D")
    assert stats["D/loss"].item() == pytest.approx(adversarial.item(), rel=1e-5)  # a loss is reported without them
    assert ("D/Orthogonal" in stats) == (update % 3 == 0)
    assert ("D/SpectralNormPenalty" in stats) == (update % 2 == 0)
    if update == 0:
        assert stats["D/Orthogonal"].item() == pytest.approx(terms["Orthogonal"].item() / 0.06, rel=1e-5)
        assert stats["D/SpectralNormPenalty"].item() == pytest.approx(
            terms["SpectralNormPenalty"].item() / 0.3, rel=1e-5
        )


@pytest.mark.parametrize("d_steps", [1, 2])
def test_gs_gradient_is_that_of_its_loss_and_its_regularizers(d_steps):
    """`every` counts updates of G, also where D makes more of them. Few pixels: correlations are a pair's each."""
    cfg = small(g_regularizers=TERMS, d_steps=d_steps)
    gan, real = build(cfg, pixels=3), batch(pixels=3)
    watch = Watch(gan)
    for update in range(7):
        reference = Reference(gan)
        stats = g_step(gan, real, 8 * d_steps * update)
        adversarial = F.softplus(-reference.logits(reference.images(watch.z[-1])).fun).mean()
        wanted = reference.gradient("G", adversarial + sum(regularised(reference, "G", update).values()))
        assert_gradients(watch.gradients[-1], wanted, "G")
        assert ("G/Orthogonal" in stats) == (update % 3 == 0)
        assert ("G/SpectralNormPenalty" in stats) == (update % 2 == 0)


@pytest.mark.parametrize("d_steps", [1, 2])
def test_in_a_run_a_lazy_regularizer_of_g_is_due_on_every_so_many_updates(d_steps, tmp_path):
    cfg = small(g_regularizers=(Orthogonal(every=3),), d_steps=d_steps, log_kimg=0.008, total_kimg=0.056 * d_steps)
    train(cfg, tmp_path)
    assert ["G/Orthogonal" in line for line in lines(tmp_path)] == [True, False, False, True, False, False, True]


# ---- the mean of the past --------------------------------------------------------------------------------

REMEMBERING = {
    "g_regularizers": (HistoricalAverage(strength=0.3),),
    "d_regularizers": (HistoricalAverage(strength=0.5, every=2), Orthogonal()),
    "constraints": (ClipWeights(bound=0.05),),
}


def test_a_run_with_historical_averages_resumes_bit_for_bit(tmp_path):
    assert_resumes(small(**REMEMBERING), tmp_path, ("G", "D", "ema", "g_regularizations", "d_regularizations"))


def flat(net):
    return torch.cat([p.detach().double().flatten() for p in net.parameters()])


def test_the_checkpoint_holds_the_mean_of_the_parameters_that_each_step_started_from(tmp_path, monkeypatch):
    """The next step's included, so after projection: t steps have been made and t + 1 places seen."""
    past = {"D": [], "G": []}

    def noting(player, step):
        def wrapped(gan, *args):
            if not past[player]:
                past[player].append(flat(getattr(gan, player)))
            found = step(gan, *args)
            past[player].append(flat(getattr(gan, player)))
            return found

        return wrapped

    monkeypatch.setattr(equipoise.train, "d_step", noting("D", d_step))
    monkeypatch.setattr(equipoise.train, "g_step", noting("G", g_step))
    train(small(**REMEMBERING, d_steps=2), tmp_path)
    for player, steps in (("D", 16), ("G", 8)):
        buffers = saved(tmp_path, f"{player.lower()}_regularizations")
        assert set(buffers) == {"0.mean", "0.t"}
        assert buffers["0.t"].item() == len(past[player]) == steps + 1
        assert_close(buffers["0.mean"].double(), torch.stack(past[player]).mean(0), rtol=1e-5, atol=1e-7)


def test_the_gradient_of_a_historical_average_is_that_of_the_distance_to_the_mean():
    """2 · strength · (θ - mean), added to that of the loss; nothing at the first step, which has no past."""
    cfg = small(d_regularizers=(HistoricalAverage(strength=0.5),), d_optim=replace(recipe().d_optim, lr=0.05))
    gan = build(cfg)
    watch, past = Watch(gan), []
    for update in range(4):
        past.append({n: p.detach().double() for n, p in gan.D.named_parameters()})
        reference, real = Reference(gan), batch()
        stats = d_step(gan, real, 8 * update)
        fake = reference.images(watch.z[-1]).detach()
        total = F.softplus(-reference.logits(real.x).fun).mean() + F.softplus(reference.logits(fake).fun).mean()
        pull = {n: past[-1][n] - torch.stack([then[n] for then in past]).mean(0) for n in past[0]}
        wanted = {n: g + 2 * 0.5 * pull[n] for n, g in reference.gradient("D", total).items()}
        assert_gradients(watch.gradients[-1], wanted, "D")
        value = sum(part.square().sum() for part in pull.values()).item()
        assert stats["D/HistoricalAverage"].item() == pytest.approx(value, rel=1e-4, abs=1e-9)


def test_what_has_no_state_has_no_file(tmp_path):
    """So checkpoints from before there were regularisers are gone on from."""
    train(small(), tmp_path)
    assert {path.stem for path in newest(tmp_path).glob("*.safetensors")} == {"G", "D", "ema"}


# ---- consensus -------------------------------------------------------------------------------------------


def games(reference, loss, real, z):
    """Both losses as functions of both networks."""
    fake = reference.images(z)
    on_real, on_fake = reference.logits(real.x), reference.logits(fake)
    return loss.d(on_real.fun, on_fake.fun).mean(), loss.g(on_fake.fun, on_real.fun).mean()


@pytest.mark.parametrize(
    "loss", [NonSaturating(), Saturating(), losses.RelativisticPairing()], ids=["plain", "minimax", "paired"]
)
@pytest.mark.parametrize("every", [1, 2])
def test_consensus_adds_the_gradient_of_half_the_squared_field_to_both_players(loss, every):
    """own loss + every · gamma/2 · (‖∇_θ L_D‖² + ‖∇_φ L_G‖²), differentiated by each player's own weights."""
    cfg = small(loss=loss, joint_penalties=(Consensus(gamma=0.7, every=every),))
    for mover, step in (("D", d_step), ("G", g_step)):
        gan, real = build(cfg), batch()
        watch, reference = Watch(gan), Reference(gan)
        stats = step(gan, real, 0)
        assert len(watch.z) == 2
        assert torch.equal(*watch.z)  # v is taken at the very images of the step
        d, g = games(reference, loss, real, watch.z[0])
        field = (*reference.vectors("D", d, create_graph=True), *reference.vectors("G", g, create_graph=True))
        square = torch.stack([part.square().sum() for part in field]).sum()
        wanted = reference.gradient(mover, (d if mover == "D" else g) + every * 0.7 / 2 * square)
        assert_gradients(watch.gradients[0], wanted, mover)
        assert stats[f"{mover}/Consensus"].item() == pytest.approx(square.item(), rel=1e-4)
        for net in (gan.D, gan.G):  # nothing stays behind
            assert all(p.grad is None and not p.requires_grad for p in net.parameters())
        assert "Consensus" not in " ".join(step(gan, real, 8)) or every == 1


def test_a_run_with_consensus_resumes_bit_for_bit(tmp_path):
    changes = {"joint_penalties": (Consensus(gamma=0.1, every=2),), "head.san": False, "d_steps": 2}
    assert_resumes(override(recipe(), changes | {"total_kimg": 0.096}), tmp_path)
    assert {"D/Consensus", "G/Consensus"} <= lines(tmp_path / "whole")[0].keys()


# ---- feature matching ------------------------------------------------------------------------------------

UNPAIRED = [getattr(losses, name)() for name in losses.__all__ if name not in ("GANLoss", "RelativisticPairing")]
CASES = [(loss, san) for loss in UNPAIRED for san in (False, True)] + [(losses.RelativisticPairing(), False)]


@pytest.mark.parametrize(
    ("loss", "san"), CASES, ids=[f"{type(loss).__name__}-{'SAN' if san else 'plain'}" for loss, san in CASES]
)
@pytest.mark.parametrize("adversarial", [False, True], ids=["alone", "besides"])
def test_gs_gradient_is_that_of_feature_matching_alone_or_besides_its_loss(loss, san, adversarial):
    """strength ‖mean f(x) - mean f(G(z))‖², f what comes out of D's body."""
    matching = FeatureMatching(strength=0.3, adversarial=adversarial)
    bound = (GradientPenalty(),)  # of D alone; a Wasserstein loss asks for it
    gan, real = build(small(loss=loss, head=Head(san=san), feature_matching=matching, penalties=bound)), batch()
    watch, reference = Watch(gan), Reference(gan)
    stats = g_step(gan, real, 0)
    fake = reference.images(watch.z[0])
    body = reference.nets["D"].body
    distance = sum((body(real.x.double())[:, i].mean() - body(fake)[:, i].mean()) ** 2 for i in range(6))
    adversary = games(reference, loss, real, watch.z[0])[1]
    total = 0.3 * distance + (adversary if adversarial else 0)
    assert_gradients(watch.gradients[0], reference.gradient("G", total), "G")
    assert stats["G/FeatureMatching"].item() == pytest.approx(distance.item(), rel=1e-4)
    assert stats["G/loss"].item() == pytest.approx(total.item(), rel=1e-4)


def test_feature_matching_changes_nothing_for_d():
    real, gradients = batch(), []
    for matching in (None, FeatureMatching(strength=5.0)):
        gan = build(small(feature_matching=matching))
        watch = Watch(gan)
        stats = d_step(gan, real, 0)
        gradients.append(watch.gradients[0]["D"])
        assert "D/FeatureMatching" not in stats
    assert all(torch.equal(gradients[0][n], gradients[1][n]) for n in gradients[0])


def test_consensus_knows_that_the_features_to_be_matched_are_ds():
    """∇_φ of the distance moves with the mean of real features, so with D."""
    cfg = small(joint_penalties=(Consensus(gamma=0.7),), feature_matching=FeatureMatching(strength=0.3))
    for mover, step in (("D", d_step), ("G", g_step)):
        gan, real = build(cfg), batch()
        watch, reference = Watch(gan), Reference(gan)
        step(gan, real, 0)
        d, g = games(reference, cfg.loss, real, watch.z[0])
        on_real, on_fake = (reference.logits(x).features for x in (real.x, reference.images(watch.z[0])))
        g = g + 0.3 * (on_real.mean(0) - on_fake.mean(0)).square().sum()
        field = (*reference.vectors("D", d, create_graph=True), *reference.vectors("G", g, create_graph=True))
        square = torch.stack([part.square().sum() for part in field]).sum()
        wanted = reference.gradient(mover, (d if mover == "D" else g) + 0.7 / 2 * square)
        assert_gradients(watch.gradients[0], wanted, mover)


# ---- penalties that are none -----------------------------------------------------------------------------


@component
class Cut:
    """‖grad D(x)‖², cut from the weights of D in one of the ways in which that happens."""

    how: str
    every: int = 1

    def weight(self, nimg: int) -> float:
        return 1.0

    def __call__(self, critic, real, fake):
        x = real.x.detach().requires_grad_(True)
        with torch.set_grad_enabled(self.how != "no_grad"):
            logits = critic(x, real.y)
        if self.how == "no_grad":
            return logits.square().sum(1)
        (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=self.how != "create_graph")
        value = slope.square().sum((1, 2, 3))
        return value.detach() if self.how == "detach" else value


@pytest.mark.parametrize("how", ["no_grad", "create_graph", "detach"])
def test_a_penalty_that_trains_nothing_is_refused(how):
    """It would be reported, and do nothing. After the error D's weights rest, as between steps."""
    gan = build(small(penalties=(R1(every=1), Cut(how))))
    with pytest.raises(
        ValueError, match=rf"Cut\(how='{how}', every=1\) does not depend on D's weights.* train nothing"
    ):
        d_step(gan, batch(), 0)
    assert not any(p.requires_grad for p in gan.D.parameters())


def test_the_same_penalty_in_one_piece_is_that_of_r1():
    """So the test above refuses what was cut, and no more."""
    found = []
    for penalty in (Cut("not"), R1(gamma=2.0, every=1)):
        gan, real = build(small(penalties=(penalty,))), Batch(torch.linspace(-1, 1, 8 * 784).view(8, 1, 28, 28))
        watch = Watch(gan)
        d_step(gan, real, 0)
        found.append(watch.gradients[0]["D"])
    assert all(torch.equal(found[0][n], found[1][n]) for n in found[0])


def test_whose_gradients_are_taken_is_as_it_was_afterwards():
    """Also of two players at once, inside a step of one of them, of weights that rest, and after an error."""
    D, G = nn.Linear(2, 2), nn.Linear(2, 2)
    D.bias.requires_grad_(False)
    d_optim, g_optim = torch.optim.SGD([D.weight, D.bias], lr=1.0), torch.optim.SGD([G.weight], lr=1.0)
    G.weight.requires_grad_(False)

    def wanting():
        return {name for name, p in (("D.w", D.weight), ("D.b", D.bias), ("G.w", G.weight)) if p.requires_grad}

    with trainable(g_optim):
        assert wanting() == {"D.w", "G.w"}
        with trainable(d_optim, g_optim):
            assert wanting() == {"D.w", "D.b", "G.w"}
        assert wanting() == {"D.w", "G.w"}
    assert wanting() == {"D.w"}
    with pytest.raises(RuntimeError, match="on purpose"), trainable(d_optim, g_optim):
        raise RuntimeError("on purpose")
    assert wanting() == {"D.w"}
    assert G.bias.requires_grad  # which no optimiser owns


# ---- several discriminators ------------------------------------------------------------------------------


class TwoScales(nn.Module):
    """One discriminator on the image, one on its average over 2x2 pixels: a list of what they say."""

    def __init__(self, fine, coarse):
        super().__init__()
        self.fine, self.coarse = fine, coarse

    def forward(self, x, y=None):
        return [self.fine(x, y), self.coarse(F.avg_pool2d(x, 2), y)]


@component
class TwoScalesDiscriminator(DiscriminatorConfig):
    """A logit per patch of 4x4 values: of 8x8 images (N, 4) and (N, 1)."""

    width: int = 5

    def build(self, spec, head):
        def patches():
            body = nn.Sequential(nn.Conv2d(spec.channels, self.width, 4, stride=4), nn.Tanh())
            return Discriminator(body, head(self.width))

        return TwoScales(patches(), patches())


def two_scales(**changes):
    changes = {"discriminator": TwoScalesDiscriminator(), "penalties": (R1(gamma=3.0, every=1),)} | changes
    return build(small(**changes), pixels=8)


def game(loss, real, fake):
    """L_D of one discriminator, with SAN's term, a mean over its own logits; and L_G."""
    d, g = loss.d(real.fun, fake.fun).mean(), loss.g(fake.fun, real.fun).mean()
    if real.dir is not None:
        d = d + loss.g(real.dir).mean() - loss.g(fake.dir).mean()
    return d, g


ON_TWO_SCALES = pytest.mark.parametrize(
    ("loss", "san"),
    [(NonSaturating(), False), (Hinge(), True), (losses.RelativisticPairing(), False)],
    ids=["plain", "SAN", "paired"],
)


@ON_TWO_SCALES
def test_ds_gradient_is_that_of_the_sum_of_both_losses_and_a_penalty_on_all_logits(loss, san):
    gan, real = two_scales(loss=loss, head=Head(san=san)), batch(pixels=8)
    watch, reference = Watch(gan), Reference(gan)
    assert gan.critic(real.x, real.y).shape == (8, 4 + 1)
    stats = d_step(gan, real, 0)
    x = real.x.double().requires_grad_(True)
    on_real, on_fake = reference.logits(x), reference.logits(reference.images(watch.z[0]).detach())
    total = sum(game(loss, *scale)[0] for scale in zip(on_real, on_fake, strict=True))
    assert [scale.fun.shape for scale in on_real] == [(8, 4), (8, 1)]
    (slope,) = torch.autograd.grad(sum(scale.fun.sum() for scale in on_real), x, create_graph=True)
    square = slope.square().sum((1, 2, 3)).mean()
    assert_gradients(watch.gradients[0], reference.gradient("D", total + 3 / 2 * square), "D")
    assert stats["D/loss"].item() == pytest.approx(total.item(), rel=1e-5)
    assert stats["D/R1"].item() == pytest.approx(square.item(), rel=1e-5)
    said = [logit for scale in on_real for logit in scale.fun.flatten().tolist()]  # each of the 5 of an image counts
    assert stats["D/real"].item() == pytest.approx(sum(said) / 40, rel=1e-5, abs=1e-7)
    assert stats["D/sign_real"].item() == pytest.approx(sum(math.copysign(1, logit) for logit in said) / 40)


@ON_TWO_SCALES
@pytest.mark.parametrize("adversarial", [False, True], ids=["alone", "besides"])
def test_gs_gradient_is_that_of_both_losses_and_of_the_features_of_both(loss, san, adversarial):
    matching = FeatureMatching(strength=0.3, adversarial=adversarial)
    gan, real = two_scales(loss=loss, head=Head(san=san), feature_matching=matching), batch(pixels=8)
    watch, reference = Watch(gan), Reference(gan)
    stats = g_step(gan, real, 0)
    on_real, on_fake = reference.logits(real.x), reference.logits(reference.images(watch.z[0]))
    means = [[scale.features.mean(0) for scale in output] for output in (on_real, on_fake)]
    distance = sum((a - b).square().sum() for a, b in zip(*means, strict=True))
    assert [mean.shape for mean in means[0]] == [(5, 2, 2), (5, 1, 1)]
    total = 0.3 * distance
    if adversarial:
        total = total + sum(game(loss, *scale)[1] for scale in zip(on_real, on_fake, strict=True))
    assert_gradients(watch.gradients[0], reference.gradient("G", total), "G")
    assert stats["G/loss"].item() == pytest.approx(total.item(), rel=1e-5)
    assert stats["G/FeatureMatching"].item() == pytest.approx(distance.item(), rel=1e-5)


def test_both_discriminators_name_the_class():
    """AC-GAN on two scales: both cross-entropies are minimised, the mean of both accuracies is reported."""
    gan = two_scales(head=Head("auxiliary"), loss=Hinge(), penalties=(), **{"generator.conditional": True})
    real = batch(pixels=8)
    watch, reference = Watch(gan), Reference(gan)
    stats = d_step(gan, real, 0)
    on_real, on_fake = reference.logits(real.x), reference.logits(reference.images(watch.z[0], real.y).detach())
    total = sum(game(Hinge(), *scale)[0] for scale in zip(on_real, on_fake, strict=True))
    total = total + sum(cross_entropy(scale.classes, real.y) for scale in (*on_real, *on_fake))
    assert_gradients(watch.gradients[0], reference.gradient("D", total), "D")
    right = [row.argmax() == label for scale in on_real for row, label in zip(scale.classes, real.y, strict=True)]
    assert stats["D/accuracy"].item() == pytest.approx(sum(right).item() / 16)


def test_a_run_with_two_discriminators_resumes_bit_for_bit_and_adapts_to_all_logits(tmp_path):
    """With ADA, which goes by the signs of 49 + 9 logits an image, R1 through it, and feature matching."""
    changes = {
        "discriminator": TwoScalesDiscriminator(),
        "head": Head("projection", san=True),
        "generator.conditional": True,
        "penalties": (R1(every=2),),
        "feature_matching": FeatureMatching(),
        "augment": ADA(kimg=0.2, target=-0.9),
    }
    assert_resumes(small(**changes, log_kimg=0.008), tmp_path, ("G", "D", "ema", "augment"))
    written = lines(tmp_path / "whole")
    signs = [line["D/sign_real"] for line in written[:4]]  # ADA moves after four iterations
    assert written[3]["augment/r"] == pytest.approx(sum(signs) / 4, abs=1e-6)
    assert signs[0] * 8 * 58 == pytest.approx(round(signs[0] * 8 * 58), abs=1e-3)
    assert written[-1]["augment/p"] > 0
    assert {"D/sigma/fine.body.0", "D/sigma/coarse.head", "D/R1"} <= {name for line in written for name in line}


# ---- classes ---------------------------------------------------------------------------------------------


def cross_entropy(classes, y):
    """-log p(y | x), image by image."""
    return -torch.stack([scores.softmax(0)[label].log() for scores, label in zip(classes, y, strict=True)]).mean()


@pytest.mark.parametrize("san", [False, True], ids=["plain", "SAN"])
def test_with_an_auxiliary_classifier_both_players_also_minimise_the_cross_entropy(san):
    """D on real and generated images, G on generated ones (Odena et al. 2017)."""
    cfg = small(head=Head("auxiliary", san=san), loss=Hinge(), **{"generator.conditional": True})
    gan, real = build(cfg), batch()
    watch, reference = Watch(gan), Reference(gan)
    stats = d_step(gan, real, 0)
    on_real, on_fake = reference.logits(real.x), reference.logits(reference.images(watch.z[0], real.y).detach())
    total = F.relu(1 - on_real.fun).mean() + F.relu(1 + on_fake.fun).mean()
    if san:
        total = total + on_fake.dir.mean() - on_real.dir.mean()
    total = total + cross_entropy(on_real.classes, real.y) + cross_entropy(on_fake.classes, real.y)
    assert_gradients(watch.gradients[0], reference.gradient("D", total), "D")
    assert stats["D/loss"].item() == pytest.approx(total.item(), rel=1e-5)
    right = [row.argmax() == label for row, label in zip(on_real.classes, real.y, strict=True)]
    assert stats["D/accuracy"].item() == pytest.approx(sum(right).item() / len(right))

    reference = Reference(gan)
    stats = g_step(gan, real, 0)
    on_fake = reference.logits(reference.images(watch.z[-1], real.y))
    total = cross_entropy(on_fake.classes, real.y) - on_fake.fun.mean()
    assert_gradients(watch.gradients[1], reference.gradient("G", total), "G")
    assert stats["G/loss"].item() == pytest.approx(total.item(), rel=1e-5)
    assert "G/accuracy" not in stats


SEMI_SUPERVISED = {"head": Head("semi_supervised", labelled=20)}


def test_of_the_unlabelled_images_no_label_is_learned():
    """D minimises the loss on them, and the cross-entropy on the labelled ones alone (Salimans et al. 2016, sec. 5)."""
    lesson, x = torch.rand(8, 1, 28, 28) * 2 - 1, batch().x
    y, other = torch.arange(8), torch.arange(8).flip(0)
    found = []
    for labels, taught in ((y, y), (other, y), (y, other)):
        gan = build(small(**SEMI_SUPERVISED))
        watch, reference = Watch(gan), Reference(gan)
        stats = d_step(gan, Batch(x, labels), 0, None, Batch(lesson, taught))
        found.append(watch.gradients[0]["D"])
        on_real, on_fake = reference.logits(x), reference.logits(reference.images(watch.z[0]).detach())
        # the K + 1 classes written out, generated the last of them
        with_fake = [F.pad(logits.classes, (0, 1)).log_softmax(1) for logits in (on_real, on_fake)]
        unsupervised = -with_fake[0][:, :-1].logsumexp(1).mean() - with_fake[1][:, -1].mean()
        total = unsupervised + cross_entropy(reference.logits(lesson).classes, taught)
        assert_gradients(watch.gradients[0], reference.gradient("D", total), "D")
        assert stats["D/loss"].item() == pytest.approx(total.item(), rel=1e-5)
        accuracy = on_real.classes.argmax(1).eq(labels).double().mean().item()
        assert stats["D/accuracy"].item() == pytest.approx(accuracy)  # on images whose labels it is not told
    one, shuffled, untaught = found
    assert all(torch.equal(one[n], shuffled[n]) for n in one)
    assert not torch.equal(one["head.classifier.weight"], untaught["head.classifier.weight"])


def test_a_semi_supervised_d_trains_on_images_without_labels():
    """Exactly as with labels, which it does not read; how many it would guess is then unknown."""
    real, lesson, found = batch(), batch(), []
    for given in (real, Batch(real.x)):
        gan = build(small(**SEMI_SUPERVISED))
        watch = Watch(gan)
        stats = d_step(gan, given, 0, labelled=lesson)
        found.append((watch.gradients[0]["D"], {name: stats[name] for name in stats if name != "D/accuracy"}))
        assert ("D/accuracy" in stats) == (given is real)
    for told, untold in zip(*found, strict=True):
        assert told.keys() == untold.keys()
        assert all(torch.equal(told[n], untold[n]) for n in told)


def test_a_semi_supervised_d_without_labelled_images_is_refused():
    gan = build(small(**SEMI_SUPERVISED))
    for given in (batch(), Batch(batch().x)):
        with pytest.raises(ValueError, match=r"from some images alone: pass them, d_step\(\.\.\., labelled=batch\)"):
            d_step(gan, given, 0)


def test_g_of_a_semi_supervised_gan_has_no_class_to_be():
    gan, real = build(small(**SEMI_SUPERVISED)), batch()
    watch, reference = Watch(gan), Reference(gan)
    g_step(gan, real, 0, batch())
    total = F.softplus(-reference.logits(reference.images(watch.z[0])).classes.logsumexp(1)).mean()
    assert_gradients(watch.gradients[0], reference.gradient("G", total), "G")


def test_a_run_teaches_the_images_it_was_allowed_and_none_of_those_held_out(tmp_path, monkeypatch):
    """20 of the training part, 2 of each class, each with its own label, at every update of D."""
    lessons, others = [], []

    def noting(gan, batch, nimg, held_out, labelled):
        lessons.append(labelled)
        others.append(held_out)
        return d_step(gan, batch, nimg, held_out, labelled)

    monkeypatch.setattr(equipoise.train, "d_step", noting)
    augment = ADA(heuristic="rv", held_out=0.1)
    train(small(**SEMI_SUPERVISED, augment=augment, d_steps=2), tmp_path)
    training, unseen = hold_out(DIGITS.build(), 0.1)

    def content(dataset):
        pixels = dataset.read(np.arange(len(dataset)))
        return {x.tobytes(): int(y) for x, y in zip(pixels, dataset.labels, strict=True)}

    known, held_out = content(training), content(unseen)
    taught = {}
    for lesson in lessons:
        assert lesson.x.shape == (8, 1, 28, 28)
        for x, y in zip(((lesson.x + 1) * 127.5).round().byte().numpy(), lesson.y.tolist(), strict=True):
            taught[x.tobytes()] = y
    assert len(lessons) == 16
    assert len(taught) == 20
    assert np.bincount(list(taught.values())).tolist() == [2] * 10
    assert all(known[key] == y and key not in held_out for key, y in taught.items())
    assert all("D/accuracy" in line for line in lines(tmp_path))


def test_other_heads_are_taught_nothing(tmp_path, monkeypatch):
    def noting(gan, batch, nimg, held_out, labelled):
        assert labelled is None
        return d_step(gan, batch, nimg, held_out, labelled)

    monkeypatch.setattr(equipoise.train, "d_step", noting)
    train(override(recipe(), {"head": Head("auxiliary", labelled=20), "total_kimg": 0.016}), tmp_path)


@pytest.mark.parametrize("labelled", [9, 10**8])
def test_fewer_labelled_images_than_classes_or_more_than_there_are_are_refused(labelled, tmp_path):
    """With 9 of 10 classes, the cross-entropy would say that there is no tenth."""
    with pytest.raises(ValueError, match=rf"head\.labelled={labelled} must be at least one image of each of the 10"):
        train(small(head=Head("semi_supervised", labelled=labelled)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_images_that_are_held_out_cannot_be_labelled(tmp_path):
    """The bound is what is left to train on."""
    augment, images = ADA(heuristic="rv", held_out=0.5), len(DIGITS.build())
    left = len(hold_out(DIGITS.build(), 0.5)[0])
    assert left < images
    with pytest.raises(ValueError, match=f"there are {left} images to train on"):
        train(small(head=Head("semi_supervised", labelled=left + 1), augment=augment), tmp_path / "run")


@pytest.mark.parametrize("head", [Head("auxiliary", san=True), Head("semi_supervised", labelled=12)])
def test_a_run_that_learns_classes_resumes_bit_for_bit(head, tmp_path):
    matching = FeatureMatching(adversarial=False)
    changes = {"head": head, "generator.conditional": head.conditional_generator, "feature_matching": matching}
    assert_resumes(small(**changes, d_steps=2), tmp_path)


# ---- transfer --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A finished run of tiny.py."""
    path = tmp_path_factory.mktemp("source")
    train(recipe(), path)
    return path


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def copied(net):
    return {key: value.clone() for key, value in net.state_dict().items()}


def transferred(source, **changes) -> TrainConfig:
    return override(recipe(), {"transfer": FreezeD(run=str(source), layers=2), "seed": 3} | changes)


def test_a_run_starts_from_anothers_networks_and_does_not_train_the_first_layers(source, tmp_path, monkeypatch):
    """Here two convolutions and their biases, the first four parameters that D registers."""
    seen = {}

    class Watched(equipoise.train.Checkpoints):
        def load_latest(self):
            nimg = super().load_latest()
            seen.update({name: copied(self.nets[name]) for name in ("G", "D", "ema")})
            return nimg

    monkeypatch.setattr(equipoise.train, "Checkpoints", Watched)
    train(transferred(source), tmp_path)
    for name in ("G", "D", "ema"):
        assert same(seen[name], saved(source, name))
        assert not same(seen[name], saved(tmp_path, name))
    names = [name for name, _ in GAN.build(recipe(), SPEC).D.named_parameters()]
    after = saved(tmp_path, "D")
    assert {name for name in names if not torch.equal(after[name], seen["D"][name])} == set(names[4:])


def test_nothing_else_of_the_other_run_is_taken(source, tmp_path):
    """Its optimisers' moments would count its steps on."""
    train(transferred(source, total_kimg=0.04), tmp_path)
    state = torch.load(newest(tmp_path) / "state.pt", weights_only=True)
    assert state["nimg"] == 40
    for optimizer in state["optimizers"].values():
        assert {int(moments["step"]) for moments in optimizer["state"].values()} == {5}
    assert lines(tmp_path)[0]["nimg"] == 32


def test_the_past_of_a_historical_average_begins_where_the_transferred_networks_are(source, tmp_path):
    """And not at the initial weights that they replaced: the first step has no past to be drawn to."""
    average = (HistoricalAverage(),)
    changes = {"d_regularizers": average, "g_regularizers": average, "total_kimg": 0.008, "log_kimg": 0.008}
    train(transferred(source, **changes), tmp_path)
    first = lines(tmp_path)[0]
    assert first["nimg"] == 8
    assert first["D/HistoricalAverage"] == first["G/HistoricalAverage"] == 0


def test_a_transferred_run_resumes_bit_for_bit_when_the_other_run_is_gone(source, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(source, other)
    cfg = transferred(other, total_kimg=0.08)
    train(cfg, tmp_path / "whole")
    train(override(cfg, {"total_kimg": 0.04}), tmp_path / "cut")
    shutil.rmtree(other)
    train(cfg, tmp_path / "cut")
    for name in ("G", "D", "ema"):
        assert same(saved(tmp_path / "whole", name), saved(tmp_path / "cut", name))


def test_a_run_that_does_not_fit_is_refused_and_leaves_its_directory_free(source, tmp_path):
    """Free for the config that is meant: no config of the refused one stays behind."""
    place = tmp_path / "run"
    for refused, message in (
        (transferred(source, **{"generator.width": 3}), r"G of .* does not fit this config's"),
        (transferred(source, d_normalizer=NoNormalizer()), r"D of .* does not fit this config's"),
        (transferred(tmp_path / "nowhere"), r"cannot start from the run .*nowhere: there is no checkpoint in"),
        (transferred(source, **{"transfer.layers": 99}), r"asks for more layers than the Discriminator can spare"),
    ):
        with pytest.raises(ValueError, match=message):
            train(refused, place)
        assert not place.exists()
    train(transferred(source, total_kimg=0.008), place)
    assert saved(place, "D")


def killed(*args, **kwargs):
    raise KeyboardInterrupt


def test_a_run_killed_before_it_saved_what_it_took_starts_from_the_other_again(source, tmp_path, monkeypatch):
    """What it leaves is a config and perhaps half a checkpoint."""
    cfg = transferred(source, total_kimg=0.048)
    train(cfg, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(equipoise.train.Checkpoints, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train(cfg, tmp_path / "killed")
    (tmp_path / "killed" / "checkpoints" / ".000000000000.tmp").mkdir(parents=True)
    train(cfg, tmp_path / "killed")
    for name in ("G", "D", "ema"):
        assert same(saved(tmp_path / "whole", name), saved(tmp_path / "killed", name))


@pytest.mark.parametrize("later", ["trained on", "deleted"])
def test_a_run_killed_before_its_first_snapshot_starts_from_the_same_weights(later, source, tmp_path, monkeypatch):
    """Whatever has become of the other run by then: it saved what it took, with the past of its regularisers."""
    other = tmp_path / "other"
    shutil.copytree(source, other)
    cfg = transferred(other, d_regularizers=(HistoricalAverage(strength=0.3),), total_kimg=0.048)
    train(cfg, tmp_path / "whole")
    with monkeypatch.context() as patch:
        steps = iter([g_step, g_step, killed])
        patch.setattr(equipoise.train, "g_step", lambda *args: next(steps)(*args))
        with pytest.raises(KeyboardInterrupt):
            train(cfg, tmp_path / "killed")
    assert newest(tmp_path / "killed").name == "000000000000"
    for name in ("G", "D", "ema"):
        assert same(saved(tmp_path / "killed", name), saved(source, name))
    if later == "deleted":
        shutil.rmtree(other)
    else:
        train(replace(recipe(), total_kimg=0.2), other)
        assert not same(saved(other, "G"), saved(source, "G"))
    train(cfg, tmp_path / "killed")
    for name in ("G", "D", "ema", "d_regularizations"):
        assert same(saved(tmp_path / "whole", name), saved(tmp_path / "killed", name))


def test_the_transferred_average_lasts(source, tmp_path, monkeypatch):
    """β = 0.5^(images / half-life) from the first update on; a ramp-up would make it a copy of G within a few."""
    passed = []

    def noting(gan, *args):
        found = g_step(gan, *args)
        passed.append({name: p.detach().double().clone() for name, p in gan.G.named_parameters()})
        return found

    monkeypatch.setattr(equipoise.train, "g_step", noting)
    train(transferred(source, ema=EMAConfig(halflife_kimg=1.0), total_kimg=0.16), tmp_path)
    before, G, average = (saved(*where) for where in ((source, "ema"), (tmp_path, "G"), (tmp_path, "ema")))
    assert len(passed) == 20
    beta = 0.5 ** (8 / 1000)
    for name in passed[0]:
        expected = before[name].double()
        for now in passed:
            expected = beta * expected + (1 - beta) * now[name]
        assert_close(average[name].double(), expected, rtol=1e-4, atol=1e-6)

    def distance(a, b):
        return sum((a[name] - b[name]).square().sum() for name in passed[0]).sqrt().item()

    assert distance(average, before) < 0.3 * distance(G, before)  # 20 updates are a tenth of the average
    assert distance(average, G) > 0.7 * distance(G, before)


@pytest.mark.parametrize("layers", [0, 2])
def test_every_other_term_leaves_frozen_layers_alone(layers, tmp_path):
    """Penalties, regularisers and joint penalties, which see the whole of D."""
    terms = {
        "d_regularizers": (SpectralNormPenalty(strength=1.0), HistoricalAverage()),
        "joint_penalties": (Consensus(gamma=0.1),),
        "penalties": (R1(every=1),),
    }
    train(small(), tmp_path / "a")
    train(small(**terms, transfer=FreezeD(run=tmp_path / "a", layers=layers), seed=1), tmp_path / "b")
    before, after = saved(tmp_path / "a", "D"), saved(tmp_path / "b", "D")
    resting = {"body.1.weight", "body.1.bias", "body.3.weight", "body.3.bias"} if layers else set()
    assert {name for name in after if torch.equal(before[name], after[name])} == resting


def test_a_regularizer_of_frozen_layers_alone_is_reported_and_moves_nothing(tmp_path):
    """Of a SAN, whose head regularisers leave alone."""
    cfg = small(head=Head(san=True))
    train(cfg, tmp_path / "a")
    later = override(cfg, {"transfer": FreezeD(run=tmp_path / "a", layers=2), "seed": 1})
    train(later, tmp_path / "plain")
    train(override(later, {"d_regularizers": (Orthogonal(strength=1.0),)}), tmp_path / "b")
    assert same(saved(tmp_path / "plain", "D"), saved(tmp_path / "b", "D"))
    values = [line["D/Orthogonal"] for line in lines(tmp_path / "b")]
    assert min(values) == max(values) > 0


# ---- combinations that are worth a warning ---------------------------------------------------------------

BATCH_NORM = {"discriminator": DCGANDiscriminator(width=2), "d_normalizer": NoNormalizer()}
BATCH_FREE = {"discriminator": DCGANDiscriminator(width=2, norm="none"), "d_normalizer": NoNormalizer()}


def build_on_28(**changes):
    return GAN.build(override(recipe(), changes), SPEC)


@pytest.mark.parametrize("penalty", [R1(), GradientPenalty(), Dragan()], ids=lambda p: type(p).__name__)
def test_batch_norm_under_a_gradient_penalty_is_warned_of(penalty):
    with pytest.warns(UserWarning, match=rf"D has batch norm \(body\..*\) under {type(penalty).__name__}: .*its whole"):
        build_on_28(**BATCH_NORM | {"penalties": (penalty,)})


@pytest.mark.parametrize("normalizer", [SpectralNorm(), FrobeniusNorm()], ids=lambda n: type(n).__name__)
def test_batch_norm_under_a_normaliser_that_bounds_d_is_warned_of(normalizer):
    with pytest.warns(UserWarning, match=rf"under {type(normalizer).__name__}: batch norm divides .* has no bound"):
        build_on_28(**BATCH_NORM | {"d_normalizer": normalizer})


@pytest.mark.parametrize("norm", ["batch", "layer", "instance", "group"])
def test_a_norm_of_activations_under_clipping_is_warned_of(norm):
    discriminator = DCGANDiscriminator(width=2, norm=norm)
    clipped = {"discriminator": discriminator, "d_normalizer": NoNormalizer(), "constraints": (ClipWeights(),)}
    with pytest.warns(UserWarning, match=rf"D has {norm} norm \(body\..*\) under ClipWeights: .* has no bound"):
        build_on_28(**clipped)


def test_a_wasserstein_loss_that_nothing_bounds_is_warned_of():
    wasserstein = {"loss": Wasserstein(), "head.san": False, "d_normalizer": NoNormalizer()}
    with pytest.warns(UserWarning, match="nothing bounds D's Lipschitz constant, and Wasserstein"):
        build_on_28(**wasserstein)
    with pytest.warns(UserWarning, match="SpectralNorm leaves a SAN head alone"):
        build_on_28(loss=Wasserstein())  # tiny.py has both


def test_every_sentence_is_a_warning_and_one_process_says_it(monkeypatch):
    """Each guarantee that is void, once, at the line that built the players."""
    loss, penalties, normalizer = Wasserstein(), (R1(),), SpectralNorm()
    changes = BATCH_NORM | {"loss": loss, "penalties": penalties, "d_normalizer": normalizer}
    with pytest.warns(UserWarning, match="D has batch norm") as caught:
        gan = build_on_28(**changes)
    said = [str(warning.message) for warning in caught]
    assert said == voided(gan.D, loss=loss, penalties=penalties, normalizer=normalizer)
    assert len(said) == 2
    assert all(warning.filename == __file__ for warning in caught)
    monkeypatch.setattr("equipoise.gan.rank", lambda: 1)
    build_on_28(**changes)  # warnings are errors here


def test_nothing_else_is_warned_of():
    """Norms by themselves, with what makes no promise about gradients, or in G; and a bound without them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_on_28(**BATCH_NORM)
        build_on_28(**BATCH_NORM | {"d_normalizer": WeightNorm(), "d_regularizers": (Orthogonal(),)})
        build_on_28(**BATCH_NORM | {"g_normalizer": SpectralNorm()})
        build_on_28(penalties=(R1(),))  # G of tiny.py has batch norm
        build_on_28(loss=Wasserstein(), **{"head.san": False})
        build_on_28(loss=Wasserstein(), constraints=(ClipWeights(),), **{"head.san": False, **BATCH_FREE})
        build_on_28(loss=Wasserstein(), penalties=(GradientPenalty(),))
        for norm in ("none", "layer", "instance", "group"):
            discriminator = DCGANDiscriminator(width=2, norm=norm)
            build_on_28(discriminator=discriminator, penalties=(R1(),), d_normalizer=NoNormalizer())


# ---- what is reported of D -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "normalizer"),
    [(Head(), NoNormalizer()), (Head(), SpectralNorm()), (Head(san=True), SpectralNorm()), (Head(), FrobeniusNorm())],
    ids=["plain", "spectral norm", "SAN", "Frobenius"],
)
def test_a_snapshot_says_sigma_of_every_layer_and_the_bound_of_the_features(head, normalizer, tmp_path):
    """Those of the weights in its checkpoint, by singular value decomposition of what D computes with."""
    cfg = small(head=head, d_normalizer=normalizer, total_kimg=0.08, snapshot_kimg=0.04, log_kimg=0.016)
    train(cfg, tmp_path)
    for line in lines(tmp_path):
        path = tmp_path / "checkpoints" / f"{line['nimg']:012d}"
        said = {name: value for name, value in line.items() if name.startswith(("D/sigma", "D/lipschitz"))}
        assert bool(said) == (line["nimg"] in (40, 80)) == path.exists()
        if not said:
            continue
        D = GAN.build(cfg, SPEC).D
        D.load_state_dict(load_file(path / "D.safetensors"))
        D.eval()
        layers = {
            n: m for n, m in D.named_modules() if isinstance(m, torch.nn.Linear) and not (head.san and "head" in n)
        }
        sigmas = {n: np.linalg.svd(m.weight.detach().double().numpy(), compute_uv=False)[0] for n, m in layers.items()}
        assert said == pytest.approx(
            {f"D/sigma/{n}": sigma for n, sigma in sigmas.items()}
            | ({"D/sigma/head": D.head.conditioning.linear.weight.norm().item()} if head.san else {})
            | {"D/lipschitz": sigmas["body.1"] * sigmas["body.3"]},
            rel=1e-5,
        )


# ---- several processes -----------------------------------------------------------------------------------


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
