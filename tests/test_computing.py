"""How a step computes is one object, made of settings and a device, which is there or refused before training."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from runs import assert_same_run
from tiny import recipe
from torch import nn
from typer.testing import CliRunner

from equipoise.cli.app import app
from equipoise.compute.computing import Computing
from equipoise.compute.convolutions import Convolutions
from equipoise.compute.distributed import processes, this_device
from equipoise.compute.settings import Compute
from equipoise.config import override
from equipoise.train import train

CPU = torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch):
    """Sets how many GPUs torch says it sees."""

    def see(number):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)

    return see


def test_auto_is_a_gpu_of_its_own_for_each_process_or_the_cpu(gpus, monkeypatch):
    gpus(0)
    assert this_device("auto") == this_device("cpu") == CPU
    gpus(2)
    assert this_device("cpu") == CPU
    for local in (0, 1):
        monkeypatch.setenv("LOCAL_RANK", str(local))
        assert this_device("auto") == this_device("cuda") == torch.device("cuda", local)
        assert this_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("seen", "local", "name", "message"),
    [
        (
            0,
            0,
            "cuda",
            r"compute\.device=cuda: there is no cuda:0 on this machine: .*torch.*\. Give one of cpu$",
        ),
        (2, 0, "cuda:2", r"compute\.device=cuda:2: there is no cuda:2 on this .* Give one of cpu, cuda:0, cuda:1$"),
        (1, 1, "auto", r"compute\.device=auto: there is no cuda:1 on this machine: .* Give one of cpu, cuda:0$"),
        (2, 0, "meta", r"compute\.device=meta: there is no meta"),
    ],
)
def test_a_device_that_is_not_there_is_named(seen, local, name, message, gpus, monkeypatch):
    gpus(seen)
    monkeypatch.setenv("LOCAL_RANK", str(local))
    with pytest.raises(ValueError, match=message):
        this_device(name)


def test_one_gpu_for_all_processes_of_a_machine_is_refused(gpus, monkeypatch):
    gpus(2)
    group = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1", "LOCAL_RANK": "1"}
    for name, value in group.items():
        monkeypatch.setenv(name, value)
    assert this_device("cuda:1") == torch.device("cuda", 1)  # a machine each
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert this_device("cuda") == torch.device("cuda", 1)
    with pytest.raises(ValueError, match=r"compute\.device=cuda:1 is one GPU for all processes .*compute\.device=cuda"):
        this_device("cuda:1")


def test_a_machine_with_gpus_may_be_told_to_use_its_cpu(gpus):
    gpus(2)
    with processes("cpu") as device:
        assert device == CPU


def test_it_is_refused_before_anything_is_written(gpus, tmp_path):
    gpus(0)
    with pytest.raises(ValueError, match="there is no cuda:3"):
        train(override(recipe(), {"compute.device": "cuda:3"}), tmp_path / "run")
    said = CliRunner().invoke(app, ["train", "quickstart", str(tmp_path / "run"), "compute.device=cuda:3"])
    assert (said.exit_code, "there is no cuda:3" in said.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_torch_does_not_know_is_no_device():
    with pytest.raises(ValueError, match=r"compute\.device='gpu' is not a torch device: give auto, cpu, cuda, one GPU"):
        override(recipe(), {"compute.device": "gpu"})


def test_a_run_may_be_resumed_on_another_device(tmp_path):
    train(recipe(), tmp_path / "whole")
    train(replace(recipe(), total_kimg=recipe().total_kimg / 2), tmp_path / "cut")
    train(override(recipe(), {"compute.device": "cpu"}), tmp_path / "cut")
    assert "device='cpu'" in (tmp_path / "cut" / "config.txt").read_text()
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    with pytest.raises(ValueError, match=r"another config.*\n.*compute\.precision: 'float32' -> 'bf16'"):
        train(override(recipe(), {"compute.precision": "bf16"}), tmp_path / "cut")


# ---- the contexts --------------------------------------------------------------------------------------------


def test_by_default_nothing_is_in_the_way():
    net, x = nn.Conv2d(1, 2, 3), torch.randn(2, 1, 5, 5)
    computing = Computing(Compute(), CPU)
    computing.compile(net)
    with computing.step(), computing.loss():
        y = net(x)
    with computing.step(), computing.penalty():
        again = net(x)
    assert computing.images(y) is y
    assert torch.equal(y, net(x))
    assert torch.equal(again, y)


def test_each_part_of_a_step_has_its_context():
    """In somebody's own loop: bfloat16 in the loss alone, measured convolutions in all of the step."""
    net, x = nn.Conv2d(1, 2, 3), torch.randn(2, 1, 5, 5)
    computing = Computing(Compute(precision="bf16", convolutions="measured"), CPU)
    assert isinstance(computing.convolutions, Convolutions)
    with computing.step():
        with computing.loss():
            y = net(x)
        with computing.penalty():
            of_penalty = net(x)
            assert computing.convolutions.of_inputs
        assert not computing.convolutions.of_inputs
    assert (y.dtype, computing.images(y).dtype, of_penalty.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    assert [call.split()[-2] for call in computing.convolutions.chosen] == ["bfloat16", "float32"]


def test_auto_is_float32_until_something_is_measured():
    assert Computing(Compute(precision="auto"), CPU).precision == "float32"
    assert Computing(Compute(precision="tf32"), CPU).precision == "tf32"
