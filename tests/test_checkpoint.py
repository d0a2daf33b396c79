"""Nothing the user made is lost: damaged checkpoints, full disks, other configs."""

import errno
import hashlib
import io
import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from loops import loop_over
from processes import on_two_processes
from tiny import recipe
from torch import nn

from equipoise.core import files
from equipoise.core.types import RunError
from equipoise.losses import NonSaturating
from equipoise.rules import Report
from equipoise.runs import Checkpoints, claim, finished


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


def flip(path: Path, at: int) -> None:
    """Change a bit of the byte at this place."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def names(run_dir: Path) -> list[str]:
    return sorted(p.name for p in (run_dir / "checkpoints").iterdir())


def test_the_last_two_are_kept_and_the_newest_is_restored_with_its_optimizer(saved):
    run_dir, states = saved
    assert names(run_dir) == ["000000000200", "000000000300"]
    nimg, net, optimizer = load(run_dir)
    assert nimg == 300
    assert all(torch.equal(v, states[300][k]) for k, v in net.state_dict().items())
    assert {float(s["step"]) for s in optimizer.state_dict()["state"].values()} == {3.0}


@loop_over(
    ("keep", "every", "kept"),
    [
        ("all", None, [900, 1000, 1800, 2100, 2900, 3000, 3100]),
        (1, 1, [1000, 2100, 3000, 3100]),  # the first past each thousand, and the newest
        (2, 2, [2100, 3000, 3100]),
        (2, 5, [3000, 3100]),
    ],
)
def test_old_checkpoints_that_are_kept(tmp_path, keep, every, kept):
    net, _ = player()
    checkpoints = Checkpoints(tmp_path, nets={"net": net}, optimizers={}, keep=keep, keep_every_kimg=every)
    for nimg in (900, 1000, 1800, 2100, 2900, 3000, 3100):
        checkpoints.save(nimg)
    assert [int(name) for name in names(tmp_path)] == kept


def test_an_empty_directory_starts_from_zero(tmp_path):
    assert load(tmp_path)[0] == 0


def test_weights_come_back_however_they_lie_in_memory(tmp_path):
    """A network of one's own may hold transposed weights, or two views of one tensor's memory."""
    both = torch.randn(2, 3)
    found = []
    for values in (both, torch.zeros(2, 3)):
        net = nn.ParameterDict({"transposed": nn.Parameter(values.T), "row": nn.Parameter(values[1])})
        checkpoints = Checkpoints(tmp_path, nets={"net": net}, optimizers={})
        found.append(checkpoints.load_latest())
        if found == [0]:
            checkpoints.save(100)
    assert found == [0, 100]
    assert torch.equal(net["transposed"], both.T)
    assert torch.equal(net["row"], both[1])


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
        lambda path: flip(path / "state.pt", 0),
        lambda path: flip(path / "net.safetensors", -1),  # of a weight: the checksum alone tells
        lambda path: (path / "net.safetensors").unlink(),
        lambda path: (path / "manifest.json").unlink(),
        lambda path: (path / "manifest.json").write_text('{"net.safe'),
    ],
    ids=["cut short", "emptied", "bit flipped", "weight changed", "file missing", "no manifest", "half a manifest"],
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
    claim(tmp_path, replace(recipe(), total_kimg=99.0, report=Report(log_kimg=2.0)))  # computes the same


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


# ---- what is there in place of a checkpoint --------------------------------------------------------------


def stray_file(run_dir: Path) -> None:
    (run_dir / "checkpoints" / "000000000999").write_text("mine")


def state_is_a_directory(run_dir: Path) -> None:
    path = run_dir / "checkpoints" / "000000000300" / "state.pt"
    path.unlink()
    path.mkdir()


def copied_under_another_name(run_dir: Path) -> None:
    shutil.copytree(run_dir / "checkpoints" / "000000000200", run_dir / "checkpoints" / "000000000400")
    shutil.rmtree(run_dir / "checkpoints" / "000000000300")


@pytest.mark.parametrize(
    ("damage", "nimg", "aside"),
    [
        (stray_file, 300, "000000000999.damaged"),
        (state_is_a_directory, 200, "000000000300.damaged"),
        (copied_under_another_name, 200, "000000000400.damaged"),
    ],
)
def test_anything_else_with_the_name_of_a_checkpoint_is_passed_over_and_kept(damage, nimg, aside, saved, capsys):
    run_dir, states = saved
    damage(run_dir)
    found, net, _ = load(run_dir)
    assert found == nimg
    assert all(torch.equal(v, states[nimg][k]) for k, v in net.state_dict().items())
    said = capsys.readouterr().err
    assert f"{aside.removesuffix('.damaged')} is damaged" in said
    assert f"renamed to {aside}" in said
    assert aside in names(run_dir)


def test_a_stray_file_older_than_the_last_checkpoints_is_not_deleted(saved):
    run_dir, _ = saved
    (run_dir / "checkpoints" / "000000000001").write_text("mine")
    (run_dir / "checkpoints" / ".000000000350.tmp").write_text("a file where a directory would be")
    net, optimizer = player()
    checkpoints = Checkpoints(run_dir, nets={"net": net}, optimizers={"net": optimizer})
    assert checkpoints.load_latest() == 300
    checkpoints.save(350)
    assert names(run_dir) == ["000000000001.damaged", "000000000300", "000000000350"]
    assert (run_dir / "checkpoints" / "000000000001.damaged").read_text() == "mine"


def test_names_of_other_digits_are_no_checkpoints(saved):
    run_dir, _ = saved
    for name in ("²", "٣", "300", "0000000000300", "000000000400.damaged"):
        (run_dir / "checkpoints" / name).mkdir()
    assert [path.name for path in finished(run_dir / "checkpoints")] == ["000000000200", "000000000300"]
    assert load(run_dir)[0] == 300


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_newest_checkpoint_that_cannot_be_read_falls_back(number, saved, monkeypatch, capsys):
    """Patched, since root may read everything."""
    run_dir, read = saved[0], Path.read_bytes

    def failing(path):
        if path.parent.name == "000000000300" and path.name == "state.pt":
            raise OSError(number, os.strerror(number))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    assert load(run_dir)[0] == 200
    assert os.strerror(number) in capsys.readouterr().err
    assert names(run_dir) == ["000000000200", "000000000300.damaged"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_folder_of_checkpoints_that_cannot_be_read_begins_no_run_anew(number, saved, monkeypatch):
    def failing(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "iterdir", failing)
    with pytest.raises(RunError, match=rf"cannot read .*checkpoints: {os.strerror(number)}"):
        load(saved[0])


@pytest.mark.parametrize(
    "manifest",
    [
        *("[]", "null", "5", "[" * 100_000, "{}"),
        *('{"/dev/zero": "", "state.pt": ""}', '{"": "", "state.pt": ""}'),  # zeros without end, a directory
    ],
)
def test_a_manifest_of_any_json_is_a_damaged_checkpoint(manifest, saved, capsys):
    run_dir, _ = saved
    (run_dir / "checkpoints" / "000000000300" / "manifest.json").write_text(manifest)
    assert load(run_dir)[0] == 200
    assert capsys.readouterr().err.count("is damaged") == 1


def replaced(run_dir: Path, name: str, content: bytes) -> None:
    """Another file in the newest checkpoint, with a checksum that fits."""
    folder = run_dir / "checkpoints" / "000000000300"
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text()) | {name: hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def packed(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@pytest.mark.parametrize(
    "state",
    [
        *(b"", b"text", pickle.dumps(print), packed([1]), packed(torch.zeros(3)), packed({})),
        packed({"format": "1", "nimg": 300, "optimizers": {}}),
        packed({"format": 1, "nimg": None, "optimizers": {}}),
        packed({"format": 1, "nimg": 300, "optimizers": 5}),
        packed({"format": 1, "nimg": 400, "optimizers": {}}),
    ],
    ids=["empty", "text", "pickle", "list", "tensor", "no keys", "format", "nimg", "optimizers", "another nimg"],
)
def test_a_state_of_another_kind_is_a_damaged_checkpoint(state, saved, capsys):
    run_dir, _ = saved
    replaced(run_dir, "state.pt", state)
    assert load(run_dir)[0] == 200
    assert capsys.readouterr().err.count("is damaged") == 1


def test_weights_that_are_no_safetensors_are_a_damaged_checkpoint(saved):
    run_dir, _ = saved
    replaced(run_dir, "net.safetensors", b"[" * 1000)
    assert load(run_dir)[0] == 200


@pytest.mark.parametrize("state", [5, [], {"state": 5, "param_groups": 5}])
def test_optimisers_of_another_kind_do_not_fit(state, saved):
    run_dir, _ = saved
    replaced(run_dir, "state.pt", packed({"format": 1, "nimg": 300, "optimizers": {"net": state}}))
    with pytest.raises(RunError, match="does not fit the networks"):
        load(run_dir)
