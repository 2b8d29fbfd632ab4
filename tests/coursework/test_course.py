"""Coursework, with the real nbgrader: editions, marks, leaks, and submissions that mean harm."""

import ast
import contextlib
import csv
import dataclasses
import functools
import html
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile

import clean_notebooks
import course
import grade
import marking
import nbformat
import numpy as np
import pytest
from grader import cells, sandbox, wire
from grader.preprocessors import STUB

from divergence_notes.grading import FindTheBug, Mistake, Value, registry
from tests import pages
from tests.waiting import until

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


def regions(name):
    """Return the lines of an assignment that no student may see: solutions, marks, hidden tests."""
    lines = []
    for cell in source_of(name).cells:
        inside = False
        for line in cell.source.splitlines():
            if "### BEGIN" in line:
                inside = True
            elif "### END" in line:
                inside = False
            elif inside:
                lines.append(line.strip())
    return lines


def secret_lines(name):
    """Return the lines longer than 20 characters of which nothing may leak, those of the questions' module included."""
    module = (course.COURSEWORK / "questions" / f"{name}.py").read_text(encoding="utf-8")
    code = [line.strip() for line in module.splitlines()]
    kept = [line for line in code if not re.match(r"(from|import|def draw|class|@|\"\"\"|#)", line)]
    return {line for line in [*regions(name), *kept] if len(line) > 20}


def leaks(lines, folder):
    """Return those of the lines that stand in a file of the folder, as they are, as JSON or as HTML."""
    found = set()
    forms = {line: {line, json.dumps(line)[1:-1], html.escape(line), html.escape(line, quote=False)} for line in lines}
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in READ and "vendor" not in path.parts:
            text = path.read_text(encoding="utf-8", errors="replace")
            found |= {line for line in lines - found if any(form in text for form in forms[line])}
    return sorted(found)


READ = (".html", ".ipynb", ".js", ".json", ".md", ".py", ".txt")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Return the course directory and the release that `make course` makes."""
    place = tmp_path_factory.mktemp("course")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PYTHONPATH", "PATH", "COURSE_ROOT"):
            patch.setenv(name, os.environ.get(name, ""))
        course.build(seed=SEED, root=place / "instructor", release=place / "release")
        yield place / "instructor", place / "release"


def make_wheel(place, packages=None):
    """Build the wheel as an installer does, from a copy of the repository, and unpack it."""
    tree, target = place / "tree", place / "wheel"
    for name in ("divergence_notes", "coursework"):
        ignored = shutil.ignore_patterns("__pycache__", "instructor", "release")
        shutil.copytree(pages.ROOT / name, tree / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(pages.ROOT / name, tree)
    if packages:
        text = (tree / "pyproject.toml").read_text(encoding="utf-8")
        (tree / "pyproject.toml").write_text(text.replace('packages = ["', f'packages = ["{packages}", "'), "utf-8")
    code = f"from setuptools import build_meta; print(build_meta.build_wheel({str(place)!r}))"
    command = [sys.executable, "-W", "ignore", "-c", code]
    said = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True).stdout
    with zipfile.ZipFile(place / said.splitlines()[-1]) as archive:
        archive.extractall(target)
    return target


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """Return the contents of the wheel."""
    return make_wheel(tmp_path_factory.mktemp("wheel"))


class TestWheel:
    def test_checks_come_with_it(self, wheel):
        code = "import divergence_notes; from divergence_notes import grading; print(divergence_notes.__file__); "
        code += "print(len(grading.exercises()), grading.check('ex-bellman-prediction', 'C').passed)"
        env = os.environ | {"PYTHONPATH": str(wheel)}
        command = [sys.executable, "-c", code]
        said = subprocess.run(command, cwd=wheel.parent, env=env, capture_output=True, text=True, check=True).stdout
        assert said.splitlines() == [
            str(wheel / "divergence_notes" / "__init__.py"),
            f"{sum(len(registry.of_chapter(chapter)) for chapter in registry.CHAPTERS)} True",
        ]

    def test_has_every_module_and_nothing_else(self, wheel):
        here = {str(p.relative_to(pages.ROOT)) for p in (pages.ROOT / "divergence_notes").rglob("*.py")}
        assert {str(p.relative_to(wheel)) for p in wheel.rglob("*.py")} == here

    def test_a_leak_into_it_is_found(self, tmp_path):
        assert leaks(secret_lines("bellman"), make_wheel(tmp_path, packages="coursework.questions"))


@pytest.fixture(scope="session")
def marks(made, tmp_path_factory):
    """Return from the name of an assignment to the table of a class of two, each graded when it is asked for first.

    One hands in the instructor's edition, one the untouched release.
    """
    root, release = made

    @functools.cache
    def table(name):
        inbox = tmp_path_factory.mktemp("inbox")
        shutil.copy(root / "solution" / name / f"{name}.ipynb", inbox / "instructor.ipynb")
        shutil.copy(release / name / f"{name}.ipynb", inbox / "untouched.ipynb")
        assert grade.collect(root, name, inbox) == {}
        grade.autograde(root, name)
        return {row["student_id"]: row for row in grade.table(root, name)}

    return table


def scores(root, name, student):
    """Return the automatic score of each graded cell of a submission."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{root / 'gradebook.db'}?timeout=60") as gradebook:
        found = gradebook.find_submission_notebook(name, name, student).grades
        return {g.name: g.auto_score for g in found}


def outputs(root, name, student):
    """Return all that the graded notebook of a student shows."""
    nb = nbformat.read(root / "autograded" / student / name / f"{name}.ipynb", as_version=4)
    return "\n".join(json.dumps(cell.outputs) for cell in nb.cells if cell.cell_type == "code")


@pytest.mark.parametrize("name", NAMES)
class TestEveryAssignment:
    """What holds for every assignment in `coursework/source`."""

    def test_source_is_in_normal_form(self, name):
        before, after = clean_notebooks.clean(course.SOURCE / name / f"{name}.ipynb")
        assert before == after

    def test_instructor_reads_which_mistakes_to_expect(self, name, made):
        page = (made[0] / "solution" / name / "mistakes.md").read_text(encoding="utf-8")
        texts = [mistake.text for e in importlib.import_module(f"questions.{name}").EXERCISES for mistake in e.mistakes]
        assert len(texts) >= 3
        assert [text for text in texts if text not in page] == []

    def test_has_four_to_seven_questions_of_four_kinds(self, name):
        table = next(cell.source for cell in source_of(name).cells if "| kind |" in cell.source)
        kinds = re.findall(r"^\| \d+ \| ([a-z, ]+?) \| (\d+) \| (\d+) \|", table, re.M)
        assert 4 <= len(kinds) <= 7
        assert {kind for kind, _, _ in kinds} == {"derive", "implement", "predict, then run", "find the bug"}
        points = sum(graded_cells(name).values()) + sum(graded_cells(name, manual=True).values())
        assert sum(int(p) for _, p, _ in kinds) == points
        assert f"About {sum(int(m) for _, _, m in kinds)} minutes, {points} points" in table

    def test_links_its_chapter_and_gives_marks_for_what_a_person_reads(self, name):
        assert f"book/{name}.ipynb" in source_of(name).cells[0].source
        by_id = {c.metadata.get("nbgrader", {}).get("grade_id"): c.source for c in source_of(name).cells}
        for cell, points in graded_cells(name, manual=True).items():
            rubric = by_id[cell].split("**Marks**")[1]
            assert sum(int(n) for n in re.findall(r"^- (\d+) point", rubric, re.M)) == points

    def test_the_solution_answers_its_hidden_tests(self, name, made):
        """Without nbgrader, in one process: what each test says of the instructor's answers is full marks."""
        path = made[0] / "solution" / name / f"{name}.ipynb"
        env = os.environ | {"COURSE_ROOT": str(made[0])}
        done = subprocess.run([sys.executable, "-c", MARKED, path], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1]) == graded_cells(name)


@pytest.mark.parametrize("name", BY_NBGRADER)
class TestByNbgrader:
    """What nbgrader makes of every assignment, answered in full and not at all."""

    def test_instructor_earns_full_marks(self, name, made, marks):
        table = marks(name)
        assert scores(made[0], name, "instructor") == graded_cells(name) | dict.fromkeys(
            graded_cells(name, manual=True)
        )
        assert table["instructor"]["needs_manual_grade"] and '"output_type": "error"' not in outputs(
            made[0], name, "instructor"
        )

    def test_untouched_edition_runs_and_earns_nothing(self, name, made, marks):
        marks(name)
        everything = graded_cells(name) | graded_cells(name, manual=True)
        assert scores(made[0], name, "untouched") == dict.fromkeys(everything, 0)
        shown = outputs(made[0], name, "untouched")
        assert '"output_type": "error"' not in shown and shown.count("Nothing here yet") >= len(graded_cells(name))

    def test_release_runs_in_a_kernel_of_its_own(self, name, made, tmp_path):
        path = shutil.copy(made[1] / name / f"{name}.ipynb", tmp_path)
        notebook = nbformat.read(path, as_version=4)
        clean_notebooks.execute(notebook, tmp_path)  # raises at the first error
        text = json.dumps(notebook)
        assert "open" in text and "HIDDEN" not in text and "SOLUTION" not in text


@pytest.mark.parametrize("name", NAMES)
class TestNothingLeaks:
    """The numbers are those of the class, and neither tests nor solutions are in what anybody else gets."""

    def test_numbers_come_from_the_seed(self, name, made):
        cell = next(c for c in nbformat.read(made[1] / name / f"{name}.ipynb", 4).cells if c.id == "parameters")
        given = ast.literal_eval(cell.source.removeprefix("PARAMETERS = "))
        assert given == marking.draw_parameters(name, SEED) != marking.draw_parameters(name, "another seed")

    def test_nothing_leaks_into_the_release(self, name, made):
        pages.none(leaks(secret_lines(name) | {SEED}, made[1]), "these lines are in the release")

    def test_nothing_leaks_into_the_wheel(self, name, wheel):
        pages.none(leaks(secret_lines(name), wheel), "these lines are in the wheel")

    def test_nothing_leaks_into_the_site(self, name):
        site = pages.ROOT / "_build" / "html"
        if not site.is_dir():
            pytest.skip("there is no site yet: make book")
        pages.none(leaks(secret_lines(name), site), "these lines are on the site")


MARKED = f"""
import ast, json, sys
found, space = {{}}, {{}}
sys.path[:0] = {[str(pages.ROOT), str(course.COURSEWORK)]!r}
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        body, meta = ast.parse("".join(cell["source"])).body, cell["metadata"].get("nbgrader", {{}})
        last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), "cell", "exec"), space)
        value = last and eval(compile(ast.Expression(last.value), "cell", "eval"), space)
        if meta.get("grade"):
            found[meta["grade_id"]] = value
print(json.dumps(found))
"""

RUN = """
import importlib.metadata as metadata, json, re, sys
from packaging.requirements import Requirement
asked, notebook, wheel = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
todo, brought = [re.split("[=;]", line)[0] for line in asked if not line.startswith(".")], set()
while todo:
    name = todo.pop().lower().replace("_", "-")
    if name not in brought:
        brought.add(name)
        try:
            lines = map(Requirement, metadata.requires(name) or [])
        except metadata.PackageNotFoundError:
            continue
        todo += [line.name for line in lines if line.marker is None or line.marker.evaluate({"extra": ""})]
where = {m: {d.lower().replace("_", "-") for d in found} for m, found in metadata.packages_distributions().items()}

class Bare:
    "Finds what was asked for, and what that brings, and nothing else."
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        hidden = name in where and not where[name] & brought
        return None if hidden else self.finder.find_spec(name, path, target)

sys.path.insert(0, wheel)
sys.meta_path[:] = map(Bare, sys.meta_path)
space = {}
for cell in json.load(open(notebook, encoding="utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        exec("".join(cell["source"]), space)
import divergence_notes
print("FROM", divergence_notes.__file__)
"""


@pytest.fixture(scope="session")
def packed(made, tmp_path_factory):
    """Return what `make student` packs, unpacked to the last file."""
    place = tmp_path_factory.mktemp("packed")
    archive = course.student(release=made[1], place=place / "student")
    everything = place / "everything"
    todo = [(archive, everything)]
    while todo:
        source, target = todo.pop()
        with zipfile.ZipFile(source) as file:
            file.extractall(target)
        todo += [(path, path.with_suffix(".d")) for path in target.rglob("*") if zipfile.is_zipfile(path)]
    return everything / "student"


class TestStudent:
    """What students are told to fetch: enough to work with, and nothing of the solutions."""

    @pytest.mark.parametrize("name", NAMES)
    def test_nothing_leaks_into_it(self, name, packed):
        files = [path for path in packed.rglob("*") if path.is_file()]
        assert {path.suffix for path in files} <= {*READ, ".whl", ".typed", ""}  # what `leaks` reads, and the wheel
        pages.none(leaks(secret_lines(name) | {SEED}, packed), "students get these lines")

    def test_nothing_stands_for_a_test_or_a_solution(self, packed):
        text = "".join(path.read_text(encoding="utf-8") for path in packed.rglob("*") if path.suffix in READ)
        words = ("HIDDEN TESTS", "BEGIN SOLUTION", "from marking", "import marking", "**Marks**", "find-the-bug")
        assert [word for word in words if word in text] == []
        assert not [
            path for path in packed.rglob("*") if path.name in ("questions", "marking.py", "grader", "seed.txt")
        ]

    @pytest.mark.parametrize("plant", ["release/bellman/x.ipynb", "notes.md", "wheel"])
    def test_a_planted_leak_is_found(self, packed, tmp_path, plant):
        place = shutil.copytree(packed, tmp_path / "student")
        line = next(line for line in sorted(secret_lines("bellman")) if '"' not in line)
        target = next(place.glob("*.d")) / "divergence_notes" / "x.py" if plant == "wheel" else place / plant
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps({"metadata": {"x": line}}), encoding="utf-8")
        assert leaks(secret_lines("bellman"), place) == [line]

    def test_links_lead_somewhere(self, packed):
        for path in (packed / "coursework").rglob("*.ipynb"):
            found = re.findall(r"\]\(([^)#]+\.ipynb)", path.read_text(encoding="utf-8"))
            assert found and [link for link in found if not (path.parent / link).is_file()] == []

    @pytest.mark.parametrize("name", NAMES)
    def test_what_it_asks_for_is_enough(self, name, packed):
        notebook = packed / "coursework" / "release" / name / f"{name}.ipynb"
        asked = (packed / "requirements.txt").read_text(encoding="utf-8").split()
        (wheel,) = packed.glob("*.whl")
        assert f"./{wheel.name}" in asked and not any(line.startswith("torch") for line in asked)
        says = re.findall(r"`(\w+)`(?:, `\w+`)* needs more", (packed / "README.md").read_text(encoding="utf-8"))
        if name in says:
            asked += (packed / "requirements-torch.txt").read_text(encoding="utf-8").split()
        command = [sys.executable, "-c", RUN, json.dumps(asked), str(notebook), str(wheel.with_suffix(".d"))]
        env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(command, cwd=notebook.parent, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].startswith(f"FROM {wheel.with_suffix('.d')}")

    def test_only_one_assignment_asks_for_torch(self, packed):
        text = (packed / "README.md").read_text(encoding="utf-8")
        assert "`key_equation` needs more" in text and text.count("needs more") == 1

    def test_without_a_release_it_says_what_to_do(self, tmp_path):
        with pytest.raises(ValueError, match="run make course first"):
            course.student(release=tmp_path, place=tmp_path / "student")


def questions():
    """Return every graded exercise with its chapter."""
    marking.load()
    return [(name, exercise) for name in NAMES for exercise in importlib.import_module(f"questions.{name}").EXERCISES]


QUESTIONS = questions()
MISTAKES = [(n, e, m) for n, e in QUESTIONS if not isinstance(e, FindTheBug) for m in e.mistakes]


def label(value):
    """Name a parameter of a test."""
    return getattr(value, "name", value)


class TestQuestions:
    @pytest.mark.parametrize(("name", "exercise"), QUESTIONS, ids=label)
    def test_three_mistakes_are_foreseen(self, name, exercise):
        assert exercise.name.startswith(f"{name.replace('_', '-')}-") and len(exercise.mistakes) >= 3

    @pytest.mark.parametrize(("name", "exercise", "mistake"), MISTAKES, ids=label)
    @pytest.mark.parametrize("seed", ["one", "two"])
    def test_each_is_recognised(self, name, exercise, mistake, seed):
        given = marking.draw_parameters(name, seed) if isinstance(exercise, Value) else None
        args = exercise.draw(np.random.default_rng(0), **given) if isinstance(exercise, Value) else ()
        answer = mistake.wrong(*args) if isinstance(exercise, Value) else mistake.wrong
        result = marking.grading.check(exercise.name, answer, seed=seed, given=given)
        assert (result.passed, result.diagnosis) == (False, mistake.name)
        assert mistake.text.rstrip(".") in result.message

    @pytest.mark.parametrize("mistakes", [e for _, e in QUESTIONS if isinstance(e, FindTheBug)], ids=label)
    def test_wrong_implementations_differ_from_the_right_one(self, mistakes):
        """By the instructor's solution; the marks that `TestEveryAssignment` finds show that it exposes all of them."""
        assert len(mistakes.mistakes) >= 6 and not {mistakes.right} & {m.wrong for m in mistakes.mistakes}

    def test_numbers_that_do_not_tell_a_mistake_apart_are_drawn_again(self, monkeypatch):
        import questions.bellman as made

        monkeypatch.setattr(made, "parameters", lambda rng: {"gamma": 0.9, "end": 0.0, "factor": 100})
        with pytest.raises(ValueError, match="keep right and wrong values apart"):
            marking.draw_parameters("bellman", "any")

    @pytest.mark.parametrize(("off", "rtol", "apart"), [(1e-4, 1e-6, True), (1e-4, 1e-3, False), (1e-2, 1e-3, True)])
    def test_apart_is_what_the_check_can_tell_apart(self, off, rtol, apart):
        near = Mistake("near", "Near", lambda x: x * (1 + off))
        exercise = Value("near-by", lambda x: x, (near,), rtol=rtol)
        assert marking._distinct(exercise, (2.0,)) is apart
        marking.grading.register(exercise)
        assert marking.grading.check("near-by", 2.0 * (1 + off), given={"x": 2.0}).passed is not apart

    def test_what_is_judged_or_no_number_need_not_be_kept_apart(self, monkeypatch):
        import questions.bellman as made

        same = (Mistake("same", "The same", lambda *args: 1.0),)
        one = Value("bellman-one", lambda *args: 1.0, same)
        monkeypatch.setattr(made, "EXERCISES", (one,))
        with pytest.raises(ValueError, match="keep right and wrong values apart"):
            marking.draw_parameters("bellman", "any")
        monkeypatch.setattr(made, "EXERCISES", (dataclasses.replace(one, judge=lambda value, *args: None),))
        assert marking.draw_parameters("bellman", "any")
        monkeypatch.setattr(made, "EXERCISES", (dataclasses.replace(one, right=lambda *args: ["a", [1.0]]),))
        assert marking.draw_parameters("bellman", "any")


@pytest.mark.parametrize("command", ["course.py", "grade.py"])
def test_a_command_starts_as_it_is_typed(command, tmp_path):
    """Without the paths that pytest adds, from any folder; its help says how it is called."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    line = [sys.executable, str(course.COURSEWORK / command), "--help"]
    said = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout
    assert f"    {command} " in said


class TestEditions:
    def test_a_new_seed_is_refused_when_there_are_submissions(self, made, marks):
        assert marks("bellman")
        with pytest.raises(ValueError, match="seed must stay"):
            course.build(seed="other", root=made[0], release=made[1], only=[])

    @pytest.mark.parametrize("wrap", [str, json.dumps, html.escape])
    def test_a_planted_leak_is_found(self, tmp_path, wrap):
        planted = next(line for line in regions("bellman") if len(line) > 20 and '"' in line)
        (tmp_path / "page.html").write_text(f"before {wrap(planted)} after", encoding="utf-8")
        assert leaks(secret_lines("bellman"), tmp_path) == [planted]


def edit(notebook, name, source):
    """Set the source of the cell with the grade id."""
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") == name:
            cell.source = source


def good(root):
    """Return the instructor's solution, to be spoiled."""
    return nbformat.read(root / "solution" / "bellman" / "bellman.ipynb", as_version=4)


def drop(notebook, *names):
    """Delete cells by grade id."""
    notebook.cells = [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") not in names]


def first_cell(source):
    """Return a change that puts a cell of the student's own before everything."""
    return lambda nb: nb.cells.insert(0, nbformat.v4.new_code_cell(source))


def instead(name, source):
    """Return a change that replaces an answer."""
    return lambda nb: edit(nb, name, source)


def split(notebook):
    """Split the answer to question 2 into two cells with the same metadata, as the editor does."""
    at = next(
        i
        for i, c in enumerate(notebook.cells)
        if c.get("metadata", {}).get("nbgrader", {}).get("grade_id") == "soft-answer"
    )
    cell = notebook.cells[at]
    second = nbformat.v4.new_code_cell("", metadata=dict(cell.metadata))
    first = nbformat.v4.new_code_cell(cell.source, metadata=dict(cell.metadata))
    second.source = "helper = 1"
    notebook.cells[at : at + 1] = [first, second]


def retype(notebook):
    """Make a test a text, and an answer too."""
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") in ("soft-test", "setup"):
            cell.cell_type = "markdown"
            cell.pop("outputs", None)
            cell.pop("execution_count", None)


HUNT = """
import os, gc, glob, sys
words = []
for top in ("/", {root!r}, {repo!r}):
    for folder, _, files in os.walk(top):
        if folder.startswith(("/proc", "/sys", "/usr", "/lib")) or "site-packages" in folder:
            continue
        for file in files:
            if file.endswith((".ipynb", ".db", ".txt", ".py", ".csv", ".json")):
                try:
                    text = open(os.path.join(folder, file), errors="replace").read()
                except OSError:
                    continue
                if "bellman-soft" + "-backup" in text or "HIDDEN" + " TESTS" in text:
                    words.append(os.path.join(folder, file))
loaded = [m for m in sys.modules if m in ("marking", "questions", "nbgrader")]
print("FOUND", len(words) + len(loaded), words[:3], loaded)
def soft_backup(Q, mdp, tau):
    return Q
"""

FULL = {"soft-test": 6, "sweep-test": 5, "predict-test": 4, "why-test": 2, "bug-test": 7}
NO_SOFT = FULL | {"soft-test": 0}
SOFT = "def soft_backup(Q, mdp, tau):\n    "

ADVERSARIES = {
    "good": (lambda nb: None, FULL),
    "loop_call": (instead("soft-answer", SOFT + "while True: pass"), NO_SOFT),
    "loop_stubborn": (
        instead(
            "soft-answer",
            SOFT + "while True:\n        try:\n            while True: pass\n        except BaseException: pass",
        ),
        NO_SOFT,
    ),
    "loop_cell": (instead("soft-answer", "while True: pass"), NO_SOFT),
    "fork": (first_cell("import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(1000)"), FULL),
    "thread": (
        first_cell(
            "import threading\ndef spin():\n    while True: pass\nthreading.Thread(target=spin, daemon=True).start()"
        ),
        FULL,
    ),
    "memory": (instead("soft-answer", "hog = []\nwhile True:\n    hog.append(bytearray(10**8))"), NO_SOFT),
    "syntax": (instead("soft-answer", SOFT + "return ]"), NO_SOFT),
    "deleted_test": (lambda nb: drop(nb, "soft-test", "bug-test"), FULL),
    "deleted_setup": (lambda nb: drop(nb, "setup", "parameters"), FULL),
    "deleted_answer": (lambda nb: drop(nb, "soft-answer"), NO_SOFT),
    "split": (split, FULL),
    "retyped": (retype, FULL),
    "tampered": (
        lambda nb: (edit(nb, "soft-answer", SOFT + "return Q"), edit(nb, "soft-test", "6.0")),
        NO_SOFT,
    ),
    "fake_test": (
        lambda nb: (
            edit(nb, "soft-answer", SOFT + "return Q"),
            nb.cells.append(nbformat.v4.new_code_cell("6.0", metadata=dict(nb.cells[-1].metadata))),
        ),
        NO_SOFT,
    ),
    "hard_coded": (instead("soft-answer", "def soft_backup(Q, mdp, tau):\n    return np.zeros((4, 3))"), NO_SOFT),
    "overwrite_check": (
        lambda nb: edit(
            nb,
            "soft-answer",
            "from types import SimpleNamespace\n"
            "from divergence_notes.grading import checking\n"
            "checking.check = grading.check = lambda *a, **k: SimpleNamespace(share=1.0, passed=True)\n"
            "mark = lambda *a, **k: 6.0\n" + SOFT + "return Q",
        ),
        NO_SOFT,
    ),
    "equal_to_all": (
        instead(
            "soft-answer",
            "class Yes(np.ndarray):\n    def __sub__(self, other): return np.zeros(self.shape)\n"
            + SOFT
            + "return np.zeros(Q.shape).view(Yes)",
        ),
        NO_SOFT,
    ),
    "exit": (instead("soft-answer", "import sys\nsys.exit(0)"), NO_SOFT),
    "hard_exit": (instead("soft-answer", "import os\nos._exit(0)"), NO_SOFT),
    "exit_call": (instead("soft-answer", SOFT + "import os; os._exit(0)"), NO_SOFT),
    "output": (first_cell("for _ in range(1000):\n    print('x' * 100_000)"), FULL),
    "raw_output": (first_cell("import os\nfor _ in range(1000):\n    os.write(1, b'x' * 100_000)"), FULL),
    "counts_calls": (
        instead(
            "bug-answer",
            "calls = []\ndef test(implementation):\n"
            "    calls.append(implementation(Q, mdp, 0.5))\n    assert len(calls) <= 4",
        ),
        FULL | {"bug-test": 0},
    ),
    "always_fails": (instead("bug-answer", "def test(implementation):\n    assert False"), FULL | {"bug-test": 0}),
    "widget": (
        lambda nb: nb.metadata.update(widgets={"application/vnd.jupyter.widget-state+json": {"version_major": 2}}),
        FULL,
    ),
    "no_marks": (lambda nb: [cell.metadata.clear() for cell in nb.cells], FULL),
    "below": (
        lambda nb: (
            edit(nb, "derive-answer", STUB),
            nb.cells.insert(place_of(nb, "derive-answer") + 1, nbformat.v4.new_markdown_cell("Let $a < b$ ...")),
        ),
        FULL,
    ),
}


def place_of(notebook, name):
    """Return the index of the cell with the grade id."""
    return next(i for i, c in enumerate(notebook.cells) if c.metadata.get("nbgrader", {}).get("grade_id") == name)


UNREADABLE = {
    "not_json": "its JSON stops making sense in line 1",
    "empty": "is empty",
    "future": "is of format 5",
    "folder": "is a folder",
    "link": "is a link",
}


BATCH = f"batch-of-process-{os.getpid()}-"


@pytest.fixture(scope="session")
def batch(made, marks, tmp_path_factory):
    """Grade all adversaries in one batch; return the course directory and the seconds it took."""
    root, _ = made
    marks("bellman")
    inbox = tmp_path_factory.mktemp("adversaries")
    for student, (spoil, _) in ADVERSARIES.items():
        notebook = good(root)
        spoil(notebook)
        nbformat.write(notebook, inbox / f"{student}.ipynb")
    hunter = good(root)
    edit(hunter, "soft-answer", HUNT.format(root=str(root), repo=str(pages.ROOT)))
    nbformat.write(hunter, inbox / "hunter.ipynb")
    (inbox / "not_json.ipynb").write_text("{ this is no notebook", encoding="utf-8")
    (inbox / "empty.ipynb").write_text("", encoding="utf-8")
    (inbox / "future.ipynb").write_text(json.dumps(good(root) | {"nbformat": 5}), encoding="utf-8")
    (inbox / "utf16.ipynb").write_text(nbformat.writes(good(root)).replace("\n", "\r\n"), encoding="utf-16")
    assert grade.collect(root, "bellman", inbox) == {}
    for student in ("folder", "link"):  # past `collect`
        (root / "submitted" / student / "bellman").mkdir(parents=True)
    (root / "submitted" / "folder" / "bellman" / "bellman.ipynb").mkdir()
    (root / "submitted" / "link" / "bellman" / "bellman.ipynb").symlink_to(root / "solution/bellman/bellman.ipynb")
    start = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADER_MARK", BATCH)  # other tests may be grading on this machine too
        grade.autograde(root, "bellman")
    return root, time.monotonic() - start


class TestAdversaries:
    @pytest.mark.parametrize("student", ADVERSARIES)
    def test_gets_what_it_should(self, batch, student):
        found = scores(batch[0], "bellman", student)
        assert {name: found[name] for name in FULL} == ADVERSARIES[student][1]

    def test_a_fault_is_named_in_the_feedback(self, batch):
        assert "took longer than 5 seconds" in outputs(batch[0], "bellman", "loop_call")
        assert "took longer than 5 seconds" in outputs(batch[0], "bellman", "loop_stubborn")
        assert "took longer than 20 seconds" in outputs(batch[0], "bellman", "loop_cell")
        assert "ended its process" in outputs(batch[0], "bellman", "hard_exit")
        assert "rejects a right implementation" in outputs(batch[0], "bellman", "always_fails")

    def test_output_is_cut(self, batch):
        page = batch[0] / "autograded" / "output" / "bellman" / "bellman.ipynb"
        assert page.stat().st_size < 200_000 and "more characters" in page.read_text(encoding="utf-8")

    @pytest.mark.skipif(
        sandbox.isolation() != "namespaces", reason="this machine gives no namespaces: files can be read"
    )
    def test_nothing_is_there_to_be_read(self, batch):
        shown = outputs(batch[0], "bellman", "hunter")
        assert "FOUND 0 [] []" in shown and scores(batch[0], "bellman", "hunter")["soft-test"] == 0

    def test_what_is_no_notebook_is_said_and_costs_nobody_else(self, batch):
        rows = {row["student_id"]: row for row in grade.table(batch[0], "bellman")}
        for student, why in UNREADABLE.items():
            assert (rows[student]["status"], rows[student]["score"]) == ("cannot be graded", 0)
            assert why in rows[student]["note"]
        assert rows["good"]["score"] == rows["utf16"]["score"] == sum(FULL.values())
        assert len(rows) == len(ADVERSARIES) + len(UNREADABLE) + len(("instructor", "untouched", "hunter", "utf16"))

    def test_what_was_put_right_is_said(self, batch):
        notes = {row["student_id"]: row["note"] for row in grade.table(batch[0], "bellman")}
        assert notes["good"] == notes["widget"] == notes["utf16"] == ""
        assert notes["below"] == "derive-answer is empty, and the cell below it is not: read that"
        assert notes["no_marks"].count("had lost its mark and was found by its id") == 6
        assert "soft-answer is missing" in notes["deleted_answer"]
        assert "several cells were bug-test" in notes["fake_test"]

    def test_a_proof_below_its_place_waits_for_a_person(self, batch):
        rows = {row["student_id"]: row for row in grade.table(batch[0], "bellman")}
        assert rows["below"]["needs_manual_grade"] and not rows["untouched"]["needs_manual_grade"]
        nb = nbformat.read(batch[0] / "autograded" / "below" / "bellman" / "bellman.ipynb", as_version=4)
        assert "Let $a < b$ ..." in [cell.source for cell in nb.cells]

    def test_nothing_is_left_running(self, batch):
        assert sandbox.strays(f"GRADER_MARK={BATCH}") == []

    def test_control_what_is_running_is_found(self, monkeypatch):
        monkeypatch.setenv("GRADER_MARK", f"{BATCH}control-")
        with sandbox.Session() as session:
            session.run("1")
            assert len(sandbox.strays(f"GRADER_MARK={BATCH}control-")) >= 2
        until(lambda: sandbox.strays(f"GRADER_MARK={BATCH}control-") == [])

    def test_a_second_run_grades_nothing_again(self, batch):
        root, _ = batch
        places = list((root / "graded" / "bellman").glob("*.json"))
        before = {place: place.stat().st_mtime_ns for place in places}
        grade.autograde(root, "bellman")
        assert {place: place.stat().st_mtime_ns for place in places} == before

    def test_the_table_is_what_a_platform_reads(self, batch):
        place, rows = grade.write_table(batch[0], "bellman")
        with place.open(newline="", encoding="utf-8") as file:
            read = list(csv.DictReader(file))
        assert [row["student_id"] for row in read] == [row["student_id"] for row in rows]
        assert {"student_id", "assignment", "score", "max_score", "late_seconds", "status"} <= set(read[0])


HALF = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
import grade
grade.autograde(Path({root!r}), "bellman", workers=1)
"""


@pytest.fixture(scope="session")
def resumed(made, tmp_path_factory):
    """Kill a batch of four while its second is being graded, and start it again."""
    root = tmp_path_factory.mktemp("resume") / "instructor"
    root.mkdir()
    shutil.copytree(made[0] / "source", root / "source")
    shutil.copytree(made[0] / "release", root / "release")
    for name in ("gradebook.db", "seed.txt", "nbgrader_config.py"):
        shutil.copy(made[0] / name, root)
    inbox = tmp_path_factory.mktemp("inbox")
    for student in ("ann", "bob", "cem", "dot"):
        notebook = good(made[0])
        if student == "bob":
            first_cell("import time; time.sleep(15)")(notebook)
        nbformat.write(notebook, inbox / f"{student}.ipynb")
    assert grade.collect(root, "bellman", inbox) == {}
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{root / 'gradebook.db'}?timeout=60") as gradebook:
        gradebook.update_or_create_assignment("bellman", duedate="2026-01-01 12:00:00 UTC")
    for student, stamp in (("ann", "2026-01-01 13:30:00 UTC"), ("dot", "2025-12-31 12:00:00 UTC")):
        place = root / "submitted" / student / "bellman" / "timestamp.txt"
        place.write_text(stamp, encoding="utf-8")
    path = [str(pages.ROOT), str(pages.ROOT / "tools"), str(course.COURSEWORK)]
    command = [sys.executable, "-c", HALF.format(path=path, root=str(root))]
    batch = subprocess.Popen(command, env=os.environ | {"BATCH_OF_THE_TEST": str(root)})
    first, second = (grade.record(root, "bellman", student) for student in ("ann", "bob"))
    until(first.exists)
    until(lambda: len(sandbox.strays(f"BATCH_OF_THE_TEST={root}")) >= 2)  # the batch, and what grades the second
    batch.kill()
    batch.wait()
    before = first.stat().st_mtime_ns
    with contextlib.suppress(AssertionError):  # a test says it; bob's cell would go on for longer than this
        until(lambda: sandbox.strays(f"BATCH_OF_THE_TEST={root}") == [], seconds=12)
    alive = sandbox.strays(f"BATCH_OF_THE_TEST={root}")
    assert not second.exists()
    grade.autograde(root, "bellman")
    return root, before, alive


class TestResume:
    """A batch that is killed halfway, and one submission of it that came late."""

    def test_what_was_being_graded_ends_with_the_batch(self, resumed):
        assert resumed[2] == []

    def test_every_submission_is_graded_once(self, resumed):
        root, before, _ = resumed
        assert grade.record(root, "bellman", "ann").stat().st_mtime_ns == before
        rows = grade.table(root, "bellman")
        assert [(row["student_id"], row["status"]) for row in rows] == [
            (s, "graded") for s in ("ann", "bob", "cem", "dot")
        ]
        assert {row["score"] for row in rows} == {sum(FULL.values())}

    def test_a_late_one_says_so(self, resumed):
        late = {row["student_id"]: row["late_seconds"] for row in grade.table(resumed[0], "bellman")}
        assert late == {"ann": 5400, "bob": 0, "cem": 0, "dot": 0}
        place, _ = grade.write_table(resumed[0], "bellman")
        assert "5400" in place.read_text(encoding="utf-8")


@pytest.mark.nightly
class TestExchange:
    """What the page for instructors says about a JupyterHub: nbgrader's own hands move the files, ours grade them."""

    def test_from_release_to_feedback(self, made, tmp_path):
        root, student = tmp_path / "instructor", tmp_path / "student"
        student.mkdir()
        shutil.copytree(made[0] / "source", root / "source")
        shutil.copytree(made[0] / "release", root / "release")
        for name in ("gradebook.db", "seed.txt", "nbgrader_config.py"):
            shutil.copy(made[0] / name, root)
        exchange = tmp_path / "exchange"
        exchange.mkdir(mode=0o777)
        exchange.chmod(0o777)
        (tmp_path / "etc").mkdir()
        shared = f'c.CourseDirectory.course_id = "divergence-notes"\nc.Exchange.root = {str(exchange)!r}\n'
        (tmp_path / "etc" / "nbgrader_config.py").write_text(shared, encoding="utf-8")
        env = os.environ | {"JUPYTER_CONFIG_PATH": str(tmp_path / "etc"), "JUPYTER_DATA_DIR": str(tmp_path / "data")}

        def nbgrader(where, *words):
            command = [sys.executable, "-m", "nbgrader", *words]
            done = subprocess.run(command, cwd=where, env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr

        nbgrader(root, "release_assignment", "bellman")
        nbgrader(student, "fetch_assignment", "bellman")
        nbformat.write(good(made[0]), student / "bellman" / "bellman.ipynb")
        nbgrader(student, "submit", "bellman")
        nbgrader(root, "collect", "bellman")
        (who,) = grade.students(root, "bellman")
        grade.autograde(root, "bellman")
        (row,) = grade.table(root, "bellman")
        assert (row["status"], row["score"], row["needs_manual_grade"]) == ("graded", sum(FULL.values()), True)
        assert grade.feedback(root, "bellman") == [who]
        nbgrader(root, "release_feedback", "bellman")
        nbgrader(student, "fetch_feedback", "bellman")
        (page,) = student.rglob("bellman.html")
        assert "default-src 'none'" in page.read_text(encoding="utf-8")


def as_it_comes(root, assignment, student):
    """Grade a submission by nbgrader alone."""
    course.nbgrader_api(root).autograde(assignment, student, force=True)


class TestControl:
    """The same submissions under nbgrader as it comes: the attacks are real, and the tests above can fail."""

    def test_attacks_succeed_in_one_process(self, batch, tmp_path):
        root = tmp_path / "instructor"
        shutil.copytree(batch[0] / "source", root / "source")
        for name in ("gradebook.db", "seed.txt", "nbgrader_config.py"):
            shutil.copy(batch[0] / name, root)
        place = root / "nbgrader_config.py"
        plain = (
            place.read_text(encoding="utf-8")
            .replace("    RestoreCells,\n", "")
            .replace("    ForReading,\n", "")
            .replace("[ExecuteApart,", "[Execute,")
        )
        place.write_text(plain, encoding="utf-8")
        for student in ("overwrite_check", "deleted_test"):
            shutil.copytree(batch[0] / "submitted" / student, root / "submitted" / f"plain_{student}")
        students = ["plain_overwrite_check", "plain_deleted_test"]
        assert len(list(grade._each(as_it_comes, root, "bellman", students, workers=2, limit=600))) == 2
        assert scores(root, "bellman", "plain_overwrite_check")["soft-test"] == 6  # and deserves nothing
        assert scores(root, "bellman", "plain_deleted_test")["soft-test"] is None  # and deserves six


class TestCollect:
    def test_paths_in_names_are_refused(self, tmp_path):
        archive = tmp_path / "class.zip"
        with zipfile.ZipFile(archive, "w") as file:
            for name in (
                "ann.ipynb",
                "bob/anything.ipynb",
                "bob/second.ipynb",
                "../../evil.ipynb",
                "/etc/evil.ipynb",
                "..\\x.ipynb",
                "a/b/c.ipynb",
                "../eve.ipynb",
                "notes.txt",
                "-rf.ipynb",
                "a b.ipynb",
            ):
                file.writestr(name, name)
        refused = grade.collect(tmp_path / "root", "bellman", archive)
        assert grade.students(tmp_path / "root", "bellman") == ["ann", "bob"] and len(refused) == 9
        assert (
            "bob/second.ipynb" in refused
            and (tmp_path / "root" / "submitted" / "bob" / "bellman" / "bellman.ipynb").read_text(encoding="utf-8")
            == "bob/anything.ipynb"
        )
        assert not list(tmp_path.rglob("evil*")) and not (tmp_path.parent / "eve.ipynb").exists()


class TestFeedbackPages:
    @pytest.fixture
    def page(self, batch):
        root, _ = batch
        graded = grade.feedback(root, "bellman", only=["widget", "loop_call", "not_json"])
        assert graded == ["loop_call", "widget"]
        return next((root / "feedback" / "loop_call" / "bellman").glob("*.html")).read_text(encoding="utf-8")

    def test_shows_marks_and_diagnoses(self, page):
        assert "took longer than 5 seconds" in page and "18.0" in page.replace("18 ", "18.0")

    def test_asks_no_other_host(self, page):
        assert "<script" not in page and "Content-Security-Policy" in page and "default-src 'none'" in page
        assert not re.search(r"<(link|iframe)\b", page)

    def test_a_planted_request_is_taken_out_or_forbidden(self):
        planted = '<html><head><link href="https://cdn.example/x.css"></head><body><script src="https://x"></script></body></html>'
        clean = grade.alone(planted)
        assert "refresh" not in grade.alone('<head></head><meta content="0;https://x" http-equiv=refresh>')
        assert "cdn.example" not in clean and "<script" not in clean and "default-src 'none'" in clean


class TestWire:
    @pytest.mark.parametrize(
        "value",
        [1, 2.5, True, "text", None, [1, [2.0]], (1, 2), {"a": 1}, ...],
    )
    def test_plain_values_return(self, value):
        assert wire.decode(json.loads(json.dumps(wire.encode(value)))) == value

    def test_arrays_return_with_their_type(self):
        for value in (np.arange(6, dtype=np.float32).reshape(2, 3), np.float64(2), np.array([True, False])):
            back = wire.decode(json.loads(json.dumps(wire.encode(value))))
            assert back.dtype == value.dtype and back.shape == value.shape and np.array_equal(back, value)

    def test_a_process_returns(self):
        from divergence_notes import bellman

        mdp = marking.grading.find("ex-bellman-shift").sample()[0][1]
        back = wire.decode(json.loads(json.dumps(wire.encode(mdp))))
        assert (bellman.optimality_backup(mdp.R, mdp) == bellman.optimality_backup(back.R, back)).all()

    def test_anything_else_is_but_a_name(self):
        back = wire.decode(json.loads(json.dumps(wire.encode(object()))))
        assert type(back).__name__ == "object" and type(back) is not object

    @pytest.mark.parametrize("where", [["os", "system"], ["divergence_notes.bellman", "optimality_backup"]])
    def test_only_dataclasses_of_the_package_are_made(self, where):
        with pytest.raises(ValueError, match="must be a dataclass of the package"):
            wire.decode({"is": "ours", "class": where, "fields": {}})


class TestTheOtherSide:
    """The process of an answer can send what it likes; the grader takes what it knows."""

    FORGE = "from grader import wire\nsend = wire.send\nwire.send = lambda connection, message: send(connection, {!r})"

    def test_forged_outputs_are_made_ordinary(self):
        forged = {"outputs": [{"output_type": "execute_result", "data": {"text/html": "<script>", "text/plain": 7}}, 3]}
        with sandbox.Session() as session:
            outputs = session.run(self.FORGE.format(forged))
        assert outputs == [{"output_type": "display_data", "data": {"text/plain": "7"}, "metadata": {}}]

    def test_too_many_and_too_long_outputs_are_cut(self):
        many = [{"output_type": "stream", "name": "stdout", "text": "x" * 100_000}] * 100
        made = cells.tidy(many)
        assert len(made) == cells.MOST and all(len(one["text"]) < cells.LONGEST + 100 for one in made)

    @pytest.mark.parametrize(
        "forged", [{"value": {"is": "array"}}, {"value": 3}, {"nothing": 1}, {"value": {"is": "list", "items": 3}}]
    )
    def test_forged_values_are_no_answer(self, forged):
        with sandbox.Session() as session:
            session.run("def answer(x):\n    return x")
            answer = session.get("answer")
            session.run(self.FORGE.format({"outputs": []}).replace(repr({"outputs": []}), repr(forged)))
            with pytest.raises(marking.grading.Fault, match="cannot be read"):
                answer(1.0)

    def test_pictures_come_over(self):
        with sandbox.Session() as session:
            outputs = session.run("import matplotlib.pyplot as plt\nplt.plot([1, 2]);")
        assert any("image/png" in one.get("data", {}) for one in outputs)

    def test_torch_fits_into_the_limits(self):
        with sandbox.Session(
            sandbox.Limits(cell=200, total=400)
        ) as session:  # of memory; a busy machine takes its time
            assert session.run("import torch\nfloat(torch.ones(3).sum())")[-1]["data"]["text/plain"] == "3.0"


class TestWithoutNamespaces:
    """The fallback keeps the limits and ends what was left behind."""

    @pytest.fixture(autouse=True)
    def plain(self, monkeypatch):
        monkeypatch.setattr(sandbox, "isolation", lambda: "process")

    def test_children_that_were_left_behind_end(self):
        with sandbox.Session() as session:
            session.run("import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(1000)")
            assert len(sandbox.strays(session.mark)) == 3  # what starts the others, the answer's process, and its child
            mark = session.mark
        until(lambda: sandbox.strays(mark) == [])

    def test_what_lies_about_can_be_read(self, made):
        """The control of `test_nothing_is_there_to_be_read`: without a room of its own, the same search finds a lot."""
        with sandbox.Session() as session:
            shown = session.run(HUNT.replace('"/", ', "").format(root=str(made[0]), repo=str(course.COURSEWORK)))
        assert int(re.search(r"FOUND (\d+)", shown[0]["text"])[1]) > 3

    def test_limits_hold(self):
        with sandbox.Session(sandbox.Limits(gigabytes=2)) as session:
            shown = session.run("hog = bytearray(3 * 10**9)")
            assert shown[0]["ename"] == "MemoryError"
            assert session.run("1 + 1")[0]["data"]["text/plain"] == "2"
