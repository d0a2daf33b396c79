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

from equipoise.data import ArrayDataset, Digits, Images, InfiniteBatches, to_float, to_uint8
from equipoise.data.batches import stream
from equipoise.data.reading import read_ahead

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


class TestOrder:
    @given(seed=st.integers(0, 2**63), length=st.integers(1, 50), epoch=st.integers(0, 1000))
    @SMALL
    def test_each_epoch_is_a_permutation(self, seed, length, epoch):
        assert sorted(stream(seed, length, epoch * length, (epoch + 1) * length)) == list(range(length))

    @given(st.integers(0, 9), st.integers(1, 20), st.integers(0, 200), st.integers(1, 100), st.integers(0, 100))
    @SMALL
    def test_any_piece_equals_its_parts(self, seed, length, start, size, cut):
        middle = start + min(cut, size)
        parts = [stream(seed, length, a, b) for a, b in ((start, middle), (middle, start + size)) if b > a]
        whole = stream(seed, length, start, start + size)
        np.testing.assert_array_equal(whole, np.concatenate(parts))
        assert whole[-1] == stream(seed, length, start + size - 1, start + size)[0]  # a function of the position

    def test_seeds_and_epochs_differ(self):
        orders = {tuple(stream(seed, 100, 100 * e, 100 * (e + 1))) for seed in range(5) for e in range(5)}
        assert len(orders) == 25

    def test_all_orders_are_equally_likely(self):
        epochs = stream(0, 3, 0, 3 * 6000).reshape(-1, 3)
        frequencies = Counter(map(tuple, epochs.tolist()))
        assert len(frequencies) == 6
        assert all(abs(n - 1000) < 150 for n in frequencies.values())  # 5 standard deviations


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
