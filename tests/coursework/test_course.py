"""The editions of the assignments, by the real nbgrader: what is in them, what runs, and what must not leak."""

import ast
import functools
import html
import importlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import zipfile

import clean_notebooks
import course
import marking
import nbformat
import pytest
from grader.preprocessors import grade_id

from divergence_notes.grading import Choice, Function, Value, registry, typed
from tests import pages
from tests.coursework.assignments import BY_NBGRADER, NAMES, SEED, graded_cells, source_of


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
    return {line for line in [*regions(name), *kept] if len(line) > 20} - given_away()


@functools.cache
def given_away():
    """Return the lines of the runs that students are handed: what judges an answer, or solves it, repeats some."""
    runs = [cell.source for name in NAMES for cell in source_of(name).cells if cell.id == "long-run"]
    return {line.strip() for run in runs for line in run.splitlines()}


def withheld(name):
    """Return the secret lines without those of the wrong program that this class is handed to find the bug in."""
    program = marking.draw_parameters(name, SEED).get("code", "")
    return secret_lines(name) - {line.strip() for line in program.splitlines()}


def leaks(lines, folder):
    """Return those of the lines that stand in a file of the folder, as they are, as JSON or as HTML."""
    found = set()
    forms = {line: {line, json.dumps(line)[1:-1], html.escape(line), html.escape(line, quote=False)} for line in lines}
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in READ and "vendor" not in path.parts:
            text = path.read_text(encoding="utf-8", errors="replace")
            found |= {line for line in lines - found if any(form in text for form in forms[line])}
    return sorted(found)


READ = (".css", ".html", ".ipynb", ".jinja", ".js", ".json", ".md", ".py", ".txt")


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


def test_links_to_titles_lead_there_in_jupyter():
    """Jupyter knows a title by its words, with dashes between them; the anchors of old titles are on the site alone."""
    sources = [cell.source for name in NAMES for cell in source_of(name).cells]
    links = re.findall(r"\]\(\.\./\.\./\.\./book/(\w+)\.ipynb#([^)]+)\)", "".join(sources))
    found = {stem: re.findall(r"^#+ (.+)$", pages.markdown(pages.BOOK / f"{stem}.ipynb"), re.M) for stem, _ in links}
    assert len(links) > 20
    titles = {(stem, title.replace(" ", "-")) for stem, several in found.items() for title in several}
    pages.none([link for link in links if link not in titles], "no such title")


def test_digits_that_are_asked_for_are_significant_ones():
    """Four places after the point are too few where the number is small."""
    asked = [
        found
        for name in NAMES
        for cell in source_of(name).cells
        if cell.cell_type == "markdown"
        for found in re.findall(r"\w+ (?:\w+ )?digits", cell.source)
    ]
    assert len(asked) >= 5 and [found for found in asked if "significant digits" not in found] == []


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
        assert {kind for kind, _, _ in kinds} - {"run and defend", "build"} == {
            "derive",
            "implement",
            "predict, then run",
            "find the bug",
        }
        made = importlib.import_module(f"questions.{name}").EXERCISES
        assert [kind for kind, _, _ in kinds].count("build") == len(BUILT & {exercise.name for exercise in made})
        assert [kind for kind, _, _ in kinds].count("implement") == sum(isinstance(e, Function) for e in made)
        points = sum(graded_cells(name).values()) + sum(graded_cells(name, manual=True).values())
        assert sum(int(p) for _, p, _ in kinds) == points
        assert f"About {sum(int(m) for _, _, m in kinds)} minutes, {points} points" in table

    def test_links_its_chapter_and_gives_marks_for_what_a_person_reads(self, name):
        assert f"book/{name}.ipynb" in source_of(name).cells[0].source
        by_id = {grade_id(c): c.source for c in source_of(name).cells}
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


BUILT = {"function-approximation-build-a-loop", "heuristics-small-entries", "key-equation-against", "preqn-build-turns"}
"""Examples that one builds, by a program too; what else is a value or a letter a person reads or predicts."""


@pytest.mark.parametrize("name", NAMES)
class TestWhatHasToBeTypedIn:
    def test_every_prediction_and_reading_is_asked_for(self, name):
        values = [e for e in importlib.import_module(f"questions.{name}").EXERCISES if isinstance(e, (Value, Choice))]
        tests = "".join(cell.source for cell in source_of(name).cells if grade_id(cell) in graded_cells(name))
        answers = {e.name: re.search(rf'mark\("{e.name}", (\w+)', tests)[1] for e in values}
        asked = {answer for line in tests.splitlines() for answer in typed.asked(line.strip())}
        assert {answer for exercise, answer in answers.items() if exercise not in BUILT} == asked
        assert len(answers.keys() & BUILT) < len(answers)

    def test_the_solution_has_them_and_the_text_asks_for_it(self, name, made):
        solution = nbformat.read(made[0] / "solution" / name / f"{name}.ipynb", as_version=4)
        cells = [cell.source for cell in solution.cells if cell.cell_type == "code"]
        asked = [answer for source in cells for answer in typed.asked(source)]
        found = {answer: typed.find(answer, cells) for answer in asked}
        assert len(found) >= 3 and not [one for one in found.values() if one is ... or isinstance(one, typed.Computed)]
        assert "type it in" in source_of(name).cells[0].source
        said = "".join(str(cell.get("outputs")) for cell in solution.cells)
        assert said.count("typed in: Yes") == sum("typed_in(" in source for source in cells)


@pytest.mark.parametrize("name", BY_NBGRADER)
class TestRelease:
    """What a student opens, in the kernel that a student has."""

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
        pages.none(leaks(withheld(name) | {SEED}, made[1]), "these lines are in the release")

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
        pages.none(leaks(withheld(name) | {SEED}, packed), "students get these lines")

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
        line = next(line for line in sorted(withheld("bellman")) if '"' not in line)
        target = next(place.glob("*.d")) / "divergence_notes" / "x.py" if plant == "wheel" else place / plant
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps({"metadata": {"x": line}}), encoding="utf-8")
        assert leaks(withheld("bellman"), place) == [line]

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
        done = self.run(asked, notebook, wheel)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].startswith(f"FROM {wheel.with_suffix('.d')}")

    def test_without_torch_it_says_so_in_a_sentence(self, packed):
        notebook = packed / "coursework" / "release" / "key_equation" / "key_equation.ipynb"
        (wheel,) = packed.glob("*.whl")
        done = self.run((packed / "requirements.txt").read_text(encoding="utf-8").split(), notebook, wheel)
        said = done.stderr.splitlines()[-1]
        assert done.returncode == 1 and said.startswith("ModuleNotFoundError: what follows needs PyTorch: run, ")
        assert "During handling" not in done.stderr
        named = re.search(r"%pip install --requirement (\S+)$", said)[1]
        assert (notebook.parent / named).resolve() == packed / "requirements-torch.txt"

    @staticmethod
    def run(asked, notebook, wheel):
        command = [sys.executable, "-c", RUN, json.dumps(asked), str(notebook), str(wheel.with_suffix(".d"))]
        env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return subprocess.run(command, cwd=notebook.parent, env=env, capture_output=True, text=True, check=False)

    def test_it_says_where_to_begin(self, packed):
        """Each assignment with its minutes, and of its chapter exercises that are there, each of them an easy one."""
        text = (packed / "README.md").read_text(encoding="utf-8")
        rows = re.findall(r"^\| (\d) \| `(\w+)` \| (\d+) \| (.+) \|$", text, re.M)
        assert [row[0] for row in rows] == [str(n) for n in range(1, 7)] and sorted(row[1] for row in rows) == NAMES
        for _, name, minutes, first in rows:
            assert f"About {minutes} minutes" in source_of(name).cells[0].source
            assert 120 <= int(minutes) <= 180  # "between two and three hours", as the page for students says
            chapter = pages.markdown(pages.BOOK / f"{name}.ipynb")
            for title in first.split("; "):
                assert title.endswith("easy)") and f"exercise}} {title}" in chapter.replace(
                    "exercise-start", "exercise"
                )
        assert "{" not in text and text.count("3.11, 3.12 or 3.13") == 2

    @pytest.mark.nightly
    def test_it_is_installed_by_its_own_lines(self, packed, tmp_path):
        """In a folder with blanks and umlauts, with Python alone on the path: three minutes, 600 MB."""
        place = shutil.copytree(packed, tmp_path / "Übung 1 (neu)")
        lines = re.findall(r"^ {7}(\S.*)$", (place / "README.md").read_text(encoding="utf-8"), re.M)
        assert len(lines) == 3 and lines[2] == ".venv/bin/python -m jupyter lab"
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "python3").symlink_to(sys.executable)
        env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        env["PATH"] = str(tmp_path / "bin")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        for line in lines[:2]:
            subprocess.run(line.split(), cwd=place, env=env, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 180
        files = [path for path in (place / ".venv").rglob("*") if path.is_file() and not path.is_symlink()]
        assert 100e6 < sum(path.stat().st_blocks * 512 for path in files) < 600e6
        assert not list((place / ".venv").glob("lib/*/site-packages/torch"))
        python = [str(place / ".venv" / "bin" / "python"), "-m", "jupyter"]
        for words in (["lab", "--version"], ["execute", "coursework/release/bellman/bellman.ipynb"]):
            subprocess.run([*python, *words], cwd=place, env=env, check=True, capture_output=True)

    def test_only_one_assignment_asks_for_torch(self, packed):
        text = (packed / "README.md").read_text(encoding="utf-8")
        assert "`key_equation` needs more" in text and text.count("needs more") == 1

    def test_without_a_release_it_says_what_to_do(self, tmp_path):
        with pytest.raises(ValueError, match="run make course first"):
            course.student(release=tmp_path, place=tmp_path / "student")


@pytest.mark.parametrize("command", ["course.py", "grade.py"])
def test_a_command_starts_as_it_is_typed(command, tmp_path):
    """Without the paths that pytest adds, from any folder; its help says how it is called."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    line = [sys.executable, str(course.COURSEWORK / command), "--help"]
    said = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout
    assert f"    {command} " in said


class TestEditions:
    def test_a_new_seed_is_refused_when_there_are_submissions(self, tmp_path):
        build = functools.partial(course.build, root=tmp_path, release=tmp_path / "release", only=[])
        (tmp_path / "release").mkdir()
        (tmp_path / "submitted" / "ann").mkdir(parents=True)
        build(seed="one")
        build(seed="two")
        (tmp_path / "submitted" / "ann" / "bellman").mkdir()
        with pytest.raises(ValueError, match="seed must stay"):
            build(seed="three")
        assert (tmp_path / "seed.txt").read_text(encoding="utf-8") == "two\n"

    @pytest.mark.parametrize("wrap", [str, json.dumps, html.escape])
    def test_a_planted_leak_is_found(self, tmp_path, wrap):
        planted = next(line for line in regions("bellman") if len(line) > 20 and '"' in line)
        (tmp_path / "page.html").write_text(f"before {wrap(planted)} after", encoding="utf-8")
        assert leaks(secret_lines("bellman"), tmp_path) == [planted]
