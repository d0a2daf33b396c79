"""Checkpoints: one directory each, written under a temporary name, flushed, then renamed. The newest few are kept.

    checkpoints/000000064000/   G, D, ema, ... .safetensors   weights and buffers
                                state.pt                      optimisers, nimg, the data's spec; read with weights_only
                                manifest.json                 SHA-256 of each file
    generator/generator.safetensors                           the averaged generator alone, see `generate`

A crash at any moment leaves every earlier checkpoint intact. The manifest reveals a damaged checkpoint.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_weights
from safetensors.torch import save_file
from torch import Tensor, nn

from equipoise.compute.distributed import from_rank_0, max_over_ranks
from equipoise.core.files import flush, read_file, read_json, remove, set_aside, writing
from equipoise.core.types import ImageSpec, RunError

__all__ = ["Checkpoints", "exist", "finished", "newest_whole", "read_checkpoint"]

FORMAT = 1
FORMER = {"D_terms": "d_regularizations", "G_terms": "g_regularizations"}
"""Parts of a checkpoint that earlier versions named otherwise: name -> former name."""
FOLDERS = ("", "checkpoints", "generator", "samples", "best", "best/generator")
"""Folders that a run writes to."""


class Checkpoints:
    """The checkpoints of a run. Rank 0 reads and writes, and broadcasts the state that it reads to the other ranks.

    nets: modules whose `state_dict` is saved, by name.  optimizers: likewise.
    keep: number of newest checkpoints that are kept, or "all".
    keep_every_kimg: the first checkpoint past each multiple of this many thousand images is kept too. None: no others.
    spec: spec of the data that the networks are built for, saved beside them. None saves no spec.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        nets: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        keep: int | Literal["all"] = 2,
        keep_every_kimg: float | None = None,
        spec: ImageSpec | None = None,
    ):
        self.folder, self.nets, self.optimizers = run_dir / "checkpoints", nets, optimizers
        self.keep, self.keep_every_kimg, self.spec = keep, keep_every_kimg, spec
        self.last, self.written = "none yet", -math.inf
        """The newest checkpoint, and when this process wrote it, in seconds of `time.monotonic`."""

    def load_latest(self) -> int:
        """Restore the newest intact checkpoint. Returns its nimg, 0 if there is none.

        A damaged or unreadable checkpoint is renamed to `*.damaged`, with a warning on stderr. The one before is used.

        Raises:
            RunError: if there are checkpoints and all are damaged, or if another process sees a newer checkpoint than
                rank 0. The latter happens if its machine has a disk of its own.
        """
        newest = max((nimg_of(path) for path in finished(self.folder)), default=0)
        if max_over_ranks(newest) > from_rank_0(lambda: newest):
            raise RunError(
                f"rank 0 does not see the newest checkpoint in {self.folder}, but another machine does. Put the run on "
                "a disk that all machines share, or start on the machines as before."
            )
        latest = from_rank_0(self._read_latest)
        if latest is None:
            return 0
        name, weights, state = latest
        try:
            for key, net in self.nets.items():
                net.load_state_dict(weights.get(key, weights.get(FORMER.get(key, ""), {})))
            for key, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][key])
        except (KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
            raise RunError(
                f"{self.folder / name} does not fit the networks, whose code has changed since: {error}. "
                "Restore that code, or start a new run."
            ) from error
        self.last = str(self.folder / name)
        return int(state["nimg"])

    def _read_latest(self) -> tuple[str, dict[str, dict[str, Tensor]], dict[str, Any]] | None:
        newest = newest_whole(self.folder)
        if newest is not None:
            path, weights, state = newest
            for other in finished(self.folder):
                if nimg_of(other) > nimg_of(path) or not other.is_dir():  # damaged, or a stray file
                    with writing(self.folder):
                        aside = set_aside(other)
                    print(f"warning: {other} renamed to {aside.name}", file=sys.stderr)
            return path.name, weights, state
        if finished(self.folder):
            raise RunError(
                f"every checkpoint in {self.folder} is damaged. Restore one from a backup, "
                f"or delete {self.folder} to start the run again."
            )
        return None

    def save(self, nimg: int) -> None:
        """Write a checkpoint, then delete all but those that `keep` and `keep_every_kimg` keep.

        Raises:
            RunError: if it cannot be written; every earlier checkpoint is kept.
        """
        final = self.folder / f"{nimg:012d}"
        if str(final) != self.last:
            from_rank_0(lambda: self._write(final, nimg))
        self.last, self.written = str(final), time.monotonic()

    def _write(self, final: Path, nimg: int) -> None:
        with writing(self.folder, kept=f"The last good checkpoint is {self.last}."):
            self._write_atomically(final, nimg)

    def _write_atomically(self, final: Path, nimg: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{final.name}.tmp"
        for leftover in self.folder.glob(".*.tmp"):
            if is_nimg(leftover.name.removeprefix(".").removesuffix(".tmp")):
                remove(leftover)
        try:
            temporary.mkdir()
            for key, net in self.nets.items():
                if weights := net.state_dict():  # without a state, no file
                    save_weights(weights, temporary / f"{key}.safetensors")
            spec = None if self.spec is None else self.spec.stored
            state = {"format": FORMAT, "nimg": nimg, "spec": spec}
            optimizers = {key: optimizer.state_dict() for key, optimizer in self.optimizers.items()}
            with (temporary / "state.pt").open("wb") as file:  # given a path, torch hides the system's errors
                torch.save(state | {"optimizers": optimizers}, file)
            digests = {path.name: digest(path.read_bytes()) for path in sorted(temporary.iterdir())}
            (temporary / "manifest.json").write_text(json.dumps(digests, indent=1))
            for path in temporary.iterdir():
                flush(path)
            flush(temporary)
            temporary.rename(final)
            flush(self.folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        for old in self._superseded(finished(self.folder)):
            shutil.rmtree(old)

    def _superseded(self, paths: Sequence[Path]) -> list[Path]:
        """The checkpoints among `paths`, oldest first, that need not be kept."""
        if self.keep == "all":
            return []
        old = list(paths[: -self.keep])
        if self.keep_every_kimg is None:
            return old
        every = self.keep_every_kimg * 1000
        passed = [int(nimg_of(path) // every) for path in old]
        return [path for path, now, before in zip(old, passed, [0, *passed], strict=False) if now == before]


def finished(folder: Path) -> list[Path]:
    """The finished checkpoints in `folder`, oldest first. Temporary and damaged ones have other names.

    Raises:
        RunError: if the folder cannot be read. An unreadable folder must not restart the run from nothing.
    """
    try:
        return sorted((path for path in folder.iterdir() if is_nimg(path.name)), key=nimg_of)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"cannot read {folder}: {error.strerror}. Make it readable, or restore it.") from error


def nimg_of(checkpoint: Path) -> int:
    return int(checkpoint.name)


def is_nimg(name: str) -> bool:
    """Whether `name` is a checkpoint's: nimg in twelve digits or more."""
    return name.isascii() and name.isdecimal() and f"{int(name):012d}" == name


def newest_whole(folder: Path) -> tuple[Path, dict[str, dict[str, Tensor]], dict[str, Any]] | None:
    """The newest intact checkpoint in `folder`: its path, its weights by network and its state; None if there is none.

    Each damaged checkpoint that is skipped is named on stderr.
    """
    for path in reversed(finished(folder)):
        try:
            return path, *read_verified(path)
        except (OSError, ValueError) as error:
            print(f"warning: checkpoint {path} is damaged ({error}); trying the one before", file=sys.stderr)
    return None


def read_checkpoint(folder: Path, nimg: int | None = None) -> tuple[Path, dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The checkpoint at `nimg` in `folder`, or the newest intact one: its path, its weights by network, its state.

    Raises:
        ValueError: if there is none. The message lists those that are there.
    """
    paths = finished(folder)
    if nimg is None:
        newest = newest_whole(folder)
        if newest is None:
            raise ValueError(f"{folder} holds no intact checkpoint: give a run that has saved one")
        return newest
    for path in paths:
        if nimg_of(path) == nimg:
            try:
                return path, *read_verified(path)
            except OSError as error:
                raise ValueError(f"checkpoint {path} is damaged: {error}") from None
    there = ", ".join(str(nimg_of(path)) for path in paths) or "none"
    raise ValueError(f"{folder} holds no checkpoint at nimg={nimg}, but these: {there}. Keep more with report.keep=all")


def exist(run_dir: Path) -> bool:
    """Whether the run has saved a checkpoint."""
    return from_rank_0(lambda: bool(finished(run_dir / "checkpoints")))


def save_weights(weights: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write `weights` to a safetensors file, from any device and any memory layout."""
    save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, path, metadata)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_verified(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Weights by network and the state of the checkpoint at `path`.

    Raises:
        OSError, ValueError: if it is damaged, or cannot be read.
        RunError: if it is intact, but in the format of another version.
    """
    expected = read_json(read_file(path / "manifest.json"), "manifest.json")
    if "state.pt" not in expected or not all(Path(name).name == name for name in expected):
        raise ValueError("manifest.json does not list the files of a checkpoint")
    contents = {name: read_file(path / name, sys.maxsize) for name in expected}
    for name, content in contents.items():
        if digest(content) != expected[name]:
            raise ValueError(f"{name} does not match its checksum")
    state = read_state(contents["state.pt"])
    if state["format"] != FORMAT:
        raise RunError(
            f"{path} has format {state['format']}, and this version of equipoise reads format {FORMAT}: use the "
            "version that wrote it"
        )
    if state["nimg"] != nimg_of(path):
        raise ValueError(f"its state belongs to nimg={state['nimg']}")
    try:
        weights = {Path(name).stem: load_weights(c) for name, c in contents.items() if name.endswith(".safetensors")}
    except SafetensorError as error:
        raise ValueError(f"its weights cannot be read: {error}") from None
    return weights, state


def read_state(content: bytes) -> dict[str, Any]:
    """Read a state.pt: format and nimg (integers), the data's spec (a dict), and the state of each optimiser.

    Raises:
        ValueError: if the file holds anything else.
    """
    try:
        state: object = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch documents no types, and strange bytes raise many
        raise ValueError(f"state.pt cannot be read: {type(error).__name__}") from error
    kinds = {"format": int, "nimg": int, "optimizers": dict}
    if not isinstance(state, dict) or not all(isinstance(state.get(name), kind) for name, kind in kinds.items()):
        raise ValueError("state.pt does not hold the state of a run")
    spec = state.get("spec")
    if spec is not None and ImageSpec.read(spec) is None:
        raise ValueError("state.pt does not hold a valid spec of the run's data")
    return state
