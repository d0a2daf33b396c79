"""Images read from disk by index: the right ones, from any file, and without growing the process."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.data import ArrayDataset, InfiniteBatches
from equipoise.data.shards import Shards

X = np.random.default_rng(0).integers(0, 256, (23, 3, 4, 4), np.uint8)


def saved(folder: Path, *cuts: int) -> Shards:
    """X in files that begin at 0 and at each of the cuts."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{i}.npy" for i in range(len(cuts) + 1)]
    for path, part in zip(paths, np.split(X, cuts), strict=True):
        np.save(path, part)
    return Shards(paths)


class TestReading:
    def test_any_indices_of_any_files(self, tmp_path):
        sets = [saved(tmp_path / "a"), saved(tmp_path / "b", 1), saved(tmp_path / "c", 10, 11, 20)]

        @given(st.lists(st.integers(0, 22), max_size=40))
        @settings(max_examples=50, deadline=None)
        def check(indices):
            for images in sets:
                found = images[np.array(indices, np.int64)]
                np.testing.assert_array_equal(found, X[indices], strict=True)

        assert all(images.shape == X.shape and len(images) == 23 for images in sets)
        check()

    def test_in_the_order_of_the_disk_a_file_after_the_other(self, tmp_path, monkeypatch):
        images, reads, opened = saved(tmp_path, 8, 16), [], []

        class Noted(io.FileIO):
            def __init__(self, path, mode, buffering):
                assert (mode, buffering) == ("rb", 0)
                opened.append(images.paths.index(path))
                super().__init__(path)

            def readinto(self, into):
                reads.append((opened[-1], self.tell() - 128))  # numpy's header has 128 bytes
                return super().readinto(into)

        monkeypatch.setattr(Path, "open", lambda path, mode, buffering: Noted(path, mode, buffering))
        np.testing.assert_array_equal(images[[20, 3, 9, 21, 0, 22, 8]], X[[20, 3, 9, 21, 0, 22, 8]])
        assert reads == [(i // 8, i % 8 * 48) for i in (0, 3, 8, 9, 20, 21, 22)]
        assert opened == [0, 1, 2]

    @pytest.mark.parametrize("most", [1, 7, 48])
    def test_reads_that_give_less_than_asked_go_on(self, tmp_path, monkeypatch, most):
        images = saved(tmp_path, 9)

        class Short(io.FileIO):
            def readinto(self, into):
                return super().readinto(into[:most])

        monkeypatch.setattr(Path, "open", lambda path, mode, buffering: Short(path))
        np.testing.assert_array_equal(images[[22, 0, 9]], X[[22, 0, 9]])

    @pytest.mark.parametrize("index", [-1, 23])
    def test_out_of_range(self, tmp_path, index):
        with pytest.raises(IndexError, match=f"there are images 0 to 22, asked for {min(index, 5)} to {max(index, 5)}"):
            saved(tmp_path, 9)[[5, index]]

    def test_from_several_threads(self, tmp_path):
        images = saved(tmp_path, 5, 9)
        draws = np.random.default_rng(1).integers(0, 23, (200, 16))
        meeting = threading.Barrier(4, timeout=20)

        def read(k: int) -> list[np.ndarray]:
            meeting.wait()
            return [images[row] for row in draws[k::4]]

        with ThreadPoolExecutor(4) as pool:
            for k, found in enumerate(pool.map(read, range(4))):
                np.testing.assert_array_equal(np.stack(found), X[draws[k::4]])


class TestFiles:
    def test_a_file_that_becomes_shorter_raises(self, tmp_path):
        images = saved(tmp_path, 9)
        os.truncate(tmp_path / "1.npy", 300)
        np.testing.assert_array_equal(images[[8]], X[[8]])
        with pytest.raises(OSError, match=r"1\.npy has become shorter since it was opened"):
            images[[22]]

    def test_a_file_that_is_removed_is_named(self, tmp_path):
        images = saved(tmp_path, 9)
        (tmp_path / "1.npy").unlink()
        np.testing.assert_array_equal(images[[8]], X[[8]])
        with pytest.raises(FileNotFoundError, match=r"1\.npy"):
            images[[22]]

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            (X.astype(np.int8), r"1\.npy should hold uint8 \(n, C, H, W\), but it holds int8 \(23, 3, 4, 4\)"),
            (X[0], r"1\.npy should hold uint8 .* but it holds uint8 \(3, 4, 4\)"),
            (np.asfortranarray(X), r"1\.npy should hold uint8"),
            (X[:, :1], r"1\.npy holds images \(1, 4, 4\), 0\.npy \(3, 4, 4\)"),
        ],
    )
    def test_other_arrays_are_refused(self, tmp_path, other, message):
        np.save(tmp_path / "0.npy", X)
        np.save(tmp_path / "1.npy", other)
        with pytest.raises(ValueError, match=message):
            Shards([tmp_path / "0.npy", tmp_path / "1.npy"])

    def test_they_are_found_from_elsewhere(self, tmp_path, monkeypatch):
        saved(tmp_path)
        monkeypatch.chdir(tmp_path)
        images = Shards([Path("0.npy")])
        monkeypatch.chdir("/")
        np.testing.assert_array_equal(images[[22]], X[[22]])

    def test_there_may_be_more_than_a_process_may_open(self, tmp_path):
        """60 files, of which a process that may open 32 at a time reads one image each."""
        paths = [tmp_path / f"{i:02d}.npy" for i in range(60)]
        for i, path in enumerate(paths):
            np.save(path, np.full((2, 1, 1, 1), i, np.uint8))
        program = """
import resource, sys
from pathlib import Path
import numpy as np
from equipoise.data.shards import Shards

resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
images = Shards(sorted(Path(sys.argv[1]).iterdir()))
assert images.shape == (120, 1, 1, 1)
assert images[np.arange(1, 120, 2)].ravel().tolist() == list(range(60))
"""
        subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=60)

    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda images: pickle.loads(pickle.dumps(images))])
    def test_a_copy_reads_the_same_files_when_the_original_is_gone(self, tmp_path, copied):
        images = saved(tmp_path / "a", 9)
        there = copied(images)
        del images
        np.save(tmp_path / "other.npy", 255 - X)
        other = Shards([tmp_path / "other.npy"])  # which a descriptor of the original might name by now
        np.testing.assert_array_equal(there[[22, 0, 9]], X[[22, 0, 9]])
        np.testing.assert_array_equal(other[[22]], 255 - X[[22]])


def resident_bytes() -> int:
    """Of this process, as the system counts them: its own pages and those of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("RssAnon", "RssFile")))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the memory of a process")
def test_the_process_does_not_grow_with_what_it_has_read(tmp_path):
    """96 MB of a file of 400 MB without a block on disk; a memory map would grow by as much as is read, and more."""
    count = 400_000_000 // 12288
    for i in range(2):
        with (tmp_path / f"{i}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": (count // 2, 3, 64, 64)}
            )
            file.truncate(file.tell() + count // 2 * 12288)
    dataset = ArrayDataset(Shards([tmp_path / "0.npy", tmp_path / "1.npy"]))
    assert dataset.slow
    with InfiniteBatches(dataset, 64, seed=0) as batches:
        for _ in islice(batches, 10):
            pass
        before = resident_bytes()
        for _ in islice(batches, 125):
            pass
        assert resident_bytes() - before < 20 << 20
