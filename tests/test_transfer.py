"""Transfer from another run: its networks and nothing else of it, and exactly the first layers of D at rest."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace

import pytest
import torch
from loops import loop_over
from networks import narrow_fields
from runs import same
from tiny import recipe
from torch import nn
from torch.testing import assert_close

from equipoise import models
from equipoise.config import components, to_text
from equipoise.core.grammar import parse
from equipoise.core.types import ImageSpec
from equipoise.models import Head, Input, NoConditioning, Projection, SANDigitsDiscriminator
from equipoise.nn import Discriminator
from equipoise.rules import Adam, FreezeD, Transfer
from equipoise.rules.transfer import for_classes
from equipoise.runs import Checkpoints
from equipoise.train import load_networks
from equipoise.weights import ClipWeights, FrobeniusNorm, NoNormalizer, SpectralNorm, WeightNorm

SPEC = ImageSpec(resolution=28, channels=1, num_classes=10)


def networks(seed: int = 0, width: int = 2) -> dict[str, nn.Module]:
    """Those of a run of tiny.py."""
    torch.manual_seed(seed)
    cfg = recipe()
    G = replace(cfg.generator, width=width).build(SPEC)
    D = replace(cfg.discriminator, width=width).build(SPEC, cfg.head.factory(10))
    cfg.d_normalizer(D)
    return {"G": G, "D": D, "ema": copy.deepcopy(G)}


def save(run_dir, nets: dict[str, nn.Module], nimg: int = 100) -> None:
    optimizers = {key: torch.optim.Adam(nets[key].parameters()) for key in ("G", "D")}
    Checkpoints(run_dir, nets=nets | {"augment": nn.BatchNorm1d(1)}, optimizers=optimizers).save(nimg)


def state(nets: dict[str, nn.Module]) -> dict[str, torch.Tensor]:
    return {f"{key}.{name}": value.clone() for key, net in nets.items() for name, value in net.state_dict().items()}


def names(net: nn.Module, parameters: list[nn.Parameter]) -> list[str]:
    return [name for name, p in net.named_parameters() if any(p is other for other in parameters)]


# ---- what is frozen --------------------------------------------------------------------------------------


def body() -> nn.Sequential:
    """Three layers, with norms between them and after the last."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.GroupNorm(2, 4),
        nn.LeakyReLU(0.2),
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU(0.2)),
        nn.Flatten(),
        nn.Linear(4 * 4 * 4, 6),
        nn.LayerNorm(6),
    )


FROZEN = {
    0: [],
    1: ["body.0.weight", "body.0.bias"],
    2: ["body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias", "body.3.0.weight", "body.3.0.bias"],
}
FROZEN[3] = [*FROZEN[2], "body.3.1.weight", "body.3.1.bias", "body.5.weight", "body.5.bias"]


@loop_over("san", [False, True], ids=["plain", "SAN"])
@loop_over("conditioning", [NoConditioning, Projection])
@loop_over("layers", [0, 1, 2, 3])
def test_the_first_layers_and_the_norms_between_them_are_frozen(layers, conditioning, san):
    D = Discriminator(body(), Head(conditioning=conditioning(), san=san).factory(3)(6))
    assert names(D, FreezeD("runs/a", layers=layers).frozen(D)) == FROZEN[layers]


@loop_over("normalizer", [SpectralNorm(), WeightNorm(), FrobeniusNorm()], ids=lambda n: type(n).__name__)
def test_the_weights_that_a_normaliser_reads_are_frozen(normalizer):
    D = Discriminator(body(), Head().factory(0)(6))
    normalizer(D)
    stay = names(D, FreezeD("runs/a", layers=1).frozen(D))
    assert stay[0] == "body.0.bias"
    assert len(stay) == (3 if isinstance(normalizer, WeightNorm) else 2)
    assert all(name.startswith("body.0.parametrizations.weight.original") for name in stay[1:])


def test_of_somebody_elses_network_all_layers_but_the_last_can_be_frozen():
    D = nn.Sequential(nn.Linear(4, 3), nn.LeakyReLU(0.2), nn.Linear(3, 1))
    assert names(D, FreezeD("runs/a", layers=1).frozen(D)) == ["0.weight", "0.bias"]
    with pytest.raises(
        ValueError, match=r"layers=2\) freezes more layers than the Sequential has to spare.* from 0 to 1"
    ):
        FreezeD("runs/a", layers=2).frozen(D)


@loop_over("san", [False, True], ids=["plain", "SAN"])
def test_the_head_is_always_trained(san):
    D = Discriminator(body(), Head(san=san).factory(0)(6))
    with pytest.raises(ValueError, match=r"layers=4\) freezes more layers than the Discriminator.* from 0 to 3\."):
        FreezeD("runs/a", layers=4).frozen(D)
    with pytest.raises(ValueError, match=r"from 0 to 0\."):
        FreezeD("runs/a").freeze(nn.Linear(2, 1))


def test_training_moves_everything_but_what_is_frozen():
    D = Discriminator(body(), Head(san=True).factory(0)(6))
    SpectralNorm()(D)
    before = {name: p.detach().clone() for name, p in D.named_parameters()}
    transfer = FreezeD("runs/a", layers=2)
    stay = set(names(D, transfer.frozen(D)))
    transfer.freeze(D)
    optimizer = Adam(lr=0.1).build(D)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {
        id(p) for name, p in D.named_parameters() if name not in stay
    }
    logits = D(torch.randn(8, 1, 8, 8))
    (logits.fun.square().mean() + logits.dir.square().mean()).backward()
    optimizer.step()
    moved = {name for name, p in D.named_parameters() if not torch.equal(p, before[name])}
    assert moved == before.keys() - stay


def test_a_constraint_leaves_frozen_weights_where_it_put_them():
    D = body()
    ClipWeights(0.05)(D)
    transfer = FreezeD("runs/a", layers=2)
    before = [p.clone() for p in transfer.frozen(D)]
    ClipWeights(0.05)(D)
    assert all(torch.equal(p, old) for p, old in zip(transfer.frozen(D), before, strict=True))


# ---- what is loaded --------------------------------------------------------------------------------------


def test_the_networks_of_the_newest_checkpoint_are_loaded(tmp_path):
    source, nets = networks(1), networks(2)
    save(tmp_path / "a", networks(3), nimg=90)
    for net in source.values():
        net(
            *(torch.randn(4, 4), torch.arange(4))
            if net is not source["D"]
            else (torch.randn(4, 1, 28, 28), torch.arange(4))
        )
    save(tmp_path / "a", source, nimg=100)
    assert not same(state(nets), state(source))
    load_networks(FreezeD(tmp_path / "a"), nets)
    assert same(state(nets), state(source))  # running means and singular vectors among them


def test_an_optimiser_may_have_been_built_before(tmp_path):
    """Weights are filled in place."""
    save(tmp_path / "a", networks(1))
    nets = networks(2)
    before = [p.data_ptr() for net in nets.values() for p in net.parameters()]
    load_networks(FreezeD(tmp_path / "a"), nets)
    assert [p.data_ptr() for net in nets.values() for p in net.parameters()] == before


def test_networks_of_another_shape_are_refused_and_left_alone(tmp_path):
    save(tmp_path / "a", networks(1, width=3))
    nets = networks(2)
    before = state(nets)
    nets["D"].head.extra = nn.Linear(1, 1)
    expected = r"G of .*a/checkpoints/000000000100 does not fit .* is \(.*\) and not \(.* and \d+ more\. Take generator"
    with pytest.raises(ValueError, match=expected + ".*config.txt"):
        load_networks(FreezeD(tmp_path / "a"), nets)
    del nets["D"].head.extra
    assert same(state(nets), before)


def test_a_misfit_of_one_network_leaves_all_of_them_alone(tmp_path):
    save(tmp_path / "a", networks(1))
    nets = networks(2)
    nets["ema"] = nn.Sequential(nets["ema"], nn.Linear(2, 2))
    before = state(nets)
    with pytest.raises(ValueError, match=r"ema of .* does not fit this config's ema: it has no .*; it has no "):
        load_networks(FreezeD(tmp_path / "a"), nets)
    assert same(state(nets), before)


def test_a_normaliser_that_the_run_had_not_is_a_misfit(tmp_path):
    for there, here, expected in (
        (NoNormalizer(), SpectralNorm(), "it has no body.0.parametrizations.weight"),
        (SpectralNorm(), NoNormalizer(), "it has no body.0.weight"),
    ):
        source, net = nn.ModuleDict({"body": body()}), nn.ModuleDict({"body": body()})
        there(source)
        here(net)
        save(tmp_path / expected, {"D": source, "G": nn.Linear(1, 1)})
        with pytest.raises(ValueError, match=f"{expected}.*normalisers from"):
            load_networks(FreezeD(tmp_path / expected), {"D": net})
    save(tmp_path / "b", {"D": nn.ModuleDict({"body": body(), "extra": nn.Linear(1, 1)}), "G": nn.Linear(1, 1)})
    with pytest.raises(ValueError, match=r"it has extra\.weight, too"):
        load_networks(FreezeD(tmp_path / "b"), {"D": nn.ModuleDict({"body": body()})})


def test_a_run_without_checkpoints_is_refused(tmp_path):
    (tmp_path / "begun" / "checkpoints" / ".000000000100.tmp").mkdir(parents=True)
    for name in ("nowhere", "begun"):
        with pytest.raises(
            ValueError, match=rf"cannot start from the run .*{name}: there is no checkpoint in .*start="
        ):
            load_networks(FreezeD(tmp_path / name), networks())


def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_stays_where_it_is(tmp_path, capsys):
    older, nets = networks(1), networks(2)
    save(tmp_path, older, nimg=100)
    save(tmp_path, networks(3), nimg=200)
    newest = tmp_path / "checkpoints" / "000000000200"
    (newest / "D.safetensors").write_bytes((newest / "D.safetensors").read_bytes()[:-1])
    load_networks(FreezeD(tmp_path), nets)
    assert same(state(nets), state(older))
    assert "000000000200 is damaged" in capsys.readouterr().err
    assert newest.exists()  # the other run is somebody else's to repair
    shutil.rmtree(tmp_path / "checkpoints" / "000000000100")
    before = state(nets)
    with pytest.raises(ValueError, match=r"every checkpoint in .* is damaged"):
        load_networks(FreezeD(tmp_path), nets)
    assert same(state(nets), before)


# ---- other classes ---------------------------------------------------------------------------------------


def of_classes(num_classes: int, normalizer=None, class_input: str = "concat", seed: int = 0) -> dict[str, nn.Module]:
    """A conditional G and D of the DCGAN; G is unconditional without classes, and D then ignores them."""
    torch.manual_seed(seed)
    spec = ImageSpec(resolution=16, channels=1, num_classes=num_classes)
    G = models.DCGANGenerator(z_dim=5, width=4, class_input=class_input).build(spec)
    head = Head(Projection() if num_classes else NoConditioning())
    D = head.build(models.DCGANDiscriminator(width=4).build, spec)
    (normalizer or NoNormalizer())(D)
    for module in (*G.modules(), *D.modules()):
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)  # of classes that differ
    return {"G": G.eval(), "D": D.eval()}


def transferred(tmp_path, before: int, now: int, **settings) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    """Networks for `before` classes, and those for `now` classes that start from them."""
    source, target = of_classes(before, **settings), of_classes(now, **settings, seed=1)
    spec = ImageSpec(resolution=16, channels=1, num_classes=before)
    Checkpoints(tmp_path / "a", nets=source, optimizers={}, spec=spec).save(100)
    load_networks(Transfer(tmp_path / "a"), target, now)
    return source, target


@torch.no_grad()
def test_each_class_starts_as_the_mean_of_the_classes_before(tmp_path, capsys):
    """D is linear in V[y], so its logits are means; as are the gains and offsets of G's norms."""
    source, target = transferred(tmp_path, 10, 3, class_input="batch_norm")
    x = torch.randn(4, 1, 16, 16)
    expected = torch.stack([source["D"](x, torch.full((4,), c)).fun for c in range(10)]).mean(0)
    for c in range(3):
        assert_close(target["D"](x, torch.full((4,), c)).fun, expected, rtol=1e-5, atol=1e-5)
    before, now = source["G"].state_dict(), target["G"].state_dict()
    tables = [name for name, value in before.items() if value.ndim == 2 and len(value) == 10]
    assert len(tables) >= 4
    for name in tables:
        assert_close(now[name], before[name].mean(0).expand(3, -1))
    said = capsys.readouterr().err.splitlines()
    assert "  1 weight adapted to the number of classes: head.conditioning.embed" in said
    assert not [line for line in said if "initial" in line]


@torch.no_grad()
def test_a_network_that_learns_of_classes_starts_as_it_was(tmp_path):
    """Inputs that tell the class begin at 0: whatever the class, the images are the unconditional generator's."""
    source, target = transferred(tmp_path, 0, 3)
    z = torch.randn(6, 5)
    assert_close(target["G"](z, torch.arange(6) % 3), source["G"](z, None))


@torch.no_grad()
def test_the_inputs_beside_a_class_are_kept(tmp_path):
    """From 4 classes to 6: z keeps its weights, and every class has the mean of theirs."""
    source, target = transferred(tmp_path, 4, 6)
    (name,) = [n for n, v in target["G"].state_dict().items() if v.shape != source["G"].state_dict()[n].shape]
    before, now = source["G"].state_dict()[name], target["G"].state_dict()[name]
    assert (len(before), len(now)) == (9, 11)  # inputs of a transposed convolution
    assert torch.equal(now[:5], before[:5])
    assert_close(now[5:], before[5:].mean(0, keepdim=True).expand_as(now[5:]))


def test_singular_vectors_of_a_table_are_not_averaged(tmp_path, capsys):
    _, target = transferred(tmp_path, 10, 3, normalizer=SpectralNorm())
    u = target["D"].head.conditioning.embed.parametrizations.weight[0]._u
    assert u.shape == (3,)
    assert u.norm().item() == pytest.approx(1, abs=1e-5)
    assert (
        "1 weight at their initial values, because the shapes differ: head.conditioning.embed"
        in capsys.readouterr().err
    )


def test_a_size_that_is_no_number_of_classes_is_not_adapted(tmp_path):
    shapes = [
        ((10, 4), (3, 4)),
        ((4, 10), (4, 3)),
        ((12, 4), (5, 4)),
        ((10, 4), (3, 5)),
        ((10,), (3,)),
        ((9, 4), (3, 4)),
    ]
    adapted = [for_classes(torch.randn(a), torch.Size(b), 10, 3) is not None for a, b in shapes]
    assert adapted == [True, True, True, False, False, False]


def test_a_frozen_layer_must_be_copied_and_not_adapted(tmp_path):
    spec = ImageSpec(resolution=16, channels=1, num_classes=4)
    D = Head(Input()).build(models.DCGANDiscriminator(width=4).build, spec)
    Checkpoints(tmp_path / "a", nets={"D": D}, optimizers={}, spec=spec).save(100)
    other = Head(Input()).build(models.DCGANDiscriminator(width=4).build, replace(spec, num_classes=3))
    with pytest.raises(ValueError, match="freeze layers of D at their initial weights"):
        load_networks(Transfer(tmp_path / "a", layers=1), {"D": other}, 3)
    load_networks(Transfer(tmp_path / "a"), {"D": other}, 3)


# ---- as a setting ----------------------------------------------------------------------------------------


def test_as_a_config(tmp_path):
    assert repr(FreezeD("runs/a")) == "FreezeD(run='runs/a', layers=2)"
    assert FreezeD(tmp_path) == FreezeD(str(tmp_path))
    for bad in ({"run": "a", "layers": -1}, {"run": 3}, {"layers": 2}):
        with pytest.raises(ValueError, match="run" if "layers" not in bad or "run" not in bad else "layers"):
            FreezeD(**bad)
    cfg = replace(recipe(), start=FreezeD("runs/a", layers=2))
    assert parse(to_text(cfg), components()) == cfg


def test_the_networks_of_a_recipe_can_be_frozen():
    D = SANDigitsDiscriminator(width=2).build(SPEC, Head(Projection(), san=True).factory(10))
    first, second = (names(D, FreezeD("runs/a", layers=n).frozen(D)) for n in (1, 2))
    assert first == ["body.0.weight", "body.0.bias"]
    assert second[:2] == first
    assert len(second) > len(first)


DISCRIMINATORS = [name for name in models.__all__ if name.endswith("Discriminator")]


@loop_over("name", DISCRIMINATORS)
def test_every_network_of_the_library_can_spare_what_is_frozen_unless_told_otherwise(name):
    config = getattr(models, name)
    fields = narrow_fields(config, 4)
    spec = SPEC if "width" in fields else replace(SPEC, resolution=32)  # style-based: a power of two
    D = config(**fields).build(spec, Head().factory(0))
    stay = FreezeD("runs/a").frozen(D)
    assert {id(p) for p in stay} == {id(p) for p in FreezeD("runs/a", layers=2).frozen(D)}
    assert 0 < len(stay) < len(list(D.parameters()))
