"""The Sphinx extension that makes the site what it is: when a chapter runs, and what is a fault, on a small book."""

import json
import logging
import re
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import book_site
import nbformat
import pytest
import reads
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

from tests.site.test_reads import FILES, edit

NOTEBOOKS = {
    "one": ["from planted import top\n\nprint('twice is', top.double(1))", "print(read('results/fall/seed=0.csv'))"],
    "two": ["from planted import other\n\nprint('half is', other.half(1))"],
}
PAGES = {"index": "# Book\n\n```{toctree}\none\ntwo\nplain\n```\n", "plain": "# Plain\n\nText.\n"}


class Book:
    """A book of two notebooks about a small package."""

    def __init__(self, root):
        self.root = root
        self.ran = []
        for name, sources in NOTEBOOKS.items():
            cells = [nbformat.v4.new_markdown_cell(f"# {name}"), *map(nbformat.v4.new_code_cell, sources)]
            kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
            nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), self.path(name))
        for name, text in PAGES.items():
            (root / "book" / f"{name}.md").write_text(text)

    def path(self, name):
        return self.root / "book" / f"{name}.ipynb"

    def run(self, notebook, cwd, **_):
        """Run the cells here, where a kernel would take seconds, in a package that is imported anew."""
        self.ran.append(notebook.cells[0].source.removeprefix("# "))
        for name in [name for name in sys.modules if name.partition(".")[0] == "planted"]:
            del sys.modules[name]
        names = {"read": lambda path: (self.root / "book" / path).read_text()}
        for cell in notebook.cells[1:]:
            said = StringIO()
            with redirect_stdout(said):
                exec(cell.source, names)
            cell.outputs = [nbformat.v4.new_output("stream", text=said.getvalue())]
        return SimpleNamespace(err=None, time=0.0)

    def build(self, **more):
        """Build it; return the names of the notebooks that ran, and the status."""
        self.ran.clear()
        source, out = self.root / "book", self.root / "out"
        settings = {
            "extensions": ["myst_nb", "book_site"],
            "nb_execution_mode": "cache",
            "html_theme": "pydata_sphinx_theme",
            "html_sourcelink_suffix": "",
        }
        settings |= more
        with patch_docutils(None), docutils_namespace():
            app = Sphinx(
                source, None, out / "html", out / "doctrees", "html", settings, status=None, warning=StringIO()
            )
            app.build()
        return sorted(self.ran), app.statuscode

    def page(self, name):
        """Return a page; a style that MyST-NB writes last has its sum in the links of the second build only."""
        text = (self.root / "out" / "html" / f"{name}.html").read_text(encoding="utf-8")
        return re.sub(r"\?v=\w+", "", text)


@pytest.fixture
def book(tmp_path, monkeypatch):
    """Return a book in which nothing is fetched, and a notebook runs in this very process."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(reads, "ROOT", tmp_path)
    monkeypatch.setattr(reads, "PACKAGE", "planted")
    monkeypatch.setattr(book_site, "vendor", lambda: None)
    monkeypatch.setattr(book_site.live_files, "fill", lambda: None)
    monkeypatch.setattr(book_site, "faults", lambda site: [])
    monkeypatch.setattr(book_site.downloads, "extras", lambda notebook: [])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    book = Book(tmp_path)
    monkeypatch.setattr("myst_nb.core.execute.cache.single_nb_execution", book.run)
    yield book
    for name in [name for name in sys.modules if name.partition(".")[0] == "planted"]:
        del sys.modules[name]


def test_a_chapter_runs_when_what_is_behind_it_changes(book):
    """One book, built again and again: each time it is said which notebooks run."""
    assert book.build() == (["one", "two"], 0)
    assert "twice is 2.0" in book.page("one") and "half is 0.5" in book.page("two")
    assert book.build() == ([], 0)

    for name, old, new in [
        ("planted/top.py", "Return twice x.", "Return x, two times."),
        ("planted/top.py", "# as it is", "# unchanged"),
        ("planted/by_name/one.py", "1", "2"),
        ("book/results/rise/seed=0.csv", "2", "3"),
    ]:
        edit(book.root / name, old, new)
        assert book.build() == ([], 0), name

    edit(book.root / "planted/top.py", "SCALE * middle", "3 * middle")
    assert book.build() == (["one"], 0)
    assert "twice is 3" in book.page("one")

    edit(book.root / "planted/deep.py", "return x", "return x + 1")
    assert book.build() == (["one"], 0)
    assert "twice is 6" in book.page("one")

    edit(book.root / "book/results/fall/seed=0.csv", "1", "77")
    assert book.build() == (["one"], 0)
    assert "77" in book.page("one")

    edit(book.root / "requirements.txt", "2.0", "2.1")
    assert book.build() == (["one", "two"], 0)
    edit(book.root / "requirements.txt", "2.1", "2.0")
    assert book.build() == ([], 0), "what ran before is found again"


def test_a_preview_runs_one_page_and_leaves_the_rest_for_later(book, monkeypatch):
    book.build()
    edit(book.root / "planted/top.py", "SCALE * middle", "3 * middle")
    edit(book.root / "planted/other.py", "x / 2", "x / 4")
    (book.root / "book" / "plain.md").write_text("# Plain\n\nOther text.\n")
    monkeypatch.setenv(book_site.PREVIEW, "one")
    assert book.build() == (["one"], 0)
    assert "twice is 3" in book.page("one") and "half is 0.5" in book.page("two") and "Other" not in book.page("plain")
    assert book.build() == ([], 0)
    monkeypatch.delenv(book_site.PREVIEW)
    assert book.build() == (["two"], 0)
    assert "half is 0.25" in book.page("two") and "Other text" in book.page("plain")


def test_pages_are_mended_and_downloads_say_how_to_install(book):
    book.build()
    assert "fontawesome.js" not in book.page("index") + book.page("one")
    assert "searchtools.js" not in book.page("index") + book.page("one") and "searchtools.js" in book.page("search")
    download = json.loads((book.root / "out" / "html" / "_sources" / "one.ipynb").read_text(encoding="utf-8"))
    assert [cell["id"] for cell in download["cells"][:2]] == ["install-commands", "install-check"]
    assert "made_from" not in json.dumps(download), "the key is for the cache alone"
    once = {name: book.page(name) for name in ("index", "one", "two", "plain")}
    book.path("one").touch()
    book.build()
    assert {name: book.page(name) for name in once} == once


@pytest.mark.parametrize("preview", [False, True])
def test_a_warning_fails_the_build_and_the_next_one_too(book, monkeypatch, preview):
    """Also where nothing was asked of Sphinx: no -W. A preview goes on."""
    assert book.build()[1] == 0
    (book.root / "book" / "plain.md").write_text("# Plain\n\n#### Too deep\n")
    monkeypatch.setenv(book_site.PREVIEW, "plain" if preview else "")
    assert [book.build()[1] for _ in range(2)] == [int(not preview)] * 2


def test_a_warning_of_the_settings_fails_the_build(book):
    assert book.build(html_static_path=["nowhere"])[1] == 1


def test_a_warning_that_the_settings_suppress_does_not(book):
    (book.root / "book" / "plain.md").write_text("# Plain\n\n#### Too deep\n")
    assert book.build(suppress_warnings=["myst.header"])[1] == 0


def test_a_fault_of_the_site_fails_the_build(book, monkeypatch, caplog):
    monkeypatch.setattr(book_site, "faults", lambda site: ["one.html holds an error: Traceback"])
    said = []
    monkeypatch.setattr(book_site.LOGGER, "error", lambda text, *of: said.append(text % of))
    assert book.build()[1] == 1
    assert said == ["The book has faults:\n  one.html holds an error: Traceback"]


def test_icons_are_cut_in_silence(book, caplog):
    with caplog.at_level(logging.INFO):
        book.build()
    assert not [record for record in caplog.records if record.name.startswith("fontTools")]


def test_our_scripts_are_short_after_each_build(book):
    """Sphinx copies them anew each time, over what was made of them, and that is no warning."""
    static = Path(book_site.__file__).parents[1] / "book" / "_static"
    source, made = static / "live.js", book.root / "out" / "html" / "_static" / "live.js"
    sizes = []
    for _ in range(2):
        assert book.build(html_static_path=[str(static)])[1] == 0
        sizes.append(made.stat().st_size)
        (book.root / "book" / "plain.md").write_text("# Plain\n\nAnother text.\n")
    assert sizes[0] == sizes[1] < 0.8 * source.stat().st_size
    assert "/*" not in made.read_text(encoding="utf-8") and "// " not in made.read_text(encoding="utf-8")
