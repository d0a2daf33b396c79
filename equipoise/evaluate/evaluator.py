"""How good a generator's images are: the metrics of `metrics.measures` beside everything that they depend on.

All metrics read the same activations of one feature network, computed once for each of the two sets, if one of them
reads any. Several processes share out the batches of images, then the metrics, and find the numbers of one.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from equipoise.compute.distributed import from_rank_0, rank, world_size
from equipoise.compute.shares import rank_0_first, share, together
from equipoise.data.base import PathLike
from equipoise.data.reading import read_ahead
from equipoise.features import Activations, FeatureNet, Reference, feature_net, reference
from equipoise.features.named import check_name
from equipoise.features.reference import joined
from equipoise.metrics import GaussianStats
from equipoise.metrics.measures import Found, Measure, Number, Samples
from equipoise.metrics.of_discriminator import OfDiscriminator
from equipoise.metrics.registry import measures

from .discriminator import TrainedDiscriminator
from .sources import Drawn, Given, Source, open_source

__all__ = ["Evaluation", "Evaluator", "evaluate"]

T = TypeVar("T")


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
                if metric["beside"] != Measure.beside:
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

    metrics: such as ``"frechet,pr"`` or ``["frechet", "kid(subsets=50)"]``; see `measures.MEASURES` and `OF_RUNS`.
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
        self.measures = measures(metrics, features if isinstance(features, str) else features.name)
        self.against, self.num, self.seed, self.batch_size = against, num, seed, batch_size
        self.cache, self.progress = cache, progress and rank() == 0
        for name, measure in self.measures.items():
            self.check_number(name, measure)
        if isinstance(features, str):
            check_name(features)
        self.net: FeatureNet | None = None
        if all(measure.reads in ("pixels", "discriminator") for measure in self.measures.values()):
            pass  # then there is nothing to compute, and no weights are needed
        elif isinstance(features, str):
            device = device or ("cuda" if torch.cuda.is_available() else "cpu")
            self.net = rank_0_first(lambda: feature_net(features, weights=weights, device=device))
        else:
            self.net = features

    def __call__(self, images: Source) -> Evaluation:
        """Raises ValueError as `evaluate`."""
        self.check_source(images)
        discriminator = self.discriminator(images)
        fake, real = self.samples(images)._replace(discriminator=discriminator), self.real
        found = dict(zip(self.measures, together(lambda: self.measured(fake, real)), strict=True))
        numbers = {name: number for each in found.values() for name, number in each.numbers.items()}
        report = self.about(images, fake) | {
            "metrics": {
                name: {
                    "numbers": {
                        key: number._asdict() | {"better": self.measures[name].better[key]}
                        for key, number in each.numbers.items()
                    },
                    "spread": self.measures[name].spread,
                    "beside": self.measures[name].beside,
                    "reads": self.measures[name].reads,
                    "settings": settings(self.measures[name]),
                    "chosen": each.chosen,
                }
                for name, each in found.items()
            }
        }
        return Evaluation(numbers, report)

    def about(self, images: Source, fake: Samples) -> dict[str, Any]:
        """What all metrics depend on."""
        from equipoise import __version__

        return {
            "images": described(images, len(fake.features)),
            "against": described(self.against, len(self.real.features)),
            "seed": self.seed,
            "features": None
            if self.net is None
            else {
                "name": self.net.name,
                "sha256": self.net.sha256,
                "dimensions": fake.features.shape[1],
                "classes": None if fake.probabilities is None else fake.probabilities.shape[1],
            },
            "equipoise": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
        }

    def measured(self, fake: Samples, real: Samples) -> Iterator[Found]:
        """What this process's share of the metrics finds."""
        own = list(share(self.measures.values()))
        threads = min(4, torch.get_num_threads())  # sorting and exp, which numpy does on one, are half of the work
        results = read_ahead(
            lambda measure: measure(fake, real, self.seed), own, threads=0 if threads == 1 else threads
        )
        return self.shown(results, "metrics", len(own))

    @cached_property
    def real(self) -> Samples:
        """The reference set."""
        batches = Batches(self)
        found = None if self.net is None else reference(self.net, batches, cache=self.cache)
        images = np.concatenate(list(batches)) if self.reads_pixels else None
        if found is None:
            assert images is not None  # a metric reads features or pixels
            found = Reference(GaussianStats(unread(images).features), *unread(images))
        return Samples(*found, images, self.against.labels, self.num_classes)

    def samples(self, images: Source) -> Samples:
        """The set that is measured, drawn once."""

        def own() -> Iterator[Seen]:
            for x, y in self.draw(images, self.num, slice(rank(), None, world_size())):
                activations = unread(x) if self.net is None else self.net(x)
                yield Seen(activations, x if self.reads_pixels else None, y)

        found = together(own)
        features, probabilities = joined([seen.activations for seen in found])
        pixels = [seen.images for seen in found if seen.images is not None]
        asked = [seen.labels for seen in found if seen.labels is not None]
        labels = np.concatenate(asked) if asked else None
        stats = from_rank_0(lambda: GaussianStats(features))
        x = np.concatenate(pixels) if pixels else None
        return Samples(stats, features, probabilities, x, labels, images.spec.num_classes)

    def draw(self, source: Source, num: int | None, which: slice = slice(None)) -> Iterator[Drawn]:
        """`num` images, or all that there are; of a generator as many as are measured. which: of the batches."""
        num = self.num if source.held is None else num
        batches = range(-(-(num or source.held or 0) // self.batch_size))[which]
        drawn = source.draw(num, self.seed, self.batch_size, which)
        return self.shown(drawn, f"images of {source.name}", len(batches))

    @property
    def num_classes(self) -> int:
        """Of the reference set's labels; of what a generator draws, these are not kept."""
        return 0 if self.against.labels is None else self.against.spec.num_classes

    @property
    def reads_pixels(self) -> bool:
        return any(measure.reads in ("pixels", "discriminator") for measure in self.measures.values())

    def shown(self, items: Iterable[T], what: str, total: int) -> Iterator[T]:
        if not self.progress:
            return iter(items)
        console = Console(stderr=True)
        bars = track(items, what, total, console=console, transient=True, disable=not console.is_terminal)
        return iter(bars)

    def check_number(self, name: str, measure: Measure) -> None:
        """Raises ValueError if there are too few images for a metric."""
        held = self.num if self.against.held is None else self.against.held
        fake, real = measure.least
        if self.num < fake or held < real:
            fields = list(settings(measure))
            change = f", or change a setting, as in '{name}({fields[0]}=...)'" if fields else ""
            raise ValueError(
                f"{measure!r} needs at least {fake} generated and {real} real images, and there "
                f"are {self.num} and {held}: give more{change}"
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
        asking = {name: measure for name, measure in self.measures.items() if isinstance(measure, OfDiscriminator)}
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
        for measure in asking.values():
            measure.check(found, dataclasses.replace(self.against.spec, num_classes=self.num_classes))
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


def unread(images: NDArray[np.uint8]) -> Activations:
    """Features that no metric reads: a 0 for each image, so that their number is right."""
    return Activations(np.zeros((len(images), 1)), None)


class Seen(NamedTuple):
    """A batch, as `Samples`."""

    activations: Activations
    images: NDArray[np.uint8] | None
    labels: NDArray[np.int64] | None


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


def settings(measure: Measure) -> dict[str, Any]:
    """The fields of a metric."""
    return {f.name: getattr(measure, f.name) for f in dataclasses.fields(measure)}  # type: ignore[arg-type]
