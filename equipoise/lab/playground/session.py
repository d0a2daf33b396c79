"""One tab of the playground: a GAN, the page's requests, and its frames. Sockets and processes live elsewhere."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from textwrap import shorten
from typing import Any, TypeGuard

from torch import Tensor

from equipoise.config import TrainConfig
from equipoise.core.randomness import Purpose, stream
from equipoise.data import Distribution
from equipoise.doctor import voided
from equipoise.metrics import wasserstein

from ..points.gan import PointGAN, plain_gan, points_of
from .choices import goes_on
from .picture import SHOWN, View, encoded, measured, picture, view_of
from .setting import changed, differing, read, setting_of, shown, text, written

__all__ = ["Session"]

FRAMES_PER_S = 20
DISTANCE_S = 1.0
"""Seconds between Wasserstein distances; more where they would take more than a twentieth of the time."""
PAIRED = 300
"""Points in a Wasserstein distance: its time grows as their cube."""
MOST_STEPS = 1000
SLOWEST = 0.1
"""Least pace, in iterations a second."""
KEPT = ("data", "generator", "discriminator", "g_optim", "d_optim", "ema", "batch_size", "seed")
"""Fields of the config that another setting leaves as they are."""


class Session:
    """A session with one GAN, paused at its start. Its owner calls `hear` for each message, then `train` and `frame`.

    A message is a JSON object, ``{"id": 3, "do": "step", "iterations": 1}``. The reply repeats its id, an
    integer or text. The messages:

        start   setting: str            build a new GAN from the setting in the page's address
        choose  setting: str            continue under one of `SETTINGS`
        set     changes: {path: text}   continue under other fields of the config, or start anew where it must
        reset                           restart the same GAN, paused
        play, pause
        step    iterations: int
        pace    per_second: float       most iterations a second; null for no limit
        drawn                           the last frame is on the screen, so the next may come; not replied to

    clock: gives the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.clock = clock
        self.todo = 0.0
        """Iterations still to be made; infinite while playing."""
        self.pace = math.inf
        self.run = 0
        """Number of GANs so far. The page begins new curves for each."""
        self.due = self.frame_due = 0.0
        self.awaited = True
        """Whether the page is ready for a frame. At most one frame is on its way."""
        self.start(*read(""))

    # ---- the GAN -----------------------------------------------------------------------------------------

    def start(self, name: str, cfg: TrainConfig) -> None:
        """Start a new GAN. For an invalid config, raises ValueError and keeps the old GAN."""
        view = view_of(points_of(cfg))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `setting` reports the same
            self.gan = PointGAN(cfg)
        self.name, self.iteration = name, 0
        self.run += 1
        self.look(view)

    def change(self, name: str, cfg: TrainConfig) -> dict[str, list[str]]:
        """Continue under `cfg`. Returns the changes, and the fields that required a new GAN, if any.

        Raises:
            ValueError: if `cfg` is not a GAN of points. The session stays as before.
        """
        changes = list(differing(self.gan.cfg, cfg))
        anew = [path for path, _ in changes if not goes_on(path)]
        if anew:
            self.start(name, cfg)
        else:
            view = view_of(points_of(cfg))
            self.gan.change(cfg)
            self.name = name
            self.look(view)
        return {"changed": [f"{path}={text(value)}" for path, value in changes], "anew": anew}

    def look(self, view: View) -> None:
        """Reset the picture: another view, fresh statistics, real points shown again."""
        self.view, self.notice = view, ""
        self.sums = dict[str, tuple[float, int]]()
        self.fresh, self.show_real, self.distance_due = True, True, 0.0

    def train(self) -> None:
        """Run one iteration, if one is due."""
        now = self.clock()
        if self.todo < 1 or now < self.due:
            return
        self.due = now + 1 / self.pace
        try:
            stats = self.gan.iterate()
        except (ValueError, RuntimeError, ArithmeticError) as error:  # such as a decomposition that did not converge
            self.stop(f"Training stopped: {error}")
            return
        self.todo -= 1
        self.iteration += 1
        self.fresh = True
        for name, value in stats.items():  # a lazy penalty is absent from some iterations
            total, number = self.sums.get(name, (0.0, 0))
            self.sums[name] = total + value, number + 1
        bad = next((name for name, value in stats.items() if not math.isfinite(value)), None)
        if bad is not None:
            where = f"{bad} is {stats[bad]} in iteration {self.iteration}"
            self.stop(f"Training diverged: {where}. Change the setting, then reset.")

    def stop(self, notice: str) -> None:
        self.todo, self.notice, self.fresh = 0, notice, True

    # ---- what the page asks ------------------------------------------------------------------------------

    def hear(self, message: str) -> str | None:
        """Obey a message. Returns the reply, its result or an error, as JSON; None if no reply is due."""
        try:
            request = json.loads(message)
        except (ValueError, RecursionError):
            request = None
        if request == {"do": "drawn"}:
            self.awaited = True
            return None
        given = request.get("id") if isinstance(request, dict) else None
        reply: dict[str, Any] = {"id": given if is_integer(given) or isinstance(given, str) else None}
        try:
            reply |= self.obey(request)
        except ValueError as error:
            reply["error"] = str(error)
        except (RecursionError, MemoryError):
            reply["error"] = "this is nested too deeply to be read"
        self.fresh = True  # an earlier frame may contradict the new state
        state = {"run": self.run, "iteration": self.iteration, "playing": self.todo >= 1, "setting": self.setting()}
        return json.dumps(reply | state)

    def obey(self, request: object) -> Mapping[str, Any]:
        match request:
            case {"do": "start", "setting": str(query)}:
                self.start(*read(query))
                self.todo = 0
            case {"do": "choose", "setting": str(name)}:
                kept = {field: getattr(self.gan.cfg, field) for field in KEPT}
                return self.change(name, setting_of(name)(replace(plain_gan(), **kept)))
            case {"do": "set", "changes": dict(changes)} if all(isinstance(value, str) for value in changes.values()):
                return self.change(self.name, changed(self.gan.cfg, changes))
            case {"do": "reset"}:
                self.start(self.name, self.gan.cfg)
                self.todo = 0
            case {"do": "play"}:
                self.todo, self.notice = math.inf, ""
            case {"do": "pause"}:
                self.todo = 0
            case {"do": "step", "iterations": number} if is_integer(number) and 1 <= number <= MOST_STEPS:
                self.todo, self.notice = number, ""
            case {"do": "pace", "per_second": None}:
                self.pace, self.due = math.inf, 0.0
            case {"do": "pace", "per_second": rate} if is_number(rate) and SLOWEST <= rate < math.inf:
                self.pace, self.due = rate, 0.0
            case _:
                raise ValueError(f"the playground does not understand {shorten(str(request), 200)}")
        return {}

    def setting(self) -> dict[str, Any]:
        """The setting as the page shows it, and notes on guarantees that its parts void in one another."""
        cfg = self.gan.cfg
        notes = voided(
            self.gan.gan.D,
            loss=cfg.loss,
            terms=cfg.terms,
            normalizer=cfg.d_normalizer,
            constraints=cfg.constraints,
        )
        return {"name": self.name, "query": written(self.name, cfg), "values": shown(cfg), "notes": notes}

    # ---- what the page shows -----------------------------------------------------------------------------

    def patience(self) -> float | None:
        """Seconds until an iteration or a frame is due; None if nothing is due before the page's next message."""
        dues = [self.due] if self.todo >= 1 else []
        if self.awaited and self.fresh:
            dues.append(self.frame_due)
        return max(min(dues) - self.clock(), 0.0) if dues else None

    def frame(self) -> bytes | None:
        """The current picture, if one is due."""
        now = self.clock()
        if not (self.awaited and self.fresh) or now < self.frame_due:
            return None
        arrays = picture(self.gan, self.view)
        if self.show_real:
            arrays["real"] = real_points(self.gan.distribution)
        measures = measured(self.gan) | self.distance(arrays["points"], now)
        header = {
            "run": self.run,
            "iteration": self.iteration,
            "nimg": self.gan.nimg,
            "playing": self.todo >= 1,
            "notice": self.notice,
            "view": list(self.view),
            "signed": self.gan.cfg.loss.signed,
            "stats": {name: total / number for name, (total, number) in self.sums.items()},
            "measures": measures,
        }
        self.awaited, self.fresh, self.show_real = False, False, False
        self.sums = {}
        self.frame_due = now + max(1 / FRAMES_PER_S, 2 * (self.clock() - now))
        return encoded(header, arrays)

    def distance(self, points: Tensor, now: float) -> dict[str, float]:
        """The Wasserstein distance to the real points, now and then. `floor`: between two samples of real points."""
        if now < self.distance_due or not points.isfinite().all():
            return {}
        distribution = self.gan.distribution
        value = wasserstein(points[:PAIRED], real_points(distribution)[:PAIRED])
        floor = distance_of_samples(distribution, PAIRED)
        self.distance_due = now + max(DISTANCE_S, 20 * (self.clock() - now))
        return {"wasserstein": value, "floor": floor}


def real_points(distribution: Distribution, seed: int = 0) -> Tensor:
    """Real points (SHOWN, 2), the same at every call."""
    return distribution.sample(SHOWN, stream(seed, Purpose.POINTS))


@lru_cache(maxsize=16)
def distance_of_samples(distribution: Distribution, num: int) -> float:
    return wasserstein(real_points(distribution, 0)[:num], real_points(distribution, 1)[:num])


def is_integer(value: object) -> TypeGuard[int]:
    """Whether JSON held an integer. In Python True is an int too."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    return is_integer(value) or isinstance(value, float)
