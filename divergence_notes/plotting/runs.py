"""Runs: what became of a number from step to step, and samples side by side.

Numbers against the iteration, the step of training or a setting. Paths in the plane are `plane`; histories of the
monitor are `reports`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from divergence_notes import _checks, diagnostics
from divergence_notes._checks import ArrayLike
from divergence_notes.dynamics import Trajectory
from divergence_notes.plotting import style

if TYPE_CHECKING:
    import pandas


def plot_error(trajectory: Trajectory, *, ax: Axes | None = None, label: str | None = None, **line_kw: Any) -> Axes:
    """Draw the distance to the target against the iteration, on a log axis.

    Parameters
    ----------
    trajectory : Trajectory
        A run with a target.
    ax : Axes, optional
        Where to draw; a new figure by default.
    label : str, optional
        Name in the legend.
    **line_kw
        Passed to ``Axes.semilogy``; the status decides colour and line style otherwise.

    Returns
    -------
    Axes
    """
    if trajectory.errors is None:
        raise ValueError("trajectory must have errors: give `iterate` a target")
    ax = style.axes(ax)
    ax.semilogy(trajectory.errors, label=label, **style.STATUS_STYLE[trajectory.status] | line_kw)
    ax.set(xlabel="iteration $k$", ylabel=r"$\|Q_k - Q^*\|_\infty$")
    return ax


def plot_sizes(trajectory: Trajectory, *, ax: Axes | None = None, label: str | None = None, **line_kw: Any) -> Axes:
    """Draw the largest absolute value against the iteration, on a log axis.

    Parameters
    ----------
    trajectory : Trajectory
        Any run.
    ax : Axes, optional
        Where to draw; a new figure by default.
    label : str, optional
        Name in the legend.
    **line_kw
        Passed to ``Axes.semilogy``; the status decides colour and line style otherwise.

    Returns
    -------
    Axes
    """
    ax = style.axes(ax)
    ax.semilogy(trajectory.sizes, label=label, **style.STATUS_STYLE[trajectory.status] | line_kw)
    ax.set(xlabel="iteration $k$", ylabel=r"$\max |Q_k|$")
    return ax


def plot_learning(
    steps: ArrayLike, errors: ArrayLike, *, ax: Axes | None = None, label: str | None = None, **line_kw: Any
) -> Axes:
    """Draw how far a learned table is from the optimal one against the steps of experience, on log axes.

    Parameters
    ----------
    steps : ndarray of shape (k,)
        Steps taken in the environment.
    errors : ndarray of shape (k,)
        Sup-norm distance to the optimal table.
    ax : Axes, optional
        Where to draw; a new figure by default.
    label : str, optional
        Name in the legend.
    **line_kw
        Passed to ``Axes.loglog``.

    Returns
    -------
    Axes
    """
    ax = style.axes(ax)
    ax.loglog(steps, errors, label=label, **line_kw)
    ax.set(xlabel="steps in the environment", ylabel=r"$\|Q - Q^*\|_\infty$")
    return ax


def plot_ratios(
    ratios: Mapping[str, ArrayLike], *, exact: ArrayLike, bounds: ArrayLike, ax: Axes | None = None
) -> Axes:
    """Draw by how much an update stretched the distance of many pairs of tables, one line of dots for each name.

    Parameters
    ----------
    ratios : mapping of str to ndarray of shape (k,)
        Distance after the update over distance before it.
    exact, bounds : sequence of float
        The exact modulus and the row-sum bound of each name.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
    """
    ax = style.axes(ax)
    ax.axvline(1, color="black", lw=1)
    for row, (values, modulus, bound) in enumerate(zip(ratios.values(), exact, bounds, strict=True)):
        lift = 0.22 * np.sin(7.0 * np.arange(len(values)))
        ax.plot(values, row + lift, ".", ms=3, alpha=0.5, color=style.BLUE, label="" if row else "pairs of tables")
        ax.plot(
            [modulus] * 2, [row - 0.36, row + 0.36], color=style.VERMILION, lw=2.5, label="" if row else "exact modulus"
        )
        ax.plot(
            [bound] * 2, [row - 0.36, row + 0.36], color=style.GREY, ls=":", lw=2, label="" if row else "row-sum bound"
        )
    ax.set_yticks(range(len(ratios)), list(ratios))
    ax.invert_yaxis()
    ax.set(xlabel="distance after / distance before")
    ax.legend(loc="lower right")
    return ax


def plot_samples(
    x: ArrayLike, samples: ArrayLike, *, ax: Axes | None = None, label: str | None = None, **line_kw: Any
) -> Axes:
    """Draw every sample as a dot, and a line through the means.

    Parameters
    ----------
    x : ndarray of shape (n,)
        Where the samples were taken.
    samples : ndarray of shape (n, m)
        The samples of each place.
    ax : Axes, optional
        Where to draw; a new figure by default.
    label : str, optional
        Name in the legend.
    **line_kw
        Passed to ``Axes.plot`` for the line.

    Returns
    -------
    Axes
    """
    x = _checks.array("x", x, ndim=1)
    samples = _checks.array("samples", samples, shape=(len(x), None))
    ax = style.axes(ax)
    (line,) = ax.plot(x, samples.mean(axis=1), label=label, **line_kw)
    ax.plot(x, samples, "o", ms=3, alpha=0.45, color=line.get_color())
    return ax


def plot_seeds(runs: "pandas.DataFrame", *, ax: Axes | None = None, label: str | None = None, **line_kw: Any) -> Axes:
    """Draw the runs of several seeds as thin lines, their mean as a thick one, and its 95 % interval as a band.

    Parameters
    ----------
    runs : DataFrame
        A column for each seed; the index is the horizontal axis. One alone has no interval.
    ax : Axes, optional
        Where to draw; a new figure by default.
    label : str, optional
        Name in the legend.
    **line_kw
        Passed to ``Axes.plot`` for the mean.

    Returns
    -------
    Axes
        It shows the runs whole; the band of two or three of them may be wider. The mean and the band end where the
        first run ended.
    """
    ax = style.axes(ax)
    x, y = runs.index.to_numpy(), runs.to_numpy(dtype=float)
    (line,) = ax.plot(x, y.mean(axis=1), label=label, **line_kw)
    ax.plot(x, y, lw=0.7, alpha=0.45, color=line.get_color())
    if y.shape[1] > 1:
        shown = ax.dataLim.frozen()
        ax.fill_between(x, *diagnostics.mean_interval(y), color=line.get_color(), alpha=0.18, lw=0)
        ax.dataLim.set(shown)
        ax.autoscale_view()
    return ax
