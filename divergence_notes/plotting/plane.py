"""The plane of Q: flows, paths, boxes, and maps of regions.

Q has two numbers here, and each is an axis. Values against the iteration are `runs`; tables of more numbers are
`tables`.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Wedge

from divergence_notes import _checks, diagnostics
from divergence_notes._checks import ArrayLike
from divergence_notes.dynamics import Portrait, Trajectory
from divergence_notes.plotting import style

_STAR = {"marker": "*", "ms": 15, "mec": "black", "mew": 0.8, "ls": "none"}
_TIE = {"color": style.GREY, "lw": 1, "ls": (0, (1, 2))}


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
    ax = style.axes(ax, figsize=(4.2, 4.0))
    low, high = max(x[0], y[0]), min(x[-1], y[-1])
    if diagonal:
        ax.plot([low, high], [low, high], zorder=1, **_TIE)
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
    ax = style.axes(ax, figsize=(4.2, 4.0))
    (line,) = ax.plot(*points.T, **{"lw": 1.8, "clip_on": True} | style.STATUS_STYLE[trajectory.status] | line_kw)
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
    ax.plot(first, second, color=style.AMBER, zorder=5, **_STAR)
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


def plot_basin(fates: Sequence[str], *, ax: Axes, centre: ArrayLike = (0, 0), radius: float | int = 10) -> Axes:
    """Shade the directions round a table by what becomes of a start in each: the basin of those that come home.

    That is a picture of all starts where only the direction of a start matters, as without rewards.

    Parameters
    ----------
    fates : sequence of str
        A status of `dynamics` for each direction, evenly spaced, counter-clockwise, the first to the right.
    ax : Axes
        Where to draw; its limits stay.
    centre : ndarray holding two numbers
        The table in the middle.
    radius : float
        How far the shade reaches.

    Returns
    -------
    Axes
    """
    width, limits = 360 / len(fates), (ax.get_xlim(), ax.get_ylim())
    starts = [k for k, fate in enumerate(fates) if k == 0 or fate != fates[k - 1]]
    for start, end in zip(starts, [*starts[1:], len(fates)], strict=True):
        color = style.STATUS_STYLE[fates[start]]["color"]
        edges = ((start - 0.5) * width, (end - 0.5) * width)
        ax.add_patch(Wedge(np.ravel(centre), radius, *edges, color=color, alpha=0.16, lw=0, zorder=0))
    ax.set(xlim=limits[0], ylim=limits[1])
    return ax


def plot_portraits(portraits: Mapping[str, Portrait], *, stars: Sequence[ArrayLike], ties: Sequence[bool]) -> Figure:
    """Draw up to three portraits, each with its name in it, and a key: a square that a phone shows whole.

    Parameters
    ----------
    portraits : mapping of str to Portrait
        Flow and paths of each problem, as `dynamics.portrait` returns them, by its name.
    stars : sequence of ndarray holding two numbers
        The optimal table of each.
    ties : sequence of bool
        Whether the two values are those of one state, so that on the diagonal its actions tie.

    Returns
    -------
    Figure
    """
    if not 1 <= len(portraits) <= 3:
        raise ValueError(f"portraits must hold 1 to 3 problems, got {len(portraits)}")
    figure, axes = plt.subplots(2, 2, figsize=(4.4, 4.2))
    words = {"bbox": {"fc": "white", "ec": "none", "alpha": 0.85, "pad": 2}, "weight": "bold", "va": "top"}
    for ax, (name, portrait), star, tie in zip(axes.flat, portraits.items(), stars, ties, strict=False):
        plot_portrait(portrait, star=star, diagonal=tie, ax=ax)
        ax.text(0.04, 0.96, name, transform=ax.transAxes, zorder=6, **words)
    for ax in axes.flat[len(portraits) :]:
        ax.set_axis_off()
    said = {"converged": "comes home", "undecided": "goes round", "diverged": "runs away"}
    fates = {path.status for portrait in portraits.values() for path in portrait.paths}
    keys = [plt.Line2D([], [], label=said[fate], **style.STATUS_STYLE[fate]) for fate in said if fate in fates]
    keys.append(plt.Line2D([], [], label="optimal table $Q^*$", color=style.AMBER, **_STAR))
    if any(ties):
        keys.append(plt.Line2D([], [], label="the two actions tie", **_TIE))
    axes.flat[-1].legend(handles=keys, loc="center", fontsize="medium")
    return figure


def plot_moves(points: ArrayLike, *, labels: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw the moves of updates that take turns in the plane of Q, an arrow for each, in the colour of who moved.

    Parameters
    ----------
    points : ndarray of shape (k, 2)
        The tables, one before each move and one after the last.
    labels : sequence of str
        Names of those who take turns, for the legend; move `i` belongs to number ``i % len(labels)``.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
    """
    points = _checks.array("points", points, shape=(None, 2))
    ax = style.axes(ax, figsize=(4.2, 4.0))
    for number, (name, color) in enumerate(zip(labels, (style.GREEN, style.AMBER, style.PURPLE), strict=False)):
        start, step = points[:-1][number :: len(labels)], np.diff(points, axis=0)[number :: len(labels)]
        how = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.008, "zorder": 3}
        ax.quiver(*start.T, *step.T, color=color, label=name, **how)
    ax.plot(*points[0], "o", ms=6, color="black", zorder=4)
    ax.set(xlabel="$Q_1$", ylabel="$Q_2$")
    return ax


def plot_jumps(
    runs: Sequence[Trajectory], *, star: ArrayLike, radii: ArrayLike, ax: Axes | None = None, diagonal: bool = True
) -> Axes:
    """Draw runs in the plane of Q as arrows from each table to the next, over squares around the optimal table.

    Parameters
    ----------
    runs : sequence of Trajectory
        Runs whose values hold two numbers.
    star : ndarray holding two numbers
        The optimal table.
    radii : ndarray of shape (k,)
        Half the side of each square, the largest first: the distance that a table may have after 0, 1, ... updates.
    ax : Axes, optional
        Where to draw; a new figure by default.
    diagonal : bool
        Draw the line on which two actions of one state tie, where the greedy action changes.

    Returns
    -------
    Axes
    """
    star, radii = _checks.array("star", np.ravel(star), shape=(2,)), _checks.array("radii", radii, ndim=1)
    ax = style.axes(ax, figsize=(4.6, 4.4))
    low, high = star - 1.15 * radii.max(), star + 1.15 * radii.max()
    for count, radius in enumerate(radii):
        corner = star - radius
        look = {"fc": style.BLUE, "ec": "none", "alpha": 0.1, "zorder": 0}  # the squares lie on each other
        ax.add_patch(plt.Rectangle(corner, 2 * radius, 2 * radius, **look))
        ax.add_patch(plt.Rectangle(corner, 2 * radius, 2 * radius, fill=False, ec=style.BLUE, lw=0.8, zorder=1))
        if radius > 0.2 * radii.max():
            place = (star[0], star[1] + radius - 0.04 * radii.max())
            ax.text(*place, str(count), ha="center", va="top", color=style.BLUE, fontsize="small")
    if diagonal:
        ends = [max(low), min(high)]
        ax.plot(ends, ends, color=style.GREY, lw=1, ls=(0, (1, 2)), zorder=1)
    for run in runs:
        points = _checks.array("values", run.values.reshape(len(run.values), -1), shape=(None, 2))
        color = style.STATUS_STYLE[run.status]["color"]
        ax.plot(*points[0], "o", ms=5, color=color)
        for start, end in itertools.pairwise(points):
            if np.abs(end - start).max() > 0.02 * radii.max():  # shorter than its own head
                arrow = {"arrowstyle": "-|>", "color": color, "lw": 1.4, "shrinkA": 0, "shrinkB": 0}
                ax.annotate("", xy=end, xytext=start, arrowprops=arrow)
    plot_star(star, ax=ax)
    ax.grid(False)
    ax.set(xlabel="$Q_1$", ylabel="$Q_2$", xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    return ax


_PIECES = [{"color": style.BLUE, "linestyle": "-"}, {"color": style.GREEN, "linestyle": "--"}]
_PIECES += [{"color": style.AMBER, "linestyle": "-."}]


def plot_box_images(
    images: ArrayLike,
    *,
    ax: Axes | None = None,
    shape: ArrayLike = ((1, 1), (-1, 1), (-1, -1), (1, -1)),
    labels: Sequence[str] | None = None,
    bound: float | int | None = None,
    crosses: bool = True,
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
        Half the side of a second square, dotted: `contraction.row_sum_bound` of the same update.
    crosses : bool
        Draw the crosses: not where the shape is round, and all its corners stand for a curve.

    Returns
    -------
    Axes
    """
    shape = _checks.array("shape", shape, shape=(None, 2))
    images = _checks.array("images", images, shape=(None, len(shape), 2))
    ax = style.axes(ax, figsize=(4.2, 4.2))
    ax.add_patch(plt.Polygon(shape, fc="#EEF1F4", ec="black", lw=1.5, zorder=0, label="unit ball"))
    inside = plt.Polygon(shape * (1 + 1e-9)).get_path()
    names = [None] * len(images) if labels is None else labels
    for look, image, name in zip(_PIECES, images, names, strict=False):
        ax.add_patch(plt.Polygon(image, fc=look["color"], alpha=0.18, zorder=1))
        outline = {"fill": False, "ec": look["color"], "ls": look["linestyle"], "lw": 1.8, "zorder": 2}
        ax.add_patch(plt.Polygon(image, label=name, **outline))
        out = image[~inside.contains_points(image, radius=1e-9)] if crosses else image[:0]
        ax.plot(*out.T, marker="X", ms=8, ls="none", color=style.VERMILION, mec="white", zorder=3)
    if bound is not None:
        outline = {"fill": False, "ec": style.GREY, "ls": (0, (2, 2)), "lw": 1.4, "zorder": 1}
        ax.add_patch(plt.Rectangle((-bound, -bound), 2 * bound, 2 * bound, label="row-sum bound", **outline))
    reach = 1.1 * max(float(np.abs(shape).max()), float(np.abs(images).max()), bound or 0.0)
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), xlabel="first pair", ylabel="second pair", aspect="equal")
    ax.grid(False)
    return ax


def plot_turn(points: ArrayLike, balls: Sequence[ArrayLike], *, acting: int, ax: Axes | None = None) -> Axes:
    """Draw the last step of two updates that take turns, and the ball of each on whose edge that step starts.

    Parameters
    ----------
    points : ndarray of shape (k + 1, 2)
        The path so far, from the start; the optimal table is the origin.
    balls : sequence of two ndarrays of shape (m, 2)
        For each update the corners of a ball of its own norm, with the last point but one on its edge.
    acting : int
        Which of the two made the last step, 0 or 1; its ball is filled.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
    """
    points = _checks.array("points", points, shape=(None, 2))
    acting = _checks.integer("acting", acting, low=0, high=1)
    ax = style.axes(ax, figsize=(4.2, 3.7))
    for which, (ball, look) in enumerate(zip(balls, _PIECES, strict=False)):
        corners = _checks.array("balls", ball, shape=(None, 2))
        edge = {"fill": False, "ec": look["color"], "ls": look["linestyle"], "lw": 1.8}
        ax.add_patch(plt.Polygon(corners, label=f"ball of the {('first', 'second')[which]}", **edge))
        if which == acting:
            ax.add_patch(plt.Polygon(corners, fc=look["color"], alpha=0.18, zorder=0))
    ax.plot(*points[:-1].T, color=style.GREY, lw=1, alpha=0.7)
    arrow = {"arrowstyle": "-|>", "color": "black", "lw": 1.8, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", points[-1], points[-2], arrowprops=arrow)
    ax.plot(*points[-2], "o", ms=6, color="white", mec="black", zorder=4)
    ax.plot(*points[-1], "o", ms=6, color="black", zorder=4)
    plot_star(np.zeros(2), ax=ax)
    ax.set(xlabel="first pair", ylabel="second pair", aspect="equal")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize="small")
    ax.grid(False)
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
    ax = style.axes(ax)
    ax.plot(x, boundary, color=style.GREY)
    for status, edge in ((below, low), (above, high)):
        ax.fill_between(x, boundary, edge, color=style.STATUS_STYLE[status]["color"], alpha=0.18, lw=0)
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
        The grid, evenly spaced; a point fills the cell around it.
    labels : sequence of str
        Names of the regions; the last one is drawn in the colour of divergence.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
    """
    codes = _checks.indices("codes", codes, high=len(labels), shape=(len(y), len(x)))
    ax = style.axes(ax)
    steps = plt.get_cmap("Blues_r")(np.linspace(0.15, 0.85, len(labels) - 1))
    colors = ListedColormap([*steps, style.VERMILION])
    (left, right), (low, high) = ((v[0] - (v[1] - v[0]) / 2, v[-1] + (v[-1] - v[-2]) / 2) for v in (x, y))
    look = {"vmin": -0.5, "vmax": len(labels) - 0.5, "interpolation": "none", "origin": "lower", "aspect": "auto"}
    ax.imshow(codes, cmap=colors, extent=(left, right, low, high), **look)  # one pixel a cell: a small file
    from scipy.ndimage import distance_transform_edt

    for code in np.unique(codes):
        depth = distance_transform_edt(np.pad(codes == code, 1))[1:-1, 1:-1]
        row, column = np.unravel_index(depth.argmax(), depth.shape)
        ink = style.ink(colors(int(code)))
        ax.text(x[column], y[row], str(code + 1), ha="center", va="center", color=ink, weight="bold")
    keys = [plt.Rectangle((0, 0), 1, 1, color=colors(code)) for code in range(len(labels))]
    names = [f"{code + 1} {label}" for code, label in enumerate(labels)]
    ax.legend(keys, names, loc="upper left", bbox_to_anchor=(1.01, 1))
    ax.grid(False)
    return ax


def plot_pulls(
    Q: ArrayLike, pulls: ArrayLike, *, real: ArrayLike | None = None, leaks: bool = True, ax: Axes | None = None
) -> Axes:
    """Draw what each of two pairs does to both values in one step: its own value and what leaks, and the sum.

    Parameters
    ----------
    Q : ndarray holding two numbers
        The table before the step.
    pulls : ndarray of shape (2, 2)
        Column `j`: the change that pair `j` predicts for both values, ``alpha K[:, j] rho_j delta_j``.
    real : ndarray holding two numbers, optional
        The change that the step really makes.
    leaks : bool
        Whether to draw what a pair does to the other one; without it the sum is that of each pair on its own.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        Blue is a pair's own value, vermilion what it does to the other one; grey is their sum, black what happens.
    """
    start = _checks.array("Q", np.ravel(Q), shape=(2,))
    pulls = _checks.array("pulls", pulls, shape=(2, 2))
    pulls = pulls if leaks else np.diag(np.diag(pulls))
    ax = style.axes(ax, figsize=(3.4, 4.4))
    for j in range(2):
        own = np.where(np.arange(2) == j, pulls[:, j], 0.0)
        corner = start + own
        _arrow(ax, start, corner, color=style.BLUE, label="own value" if j == 0 else None)
        if leaks:
            _arrow(ax, corner, start + pulls[:, j], color=style.VERMILION, label="leakage" if j == 0 else None)
        right, up = pulls[:, j] >= 0  # the name stands beyond the tip
        aside: dict[str, Any] = {"xytext": (5 if right else -5, 5 if up else -13), "ha": "left" if right else "right"}
        aside["bbox"] = {"fc": "white", "ec": "none", "pad": 1, "alpha": 0.8}  # what a caller draws may run below it
        ax.annotate(f"pair {j + 1}", start + pulls[:, j], textcoords="offset points", fontsize="small", **aside)
    predicted = pulls.sum(axis=1)
    _arrow(ax, start, start + predicted, color=style.GREY, label="both, as predicted", linestyle=(0, (4, 2)))
    if real is not None:
        change = _checks.array("real", np.ravel(real), shape=(2,))
        _arrow(ax, start, start + change, color="black", label="the real step")
    ax.plot(*start, "o", ms=8, mfc="white", mec="black", mew=1.5, zorder=4)
    ax.set(xlabel="$Q_1$", ylabel="$Q_2$", aspect="equal")
    return ax


def plot_alignment(td_error: ArrayLike, changes: Mapping[str, ArrayLike], *, ax: Axes | None = None) -> Axes:
    """Draw what the errors of two pairs ask for, and on which side of it some steps move the two values.

    Parameters
    ----------
    td_error : ndarray of shape (2,)
        The TD errors, not both zero.
    changes : dict of str to ndarray of shape (2,)
        What each step does to the two values, by the name of the step; none of them zero. All are drawn as long as
        the errors, since an alignment looks at directions alone.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        Grey is what the errors ask for. A step on its side of the dotted line is blue, one on the other side vermilion.

    Raises
    ------
    ValueError
        If a shape is wrong, or a vector is zero and has no direction.
    """
    error = _checks.array("td_error", td_error, shape=(2,))
    ax = style.axes(ax, figsize=(3.6, 3.6))
    length = float(np.linalg.norm(error))
    drawn = [("asked for", error, style.GREY)]
    for name, given in changes.items():
        change = _checks.array(f"changes[{name!r}]", given, shape=(2,))
        cosine = diagnostics.alignment(change, error)
        if not np.isfinite(cosine):
            raise ValueError(f"neither td_error nor changes[{name!r}] may be zero, got {error} and {change}")
        tip = change * (length / np.linalg.norm(change))
        drawn.append((f"{name}: {cosine:.2f}", tip, style.BLUE if cosine >= 0 else style.VERMILION))
    ax.axline((0, 0), tuple(error[::-1] * [-1, 1]), color="black", lw=1.2, ls=":")
    for name, tip, color in drawn:
        _arrow(ax, np.zeros(2), tip, color=color, label=name)
    reach = 1.15 * length
    ax.set(
        xlabel="change of $Q_1$", ylabel="change of $Q_2$", aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach)
    )
    return ax


def _arrow(ax: Axes, tail: np.ndarray, tip: np.ndarray, *, label: str | None, **look: Any) -> None:
    """Draw an arrow, and a line of no length that stands for it in a legend and in the limits."""
    shape = {"arrowstyle": "-|>", "mutation_scale": 14, "shrinkA": 0, "shrinkB": 0, "lw": 2}
    ax.annotate("", xy=tuple(tip), xytext=tuple(tail), arrowprops=shape | look, zorder=3)
    ax.plot(*np.transpose([tail, tip]), lw=0, label="_nolegend_")
    if label is not None:
        ax.plot([], [], label=label, lw=2, **look)
