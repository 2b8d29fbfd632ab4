"""What the pages tell a reader to run or to open is there, under the name that they give it."""

import re

import pytest

from tests import pages

PAGES = [
    *(pages.ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile", "coursework/README.md")),
    *sorted(pages.BOOK.glob("*.md")),
    *pages.NOTEBOOKS,
]
FOLDERS = "benchmarks|binder|book|coursework|divergence_notes|tests|tools"
PATH = re.compile(rf"(?<![\w/.>-])(?:{FOLDERS})/[\w./-]*\w\.(?:py|sh|ya?ml|csv|json|md|ipynb|txt)(?![\w/<*])")
MADE = ("coursework/instructor/", "coursework/release/", "coursework/student/")


def missing(text):
    """Return the paths in a text that lead to no file of the repository; what the commands make need not be there."""
    named = {path for path in PATH.findall(text) if not path.startswith(MADE)}
    return sorted(path for path in named if not (pages.ROOT / path).is_file())


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_path_on_a_page_leads_to_a_file(page):
    pages.none(missing(page.read_text(encoding="utf-8")), f"{page.name} names these files")


def test_the_pages_name_the_steps_of_grading():
    named = {path for page in PAGES for path in PATH.findall(page.read_text(encoding="utf-8"))}
    assert {"coursework/course.py", "coursework/grade.py", "tools/clean_notebooks.py"} <= named


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (".venv/bin/python tools/grade.py table bellman", ["tools/grade.py"]),
        ("`tools/course.py`, and `coursework/course.py`.", ["tools/course.py"]),
        ("python -m pytest tests/test_nothing.py -k x", ["tests/test_nothing.py"]),
        ("`coursework/source/<chapter>/<chapter>.ipynb` and `coursework/instructor/bellman.csv`", []),
        ("see coursework/README.md.", []),
    ],
)
def test_a_path_that_leads_nowhere_is_found(text, found):
    assert missing(text) == found
