"""The kernel as an image, and what one update does.

They take matrices and vectors of pairs. Where a kernel comes from is `ntk`, `features` or an example; its numbers are
`diagnostics`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from divergence_notes import _checks, diagnostics
from divergence_notes._checks import ArrayLike
from divergence_notes.plotting import style


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
    ax = style.axes(ax)
    look = {"cmap": style.KERNEL_CMAP, "norm": style.signed(kernel, limit), "interpolation": "nearest"}
    image = ax.imshow(kernel, aspect="auto", **look)
    ax.grid(False)
    ax.set(xlabel="trained pair $j$", ylabel="moved pair $i$")
    if labels is not None:
        ax.set_xticks(range(len(labels)), labels)
        ax.set_yticks(range(len(labels)), labels)
    if colorbar:
        ax.figure.colorbar(image, ax=ax, label="$K_{ij}$")
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
    ax = style.axes(ax)
    ax.imshow(values[:, None], cmap=style.KERNEL_CMAP, norm=style.signed(values, limit), aspect="auto")
    ax.grid(False)
    ax.set(xticks=[], yticks=[])
    return ax


def plot_rows(kernel: ArrayLike, *, gammas: Sequence[float | int] = (), ax: Axes | None = None) -> Axes:
    """Draw for each row of a kernel its own entry and what leaks in, in units of the own entry.

    Parameters
    ----------
    kernel : ndarray of shape (n, n)
        A kernel with a positive diagonal, of pairs that are sampled equally often.
    gammas : sequence of float
        Discounts in [0, 1): a dotted line each, up to which row dominance allows what leaks in.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
    """
    kernel = _checks.square("kernel", kernel)
    leaks = diagnostics.row_ratio(kernel) * len(kernel)
    places = np.arange(len(kernel))
    ax = style.axes(ax, figsize=(6.0, 0.8 + 0.45 * len(kernel)))
    ax.barh(places - 0.19, np.ones(len(kernel)), height=0.36, color=style.BLUE, label="own entry")
    ax.barh(places + 0.19, leaks, height=0.36, color=style.VERMILION, label="the others together")
    for gamma in gammas:
        allowed = (1 - gamma) / (1 + gamma)
        ax.axvline(allowed, color="black", lw=1.2, ls=":")
        where = {"textcoords": "offset points", "xycoords": ax.get_xaxis_transform(), "fontsize": "small"}
        ax.annotate(rf"$\gamma = {gamma:g}$", (allowed, 1), xytext=(3, 2), **where)
    ax.set_yticks(places, [f"pair {place + 1}" for place in places])
    ax.invert_yaxis()
    ax.set(xlabel="in units of the own entry", xlim=(0, None))
    ax.legend(loc="lower right", fontsize="small")
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
    ax = style.axes(ax, figsize=(4.2, 4.0))
    ax.imshow(matrix, cmap=style.KERNEL_CMAP, norm=style.signed(matrix, limit), interpolation="nearest")
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


def plot_response(
    change: ArrayLike,
    *,
    trained: tuple[int, int],
    ax: Axes | None = None,
    limit: float | int | None = None,
    colorbar: bool = False,
) -> Axes:
    """Draw what one update does to every cell of a grid, on the scale of `plot_kernel`, a cross on the trained cell.

    A dot marks each cell that moves further, and the same way, than the trained one.

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
    change = np.asarray(change, dtype=float)
    own = change[trained]
    rows, columns = np.nonzero(change * np.sign(own) > abs(own) * (1 + 1e-9))  # tiles move as far, but for rounding
    ax.plot(columns, rows, "o", color="black", ms=2.5)
    ax.set(xlabel="column", ylabel="row", aspect="equal")
    return ax


def plot_leakage(
    values: ArrayLike,
    change: ArrayLike,
    *,
    trained: int,
    predicted: ArrayLike | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw values as a curve and one update as arrows: blue where it was aimed, red where it leaks.

    Parameters
    ----------
    values : ndarray of shape (n,)
        The value of each pair before the update, in the order in which they lie along the curve.
    change : ndarray of shape (n,)
        How far each value moves; one that stays has no arrow.
    trained : int
        Index of the trained pair.
    predicted : ndarray of shape (n,), optional
        How far each value was predicted to move, a grey bar where it would end.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
    """
    values = _checks.array("values", values, ndim=1)
    change = _checks.array("change", change, shape=values.shape)
    trained = int(_checks.indices("trained", [trained], high=len(values))[0])
    ax = style.axes(ax, figsize=(4.2, 3.0))
    ax.plot(values, "o-", color=style.GREY, lw=1.2, ms=3.5, zorder=2)
    at = np.flatnonzero(change)
    colors = np.where(at == trained, style.BLUE, style.VERMILION)
    look = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.018, "zorder": 3}
    ax.quiver(at, values[at], np.zeros(len(at)), change[at], color=colors, **look)
    ax.plot(values + change, ls="none")  # no mark: the axis reaches as far as the arrows
    if predicted is not None:
        ends = values + _checks.array("predicted", predicted, shape=values.shape)
        ax.plot(ends, "_", color=style.GREY, ms=11, mew=1.8, zorder=3)
    ax.set(xlabel="pair", ylabel="value")
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
    ax = style.axes(ax, figsize=(5.2, 3.6))
    ax.plot(alphas, _checks.array("actual", actual, shape=alphas.shape), label="real", **style.SERIES[0])
    ax.plot(alphas, _checks.array("predicted", predicted, shape=alphas.shape), label="predicted", **style.SERIES[1])
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
    ax = style.axes(ax)
    for look, (name, sizes) in zip(style.SERIES, remainders.items(), strict=False):
        ax.loglog(alphas, _checks.array(name, sizes, shape=alphas.shape), marker="o", ms=4, label=name, **look)
    top = max(np.max(sizes) for sizes in remainders.values())
    ax.loglog(alphas, 3 * top * (alphas / alphas[-1]) ** 2, color=style.GREY, lw=1, ls=(0, (1, 2)), label="slope 2")
    ax.set(xlabel=r"step size $\alpha$", ylabel="largest error of the prediction")
    ax.legend()
    return ax
