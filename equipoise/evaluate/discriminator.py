"""The discriminator of a run, rebuilt from a checkpoint, with the quantities that metrics ask of it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from equipoise.compute.devices import wide
from equipoise.compute.distributed import from_rank_0
from equipoise.config import TrainConfig
from equipoise.core.randomness import Purpose, seed_torch
from equipoise.core.types import ImageSpec
from equipoise.data import to_float
from equipoise.losses import logits
from equipoise.metrics import pooled_features
from equipoise.nn import (
    AuxiliaryHead,
    BiasedHead,
    Discriminator,
    LevelOfDetail,
    LinearHead,
    MiddleConcat,
    SANHead,
    detail,
)
from equipoise.rules import Stages
from equipoise.runs import newest_whole, read_run
from equipoise.weights import lipschitz_bound
from equipoise.weights.matrices import every_vector, is_chain

__all__ = ["TrainedDiscriminator", "load_discriminator", "rebuild"]

Weights = Mapping[str, Tensor]


@dataclasses.dataclass(frozen=True)
class TrainedDiscriminator:
    """The discriminator of a run, in eval mode and without the augmentation that it was trained with.

    net: x (N, C, H, W) in [-1, 1], y (N,) or None -> the output of D.
    untrained: another discriminator of the same settings, with its initial weights.
    config: the run's config.  spec: the spec of its data.
    nimg: real images that D had seen.

    Images come as uint8 (n, H, W, C). D sees them in batches of the last batch size of the run, because some layers
    compare the images of a batch. The last batch is filled up with the first images.
    """

    net: nn.Module
    untrained: nn.Module
    config: TrainConfig
    spec: ImageSpec
    nimg: int

    @property
    def estimates(self) -> str | None:
        """Name of the distance that the difference of D's mean logits estimates under its loss."""
        return self.config.loss.estimates

    @property
    def reads_labels(self) -> bool:
        return self.config.head.conditioning.reads_labels

    @property
    def settings(self) -> str:
        return repr(self.config.discriminator)

    @property
    def loss(self) -> str:
        return repr(self.config.loss)

    def logits(self, images: NDArray[np.uint8], labels: NDArray[np.int64] | None, *, lod: float = 0) -> Tensor:
        """The mean logit of each image, (n,) float64 on the CPU.

        lod: level of detail that images are brought to first; see `growth.detail`.

        Raises:
            ValueError: if a logit is NaN or Inf.
        """
        parts = [
            wide(logits(self.net(detail(x, lod), y))).mean(1)[:num].cpu() for x, y, num in self.batches(images, labels)
        ]
        return finite(torch.cat(parts), "logits")

    def features(self, images: NDArray[np.uint8], *, trained: bool = True) -> NDArray[np.float64]:
        """`metrics.pooled_features` (n, F) of the layers before the head, in D or in the untrained network.

        Raises:
            ValueError: if these layers read the class too, lack a convolution, or answer NaN or Inf.
        """
        body = copy.deepcopy(self.body(trained=trained))  # metrics run side by side: each needs hooks of its own
        parts = [pooled_features(body, x)[:num] for x, _, num in self.batches(images, None)]
        return finite(torch.from_numpy(np.concatenate(parts)), "features").numpy()

    def body(self, *, trained: bool = True) -> nn.Module:
        """The layers before the head, which see the image alone.

        Raises:
            ValueError: if these layers read the class too.
        """
        net = self.net if trained else self.untrained
        image_alone = isinstance(net, Discriminator) and net.join is None and not isinstance(net.body, MiddleConcat)
        if self.reads_labels and not image_alone:
            raise ValueError(
                f"the features of this D would know the class, which it reads beside the image "
                f"(head.conditioning={self.config.head.conditioning!r}): give a D that reads the class in its head "
                "(Projection, PerClass, Hidden without discriminator.join), or an unconditional D"
            )
        return net.body if isinstance(net, Discriminator) else net

    @property
    def lod(self) -> float:
        """Level of detail of the last real images that D was shown."""
        return self.config.growth.lod(self.nimg, self.spec.resolution)

    @property
    @torch.no_grad()
    def lipschitz(self) -> float | None:
        """A bound of ‖D(·, y)‖_Lip over pixels in [-1, 1]: `lipschitz_bound` of the body times the longest w(y).

        None where the bound is unknown: for a body other than a plain chain (`is_chain`), or a head that is not linear.
        """
        if not isinstance(self.net, Discriminator) or not is_chain(self.net.body):
            return None
        head = self.net.head
        while isinstance(head, AuxiliaryHead | BiasedHead):
            head = head.last
        if not isinstance(head, LinearHead | SANHead):
            return None
        return float(lipschitz_bound(self.net.body) * wide(every_vector(head.conditioning)).norm(dim=1).max())

    def batches(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64] | None
    ) -> Iterator[tuple[Tensor, Tensor | None, int]]:
        """Batches x (N, C, H, W) and y on D's device, and the number of images left: rows beyond it are filling."""
        stages = Stages(self.config.growth, self.spec.resolution, self.config.batch_size)
        size, device = stages.batch_size(self.nimg), next(self.net.parameters()).device
        for start in range(0, len(images), size):
            rows = np.arange(start, start + size) % len(images)
            x = to_float(torch.from_numpy(images[rows]).to(device)).permute(0, 3, 1, 2)  # (n, H, W, C) -> (n, C, H, W)
            y = None if labels is None else torch.from_numpy(labels[rows]).to(device)
            yield x.contiguous(), y, len(images) - start


def load_discriminator(run_dir: Path, known: Mapping[str, Any] | None = None) -> TrainedDiscriminator:
    """The discriminator in the newest intact checkpoint of a run. The run is only read, by rank 0; all processes call.

    known: components that the run's config may call, default the library's.

    Raises:
        ValueError: if the run lacks a readable config or an intact checkpoint, or the two do not fit.
    """

    def read() -> tuple[Weights, int, ImageSpec]:
        checkpoint = newest_whole(run_dir / "checkpoints")
        if checkpoint is None:
            raise ValueError(
                f"{run_dir / 'checkpoints'} holds no intact checkpoint to take the discriminator from: give a run that "
                "has saved one, or restore it from a backup"
            )
        path, weights, state = checkpoint
        if state.get("spec") is None:
            raise ValueError(f"{path} does not hold the spec of its data: an earlier version has written it")
        return weights.get("D", {}), int(state["nimg"]), ImageSpec(**state["spec"])

    config = read_run(run_dir, known).config
    weights, nimg, spec = from_rank_0(read)
    try:
        return rebuild(config, spec, weights, nimg, "cuda" if torch.cuda.is_available() else "cpu")
    except RuntimeError as error:
        raise ValueError(
            f"the discriminator of {run_dir} does not fit its config, whose code has changed since: {error}"
        ) from None


def rebuild(
    config: TrainConfig, spec: ImageSpec, weights: Weights, nimg: int, device: torch.device | str
) -> TrainedDiscriminator:
    """Build a discriminator of these settings, weights and buffers. Torch's global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        seed_torch(config.seed, Purpose.WEIGHTS)
        untrained = config.head.build(config.discriminator.build, spec)
        config.d_normalizer(untrained)
    untrained.eval().requires_grad_(False).to(device)
    net = copy.deepcopy(untrained)
    net.load_state_dict(weights)
    for module, trained in zip(untrained.modules(), net.modules(), strict=True):
        if isinstance(module, LevelOfDetail):
            module.move(trained())
    return TrainedDiscriminator(net, untrained, config, spec, nimg)


def finite(values: Tensor, what: str) -> Tensor:
    """Return `values`. Raises ValueError if a value is NaN or Inf."""
    if not values.isfinite().all():
        raise ValueError(f"the discriminator answers with {what} that are NaN or Inf: the run has diverged")
    return values
