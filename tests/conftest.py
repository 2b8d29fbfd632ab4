"""What every test shares. It imports the package nowhere: the shape hook must be in place before the first import."""

import os
import sys

import numpy as np
import pytest
from hypothesis import settings

from tests.browser import address as address
from tests.browser import browser as browser

settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("few", settings.get_profile("fixed"), max_examples=5)  # of tools/check.py
settings.load_profile("fixed")

os.environ.setdefault("MPLBACKEND", "agg")

FIRST = [
    "coursework/test_grade.py",
    "site/test_browser.py",
    "coursework/test_class.py",
    "test_studies_control.py",
    "test_preqn.py",
    "notebooks/test_corrections.py",
    "coursework/test_border.py",
    "coursework/test_course.py",
    "notebooks/test_lab.py",
    "notebooks/test_claims_preqn.py",
    "project/test_check.py",
    "site/test_book_site.py",
    "coursework/test_reading.py",  # when its class has been graded
]
"""The files that take longest, the longest first: a worker that began one of them last would end after the others."""


def place(test):
    """Return where a test, by its id, comes among the files: the longest in front, the others behind as they are."""
    name = test.partition("::")[0].removeprefix("tests/")
    return FIRST.index(name) if name in FIRST else len(FIRST)


@pytest.hookimpl(optionalhook=True)  # an environment of `make check PYTHON=...` has no xdist
def pytest_xdist_auto_num_workers():
    """One worker more than there are cores: the tests wait for browsers, kernels and the ends of time limits."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(config, items):
    """Where several workers share the tests by files, let them begin with the longest (--no-loadscope-reorder)."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: place(item.nodeid))


@pytest.fixture(autouse=True)
def checked_distributions():
    """Let torch check the numbers of distributions again: torch.compile turns that off for the whole process."""
    yield
    if "torch.distributions" in sys.modules:
        sys.modules["torch.distributions"].Distribution.set_default_validate_args(True)


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
