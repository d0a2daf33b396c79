"""sanify: discriminators that others wrote become SANs, and nothing else about them changes."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
import weakref
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from loops import loop_over
from torch import Tensor, nn
from torch.nn.utils import parametrizations as new
from torch.nn.utils import parametrize
from torch.testing import assert_close

from equipoise.core.types import Batch, Logits
from equipoise.losses import R1, Hinge, NonSaturating, discriminator_loss, generator_loss
from equipoise.models import Head
from equipoise.nn import (
    Discriminator,
    LinearHead,
    PerClassVectors,
    ProjectionVectors,
    SANHead,
    UnconditionalVector,
    sanify,
)
from equipoise.weights import normalizers

# ---- other people's discriminators -----------------------------------------------------------------------


class MLP(nn.Module):
    """(N, 2) -> (N,), the two-dimensional toys."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(2, 16), nn.LeakyReLU(0.2, True), nn.Dropout(0.3), nn.Linear(16, 16), nn.ReLU()
        )
        self.fc = nn.Linear(16, 1)

    def forward(self, x):
        return self.fc(self.net(x)).squeeze(1)


class DCGAN(nn.Module):
    """PyTorch's example, without its sigmoid."""

    def __init__(self, end=()):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(1, 8, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(8, 16, 4, 2, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(16, 1, 4, 1, 0, bias=False),
            *end,
        )

    def forward(self, x):
        return self.main(x).view(-1, 1).squeeze(1)


def patchgan(k=1):
    """pix2pix: one logit per patch, (N, K, H, W)."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 4, 2, 1),
        nn.LeakyReLU(0.2, True),
        nn.Conv2d(8, 8, 4, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.LeakyReLU(0.2, True),
        nn.Conv2d(8, k, 4, 1, 1),
    )


class Period(nn.Module):
    """HiFi-GAN: a waveform folded into rows of one period; returns the flat logits and its feature maps."""

    def __init__(self, period, norm=new.weight_norm):
        super().__init__()
        self.period = period
        self.convs = nn.ModuleList([norm(nn.Conv2d(1, 4, (5, 1), (3, 1))), norm(nn.Conv2d(4, 8, (5, 1), (3, 1)))])
        self.conv_post = norm(nn.Conv2d(8, 1, (3, 1), 1, padding=(1, 0)))

    def forward(self, x):
        features = []
        length = x.shape[2] + -x.shape[2] % self.period
        x = F.pad(x, (0, length - x.shape[2]), "reflect").view(len(x), 1, length // self.period, self.period)
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.1)
            features.append(x)
        x = self.conv_post(x)
        features.append(x)
        return torch.flatten(x, 1, -1), features


class Scale(nn.Module):
    """HiFi-GAN: grouped one-dimensional convolutions."""

    def __init__(self, norm):
        super().__init__()
        self.convs = nn.ModuleList(
            [norm(nn.Conv1d(1, 8, 15, 1, padding=7)), norm(nn.Conv1d(8, 8, 41, 2, groups=4, padding=20))]
        )
        self.conv_post = norm(nn.Conv1d(8, 1, 3, 1, padding=1))

    def forward(self, x):
        features = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.1)
            features.append(x)
        x = self.conv_post(x)
        features.append(x)
        return torch.flatten(x, 1, -1), features


class Multi(nn.Module):
    """HiFi-GAN: several discriminators; real and generated in one call, lists of logits and of feature maps out."""

    def __init__(self, *parts, pool=None):
        super().__init__()
        self.discriminators = nn.ModuleList(parts)
        self.pool = pool

    def forward(self, y, y_hat):
        reals, fakes, features_real, features_fake = [], [], [], []
        for i, d in enumerate(self.discriminators):
            if i and self.pool:
                y, y_hat = self.pool(y), self.pool(y_hat)
            for x, outputs, features in (y, reals, features_real), (y_hat, fakes, features_fake):
                logits, maps = d(x)
                outputs.append(logits)
                features.append(maps)
        return reals, fakes, features_real, features_fake


class SNNet(nn.Module):
    """A small SN-GAN discriminator: sum pooling, dictionary out."""

    def __init__(self, norm, bias=True):
        super().__init__()
        self.conv = norm(nn.Conv2d(1, 8, 3, 2, 1))
        self.conv2 = norm(nn.Conv2d(8, 8, 3, 2, 1))
        self.fc = norm(nn.Linear(8, 1, bias=bias))

    def forward(self, x):
        h = F.relu(self.conv2(F.relu(self.conv(x)))).sum((2, 3))
        return {"score": self.fc(h), "pooled": h}


class Strided(nn.Module):
    """K logits per image from a grouped, strided convolution with circular padding."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, 2, 1)
        self.out = nn.Conv2d(8, 4, 3, 2, 1, groups=2, padding_mode="circular")

    def forward(self, x):
        return self.out(self.conv(x).tanh()).permute(0, 2, 3, 1).reshape(len(x), -1).chunk(2, dim=1)


class EqualLinear(nn.Module):
    """StyleGAN2: the weight is scaled whenever it is used."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(outputs, inputs)), nn.Parameter(torch.randn(outputs))

    def forward(self, x):
        return F.linear(x, self.weight / self.weight.shape[1] ** 0.5, bias=self.bias * 0.1)


class PerClassNet(nn.Module):
    """Mescheder et al. 2018: one logit per class, of which the label takes one. Sizes from equalised layers."""

    def __init__(self):
        super().__init__()
        self.body, self.out = EqualLinear(2, 8), EqualLinear(8, 3)

    def forward(self, x, *, y):
        return self.out(F.leaky_relu(self.body(x), 0.2))[torch.arange(len(x)), y]


class AuxiliaryClassifier(nn.Module):
    """AC-GAN: logits of real against fake, and of the class."""

    def __init__(self):
        super().__init__()
        self.body, self.adv, self.classes = nn.Linear(2, 8), nn.Linear(8, 1), nn.Linear(8, 3)

    def forward(self, x):
        h = F.relu(self.body(x))
        return self.adv(h), self.classes(h)


def old_weight_norm(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(layer)


# ---- the table of them -----------------------------------------------------------------------------------


class Case(NamedTuple):
    """make: builds the network.  shapes: of its inputs.  last: names of its last layers.  options: of its call.
    logits: output -> the part of it that is logits.  others: number of its outputs that are none."""

    make: Callable[[], nn.Module]
    shapes: tuple
    last: tuple
    options: Mapping = MappingProxyType({})
    logits: Callable = lambda output: output
    others: int = 0

    def build(self, dtype=torch.float64):
        torch.manual_seed(1)
        return self.make().to(dtype)

    def inputs(self, seed=0, dtype=torch.float64):
        torch.manual_seed(seed)
        return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in self.shapes]

    def __call__(self, D, inputs):
        torch.manual_seed(2)  # for dropout
        return D(*inputs, **self.options)


IMAGES = ((4, 1, 16, 16),)
POINTS = ((6, 2),)
WAVES = ((2, 1, 65), (2, 1, 65))


def hifi(parts, pool=None):
    last = tuple(f"discriminators.{i}.conv_post" for i in range(2))
    return Case(lambda: Multi(*parts(), pool=pool), WAVES, last, logits=lambda output: output[:2], others=12)


def spectral(norm, bias=True):
    return Case(lambda: SNNet(norm, bias), IMAGES, ("fc",), logits=lambda output: output["score"], others=1)


CASES = {
    "mlp": Case(MLP, POINTS, ("fc",)),
    "dcgan": Case(DCGAN, IMAGES, ("main.5",)),
    "patchgan": Case(patchgan, IMAGES, ("5",)),
    "bare layer": Case(lambda: nn.Linear(2, 1), POINTS, ("",)),
    "multi-period": hifi(lambda: (Period(2), Period(3))),
    "multi-scale": hifi(lambda: (Scale(new.spectral_norm), Scale(new.weight_norm)), nn.AvgPool1d(4, 2, padding=2)),
    "multi-scale, old norms": hifi(lambda: (Scale(nn.utils.spectral_norm), Scale(old_weight_norm))),
    "spectral norm": spectral(new.spectral_norm),
    "spectral norm, no bias": spectral(new.spectral_norm, bias=False),
    "old spectral norm": spectral(nn.utils.spectral_norm),
    "strided": Case(Strided, IMAGES, ("out",)),
    "per class": Case(PerClassNet, POINTS, (), options={"y": torch.tensor([0, 2, 1, 1, 0, 2])}),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def leaves(output):
    """Tensors and Logits of an output, in order."""
    if isinstance(output, (Tensor, Logits)):
        return [output]
    return [leaf for part in (output.values() if isinstance(output, dict) else output) for leaf in leaves(part)]


def both(case, mode="train", dtype=torch.float64):
    """The plain network and the SAN, with the same weights."""
    return getattr(case.build(dtype), mode)(), getattr(sanify(case.build(dtype)), mode)()


def weighted(tensors):
    """A scalar that is linear in the tensors, with weights that are the same each time."""
    generator = torch.Generator().manual_seed(3)
    return sum((t * torch.randn(t.shape, generator=generator).to(t)).sum() for t in tensors)


def vectors(D, case):
    """[w, b] of every channel of each last layer, (K, F + 1), as the last forward used them under `cached`."""
    layers = [D.get_submodule(name) for name in case.last]
    return [[t for t in (layer.weight, layer.bias) if t is not None] for layer in layers]


def rows(tensors):
    return torch.cat([t.flatten(1) if t.ndim > 1 else t.unsqueeze(1) for t in tensors], 1)


# ---- nothing changes -------------------------------------------------------------------------------------


@cases
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_outputs_are_those_of_the_plain_network(case, mode):
    plain, san = both(case, mode)
    for seed in range(3):
        expected, got = case(plain, case.inputs(seed)), case(san, case.inputs(seed))
        pairs = list(zip(leaves(expected), leaves(got), strict=True))
        for tensor, leaf in pairs:
            for t in (leaf.fun, leaf.dir) if isinstance(leaf, Logits) else (leaf,):
                assert type(t) is Tensor
                assert_close(t, tensor, rtol=1e-12, atol=1e-12)
        assert all(isinstance(leaf, Logits) for leaf in leaves(case.logits(got)))
        assert sum(not isinstance(leaf, Logits) for _, leaf in pairs) == case.others


@cases
def test_state_and_random_numbers_are_those_of_the_plain_network(case):
    """Batch statistics and singular vectors move once per forward, dropout draws once."""
    plain, san = both(case)
    states = []
    for D in (plain, san):
        for seed in range(2):
            case(D, case.inputs(seed))
        states.append((D.state_dict(), torch.get_rng_state()))
    (expected, expected_rng), (got, got_rng) = states
    assert list(got) == list(expected)
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    assert torch.equal(got_rng, expected_rng)


@cases
def test_state_dict_goes_both_ways(case):
    plain, san = both(case, "eval")
    x = case.inputs()
    with torch.no_grad():
        for p in plain.parameters():
            p.add_(0.1)
    san.load_state_dict(plain.state_dict())
    back = case.build().eval()
    back.load_state_dict(san.state_dict())
    expected = leaves(case.logits(case(plain, x)))
    assert_close([leaf.fun for leaf in leaves(case.logits(case(san, x)))], expected)
    assert_close(leaves(case.logits(case(back, x))), expected)


# ---- what SAN adds ---------------------------------------------------------------------------------------


@cases
def test_gradients_are_the_plain_ones_split_in_two(case):
    """fun: along [w, b] of the last layers, and all of the rest.  dir: orthogonal to [w, b], and nothing else."""
    plain, san = both(case)
    x, x_san = case.inputs(), case.inputs()
    # of the last input, and under `cached`, so that `layer.weight` is the very tensor that its forward has used
    with parametrize.cached():
        scalar = weighted(leaves(case.logits(case(plain, x)))[-len(case.last) :])
        logits = leaves(case.logits(case(san, x_san)))[-len(case.last) :]
        wb, wb_san = vectors(plain, case), vectors(san, case)
    own = {p for name in case.last for p in plain.get_submodule(name).parameters()}
    names = [name for name, p in plain.named_parameters() if p not in own and not (case.last == () and "out" in name)]

    for layer, layer_san in zip(wb, wb_san, strict=True):
        v = rows(layer).detach()
        g = rows(torch.autograd.grad(scalar, layer, retain_graph=True))
        along = (g * v).sum(1, keepdim=True) * v / v.square().sum(1, keepdim=True)
        fun = torch.autograd.grad(weighted([t.fun for t in logits]), layer_san, retain_graph=True)
        direction = torch.autograd.grad(weighted([t.dir for t in logits]), layer_san, retain_graph=True)
        assert_close(rows(fun), along, rtol=1e-9, atol=1e-9)
        assert_close(rows(direction), g - along, rtol=1e-9, atol=1e-9)
        assert (g - along).norm() > 1e-3 * g.norm()  # so that a wrong split shows

    def rest(D, inputs):
        return [inputs[-1], *(D.get_parameter(name) for name in names)]

    expected = torch.autograd.grad(scalar, rest(plain, x), retain_graph=True)
    assert_close(torch.autograd.grad(weighted([t.fun for t in logits]), rest(san, x_san), retain_graph=True), expected)
    assert any(g.norm() > 0 for g in expected)
    nothing = torch.autograd.grad(
        weighted([t.dir for t in logits]), rest(san, x_san), retain_graph=True, allow_unused=True
    )
    assert all(g is None for g in nothing)


@cases
def test_the_halves_sum_to_the_plain_gradient(case):
    """For the parameters behind a normalised or scaled weight too, where neither half is along or orthogonal."""
    plain, san = both(case)
    weighted(leaves(case.logits(case(plain, case.inputs())))).backward()
    logits = leaves(case.logits(case(san, case.inputs())))
    (weighted([t.fun for t in logits]) + weighted([t.dir for t in logits])).backward()
    for p, q in zip(plain.parameters(), san.parameters(), strict=True):
        assert_close(q.grad, p.grad, rtol=1e-9, atol=1e-9)


@cases
def test_a_step_moves_every_weight_and_the_direction(case):
    D = sanify(case.build(torch.float32))
    optimizer = torch.optim.SGD(D.parameters(), lr=0.1)
    before = {name: p.detach().clone() for name, p in D.named_parameters()}
    omega = [F.normalize(rows(wb).detach(), dim=1) for wb in vectors(D, case)]
    real, fake = (case(D, case.inputs(seed, torch.float32)) for seed in (5, 6))
    loss = discriminator_loss(NonSaturating(), case.logits(real), case.logits(fake))
    loss.backward()
    optimizer.step()
    for name, p in D.named_parameters():
        assert not torch.equal(p, before[name]), name
    case(D, case.inputs(dtype=torch.float32))  # old norms compute the weight in the forward
    for old, wb in zip(omega, vectors(D, case), strict=True):
        assert (1 - (old * F.normalize(rows(wb).detach(), dim=1)).sum(1) > 1e-8).all()
    assert generator_loss(Hinge(), case.logits(case(D, case.inputs(dtype=torch.float32)))).requires_grad


def test_direction_loss_reaches_the_direction_alone():
    """discriminator_loss is the plain loss on fun plus Hinge's direction loss, fake - real, on dir."""
    D = sanify(CASES["mlp"].build())
    real, fake = D(torch.randn(6, 2).double()), D(torch.randn(6, 2).double())
    expected = F.relu(1 - real.fun).mean() + F.relu(1 + fake.fun).mean() + (fake.dir - real.dir).mean()
    assert_close(discriminator_loss(Hinge(), real, fake), expected)


def test_a_normalised_direction_loss_pulls_between_weighted_means():
    """ω_k is pulled across itself by Σ r h̃ / Σ r of real less generated images: h̃ = [h, 1], r = s(-logit)."""
    body, last = nn.Sequential(nn.Linear(2, 4), nn.Tanh()).double(), nn.Linear(4, 3).double()
    D, images = sanify(nn.Sequential(body, last)), [torch.randn(6, 2).double() for _ in range(2)]
    outputs = [D(x) for x in images]
    loss = discriminator_loss(NonSaturating(), *outputs, normalize=True)
    of_direction = loss - discriminator_loss(NonSaturating(), *(output.fun for output in outputs))
    w = torch.cat([last.weight, last.bias[:, None]], dim=1).detach()  # (3, 5)
    pulls = []
    for x in images:
        h = torch.cat([body(x), torch.ones(6, 1)], dim=1).detach()
        r = (-(h @ w.T)).sigmoid()  # (6, 3)
        pulls.append(r.T @ h / r.sum())
    pull = pulls[1] - pulls[0]
    on_weight, on_bias = torch.autograd.grad(of_direction, (last.weight, last.bias))
    across = pull - (pull * w).sum(1, keepdim=True) / w.square().sum(1, keepdim=True) * w
    assert_close(torch.cat([on_weight, on_bias[:, None]], dim=1), across)


def test_double_backward_through_fun():
    """R1 of the SAN is R1 of the plain network, and trains its body alike."""
    case = CASES["spectral norm"]
    plain, san = both(case)
    real = Batch(case.inputs()[0])
    expected = R1()(lambda x, y: plain(x)["score"], real, real)
    got = R1()(lambda x, y: san(x)["score"].fun, real, real)
    assert_close(got, expected)
    body = ("conv.parametrizations.weight.original", "conv2.parametrizations.weight.original")
    assert_close(
        torch.autograd.grad(got.sum(), [san.get_parameter(name) for name in body]),
        torch.autograd.grad(expected.sum(), [plain.get_parameter(name) for name in body]),
    )


# ---- which outputs are logits ----------------------------------------------------------------------------


def test_feature_maps_stay_tensors():
    """HiFi-GAN's list of feature maps ends with the last layer's own output, which feature matching reads."""
    case = CASES["multi-period"]
    reals, fakes, features_real, features_fake = case(sanify(case.build()), case.inputs())
    assert [type(t) for t in reals + fakes] == [Logits] * 4
    for real, fake in zip(features_real, features_fake, strict=True):
        assert sum((r - f).abs().mean() for r, f in zip(real, fake, strict=True)).requires_grad
        assert len(real) == 3


def test_the_same_logits_at_two_places():
    class Net(nn.Linear):
        def forward(self, x):
            logits = super().forward(x)
            return logits, {"logits": logits, "probability": logits.sigmoid()}, logits.detach()

    logits, more, detached = sanify(Net(2, 1))(torch.randn(3, 2))
    assert isinstance(logits, Logits)
    assert [type(t) for t in (*more.values(), detached)] == [Tensor] * 3


@loop_over("layers", ["adv", ["adv"]], ids=["name", "list"])
def test_named_layers_alone_are_converted(layers):
    D = sanify(AuxiliaryClassifier(), layers)
    for net in (D, copy.deepcopy(D)):
        logits, classes = net(torch.randn(5, 2))
        assert isinstance(logits, Logits)
        assert F.cross_entropy(classes, torch.zeros(5, dtype=torch.int64)).requires_grad
    logits, classes = sanify(AuxiliaryClassifier())(torch.randn(5, 2))
    assert isinstance(logits, Logits)
    assert isinstance(classes, Logits)


def test_a_hidden_layer_returned_as_it_is_is_no_logit():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.fc = nn.Linear(2, 4), nn.Linear(4, 1)

        def forward(self, x):
            h = self.hidden(x)
            return [h, self.fc(h.relu())]

    h, logits = sanify(Net())(torch.randn(3, 2))
    assert isinstance(h, Tensor)
    assert isinstance(logits, Logits)


def test_joined_scales():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 1, 3), nn.Conv2d(1, 2, 5)

        def forward(self, x):
            return torch.cat([self.a(x).flatten(1), self.b(x).flatten(1).float()], dim=1)

    D = sanify(Net())
    x = torch.randn(2, 1, 8, 8)
    logits = D(x)
    expected = torch.cat([F.conv2d(x, m.weight, m.bias).flatten(1) for m in (D.a, D.b)], 1)
    assert_close(logits.fun, expected)
    assert_close(logits.dir, expected)
    g = torch.autograd.grad(weighted([logits.fun]), D.b.weight, retain_graph=True)[0]
    assert g.norm() > 0


RESHAPES = {
    "view": lambda t: t.view(-1),
    "reshape": lambda t: torch.reshape(input=t, shape=(3, -1)),
    "T": lambda t: t.T,
    "mT": lambda t: t.mT,
    "squeeze": lambda t: t[:, :1].squeeze(1),
    "unsqueeze": lambda t: t.unsqueeze(0),
    "index": lambda t: t[..., None, 0],
    "mask": lambda t: t[torch.tensor([True, False, True])],
    "gather": lambda t: t.gather(1, torch.tensor([[0], [3], [1]])),
    "unbind": lambda t: t.unbind(1)[2],
    "split": lambda t: t.split([1, 3], dim=1)[1],
    "stack": lambda t: torch.stack([t, t.flip(0)]),
    "movedim": lambda t: t.unflatten(1, (2, 2)).movedim(1, 0),
    "permute": lambda t: torch.permute(t, (1, 0)).contiguous(),
    "expand": lambda t: t[:1].expand(5, -1),
    "cast": lambda t: t.to(torch.float32).double(),
    "clone": lambda t: t.clone(),
}


@loop_over("reshape", RESHAPES.values(), ids=RESHAPES)
def test_reshapes(reshape):
    class Net(nn.Linear):
        def forward(self, x):
            return reshape(super().forward(x))

    torch.manual_seed(0)
    D = sanify(Net(2, 4).double())
    x = torch.randn(3, 2).double()
    expected = reshape(F.linear(x, D.weight, D.bias))
    logits = D(x)
    assert_close(logits.fun, expected)
    assert_close(logits.dir, expected)
    (fun,), (direction,), (both,) = (
        torch.autograd.grad(weighted([t]), D.bias, retain_graph=True) for t in (logits.fun, logits.dir, expected)
    )
    assert_close(fun + direction, both, rtol=1e-5, atol=1e-5)
    assert direction.norm() > 0


# ---- it lives on like any network ------------------------------------------------------------------------


def saved_and_loaded(D):
    buffer = io.BytesIO()
    torch.save(D, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@loop_over(("name", "copied"), [("spectral norm", copy.deepcopy), ("mlp", saved_and_loaded)])
def test_copies_are_independent(name, copied):
    case = CASES[name]
    D = sanify(case.build())
    case(D, case.inputs())  # a copy is taken between steps, not before the first
    twin = copied(D).eval()
    expected = case.logits(case(D.eval(), case.inputs())).fun
    with torch.no_grad():
        for p in D.parameters():
            p.zero_()
    logits = case.logits(case(twin, case.inputs()))
    assert_close(logits.fun, expected)
    weighted([logits.dir]).backward()
    assert any(p.grad is not None and p.grad.norm() > 0 for p in twin.parameters())
    assert all(p.grad is None for p in D.parameters())


def test_named_layers_survive_pickle():
    D = pickle.loads(pickle.dumps(sanify(AuxiliaryClassifier(), "adv")))
    assert isinstance(D(torch.randn(3, 2))[0], Logits)
    assert isinstance(D(torch.randn(3, 2))[1], Tensor)


def test_normalisers_come_and_go():
    D = SNNet(lambda layer: layer).double()
    normalizers.SpectralNorm(skip=("fc",))(D)
    sanify(D).eval()
    x = CASES["spectral norm"].inputs()
    expected = D(*x)["score"].fun
    normalizers.remove(D)
    assert not any(parametrize.is_parametrized(m) for m in D.modules())
    assert_close(D(*x)["score"].fun, expected)
    assert_close(D(*x)["score"].dir, expected)


def test_logits_are_float32_under_autocast():
    """The last inner product of bfloat16 features with float32 weights, not rounded to bfloat16."""
    D = sanify(CASES["mlp"].build(torch.float32)).eval()
    seen = []
    D.fc.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.autocast("cpu", torch.bfloat16):
        logits = D(torch.randn(6, 2))
    assert seen[0].dtype == torch.bfloat16
    expected = seen[0].double() @ D.fc.weight[0].double() + D.fc.bias.double()
    for t in (logits.fun, logits.dir):
        assert t.dtype == torch.float32
        assert_close(t.double(), expected, rtol=1e-6, atol=1e-6)


def test_logits_of_a_half_precision_network_are_float32():
    logits = sanify(CASES["mlp"].build(torch.bfloat16))(torch.randn(6, 2, dtype=torch.bfloat16))
    assert logits.fun.dtype == logits.dir.dtype == torch.float32


@loop_over("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients(context):
    plain, san = both(CASES["patchgan"], "eval")
    x = CASES["patchgan"].inputs()
    with context():
        assert_close(san(*x).fun, plain(*x))
    assert not san(*x).fun.is_inference()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@cases
def test_moves_to_the_gpu(case):
    plain, san = both(case, "eval")
    expected = leaves(case.logits(case(plain, case.inputs())))
    options = {name: t.cuda() for name, t in case.options.items()}
    logits = leaves(case.logits(san.cuda()(*(x.cuda() for x in case.inputs()), **options)))
    assert_close([t.fun.cpu() for t in logits], expected)
    assert_close([t.dir.cpu() for t in logits], expected)


def test_hidden_activations_are_freed_as_before():
    """Without gradients, a feature map is gone once the next layer has read it, even while D still runs."""
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    seen, alive = [], []
    net[0].register_forward_hook(lambda module, args, output: seen.append(weakref.ref(output)))
    net[4].register_forward_pre_hook(lambda module, args: alive.append(seen[0]() is not None))
    with torch.no_grad():
        sanify(net)(torch.randn(3, 2))
    assert alive == [False]


def test_a_part_used_alone_is_plain():
    case = CASES["multi-period"]
    D = sanify(case.build())
    logits, features = D.discriminators[0](case.inputs()[0])
    assert isinstance(logits, Tensor)
    assert all(type(t) is Tensor for t in features)


def test_an_exception_leaves_nothing_behind():
    D = sanify(CASES["mlp"].build(torch.float32))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        D(torch.randn(6, 3))
    assert torch.overrides._get_current_function_mode() is None
    assert isinstance(D(torch.randn(6, 2)), Logits)


@pytest.mark.parametrize("layers", [None, "adv"])
def test_compiles_as_one_graph(layers):
    D = sanify(AuxiliaryClassifier(), layers)
    x = torch.randn(4, 2)
    compiled = torch.compile(D, backend="eager", fullgraph=True)
    logits, expected = compiled(x)[0], D(x)[0]
    assert isinstance(logits, Logits)
    assert_close(tuple(logits), tuple(expected))
    g = torch.autograd.grad(logits.dir.sum(), D.adv.weight)
    assert_close(g, torch.autograd.grad(expected.dir.sum(), D.adv.weight))


# ---- errors ----------------------------------------------------------------------------------------------


class Then(nn.Module):
    """A last layer, and something after it."""

    def __init__(self, then):
        super().__init__()
        self.body, self.fc, self.then = nn.Linear(2, 4), nn.Linear(4, 1), then

    def forward(self, x):
        return self.then(self.fc(self.body(x).relu()))


AFTER = {
    "sigmoid": (torch.sigmoid, "'sigmoid' follows the last layer 'fc'.*losses of equipoise take logits"),
    "sigmoid_": (lambda t: t.sigmoid_(), "'sigmoid' follows the last layer 'fc'"),
    "module": (nn.Softplus(), "'softplus' follows the last layer 'fc'"),
    "reshaped": (lambda t: t.view(-1).sigmoid().view(-1, 1), "'sigmoid' follows the last layer 'fc'"),
    "first": (lambda t: (t * 2).sigmoid(), "'mul' follows the last layer 'fc'"),
    "mean": (lambda t: t.mean(0), "'mean' follows the last layer 'fc'"),
    "add": (lambda t: t + 1, r"'add' follows the last layer 'fc'.*SANHead\(ProjectionVectors"),
    "a view in place": (lambda t: (t.view(-1).clamp_(-1, 1), t)[1], "'in-place operation' follows the last layer 'fc'"),
    "half of a join": (lambda t: torch.cat([t, torch.ones(3, 1)]), "'cat' follows the last layer 'fc'"),
    "joined": (lambda t: torch.cat([t.sigmoid(), t.tanh()]), "'sigmoid' follows the last layer 'fc'"),
    "detach": (lambda t: t.detach(), "'detach' follows the last layer 'fc'"),
    "number": (lambda t: t.mean().item(), "Then returned nothing that a linear or convolutional layer computed"),
    "numpy": (lambda t: t.detach().numpy(), "Then returned nothing that a linear or convolutional layer computed"),
}


@loop_over(("then", "message"), AFTER.values(), ids=AFTER)
def test_anything_but_reshapes_after_the_last_layer_is_refused(then, message):
    D = sanify(Then(then))
    with pytest.raises(ValueError, match=message):
        D(torch.randn(3, 2))


def test_every_last_layer_must_give_raw_logits():
    class Net(AuxiliaryClassifier):
        def forward(self, x):
            adv, classes = super().forward(x)
            return torch.sigmoid(adv), classes

    with pytest.raises(ValueError, match="'sigmoid' follows the last layer 'adv'"):
        sanify(Net())(torch.randn(3, 2))
    with pytest.raises(ValueError, match="'sigmoid' follows the last layer 'adv'"):
        sanify(Net(), "adv")(torch.randn(3, 2))
    probability, classes = sanify(Net(), "classes")(torch.randn(3, 2))
    assert isinstance(probability, Tensor)
    assert isinstance(classes, Logits)


def test_a_hidden_layer_joined_to_logits_is_no_last_layer():
    """`a` enters another layer, so what is joined is not the raw logits of last layers. Wrong: it counts as one."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(2, 4), nn.Linear(2, 4), nn.Linear(4, 1)

        def forward(self, x):
            a, b = self.a(x), self.b(x)
            return torch.cat([a, b], 1), self.c(a)

    with pytest.raises(ValueError, match="the last layer 'b', and a SAN needs its raw logits"):
        sanify(Net())(torch.randn(3, 2))


def test_a_projection_discriminator_is_pointed_to_heads():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.fc, self.embed = nn.Linear(2, 4), nn.Linear(4, 1), nn.Embedding(3, 4)

        def forward(self, x, y):
            h = F.relu(self.body(x))
            return self.fc(h) + (self.embed(y) * h).sum(1, keepdim=True)

    with pytest.raises(
        ValueError, match=r"'add' follows the last layer 'fc'.*equipoise\.nn, SANHead\(ProjectionVectors"
    ):
        sanify(Net())(torch.randn(3, 2), torch.tensor([0, 1, 2]))


@loop_over("norm", [lambda m: m, new.spectral_norm, new.weight_norm, nn.utils.spectral_norm])
def test_the_layer_is_named_under_every_norm(norm):
    net = Then(nn.Sigmoid())
    net.fc = norm(net.fc)
    with pytest.raises(ValueError, match="follows the last layer 'fc'"):
        sanify(net)(torch.randn(3, 2))


def test_a_layer_that_cannot_be_named_is_described():
    net = Then(nn.Sigmoid())
    net.fc = new.spectral_norm(nn.Linear(4, 1, bias=False))
    with pytest.raises(ValueError, match=r"follows the last layer \(linear with weight \(1, 4\)\)"):
        sanify(net)(torch.randn(3, 2))


def test_no_last_layer():
    class Net(nn.Linear):
        def forward(self, x):
            return x @ self.weight.T

    with pytest.raises(ValueError, match="Net returned nothing that a linear or convolutional layer computed"):
        sanify(Net(2, 1))(torch.randn(3, 2))
    with pytest.raises(ValueError, match="Then returned nothing that 'body' computed"):
        sanify(Then(nn.Identity()), "body")(torch.randn(3, 2))


def test_input_changed_in_place_afterwards():
    class Net(AuxiliaryClassifier):
        def forward(self, x):
            h = self.body(x)
            return self.adv(h), self.classes(F.relu(h, inplace=True))

    with pytest.raises(ValueError, match=r"input of a last layer was changed in place.*inplace=False"):
        sanify(Net())(torch.randn(3, 2))


def equipoise_discriminator(head):
    return Discriminator(nn.Linear(2, 4), head)


IMPOSSIBLE = {
    "class": (lambda: MLP, None, "takes a network, an nn.Module, got <class"),
    "no layer": (lambda: nn.Sequential(nn.Flatten(), nn.ReLU()), None, "Sequential has no Linear or Conv layer"),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(1, 1, 3)), None, "Sequential has no Linear or Conv layer"),
    "sigmoid": (lambda: DCGAN([nn.Sigmoid()]).main, None, "'Sigmoid' follows the last layer.*Remove it"),
    "nested": (
        lambda: nn.Sequential(nn.Linear(2, 1), nn.Sequential(nn.Sigmoid(), nn.Flatten())),
        None,
        "'Sigmoid' follows the last layer of this nn.Sequential",
    ),
    "sanified": (lambda: sanify(MLP()), None, "MLP is a SAN already"),
    "sanified part": (lambda: nn.Sequential(sanify(MLP())), None, "MLP is a SAN already"),
    "linear head": (
        lambda: equipoise_discriminator(LinearHead(UnconditionalVector(4))),
        None,
        "head.san=true, or use SANHead",
    ),
    "SAN head": (lambda: equipoise_discriminator(SANHead(ProjectionVectors(4, 3))), None, "has its own heads"),
    "learned scale": (
        lambda: equipoise_discriminator(Head(san=True, scale="learned").factory(0)(4)),
        None,
        "has its own heads",
    ),
    "parallel": (lambda: nn.DataParallel(MLP()), None, "before it is wrapped: got DataParallel"),
    "compiled": (lambda: torch.compile(MLP(), backend="eager"), None, "before it is wrapped: got OptimizedModule"),
    "name": (MLP, "fd", r"no layer 'fd', did you mean 'fc'\? The network has \['', 'net', 'net.0', 'net.3', 'fc'\]"),
    "one name": (MLP, ["fc", "net.1"], "layer 'net.1' is LeakyReLU, and a last layer is Linear, Conv1d"),
    "embedding": (lambda: PerClassVectors(4, 3), "embed", "PerClassVectors has no Linear or Conv layer"),
    "named embedding": (
        lambda: ProjectionVectors(4, 3),
        "embed",
        "layer 'embed' is Embedding, and a last layer is Linear, Conv1d",
    ),
    "no name": (MLP, [], r"layers=\[\] names no layer"),
}


@loop_over(("make", "layers", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_refused_at_conversion(make, layers, message):
    with pytest.raises(ValueError, match=message):
        sanify(make(), layers)
