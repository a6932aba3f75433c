"""What all tests share: a seeded generator, and examples of hypothesis that are the same on every run.

`HYPOTHESIS_PROFILE=explore` draws new examples instead.
"""

import os
import tempfile

import hypothesis
import numpy as np
import pytest

hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# A cache of its own for every run: no test may pass or fail because of what an earlier run left on the disk.
_CACHE = tempfile.TemporaryDirectory(prefix="graphc-tests-", ignore_cleanup_errors=True)
os.environ["GRAPHC_CACHE_DIR"] = _CACHE.name


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same on every run."""
    return np.random.default_rng(20240607)
