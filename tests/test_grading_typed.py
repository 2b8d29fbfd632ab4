"""Answers that are typed in are told from those that a program makes, in whatever form a person writes them."""

from types import SimpleNamespace

import numpy as np
import pytest

from divergence_notes import grading
from divergence_notes.grading import typed

LITERAL = {
    "x = 12345": 12345,
    "x = -12345": -12345,
    "x = +3": 3,
    "x = 12_345": 12345,
    "x=.5": 0.5,
    "x = 1e-3": 1e-3,
    "x = 10**3": 1000,
    "x = 2**-3": 0.125,
    "x = 1/3": 1 / 3,
    "x = 2 * 0.25": 0.5,
    "x = (1 - 0.2) / (1 + 0.2)": 0.8 / 1.2,
    "x = 7 // 2 + 7 % 2": 4,
    "x = 'B'": "B",
    'x = """B"""': "B",
    "x = 'A' 'C'": "AC",
    "x = (5)": 5,
    "x = (\n    5\n)": 5,
    "x = 5;": 5,
    "x = 5  # not learn(0.01)[2]": 5,
    "# x = learn()\n\n\nx = 5\n\n": 5,
    "x: int = 5": 5,
    "x: int\nx = 5": 5,
    "x = y = 5": 5,
    "y, x = 3, 5": 5,
    "x, y = 5, learn(0.01)[2]": 5,
    "(y, (x, z)) = [3, (5, 4)]": 5,
    "y = 3; x = 5": 5,
    "x = ...\nx = 5": 5,
    "x = 4\nx = 5": 5,
    "x = learn(0.01)[2]\nx = 5": 5,
    "x = 5\nprint(x)\nx": 5,
    "x = 5\ny = x + 1\nassert x == 5": 5,
    "x = 5\n'x = learn()'": 5,
    "print(x := 5)": 5,
    "if True:\n    x = 5": 5,
    "if RUN_IT:\n    x = 5\nelse:\n    x = 5": 5,
    "with open('log') as file:\n    x = 5": 5,
    "try:\n    x = 5\nexcept ValueError:\n    pass": 5,
    "def f():\n    x = learn()\n    return x\nx = 5": 5,
    "x = 5\ndef f(x=learn):\n    x = x()": 5,
    "x = 5\n[x for x in range(3)]": 5,
    "x = [5, [1.0, -0.5], [False, True], 0.9, 2.0]": [5, [1.0, -0.5], [False, True], 0.9, 2.0],
    "x = [5, [1.0] * 3, 2 * [True], 0.9, 2]": [5, [1.0] * 3, [True] * 2, 0.9, 2],
    "x = [1] + [2]": [1, 2],
    "x = (1, 2) * 2": (1, 2, 1, 2),
    "x = {'A', 'B'}": {"A", "B"},
    "x = 5\n\ufeff".replace("\ufeff", ""): 5,
    "x = 5\r\n": 5,
    "\tx = 5".strip(): 5,
}
COMPUTED = {
    "x = learn(0.01)[2]": "learn(0.01)[2]",
    "x = y": "y",
    "y = 5\nx = y": "y",
    "y = x = learn()": "learn()",
    "x = 5\nx += 0": "x += 0",
    "x = 5\nx = x": "x",
    "x = int(5)": "int(5)",
    "x = np.pi": "np.pi",
    "x = -y": "-y",
    "x = 5 + 0 * learn()": "5 + 0 * learn()",
    "x = [5, learn()]": "[5, learn()]",
    "x = [5][0]": "[5][0]",
    "x = 5 if run else 6": "5 if run else 6",
    "x = 5 or learn()": "5 or learn()",
    "x = f'{learn()}'": "f'{learn()}'",
    "x = (lambda: 5)()": "(lambda: 5)()",
    "x = [i for i in (1, 2)]": "[i for i in (1, 2)]",
    "x, y = learn()": "learn()",
    "y, *x = 1, 2, 3": "(1, 2, 3)",
    "x, y = *learn(),": "(*learn(),)",
    "x: int = learn()": "learn()",
    "for x in (5, 6):\n    pass": "(5, 6)",
    "with learn() as x:\n    pass": "learn()",
    "from numpy import pi as x": "from numpy import pi as x",
    "import x": "import x",
    "def x():\n    return 5": "a definition of x",
    "class x:\n    pass": "a definition of x",
    "print(x := learn())": "learn()",
    "x = 5\nif x := learn():\n    pass": "learn()",
    "if learn() > 3:\n    x = 'A'\nelse:\n    x = 'B'": "another answer under another condition",
    "for k in range(3):\n    x = learn(k)": "learn(k)",
    "try:\n    x = learn()\nexcept ValueError:\n    pass": "learn()",
    "match y:\n    case 1:\n        x = 'A'\n    case _:\n        x = 'B'": "another answer under another condition",
    "x = 'A' * 3": "'A' * 3",
    "x = 9**9**9": "9 ** 9 ** 9",
    "x = [0] * 10**9": "[0] * 10 ** 9",
    "x = 1 / 0": "1 / 0",
    "x = 10.0**400": "10.0 ** 400",
    "x = 3j % 2": "3j % 2",
    "x = {[5]}": "{[5]}",
}


class TestFind:
    @pytest.mark.parametrize("source", LITERAL)
    def test_what_a_person_types(self, source):
        found = typed.find("x", [source])
        assert (found, type(found)) == (LITERAL[source], type(LITERAL[source]))

    @pytest.mark.parametrize("source", COMPUTED)
    def test_what_a_program_makes(self, source):
        found = typed.find("x", [source])
        assert isinstance(found, typed.Computed) and found.source == COMPUTED[source]

    @pytest.mark.parametrize("source", ["x = ...", "", "x", "y = 5", "x = )", "x: int", "del x", "\0", "5 = x"])
    def test_what_is_open(self, source):
        assert typed.find("x", [source]) is ...

    def test_the_last_cell_that_says_something_counts(self):
        cells = ["x = learn()", "x = 5", "x = )", "print(x)", "def f():\n    global x\n    x = learn()"]
        assert typed.find("x", cells) == 5 and isinstance(typed.find("x", [*cells, "x = y"]), typed.Computed)

    @pytest.mark.parametrize(
        "source", ["x = " + "-" * 10**5 + "5", "x = " + "(" * 5000 + "5", "x = " + "1+" * 10**5 + "1"]
    )
    def test_what_is_too_deep_ends(self, source):
        found = typed.find("x", ["x = ...", source])
        assert found is ... or isinstance(found, typed.Computed)

    @pytest.mark.parametrize(
        "source", ["%time x = 5", "%%time\nx = 5", "%%capture said\nx = 5", "!ls\nx = 5", "x = 5\nx?"]
    )
    def test_words_for_the_notebook_change_nothing(self, source):
        import IPython  # noqa: F401, in a notebook it is there

        assert typed.find("x", [source]) == 5

    @pytest.mark.parametrize("source", ["%time x = learn()", "%%time\nx = learn()", "x = !ls", "x = %pwd"])
    def test_nor_do_they_hide_anything(self, source):
        import IPython  # noqa: F401, as above

        assert isinstance(typed.find("x", [source]), typed.Computed)

    def test_strange_code_warns_nobody(self):
        assert typed.find("x", ["x = 5\n5()"]) == 5  # warnings are errors here


class TestAnswer:
    def test_what_ran_is_kept_where_nothing_was_typed_in(self):
        found = typed.answer("x", ["x = learn()"], 7)
        assert (found.source, found.value) == ("learn()", 7)

    def test_what_ran_does_not_count_where_something_was(self):
        assert typed.answer("x", ["x = 5", "globals()['x'] = learn()"], 7) == 5

    def test_what_no_cell_assigns(self):
        assert typed.answer("x", ["x = ...", "exec('x = learn()')"], 7).source == "what no cell assigns to it"

    @pytest.mark.parametrize("value", [None, ...])
    def test_what_is_not_there_is_open(self, value):
        assert typed.answer("x", ["x = ..."], value) is ...

    def test_arrays_are_looked_at_by_nobody(self):
        assert isinstance(typed.answer("x", ["x = np.arange(3)"], np.arange(3)), typed.Computed)


@pytest.fixture
def shown():
    """Return how cells are shown to the check."""
    yield typed.look_at
    typed.look_at(None)


class TestTypedIn:
    """What a student is told before handing in."""

    def test_all_there(self, shown):
        shown(["x, y = 3, 'B'"])
        said = grading.typed_in("x", "y")
        assert said.passed and repr(said) == "typed in: Yes: x, y."

    def test_one_is_computed(self, shown):
        shown(["x = 3", "y = learn(0.01)[2]"])
        said = grading.typed_in("x", "y")
        assert not said.passed and not said.open
        assert "y must be typed in" in said.message and "learn(0.01)[2]" in said.message and "earns" in said.message

    def test_one_is_open(self, shown):
        shown(["x = 3", "y = ..."])
        assert grading.typed_in("x", "y").open

    def test_outside_a_notebook(self, monkeypatch):
        import IPython

        monkeypatch.setattr(IPython, "get_ipython", lambda: None)
        assert "outside a notebook" in grading.typed_in("x").message

    def test_in_a_notebook_it_looks_at_what_was_run(self, monkeypatch):
        import IPython

        run = ["", "x = learn()", "x = 5", "print(x)"]
        monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(user_ns={"In": run}))
        assert grading.typed_in("x").passed
        run.append("x = y")
        assert not grading.typed_in("x").passed

    def test_a_check_says_it_too(self):
        said = grading.check("ex-bellman-prediction", typed.Computed("why", "best()"))
        assert not said.passed and not said.open and "best()" in said.message

    def test_which_names_are_asked_for(self):
        assert typed.asked('print(grading.typed_in("x", "y"))\ntyped_in("z")\nother("w")') == ["x", "y"]
