"""A course is made anew while there are submissions: a failure, an interruption, other points, questions, numbers."""

import copy
import json
import re
import shutil
import warnings
from datetime import UTC, datetime

import change
import course
import grade
import marking
import marks
import nbformat
import pytest
import roster
import solutions
import weights

from tests.coursework.assignments import NAMES, SEED, source_of

CELLS = {"derive-answer": (6, "markdown", True), "soft-test": (6, "code", False)}


def tree(root):
    """Return all files of a course directory."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def root(made, tmp_path):
    """Return a course directory of its own."""
    return shutil.copytree(made[0], tmp_path / "instructor")


@pytest.fixture
def broken(monkeypatch, tmp_path):
    """Take the sources from a copy in which a cell is there twice."""
    source = shutil.copytree(course.SOURCE, tmp_path / "source")
    path = source / "key_equation" / "key_equation.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.from_dict(copy.deepcopy(notebook.cells[-1]) | {"id": "again"}))
    nbformat.write(notebook, path)
    monkeypatch.setattr(course, "SOURCE", source)


class TestAside:
    def test_a_build_that_fails_leaves_the_course_as_it_was(self, root, made, broken, tmp_path):
        release = shutil.copytree(made[1], tmp_path / "release")
        before = tree(root), tree(release)
        with pytest.raises(RuntimeError, match="student's edition of key_equation"):
            course.build(seed=None, root=root, release=release, only=["key_equation"])
        assert (tree(root), tree(release)) == before

    def test_what_is_whole_is_moved_also_after_an_interruption(self, tmp_path, monkeypatch):
        root, release = tmp_path / "course", tmp_path / "release"
        for place, text in ((root, "old"), (change.aside(root_of(root)), "new")):
            for folder in (*change.FOLDERS, "handout"):
                (place / folder / "bellman").mkdir(parents=True)
                (place / folder / "bellman" / "bellman.ipynb").write_text(text, encoding="utf-8")
            (place / "seed.txt").write_text(text, encoding="utf-8")
        aside = root / change.ASIDE
        change.settle(root)  # nothing says that it is whole
        assert (root / "source" / "bellman" / "bellman.ipynb").read_text(encoding="utf-8") == "old"
        change.ready(root, aside, ["bellman"], release)
        move, calls = change._move, []

        def stopped(new, old):
            calls.append(new)
            if len(calls) == 3:
                raise KeyboardInterrupt
            move(new, old)

        monkeypatch.setattr(change, "_move", stopped)
        with pytest.raises(KeyboardInterrupt):
            change.settle(root)
        monkeypatch.setattr(change, "_move", move)
        change.settle(root)
        places = [root / folder / "bellman" / "bellman.ipynb" for folder in change.FOLDERS]
        places += [release / "bellman" / "bellman.ipynb", root / "seed.txt"]
        assert {place.read_text(encoding="utf-8") for place in places} == {"new"} and not aside.exists()


def root_of(root):
    """Make a course directory."""
    root.mkdir()
    return root


def gradebook(root, cells, student=None):
    """Write a gradebook with an assignment, and a submission with marks by hand."""
    from nbgrader.api import Gradebook

    root.mkdir(exist_ok=True)
    with warnings.catch_warnings(), Gradebook(f"sqlite:///{root / 'gradebook.db'}", "divergence-notes") as book:
        warnings.simplefilter("ignore")  # nbgrader's database has some
        book.add_assignment("bellman")
        book.add_notebook("bellman", "bellman", kernelspec="{}")
        for name, (points, kind, solution) in cells.items():
            book.add_grade_cell(name, "bellman", "bellman", max_score=points, cell_type=kind)
            book.add_source_cell(name, "bellman", "bellman", cell_type=kind, source=f"{name}: {points}")
            if solution:
                book.add_solution_cell(name, "bellman", "bellman")
        if student:
            book.add_student(student)
            book.add_submission("bellman", student)
            found = book.find_grade("derive-answer", "bellman", "bellman", student)
            found.manual_score, found.extra_credit, found.needs_manual_grade = 4.5, 1, False
            book.find_grade("soft-test", "bellman", "bellman", student).manual_score = 6
            book.find_comment("derive-answer", "bellman", "bellman", student).manual_comment = "nearly"
        book.db.commit()
    return root


def opened(root):
    """Return a gradebook."""
    from nbgrader.api import Gradebook

    return Gradebook(f"sqlite:///{root / 'gradebook.db'}", "divergence-notes")


class TestGradebook:
    def test_points_change_and_a_question_is_added_and_no_mark_is_lost(self, tmp_path):
        old = gradebook(tmp_path / "old", CELLS, "ann")
        more = {"derive-answer": (9, "markdown", True), "soft-test": (0, "code", False), "new": (2, "markdown", True)}
        new = gradebook(tmp_path / "new", more)
        change.check(old, new, ["bellman"])
        for _ in range(2):  # a second time, after an interruption
            change.take_cells(old, new, ["bellman"])
        with opened(old) as book:
            submission = book.find_submission("bellman", "ann")
            found = {
                g.name: (g.max_score, g.manual_score, g.needs_manual_grade) for g in submission.notebooks[0].grades
            }
            assert found["derive-answer"] == (9, 4.5, False) and found["soft-test"][0] == 0
            assert found["new"] == (2, None, True)
            comment = book.find_comment("derive-answer", "bellman", "bellman", "ann")
            assert comment.comment == "nearly" and book.find_comment("new", "bellman", "bellman", "ann").comment is None
            assert book.find_source_cell("derive-answer", "bellman", "bellman").source == "derive-answer: 9"
            assert marks.counted(submission) == (5.5, True) and book.find_assignment("bellman").max_score == 11

    def test_an_interruption_changes_nothing(self, tmp_path, monkeypatch):
        old = gradebook(tmp_path / "old", CELLS, "ann")
        new = gradebook(tmp_path / "new", {name: (9, kind, s) for name, (_, kind, s) in CELLS.items()})
        monkeypatch.delitem(change.COLUMNS, "SourceCell")  # these come after the cells with points
        with pytest.raises(KeyError):
            change.take_cells(old, new, ["bellman"])
        with opened(old) as book:
            assert book.find_assignment("bellman").max_score == 12

    def test_a_question_with_answers_is_not_taken_away(self, tmp_path):
        fewer = {"soft-test": CELLS["soft-test"]}
        old, new = gradebook(tmp_path / "old", CELLS, "ann"), gradebook(tmp_path / "new", fewer)
        with pytest.raises(roster.Refused, match=r"derive-answer is gone .* 1 have handed in .* \[points.bellman\]"):
            change.check(old, new, ["bellman"])

    def test_without_answers_it_is(self, tmp_path):
        fewer = {"soft-test": CELLS["soft-test"]}
        old, new = gradebook(tmp_path / "old", CELLS), gradebook(tmp_path / "new", fewer)
        change.check(old, new, ["bellman"])
        change.take_cells(old, new, ["bellman"])
        with opened(old) as book:
            assert book.find_assignment("bellman").max_score == 6


class TestNumbersHandedOut:
    def test_what_was_handed_out_stays(self, root, made, monkeypatch, capsys):
        assert course.numbers(root, "bellman", SEED) == marking.draw_parameters("bellman", SEED)
        handed_out = marking.draw_parameters("bellman", SEED)
        other = marking.draw_parameters("bellman", "another seed") | {"more": 3}
        monkeypatch.setattr(marking, "draw_parameters", lambda *_: other)
        assert course.numbers(root, "bellman", SEED) == handed_out | {"more": 3}
        assert "keeps the numbers that were handed out" in capsys.readouterr().out
        assert course.numbers(None, "bellman", SEED) == other
        monkeypatch.setattr(marking, "apart", lambda *_: False)
        with pytest.raises(roster.Refused, match=r"need other numbers than those that were handed out"):
            course.numbers(root, "bellman", SEED)

    def test_another_seed_is_refused_when_there_are_submissions(self, root, made, tmp_path):
        (root / "submitted" / "ann" / "bellman").mkdir(parents=True)
        with pytest.raises(roster.Refused, match="another --root"):
            course.build(seed="another", root=root, release=tmp_path / "release")


class TestSeed:
    def test_a_word_alone_is_not_enough_to_find_it(self, tmp_path):
        seeds = {course.salted("word", tmp_path) for _ in range(3)}
        assert len(seeds) == 3 and all(re.fullmatch(r"word\.[0-9a-f]{32}", seed) for seed in seeds)

    def test_it_stays_what_it_is(self, tmp_path):
        seed = course.salted("my.word", tmp_path)
        assert course.salted(seed, tmp_path) == seed and course.salted(None, tmp_path) is None  # on another machine
        (tmp_path / "seed.txt").write_text(f"{seed}\n", encoding="utf-8")
        assert course.salted("my.word", tmp_path) == course.salted(seed, tmp_path) == seed
        assert course.salted("my", tmp_path) != seed
        (tmp_path / "seed.txt").write_text("of old\n", encoding="utf-8")  # without any
        assert course.salted("of old", tmp_path) == "of old"


class TestWeights:
    @pytest.mark.parametrize("name", NAMES)
    def test_everything_that_mentions_points_follows(self, name):
        known = weights.graded(source_of(name))
        zero, *_, more = known
        notebook = weights.weigh(source_of(name), {zero: 0, more: 11}, name)
        assert weights.graded(notebook) == known | {zero: 0, more: 11}
        total = sum(known.values()) - known[zero] - known[more] + 11
        title = notebook.cells[0].source
        assert f", {total:g} points." in title
        rows = [float(row.split("|")[3]) for row in title.splitlines() if weights.ROW.match(row)]
        texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
        heads = [found[0] for text in texts for found in weights.HEADING.finditer(text)]
        said = [float(head.rpartition("(")[2].split()[0]) for head in heads]
        assert rows == said and sum(rows) == total and len(rows) >= 4

    def test_nothing_changes_without_points_of_its_own(self):
        assert weights.weigh(source_of("bellman"), {}, "bellman") == source_of("bellman")

    def test_a_rubric_says_that_its_marks_are_of_another_sum(self):
        notebook = weights.weigh(source_of("bellman"), {"derive-answer": 9}, "bellman")
        (text,) = (cell.source for cell in notebook.cells if cell.id == "derive-answer")
        said = "These marks add up to 6; in this class the question has 9 points."
        assert said in text and text.index(said) < text.index(weights.END)

    def test_no_such_question(self):
        with pytest.raises(roster.Refused, match=r"points.bellman has derive-answer, .*; 'why' is none of them"):
            weights.weigh(source_of("bellman"), {"why": 0}, "bellman")

    @pytest.mark.parametrize(("given", "of", "points", "made"), [("7.0", 7, 10, "10.0"), ("3.5", 7, 10, "5.0")])
    def test_a_test_gives_the_points_of_the_class(self, given, of, points, made):
        cell = nbformat.v4.new_code_cell(metadata={weights.OF: of, "nbgrader": {"points": points}})
        outputs = [{"output_type": "execute_result", "data": {"text/plain": given}}, {"output_type": "stream"}]
        assert weights.scaled(outputs, cell)[0]["data"]["text/plain"] == made

    @pytest.mark.parametrize("parts", [(2, 2), (1, 2), (2, 3), (1, 6), (3, 4)])
    def test_rounding_never_gives_more_than_there_is(self, parts):
        for points in range(0, 40):
            cell = nbformat.v4.new_code_cell(metadata={weights.OF: sum(parts), "nbgrader": {"points": points / 3}})
            made = weights.scaled(
                [{"output_type": "execute_result", "data": {"text/plain": repr(float(sum(parts)))}}], cell
            )
            assert points / 3 - 0.005 < float(made[0]["data"]["text/plain"]) <= points / 3


class TestFingerprint:
    @pytest.fixture
    def standing(self, root, made, tmp_path):
        inbox = tmp_path / "inbox"
        inbox.mkdir()
        shutil.copy(made[1] / "bellman" / "bellman.ipynb", inbox / "ann.ipynb")
        assert grade.collect(root, "bellman", inbox) == {}
        assert grade.standing(root, "bellman", "ann") == "not graded yet"
        grade.write(root, "bellman", "ann", "graded", 1)
        return lambda: grade.standing(root, "bellman", "ann")

    def test_what_is_as_it_was_stands(self, standing):
        assert standing() == "graded"

    @pytest.mark.parametrize(
        "file", ["source/bellman/bellman.ipynb", "submitted/ann/bellman/bellman.ipynb", "seed.txt"]
    )
    def test_a_question_a_submission_and_the_seed_count(self, root, standing, file):
        (root / file).write_text("{}", encoding="utf-8")
        assert standing() == "out of date"

    @pytest.mark.parametrize("file", ["questions/bellman.py", "marking.py", "grader/border.py", "checking.py"])
    def test_the_tests_count(self, standing, monkeypatch, tmp_path, file):
        places = marking.tests("bellman")
        (place,) = (place for place in places if place.as_posix().endswith(f"/{file}"))
        mended = tmp_path / "mended.py"
        mended.write_text(place.read_text(encoding="utf-8") + "\n# mended\n", encoding="utf-8")
        monkeypatch.setattr(marking, "tests", lambda _: [mended if one == place else one for one in places])
        assert standing() == "out of date"

    def test_a_sealed_code_counts_for_who_sealed_it(self, root, standing):
        (root / "sealed.csv").write_text("assignment,student,code\ncontraction,ann,AAAA-AAAA\n", encoding="utf-8")
        assert standing() == "graded"  # of this assignment no codes were collected
        for line, now in (("bob,AAAA-AAAA", "out of date"), ("bob,BBBB-BBBB", "graded"), ("ann,AAAA", "out of date")):
            with (root / "sealed.csv").open("a", encoding="utf-8") as file:
                file.write(f"bellman,{line}\n")
            assert standing() == now, line
            grade.write(root, "bellman", "ann", "graded", 1)

    def test_those_of_other_chapters_do_not(self):
        names = {f"{path.parent.name}/{path.name}" for path in marking.tests("bellman")}
        assert "questions/bellman.py" in names and not any("key_equation" in name for name in names)


class TestLateGroup:
    def test_what_is_collected_again_for_a_group_counts_for_it(self, root, made, tmp_path):
        """Members who were collected before the group was written down are in the way until then, and no longer."""
        inbox = tmp_path / "inbox"
        inbox.mkdir()
        shutil.copy(made[1] / "bellman" / "bellman.ipynb", inbox / "ann.ipynb")
        grade.collect(root, "bellman", inbox)
        (root / "term.toml").write_text('[groups.bellman]\ngauss = ["ann", "bob"]\n', encoding="utf-8")
        for holder, said in (
            ("ann", "of group gauss, ann handed in alone: collect again"),
            ("gauss", "of group gauss"),
        ):
            grade.collect(root, "bellman", inbox)
            if holder == "ann":
                shutil.rmtree(root / "submitted" / "gauss")
            grade.write(root, "bellman", holder, "graded", 1)
            rows = grade.table(root, "bellman")
            assert [row["student_id"] for row in rows] == ["ann", "bob"]
            assert all(row["note"].startswith(said) for row in rows)
            assert [row["final"] for row in rows] == [holder == "gauss"] * 2


class TestSolutions:
    NOW = datetime(2026, 11, 10, tzinfo=UTC)

    def test_they_wait_for_the_last_who_may_hand_in(self, root, tmp_path):
        with pytest.raises(roster.Refused, match=r"no due date: .* --early"):
            solutions.released(root, "bellman", tmp_path, now=self.NOW)
        due = "zone = 'UTC'\n[assignments.bellman]\ndue = 2026-11-06\n"
        (root / "term.toml").write_text(f"{due}[extensions.bellman]\nann = 2026-11-13\n", encoding="utf-8")
        with pytest.raises(roster.Refused, match="until 2026-11-13T23:59:59"):
            solutions.released(root, "bellman", tmp_path, now=self.NOW)
        (root / "term.toml").write_text(due, encoding="utf-8")
        assert solutions.released(root, "bellman", tmp_path, now=self.NOW).exists()

    @pytest.mark.parametrize("name", NAMES)
    def test_they_show_answers_and_neither_tests_nor_rubrics(self, root, tmp_path, name):
        place = solutions.released(root, name, tmp_path, early=True)
        text, notebook = place.read_text(encoding="utf-8"), nbformat.read(place, as_version=4)
        words = ("### ", "marking", "HIDDEN", "Common wrong", "points: ", "of the wrong ones")
        assert [word for word in words if word in text.replace("### Mark", "")] == []
        source = {cell.id: cell for cell in source_of(name).cells}
        for cell in notebook.cells:
            if source[cell.id].metadata.get("nbgrader", {}).get("solution"):
                inside = source[cell.id].source.partition("### BEGIN SOLUTION\n")[2].splitlines()[0]
                assert inside in cell.source
            assert cell.cell_type != "code" or "mark(" not in json.dumps(cell)


class TestRoots:
    def test_each_course_has_places_of_its_own(self, tmp_path):
        assert course.places() == tuple(course.COURSEWORK / name for name in ("instructor", "release", "student"))
        assert course.places(tmp_path / "a") == (tmp_path / "a", tmp_path / "a" / "handout", tmp_path / "a" / "student")

    @pytest.mark.parametrize(
        ("words", "wrong"),
        [(["table", "bellman"], "is no course"), (["table", "belman"], "'belman' is no assignment; there are bellman")],
    )
    def test_what_is_not_there_is_a_sentence(self, root, tmp_path, capsys, words, wrong):
        with pytest.raises(SystemExit):
            grade.main([*words, "--root", str(tmp_path if "no course" in wrong else root)])
        assert wrong in capsys.readouterr().err
