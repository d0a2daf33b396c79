"""Statistics of a run: averages over a window, reported as JSON lines, to TensorBoard and on the screen.

Values stay on the device until a window is written. Only then does the host wait, and a run with NaN or Inf is stopped.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from PIL import Image
from torch import Tensor, nn

from equipoise.compute.distributed import from_rank_0, mean_over_ranks, rank
from equipoise.core.files import free_name, read_file, replace_file, set_aside, writing
from equipoise.core.types import RunError

from .logs import LARGEST, read_log
from .progress import Progress

__all__ = ["Sink", "Stats", "require_finite"]


class Sink(Protocol):
    """A receiver of a run's reports, such as a tracker of experiments."""

    def scalars(self, values: dict[str, float], nimg: int) -> None:
        """Take the averages of a window that ended after `nimg` images."""

    def image(self, name: str, picture: Image.Image, nimg: int) -> None:
        """Take a picture."""

    def close(self, error: type[BaseException] | None) -> None:
        """End, as the run does: error is the type of the exception that ends it, or None."""


class Stats:
    """Collector of the scalars of every step. `write` averages them since the last write, and rank 0 reports."""

    def __init__(self, run_dir: Path, total_kimg: float, start: int):
        self.path, self.start = run_dir / "stats.jsonl", start
        self.window: dict[str, list[tuple[int, Tensor]]] = defaultdict(list)
        self.since = (time.perf_counter(), start)
        from_rank_0(lambda: self._forget_after(start))
        self.tensorboard = tensorboard_writer(run_dir, start) if rank() == 0 else None
        self.progress = Progress(total_kimg, start) if rank() == 0 else None
        self.joined: set[Hashable] = set()
        self.sinks: dict[Hashable, Sink] = {}
        """On rank 0: receivers of every report, by the key that each has joined with."""

    def join(self, key: Hashable, opened: Callable[[], Sink]) -> None:
        """Report to another receiver from here on, which rank 0 opens. Nothing happens if `key` has joined already."""
        if key not in self.joined:
            self.joined.add(key)
            from_rank_0(lambda: self.sinks.update({key: opened()}))

    def _tell(self, told: Callable[[Sink], None], nimg: int) -> None:
        """Call every receiver. One that fails is left out from here on, with a warning on stderr: the run trains on."""
        for key, sink in list(self.sinks.items()):
            try:
                told(sink)
            except Exception as error:  # packages of others, servers, networks
                del self.sinks[key]
                reason = str(error).strip().partition("\n")[0] or type(error).__name__
                print(
                    f"warning: {key!r} failed at nimg={nimg}: {reason}. The run trains on without it; {self.path.name} "
                    "has all numbers.",
                    file=sys.stderr,
                )

    def __enter__(self) -> Self:
        if self.progress is not None:
            self.progress.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.progress is not None:
            self.progress.close()
        self._tell(lambda sink: sink.close(kind), self.since[1])
        if self.tensorboard is not None:
            with suppress(OSError):  # a full disk: an earlier write has reported it
                self.tensorboard.close()

    def _forget_after(self, nimg: int) -> None:
        """Drop lines that a killed run wrote after its last checkpoint: they are about to be written again.

        Damaged lines move to a file of their own, with a warning on stderr.
        """
        with writing(self.path.parent):
            content = self._content()
            log = read_log(content)
            if log.damaged:
                aside = free_name(self.path)
                replace_file(aside, b"".join(line + b"\n" for line in log.damaged.values()))
                print(f"warning: {log.described()} of {self.path} moved to {aside.name}", file=sys.stderr)
            kept = b"".join(line + b"\n" for line, values in log.intact if values["nimg"] <= nimg)
            if kept != content:
                replace_file(self.path, kept)

    def _content(self) -> bytes:
        """The content of the file; empty if it does not exist. An unreadable file is set aside and counts as empty."""
        if not self.path.exists():
            return b""
        try:
            return read_file(self.path, LARGEST)
        except (OSError, ValueError) as error:
            aside = set_aside(self.path)
            print(f"warning: {self.path} cannot be read ({error}): renamed to {aside.name}", file=sys.stderr)
            return b""

    def add(self, values: dict[str, Tensor], nimg: int) -> None:
        """Remember the scalars of the step that ended after `nimg` images."""
        for name, value in values.items():
            self.window[name].append((nimg, value))

    def write(self, nimg: int, last_checkpoint: str) -> None:
        """Report the averages since the last write.

        Raises:
            RunError: if a value was NaN or Inf. The message names the value, its nimg and the last good checkpoint.
        """
        if not self.window:
            return
        columns = [torch.stack([value.float() for _, value in column]) for column in self.window.values()]
        flat = mean_over_ranks(torch.cat(columns)).cpu()  # the host waits here
        averages, bad = {}, []
        for (name, column), values in zip(self.window.items(), flat.split([len(c) for c in columns]), strict=True):
            finite = values.isfinite()
            if not finite.all():
                first = int((~finite).nonzero()[0])
                bad.append((column[first][0], name, float(values[first])))
            averages[name] = values.mean().item()
        if bad:
            seen, name, number = min(bad, key=lambda found: found[0])
            raise RunError(diverged(f"{name} is {number}", seen, last_checkpoint))
        now, (then, before) = time.perf_counter(), self.since
        self.window.clear()
        self.since = (now, nimg)
        if nimg > before:
            averages["images_per_second"] = (nimg - before) / max(now - then, 1e-9)
        from_rank_0(lambda: self._report(nimg, averages, last_checkpoint))

    def _report(self, nimg: int, averages: dict[str, float], last_checkpoint: str) -> None:
        line = {"nimg": nimg, "kimg": nimg / 1000} | {name: float(f"{value:.6g}") for name, value in averages.items()}
        with writing(self.path.parent, kept=f"The last good checkpoint is {last_checkpoint}."):
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            if self.tensorboard is not None:
                for name, value in averages.items():
                    self.tensorboard.add_scalar(name, value, nimg)
        self._tell(lambda sink: sink.scalars(averages, nimg), nimg)
        if self.progress is not None:
            self.progress.show(nimg, averages)

    def moved(self, nimg: int) -> None:
        """Show that the run is at `nimg`."""
        if self.progress is not None:
            self.progress.move(nimg)

    def say(self, text: str) -> None:
        """Print a warning line on stderr, on rank 0, above the progress bar."""
        if self.progress is not None:
            self.progress.warn(text)

    def image(self, name: str, encoded: bytes, shape: Sequence[int], nimg: int) -> None:
        """Show a picture in TensorBoard, and to every receiver. encoded: its PNG file.  shape: (H, W, C)."""
        if self.sinks:
            picture = Image.open(io.BytesIO(encoded))
            self._tell(lambda sink: sink.image(name, picture, nimg), nimg)
        if self.tensorboard is not None:
            Summary = import_module("tensorboard.compat.proto.summary_pb2").Summary
            height, width, channels = shape
            image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=encoded)
            summary = Summary(value=[Summary.Value(tag=name, image=image)])
            self.tensorboard.file_writer.add_summary(summary, nimg)


def require_finite(nets: dict[str, nn.Module], nimg: int, last_checkpoint: str) -> None:
    """Raise RunError if a weight is NaN or Inf: such a state is never saved as a checkpoint."""
    for net_name, net in nets.items():
        for name, p in net.named_parameters():
            if not p.isfinite().all():
                raise RunError(diverged(f"the weight {net_name}.{name} holds NaN or Inf", nimg, last_checkpoint))


def diverged(what: str, nimg: int, last_checkpoint: str) -> str:
    return (
        f"training diverged: {what} at nimg={nimg}. The last good checkpoint is {last_checkpoint}. "
        "Lower the learning rates, or add a stabiliser (d_normalizer=SpectralNorm, 'terms=[R1]'), in a new run."
    )


def tensorboard_writer(run_dir: Path, start: int) -> Any:
    """A SummaryWriter, or None where TensorBoard is not installed (extra `tensorboard`)."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run_dir), purge_step=start + 1)
