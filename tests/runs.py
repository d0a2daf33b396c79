"""What a run left behind, and whether one that was cut in the middle leaves the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from equipoise.config import override
from equipoise.train import train


def newest(run_dir: Path) -> Path:
    return max(path for path in (run_dir / "checkpoints").iterdir() if path.name.isdigit())


def saved(run_dir: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(newest(run_dir) / f"{name}.safetensors")


def lines(run_dir: Path):
    return [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def assert_same_run(a, b, names=("G", "D", "ema")):
    """Two runs ended with the same weights, bit for bit."""
    for name in names:
        assert same(saved(a, name), saved(b, name)), name


def assert_resumes(cfg, tmp_path, names=("G", "D", "ema")):
    """A run that lost what it did after its middle ends as the uninterrupted one, bit for bit."""
    cfg = override(cfg, {"report.snapshot_kimg": cfg.total_kimg / 2, "report.keep": 2})
    train(cfg, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(newest(tmp_path / "cut"))
    assert newest(tmp_path / "cut").name < newest(tmp_path / "whole").name
    train(cfg, tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut", names)
