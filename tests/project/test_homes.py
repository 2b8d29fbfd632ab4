"""A test has one home: a class of tests has its name to itself, and so has a file."""

import ast
from collections import Counter

import pytest

from tests import pages

FILES = sorted((pages.ROOT / "tests").rglob("test_*.py"))


def classes(source):
    """Return the names of the classes of tests in a file."""
    return [node.name for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name[:4] == "Test"]


def twice(names):
    """Return the names that come more than once."""
    return sorted(name for name, times in Counter(names).items() if times > 1)


def test_no_class_has_the_name_of_another():
    names = [name for path in FILES for name in classes(path.read_text(encoding="utf-8"))]
    assert len(names) > 300
    pages.none(twice(names), "these classes of tests are there twice: which is the home of what they ask?")


def test_no_file_has_the_name_of_another():
    pages.none(twice(path.name for path in FILES), "the pages name a file of tests without its folder")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_test_hides_another(path):
    """Within a file and within a class the later of two functions of one name is the only one that runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    blocks = [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
    for block in blocks:
        names = [node.name for node in block.body if isinstance(node, ast.FunctionDef) and node.name[:4] == "test"]
        pages.none(twice(names), "only the last of these runs")


def test_a_name_that_is_there_twice_is_found():
    source = "class TestA: ...\nclass TestB: ...\nclass Test_A: ...\nclass Other: ...\nclass Other: ...\n"
    assert twice(classes(source)) == []
    assert twice(classes(source + "class TestB: ...\n")) == ["TestB"]
