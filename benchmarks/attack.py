"""An attack on the command line: killed runs, damaged files, hostile input, full disks, dead terminals.

    OMP_NUM_THREADS=1 python -m benchmarks.attack --jobs 2 --out attack.json

Every case ends in one of these ways. The first four are right:

- *same*: the command did its work, and left bit for bit the files of an undisturbed run;
- *done*: it did its work, and there is nothing to compare with;
- *one line*: it ended with exit code 1 or 2 and a message;
- *stopped*: it was asked to stop, and did so with the exit code 128 + signal;
- *traceback*, *crash* (a signal that nobody sent), *hang* (30 s), *different* (a silent difference), *litter*.

The exit code is 1 if one of the last five occurred. Equal --seed gives equal campaigns, except where a clock decides.
`--keep FOLDER` keeps the files of the cases that went wrong.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np

from .hostile import DAMAGES, INPUTS, damaged, make_input, override
from .report import machine, markdown
from .victims import PATIENCE, Ended, Victim, descendants, fingerprint, full_after, killed_at, litter, refused_at

__all__ = ["CAMPAIGNS", "Case", "main"]

RIGHT = ("same", "done", "one line", "stopped")
WRONG = ("traceback", "crash", "hang", "different", "litter")
MEMORY = 3 * 2**30
"""Bytes of address space that a command may use for hostile input, in addition to its imports."""

SHORT = ["batch_size=16", "total_kimg=0.32", "report.snapshot_kimg=0.08", "report.log_kimg=0.04"]
NARROW = [*SHORT, "generator.width=4", "discriminator.width=4", "generator.z_dim=8"]
KINDS: Mapping[str, list[str]] = {
    "plain": ["quickstart", *NARROW],
    "ADA": ["ada", *NARROW, "augment.kimg=1"],
    "growth": [
        "progan_small", *SHORT, "generator.width=4", "discriminator.width=4", "generator.z_dim=8",
        "growth=ProgressiveGrowing(initial=4,stable_kimg=0.06,fade_kimg=0.08)",
    ],
    "evaluation": [
        "quickstart", *NARROW, "report.evaluation=Evaluate(every_kimg=0.08,num=100,features=digits,metrics=[frechet])",
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """An attack and its outcome. name: the attack.  outcome: in `RIGHT` or `WRONG`.  said: the end of the output."""

    name: str
    outcome: str
    said: str = ""
    seconds: float = 0.0


def case(name: str, ended: Ended, same: bool | None = None, left: Sequence[str] = ()) -> Case:
    """Classify an ended command. same: whether it left the right files; None if there is nothing to compare with."""
    outcome = ended.outcome
    if outcome == "finished":
        outcome = "done" if same is None else "same" if same else "different"
    elif outcome == "killed":
        outcome = "crash"
    if outcome in RIGHT and left:
        outcome = "litter"
    said = ", ".join(left) if outcome == "litter" else ended.said[-2000:]
    return Case(name, outcome, said, ended.seconds)


class Workshop:
    """A folder for all cases: it holds undisturbed runs, and a new folder for each case."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.seed = folder, seed

    def undisturbed(self, kind: str) -> Path:
        return self.folder / "undisturbed" / kind

    def train(self, kind: str, run_dir: Path, *more: str, before: Callable[[], None] = lambda: None) -> Victim:
        return Victim(["train", *self.command(kind, run_dir), *more], run_dir.with_suffix(".log"), before)

    def command(self, kind: str, run_dir: Path) -> list[str]:
        recipe, *changes = KINDS[kind]
        return [recipe, str(run_dir), *changes]

    def prepare(self, kind: str) -> float:
        """Train the undisturbed run of a kind, and a copy of it on to 0.36 kimg. Returns the seconds of the first."""
        run_dir = self.undisturbed(kind)
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        first = finished(self.train(kind, run_dir).end(patience=300))
        longer = run_dir.with_name(f"{kind} longer")
        shutil.copytree(run_dir, longer)
        finished(self.train(kind, longer, "total_kimg=0.36").end(patience=300))
        return first.seconds


def finished(ended: Ended) -> Ended:
    """Return `ended`. Raises RuntimeError if this command, which nobody attacked, did not finish."""
    if ended.outcome != "finished":
        raise RuntimeError(f"an undisturbed command ended with {ended.code}:\n{ended.said[-2000:]}")
    return ended


Task = Callable[[Path], list[Case]]
"""Cases that happen in an empty folder of their own."""

# ---- campaigns: each yields tasks ------------------------------------------------------------------------


def kills(shop: Workshop, count: int) -> Iterator[Task]:
    """Kill a run twice with `kill -9`, just before an operation on files or at any moment. Then finish the run."""
    for i in range(count):
        yield partial(killed_twice, shop, list(KINDS)[i % len(KINDS)], i)


def killed_twice(shop: Workshop, kind: str, number: int, folder: Path) -> list[Case]:
    chance, run_dir = random.Random(f"kill {shop.seed} {number}"), folder / "run"
    moments = []
    for _ in range(2):
        if number // len(KINDS) % 2:
            moments.append("any moment")
            run = shop.train(kind, run_dir)
            run.after(chance.uniform(0.1, 2.5), signal.SIGKILL)
        else:
            at = chance.randrange(100)
            moments.append(f"operation {at}")
            run = shop.train(kind, run_dir, before=killed_at(at, run_dir))
        run.end(patience=120)
    return [compared(shop, kind, run_dir, f"{kind}: {', then '.join(moments)}")]


def compared(shop: Workshop, kind: str, run_dir: Path, name: str) -> Case:
    """Finish a run and compare it with the undisturbed one."""
    ended = shop.train(kind, run_dir).end(patience=120)
    return case(name, ended, alike(run_dir, shop.undisturbed(kind)), litter(run_dir))


def alike(run_dir: Path, undisturbed: Path) -> bool:
    """Whether a run left all files of an undisturbed one. A run that was asked to save has one more grid."""
    return fingerprint(run_dir).items() >= fingerprint(undisturbed).items()


def signals(shop: Workshop, count: int) -> Iterator[Task]:
    """Send SIGTERM, SIGINT, SIGHUP, SIGXCPU or SIGUSR1 at any moment. Then finish the run."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU, signal.SIGUSR1)
    for i in range(count):
        yield partial(signalled, shop, list(KINDS)[i % len(KINDS)], numbers[i % len(numbers)], i)


def signalled(shop: Workshop, kind: str, number: int, i: int, folder: Path) -> list[Case]:
    chance, run_dir = random.Random(f"signal {shop.seed} {i}"), folder / "run"
    run = shop.train(kind, run_dir)
    while run.running and not (run_dir / "stats.jsonl").exists():  # until training has begun with its handlers
        time.sleep(0.01)
    run.after(time.perf_counter() - run.start + chance.uniform(0, 1), number)
    ended = run.end(patience=120)
    name = f"{kind}: {signal.Signals(number).name}"
    if ended.outcome not in ("finished", "stopped") or (ended.outcome == "stopped" and ended.code != 128 + number):
        return [case(name, ended, same=False)]
    return [compared(shop, kind, run_dir, name)]


def full_disks(shop: Workshop, count: int) -> Iterator[Task]:
    """Refuse space from some operation on files on, or files beyond some size. Then give space again."""
    for i in range(count):
        yield partial(full_disk, shop, list(KINDS)[i % len(KINDS)], i)


def full_disk(shop: Workshop, kind: str, number: int, folder: Path) -> list[Case]:
    chance, run_dir = random.Random(f"disk {shop.seed} {number}"), folder / "run"
    at, size = chance.randrange(120), 2 ** chance.randrange(12, 17)  # the command's output must fit
    before = full_after(size) if number % 4 == 0 else refused_at(at, run_dir)
    name = f"{kind}: " + (f"no file over {size} bytes" if number % 4 == 0 else f"no space from operation {at} on")
    ended = shop.train(kind, run_dir, before=before).end(patience=120)
    refused = case(name, ended, alike(run_dir, shop.undisturbed(kind)))
    return [refused, compared(shop, kind, run_dir, f"{name}, then space")]


def corruptions(shop: Workshop, count: int) -> Iterator[Task]:
    """Damage every file of a run in many ways. Then sample the generator, and resume the run."""
    place = shop.undisturbed("evaluation")
    files = sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())
    pairs = [(file, kind) for kind in [*DAMAGES, "deleted", "a folder", "a loop"] for file in files]
    random.Random(f"files {shop.seed}").shuffle(pairs)
    for i in range(count):
        yield partial(corrupted, shop, *pairs[i % len(pairs)], i)


def corrupted(shop: Workshop, file: str, kind: str, number: int, folder: Path) -> list[Case]:
    chance, run_dir, out = random.Random(f"damage {shop.seed} {number}"), folder / "run", folder / "samples.npz"
    whole = shop.undisturbed("evaluation")
    shutil.copytree(whole, run_dir)
    damaged(run_dir / file, kind, chance)
    name, cases = f"{file}: {kind}", []
    if "generator" in Path(file).parts:
        place = run_dir / "best" if file.startswith("best") else run_dir
        ended = Victim(["sample", str(place), "--num", "4", "--out", str(out)], folder / "sample.log").end()
        cases.append(case(f"sample, {name}", ended, out.exists() and same_images(shop, place.name == "best", out)))
    elif file in ("stats.jsonl", "config.txt"):
        command = ["compare", str(run_dir), str(whole), "--metrics", "none", "--out", str(folder / "compare")]
        cases.append(case(f"compare, {name}", Victim(command, folder / "compare.log").end()))
    ended = shop.train("evaluation", run_dir, "total_kimg=0.36").end(patience=120)
    expected, left = fingerprint(whole.with_name("evaluation longer")), fingerprint(run_dir)
    # A grid is not read and stays damaged. After a best/ was set aside, the best of the later evaluations is chosen.
    unread = (file, "best/") if file.startswith("best/") else (file,) if file.startswith("samples/") else ()
    same = all(left.get(key) == digest for key, digest in expected.items() if not key.startswith(unread))
    return [*cases, case(f"train, {name}", ended, same, litter(run_dir))]


def same_images(shop: Workshop, best: bool, drawn: Path) -> bool:
    """Whether the damaged generator draws the same images as the undamaged one."""
    place = shop.undisturbed("evaluation")
    out = drawn.with_name("expected.npz")
    command = ["sample", str(place / "best" if best else place), "--num", "4", "--out", str(out)]
    finished(Victim(command, drawn.with_name("expected.log")).end())
    with np.load(out) as expected, np.load(drawn) as found:
        return bool((expected["x"] == found["x"]).all())


def inputs(shop: Workshop, count: int) -> Iterator[Task]:
    """Give the command data and generators of strangers, in 3 GiB of memory."""
    for i in range(count):
        yield partial(hostile_input, shop, list(INPUTS)[i % len(INPUTS)], i)


def hostile_input(shop: Workshop, kind: str, number: int, folder: Path) -> list[Case]:
    chance, inside = random.Random(f"input {shop.seed} {number}"), folder / "input"
    inside.mkdir()
    place = make_input(kind, inside / "stranger", chance)
    command = ["data", "prepare", str(place), str(folder / "out")]
    if kind == "generator":
        command = ["sample", str(place), "--num", "2", "--out", str(folder / "out.npz")]
    before = sorted(path.name for path in folder.iterdir())
    ended = Victim(command, folder / "log", memory=MEMORY).end()
    left = {path.name for path in folder.iterdir()} - {*before, "log", "out", "out.npz"}
    return [case(f"{kind} {number}", ended, left=sorted(left))]


def overrides(shop: Workshop, count: int) -> Iterator[Task]:
    """Give settings from a fuzzer, one to three per command, with --dry-run. Every tenth is trained, 10 s at most."""
    for i in range(count):
        yield partial(fuzzed, shop, i)


def fuzzed(shop: Workshop, number: int, folder: Path) -> list[Case]:
    chance = random.Random(f"override {shop.seed} {number}")
    given = [override(chance) for _ in range(chance.randrange(1, 4))]
    dry = [] if number % 10 == 0 else ["--dry-run"]
    command = ["train", *dry, *shop.command("plain", folder / "run"), *given]
    run = Victim(command, folder / "log", memory=MEMORY)
    if not dry:
        run.after(10, signal.SIGTERM)  # a valid setting may ask for a long run
    shown = " ".join(text if len(text) < 60 else f"{text[:50]}... of {len(text)}" for text in given)
    return [case(shown, run.end())]


SIZES = (
    "generator.z_dim=1000000000", "generator.width=100000000", "discriminator.width=100000000",
    "batch_size=1000000000", "batch_size=1000000", "g_batches=100000000", "generator.width=20000",
    "generator=MLPGenerator(depth=1000000000)", "generator=MLPGenerator(width=1000000000)", "g_optim.betas=[1,1]",
    "d_optim.lr=inf", "total_kimg=inf", "total_kimg=1e400", "g_optim.lr=nan", "generator.z_dim=100000000000000000000",
    "compute.micro_batch=1000000000000", "ema.halflife_kimg=inf", "terms=[R1(gamma=inf)]",
    "seed=1000000000000000000000",
)  # fmt: skip


def sizes(shop: Workshop, count: int) -> Iterator[Task]:
    """Train networks and batches of absurd sizes."""
    for i in range(min(count, len(SIZES))):
        yield partial(absurd, shop, SIZES[i])


def absurd(shop: Workshop, given: str, folder: Path) -> list[Case]:
    command = ["train", *shop.command("plain", folder / "run"), given]
    return [case(given, Victim(command, folder / "log", memory=MEMORY).end())]


def pairs(shop: Workshop, count: int) -> Iterator[Task]:
    """Start two processes on one directory at the same time, for a new run or to resume one."""
    for i in range(count):
        yield partial(two_at_once, shop, list(KINDS)[i % len(KINDS)], i)


def two_at_once(shop: Workshop, kind: str, number: int, folder: Path) -> list[Case]:
    chance, run_dir = random.Random(f"pair {shop.seed} {number}"), folder / "run"
    if number % 2:
        killed = shop.train(kind, run_dir)
        killed.after(2.0, signal.SIGKILL)
        killed.end(patience=120)
    command = ["train", *shop.command(kind, run_dir)]
    first = Victim(command, folder / "first.log")
    time.sleep(chance.choice([0, 0, 0.1, 1.0]))
    second = Victim(command, folder / "second.log")
    ended = [run.end(patience=120) for run in (first, second)]
    whole = alike(run_dir, shop.undisturbed(kind))
    one = any(e.outcome == "finished" for e in ended)
    return [case(f"{kind}, {which}", e, whole and one) for which, e in zip(("first", "second"), ended, strict=True)]


TERMINALS = ("closed", "full", "a dead reader", "a dead screen")
COMMANDS = ("train", "train --dry-run", "recipes", "sample")


def terminals(shop: Workshop, count: int) -> Iterator[Task]:
    """Close both outputs, or lead them to a full disk, a pipe that nobody reads, a dead screen; in real processes."""
    ways = [(terminal, command) for command in COMMANDS for terminal in TERMINALS]
    for i in range(min(count, len(ways))):
        yield partial(dead_terminal, shop, *ways[i])


def dead_terminal(shop: Workshop, terminal: str, name: str, folder: Path) -> list[Case]:
    run_dir = folder / "run"
    command = [sys.executable, "-m", "equipoise", *name.split()]
    if name.startswith("train"):
        command += shop.command("plain", run_dir)
    elif name == "sample":
        command += [str(shop.undisturbed("plain")), "--num", "4", "--out", str(folder / "samples.npz")]
    start = time.perf_counter()
    try:
        code: int | None = onto(terminal, command).wait(120)
    except subprocess.TimeoutExpired:
        code = None
    said = "error" if code == 1 and name == "train --dry-run" else ""  # its only result is the text
    ended = Ended(code, said, time.perf_counter() - start)
    same = alike(run_dir, shop.undisturbed("plain")) if name == "train" else None
    return [case(f"{name}, {terminal}", ended, same)]


def onto(terminal: str, command: list[str]) -> subprocess.Popen[bytes]:
    """Start a command whose terminal is dead."""
    if terminal == "closed":
        return subprocess.Popen(["/bin/sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command])
    if terminal == "full":
        with Path("/dev/full").open("wb") as full:
            return subprocess.Popen(command, stdout=full, stderr=full)
    reader, writer = os.pipe() if terminal == "a dead reader" else os.openpty()
    process = subprocess.Popen(command, stdout=writer, stderr=writer)
    os.close(writer)
    os.close(reader)
    return process


def several_processes(shop: Workshop, count: int) -> Iterator[Task]:
    """Kill two processes under torchrun at any moment, start them again, and compare with an undisturbed run."""
    for i in range(count):
        yield partial(torchrun_killed, shop, i)


def torchrun(shop: Workshop, run_dir: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    command += ["equipoise", "train", *shop.command("plain", run_dir)]
    with run_dir.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def torchrun_killed(shop: Workshop, number: int, folder: Path) -> list[Case]:
    chance, run_dir = random.Random(f"torchrun {shop.seed} {number}"), folder / "run"
    whole = folder / "whole"
    torchrun(shop, whole).wait(300)
    start = time.perf_counter()
    killed = torchrun(shop, run_dir)
    try:
        killed.wait(chance.uniform(6, 25))
    except subprocess.TimeoutExpired:
        for pid in (killed.pid, *descendants(killed.pid)):
            os.kill(pid, signal.SIGKILL)
        killed.wait()
    torchrun(shop, run_dir).wait(300)
    said = run_dir.with_suffix(".log").read_text(errors="replace")
    # gloo may abort when its processes exit, after the work is done: so the files decide.
    same = alike(run_dir, whole) and len(fingerprint(whole)) > 0
    return [case(f"kill {number}", Ended(0, said, time.perf_counter() - start), same, litter(run_dir))]


Campaign = Callable[[Workshop, int], Iterator[Task]]
CAMPAIGNS: Mapping[str, tuple[Campaign, int]] = {
    "kills": (kills, 50),
    "torchrun": (several_processes, 4),
    "signals": (signals, 20),
    "full disks": (full_disks, 40),
    "corruptions": (corruptions, 200),
    "hostile inputs": (inputs, 300),
    "fuzzed overrides": (overrides, 500),
    "absurd sizes": (sizes, len(SIZES)),
    "pairs": (pairs, 9),
    "dead terminals": (terminals, len(TERMINALS) * len(COMMANDS)),
}
"""Campaigns by name, each with its number of tasks."""

# ---- carrying out ----------------------------------------------------------------------------------------


def carry_out(task: Task, folder: Path, keep: Path | None) -> list[Case]:
    """Carry out a task in a new folder. The folder is removed afterwards, or moved into `keep` if a case went wrong."""
    place = Path(tempfile.mkdtemp(dir=folder))
    cases = task(place)
    if keep is not None and any(ended.outcome in WRONG for ended in cases):
        shutil.move(place, keep / place.name)
        (keep / place.name / "cases.json").write_text(json.dumps([asdict(ended) for ended in cases], indent=1))
    shutil.rmtree(place, ignore_errors=True)
    return cases


def table(campaigns: Mapping[str, Sequence[Case]]) -> str:
    """A table with a row for each campaign: the outcomes of its cases."""
    rows = []
    for name, cases in campaigns.items():
        counts = Counter(ended.outcome for ended in cases)
        longest = max((ended.seconds for ended in cases), default=0)
        rows.append([name, str(len(cases)), *(str(counts[outcome]) for outcome in (*RIGHT, *WRONG)), f"{longest:.1f}"])
    return markdown(["campaign", "cases", *RIGHT, *WRONG, "longest, s"], rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(CAMPAIGNS), default=list(CAMPAIGNS))
    parser.add_argument("--share", type=float, default=1.0, help="share of each campaign's cases, at least two")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="folder for the files of cases that went wrong")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    args = parser.parse_args(arguments)
    if args.keep is not None:
        args.keep.mkdir(parents=True, exist_ok=True)

    for module in ("cli.app", "evaluate", "generate", "train"):  # imported here, so that forks need not
        import_module(f"equipoise.{module}")

    found: dict[str, list[Case]] = {}
    with tempfile.TemporaryDirectory() as folder, pool(args.jobs) as workers:
        shop = Workshop(Path(folder), args.seed)
        list(workers.map(shop.prepare, KINDS))
        for name in args.only:
            campaign, count = CAMPAIGNS[name]
            tasks = list(campaign(shop, max(round(args.share * count), 2)))
            start, found[name] = time.perf_counter(), []
            work = partial(carry_out, folder=Path(folder), keep=args.keep)
            for i, cases in enumerate(workers.map(work, tasks), 1):
                found[name] += cases
                for one in cases:
                    if one.outcome in WRONG:
                        print(f"{name}: {one.outcome}: {one.name}\n    {one.said[-300:]!r}", flush=True)
                if i % 20 == 0 or i == len(tasks):
                    print(f"{name}: {i}/{len(tasks)} in {time.perf_counter() - start:.0f} s", flush=True)
    print(f"\nPatience {PATIENCE:g} s, seed {args.seed}.\n\n{table(found)}")
    if args.out:
        settings = {name: value for name, value in vars(args).items() if name not in ("out", "keep")}
        ended = {name: [asdict(one) for one in ones] for name, ones in found.items()}
        args.out.write_text(json.dumps({"machine": machine(), "settings": settings, "cases": ended}, indent=1) + "\n")
    sys.exit(any(one.outcome in WRONG for cases in found.values() for one in cases))


def pool(jobs: int) -> ProcessPoolExecutor:
    """Workers forked from this process: they have imported everything."""
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("fork"))


if __name__ == "__main__":
    main()
