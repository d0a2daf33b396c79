"""ADA as a whole: nothing at p = 0, gradients of any order, the controller of p, and its state."""

from __future__ import annotations

import copy
import itertools
import math
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loops import loop_over
from reference import batch as batch_of_8
from reference import build, small
from torch import nn
from torch.testing import assert_close

from equipoise.augment import ADA, Augment, Augmentation, Chain, FadingBlur, Means
from equipoise.augment.ada import Group
from equipoise.compute.settings import Compute
from equipoise.config import components
from equipoise.core.grammar import parse
from equipoise.core.types import Batch
from equipoise.losses import R1, GradientPenalty, LazyStep
from equipoise.train import d_step
from equipoise.train.steps import means as adapted

GROUPS = get_args(Group)
CASES = [*((g,) for g in GROUPS), GROUPS[:3], GROUPS]
every_group = pytest.mark.parametrize("groups", CASES, ids="+".join)


def ada(p=1.0, **fields):
    return ADA(initial=p, heuristic="fixed", **fields).build()


def means(real, fake, held_out):
    return Means(*(torch.tensor(v) for v in (real, fake, held_out)))


ABOVE, BELOW = torch.tensor(1.0), torch.tensor(0.0)  # signs that ask for more, and for less


# ---- what it does to images -------------------------------------------------------------------------------------


@every_group
@pytest.mark.parametrize("shape", [(5, 1, 28, 28), (3, 3, 7, 12), (2, 1, 2, 2), (0, 3, 8, 8)])
def test_p_0_is_the_identity_bit_for_bit(groups, shape):
    x = torch.randn(shape)
    x.flatten()[::3] *= -0.0  # signed zeros count
    y = ada(0.0, groups=groups)(x)
    assert torch.equal(y.view(torch.int32), x.view(torch.int32))


@every_group
@pytest.mark.parametrize("channels", [1, 3])
def test_p_1_changes_images_and_keeps_their_shape(groups, channels):
    x = torch.randn(64, channels, 12, 12)
    y = ada(1.0, groups=groups)(x)
    assert y.shape == x.shape
    assert y.isfinite().all()
    # All are changed by something, save those that come back from a flip, a turn and a shift, or whose hole is beside.
    assert (y != x).flatten(1).any(1).double().mean() > 0.9


@loop_over(("group", "transforms"), [("color", 4), ("geometric", 5)])
def test_images_that_nothing_reached_are_untouched(group, transforms):
    """A share of (1 - p)^k of them for k transforms; of the two rotations one fires with probability p in all."""
    n, p = 4000, 0.2
    x = torch.randn(n, 3, 4, 4)
    untouched = (ada(p, groups=(group,))(x) == x).flatten(1).all(1).double().mean()
    share = (1 - p) ** (transforms - (group == "geometric")) * (1 - p / 2 if group == "color" else 1)
    assert abs(untouched - share) < 3 * (share * (1 - share) / n) ** 0.5


def test_the_order_of_the_groups_does_not_matter():
    x = torch.randn(4, 3, 8, 8)
    results = []
    for groups in (GROUPS, GROUPS[::-1]):
        torch.manual_seed(0)
        results.append(ada(0.5, groups=groups)(x))
    assert torch.equal(*results)


def test_every_call_draws_afresh_from_torchs_generator():
    module, x = ada(), torch.randn(4, 1, 8, 8)
    first, second = module(x), module(x)
    assert not torch.equal(first, second)
    torch.manual_seed(7)
    first = module(x)
    torch.manual_seed(7)
    assert torch.equal(module(x), first)


def test_images_of_a_batch_are_augmented_apart():
    """The result for an image does not depend on the pixels of its batch mates."""
    module, x = ada(groups=GROUPS), torch.randn(6, 3, 9, 9)
    torch.manual_seed(0)
    y = module(x)
    other = x.clone()
    other[3:] = torch.randn(3, 3, 9, 9)
    torch.manual_seed(0)
    assert_close(module(other)[:3], y[:3], rtol=0, atol=1e-6)
    assert not torch.equal(y[0], y[1])


def test_low_precision_is_augmented_in_float32():
    x = torch.randn(4, 3, 16, 16)
    torch.manual_seed(0)
    wanted = ada(groups=GROUPS)(x.bfloat16().float())
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = ada(groups=GROUPS)(x.bfloat16())
    assert y.dtype == torch.float32
    assert torch.equal(y, wanted)


def test_first_use_in_inference_mode_does_not_spoil_training():
    size = 23  # of no other test: the filters for a size are made once
    module = ada(groups=GROUPS)
    with torch.inference_mode():
        module(torch.randn(2, 1, size, size))
    x = torch.randn(2, 1, size, size, requires_grad=True)
    module(x).sum().backward()
    assert x.grad.abs().sum() > 0


@loop_over(
    ("x", "message"),
    [
        (torch.zeros(4, 2), r"expected|augments images \(N, C, H, W\).*got \(4, 2\) of torch.float32"),
        (torch.zeros(4, 1, 1, 8), r"at least 2 x 2 pixels, got \(4, 1, 1, 8\)"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), r"of floats in \[-1, 1\].*torch.uint8"),
        (torch.zeros(4, 2, 8, 8), r"'color' is for images of 1 or 3 channels, got 2: leave it out"),
    ],
)
def test_what_cannot_be_augmented_is_refused(x, message):
    with pytest.raises(ValueError, match=message):
        ada()(x)


def test_any_number_of_channels_without_color():
    assert ada(groups=("blit", "geometric", "filter", "corruption"))(torch.randn(2, 5, 8, 8)).shape == (2, 5, 8, 8)


# ---- gradients --------------------------------------------------------------------------------------------------


@every_group
def test_gradients_of_both_orders(groups):
    module = ada(0.8, groups=groups)
    x = torch.randn(2, 3, 4, 3, dtype=torch.float64, requires_grad=True)

    def augmented(x):
        torch.manual_seed(1)
        return module(x).square()

    assert torch.autograd.gradcheck(augmented, x)
    assert torch.autograd.gradgradcheck(augmented, x, fast_mode=True)


def test_r1_through_ada_is_the_norm_of_the_transposed_map():
    """D(T x) = <a, T x>: the gradient is Tᵀa, with T read off column by column."""
    module, x = ada(0.7), torch.randn(5, 1, 6, 6, dtype=torch.float64)
    a = torch.randn(36, dtype=torch.float64, requires_grad=True)

    def augmented(x):
        torch.manual_seed(2)
        return module(x)

    value = R1()(lambda x, y: augmented(x).flatten(1) @ a, Batch(x), Batch(x))
    J = torch.autograd.functional.jacobian(augmented, x).view(5, 36, 5, 36)
    T = torch.stack([J[i, :, i] for i in range(5)])
    wanted = (a @ T).square().sum(1)
    assert_close(value, wanted)
    (slope,) = torch.autograd.grad(value.sum(), a, retain_graph=True)
    assert_close(slope, torch.autograd.grad(wanted.sum(), a)[0])


def test_r1_through_ada_reaches_the_first_layer():
    D = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 36, 1))
    module = ada(groups=GROUPS)
    x = torch.randn(4, 3, 8, 8)
    R1()(lambda x, y: D(module(x)), Batch(x), Batch(x)).mean().backward()
    for name, weight in D.named_parameters():
        if name != "3.bias":  # a constant, without effect on gradients
            assert weight.grad.isfinite().all()
            assert weight.grad.abs().sum() > 0, name


# ---- the controller ---------------------------------------------------------------------------------------------


@loop_over(
    ("kimg", "batch", "every"), [(100, 256, 4), (100, 100, 4), (3, 7, 1), (0.5, 1, 1), (0.1, 64, 4), (0.2, 1, 5)]
)
def test_p_goes_from_0_to_1_in_exactly_kimg(kimg, batch, every):
    """After n images p is n / (1000 kimg), on a line without rounding errors; it reaches 1 with the last image."""
    module = ADA(kimg=kimg, every=every).build()
    total, step = kimg * 1000, batch * every
    for i in range(math.ceil(total / step)):
        for k in range(every):
            assert abs(module.p.item() - i * step / total) <= 1e-6 * i * step / total
            module.adapt(ABOVE, batch)
            assert module.iterations == (k + 1) % every
        assert (module.p == 1) == ((i + 1) * step >= total)
    for i in range(1, 5):
        for _ in range(every):
            module.adapt(BELOW, batch)
        assert_close(module.p.double().item(), max(1 - i * step / total, 0.0), rtol=0, atol=1e-6)


def test_p_follows_the_mean_of_the_iterations_between():
    """Over images: small batches count less. At the target itself, p stays."""
    for signs, batches, direction in [
        ((1.0, 0.9, 0.0, 0.0), (10, 10, 10, 10), -1),
        ((1.0, 0.9, 0.0, 0.0), (50, 50, 10, 10), +1),
        ((0.5, 0.5, 0.5, 0.5), (8, 8, 8, 8), 0),
    ]:
        module = ADA(target=0.5, initial=0.5, kimg=1).build()
        for sign, batch in zip(signs, batches, strict=True):
            assert module.p == 0.5
            module.adapt(torch.tensor(sign), batch)
        assert_close(module.p.item(), 0.5 + direction * sum(batches) / 1000, rtol=1e-6, atol=0)


def test_the_published_controller():
    """ADA(most=None, all_passes=True): the mean over the logits of all passes, those of R1 too, and p above 1.

    Wrong: the mean of the iterations' means, R1's signs added without their count, or p that moves further for them.
    """
    for signs, again, direction in [
        ((1.0, 1.0, 0.0, 0.0), (0.0, None, None, None), -1),
        ((1.0, 1.0, 0.25, 0.0), (1.0, None, None, None), +1),  # 0.65 of five passes; the mean of the four is 0.5625
        ((1.0, 1.0, 1.0, 0.0), (-1.0, None, None, None), -1),
        ((0.5, 0.5, 0.5, 0.5), (0.9, None, None, None), -1),  # 2.9 of 5, not of 4
        ((0.7, 0.7, 0.7, 0.7), (None, None, None, None), +1),
    ]:
        module = ADA(initial=0.5, kimg=1, most=None, all_passes=True).build()
        plain = ADA(initial=0.5, kimg=1).build()
        for sign, more in zip(signs, again, strict=True):
            extra = None if more is None else Means(*[torch.tensor(0.0)] * 3, torch.tensor(more))
            module.adapt(torch.tensor(sign), 16, extra)
            plain.adapt(torch.tensor(sign), 16, extra)
        mean = (sum(signs) + sum(m for m in again if m is not None)) / (4 + sum(m is not None for m in again))
        assert math.copysign(1, mean - 0.6) == direction
        assert_close(module.p.item(), 0.5 + 0.064 * direction, rtol=1e-6, atol=0)
        assert_close(plain.p.item(), 0.5 + math.copysign(0.064, sum(signs) / 4 - 0.6), rtol=1e-6, atol=0)
        assert all(buffer == 0 for name, buffer in module.named_buffers() if name != "p" and buffer.ndim == 0)
    module = ADA(kimg=0.064, every=1, most=None).build()
    for i in range(1, 5):
        module.adapt(ABOVE, 32)
        assert_close(module.p.item(), i / 2, rtol=1e-6, atol=0)
    x, found = torch.randn(16, 3, 12, 12), []
    for p in (1.0, 2.0):  # all fire, at 1 as above
        module.p.fill_(p)
        torch.manual_seed(0)
        found.append(module(x))
    assert torch.equal(*found)
    for _ in range(6):
        module.adapt(BELOW, 32)
    assert module.p == 0
    half = ADA(kimg=0.064, every=1, most=0.75).build()
    for _ in range(3):
        half.adapt(ABOVE, 32)
    assert half.p == 0.75
    assert list(ADA().build().state_dict()) == ["p", "iterations", "images", "sums"]  # checkpoints of earlier versions


def test_of_r1s_passes_the_signs_are_reported_if_asked_for():
    """In a step of its own or with the loss; all pieces, and only R1's calls."""
    for term in (R1(every=1), LazyStep(R1(every=1)), GradientPenalty()):
        for micro_batch in (None, 2):
            cfg = small(terms=(term,), augment=ADA(all_passes=True), compute=Compute(micro_batch=micro_batch))
            gan, real = build(cfg), batch_of_8()
            stats = d_step(gan, real, 0)
            assert ("D/sign_again" in stats) == (not isinstance(term, GradientPenalty))
            if isinstance(term, R1):  # before the step, so the same logits as the loss's
                assert_close(stats["D/sign_again"], stats["D/sign_real"])
            found = adapted(stats)
            assert (found is None) == isinstance(term, GradientPenalty)
            assert found is None or found.sign_again == stats["D/sign_again"]
    assert "D/sign_again" not in d_step(build(small(terms=(R1(every=1),), augment=ADA())), batch_of_8(), 0)
    assert Chain((FadingBlur(), ADA(all_passes=True))).all_passes
    assert not Chain((FadingBlur(), ADA())).all_passes


NUMBERS = st.floats(-1e6, 1e6, width=32) | st.sampled_from([float("nan"), float("inf"), -float("inf")])


@given(
    steps=st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, st.integers(1, 5000)), max_size=40),
    kimg=st.floats(0.001, 20),
    initial=st.floats(0, 1),
    target=st.floats(-0.9, 0.9),
    heuristic=st.sampled_from(["rt", "rv"]),
)
def test_p_never_leaves_0_to_1(steps, kimg, initial, target, heuristic):
    held_out = 0.1 if heuristic == "rv" else 0.0
    module = ADA(target=target, kimg=kimg, initial=initial, heuristic=heuristic, held_out=held_out, every=1).build()
    before = module.p.item()
    for real, fake, unseen, num_images in steps:
        module.adapt(torch.tensor(real), num_images, means(real, fake, unseen))
        p = module.p.item()
        assert 0 <= p <= 1
        assert abs(p - before) <= (num_images + 1) / (kimg * 1000) + 1e-6
        before = p


@loop_over(
    ("real", "fake", "held_out", "r"),
    [
        (2.0, -2.0, 2.0, 0.0),
        (2.0, -2.0, -2.0, 1.0),
        (2.0, -2.0, 0.0, 0.5),
        (3.0, 1.0, 4.0, -0.5),
        (1.0, 1.0, 0.0, 0.0),  # D does not even tell its own images from G's
        (0.0, 1.0, -1.0, 0.0),
    ],
)
def test_rv(real, fake, held_out, r):
    module = ADA(heuristic="rv", held_out=0.1, target=0.4, initial=0.5, kimg=1, every=2).build()
    for shift in (0.5, -0.5):  # the quotient of the means, not the mean of the quotients
        found = module.adapt(torch.tensor(0.0), 10, means(real + shift, fake - shift, held_out))["augment/r"]
    assert_close(found.item(), r, rtol=0, atol=1e-6)
    assert_close(module.p.item(), 0.5 + (0.02 if r > 0.4 else -0.02), rtol=1e-6, atol=0)


def test_rv_needs_means():
    with pytest.raises(ValueError, match=r"needs D's mean logits: adapt\(sign_real, num_images, Means"):
        ADA(heuristic="rv", held_out=0.1).build().adapt(ABOVE, 64)


def test_rt_does_not_look_at_means():
    module = ADA(every=1, kimg=1).build()
    assert module.adapt(torch.tensor(0.9), 100, means(0.0, 1.0, 2.0))["augment/r"] == torch.tensor(0.9)
    assert_close(module.p.item(), 0.1, rtol=1e-6, atol=0)


def test_fixed_stays():
    module = ada(0.3)
    for _ in range(20):
        stats = module.adapt(ABOVE, 100000)
    assert module.p == torch.tensor(0.3)
    assert set(stats) == {"augment/p"}


def test_what_adapt_returns_is_for_the_log():
    """Scalars that later calls do not change."""
    module = ADA(kimg=1, every=1).build()
    first = module.adapt(ABOVE, 100)
    module.adapt(ABOVE, 100)
    assert_close(first["augment/p"].item(), 0.1, rtol=1e-6, atol=0)
    assert all(v.shape == () and not v.requires_grad for v in first.values())


@loop_over("cut", range(1, 9))
def test_a_resumed_controller_goes_on_bit_for_bit(cut):
    signs = torch.linspace(0.2, 1.0, 13)
    whole, first = ADA(kimg=1).build(), ADA(kimg=1).build()
    for i, sign in enumerate(signs):
        whole.adapt(sign, 37)
        if i < cut:
            first.adapt(sign, 37)
    resumed = ADA(kimg=1).build()
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    for sign in signs[cut:]:
        resumed.adapt(sign, 37)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
    assert whole.p > 0


# ---- settings ---------------------------------------------------------------------------------------------------


def test_is_a_component():
    assert isinstance(ADA(), Augment)
    assert isinstance(ADA().build(), Augmentation)
    assert ADA().build().p.shape == ()
    assert ADA().held_out == 0
    for text in ("ADA", "ADA(groups=[blit], kimg=20)", "ADA(heuristic=rv, held_out=0.2, every=8)"):
        value = parse(text, components())
        assert parse(repr(value), components()) == value
    assert value == ADA(heuristic="rv", held_out=0.2, every=8)


@loop_over(
    ("fields", "message"),
    [
        ({"groups": ("blit", "hue")}, "groups"),
        ({"groups": ()}, "groups"),
        ({"initial": 1.5}, "initial"),
        ({"kimg": 0.0}, "kimg"),
        ({"every": 0}, "every"),
        ({"target": 1.0}, "target"),
        ({"heuristic": "rv"}, r"heuristic=rv and held_out=0.0 do not go together.*held_out=0.1"),
        ({"initial": 0.8, "most": 0.3}, r"ADA\(initial=0.8, most=0.3\): p would start above its bound"),
        ({"held_out": 0.1}, r"heuristic=rt and held_out=0.1 do not go together"),
        ({"heuristic": "fixed", "held_out": 0.1}, r"heuristic=fixed and held_out=0.1 do not go together"),
    ],
)
def test_settings_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ADA(**fields)


def test_groups_may_be_any_set():
    for k in range(1, 6):
        for groups in itertools.combinations(GROUPS, k):
            assert ada(groups=groups)(torch.randn(2, 3, 6, 6)).shape == (2, 3, 6, 6)
