"""What every test shares: one thread, and random numbers that are the same each time."""

from __future__ import annotations

import hypothesis
import pytest
import torch

torch.set_num_threads(1)

hypothesis.settings.register_profile("equipoise", deadline=None, derandomize=True, database=None, max_examples=50)
hypothesis.settings.load_profile("equipoise")


@pytest.fixture(autouse=True)
def seed():
    """Each test starts from the same state of torch's generator, whichever tests ran before it."""
    torch.manual_seed(0)
