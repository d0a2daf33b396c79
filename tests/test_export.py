"""What is exported, read by others: safetensors, onnxruntime, torch.export, YAML; and the model card."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from commands import run
from fixtures import fixture, numbers
from loops import loop_over
from networks import of_g
from PIL import Image
from safetensors.numpy import load_file, save_file
from test_models import every_generator, grey, narrow
from tiny import recipe
from torch import nn
from torch.nn.utils import parametrize
from torch.testing import assert_close

import equipoise
from equipoise.config import components, override
from equipoise.core.types import ImageSpec, RunError, component
from equipoise.evaluate import open_source
from equipoise.generate import (
    FORMATS,
    Generator,
    export,
    grid,
    model_card,
    modelcard,
    sample,
    save_generator,
    save_hub_folder,
    save_onnx,
    save_program,
    truncated,
)
from equipoise.generate.export import traced
from equipoise.models import DCGANGenerator, MLPGenerator, SANDigitsGenerator, StyleGAN2Generator
from equipoise.nn import ScaledLinear, VirtualBatchNorm
from equipoise.rules import Evaluate
from equipoise.runs import read_run
from equipoise.train import train
from equipoise.weights import ExactSpectralNorm, SpectralNorm, WeightNorm

GREY, COLOUR = ImageSpec(8, 1, 10), ImageSpec(8, 3, 10)
dcgan = DCGANGenerator(z_dim=9, width=4)
KINDS = {
    "one-hot": (dcgan, GREY),
    "gains of each class": (dataclasses.replace(dcgan, class_input="batch_norm", norm="sync_batch"), GREY),
    "shared embedding, skip_z": (
        dataclasses.replace(dcgan, class_input="shared", skip_z=True, embed=5),
        COLOUR,
    ),
    "styles": (
        StyleGAN2Generator(z_dim=9, w_dim=8, mapping_layers=1, channel_base=64, channel_max=4),
        ImageSpec(16, 3, 10),  # its smallest
    ),
    "virtual batch norm": (DCGANGenerator(z_dim=9, width=4, norm="virtual"), of_g(GREY, False)),
}


def lively(config, spec):
    """A generator whose images differ, in its weights and statistics like a trained one: at first they are all grey."""
    net = config.build(spec)
    for module in net.modules():
        if isinstance(module, ScaledLinear):
            continue  # images of equalised networks differ from the start
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5 if module.weight.ndim == 2 else 0.3)
        if isinstance(module, VirtualBatchNorm):
            nn.init.normal_(module.bias)
    y = torch.arange(32) % 10 if spec.num_classes else None
    for _ in range(3):
        net(torch.randn(32, config.z_dim), y)
    return Generator(net.eval().requires_grad_(False), config, spec, nimg=640)


def given(generator, num):
    z = torch.randn(num, generator.config.z_dim)
    return (z, torch.arange(num) * 7 % generator.spec.num_classes) if generator.conditional else (z,)


def ours(generator, z, y=None):
    x = generator.net(z, y)
    assert len(x) == 1 or x.std(0).mean() > 0.05  # else any answer would be near
    return x


def read_pt2(path):
    return torch.export.load(path).module()


def read_onnx(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def call(*arguments):
        return torch.from_numpy(session.run(["x"], dict(zip("zy", (a.numpy() for a in arguments), strict=False)))[0])

    return call


FOREIGN = {".pt2": (save_program, read_pt2), ".onnx": (save_onnx, read_onnx)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", FOREIGN)
def test_a_program_agrees_with_ours_whatever_the_batch_size(ending, kind, tmp_path):
    generator, (save, read), path = lively(*KINDS[kind]), FOREIGN[ending], tmp_path / f"g{ending}"
    save(generator, path)
    theirs = read(path)
    for num in (5, 1, 2):
        arguments = given(generator, num)
        assert_close(theirs(*arguments), ours(generator, *arguments), atol=1e-5, rtol=0)
    for told in (str(Path(equipoise.__file__).parent), "site-packages", "self.layers"):
        assert told.encode() not in path.read_bytes()  # torch traces the files and lines that computed each value
    if ending == ".onnx":
        assert_describes_itself(onnx.load(path), generator)


@every_generator
def test_every_generator_is_a_program(generator):
    G = lively(narrow(generator, z_dim=5), grey(generator))
    z, y = given(G, 3)
    assert_close(traced(G).module()(z, y), G.net(z, y), atol=1e-5, rtol=0)


def assert_describes_itself(model, generator):
    shapes = {
        value.name: (
            value.type.tensor_type.elem_type,
            [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
        )
        for value in (*model.graph.input, *model.graph.output)
    }
    real, whole = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    y = {"y": (whole, ["N"])} if generator.conditional else {}
    assert shapes == y | {
        "z": (real, ["N", 9]),
        "x": (real, ["N", generator.spec.channels, *[generator.spec.resolution] * 2]),
    }
    assert {entry.key: entry.value for entry in model.metadata_props} == generator.about


def test_a_program_needs_nothing_of_equipoise(tmp_path, monkeypatch):
    generator = lively(MLPGenerator(z_dim=9, width=32), of_g(GREY, False))
    save_program(generator, tmp_path / "g.pt2")
    for name in [name for name in sys.modules if name.partition(".")[0] == "equipoise"]:
        monkeypatch.setitem(sys.modules, name, None)
    extra = {"equipoise.json": ""}
    theirs = torch.export.load(tmp_path / "g.pt2", extra_files=extra).module()
    z = torch.randn(3, 9)
    assert_close(theirs(z), generator.net(z, None), atol=1e-5, rtol=0)
    assert json.loads(extra["equipoise.json"]) == generator.about


# ---- normalisers -----------------------------------------------------------------------------------------


@loop_over("normalizer", [SpectralNorm(), ExactSpectralNorm(), WeightNorm()], ids=repr)
def test_normalisers_are_folded_away(normalizer, tmp_path):
    config, spec = KINDS["one-hot"]
    net = config.build(spec)
    normalizer(net)
    y = torch.arange(32) % 10
    for _ in range(20):
        net(torch.randn(32, 9), y)
    generator = Generator(net.eval(), config, spec)
    save_generator(generator, tmp_path / "g.safetensors")
    weights = load_file(tmp_path / "g.safetensors")
    assert weights.keys() == config.build(spec).state_dict().keys()
    assert parametrize.is_parametrized(net.layers[1])  # ours is as it was
    if not isinstance(normalizer, WeightNorm):
        matrix = weights["layers.1.weight"].swapaxes(0, 1)  # of a transposed convolution, outputs are on axis 1
        assert np.linalg.norm(matrix.reshape(len(matrix), -1), 2) == pytest.approx(1, abs=1e-2)
    z, y = given(generator, 6)
    with torch.no_grad():
        expected = net(z, y)
    again = Generator.from_pretrained(tmp_path / "g.safetensors")
    assert_close(again.net(z, y), expected, atol=1e-5, rtol=0)
    save_program(generator, tmp_path / "g.pt2")
    assert_close(read_pt2(tmp_path / "g.pt2")(z, y), expected, atol=1e-5, rtol=0)


def test_a_run_with_a_normalised_generator_goes_on_after_its_first_checkpoint(tmp_path):
    averaged = train(override(recipe(), {"g_normalizer": SpectralNorm(), "total_kimg": 0.096}), tmp_path)
    assert parametrize.is_parametrized(averaged.linear)
    G = Generator.from_pretrained(tmp_path)
    assert G.nimg == 96
    z, y = given(G, 6)
    assert_close(G.net(z, y), averaged(z, y), atol=1e-5, rtol=0)


# ---- a run -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that was measured half-way and at its end."""
    folder = tmp_path_factory.mktemp("trained") / "my_digits"
    asked = Evaluate(every_kimg=0.08, metrics=("classes",), num=50, seed=3, features="digits", best="top_probability")
    train(override(recipe(), {"report.evaluation": asked}), folder)
    return folder


def measurements(trained):
    return [line for line in read_run(trained).stats if "eval/top_probability" in line]


@pytest.fixture
def folder(trained, tmp_path):
    return export(trained, "hub-folder", tmp_path / "published")


def test_a_single_file_is_the_generator_of_the_run(trained, tmp_path):
    path = export(trained, "safetensors", tmp_path / "g.safetensors")
    G, weights = Generator.from_pretrained(trained), load_file(path)
    assert weights.keys() == G.net.state_dict().keys()
    for name, value in G.net.state_dict().items():
        np.testing.assert_array_equal(weights[name], value)
    again = Generator.from_pretrained(str(path))
    assert (again.config, again.spec, again.nimg, again.truncation) == (
        recipe().generator,
        ImageSpec(28, 1, 10),
        160,
        None,
    )
    assert not any(parameter.requires_grad for parameter in again.net.parameters())


def test_a_published_folder_is_used_in_three_lines(trained, folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        *("README.md", "config.json", "config.txt", "model.safetensors", "samples.png")
    ]
    x, y = next(sample(Generator.from_pretrained(trained), 16, seed=0))
    example = re.search(r"```python\n(from equipoise.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    names = {}
    exec(example.replace("FOLDER", str(folder)), names)
    np.testing.assert_array_equal(names["images"], x)
    G = names["G"]
    assert G.sample(3, seed=1).shape == (3, 28, 28, 1)
    assert (G.sample(16, seed=1) != x).any()
    threes = G.sample(16, seed=0, classes=[3])
    np.testing.assert_array_equal(threes[y == 3], x[y == 3])
    assert (threes[y != 3] != x[y != 3]).any()
    with pytest.raises(ValueError, match="num must be at least 1, got 0"):
        G.sample(0)
    with pytest.raises(ValueError, match="no class 10: this generator knows classes 0 to 9"):
        G.sample(2, classes=[10])


def test_the_front_matter_is_what_the_hub_reads(folder):
    front = (folder / "README.md").read_text().split("---\n")[1]
    assert yaml.safe_load(front) == {
        "library_name": "equipoise",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["gan", "image-generation"],
    }
    chosen = yaml.safe_load(front.replace("# license:", "license:"))
    assert chosen["license"] == "apache-2.0"  # as the comment says to do


def test_a_card_shows_what_the_generator_draws(folder):
    picture = np.asarray(Image.open(folder / "samples.png"))
    np.testing.assert_array_equal(picture[..., None], grid(Generator.from_pretrained(folder).sample(100, seed=0)))
    text = (folder / "README.md").read_text()
    assert "(samples.png)" in text
    assert "`G.sample(100, seed=0)`, a class a column" in text


def test_a_card_tells_how_it_was_trained(trained, folder):
    text = (folder / "README.md").read_text()
    assert text.split("---\n")[2].startswith("\n# my_digits\n")
    assert (trained / "config.txt").read_text() in text
    assert (folder / "config.txt").read_bytes() == (trained / "config.txt").read_bytes()
    assert "- Data: `Digits()`" in text
    learned = sum(parameter.numel() for parameter in recipe().generator.build(ImageSpec(28, 1, 10)).parameters())
    assert f"`{recipe().generator!r}`, {learned:,} parameters" in text
    assert "discriminator had seen: 160\n" in text
    assert f"equipoise {equipoise.__version__}, torch {torch.__version__}" in text
    assert "has been chosen yet" in text.partition("## Licence")[2]


def test_a_card_holds_the_numbers_of_this_generator(trained, tmp_path):
    """Of the last one, and of the best, whose numbers are not the last."""
    lines = {line["nimg"]: line for line in measurements(trained)}
    assert list(lines) == [80, 160]
    shown = {}
    for name, place in (("last", trained), ("best", trained / "best")):
        folder = export(place, "hub-folder", tmp_path / name)
        nimg = Generator.from_pretrained(folder).nimg
        text = (folder / "README.md").read_text()
        assert "50 images, seed 3, features `digits`, against the data it is trained on." in text
        assert "not to this one" not in text
        shown[name] = {
            key: (float(value), better)
            for key, value, better in re.findall(r"^\| (\w+) \| ([\d.e+-]+) \| (\w*) \|$", text, re.MULTILINE)
        }
        for key, (value, _) in shown[name].items():
            assert value == pytest.approx(lines[nimg][f"eval/{key}"], rel=1e-3)
        assert shown[name]["top_probability"][1] == "higher"


def test_a_card_says_whose_the_numbers_are_if_not_of_this_one(trained):
    G, run_ = Generator.from_pretrained(trained), read_run(trained)
    assert "after 160 real images, not to this one" in model_card(dataclasses.replace(G, nimg=120), run_)
    assert "measured without truncation" in model_card(dataclasses.replace(G, truncation=0.5), run_)
    early, late = (f"| top_probability | {line['eval/top_probability']:.4g} |" for line in measurements(trained))
    assert early != late
    for nimg, shown, other in ((80, early, late), (160, late, early), (120, late, early)):
        card = model_card(dataclasses.replace(G, nimg=nimg), run_)
        assert shown in card
        assert other not in card
    unmeasured = model_card(G, run_._replace(stats=run_.stats[:1]))
    assert "No evaluation is on record." in unmeasured
    assert "| number |" not in unmeasured


def test_config_json_repeats_what_the_weights_stand_beside(folder):
    found, G = json.loads((folder / "config.json").read_text()), Generator.from_pretrained(folder)
    assert found == {
        "library_name": "equipoise",
        "generator": repr(G.config),
        "spec": {"resolution": 28, "channels": 1, "num_classes": 10},
        "truncation": None,
        "nimg": 160,
    }


def test_a_folder_is_measured_and_read_like_its_run(trained, folder):
    ((x, y),), ((expected, classes),) = (open_source(place).draw(20, 4, 20) for place in (folder, trained))
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(y, classes)
    assert open_source(folder).sha256 == open_source(folder / "model.safetensors").sha256
    assert read_run(folder).config == read_run(trained).config


def test_a_truncated_generator_stays_truncated(trained, tmp_path):
    path = export(trained, "safetensors", tmp_path / "g.safetensors", truncation=0.3)
    expected = truncated(Generator.from_pretrained(trained), 0.3)
    G = Generator.from_pretrained(path)
    assert G.truncation == 0.3
    np.testing.assert_array_equal(G.sample(8), expected.sample(8))
    assert (G.sample(8) != Generator.from_pretrained(trained).sample(8)).any()
    with pytest.raises(ValueError, match=r"truncated already, at 0\.3"):
        export(path, "pt2", tmp_path / "g.pt2", truncation=0.5)


@loop_over(
    ("recorded", "typed"),
    [
        (["/opt/venv/bin/equipoise", "train", "san", "runs/a"], "equipoise train san runs/a"),
        (
            ["/src/equipoise/__main__.py", "train", "a b", "terms=[R1(gamma=5)]"],
            "equipoise train 'a b' 'terms=[R1(gamma=5)]'",
        ),
        (["/home/somebody/work/loop.py", "--lr", "1"], "python loop.py --lr 1"),
    ],
)
def test_a_command_is_shown_as_it_is_typed(recorded, typed):
    assert modelcard.command(shlex.join(recorded)) == typed


def test_a_grid_fits_the_page():
    def shape(resolution, classes=0):
        return modelcard.grid_of(Generator(nn.Identity(), MLPGenerator(z_dim=2), ImageSpec(resolution, 3, classes)))

    assert shape(28) == shape(28, 10) == shape(128) == (10, 100)
    assert shape(28, 3) == (3, 30)
    assert shape(28, 1000) == (10, 100)
    assert shape(256, 2) == (2, 10)
    assert shape(256, 8) == shape(256) == (5, 25)
    assert shape(2048) == (1, 1)


# ---- of somebody's own -----------------------------------------------------------------------------------


@component
class Mine(SANDigitsGenerator):
    pass


def test_an_architecture_of_ones_own_is_named(trained, tmp_path):
    G = Generator.from_pretrained(trained)
    own = dataclasses.replace(G, config=Mine(z_dim=4, width=2))
    save_hub_folder(own, read_run(trained), tmp_path / "own")
    with pytest.raises(ValueError, match=r"unknown component 'Mine'.*known=\{'NAME': CLASS\}"):
        Generator.from_pretrained(tmp_path / "own")
    text = (tmp_path / "own" / "README.md").read_text()
    assert 'Generator.from_pretrained("FOLDER", known={"Mine": Mine})' in text
    assert "`Mine` is not part of Equipoise" in text
    again = Generator.from_pretrained(tmp_path / "own", known={"Mine": Mine})
    np.testing.assert_array_equal(again.sample(4), G.sample(4))


# ---- what is refused -------------------------------------------------------------------------------------


def test_an_unknown_format(trained):
    with pytest.raises(ValueError, match="cannot export to 'onyx'; did you mean 'onnx'"):
        export(trained, "onyx")


@loop_over("to", FORMATS)
def test_a_name_that_does_not_fit_the_format(trained, to, tmp_path):
    with pytest.raises(ValueError, match=r"NAME\.\w+; got|without an ending; got"):
        export(trained, to, tmp_path / "g.zip")


def test_a_folder_that_is_not_empty(trained, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match="is not empty: choose another folder"):
        export(trained, "hub-folder", folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_empty_folder_is_filled(trained, tmp_path):
    (tmp_path / "new").mkdir()
    assert (export(trained, "hub-folder", tmp_path / "new") / "README.md").exists()


@loop_over("to", FORMATS)
def test_a_run_without_a_generator(to, tmp_path):
    with pytest.raises(ValueError, match="holds no generator: give a run that has reached its first checkpoint"):
        export(tmp_path, to, tmp_path / f"g{FORMATS[to]}")
    assert list(tmp_path.iterdir()) == []


def test_a_card_needs_the_run(trained, tmp_path):
    path = export(trained, "safetensors", tmp_path / "g.safetensors")
    with pytest.raises(ValueError, match=r"g\.safetensors is not a run: it holds no config\.txt"):
        export(path, "hub-folder", tmp_path / "hub")


def test_files_that_are_damaged_or_foreign(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    weights, about = load_file(path), Generator.from_pretrained(folder).about
    for length in (0, 5, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is damaged"):
            Generator.from_pretrained(folder)
    for metadata in (None, {"format": "pt"}):
        save_file(weights, path, metadata)
        with pytest.raises(ValueError, match="is not a generator of equipoise: it does not name"):
            Generator.from_pretrained(folder)
    save_file(weights, path, about | {"generator": "Digits()"})
    with pytest.raises(ValueError, match=r"its architecture is Digits\(\)"):
        Generator.from_pretrained(folder)
    del weights["linear.bias"]
    save_file(weights, path, about)
    with pytest.raises(ValueError, match=r"do not fit its architecture[\s\S]*linear\.bias"):
        Generator.from_pretrained(folder)


@loop_over("missing", ["onnx", "onnxscript"])
def test_onnx_without_its_packages(trained, missing, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ValueError, match=r"pip install -c constraints.txt '\.\[export\]'"):
        export(trained, "onnx", tmp_path / "g.onnx")
    export(trained, "pt2", tmp_path / "g.pt2")  # which needs neither


def test_a_folder_is_there_whole_or_not_at_all(trained, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(importlib.import_module("equipoise.generate.export"), "save_generator", full)
    with pytest.raises(RunError, match=r"cannot write to .*hub: No space left on device"):
        export(trained, "hub-folder", tmp_path / "hub")
    assert list(tmp_path.iterdir()) == []


def test_the_command(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for to in FORMATS:
        assert "wrote" in run("export", trained, "--to", to)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("generator.onnx", "generator.pt2", "generator.safetensors", "hub-folder")
    ]
    assert "did you mean 'pt2'" in run("export", trained, "--to", "pt", code=2)
    assert "is not empty" in run("export", trained, "--to", "hub-folder", code=2)
    run("export", trained, "--to", "safetensors", "--truncation", 0.5, "--out", "few.safetensors")
    assert Generator.from_pretrained("few.safetensors").truncation == 0.5
    run("sample", "hub-folder", "--num", 4, "--out", "four.png")
    assert (tmp_path / "four.png").exists()


def test_known_components_are_added_to_the_librarys(trained):
    assert "Mine" not in components()
    assert Generator.from_pretrained(trained, known={"Mine": Mine}).config == recipe().generator


# ---- of earlier versions ---------------------------------------------------------------------------------


@loop_over(("name", "classes"), [("conditional", 3), ("unconditional", 0)])
def test_a_generator_that_says_itself_whether_it_reads_the_class_is_read(name, classes, tmp_path):
    G = Generator.from_pretrained(fixture(f"old/{name}.safetensors"))
    assert G.spec == ImageSpec(8, 1, classes)
    wanted = numbers(f"old/{name}.npz")["x"].astype(int)
    np.testing.assert_allclose(G.sample(6, seed=1), wanted, atol=1)  # a rounding of each machine's
    assert wanted.std() > 10
    save_generator(G, tmp_path / "G.safetensors")
    assert "conditional" not in G.about["generator"]
    again = Generator.from_pretrained(tmp_path / "G.safetensors")
    assert (again.config, again.spec, again.nimg) == (G.config, G.spec, 7)
