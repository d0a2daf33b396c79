"""The best generator of a run so far, in best/, with its evaluation."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equipoise.core.files import read_file, read_json, replace_file, set_aside, writing
from equipoise.core.tensorfile import unpack
from equipoise.evaluate import Evaluation
from equipoise.generate import Generator, save_generator
from equipoise.generate.generator import IN_RUN

__all__ = ["Best"]


class Best:
    """The best generator of a run. folder: where it is kept.  deciding: name of the number that decides."""

    def __init__(self, folder: Path, deciding: str):
        self.folder, self.deciding = folder, deciding

    def keep(self, generator: Generator, found: Evaluation, nimg: int, last_checkpoint: str) -> None:
        """Write `generator` and its evaluation `found`, if it is better than the kept one."""
        if not self.better(found):
            return
        with writing(self.folder, kept=f"The last good checkpoint is {last_checkpoint}."):
            save_generator(generator, self.folder / IN_RUN)
            about = {"nimg": nimg, "best": self.deciding} | found.report
            replace_file(self.folder / "evaluation.json", (json.dumps(about, indent=1) + "\n").encode())

    def better(self, found: Evaluation) -> bool:
        """Whether `found` is better than the evaluation in best/, or was measured with other settings.

        If the report or the generator in best/ is damaged, best/ is set aside, with a warning on stderr.
        """
        name, path = self.deciding, self.folder / "evaluation.json"
        if not path.exists():
            return True
        try:
            unpack(self.folder / IN_RUN)
            kept = read_json(read_file(path), path.name)
            if scale(kept, name) != scale(json.loads(found.json()), name):
                return True
            old, new = (number(report, name) for report in (kept, found.report))
            if not math.isfinite(old["value"]):
                raise ValueError(f"its {name} is {old['value']}")
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, StopIteration) as error:
            reason = error if isinstance(error, OSError | ValueError) else f"{path.name} is not a report"
            with writing(self.folder):
                aside = set_aside(self.folder)  # an intact generator may be the best so far
            print(
                f"warning: {self.folder} renamed to {aside.name}, and the best is chosen anew: {reason}",
                file=sys.stderr,
            )
            return True
        return bool(new["value"] < old["value"] if new["better"] == "lower" else new["value"] > old["value"])


def scale(report: Mapping[str, Any], name: str) -> list[Any]:
    """Everything that a number of a report depends on, besides the generator."""
    settings = [metric["settings"] for metric in report["metrics"].values() if name in metric["numbers"]]
    return [settings, report["images"]["num"], *(report[key] for key in ("against", "seed", "features"))]


def number(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A number of a report, by its name."""
    entry: Mapping[str, Any] = next(m["numbers"][name] for m in report["metrics"].values() if name in m["numbers"])
    return entry
