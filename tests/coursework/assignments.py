"""The assignments as they are committed, and what their sources say about them."""

import course
import nbformat
import pytest

NAMES = course.assignments()
DAILY = ("bellman", "key_equation")  # go through nbgrader in `make test`: the pattern of all, and the one with torch
BY_NBGRADER = [pytest.param(name, marks=() if name in DAILY else pytest.mark.nightly) for name in NAMES]
SEED = "a seed of the tests"


def source_of(name):
    """Return the source notebook of an assignment, as committed."""
    return nbformat.read(course.SOURCE / name / f"{name}.ipynb", as_version=4)


def graded_cells(name, *, manual=False):
    """Return the ids and points of the cells that a computer grades, or a person."""
    metas = [cell.metadata.get("nbgrader", {}) for cell in source_of(name).cells]
    return {m["grade_id"]: m["points"] for m in metas if m.get("grade") and m["solution"] == manual}
