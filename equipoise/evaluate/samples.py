"""The two sets of an evaluation. Metrics ask them for attributes: each is computed on the first request, and kept.

Several processes compute an attribute together. So all of them ask for the same attributes in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.compute.distributed import from_rank_0
from equipoise.compute.shares import together
from equipoise.data.base import PathLike
from equipoise.features import Activations, FeatureNet, Reference, reference
from equipoise.features.reference import joined
from equipoise.metrics import GaussianStats

from .discriminator import TrainedDiscriminator
from .generator import TrainedGenerator
from .sources import Drawn, Source

__all__ = ["FakeSamples", "RealSamples"]

Array = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


class Seen(NamedTuple):
    """Results of a pass over images, for one batch or for all. None: no metric asks for it, or no image has it."""

    activations: Activations | None
    pixels: Pixels | None
    labels: Labels | None


class FakeSamples:
    """The measured set. Its images are drawn once, when a metric first asks for features, pixels or labels.

    This pass computes everything that the metrics will ask for, with features batch by batch. It keeps the pixels only
    if a metric asks for them.

    source: the source of the images.  share: draws this process's share of the batches.
    asked: attributes that the metrics will ask for, as `metrics.base.needs` names them.
    net: the feature network that sees the images; None if no metric asks for its answers.
    discriminator, generator, network: for metrics that ask these themselves; None if none does.
    """

    def __init__(
        self,
        source: Source,
        share: Callable[[], Iterator[Drawn]],
        asked: AbstractSet[str],
        net: FeatureNet | None,
        discriminator: TrainedDiscriminator | None,
        generator: TrainedGenerator | None = None,
        network: FeatureNet | None = None,
    ):
        self.source, self.share, self.asked, self.net = source, share, asked, net
        self.num_classes = source.spec.num_classes
        self.of_run, self.drawing, self.asked_network = discriminator, generator, network

    @cached_property
    def seen(self) -> Seen:
        """The results of the one pass over the images."""

        def batches_of_share() -> Iterator[Seen]:
            for x, y in self.share():
                activations = None if self.net is None else self.net(x)
                yield Seen(activations, x if "pixels" in self.asked else None, y)

        batches = together(batches_of_share)
        activations = [batch.activations for batch in batches if batch.activations is not None]
        pixels = [batch.pixels for batch in batches if batch.pixels is not None]
        labels = [batch.labels for batch in batches if batch.labels is not None]
        return Seen(
            joined(activations) if activations else None,
            np.concatenate(pixels) if pixels else None,
            np.concatenate(labels) if labels else None,
        )

    @property
    def activations(self) -> Activations:
        assert self.seen.activations is not None  # the evaluation has a network if a metric asks for activations
        return self.seen.activations

    @property
    def features(self) -> Array:
        return self.activations.features

    @cached_property
    def stats(self) -> GaussianStats:
        features = self.features  # all processes compute these together, so before rank 0 works alone
        return from_rank_0(lambda: GaussianStats(features))

    @property
    def probabilities(self) -> Array:
        return of_classifier(self.activations.probabilities)

    @property
    def pixels(self) -> Pixels:
        assert self.seen.pixels is not None  # the pass keeps them if a metric asks for pixels
        return self.seen.pixels

    @property
    def labels(self) -> Labels | None:
        return self.seen.labels

    @property
    def discriminator(self) -> TrainedDiscriminator:
        assert self.of_run is not None  # the evaluation has it if a metric asks for it
        return self.of_run

    @property
    def generator(self) -> TrainedGenerator:
        assert self.drawing is not None  # the evaluation has it if a metric asks for it
        return self.drawing

    @property
    def network(self) -> FeatureNet:
        assert self.asked_network is not None  # the evaluation has it if a metric asks for it
        return self.asked_network


class RealSamples:
    """The reference set. Pixels take one pass over its images; features take the passes of `features.reference`.

    source: the source of the images.  batches: all images, iterable repeatedly.
    net: the feature network; None if no metric asks it.  cache: as in `features.reference`.
    """

    def __init__(self, source: Source, batches: Iterable[Pixels], net: FeatureNet | None, cache: PathLike | None):
        self.source, self.batches, self.net, self.cache = source, batches, net, cache
        self.labels = source.labels
        self.num_classes = 0 if source.labels is None else source.spec.num_classes  # a generator's labels are not kept

    @cached_property
    def reference(self) -> Reference:
        assert self.net is not None  # the evaluation has a network if a metric asks for features
        return reference(self.net, self.batches, cache=self.cache)

    @property
    def features(self) -> Array:
        return self.reference.features

    @property
    def stats(self) -> GaussianStats:
        return self.reference.stats

    @property
    def probabilities(self) -> Array:
        return of_classifier(self.reference.probabilities)

    @cached_property
    def pixels(self) -> Pixels:
        return np.concatenate(list(self.batches))

    @property
    def discriminator(self) -> TrainedDiscriminator:
        raise LookupError("the reference set comes without a discriminator: ask the generated images for it")

    @property
    def generator(self) -> TrainedGenerator:
        raise LookupError("the reference set comes without a generator: ask the generated images for it")

    @property
    def network(self) -> FeatureNet:
        raise LookupError("ask the generated images for the feature network")


def of_classifier(probabilities: Array | None) -> Array:
    """Return `probabilities`. Raises ValueError if the feature network gives none."""
    if probabilities is None:
        raise ValueError("the feature network gives no class probabilities: take one that classifies")
    return probabilities
