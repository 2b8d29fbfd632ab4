"""Make the editions of the assignments out of `coursework/source`, by nbgrader; how they are graded is in `grade.py`.

    course.py [--seed SEED] [--root DIRECTORY]
    course.py --student [--root DIRECTORY]

Writes `coursework/release`, what students get, and `coursework/instructor`, nbgrader's course directory: the sources
with this class's numbers and points, the solutions with marking notes, the gradebook, the seed. All of it is made
aside and moved last, as `change` says: a build that fails leaves the course as it was. Without a seed that of the last
time is taken, or, the first time, one that nobody knows. With --student it packs `coursework/student`, and a zip file
of it: all that a student needs, and nothing of the solutions. With --root the course is in a directory of its own,
such as one for each section or year, with `handout` and `student` in it.
"""

import argparse
import importlib
import os
import re
import secrets
import shutil
import sys
from pathlib import Path

import change
import marking
import nbformat
import numpy as np
import roster
import term
import weights
from grader import beside
from grader.sandbox import Limits
from packaging.requirements import Requirement

from divergence_notes import grading
from divergence_notes.grading import typed

COURSEWORK = Path(__file__).resolve().parent
SOURCE = COURSEWORK / "source"
ROOT = COURSEWORK.parent
sys.path.append(str(ROOT / "tools"))

import downloads  # noqa: E402
import environment  # noqa: E402
import make_wheel  # noqa: E402
import reads  # noqa: E402

HOW_TO = """# How to work on an assignment

1. {start}
2. Run all. Every question says that it is open. Write your name into the cell that asks for it, as your instructor has
   it in the list of the class: it draws numbers of your own.
3. Answer where it says `...  # your code here`, and keep the names of functions and variables: they are what is graded.
   Add cells as you like. Locked cells are put back before grading. Type numbers and letters in that you predict or
   read; compute them in a cell of your own if you like.
4. Each question's last cell tells you whether your answer runs and has the right form. Practise on the exercises of the
   chapter: `grading.check("ex-bellman-shift", your_function)` tells you what is wrong with an answer.
5. Restart the kernel, run all, save, and hand in the notebook under its own name.

Your code is run again when it is graded, without a network, in {seconds:.0f} seconds at most, with other numbers.
"""
START = "Open the folder that `make student` packed, as its README says: the notebooks are in it."
SET_UP = """In a terminal, in the folder of this file, with Python {pythons}:

       python3 -m venv .venv
       .venv/bin/python -m pip install --requirement requirements.txt
       .venv/bin/python -m jupyter lab

   On Windows write `py -m venv .venv` in the first line, and `.venv\\Scripts\\python` for `.venv/bin/python`. The first
   two lines are needed once. They take less than three minutes where files come quickly, and less than 600 MB.
   The assignments are in `coursework/release/`, the chapters that they link to in `book/`.{more}"""
MORE = """ {names} needs more:
   `.venv/bin/python -m pip install --requirement requirements-{name}.txt`. That is large, up to 2.7 GB on Linux."""
BESIDES = COURSEWORK / "student.md"
"""What students read below that: where to begin, and what to do when nothing goes on."""

SALTED = re.compile(r".+\.[0-9a-f]{32}")


def assignments(source=SOURCE):
    """List the assignments by name."""
    return sorted(path.parent.name for path in source.glob("*/*.ipynb"))


def nbgrader_api(root):
    """Return nbgrader's own interface to the course in `root`."""
    from nbgrader.apps import NbGraderAPI
    from traitlets.config.loader import PyFileConfigLoader

    # The kernels that run solutions, and the hidden tests in them, look here.
    os.environ["COURSE_ROOT"] = str(root)
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(ROOT), str(COURSEWORK)]))
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # for alembic
    return NbGraderAPI(config=PyFileConfigLoader("nbgrader_config.py", path=str(root)).load_config())


def with_parameters(notebook, parameters):
    """Return the notebook with the numbers of a class in the cell tagged `parameters`."""
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    if len(cells) != 1:
        raise ValueError(f"notebook must have one cell tagged parameters, found {len(cells)}")
    cells[0].source = f"PARAMETERS = {parameters!r}"
    return notebook


def with_answers(notebook, name):
    """Return the notebook with right answers in the solutions, where a student has to type them in."""
    given = marking.handed_out(notebook)
    exercises = {e.name: e for e in importlib.import_module(f"questions.{name}").EXERCISES}
    for test in [cell.source for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade")]:
        for answer in typed.asked(test):
            asked, more = re.search(rf'mark\("([\w-]+)", {answer}\b(.*)\)', test).groups()
            (cell,) = (c for c in notebook.cells if re.search(rf"^{answer} = \.\.\.", c.source, re.M))
            if isinstance(typed.find(answer, [cell.source]), typed.Computed):
                numbers = grading.own_numbers("instructor" if "STUDENT" in more else ..., given)
                right = exercises[asked].right(*exercises[asked].draw(np.random.default_rng(0), **numbers))
                right = right.item() if isinstance(right, np.generic) else right
                line = f"{answer} = {right!r}  # typed in\n"
                cell.source = cell.source.replace("### END SOLUTION", f"{line}### END SOLUTION")
    return notebook


def said(result, what):
    """Raise what nbgrader said went wrong."""
    if not result["success"]:
        raise RuntimeError(f"nbgrader could not make {what}:\n{result['log']}\n{result.get('error') or ''}")


def solution(api, name):
    """Make nbgrader's solution of an assignment; its API makes assignments only."""
    from nbgrader.converters import GenerateSolution
    from nbgrader.utils import capture_log, temp_attrs

    with temp_attrs(api.coursedir, assignment_id=name):
        made = GenerateSolution(coursedir=api.coursedir, parent=api)
        made.force = True
        return capture_log(made)


def mistakes(name):
    """Return the foreseen mistakes of an assignment, as Markdown."""
    lines = [f"# Mistakes to expect in {name}", ""]
    for exercise in importlib.import_module(f"questions.{name}").EXERCISES:
        lines += (
            [f"## {exercise.name}", ""]
            + [f"- *{mistake.name}*: {mistake.text}" for mistake in exercise.mistakes]
            + [""]
        )
    return "\n".join(lines)


def places(root=None):
    """Return the course directory, where the release goes, and where what students get is packed."""
    if root is None:
        return COURSEWORK / "instructor", COURSEWORK / "release", COURSEWORK / "student"
    root = Path(root).expanduser().resolve()
    return root, root / "handout", root / "student"


def salted(word, root):
    """Return the seed that a word stands for: with random bytes, since students could try words on their numbers.

    A seed that has them already, and the word of the last time, stay what they are.
    """
    note = root / "seed.txt"
    before = note.read_text(encoding="utf-8").strip() if note.exists() else ""
    if word is None or SALTED.fullmatch(word):
        return word
    return before if word in (before, before.rpartition(".")[0]) else f"{word}.{secrets.token_hex(16)}"


def build(*, seed, root, release, only=None):
    """Make both editions of each assignment, aside, and move them to their places when all are whole.

    Raises
    ------
    roster.Refused
        If what there is of submissions does not allow the change, with a sentence that says what does.
    """
    root.mkdir(parents=True, exist_ok=True)
    change.settle(root)
    names = assignments() if only is None else only
    class_list = roster.of(root)
    dates = term.of(root, assignments=assignments(), students=None if class_list is None else class_list.students)
    note = root / "seed.txt"
    before = note.read_text(encoding="utf-8").strip() if note.exists() else None
    seed = seed or before or secrets.token_hex(16)
    if before not in (None, seed) and any((root / "submitted").glob("*/*")):
        raise roster.Refused(
            f"seed must stay that of {note}: there are submissions with its numbers; for another class or year give "
            "another --root, or make course ROOT=..."
        )
    aside = change.aside(root)
    (aside / note.name).write_text(f"{seed}\n", encoding="utf-8")
    configure(aside)
    try:
        api = nbgrader_api(aside)
        for name in names:
            _assignment(api, name, seed, root if before == seed else None, aside, dates or term.Term())
        change.check(root, aside, names)
        (aside / "handout").mkdir(exist_ok=True)
        how = HOW_TO.format(seconds=Limits().total, start=START)
        (aside / "handout" / "README.md").write_text(how, encoding="utf-8")
        change.ready(root, aside, names, release)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    finally:
        os.environ["COURSE_ROOT"] = str(root)
    change.settle(root)
    return seed


def _assignment(api, name, seed, old, aside, dates):
    """Make the editions of one assignment in `aside`; `old` is the course whose numbers it keeps."""
    target = aside / "source" / name
    target.mkdir(parents=True)
    for path in sorted((SOURCE / name).glob("*.ipynb")):
        notebook = weights.weigh(nbformat.read(path, as_version=4), dates.points.get(name, {}), name)
        notebook = with_answers(with_parameters(notebook, numbers(old, name, seed)), name)
        nbformat.write(notebook, target / path.name)
    said(api.generate_assignment(name, force=True), f"the student's edition of {name}")
    said(solution(api, name), f"the instructor's edition of {name}")
    (aside / "solution" / name / "mistakes.md").write_text(mistakes(name), encoding="utf-8")
    shutil.copytree(aside / "release" / name, aside / "handout" / name)


def configure(place):
    """Write the configuration of nbgrader for a course, of the code that is beside this file."""
    config = (COURSEWORK / "nbgrader_config.py").read_text(encoding="utf-8")
    (place / "nbgrader_config.py").write_text(config.replace("{COURSEWORK}", str(COURSEWORK)), encoding="utf-8")


def numbers(old, name, seed):
    """Return the numbers of an assignment: those that were handed out, where there are some, else newly drawn ones."""
    drawn, place = marking.draw_parameters(name, seed), old and old / "source" / name / f"{name}.ipynb"
    if not place or not place.exists():
        return drawn
    known = marking.handed_out(nbformat.read(place, as_version=4))
    kept = {key: known.get(key, value) for key, value in drawn.items()}
    if kept == drawn:
        return drawn
    if not marking.apart(name, kept):
        raise roster.Refused(
            f"{name}: the questions need other numbers than those that were handed out, {known}; keep the old "
            "questions for this class, or make the course anew with another --root"
        )
    print(f"{name} keeps the numbers that were handed out; another --root and seed draw others.")
    return kept


def pinned(names, lock="requirements.txt"):
    """Return the lines of a lock for these packages: by default that of the book."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    found = {name: re.search(rf"^{re.escape(name)}==\S+", text, re.M | re.I) for name in sorted(names)}
    if missing := [name for name, line in found.items() if line is None]:
        raise ValueError(f"names must be packages of {lock}, got {missing[0]!r}")
    return "".join(f"{line[0]}\n" for line in found.values())


def begin(name):
    """Return an assignment as a row of the table of where to begin: number, minutes, easy exercises of the chapter."""
    import reading_time  # asks for the tools of the site, which are not there where a submission is graded

    text = nbformat.read(SOURCE / name / f"{name}.ipynb", as_version=4).cells[0].source
    number, minutes = re.search(r"^# Assignment (\d+):(?s:.*?)About (\d+) minutes", text, re.M).groups()
    cells = nbformat.read(ROOT / "book" / f"{name}.ipynb", as_version=4).cells
    found = [title for cell in cells for title, _ in reading_time.exercises(cell.source)]
    easy = [title for title in found if title.endswith("easy)")]
    return f"| {number} | `{name}` | {minutes} | {'; '.join(easy)} |\n"


def student(*, release, place):
    """Pack what students get: the release, the chapters, the package, and what is to be installed; and a zip file."""
    names = sorted(path.parent.name for path in release.glob("*/*.ipynb"))
    if not names:
        raise ValueError(f"release must hold assignments: run make course first; there are none in {release}")
    shutil.rmtree(place, ignore_errors=True)
    more = {}
    for name in names:
        target = place / "coursework" / "release" / name / f"{name}.ipynb"
        target.parent.mkdir(parents=True)
        shutil.copy(release / name / target.name, target)
        (place / "book").mkdir(exist_ok=True)
        for page in set(re.findall(r"\bbook/(\w+\.ipynb)", target.read_text(encoding="utf-8"))):
            shutil.copy(ROOT / "book" / page, place / "book")
        needed = reads.needs(nbformat.read(target, as_version=4))
        for module in needed - downloads.modules(downloads.PROJECT["dependencies"]):
            more.setdefault(module, []).append(name)
    own = make_wheel.build(place)
    basis = {Requirement(line).name for line in downloads.PROJECT["dependencies"]} | {"ipykernel", "jupyterlab"}
    (place / "requirements.txt").write_text(f"{pinned(basis)}./{own.name}\n", encoding="utf-8")
    for module in more:
        (place / f"requirements-{module}.txt").write_text(pinned({module}), encoding="utf-8")
    said = "".join(MORE.format(names=", ".join(f"`{n}`" for n in which), name=module) for module, which in more.items())
    pythons = "{}, {} or {}".format(*environment.supported())
    how = HOW_TO.format(seconds=Limits().total, start=SET_UP.format(more=said, pythons=pythons))
    how += BESIDES.read_text(encoding="utf-8").format(rows="".join(sorted(map(begin, names))), pythons=pythons)
    (place / "README.md").write_text(how, encoding="utf-8")
    return Path(shutil.make_archive(str(place), "zip", place.parent, place.name))


def main(words=None):
    """Make the editions that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", help="draws the numbers of the questions and of the hidden tests; keep it secret")
    parser.add_argument("--student", action="store_true", help="pack what students get, out of what was made last")
    parser.add_argument("--root", help="the course directory, if it is not coursework/instructor")
    options = parser.parse_args(words)
    root, release, place = places(options.root)
    try:
        if options.student:
            packed = student(release=release, place=place)
            print(f"What students get is in {_short(place)}, and packed in {_short(packed)}.")
            return
        build(seed=salted(options.seed, root), root=root, release=release)
    except roster.Refused as error:
        parser.error(str(error))
    print(f"{len(assignments())} assignments: {_short(release)} for students, {_short(root)} for you alone.")
    if not beside.MATHJAX.is_file():
        print("In the formgrader formulas are shown as TeX, until make book has fetched MathJax.")
    change.tell(root, print)


def _short(path):
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


if __name__ == "__main__":
    main()
