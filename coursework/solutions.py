"""Solutions for students: the instructor's edition of an assignment without hidden tests and marking notes."""

from datetime import UTC, datetime

import nbformat
import term
from roster import Refused

MARKS = "**Marks**"
LINES = ("### BEGIN SOLUTION", "### END SOLUTION")


def open_from(dates, assignment):
    """Return when the last of the class has to hand in, or None if nothing says when."""
    due = dates.rule(assignment).due
    later = [when for (name, _), when in dates.later.items() if name == assignment]
    return max([due, *later]) if due else None


def released(root, assignment, release, *, early=False, now=None):
    """Write the solution of an assignment to where what students get is, and return its path.

    Parameters
    ----------
    root, release : Path
        The course directory, and the folder of what students get.
    assignment : str
    early : bool
        Whether it may be before everybody has handed in.
    now : datetime, optional

    Raises
    ------
    Refused
        If somebody may still hand in.
    """
    when, now = open_from(term.of(root) or term.Term(), assignment), now or datetime.now(UTC)
    if not early and (when is None or when > now):
        why = f"{assignment} can be handed in until {when.isoformat()}" if when else f"{assignment} has no due date"
        raise Refused(f"{why}: to release its solution all the same, add --early")
    place = root / "solution" / assignment / f"{assignment}.ipynb"
    if not place.exists():
        raise Refused(f"{assignment} has no solution in {root}: make the course first")
    target = release / f"{assignment}-solution.ipynb"
    nbformat.write(shown(nbformat.read(place, as_version=4)), target)
    return target


def shown(notebook):
    """Return an instructor's edition as students may see it."""
    from nbgrader.preprocessors import ClearHiddenTests

    notebook, _ = ClearHiddenTests().preprocess(notebook, {})
    for cell in notebook.cells:
        lines = [line for line in cell.source.splitlines() if line.strip() not in LINES]
        cell.source = "\n".join(lines).partition(MARKS)[0].rstrip()
        if cell.cell_type == "code" and cell.metadata.pop("nbgrader", {}).get("grade"):
            cell.outputs, cell.execution_count = [], None  # what the hidden tests said
        cell.metadata.pop("nbgrader", None)
    return notebook
