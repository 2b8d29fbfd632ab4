"""Asking about an answer: whether it is right, and what is wrong with it, or whether its form is right and no more.

How an answer is judged is a matter of its exercise's kind, in `kinds`; a grader's marks are made in the coursework.
"""

from collections.abc import Callable, Mapping
from typing import Any

from divergence_notes import _checks
from divergence_notes.grading.comparison import numbers_of
from divergence_notes.grading.exercise import Result, sentence
from divergence_notes.grading.registry import find
from divergence_notes.grading.running import Fault, Open, call
from divergence_notes.grading.typed import Computed


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

    def judge() -> Result:
        instances = exercise.sample(seed=seed, given=given)
        return exercise._judged(answer, instances, seed=seed, time_limit=time_limit, tell=tell)

    return _answered(name, answer, judge)


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
        value = call(answer, args, time_limit=float(time_limit)) if callable(answer) else answer
        numbers_of(value, shape, args)
        form = f"has the form that is asked for: {'a number' if shape == () else f'shape {shape}'}."
        return Result(name, True, f"It {'runs, and what it returns ' if callable(answer) else ''}{form}", judged=False)

    return _answered(name, answer, look)


def _nothing(answer: Any) -> bool:
    """Say whether an answer is a gap, or a list of gaps."""
    parts = answer if isinstance(answer, (list, tuple)) and answer else [answer]
    return all(part is None or part is ... or part is NotImplemented for part in parts)


def _answered(name: str, answer: Any, judge: Callable[[], Result]) -> Result:
    """Judge an answer if there is one; what it does instead of answering becomes the message."""
    if _nothing(answer):
        return Result(name, False, "Nothing here yet.", open=True)
    if isinstance(answer, Computed):
        return Result(name, False, sentence(answer.said))
    if isinstance(answer, Fault):  # there was one, and it cannot be had any more
        return Result(name, False, sentence(f"Your answer {answer}"))
    try:
        return judge()
    except Open:
        return Result(name, False, "Nothing here yet: it returns nothing.", open=True)
    except Fault as fault:
        return Result(name, False, sentence(f"Your answer {fault}"))
