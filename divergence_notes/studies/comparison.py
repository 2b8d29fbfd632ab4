"""What a few runs of two agents can say of them: interquartile means, intervals, and what could have been seen.

A score is one number for a run: the step at which it arrived, or its mean return late in training. The scores of an
agent are an array of them, or a list of one such array for each task. Every interval is a percentile interval of
`scipy.stats.bootstrap`, which draws the runs of each agent on each task anew, for itself (stratified). It takes the
runs of two agents for independent; where equal seeds bring equal starts it is wider than it need be.

What a run is worth that diverged is decided here for arrivals, where it is one that never came; elsewhere by whoever
makes the scores, since a score must be finite. How a run is trained and evaluated is in `protocol`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from divergence_notes import _checks
from divergence_notes._checks import ArrayLike

if TYPE_CHECKING:
    import pandas

FEWEST = 5
"""Runs of an agent on a task without which there is no interval: with three, one of 95 % holds the truth in about 82 of
100 cases."""


class Estimate(NamedTuple):
    """A number and the ends of its interval."""

    value: float
    """The number."""
    low: float
    """The lower end."""
    high: float
    """The upper end."""


class Verdict(NamedTuple):
    """What a comparison says."""

    word: str
    """``"ahead"``, ``"level"`` or ``"behind"``: whether the interval of the difference lies above 0, holds it, or lies
    below."""
    within: float
    """How large a difference the comparison leaves open, or could have missed: the largest of the ends of the interval
    and the smallest difference that these runs find."""

    def __str__(self) -> str:
        return f"level within {self.within:.4g}" if self.word == "level" else self.word


def arrivals(curves: "pandas.DataFrame", *, level: float | int, never: float | int) -> np.ndarray:
    """Return the step of the first evaluation that reached a level, for each run.

    Parameters
    ----------
    curves : DataFrame
        Returns; a row for each step, a column for each run. A run that diverged has no numbers from there on.
    level : float
        What is to be reached.
    never : float
        What a run counts that did not reach it, later than every step of `curves`.

    Returns
    -------
    ndarray of shape (n_runs,)
        Steps. One that is `never` is a lower bound: the run was not followed further.

    Raises
    ------
    ValueError
        If a run that never arrives would not be the last.
    """
    steps = curves.index.to_numpy()
    if never <= steps.max():
        raise ValueError(f"never must be later than the last evaluation, at {steps.max():g}, got {never:g}")
    reached = curves.to_numpy(dtype=float) >= level
    return np.where(reached.any(axis=0), steps[reached.argmax(axis=0)], never).astype(float)


def relapses(curves: "pandas.DataFrame", *, level: float | int) -> np.ndarray:
    """Return which share of the evaluations after the first that reached a level lie below it, for each run.

    Parameters
    ----------
    curves : DataFrame
        As for `arrivals`.
    level : float
        What is to be reached.

    Returns
    -------
    ndarray of shape (n_runs,)
        In [0, 1]; an evaluation that a run did not live to see lies below. Not a number for a run that never reached
        the level, or at its last evaluation only.
    """
    reached = curves.to_numpy(dtype=float) >= level
    later = np.cumsum(reached, axis=0) - reached > 0  # an earlier evaluation reached it
    counts = later.sum(axis=0)
    below = (later & ~reached).sum(axis=0)
    return np.where(reached.any(axis=0) & (counts > 0), below / np.maximum(counts, 1), np.nan)


def estimate(
    scores: ArrayLike | Sequence[ArrayLike],
    *,
    rng: np.random.Generator,
    trim: float | int = 0.25,
    level: float | int = 0.95,
    resamples: int = 9999,
) -> Estimate:
    """Return the mean of the middle of the scores of an agent, and its interval.

    Parameters
    ----------
    scores : ndarray of shape (n_runs,), or a list of one for each task
        Of all runs; all tasks count as one population.
    rng : Generator
        Draws the resamples.
    trim : float
        Share that is left out at each end, rounded down to whole runs: 1/4 for the interquartile mean, 0 for the mean.
    level : float
        Of the interval, in (0, 1).
    resamples : int
        How many.

    Returns
    -------
    Estimate
        In the unit of the scores.

    Raises
    ------
    ValueError
        If a task has fewer than `FEWEST` runs, or a score is not finite.
    """
    tasks = _tasks("scores", scores, fewest=FEWEST)
    return _estimate(tasks, lambda *drawn: _middle(drawn, trim), rng=rng, level=level, resamples=resamples)


def difference(
    first: ArrayLike | Sequence[ArrayLike],
    second: ArrayLike | Sequence[ArrayLike],
    *,
    rng: np.random.Generator,
    trim: float | int = 0.25,
    level: float | int = 0.95,
    resamples: int = 9999,
) -> Estimate:
    """Return by how much the middle of the scores of one agent is above that of another.

    Parameters
    ----------
    first, second : ndarray of shape (n_runs,), or a list of one for each task
        Scores; larger is better. The agents have the same tasks, and may have different numbers of runs.
    rng, trim, level, resamples
        As for `estimate`.

    Returns
    -------
    Estimate
        In the unit of the scores.

    Raises
    ------
    ValueError
        As `estimate`, or if the agents have different numbers of tasks.
    """
    firsts, seconds = _two(first, second, fewest=FEWEST)
    gap = partial(_gap, len(firsts), trim)
    return _estimate([*firsts, *seconds], gap, rng=rng, level=level, resamples=resamples)


def improvement(
    first: ArrayLike | Sequence[ArrayLike],
    second: ArrayLike | Sequence[ArrayLike],
    *,
    rng: np.random.Generator,
    level: float | int = 0.95,
    resamples: int = 9999,
) -> Estimate:
    """Return the probability that a run of one agent is better than one of another.

    Parameters
    ----------
    first, second : ndarray of shape (n_runs,), or a list of one for each task
        As for `difference`.
    rng, level, resamples
        As for `estimate`.

    Returns
    -------
    Estimate
        In [0, 1]: the mean over tasks. Of two equal scores each is better with probability one half.

    Raises
    ------
    ValueError
        As `difference`.
    """
    firsts, seconds = _two(first, second, fewest=FEWEST)
    n = len(firsts)

    def statistic(*drawn: np.ndarray) -> np.ndarray | float:
        wins = 0.0
        for ours, theirs in zip(drawn[:n], drawn[n:], strict=True):
            gap = ours[..., :, None] - theirs[..., None, :]
            wins = wins + ((gap > 0) + 0.5 * (gap == 0)).mean(axis=(-2, -1))
        return wins / n

    return _estimate([*firsts, *seconds], statistic, rng=rng, level=level, resamples=resamples)


def profile(scores: ArrayLike | Sequence[ArrayLike], *, at: ArrayLike) -> np.ndarray:
    """Return the share of runs whose score is at least so large: the performance profile.

    Parameters
    ----------
    scores : ndarray of shape (n_runs,), or a list of one for each task
        Of an agent.
    at : ndarray of shape (n,)
        Scores to ask about.

    Returns
    -------
    ndarray of shape (n,)
        In [0, 1], the mean over tasks; falls as `at` rises.
    """
    wanted = _checks.array("at", at, ndim=1)
    return np.mean([(task[:, None] >= wanted).mean(axis=0) for task in _tasks("scores", scores, fewest=1)], axis=0)


def normalised(scores: Sequence[ArrayLike], *, by: Sequence[ArrayLike]) -> list[np.ndarray]:
    """Return scores in units of the mean of another agent, task by task.

    Parameters
    ----------
    scores, by : list of ndarray
        Scores of the agent and of the other, an array for each task.

    Returns
    -------
    list of ndarray
        1 is what the other earns on average.

    Raises
    ------
    ValueError
        If a mean of the other is not positive, so that it is no unit.
    """
    ours, theirs = _two(scores, by, fewest=1)
    units = [task.mean() for task in theirs]
    for k, unit in enumerate(units):
        if unit <= 0:
            raise ValueError(f"by must have a positive mean on every task, got {unit:.6g} on task {k}")
    return [task / unit for task, unit in zip(ours, units, strict=True)]


def smallest_difference(
    spreads: float | int | ArrayLike,
    *,
    runs: tuple[int, int],
    rng: np.random.Generator,
    trim: float | int = 0.25,
    power: float | int = 0.8,
    level: float | int = 0.95,
    resamples: int = 999,
    simulations: int = 2000,
) -> float:
    """Return the difference that so many runs find with a given probability.

    It is what `verdict` would call "ahead" so often, if the scores of both agents were normal with these spreads. The
    spreads come from a pilot: those of the runs that are judged would make a lucky sample look like a sharp one.

    Parameters
    ----------
    spreads : float or ndarray of shape (n_tasks,)
        Standard deviation of the scores of an agent on a task, at least 0.
    runs : tuple of int
        Runs of the one and of the other on each task, at least `FEWEST`.
    rng, trim
        As for `difference`.
    power : float
        The probability, in (0, 1).
    level, resamples
        As for `difference`.
    simulations : int
        How many pairs of samples without a difference are drawn.

    Returns
    -------
    float
        In the unit of the spreads.

    Raises
    ------
    ValueError
        If there are too few runs, or a number is out of range.

    Notes
    -----
    A difference that is added to all scores of an agent moves the interval as it is. So the difference that lifts its
    lower end above 0 with probability `power` is a quantile of minus the lower ends where there is no difference.
    """
    power = _checks.scalar("power", power, low=0, high=1, low_open=True, high_open=True)
    low, _ = _alike(spreads, runs, trim, rng=rng, level=level, resamples=resamples, simulations=simulations)
    return float(np.quantile(-low, power))


def false_alarms(
    spreads: float | int | ArrayLike,
    *,
    runs: tuple[int, int],
    rng: np.random.Generator,
    trim: float | int = 0.25,
    level: float | int = 0.95,
    resamples: int = 999,
    simulations: int = 2000,
) -> float:
    """Return how often `verdict` tells two agents apart whose scores have one distribution.

    That is the share of intervals that leave out 0, for normal scores. For so few runs a percentile interval is too
    narrow, so it is more than one minus `level`.

    Parameters
    ----------
    spreads, runs, rng, trim, level, resamples, simulations
        As for `smallest_difference`.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        As `smallest_difference`.
    """
    low, high = _alike(spreads, runs, trim, rng=rng, level=level, resamples=resamples, simulations=simulations)
    return float(np.mean((low > 0) | (high < 0)))


def compared(
    scores: Mapping[str, ArrayLike | Sequence[ArrayLike]],
    pairs: Sequence[tuple[str, str]],
    *,
    spreads: float | int | ArrayLike,
    rng: np.random.Generator,
    trim: float | int = 0.25,
) -> "pandas.DataFrame":
    """Return what there is to say of some pairs of agents.

    Parameters
    ----------
    scores : dict
        From the name of an agent to its scores, as for `difference`.
    pairs : list of (str, str)
        Which is compared with which.
    spreads : float or ndarray of shape (n_tasks,)
        Of a pilot, as for `smallest_difference`.
    rng, trim
        As for `difference`.

    Returns
    -------
    DataFrame
        A row for each pair, named by both: `runs` of each on a task, `difference`, `low`, `high`, `smallest`,
        `verdict`, and `better`, the probability of `improvement`, with its interval, `better_low` and `better_high`.
        The runs of an agent are as many on each task.

    Raises
    ------
    ValueError
        As `difference` and `smallest_difference`.
    """
    import pandas

    rows, smallest = {}, {}
    for first, second in pairs:
        runs = tuple(len(_tasks(name, scores[name], fewest=FEWEST)[0]) for name in (first, second))
        if runs not in smallest:
            smallest[runs] = smallest_difference(spreads, runs=runs, rng=rng, trim=trim)
        found = difference(scores[first], scores[second], rng=rng, trim=trim)
        said = verdict(found, smallest=smallest[runs])
        better = improvement(scores[first], scores[second], rng=rng)
        rows[first, second] = (runs, *found, smallest[runs], said, *better)
    names = ["runs", "difference", "low", "high", "smallest", "verdict", "better", "better_low", "better_high"]
    return pandas.DataFrame.from_dict(rows, orient="index", columns=names)


def verdict(found: Estimate, *, smallest: float | int) -> Verdict:
    """Return whether the first agent of a comparison is ahead, level or behind.

    Parameters
    ----------
    found : Estimate
        From `difference`.
    smallest : float
        From `smallest_difference`, at least 0.

    Returns
    -------
    Verdict
        "level" says that no difference was found; it speaks of differences up to `within` and of none beyond.

    Raises
    ------
    ValueError
        If `smallest` is negative.
    """
    smallest = _checks.scalar("smallest", smallest, low=0)
    word = "ahead" if found.low > 0 else "behind" if found.high < 0 else "level"
    return Verdict(word, max(smallest, abs(found.low), abs(found.high)))


def _tasks(name: str, scores: Any, *, fewest: int) -> list[np.ndarray]:
    """Return the scores as a list of one array for each task."""
    several = len(scores) > 0 and np.ndim(scores[0]) == 1
    tasks = [_checks.array(name, task, ndim=1) for task in (scores if several else [scores])]
    for task in tasks:
        if len(task) < fewest:
            raise ValueError(f"{name} must have at least {fewest} runs on each task, got {len(task)}")
    return tasks


def _two(first: Any, second: Any, *, fewest: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the scores of two agents, task by task."""
    firsts, seconds = (
        _tasks("the first scores", first, fewest=fewest),
        _tasks("the second scores", second, fewest=fewest),
    )
    if len(firsts) != len(seconds):
        raise ValueError(f"the agents must have the same tasks, got {len(firsts)} and {len(seconds)}")
    return firsts, seconds


def _middle(samples: Sequence[np.ndarray], trim: float | int) -> np.ndarray | float:
    """Return the mean of the middle of several samples taken together, along the last axis."""
    from scipy import stats  # takes long, and nobody waits for it who draws no interval

    return stats.trim_mean(np.concatenate(samples, axis=-1), trim, axis=-1)


def _gap(n: int, trim: float | int, *drawn: np.ndarray) -> np.ndarray | float:
    """Return by how much the middle of the first n samples lies above that of the others."""
    return _middle(drawn[:n], trim) - _middle(drawn[n:], trim)


def _alike(
    spreads: float | int | ArrayLike,
    runs: tuple[int, int],
    trim: float | int,
    *,
    rng: np.random.Generator,
    level: float | int,
    resamples: int,
    simulations: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of intervals of the difference of two agents whose scores have one normal distribution."""
    scales = np.atleast_1d(_checks.array("spreads", spreads))
    _checks.non_negative("spreads", scales)
    counts = [_checks.integer("runs", count, low=FEWEST) for count in runs]
    samples = [scale * rng.standard_normal((simulations, count)) for count in counts for scale in scales]
    low, high = _interval(samples, partial(_gap, len(scales), trim), rng=rng, level=level, resamples=resamples)
    return np.asarray(low), np.asarray(high)


def _estimate(
    samples: list[np.ndarray],
    statistic: Callable[..., np.ndarray | float],
    *,
    rng: np.random.Generator,
    level: float | int,
    resamples: int,
) -> Estimate:
    low, high = _interval(samples, statistic, rng=rng, level=level, resamples=resamples)
    return Estimate(float(statistic(*samples)), float(low), float(high))


def _interval(
    samples: list[np.ndarray],
    statistic: Callable[..., np.ndarray | float],
    *,
    rng: np.random.Generator,
    level: float | int,
    resamples: int,
) -> tuple[np.ndarray | float, np.ndarray | float]:
    """Return the ends of the percentile interval of a statistic of several samples, along their last axis."""
    from scipy import stats  # as in _middle

    level = _checks.scalar("level", level, low=0, high=1, low_open=True, high_open=True)
    found = stats.bootstrap(
        samples,
        lambda *drawn, axis=-1: statistic(*drawn),
        n_resamples=_checks.integer("resamples", resamples, low=1),
        confidence_level=level,
        method="percentile",
        vectorized=True,
        batch=500,
        axis=-1,
        rng=rng,
    )
    return found.confidence_interval.low, found.confidence_interval.high
