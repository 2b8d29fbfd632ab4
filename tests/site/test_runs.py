"""What the chapters really read, and that every way of building makes the same site. Both take minutes."""

import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import reads
from build_book import BUILD, SITE
from nbclient import NotebookClient

from tests import pages
from tests.pages import ROOT
from tests.waiting import PATIENCE

WATCH = """import os, sys
_opened = set()
def _watch(event, of):
    if event == "open" and isinstance(of[0], (str, bytes)):
        _opened.add(of[0])
sys.addaudithook(_watch)"""
TELL = """import json as _json
_files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
print(_json.dumps([os.path.abspath(os.fsdecode(path)) for path in {*_opened, *_files} if path]))"""
AROUND = ("_build", "_offline", "node_modules", ".git", ".venv")
TIMES = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d")
WIDGETS = re.compile(rb'(?<=<script type="application/vnd.jupyter.widget-)(\w+)\+json">(.*?)</script>', re.S)


def opened(path, notebook):
    """Run a notebook; return the files of the project that it opened or imported."""
    new = nbformat.v4.new_code_cell
    watched = nbformat.from_dict(notebook | {"cells": [new(WATCH), *notebook.cells, new(TELL)]})
    NotebookClient(watched, timeout=60 * PATIENCE, resources={"metadata": {"path": str(path.parent)}}).execute()
    found = {Path(name) for name in json.loads(watched.cells[-1].outputs[0].text)}
    inside = {name.relative_to(ROOT) for name in found if name.is_relative_to(ROOT) and name.is_file()}
    return {name for name in inside if name.parts[0] not in AROUND and "__pycache__" not in name.parts}


def unknown(path, notebook):
    """Return the files that a notebook opened and its key does not look at."""
    known = {name.relative_to(ROOT) for name in reads.sources(notebook)} | {path.relative_to(ROOT)}
    return sorted(map(str, opened(path, notebook) - known))


@pytest.mark.nightly
@pytest.mark.parametrize("path", pages.NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_opens_nothing_that_its_key_does_not_look_at(path):
    assert unknown(path, pages.notebook(path)) == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import importlib\nimportlib.import_module('divergence_' + 'notes.features')", "divergence_notes/features.py"),
        ("text = open('publi' + 'shed.csv').read()", "book/published.csv"),
    ],
    ids=["imported", "read"],
)
def test_what_is_hidden_from_the_walk_is_found_by_running(source, name):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    assert name in unknown(ROOT / "book" / "planted.ipynb", notebook)


def plain(text):
    """Return a page without times of runs, the keys of its widgets in the order in which Jupyter Cache has them."""
    return WIDGETS.sub(lambda found: json.dumps(json.loads(found[2]), sort_keys=True).encode(), TIMES.sub(b"", text))


def differences(one, other):
    """Return the files that two folders do not have in common, times of runs and the order of keys aside."""
    files = [{path.relative_to(site) for path in site.rglob("*") if path.is_file()} for site in (one, other)]
    found = files[0] ^ files[1]
    for name in files[0] & files[1]:
        if not filecmp.cmp(one / name, other / name, shallow=False):
            texts = [plain((site / name).read_bytes()) for site in (one, other)]
            found |= {name} if texts[0] != texts[1] else set()
    return sorted(map(str, found))


@pytest.mark.nightly
def test_jupyter_book_alone_makes_the_same_site(tmp_path):
    """In a copy of the project elsewhere, with the runs of the chapters and nothing else that was built."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*AROUND, ".venv*", "__pycache__"))
    shutil.copytree(ROOT / "_offline", copy / "_offline")
    shutil.copytree(BUILD / ".jupyter_cache", copy / "_build" / ".jupyter_cache")
    command = [Path(sys.executable).with_name("jupyter-book"), "build", "."]
    done = subprocess.run(command, cwd=copy, env=os.environ | {"PYTHONPATH": str(copy)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert " runs" not in done.stderr, "the chapters of the site ran with something else than is here: make book"
    assert differences(SITE, copy / "_build" / "html") == []


def test_differences_are_found(tmp_path):
    """Planted: a file more, a file less, another number; and another time, which is none."""
    for site, text in (("one", "0.5 at 2026-11-29 00:42"), ("other", "0.5 at 2026-11-29 01:47")):
        (tmp_path / site).mkdir()
        (tmp_path / site / "page.html").write_text(text)
    one, other = tmp_path / "one", tmp_path / "other"
    assert differences(one, other) == []
    (one / "page.html").write_text("0.4 at 2026-11-29 00:42")
    (one / "less.html").touch()
    (other / "more.html").touch()
    assert differences(one, other) == ["less.html", "more.html", "page.html"]
