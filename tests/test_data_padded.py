"""Images in a black frame: `Padded`."""

from __future__ import annotations

import numpy as np
import pytest

from equipoise.data import Digits, InfiniteBatches, Padded, StackedDigits


def test_the_image_is_in_the_middle_of_a_black_square():
    digits, which = Digits().build(), np.array([5, 0, 9999])
    for resolution in (28, 31, 32):
        framed = Padded(resolution=resolution).build()
        expected = np.pad(
            digits.read(which),
            [(0, 0), (0, 0), *[((resolution - 28) // 2, (resolution - 27) // 2)] * 2],  # the odd pixel comes last
        )
        np.testing.assert_array_equal(framed.read(which), expected)
        assert framed.spec.resolution == resolution
        assert framed.spec.num_classes == 10
        assert framed.labels is not None
        assert (framed.labels == digits.labels).all()
    assert Padded(of=StackedDigits(num=3), resolution=40).build().read(np.arange(3)).shape == (3, 3, 40, 40)


def test_black_is_minus_one_in_training():
    x = next(InfiniteBatches(Padded().build(), 4, seed=0)).x
    assert x.shape == (4, 1, 32, 32)
    assert (x[:, :, [0, 1, 30, 31]] == -1).all()
    assert (x[:, :, 2:30, 2:30] > 0).any()


def test_a_frame_does_not_shrink():
    with pytest.raises(ValueError, match=r"these have 28x28 pixels, and resolution=27 is smaller.*Give a resolution"):
        Padded(resolution=27).build()
