"""The endless stream: its order, its shares, its continuation, and its threads."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from itertools import chain, count, islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from equipoise.data import ArrayDataset, Digits, Images, InfiniteBatches, batches, resident, to_float, to_uint8
from equipoise.data.order import stream
from equipoise.data.reading import read_ahead
from equipoise.data.resident import Resident

SMALL = settings(max_examples=60, deadline=None)


def numbered(length: int, *, slow: bool = False) -> ArrayDataset:
    """Image i is a single pixel of value i; its label is i % 3."""
    dataset = ArrayDataset(
        np.arange(length, dtype=np.uint8).reshape(length, 1, 1, 1), np.arange(length) % 3, list("abc")
    )
    dataset.slow = slow
    return dataset


def ids(batch) -> list[int]:
    return to_uint8(batch.x).flatten().tolist()


def take(number: int, *args, **options) -> list[list[int]]:
    with InfiniteBatches(*args, **options) as batches:
        return [ids(batch) for batch in islice(batches, number)]


def reading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("equipoise-read")]


class TestBatches:
    def test_pixels_and_labels(self):
        digits = Digits().build()
        batch = next(InfiniteBatches(digits, 64, seed=3))
        chosen = stream(3, 10000, 0, 64)
        expected = digits.images[chosen] / np.float32(127.5) - 1
        assert (batch.x.dtype, batch.x.shape, batch.y.dtype) == (torch.float32, (64, 1, 28, 28), torch.int64)
        torch.testing.assert_close(batch.x, torch.from_numpy(expected.astype(np.float32)), rtol=0, atol=1e-6)
        assert (batch.x.min().item(), batch.x.max().item()) == (-1, 1)
        assert batch.y.tolist() == digits.labels[chosen].tolist()

    def test_labels_travel_with_their_images(self):
        for batch in islice(InfiniteBatches(numbered(10), 7, seed=0), 5):
            assert batch.y.tolist() == [i % 3 for i in ids(batch)]

    def test_unlabelled(self):
        dataset = ArrayDataset(np.zeros((4, 3, 2, 2), np.uint8))
        assert next(InfiniteBatches(dataset, 2, seed=0)).y is None

    def test_a_batch_may_be_larger_than_the_data(self):
        (batch,) = take(1, numbered(4), 10, seed=0)
        assert Counter(batch[:4]) == Counter(batch[4:8]) == Counter(range(4))
        assert len(set(batch[8:])) == 2

    @pytest.mark.parametrize("slow", [False, True])
    @given(
        length=st.integers(1, 30),
        share=st.integers(1, 12),
        world=st.integers(1, 4),
        start=st.integers(0, 99),
        seed=st.integers(0, 5),
    )
    @settings(max_examples=25, deadline=None)
    def test_ranks_together_are_one(self, slow, length, share, world, start, seed):
        options = {"seed": seed, "start": start}
        one = take(3, numbered(length), share * world, **options)
        ranks = [
            take(3, numbered(length, slow=slow), share * world, rank=r, world=world, **options) for r in range(world)
        ]
        assert all(len(batch) == share for rank in ranks for batch in rank)
        assert one == [list(chain(*parts)) for parts in zip(*ranks, strict=True)]

    @pytest.mark.parametrize("slow", [False, True])
    def test_starting_in_the_middle_continues(self, slow):
        dataset = numbered(10, slow=slow)
        whole = take(9, dataset, 4, seed=1)
        for k in range(9):
            assert take(9 - k, dataset, 4, seed=1, start=4 * k) == whole[k:]

    def test_changing_the_batch_size_continues_too(self):
        flat = list(chain(*take(6, numbered(10), 4, seed=1)))
        assert list(chain(*take(2, numbered(10), 6, seed=1, start=12))) == flat[12:24]

    @pytest.mark.parametrize(
        ("size", "options", "message"),
        [
            (10, {"world": 4}, "multiple of the 4 processes, got 10"),
            (0, {}, "positive multiple of the 1 processes, got 0"),
            (4, {"rank": 2, "world": 2}, "rank=2, world=2"),
            (4, {"start": -1}, "start=-1"),
            (4, {"seed": -1}, "seed=-1"),
        ],
    )
    def test_bad_numbers(self, size, options, message):
        with pytest.raises(ValueError, match=message):
            InfiniteBatches(numbered(10), size, **{"seed": 0, **options})


class TestReadingAhead:
    def test_a_zip_read_by_threads_gives_the_right_pictures(self, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 256, (60, 16, 16), np.uint8)
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for i, image in enumerate(pixels):
                with archive.open(f"{i:03d}.png", "w") as file:
                    Image.fromarray(image).save(file, "png")
        with InfiniteBatches(Images(tmp_path / "a.zip").build(), 16, seed=0) as batches:
            for k, batch in enumerate(islice(batches, 40)):
                expected = pixels[stream(0, 60, 16 * k, 16 * (k + 1))]
                np.testing.assert_array_equal(to_uint8(batch.x)[:, 0].numpy(), expected)

    def test_reads_happen_at_the_same_time(self):
        meeting = threading.Barrier(4, timeout=20)
        assert list(read_ahead(lambda i: (meeting.wait(), i)[1], range(8))) == list(range(8))

    def test_only_a_few_batches_ahead(self):
        started = []
        batches = read_ahead(lambda i: started.append(i) or i, count())
        for k in range(3):
            assert next(batches) == k
            time.sleep(0.05)
            assert len(started) <= k + 1 + 4
        batches.close()

    def test_errors_surface_at_their_place(self):
        class Broken(ArrayDataset):
            def read(self, indices):
                if 7 in indices:
                    raise ValueError("7.png cannot be read")
                return super().read(indices)

        dataset = Broken(np.arange(16, dtype=np.uint8).reshape(16, 1, 1, 1))
        dataset.slow = True
        bad = stream(0, 16, 0, 16).tolist().index(7) // 2
        batches = InfiniteBatches(dataset, 2, seed=0)
        for _ in range(bad):
            next(batches)
        with pytest.raises(ValueError, match=r"7\.png cannot be read"):
            next(batches)
        assert not reading_threads()

    def test_no_thread_outlives_its_iterator(self):
        with InfiniteBatches(numbered(10, slow=True), 4, seed=0) as batches:
            next(batches)
            assert reading_threads()
        assert not reading_threads()
        batches.close()  # twice is fine
        batches = InfiniteBatches(numbered(10, slow=True), 4, seed=0)
        next(batches)
        del batches
        assert not reading_threads()

    def test_fast_data_needs_no_threads(self):
        next(InfiniteBatches(numbered(10), 4, seed=0))
        assert not reading_threads()

    def test_the_interpreter_can_exit(self):
        program = """
import time
import numpy as np
from equipoise.data import ArrayDataset, InfiniteBatches

class Slow(ArrayDataset):
    def read(self, indices):
        time.sleep(0.05)
        return super().read(indices)

dataset = Slow(np.zeros((9, 1, 2, 2), np.uint8))
dataset.slow = True
batches = InfiniteBatches(dataset, 4, seed=0)
next(batches)
print("done")
"""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


class TestResident:
    """Images that stay on a device, whose place the processor takes here."""

    @pytest.mark.parametrize("slow", [False, True])
    def test_batches_are_the_same_bit_for_bit(self, slow, monkeypatch):
        monkeypatch.setattr(resident, "CHUNK", 3)  # so that it is brought there in parts
        dataset = numbered(20, slow=slow)
        there = Resident(dataset, torch.device("cpu"))
        assert (there.spec, there.class_names, len(there), there.slow) == (dataset.spec, list("abc"), 20, False)
        options = {"seed": 3, "start": 8, "rank": 1, "world": 2}
        with InfiniteBatches(dataset, 8, **options) as ours, InfiniteBatches(there, 8, **options) as theirs:
            for a, b in islice(zip(ours, theirs, strict=True), 12):
                assert torch.equal(a.x, b.x)
                assert torch.equal(a.y, b.y)

    def test_it_reads_as_its_source_does(self):
        source, indices = Digits().build(), np.array([9999, 0, 17, 17])
        there = Resident(source, torch.device("cpu"))
        np.testing.assert_array_equal(there.read(indices), source.read(indices), strict=True)
        np.testing.assert_array_equal(there.labels, source.labels)

    def test_unlabelled(self):
        there = Resident(ArrayDataset(np.zeros((4, 3, 2, 2), np.uint8)), torch.device("cpu"))
        assert there.take(np.arange(2))[1] is None
        assert next(InfiniteBatches(there, 2, seed=0)).y is None

    def test_what_stays_and_what_does_not(self, monkeypatch):
        """A GPU that says it has 4,000 bytes free; a set of 1,000 is just a quarter of it."""
        made = []
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4000, 1 << 40))
        monkeypatch.setattr(Resident, "__init__", lambda self, *given: made.append(given))
        gpu = torch.device("cuda", 1)
        sizes = [ArrayDataset(np.zeros((n, 1, 10, 10), np.uint8)) for n in (10, 11)]
        there = resident.resident(sizes[0], gpu)
        assert resident.resident(there, gpu) is there
        assert resident.resident(sizes[1], gpu) is sizes[1]
        assert resident.resident(sizes[0], "cpu") is sizes[0]
        monkeypatch.setattr(resident, "PATIENCE", 0.0)
        assert resident.resident(sizes[0], gpu) is sizes[0]
        assert made == [(sizes[0], gpu)]

    def test_who_says_no_is_not_asked(self, monkeypatch):
        monkeypatch.setattr(batches, "resident", lambda dataset, device: pytest.fail("asked"))
        assert take(2, numbered(20), 8, seed=3, keep=False) == take(
            2, Resident(numbered(20), torch.device("cpu")), 8, seed=3, keep=False
        )

    def test_patience_is_for_all_images(self, monkeypatch):
        """256 of 2,560 images are read, in 5 seconds of a clock that we turn."""
        now, asked = [0.0], []

        class Clocked(ArrayDataset):
            def read(self, indices):
                asked.append(indices)
                now[0] += 5
                return super().read(indices)

        monkeypatch.setattr(resident.time, "perf_counter", lambda: now[0])
        dataset = Clocked(np.zeros((2560, 1, 1, 1), np.uint8))
        assert resident.quick(dataset)  # 50 seconds
        assert (len(asked[0]), asked[0][0], asked[0][-1], len(set(asked[0]))) == (256, 0, 2559, 256)
        assert not resident.quick(Clocked(np.zeros((3328, 1, 1, 1), np.uint8)))  # 65 seconds


class TestPixels:
    def test_formula_and_inverse_for_every_byte(self):
        x = torch.arange(256, dtype=torch.uint8)
        exact = x.double() / 127.5 - 1
        torch.testing.assert_close(to_float(x).double(), exact, rtol=0, atol=1e-7)
        assert to_float(x).dtype == torch.float32
        assert torch.equal(to_uint8(to_float(x)), x)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
    def test_rounding_and_clamping(self, dtype):
        x = torch.tensor([-9.0, -1.0, -1 + 1 / 256, 0.0, 0.5, 1.0, 1.25, 9.0], dtype=dtype)
        assert to_uint8(x).tolist() == [0, 0, 0, 128, 191, 255, 255, 255]

    def test_nearest_byte(self):
        x = torch.linspace(-1, 1, 5001, dtype=torch.float64)
        distance = (to_float(to_uint8(x)).double() - x).abs().max().item()
        assert 0.9 / 255 < distance < 1.001 / 255

    def test_arguments_are_left_alone(self):
        x = torch.rand(8) * 2 - 1
        before = x.clone()
        to_uint8(x)
        assert torch.equal(x, before)
