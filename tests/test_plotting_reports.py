"""What the monitor saw, drawn: each dot is a number of the report, each line a column of the history."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from divergence_notes import diagnostics, plotting, probe
from divergence_notes.plotting import reports

KERNEL = np.array([[1.0, 0.25], [0.25, 0.5]])
GIVEN = {"td_error": [1.0, 2.0], "gamma": 0.5}


@pytest.fixture(autouse=True)
def no_figures_are_left():
    yield
    plt.close("all")


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


def history(records=6, lost=None):
    """Return a history with distinct numbers; max|Q| passes the bound 8 at the fourth record."""
    steps = 100 * np.arange(1, records + 1)
    found = pd.DataFrame({"step": steps, "max_q": 2.0 ** np.arange(records), "bound": 7.0, "status": "undecided"})
    for k, name in enumerate(reports.PANELS):
        if name not in ("max_q", "bound", "alarm"):
            found[name] = np.linspace(0.01 * k, 0.9, records) + 0.01
    found["alarm"] = found["max_q"] > found["bound"]
    if lost is not None:
        found.loc[lost:, ["max_q", "row_ratio", "alignment"]] = np.nan
        found.loc[lost:, "status"] = "diverged"
        found.loc[lost:, "alarm"] = True
    return found


def dots(ax):
    """Return the value that is drawn in each row, and its marker."""
    return {
        row: (line.get_xdata()[0], line.get_marker())
        for line in ax.lines
        if line.get_marker() in ("o", "<", ">", "X")
        for row in [line.get_ydata()[0]]
    }


class TestReport:
    """A dot for the value, a bar for the reference, the reading beside them; an alarm is a colour and a word."""

    def test_dots_and_bars(self):
        report = diagnostics.report(KERNEL, q=[1.0, -3.0], r_max=2.0, **GIVEN)
        ax = plotting.plot_report(report)
        names = [label.get_text() for label in ax.get_yticklabels()]
        assert names == [
            "mean row ratio",
            "smallest margin",
            "certified rows",
            "effective rank / n",
            "max |Q| / bound",
            "alignment",
        ]
        rank = diagnostics.effective_rank(KERNEL) / 2
        cosine = diagnostics.alignment(KERNEL @ [1.0, 2.0], [1.0, 2.0])
        want = [(0.125 + 0.25) / 2, 0.5 - 1.5 * 0.5, 0.5, rank, 0.75, cosine]
        np.testing.assert_allclose([dots(ax)[row][0] for row in range(6)], want)
        bars = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "|"]
        np.testing.assert_allclose(bars, [0, 0.5, 1, 1, 1, 1])
        written = [text.get_text() for text in ax.texts]
        assert written[1::2] == report["reading"].drop("mean |TD error|").tolist()
        assert written[0] == "0.188"

    def test_off_the_scale(self):
        report = diagnostics.report(np.ones((9, 9)), q=[-30.0], r_max=2.0, td_error=np.ones(9), gamma=0.5)
        ax = plotting.plot_report(report)
        assert dots(ax)[1][1] == "<"
        assert dots(ax)[4][1] == ">"
        low, high = ax.get_xlim()
        assert all(low < place < high for place, _ in dots(ax).values())
        assert [text.get_text() for text in ax.texts][2] == "-11.5"

    def test_alarm(self):
        ax = plotting.plot_report(diagnostics.report(KERNEL, q=[30.0], r_max=2.0, **GIVEN))
        loud = [text.get_text() for text in ax.texts if text.get_weight() == "bold"]
        assert loud == ["7.5", "ALARM: 7.5 times the bound: impossible"]
        colored = {line.get_ydata()[0] for line in ax.lines if to_rgba(line.get_color()) == to_rgba(plotting.VERMILION)}
        assert colored == {4}

    def test_not_finite(self):
        ax = plotting.plot_report(diagnostics.report(KERNEL, q=[np.nan], r_max=0, **GIVEN))
        assert dots(ax)[4] == (0, "X")
        assert "ALARM: not finite: diverged" in [text.get_text() for text in ax.texts]
        ax.figure.canvas.draw()


class TestHistory:
    """One panel for each quantity; crosses are alarms, dots the bound, a dashed line the end of finite numbers."""

    def test_lines(self):
        given = history()
        axes = plotting.plot_history(given, quantities=list(reports.PANELS))
        for ax, name in zip(axes, reports.PANELS, strict=True):
            np.testing.assert_array_equal(ax.lines[0].get_xydata(), given[["step", name]])
            assert ax.get_ylabel() == reports.PANELS[name]
            sizes = ("max_q", "bound_ratio", "td_error", "value_churn", "input_size", "input_ratio")
            assert ax.get_yscale() == ("log" if name in sizes or name.endswith("_norm") else "linear")
        limits = {name: ax.get_ylim() for ax, name in zip(axes, reports.PANELS, strict=True)}
        assert limits["row_ratio"] == limits["certified"] == limits["after_ends"] == (-0.05, 1.05)
        assert limits["alignment"] == (-1.1, 1.1)
        assert axes[-1].get_xlabel() == "steps in the environment"
        assert axes[0].figure is axes[-1].figure

    def test_every_number_of_a_record_has_a_panel(self):
        assert sorted(reports.PANELS) == sorted(probe.NUMBERS)

    def test_default(self):
        axes = plotting.plot_history(history())
        assert [ax.get_ylabel().replace("\n", " ") for ax in axes] == [
            r"$\max |Q|$",
            "growth rate per step",
            "mean row ratio",
            "effective rank",
            "alignment",
        ]
        assert axes[0].figure.get_size_inches()[0] == 7.2

    @pytest.mark.parametrize("bound", [True, False])
    def test_bound_and_alarms(self, bound):
        axes = plotting.plot_history(history(), bound=bound)
        drawn = {line.get_label(): line for line in axes[0].lines}
        assert ("bound" in drawn) == bound
        if bound:
            assert set(drawn["bound"].get_ydata()) == {7.0}
        assert drawn["alarm"].get_xydata().tolist() == [[400, 8], [500, 16], [600, 32]]
        assert drawn["alarm"].get_marker() == "X"
        calm = plotting.plot_history(history(3))
        assert "alarm" not in [line.get_label() for line in calm[0].lines]

    def test_two_runs(self):
        axes = plotting.plot_history(history(), label="one")
        again = plotting.plot_history(history(4), axes=axes, label="two", color="black", linestyle=":")
        assert list(again) == list(axes)
        assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["one", "bound", "alarm", "two"]
        second = next(line for line in axes[0].lines if line.get_label() == "two")
        assert (second.get_color(), second.get_linestyle()) == ("black", ":")

    def test_everything_is_inside(self):
        """No marker is cut off by the frame, in any panel, after a second run was added."""
        axes = plotting.plot_history(history(), quantities=list(reports.PANELS))
        more = history()
        more[["growth_rate", "effective_rank", "margin"]] *= -3
        plotting.plot_history(more, axes=axes, quantities=list(reports.PANELS))
        for ax in axes:
            low, high = sorted(ax.get_ylim())
            values = np.concatenate([line.get_ydata() for line in ax.lines if line.get_marker() != "None"])
            assert low < values.min()
            assert values.max() < high

    def test_diverged(self):
        axes = plotting.plot_history(history(lost=4))
        for ax in axes:
            assert [line.get_xdata()[0] for line in ax.lines if line.get_xdata()[0] == line.get_xdata()[-1]] == [500]
        axes[0].figure.canvas.draw()

    def test_refuses(self):
        known = ", ".join(reports.PANELS)
        with refuses(ValueError, f"quantities must be among {known}, got speed"):
            plotting.plot_history(history(), quantities=["max_q", "speed"])
        with refuses(ValueError, f"quantities must be among {known}, got none"):
            plotting.plot_history(history(), quantities=[])
        with refuses(ValueError, "axes must hold one Axes for each of 2 quantities, got shape (1,)"):
            plotting.plot_history(history(), quantities=["max_q", "margin"], axes=[plt.subplots()[1]])
