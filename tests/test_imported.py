"""Published networks as runs: the same images, every command, the licence, and training further at other sizes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run
from fixtures import numbers
from stand_ins import file_of, tensorflow_file
from torch import Tensor

from equipoise import Generator
from equipoise.config import override
from equipoise.core.types import ImageSpec
from equipoise.data import Images
from equipoise.generate import import_published
from equipoise.models import Head, MappedProjection, StyleGAN2Discriminator, StyleGAN2Generator
from equipoise.models.pickled import read_published
from equipoise.models.published import network
from equipoise.rules import FreezeD, Report, Transfer
from equipoise.runs import Checkpoints, newest_whole, read_run
from equipoise.train import load_networks, train

SMALL = "stylegan/sg2_variants_r16_cond.npz"


def nets_of(name: str) -> tuple[dict[str, np.ndarray], dict[str, tuple]]:
    """The numbers of a fixture, and networks as (class, arguments, state). Its G is G_ema here; G is another."""
    arrays = numbers(name)
    config = json.loads(str(arrays["config"]))

    def state(net: str) -> dict[str, Tensor]:
        return {k.removeprefix(f"{net}/"): torch.tensor(v) for k, v in arrays.items() if k.startswith(f"{net}/")}

    G_ema = ("Generator", config["G_kwargs"], state("G"))
    G = ("Generator", config["G_kwargs"], {name: value + 1 for name, value in state("G").items()})
    return arrays, {"G": G, "D": ("Discriminator", config["D_kwargs"], state("D")), "G_ema": G_ema}


def imported(tmp_path: Path, nets: dict[str, tuple], name: str = "a", **given) -> Path:
    path = tmp_path / f"{name}.pkl"
    path.write_bytes(file_of(nets, **given))
    import_published(path, tmp_path / name)
    return tmp_path / name


def pictures(tmp_path: Path, size: int, count: int = 16) -> Path:
    """A small set of noise, with two classes."""
    place = tmp_path / f"images{size}.npz"
    x = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    np.savez(place, x=x, y=np.arange(count) % 2)
    return place


# ---- as published ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [SMALL, *(f"stylegan/{n}.npz" for n in ("sg2_resnet_r32_rgb_clamp", "sg2_cifar_r32_cond", "sg3_r_r32_cond"))],
)
def test_an_imported_run_has_the_published_images_and_logits(tmp_path, name):
    arrays, nets = nets_of(name)
    config = json.loads(str(arrays["config"]))
    clamp = config["D_kwargs"].get("conv_clamp", 256 if "sg3" in name else None)
    place = imported(tmp_path, nets, clamp=clamp)
    cfg = read_run(place).config
    generator = Generator.from_pretrained(place)
    c = torch.tensor(arrays["in/c"])
    y = c.argmax(1) if c.shape[1] else None
    x = generator.net(torch.tensor(arrays["in/z"]), y)[: len(arrays["out/image"])].cpu()
    assert (x - torch.tensor(arrays["out/image"])).abs().max() < 1e-5
    found = newest_whole(place / "checkpoints")
    assert found is not None
    for name, saved_as in (("G", "G"), ("G_ema", "ema")):
        assert all(torch.equal(found[1][saved_as][key], value) for key, value in nets[name][2].items())
    D = cfg.head.build(cfg.discriminator.build, generator.spec)
    D.load_state_dict(found[1]["D"])
    if len(x) == len(arrays["in/z"]):
        logits = D.eval()(torch.tensor(arrays["out/image"]), y).fun
        assert (logits.flatten() - torch.tensor(arrays["out/D_fake"]).flatten()).abs().max() < 1e-5


def test_every_command_takes_an_imported_run(tmp_path, monkeypatch):
    """And the licence is in the model card of what is exported, and of what is trained further."""
    monkeypatch.chdir(tmp_path)
    _, nets = nets_of(SMALL)
    Path("net.pkl").write_bytes(file_of(nets, augment_p=0.5))
    said = run("import", "net.pkl", "a")
    for words in (
        "wrote a.",
        "NOTICE.txt",
        "left out: training_set_kwargs",
        "0.5",
        "equipoise sample a --out samples.png",
    ):
        assert words in said
    line = next(line for line in said.splitlines() if line.startswith("Train further: "))
    assert line == "Train further: equipoise train a/config.txt RUN data=IMAGES 'start=Transfer(run=\"a\")'"
    run("sample", "a", "--num", 4, "--out", "four.npz", "--classes", "0,3")
    assert np.load("four.npz")["x"].shape == (4, 16, 16, 3)
    run("interpolate", "a", "--from", "0/0", "--to", "0/1", "--frames", 3, "--out", "strip.png")
    Path("own.py").write_text("from torch import nn\n\npool = nn.Sequential(nn.AvgPool2d(8), nn.Flatten())\n")
    against = ("--against", pictures(tmp_path, 16), "--features", "own.py:pool")
    assert "frechet" in run("evaluate", "a", *against, "--num", 16, "--metrics", "frechet")
    run("export", "a", "--to", "hub-folder", "--out", "hub")
    card = Path("hub/README.md").read_text()
    for words in ("license: other", "NVIDIA Source Code\nLicense: non-commercial", "published by others", "net.pkl"):
        assert words in card
    assert not any(words in card for words in ("trained with Equipoise", "had seen"))
    assert np.array_equal(Generator.from_pretrained("hub").sample(2), Generator.from_pretrained("a").sample(2))
    small = override(
        read_run(Path("a")).config,
        {
            "data": Images(path=pictures(tmp_path, 16)),
            "start": Transfer(run="a"),
            "batch_size": 4,
            "discriminator.group_size": 2,
            "total_kimg": 0.016,
            "report": Report(log_kimg=0.008, snapshot_kimg=0.016),
        },
    )
    train(small, "b")
    run("export", "b", "--to", "hub-folder", "--out", "hub-b")
    card = Path("hub-b/README.md").read_text()
    assert all(words in card for words in ("license: other", "NVIDIA", "trained with Equipoise", "had seen: 16"))
    assert "is not empty" in run("import", "net.pkl", "a", code=2)
    Path("bad.pkl").write_bytes(b"cos\nsystem\n.")
    said = run("import", "bad.pkl", "c", code=2)
    assert "it would call os.system" in said
    assert said.count("\n") == 1
    assert not Path("c").exists()


def test_files_that_do_not_fit_together_are_refused(tmp_path):
    _, nets = nets_of(SMALL)
    kind, kwargs, state = nets["G_ema"]

    def refused(words: str, **changed: tuple) -> None:
        (tmp_path / "x.pkl").write_bytes(file_of(nets | changed))
        with pytest.raises(ValueError, match=words) as caught:
            import_published(tmp_path / "x.pkl", tmp_path / "run")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()

    refused("other settings", G=(kind, kwargs | {"z_dim": 11}, state))
    refused("its D reads images of", D=(nets["D"][0], nets["D"][1] | {"c_dim": 0}, nets["D"][2]))
    wide = (kind, kwargs | {"w_dim": 1 << 20}, state)
    refused("do not fit the arguments", G_ema=wide, G=wide)
    extra = state | {"mapping.fc9.weight": torch.zeros(2, 2)}
    refused("it has mapping.fc9.weight, too", G_ema=(kind, kwargs, extra))
    broken = state | {"mapping.w_avg": torch.full((14,), torch.nan)}
    refused("mapping.w_avg holds NaN", G_ema=(kind, kwargs, broken))
    refused("unknown argument attention", G_ema=(kind, kwargs | {"attention": True}, state))
    for huge in ({"num_layers": 10**9}, {"layer_features": 10**15}):
        changed = kwargs | {"mapping_kwargs": kwargs["mapping_kwargs"] | huge}
        both = (kind, changed, state)
        refused("more than its weights can have", G_ema=both, G=both)
    (tmp_path / "x.pkl").write_bytes(file_of({"G_ema": nets["G_ema"]}))
    made = import_published(tmp_path / "x.pkl", tmp_path / "alone")
    assert not made.complete
    assert not (tmp_path / "alone" / "checkpoints").exists()
    assert Generator.from_pretrained(tmp_path / "alone").sample(1).shape == (1, 16, 16, 3)


# ---- TensorFlow ------------------------------------------------------------------------------------------


def to_tensorflow(state: dict[str, Tensor], resolution: int) -> dict[str, np.ndarray]:
    """Variables of TensorFlow's StyleGAN2 for published weights of G or D: the inverse, layer by layer."""
    out: dict[str, np.ndarray] = {}
    for key, tensor in state.items():
        x = tensor.numpy()
        path, last = key.split(".")[:-1], key.split(".")[-1]
        if last == "resample_filter":
            continue
        if key == "mapping.w_avg":
            out["dlatent_avg"] = x
        elif path[0] == "mapping":
            in_g = "mapping.w_avg" in state
            layer = {"embed": "LabelEmbed"}.get(path[1]) or f"{'Dense' if in_g else 'Mapping'}{path[1][2:]}"
            out[f"{'mapping/' if in_g else ''}{layer}/{last}"] = x.T
        elif last == "const":
            out["synthesis/4x4/Const/const"] = x[None]
        else:
            r = int(next(part for part in path if part.startswith("b"))[1:])
            layer, place = path[-1], "synthesis/" if path[0] == "synthesis" else ""
            if last == "noise_const":
                i = 0 if r == 4 else 2 * int(np.log2(r)) - (5 if layer == "conv0" else 4)
                out[f"synthesis/noise{i}"] = x[None, None]
                continue
            affine = layer == "affine"
            layer = path[-2] if affine else layer
            names = {"conv0": "Conv0_up", "conv1": "Conv1", "torgb": "ToRGB", "skip": "Skip"} if place else {}
            names |= {} if place else {"conv0": "Conv0", "conv1": "Conv1_down", "skip": "Skip", "fromrgb": "FromRGB"}
            names |= {"fc": "Dense0", "conv": "Conv"} | ({"conv1": "Conv"} if place and r == 4 else {})
            where = "Output" if layer == "out" else f"{place}{r}x{r}/{names[layer]}"
            if affine:
                out[f"{where}/mod_{last}"] = x.T if last == "weight" else x - 1
            elif last == "weight" and x.ndim == 4:
                turned = place and layer in ("conv0", "skip")
                kernel = x[:, :, ::-1, ::-1] if turned else x
                out[f"{where}/weight"] = np.moveaxis(kernel, (0, 1), (3, 2))
            else:
                out[f"{where}/{last}"] = x.T if last == "weight" else x[()]  # numbers as TensorFlow returns them
    return out


def test_tensorflow_networks_have_the_images_of_the_same_weights_in_pytorch(tmp_path):
    """Skip and resnet, without classes, and with them by a mapping of D of two layers, and of none, the default there.

    The inverse conversion is this file's own.
    """
    for architecture, classes, layers in (("skip", 0, 2), ("resnet", 3, 2), ("skip", 3, 0), ("orig", 0, 2)):
        g = StyleGAN2Generator(
            z_dim=5, w_dim=6, mapping_layers=2, channel_base=64, channel_max=4, architecture=architecture, mixing=0.0
        )
        of_d = "orig" if architecture == "orig" else "resnet"
        d = StyleGAN2Discriminator(channel_base=64, channel_max=4, group_size=2, architecture=of_d)
        spec = ImageSpec(32, 3, classes)
        torch.manual_seed(classes)
        G = g.build(spec)
        D = Head(MappedProjection(layers=layers) if classes else Head().conditioning).build(d.build, spec)
        for tensor in (*G.state_dict().items(), *D.state_dict().items()):
            if "resample_filter" not in tensor[0]:
                tensor[1].copy_(torch.randn_like(tensor[1]))
        d_state = {}
        for name, value in D.state_dict().items():
            place, _, rest = name.partition(".")
            rest = rest.removeprefix("conditioning.")
            d_state[rest.replace("out.", "b4.out.").replace("linear.", "b4.out.") if place == "head" else rest] = value
        g_kwargs = {"latent_size": 5, "dlatent_size": 6, "resolution": 32, "mapping_layers": 2, "label_size": classes}
        g_kwargs |= {"fmap_base": 32, "fmap_max": 4, "architecture": architecture, "truncation_psi": 0.5}
        d_kwargs = {"resolution": 32, "fmap_base": 32, "fmap_max": 4, "mbstd_group_size": 2, "label_size": classes}
        d_kwargs |= {"mapping_layers": layers, "mapping_lrmul": 0.01} if layers else {}
        net = g_kwargs, to_tensorflow(G.state_dict(), 32) | {"lod": np.float32(0)}
        d_net = d_kwargs, to_tensorflow(d_state, 32)
        if architecture == "orig":  # named by level, as in a growing network, and with what only growing needs
            for variables in (net[1], d_net[1]):
                for name in list(variables):
                    for layer in ("ToRGB", "FromRGB"):
                        if name.rpartition("/")[0].endswith(f"32x32/{layer}"):
                            level = name.replace(f"32x32/{layer}", f"{layer}_lod0")
                            variables[level] = variables.pop(name)
                            variables[level.replace("lod0", "lod1")] = variables[level]
        path = tmp_path / f"{architecture}{layers}.pkl"
        path.write_bytes(tensorflow_file((net, d_net, net)))
        import_published(path, tmp_path / path.stem)
        z, y = torch.randn(4, 5), torch.tensor([0, 1, 2, 0]) % classes if classes else None
        generator = Generator.from_pretrained(tmp_path / path.stem)
        made, x = generator.net.cpu()(z, y), G.eval()(z, y)
        assert (made - x).abs().max() < 1e-5 * x.abs().max()  # 1 + (b - 1) rounds
        read, _ = read_published(path)
        published = network(read.nets["D"].kind, read.nets["D"].config, read.nets["D"].state)
        x = torch.randn(4, 3, 32, 32)
        assert torch.equal(published(x, y), D.eval()(x, y).fun)
        assert "TensorFlow" in (tmp_path / path.stem / "NOTICE.txt").read_text()
    for version, words in ((3, "StyleGAN1's, whose layers are others"), (1000, "its version is 1000")):
        path.write_bytes(tensorflow_file((net, net, net), version))
        with pytest.raises(ValueError, match=words):
            read_published(path)
    net[1]["synthesis/8x8/Attention/weight"] = np.zeros((2, 2), np.float32)
    path.write_bytes(tensorflow_file((net, net, net)))
    with pytest.raises(ValueError, match="does not have: synthesis/8x8/Attention/weight"):
        read_published(path)


# ---- training further ------------------------------------------------------------------------------------


def networks(resolution: int, classes: int, seed: int = 5) -> dict[str, torch.nn.Module]:
    """Networks in the style of the fixture's, at another size and with another number of classes."""
    torch.manual_seed(seed)
    spec = ImageSpec(resolution, 3, classes)
    g = StyleGAN2Generator(z_dim=10, w_dim=14, mapping_layers=3, channel_base=256, channel_max=12)
    d = StyleGAN2Discriminator(channel_base=256, channel_max=12)
    head = Head(MappedProjection(features=7, layers=3)) if classes else Head()
    return {"G": g.build(spec), "D": head.build(d.build, spec), "ema": g.build(spec)}


def saved(place: Path, nets: dict[str, torch.nn.Module]) -> Path:
    Checkpoints(place, nets=nets, optimizers={}).save(0)
    return place


def test_transfer_copies_what_fits_and_says_what_did_not(tmp_path, capsys):
    """From 16 pixels and 4 classes to 32 pixels and 3. Wrong: by order, or by name alone."""
    source, target = networks(16, 4), networks(32, 3, seed=6)
    fresh = {name: {k: v.clone() for k, v in net.state_dict().items()} for name, net in target.items()}
    load_networks(Transfer(run=saved(tmp_path / "a", source)), target)
    said = capsys.readouterr().err
    for name, net in target.items():
        given = source[name].state_dict()
        for key, value in net.state_dict().items():
            fits = key in given and given[key].shape == value.shape
            assert torch.equal(value, given[key] if fits else fresh[name][key]), key
    state = target["G"].state_dict()
    assert torch.equal(state["synthesis.b16.conv1.weight"], source["G"].state_dict()["synthesis.b16.conv1.weight"])
    lines = dict.fromkeys(said.splitlines())
    assert [line for line in lines if line.endswith("000000000000:")] == [
        f"{name} starts from {tmp_path}/a/checkpoints/000000000000:" for name in ("G", "D")
    ]
    shapes = [line for line in lines if "because the shapes differ" in line]
    assert shapes[0] == "  1 weight at their initial values, because the shapes differ: mapping.embed"
    new = [line for line in lines if "because the run has none" in line]
    assert ["synthesis.b32.conv0" in new[0], "body.b32.fromrgb" in new[1]] == [True, True]
    left = [line for line in lines if "left out" in line]
    assert left == ["  3 weights left out, because this network has none: body.b16.fromrgb"]


def test_transfer_of_the_same_networks_is_fine_tuning_and_of_others_is_refused(tmp_path, capsys):
    source, target, other = networks(16, 4), networks(16, 4, seed=6), networks(16, 4, seed=7)
    run_dir = saved(tmp_path / "a", source)
    load_networks(Transfer(run=run_dir), target)
    load_networks(FreezeD(run=run_dir, layers=0), other)
    for name in source:
        same = target[name].state_dict()
        assert all(torch.equal(value, same[key]) for key, value in other[name].state_dict().items())
    assert capsys.readouterr().err == ""
    with pytest.raises(ValueError, match=r"does not fit this config's G: .*start=Transfer\(run=\.\.\.\)"):
        load_networks(FreezeD(run=run_dir), networks(32, 4))
    strange = {name: torch.nn.Linear(2, 2) for name in source}
    with pytest.raises(ValueError, match=r"G of .* no weight has the same name and shape"):
        load_networks(Transfer(run=run_dir), strange)
    with pytest.raises(ValueError, match=r"freeze layers of D at their initial weights.*body\.b32\.fromrgb"):
        load_networks(Transfer(run=run_dir, layers=2), networks(32, 4))


def test_layers_to_freeze_are_counted_as_published(tmp_path):
    """fromrgb, conv0, conv1 and skip of each block, from the largest map on."""
    D = networks(16, 0)["D"]
    names = {id(parameter): name for name, parameter in D.named_parameters()}
    order = ["b16.fromrgb", "b16.conv0", "b16.conv1", "b16.skip", "b8.conv0", "b8.conv1", "b8.skip", "b4.conv", "b4.fc"]
    for layers in range(len(order)):
        frozen = [names[id(parameter)] for parameter in FreezeD(run="a", layers=layers).frozen(D)]
        assert list(dict.fromkeys(name.rpartition(".")[0] for name in frozen)) == [f"body.{n}" for n in order[:layers]]


def test_an_imported_run_is_trained_further_at_another_size(tmp_path, capsys):
    """With other classes, on other data: by the config that the import wrote, but for what differs."""
    _, nets = nets_of(SMALL)
    place = imported(tmp_path, nets)
    cfg = override(
        read_run(place).config,
        {
            "data": Images(path=pictures(tmp_path, 32)),
            "start": Transfer(run=place),
            "batch_size": 4,
            "total_kimg": 0.008,
            "report": Report(log_kimg=0.008, snapshot_kimg=0.008),
        },
    )
    train(cfg, tmp_path / "b")
    assert "G starts from" in capsys.readouterr().err
    assert Generator.from_pretrained(tmp_path / "b").sample(2, classes=[1]).shape == (2, 32, 32, 3)
    assert (tmp_path / "b" / "NOTICE.txt").read_text() == (place / "NOTICE.txt").read_text()
