"""Measurements of a run's players at a snapshot, on the same images and latents each time."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from equipoise.compute.distributed import from_rank_0, rank, world_size
from equipoise.core.randomness import Purpose
from equipoise.core.types import Batch, Generated
from equipoise.data import Dataset, to_float
from equipoise.doctor import of_images
from equipoise.doctor.look import View, classes_of, look, steps_as_statistics
from equipoise.doctor.measures import steps_of, units
from equipoise.doctor.undisturbed import undisturbed
from equipoise.nn import detail
from equipoise.rules import Generation

from .drawing import latents
from .gan import GAN

__all__ = ["Looking"]

MOST = 64
"""Most images of a process that a measurement looks at."""
MOST_READ = {False: 1024, True: 128}
"""Most images whose content is looked at, by whether reading may wait."""


class Looking:
    """Measurements of both players, which train as they would without: see `undisturbed`.

    Every process calls it: networks may sum over processes.

    dataset: the images that D is trained on.
    """

    def __init__(self, gan: GAN, dataset: Dataset):
        self.gan, self.dataset = gan, dataset
        self.real: Batch | None = None
        self.facts: dict[str, Tensor] = {}

    def first(self) -> dict[str, Tensor]:
        """The sizes of the first steps."""
        return self._steps(first=True)

    def __call__(self, nimg: int) -> dict[str, Tensor]:
        """The measurements of both players at `nimg`, and of the data, () each."""
        if self.real is None:
            self._read()
        return self.of(nimg) | self.facts

    def _read(self) -> None:
        """Read the real images that every measurement looks at, and look at the content of the data."""
        device, size = self.gan.compute.device, len(self.dataset)
        cfg = self.gan.cfg
        source = np.random.default_rng((cfg.seed, Purpose.WATCH, rank()))
        chosen = source.choice(size, min(MOST, size), replace=False)
        x = to_float(torch.from_numpy(self.dataset.read(chosen))).to(device)
        y = None if self.dataset.labels is None else torch.from_numpy(self.dataset.labels[chosen]).to(device)
        self.real = Batch(x, y)
        found = from_rank_0(lambda: dict(of_images(self.dataset, MOST_READ[self.dataset.slow])))
        self.facts = {name: torch.tensor(value, device=device) for name, value in found.items()}

    def of(self, nimg: int) -> dict[str, Tensor]:
        """The measurements of both players at `nimg`, () each."""
        gan, cfg = self.gan, self.gan.cfg
        stats = self._steps()
        eager = torch.compiler.set_stance("force_eager") if cfg.compute.compile else nullcontext()
        with undisturbed(gan.G, gan.D, gan.augment), eager, gan.compute.loss():
            stats |= self._looked(nimg)
        stats["doctor/epochs"] = torch.tensor(nimg / len(self.dataset), device=gan.compute.device)
        return stats

    def _steps(self, *, first: bool = False) -> dict[str, Tensor]:
        """The size of each player's last step, over its weights."""
        of_d, of_g = (steps_of(optimizer) for optimizer in (self.gan.d_optim, self.gan.g_optim))
        return steps_as_statistics(of_d, "D", first=first) | steps_as_statistics(of_g, "G", first=first)

    def _looked(self, nimg: int) -> dict[str, Tensor]:
        gan, cfg = self.gan, self.gan.cfg
        real = self._batch(nimg)
        torch.manual_seed(cfg.seed + rank())  # for augmentation and noise inside the networks
        z = latents(cfg, len(real.x), Purpose.WATCH, 0, real.x.device)
        with torch.no_grad(), units(gan.G) as of_g:
            shown = cfg.game.show(gan.G, z, real)
        replaced = any(term.replaces_loss for term, _ in gan.added["G"])
        view = View(
            gan.D,
            gan.outputs,
            None if replaced else cfg.loss,
            shown.real.map(gan.compute.images),
            shown.fake.map(gan.compute.images),
            of_g,
        )
        found = {name: value for name, value in look(view).items() if name.startswith("doctor/")}
        classes = cfg.spec_of_g(gan.spec).num_classes
        if isinstance(cfg.game, Generation) and classes > 1 and real.label is not None and len(z) > 3:
            n = min(32, len(z))
            made = lambda z, y: Generated.by(gan.G, z, y).x  # noqa: E731
            found |= classes_of(made, z[:n], real.label[:n], classes)
        return found

    def _batch(self, nimg: int) -> Batch:
        """The real images, in the number of a piece of the batch, in the detail of this moment."""
        assert self.real is not None
        gan = self.gan
        share = gan.stages.batch_size(nimg) // world_size()
        count = min(share, gan.cfg.compute.micro_batch or share)
        if count > MOST:
            count = next((n for n in range(MOST, 7, -1) if count % n == 0), MOST)
        chosen = torch.arange(count, device=self.real.x.device) % len(self.real.x)  # again from the first, if few
        batch = self.real.map(lambda t: t[chosen])
        return Batch(detail(batch.x, gan.stages.lod(nimg)), batch.y)
