"""Losses applied to a discriminator's output. Only this file knows both losses and SAN.

The losses of the two players take a discriminator's output: `Logits`, a plain tensor (N,), (N, K) or (N, K, H, W) from
your own network, or a list of these from a network with several outputs. The losses of several outputs add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from equipoise.core.types import Logits

from .adversarial import GANLoss
from .base import Output

__all__ = [
    "accuracy",
    "class_loss",
    "direction_loss",
    "discriminator_loss",
    "flat",
    "generator_loss",
    "logits",
    "monotone",
    "pairs",
]


def discriminator_loss(loss: GANLoss, real: Output, fake: Output, *, normalize: bool = False) -> Tensor:
    """Scalar that D minimises: mean of loss.d(real, fake), plus SAN's direction term where `dir` is given.

    real, fake: may differ in the number of images, unless the loss is paired. Each is then averaged by itself.
    normalize: normalise the direction term, see `direction_loss`. Each of several outputs is normalised by itself.

    Raises:
        ValueError: if real and fake differ in structure or shape, which would broadcast silently; if `normalize` is
            set and no output has `dir`; and as `direction_loss`.
    """
    total, is_san = [], False
    for r, f in pairs(real, fake, alike=loss.paired):
        value = mean_d(loss, r.fun, f.fun)
        if r.dir is not None and f.dir is not None:
            value = value + mean_direction(loss, r.dir, f.dir, normalize=normalize)
            is_san = True
        total.append(value)
    if normalize and not is_san:
        raise ValueError(
            "normalize=True is about SAN's direction loss, and this discriminator has none: it gave no `dir`. Make it "
            "a SAN (SANHead, sanify), or leave normalize=False"
        )
    return torch.stack(total).sum()


def mean_d(loss: GANLoss, real: Tensor, fake: Tensor) -> Tensor:
    """Mean of loss.d. An unpaired loss is d(r, f) = a(r) + b(f), so real and fake may differ in number."""
    if real.shape == fake.shape:
        return loss.d(real, fake).mean()
    zero = real.new_zeros(())
    return loss.d(real, zero).mean() + loss.d(zero, fake).mean() - loss.d(zero, zero)


def mean_direction(loss: GANLoss, real: Tensor, fake: Tensor, *, normalize: bool) -> Tensor:
    """Mean of `direction_loss`. For an unpaired loss, real and fake may differ in number."""
    if real.shape == fake.shape or loss.paired:
        return direction_loss(loss, real, fake, normalize=normalize).mean()
    if not normalize:
        return loss.g(real).mean() - loss.g(fake).mean()
    return loss.g(real).mean() / mean_weight(loss, real) - loss.g(fake).mean() / mean_weight(loss, fake)


def direction_loss(loss: GANLoss, real: Tensor, fake: Tensor, *, normalize: bool = False) -> Tensor:
    """SAN's loss for the direction ω, G's loss on real minus on fake: loss.g(real) - loss.g(fake), elementwise.

    For hinge and Wasserstein it is fake - real (Takida et al. 2024); for g = softplus(1 - t)² it is BigVSAN's.
    real, fake: `dir` for real and for generated images, of the same shape.
    normalize: divide each term's weight r = -g'(t) by its batch mean, as the paper does for losses whose g is not
        linear (eq. 12). Changes nothing for hinge and Wasserstein, where r = 1. The mean is one number for real and
        one for generated images: over all given logits, of all classes, patches and scales, in this process.

    Raises:
        ValueError: for a paired loss, whose g needs both logits and gives no such term; for different shapes, which
            would broadcast; and with `normalize` and a loss that is not `monotone`, if a mean weight is not positive.
    """
    if loss.paired:
        raise ValueError(
            f"{loss!r} compares pairs of logits and has no direction loss, so it does not train a SAN. "
            "Use an unpaired loss, such as Hinge() or NonSaturating(), or a plain last layer."
        )
    require_same_shape(real, fake)
    if not normalize:
        return loss.g(real) - loss.g(fake)
    return loss.g(real) / mean_weight(loss, real) - loss.g(fake) / mean_weight(loss, fake)


def generator_loss(loss: GANLoss, fake: Output, real: Output | None = None) -> Tensor:
    """Scalar that G minimises: mean of loss.g(fake, real). `real` is read if, and only if, `loss.paired`.

    Raises:
        ValueError: for a paired loss without `real`, or if their shapes differ.
    """
    if loss.paired and real is not None:
        return torch.stack([loss.g(f.fun, r.fun).mean() for r, f in pairs(real, fake)]).sum()
    return torch.stack([loss.g(f.fun).mean() for f in flat(fake)]).sum()


def class_loss(output: Output, y: Tensor | None) -> Tensor:
    """Scalar: mean of -log p(y | x), p the softmax of D's `classes`, summed over the outputs that have them.

    y: (N,), the classes of the images; for generated images, the classes given to G. A network of your own passes its
        class scores (N, classes) as ``Logits(logits, classes=scores)``.

    AC-GAN adds it to D's loss on real and on generated images, and to G's loss on generated images (Odena et al. 2017,
    sec. 3). K + 1 classes add it to D's loss on the labelled real images (Salimans et al. 2016, sec. 5).

    Raises:
        ValueError: if no output has `classes`, y is None, or y does not hold one class per image.
    """
    scores = [logits.classes for logits in flat(output) if logits.classes is not None]
    if not scores:
        raise ValueError(
            "this discriminator does not classify: give it a head that does (head.conditioning=Auxiliary or "
            "SemiSupervised), or pass class scores of your own as Logits(logits, classes=scores)"
        )
    if y is None:
        raise ValueError("class_loss compares with the classes of the images: pass their labels, class_loss(D(x), y)")
    for classes in scores:
        if classes.shape[:1] != y.shape:
            raise ValueError(
                f"expected one label per image, (N,), got labels {tuple(y.shape)} for class scores "
                f"{tuple(classes.shape)} (N, classes)"
            )
    return torch.stack([F.cross_entropy(classes, y) for classes in scores]).sum()


@torch.no_grad()
def accuracy(output: Output, y: Tensor) -> Tensor:
    """Share of the images whose class y (N,) scores highest in `classes`, (): a mean over classifying outputs."""
    right = [part.classes.argmax(1).eq(y).float().mean() for part in flat(output) if part.classes is not None]
    return torch.stack(right).mean()


def logits(output: Output) -> Tensor:
    """All logits of one discriminator side by side, (N, K), as penalties and statistics read them."""
    return torch.cat([part.fun for part in flat(output)], dim=1)


def monotone(loss: GANLoss) -> bool:
    """Whether g of an unpaired loss falls everywhere, tested on logits from -50 to 50.

    Only then is r = -g' the weight of a distribution, and SAN's direction loss always pulls the same way.
    """
    values = loss.g(torch.linspace(-50, 50, 1001, dtype=torch.float64, device="cpu"))  # the host never waits for a CPU
    return bool((values.diff() <= 0).all())


def weight(loss: GANLoss, logits: Tensor) -> Tensor:
    """r(t) = -g'(t) of each logit t, without gradient."""
    with torch.enable_grad():
        t = logits.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(loss.g(t).sum(), t)
    return -slope


def mean_weight(loss: GANLoss, logits: Tensor) -> Tensor:
    """The mean of r, (), never 0. If D is so sure that r underflows everywhere, the loss divided by the mean is 0."""
    mean = weight(loss, logits).mean()
    if monotone(loss):
        return mean.clamp_min(torch.finfo(mean.dtype).tiny)
    if not mean > 0:  # here the host waits for the device, so the trainer takes monotone losses only
        raise ValueError(
            f"the mean of -g' of {loss!r} is {mean.item():g}: its direction loss pulls the wrong way and cannot be "
            "normalised. Use a loss whose g falls everywhere, such as SoftLeastSquares()"
        )
    return mean


def flat(output: object) -> Iterator[Logits]:
    """The outputs of one discriminator, each as Logits with `fun` and `dir` of shape (N, K), in float32 or wider."""
    if isinstance(output, Logits):
        direction = None if output.dir is None else two_dimensional(output.dir)
        classes = None if output.classes is None else wide(output.classes)
        yield output._replace(fun=two_dimensional(output.fun), dir=direction, classes=classes)
    elif isinstance(output, Tensor):
        yield Logits(two_dimensional(output))
    elif isinstance(output, Sequence) and not isinstance(output, str) and output:
        for part in output:
            yield from flat(part)
    else:
        raise ValueError(f"expected logits as Logits, a tensor or a list of these, got {output!r}")


def pairs(real: Output, fake: Output, *, alike: bool = True) -> Iterator[tuple[Logits, Logits]]:
    """The outputs for real and for generated images, each with its counterpart, as `flat` gives them.

    alike: whether the numbers of real and of generated images must be equal.

    Raises:
        ValueError: if they differ in number, shape or kind, which would broadcast silently.
    """
    reals, fakes = list(flat(real)), list(flat(fake))
    if len(reals) != len(fakes):
        raise ValueError(f"D gave {len(reals)} outputs for real and {len(fakes)} for generated images")
    for r, f in zip(reals, fakes, strict=True):
        require_same_shape(r.fun if alike else r.fun[:1], f.fun if alike else f.fun[:1])
        if (r.dir is None) != (f.dir is None):
            raise ValueError(
                "one of real and fake has SAN's `dir` and the other has not: use one discriminator for both"
            )
        yield r, f


def require_same_shape(real: Tensor, fake: Tensor) -> None:
    if real.shape != fake.shape:
        raise ValueError(
            f"real and fake logits must have the same shape, got {tuple(real.shape)} and {tuple(fake.shape)}; "
            "give D equal numbers of real and generated images"
        )


def two_dimensional(logits: Tensor) -> Tensor:
    if logits.ndim == 0:
        raise ValueError("logits are a scalar: pass D's output for each image, not its mean")
    return wide(logits.unsqueeze(1) if logits.ndim == 1 else logits.flatten(1))


def wide(scores: Tensor) -> Tensor:
    """Scores in float32 at least: your own network returns bfloat16 under autocast, which has 8 bits."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
