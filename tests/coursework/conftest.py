"""The course that all of these tests look at: made once, and its class graded in one batch."""

import os
import shutil
import sys
from pathlib import Path

import course
import grade
import nbformat
import pytest

from tests.coursework import submissions
from tests.coursework.assignments import DAILY, NAMES, SEED
from tests.waiting import once


@pytest.fixture(scope="package", autouse=True)
def restored():
    """Put back what the interface to nbgrader writes into the environment; its gradebook calls a program by name."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PYTHONPATH", "COURSE_ROOT"):
            patch.setenv(name, os.environ.get(name, ""))
        patch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))  # for alembic
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Return a folder that all processes of this run of the tests have in common."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def made(shared):
    """Return the course directory and the release that `make course` makes; nothing changes them."""
    place = once(
        shared / "course", lambda new: course.build(seed=SEED, root=new / "instructor", release=new / "release")
    )
    return place / "instructor", place / "release"


@pytest.fixture(scope="session")
def batch(made, shared):
    """Return the course directory of a class that hands in all that there is in `submissions`, graded in one batch."""

    def graded(place):
        root = shutil.copytree(made[0], place / "instructor")
        submissions.hand_in(root, made[1], place / "inbox", DAILY)
        submissions.hand_in_trouble(root, made[1], place / "trouble")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GRADER_MARK", f"batch-{place}-")  # other tests may be grading on this machine too
            grade.autograde(root, *DAILY, workers=os.cpu_count())
        wanted = ["control", "honest", "loop_call", "smuggler", "widget"]
        assert grade.feedback(root, "bellman", only=[*wanted, "not_json"]) == wanted
        # What of the control's is shown is as it was written: nothing was cleaned.
        bare = root / "autograded" / "control" / "bellman" / "bellman.ipynb"
        shown = nbformat.read(bare, as_version=4)
        shown.cells += [nbformat.v4.new_markdown_cell(submissions.SMUGGLED[name]) for name in submissions.BARE]
        bare.chmod(0o644)  # nbgrader leaves it for reading only, and only root may write into it all the same
        bare.write_text(nbformat.writes(shown), encoding="utf-8")

    return once(shared / "batch", graded) / "instructor"


@pytest.fixture(scope="session")
def rest(made, shared):
    """Return the course directory of a class that hands in the assignments which `batch` leaves out, in one batch."""
    names = [name for name in NAMES if name not in DAILY]

    def graded(place):
        root = shutil.copytree(made[0], place / "instructor")
        submissions.hand_in(root, made[1], place / "inbox", names)
        grade.autograde(root, *names, workers=os.cpu_count())

    return once(shared / "rest", graded) / "instructor"


@pytest.fixture
def marked(request, name):
    """Return the course directory in which the assignment of a test was graded."""
    return request.getfixturevalue("batch" if name in DAILY else "rest")
