"""Changes of a config that a symptom calls for, as overrides that can be pasted."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import NamedTuple

from equipoise.config import SCHEDULE_ONLY, TrainConfig, known_to, override, parse
from equipoise.core.calls import short
from equipoise.core.schedules import at
from equipoise.losses import LazyStep

__all__ = ["Change", "Proposal", "allowed", "rate_at_start", "resumes", "scaled", "setting", "with_term"]


USUAL = 2e-4
"""Learning rate of DCGAN, where a rate is needed and the config gives none."""


class Change(NamedTuple):
    """A change to try. key, value: as in the override `key=value`.  why: its effect, in a few words."""

    key: str
    value: str
    why: str

    @property
    def override(self) -> str:
        return f"{self.key}={self.value}"

    @property
    def pasted(self) -> str:
        """The override, quoted for a shell where it must be."""
        return shlex.quote(self.override)


Proposal = Iterable[Change]
"""Changes in the order in which to try them."""


def setting(key: str, value: object, why: str) -> Change:
    """The change of a field to `value`, a number, a word or a component in text."""
    return Change(key, f"{float(f'{value:.3g}'):g}" if isinstance(value, float) else str(value), why)


def scaled(cfg: TrainConfig | None, key: str, factor: float, why: str) -> Change:
    """The change of a rate to `factor` times its present value: a number, or "0.1*lr" where no config is."""
    if cfg is None:
        return Change(key, f"{factor:g}*{key.rpartition('.')[2]}", why)
    return setting(key, factor * rate_at_start(cfg, key), why)


def rate_at_start(cfg: TrainConfig, key: str) -> float:
    """The value of a rate at the start of a run; 2e-4 where there is none, or 0."""
    try:
        return float(at(attrgetter(key)(cfg), 0)) or USUAL
    except AttributeError:
        return USUAL


def with_term(cfg: TrainConfig | None, term: str, why: str) -> Change:
    """The change that adds `term`, or replaces terms of the same kind. One in a step of its own stays in it."""
    kind, _, arguments = term.rstrip(")").partition("(")
    old = () if cfg is None else cfg.terms
    lazy = next((each for each in old if isinstance(each, LazyStep) and type(each.term).__name__ == kind), None)
    kept = [short(each) for each in old if each is not lazy and type(each).__name__ != kind]
    if lazy is not None:
        term = f"LazyStep(term={kind}({', '.join(filter(None, (arguments, f'every={lazy.every}')))}))"
    return Change("terms", f"[{', '.join([*kept, term])}]", why)


def allowed(changes: Proposal, cfg: TrainConfig | None) -> Iterator[Change]:
    """The changes that the config takes, and that change it. All of them where no config is."""
    for change in changes:
        if cfg is None:
            yield change
            continue
        try:
            new = override(cfg, {change.key: parse(change.value, known_to(cfg))})
        except ValueError:  # it does not go together with another setting
            continue
        if new != cfg:
            yield change


def resumes(change: Change) -> bool:
    """Whether a run may resume with this change: it does not change what is computed."""
    return change.key.startswith(SCHEDULE_ONLY)
