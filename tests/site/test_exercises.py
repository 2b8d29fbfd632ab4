"""What a page knows of its exercises, and that it judges them as the package does, letter by letter."""

import ast
import dataclasses
import json
import operator
import re
import subprocess
import sys
from pathlib import Path

import exercises
import numpy as np
import pytest

from divergence_notes.grading import check
from divergence_notes.grading.exercise import Mistake
from divergence_notes.grading.kinds import Choice, FindTheBug, Function, Value
from tests.pages import BOOK

KNOWN = exercises.of_the_book()
JUDGED = [name for name, exercise in KNOWN.items() if exercises.judged_without_python(exercise)]


class TestJudgedWithoutPython:
    """A choice, and up to three numbers that are compared; nothing that has to be run or looked at otherwise."""

    def test_of_the_book(self):
        assert len(JUDGED) >= 17
        for name, exercise in KNOWN.items():
            if isinstance(exercise, (Function, FindTheBug)) or getattr(exercise, "judge", None):
                assert name not in JUDGED
            if isinstance(exercise, Choice):
                assert name in JUDGED

    @pytest.mark.parametrize(
        ("right", "few"), [(0.5, True), ([1, 2, 3], True), (np.ones(4), False), ([[1.0]], False), (True, False)]
    )
    def test_up_to_three_numbers_in_a_row(self, right, few):
        assert exercises.judged_without_python(Value("ex-x-y", lambda: right)) is few

    def test_others_have_no_data(self):
        (name, *_) = set(KNOWN) - set(JUDGED)
        with pytest.raises(ValueError, match=f"{name} is not"):
            exercises.data(KNOWN[name])


class TestData:
    """Plain JSON, which holds what the exercise holds."""

    @pytest.mark.parametrize("name", JUDGED)
    def test_numbers_come_back_to_the_last_bit(self, name):
        data = exercises.data(KNOWN[name])
        assert json.loads(json.dumps(data, allow_nan=False)) == data

    def test_the_first_of_two_mistakes_with_one_option_speaks(self):
        twice = Choice("ex-x-y", "A", (Mistake("one", "First", "B"), Mistake("two", "Second", "B")))
        assert exercises.data(twice)["options"]["B"]["said"] == "First."

    def test_many_options_are_typed(self):
        def choice(n):
            return Choice("ex-x-y", "A", tuple(Mistake(letter, "No", letter) for letter in "BCDEFGH"[: n - 1]))

        assert (
            not exercises.data(choice(Choice.buttons))["typed"] and exercises.data(choice(Choice.buttons + 1))["typed"]
        )

    def test_a_right_option_may_depend_on_what_is_drawn(self):
        fixed = Choice("ex-x-y", "A", (Mistake("b", "No", "B"),))
        drawn = dataclasses.replace(fixed, right=lambda n: "A", draw=lambda rng: (1,))
        assert exercises.data(drawn) == exercises.data(fixed)


NODE = Path(sys.executable).with_name("node")
ASK = """
const fs = require("node:fs");
require("node:vm").runInThisContext(fs.readFileSync(process.argv[1], "utf8"));
const { data, asked } = JSON.parse(fs.readFileSync(0, "utf8"));
console.log(JSON.stringify(asked.map(([name, text, tell]) => {
  const { state, message, known } = judge(data[name], text, tell);
  return [state, message, known];
})));
"""


def judged(asked, *, data=None, change=lambda source: source, folder=None):
    """Ask `judge.js`: a name, a text, and whether to tell, for each; return state, message and whether it is known."""
    script = BOOK / "_static" / "judge.js"
    if folder is not None:
        changed = change(script.read_text(encoding="utf-8"))
        assert changed != script.read_text(encoding="utf-8")
        script = folder / "judge.js"
        script.write_text(changed, encoding="utf-8")
    data = data or {name: exercises.data(KNOWN[name]) for name in JUDGED}
    given = json.dumps({"data": data, "asked": asked})
    said = subprocess.run([NODE, "-e", ASK, script], input=given, capture_output=True, text=True, check=True)
    return json.loads(said.stdout)


DOES = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
DOES |= {ast.Pow: operator.pow, ast.USub: operator.neg, ast.UAdd: operator.pos}
NAMED = {"sqrt": np.sqrt, "exp": np.exp, "log": np.log}


def number(node):
    """Return the number that an expression is, in the arithmetic of float64."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return np.float64(value)
        case ast.UnaryOp(op=op, operand=operand):
            return DOES[type(op)](number(operand))
        case ast.BinOp(left=left, op=op, right=right):
            return DOES[type(op)](number(left), number(right))
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
            return NAMED[name](number(argument))
    raise ValueError("no arithmetic")


def as_typed(text, exercise):
    """Return what somebody types into a page as one would hand it to `grading.check`, by Python's own reading."""
    text = text.strip()
    if not text:
        return None
    if isinstance(exercise, Choice):
        for plain in (int, float):
            if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", text, re.ASCII | re.IGNORECASE):
                try:
                    return plain(text)
                except ValueError:
                    continue
        return text
    code = re.sub(r"(?<![\d.e])0+(?=\d)", "", text.replace("^", "**").replace(";", ",").replace("\u2212", "-"))
    try:
        if re.search(r"[^\s\d.,()\[\]*/+a-z-]|\d(?!e[+-]?\d)[a-z]", code, re.ASCII | re.IGNORECASE):
            raise ValueError("no arithmetic")
        tree = ast.parse(code, mode="eval").body
        with np.errstate(all="ignore"):
            return list(map(number, tree.elts)) if isinstance(tree, (ast.Tuple, ast.List)) else number(tree)
    except (SyntaxError, ValueError, KeyError):
        return text


def asked_of(name, rng):
    """Return answers to an exercise: right ones, foreseen ones, near ones, odd ones, and noise made of all of them."""
    exercise, data = KNOWN[name], exercises.data(KNOWN[name])
    texts = [
        "",
        "  ",
        "abc",
        "it's",
        'it\'s "so"',
        "-",
        "()",
        "[]",
        ",",
        "1,",
        "0,5",
        "1 2",
        "1;2",
        "nan",
        "1e400",
        "-1e400",
    ]
    texts += ["\u22121.25", "\u22127", "-1", "-1.25", "-19", "-0.0", "minus 1.2", "Minus  19", "plus 19", "+1.2"]
    texts += ["10-20", "(-7)", "C -69", "- 7", "at -1.25", "terminus 7", "1 -2", "0-7", "\0" + "19", "surplus 10"]
    texts += [
        "the answer is C",
        "a quarter",
        "a b",
        "x" * 40,
        "\u00e4\u00df\u00bd",
        "\u200b",
        "\\",
        "a\tb",
        "\u0663",
        "0/0",
        "1/0",
        "sqrt(-1)",
    ]
    texts += [
        "1/19",
        "9 - sqrt(80)",
        "2**6",
        "-2**2",
        "2^-1",
        "(1+1)*2",
        "[1]",
        "(1)",
        "(1, 2)",
        "[0.5; 0.6]",
        "(1, 2",
        "1 000 000",
        "10,000",
    ]
    texts += [
        "> 10 000",
        "2000000",
        "2e6",
        "2.5e6",
        "0.10",
        "007",
        "+5",
        "-7",
        "123456789012345678901234",
        "1e16",
        "0.00001234",
        "100000.5",
        "1e22",
    ]
    if data["kind"] == "choice":
        ways = [way for option in data["options"] for way in (option, *data["options"][option]["words"])]
        texts += (
            ways
            + [way.upper() for way in ways]
            + [f"{way}!" for way in ways]
            + [f"I think it is {way}" for way in ways]
        )
        texts += [f"{option}. {way}" for option, of in data["options"].items() for way in of["words"]]
        texts += [" and ".join(way.split()[::-1]) for way in ways]
    else:
        (args,) = exercise.sample()
        right = np.asarray(exercise.right(*args), dtype=float)
        rows = [
            right,
            right * (1 + exercise.rtol / 2),
            right * (1 - 2 * exercise.rtol),
            right + 1e-13,
            -right,
            right + 1,
            1e9 * right,
        ]
        rows += [np.asarray(mistake.wrong(*args), dtype=float) for mistake in exercise.mistakes]
        for row in rows:
            texts += [
                repr(row.tolist()),
                ", ".join(map(repr, row.ravel().tolist())),
                "; ".join(f"{x:.3g}" for x in row.ravel()),
            ]
        texts += [way for number, ways in data["phrases"].items() for way in (number, *ways)]
    noise = ["".join(rng.choice(list("".join(texts[20:])), size=int(rng.integers(1, 12)))) for _ in range(60)]
    return list(dict.fromkeys([*texts, *noise]))


STATES = {(True, False): "right", (False, False): "not yet", (False, True): "open"}


@pytest.fixture(scope="module")
def asked():
    rng = np.random.default_rng(20261129)
    return [(name, text, tell) for name in JUDGED for text in asked_of(name, rng) for tell in (False, True)]


@pytest.fixture(scope="module")
def wanted(asked):
    results = [check(name, as_typed(text, KNOWN[name]), tell=tell) for name, text, tell in asked]
    return [(STATES[result.passed, result.open], result.message) for result in results]


class TestJudgedInThePage:
    """The page says of an answer what `grading.check` says of it."""

    def test_says_the_same_letter_by_letter(self, asked, wanted):
        assert len(asked) > 2000
        found = [(state, message) for state, message, _ in judged(asked)]
        different = [
            (*case, ours, theirs) for case, ours, theirs in zip(asked, wanted, found, strict=True) if ours != theirs
        ]
        assert not different, "\n".join(map(repr, different[:20]))

    def test_hears_every_sentence_of_every_exercise(self, wanted):
        """What is compared is not empty: each reason, each insight and each hint comes up."""
        said = " ".join(message for _, message in wanted)
        for name in JUDGED:
            exercise = KNOWN[name]
            for text in (
                exercise.insight,
                getattr(exercise, "hint", ""),
                *(mistake.text for mistake in exercise.mistakes),
            ):
                assert text in said, f"{name}: nobody was told {text!r}"

    def test_an_answer_that_is_none_is_told_so_and_is_no_bet(self, asked):
        for (name, text, _), (state, message, known) in zip(asked, judged(asked), strict=True):
            assert known == (not message.startswith(("Your answer must", "Nothing here yet"))), (name, text)
            assert known or state != "right"

    @pytest.mark.parametrize(
        ("right", "wrong"),
        [
            ("/[02468]$/", "/[13579]$/"),
            ("<= rtol * scale", "<= 2.5 * rtol * scale"),
            ('"them", "think"', '"them"'),
            ("|| alike", ""),
            ('way[0] === ">"', "false"),
            ('eat("**", "^") ? value ** signed()', 'eat("**", "^") ? value * signed()'),
            ("slice(-14)", "slice(-13)"),
            ("mistakes.find", "mistakes.slice(1).find"),
            ('"$1\\0"', '"$1"'),
        ],
    )
    def test_a_fault_in_the_script_is_found(self, asked, wanted, tmp_path, right, wrong):
        said = judged(asked, change=lambda source: source.replace(right, wrong), folder=tmp_path)
        assert [tuple(one[:2]) for one in said] != wanted
