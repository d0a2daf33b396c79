"""The command line: what it trains, says, draws and refuses."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from commands import run
from loops import loop_over
from PIL import Image
from tiny import recipe

import equipoise
from equipoise.train import train

TINY = f"{Path(__file__).parent / 'tiny.py'}:recipe"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "a"
    train(recipe(), run_dir)
    return run_dir


def test_help_and_recipes():
    assert "Train GANs that converge" in run("--help")
    assert run("--version") == f"equipoise {equipoise.__version__}\n"
    listed = run("recipes")
    for name in ("quickstart", "dcgan_digits", "sngan_digits", "sngan_digits_conditional"):
        assert name in listed
    for name in ("gan_digits", "san_digits", "san_digits_conditional"):
        assert name in listed


def test_dry_run_prints_the_config_that_would_be_trained_and_writes_nothing(tmp_path):
    from equipoise.config import components
    from equipoise.core.grammar import parse
    from equipoise.recipes import load

    said = run("train", "san_digits", tmp_path / "r", "loss=NonSaturating", "d_optim.lr=4e-4", "--dry-run")
    config = parse(said, components())
    assert repr(config.loss) == "NonSaturating(smoothing=0.0)"
    assert config.d_optim.lr == 4e-4
    assert config.g_optim == load("san_digits")[0].g_optim
    assert not (tmp_path / "r").exists()


def test_train_then_resume_then_refuse(tmp_path):
    run("train", TINY, tmp_path, "total_kimg=0.04")
    assert "done" in run("train", TINY, tmp_path, "total_kimg=0.08")
    said = run("train", TINY, tmp_path, "batch_size=16", code=2)
    assert "another config" in said
    assert "batch_size: 8 -> 16" in said


@loop_over(
    ("arguments", "message"),
    [
        (["sngan_digit"], "did you mean 'sngan_digits'"),
        (["nothing_like_it"], "known: acgan, ada, auto, biggan"),
        (["san_digits", "los=Hinge"], "TrainConfig has no field 'los'; did you mean 'loss'?"),
        (["san_digits", "loss=Hing"], "TrainConfig.loss takes a GANLoss, got 'Hing'"),
        (["san_digits", "loss=Hing()"], "unknown component 'Hing'; did you mean 'Hinge'?"),
        (["san_digits", "loss=R1"], "takes a GANLoss, got R1("),
        (["san_digits", "batch_size=0.5"], "TrainConfig.batch_size"),
        (["san_digits", "batch_size=true"], "TrainConfig.batch_size"),
        (["san_digits", "d_optim.lr=fast"], "Adam.lr"),
        (["san_digits", "loss"], "'loss' is not an override: give KEY=VALUE"),
        (["san_digits", "loss=RelativisticPairing"], "has no direction loss"),
        (
            ["san_digits", "head.conditioning=projection"],
            "Conditioning, got 'projection'; did you mean Projection()?",
        ),
        (["san_digits", "generator.conditional=true"], "no field 'conditional': G reads the class if D asks for it"),
        (["sngan_digits", "head.conditioning=SemiSupervised", "loss=Hinge"], "do not go together"),
        (["san_digits", "terms.0.every=8"], "'0' is not an index"),
        (["nowhere.py:recipe"], "there is no file nowhere.py"),
        (["tests/tiny.py"], "names no function"),
        (["san_digits", 'data=Images(path="/does/not/exist")'], "/does/not/exist"),
        (["san_digits", "--data", "photos"], "settings are given as KEY=VALUE, here data=photos"),
        (["san_digits", "--data=photos"], "settings are given as KEY=VALUE, here data=photos"),
        (["san_digits", "--batch-size", "8"], "settings are given as KEY=VALUE, here batch_size=8"),
        (["san_digits", "--lr", "1e-4"], "did you mean 'g_optim.lr' or 'd_optim.lr'?"),
        (["san_digits", "--resume"], "the same command resumes its run"),
        (["san_digits", "--dryrun"], "Possible options: --dry-run"),
        (
            ["san_digits", "data=photos"],
            "expected a data set or a path that exists, and 'photos' is neither; known: CIFAR10",
        ),
        (["san_digits", "lr=1e-4"], "no field 'lr'; did you mean 'g_optim.lr' or 'd_optim.lr'?"),
        (["san_digits", "lr="], "no field 'lr'; did you mean 'g_optim.lr' or 'd_optim.lr'?"),
        (["san_digits", "minutes=60"], "equipoise train auto RUN data=photos minutes=60"),
        (["san_digits", "epochs=100"], "no field 'epochs': give total_kimg"),
        (["san_digits", "image_size=64"], "give data.resolution, as in data.path=photos data.resolution=64"),
        (["san_digits", "device=cuda"], "no field 'device'; did you mean 'compute.device'?"),
        (["san_digits", "resume=true"], "the same command resumes its run"),
        (["san_digits", "resume="], "the same command resumes its run"),
    ],
)
def test_bad_input_is_one_clear_message(tmp_path, arguments, message):
    said = " ".join(run("train", arguments[0], tmp_path / "r", *arguments[1:], code=2).replace("│", " ").split())
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "r").exists()


def test_labels_missing_for_a_conditional_recipe(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(np.full((28, 28), i, np.uint8)).save(folder / f"{i}.png")
    said = run("train", TINY, tmp_path / "r", f'data=Images(path="{folder}")', code=2)
    assert "needs labelled data and this data has no labels" in said


def test_sample_writes_a_grid(trained, tmp_path):
    run("sample", trained, "--num", 20, "--out", tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size == (280, 56)
        assert picture.mode == "L"


def arrays(path):
    with np.load(path) as file:
        return dict(file)


def test_sample_writes_arrays_that_depend_on_the_seed_alone(trained, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run("sample", trained, "--num", 30, "--seed", seed, "--out", tmp_path / f"{name}.npz")
    a, b, c = (arrays(tmp_path / f"{name}.npz") for name in "abc")
    assert a["x"].shape == (30, 28, 28, 1)
    assert a["x"].dtype == np.uint8
    np.testing.assert_array_equal(a["y"], np.arange(30) % 10)
    np.testing.assert_array_equal(a["x"], b["x"])
    assert (a["x"] != c["x"]).any()


def test_sample_chosen_classes_into_a_folder(trained, tmp_path):
    run("sample", trained, "--num", 5, "--classes", "7,2", "--out", tmp_path / "folder")
    files = sorted(str(p.relative_to(tmp_path / "folder")) for p in (tmp_path / "folder").rglob("*.png"))
    assert files == ["2/000001.png", "2/000003.png", "7/000000.png", "7/000002.png", "7/000004.png"]
    again = run("sample", trained, "--num", 5, "--out", tmp_path / "folder", code=2)
    assert "is not empty" in again


@loop_over(
    ("options", "message"),
    [
        (["--classes", "11"], "no class 11: this generator knows classes 0 to 9"),
        (["--classes", "one"], "--classes takes ids separated by commas"),
        (["--out", "x.jpg"], "cannot write .jpg files"),
    ],
)
def test_sample_bad_input(trained, options, message):
    assert message in run("sample", trained, *options, code=2)


def test_sample_before_the_first_checkpoint(tmp_path):
    assert "holds no generator" in run("sample", tmp_path, code=2)


def test_sample_of_a_damaged_generator(trained, tmp_path):
    (tmp_path / "generator").mkdir()
    whole = (trained / "generator" / "generator.safetensors").read_bytes()
    (tmp_path / "generator" / "generator.safetensors").write_bytes(whole[:100])
    assert "is damaged" in run("sample", tmp_path, code=2)


def test_sample_of_the_users_own_network_needs_their_file(tmp_path):
    own = tmp_path / "own_gan.py"
    own.write_text(
        "from dataclasses import replace\n"
        "from equipoise.models import SANDigitsGenerator\n"
        "from equipoise.core.types import component\n"
        "from tiny import recipe as base\n"
        "@component\n"
        "class Mine(SANDigitsGenerator):\n"
        "    pass\n"
        "def recipe():\n"
        "    return replace(base(), generator=Mine(z_dim=3, width=2), total_kimg=0.04)\n"
    )
    run("train", f"{own}:recipe", tmp_path / "r")
    said = run("sample", tmp_path / "r", "--out", tmp_path / "x.png", code=2)
    assert "unknown component 'Mine'" in said
    assert "--recipe FILE.py:FUNCTION" in said
    run("sample", tmp_path / "r", "--recipe", f"{own}:recipe", "--out", tmp_path / "x.png")
    assert (tmp_path / "x.png").exists()


def test_prepare_then_train_on_it(tmp_path):
    run("data", "prepare", "digits", tmp_path / "set")
    run("train", TINY, tmp_path / "r", f'data=Images(path="{tmp_path / "set"}")', "total_kimg=0.04")
    assert "error" in run("data", "prepare", "digits", tmp_path / "set", code=2)


def test_an_image_does_not_depend_on_how_many_are_drawn(trained, tmp_path):
    for num in (3, 20, 37):
        run("sample", trained, "--num", num, "--out", tmp_path / f"{num}.npz")
    few, some, many = (arrays(tmp_path / f"{num}.npz")["x"] for num in (3, 20, 37))
    np.testing.assert_array_equal(few, some[:3])
    np.testing.assert_array_equal(some, many[:20])


def test_suggested_commands_can_be_pasted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('-it\'s a "run"', "$HOME;#"):
        said = run("train", TINY, "--", name, "total_kimg=0.04").splitlines()[-1]
        command = shlex.split(said.partition(". Next: ")[2], comments=True)
        assert command[0] == "equipoise"
        run(*command[1:])
        assert Path("samples.png").exists()
        Path("samples.png").unlink()
    said = run("data", "prepare", "digits", 'a "set" of it\'s')
    (data,) = shlex.split(said.rpartition("Train with: ")[2])
    run("train", TINY, "b", data, "total_kimg=0.04")


@loop_over(
    "arguments", [["train", TINY, ""], ["sample", ""], ["sample", ".", "--out", ""], ["data", "prepare", "digits", ""]]
)
def test_an_empty_argument_is_refused(tmp_path, monkeypatch, arguments):
    """It would name the working directory."""
    monkeypatch.chdir(tmp_path)
    assert "an argument is empty" in run(*arguments, code=2)
    with pytest.raises(ValueError, match="run_dir is empty"):
        train(recipe(), "")
    assert not list(tmp_path.iterdir())


def test_out_of_memory_is_one_line_in_every_command(trained, tmp_path):
    said = run("sample", trained, "--num", 2**44, "--out", tmp_path / "x.npz", code=1)
    assert said == "error: out of memory: ask for less at a time, such as fewer images or a smaller batch\n"
