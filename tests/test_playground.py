"""The playground without its server: what can be chosen, settings as text, what a session does, and its pictures."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
import torch
from loops import loop_over
from tab import SMALL, TINY, decoded
from torch.testing import assert_close

from equipoise.augment import InstanceNoise
from equipoise.config import override
from equipoise.core.grammar import parse
from equipoise.core.schedules import Linear
from equipoise.data import Grid, Line, Points, Ring, SwissRoll
from equipoise.lab.playground import picture as pictures
from equipoise.lab.playground import session as sessions
from equipoise.lab.playground.choices import KNOBS, at, catalogue, goes_on, known
from equipoise.lab.playground.picture import HEAT, encoded, measured, picture, view_of
from equipoise.lab.playground.session import Session
from equipoise.lab.playground.setting import changed, differing, read, shown, text, written
from equipoise.lab.points.gan import PointGAN, plain_gan
from equipoise.lab.points.settings import SETTINGS
from equipoise.losses import (
    R1,
    FeatureMatching,
    LeastSquares,
    NonSaturating,
    RelativisticPairing,
    Saturating,
    Wasserstein,
    penalties,
)
from equipoise.losses import adversarial as losses
from equipoise.metrics import wasserstein
from equipoise.models import Head
from equipoise.rules import Adam, optim
from equipoise.weights import SpectralNorm, constraints, normalizers

# ---- what can be chosen ----------------------------------------------------------------------------------


def offered(path):
    return {option.__name__ for option in next(knob for knob in KNOBS if knob.path == path).options}


@loop_over(
    ("path", "module"),
    [
        ("loss", losses),
        ("d_normalizer", normalizers),
        ("g_normalizer", normalizers),
        ("constraints", constraints),
        ("d_optim", optim),
    ],
)
def test_all_that_the_library_has_is_offered(path, module):
    named = {name for name in module.__all__ if is_dataclass(getattr(module, name))}
    assert offered(path) == named
    assert named


def test_distributions_of_the_plane_are_offered_and_no_others():
    assert offered("data.of") == {"Ring", "Grid", "SwissRoll", "Line"}


def test_every_knob_is_a_field_with_an_explanation():
    cfg = plain_gan()
    for knob in catalogue():
        assert at(cfg, knob["path"]) is not None
        assert knob["title"]
        assert knob["line"].endswith(".")
        for option in knob["options"]:
            assert option["name"] == "" or option["line"].rstrip(")").endswith((".", ":")) or option["line"]


CHOICES = [(knob["path"], knob["many"], option["text"]) for knob in catalogue() for option in knob["options"]]


@pytest.mark.parametrize(("path", "many", "choice"), CHOICES, ids=lambda value: str(value))
def test_every_choice_trains_and_is_drawn(path, many, choice, monkeypatch):
    monkeypatch.setattr(sessions, "PAIRED", 8)
    session = Session()
    san = path == "head.scale"
    assert "error" not in ask(session, "start", setting=f"{SMALL}&head.san={str(san).lower()}")
    reply = ask(session, "set", changes={path: f"[{choice}]" if many else choice})
    assert "error" not in reply
    assert read(reply["setting"]["query"])[1] == session.gan.cfg
    ask(session, "step", iterations=3)
    header, arrays = frame_after(session, 3)
    assert header["iteration"] == 3
    assert header["notice"] == ""
    assert all(value is not None for value in header["stats"].values())
    assert all(np.isfinite(array).all() for array in arrays.values())


def ask(session, do, **said):
    return json.loads(session.hear(json.dumps({"id": 5, "do": do, **said})))


def frame_after(session, iterations):
    """The frame of the moment after so many more iterations."""
    for _ in range(iterations):
        session.train()
    session.hear('{"do": "drawn"}')
    session.frame_due = 0.0
    return decoded(session.frame())


# ---- settings as text ------------------------------------------------------------------------------------

VARIANTS = {
    "all of it": replace(
        plain_gan(),
        data=Points(of=Grid(side=3)),
        loss=NonSaturating(smoothing=0.1),
        terms=(
            R1(gamma=0.5, every=2),
            penalties.GradientPenalty(one_sided=True),
            FeatureMatching(adversarial=False),
        ),
        d_normalizer=SpectralNorm(iterations=2, skip=("head.*",)),
        augment=InstanceNoise(std=Linear(start=0.5, end=0.0, kimg=20.0)),
        d_optim=Adam(lr=Linear(start=1e-3, end=1e-05, kimg=100.0), betas=(0.0, 0.99)),
        seed=7,
    ),
    "nothing": plain_gan(),
    "SAN": replace(plain_gan(), head=Head(san=True, scale="learned", normalize_loss=True), loss=losses.Hinge()),
} | {name: setting() for name, setting in SETTINGS.items()}


@loop_over("name", SETTINGS)
@loop_over("variant", VARIANTS)
def test_an_address_holds_the_setting(name, variant):
    query = written(name, VARIANTS[variant])
    assert read(query) == (name, VARIANTS[variant])
    assert not set(query) & set(" \"'<>#%+\\") - {"%"}  # what an address bar would write in another way
    assert read(query.replace("(", "%28").replace(",", "%2C")) == (name, VARIANTS[variant])


def test_an_address_says_what_differs_and_nothing_else():
    assert written("R1", SETTINGS["R1"]()) == "setting=R1"
    other = override(SETTINGS["SN+SAN"](), {"d_optim.lr": 4e-4, "data.of": Grid(side=3), "terms": (R1(every=1),)})
    assert written("SN+SAN", other) == ("setting=SN%2BSAN&data.of=Grid(side=3)&terms=[R1(every=1)]&d_optim.lr=0.0004")


@loop_over("cfg", VARIANTS.values(), ids=VARIANTS)
def test_every_text_on_the_page_is_the_value(cfg):
    def check(form, value):
        if isinstance(form, list):
            for item, inner in zip(form, value, strict=True):
                check(item, inner)
            return
        assert parse(form["text"], known()) == value
        assert form["name"] == (type(value).__name__ if is_dataclass(value) else "")
        for field in form.get("fields", ()):
            assert parse(field["text"], known()) == getattr(value, field["name"])
        assert [f["name"] for f in form.get("fields", ())] == ([f.name for f in fields(value)] if form["name"] else [])

    on_page = shown(cfg)
    assert list(on_page) == [knob.path for knob in KNOBS]
    for path, form in on_page.items():
        check(form, at(cfg, path))


@loop_over(
    ("query", "message"),
    [
        ("setting=R2D2", "there is no setting 'R2D2'; known: .*R3GAN"),
        ("lose=Hinge", "TrainConfig has no field 'lose'; did you mean 'loss'"),
        ("loss=Hing", r"takes a GANLoss, got 'Hing'; did you mean Hinge\(\)\?"),
        ("loss=Hing()", "unknown component 'Hing'; did you mean 'Hinge'"),
        ("loss", "'loss' says nothing: give FIELD=VALUE"),
        ("d_optim.lr=-1", "d_optim|Adam.lr"),
        ("batch_size=0.5", "TrainConfig.batch_size"),
        ("batch_size=100000", "batch_size=100000 is more than the playground takes, 1024"),
        ("generator.width=4096", "generator.width=4096 is more than"),
        ("data.of=Ring(num=1000000000)", "data.of.num=1000000000 is more than"),
        ("d_steps=ToConvergence", "d_steps.max_steps=500 is more than the playground takes, 100"),
        ("d_normalizer=SpectralNorm(iterations=100000)", "d_normalizer.iterations=100000 is more"),
        ("terms=[R1,R1,R1,R1,R1,R1,R1]", "terms holds 7 terms, and the playground takes 6"),
        ("data.of=Dirac", "Dirac.* has points on a line"),
        ("data=Digits", "TrainConfig.data: expected a data set or a path that exists, and 'Digits' is neither"),
        ('data=Images(path="/etc")', "unknown component 'Images'"),
        ("augment=ADA()", "unknown component 'ADA'"),
        ("seed=__import__('os').getpid()", "cannot read"),
        ("head.san=true&loss=RelativisticPairing", "has no direction loss for the paired loss"),
        ("head.san=true&terms=[Consensus]", "do not go together"),
        ("constraints=[ClipWeights]&d_normalizer=SpectralNorm", "there is nothing to project"),
        (f"seed={'1' * 5000}", "too long"),
        ("compute.compile=true", r"the playground cannot change compute\.compile: give one of its knobs, data\.of, "),
        ("loss=Hinge&compute.micro_batch=8", r"the playground cannot change compute\.micro_batch: "),
        ("data=Points", "the playground cannot change data: "),
        ("ema.rampup=none", r"the playground cannot change ema\.rampup: "),
        ("generator.output=tanh", r"the playground cannot change generator\.output: "),
    ],
)
def test_a_setting_that_is_none_is_refused_with_the_reason(query, message):
    with pytest.raises(ValueError, match=message):
        read(query)


# ---- a session -------------------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def session(monkeypatch):
    monkeypatch.setattr(sessions, "PAIRED", 16)
    made = Session(clock=Clock())
    made.start("minimax", TINY)
    return made


def run(session, iterations, *, watched=False):
    """Samples after so many iterations, with or without a frame after each."""
    ask(session, "step", iterations=iterations)
    for _ in range(iterations):
        session.train()
        if watched:
            frame_after(session, 0)
    return session.gan.samples(50)


WATCHED = replace(
    TINY,
    d_normalizer=SpectralNorm(),
    augment=InstanceNoise(std=0.3),
    terms=(penalties.Dragan(), FeatureMatching()),
)


@pytest.mark.parametrize("cfg", [TINY, WATCHED], ids=["plain", "with all that draws or remembers"])
def test_watching_changes_nothing(session, cfg):
    """A frame in training mode would move singular vectors; one that draws from torch's generator, the next draws."""
    session.start("minimax", cfg)
    alone = PointGAN(cfg)
    for _ in range(6):
        alone.iterate()
    random = torch.get_rng_state()
    assert torch.equal(run(session, 6, watched=True), alone.samples(50))
    assert torch.equal(torch.get_rng_state(), random)
    assert session.gan.gan.D.training


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("loss", "Hinge"),
        ("d_optim.lr", "0.01"),
        ("g_optim.eps", "0.1"),
        ("ema.halflife_kimg", "0.0"),
        ("data.of.num", "3"),
        ("terms", "[R1(every=1)]"),
        ("batch_size", "24"),
        ("d_steps", "3"),
        ("augment", "InstanceNoise"),
        ("constraints", "[ClipWeights]"),
    ],
)
def test_a_change_on_the_way_goes_on_with_the_networks_as_they_are(session, path, value):
    alone, unchanged = PointGAN(TINY), PointGAN(TINY)
    run(session, 3)
    reply = ask(session, "set", changes={path: value})
    assert reply["anew"] == []
    assert reply["changed"] == [f"{path}={value}"]
    assert (reply["run"], reply["iteration"]) == (session.run, 3)
    for gan in (alone, unchanged):
        for _ in range(3):
            gan.iterate()
    alone.change(changed(TINY, {path: value}))
    for gan in (alone, unchanged):
        for _ in range(3):
            gan.iterate()
    assert torch.equal(run(session, 3), alone.samples(50))
    assert not torch.equal(alone.samples(50), unchanged.samples(50))
    assert session.iteration == 6


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("generator.width", "9"),
        ("head.san", "true"),
        ("d_normalizer", "SpectralNorm"),
        ("seed", "1"),
        ("d_optim", "RMSprop"),
    ],
)
def test_what_is_made_with_the_networks_starts_anew_and_says_so(session, path, value):
    run(session, 2)
    before = session.run
    reply = ask(session, "set", changes={path: value})
    assert reply["anew"] == [path]
    assert (reply["run"], reply["iteration"]) == (before + 1, 0)
    cfg = changed(TINY, {path: value})
    alone = PointGAN(cfg)
    alone.iterate()
    assert torch.equal(run(session, 1), alone.samples(50))


def test_the_page_marks_the_knobs_that_start_anew():
    marked = {knob["path"] for knob in catalogue() if not knob["goes_on"]}
    assert marked == {
        *("head.san", "head.scale", "head.normalize_loss", "d_normalizer", "g_normalizer"),
        *("seed", "d_optim", "g_optim"),
        *("discriminator.width", "discriminator.depth"),
        *("generator.width", "generator.depth", "generator.z_dim"),
    }
    assert goes_on("terms")
    assert goes_on("d_optim.lr")
    assert not goes_on("head")


def test_playing_goes_on_through_a_new_start_and_ends_with_a_reset(session):
    assert ask(session, "play")["playing"]
    assert ask(session, "set", changes={"seed": "3"})["playing"]
    session.train()
    assert session.iteration == 1
    reply = ask(session, "reset")
    assert (reply["playing"], reply["iteration"]) == (False, 0)
    session.train()
    assert session.iteration == 0
    assert torch.equal(session.gan.samples(5), PointGAN(replace(TINY, seed=3)).samples(5))


def test_pause_and_step(session):
    ask(session, "play")
    session.train()
    assert not ask(session, "pause")["playing"]
    session.train()
    assert session.iteration == 1
    assert session.patience() == 0.0  # a frame is due
    frame_after(session, 0)
    assert session.patience() is None  # nothing to do before the next message
    ask(session, "step", iterations=2)
    for _ in range(5):
        session.train()
    assert session.iteration == 3
    assert not ask(session, "pause")["playing"]


def test_what_was_asked_shows_in_a_frame_even_if_nothing_was_trained(session):
    """A frame that was on its way says otherwise, and the page believes the last one."""
    frame_after(session, 0)
    ask(session, "play")
    assert frame_after(session, 0)[0]["playing"]
    ask(session, "pause")
    assert not frame_after(session, 0)[0]["playing"]


def test_pace(session):
    ask(session, "pace", per_second=10)
    ask(session, "play")
    session.train()
    session.clock.now = 0.05
    session.train()
    assert session.iteration == 1
    session.awaited = False
    assert session.patience() == pytest.approx(0.05)
    session.clock.now = 0.11
    session.train()
    assert session.iteration == 2
    ask(session, "pace", per_second=None)
    session.train()
    session.train()
    assert session.iteration == 4


def test_there_is_never_a_second_frame_before_the_first_is_drawn(session):
    assert session.frame() is not None
    ask(session, "play")
    for _ in range(3):
        session.clock.now += 1
        session.train()
        assert session.frame() is None
    assert session.patience() == 0.0  # it trains on meanwhile
    session.hear('{"do": "drawn"}')
    header, _ = decoded(session.frame())
    assert header["iteration"] == 3


def test_frames_come_no_faster_than_they_should(session):
    session.frame()
    session.hear('{"do": "drawn"}')
    ask(session, "play")
    session.train()
    assert session.frame() is None
    session.clock.now += 1 / sessions.FRAMES_PER_S + 1e-6
    assert session.frame() is not None


def test_statistics_are_means_since_the_last_frame(session):
    frame_after(session, 0)
    alone = PointGAN(TINY)
    stats = [alone.iterate() for _ in range(5)]
    ask(session, "step", iterations=5)
    first, second = frame_after(session, 2)[0]["stats"], frame_after(session, 3)[0]["stats"]
    for name in ("D/loss", "G/loss", "D/real"):
        assert first[name] == pytest.approx(np.mean([s[name] for s in stats[:2]]), rel=1e-12)
        assert second[name] == pytest.approx(np.mean([s[name] for s in stats[2:]]), rel=1e-12)


def test_a_penalty_counts_in_the_iterations_that_have_it(session):
    ask(session, "set", changes={"terms": "[R1(every=4)]", "d_steps": "1"})
    frame_after(session, 0)
    alone = PointGAN(session.gan.cfg)
    found = [alone.iterate().get("D/R1") for _ in range(6)]
    assert [value is None for value in found] == [False, True, True, True, False, True]
    ask(session, "step", iterations=6)
    assert frame_after(session, 6)[0]["stats"]["D/R1"] == pytest.approx((found[0] + found[4]) / 2, rel=1e-12)


def test_the_real_points_are_sent_once_and_again_when_they_change(session):
    _, arrays = frame_after(session, 0)
    session.fresh = True
    assert "real" not in frame_after(session, 0)[1]
    ask(session, "set", changes={"data.of": "Grid(side=3)"})
    header, others = frame_after(session, 0)
    assert others["real"].shape == arrays["real"].shape
    assert np.abs(others["real"]).max() < 2.3 < np.abs(header["view"]).max()  # three points, 2 apart, and room around


def test_a_setting_that_is_refused_leaves_all_as_it_was(session):
    run(session, 2)
    before, samples = ask(session, "pause")["setting"], session.gan.samples(20)
    for do, said in (
        ("set", {"changes": {"loss": "Hing"}}),
        ("set", {"changes": {"batch_size": "5000"}}),
        ("set", {"changes": {"augment": "ADA()"}}),
        ("set", {"changes": {"head.conditioning": "Projection"}}),
        ("set", {"changes": {"data.of.radius": "1e39"}}),
        ("set", {"changes": {"data.of.radius": "1e39", "seed": "2"}}),
        ("set", {"changes": {"d_normalizer": "SpectralNorm(skip=['nobody'])"}}),
        ("choose", {"setting": "R2D2"}),
        ("start", {"setting": "loss=Hing"}),
    ):
        reply = ask(session, do, **said)
        assert reply["error"]
        assert reply["setting"] == before
        assert reply["iteration"] == 2
        assert torch.equal(session.gan.samples(20), samples)


@pytest.mark.parametrize(
    "message",
    [
        "",
        "null",
        "[1]",
        "{}",
        '{"do": "fly"}',
        '{"do": "step", "iterations": 0}',
        '{"do": "step", "iterations": 1000000}',
        '{"do": "step", "iterations": "1"}',
        '{"do": "set", "changes": {"seed": 1}}',
        '{"do": "set", "changes": []}',
        '{"do": "pace", "per_second": 0}',
        '{"do": "step", "iterations": true}',
        '{"do": "step", "iterations": 1.0}',
        '{"do": "step", "iterations": NaN}',
        '{"do": "pace", "per_second": NaN}',
        '{"do": "pace", "per_second": Infinity}',
        '{"do": "pace", "per_second": true}',
        '{"do": "pace", "per_second": [1]}',
        '{"do": "start"}',
        "[" * 10000,
    ],
)
def test_what_is_no_message_is_answered_with_an_error(session, message):
    reply = json.loads(session.hear(message))
    assert reply["error"].startswith("the playground does not understand")
    assert reply["id"] is None or message.startswith("{")


@pytest.mark.parametrize("given", ["true", "NaN", "1.5", "[1]", '{"a": 1}', "[" * 900 + "]" * 900])
def test_a_reply_repeats_an_id_that_is_an_integer_or_text_and_no_other(session, given):
    """NaN is no JSON for a browser."""
    reply = session.hear(f'{{"id": {given}, "do": "pause"}}')
    assert json.loads(reply, parse_constant=pytest.fail)["id"] is None
    assert ask(session, "pause")["id"] == 5
    assert json.loads(session.hear('{"id": "five", "do": "pause"}'))["id"] == "five"


@pytest.mark.parametrize("value", ["-" * 3000 + "1", "R1(" * 800 + ")" * 800, "[" * 150 + "]" * 150])
def test_what_is_nested_too_deeply_is_refused(session, value):
    assert ask(session, "set", changes={"terms": value})["error"]
    assert session.gan.cfg == TINY


def test_another_setting_keeps_data_networks_and_optimisers_and_drops_the_rest(session):
    ask(
        session,
        "set",
        changes={"data.of": "Grid(side=3)", "augment": "InstanceNoise", "terms": "[Consensus]"},
    )
    assert "error" in ask(session, "set", changes={"head.san": "true"})
    reply = ask(session, "choose", setting="SN+SAN")
    assert reply["anew"] == ["head.san", "d_normalizer"]
    assert session.gan.cfg == SETTINGS["SN+SAN"](replace(TINY, data=Points(of=Grid(side=3))))
    assert reply["setting"]["name"] == "SN+SAN"
    run(session, 2)
    assert ask(session, "choose", setting="SN+SAN")["anew"] == []
    ask(session, "start", setting=SMALL)
    run(session, 2)
    reply = ask(session, "choose", setting="R1")  # a stabiliser for a GAN that is under way
    assert (reply["anew"], reply["iteration"], reply["setting"]["name"]) == ([], 2, "R1")
    assert read(reply["setting"]["query"]) == ("R1", session.gan.cfg)


@pytest.mark.parametrize("normalizer", ["NoNormalizer", "ExactSpectralNorm"])
def test_training_that_diverges_stops_and_says_so(session, normalizer):
    ask(session, "set", changes={"loss": "Wasserstein", "d_optim.lr": "1e+30", "d_normalizer": normalizer})
    ask(session, "play")
    header, _ = frame_after(session, 8)
    assert not header["playing"]
    assert header["notice"].startswith("Training ")
    assert header["iteration"] < 8
    assert ask(session, "play")["playing"]
    assert frame_after(session, 1)[0]["notice"].startswith("Training ")
    ask(session, "reset")
    assert frame_after(session, 0)[0]["notice"] == ""


def test_a_number_that_json_has_no_form_for_is_null(session):
    ask(session, "set", changes={"d_optim.lr": "1e+30"})
    ask(session, "play")
    assert None in frame_after(session, 8)[0]["stats"].values()


@pytest.mark.parametrize("normalizer", ["SpectralNorm", "ExactSpectralNorm"])
def test_a_network_that_is_broken_can_be_drawn(session, normalizer):
    ask(session, "set", changes={"d_normalizer": normalizer})
    for weight in session.gan.gan.D.parameters():
        weight.fill_(math.nan)
    assert np.isnan(frame_after(session, 0)[1]["heat"]).all()


def test_an_iteration_that_fails_stops_training_and_says_why(session, monkeypatch):
    def fail(self):
        raise torch.linalg.LinAlgError("the algorithm failed to converge")

    monkeypatch.setattr(PointGAN, "iterate", fail)
    ask(session, "play")
    header, _ = frame_after(session, 1)
    assert header["notice"] == "Training stopped: the algorithm failed to converge"
    assert not header["playing"]


def test_what_voids_a_guarantee_is_noted(session):
    notes = ask(session, "set", changes={"loss": "Wasserstein"})["setting"]["notes"]
    assert len(notes) == 1
    assert "nothing bounds D's Lipschitz constant" in notes[0]
    assert ask(session, "set", changes={"terms": "[GradientPenalty]"})["setting"]["notes"] == []


def test_the_distance_comes_now_and_then_and_is_exact(session):
    header, arrays = frame_after(session, 0)
    n = sessions.PAIRED
    points, real = (torch.from_numpy(arrays[name].copy())[:n] for name in ("points", "real"))
    assert header["measures"]["wasserstein"] == pytest.approx(wasserstein(points, real), rel=1e-6)
    ask(session, "step", iterations=3)
    session.clock.now += 0.5
    assert "wasserstein" not in frame_after(session, 1)[0]["measures"]
    session.clock.now += 0.6
    assert "wasserstein" in frame_after(session, 1)[0]["measures"]
    real = [Ring().sample(pictures.SHOWN, sessions.stream(seed, sessions.Purpose.POINTS))[:n] for seed in (0, 1)]
    assert header["measures"]["floor"] == pytest.approx(wasserstein(*real))


# ---- pictures --------------------------------------------------------------------------------------------


def slopes(gan, x):
    """D's logit and gradient at x."""
    x = x.clone().requires_grad_(True)
    value = gan.value(x)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach()[:, None], gradient


@pytest.mark.filterwarnings("ignore:nothing bounds D's Lipschitz constant")
@pytest.mark.parametrize(
    ("loss", "factor"),
    [
        (Saturating(), torch.sigmoid),
        (NonSaturating(), lambda t: torch.sigmoid(-t)),
        (Wasserstein(), torch.ones_like),
        (LeastSquares(), lambda t: 1 - t),
    ],
    ids=["saturating", "non-saturating", "Wasserstein", "least squares"],
)
def test_the_push_is_minus_the_gradient_of_a_points_own_loss(loss, factor):
    gan = PointGAN(replace(TINY, loss=loss))
    for _ in range(3):
        gan.iterate()
    found = picture(gan, view_of(Ring()))
    value, gradient = slopes(gan, found["points"])
    assert_close(found["pushes"], factor(value) * gradient, rtol=1e-4, atol=1e-7)


def test_the_push_of_a_paired_loss_compares_with_real_points():
    gan = PointGAN(replace(TINY, loss=RelativisticPairing()))
    gan.iterate()
    found = picture(gan, view_of(Ring()))
    real = gan.distribution.sample(pictures.SHOWN, sessions.stream(0, sessions.Purpose.POINTS))
    value, gradient = slopes(gan, found["points"])
    push = torch.sigmoid(gan.value(real)[:, None].detach() - value) * gradient
    assert_close(found["pushes"], push, rtol=1e-4, atol=1e-7)


def test_two_pictures_of_one_gan_are_equal():
    """Noise that D sees stands still, or the arrows would tremble."""
    gan = PointGAN(replace(TINY, augment=InstanceNoise(std=1.0)))
    first = picture(gan, view_of(Ring()))
    torch.rand(3)
    for name, array in picture(gan, view_of(Ring())).items():
        assert torch.equal(array, first[name])


def test_the_heat_map_goes_row_by_row_from_the_bottom():
    gan = PointGAN(TINY)
    view = (-1.0, 3.0, -2.0, 2.0)
    heat = picture(gan, view)["heat"]
    assert heat.shape == (HEAT, HEAT)
    cell = 4 / HEAT
    for row, column in ((0, 0), (0, HEAT - 1), (7, 20)):
        middle = torch.tensor([[-1 + (column + 0.5) * cell, -2 + (row + 0.5) * cell]])
        assert_close(heat[row, column], gan.value(middle)[0].detach())


@loop_over("of", [Ring(), Grid(), SwissRoll(), Line(theta=3.0), Ring(num=1, std=1e-3)], ids=repr)
def test_the_view_is_a_square_around_the_points(of):
    left, right, bottom, top = view_of(of)
    assert right - left == pytest.approx(top - bottom)
    points = of.sample(1000, torch.Generator().manual_seed(3))
    inside = (points > torch.tensor([left, bottom])).all(1) & (points < torch.tensor([right, top])).all(1)
    assert inside.float().mean() > 0.99
    assert (right - left) < 2 * (points.amax(0) - points.amin(0)).max() + 0.01


def test_measures_are_those_of_the_toy_data():
    gan = PointGAN(TINY)
    gan.samples = lambda num: Ring().modes[:2].float().repeat(num // 2, 1)
    found = measured(gan)
    assert (found["modes"], found["of"], found["high_quality"]) == (2, 8, 1.0)
    assert found["kl"] == pytest.approx(math.log(4))
    assert measured(PointGAN(replace(TINY, data=Points(of=SwissRoll())))) == {}


def test_a_frame_is_what_it_was_made_of():
    for title in ("", "ä", "abc", "€"):  # headers of all lengths
        header, arrays = decoded(
            encoded(
                {"title": title, "nan": math.nan, "inner": {"inf": -math.inf, "one": 1.5}},
                {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([math.nan, 1.0])},
            )
        )
        assert (header["title"], header["nan"], header["inner"]) == (title, None, {"inf": None, "one": 1.5})
        np.testing.assert_array_equal(arrays["a"], [[0, 1, 2], [3, 4, 5]])
        np.testing.assert_array_equal(arrays["b"], [math.nan, 1])


def test_text_leaves_out_what_is_as_by_default():
    assert text(R1()) == "R1"
    assert text((R1(gamma=1.0), None, True)) == "[R1(gamma=1.0),none,true]"
    words = ("learned", "none", "True", "if", "Ring", "body.0", "a b", "")
    assert text(words) == "[learned,'none','True','if','Ring','body.0','a b','']"
    assert parse(text(words), known()) == words
    assert list(differing(R1(), R1(every=1))) == [("every", 1)]
