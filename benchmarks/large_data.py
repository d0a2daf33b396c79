"""Memory of a process that trains on a set larger than memory.

    python -m benchmarks.large_data --images 2000000 --out large.json

Small networks train on a prepared set of black images, whose files are one hole (24.6 GB that take some kilobytes of
the disk). The memory is the one that Linux counts as resident: the process's own pages, and pages of files that it has
mapped. It is given before the set is opened, at the end of training, and at the peak.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equipoise.config import TrainConfig
from equipoise.core.types import ImageSpec
from equipoise.data import Images
from equipoise.data.prepared import INFO, describe, plan
from equipoise.models import DCGANDiscriminator, DCGANGenerator
from equipoise.rules import Report
from equipoise.train import train

from .report import machine, markdown

__all__ = ["hollow", "resident"]


class Black:
    """A set that is never read: only its files are made, full of zeros."""

    labels: NDArray[np.int64] | None = None
    slow = False
    class_names: Sequence[str] | None = None

    def __init__(self, length: int, spec: ImageSpec):
        self.length, self.spec = length, spec

    def __len__(self) -> int:
        return self.length

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        raise NotImplementedError


def hollow(folder: Path, length: int, spec: ImageSpec, shard_bytes: float | None) -> int:
    """Make a prepared set of `length` black images. Returns the bytes that it takes on the disk."""
    black = Black(length, spec)
    list(plan(black, folder, shard_bytes))
    (folder / INFO).write_text(json.dumps(describe(black, "black images")))
    return sum(512 * path.stat().st_blocks for path in folder.iterdir())


def resident() -> dict[str, float]:
    """Memory of this process in MB: its own pages, pages of files, and the peak of both together."""
    lines = Path("/proc/self/status").read_text().splitlines()
    words = dict(line.split(":") for line in lines)
    names = {"own": "RssAnon", "files": "RssFile", "most": "VmHWM"}
    return {name: int(words[word].split()[0]) * 1024 / 1e6 for name, word in names.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2_000_000)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--width", type=int, default=4, help="of both networks")
    parser.add_argument("--shard-gb", type=float, default=2.0)
    parser.add_argument("--folder", type=Path, help="place of the set, which is removed in the end")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    args = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        place = Path(folder, "black")
        place.mkdir()
        on_disk = hollow(place, args.images, ImageSpec(args.resolution, 3), args.shard_gb * 1e9)
        kimg = args.iterations * args.batch / 1000
        cfg = TrainConfig(
            data=Images(str(place)),
            generator=DCGANGenerator(width=args.width),
            discriminator=DCGANDiscriminator(width=args.width),
            batch_size=args.batch,
            total_kimg=kimg,
            report=Report(log_kimg=kimg, snapshot_kimg=kimg),
        )
        before, start = resident(), time.perf_counter()
        train(cfg, Path(folder, "run"))
        seconds, after = time.perf_counter() - start, resident()
    size = args.images * 3 * args.resolution**2
    rows = [[when, *(f"{now[name]:.0f}" for name in now)] for when, now in (("before", before), ("after", after))]
    print(f"{args.images} images, {size / 1e9:.1f} GB, of which {on_disk / 1e3:.0f} kB on the disk;", end=" ")
    print(f"{kimg:g} kimg in {seconds:.0f} s")
    print(markdown(["", "own, MB", "of files, MB", "most of both, MB"], rows))
    if args.out:
        settings = {name: value for name, value in vars(args).items() if name not in ("folder", "out")}
        found = {"bytes": size, "bytes_on_disk": on_disk, "seconds": seconds, "before": before, "after": after}
        args.out.write_text(json.dumps({"machine": machine(), "settings": settings} | found, indent=1) + "\n")


if __name__ == "__main__":
    main()
