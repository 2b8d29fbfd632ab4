"""The notebooks as committed: their normal form, their anatomy, their labels, and the numbers that they print."""

import ast
import collections
import re
import subprocess
import sys

import clean_notebooks
import nbformat
import pytest
import reads
from build_book import BUILD, toc_files
from jupyter_cache import get_cache

from tests import pages

CHAPTERS = [*pages.NUMBERED, *pages.APPENDIX]
MAX_LINES = 12  # of code, blank ones aside
MAX_COLUMNS = 72  # of code that a page shows unfolded; more is cut off on a desk, in a solution first
HIDES = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
SETUP = ("use_style", "set_num_threads")  # calls that the first code cell may make


def ids(path):
    """Name a parameter by the stem of its file."""
    return path.stem


def test_every_page_is_in_the_table_of_contents():
    index = {"genindex"}  # which Sphinx writes
    assert {f"book/{path.stem}" for path in pages.PAGES} | index == set(toc_files())


@pytest.mark.parametrize("path", pages.NOTEBOOKS, ids=ids)
class TestNotebook:
    """What holds for every notebook."""

    def test_is_in_normal_form(self, path):
        before, after = clean_notebooks.clean(path)
        assert before == after, f"run tools/clean_notebooks.py {path.relative_to(pages.ROOT)}"

    def test_keeps_the_output_of_checked_cells_only(self, path):
        for cell in pages.code_cells(path):
            if clean_notebooks.CHECKED in pages.tags(cell):
                # nbval passes a checked cell without an output or a count, and compares nothing.
                assert cell.outputs, f"{cell.id} has no output: run tools/clean_notebooks.py --execute"
                assert cell.execution_count, f"{cell.id} was not run: run tools/clean_notebooks.py --execute"
            else:
                assert cell.outputs == [], f"{cell.id} carries an output and is not tagged {clean_notebooks.CHECKED}"

    def test_ids_are_words(self, path):
        found = [cell.id for cell in pages.notebook(path).cells]
        assert len(set(found)) == len(found)
        odd = [name for name in found if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name)]
        pages.none(odd, "give these cells an id of small words: it is what a diff and a reference name")

    def test_cells_are_short_and_plain(self, path):
        lines = {cell.id: sum(map(bool, map(str.strip, cell.source.splitlines()))) for cell in pages.code_cells(path)}
        pages.none([name for name in lines if lines[name] > MAX_LINES], f"these cells have more than {MAX_LINES} lines")
        magic = [cell.id for cell in pages.code_cells(path) if re.search(r"^\s*[%!]", cell.source, re.M)]
        pages.none(magic, "these cells hold a magic or a shell command")

    def test_visible_code_is_narrow(self, path):
        found = wide_cells(pages.code_cells(path))
        pages.none(found, f"these cells are not folded and wider than {MAX_COLUMNS} columns")

    def test_figures_have_names_captions_and_words(self, path):
        for cell in pages.code_cells(path):
            look = cell.metadata.get("mystnb", {})
            if "figure" not in look and "image" not in look:
                continue
            figure, image = look.get("figure", {}), look.get("image", {})
            assert figure.get("name", "").startswith("fig-"), f"{cell.id}: figure name"
            assert figure.get("caption", "").rstrip().endswith((".", "?", ")")), f"{cell.id}: a caption is a sentence"
            assert len(image.get("alt", "").split()) >= 5, f"{cell.id}: alt says what the eye sees"
            assert "hide-input" in pages.tags(cell), f"{cell.id}: the code of a figure is folded"


def talking_figures(cells):
    """Return the ids of the figure cells that show something beside the figure: each output would be a figure."""
    last = {cell.id: ast.parse(cell.source).body[-1] for cell in cells if "figure" in cell.metadata.get("mystnb", {})}
    quiet = {cell.id for cell in cells if cell.source.rstrip().endswith(";")}
    return [name for name, node in last.items() if isinstance(node, ast.Expr) and name not in quiet]


@pytest.mark.parametrize("path", pages.NOTEBOOKS, ids=ids)
def test_a_figure_cell_shows_its_figure_alone(path):
    pages.none(talking_figures(pages.code_cells(path)), "end the last line of these figure cells with a semicolon")


@pytest.mark.parametrize(
    ("line", "found"),
    [("ax.set(x=1)", ["cell"]), ("ax.set(x=1);", []), ("ax = draw()", []), ("for a in b:\n    a()", [])],
)
def test_a_figure_that_talks_is_found(line, found):
    look = {"mystnb": {"figure": {"name": "fig-a"}}}
    cell = nbformat.v4.new_code_cell(f"ax = draw()\n{line}", id="cell", metadata=look)
    assert talking_figures([cell]) == found


def wide_cells(cells):
    """Return the ids of the cells whose code is shown and too wide."""
    shown = [cell for cell in cells if not HIDES & set(pages.tags(cell))]
    return [cell.id for cell in shown if max(map(len, cell.source.splitlines()), default=0) > MAX_COLUMNS]


@pytest.mark.parametrize(
    ("columns", "tag", "found"),
    [(72, "", []), (73, "", ["cell"]), (73, "nbval-check-output", ["cell"]), (73, "hide-input", [])],
)
def test_a_wide_cell_is_found(columns, tag, found):
    cell = nbformat.v4.new_code_cell(f"x = 1\n{'a' * columns}", id="cell", metadata={"tags": [tag] * bool(tag)})
    assert wide_cells([cell]) == found


def test_maps_keep_light_and_dark():
    """A figure in which a cell of a map is dark or light for a reason is not turned round in the dark (book.css)."""
    draws = re.compile(r"plotting\.plot_(kernel|column|blocks|regions|table|grid)\(")
    figures = [c for p in pages.NOTEBOOKS for c in pages.code_cells(p) if "image" in c.metadata.get("mystnb", {})]
    maps = {cell.id for cell in figures if draws.search(cell.source)}
    assert maps
    assert maps == {cell.id for cell in figures if cell.metadata.mystnb.image.get("classes") == "heat-map"}


def differences(committed, executed):
    """Return the checked cells that print something else than is committed, letter by letter, and cells out of turn."""
    ours, theirs = (clean_notebooks.normal_form(notebook).cells for notebook in (committed, executed))
    said = {cell.id: cell.outputs for cell in theirs if cell.cell_type == "code"}
    order = [cell.execution_count for cell in executed.cells if cell.cell_type == "code"]
    found = ["the cells did not run from top to bottom"] * (order != list(range(1, len(order) + 1)))
    checked = [cell for cell in ours if clean_notebooks.CHECKED in pages.tags(cell)]
    return found + [
        f"{cell.id} printed\n    {cell.outputs}\n    and now\n    {said[cell.id]}"
        for cell in checked
        if cell.outputs != said[cell.id]
    ]


@pytest.mark.site
@pytest.mark.parametrize("path", pages.NOTEBOOKS, ids=ids)
def test_checked_cells_print_what_they_printed(path):
    """The build ran the notebook, and an error would have stopped it: this reads what the checked cells said there.

    The cache of the build knows a run by the cells and by what is behind them (`reads.keyed`): where it holds no run of
    this notebook with this package, `make book` makes it.
    """
    notebook = pages.notebook(path)
    cache = get_cache(BUILD / ".jupyter_cache")
    try:
        _, executed = cache.merge_match_into_notebook(reads.keyed(notebook))
    finally:
        cache.db.dispose()  # from Python 3.13 on, one that is left open is a warning
    pages.none(differences(notebook, executed), "the notebook says something else than is committed")


class TestDifferences:
    """What the comparison of a notebook with its run finds."""

    @pytest.fixture
    def run(self):
        """Return a notebook as committed, and a function that gives it as the build ran it, once changed."""
        new = nbformat.v4
        outputs = [new.new_output("stream", name="stdout", text="0.25\n")]
        cells = [
            new.new_markdown_cell("A quarter.", id="text"),
            new.new_code_cell("x = 1 / 4", id="first"),
            new.new_code_cell("print(x)", id="number", execution_count=2, outputs=outputs),
        ]
        cells[2].metadata = {"tags": [clean_notebooks.CHECKED]}
        committed = clean_notebooks.normal_form(new.new_notebook(cells=cells))

        def ran(change=lambda cells: None):
            executed = nbformat.from_dict(committed)
            executed.cells[1].execution_count = 1
            change(executed.cells)
            return differences(committed, executed)

        return ran

    def test_nothing(self, run):
        assert run() == []

    def test_another_number(self, run):
        def falsify(cells):
            cells[2].outputs = [nbformat.v4.new_output("stream", name="stdout", text="0.52\n")]

        (found,) = run(falsify)
        assert found.startswith("number printed") and "0.25" in found and "0.52" in found

    @pytest.mark.parametrize("more", ["", "a warning"])
    def test_nothing_more_and_nothing_less(self, run, more):
        def change(cells):
            said = nbformat.v4.new_output("stream", name="stderr", text=more)
            cells[2].outputs = [*cells[2].outputs, said] if more else []

        assert len(run(change)) == 1

    @pytest.mark.parametrize("count", [3, None])
    def test_a_cell_that_did_not_run_in_its_turn(self, run, count):
        def skip(cells):
            cells[1].execution_count = count

        assert run(skip) == ["the cells did not run from top to bottom"]


def missing_in_head(text):
    """Return what a reader looks for at the top of a chapter and does not find."""
    parts = {
        "its question": r"^# .+\n\n\*\*[^*]+\?\*\*",
        "what you can do after it": r"^After (?:this chapter|this part|it) you can\n\n(- .+\n(  .+\n)*){3,}",
        "what it needs": r"^\| you need \| how much \|$",
        "how long it takes": r"(minutes|hour).* to read.* to run",
    }
    return [name for name, mark in parts.items() if not re.search(mark, text, re.M)]


HEAD = """# A title

**What is it?**

After this chapter you can

- one;
- two;
- three.

| you need | how much |
|---|---|

An hour to read with the exercises; a minute to run."""


@pytest.mark.parametrize(
    ("line", "lacks"),
    [
        ("", []),
        ("**What is it?**", ["its question"]),
        ("- two;\n", ["what you can do after it"]),
        ("| you need | how much |", ["what it needs"]),
        ("An hour to read with the exercises; a minute to run.", ["how long it takes"]),
    ],
)
def test_a_gap_in_a_head_is_found(line, lacks):
    assert missing_in_head(HEAD.replace(line, "", 1)) == lacks


@pytest.mark.parametrize("path", CHAPTERS, ids=ids)
class TestChapter:
    """The anatomy of a chapter, as far as a machine can see it."""

    def test_opens_with_its_label_and_title(self, path):
        first = pages.notebook(path).cells[0]
        assert first.cell_type == "markdown"
        assert re.match(rf"\(ch-{path.stem.replace('_', '-')}\)=\n# \S", first.source)

    def test_head_says_what_why_and_how_long(self, path):
        pages.none(missing_in_head(pages.notebook(path).cells[0].source), "the head of a chapter lacks")

    def test_first_code_cell_only_sets_up(self, path):
        def sets_up(node):
            if isinstance(node, ast.Expr):
                return isinstance(node.value, ast.Call) and ast.unparse(node.value.func).endswith(SETUP)
            if isinstance(node, ast.Assign):  # SEED = 0
                return isinstance(node.value, ast.Constant) and ast.unparse(node.targets[0]).isupper()
            return isinstance(node, (ast.Import, ast.ImportFrom))

        body = ast.parse(pages.code_cells(path)[0].source).body
        pages.none([ast.unparse(node) for node in body if not sets_up(node)], "the first code cell imports and sets up")

    def test_asks_for_a_prediction(self, path):
        assert re.search(r"predict|your bet|before you look", pages.markdown(path), re.I)

    def test_every_exercise_has_a_solution(self, path):
        text = pages.markdown(path)
        exercises = re.findall(r"\{exercise(?:-start)?\}[^\n]*\n(?::(?!label)[^\n]*\n)*:label: (\S+)", text)
        solutions = re.findall(r"\{solution(?:-start)?\} (\S+)", text)
        assert len(exercises) == len(re.findall(r"\{exercise(?:-start)?\}", text)), "an exercise has no label"
        open_ones = [label for label in exercises if label not in solutions]  # the text after a prediction answers it
        pages.none([label for label in open_ones if not label.endswith("-prediction")], "exercises without a solution")
        pages.none([label for label in solutions if label not in exercises], "solutions of no exercise")


def unmarked(text):
    """Return the exercises, but for bets, whose title does not end in how hard they are; "pencil" if none is for it."""
    found, pencil = [], False
    exercise = r"\{exercise(?:-start)?\}[ \t]*([^\n]*)\n(?::(?!label)[^\n]*\n)*:label: (\S+)"
    for title, label in re.findall(exercise, text):
        mark = re.search(r"\S \((pencil, )?(easy|medium|hard)\)$", title.rstrip())
        hard = re.findall(r"\beasy\b|\bmedium\b|\bhard\b", title)
        pencil |= bool(mark and mark[1])
        found += [label] * (not label.endswith("-prediction") and (not mark or len(hard) != 1))
    return found + ["pencil"] * (not pencil)


EXERCISE = "```{{exercise-start}}{}\n:nonumber:\n:label: ex-a{}\n```\n"


@pytest.mark.parametrize(
    ("title", "label", "found"),
    [
        (" By hand (pencil, easy)", "", []),
        (" By hand (easy, pencil)", "", ["ex-a", "pencil"]),
        (" By hand (pencil)", "", ["ex-a", "pencil"]),
        (" Not by hand (hard)", "", ["pencil"]),
        (" Hard or easy (hard)", "", ["ex-a", "pencil"]),
        (" (hard)", "", ["ex-a", "pencil"]),
        ("", "", ["ex-a", "pencil"]),
        (" Your prediction", "-prediction", ["pencil"]),
    ],
)
def test_an_exercise_without_a_mark_is_found(title, label, found):
    assert unmarked(EXERCISE.format(title, label)) == found


STEMS = [path.stem for path in pages.NUMBERED]


@pytest.mark.parametrize("chapter", [stem for stem in STEMS if not any(stem.startswith(f"{one}_") for one in STEMS)])
def test_exercises_say_how_hard_they_are(chapter):
    """And one in each chapter is for the pencil; the pages of a chapter that has several count together."""
    parts = [pages.markdown(path) for path in pages.NUMBERED if f"{path.stem}_".startswith(f"{chapter}_")]
    found = unmarked("\n".join(parts))
    pages.none(found, f"in {chapter} these are not marked (easy), (medium) or (hard)")


class TestReadingOfPages:
    """What the tests take for prose, equations and labels."""

    @pytest.mark.parametrize(
        ("text", "prose"),
        [
            ("a\n```python\n$$x$$\n```\nb", "a\nb"),
            ("```{note}\na\n```\nb\n```\nc\n```", "```{note}\na\n```\nb"),
            ("````{note}\n```\na\n```\nb\n````", "````{note}\nb\n````"),
            (
                "```{exercise-start}\n```\na\n```{exercise-end}\n```",
                "```{exercise-start}\n```\na\n```{exercise-end}\n```",
            ),
            ("a `$$x$$` b {eq}`eq-a`", "a  b {eq}`eq-a`"),
            ("{eq}`eq-a` $b$ {prf:ref}`thm-c` `d` $e$ {eq}`eq-f`", "{eq}`eq-a` $b$ {prf:ref}`thm-c`  $e$ {eq}`eq-f`"),
            ("```{code-block} text\na\n```\nb", "b"),
        ],
    )
    def test_without_code(self, text, prose):
        assert pages.without_code(text) == prose

    def test_equations(self, tmp_path):
        path = tmp_path / "page.md"
        path.write_text("$$ a $$ (eq-a)\n\n$$\nb\n$$ (eq-b)\n\n$$c$$\n\n1 (x) $d$\n")
        assert pages.equations(path) == [("eq-a", "a"), ("eq-b", "b"), (None, "c")]


class TestLabels:
    """Labels are well formed and name one thing each."""

    @pytest.mark.parametrize("path", pages.PAGES, ids=ids)
    def test_are_well_formed(self, path):
        odd = [label for label in pages.labels(path) if not pages.LABEL.fullmatch(label)]
        pages.none(odd, f"labels that do not match {pages.LABEL.pattern}")

    def test_are_unique_over_the_book(self):
        count = collections.Counter(label for path in pages.PAGES for label in pages.labels(path))
        pages.none([label for label, times in count.items() if times > 1], "labels defined twice")

    @pytest.mark.parametrize("path", pages.PAGES, ids=ids)
    def test_what_has_a_number_is_spoken_of(self, path):
        numbered = [label for label in pages.labels(path) if label.startswith(("eq-", "fig-", "thm-"))]
        spoken_of = set().union(*map(pages.references, pages.PAGES))
        pages.none([label for label in numbered if label not in spoken_of], "nothing in the text refers to")

    def test_references(self, tmp_path):
        path = tmp_path / "page.md"
        path.write_text("{eq}`eq-a` {ref}`a word <sec-b>` `{eq}` `eq-c` {numref}`fig-d` {term}`e` {prf:ref}`thm-f`\n")
        assert pages.references(path) == {"eq-a", "sec-b", "fig-d", "thm-f"}


class TestNormalForm:
    """What the cleaner keeps and what it drops."""

    @pytest.fixture
    def run(self):
        """Return a notebook as JupyterLab leaves it."""
        new = nbformat.v4
        result = new.new_output("execute_result", {"text/plain": "2", "image/png": "AAAA"}, execution_count=9)
        stream = [new.new_output("stream", name="stdout", text=text) for text in ("a\n", "b\n")]
        book = new.new_notebook(metadata={"widgets": {}, "language_info": {"name": "python", "version": "3.12.1"}})
        book.cells = [
            new.new_markdown_cell("# Title\n", id="title"),
            new.new_code_cell("1 + 1  ", id="one", execution_count=9, outputs=[*stream, result]),
            new.new_code_cell("1 + 1", id="two", execution_count=9, outputs=[*stream, result]),
            new.new_code_cell("", id="empty"),
        ]
        book.cells[1].metadata = {"tags": ["nbval-check-output"], "scrolled": True, "execution": {"started": "now"}}
        return book

    def test_keeps_the_text_of_checked_cells(self, run):
        cell = clean_notebooks.normal_form(run).cells[1]
        assert (cell.source, cell.execution_count, cell.metadata) == ("1 + 1", 1, {"tags": ["nbval-check-output"]})
        assert [output.output_type for output in cell.outputs] == ["stream", "execute_result"]
        assert cell.outputs[0].text == "a\nb\n"
        assert cell.outputs[1].data == {"text/plain": "2"}

    def test_drops_the_rest(self, run):
        clean = clean_notebooks.normal_form(run)
        assert [cell.id for cell in clean.cells] == ["title", "one", "two"]
        assert (clean.cells[2].outputs, clean.cells[2].execution_count) == ([], None)
        assert clean.metadata == clean_notebooks.NOTEBOOK_METADATA

    def test_is_stable(self, run):
        once = clean_notebooks.normal_form(run)
        assert clean_notebooks.normal_form(once) == once

    def test_refuses_an_error(self, run):
        run.cells[1].outputs = [nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])]
        with pytest.raises(ValueError, match="a cell ended in an error: ValueError: no"):
            clean_notebooks.normal_form(run)


@pytest.mark.nightly
@pytest.mark.parametrize(("printed", "verdict"), [("0.25", 0), ("0.52", 1)])
def test_nbval_compares_numbers(tmp_path, printed, verdict):
    """A notebook with a true number passes; with a falsified one it fails."""
    output = nbformat.v4.new_output("stream", name="stdout", text=f"{printed}\n")
    cell = nbformat.v4.new_code_cell("print(1 / 4)", id="number", execution_count=1, outputs=[output])
    cell.metadata = {"tags": ["nbval-check-output"]}
    path = tmp_path / "small.ipynb"
    nbformat.write(clean_notebooks.normal_form(nbformat.v4.new_notebook(cells=[cell])), path)
    command = [sys.executable, "-m", "pytest", "-c", "/dev/null", "--nbval-lax", "--nbval-current-env", path]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == verdict, done.stdout
