"""The Dirac-GAN: eigenvalues against closed forms, descents against eigenvalues, and verdicts on every pair."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
import torch.nn.functional as F
from loops import loop_over
from torch.testing import assert_close

pytest.importorskip("matplotlib")

from equipoise.augment import InstanceNoise
from equipoise.core.plots import FILM_BYTES, encode
from equipoise.core.types import component
from equipoise.lab import available
from equipoise.lab.dirac import dynamics as dirac_dynamics
from equipoise.lab.dirac import experiment as dirac
from equipoise.lab.dirac import figures as dirac_figures
from equipoise.lab.dirac import games as dirac_games
from equipoise.lab.dirac.dynamics import jacobian, kinked
from equipoise.lab.dirac.experiment import Dirac
from equipoise.lab.dirac.games import DISCRIMINATORS, Games, Stabiliser, all_losses, stabilisers, undecided
from equipoise.losses import (
    R1,
    R2,
    Consensus,
    Dragan,
    GANLoss,
    GradientPenalty,
    LeastSquares,
    NonSaturating,
    Saturating,
    Wasserstein,
    discriminator_loss,
    penalties,
)
from equipoise.losses import adversarial as losses
from equipoise.nn import SANHead

PLAIN, DIRECTION, FEATURES = DISCRIMINATORS.values()


def sigmoid(t):
    return 1 / (1 + math.exp(-t))


S = math.log1p(math.exp(0.5))  # softplus(1/2), the soft least squares of an undecided D
KNOWN_SLOPE = {
    "Saturating": 0.5,
    "NonSaturating": 0.5,
    "RelativisticPairing": 0.5,
    "LeastSquares": 0.5,
    "Hinge": 1.0,
    "Wasserstein": 1.0,
    "SoftLeastSquares": 2 * S * sigmoid(0.5),
}
KNOWN_CURVATURE = {
    "Saturating": 0.5,
    "NonSaturating": 0.5,
    "RelativisticPairing": 0.5,
    "LeastSquares": 2.0,
    "Hinge": 0.0,
    "Wasserstein": 0.0,
    "SoftLeastSquares": 4 * (sigmoid(0.5) ** 2 + S * sigmoid(0.5) * sigmoid(-0.5)),
}
LOSSES = all_losses()


def derivatives(loss):
    """|dd / dfake| = |g'| where D is undecided, and d²d / dreal² + d²d / dfake² there."""
    real, fake = (torch.tensor([[undecided(loss)]], dtype=torch.float64, requires_grad=True) for _ in range(2))
    first = torch.autograd.grad(loss.d(real, fake).sum(), (real, fake), create_graph=True)
    second = [
        torch.autograd.grad(slope.sum(), at, retain_graph=True, allow_unused=True, materialize_grads=True)[0].item()
        for slope, at in zip(first, (real, fake), strict=True)
        if slope.requires_grad
    ]
    return abs(first[1].item()), sum(second)


SLOPE = {name: derivatives(loss)[0] for name, loss in LOSSES.items()}
CURVATURE = {name: derivatives(loss)[1] for name, loss in LOSSES.items()}


def eigenvalues(stabiliser, D=PLAIN, chosen=None):
    """Of each loss, by name: the two that are not of moves along the set of equilibria."""
    chosen = chosen or {name: loss for name, loss in LOSSES.items() if D.trains(loss)}
    found = jacobian(Games(D, chosen.values(), [stabiliser]))[:, 0]
    return {name: dirac_dynamics.of_interest(torch.linalg.eigvals(j)) for name, j in zip(chosen, found, strict=True)}


def assert_eigenvalues(found, trace, determinant, tolerance=1e-6):
    """Those of a 2x2 matrix with this trace and determinant, in any order."""
    root = cmath.sqrt(trace**2 / 4 - determinant)
    wanted = sorted((trace / 2 + root, trace / 2 - root), key=lambda v: (round(v.real, 5), v.imag))
    got = sorted(found.tolist(), key=lambda v: (round(v.real, 5), v.imag))
    assert got == pytest.approx(wanted, abs=tolerance)


def test_slopes_and_curvatures_are_the_closed_forms():
    assert {name: SLOPE[name] for name in KNOWN_SLOPE} == pytest.approx(KNOWN_SLOPE, abs=1e-12)
    assert {name: CURVATURE[name] for name in KNOWN_CURVATURE} == pytest.approx(KNOWN_CURVATURE, abs=1e-12)


# ---- eigenvalues ---------------------------------------------------------------------------------------------


def test_without_a_penalty_the_eigenvalues_are_imaginary():
    """±i f'(0) (Mescheder et al. 2018, sec. 2.2), for every loss."""
    for name, found in eigenvalues(Stabiliser()).items():
        assert_eigenvalues(found, 0, SLOPE[name] ** 2, 1e-12)
        assert found.real.abs().max() < 1e-12


@loop_over("gamma", [0.1, 0.6, 3.0, 10.0])
@loop_over(
    "penalty",
    [
        lambda gamma: R1(gamma=gamma),
        lambda gamma: R2(gamma=gamma),
        lambda gamma: GradientPenalty(strength=gamma / 2, target=0.0),
        lambda gamma: Dragan(strength=gamma / 2, target=0.0),
    ],
    ids=["R1", "R2", "GradientPenalty", "Dragan"],
)
def test_zero_centred_penalties_move_them_to_the_left(penalty, gamma):
    """-gamma/2 ± √(gamma²/4 - f'(0)²) with the penalty gamma/2 ψ² (Mescheder et al. 2018, sec. 3.3)."""
    for name, found in eigenvalues(Stabiliser((penalty(gamma),))).items():
        assert_eigenvalues(found, -gamma, SLOPE[name] ** 2)
        assert found.real.max() < 0


@loop_over("std", [0.3, 1.0, 1.5])
def test_instance_noise_damps_where_the_loss_is_curved(std):
    """-κ/2 ± √(κ²/4 - f'(0)²), κ = std² (d_rr + d_ff); κ is -2 f''(0) std² in Mescheder et al. 2018, sec. 3.2."""
    for name, found in eigenvalues(Stabiliser(augment=InstanceNoise(std=std))).items():
        assert_eigenvalues(found, -(std**2) * CURVATURE[name], SLOPE[name] ** 2)


def test_the_quadrature_is_what_the_noise_does_on_average():
    """The curvature of D's loss along ψ, from the noise module's own draws."""
    noise = InstanceNoise(std=0.7).build()
    psi = torch.zeros((), dtype=torch.float64, requires_grad=True)
    x = torch.zeros(200_000, 1, dtype=torch.float64)
    loss = discriminator_loss(NonSaturating(), psi * noise(x), psi * noise(x))
    (first,) = torch.autograd.grad(loss, psi, create_graph=True)
    (second,) = torch.autograd.grad(first, psi)
    games = Games(PLAIN, [NonSaturating()], [Stabiliser(augment=InstanceNoise(std=0.7))])
    assert -jacobian(games)[0, 0, 1, 1].item() == pytest.approx(second.item(), rel=0.02)


def test_noise_values_are_those_of_a_standard_normal():
    values = dirac_games.NOISE_VALUES
    assert_close(values.mean(), torch.tensor(0.0).double(), rtol=0, atol=1e-12)
    assert_close(values.square().mean(), torch.tensor(1.0).double())
    assert len(set(values.tolist())) == len(values)


@loop_over("gamma", [0.1, 2.0])
def test_consensus_damps_both_players(gamma):
    """v' - gamma v'ᵀv', of v' = ((0, c), (-c, 0)) (Mescheder et al. 2017, sec. 4)."""
    for name, found in eigenvalues(Stabiliser(joint=(Consensus(gamma=gamma),))).items():
        c = SLOPE[name]
        assert_eigenvalues(found, -2 * gamma * c**2, (gamma * c**2) ** 2 + c**2)


def test_penalties_around_one_have_no_derivative_there():
    known = stabilisers()
    games = Games(PLAIN, LOSSES.values(), known.values())
    for name, found in zip(known, kinked(games).T, strict=True):
        assert found.all() == found.any() == (name in ("WGAN-GP", "DRAGAN"))


def test_the_one_sided_penalty_does_nothing_there():
    found = eigenvalues(Stabiliser((GradientPenalty(one_sided=True),)))
    for name, values in found.items():
        assert_eigenvalues(values, 0, SLOPE[name] ** 2, 1e-12)


def test_autograd_and_differences_agree_on_a_plain_d():
    games = Games(PLAIN, LOSSES.values(), stabilisers().values())
    smooth = ~kinked(games)
    assert_close(jacobian(games)[smooth], dirac_dynamics.differences(games)[smooth], rtol=0, atol=1e-10)


def test_a_wrong_sign_shows():
    """A G that flees from the data leaves one eigenvalue on the right."""

    @component
    class Fleeing(GANLoss):
        def d(self, real, fake):
            return fake - real

        def g(self, fake, real=None):
            return fake

    (found,) = eigenvalues(Stabiliser(), chosen={"fleeing": Fleeing()}).values()
    assert_eigenvalues(found, 0, -1)


# ---- the field -----------------------------------------------------------------------------------------------


def test_the_field_is_that_of_the_paper():
    """(f'(-ψθ) ψ, -f'(ψθ) θ) for the non-saturating loss, f' = s; f'(ψθ) in both for the minimax one."""
    state = torch.randn(2, 2, 5, 2, dtype=torch.float64)
    theta, psi = state.unbind(-1)
    found = Games(PLAIN, [NonSaturating(), Saturating()], [Stabiliser(), Stabiliser((R1(gamma=0.8),))]).field(state)
    t = theta * psi
    for_g = torch.stack([torch.sigmoid(-t[0]) * psi[0], torch.sigmoid(t[1]) * psi[1]])
    for_d = -torch.sigmoid(t) * theta - torch.tensor([0.0, 0.8]).double()[:, None] * psi
    assert_close(found, torch.stack([for_g, for_d], dim=-1))


@loop_over("D", DISCRIMINATORS.values(), ids=DISCRIMINATORS)
def test_games_do_not_know_of_one_another(D):
    chosen = [loss for loss in LOSSES.values() if D.trains(loss)]
    known = list(stabilisers().values())
    games = Games(D, chosen, known)
    state = games.equilibrium().expand(-1, -1, 2, -1) + 0.3 * torch.randn(len(chosen), len(known), 2, 1).double()
    together, of_g = games.field(state), games.field_of_g(state)
    assert_close(of_g, together[..., 0])
    for i, j in ((0, 0), (1, len(known) - 1), (2, 3), (len(chosen) - 1, len(known) - 2)):
        alone = Games(D, [chosen[i]], [known[j]]).field(state[i : i + 1, j : j + 1, :1])
        assert_close(alone[0, 0, 0], together[i, j, 0])


def test_every_equilibrium_is_one():
    known = stabilisers()
    for D in DISCRIMINATORS.values():
        games = Games(D, [loss for loss in LOSSES.values() if D.trains(loss)], known.values())
        assert games.field(games.equilibrium()).abs().max() < 1e-12


def test_an_undecided_d():
    for name in KNOWN_SLOPE:
        assert undecided(LOSSES[name]) == pytest.approx(0.5 if "Least" in name else 0.0, abs=1e-12)
    assert undecided(LeastSquares(a=-3.0, b=1.0)) == pytest.approx(-1.0)
    assert undecided(NonSaturating(smoothing=0.1)) == pytest.approx(math.log(0.45 / 0.55))  # s(t) = 0.9 / 2


# ---- SAN -----------------------------------------------------------------------------------------------------


def test_a_direction_in_one_dimension_learns_nothing():
    """Which is why the SAN of this experiment has two features."""
    w = torch.tensor([[-0.7]], dtype=torch.float64, requires_grad=True)
    logits = SANHead(dirac_games.Given(w))(torch.tensor([[0.4]]).double())
    (of_fun,) = torch.autograd.grad(logits.fun.sum(), w, retain_graph=True)
    (of_dir,) = torch.autograd.grad(logits.dir.sum(), w)
    assert_close(of_fun, torch.tensor([[0.4]]).double())
    assert_close(of_dir, torch.zeros_like(of_dir))


@loop_over("gamma", [0.6, 3.0])
def test_r1_damps_the_features_of_a_san(gamma):
    """As a plain D's, with ψ scaled by ω_1 = 0.8."""
    for name, found in eigenvalues(Stabiliser((R1(gamma=gamma),)), FEATURES).items():
        assert_eigenvalues(found, -gamma * 0.64, 0.64 * SLOPE[name] ** 2)


@loop_over("name", [*stabilisers()])
def test_nothing_damps_the_direction_of_a_san(name):
    """Penalties read `fun`, which does not train it, and in the loss of `dir`, real - generated, noise cancels."""
    chosen = {key: loss for key, loss in LOSSES.items() if DIRECTION.trains(loss)}
    games = Games(DIRECTION, chosen.values(), [stabilisers()[name]])
    if kinked(games).any():
        assert name in ("WGAN-GP", "DRAGAN")
        return
    for key, found in eigenvalues(stabilisers()[name], DIRECTION).items():
        assert_eigenvalues(found, 0, SLOPE[key] ** 2)


def test_autograd_cannot_differentiate_the_field_of_a_san():
    """It would miss how θ's force depends on the direction: v'_θw = -g' = 1/2."""
    games = Games(DIRECTION, [NonSaturating()], [Stabiliser()])
    by_autograd = torch.autograd.functional.jacobian(lambda s: games.field(s)[0, 0, 0], games.equilibrium())
    assert by_autograd[0, 0, 0, 0, 1] == 0
    assert_close(jacobian(games)[0, 0, 0, 1], torch.tensor(0.5).double())


# ---- descent -------------------------------------------------------------------------------------------------


LR = 0.2


@pytest.fixture(scope="module")
def descents():
    """Distances (161, loss, stabiliser, start): minimax, non-saturating, Wasserstein; nothing, R1."""
    games = Games(PLAIN, [Saturating(), NonSaturating(), Wasserstein()], [Stabiliser(), Stabiliser((R1(gamma=1.0),))])
    return dirac_dynamics.descend(games, 160, LR)[0]


@loop_over(("i", "c"), [(0, 0.5), (1, 0.5), (2, 1.0)])
def test_at_once_leaves_and_in_turn_circles(descents, i, c):
    """A step of both players multiplies the distance by √(1 + (lr f'(0))²); steps in turn turn an ellipse."""
    at_once, in_turn = (descents[:, i, 0, :2] / descents[0, i, 0, :2]).T
    assert at_once[-1].item() == pytest.approx((1 + (LR * c) ** 2) ** 80, rel=1e-4)
    assert 0.8 < in_turn.min() < in_turn.max() < 1.2


@loop_over(("step", "stable"), [(0.5, True), (1.9, True), (2.1, False), (4.0, False)])
def test_steps_in_turn_circle_up_to_two(step, stable):
    """Up to lr f'(0) = 2 the eigenvalues of D's step, then G's, lie on the unit circle."""
    j = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    sizes = torch.linalg.eigvals(dirac_dynamics.in_turn(j, step)).abs()
    assert (sizes.max().item() == pytest.approx(1, abs=1e-9)) is stable


def test_with_r1_both_ways_arrive(descents):
    """With steps that leave without it."""
    assert (descents[-1, 2, 0, ::2] > 5 * descents[0, 2, 0, ::2]).all()
    assert (descents[-1, 2, 1] < 1e-3 * descents[0, 2, 1]).all()


def test_from_afar_only_a_game_that_is_not_zero_sum_comes_closer(descents):
    """d/dt ½(θ² + ψ²) = -t tanh(t/2), t = ψθ, for the non-saturating loss, and 0 for the minimax one."""
    minimax, non_saturating = descents[-50:, :2, 0, 3].amax(0)
    assert 0.9 < minimax < 1.2
    assert non_saturating < 0.7


# ---- the experiment ------------------------------------------------------------------------------------------


def test_it_is_one_experiment_of_several_files():
    assert [name for name in available() if name.startswith("dirac")] == ["dirac"]


FEW = {name: LOSSES[name] for name in ("NonSaturating", "RelativisticPairing", "Wasserstein")}
DRAWN = {name: stabilisers()[name] for name in (*dirac_figures.COURSES, "zero-centred GP")}


@pytest.fixture(scope="module")
def experiment():
    return Dirac(lr=0.5)


@pytest.fixture(scope="module")
def numbers(experiment):
    """Of every D, on few losses and stabilisers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dirac, "all_losses", lambda: FEW)
        patch.setattr(dirac, "stabilisers", lambda *given: DRAWN)
        return experiment.run()


@pytest.fixture(scope="module")
def plain():
    """Verdicts on every loss with every stabiliser."""
    return Dirac(lr=0.25).play("plain", PLAIN)[0]


def test_verdicts_are_on_every_component(plain):
    told = [(row["loss"], row["stabiliser"]) for row in plain]
    assert sorted(told) == sorted((loss, with_) for loss in LOSSES for with_ in stabilisers())
    used = {type(penalty) for stabiliser in stabilisers().values() for penalty in stabiliser.penalties}
    assert used == set(dirac_games.components(penalties))
    assert set(LOSSES) == set(losses.__all__) - {"GANLoss"}


def test_verdicts_are_on_every_discriminator(numbers):
    told = [(row["D"], row["loss"], row["stabiliser"]) for row in numbers["verdicts"]]
    assert sorted(told) == sorted((D, loss, with_) for D in DISCRIMINATORS for loss in FEW for with_ in DRAWN)
    refused = {(row["D"], row["loss"]) for row in numbers["verdicts"] if row["flow"] == "no such game"}
    assert refused == {(D, "RelativisticPairing") for D in DISCRIMINATORS if D != "plain"}


WITH_THEORY = {
    *("none", "one-sided GP", "Drift", "R1", "R2", "zero-centred GP", "consensus", "WGAN-GP", "DRAGAN"),
    "instance noise",
}


def test_theory_eigenvalues_and_descents_say_the_same(plain):
    assert {row["stabiliser"] for row in plain} >= WITH_THEORY
    for row in plain:
        if row["loss"] not in KNOWN_SLOPE or row["stabiliser"] not in WITH_THEORY:
            continue
        assert row["theory"] != "not known"
        if row["theory"] == "does not converge":
            assert row["flow"] == "no derivative"
            assert (row["in turn"], row["at once"]) == ("circles", "circles")  # far from the equilibrium, for ever
            continue
        assert row["flow"] == row["in turn"] == row["theory"]
        assert row["at once"] == {"converges": "converges", "circles": "diverges"}[row["flow"]]


def test_descents_follow_the_eigenvalues(plain, numbers):
    """Their verdicts, and the rates of those that do not vanish within rounding."""
    for row in [*plain, *numbers["verdicts"]]:
        for scheme, verdict in row.get("expected", {}).items():
            assert row[scheme] == verdict
            expected = row["expected rates"][scheme]
            if expected > -0.5:
                assert row["rates"][scheme].item() == pytest.approx(expected, abs=0.06)


def test_what_has_no_theory_says_so(monkeypatch):
    @component
    class NewLoss(GANLoss):
        def d(self, real, fake):
            return F.softplus(-2 * real) + F.softplus(2 * fake)

        def g(self, fake, real=None):
            return F.softplus(-2 * fake)

    @component
    class NewPenalty(penalties.Penalty):
        every: int = 1

        def weight(self, nimg):
            return 1.0

        def __call__(self, critic, real, fake):
            return critic(fake.x, fake.y).square().flatten(1).sum(1)

    for module, new in ((losses, NewLoss), (penalties, NewPenalty)):
        monkeypatch.setattr(module, new.__name__, new, raising=False)
        monkeypatch.setattr(module, "__all__", [*module.__all__, new.__name__])
    assert "NewLoss" in all_losses()
    assert stabilisers()["NewPenalty"].penalties == (NewPenalty(),)
    found = eigenvalues(Stabiliser(), chosen={"NewLoss": NewLoss()})
    assert_eigenvalues(found["NewLoss"], 0, 1)
    assert dirac_dynamics.theory("NewLoss", "R1", "plain") == "not known"
    assert dirac_dynamics.theory("Hinge", "NewPenalty", "plain") == "not known"
    assert dirac_dynamics.theory("Hinge", "R1", "SAN, features") == "not known"


def test_equal_settings_find_equal_numbers():
    """Instance noise and the interpolated penalties draw nothing that matters."""
    games = Games(PLAIN, LOSSES.values(), stabilisers().values())
    state = games.equilibrium() + 0.4
    torch.manual_seed(1)
    first = games.field(state)
    torch.manual_seed(2)
    assert_close(games.field(state), first, rtol=0, atol=1e-13)


def test_the_table_has_a_cell_for_every_verdict(experiment, numbers):
    table = experiment.table(numbers)
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert len(table.rows) < 25
    cells = {(row[0], with_) for row in table.rows for with_ in row[2].split(", ")}
    assert cells == {(D, with_) for D in DISCRIMINATORS for with_ in DRAWN}
    assert not any("but eigenvalues" in cell for row in table.rows for cell in row)


def test_a_verdict_that_eigenvalues_do_not_share_shows_in_the_table(experiment, numbers):
    first, *rest = numbers["verdicts"]
    changed = first | {"at once": "converges"}
    rows = experiment.table({"verdicts": [changed, *rest]}).rows
    assert "converges, but eigenvalues: diverges" in [row[-1] for row in rows]


def test_figures(experiment, numbers):
    short = {name: shown | {"path": shown["path"][:10]} for name, shown in numbers["portraits"].items()}
    drawn = experiment.draw({**numbers, "portraits": short})
    assert set(drawn) == {"dirac_portraits", "dirac_eigenvalues", "dirac_distances", "dirac_moving"}
    assert len(short) == len(dirac_figures.TELLING)
    kind, content = encode(drawn["dirac_eigenvalues"])
    assert kind == "png"
    assert len(content) > 10_000
    kind, content = encode(drawn["dirac_moving"])
    assert kind == "webp"
    assert len(content) <= FILM_BYTES
