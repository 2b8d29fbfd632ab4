"""Controls over pre-drawn frames: what they are, the links, frames that can live on one page; and bets."""

import asyncio
import html
import re
from xml.etree import ElementTree

import ipywidgets
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from jupyter_client.manager import start_new_kernel

from divergence_notes import grading, widgets
from divergence_notes.grading import registry
from tests.waiting import PATIENCE, until


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


def draw(**combination):
    fig, ax = plt.subplots(figsize=(3, 2), constrained_layout=False)
    ax.plot([0, 1], [0, sum(float(len(str(v))) for v in combination.values())], label="a line")
    ax.imshow(np.eye(2), extent=(0, 1, 0, 1))
    ax.text(0.5, 0.5, ", ".join(f"{k}={v}" for k, v in combination.items()))
    ax.legend()
    return fig


def frames(widget):
    """Return every frame below a widget, in order."""
    if isinstance(widget, ipywidgets.HTML):
        return [widget]
    return [frame for child in getattr(widget, "children", ()) for frame in frames(child)]


@pytest.fixture
def linked(monkeypatch):
    """Record every link while it is made."""
    made, real = [], ipywidgets.jslink

    def jslink(source, target):
        made.append((source, target))
        return real(source, target)

    monkeypatch.setattr(ipywidgets, "jslink", jslink)
    return made


class TestControls:
    """One control for each name, its symbol as description, its positions as options, above one stack."""

    @pytest.mark.parametrize(
        ("positions", "kind"),
        [
            ([False, True], ipywidgets.ToggleButtons),
            ({"off": False, "on": True}, ipywidgets.ToggleButtons),
            ([0.5, 0.9], ipywidgets.ToggleButtons),
            ({"itself": np.eye(2), "the second state": None}, ipywidgets.ToggleButtons),
            ([0.5, 0.9, 1], ipywidgets.SelectionSlider),
            ({"¼": 0.25, "½": np.float32(0.5), "1": 1}, ipywidgets.SelectionSlider),
            (range(3), ipywidgets.SelectionSlider),
            (["relu", "tanh", "sin"], ipywidgets.Dropdown),
            ({"both": [0, 1], "one": [0], "two": [1]}, ipywidgets.Dropdown),
            ([0.5, 0.9, "none"], ipywidgets.Dropdown),
        ],
    )
    def test_two_are_a_switch_numbers_a_slider_the_rest_a_menu(self, linked, positions, kind):
        control, stack = widgets.explore(lambda setting: draw(), start={"setting": 1}, setting=positions).children
        assert type(control) is kind
        labels = ("off", "on") if positions == [False, True] else tuple(map(str, positions))
        assert control.options == labels and control.index == stack.selected_index == 1
        assert linked == [((control, "index"), (stack, "selected_index"))]

    def test_one_slider(self, linked):
        explorer = widgets.explore(draw, alpha=[0.1, 0.5, 1])
        assert type(explorer) is ipywidgets.VBox
        slider, stack = explorer.children
        assert type(slider) is ipywidgets.SelectionSlider
        assert slider.options == ("0.1", "0.5", "1")
        assert slider.description == "α"
        assert slider.index == stack.selected_index == 0
        assert type(stack) is ipywidgets.Stack
        assert len(stack.children) == 3
        assert linked == [((slider, "index"), (stack, "selected_index"))]

    def test_two_sliders(self, linked):
        explorer = widgets.explore(draw, gamma=[0.5, 0.9], hidden_width=["one", "two", "three"])
        gamma, width, outer = explorer.children
        assert (gamma.description, width.description) == ("γ", "hidden width")
        assert width.options == ("one", "two", "three")
        assert len(outer.children) == 2
        assert all(type(inner) is ipywidgets.Stack and len(inner.children) == 3 for inner in outer.children)
        assert len(frames(explorer)) == 6
        expected = [((width, "index"), (inner, "selected_index")) for inner in outer.children]
        expected.append(((gamma, "index"), (outer, "selected_index")))
        assert linked == expected

    def test_labels_of_a_mapping(self):
        seen = []
        explorer = widgets.explore(
            lambda net: seen.append(net) or draw(net=net), net={"a table": (1, 2), "a network": None}
        )
        assert explorer.children[0].options == ("a table", "a network")
        assert seen == [(1, 2), None]

    def test_each_frame_is_its_combination(self):
        explorer = widgets.explore(draw, alpha=[0.1, 0.5], gamma=[0, 0.9])
        texts = [re.search(r"alpha=[\d.]+, gamma=[\d.]+", frame.value).group() for frame in frames(explorer)]
        assert texts == ["alpha=0.1, gamma=0", "alpha=0.1, gamma=0.9", "alpha=0.5, gamma=0", "alpha=0.5, gamma=0.9"]

    def test_start(self):
        explorer = widgets.explore(draw, start={"gamma": 1}, alpha=[0.1, 0.5], gamma=[0, 0.9])
        alpha, gamma, outer = explorer.children
        assert (alpha.index, gamma.index, gamma.value) == (0, 1, "0.9")
        assert outer.selected_index == 0
        assert [inner.selected_index for inner in outer.children] == [1, 1]

    def test_axes_are_as_good_as_a_figure(self):
        one = widgets.explore(draw, alpha=[1, 2])
        other = widgets.explore(lambda alpha: draw(alpha=alpha).axes[0], alpha=[1, 2])
        assert [frame.value for frame in frames(one)] == [frame.value for frame in frames(other)]

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({}, "values must name at least one control"),
            ({"alpha": [0.5]}, "alpha must have at least two positions, got ['0.5']"),
            ({"alpha": [0.5, 0.5]}, "alpha must have at least two positions, got ['0.5']"),
            ({"alpha": [1, 2], "start": {"alpha": 2}}, "start must hold positions in [0, 1]: start['alpha'] is 2"),
            ({"alpha": [1, 2], "start": {"alpha": -1}}, "start must hold positions in [0, 1]: start['alpha'] is -1"),
            ({"alpha": [1, 2], "start": {"beta": 0}}, "start must name controls among alpha, got 'beta'"),
            ({"alpha": [1, 2, 3], "play": "beta"}, "play must name a slider among alpha, got 'beta'"),
            ({"alpha": [1, 2], "play": "alpha"}, "play must name a slider among alpha, got 'alpha'"),
        ],
    )
    def test_refuses(self, given, message):
        with refuses(ValueError, message):
            widgets.explore(draw, **given)

    def test_two_values_that_are_written_alike(self):
        with refuses(ValueError, "alpha must be written apart: 0.1234567 and 0.1234568 both read '0.123457'"):
            widgets.explore(draw, alpha=[0.1234567, 0.1234568, 1])


class TestPlay:
    """A button walks a slider to its end, and from there again from the start."""

    @pytest.fixture
    def explorer(self, monkeypatch):
        monkeypatch.setattr(widgets, "_PAUSE", 0)
        return widgets.explore(draw, play="step", start={"step": 1}, which=["one", "two", "three"], step=range(4))

    def test_walks(self, explorer):
        _, slider, button, _ = explorer.children
        walked = []
        slider.observe(lambda change: walked.append(change["new"]), "index")

        async def press():
            button.click()
            while button.description != "Play":
                await asyncio.sleep(0)

        asyncio.run(press())
        asyncio.run(press())
        assert walked == [2, 3, 0, 1, 2, 3]

    def test_whoever_moves_the_slider_meanwhile_is_followed(self, explorer):
        _, slider, button, _ = explorer.children

        async def press():
            button.click()
            await asyncio.sleep(0)
            slider.index = 3
            while button.description != "Play":
                await asyncio.sleep(0)

        asyncio.run(press())
        assert slider.index == 3

    def test_what_the_page_is_told(self, explorer):
        """By these two classes access.js finds the button and its slider."""
        menu, slider, button, _ = explorer.children
        assert (button.description, *button._dom_classes, *slider._dom_classes) == ("Play", "dn-play", "dn-played")
        assert not menu._dom_classes


EXPLORER = """
import matplotlib
matplotlib.use("agg")
from matplotlib.figure import Figure
from divergence_notes import widgets
explorer = widgets.explore(lambda step: Figure(), play="step", step=range(4))
slider, button, _ = explorer.children
"""


@pytest.fixture(scope="module")
def kernel():
    """Start a kernel that has an explorer, as JupyterLab does; yield what runs code in it, and what clicks on Play."""
    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=PATIENCE)

    def run(code):
        said = []

        def hear(message):
            said.append(message["content"].get("text", "") + "".join(message["content"].get("traceback", ())))

        client.execute_interactive(code, timeout=PATIENCE, output_hook=hear)
        return "".join(said).strip()

    def click():
        data = {"method": "custom", "content": {"event": "click"}}
        client.shell_channel.send(client.session.msg("comm_msg", {"comm_id": button, "data": data}))

    try:
        assert run(EXPLORER) == ""
        button = run("print(button.model_id)")
        yield run, click
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


class TestPlayInAKernel:
    """While it plays, the kernel answers: cells run, and the next click is heard at once."""

    def test_a_second_click_pauses_and_a_third_plays_on(self, kernel):
        run, click = kernel
        run("widgets._PAUSE = 10_000")  # who waits for it waits in vain
        click()
        until(lambda: run("print(button.description, slider.index)") == "Pause 1")
        click()
        until(lambda: run("print(button.description, slider.index)") == "Play 1")
        run("widgets._PAUSE = 0.001")
        click()
        until(lambda: run("print(button.description, slider.index)") == "Play 3")


class TestFrames:
    """Frames are inline SVG: well formed, the same bytes every time, and no name that two of them share."""

    def test_well_formed_and_described(self):
        explorer = widgets.explore(draw, alt="A line & a <square>", alpha=[0.1, 0.5])
        for frame, label in zip(frames(explorer), ("0.1", "0.5"), strict=True):
            root = ElementTree.fromstring(frame.value)
            assert root.tag.endswith("svg")
            assert root.attrib["role"] == "img"
            assert root.attrib["aria-label"] == f"A line & a <square> (α = {label})"

    @pytest.mark.parametrize(
        ("alt", "expected"),
        [
            (None, "γ = 0, hidden width = two"),
            ("A picture", "A picture (γ = 0, hidden width = two)"),
            (lambda gamma, hidden_width: f"{gamma + 1} {hidden_width}", "1 two (γ = 0, hidden width = two)"),
        ],
    )
    def test_alt(self, alt, expected):
        explorer = widgets.explore(draw, alt=alt, gamma=[0, 0.9], hidden_width=["two", "four"])
        assert html.unescape(re.search('aria-label="([^"]*)"', frames(explorer)[0].value).group(1)) == expected

    def test_deterministic(self):
        one, other = (
            [frame.value for frame in frames(widgets.explore(draw, alpha=[0.1, 0.5], gamma=[0, 0.9]))] for _ in range(2)
        )
        assert one == other
        assert len(set(one)) == 4

    def test_no_name_is_shared(self):
        values = [frame.value for frame in frames(widgets.explore(draw, alpha=[0.1, 0.5], gamma=[0, 0.9]))]
        names = [re.findall(r'\bid="([^"]+)"', value) for value in values]
        assert all(names)  # not vacuous: clip paths need names
        assert sum(map(len, names)) == len({name for found in names for name in found})

    def test_every_reference_has_its_target(self):
        for frame in frames(widgets.explore(draw, alpha=[0.1, 0.5])):
            used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', frame.value))
            assert used
            assert used <= set(re.findall(r'\bid="([^"]+)"', frame.value))

    def test_two_explorers_that_draw_alike_share_no_name(self):
        names = [
            set(re.findall(r'\bid="([^"]+)"', frames(widgets.explore(draw, alt=alt, alpha=[0.1, 0.5]))[0].value))
            for alt in ("first", "second")
        ]
        assert names[0]
        assert not names[0] & names[1]

    def test_nothing_is_left_open_or_changed(self):
        plt.close("all")
        style = dict(mpl.rcParams)
        widgets.explore(draw, alpha=[0.1, 0.5])
        assert not plt.get_fignums()
        assert dict(mpl.rcParams) == style

    def test_it_shrinks_on_a_phone(self):
        value = frames(widgets.explore(draw, alpha=[0.1, 0.5]))[0].value
        assert "max-width: 100%" in ElementTree.fromstring(value).attrib["style"]
        assert "<?xml" not in value


BETS = [name for name in registry.exercises() if name.endswith("-prediction")]


def heard(box):
    """Return what a bet's box says now, as text."""
    return html.unescape(re.fullmatch(r'<p role="status">(.*)</p>', box.children[1].value, re.DOTALL)[1])


class TestBetWhereThereIsAKernel:
    """Where there is a kernel, a bet is asked by a small widget that says what the check says."""

    @pytest.mark.parametrize("name", BETS)
    def test_says_what_the_check_says(self, name):
        exercise, box = registry.find(name), widgets.bet(name)
        ask, _ = box.children
        assert heard(box) == ""
        if isinstance(ask, ipywidgets.ToggleButtons):
            assert dict(map(reversed, ask.options)) == exercise.options()
            answers = [option for _, option in ask.options]
        else:
            answers = [ways[0] for ways in exercise.phrases.values()] + ["nonsense & <b>"]
        verdicts = []
        for answer in answers:
            ask.value = answer
            result = grading.check(name, answer)
            assert heard(box) == f"{'Right' if result.passed else 'Not so'}. {result.message}"
            verdicts.append(result.passed)
        assert any(verdicts) and not all(verdicts)

    def test_nothing_is_said_to_nothing(self):
        for name in ("ex-bellman-prediction", "ex-bellman-fates-prediction"):
            box = widgets.bet(name)
            before = box.children[0].value
            box.children[0].value = registry.find(name).right if before is None else "0"
            assert heard(box) != ""
            box.children[0].value = before
            assert heard(box) == ""

    def test_what_is_typed_is_text(self):
        box = widgets.bet("ex-function-approximation-legs-prediction")
        box.children[0].value = "<img src=x>"
        assert "<img" not in box.children[1].value and "<img" in heard(box)

    def test_refuses_what_is_built(self):
        other = next(n for n, e in registry.exercises().items() if type(e).__name__ == "Function")
        with refuses(
            ValueError, f"name must be that of a bet, and {other} asks for something that is neither chosen nor said"
        ):
            widgets.bet(other)
