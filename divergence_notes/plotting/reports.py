"""What the monitor saw: the report of one moment, and the history of a run.

What they draw is made by `diagnostics.report` and by `monitor`; runs of single numbers are `runs`.
"""

import io
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from divergence_notes.plotting import style

if TYPE_CHECKING:
    import pandas

_SCALED = {"effective rank": "effective rank / n", "max |Q|": "max |Q| / bound"}
"""Rows of a report that are drawn in units of their reference."""

_UNITLESS = {"mean row ratio", "smallest margin", "certified rows", "alignment"}

PANELS = {
    "max_q": r"$\max |Q|$",
    "growth_rate": "growth rate\nper step",
    "row_ratio": "mean row\nratio",
    "margin": "smallest\nmargin",
    "certified": "certified\nrows",
    "effective_rank": "effective\nrank",
    "alignment": "alignment",
    "bound_ratio": "max |Q|\n/ bound",
    "overestimation": "Q - return\nat the start",
    "td_error": "mean\n|TD error|",
    "low_q": "smallest Q",
    "high_q": "largest Q",
    "possible_low": "least\npossible",
    "possible_high": "most\npossible",
    "bound": "largest\npossible |Q|",
    "earned_low": "least\nearned",
    "earned_high": "most\nearned",
    "start_q": "Q at\nthe start",
    "start_return": "return from\nthe start",
    "bonus": "entropy\nbonus",
    "dormant": "dormant\nunits",
    "dormant_layer": "dormant in\nthe worst layer",
    "feature_rank": "feature\nrank",
    "feature_norm": "length of\nfeatures",
    "weight_norm": "length of\nweights",
    "gradient_norm": "length of\ngradient",
    "value_churn": "churn of\nvalues",
    "action_churn": "churn of\nactions",
    "updates": "updates",
    "renewed": "renewals of\nthe target",
    "td_bias": "mean\nTD error",
    "greedy_gap": "greedy Q -\nstored Q",
    "input_size": "largest\ninput",
    "reward_low": "smallest\nreward",
    "reward_high": "largest\nreward",
    "batch_dependence": "batch\ndependence",
    "target_coupling": "target\ncoupling",
    "episode_length": "longest\nepisode",
    "same_length": "of the same\nlength",
    "input_ratio": "largest over\nmiddle input",
    "after_ends": "targets past\nthe ends",
    "reward_change": "late over\nearly reward",
    "start_sum": "sum of rewards\nfrom the start",
    "alarm": "alarm",
}
"""What can be drawn of a history, every number of it, and how its axis is labelled."""

_SHARES = ("row_ratio", "certified", "dormant", "dormant_layer", "same_length", "after_ends", "alarm")
_LIMITS = dict.fromkeys(_SHARES, (-0.05, 1.05))
_LIMITS |= {"alignment": (-1.1, 1.1)}
_LOG = ("max_q", "bound_ratio", "td_error", "feature_norm", "weight_norm", "gradient_norm", "value_churn")
_LOG += ("input_size", "input_ratio")


def plot_report(report: "pandas.DataFrame", *, ax: Axes | None = None) -> Axes:
    """Draw the numbers without a unit on one scale, each beside what a table has, with its reading.

    Parameters
    ----------
    report : pandas.DataFrame
        Made by `diagnostics.report`.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        A dot for each value, a tick for its reference; a triangle at the edge is a value off the scale, and a cross a
        value that is not finite. The value and the reading stand at the right, behind an ALARM where there is one.
    """
    ax = style.axes(ax, figsize=(7.2, 3.0))
    shown = report.loc[[name for name in report.index if name in _UNITLESS or name in _SCALED]]
    alarms = shown["alarm"].fillna(False)  # what is not known is no alarm
    for row, (name, line) in enumerate(shown.iterrows()):
        unit = line["reference"] if name in _SCALED else 1.0
        value, reference = line["value"] / unit, line["reference"] / unit
        loud = bool(alarms[name])
        color = style.VERMILION if loud else style.BLUE
        place = float(np.clip(value, *_EDGES)) if np.isfinite(value) else 0.0
        marker = "X" if not np.isfinite(value) else "<" if value < _EDGES[0] else ">" if value > _EDGES[1] else "o"
        if np.isfinite(reference):
            ax.plot([reference, place], [row, row], color=color, lw=1.2, alpha=0.6)
            ax.plot(reference, row, "|", color="black", ms=15, mew=2)
        ax.plot(place, row, marker, color=color, ms=8)
        look = {"va": "center", "fontsize": "small", "weight": "bold" if loud else "normal"}
        look["color"] = color if loud else "black"
        look |= {"xy": (1, row), "xycoords": ax.get_yaxis_transform(), "textcoords": "offset points"}
        ax.annotate("nan" if np.isnan(value) else f"{value:.3g}", xytext=(44, 0), ha="right", **look)
        ax.annotate(f"{'ALARM: ' if loud else ''}{line['reading']}", xytext=(52, 0), **look)
    ax.set_yticks(range(len(shown)), [_SCALED.get(name, name) for name in shown.index])
    ax.set(xlim=(-1.15, 1.2), ylim=(len(shown) - 0.5, -0.5), xticks=[-1, -0.5, 0, 0.5, 1])
    ax.set_xlabel("dot: the sample; bar: a table, or the bound")
    return ax


_EDGES = (-1.08, 1.12)


def plot_history(
    history: "pandas.DataFrame",
    *,
    axes: Sequence[Axes] | np.ndarray | None = None,
    quantities: Sequence[str] = ("max_q", "growth_rate", "row_ratio", "effective_rank", "alignment"),
    bound: bool = True,
    label: str | None = None,
    **line_kw: Any,
) -> np.ndarray:
    """Draw the history of a monitored run, one panel for each quantity, one below the other.

    Parameters
    ----------
    history : pandas.DataFrame
        Made by `monitor.DivergenceCallback`.
    axes : sequence of Axes, optional
        Where to draw, such as what an earlier call returned; a new figure by default.
    quantities : sequence of str
        Columns of the history, from the top down.
    bound : bool
        Draw the largest size that values can have into the panel of ``max |Q|``.
    label : str, optional
        Name of the run in the legend of the top panel.
    **line_kw
        Passed to ``Axes.plot``.

    Returns
    -------
    ndarray of Axes
        One for each quantity. In the top panel a cross marks each record with an alarm; a dashed line marks the first
        record that is not finite, where curves end.

    Raises
    ------
    ValueError
        If a quantity is unknown, there is none, or there are not as many axes as quantities.
    """
    unknown = [name for name in quantities if name not in PANELS]
    if unknown or not len(quantities):
        raise ValueError(f"quantities must be among {', '.join(PANELS)}, got {', '.join(unknown) or 'none'}")
    if axes is None:
        shape = {"figsize": (7.2, 0.5 + 1.15 * len(quantities)), "sharex": True, "squeeze": False}
        axes = plt.subplots(len(quantities), 1, **shape)[1][:, 0]
        axes[0].figure.align_ylabels()
    axes = np.asarray(axes, dtype=object)
    if axes.shape != (len(quantities),):
        raise ValueError(f"axes must hold one Axes for each of {len(quantities)} quantities, got shape {axes.shape}")
    alarm = history["alarm"].to_numpy(dtype=bool)
    lost = history["step"][history["status"] == "diverged"]
    for ax, name in zip(axes, quantities, strict=True):
        look = {"color": style.BLUE, "marker": "o", "ms": 3, "lw": 1.5, "label": label} | line_kw
        (line,) = ax.plot(history["step"], history[name], **look)
        if name == "max_q" and bound:
            ax.plot(history["step"], history["bound"], color=style.GREY, ls=_DOTS, label=_once(ax, "bound"))
        if name == "bound_ratio":
            ax.axhline(1, color=style.GREY, ls=_DOTS, label=_once(ax, "bound"))
        if name in ("growth_rate", "alignment", "margin", "overestimation"):
            ax.axhline(0, color="black", lw=0.8)
        if len(lost):
            ax.axvline(lost.iloc[0], color=line.get_color(), lw=1, ls="--", label=_once(ax, "not finite"))
        if name in _LOG:
            ax.set_yscale("log")
        if name in _LIMITS:
            ax.set_ylim(_LIMITS[name])
        ax.set_ylabel(PANELS[name])
    top = axes[0]
    if alarm.any():
        marks = {"color": style.VERMILION, "ms": 9, "mec": "white", "ls": "none", "label": _once(top, "alarm")}
        top.plot(history["step"][alarm], history[quantities[0]][alarm], "X", **marks)
    if top.get_legend_handles_labels()[1]:
        top.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, fontsize="small", borderaxespad=0.2)
    axes[-1].set_xlabel("steps in the environment")
    return axes


_DOTS = (0, (1, 2))
_INK = "#010203"
_COLORS = {_INK: "currentColor", "#000000": "currentColor", "#ffffff": "var(--paper)"}
_COLORS |= {color.lower(): f"var(--{name})" for name, color in (("line", style.BLUE), ("alarm", style.VERMILION))}
_COLORS |= {style.GREY.lower(): "var(--faint)"}


def history_svg(
    history: "pandas.DataFrame",
    quantity: str,
    *,
    name: str,
    title: str,
    description: str,
    moment: float | int | None = None,
    step: str = "step",
) -> str:
    """Return one panel of a history as a picture for a page of HTML, in the colours of that page.

    Parameters
    ----------
    history : pandas.DataFrame
        As `plot_history` takes it.
    quantity : str
        A column of it.
    name : str
        Begins each id in the picture, so that a page may hold several; letters, digits and hyphens.
    title, description : str
        What a screen reader says of the picture.
    moment : float, optional
        The step at which a line is drawn.
    step : str
        What the axis of the steps is called.

    Returns
    -------
    str
        An ``svg`` element without a size of its own. Its lines and letters take the colour of the text around them and
        the variables ``--paper``, ``--line``, ``--alarm`` and ``--faint``.

    Raises
    ------
    ValueError
        If the quantity is unknown.

    Notes
    -----
    Nothing of pyplot is touched: it may be drawn while somebody else's figures are open.
    """
    shown = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    look = style.LOOK | dict.fromkeys(shown, _INK) | {"svg.hashsalt": name, "font.size": 9}
    few = len(history) <= _FEW
    with matplotlib.rc_context(look), np.errstate(all="ignore"):
        figure = Figure(figsize=(4.6, 2.1), layout="constrained")
        ax = figure.subplots()
        lines = {} if few else {"marker": "none"}
        plot_history(history, axes=[ax], quantities=[quantity], bound="bound" in history, **lines)
        if moment is not None:
            ax.axvline(moment, color=style.VERMILION, lw=1.2, ls=":", label="first sign")
            ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, fontsize="small", borderaxespad=0.2)
        ax.set_xlabel(step)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = re.sub(r"<metadata>.*?</metadata>", "", text.getvalue()[text.getvalue().index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(?<= id=")|(?<=href="#)|(?<=url\(#)', f"{name}-", svg)
    for color, variable in _COLORS.items():
        svg = svg.replace(color, variable)
    inside = svg[svg.index(">") + 1 :]
    box = re.search(r'viewBox="[^"]*"', svg)[0]
    return (
        f'<svg {box} xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'aria-labelledby="{name}-title {name}-description" fill="currentColor">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-description">{escape(description)}</desc>{inside.strip()}'
    )


_FEW = 60
"""Records up to which each is drawn as a dot."""


def _once(ax: Axes, label: str) -> str | None:
    """Return the label, or None if the legend has it already."""
    return None if label in ax.get_legend_handles_labels()[1] else label
