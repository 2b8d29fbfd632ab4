"""Controls over pre-drawn frames: figures that answer with a kernel and without one.

An explorer is a switch, a slider or a menu, and a stack of frames. What a frame shows is drawn by `plotting` and
computed below it; no number of the book comes from here.
"""

import html
import io
import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SYMBOLS = {"alpha": "α", "beta": "β", "epsilon": "ε", "gamma": "γ", "kappa": "κ", "rho": "ρ", "theta": "θ"}
"""How a control writes the name of a Greek letter."""

# What chooses among the values of one name; each has an index.
_Control = ipywidgets.ToggleButtons | ipywidgets.SelectionSlider | ipywidgets.Dropdown


def explore(
    draw: Callable[..., Figure | Axes],
    *,
    alt: str | Callable[..., str] | None = None,
    start: Mapping[str, int] | None = None,
    **values: Sequence[Any] | Mapping[str, Any],
) -> ipywidgets.VBox:
    """Draw a figure for every combination of values, and let the reader choose the one that shows.

    Two values are a switch, numbers a slider, and anything else, which has no order, a menu.

    Parameters
    ----------
    draw : callable
        ``draw(**combination)`` returns a Figure or an Axes; it is called once for each combination, now.
    alt : str or callable, optional
        What the eye sees, for those who do not; a callable gets the combination.
    start : mapping of str to int, optional
        Position of a control at the start, 0 by default.
    **values : sequence, or mapping from label to value
        One control for each name; its positions are the values, at least two.

    Returns
    -------
    ipywidgets.VBox
        The controls above a stack of frames. The link runs in the browser, so that it needs no kernel; keep the
        product of the numbers of values, and the frames, small.

    Raises
    ------
    ValueError
        If there is no control, one has fewer than two positions, two values are written alike, or `start` names no
        control or no position.
    """
    if not values:
        raise ValueError("values must name at least one control")
    options = {name: _labelled(name, positions) for name, positions in values.items()}
    controls = {name: _control(name, labelled, _start(name, labelled, start)) for name, labelled in options.items()}
    unknown = set(start or {}) - set(options)
    if unknown:
        raise ValueError(f"start must name controls among {', '.join(options)}, got {sorted(unknown)[0]!r}")
    return ipywidgets.VBox([*controls.values(), _frames(draw, alt, options, controls, {})])


def _labelled(name: str, positions: Sequence[Any] | Mapping[str, Any]) -> dict[str, Any]:
    labelled = dict(positions) if isinstance(positions, Mapping) else {}
    for value in () if isinstance(positions, Mapping) else positions:
        other = labelled.setdefault(_write(value), value)
        if other != value:
            raise ValueError(f"{name} must be written apart: {other!r} and {value!r} both read {_write(value)!r}")
    if len(labelled) < 2:
        raise ValueError(f"{name} must have at least two positions, got {list(labelled)}")
    return labelled


def _write(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return value if isinstance(value, str) else f"{value:g}"


def _start(name: str, labelled: Mapping[str, Any], start: Mapping[str, int] | None) -> int:
    position = (start or {}).get(name, 0)
    if not 0 <= position < len(labelled):
        raise ValueError(f"start must hold positions in [0, {len(labelled) - 1}]: start[{name!r}] is {position}")
    return position


def _spoken(name: str) -> str:
    return SYMBOLS.get(name, name.replace("_", " "))


def _control(name: str, labelled: Mapping[str, Any], position: int) -> _Control:
    """Return a switch for two positions, a slider for numbers, a menu for the rest."""
    ordered = all(isinstance(value, numbers.Real) for value in labelled.values())
    if len(labelled) == 2:
        kind, narrow = ipywidgets.ToggleButtons, {"button_width": "auto"}
    else:
        kind, narrow = (ipywidgets.SelectionSlider if ordered else ipywidgets.Dropdown), {}
    return kind(
        options=list(labelled),
        index=position,
        description=_spoken(name),
        style={"description_width": "12em", **narrow},
        layout={"width": "min(32em, 98%)"},
    )


def _frames(
    draw: Callable[..., Figure | Axes],
    alt: str | Callable[..., str] | None,
    options: dict[str, dict[str, Any]],
    controls: dict[str, _Control],
    chosen: dict[str, str],
) -> ipywidgets.Widget:
    """Return one frame when everything is chosen, else a stack over the positions of the next control."""
    if len(chosen) == len(options):
        combination = {name: options[name][label] for name, label in chosen.items()}
        return ipywidgets.HTML(_svg(draw(**combination), _describe(alt, combination, chosen), salt=repr(chosen)))
    name = list(options)[len(chosen)]
    children = [_frames(draw, alt, options, controls, chosen | {name: label}) for label in options[name]]
    stack = ipywidgets.Stack(children, selected_index=controls[name].index)
    ipywidgets.jslink((controls[name], "index"), (stack, "selected_index"))
    return stack


def _describe(alt: str | Callable[..., str] | None, combination: dict[str, Any], chosen: dict[str, str]) -> str:
    where = ", ".join(f"{_spoken(name)} = {label}" for name, label in chosen.items())
    seen = alt(**combination) if callable(alt) else alt
    return f"{seen} ({where})" if seen else where


def _svg(drawn: Figure | Axes, alt: str, *, salt: str) -> str:
    """Return a figure as inline SVG, the same bytes every time, with no name that another frame uses."""
    figure = drawn.figure if isinstance(drawn, Axes) else drawn
    buffer = io.StringIO()
    with plt.rc_context({"svg.hashsalt": f"{alt}{salt}", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    used = set(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", text))
    text = re.sub(r' id="([^"]+)"', lambda match: match.group(0) if match.group(1) in used else "", text)
    label = html.escape(alt, quote=True)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" style="max-width: 100%; height: auto" ', 1)
