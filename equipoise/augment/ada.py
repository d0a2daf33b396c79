"""Adaptive discriminator augmentation: images are augmented with a probability p that follows D's overfitting.

Karras et al. 2020, "Training generative adversarial networks with limited data".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from equipoise.compute.precision import without_autocast
from equipoise.core.types import component

from .affine import warp
from .base import Augment, Augmentation, Means
from .color import recolor
from .corruption import corrupt
from .draws import Draws
from .filters import band_filter

__all__ = ["ADA", "AdaptiveAugmentation"]

Group = Literal["blit", "geometric", "color", "filter", "corruption"]
Step = Callable[[Tensor, Draws], Tensor]


@component
class ADA(Augment):
    """Augment all images that D sees, each transform with probability p; p follows r, a measure of D's overfitting.

    Every `every` iterations p rises if r > target and falls if r < target, and stays in [0, most]. At its pace p moves
    from 0 to 1 in `kimg` thousand images (Karras et al. 2020, sec. 3). The authors' code is
    ``ADA(most=None, all_passes=True)``.

    target: target of r.
    kimg: thousands of real images in which p moves from 0 to 1, or back.
    groups: kinds of transforms, from "blit", "geometric", "color", "filter" and "corruption". The paper uses the first
        three.
    heuristic: definition of r. "rt" is E sign D(real), for losses where a logit of 0 means undecided. "rv" is
        (E D(real) - E D(held out)) / (E D(real) - E D(fake)), for any loss. "fixed" keeps p at `initial`.
    initial: p at the start.
    every: iterations over which r is averaged.
    held_out: for "rv", share of the data that D is never trained on.
    most: largest p; None: no bound. Above 1 every transform fires, and p takes the longer to fall again.
    all_passes: r counts D's logits in penalties on the real images (`R1`) too.

    Raises:
        ValueError: if "rv" comes without `held_out`, or `held_out` without "rv".
    """

    target: float = Field(default=0.6, gt=-1, lt=1)
    kimg: float = Field(default=500.0, gt=0)
    groups: tuple[Group, ...] = Field(default=("blit", "geometric", "color"), min_length=1)
    heuristic: Literal["rt", "rv", "fixed"] = "rt"
    initial: float = Field(default=0.0, ge=0, le=1)
    every: int = Field(default=4, ge=1)
    held_out: float = Field(default=0.0, ge=0, lt=1)
    most: Annotated[float, Field(gt=0)] | None = 1.0
    all_passes: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for `heuristic=rv` without `held_out`, and the reverse: `rv` alone compares D with images
        held out. Set both or neither.

        Raises ValueError for `initial` above `most`: p would start above its bound. Set `initial` to `most` or less.
        """
        if (self.heuristic == "rv") != (self.held_out > 0):
            raise ValueError(
                f"heuristic={self.heuristic} and held_out={self.held_out} do not go together: only rv compares D on "
                "its own images with D on held-out ones. Set both (heuristic=rv held_out=0.1) or neither."
            )
        if self.most is not None and self.initial > self.most:
            raise ValueError(
                f"ADA(initial={self.initial}, most={self.most}): p would start above its bound. Set initial to "
                f"{self.most} or less, or most=None for no bound."
            )

    @property
    def reads_sign(self) -> bool:
        return self.heuristic == "rt"

    def build(self) -> AdaptiveAugmentation:
        return AdaptiveAugmentation(self)


class AdaptiveAugmentation(Augmentation):
    """x (N, C, H, W) in [-1, 1], of at least 2 x 2 pixels -> same shape, in float32 or more, not clamped.

    All state lies in buffers: `p` (), and the sums since p last moved.
    """

    p: Tensor
    iterations: Tensor
    images: Tensor
    sums: Tensor
    verdicts: Tensor

    def __init__(self, settings: ADA):
        super().__init__()
        self.settings, self.steps = settings, pipeline(settings.groups)
        self.register_buffer("p", torch.tensor(settings.initial))
        self.register_buffer("iterations", torch.tensor(0))
        self.register_buffer("images", torch.tensor(0))
        self.register_buffer("sums", torch.zeros(4))  # over images: sign D(real), D(real), D(fake), D(held out)
        if settings.all_passes:
            self.register_buffer("verdicts", torch.tensor(0))  # logits whose signs the first sum holds

    def forward(self, x: Tensor) -> Tensor:
        """Augment x. Raises ValueError if the groups cannot work on it."""
        check(x, self.settings.groups)
        with without_autocast(x):  # positions and colours need more digits than bfloat16's
            x = x.to(torch.promote_types(x.dtype, torch.float32))
            draws = Draws(self.p, x)
            for step in self.steps:
                x = step(x, draws)
        return x

    def at(self, nimg: int) -> None:
        pass

    @torch.no_grad()
    def adapt(self, sign_real: Tensor, num_images: int, means: Means | None = None) -> dict[str, Tensor]:
        """Update p, as in `Augmentation.adapt`. Returns p, and r since p last moved; the host does not wait for them.

        Raises:
            ValueError: if "rv" gets no `means`.
        """
        settings = self.settings
        if settings.heuristic == "fixed":
            return {"augment/p": self.p.clone()}
        zero = torch.zeros_like(sign_real)
        real, fake, held_out, sign_again = means or (zero, zero, zero, None)
        if settings.heuristic == "rv" and (means is None or held_out is None):
            raise ValueError("ADA(heuristic='rv') needs D's mean logits: adapt(sign_real, num_images, Means(...))")
        self.sums += num_images * torch.stack([sign_real, real, fake, zero if held_out is None else held_out])
        self.images += num_images
        self.iterations += 1
        averages = self.sums / self.images
        if settings.all_passes:
            averages[0] = self.mean_sign(num_images, sign_again)
        r = overfitting(settings.heuristic, *averages)
        direction = (r - settings.target).sign()
        total = settings.kimg * 1000
        level = (self.p * total).round() + direction * self.images  # p in images: rounding does not add up
        due = self.iterations == settings.every
        self.p.copy_(torch.where(due, (level / total).clamp(0, settings.most), self.p))
        for name, buffer in self.named_buffers():
            if name != "p":
                buffer.masked_fill_(due, 0)
        return {"augment/p": self.p.clone(), "augment/r": r}

    def mean_sign(self, num_images: int, sign_again: Tensor | None) -> Tensor:
        """Mean sign over all logits of real images since p last moved, an image twice where a penalty saw it again."""
        self.verdicts += num_images
        if sign_again is not None:
            self.sums[0] += num_images * sign_again
            self.verdicts += num_images
        return self.sums[0] / self.verdicts


def overfitting(heuristic: str, sign_real: Tensor, real: Tensor, fake: Tensor, held_out: Tensor) -> Tensor:
    """r_t or r_v: 0 for no overfitting, 1 for a D that has memorised its images (Karras et al. 2020, eq. 1)."""
    if heuristic == "rt":
        return sign_real
    gap = real - fake  # not positive: D cannot even tell its training images from fakes
    return torch.where(gap > 0, (real - held_out) / gap, 0)


def pipeline(groups: Sequence[Group]) -> list[Step]:
    """Transforms of `groups`, in the paper's order, whatever the order of `groups`."""
    steps: list[Step] = []
    if "blit" in groups or "geometric" in groups:
        steps.append(partial(warp, blit="blit" in groups, geometric="geometric" in groups))
    others: dict[Group, Step] = {"color": recolor, "filter": band_filter, "corruption": corrupt}
    return steps + [step for group, step in others.items() if group in groups]


def check(x: Tensor, groups: Sequence[Group]) -> None:
    if x.ndim != 4 or not x.is_floating_point() or min(x.shape[2:]) < 2:
        raise ValueError(
            "ADA augments images (N, C, H, W) of floats in [-1, 1] and at least 2 x 2 pixels, "
            f"got {tuple(x.shape)} of {x.dtype}"
        )
    if "color" in groups and x.shape[1] not in (1, 3):
        raise ValueError(
            f"ADA's group 'color' is for images of 1 or 3 channels, got {x.shape[1]}: "
            "leave it out (groups=[blit,geometric])"
        )
