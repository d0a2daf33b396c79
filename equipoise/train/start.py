"""The start of a run: networks of another run, and the run's checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from equipoise.compute.distributed import from_rank_0, speaks, world_size
from equipoise.compute.pieces import count_pieces
from equipoise.core.misfits import first_of
from equipoise.rules import EMA, Start
from equipoise.runs import Checkpoints, Networks, exist, networks_of

from .gan import GAN

__all__ = ["load_networks", "require_shares", "saved", "started"]


def load_networks(start: Start, nets: Mapping[str, nn.Module], num_classes: int = 0) -> Networks:
    """Load weights and buffers of `nets` ("G", "D", "ema") from `start.run`, and return what it holds.

    The run is only read. A damaged checkpoint stays in place, with a warning on stderr, and the previous one is used.
    If the networks differ in part, stderr tells what was copied and what was not.

    num_classes: of the data that `nets` are built for.

    Raises:
        ValueError: if no checkpoint of the run is intact, its networks do not fit, or a layer of D would be frozen at
            its initial weights. `nets` are then unchanged.
    """
    networks = from_rank_0(lambda: networks_of(start.run))
    path, weights = networks.path, networks.weights
    classes = (0 if networks.spec is None else networks.spec.num_classes, num_classes)
    loaded = {}
    for name, net in nets.items():
        try:
            loaded[name] = start.fitting(weights.get(name, {}), net.state_dict(), classes)
        except ValueError as error:
            raise ValueError(
                f"{name} of {path} does not fit this config's {name}: {error}. Take generator, "
                f"discriminator, head and normalisers from {Path(start.run) / 'config.txt'}, and data of the same "
                "resolution, channels and number of classes; or copy what fits, with start=Transfer(run=...)."
            ) from None
    if "D" in nets:
        require_copied(start, nets["D"], [key for key, value in loaded["D"].items() if value is weights["D"][key]])
    for name, net in nets.items():
        lines = copy_report(weights[name], net.state_dict(), loaded[name])
        if lines and name != "ema" and speaks():
            print("\n".join((f"{name} starts from {path}:", *lines)), file=sys.stderr)
        net.load_state_dict(loaded[name], strict=False)
    return networks


def require_copied(start: Start, D: nn.Module, names: Sequence[str]) -> None:
    """Raises ValueError if a layer of D to be frozen is not among the copied `names`."""
    frozen = {id(parameter) for parameter in start.frozen(D)}
    copied = set(names)
    missing = [name for name, parameter in D.named_parameters() if id(parameter) in frozen and name not in copied]
    if missing:
        raise ValueError(
            f"{start!r} would freeze layers of D at their initial weights, because they were not copied: "
            f"{first_of(missing)}. Set layers=0, or take data and networks whose first layers fit."
        )


def copy_report(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], loaded: Mapping[str, Tensor]) -> list[str]:
    """Lines about a network of which only the weights `loaded` are taken, a line for each kind. Empty if all are."""
    copied = [name for name, value in loaded.items() if value is given[name]]
    initial = [name for name in expected if name not in loaded]
    unused = [name for name in given if name not in expected]
    if len(copied) == len(expected) and not unused:
        return []
    kinds = {
        "copied": copied,
        "adapted to the number of classes": [name for name in loaded if name not in {*copied}],
        "at their initial values, because the shapes differ": [name for name in initial if name in given],
        "at their initial values, because the run has none": [name for name in initial if name not in given],
        "left out, because this network has none": unused,
    }
    return [
        f"  {len(values)} {'weight' if len(values) == 1 else 'weights'} {which}: {layers_of(values)}"
        for which, values in kinds.items()
        if values
    ]


def layers_of(names: Sequence[str], shown: int = 12) -> str:
    """The layers that weights belong to, the first `shown`."""
    layers = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    rest = f" and {len(layers) - shown} more layers" if len(layers) > shown else ""
    return ", ".join(layers[:shown]) + rest


def require_shares(gan: GAN) -> None:
    """Raises ValueError if a batch of the run cannot be split evenly among the processes, or into pieces."""
    cfg = gan.cfg
    for size in gan.stages.batch_sizes:
        if size % world_size():
            raise ValueError(f"batch_size={size} must be a multiple of the {world_size()} processes")
        for images in (size, size * cfg.g_batches):
            count_pieces(images // world_size(), cfg.compute.micro_batch)


def started(gan: GAN, folder: Path) -> tuple[EMA, str | None]:
    """The average of G, and the notice about the licence of networks that were just loaded from another run.

    The notice is empty if the other run has none, and None if nothing was loaded.
    """
    start = gan.cfg.start
    if start is None:
        return gan.cfg.ema.build(gan.G), None
    ema = replace(gan.cfg.ema, rampup=None).build(gan.G)
    if exist(folder):
        return ema, None
    networks = load_networks(start, {"G": gan.G, "D": gan.D, "ema": ema.model}, gan.spec.num_classes)
    gan.remember()
    return ema, networks.notice


def saved(gan: GAN, ema: EMA, folder: Path) -> Checkpoints:
    """The checkpoints of a run. They hold everything that a resumed run needs."""
    nets: dict[str, nn.Module] = {"G": gan.G, "D": gan.D, "ema": ema.model, "augment": gan.augment}
    nets |= {"D_terms": nn.ModuleList(gan.memories("D")), "G_terms": nn.ModuleList(gan.memories("G"))}
    if gan.showing.pool is not None:
        nets["pool"] = gan.showing.pool
    optimizers: dict[str, torch.optim.Optimizer] = {"G": gan.g_optim, "D": gan.d_optim}
    report = gan.cfg.report
    return Checkpoints(
        folder,
        nets=nets,
        optimizers=optimizers,
        keep=report.keep,
        keep_every_kimg=report.keep_every_kimg,
        spec=gan.spec,
    )
