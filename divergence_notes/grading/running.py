"""Running code that may be wrong: within a time limit, and with every fault turned into words."""

import ctypes
import linecache
import threading
import traceback
from collections.abc import Callable
from typing import Any


class TimeLimit(BaseException):
    """The time is up. Not an `Exception`, so that an ``except Exception`` in the answer does not swallow it."""


class Fault(Exception):
    """What an answer did instead of answering, in words."""


def run(function: Callable, *args: Any, time_limit: float) -> Any:
    """Return ``function(*args)``, or raise `Fault` if it raises, exits, or takes longer than `time_limit` seconds.

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
        thread.join(time_limit)
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
