"""What networks cost: counts against sums by hand and against what a real forward keeps; the listing of the zoo."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from loops import loop_over
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

from equipoise.cli.app import app
from equipoise.compute.settings import Compute
from equipoise.config import TrainConfig
from equipoise.core.types import ImageSpec
from equipoise.data import Digits
from equipoise.losses import R1, GradientPenalty, Orthogonal
from equipoise.models import (
    DCGANDiscriminator,
    DCGANGenerator,
    Head,
    ProGANDiscriminator,
    ProGANGenerator,
    Projection,
    SANDigitsDiscriminator,
    SANDigitsGenerator,
)
from equipoise.models.counts import Counts, count, layers, on_meta, training_bytes
from equipoise.models.describe import listing
from equipoise.models.zoo import ZOO
from equipoise.recipes import load
from equipoise.rules import ProgressiveGrowing, ToConvergence
from equipoise.train import iteration_flops


@pytest.fixture(params=["cpu", "meta"])
def device(request):
    with torch.device(request.param):
        yield request.param


class TestCount:
    def test_perceptron(self, device):
        net = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
        found = count(net, (torch.randn(4, 10),))
        assert found.parameters == 10 * 20 + 20 + 20 * 5 + 5
        assert found.macs == 10 * 20 + 20 * 5
        # The input, for the first weight, and the output of the ReLU, once for it and for the second weight.
        assert found.stored == 4 * (10 + 20)

    def test_convolutions(self, device):
        """k² c_in c_out multiply-adds per position: of the output, or of a transposed convolution's input."""
        net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ConvTranspose2d(8, 5, 4, stride=2, padding=1))
        found = count(net, (torch.randn(4, 3, 12, 12),))
        assert found.macs == 9 * 3 * 8 * 6 * 6 + 16 * 8 * 5 * 6 * 6
        assert found.stored == 4 * (3 * 12 * 12 + 8 * 6 * 6)

    def test_recomputed_blocks_store_their_inputs_alone(self):
        pair, spec = ZOO["sagan_128"], ImageSpec(64, 3, 10)
        stored = {}
        for checkpoint in (False, True):
            G, D, of_g, of_d = on_meta(
                *(replace(network, checkpoint=checkpoint) for network in (pair.generator, pair.discriminator)),
                Head(Projection()),
                spec,
            )
            stored[checkpoint] = [count(net, inputs).stored for net, inputs in ((G, of_g), (D, of_d))]
        assert all(some < 0.5 * plain for some, plain in zip(stored[True], stored[False], strict=True))

    def test_bytes_of_a_step(self):
        """Weights, gradients and two averages of both, the average of G; D on two batches, or G and D on one."""
        G, D = Counts(1000, 0, 50), Counts(100, 0, 20)
        assert training_bytes(G, D, 8) == 4 * (5 * 1000 + 4 * 100) + 8 * (50 + 20)
        assert training_bytes(G, D._replace(stored=70), 8) == 4 * (5 * 1000 + 4 * 100) + 8 * 2 * 70


class TestIteration:
    """Operations of a whole iteration against sums by hand, layer by layer, for the convolutional networks of SAN."""

    W, N = 8, 6
    SPEC = ImageSpec(28, 1, 0)
    # Multiply-adds of an image's forward: kernel x channels in x channels out x positions.
    G = (100 * 4 * W * 9, 16 * 4 * W * 2 * W * 9, 16 * 2 * W * W * 36, 36 * W * 144)
    D = (36 * W * 144, 16 * W * 2 * W * 36, 16 * 2 * W * 4 * W * 9, 4 * W * 9)
    # Weights and inputs each have a gradient that costs a forward; D reads images, whose gradient is for G alone.
    d_step = sum(G) + 2 * (3 * sum(D) - D[0])
    g_step = 3 * sum(G) - G[0] + 2 * sum(D)

    def config(self, **changes):
        plain = TrainConfig(
            data=Digits(),
            generator=SANDigitsGenerator(width=self.W),
            discriminator=SANDigitsDiscriminator(width=self.W),
            batch_size=self.N,
        )
        return replace(plain, **changes)

    def macs(self, **changes):
        flops, rest = divmod(iteration_flops(self.config(**changes), self.SPEC), 2 * self.N)
        assert rest == 0
        return flops

    def test_steps(self):
        assert self.macs() == self.d_step + self.g_step
        assert self.macs(d_steps=3) == 3 * self.d_step + self.g_step

    def test_how_it_is_done_changes_nothing(self):
        assert self.macs(compute=Compute(precision="bf16", convolutions="measured", micro_batch=3)) == self.macs()
        assert self.macs(compute=Compute(precision="auto", compile=True)) == self.macs()

    def test_gradient_of_a_gradient(self):
        """g_(l-1) = W_lᵀ g_l: one product to make it, two to differentiate it, by W_l and by g_l, the last being 1.

        Autograd then follows the slopes of the activations back to the weights, though these slopes are constant.
        """
        first, *middle, last = self.D
        forward_and_gradient = 2 * sum(self.D)
        by_w, by_g = sum(self.D), sum(self.D) - last
        through_slopes = first + 2 * sum(middle)
        penalty = forward_and_gradient + by_w + by_g + through_slopes
        every = self.macs(terms=(GradientPenalty(),))
        assert every == self.d_step + self.g_step + penalty
        lazy = iteration_flops(self.config(terms=(GradientPenalty(), R1(every=16))), self.SPEC)
        assert lazy == round(2 * self.N * (every + penalty / 16))

    def test_regulariser_of_weights(self):
        """‖W Wᵀ‖ costs the same for every batch: a product, and two for its gradient, W being in it twice."""
        small, large = (
            iteration_flops(replace(self.config(terms=(Orthogonal(player="G"),)), batch_size=n), self.SPEC)
            for n in (self.N, 2 * self.N)
        )
        of_batch = 2 * self.N * (self.d_step + self.g_step)
        assert small - of_batch == large - 2 * of_batch > 0

    def test_checkpointed_blocks_compute_their_forward_twice(self):
        pair = ZOO["sagan_128"]
        nets = replace(pair.generator, width=4), replace(pair.discriminator, width=4)
        spec = ImageSpec(32, 3, 0)
        plain, again = (
            iteration_flops(
                self.config(generator=replace(nets[0], checkpoint=c), discriminator=replace(nets[1], checkpoint=c)),
                spec,
            )
            for c in (False, True)
        )
        G, D, of_g, of_d = on_meta(*nets, Head(), spec)
        forward = count(G, of_g).macs + 3 * count(D, of_d).macs  # what backward passes go through: D, D; then G and D
        assert 0.9 * forward < (again - plain) / (2 * self.N) <= forward

    def test_networks_that_grow_have_their_full_size(self):
        nets = {"generator": ProGANGenerator(width=8), "discriminator": ProGANDiscriminator(width=8)}
        growing = self.config(growth=ProgressiveGrowing(batch_sizes=((4, 16),)), **nets)
        assert iteration_flops(growing, self.SPEC) == iteration_flops(self.config(**nets), self.SPEC)

    def test_state_of_generators_stays(self):
        before = torch.random.get_rng_state()
        self.macs()
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_updates_until_convergence_are_refused(self):
        with pytest.raises(ValueError, match="give a fixed number, such as d_steps=5"):
            iteration_flops(self.config(d_steps=ToConvergence()), self.SPEC)


@loop_over("name", ["ada", "improved_gan", "progan_small", "r3gan"])
def test_what_recipes_do_is_counted(name):
    cfg, _ = load(name)
    assert iteration_flops(cfg, ImageSpec(28, 1, 10)) > 0


def test_layers_in_order_with_their_shapes():
    G, D, of_g, of_d = on_meta(DCGANGenerator(width=8), DCGANDiscriminator(width=8), Head(), ImageSpec(16, 1, 0))
    found = layers(D, of_d, depth=2)
    assert [(layer.depth, layer.name, layer.kind, layer.shape) for layer in found[:4]] == [
        (0, "", "Discriminator", (1,)),
        (1, "body", "Sequential", (256,)),
        (2, "0", "Conv2d", (8, 8, 8)),
        (2, "1", "LeakyReLU", (8, 8, 8)),
    ]
    assert found[2].parameters == 16 * 8 + 8
    assert max(layer.depth for layer in layers(D, of_d, depth=1)) == 1
    names = [layer.name for layer in layers(G, of_g, depth=2)]
    assert names[:2] == ["", "layers.0"]  # a list of modules, which is never called itself, has no line of its own


@loop_over("name", ZOO)
def test_every_pair_is_built_without_memory_and_makes_images(name):
    """What it costs is counted for the table of the documentation."""
    pair = ZOO[name]
    G, D, of_g, _ = on_meta(pair.generator, pair.discriminator, pair.head, pair.spec)
    assert all(parameter.is_meta for net in (G, D) for parameter in net.parameters())
    x = G(*of_g)
    assert x.shape[1:] == (pair.spec.channels, pair.spec.resolution, pair.spec.resolution)


def test_listing(capsys):
    Console(width=140).print(listing({name: ZOO[name] for name in ("mlp_28", "biggan_512")}))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert [line.split()[0] for line in lines] == ["name", "mlp_28", "biggan_512"]
    assert lines[2].startswith("biggan_512 512x512 82.5 M 99.4 M")


class TestCommand:
    def run(self, *arguments: str):
        return CliRunner().invoke(app, ["models", *arguments], env={"COLUMNS": "140"})

    def test_picture(self):
        found = self.run("sngan_cnn_32", "--depth", "1")
        assert found.exit_code == 0
        assert "G: 3.8 M parameters" in found.output
        assert "StandardCNN 3x32x32" in found.output
        assert "Conv2d" not in found.output.partition("D:")[2]  # deeper than asked for

    def test_changed_fields(self):
        plain = self.run("sagan_128", "--depth", "0").output
        small = self.run("sagan_128", "generator.width=8", "spec.resolution=64", "--depth", "0").output
        assert "3x128x128" in plain
        assert "3x64x64" in small
        assert "G: 42.1 M" in plain
        assert "G: 42.1 M" not in small

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["sagan_12"], "there is no model 'sagan_12'; did you mean 'sagan_128'?"),
            (["sagan_128", "width=3"], "Pair has no field 'width'"),
            (["sagan_128", "spec.resolution=37"], "37 is none of these sizes"),
        ],
    )
    def test_mistakes(self, arguments, message):
        found = self.run(*arguments)
        assert found.exit_code == 2
        assert message in found.output
