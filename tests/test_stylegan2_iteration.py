"""Two iterations of a run of StyleGAN2 against its phases, written down in float64 from the publications.

Phases: D's loss, D's R1, G's loss, G's path length. Each is an optimiser step of its own with latents of its own; the
lazy ones are due at iteration 0 and not at iteration 1. The networks are the library's, in float64.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from runs import lines, newest, saved
from torch.func import functional_call
from torch.testing import assert_close

from equipoise.config import TrainConfig
from equipoise.core.randomness import Purpose
from equipoise.data import Images, InfiniteBatches, mirrored
from equipoise.losses import R1, ByResolution, LazyStep, PathLength
from equipoise.models import StyleGAN2Discriminator, StyleGAN2Generator
from equipoise.rules import Adam, EMAConfig, Report
from equipoise.train import GAN, train

BATCH, SIZE, EPS = 8, 16, 1e-4  # an eps that leaves an element at rest whose gradient is rounding noise


def config(path):
    narrow = {"channel_base": 128, "channel_max": 6}
    return TrainConfig(
        data=Images(path, mirror=True),
        generator=StyleGAN2Generator(z_dim=8, w_dim=8, mapping_layers=2, mixing=0.0, noise=False, **narrow),
        discriminator=StyleGAN2Discriminator(**narrow),
        terms=(LazyStep(R1(gamma=ByResolution(0.5), every=16)), LazyStep(PathLength(every=4))),
        g_optim=Adam(lr=0.0025, betas=(0.0, 0.99), eps=EPS),
        d_optim=Adam(lr=0.002, betas=(0.0, 0.99), eps=EPS),
        ema=EMAConfig(halflife_kimg=0.02, rampup=1.0),
        batch_size=BATCH,
        total_kimg=2 * BATCH / 1000,
        report=Report(log_kimg=BATCH / 1000, snapshot_kimg=1.0),
    )


class Adam64:
    """Adam with beta1 = 0, of a player whose lazy steps come at every k-th update: lr and beta2 corrected."""

    def __init__(self, weights, lr, k):
        self.weights, self.lr, self.beta = weights, lr * k / (k + 1), 0.99 ** (k / (k + 1))
        self.squares, self.t = {n: torch.zeros_like(w) for n, w in weights.items()}, 0

    def step(self, loss):
        gradients = torch.autograd.grad(loss, list(self.weights.values()), allow_unused=True, materialize_grads=True)
        self.t += 1
        for (n, w), g in zip(self.weights.items(), gradients, strict=True):
            self.squares[n] = self.beta * self.squares[n] + (1 - self.beta) * g**2
            root = (self.squares[n] / (1 - self.beta**self.t)).sqrt()
            self.weights[n] = (w - self.lr * g / (root + EPS)).detach().requires_grad_(True)


class Published:
    """The two players in float64, and what StyleGAN2-ADA keeps beside them."""

    def __init__(self, gan):
        self.gan = gan
        self.nets = {"G": copy.deepcopy(gan.G).double(), "D": copy.deepcopy(gan.D).double()}
        weights = {
            x: {n: p.detach().clone().requires_grad_(True) for n, p in net.named_parameters()}
            for x, net in self.nets.items()
        }
        self.G, self.D = Adam64(weights["G"], 0.0025, 4), Adam64(weights["D"], 0.002, 16)
        self.ema = {n: w.detach().clone() for n, w in weights["G"].items()}
        self.w_avg, self.a, self.values = torch.zeros(8, dtype=torch.float64), torch.zeros((), dtype=torch.float64), []

    def styles(self, z):
        weights = {n.removeprefix("mapping."): w for n, w in self.G.weights.items() if n.startswith("mapping.")}
        ws = functional_call(self.nets["G"].mapping, weights, (z,), {"update": False})
        self.w_avg = 0.995 * self.w_avg + 0.005 * ws[:, 0].mean(0).detach()
        return ws

    def images(self, ws):
        weights = {n.removeprefix("synthesis."): w for n, w in self.G.weights.items() if n.startswith("synthesis.")}
        return functional_call(self.nets["G"].synthesis, weights, (ws,))

    def logits(self, x):
        return functional_call(self.nets["D"], self.D.weights, (x,)).fun

    def iteration(self, real, z, y, nimg):
        """z: of the four phases that are due, y: noise of the path length's pass, or None."""
        values, x = {}, real.double()
        fake = self.images(self.styles(z["D"])).detach()
        loss = F.softplus(self.logits(fake)).mean() + F.softplus(-self.logits(x)).mean()
        values["D/loss"] = loss.item()
        self.D.step(loss)
        if nimg == 0:  # 0 is a multiple of 16 and of 4
            x = x.requires_grad_(True)
            (slope,) = torch.autograd.grad(self.logits(x).sum(), x, create_graph=True)
            penalty = slope.square().sum([1, 2, 3]).mean()
            gamma = 0.5 * SIZE**2 / BATCH
            values["D/R1"] = penalty.item()
            self.D.step(16 * gamma / 2 * penalty)
        loss = F.softplus(-self.logits(self.images(self.styles(z["G"])))).mean()
        values["G/loss"] = loss.item()
        self.G.step(loss)
        if nimg == 0:
            ws = self.styles(z["path"])
            scaled = (self.images(ws) * y.double()).sum() / SIZE  # √(H W)
            (jy,) = torch.autograd.grad(scaled, ws, create_graph=True)
            lengths = jy.square().sum(2).mean(1).sqrt()
            a = self.a + 0.01 * (lengths.mean() - self.a)
            self.a = a.detach()
            penalty = (lengths - a).square().mean()
            values["G/PathLength"] = penalty.item()
            self.G.step(4 * 2 * penalty)
        self.values.append(values)
        after = nimg + BATCH  # ours; the published ramp takes nimg, so that its first average is a copy
        beta = 0.5 ** (BATCH / min(20, after * 1.0))
        self.ema = {n: beta * e + (1 - beta) * self.G.weights[n].detach() for n, e in self.ema.items()}


def test_two_iterations(tmp_path, monkeypatch):
    """Losses, penalties, both networks, their averages. Wrong: any of z, order, factor, correction or mean."""
    x = np.cumsum(np.random.default_rng(0).integers(-9, 10, size=(12, SIZE, SIZE, 3)), axis=2) + 128
    np.savez(tmp_path / "images.npz", x=x.clip(0, 255).astype(np.uint8))
    cfg = config(tmp_path / "images.npz")
    drawn, draw = [], torch.randn_like
    monkeypatch.setattr(torch, "randn_like", lambda t: drawn.append(draw(t)) or drawn[-1])
    built, build = [], GAN.build
    monkeypatch.setattr(GAN, "build", lambda *args: built.append(build(*args)) or built[0])
    references = []
    monkeypatch.setattr("equipoise.train.opened.tune", lambda gan, *_: references.append(Published(gan)))
    train(cfg, tmp_path / "run")

    (reference,), (gan,), (y,) = references, built, drawn
    data = InfiniteBatches(mirrored(cfg.data.build()), BATCH, seed=0)
    for nimg in (0, BATCH):
        real = next(data)
        z = {
            "D": gan.latents(real, Purpose.Z_FOR_D, nimg),
            "G": gan.latents(real, Purpose.Z_FOR_G, nimg),
            "path": gan.latents(real, Purpose.Z_FOR_TERMS_OF_G, nimg)[::2],
        }
        reference.iteration(real.x, {name: latent.double() for name, latent in z.items()}, y, nimg)

    for line, values in zip(lines(tmp_path / "run"), reference.values, strict=True):
        for name, value in values.items():
            assert_close(line[name], value, rtol=2e-4, atol=1e-6, msg=name)
        assert ("D/R1" in line) == ("D/R1" in values)
    assert_close(saved(tmp_path / "run", "G_terms")["0.mean"].double(), reference.a, rtol=1e-4, atol=0)
    ours = {"G": reference.G.weights, "D": reference.D.weights, "ema": reference.ema}
    for net, weights in ours.items():
        found = saved(tmp_path / "run", net)
        for name, weight in weights.items():
            assert_close(
                found[name].double(),
                weight.detach(),
                rtol=1e-4,
                atol=2e-5,
                msg=lambda m, n=f"{net}.{name}": f"{n}: {m}",
            )
    assert_close(saved(tmp_path / "run", "G")["mapping.w_avg"].double(), reference.w_avg, rtol=1e-4, atol=1e-7)
    assert_close(saved(tmp_path / "run", "ema")["mapping.w_avg"].double(), reference.w_avg, rtol=1e-4, atol=1e-7)
    groups = torch.load(newest(tmp_path / "run") / "state.pt", weights_only=True)["optimizers"]
    assert groups["D"]["state"][0]["step"] == 3
    assert groups["G"]["state"][0]["step"] == 3
