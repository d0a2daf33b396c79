"""All metrics by name. Every class with a `name` in a file of this folder is listed, without further registration."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from equipoise.core.grammar import parse, suggest
from equipoise.core.listing import named

from .base import Metric
from .of_discriminator import OfDiscriminator
from .of_generator import OfGenerator

__all__ = ["METRICS", "OF_GENERATORS", "OF_RUNS", "AnyMetric", "parse_metrics"]

AnyMetric = Metric[*tuple[Any, ...]]

METRICS: dict[str, type[AnyMetric]] = {
    name: getattr(import_module(listed.module), listed.kind) for name, listed in named("metrics").items()
}
"""All metrics, by their names for `--metrics`."""

OF_RUNS = [name for name, kind in METRICS.items() if issubclass(kind, OfDiscriminator)]
"""Names of the metrics that ask the discriminator of a run."""

OF_GENERATORS = [name for name, kind in METRICS.items() if issubclass(kind, OfGenerator)]
"""Names of the metrics that ask a generator itself."""


def parse_metrics(asked: str | Sequence[str], features: str) -> dict[str, AnyMetric]:
    """Parse a list of metrics, such as ``"frechet,kid(subsets=50)"`` or ``["frechet", "pr"]`` -> metrics by name.

    features: name of the feature network that they will use.

    Raises:
        ValueError: for a metric that is unknown, asked for twice, or not defined for these features, or for a setting
            that it does not take.
    """
    texts = re.split(r",(?![^(]*\))", asked) if isinstance(asked, str) else asked
    made: dict[str, AnyMetric] = {}
    for text in (text.strip() for text in texts):
        name, opening, settings = text.partition("(")
        kind = METRICS.get(name)
        if kind is None:
            raise ValueError(f"there is no metric {name!r}{suggest(name, METRICS)}")
        if name in made:
            raise ValueError(f"the metric {name} is asked for twice: ask once")
        if kind.only not in (None, features):
            raise ValueError(
                f"{name} is the name of a distance of {kind.only} features, and these are of {features}: ask for "
                f"frechet, or give features={kind.only}"
            )
        made[name] = parse(f"{kind.__name__}{opening}{settings}", {kind.__name__: kind})
    if not made:
        raise ValueError(f"no metric is asked for: name some of {', '.join(METRICS)}")
    return made
