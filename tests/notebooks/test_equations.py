"""Every display equation of the book against the package, and every plausible wrong version of it caught."""

import json
import os
import re
import subprocess
import sys
import zlib

import numpy as np
import pytest

from tests import pages
from tests.equations import PRINTED, by_chapter
from tests.waiting import PATIENCE

CHAPTERS = by_chapter()
EQUATIONS = {label: entry for chapter in CHAPTERS.values() for label, entry in chapter.EQUATIONS.items()}
WRONG = [(label, name) for label, entry in EQUATIONS.items() for name in entry.wrong]
BARE = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
AGREE = {"rtol": 1e-9, "atol": 1e-12}
AGREE_FLOAT32 = {"rtol": 1e-4, "atol": 1e-6}
DIFFER = {"rtol": 1e-6, "atol": 1e-9}  # a wrong version must be wrong by more than this


def arrays(value):
    """Return a value as a list of arrays: a number, an array, a tensor, or a nest of them."""
    if hasattr(value, "detach"):
        value = value.detach().numpy()
    try:
        return [np.asarray(value)]
    except ValueError:  # parts of different shapes
        return [array for part in value for array in arrays(part)]


def same(left, right, **tolerance):
    """Say whether two values agree in shape and entries; NaN agrees with NaN."""
    left, right = arrays(left), arrays(right)
    return len(left) == len(right) and all(
        a.shape == b.shape and np.allclose(a, b, equal_nan=True, **tolerance) for a, b in zip(left, right, strict=True)
    )


def agreement(*values):
    """Return the tolerance for the coarsest dtype among the values."""
    return AGREE_FLOAT32 if any(a.dtype == np.float32 for value in values for a in arrays(value)) else AGREE


def cases(label):
    """Return the random cases of an equation, from a seed of its own."""
    return EQUATIONS[label].cases(np.random.default_rng(zlib.crc32(label.encode())))


def page_of():
    """Return the page of each label of a display equation."""
    return {label: path for path in pages.PAGES for label, _ in pages.equations(path) if label}


def test_every_display_equation_has_a_label():
    bare = [
        f"{path.name}: {tex.splitlines()[0]}"
        for path in pages.PAGES
        for label, tex in pages.equations(path)
        if not label and pages.REFUTED not in tex
    ]
    pages.none(bare, f"write $$ ... $$ (eq-...), or, when it is quoted to be refuted, a line {pages.REFUTED!r} inside")


def test_display_equations_are_written_in_one_way():
    other = [
        f"{path.name}: {found}"
        for path in pages.PAGES
        for found in re.findall(r"^\\begin\{\w+\*?\}|^[`:]{3,}\{math\}|^\\\[", pages.without_equations(path), re.M)
    ]
    assert other == [], (
        "write display equations as $$ ... $$ (eq-...), with aligned inside where there are several lines"
    )


def test_every_label_has_an_entry():
    known = set(EQUATIONS).union(*(chapter.DEFINITIONS for chapter in CHAPTERS.values()))
    missing = sorted(f"{path.stem}: {label}" for label, path in page_of().items() if label not in known)
    pages.none(missing, "each label needs an Equation, or a place in DEFINITIONS, in tests/equations/<chapter>.py")


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_entry_has_a_label(chapter):
    module, where = CHAPTERS[chapter], page_of()
    stale = [label for label in [*module.EQUATIONS, *sorted(module.DEFINITIONS)] if label not in where]
    pages.none(stale, "no display equation of the book carries these labels")
    moved = [label for label in [*module.EQUATIONS, *sorted(module.DEFINITIONS)] if where[label].stem != chapter]
    pages.none(moved, "these labels are on another page: move their entries to its file")
    assert module.DEFINITIONS.isdisjoint(module.EQUATIONS), "a label is a definition or an equation, not both"


@pytest.mark.parametrize("label", EQUATIONS)
class TestEquation:
    """What the page prints is what the package computes."""

    def test_on_random_cases(self, label):
        entry, some = EQUATIONS[label], cases(label)
        assert some, "there are no cases"
        for number, case in enumerate(some):
            printed, package = entry.printed(**case), entry.package(**case)
            assert same(printed, package, **agreement(printed, package)), (
                f"{label}, case {number}: the page says {printed}, the package {package}, for {case}"
            )

    def test_on_paper(self, label):
        entry = EQUATIONS[label]
        case, value = entry.closed
        for name, function in (("page", entry.printed), ("package", entry.package)):
            found = function(**case)
            assert same(found, value, **agreement(found)), f"{label}: the {name} says {found}, paper says {value}"

    def test_has_a_wrong_version(self, label):
        assert EQUATIONS[label].wrong, f"{label}: name at least one plausible way to get it wrong"


@pytest.mark.parametrize(("label", "name"), WRONG)
def test_wrong_version_is_caught(label, name):
    entry = EQUATIONS[label]
    tried = [*cases(label), entry.closed[0]]
    assert any(not same(entry.wrong[name](**case), entry.package(**case), **DIFFER) for case in tried), (
        f"{label}: the wrong version {name!r} gives what the package gives in all {len(tried)} cases"
    )


def test_pages_print_what_was_transcribed():
    """The registry cannot read TeX: a changed equation must be transcribed again, and this notices the change."""
    was, now = json.loads(PRINTED.read_text(encoding="utf-8")), pages.printed()
    changed = [label for label in sorted(was.keys() | now.keys()) if was.get(label) != now.get(label)]
    pages.none(
        [f"{label}\n    was {was.get(label)}\n    is  {now.get(label)}" for label in changed],
        "bring the entries of these equations in line with the page, then run `python -m tests.equations`",
    )


def test_pages_are_read_without_pytest():
    """`python -m tests.equations` has no path to the tools but from the root."""
    subprocess.run([sys.executable, "-c", "import tests.pages"], cwd=pages.ROOT, env=BARE, check=True, timeout=PATIENCE)


def test_docstrings_name_labels_of_the_book():
    defined = {label for path in pages.PAGES for label in pages.labels(path)}
    unknown = [
        f"{path.name}: {label}"
        for path in sorted((pages.ROOT / "divergence_notes").rglob("*.py"))
        for label in re.findall(r"``((?:ch|eq|thm|fig|ex)-[\w-]+)``", path.read_text(encoding="utf-8"))
        if label not in defined
    ]
    pages.none(unknown, "docstrings of the package name labels that no page defines")


class TestComparison:
    """The comparison itself tells a right formula from a wrong one."""

    @pytest.mark.parametrize(
        ("left", "right", "expected"),
        [
            (1.0, 1.0 + 1e-14, True),
            (1.0, 1.0 + 1e-5, False),
            (np.ones(2), np.ones((2, 1)), False),
            ((1.0, np.ones(2)), [1.0, np.ones(2)], True),
            ((1.0, 2.0), (1.0,), False),
            (np.nan, np.nan, True),
            (True, False, False),
        ],
    )
    def test_same(self, left, right, expected):
        assert same(left, right, **AGREE) is expected
