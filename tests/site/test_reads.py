"""What a notebook imports and reads: its key changes with what its outputs are computed from, and with nothing else."""

import nbformat
import pytest
import reads

from divergence_notes import studies
from divergence_notes.studies import runner
from tests import pages

FILES = {
    "requirements.txt": "numpy==2.0\n",
    "planted/__init__.py": "",
    "planted/top.py": '''"""What the notebook imports."""

from planted import middle

SCALE = 2.0
"""What is multiplied by."""


def double(x):
    """Return twice x."""
    return SCALE * middle.same(x)  # as it is
''',
    "planted/middle.py": '''def same(x):
    """Return x."""
    from planted import deep  # only when it is called

    return deep.same(x)
''',
    "planted/deep.py": 'SCRIPT = "draw.js"\n\n\ndef same(x):\n    return x\n',
    "planted/draw.js": "draw(1)",
    "planted/play.js": "play(1)",
    "planted/other.py": "def half(x):\n    return x / 2\n",
    "planted/by_name/__init__.py": "from planted.by_name.core import find\n",
    "planted/by_name/core.py": """import importlib


def find(name):
    return importlib.import_module(f"planted.by_name.{name}")
""",
    "planted/by_name/one.py": "ONE = 1\n",
    "book/results/fall/seed=0.csv": "step\n1\n",
    "book/results/rise/seed=0.csv": "step\n2\n",
    "book/agents/agent.pt": "weights",
    "book/published.csv": "a\n1\n",
    "coursework/source/one/one.ipynb": "{}",
}
USES = 'from planted import top\n\nprint(top.double(1), "fall")'


def new(*sources):
    """Return a notebook of these code cells."""
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Return a folder with a small package and a small book, in the place of ours."""
    monkeypatch.setattr(reads, "ROOT", tmp_path)
    monkeypatch.setattr(reads, "PACKAGE", "planted")
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def edit(path, old, new):
    """Write one thing for another, which must be there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


CHANGES = {
    "a function that a cell calls": ("planted/top.py", "SCALE * middle", "3 * middle"),
    "a constant behind it": ("planted/top.py", "2.0", "2.5"),
    "an import of an import": ("planted/middle.py", "deep.same(x)", "deep.same(x) + 1"),
    "a module that is imported when a function is called": ("planted/deep.py", "return x", "return -x"),
    "a script that a module reads": ("planted/draw.js", "1", "2"),
    "the package itself": ("planted/__init__.py", "", "import os\n"),
    "a result that a cell reads": ("book/results/fall/seed=0.csv", "1", "2"),
    "the lock": ("requirements.txt", "2.0", "2.1"),
}
NO_CHANGES = {
    "a docstring of a module": ("planted/top.py", "What the notebook imports.", "What it imports."),
    "a docstring of a function": ("planted/top.py", "Return twice x.", "Return x, twice."),
    "the text below a constant": ("planted/top.py", "What is multiplied by.", "By which x is multiplied."),
    "a comment": ("planted/top.py", "# as it is", "# unchanged"),
    "layout": ("planted/top.py", "SCALE * middle.same(x)", "(\n        SCALE * middle.same(x)\n    )"),
    "a module that it does not import": ("planted/other.py", "x / 2", "x / 3"),
    "a module of a folder that it does not import": ("planted/by_name/one.py", "1", "2"),
    "a script that no module reads": ("planted/play.js", "1", "2"),
    "a result that it does not read": ("book/results/rise/seed=0.csv", "2", "3"),
    "an agent that it does not load": ("book/agents/agent.pt", "weights", "others"),
}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("with needs('extra'):\n    import pandas\n", {"pandas"}),
        ("def later():\n    import pandas\n", set()),
        ("if TYPE_CHECKING:\n    import pandas\n", set()),
    ],
)
def test_what_must_be_installed(root, source, found):
    """What a module imports at once, in the block that says which extra brings it too, and no more."""
    (root / "planted" / "top.py").write_text(source)
    assert reads.needs(new(USES)) == found


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_key_follows(root, change):
    before = reads.key(new(USES))
    edit(root / change[0], *change[1:]) if change[1] else (root / change[0]).write_text(change[2])
    assert reads.key(new(USES)) != before


@pytest.mark.parametrize("change", NO_CHANGES.values(), ids=NO_CHANGES)
def test_key_does_not_follow(root, change):
    before = reads.key(new(USES))
    edit(root / change[0], *change[1:])
    assert reads.key(new(USES)) == before


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import planted.by_name", "planted/by_name/one.py"),
        ("from planted.by_name import find", "planted/by_name/one.py"),
        ("def later():\n    import planted.other", "planted/other.py"),
        ('load("rise")', "book/results/rise/seed=0.csv"),
        ('open("results/rise/seed=0.csv")', "book/results/rise/seed=0.csv"),
        ('path / "agents" / "agent.pt"', "book/agents/agent.pt"),
        ('read_csv("published.csv")', "book/published.csv"),
        ('(ROOT / "coursework").glob("*/*.ipynb")', "coursework/source/one/one.ipynb"),
    ],
)
def test_sources_of_a_cell(root, source, name):
    assert root / name in reads.sources(new(source))
    assert root / name not in reads.sources(new("1 + 1"))


@pytest.mark.parametrize(
    "source", ["help(top)", "print(top.__doc__)", "inspect.getsource(top)", "from inspect import getdoc"]
)
def test_docstrings_count_where_they_are_shown(root, source):
    notebook = new(USES, source)
    before = reads.key(notebook)
    edit(root / "planted/top.py", "Return twice x.", "Return x, twice.")
    assert reads.key(notebook) != before


def test_a_new_result_and_a_new_module_are_seen(root):
    notebook = new(USES, "import planted.by_name")
    keys = [reads.key(notebook)]
    for name in ("book/results/fall/seed=1.csv", "planted/by_name/two.py"):
        (root / name).write_text("")
        keys.append(reads.key(notebook))
    assert len(set(keys)) == 3


class TestBook:
    """What the chapters read."""

    @pytest.mark.parametrize("path", pages.NOTEBOOKS, ids=lambda path: path.stem)
    def test_reads_the_lock_and_what_it_imports(self, path):
        found = {str(name.relative_to(pages.ROOT)) for name in reads.sources(pages.notebook(path))}
        assert {"requirements.txt", "divergence_notes/__init__.py"} <= found

    @pytest.mark.parametrize("path", pages.NOTEBOOKS, ids=lambda path: path.stem)
    def test_what_has_a_plane_reads_how_it_is_drawn(self, path):
        found = {name.name for name in reads.sources(pages.notebook(path))}
        assert ("widgets.py" in found) == ({"plane.js", "plane.css"} <= found)

    @pytest.mark.parametrize(
        ("chapter", "expected"),
        [
            ("bellman", set()),
            ("contraction", set()),
            ("key_equation", set()),
            ("function_approximation", {"soft_divergence"}),
        ],
    )
    def test_reads_its_results_and_no_others(self, chapter, expected):
        found = reads.sources(pages.notebook(pages.BOOK / f"{chapter}.ipynb"))
        assert {path.parent.name for path in found if "results" in path.parts} == expected

    def test_the_appendix_reads_every_study_that_is_whole(self):
        """And of those of which runs are missing the robots alone: their page says which agents are whole."""
        found = {path for page in pages.APPENDIX for path in reads.sources(pages.notebook(page))}
        there = {path.name for path in studies.RESULTS.iterdir()}
        whole = {name for name in there if not runner.missing(runner.find(name), studies.RESULTS)}
        assert {path.parent.name for path in found if "results" in path.parts} == whole | {"robots"}

    def test_instructors_reads_the_assignments(self):
        found = reads.sources(pages.notebook(pages.BOOK / "instructors.ipynb"))
        assert set(pages.ROOT.glob("coursework/source/*/*.ipynb")) <= set(found)

    def test_no_chapter_runs_again_for_a_docstring_of_a_study(self, monkeypatch):
        """Nor for a comment: the text of the files is other, the key is the same."""
        notebooks = [pages.notebook(path) for path in pages.NOTEBOOKS]
        before = [reads.key(notebook) for notebook in notebooks]
        plain = reads.without_docstrings

        def edited(source):
            assert '"""' in source or not source.strip()
            return plain("# a comment\n" + source.replace('"""', '"""More. ', 1))

        monkeypatch.setattr(reads, "without_docstrings", edited)
        assert [reads.key(notebook) for notebook in notebooks] == before
