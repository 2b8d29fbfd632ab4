"""The way out of Jupyter Book 1: what is installed for it, and how two sites are compared. The build is `make next`."""

import next_sphinx
import pytest
import yaml
from sphinx.util.matching import Matcher

from tests.pages import ROOT

LOCK = (ROOT / "requirements.txt").read_text(encoding="utf-8")
PAGE = (
    "<article><p class='math'>x</p><img src='a'><div class='admonition'></div><div class='cell_output'></div></article>"
)


def test_what_jupyter_book_holds_back_is_free_and_the_rest_is_not():
    lines, bare = next_sphinx.lists(LOCK)
    lines = lines.split()
    assert lines[0] == "sphinx>=8,<9" and {"myst-nb", "myst-parser", "docutils", "sphinx-book-theme"} < set(lines)
    assert "numpy==" in "".join(lines) and "torch==2.13.0" in lines
    assert not [line for line in lines if line.startswith(("jupyter-book", "sphinx=="))]
    assert bare.startswith("jupyter-book==1.")


@pytest.fixture
def sites(tmp_path):
    """Return two sites that are the same."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "page.html").write_text(PAGE)
        (tmp_path / name / "onward.html").write_text("<p>no page of the book</p>")
    return tmp_path / "old", tmp_path / "new"


def compared(sites):
    """Return where the two sites differ."""
    return next_sphinx.differences(*map(next_sphinx.counts, sites))


def test_the_same_site_differs_nowhere(sites):
    assert next_sphinx.counts(sites[0]) == {"page.html": dict.fromkeys(next_sphinx.COUNTED, 1)}
    assert compared(sites) == []


@pytest.mark.parametrize(
    ("lost", "what"),
    [
        ("<p class='math'>x</p>", "formulas"),
        ("<img src='a'>", "pictures"),
        ("<div class='admonition'></div>", "boxes"),
        ("<div class='cell_output'></div>", "outputs"),
    ],
)
def test_what_is_lost_is_found(sites, lost, what):
    assert lost in PAGE
    (sites[1] / "page.html").write_text(PAGE.replace(lost, ""))
    assert compared(sites) == [f"page.html: 1 {what}, and 0 on the next Sphinx"]


def test_a_page_that_is_lost_is_found(sites):
    (sites[1] / "page.html").unlink()
    assert compared(sites) == ["page.html is on one side only"]


def test_stamps_stay_out_of_the_site_without_jupyter_book():
    """Sphinx itself names what it copies from _offline as ./made-from."""
    excluded = Matcher(yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["exclude_patterns"])
    assert all(excluded(name) for name in ("./made-from", "made-from", "./made-from-live"))
    assert not excluded("./vendor/require.js")
