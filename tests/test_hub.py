"""The Hugging Face Hub: push, draw, start from it; names, licences, and all that is refused.

Over HTTP against a server of the tests where huggingface_hub is installed, else against a stand-in of that package.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run
from hub import served
from loops import loop_over
from runs import same, saved
from safetensors.torch import load_file, save_file
from tiny import recipe

from equipoise.config import override
from equipoise.core.types import RunError
from equipoise.generate import Generator, export, push
from equipoise.rules import FreezeD, Transfer
from equipoise.runs import hub_name, networks_of
from equipoise.train import load_networks, train


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A finished run of tiny.py."""
    path = tmp_path_factory.mktemp("source") / "digits"
    train(recipe(), path)
    return path


@pytest.fixture(scope="module")
def both(source, tmp_path_factory):
    """Its export with D."""
    return export(source, "hub-folder", tmp_path_factory.mktemp("exported") / "both", with_discriminator=True)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with served(tmp_path / "cache", monkeypatch) as hub:
        yield hub


CARD = {"README.md", "config.json", "config.txt", "model.safetensors", "samples.png"}


# ---- there and back --------------------------------------------------------------------------------------


def test_a_pushed_generator_draws_the_images_of_its_run(source, hub):
    done = push(source, "you/digits", licence="cc-by-4.0")
    files = hub.repos["you/digits"]
    assert files.keys() - {".gitattributes"} == CARD == {name for name, _ in done.files}
    assert done.address.endswith("/you/digits")
    assert all(len(files[name]) == size for name, size in done.files)
    G = Generator.from_pretrained("you/digits")
    np.testing.assert_array_equal(G.sample(8), Generator.from_pretrained(source).sample(8))
    assert hub.asked == ["model.safetensors"]  # nothing else of a repository is fetched to draw
    card = files["README.md"].decode()
    assert "\nlicense: cc-by-4.0\n" in card.split("---\n")[1]
    assert "cc-by-4.0, for the weights." in card.partition("## Licence")[2]
    assert 'Generator.from_pretrained("you/digits")' in card
    assert "- Data: `Digits()`" in card
    assert "networks.safetensors" not in card


def test_a_run_starts_from_the_hub_as_from_the_run_itself(source, hub, tmp_path):
    """Networks, average and licence; no optimiser, and no file but those."""
    push(source, "you/digits", with_discriminator=True, licence="cc-by-4.0")
    assert 'start=Transfer(run="you/digits")' in hub.repos["you/digits"]["README.md"].decode()
    cfg = override(recipe(), {"total_kimg": 0.04, "seed": 3})
    for place, folder in (("you/digits", "hub"), (str(source), "run")):
        train(override(cfg, {"start": FreezeD(run=place, layers=1)}), tmp_path / folder)
    assert all(same(saved(tmp_path / "hub", name), saved(tmp_path / "run", name)) for name in ("G", "D", "ema"))
    assert set(hub.asked) == {"networks.safetensors", "README.md"}
    notice = (tmp_path / "hub" / "NOTICE.txt").read_text()
    assert f"began as you/digits (commit {hub.commit('you/digits')}) on the Hugging Face Hub" in notice
    assert "names the licence cc-by-4.0" in notice
    assert not (tmp_path / "run" / "NOTICE.txt").exists()
    with pytest.raises(ValueError, match=r"whose licence applies .*NOTICE"):
        push(tmp_path / "hub", "you/more", licence="apache-2.0")
    assert "you/more" not in hub.repos
    push(tmp_path / "hub", "you/more")
    assert hub.repos["you/more"]["NOTICE.txt"].decode() == notice
    assert notice.strip() in hub.repos["you/more"]["README.md"].decode()


def test_an_exported_folder_holds_the_networks_as_they_were_trained(source, both):
    """Spectral norms are not folded away, and nothing in the folder is a pickle."""
    networks = networks_of(both)
    for name in ("G", "D", "ema"):
        assert same(networks.weights[name], saved(source, name))
    assert networks.spec.num_classes == 10
    assert {path.name for path in both.iterdir()} == CARD | {"networks.safetensors"}
    assert networks_of(source).spec == networks.spec
    nets = {"G": recipe().generator.build(networks.spec)}
    load_networks(Transfer(run=both), nets, 10)
    assert same(nets["G"].state_dict(), saved(source, "G"))


def test_a_pushed_folder_is_pushed_as_it_is_and_without_strangers(both, hub, tmp_path):
    for path in both.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "README.md").write_text("my own card")
    (tmp_path / "secret.txt").write_text("token")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "config.txt").write_text("another")
    done = push(tmp_path, "you/edited")
    assert {name for name, _ in done.files} == CARD | {"networks.safetensors"}
    assert hub.repos["you/edited"].keys() - {".gitattributes"} == CARD | {"networks.safetensors"}
    assert hub.repos["you/edited"]["README.md"] == b"my own card"
    with pytest.raises(ValueError, match="exported already, and --licence belongs to the export"):
        push(tmp_path, "you/edited", licence="mit")


def test_the_second_time_the_cache_does(source, hub, tmp_path):
    push(source, "you/digits")
    expected = Generator.from_pretrained("you/digits").sample(2)
    hub.online = False
    np.testing.assert_array_equal(Generator.from_pretrained("you/digits").sample(2), expected)
    with pytest.raises(ValueError, match="cannot read you/other from the Hugging Face Hub: there is no connection"):
        Generator.from_pretrained("you/other")


# ---- the command -----------------------------------------------------------------------------------------


def test_a_dry_run_lists_files_and_needs_neither_hub_nor_package(source, hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    said = run("push", source, "you/digits", "--private", "--with-discriminator", "--dry-run")
    assert "would push to you/digits (private):" in said
    listed = {
        line.split("  ")[1]: int(line.split("  ")[2].split()[0].replace(",", ""))
        for line in said.splitlines()
        if line.startswith("  ")
    }
    assert listed.keys() == CARD | {"networks.safetensors"}
    assert min(listed.values()) > 100
    assert "they may name your folders" in said
    assert hub.repos == {}


def test_private_means_private(source, hub):
    """A repository that is there keeps its visibility, so a public one is refused before a file leaves."""
    said = run("push", source, "you/hidden", "--private", "--license", "mit")
    assert "pushed to you/hidden (private):" in said
    assert hub.private == {"you/hidden"}
    hub.repos["you/open"] = {}
    said = run("push", source, "you/open", "--private", code=1)
    assert "you/open is a public repository, and --private was asked for: nothing was uploaded" in said
    assert hub.repos["you/open"] == {}


@pytest.mark.parametrize("command", [["sample", "you/digits"], ["push", "SOURCE", "you/digits"]])
def test_without_the_package_the_extra_is_named_in_one_line(command, source, hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    said = run(*(source if word == "SOURCE" else word for word in command), code=2)
    assert "needs the package huggingface_hub: pip install -c constraints.txt '.[hub]'" in said
    assert len(said.strip().splitlines()) == 1


def test_a_connection_that_is_gone_is_one_line(source, hub):
    hub.online = False
    with pytest.raises(RunError, match="cannot push to you/digits on the Hugging Face Hub: "):
        push(source, "you/digits")
    cfg = override(recipe(), {"start": Transfer(run="you/nothing")})
    with pytest.raises(ValueError, match="cannot read you/nothing from the Hugging Face Hub: there is no connection"):
        train(cfg, "run")


# ---- names -----------------------------------------------------------------------------------------------


def test_this_machine_comes_first(tmp_path, monkeypatch):
    """A mistyped path in a folder that is here is not looked for on the Hub."""
    monkeypatch.chdir(tmp_path)
    assert hub_name("you/name") == ("you/name", None)
    assert hub_name(Path("you/name")) == ("you/name", None)
    assert hub_name("you/name@v1.0") == ("you/name", "v1.0")
    (tmp_path / "you").mkdir()
    assert hub_name("you/name") is None
    assert hub_name("hf://you/name") == hub_name(Path("hf://you/name")) == ("you/name", None)


OTHERS = [
    "name",
    "./you/name",
    "/you/name",
    "a/b/c",
    "../name",
    "you/..",
    "you/../x",
    "you/na me",
    "hf://you",
    "~/name",
]
OTHERS += [
    "hf://../name",
    "hf://you/..%2f",
    "you/name@../../x",
    "",
    "you/g.safetensors",
    "http://you/name",
    "you\\name",
]


@loop_over("path", OTHERS)
def test_other_places_are_paths(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hub_name(path) is None


def test_names_that_cannot_be_pushed_to(source, hub):
    for name in ("digits", "../x", "you/a/b", "you/name@main", "runs/../x"):
        with pytest.raises(ValueError, match="is not a name on the Hub: give your name and the model's"):
            push(source, name)
    with pytest.raises(ValueError, match="not one of the Hub's names"):
        push(source, "you/x", licence="mine\nprivate: true")
    assert hub.repos == {}


# ---- what is refused -------------------------------------------------------------------------------------


def test_repositories_that_hold_something_else(source, both, hub, tmp_path):
    with pytest.raises(ValueError, match=r"cannot read you/none from .* there is no such repository, or it is private"):
        Generator.from_pretrained("you/none")
    push(source, "you/alone")
    with pytest.raises(ValueError, match=r"you/alone on .* holds no networks\.safetensors.* --with-discriminator"):
        networks_of("you/alone")
    hub.repos["you/pickle"] = {
        "model.pkl": b"cos\nsystem\n.",
        "../../pwned": b"x",
        "a/config.txt": b"",
    }
    with pytest.raises(ValueError, match="you/pickle holds no generator"):
        Generator.from_pretrained("you/pickle")
    assert set(hub.asked) <= {"networks.safetensors", "README.md", "model.safetensors"}
    assert not list(tmp_path.rglob("*pwned*"))


def test_networks_that_are_damaged(both, hub, tmp_path):
    whole = (both / "networks.safetensors").read_bytes()
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    path = tmp_path / "networks.safetensors"
    for content in (whole[:-1], bytes(flipped), b"", b"\x80\x04N."):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"networks\.safetensors is damaged"):
            networks_of(tmp_path)
    weights = load_file(both / "networks.safetensors")
    for named, about, message in (
        (weights, {}, "has form"),
        ({"G.x": torch.ones(1)}, {"networks": "1"}, "holds G; expected G, D, ema"),
        (weights, {"networks": "1", "spec": "{}"}, "is damaged: its spec is"),
        (weights, {"networks": "1", "spec": "[1"}, "the spec in .* holds no JSON"),
        (weights | {"G.x": torch.tensor(float("nan"))}, {"networks": "1"}, "holds NaN or Inf"),
    ):
        save_file(named, path, about)
        with pytest.raises(ValueError, match=message):
            networks_of(tmp_path)


def test_exports_that_cannot_hold_d(source, tmp_path):
    with pytest.raises(ValueError, match="D is for a folder that other runs start from"):
        export(source, "onnx", tmp_path / "g.onnx", with_discriminator=True)
    (tmp_path / "best" / "generator").mkdir(parents=True)
    generator = (source / "generator" / "generator.safetensors").read_bytes()
    (tmp_path / "best" / "generator" / "generator.safetensors").write_bytes(generator)
    (tmp_path / "config.txt").write_bytes((source / "config.txt").read_bytes())
    with pytest.raises(ValueError, match="keeps the generator alone: give the run itself"):
        export(tmp_path / "best", "hub-folder", tmp_path / "out", with_discriminator=True)
    alone = export(source, "hub-folder", tmp_path / "alone")
    with pytest.raises(ValueError, match="exported without D: export it again, with --with-discriminator"):
        networks_of(alone)
