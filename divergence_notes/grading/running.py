"""Running code that may be wrong: within a time limit, on copies, and with every fault turned into words.

Whether what it returns is right is not looked at here but in `checking`. A process of its own for such code is the
coursework's affair.
"""

import copy
import ctypes
import linecache
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from divergence_notes import _checks

SLOWER = 3
"""How many times its limit something may take on the clock, where other programs keep the processor busy."""


class TimeLimit(BaseException):
    """The time is up. Not an `Exception`, so that an ``except Exception`` in the answer does not swallow it."""


class Fault(Exception):
    """What an answer did instead of answering, in words."""


class Open(Exception):
    """The answer is still a stub."""


def run(function: Callable, *args: Any, time_limit: float) -> Any:
    """Return ``function(*args)``, or raise `Fault` if it raises, exits, or takes longer than `time_limit` seconds.

    The seconds are those of the processor, so that a busy machine does not make an answer wrong, and at most `SLOWER`
    times as many on the clock.
    The call runs in a thread of its own, so that a limit holds in a notebook, in a worker thread and on every platform.
    A loop in Python is stopped; a call that never comes back from C is left behind, and the caller goes on.
    """
    outcome = {}

    def work():
        try:
            outcome["value"] = function(*args)
        except BaseException as error:  # the caller's thread is the one to judge it, `SystemExit` too
            outcome["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # a platform without threads, such as Python in a browser: no limit there
        work()
    else:
        start, used = time.monotonic(), time.process_time()
        thread.join(time_limit)
        while thread.is_alive() and not too_long(time_limit, start, used):
            thread.join(0.05)
        for _ in range(5):  # a bare ``except:`` in a loop swallows some
            if not thread.is_alive():
                break
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(TimeLimit))
            thread.join(0.2)
    if "value" in outcome:
        return outcome["value"]
    error = outcome.get("error")
    if error is None or isinstance(error, TimeLimit):
        raise Fault(f"took longer than {time_limit:g} seconds; is there a loop that never ends?")
    if isinstance(error, AssertionError):
        raise error  # a test that fails: its author is the one to judge
    raise Fault(describe(error)) from error


def too_long(time_limit: float | int, start: float, used: float) -> bool:
    """Say whether the time is up, since a time of the clock and a time of the processor."""
    return time.process_time() - used >= time_limit or time.monotonic() - start >= SLOWER * time_limit


def named(error: BaseException) -> str:
    """Return the kind of an error, and its message if it has one."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def describe(error: BaseException) -> str:
    """Say what was raised, and on which line of the answer."""
    if isinstance(error, Fault):
        return str(error)
    text = f"raised {named(error)}"
    if isinstance(error, RecursionError):
        text = "raised RecursionError: it calls itself without end"
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if frame.filename != __file__ and "site-packages" not in frame.filename]
    if theirs:
        last = theirs[-1]
        line = (last.line or linecache.getline(last.filename, last.lineno or 0)).strip()
        text += f" (line {last.lineno} of {last.name}{': ' + line if line else ''})"
    if "read-only" in str(error):
        text += ". The arguments are not yours to change: work on a copy"
    return text


def call(answer: Callable, args: tuple, *, time_limit: float) -> Any:
    """Return what a function makes of copies of the arguments, which it must leave as they are."""
    theirs = copy.deepcopy(args)
    try:
        value = run(answer, *theirs, time_limit=time_limit)
    except AssertionError as error:  # of an answer's own; where a test is asked for, it is what a test does
        raise Fault(describe(error)) from error
    for position, (before, after) in enumerate(zip(args, theirs, strict=True)):
        if not same(before, after):
            raise Fault(f"changes its argument number {position + 1} in place; work on a copy")
    if value is None or value is ... or value is NotImplemented:
        raise Open
    return value


def passes(test: Callable, implementation: Callable, *, time_limit: float) -> bool:
    """Say whether a test lets an implementation pass: it fails no assertion, and returns None or something true."""
    try:
        said = run(test, implementation, time_limit=time_limit)
    except AssertionError:
        return False
    if said is ... or said is NotImplemented:
        raise Open
    if said is None:
        return True
    try:
        return bool(said)
    except Exception as error:  # an array has no truth of its own, and what else a test returns may raise anything
        what = type(said).__name__ + (f" of shape {said.shape}" if isinstance(said, np.ndarray) else "")
        text = f"must return one True or False, or nothing, and returned {what}; try np.allclose or .all()"
        raise Fault(text) from error


def same(before: Any, after: Any) -> bool:
    """Say whether an argument is what it was; nan is the same as nan."""
    number = (int, float, np.number)
    if isinstance(before, number) and isinstance(after, number):
        return bool(before == after or (before != before and after != after))
    if type(before) is not type(after):
        return False
    if is_dataclass(before):
        return all(same(getattr(before, f.name), getattr(after, f.name)) for f in fields(before))
    if _checks.is_sparse(before):
        return same(before.toarray(), after.toarray())
    if isinstance(before, np.ndarray):
        return before.dtype == after.dtype and np.array_equal(before, after, equal_nan=before.dtype.kind in "fc")
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(same(before[key], after[key]) for key in before)
    if isinstance(before, (list, tuple)):
        return len(before) == len(after) and all(map(same, before, after))
    return True
