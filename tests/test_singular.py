"""Weights as matrices: against the singular value decomposition, and a Lipschitz bound that bounds."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loops import loop_over
from reference import SPEC, small
from runs import lines
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import parametrizations
from torch.testing import assert_close

from equipoise.models import Auxiliary, Head, Hidden, NoConditioning, PerClass, Projection
from equipoise.nn import Discriminator
from equipoise.rules import Report
from equipoise.train import GAN, train
from equipoise.weights import (
    ExactSpectralNorm,
    FrobeniusNorm,
    NoNormalizer,
    SpectralNorm,
    WeightNorm,
    clip_singular_values,
    effective_weight,
    lipschitz_bound,
    singular_values,
    spectral_norms,
    spectral_stats,
    squared_singular_values,
    weighted_layers,
)
from equipoise.weights import matrices as singular


def network():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 2, 2), nn.Flatten(), nn.Linear(50, 3), nn.Embedding(10, 6)
    )


def by_hand(net):
    """The matrices of `network()`, (C_out, the rest)."""
    weights = {name: layer.weight.detach().double() for name, layer in net.named_children() if name in "0245"}
    return {n: (w.transpose(0, 1) if n == "2" else w).flatten(1) for n, w in weights.items() if w.ndim > 1}


# ---- layers ------------------------------------------------------------------------------------------------


def test_weighted_layers_are_found_with_their_names():
    D = Discriminator(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(64, 3)), Head().factory(0)(3))
    assert [name for name, _ in weighted_layers(D)] == ["body.0", "body.2", "head.conditioning.linear"]
    D = Discriminator(D.body, Head(Projection(), san=True).factory(10)(3))
    assert [name for name, _ in weighted_layers(D)] == ["body.0", "body.2"]


@loop_over("normalizer", [SpectralNorm, ExactSpectralNorm, FrobeniusNorm, WeightNorm])
def test_the_effective_weight_is_the_one_of_eval_mode_and_reading_it_moves_nothing(normalizer):
    net = network()
    normalizer()(net)
    for p in net.parameters():
        nn.init.normal_(p)  # power iteration is far from converged
    net[0].parametrizations.eval()  # flags of the user's own
    state, flags = copy.deepcopy(net.state_dict()), [m.training for m in net.modules()]
    read = {name: effective_weight(layer) for name, layer in weighted_layers(net)}
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert [m.training for m in net.modules()] == flags
    net.eval()
    for name, layer in weighted_layers(net):
        assert torch.equal(read[name], layer.weight)
        assert read[name].requires_grad


def test_the_effective_weight_of_a_plain_layer_is_its_parameter():
    layer = nn.Linear(2, 2)
    assert effective_weight(layer) is layer.weight
    parametrizations.weight_norm(nn.Linear(2, 2), "bias")
    layer = parametrizations.weight_norm(nn.Linear(3, 2), "bias", dim=None)  # another tensor than the weight
    assert effective_weight(layer) is layer.weight


# ---- matrices ----------------------------------------------------------------------------------------------


@given(rows=st.integers(1, 7), columns=st.integers(1, 7), rank=st.integers(1, 7), seed=st.integers(0, 99))
def test_squared_singular_values(rows, columns, rank, seed):
    """Against the decomposition, for every shape and rank."""
    torch.manual_seed(seed)
    matrix = torch.randn(rows, rank, dtype=torch.float64) @ torch.randn(rank, columns, dtype=torch.float64)
    found = squared_singular_values(matrix)
    assert found.shape == (min(rows, columns),)
    assert_close(found.flip(0), torch.linalg.svdvals(matrix).square(), rtol=1e-9, atol=1e-9)
    assert (found >= 0).all()


def test_the_gradient_of_squared_singular_values():
    """2 s u vᵀ; finite at repeated values and at zero."""
    matrix = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    left, s, right = torch.linalg.svd(matrix.detach(), full_matrices=False)
    for i in range(4):
        (found,) = torch.autograd.grad(squared_singular_values(matrix)[-1 - i], matrix)
        assert_close(found, 2 * s[i] * torch.outer(left[:, i], right[i]))
    for special in (torch.eye(3), torch.zeros(3, 3), torch.ones(3, 3)):
        special = special.clone().requires_grad_(True)
        (found,) = torch.autograd.grad(squared_singular_values(special)[-1], special)
        assert found.isfinite().all()


@loop_over("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_nan_and_no_error(bad):
    """LAPACK fails on it, in the middle of a run that has an error of its own for NaN."""
    net = nn.Linear(3, 3)
    net.weight.data[1, 1] = bad
    assert squared_singular_values(net.weight).isnan().all()
    assert spectral_norms(net)[""].isnan()
    assert lipschitz_bound(net).isnan()
    assert not clip_singular_values(net.weight.detach(), 1.0).isfinite().all()


# ---- networks ----------------------------------------------------------------------------------------------


def test_singular_values_and_spectral_norms_of_a_network():
    net = network()
    values, norms, matrices = singular_values(net), spectral_norms(net), by_hand(net)
    assert list(values) == list(norms) == list(matrices) == ["0", "2", "4", "5"]
    for name, matrix in matrices.items():
        s = torch.linalg.svdvals(matrix)
        assert values[name].dtype == norms[name].dtype == torch.float64
        assert_close(values[name], s)
        assert_close(norms[name], s[0], rtol=1e-12, atol=0)
        assert norms[name].shape == ()
        assert not norms[name].requires_grad


def test_the_monitor_sees_what_power_iteration_misses():
    """σ of the effective weight is 1 only once the iteration has converged; watching does not help it along."""
    net = nn.Linear(20, 20)
    SpectralNorm(iterations=20)(net)
    nn.init.normal_(net.parametrizations.weight.original)
    first = spectral_norms(net)[""]
    assert first > 1.01
    assert spectral_norms(net)[""] == first
    assert singular_values(net)[""][0].item() == pytest.approx(first.item(), rel=1e-9)
    for _ in range(100):
        net(torch.ones(1, 20))
    assert spectral_norms(net)[""].item() == pytest.approx(1, abs=1e-3)


# ---- the bound ---------------------------------------------------------------------------------------------


def jacobian_norm(net, shape):
    x = torch.randn(1, *shape, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(net, x)
    return torch.linalg.svdvals(jacobian.reshape(-1, x.numel()))[0].item()


def test_the_bound_of_linear_layers_is_the_product():
    net = nn.Sequential(nn.Linear(4, 5), nn.LeakyReLU(0.2), nn.Linear(5, 3), nn.Tanh()).double()
    wanted = torch.linalg.svdvals(net[0].weight)[0] * torch.linalg.svdvals(net[2].weight)[0]
    assert_close(lipschitz_bound(net), wanted.detach(), rtol=1e-12, atol=0)
    assert lipschitz_bound(nn.Linear(4, 5).double()).dtype == torch.float64
    single = nn.Linear(4, 5).double()
    assert lipschitz_bound(single).item() == pytest.approx(jacobian_norm(single, (4,)), rel=1e-9)  # attained


def test_a_convolution_exceeds_its_sigma_where_patches_overlap():
    """A box filter: σ of its matrix is 3, but it multiplies a constant image by 9. The bound knows, σ does not."""
    box = nn.Conv2d(1, 1, 3, padding=1, bias=False).double()
    nn.init.ones_(box.weight)
    assert spectral_norms(box)[""].item() == pytest.approx(3, rel=1e-12)
    assert lipschitz_bound(box).item() == pytest.approx(9, rel=1e-12)
    assert 8 < jacobian_norm(box, (1, 10, 10)) < 9


def test_dilation_may_cancel_the_stride():
    """Stride 2 with dilation 2 is stride 1 on every other value: each is in 3 patches, not in ⌈3/2⌉."""
    line = nn.Conv1d(1, 1, 3, stride=2, dilation=2, bias=False).double()
    nn.init.ones_(line.weight)
    assert lipschitz_bound(line).item() == pytest.approx(3, rel=1e-12)
    assert 2.9 < jacobian_norm(line, (1, 41)) < 3


def test_without_overlap_the_bound_is_attained():
    net = nn.Conv2d(3, 5, 2, stride=2).double()
    assert lipschitz_bound(net).item() == pytest.approx(spectral_norms(net)[""].item(), rel=1e-12)
    assert lipschitz_bound(net).item() == pytest.approx(jacobian_norm(net, (3, 4, 4)), rel=1e-9)


@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.integers(1, 2),
    padding=st.integers(0, 2),
    groups=st.sampled_from([1, 2]),
    transposed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_bound_bounds_every_convolution(kernel, stride, dilation, padding, groups, transposed, seed):
    """The largest singular value of the whole map from pixels to pixels; weights of one sign are the worst."""
    torch.manual_seed(seed)
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    padding = 0 if transposed else padding
    layer = kind(2, 4, kernel, stride, padding, dilation=dilation, groups=groups, bias=False).double()
    nn.init.uniform_(layer.weight, 0.5, 1)
    pixels = torch.eye(2 * 7 * 7, dtype=torch.float64)
    rows = layer(pixels.view(-1, 2, 7, 7)).detach().flatten(1)
    assert torch.linalg.svdvals(rows)[0] <= lipschitz_bound(layer) * (1 + 1e-9)


@loop_over("normalizer", [SpectralNorm, ExactSpectralNorm, FrobeniusNorm, WeightNorm])
def test_the_bound_bounds_a_network(normalizer):
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4, 4, 4, stride=2),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 2),
    ).double()
    normalizer()(net)
    bound = lipschitz_bound(net).item()
    for _ in range(3):
        assert 0 < jacobian_norm(net.eval(), (1, 10, 10)) <= bound


LAYER = nn.Linear(3, 3, bias=False).double()
PART = nn.Sequential(LAYER, nn.ReLU())
REPEATED = {
    "layer": nn.Sequential(LAYER, LAYER, LAYER),
    "part": nn.Sequential(PART, PART, PART),
    "both": nn.Sequential(PART, LAYER, PART),
}


@loop_over("net", REPEATED.values(), ids=REPEATED)
def test_a_layer_counts_as_often_as_it_stands_in_the_chain(net):
    """Attained: every x > 0 goes through, along the same singular vector each time."""
    nn.init.constant_(LAYER.weight, 2)  # σ = 6
    x = torch.ones(3, dtype=torch.float64)
    slope = torch.linalg.svdvals(torch.autograd.functional.jacobian(net, x))[0]
    assert_close(slope, torch.tensor(6.0**3).double(), rtol=1e-12, atol=0)
    assert_close(lipschitz_bound(net), slope, rtol=1e-12, atol=0)
    for D in (net, Discriminator(net, Head().factory(0)(3)), Discriminator(net, Head(san=True).factory(0)(3))):
        assert_close(spectral_stats(D)["D/lipschitz"], slope, rtol=1e-12, atol=0)


@loop_over("normalizer", [SpectralNorm, ExactSpectralNorm, FrobeniusNorm, WeightNorm])
def test_a_layer_that_stands_in_the_chain_twice_is_normalised_once(normalizer):
    """Of a rank-one weight both norms are its σ, so the bound is 1; weight norm leaves it as it was."""
    net = copy.deepcopy(REPEATED["part"])
    nn.init.constant_(net[0][0].weight, 2)
    normalizer()(net)
    assert len(net[0][0].parametrizations.weight) == 1
    assert len(list(net.parameters())) == (2 if normalizer is WeightNorm else 1)
    assert_close(lipschitz_bound(net).item(), 6.0**3 if normalizer is WeightNorm else 1.0, rtol=1e-6, atol=0)


def test_embeddings_take_no_part_in_the_bound():
    """Their input is no number. Nor do SAN heads: the bound is that of the features."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    D = Discriminator(body, Head(PerClass()).factory(10)(3))
    assert torch.equal(lipschitz_bound(D), lipschitz_bound(body))
    D = Discriminator(body, Head(san=True).factory(0)(3))
    assert torch.equal(lipschitz_bound(D), lipschitz_bound(body))
    assert lipschitz_bound(nn.ReLU()) == 1


# ---- what a run reports ------------------------------------------------------------------------------------


@loop_over("conditioning", [NoConditioning, Projection, PerClass, Hidden, Auxiliary])
def test_of_a_san_head_the_length_of_its_longest_vector_is_reported(conditioning):
    """max_y ‖w(y)‖, written out from the weights: what multiplies the features' Lipschitz constant at most."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU())
    D = Discriminator(body, Head(conditioning(), san=True).factory(3)(5))
    stats = spectral_stats(D)
    san = {Hidden: "head.last", Auxiliary: "head.last"}.get(conditioning, "head")
    weights = {name: p.detach().double() for name, p in D.named_parameters()}
    shared = weights.get(f"{san}.conditioning.linear.weight", torch.zeros(1, 5))
    own = weights.get(f"{san}.conditioning.embed.weight", torch.zeros(1, 1))
    lengths = [sum((a + b) ** 2 for a, b in zip(shared[0], row.expand(len(shared[0])), strict=True)) for row in own]
    assert len(lengths) == (3 if conditioning in (Projection, PerClass) else 1)
    assert stats[f"D/sigma/{san}"].shape == ()
    assert not stats[f"D/sigma/{san}"].requires_grad
    assert_close(stats[f"D/sigma/{san}"], max(lengths).sqrt(), rtol=1e-6, atol=0)  # w(y) is a float32
    sigma = torch.linalg.svdvals(body[1].weight.detach().double())[0]
    assert_close(stats["D/sigma/body.1"], sigma)
    assert_close(stats["D/lipschitz"], sigma)
    others = {Hidden: {"head.join.embed", "head.join.layer"}, Auxiliary: {"head.classifier"}}
    layers = {"body.1", san} | others.get(conditioning, set())
    assert stats.keys() == {f"D/sigma/{name}" for name in layers} | {"D/lipschitz"}


def test_no_logit_of_a_san_grows_faster_than_its_bound_times_its_head():
    """|D(x, y) - D(x', y)| <= lipschitz · sigma of the head · ‖x - x'‖, for every class, and near it in one layer."""
    D = Discriminator(nn.Sequential(nn.Flatten(), nn.Linear(4, 5)), Head(PerClass(), san=True).factory(3)(5)).double()
    stats = spectral_stats(D)
    bound = stats["D/lipschitz"] * stats["D/sigma/head"]
    slopes = [D.head.conditioning.embed.weight[k] @ D.body[1].weight for k in range(3)]
    steepest = max(slope.norm() for slope in slopes)
    assert 0 < steepest <= bound
    D.body[1].weight.data = torch.eye(5, 4, dtype=torch.float64)
    D.head.conditioning.embed.weight.data[:, 4] = 0
    stats = spectral_stats(D)
    steepest = max((D.head.conditioning.embed.weight[k] @ D.body[1].weight).norm() for k in range(3))
    assert_close(stats["D/lipschitz"] * stats["D/sigma/head"], steepest.detach())


CHAINS = {
    "layers": Discriminator(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(64, 3)), Head().factory(0)(3)),
    "layer": Discriminator(nn.Linear(4, 5), Head(PerClass(), san=True).factory(3)(5)),
    "no head": nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1)),
    "a layer twice": Discriminator(nn.Sequential(PART, PART), Head().factory(0)(3)),
}


@loop_over("D", CHAINS.values(), ids=CHAINS)
def test_each_layer_is_decomposed_once_and_the_bound_is_that_of_the_body(D, monkeypatch):
    decomposed = []

    def noting(matrix):
        decomposed.append(matrix)
        return squared_singular_values(matrix)

    monkeypatch.setattr(singular, "squared_singular_values", noting)
    stats = spectral_stats(D)
    assert len(decomposed) == len(list(weighted_layers(D)))
    assert torch.equal(stats["D/lipschitz"], lipschitz_bound(D.body if isinstance(D, Discriminator) else D))


@pytest.mark.parametrize(
    ("head", "normalizer"),
    [(Head(), NoNormalizer()), (Head(), SpectralNorm()), (Head(san=True), SpectralNorm()), (Head(), FrobeniusNorm())],
    ids=["plain", "spectral norm", "SAN", "Frobenius"],
)
def test_a_snapshot_says_sigma_of_every_layer_and_the_bound_of_the_features(head, normalizer, tmp_path):
    """Those of the weights in its checkpoint, by singular value decomposition of what D computes with."""
    cfg = small(head=head, d_normalizer=normalizer, total_kimg=0.08, report=Report(snapshot_kimg=0.04, log_kimg=0.016))
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
        layers = {n: m for n, m in D.named_modules() if isinstance(m, nn.Linear) and not (head.san and "head" in n)}
        sigmas = {n: np.linalg.svd(m.weight.detach().double().numpy(), compute_uv=False)[0] for n, m in layers.items()}
        assert said == pytest.approx(
            {f"D/sigma/{n}": sigma for n, sigma in sigmas.items()}
            | ({"D/sigma/head": D.head.conditioning.linear.weight.norm().item()} if head.san else {})
            | {"D/lipschitz": sigmas["body.1"] * sigmas["body.3"]},
            rel=1e-5,
        )
