"""Results in, Axes out: what is drawn is what was computed, and nothing else is touched."""

import inspect
import re
import subprocess
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import Circle, Polygon, Rectangle
from matplotlib.quiver import Quiver

from divergence_notes import diagnostics, dynamics, plotting


@pytest.fixture(autouse=True)
def no_figures_are_left():
    yield
    plt.close("all")


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


def spiral(Q):
    return Q @ np.array([[0.7, 0.4], [-0.4, 0.7]])


RUN = dynamics.iterate(lambda Q: Q / 2, [4.0, -8.0], max_iter=5, target=[0.0, 0.0])
GROWTH = dynamics.iterate(lambda Q: -3 * Q, [4.0, 1.0], max_iter=50, bound=1e3, target=[0.0, 0.0])
PORTRAIT = dynamics.portrait(spiral, [[1.0, 0.5], [-1.0, 1.0]], shape=(2,), limits=(-2, 2), max_iter=30)
KERNEL = np.array([[2.0, -1.0, 0.5], [0.0, 1.0, 0.25], [4.0, 3.0, -6.0]])
IMAGES = np.array(
    [[[1.0, 0.5], [-0.5, 1.0], [-1.0, -0.5], [0.5, -1.0]], [[1.5, 0.2], [0, 0.5], [-1.5, -0.2], [0, -0.5]]]
)
TURNS = np.array([[1.0, 1.0], [0.5, 0.25], [-0.5, 0.5]])
SEEDS = pd.DataFrame({0: [2.0, 5.0], 1: [4.0, 5.0]}, index=[10, 20])
REPORT = diagnostics.report(KERNEL @ KERNEL.T, q=[1.0, -3.0], td_error=[1.0, 2.0, 3.0], gamma=0.5, r_max=1.0)
HISTORY = pd.DataFrame(
    {"step": [100, 200], "max_q": [1.0, 9.0], "bound": 5.0, "alarm": [False, True], "status": "undecided"}
)

CALLS = {
    "plot_error": lambda ax: plotting.plot_error(RUN, ax=ax, label="half"),
    "plot_sizes": lambda ax: plotting.plot_sizes(GROWTH, ax=ax),
    "plot_kernel": lambda ax: plotting.plot_kernel(KERNEL, ax=ax, labels=["a", "b", "c"]),
    "plot_table": lambda ax: plotting.plot_table(KERNEL, ax=ax, column_labels=["x", "y", "z"]),
    "plot_grid": lambda ax: plotting.plot_grid(KERNEL, ax=ax),
    "plot_plane": lambda ax: plotting.plot_plane(PORTRAIT.field, PORTRAIT.x, PORTRAIT.y, ax=ax),
    "plot_path": lambda ax: plotting.plot_path(PORTRAIT.paths[0], ax=ax),
    "plot_star": lambda ax: plotting.plot_star([[1.0, 2.0]], ax=ax),
    "plot_portrait": lambda ax: plotting.plot_portrait(PORTRAIT, star=[0.0, 0.0], ax=ax),
    "plot_outcomes": lambda ax: plotting.plot_outcomes(
        [["converged", "diverged"]], row_labels=["r"], column_labels=["a", "b"], ax=ax
    ),
    "plot_rows": lambda ax: plotting.plot_rows(KERNEL @ KERNEL.T, gammas=[0.5], ax=ax),
    "plot_pulls": lambda ax: plotting.plot_pulls([1.0, 2.0], [[2.0, -1.0], [4.0, -2.5]], real=[1.0, 1.0], ax=ax),
    "plot_alignment": lambda ax: plotting.plot_alignment([1.0, -2.0], {"one": [5.0, 4.0], "two": [-3.0, -6.0]}, ax=ax),
    "plot_basin": lambda ax: plotting.plot_basin(["converged", "diverged"], ax=ax),
    "plot_jumps": lambda ax: plotting.plot_jumps([RUN], star=[1.0, 2.0], radii=[8.0, 4.0], ax=ax),
    "plot_learning": lambda ax: plotting.plot_learning([1, 10, 100], [3.0, 2.0, 1.0], ax=ax),
    "plot_column": lambda ax: plotting.plot_column([1.0, -4.0], ax=ax),
    "plot_blocks": lambda ax: plotting.plot_blocks(KERNEL, [2, 1], labels=["u", "v"], ax=ax),
    "plot_prediction": lambda ax: plotting.plot_prediction([0.1, 0.2], [1.0, 2.0], [1.0, 2.5], ax=ax),
    "plot_remainders": lambda ax: plotting.plot_remainders([0.1, 0.2, 0.4], {"net": [1.0, 4.0, 16.0]}, ax=ax),
    "plot_box_images": lambda ax: plotting.plot_box_images(IMAGES, ax=ax, labels=["one", "two"], bound=1.7),
    "plot_turn": lambda ax: plotting.plot_turn(TURNS, [IMAGES[0], 2 * IMAGES[0]], acting=1, ax=ax),
    "plot_rest": lambda ax: plotting.plot_rest([-2.0, 0.0, 2.0], [3.0, -1.0, 3.0], points=[-1 / 3, 1.0], ax=ax),
    "plot_moves": lambda ax: plotting.plot_moves(np.eye(4, 2), labels=["one", "two"], ax=ax),
    "plot_samples": lambda ax: plotting.plot_samples([1.0, 2.0], [[1.0, 3.0], [5.0, 9.0]], ax=ax),
    "plot_seeds": lambda ax: plotting.plot_seeds(SEEDS, ax=ax),
    "plot_response": lambda ax: plotting.plot_response(KERNEL, trained=(2, 0), ax=ax, colorbar=True),
    "plot_leakage": lambda ax: plotting.plot_leakage([1.0, 2.0], [0.5, 0.25], trained=1, predicted=[0.5, 0.5], ax=ax),
    "plot_diagram": lambda ax: plotting.plot_diagram(
        [[0.0, 0.0], [2.0, 0.0]], ["w", "2w"], [(0, 1), (1, 1)], dashed=[(1, 0), (0, 0)], ax=ax
    ),
    "plot_boundary": lambda ax: plotting.plot_boundary(
        [0.0, 0.5, 1.0], [0.2, 0.4, 0.6], below="converged", above="diverged", ax=ax
    ),
    "plot_regions": lambda ax: plotting.plot_regions(
        np.array([[0, 0, 1], [2, 2, 1]]), [0.0, 1.0, 2.0], [0.0, 1.0], labels=["a", "b", "c"], ax=ax
    ),
    "plot_report": lambda ax: plotting.plot_report(REPORT, ax=ax),
    "plot_history": lambda ax: plotting.plot_history(HISTORY, quantities=["max_q"], axes=None if ax is None else [ax])[
        0
    ],
}
FIGURES = {"plot_portraits"}  # makes a figure of several panels; has tests of its own
NEEDS_AXES = {"plot_star", "plot_basin"}  # marks on a picture that is there
NO_LABELS = NEEDS_AXES | {
    "plot_column",
    "plot_blocks",
    "plot_samples",
    "plot_seeds",
    "plot_diagram",
    "plot_boundary",
    "plot_regions",
}  # what the axes mean is the caller's to say


@pytest.fixture
def ax():
    return plt.subplots()[1]


class TestEveryPlot:
    """A plot draws into the given Axes or makes one, returns it, names its axes, has no title, changes no style."""

    def test_each_function_is_called_here(self):
        public = {name for name, _ in inspect.getmembers(plotting, inspect.isfunction) if name.startswith("plot_")}
        assert public == set(CALLS) | FIGURES, "give every plot_ function of the package a line in CALLS"

    @pytest.mark.parametrize("name", CALLS)
    def test_into_given_axes(self, name, ax):
        style = dict(mpl.rcParams)
        assert CALLS[name](ax) is ax
        assert ax.get_title() == ""
        assert ax.figure.get_suptitle() == ""
        assert dict(mpl.rcParams) == style
        if name not in NO_LABELS:
            assert ax.get_xlabel()
            assert ax.get_ylabel() or ax.get_yticklabels()
        ax.figure.canvas.draw()

    @pytest.mark.parametrize("name", sorted(set(CALLS) - NEEDS_AXES))
    def test_makes_its_own(self, name):
        one, other = CALLS[name](None), CALLS[name](None)
        assert isinstance(one, mpl.axes.Axes)
        assert one.figure is not other.figure

    def test_importing_sets_no_style(self):
        script = (
            "import matplotlib as mpl; before = dict(mpl.rcParams); import divergence_notes.plotting, "
            "divergence_notes.widgets; assert dict(mpl.rcParams) == before"
        )
        subprocess.run([sys.executable, "-c", script], check=True)

    def test_use_style(self):
        with mpl.rc_context():
            mpl.rcParams["axes.spines.top"] = True
            plotting.use_style()
            assert not mpl.rcParams["axes.spines.top"]
            assert mpl.rcParams["axes.grid"]

    def test_statuses_and_series_differ_in_colour_and_in_line(self):
        assert set(plotting.STATUS_STYLE) == set(dynamics.STATUSES)
        for styles in (list(plotting.STATUS_STYLE.values()), plotting.SERIES):
            for key in ("color", "linestyle"):
                assert len({str(style[key]) for style in styles}) == len(styles)


class TestCurves:
    """Curves hold the numbers of the run, in the style of its status unless told otherwise."""

    @pytest.mark.parametrize(("function", "attribute"), [("plot_error", "errors"), ("plot_sizes", "sizes")])
    @pytest.mark.parametrize("run", [RUN, GROWTH])
    def test_runs(self, ax, function, attribute, run):
        getattr(plotting, function)(run, ax=ax, label="here")
        (line,) = ax.lines
        np.testing.assert_array_equal(line.get_xdata(), np.arange(len(run.values)))
        np.testing.assert_array_equal(line.get_ydata(), getattr(run, attribute))
        assert line.get_color() == plotting.STATUS_STYLE[run.status]["color"]
        assert line.get_linestyle() == plotting.STATUS_STYLE[run.status]["linestyle"]
        assert (line.get_label(), ax.get_yscale()) == ("here", "log")
        getattr(plotting, function)(run, ax=ax, color="red")
        assert ax.lines[1].get_color() == "red"

    def test_error_needs_a_target(self, ax):
        with refuses(ValueError, "trajectory must have errors: give `iterate` a target"):
            plotting.plot_error(dynamics.iterate(lambda Q: Q, [1.0], max_iter=1), ax=ax)

    def test_learning(self, ax):
        plotting.plot_learning([1, 10], [3.0, 2.0], ax=ax)
        assert ax.lines[0].get_xydata().tolist() == [[1, 3], [10, 2]]
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")

    def test_samples(self, ax):
        plotting.plot_samples([1.0, 2.0], [[1.0, 3.0], [5.0, 9.0]], ax=ax, label="runs")
        assert ax.lines[0].get_xydata().tolist() == [[1, 2], [2, 7]]
        dots = np.concatenate([line.get_xydata() for line in ax.lines[1:]])
        assert sorted(dots.tolist()) == [[1, 1], [1, 3], [2, 5], [2, 9]]
        with refuses(ValueError, "samples must have shape (2, any), got (1, 2)"):
            plotting.plot_samples([1.0, 2.0], [[1.0, 3.0]])

    def test_seeds(self, ax):
        """Every run, the mean of all, and a band that is the t interval: 3 -+ 12.706 sd / sqrt 2 for two runs."""
        plotting.plot_seeds(SEEDS, ax=ax, label="runs")
        mean, *runs = ax.lines
        assert mean.get_xydata().tolist() == [[10, 3], [20, 5]]
        assert [line.get_ydata().tolist() for line in runs] == [[2, 5], [4, 5]]
        assert [line.get_label() for line in ax.lines].count("runs") == 1
        edges = ax.collections[0].get_paths()[0].vertices
        assert edges[:, 1].max() == pytest.approx(3 + 12.7062)
        assert edges[:, 1].min() == pytest.approx(3 - 12.7062)
        low, high = ax.get_ylim()
        assert 1.5 < low <= 2 and 5 <= high < 5.5, "the runs fill the picture, not the band"
        alone = plotting.plot_seeds(SEEDS[[0]])
        assert alone.lines[0].get_ydata().tolist() == [2, 5]
        assert not alone.collections

    def test_remainders_beside_slope_two(self, ax):
        alphas = [0.1, 0.2, 0.4]
        plotting.plot_remainders(alphas, {"first": [1.0, 2.0, 3.0], "second": [1.0, 4.0, 5.0]}, ax=ax)
        assert [line.get_label() for line in ax.lines] == ["first", "second", "slope 2"]
        assert ax.lines[1].get_ydata().tolist() == [1, 4, 5]
        guide = ax.lines[2].get_ydata()
        np.testing.assert_allclose(np.diff(np.log(guide)) / np.diff(np.log(alphas)), 2)
        assert guide[-1] == pytest.approx(15)
        with refuses(ValueError, "first must have shape (3,), got (2,)"):
            plotting.plot_remainders(alphas, {"first": [1.0, 2.0]})

    def test_boundary(self, ax):
        plotting.plot_boundary([0.0, 0.5, 1.0], [0.2, 0.4, 0.6], below="converged", above="diverged", ax=ax, high=0.9)
        assert ax.lines[0].get_xydata().tolist() == [[0, 0.2], [0.5, 0.4], [1, 0.6]]
        heights = {text.get_text(): text.get_position()[1] for text in ax.texts}
        assert heights["converged"] < 0.4 < heights["diverged"]
        colors = [patch.get_facecolor()[0][:3] for patch in ax.collections]
        for status, color in zip(("converged", "diverged"), colors, strict=True):
            assert tuple(color) == to_rgba(plotting.STATUS_STYLE[status]["color"])[:3]
        low, high = (patch.get_paths()[0].vertices[:, 1] for patch in ax.collections)
        assert (low.min(), high.max()) == ax.get_ylim() == (0, 0.9)
        plotting.plot_boundary([0.0, 1.0], [0.2, 0.6], below="converged", above="diverged", ax=ax, low=-1, high=2)
        assert ax.get_ylim() == (-1, 2)

    def test_rest(self, ax):
        """Filled where short steps lead from both sides, open elsewhere; the arrows point the same way."""
        CALLS["plot_rest"](ax)
        value, target, first, second = ax.lines
        assert value.get_ydata().tolist() == value.get_xdata().tolist() == [-2, 0, 2]
        assert target.get_ydata().tolist() == [3, -1, 3]
        assert [dot.get_xydata().tolist() for dot in (first, second)] == [[[-1 / 3, -1 / 3]], [[1, 1]]]
        assert first.get_markerfacecolor() == plotting.BLUE == first.get_color()
        assert (second.get_markerfacecolor(), second.get_color()) == ("white", plotting.VERMILION)
        assert [np.sign(arrow.xy[0] - arrow.get_position()[0]) for arrow in ax.texts] == [1, -1, 1]

    def test_no_rest(self, ax):
        plotting.plot_rest([-1.0, 0.0, 1.0], [3.0, 1.0, 3.0], points=[], ax=ax)
        assert len(ax.lines) == 2 and [np.sign(arrow.xy[0] - arrow.get_position()[0]) for arrow in ax.texts] == [1]


class TestTables:
    """Images hold the numbers; the colours of a kernel are symmetric about zero; text is readable on its cell."""

    @pytest.mark.parametrize("limit", [None, 8.0])
    def test_kernel(self, ax, limit):
        plotting.plot_kernel(KERNEL, ax=ax, limit=limit, labels=["a", "b", "c"])
        image = ax.images[0]
        np.testing.assert_array_equal(image.get_array(), KERNEL)
        top = 6.0 if limit is None else limit
        assert (image.norm.vmin, image.norm.vcenter, image.norm.vmax) == (-top, 0, top)
        red, blue = image.cmap(image.norm(top)), image.cmap(image.norm(-top))
        assert red[0] > red[2]
        assert blue[2] > blue[0]
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ["a", "b", "c"]
        assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b", "c"]
        assert "j" in ax.get_xlabel()
        assert "i" in ax.get_ylabel()

    @pytest.mark.parametrize("function", ["plot_kernel", "plot_column", "plot_blocks"])
    def test_nothing_moves(self, ax, function):
        zero = np.zeros(2) if function == "plot_column" else np.zeros((2, 2))
        more = {"sizes": [1, 1], "labels": ["a", "b"]} if function == "plot_blocks" else {}
        getattr(plotting, function)(zero, ax=ax, **more)
        ax.figure.canvas.draw()
        assert ax.images[0].norm.vmin < 0 < ax.images[0].norm.vmax

    @pytest.mark.parametrize(("colorbar", "axes"), [(True, 2), (False, 1)])
    def test_colorbar(self, ax, colorbar, axes):
        plotting.plot_kernel(KERNEL, ax=ax, colorbar=colorbar)
        assert len(ax.figure.axes) == axes

    def test_column(self, ax):
        plotting.plot_column([1.0, -4.0], ax=ax)
        assert ax.images[0].get_array().tolist() == [[1], [-4]]
        assert (ax.images[0].norm.vmin, ax.images[0].norm.vmax) == (-4, 4)

    def test_rows(self, ax):
        """Own entries 4, 2, 9; the others of a row together 2, 5, 3; at gamma = 0.2 two thirds are allowed."""
        plotting.plot_rows([[4, 2, 0], [2, 2, -3], [0, -3, 9]], gammas=[0.2], ax=ax)
        widths = [bar.get_width() for bar in ax.patches]
        assert widths == pytest.approx([1, 1, 1, 1 / 2, 5 / 2, 1 / 3])
        colors = [bar.get_facecolor() for bar in ax.patches]
        assert colors == [to_rgba(plotting.BLUE)] * 3 + [to_rgba(plotting.VERMILION)] * 3
        assert ax.lines[0].get_xdata()[0] == pytest.approx(2 / 3)
        low, high = ax.get_ylim()
        assert low > high, "pair 1 stands on top"

    def test_blocks(self, ax):
        plotting.plot_blocks(np.eye(6), [1, 3, 2], labels=["a", "b", "c"], ax=ax)
        assert sorted(line.get_ydata()[0] for line in ax.lines[0::2]) == [0.5, 3.5]
        assert sorted(line.get_xdata()[0] for line in ax.lines[1::2]) == [0.5, 3.5]
        assert ax.get_xticks().tolist() == [0, 2, 4.5]
        assert ax.get_yticks().tolist() == [0, 2, 4.5]
        with refuses(ValueError, "matrix must have shape (n, n), got (1, 2)"):
            plotting.plot_blocks([[1.0, 2.0]], [1], labels=["a"])

    def test_table(self, ax):
        Q = np.array([[0.0, 1.234], [10.0, -5.0], [2.0, 3.0]])
        plotting.plot_table(Q, ax=ax, row_labels=["r", "s", "t"], column_labels=["u", "v"], digits=1)
        np.testing.assert_array_equal(ax.images[0].get_array(), Q)
        assert ax.images[0].get_clim() == (-5, 10)
        found = {text.get_position(): text.get_text() for text in ax.texts}
        assert found == {(a, s): f"{Q[s, a]:.1f}" for s in range(3) for a in range(2)}
        assert [tick.get_text() for tick in ax.get_yticklabels()] == ["r", "s", "t"]
        ink = {text.get_text(): text.get_color() for text in ax.texts}
        assert (ink["10.0"], ink["-5.0"]) == ("black", "white")  # bright cell, dark cell

    def test_table_marks_the_best_of_each_row(self, ax):
        """The first one on a tie, and none where there is nothing to choose; the frame can be seen on its cell."""
        plotting.plot_table([[0.0, 9.0], [3.0, 3.0], [1.0, 1.0], [2.0, 0.0]], ax=ax, best=True)
        plotting.plot_table([[0.0, 5.0, 5.0]], ax=(second := plt.subplots()[1]), best=True)
        found = [tuple(np.floor(np.add(patch.get_xy(), 0.5)).astype(int)) for patch in ax.patches]
        assert found == [(1, 0), (0, 3)]
        assert [patch.get_xy()[0] for patch in second.patches] == [1 - 0.46]
        assert [patch.get_edgecolor()[:3] for patch in ax.patches] == [(0, 0, 0), (1, 1, 1)]
        plotting.plot_table([[0.0, 9.0]], ax=(third := plt.subplots()[1]))
        assert not third.patches

    def test_a_long_table_has_no_numbers(self, ax):
        plotting.plot_table(np.arange(12.0).reshape(6, 2), ax=ax, digits=None, limits=(-1, 20))
        assert not ax.texts
        assert ax.images[0].get_clim() == (-1, 20)

    def test_grid(self, ax):
        """Four cells, one marked; y points down, so that action (0, 1) draws an arrow downwards."""
        arrows = [(1, 0), (0, 1), (-1, 0), (0, -1)]
        plotting.plot_grid(
            [[0.0, 1.0], [2.0, 3.0]],
            ax=ax,
            policy=[0, 1, 2, 3],
            arrows=arrows,
            marks=[["", ""], ["", "G"]],
            limits=(0, 4),
        )
        assert ax.images[0].get_array().tolist() == [[0, 1], [2, 3]]
        assert ax.images[0].get_clim() == (0, 4)
        written = {text.get_text() for text in ax.texts if text.get_text()}
        assert written == {"0.00", "1.00", "2.00", "G\n3.00"}
        drawn = [text for text in ax.texts if not text.get_text()]
        assert len(drawn) == 3  # a marked cell has no arrow
        for arrow, cell, direction in zip(drawn, [(0, 0), (1, 0), (0, 1)], arrows, strict=False):
            move = np.subtract(arrow.xy, arrow.get_position())
            np.testing.assert_array_equal(np.sign(np.round(move, 9)), direction)
            assert np.abs(np.subtract(arrow.xy, cell)).max() < 0.5
        assert ax.get_ylim()[0] > ax.get_ylim()[1]

    def test_a_signed_grid_has_white_at_zero(self, ax):
        plotting.plot_grid([[0.0, 1.0], [2.0, -4.0]], ax=ax, signed=True)
        image = ax.images[0]
        assert (image.norm.vmin, image.norm.vcenter, image.norm.vmax) == (-4, 0, 4)
        assert min(image.cmap(image.norm(0.0))[:3]) > 0.95

    def test_outcomes(self, ax):
        plotting.plot_outcomes(
            [["converged", "diverged"], ["undecided", "converged"]],
            row_labels=["r", "s"],
            column_labels=["u", "v"],
            ax=ax,
        )
        expected = {(0, 0): "converged", (1, 0): "diverged", (0, 1): "undecided", (1, 1): "converged"}
        assert {text.get_position(): text.get_text() for text in ax.texts} == expected
        for patch, text in zip(ax.patches, ax.texts, strict=True):
            assert patch.get_facecolor() == to_rgba(plotting.STATUS_STYLE[text.get_text()]["color"])
            middle = (patch.get_x() + patch.get_width() / 2, patch.get_y() + patch.get_height() / 2)
            np.testing.assert_allclose(middle, text.get_position())

    def test_outcomes_with_their_curves(self, ax):
        curves = [[[0.0, 4.0], [4.0, 2.0, 0.0]]]
        labels = {"row_labels": ["r"], "column_labels": ["u", "v"]}
        plotting.plot_outcomes([["diverged", "converged"]], curves=curves, ax=ax, **labels)
        assert [text.get_text() for text in ax.texts] == ["diverged", "converged"]
        for column, (line, status) in enumerate(zip(ax.lines, ("diverged", "converged"), strict=True)):
            assert line.get_color() == plotting.STATUS_STYLE[status]["color"]
            assert np.abs(line.get_xdata() - column).max() <= 0.46
            assert np.abs(line.get_ydata()).max() <= 0.42
        up, down = (line.get_ydata() for line in ax.lines)  # the axis points down
        assert up[0] - up[1] == pytest.approx(down[2] - down[0])
        assert up[0] > up[1]
        assert down[0] < down[1] < down[2]
        step = [np.diff(line.get_xdata())[0] for line in ax.lines]
        assert step[0] == pytest.approx(step[1])  # all have the same axis

    def test_response(self, ax):
        plotting.plot_response(KERNEL, trained=(2, 0), ax=ax)
        np.testing.assert_array_equal(ax.images[0].get_array(), KERNEL)
        assert ax.lines[0].get_xydata().tolist() == [[0, 2]]  # column 0, row 2
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("column", "row")
        plotting.plot_response(KERNEL, trained=(2, 0), ax=ax, limit=8)
        assert ax.images[-1].get_clim() == (-8, 8)

    @pytest.mark.parametrize(
        ("change", "dots"),
        [
            ([[2.0, 2.0], [2.1, 1.9]], [[0, 1]]),  # column 0, row 1; as far is not further
            ([[-2.0, 3.0], [-1.0, -4.0]], [[1, 1]]),  # the other way is not further either
        ],
    )
    def test_a_dot_where_the_trained_cell_is_outrun(self, change, dots, ax):
        plotting.plot_response(change, trained=(0, 0), ax=ax)
        assert ax.lines[1].get_xydata().tolist() == dots

    def test_leakage(self, ax):
        plotting.plot_leakage([1.0, 3.0, 2.0, 5.0], [0.5, 1.0, 0.0, -2.0], trained=1, ax=ax)
        assert ax.lines[0].get_xydata().tolist() == [[0, 1], [1, 3], [2, 2], [3, 5]]
        (arrows,) = ax.collections
        assert list(zip(arrows.X, arrows.Y, arrows.U, arrows.V, strict=True)) == [
            (0, 1, 0, 0.5),
            (1, 3, 0, 1),
            (3, 5, 0, -2),
        ]
        red, blue = to_rgba(plotting.VERMILION), to_rgba(plotting.BLUE)
        assert list(map(tuple, arrows.get_facecolor())) == [red, blue, red]
        low, high = ax.get_ylim()
        assert low < 1
        assert high > 5

    def test_leakage_beside_a_prediction(self, ax):
        plotting.plot_leakage([1.0, 3.0], [0.5, 1.0], trained=0, predicted=[0.25, 2.0], ax=ax)
        assert ax.lines[-1].get_xydata().tolist() == [[0, 1.25], [1, 5]]
        assert ax.lines[-1].get_color() == plotting.GREY
        assert ax.get_ylim()[1] > 5
        for bad in ({"change": [1.0]}, {"predicted": [1.0]}, {"trained": 2}):
            with pytest.raises(ValueError, match="^" + next(iter(bad))):
                plotting.plot_leakage(**{"values": [1.0, 3.0], "change": [0.5, 1.0], "trained": 0} | bad)


class TestPlane:
    """Pictures in the plane of Q: first number across, second number up."""

    def test_path(self, ax):
        run = PORTRAIT.paths[1]
        plotting.plot_path(run, ax=ax)
        np.testing.assert_array_equal(ax.lines[0].get_xydata(), run.values)
        assert ax.lines[1].get_xydata().tolist() == [[-1, 1]]
        assert ax.lines[0].get_color() == ax.lines[1].get_color() == plotting.STATUS_STYLE[run.status]["color"]
        with refuses(ValueError, "values must have shape (any, 2), got (2, 3)"):
            plotting.plot_path(dynamics.iterate(lambda Q: Q, np.zeros(3), max_iter=1))

    def test_plane(self, ax, monkeypatch):
        seen = {}

        def streamplot(x, y, u, v, **style):
            seen.update(x=x, y=y, u=u, v=v)

        monkeypatch.setattr(ax, "streamplot", streamplot)
        field = np.arange(12.0).reshape(2, 3, 2)
        plotting.plot_plane(field, [0.0, 1.0, 2.0], [-1.0, 1.0], ax=ax)
        np.testing.assert_array_equal(seen["u"], field[..., 0])
        np.testing.assert_array_equal(seen["v"], field[..., 1])
        assert ax.lines[0].get_xydata().tolist() == [[0, 0], [1, 1]]  # the tie, inside the picture
        assert (ax.get_xlim(), ax.get_ylim()) == ((0, 2), (-1, 1))
        with refuses(ValueError, "field must have shape (2, 3, 2), got (3, 2, 2)"):
            plotting.plot_plane(np.zeros((3, 2, 2)), [0.0, 1.0, 2.0], [-1.0, 1.0])

    def test_no_diagonal(self, ax):
        plotting.plot_plane(PORTRAIT.field, PORTRAIT.x, PORTRAIT.y, ax=ax, diagonal=False)
        assert not ax.lines

    def test_portrait(self, ax):
        plotting.plot_portrait(PORTRAIT, star=[[0.5, -0.5]], ax=ax)
        assert len(ax.lines) == 1 + 2 * len(PORTRAIT.paths) + 1
        star = ax.lines[-1]
        assert star.get_xydata().tolist() == [[0.5, -0.5]]
        assert star.get_marker() == "*"

    def test_basin(self, ax):
        ax.set(xlim=(-1, 1), ylim=(-1, 1))
        plotting.plot_basin(["converged", "diverged", "diverged", "undecided"], ax=ax, centre=[[2.0, 3.0]], radius=5)
        wedges = [(patch.theta1, patch.theta2, tuple(patch.center), patch.r) for patch in ax.patches]
        assert wedges == [(-45, 45, (2, 3), 5), (45, 225, (2, 3), 5), (225, 315, (2, 3), 5)]
        colors = [patch.get_facecolor()[:3] for patch in ax.patches]
        names = ("converged", "diverged", "undecided")
        assert colors == [to_rgba(plotting.STATUS_STYLE[name]["color"])[:3] for name in names]
        assert (ax.get_xlim(), ax.get_ylim()) == ((-1, 1), (-1, 1))

    def test_jumps(self, ax):
        """Squares of the given sizes around the star, and an arrow for each update that an eye can see."""
        plotting.plot_jumps([RUN], star=[[1.0], [2.0]], radii=[8.0, 4.0, 1.0], ax=ax)
        sides = sorted({tuple(patch.get_bbox().extents.tolist()) for patch in ax.patches if patch.get_width() > 0})
        assert sides == [(-7, -6, 9, 10), (-3, -2, 5, 6), (0, 1, 2, 3)]
        arrows = [(text.get_position(), text.xy) for text in ax.texts if not text.get_text()]
        assert len(arrows) == len(RUN.values) - 1 == 5
        for (start, end), before, after in zip(arrows, RUN.values, RUN.values[1:], strict=False):
            np.testing.assert_array_equal([start, end], [before, after])
        assert [text.get_text() for text in ax.texts if text.get_text()] == ["0", "1"]  # the third has no room
        assert ax.lines[-1].get_xydata().tolist() == [[1, 2]]

    def test_jumps_too_short_to_see(self, ax):
        still = dynamics.iterate(lambda Q: Q / 2, [4.0, -8.0], max_iter=40, target=[0.0, 0.0])
        plotting.plot_jumps([still], star=[0.0, 0.0], radii=[8.0], ax=ax, diagonal=False)
        arrows = [text for text in ax.texts if not text.get_text()]
        assert 3 < len(arrows) < 10 < len(still.values)
        with refuses(ValueError, "star must have shape (2,), got (3,)"):
            plotting.plot_jumps([still], star=[0.0, 0.0, 0.0], radii=[8.0])

    def test_box_images(self, ax):
        CALLS["plot_box_images"](ax)
        squares = [patch.get_bbox().extents.tolist() for patch in ax.patches if isinstance(patch, Rectangle)]
        assert squares == [[-1.7, -1.7, 1.7, 1.7]]
        polygons = [patch.get_xy()[:-1] for patch in ax.patches if isinstance(patch, Polygon)]
        assert polygons[0].tolist() == [[1, 1], [-1, 1], [-1, -1], [1, -1]]
        np.testing.assert_array_equal(polygons[1::2], IMAGES)
        crosses = [line.get_xydata().tolist() for line in ax.lines]
        assert crosses == [[], [[1.5, 0.2], [-1.5, -0.2]]]
        assert ax.get_xlim()[1] >= 1.7

    def test_pulls(self, ax):
        """Each pair has two legs, one along either axis; the sum and the real step start at the ring."""
        plotting.plot_pulls([1.0, 2.0], [[2.0, -1.0], [4.0, -2.5]], real=[1.0, 1.0], ax=ax)
        arrows = [text for text in ax.texts if text.arrow_patch]
        drawn = [(arrow.xyann, arrow.xy, arrow.arrow_patch.get_edgecolor()) for arrow in arrows]
        blue, red, grey = (to_rgba(color) for color in (plotting.BLUE, plotting.VERMILION, plotting.GREY))
        assert drawn == [
            ((1, 2), (3, 2), blue),
            ((3, 2), (3, 6), red),
            ((1, 2), (1, -0.5), blue),
            ((1, -0.5), (0, -0.5), red),
            ((1, 2), (2, 3.5), grey),
            ((1, 2), (2, 3), to_rgba("black")),
        ]
        low, high = ax.get_ylim()
        assert low < -0.5 and high > 6, "every tip is seen"
        labels = ax.get_legend_handles_labels()[1]
        assert labels == ["own value", "leakage", "both, as predicted", "the real step"]
        with refuses(ValueError, "pulls must have shape (2, 2), got (2, 1)"):
            plotting.plot_pulls([1.0, 2.0], [[1.0], [2.0]])

    def test_alignment(self, ax):
        """Every arrow is as long as the errors, and its colour says on which side of the line it points."""
        CALLS["plot_alignment"](ax)
        arrows = [text for text in ax.texts if text.arrow_patch]
        tips = np.array([arrow.xy for arrow in arrows])
        np.testing.assert_allclose(np.hypot(*tips.T), 5**0.5)
        np.testing.assert_allclose(tips[1:] @ [1, -2] / 5, [-3 / 205**0.5, 0.6])
        colors = [arrow.arrow_patch.get_edgecolor() for arrow in arrows]
        assert colors == [to_rgba(color) for color in (plotting.GREY, plotting.VERMILION, plotting.BLUE)]
        assert ax.get_legend_handles_labels()[1] == ["asked for", "one: -0.21", "two: 0.60"]
        (line,) = [line for line in ax.lines if line.get_linestyle() == ":"]
        assert np.dot(line.get_xy2(), [1, -2]) == 0 and line.get_xy1() == (0, 0)
        with refuses(ValueError, "changes['none'] must have shape (2,), got (3,)"):
            plotting.plot_alignment([1.0, -2.0], {"none": [1.0, 2.0, 3.0]})
        with pytest.raises(ValueError, match=r"neither td_error nor changes\['none'\] may be zero"):
            plotting.plot_alignment([1.0, -2.0], {"none": [0.0, 0.0]})

    def test_pulls_without_leakage(self, ax):
        plotting.plot_pulls([1.0, 2.0], [[2.0, -1.0], [4.0, -2.5]], leaks=False, ax=ax)
        tips = [arrow.xy for arrow in ax.texts if arrow.arrow_patch]
        assert tips == [(3, 2), (1, -0.5), (3, -0.5)]

    def test_crosses_are_left_out_where_the_shape_is_round(self, ax):
        plotting.plot_box_images(IMAGES, ax=ax, crosses=False)
        assert [line.get_xydata().tolist() for line in ax.lines] == [[], []]

    @pytest.mark.parametrize("acting", [0, 1])
    def test_turn(self, ax, acting):
        """The ball of the update that acts is filled, and keeps its colour; the arrow is the last step."""
        plotting.plot_turn(TURNS, [IMAGES[0], 2 * IMAGES[0]], acting=acting, ax=ax)
        rims = [patch for patch in ax.patches if isinstance(patch, Polygon) and not patch.get_fill()]
        (full,) = [patch for patch in ax.patches if isinstance(patch, Polygon) and patch.get_fill()]
        np.testing.assert_array_equal([rim.get_xy()[:-1] for rim in rims], [IMAGES[0], 2 * IMAGES[0]])
        np.testing.assert_array_equal(full.get_xy(), rims[acting].get_xy())
        assert [rim.get_edgecolor() for rim in rims] == [to_rgba(plotting.BLUE), to_rgba(plotting.GREEN)]
        (arrow,) = ax.texts
        assert (*arrow.xy, *arrow.xyann) == (-0.5, 0.5, 0.5, 0.25)

    def test_moves(self, ax):
        """Moves go from table to table, and every second one is of the same colour."""
        points = np.array([[0.0, 0.0], [1.0, 2.0], [1.5, 1.0], [0.0, 1.0]])
        plotting.plot_moves(points, labels=["first", "second"], ax=ax)
        first, second = (part for part in ax.collections if isinstance(part, Quiver))
        assert first.get_offsets().tolist() == [[0, 0], [1.5, 1]] and second.get_offsets().tolist() == [[1, 2]]
        assert np.column_stack([first.U, first.V]).tolist() == [[1, 2], [-1.5, 0]]
        assert np.column_stack([second.U, second.V]).tolist() == [[0.5, -1]]
        assert not np.array_equal(first.get_facecolor(), second.get_facecolor())
        assert ax.get_legend_handles_labels()[1] == ["first", "second"]


class TestPortraits:
    """Each with its name in it, in a square; the key says what the colours mean that are there."""

    def test_names_and_key(self):
        figure = plotting.plot_portraits({"one": PORTRAIT, "two": PORTRAIT}, stars=[[0, 0]] * 2, ties=[True, False])
        one, two, blank, last = figure.axes
        assert [ax.texts[-1].get_text() for ax in (one, two)] == ["one", "two"]
        assert not blank.axison and not last.axison
        said = {text.get_text() for text in last.get_legend().get_texts()}
        assert said == {"goes round", "optimal table $Q^*$", "the two actions tie"}
        width, height = figure.get_size_inches()
        assert width < 1.9 * height  # else a phone would scroll it

    def test_refuses(self):
        with refuses(ValueError, "portraits must hold 1 to 3 problems, got 4"):
            plotting.plot_portraits(dict.fromkeys("abcd", PORTRAIT), stars=[[0, 0]] * 4, ties=[True] * 4)


class TestDiagram:
    """Circles for states, arrows from rim to rim in the right direction, loops above or below."""

    def test_places_and_arrows(self, ax):
        plotting.plot_diagram([[0.0, 0.0], [3.0, 4.0]], ["w", "2w"], [(0, 1)], dashed=[(1, 0)], ax=ax, radius=0.5)
        circles = [patch for patch in ax.patches if isinstance(patch, Circle)]
        assert [tuple(circle.center) for circle in circles] == [(0, 0), (3, 4)]
        assert [text.get_text() for text in ax.texts[:2]] == ["w", "2w"]
        solid, dashed = ax.texts[2:]
        np.testing.assert_allclose(solid.get_position(), (0.3, 0.4))
        np.testing.assert_allclose(solid.xy, (2.7, 3.6))
        np.testing.assert_allclose(dashed.get_position(), (2.7, 3.6))
        np.testing.assert_allclose(dashed.xy, (0.3, 0.4))
        assert solid.arrow_patch.get_linestyle() != dashed.arrow_patch.get_linestyle()

    def test_a_dashed_arrow_does_not_lie_under_a_solid_one(self, ax):
        plotting.plot_diagram(
            [[0.0, 0.0], [3.0, 0.0]], ["w", "2w"], [(0, 1)], dashed=[(1, 0)], name="to and fro", ax=ax
        )
        ax.figure.canvas.draw()
        solid, dashed = (text.arrow_patch.get_path().vertices[:3, 1] for text in ax.texts[2:4])
        assert np.ptp(solid) < 0.5 * np.ptp(dashed)
        assert ax.texts[-1].get_text() == "to and fro"

    def test_loops(self, ax):
        plotting.plot_diagram([[0.0, 0.0]], ["w"], [(0, 0)], dashed=[(0, 0)], ax=ax)
        above, below = ax.texts[1:]
        assert above.xy[1] > 0 > below.xy[1]
        for loop in (above, below):
            assert np.hypot(*loop.xy) == pytest.approx(0.34, rel=0.02)  # it ends on the rim

    def test_refuses(self):
        with refuses(ValueError, "places must have shape (1, 2), got (2, 2)"):
            plotting.plot_diagram(np.zeros((2, 2)), ["w"], [])
