"""No test fails since the machine is busy: limits in wall time guard against hanging, and against nothing else."""

import ast
import threading
import tomllib

import pytest
import yaml

from tests import pages
from tests.waiting import PATIENCE, once, until

CLOCKS = ("monotonic", "perf_counter", "process_time", "time")
# Limits that may be short. The first five wait for what must not come, or within a loop that goes on waiting.
SHORT = {
    "site/test_build_book.py": ["other.join(0.5)"],
    "notebooks/test_lab.py": ["timeout=100", "patience=PATIENCE if name == 'alive' else 2"],
    "site/test_browser.py": ["patience=0"],
    "page_checks.py": ["timeout=2000"],
    "project/test_waiting.py": ["seconds=0.1"],
    "coursework/test_grade.py": ["seconds=12"],  # after 15, what is waited for would come by itself
}
TESTS = pages.ROOT / "tests"
CELL = 10  # seconds that a cell of a chapter may take


def numbers(node):
    """Say whether a number stands in an expression, and our patience does not."""
    inside = list(ast.walk(node))
    patience = any(isinstance(part, ast.Name) and part.id == "PATIENCE" for part in inside)
    return any(isinstance(part, ast.Constant) and isinstance(part.value, int | float) for part in inside) and (
        not patience or any(isinstance(part, ast.IfExp) for part in inside)
    )


def limits(source):
    """Return what in a source ends a wait after a number of seconds, or compares a stretch of time with a number."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg in ("timeout", "seconds", "patience") and numbers(node.value):
            found.append(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            text = isinstance(node.func.value, ast.Constant)  # ", ".join
            if not text and node.func.attr in ("join", "wait", "set_default_timeout") and any(map(numbers, node.args)):
                found.append(node)
        if isinstance(node, ast.Compare) and any(map(numbers, node.comparators)):
            calls = [part.func for part in ast.walk(node.left) if isinstance(part, ast.Call)]
            if any(isinstance(call, ast.Attribute) and call.attr in CLOCKS for call in calls):
                found.append(node)
    return [ast.unparse(node) for node in found]


@pytest.mark.parametrize("name", sorted(path.relative_to(TESTS).as_posix() for path in TESTS.rglob("*.py")))
def test_limits_are_generous(name):
    found = [limit for limit in limits((TESTS / name).read_text(encoding="utf-8")) if limit not in SHORT.get(name, ())]
    pages.none(found, "limits that a busy machine may pass: wait for as long as tests.waiting.PATIENCE")


@pytest.mark.parametrize("name", SHORT)
def test_every_exception_is_in_use(name):
    assert set(SHORT[name]) <= set(limits((TESTS / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("run(line, timeout=60)", ["timeout=60"]),
        ("until(there, seconds=2 * 30)", ["seconds=2 * 30"]),
        ("thread.join(5)", ["thread.join(5)"]),
        ("page.set_default_timeout(60_000)", ["page.set_default_timeout(60000)"]),
        ("assert time.monotonic() - start < 20", ["time.monotonic() - start < 20"]),
        ("run(line, timeout=1000 * PATIENCE)", []),
        ("thread.join(PATIENCE)", []),
        ("' '.join(words[:3])", []),
        ("assert len(found) < 20", []),
    ],
)
def test_a_limit_is_found(source, found):
    assert limits(source) == found


def test_what_does_not_come_is_said():
    with pytest.raises(AssertionError, match="waited in vain"):
        until(lambda: False, seconds=0.1)
    until(iter([False, False, True]).__next__)


class TestOnce:
    def test_who_comes_second_waits_and_makes_nothing(self, tmp_path):
        made = []

        def slowly(place):
            made.append(place)
            until(lambda: waiting)
            (place / "file").write_text("whole", encoding="utf-8")

        waiting, found = [], []

        def second():
            waiting.append(True)
            found.append((once(tmp_path / "x", slowly) / "file").read_text(encoding="utf-8"))

        first = threading.Thread(target=once, args=(tmp_path / "x", slowly))
        first.start()
        until(lambda: made)
        second()
        first.join(PATIENCE)
        assert (made, found) == ([tmp_path / "x"], ["whole"])

    def test_what_was_left_half_made_is_made_again(self, tmp_path):
        def fails(place):
            (place / "half").touch()
            raise OSError

        with pytest.raises(OSError):
            once(tmp_path / "x", fails)
        assert not (once(tmp_path / "x", lambda place: None) / "half").exists()


def test_a_cell_may_take_ten_times_its_budget_and_more():
    options = tomllib.loads((pages.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"][
        "ini_options"
    ]
    assert f"--nbval-cell-timeout={PATIENCE}" in options["addopts"] and PATIENCE >= 10 * CELL
    book = yaml.safe_load((pages.ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert book["execute"]["timeout"] == PATIENCE  # in the build, too
