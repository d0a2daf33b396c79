"""Every component with every other: the two steps of the loop, for all pairs of all axes."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import itertools
import warnings
from collections import defaultdict
from functools import cache, partial
from types import UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints

import pytest
import torch
import torch.nn.functional as F
from loops import for_each, loop_over
from networks import CONDITIONINGS, narrow_fields
from pairwise import covering_array, pairs_in, pairs_of
from torch import nn
from torch.testing import assert_close

from equipoise import augment, models
from equipoise.augment import ADA, Chain, FadingBlur, InstanceNoise
from equipoise.config import TrainConfig
from equipoise.core.types import Batch, ImageSpec
from equipoise.data import Digits
from equipoise.losses import (
    R1,
    R2,
    Consensus,
    FeatureMatching,
    GradientPenalty,
    Hinge,
    HistoricalAverage,
    LeastSquares,
    NonSaturating,
    Orthogonal,
    Penalty,
    Saturating,
    SpectralNormPenalty,
    Wasserstein,
    discriminator_loss,
    joint,
    penalties,
    regularizers,
)
from equipoise.losses import adversarial as losses
from equipoise.losses import features as matching
from equipoise.models import (
    Auxiliary,
    DCGANDiscriminator,
    Head,
    MLPDiscriminator,
    MLPGenerator,
    NoConditioning,
    PerClass,
    Projection,
    SANDigitsDiscriminator,
    SANDigitsGenerator,
    SemiSupervised,
    progan,
    varied,
)
from equipoise.nn import heads
from equipoise.rules import Adam, FreezeD, ToConvergence, optim
from equipoise.train import GAN, d_step, g_step
from equipoise.train.steps import means
from equipoise.weights import (
    ClipSingularValues,
    ClipWeights,
    ExactSpectralNorm,
    FrobeniusNorm,
    NoNormalizer,
    SpectralNorm,
    constraints,
    normalizers,
    weighted_layers,
)

DIGITS = ImageSpec(resolution=28, channels=1, num_classes=10)
SPECS = (
    ImageSpec(resolution=9, channels=3, num_classes=10),
    ImageSpec(resolution=32, channels=3, num_classes=10),
    DIGITS,
)
"""Data of the tests: for MLPs alone, for networks of many sizes, for those of digits."""


# ---- components, found and not listed: a new one joins by itself -------------------------------------------------


def components(module, base=object):
    found = [getattr(module, name) for name in module.__all__]
    return [c for c in found if dataclasses.is_dataclass(c) and issubclass(c, base) and not inspect.isabstract(c)]


def choices(hint):
    """The values of a field's type that has few: both of a bool, the words of a Literal; of another type, none."""
    if hint is bool:
        return (False, True)
    if get_origin(hint) in (Union, UnionType):
        return [choice for part in get_args(hint) for choice in choices(part)]
    return get_args(hint) if get_origin(hint) is Literal else ()


def variants(component, **fields):
    """By name, `component` with `fields`, and with each other choice of one more field that has few; not made yet."""
    found, hints = {component.__name__: partial(component, **fields)}, get_type_hints(component)
    made = component(**fields)
    for field in dataclasses.fields(component):
        for choice in choices(hints[field.name]):
            apart = (component, choice) in APART
            if choice != getattr(made, field.name) and not apart:
                more = fields | {field.name: choice}
                found[f"{component.__name__}.{field.name}={choice}"] = partial(component, **more)
    return found


APART = {(ADA, "rv"), (DCGANDiscriminator, "virtual")}
"""Choices that no config can make on their own: the first needs another field, the second is for one's own loop."""


def all_variants(module, base=object):
    found = components(module, base)
    return {name: make for c in found for name, make in variants(c, **fields_for(c)).items()}


def fields_for(component):
    """What makes a component small, and visible from the first step on."""
    if issubclass(component, models.GeneratorConfig):
        return {"z_dim": 8, **narrow_fields(component, component.narrowest)}
    if issubclass(component, models.DiscriminatorConfig):
        return narrow_fields(component, component.narrowest)
    if component is FadingBlur:  # the widest blur leaves nothing of small images
        return {"sigma": 0.5}
    if component is ADA:  # p starts at 0
        return {"groups": get_args(get_args(get_type_hints(ADA)["groups"])[0]), "initial": 0.5}
    if component is ClipWeights:  # five layers of 0.01 in a row leave G no gradient that float32 could add
        return {"bound": 0.1}
    if issubclass(component, optim.OptimConfig):  # a step of 1e-3 may leave a G without norms no channel above 0
        return {"lr": 1e-5}
    return {}


OF_POINTS = (MLPGenerator, MLPDiscriminator)
FIRST = (
    models.DCGANDiscriminator,
    models.DCGANGenerator,
    SANDigitsDiscriminator,
    SANDigitsGenerator,
    models.TinyDigitsDiscriminator,
    models.TinyDigitsGenerator,
)
"""Small networks for images, which meet everything else with each of their choices.

The other architectures have tests of their own for their choices, and meet everything else as they are.
"""

STEADY = {*FIRST, *OF_POINTS, *components(progan), *components(varied)}
"""Networks all of whose weights move at their narrowest. Of a deeper one a layer's ReLUs may all be dead."""


LOSSES = components(losses)
NORMALIZERS = components(normalizers)
GENERATORS = components(models, models.GeneratorConfig)
DISCRIMINATORS = components(models, models.DiscriminatorConfig)


def name(part):
    return {True: "san", False: "plain"}.get(part) or getattr(part, "__name__", part)


# ---- configs of the smallest networks ----------------------------------------------------------------------------


KINDS_OF_TERMS = ("penalties", "d_regularizers", "g_regularizers", "feature_matching", "joint_penalties")


def settings(
    loss=Hinge,
    conditioning=NoConditioning,
    san=False,
    normalizer=NoNormalizer,
    generator=SANDigitsGenerator,
    discriminator=SANDigitsDiscriminator,
    head=None,
    terms=(),
    **fields,
):
    """A config. generator, discriminator: classes, or constructors that know their sizes. head: a constructor too.

    terms: with those of the axes that `KINDS_OF_TERMS` names.
    """
    of_kinds = [(kind, term) for kind in KINDS_OF_TERMS for term in fields.pop(kind, ())]
    terms += tuple(
        dataclasses.replace(term, player="G") if kind == "g_regularizers" else term for kind, term in of_kinds
    )
    head = (head or partial(Head, san=san))(conditioning=conditioning())
    if isinstance(generator, type):
        generator = partial(generator, **fields_for(generator))
    if isinstance(discriminator, type):
        discriminator = partial(discriminator, **fields_for(discriminator))
    optimisers = {"g_optim": Adam(lr=1e-3), "d_optim": Adam(lr=1e-3), "batch_size": 4}
    return TrainConfig(
        data=Digits(),
        generator=generator(),
        discriminator=discriminator(),
        head=head,
        loss=loss(),
        terms=terms,
        d_normalizer=normalizer(),
        **optimisers | fields,
    )


NORMS = {
    "batch": nn.modules.batchnorm._BatchNorm,
    "layer": nn.LayerNorm,
    "group": nn.GroupNorm,
    "instance": nn.modules.instancenorm._InstanceNorm,
}


@cache
def spec_of(generator, discriminator):
    """The first of `SPECS` that both networks are for."""
    for spec in SPECS:
        try:
            generator(**fields_for(generator)).build(spec)
            Head().build(discriminator(**fields_for(discriminator)).build, spec)
        except ValueError:
            continue
        return spec
    raise AssertionError(f"no data in SPECS for {generator.__name__} with {discriminator.__name__}")


def build(cfg):
    """The players, with a warning of each guarantee that is void, and with no other."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gan = GAN.build(cfg, spec_of(type(cfg.generator), type(cfg.discriminator)))
    for module in (*gan.G.modules(), *gan.D.modules()):
        if isinstance(module, models.SelfAttention):
            nn.init.constant_(module.gamma, 0.5)  # a closed gate gives the layers behind it no gradient
    said, wanted = [str(warning.message) for warning in caught], voids(cfg, gan.D)
    assert len(said) == len(wanted), said
    for sentence, (start, reason) in zip(said, wanted, strict=True):
        assert sentence.startswith(start)
        assert reason in sentence
    return gan


def voids(cfg, D):
    """How each warning that `cfg` deserves begins, and words of its reason."""
    norms = [kind for kind, norm in NORMS.items() if any(isinstance(layer, norm) for layer in D.modules())]
    if any(isinstance(layer, nn.GroupNorm) and layer.num_groups == 1 for layer in D.modules()):
        norms = ["layer" if kind == "group" else kind for kind in norms]  # one group is layer norm
    bounded = isinstance(cfg.d_normalizer, (SpectralNorm, ExactSpectralNorm, FrobeniusNorm)) or bool(cfg.constraints)
    slopes = [term for term in cfg.terms if isinstance(term, Penalty) and term.of_gradient]
    found = []
    if "batch" in norms and slopes:
        found.append(("D has batch norm (", "no longer acts on each image's own"))
    if bounded:
        found += [(f"D has {kind} norm (", "Lipschitz constant has no bound") for kind in norms]
    if isinstance(cfg.loss, Wasserstein) and not slopes:
        if not bounded:
            found.append(("nothing bounds D's Lipschitz constant", "no minimum"))
        elif cfg.head.san:
            found.append((type((*cfg.constraints, cfg.d_normalizer)[0]).__name__, "leaves a SAN head alone"))
    return found


def batch(n=4, spec=DIGITS):
    return Batch(torch.rand(n, spec.channels, spec.resolution, spec.resolution) * 2 - 1, torch.arange(n))


# ---- what every step must do -------------------------------------------------------------------------------------


def weights(net):
    return {n: p.detach().clone() for n, p in net.named_parameters()}


def changed(net, before):
    return {n for n, p in net.named_parameters() if not torch.equal(p, before[n])}


def trained(net, optimizer):
    """Names of the weights of `net` that its optimiser owns: all but those that a transfer has frozen."""
    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return {n for n, p in net.named_parameters() if id(p) in owned}


class Gradients:
    """What an optimiser is given when it steps: gradients of both players by name, None where there is none.

    moved: names of the weights that it changed, before any constraint.
    """

    def __init__(self, gan):
        self.nets = {"D": gan.D, "G": gan.G}
        self.seen, self.before, self.moved = {}, {}, {}
        for optimizer in (gan.d_optim, gan.g_optim):
            optimizer.register_step_pre_hook(lambda *_: self.look())
            optimizer.register_step_post_hook(lambda *_: self.compare())

    def look(self):
        self.before = {player: weights(net) for player, net in self.nets.items()}
        self.seen = {
            player: {n: None if p.grad is None else p.grad.clone() for n, p in net.named_parameters()}
            for player, net in self.nets.items()
        }

    def compare(self):
        self.moved = {player: changed(net, self.before[player]) for player, net in self.nets.items()}


def check_step(step, gan, mover, other):
    """One step of `mover`: finite gradients on all that it trains, none elsewhere, and none left behind."""
    nets, optimizers = {"D": gan.D, "G": gan.G}, {"D": gan.d_optim, "G": gan.g_optim}
    before = weights(nets[other])
    gradients, moving = Gradients(gan), trained(nets[mover], optimizers[mover])
    must_move = {n for n in moving if not may_cancel(n, gan.cfg)}
    stats = step()
    if not {type(gan.cfg.generator), type(gan.cfg.discriminator)} <= STEADY:
        found = must_move & gradients.moved[mover]  # where all ReLUs of a layer are dead, nothing moves
        share = 0.2 if gan.cfg.generator.styled else 0.5  # weights of size 1 lose the smallest steps to rounding
        assert len(found) > share * len(must_move)
        must_move = found
    for n, gradient in gradients.seen[mover].items():
        assert (gradient is not None) == (n in moving), n
        if gradient is not None:
            assert gradient.isfinite().all(), n
            assert gradient.abs().sum() > 0 or n not in must_move, n
    assert all(gradient is None for gradient in gradients.seen[other].values())
    assert moving >= gradients.moved[mover] >= must_move
    assert changed(nets[other], before) == set()
    for net in nets.values():
        for n, p in net.named_parameters():
            assert p.grad is None, n
            assert not p.requires_grad, n
            assert p.isfinite().all(), n
    check_scalars(stats)
    return stats


def may_cancel(weight, cfg):
    """Whether the gradient of a weight of this name may be 0.

    That of a bias before batch norm is. So may be that of a hidden layer's class embedding where the layer is linear in
    its features, as small ones make it: it adds the same to the logits of real and of generated images, and cancels in
    a loss of their difference. The layers between images and maps smaller than the full size rest in a
    network that has grown to it. A normalised mapping network in the head is so deep, and learns so slowly, that
    float32 may hold nothing of its gradients, and under a constraint nothing of those of the other weights.
    """
    if cfg.constraints and isinstance(cfg.head.conditioning, models.MappedProjection):
        return True
    cancels = bool(cfg.constraints) or isinstance(cfg.loss, Wasserstein)
    resting = "to_image" in weight or "from_image" in weight or "conditioning.mapping" in weight
    return weight.endswith("bias") or resting or ("head.join.embed" in weight and cancels)


def check_scalars(stats):
    for key, value in stats.items():
        assert value.shape == (), key
        assert value.isfinite(), key
        assert not value.requires_grad, key


def check(cfg, rounds=1):
    """Both steps, `rounds` times, with all that the loop would hand them."""
    gan = build(cfg)
    assert (len(trained(gan.D, gan.d_optim)) < len(list(gan.D.parameters()))) == (cfg.start is not None)
    spec = spec_of(type(cfg.generator), type(cfg.discriminator))
    real = batch(spec=spec)
    held_out = batch(spec=spec) if cfg.augment.held_out else None
    labelled = batch(spec=spec) if cfg.head.conditioning.classifies == "labelled" else None
    for _ in range(rounds):
        gan.augment.at(0)
        d_stats = check_step(partial(d_step, gan, real, 0, held_out, labelled), gan, "D", "G")
        check_scalars(gan.augment.adapt(d_stats["D/sign_real"], cfg.batch_size, means(d_stats)))
        g_stats = check_step(partial(g_step, gan, real, 0, labelled), gan, "G", "D")
        assert set(d_stats) == wanted_of_d(cfg)
        assert set(g_stats) == wanted_of_g(cfg)


def wanted_of_d(cfg):
    """Names of the statistics of D's step."""
    wanted = {"D/loss", "D/real", "D/fake", "D/sign_real"}
    wanted |= {f"D/{type(term).__name__}" for term in cfg.terms if term.player != "G"}
    if isinstance(cfg.loss, Wasserstein):
        wanted.add("D/wasserstein")
    if cfg.head.conditioning.classifies:
        wanted.add("D/accuracy")
    if cfg.augment.held_out:
        wanted.add("D/held_out")
    if cfg.augment.all_passes and any(isinstance(term, Penalty) and term.on_real for term in cfg.terms):
        wanted.add("D/sign_again")
    return wanted


def wanted_of_g(cfg):
    return {"G/loss"} | {f"G/{type(term).__name__}" for term in cfg.terms if term.player != "D"}


# ---- every pair of all axes --------------------------------------------------------------------------------------


def values(found):
    return {name: make() for name, make in found.items()}


def each(found):
    """For a field that takes several: none, or one of them."""
    return {"none": ()} | {name: (make(),) for name, make in found.items()}


def of_one_player(module):
    return {name: make for name, make in all_variants(module).items() if ".player=" not in name}


AUGMENTS = values(all_variants(augment)) | {
    "ADA.heuristic=rv": ADA(heuristic="rv", held_out=0.1, initial=0.5),
    "Chain(ADA,InstanceNoise)": Chain((ADA(initial=0.5), InstanceNoise())),
}
NETWORKS = {
    "generator": all_variants(models, models.GeneratorConfig),
    "discriminator": all_variants(models, models.DiscriminatorConfig),
}
HEADS = variants(Head, san=True)
AXES = {
    "networks": {
        f"{g}+{d}": {"generator": G, "discriminator": D}
        for g, G in NETWORKS["generator"].items()
        for d, D in NETWORKS["discriminator"].items()
    },
    "loss": all_variants(losses),
    "conditioning": {conditioning.__name__: conditioning for conditioning in CONDITIONINGS},
    "head": HEADS,
    "normalizer": all_variants(normalizers),
    "penalties": each(all_variants(penalties)),
    "augment": AUGMENTS,
    "g_normalizer": values(all_variants(normalizers)),
    "d_regularizers": each(of_one_player(regularizers)),
    "g_regularizers": each(of_one_player(regularizers)) | {"lazy": (HistoricalAverage(every=2),)},
    "joint_penalties": each(all_variants(joint)) | {"lazy": (Consensus(every=2),)},
    "feature_matching": each(all_variants(matching)),
    "constraints": each(all_variants(constraints)),
    "d_optim": values(all_variants(optim)),
    "g_optim": values(all_variants(optim)),
    "d_steps": {"1": 1, "3": 3, "ToConvergence": ToConvergence()},
    "start": {"none": None, "FreezeD": FreezeD(run="runs/a", layers=1)},
}
"""What a config chooses, by axis and name: constructors for the arguments of `settings` that it calls, else values.

The average of the generator and the lengths of a run take no part in a step.
"""


def networks(of_kind):
    """`AXES` with those networks alone: each G with one D, each D with one G, as they meet in images alone."""
    G, D = ([name for name in found if of_kind(name, found[name].func)] for found in NETWORKS.values())
    num = max(len(G), len(D))
    pairs = [f"{G[i % len(G)]}+{D[i % len(D)]}" for i in range(num)]
    return {"networks": pairs} | {axis: list(found) for axis, found in AXES.items() if axis != "networks"}


ON_MLPS = networks(lambda _, network: network in OF_POINTS)
ON_IMAGES = networks(lambda _, network: network in FIRST)
ON_OTHERS = networks(lambda name, network: network not in (*OF_POINTS, *FIRST) and name == network.__name__)
OF_ANY_NETWORK = {  # which meet networks in images, features and logits alone: on MLPs each meets each
    "loss": ["NonSaturating", "RelativisticPairing", "Wasserstein"],
    "conditioning": ["NoConditioning", "Projection", "Input", "Hidden", "Auxiliary"],
    "penalties": ["none", "R1", "GradientPenalty"],
    "augment": ["NoAugment", "ADA", "FadingBlur"],
    "d_regularizers": ["none", "HistoricalAverage", "Orthogonal", "SingularValuePenalty", "SpectralNormPenalty"],
    "g_regularizers": ["none", "HistoricalAverage", "Orthogonal", "SingularValuePenalty", "SpectralNormPenalty"],
    "d_steps": ["1"],
    "d_optim": ["Adam"],
    "g_optim": ["Adam"],
}
ON_IMAGES |= OF_ANY_NETWORK
ON_OTHERS |= OF_ANY_NETWORK
for axis in ("constraints", "joint_penalties", "start"):
    ON_OTHERS[axis] = ["none"]  # which leave networks so deep and so narrow no gradients that float32 could add
ALL_AXES = {"mlps": ON_MLPS, "images": ON_IMAGES, "others": ON_OTHERS}


def config(case):
    """The config of a case, axis -> name, for some or all axes; the others go with every value."""
    neutral = {"loss": NonSaturating, "conditioning": Projection}
    chosen = {axis: AXES[axis][choice] for axis, choice in case.items()}
    return settings(**neutral | chosen.pop("networks", {}) | chosen)


REFUSED = {  # pairs of values that no config holds, and words of the reason
    ("loss", "head"): (
        lambda loss, head: (
            (loss().paired and head().san) or (isinstance(loss(), LeastSquares) and head().normalize_loss)
        ),
        "has no direction loss for the paired loss|its generator loss g increases somewhere",
    ),
    ("loss", "augment"): (lambda loss, augment: augment.reads_sign and not loss().signed, "goes by the sign of D's"),
    ("loss", "conditioning"): (
        lambda loss, conditioning: (
            conditioning is SemiSupervised and not isinstance(loss(), (Saturating, NonSaturating))
        ),
        "the loss must be its cross-entropy",
    ),
    ("conditioning", "head"): (
        lambda conditioning, head: (
            (head().san and conditioning is SemiSupervised)
            or (head().scale == "learned" and conditioning is models.MappedProjection)
        ),
        "not linear in the features|a network computes these vectors",
    ),
    ("networks", "conditioning"): (
        lambda networks, conditioning: (
            networks["generator"].keywords.get("class_input") in ("batch_norm", "shared")
            and conditioning in (NoConditioning, SemiSupervised)
        ),
        "this generator reads no class",
    ),
    ("normalizer", "constraints"): (
        lambda normalizer, constraints: bool(constraints) and normalizer() != NoNormalizer(),
        "there is nothing to project",
    ),
    ("head", "joint_penalties"): (lambda head, penalties: head().san and bool(penalties), "lack those parts"),
    ("g_regularizers", "d_steps"): (
        lambda regularizers, d_steps: any(r.every > 1 for r in regularizers) and isinstance(d_steps, ToConvergence),
        "`every` counts updates of G",
    ),
    ("joint_penalties", "d_steps"): (
        lambda penalties, d_steps: any(p.every > 1 for p in penalties) and isinstance(d_steps, ToConvergence),
        "`every` counts updates of G",
    ),
}


@cache
def reason_against(pair):
    """Why no config holds the pair ((axis, name), (axis, name)); None if one does."""
    (a, first), (b, second) = pair
    refused, reason = REFUSED.get((a, b), (lambda *_: False, None))
    return reason if refused(AXES[a][first], AXES[b][second]) else None


def allowed(case):
    """Whether no pair in it has a reason. The configs are asked in tests: each takes 5 ms."""
    return not any(reason_against(((a, case[a]), (b, case[b]))) for a, b in REFUSED if a in case and b in case)


@cache
def covering(kind):
    return covering_array(ALL_AXES[kind], allowed)


PARTS = 8
"""Test cases among which the cases of an array are shared, so that processes share them too."""


def label(case):
    return "-".join(choice for choice in case.values() if choice != "none")


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("kind", ALL_AXES)
def test_pairs(kind, part):
    """Each pair of loss, conditioning, head, normaliser and term is among them, and of each of these and a network.

    A second round, of terms that remember the first and of those not due, is enough on the quickest networks.
    """
    rounds = 2 if kind == "mlps" else 1
    for_each(covering(kind)[part::PARTS], label)(lambda case: check(config(case), rounds))()


@for_each(sorted({pair for axes in ALL_AXES.values() for pair in pairs_of(axes) if reason_against(pair)}))
def test_pairs_with_a_reason_are_refused(pair):
    with pytest.raises(ValueError, match=reason_against(pair)):
        config(dict(pair))


@for_each(ALL_AXES)
def test_the_cases_hold_every_pair_that_has_no_reason(kind):
    """Each is in a config that `test_pairs` makes, so none of them is refused."""
    held = set().union(*(pairs_in(case, ALL_AXES[kind]) for case in covering(kind)))
    assert held == {pair for pair in pairs_of(ALL_AXES[kind]) if reason_against(pair) is None}


def test_every_component_is_in_a_case():
    """By the modules' `__all__`, and for each field of few choices all of them."""
    made = [part for kind in ALL_AXES for case in covering(kind) for part in parts(config(case))]
    modules = (augment, constraints, heads, joint, losses, matching, models, normalizers, optim, penalties)
    for component in (c for module in (*modules, regularizers) for c in components(module)):
        found = [part for part in made if type(part) is component]
        assert found, component
        if issubclass(component, (models.GeneratorConfig, models.DiscriminatorConfig)) and component not in (
            *FIRST,
            *OF_POINTS,
        ):
            continue
        hints = get_type_hints(component)
        for field in (f.name for f in dataclasses.fields(component) if f.name != "player"):  # which has axes of its own
            missing = set(choices(hints[field])) - {getattr(part, field) for part in found}
            assert missing <= {choice for c, choice in APART if c is component} - {"rv"}, (component, field)


def parts(value):
    """A value of a config, and what it is made of."""
    if isinstance(value, tuple):
        return [part for item in value for part in parts(item)]
    if not dataclasses.is_dataclass(value):
        return []
    return [value, *(part for f in dataclasses.fields(value) for part in parts(getattr(value, f.name)))]


# ---- the generator of cases --------------------------------------------------------------------------------------


def test_a_covering_array_holds_every_pair_in_few_cases():
    """Of 4^10 cases, 16 hold a pair of each two values at least; a greedy choice takes about twice that."""
    axes = {axis: range(4) for axis in "abcdefghij"}
    cases = covering_array(axes, lambda case: True)
    held = {(a, case[a], b, case[b]) for case in cases for a, b in itertools.combinations("abcdefghij", 2)}
    assert len(held) == 45 * 16
    assert 16 <= len(cases) <= 40
    assert cases == covering_array(axes, lambda case: True)


def test_a_covering_array_of_strength_3_holds_every_triple():
    axes = {axis: range(3) for axis in "abcdef"}
    cases = covering_array(axes, lambda case: True, strength=3)
    assert set().union(*(pairs_in(case, axes, 3) for case in cases)) == set(pairs_of(axes, 3))
    assert 27 <= len(cases) < 80  # of 729


def test_a_covering_array_goes_round_what_is_refused():
    """a = b = c is refused, of which no pair knows: a whole case shows it, after a and b are chosen."""
    axes = {"a": (0, 1), "b": (0, 1), "c": (0, 1, 2), "d": (0, 1)}

    def fine(case):
        return len({case.get("a", "?"), case.get("b", "??"), case.get("c", "???")}) > 1 and case.get(
            "d", "????"
        ) != case.get("a")

    cases = covering_array(axes, fine)
    assert all(fine(case) and case.keys() == axes.keys() for case in cases)
    held = {(a, case[a], b, case[b]) for case in cases for a, b in itertools.combinations("abcd", 2)}
    wanted = {
        (a, case[a], b, case[b])
        for case in (dict(zip(axes, one, strict=True)) for one in itertools.product(*axes.values()))
        for a, b in itertools.combinations("abcd", 2)
        if fine(case)
    }
    assert held == wanted


def test_a_pair_that_fits_into_no_case_is_an_error():
    with pytest.raises(ValueError, match="is allowed, and every whole case with it is refused"):
        covering_array({"a": (0, 1), "b": (0, 1), "c": (0, 1)}, lambda case: len(case) < 3 or case["a"] == 0)


# ---- what no pair shows -------------------------------------------------------------------------------------------


@for_each(itertools.product(components(penalties), [(False, NoNormalizer), (True, SpectralNorm)]))
def test_penalties(case):
    penalty, (san, normalizer) = case
    check(settings(NonSaturating, PerClass, san, normalizer, terms=(penalty(),)))


@loop_over(
    "fields",
    [
        {"san": True, "normalizer": SpectralNorm},
        {
            "constraints": (ClipWeights(bound=0.5), ClipSingularValues()),
            "joint_penalties": tuple(c() for c in components(joint)),
        },
    ],
    ids=["SAN", "plain"],
)
def test_several_of_everything(fields):
    """All that goes together: what is refused of a SAN goes with a plain head."""
    check(
        settings(
            Wasserstein,
            Projection,
            g_normalizer=SpectralNorm(),
            penalties=(R1(every=1), R2(every=1), GradientPenalty()),
            d_regularizers=tuple(c() for c in components(regularizers)),
            g_regularizers=tuple(c() for c in components(regularizers)),
            **fields,
        ),
        rounds=2,
    )


# ---- what a step does exactly -------------------------------------------------------------------------------------


@loop_over("san", [False, True], ids=name)
def test_ds_gradient_is_that_of_its_loss_and_its_penalties(san):
    """mean loss + every · gamma/2 · mean ‖∇D‖² of R1, differentiated in one piece."""
    cfg = settings(NonSaturating, san=san, terms=(R1(gamma=3.0, every=4),))
    gan, real = build(cfg), batch()
    gradients = Gradients(gan)
    fakes = []
    gan.G.register_forward_hook(lambda module, args, x: fakes.append(x))
    gan.D.requires_grad_(True)
    reference = {n: p.detach().clone().requires_grad_(True) for n, p in gan.D.named_parameters()}
    d_step(gan, real, 0)

    def logits(x):
        return torch.func.functional_call(gan.D, reference, (x,))

    x = real.x.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(logits(x).fun.sum(), x, create_graph=True)
    total = discriminator_loss(cfg.loss, logits(real.x), logits(fakes[0]))
    total = total + 4 * 3.0 / 2 * slope.square().sum((1, 2, 3)).mean()
    wanted = torch.autograd.grad(total, list(reference.values()))
    for n, gradient in zip(reference, wanted, strict=True):
        assert_close(gradients.seen["D"][n], gradient, rtol=1e-4, atol=1e-6)


def differentiated(net, total):
    """Gradients by name of total(net with weights that it may differentiate, those weights)."""
    reference = {n: p.detach().clone().requires_grad_(True) for n, p in net.named_parameters()}
    value = total(partial(torch.func.functional_call, net, reference), reference)
    return dict(zip(reference, torch.autograd.grad(value, list(reference.values())), strict=True))


def on_mlps(**fields):
    """Players without state, so that calling them again changes nothing."""
    return build(settings(generator=MLPGenerator, discriminator=MLPDiscriminator, **fields))


def noise_of(gan):
    """The z that G is given, as they come."""
    seen = []
    gan.G.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    return seen


def assert_same(found, wanted):
    for n, gradient in wanted.items():
        assert_close(found[n], gradient, rtol=1e-4, atol=1e-6, msg=lambda text, n=n: f"{n}: {text}")


@loop_over("conditioning", [NoConditioning, Auxiliary, SemiSupervised])
def test_ds_gradient_with_classes_and_a_regulariser(conditioning):
    """AC-GAN's classes of real and generated images; for K + 1 classes those of the labelled images and no others."""
    gan = on_mlps(loss=NonSaturating, conditioning=conditioning, d_regularizers=(Orthogonal(strength=0.3, every=4),))
    real, labelled = batch(spec=SPECS[0]), Batch(torch.rand(6, 3, 9, 9), torch.tensor([9, 8, 7, 9, 8, 7]))
    noise, gradients = noise_of(gan), Gradients(gan)

    def total(D, weights):
        fake = gan.G(noise[0], real.y)
        on_real, on_fake = D((real.x, real.y)), D((fake, real.y))
        value = F.softplus(-on_real.fun).mean() + F.softplus(on_fake.fun).mean()
        if conditioning is Auxiliary:
            value += F.cross_entropy(on_real.classes, real.y) + F.cross_entropy(on_fake.classes, real.y)
        if conditioning is SemiSupervised:
            value += F.cross_entropy(D((labelled.x, labelled.y)).classes, labelled.y)
        products = [w @ w.T for n, w in weights.items() if n.endswith("weight")]
        return value + 4 * 0.3 * sum(w.square().sum() - w.diagonal().square().sum() for w in products)

    before = copy.deepcopy(gan.D)
    d_step(gan, real, 0, labelled=labelled if conditioning is SemiSupervised else None)
    assert_same(gradients.seen["D"], differentiated(before, total))


@loop_over("scale", ["norm", "learned"])
def test_ds_gradient_with_a_normalised_direction_loss(scale):
    """ω is pulled from the mean of h among generated images to that among real ones, both weighted by r = s(-logit)."""
    head = partial(Head, san=True, scale=scale, normalize_loss=True)
    gan = on_mlps(loss=NonSaturating, conditioning=Projection, head=head)
    real, noise, gradients = batch(spec=SPECS[0]), noise_of(gan), Gradients(gan)

    def mean(logits):
        r = logits.dir.detach().neg().sigmoid()
        return (r * logits.dir).sum() / r.sum()

    def total(D, weights):
        on_real, on_fake = D((real.x, real.y)), D((gan.G(noise[0], real.y), real.y))
        value = F.softplus(-on_real.fun).mean() + F.softplus(on_fake.fun).mean()
        return value + mean(on_fake) - mean(on_real)

    before = copy.deepcopy(gan.D)
    d_step(gan, real, 0)
    assert_same(gradients.seen["D"], differentiated(before, total))


@loop_over("adversarial", [False, True])
@loop_over("conditioning", [NoConditioning, Projection, Auxiliary, SemiSupervised])
def test_gs_gradient_with_classes_feature_matching_and_a_regulariser(conditioning, adversarial):
    """Of its own loss, the classes that AC-GAN's G was given, the squared distance of mean features, and weights."""
    gan = on_mlps(
        loss=NonSaturating,
        conditioning=conditioning,
        terms=(FeatureMatching(strength=5.0, adversarial=adversarial), SpectralNormPenalty(strength=0.2, player="G")),
    )
    real, noise, gradients = batch(spec=SPECS[0]), noise_of(gan), Gradients(gan)

    def total(G, weights):
        on_real, on_fake = gan.D(real.x, real.y), gan.D(G((noise[0], real.y)), real.y)
        value = 5 * (on_real.features.mean(0) - on_fake.features.mean(0)).square().sum()
        if adversarial:
            value += F.softplus(-on_fake.fun).mean()
        if conditioning is Auxiliary:
            value += F.cross_entropy(on_fake.classes, real.y)
        norms = [torch.linalg.matrix_norm(w, 2) for n, w in weights.items() if n.endswith("weight")]
        return value + 0.2 / 2 * sum(norm**2 for norm in norms)

    before = copy.deepcopy(gan.G)
    g_step(gan, real, 0)
    assert_same(gradients.seen["G"], differentiated(before, total))


@loop_over("player", ["D", "G"])
def test_consensus_is_in_the_gradient_of_either_player(player):
    """∇ (L + gamma/2 ‖(∇_θ L_D, ∇_φ L_G)‖²) in the weights of the one that moves, both losses on the same noise."""
    gan = on_mlps(loss=NonSaturating, joint_penalties=(Consensus(gamma=3.0),))
    real, noise, gradients = batch(spec=SPECS[0]), noise_of(gan), Gradients(gan)
    nets = {"D": copy.deepcopy(gan.D).requires_grad_(True), "G": copy.deepcopy(gan.G).requires_grad_(True)}
    (d_step if player == "D" else g_step)(gan, real, 0)
    on_fake = nets["D"](nets["G"](noise[0]))
    values = {
        "D": F.softplus(-nets["D"](real.x).fun).mean() + F.softplus(on_fake.fun).mean(),
        "G": F.softplus(-on_fake.fun).mean(),
    }
    own = [
        gradient
        for p, value in values.items()
        for gradient in torch.autograd.grad(value, list(nets[p].parameters()), create_graph=True)
    ]
    total = values[player] + 3 / 2 * sum(gradient.square().sum() for gradient in own)
    wanted = torch.autograd.grad(total, list(nets[player].parameters()), allow_unused=True, materialize_grads=True)
    assert_same(gradients.seen[player], dict(zip(weights(nets[player]), wanted, strict=True)))


def test_a_lazy_regulariser_of_g_counts_gs_updates():
    """With two D updates per G update: G's updates 0, 1, 2, ... start at 0, 2, 4, ... batches."""
    gan = on_mlps(d_steps=2, g_regularizers=(Orthogonal(every=2),), d_regularizers=(Orthogonal(every=4),))
    real, due = batch(spec=SPECS[0]), defaultdict(list)
    for update in range(4):
        for i in range(2):
            due["D"].append("D/Orthogonal" in d_step(gan, real, 4 * (2 * update + i)))
        due["G"].append("G/Orthogonal" in g_step(gan, real, 4 * 2 * update))
    assert due["D"] == [update % 4 == 0 for update in range(8)]
    assert due["G"] == [True, False, True, False]


def test_a_lazy_penalty_is_due_every_so_many_updates():
    cfg = settings(penalties=(R1(every=3), GradientPenalty(every=2)))
    gan = build(cfg)
    due = defaultdict(list)
    for update in range(7):
        for key in d_step(gan, batch(), update * cfg.batch_size):
            due[key].append(update)
    assert due["D/R1"] == [0, 3, 6]
    assert due["D/GradientPenalty"] == [0, 2, 4, 6]


def test_d_is_constrained_after_its_step():
    """Not before it, which would let the step leave the bounds."""
    gan = build(settings(Wasserstein, constraints=(ClipWeights(bound=0.01),), d_optim=Adam(lr=0.1)))
    for update in range(3):
        d_step(gan, batch(), 4 * update)
        for n, layer in weighted_layers(gan.D):
            assert all(p.abs().max() <= 0.01 for p in layer.parameters()), n


def test_a_loss_falls_when_its_player_alone_moves():
    """Thirty steps of D on one batch, then thirty of G: each lowers its own loss."""
    gan, real = build(settings(NonSaturating, Projection, san=True, normalizer=SpectralNorm)), batch()
    d = [d_step(gan, real, 0)["D/loss"].item() for _ in range(30)]
    assert d[-1] < d[0] - 0.05
    g = [g_step(gan, real, 0)["G/loss"].item() for _ in range(30)]
    assert g[-1] < g[0] - 0.001


def test_ds_step_builds_no_graph_through_g():
    """It would cost a generator's memory for nothing."""
    gan, graphs = build(settings(penalties=(R2(every=1),))), []
    gan.G.register_forward_hook(lambda module, args, x: graphs.append(x.requires_grad))
    d_step(gan, batch(), 0)
    g_step(gan, batch(), 0)
    assert graphs == [False, True]


def test_the_two_players_see_other_noise():
    """z is a function of (seed, player, nimg): fresh at each step, never shared by D and G, the same if repeated."""
    gan, real = build(settings()), batch()
    seen = []
    gan.G.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    for step, nimg in ((d_step, 0), (g_step, 0), (d_step, 4), (d_step, 0)):
        step(gan, real, nimg)
    d, g, later, again = seen
    assert torch.equal(d, again)
    assert not torch.equal(d, g)
    assert not torch.equal(d, later)
    assert d.shape == (4, 8)
