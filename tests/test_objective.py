"""How a loss meets a discriminator's output: shapes, several outputs, and SAN's direction term."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from loops import loop_over
from torch.testing import assert_close

from equipoise.core.types import Logits
from equipoise.losses import (
    Hinge,
    LeastSquares,
    NonSaturating,
    RelativisticPairing,
    Saturating,
    Wasserstein,
    accuracy,
    class_loss,
    direction_loss,
    discriminator_loss,
    flat,
    generator_loss,
    logits,
    monotone,
)
from equipoise.losses import adversarial as losses

ALL = [c() for name in losses.__all__ if dataclasses.is_dataclass(c := getattr(losses, name))]
UNPAIRED = [loss for loss in ALL if not loss.paired]
SHAPES = [(8,), (8, 1), (8, 3), (8, 1, 4, 5), (8, 2, 3)]

losses_ = loop_over("loss", ALL, ids=lambda loss: type(loss).__name__)
unpaired = loop_over("loss", UNPAIRED, ids=lambda loss: type(loss).__name__)
paired = loop_over("loss", [loss for loss in ALL if loss.paired], ids=lambda loss: type(loss).__name__)


def draw(shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


# ---- what a discriminator may return -----------------------------------------------------------------------


@losses_
@loop_over("shape", SHAPES, ids=str)
def test_a_plain_tensor_of_any_shape_is_averaged(loss, shape):
    real, fake = draw(shape), draw(shape)
    assert_close(discriminator_loss(loss, real, fake), loss.d(real, fake).mean())
    assert_close(generator_loss(loss, fake, real), loss.g(fake, real).mean())


@losses_
@loop_over("shape", SHAPES, ids=str)
def test_logits_are_read_like_the_tensor_they_hold(loss, shape):
    real, fake = draw(shape), draw(shape)
    assert_close(discriminator_loss(loss, Logits(real), Logits(fake)), discriminator_loss(loss, real, fake))
    assert_close(generator_loss(loss, Logits(fake), Logits(real)), generator_loss(loss, fake, real))


@losses_
def test_the_losses_of_several_outputs_add_up(loss):
    """A list is a sum over discriminators, nested as it may be, each with its own number of logits."""
    shapes = [(8,), (8, 5), (8, 1, 2, 2)]
    real, fake = [draw(s) for s in shapes], [draw(s) for s in shapes]
    d = sum(discriminator_loss(loss, r, f) for r, f in zip(real, fake, strict=True))
    g = sum(generator_loss(loss, f, r) for r, f in zip(real, fake, strict=True))
    nested_real, nested_fake = [real[0], (real[1], [Logits(real[2])])], [fake[0], (fake[1], [Logits(fake[2])])]
    for r, f in ((real, fake), (tuple(real), tuple(fake)), (nested_real, nested_fake)):
        assert_close(discriminator_loss(loss, r, f), d)
        assert_close(generator_loss(loss, f, r), g)


@losses_
def test_a_vector_against_a_column_does_not_broadcast(loss):
    """(N,) - (N, 1) is (N, N): every real with every fake, which the mean hides."""
    real, fake = draw((8,)), draw((8,))
    wanted = discriminator_loss(loss, real, fake)
    assert_close(discriminator_loss(loss, real, fake.unsqueeze(1)), wanted)
    assert_close(discriminator_loss(loss, real.unsqueeze(1), fake), wanted)
    assert_close(generator_loss(loss, fake.unsqueeze(1), real), generator_loss(loss, fake, real))


@losses_
def test_results_are_scalars_with_gradients(loss):
    real, fake = draw((8, 2)), draw((8, 2))
    d, g = discriminator_loss(loss, real, fake), generator_loss(loss, fake, real)
    assert d.shape == g.shape == ()
    for gradient in torch.autograd.grad(d, (real, fake)) + torch.autograd.grad(g, fake):
        assert gradient.abs().sum() > 0


@unpaired
def test_a_loss_on_real_leaves_fake_alone_in_g(loss):
    """An unpaired G loss does not read `real`, whose shape may then be anything."""
    fake = draw((8, 2))
    assert torch.equal(generator_loss(loss, fake, draw((3,))), generator_loss(loss, fake))


# ---- what it may not return --------------------------------------------------------------------------------


def test_unequal_batches_are_refused():
    """Of a paired loss; an unpaired one only asks for as many logits of an image."""
    for real, fake in (((8, 1), (4, 1)), ((8,), (1,)), ((8, 2), (8, 1))):
        with pytest.raises(ValueError, match=r"same shape, got .* equal numbers of real and generated images"):
            discriminator_loss(RelativisticPairing(), draw(real), draw(fake))
        with pytest.raises(ValueError, match="same shape, got"):
            generator_loss(RelativisticPairing(), draw(fake), draw(real))
    with pytest.raises(ValueError, match="same shape, got"):
        discriminator_loss(NonSaturating(), draw((8, 2)), draw((8, 1)))


def test_as_many_logits_in_another_shape_are_refused():
    """(4, 1) against (2, 2) would broadcast to (4, 2)."""
    for compare in (
        lambda: discriminator_loss(RelativisticPairing(), draw((4, 1)), draw((2, 2))),
        lambda: generator_loss(RelativisticPairing(), draw((4, 1)), draw((2, 2))),
        lambda: direction_loss(Hinge(), draw((4, 1)), draw((2, 2))),
    ):
        with pytest.raises(ValueError, match="same shape, got"):
            compare()


@loop_over("loss", [Hinge(), NonSaturating(smoothing=0.1), LeastSquares(a=-1.0, b=0.7)], ids=repr)
def test_of_unequal_batches_each_side_has_its_own_mean(loss):
    """The mean over all pairs of a real and a generated image. Wrong: a constant that counts twice."""
    real, fake = draw((6, 2)), draw((3, 2))
    each = [loss.d(one, other).mean() for one in real.flatten() for other in fake.flatten()]
    assert_close(discriminator_loss(loss, real, fake), torch.stack(each).mean())


def test_unequal_numbers_of_outputs_are_refused():
    with pytest.raises(ValueError, match="D gave 2 outputs for real and 1 for generated images"):
        discriminator_loss(Hinge(), [draw((8,)), draw((8,))], [draw((8,))])


def test_a_scalar_is_refused():
    with pytest.raises(ValueError, match="logits are a scalar: pass D's output for each image"):
        discriminator_loss(Hinge(), draw((8,)).mean(), draw((8,)).mean())
    with pytest.raises(ValueError, match="logits are a scalar"):
        generator_loss(Hinge(), draw((8,)).mean())


@loop_over("output", [[], None, 1.0, "logits", {"fun": None}], ids=repr)
def test_what_are_no_logits_is_refused(output):
    with pytest.raises(ValueError, match="expected logits as Logits, a tensor or a list of these, got"):
        generator_loss(Hinge(), output)


def test_half_a_san_is_refused():
    t = draw((8, 1))
    for real, fake in ((Logits(t, t), Logits(t)), (t, Logits(t, t))):
        with pytest.raises(ValueError, match="one of real and fake has SAN's `dir` and the other has not"):
            discriminator_loss(Hinge(), real, fake)


@paired
def test_a_paired_loss_needs_real(loss):
    with pytest.raises(ValueError, match="compares with real images: pass their logits"):
        generator_loss(loss, draw((8, 1)))


# ---- SAN's direction term ----------------------------------------------------------------------------------


@unpaired
def test_the_direction_term_is_there_exactly_when_dir_is(loss):
    real, fake, real_dir, fake_dir = (draw((8, 2)) for _ in range(4))
    plain = discriminator_loss(loss, Logits(real), Logits(fake))
    san = discriminator_loss(loss, Logits(real, real_dir), Logits(fake, fake_dir))
    assert_close(plain, loss.d(real, fake).mean())
    assert_close(san, plain + loss.g(real_dir).mean() - loss.g(fake_dir).mean())
    assert torch.autograd.grad(plain, real_dir, allow_unused=True) == (None,)
    assert_close(generator_loss(loss, Logits(fake, fake_dir)), loss.g(fake).mean())


@unpaired
def test_each_output_has_its_own_direction_term(loss):
    """Only where `dir` is set: a SAN among plain discriminators."""
    a, b = [draw((8, 2)) for _ in range(4)], [draw((8,)) for _ in range(2)]
    found = discriminator_loss(loss, [Logits(a[0], a[1]), b[0]], [Logits(a[2], a[3]), b[1]])
    terms = loss.d(a[0], a[2]).mean() + direction_loss(loss, a[1], a[3]).mean() + loss.d(b[0], b[1]).mean()
    assert_close(found, terms)


@loop_over("normalize", [False, True])
@loop_over("loss", [Hinge(), Wasserstein()], ids=lambda loss: type(loss).__name__)
def test_direction_loss_of_linear_g_is_the_difference(loss, normalize):
    """fake - real, with weights r = 1 that normalisation cannot change (Takida et al. 2024)."""
    real, fake = draw((8, 2)), draw((8, 2))
    assert torch.equal(direction_loss(loss, real, fake, normalize=normalize), fake - real)


@unpaired
@loop_over("normalize", [False, True])
def test_direction_loss_weighs_each_distribution_by_r(loss, normalize):
    """Its gradient on a real logit is -r/N and on a fake one +r/N with r = -g', divided by the batch mean of r."""
    real = torch.randn(8, 1, dtype=torch.float64).sub(1).requires_grad_(True)
    fake = torch.randn(8, 1, dtype=torch.float64).sub(2).requires_grad_(True)

    def r(t):
        slope = torch.func.vmap(torch.func.grad(lambda u: loss.g(u)))(t.detach().flatten())
        weights = -slope.unsqueeze(1)
        return weights / weights.mean() if normalize else weights

    value = direction_loss(loss, real, fake, normalize=normalize)
    assert value.shape == (8, 1)
    on_real, on_fake = torch.autograd.grad(value.mean(), (real, fake))
    assert_close(on_real, -r(real) / 8)
    assert_close(on_fake, r(fake) / 8)


def test_direction_loss_works_without_gradients_around_it():
    """Evaluating a SAN's loss under no_grad still finds the weights r."""
    real, fake = draw((8, 1)), draw((8, 1))
    wanted = direction_loss(LeastSquares(c=5.0), real, fake, normalize=True)
    with torch.no_grad():
        assert_close(direction_loss(LeastSquares(c=5.0), real, fake, normalize=True), wanted.detach())


@unpaired
def test_the_losses_of_d_normalise_the_direction_term_alone(loss):
    """The same to the last digit for hinge and Wasserstein, whose r is 1; another gradient for every other loss."""
    real, fake, real_dir, fake_dir = (draw((8, 2)) for _ in range(4))
    with torch.no_grad():
        real_dir.sub_(3)  # where LeastSquares pulls the right way
        fake_dir.sub_(5)
    found = {}
    for normalize in (False, True):
        value = discriminator_loss(loss, Logits(real, real_dir), Logits(fake, fake_dir), normalize=normalize)
        direction = direction_loss(loss, real_dir, fake_dir, normalize=normalize)
        assert_close(value, loss.d(real, fake).mean() + direction.mean())
        found[normalize] = [value, *torch.autograd.grad(value, (real, fake, real_dir, fake_dir))]
    same = [torch.equal(a, b) for a, b in zip(found[False], found[True], strict=True)]
    assert same == [True] * 5 if type(loss) in (Hinge, Wasserstein) else [False, True, True, False, False]


@unpaired
def test_the_mean_weight_is_over_a_batch_with_all_its_patches(loss):
    """One number for each of several outputs, real and generated: not one per image, nor per patch, nor for all."""
    shapes = [(8, 1, 2, 3), (8,), (8, 4)]
    real = [draw(shape) for shape in shapes]
    fake = [draw(shape) for shape in shapes]
    with torch.no_grad():
        for i, t in enumerate(real + fake):
            t.mul_(0.1 * (i + 1)).sub_(1 + 0.3 * i)

    def pull(t):
        """Minus the mean of t under the distribution that r makes of t's values."""
        r = torch.stack([-torch.func.grad(loss.g)(u) for u in t.detach().flatten()])
        return -(r / r.sum() * t.flatten()).sum()

    plain = discriminator_loss(loss, real, fake)
    san = discriminator_loss(
        loss,
        [Logits(t.detach(), t) for t in real],
        [Logits(t.detach(), t) for t in fake],
        normalize=True,
    )
    found = torch.autograd.grad(san, real + fake)
    wanted = torch.autograd.grad(sum(map(pull, real)) - sum(map(pull, fake)), real + fake)
    assert_close(found, wanted)
    terms = [direction_loss(loss, r, f, normalize=True).mean() for r, f in zip(real, fake, strict=True)]
    assert_close(san - plain, sum(terms))


def test_which_losses_fall_everywhere():
    assert {type(loss) for loss in UNPAIRED if not monotone(loss)} == {LeastSquares}
    assert not monotone(LeastSquares(c=10.0))
    assert not monotone(LeastSquares(c=-10.0))


def test_a_mean_weight_that_is_not_positive_is_refused():
    """Least squares, all logits beyond their target: r = c - t < 0. A loss that falls everywhere never gets there."""
    beyond, before = draw((8, 1)).exp() + 1, draw((8, 1)) - 9
    for real, fake in ((beyond, before), (before, beyond), (torch.ones(8, 1), before)):
        with pytest.raises(
            ValueError, match=r"mean of -g' of LeastSquares\(.*\) is -?[\d.e+]+: .* SoftLeastSquares\(\)"
        ):
            direction_loss(LeastSquares(), real, fake, normalize=True)
        direction_loss(LeastSquares(), real, fake)


@loop_over("loss", [NonSaturating(), Saturating()], ids=lambda loss: type(loss).__name__)
def test_a_sure_discriminator_has_a_finite_normalised_loss(loss):
    """Logits at which r underflows, for all images or for one: no pull, instead of 0/0."""
    for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        real, fake = (sign * torch.full((8, 1), 200.0).requires_grad_(True) for sign in signs)
        value = direction_loss(loss, real, fake, normalize=True).mean()
        assert value.isfinite()
        for t, gradient, pull in zip((real, fake), torch.autograd.grad(value, (real, fake)), (-1, 1), strict=True):
            underflows = (t > 0).all() if isinstance(loss, NonSaturating) else (t < 0).all()
            assert_close(gradient, torch.full((8, 1), 0.0 if underflows else pull / 8))
    real = torch.full((8, 1), float("nan"))
    assert direction_loss(loss, real, real, normalize=True).isnan().all()  # the trainer stops at NaN and says where


def test_normalising_what_is_no_san_is_refused():
    t = draw((8, 1))
    for output in (t, Logits(t), [t, [Logits(t)]]):
        with pytest.raises(ValueError, match=r"normalize=True is about SAN's direction loss, .* it gave no `dir`"):
            discriminator_loss(NonSaturating(), output, output, normalize=True)
    mixed = [t, Logits(t, t)]
    assert discriminator_loss(NonSaturating(), mixed, mixed, normalize=True).isfinite()


@paired
def test_a_paired_loss_has_no_direction_loss(loss):
    t = draw((8, 1))
    with pytest.raises(ValueError, match="compares pairs of logits and has no direction loss"):
        direction_loss(loss, t, t)
    with pytest.raises(ValueError, match=r"Use an unpaired loss, such as Hinge\(\)"):
        discriminator_loss(loss, Logits(t, t), Logits(t, t))


# ---- the class loss ----------------------------------------------------------------------------------------

y = torch.tensor([0, 2, 1, 1, 0, 2, 2, 0])


def cross_entropy(scores):
    """-log of the softmax's value at y, by a loop over images."""
    return torch.stack([-(row[k] - row.exp().sum().log()) for row, k in zip(scores, y, strict=True)]).mean()


def test_class_loss_is_the_mean_cross_entropy():
    fun, scores = draw((8, 1)), draw((8, 3))
    found = class_loss(Logits(fun, classes=scores), y)
    assert found.shape == ()
    assert_close(found, cross_entropy(scores))
    (gradient,) = torch.autograd.grad(found, scores, retain_graph=True)
    assert_close(gradient, (scores.softmax(1) - torch.eye(3, dtype=torch.float64)[y]) / 8)
    assert torch.autograd.grad(found, fun, allow_unused=True) == (None,)


def test_class_losses_of_several_outputs_add_up():
    """Those that classify, each with the same labels."""
    a, b = draw((8, 3)), draw((8, 5))
    several = [Logits(draw((8, 2)), classes=a), (draw((8,)), [Logits(draw((8, 1)), classes=b)])]
    assert_close(class_loss(several, y), cross_entropy(a) + cross_entropy(b))


@losses_
def test_classes_leave_the_adversarial_losses_alone(loss):
    real, fake, scores = draw((8, 2)), draw((8, 2)), draw((8, 3))
    with_classes = Logits(real, classes=scores), Logits(fake, classes=scores)
    assert torch.equal(discriminator_loss(loss, *with_classes), discriminator_loss(loss, real, fake))
    assert torch.equal(generator_loss(loss, *with_classes[::-1]), generator_loss(loss, fake, real))


def test_flat_keeps_what_is_no_logit():
    scores, features = draw((8, 3)), draw((8, 4, 2, 2))
    (kept,) = flat(Logits(draw((8,)), draw((8,)), scores, features))
    assert (kept.fun.shape, kept.dir.shape) == ((8, 1), (8, 1))
    assert kept.classes is scores
    assert kept.features is features


@loop_over("output", [draw((8, 1)), Logits(draw((8, 1))), [draw((8,)), Logits(draw((8, 1)))]])
def test_what_does_not_classify_has_no_class_loss(output):
    with pytest.raises(ValueError, match=r"does not classify: .*head\.conditioning=Auxiliary .*classes=scores\)"):
        class_loss(output, y)


def test_a_class_loss_needs_a_label_per_image():
    output = Logits(draw((8, 1)), classes=draw((8, 3)))
    with pytest.raises(ValueError, match=r"pass their labels, class_loss\(D\(x\), y\)"):
        class_loss(output, None)
    for labels in (y[:4], y[:1], y[:, None]):
        with pytest.raises(ValueError, match=r"one label per image, \(N,\), got labels .* class scores \(8, 3\)"):
            class_loss(output, labels)


def test_accuracy_is_the_share_of_images_with_the_right_class_on_top():
    """5 of 8 by counting; of several outputs the mean of those that classify."""
    scores = torch.zeros(8, 3, dtype=torch.float64, requires_grad=True)
    guesses = torch.tensor([0, 2, 1, 0, 0, 1, 2, 1])
    with torch.no_grad():
        scores[range(8), guesses] = 0.1
    found = accuracy(Logits(draw((8, 1)), classes=scores), y)
    assert found.shape == ()
    assert not found.requires_grad
    assert found.item() == 5 / 8
    perfect = torch.nn.functional.one_hot(y).double()
    several = [Logits(draw((8, 1)), classes=scores), draw((8,)), [Logits(draw((8, 2)), classes=perfect)]]
    assert accuracy(several, y).item() == pytest.approx((5 / 8 + 1) / 2)


# ---- one discriminator, several outputs ----------------------------------------------------------------------


def test_logits_are_those_of_all_outputs_side_by_side():
    """In their order, an image a row: what a penalty sums and an augmentation counts."""
    a, b, c = draw((8,)), draw((8, 2)), draw((8, 1, 2, 3))
    for output in ([a, b, c], (a, Logits(b, draw((8, 2)), draw((8, 3))), c), [a, [b, Logits(c)]]):
        found = logits(output)
        assert found.shape == (8, 1 + 2 + 6)
        for i in range(8):
            assert found[i].tolist() == [a[i].item(), *b[i].tolist(), *c[i].flatten().tolist()]
    assert torch.equal(logits(Logits(b)), b)
    for part, gradient in zip((a, b, c), torch.autograd.grad(logits([a, b, c]).sum(), (a, b, c)), strict=True):
        assert torch.equal(gradient, torch.ones_like(part))
