"""Iterating an operator, and saying what became of the iterates.

Any map of arrays will do: a Bellman operator, an update, a sweep. What the iterates of a network's training do is told
with the same words, `Status`; the operators themselves are `bellman` and `updates`, the pictures `plotting`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from divergence_notes import _checks
from divergence_notes._checks import ArrayLike

Status = Literal["converged", "diverged", "undecided"]
"""What becomes of iterates, and the only thing that `status` means in this package: they came to rest, they left a
bound or were not finite, or neither was seen in the steps that were taken. Divergence is a result, no exception."""

STATUSES = get_args(Status)
"""The three words."""

Operator = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The iterates of an operator and what became of them."""

    values: np.ndarray
    """The iterates Q_0, Q_1, ..., stacked: shape (k + 1, ...)."""
    errors: np.ndarray | None
    """Sup-norm distance of each iterate to the target, shape (k + 1,); None when no target was given."""
    status: Status
    """What became of them."""

    @property
    def steps(self) -> np.ndarray:
        """Sup-norm length of each step, shape (k,)."""
        with np.errstate(over="ignore", invalid="ignore"):
            return sup_norm(np.diff(self.values, axis=0))

    @property
    def sizes(self) -> np.ndarray:
        """Sup norm of each iterate, shape (k + 1,)."""
        return sup_norm(self.values)


def sup_norm(values: np.ndarray) -> np.ndarray:
    """Return the largest absolute entry of each item along the first axis.

    Parameters
    ----------
    values : ndarray of shape (k, ...)
        Tables, one after the other.

    Returns
    -------
    ndarray of shape (k,)
        One number for each.
    """
    return np.abs(values).reshape(len(values), -1).max(axis=1)


def iterate(
    operator: Operator,
    Q0: ArrayLike,
    *,
    max_iter: int,
    target: ArrayLike | None = None,
    tol: float | int = 1e-10,
    bound: float | int = 1e10,
) -> Trajectory:
    r"""Apply an operator again and again: :math:`Q_{k+1} = F(Q_k)`.

    Parameters
    ----------
    operator : callable
        Maps an array to an array of the same shape.
    Q0 : ndarray
        Where to start.
    max_iter : int
        Largest number of applications, at least 1. All iterates are kept: twice these many tables may fill 2 GB.
    target : ndarray, optional
        A point of the same shape; `errors` are the distances to it.
    tol : float
        A step shorter than ``tol * max(1, |Q|)`` ends the run as converged. A short step is evidence, not a proof.
    bound : float
        An iterate after `Q0` that is larger than this in the sup norm, or not finite, ends the run as diverged.

    Returns
    -------
    Trajectory
        The iterates; the last one is the first that met a criterion.

    Raises
    ------
    ValueError
        If an argument is out of range or the operator changes the shape.
    """
    Q = _checks.array("Q0", Q0)
    max_iter = _checks.integer("max_iter", max_iter, low=1)
    tol = _checks.scalar("tol", tol, low=0)
    bound = _checks.scalar("bound", bound, low=0, low_open=True)
    goal = None if target is None else _checks.array("target", target, shape=Q.shape, beside=f"Q0 has shape {Q.shape}")
    _checks.memory("iterate", max_iter + 1, *Q.shape, copies=2, hint="; it keeps every iterate: lower max_iter")
    values = [Q]
    status: Status = "undecided"
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(max_iter):
            Q = np.array(operator(Q.copy()), dtype=np.float64)  # copies: an operator may work in place
            if Q.shape != values[0].shape:
                raise ValueError(f"operator must keep the shape {values[0].shape}, it returned {Q.shape}")
            values.append(Q)
            size, step = np.abs(Q).max(), np.abs(Q - values[-2]).max()
            if not size <= bound:
                status = "diverged"
            elif step <= tol * max(1.0, size):
                status = "converged"
            if status != "undecided":
                break
    stack = np.stack(values)
    return Trajectory(stack, None if goal is None else sup_norm(stack - goal), status)


def vector_field(operator: Operator, x: ArrayLike, y: ArrayLike, *, shape: tuple[int, ...]) -> np.ndarray:
    """Return the displacement F(Q) - Q of an operator on two numbers, over a grid of the plane.

    Parameters
    ----------
    operator : callable
        Maps an array of shape `shape` to one of the same shape.
    x, y : ndarray of shape (n,) and (m,)
        Values of the first and of the second entry of Q.
    shape : tuple of int
        Shape of Q; it must hold two numbers.

    Returns
    -------
    ndarray of shape (m, n, 2)
        The displacement at ``(x[j], y[i])`` is entry ``[i, j]``.

    Raises
    ------
    ValueError
        If `shape` does not hold two numbers.
    """
    x, y = _checks.array("x", x, ndim=1), _checks.array("y", y, ndim=1)
    if int(np.prod(shape)) != 2:
        raise ValueError(f"shape must hold two numbers, got {shape}")
    points = [[np.array([first, second]) for first in x] for second in y]
    return np.array([[operator(p.reshape(shape).copy()).ravel() - p for p in row] for row in points])


@dataclass(frozen=True, eq=False)
class Portrait:
    """The flow of an operator in the plane of two numbers, with some of its paths."""

    x: np.ndarray
    """Grid of the first number, shape (n,)."""
    y: np.ndarray
    """Grid of the second number, shape (m,)."""
    field: np.ndarray
    """Displacements on the grid, shape (m, n, 2)."""
    paths: tuple[Trajectory, ...]
    """One run from each start."""


def portrait(
    operator: Operator,
    starts: ArrayLike,
    *,
    shape: tuple[int, ...],
    limits: tuple[float | int, float | int],
    max_iter: int = 4000,
    tol: float | int = 1e-6,
    bound: float | int = 1e3,
) -> Portrait:
    """Run an operator on two numbers from several starts, and sample its flow.

    Parameters
    ----------
    operator : callable
        Maps an array of shape `shape` to one of the same shape.
    starts : ndarray of shape (k, 2)
        Where the paths begin.
    shape : tuple of int
        Shape of Q; it must hold two numbers.
    limits : (float, float)
        The square that is sampled, on both axes.
    max_iter, tol, bound : int, float, float
        As in `iterate`.

    Returns
    -------
    Portrait

    Raises
    ------
    ValueError
        If `starts` or `shape` do not hold pairs of numbers.
    """
    starts = _checks.array("starts", starts, shape=(None, 2))
    grid = np.linspace(*limits, 25)
    field = vector_field(operator, grid, grid, shape=shape)
    runs = [iterate(operator, s.reshape(shape), max_iter=max_iter, tol=tol, bound=bound) for s in starts]
    return Portrait(grid, grid, field, tuple(runs))
