"""Tables and processes: a number in each cell, an arrow for each transition, a word for each outcome.

They speak of states and actions, one cell or one node each. Matrices of pairs are `kernels`, two numbers are `plane`.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from divergence_notes import _checks
from divergence_notes._checks import ArrayLike
from divergence_notes.plotting import style


def plot_table(
    Q: ArrayLike,
    *,
    ax: Axes | None = None,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    limits: tuple[float | int, float | int] | None = None,
    digits: int | None = 2,
    best: bool = False,
) -> Axes:
    """Draw a table of action values as the spreadsheet that it is: a number in each cell.

    Parameters
    ----------
    Q : ndarray of shape (n_states, n_actions)
        Action values.
    ax : Axes, optional
        Where to draw; a new figure by default.
    row_labels, column_labels : sequence of str, optional
        Names of the states and of the actions.
    limits : (float, float), optional
        Values of the darkest and the brightest colour.
    digits : int or None
        Digits after the point; None leaves the numbers and the row of every state out, for a table too long to read.
    best : bool
        Draw a frame around the largest entry of each row, the first one on a tie, but none where all are equal.

    Returns
    -------
    Axes
    """
    Q = _checks.array("Q", Q, ndim=2)
    ax = style.axes(ax)
    low, high = (Q.min(), Q.max()) if limits is None else limits
    image = ax.imshow(Q, cmap=style.VALUE_CMAP, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    ax.grid(False)
    ax.set(xlabel="action $a$", ylabel="state $s$")
    ax.set_xticks(range(Q.shape[1]), column_labels)
    for row in np.flatnonzero(np.ptp(Q, axis=1) > 0) if best else ():
        column = int(Q[row].argmax())
        ink = style.ink(image.cmap(image.norm(Q[row, column])))
        ax.add_patch(plt.Rectangle((column - 0.46, row - 0.42), 0.92, 0.84, fill=False, ec=ink, lw=1.8))
    if digits is None:
        return ax
    ax.set_yticks(range(Q.shape[0]), row_labels)
    for (row, column), value in np.ndenumerate(Q):
        ink = style.ink(image.cmap(image.norm(value)))
        ax.text(column, row, f"{value:.{digits}f}", ha="center", va="center", color=ink, fontsize="small")
    return ax


def plot_grid(
    values: ArrayLike,
    *,
    ax: Axes | None = None,
    policy: ArrayLike | None = None,
    arrows: Sequence[tuple[int, int]] | None = None,
    limits: tuple[float | int, float | int] | None = None,
    marks: Sequence[Sequence[str]] | None = None,
    digits: int = 2,
    signed: bool = False,
) -> Axes:
    """Draw the values of the cells of a grid world, and the arrows of a policy.

    Parameters
    ----------
    values : ndarray of shape (rows, columns)
        One number for each cell.
    ax : Axes, optional
        Where to draw; a new figure by default.
    policy : ndarray of int, shape (rows * columns,), optional
        The action of each cell.
    arrows : sequence of (dx, dy), optional
        Direction of each action, y pointing down.
    limits : (float, float), optional
        Values of the darkest and the brightest colour.
    marks : sequence of sequence of str, optional
        A letter for each cell, such as H for a hole; a marked cell has no arrow.
    digits : int
        Digits after the point.
    signed : bool
        Colour the cells as `plot_kernel` does, white at zero; `limits` are not looked at then.

    Returns
    -------
    Axes
    """
    values = _checks.array("values", values, ndim=2)
    ax = style.axes(ax)
    low, high = (values.min(), values.max()) if limits is None else limits
    look = {"cmap": style.VALUE_CMAP, "vmin": low, "vmax": high}
    if signed:
        look = {"cmap": style.KERNEL_CMAP, "norm": style.signed(values, None)}
    image = ax.imshow(values, **look)
    for (row, column), value in np.ndenumerate(values):
        ink, mark = style.ink(image.cmap(image.norm(value))), "" if marks is None else marks[row][column]
        text = f"{mark}\n{value:.{digits}f}" if mark else f"{value:.{digits}f}"
        ax.text(column, row - 0.18, text, ha="center", va="center", color=ink, fontsize="small")
        if policy is not None and arrows is not None and not mark:
            dx, dy = arrows[int(np.ravel(policy)[row * values.shape[1] + column])]
            arrow = {"arrowstyle": "->", "color": ink, "lw": 1.5}
            ends = {
                "xy": (column + 0.22 * dx, row + 0.26 + 0.16 * dy),
                "xytext": (column - 0.22 * dx, row + 0.26 - 0.16 * dy),
            }
            ax.annotate("", **ends, arrowprops=arrow)
    ax.grid(False)
    ax.set(xlabel="column", ylabel="row", xticks=range(values.shape[1]), yticks=range(values.shape[0]))
    return ax


def plot_outcomes(
    statuses: Sequence[Sequence[str]],
    *,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    curves: Sequence[Sequence[ArrayLike]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a grid of outcomes, each as a colour and a word, and the curve of each run above its word.

    Parameters
    ----------
    statuses : sequence of sequence of str
        A status of `dynamics` for each row and column.
    row_labels, column_labels : sequence of str
        What was run.
    curves : sequence of sequence of ndarray of shape (k,), optional
        Numbers of each run, one after the other, k as it likes; all have the same two axes.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
    """
    ax = style.axes(ax)
    for row, line in enumerate(statuses):
        for column, status in enumerate(line):
            look = style.STATUS_STYLE[status]
            box = {"color": look["color"], "lw": 0, "alpha": 1.0 if curves is None else 0.16}
            ax.add_patch(plt.Rectangle((column - 0.46, row - 0.42), 0.92, 0.84, **box))
            if curves is None:
                ax.text(column, row, status, ha="center", va="center", color="white", fontsize="small")
            else:
                ax.text(column - 0.43, row + 0.4, status, va="bottom", color="black", fontsize="x-small")
    if curves is not None:
        _small_curves(curves, statuses, ax)
    ax.set_xticks(range(len(column_labels)), column_labels)
    ax.set_yticks(range(len(row_labels)), row_labels)
    ax.set(
        xlim=(-0.5, len(column_labels) - 0.5),
        ylim=(len(row_labels) - 0.5, -0.5),
        xlabel="switched on",
        ylabel="example",
    )
    ax.grid(False)
    return ax


def _small_curves(curves: Sequence[Sequence[ArrayLike]], statuses: Sequence[Sequence[str]], ax: Axes) -> None:
    """Draw each curve into the upper part of its cell, all on the same scale."""
    flat = [_checks.array("curves", curve, ndim=1) for line in curves for curve in line]
    low, high = (pick(pick(curve) for curve in flat) for pick in (min, max))
    longest = max(map(len, flat))
    for row, line in enumerate(curves):
        for column, (curve, status) in enumerate(zip(line, statuses[row], strict=True)):
            x = column - 0.42 + 0.84 * np.arange(len(curve)) / max(longest - 1, 1)
            y = row + 0.08 - 0.44 * (np.asarray(curve) - low) / ((high - low) or 1.0)  # rows count downwards
            ax.plot(x, y, lw=1.6, **style.STATUS_STYLE[status])


def plot_diagram(
    places: ArrayLike,
    labels: Sequence[str],
    arrows: Sequence[tuple[int, int]],
    *,
    dashed: Sequence[tuple[int, int]] = (),
    name: str | None = None,
    ax: Axes | None = None,
    radius: float | int = 0.34,
) -> Axes:
    """Draw the states of a process as circles and its transitions as arrows, with its name below.

    Parameters
    ----------
    places : ndarray of shape (n_states, 2)
        Where each state lies.
    labels : sequence of str
        What stands in each circle.
    arrows, dashed : sequence of (int, int)
        From which state to which; one from a state to itself is a loop, above it when solid and below when dashed.
        From one state to another a dashed arrow is bent, that it can be seen beside a solid one.
    name : str, optional
        What the process is called.
    ax : Axes, optional
        Where to draw; a new figure by default.
    radius : float
        Of a circle, in units of `places`.

    Returns
    -------
    Axes
    """
    places = _checks.array("places", places, shape=(len(labels), 2))
    ax = style.axes(ax)
    for place, label in zip(places, labels, strict=True):
        ax.add_patch(plt.Circle(place, radius, facecolor="#E8EEF3", edgecolor=style.GREY, zorder=2))
        ax.text(*place, label, ha="center", va="center", zorder=3)
    for pairs, side, line in ((arrows, 1, "-"), (dashed, -1, (0, (4, 2)))):
        arrow = {
            "arrowstyle": "-|>",
            "mutation_scale": 13,
            "color": "black" if side > 0 else style.GREY,
            "linestyle": line,
        }
        for start, end in pairs:
            tail, tip = places[start], places[end]
            if start == end:
                out, up = np.array([0.5 * radius, 0]), np.array([0, side * 0.87 * radius])
                tail, tip, bend = tail - out + up, tip + out + up, f"arc3,rad={-1.9 * side}"
            else:
                along = radius * (tip - tail) / np.linalg.norm(tip - tail)
                tail, tip, bend = tail + along, tip - along, f"arc3,rad={0 if side > 0 else 0.3}"
            ends = {"connectionstyle": bend, "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", xy=tip, xytext=tail, arrowprops=arrow | ends)
    margin = 2.2 * radius
    ax.set(xlim=(places[:, 0].min() - margin, places[:, 0].max() + margin), aspect="equal")
    ax.set(ylim=(places[:, 1].min() - margin, places[:, 1].max() + margin))
    ax.set_axis_off()
    if name is not None:
        ax.text(0.5, 0, name, transform=ax.transAxes, ha="center", va="top")
    return ax
