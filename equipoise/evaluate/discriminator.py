"""The discriminator of a run as it is kept in a checkpoint: what metrics ask of it."""

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

    net: x (N, C, H, W) in [-1, 1], y (N,) or None -> what D returns.
    untrained: another of the same settings, with weights as they are initialised.
    config: of the run.  spec: of its data.
    nimg: real images that it had seen.

    Images come as bytes, uint8 (n, H, W, C), and D sees them in batches of the size that the run had last, the last of
    them filled up with the first images: some layers compare the images of a batch.
    """

    net: nn.Module
    untrained: nn.Module
    config: TrainConfig
    spec: ImageSpec
    nimg: int

    @property
    def estimates(self) -> str | None:
        """The distance that the difference of its mean logits estimates, by its loss."""
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

        lod: the level of detail that images are brought to first; see `growth.detail`.

        Raises:
            ValueError: if one is NaN or Inf.
        """
        found = [
            logits(self.net(detail(x, lod), y)).double().mean(1)[:num].cpu()
            for x, y, num in self.batches(images, labels)
        ]
        return finite(torch.cat(found), "logits")

    def features(self, images: NDArray[np.uint8], *, trained: bool = True) -> NDArray[np.float64]:
        """`metrics.pooled_features` of the layers before the head, (n, F): of D, or of the untrained one.

        Raises:
            ValueError: if they read the class too, have no convolution, or answer NaN or Inf.
        """
        body = copy.deepcopy(self.body(trained=trained))  # metrics run side by side, and the hooks are this one's
        found = [pooled_features(body, x)[:num] for x, _, num in self.batches(images, None)]
        return finite(torch.from_numpy(np.concatenate(found)), "features").numpy()

    def body(self, *, trained: bool = True) -> nn.Module:
        """The layers before the head, which see the image alone.

        Raises:
            ValueError: if they read the class too.
        """
        net = self.net if trained else self.untrained
        apart = isinstance(net, Discriminator) and net.join is None and not isinstance(net.body, MiddleConcat)
        if self.reads_labels and not apart:
            raise ValueError(
                f"the features of this D would know the class, which it reads beside the image "
                f"(head.conditioning={self.config.head.conditioning!r}): ask a D that reads it in its head "
                "(Projection, PerClass, Hidden without discriminator.join), or not at all"
            )
        return net.body if isinstance(net, Discriminator) else net

    @property
    def lod(self) -> float:
        """The level of detail of the real images that it was shown last."""
        return self.config.growth.lod(self.nimg, self.spec.resolution)

    @property
    @torch.no_grad()
    def lipschitz(self) -> float | None:
        """A bound of ‖D(·, y)‖_Lip over pixels in [-1, 1]: `lipschitz_bound` of the body times the longest w(y).

        None where none is known: for a body that is no plain chain (`is_chain`), and a head that is no contraction.
        """
        if not isinstance(self.net, Discriminator) or not is_chain(self.net.body):
            return None
        head = self.net.head
        while isinstance(head, AuxiliaryHead | BiasedHead):
            head = head.last
        if not isinstance(head, LinearHead | SANHead):
            return None
        return float(lipschitz_bound(self.net.body) * every_vector(head.conditioning).double().norm(dim=1).max())

    def batches(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64] | None
    ) -> Iterator[tuple[Tensor, Tensor | None, int]]:
        """X and y on D's device, and how many of them count; without gradients."""
        stages = Stages(self.config.growth, self.spec.resolution, self.config.batch_size)
        size, device = stages.batch_size(self.nimg), next(self.net.parameters()).device
        for start in range(0, len(images), size):
            rows = np.arange(start, start + size) % len(images)
            x = to_float(torch.from_numpy(images[rows]).to(device)).permute(0, 3, 1, 2)  # (n, H, W, C) -> (n, C, H, W)
            y = None if labels is None else torch.from_numpy(labels[rows]).to(device)
            yield x.contiguous(), y, len(images) - start


def load_discriminator(run_dir: Path, known: Mapping[str, Any] | None = None) -> TrainedDiscriminator:
    """That of the newest whole checkpoint of a run, which is only read. All processes call it, and rank 0 reads.

    known: components that its config may call, default the library's.

    Raises:
        ValueError: if the run has no config that can be read, no whole checkpoint, or one that does not fit.
    """

    def read() -> tuple[Weights, int, ImageSpec]:
        found = newest_whole(run_dir / "checkpoints")
        if found is None:
            raise ValueError(
                f"{run_dir / 'checkpoints'} holds no whole checkpoint to take the discriminator from: give a run that "
                "has saved one, or restore it from a backup"
            )
        path, weights, state = found
        if state.get("spec") is None:
            raise ValueError(f"{path} does not say of what data its networks are: an earlier version has written it")
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
    """A discriminator of these settings with these weights and buffers; torch's own randomness stays as it was."""
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


def finite(found: Tensor, what: str) -> Tensor:
    """Raises ValueError if a number is NaN or Inf."""
    if not found.isfinite().all():
        raise ValueError(f"the discriminator answers with {what} that are NaN or Inf: the run has diverged")
    return found
