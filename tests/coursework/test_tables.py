"""The tables of a class with a roster and dates: points before and after lateness, and what the platforms import."""

import csv
import os
import re
import shlex
import shutil
import sys
import textwrap
import warnings
from datetime import UTC, datetime
from pathlib import Path

import grade
import pytest
import roster
import tables
import term
import weights

from tests import pages
from tests.coursework import archives
from tests.coursework.assignments import source_of

TERM = """
zone = "Europe/Berlin"
[late]
percent = 10
[assignments.bellman]
due = 2026-11-06T23:59:00
canvas = "Problem set 1 (4711)"
moodle = "Problem set 1"
[assignments.key_equation]
due = 2026-12-04T23:59:00
[extensions.bellman]
zoe = 2026-11-13T23:59:00
"""
NOW = datetime(2026, 11, 20, tzinfo=UTC)
SCORES = {"bellman": {"ann": 9.0, "joerg": 0.5, "zoe": 7.25, "bo1": 8.0, "guest": 3.0}, "key_equation": {"ann": 4.0}}
CAME = {"ann": "2026-11-06 22:00:00", "joerg": "2026-11-08 22:00:00", "zoe": "2026-11-08 22:00:00"}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Return a course directory where nbgrader has graded, without the minutes that this takes."""
    root = archives.class_of(tmp_path_factory.mktemp("graded") / "instructor")
    (root / "term.toml").write_text(TERM, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nbgrader's database has some
        patch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))  # for alembic
        enter(root)
    early = root / "submitted" / "bo1" / "bellman" / grade.COLLECTED
    early.write_text('{"upload": 5, "marked_late": true}', encoding="utf-8")
    return root


def enter(root):
    """Write scores into the gradebook, and what was handed in beside it."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as gradebook:
        for name, scores in SCORES.items():
            gradebook.add_assignment(name)
            gradebook.add_notebook(name, name)
            gradebook.add_grade_cell("q", name, name, max_score=10, cell_type="code")
            for student, score in scores.items():
                gradebook.update_or_create_student(student)
                gradebook.add_submission(name, student)
                grade_of_cell = gradebook.find_grade("q", name, name, student)
                grade_of_cell.auto_score, grade_of_cell.needs_manual_grade = score, student == "bo1"
                place = root / "submitted" / student / name
                place.mkdir(parents=True)
                (place / f"{name}.ipynb").write_text(student, encoding="utf-8")
                if student in CAME and name == "bellman":
                    (place / "timestamp.txt").write_text(f"{CAME[student]} UTC", encoding="utf-8")
                grade.write(root, name, student, "graded", 1)
        gradebook.db.commit()


@pytest.fixture
def root(graded, tmp_path):
    """Return a copy of it to change."""
    return shutil.copytree(graded, tmp_path / "instructor")


def by_student(rows):
    return {row["student_id"]: row for row in rows}


def read(place):
    with place.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


class TestRows:
    def test_everybody_has_a_row(self, root):
        rows = by_student(grade.table(root, "bellman", NOW))
        assert list(rows) == ["ann", "bo1", "bo2", "dan", "guest", "joerg", "zoe"]
        assert {s for s, row in rows.items() if row["status"] == "nothing handed in"} == {"bo2", "dan"}
        assert rows["guest"]["note"] == "when it came is not known: nothing was taken off; not in the roster"
        assert (rows["joerg"]["name"], rows["joerg"]["section"]) == ("Müller, Jörg", "A")

    def test_points_before_and_after(self, root):
        rows = by_student(grade.table(root, "bellman", NOW))
        found = {s: (row["score"], row["penalty"], row["points"], row["late_seconds"]) for s, row in rows.items()}
        late = 2 * 86400 - 59 * 60
        assert found["ann"] == (9, 0, 9, 0) and found["zoe"] == (7.25, 0, 7.25, 0)  # an extension
        assert found["joerg"] == (0.5, 0.5, 0, late)  # two of ten points, of which there was half a one
        assert found["bo1"] == (8, 0, 8, 0) and "Canvas marked it late" in rows["bo1"]["note"]
        assert rows["joerg"]["due"] == "2026-11-06T22:59:00+00:00"

    def test_what_is_final(self, root):
        final = {s: row["final"] for s, row in by_student(grade.table(root, "bellman", NOW)).items()}
        assert final == dict.fromkeys(("ann", "joerg", "zoe", "guest", "bo2", "dan"), True) | {"bo1": False}
        early = by_student(grade.table(root, "key_equation", NOW))
        assert early["ann"]["final"] and not early["bo2"]["final"]  # there is time to hand it in
        (root / "term.toml").unlink()
        assert not by_student(grade.table(root, "bellman", NOW))["bo2"]["final"]  # nobody said when the time is over

    def test_a_notebook_without_a_place_keeps_the_row_open(self, root, tmp_path):
        two = archives.pack(tmp_path / "a.zip", [("dan/one.ipynb", "1"), ("dan/two.ipynb", "2")])
        grade.collect(root, "bellman", two)
        row = by_student(grade.table(root, "bellman", NOW))["dan"]
        assert not row["final"] and "nothing says which came last" in row["note"]

    def test_without_a_roster_and_dates_there_is_what_was_handed_in(self, root):
        (root / "roster.csv").unlink()
        (root / "term.toml").unlink()
        rows = grade.table(root, "bellman", NOW)
        assert [row["student_id"] for row in rows] == sorted(SCORES["bellman"])
        assert all(row["points"] == row["score"] and not row["note"] for row in rows)
        grade.write_table(root, "bellman")
        assert not list(root.glob("*-moodle.csv"))


class TestPlatformForms:
    """Read as the importers of the two platforms do, by what their sources say."""

    @pytest.fixture
    def forms(self, root, monkeypatch):
        known = grade.table
        monkeypatch.setattr(grade, "table", lambda root, name: known(root, name, NOW))
        grade.write_table(root, "bellman")
        grade.write_term(root, ["bellman", "key_equation"])
        return root

    def test_canvas_finds_students_and_assignments(self, forms):
        heads, points, *lines = read(forms / "term-canvas.csv")
        assert "Student" in heads[0] and "ID" in heads[1] and "Section" in heads[4]
        assert heads[2:4] == ["SIS User ID", "SIS Login ID"] and heads[5:] == ["Problem set 1 (4711)", "key_equation"]
        assert "Points Possible" in points[0] and points[5:] == ["10", "10"]
        found = {line[1]: line[5:] for line in lines}
        assert found["501"] == ["9", "4"] and found["503"] == ["7.25", ""] and found["504"] == ["", ""]
        assert found["505"] == ["0", ""] and found["502"] == ["0", ""] and len(found) == 6

    def test_moodle_finds_students_and_assignments(self, forms):
        heads, *lines = read(forms / "bellman-moodle.csv")
        assert heads == ["Username", "ID number", "Email address", "Full name", "Problem set 1"]
        found = {line[2]: line[4] for line in lines}
        assert found["ann@x.edu"] == "9" and found["bo1@x.edu"] == "-" and found["dan@x.edu"] == "0"

    def test_the_worksheet_is_filled_in(self, forms, tmp_path):
        people = [(71, "Ann Lee", "ann@x.edu", "-"), (72, "Bo Li", "bo1@x.edu", "-"), (73, "Eve", "eve@x.edu", "-")]
        heads, *lines = read(grade.write_worksheet(forms, "bellman", archives.worksheet(tmp_path / "w.csv", people)))
        assert heads[0] == "Identifier" and heads[-1] == "Last modified (grade)"
        assert [line[heads.index("Grade")] for line in lines] == ["9", "", ""]  # bo1's is not read yet

    @pytest.mark.parametrize(
        ("change", "wrong"),
        [
            (("10.00", "100.00"), "must have 10 points in Moodle too, it has 100.00"),
            (("Grade,", "Note,"), "in English"),
        ],
    )
    def test_a_worksheet_that_does_not_fit_is_refused(self, forms, tmp_path, change, wrong):
        place = archives.worksheet(tmp_path / "w.csv", [(71, "Ann Lee", "ann@x.edu", "-")])
        place.write_text(place.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
        with pytest.raises(roster.Refused, match=wrong):
            grade.write_worksheet(forms, "bellman", place)

    def test_the_term_has_a_line_for_each(self, forms):
        heads, *lines = read(forms / "term.csv")
        found = {line[0]: dict(zip(heads, line, strict=True)) for line in lines}
        assert found.keys() == {"ann", "bo1", "bo2", "dan", "guest", "joerg", "zoe"}
        ann = found["ann"]
        assert (ann["bellman"], ann["key_equation"], ann["points"], ann["max_points"], ann["open"]) == (
            "9.0",
            "4.0",
            "13.0",
            "20.0",
            "0",
        )
        assert (found["joerg"]["bellman before"], found["joerg"]["bellman"], found["joerg"]["open"]) == (
            "0.5",
            "0.0",
            "1",
        )

    @pytest.mark.parametrize(
        ("points", "text"), [(0, "0"), (10, "10"), (7.25, "7.25"), (7.5, "7.5"), (100.0, "100"), (2 / 3, "0.67")]
    )
    def test_a_number_has_two_digits_at_most(self, points, text):
        assert tables.number(points) == text


class TestTermCommand:
    @pytest.fixture(autouse=True)
    def here(self, root, monkeypatch):
        monkeypatch.setattr(grade, "places", lambda _: (root, root / "handout", root / "student"))

    def test_the_term_is_written_and_what_is_open_is_counted(self, root, capsys):
        grade.main(["term", "bellman", "key_equation"])
        said = capsys.readouterr().out
        assert f"written to {root / 'term.csv'}" in said and "places are open" in said

    @pytest.mark.parametrize(
        ("file", "text", "wrong"),
        [
            ("roster.csv", "name\nAnn\n", "roster.csv must have a column student"),
            ("term.toml", "[assignments.belman]", "assignments.belman is no assignment"),
            ("term.toml", f"{TERM}nobody = 2026-11-13T23:59:00", "extensions.bellman.nobody is nobody in the roster"),
        ],
    )
    def test_what_is_wrong_is_a_sentence(self, root, capsys, file, text, wrong):
        (root / file).write_text(text, encoding="utf-8")
        with pytest.raises(SystemExit):
            grade.main(["table", "bellman"])
        said = capsys.readouterr()
        assert wrong in said.err and "Traceback" not in said.err and said.out == ""


def part_of_the_page(heading):
    """Return what stands under a heading of the page on a course over a term."""
    page = (pages.BOOK / "instructors_term.md").read_text(encoding="utf-8")
    _, found, after = page.partition(f"\n## {heading}\n")
    assert found, f"no part {heading!r}"
    return after.partition("\n## ")[0]


class TestInstructorsPage:
    """What the page for instructors says about names, archives and dates, done as it is written there."""

    def test_each_line(self, root, tmp_path, monkeypatch, capsys):
        section = part_of_the_page("Names, archives and dates")
        blocks = [
            textwrap.dedent(block) for block in re.findall(r"(?:^(?:    .*)?\n)+", section, re.M) if block.strip()
        ]
        class_list, dates, *steps = [block.strip() + "\n" for block in blocks]
        (root / "roster.csv").write_text(class_list, encoding="utf-8")
        (root / "term.toml").write_text(dates, encoding="utf-8")
        archives.moodle(tmp_path / "moodle.zip", [("Ann Lee", 71, "mine.ipynb", "ann")])
        archives.worksheet(
            tmp_path / "worksheet.csv", [(71, "Ann Lee", "ann@x.edu", "Saturday, 7 November 2026, 1:00 PM")]
        )
        archives.canvas(tmp_path / "canvas.zip", [("Müller, Jörg", True, 502, 9001, "b.ipynb", "joerg")])
        monkeypatch.setattr(grade, "places", lambda _: (root, root / "handout", root / "student"))
        monkeypatch.chdir(tmp_path)
        commands = [shlex.split(line) for line in "".join(steps).splitlines()]
        assert {tuple(words[:2]) for words in commands} == {(".venv/bin/python", "coursework/grade.py")}
        assert [words[2] for words in commands] == ["collect", "collect", "table", "term"]
        for words in commands:
            grade.main(words[2:])
        said = capsys.readouterr().out
        assert "not taken" not in said and "8.00 after lateness" in said and "Canvas marked it late" in said
        assert read(root / "term-canvas.csv")[0][5:] == ["Problem set 1 (4711)", "key_equation"]
        assert read(root / "bellman-worksheet.csv")[1][4] == "8"
        assert read(root / "term-moodle.csv")[1][:5] == ["", "", "ann@x.edu", "Ann Lee", "8"]

    def test_what_can_change(self, tmp_path):
        """The rest of it is done in `test_class.py`; here are the names that the page writes."""
        section = part_of_the_page("When something changes")
        lines = [line.strip() for line in section.replace("\\\n", "").splitlines() if line.startswith("    ")]
        at = lines.index("[points.bellman]")
        (tmp_path / "term.toml").write_text("\n".join(lines[at : at + 5]), encoding="utf-8")
        dates = term.read(tmp_path / "term.toml", assignments=["bellman"], students=["ann", "joerg"])
        assert dates.points["bellman"].keys() < weights.graded(source_of("bellman")).keys()
        assert dates.holder("bellman", "joerg") == "gauss"
        said = [shlex.split(line) for line in lines if "grade.py" in line]
        assert [words[2] for words in said] == ["autograde", "collect", "report", "solutions"]
        assert said[1][3:] == ["bellman", "inbox.zip", "--root", "~/courses/2027-a"]
        assert "make course" in lines
