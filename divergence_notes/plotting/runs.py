"""Runs: what became of a number from step to step, and samples side by side.

Numbers against the iteration, the step of training or a setting. Paths in the plane are `plane`; histories of the
monitor are `reports`.
"""

import itertools
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


def plot_rest(theta: ArrayLike, targets: ArrayLike, *, points: ArrayLike, ax: Axes | None = None) -> Axes:
    """Draw what a value is moved towards against the value itself: it rests where the curve meets the diagonal.

    Parameters
    ----------
    theta : ndarray of shape (n,)
        Values, increasing.
    targets : ndarray of shape (n,)
        The target of each.
    points : ndarray of shape (k,)
        Where the two are equal: a filled dot where short steps lead there from both sides, an open one elsewhere.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        Arrows along its lower edge show the way in which short steps go.
    """
    theta = _checks.array("theta", theta, ndim=1)
    targets = _checks.array("targets", targets, shape=theta.shape)
    points = _checks.array("points", points, ndim=1)
    ax = style.axes(ax, figsize=(3.2, 3.2))
    ax.plot(theta, theta, color=style.GREY, lw=1.2, label="the value")
    ax.plot(theta, targets, color=style.GREEN, ls="-.", label="its target")
    reach = theta[-1] - theta[0]
    for point in points:
        before, after = np.interp([point - reach / 100, point + reach / 100], theta, targets - theta)
        color = style.BLUE if before > 0 > after else style.VERMILION
        ax.plot(point, point, "o", ms=9, mew=2, color=color, mfc=color if before > 0 > after else "white", zorder=4)
    edges = np.concatenate([theta[:1], np.sort(points), theta[-1:]])
    for left, right in itertools.pairwise(edges):
        middle, half = (left + right) / 2, min(right - left, reach / 3) / 4
        way = np.sign(np.interp(middle, theta, targets - theta))
        arrow = {"arrowstyle": "-|>", "lw": 1.6, "color": "black"}
        ends = (middle + way * half, 0.06), (middle - way * half, 0.06)
        ax.annotate("", *ends, xycoords=ax.get_xaxis_transform(), arrowprops=arrow)
    ax.set(xlabel=r"$\theta$", xlim=(theta[0], theta[-1]), ylim=(theta[0], theta[-1]), aspect="equal")
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
