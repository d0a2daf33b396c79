"""A start from the networks of another run, as `FreezeD` asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from equipoise.compute.distributed import from_rank_0
from equipoise.core.misfits import first_of, misfits
from equipoise.rules import FreezeD
from equipoise.runs import finished, newest_whole

__all__ = ["load_networks"]


def load_networks(transfer: FreezeD, nets: Mapping[str, nn.Module]) -> None:
    """Give `nets` ("G", "D", "ema") the weights and buffers of the newest whole checkpoint of the run `transfer.run`.

    The run is only read: a damaged checkpoint stays where it is, with a warning on stderr, and the one before is used.

    Raises:
        ValueError: if the run has no whole checkpoint, or its networks do not fit; then `nets` are as they were.
    """
    path, weights = from_rank_0(lambda: newest_networks(Path(transfer.run)))
    for name, net in nets.items():
        wrong = misfits(weights.get(name, {}), net.state_dict())
        if wrong:
            raise ValueError(
                f"{name} of {path} does not fit this config's: {first_of(wrong)}. Take generator, "
                f"discriminator, head and normalisers from {Path(transfer.run) / 'config.txt'}, and data of the same "
                "resolution, channels and number of classes."
            )
    for name, net in nets.items():
        net.load_state_dict(weights[name])


def newest_networks(run: Path) -> tuple[Path, dict[str, dict[str, Tensor]]]:
    """The newest whole checkpoint of a run: where it is, and its weights by network."""
    folder = run.expanduser() / "checkpoints"
    found = newest_whole(folder)
    if found is not None:
        return found[:2]
    damaged = f"every checkpoint in {folder} is damaged"
    state = damaged if finished(folder) else f"there is no checkpoint in {folder}"
    raise ValueError(
        f"cannot start from the run {run}: {state}. Give the directory of a run that has saved one, "
        'such as transfer=FreezeD(run="runs/a").'
    )
