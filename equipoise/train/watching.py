"""The doctor as an event of the loop: cheap measurements at snapshots, warning lines, an early stop."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from equipoise.compute.distributed import from_rank_0, rank, world_size
from equipoise.core.randomness import Purpose
from equipoise.core.types import Batch, Generated, RunError
from equipoise.data import Dataset, to_float
from equipoise.doctor import PREFIX, Evidence, line, of_images, turns
from equipoise.doctor.look import View, classes_of, look, steps_as_statistics
from equipoise.doctor.measures import steps_of, units
from equipoise.doctor.undisturbed import undisturbed
from equipoise.nn import detail
from equipoise.rules import Generation
from equipoise.runs import statistics_of

from .drawing import latents
from .events import Moment
from .gan import GAN

__all__ = ["Watching"]

MOST = 64
"""Most images of a process that a measurement looks at."""
MOST_READ = {False: 1024, True: 128}
"""Most images whose content is looked at, by whether reading may wait."""
NONE_BEFORE = -1.0
"""A time before every examination."""


class Watching:
    """Measure both players at each snapshot, and tell which symptoms begin and end.

    It has random numbers of its own, and leaves buffers as they are: a run trains as it would without.

    dataset: the images that D is trained on.
    """

    def __init__(self, run_dir: Path, gan: GAN, dataset: Dataset):
        self.run_dir, self.gan, self.dataset = run_dir, gan, dataset
        self.report = gan.cfg.report
        self.real: Batch | None = None
        self.facts: dict[str, Tensor] = {}
        self.stopping: str | None = None

    # ---- measure -----------------------------------------------------------------------------------------

    def measure(self, now: Moment) -> None:
        """Add the measurements of a snapshot to the statistics. On every process: networks may sum over processes."""
        if not self.report.watch:
            return
        if now.nimg == now.increment:
            now.stats.add(self._steps(first=True), now.nimg)
        if not now.snapshot:
            return
        if self.real is None:
            self._read()
        now.stats.add(self.of(now.nimg) | self.facts, now.nimg)

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
        """The real images, as many as a piece of the batch has, in the detail of this moment."""
        assert self.real is not None
        gan = self.gan
        share = gan.stages.batch_size(nimg) // world_size()
        count = min(share, gan.cfg.compute.micro_batch or share)
        if count > MOST:
            count = next((n for n in range(MOST, 7, -1) if count % n == 0), MOST)
        chosen = torch.arange(count, device=self.real.x.device) % len(self.real.x)  # again from the first, if few
        batch = self.real.map(lambda t: t[chosen])
        return Batch(detail(batch.x, gan.stages.lod(nimg)), batch.y)

    # ---- judge -------------------------------------------------------------------------------------------

    def judge(self, now: Moment) -> None:
        """Tell which symptoms begin and end: a line each, on the terminal and in the statistics."""
        if not (self.report.watch and now.snapshot):
            return
        turned = from_rank_0(self._turned)
        for name, begins, text in turned:
            now.stats.say(text)
            now.stats.add({PREFIX + name: torch.tensor(float(begins), device=self.gan.compute.device)}, now.nimg)
            if begins and name in self.report.stop_on and self.stopping is None:
                self.stopping = text
        if turned:
            now.stats.write(now.nimg, now.checkpoints.last)

    def _turned(self) -> list[tuple[str, bool, str]]:
        """Symptoms that begin or end: name, whether it begins, and the line."""
        evidence = Evidence.of(statistics_of(self.run_dir), self.gan.cfg)
        measured = [kimg for kimg, _ in evidence.curve("doctor/epochs")]
        before = measured[-2] if len(measured) > 1 else NONE_BEFORE
        return [
            (turn.symptom.name, turn.finding is not None, line(turn, evidence.kimg)) for turn in turns(evidence, before)
        ]

    def stop(self, now: Moment) -> None:
        """End the run if a symptom of `report.stop_on` has begun. Checkpoint and grid are written by then.

        Raises:
            RunError: with the symptom, and where the best generator is.
        """
        if self.stopping is None:
            return
        best = self.run_dir / "best"
        kept = f"{best} holds the best generator" if best.exists() else "no evaluation has chosen a best generator"
        raise RunError(
            f"stopped by report.stop_on after {now.nimg / 1000:g} kimg: {self.stopping}. {kept}; the last checkpoint "
            f"is {now.checkpoints.last}. The same command resumes from there."
        )
