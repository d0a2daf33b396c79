"""Evaluation of a generator's images: the metrics of `metrics.registry`, and everything that they depend on.

Metrics ask the two sets for what they need (`samples`). Each answer is computed once, and only if a metric asks for it:
a metric of pixels needs no features, and a probe of D needs no generated images. Several processes share out the
batches of images, then the metrics. They find the same numbers as a single process.
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
from equipoise.metrics.of_generator import OfGenerator
from equipoise.metrics.registry import AnyMetric, parse_metrics

from .discriminator import TrainedDiscriminator
from .generator import TrainedGenerator
from .samples import FakeSamples, RealSamples
from .sources import Drawn, Given, Source, open_source

__all__ = ["Evaluation", "Evaluator", "evaluate"]

T = TypeVar("T")

OF_NET = frozenset({"features", "stats", "probabilities"})
"""Attributes of a set that a feature network computes."""
ASKS_NET = OF_NET | {"network"}
"""Attributes of a set for which a feature network is needed."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An evaluation. numbers: by name.  report: the numbers with all that they depend on, ready for JSON."""

    numbers: dict[str, Number]
    report: dict[str, Any]

    def json(self) -> str:
        return json.dumps(self.report, indent=1) + "\n"

    def table(self) -> Table:
        """A table with a line for each number."""
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
            for name, number in metric["numbers"].items():
                cells = ["" if number[key] is None else f"{number[key]:.4g}" for key in ("value", "spread", "real")]
                if metric["beside"] != Metric.beside:
                    cells[-1] += f" ({metric['beside']})"
                table.add_row(name, *cells, number["better"])
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
    """Measure `num` images of one source against all images of another: a run, folder, zip, .npz or data set each.

    metrics: such as ``"frechet,pr"`` or ``["frechet", "kid(subsets=50)"]``; see `registry.METRICS`.
    seed: seed for everything random: drawn images, subsets, projections.
    features, weights: the network and its file, as in `features.feature_net`; neither is read unless a metric asks.
    device: None is the GPU if there is one.
    batch_size: images at a time. It bounds memory and changes nothing beyond rounding.
    cache: directory for activations of the reference set, as in `features.reference`.
    known: components that a config's text may call, default the library's.
    progress: show bars on a terminal.

    Raises:
        ValueError: before any work, for unreadable sources, too few images, channels that differ, unknown metrics or
            missing weights. Later, for a network that answers NaN.

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
    """`evaluate` for several sets in turn: the reference set is read once. Takes the arguments of `evaluate`."""

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
        self.features = features if isinstance(features, str) else features.name
        self.metrics = parse_metrics(metrics, self.features)
        self.needs = {name: needs(metric) for name, metric in self.metrics.items()}
        self.against, self.num, self.seed, self.batch_size = against, num, seed, batch_size
        self.cache, self.progress = cache, progress and rank() == 0
        for name, metric in self.metrics.items():
            self.check_number(name, metric)
        if isinstance(features, str):
            check_name(features)
        self.net: FeatureNet | None = None
        asked = {name for each in self.needs.values() for name in each.fake | each.real}
        self.sees = not OF_NET.isdisjoint(asked)  # whether the network sees the images of the two sets
        if ASKS_NET.isdisjoint(asked):
            pass  # no metric asks the network, so its weights are not needed
        elif isinstance(features, str):
            device = device or ("cuda" if torch.cuda.is_available() else "cpu")
            self.net = rank_0_first(lambda: feature_net(features, weights=weights, device=device))
        else:
            self.net = features

    def __call__(self, images: Source) -> Evaluation:
        """Measure `images`. Raises ValueError as `evaluate`."""
        self.check_source(images)
        fake, real = self.samples(images), self.real
        answers = [metric.ask(fake, real) for metric in self.metrics.values()]  # all processes compute each together
        results = dict(zip(self.metrics, together(lambda: self.measured(answers)), strict=True))
        numbers = {name: number for each in results.values() for name, number in each.numbers.items()}
        better = self.better
        report = self.about(images, fake) | {
            "metrics": {
                name: {
                    "numbers": {
                        key: number._asdict() | {"better": better[key]} for key, number in each.numbers.items()
                    },
                    "spread": self.metrics[name].spread,
                    "beside": self.metrics[name].beside,
                    "reads": reads(self.needs[name]),
                    "settings": settings(self.metrics[name]),
                    "chosen": each.chosen,
                }
                for name, each in results.items()
            }
        }
        return Evaluation(numbers, report)

    def about(self, images: Source, fake: FakeSamples) -> dict[str, Any]:
        """The part of the report that all metrics depend on: both sets, seed, feature network, versions."""
        from equipoise import __version__

        seen = fake.activations if self.sees else None
        return {
            "images": described(images, self.num),
            "against": described(self.against, self.num_real),
            "seed": self.seed,
            "features": None
            if self.net is None
            else {
                "name": self.net.name,
                "sha256": self.net.sha256,
                "dimensions": None if seen is None else seen.features.shape[1],
                "classes": None if seen is None or seen.probabilities is None else seen.probabilities.shape[1],
            },
            "equipoise": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
        }

    def measured(self, answers: Sequence[tuple[Any, ...]]) -> Iterator[Found]:
        """Results of this process's share of the metrics. answers: the answers to each metric's questions."""
        pairs = list(share(zip(self.metrics.values(), answers, strict=True)))
        threads = min(4, torch.get_num_threads())  # half of the work is sorting and exp, which numpy does on one thread
        if any(isinstance(metric, OfGenerator) for metric, _ in pairs):
            threads = 1  # networks have all threads already, and switches of precision are not one thread's
        results = read_ahead(
            lambda pair: pair[0].find(self.seed, *pair[1]), pairs, threads=0 if threads == 1 else threads
        )
        return self.shown(results, "metrics", len(pairs))

    @property
    def better(self) -> dict[str, str]:
        """Whether lower or higher is better, by the full name of each number."""
        features = self.features if self.net is None else self.net.name
        return {key: way for each in self.metrics.values() for key, way in each.directions(features).items()}

    @cached_property
    def real(self) -> RealSamples:
        """The reference set."""
        return RealSamples(self.against, Batches(self), self.net, self.cache)

    def samples(self, images: Source) -> FakeSamples:
        """The measured set. Raises ValueError for images whose discriminator cannot be asked."""
        return FakeSamples(
            images,
            lambda: self.draw(images, self.num, slice(rank(), None, world_size())),
            frozenset(name for each in self.needs.values() for name in each.fake),
            self.net if self.sees else None,
            self.discriminator(images),
            self.generator(images),
            self.net,
        )

    def draw(self, source: Source, num: int | None, which: slice = slice(None)) -> Iterator[Drawn]:
        """Draw `num` images, or all for None; a generator draws `self.num`. which: slice of the batches."""
        num = self.num if source.held is None else num
        batches = range(-(-(num or source.held or 0) // self.batch_size))[which]
        drawn = source.draw(num, self.seed, self.batch_size, which)
        return self.shown(drawn, f"images of {source.name}", len(batches))

    @property
    def num_real(self) -> int:
        """Number of reference images: all of the set, or `self.num` from a generator."""
        return self.num if self.against.held is None else self.against.held

    def shown(self, items: Iterable[T], what: str, total: int) -> Iterator[T]:
        if not self.progress:
            return iter(items)
        console = Console(stderr=True)
        bars = track(items, what, total, console=console, transient=True, disable=not console.is_terminal)
        return iter(bars)

    def check_number(self, name: str, metric: AnyMetric) -> None:
        """Raise ValueError if there are too few images for a metric."""
        fake, real = metric.least
        if self.num < fake or self.num_real < real:
            fields = list(settings(metric))
            change = f", or change a setting, as in '{name}({fields[0]}=...)'" if fields else ""
            raise ValueError(
                f"{metric!r} needs at least {fake} generated and {real} real images, and there "
                f"are {self.num} and {self.num_real}: give more{change}"
            )

    def check_source(self, images: Source) -> None:
        """Raise ValueError if the images are too few, or not comparable with the reference set."""
        if images.held is not None and images.held < self.num:
            raise ValueError(
                f"{self.num} images are asked for, and {images.name} holds {images.held}: give num of at most "
                f"{images.held}"
            )
        self.check_channels(images)

    def discriminator(self, images: Source) -> TrainedDiscriminator | None:
        """The discriminator of the run that draws the images; None if no metric asks it. All processes call this.

        Raises:
            ValueError: if the images come without a discriminator, or a metric cannot ask it.
        """
        asking = {name: metric for name, metric in self.metrics.items() if isinstance(metric, OfDiscriminator)}
        if not asking:
            return None
        if images.discriminator is None:
            raise ValueError(
                f"only the discriminator of a run answers {' and '.join(asking)}, and {images.name} comes without one: "
                "give the directory of a run, with its checkpoints, to `equipoise evaluate`"
            )
        D = images.discriminator()
        sizes = [(*spec.shape, spec.channels) for spec in (D.spec, self.against.spec)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"the discriminator of {images.name} reads images of {'x'.join(map(str, sizes[0]))}, but the images of "
                f"{self.against.name} are {'x'.join(map(str, sizes[1]))}: compare with images of its size"
            )
        for metric in asking.values():
            metric.check(D, dataclasses.replace(self.against.spec, num_classes=self.real.num_classes))
        return D

    def generator(self, images: Source) -> TrainedGenerator | None:
        """The generator that draws the images; None if no metric asks it.

        Raises:
            ValueError: if the images come without a generator, or a metric cannot ask it.
        """
        asking = {name: metric for name, metric in self.metrics.items() if isinstance(metric, OfGenerator)}
        if not asking:
            return None
        if images.generator is None:
            raise ValueError(
                f"only a generator answers {' and '.join(asking)}, and {images.name} holds images: give the directory "
                "of a run, its best/, or an export to `equipoise evaluate`"
            )
        G = TrainedGenerator(images.generator)
        for metric in asking.values():
            metric.check(G)
        return G

    def check_channels(self, images: Source) -> None:
        channels = images.spec.channels, self.against.spec.channels
        if channels[0] != channels[1]:
            colour = {1: "grey", 3: "in colour"}
            raise ValueError(
                f"the images of {images.name} are {colour[channels[0]]}, the images of {self.against.name} "
                f"{colour[channels[1]]}: convert one of the two, as 'Images(path=\"FOLDER\",channels={channels[0]})' "
                "does"
            )


class Batches:
    """The images of the reference set, batch by batch. Iterating again draws the same batches again."""

    def __init__(self, evaluator: Evaluator):
        self.evaluator = evaluator

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (x for x, _ in self.evaluator.draw(self.evaluator.against, None))


def described(source: Source, num: int) -> dict[str, Any]:
    size = [*source.spec.shape, source.spec.channels]
    kind = "generator" if source.held is None else "images"
    return {"source": source.name, "kind": kind, "num": num, "of": source.held, "size": size, "sha256": source.sha256}


def reads(asked: Needs) -> str:
    """The report's word for the input of a metric."""
    either = asked.fake | asked.real
    words = "discriminator", "generator", "probabilities", "pixels"
    return next((word for word in words if word in either), "features")


def settings(metric: AnyMetric) -> dict[str, Any]:
    """The fields of a metric, with their values."""
    return {f.name: getattr(metric, f.name) for f in dataclasses.fields(metric)}  # type: ignore[arg-type]
