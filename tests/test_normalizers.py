"""Normalisers against the singular value decomposition, and folding them away."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from loops import loop_over
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.testing import assert_close

from equipoise.models import Head, NoConditioning, PerClass, Projection
from equipoise.nn import Discriminator
from equipoise.weights import ExactSpectralNorm, FrobeniusNorm, SpectralNorm, WeightNorm, normalizers, remove

ALL = [c() for name in normalizers.__all__ if dataclasses.is_dataclass(c := getattr(normalizers, name))]


@dataclasses.dataclass
class Case:
    """A layer, an input for it, and its weight as the matrix that Miyato et al. read it as: (C_out, the rest)."""

    layer: nn.Module
    input: torch.Tensor
    outputs_first: tuple[int, ...] = (0, 1, 2, 3)

    def matrix(self, weight):
        return weight.detach().permute(self.outputs_first[: weight.ndim]).flatten(1)


def case(kind):
    image = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    match kind:
        case "Linear":
            made = Case(nn.Linear(7, 5), torch.randn(2, 7, dtype=torch.float64))
        case "Embedding":
            made = Case(nn.Embedding(7, 5), torch.tensor([1, 4]))
        case "Conv1d":
            made = Case(nn.Conv1d(3, 4, 3), image.flatten(2))
        case "Conv2d":
            made = Case(nn.Conv2d(3, 4, 3), image)
        case "ConvTranspose2d":
            made = Case(nn.ConvTranspose2d(3, 4, 3), image, outputs_first=(1, 0, 2, 3))
    made.layer.double()
    return made


def network():
    """Layers, batch norm and a spare parametrisation of somebody else's."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU(0.2), nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    )


kinds = loop_over("kind", ["Linear", "Embedding", "Conv1d", "Conv2d", "ConvTranspose2d"])


# ---- spectral norm -----------------------------------------------------------------------------------------


@kinds
def test_spectral_norm_divides_by_the_largest_singular_value(kind):
    c = case(kind)
    raw = c.layer.weight.detach().clone()
    sigma = torch.linalg.svdvals(c.matrix(raw))[0]
    SpectralNorm(iterations=20)(c.layer)
    for _ in range(50):
        c.layer(c.input)
    assert_close(c.layer.weight.detach(), raw / sigma, rtol=1e-9, atol=1e-9)
    assert torch.linalg.svdvals(c.matrix(c.layer.weight.detach()))[0].item() == pytest.approx(1, rel=1e-9)


def test_a_convolution_is_read_with_its_outputs_as_rows():
    """σ of (C_out, C_in·kh·kw), not of its transposed channels: the two differ."""
    for kind, wrong in (("Conv2d", (1, 0, 2, 3)), ("ConvTranspose2d", (0, 1, 2, 3))):
        c = case(kind)
        SpectralNorm(iterations=50)(c.layer)
        for _ in range(20):
            c.layer(c.input)
        other = torch.linalg.svdvals(c.layer.weight.detach().permute(wrong).flatten(1))[0]
        assert abs(other.item() - 1) > 0.01


def test_one_power_iteration_per_training_forward():
    """u <- Wv/‖Wv‖, v <- Wᵀu/‖Wᵀu‖, σ = uᵀWv (Miyato et al. 2018, alg. 1); eval moves nothing."""
    c = case("Linear")
    raw = c.layer.weight.detach().clone()
    SpectralNorm()(c.layer)
    state = c.layer.parametrizations.weight[0]
    u, v = state._u.clone(), state._v.clone()
    for _ in range(3):
        c.layer(c.input)
        u = raw @ v / (raw @ v).norm()
        v = raw.T @ u / (raw.T @ u).norm()
        assert_close(state._u, u)
        assert_close(state._v, v)
    c.layer.eval()
    c.layer(c.input)
    assert_close(state._u, u, rtol=0, atol=0)
    assert_close(c.layer.weight.detach(), raw / (u @ raw @ v))


def test_initialise_before_wrapping():
    """Afterwards `nn.init` writes to a computed tensor that is thrown away, which is why architectures come first."""
    layer = nn.Linear(7, 5)
    SpectralNorm()(layer)
    layer.eval()
    before = layer.weight.detach().clone()
    nn.init.constant_(layer.weight, 3.0)
    assert torch.equal(layer.weight.detach(), before)


def test_every_layer_outside_a_san_head_is_wrapped():
    """The SAN head normalises its own vector; the layers before it and a plain head are wrapped."""
    for conditioning, weights in (
        (NoConditioning, {"linear"}),
        (Projection, {"linear", "embed"}),
        (PerClass, {"embed"}),
    ):
        for san in (False, True):
            D = Discriminator(network(), Head(conditioning(), san=san).factory(10)(3))
            SpectralNorm()(D)
            wrapped = {name for name, m in D.named_modules() if parametrize.is_parametrized(m)}
            in_head = set() if san else {f"head.conditioning.{w}" for w in weights}
            assert wrapped == {"body.0", "body.3.1"} | in_head


def test_gradients_reach_the_weights_through_the_norm():
    """d/dW of f(W/σ) has no component along W: scaling W changes nothing."""
    c = case("Conv2d")
    SpectralNorm(iterations=50)(c.layer)
    for _ in range(20):
        c.layer(c.input)
    c.layer(c.input).square().sum().backward()
    raw = c.layer.parametrizations.weight.original
    assert raw.grad.norm() > 0.1
    assert (raw * raw.grad).sum().item() == pytest.approx(0, abs=1e-9)


# ---- spectral norm, exactly --------------------------------------------------------------------------------


@kinds
def test_exact_spectral_norm_is_exact_at_once_and_after_any_change(kind):
    c = case(kind)
    ExactSpectralNorm()(c.layer)
    raw = c.layer.parametrizations.weight.original
    for _ in range(3):
        sigma = torch.linalg.svdvals(c.matrix(raw))[0]
        assert_close(c.layer.weight, raw / sigma, rtol=1e-12, atol=1e-12)
        with torch.no_grad():
            raw.normal_()


def test_power_iteration_approaches_the_exact_norm():
    """From vectors that were right for other weights; the distance falls until it is nothing."""
    power, exact = case("Conv2d").layer, nn.Conv2d(3, 4, 3).double()
    SpectralNorm()(power)
    ExactSpectralNorm()(exact)
    with torch.no_grad():
        exact.parametrizations.weight.original.copy_(power.parametrizations.weight.original.normal_())
    wanted = exact.weight.detach()
    distances = [(power.weight.detach() - wanted).norm().item() for _ in range(200)]  # an iteration each
    assert distances[0] > 1e-3
    assert distances[20] < distances[0]
    assert distances[-1] < 1e-9


def test_the_gradient_of_the_exact_norm_is_exact():
    """Against torch's singular value decomposition differentiated, and it has no component along W."""
    c = case("ConvTranspose2d")
    raw = c.layer.weight.detach().clone().requires_grad_(True)
    target = torch.randn_like(raw)
    (wanted,) = torch.autograd.grad(
        (raw / torch.linalg.svdvals(raw.permute(1, 0, 2, 3).flatten(1))[0] * target).sum(), raw
    )
    ExactSpectralNorm()(c.layer)
    (c.layer.weight * target).sum().backward()
    found = c.layer.parametrizations.weight.original.grad
    assert_close(found, wanted)
    assert (found * raw).sum().item() == pytest.approx(0, abs=1e-9)


@loop_over("normalizer", [ExactSpectralNorm, FrobeniusNorm])
def test_norms_are_float32_under_autocast(normalizer):
    """σ in bfloat16 would be off by 1 %."""
    layer = nn.Linear(64, 64)
    normalizer()(layer)
    wanted = layer.weight.detach()
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(layer.weight.detach(), wanted, rtol=1e-6, atol=0)


# ---- the other norms ---------------------------------------------------------------------------------------


@kinds
def test_frobenius_norm_divides_by_the_length_of_the_weight(kind):
    """Which is at least σ, so σ of what is left is at most 1; 1 for a weight of rank one."""
    c = case(kind)
    raw = c.layer.weight.detach().clone()
    FrobeniusNorm()(c.layer)
    assert_close(c.layer.weight.detach(), raw / raw.square().sum().sqrt(), rtol=1e-12, atol=1e-12)
    values = torch.linalg.svdvals(c.matrix(c.layer.weight))
    assert values.square().sum().item() == pytest.approx(1, rel=1e-12)
    assert values[0] < 1
    row, column = torch.randn(1, raw.shape[1], dtype=torch.float64), torch.randn(raw.shape[0], 1, dtype=torch.float64)
    if kind == "Linear":
        with torch.no_grad():
            c.layer.parametrizations.weight.original.copy_(column * row)
        assert torch.linalg.svdvals(c.layer.weight.detach())[0].item() == pytest.approx(1, rel=1e-12)


@kinds
def test_weight_norm_learns_a_length_and_a_direction_per_output(kind):
    """The outputs stay; each output's weights have the length g, whatever v is."""
    c = case(kind)
    before = c.layer(c.input).detach()
    WeightNorm()(c.layer)
    assert_close(c.layer(c.input).detach(), before, rtol=1e-12, atol=1e-12)
    g, v = c.layer.parametrizations.weight.original0, c.layer.parametrizations.weight.original1
    assert g.numel() == c.matrix(c.layer.weight).shape[0]
    with torch.no_grad():
        g.copy_(torch.rand_like(g) + 0.5)
        v.normal_()
    rows = c.matrix(c.layer.weight)
    assert_close(rows.norm(dim=1), g.detach().flatten())
    assert_close(rows / rows.norm(dim=1, keepdim=True), c.matrix(v) / c.matrix(v).norm(dim=1, keepdim=True))


# ---- skip --------------------------------------------------------------------------------------------------


@loop_over(
    ("skip", "left"),
    [
        ((), {"body.0", "body.3.1", "head.conditioning.embed", "head.conditioning.linear"}),
        (("body.0",), {"body.3.1", "head.conditioning.embed", "head.conditioning.linear"}),
        (("head.*",), {"body.0", "body.3.1"}),
        (("body.0", "*.embed"), {"body.3.1", "head.conditioning.linear"}),
        (("*",), set()),
    ],
)
@loop_over("normalizer", [SpectralNorm, ExactSpectralNorm, FrobeniusNorm, WeightNorm])
def test_skip(skip, left, normalizer):
    D = Discriminator(network(), Head(Projection()).factory(10)(3))
    normalizer(skip=skip)(D)
    assert {name for name, m in D.named_modules() if parametrize.is_parametrized(m)} == left


@loop_over("normalizer", [SpectralNorm, ExactSpectralNorm, FrobeniusNorm, WeightNorm])
def test_a_pattern_that_matches_nothing_is_refused(normalizer):
    net = network()
    with pytest.raises(ValueError, match=rf"{normalizer.__name__}\(.*'body\.0' matches no layer; .*0, 3\.1"):
        normalizer(skip=("0", "body.0"))(net)
    assert not any(parametrize.is_parametrized(m) for m in net.modules())  # refused before anything was changed


def test_skip_may_name_the_layers_of_a_san_head():
    """So that `head.san` alone makes a SAN of a recipe that skips its head."""
    D = Discriminator(network(), Head(PerClass(), san=True).factory(10)(3))
    SpectralNorm(skip=("head.*",))(D)
    assert {name for name, m in D.named_modules() if parametrize.is_parametrized(m)} == {"body.0", "body.3.1"}


def test_settings_are_checked():
    with pytest.raises(ValueError, match="iterations"):
        SpectralNorm(iterations=0)


# ---- what every normaliser keeps, and a new one inherits ------------------------------------------------------


@loop_over("normalizer", ALL, ids=lambda n: type(n).__name__)
def test_a_normalised_network_trains_copies_and_loads(normalizer):
    net = network()
    normalizer(net)
    x = torch.randn(4, 1, 6, 6)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(x).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    optimizer.step()
    net.eval()
    other = network()
    normalizer(other)
    other.load_state_dict(net.state_dict())
    for twin in (copy.deepcopy(net), other.eval()):
        assert torch.equal(twin(x), net(x))


@loop_over("normalizer", ALL, ids=lambda n: type(n).__name__)
def test_remove_keeps_the_outputs(normalizer):
    net = network()
    names = set(net.state_dict())
    normalizer(net)
    x = torch.randn(4, 1, 6, 6)
    net(x)  # a training forward, so that the singular vectors are on their way
    net.eval()
    before = net(x)
    assert remove(net) is net
    assert_close(net(x), before, rtol=0, atol=1e-6)
    assert not any(parametrize.is_parametrized(m) for m in net.modules())
    assert set(net.state_dict()) == names


@loop_over("normalizer", ALL, ids=lambda n: type(n).__name__)
def test_remove_leaves_frozen_weights_frozen(normalizer):
    """As those of `FreezeD`, which an optimiser that is built later must not find. Wrong: all are trained again."""
    net = network()
    normalizer(net)
    first, last = net[0], net[-1]
    first.requires_grad_(False)
    remove(net)
    assert not any(p.requires_grad for p in first.parameters())
    assert all(p.requires_grad for p in last.parameters())


def test_remove_in_training_mode_does_not_move_the_singular_vectors():
    net = network()
    SpectralNorm()(net)
    with torch.no_grad():
        net[0].parametrizations.weight.original.normal_()  # the vectors are now far from converged
    twin = copy.deepcopy(net).eval()
    wanted = twin[0].weight.detach().clone()
    remove(net)
    assert_close(net[0].weight.detach(), wanted, rtol=0, atol=1e-6)


@loop_over("normalizer", ALL, ids=lambda n: type(n).__name__)
def test_remove_from_a_copy_leaves_the_original_alone(normalizer):
    """As at each checkpoint of a run, which writes a copy of the generator that goes on training."""
    net, x = network(), torch.randn(4, 1, 6, 6)
    normalizer(net)
    net.eval()
    before = net(x)
    plain = remove(copy.deepcopy(net))
    assert_close(net(x), before, rtol=0, atol=0)
    net(x).sum().backward()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    optimizer.step()
    assert (net(x) - before).abs().max() > 1e-3
    assert_close(plain(x), before, rtol=0, atol=1e-6)
    assert parametrize.is_parametrized(copy.deepcopy(net)[0]) == parametrize.is_parametrized(net[0])


def test_remove_keeps_training_flags():
    """A frozen batch norm stays frozen in a network that trains, also inside a parametrised module."""
    net = network()
    outer = nn.Linear(2, 2)
    outer.inner = nn.Dropout()
    net.append(outer)
    SpectralNorm()(net)
    net[1].eval()
    outer.inner.eval()
    flags = {name: m.training for name, m in net.named_modules() if "parametrizations" not in name}
    remove(net)
    assert {name: m.training for name, m in net.named_modules()} == flags
    assert net[0].training
    assert not net[1].training
    assert not outer.inner.training


def test_remove_keeps_requires_grad_and_takes_other_parametrisations():
    """Also weight norm, of which each layer holds two originals."""
    net = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 4)), parametrizations.orthogonal(nn.Linear(4, 4)))
    x = torch.randn(2, 3)
    wanted = net(x)
    remove(net)
    assert_close(net(x), wanted, rtol=0, atol=1e-6)
    assert {name for name, _ in net.named_parameters()} == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert all(p.requires_grad for p in net.parameters())


@loop_over("normalizer", ALL, ids=lambda n: type(n).__name__)
def test_works_on_a_generator(normalizer):
    """With transposed convolutions and batch norm, which SAGAN normalises too."""
    G = nn.Sequential(
        nn.Linear(5, 8), nn.Unflatten(1, (8, 1, 1)), nn.ConvTranspose2d(8, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
    )
    normalizer(G)
    G(torch.randn(6, 5)).square().mean().backward()
    assert all(p.grad.isfinite().all() for p in G.parameters())
    G.eval()
    before = G(torch.ones(2, 5))
    assert_close(remove(G)(torch.ones(2, 5)), before, rtol=0, atol=1e-6)


@loop_over("normalizer", ALL, ids=lambda n: type(n).__name__)
def test_leaves_a_san_head_alone(normalizer):
    D = Discriminator(network(), Head(Projection(), san=True).factory(10)(3))
    normalizer(D)
    assert not any(parametrize.is_parametrized(m) for m in D.head.modules())
