"""Nothing the user made is lost: damaged checkpoints, full disks, other configs."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from processes import on_two_processes
from tiny import recipe
from torch import nn

from equipoise import files
from equipoise.checkpoint import Checkpoints, claim
from equipoise.losses import NonSaturating
from equipoise.types import RunError


def player() -> tuple[nn.Module, torch.optim.Optimizer]:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    return net, torch.optim.Adam(net.parameters())


def train_a_step(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    net(torch.randn(8, 3)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.fixture
def saved(tmp_path):
    """A run directory with checkpoints at 100, 200 and 300 (of which two are kept), and the states at each."""
    net, optimizer = player()
    checkpoints = Checkpoints(tmp_path, nets={"net": net}, optimizers={"net": optimizer})
    states = {}
    for nimg in (100, 200, 300):
        train_a_step(net, optimizer)
        checkpoints.save(nimg)
        states[nimg] = {k: v.clone() for k, v in net.state_dict().items()}
    return tmp_path, states


def load(run_dir: Path) -> tuple[int, nn.Module, torch.optim.Optimizer]:
    net, optimizer = player()
    nimg = Checkpoints(run_dir, nets={"net": net}, optimizers={"net": optimizer}).load_latest()
    return nimg, net, optimizer


def names(run_dir: Path) -> list[str]:
    return sorted(p.name for p in (run_dir / "checkpoints").iterdir())


def test_the_last_two_are_kept_and_the_newest_is_restored_with_its_optimizer(saved):
    run_dir, states = saved
    assert names(run_dir) == ["000000000200", "000000000300"]
    nimg, net, optimizer = load(run_dir)
    assert nimg == 300
    assert all(torch.equal(v, states[300][k]) for k, v in net.state_dict().items())
    assert {float(s["step"]) for s in optimizer.state_dict()["state"].values()} == {3.0}


def test_an_empty_directory_starts_from_zero(tmp_path):
    assert load(tmp_path)[0] == 0


@pytest.mark.parametrize("sees", [0, 1])
def test_a_rank_0_that_lost_its_disk_does_not_begin_anew(sees, saved, tmp_path):
    """Two machines with disks of their own: only that of rank `sees` holds the run. Rank 0's alone is enough."""

    def work(rank):
        try:
            return load(saved[0] if rank == sees else tmp_path / "empty")[0]
        except RunError as error:
            return str(error)

    found = on_two_processes(work, tmp_path / "two")
    if sees == 0:
        assert found == [300, 300]
    else:
        assert all("rank 0 does not see the newest checkpoint" in said for said in found)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "net.safetensors").write_bytes((path / "net.safetensors").read_bytes()[:-3]),
        lambda path: (path / "state.pt").write_bytes(b""),
        lambda path: (path / "state.pt").write_bytes(
            bytes([path.joinpath("state.pt").read_bytes()[0] ^ 1]) + path.joinpath("state.pt").read_bytes()[1:]
        ),
        lambda path: (path / "net.safetensors").unlink(),
        lambda path: (path / "manifest.json").unlink(),
        lambda path: (path / "manifest.json").write_text('{"net.safe'),
    ],
    ids=["cut short", "emptied", "bit flipped", "file missing", "no manifest", "half a manifest"],
)
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_saying_so(saved, damage, capsys):
    run_dir, states = saved
    damage(run_dir / "checkpoints" / "000000000300")
    nimg, net, _ = load(run_dir)
    assert nimg == 200
    assert all(torch.equal(v, states[200][k]) for k, v in net.state_dict().items())
    said = capsys.readouterr().err
    assert "000000000300 is damaged" in said
    assert "the one before" in said
    assert names(run_dir) == ["000000000200", "000000000300.damaged"]


def test_a_damaged_checkpoint_never_pushes_a_good_one_out(saved):
    run_dir, _ = saved
    (run_dir / "checkpoints" / "000000000300" / "state.pt").write_bytes(b"")
    net, optimizer = player()
    checkpoints = Checkpoints(run_dir, nets={"net": net}, optimizers={"net": optimizer})
    assert checkpoints.load_latest() == 200
    checkpoints.save(250)
    assert names(run_dir) == ["000000000200", "000000000250", "000000000300.damaged"]
    checkpoints.save(300)
    assert names(run_dir) == ["000000000250", "000000000300", "000000000300.damaged"]
    assert load(run_dir)[0] == 300


def test_a_half_written_directory_is_ignored_and_cleaned_up(saved):
    run_dir, _ = saved
    leftover = run_dir / "checkpoints" / ".000000000400.tmp"
    leftover.mkdir()
    (leftover / "net.safetensors").write_bytes(b"half")
    net, optimizer = player()
    checkpoints = Checkpoints(run_dir, nets={"net": net}, optimizers={"net": optimizer})
    assert checkpoints.load_latest() == 300
    checkpoints.save(400)
    assert names(run_dir) == ["000000000300", "000000000400"]


def test_all_damaged_is_an_error_that_says_what_to_do(saved):
    run_dir, _ = saved
    for path in (run_dir / "checkpoints").iterdir():
        (path / "manifest.json").unlink()
    with pytest.raises(RunError, match=r"every checkpoint in .* is damaged. Restore one"):
        load(run_dir)
    assert names(run_dir) == ["000000000200", "000000000300"]  # nothing was touched


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS], ids=["full disk", "read-only"])
@pytest.mark.parametrize("step", ["write", "flush", "rename"])
def test_a_full_disk_is_one_clear_line_and_loses_nothing(saved, monkeypatch, step, number):
    run_dir, states = saved
    net, optimizer = player()
    checkpoints = Checkpoints(run_dir, nets={"net": net}, optimizers={"net": optimizer})
    checkpoints.load_latest()

    def full(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    target = {"write": (torch, "save"), "flush": (files.os, "fsync"), "rename": (Path, "rename")}[step]
    with monkeypatch.context() as patch:
        patch.setattr(*target, full)
        with pytest.raises(
            RunError, match=rf"cannot write to .*: {os.strerror(number)}\..*last good.*000000000300"
        ) as e:
            checkpoints.save(400)
    assert "\n" not in str(e.value)
    assert names(run_dir) == ["000000000200", "000000000300"]
    nimg, restored, _ = load(run_dir)
    assert nimg == 300
    assert all(torch.equal(v, states[300][k]) for k, v in restored.state_dict().items())


def test_a_real_limit_on_file_size_is_reported_too(saved):
    resource = pytest.importorskip("resource", reason="limits are a POSIX feature")
    import signal

    run_dir, _ = saved
    net = nn.Linear(500, 500)
    checkpoints = Checkpoints(run_dir, nets={"net": net}, optimizers={})
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
    try:
        with pytest.raises(RunError, match="cannot write to"):
            checkpoints.save(400)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(run_dir) == ["000000000200", "000000000300"]


def test_a_directory_of_another_config_is_refused_with_the_difference(tmp_path):
    claim(tmp_path, recipe())
    other = replace(recipe(), loss=NonSaturating(smoothing=0.1), batch_size=16)
    with pytest.raises(
        ValueError,
        match=r"another config(.|\n)*loss: Hinge\(\) -> NonSaturating\(smoothing=0.1\)\n  batch_size: 8 -> 16",
    ):
        claim(tmp_path, other)
    claim(tmp_path, replace(recipe(), total_kimg=99.0, log_kimg=2.0, snapshot_kimg=3.0))  # computes the same


def test_a_directory_whose_config_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "config.txt").write_text("TrainConfig(data=Gone())")
    with pytest.raises(
        ValueError, match=r"another config(.|\n)*- TrainConfig\(data=Gone\(\)\)(.|\n)*\+     data=Digits"
    ):
        claim(tmp_path, recipe())


def test_checkpoints_without_a_config_are_refused(saved):
    with pytest.raises(ValueError, match=r"holds checkpoints but no config.txt"):
        claim(saved[0], recipe())


def test_state_is_read_without_running_code(saved):
    run_dir, _ = saved
    state = torch.load(run_dir / "checkpoints" / "000000000300" / "state.pt", weights_only=True)
    assert state["nimg"] == 300
