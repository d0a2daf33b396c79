"""One of several processes that train together, as `torchrun` starts it: worker.py RUN_DIR NOTES [RANK NIMG] ....

In the folder NOTES it writes where each of its lives resumed and, at the end, the weights that it holds. RANK kills
itself in D's update at NIMG, as `kill -9` would: the first of them in the first life, the second in the second.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from reference import small

import equipoise.train
from equipoise.config import TrainConfig
from equipoise.losses import R1
from equipoise.rules import Adam
from equipoise.runs import Checkpoints
from equipoise.train import GAN, d_step, train

__all__ = ["cfg"]


def cfg() -> TrainConfig:
    """Networks without batch statistics, a checkpoint after every 10 updates, 30 updates in all."""
    adam = Adam(lr=1e-3, eps=1e-3)  # an element whose gradient is rounding noise stays put
    return small(terms=(R1(every=3),), d_optim=adam, g_optim=adam, total_kimg=0.24, **{"report.snapshot_kimg": 0.08})


def main(run_dir: Path, notes: Path, *deaths: int) -> None:
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    life = len(list(notes.glob(f"resumed.*.{rank}")))  # torchrun's own count may differ between nodes
    built, build, load = [], GAN.build, Checkpoints.load_latest

    def noting_where(checkpoints):
        nimg = load(checkpoints)
        (notes / f"resumed.{life}.{rank}").write_text(str(nimg))
        return nimg

    def dying(gan, batch, nimg, *args):
        if (rank, nimg) == deaths[2 * life : 2 * life + 2]:
            os.kill(os.getpid(), signal.SIGKILL)
        return d_step(gan, batch, nimg, *args)

    GAN.build = lambda *args: built.append(build(*args)) or built[0]
    Checkpoints.load_latest = noting_where
    equipoise.train.loop.d_step = dying
    train(cfg(), run_dir)
    torch.save({x: getattr(built[0], x).state_dict() for x in "GD"}, notes / f"weights.{rank}")
    os._exit(0)  # gloo may abort when a process exits, which torchrun would take for another death


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
