"""What all tests share: a seeded generator, and a failure for every NumPy warning that a test did not expect."""

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same on every run."""
    return np.random.default_rng(20240607)
