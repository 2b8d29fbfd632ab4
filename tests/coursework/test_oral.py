"""Sheets for an oral check: each student's numbers, what would change with others, and nothing that would run."""

import importlib
import re

import course
import grade
import marking
import nbformat
import numpy as np
import oral
import pytest
from questions import bellman

from divergence_notes import grading
from tests.coursework.assignments import NAMES, source_of
from tests.coursework.submissions import edit


@pytest.fixture
def root(request, tmp_path):
    """Return a course directory with a roster, and with the graded notebooks of two."""
    name = getattr(request, "param", "bellman")
    source = course.with_parameters(source_of(name), marking.draw_parameters(name, "any"))
    (tmp_path / "source" / name).mkdir(parents=True)
    nbformat.write(source, tmp_path / "source" / name / f"{name}.ipynb")
    (tmp_path / "roster.csv").write_text("student,name\nada,Ada <b>King</b>\nbob,\n", encoding="utf-8")
    for student in ("ada", "bob"):
        place = tmp_path / "autograded" / student / name
        place.mkdir(parents=True)
        edit(source, "name-answer", f'STUDENT = "{student.title()}"')
        edit(source, "predict-answer", f"x = '{student}</pre><script>alert(1)</script>'")
        nbformat.write(source, place / f"{name}.ipynb")
    return tmp_path


def sheets(root, name="bellman", outcome=lambda *_: None):
    """Return the sheet of each student."""
    place, students = oral.written(root, name, ["ada", "bob", "cem"], outcome)
    assert students == ["ada", "bob"]
    return dict(zip(students, place.read_text(encoding="utf-8").split("<section>")[1:], strict=True))


@pytest.mark.parametrize(("root", "name"), [(name, name) for name in NAMES], indirect=["root"])
def test_what_would_change_is_what_the_right_answers_say(root, name):
    """Each line is computed again, from the numbers of the name in the notebook."""
    made = importlib.import_module(f"questions.{name}")
    given = marking.handed_out(nbformat.read(root / "source" / name / f"{name}.ipynb", as_version=4))
    exercises = {oral.named(source_of(name), e): e for e in made.EXERCISES}
    for student, sheet in sheets(root, name).items():
        numbers = grading.own_numbers(student, given)
        asked = re.findall(
            r"If <code>(\w+)</code> was (\S+), and not (\S+), would <code>(\w+)</code> "
            r".*?Right: (\S+) becomes (\S+)\.<",
            sheet,
        )
        assert len(asked) == 2
        for number, new, old, answer, before, after in asked:
            assert f"{numbers[number]:g}" == old != new
            exercise, kind = exercises[answer], type(numbers[number])
            values = [
                exercise.right(*exercise.draw(np.random.default_rng(0), **numbers | {number: kind(float(value))}))
                for value in (old, new)
            ]
            assert [f"{value:.4g}" for value in values] == [before, after]


class TestSheet:
    def test_every_student_has_an_own_one(self, root):
        found = sheets(root)
        assert len({re.search(r"Numbers: .*", sheet)[0] for sheet in found.values()}) == 2
        assert [re.search(r"Name in the notebook: (\w+)", sheet)[1] for sheet in found.values()] == ["Ada", "Bob"]

    def test_the_run_is_the_students(self, root):
        given = marking.handed_out(nbformat.read(root / "source" / "bellman" / "bellman.ipynb", as_version=4))
        for student, sheet in sheets(root).items():
            numbers = grading.own_numbers(student, given)
            _, size, when = bellman.farthest(numbers["gamma"], numbers["end"], numbers["run"])
            assert f"{size:.4f} at step {when}" in sheet

    def test_the_question_with_the_fewest_points_is_asked_about(self, root):
        points = {
            "soft-test": {"auto": 6.0, "points": 6},
            "sweep-test": {"auto": 1.0, "points": 5},
            "bug-test": {"auto": 0.0, "points": 0},  # counts for nobody
            "long-test": {"auto": 0.0, "points": 2},  # a number, and no program
            "derive-answer": {"auto": None, "points": 6},
        }
        sheet = sheets(root, outcome=lambda *_: {"questions": points})["ada"]
        assert "(1 of 5 points by computer)<pre>def sweep_in_place" in sheet.replace(".<pre>", "<pre>")

    def test_nothing_runs_on_it(self, root):
        sheet = sheets(root)["ada"]
        assert "<script" not in sheet and "&lt;script&gt;" in sheet and "<b>" not in sheet

    def test_who_wrote_no_name_has_the_numbers_of_the_class(self, root):
        place = root / "autograded" / "bob" / "bellman" / "bellman.ipynb"
        notebook = nbformat.read(place, as_version=4)
        edit(notebook, "name-answer", "STUDENT = ...")
        nbformat.write(notebook, place)
        given = marking.handed_out(nbformat.read(root / "source" / "bellman" / "bellman.ipynb", as_version=4))
        assert f"factor = {given['factor']}" in sheets(root)["bob"]

    def test_the_command(self, root, monkeypatch, capsys):
        (root / "gradebook.db").touch()
        monkeypatch.setattr(grade, "students", lambda *_: ["ada", "bob"])
        grade.main(["oral", "bellman", "--root", str(root)])
        assert f"2 sheets, with what is right, written to {root / 'bellman-oral.html'}" in capsys.readouterr().out


def test_the_loop_that_students_run_is_what_is_computed_here():
    """On the first two of the 40 million steps."""
    cell = next(cell.source for cell in source_of("bellman").cells if cell.id == "long-run")
    space = {"np": np, "MINE": {"gamma": 0.93, "end": 0.2, "run": 5}}
    exec(cell.partition("\n\nif RUN_IT")[0], space)
    for alpha in (0.1, 0.01, 0.001):
        said, here = space["learn"](alpha, 2_000_000), bellman.farthest(0.93, 0.2, 5, alpha, 2_000_000)
        assert said == pytest.approx(here, rel=1e-10) and said[2] == here[2]
