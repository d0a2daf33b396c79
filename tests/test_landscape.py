"""The geometry of a game: products with J against closed forms and finite differences, eigenvalues, verdicts, paths."""

from __future__ import annotations

import cmath
import copy
import math
from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from loops import loop_over
from reference import SPEC, Reference, batch, build, small
from runs import saved
from tiny import recipe
from torch import nn
from torch.testing import assert_close

from equipoise.augment import ADA, InstanceNoise
from equipoise.core.randomness import Purpose
from equipoise.core.types import Batch, ImageSpec
from equipoise.doctor import Field, Jacobian, Landscape, arnoldi, gradients, landscape, path, spread
from equipoise.doctor.norms import WrittenOut
from equipoise.doctor.stopped import Stops
from equipoise.lab.dirac.dynamics import jacobian
from equipoise.lab.dirac.games import DISCRIMINATORS, Games, Stabiliser
from equipoise.lab.points.gan import PointGAN, plain_gan
from equipoise.lab.points.modes import falling
from equipoise.losses import (
    R1,
    R2,
    Consensus,
    FeatureMatching,
    GradientPenalty,
    Hinge,
    HistoricalAverage,
    LazyStep,
    NonSaturating,
    Orthogonal,
    PathLength,
    RelativisticPairing,
    SingularValuePenalty,
    Wasserstein,
    discriminator_loss,
    generator_loss,
)
from equipoise.models import (
    Auxiliary,
    DCGANDiscriminator,
    DCGANGenerator,
    Head,
    MLPDiscriminator,
    MLPGenerator,
    Projection,
    SemiSupervised,
    StyleGAN2Discriminator,
    StyleGAN2Generator,
)
from equipoise.rules import Adam, Generation, History, Report
from equipoise.train import GAN, field_of, fields_of_run, train
from equipoise.weights import ClipWeights, NoNormalizer, SpectralNorm


def double(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_matches_differences(field, tolerance=1e-6, step=1e-6):
    """J u against central differences of v, in a random direction. Returns J u."""
    J, here, n = Jacobian(field), field.place(), sum(field.sizes)
    u = random(n, seed=3) / math.sqrt(n)
    with field.at(here + step * u):
        ahead = field.v()
    with field.at(here - step * u):
        behind = field.v()
    product, expected = J(u), (ahead - behind) / (2 * step)
    assert expected.norm() > 1e-4
    assert (product - expected).norm() < tolerance * expected.norm()
    return product


# ---- closed forms ----------------------------------------------------------------------------------------


def quadratic(A, B, C, E, at=None):
    """L_G = x·Ax/2 + x·By and L_D = y·Cy/2 + x·Ey, so J = -[[A + Aᵀ, 2B], [2Eᵀ, C + Cᵀ]] / 2."""
    n, m = B.shape
    x, y = (random(k, seed=k).requires_grad_(True) for k in (n, m))
    return Field([x], [y], lambda: (x @ A @ x / 2 + x @ B @ y, y @ C @ y / 2 + x @ E @ y))


def test_the_jacobian_of_a_quadratic_game():
    A, B, C, E = random(3, 3), random(3, 5, seed=1), random(5, 5, seed=2), random(3, 5, seed=4)
    field = quadratic(A, B, C, E)
    expected = -torch.cat([torch.cat([(A + A.T) / 2, B], 1), torch.cat([E.T, (C + C.T) / 2], 1)])
    assert_close(Jacobian(field).dense(), expected, rtol=0, atol=1e-13)
    assert_close(field.v(), expected @ field.place(), rtol=0, atol=1e-13)
    found, exact = landscape(field, steps=8), torch.linalg.eigvals(expected)
    assert_close(found.eigenvalues.abs().sum(), exact.abs().sum(), rtol=0, atol=1e-11)
    assert all((found.eigenvalues - value).abs().min() < 1e-11 for value in exact)
    assert found.speeds == pytest.approx([float(part.norm()) for part in field.v().split((3, 5))])


def test_a_game_without_curvature_has_no_landscape():
    x, y = double(1.0), double(2.0)
    field = Field([x], [y], lambda: (x.sum(), y.sum()))
    assert_close(Jacobian(field).dense(), torch.zeros(2, 2, dtype=torch.float64))
    assert landscape(field).verdict == "unclear"


def dirac(gamma, loss=None, theta=0.0, psi=0.0):
    """The Dirac-GAN with the library's loss and R1: D(x) = ψx, data at 0, G's point at θ."""
    loss = loss or NonSaturating()
    x, y = double(theta), double(psi)

    def critic(images, _):
        return images * y

    def losses():
        fake, real = critic(x[:, None], None), critic(torch.zeros(1, 1, dtype=torch.float64), None)
        penalty = R1(gamma=gamma)
        value = penalty.weight(0) * penalty(critic, Batch(torch.zeros(1, 1, dtype=torch.float64))).mean()
        return generator_loss(loss, fake, real), discriminator_loss(loss, real, fake) + value

    return Field([x], [y], losses)


@loop_over("gamma", [0.0, 0.6, 1.0, 3.0])
@loop_over(("loss", "slopes"), [(NonSaturating(), 0.25), (Wasserstein(), 1.0), (RelativisticPairing(), 0.25)], repr)
def test_the_dirac_gan(gamma, loss, slopes):
    """-γ/2 ± √(γ²/4 - d'|g'|): Mescheder et al. 2018, lemma 2.3 and theorem 4.1, with their field."""
    found = landscape(dirac(gamma, loss))
    root = cmath.sqrt(gamma**2 / 4 - slopes)
    expected = sorted((-gamma / 2 + root, -gamma / 2 - root), key=lambda z: (z.real, z.imag))
    values = sorted(found.eigenvalues.tolist(), key=lambda z: (round(z.real, 9), z.imag))
    assert values == pytest.approx(expected, abs=1e-7 if gamma == 1.0 else 1e-12)  # a double root is √ε sharp
    assert found.verdict == ("attracts" if gamma else "circles")
    if gamma == 0.6:
        assert found.attraction.value == pytest.approx(0.3)
        assert found.rotation.value == pytest.approx(abs(root.imag))


@loop_over("name", ["SAN, direction", "SAN, features"])
def test_a_san_in_the_dirac_gan(name):
    """Paths that a SAN stops belong to J. The lab takes differences of fourth order of its own field."""
    D, loss = DISCRIMINATORS[name], NonSaturating()
    state = Games(D, [loss], [Stabiliser()]).equilibrium()[0, 0, 0]
    theta, phi = double(float(state[0])), double(*state[1:].tolist())

    def losses():
        fake, real = D.logits(phi[None], theta), D.logits(phi[None], torch.zeros(1, dtype=torch.float64))
        return generator_loss(loss, fake), discriminator_loss(loss, real, fake)

    expected = jacobian(Games(D, [loss], [Stabiliser()]))[0, 0]
    assert_close(Jacobian(Field([theta], [phi], losses)).dense(), expected, rtol=0, atol=1e-8)


def test_the_field_may_repel():
    x, y = double(0.1), double(0.2)
    field = Field([x], [y], lambda: ((x * y - x * x).sum(), (-x * y - y * y).sum()))
    assert landscape(field).verdict == "repels"
    assert landscape(field).attraction.value == pytest.approx(-2.0)


# ---- Arnoldi's iteration ---------------------------------------------------------------------------------


def test_arnoldi_finds_the_outer_eigenvalues_and_knows_its_errors():
    n = 120
    A = random(n, n) / math.sqrt(n)
    A[:3, :3] += 3 * torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, -1.2]], dtype=torch.float64)
    exact = torch.linalg.eigvals(A)
    ritz = arnoldi(lambda u: A @ u, random(n, seed=9), 40)
    missed = torch.stack([(exact - value).abs().min() for value in ritz.values])
    leading = ritz.values.abs().argsort(descending=True)[:3]
    assert_close(ritz.values[leading].abs().sort().values, exact.abs().sort().values[-3:], rtol=0, atol=1e-8)
    assert (missed[leading] < 1e-8).all()
    sharp = ritz.errors < 0.1
    assert 3 <= sharp.sum() < 40  # the cloud is not resolved in 40 steps, and the bars say so
    assert (missed[sharp] <= 2 * ritz.errors[sharp] + 1e-12).all()
    assert (missed[~sharp] > 1e-4).any()


def test_a_converged_eigenvalue_does_not_come_back():
    """With rounding, vectors that are made orthogonal once lean towards a dominant one, which is then found again."""
    exact = torch.cat([torch.tensor([1e8], dtype=torch.float64), torch.arange(1.0, 40.0, dtype=torch.float64)])
    ritz = arnoldi(lambda u: exact * u, random(40), 40)
    assert_close(ritz.values.real.sort().values, exact.sort().values, rtol=1e-6, atol=1e-6)


def test_residuals_are_those_of_ritz_vectors():
    """Against the definition, ‖A x - λ x‖, in a basis from a QR decomposition of the Krylov vectors."""
    A, start, k = random(12, 12), random(12, seed=5), 4
    ritz = arnoldi(lambda u: A @ u, start, k)
    krylov = torch.stack([torch.linalg.matrix_power(A, i) @ start for i in range(k)], dim=1)
    Q = torch.linalg.qr(krylov).Q
    values, Y = torch.linalg.eig(Q.T @ A @ Q)
    X = Q.to(Y) @ Y
    for value, x in zip(values, X.T, strict=True):
        i = (ritz.values - value).abs().argmin()
        assert (ritz.values[i] - value).abs() < 1e-9
        expected = (A.to(x) @ x - value * x).norm() / x.norm()
        assert float(ritz.residuals[i]) == pytest.approx(float(expected), rel=1e-6)


def test_an_invariant_space_is_left_and_repeated_eigenvalues_are_counted():
    A = torch.diag(torch.tensor([2.0, 2.0, 2.0, -1.0, -1.0, 0.0], dtype=torch.float64))
    ritz = arnoldi(lambda u: A @ u, random(6), 6)
    assert_close(ritz.values.real.sort().values, A.diagonal().sort().values, rtol=0, atol=1e-12)
    assert (ritz.errors < 1e-10).all()


def test_an_error_bar_covers_a_defective_eigenvalue():
    """A Jordan block of size 2 moves by √ε under a perturbation ε. The residual alone would promise ε."""
    A = torch.tensor([[-1.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    Q = torch.linalg.qr(random(2, 2)).Q
    ritz = arnoldi(lambda u: Q @ A @ Q.T @ u, random(2, seed=2), 2)
    missed = (ritz.values + 1).abs()
    assert (missed <= ritz.errors).all()
    assert (ritz.errors < 1e-5).all()


# ---- verdicts --------------------------------------------------------------------------------------------


def of(values, errors=0.0, floor=0.1):
    values = torch.tensor(values, dtype=torch.complex128)
    return Landscape(values, torch.full((len(values),), errors, dtype=torch.float64), (0.0, 0.0), floor)


TURN = math.log(2) / (2 * math.pi)


@loop_over(
    ("values", "errors", "verdict"),
    [
        ([-1 + 2j, -1 - 2j, -0.5], 0.0, "attracts"),
        ([1j, -1j], 0.0, "circles"),
        ([-0.99 * TURN + 1j, -0.99 * TURN - 1j], 0.0, "circles"),  # a turn leaves just over half the distance
        ([-1.01 * TURN + 1j, -1.01 * TURN - 1j], 0.0, "attracts"),
        ([0.99 * TURN + 1j, 0.99 * TURN - 1j], 0.0, "circles"),
        ([1.01 * TURN + 1j, 1.01 * TURN - 1j], 0.0, "repels"),
        ([-5, 1, 2j, -2j], 0.0, "repels"),  # the worst decides
        ([-5, 0.4, -1 + 1j, -1 - 1j], 0.0, "attracts"),  # below the floor
        ([-5, 0.6, -1 + 1j, -1 - 1j], 0.0, "repels"),
        ([-0.3 + 1j, -0.3 - 1j], 0.1, "attracts"),
        ([-0.3 + 1j, -0.3 - 1j], 0.25, "unclear"),
        ([0, 0], 1e-16, "unclear"),
    ],
)
def test_verdicts(values, errors, verdict):
    assert of(values, errors).verdict == verdict


def test_attraction_and_rotation_come_with_the_errors_of_their_eigenvalues():
    values = torch.tensor([-4, -1 + 2j, -1 - 2j, -0.5, 0.01], dtype=torch.complex128)
    land = Landscape(values, torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), (0.0, 0.0))
    assert land.attraction == (0.5, 4.0)
    assert land.rotation[0] == 2.0
    assert land.rotation[1] in (2.0, 3.0)
    assert land.rightmost.tolist()[:2] == [4, 3]


def test_the_spread_over_batches():
    found = spread([of([-1, 2j, -2j]), of([-2 + 1j, -2 - 1j])])
    assert found["attraction"] == pytest.approx((1.0, math.sqrt(2)))
    assert found["rotation"] == pytest.approx((1.5, math.sqrt(0.5)))
    with pytest.raises(ValueError, match="two or more batches, got 1"):
        spread([of([1j])])


# ---- stopped gradients, and norms ------------------------------------------------------------------------


def test_a_stop_holds_in_the_first_gradient_and_not_in_its_derivative():
    """w · sg(w²) has the gradient w² of training, whose derivative is 2w."""
    w = double(3.0)
    with Stops() as stops:
        loss = (w * w.square().detach()).sum()
    with stops.first():
        (gradient,) = torch.autograd.grad(loss, w, create_graph=True)
    assert_close(gradient.detach(), double(9.0).detach())
    (second,) = torch.autograd.grad(gradient, w)
    assert_close(second, double(6.0).detach())


NORMS = {
    "batch norm": lambda: nn.BatchNorm1d(4),
    "layer norm": lambda: nn.LayerNorm(4),
    "group norm": lambda: nn.GroupNorm(2, 4),
    "instance norm": lambda: nn.Sequential(nn.Unflatten(1, (2, 2)), nn.InstanceNorm1d(2, affine=True), nn.Flatten()),
    "none": nn.Identity,
}


@loop_over("name", NORMS)
def test_third_derivatives_through_norms_under_r1(name):
    """PyTorch's own are wrong for batch, layer and instance norm, without an error."""
    torch.manual_seed(0)
    D = nn.Sequential(nn.Linear(3, 4), NORMS[name](), nn.Tanh(), nn.Linear(4, 1)).double()
    G, x, z = nn.Linear(2, 3).double(), random(6, 3), random(6, 2)

    def losses():
        fake = G(z)
        penalty = R1()(lambda images, _: D(images), Batch(x)).mean()
        return F.softplus(-D(fake)).mean(), F.softplus(-D(x)).mean() + F.softplus(D(fake)).mean() + penalty

    assert_matches_differences(Field(list(G.parameters()), list(D.parameters()), losses), step=1e-5)


@loop_over("shape", [(5, 4), (5, 4, 3, 3)], str)
def test_norms_written_out_have_the_values_of_their_layers(shape):
    x = random(*shape) * 2 + 1
    kinds = [nn.LayerNorm(shape[1:]), nn.BatchNorm1d(4) if len(shape) == 2 else nn.BatchNorm2d(4)]
    if len(shape) == 4:
        kinds.append(nn.InstanceNorm2d(4, affine=True, track_running_stats=True))
    for layer in kinds:
        layer = layer.double()
        for p in layer.parameters():
            p.data.add_(random(*p.shape, seed=7))
        for training in (True, False):
            layer.train(training)
            expected = copy.deepcopy(layer)(x)
            with WrittenOut():
                assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


# ---- the field of a GAN ----------------------------------------------------------------------------------


def test_the_field_is_the_gradient_of_each_players_terms_and_counts_a_lazy_term_once():
    cfg = small(terms=(R1(gamma=3.0, every=4), LazyStep(R2(gamma=2.0, every=8)), Orthogonal(strength=0.1, player="G")))
    gan, real = build(cfg), batch(6)
    field, reference = field_of(gan, real), Reference(gan)
    z = gan.latents(real, Purpose.Z_FOR_G, 0)
    fake = reference.images(z)
    d = F.softplus(-reference.logits(real.x).fun).mean() + F.softplus(reference.logits(fake).fun).mean()
    for gamma, images in ((3.0, real.x.double()), (2.0, fake.detach())):
        images = images.requires_grad_(True)
        (slope,) = torch.autograd.grad(reference.logits(images).fun.sum(), images, create_graph=True)
        d = d + gamma / 2 * slope.square().flatten(1).sum(1).mean()
    g = F.softplus(-reference.logits(fake).fun).mean()
    for W in reference.matrices("G"):
        products = W.flatten(1) @ W.flatten(1).T
        g = g + 0.1 * (products - products.diagonal().diag()).square().sum()
    expected = torch.cat(
        [part.flatten() for who, total in (("G", g), ("D", d)) for part in reference.gradient(who, total).values()]
    )
    assert_close(field.v(), -expected, rtol=1e-6, atol=1e-9)


GAMES = {
    "plain": {},
    "R1, R2, lazy": {"terms": (R1(gamma=5.0, every=4), LazyStep(R2(gamma=5.0)))},
    "WGAN-GP": {"loss": Wasserstein(), "terms": (GradientPenalty(),)},
    "paired": {"loss": RelativisticPairing(), "terms": (R1(),)},
    "SAN": {"head": Head(san=True), "terms": (R1(), R2())},
    "SAN, learned": {"head": Head(san=True, scale="learned"), "loss": Hinge()},
    "SAN, spectral": {
        "head": Head(Projection(), san=True),
        "d_normalizer": SpectralNorm(),
        "terms": (GradientPenalty(),),
    },
    "classes": {"head": Head(Auxiliary())},
    "K + 1": {"head": Head(SemiSupervised(labelled=20))},
    "consensus": {"terms": (Consensus(gamma=0.1),)},
    "matching": {"terms": (FeatureMatching(adversarial=False),)},
    "weights": {"terms": (Orthogonal(player="both"), HistoricalAverage(), SingularValuePenalty())},
    "noise": {"augment": InstanceNoise(std=0.3)},
    "ADA": {"augment": ADA(), "terms": (R1(gamma=1.0),)},
}


@loop_over("name", GAMES)
def test_products_with_the_jacobian_of_every_game(name):
    cfg = small(**GAMES[name])
    gan = build(cfg)
    if name == "ADA":
        gan.augment.p.fill_(0.8)
    labelled = batch(4) if name == "K + 1" else None
    field = field_of(gan, batch(6), labelled=labelled)
    product = assert_matches_differences(field)
    assert all(part.norm() > 1e-6 for part in product.split(field.sizes))


def networks(name):
    if name == "digits":  # SAN, spectral norm, projection
        return replace(recipe(), terms=(R1(gamma=1.0),)), SPEC
    if name == "DCGAN":  # batch norm in G and D
        nets = {"generator": DCGANGenerator(z_dim=4, width=4), "discriminator": DCGANDiscriminator(width=4)}
        terms = (R1(gamma=1.0),)
    else:
        small_sides = {"channel_base": 64, "channel_max": 4}
        nets = {
            "generator": StyleGAN2Generator(z_dim=4, w_dim=4, mapping_layers=2, **small_sides),
            "discriminator": StyleGAN2Discriminator(**small_sides),
        }
        terms = (LazyStep(R1(gamma=1.0)), LazyStep(PathLength()))
    cfg = replace(recipe(), head=Head(), d_normalizer=NoNormalizer(), terms=terms, **nets)
    return cfg, ImageSpec(resolution=16, channels=3, num_classes=10)


@pytest.mark.filterwarnings("ignore:D has batch norm")
@loop_over("name", ["digits", "DCGAN", "StyleGAN2"])
def test_products_through_convolutions_leave_the_gan_as_it_was(name):
    cfg, spec = networks(name)
    gan = GAN.build(cfg, spec)
    for net in (gan.G, gan.D):  # fresh biases of 0 put ReLUs on their kinks
        for i, p in enumerate(net.parameters()):
            p.data.add_(0.1 * random(*p.shape, seed=i).float())
    gan.remember()
    nets = [gan.G, gan.D, *gan.memories("G"), *gan.memories("D")]
    before, state = copy.deepcopy([net.state_dict() for net in nets]), torch.get_rng_state()
    x = random(4, spec.channels, spec.resolution, spec.resolution).float().tanh()
    field = field_of(gan, Batch(x, torch.arange(4)))
    buffers = field.v()
    assert_matches_differences(field)
    assert torch.equal(field.v(), buffers)  # buffers of the copy stay too
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(p.requires_grad or p.grad is not None for net in nets for p in net.parameters())
    for net, was in zip(nets, before, strict=True):
        for key, value in net.state_dict().items():
            assert torch.equal(value, was[key]), key


@loop_over(
    ("changes", "message"),
    [
        ({"constraints": (ClipWeights(bound=0.1),)}, "project D's weights after each update"),
        ({"game": Generation(shown=History(size=20))}, "images of earlier generators"),
        ({"head": Head(san=True, normalize_loss=True)}, "derivative of that mean"),
    ],
)
def test_a_game_without_a_field_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        field_of(build(small(**changes)), batch(4))


class Once(torch.autograd.Function):
    """x², whose gradient autograd would take for a constant."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope):
        return 2 * slope * ctx.saved_tensors[0]


@loop_over(
    ("function", "reason"),
    [
        (lambda t: Once.apply(t).square(), "marked once_differentiable"),
        (lambda t: torch.cdist(t[:, None], torch.ones(2, 1, dtype=t.dtype), p=1.5).square(), "_cdist_backward"),
    ],
    lambda f: "",
)
def test_an_operation_without_the_derivatives_is_named(function, reason):
    x, y = double(1.0), double(2.0)
    with pytest.raises(ValueError, match=f"PyTorch cannot take one of them: .*{reason}"):
        landscape(Field([x], [y], lambda: (function(x * y).sum(), (x * y).sum())))


def test_what_cannot_be_measured_is_refused():
    field = quadratic(*(torch.ones(1, 1, dtype=torch.float64) for _ in range(4)))
    J = Jacobian(field)
    with field.at(field.place() + 1), pytest.raises(ValueError, match="the weights have moved"):
        J(torch.ones(2, dtype=torch.float64))
    J(torch.ones(2, dtype=torch.float64))  # back in place
    with pytest.raises(ValueError, match="steps=0 finds no eigenvalue"):
        landscape(field, steps=0)
    with field.at(field.place() * math.nan), pytest.raises(ValueError, match="the run has diverged"):
        landscape(field)
    with pytest.raises(ValueError, match="two different checkpoints"):
        path(field, field.place(), field.place())
    with pytest.raises(ValueError, match="expected two places of 2 weights"):
        path(field, torch.zeros(3), field.place())


# ---- between checkpoints ---------------------------------------------------------------------------------


def linear(matrix):
    """The game in the plane with v = M θ."""
    x, y = double(0.7), double(-0.2)
    (a, b), (c, d) = matrix
    return Field([x], [y], lambda: (-(a * x * x / 2 + b * x * y).sum(), -(d * y * y / 2 + c * x * y).sum()))


def test_a_path_into_attraction_turns_around_and_a_path_into_a_circle_stays_across():
    start, end = torch.tensor([3.0, 4.0]), torch.zeros(2)
    field, here = linear([[-1.0, 0.0], [0.0, -1.0]]), linear([[-1.0, 0.0], [0.0, -1.0]]).place()
    into = path(field, start, end, points=7, until=1.5)
    assert_close(into.alphas, torch.arange(7, dtype=torch.float64) / 4)
    assert_close(into.norms, 5 * (1 - into.alphas).abs(), rtol=0, atol=1e-12)
    assert_close(into.cosines, (1 - into.alphas).sign(), rtol=0, atol=1e-12)
    assert torch.equal(field.place(), here)
    around = path(linear([[0.0, 2.0], [-2.0, 0.0]]), start, end, points=7)
    assert_close(around.norms, 10 * (1 - around.alphas).abs(), rtol=0, atol=1e-12)
    assert_close(around.cosines, torch.zeros(7, dtype=torch.float64), rtol=0, atol=1e-12)


def test_gradients_at_averaged_weights():
    field = linear([[0.0, 2.0], [-2.0, -1.0]])
    found = gradients(field, torch.tensor([0.2, 9.0]))  # D's average is not taken
    assert found.last == pytest.approx((2 * 0.2, 2 * 0.7 - 0.2))
    assert found.averaged == pytest.approx((2 * 0.2, 2 * 0.2 - 0.2))
    assert found.aligned == pytest.approx(-1.0)  # v of G is 2y < 0 and the last x lies above
    assert field.place().tolist() == pytest.approx([0.7, -0.2])


# ---- runs ------------------------------------------------------------------------------------------------


def test_the_fields_of_a_run(tmp_path):
    cfg = replace(recipe(), report=replace(recipe().report, keep="all"), terms=(R1(gamma=1.0),))
    assert isinstance(cfg.report, Report)
    train(cfg, tmp_path / "run")
    files = sorted(tmp_path.rglob("*"))
    times = [file.stat().st_mtime_ns for file in files]
    late, early = fields_of_run(tmp_path / "run", batches=2), fields_of_run(tmp_path / "run", 80)
    assert (early.nimg, late.nimg) == (80, 160)
    assert sorted(tmp_path.rglob("*")) == files
    assert [file.stat().st_mtime_ns for file in files] == times
    gan = GAN.build(cfg, SPEC)

    def stored(file, net):
        weights = saved(tmp_path / "run", file)
        return torch.cat([weights[name].flatten().double() for name, _ in net.named_parameters()])

    assert torch.equal(late.place, torch.cat([stored("G", gan.G), stored("D", gan.D)]))
    assert not torch.equal(early.place, late.place)
    assert torch.equal(late.averaged[: late.fields[0].sizes[0]], stored("ema", gan.G))
    assert torch.equal(late.averaged[late.fields[0].sizes[0] :], late.place[late.fields[0].sizes[0] :])
    assert not torch.equal(*(field.v() for field in late.fields))  # two batches
    assert landscape(late.fields[0], steps=5).eigenvalues.shape == (5,)
    assert path(late.fields[0], early.place, late.place, points=3).norms.isfinite().all()
    assert gradients(late.fields[0], late.averaged).averaged[0] > 0
    with pytest.raises(ValueError, match="no checkpoint at nimg=81, but these"):
        fields_of_run(tmp_path / "run", 81)
    with pytest.raises(ValueError, match="not a run"):
        fields_of_run(tmp_path)


@cache
def ring():
    """A GAN of points on a ring, trained with R1 until its learning rates are 0."""
    adam = Adam(lr=5e-3, betas=(0.0, 0.9))
    cfg = replace(
        plain_gan(),
        generator=MLPGenerator(z_dim=2, width=16, depth=2, output="linear"),
        discriminator=MLPDiscriminator(width=16, depth=2),
        loss=NonSaturating(),
        terms=(R1(gamma=1.0, every=1),),
        batch_size=64,
        d_steps=1,
        total_kimg=100,
        g_optim=adam,
        d_optim=adam,
    )
    gan = PointGAN(falling(cfg))
    while gan.nimg < 100_000:
        gan.iterate()
    return gan


def test_r1_attracts_on_a_trained_ring_and_the_plain_gan_circles_there():
    gan = ring()
    plain = replace(gan.gan, cfg=replace(gan.cfg, terms=()), augment=gan.cfg.augment.build())
    with_r1, without = (landscape(field_of(g, gan.batch(1024, Purpose.POINTS), gan.nimg)) for g in (gan.gan, plain))
    assert (with_r1.verdict, without.verdict) == ("attracts", "circles")
    assert max(with_r1.attraction.error, without.attraction.error) < 1e-6
    assert with_r1.attraction.value > 2 * without.attraction.value
    assert 0.5 < with_r1.rotation.value / without.rotation.value < 2  # both rotate
