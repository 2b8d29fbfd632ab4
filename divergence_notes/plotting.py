"""Results in, Axes out: every figure of the book is drawn here, in one style.

Nothing is computed and no style is set at import; `use_style` is called once by each chapter. An Axes gets no title:
the caption of the figure is its title.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, TwoSlopeNorm
from scipy.ndimage import distance_transform_edt

from divergence_notes import _checks
from divergence_notes._checks import ArrayLike
from divergence_notes.dynamics import Portrait, Trajectory

BLUE, VERMILION, AMBER, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#8A4F9E", "#5A5A5A"

STATUS_STYLE: dict[str, dict[str, Any]] = {
    "converged": {"color": BLUE, "linestyle": "-"},
    "diverged": {"color": VERMILION, "linestyle": "--"},
    "undecided": {"color": PURPLE, "linestyle": "-."},
}
"""A colour that the colour-blind can tell apart, and a line style, for each status; the same in every chapter."""

SERIES = [
    {"color": BLUE, "linestyle": "-"},
    {"color": VERMILION, "linestyle": "--"},
    {"color": GREEN, "linestyle": "-."},
    {"color": PURPLE, "linestyle": ":"},
    {"color": AMBER, "linestyle": (0, (5, 1, 1, 1, 1, 1))},
]
"""Colour and line style of the first, second, ... series of a figure."""

KERNEL_CMAP, VALUE_CMAP = "RdBu_r", "viridis"

_STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 130,
    "figure.figsize": (6.4, 3.8),
    "font.size": 10.5,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "svg.fonttype": "none",
}


def use_style() -> None:
    """Set the style of the book for the figures that follow."""
    plt.rcParams.update(_STYLE)


def _axes(ax: Axes | None, **subplots_kw: Any) -> Axes:
    return plt.subplots(**subplots_kw)[1] if ax is None else ax


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
    ax = _axes(ax)
    ax.semilogy(trajectory.errors, label=label, **STATUS_STYLE[trajectory.status] | line_kw)
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
    ax = _axes(ax)
    ax.semilogy(trajectory.sizes, label=label, **STATUS_STYLE[trajectory.status] | line_kw)
    ax.set(xlabel="iteration $k$", ylabel=r"$\max |Q_k|$")
    return ax


def plot_kernel(
    kernel: ArrayLike,
    *,
    ax: Axes | None = None,
    labels: Sequence[str] | None = None,
    limit: float | int | None = None,
    colorbar: bool = True,
) -> Axes:
    """Draw a kernel as an image: red pulls along, blue pushes away, white leaves alone.

    Parameters
    ----------
    kernel : ndarray of shape (n, m)
        Row `i`, column `j`: how a step at pair `j` moves pair `i`.
    ax : Axes, optional
        Where to draw; a new figure by default.
    labels : sequence of str, optional
        Names of the pairs, for both axes of a square kernel.
    limit : float, optional
        Value of the darkest red; the largest absolute entry by default.
    colorbar : bool
        Draw the scale.

    Returns
    -------
    Axes
    """
    kernel = _checks.array("kernel", kernel, ndim=2)
    ax = _axes(ax)
    image = ax.imshow(kernel, cmap=KERNEL_CMAP, norm=_signed(kernel, limit), aspect="auto")
    ax.grid(False)
    ax.set(xlabel="trained pair $j$", ylabel="moved pair $i$")
    if labels is not None:
        ax.set_xticks(range(len(labels)), labels)
        ax.set_yticks(range(len(labels)), labels)
    if colorbar:
        ax.figure.colorbar(image, ax=ax, label="$K_{ij}$")
    return ax


def _signed(values: np.ndarray, limit: float | int | None) -> TwoSlopeNorm:
    """Return the scale with white at zero and the same reach on both sides."""
    reach = (float(np.abs(values).max()) or 1.0) if limit is None else limit
    return TwoSlopeNorm(0, -reach, reach)


def _ink(color: Sequence[float]) -> str:
    """Return the colour of a text that can be read on `color`."""
    return "black" if np.dot(color[:3], (0.299, 0.587, 0.114)) > 0.5 else "white"


def plot_table(
    Q: ArrayLike,
    *,
    ax: Axes | None = None,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    limits: tuple[float | int, float | int] | None = None,
    digits: int | None = 2,
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

    Returns
    -------
    Axes
    """
    Q = _checks.array("Q", Q, ndim=2)
    ax = _axes(ax)
    low, high = (Q.min(), Q.max()) if limits is None else limits
    image = ax.imshow(Q, cmap=VALUE_CMAP, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    ax.grid(False)
    ax.set(xlabel="action $a$", ylabel="state $s$")
    ax.set_xticks(range(Q.shape[1]), column_labels)
    if digits is None:
        return ax
    ax.set_yticks(range(Q.shape[0]), row_labels)
    for (row, column), value in np.ndenumerate(Q):
        ink = _ink(image.cmap(image.norm(value)))
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

    Returns
    -------
    Axes
    """
    values = _checks.array("values", values, ndim=2)
    ax = _axes(ax)
    low, high = (values.min(), values.max()) if limits is None else limits
    image = ax.imshow(values, cmap=VALUE_CMAP, vmin=low, vmax=high)
    for (row, column), value in np.ndenumerate(values):
        ink, mark = _ink(image.cmap(image.norm(value))), "" if marks is None else marks[row][column]
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


def plot_plane(field: ArrayLike, x: ArrayLike, y: ArrayLike, *, ax: Axes | None = None, diagonal: bool = True) -> Axes:
    """Draw the flow of an update in the plane of Q.

    Parameters
    ----------
    field : ndarray of shape (m, n, 2)
        Displacements, as `dynamics.vector_field` returns them.
    x, y : ndarray of shape (n,) and (m,)
        The grid.
    ax : Axes, optional
        Where to draw; a new figure by default.
    diagonal : bool
        Draw the line on which two actions of one state tie, where the greedy action changes.

    Returns
    -------
    Axes
    """
    x, y = _checks.array("x", x, ndim=1), _checks.array("y", y, ndim=1)
    field = _checks.array("field", field, shape=(len(y), len(x), 2))
    ax = _axes(ax, figsize=(4.2, 4.0))
    low, high = max(x[0], y[0]), min(x[-1], y[-1])
    if diagonal:
        ax.plot([low, high], [low, high], color=GREY, lw=1, ls=(0, (1, 2)), zorder=1)
    ax.streamplot(
        x, y, field[..., 0], field[..., 1], color="#B8C4CE", linewidth=0.8, density=0.9, arrowsize=0.8, zorder=0
    )
    ax.grid(False)
    ax.set(xlabel="$Q_1$", ylabel="$Q_2$", xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), aspect="equal")
    return ax


def plot_path(trajectory: Trajectory, *, ax: Axes | None = None, **line_kw: Any) -> Axes:
    """Draw the iterates of a two-number Q-function as a path in the plane, a dot where it starts.

    Parameters
    ----------
    trajectory : Trajectory
        A run whose values hold two numbers.
    ax : Axes, optional
        Where to draw; a new figure by default.
    **line_kw
        Passed to ``Axes.plot``; the status decides colour and line style otherwise.

    Returns
    -------
    Axes
    """
    points = _checks.array("values", trajectory.values.reshape(len(trajectory.values), -1), shape=(None, 2))
    ax = _axes(ax, figsize=(4.2, 4.0))
    (line,) = ax.plot(*points.T, **{"lw": 1.8, "clip_on": True} | STATUS_STYLE[trajectory.status] | line_kw)
    ax.plot(*points[0], "o", ms=5, color=line.get_color())
    ax.set(xlabel="$Q_1$", ylabel="$Q_2$")
    return ax


def plot_star(Q: ArrayLike, *, ax: Axes) -> Axes:
    """Mark the optimal table of a two-number problem with a star.

    Parameters
    ----------
    Q : ndarray holding two numbers
        The optimal table.
    ax : Axes
        Where to draw.

    Returns
    -------
    Axes
    """
    first, second = np.ravel(Q)
    ax.plot(first, second, marker="*", ms=15, color=AMBER, mec="black", mew=0.8, ls="none", zorder=5)
    return ax


def plot_portrait(portrait: Portrait, *, star: ArrayLike, ax: Axes | None = None, diagonal: bool = True) -> Axes:
    """Draw the flow of an update in the plane of Q, some paths, and the optimal table as a star.

    Parameters
    ----------
    portrait : Portrait
        Flow and paths, as `dynamics.portrait` returns them.
    star : ndarray holding two numbers
        The optimal table.
    ax : Axes, optional
        Where to draw; a new figure by default.
    diagonal : bool
        Draw the line on which two actions of one state tie, where the greedy action changes.

    Returns
    -------
    Axes
    """
    ax = plot_plane(portrait.field, portrait.x, portrait.y, ax=ax, diagonal=diagonal)
    for path in portrait.paths:
        plot_path(path, ax=ax)
    return plot_star(star, ax=ax)


def plot_outcomes(
    statuses: Sequence[Sequence[str]],
    *,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    ax: Axes | None = None,
) -> Axes:
    """Draw a grid of outcomes, each as a colour and a word.

    Parameters
    ----------
    statuses : sequence of sequence of str
        A status of `dynamics` for each row and column.
    row_labels, column_labels : sequence of str
        What was run.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
    """
    ax = _axes(ax)
    for row, line in enumerate(statuses):
        for column, status in enumerate(line):
            color = STATUS_STYLE[status]["color"]
            ax.add_patch(plt.Rectangle((column - 0.46, row - 0.42), 0.92, 0.84, color=color))
            ax.text(column, row, status, ha="center", va="center", color="white", fontsize="small")
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


def plot_boxes(centre: ArrayLike, radii: ArrayLike, *, ax: Axes) -> Axes:
    """Draw the points of the plane of Q within given sup-norm distances of one table: squares inside squares.

    Parameters
    ----------
    centre : ndarray holding two numbers
        The table in the middle.
    radii : ndarray of shape (k,)
        Half the side of each square.
    ax : Axes
        Where to draw.

    Returns
    -------
    Axes
    """
    first, second = np.ravel(centre)
    for radius in _checks.array("radii", radii, ndim=1):
        corner = (first - radius, second - radius)
        ax.add_patch(plt.Rectangle(corner, 2 * radius, 2 * radius, fill=False, ec=AMBER, lw=1.2, zorder=2))
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
    ax = _axes(ax)
    ax.loglog(steps, errors, label=label, **line_kw)
    ax.set(xlabel="steps in the environment", ylabel=r"$\|Q - Q^*\|_\infty$")
    return ax


def plot_column(values: ArrayLike, *, ax: Axes | None = None, limit: float | int | None = None) -> Axes:
    """Draw a vector as one column of coloured cells, in the colours of a kernel.

    Parameters
    ----------
    values : ndarray of shape (n,)
        One number for each pair.
    ax : Axes, optional
        Where to draw; a new figure by default.
    limit : float, optional
        Value of the darkest red; the largest absolute entry by default.

    Returns
    -------
    Axes
    """
    values = _checks.array("values", values, ndim=1)
    ax = _axes(ax)
    ax.imshow(values[:, None], cmap=KERNEL_CMAP, norm=_signed(values, limit), aspect="auto")
    ax.grid(False)
    ax.set(xticks=[], yticks=[])
    return ax


def plot_blocks(
    matrix: ArrayLike,
    sizes: Sequence[int],
    *,
    labels: Sequence[str],
    ax: Axes | None = None,
    limit: float | int | None = None,
) -> Axes:
    """Draw a square matrix as an image, with lines between its blocks.

    Parameters
    ----------
    matrix : ndarray of shape (n, n)
        Any real matrix.
    sizes : sequence of int
        Number of rows of each block; they sum to n.
    labels : sequence of str
        Names of the blocks.
    ax : Axes, optional
        Where to draw; a new figure by default.
    limit : float, optional
        Value of the darkest red; the largest absolute entry by default.

    Returns
    -------
    Axes
    """
    matrix = _checks.square("matrix", matrix)
    ax = _axes(ax, figsize=(4.2, 4.0))
    ax.imshow(matrix, cmap=KERNEL_CMAP, norm=_signed(matrix, limit), interpolation="nearest")
    ends = np.cumsum(sizes)
    for end in ends[:-1]:
        ax.axhline(end - 0.5, color="black", lw=0.8)
        ax.axvline(end - 0.5, color="black", lw=0.8)
    middles = ends - np.asarray(sizes) / 2 - 0.5
    ax.set_xticks(middles, labels)
    ax.set_yticks(middles, labels)
    ax.grid(False)
    ax.tick_params(length=0)
    ax.spines[["top", "right"]].set_visible(True)
    return ax


def plot_change(predicted: ArrayLike, actual: ArrayLike, *, ax: Axes | None = None, **line_kw: Any) -> Axes:
    """Draw the real change of each value against the predicted one; on the diagonal the prediction is right.

    Parameters
    ----------
    predicted, actual : ndarray of shape (n,)
        One number for each pair.
    ax : Axes, optional
        Where to draw; a new figure by default.
    **line_kw
        Passed to ``Axes.plot``.

    Returns
    -------
    Axes
    """
    predicted = _checks.array("predicted", predicted, ndim=1)
    actual = _checks.array("actual", actual, shape=predicted.shape)
    ax = _axes(ax, figsize=(4.2, 4.0))
    ax.axline((0, 0), slope=1, color=GREY, lw=1, ls=(0, (1, 2)), zorder=0)
    ax.plot(predicted, actual, **{"marker": "o", "ms": 4, "ls": "none", "color": BLUE, "alpha": 0.7} | line_kw)
    ax.set(xlabel="predicted change", ylabel="real change")
    return ax


def plot_prediction(alphas: ArrayLike, predicted: ArrayLike, actual: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Draw the real change of one value against the step size, and the straight line that predicts it.

    Parameters
    ----------
    alphas, predicted, actual : ndarray of shape (k,)
        Step sizes, and the change of the value at each.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
    """
    alphas = _checks.array("alphas", alphas, ndim=1)
    ax = _axes(ax, figsize=(5.2, 3.6))
    ax.plot(alphas, _checks.array("actual", actual, shape=alphas.shape), label="real", **SERIES[0])
    ax.plot(alphas, _checks.array("predicted", predicted, shape=alphas.shape), label="predicted", **SERIES[1])
    ax.set(xlabel=r"step size $\alpha$", ylabel="change of the value")
    ax.legend(loc="upper left")
    return ax


def plot_remainders(alphas: ArrayLike, remainders: Mapping[str, ArrayLike], *, ax: Axes | None = None) -> Axes:
    """Draw the size of a remainder against the step size, on two log axes, beside a line of slope 2.

    Parameters
    ----------
    alphas : ndarray of shape (k,)
        Step sizes.
    remainders : mapping of str to ndarray of shape (k,)
        One positive curve for each name.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
    """
    alphas = _checks.array("alphas", alphas, ndim=1)
    ax = _axes(ax)
    for style, (name, sizes) in zip(SERIES, remainders.items(), strict=False):
        ax.loglog(alphas, _checks.array(name, sizes, shape=alphas.shape), marker="o", ms=4, label=name, **style)
    top = max(np.max(sizes) for sizes in remainders.values())
    ax.loglog(alphas, 3 * top * (alphas / alphas[-1]) ** 2, color=GREY, lw=1, ls=(0, (1, 2)), label="slope 2")
    ax.set(xlabel=r"step size $\alpha$", ylabel="largest error of the prediction")
    ax.legend()
    return ax


def plot_box_images(
    images: ArrayLike,
    *,
    ax: Axes | None = None,
    shape: ArrayLike = ((1, 1), (-1, 1), (-1, -1), (1, -1)),
    labels: Sequence[str] | None = None,
    bound: float | int | None = None,
) -> Axes:
    """Draw the unit square and its images under the pieces of an update, a cross on every corner that sticks out.

    Parameters
    ----------
    images : ndarray of shape (n_policies, m, 2)
        Corners of each image, as `contraction.box_images` returns them.
    ax : Axes, optional
        Where to draw; a new figure by default.
    shape : ndarray of shape (m, 2)
        Corners of the shape that was mapped, in order; the unit square by default.
    labels : sequence of str, optional
        Names of the images, for the legend.
    bound : float, optional
        Half the side of a second square, dotted.

    Returns
    -------
    Axes
    """
    shape = _checks.array("shape", shape, shape=(None, 2))
    images = _checks.array("images", images, shape=(None, len(shape), 2))
    ax = _axes(ax, figsize=(4.2, 4.2))
    ax.add_patch(plt.Polygon(shape, fc="#EEF1F4", ec="black", lw=1.5, zorder=0, label="unit ball"))
    inside = plt.Polygon(shape * (1 + 1e-9)).get_path()
    names = [None] * len(images) if labels is None else labels
    for style, image, name in zip(SERIES, images, names, strict=False):
        ax.add_patch(plt.Polygon(image, fc=style["color"], alpha=0.18, zorder=1))
        outline = {"fill": False, "ec": style["color"], "ls": style["linestyle"], "lw": 1.8, "zorder": 2}
        ax.add_patch(plt.Polygon(image, label=name, **outline))
        out = image[~inside.contains_points(image, radius=1e-9)]
        ax.plot(*out.T, marker="X", ms=8, ls="none", color=style["color"], mec="white", zorder=3)
    if bound is not None:
        outline = {"fill": False, "ec": GREY, "ls": (0, (2, 2)), "lw": 1.4, "zorder": 1}
        ax.add_patch(plt.Rectangle((-bound, -bound), 2 * bound, 2 * bound, label="row-sum bound", **outline))
    reach = 1.1 * max(float(np.abs(shape).max()), float(np.abs(images).max()), bound or 0.0)
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), xlabel="first pair", ylabel="second pair", aspect="equal")
    ax.grid(False)
    return ax


def plot_approach(first: Trajectory, second: Trajectory, *, ax: Axes | None = None, every: int = 1) -> Axes:
    """Draw two runs of one update in the plane of Q, and the rungs that join the points of the same time.

    Parameters
    ----------
    first, second : Trajectory
        Runs whose values hold two numbers.
    ax : Axes, optional
        Where to draw; a new figure by default.
    every : int
        Draw a rung at every so many steps.

    Returns
    -------
    Axes
    """
    ax = _axes(ax, figsize=(4.2, 4.0))
    ends = [run.values.reshape(len(run.values), -1)[::every] for run in (first, second)]
    for start, end in zip(*ends, strict=False):
        ax.plot(*np.stack([start, end]).T, color=GREY, lw=0.7, alpha=0.6, zorder=0)
    plot_path(first, ax=ax, color=BLUE, linestyle="-")
    return plot_path(second, ax=ax, color=VERMILION, linestyle="--")


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
    ax = _axes(ax)
    ax.axvline(1, color="black", lw=1)
    for row, (values, modulus, bound) in enumerate(zip(ratios.values(), exact, bounds, strict=True)):
        lift = 0.22 * np.sin(7.0 * np.arange(len(values)))
        ax.plot(values, row + lift, ".", ms=3, alpha=0.5, color=BLUE, label="" if row else "pairs of tables")
        ax.plot([modulus] * 2, [row - 0.36, row + 0.36], color=VERMILION, lw=2.5, label="" if row else "exact modulus")
        ax.plot([bound] * 2, [row - 0.36, row + 0.36], color=GREY, ls=":", lw=2, label="" if row else "row-sum bound")
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
    ax = _axes(ax)
    (line,) = ax.plot(x, samples.mean(axis=1), label=label, **line_kw)
    ax.plot(x, samples, "o", ms=3, alpha=0.45, color=line.get_color())
    return ax


def plot_response(
    change: ArrayLike,
    *,
    trained: tuple[int, int],
    ax: Axes | None = None,
    limit: float | int | None = None,
    colorbar: bool = False,
) -> Axes:
    """Draw what one update does to every cell of a grid, on the scale of `plot_kernel`, a cross on the trained cell.

    Parameters
    ----------
    change : ndarray of shape (rows, columns)
        One column of a kernel, a number for each cell.
    trained : (int, int)
        Row and column of the cell that was trained.
    ax : Axes, optional
        Where to draw; a new figure by default.
    limit : float, optional
        Value of the darkest red; the largest absolute entry by default.
    colorbar : bool
        Draw the scale.

    Returns
    -------
    Axes
    """
    ax = plot_kernel(change, ax=ax, limit=limit, colorbar=False)
    if colorbar:
        ax.figure.colorbar(ax.images[0], ax=ax, label="change / own change", shrink=0.8)
    ax.plot(trained[1], trained[0], "+", color="black", ms=9, mew=1.5)
    ax.set(xlabel="column", ylabel="row", aspect="equal")
    return ax


def plot_diagram(
    places: ArrayLike,
    labels: Sequence[str],
    arrows: Sequence[tuple[int, int]],
    *,
    dashed: Sequence[tuple[int, int]] = (),
    ax: Axes | None = None,
    radius: float | int = 0.34,
) -> Axes:
    """Draw the states of a process as circles and its transitions as arrows.

    Parameters
    ----------
    places : ndarray of shape (n_states, 2)
        Where each state lies.
    labels : sequence of str
        What stands in each circle.
    arrows, dashed : sequence of (int, int)
        From which state to which; one from a state to itself is a loop, above it when solid and below when dashed.
    ax : Axes, optional
        Where to draw; a new figure by default.
    radius : float
        Of a circle, in units of `places`.

    Returns
    -------
    Axes
    """
    places = _checks.array("places", places, shape=(len(labels), 2))
    ax = _axes(ax)
    for place, label in zip(places, labels, strict=True):
        ax.add_patch(plt.Circle(place, radius, facecolor="#E8EEF3", edgecolor=GREY, zorder=2))
        ax.text(*place, label, ha="center", va="center", zorder=3)
    for pairs, side, line in ((arrows, 1, "-"), (dashed, -1, (0, (4, 2)))):
        style = {"arrowstyle": "-|>", "mutation_scale": 13, "color": BLUE if side > 0 else VERMILION, "linestyle": line}
        for start, end in pairs:
            tail, tip = places[start], places[end]
            if start == end:
                out, up = np.array([0.5 * radius, 0]), np.array([0, side * 0.87 * radius])
                tail, tip, bend = tail - out + up, tip + out + up, f"arc3,rad={-1.9 * side}"
            else:
                along = radius * (tip - tail) / np.linalg.norm(tip - tail)
                tail, tip, bend = tail + along, tip - along, "arc3,rad=0"
            ends = {"connectionstyle": bend, "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", xy=tip, xytext=tail, arrowprops=style | ends)
    margin = 2.2 * radius
    ax.set(xlim=(places[:, 0].min() - margin, places[:, 0].max() + margin), aspect="equal")
    ax.set(ylim=(places[:, 1].min() - margin, places[:, 1].max() + margin))
    ax.set_axis_off()
    return ax


def plot_boundary(
    x: ArrayLike,
    boundary: ArrayLike,
    *,
    below: str,
    above: str,
    ax: Axes | None = None,
    low: float | int = 0,
    high: float | int = 1,
) -> Axes:
    """Draw a curve that parts the plane into a region with one fate and a region with another.

    Parameters
    ----------
    x, boundary : ndarray of shape (n,)
        The curve.
    below, above : str
        A status of `dynamics` for each side.
    ax : Axes, optional
        Where to draw; a new figure by default.
    low, high : float
        Range of the vertical axis.

    Returns
    -------
    Axes
    """
    x, boundary = _checks.array("x", x, ndim=1), _checks.array("boundary", boundary, ndim=1)
    ax = _axes(ax)
    ax.plot(x, boundary, color=GREY)
    for status, edge in ((below, low), (above, high)):
        ax.fill_between(x, boundary, edge, color=STATUS_STYLE[status]["color"], alpha=0.18, lw=0)
        middle = len(x) // 3
        ax.text(x[middle], (boundary[middle] + edge) / 2, status, ha="center", va="center")
    ax.set(xlim=(x[0], x[-1]), ylim=(low, high))
    return ax


def plot_regions(
    codes: ArrayLike, x: ArrayLike, y: ArrayLike, *, labels: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Draw a map of regions, each with a colour, a number in it, and a name beside it.

    Parameters
    ----------
    codes : ndarray of int, shape (m, n)
        Number of the region of each point, from 0.
    x, y : ndarray of shape (n,) and (m,)
        The grid.
    labels : sequence of str
        Names of the regions; the last one is drawn in the colour of divergence.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
    """
    codes = _checks.indices("codes", codes, high=len(labels), shape=(len(y), len(x)))
    ax = _axes(ax)
    steps = plt.get_cmap("Blues_r")(np.linspace(0.15, 0.85, len(labels) - 1))
    colors = ListedColormap([*steps, VERMILION])
    ax.pcolormesh(x, y, codes, cmap=colors, vmin=-0.5, vmax=len(labels) - 0.5, shading="nearest", rasterized=True)
    for code in np.unique(codes):
        depth = distance_transform_edt(np.pad(codes == code, 1))[1:-1, 1:-1]
        row, column = np.unravel_index(depth.argmax(), depth.shape)
        ink = _ink(colors(int(code)))
        ax.text(x[column], y[row], str(code + 1), ha="center", va="center", color=ink, weight="bold")
    keys = [plt.Rectangle((0, 0), 1, 1, color=colors(code)) for code in range(len(labels))]
    names = [f"{code + 1} {label}" for code, label in enumerate(labels)]
    ax.legend(keys, names, loc="upper left", bbox_to_anchor=(1.01, 1))
    ax.grid(False)
    return ax
