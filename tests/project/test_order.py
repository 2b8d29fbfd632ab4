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
