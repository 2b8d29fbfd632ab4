"""A term of a class, from the commands that an instructor types to the tables: dates move, a test is mended, one drops.

A copy of the course is used, with a short assignment, so that its questions can be mended. Marks are computed here from
what was planted in each student's work.
"""

import csv
import os
import shutil
import subprocess
import sys

import nbformat
import pytest
import tables

from tests import pages
from tests.coursework import archives
from tests.coursework.submissions import edit, predicted

GONE = ("sweep", "bug", "long")
"""Questions that the short assignment leaves out: one as good as another, and the slowest two."""
TERM = """
zone = "Europe/Berlin"
[late]
percent = 10
[assignments.bellman]
due = 2025-11-06T23:59:00
canvas = "Problem set 1 (4711)"
"""
EXTENSION = "[extensions.bellman]\na04 = 2025-11-13T23:59:00\n"
GROUP = '[groups.bellman]\ngauss = ["a05", "a06"]\n'
DROPPED = "[points.bellman]\npredict-test = 0\n"
TIMES = {"a03": "Friday, 7 November 2025, 11:00 PM", "a04": "Wednesday, 12 November 2025, 9:00 AM"}
NAMES = {"a02": "Jörg Müller", "b02": "Zoë van der Berg"}
SOFT = {
    "wrong": "def soft_backup(Q, mdp, tau):\n    return mdp.R",
    "endless": "while True: pass",
    "dies": "import os\nos._exit(0)",
}
MISTAKE = 'WHY = Choice(\n    "bellman-why-unlucky",\n    "B",', '"C"),\n        Mistake("greedy"'
"""The right answer of a question, and a wrong one; a slip of ours exchanges them."""


class Work:
    """What a student does: which answers are right, how many points a person gives, which file it is."""

    def __init__(self, student, *, soft="", why="B", predict=True, mark=None, file="bellman.ipynb", broken=""):
        self.student, self.soft, self.why, self.predict, self.mark = student, soft, why, predict, mark
        self.file, self.broken = file, broken

    def notebook(self, solution):
        """Return the bytes that are handed in."""
        if self.broken:
            return self.broken
        notebook = nbformat.read(solution, as_version=4)
        if self.soft:
            edit(notebook, "soft-answer", SOFT[self.soft])
        name = NAMES.get(self.student, self.student)
        right = predicted(notebook, name) if self.predict else "sweeps_for_ever = sweeps_with_an_end = 1"
        edit(notebook, "predict-answer", right)
        edit(notebook, "name-answer", f'STUDENT = "{name}"')
        edit(notebook, "why-answer", f'why = "{self.why}"')
        edit(notebook, "derive-answer", f"It contracts, says {self.student}.")
        return nbformat.writes(notebook)

    def points(self, *, right="B", dropped=False):
        """Return the points of a section's work by what was planted."""
        if self.broken:
            return 0
        return 6 * (not self.soft) + 2 * (self.why == right) + 4 * (self.predict and not dropped) + (self.mark or 0)


WHOLE = {
    "A": [
        Work("a01", mark=6),
        Work("a02", soft="wrong", mark=2.5, file="bellman (2) endgültig.ipynb"),
        Work("a03", mark=3),  # late by a day, not more
        Work("a04", why="C", mark=4),  # has an extension
        Work("a06", predict=False, mark=5),  # for the group; a05 hands in nothing
        Work("a07", broken="<html>"),
        Work("a08", soft="endless", mark=1),
        Work("a09", soft="dies", why="D", mark=0),
    ],
    "B": [
        *(Work(f"b0{number}", mark=number / 2, predict=number % 2 == 0) for number in range(1, 8)),
        Work("b08", why="C", mark=2),
        Work("b09", broken='{"nbformat": 4, "cells": [3]'),
    ],
}
CLASSES = {"A": [f"a{n:02}" for n in range(1, 11)], "B": [f"b{n:02}" for n in range(1, 11)]}
SLICE = {"A": [work for work in WHOLE["A"] if work.student in ("a02", "a03", "a04", "a06", "a07")]}


class Term:
    """A class in a copy of the course, and what was said and written at each step of its term."""

    def __init__(self, place, sections):
        self.place, self.sections, self.said, self.rows = place, sections, {}, {}
        self.repository = place / "repository"
        self.questions = self.repository / "coursework" / "questions" / "bellman.py"

    def root(self, section):
        """Return the course directory of a section."""
        return self.place / section

    def run(self, step, *words):
        """Type a command for every section, in all of them at once; keep what was said."""
        running = {}
        for section in self.sections:
            given = [str(word).replace("SECTION", section) for word in words]
            command = [sys.executable, str(self.repository / "coursework" / given[0]), *given[1:]]
            command += ["--root", str(self.root(section))]
            env = {name: value for name, value in os.environ.items() if name != "COURSE_ROOT"}
            env["PYTHONPATH"] = str(self.repository)  # as where this copy is installed
            running[section] = subprocess.Popen(
                command, cwd=self.place, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        for section, process in running.items():
            out, errors = process.communicate()
            assert process.returncode == 0, errors
            self.said[step, section] = out

    def table(self, section, name="bellman.csv"):
        """Return a table of a section, by student."""
        with (self.root(section) / name).open(newline="", encoding="utf-8-sig") as file:
            return {next(iter(row.values())): row for row in csv.DictReader(file)}

    def keep(self, step):
        """Keep the tables of a step, with what was written down about the grading of each row."""
        self.rows[step] = {section: self.table(section) for section in self.sections}
        for section, rows in self.rows[step].items():
            for record in (self.root(section) / "graded" / "bellman").glob("*.json"):
                for student in ("a05", "a06") if record.stem == "gauss" else (record.stem,):
                    rows[student]["record"] = record.read_text(encoding="utf-8")


def repository(place):
    """Copy what makes and grades a course, with a short assignment."""
    place.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "instructor", "release", "student*")
    for name in ("coursework", "divergence_notes", "tools"):
        shutil.copytree(pages.ROOT / name, place / name, ignore=ignored)
    for name in ("pyproject.toml", "requirements.txt"):
        shutil.copy(pages.ROOT / name, place)
    for path in [*(place / "coursework" / "source").iterdir()]:
        if path.name != "bellman":
            shutil.rmtree(path)
            (place / "coursework" / "questions" / f"{path.name}.py").unlink()
    source = place / "coursework" / "source" / "bellman" / "bellman.ipynb"
    notebook = nbformat.read(source, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.id.partition("-")[0] not in GONE]
    nbformat.write(notebook, source)
    return place


def slip(questions):
    """Exchange the right answer of a question with a wrong one, and return what was there."""
    text = questions.read_text(encoding="utf-8")
    assert all(text.count(part) == 1 for part in MISTAKE)
    wrong = text.replace(MISTAKE[0], MISTAKE[0].replace('"B"', '"C"'))
    questions.write_text(wrong.replace(MISTAKE[1], MISTAKE[1].replace('"C"', '"B"')), encoding="utf-8")
    return text


def hand_in(term, section):
    """Pack what the students of a section hand in, as their platform does."""
    solution = term.root(section) / "solution" / "bellman" / "bellman.ipynb"
    works = [(work, work.notebook(solution)) for work in term.sections[section]]
    if section == "A":
        handed = [(name(w.student), 70 + n, w.file, data) for n, (w, data) in enumerate(works)]
        archives.moodle(term.place / "A.zip", handed)
        lines = [
            (70 + n, name(w.student), address(w.student), TIMES.get(w.student, "Thursday, 6 November 2025, 8:00 PM"))
            for n, (w, _) in enumerate(works)
        ]
        archives.worksheet(term.place / "times.csv", lines, most="18.00")
        return
    handed = [
        (name(w.student), False, 500 + int(w.student[1:]), 9000 + n, w.file, data) for n, (w, data) in enumerate(works)
    ]
    handed.append((name("b01"), False, 501, 8000, "bellman.ipynb", "an earlier upload"))
    archives.canvas(term.place / "B.zip", handed)


def name(student):
    """Return the name of a student."""
    return NAMES.get(student, f"Student {student.upper()}")


def address(student):
    """Return the address of a student."""
    return f"{student}@x.edu"


def dates(section, dropped=""):
    """Return the term.toml of a section."""
    return TERM + (EXTENSION + GROUP if section == "A" else "") + dropped


def read_by_hand(term, section):
    """Give marks and comments to the derivations, as the formgrader writes them."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{term.root(section) / 'gradebook.db'}?timeout=60") as gradebook:
        for work in term.sections[section]:
            if not work.broken:
                holder = "gauss" if work.student == "a06" else work.student
                grade = gradebook.find_grade("derive-answer", "bellman", "bellman", holder)
                grade.manual_score, grade.needs_manual_grade = work.mark, False
                comment = gradebook.find_comment("derive-answer", "bellman", "bellman", holder)
                comment.manual_comment = f"for {work.student}"
        gradebook.db.commit()


@pytest.fixture(
    scope="module", params=[pytest.param(SLICE, id="slice"), pytest.param(WHOLE, id="whole", marks=pytest.mark.nightly)]
)
def term(request, tmp_path_factory):
    """Go through a term, and return what was said and written."""
    term = Term(tmp_path_factory.mktemp("term"), request.param)
    repository(term.repository)
    right = slip(term.questions)
    term.run("make", "course.py", "--seed", "of section SECTION")
    for section in term.sections:
        students = "".join(
            f"{one},{name(one)},{address(one)},{500 + int(one[1:])},{section}\n" for one in CLASSES[section]
        )
        (term.root(section) / "roster.csv").write_text(f"student,name,email,canvas,section\n{students}", "utf-8")
        (term.root(section) / "term.toml").write_text(dates(section), encoding="utf-8")
        hand_in(term, section)
    times = ["--times", "times.csv"] if set(term.sections) == {"A"} else []
    term.run("collect", "grade.py", "collect", "bellman", "SECTION.zip", *times)
    if not times:  # only Moodle says when
        term.sections, both = {"A": term.sections["A"]}, term.sections
        term.run("collect", "grade.py", "collect", "bellman", "SECTION.zip", "--times", "times.csv")
        term.sections = both
    term.run("grade", "grade.py", "autograde", "bellman", "--workers", "2")
    for section in term.sections:
        read_by_hand(term, section)
    term.run("table", "grade.py", "table", "bellman")
    term.keep("before")
    term.questions.write_text(right, encoding="utf-8")
    term.run("mend", "course.py")
    term.run("table", "grade.py", "table", "bellman")
    term.keep("mended")
    term.run("again", "grade.py", "autograde", "bellman", "--workers", "2")
    term.keep("again")
    for section in term.sections:
        (term.root(section) / "term.toml").write_text(dates(section, DROPPED), encoding="utf-8")
    term.run("drop", "course.py")
    term.run("last", "grade.py", "autograde", "bellman", "--workers", "2")
    term.run("nothing", "grade.py", "autograde", "bellman", "--workers", "2")
    term.run("feedback", "grade.py", "feedback", "bellman", "--workers", "2")
    term.run("term", "grade.py", "term", "bellman")
    return term


def works(term):
    """Yield each work with its section, the one of the group for both members."""
    for section, found in term.sections.items():
        for work in found:
            yield section, work.student, work
            if work.student == "a06":
                yield section, "a05", work


class TestTerm:
    def test_marks_before_the_slip_was_found(self, term):
        for section, student, work in works(term):
            row = term.rows["before"][section][student]
            assert float(row["score"]) == work.points(right="C"), row
            assert row["status"] == ("cannot be graded" if work.broken else "graded"), row

    def test_a_mended_test_puts_the_class_out_of_date_and_says_so(self, term):
        for section, found in term.sections.items():
            assert f"{len(found)} of bellman are out of date" in term.said["mend", section]
            rows = term.rows["mended"][section]
            assert {rows[work.student]["status"] for work in found if work.student != "a06"} == {"out of date"}
            assert not any(rows[work.student]["final"] == "True" for work in found)

    def test_who_gained_and_who_lost(self, term):
        for section, found in term.sections.items():
            said = term.said["again", section]
            changed = {w.student: w.points() - w.points(right="C") for w in found if w.points() != w.points(right="C")}
            for student, by in changed.items():
                row = term.rows["again"][section][student]
                assert float(row["score"]) - float(term.rows["before"][section][student]["score"]) == by != 0
            assert said.count("changed: ") == len(changed) > 0
            gained = sum(by > 0 for by in changed.values())
            assert f"{gained} gained and {len(changed) - gained} lost points" in said
            assert "why-test: 0 of 2, now 2 of 2" in said

    def test_what_was_read_stays_read(self, term):
        for section, student, _ in works(term):
            for step in ("before", "again"):
                assert term.rows[step][section][student]["needs_manual_grade"] == "False", (step, student)

    def test_a_second_run_changes_nothing(self, term):
        assert not any("changed" in term.said["nothing", section] for section in term.sections)

    def test_the_tables_at_the_end(self, term):
        for section in term.sections:
            rows = term.table(section, "term.csv")
            assert list(rows) == CLASSES[section]
            handed = {student: work for _, student, work in works(term)}
            for student, row in rows.items():
                work = handed.get(student)
                score = work.points(dropped=True) if work else 0
                late = 1.4 if student == "a03" else 0  # a tenth of 14 points
                open_ = float(bool(work and work.broken))  # whoever teaches has to look at it
                expected = {"bellman before": score, "bellman": score - late, "max_points": 14, "open": open_}
                assert {head: float(row[head]) for head in expected} == pytest.approx(expected), student

    def test_what_the_platforms_import(self, term):
        head = {"A": ("moodle", "Email address", "bellman"), "B": ("canvas", "ID", "Problem set 1 (4711)")}
        for section in term.sections:
            platform, who, column = head[section]
            with (term.root(section) / f"term-{platform}.csv").open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if row[who]]
            points = {row[who]: row[column] for row in rows}
            assert len(points) == len(rows) == 10
            for _, student, work in works(term):
                if student[0].upper() == section:
                    key = address(student) if section == "A" else str(500 + int(student[1:]))
                    late = 1.4 if student == "a03" else 0
                    blank = "-" if section == "A" else ""
                    expected = work.points(dropped=True) - late
                    assert points[key] == (blank if work.broken else tables.number(expected)), student

    def test_nothing_is_lost(self, term):
        from nbgrader.api import Gradebook

        for section, found in term.sections.items():
            with Gradebook(f"sqlite:///{term.root(section) / 'gradebook.db'}") as gradebook:
                for work in (work for work in found if not work.broken):
                    holder = "gauss" if work.student == "a06" else work.student
                    grade = gradebook.find_grade("derive-answer", "bellman", "bellman", holder)
                    comment = gradebook.find_comment("derive-answer", "bellman", "bellman", holder)
                    assert (grade.manual_score, comment.comment) == (work.mark, f"for {work.student}")
            assert len(list((term.root(section) / "submitted").glob("*/bellman"))) == len(found)
            for work in found:
                holder = "gauss" if work.student == "a06" else work.student
                kept = term.root(section) / "submitted" / holder / "bellman" / "bellman.ipynb"
                solution = term.root(section) / "solution" / "bellman" / "bellman.ipynb"
                assert ("says" in kept.read_text("utf-8")) is not bool(work.broken) and solution.exists()

    def test_everybody_of_a_group_gets_the_feedback(self, term):
        pages_of = [
            term.root("A") / "feedback" / student / "bellman" / "bellman.html" for student in ("gauss", "a05", "a06")
        ]
        assert len({page.read_bytes() for page in pages_of}) == 1
        assert "for a06" in pages_of[0].read_text(encoding="utf-8")

    def test_what_counts_nothing_is_not_added_up_in_the_feedback(self, term):
        page = (term.root("A") / "feedback" / "a02" / "bellman" / "bellman.html").read_text(encoding="utf-8")
        assert "Score: 4.5 / 14.0" in page

    def test_every_change_is_on_record(self, term):
        for section, found in term.sections.items():
            with (term.root(section) / "changes.csv").open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            last = {row["student"]: row for row in rows}
            graded = [work for work in found if not work.broken]
            assert {row["student"] for row in rows} == {"gauss" if w.student == "a06" else w.student for w in graded}
            for work in graded:
                row = last["gauss" if work.student == "a06" else work.student]
                assert float(row["after"]) == work.points(dropped=True) and "now 0 of 0" in row["questions"]
