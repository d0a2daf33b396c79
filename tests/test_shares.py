from __future__ import annotations

import pytest
import torch
from loops import loop_over
from processes import on_two_processes

from equipoise.compute.shares import rank_0_first, share, together
from equipoise.core.types import RunError

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def test_one_process_does_everything():
    assert list(share("abcde")) == list("abcde")
    assert together(lambda: map(str.upper, share("abcde"))) == list("ABCDE")
    assert together(lambda: share([])) == []
    assert rank_0_first(lambda: 3) == 3


@loop_over("num", [0, 1, 4, 5])
def test_two_processes_share_out_and_find_all_in_order(tmp_path, num):
    def work(rank):
        own = list(share(range(num)))
        return own, together(lambda: (10 * item for item in share(range(num))))

    assert on_two_processes(work, tmp_path / "two") == [
        (list(range(rank, num, 2)), [10 * item for item in range(num)]) for rank in (0, 1)
    ]


@loop_over("kind", [ValueError, RunError])
@loop_over("failing", [0, 1])
def test_what_one_process_raises_all_raise(tmp_path, failing, kind):
    def work(rank):
        def own():
            yield rank
            if rank == failing:
                raise kind("batch 7 is bad")

        with pytest.raises(kind, match="batch 7 is bad"):
            together(own)
        return together(lambda: [rank])  # and they still talk

    assert on_two_processes(work, tmp_path / "two") == [[0, 1], [0, 1]]


def test_rank_0_goes_first(tmp_path):
    def work(rank):
        def fetch():
            found = (tmp_path / "fetched").exists()
            (tmp_path / "fetched").touch()
            return torch.tensor([rank, found])

        return rank_0_first(fetch)

    assert [made.tolist() for made in on_two_processes(work, tmp_path / "two")] == [[0, 0], [1, 1]]
