"""How good a generator's images are: the metrics of `metrics.registry` beside everything that they depend on.

Metrics ask the two sets for what they need (`samples`). Each answer is computed once, and what no metric asks for is
not computed: no features for pixels, and no generated images for a probe of D. Several processes share out the batches
of images, then the metrics, and find the numbers of one.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from equipoise.compute.distributed import rank, world_size
from equipoise.compute.shares import rank_0_first, share, together
from equipoise.data.base import PathLike
from equipoise.data.reading import read_ahead
from equipoise.features import FeatureNet, feature_net
from equipoise.features.named import check_name
from equipoise.metrics.base import Found, Metric, Needs, Number, needs
from equipoise.metrics.of_discriminator import OfDiscriminator
from equipoise.metrics.registry import AnyMetric, parse_metrics

from .discriminator import TrainedDiscriminator
from .samples import FakeSamples, RealSamples
from .sources import Drawn, Given, Source, open_source

__all__ = ["Evaluation", "Evaluator", "evaluate"]

T = TypeVar("T")

OF_NET = frozenset({"features", "stats", "probabilities"})
"""What metrics ask for that a feature network computes."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """numbers: by name.  report: the same with all that they depend on, as JSON holds it."""

    numbers: dict[str, Number]
    report: dict[str, Any]

    def json(self) -> str:
        return json.dumps(self.report, indent=1) + "\n"

    def table(self) -> Table:
        """A line for each number."""
        about = self.report
        title = f"{about['images']['num']:,} images of {about['images']['source']}"
        against = f"{about['against']['num']:,} images of {about['against']['source']}"
        net = about["features"]
        features = "" if net is None else f", features {net['name']} {net['sha256'][:12]}"
        table = Table(
            *("metric", "value", "±", "real images", "better"),
            title=f"{title}, against {against}",
            caption=f"seed {about['seed']}{features}",
            title_justify="left",
            caption_justify="left",
        )
        for metric in about["metrics"].values():
            for name, found in metric["numbers"].items():
                cells = ["" if found[key] is None else f"{found[key]:.4g}" for key in ("value", "spread", "real")]
                if metric["beside"] != Metric.beside:
                    cells[-1] += f" ({metric['beside']})"
                table.add_row(name, *cells, found["better"])
        return table


def evaluate(
    images: Given,
    against: Given,
    *,
    metrics: str | Sequence[str],
    num: int = 10_000,
    seed: int = 0,
    features: str | FeatureNet = "inception",
    weights: PathLike | None = None,
    device: torch.device | str | None = None,
    batch_size: int = 250,
    cache: PathLike | None = None,
    known: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Evaluation:
    """Measure `num` images of a run, a folder, a zip, an .npz or a data set against all those of another.

    metrics: such as ``"frechet,pr"`` or ``["frechet", "kid(subsets=50)"]``; see `registry.METRICS`.
    seed: of everything random: what is drawn, subsets, projections.
    features, weights: the network and its file, as in `features.feature_net`; neither is read if no metric asks it.
    device: None is the GPU if there is one.
    batch_size: images at a time, which bounds memory and changes nothing beyond rounding.
    cache: where activations of the reference set are kept, as in `features.reference`.
    known: components that a config's text may call, default the library's.
    progress: show bars on a terminal.

    Raises:
        ValueError: before any work, for sources that cannot be read, too few images, channels that differ, unknown
            metrics or missing weights; and for a network that answers NaN.

    >>> found = evaluate("runs/first", "Digits", metrics="frechet,pr", features="digits")
    >>> found.numbers["frechet"].value
    1.25...
    """
    evaluator = Evaluator(
        rank_0_first(lambda: open_source(against, known)),
        metrics=metrics,
        num=num,
        seed=seed,
        features=features,
        weights=weights,
        device=device,
        batch_size=batch_size,
        cache=cache,
        progress=progress,
    )
    return evaluator(rank_0_first(lambda: open_source(images, known)))


class Evaluator:
    """`evaluate` for one set after the other: the reference set is read once. Its arguments are those of `evaluate`."""

    def __init__(
        self,
        against: Source,
        *,
        metrics: str | Sequence[str],
        num: int,
        seed: int = 0,
        features: str | FeatureNet = "inception",
        weights: PathLike | None = None,
        device: torch.device | str | None = None,
        batch_size: int = 250,
        cache: PathLike | None = None,
        progress: bool = False,
    ):
        if num < 1 or batch_size < 1:
            raise ValueError(f"num and batch_size must be at least 1, got {num} and {batch_size}")
        self.metrics = parse_metrics(metrics, features if isinstance(features, str) else features.name)
        self.needs = {name: needs(metric) for name, metric in self.metrics.items()}
        self.against, self.num, self.seed, self.batch_size = against, num, seed, batch_size
        self.cache, self.progress = cache, progress and rank() == 0
        for name, metric in self.metrics.items():
            self.check_number(name, metric)
        if isinstance(features, str):
            check_name(features)
        self.net: FeatureNet | None = None
        if OF_NET.isdisjoint(name for asked in self.needs.values() for name in asked.fake | asked.real):
            pass  # then there is nothing to compute, and no weights are needed
        elif isinstance(features, str):
            device = device or ("cuda" if torch.cuda.is_available() else "cpu")
            self.net = rank_0_first(lambda: feature_net(features, weights=weights, device=device))
        else:
            self.net = features

    def __call__(self, images: Source) -> Evaluation:
        """Raises ValueError as `evaluate`."""
        self.check_source(images)
        fake, real = self.samples(images), self.real
        asked = [metric.ask(fake, real) for metric in self.metrics.values()]  # all processes give all answers together
        found = dict(zip(self.metrics, together(lambda: self.measured(asked)), strict=True))
        numbers = {name: number for each in found.values() for name, number in each.numbers.items()}
        report = self.about(images, fake) | {
            "metrics": {
                name: {
                    "numbers": {
                        key: number._asdict() | {"better": self.metrics[name].better[key]}
                        for key, number in each.numbers.items()
                    },
                    "spread": self.metrics[name].spread,
                    "beside": self.metrics[name].beside,
                    "reads": reads(self.needs[name]),
                    "settings": settings(self.metrics[name]),
                    "chosen": each.chosen,
                }
                for name, each in found.items()
            }
        }
        return Evaluation(numbers, report)

    def about(self, images: Source, fake: FakeSamples) -> dict[str, Any]:
        """What all metrics depend on."""
        from equipoise import __version__

        seen = None if self.net is None else fake.activations
        return {
            "images": described(images, self.num),
            "against": described(self.against, self.num_real),
            "seed": self.seed,
            "features": None
            if self.net is None or seen is None
            else {
                "name": self.net.name,
                "sha256": self.net.sha256,
                "dimensions": seen.features.shape[1],
                "classes": None if seen.probabilities is None else seen.probabilities.shape[1],
            },
            "equipoise": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
        }

    def measured(self, asked: Sequence[tuple[Any, ...]]) -> Iterator[Found]:
        """What this process's share of the metrics finds. asked: the answers to each metric's questions."""
        own = list(share(zip(self.metrics.values(), asked, strict=True)))
        threads = min(4, torch.get_num_threads())  # sorting and exp, which numpy does on one, are half of the work
        results = read_ahead(
            lambda pair: pair[0].find(self.seed, *pair[1]), own, threads=0 if threads == 1 else threads
        )
        return self.shown(results, "metrics", len(own))

    @cached_property
    def real(self) -> RealSamples:
        """The reference set."""
        return RealSamples(self.against, Batches(self), self.net, self.cache)

    def samples(self, images: Source) -> FakeSamples:
        """The set that is measured. Raises ValueError for images whose discriminator cannot be asked."""
        return FakeSamples(
            images,
            lambda: self.draw(images, self.num, slice(rank(), None, world_size())),
            frozenset(name for each in self.needs.values() for name in each.fake),
            self.net,
            self.discriminator(images),
        )

    def draw(self, source: Source, num: int | None, which: slice = slice(None)) -> Iterator[Drawn]:
        """`num` images, or all that there are; of a generator as many as are measured. which: of the batches."""
        num = self.num if source.held is None else num
        batches = range(-(-(num or source.held or 0) // self.batch_size))[which]
        drawn = source.draw(num, self.seed, self.batch_size, which)
        return self.shown(drawn, f"images of {source.name}", len(batches))

    @property
    def num_real(self) -> int:
        """Images of the reference set: all, or of a generator as many as are measured."""
        return self.num if self.against.held is None else self.against.held

    def shown(self, items: Iterable[T], what: str, total: int) -> Iterator[T]:
        if not self.progress:
            return iter(items)
        console = Console(stderr=True)
        bars = track(items, what, total, console=console, transient=True, disable=not console.is_terminal)
        return iter(bars)

    def check_number(self, name: str, metric: AnyMetric) -> None:
        """Raises ValueError if there are too few images for a metric."""
        fake, real = metric.least
        if self.num < fake or self.num_real < real:
            fields = list(settings(metric))
            change = f", or change a setting, as in '{name}({fields[0]}=...)'" if fields else ""
            raise ValueError(
                f"{metric!r} needs at least {fake} generated and {real} real images, and there "
                f"are {self.num} and {self.num_real}: give more{change}"
            )

    def check_source(self, images: Source) -> None:
        """Raises ValueError if the images are too few, or not comparable with the reference set."""
        if images.held is not None and images.held < self.num:
            raise ValueError(
                f"{self.num} images are asked for, and {images.name} holds {images.held}: give num of at most "
                f"{images.held}"
            )
        self.check_channels(images)

    def discriminator(self, images: Source) -> TrainedDiscriminator | None:
        """The discriminator of the run that the images are of, if a metric asks it. All processes call this.

        Raises:
            ValueError: if they are of none, or it cannot be asked.
        """
        asking = {name: metric for name, metric in self.metrics.items() if isinstance(metric, OfDiscriminator)}
        if not asking:
            return None
        if images.discriminator is None:
            raise ValueError(
                f"{' and '.join(asking)} can be asked of the discriminator of a run alone, and {images.name} comes "
                "without one: give the directory of a run, with its checkpoints, to `equipoise evaluate`"
            )
        found = images.discriminator()
        sizes = [(spec.resolution, spec.resolution, spec.channels) for spec in (found.spec, self.against.spec)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"the discriminator of {images.name} reads images of {'x'.join(map(str, sizes[0]))}, and those of "
                f"{self.against.name} are of {'x'.join(map(str, sizes[1]))}: compare with images of its size"
            )
        for metric in asking.values():
            metric.check(found, dataclasses.replace(self.against.spec, num_classes=self.real.num_classes))
        return found

    def check_channels(self, images: Source) -> None:
        channels = images.spec.channels, self.against.spec.channels
        if channels[0] != channels[1]:
            colour = {1: "grey", 3: "in colour"}
            raise ValueError(
                f"the images of {images.name} are {colour[channels[0]]} and those of {self.against.name} "
                f"{colour[channels[1]]}: convert one of the two, as 'Images(path=\"FOLDER\",channels={channels[0]})' "
                "does"
            )


class Batches:
    """The images of the reference set, which can be gone through again and again."""

    def __init__(self, evaluator: Evaluator):
        self.evaluator = evaluator

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (x for x, _ in self.evaluator.draw(self.evaluator.against, None))


def described(source: Source, num: int) -> dict[str, Any]:
    size = [source.spec.resolution, source.spec.resolution, source.spec.channels]
    kind = "generator" if source.held is None else "images"
    return {"source": source.name, "kind": kind, "num": num, "of": source.held, "size": size, "sha256": source.sha256}


def reads(asked: Needs) -> str:
    """The report's word for what a metric is computed from."""
    either = asked.fake | asked.real
    return next((word for word in ("discriminator", "probabilities", "pixels") if word in either), "features")


def settings(metric: AnyMetric) -> dict[str, Any]:
    """The fields of a metric."""
    return {f.name: getattr(metric, f.name) for f in dataclasses.fields(metric)}  # type: ignore[arg-type]
