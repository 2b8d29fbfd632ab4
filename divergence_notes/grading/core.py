"""What an exercise is, and how an answer to it is judged."""

import copy
import decimal
import hashlib
import importlib.util
import inspect
import itertools
import numbers
import re
import reprlib
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from divergence_notes import _checks
from divergence_notes.grading.running import Fault, named, run
from divergence_notes.mdp import FiniteMDP

CHAPTERS = ("bellman", "function_approximation", "key_equation", "contraction", "heuristics", "preqn", "reproduction")
"""Each may have a module here with an `EXERCISES`; it is imported when one of its names is asked for."""

KINDS = ("function", "value", "choice", "test", "bet")

_registered: dict[str, "Exercise"] = {}


@dataclass(frozen=True)
class Mistake:
    """A foreseen wrong answer and what to say about it."""

    name: str
    """A short one, such as ``"no-gamma"``."""
    text: str
    """What the student hears: a sentence without a full stop, about what they did."""
    wrong: Any
    """Takes what the exercise draws and returns what the wrong answer would be. For a choice it is the option; for a
    test it is a wrong implementation that the test has to expose."""


@dataclass(frozen=True, eq=False)
class Exercise:
    """A question that a computer can judge, by properties on random instances and by foreseen mistakes."""

    name: str
    """The label of the exercise in its chapter, ``"ex-..."``; a graded question's has no ``ex-``."""
    kind: str
    """``"function"``: called on each instance. ``"value"``: a number or array. ``"choice"``: one of some options.
    ``"test"``: a function that takes an implementation and fails if it is wrong. ``"bet"``: a prediction that the page
    answers and no computer judges."""
    right: Any
    """What an answer is compared with: a function of an instance; the right option; the right implementation."""
    mistakes: tuple[Mistake, ...]
    """The wrong answers that are recognised."""
    draw: Callable[..., tuple] = lambda rng, **given: tuple(given.values())
    """Takes a generator, and what is `given`, and returns the arguments of one instance."""
    instances: int = 20
    """How many instances a function is called on."""
    rtol: float = 1e-6
    """Relative deviation that still counts as right."""
    judge: Callable[..., str | tuple[str, str] | None] | None = None
    """For answers that are not unique: takes the answer's value and the instance, returns what is wrong with it, in a
    sentence or as the name of a mistake, or either of them and a detail, such as the first place that is off."""
    hint: str = ""
    """What a wrong value that nobody foresaw is told instead of the right one; for a bet, where the page answers it. A
    sentence that leaves the finding to the reader."""
    insight: str = ""
    """What a right answer is told: a sentence that says what it is good for."""
    phrases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For a choice: other ways to name an option, the words on the page first. ``">1000"`` is any number above it."""

    def __post_init__(self):
        _checks.choice("kind", self.kind, KINDS)
        _checks.integer("instances", self.instances, low=1)
        if len({mistake.name for mistake in self.mistakes}) < len(self.mistakes):
            raise ValueError(f"mistakes of {self.name} must have names of their own")

    def generator(self, seed: Any = None) -> np.random.Generator:
        """Return the generator of a seed.

        Parameters
        ----------
        seed : object, optional
            Anything that prints; the exercise's name alone is the seed that everybody has.

        Returns
        -------
        numpy.random.Generator
            The same for the same name and seed.
        """
        digest = hashlib.sha256(f"{self.name}:{'' if seed is None else seed}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))

    def sample(self, *, seed: Any = None, given: Mapping | None = None) -> list[tuple]:
        """Draw the instances of a seed.

        Parameters
        ----------
        seed : object, optional
            As in `generator`.
        given : mapping, optional
            The numbers of a class, handed to `draw` by name.

        Returns
        -------
        list of tuple
            The arguments of each instance.
        """
        rng = self.generator(seed)
        n = self.instances if self.kind == "function" else 1
        return [self.draw(rng, **(given or {})) for _ in range(n)]


@dataclass(frozen=True)
class Result:
    """What `check` found."""

    name: str
    """Of the exercise."""
    passed: bool
    """Whether the answer is right on every instance."""
    message: str
    """What there is to say, in sentences."""
    diagnosis: str | None = None
    """The name of the foreseen mistake that was recognised."""
    share: float = 0.0
    """The part of the credit that is earned, from 0 to 1: for a test the share of wrong implementations it exposes."""
    open: bool = False
    """Whether nothing has been answered yet."""
    survivors: tuple[str, ...] = field(default=(), repr=False)
    """The wrong implementations that a test did not expose."""
    arguments: tuple = field(default=(), repr=False)
    """What a function was called with where it failed, in the smallest such instance. Empty where the instances are
    drawn from a seed of one's own, since that is how tests are hidden."""
    judged: bool = True
    """Whether it says if the answer is right; `try_out` looks at the form alone, and nobody judges a bet."""

    def __repr__(self) -> str:
        verdict = f"{'right' if self.passed else 'open' if self.open else 'not yet'}. " if self.judged else ""
        text = f"{self.name}: {verdict}{self.message}"
        return textwrap.fill(text, width=72, break_long_words=False, break_on_hyphens=False)


def register(*made: Exercise) -> None:
    """Add exercises, an instructor's own for instance, under their names.

    Parameters
    ----------
    *made : Exercise
        One that has the name of an earlier one takes its place.
    """
    for exercise in made:
        _registered[exercise.name] = exercise


def find(name: str) -> Exercise:
    """Return the exercise of a name.

    Parameters
    ----------
    name : str
        As in `check`.

    Returns
    -------
    Exercise
        One that comes with the package, or was registered.

    Raises
    ------
    ValueError
        If no exercise has it; the message lists the names of its chapter.
    """
    if name not in _registered:
        exercises()
    if name not in _registered:
        near = [known for known in _registered if known.split("-")[1:2] == str(name).split("-")[1:2]] or _registered
        raise ValueError(f"name must be that of an exercise, one of {', '.join(sorted(near))}; got {name!r}")
    return _registered[name]


def exercises() -> dict[str, Exercise]:
    """Return every exercise that is known, by name."""
    for chapter in CHAPTERS:
        for exercise in of_chapter(chapter):
            _registered.setdefault(exercise.name, exercise)
    return dict(_registered)


def of_chapter(chapter: str) -> tuple[Exercise, ...]:
    """Return the exercises that come with the package for a chapter."""
    module = f"{__package__}.{chapter}"
    return importlib.import_module(module).EXERCISES if importlib.util.find_spec(module) else ()


def check(
    name: str,
    answer: Any,
    *,
    seed: Any = None,
    time_limit: float | int = 10,
    given: Mapping | None = None,
    tell: bool = False,
) -> Result:
    """Judge an answer on random instances, and say what is wrong with it.

    A wrong number gets a hint, and the right one only if it is asked for. A function that fails is shown the smallest
    instance on which it does.

    Parameters
    ----------
    name : str
        The label of the exercise, ``"ex-..."``.
    answer : object
        A function, a number or array, the letter of a choice, or a test: what the exercise asks for.
    seed : object, optional
        Draws other instances than those that everybody gets, and shows none of them.
    time_limit : float
        Seconds that one call of the answer may take, > 0.
    given : mapping, optional
        The numbers of a question whose numbers are drawn for each class.
    tell : bool
        Whether a wrong value or choice is told the right one.

    Returns
    -------
    Result
        Whether the answer passed, and a message; a wrong or failing answer never raises.

    Raises
    ------
    ValueError
        If there is no such exercise.
    """
    exercise = find(name)
    time_limit = _checks.scalar("time_limit", time_limit, low=0, low_open=True)
    judges = {
        "function": lambda instances: _function(exercise, answer, instances, time_limit, show=seed is None),
        "value": lambda instances: _value(exercise, answer, instances[0], tell),
        "choice": lambda instances: _choice(exercise, answer, instances[0], tell),
        "test": lambda instances: _test(exercise, answer, time_limit, seed),
        "bet": lambda instances: Result(name, False, f"No check judges this prediction. {exercise.hint}", judged=False),
    }
    return _answered(name, answer, lambda: judges[exercise.kind](exercise.sample(seed=seed, given=given)))


def try_out(answer: Any, *args: Any, shape: tuple[int, ...] = (), time_limit: float | int = 10) -> Result:
    """Say whether a function runs and what it returns has the right form, and nothing about whether it is right.

    Parameters
    ----------
    answer : object
        A function, a number or an array.
    *args : object
        What a function is called with.
    shape : tuple of int
        The form that is asked for; ``()`` is a number.
    time_limit : float
        Seconds that the call may take.

    Returns
    -------
    Result
        Passed if it runs and has the form.
    """
    name = getattr(answer, "__name__", "answer")

    def look() -> Result:
        value = _call(answer, args, float(time_limit)) if callable(answer) else answer
        _numbers(value, shape, args)
        form = f"has the form that is asked for: {'a number' if shape == () else f'shape {shape}'}."
        return Result(name, True, f"It {'runs, and what it returns ' if callable(answer) else ''}{form}", judged=False)

    return _answered(name, answer, look)


def _answered(name: str, answer: Any, judge: Callable[[], Result]) -> Result:
    """Judge an answer if there is one; what it does instead of answering becomes the message."""
    if answer is None or answer is ... or answer is NotImplemented:
        return Result(name, False, "Nothing here yet.", open=True)
    try:
        return judge()
    except Open:
        return Result(name, False, "Nothing here yet: it returns nothing.", open=True)
    except Fault as fault:
        return Result(name, False, _sentence(f"Your answer {fault}"))


class Open(Exception):
    """The answer is still a stub."""


def _function(exercise: Exercise, answer: Any, instances: list[tuple], time_limit: float, *, show: bool) -> Result:
    if not callable(answer):
        raise Fault(f"must be a function, and is {_kind(answer)}")
    wrong = []
    for args in instances:
        try:
            value = _call(answer, args, time_limit)
            complaint = _differs(exercise, value, args)
        except Fault as fault:
            text = _sentence(f"Your answer {fault}") + (_instance(exercise, args) if show else "")
            return Result(exercise.name, False, text, arguments=args if show else ())
        if complaint:
            wrong.append((args, value, complaint))
    return _verdict(exercise, wrong, len(instances), show=show)


def _value(exercise: Exercise, answer: Any, args: tuple, tell: bool) -> Result:
    complaint = _differs(exercise, answer, args)
    return _verdict(exercise, [(args, answer, complaint)] if complaint else [], 1, tell=tell)


def _choice(exercise: Exercise, answer: Any, args: tuple, tell: bool) -> Result:
    right = exercise.right(*args) if callable(exercise.right) else exercise.right
    options = sorted({right} | {mistake.wrong for mistake in exercise.mistakes})
    given = _option(answer, options, exercise.phrases)
    if given is None:
        words = {option: f" ({ways[0]})" for option, ways in exercise.phrases.items()}
        named = ", ".join(option + words.get(option, "") for option in options)
        raise Fault(f"must be one of {named}, and is {reprlib.repr(answer)}")
    if given == right:
        return Result(exercise.name, True, exercise.insight or "Yes.", share=1.0)
    mistake = next(mistake for mistake in exercise.mistakes if mistake.wrong == given)
    told = f" Right is {right}." if tell else ""
    return Result(exercise.name, False, _sentence(mistake.text) + told, mistake.name)


def combined(names: Mapping[str, str], options: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return other ways to name options that are made of letters: by what each letter stands for, in any order.

    Parameters
    ----------
    names : mapping
        What each letter stands for.
    options : iterable of str
        Such as ``"AB"``.

    Returns
    -------
    dict
        The `phrases` of an exercise.
    """
    return {
        option: (
            " and ".join(names[letter] for letter in option),
            " ".join(option),
            *map("".join, itertools.permutations(option)),
        )
        for option in options
    }


_FILLERS = {"and", "answer", "i", "is", "it", "letter", "of", "only", "option", "the", "them", "think"}


def _words(text: Any) -> tuple[str, ...]:
    """Return the words and numbers of a phrase, in small letters, without what carries nothing."""
    text = f"{text:.15g}" if isinstance(text, numbers.Real) and not isinstance(text, numbers.Rational) else str(text)
    text = re.sub(r"(?<=\d)[\s,_'](?=\d{3}(?!\d))", "", text.casefold())  # 10 000 and 10,000 are 10000
    text = text.replace(">", " more than ").replace("<", " less than ")
    found = re.findall(r"\d+(?:\.\d+)?|[^\W\d_]+", text)
    kept = [word for word in found if word not in _FILLERS] or found
    followed = zip(kept, [*kept, ""][1:], strict=True)
    return tuple(word for word, after in followed if word != "a" or not after[1:].isalpha())  # a quarter is a quarter


def _option(answer: Any, options: list[str], phrases: Mapping[str, tuple[str, ...]]) -> str | None:
    """Return the option that an answer names, by its letter, by its words, or by both; None if it names none."""
    if isinstance(answer, np.ndarray):
        answer = answer.tolist()
    if isinstance(answer, (list, tuple, set, frozenset)) and all(isinstance(part, str) for part in answer):
        answer = " ".join(answer)
    number = _as_float(answer) if isinstance(answer, numbers.Real) and not isinstance(answer, bool) else np.nan
    if not np.isfinite(number) and not isinstance(answer, str):
        return None
    said = _words(answer)
    for option in options:
        for way in (option, *phrases.get(option, ())):
            words = _words(way)
            alike = said == words or (len(set(said)) == len(said) == len(words) and set(said) == set(words))
            if alike or said == (*_words(option), *words) or (way[0] == ">" and number > float(way[1:])):
                return option
    return None


def _test(exercise: Exercise, answer: Any, time_limit: float, seed: Any) -> Result:
    if not callable(answer):
        raise Fault(f"must be a function that takes an implementation, and is {_kind(answer)}")
    called = []

    def watched(implementation):
        def call(*args, **kwargs):
            called.append(1)
            return implementation(*args, **kwargs)

        return call

    # In an order that a test cannot know, the right one several times: what counts its calls gains nothing.
    handed = [None] * 4 + list(exercise.mistakes)
    passed = {}
    for position in exercise.generator(seed).permutation(len(handed)):
        mistake = handed[position]
        implementation = exercise.right if mistake is None else mistake.wrong
        try:
            passed[position] = _passes(answer, watched(implementation), time_limit)
        except Fault:
            if mistake is None:
                raise
            passed[position] = False  # whatever a wrong implementation makes of the test, it does not pass it
    if not all(passed[position] for position in range(4)):
        text = "Your test rejects a right implementation: it tests for something that need not hold"
        return Result(exercise.name, False, text + ".", "rejects-the-right-one")
    if not called:
        text = "Nothing here yet: your test never calls the implementation that it is given."
        return Result(exercise.name, False, text, "never-calls", open=True)
    survivors = [mistake for position, mistake in enumerate(handed) if mistake is not None and passed[position]]
    total = len(exercise.mistakes)
    share = 1 - len(survivors) / total
    if not survivors:
        return Result(exercise.name, True, f"Your test exposes all {total} wrong implementations.", share=1.0)
    text = f"Your test exposes {total - len(survivors)} of {total} wrong implementations. One that it lets through "
    names = tuple(mistake.name for mistake in survivors)
    return Result(exercise.name, False, text + _sentence(survivors[0].text, ""), names[0], share, survivors=names)


def _passes(test: Callable, implementation: Callable, time_limit: float) -> bool:
    try:
        said = run(test, implementation, time_limit=time_limit)
    except AssertionError:
        return False
    if said is ... or said is NotImplemented:
        raise Open
    return said is None or bool(said)


def _call(answer: Callable, args: tuple, time_limit: float) -> Any:
    theirs = copy.deepcopy(args)
    value = run(answer, *theirs, time_limit=time_limit)
    for position, (before, after) in enumerate(zip(args, theirs, strict=True)):
        if not _same(before, after):
            raise Fault(f"changes its argument number {position + 1} in place; work on a copy")
    if value is None or value is ... or value is NotImplemented:
        raise Open
    return value


def _same(before: Any, after: Any) -> bool:
    """Say whether an argument is what it was; nan is the same as nan."""
    number = (int, float, np.number)
    if isinstance(before, number) and isinstance(after, number):
        return bool(before == after or (before != before and after != after))
    if type(before) is not type(after):
        return False
    if is_dataclass(before):
        return all(_same(getattr(before, f.name), getattr(after, f.name)) for f in fields(before))
    if sp.issparse(before):
        return _same(before.toarray(), after.toarray())
    if isinstance(before, np.ndarray):
        return before.dtype == after.dtype and np.array_equal(before, after, equal_nan=before.dtype.kind in "fc")
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(_same(before[key], after[key]) for key in before)
    if isinstance(before, (list, tuple)):
        return len(before) == len(after) and all(map(_same, before, after))
    return True


def _differs(exercise: Exercise, value: Any, args: tuple) -> str | tuple[str, str] | None:
    """Return what is wrong with a value, with the first offender, or None."""
    if exercise.judge is not None:
        try:
            with np.errstate(all="ignore"):
                return exercise.judge(value, *args)
        except Fault:
            raise
        except Exception as error:  # a judge works with whatever the student made, and that may be anything
            raise Fault(f"is {_kind(value)} that cannot be judged ({named(error)})") from error
    right = np.asarray(exercise.right(*args))
    found = _numbers(value, right.shape, args, logical=right.dtype.kind == "b")
    right = right.astype(float)
    bad = np.argwhere(~_close(found, right, _rtol(exercise, value)))
    if not len(bad):
        return None
    where = tuple(bad[0])
    told = f"{_place(where, right.shape, args)}{found[where]:.6g} where {right[where]:.6g} is right"
    if exercise.kind == "function":
        return told
    place = _place(where, right.shape, args).removesuffix(": ") or "your number"
    return f"{place} is too {'large' if found[where] > right[where] else 'small'}", told


def _verdict(exercise: Exercise, wrong: list[tuple], n: int, *, show: bool = False, tell: bool = False) -> Result:
    if not wrong:
        counted = f"Right on {n} random instances." if n > 1 else ""
        text = " ".join(filter(None, (exercise.insight, counted))) or "Yes."
        return Result(exercise.name, True, text, share=1.0)
    args, _, complaint = min(wrong, key=lambda found: _size(found[0]))
    shown = {"arguments": args} if show else {}
    after = _instance(exercise, args) if show else ""
    said, detail = complaint if isinstance(complaint, tuple) else (complaint, "")
    if exercise.judge is None and exercise.kind == "value":
        return _hinted(exercise, wrong, said, detail, tell)
    detail = f": {detail}" if detail else ""
    for mistake in exercise.mistakes:
        if exercise.judge is not None and said == mistake.name:
            text = _sentence(_sentence(mistake.text, "") + detail)
            return Result(exercise.name, False, text + after, mistake.name, **shown)
        if exercise.judge is None and all(_is_mistake(exercise, mistake, *found[:2]) for found in wrong):
            return Result(exercise.name, False, f"{_sentence(mistake.text, '')}: {said}.{after}", mistake.name, **shown)
    often = f" (on {len(wrong)} of {n} instances)" if n > 1 else ""
    text = f"Not right{often}: {_sentence(_sentence(said, '') + detail)}"
    return Result(exercise.name, False, text + after, **shown)


def _hinted(exercise: Exercise, wrong: list[tuple], near: str, told: str, tell: bool) -> Result:
    """Say which mistake a wrong value is, or how to come nearer; the right one only to who asks for it."""
    args, value, _ = wrong[0]
    mistake = next((m for m in exercise.mistakes if _is_mistake(exercise, m, args, value)), None)
    text = f"Not right: {near}." if mistake is None else _sentence(mistake.text)
    if tell:
        text += f" To tell you: {told}."
    elif mistake is None and exercise.hint:
        text += f" {exercise.hint} (With `tell=True` the check tells you.)"
    return Result(exercise.name, False, text, mistake and mistake.name)


def _size(args: tuple) -> int:
    """Return how many numbers the arguments hold."""
    return sum(arg.P.size if isinstance(arg, FiniteMDP) else np.size(arg) for arg in args)


def _instance(exercise: Exercise, args: tuple) -> str:
    """Say what a function was called with."""
    names = inspect.signature(exercise.right).parameters
    said = ", ".join(f"{name} = {_shown(arg)}" for name, arg in zip(names, args, strict=False))
    return f" That was with {said}; the result's `arguments` holds it."


def _shown(arg: Any) -> str:
    """Write out what a function was called with, or say what it is if it is long."""
    if isinstance(arg, FiniteMDP):
        return f"a game of {arg.n_states} states, {arg.n_actions} actions and gamma = {arg.gamma:.4g}"
    if isinstance(arg, np.ndarray) and arg.size <= 16:
        return re.sub(r"\s+", " ", np.array2string(arg, precision=4, separator=", "))
    if isinstance(arg, np.ndarray):
        return f"an array of shape {arg.shape}"
    return f"{arg:.6g}" if isinstance(arg, (int, float)) else reprlib.repr(arg)


def _is_mistake(exercise: Exercise, mistake: Mistake, args: tuple, value: Any) -> bool:
    wrong = np.asarray(mistake.wrong(*args), dtype=float)
    try:
        found = _numbers(value, wrong.shape)
    except Fault:
        return False
    return bool(_close(found, wrong, _rtol(exercise, value)).all())


def _rtol(exercise: Exercise, value: Any) -> float:
    coarse = str(getattr(value, "dtype", "")).endswith(("float32", "float16"))
    return max(exercise.rtol, 1e-4) if coarse else exercise.rtol


def _close(found: np.ndarray, right: np.ndarray, rtol: float) -> np.ndarray:
    scale = np.abs(right).max(initial=0.0)
    return np.asarray(np.abs(found - right) <= rtol * np.maximum(np.abs(right), scale) + 1e-12)


def _numbers(value: Any, shape: tuple[int, ...], args: tuple = (), *, logical: bool = True) -> np.ndarray:
    """Return an answer as float64 numbers of the wanted shape, or say what it is instead."""
    try:
        found = np.asarray(_plain(value))
    except Exception as error:  # whatever a student's object does when it is asked for numbers
        raise Fault(f"must be numbers of shape {shape}, and is {_kind(value)} that makes no array") from error
    if found.dtype.kind == "O" and all(isinstance(x, (numbers.Real, decimal.Decimal)) for x in found.flat):
        found = np.array([_as_float(x) for x in found.flat]).reshape(found.shape)  # fractions, long integers
    if found.dtype.kind == "c" and np.all(np.abs(found.imag) <= 1e-9 * np.abs(found.real)):
        found = found.real  # an eigenvalue that is real, for instance
    if found.dtype.kind in "SU":
        raise Fault(f"must be real numbers, and is text: {reprlib.repr(value)}")
    if found.dtype.kind not in "biuf" or (found.dtype.kind == "b" and not logical):
        what = "a function; hand in what it returns" if callable(value) else f"{_kind(value)} of dtype {found.dtype}"
        raise Fault(f"must be real numbers, and is {what}")
    if found.shape != shape:
        want = "one number" if shape == () else f"shape {shape}"
        raise Fault(f"must have {want}, and has shape {found.shape}")
    bad = np.argwhere(~np.isfinite(found))
    if len(bad):
        where = tuple(bad[0])
        raise Fault(f"must be finite: {_place(where, shape, args)}{found[where]}")
    return found.astype(float)


def _plain(value: Any) -> Any:
    """Return tensors, also those in lists, as arrays."""
    if hasattr(value, "detach"):
        return np.asarray(value.detach().cpu())
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def _as_float(number: Any) -> float:
    try:
        return float(number)
    except OverflowError:
        return np.inf if number > 0 else -np.inf


def _place(where: tuple, shape: tuple[int, ...], args: tuple) -> str:
    """Name a place: by state and action in what has the form of the table of a process among the arguments."""
    if len(where) == 2:
        table = any(isinstance(arg, FiniteMDP) and arg.R.shape == shape for arg in args)
        row, column = ("state", "action") if table else ("row", "column")
        return f"{row} {where[0]}, {column} {where[1]}: "
    return f"entry {', '.join(map(str, where))}: " if where else ""


def _kind(value: Any) -> str:
    word = type(value).__name__
    return f"{'an' if word[0].lower() in 'aeiou' else 'a'} {word}"


def _sentence(text: str, end: str = ".") -> str:
    return text.rstrip(".") + ("" if text.endswith("?") else end)
