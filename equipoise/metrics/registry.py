"""All measures by name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from equipoise.core.grammar import parse, suggest

from .measures import (
    FID,
    Classes,
    DensityCoverage,
    Frechet,
    Inception,
    Kernel,
    Measure,
    Modes,
    Nearest,
    Parzen,
    PrecisionRecall,
    Sliced,
)
from .of_discriminator import Critic, OfDiscriminator, Probe

__all__ = ["MEASURES", "OF_RUNS", "measures"]

MEASURES: dict[str, type[Measure]] = {
    "frechet": Frechet,
    "fid": FID,
    "kid": Kernel,
    "is": Inception,
    "pr": PrecisionRecall,
    "dc": DensityCoverage,
    "swd": Sliced,
    "parzen": Parzen,
    "nearest": Nearest,
    "classes": Classes,
    "modes": Modes,
}
"""Every metric of any images, by the name that `--metrics` takes."""


OF_RUNS: dict[str, type[OfDiscriminator]] = {"probe": Probe, "critic": Critic}
"""And those that ask the discriminator of a run."""


def measures(asked: str | Sequence[str], features: str) -> dict[str, Measure]:
    """Metrics as they are asked for, such as ``"frechet,kid(subsets=50)"`` or ``["frechet", "pr"]``, by name.

    features: the name of the network that they will read.

    Raises:
        ValueError: for a metric that is unknown, asked for twice, or not defined for these features, or a setting that
            it does not take.
    """
    texts = re.split(r",(?![^(]*\))", asked) if isinstance(asked, str) else asked
    made: dict[str, Measure] = {}
    kinds: dict[str, type[Measure]] = {**MEASURES, **OF_RUNS}
    for text in (text.strip() for text in texts):
        name, opening, settings = text.partition("(")
        kind = kinds.get(name)
        if kind is None:
            raise ValueError(f"there is no metric {name!r}{suggest(name, kinds)}")
        if name in made:
            raise ValueError(f"the metric {name} is asked for twice: ask once")
        if kind.only not in (None, features):
            raise ValueError(
                f"{name} is the name of a distance of {kind.only} features, and these are of {features}: ask for "
                f"frechet, or give features={kind.only}"
            )
        made[name] = parse(f"{kind.__name__}{opening}{settings}", {kind.__name__: kind})
    if not made:
        raise ValueError(f"no metric is asked for: name some of {', '.join(kinds)}")
    return made
