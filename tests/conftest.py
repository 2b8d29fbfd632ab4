"""What every test shares. It imports the package nowhere: the shape hook must be in place before the first import."""

import os

import numpy as np
import pytest
from hypothesis import settings

from tests.browser import address as address
from tests.browser import browser as browser

settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("few", settings.get_profile("fixed"), max_examples=5)  # of tools/check.py
settings.load_profile("fixed")

os.environ.setdefault("MPLBACKEND", "agg")

TOLERANCES = {"float64": {"rtol": 1e-9, "atol": 1e-12}, "float32": {"rtol": 1e-4, "atol": 1e-6}}


@pytest.fixture
def tolerance():
    """Return `tolerance(*arrays)` -> the rtol and atol that suit the coarsest dtype among them."""

    def choose(*arrays):
        coarse = any(str(getattr(array, "dtype", "")).endswith("float32") for array in arrays)
        return TOLERANCES["float32" if coarse else "float64"]

    return choose


@pytest.fixture
def rng():
    """Return a generator with a fixed seed."""
    return np.random.default_rng(20190321)
