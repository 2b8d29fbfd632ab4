"""A class is graded with the real nbgrader: marks, submissions that mean harm, batches that end halfway, feedback."""

import contextlib
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import course
import grade
import nbformat
import pytest
from grader import sandbox

from tests import pages
from tests.coursework.assignments import BY_NBGRADER, DAILY, graded_cells
from tests.coursework.submissions import (
    ADVERSARIES,
    FULL,
    NO_SOFT,
    OTHERS,
    SMUGGLERS,
    UNREADABLE,
    first_cell,
    good,
)
from tests.waiting import until


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


def start_from(made, root):
    """Copy a course directory that nobody has handed anything in to."""
    for name in ("source", "release"):
        shutil.copytree(made / name, root / name)
    for name in ("gradebook.db", "seed.txt", "nbgrader_config.py"):
        shutil.copy(made / name, root)


@pytest.mark.parametrize("name", BY_NBGRADER)
class TestMarks:
    """What nbgrader makes of every assignment, answered in full and not at all."""

    def test_instructor_earns_full_marks(self, name, marked):
        assert scores(marked, name, "instructor") == graded_cells(name) | dict.fromkeys(graded_cells(name, manual=True))
        row = next(row for row in grade.table(marked, name) if row["student_id"] == "instructor")
        assert row["needs_manual_grade"] and '"output_type": "error"' not in outputs(marked, name, "instructor")

    def test_untouched_edition_runs_and_earns_nothing(self, name, marked):
        everything = graded_cells(name) | graded_cells(name, manual=True)
        assert scores(marked, name, "untouched") == dict.fromkeys(everything, 0)
        shown = outputs(marked, name, "untouched")
        assert '"output_type": "error"' not in shown and shown.count("Nothing here yet") >= len(graded_cells(name))


class TestAdversaries:
    @pytest.mark.parametrize("student", ADVERSARIES)
    def test_gets_what_it_should(self, batch, student):
        found = scores(batch, "bellman", student)
        assert {name: found[name] for name in FULL} == ADVERSARIES[student][1]

    def test_a_fault_is_named_in_the_feedback(self, batch):
        assert "took longer than 5 seconds" in outputs(batch, "bellman", "loop_call")
        assert "took longer than 5 seconds" in outputs(batch, "bellman", "loop_stubborn")
        assert "took longer than 20 seconds" in outputs(batch, "bellman", "loop_cell")
        assert "Your answer raised AssertionError: too cold" in outputs(batch, "bellman", "asserts").replace("\\n", " ")
        assert "ended its process" in outputs(batch, "bellman", "hard_exit")
        assert "farthest_at must be typed in" in outputs(batch, "bellman", "rerun").replace("\n", " ")
        assert "rejects a right implementation" in outputs(batch, "bellman", "always_fails")

    def test_output_is_cut(self, batch):
        page = batch / "autograded" / "output" / "bellman" / "bellman.ipynb"
        assert page.stat().st_size < 200_000 and "more characters" in page.read_text(encoding="utf-8")

    @pytest.mark.skipif(
        sandbox.isolation() != "namespaces", reason="this machine gives no namespaces: files can be read"
    )
    def test_nothing_is_there_to_be_read(self, batch):
        shown = outputs(batch, "bellman", "hunter")
        assert "FOUND 0 [] []" in shown and scores(batch, "bellman", "hunter")["soft-test"] == 0

    def test_what_is_no_notebook_is_said_and_costs_nobody_else(self, batch):
        rows = {row["student_id"]: row for row in grade.table(batch, "bellman")}
        for student, why in UNREADABLE.items():
            assert (rows[student]["status"], rows[student]["score"]) == ("cannot be graded", 0)
            assert why in rows[student]["note"]
        assert rows["good"]["score"] == rows["utf16"]["score"] == sum(FULL.values())
        assert rows.keys() == {*ADVERSARIES, *UNREADABLE, *SMUGGLERS, *OTHERS}

    def test_what_was_put_right_is_said(self, batch):
        notes = {row["student_id"]: row["note"] for row in grade.table(batch, "bellman")}
        assert notes["good"] == notes["widget"] == notes["utf16"] == ""
        computed = ["sweeps_with_an_end is not typed in, and earns nothing: int(sweeps_with_an_end)"]
        computed += [f"{name} is not typed in, and earns nothing" for name in ("why", "where", "farthest_at")]
        assert notes["retyped_answers"] == "" and not [text for text in computed if text not in notes["rerun"]]
        assert notes["below"] == "derive-answer is empty, and the cell below it is not: read that"
        assert notes["no_marks"].count("had lost its mark and was found by its id") == 10
        assert "soft-answer is missing" in notes["deleted_answer"]
        assert "several cells were bug-test" in notes["fake_test"]

    def test_a_proof_below_its_place_waits_for_a_person(self, batch):
        rows = {row["student_id"]: row for row in grade.table(batch, "bellman")}
        assert rows["below"]["needs_manual_grade"] and not rows["untouched"]["needs_manual_grade"]
        nb = nbformat.read(batch / "autograded" / "below" / "bellman" / "bellman.ipynb", as_version=4)
        assert "Let $a < b$ ..." in [cell.source for cell in nb.cells]

    def test_nothing_is_left_running(self, batch):
        assert sandbox.strays(f"GRADER_MARK=batch-{batch.parent}-") == []

    def test_control_what_is_running_is_found(self, monkeypatch):
        monkeypatch.setenv("GRADER_MARK", f"control-of-{os.getpid()}-")
        with sandbox.Session() as session:
            session.run("1")
            assert len(sandbox.strays(f"GRADER_MARK=control-of-{os.getpid()}-")) >= 2
        until(lambda: sandbox.strays(f"GRADER_MARK=control-of-{os.getpid()}-") == [])

    def test_a_second_run_grades_nothing_again(self, batch):
        root = batch
        places = list((root / "graded").glob("*/*.json"))
        assert {place.parent.name for place in places} == set(DAILY)
        before = {place: place.stat().st_mtime_ns for place in places}
        grade.autograde(root, *DAILY)
        assert {place: place.stat().st_mtime_ns for place in places} == before

    def test_the_table_is_what_a_platform_reads(self, batch):
        place, rows = grade.write_table(batch, "bellman")
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
    start_from(made[0], root)
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
        start_from(made[0], root)
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

    def test_attacks_succeed_in_one_process(self, made, batch, tmp_path):
        root = tmp_path / "instructor"
        start_from(made[0], root)
        place = root / "nbgrader_config.py"
        plain = (
            place.read_text(encoding="utf-8")
            .replace("    RestoreCells,\n", "")
            .replace("    ForReading,\n", "")
            .replace("[ExecuteApart,", "[Execute,")
        )
        place.write_text(plain, encoding="utf-8")
        for student in ("overwrite_check", "deleted_test"):
            shutil.copytree(batch / "submitted" / student, root / "submitted" / f"plain_{student}")
        students = ["plain_overwrite_check", "plain_deleted_test"]
        waiting = [("bellman", student) for student in students]
        assert len(list(grade._each(as_it_comes, root, waiting, workers=2, limit=600))) == 2
        assert scores(root, "bellman", "plain_overwrite_check")["soft-test"] == 6  # and deserves nothing
        assert scores(root, "bellman", "plain_deleted_test")["soft-test"] is None  # and deserves six


class TestCommands:
    """What an instructor types, on the course of `batch`."""

    def test_a_table_for_each_assignment(self, batch, capsys):
        grade.main(["table", *DAILY, "--root", str(batch)])
        said = capsys.readouterr().out
        assert [f"written to {batch / name}.csv" in said for name in DAILY] == [True, True]
        full = sum(FULL.values())
        whole = full + sum(graded_cells("bellman", manual=True).values())
        assert re.search(rf"^good +{full}\.00 of {whole}  graded, to be read$", said, re.M)
        assert re.search(r"^empty +0\.00 of \d+  cannot be graded: the notebook is empty$", said, re.M)

    def test_all_are_graded_in_one_batch(self, batch, monkeypatch):
        asked = []
        monkeypatch.setattr(grade, "autograde", lambda *names, **options: asked.append((names, options)) or [])
        grade.main(["autograde", *DAILY, "--workers", "3", "--root", str(batch)])
        assert asked == [((batch, *DAILY), {"workers": 3, "again": False})]

    def test_what_is_collected_has_a_place(self, batch, monkeypatch, capsys):
        asked = []
        monkeypatch.setattr(grade, "collect", lambda *where: asked.append(where) or {"x": "it is a link"})
        grade.main(["collect", "bellman", "inbox.zip", "--root", str(batch)])
        assert (
            asked == [(batch, "bellman", "inbox.zip", None)]
            and "not taken: 'x': it is a link" in capsys.readouterr().out
        )
        for wrong in (["collect", "bellman"], ["collect", "bellman", "a", "b"]):
            with pytest.raises(SystemExit):
                grade.main(wrong)
            assert "collect needs FROM" in capsys.readouterr().err


class TestCollect:
    def test_paths_in_names_are_refused(self, tmp_path):
        archive = tmp_path / "class.zip"
        with zipfile.ZipFile(archive, "w") as file:
            for name in (
                "ann.ipynb",
                "bob/anything.ipynb",
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
        assert grade.students(tmp_path / "root", "bellman") == ["ann", "bob"] and len(refused) == 8
        taken = tmp_path / "root" / "submitted" / "bob" / "bellman" / "bellman.ipynb"
        assert taken.read_text(encoding="utf-8") == "bob/anything.ipynb"
        assert not list(tmp_path.rglob("evil*")) and not (tmp_path.parent / "eve.ipynb").exists()


class TestFeedbackPages:
    @pytest.fixture
    def page(self, batch):
        place = batch / "feedback" / "loop_call" / "bellman" / "bellman.html"
        return place.read_text(encoding="utf-8")

    def test_shows_marks_and_diagnoses(self, page):
        assert "took longer than 5 seconds" in page and f"Score: {sum(NO_SOFT.values())}.0 /" in page

    def test_asks_no_other_host(self, page):
        assert "<script" not in page and "Content-Security-Policy" in page and "default-src 'none'" in page
        assert not re.search(r"<(link|iframe)\b", page)

    def test_a_planted_request_is_taken_out_or_forbidden(self):
        planted = '<html><head><link href="https://cdn.example/x.css"></head><body><script src="https://x"></script></body></html>'
        clean = grade.alone(planted)
        assert "refresh" not in grade.alone('<head></head><meta content="0;https://x" http-equiv=refresh>')
        assert "cdn.example" not in clean and "<script" not in clean and "default-src 'none'" in clean
