"""What a cell defines, takes and changes, and which cells run before it."""

import ast
import itertools

import nbformat
import pytest
from live_cells import changes, names, page, sources_of

from tests.pages import NUMBERED, code_cells, none, tags

TRICKY = {
    # code: (defines, takes, changes)
    "x = y": ({"x"}, {"y"}, set()),
    "x = x + 1": ({"x"}, {"x"}, set()),
    "x += 1": ({"x"}, {"x"}, set()),
    "x: int = y": ({"x"}, {"y"}, set()),
    "x: int": (set(), set(), set()),
    "x = 1\nx += 1\nprint(x)": ({"x"}, set(), set()),
    "a, (b, *c) = d": ({"a", "b", "c"}, {"d"}, set()),
    "x.size = 1": (set(), {"x"}, {"x"}),
    "x.a[0].b += y": (set(), {"x", "y"}, {"x"}),
    "x[i] = 1": (set(), {"x", "i"}, {"x"}),
    "x[0], y = 1, 2": ({"y"}, {"x"}, {"x"}),
    "x = [1]\nx[0] = 2": ({"x"}, set(), {"x"}),
    "del x": (set(), {"x"}, {"x"}),
    "x = 1\ndel x\nprint(x)": ({"x"}, {"x"}, {"x"}),
    "del x[0]": (set(), {"x"}, {"x"}),
    "x.append(1)": (set(), {"x"}, {"x"}),
    "y = x.mean()": ({"y"}, {"x"}, set()),
    "print(x.mean())": (set(), {"x"}, set()),
    "np.fill_diagonal(x, 0)": (set(), {"np", "x"}, {"np", "x"}),
    "y = np.exp(z, out=x)": ({"y"}, {"np", "x", "z"}, {"x"}),
    "import a.b": ({"a"}, set(), set()),
    "import a.b as c": ({"c"}, set(), set()),
    "from a import b as c, d": ({"c", "d"}, set(), set()),
    "[x for x in y]": (set(), {"y"}, set()),
    "x = [x for x in x]": ({"x"}, {"x"}, set()),
    "[x + z for x in y if x for z in x]": (set(), {"y"}, set()),
    "{k: v for k, v in y}": (set(), {"y"}, set()),
    "[(z := x) for x in y]\nprint(z)": ({"z"}, {"y", "z"}, set()),
    "if (n := f()) > 1:\n    print(n)": ({"n"}, {"f"}, set()),
    "for x in y:\n    pass\nprint(x)": ({"x"}, {"y"}, set()),
    "for x in y:\n    z = x": ({"x", "z"}, {"y"}, set()),
    "while c:\n    c = f(c)": ({"c"}, {"c", "f"}, set()),
    "if c:\n    x = 1": ({"x"}, {"c", "x"}, set()),
    "if c:\n    x = 1\nprint(x)": ({"x"}, {"c", "x"}, set()),
    "if c:\n    x = 1\nelse:\n    x = 2\nprint(x)": ({"x"}, {"c"}, set()),
    "try:\n    x = f()\nexcept E as e:\n    print(e)\nprint(x)": ({"x"}, {"f", "E", "x"}, set()),
    "with f() as g:\n    h = g": ({"g", "h"}, {"f"}, set()),
    "with f() as x[0]:\n    pass": (set(), {"f", "x"}, {"x"}),
    "def f(a, b=c):\n    return a + d": ({"f"}, {"c", "d"}, set()),
    "def f():\n    x = 1\n    return x + y": ({"f"}, {"y"}, set()),
    "def f():\n    return f()": ({"f"}, set(), set()),
    "def f():\n    x = 1\n    def g():\n        nonlocal x\n        x = y\n    return g": ({"f"}, {"y"}, set()),
    "def f():\n    global x\n    x = y": ({"f", "x"}, {"x", "y"}, set()),
    "def f():\n    x[0] = 1": ({"f"}, {"x"}, set()),
    "f = lambda a: a + b": ({"f"}, {"b"}, set()),
    "@d\nclass A(B):\n    c = 1\n    e = c\n    def f(self):\n        return g": ({"A"}, {"d", "B", "g"}, set()),
    "match x:\n    case {'a': y, **z}:\n        print(y, w)\n    case [p, *q]:\n        pass": (
        {"y", "z", "p", "q"},
        {"x", "w", "y", "z", "p", "q"},
        set(),
    ),
    "x = f'{y:{z}}'": ({"x"}, {"y", "z"}, set()),
    "print(len(x))": (set(), {"x"}, set()),
    "len = 1\nlen": ({"len"}, set(), set()),
}


@pytest.mark.parametrize(("source", "found"), TRICKY.items(), ids=list(TRICKY))
def test_names_of_a_cell(source, found):
    one = names(source)
    assert (one.defines, one.takes, one.changes) == found


def needed(sources, at):
    """Return the numbers of the cells that run before one, whatever has run."""
    takes = sources_of(sources)
    found, todo = set(), [at]
    while todo:
        for makers in takes[todo.pop()].values():
            todo += [one for one in makers if one not in found]
            found |= set(makers)
    return sorted(found)


PAGES = {
    "the last that binds a name": (["x = 1", "x = 2", "y = x"], 2, [1]),
    "through others": (["x = 1", "z = 9", "y = x", "w = y"], 3, [0, 2]),
    "and those that change it": (["x = [1]", "x.append(2)", "x[0] = 5", "z = 1", "y = x"], 4, [0, 1, 2]),
    "what came before it was bound anew does not count": (["x = [1]", "x.append(2)", "x = []", "y = x"], 3, [2]),
    "what a function asks for when it is called": (
        ["def f():\n    return k", "k = 3", "k = 4", "y = f()"],
        3,
        [0, 2],
    ),
    "of two functions, one through the other": (
        ["def f():\n    return g()", "k = 3", "def g():\n    return k", "y = f()"],
        3,
        [0, 1, 2],
    ),
    "perhaps bound": (["x = 1", "if False:\n    x = 2", "y = x"], 2, [0, 1]),
    "added to": (["x = 1", "x += 1", "y = x"], 2, [0, 1]),
    "written by a function": (["x = 1", "def f():\n    global x\n    x = 2", "f()", "y = x"], 3, [0, 1, 2]),
    "changed by a function": (["x = [1]", "def f():\n    x[0] = 2", "f()", "y = x"], 3, [0, 1, 2]),
    "a generator that others have drawn from": (
        ["import numpy as np", "r = np.random.default_rng(1)", "a = r.random()", "b = 1", "y = r.random()"],
        4,
        [0, 1, 2],
    ),
}


class TestWhatRunsBefore:
    """A cell gives what it gives in order, after the cells that it needs alone: shown by running both."""

    @pytest.mark.parametrize(("sources", "at", "before"), PAGES.values(), ids=PAGES)
    def test_which(self, sources, at, before):
        assert needed(sources, at) == before

    @pytest.mark.parametrize(("sources", "at"), [(sources, at) for sources, at, _ in PAGES.values()], ids=PAGES)
    def test_they_suffice(self, sources, at):
        whole, part = {}, {}
        for source in sources[: at + 1]:
            exec(source, whole)
        for one in [*needed(sources, at), at]:
            exec(sources[one], part)
        last = "y" if at != 3 or "w" not in whole else "w"
        assert part[last] == whole[last]

    def test_a_generator_of_numpy_is_changed_by_whoever_uses_it(self):
        sources = [
            "import numpy as np",
            "rng = np.random.default_rng(0)",
            "a = draw(rng)",
            "b = rng.normal()",
            "y = rng.normal()",
        ]
        assert needed(sources, 4) == [0, 1, 2, 3]
        assert changes(sources)[2:] == [{"rng"}] * 3

    def test_drawing_does_not_change_a_module(self):
        sources = ["import plt", "plt.plot(1)", "plt.show()"]
        assert needed(sources, 2) == [0]


class TestOfTheBook:
    """What is said of the chapters."""

    @pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
    def test_every_name_that_is_taken_is_made(self, path):
        """But for a name of Python or of a notebook, a cell takes nothing that no cell before it binds."""
        cells = page(nbformat.read(path, as_version=4))
        left = [
            (cell["id"], name)
            for cell in cells
            for name in names(cell["source"]).takes - cell["takes"].keys() - {"display", "__name__"}
            if name not in names(cell["source"]).defines
        ]
        none(left, "names that no cell before this one binds")

    @pytest.mark.parametrize("name", ["bellman", "contraction", "preqn"])
    def test_what_is_tabular_runs_whole(self, name):
        path = next(path for path in NUMBERED if path.stem == name)
        assert {cell["asks"] for cell in page(nbformat.read(path, as_version=4))} == {""}

    @pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
    def test_what_comes_before_torch_runs(self, path):
        """The first cell imports no torch, or nothing of the chapter would run in the page."""
        cells = page(nbformat.read(path, as_version=4))
        assert cells[0]["asks"] == "" and sum(not cell["asks"] for cell in cells) > 3

    def test_nothing_that_needs_torch_is_offered(self):
        """By another route: the text of what is offered, and of what it needs, does not say torch."""
        for path in NUMBERED:
            cells = page(nbformat.read(path, as_version=4))
            for at, cell in enumerate(cells):
                if not cell["asks"]:
                    texts = [cells[one]["source"] for one in [*needed([c["source"] for c in cells], at), at]]
                    imported = [
                        node
                        for text in texts
                        for node in ast.walk(ast.parse(text))
                        if isinstance(node, (ast.Import, ast.ImportFrom))
                    ]
                    words = set(
                        itertools.chain.from_iterable(ast.unparse(node).replace(",", " ").split() for node in imported)
                    )
                    assert not words & {"torch", "ntk", "networks", "replay", "training", "preqn", "dqn"}

    def test_hidden_cells_are_said_to_be(self):
        for path in NUMBERED:
            cells = page(nbformat.read(path, as_version=4))
            assert [cell["hidden"] for cell in cells] == ["remove-cell" in tags(cell) for cell in code_cells(path)]
