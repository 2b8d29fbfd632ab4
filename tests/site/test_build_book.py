"""When the book is built, and when not: what is looked at, and what a build leaves behind."""

import pickle
import subprocess
import sys
import threading

import build_book
import environment
import pytest
import yaml
from sphinx.util.fileutil import copy_asset
from sphinx.util.matching import Matcher

from tests.pages import ROOT
from tests.waiting import PATIENCE

FILES = (
    "_config.yml",
    "_toc.yml",
    "CHANGELOG.md",
    "requirements.txt",
    "pyproject.toml",
    "book/bellman.ipynb",
    "book/_static/book.css",
    "book/results/fall/run.csv",
    "coursework/source/bellman/bellman.ipynb",
    "divergence_notes/bellman.py",
    "divergence_notes/studies/fall.py",
    "tools/mend.py",
    "tools/widgets-local.js",
    "tools/kernel/worker.js",
)
NOT_LOOKED_AT = (
    "README.md",
    "tests/test_bellman.py",
    "book/.ipynb_checkpoints/bellman.ipynb",
    "tools/__pycache__/mend.pyc",
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a place with a file of each kind, where a build writes one page and is counted."""
    for name in (*FILES, *NOT_LOOKED_AT):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one")
    build, site = tmp_path / "_build", tmp_path / "_build" / "html"
    for name, value in {"ROOT": tmp_path, "BUILD": build, "SITE": site, "STAMP": build / "made-from"}.items():
        monkeypatch.setattr(build_book, name, value)
    place = type("Place", (), {"root": tmp_path, "site": site, "builds": 0, "right": True})()

    def jupyter_book(page=""):
        assert not list(site.rglob("*")), "a build of the whole book starts from nothing"
        place.builds += 1
        site.mkdir(parents=True, exist_ok=True)
        (site / "index.html").write_text("a page")
        return place.right

    monkeypatch.setattr(build_book, "jupyter_book", jupyter_book)
    build_book.build()
    return place


def test_a_build_waits_for_another(place):
    """Two of them would write into one folder."""
    (place.root / "_config.yml").write_text("two")
    with environment.alone(place.root):
        other = threading.Thread(target=build_book.build)
        other.start()
        other.join(0.5)
        assert other.is_alive() and place.builds == 1
    other.join(PATIENCE)
    assert place.builds == 2


def test_a_second_build_does_nothing(place):
    build_book.build()
    assert place.builds == 1


@pytest.mark.parametrize("name", FILES)
def test_an_edit_is_built(place, name):
    (place.root / name).write_text("two")
    build_book.build()
    build_book.build()
    assert place.builds == 2


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_goes_or_comes_is_built(place, name):
    (place.root / name).unlink()
    build_book.build()
    (place.root / name).write_text("one")
    build_book.build()
    assert place.builds == 3


@pytest.mark.parametrize("name", NOT_LOOKED_AT)
def test_what_no_page_is_made_of_is_not_looked_at(place, name):
    (place.root / name).write_text("two")
    build_book.build()
    assert place.builds == 1


def test_with_and_without_python_in_the_pages_are_two_sites(place, monkeypatch):
    for live, builds in (("0", 2), ("0", 2), (None, 3)):
        monkeypatch.delenv("LIVE") if live is None else monkeypatch.setenv("LIVE", live)
        build_book.build()
        assert place.builds == builds


def test_a_new_time_alone_is_no_edit(place):
    (place.root / "_config.yml").touch()
    build_book.build()
    assert place.builds == 1


@pytest.mark.parametrize("harm", ["edited", "gone", "more"])
def test_a_site_that_is_not_as_it_was_built_is_built_again(place, harm):
    page = place.site / "index.html"
    if harm == "gone":
        page.unlink()
    else:
        (page if harm == "edited" else place.site / "other.html").write_text("another page")
    build_book.build()
    assert place.builds == 2


def test_a_build_with_a_fault_is_not_trusted(place):
    (place.root / "_config.yml").write_text("two")
    place.right = False
    for builds in (2, 3):
        with pytest.raises(SystemExit, match="The book has faults"):
            build_book.build()
        assert place.builds == builds


def test_an_edit_while_it_is_built_is_built_next(place, monkeypatch):
    run = build_book.jupyter_book

    def edited_meanwhile():
        (place.root / "_toc.yml").write_text("three")
        return run()

    (place.root / "_toc.yml").write_text("two")
    monkeypatch.setattr(build_book, "jupyter_book", edited_meanwhile)
    build_book.build()
    monkeypatch.setattr(build_book, "jupyter_book", run)
    build_book.build()
    assert place.builds == 3


@pytest.mark.site
def test_all_that_sphinx_read_is_looked_at():
    """Sphinx notes the files that a page includes, quotes or documents: none of ours is missing from the list."""
    path = build_book.BUILD / ".doctrees" / "environment.pickle"
    env = pickle.loads(path.read_bytes())  # our own build wrote it
    read = {(ROOT / name).resolve() for names in env.dependencies.values() for name in names}
    read |= {ROOT / env.doc2path(name, base=False) for name in env.all_docs}
    ours = {name for name in read if name.is_relative_to(ROOT) and not {"_build", ".venv"} & set(name.parts)}
    assert {ROOT / "CHANGELOG.md", ROOT / "CITATION.cff", ROOT / "divergence_notes" / "bellman.py"} <= ours
    assert ours <= set(build_book.inputs())


@pytest.mark.parametrize("name", ["belman", "book/bellman", ""])
def test_a_page_that_is_none_is_refused_in_one_sentence(name):
    command = [sys.executable, ROOT / "tools" / "build_book.py", "--page", name]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode != 0
    assert done.stderr == f"NAME must be a page of _toc.yml, without folder and ending, got {name!r}\n"


def test_pages_come_in_reading_order_and_those_with_a_number_include_parts(tmp_path, monkeypatch):
    toc = """root: a
parts:
  - numbered: true
    chapters:
      - file: b
        sections: [{file: c, sections: [{file: d}]}]
      - file: e
  - chapters: [{file: f, sections: [{file: g}]}]
"""
    (tmp_path / "_toc.yml").write_text(toc, encoding="utf-8")
    monkeypatch.setattr(build_book, "ROOT", tmp_path)
    assert build_book.toc_files() == [*"abcdefg"]
    assert build_book.toc_files(numbered=True) == [*"bcde"]


def test_what_made_the_site_is_no_part_of_it(tmp_path):
    """Sphinx copies what lies in _offline but for the settings; a file that came along would be a fault."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    for name in ("_offline/vendor/require.js", "_offline/esbuild", "_offline/made-from"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    copy_asset(tmp_path / "_offline", tmp_path / "site", excluded=Matcher(config["exclude_patterns"]))
    assert [path.name for path in (tmp_path / "site").rglob("*") if path.is_file()] == ["require.js"]
    (tmp_path / "site" / "esbuild").write_text("")
    assert "esbuild is no part of the site" in build_book.faults(tmp_path / "site")
