"""A look at two networks during training: all cheap measurements, as statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equipoise.core.types import Batch, Told
from equipoise.losses import GANLoss, Output, logits

from .measures import Units, slopes, units, update_ratio, verdicts
from .nearness import class_effect, spread

__all__ = ["View", "classes_of", "look", "steps_as_statistics"]


@dataclass(frozen=True)
class View:
    """Two networks and the images on which to look at them.

    D: the discriminator's module.
    outputs: D's output for images and what it is told, with augmentation.
    loss: the adversarial loss; None leaves out G's gradient.
    real, fake: as D sees them, without a graph.
    units_of_g: activations of G while it made `fake`, or None.
    """

    D: nn.Module
    outputs: Callable[[Tensor, Told], Output]
    loss: GANLoss | None
    real: Batch
    fake: Batch
    units_of_g: Units | None = None


def look(view: View) -> dict[str, Tensor]:
    """Statistics, () each: "doctor/diversity" and so on, and D's mean logits "D/real", "D/fake" as "real", "fake".

    Nothing is put back here: call it in `undisturbed`.
    """
    x = view.fake.x.detach().requires_grad_()
    with units(view.D) as of_d, torch.enable_grad():
        with torch.no_grad():
            on_real = logits(view.outputs(view.real.x, view.real.y))
        on_fake = logits(view.outputs(x, view.fake.y))
        stats = verdicts(on_real, on_fake)
        if view.loss is not None:
            mean = view.loss.g(on_fake, on_real if view.loss.paired else None).float().mean()
            size, flat = slopes(mean, on_fake, x)
            stats |= {"grad_G": size, "flat": flat}
    if min(len(view.real.x), len(view.fake.x)) > 2:
        stats |= spread(view.fake.x, view.real.x)
    for name, seen in (("dead_D", of_d), ("dead_G", view.units_of_g)):
        dead = None if seen is None else seen.dead()
        if dead is not None:
            stats[name] = dead
    return {f"doctor/{name}": value.detach() for name, value in stats.items()} | {
        "real": on_real.detach().float().mean(),
        "fake": on_fake.detach().float().mean(),
        "sign_real": on_real.detach().sign().float().mean(),
    }


@torch.no_grad()
def classes_of(G: Callable[[Tensor, Tensor], Tensor], z: Tensor, y: Tensor, num_classes: int) -> dict[str, Tensor]:
    """The effect of the class on images: z (N, z_dim), y (N,), N >= 2."""
    here, other, changed = G(z, y), G(z, (y + 1) % num_classes), G(z.roll(1, 0), y)
    return {"doctor/class_effect": class_effect(here, other, changed)}


def steps_as_statistics(
    steps: Iterable[tuple[Tensor, Tensor]], player: str, *, first: bool = False
) -> dict[str, Tensor]:
    """`update_ratio` as a statistic; empty without steps. first: the step is the first of the run."""
    ratio = update_ratio(steps)
    return {} if ratio is None else {f"doctor/{'first_' if first else ''}step_{player}": ratio.detach()}
