"""The start of a run: networks of another run, and the run's checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from equipoise.compute.distributed import from_rank_0, world_size
from equipoise.compute.pieces import count_pieces
from equipoise.core.misfits import first_of, misfits
from equipoise.rules import EMA, FreezeD
from equipoise.runs import Checkpoints, exist, finished, newest_whole

from .gan import GAN

__all__ = ["load_networks", "require_shares", "saved", "started"]


def load_networks(start: FreezeD, nets: Mapping[str, nn.Module]) -> None:
    """Load weights and buffers of `nets` ("G", "D", "ema") from the newest intact checkpoint of the run `start.run`.

    The run is only read. A damaged checkpoint stays in place, with a warning on stderr, and the previous one is used.

    Raises:
        ValueError: if no checkpoint of the run is intact, or its networks do not fit. `nets` are then unchanged.
    """
    path, weights = from_rank_0(lambda: newest_networks(Path(start.run)))
    for name, net in nets.items():
        wrong = misfits(weights.get(name, {}), net.state_dict())
        if wrong:
            raise ValueError(
                f"{name} of {path} does not fit this config's {name}: {first_of(wrong)}. Take generator, "
                f"discriminator, head and normalisers from {Path(start.run) / 'config.txt'}, and data of the same "
                "resolution, channels and number of classes."
            )
    for name, net in nets.items():
        net.load_state_dict(weights[name])


def newest_networks(run: Path) -> tuple[Path, dict[str, dict[str, Tensor]]]:
    """The newest intact checkpoint of a run: its path, and its weights by network."""
    folder = run.expanduser() / "checkpoints"
    newest = newest_whole(folder)
    if newest is not None:
        return newest[:2]
    damaged = f"every checkpoint in {folder} is damaged"
    state = damaged if finished(folder) else f"there is no checkpoint in {folder}"
    raise ValueError(
        f"cannot start from the run {run}: {state}. Give the directory of a run that has saved one, "
        'such as start=FreezeD(run="runs/a").'
    )


def require_shares(gan: GAN) -> None:
    """Raises ValueError if a batch of the run cannot be split evenly among the processes, or into pieces."""
    cfg = gan.cfg
    for size in gan.stages.batch_sizes:
        if size % world_size():
            raise ValueError(f"batch_size={size} must be a multiple of the {world_size()} processes")
        for images in (size, size * cfg.g_batches):
            count_pieces(images // world_size(), cfg.compute.micro_batch)


def started(gan: GAN, folder: Path) -> tuple[EMA, bool]:
    """The average of G, and whether the networks were just loaded from another run."""
    start = gan.cfg.start
    if start is None:
        return gan.cfg.ema.build(gan.G), False
    ema = replace(gan.cfg.ema, rampup=None).build(gan.G)
    if exist(folder):
        return ema, False
    load_networks(start, {"G": gan.G, "D": gan.D, "ema": ema.model})
    gan.remember()
    return ema, True


def saved(gan: GAN, ema: EMA, folder: Path) -> Checkpoints:
    """The checkpoints of a run. They hold everything that a resumed run needs."""
    nets: dict[str, nn.Module] = {"G": gan.G, "D": gan.D, "ema": ema.model, "augment": gan.augment}
    nets |= {"D_terms": nn.ModuleList(gan.memories("D")), "G_terms": nn.ModuleList(gan.memories("G"))}
    if gan.showing.pool is not None:
        nets["pool"] = gan.showing.pool
    optimizers: dict[str, torch.optim.Optimizer] = {"G": gan.g_optim, "D": gan.d_optim}
    return Checkpoints(folder, nets=nets, optimizers=optimizers, keep=gan.cfg.report.keep, spec=gan.spec)
