"""Layers of style-based networks beside a plain form of each, and beside the published operators."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F
from fixtures import numbers
from torch import nn
from torch.testing import assert_close

from equipoise.core.latents import Uniform
from equipoise.core.types import ImageSpec
from equipoise.models import StyleGAN2Generator
from equipoise.nn import (
    MappedVectors,
    Mapping,
    MinibatchStd,
    ScaledConv2d,
    ScaledEmbedding,
    ScaledLinear,
    StyledGenerator,
    blur_filter,
    convolution_down,
    convolution_up,
    downsample,
    modulated_convolution,
    scaled_lrelu,
    upfirdn,
    upsample,
)
from equipoise.weights import (
    ClipSingularValues,
    ClipWeights,
    EqualizedLearningRate,
    ExactSpectralNorm,
    FrobeniusNorm,
    SpectralNorm,
    UnitSphere,
    WeightNorm,
    effective_weight,
    spectral_norms,
)


def plain_upfirdn(x, taps, up, down, padding, gain, flip):
    """With the zeros inserted, in words of the definition. up, down: (of x, of y)."""
    taps = torch.outer(taps, taps) if taps.ndim == 1 else taps
    (ux, uy), (dx, dy) = up, down
    zeros = x.new_zeros(*x.shape[:2], x.shape[2] * uy, x.shape[3] * ux)
    zeros[:, :, ::uy, ::ux] = x
    kernel = taps if flip else taps.flip(0, 1)
    padded = F.pad(zeros, padding).flatten(0, 1).unsqueeze(1)
    y = F.conv2d(padded, gain * kernel[None, None]).unflatten(0, x.shape[:2]).squeeze(2)
    return y[:, :, ::dy, ::dx]


# ---- the published operators -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published():
    arrays = numbers("stylegan/ops.npz")
    tensors = {name: torch.from_numpy(a) for name, a in arrays.items() if name != "config"}
    return tensors, json.loads(str(arrays["config"]))["cases"]


def of(published, *ops):
    tensors, cases = published
    chosen = [case for case in cases if case["op"] in ops]
    assert chosen
    for case in chosen:
        taps = tensors[f"filter/{case['filter']}"] if case.get("filter") else None
        weight = tensors[f"weight/{case['weight']}"] if case.get("weight") else None
        yield case, taps, weight, tensors[case["out"]]


def both(factor):
    return tuple(factor) if isinstance(factor, list) else (factor, factor)


def test_resampling_is_the_published_one(published):
    """Asymmetric filters, in one and two dimensions; factors that differ between the axes; crops."""
    x = published[0]["in/x"]
    for case, taps, _, wanted in of(published, "upfirdn2d"):
        padding = case["padding"]
        padding = (padding,) * 4 if isinstance(padding, int) else tuple(padding)
        found = upfirdn(x, taps, both(case["up"]), both(case["down"]), padding, case["gain"], case["flip_filter"])
        assert_close(found, wanted, msg=str(case))
    for op, function in (("upsample2d", upsample), ("downsample2d", downsample)):
        for case, taps, _, wanted in of(published, op):
            if not case["flip_filter"]:
                assert_close(function(x, taps), wanted, msg=str(case))


def test_resampling_has_the_gradients_of_the_plain_form():
    """First and second ones, in float64."""
    for up, down, padding in (
        ((2, 2), (1, 1), (2, 1, 2, 1)),
        ((1, 1), (2, 2), (1, 1, 1, 1)),
        ((2, 3), (3, 1), (4, -1, 3, 2)),
    ):
        for taps in (torch.randn(4, 4).double(), torch.randn(5).double()):
            x = torch.randn(2, 3, 6, 7, dtype=torch.float64, requires_grad=True)
            arguments = taps, up, down, padding, 1.7, False
            found, wanted = upfirdn(x, *arguments), plain_upfirdn(x, *arguments)
            assert_close(found, wanted)
            slope = torch.randn_like(wanted, requires_grad=True)
            first = [torch.autograd.grad((y * slope).sum(), x, create_graph=True)[0] for y in (found, wanted)]
            assert_close(*first)
            second = [torch.autograd.grad(g.square().sum(), slope)[0] for g in first]
            assert_close(*second)


def test_an_image_smaller_than_the_filter_is_refused():
    with pytest.raises(ValueError, match="an image of 3x4 pixels, padding included, is smaller than its filter of 4x4"):
        upfirdn(torch.zeros(1, 1, 3, 4), blur_filter())


def test_convolutions_between_are_the_published_ones(published):
    """Up-convolutions flip their weight against the others: here `flip_weight` says which form the case is."""
    x = published[0]["in/x"]
    seen = set()
    for case, taps, weight, wanted in of(published, "conv2d_resample"):
        if case["up"] == 2:
            found = convolution_up(x, weight.flip(2, 3) if case["flip_weight"] else weight, taps)
        elif case["down"] == 2:
            found = convolution_down(x, weight if case["flip_weight"] else weight.flip(2, 3), taps)
        else:
            continue
        seen.add((case["up"], case["down"], weight.shape[2]))
        assert_close(found, wanted, msg=str(case))
    assert len(seen) == 4


def test_modulated_convolutions_are_the_published_ones(published):
    tensors, _ = published
    x, styles = tensors["in/x"], tensors["in/styles"]
    for case, taps, weight, wanted in of(published, "stylegan2_modulated_conv2d", "stylegan3_modulated_conv2d"):
        gain = case.get("input_gain")
        if gain is not None:
            key, row = (gain, "[0]" in gain) if isinstance(gain, str) else (None, False)
            gain = torch.tensor(gain) if key is None else tensors[key.removesuffix("[0]")]
            gain = gain[0] if row else gain
        for fused in (False, True):
            found = modulated_convolution(
                x,
                weight,
                styles,
                demodulate=case["demodulate"],
                up=case.get("up", 1),
                padding=case["padding"],
                filter=taps,
                input_gain=gain,
                fused=fused,
            )
            if case.get("noise"):
                found = found + tensors[case["noise"]]
            assert_close(found, wanted, atol=1e-5, rtol=1e-5, msg=str((case, fused)))


def test_groups_of_a_batch_are_the_published_ones(published):
    x = published[0]["in/mbstd_x"]
    for case, _, _, wanted in of(published, "minibatch_std"):
        assert_close(MinibatchStd(case["group_size"], case["num_channels"])(x)[:, x.shape[1] :], wanted, msg=str(case))


def test_activations_are_the_published_ones(published):
    x = published[0]["in/x"]
    seen = 0
    for case, _, _, wanted in of(published, "bias_act"):
        if case["act"] != "lrelu" or case["alpha"] not in (None, 0.2):
            continue
        seen += 1
        h = x + torch.tensor(case["bias"] or [0.0, 0.0, 0.0])[:, None, None]
        gain = 1.0 if case["gain"] is None else case["gain"] / math.sqrt(2)
        clamp = None if case["clamp"] is None else case["clamp"] / gain  # theirs is not multiplied by the gain
        assert_close(scaled_lrelu(h, gain=gain, clamp=clamp), wanted, msg=str(case))
    assert seen >= 2


# ---- modulation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("up", [1, 2])
def test_the_forms_of_a_modulated_convolution_are_one_function(up):
    """Beside an image after the other with its own weights, second gradients too, in float64."""
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    styles = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    gain = torch.rand(4).double() + 0.5

    def loop():
        out = []
        for image, s in zip(x, styles, strict=True):
            own = weight * s[:, None, None]
            own = own / (own.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt() * gain[:, None, None]
            taps = blur_filter().double()
            out.append(convolution_up(image[None], own, taps) if up == 2 else F.conv2d(image[None], own, padding=1))
        return torch.cat(out)

    results = []
    for form in (False, True, None):
        y = (
            loop()
            if form is None
            else modulated_convolution(x, weight, styles, up=up, padding=1, input_gain=gain, fused=form)
        )
        grads = torch.autograd.grad(y.square().sum(), (x, weight, styles), create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in grads), (x, weight, styles))
        results.append([y, *grads, *second])
    for unfused, fused, plain in zip(*results, strict=True):
        assert_close(unfused, plain)
        assert_close(fused, plain)


# ---- equalised layers ------------------------------------------------------------------------------------


def test_scaled_layers_scale_when_they_compute():
    torch.manual_seed(0)
    linear, conv, table = ScaledLinear(400, 300, lr_multiplier=0.01), ScaledConv2d(40, 50), ScaledEmbedding(300, 400)
    assert linear.weight.std().item() == pytest.approx(100, rel=0.02)
    assert conv.weight.std().item() == pytest.approx(1, rel=0.02)
    nn.init.normal_(linear.bias)
    x, maps = torch.randn(2, 400), torch.randn(2, 40, 5, 5)
    assert_close(linear(x), x @ linear.weight.T * (0.01 / 20) + 0.01 * linear.bias)
    assert_close(conv(maps), F.conv2d(maps, conv.weight, padding=1) / math.sqrt(360))
    assert_close(table(torch.tensor([3])), table.weight[3:4] / 20)
    for layer in (linear, conv, table):
        assert_close(effective_weight(layer), layer.weight * layer.gain)
    assert ScaledLinear(3, 2, bias_init=1.0).bias.tolist() == [1.0, 1.0]


def test_normalisers_and_equalised_layers():
    """A norm of 1 is one of the weight that the layer computes with; an equalised layer is equalised once."""
    layers = {
        "linear": lambda: ScaledLinear(6, 4),
        "conv": lambda: ScaledConv2d(3, 4),
        "table": lambda: ScaledEmbedding(5, 4),
    }
    for name, make in layers.items():
        for normalizer in (SpectralNorm(iterations=50), ExactSpectralNorm()):
            net = normalizer(nn.Sequential(make()))
            assert spectral_norms(net)["0"].item() == pytest.approx(1, rel=1e-4), name
        net = FrobeniusNorm()(nn.Sequential(make()))
        assert effective_weight(net[0]).norm().item() == pytest.approx(1), name
        plain = make()
        before = effective_weight(plain).clone()
        for normalizer in (EqualizedLearningRate(), WeightNorm()):
            net = normalizer(nn.Sequential(plain))
            assert_close(effective_weight(net[0]), before, msg=name)
        assert not hasattr(EqualizedLearningRate()(nn.Sequential(make()))[0], "parametrizations")


# ---- the mapping network ---------------------------------------------------------------------------------


def mapping(**fields):
    torch.manual_seed(0)
    return Mapping(**{"z_dim": 6, "num_classes": 3, "w_dim": 8, "num_ws": 4, "num_layers": 2} | fields)


def test_classes_are_labels_or_weights():
    M, z, y = mapping(), torch.randn(5, 6), torch.tensor([0, 2, 1, 1, 0])
    assert torch.equal(M(z, y, update=False), M(z, F.one_hot(y, 3).float(), update=False))
    assert not torch.equal(M(z, y, update=False), M(z, y.flip(0), update=False))
    with pytest.raises(ValueError, match="conditioned on the class"):
        M(z)


def test_the_average_follows_in_training_mode_and_truncation_moves_towards_it():
    M, z = mapping(num_classes=0, w_avg_beta=0.75), 3 * torch.randn(5, 6)
    w = M(z)
    assert (w == w[:, :1]).all()
    assert_close(M.w_avg, 0.25 * w[:, 0].mean(0))
    M(z)
    M(z, update=False)
    M.eval()(z)
    assert_close(M.w_avg, (0.25 + 0.75 * 0.25) * w[:, 0].mean(0))
    assert_close(M(10 * z), w)  # lengths of z do not matter
    cut = M(z, truncation_psi=0.5, truncation_cutoff=1)
    assert_close(cut[:, :1], (w[:, :1] + M.w_avg) / 2)
    assert_close(cut[:, 1:], w[:, 1:])
    assert_close(M(z, truncation_psi=0.0)[:, 3], M.w_avg.expand(5, -1))
    assert "w_avg" not in dict(mapping(num_ws=None).named_buffers())


def test_the_mapping_is_float32_under_autocast():
    M, z, y = mapping(), torch.randn(5, 6), torch.tensor([0, 2, 1, 1, 0])
    vectors = MappedVectors(7, Mapping(0, 3, 8, None, 2), bias=True)
    wanted, (w, b) = M(z, y), vectors.affine(y)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(M(z, y), wanted)
        found = vectors.affine(y)
    assert torch.equal(found[0], w)
    assert torch.equal(found[1], b)


class Recorder(nn.Module):
    def forward(self, ws, noise_mode):
        self.seen = ws, noise_mode
        return ws.sum((1, 2))[:, None, None, None]


def test_styles_are_mixed_in_training_only():
    """The first layers read one latent, the others another; cuts from 1 to num_ws - 1 alike; w_avg reads the first."""
    G, z = StyledGenerator(mapping(num_classes=0), Recorder(), mixing=0.5), torch.randn(1, 6)
    G.eval()(z)
    plain, mode = G.synthesis.seen
    assert mode == "const"
    G.train()
    cuts = []
    for _ in range(400):
        before = G.mapping.w_avg.clone()
        G(z)
        ws, mode = G.synthesis.seen
        assert mode == "random"
        assert_close(G.mapping.w_avg, before.lerp(plain[0, 0], 0.005))
        same = (ws[0] == plain[0]).all(1)
        cut = int(same.sum())
        assert same.tolist() == [i < cut for i in range(4)]
        assert (ws[0, cut:] == ws[0, -1:]).all()
        cuts.append(cut)
    counts = [cuts.count(k) for k in range(5)]
    assert counts[0] == 0
    assert 160 < counts[4] < 240
    assert min(counts[1:4]) > 40
    G.mixing = 0.0
    G(z)
    assert torch.equal(G.synthesis.seen[0], plain)
    latents = []
    G = StyleGAN2Generator(channel_base=64, mixing=1.0, prior=Uniform()).build(ImageSpec(16, 1))
    G.mapping.register_forward_pre_hook(lambda _, given: latents.append(given[0]))
    G.styles(2 * torch.rand(4, 512) - 1)
    assert latents[1].abs().max() <= 1  # the second latent has the prior too
    assert latents[1].std() > 0.5


def test_constraints_hold_for_the_weights_that_layers_compute_with():
    for make in (
        lambda: ScaledLinear(6, 4, lr_multiplier=0.01),
        lambda: ScaledConv2d(3, 4),
        lambda: ScaledEmbedding(5, 4),
    ):
        net = nn.Sequential(make())
        ClipSingularValues(bound=0.3)(net)
        assert spectral_norms(net)["0"].item() == pytest.approx(0.3)
        UnitSphere()(net)
        assert effective_weight(net[0]).norm().item() == pytest.approx(1)
        ClipWeights(bound=0.1)(net)
        assert effective_weight(net[0]).abs().max().item() == pytest.approx(0.1)
