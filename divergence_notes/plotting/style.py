"""One style for every figure: colours, line styles, and the scale of signed values.

What a colour or a line style means is decided here; what is drawn in it, by the other modules of `plotting`.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm

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

LOOK = {
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
"""The settings of matplotlib in which every figure is drawn."""


def use_style() -> None:
    """Set the style of the book for the figures that follow."""
    plt.rcParams.update(LOOK)


def axes(ax: Axes | None, **subplots_kw: Any) -> Axes:
    """Return the Axes given, or those of a new figure."""
    return plt.subplots(**subplots_kw)[1] if ax is None else ax


def signed(values: np.ndarray, limit: float | int | None) -> TwoSlopeNorm:
    """Return the scale with white at zero and the same reach on both sides."""
    reach = (float(np.abs(values).max()) or 1.0) if limit is None else limit
    return TwoSlopeNorm(0, -reach, reach)


def ink(color: Sequence[float]) -> str:
    """Return the colour of a text that can be read on `color`."""
    return "black" if np.dot(color[:3], (0.299, 0.587, 0.114)) > 0.5 else "white"
