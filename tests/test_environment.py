"""environment.txt: a block per start, and a warning when a run is resumed with another number of threads."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from runs import assert_same_run
from tiny import recipe

from equipoise.rules import Report
from equipoise.runs import record, threads_before
from equipoise.train import train

CPU = torch.device("cpu")
SHORT = replace(recipe(), total_kimg=0.016, report=Report(snapshot_kimg=0.016))


@pytest.fixture
def threads(monkeypatch):
    """Sets what torch says of its threads."""
    return lambda number: monkeypatch.setattr(torch, "get_num_threads", lambda: number)


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_run_resumed_with_other_threads_warns_once(tmp_path, threads, capsys):
    threads(2)
    train(SHORT, tmp_path)
    assert "warning" not in capsys.readouterr().err
    for number, total, warns in ((2, 0.032, False), (3, 0.048, True), (3, 0.064, False)):
        threads(number)
        train(replace(SHORT, total_kimg=total), tmp_path)
        assert ("warning" in capsys.readouterr().err) == warns
    blocks = (tmp_path / "environment.txt").read_text().split("\n\n")
    assert [line for block in blocks for line in block.split("\n") if line.startswith("threads")] == [
        f"threads: {number}" for number in (2, 2, 3, 3)
    ]


def test_the_warning_names_both_numbers_and_the_way_back(tmp_path, threads, capsys):
    threads(2)
    record(tmp_path, resumed=False, device=CPU)
    threads(1)
    record(tmp_path, resumed=False, device=CPU)  # it starts anew, and repeats nothing
    assert capsys.readouterr().err == ""
    threads(4)
    record(tmp_path, resumed=True, device=CPU)
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {tmp_path} was trained with threads: 1 and resumes with threads: 4.")
    assert "OMP_NUM_THREADS=1" in said


def test_a_gpu_computes_the_same_with_other_threads(tmp_path, threads, capsys, monkeypatch):
    threads(2)
    record(tmp_path, resumed=False, device=CPU)
    threads(1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU number {device.index}")
    record(tmp_path, resumed=True, device=torch.device("cuda", 1))
    assert capsys.readouterr().err == ""
    assert "device: GPU number 1\n" in (tmp_path / "environment.txt").read_text()


DAMAGED = {
    "empty": b"",
    "no text": bytes(range(256)) * 9,
    "no number": b"threads: many\n",
    "no such number": b"threads: " + b"9" * 5000 + b"\n",
    "cut": b"torch: 2\nthreads:",
    "elsewhere": b"command: equipoise threads: 3\n",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_says_nothing_and_stops_nothing(name, tmp_path, threads, capsys):
    (tmp_path / "environment.txt").write_bytes(DAMAGED[name])
    assert threads_before(tmp_path) is None
    threads(5)
    record(tmp_path, resumed=True, device=CPU)
    assert capsys.readouterr().err == ""


def test_of_a_damaged_file_the_last_readable_number_counts(tmp_path):
    (tmp_path / "environment.txt").write_bytes(b"threads: 2\n\n\xff\xfe\x00threads: 7\r\n" * 2 + b"threads: 4\r\n\xff")
    assert threads_before(tmp_path) == 4


def test_no_file_and_no_regular_one_say_nothing(tmp_path):
    assert threads_before(tmp_path) is None
    (tmp_path / "environment.txt").mkdir()
    assert threads_before(tmp_path) is None
    (tmp_path / "environment.txt").rmdir()
    os.mkfifo(tmp_path / "environment.txt")
    assert threads_before(tmp_path) is None


def test_a_resumed_run_reads_past_damage_to_the_same_weights(tmp_path):
    for name in ("whole", "damaged"):
        train(SHORT, tmp_path / name)
    (tmp_path / "damaged" / "environment.txt").write_bytes(DAMAGED["no text"])
    for name in ("whole", "damaged"):
        train(replace(SHORT, total_kimg=0.032), tmp_path / name)
    assert_same_run(tmp_path / "whole", tmp_path / "damaged")
