"""`equipoise evaluate` and evaluation while a run trains: the numbers, what they stand beside, and what is refused."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import pkgutil
import sys
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run
from fixtures import fixture
from held import Held
from loops import loop_over
from PIL import Image
from processes import command_on_two_processes, on_two_processes
from runs import assert_resumes, assert_same_run, lines
from tiny import recipe
from torch.distributed.run import parse_args

import equipoise
from equipoise import metrics
from equipoise.cli import evaluate as cli
from equipoise.cli.evaluate import OF_IMAGES
from equipoise.config import override, to_text
from equipoise.core.grammar import parse
from equipoise.core.listing import named
from equipoise.core.types import ImageSpec, RunError
from equipoise.data import Digits, Few, Images, StackedDigits
from equipoise.evaluate import Evaluation, Evaluator, evaluate, of_generator, open_source, sources
from equipoise.features import FeatureNet, feature_net
from equipoise.generate import Generator, sample, write_samples
from equipoise.metrics.base import Metric, Number, Questions, needs
from equipoise.metrics.registry import METRICS, OF_GENERATORS, OF_RUNS, parse_metrics
from equipoise.models import NoConditioning
from equipoise.rules import Evaluate
from equipoise.train import Evaluations, train
from equipoise.train.best import Best

N, M = 150, 240
GREY = [name for name in OF_IMAGES if name not in ("fid", "modes")]
"""What can be asked of grey digits."""
SMALL = {"kid": "kid(subsets=5,subset_size=50)", "is": "is(splits=3)", "parzen": "parzen(validation=40)"}
TEXT = ",".join(SMALL.get(name, name) for name in GREY)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def real():
    """uint8 (M, 28, 28, 1) and classes (M,)."""
    data = Digits().build()
    return data.read(np.arange(M)).transpose(0, 2, 3, 1), data.labels[:M]


@pytest.fixture(scope="module")
def fake():
    """Other digits, a third of them noisy."""
    x = Digits().build().read(np.arange(M, M + N)).transpose(0, 2, 3, 1)
    noise = np.random.default_rng(0).integers(0, 90, x.shape) * (np.arange(N) % 3 == 0)[:, None, None, None]
    return np.clip(x + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory, real, fake):
    folder = tmp_path_factory.mktemp("sets")
    np.savez(folder / "real.npz", x=real[0], y=real[1])
    np.savez(folder / "fake.npz", x=fake)
    (folder / "pngs").mkdir()
    with zipfile.ZipFile(folder / "fake.zip", "w") as archive:
        for i, image in enumerate(fake):
            path = folder / "pngs" / f"{i:04d}.png"
            Image.fromarray(image[..., 0]).save(path)
            archive.write(path, path.name)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "a"
    train(recipe(), run_dir)
    return run_dir


def digits(images, against, names=TEXT, **settings):
    return evaluate(images, against, metrics=names, features="digits", **({"num": N} | settings))


# ---- the numbers -------------------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_functions_called_by_hand(files, real, fake):
    found = digits(files / "fake.npz", files / "real.npz", seed=3).numbers
    (x, p), (y, q) = (feature_net("digits")(images) for images in (real[0], fake))

    def order(count):
        return np.random.default_rng(3).permutation(count)

    some = x[order(M)[:N]]

    assert found["frechet"].value == pytest.approx(metrics.frechet_distance(x, y), rel=1e-9)
    kernel = metrics.kernel_distance(x, y, subsets=5, subset_size=50, seed=3)
    assert (found["kid"].value, found["kid"].spread) == pytest.approx(kernel, rel=1e-9)
    mean, std = metrics.inception_score(q[order(N)], 3)
    assert found["inception_score"][:2] == pytest.approx((mean, std), rel=1e-9)
    assert found["inception_score"].real == pytest.approx(metrics.inception_score(p[order(M)][:N], 3)[0], rel=1e-9)
    assert (found["precision"].value, found["recall"].value) == metrics.precision_recall(some, y, k=3)
    assert (found["density"].value, found["coverage"].value) == metrics.density_coverage(some, y, k=5)
    sliced = metrics.sliced_wasserstein(x, y, projections=200, seed=3)
    assert found["sliced_wasserstein"].value == pytest.approx(sliced, rel=1e-9)

    points = real[0].reshape(M, -1)[order(M)] / 255
    samples = fake.reshape(N, -1) / 255
    sigma = metrics.parzen_bandwidth(samples, points[:40], np.geomspace(0.02, 1, 16))
    nats = metrics.parzen_log_likelihood(samples, points[40:], bandwidth=sigma)
    assert found["parzen"][:2] == pytest.approx((nats.mean(), nats.std() / math.sqrt(M - 40)), rel=1e-9)

    near = np.sort(np.linalg.norm(y[:, None] - x, axis=2), axis=1)
    own = np.sort(np.linalg.norm(x[:, None] - x, axis=2), axis=1)[:, 1:]
    for name, column in (("value", near), ("real", own)):
        assert getattr(found["nearest"], name) == pytest.approx(column[:, 0].mean(), rel=1e-6)
        learned = (column[:, 0] <= column[:, 1] / 3).mean()
        assert getattr(found["memorised"], name) == pytest.approx(learned, abs=1e-12)
    assert found["effective_classes"][::2] == pytest.approx([metrics.effective_classes(r) for r in (q, p)])
    assert found["top_probability"][::2] == pytest.approx([metrics.mean_top_probability(r) for r in (q, p)])
    assert "agreement" not in found  # nobody asked for classes


def test_neither_batches_nor_the_cache_nor_the_form_change_them(files):
    first = digits(files / "fake.npz", files / "real.npz").numbers
    assert digits(files / "fake.npz", files / "real.npz").numbers == first  # from the cache
    torch.set_num_threads(2)
    try:
        threaded = digits(files / "fake.npz", files / "real.npz").numbers
    finally:
        torch.set_num_threads(1)
    assert threaded["kid"].value == pytest.approx(first["kid"].value, rel=1e-6)
    assert list(threaded) == list(first)
    for source, size in ((files / "pngs", 250), (files / "fake.zip", 250), (files / "fake.npz", 7)):
        again = digits(source, files / "real.npz", batch_size=size, cache=files / "other").numbers
        for name, number in first.items():
            for a, b in zip(number, again[name], strict=True):
                assert a == b or a == pytest.approx(b, rel=1e-6, abs=1e-9), (name, size)


def test_copies_are_told_from_new_images(files, real, tmp_path):
    """Every copy is the nearest real image itself; other digits of the same hands are hardly ever so near."""
    np.savez(tmp_path / "copies.npz", x=real[0][:N])
    for names in ("nearest", "nearest(space='pixels')"):
        copied = digits(tmp_path / "copies.npz", files / "real.npz", names).numbers
        fresh = digits(files / "fake.npz", files / "real.npz", names).numbers
        assert copied["nearest"].value == pytest.approx(0, abs=1e-4)
        assert copied["memorised"].value == 1
        assert fresh["memorised"].value < 0.05
        assert fresh["nearest"].value > 0.9 * fresh["nearest"].real


def test_sets_of_other_sizes_and_in_colour_compare(files, real, tmp_path):
    """An enlarged digit is still that digit; equal sets in colour are at no distance."""
    np.savez(tmp_path / "enlarged.npz", x=real[0][:N].repeat(2, axis=1).repeat(2, axis=2), y=real[1][:N])
    enlarged = digits(tmp_path / "enlarged.npz", files / "real.npz", "frechet,classes")
    assert enlarged.report["images"]["size"] == [56, 56, 1]
    assert enlarged.numbers["agreement"].value > 0.9
    stacked = "StackedDigits(num=150)"
    assert digits(stacked, stacked, "frechet").numbers["frechet"].value == pytest.approx(0, abs=1e-6)


def test_modes_of_stacked_digits():
    found = evaluate(Few(of=StackedDigits(), num=N), StackedDigits(num=M), metrics="modes", num=N, features="digits")
    modes, kl = found.numbers["modes"], found.numbers["modes_kl"]
    assert 0.85 * N < modes.value <= N  # of 1,000 that are equally frequent, few are hit twice
    assert modes.real == pytest.approx(modes.value, rel=0.1)
    assert kl.value >= math.log(1000 / N)


def test_a_run_is_measured_by_the_images_that_sample_draws(trained, files, tmp_path):
    write_samples(Generator.from_pretrained(trained), tmp_path / "drawn.npz", num=N, seed=5)
    of_run = digits(trained, files / "real.npz", "frechet,classes,pr", seed=5).numbers
    of_file = digits(tmp_path / "drawn.npz", files / "real.npz", "frechet,classes,pr", seed=5).numbers
    assert of_run == of_file
    asked, p = zip(
        *((y, feature_net("digits")(x)[1]) for x, y in sample(Generator.from_pretrained(trained), N)), strict=True
    )
    agreement = metrics.class_agreement(np.concatenate(p), np.concatenate(asked))
    of_seed_0 = digits(trained, "Few(of=Digits,num=240)", "classes").numbers["agreement"]
    assert of_seed_0.value == agreement
    assert of_seed_0.real > 0.95  # the judge on digits


def test_a_part_of_a_folder_is_a_random_part_of_it(files, monkeypatch):
    """The first files of a folder are often all of one class."""
    (first, _), *_ = open_source(files / "pngs").draw(100, 0, 100)
    (whole, _), *_ = open_source(files / "pngs").draw(None, 0, 1000)
    assert not np.array_equal(first, whole[:100])
    (other, _), *_ = open_source(files / "pngs").draw(100, 1, 100)
    assert not np.array_equal(first, other)
    (again, _), *_ = open_source(files / "pngs").draw(100, 0, 100)
    assert np.array_equal(first, again)
    assert len({image.tobytes() for image in first}) == 100  # without replacement
    assert {image.tobytes() for image in first} <= {image.tobytes() for image in whole}


# ---- several processes -------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("images", ["run", "fake.npz"])
def test_two_processes_share_the_work_and_find_the_numbers_of_one(files, trained, tmp_path, monkeypatch, images):
    source = trained if images == "run" else files / images
    whole = digits(source, files / "real.npz", batch_size=40, cache=tmp_path / "one")
    seen, look = [], FeatureNet.__call__
    monkeypatch.setattr(FeatureNet, "__call__", lambda net, x: seen.append(len(x)) or look(net, x))
    drawn, draw = [], sources.images
    monkeypatch.setattr(sources, "images", lambda G, z, y: drawn.append(len(z)) or draw(G, z, y))

    def work(rank):
        first = digits(source, files / "real.npz", batch_size=40, cache=tmp_path / "two").json()
        count = sum(seen)
        again = digits(source, files / "real.npz", batch_size=40, cache=tmp_path / "two").json()  # from the cache
        assert sum(drawn) == (0 if images == "fake.npz" else 2 * [80, 70][rank])
        return first, again, count, sum(seen)

    found = on_two_processes(work, tmp_path / "processes")
    for first, again, *_ in found:
        for text in (first, again):
            same_within(json.loads(text), json.loads(whole.json()), 1e-10)
    assert [counts for _, _, *counts in found] == [[80 + 120, 2 * 80 + 120], [70 + 120, 2 * 70 + 120]]
    assert len(list((tmp_path / "two").iterdir())) == 1


def same_within(a, b, precision):
    """Two reports."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            same_within(a[key], b[key], precision)
    else:
        assert a == b or a == pytest.approx(b, rel=precision, abs=1e-14)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_one_process_cannot_measure_both_refuse(tmp_path):
    """The second batch, which the second process sees, is white, and this network divides by what is black in it."""
    x = np.random.default_rng(0).integers(0, 200, (40, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "good.npz", x=x)
    x[20:] = 255
    np.savez(tmp_path / "white.npz", x=x)
    (tmp_path / "own.py").write_text(
        "from torch import nn\nclass Black(nn.Module):\n    def forward(self, x): return 1 / (1 - x.flatten(1))\n"
    )

    def work(rank):
        net = f"{tmp_path}/own.py:Black"
        settings = {"metrics": "frechet", "num": 40, "features": net, "batch_size": 20, "cache": tmp_path / "cache"}
        with pytest.raises(ValueError, match="20 of 20 images hold NaN or Inf"):
            evaluate(tmp_path / "white.npz", tmp_path / "good.npz", **settings)
        with pytest.raises(ValueError, match="20 of 20 images hold NaN or Inf"):
            evaluate(tmp_path / "good.npz", tmp_path / "white.npz", **settings)
        return evaluate(tmp_path / "good.npz", tmp_path / "good.npz", **settings).numbers["frechet"].value

    assert on_two_processes(work, tmp_path / "two") == [pytest.approx(0, abs=1e-9)] * 2


# ---- every metric ------------------------------------------------------------------------------------------------


def random_samples(num):
    """What a metric sees of `num` random images."""
    rng = np.random.default_rng(num)
    features, p = rng.random((num, 5)), rng.dirichlet(np.ones(4), num)
    return Held(features, p, rng.integers(0, 256, (num, 28, 28, 3), np.uint8))


@loop_over("name", OF_IMAGES)
def test_a_metric_gives_what_it_says_with_as_few_images_as_it_says(name):
    text = {"kid": "kid(subset_size=4)", "parzen": "parzen(validation=3,low=0.01,high=9)"}.get(name, name)
    metric = parse_metrics(text, "inception")[name]
    fewest, real = metric.least
    numbers, _ = metric(random_samples(fewest), random_samples(real), 0)
    assert numbers.keys() <= metric.better.keys()
    assert set(metric.better) - set(numbers) <= {"agreement"}
    assert all(math.isfinite(number.value) for number in numbers.values())
    assert any(number.spread is not None for number in numbers.values()) == (metric.spread is not None)
    if name in ("kid", "is", "pr", "dc", "frechet", "fid", "swd"):
        with pytest.raises(ValueError, match=r"sampl|subset|split"):
            metric(random_samples(fewest - 1), random_samples(real), 0)


def test_no_two_metrics_share_the_name_of_a_number():
    names = [name for kind in METRICS.values() for name in kind.better]
    assert len(names) == len(set(names))


def test_the_list_that_is_read_without_torch_is_that_of_the_classes():
    """Every class of settings in the folder is in it, by its name, and once."""
    modules = [
        importlib.import_module(info.name) for info in pkgutil.iter_modules(metrics.__path__, "equipoise.metrics.")
    ]
    kinds = [(module, kind) for module in modules for kind in vars(module).values() if isinstance(kind, type)]
    own = [kind for module, kind in kinds if issubclass(kind, Metric) and kind.__module__ == module.__name__]
    classes = [kind for kind in own if "name" in vars(kind)]
    listed = named("metrics")
    assert {kind.name: (kind.__module__, kind.__name__) for kind in classes} == {
        name: (found.module, found.kind) for name, found in listed.items()
    }
    assert len(classes) == len(listed) >= 13
    assert {name: kind.name for name, kind in METRICS.items()} == {name: name for name in listed}
    assert sorted([*OF_IMAGES, *OF_RUNS, *OF_GENERATORS]) == sorted(METRICS)
    assert (cli.OF_IMAGES, cli.OF_RUNS, cli.OF_GENERATORS) == (OF_IMAGES, OF_RUNS, OF_GENERATORS)


def test_the_help_names_every_metric():
    """And does not wait for torch: see test_public_api.py."""
    said = " ".join(run("evaluate", "--help").replace("│", " ").split())
    assert f"Any of {', '.join(OF_IMAGES)}; for runs also {', '.join(OF_RUNS)}; for generators" in said
    assert f"for generators also {', '.join(OF_GENERATORS)}. Settings" in said


def test_two_classes_of_one_name_are_no_list(tmp_path, monkeypatch):
    text = 'class A(Metric):\n    name: ClassVar[str] = "twice"\n'
    (tmp_path / "metrics").mkdir()
    for file in ("a", "b"):
        (tmp_path / "metrics" / f"{file}.py").write_text(text)
    monkeypatch.setattr("equipoise.core.listing.__file__", str(tmp_path / "core" / "listing.py"))
    with pytest.raises(ValueError, match=r"b\.py and .*metrics\.a both name a class 'twice': rename one"):
        named("metrics")


# ---- what metrics ask for ----------------------------------------------------------------------------------------


@loop_over("name", [*OF_IMAGES, *OF_RUNS])
def test_a_metric_can_be_asked_what_it_needs(name):
    """Both sets, but for the probe; the network of a classifier for probabilities alone."""
    asked = needs(METRICS[name]())
    assert asked.real
    assert (asked.fake == asked.real) == (name not in OF_RUNS)
    assert ("discriminator" in asked.fake) == (name in OF_RUNS)
    assert ("probabilities" in asked.fake) == (name in ("is", "classes"))
    assert ("pixels" in asked.fake) == (name in ("parzen", "modes", "critic"))
    assert ("pixels" in asked.real) == (name in ("parzen", "modes", "critic", "probe"))


def test_a_metric_of_generators_asks_the_generator_alone_and_a_network_for_its_distance():
    for name in OF_GENERATORS:
        asked = needs(METRICS[name]())
        assert asked.fake == ({"generator", "network"} if name.startswith("ppl") else {"generator"})
        assert not asked.real
    assert needs(parse_metrics("ppl_w(distance=pixels)", "inception")["ppl_w"]).fake == {"generator"}


def test_what_a_metric_needs_goes_with_its_settings_and_is_an_attribute_of_samples():
    nearest = METRICS["nearest"]
    assert needs(nearest()) == ({"features"}, {"features"})
    assert needs(nearest(space="pixels")) == ({"pixels"}, {"pixels"})
    with pytest.raises(AttributeError, match="a set of samples has no 'pixel'"):
        _ = Questions().pixel


class Untouched(FeatureNet):
    """A network that nothing may look through."""

    def __init__(self):
        super().__init__("untouched", "0" * 64, torch.nn.Identity(), "cpu", 10)

    def forward(self, x):
        raise AssertionError("the feature network is called")


def test_no_network_is_built_or_called_for_pixels(files, monkeypatch):
    names = 'parzen(validation=40),nearest(space="pixels")'
    expected = evaluate(files / "fake.npz", files / "real.npz", metrics=names, num=N, features=Untouched())
    monkeypatch.setattr("equipoise.evaluate.evaluator.feature_net", lambda *_, **__: pytest.fail("it is built"))
    found = evaluate(files / "fake.npz", files / "real.npz", metrics=names, num=N, features="inception")
    assert found.numbers == expected.numbers
    assert found.report["features"] is None
    assert {metric["reads"] for metric in found.report["metrics"].values()} == {"pixels"}


def test_images_are_drawn_once_whatever_is_asked_and_pixels_stay_only_where_they_are(trained, files, monkeypatch):
    drawn, draw = [], sources.images
    monkeypatch.setattr(sources, "images", lambda G, z, y: drawn.append(len(z)) or draw(G, z, y))
    evaluator = Evaluator(open_source(files / "real.npz"), metrics=TEXT, num=N, features="digits", batch_size=40)
    evaluator(open_source(trained))
    assert drawn == [40, 40, 40, 30]
    for names, kept in (("frechet,classes", False), ("frechet,parzen(validation=40)", True)):
        samples = Evaluator(evaluator.against, metrics=names, num=N, features="digits").samples(open_source(trained))
        del drawn[:]
        assert drawn == []
        assert samples.features.shape == (N, 64)
        assert samples.features is samples.features
        assert samples.stats is samples.stats
        assert sum(drawn) == N
        assert (samples.seen.pixels is not None) == kept


def test_metrics_are_read_from_text():
    asked = parse_metrics("kid(subsets=7, subset_size=9) ,is, pr(k=2)", "digits")
    assert list(asked) == ["kid", "is", "pr"]
    assert repr(asked["kid"]) == "Kernel(subsets=7, subset_size=9)"
    assert asked["pr"] == parse_metrics(["pr(k=2)"], "digits")["pr"]


@loop_over(
    ("text", "message"),
    [
        ("kidd", "there is no metric 'kidd'; did you mean 'kid'"),
        ("pr,pr(k=4)", "the metric pr is asked for twice"),
        ("", "there is no metric ''"),
        ("fid", "fid is the name of a distance of inception features, and these are of digits: ask for frechet"),
        ("kid(size=3)", "has no field 'size'"),
        ("pr(k=0)", "PrecisionRecall.k takes a whole number of 1 or more, got 0"),
        ("pr(k=2", "cannot read"),
    ],
)
def test_a_metric_that_cannot_be_is_refused(text, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        parse_metrics(text, "digits")


# ---- what is refused ---------------------------------------------------------------------------------------------


@loop_over(
    ("images", "against", "changes", "message"),
    [
        ("fake.npz", "real.npz", {"num": N + 1}, f"{N + 1} images are asked for, and .*fake.npz holds {N}"),
        ("fake.npz", "real.npz", {"names": "kid"}, f"needs at least 1000 generated and 1000 real .* {N} and {M}.*kid"),
        ("fake.npz", "real.npz", {"names": "critic", "num": 1}, f"there are 1 and {M}: give more$"),
        ("fake.npz", "real.npz", {"names": "critic", "features": "inceptoin"}, "did you mean 'inception'"),
        ("gone", "real.npz", {}, "no file or directory .*gone, and no data set of this name"),
        ("fake.npz", "Hinge", {}, "no file or directory Hinge, and no data set of this name"),
        ("fake.npz", "Digit()", {}, "unknown component 'Digit'; did you mean 'Digits'"),
        ("fake.npz", "StackedDigits", {}, "grey, the images of StackedDigits in colour: convert one of the two"),
        ("empty", "real.npz", {}, "empty holds no images"),
        ("half", "real.npz", {}, "holds no generator"),
        ("nan.npz", "real.npz", {}, "images must be uint8"),
        ("fake.npz", "real.npz", {"names": "modes"}, "stacked digits are images of three channels"),
        ("fake.npz", "real.npz", {"num": 0}, "num and batch_size must be at least 1, got 0"),
        ("fake.npz", "real.npz", {"features": "inception", "weights": "gone.pth"}, "there is no .*gone.pth"),
        ("fake.npz", "real.npz", {"features": "{}/own.py:unsure", "names": "is"}, "no class probabilities"),
        ("fake.npz", "real.npz", {"features": "{}/own.py:broken", "names": "pr"}, "150 images hold NaN or Inf"),
    ],
)
def test_what_cannot_be_measured_says_why(files, tmp_path, images, against, changes, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.txt").write_text("TrainConfig()")
    np.savez(tmp_path / "nan.npz", x=np.full((N, 28, 28), np.nan))
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "class Scaled(nn.Module):\n"
        "    def __init__(self, by): super().__init__(); self.by = by\n"
        "    def forward(self, x): return x.flatten(1) * self.by\n"
        "def unsure(): return Scaled(1.0)\n"
        "def broken(): return Scaled(float('nan'))\n"
    )
    images = files / images if (files / images).exists() else tmp_path / images
    against = files / against if against.endswith("npz") else against
    settings = {"metrics": changes.pop("names", "frechet"), "num": N, "features": "digits"} | changes
    settings["features"] = settings["features"].format(tmp_path)
    with pytest.raises(ValueError, match=message):
        evaluate(images, against, **settings)


def test_a_network_of_ones_own(files, fake, real, tmp_path):
    (tmp_path / "own.py").write_text(
        "from torch import nn\nclass Rows(nn.Module):\n    def forward(self, x): return x.mean((1, 3))\n"
    )
    found = evaluate(
        files / "fake.npz", files / "real.npz", metrics="frechet", num=N, features=f"{tmp_path}/own.py:Rows"
    )
    x, y = ((images / 127.5 - 1).mean((2, 3)) for images in (real[0], fake))
    assert found.numbers["frechet"].value == pytest.approx(metrics.frechet_distance(x, y), rel=1e-3)
    assert found.report["features"]["dimensions"] == 28


# ---- the report and the command -----------------------------------------------------------------------------------


def test_the_command_prints_a_table_and_writes_every_setting(files, tmp_path):
    out = tmp_path / "a" / "numbers.json"
    said = run(
        *("evaluate", files / "fake.npz", "--against", files / "real.npz", "--num", 100, "--seed", 4),
        *("--features", "digits", "--metrics", TEXT, "--out", out),
    )
    report = json.loads(out.read_text())
    by_hand = digits(files / "fake.npz", files / "real.npz", num=100, seed=4)
    assert report == json.loads(by_hand.json())
    assert report["images"] | {"source": ""} == {
        "source": "", "kind": "images", "num": 100, "of": N, "size": [28, 28, 1], "sha256": None
    }  # fmt: skip
    assert report["against"]["num"] == report["against"]["of"] == M
    assert report["seed"] == 4
    net = feature_net("digits")
    assert report["features"] == {"name": "digits", "sha256": net.sha256, "dimensions": 64, "classes": 10}
    assert report["equipoise"] == equipoise.__version__
    assert report["torch"] == torch.__version__
    assert list(report["metrics"]) == GREY
    for name, metric in report["metrics"].items():
        fields = {field.name for field in dataclasses.fields(METRICS[name])}
        assert metric["settings"].keys() == fields, name
        for key, number in metric["numbers"].items():
            assert key in said
            assert f"{number['value']:.4g}" in said
    assert report["metrics"]["kid"]["settings"] == {"subsets": 5, "subset_size": 50}
    assert 0.02 < report["metrics"]["parzen"]["chosen"]["bandwidth"] < 1
    assert report["metrics"]["pr"]["chosen"] == {"generated": 100, "real": 100}


def test_the_command_on_two_processes_writes_once(files, tmp_path):
    """`--` keeps torchrun from reading --num as an abbreviation of its own options."""
    asked = ["--metrics", "frechet,pr", "--features", "digits", "--num", "100", "--out", tmp_path / "two.json"]
    evaluation = [str(a) for a in ("evaluate", files / "fake.npz", "--against", files / "real.npz", *asked)]
    read = parse_args(["--standalone", "--nproc_per_node", "2", "-m", "--", "equipoise", *evaluation])
    assert (read.training_script, read.training_script_args) == ("equipoise", evaluation)
    said = command_on_two_processes(evaluation, tmp_path)
    assert said.count("precision") == 1, said
    alone = digits(files / "fake.npz", files / "real.npz", "frechet,pr", num=100)
    same_within(json.loads((tmp_path / "two.json").read_text()), json.loads(alone.json()), 1e-10)


def test_a_run_is_named_by_the_hash_of_its_generator(trained, files):
    about = digits(trained, files / "real.npz", "frechet").report["images"]
    assert about["kind"] == "generator"
    assert len(about["sha256"]) == 64


def test_the_command_says_what_is_wrong(files):
    said = run("evaluate", files / "fake.npz", "--against", files / "real.npz", "--features", "digits", code=2)
    assert "fid is the name of a distance of inception features" in said


# ---- while a run trains -------------------------------------------------------------------------------------------


def evaluated(**changes):
    """The tiny recipe, with an evaluation that takes no time."""
    settings = {"every_kimg": 0.04, "metrics": ("frechet", "classes"), "num": 30, "features": "digits"}
    report = dataclasses.replace(recipe().report, evaluation=Evaluate(**settings | {"against": Few(num=60)} | changes))
    return dataclasses.replace(recipe(), report=report)


def test_a_run_trains_as_it_does_without_and_its_numbers_are_those_of_evaluate(trained, tmp_path):
    train(evaluated(every_kimg=0.05), tmp_path / "b")
    assert_same_run(trained, tmp_path / "b")
    written = {line["nimg"]: line for line in lines(tmp_path / "b")}
    found = {nimg: line["eval/frechet"] for nimg, line in written.items() if "eval/frechet" in line}
    assert list(found) == [56, 104, 152, 160]  # multiples of 50 passed, and the end
    assert {"eval/effective_classes", "eval/top_probability", "eval/agreement"} <= written[104].keys()
    last = evaluate(tmp_path / "b", Few(num=60), metrics="frechet", num=30, features="digits")
    assert found[160] == pytest.approx(last.numbers["frechet"].value, rel=1e-4)

    kept = json.loads((tmp_path / "b" / "best" / "evaluation.json").read_text())
    assert kept["best"] == "frechet"
    assert kept["nimg"] == min(found, key=found.__getitem__)
    best = evaluate(tmp_path / "b" / "best", Few(num=60), metrics="frechet", num=30, features="digits")
    assert best.numbers["frechet"].value == pytest.approx(min(found.values()), rel=1e-4)
    assert kept["metrics"]["frechet"]["numbers"]["frechet"]["value"] == pytest.approx(
        best.numbers["frechet"].value, rel=1e-6
    )


def test_a_run_that_was_cut_ends_with_the_same_curves_and_the_same_best(tmp_path):
    assert_resumes(evaluated(), tmp_path)
    curves = [
        [(line["nimg"], line.get("eval/frechet")) for line in lines(tmp_path / name)] for name in ("whole", "cut")
    ]
    assert curves[0] == curves[1]
    texts = [(tmp_path / name / "best" / "evaluation.json").read_text() for name in ("whole", "cut")]
    assert texts[0] == texts[1]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_two_processes_that_train_share_the_evaluations(tmp_path, monkeypatch):
    seen, look = [], FeatureNet.__call__
    monkeypatch.setattr(FeatureNet, "__call__", lambda net, x: seen.append(len(x)) or look(net, x))
    monkeypatch.setattr("equipoise.train.evaluations.Evaluator", partial(Evaluator, batch_size=10))

    def work(rank):
        train(dataclasses.replace(evaluated(every_kimg=0.08), total_kimg=0.08), tmp_path / "run")
        return sum(seen)

    assert on_two_processes(work, tmp_path / "two") == [30 + 20, 30 + 10]  # of 60 real images and 30 generated ones
    (line,) = (line for line in lines(tmp_path / "run") if "eval/frechet" in line)
    kept = json.loads((tmp_path / "run" / "best" / "evaluation.json").read_text())
    assert kept["nimg"] == line["nimg"] == 80
    assert kept["metrics"]["frechet"]["numbers"]["frechet"]["value"] == pytest.approx(line["eval/frechet"], rel=1e-5)
    alone = evaluate(tmp_path / "run" / "best", Few(num=60), metrics="frechet", num=30, features="digits")
    assert line["eval/frechet"] == pytest.approx(alone.numbers["frechet"].value, rel=1e-4)


def test_best_is_the_highest_where_higher_is_better_and_settings_do_not_mix(tmp_path, monkeypatch):
    cfg = evaluated(metrics=("classes",), best="top_probability")
    generator = Generator(cfg.generator.build(ImageSpec(28, 1, 10)), cfg.generator, ImageSpec(28, 1, 10))
    values = iter([0.3, 0.2, 0.5, 0.4])
    data = Digits().build()
    evaluations = Evaluations(tmp_path, cfg, data)
    measured = evaluations.evaluator

    def answers(_):
        report = json.loads(measured(of_generator("g", generator, None)).json())
        report["metrics"]["classes"]["numbers"]["top_probability"]["value"] = next(values)
        return Evaluation({"top_probability": Number(0.0)}, report)

    monkeypatch.setattr(evaluations, "evaluator", answers)
    kept = []
    for nimg in (1, 2, 3, 4):
        evaluations.of(generator.net, nimg, "none yet")
        kept.append(json.loads((tmp_path / "best" / "evaluation.json").read_text())["nimg"])
    assert kept == [1, 1, 3, 3]

    other = override(cfg, {"report.evaluation.seed": 1})  # numbers of other samples do not compare
    Evaluations(tmp_path, other, data).of(generator.net, 5, "none yet")
    assert json.loads((tmp_path / "best" / "evaluation.json").read_text())["nimg"] == 5


def test_a_damaged_report_in_best_is_set_aside_and_the_best_is_chosen_anew(trained, tmp_path, capsys):
    """The run ends as without the damage."""
    cfg, run_dir = evaluated(every_kimg=0.08), tmp_path / "run"
    train(override(cfg, {"total_kimg": 0.08}), run_dir)
    content = fixture("faults/02_evaluation_damaged.json").read_bytes()
    (run_dir / "best" / "evaluation.json").write_bytes(content)
    train(cfg, run_dir)
    assert "best renamed to best.damaged, and the best is chosen anew: evaluation.json" in capsys.readouterr().err
    assert_same_run(trained, run_dir)
    assert json.loads((run_dir / "best" / "evaluation.json").read_text())["nimg"] == 160
    assert (run_dir / "best.damaged" / "evaluation.json").read_bytes() == content
    assert Generator.from_pretrained(run_dir / "best.damaged").nimg == 80


def test_a_report_of_any_json_is_damaged_and_a_best_without_its_generator_is_none(tmp_path, capsys):
    cfg = evaluated(metrics=("classes",), best="top_probability")
    generator = Generator(cfg.generator.build(ImageSpec(28, 1, 10)), cfg.generator, ImageSpec(28, 1, 10))
    evaluations, path = Evaluations(tmp_path, cfg, Digits().build()), tmp_path / "best" / "evaluation.json"
    best = Best(tmp_path / "best", "top_probability")
    found = evaluations.evaluator(of_generator("g", generator, None))
    best.keep(generator, found, 1, "none yet")
    report = json.loads(path.read_text())

    def with_value(value: object) -> str:
        changed = json.loads(json.dumps(report))
        changed["metrics"]["classes"]["numbers"]["top_probability"]["value"] = value
        return json.dumps(changed)

    assert not best.better(found)  # than itself
    path.write_text(with_value(0.0))
    assert best.better(found)
    assert capsys.readouterr().err == ""
    wrong = ["", "[]", "null", "5", "{}", "[" * 100_000, '{"metrics": 5}', '{"metrics": {"classes": []}}']
    for text in [*wrong, *map(with_value, (math.nan, math.inf, 10**400, "1", None, [], {}))]:
        path.write_text(text)
        assert best.better(found), text[:50]
        assert capsys.readouterr().err.count("renamed to best.damaged") == 1, text[:50]
        best.keep(generator, found, 1, "none yet")
    assert len(list(tmp_path.glob("best.damaged*"))) == len(wrong) + 7
    path.unlink()
    path.mkdir()
    assert best.better(found)
    for damage in (Path.unlink, lambda file: file.write_bytes(file.read_bytes()[:-1] + b"\xff")):
        best.keep(generator, found, 1, "none yet")
        damage(tmp_path / "best" / "generator" / "generator.safetensors")
        assert best.better(found)


def test_best_by_a_number_that_this_run_does_not_have_is_refused(tmp_path):
    cfg = override(
        evaluated(metrics=("classes",), best="agreement"),
        {"head.conditioning": NoConditioning()},
    )
    G = cfg.generator.build(ImageSpec(28, 1)).eval()
    with pytest.raises(ValueError, match=r"best=agreement cannot be measured.*effective_classes, top_probability"):
        Evaluations(tmp_path, cfg, Digits().build()).of(G, 7, "none yet")


def test_a_generator_that_diverged_is_not_measured(tmp_path):
    cfg = evaluated()
    G = cfg.generator.build(ImageSpec(28, 1, 10))
    torch.nn.init.constant_(next(G.parameters()), math.nan)
    with pytest.raises(RunError, match=r"ema.* holds NaN or Inf at nimg=7"):
        Evaluations(tmp_path, cfg, Digits().build()).of(G, 7, "none yet")
    assert not (tmp_path / "best").exists()


@loop_over(
    ("changes", "message"),
    [
        ({"num": 30, "metrics": ("kid",)}, "needs at least 1000 generated"),
        ({"against": Images(path="gone")}, "there is no file or directory gone"),
        ({"against": StackedDigits(num=60)}, "grey, the images of StackedDigits.* in colour"),
        ({"features": "inception", "weights": "gone.pth"}, "there is no gone.pth"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_training(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        train(evaluated(**changes), tmp_path / "a")
    assert not (tmp_path / "a" / "stats.jsonl").exists()


@loop_over(
    ("fields", "message"),
    [
        ({"metrics": ("frechet",), "best": "recall"}, "best='recall' is not a number that"),
        ({"metrics": ("kidd",)}, "there is no metric 'kidd'"),
        ({"metrics": ("fid",), "features": "digits"}, "ask for frechet"),
        ({"metrics": ()}, "no metric is asked for"),
        ({"every_kimg": 0.0}, "takes a number above 0"),
    ],
)
def test_an_evaluation_that_cannot_be_is_refused_when_it_is_made(fields, message):
    with pytest.raises(ValueError, match=message):
        Evaluate(**fields)


def test_an_evaluation_is_part_of_the_config_and_may_change_in_a_run(tmp_path):
    from equipoise.config import components

    text = 'Evaluate(every_kimg=0.08,metrics=[frechet,"kid(subsets=5,subset_size=20)"],num=30,features=digits)'
    cfg = override(recipe(), {"report.evaluation": parse(text, components())})
    assert parse(to_text(cfg), components()) == cfg
    train(override(cfg, {"total_kimg": 0.08}), tmp_path)
    train(recipe(), tmp_path)  # goes on without
    assert [line["nimg"] for line in lines(tmp_path) if "eval/kid" in line] == [80]


# ---- the benchmark ------------------------------------------------------------------------------------------------


def test_the_benchmark_times_both_ways_to_the_same_distance(monkeypatch):
    pytest.importorskip("scipy")
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1]), *sys.path])  # no part of the package
    from benchmarks.metrics import frechet

    rows = frechet(60, 8, rounds=2).rows()  # which compares their answers
    assert sorted(name for name, *_ in rows) == ["ours", "sqrtm"]
