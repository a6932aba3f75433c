"""What all tests share: a seeded generator, and examples of hypothesis that are the same on every run.

`HYPOTHESIS_PROFILE=explore` draws new examples instead.
"""

import os

import hypothesis
import numpy as np
import pytest

hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same on every run."""
    return np.random.default_rng(20240607)
