"""Heads: <w(y), h> whatever the conditioning, and what SAN does to its gradients."""

from __future__ import annotations

import math
from typing import get_args, get_type_hints

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from equipoise.conditioning import PerClass, Projection, Unconditional
from equipoise.heads import Discriminator, Head, LinearHead, SANHead, split
from equipoise.types import ImageSpec, Logits

N, F, CLASSES = 6, 5, 3
CONDITIONINGS = {"none": Unconditional, "projection": Projection, "per_class": PerClass}  # those of w(y) alone
SHAPES = {"vector": (N, F), "map": (N, F, 2, 4)}
y = torch.tensor([0, 2, 1, 1, 0, 2])

conditionings = pytest.mark.parametrize("conditioning", CONDITIONINGS)
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def build(conditioning, san, dtype=torch.float64):
    return Head(conditioning, san=san).factory(CLASSES)(F).to(dtype)


def vectors(head):
    """w(y) written out, (N, F), from the head's weights."""
    c = head.conditioning
    match c:
        case Unconditional():
            return c.linear.weight.expand(N, F)
        case Projection():
            return c.linear.weight[0] + torch.stack([c.embed.weight[k] for k in y])
        case PerClass():
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


@pytest.mark.parametrize("conditioning", [*CONDITIONINGS, "auxiliary", "semi_supervised"])
def test_weights_start_at_the_asked_scale(conditioning):
    """N(0, std²), and std = 1/√F where none is given; each weight of 1,000 x 100 is pooled."""
    for std, wanted in ((None, 1 / math.sqrt(1000)), (0.02, 0.02), (1.0, 1.0)):
        head = Head(conditioning, init_std=std).factory(100)(1000)
        for p in head.parameters():
            assert p.std().item() == pytest.approx(wanted, rel=0.1)
            assert abs(p.mean().item()) < 5 * wanted / math.sqrt(p.numel())


@pytest.mark.parametrize("san", [False, True], ids=["plain", "san"])
@pytest.mark.parametrize("conditioning", [c for c in CONDITIONINGS if c != "none"])
def test_a_conditional_head_needs_labels(conditioning, san):
    with pytest.raises(ValueError, match=r"conditioned on the class: call it with labels, D\(x, y\)"):
        build(conditioning, san)(torch.randn(N, F, dtype=torch.float64))
    with pytest.raises(ValueError, match=f"head.conditioning='{conditioning}' needs labelled data"):
        Head(conditioning, san=san).factory(0)


@pytest.mark.parametrize("san", [False, True], ids=["plain", "san"])
def test_an_unconditional_head_ignores_labels(san):
    head, h = build("none", san), torch.randn(N, F, dtype=torch.float64)
    assert torch.equal(head(h).fun, head(h, y).fun)


def test_discriminator_is_features_then_head():
    body, head = nn.Sequential(nn.Flatten(), nn.Linear(12, F)), build("projection", san=True, dtype=torch.float32)
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
    head = build("none", san, torch.float32 if given_dtype != torch.float64 else given_dtype)
    assert head(torch.randn(N, F).to(given_dtype)).fun.dtype == found


def test_head_settings_are_checked():
    with pytest.raises(ValueError, match="conditioning"):
        Head(conditioning="projektion")
    with pytest.raises(ValueError, match="init_std"):
        Head(init_std=0.0)


def test_head_settings_choose_the_head():
    for conditioning, wanted in CONDITIONINGS.items():
        for san in (False, True):
            head = build(conditioning, san)
            assert type(head) is (SANHead if san else LinearHead)
            assert type(head.conditioning) is wanted


# ---- who learns classes, and from what ---------------------------------------------------------------------

WORDS = get_args(get_type_hints(Head)["conditioning"])


@pytest.mark.parametrize("conditioning", WORDS)
def test_a_head_says_which_images_teach_it_classes(conditioning):
    """All of them under an auxiliary classifier, the labelled ones for K + 1 classes; it gives `classes` just then."""
    head = Head(conditioning)
    assert head.classifies == {"auxiliary": "all", "semi_supervised": "labelled"}.get(conditioning)
    assert head.conditional_generator == (head.reads_labels or head.classifies == "all")
    assert not (head.reads_labels and head.classifies)
    D = head.build(lambda spec, make: Discriminator(nn.Flatten(), make(spec.channels * 4)), ImageSpec(2, 1, CLASSES))
    output = D(torch.randn(N, 1, 2, 2), y)
    assert (output.classes is not None) == (head.classifies is not None)


def test_labels_are_read_of_a_number_of_images_that_there_are():
    """At least one of each class, and no more than the data has."""
    for labelled, images, classes in ((10, 10, 10), (10, 500, 10), (500, 500, 10), (1, 5, 1)):
        assert Head("semi_supervised", labelled=labelled).labels_read(images, classes) == labelled
    for labelled, images, classes in ((9, 500, 10), (501, 500, 10), (10**8, 1797, 10)):
        message = (
            rf"head\.labelled={labelled} must be at least one image of each of the {classes} classes, "
            rf"and there are {images} images"
        )
        with pytest.raises(ValueError, match=message):
            Head("semi_supervised", labelled=labelled).labels_read(images, classes)
