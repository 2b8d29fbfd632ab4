"""The equations of the book, as printed, beside the package that computes them.

One module a chapter, named like it. Each holds two names:

    EQUATIONS: dict[str, Equation]      by label: the right-hand side as the page prints it, and ways to get it wrong
    DEFINITIONS: set[str]               labels of display equations that only name something and assert nothing

`tests/notebooks/test_equations.py` compares them with each other and with the labels found in the book. It cannot read
TeX, so printed.json holds the TeX that was transcribed: when a page prints something else, the entry is to be looked at
again. `python -m tests.equations` writes printed.json.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PRINTED = Path(__file__).with_name("printed.json")


@dataclass(frozen=True)
class Equation:
    """A display equation that asserts something. All functions take the same keyword arguments."""

    printed: Callable[..., Any]
    """What the page prints, transcribed by hand; calls nothing of the package."""

    package: Callable[..., Any]
    """The same quantity out of the package."""

    cases: Callable[[np.random.Generator], list[dict]]
    """Random instances: a list of keyword arguments."""

    closed: tuple[dict, Any]
    """Keyword arguments whose value is known on paper, and that value."""

    wrong: dict[str, Callable[..., Any]]
    """Plausible wrong versions by name; each must differ from the package on some case."""


def by_chapter():
    """Return the modules of this folder by name."""
    names = [found.name for found in pkgutil.iter_modules(__path__) if found.name != "__main__"]
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}
