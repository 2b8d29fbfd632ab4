"""Whatever is handed in is read, or its row says why not; nothing that a student wrote is lost without a word."""

import contextlib
import json
import os
import shutil
import sqlite3
import time
import warnings

import course
import grade
import marks
import nbformat
import pytest
from grader import intake
from grader.preprocessors import BELOW, ELSEWHERE, STUB, RestoreCells, grade_id
from hypothesis import given
from hypothesis import strategies as st

from tests.waiting import PATIENCE

SOURCE = course.SOURCE / "bellman" / "bellman.ipynb"
TEXT = SOURCE.read_text(encoding="utf-8")
DATA = json.loads(TEXT)
MANUAL, OTHER = "derive-answer", "long-claim-answer"


def put(place, content):
    """Write a submission; return its path."""
    path = place / "bellman.ipynb"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def sources(notebook):
    """Return the texts of a notebook."""
    return [cell.source for cell in notebook.cells]


class TestRead:
    @pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_every_way_to_save_a_text(self, tmp_path, code, end):
        notebook, notes = intake.read(put(tmp_path, TEXT.replace("\n", end).encode(code)))
        assert sources(notebook) == sources(nbformat.reads(TEXT, as_version=4)) and notes == []

    def test_ends_of_lines_inside_of_cells(self, tmp_path):
        cells = [cell | {"source": [line.replace("\n", "\r\n") for line in cell["source"]]} for cell in DATA["cells"]]
        notebook, _ = intake.read(put(tmp_path, json.dumps(DATA | {"cells": cells})))
        assert sources(notebook) == sources(nbformat.reads(TEXT, as_version=4))

    def test_format_3(self, tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            old = nbformat.writes(nbformat.convert(nbformat.reads(TEXT, as_version=4), 3), version=3)
        notebook, _ = intake.read(put(tmp_path, old))
        assert sources(notebook) == sources(nbformat.reads(TEXT, as_version=4))
        assert list(map(grade_id, notebook.cells)) == list(map(grade_id, nbformat.reads(TEXT, as_version=4).cells))

    def test_cells_without_ids_or_with_one_id_or_with_impossible_ones(self, tmp_path):
        for make in (lambda cell: cell.pop("id"), lambda cell: cell.update(id="a"), lambda cell: cell.update(id="<x>")):
            data = json.loads(TEXT)
            for cell in data["cells"]:
                make(cell)
            notebook, _ = intake.read(put(tmp_path, json.dumps(data)))
            assert len({cell.id for cell in notebook.cells}) == len(data["cells"]) == len(notebook.cells)

    def test_nothing_is_kept_but_what_is_graded(self, tmp_path):
        data = json.loads(TEXT)
        data["metadata"] |= {"widgets": {"application/vnd.jupyter.widget-state+json": {}}, "title": "<b>", "x": 1}
        for cell in data["cells"]:
            cell["metadata"] |= {"widgets": 3, "tags": 7, "collapsed": "x", "scrolled": {}, "more": None}
            if cell["cell_type"] == "code":
                cell["outputs"] = [{"output_type": "stream"}, 3]
        notebook, _ = intake.read(put(tmp_path, json.dumps(data)))
        assert notebook.metadata == {} and all(set(cell.metadata) <= {"nbgrader"} for cell in notebook.cells)
        assert all(cell.outputs == [] for cell in notebook.cells if cell.cell_type == "code")

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"", "is empty"),
            (b" \n", "is empty"),
            ("{ this is no notebook", "its JSON stops making sense in line 1"),
            (TEXT[:-300], "its JSON stops making sense in line"),
            ("[" * 100_000, "its JSON cannot be read"),
            ("[]", "it names no format"),
            ("{}", "it names no format"),
            ("7", "it names no format"),
            (json.dumps(DATA | {"nbformat": 5}), "is of format 5"),
            (json.dumps(DATA | {"nbformat": "4"}), "is of format 4"),
            (json.dumps(DATA | {"nbformat": None}), "is of format None"),
            (json.dumps(DATA | {"cells": None}), "has no list of cells"),
            (json.dumps({"nbformat": 3, "worksheets": 1}), "has no list of cells"),
            (json.dumps({"nbformat": 3, "worksheets": [1]}), "has no list of cells"),
            (json.dumps({"nbformat": 3, "worksheets": ["cells"]}), "has no list of cells"),
            (json.dumps({"nbformat": 3, "worksheets": [{"cells": None}]}), "has no list of cells"),
            (b"\x89PNG\r\n\x1a\n\xff\xfe\x00", "is not text"),
            (b"PK\x03\x04\xff\xff", "is not text"),
            (b"%PDF-1.4 ...", "its JSON stops making sense"),
            (b" " * (intake.LARGEST + 1), "is larger than 20 MB"),
        ],
    )
    def test_what_cannot_be_read_says_why(self, tmp_path, content, why):
        with pytest.raises(intake.Unreadable, match=why):
            intake.read(put(tmp_path, content))

    def test_what_is_no_file_says_so(self, tmp_path, monkeypatch):
        with pytest.raises(intake.Unreadable, match="is not there"):
            intake.read(tmp_path / "nothing.ipynb")
        (tmp_path / "folder.ipynb").mkdir()
        with pytest.raises(intake.Unreadable, match="is a folder"):
            intake.read(tmp_path / "folder.ipynb")
        (tmp_path / "link.ipynb").symlink_to(SOURCE)  # the solutions, as they happen to be
        with pytest.raises(intake.Unreadable, match="is a link"):
            intake.read(tmp_path / "link.ipynb")

        def refuse(self):
            raise PermissionError(13, "Permission denied")

        path = put(tmp_path, TEXT)
        monkeypatch.setattr(type(path), "read_bytes", refuse)  # the tests may run as one who may read everything
        with pytest.raises(intake.Unreadable, match="cannot be opened: Permission denied"):
            intake.read(path)

    def test_too_many_cells(self, tmp_path):
        many = json.dumps(DATA | {"cells": DATA["cells"][:1] * (intake.MOST + 1)})
        notebook, notes = intake.read(put(tmp_path, many))
        assert len(notebook.cells) == intake.MOST and notes == ["only the first 1000 of 1001 cells were read"]

    def test_half_a_character(self, tmp_path):
        data = DATA | {"cells": [DATA["cells"][0] | {"source": "a \ud800 b"}]}
        notebook, _ = intake.read(put(tmp_path, json.dumps(data)))
        assert sources(notebook) == ["a ? b"]

    def test_half_a_character_in_a_name(self, tmp_path):
        mark = {"nbgrader": {"grade_id": "a\ud800"}}
        picture = {"\ud800": {"image/png": "\ud800"}}
        data = DATA | {"cells": [DATA["cells"][0] | {"metadata": mark, "attachments": picture}]}
        notebook, _ = intake.read(put(tmp_path, json.dumps(data)))
        nbformat.write(notebook, tmp_path / "again.ipynb")
        assert grade_id(nbformat.read(tmp_path / "again.ipynb", as_version=4).cells[0]) == "a?"

    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=6), inside, max_size=3),
        max_leaves=8,
    )
    words = st.sampled_from(["id", "cell_type", "source", "metadata", "outputs", "attachments", "input"])
    odd_cells = st.dictionaries(
        words, json_values | st.sampled_from(["code", "markdown", "raw", "heading"]), max_size=6
    )

    @given(cells=st.lists(odd_cells | json_values, max_size=5), rest=st.dictionaries(words, json_values, max_size=3))
    def test_cells_of_anything_make_a_notebook(self, tmp_path_factory, cells, rest):
        path = tmp_path_factory.getbasetemp() / "any.ipynb"
        path.write_text(json.dumps(rest | {"nbformat": 4, "cells": cells}))
        notebook, notes = intake.read(path)  # which is validated there
        assert len(notebook.cells) <= len(cells) and (len(notebook.cells) == len(cells)) == (notes == [])

    def test_a_time_that_is_none_is_left_out(self, tmp_path):
        put(tmp_path, TEXT)
        for stamp, kept in (("2026-01-01 12:00:00 UTC", True), ("soon", False), ("", False)):
            (tmp_path / "timestamp.txt").write_text(stamp)
            target = tmp_path / ("kept" if kept else f"left-{stamp}")
            intake.take(tmp_path, target, "bellman")
            assert sorted(path.name for path in target.iterdir()) == ["bellman.ipynb"] + ["timestamp.txt"] * kept


def student():
    """Return a notebook as students get it, as far as the answers go."""
    notebook = nbformat.reads(TEXT, as_version=4)
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            cell.source = STUB if cell.cell_type == "markdown" else "...  # your code here"
        if grade_id(cell) == OTHER:
            cell.source = "An answer to another question."
    return notebook


def restored(notebook):
    """Return a notebook after the cells were put back, and the notes."""
    resources = {"nbgrader": {"db_url": f"sqlite:///{course.COURSEWORK}/g.db", "assignment": "bellman"}}
    resources["nbgrader"]["notebook"] = "bellman"
    made, _ = RestoreCells().preprocess(notebook, resources)
    return made, made.metadata["notes"]


def at(notebook, name):
    """Return the place of the cell with a grade id."""
    return next(i for i, cell in enumerate(notebook.cells) if grade_id(cell) == name)


PROOF = "Since the maximum is monotone, ..."


class TestNothingIsLost:
    def test_an_untouched_notebook_has_no_notes(self):
        made, notes = restored(student())
        assert notes == [] and made.cells[at(made, MANUAL)].source == STUB

    @pytest.mark.parametrize("make", ["new_markdown_cell", "new_raw_cell", "new_code_cell"])
    def test_a_proof_in_a_new_cell_below_is_to_be_read(self, make):
        notebook = student()
        notebook.cells.insert(at(notebook, MANUAL) + 1, getattr(nbformat.v4, make)(PROOF))
        made, notes = restored(notebook)
        assert made.cells[at(made, MANUAL)].source == BELOW and PROOF in sources(made)
        assert notes == [f"{MANUAL} is empty, and the cell below it is not: read that"]

    @pytest.mark.parametrize("where", [0, 2, -1])
    def test_a_proof_elsewhere_is_to_be_read(self, where):
        notebook = student()
        notebook.cells.insert(where, nbformat.v4.new_markdown_cell(PROOF))
        made, notes = restored(notebook)
        assert made.cells[at(made, MANUAL)].source == ELSEWHERE and len(notes) == 1

    def test_a_proof_in_the_cell_of_the_question_is_to_be_read(self):
        notebook = student()
        notebook.cells[at(notebook, MANUAL) - 1].source += f"\n\n{PROOF}"
        made, notes = restored(notebook)
        assert made.cells[at(made, MANUAL)].source == ELSEWHERE and len(notes) == 1

    def test_a_proof_in_its_place_needs_no_word(self):
        notebook = student()
        notebook.cells[at(notebook, MANUAL)].source = PROOF
        notebook.cells.append(nbformat.v4.new_markdown_cell("A remark."))
        made, notes = restored(notebook)
        assert made.cells[at(made, MANUAL)].source == PROOF and notes == []

    @pytest.mark.parametrize("name", [MANUAL, "soft-answer", "predict-answer"])
    @pytest.mark.parametrize("ids", [True, False])
    def test_an_answer_whose_mark_is_gone_is_found(self, name, ids):
        notebook = student()
        answer = notebook.cells[at(notebook, name)]
        answer.source, answer.metadata = PROOF, nbformat.from_dict({})
        if not ids:
            for cell in notebook.cells:
                cell.id = nbformat.v4.new_raw_cell().id
        made, notes = restored(notebook)
        assert made.cells[at(made, name)].source == PROOF
        assert notes == [f"{name} had lost its mark and was found by its {'id' if ids else 'place'}"]

    def test_all_marks_gone(self):
        """An editor that knows nothing of metadata: every answer is found, and every test is put back."""
        notebook = student()
        for cell in notebook.cells:
            if cell.metadata.get("nbgrader", {}).get("solution"):
                cell.source = f"# {grade_id(cell)}: {PROOF}"
        for cell in notebook.cells:
            cell.metadata = nbformat.from_dict({})
        made, notes = restored(notebook)
        answers = [cell for cell in made.cells if cell.metadata.get("nbgrader", {}).get("solution")]
        assert [cell.source for cell in answers] == [f"# {grade_id(cell)}: {PROOF}" for cell in answers]
        assert len(notes) == len(answers) == 10

    def test_what_is_not_found_is_said(self):
        notebook = student()
        del notebook.cells[at(notebook, MANUAL)]
        notebook.cells.insert(3, nbformat.v4.new_markdown_cell(PROOF))
        notebook.cells.insert(4, nbformat.v4.new_markdown_cell("Second part."))
        made, notes = restored(notebook)
        assert notes == [f"{MANUAL} is missing"] and PROOF in sources(made)
        assert "missing" in made.cells[at(made, MANUAL)].source  # no stub: a person is asked to look

    def test_of_several_the_last_one_counts_and_it_is_said(self):
        notebook = student()
        place = at(notebook, MANUAL)
        first = nbformat.from_dict(notebook.cells[place])
        first.id, first.source = "copy", PROOF
        notebook.cells.insert(place, first)
        made, notes = restored(notebook)
        assert f"several cells were {MANUAL}: the last one counts" in notes and PROOF in sources(made)
        assert made.cells[at(made, MANUAL)].source == ELSEWHERE


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """Return a gradebook without anything in it, which takes its time to make."""
    place = tmp_path_factory.mktemp("empty")
    marks.gradebook(place).close()
    return place / "gradebook.db"


@pytest.fixture
def root(tmp_path, empty):
    """Return a course directory with three submissions that were graded."""
    shutil.copy(empty, tmp_path)
    (tmp_path / "source" / "bellman").mkdir(parents=True)
    (tmp_path / "source" / "bellman" / "bellman.ipynb").write_text(TEXT)
    for name in ("ann", "bob", "cem"):
        (tmp_path / "submitted" / name / "bellman").mkdir(parents=True)
        put(tmp_path / "submitted" / name / "bellman", TEXT)
        grade.write(tmp_path, "bellman", name, "graded", 1.0, notes=["a note"])
    return tmp_path


def page_or(trouble):
    """Return what makes a feedback page, but for bob."""

    def work(root, assignment, student):
        if student == "bob":
            trouble()
        place = root / "feedback" / student / assignment
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{assignment}.html").write_text("page")

    return work


class TestOneCostsNobodyElse:
    """Each step, with one submission at which it fails, hangs, or dies."""

    @pytest.mark.parametrize("trouble", [lambda: 1 / 0, lambda: time.sleep(1000), lambda: __import__("os")._exit(1)])
    def test_feedback(self, root, monkeypatch, trouble):
        monkeypatch.setattr(grade, "_feedback_one", page_or(trouble))
        assert grade.feedback(root, "bellman", limit=3) == ["ann", "cem"]
        assert grade.outcome(root, "bellman", "bob")["notes"] == ["a note", grade.NO_PAGE]
        monkeypatch.setattr(grade, "_feedback_one", page_or(lambda: None))
        assert grade.feedback(root, "bellman") == ["ann", "bob", "cem"]
        assert grade.outcome(root, "bellman", "bob")["notes"] == ["a note"]

    @pytest.mark.parametrize("trouble", [lambda: 1 / 0, lambda: time.sleep(1000), lambda: __import__("os")._exit(1)])
    def test_autograde(self, root, monkeypatch, trouble):
        def work(root, assignment, student):
            if student == "bob":
                trouble()
            grade.write(root, assignment, student, "graded", 0.0)

        monkeypatch.setattr(grade, "_grade_one", work)
        grade.autograde(root, "bellman", again=True, limit=3)
        assert [grade.outcome(root, "bellman", name)["status"] == "graded" for name in ("ann", "bob", "cem")] == [
            True,
            False,
            True,
        ]

    def test_several_assignments_in_one_batch(self, root, monkeypatch):
        for kind in ("source", "submitted/ann", "submitted/bob"):
            (root / kind / "other").mkdir(parents=True)
            (root / kind / "other" / "other.ipynb").write_text(TEXT)
        grade.write(root, "other", "bob", "graded", 0.0)
        batches, each = [], grade._each
        monkeypatch.setattr(grade, "_each", lambda *args, **how: batches.append(args[2]) or each(*args, **how))
        monkeypatch.setattr(grade, "_grade_one", lambda *one: one[1] == "other" or grade.write(*one, "graded", 0.0))
        grade.record(root, "bellman", "cem").unlink()
        grade.autograde(root, "bellman", "other")
        assert batches == [[("bellman", "cem"), ("other", "ann")], [("other", "ann")]]
        said = {one: grade.outcome(root, *one)["status"] for one in batches[0]}
        assert said == {("bellman", "cem"): "graded", ("other", "ann"): "cannot be graded"}

    @pytest.mark.parametrize(
        ("trouble", "limit"),
        [(lambda: 1 / 0, PATIENCE), (lambda: time.sleep(PATIENCE), 15), (lambda: os.kill(os.getpid(), 9), PATIENCE)],
    )
    def test_what_need_not_be_its_fault_is_graded_once_more(self, root, monkeypatch, trouble, limit):
        def work(root, assignment, student):
            if student == "bob" and not (root / "tried").exists():
                (root / "tried").touch()
                trouble()
            grade.write(root, assignment, student, "graded", 0.0)

        monkeypatch.setattr(grade, "_grade_one", work)
        grade.autograde(root, "bellman", again=True, limit=limit)
        assert [grade.outcome(root, "bellman", name)["status"] for name in ("ann", "bob", "cem")] == ["graded"] * 3

    @pytest.mark.parametrize(
        ("trouble", "said"), [(lambda: 1 / 0, "ZeroDivisionError"), (lambda: os.kill(os.getpid(), 9), "code -9")]
    )
    def test_what_fails_twice_says_why_and_is_graded_again_the_next_time(self, root, monkeypatch, trouble, said):
        record = grade.record(root, "bellman", "bob")
        record.unlink()
        monkeypatch.setattr(grade, "_grade_one", lambda *one: trouble())
        grade.autograde(root, "bellman")
        found = json.loads(record.read_text())
        assert found["status"] == "cannot be graded" and found["ours"] and said in found["detail"]
        monkeypatch.setattr(grade, "_grade_one", lambda *one: grade.write(*one, "graded", 0.0))
        grade.autograde(root, "bellman")
        assert grade.outcome(root, "bellman", "bob")["status"] == "graded"

    def test_control_what_is_its_fault_is_graded_once(self, root, monkeypatch):
        put(root / "submitted" / "bob" / "bellman", "no notebook")
        batches, each = [], grade._each
        monkeypatch.setattr(grade, "_each", lambda *args, **how: batches.append(args[2]) or each(*args, **how))
        for _ in range(2):
            grade.autograde(root, "bellman")
        assert [batch for batch in batches if batch] == [[("bellman", "bob")]]
        assert not grade.outcome(root, "bellman", "bob")["ours"]

    def test_a_batch_begins_with_that(self, root, monkeypatch):
        def courses(*one):
            with contextlib.closing(sqlite3.connect(root / "gradebook.db")) as book:
                known = [name for (name,) in book.execute("SELECT id FROM course")]
            grade.write(*one, "graded", 0.0, notes=known)

        monkeypatch.setattr(grade, "_grade_one", courses)
        grade.autograde(root, "bellman", again=True)
        assert "default_course" in grade.outcome(root, "bellman", "ann")["notes"]

    @pytest.mark.parametrize("prepared", [True, False])
    def test_steps_of_nbgrader_open_the_gradebook_at_the_same_time(self, tmp_path, empty, prepared):
        """Another process writes the default course down just before this one does."""
        from nbgrader.api import Gradebook, InvalidEntry
        from sqlalchemy import event
        from sqlalchemy.orm import Session

        shutil.copy(empty, tmp_path)
        if prepared:
            marks.prepare(tmp_path)

        def other(*_):
            with contextlib.closing(sqlite3.connect(tmp_path / "gradebook.db")) as book:
                book.execute("INSERT INTO course (id) VALUES ('default_course')")
                book.commit()

        event.listen(Session, "before_flush", other)
        try:
            with contextlib.nullcontext() if prepared else pytest.raises(InvalidEntry):
                Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}").close()
        finally:
            event.remove(Session, "before_flush", other)

    @pytest.mark.parametrize("odd", ["folder", "link", "dangling", "gone", "record"])
    def test_what_lies_in_the_place_of_a_submission(self, root, odd, monkeypatch):
        path = root / "submitted" / "bob" / "bellman" / "bellman.ipynb"
        path.unlink()
        if odd == "folder":
            path.mkdir()
        elif odd == "link":
            path.symlink_to(SOURCE)
        elif odd == "dangling":
            path.symlink_to("/nowhere/at/all")
        elif odd == "record":
            put(path.parent, TEXT)
            grade.record(root, "bellman", "bob").write_text("[]")
        assert grade.outcome(root, "bellman", "bob") is None
        assert [grade.outcome(root, "bellman", name)["status"] for name in ("ann", "cem")] == ["graded", "graded"]
        if odd != "record":
            grade.autograde(root, "bellman")
            said = grade.outcome(root, "bellman", "bob")
            assert said["status"] == "cannot be graded" and said["notes"][0].startswith("the notebook is ")

    def test_collect(self, tmp_path):
        inbox = tmp_path / "inbox"
        (inbox / "folder.ipynb").mkdir(parents=True)
        (inbox / "link.ipynb").symlink_to(SOURCE)
        (inbox / "loop").symlink_to(inbox)
        (inbox / "ann.ipynb").write_text(TEXT)
        assert grade.collect(tmp_path, "bellman", inbox) == {
            "folder.ipynb": "it is a folder",
            "link.ipynb": "it is a link",
            "loop": "it is a link",
        }
        assert grade.students(tmp_path, "bellman") == ["ann"]

    def test_collect_from_a_broken_archive(self, tmp_path):
        import zipfile

        archive = tmp_path / "class.zip"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("ann.ipynb", TEXT)
            file.writestr("bob.ipynb", "the checksum of this one will not be right")
        data = archive.read_bytes()
        archive.write_bytes(data.replace(b"will not be right", b"WILL NOT BE RIGHT"))
        refused = grade.collect(tmp_path, "bellman", archive)
        assert list(refused) == ["bob.ipynb"] and "cannot be read" in refused["bob.ipynb"]
        assert grade.students(tmp_path, "bellman") == ["ann"]

    @pytest.mark.parametrize("kind", ["stored", "deflated", "bzip2", "lzma"])
    @pytest.mark.parametrize("trouble", ["what was packed", "its name"])
    def test_one_broken_file_of_an_archive_costs_nobody_else_anything(self, tmp_path, kind, trouble):
        import zipfile

        archive = tmp_path / "class.zip"
        ways = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}
        ways |= {"bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}
        with zipfile.ZipFile(archive, "w", ways[kind]) as file:
            file.writestr("bob.ipynb", TEXT)
            file.writestr("zoe.ipynb", TEXT)
        data = bytearray(archive.read_bytes())
        if trouble == "its name":  # said to be UTF-8, which it is not
            data[7] |= 8
            data[30] = 0xFF
        else:
            data[60:90] = b"\xff" * 30
        archive.write_bytes(data)
        refused = grade.collect(tmp_path, "bellman", archive)
        assert list(refused) == ["bob.ipynb"] and "cannot be read" in refused["bob.ipynb"]
        assert grade.students(tmp_path, "bellman") == ["zoe"]
