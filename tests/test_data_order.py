"""The order of images: a permutation in every epoch, the same from any start, and without visible order."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, chisquare, poisson

from equipoise.data import order
from equipoise.data.order import LONGEST_TABLE, Shuffle, permutation, stream

SMALL = settings(max_examples=60, deadline=None)
LONG = LONGEST_TABLE + 7


@pytest.fixture(params=["table", "no table"])
def either(request, monkeypatch):
    """Both ways of making an order, for sets of any length."""
    monkeypatch.setattr(order, "LONGEST_TABLE", 1 << 60 if request.param == "table" else 0)


def whole(seed: int, epoch: int, length: int) -> np.ndarray:
    return Shuffle(seed, epoch, length)(np.arange(length))


class TestStream:
    def test_each_epoch_is_a_permutation(self, either):
        @given(seed=st.integers(0, 2**63), length=st.integers(1, 50), epoch=st.integers(0, 1000))
        @SMALL
        def check(seed, length, epoch):
            assert sorted(stream(seed, length, epoch * length, (epoch + 1) * length)) == list(range(length))

        check()

    def test_any_piece_equals_its_parts(self, either):
        @given(st.integers(0, 9), st.integers(1, 20), st.integers(0, 200), st.integers(1, 100), st.integers(0, 100))
        @SMALL
        def check(seed, length, start, size, cut):
            middle = start + min(cut, size)
            parts = [stream(seed, length, a, b) for a, b in ((start, middle), (middle, start + size)) if b > a]
            whole = stream(seed, length, start, start + size)
            np.testing.assert_array_equal(whole, np.concatenate(parts), strict=True)
            assert whole[-1] == stream(seed, length, start + size - 1, start + size)[0]  # a function of the position

        check()

    def test_seeds_and_epochs_differ(self, either):
        orders = {tuple(stream(seed, 100, 100 * e, 100 * (e + 1))) for seed in range(5) for e in range(5)}
        assert len(orders) == 25

    def test_all_orders_are_equally_likely(self):
        epochs = stream(0, 3, 0, 3 * 6000).reshape(-1, 3)
        frequencies = Counter(map(tuple, epochs.tolist()))
        assert len(frequencies) == 6
        assert all(abs(n - 1000) < 150 for n in frequencies.values())  # 5 standard deviations

    def test_which_of_both_is_used(self):
        most, more = LONGEST_TABLE, LONGEST_TABLE + 1
        np.testing.assert_array_equal(stream(1, most, most, most + 9), permutation(1, 1, most)[:9])
        np.testing.assert_array_equal(stream(1, more, more, more + 9), Shuffle(1, 1, more)(np.arange(9)))

    def test_the_order_of_old_runs(self):
        """A run that is resumed years later goes on in the same order."""
        assert stream(0, 10_000, 9_998, 10_004).tolist() == [2173, 5295, 4583, 7182, 1459, 1911]
        assert stream(7, 2_000_000, 1_999_998, 2_000_004).tolist() == [
            251233,
            1880076,
            1254479,
            1519065,
            1586925,
            1097385,
        ]
        assert stream(2**63, 2**40, 10**15, 10**15 + 3).tolist() == [1011931986745, 559347011106, 850855390581]

    def test_memory_and_time_do_not_depend_on_the_length(self):
        tracemalloc.start()
        try:
            assert len(np.unique(stream(0, 10**12, 10**15, 10**15 + 1000))) == 1000
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 1 << 18


class TestShuffle:
    @pytest.mark.parametrize("lengths", [range(1, 258), [1023, 1024, 1025, 4095, 4096, 4097, 65537, 100_003]])
    def test_it_is_a_permutation_of_every_length(self, lengths):
        for length in lengths:
            np.testing.assert_array_equal(np.sort(whole(length, 1, length)), np.arange(length))

    def test_it_is_one_of_a_long_set(self):
        found = whole(0, 0, LONG)
        assert found.dtype == np.int64
        assert (np.bincount(found, minlength=LONG) == 1).all()

    @pytest.mark.parametrize("length", [1, 2, 3, 37, 1000, 2**21, 2_000_003, 2**33 + 1, 10**12])
    def test_against_whole_numbers_of_any_size(self, length):
        """The same network in Python's own integers."""
        bits = (length - 1).bit_length()
        low = bits // 2
        keys = np.random.SeedSequence((3, 5, 0xDA7A)).generate_state(8, np.uint64).tolist()

        def mixed(x):
            x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
            x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
            return x ^ (x >> 31)

        def walked(x):
            right, left = x % 2**low, x >> low
            for first, second in zip(keys[::2], keys[1::2], strict=True):
                right ^= mixed(left ^ first) % 2**low
                left ^= mixed(right ^ second) % 2 ** (bits - low)
            y = (left << low) + right
            return y if y < length else walked(y)

        positions = [i % length for i in (0, 1, 17, length // 3, length - 1)]
        assert Shuffle(3, 5, length)(np.array(positions)).tolist() == [walked(i) for i in positions]

    def test_a_position_alone_finds_what_it_does_among_others(self):
        found = whole(1, 2, 1000)
        assert [Shuffle(1, 2, 1000)(np.array([i]))[0] for i in range(0, 1000, 37)] == found[::37].tolist()

    def test_positions_are_left_alone(self):
        positions = np.arange(100)
        Shuffle(0, 0, 100)(positions)
        np.testing.assert_array_equal(positions, np.arange(100))


N = 90_001
"""Two thirds of a power of two: about a third of the images are found by walking on."""


@pytest.fixture(scope="module")
def epochs():
    return [whole(11, e, N) for e in range(8)]


class TestNoVisibleOrder:
    """Against a uniform permutation p of n. Each bound is some five standard deviations, on both sides."""

    def test_serial_correlation(self, epochs):
        for p in epochs:
            for lag in (1, 2, 3, 64, 256, 512, 1024, 4096):
                assert abs(np.corrcoef(p[:-lag], p[lag:])[0, 1]) < 5 / N**0.5

    def test_mean_displacement(self, epochs):
        """E |p(i) - i| = (n² - 1) / 3n, with variance about n² / 18 each."""
        for p in epochs:
            mean = np.abs(p - np.arange(N)).mean()
            assert abs(mean - N / 3) < 5 * N / (18 * N) ** 0.5

    def test_epochs_and_seeds_are_unrelated(self, epochs):
        others = [*epochs[1:], whole(12, 0, N), whole(10, 0, N)]
        for p in others:
            assert abs(np.corrcoef(epochs[0], p)[0, 1]) < 5 / N**0.5
            assert abs(int((p == epochs[0]).sum()) - 1) < 8  # poisson(1)

    @pytest.mark.parametrize("part", [lambda p: p * 16 // N, lambda p: p % 16], ids=["high", "low"])
    @pytest.mark.parametrize("lag", [1, 2, 16, 256, 512])
    def test_neighbours_in_a_batch(self, epochs, part, lag):
        """Pairs of sixteenths at positions i and i + lag, all 256 alike; a permutation's are a little too even."""
        for p in epochs:
            pairs = np.bincount(part(p)[:-lag] * 16 + part(p)[lag:], minlength=256)
            assert chi2.ppf(1e-6, 255) < chisquare(pairs).statistic < chi2.ppf(1 - 1e-6, 255)

    @pytest.mark.parametrize("position", [0, 1, LONG - 1])
    def test_what_is_at_a_position_over_epochs(self, position):
        found = np.array([Shuffle(5, e, LONG)(np.array([position]))[0] for e in range(1600)])
        for bins in (found * 16 // LONG, found % 16):
            assert chi2.ppf(1e-5, 15) < chisquare(np.bincount(bins, minlength=16)).statistic < chi2.ppf(1 - 1e-5, 15)

    def test_fixed_points_and_successions_are_as_rare_as_by_chance(self):
        """Each is Poisson(1) of a permutation, and independent over keys."""
        orders = [whole(seed, 0, 700) for seed in range(400)]
        fixed = sum(int((p == np.arange(700)).sum()) for p in orders)
        after = sum(int((np.diff(p) == 1).sum()) for p in orders)
        for found in (fixed, after):
            assert poisson.ppf(1e-6, 400) < found < poisson.ppf(1 - 1e-6, 400)
