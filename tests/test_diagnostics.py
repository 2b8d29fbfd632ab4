"""Numbers about a kernel and about the values of a run."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from divergence_notes import bellman, contraction, diagnostics, returns
from divergence_notes.mdp import random_mdp
from tests.strategies import generators


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


class TestRowRatio:
    """The size of a row off its diagonal, per unit of its diagonal: (1/n) sum_{j != i} |K_ij| / K_ii."""

    @given(rng=generators())
    @settings(max_examples=20)
    def test_against_loops(self, rng):
        K = rng.standard_normal((4, 4))
        K[np.diag_indices(4)] = 0.1 + rng.random(4)
        expected = [sum(abs(K[i, j]) for j in range(4) if j != i) / K[i, i] / 4 for i in range(4)]
        np.testing.assert_allclose(diagnostics.row_ratio(K), expected)

    def test_both_ends(self):
        assert diagnostics.row_ratio(3 * np.eye(5)).tolist() == [0.0] * 5
        np.testing.assert_allclose(diagnostics.row_ratio(np.ones((5, 5))), 0.8)
        np.testing.assert_allclose(diagnostics.row_ratio([[2.0, -1.0], [4.0, 1.0]]), [0.25, 2.0])  # rows, not columns

    def test_refuses(self):
        with refuses(ValueError, "kernel must have a positive diagonal: kernel[1, 1] is 0"):
            diagnostics.row_ratio([[1.0, 2.0], [3.0, 0.0]])
        with refuses(ValueError, "kernel must have a positive diagonal: kernel[0, 0] is -2"):
            diagnostics.row_ratio([[-2.0, 2.0], [3.0, 0.0]])
        with refuses(ValueError, "kernel must have shape (n, n), got (1, 2)"):
            diagnostics.row_ratio([[1.0, 2.0]])


def gram(rng, n=6, width=9):
    J = rng.standard_normal((n, width))
    return J @ J.T


class TestRowMarginsOfData:
    """The margins of the theorem for pairs sampled equally often, per K_ii / n."""

    @given(rng=generators())
    @settings(max_examples=20)
    def test_are_those_of_the_theorem(self, rng):
        K = rng.standard_normal((4, 4)) / 5
        K[np.diag_indices(4)] = 0.1 + rng.random(4)
        margins = contraction.row_dominance(K, np.full(4, 0.25), gamma=0.3)
        np.testing.assert_allclose(diagnostics.row_margins(K, gamma=0.3), margins / (np.diag(K) / 4), atol=1e-12)
        np.testing.assert_allclose(diagnostics.row_margins(1e6 * K, gamma=0.3), diagnostics.row_margins(K, gamma=0.3))

    @pytest.mark.parametrize(("pull", "sign"), [(0.999, 1), (1.001, -1)])
    def test_on_paper(self, pull, sign):
        """Two pairs, off-diagonal x: positive exactly while x < (1 - gamma) / (1 + gamma)."""
        x = pull * 0.1 / 1.9
        margins = diagnostics.row_margins([[2.0, 2 * x], [0.0, 1.0]], gamma=0.9)
        assert np.sign(margins[0]) == sign
        assert margins[1] == pytest.approx(0.1)

    def test_positive_margins_of_a_sample_certify_nothing_outside(self):
        """The first two pairs do not see each other, and the third sees both."""
        K = np.array([[1.0, 0.0, 0.9], [0.0, 1.0, 0.9], [0.9, 0.9, 2.0]])
        assert (diagnostics.row_margins(K[:2, :2], gamma=0.5) > 0).all()
        assert contraction.row_dominance(K, [0.5, 0.5, 0.0], gamma=0.5)[2] < 0

    def test_refuses(self):
        with refuses(ValueError, "gamma must be in [0, 1], got 2"):
            diagnostics.row_margins(np.eye(2), gamma=2)
        with refuses(ValueError, "kernel must have a positive diagonal: kernel[1, 1] is 0"):
            diagnostics.row_margins([[1.0, 2.0], [3.0, 0.0]], gamma=0.5)


class TestEffectiveRank:
    """exp of the entropy of the normalised singular values, which a kernel has as its eigenvalues."""

    @pytest.mark.parametrize("scale", [1.0, 7.0, 1e-200, 1e200])
    def test_both_ends(self, scale):
        assert diagnostics.effective_rank(scale * np.eye(5)) == pytest.approx(5)
        assert diagnostics.effective_rank(scale * np.ones((5, 5))) == pytest.approx(1)
        assert diagnostics.effective_rank(np.zeros((3, 3))) == 0

    @given(rng=generators())
    @settings(max_examples=20)
    def test_in_between(self, rng):
        """Shares 1/2, 1/4, 1/4 have entropy 3/2 log 2, whatever the eigenvectors."""
        basis = np.linalg.qr(rng.standard_normal((4, 4)))[0]
        K = basis @ np.diag([6.0, 3.0, 3.0, 0.0]) @ basis.T
        assert diagnostics.effective_rank(K) == pytest.approx(2**1.5)
        assert diagnostics.effective_rank((K + K.T) / 2) == pytest.approx(2**1.5)

    def test_is_that_of_the_singular_values(self, rng):
        for K in (gram(rng), rng.standard_normal((5, 5))):
            share = np.linalg.svd(K)[1] / np.linalg.svd(K)[1].sum()
            assert diagnostics.effective_rank(K) == pytest.approx(np.prod(share**-share))

    def test_refuses(self):
        with refuses(ValueError, "kernel must have shape (n, n), got (1, 2)"):
            diagnostics.effective_rank([[1.0, 2.0]])


class TestAlignment:
    """The cosine of what an update did with what the TD errors asked for."""

    def test_on_paper(self):
        assert diagnostics.alignment([1.0, 2.0], [3.0, 6.0]) == pytest.approx(1)
        assert diagnostics.alignment([1.0, 2.0], [-2.0, -4.0]) == pytest.approx(-1)
        assert diagnostics.alignment([1.0, 0.0], [0.0, 2.0]) == 0
        assert diagnostics.alignment([3.0, 4.0], [1.0, 0.0]) == pytest.approx(0.6)

    @pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
    def test_has_no_unit(self, scale):
        assert diagnostics.alignment([3 * scale, 4 * scale], [scale, 0.0]) == pytest.approx(0.6)

    def test_zero_has_no_direction(self):
        assert np.isnan(diagnostics.alignment([0.0, 0.0], [1.0, 2.0]))
        assert np.isnan(diagnostics.alignment([1.0, 2.0], [0.0, 0.0]))

    def test_refuses(self):
        with refuses(ValueError, "td_error must have shape (2,), got (1,)"):
            diagnostics.alignment([1.0, 2.0], [1.0])
        with refuses(ValueError, "dq must be finite: dq[1] is nan"):
            diagnostics.alignment([1.0, np.nan], [1.0, 2.0])


class TestMeanInterval:
    """The t interval covers the mean as often as it says."""

    def test_by_hand(self):
        low, high = diagnostics.mean_interval([[2.0, 4.0], [5.0, 5.0]])
        np.testing.assert_allclose(low, [3 - 12.7062047, 5])
        np.testing.assert_allclose(high, [3 + 12.7062047, 5])

    @pytest.mark.parametrize("level", [0.5, 0.95])
    def test_coverage(self, rng, level):
        low, high = diagnostics.mean_interval(rng.standard_normal((20_000, 4)) + 3, level=level)
        assert ((low < 3) & (high > 3)).mean() == pytest.approx(level, abs=0.02)

    def test_a_run_that_ended(self):
        low, high = diagnostics.mean_interval([[1.0, np.nan]])
        assert np.isnan(low).all() and np.isnan(high).all()

    def test_refuses(self):
        with refuses(ValueError, "samples must have shape (n, m) with m >= 2, got (3, 1)"):
            diagnostics.mean_interval(np.zeros((3, 1)))
        with refuses(ValueError, "level must be in (0, 1), got 1"):
            diagnostics.mean_interval(np.zeros((3, 2)), level=1)


class TestBoundRatio:
    """max |Q| in units of r_max / (1 - gamma), which no policy exceeds."""

    def test_on_paper(self):
        assert diagnostics.bound_ratio([1.0, -30.0], r_max=2, gamma=0.9) == pytest.approx(1.5)
        assert diagnostics.bound_ratio([[5.0, -1.0]], r_max=5, gamma=0) == 1

    @given(rng=generators())
    @settings(max_examples=20)
    def test_no_policy_exceeds_one(self, rng):
        mdp = random_mdp(4, 2, gamma=0.8, branching=2, rng=rng)
        Q = bellman.policy_iteration(mdp).Q
        assert diagnostics.bound_ratio(Q, r_max=np.abs(mdp.R).max(), gamma=0.8) <= 1 + 1e-9

    def test_refuses(self):
        with refuses(ValueError, "r_max must be in (0, inf), got 0"):
            diagnostics.bound_ratio([1.0], r_max=0, gamma=0.5)
        with refuses(ValueError, "gamma must be in [0, 1], got 2"):
            diagnostics.bound_ratio([1.0], r_max=1, gamma=2)
        with refuses(ValueError, "q must hold at least one value"):
            diagnostics.bound_ratio([], r_max=1, gamma=0.5)


class TestGrowthRate:
    """The slope of log max|Q| per step."""

    @pytest.mark.parametrize("rate", [-0.3, 1e-4, 2.0])
    def test_of_an_exponential(self, rate):
        steps = np.array([10.0, 30.0, 40.0, 90.0])
        assert diagnostics.growth_rate(5 * np.exp(rate * steps), steps) == pytest.approx(rate)

    def test_of_a_constant_is_zero(self):
        assert diagnostics.growth_rate([0.3, 0.3, 0.3], [1, 7, 8]) == 0

    def test_is_least_squares(self, rng):
        steps, sizes = np.arange(8.0), np.exp(rng.standard_normal(8))
        assert diagnostics.growth_rate(sizes, steps) == pytest.approx(np.polyfit(steps, np.log(sizes), 1)[0])

    def test_refuses(self):
        with refuses(ValueError, "sizes must be positive: sizes[1] is 0"):
            diagnostics.growth_rate([1.0, 0.0], [0, 1])
        with refuses(ValueError, "steps must hold at least two different steps, got [3.0, 3.0]"):
            diagnostics.growth_rate([1.0, 2.0], [3, 3])
        with refuses(ValueError, "steps must hold at least two different steps, got []"):
            diagnostics.growth_rate([], [])
        with refuses(ValueError, "steps must have shape (2,), got (3,)"):
            diagnostics.growth_rate([1.0, 2.0], [1, 2, 3])


GIVEN = {"q": [[1.0, -3.0]], "gamma": 0.5, "possible": (-3.0, 4.0)}


class TestSummaryOfTheBatch:
    """The numbers of a sample are those of the functions above; what is lost is nan, and dead pairs are counted."""

    def test_of_a_living_network(self, rng):
        K, error = gram(rng), rng.standard_normal(6)
        found = diagnostics.summary(K, td_error=error, **GIVEN)
        margins = diagnostics.row_margins(K, gamma=0.5)
        assert found == pytest.approx(
            {
                "row_ratio": diagnostics.row_ratio(K).mean(),
                "margin": margins.min(),
                "certified": (margins > 0).mean(),
                "effective_rank": diagnostics.effective_rank(K),
                "max_q": 3.0,
                "low_q": -3.0,
                "high_q": 1.0,
                "possible_low": -3.0,
                "possible_high": 4.0,
                "bound": 4.0,
                "bound_ratio": 0.75,
                "td_error": np.abs(error).mean(),
            }
        )

    def test_certified_counts_rows(self):
        K = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.9], [0.0, 0.9, 1.0]])
        assert diagnostics.summary(K, td_error=np.ones(3), **GIVEN)["certified"] == pytest.approx(1 / 3)

    def test_dead_pairs(self):
        K = np.diag([2.0, 0.0, 4.0, 0.0])
        K[0, 2] = K[2, 0] = 1.0
        found = diagnostics.summary(K, td_error=np.ones(4), **GIVEN)
        assert found["row_ratio"] == pytest.approx((0.5 + 0.25) / 2 / 4)
        assert found["margin"] == pytest.approx(0.5 - 1.5 * 0.5)
        assert found["certified"] == pytest.approx(1 / 4)  # row 2: 1/2 > 3/2 * 1/4; the dead ones are not certified

    def test_a_dead_network(self):
        found = diagnostics.summary(np.zeros((3, 3)), td_error=np.ones(3), **GIVEN)
        assert np.isnan([found["row_ratio"], found["margin"]]).all()
        assert (found["certified"], found["effective_rank"]) == (0, 0)

    def test_what_is_lost_is_nan(self):
        kernel = {"row_ratio", "margin", "certified", "effective_rank"}
        for lost, given_ in [
            (kernel, {"kernel": [[1.0, np.inf], [0.0, 1.0]]}),
            ({"max_q", "low_q", "high_q", "bound_ratio"}, {"q": [1.0, np.nan]}),
            ({"max_q", "low_q", "high_q", "bound_ratio"}, {"q": [1.0, np.inf]}),
            ({"td_error"}, {"td_error": [1.0, -np.inf]}),
            ({"possible_low", "possible_high", "bound", "bound_ratio"}, {"possible": None}),
            ({"bound", "bound_ratio"}, {"possible": (0.0, 0.0)}),
            ({"bound", "bound_ratio"}, {"possible": (1.0, np.inf)}),
        ]:
            found = diagnostics.summary(**{"kernel": np.eye(2), "td_error": [1.0, 2.0]} | GIVEN | given_)
            assert {name for name, value in found.items() if np.isnan(value)} == lost

    def test_refuses(self):
        for message, given_ in [
            ("kernel must have shape (n, n), got (1, 2)", {"kernel": [[1.0, np.nan]]}),
            ("td_error must have shape (2,), got (3,)", {"td_error": [1.0, 2.0, np.nan]}),
            ("q must hold at least one value", {"q": []}),
            ("kernel must have at least one row", {"kernel": np.zeros((0, 0)), "td_error": []}),
            ("gamma must be in [0, 1], got 2", {"gamma": 2}),
        ]:
            with refuses(ValueError, message):
                diagnostics.summary(**{"kernel": np.eye(2), "td_error": [1.0, 2.0]} | GIVEN | given_)


class TestReportOfDiagnostics:
    """One row for each quantity: its value, what a table has, an alarm where the values cannot be true."""

    def test_a_table(self):
        found = diagnostics.report(3 * np.eye(4), td_error=[1.0, -2.0, 0.0, 4.0], **GIVEN)
        assert list(found.columns) == ["value", "reference", "alarm", "reading"]
        unit = found.drop(index=["max |Q|", "mean |TD error|"])
        np.testing.assert_allclose(unit["value"], unit["reference"])  # a table is its own reference
        assert not found["alarm"].any()
        assert found.loc["max |Q|", ["value", "reference"]].tolist() == [3, 4]

    def test_leading_order_and_real_change(self, rng):
        K, error, dq = gram(rng), rng.standard_normal(6), rng.standard_normal(6)
        found = diagnostics.report(K, td_error=error, **GIVEN)
        assert found.loc["alignment", "value"] == pytest.approx(diagnostics.alignment(K @ error, error))
        assert "(leading order)" in found.loc["alignment", "reading"]
        found = diagnostics.report(K, td_error=error, dq=dq, **GIVEN)
        assert found.loc["alignment", "value"] == pytest.approx(diagnostics.alignment(dq, error))
        assert "(real change)" in found.loc["alignment", "reading"]

    @pytest.mark.parametrize(
        ("q", "known", "alarm", "reading"),
        [
            ([4.4], {}, None, "1.1 times the bound: unknown"),  # a fit is not exact
            ([4.5], {}, True, "1.1 times the bound: impossible"),
            ([4.5], {"before": [3.0]}, None, "1.1 times the bound: inherited"),
            ([-3.7], {}, True, "0.93 times the bound: impossible"),  # a value below the least is as false
            ([-3.7], {"possible": None, "r_max": 2}, None, "0.93 times the bound: unknown"),
            ([3.0], {"earned": (-1.0, 2.0)}, False, "0.75 times the bound: earned"),
            ([3.0], {"earned": (-1.0, 1.0)}, None, "0.75 times the bound: unearned"),
            ([0.5], {}, None, "0.12 times the bound: inherited"),
            ([3.0], {"possible": None}, None, "no bound: unknown"),
        ],
    )
    def test_alarm_of_the_values(self, q, known, alarm, reading):
        found = diagnostics.report(np.eye(2), td_error=[1.0, 2.0], **GIVEN | {"q": q} | known)
        row = found.loc["max |Q|"]
        assert row["reading"] == reading
        assert row["alarm"] is pd.NA if alarm is None else bool(row["alarm"]) == alarm
        assert not found["alarm"].drop("max |Q|").any()

    def test_from_the_largest_reward_alone_little_is_known(self):
        """Not that all is well, where values may be 99 times too large; not that it is not, for a fresh network."""
        for q, gamma, r_max in ((99.0, 0.99, 1.0), (0.05, 0.9, 1e-3)):
            found = diagnostics.report(np.eye(4), q=np.full(4, q), td_error=np.ones(4), gamma=gamma, r_max=r_max)
            assert found.loc["max |Q|", "alarm"] is pd.NA
            assert (~found["alarm"].drop("max |Q|")).all()
        goal = {"possible": returns.bounds([0.0, 1.0], [False, True], gamma=0.99), "earned": (0.0, 1.0)}
        found = diagnostics.report(np.eye(4), q=np.full(4, 99.0), td_error=np.ones(4), gamma=0.99, **goal)
        assert found.loc["max |Q|", "alarm"]
        assert found.loc["max |Q|", "reading"] == "99 times the bound: impossible"
        found = diagnostics.report(np.eye(4), q=np.full(4, 0.9), td_error=np.ones(4), gamma=0.99, **goal, before=[0.1])
        assert not found.loc["max |Q|", "alarm"]

    def test_alarm_when_not_finite(self):
        found = diagnostics.report([[1.0, np.nan], [0.0, 1.0]], td_error=[1.0, np.inf], **GIVEN | {"q": [np.nan]})
        assert found["alarm"].all()
        assert found["value"].isna().all()
        assert set(found["reading"]) == {"not finite: diverged"}
        found = diagnostics.report(np.eye(2), td_error=[1.0, 2.0], dq=[np.nan, 1.0], **GIVEN)
        assert found.index[found["alarm"]].tolist() == ["alignment"]

    def test_readings(self):
        together = diagnostics.report(np.ones((4, 4)), td_error=[1.0, -3.0, -3.0, 1.0], **GIVEN)["reading"]
        assert together.tolist() == [
            "pairs move together",
            "no contraction certified",
            "0 of 4 rows",
            "1.0 of 4 directions",
            "0.75 times the bound: unknown",
            "zero at the fixed point",
            "across the errors (leading order)",
        ]
        alone = diagnostics.report(np.eye(4), td_error=np.ones(4), dq=-np.ones(4), **GIVEN | {"possible": None})[
            "reading"
        ]
        assert alone.tolist() == [
            "pairs move alone",
            "sampled rows dominate",
            "4 of 4 rows",
            "4.0 of 4 directions",
            "no bound: unknown",
            "zero at the fixed point",
            "against the errors (real change)",
        ]
        dead = diagnostics.report(np.diag([1.0, 0.0]), td_error=[0.0, 1.0], **GIVEN)["reading"]
        assert dead["mean row ratio"] == "pairs move alone, 1 of 2 dead"
        assert dead["alignment"] == "nothing moves (leading order)"
        dead = diagnostics.report(np.zeros((2, 2)), td_error=[0.0, 1.0], **GIVEN)["reading"]
        assert dead["mean row ratio"] == dead["smallest margin"] == "dead: no pair moves"

    def test_refuses(self):
        with refuses(ValueError, "dq must have shape (2,), got (1,)"):
            diagnostics.report(np.eye(2), td_error=[1.0, 2.0], dq=[1.0], **GIVEN)
        with refuses(ValueError, "r_max must be in [0, inf), got -1"):
            diagnostics.report(np.eye(2), td_error=[1.0, 2.0], r_max=-1, **GIVEN)


class TestATaskThatEnds:
    """gamma = 1: there is no bound, no margin is positive, and nothing is an error."""

    def test_numbers(self):
        K = np.array([[2.0, 1.0], [1.0, 4.0]])
        np.testing.assert_allclose(diagnostics.row_margins(K, gamma=1), [-2 * 2 * 0.25, -2 * 2 * 0.125])
        assert np.isnan(diagnostics.bound_ratio([5.0], r_max=1, gamma=1))
        numbers = diagnostics.summary(K, q=[5.0], td_error=[1.0, 2.0], gamma=1)
        assert np.isnan([numbers["bound"], numbers["bound_ratio"]]).all()
        assert (numbers["certified"], numbers["max_q"], numbers["margin"]) == (0.0, 5.0, -1.0)

    def test_a_table_has_a_margin_of_zero(self):
        assert diagnostics.row_margins(np.eye(3), gamma=1).tolist() == [0, 0, 0]

    def test_report(self):
        report = diagnostics.report(np.eye(2), q=[99.0], td_error=[1.0, 1.0], gamma=1, r_max=1)
        assert not report["alarm"].any()
        assert report.loc["max |Q|", "reading"] == "no bound: unknown"
        assert report.loc["max |Q|", "alarm"] is pd.NA
        report = diagnostics.report(np.eye(2), q=[99.0], td_error=[1.0, 1.0], gamma=0.9, r_max=0)
        assert report.loc["max |Q|", "reading"] == "no bound: unknown"
