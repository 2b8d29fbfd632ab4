"""Reading an answer as numbers, in whatever form it comes, and comparing it with the right ones.

What is wrong with the form is said as a `Fault`. What is said about wrong numbers is decided in `kinds`.
"""

import decimal
import numbers
import reprlib
from typing import Any

import numpy as np

from divergence_notes.grading.running import Fault
from divergence_notes.mdp import FiniteMDP


def numbers_of(value: Any, shape: tuple[int, ...], args: tuple = (), *, logical: bool = True) -> np.ndarray:
    """Return an answer as float64 numbers of the wanted shape, or say what it is instead."""
    try:
        found = np.asarray(plain(value))
    except Exception as error:  # whatever a student's object does when it is asked for numbers
        raise Fault(f"must be numbers of shape {shape}, and is {a_type(value)} that makes no array") from error
    if found.dtype.kind == "O" and all(isinstance(x, (numbers.Real, decimal.Decimal)) for x in found.flat):
        found = np.array([as_float(x) for x in found.flat]).reshape(found.shape)  # fractions, long integers
    if found.dtype.kind == "c" and np.all(np.abs(found.imag) <= 1e-9 * np.abs(found.real)):
        found = found.real  # an eigenvalue that is real, for instance
    if found.dtype.kind in "SU":
        raise Fault(f"must be real numbers, and is text: {reprlib.repr(value)}")
    if found.dtype.kind not in "biuf" or (found.dtype.kind == "b" and not logical):
        what = "a function; hand in what it returns" if callable(value) else f"{a_type(value)} of dtype {found.dtype}"
        raise Fault(f"must be real numbers, and is {what}")
    if found.shape != shape:
        want = "one number" if shape == () else f"shape {shape}"
        raise Fault(f"must have {want}, and has shape {found.shape}")
    bad = np.argwhere(~np.isfinite(found))
    if len(bad):
        where = tuple(bad[0])
        raise Fault(f"must be finite: {place(where, shape, args)}{found[where]}")
    return found.astype(float)


def plain(value: Any) -> Any:
    """Return tensors, also those in lists, as arrays."""
    if hasattr(value, "detach"):
        return np.asarray(value.detach().cpu())
    return [plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def as_float(number: Any) -> float:
    """Return a number as a float; one that is too large is infinite."""
    try:
        return float(number)
    except OverflowError:
        return np.inf if number > 0 else -np.inf


def tolerance(rtol: float, value: Any) -> float:
    """Return the relative deviation that an answer may have: in single precision at least what that can hold."""
    coarse = str(getattr(value, "dtype", "")).endswith(("float32", "float16"))
    return max(rtol, 1e-4) if coarse else rtol


def close(found: np.ndarray, right: np.ndarray, rtol: float) -> np.ndarray:
    """Return where an answer counts as right."""
    # Relative to the largest entry: an entry that is 0 on paper is a rounding error of the others.
    scale = np.abs(right).max(initial=0.0)
    return np.asarray(np.abs(found - right) <= rtol * np.maximum(np.abs(right), scale) + 1e-12)


def told_apart(found: float, right: float) -> tuple[str, str]:
    """Write two numbers with as few digits as tell them apart, and with no fewer than six."""
    written = [(f"{found:.{digits}g}", f"{right:.{digits}g}") for digits in (6, 9, 12, 17)]
    return next((pair for pair in written if pair[0] != pair[1]), written[-1])


def place(where: tuple, shape: tuple[int, ...], args: tuple) -> str:
    """Name a place: by state and action in what has the form of the table of a process among the arguments."""
    if len(where) == 2:
        table = any(isinstance(arg, FiniteMDP) and arg.R.shape == shape for arg in args)
        row, column = ("state", "action") if table else ("row", "column")
        return f"{row} {where[0]}, {column} {where[1]}: "
    return f"entry {', '.join(map(str, where))}: " if where else ""


def a_type(value: Any) -> str:
    """Name the type of a value, with its article."""
    word = type(value).__name__
    return f"{'an' if word[0].lower() in 'aeiou' else 'a'} {word}"
