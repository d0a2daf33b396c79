"""Heads: <w(y), h> whatever the conditioning, and what SAN does to its gradients."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import CONDITIONINGS
from torch import nn
from torch.testing import assert_close

from equipoise.config import TrainConfig
from equipoise.core.randomness import Purpose, seed_torch
from equipoise.core.types import Batch, ImageSpec, Logits
from equipoise.data import Digits
from equipoise.losses import NonSaturating
from equipoise.models import (
    Auxiliary,
    Head,
    NoConditioning,
    PerClass,
    Projection,
    SANDigitsDiscriminator,
    SANDigitsGenerator,
    SemiSupervised,
)
from equipoise.nn import (
    BiasedHead,
    Discriminator,
    LearnedScale,
    LinearHead,
    PerClassVectors,
    ProjectionVectors,
    SANHead,
    UnconditionalVector,
    renormalize,
    split,
)
from equipoise.rules import Adam
from equipoise.train import GAN, d_step, g_step
from equipoise.weights import spectral_stats

N, F, CLASSES = 6, 5, 3
VECTORS = {
    NoConditioning: UnconditionalVector,
    Projection: ProjectionVectors,
    PerClass: PerClassVectors,
}  # those of w(y) alone
SHAPES = {"vector": (N, F), "map": (N, F, 2, 4)}
y = torch.tensor([0, 2, 1, 1, 0, 2])

conditionings = pytest.mark.parametrize("conditioning", VECTORS)
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def build(conditioning, san, dtype=torch.float64):
    return Head(conditioning(), san=san).factory(CLASSES)(F).to(dtype)


def vectors(head):
    """w(y) written out, (N, F), from the head's weights."""
    c = head.conditioning
    match c:
        case UnconditionalVector():
            return c.linear.weight.expand(N, F)
        case ProjectionVectors():
            return c.linear.weight[0] + torch.stack([c.embed.weight[k] for k in y])
        case PerClassVectors():
            return torch.stack([c.embed.weight[k] for k in y])


def expected(head, h):
    """<w(y_i), h_i> at each position, by a loop."""
    w, columns = vectors(head), h.reshape(N, F, -1)
    return torch.stack([torch.stack([w[i] @ column for column in columns[i].T]) for i in range(N)])


def gradients_on_w(head, h, upstream):
    """Gradients on w(y) of sum(upstream · fun) and of sum(upstream · dir), with w(y) itself."""
    caught = []

    def catch(module, args, w):
        caught.append(w.expand(N, -1).clone().detach().requires_grad_(True))
        return caught[0]

    with head.conditioning.register_forward_hook(catch):
        logits = head(h, y)
    outputs = [f for f in logits if f is not None]
    return caught[0], [torch.autograd.grad((upstream * f).sum(), caught[0], retain_graph=True)[0] for f in outputs]


# ---- values ----------------------------------------------------------------------------------------------


@conditionings
@shapes
@pytest.mark.parametrize("san", [False, True], ids=["plain", "san"])
def test_logits_are_the_inner_products(conditioning, shape, san):
    head, h = build(conditioning, san), torch.randn(shape, dtype=torch.float64)
    logits = head(h, y)
    assert_close(logits.fun, expected(head, h), rtol=1e-12, atol=1e-12)
    if san:
        assert_close(logits.dir, logits.fun, rtol=1e-12, atol=1e-12)
    else:
        assert logits.dir is None


@pytest.mark.parametrize("conditioning", [*VECTORS, Auxiliary, SemiSupervised])
def test_weights_start_at_the_asked_scale(conditioning):
    """N(0, std²), and std = 1/√F where none is given; each weight of 1,000 x 100 is pooled."""
    for std, wanted in ((None, 1 / math.sqrt(1000)), (0.02, 0.02), (1.0, 1.0)):
        head = Head(conditioning(), init_std=std).factory(100)(1000)
        for p in head.parameters():
            assert p.std().item() == pytest.approx(wanted, rel=0.1)
            assert abs(p.mean().item()) < 5 * wanted / math.sqrt(p.numel())


@pytest.mark.parametrize("san", [False, True], ids=["plain", "san"])
@pytest.mark.parametrize("conditioning", [c for c in VECTORS if c != NoConditioning])
def test_a_conditional_head_needs_labels(conditioning, san):
    with pytest.raises(ValueError, match=r"conditioned on the class: call it with labels, D\(x, y\)"):
        build(conditioning, san)(torch.randn(N, F, dtype=torch.float64))
    with pytest.raises(ValueError, match=rf"head.conditioning={conditioning.__name__}\(\) needs labelled data"):
        Head(conditioning(), san=san).factory(0)


@pytest.mark.parametrize("san", [False, True], ids=["plain", "san"])
def test_an_unconditional_head_ignores_labels(san):
    head, h = build(NoConditioning, san), torch.randn(N, F, dtype=torch.float64)
    assert torch.equal(head(h).fun, head(h, y).fun)


def test_discriminator_is_features_then_head():
    body, head = nn.Sequential(nn.Flatten(), nn.Linear(12, F)), build(Projection, san=True, dtype=torch.float32)
    x = torch.randn(N, 3, 2, 2)
    logits = Discriminator(body, head)(x, y)
    assert isinstance(logits, Logits)
    assert_close(logits.fun, expected(head, body(x)))


# ---- the two gradients of SAN ------------------------------------------------------------------------------


@conditionings
@shapes
def test_fun_trains_the_length_and_dir_the_direction(conditioning, shape):
    """On w, the gradient of fun is parallel to w and that of dir orthogonal to it, and they add up to the plain one."""
    san, h = build(conditioning, san=True), torch.randn(shape, dtype=torch.float64)
    plain = LinearHead(san.conditioning)
    upstream = torch.randn_like(san(h, y).fun)
    w, (on_fun, on_dir) = gradients_on_w(san, h, upstream)
    _, (whole,) = gradients_on_w(plain, h, upstream)
    omega = w / w.norm(dim=1, keepdim=True)
    along = (whole * omega).sum(1, keepdim=True) * omega
    assert_close(on_fun, along, rtol=1e-10, atol=1e-10)
    assert_close(on_dir, whole - along, rtol=1e-10, atol=1e-10)
    assert_close((on_dir * w).sum(1), torch.zeros(N, dtype=torch.float64), rtol=0, atol=1e-10)
    assert on_dir.norm() > 0.1


@conditionings
@shapes
def test_only_fun_reaches_the_features(conditioning, shape):
    """The gradient of fun on x is a plain head's; dir has none."""
    san = build(conditioning, san=True)
    plain = LinearHead(san.conditioning)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    body = torch.tanh
    logits = san(body(x), y)
    upstream = torch.randn_like(logits.fun)
    (on_fun,) = torch.autograd.grad((upstream * logits.fun).sum(), x)
    (on_plain,) = torch.autograd.grad((upstream * plain(body(x), y).fun).sum(), x)
    assert_close(on_fun, on_plain, rtol=1e-12, atol=1e-12)
    assert torch.autograd.grad(logits.dir.sum(), x, allow_unused=True) == (None,)


@conditionings
def test_the_gradients_reach_the_parameters_of_the_conditioning(conditioning):
    """Against <‖w‖ ω, h> differentiated with one factor of three held fixed, in terms of w0 and V."""
    head, h = build(conditioning, san=True), torch.randn(N, F, dtype=torch.float64)
    parameters, logits, w = list(head.parameters()), head(h, y), vectors(head)
    length, omega = w.norm(dim=1, keepdim=True), w / w.norm(dim=1, keepdim=True)
    for found, wanted in ((logits.fun, length * omega.detach() * h), (logits.dir, length.detach() * omega * h)):
        got = torch.autograd.grad(found.sum(), parameters, retain_graph=True)
        assert_close(got, torch.autograd.grad(wanted.sum(), parameters, retain_graph=True), rtol=1e-10, atol=1e-10)


@given(st.integers(0, 1000), st.floats(1e-3, 1e3), st.integers(1, 7), st.integers(1, 4))
def test_split_is_two_halves_of_one_vector(seed, scale, features, rows):
    w = torch.randn(rows, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale
    w.requires_grad_(True)
    length, direction = split(w)
    assert_close(length, w, rtol=1e-12, atol=0)
    assert_close(direction, w, rtol=1e-12, atol=0)
    upstream = torch.ones_like(w)
    (on_length,) = torch.autograd.grad(length, w, upstream, retain_graph=True)
    (on_direction,) = torch.autograd.grad(direction, w, upstream)
    assert_close(on_length + on_direction, upstream, rtol=1e-9, atol=1e-9)
    assert ((on_direction * w).sum(1).abs() < 1e-9 * scale).all()


def test_split_of_zero_is_finite():
    w = torch.zeros(2, 3, requires_grad=True)
    length, direction = split(w)
    assert torch.equal(length, w)
    assert torch.equal(direction, w)
    assert torch.autograd.grad((length + direction).sum(), w)[0].isfinite().all()


# ---- numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("san", [False, True], ids=["plain", "san"])
@conditionings
def test_logits_are_float32_under_autocast(conditioning, san):
    """The features may be bfloat16; their inner product is not rounded to bfloat16's 8 bits."""
    head = build(conditioning, san, torch.float32)
    body = nn.Linear(4, F)
    with torch.autocast("cpu", torch.bfloat16):
        h = body(torch.randn(N, 4))
        logits = head(h, y)
    assert h.dtype == torch.bfloat16
    assert_close(logits.fun, expected(head, h.float()), rtol=1e-6, atol=1e-6)  # assert_close compares dtypes too
    if san:
        assert_close(logits.dir, logits.fun)


@pytest.mark.parametrize("san", [False, True], ids=["plain", "san"])
@pytest.mark.parametrize(
    ("given_dtype", "found"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)],
    ids=str,
)
def test_logits_are_float32_or_wider(san, given_dtype, found):
    head = build(NoConditioning, san, torch.float32 if given_dtype != torch.float64 else given_dtype)
    assert head(torch.randn(N, F).to(given_dtype)).fun.dtype == found


def test_head_settings_are_checked():
    with pytest.raises(ValueError, match="conditioning"):
        Head(conditioning="projektion")
    with pytest.raises(ValueError, match="init_std"):
        Head(init_std=0.0)


def test_head_settings_choose_the_head():
    for conditioning, wanted in VECTORS.items():
        for san in (False, True):
            head = build(conditioning, san)
            assert type(head) is (SANHead if san else LinearHead)
            assert type(head.conditioning) is wanted


# ---- who learns classes, and from what ---------------------------------------------------------------------


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_a_head_says_which_images_teach_it_classes(conditioning):
    """All of them under an auxiliary classifier, the labelled ones for K + 1 classes; it gives `classes` just then."""
    head = Head(conditioning())
    assert conditioning.classifies == {Auxiliary: "all", SemiSupervised: "labelled"}.get(conditioning)
    assert not (conditioning.reads_labels and conditioning.classifies)
    D = head.build(lambda spec, make: Discriminator(nn.Flatten(), make(spec.channels * 4)), ImageSpec(2, 1, CLASSES))
    output = D(torch.randn(N, 1, 2, 2), y)
    assert (output.classes is not None) == (conditioning.classifies is not None)


def test_labels_are_read_of_a_number_of_images_that_there_are():
    """At least one of each class, and no more than the data has."""
    for labelled, images, classes in ((10, 10, 10), (10, 500, 10), (500, 500, 10), (1, 5, 1)):
        assert SemiSupervised(labelled=labelled).labels_read(images, classes) == labelled
    for labelled, images, classes in ((9, 500, 10), (501, 500, 10), (10**8, 1797, 10)):
        message = (
            rf"head\.conditioning\.labelled={labelled} must be at least one image of each of the {classes} classes, "
            rf"and there are {images} images"
        )
        with pytest.raises(ValueError, match=message):
            SemiSupervised(labelled=labelled).labels_read(images, classes)


# ---- a SAN with a scale of its own -----------------------------------------------------------------------------


def learned(conditioning, dtype=torch.float64):
    return Head(conditioning(), san=True, scale="learned").factory(CLASSES)(F).to(dtype)


def moved(head):
    """As after some steps without a renormalisation: no vector is a unit vector, one scale is negative, b is not 0."""
    with torch.no_grad():
        for p in head.last.conditioning.vectors.parameters():
            p.mul_(torch.rand(len(p), 1, dtype=p.dtype) + 1.5)
        head.last.conditioning.scale.uniform_(0.5, 2)[0].neg_()
        head.bias.normal_()
    return head


def parts(head):
    """s(y_i), v(y_i) and b written out, (N, 1), (N, F), (F,), from the head's weights."""
    scale = head.last.conditioning.scale
    return (scale[y] if len(scale) > 1 else scale.expand(N, 1)), directions(head), head.bias


def directions(head):
    """v(y), (N, F)."""
    return vectors(LinearHead(head.last.conditioning.vectors))


def every_direction(head):
    v = head.last.conditioning.vectors
    return v(None) if isinstance(v, UnconditionalVector) else v(torch.arange(CLASSES))


@conditionings
def test_a_learned_scale_starts_as_the_head_without_it(conditioning):
    torch.manual_seed(0)
    plain = Head(conditioning(), san=True, init_std=0.3).factory(CLASSES)(F)
    torch.manual_seed(0)
    head, h = Head(conditioning(), san=True, init_std=0.3, scale="learned").factory(CLASSES)(F), torch.randn(N, F, 2, 4)
    for found, wanted in zip(head(h, y)[:2], plain(h, y)[:2], strict=True):
        assert_close(found, wanted)
    assert head.last.conditioning.scale.shape == (1 if conditioning == NoConditioning else CLASSES, 1)
    assert_close(directions(head).norm(dim=1), torch.ones(N))
    assert not head.bias.any()
    assert {type(head), type(head.last)} == {BiasedHead, SANHead}


@conditionings
@shapes
def test_a_learned_scale_by_its_definition(conditioning, shape):
    """fun = s <sg(ω), h + b> and dir = sg(s) <ω, sg(h + b)>, by a loop, with all gradients and all that are not."""
    head, h = moved(learned(conditioning)), torch.randn(shape, dtype=torch.float64, requires_grad=True)
    scale, v, bias = parts(head)
    omega = v / v.square().sum(1, keepdim=True).sqrt()

    def definition(scale, omega, bias, h):
        columns = h.reshape(N, F, -1)
        return torch.stack([(scale[i] * omega[i]) @ (columns[i] + bias[:, None]) for i in range(N)])

    fun = definition(scale, omega.detach(), bias, h)
    direction = definition(scale.detach(), omega, bias.detach(), h.detach())
    upstream, leaves = torch.randn_like(fun), [h, *head.parameters()]
    for found, wanted in zip(head(h, y)[:2], (fun, direction), strict=True):
        assert_close(found, wanted, rtol=1e-12, atol=1e-12)
        pair = [torch.autograd.grad(t, leaves, upstream, retain_graph=True, allow_unused=True) for t in (found, wanted)]
        assert_close(*pair, rtol=1e-10, atol=1e-12)
        assert any(g is None for g in pair[0])


@conditionings
def test_a_learned_scale_and_its_direction_do_not_mix_under_adam(conditioning):
    """Adam steps each weight by its own history, and so turns a single vector by the gradient of fun, along it."""

    def after(head, which):
        optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            head(h, y)[which].square().mean().backward()
            optimizer.step()
        return head

    h = torch.randn(N, F)
    single = build(conditioning, san=True, dtype=torch.float32)
    before = vectors(single).detach().clone()
    assert (nn.functional.cosine_similarity(vectors(after(single, 0)), before) < 0.999).all()
    for which, kept in ((0, "vectors"), (1, "scale")):
        head = learned(conditioning, torch.float32)
        before = {n: p.clone() for n, p in head.named_parameters()}
        same = {n for n, p in after(head, which).named_parameters() if torch.equal(p, before[n])}
        assert same == {n for n in before if kept in n} | ({"bias"} if which == 1 else set())


ON_SAN = [c for c in CONDITIONINGS if c.linear and c.stored]


def whole(conditioning):
    """A discriminator of small maps in float64 with a learned scale in its head."""
    spec = ImageSpec(2, 1, CLASSES)
    build_d = Head(conditioning(), san=True, scale="learned").build
    return build_d(lambda spec, make: Discriminator(nn.Flatten(), make(spec.channels * 4)), spec).double()


def scales(D):
    return [m for m in D.modules() if isinstance(m, LearnedScale)]


@pytest.mark.parametrize("conditioning", ON_SAN)
def test_renormalize_makes_unit_vectors_and_changes_no_logit(conditioning):
    D, x = whole(conditioning), torch.randn(N, 1, 2, 2, dtype=torch.float64)
    (module,) = scales(D)
    with torch.no_grad():
        for p in D.parameters():
            p.mul_(torch.rand(len(p), *[1] * (p.ndim - 1), dtype=p.dtype) + 0.5)
    before, others = D(x, y).fun, {n: p.clone() for n, p in D.named_parameters() if "vectors" not in n}
    assert renormalize(D) is None
    assert_close(D(x, y).fun, before, rtol=1e-12, atol=1e-12)
    classes = None if len(module.scale) == 1 else torch.arange(CLASSES)
    lengths = module.vectors(classes).norm(dim=1)
    assert_close(lengths, torch.ones_like(lengths), rtol=1e-12, atol=0)
    assert all(torch.equal(D.get_parameter(n), p) for n, p in others.items())
    assert all(p.requires_grad for p in D.parameters())


def test_renormalize_finds_every_head_and_leaves_others_alone():
    nets = nn.ModuleList([learned(NoConditioning), nn.Sequential(learned(PerClass)), build(Projection, san=True)])
    with torch.no_grad():
        for p in nets.parameters():
            p.mul_(3)
    before = [p.clone() for p in nets[2].parameters()]
    renormalize(nets)
    for head in (nets[0], nets[1][0]):
        lengths = every_direction(head).norm(dim=1)
        assert_close(lengths, torch.ones_like(lengths))
    assert all(torch.equal(a, b) for a, b in zip(nets[2].parameters(), before, strict=True))


def test_renormalising_keeps_the_angle_of_a_step():
    """A step of gradient descent turns v by atan(lr s |h - ω<ω, h>| / ‖v‖²), and makes it longer."""
    head, h, lr = learned(NoConditioning), torch.randn(N, F, dtype=torch.float64), 0.7
    scale, lengths = head.last.conditioning.scale.item(), []
    optimizer = torch.optim.SGD(head.parameters(), lr=lr)
    for renormalised in (True, True, False, False):
        v = every_direction(head)[0].detach().clone()
        omega, mean = v / v.norm(), h.mean(0)
        wanted = math.atan(lr * scale * (mean - omega * (omega @ mean)).norm() / v.norm() ** 2)
        optimizer.zero_grad()
        (-head(h).dir).mean().backward()
        optimizer.step()
        after = every_direction(head)[0].detach()
        lengths.append(after.norm().item())
        assert math.acos((after @ omega / after.norm()).clamp(max=1)) == pytest.approx(wanted, rel=1e-5)
        if renormalised:
            renormalize(head)
    assert 1 < lengths[2] < lengths[3]


def test_the_plain_forward_of_a_learned_scale_trains_everything():
    """A `LinearHead` on the same vectors has the values of fun; a penalty through it trains the direction too.

    Through fun a gradient penalty trains s and the features, and not the direction: R1 = s² ‖J' ω‖².
    """
    san = moved(learned(NoConditioning))
    conditioning, x = san.last.conditioning, torch.randn(N, 3, dtype=torch.float64, requires_grad=True)
    body = nn.Linear(3, F).double()
    plain, h = BiasedHead(LinearHead(conditioning), F).double(), body(x)
    plain.bias = san.bias
    assert_close(plain(h).fun, san(h).fun, rtol=1e-12, atol=1e-12)
    v, s = conditioning.vectors.linear.weight, conditioning.scale
    omega = v[0] / v[0].square().sum().sqrt()
    r1 = s.squeeze() ** 2 * (body.weight.T @ omega).square().sum()
    on_s, on_v = torch.autograd.grad(r1, (s, v))
    for head, wanted in ((san, None), (plain, on_v)):
        (slope,) = torch.autograd.grad(head(h).fun.sum(), x, create_graph=True)
        penalty = slope.square().sum(1).mean()
        assert_close(penalty, r1)
        found = torch.autograd.grad(penalty, (s, v), allow_unused=True)
        assert_close(found[0], on_s)
        assert (found[1] is None) == (wanted is None)
        if wanted is not None:
            assert_close(found[1], wanted)


@conditionings
def test_the_spectral_norm_that_is_reported_is_the_largest_scale(conditioning):
    D = Discriminator(nn.Linear(4, F), moved(learned(conditioning, torch.float32)))
    found = spectral_stats(D)["D/sigma/head.last"]
    assert_close(found.float(), D.head.last.conditioning.scale.detach().abs().max())


@conditionings
def test_a_direction_of_zero_is_finite(conditioning):
    head, h = learned(conditioning), torch.randn(N, F, dtype=torch.float64)
    with torch.no_grad():
        for p in head.last.conditioning.vectors.parameters():
            p.zero_()
    renormalize(head)
    logits = head(h, y)
    assert not logits.fun.any()
    gradients = torch.autograd.grad((logits.fun + logits.dir).sum(), list(head.parameters()))
    assert all(g.isfinite().all() for g in gradients)


def test_the_options_of_a_san_are_refused_of_a_plain_head():
    with pytest.raises(ValueError, match=r"head\.scale=learned is for SAN heads, .* Set head\.san=true"):
        Head(scale="learned")
    with pytest.raises(ValueError, match=r"head\.normalize_loss=true is about the direction loss of SAN heads"):
        Head(Projection(), normalize_loss=True)
    with pytest.raises(ValueError, match="scale"):
        Head(san=True, scale="lernt")


def players(conditioning=Projection, **fields):
    cfg = TrainConfig(
        data=Digits(),
        generator=SANDigitsGenerator(z_dim=4, width=2),
        discriminator=SANDigitsDiscriminator(width=2),
        head=Head(conditioning(), san=True, **fields),
        loss=NonSaturating(),
        batch_size=4,
        d_optim=Adam(lr=0.01),
    )
    return GAN.build(cfg, ImageSpec(28, 1, 10))


def steps(gan, numbers):
    for i in numbers:
        images = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(i))
        real = Batch(images, torch.arange(4))
        seed_torch(0, Purpose.DRAWS, 0, i)
        d_step(gan, real, 4 * i)
        g_step(gan, real, 4 * i)


@pytest.mark.parametrize("conditioning", ON_SAN)
def test_the_trainer_renormalises_after_each_update_of_d(conditioning):
    gan = players(conditioning, scale="learned")
    (module,) = scales(gan.D)
    y = None if len(module.scale) == 1 else torch.arange(10)
    for i in range(3):
        before, scale = module.vectors(y).detach().clone(), module.scale.detach().clone()
        steps(gan, [i])
        lengths = module.vectors(y).norm(dim=1)
        assert_close(lengths, torch.ones_like(lengths), rtol=0, atol=1e-6)
        assert (module.vectors(y) - before).abs().max() > 1e-3
        assert not torch.equal(module.scale, scale)


def test_a_run_with_a_learned_scale_resumes_bit_for_bit():
    """A unit vector that is divided by its length again may change its last digit: loading must not do it."""
    whole_run, first = players(scale="learned"), players(scale="learned")
    steps(whole_run, range(4))
    steps(first, range(2))
    saved = [copy.deepcopy(part.state_dict()) for part in (first.G, first.D, first.g_optim, first.d_optim)]
    second = players(scale="learned")
    for part, state in zip((second.G, second.D, second.g_optim, second.d_optim), saved, strict=True):
        part.load_state_dict(state)
    steps(second, range(2, 4))
    for n, p in whole_run.D.state_dict().items():
        assert torch.equal(second.D.state_dict()[n], p), n
