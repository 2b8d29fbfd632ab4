"""The border of a hidden implementation: what a test hands over is checked and copied before any of them runs.

Without it an error names the function that raised it, and whether a wrong call fails says which function it was. What
is right and wrong is in `questions`; the process that a test runs in is in `sandbox`.
"""

import copy
import dataclasses
import functools
import inspect
from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp

from divergence_notes import _checks
from divergence_notes.mdp import FiniteMDP

REFUSED = "the implementation has no answer to these arguments"
"""All that is said of an error behind the border."""
LARGEST = 250_000
"""Entries of one argument; more than any test needs, and few enough for every implementation to be quick."""


class Refused(ValueError):
    """What crosses the border instead of an answer: a sentence about the arguments alone."""


def bordered(exercise, accept):
    """Put every implementation of an exercise behind one border.

    Parameters
    ----------
    exercise : FindTheBug
        The question, with its implementations.
    accept : callable
        Has the signature that the question names. Returns clean copies of the arguments, or raises `ValueError` or
        `TypeError` with a sentence that the student may read.

    Returns
    -------
    FindTheBug
        The same, with implementations that cannot be told apart by a call with arguments that are not accepted.
    """
    guard = functools.partial(_behind, accept, exercise.right)
    mistakes = tuple(dataclasses.replace(mistake, wrong=guard(mistake.wrong)) for mistake in exercise.mistakes)
    return dataclasses.replace(exercise, right=guard(exercise.right), mistakes=mistakes)


def _behind(accept, right, hidden):
    signature = inspect.signature(accept)

    def implementation(*args, **kwargs):
        given, complaint = _accepted(accept, signature, args, kwargs)
        if complaint is None:
            # The right one goes first: where it has no answer, no other one shows whether it has.
            model = _answer(right, given)
            value = None if model is None else _answer(hidden, given, model)
            if value is not None:
                return value
            complaint = REFUSED
        raise Refused(complaint)

    return implementation


def _accepted(accept, signature, args, kwargs):
    """Return the arguments as the implementations see them, or what is wrong with them."""
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return None, f"call it as implementation{signature}"
    try:
        return accept(*args, **kwargs), None
    except (TypeError, ValueError) as error:
        return None, str(error)[:500]
    except Exception:  # an argument may be an object that raises anything when it is looked at
        return None, REFUSED


def _answer(hidden, given, model=None):
    """Return a value of the type of `model`, new and with plain zeros, or None if there is no finite one."""
    try:
        with np.errstate(all="ignore"):
            value = hidden(*copy.deepcopy(given))
        numbers = np.array(value, dtype=float) + 0.0
    except Exception:  # which error it was would say which implementation raised it
        return None
    if not np.isfinite(numbers).all():
        return None
    kind = type(value if model is None else model)
    return bool(value) if kind is bool else numbers.tolist() if kind in (list, float) else numbers


def numbers(name, value, *shape):
    """Return a new float64 array of the shape; None stands for any length."""
    if not isinstance(value, (bool, int, float, list, tuple, np.ndarray, np.generic)):
        raise TypeError(f"{name} must be numbers, got {type(value).__name__}")
    if np.size(value) > LARGEST:
        raise ValueError(f"{name} must have at most {LARGEST} entries, got {np.size(value)}")
    found = np.array(_checks.array(name, value, shape=shape), dtype=float, order="C")
    if 0 in found.shape:
        raise ValueError(f"{name} must have entries, got shape {found.shape}")
    return found


def number(name, value, low=-np.inf, high=np.inf):
    """Return a float between two bounds."""
    found = float(numbers(name, value))
    if not low <= found <= high:
        raise ValueError(f"{name} must be between {low:g} and {high:g}, got {found:g}")
    return found


def process(name, value):
    """Return a new process of dense arrays."""
    if not isinstance(value, FiniteMDP):
        raise TypeError(f"{name} must be a FiniteMDP, got {type(value).__name__}")
    if value.n_pairs * value.n_states > LARGEST:
        raise ValueError(f"{name} must have at most {LARGEST} entries in P, got {value.n_pairs * value.n_states}")
    dense = value.P.toarray().reshape(*value.R.shape, value.n_states) if sp.issparse(value.P) else value.P
    return FiniteMDP(np.array(dense), np.array(value.R), float(value.gamma))


def columns(name, value, names):
    """Return the entries of a dict that the question names; what else there is in it is left behind."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict of arrays, got {type(value).__name__}")
    missing = [key for key in names if key not in value]
    if missing:
        raise ValueError(f"{name} must have {missing[0]!r}")
    return [value[key] for key in names]


def flags(name, value, n):
    """Return zeros and ones."""
    found = numbers(name, value, n)
    if not np.isin(found, (0.0, 1.0)).all():
        raise ValueError(f"{name} must hold 0 and 1 only")
    return found
