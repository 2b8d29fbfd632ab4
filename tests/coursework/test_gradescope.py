"""The archive for Gradescope, in that layout: its run script gives the points that our own grading gives."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import course
import grade
import gradescope
import marks
import nbformat
import pytest
from grader import intake, sandbox

from tests import pages
from tests.coursework.assignments import graded_cells, source_of
from tests.coursework.submissions import ADVERSARIES, FULL, NO_SOFT, edit, good
from tests.coursework.test_course import secret_lines
from tests.coursework.test_grade import start_from

SNOOP = """
import os
read = []
for top in {places!r}:
    for folder, inside, files in os.walk(top):
        inside[:] = [name for name in inside if name not in (".venv", "divergence_notes")]
        for file in files:
            try:
                with open(os.path.join(folder, file), errors="replace") as found:
                    text = found.read()
            except OSError:
                continue
            if "HIDDEN" + " TESTS" in text or "bellman-soft" + "-backup" in text:
                read.append(file)
            elif file in ("seed.txt", "results.json"):
                read.append(file)
for place in {written!r}:
    try:
        with open({here!r} + "/" + place, "a") as found:
            found.write("# mine")
    except OSError:
        pass
def soft_backup(Q, mdp, tau):
    raise ValueError(f"FOUND {{len(read)}} {{read[:5]}}")
"""
NOTHING = "Your answer raised ValueError: FOUND 0 []"
WRITTEN = ("results/results.json", "source/course/seed.txt", "source/coursework/marking.py", "run_autograder")


def lay_out(archive, here):
    """Unpack an archive as Gradescope's documents say that it lies there, with an empty submission."""
    for name in ("source", "submission", "results"):
        (here / name).mkdir(parents=True)
    with zipfile.ZipFile(archive) as file:
        file.extractall(here / "source")
    shutil.copy(here / "source" / "run_autograder", here)
    (here / "run_autograder").chmod(0o755)
    return here


def hand_in(here, name, text):
    """Replace the submission, and the results of the last one."""
    for folder in ("submission", "results"):
        shutil.rmtree(here / folder)
        (here / folder).mkdir()
    place = here / "submission" / name
    place.parent.mkdir(exist_ok=True)
    place.write_text(text, encoding="utf-8")


def run(here, *masked):
    """Run the run script; return how it ended, and what Gradescope would read.

    With words for `unshare` it runs where that program has nothing to give, as in a container without namespaces.
    """
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "COURSE_ROOT")}
    command = [str(here / "run_autograder")]
    if masked:
        script = 'mount --bind /bin/false "$(command -v unshare)" && exec "$1"'
        command = ["unshare", "--mount", *masked, "sh", "-c", script, "sh", *command]
    done = subprocess.run(command, cwd=here, env=env, capture_output=True, text=True, check=False)
    results = here / "results" / "results.json"
    return done, json.loads(results.read_text(encoding="utf-8")) if results.exists() else None


def points(found):
    """Return score and highest score of each graded cell that results.json names."""
    scored = [test for test in found["tests"] if "score" in test]
    return {test["name"].rpartition("(")[2].rstrip(")"): (test["score"], test["max_score"]) for test in scored}


def said(found):
    """Return what the tests say, without the ends of lines."""
    return " ".join(" ".join(test.get("output", "") for test in found["tests"]).split())


def spoiled(here):
    """List the files over which a submission has written."""
    return [place for place in WRITTEN if "# mine" in (here / place).read_text(encoding="utf-8")]


def snooping(here, root):
    """Return a submission whose answer looks for tests and results, and writes over what it may."""
    notebook = good(root)
    edit(notebook, "soft-answer", SNOOP.format(places=[str(here)], here=str(here), written=WRITTEN))
    return nbformat.writes(notebook)


@pytest.fixture(scope="module")
def archive(made, tmp_path_factory):
    return gradescope.pack(made[0], "bellman", tmp_path_factory.mktemp("gradescope") / "bellman")


@pytest.fixture(scope="module")
def here(archive, tmp_path_factory):
    """Return the layout, with this environment instead of the one that setup.sh makes there."""
    here = lay_out(archive, tmp_path_factory.mktemp("layout") / "autograder")
    (here / "source" / ".venv").symlink_to(Path(sys.prefix).resolve())
    return here


def wrong(root):
    """Return a submission with one wrong answer."""
    notebook = good(root)
    ADVERSARIES["hard_coded"][0](notebook)
    return nbformat.writes(notebook)


@pytest.fixture(scope="module")
def ours(made, tmp_path_factory):
    """Return what our own grading says of the same two submissions."""
    root = tmp_path_factory.mktemp("ours") / "instructor"
    start_from(made[0], root)
    for student, text in (("right", nbformat.writes(good(made[0]))), ("wrong", wrong(made[0]))):
        place = root / "submitted" / student / "bellman" / "bellman.ipynb"
        place.parent.mkdir(parents=True)
        place.write_text(text, encoding="utf-8")
    grade.autograde(root, "bellman")
    kinds = graded_cells("bellman")
    return {
        student: {name: (said["score"], said["points"]) for name, said in known.items() if name in kinds}
        for student in ("right", "wrong")
        for known in [marks.questions(root, "bellman", student)]
    }


HERE = sandbox.isolation()
apart = pytest.mark.skipif(HERE == "process", reason="this machine keeps nobody from the tests, so nothing is graded")


class TestOnGradescope:
    @apart
    def test_a_right_one_has_all_points(self, here, made, ours):
        hand_in(here, "bellman.ipynb", nbformat.writes(good(made[0])))
        done, found = run(here)
        assert done.returncode == 0, done.stderr
        assert points(found) == ours["right"] == {name: (most, most) for name, most in FULL.items()}
        assert found["score"] == sum(FULL.values()) and found["stdout_visibility"] == "hidden"
        # What a student sees at once says nothing of what is right.
        at_once = [test["name"] for test in found["tests"] if test["visibility"] == "visible"]
        assert at_once == ["Handed in"]
        (derive,) = [test for test in found["tests"] if "derive-answer" in test["name"]]
        assert "score" not in derive and derive["output"].startswith("A person reads this, for up to")

    @apart
    def test_a_wrong_one_under_another_name(self, here, made, ours):
        hand_in(here, "my folder/Hausaufgabe 1 (final).ipynb", wrong(made[0]))
        done, found = run(here)
        assert done.returncode == 0, done.stderr
        assert points(found) == ours["wrong"]
        assert {name: score for name, (score, _) in points(found).items()} == NO_SOFT
        (soft,) = [test["output"] for test in found["tests"] if "soft-test" in test["name"]]
        assert "soft" in soft and soft.strip() == soft and len(soft) > 20

    @apart
    @pytest.mark.parametrize(
        ("name", "text", "why"),
        [("bellman.ipynb", "{ no notebook", "its JSON stops making sense"), ("notes.txt", "x", "there are: none")],
    )
    def test_a_broken_one_is_told_at_once(self, here, name, text, why):
        hand_in(here, name, text)
        done, found = run(here)
        assert done.returncode == 0, done.stderr
        assert (found["score"], found["visibility"], found["tests"]) == (0.0, "visible", []) and why in found["output"]

    @pytest.mark.skipif(HERE != "namespaces", reason="this machine gives no namespaces")
    def test_tests_and_results_are_out_of_reach(self, here, made):
        hand_in(here, "bellman.ipynb", snooping(here, made[0]))
        done, found = run(here)
        assert done.returncode == 0, done.stderr
        assert {name: score for name, (score, _) in points(found).items()} == NO_SOFT
        assert NOTHING in said(found) and spoiled(here) == []

    def test_control_a_program_without_a_room_reaches_all_of_it(self, archive, tmp_path):
        here = lay_out(archive, tmp_path / "autograder")
        (here / "results" / "results.json").touch()
        space = {}
        exec(SNOOP.format(places=[str(here)], here=str(here), written=WRITTEN), space)
        with pytest.raises(ValueError, match=r"FOUND 5 "):
            space["soft_backup"](0, 0, 0)
        assert spoiled(here) == [*WRITTEN]

    @pytest.mark.skipif(HERE == "user", reason="here it is another user who is kept apart")
    def test_where_they_are_in_reach_nothing_is_graded(self, here, made):
        """Without namespaces and without another user: no results, and the instructor reads why."""
        hand_in(here, "bellman.ipynb", nbformat.writes(good(made[0])))
        done, found = run(here, *(["--user", "--map-root-user"] if HERE == "namespaces" else []))
        assert (done.returncode, found) == (1, None) and "Nothing was graded" in done.stderr


class TestTheOneNotebook:
    def test_the_one_with_the_name_counts(self, tmp_path):
        for name in ("a.ipynb", "x/bellman.ipynb", ".ipynb_checkpoints/bellman.ipynb", "__MACOSX/._bellman.ipynb"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        assert gradescope.handed_in(tmp_path, "bellman") == tmp_path / "x" / "bellman.ipynb"

    def test_of_several_without_it_none_does(self, tmp_path):
        for name in ("a.ipynb", "b.ipynb"):
            (tmp_path / name).touch()
        with pytest.raises(
            intake.Unreadable, match=r"hand in one notebook, bellman.ipynb; there are: a.ipynb, b.ipynb"
        ):
            gradescope.handed_in(tmp_path, "bellman")

    def test_a_link_to_the_solution_is_none(self, tmp_path, made):
        (tmp_path / "bellman.ipynb").symlink_to(made[0] / "solution" / "bellman" / "bellman.ipynb")
        with pytest.raises(intake.Unreadable, match="is a link"):
            intake.contents(gradescope.handed_in(tmp_path, "bellman"))


class TestArchiveForGradescope:
    def test_has_both_scripts_at_the_top(self, archive):
        with zipfile.ZipFile(archive) as file:
            scripts = {name: file.read(name).decode() for name in ("setup.sh", "run_autograder")}
            modes = {name: file.getinfo(name).external_attr >> 16 for name in scripts}
        assert all(text.startswith("#!/usr/bin/env bash\n") and "\r" not in text for text in scripts.values())
        assert [mode & 0o111 for mode in modes.values()] == [0o111, 0o111]

    def test_has_the_questions_of_one_assignment_and_no_answer_of_a_student(self, archive, made):
        with zipfile.ZipFile(archive) as file:
            names = file.namelist()
            texts = "".join(file.read(name).decode(errors="replace") for name in names if name.endswith(".py"))
        assert [name for name in names if name.endswith(".ipynb")] == ["course/source/bellman/bellman.ipynb"]
        assert any(line in texts for line in secret_lines("bellman"))
        others = {line for name in course.assignments() if name != "bellman" for line in secret_lines(name)}
        assert not {line for line in others - secret_lines("bellman") if line in texts} - shared()
        assert not any("submitted" in name or "solution/" in name for name in names)

    def test_only_the_assignment_with_networks_asks_for_torch(self, archive, made, tmp_path):
        with zipfile.ZipFile(archive) as file:
            assert "torch" not in file.read("requirements.txt").decode()
        gradescope._requirements(made[0], "key_equation", tmp_path)
        assert "\ntorch==" in (tmp_path / "requirements.txt").read_text(encoding="utf-8")
        assert "torch" in "".join(cell.source for cell in source_of("key_equation").cells)


def shared():
    """Return the lines that stand in the package for everybody."""
    return {
        line.strip()
        for path in (pages.ROOT / "divergence_notes").rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
    }


@pytest.mark.nightly
@pytest.mark.skipif(os.geteuid() != 0, reason="Gradescope's scripts run as root, and this is another user")
class TestInAnotherContainer:
    """The environment that setup.sh makes, and no namespaces, as in most containers: a user of its own instead."""

    def test_from_setup_to_results(self, archive, made):
        place = Path(tempfile.mkdtemp())  # and not below pytest's folder, which only this user may enter
        place.chmod(0o755)
        path = os.pathsep.join(["/usr/bin", "/bin", "/usr/sbin", "/sbin"])
        try:
            here = lay_out(archive, place / "autograder")
            env = os.environ | {"PATH": path}
            subprocess.run(["bash", here / "source" / "setup.sh"], env=env, check=True, capture_output=True)
            hand_in(here, "bellman.ipynb", nbformat.writes(good(made[0])))
            done, found = run(here, "--propagation=private")
            assert done.returncode == 0, done.stderr
            assert "as a user of its own" in done.stdout
            assert {name: score for name, (score, _) in points(found).items()} == FULL
            hand_in(here, "bellman.ipynb", snooping(here, made[0]))
            done, found = run(here, "--propagation=private")
            assert {name: score for name, (score, _) in points(found).items()} == NO_SOFT
            assert NOTHING in said(found) and spoiled(here) == []
        finally:
            shutil.rmtree(place, ignore_errors=True)
