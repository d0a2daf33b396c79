"""Recipes: what `equipoise recipes` lists, loads, and says of its papers."""

from __future__ import annotations

import importlib
import inspect
import itertools
import re
import sys

import pytest
import torch

from equipoise import recipes
from equipoise.config import TrainConfig, differences
from equipoise.ema import EMAConfig
from equipoise.heads import SANHead
from equipoise.losses import Hinge, NonSaturating
from equipoise.models import SANDigitsDiscriminator, TinyDigitsDiscriminator
from equipoise.normalizers import NoNormalizer
from equipoise.optim import Adam
from equipoise.types import ImageSpec

NAMES = list(recipes.available())
FAMILIES = [
    ("dcgan_digits", "sngan_digits", "sngan_digits_conditional"),
    ("gan_digits", "san_digits", "san_digits_conditional"),
]
every_recipe = pytest.mark.parametrize("name", NAMES)


def config(name):
    return recipes.load(name)[0]


def function(name):
    return getattr(importlib.import_module(f"equipoise.recipes.{recipes.available()[name][0]}"), name)


def test_available_is_what_the_modules_define():
    """The list is read from the files without importing them; here they are imported."""
    modules = {home for home, _ in recipes.available().values()}
    found = {
        name: home
        for home in modules
        for name, f in vars(importlib.import_module(f"equipoise.recipes.{home}")).items()
        if inspect.isfunction(f) and f.__module__ == f"equipoise.recipes.{home}" and not name.startswith("_")
    }
    assert {name: home for name, (home, _) in recipes.available().items()} == found
    for home in modules:
        module = importlib.import_module(f"equipoise.recipes.{home}")
        assert set(module.__all__) == {name for name in found if found[name] == home}


@every_recipe
def test_loads(name):
    cfg, known = recipes.load(name)
    assert isinstance(cfg, TrainConfig)
    assert cfg == function(name)()
    assert {"TrainConfig", "Hinge", "R1"} <= set(known)


@every_recipe
def test_names_its_paper(name):
    line = recipes.available()[name][1]
    assert line == inspect.getdoc(function(name)).splitlines()[0]
    assert bool(re.search(r"\(.+ (19|20)\d\d\)", line)) == (name != "quickstart")


@every_recipe
@pytest.mark.parametrize("labelled", [True, False])
def test_its_networks_are_built_and_fit(name, labelled):
    """G's images enter D, normalised as the recipe says; conditional ones refuse data without labels."""
    cfg = config(name)
    spec = ImageSpec(resolution=28, channels=1, num_classes=10 if labelled else 0)
    if cfg.generator.conditional and not labelled:
        with pytest.raises(ValueError, match="needs labelled data and this data has no labels"):
            cfg.generator.build(spec)
        with pytest.raises(ValueError, match="needs labelled data and this data has no labels"):
            cfg.head.factory(spec.num_classes)
        return
    G, D = cfg.generator.build(spec), cfg.discriminator.build(spec, cfg.head.factory(spec.num_classes))
    cfg.g_normalizer(G)
    cfg.d_normalizer(D)
    cfg.g_optim.build(G)
    cfg.d_optim.build(D)
    logits = D(G(torch.randn(2, cfg.generator.z_dim), torch.tensor([3, 7])), torch.tensor([3, 7]))
    assert logits.fun.shape == (2, 1)
    assert logits.fun.isfinite().all()
    assert any(isinstance(m, SANHead) for m in D.modules()) == cfg.head.san


@pytest.mark.parametrize(
    ("one", "other"), [p for family in FAMILIES for p in itertools.combinations(family, 2)], ids=lambda n: n
)
def test_a_family_differs_in_a_few_visible_fields(one, other):
    lines = differences(config(one), config(other))
    assert 1 <= len(lines) <= 4, lines


def test_the_steps_from_method_to_method():
    """Each is what its docstring says, and nothing else."""

    def changed(one, other):
        return [line.partition(":")[0] for line in differences(config(one), config(other))]

    assert changed("dcgan_digits", "sngan_digits") == ["discriminator.batch_norm", "d_normalizer"]
    assert changed("sngan_digits", "sngan_digits_conditional") == ["generator.conditional", "head.conditioning"]
    assert changed("gan_digits", "san_digits") == ["head.san"]
    assert changed("san_digits", "san_digits_conditional") == ["generator.conditional", "head.conditioning"]


def test_published_settings():
    """Section 4 of the checklist: Adam, batch, z, initialisation and the layers with spectral norm."""
    for name in FAMILIES[0]:
        cfg = config(name)
        assert cfg.g_optim == cfg.d_optim == Adam(lr=2e-4, betas=(0.5, 0.999))
        assert (cfg.batch_size, cfg.generator.z_dim, cfg.d_steps) == (128, 64, 1)
        assert cfg.loss == NonSaturating()
        assert cfg.head.init_std == 0.02
        assert isinstance(cfg.discriminator, TinyDigitsDiscriminator)
        assert cfg.ema == EMAConfig(halflife_kimg=0)
    for name in FAMILIES[1]:
        cfg = config(name)
        assert cfg.g_optim == cfg.d_optim == Adam(lr=1e-3, betas=(0.0, 0.99))
        assert (cfg.batch_size, cfg.generator.z_dim, cfg.d_steps) == (128, 100, 1)
        assert cfg.loss == Hinge()
        assert isinstance(cfg.discriminator, SANDigitsDiscriminator)
        assert "body.0" in cfg.d_normalizer.skip
    assert config("dcgan_digits").d_normalizer == NoNormalizer()
    assert config("dcgan_digits").discriminator.batch_norm
    assert not config("sngan_digits").discriminator.batch_norm


def test_the_quickstart_is_a_san_with_spectral_norm_and_an_average():
    cfg = config("quickstart")
    assert cfg.head.san
    assert not isinstance(cfg.d_normalizer, NoNormalizer)
    assert cfg.ema.halflife_kimg > 0


# ---- names -----------------------------------------------------------------------------------------------------


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="there is no recipe 'san_digit'; did you mean 'san_digits'"):
        recipes.load("san_digit")
    with pytest.raises(ValueError, match=r"there is no recipe 'xyzzy'; known: .*quickstart.*FILE\.py:FUNCTION"):
        recipes.load("xyzzy")


# ---- a user's own file -------------------------------------------------------------------------------------------

OWN = '''
from dataclasses import replace

from equipoise import GANLoss
from equipoise.recipes.dcgan import dcgan_digits
from equipoise.types import component


@component
class Cubic(GANLoss):
    """A loss of my own."""

    power: int = 3

    def d(self, real, fake):
        return (1 - real) ** self.power + fake**self.power

    def g(self, fake, real=None):
        return (1 - fake) ** self.power


def recipe():
    return replace(dcgan_digits(), loss=Cubic())


def nothing():
    return None


number = 5
'''


def test_a_file_of_the_users_own(tmp_path):
    """Its components may be named in overrides, and a file called like a module of Python's hides nothing."""
    import random

    path = tmp_path / "random.py"
    path.write_text(OWN)
    cfg, known = recipes.load(f"{path}:recipe")
    assert cfg.loss == known["Cubic"](power=3)
    assert differences(config("dcgan_digits"), cfg) == ["loss: NonSaturating(smoothing=0.0) -> Cubic(power=3)"]
    assert sys.modules["random"] is random


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{}", "names no function: give FILE.py:FUNCTION, such as .*my.py:recipe"),
        ("{}:", "names no function"),
        ("{}:missing", "my.py has no function 'missing'"),
        ("{}:number", "my.py has no function 'number'"),
        ("{}:nothing", "returned None; a recipe is a function that returns a TrainConfig"),
        ("elsewhere/my.py:recipe", "there is no file elsewhere/my.py"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path, name, message):
    path = tmp_path / "my.py"
    path.write_text(OWN)
    with pytest.raises(ValueError, match=message):
        recipes.load(name.format(path))
