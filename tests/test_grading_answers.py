"""Answers as people give them: what is right passes in every form, what is odd gets a sentence, and no number is told.

Everything here is asked of every exercise that comes with the package.
"""

import decimal
import functools
import importlib
import itertools
import math
import pkgutil
import re
import types
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch

from divergence_notes import examples, grading, networks, ntk
from divergence_notes.grading import (
    Choice,
    Compared,
    Function,
    Mistake,
    Value,
    check,
    comparison,
    kinds,
    phrases,
    registry,
)
from divergence_notes.mdp import FiniteMDP
from tests import pages

EXERCISES = {exercise.name: exercise for chapter in registry.CHAPTERS for exercise in registry.of_chapter(chapter)}
VALUES = [name for name, exercise in EXERCISES.items() if isinstance(exercise, Value) and exercise.judge is None]
JUDGED = [name for name, exercise in EXERCISES.items() if isinstance(exercise, Compared) and exercise.judge is not None]
FUNCTIONS = [name for name, exercise in EXERCISES.items() if isinstance(exercise, Function)]
CHOICES = [name for name, exercise in EXERCISES.items() if isinstance(exercise, Choice)]


def right_value(name):
    """Return the right answer of a value exercise."""
    exercise = EXERCISES[name]
    return exercise.right(*exercise.sample()[0])


def test_each_is_asked_something():
    assert sorted(VALUES + JUDGED + FUNCTIONS + CHOICES) == sorted(EXERCISES)
    assert min(map(len, (VALUES, JUDGED, FUNCTIONS, CHOICES))) >= 6


# --- a hint before the number


def tokens(text):
    """Return the numbers that a text holds, and the values of the sums, products and quotients that it writes out."""
    plain = [float(found) for found in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)?", text)]
    terms = re.findall(r"\d+(?:\.\d+)?(?:\s*[-+*/]\s*\d+(?:\.\d+)?)+", text)
    written = [eval(term) for term in terms if not re.search(r"/\s*0(?![.\d])", term)]
    return plain + written


def gives_away(text, right, tried):
    """Return the numbers of a text that are the right one in some rounding, or make it of the number that was tried."""
    found = []
    for number, wanted in itertools.product(tokens(text), np.ravel(right).astype(float)):
        roundings = {float(f"{wanted:.{digits}g}") for digits in range(2, 8)} | {float(wanted)}
        if any(math.isclose(number, rounded, rel_tol=1e-9) for rounded in roundings):
            found.append(number)
        for mine in np.ravel(tried).astype(float):
            made = [mine * number, mine / number] if number not in (0, 1) else []
            found += [number for value in made if mine and math.isclose(value, wanted, rel_tol=1e-3)]
    return found


def tries(name):
    """Return wrong answers to a value exercise: those that are foreseen, and others around the right one."""
    exercise, right = EXERCISES[name], np.asarray(right_value(name), dtype=float)
    args = exercise.sample()[0]
    foreseen = [np.asarray(mistake.wrong(*args), dtype=float) for mistake in exercise.mistakes]
    far = (0.0, 0.3, 0.5, 0.9, 0.99, 1.01, 1.1, 2.0, 7.0, 100.0, -1.0)
    around = [right * factor for factor in far if abs(factor - 1) > 1.1 * exercise.rtol]
    around += [right + 1, right - 1, right + np.eye(right.size)[0].reshape(right.shape)] if right.size else []
    return foreseen + around


class TestHints:
    """A value that is wrong is hinted at, and the right one told only to who asks."""

    @pytest.mark.parametrize("name", VALUES)
    def test_the_first_answers_do_not_tell(self, name):
        right = right_value(name)
        for tried in tries(name):
            message = check(name, tried).message
            assert not check(name, tried).passed and len(message) > 15
            assert gives_away(message, right, tried) == [], (tried, message)
            assert " right is " not in message and "is right" not in message

    @pytest.mark.parametrize("name", VALUES)
    def test_who_asks_is_told(self, name):
        right = np.ravel(right_value(name))
        for tried in tries(name):
            message = check(name, tried, tell=True).message
            assert any(f"where {wanted:.6g} is right" in message for wanted in right)

    @pytest.mark.parametrize("name", VALUES)
    def test_there_is_a_hint_and_the_way_to_be_told(self, name):
        result = check(name, np.asarray(right_value(name), dtype=float) * 1.37)
        assert result.diagnosis is None and EXERCISES[name].hint in result.message and "tell=True" in result.message
        assert "too large" in result.message and EXERCISES[name].hint.endswith(("?", "."))

    @pytest.mark.parametrize("name", CHOICES)
    def test_a_choice_tells_its_letter_only_on_request(self, name):
        exercise = EXERCISES[name]
        for mistake in exercise.mistakes:
            assert f"Right is {exercise.right}." in check(name, mistake.wrong, tell=True).message
            assert "Right is" not in check(name, mistake.wrong).message

    @pytest.mark.parametrize(
        ("text", "right", "tried"),
        [
            ("0.5 where 1.1111 is right", 1 / 0.9, 0.5),
            ("It is about 1.1", 1 / 0.9, 0.5),
            ("It is 1 / 0.9", 1 / 0.9, 0.5),
            ("Each has one part in 999 of it", 1 / 199 / 999, 1 / 199),
            ("It is 5.03e-06", 1 / 199 / 999, 0.1),
            ("It is 4", 4.0, 7.0),
        ],
    )
    def test_the_test_sees_what_tells(self, text, right, tried):
        assert gives_away(text, right, tried)
        assert not gives_away("Row 2 is too large; alpha K_11 counts, too", right, tried)

    @pytest.mark.parametrize("right", [0.520540, -12.1648, 1e-4, 3e8])
    @pytest.mark.parametrize("off", [1.3e-6, 2e-5, 1e-3, 0.5])
    def test_two_numbers_never_look_the_same(self, right, off):
        grading.register(Function("class-near", lambda: right, instances=1))
        wrong = right * (1 + off)
        message = check("class-near", lambda: wrong, seed="secret").message
        found, wanted = re.fullmatch(r"Not right: (\S+) where (\S+) is right\.", message).groups()
        assert float(found) == pytest.approx(wrong, rel=1e-5) and found != wanted
        assert off < 1e-4 or (found, wanted) == (f"{wrong:.6g}", f"{right:.6g}")

    def test_of_a_class_it_tells_nothing_either(self):
        grading.register(Value("class-number", lambda x: 3 * x, (), draw=lambda rng, x: (x,)))
        result = check("class-number", 5.0, given={"x": 2.0}, seed="secret")
        assert result.message == "Not right: your number is too small."


class TestInsight:
    """Who is right hears what it is good for."""

    @pytest.mark.parametrize("name", EXERCISES)
    def test_is_a_sentence(self, name):
        insight = EXERCISES[name].insight
        assert insight.endswith(".") and insight.count(" ") >= 8 and not insight.startswith("Yes")
        given = EXERCISES[name].right if name not in VALUES + JUDGED or name in FUNCTIONS else right_value(name)
        result = check(name, given)
        assert result.passed and result.message.startswith(insight)


# --- the instance on which a function fails


class TestInstance:
    """A function that fails is shown where, unless the instances are those of a hidden test."""

    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_the_smallest_is_shown(self, name):
        exercise = EXERCISES[name]
        sizes = [kinds._size(args) for args in exercise.sample()]
        result = check(name, lambda *args: np.asarray(exercise.right(*args)) * 1.5 + 3)
        assert not result.passed and kinds._size(result.arguments) == min(sizes)
        assert "That was with " in result.message
        again = np.asarray(exercise.right(*result.arguments))
        assert f"{np.ravel(again)[0]:.6g} is right" in result.message

    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_also_of_a_foreseen_mistake_and_of_an_error(self, name):
        def breaks(*args):
            raise KeyError("a slip")

        for answer in (EXERCISES[name].mistakes[0].wrong, breaks, lambda *args: "text"):
            result = check(name, answer)
            assert "That was with " in result.message and result.arguments

    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_of_a_hidden_one_nothing_is(self, name):
        def breaks(*args):
            raise KeyError("a slip")

        off = lambda *args: np.asarray(EXERCISES[name].right(*args)) * 1.5 + 3  # noqa: E731
        for answer in (EXERCISES[name].mistakes[0].wrong, breaks, lambda *args: "text", off):
            result = check(name, answer, seed="secret")
            assert "That was with" not in result.message and result.arguments == ()

    def test_long_arguments_are_described(self):
        draw = lambda rng: (np.zeros((9, 9)), np.eye(2), 3, 0.1, {"a": 1}, examples.full_data_divergence().update.mdp)  # noqa: E731
        right = lambda big, small, n, x, other, mdp: 1.0  # noqa: E731
        grading.register(Function("ex-long", right, (), draw=draw, instances=1))
        said = "big = an array of shape (9, 9), small = [[1., 0.], [0., 1.]], n = 3, x = 0.1, other = {'a': 1}, "
        said += "mdp = a game of 1 states, 2 actions and gamma = 0.9"
        assert said in check("ex-long", lambda *args: 2.0).message


# --- odd answers


class Hostile:
    """Refuses whatever it is asked."""

    def __array__(self, *_, **__):
        raise RuntimeError("no array")

    def __eq__(self, other):
        raise RuntimeError("no comparison")

    def __repr__(self):
        raise RuntimeError("no name")

    __hash__ = None


def itself():
    """Return a list that holds itself."""
    loop = []
    loop.append(loop)
    return loop


ODD = {
    "nan": math.nan,
    "inf": math.inf,
    "minus inf": -math.inf,
    "nan array": np.full((2, 2), np.nan),
    "empty text": "",
    "text": "I do not know",
    "percent": "37.77 %",
    "expression": "sqrt(17) + 0.0123",
    "name": "theta",
    "bytes": b"12",
    "true": True,
    "false": np.bool_(False),
    "empty list": [],
    "nested": [[[]]],
    "ragged": [[1], [1, 2]],
    "texts": ["one", "two", "three"],
    "long": list(range(1000)),
    "big array": np.zeros((3, 4, 5)),
    "objects": np.array([object(), object()]),
    "empty array": np.array([]),
    "dict": {"answer": 1},
    "set": {3.3, 4.4},
    "complex": 1 + 2j,
    "huge": 10**400,
    "minus": -7.123,
    "numpy": np.float32(-7.123),
    "integer": np.int64(-12345),
    "tensor": torch.tensor([[-1.5]]),
    "tensor with a gradient": [torch.ones(2, requires_grad=True), 3],
    "half precision": torch.tensor(-7.0, dtype=torch.bfloat16),
    "fraction": Fraction(-22, 7),
    "range": range(7),
    "generator": (i for i in range(2)),
    "type": int,
    "module": math,
    "exception": ValueError("no"),
    "frame": pd.DataFrame({"a": [1, 2]}),
    "missing": pd.NA,
    "date": np.datetime64("2020-01-01"),
    "none inside": [None, 1.0],
    "pair": (None, "a"),
    "masked": np.ma.masked,
    "hostile": Hostile(),
    "hostile inside": [Hostile(), Hostile()],
    "itself": itself(),
    "result": grading.Result("ex-a", True, "Yes."),
    "process": examples.full_data_divergence().update.mdp,
    "two processes": (examples.full_data_divergence().update.mdp,) * 2,
    "example": examples.full_data_divergence(),
    "two examples": [examples.full_data_divergence(), examples.row_dominant()],
    "namespace": types.SimpleNamespace(kernel=1, weights=2),
    "two namespaces": [types.SimpleNamespace(kernel=np.eye(2), weights=[0.5, 0.5])] * 2,
    "seven": [math.nan] * 7,
    "two": [math.inf, 0.5],
    "three": (0.9, "a", None),
}
ODD_FUNCTIONS = {
    "no arguments": lambda: 1.0,
    "text": lambda *args: "12 %",
    "nan": lambda *args: math.nan,
    "raises": lambda *args: 1 / 0,
    "hostile": lambda *args: Hostile(),
    "itself": lambda *args: itself(),
    "function": lambda *args: lambda: 1.0,
    "true": lambda *args: True,
    "too many": lambda *args: np.zeros((5, 5, 5)),
    "dict": lambda *args: {"a": args},
    "its arguments": lambda *args: args,
    "complex": lambda *args: 1j,
    "huge": lambda *args: 10**400,
    "generator": lambda *args: (x for x in args),
    "tensor": lambda *args: [torch.ones(2, requires_grad=True)],
    "frame": lambda *args: pd.DataFrame({"a": [1]}),
    "exits": lambda *args: exit(),
    "class": Hostile,
    "built in": print,
    "type": type,
}


def in_words(result):
    """Say whether a result is a sentence for a person."""
    words = result.message.split()
    return len(words) >= 4 and result.message.endswith((".", "?", ")", "it.")) and "Traceback" not in result.message


class TestOddAnswers:
    """Whatever is handed in, it gets a sentence, and is not right by accident."""

    @pytest.mark.parametrize("name", EXERCISES)
    def test_get_a_sentence(self, name):
        for label, answer in {**ODD, **ODD_FUNCTIONS}.items():
            result = check(name, answer, time_limit=5)
            assert not result.passed and result.share == 0 and in_words(result), (label, result.message)
            assert repr(result).startswith(f"{name}: ")

    @pytest.mark.parametrize("name", EXERCISES)
    @pytest.mark.parametrize("answer", [None, ..., NotImplemented])
    def test_nothing_is_open(self, name, answer):
        assert check(name, answer).open

    @pytest.mark.parametrize("name", ["ex-bellman-ende", "", "C", "ex-no-such-chapter"])
    def test_a_name_that_is_none_is_said(self, name):
        with pytest.raises(ValueError, match="name must be that of an exercise"):
            check(name, 1.0)

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda: 1.0, "a function; hand in what it returns"),
            ("63", "is text: '63'"),
            ([1.0], "must have one number"),
            (True, "must be real numbers, and is a bool"),
        ],
    )
    def test_what_is_no_number_is_named(self, answer, words):
        assert words in check("ex-contraction-last-norm", answer).message

    def test_where_the_answer_is_yes_or_no_it_may_be(self):
        grading.register(Function("ex-logical", lambda x: x > 0, (), draw=lambda rng: (rng.normal(),)))
        assert check("ex-logical", lambda x: x > 0).passed and not check("ex-logical", lambda x: x < 0).passed


# --- right answers in every form


def as_tensors(value):
    """Return a value with torch in the place of numpy."""
    return torch.tensor(np.asarray(value, dtype=float), requires_grad=True)


def exact(value):
    """Return a value as fractions: the same number, digit for digit."""
    if isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value):
        return [exact(part) for part in value]
    return Fraction(float(value))


FORMS = {
    "list": lambda value: np.asarray(value, dtype=float).tolist(),
    "array": lambda value: np.asarray(value, dtype=float),
    "single": lambda value: np.asarray(value, dtype=np.float32),
    "object": lambda value: np.asarray(value, dtype=float).astype(object),
    "tensor": as_tensors,
    "tensors in a list": lambda value: list(as_tensors(value)) if np.ndim(value) else as_tensors(value),
    "fractions": exact,
    "decimal": lambda value: decimal.Decimal(float(value)) if not np.ndim(value) else exact(value),
    "complex": lambda value: np.asarray(value, dtype=float) + 0j,
    "noise": lambda value: np.asarray(value, dtype=float) * (1 + 3e-13),
    "integers": lambda value: np.asarray(value).astype(int) if np.all(np.asarray(value) % 1 == 0) else value,
}


class Called:
    """An answer that is an object with a method."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *args):
        return self.function(*args)

    def method(self, *args):
        """Return what it was made of returns."""
        return self.function(*args)


class TestRightInEveryForm:
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("name", VALUES)
    def test_values(self, name, form):
        result = check(name, FORMS[form](right_value(name)))
        assert result.passed and result.diagnosis is None

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_functions(self, name, form):
        result = check(name, lambda *args: FORMS[form](EXERCISES[name].right(*args)))
        assert result.passed and result.diagnosis is None

    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_functions_of_every_make(self, name):
        right = EXERCISES[name].right
        for answer in (functools.partial(right), Called(right), Called(right).method, lambda *args: right(*args)):
            assert check(name, answer).passed

    def numeric(self, name):
        """Say whether the parts of an answer that is judged are numbers."""
        try:
            return all(np.asarray(part, dtype=float).size for part in right_value(name))
        except (TypeError, ValueError):
            return False

    @pytest.mark.parametrize("name", JUDGED)
    def test_what_is_judged(self, name):
        right = right_value(name)
        assert check(name, list(right)).passed and check(name, tuple(right)).passed
        forms = [np.asarray, lambda part: np.asarray(part).tolist(), as_tensors, lambda part: np.array(part) * 1.0]
        for form in forms if self.numeric(name) else []:
            assert check(name, [form(part) for part in right]).passed

    def test_numbers_are_meant(self):
        assert sum(self.numeric(name) for name in JUDGED) >= 6


# --- choices in words


SAID = {
    "ex-index-prediction": ["two", "the same two", "both", 2, "Two of them.", "C"],
    "ex-bellman-rate-prediction": ["the game that never ends", "The endless game", "a"],
    "ex-bellman-lake-prediction": ["the arrows", "Arrows", "A"],
    "ex-bellman-cliff-prediction": ["No, since some cells are never visited", "never visited", "C"],
    "ex-function-approximation-outrun-prediction": ["nearly half", "Nearly half of them.", 27, "27"],
    "ex-function-approximation-soft-prediction": ["all", "All ten.", 10, "ten", "all of them"],
    "ex-function-approximation-soft-end-prediction": ["a few hundred", "hundreds", "above 100 and below 1000"],
    "ex-key-equation-size-prediction": ["no", "No!", "it diverges", "no, it still diverges", "not cured"],
    "ex-bellman-prediction": ["c", "C.", " (c) ", "69", 69, 69.0, np.int64(69), "C. 69", "**C**", "the answer is C"],
    "ex-function-approximation-states-prediction": [
        *("more than 10 000", "More than 10,000!", "over 10000", "> 10 000", "10 000", 67970, "C: more than 10 000"),
    ],
    "ex-function-approximation-legs-prediction": [
        *("three", "all of them", "F B O", "F, B, O", "f+b+o", "function approximation, bootstrapping, off-policy"),
        *("all three", "All three.", "FBO", "bof", "F, B and O", ["F", "B", "O"], {"O", "B", "F"}, "all", 3),
        *("function approximation, bootstrapping and off-policy", "the deadly triad", ("B", "O", "F")),
    ],
    "ex-function-approximation-reward-prediction": ["seven", "7", 6, "most of them", "five to seven", "all but one"],
    "ex-key-equation-prediction": ["B", "a quarter", "It falls to a quarter.", "1/4", 0.25, "quarter", "B. a quarter"],
    "ex-contraction-prediction": ["19", 19, 19.0, "19 times", "more than 19 times", "d", "D. nineteen", "> 19"],
    "ex-contraction-phases-prediction": ["plus", "at plus 1.2", "At plus 1.2 alone.", "the positive one"],
    "ex-contraction-rest-prediction": ["nowhere", "Nowhere.", "it diverges", "It grows for ever.", "none"],
    "ex-heuristics-prediction": ["deeper", "more layers", "More hidden layers.", "depth", 2, "add hidden layers"],
    "ex-heuristics-robots-prediction": ["up", "they rise", "Larger", "they increase", "higher"],
    "ex-heuristics-margins-prediction": [400, "400", "about 400 times", "four hundred", "C"],
    "ex-heuristics-rank-prediction": ["relu", "ReLU", "the largest row ratios"],
    "ex-heuristics-raw": ["up", "Up!", "it goes up", "larger", "increases", "bigger", "increase"],
    "ex-heuristics-tension-prediction": ["none", "None.", 0, 0.0, "not even 0", "no discount"],
    "ex-heuristics-watch-prediction": ["it falls", "down", "Falls towards 1", "lower", "it falls towards 1"],
    "ex-preqn-minibatch-prediction": ["a quarter", "about a quarter", "1/4", 71, "about 70"],
    "ex-preqn-pendulum-prediction": ["within a thousand", "some hundred", 500, "hundreds"],
    "ex-preqn-remedies-prediction": ["the target network and PreQN", "PreQN and the target network", "B"],
    "ex-preqn-target-prediction": ["the identity", "I", "identity", "I, the identity", 1],
    "ex-reproduction-prediction": ["the policy", "Policy.", "the actor"],
    "ex-reproduction-ablation-prediction": ["the line search", "line search", "no line search"],
    "ex-reproduction-robots-prediction": ["level", "Level.", "neither", "the two are level"],
    "ex-preqn-prediction": ["A", "a", "only A", "A alone", ["A"], "cured, not cured, not cured", "yes, no, no"],
}
WRONG_WORDS = {
    "ex-index-prediction": [
        ("none", "safe-when-short"),
        ("one", "one"),
        ("all", "all"),
        (4, "all"),
        (0, "safe-when-short"),
    ],
    "ex-bellman-rate-prediction": [("the lake", "the-lake"), ("both", "both"), ("neither", "neither")],
    "ex-bellman-lake-prediction": [("the numbers", "numbers-first"), ("together", "together")],
    "ex-bellman-cliff-prediction": [("yes", "all-cells")],
    "ex-function-approximation-outrun-prediction": [
        *((0, "trained-leads"), ("none", "trained-leads"), ("a few", "neighbours"), ("all", "all-of-them")),
    ],
    "ex-function-approximation-soft-prediction": [("none", "own-data"), ("five", "those-without"), (0, "own-data")],
    "ex-function-approximation-soft-end-prediction": [
        ("below 100", "back-inside"),
        ("they diverge", "runs-off"),
        (2e6, "runs-off"),
    ],
    "ex-key-equation-size-prediction": [("yes", "cured"), ("neither", "neither")],
    "ex-bellman-prediction": [("7", "gamma-nine"), (1, "gamma-half"), ("d. 693", "gamma-three-nines")],
    "ex-function-approximation-states-prediction": [(10, "ten"), ("1 000", "thousand"), ("a thousand", "thousand")],
    "ex-function-approximation-legs-prediction": [
        *(("B and O", "no-approximation"), ("bootstrapping + off-policy", "no-approximation"), ("F", "shared-alone")),
        *(("any two", "two"), (2, "two"), ("off-policy", "off-policy-alone"), ("none", "none"), ("one leg", "one")),
    ],
    "ex-key-equation-prediction": [("half", "as-the-change"), ("it depends", "depends"), (0.5, "as-the-change")],
    "ex-contraction-prediction": [
        (1, "no-future"),
        ("twice", "the-calm"),
        ("10 times", "horizon"),
        (199, "further-ahead"),
    ],
    "ex-contraction-phases-prediction": [("both", "alike"), ("minus 1.2", "minus"), ("nowhere", "neither")],
    "ex-heuristics-prediction": [("width", "wider"), ("tanh", "activation"), ("larger inputs", "scale"), (4, "scale")],
    "ex-heuristics-robots-prediction": [("they fall", "as-on-the-cart"), ("no change", "level")],
    "ex-heuristics-margins-prediction": [("it holds", "holds"), (4, "not-counted"), ("13 000", "median")],
    "ex-heuristics-rank-prediction": [("sin", "smallest-ratio"), ("tanh", "in-between")],
    "ex-heuristics-tension-prediction": [(0.95, "narrow"), ("0.9", "narrow"), (0.5, "on-the-way")],
    "ex-heuristics-raw": [("down", "down"), ("stays the same", "stays")],
    "ex-heuristics-watch-prediction": [("rises", "tells-apart"), ("the same", "frozen"), (4, "frozen")],
    "ex-preqn-minibatch-prediction": [("all", "full-rank"), (256, "full-rank"), ("three quarters", "the-others")],
    "ex-preqn-pendulum-prediction": [("never", "needs-a-target-network"), ("5 000", "as-the-others")],
    "ex-preqn-remedies-prediction": [
        ("regularisation and PreQN", "pulled"),
        ("TDC and the residual gradient", "corrected"),
    ],
    "ex-preqn-target-prediction": [("longer", "as-many-steps"), (0, "the-power"), ("zero", "the-power")],
    "ex-reproduction-prediction": [("the values", "run-off"), ("line search", "line-search"), ("Q", "off-target")],
    "ex-reproduction-robots-prediction": [("ahead", "the-middle-alone"), ("Adam", "the-hopper-alone")],
    "ex-reproduction-ablation-prediction": [
        *(("jitter", "jitter"), ("alpha", "step-size"), ("another activation", "activation"), ("relu", "activation")),
    ],
    "ex-preqn-prediction": [("A and C", "no-room"), ("b, a", "the-left-out"), (["C", "A"], "no-room"), ("all", "all")],
}


def _spelled(value):
    """Return a test's id: a set is written in an order that is the same in every process."""
    return repr(sorted(value)) if isinstance(value, set | frozenset) else repr(value)


class TestChoicesInWords:
    def test_of_every_choice(self):
        assert sorted(SAID) == sorted(CHOICES)

    @pytest.mark.parametrize(("name", "said"), [(name, said) for name in SAID for said in SAID[name]], ids=_spelled)
    def test_right_words_are_right(self, name, said):
        assert check(name, said).passed

    @pytest.mark.parametrize(
        ("name", "said", "diagnosis"),
        [
            ("ex-contraction-prediction", -19, None),
            ("ex-contraction-prediction", "-19", None),
            ("ex-contraction-prediction", "\u221219 times", None),
            ("ex-contraction-prediction", "minus 19", None),
            ("ex-contraction-phases-prediction", -1.2, "minus"),
            ("ex-contraction-phases-prediction", "\u22121.2", "minus"),
            ("ex-contraction-rest-prediction", "at \u22121.25", "one-branch"),
            ("ex-contraction-rest-prediction", "-1", None),
            ("ex-preqn-target-prediction", -0.0, "the-power"),
        ],
    )
    def test_a_sign_counts(self, name, said, diagnosis):
        result = check(name, said)
        assert not result.passed and result.diagnosis == diagnosis
        assert check("ex-contraction-phases-prediction", 1.2).passed
        assert check("ex-contraction-prediction", "+19").passed

    @pytest.mark.parametrize("name", WRONG_WORDS)
    def test_wrong_words_are_understood(self, name):
        for said, *diagnosis in WRONG_WORDS[name]:
            result = check(name, said)
            assert not result.passed and result.diagnosis is not None
            assert [result.diagnosis] == diagnosis or not diagnosis

    @pytest.mark.parametrize("name", CHOICES)
    def test_every_phrase_names_its_option_and_no_other(self, name):
        exercise = EXERCISES[name]
        options = {exercise.right} | {mistake.wrong for mistake in exercise.mistakes}
        assert set(exercise.phrases) <= options
        for option, ways in exercise.phrases.items():
            for way in (option, *ways):
                assert phrases.option_named(way, sorted(options), exercise.phrases) == option or way.startswith(">")

    @pytest.mark.parametrize("name", CHOICES)
    def test_what_is_not_understood_is_told_the_options(self, name):
        exercise = EXERCISES[name]
        message = check(name, "something else altogether").message
        assert "must be one of " in message
        assert all(mistake.wrong in message for mistake in exercise.mistakes) and exercise.right in message

    def test_a_letter_and_the_words_of_another_are_not_understood(self):
        for said in ("B. 69", "C. 7", "C or D", "not C"):
            assert not check("ex-bellman-prediction", said).passed


READ = {
    "ex-function-approximation-leakage-prediction": {
        None: ["63", " 63 ", "63.0", "+63", "all", "All of them!", "sixty-three", "Sixty three", "all 63", "every one"],
        "table": ["0", "none", "zero", "no other"],
        "neighbours": ["8", "eight", "the 8 neighbours", "its neighbours"],
        "half": ["half", "about half", "32", "thirty-two"],
        "itself": ["64", "all 64"],
        "cross": ["4", "four"],
        "tiles": ["3", "three"],
    },
    "ex-function-approximation-pair-prediction": {
        None: ["2", "two", "Two of them"],
        "all": ["5", "all five", "all"],
        "none": ["0", "none"],
        "diagonal": ["3", "three"],
        "all-but-one": ["four"],
        "all-but-one-lost": ["one"],
    },
    "ex-bellman-fates-prediction": {
        None: ["3", "three"],
        "none": ["none", "0"],
        "discounted-alone": ["one", "1"],
        "one-of-the-lake": ["two"],
        "one-too-many": ["four"],
        "all": ["all", "all five", "5"],
    },
    "ex-key-equation-buffer-prediction": {
        None: ["44", "forty-four"],
        "all": ["64", "all", "every one"],
        "goal-alone": ["60"],
        "holes-alone": ["48"],
        "a-batch": ["32"],
        "cells": ["11"],
    },
}
"""Numbers in words, by the mistake that they are, of every value whose words are known."""


class TestNumbersInWords:
    """Where a number is typed into the page, it comes as a text."""

    def test_of_every_value_with_words(self):
        assert sorted(READ) == sorted(name for name in VALUES if EXERCISES[name].phrases and name in READ)
        for name, said in READ.items():
            assert set(said) == {None, *(mistake.name for mistake in EXERCISES[name].mistakes)}

    @pytest.mark.parametrize(
        ("name", "diagnosis", "said"),
        [(name, diagnosis, said) for name in READ for diagnosis, ways in READ[name].items() for said in ways],
    )
    def test_are_read(self, name, diagnosis, said):
        result = check(name, said)
        assert (result.passed, result.diagnosis) == (diagnosis is None, diagnosis)

    @pytest.mark.parametrize("name", [name for name in VALUES if EXERCISES[name].phrases])
    def test_every_phrase_is_the_number_that_it_stands_for(self, name):
        known = EXERCISES[name].phrases
        for digits, ways in known.items():
            assert all(phrases.number_said(way, known) == float(digits) for way in (digits, *ways))

    @pytest.mark.parametrize("said", ["some", "", "6 3", "6_3", "1e9", "inf", "nan", "٦٣", "63 or 64", "not 63", "-"])
    def test_what_is_no_number_is_named(self, said):
        result = check("ex-function-approximation-leakage-prediction", said)
        assert not result.passed and f"must be a number, and is {said!r}" in result.message

    def test_another_number_gets_a_hint(self):
        for said in ("-1", "17", "62.5", "1000000"):
            result = check("ex-function-approximation-leakage-prediction", said)
            assert not result.passed and result.diagnosis is None and "Not right" in result.message


def test_every_prediction_of_the_book_is_known():
    asked = {label for path in pages.PAGES for label in pages.labels(path) if re.fullmatch("ex-.*-prediction", label)}
    assert len(asked) >= 19 and asked <= set(EXERCISES)


def test_nobody_is_told_a_mistake_who_is_right():
    """The mistakes that were missing are told apart from the right answer on every seed."""
    for name in FUNCTIONS:
        exercise = EXERCISES[name]
        for seed, mistake in itertools.product(range(5), exercise.mistakes):
            differs = [not exercise._is(mistake, args, exercise.right(*args)) for args in exercise.sample(seed=seed)]
            assert any(differs), (name, mistake.name)


def _where_growth_turns(K, gamma):
    """Return the smallest share at which the eigenvalues of the pair below the diagonal are complex, by bisection."""
    low, high = 0.0, 1 / (1 + (1 - gamma) * K[0, 0] / (gamma * K[0, 1] - K[1, 1]))
    for _ in range(60):
        first = (low + high) / 2
        G = (K * [first, 1 - first]) @ [[1 - gamma, 0], [-gamma, 1]]
        low, high = (low, first) if np.iscomplexobj(np.linalg.eigvals(G)) else (first, high)
    return high


NATURAL = {
    "ex-function-approximation-count": [
        (lambda memory, numbers, n_actions: (memory / 8 / n_actions) ** (1 / numbers), "no-rounding"),
    ],
    "ex-bellman-shift": [
        (lambda c, mdp: np.where(mdp.continuation == 0, 0, mdp.gamma * c).reshape(mdp.R.shape), "all-or-nothing"),
        (lambda c, mdp: (mdp.gamma * c * np.isclose(mdp.continuation, 1)).reshape(mdp.R.shape), "nothing-or-all"),
    ],
    "ex-bellman-loss": [
        (lambda epsilon, gamma: 2 * epsilon * gamma / (1 - gamma) ** 2, "summed-twice"),
        (lambda epsilon, gamma: 2 * epsilon / (1 - gamma), "no-gamma"),
    ],
    "ex-function-approximation-cure": [(_where_growth_turns, "turns")],
    "ex-bellman-end": [(lambda reward, cost, gamma: (reward - cost) / 2 / (1 - gamma), "average-step")],
    "ex-contraction-fit": [(lambda fit, gamma: gamma * np.linalg.svd(fit)[1].max(), "spectral-norm")],
    "ex-preqn-jitter": [
        (lambda mu, jitter, kappa: [mu / (mu + jitter * kappa), mu / (mu + jitter * kappa) ** 2, jitter * kappa],
         "squared-length"),
    ],
    "ex-preqn-single": [(lambda kernel, i, alpha: alpha / sum(kernel[i]), "row-sum")],
}  # fmt: skip


@pytest.mark.parametrize("name", NATURAL)
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_natural_mistakes_are_diagnosed(name, seed):
    for answer, diagnosis in NATURAL[name]:
        assert check(name, answer, seed=seed).diagnosis == diagnosis


# --- what is built


def stepping(example, alpha):
    """Return an example with another step size."""
    return replace(example, update=replace(example.update, alpha=alpha))


class TestAsPrecisely:
    """As many digits as an exercise asks for, or as a person measures, are enough."""

    @pytest.mark.parametrize(
        ("name", "right", "wrong"),
        [
            ("ex-contraction-edge", (1.199, 1.1986), (1.198, 1.2)),
            ("ex-key-equation-order", (3.9, 4.087, 4), (3.8, 4.2)),
            ("ex-heuristics-by-hand", ([0.667, 0.267, 0.167, 0.111, 0.333],), ([0.66, 0.26, 0.16, 0.11, 0.33],)),
        ],
    )
    def test_enough(self, name, right, wrong):
        assert all(check(name, answer).passed for answer in right)
        assert not any(check(name, answer).passed for answer in wrong)

    def test_no_hint_tells_the_period(self):
        assert "7" not in check("ex-preqn-patience", (8, 4)).message

    @pytest.mark.parametrize("gap", [[...], [..., ...], (None, None), [..., None, NotImplemented]])
    def test_a_list_of_gaps_is_a_gap(self, gap):
        assert check("ex-preqn-wait", gap).open and not check("ex-preqn-wait", [*gap, 1.0]).open


class TestBuilt:
    """The judges of what is built ask for the property, and not for the example that we had in mind."""

    @pytest.mark.parametrize("seed", range(6))
    def test_overshoot_from_any_start(self, seed):
        safe = examples.row_dominant()
        starts = [safe.Q0, np.zeros((2, 1)), np.random.default_rng(seed).standard_normal((2, 1))]
        for start in starts:
            wild = replace(stepping(safe, 10.0), Q0=start)
            assert check("ex-contraction-overshoot", (wild, stepping(wild, 2.0))).passed
            assert check("ex-contraction-overshoot", (stepping(wild, 2.0), wild)).diagnosis == "exchanged"

    @pytest.mark.parametrize("answer", [(10, 2), (10.0,), "x", {"alpha": 10}, (examples.row_dominant().update,) * 2])
    def test_overshoot_says_what_it_wants_and_no_error_of_its_own(self, answer):
        message = check("ex-contraction-overshoot", answer).message
        assert message.endswith("such as `examples.row_dominant()`, the one that diverges and the repaired one.")

    def test_overshoot_is_repaired_however_slowly(self):
        """A modulus below 1 is a proof; runs of some thousand updates would not have seen it."""
        safe, pair = examples.row_dominant(), examples.full_data_divergence()
        wild = replace(pair, update=replace(pair.update, kernel=np.eye(2), weights=[0.5, 0.5], alpha=9.0))
        for long in (stepping(safe, 10.0), wild):
            assert check("ex-contraction-overshoot", (long, stepping(long, 1e-5))).passed

    def test_overshoot_keeps_the_rewards(self):
        wild = stepping(examples.row_dominant(), 10.0)
        short = stepping(wild, 2.0)
        paid = replace(short, update=replace(short.update, mdp=replace(short.update.mdp, R=np.ones((2, 1)))))
        assert check("ex-contraction-overshoot", (wild, paid)).diagnosis == "other-data"

    @pytest.mark.parametrize("seed", range(20))
    def test_a_kink_is_one_by_what_the_network_does(self, seed):
        """By another route: the slope of the remainder of PyTorch's own network, at a step that is short for it."""
        rng = np.random.default_rng(seed)
        sizes = 2.0 ** rng.integers(-3, 4, size=6) * rng.choice([-1, 1], size=6)
        w, v, c, first, second, y = sizes * [1, 1, 1, 1, 1, 100]
        net = networks.MLP([1, 1, 1], activation="relu", generator=torch.Generator(), dtype=torch.float64)
        numbers = torch.tensor([w, -w * first, v, c], dtype=torch.float64)
        torch.nn.utils.vector_to_parameters(numbers, net.parameters())
        inputs = torch.tensor([[first], [second]], dtype=torch.float64)
        asked = {"target": [0.0, y], "weights": [0.0, 1.0]}
        long, short = (abs(ntk.remainder(net, inputs, **asked, alpha=alpha)[0]) / alpha for alpha in (1e-8, 1e-9))
        kink = short > 1e-3 and abs(np.log10(long / short)) < 0.1
        assert check("ex-key-equation-kink", [w, -w * first, v, c, first, second, y]).passed == kink

    def test_a_far_sight_is_cured_too(self):
        for rest in (1e-4, 1e-9):
            few, half = [rest, 1 - rest], [0.5, 0.5]
            assert check("ex-heuristics-build", (1 - rest, half, few)).passed
            assert check("ex-heuristics-build", (1 - rest, few, half)).diagnosis == "upside-down"
            assert check("ex-heuristics-build", (1 - rest, half, [6 * rest, 1 - 6 * rest])).diagnosis == "not-cured"

    def test_patience_says_on_which_side_the_second_period_is(self):
        assert "still runs off with a period of 3" in check("ex-preqn-patience", (7, 3)).message
        assert "a period of 4 works, too" in check("ex-preqn-patience", (7, 5)).message

    def test_overshoot_with_two_actions(self):
        pair = examples.full_data_divergence()
        wild = replace(pair, update=replace(pair.update, kernel=np.eye(2), weights=[0.5, 0.5], alpha=9.0))
        assert check("ex-contraction-overshoot", (wild, stepping(wild, 1.0))).passed
        assert check("ex-contraction-overshoot", (stepping(wild, 1.5), wild)).diagnosis == "exchanged"
        near = stepping(wild, 2.0)
        assert check("ex-contraction-overshoot", (near, near)).diagnosis == "no-divergence"

    @pytest.mark.parametrize("c", [0.5, 1.0, 2.4, 2.45, 5.0])
    @pytest.mark.parametrize("gamma", [0.0, 0.5, 0.8, 0.828])
    def test_no_c_diverges_at_a_low_discount(self, c, gamma):
        assert check("ex-function-approximation-build", [c, gamma]).diagnosis == "no-c"

    @pytest.mark.parametrize("gamma", [0.8285, 0.83, 0.8333])
    def test_where_one_does_it_is_found_between_two_limits(self, gamma):
        low, high = np.roots([1 - gamma, -gamma, 1])[::-1]
        assert check("ex-function-approximation-build", [(low + high) / 2, gamma]).passed
        for c, diagnosis in ((low - 0.01, "c-too-small"), (high + 0.01, "c-too-large"), (0.9, "second-not-ahead")):
            assert check("ex-function-approximation-build", [c, gamma]).diagnosis == diagnosis

    @pytest.mark.parametrize("gamma", [0.0, 0.3, 0.5])
    def test_no_division_diverges_at_a_low_discount(self, gamma):
        for first in np.linspace(0.01, 0.99, 25):
            answer = (gamma, [first, 1 - first], [0.1, 0.9])
            assert check("ex-heuristics-build", answer).diagnosis == "no-division"
        assert check("ex-heuristics-build", (0.51, [0.999, 0.001], [0.1, 0.9])).passed

    @pytest.mark.parametrize("scale", [1, 2.5, -3, 1e-4, 1e4])
    def test_a_kernel_is_not_its_features(self, scale):
        phi = scale * np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [2.0, 1.0, 1.0]])
        assert check("ex-function-approximation-silent", phi).passed
        result = check("ex-function-approximation-silent", phi @ phi.T)
        assert result.diagnosis == "the-kernel" and "orthogonal" not in result.message

    def test_symmetric_features_are_features(self):
        phi = np.array([[1.0, 1.0, 1.5], [1.0, -1.0, 0.0], [1.5, 0.0, 3.0]])
        K = phi @ phi.T
        assert K[1, 0] == 0 and K[2, 0] != 2 * K[0, 0]
        assert check("ex-function-approximation-silent", phi).diagnosis == "not-twice"

    def test_overlap_tells_n_from_n_minus_one(self):
        ratio, entry = 1 / 199 / 1000, 1 / 199 / 999
        for right in ((ratio, entry), (5.025e-6, 5.03e-6), (5.0251e-6, 5.0302e-6), (Fraction(1, 199000), entry)):
            assert check("ex-heuristics-overlap", right).passed
        wrong = {"others-for-all": (entry, entry), "all-for-others": (ratio, ratio), "exchanged": (entry, ratio)}
        for diagnosis, answer in {**wrong, "others-for-all ": (5.03e-6, 5.03e-6)}.items():
            assert check("ex-heuristics-overlap", answer).diagnosis == diagnosis.strip()

    @pytest.mark.parametrize("right", [(0.3, 1.65, 0.8, -0.217), ("3/10", 1.649, 0.8, -0.2169)])
    def test_three_digits_of_a_record_are_enough(self, right):
        assert check("ex-heuristics-record", [float(Fraction(part)) for part in right]).passed

    @pytest.mark.parametrize("errors", [(4, -1), (-4, 1), (400, -100), (5, -1)])
    def test_any_errors_that_a_step_goes_against_will_do(self, errors):
        assert check("ex-heuristics-against", [0.2, *errors]).passed

    @pytest.mark.parametrize("errors", [(1, 4), (-1, 4), (0, 0), (1, 0)])
    def test_no_others_will(self, errors):
        assert check("ex-heuristics-against", [0.2, *errors]).diagnosis == "not-against"

    def test_every_value_tells_its_mistakes_apart(self):
        """No tolerance is so wide that two answers that are foreseen, or a mistake and the right one, are the same."""
        for name in VALUES:
            exercise = EXERCISES[name]
            args = exercise.sample()[0]
            made = [np.asarray(make(*args), float) for make in (exercise.right, *(m.wrong for m in exercise.mistakes))]
            for one, two in itertools.combinations(made, 2):
                assert not comparison.close(one, two, exercise.rtol).all()


def test_the_questions_do_not_state_their_answers():
    text = {path.stem: pages.markdown(path) for path in pages.NOTEBOOKS}
    asked = lambda stem, label: re.split(rf":label: {label}\n", text[stem])[1].split("exercise-end")[0]  # noqa: E731
    loss, step = asked("bellman", "ex-bellman-loss"), asked("function_approximation", "ex-function-approximation-step")
    assert not re.search(r"2\s*\\varepsilon|1\s*-\s*\\gamma", loss) and not re.search(r"2\s*/\s*\\lambda|<\s*2", step)


def test_registering_a_choice_of_ones_own():
    own = Choice("ex-own", "LEFT", (Mistake("right", "The other way", "RIGHT"),))
    grading.register(own)
    assert check("ex-own", "left").message == "Yes." and check("ex-own", "right!").diagnosis == "right"
    mdp = FiniteMDP(np.ones((1, 1, 1)), np.ones((1, 1)), 0.5)
    assert "must be one of LEFT, RIGHT, and is" in check("ex-own", mdp).message


class TestHiddenTests:
    """What the hidden tests of coursework print shows no instance, and tells no number."""

    @pytest.fixture
    def marking(self, tmp_path, monkeypatch):
        import marking

        (tmp_path / "seed.txt").write_text("a secret", encoding="utf-8")
        monkeypatch.setenv("COURSE_ROOT", str(tmp_path))
        marking.load()
        return marking

    def questions(self):
        """Return the graded questions with the stem of their chapter."""
        import questions

        for found in pkgutil.iter_modules(questions.__path__):
            for exercise in importlib.import_module(f"questions.{found.name}").EXERCISES:
                yield found.name, exercise

    def test_no_instance_is_shown(self, marking, capsys):
        def breaks(*args):
            raise KeyError("a slip")

        asked = [exercise for _, exercise in self.questions() if isinstance(exercise, Function)]
        assert len(asked) >= 10
        for exercise in asked:
            for answer in (exercise.mistakes[0].wrong, breaks):
                assert marking.mark(exercise.name, answer, points=5) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "a slip" in said and "That was with" not in said and "`arguments`" not in said

    def test_no_number_is_told(self, marking, capsys):
        told = 0
        for stem, exercise in self.questions():
            if isinstance(exercise, Value) and exercise.judge is None:
                given = marking.draw_parameters(stem, "a secret")
                args = exercise.draw(np.random.default_rng(0), **given)
                right, mistaken = (
                    np.asarray(make(*args), float) for make in (exercise.right, exercise.mistakes[0].wrong)
                )
                for answer in (right * 1.7 + 1, mistaken):
                    assert marking.mark(exercise.name, answer, points=5, given=given) == 0
                    said = " ".join(capsys.readouterr().out.split())
                    assert "is right" not in said and "tell=True" not in said
                    told += 1
        assert told >= 12
