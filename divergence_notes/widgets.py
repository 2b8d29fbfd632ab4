"""Pages that answer: controls over pre-drawn frames, a plane of Q to touch, and a bet that hears its reason.

An explorer is a switch, a slider or a menu, and a stack of frames. What a frame shows is drawn by `plotting` and
computed below it; no number of the book comes from here. What a plane shows is computed in the browser, by plane.js,
from numbers that Python has written down, and the tests compare it with `updates` and `dynamics`.
"""

import asyncio
import functools
import html
import importlib.util
import io
import json
import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from divergence_notes import _checks, bellman, dynamics
from divergence_notes._checks import ArrayLike
from divergence_notes._extras import needs
from divergence_notes.examples import Example
from divergence_notes.grading import check
from divergence_notes.grading.kinds import Choice, Value
from divergence_notes.grading.registry import find
from divergence_notes.updates import KernelUpdate, Update

with needs("widgets"):
    import ipywidgets
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from divergence_notes import plotting

SYMBOLS = {"alpha": "α", "beta": "β", "epsilon": "ε", "gamma": "γ", "kappa": "κ", "rho": "ρ", "theta": "θ"}
"""How a control writes the name of a Greek letter."""

# What chooses among the values of one name; each has an index.
_Control = ipywidgets.ToggleButtons | ipywidgets.SelectionSlider | ipywidgets.Dropdown


def explore(
    draw: Callable[..., Figure | Axes],
    *,
    alt: str | Callable[..., str] | None = None,
    start: Mapping[str, int] | None = None,
    play: str | None = None,
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
    play : str, optional
        Name of a slider that a button plays: from where it stands to its end, and from the start again when it is
        there.
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
        If there is no control, one has fewer than two positions, two values are written alike, `start` names no
        control or no position, or `play` names no slider.
    """
    if not values:
        raise ValueError("values must name at least one control")
    options = {name: _labelled(name, positions) for name, positions in values.items()}
    controls = {name: _control(name, labelled, _start(name, labelled, start)) for name, labelled in options.items()}
    unknown = set(start or {}) - set(options)
    if unknown:
        raise ValueError(f"start must name controls among {', '.join(options)}, got {sorted(unknown)[0]!r}")
    if play is not None and not isinstance(controls.get(play), ipywidgets.SelectionSlider):
        raise ValueError(f"play must name a slider among {', '.join(options)}, got {play!r}")
    buttons = [] if play is None else [_player(controls[play])]
    return ipywidgets.VBox([*controls.values(), *buttons, _frames(draw, alt, options, controls, {})])


def _player(slider: ipywidgets.SelectionSlider) -> ipywidgets.Button:
    """Return a button that plays a slider: by access.js on a page, where there is no kernel, by Python elsewhere."""
    slider.add_class("dn-played")
    button = ipywidgets.Button(description="Play", layout={"width": "auto"})
    button.add_class("dn-play")

    async def walk() -> None:  # on the kernel's own loop, so that it hears the next click, and all else
        last = len(slider.options) - 1
        slider.index = 0 if slider.index == last else slider.index + 1
        while slider.index < last:
            await asyncio.sleep(_PAUSE)
            slider.index = min(slider.index + 1, last)

    playing: asyncio.Task[None] | None = None

    def rest(_: asyncio.Task[None]) -> None:
        button.description = "Play"

    def press(_: ipywidgets.Button) -> None:
        nonlocal playing
        if playing is not None and not playing.done():
            playing.cancel()
            return
        button.description = "Pause"
        playing = asyncio.get_running_loop().create_task(walk())
        playing.add_done_callback(rest)

    button.on_click(press)
    return button


_PAUSE = 0.7
"""Seconds for which a frame is shown while a slider is played."""


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


SLIDERS = ("alpha", "share", "coupling", "gamma")
"""What may be changed in a plane: step size, share of the first pair, coupling of the two, discount."""


class Plane:
    """A plane of Q to touch, as `plane` returns it.

    A page shows its HTML, which a plain script brings to life and which without one is a figure; JupyterLab shows the
    widget.

    Parameters
    ----------
    spec : dict
        What the script is told: numbers and words, as JSON holds them.
    figure : str
        The plane as inline SVG, for a page without scripts.
    """

    def __init__(self, spec: dict[str, Any], figure: str):
        self.spec = spec
        self._figure = figure

    @functools.cached_property
    def widget(self) -> Any:
        """The same plane as a widget.

        Raises
        ------
        ImportError
            If anywidget is not installed.
        """
        return _plane_widget()(spec=json.dumps(self.spec))

    def _repr_html_(self) -> str:
        told = html.escape(json.dumps(self.spec, ensure_ascii=False), quote=True)
        return f'<div class="dn-plane" data-plane="{told}">{self._figure}</div>'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        shown = {"text/plain": repr(self), "text/html": self._repr_html_()}
        if importlib.util.find_spec("anywidget") is None:
            return shown
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        return shown | {"application/vnd.jupyter.widget-view+json": view}

    def __repr__(self) -> str:
        return f"Plane({', '.join(problem['name'] for problem in self.spec['problems'])})"


def plane(
    *problems: Example | Update,
    starts: Sequence[ArrayLike] | None = None,
    limits: Sequence[tuple[float | int, float | int]] | None = None,
    sliders: Sequence[str] = SLIDERS,
    shade: bool = True,
    box: bool = False,
    undo: bool = False,
    network: tuple[Any, Any] | None = None,
    max_iter: int = 4000,
    tol: float | int = 1e-6,
    bound: float | int = 1e3,
) -> Plane:
    """Return the plane of Q of a problem with two pairs, in which a reader sets the start and turns the knobs.

    Parameters
    ----------
    *problems : Example or Update
        One, or several to choose from; each has two pairs of state and action.
    starts : sequence of two numbers each, optional
        Where the path begins, for each problem; by default the start of the example.
    limits : sequence of (float, float), optional
        The square that is seen, the same on both axes, for each problem; by default around start and optimum.
    sliders : sequence of {"alpha", "share", "coupling", "gamma"}
        What may be changed. A share needs a kernel update, a coupling a symmetric kernel.
    shade : bool
        Colour the starts by what becomes of them.
    box : bool
        Draw the square round the optimum on whose edge the start lies, its images under the pieces of the update, the
        smallest square round the images, thin, and the one of `contraction.row_sum_bound`, dotted.
    undo : bool
        Offer the kernel undone on a batch, `updates.Update.preconditioned`, beside the kernel as it is.
    network : (torch.nn.Module, tensor of shape (2, d)), optional
        A `networks.MLP` with one hidden layer and the inputs of the two pairs. The path is then that of its real
        semi-gradient steps, and the next step is drawn as it is and as its kernel predicts it.
    max_iter, tol, bound : int, float, float
        As in `dynamics.iterate`, by which the script judges what became of a path; an undecided one goes round if in
        its second half it comes back to where that half began, to a fiftieth of its way across, and otherwise it is
        still moving. The defaults are those of `dynamics.portrait`.

    Returns
    -------
    Plane

    Raises
    ------
    ValueError
        If there is no problem, a problem has not two pairs, an update comes without a start, limits do not increase, a
        slider is unknown, or a kernel is asked for where there is none.
    """
    if not problems:
        raise ValueError("problems must name at least one")
    for name in sliders:
        _checks.choice("sliders", name, SLIDERS)
    rule = {
        "max_iter": _checks.integer("max_iter", max_iter, low=1),
        "tol": _checks.scalar("tol", tol, low=0),
        "bound": _checks.scalar("bound", bound, low=0, low_open=True),
    }
    for name, given in (("starts", starts), ("limits", limits)):
        if given is not None and len(given) != len(problems):
            raise ValueError(f"{name} must have one entry for each of {len(problems)} problems, got {len(given)}")
    told = [
        _told(problem, None if starts is None else starts[k], None if limits is None else limits[k])
        for k, problem in enumerate(problems)
    ]
    if undo and not all("kernel" in problem for problem in told):
        raise ValueError("undo must be False for an update without a kernel")
    if network is not None:
        told = [problem | {"network": _layers(*network)} for problem in told]
    spec = {
        "problems": told,
        "rule": rule,
        "sliders": list(sliders),
        "shade": shade and network is None,
        "box": box,
        "undo": "both" if undo else None,
        "alt": "The plane of Q, the first value to the right and the second one up, with a path from the start that "
        "you choose. What became of it is said beside it.",
    }
    return Plane(spec, _still(problems, told, rule))


def _told(problem: Example | Update, start: ArrayLike | None, limits: tuple | None) -> dict[str, Any]:
    """Return what the script must know of a problem."""
    update = problem.update if isinstance(problem, Example) else problem
    name = problem.name if isinstance(problem, Example) else "the update"
    mdp = update.mdp
    if mdp.n_pairs != 2:
        raise ValueError(f"problems must have 2 pairs of state and action, {name} has {mdp.n_pairs}")
    if start is None and not isinstance(problem, Example):
        raise ValueError("starts must be given for an update that is no example")
    start = _checks.array("starts", problem.Q0.ravel() if start is None else start, shape=(2,))
    star = bellman.policy_iteration(mdp).Q.ravel()
    reach = 2 * float(np.abs(start - star).max()) or 1.0
    low, high = (float(star.min()) - reach, float(star.max()) + reach) if limits is None else map(float, limits)
    if not low < high:
        raise ValueError(f"limits must increase, got ({low:g}, {high:g})")
    P = mdp.transitions.toarray() if _checks.is_sparse(mdp.transitions) else mdp.transitions
    told = {
        "name": name,
        "actions": mdp.n_actions,
        "P": P.tolist(),
        "R": mdp.R.ravel().tolist(),
        "gamma": float(mdp.gamma),
        "policy": update.policy[0].tolist() if update.policy is not None and mdp.n_actions == 2 else None,
        "start": start.tolist(),
        "limits": [low, high],
    }
    if isinstance(update, KernelUpdate):
        return told | {"kernel": update.kernel.tolist(), "rho": update.weights.tolist(), "alpha": float(update.alpha)}
    return told | {"matrix": update.matrix.tolist(), "alpha": 1.0}


def _layers(net: Any, x: Any) -> dict[str, Any]:
    """Return the numbers of a network with one hidden layer."""
    given = [parameter.detach().double().tolist() for parameter in net.parameters()]
    kinds = {"ReLU": "relu", "Tanh": "tanh", "Sine": "sin"}
    names = [type(layer).__name__ for layer in net]
    if len(given) != 4 or len(names) != 3 or names[1] not in kinds or len(given[2]) != 1:
        raise ValueError(f"network must have one hidden layer and one output, got {', '.join(names)}")
    W, b, (v,), (c,) = given
    return {"activation": kinds[names[1]], "x": x.double().tolist(), "W": W, "b": b, "v": v, "c": c}


def _still(problems: Sequence[Example | Update], told: Sequence[dict[str, Any]], rule: dict[str, Any]) -> str:
    """Return the plane as a figure, for a page without scripts: each problem with the path from its start."""
    figure, axes = plt.subplots(1, len(problems), figsize=(3.6 * len(problems), 3.5), squeeze=False)
    seen = []
    for ax, problem, given in zip(axes[0], problems, told, strict=True):
        update = problem.update if isinstance(problem, Example) else problem
        start = np.reshape(given["start"], update.mdp.R.shape)
        run = dynamics.iterate(update, start, **rule)
        plotting.plot_path(_thinned(run, (given["limits"][1] - given["limits"][0]) / 100), ax=ax)
        plotting.plot_star(bellman.policy_iteration(update.mdp).Q, ax=ax)
        if given["actions"] == 2:
            ax.plot(given["limits"], given["limits"], color=plotting.GREY, lw=1, ls=(0, (1, 2)), zorder=1)
        ax.set(xlim=given["limits"], ylim=given["limits"], aspect="equal")
        if len(problems) > 1:
            ax.set_xlabel(f"$Q_1$\n{given['name']}")
        x, y = given["start"]
        seen.append(f"{given['name']}, from ({x:g}, {y:g}): {run.status} after {len(run.values) - 1} updates")
    return _svg(figure, f"The plane of Q. {'; '.join(seen)}.", salt=repr(told))


def _thinned(run: dynamics.Trajectory, apart: float) -> dynamics.Trajectory:
    """Return the iterates that an eye can tell apart, the first few hundred: a loop is drawn once or twice."""
    kept = [run.values[0]]
    for Q in run.values[1:]:
        if len(kept) < 300 and np.abs(Q - kept[-1]).max() >= apart:
            kept.append(Q)
    return dynamics.Trajectory(np.stack(kept), None, run.status)


@functools.cache
def _plane_widget() -> type:
    """Return the class of the widget; anywidget takes the script as a module."""
    try:
        import anywidget
        import traitlets
    except ImportError as error:
        raise ImportError("a plane in JupyterLab needs anywidget: pip install 'divergence-notes[widgets]'") from error
    here = Path(__file__).parent
    script = (here / "plane.js").read_text(encoding="utf-8")

    class PlaneWidget(anywidget.AnyWidget):
        """A plane of Q."""

        _esm = f"{script}\nexport default {{ render: divergenceNotesPlane.render }};\n"
        _css = (here / "plane.css").read_text(encoding="utf-8")
        spec = traitlets.Unicode().tag(sync=True)

    return PlaneWidget


def bet(name: str) -> ipywidgets.VBox:
    """Ask for a bet where there is a kernel: buttons or a field, and below them the reason for what was chosen.

    Parameters
    ----------
    name : str
        The label of a bet, such as ``"ex-bellman-prediction"``: a choice, or a number that can be said in words.

    Returns
    -------
    ipywidgets.VBox
        What asks, and what `grading.check` says of the answer. On a page of the site the exercise itself asks.

    Raises
    ------
    ValueError
        If there is no such exercise, or it asks for something else.
    """
    exercise = find(name)
    if not isinstance(exercise, Choice) and not (isinstance(exercise, Value) and exercise.phrases):
        raise ValueError(f"name must be that of a bet, and {name} asks for something that is neither chosen nor said")
    said = ipywidgets.HTML('<p role="status"></p>')

    def hear(answer: str | None) -> None:
        result = None if answer is None or not answer.strip() else check(name, answer)
        text = "" if result is None else f"{'Right' if result.passed else 'Not so'}. {result.message}"
        said.value = f'<p role="status">{html.escape(text)}</p>'

    if isinstance(exercise, Choice) and len(options := exercise.options(*exercise.sample()[0])) <= Choice.buttons:
        ask = ipywidgets.ToggleButtons(
            options=[(words, option) for option, words in options.items()],
            value=None,
            tooltips=list(options.values()),
            style={"button_width": "auto"},
        )
    else:
        ask = ipywidgets.Text(placeholder="your bet, and Enter", continuous_update=False)
    ask.observe(lambda change: hear(change["new"]), "value")
    return ipywidgets.VBox([ask, said])
