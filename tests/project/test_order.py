"""How `make test` shares the tests between its workers."""

import re

from tests.conftest import FIRST, place
from tests.pages import ROOT


def test_the_longest_files_come_first_and_stay_together():
    names = ["tests/test_a.py::one", f"tests/{FIRST[1]}::b", f"tests/{FIRST[0]}::a", f"tests/{FIRST[1]}::a"]
    assert sorted(names, key=place) == [names[2], names[1], names[3], names[0]]


def test_each_of_them_is_there_once():
    assert len(set(FIRST)) == len(FIRST)
    assert [name for name in FIRST if not (ROOT / "tests" / name).is_file()] == []


def test_the_command_keeps_the_order():
    """By itself xdist would begin with the files that have most tests, which are not those that take longest."""
    line = re.search(r"^PYTEST := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)[1]
    assert "--dist loadfile" in line and "--no-loadscope-reorder" in line


def nightly():
    """Return the files in which a test is left to the night."""
    own = ROOT / "tests" / "project" / "test_order.py"
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if path != own]
    marks = re.compile(r"\bpytest\.mark\.nightly\b|\bBY_NBGRADER\b")  # the second, of the coursework, holds the first
    return {path.name for path in files if marks.search(path.read_text(encoding="utf-8"))}


def listed(text):
    """Return the files that the table of CONTRIBUTING.md lists, those aside that nothing looks at by day."""
    table = text.partition("| by night | by day |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`[^:|]+`): [^|]+ \| [^|]{20,} \|$", table, re.M)
    return {name for row in rows for name in re.findall(r"`(test_\w+\.py)`", row)}


def test_what_is_left_to_the_night_is_said():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert listed(text) == nightly() != set()
    assert "test_lab.py" not in listed(
        text.replace("| one of them in JupyterLab, and all of them in the build |", "| |")
    )


def test_every_command_that_tests_says_its_minutes():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    minutes = {name: int(n) for name, n in re.findall(r"^\| `([^`]+)` \| .+ \| (\d+) \|$", text, re.M)}
    asked = {
        "make check",
        "make page NAME=bellman",
        "make book",
        "make test",
        "make elsewhere",
        "make nightly",
        ".ci/run",
    }
    assert asked <= set(minutes)
    assert minutes["make check"] == minutes["make page NAME=bellman"] == 1
    assert minutes["make test"] <= 14 and minutes[".ci/run"] <= 20
