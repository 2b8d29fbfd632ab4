"""One word, one meaning: what is called a status says what became of iterates, in the words of `dynamics.Status`."""

import ast
import csv
from typing import get_args

import pytest

from tests import pages

SOURCES = sorted((pages.ROOT / "divergence_notes").rglob("*.py"))
RESULTS = sorted((pages.BOOK / "results").rglob("*.csv"))


def is_status(node):
    """Return whether an expression is a status by its name: a variable, an attribute, a key."""
    names = {ast.Name: "id", ast.Attribute: "attr"}
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and node.slice.value == "status"
    return getattr(node, names.get(type(node), ""), None) == "status"


def texts(node):
    """Return the string constants in an expression."""
    inside = () if node is None else ast.walk(node)
    return {each.value for each in inside if isinstance(each, ast.Constant) and isinstance(each.value, str)}


def spoken(source):
    """Return the words that some source gives to a status, or compares one with, and types that allow for others."""
    words = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg == "status":
            words |= texts(node.value)
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            words |= {word for key, value in pairs if "status" in texts(key) for word in texts(value)}
        elif isinstance(node, ast.Compare) and any(map(is_status, [node.left, *node.comparators])):
            words |= set().union(*(texts(side) for side in (node.left, *node.comparators) if not is_status(side)))
        elif isinstance(node, ast.AnnAssign) and is_status(node.target):
            words |= texts(node.value)
            words |= {ast.unparse(node.annotation)} - {"Status", "dynamics.Status"}
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if is_status(target):
                    words |= texts(node.value)
                elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    both = zip(target.elts, node.value.elts, strict=True)
                    words |= {word for left, right in both if is_status(left) for word in texts(right)}
    return words


def named(source):
    """Return what a source calls by the word: functions and classes; a command may ask where things stand."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and "status" in node.name.lower().split("_"):
            found.add(node.name)
    return found


def cells():
    """Return the code of each notebook."""
    return {path: "\n".join(cell.source for cell in pages.code_cells(path)) for path in pages.NOTEBOOKS}


def test_each_status_is_one_of_the_three():
    from divergence_notes import dynamics

    places = {path: path.read_text(encoding="utf-8") for path in SOURCES} | cells()
    found = {path.name: spoken(source) - {*get_args(dynamics.Status)} for path, source in places.items()}
    pages.none([(name, *words) for name, words in found.items() if words], "words that are no dynamics.Status")
    assert set().union(*map(spoken, places.values())) == {*dynamics.STATUSES}, "the search finds each of them"


def test_nothing_else_is_called_so():
    found = {path.name: named(path.read_text(encoding="utf-8")) for path in SOURCES}
    pages.none([(name, *words) for name, words in found.items() if words], "something else is called a status")


def test_how_a_training_ended_is_called_its_ending():
    """In the raw results too."""
    from divergence_notes import training

    endings = {*get_args(training.Ending)}
    seen = set()
    for path in RESULTS:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert "status" not in rows[0], path
        seen |= {row["ending"] for row in rows if "ending" in row}
    assert seen and seen <= endings


@pytest.mark.parametrize(
    "line",
    [
        'status = "finished"',
        'a, status = 1, "finished"',
        'run.status: str = "finished"',
        'f(status="finished")',
        '{"status": "a" if x else "finished"}',
        'if run.status == "finished": pass',
        'if "finished" != table["status"]: pass',
        'table["status"] = "finished"',
    ],
)
def test_another_word_is_found(line):
    assert "finished" in spoken(line)


def test_a_type_that_allows_for_other_words_is_found():
    assert spoken("class Run:\n    status: str") == {"str"} and not spoken("class Run:\n    status: dynamics.Status")


@pytest.mark.parametrize("line", ["def _status(): pass", "class Run_Status: pass"])
def test_another_use_is_found(line):
    assert named(line)
