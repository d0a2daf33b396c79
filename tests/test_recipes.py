"""Recipes: what `equipoise recipes` lists, loads, and says of its papers."""

from __future__ import annotations

import copy
import importlib
import inspect
import itertools
import re
import sys

import pytest
import torch
import torch.nn.functional as F
from loops import for_each, loop_over
from torch.testing import assert_close

from equipoise import recipes
from equipoise.augment import ADA
from equipoise.config import TrainConfig, override
from equipoise.core.grammar import differences
from equipoise.core.latents import Uniform
from equipoise.core.randomness import Purpose
from equipoise.core.schedules import at
from equipoise.core.types import Batch, ImageSpec
from equipoise.losses import (
    R1,
    R2,
    Dragan,
    FeatureMatching,
    GradientPenalty,
    Hinge,
    LeastSquares,
    NonSaturating,
    RelativisticPairing,
    Wasserstein,
)
from equipoise.models import (
    Auxiliary,
    DCGANGenerator,
    Head,
    NoConditioning,
    SANDigitsDiscriminator,
    SemiSupervised,
    TinyDigitsDiscriminator,
)
from equipoise.nn import SANHead
from equipoise.rules import Adam, EMAConfig, RMSprop
from equipoise.train import GAN, d_step, g_step
from equipoise.weights import ClipWeights, NoNormalizer, WeightNorm

NAMES = list(recipes.available())
FAMILIES = [
    ("dcgan_digits", "sngan_digits", "sngan_digits_conditional"),
    ("gan_digits", "san_digits", "san_digits_conditional"),
]
ANY_IMAGES = ["acgan", "ada", "dragan", "improved_gan", "lsgan", "r1_gan", "r3gan", "wgan", "wgan_gp"]
of_any_images = loop_over("name", ANY_IMAGES)


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
        if inspect.isfunction(f)
        and f.__module__ == f"equipoise.recipes.{home}"
        and not name.startswith("_")
        and f.__annotations__["return"] == "TrainConfig"
    }
    assert {name: home for name, (home, _) in recipes.available().items()} == found
    for home in modules:
        module = importlib.import_module(f"equipoise.recipes.{home}")
        functions = {name for name in module.__all__ if inspect.isfunction(getattr(module, name))}
        assert functions - {"choose"} == {name for name in found if found[name] == home}


@for_each(recipes.available())
def test_loads(name):
    cfg, known = recipes.load(name)
    assert isinstance(cfg, TrainConfig)
    assert cfg == function(name)()
    assert {"TrainConfig", "Hinge", "R1"} <= set(known)


@for_each(recipes.available())
def test_names_its_paper(name):
    line = recipes.available()[name][1]
    assert line == inspect.getdoc(function(name)).splitlines()[0]
    assert bool(re.search(r"\(.+ (19|20)\d\d\)", line)) == (name != "quickstart")


@loop_over("labelled", [True, False])
@loop_over("name", NAMES)
def test_its_networks_are_built_and_fit(name, labelled):
    """G's images enter D, normalised as the recipe says; conditional ones refuse data without labels."""
    cfg = config(name)
    size = 32 if cfg.generator.styled else 28
    spec = ImageSpec(resolution=size, channels=1, num_classes=10 if labelled else 0)
    if cfg.head.conditioning != NoConditioning() and not labelled:
        with pytest.raises(ValueError, match="needs labelled data and this data has no labels"):
            GAN.build(cfg, spec)
        with pytest.raises(
            ValueError, match=f"{type(cfg.head.conditioning).__name__}.* needs labelled data.* has no labels"
        ):
            cfg.head.build(cfg.discriminator.build, spec)
        return
    width = "channel_max" if cfg.generator.styled else "width"
    wide = [p for p in ("generator", "discriminator") if getattr(getattr(cfg, p), width) > 16]
    cfg = override(cfg, {f"{p}.{width}": 16 for p in wide})
    G = cfg.generator.build(cfg.head.conditioning.generator_spec(spec))
    D = cfg.head.build(cfg.discriminator.build, spec)
    cfg.g_normalizer(G)
    cfg.d_normalizer(D)
    cfg.g_optim.build(G)
    cfg.d_optim.build(D)
    logits = D(G(torch.randn(2, cfg.generator.z_dim), torch.tensor([3, 7])), torch.tensor([3, 7]))
    assert logits.fun.shape == (2, 1)
    assert logits.fun.isfinite().all()
    assert any(isinstance(m, SANHead) for m in D.modules()) == cfg.head.san


@loop_over(("one", "other"), [p for family in FAMILIES for p in itertools.combinations(family, 2)], ids=lambda n: n)
def test_a_family_differs_in_a_few_visible_fields(one, other):
    lines = differences(config(one), config(other))
    assert 1 <= len(lines) <= 4, lines


def test_the_steps_from_method_to_method():
    """Each is what its docstring says, and nothing else."""

    def changed(one, other):
        return [line.partition(":")[0] for line in differences(config(one), config(other))]

    assert changed("dcgan_digits", "sngan_digits") == ["discriminator.batch_norm", "d_normalizer"]
    assert changed("sngan_digits", "sngan_digits_conditional") == ["head.conditioning"]
    assert changed("gan_digits", "san_digits") == ["head.san"]
    assert changed("san_digits", "san_digits_conditional") == ["head.conditioning"]
    assert changed("wgan", "wgan_gp") == ["discriminator.norm", "terms", "constraints", "g_optim", "d_optim"]


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


# ---- for any images ----------------------------------------------------------------------------------------------


def small(name, **changes):
    """The recipe with the narrowest networks, and images strongly augmented if at all."""
    changes = {"generator.width": 2, "discriminator.width": 2} | changes
    if name == "ada":
        changes["augment.initial"] = 0.5
    return override(config(name), changes)


def images(spec, n=4):
    return Batch(torch.rand(n, spec.channels, spec.resolution, spec.resolution) * 2 - 1, torch.arange(n))


def weights(net):
    return {n: p.detach().clone() for n, p in net.named_parameters()}


def lessons(cfg, spec):
    """Labelled images for a head that learns the classes of few."""
    return images(spec) if cfg.head.conditioning.classifies == "labelled" else None


def test_these_are_the_recipes_of_any_images():
    assert {name for name in NAMES if isinstance(config(name).generator, DCGANGenerator)} == set(ANY_IMAGES)


@of_any_images
@loop_over(("resolution", "channels"), [(28, 1), (32, 3), (64, 3)])
def test_both_steps_on_images_of_any_kind(name, resolution, channels):
    """Each player's step moves its own weights alone, and everything stays finite."""
    spec = ImageSpec(resolution, channels, num_classes=10)
    cfg = small(name)
    gan = GAN.build(cfg, spec)
    D, G = weights(gan.D), weights(gan.G)
    stats = d_step(gan, images(spec), 0, labelled=lessons(cfg, spec))
    assert any(not torch.equal(p, D[n]) for n, p in gan.D.named_parameters())
    assert all(torch.equal(p, G[n]) for n, p in gan.G.named_parameters())
    D = weights(gan.D)
    stats |= g_step(gan, images(spec), 0, lessons(cfg, spec))
    assert any(not torch.equal(p, G[n]) for n, p in gan.G.named_parameters())
    assert all(torch.equal(p, D[n]) for n, p in gan.D.named_parameters())
    assert all(value.isfinite() for value in stats.values()), stats
    assert {f"D/{type(p).__name__}" for p in cfg.terms if p.player != "G"} <= set(stats)
    for net in (gan.G, gan.D):
        assert all(p.isfinite().all() for p in net.parameters())


@of_any_images
@loop_over("resolution", [48, 128])
def test_the_sizes_between_and_beyond(name, resolution):
    cfg = small(name)
    spec = ImageSpec(resolution, channels=3, num_classes=10)
    gan = GAN.build(cfg, spec)
    x = gan.G(torch.randn(4, cfg.generator.z_dim), torch.arange(4))
    assert x.shape == (4, 3, resolution, resolution)
    assert gan.D(x, torch.arange(4)).fun.shape == (4, 1)


@of_any_images
def test_a_penalty_per_image_meets_a_discriminator_per_image(name):
    """No batch norm in D under a penalty: an image's logit is its own. ADA's minibatch deviation is StyleGAN2's."""
    spec = ImageSpec(28, 1, num_classes=10)
    cfg = small(name)
    D = cfg.head.build(cfg.discriminator.build, spec)
    x, others = images(spec).x, images(spec).x
    others[0] = x[0]
    alone = torch.equal(D(x, torch.arange(4)).fun[0], D(others, torch.arange(4)).fun[0])
    if cfg.terms and name != "ada":
        assert alone
    assert alone == (cfg.discriminator.norm != "batch" and cfg.discriminator.minibatch == "none")


# ---- the numbers of the papers -----------------------------------------------------------------------------------

PAPERS = {
    "wgan": {  # Arjovsky et al. 2017, alg. 1
        "loss": Wasserstein(),
        "constraints": (ClipWeights(bound=0.01),),
        "terms": (),
        "d_optim": RMSprop(lr=5e-5),
        "d_steps": 5,
        "batch_size": 64,
        "generator.norm": "batch",
        "discriminator.norm": "none",
    },
    "wgan_gp": {  # Gulrajani et al. 2017, alg. 1 and sec. 4
        "loss": Wasserstein(),
        "constraints": (),
        "terms": (GradientPenalty(strength=10, target=1, every=1),),
        "d_optim": Adam(lr=1e-4, betas=(0.0, 0.9)),
        "d_steps": 5,
        "batch_size": 64,
        "discriminator.norm": "layer",
    },
    "lsgan": {  # Mao et al. 2017, eq. 9 and sec. 4
        "loss": LeastSquares(a=0, b=1, c=1),
        "terms": (),
        "d_optim": Adam(lr=2e-4, betas=(0.5, 0.999)),
        "d_steps": 1,
        "batch_size": 64,
        "generator.norm": "batch",
        "discriminator.norm": "batch",
    },
    "r1_gan": {  # Mescheder et al. 2018, sec. 6, and LMescheder/GAN_stability: reg_param 10 is not halved
        "loss": NonSaturating(),
        "terms": (R1(gamma=20, every=1),),
        "dequantise": 1 / 128,
        "d_optim": RMSprop(lr=1e-4, alpha=0.99),
        "d_steps": 1,
        "batch_size": 64,
        "generator.z_dim": 256,
        "generator.norm": "none",
        "discriminator.norm": "none",
    },
    "r3gan": {  # Huang et al. 2024, table 9; its schedules below
        "loss": RelativisticPairing(),
        "d_steps": 1,
        "generator.z_dim": 64,
        "discriminator.norm": "none",
    },
    "dragan": {  # Kodali et al. 2017, and the code of its authors
        "loss": NonSaturating(),
        "terms": (Dragan(strength=10, noise=0.5, target=1, every=1),),
        "d_optim": Adam(lr=1e-4, betas=(0.5, 0.9)),
        "d_steps": 1,
        "batch_size": 128,
        "generator.z_dim": 100,
        "generator.prior": Uniform(),
    },
    "acgan": {  # Odena et al. 2017, sec. 3 and the appendix
        "loss": NonSaturating(),
        "head": Head(Auxiliary(), init_std=0.02),
        "terms": (),
        "d_optim": Adam(lr=2e-4, betas=(0.5, 0.999)),
        "batch_size": 100,
        "generator.z_dim": 100,
        "generator.class_input": "concat",
        "discriminator.norm": "batch",
    },
    "ada": {  # Karras et al. 2020, sec. 3, and the automatic configuration of its code
        "loss": NonSaturating(),
        "augment": ADA(target=0.6, kimg=500, groups=("blit", "geometric", "color"), heuristic="rt", every=4),
        "d_optim": Adam(lr=1e-3, betas=(0.0, 0.99)),
        "terms.0.every": 16,
        "ema": EMAConfig(halflife_kimg=20, rampup=0.05),
        "batch_size": 64,
        "discriminator.minibatch": "std",
    },
    "improved_gan": {  # Salimans et al. 2016, sec. 3.1, 5 and 6.1, and the code of its authors
        "loss": NonSaturating(),
        "head": Head(SemiSupervised(labelled=100), init_std=0.02),
        "terms": (FeatureMatching(adversarial=False),),
        "d_normalizer": WeightNorm(),
        "d_optim": Adam(lr=3e-4, betas=(0.5, 0.999)),
        "batch_size": 100,
        "generator.z_dim": 100,
        "generator.norm": "batch",
    },
}


@of_any_images
def test_the_numbers_of_the_paper(name):
    cfg = config(name)
    for path, published in PAPERS[name].items():
        value = cfg
        for part in path.split("."):
            value = value[int(part)] if isinstance(value, tuple) else getattr(value, part)
        assert value == published, path
    assert cfg.g_optim == cfg.d_optim
    assert cfg.head.init_std == 0.02
    if name not in ("r1_gan", "r3gan", "ada"):  # the others look at G itself
        assert cfg.ema.halflife_kimg == 0


def test_r3gan_follows_the_published_cosines():
    """From their first to their last values, both penalties alike, at every update; gamma as for ImageNet at 64x64."""
    cfg = config("r3gan")
    start, middle, end = 0, round(cfg.total_kimg * 500), round(cfg.total_kimg * 1000)
    r1, r2 = cfg.terms
    assert (type(r1), type(r2)) == (R1, R2)
    assert r1.every == r2.every == 1
    for schedule, first, last in [
        (r1.gamma, 1, 0.1),
        (r2.gamma, 1, 0.1),
        (cfg.d_optim.lr, 2e-4, 5e-5),
        (cfg.d_optim.betas[1], 0.9, 0.99),
    ]:
        assert at(schedule, start) == pytest.approx(first)
        assert at(schedule, middle) == pytest.approx((first + last) / 2)
        assert at(schedule, end) == at(schedule, 2 * end) == pytest.approx(last)
    assert cfg.d_optim.betas[0] == 0


def test_r1s_average_keeps_999_thousandths_per_update():
    """From 444 kimg on, as its module says; before, less."""
    cfg = config("r1_gan")
    assert cfg.total_kimg > 444.5

    def kept(kimg):
        net = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(net.weight)
        ema = cfg.ema.build(net)
        torch.nn.init.zeros_(net.weight)
        ema.update(net, round(kimg * 1000), cfg.batch_size)
        return ema.model.weight.item()

    assert kept(444.5) == kept(1e6) == pytest.approx(0.999, abs=1e-6)
    assert kept(440) < 0.999 - 5e-6


def test_adas_gamma_is_the_heuristic_for_the_digits():
    """0.0002 size² / batch, for the size of the default data, and for the other sizes as the module says."""
    cfg = config("ada")
    size = cfg.data.build().spec.resolution
    assert cfg.terms == (R1(gamma=0.0002 * size**2 / cfg.batch_size, every=16),)
    said = inspect.getdoc(importlib.import_module("equipoise.recipes.ada"))
    others = re.findall(r"([\d.]+) for (\d+)x\2", " ".join(said.split()))
    assert [int(n) for _, n in others] == [32, 64, 128]
    for gamma, n in others:
        assert float(gamma) == pytest.approx(0.0002 * int(n) ** 2 / cfg.batch_size)


# ---- what each method does ---------------------------------------------------------------------------------------


def largest_weight(D):
    return max(p.abs().max().item() for p in D.parameters())


def test_wgan_clips_every_weight_of_its_critic_and_wgan_gp_none():
    """`ClipWeights` reaches all of it: there is no norm whose gains it would leave free."""
    spec = ImageSpec(28, 1)
    clipped, free = (GAN.build(small(name), spec) for name in ("wgan", "wgan_gp"))
    for gan in (clipped, free):
        d_step(gan, images(spec), 0)
    assert largest_weight(clipped.D) == pytest.approx(0.01)
    assert largest_weight(free.D) > 0.5


def test_acgans_players_both_learn_the_class():
    """D's step moves the classifier; G's loss is the adversarial one plus the cross-entropy of its own labels."""
    spec = ImageSpec(28, 1, num_classes=10)
    gan = GAN.build(small("acgan"), spec)
    batch = images(spec)
    before = weights(gan.D)
    d_step(gan, batch, 0)
    moved = {n for n, p in gan.D.named_parameters() if not torch.equal(p, before[n])}
    assert any("classifier" in n for n in moved)
    with torch.no_grad():
        z = torch.randn(4, gan.cfg.generator.z_dim)
        G = gan.G.eval()
        assert not torch.allclose(G(z, batch.y), G(z, batch.y + 1))


def test_improved_gans_generator_minimises_the_distance_of_means_alone():
    spec = ImageSpec(28, 1, num_classes=10)
    gan = GAN.build(small("improved_gan"), spec)
    stats = g_step(gan, images(spec), 0, images(spec))
    assert_close(stats["G/loss"], stats["G/FeatureMatching"])
    assert stats["G/loss"] > 0


def test_improved_gans_discriminator_reads_no_label_of_its_batch():
    """Only the labelled images' classes count: other labels of the batch change nothing, theirs do."""
    spec = ImageSpec(28, 1, num_classes=10)
    real, labelled = images(spec), images(spec)
    other = torch.tensor([7, 7, 7, 7])

    def after(batch, lesson):
        gan = GAN.build(small("improved_gan"), spec)
        d_step(gan, batch, 0, labelled=lesson)
        return weights(gan.D)

    first = after(real, labelled)
    assert_close(after(Batch(real.x, other), labelled), first, rtol=0, atol=0)
    assert not all(torch.equal(p, first[n]) for n, p in after(real, Batch(labelled.x, other)).items())


def test_r1_gan_and_r3gan_are_penalised_at_every_update():
    spec = ImageSpec(28, 1)
    for name, penalties in [("r1_gan", {"D/R1"}), ("r3gan", {"D/R1", "D/R2"}), ("ada", set())]:
        gan = GAN.build(small(name), spec)
        first, second = (set(d_step(gan, images(spec), update * gan.cfg.batch_size)) for update in (0, 1))
        assert penalties <= first
        assert penalties == {n for n in second if n in ("D/R1", "D/R2")}


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class GanStability:
    """The training of Mescheder et al. 2018 as their code has it (LMescheder/GAN_stability), restated.

    D: cross-entropy, plus reg_param E ‖grad D(x)‖², not halved, at real images; then G on new z, against the new D.
    RMSProp: v = 0.99 v + 0.01 g², w -= 1e-4 g / (√v + 1e-8).
    """

    def __init__(self, G, D, reg_param):
        self.G, self.D, self.reg_param = copy.deepcopy(G), copy.deepcopy(D), reg_param
        self.squares = {p: torch.zeros_like(p) for net in (self.G, self.D) for p in net.parameters()}

    def logits(self, x):
        return self.D(x, None).fun

    def rmsprop(self, net, loss):
        weights = list(net.parameters())
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for w, g in zip(weights, gradients, strict=True):
                self.squares[w] = 0.99 * self.squares[w] + 0.01 * g**2
                w -= 1e-4 * g / (self.squares[w].sqrt() + 1e-8)

    def iteration(self, x, z_for_d, z_for_g):
        for net in (self.G, self.D):
            net.requires_grad_(True)
        x = x.clone().requires_grad_(True)
        real, fake = self.logits(x), self.logits(self.G(z_for_d).detach())
        (slope,) = torch.autograd.grad(real.sum(), x, create_graph=True)
        entropy = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
        entropy = entropy + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
        self.rmsprop(self.D, entropy + self.reg_param * slope.pow(2).sum((1, 2, 3)).mean())
        fooled = self.logits(self.G(z_for_g))
        self.rmsprop(self.G, F.binary_cross_entropy_with_logits(fooled, torch.ones_like(fooled)))


def far(net, other):
    """The largest difference of two networks' weights."""
    return max((p - q).abs().max().item() for p, q in zip(net.parameters(), other.parameters(), strict=True))


def test_six_iterations_of_r1_gan_are_those_of_its_authors(float64):
    """In float64. With half their penalty, gamma=10, every network is elsewhere."""
    gan = GAN.build(small("r1_gan"), ImageSpec(28, 1))
    theirs, halved = (GanStability(gan.G, gan.D, reg_param) for reg_param in (10, 5))
    for update in range(6):
        nimg = update * gan.cfg.batch_size
        batch = Batch(images(gan.spec).x)
        z_for_d, z_for_g = (gan.latents(batch, p, nimg) for p in (Purpose.Z_FOR_D, Purpose.Z_FOR_G))
        for reference in (theirs, halved):
            reference.iteration(batch.x, z_for_d, z_for_g)
        d_step(gan, batch, nimg)
        g_step(gan, batch, nimg)
    for ours, same, other in ((gan.G, theirs.G, halved.G), (gan.D, theirs.D, halved.D)):
        assert far(ours, same) < 1e-12
        assert far(ours, other) > 1e-6


def test_dragans_other_penalty_is_the_one_its_authors_compute_on_images_in_0_1():
    """10 (‖grad‖ - 1)² of D'(x') = D(2x' - 1), as the module says how to have it."""
    said = " ".join(inspect.getdoc(importlib.import_module("equipoise.recipes.dragan")).split())
    changes = dict(re.findall(r"(terms\.0\.\w+)=([\d.]+)", said))
    (penalty,) = override(config("dragan"), {path: float(value) for path, value in changes.items()}).terms
    D = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(28 * 28, 3), torch.nn.Softplus(), torch.nn.Linear(3, 1))
    D, real = D.double(), images(ImageSpec(28, 1)).x.double()
    torch.manual_seed(1)
    ours = penalty.weight(0) * penalty(lambda x, y: D(x), Batch(real), Batch(real))
    torch.manual_seed(1)
    unit = (real + 1) / 2
    near = (unit + 0.5 * unit.std(correction=0) * torch.rand(real.shape, dtype=torch.float64)).requires_grad_(True)
    (slope,) = torch.autograd.grad(D(2 * near - 1).sum(), near)
    assert_close(ours, 10 * (slope.flatten(1).norm(dim=1) - 1) ** 2, rtol=1e-9, atol=1e-9)


# ---- what differs from the papers --------------------------------------------------------------------------------


@loop_over("home", sorted({home for home, _ in recipes.available().values()} - {"quickstart", "auto"}))
def test_a_module_lists_what_differs_from_its_paper(home):
    """One form for all: the last part of the module's docstring, a list under "Different here:"."""
    doc = inspect.getdoc(importlib.import_module(f"equipoise.recipes.{home}"))
    before, heading, listed = doc.partition("\n\nDifferent here:\n\n")
    assert heading
    assert "As published" in before
    assert re.fullmatch(r"(- .+\n?(  .+\n?)*)+", listed)


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
from equipoise.core.types import component


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


def test_a_file_of_the_users_own(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))  # its directory comes first there, for later tests' processes too
    """Its components may be named in overrides, and a file called like a module of Python's hides nothing."""
    import random

    path = tmp_path / "random.py"
    path.write_text(OWN)
    cfg, known = recipes.load(f"{path}:recipe")
    assert cfg.loss == known["Cubic"](power=3)
    assert differences(config("dcgan_digits"), cfg) == ["loss: NonSaturating(smoothing=0.0) -> Cubic(power=3)"]
    assert sys.modules["random"] is random


@loop_over(
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
