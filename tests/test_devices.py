"""Devices that are not here: why, in one line; and what they could not do, without having them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from commands import run
from loops import loop_over
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from equipoise import recipes
from equipoise.compute import devices, distributed
from equipoise.compute.devices import fallbacks, missing, wide
from equipoise.compute.distributed import owned
from equipoise.compute.precision import mixed
from equipoise.compute.settings import Compute
from equipoise.config import override
from equipoise.core import files
from equipoise.core.types import Batch, ImageSpec
from equipoise.train import GAN, d_step, g_step
from equipoise.weights.matrices import clip_singular_values, spectral_norms

CPU, META, MPS = torch.device("cpu"), torch.device("meta"), torch.device("mps")


# ---- why a device is missing -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("built", "gpu", "visible", "message"),
    [
        (None, False, None, r"was built without CUDA: install a build with CUDA"),
        (None, True, None, r"was built without CUDA although a GPU of NVIDIA is there: install"),
        ("12.8", True, None, r"CUDA 12\.8\) sees no GPU: does `nvidia-smi` list one\?"),
        ("12.8", True, "", r"sees no GPU, and CUDA_VISIBLE_DEVICES='' hides others"),
    ],
)
def test_cuda_is_missing_for_a_reason(built, gpu, visible, message, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "nvidia_here", lambda: gpu)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(ValueError, match=rf"^compute\.device=cuda: there is no cuda:0 on this machine: .*{message}"):
        distributed.this_device("cuda")


def test_the_command_says_it_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = run("train", "quickstart", tmp_path / "run", "compute.device=cuda", code=2)
    assert len(said.strip().splitlines()) == 1
    assert "compute.device=cuda: there is no cuda:0 on this machine" in said
    assert not (tmp_path / "run").exists()


def test_mps_is_missing_for_a_reason(monkeypatch):
    for built, message in ((False, "built without MPS"), (True, "needs Apple silicon and macOS 14")):
        monkeypatch.setattr(torch.backends.mps, "is_built", lambda built=built: built)
        assert message in missing(MPS)


def test_mps_is_for_one_process(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: MPS)
    assert distributed.this_device("mps") == MPS
    assert distributed.this_device("auto") == CPU  # not tried, so never chosen
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"compute\.device=mps is for one process"):
        distributed.this_device("mps")


# ---- what a device cannot do -----------------------------------------------------------------------------


def test_settings_that_a_device_cannot_follow_are_named(monkeypatch):
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK", raising=False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert fallbacks(Compute(), CPU) == []
    assert fallbacks(Compute(precision="bf16"), CPU) == []
    assert fallbacks(Compute(precision="tf32"), CPU) == [
        "compute.precision=tf32: cpu has no TF32, so products are float32"
    ]
    (line,) = fallbacks(Compute(precision="bf16"), META)
    assert line == "compute.precision=bf16: meta has no automatic bfloat16, so losses are float32"
    said = fallbacks(Compute(device="mps"), MPS)
    assert ["float64" in line for line in said] == [True, False]
    assert "set PYTORCH_ENABLE_MPS_FALLBACK=1" in said[1]
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    assert fallbacks(Compute(device="mps"), MPS) == said[:1]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert "compute.device=mps is its GPU" in fallbacks(Compute(), CPU)[0]
    assert fallbacks(Compute(device="cpu"), CPU) == []


def test_a_device_without_autocast_computes_in_float32():
    with mixed("bf16", META):
        assert torch.nn.Linear(2, 2, device=META)(torch.zeros(1, 2, device=META)).dtype == torch.float32


def test_tf32_is_known_by_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", None)
    for capability, lines in (((7, 5), 1), ((8, 0), 0), ((9, 0), 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, capability=capability: capability)
        assert len(fallbacks(Compute(precision="tf32"), torch.device("cuda:0"))) == lines


def test_float64_is_computed_on_the_cpu_for_devices_without_it(monkeypatch):
    """The meta device stands in for one: it holds no numbers, and torch says so when the CPU is to have them."""
    x = torch.tensor([1.5])
    assert wide(x).dtype == torch.float64
    assert wide(torch.zeros(2, device=META)).device == META
    monkeypatch.setattr(devices, "WITHOUT_FLOAT64", {"meta"})
    net = torch.nn.Linear(3, 2, device=META)
    for call in (
        lambda: wide(net.weight),
        lambda: spectral_norms(net),
        lambda: clip_singular_values(net.weight.detach(), 1.0),
    ):
        with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
            call()


class Wide(TorchDispatchMode):
    """Notes operations that make float64 on the meta device."""

    def __init__(self):
        super().__init__()
        self.calls, self.made = 0, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and x.device == META:
                self.calls += 1
                self.made |= {str(function)} if x.dtype == torch.float64 else set()
        return out


@loop_over("name", ["quickstart", "ada", "stylegan2_small"])
def test_a_step_of_training_makes_no_float64_on_the_device(name):
    """Else a Mac's GPU could not train: the trainer's own steps, with penalties, path lengths and augmentation."""
    spec = ImageSpec(28, 1, 10) if name == "quickstart" else ImageSpec(32, 3)
    with torch.random.fork_rng(devices=[]), Wide() as mode:
        with META:
            gan = GAN.build(override(recipes.load(name)[0], {"batch_size": 4}), spec, META)
            x = torch.zeros(4, spec.channels, spec.resolution, spec.resolution)
            batch = Batch(x, torch.zeros(4, dtype=torch.int64) if spec.num_classes else None)
        gan.d_optim, gan.g_optim = (torch.optim.SGD(owned(optim)) for optim in (gan.d_optim, gan.g_optim))  # not fused
        d_step(gan, batch, 0, None, batch)  # lazy terms are due at 0
        g_step(gan, batch, 0, batch)
    assert mode.calls > 300
    assert mode.made == set()
    with Wide() as mode:
        torch.zeros(2, device=META).double()
    assert mode.made == {"aten._to_copy.default"}


# ---- other systems ---------------------------------------------------------------------------------------


def test_a_mac_computes_on_the_cpu_what_its_gpu_lacks(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK", raising=False)
    from equipoise.cli.app import app

    monkeypatch.setattr(sys, "argv", ["equipoise", "--help"])
    with pytest.raises(SystemExit):
        app()
    assert os.environ["PYTORCH_ENABLE_MPS_FALLBACK"] == "1"


def test_files_are_written_as_windows_can(tmp_path, monkeypatch):
    """Folders cannot be opened there, and a file is flushed only if it was opened for writing."""
    opened = os.open

    def of_windows(path, flags, *mode):
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied")
        assert flags & os.O_RDWR
        return opened(path, flags, *mode)

    monkeypatch.setattr(files, "WINDOWS", True)
    monkeypatch.setattr(os, "open", of_windows)
    files.replace_file(tmp_path / "a.txt", b"new")
    assert (tmp_path / "a.txt").read_bytes() == b"new"
