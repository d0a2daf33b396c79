"""Prepared sets: equal to their source pixel for pixel, and never half there."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_data_folders import broken
from typer.testing import CliRunner

from equipoise.cli.app import app
from equipoise.compute.interrupt import Interrupted
from equipoise.core.types import ImageSpec, RunError
from equipoise.data import Digits, Images, InfiniteBatches, download, images, open_dataset, prepare, prepared
from equipoise.data.workers import share_out


def everything(dataset) -> np.ndarray:
    return dataset.read(np.arange(len(dataset)))


def picture_folder(folder: Path, sizes=(8,) * 5, classes=("b", "a")) -> Path:
    for i, size in enumerate(sizes):
        place = folder / classes[i % len(classes)]
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (size, size, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{i}.png")
    return folder


def same(a, b) -> None:
    assert a.spec == b.spec
    np.testing.assert_array_equal(everything(a), everything(b), strict=True)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert (a.class_names and list(a.class_names)) == (b.class_names and list(b.class_names))


class TestRoundTrip:
    @pytest.mark.parametrize("options", [{}, {"resolution": 6}, {"resolution": 11, "channels": 1}])
    @pytest.mark.parametrize("chunk", [1, 1000, 1 << 24])
    def test_a_folder(self, tmp_path, monkeypatch, options, chunk):
        monkeypatch.setattr(prepared, "CHUNK", chunk)
        source = picture_folder(tmp_path / "in")
        result = prepare(source, tmp_path / "deep" / "out", **options)
        same(result, Images(source, **options).build())
        same(Images(tmp_path / "deep" / "out").build(), result)
        assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["out"]

    def test_digits_by_name(self, tmp_path):
        same(prepare("digits", tmp_path / "out"), Digits().build())
        info = json.loads((tmp_path / "out" / "info.json").read_text())
        assert info["source"] == "digits"
        assert (info["images"], info["channels"], info["resolution"], info["num_classes"]) == (10000, 1, 28, 10)

    def test_a_word_takes_options_and_a_folder_of_that_name_needs_its_path(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Digits, "build", lambda self: open_dataset(tmp_path / "few.npz"))
        x = np.random.default_rng(0).integers(0, 256, (3, 4, 4), np.uint8)
        np.savez(tmp_path / "few.npz", x=x, y=[0, 1, 0])
        picture_folder(tmp_path / "digits", sizes=(8, 8))
        monkeypatch.chdir(tmp_path)
        assert prepare("digits", "a", resolution=5, channels=3).spec == ImageSpec(5, 3, 2)
        same(prepare("./digits", "b"), Images(tmp_path / "digits").build())

    def test_unlabelled(self, tmp_path):
        result = prepare(picture_folder(tmp_path / "in", classes=("only",)), tmp_path / "out")
        assert (result.labels, result.class_names, result.spec.num_classes) == (None, None, 0)
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["images.npy", "info.json"]

    def test_names_without_images_are_kept(self, tmp_path):
        np.savez(tmp_path / "a.npz", x=np.zeros((2, 4, 4), np.uint8), y=[2, 0], class_names=["a", "b", "c", "d"])
        result = prepare(tmp_path / "a.npz", tmp_path / "out")
        assert result.spec.num_classes == 4
        assert list(result.class_names) == ["a", "b", "c", "d"]

    def test_it_stays_on_disk_in_a_plain_npy_file(self, tmp_path):
        result = prepare(picture_folder(tmp_path / "in"), tmp_path / "out")
        assert result.slow
        images = np.load(tmp_path / "out" / "images.npy")
        assert (images.shape, images.dtype, images.flags.c_contiguous) == ((5, 3, 8, 8), np.uint8, True)

    def test_a_prepared_set_can_be_resized_and_prepared_again(self, tmp_path):
        first = prepare(picture_folder(tmp_path / "in"), tmp_path / "first")
        assert Images(tmp_path / "first", resolution=4, channels=1).build().spec == ImageSpec(4, 1, 2)
        same(prepare(tmp_path / "first", tmp_path / "second"), first)


class TestShards:
    """Images of 8x8 in colour have 192 bytes, and there are nine."""

    @pytest.mark.parametrize(
        ("shard_gb", "counts"),
        [
            (None, None),
            (1, None),
            (9 * 192e-9, None),
            (8.9 * 192e-9, [8, 1]),
            (400e-9, [2, 2, 2, 2, 1]),
            (1e-9, [1] * 9),
        ],
    )
    def test_files_are_as_large_as_asked(self, tmp_path, shard_gb, counts):
        source = picture_folder(tmp_path / "in", sizes=(8,) * 9)
        result = prepare(source, tmp_path / "out", shard_gb=shard_gb)
        same(result, Images(source).build())
        same(Images(tmp_path / "out").build(), result)
        files = sorted(tmp_path.glob("out/images*.npy"))
        names = [f"images-{i:05d}.npy" for i in range(len(counts))] if counts else ["images.npy"]
        assert [file.name for file in files] == names
        assert [len(np.load(file)) for file in files] == (counts or [9])
        np.testing.assert_array_equal(np.concatenate([np.load(file) for file in files]), everything(result))

    def test_batches_are_those_of_one_file(self, tmp_path):
        source = picture_folder(tmp_path / "in", sizes=(8,) * 9)
        one, many = (
            InfiniteBatches(prepare(source, tmp_path / name, shard_gb=size), 16, seed=0)
            for name, size in (("one", None), ("many", 400e-9))
        )
        for _ in range(5):
            a, b = next(one), next(many)
            assert torch.equal(a.x, b.x)
            assert torch.equal(a.y, b.y)

    def test_a_set_of_shards_can_be_resized_and_prepared_again(self, tmp_path):
        first = prepare(picture_folder(tmp_path / "in"), tmp_path / "first", shard_gb=400e-9)
        same(prepare(tmp_path / "first", tmp_path / "second"), first)
        resized = Images(tmp_path / "first", resolution=4).build()
        same(resized, Images(tmp_path / "second", resolution=4).build())

    @pytest.mark.parametrize("damage", ["first", "middle", "last", "cut", "other shape"])
    def test_a_damaged_set_does_not_open(self, tmp_path, damage):
        out = tmp_path / "out"
        prepare(picture_folder(tmp_path / "in"), out, shard_gb=400e-9)
        files = sorted(out.glob("images-*.npy"))
        if damage == "cut":
            files[1].write_bytes(files[1].read_bytes()[:-1])
        elif damage == "other shape":
            np.save(files[1], np.zeros((2, 3, 8, 9), np.uint8))
        else:
            files[{"first": 0, "middle": 1, "last": 2}[damage]].unlink()
        with pytest.raises(ValueError, match=r"out is not a complete prepared set \(.+\): prepare it again"):
            Images(out).build()

    def test_too_many_files(self, tmp_path):
        with pytest.raises(ValueError, match=r"10000 images of 784 bytes .* would be 5000 files: choose larger ones"):
            prepare("digits", tmp_path / "out", shard_gb=1600e-9)
        assert list(tmp_path.iterdir()) == []

    def test_on_the_command_line(self, tmp_path):
        result = CliRunner().invoke(app, ["data", "prepare", "digits", str(tmp_path / "out"), "--shard-gb", "0.005"])
        assert result.exit_code == 0
        assert sorted(path.name for path in tmp_path.glob("out/images*")) == ["images-00000.npy", "images-00001.npy"]
        same(Images(tmp_path / "out").build(), Digits().build())

    @pytest.mark.parametrize("options", [{"workers": 0}, *({"shard_gb": gb} for gb in (0.0, -1, np.inf, np.nan))])
    def test_impossible_numbers(self, tmp_path, options):
        with pytest.raises(ValueError, match="expected workers >= 1 and 0 < shard_gb < inf, or None, got workers="):
            prepare("digits", tmp_path / "out", **options)

    def test_the_largest_number_is_one_file(self, tmp_path):
        prepare(picture_folder(tmp_path / "in"), tmp_path / "out", shard_gb=1e300)
        assert (tmp_path / "out" / "images.npy").exists()


class TestWorkers:
    @pytest.fixture(autouse=True)
    def few_are_enough(self, monkeypatch):
        monkeypatch.setattr(images, "LEAST", 1)
        monkeypatch.setattr(prepared, "MOST", 3)

    @pytest.mark.parametrize("zipped", [False, True])
    def test_the_bytes_are_those_of_one_process(self, tmp_path, zipped):
        source = picture_folder(tmp_path / "in", sizes=(16,) * 20)
        if zipped:
            source = Path(shutil.make_archive(str(tmp_path / "in"), "zip", source))
        for workers in (1, 2):
            prepare(source, tmp_path / f"out{workers}", workers=workers, shard_gb=5e-6)
        one, two = (sorted((tmp_path / f"out{workers}").iterdir()) for workers in (1, 2))
        assert [path.name for path in one] == [path.name for path in two]
        assert len(one) == 6
        assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True))

    def test_a_bad_image_is_named_and_nothing_is_left(self, tmp_path):
        source = picture_folder(tmp_path / "in", sizes=(32,) * 20)
        file = source / "a" / "13.png"
        file.write_bytes(file.read_bytes()[:200])
        out = str(tmp_path / "out")
        with pytest.raises(ValueError, match=r"13\.png cannot be read as an image"):
            prepare(source, out, workers=2)
        asked = ["data", "prepare", str(source), out, "--resolution", "32", "--channels", "3", "--workers", "2"]
        result = CliRunner().invoke(app, asked)
        assert result.exit_code == 2
        assert re.search(r"error: \S+13\.png cannot be read as an image", result.output)
        assert [path.name for path in tmp_path.iterdir()] == ["in"]
        assert multiprocessing.active_children() == []

    def test_broken_files_are_those_of_one_process(self, tmp_path):
        source = broken(tmp_path / "in")
        for skip in (False, True):
            outcomes = [result(source, tmp_path / f"{skip}{n}", workers=n, skip_broken=skip) for n in (1, 2)]
            assert outcomes[0] == outcomes[1]
            assert (len(outcomes[0]) == 8) is skip

    def test_a_worker_that_is_killed(self):
        with pytest.raises(RunError, match="one of 2 processes ended with exit code -9 before its work was done"):
            list(share_out(killed_at_one, None, range(4), 2))
        assert multiprocessing.active_children() == []

    def test_ctrl_c_leaves_nothing_behind(self, tmp_path, monkeypatch):
        """A terminal sends the signal to all processes: to workers, which ignore it, and to this one."""
        monkeypatch.setattr(prepared, "write_chunk", interrupting)
        old = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                prepared.write_prepared(Many(), tmp_path / "out", "many", workers=2)
        finally:
            signal.signal(signal.SIGINT, old)
        assert list(tmp_path.iterdir()) == []
        assert multiprocessing.active_children() == []
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])

    def test_ctrl_c_reaches_processes_that_others_fork_from_the_same_server(self):
        assert list(share_out(of_ctrl_c, None, range(2), 2)) == [(False, signal.SIG_IGN)] * 2
        context = multiprocessing.get_context("forkserver")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=tell, args=(sender,))
        process.start()
        assert receiver.recv()[0] is False
        process.join()

    def test_a_script_without_a_guard_is_told(self, tmp_path):
        picture_folder(tmp_path / "in", sizes=(8,) * 20)
        (tmp_path / "script.py").write_text(
            "from equipoise.data import images\nimages.LEAST = 1\nimages.prepare('in', 'out', workers=2)\n"
        )
        done = subprocess.run(
            [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 1
        assert 'which import this script: call it below `if __name__ == "__main__":`' in done.stderr
        last = done.stderr.splitlines()[-1]
        assert re.search("one of 2 processes ended with exit code 1 .* for the reason that it printed above", last)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "script.py"]


def result(source, out, **options):
    """The images in bytes, or the message."""
    try:
        return [image.tobytes() for image in everything(prepare(source, out, **options))]
    except ValueError as error:
        return str(error)


def of_ctrl_c(*_):
    """Whether it is blocked, and who handles it."""
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.getsignal(signal.SIGINT)


def tell(sender):
    sender.send(of_ctrl_c())


def interrupting(_, chunk):
    if chunk.start == 30:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(multiprocessing.parent_process().pid, signal.SIGINT)
        time.sleep(60)
    return prepared.Written(chunk, 0, None)


def terminating(_, chunk):
    """Ends the process that prepares, from a process or a thread of its own."""
    if chunk.start == 30:
        caller = multiprocessing.parent_process()
        os.kill(os.getpid() if caller is None else caller.pid, signal.SIGTERM)
        time.sleep(0.2 if caller is None else 60)
    return prepared.Written(chunk, 0, None)


def killed_at_one(_, item):
    if item == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


class Many:
    """A data set that makes its images when asked, so that all memory in use is `prepare`'s."""

    spec, labels, class_names, slow = ImageSpec(32, 3), None, None, True

    def __len__(self) -> int:
        return 4000

    def read(self, indices):
        return np.broadcast_to((indices % 251).astype(np.uint8)[:, None, None, None], (len(indices), 3, 32, 32)).copy()


def test_memory_does_not_grow_with_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "CHUNK", 1 << 16)
    tracemalloc.start()
    try:
        prepared.write_prepared(Many(), tmp_path / "out", "many")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 << 20  # of 12 MB
    np.testing.assert_array_equal(everything(Images(tmp_path / "out").build()), everything(Many()))


class TestFailure:
    def fails(self, tmp_path: Path, source: Path | str, *words: str) -> None:
        """`prepare` raises with these words, and leaves nothing behind."""
        (tmp_path / "results").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match="(?s)" + ".*".join(re.escape(word) for word in words)):
            prepare(source, tmp_path / "results" / "out")
        assert list((tmp_path / "results").iterdir()) == []

    def test_out_exists(self, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "precious").write_text("work")
        with pytest.raises(ValueError, match="out exists already: choose another"):
            prepare("digits", tmp_path / "out")
        assert (tmp_path / "out" / "precious").read_text() == "work"

    def test_a_bad_image_in_the_middle(self, tmp_path, monkeypatch):
        monkeypatch.setattr(prepared, "CHUNK", 1)
        source = picture_folder(tmp_path / "in", sizes=(32,) * 9)
        file = source / "a" / "5.png"
        file.write_bytes(file.read_bytes()[:200])
        self.fails(tmp_path, source, "5.png cannot be read as an image")

    def test_mixed_sizes(self, tmp_path):
        source = picture_folder(tmp_path / "in", sizes=(8, 9))
        self.fails(tmp_path, source, "different sizes", "--resolution R")

    @pytest.mark.parametrize("options", [{"channels": 2}, {"resolution": 0}])
    @pytest.mark.parametrize("word", [True, False])
    def test_impossible_targets(self, tmp_path, options, word):
        source = "digits" if word else picture_folder(tmp_path / "in")
        with pytest.raises(
            ValueError, match=r"expected resolution >= 1 and channels 1 \(grey\) or 3 \(colour\), got res"
        ):
            prepare(source, tmp_path / "out", **options)

    def test_missing_source(self, tmp_path):
        self.fails(tmp_path, tmp_path / "gone", "no file or directory")

    def test_full_disk(self, tmp_path):
        """A limit on file size stands in for a full disk: both make a write raise OSError half way."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        try:
            self.fails(tmp_path, "digits", "cannot write", "out", "File too large", "Nothing was left behind")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    def test_out_below_a_file(self, tmp_path):
        (tmp_path / "file").write_text("not a directory")
        with pytest.raises(ValueError, match=r"cannot write .*file/out: Not a directory"):
            prepare("digits", tmp_path / "file" / "out")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_read_only_directory(self, tmp_path):
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(ValueError, match=r"cannot write .*locked/out: Permission denied"):
            prepare("digits", tmp_path / "locked" / "out")

    def test_what_another_process_has_not_finished_is_left_alone(self, tmp_path):
        """Equal process ids are no rarity on machines that share a disk."""
        other = tmp_path / f".out.{os.getpid()}.part"
        picture_folder(other)
        prepare(picture_folder(tmp_path / "in"), tmp_path / "out")
        assert (other / "a" / "1.png").exists()

    def test_others_may_read_it_as_any_new_directory(self, tmp_path):
        prepare(picture_folder(tmp_path / "in"), tmp_path / "out")
        assert (tmp_path / "out").stat().st_mode == (tmp_path / "in").stat().st_mode

    def test_interrupted(self, tmp_path, monkeypatch):
        class Stopping(Many):
            def read(self, indices):
                if indices[0] > 1000:
                    raise KeyboardInterrupt("stop")
                return super().read(indices)

        monkeypatch.setattr(prepared, "CHUNK", 1 << 16)
        with pytest.raises(KeyboardInterrupt, match="stop"):
            prepared.write_prepared(Stopping(), tmp_path / "out", "many")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("damage", ["cut", "empty", "no info", "other shape", "bad info", "no labels"])
    def test_a_damaged_set_does_not_open(self, tmp_path, damage):
        out = tmp_path / "out"
        prepare(picture_folder(tmp_path / "in"), out)
        if damage == "cut":
            (out / "images.npy").write_bytes((out / "images.npy").read_bytes()[:-1])
        elif damage == "empty":
            (out / "images.npy").write_bytes(b"")
        elif damage == "no info":
            (out / "info.json").unlink()
        elif damage == "other shape":
            np.save(out / "images.npy", np.zeros((5, 3, 8, 9), np.uint8))
        elif damage == "bad info":
            (out / "info.json").write_text("{}")
        else:
            (out / "labels.npy").unlink()
        with pytest.raises(ValueError, match=r"out is not a complete prepared set \(.+\): prepare it again"):
            Images(out).build()


class TestTermination:
    """SIGTERM ends the work as Ctrl-C does: at once, and only what the same command can use is left behind."""

    @pytest.fixture(autouse=True)
    def handler_of_ours(self):
        """What has to be there again afterwards; an exception, lest SIGTERM end the tests."""
        old = signal.signal(signal.SIGTERM, signal.default_int_handler)
        yield
        assert signal.signal(signal.SIGTERM, old) is signal.default_int_handler

    @pytest.mark.parametrize("workers", [1, 2])
    def test_on_the_command_line(self, tmp_path, monkeypatch, workers):
        """In the middle of the work: of a thread of the reader, or of a process."""
        monkeypatch.setattr(images, "LEAST", 1)
        monkeypatch.setattr(prepared, "MOST", 3)
        monkeypatch.setattr(prepared, "write_chunk", terminating)
        source = picture_folder(tmp_path / "in", sizes=(8,) * 40)
        result = CliRunner().invoke(
            app, ["data", "prepare", str(source), str(tmp_path / "out"), "--workers", str(workers)]
        )
        assert result.exit_code == 128 + signal.SIGTERM
        assert f"stopped before {tmp_path / 'out'} was complete: the same command continues\n" in result.output
        assert sorted(path.name for path in tmp_path.iterdir()) == [".out.part", "in"]
        assert multiprocessing.active_children() == []

    def test_a_download(self, tmp_path, monkeypatch):
        def never_complete(_, target):
            target.parent.mkdir(parents=True)
            target.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(download, "download", never_complete)
        with pytest.raises(Interrupted, match="out was complete") as stop:
            prepare("mnist", tmp_path / "out")
        assert stop.value.signal == signal.SIGTERM
        assert [path.name for path in tmp_path.rglob("*") if not path.is_dir()] == []

    def test_an_image_that_is_interrupted_is_not_taken_for_a_bad_one(self, tmp_path, monkeypatch):
        monkeypatch.setattr("equipoise.data.survey.is_grey", lambda _: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted, match="out was complete"):
            prepare(picture_folder(tmp_path / "in"), tmp_path / "out")

    def test_ctrl_c_is_what_it_was(self, tmp_path, monkeypatch):
        monkeypatch.setattr("equipoise.data.survey.is_grey", lambda _: signal.default_int_handler(signal.SIGINT, None))
        with pytest.raises(KeyboardInterrupt):
            prepare(picture_folder(tmp_path / "in"), tmp_path / "out")

    def test_in_a_thread_which_no_signal_reaches(self, tmp_path):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(prepare, picture_folder(tmp_path / "in"), tmp_path / "out").result()
        assert (tmp_path / "out" / "info.json").exists()
