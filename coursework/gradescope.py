"""An assignment for Gradescope: an archive that grades one submission there as `grade` does here.

    gradescope.py [ASSIGNMENT...] [--root DIRECTORY] [--show WHEN]

Writes `gradescope/<assignment>.zip` in the course directory, out of what `make course` made last: the questions with
this class's numbers and points, the hidden tests, the seed. Give it to Gradescope and to nobody else. Its form is that
of Gradescope's documents: `setup.sh` and `run_autograder` at the top, all of it in /autograder/source, the submission
in /autograder/submission, and what was found in /autograder/results/results.json. Students see points and what tests
say when grades are published, unless WHEN says otherwise: who sees them at once can try one letter after the other.

How a submission is read, run and judged is in `grader` and `grade`, there as here.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import change
import course
import grade
import marks
import nbformat
import weights
import whole
from grader import intake, sandbox
from grader.preprocessors import MISSING, STUB

WHEN = ("after_published", "after_due_date", "hidden", "visible")
LIMIT = 280
"""Seconds for one submission, which is tried twice. Gradescope gives ten minutes, and then shows nothing of it."""
CODE = ("downloads.py", "environment.py", "make_wheel.py", "reads.py")
CONFIG = "gradescope.json"
WHO = "submission"
"""The name under which the one submission is graded."""
LARGEST = 20_000
"""Characters that are shown of what one test says."""
OPEN = ("divergence_notes", ".venv")
"""What the student's process reads, beside its own side of the grader."""


class NotSafe(Exception):
    """Why nothing is graded on this machine."""


def pack(root, name, place, *, show=WHEN[0]):
    """Write the archive of an assignment; return its path.

    Parameters
    ----------
    root : Path
        A course directory, with what `make course` made.
    name : str
        Of the assignment.
    place : Path
        Where the archive goes, without its ending.
    show : str
        When students see points and what the tests say, one of `WHEN`.
    """
    ignored = shutil.ignore_patterns("__pycache__")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        code = tree / "coursework"
        (code / "questions").mkdir(parents=True)
        for path in (*course.COURSEWORK.glob("*.py"), *(course.COURSEWORK / "questions").glob("__init__.py")):
            shutil.copy(path, code / path.relative_to(course.COURSEWORK))
        shutil.copy(course.COURSEWORK / "questions" / f"{name}.py", code / "questions")
        shutil.copytree(course.COURSEWORK / "grader", code / "grader", ignore=ignored)
        shutil.copytree(course.ROOT / "divergence_notes", tree / "divergence_notes", ignore=ignored)
        (tree / "tools").mkdir()
        for file in CODE:
            shutil.copy(course.ROOT / "tools" / file, tree / "tools")
        shutil.copy(course.ROOT / "pyproject.toml", tree)
        for path in (course.COURSEWORK / "autograder").iterdir():
            shutil.copy(path, tree)
        _course(root, name, tree / "course")
        (tree / CONFIG).write_text(json.dumps({"assignment": name, "show": show}) + "\n", encoding="utf-8")
        _requirements(root, name, tree)
        place.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.make_archive(str(place), "zip", tree))


def _course(root, name, place):
    """Make a course of one assignment, with a gradebook in which nobody has handed anything in."""
    shutil.copytree(root / "source" / name, place / "source" / name)
    shutil.copy(root / "seed.txt", place)
    try:
        course.configure(place)
        course.said(course.nbgrader_api(place).generate_assignment(name, force=True), f"the edition of {name}")
    finally:
        os.environ["COURSE_ROOT"] = str(root)
    shutil.rmtree(place / "release")
    (place / "nbgrader_config.py").unlink()


def _requirements(root, name, tree):
    """Write what has to be installed: what grading and this assignment import, in the versions of the locks."""
    needed = course.reads.needs(nbformat.read(root / "source" / name / f"{name}.ipynb", as_version=4))
    needed -= {path.stem for path in course.COURSEWORK.glob("*.py")}
    dependencies = course.downloads.PROJECT["dependencies"]
    basis = {course.Requirement(line).name for line in dependencies} | {"matplotlib", "packaging", "pyyaml"}
    basis |= needed - course.downloads.modules(dependencies)
    text = course.pinned(basis) + course.pinned({"nbgrader"}, "requirements-test.txt")
    locks = "".join(
        (course.ROOT / lock).read_text(encoding="utf-8") for lock in ("requirements.txt", "requirements-test.txt")
    )
    (tree / "constraints.txt").write_text(locks, encoding="utf-8")
    (tree / "requirements.txt").write_text(f"--constraint constraints.txt\n{text}", encoding="utf-8")


def run(here):
    """Grade the one submission that lies in `here`, and write down what was found."""
    results = here / "results" / "results.json"
    results.parent.mkdir(exist_ok=True)
    results.unlink(missing_ok=True)
    said = json.loads((here / "source" / CONFIG).read_text(encoding="utf-8"))
    start = time.monotonic()
    close(here)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "course")
        shutil.copytree(here / "source" / "course", root)
        course.configure(root)
        found = graded(root, said["assignment"], here / "submission", said["show"])
    whole.write(results, json.dumps(found | {"execution_time": round(time.monotonic() - start)}, indent=1) + "\n")


def close(here):
    """Leave to other users nothing but what the student's process needs, and see that it can have no more.

    Raises
    ------
    NotSafe
        Where the student's code would run as the user whose files the tests are.
    """
    source = here / "source"
    kept = {source, *(source / name for name in ("coursework", *OPEN))}
    kept |= {source / "coursework" / "grader", *(Path(path) for path in sandbox.readable())}
    for folder in (source, source / "coursework", source / "coursework" / "grader"):
        for path in folder.iterdir():
            if path not in kept and not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o700)
    for folder in (here / "results", here / "submission"):
        folder.chmod(0o700)
    print(sandbox.STATEMENTS[sandbox.isolation()])
    if sandbox.isolation() == "process":
        raise NotSafe(
            "Nothing was graded: here a submission could read the tests and write its own results. This needs user "
            "namespaces, or root, setpriv, and a Python that every user may run."
        )


def handed_in(place, name):
    """Return the one notebook of a submission, whatever it is called.

    Raises
    ------
    intake.Unreadable
        If there is none, or several of which none has the right name.
    """
    found = [
        Path(folder, file)
        for folder, inside, files in os.walk(place)
        if not {".ipynb_checkpoints", "__MACOSX"} & {*Path(folder).parts}
        for file in [*files, *inside]
        if file.lower().endswith(".ipynb") and not file.startswith("._")
    ]
    named = [path for path in found if path.name == f"{name}.ipynb"]
    if len(found) != 1 and len(named) != 1:
        names = ", ".join(sorted(path.name for path in found)[:5])
        raise intake.Unreadable(f"is not there: hand in one notebook, {name}.ipynb; there are: {names or 'none'}")
    return (named or found)[0]


def graded(root, name, submission, show):
    """Grade a submission in a course of its own; return what Gradescope reads."""
    target = root / "submitted" / WHO / name / f"{name}.ipynb"
    target.parent.mkdir(parents=True)
    try:
        target.write_bytes(intake.contents(handed_in(submission, name)))
    except intake.Unreadable as reason:
        return _refused(f"The notebook {reason}.")
    grade.autograde(root, name, workers=1, limit=LIMIT)
    outcome = grade.outcome(root, name, WHO)
    if outcome["status"] != "graded" and not outcome["ours"]:
        return _refused(f"{outcome['notes'][0].replace('the', 'The', 1)}.")
    if outcome["status"] != "graded":
        raise RuntimeError(f"{outcome['status']}: {'; '.join(outcome['notes'])}\n{outcome['detail']}")
    with marks.gradebook(root) as book:
        points, _ = marks.counted(book.find_submission(name, WHO))
    notebook = nbformat.read(root / "autograded" / WHO / name / f"{name}.ipynb", as_version=4)
    tests = list(_tests(notebook, marks.questions(root, name, WHO), show))
    read = {"name": "Handed in", "status": "passed", "visibility": "visible"}
    read["output"] = "\n".join(["The notebook could be read.", *(f"{note}." for note in outcome["notes"])])
    return {"score": points, "tests": [read, *tests], "stdout_visibility": "hidden"}


def _refused(sentence):
    return {"score": 0.0, "output": sentence, "output_format": "text", "visibility": "visible", "tests": []}


def _tests(notebook, questions, show):
    """Return what is shown of each cell that is graded, in their order."""
    heading = ""
    for cell in notebook.cells:
        found = weights.HEADING.search(cell.source) if cell.cell_type == "markdown" else None
        heading = found["head"].removeprefix("## ").strip() if found else heading
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if not cell.metadata.get("nbgrader", {}).get("grade"):
            continue
        said = questions[name]
        test = {"name": f"{heading} ({name})", "visibility": show, "output_format": "text"}
        if cell.metadata.nbgrader["solution"]:
            empty = cell.source.strip() in (STUB, "", MISSING["markdown"])
            yield (
                test | {"status": "failed", "output": "There is nothing here."}
                if empty
                else test | {"status": "passed", "output": f"A person reads this, for up to {said['points']:g} points."}
            )
        elif said["points"]:
            yield test | {"score": said["score"], "max_score": said["points"], "output": _said(cell)}
        else:
            yield test | {"status": "passed", "output": "This question does not count."}


def _said(cell):
    texts = [output["text"] for output in cell.outputs if output["output_type"] == "stream"]
    return "".join(texts)[:LARGEST].strip()


def main(words=None):
    """Pack the assignments that the command line names, or grade where Gradescope calls."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assignment", nargs="*", help="without one, all of them")
    parser.add_argument("--root", help="the course directory, if it is not coursework/instructor")
    parser.add_argument("--show", choices=WHEN, default=WHEN[0], help="when students see points and diagnoses")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.here:
        try:
            return run(options.here)
        except NotSafe as reason:
            sys.exit(str(reason))
    root, _, _ = course.places(options.root)
    change.settle(root)
    if not (root / "gradebook.db").exists():
        parser.error(f"{root} is no course: make course writes one")
    names = options.assignment or course.assignments()
    if unknown := [name for name in names if name not in course.assignments()]:
        parser.error(f"{unknown[0]!r} is no assignment; there are {', '.join(course.assignments())}")
    for name in names:
        print(
            f"written to {pack(root, name, root / 'gradescope' / name, show=options.show)}; it is for Gradescope alone"
        )


if __name__ == "__main__":
    main()
