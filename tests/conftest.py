"""What every test shares: one thread, random numbers that are the same each time, and runs that draw little.

torch is imported where tests run: the process that hands them to others does without.
"""

from __future__ import annotations

from unittest.mock import patch

import hypothesis
import pytest

hypothesis.settings.register_profile("equipoise", deadline=None, derandomize=True, database=None, max_examples=50)
hypothesis.settings.load_profile("equipoise")


def pytest_collectstart():
    """In each process that runs tests."""
    import torch

    torch.set_num_threads(1)


def pytest_configure(config):
    """Processes start with halves of the suite, and the first that is done takes from the other.

    So tests of one file, which share fixtures, mostly run in one process.
    """
    if config.getoption("dist", "no") == "load":
        config.option.dist = "worksteal"


@pytest.fixture(autouse=True)
def seed():
    """Each test starts from the same state of torch's generator, whichever tests ran before it."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def draws_little():
    """Grids and standing statistics of runs take few images, which is most of a short run's time.

    A module whose tests are of the numbers themselves overrides this by an empty fixture of the same name.
    """
    from equipoise.generate import standing

    taken = standing.with_standing_statistics

    def of_two_batches(*args, passes=2, **options):
        return taken(*args, passes=min(passes, 2), **options)

    with (
        patch("equipoise.train.snapshot.GRID", 20),
        patch.object(standing, "with_standing_statistics", of_two_batches),
    ):
        yield
