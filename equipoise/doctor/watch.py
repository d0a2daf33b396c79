"""The doctor in a training loop of one's own: three lines.

watch = doctor.Watch(G, D)
for x in batches:
    ...  # the updates
    watch(x, z)
print(watch)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from equipoise.core.types import Batch, Generated, Told, label_of
from equipoise.losses import GANLoss, NonSaturating

from .diagnosis import PREFIX, examine, turns
from .evidence import Evidence
from .look import View, classes_of, look, steps_as_statistics
from .measures import misfit_of_norms, units
from .symptoms import Finding
from .telling import line, table
from .undisturbed import undisturbed

__all__ = ["Watch"]

MOST = 64
"""Most images that a measurement looks at."""
LASTING = 4
"""Earlier measurements at which a symptom must be gone too, before it has ended."""


class Watch:
    """Watch G and D in a loop of one's own. A warning line says when a symptom begins, and when it ends.

    Call it once an iteration, after both updates. It draws no random numbers, and leaves buffers and modes as they are.

    G: called as G(z), or G(z, y) where y is given.
    D: called as D(x), or D(x, y). It returns logits, higher for more real.
    loss: the adversarial loss, whose gradient for G is measured.
    average: the averaged generator, whose norm statistics are checked; None: none.
    every: calls between two measurements.
    num_classes: classes of y; 0: none.
    say: told each warning line; default: prints it on stderr.
    """

    def __init__(
        self,
        G: nn.Module,
        D: nn.Module,
        *,
        loss: GANLoss = NonSaturating(),  # noqa: B008  (a frozen value)
        average: nn.Module | None = None,
        every: int = 100,
        num_classes: int = 0,
        say: Callable[[str], None] | None = None,
    ):
        if every < 1:
            raise ValueError(f"every={every}: expected a number of calls from 1 on")
        self.G, self.D, self.loss, self.average = G, D, loss, average
        self.every, self.num_classes = every, num_classes
        self.say = say or (lambda text: print(f"warning: {text}", file=sys.stderr))
        self.calls, self.nimg = 0, 0
        self.lines: list[dict[str, float]] = []
        self.before: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self.first: dict[str, Tensor] = {}

    def __call__(self, x: Tensor, z: Tensor, y: Told = None) -> None:
        """Note an iteration. x: real images (N, ...).  z: latents (N, z_dim).  y: what G and D are told, or None."""
        self.calls, self.nimg = self.calls + 1, self.nimg + len(x)
        if self.calls == 2:
            self.first = self._steps(first=True)
        elif self.before:
            self._examine(self._steps() | self.first | self._looked(x[:MOST], z[:MOST], _first(y, MOST)))
        if self.calls == 1 or self.calls % self.every == self.every - 1 or self.every == 1:
            self.before = {
                name: [(p, p.detach().clone()) for p in net.parameters() if p.requires_grad or p.ndim > 1]
                for name, net in (("G", self.G), ("D", self.D))
            }

    @property
    def evidence(self) -> Evidence:
        """Everything measured so far."""
        return replace(Evidence.of(self.lines), updates=self.calls)

    @property
    def findings(self) -> list[Finding]:
        """The symptoms that are there now."""
        return examine(self.evidence)

    def __str__(self) -> str:
        return table(self.findings) or f"no symptom after {self.nimg:,} images"

    def _steps(self, *, first: bool = False) -> dict[str, Tensor]:
        """Ratios of the updates since the weights were kept, an iteration ago."""
        kept, self.before = self.before, {}
        stats: dict[str, Tensor] = {}
        for player, pairs in kept.items():
            moved = ((old, (p.detach() - old).norm()) for p, old in pairs)
            stats |= steps_as_statistics(moved, player, first=first)
        return stats

    def _looked(self, x: Tensor, z: Tensor, y: Told) -> dict[str, Tensor]:
        told = () if y is None else (y,)
        nets = (self.G, self.D) if self.average is None else (self.G, self.D, self.average)
        with undisturbed(*nets):
            with units(self.G) as of_g, torch.no_grad():
                fake = Generated.by(self.G, z, *told).x
            outputs = lambda images, label: self.D(images, *(() if label is None else (label,)))  # noqa: E731
            stats = look(View(self.D, outputs, self.loss, Batch(x, y), Batch(fake, y), of_g))
            label = label_of(y)
            if self.num_classes > 1 and label is not None and len(z) > 1:
                stats |= classes_of(lambda z, y: Generated.by(self.G, z, y).x, z, label, self.num_classes)
            if self.average is not None:
                self.average.eval()
                with misfit_of_norms(self.average) as misfits, torch.no_grad():
                    self.average(z, *told)
                if misfits:
                    stats["doctor/norms"] = torch.stack(list(misfits.values())).amax()
        return {f"D/{name}" if "/" not in name else name: value for name, value in stats.items()}

    def _examine(self, stats: dict[str, Tensor]) -> None:
        """Add a line of statistics, and tell the symptoms that begin or end."""
        before = [earlier["kimg"] for earlier in self.lines[-LASTING:]]
        now: dict[str, float] = {"nimg": self.nimg, "kimg": self.nimg / 1000}
        self.lines.append(now | {name: float(value) for name, value in stats.items()})
        for turn in turns(self.evidence, before):
            self.lines[-1][PREFIX + turn.symptom.name] = float(turn.finding is not None)
            self.say(line(turn, now["kimg"]))


def _first(y: Told, count: int) -> Told:
    """The first `count` rows of a condition."""
    if y is None or isinstance(y, Tensor):
        return None if y is None else y[:count]
    return y.map(lambda t: t[:count])
