"""What an evaluation asks of a run's discriminator: the numbers by hand, what is refused, and a run left as it was."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from commands import run
from held import Held
from loops import loop_over
from processes import on_two_processes
from runs import assert_same_run, lines, newest, saved
from safetensors.torch import load_file, save_file
from tiny import recipe
from torch import nn

from equipoise.config import override
from equipoise.core.types import ImageSpec, RunError
from equipoise.data import Digits, Few
from equipoise.evaluate import TrainedDiscriminator, evaluate, rebuild, sources
from equipoise.features import FeatureNet
from equipoise.generate import Generator
from equipoise.losses import Wasserstein
from equipoise.metrics import linear_svm
from equipoise.metrics.critic import Critic
from equipoise.metrics.probe import Probe, scaled
from equipoise.metrics.registry import parse_metrics
from equipoise.models import Auxiliary, DCGANDiscriminator, Head, Hidden, Input, MLPDiscriminator, PerClass, Projection
from equipoise.rules import Evaluate, ProgressiveGrowing
from equipoise.train import GAN, Evaluations, train
from equipoise.weights import NoNormalizer, SpectralNorm

N, M = 45, 150  # no multiples of the batch size, 8
SPEC = ImageSpec(28, 1, 10)
SMALL = "probe(train=80,validation=30,test=40,C=[1.0,0.01])"


def wasserstein(**changes):
    """The tiny recipe with a critic that spectral norm bounds; conditional, by projection."""
    return dataclasses.replace(
        recipe(), **{"loss": Wasserstein(), "head": Head(Projection()), "d_normalizer": SpectralNorm()} | changes
    )


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    train(wasserstein(), run_dir)
    return run_dir


@pytest.fixture(scope="module")
def real():
    """uint8 (M, 28, 28, 1) and classes (M,)."""
    data = Digits().build()
    return data.read(np.arange(M)).transpose(0, 2, 3, 1), data.labels[:M]


@pytest.fixture(scope="module")
def files(tmp_path_factory, real):
    folder = tmp_path_factory.mktemp("sets")
    np.savez(folder / "real.npz", x=real[0], y=real[1])
    np.savez(folder / "unlabelled.npz", x=real[0])
    np.savez(folder / "larger.npz", x=real[0].repeat(2, axis=1).repeat(2, axis=2), y=real[1])
    np.savez(folder / "two.npz", x=real[0], y=real[1] % 2)
    return folder


def asked(images, against, names, **settings):
    return evaluate(images, against, metrics=names, features="digits", **({"num": N} | settings))


def floats(images):
    """Bytes (n, H, W, C) as D sees them, (n, C, H, W)."""
    return torch.from_numpy(images.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)


def by_hand(cfg, weights):
    """The D that the trainer builds, with these weights, in eval mode."""
    D = GAN.build(cfg, SPEC).D
    D.load_state_dict(weights)
    return D.eval()


def maps(D, x):
    """The maps of the convolutions of a body that is a chain, in 4x4 maxima, (n, F)."""
    found = []
    for layer in D.body:
        x = layer(x)
        if isinstance(layer, nn.Conv2d):
            found.append(F.adaptive_max_pool2d(x, min(4, x.shape[-1])).flatten(1).double().numpy())
            x = x.clone()  # the activation that follows works in place
    return np.concatenate(found, axis=1)


def expected_distance(D, generator, real, num):
    """mean D(x, y) - mean D(G(z, y), y) and its standard error, in float64."""
    fake, asked_for = generator.sample(num), torch.arange(num) % 10
    with torch.no_grad():
        on_real, on_fake = D(floats(real[0]), torch.from_numpy(real[1])).fun, D(floats(fake), asked_for).fun
    values = [scores.double().numpy()[:, 0] for scores in (on_real, on_fake)]
    error = math.sqrt(sum(v.var(ddof=1) / len(v) for v in values))
    return values[0].mean() - values[1].mean(), error


def fresh(cfg):
    """The D that a run of `cfg` starts with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the trainer's, that nothing bounds this D
        return rebuild(cfg, SPEC, GAN.build(cfg, SPEC).D.state_dict(), 0, "cpu")


def contents(folder):
    """Every file of a run, by what is in it."""
    return {path: hashlib.sha256(path.read_bytes()).digest() for path in folder.rglob("*") if path.is_file()}


# ---- the critic --------------------------------------------------------------------------------------------------


def test_the_critic_s_estimate_is_the_difference_of_its_mean_logits(trained, files, real):
    found = asked(trained, files / "real.npz", "critic")
    number = found.numbers["wasserstein"]
    D = by_hand(wasserstein(), saved(trained, "D"))
    value, error = expected_distance(D, Generator.from_pretrained(trained), real, N)
    assert number.value == pytest.approx(value, rel=1e-4)
    assert number.spread == pytest.approx(error, rel=1e-4)
    assert found.report["metrics"]["critic"]["chosen"]["nimg"] == 160
    assert number.value > 5 * number.spread  # a D of twenty steps tells digits from noise, and real is the higher


def test_images_are_seen_in_the_detail_that_they_were_shown_in(real):
    """At lod 1, real images are 2x2 squares of their means; generated ones are drawn so, and stay as they are."""
    growth = ProgressiveGrowing(initial=14, stable_kimg=1, fade_kimg=1)
    D = dataclasses.replace(fresh(wasserstein()), config=wasserstein(growth=growth), nimg=500)
    assert D.lod == 1
    x, y = real
    squares = F.avg_pool2d(floats(x), 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    with torch.no_grad():
        on_real, on_fake = D.net(squares, torch.from_numpy(y)).fun.mean(), D.net(floats(x), torch.from_numpy(y)).fun
    fake = dataclasses.replace(samples(x, y), discriminator=D)
    found = Critic()(fake, samples(x, y), 0).numbers["wasserstein"]
    assert found.value == pytest.approx(float(on_real - on_fake.mean()), rel=1e-3)
    assert abs(found.value) > 1e-4


def samples(x, y):
    return Held(pixels=x, labels=y, num_classes=10)


def of_body(body, head):
    """A `TrainedDiscriminator` of these parts."""
    D = fresh(wasserstein(d_normalizer=NoNormalizer()))
    D.net.body, D.net.head = body, head
    return D


@loop_over(
    "head",
    [
        Head(),
        Head(Projection()),
        Head(PerClass(), san=True),
        Head(Projection(), san=True, scale="learned"),
        Head(Auxiliary()),
    ],
)
def test_a_bound_of_the_critic_s_lipschitz_constant(head):
    """Of linear layers: the product of the spectral norms and the longest w(y); no pair of points exceeds it."""
    first, second = nn.Linear(784, 9, dtype=torch.float64), nn.Linear(9, 5, dtype=torch.float64)
    D = of_body(nn.Sequential(nn.Flatten(), first, nn.ReLU(), second), head.factory(10)(5).double())
    x = torch.randn(200, 1, 28, 28, dtype=torch.float64)
    near = x + 1e-3 * torch.randn_like(x)
    slopes, lengths = [], []
    with torch.no_grad():
        for c in range(10):
            y = torch.full((200,), c)
            slopes.append(
                ((D.net(x, y).fun - D.net(near, y).fun).abs()[:, 0] / (x - near).flatten(1).norm(dim=1)).max()
            )
            basis = torch.eye(5, dtype=torch.float64)
            last = D.net.head(basis, y[:5]).fun - D.net.head(0 * basis, y[:5]).fun  # w(y), one entry a row
            lengths.append(last.norm())
        product = np.prod([np.linalg.svd(layer.weight.numpy())[1][0] for layer in (first, second)])
    assert D.lipschitz == pytest.approx(product * float(max(lengths)), rel=1e-6)
    assert max(slopes) <= D.lipschitz


def test_no_bound_is_told_where_none_is_known():
    chain = nn.Sequential(nn.Flatten(), nn.Linear(784, 5))
    normed = nn.Sequential(nn.Flatten(), nn.LayerNorm(784), nn.Linear(784, 5))
    assert of_body(chain, Head().factory(10)(5)).lipschitz is not None
    assert of_body(normed, Head().factory(10)(5)).lipschitz is None
    assert of_body(chain, Head(Hidden()).factory(10)(5)).lipschitz is None
    assert of_body(chain, nn.Linear(5, 1)).lipschitz is None


def test_the_bound_is_told_in_the_report(trained, files):
    chosen = asked(trained, files / "real.npz", "critic").report["metrics"]["critic"]["chosen"]
    D = by_hand(wasserstein(), saved(trained, "D"))
    x = torch.randn(100, 1, 28, 28).requires_grad_()
    (slope,) = torch.autograd.grad(D(x, torch.arange(100) % 10).fun.sum(), x)
    assert slope.flatten(1).norm(dim=1).max() <= chosen["lipschitz_bound"] < 1000
    assert chosen["real"] == M


# ---- the probe ---------------------------------------------------------------------------------------------------


def test_the_probe_is_an_svm_on_the_pooled_maps(trained, files, real):
    found = asked(trained, files / "real.npz", SMALL, seed=3)
    number, chosen = found.numbers["probe"], found.report["metrics"]["probe"]["chosen"]
    rows = np.random.default_rng(3).permutation(M)
    fit, validation, test = rows[:80], rows[80:110], rows[110:150]
    untrained = rebuild(wasserstein(), SPEC, saved(trained, "D"), 0, "cpu").untrained
    for D, accuracy, C in (
        (by_hand(wasserstein(), saved(trained, "D")), number.value, chosen["C"]),
        (untrained, number.real, chosen["C_untrained"]),
    ):
        features = maps(D, floats(real[0]))
        x = (features - features[fit].mean(0)) / features[fit].std(0) / math.sqrt(features.shape[1])
        fits = {c: linear_svm(x[fit], real[1][fit], C=c) for c in (1.0, 0.01)}
        right = {c: svm.accuracy(x[validation], real[1][validation]) for c, svm in fits.items()}
        assert max(right, key=right.__getitem__) == C
        assert accuracy == fits[C].accuracy(x[test], real[1][test])
    assert number.value > 0.3
    assert number.spread == pytest.approx(math.sqrt(number.value * (1 - number.value) / 40))
    assert found.report["metrics"]["probe"]["beside"] == "an untrained D"


def test_no_image_that_is_measured_is_learned_from(real):
    """Of classes drawn by lot nothing can be known, however well those of the training images are learned."""
    D = fresh(wasserstein())
    x, y = Digits().build().read(np.arange(500)).transpose(0, 2, 3, 1), np.random.default_rng(0).integers(0, 10, 500)
    fake = dataclasses.replace(samples(*real), discriminator=D)
    found = Probe(train=150, validation=1, test=349, C=(1.0,))(fake, samples(x, y), 0).numbers["probe"]
    assert 0.03 < found.value < 0.17  # 0.1 ± 4.5 standard errors
    assert 0.03 < found.real < 0.17
    truth = Digits().build().labels[:500]
    known = Probe(train=150, validation=1, test=349, C=(1.0,))(fake, samples(x, truth), 0).numbers["probe"]
    assert known.value > 0.7


def test_the_better_c_on_validation_images_is_taken_not_the_first(real):
    D = fresh(wasserstein())
    fake = dataclasses.replace(samples(*real), discriminator=D)
    for order in ((1e-6, 1.0), (1.0, 1e-6)):
        chosen = Probe(train=80, validation=30, test=40, C=order)(fake, samples(*real), 0).chosen
        assert chosen["C"] == chosen["C_untrained"] == 1.0


def test_features_are_scaled_by_the_images_that_are_fitted_on():
    rng = np.random.default_rng(0)
    x = rng.normal(5, [1e-6, 1, 100], (50, 3))
    x = np.column_stack([x, np.full(50, 0.1), 1 + 1e-7 * rng.random(50)])
    x[40:] += 7
    found = scaled(x, 40)
    np.testing.assert_allclose(found[:40].mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(found[:40].std(0), [0, 3**-0.5 * 0 + 2**-0.5, 2**-0.5, 0, 0], rtol=1e-9)
    np.testing.assert_allclose(found[40:, 1], (x[40:, 1] - x[:40, 1].mean()) / x[:40, 1].std() / 2**0.5)
    assert not found[:, [0, 3, 4]].any()  # within rounding of what they are in all images
    assert not scaled(np.ones((5, 2)), 3).any()


def test_batch_norm_runs_on_its_running_statistics_and_the_head_s_class_is_not_seen(real):
    """In eval mode an image's features are its own, whatever its batch mates; projection reads y after them."""
    cfg = wasserstein(discriminator=DCGANDiscriminator(width=4, norm="batch"), d_normalizer=NoNormalizer())
    weights = fresh(cfg).net.state_dict()
    weights = {name: w + 0.3 * torch.rand_like(w) if w.is_floating_point() else w for name, w in weights.items()}
    D = rebuild(cfg, SPEC, weights, 0, "cpu")
    x = real[0][:21]
    np.testing.assert_allclose(D.features(x)[3:4], D.features(x[3:4]), rtol=1e-5, atol=1e-5)
    assert np.abs(D.features(x) - D.features(x, trained=False)).max() > 0.1
    assert torch.equal(D.net.state_dict()["body.3.running_mean"], weights["body.3.running_mean"])


def test_layers_that_compare_the_images_of_a_batch_get_whole_batches(real):
    cfg = wasserstein(
        discriminator=DCGANDiscriminator(width=4, norm="none", minibatch="std"),
        d_normalizer=NoNormalizer(),
    )
    D = fresh(cfg)
    x, y = real[0][:13], real[1][:13]  # 8 and 5, which the first 3 fill up
    with torch.no_grad():
        rows = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 1, 2]
        expected = torch.cat([D.net(floats(x[r]), torch.from_numpy(y[r])).fun for r in (rows[:8], rows[8:])])[:13, 0]
    torch.testing.assert_close(D.logits(x, y), expected.double(), rtol=1e-5, atol=1e-6)
    assert D.features(x[:3]).shape[0] == 3


# ---- what is not computed ----------------------------------------------------------------------------------------


def test_no_feature_network_is_built_or_called_for_the_discriminator(files, trained, monkeypatch):
    """And for the probe, which has nothing to do with generated images, none is drawn."""
    expected = asked(trained, files / "real.npz", f"{SMALL},critic,frechet").numbers
    refuses(monkeypatch)
    monkeypatch.setattr("equipoise.evaluate.evaluator.feature_net", lambda *_, **__: pytest.fail("it is built"))
    found = asked(trained, files / "real.npz", f"{SMALL},critic")
    assert found.numbers == {name: expected[name] for name in ("probe", "wasserstein")}
    assert found.report["features"] is None
    monkeypatch.setattr(sources, "images", lambda *_: pytest.fail("an image is drawn"))
    assert asked(trained, files / "real.npz", SMALL).numbers["probe"] == expected["probe"]


# ---- the run -----------------------------------------------------------------------------------------------------


def test_a_run_is_left_as_it_was_and_a_damaged_checkpoint_is_passed_over(files, real, tmp_path, capsys):
    run_dir = tmp_path / "run"
    train(wasserstein(), run_dir)
    last = newest(run_dir)
    (last / "D.safetensors").write_bytes(b"broken")
    before = contents(run_dir)
    found = asked(run_dir, files / "real.npz", "critic," + SMALL)
    assert contents(run_dir) == before
    assert "is damaged" in capsys.readouterr().err
    older = sorted((run_dir / "checkpoints").iterdir())[-2]
    assert found.report["metrics"]["critic"]["chosen"]["nimg"] == int(older.name) < int(last.name)
    D = by_hand(wasserstein(), load_file(older / "D.safetensors"))
    value, _ = expected_distance(D, Generator.from_pretrained(run_dir), real, N)
    assert found.numbers["wasserstein"].value == pytest.approx(value, rel=1e-4)

    (older / "D.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"checkpoints holds no intact checkpoint to take the discriminator from"):
        asked(run_dir, files / "real.npz", "critic")


def test_a_checkpoint_that_does_not_fit_its_config_or_holds_nan(files, tmp_path):
    run_dir = tmp_path / "run"
    train(wasserstein(total_kimg=0.04), run_dir)
    text = (run_dir / "config.txt").read_text()
    discriminator = "discriminator=SANDigitsDiscriminator(width="
    (run_dir / "config.txt").write_text(text.replace(f"{discriminator}2", f"{discriminator}3"))
    with pytest.raises(ValueError, match="does not fit its config, whose code has changed since"):
        asked(run_dir, files / "real.npz", "critic")
    (run_dir / "config.txt").write_text(text)

    path = newest(run_dir) / "D.safetensors"
    save_file({name: torch.full_like(w, math.nan) for name, w in load_file(path).items()}, path)
    manifest = json.loads((newest(run_dir) / "manifest.json").read_text())
    manifest["D.safetensors"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (newest(run_dir) / "manifest.json").write_text(json.dumps(manifest))
    for names, what in (("critic", "logits"), (SMALL, "features")):
        with pytest.raises(ValueError, match=f"answers with {what} that are NaN or Inf: the run has diverged"):
            asked(run_dir, files / "real.npz", names)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_two_processes_find_the_numbers_of_one(files, trained, tmp_path):
    names = f"critic,{SMALL},classes"
    alone = asked(trained, files / "real.npz", names, batch_size=20)

    def work(rank):
        found = asked(trained, files / "real.npz", names, batch_size=20)
        with pytest.raises(ValueError, match="comes without one"):
            asked(files / "real.npz", files / "real.npz", "critic")
        return {name: [number.value, number.spread, number.real] for name, number in found.numbers.items()}

    for found in on_two_processes(work, tmp_path / "two"):
        assert found.keys() == alone.numbers.keys() == {"wasserstein", "probe", "effective_classes", "top_probability",
                                                        "agreement"}  # fmt: skip
        for name, values in found.items():
            for one, other in zip(values, alone.numbers[name], strict=True):
                assert one == other or one == pytest.approx(other, rel=1e-9), name


def test_the_command_says_what_stands_beside_the_probe(trained, files):
    said = run(
        "evaluate", trained, "--against", files / "real.npz", "--num", N, "--features", "digits", "--metrics", SMALL
    )
    assert "(an untrained D)" in said
    classes = run(
        "evaluate", trained, "--against", files / "real.npz", "--num", N, "--features", "digits", "--metrics", "classes"
    )
    assert "(" not in classes


# ---- what is refused ---------------------------------------------------------------------------------------------


def refuses(monkeypatch):
    """From here on, no image is looked at."""
    monkeypatch.setattr(FeatureNet, "__call__", lambda *_: pytest.fail("the work has begun"))


@loop_over(
    ("images", "against", "names", "message"),
    [
        (
            "real.npz",
            "real.npz",
            f"critic,{SMALL}",
            "only the discriminator of a run answers critic and probe, .*real.npz comes without one",
        ),
        ("run/generator/generator.safetensors", "real.npz", "critic", "give the directory of a run"),
        ("run", "unlabelled.npz", SMALL, "the images to compare with have no labels: give labelled data"),
        ("run", "run", SMALL.replace("40", "4"), "the images to compare with have no labels"),
        ("run", "larger.npz", "critic", "reads images of 28x28x1, but the images of .* are 56x56x1"),
        ("run", "two.npz", "critic", "class of an image, of 10 classes, and the images to compare with have 2"),
        ("run", "unlabelled.npz", "critic", "of 10 classes, and the images to compare with have 0"),
        ("run", "real.npz", "probe", "at least 1 generated and 3500 real images, and there are 45 and 150"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_any_work(files, trained, monkeypatch, images, against, names, message):
    refuses(monkeypatch)
    source, reference = (files / name if name.endswith("npz") else trained.parent / name for name in (images, against))
    with pytest.raises(ValueError, match=message):
        asked(source, reference, names, num=200 if against == "run" else N)


def test_a_run_s_best_generator_has_no_discriminator(files, trained, tmp_path, monkeypatch):
    refuses(monkeypatch)
    train(wasserstein(total_kimg=0.008), tmp_path / "run")
    (tmp_path / "run" / "checkpoints").rename(tmp_path / "gone")
    with pytest.raises(ValueError, match="comes without one: give the directory of a run, with its checkpoints"):
        asked(tmp_path / "run", files / "real.npz", "critic")


def test_a_loss_that_estimates_no_distance(files, tmp_path):
    train(dataclasses.replace(recipe(), total_kimg=0.008), tmp_path / "run")
    with pytest.raises(ValueError, match=r"trained with Hinge\(\): ask the critic of a run with loss=Wasserstein"):
        asked(tmp_path / "run", files / "real.npz", "critic")
    assert asked(tmp_path / "run", files / "real.npz", SMALL).numbers["probe"].value > 0.2  # any loss


def test_a_discriminator_without_convolutions_and_one_that_reads_the_class_with_the_image():
    mlp = dataclasses.replace(recipe(), discriminator=MLPDiscriminator(), d_normalizer=NoNormalizer())
    D = fresh(mlp)
    with pytest.raises(ValueError, match=r"and the body of MLPDiscriminator\(.* has none"):
        Probe().check(D, SPEC)
    joined = wasserstein(head=Head(Input()))
    D = fresh(joined)
    with pytest.raises(
        ValueError, match=r"know the class, which it reads beside the image \(head.conditioning=Input\(\)\)"
    ):
        Probe().check(D, SPEC)
    Critic().check(D, SPEC)
    own = TrainedDiscriminator(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3), wasserstein(), SPEC, 0)
    with pytest.raises(ValueError, match="would know the class"):
        Probe().check(own, SPEC)


def test_settings_are_read_from_text():
    assert parse_metrics("critic,probe(C=[0.5])", "digits") == {"critic": Critic(), "probe": Probe(C=(0.5,))}
    for text in ("probe(C=[])", "probe(C=[0])", "probe(test=0)"):
        with pytest.raises(ValueError, match=r"probe|Probe|C|test"):
            parse_metrics(text, "digits")


def test_labels_of_other_classes_than_the_classifier_s_are_for_the_probe_alone(trained, files):
    assert "agreement" not in asked(files / "two.npz", files / "real.npz", "classes").numbers
    agreement = asked(files / "real.npz", files / "two.npz", "classes").numbers["agreement"]
    assert agreement.value > 0.95
    assert agreement.real is None
    assert asked(trained, files / "two.npz", SMALL).numbers["probe"].value > 0.5


# ---- while a run trains ------------------------------------------------------------------------------------------


def evaluated(**changes):
    settings = {"metrics": ("critic", SMALL), "num": N, "features": "digits", "against": Few(num=M)}
    return wasserstein(report=dataclasses.replace(recipe().report, evaluation=Evaluate(**settings)), **changes)


def test_the_discriminator_of_the_moment_is_asked_and_stays_as_it_was(trained, tmp_path):
    """The numbers of a run that stops here; `best` is the smallest distance."""
    cfg = evaluated()
    gan = GAN.build(cfg, SPEC)
    evaluations = Evaluations(tmp_path, cfg, Digits().build(), gan.D)
    gan.D.load_state_dict(saved(trained, "D"))  # after it was made, as training does
    average = cfg.generator.build(SPEC).eval().requires_grad_(False)
    average.load_state_dict(saved(trained, "ema"))
    gan.D.train()
    before, state = {name: w.clone() for name, w in gan.D.state_dict().items()}, torch.get_rng_state()
    found = evaluations.of(average, 160, "none yet")
    assert gan.D.training
    assert all(torch.equal(w, before[name]) for name, w in gan.D.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    expected = asked(trained, Few(num=M), f"critic,{SMALL}").numbers
    assert found.keys() == {"eval/wasserstein", "eval/probe"}
    for name in ("wasserstein", "probe"):
        assert float(found[f"eval/{name}"]) == pytest.approx(expected[name].value, rel=1e-4)
    kept = json.loads((tmp_path / "best" / "evaluation.json").read_text())
    assert kept["best"] == "wasserstein"
    assert kept["metrics"]["critic"]["chosen"]["nimg"] == 160


def test_what_cannot_be_asked_is_refused_before_training(tmp_path):
    hinge = override(evaluated(), {"loss": recipe().loss})
    with pytest.raises(ValueError, match="ask the critic of a run with loss=Wasserstein"):
        Evaluations(tmp_path, hinge, Digits().build(), GAN.build(hinge, SPEC).D)
    with pytest.raises(ValueError, match="comes without one"):
        Evaluations(tmp_path, evaluated(), Digits().build())


def test_a_discriminator_that_diverged_is_not_asked(tmp_path):
    cfg = evaluated()
    gan = GAN.build(cfg, SPEC)
    evaluations = Evaluations(tmp_path, cfg, Digits().build(), gan.D)
    nn.init.constant_(next(gan.D.parameters()), math.nan)
    with pytest.raises(RunError, match=r"the weight D\..* holds NaN or Inf at nimg=7"):
        evaluations.of(cfg.generator.build(SPEC), 7, "none yet")


# ---- while a run trains ----------------------------------------------------------------------------------


def test_a_run_measures_the_discriminator_of_the_moment(trained, tmp_path):
    cfg = override(evaluated(), {"report.evaluation.every_kimg": 0.04})
    train(cfg, tmp_path / "run")
    assert_same_run(trained, tmp_path / "run")
    found = {line["nimg"]: line for line in lines(tmp_path / "run") if "eval/wasserstein" in line}
    assert list(found) == [40, 80, 120, 160]
    last = asked(tmp_path / "run", Few(num=M), f"critic,{SMALL}").numbers
    assert found[160]["eval/wasserstein"] == pytest.approx(last["wasserstein"].value, rel=1e-4)
    assert found[160]["eval/probe"] == pytest.approx(last["probe"].value)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_two_processes_measure_as_one(tmp_path):
    cfg = override(evaluated(), {"report.evaluation.every_kimg": 0.08, "total_kimg": 0.08})

    def work(rank):
        train(cfg, tmp_path / "run")
        return 0

    on_two_processes(work, tmp_path / "two")
    (line,) = (line for line in lines(tmp_path / "run") if "eval/wasserstein" in line)
    last = asked(tmp_path / "run", Few(num=M), f"critic,{SMALL}").numbers
    assert line["eval/wasserstein"] == pytest.approx(last["wasserstein"].value, rel=1e-4)
