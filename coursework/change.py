"""Making a course anew while students are handing in: aside, checked against what is there, and moved at the end.

`make course` writes everything into `.aside` in the course directory. When all of it is whole it writes down so, and
only then `settle` takes the gradebook's cells over and moves the folders. If that is interrupted, the next command goes
on with it. The gradebook stays in its place, since a formgrader may be writing to it: its cells are changed in one
transaction, and no mark and no comment is ever removed.
"""

import json
import shutil
from pathlib import Path

import whole
from marks import gradebook
from roster import Refused

ASIDE = ".aside"
WHOLE = "whole.json"
FOLDERS = ("source", "release", "solution")
FILES = ("seed.txt", "nbgrader_config.py")
COLUMNS = {
    "GradeCell": ("name", "max_score", "cell_type"),
    "SolutionCell": ("name",),
    "SourceCell": ("name", "cell_type", "locked", "source", "checksum"),
}
"""What a build says about the cells of an assignment, in the gradebook's kinds of cells."""


def aside(root):
    """Return an empty folder in which a course is made."""
    place = root / ASIDE
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    return place


def ready(root, place, names, release):
    """Write down that what was made in `place` is whole."""
    said = {"names": list(names), "release": str(Path(release).resolve())}
    whole.write(place / WHOLE, json.dumps(said) + "\n")


def settle(root):
    """Move what was made aside to its place, if it is whole; what is not is of no use to anybody."""
    place = root / ASIDE
    try:
        said = json.loads((place / WHOLE).read_text(encoding="utf-8"))
    except OSError:
        return
    if (place / "gradebook.db").exists():
        take_cells(root, place, said["names"])
        (place / "gradebook.db").unlink()
    release = Path(said["release"])
    for name in said["names"]:
        for folder in FOLDERS:
            _move(place / folder / name, root / folder / name)
        _move(place / "handout" / name, release / name)
    _move(place / "handout" / "README.md", release / "README.md")
    for name in FILES:
        _move(place / name, root / name)
    (place / WHOLE).unlink()
    shutil.rmtree(place)


def _move(new, old):
    """Put a file or a folder in the place of another; where it was moved already, there is nothing to do."""
    if not new.exists():
        return
    old.parent.mkdir(parents=True, exist_ok=True)
    if old.is_dir():
        shutil.rmtree(old)
    shutil.move(new, old)


def _notebook(gradebook, name):
    """Return an assignment's notebook in a gradebook, or None."""
    from nbgrader.api import MissingEntry

    try:
        return gradebook.find_notebook(name, name)
    except MissingEntry:
        return None


def _cells(notebook):
    """Return the cells of a notebook, by their kind and name."""
    return {(type(cell), cell.name): cell for cell in [*_answers(notebook), *notebook.source_cells]}


def _answers(notebook):
    """Return the cells of a notebook that have marks or comments."""
    return [*notebook.grade_cells, *notebook.solution_cells]


def check(root, place, names):
    """Refuse a change that would cost somebody marks.

    Raises
    ------
    Refused
        If a graded cell or an answer is gone to which there are submissions.
    """
    if not (root / "gradebook.db").exists():
        return
    with gradebook(root) as old, gradebook(place) as new:
        for name in names:
            before, after = _notebook(old, name), _notebook(new, name)
            if before is None or not before.submissions:
                continue
            there = {(type(cell), cell.name) for cell in _answers(after)}
            lost = [cell.name for cell in _answers(before) if (type(cell), cell.name) not in there]
            if lost:
                raise Refused(
                    f"{name}: {lost[0]} is gone from coursework/source, and {len(before.submissions)} have handed in "
                    "work with it. Put it back; if it must not count, let it weigh 0: in term.toml, under "
                    f"[points.{name}], write the name of its graded cell and = 0"
                )


def take_cells(root, place, names):
    """Bring the gradebook's cells up to those that were made, in one transaction."""
    from nbgrader.api import Comment, Grade, GradeCell, SolutionCell

    with gradebook(root) as old, gradebook(place) as new:
        for name in names:
            old.update_or_create_assignment(name)
            made = _notebook(new, name)
            notebook = old.update_or_create_notebook(name, name, kernelspec=made.kernelspec)
            before, after = _cells(notebook), _cells(made)
            for key, cell in after.items():
                given = {attribute: getattr(cell, attribute) for attribute in COLUMNS[key[0].__name__]}
                if key in before:
                    for attribute, value in given.items():
                        setattr(before[key], attribute, value)
                    continue
                added = key[0](**given, notebook=notebook)
                old.db.add(added)
                for submission in notebook.submissions:
                    if key[0] is GradeCell:
                        old.db.add(Grade(cell=added, notebook=submission))
                    elif key[0] is SolutionCell:
                        old.db.add(Comment(cell=added, notebook=submission))
            for key, cell in before.items():
                if key not in after:
                    old.db.delete(cell)
            old.db.commit()


def tell(root, say):
    """Say what a change has put out of date."""
    import grade

    for name in sorted({path.name for path in (root / "submitted").glob("*/*")}):
        late = sum(grade.standing(root, name, student) == "out of date" for student in grade.students(root, name))
        if late:
            say(f"{late} of {name} are out of date: grade.py autograde {name} grades them again, and says who gained.")
