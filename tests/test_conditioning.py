"""How a discriminator uses the class: each way against its definition written out, with a plain and with a SAN head."""

from __future__ import annotations

import pytest
import torch
from loops import loop_over
from networks import CONDITIONINGS
from torch import nn
from torch.nn.utils import parametrize
from torch.testing import assert_close

from equipoise.core.types import ImageSpec
from equipoise.losses import Hinge, NonSaturating, Saturating, class_loss, discriminator_loss, generator_loss
from equipoise.models import (
    Auxiliary,
    Head,
    Hidden,
    Input,
    MappedProjection,
    NoConditioning,
    PerClass,
    Projection,
    SemiSupervised,
)
from equipoise.nn import (
    AuxiliaryHead,
    Discriminator,
    HiddenConcat,
    HiddenHead,
    InputConcat,
    LinearHead,
    SANHead,
    UnconditionalVector,
    sanify,
)
from equipoise.weights import ExactSpectralNorm, weighted_layers

N, C, SIZE, K, F = 6, 2, 4, 3, 5
SPEC = ImageSpec(SIZE, C, K)
y = torch.tensor([0, 2, 1, 1, 0, 2])

READS = (Projection, PerClass, MappedProjection, Input, Hidden)
CLASSIFIES = (Auxiliary, SemiSupervised)
CASES = [(c, san) for c in CONDITIONINGS for san in (False, True) if not (san and c == SemiSupervised)]

every = loop_over(("conditioning", "san"), CASES, ids=[f"{c.__name__}-{'san' if s else 'plain'}" for c, s in CASES])
conditionings = loop_over("conditioning", CONDITIONINGS)
plain_and_san = loop_over("san", [False, True], ids=["plain", "san"])


def to_map(spec, head):
    """Features (N, F, 4, 4)."""
    return Discriminator(nn.Sequential(nn.Conv2d(spec.channels, F, 3, padding=1), nn.Tanh()), head(F))


def to_vector(spec, head):
    """Features (N, F)."""
    layer = nn.Linear(spec.channels * spec.resolution**2, F)
    return Discriminator(nn.Sequential(nn.Flatten(), layer, nn.Tanh()), head(F))


def points(spec, head):
    """Of toy data (N, channels)."""
    return Discriminator(nn.Sequential(nn.Linear(spec.channels, 16), nn.Tanh()), head(16))


bodies = loop_over("body", [to_map, to_vector])


def build(conditioning, san=False, body=to_map, dtype=torch.float64):
    return Head(conditioning(), san=san).build(body, SPEC).to(dtype)


def images(dtype=torch.float64):
    return torch.rand(N, C, SIZE, SIZE, dtype=dtype) * 2 - 1


def gradients(value, D):
    """By the parameter's name; None where the value does not depend on it."""
    names, parameters = zip(*D.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True), strict=True))


def last_vector(D):
    """The name of the one weight that a SAN splits, of an unconditional head."""
    (name,) = (n for n, _ in D.named_parameters() if n.endswith("conditioning.linear.weight"))
    return name


# ---- each against its definition -------------------------------------------------------------------------


@plain_and_san
@bodies
def test_input_concat_is_a_body_on_more_channels(body, san):
    """One map per class: ones for the image's own, zeros for the others, behind its channels."""
    D, x = build(Input, san, body), images()
    appended = torch.zeros(N, C + K, SIZE, SIZE, dtype=torch.float64)
    for i in range(N):
        appended[i, :C] = x[i]
        appended[i, C + y[i]] = 1
    assert_close(D(x, y).fun, D.head(D.body(appended)).fun, rtol=0, atol=0)
    plain = build(NoConditioning, san, body)
    assert D.state_dict().keys() == plain.state_dict().keys()
    assert type(D.head) is type(plain.head)


def test_input_concat_of_points():
    x = torch.randn(N, 2, dtype=torch.float64)
    wanted = torch.tensor([[*point, *(float(label == k) for k in range(K))] for point, label in zip(x, y, strict=True)])
    assert_close(InputConcat(K)(x, y), wanted.double(), rtol=0, atol=0)


@plain_and_san
@loop_over("shape", [(N, F), (N, F, 7), (N, F, 2, 4)], ids=str)
def test_hidden_concat_by_a_loop_over_images_and_positions(shape, san):
    head, h = Head(Hidden(), san=san).factory(K)(F).double(), torch.randn(shape, dtype=torch.float64)
    embed, layer, w = head.join.embed.weight, head.join.layer, head.last.conditioning.linear.weight[0]
    assert (embed.shape, layer.weight.shape) == ((K, 128), (512, F + 128))
    logits = []
    for i in range(N):
        for column in h.reshape(N, F, -1)[i].T:
            before = layer.weight @ torch.cat([column, embed[y[i]]]) + layer.bias
            logits.append(w @ torch.where(before > 0, before, 0.2 * before))
    assert_close(head(h, y).fun, torch.stack(logits).reshape(N, -1), rtol=1e-12, atol=1e-12)
    assert head.join(h, y).shape == (N, 512, *shape[2:])


@plain_and_san
@loop_over("windows", [(), (3,)], ids=str)
def test_hidden_concat_of_a_map_that_the_body_flattened(windows, san):
    """As of the map itself at each position, but one logit per window that reads them all: a sum over positions."""
    positions, head = 4, Head(Hidden(), san=san).factory(K)(5 * 4, positions=4).double()
    h = torch.randn(N, 5, positions, *windows, dtype=torch.float64)
    alone = Head(Hidden(), san=san).factory(K)(5).double()
    alone.join.load_state_dict(head.join.state_dict())
    w = head.last.conditioning.linear.weight.view(512, positions)
    total = 0
    for p in range(positions):
        with torch.no_grad():
            alone.last.conditioning.linear.weight.copy_(w[:, p][None])
        total = total + alone(h[:, :, p], y).fun
    assert_close(head(h.flatten(1, 2), y).fun, total, rtol=1e-12, atol=1e-12)


def test_hidden_concat_of_other_sizes():
    join = HiddenConcat(F, K, embed=4, width=9)
    assert join(torch.randn(N, F, 2, 2), y).shape == (N, 9, 2, 2)
    assert join.layer.in_features == F + 4


@plain_and_san
@bodies
def test_an_auxiliary_classifier_stands_beside_the_head(body, san):
    """The classes are those of the mean features, and fun and dir those of the head without it."""
    D, x = build(Auxiliary, san, body), images()
    logits, h = D(x, y), D.body(x)
    mean = h.reshape(N, F, -1).mean(2)
    assert_close(logits.classes, torch.stack([D.head.classifier.weight @ v for v in mean]), rtol=1e-12, atol=1e-12)
    alone = D.head.last(h)
    assert torch.equal(logits.fun, alone.fun)
    assert (logits.dir is None) == (alone.dir is None) == (not san)


def test_a_classifier_of_ones_own_may_have_a_bias():
    classifier = nn.Linear(F, K)
    h = torch.randn(N, F)
    logits = AuxiliaryHead(LinearHead(UnconditionalVector(F)), classifier)(h)
    assert_close(logits.classes, classifier(h))


@bodies
def test_k_plus_1_classes_are_the_papers_loss(body):
    """-log p(y|x, y<K+1) - log(1 - p(K+1|x)) - log p(K+1|G(z)), by a softmax over K + 1 logits, with its gradients."""
    D, real, fake = build(SemiSupervised, body=body), images(), images().requires_grad_(True)

    def p(x):
        h = D.body(x).reshape(N, F, -1).mean(2)
        scores = torch.cat([h @ D.head.classifier.weight.T, torch.zeros(N, 1, dtype=torch.float64)], dim=1)
        return scores.exp() / scores.exp().sum(1, keepdim=True)

    of_real, of_fake = p(real), p(fake)
    among_real = of_real[torch.arange(N), y] / of_real[:, :K].sum(1)
    supervised, unsupervised = -among_real.log(), -(1 - of_real[:, K]).log() - of_fake[:, K].log()
    on_real, on_fake = D(real, y), D(fake, y)
    assert on_real.fun.shape == (N, 1)
    assert_close(class_loss(on_real, y), supervised.mean(), rtol=1e-10, atol=0)
    assert_close(NonSaturating().d(on_real.fun, on_fake.fun)[:, 0], unsupervised, rtol=1e-10, atol=0)
    found = class_loss(on_real, y) + discriminator_loss(NonSaturating(), on_real, on_fake)
    wanted = (supervised + unsupervised).mean()
    assert_close(gradients(found, D), gradients(wanted, D), rtol=1e-10, atol=1e-12)
    for loss, g in ((NonSaturating(), -(1 - of_fake[:, K]).log()), (Saturating(), of_fake[:, K].log())):
        value = generator_loss(loss, on_fake)
        assert_close(value, g.mean(), rtol=1e-10, atol=0)
        pair = [torch.autograd.grad(v, fake, retain_graph=True)[0] for v in (value, g.mean())]
        assert_close(*pair, rtol=1e-9, atol=1e-12)


def test_k_plus_1_classes_are_finite_for_sure_discriminators():
    head = Head(SemiSupervised()).factory(K)(F)
    for scale in (-1e4, 1e4):
        nn.init.constant_(head.classifier.weight, scale)
        logits = head(torch.ones(N, F))
        value = NonSaturating().d(logits.fun, logits.fun).mean() + class_loss(logits, y)
        assert all(g.isfinite().all() for g in torch.autograd.grad(value, list(head.parameters())))


# ---- what y does -----------------------------------------------------------------------------------------


@every
@bodies
def test_the_label_of_an_image_moves_its_logits_alone_or_nothing(conditioning, san, body):
    D, x = build(conditioning, san, body), images()
    other = y.clone()
    other[0] = 1
    before, after = D(x, y), D(x, other)
    moved = (before.fun != after.fun).any(1)
    assert moved[0] == (conditioning in READS)
    assert not moved[1:].any()
    if before.classes is not None:
        assert torch.equal(before.classes, after.classes)


@every
def test_labels_are_asked_for_where_they_are_read(conditioning, san):
    head, D = Head(conditioning(), san=san), build(conditioning, san)
    assert head.conditioning.reads_labels == (conditioning in READS)
    assert head.conditioning.conditional_generator == (conditioning in (*READS, Auxiliary))
    if head.conditioning.reads_labels:
        with pytest.raises(ValueError, match=r"conditioned on the class: call it with labels, D\(x, y\)"):
            D(images())
    else:
        assert torch.equal(D(x := images()).fun, D(x, y).fun)


@every
def test_only_a_d_that_reads_the_class_tells_pairs_apart(conditioning, san):
    """Real points are at +1 in class 0 and -1 in class 1, generated ones the other way round: x alone tells nothing."""
    D = Head(conditioning(), san=san).build(points, ImageSpec(1, 2, 2))
    classes = torch.arange(64) % 2
    real = torch.where(classes == 0, 1.0, -1.0)[:, None] + 0.1 * torch.randn(64, 2)
    optim = torch.optim.Adam(D.parameters(), lr=3e-2)
    for _ in range(50):
        loss = discriminator_loss(Hinge(), D(real, classes), D(-real, classes))
        optim.zero_grad()
        loss.backward()
        optim.step()
    decided = (D(real, classes).fun > 0).float().mean() - (D(-real, classes).fun > 0).float().mean()
    assert decided == 1 if conditioning in READS else decided.abs() < 0.3


# ---- SAN -------------------------------------------------------------------------------------------------


@loop_over("conditioning", [NoConditioning, Input, Hidden, Auxiliary])
@bodies
def test_san_splits_the_gradient_of_the_last_vector_and_no_other(conditioning, body):
    """fun: along w, and a plain head's elsewhere. dir: across w, and nothing elsewhere. Together a plain head's."""
    D, x = build(conditioning, True, body), images()
    plain = build(conditioning, False, body)
    plain.load_state_dict(D.state_dict())
    logits, w = D(x, y), last_vector(D)
    assert_close(logits.dir, logits.fun, rtol=1e-12, atol=1e-12)
    assert_close(plain(x, y).fun, logits.fun, rtol=1e-12, atol=1e-12)
    upstream = torch.randn_like(logits.fun)
    on_fun, on_dir = (gradients((upstream * half).sum(), D) for half in (logits.fun, logits.dir))
    whole = gradients((upstream * plain(x, y).fun).sum(), plain)
    omega = nn.functional.normalize(D.get_parameter(w).detach(), dim=1)
    along = (whole[w] * omega).sum() * omega
    assert_close(on_fun.pop(w), along, rtol=1e-10, atol=1e-10)
    assert_close(on_dir.pop(w), whole.pop(w) - along, rtol=1e-10, atol=1e-10)
    assert_close(on_fun, whole, rtol=1e-10, atol=1e-12)
    assert set(on_dir.values()) == {None}


@bodies
def test_the_classifier_beside_a_san_is_no_san(body):
    """Its loss trains the features and its own weights as it does beside a plain head."""
    D, x = build(Auxiliary, True, body), images()
    plain = build(Auxiliary, False, body)
    plain.load_state_dict(D.state_dict())
    found, wanted = (gradients(class_loss(net(x), y), net) for net in (D, plain))
    assert found[last_vector(D)] is None
    assert found["head.classifier.weight"].norm() > 0.01
    assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@loop_over("conditioning", [c for c in CONDITIONINGS if c != SemiSupervised])
def test_sanify_leaves_heads_of_the_library_alone(conditioning):
    with pytest.raises(ValueError, match=r"has its own heads: set head\.san=true|K \+ 1 classes have no SAN"):
        sanify(build(conditioning))


# ---- what training needs ---------------------------------------------------------------------------------


@every
@bodies
def test_every_parameter_is_trained(conditioning, san, body):
    D = build(conditioning, san, body)
    on_real, on_fake = D(images(), y), D(images(), y)
    loss = discriminator_loss(NonSaturating(), on_real, on_fake)
    if conditioning in CLASSIFIES:
        loss = loss + class_loss(on_real, y) + class_loss(on_fake, y)
    else:
        assert on_real.classes is None
    for name, gradient in gradients(loss, D).items():
        assert gradient is not None, name
        assert gradient.abs().sum() > 0, name


@every
@bodies
def test_logits_are_float32_under_autocast(conditioning, san, body):
    """The network may compute in bfloat16; the last inner products do not."""
    D, x = build(conditioning, san, body, torch.float32), images(torch.float32)
    exact = D(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = D(x, y)
    for name in ("fun", "dir", "classes"):
        before, after = getattr(exact, name), getattr(rounded, name)
        assert (before is None) == (after is None)
        if before is not None:
            assert after.dtype == torch.float32
            assert_close(after, before, rtol=0.05, atol=0.05)
            assert not torch.equal(after, after.bfloat16().float()), "rounded to bfloat16"


@every
@bodies
def test_the_features_are_what_the_body_made(conditioning, san, body):
    D, x = build(conditioning, san, body), images()
    logits = D(x, y)
    assert torch.equal(logits.features, D.body(x if D.join is None else D.join(x, y)))
    assert logits.features.shape[:2] == (N, F)
    assert logits.features.requires_grad


@every
def test_normalisers_reach_all_but_san_heads(conditioning, san):
    D = build(conditioning, san, dtype=torch.float32)
    last = "head.last" if conditioning in (Hidden, Auxiliary) else "head"
    vector = {
        Projection: {f"{last}.conditioning.linear", f"{last}.conditioning.embed"},
        PerClass: {f"{last}.conditioning.embed"},
        MappedProjection: {
            f"{last}.conditioning.{n}" for n in ("out", "mapping.embed", *(f"mapping.fc{i}" for i in range(8)))
        },
        SemiSupervised: set(),
    }.get(conditioning, {f"{last}.conditioning.linear"})
    beside = {
        Hidden: {"head.join.embed", "head.join.layer"},
        Auxiliary: {"head.classifier"},
        SemiSupervised: {"head.classifier"},
    }.get(conditioning, set())
    wanted = {"body.0"} | beside | (set() if san else vector)
    assert {name for name, _ in weighted_layers(D)} == wanted
    ExactSpectralNorm()(D)
    assert {name for name, m in D.named_modules() if parametrize.is_parametrized(m)} == wanted
    logits = D(images(torch.float32), y)
    if logits.classes is not None:
        mean, weight = logits.features.mean((2, 3)), D.head.classifier.weight
        assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1)
        assert_close(logits.classes, mean @ weight.T)


# ---- what is refused -------------------------------------------------------------------------------------


@conditionings
def test_classes_are_asked_for_where_they_are_used(conditioning):
    unlabelled = ImageSpec(SIZE, C)
    if conditioning == NoConditioning:
        assert Head().build(to_map, unlabelled)(images(torch.float32)).fun.shape == (N, SIZE**2)
        return
    message = rf"head.conditioning={conditioning.__name__}\(.*\) needs labelled data and this data has no labels"
    with pytest.raises(ValueError, match=message):
        Head(conditioning()).build(to_map, unlabelled)
    with pytest.raises(ValueError, match=message):
        Head(conditioning()).factory(0)
    with pytest.raises(ValueError, match=message):
        conditioning().generator_spec(unlabelled)


@conditionings
def test_g_is_conditional_where_d_asks_for_it(conditioning):
    """It must read what D reads, and what D's classifier is to find in its images. Else it sees no classes."""
    asked = conditioning in (*READS, Auxiliary)
    assert conditioning().generator_spec(SPEC) == (SPEC if asked else ImageSpec(SIZE, C, 0))


@plain_and_san
def test_input_concat_needs_a_body_and_a_head(san):
    def opaque(spec, head):
        return nn.Sequential(nn.Flatten(), nn.Linear(spec.channels * SIZE**2, F), head(F))

    message = r"must return equipoise\.Discriminator\(body, head\); this one returned Sequential"
    with pytest.raises(ValueError, match=message):
        Head(Input(), san=san).build(opaque, SPEC)
    with pytest.raises(ValueError, match=r"changes the body's input, not the head: .* Head\.build"):
        Head(Input(), san=san).factory(K)


def test_k_plus_1_classes_have_no_san():
    with pytest.raises(
        ValueError, match=r"san=true is not defined for head\.conditioning=SemiSupervised\(.*\): .* linear"
    ):
        Head(SemiSupervised(), san=True)


def test_labelled_is_checked():
    assert SemiSupervised(labelled=1).labelled == 1
    with pytest.raises(ValueError, match="labelled"):
        SemiSupervised(labelled=0)


@loop_over("conditioning", [Input, Hidden, Projection, PerClass])
def test_one_label_for_all_images_does_not_broadcast(conditioning):
    with pytest.raises(ValueError, match="expected a label per image, got 1 for 6 images"):
        build(conditioning)(images(), y[:1])


@plain_and_san
def test_settings_build_the_parts(san):
    last = SANHead if san else LinearHead
    hidden, auxiliary = build(Hidden, san).head, build(Auxiliary, san).head
    assert (type(hidden), type(hidden.join), type(hidden.last)) == (HiddenHead, HiddenConcat, last)
    assert (type(auxiliary), type(auxiliary.last)) == (AuxiliaryHead, last)
    joined = build(Input, san)
    assert (type(joined.join), type(joined.head)) == (InputConcat, last)
    assert build(Projection, san).join is None
