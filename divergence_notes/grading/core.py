"""What an exercise is, and how an answer to it is judged."""

import copy
import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from divergence_notes import _checks
from divergence_notes.grading.running import Fault, named, run
from divergence_notes.mdp import FiniteMDP

CHAPTERS = ("bellman", "function_approximation", "key_equation", "contraction", "heuristics", "preqn")
"""Each may have a module here with an `EXERCISES`; it is imported when one of its names is asked for."""

KINDS = ("function", "value", "choice", "test")

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
    ``"test"``: a function that takes an implementation and fails if it is wrong."""
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
    judged: bool = True
    """Whether it says if the answer is right; `try_out` looks at the form alone."""

    def __repr__(self) -> str:
        if not self.judged:
            return f"{self.name}: {self.message}"
        return f"{self.name}: {'right' if self.passed else 'open' if self.open else 'not yet'}. {self.message}"


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
    name: str, answer: Any, *, seed: Any = None, time_limit: float | int = 10, given: Mapping | None = None
) -> Result:
    """Judge an answer on random instances, and say what is wrong with it.

    Parameters
    ----------
    name : str
        The label of the exercise, ``"ex-..."``.
    answer : object
        A function, a number or array, the letter of a choice, or a test: what the exercise asks for.
    seed : object, optional
        Draws other instances than those that everybody gets.
    time_limit : float
        Seconds that one call of the answer may take, > 0.
    given : mapping, optional
        The numbers of a question whose numbers are drawn for each class.

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
    judge = {"function": _function, "value": _value, "choice": _choice, "test": _test}[exercise.kind]
    return _answered(
        name, answer, lambda: judge(exercise, answer, exercise.sample(seed=seed, given=given), time_limit, seed)
    )


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
    if answer is None or answer is ...:
        return Result(name, False, "Nothing here yet.", open=True)
    try:
        return judge()
    except Open:
        return Result(name, False, "Nothing here yet: it returns nothing.", open=True)
    except Fault as fault:
        return Result(name, False, _sentence(f"Your answer {fault}"))


class Open(Exception):
    """The answer is still a stub."""


def _function(exercise: Exercise, answer: Any, instances: list[tuple], time_limit: float, seed: Any) -> Result:
    if not callable(answer):
        raise Fault(f"must be a function, and is {_kind(answer)}")
    wrong = []
    for args in instances:
        value = _call(answer, args, time_limit)
        complaint = _differs(exercise, value, args)
        if complaint:
            wrong.append((args, value, complaint))
    return _verdict(exercise, wrong, len(instances))


def _value(exercise: Exercise, answer: Any, instances: list[tuple], time_limit: float, seed: Any) -> Result:
    complaint = _differs(exercise, answer, instances[0])
    return _verdict(exercise, [(instances[0], answer, complaint)] if complaint else [], 1)


def _choice(exercise: Exercise, answer: Any, instances: list[tuple], time_limit: float, seed: Any) -> Result:
    right = exercise.right(*instances[0]) if callable(exercise.right) else exercise.right
    options = {right} | {mistake.wrong for mistake in exercise.mistakes}
    given = answer.strip().upper() if isinstance(answer, str) else answer
    if given == right:
        return Result(exercise.name, True, "Yes.", share=1.0)
    for mistake in exercise.mistakes:
        if given == mistake.wrong:
            return Result(exercise.name, False, _sentence(mistake.text), mistake.name)
    raise Fault(f"must be one of {', '.join(sorted(map(str, options)))}, and is {answer!r}")


def _test(exercise: Exercise, answer: Any, instances: list[tuple], time_limit: float, seed: Any) -> Result:
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
            return exercise.judge(value, *args)
        except Fault:
            raise
        except Exception as error:  # a judge works with whatever the student made, and that may be anything
            raise Fault(f"is {_kind(value)} that cannot be judged ({named(error)})") from error
    right = np.asarray(exercise.right(*args), dtype=float)
    found = _numbers(value, right.shape, args)
    bad = np.argwhere(~_close(found, right, _rtol(exercise, value)))
    if not len(bad):
        return None
    where = tuple(bad[0])
    return f"{_place(where, right.shape, args)}{found[where]:.6g} where {right[where]:.6g} is right"


def _verdict(exercise: Exercise, wrong: list[tuple], n: int) -> Result:
    if not wrong:
        return Result(exercise.name, True, f"Right on {n} random instances." if n > 1 else "Yes.", share=1.0)
    complaint = wrong[0][2]
    said, detail = complaint if isinstance(complaint, tuple) else (complaint, "")
    detail = f": {detail}" if detail else ""
    for mistake in exercise.mistakes:
        if exercise.judge is not None and said == mistake.name:
            return Result(exercise.name, False, _sentence(_sentence(mistake.text, "") + detail), mistake.name)
        if exercise.judge is None and all(_is_mistake(exercise, mistake, value, args) for args, value, _ in wrong):
            return Result(exercise.name, False, f"{_sentence(mistake.text, '')}: {said}.", mistake.name)
    often = f" (on {len(wrong)} of {n} instances)" if n > 1 else ""
    return Result(exercise.name, False, f"Not right{often}: {_sentence(_sentence(said, '') + detail)}")


def _is_mistake(exercise: Exercise, mistake: Mistake, value: Any, args: tuple) -> bool:
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


def _numbers(value: Any, shape: tuple[int, ...], args: tuple = ()) -> np.ndarray:
    """Return an answer as float64 numbers of the wanted shape, or say what it is instead."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    try:
        found = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise Fault(f"must be numbers of shape {shape}, and is {_kind(value)} that makes no array") from error
    if found.dtype.kind not in "biuf":
        raise Fault(f"must be real numbers, and is {_kind(value)} of dtype {found.dtype}")
    if found.shape != shape:
        want = "one number" if shape == () else f"shape {shape}"
        raise Fault(f"must have {want}, and has shape {found.shape}")
    bad = np.argwhere(~np.isfinite(found))
    if len(bad):
        where = tuple(bad[0])
        raise Fault(f"must be finite: {_place(where, shape, args)}{found[where]}")
    return found.astype(float)


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
