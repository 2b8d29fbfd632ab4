"""What runs the cells of a page, asked in this Python: streams, last expressions, figures, verdicts, errors."""

import base64
import hashlib
import io
import json
import re
import sys
import types

import kernel.runner
import live_files
import matplotlib.pyplot as plt
import nbformat
import PIL.Image
import pytest
from kernel.runner import AT_ONCE, CUT, LARGEST, LONGEST, WIDEST, OnDemand, Runner, ends_with_semicolon, stubs

from divergence_notes import grading
from tests import pages


class Heard(Runner):
    """A runner that keeps what it says."""

    def __init__(self):
        self.said = []
        super().__init__(lambda text: self.said.append(json.loads(text)))

    def ask(self, source, **options):
        """Run a cell; return whether it went well, and {type: data} of what it said, pieces of a stream joined."""
        self.said.clear()
        ok = self.run(source, "cell 1", **options)
        found = {}
        for message in self.said:
            kind, data = message["type"], message["data"]
            found[kind] = found[kind] + data if kind in found and isinstance(data, str) else data
        return ok, found


@pytest.fixture
def runner():
    before = sys.stdout, sys.stderr
    plt.close("all")  # what a test before has left open would be shown by the first cell
    yield Heard()
    assert (sys.stdout, sys.stderr) == before
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("1 + 1", {"text": "2"}),
        ("print('a', 1)\n3", {"out": "a 1\n", "text": "3"}),
        ("import sys\nprint('a', file=sys.stderr)", {"err": "a\n"}),
        ("x = 1", {}),
        ("None", {}),
        ("1;", {}),
        ("1;  # why", {}),
        ("'a;'", {"text": "'a;'"}),
        ("1  # a;", {"text": "1"}),
        ("", {}),
        ("# nothing", {}),
        ("display(1, 'b')", {"text": "1'b'"}),
    ],
)
def test_says_what_a_notebook_shows(runner, source, said):
    assert runner.ask(source) == (True, said)


def test_names_stay_unless_the_cell_is_fresh(runner):
    assert runner.ask("x = 1") == (True, {})
    assert runner.ask("x") == (True, {"text": "1"})
    assert runner.ask("_ + 1") == (True, {"text": "2"})
    ok, said = runner.ask("x", fresh=True)
    assert not ok and said["error"]["short"] == "NameError: name 'x' is not defined"
    assert runner.ask("x = 5; y = 6", fresh=True)[0]
    assert runner.ask("x") == (True, {"text": "1"})
    assert not runner.ask("y")[0]


def test_a_table_is_html(runner):
    ok, said = runner.ask("import pandas as pd\npd.DataFrame({'gamma': [0.5]})")
    assert ok and set(said) == {"html"} and "<th>gamma</th>" in said["html"]
    assert set(runner.ask("pd.DataFrame")[1]) == {"text"}, "a class has no table"


def test_what_has_a_bundle_of_forms_is_html(runner):
    """A plane of Q has no other form for a page, and a bundle may have a second part."""
    ok, said = runner.ask("from divergence_notes import examples, widgets\nwidgets.plane(examples.w_to_2w(0.9))")
    assert ok and 'class="dn-plane" data-plane=' in said["html"]
    forms = "class Forms:\n    def _repr_mimebundle_(self, **_):\n        return {'text/html': '<b>one</b>'}, {}\n"
    assert runner.ask(f"{forms}Forms()") == (True, {"html": "<b>one</b>"})


def test_figures_come_at_the_end_each_once_and_the_same_each_time(runner):
    source = "import matplotlib.pyplot as plt\nfor n in (1, 2):\n    plt.subplots()[1].plot([0, n])\nprint('after')"
    ok = runner.run(source, "cell")
    kinds = [message["type"] for message in runner.said]
    assert ok and kinds[-2:] == ["svg", "svg"] and set(kinds[:-2]) == {"out"}
    drawn = runner.said[-1]["data"]
    assert drawn.startswith("<svg") and drawn.rstrip().endswith("</svg>") and "<dc:date>" not in drawn
    assert runner.ask("plt.subplots()[0]")[1]["svg"].count("<svg") == 1, "a figure that is also the last expression"
    assert runner.ask("plt.subplots()\n1 / 0")[1].keys() == {"error"}
    assert runner.ask("1") == (True, {"text": "1"}), "what a failed cell had begun is not shown by the next"


def test_a_slider_brings_its_state(runner):
    ok, said = runner.ask("import ipywidgets\nipywidgets.IntSlider(3)")
    assert ok and set(said) == {"widget"}
    [view] = said["widget"]["view_specs"]
    assert said["widget"]["manager_state"]["state"][view["model_id"]]["state"]["value"] == 3


class TestVerdicts:
    NAME = "ex-bellman-shift"
    ASK = f"from divergence_notes import grading\ngrading.check('{NAME}', answer)"

    def test_right(self, runner):
        right = grading.find(self.NAME).right
        runner.main.answer = right
        ok, said = runner.ask(self.ASK)
        result = grading.check(self.NAME, right)
        assert ok and said["verdict"]["passed"] and said["verdict"]["message"] == result.message
        assert said["verdict"]["text"] == repr(result)

    def test_wrong_with_a_diagnosis(self, runner):
        mistake = grading.find(self.NAME).mistakes[0]
        runner.main.answer = mistake.wrong
        said = runner.ask(self.ASK)[1]["verdict"]
        assert not said["passed"] and not said["open"] and said["diagnosis"] == mistake.name
        assert mistake.text in said["message"]

    def test_open(self, runner):
        said = runner.ask("def answer(c, mdp):\n    ...\n" + self.ASK)[1]["verdict"]
        assert said["open"] and not said["passed"]

    def test_a_fault_names_its_line(self, runner):
        source = f"def answer(c, mdp):\n    return c / 0\n{self.ASK}"
        assert "line 2 of answer: return c / 0" in runner.ask(source, fresh=True)[1]["verdict"]["message"]

    def test_what_is_no_result_is_no_verdict(self, runner):
        assert set(runner.ask("import types\ntypes.SimpleNamespace(passed=True)")[1]) == {"text"}


class TestErrors:
    @pytest.mark.parametrize(
        ("source", "short", "line"),
        [
            ("x = 1\n1 / 0", "ZeroDivisionError: division by zero", 2),
            ("def f():\n    return g()\n\nf()", "NameError: name 'g' is not defined", 2),
            ("x = (", "SyntaxError: '(' was never closed", 1),
            ("raise KeyboardInterrupt", "KeyboardInterrupt", 1),
            ("try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('no') from e", "ValueError: no", 4),
        ],
    )
    def test_told_without_our_frames(self, runner, source, short, line):
        ok, said = runner.ask(source)
        assert not ok and set(said) == {"error"}
        assert (said["error"]["short"], said["error"]["line"]) == (short, line)
        assert "runner.py" not in said["error"]["text"] and "cell 1" in said["error"]["text"]
        assert source.splitlines()[line - 1].strip() in said["error"]["text"]

    def test_what_was_printed_before_is_kept(self, runner):
        assert runner.ask("print(1)\n1 / 0")[1]["out"] == "1\n"


class TestTooMuch:
    """What a cell prints comes in pieces that a page can follow, in order, and ends where nobody would read on."""

    def test_a_line_of_ten_million_letters_is_cut_with_a_sentence(self, runner):
        ok, said = runner.ask("print('x' * 10**7)\nprint('later')")
        assert ok and said["out"] == "x" * LONGEST + CUT and "not shown" in CUT
        assert runner.ask("print('next')") == (True, {"out": "next\n"}), "the next cell prints again"

    def test_a_hundred_thousand_letters_are_not_cut(self, runner):
        assert runner.ask(f"print('x' * {LONGEST - 1})")[1]["out"] == "x" * (LONGEST - 1) + "\n"

    def test_a_last_expression_is_cut(self, runner):
        assert runner.ask("'x' * 10**7")[1]["text"] == "'" + "x" * (LONGEST - 1) + CUT

    def test_many_lines_are_few_messages(self, runner):
        ok, said = runner.ask("for i in range(10**5):\n    print(i)")
        assert ok and len(runner.said) < AT_ONCE + 100
        assert said["out"] == "".join(f"{i}\n" for i in range(10**5))[:LONGEST] + CUT

    def test_the_first_lines_come_one_by_one(self, runner):
        runner.run("print(1)\nprint(2)", "cell")
        assert [message["data"] for message in runner.said] == ["1", "\n", "2", "\n"]

    def test_streams_and_values_keep_their_order(self, runner):
        source = "import sys\nfor i in range(300):\n    print(i, file=(sys.stdout, sys.stderr)[i % 2])\n"
        assert runner.run(f"{source}display('d')\nprint('after')\n1", "cell")
        kinds = [message["type"] for message in runner.said]
        assert kinds[-3:] == ["text", "out", "text"] and kinds.index("text") == len(kinds) - 3
        lines = "".join(message["data"] for message in runner.said[:-3]).split("\n")
        assert lines == [*map(str, range(300)), ""]
        for kind, first in (("out", 0), ("err", 1)):
            said = "".join(message["data"] for message in runner.said[:-3] if message["type"] == kind)
            assert said == "".join(f"{i}\n" for i in range(first, 300, 2))

    def test_the_last_lines_come_at_the_end(self, runner):
        assert runner.ask("for i in range(300):\n    print(i)") == (
            True,
            {"out": "".join(f"{i}\n" for i in range(300))},
        )

    def test_what_was_printed_before_an_error_comes_before_it(self, runner):
        assert not runner.run("for i in range(300):\n    print(i)\n1 / 0", "cell")
        assert runner.said[-1]["type"] == "error" and runner.said[-2]["data"].endswith("299\n")

    def test_a_figure_of_many_points_is_pixels(self, runner, monkeypatch):
        """Planted: a limit that a line of two points is above."""
        source = "import matplotlib.pyplot as plt\nplt.figure(figsize=(400, 300)).add_subplot().plot([0, 1]);"
        drawn = runner.ask(source)[1]["svg"]
        assert "<image" not in drawn and len(drawn) < LARGEST
        monkeypatch.setattr(kernel.runner, "LARGEST", 1000)
        picture = runner.ask(source)[1]["svg"]
        head, _, data = picture.partition("base64,")
        assert head.startswith("<svg xmlns=") and picture.endswith("</svg>")
        image = PIL.Image.open(io.BytesIO(base64.b64decode(data.partition('"')[0])))
        assert WIDEST / 2 < max(image.size) <= WIDEST
        width, height = (int(found) for found in re.findall(r'(?:width|height)="(\d+)pt"', head)[:2])
        assert 72 * 400 == max(width, height) and abs(width / height - image.size[0] / image.size[1]) < 1e-3


class TestWhatAPageHasNot:
    """It is said in a sentence, and the next cell runs."""

    @pytest.mark.parametrize("fresh", [True, False])
    def test_a_line_to_type_into(self, runner, fresh):
        ok, said = runner.ask("input('n? ')", fresh=fresh)
        assert not ok and said["error"]["short"].startswith("RuntimeError: a page has no line to type into")
        assert said["error"]["line"] == 1

    @pytest.mark.parametrize(
        "source", ["raise SystemExit", "import sys\nsys.exit(3)", "exit_ = SystemExit(2)\nraise exit_"]
    )
    def test_a_process_to_end(self, runner, source):
        ok, said = runner.ask(f"print('before')\n{source}")
        assert not ok and said["out"] == "before\n"
        assert said["error"]["short"] == "SystemExit: the cell ended here, and Python runs on"
        assert said["error"]["line"] == len(source.splitlines()) + 1
        assert runner.ask("1") == (True, {"text": "1"})

    def test_a_module(self, runner):
        error = runner.ask("import nowhere_at_all.deep")[1]["error"]
        expected = "ModuleNotFoundError: No module named 'nowhere_at_all' here. "
        expected += "What a page cannot import runs in JupyterLab or Colab"
        assert error["short"] == expected and error["text"].rstrip().endswith(expected)

    def test_a_name_of_python_that_a_cell_takes_is_back_in_a_fresh_one(self, runner):
        """An answer that names something `print` or `grading` changes nothing for the next."""
        assert runner.ask("print = grading = np = 3", fresh=True)[0]
        ok, said = runner.ask(
            "import numpy as np\nprint(np.ones(1)[0])\nfrom divergence_notes import grading", fresh=True
        )
        assert (ok, said) == (True, {"out": "1.0\n"})


class TestHiddenCells:
    CELL = "def check():\n    assert False\n\nfor x in range(2):\n    assert x == 7, x\ncheck()\nassert x == 7"

    def test_punish_nobody(self, runner):
        assert runner.ask(self.CELL, hidden=True) == (True, {})
        assert runner.ask("x") == (True, {"text": "1"})

    def test_a_cell_that_is_seen_checks(self, runner):
        ok, said = runner.ask(self.CELL)
        assert not ok and said["error"]["short"] == "AssertionError: 0"

    def test_of_the_book_define_the_same_names(self):
        """No name that a later cell may need comes from inside an assert."""
        for path in pages.NOTEBOOKS:
            for cell in nbformat.read(path, as_version=4).cells:
                if "remove-cell" in cell.metadata.get("tags", []):
                    asserts = [line for line in cell.source.splitlines() if line.lstrip().startswith("assert")]
                    pages.none([line for line in asserts if ":=" in line], f"{path.name} names in an assert")


def test_stubs_are_enough_for_who_asks():
    shown = []
    modules = stubs(shown.append)
    assert modules["IPython.core.interactiveshell"].InteractiveShell.initialized() is False
    assert modules["IPython"].display is modules["IPython.display"]
    modules["IPython"].display.display(modules["IPython.display"].HTML("<b>1</b>"))
    assert shown[0]._repr_html_() == "<b>1</b>"
    assert isinstance(modules["_multiprocessing"], types.ModuleType)


def test_a_semicolon_ends_code_and_nothing_else():
    assert ends_with_semicolon("1;\n\n# after") and not ends_with_semicolon("';'") and not ends_with_semicolon("")


class TestOnDemand:
    """A package comes when it is imported, and what it imports comes with it."""

    @pytest.fixture
    def bring(self, tmp_path, monkeypatch):
        made = {
            "planted_top": live_files.wheel("planted-top", "1", {"planted_top/__init__.py": b"import planted_deep"}),
            "planted_deep": live_files.wheel("planted-deep", "1", {"planted_deep.py": b"x = 1"}),
            "planted_other": live_files.wheel("planted-other", "1", {"planted_other.py": b""}),
        }
        asked = []

        def fetch(file):
            asked.append(file)
            return dict(made.values())[file]

        def bring(wrong=None):
            sums = {name: hashlib.sha256(data).hexdigest() for name, (_, data) in made.items()}
            finder = OnDemand({name: [made[name][0], wrong or sums[name]] for name in made}, str(tmp_path), fetch)
            monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, finder])
            return asked

        monkeypatch.syspath_prepend(tmp_path)
        yield bring
        for name in [name for name in sys.modules if name.startswith("planted_")]:
            del sys.modules[name]

    def test_each_once_and_no_other(self, bring, runner):
        asked = bring()
        assert runner.ask("import planted_top\nplanted_top.planted_deep.x") == (True, {"text": "1"})
        assert runner.ask("import planted_deep, planted_top, json")[0]
        assert asked == ["planted_top-1-py3-none-any.whl", "planted_deep-1-py3-none-any.whl"]

    def test_a_file_that_is_another_is_not_imported(self, bring, runner):
        bring(wrong="0" * 64)
        ok, said = runner.ask("import planted_deep")
        assert not ok and "planted_deep-1-py3-none-any.whl is not what it should be" in said["error"]["short"]
        assert not runner.ask("import planted_deep")[0], "nor the second time"

    def test_what_nobody_has_is_missing_as_ever(self, bring, runner):
        assert bring() == []
        assert runner.ask("import planted_nowhere")[1]["error"]["short"].startswith("ModuleNotFoundError")
