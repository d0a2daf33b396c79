"""Tell whether a change moved a digit: record the results of short runs before it, and compare them after.

    python scripts/bit_for_bit.py record before.json
    python scripts/bit_for_bit.py compare before.json

Fifteen recipes are trained for 2 kimg, with narrow networks. Every config of the covering arrays of the composition
tests takes three steps of both players. A record holds the statistics, and the SHA-256 of each tensor that a run keeps.
So renaming modules or fields of configs does not count as a difference. All numbers come from one thread: record and
compare on the same machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from equipoise import recipes
from equipoise.config import override
from equipoise.train import train

__all__ = ["main"]

NARROW: dict[str, Any] = {"generator.width": 4, "discriminator.width": 4, "total_kimg": 2.0}
RECIPES: dict[str, dict[str, Any]] = {
    "quickstart": {},
    "sngan_digits": {},
    "san_digits_conditional": {},
    "dcgan_digits": {},
    "wgan": {},
    "wgan_gp": {},
    "r1_gan": {},
    "r3gan": {},
    "acgan": {},
    "ada": {"augment.kimg": 4.0},
    "improved_gan": {},
    "sngan_resnet_small": {},
    "sagan_small": {},
    "biggan_small": {},
    "progan_small": {"growth.stable_kimg": 0.3, "growth.fade_kimg": 0.3},
}
"""Recipe -> overrides under which its characteristic part happens within 2 kimg."""

STEPS = 3
Record = dict[str, str]
"""Computed values by name: numbers as text, tensors as the SHA-256 of their bytes."""


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()


def flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """The tensors and numbers of a state, by path."""
    if isinstance(value, Tensor):
        yield name, digest(value)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from flat(part, f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from flat(part, f"{name}/{i}")
    else:
        yield name, repr(value)


def run(recipe: str) -> Record:
    """Train a recipe, and record its statistics, weights and optimisers."""
    torch.manual_seed(0)
    cfg = override(recipes.load(recipe)[0], NARROW | RECIPES[recipe])
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(cfg, folder)
        record: Record = {}
        for line in (Path(folder) / "stats.jsonl").read_text().splitlines():
            values = json.loads(line)
            numbers = {key: value for key, value in values.items() if key != "images_per_second"}
            record |= flat(numbers, f"stats {values['nimg']}")
        newest = max((Path(folder) / "checkpoints").iterdir())
        for path in (*newest.glob("*.safetensors"), Path(folder) / "generator/generator.safetensors"):
            record |= flat(load_file(path), path.stem)
        state = torch.load(newest / "state.pt", weights_only=True)
        return record | dict(flat(state["optimizers"], "optimizers"))


def steps(case: Mapping[str, str]) -> Record:
    """Take three steps of both players of a config of the covering arrays, and record them."""
    composition = import_module("test_composition")
    cfg = composition.config(case)
    spec = composition.spec_of(type(cfg.generator), type(cfg.discriminator))
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gan = composition.GAN.build(cfg, spec)
    torch.manual_seed(1)
    real = composition.batch(spec=spec)
    held_out = composition.batch(spec=spec) if cfg.augment.held_out else None
    labelled = composition.batch(spec=spec) if cfg.head.conditioning.classifies == "labelled" else None
    record: Record = {}
    for i in range(STEPS):
        gan.augment.at(0)
        nimg = i * cfg.batch_size
        of_d = composition.d_step(gan, real, nimg, held_out, labelled)
        record |= flat(of_d | composition.g_step(gan, real, nimg, labelled), f"stats {i}")
    for player in ("G", "D"):
        record |= flat(getattr(gan, player).state_dict(), player)
    return record


def works() -> dict[str, Callable[[], Record]]:
    """Everything to record, by name."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    composition = import_module("test_composition")
    of_recipes: dict[str, Callable[[], Record]] = {f"recipe {name}": partial(run, name) for name in RECIPES}
    return of_recipes | {
        f"{kind} {i}: {composition.label(case)}": partial(steps, case)
        for kind in composition.ALL_AXES
        for i, case in enumerate(composition.covering(kind))
    }


def place(name: str) -> str:
    """The part of a name before the colon, its place in the list. The rest is for the reader, and may change."""
    return name.partition(":")[0]


def differences(before: Record, after: Record) -> list[str]:
    """The names of entries that differ, or that only one record has."""
    return [name for name in before | after if before.get(name) != after.get(name)]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["record", "compare"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", default="", help="only names that begin with this, such as 'recipe ' or 'mlps'")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    chosen = {name: work for name, work in works().items() if name.startswith(args.only)}
    recorded = json.loads(args.file.read_text()) if args.action == "compare" else {}
    before = {place(name): record for name, record in recorded.items()}
    after, moved = {}, 0
    for i, (name, work) in enumerate(chosen.items(), 1):
        after[name] = work()
        if args.action == "compare" and (changed := differences(before.get(place(name), {}), after[name])):
            moved += 1
            print(f"{name}: {len(changed)} of {len(after[name])} differ, first {', '.join(changed[:3])}", flush=True)
        if i % 25 == 0 or i == len(chosen):
            print(f"{i}/{len(chosen)}", flush=True)
    if args.action == "record":
        args.file.write_text(json.dumps(after, indent=0) + "\n")
        return
    done = set(map(place, after))
    missing = [name for name in recorded if name.startswith(args.only) and place(name) not in done]
    print(f"{len(after) - moved} of {len(after)} equal, bit for bit" + "".join(f"\nmissing: {n}" for n in missing))
    sys.exit(bool(moved or missing))


if __name__ == "__main__":
    main()
