"""Statistics of a few runs: intervals that hold the truth, differences that are found, and runs that went wrong."""

import math

import numpy as np
import pandas as pd
import pytest

from divergence_notes import studies
from divergence_notes.studies import comparison

STEPS = [500, 1000, 1500, 2000]
DRAWS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "skewed": lambda rng, shape: rng.exponential(size=shape),
    "on a lattice": lambda rng, shape: np.round(1.5 * rng.standard_normal(shape)),
    "two kinds": lambda rng, shape: rng.choice([0.0, 0, 0, 10], size=shape) + rng.standard_normal(shape),
}


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def curves(*runs):
    """Return a table with a column for each run."""
    return pd.DataFrame(np.transpose(runs), index=STEPS)


def middle(values):
    """Return the interquartile mean by sorting, for a number of values that four divides."""
    values = sorted(values)
    quarter = len(values) // 4
    return math.fsum(values[quarter:-quarter]) / (len(values) - 2 * quarter)


class TestArrivals:
    """The first evaluation at the level; a run that never was there, or that diverged, counts as the last."""

    def test_by_hand(self):
        table = curves([-900, -200, -150, -300], [-150, -900, -900, -900], [-900] * 4, [-900, -900, -900, -199])
        found = comparison.arrivals(table, level=-200, never=2500)
        assert found.tolist() == [1000, 500, 2500, 2000]

    def test_diverged(self):
        table = curves([-900, -150, np.nan, np.nan], [-900, np.nan, np.nan, np.nan], [-900, -900, np.inf, np.nan])
        assert comparison.arrivals(table, level=-200, never=2500).tolist()[:2] == [1000, 2500]

    @pytest.mark.parametrize("never", [2000, 0])
    def test_never_is_later_than_all(self, never):
        with pytest.raises(ValueError, match=r"never must be later than the last evaluation, at 2000, got"):
            comparison.arrivals(curves([-900] * 4), level=-200, never=never)


class TestRelapses:
    """Of the evaluations after the arrival alone, and what a run did not live to see is below."""

    def test_by_hand(self):
        table = curves([-150, -300, -150, -400], [-900, -150, -150, -150], [-900] * 4, [-900, -900, -900, -150])
        np.testing.assert_allclose(comparison.relapses(table, level=-200), [2 / 3, 0, np.nan, np.nan])

    def test_diverged(self):
        table = curves([-150, -150, np.nan, np.nan], [np.nan] * 4)
        np.testing.assert_allclose(comparison.relapses(table, level=-200), [2 / 3, np.nan])

    def test_the_level_itself_is_no_relapse(self):
        assert comparison.relapses(curves([-200] * 4), level=-200).tolist() == [0]


class TestEstimate:
    """The middle half and its interval."""

    def test_the_middle_half(self, rng):
        scores = rng.standard_normal(12)
        assert comparison.estimate(scores, rng=rng).value == pytest.approx(middle(scores))
        assert comparison.estimate(scores, rng=rng, trim=0).value == pytest.approx(scores.mean())
        tasks = [rng.standard_normal(5), 100 + rng.standard_normal(7)]
        assert comparison.estimate(tasks, rng=rng).value == pytest.approx(middle(np.concatenate(tasks)))

    def test_tasks_are_drawn_apart(self, rng):
        """Of two tasks of one value each, a stratified resample is the sample; one drawn from all is not."""
        found = comparison.estimate([np.zeros(5), np.full(5, 10.0)], rng=rng, trim=0)
        assert found == (5, 5, 5)
        assert comparison.estimate(np.repeat([0.0, 10.0], 5), rng=rng, trim=0).low < 5

    @pytest.mark.parametrize("name", DRAWS)
    @pytest.mark.parametrize("n, tasks", [(5, 1), (10, 1), (5, 3)])
    def test_the_interval_of_a_difference_holds_the_truth(self, name, n, tasks):
        """In about 95 of 100 samples; with five runs, which are the fewest, in not quite so many."""
        rng = np.random.default_rng(n + tasks)
        held = 0
        for _ in range(200):
            first, second = ([DRAWS[name](rng, n) for _ in range(tasks)] for _ in range(2))
            found = comparison.difference(first, second, rng=rng, resamples=299)
            held += found.low <= 0 <= found.high
        assert 0.88 < held / 200 < 0.995

    def test_with_three_runs_it_would_not(self, monkeypatch, rng):
        """So three are refused."""
        with pytest.raises(ValueError, match="must have at least 5 runs on each task, got 3"):
            comparison.difference(np.zeros(3), np.zeros(3), rng=rng)
        monkeypatch.setattr(comparison, "FEWEST", 3)
        pairs = rng.standard_normal((200, 2, 3))
        found = [comparison.difference(*pair, rng=rng, resamples=299) for pair in pairs]
        assert np.mean([each.low <= 0 <= each.high for each in found]) < 0.87

    def test_a_narrower_level_is_a_narrower_interval(self, rng):
        scores = rng.standard_normal((2, 10))
        wide, narrow = (comparison.difference(*scores, rng=rng, level=level) for level in (0.95, 0.5))
        assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
        assert wide.value == narrow.value == pytest.approx(comparison._middle([scores[0]], 0.25) - middle_of(scores[1]))

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_a_run_that_diverged_is_no_score(self, bad, rng):
        scores = [1.0, 2, 3, 4, bad]
        for ask in (comparison.estimate, lambda s, rng: comparison.difference(np.ones(5), s, rng=rng)):
            with pytest.raises(ValueError, match=r"scores.* must be finite"):
                ask(scores, rng=rng)

    def test_other_tasks(self, rng):
        with pytest.raises(ValueError, match="the agents must have the same tasks, got 1 and 2"):
            comparison.difference(np.zeros(5), np.zeros((2, 5)), rng=rng)

    @pytest.mark.parametrize("level", [0, 1, 95])
    def test_levels(self, level, rng):
        with pytest.raises(ValueError, match="level must be in"):
            comparison.estimate(np.arange(5.0), rng=rng, level=level)


def middle_of(scores):
    """Return the interquartile mean of ten: two are left out at each end."""
    return np.sort(scores)[2:-2].mean()


class TestImprovement:
    """The share of pairs of runs that the first wins; a tie is half a win."""

    def test_by_hand(self, rng):
        assert comparison.improvement([3.0] * 5, [1, 2, 3, 4, 5], rng=rng).value == pytest.approx(0.5)
        assert comparison.improvement([5.0] * 5, [1, 2, 3, 4, 5], rng=rng).value == pytest.approx(0.9)
        both = comparison.improvement([[3.0] * 5, [5.0] * 5], [[1, 2, 3, 4, 5]] * 2, rng=rng)
        assert both.value == pytest.approx(0.7)

    def test_as_the_rank_test(self, rng):
        from scipy import stats

        first, second = rng.integers(0, 4, (2, 9))
        want = stats.mannwhitneyu(first, second).statistic / 81
        assert comparison.improvement(first, second, rng=rng).value == pytest.approx(want)

    def test_all_at_the_ceiling(self, rng):
        assert comparison.improvement([-200.0] * 10, [-200.0] * 10, rng=rng) == (0.5, 0.5, 0.5)

    def test_its_interval(self):
        rng = np.random.default_rng(11)
        want, held = 0.5 * (1 + math.erf(0.5)), 0  # two normals, a whole spread apart
        for _ in range(200):
            first, second = 1 + rng.standard_normal(10), rng.standard_normal(10)
            found = comparison.improvement(first, second, rng=rng, resamples=299)
            held += found.low <= want <= found.high
        assert 0.88 < held / 200 < 0.995


def test_profile():
    """The share of runs at or above, the mean over tasks."""
    found = comparison.profile([[1.0, 2, 3, 4], [10.0] * 4], at=[0, 2, 3.5, 10, 11])
    assert found.tolist() == [1, 0.875, 0.625, 0.5, 0]


class TestNormalised:
    def test_by_hand(self):
        found = comparison.normalised([[2.0, 4], [5.0, 5]], by=[[1.0, 3], [10.0, 10]])
        assert [task.tolist() for task in found] == [[1, 2], [0.5, 0.5]]

    @pytest.mark.parametrize("bad", [0.0, -20.0])
    def test_no_unit(self, bad):
        with pytest.raises(ValueError, match=r"by must have a positive mean on every task, got .* on task 1"):
            comparison.normalised([[2.0], [5.0]], by=[[1.0], [bad]])


class TestSmallestDifference:
    """It is found about four times in five; half of it is not."""

    @pytest.mark.parametrize("runs, tasks", [((10, 10), 1), ((5, 5), 3), ((10, 5), 1)])
    def test_power(self, runs, tasks):
        rng = np.random.default_rng(sum(runs) + tasks)
        spreads = np.full(tasks, 7.0)
        smallest = comparison.smallest_difference(spreads, runs=runs, rng=rng)

        def found(by):
            words = []
            for _ in range(200):
                first, second = ([7 * rng.standard_normal(n) for _ in range(tasks)] for n in runs)
                seen = comparison.difference([by + task for task in first], second, rng=rng, resamples=299)
                words.append(comparison.verdict(seen, smallest=smallest).word)
            return [words.count(word) / 200 for word in ("ahead", "behind")]

        assert 0.7 < found(smallest)[0] < 0.9
        assert found(-smallest / 2)[1] < 0.6
        assert sum(found(0)) < 0.13

    def test_it_scales_with_the_spread_and_falls_with_the_runs(self, rng):
        def ask(spread, n):
            return comparison.smallest_difference(
                spread, runs=(n, n), rng=np.random.default_rng(0), resamples=199, simulations=300
            )

        assert ask(10.0, 10) == pytest.approx(10 * ask(1.0, 10))
        assert ask(1.0, 40) < ask(1.0, 10) < ask(1.0, 5)
        assert ask(0.0, 10) == 0

    def test_as_students_test(self, rng):
        """For means of normal scores, near to what the noncentral t says."""
        from scipy import optimize, stats

        def power(gap):
            t = stats.t.ppf(0.975, 18)
            return stats.nct.sf(t, 18, gap * math.sqrt(5))

        want = optimize.brentq(lambda gap: power(gap) - 0.8, 0.1, 5)
        found = comparison.smallest_difference(1.0, runs=(10, 10), rng=rng, trim=0, simulations=2000)
        assert found == pytest.approx(want, rel=0.1)

    @pytest.mark.parametrize(
        "change, said",
        [
            ({"spreads": -1.0}, "spreads must be non-negative"),
            ({"runs": (2, 10)}, r"runs must be in \[5, inf\), got 2"),
            ({"power": 1}, r"power must be in \(0, 1\), got 1"),
        ],
    )
    def test_refuses(self, change, said, rng):
        with pytest.raises(ValueError, match=said):
            comparison.smallest_difference(**{"spreads": 1.0, "runs": (5, 5), "rng": rng} | change)


class TestFalseAlarms:
    """How often two agents that are alike are told apart: for few runs more often than the level says."""

    @pytest.mark.parametrize("runs, tasks", [((5, 5), 1), ((5, 5), 3), ((10, 5), 1)])
    def test_as_often_as_verdicts_say(self, runs, tasks):
        rng = np.random.default_rng(sum(runs) + tasks)
        rate = comparison.false_alarms(np.full(tasks, 7.0), runs=runs, rng=rng)
        words = []
        for _ in range(400):
            pair = ([7 * rng.standard_normal(n) for _ in range(tasks)] for n in runs)
            words.append(comparison.verdict(comparison.difference(*pair, rng=rng, resamples=299), smallest=0).word)
        assert abs(rate - 1 + words.count("level") / 400) < 0.04  # three deviations of 400 draws
        assert 0.04 < rate < 0.13

    def test_of_many_runs_it_is_what_the_level_leaves(self, rng):
        for level in (0.95, 0.8):
            found = comparison.false_alarms(1.0, runs=(200, 200), rng=rng, trim=0, level=level, simulations=1000)
            assert found == pytest.approx(1 - level, abs=0.03)

    def test_of_five_it_is_more(self, rng):
        assert comparison.false_alarms(1.0, runs=(5, 5), rng=rng, simulations=4000) > 0.06

    def test_the_unit_does_not_matter(self):
        few = {"runs": (5, 5), "resamples": 199, "simulations": 300}
        one, other = (comparison.false_alarms(s, rng=np.random.default_rng(0), **few) for s in (1.0, 128.0))
        assert 0 < one == other

    def test_without_spread_there_is_none(self, rng):
        assert comparison.false_alarms(0.0, runs=(5, 5), rng=rng, simulations=100) == 0

    def test_refuses(self, rng):
        with pytest.raises(ValueError, match=r"runs must be in \[5, inf\), got 3"):
            comparison.false_alarms(1.0, runs=(5, 3), rng=rng)


class TestAheadLevelBehind:
    @pytest.mark.parametrize(
        "ends, word, within",
        [
            ((1, 5), "ahead", 5),
            ((-5, -1), "behind", 5),
            ((0, 5), "level", 5),
            ((-1, 2), "level", 3),
            ((0, 0), "level", 3),
        ],
    )
    def test_by_hand(self, ends, word, within):
        found = comparison.verdict(comparison.Estimate(sum(ends) / 2, *ends), smallest=3)
        assert found == (word, within)
        assert str(found) == (f"level within {within:.4g}" if word == "level" else word)

    def test_all_runs_alike(self, rng):
        """Of equal samples without spread it says level, of two such that differ ahead."""
        same, more = np.full(10, 4.0), np.full(10, 4.5)
        assert comparison.verdict(comparison.difference(same, same, rng=rng), smallest=0) == ("level", 0)
        assert comparison.verdict(comparison.difference(more, same, rng=rng), smallest=2).word == "ahead"

    def test_one_failure_in_ten_is_left_out(self, rng):
        """What an interquartile mean does not see: say how many arrived beside it."""
        good, lame = np.full(10, 1500.0), np.append(np.full(9, 1500.0), 10_500)
        assert comparison.estimate(lame, rng=rng).value == comparison.estimate(good, rng=rng).value
        assert comparison.estimate(lame, rng=rng, trim=0).value > 2000

    def test_refuses(self):
        with pytest.raises(ValueError, match="smallest must be in"):
            comparison.verdict(comparison.Estimate(0, 0, 0), smallest=-1)


class TestCompared:
    """A row for each pair, with what the functions say one by one."""

    def test_rows(self, rng):
        scores = {"good": 5 + rng.standard_normal((3, 5)), "bad": rng.standard_normal((3, 5))}
        table = comparison.compared(scores, [("good", "bad"), ("bad", "good")], spreads=np.ones(3), rng=rng)
        assert list(table.index) == [("good", "bad"), ("bad", "good")]
        assert [each.word for each in table.verdict] == ["ahead", "behind"]
        assert table.difference.iloc[0] == -table.difference.iloc[1] > 3
        assert table[["better", "better_low", "better_high"]].to_numpy().tolist() == [[1, 1, 1], [0, 0, 0]]
        assert table.runs.tolist() == [(5, 5)] * 2
        assert table.smallest.nunique() == 1

    def test_each_number_is_that_of_its_function(self, rng):
        scores = {"one": rng.standard_normal((2, 6)) + 0.5, "two": rng.standard_normal((2, 6))}
        table = comparison.compared(scores, [("one", "two")], spreads=np.ones(2), rng=np.random.default_rng(7))
        again = np.random.default_rng(7)
        smallest = comparison.smallest_difference(np.ones(2), runs=(6, 6), rng=again)
        found = comparison.difference(scores["one"], scores["two"], rng=again)
        better = comparison.improvement(scores["one"], scores["two"], rng=again)
        assert table.iloc[0].tolist() == [
            (6, 6),
            *found,
            smallest,
            comparison.verdict(found, smallest=smallest),
            *better,
        ]
        assert better.low < better.value < better.high

    def test_too_few_seeds_are_no_comparison(self, rng):
        """The three seeds of the first study of robots."""
        runs = studies.load("mujoco")
        late = runs[runs.step > 50_000].groupby(["agent", "environment", "seed"])["return"].mean().unstack()
        scores = {agent: late.loc[agent].to_numpy() for agent in ("preqn", "td3")}
        with pytest.raises(ValueError, match="at least 5 runs on each task, got 3"):
            comparison.compared(scores, [("preqn", "td3")], spreads=np.ones(3), rng=rng)
