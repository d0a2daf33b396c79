"""The first lines of a run: its data, networks, device and length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import nn

from equipoise.compute.described import described
from equipoise.compute.distributed import rank, world_size
from equipoise.config import TrainConfig
from equipoise.core.grammar import changed
from equipoise.core.types import ImageSpec
from equipoise.data import Dataset
from equipoise.runs.progress import tell

from .gan import GAN

__all__ = ["facts", "open_with"]


def open_with(gan: GAN, dataset: Dataset, held_out: Dataset | None, nimg: int, folder: Path) -> None:
    """Print the first lines of a run on stderr, on rank 0. The expected time follows when it has been measured."""
    if rank() == 0:
        tell(facts(gan, dataset, held_out, nimg, folder))


def facts(gan: GAN, dataset: Dataset, held_out: Dataset | None, nimg: int, folder: Path) -> Mapping[str, str]:
    """The first lines of a run, by label.

    dataset: the pictures that D is trained on.  held_out: others, or None.
    """
    cfg = gan.cfg
    several = f", {world_size()} processes" if world_size() > 1 else ""
    begun = "" if nimg == 0 else f", {nimg / 1000:g} of them done"
    by_rule = ", ".join(ruled(cfg, dataset.spec))
    return {
        "data": about_data(cfg, dataset, 0 if held_out is None else len(held_out)),
        "G": f"{type(cfg.generator).__name__}, {parameters(gan.G)} parameters",
        "D": f"{type(cfg.discriminator).__name__}, {parameters(gan.D)} parameters",
        "device": described(gan.compute.device) + several,
        **({"by rule": by_rule} if by_rule else {}),
        "length": f"{cfg.total_kimg:g} kimg in batches of {cfg.batch_size}{begun}",
        "pictures": f"{folder / 'samples'}: real.png, and grids of G from now on",
    }


def ruled(cfg: TrainConfig, spec: ImageSpec) -> Iterator[str]:
    """Numbers that follow from the images and the batch: "terms.0.gamma=0.3" for `ByResolution`."""
    for i, term in enumerate(cfg.terms):
        for name, _, number in changed(term, term.for_data(spec, cfg.batch_size)):
            yield f"terms.{i}.{name}={number:.3g}"


def about_data(cfg: TrainConfig, dataset: Dataset, held_out: int) -> str:
    spec, count = dataset.spec, len(dataset)
    kinds = {1: "grey", 3: "colour"}
    parts = [
        f"{count:,} {'picture' if count == 1 else 'pictures'}",
        f"{spec.size} {kinds.get(spec.channels, f'of {spec.channels} channels')}",
    ]
    if spec.num_classes:
        parts.append(f"{spec.num_classes} classes{'' if uses_classes(cfg, spec) else ' that this recipe does not use'}")
    if cfg.data.mirror:
        parts.append("each also mirrored")
    if held_out:
        parts.append(f"{held_out:,} more held out of training")
    return ", ".join(parts)


def uses_classes(cfg: TrainConfig, spec: ImageSpec) -> bool:
    """Whether G or D reads the classes of the data, or D learns them."""
    conditioning = cfg.head.conditioning
    to_d = conditioning.reads_labels or conditioning.classifies is not None
    return to_d or cfg.spec_of_g(spec).num_classes > 0


def parameters(net: nn.Module) -> str:
    """The number of weights in words: "912", "45,678", "1.2 M"."""
    count = sum(p.numel() for p in net.parameters())
    return f"{count:,}" if count < 10**6 else f"{count / 1e6:.3g} M" if count < 10**9 else f"{count / 1e9:.3g} G"
