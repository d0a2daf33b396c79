"""A directory in the making, which outlives the process that was stopped while it wrote there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from equipoise.core.files import replace_file

try:
    import fcntl
except ImportError:  # Windows lacks these locks
    LOCKS = False
else:
    LOCKS = True

__all__ = ["Journal", "unfinished"]

JOURNAL, LOCK = "journal", "lock"


class Journal:
    """Which parts of the work are on disk, a line each, with a checksum: "0 256 3735928559".

    plan: a text that is equal only for equal work, in the first line.
    """

    def __init__(self, folder: Path, plan: str | None):
        self.path = folder / JOURNAL
        self.written: dict[tuple[int, int], int] = {}
        if plan is not None:
            head = json.dumps(plan)
            lines = self.path.read_text("utf-8").splitlines() if self.path.exists() else []
            for line in lines[1:]:
                with suppress(ValueError):  # the last line may be cut short
                    start, stop, checksum = map(int, line.split())
                    self.written[start, stop] = checksum
            replace_file(self.path, "\n".join((head, *lines[1:], "")).encode())
        self.kept = plan is not None

    def add(self, start: int, stop: int, checksum: int) -> None:
        if self.kept:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{start} {stop} {checksum}\n")


@contextmanager
def unfinished(out: Path, plan: str | None) -> Iterator[Path]:
    """A directory beside `out`, readable to this user alone, for the block to write in. An error removes it.

    plan: text that is equal only for equal work. A signal then leaves the directory, .OUT.part, to the next call with
        the same plan. Another plan removes it. None: never left.

    Raises:
        ValueError: if another process works there.
    """
    if plan is None:
        with TemporaryDirectory(prefix=f".{out.name}.", suffix=".part", dir=out.parent) as folder:
            yield Path(folder)
        return
    place = out.with_name(f".{out.name}.part")
    place.mkdir(mode=0o700, exist_ok=True)
    with (place / LOCK).open("w") as lock:
        hold(lock.fileno(), out)
        if not same_plan(place / JOURNAL, plan):
            for path in place.iterdir():
                if path.name != LOCK:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        try:
            yield place
        except Exception:
            shutil.rmtree(place)
            raise
        shutil.rmtree(place)


def hold(descriptor: int, out: Path) -> None:
    if LOCKS:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process is writing {out}: wait for it, or choose another directory") from None
        except OSError:  # a file system without locks
            return


def same_plan(journal: Path, plan: str) -> bool:
    try:
        with journal.open(encoding="utf-8") as file:
            return bool(json.loads(file.readline()) == plan)
    except (OSError, ValueError):
        return False
