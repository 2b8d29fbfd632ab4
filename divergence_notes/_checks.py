"""Shapes, ranges and distributions: the one voice of every input error.

Every message names the argument, what was expected, what was found and the first offender. What is asked of a network
is in `_passes` and `_rowwise`; what an answer to an exercise did wrong is said by `grading`.
"""

import math
import operator
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

ArrayLike = np.ndarray | Sequence | float | int
"""What `array` reads. Under a type checker the alias of numpy refuses tuples and plain floats, and is slow."""

TOLERANCE = 1e-8
"""How far a sum of probabilities may be from its exact value."""

_NUMBERS = "biufO"
"""Kinds of numpy's types in which numbers come; what is an object may say that it is none."""

MEMORY = 2e9
"""Bytes that a single call may take beyond its arguments without being asked."""


def array(
    name: str,
    value: Any,
    *,
    shape: tuple[int | None, ...] | None = None,
    ndim: int | None = None,
    beside: str | None = None,
) -> np.ndarray:
    """Return `value` as a finite float64 array of the given shape (``None`` stands for any length).

    `beside` names the argument that the shape was taken from, since that one may as well be the wrong one.
    """
    try:
        given = np.asarray(value)
        if given.dtype.kind not in _NUMBERS:  # numpy would drop imaginary parts with a mere warning, and read text
            raise TypeError(given.dtype)
        out = given.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be an array of real numbers, got {type(value).__name__}") from error
    if ndim is not None and out.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimensions, got shape {out.shape}")
    if shape is not None and not _matches(out.shape, shape):
        raise ValueError(f"{name} must have shape {_shape(shape)}, got {out.shape}{_while(beside)}")
    finite(name, out)
    return out


def is_sparse(value: Any) -> bool:
    """Return whether `value` is a matrix of scipy.sparse.

    Who has one has imported scipy.sparse; nobody else should wait for it.
    """
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and sparse.issparse(value)


def _while(beside: str | None) -> str:
    return "" if beside is None else f", while {beside}"


def _matches(found: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(found) == len(wanted) and all(w is None or f == w for f, w in zip(found, wanted, strict=True))


def _shape(shape: tuple[int | None, ...]) -> str:
    inside = ", ".join("any" if n is None else str(n) for n in shape)
    return f"({inside},)" if len(shape) == 1 else f"({inside})"


def entry(name: str, index: np.ndarray) -> str:
    """Write one entry of an array the way a reader would: ``P[3, 1]``; a scalar has no index."""
    inside = ", ".join(str(int(i)) for i in index)
    return f"{name}[{inside}]" if inside else name


def finite(name: str, value: np.ndarray) -> None:
    """Raise unless every entry is finite."""
    fine = np.isfinite(value)
    if not fine.all():  # looking for the first offender costs more than knowing that there is none
        bad = np.argwhere(~fine)
        raise ValueError(f"{name} must be finite: {entry(name, bad[0])} is {value[tuple(bad[0])]}")


def non_negative(name: str, value: np.ndarray) -> None:
    """Raise unless every entry is at least zero."""
    bad = np.argwhere(value < 0)
    if len(bad):
        raise ValueError(f"{name} must be non-negative: {entry(name, bad[0])} is {value[tuple(bad[0])]:.6g}")


def distribution(name: str, value: Any, *, size: int, beside: str | None = None) -> np.ndarray:
    """Return `value` as a probability vector of length `size`."""
    out = array(name, value, shape=(size,), beside=beside)
    non_negative(name, out)
    total = out.sum()
    if abs(total - 1.0) > TOLERANCE:
        raise ValueError(f"{name} must be a distribution: its entries sum to {total:.6g}, not to 1")
    return out


def square(name: str, value: Any, *, size: int | None = None, beside: str | None = None) -> np.ndarray:
    """Return `value` as a square matrix, of order `size` if that is given."""
    out = array(name, value, ndim=2)
    if out.shape[0] != out.shape[1] or (size is not None and out.shape[0] != size):
        raise ValueError(f"{name} must have shape {_square(size)}, got {out.shape}{_while(beside)}")
    return out


def _square(size: int | None) -> str:
    return "(n, n)" if size is None else f"({size}, {size})"


def scalar(
    name: str,
    value: Any,
    *,
    low: float | int | None = None,
    high: float | int | None = None,
    low_open: bool = False,
    high_open: bool = False,
) -> float:
    """Return `value` as a float inside the interval from `low` to `high`."""
    kind = getattr(getattr(value, "dtype", None), "kind", "f")  # those of torch have no kind
    if isinstance(value, (bool, str, bytes)) or kind == "b" or kind not in _NUMBERS or np.ndim(value) != 0:
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        out = float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a number, got {value!r}") from error
    below = low is not None and (out < low or (low_open and out == low))
    above = high is not None and (out > high or (high_open and out == high))
    if not np.isfinite(out) or below or above:
        raise ValueError(f"{name} must be {_interval(low, high, low_open, high_open)}, got {value!r}")
    return out


def _interval(low: float | int | None, high: float | int | None, low_open: bool, high_open: bool) -> str:
    if low is None and high is None:
        return "finite"
    left = "(-inf" if low is None else f"{'(' if low_open else '['}{low:g}"
    right = "inf)" if high is None else f"{high:g}{')' if high_open else ']'}"
    return f"in {left}, {right}"


def integer(name: str, value: Any, *, low: int | None = None, high: int | None = None) -> int:
    """Return `value` as an int inside the closed interval from `low` to `high`."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        out = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name} must be an integer, got {value!r}") from error
    if (low is not None and out < low) or (high is not None and out > high):
        raise ValueError(f"{name} must be {_interval(low, high, False, False)}, got {out}")
    return out


def integers(name: str, value: Any, *, low: int | None = None) -> tuple[int, ...]:
    """Return a sequence as a tuple of ints, each at least `low`."""
    try:
        entries = tuple(value)
    except TypeError as error:
        raise TypeError(f"{name} must be a sequence of integers, got {value!r}") from error
    return tuple(integer(f"{name}[{k}]", each, low=low) for k, each in enumerate(entries))


def memory(what: str, *shape: int, copies: int = 1, itemsize: int = 8, hint: str = "") -> None:
    """Raise where an array of this shape, or several at a time, would need more than `MEMORY`; float64 by default."""
    needed = itemsize * copies * math.prod(int(n) for n in shape)
    if needed > MEMORY:
        size = f"{needed / 1e9:,.1f} GB"
        raise ValueError(
            f"{what} would need {size} of memory, more than {MEMORY / 1e9:g} GB: "
            f"{f'{copies} arrays' if copies > 1 else 'an array'} of shape {tuple(int(n) for n in shape)}{hint}"
        )


def choice(name: str, value: Any, options: Sequence[str]) -> str:
    """Return `value` if it is one of `options`."""
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, got {value!r}")
    return value


def indices(
    name: str, value: Any, *, high: int, shape: tuple[int | None, ...] | None = None, beside: str | None = None
) -> np.ndarray:
    """Return `value` as an integer array with entries in ``0 .. high - 1``."""
    out = np.asarray(value)
    if out.dtype.kind not in "iu":
        raise TypeError(f"{name} must be an array of integers, got dtype {out.dtype}")
    if shape is not None and not _matches(out.shape, shape):
        raise ValueError(f"{name} must have shape {_shape(shape)}, got {out.shape}{_while(beside)}")
    bad = np.argwhere((out < 0) | (out >= high))
    if len(bad):
        raise ValueError(f"{name} must hold indices in [0, {high - 1}]: {entry(name, bad[0])} is {out[tuple(bad[0])]}")
    return out.astype(np.intp)
