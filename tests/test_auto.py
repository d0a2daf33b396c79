"""`auto`: the config that is chosen for pictures, machine and time."""

import shlex
from functools import partial

import numpy as np
import pytest
import torch
from commands import run
from loops import loop_over
from PIL import Image

from equipoise.augment import ADA, NoAugment
from equipoise.config import components, override
from equipoise.core.grammar import parse
from equipoise.core.types import ImageSpec
from equipoise.data import Digits, Images, handedness
from equipoise.losses import R1, LazyStep, PathLength
from equipoise.models import MappedProjection, NoConditioning
from equipoise.recipes import load
from equipoise.recipes.auto import NEEDED, Facts, Machine, Pictures, choose
from equipoise.rules import NoGrowth
from equipoise.train import choosing, cost, pace

CPU, GPU = Machine("cpu", "2 cores without a GPU"), Machine("cuda", "a GPU")


def photos(**changes):
    known = {"sizes": None, "num": 4000, "side": 64, "channels": 3, "handedness": 0.55}
    return Pictures(at=lambda size: Images(path="photos", resolution=size), **known | changes)


def chosen(machine=CPU, rate=60.0, minutes=60.0, kimg=None, changes=None, **pictures):
    def speed(cfg, size):
        assert cfg.data.resolution == size
        return rate * 1024 / size**2

    return choose(Facts(photos(**pictures), machine, minutes, kimg), speed, changes)


def size(choice):
    return choice.config.data.resolution


def test_a_run_fills_the_time_and_no_more():
    """Images of the growing part count half on a CPU."""
    for machine, part in ((CPU, 0.4), (GPU, 0.0)):
        for rate, minutes in [(60, 60), (9, 45), (333, 600)]:
            choice = chosen(machine=machine, rate=rate, minutes=minutes)
            taken = 1000 * choice.config.total_kimg * (1 - part / 2) / choice.speed / 60
            assert 0.8 * minutes < taken <= 0.9 * minutes


def test_networks_have_grown_after_two_fifths_of_the_run():
    for side in (16, 32, 64):
        cfg = chosen(side=side, minutes=1e4).config
        growth = cfg.growth
        assert growth.lod(0, side) == growth.doublings(side) > 0  # from 4x4
        assert growth.lod(round(0.41 * 1000 * cfg.total_kimg), side) == 0
        assert growth.lod(round(0.35 * 1000 * cfg.total_kimg), side) > 0


def test_a_larger_size_is_chosen_when_time_suffices_for_it():
    sizes = [size(chosen(minutes=minutes)) for minutes in (1, 30, 60, 240, 10_000)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 16
    assert sizes[-1] == 64
    for minutes in (1, 30, 60, 240, 10_000):
        choice = chosen(minutes=minutes)
        assert choice.config.total_kimg >= NEEDED[size(choice)] or size(choice) == 16


@loop_over(("side", "expected"), [(500, 64), (64, 64), (63, 64), (50, 32), (28, 32), (20, 16), (5, 16)])
def test_pictures_are_hardly_enlarged(side, expected):
    assert size(chosen(side=side, minutes=1e5)) == expected


def test_the_size_of_arrays_stays_and_must_be_known():
    assert size(chosen(sizes=(16,), minutes=1e5)) == 16
    with pytest.raises(ValueError, match="16, 32, 64, 128, 256 pixels, and the pictures have 28"):
        chosen(sizes=(28,))


def test_a_gpu_trains_larger_images_in_the_authors_configuration():
    choice = chosen(machine=GPU, rate=1e5, side=300, minutes=1e4)
    assert (choice.recipe, size(choice), choice.config.batch_size) == ("stylegan2_ada", 256, 16)
    assert size(chosen(machine=CPU, rate=1e5, side=300, minutes=1e4)) == 64


def test_ada_where_pictures_are_seen_often_and_the_loss_is_one_it_knows():
    few, many = (chosen(machine=GPU, num=num, kimg=50).config for num in (300, 50_000))
    assert isinstance(few.augment, ADA)
    assert many.augment == NoAugment()
    assert chosen(num=300, kimg=50).config.augment == NoAugment()


def test_pictures_that_differ_from_their_mirror_images_are_not_mirrored():
    assert chosen(handedness=0.5).config.data.mirror
    assert not chosen(handedness=0.9).config.data.mirror


@loop_over(("classes", "count", "used"), [(0, 4000, False), (1, 4000, False), (40, 4000, True), (41, 4000, False)])
def test_classes_need_a_hundred_pictures_each(classes, count, used):
    conditioning = chosen(machine=GPU, classes=classes, num=count).config.head.conditioning
    assert conditioning == (MappedProjection() if used else NoConditioning())
    assert chosen(classes=classes, num=count).config.head.conditioning == NoConditioning()


def test_what_is_given_stays_and_is_listed():
    choice = chosen(kimg=123, changes={"seed": 7, "augment": NoAugment(), "batch_size": 8}, num=10)
    cfg = choice.config
    assert (cfg.total_kimg, cfg.seed, cfg.augment, cfg.batch_size) == (123, 7, NoAugment(), 8)
    lines = {reason.what for reason in choice.reasons}
    assert {"seed", "augment", "batch_size"} <= lines
    assert "batch" not in lines  # it would contradict the line of the field


def test_a_mirror_that_is_given_stays():
    assert not chosen(handedness=0.5, changes={"data.mirror": False}).config.data.mirror
    assert chosen(handedness=0.9, changes={"data.mirror": True}).config.data.mirror


def test_the_speed_is_that_of_the_head_that_is_chosen():
    heads = []
    choose(Facts(photos(classes=10), GPU), lambda cfg, size: heads.append(cfg.head.conditioning) or 100.0)
    assert set(map(type, heads)) == {MappedProjection}


def test_a_run_that_is_too_short_says_so():
    said = {reason.what: reason.why for reason in chosen(minutes=1).reasons}
    assert "Too short" in said["length"]
    assert "should see" in said["size"]


# ---- handedness --------------------------------------------------------------------------------------------


class Arrays:
    def __init__(self, x):
        self.x, self.spec = x, ImageSpec(x.shape[-1], x.shape[1])

    def __len__(self):
        return len(self.x)

    def read(self, indices):
        return self.x[indices]


def test_handedness_of_pictures_with_a_left_and_a_right():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 100, (400, 3, 20, 20), dtype=np.uint8)
    assert 0.4 < handedness(Arrays(x)) < 0.6
    left = x.copy()
    left[..., :10] += 50
    assert handedness(Arrays(left)) > 0.99
    either = np.where(rng.random((400, 1, 1, 1)) < 0.5, left, left[..., ::-1])
    assert 0.4 < handedness(Arrays(either)) < 0.6
    symmetric = np.concatenate([x[..., :10], x[..., :10][..., ::-1]], axis=-1)
    assert handedness(Arrays(symmetric)) == 0.5
    assert handedness(Arrays(x[:1])) == 0.5


def test_handedness_of_digits():
    assert handedness(Digits().build()) > 0.75


# ---- speed -------------------------------------------------------------------------------------------------


def test_lazy_terms_count_with_their_share(monkeypatch):
    """A clock that the steps move: D takes 1 s, with R1 3 s; G takes 2 s, with path lengths 6 s."""
    now = [0.0]

    def step(usual, lazy, every, gan, batch, nimg, *_):
        now[0] += lazy if nimg // len(batch.x) % every == 0 else usual

    monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(cost, "d_step", partial(step, 1.0, 3.0, 16))
    monkeypatch.setattr(cost, "g_step", partial(step, 2.0, 6.0, 4))
    cfg = override(
        load("stylegan2_small")[0],
        {
            "terms": (LazyStep(R1(gamma=1.0, every=16)), LazyStep(PathLength(every=4))),
            "batch_size": 8,
            "generator.channel_max": 8,
            "discriminator.channel_max": 8,
        },
    )
    state = torch.get_rng_state()
    rate = pace.images_per_second(cfg, ImageSpec(16, 1))
    assert rate == pytest.approx(8 / (1 + 2 / 16 + 2 + 4 / 4))
    assert torch.equal(state, torch.get_rng_state())


def test_the_speed_of_a_run_that_grows_is_that_of_its_full_size(monkeypatch):
    """In batches of the full size, at which it spends most of its time."""
    batches = []

    def costs(gan, batch, _):
        batches.append((gan.cfg.growth, len(batch.x)))
        return 1, 1

    monkeypatch.setattr(pace, "mean_costs", costs)
    cfg = override(load("progan_small")[0], {"generator.width": 8, "discriminator.width": 8})
    assert pace.images_per_second(cfg, ImageSpec(32, 1)) == 16 / 2
    assert batches == [(NoGrowth(), 16)]


# ---- the command -------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of rectangles in two classes; updates are not timed."""
    monkeypatch.setattr(choosing, "images_per_second", lambda cfg, spec, device: 1000.0)
    rng = np.random.default_rng(0)
    for i in range(6):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 36, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


def test_the_printed_command_trains_the_same_config(folder, tmp_path):
    said = run("train", "auto", tmp_path / "r", f"data={folder}", "minutes=5", "seed=3", "--dry-run")
    assert "6, colour, 36 pixels" in said
    assert not (tmp_path / "r").exists()
    words = shlex.split(said.splitlines()[-1])
    assert words[:2] == ["equipoise", "train"]
    base, overrides = load(words[2])[0], [word.partition("=") for word in words[4:]]
    again = override(base, {key: parse(text, components()) for key, _, text in overrides})
    data = Images(path=str(folder))
    assert again == choosing.choice_for(data, minutes=5, changes={"seed": 3}).config
    assert again.data.resolution == 32


def test_a_run_goes_on_with_the_choices_of_its_first_start(folder, tmp_path, monkeypatch):
    tiny = ["generator.width=8", "discriminator.width=8", "compute.device=cpu", "batch_size=2"]
    given = [tmp_path / "r", f"data={folder}", "kimg=0.004", *tiny]
    assert "the same without auto" in run("train", "auto", *given)
    monkeypatch.setattr(choosing, "images_per_second", lambda *_: 1 / 0)
    said = run("train", "auto", tmp_path / "r", f"data={folder}", "kimg=0.008")
    assert "goes on as chosen at its first start" in said
    for other in (tmp_path, "Digits"):
        assert "give the same data" in run("train", "auto", tmp_path / "r", f"data={other}", code=2)
    run("train", "auto", tmp_path / "r", f'data=Images(path="{folder}")', "total_kimg=0.008")


def test_several_processes_would_choose_for_themselves(folder, tmp_path, monkeypatch):
    group = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name, value in group.items():
        monkeypatch.setenv(name, value)
    assert "start the command that it prints with torchrun" in run("train", "auto", tmp_path, f"data={folder}", code=2)


@loop_over(
    ("words", "message"),
    [
        ([], "say where they are, as in data=photos"),
        (["minutes=60"], "say where they are, as in data=photos"),
        (["data=Digits", "minutes=0"], "minutes takes a number above 0"),
        (["data=Digits", "minutes=1", "kimg=1"], "give one of them"),
        (["data=nowhere"], "'nowhere' is neither"),
        (["data=Digits"], "the pictures have 28"),
    ],
)
def test_what_auto_cannot_choose_from(words, message, tmp_path):
    assert message in run("train", "auto", tmp_path / "r", *words, code=2)
