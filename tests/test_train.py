"""The loop as a whole: determinism, resuming, several processes, signals, divergence."""

import gc
import random
import re
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from processes import command_on_two_processes
from runs import assert_same_run, lines, same, saved
from tiny import recipe
from torch import nn

from equipoise.augment import InstanceNoise
from equipoise.config import TrainConfig
from equipoise.core.schedules import Linear
from equipoise.core.types import ImageSpec, RunError, component
from equipoise.data import InfiniteBatches
from equipoise.losses import R1, GradientPenalty
from equipoise.models import GeneratorConfig, NoConditioning
from equipoise.rules import Adam
from equipoise.train import GAN, d_step, g_step, train

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # benchmarks are no part of the package

from benchmarks.victims import Victim  # noqa: E402


def start(run_dir: Path, *overrides: str) -> Victim:
    """`equipoise train`, in a fork: it takes no time to import."""
    return Victim(["train", f"{HERE / 'tiny.py'}:recipe", str(run_dir), *overrides], run_dir.with_suffix(".log"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The directory of a whole run, and the generator that it returned."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    return run_dir, train(recipe(), run_dir)


def test_a_run_leaves_what_the_design_promises(whole):
    run_dir, G = whole
    assert not G.training
    assert not any(p.requires_grad for p in G.parameters())
    assert sorted(p.name for p in (run_dir / "checkpoints").iterdir()) == ["000000000120", "000000000160"]  # last two
    grids = [f"{n:012d}.png" for n in (0, 40, 80, 120, 160)]
    assert [p.name for p in sorted((run_dir / "samples").iterdir())] == [*grids, "real.png"]
    for name in ("config.txt", "environment.txt", "generator/generator.safetensors"):
        assert (run_dir / name).stat().st_size > 0
    written = lines(run_dir)
    assert [line["nimg"] for line in written] == [32, 40, 64, 80, 96, 120, 128, 160]
    assert {"D/loss", "G/loss", "D/real", "D/fake", "images_per_second"} <= written[0].keys()


def contents(run_dir: Path) -> dict[str, bytes]:
    """Every file that two equal runs have alike, to the byte: speed, time and command differ."""
    timed = re.compile(r"stats\.jsonl|environment\.txt|events\.out\..*")
    paths = sorted(path for path in run_dir.rglob("*") if path.is_file() and not timed.fullmatch(path.name))
    return {str(path.relative_to(run_dir)): path.read_bytes() for path in paths}


def test_training_changes_both_networks_and_repeats_itself(whole, tmp_path):
    train(recipe(), tmp_path / "b")
    assert_same_run(whole[0], tmp_path / "b")
    a, b = (contents(run_dir) for run_dir in (whole[0], tmp_path / "b"))
    assert a == b
    train(replace(recipe(), seed=1, total_kimg=0.008), tmp_path / "c")
    train(replace(recipe(), total_kimg=0.008), tmp_path / "d")
    assert not torch.equal(saved(tmp_path / "d", "G")["linear.weight"], saved(tmp_path / "c", "G")["linear.weight"])


def test_a_finished_run_is_left_alone_and_a_longer_one_goes_on(whole, tmp_path):
    short = replace(recipe(), total_kimg=0.08)
    train(short, tmp_path / "grown")
    before = saved(tmp_path / "grown", "G")
    train(short, tmp_path / "grown")
    assert same(before, saved(tmp_path / "grown", "G"))
    train(recipe(), tmp_path / "grown")
    assert_same_run(whole[0], tmp_path / "grown")


def newest_line(run_dir: Path) -> bytes:
    path = run_dir / "stats.jsonl"
    return path.read_bytes()[-200:] if path.exists() else b""


def test_kill_9_at_any_moment_then_resume_is_the_uninterrupted_run_bit_for_bit(tmp_path):
    """At moments chosen once: `benchmarks/attack.py` tries hundreds."""
    cfg = ("total_kimg=0.32", "terms=[R1(every=2),GradientPenalty]", "d_steps=2")
    whole = replace(recipe(), total_kimg=0.32, terms=(R1(every=2), GradientPenalty()), d_steps=2)
    train(whole, tmp_path / "whole")
    rng, killed = random.Random(1), 0
    for _ in range(4):
        before = newest_line(tmp_path / "killed")
        run = start(tmp_path / "killed", *cfg)
        while newest_line(tmp_path / "killed") == before and run.running:
            time.sleep(0.005)  # until this process has trained for a while
        run.after(time.perf_counter() - run.start + rng.uniform(0, 0.1), signal.SIGKILL)
        killed += run.end().outcome == "killed"
    assert killed > 0
    last = start(tmp_path / "killed", *cfg).end(60)
    assert last.outcome == "finished", last.said
    assert "error" not in last.said
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    for a, b in zip(lines(tmp_path / "whole"), lines(tmp_path / "killed"), strict=True):
        assert a | {"images_per_second": 0} == b | {"images_per_second": 0}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_iteration_saves_and_says_how_to_go_on(tmp_path, number):
    run_dir = tmp_path / "run"
    run = start(run_dir, "total_kimg=1000", "report.snapshot_kimg=1000")
    while not (run_dir / "stats.jsonl").exists() and run.running:
        time.sleep(0.02)
    run.after(0, number)
    ended = run.end(60)
    assert ended.code == 128 + number
    assert "The same command resumes from there" in ended.said
    assert "Traceback" not in ended.said
    (checkpoint,) = (run_dir / "checkpoints").iterdir()
    assert int(checkpoint.name) % 8 == 0
    assert str(checkpoint) in ended.said


@component
class PlainGenerator(GeneratorConfig):
    """Without batch statistics, which depend on how a batch is shared out."""

    z_dim: int = 4

    def build(self, spec: ImageSpec) -> nn.Module:
        layers = nn.Sequential(nn.Linear(self.z_dim, 28 * 28), nn.Tanh(), nn.Unflatten(1, (1, 28, 28)))
        return WithoutLabels(layers)


class WithoutLabels(nn.Module):
    def __init__(self, layers: nn.Module):
        super().__init__()
        self.layers = layers

    def forward(self, z, y=None):
        return self.layers(z)


def plain() -> TrainConfig:
    """Read by `torchrun` below as a recipe of a user's own file."""
    return replace(
        recipe(),
        generator=PlainGenerator(),
        head=replace(recipe().head, conditioning=NoConditioning()),
        terms=(R1(every=2),),
        d_optim=Adam(lr=1e-3, eps=1e-3),  # an element whose gradient is rounding noise stays put
        g_optim=Adam(lr=1e-3, eps=1e-3),
        total_kimg=0.08,
    )


def on_two_processes(run_dir: Path, *overrides: str) -> str:
    """Train `plain` there; what was said."""
    return command_on_two_processes(
        ["train", f"{HERE / 'test_train.py'}:plain", str(run_dir), *overrides], run_dir.parent
    )


def test_two_processes_equal_one_also_when_only_one_of_them_began(tmp_path):
    train(plain(), tmp_path / "one")
    train(replace(plain(), total_kimg=0.04), tmp_path / "two")
    said = on_two_processes(tmp_path / "two")
    assert (tmp_path / "two" / "checkpoints" / "000000000080").is_dir(), said
    for name in ("G", "D", "ema"):
        one, two = saved(tmp_path / "one", name), saved(tmp_path / "two", name)
        for key in one:
            torch.testing.assert_close(two[key], one[key], rtol=0, atol=1e-6)
    for a, b in zip(lines(tmp_path / "one"), lines(tmp_path / "two"), strict=True):
        for key in ("D/loss", "G/loss", "D/real", "D/fake", "D/R1"):
            assert a.get(key) == pytest.approx(b.get(key), abs=1e-4)


def test_what_only_rank_0_finds_is_said_once_and_ends_both(tmp_path):
    train(plain(), tmp_path / "run")
    said = on_two_processes(tmp_path / "run", "batch_size=16")
    assert said.count("batch_size: 8 -> 16") == 1
    assert "equipoise/runs/checkpoint.py" not in said  # a traceback


def test_divergence_stops_the_run_naming_quantity_place_and_last_good_checkpoint(tmp_path):
    explosive = replace(recipe(), d_optim=Adam(lr=Jump()), report=replace(recipe().report, log_kimg=0.016))
    with pytest.raises(RunError, match=r"G/loss is (nan|-?inf) at nimg=88\..*checkpoints/000000000080"):
        train(explosive, tmp_path)
    kept = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert kept == ["000000000040", "000000000080"]
    for name in ("G", "D", "ema"):
        assert all(value.isfinite().all() for value in saved(tmp_path, name).values())


def test_every_update_of_d_has_the_settings_of_its_moment(tmp_path, monkeypatch):
    """Its learning rate, betas and noise follow the images seen before it; G's, those before the iteration."""
    lr, beta = Linear(start=1e-3, end=2e-4, kimg=0.1), Linear(start=0.1, end=0.5, kimg=0.1)
    std = Linear(start=0.3, end=0.1, kimg=0.05)
    cfg = replace(
        recipe(), d_steps=3, d_optim=Adam(lr=lr, betas=(beta, 0.9)), g_optim=Adam(lr=lr), augment=InstanceNoise(std)
    )
    seen = {"D": [], "G": []}

    def noting(player, step):
        def wrapped(gan, batch, nimg, *args):
            (group,) = (gan.d_optim if player == "D" else gan.g_optim).param_groups
            seen[player].append((nimg, group["lr"], *group["betas"], gan.augment.std))
            return step(gan, batch, nimg, *args)

        return wrapped

    monkeypatch.setattr("equipoise.train.loop.d_step", noting("D", d_step))
    monkeypatch.setattr("equipoise.train.loop.g_step", noting("G", g_step))
    train(cfg, tmp_path)
    assert [nimg for nimg, *_ in seen["D"]] == list(range(0, 168, 8))
    assert [nimg for nimg, *_ in seen["G"]] == list(range(0, 168, 24))
    for nimg, *found in seen["D"]:
        t = min(nimg / 100, 1)
        assert found == pytest.approx([1e-3 - 8e-4 * t, 0.1 + 0.4 * t, 0.9, 0.3 - 0.2 * min(nimg / 50, 1)], rel=1e-12)
    for nimg, rate, *_ in seen["G"]:
        assert rate == pytest.approx(1e-3 - 8e-4 * min(nimg / 100, 1), rel=1e-12)


def test_a_run_with_schedules_and_several_updates_of_d_resumes_bit_for_bit(tmp_path):
    schedule = Linear(start=1e-3, end=2e-4, kimg=0.1)
    noise = InstanceNoise(Linear(start=0.3, end=0.1, kimg=0.1))
    cfg = replace(recipe(), d_steps=3, d_optim=Adam(lr=schedule), g_optim=Adam(lr=schedule), augment=noise)
    train(cfg, tmp_path / "whole")
    train(replace(cfg, total_kimg=0.07), tmp_path / "cut")
    train(cfg, tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@component
class Jump:
    """A learning rate that breaks after 80 images."""

    def __call__(self, nimg: int) -> float:
        return 1e-3 if nimg < 80 else 1e38


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("equipoise.train.start.world_size", lambda: 3)
    with pytest.raises(ValueError, match="batch_size=8 must be a multiple of the 3 processes"):
        train(recipe(), tmp_path)


def test_an_unwritable_directory_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"cannot write to .*file/run: Not a directory"):
        train(recipe(), tmp_path / "file" / "run")


def bytes_of_tensors() -> int:
    """Of every storage that Python can still reach."""
    gc.collect()
    tensors = [t for t in gc.get_objects() if type(t) in (torch.Tensor, nn.Parameter)]  # other tests leave fake ones
    tensors += [t.grad for t in tensors if t.is_leaf and t.grad is not None]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def test_training_holds_networks_average_optimisers_and_a_batch_and_no_more():
    cfg = replace(recipe(), terms=(R1(every=1),))
    dataset = cfg.data.build()
    before = bytes_of_tensors()
    gan = GAN.build(cfg, dataset.spec)
    ema = cfg.ema.build(gan.G)
    batch = next(InfiniteBatches(dataset, cfg.batch_size, seed=0))
    built = bytes_of_tensors() - before
    for i in range(3):
        d_step(gan, batch, i * cfg.batch_size)
        g_step(gan, batch, i * cfg.batch_size)
        ema.update(gan.G, (i + 1) * cfg.batch_size, cfg.batch_size)
    weights_of_both = sum(p.nbytes for net in (gan.G, gan.D) for p in net.parameters())
    moments = 2 * weights_of_both  # Adam's
    counters = 4 * sum(1 for net in (gan.G, gan.D) for _ in net.parameters())
    assert bytes_of_tensors() - before == pytest.approx(built + moments + counters, abs=64)
