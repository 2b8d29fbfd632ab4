"""From the log of a run to a cause and a remedy: rules, each with the evidence on which it rests.

The log is what `monitor` or `probe` writes; with it come settings of the run, as far as they are known. A rule reads
behaviour in the log, or a setting, or both, and says which. How often the rules are right was measured: the study
`bestiary`, shown in chapter 5.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from divergence_notes import returns

CAUSES = {
    "not-finite": "A number that is not finite",
    "no-target-network": "No target network, in effect",
    "step-size": "Steps that are too large",
    "discount": "A discount that does not fit the horizon",
    "input-scale": "Inputs that are too large",
    "reward-scale": "Rewards of an unsuitable size",
    "time-limits": "Time limits that are taken for ends",
    "actor-moves-critic": "Something else than the TD error moves the values up",
    "mixed-batch": "Values that depend on the rest of the batch",
    "dead-units": "Units that no longer answer",
    "offline": "Actions that are not in the data",
    "replay-ratio": "Too many updates for the data",
    "unexplained": "Values that cannot be true",
}
"""What a run can be found to suffer from, and the title of each."""

SETTINGS = {
    "algorithm": "name of the algorithm",
    "gamma": "discount factor",
    "learning_rate": "step size of the optimiser of the values",
    "optimizer": "its name, such as Adam",
    "batch_size": "transitions in an update",
    "tau": "share of the target network that a renewal replaces",
    "updates_per_step": "updates for each step in the environment",
    "offline": "whether the data are fixed and nothing is added to them",
    "time_limit": "steps after which the environment cuts an episode off",
    "time_limits_are_ends": "whether nothing is bootstrapped after such a cut",
    "actor_moves_critic": "whether the optimiser of the actor holds parameters of the critic",
}
"""What can be told of a run beside its log, all of it optional."""

HEADLINE = "bound_ratio"
"""The column that warned first in most runs of the bestiary."""

_SECTION = "heuristics_runs#your-own-run"


@dataclass(frozen=True)
class Finding:
    """One thing that is probably wrong with a run."""

    name: str
    """A key of `CAUSES`."""
    seen: str
    """What is seen in the log, with the numbers."""
    why: str
    """Why that makes values go wrong."""
    chapter: str
    """Page and anchor of the book where that is explained."""
    remedy: str
    """What to try first."""
    since: int
    """The update at which it was first seen; the step, where nobody counted updates."""
    weight: float
    """How sure, from 0 to 1: an order of the findings and no probability."""
    rests_on: str
    """"behaviour" as it stands in the log, "setting", or "both"."""


_TEXTS = {
    "not-finite": (
        "One such number in a batch makes every weight nan in one update, and nothing brings them back.",
        _SECTION,
        "Find the step that makes it: check rewards and observations in the environment before they are stored, and "
        "divisions, roots and logarithms in the loss.",
    ),
    "no-target-network": (
        "A step that raises a value raises its own target through the shared weights, and the two chase each other.",
        "preqn_later#sec-preqn-target",
        "Compute the targets with a copy of the network and renew it slowly: a copy every few hundred updates, or a "
        "moving average with a share of 0.005.",
    ),
    "step-size": (
        "Beyond a certain length a step overshoots the targets, and each repair overshoots further.",
        "heuristics#third-place-to-look-the-step-size",
        "Divide the learning rate by ten, and clip the norm of the gradient.",
    ),
    "discount": (
        "A return is worth looking for up to about 1 / (1 - gamma) steps ahead: without a discount sums have no "
        "limit, and with too small a one what comes later is not seen.",
        "bellman#without-a-discount",
        "Choose gamma so that 1 / (1 - gamma) is the number of steps after which a reward still matters, and no more.",
    ),
    "input-scale": (
        "The gradient of a weight is proportional to its input, and the kernel to the square of it: a step that suits "
        "inputs of size 1 is far too long.",
        "heuristics#turn-the-dials",
        "Scale the observations to a size of about 1, for example with VecNormalize, or divide them by a constant.",
    ),
    "reward-scale": (
        "Values are sums of rewards, and a network with inputs of size 1 begins at values below 1: it takes long to "
        "reach large ones, and small ones drown in the errors of the others.",
        "function_approximation#a-bound-on-every-true-value",
        "Multiply the rewards by a constant, so that returns are of size 1 to 100.",
    ),
    "time-limits": (
        "Where an episode was only cut off there is more to earn. Taken for an end it gives one state two values, "
        "depending on a clock that the network does not see.",
        _SECTION,
        "Bootstrap after a cut: store `terminated`, and not `terminated or truncated`; or let the network see the time "
        "that is left.",
    ),
    "actor-moves-critic": (
        "At rest the TD errors of a step with the critic's own loss average to zero. Here values stay above their "
        "targets: something else lifts them.",
        _SECTION,
        "Give the actor's optimiser the parameters of the actor alone, and look for terms in the loss of the critic "
        "beside the TD errors.",
    ),
    "mixed-batch": (
        "The value of a state is not a function of the state: a sum or mean over the wrong axis mixes the batch.",
        "function_approximation#what-one-update-changes",
        "Look for means and sums without an axis in the network; in a dueling head the mean of the advantages is over "
        "actions, with the axis kept.",
    ),
    "dead-units": (
        "A unit that is zero at every input has no gradient: it does not come back, and what it stood for is lost.",
        _SECTION,
        "Take a smaller step, leaky units or a layer that normalises; units that are dead already have to be set anew.",
    ),
    "offline": (
        "A maximum over actions that the data do not hold picks those that are over-estimated, and no new data "
        "corrects it.",
        "heuristics#second-place-to-look-a-pair-without-data",
        "Keep the policy or the values near the data, as CQL, IQL or a term of imitation do; or collect data.",
    ),
    "replay-ratio": (
        "Each transition is fitted many times before the next one comes: errors of the values at rare pairs are "
        "bootstrapped over and over.",
        "preqn_networks#what-the-test-on-the-batch-cannot-see",
        "Do fewer updates for each step in the environment, or slow down the target network by the same factor.",
    ),
    "unexplained": (
        "No policy can earn that, so the values are false; which of the usual causes it is, the log does not say.",
        "function_approximation#a-bound-on-every-true-value",
        "Take a smaller step and a slower target network first, and look at the scale of inputs and rewards.",
    ),
}


class _Run:
    """A log as arrays, and what several rules ask of it."""

    def __init__(self, log: Any, settings: Mapping[str, Any] | None) -> None:
        self.columns, self.n = _columns(log)
        self.settings = {k: v for k, v in (settings or {}).items() if v is not None}
        self.updates = self["updates"] if np.isfinite(self["updates"]).any() else self["step"]
        alarm = np.nan_to_num(self["alarm"]) > 0
        self.alarm = alarm | np.isin(self.words("verdict"), returns.ALARMING)
        self.trouble = self.alarm | self.runaway()

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a column of numbers, nan where it is not known."""
        given = self.columns.get(name)
        if given is None:
            return np.full(self.n, np.nan)
        return np.array([_number(each) for each in given], dtype=float)

    def words(self, name: str) -> np.ndarray:
        """Return a column of words, empty where it is not known."""
        return np.array([each if isinstance(each, str) else "" for each in self.columns.get(name, [""] * self.n)])

    def first(self, where: np.ndarray) -> int:
        """Return the update of the first record of which something holds."""
        at = self.updates[int(np.argmax(where))]
        return int(at) if np.isfinite(at) else 0

    def runaway(self) -> np.ndarray:
        """Return where values lie far above what was earned, without being impossible."""
        earned = np.maximum(np.abs(self["earned_low"]), np.abs(self["earned_high"]))
        with np.errstate(invalid="ignore"):
            return (self["overestimation"] > np.maximum(np.abs(self["start_return"]), 1)) & (self["max_q"] > 2 * earned)


def diagnose(log: Any, settings: Mapping[str, Any] | None = None) -> list[Finding]:
    """Return what is probably wrong with a run, the likeliest first.

    Parameters
    ----------
    log : DataFrame, sequence of mappings, or mapping of sequences
        The history of a callback, the records of a probe, or a file of either that was read in. Columns are those of
        `probe.COLUMNS`, with or without the prefix ``divergence/``; one that is missing is not known.
    settings : mapping, optional
        Some keys of `SETTINGS`; others are not looked at.

    Returns
    -------
    list of Finding
        Empty for a run in which no rule finds anything, which is no proof that it is well.

    Raises
    ------
    TypeError
        If `log` is nothing of the kind.
    ValueError
        If it has no row or no column that is known.
    """
    run = _Run(log, settings)
    found = [finding for rule in _RULES for finding in [rule(run)] if finding is not None]
    if not found and run.alarm.any():
        found = [_unexplained(run)]
    return sorted(found, key=lambda finding: -finding.weight)


def _columns(log: Any) -> tuple[dict[str, list], int]:
    """Return the columns of a log by their plain names, and the number of its rows."""
    if hasattr(log, "to_dict") and hasattr(log, "columns"):
        log = {name: log[name].tolist() for name in log.columns}
    elif not isinstance(log, Mapping):
        try:
            rows = [dict(row) for row in log]
        except (TypeError, ValueError):
            raise TypeError(f"log must be a table of records, got {type(log).__name__}") from None
        names = {name: None for row in rows for name in row}
        log = {name: [row.get(name) for row in rows] for name in names}
    columns = {str(name).removeprefix("divergence/"): list(column) for name, column in log.items()}
    if "step" not in columns and "time/total_timesteps" in columns:
        columns["step"] = columns["time/total_timesteps"]
    if "max_q" not in columns:
        raise ValueError(f"log must have a column max_q, got {', '.join(list(columns)[:5]) or 'none'}")
    # a file of a logger has rows of others in between
    rows = [k for k in range(len(columns["max_q"])) if _is_record(columns, k)]
    if not rows:
        raise ValueError("log must have at least one record")
    return {name: [column[k] for k in rows] for name, column in columns.items()}, len(rows)


def _is_record(columns: dict[str, list], k: int) -> bool:
    """Return whether a row of a log was written by a probe: it always says whether there is an alarm."""
    return "alarm" not in columns or bool(np.isfinite(_number(columns["alarm"][k])))


def _number(value: Any) -> float:
    try:
        return float({"True": 1, "False": 0}.get(value, value) if isinstance(value, str) else value)
    except (TypeError, ValueError):
        return float("nan")


def _finding(run: _Run, name: str, seen: str, *, where: np.ndarray, weight: float, rests_on: str) -> Finding:
    why, chapter, remedy = _TEXTS[name]
    return Finding(name, seen, why, chapter, remedy, run.first(where), weight, rests_on)


def _not_finite(run: _Run) -> Finding | None:
    words = run.words("not_finite")
    stored = np.isin(words, ["rewards", "observations", "actions"])
    if stored.any():
        seen = f"There are {words[stored][0]} that are not finite."
        return _finding(run, "not-finite", seen, where=stored, weight=0.98, rests_on="behaviour")
    lost = (run.words("status") == "diverged") | (words != "")
    if not lost.any():
        return None
    before = np.nanmax(run["max_q"][: int(np.argmax(lost)) or 1], initial=0.0)
    part = words[lost][0] or "values"
    seen = f"The {part} are no longer finite; the largest value in the record before was {before:.3g}."
    blown = run.trouble[: int(np.argmax(lost))].any()
    return _finding(run, "not-finite", seen, where=lost, weight=0.3 if blown else 0.6, rests_on="behaviour")


def _no_target(run: _Run) -> Finding | None:
    coupled = run["target_coupling"] > 0.3
    with np.errstate(all="ignore"):
        pace = np.diff(run["renewed"], prepend=np.nan) / np.diff(run["updates"], prepend=np.nan)
    quick = pace > 0.1
    if not run.trouble.any() or not (coupled.any() or quick.any()):
        return None
    if coupled.any():
        moved = np.nanmax(run["target_coupling"])
        seen = f"When all weights of the network move a little, its targets move {moved:.2f} times as far as its values"
        where, rests_on = coupled, "behaviour"
    else:
        seen = f"An update replaces {np.nanmax(pace):.0%} of the target network on average"
        where, rests_on = quick, "both"
    seen += f"; from update {run.first(run.trouble)} on values are larger than what can have been earned."
    return _finding(run, "no-target-network", seen, where=where, weight=0.85, rests_on=rests_on)


def _mixed(run: _Run) -> Finding | None:
    where = run["batch_dependence"] > 1e-2
    if not where.any():
        return None
    share = np.nanmax(run["batch_dependence"])
    seen = f"The same states get other values when the rest of their batch is left out, by up to {share:.0%}."
    return _finding(run, "mixed-batch", seen, where=where, weight=0.95, rests_on="behaviour")


def _inputs(run: _Run) -> Finding | None:
    where = run["input_size"] > 1e3
    if not where.any() or not (run.trouble.any() or np.nanmax(run["dormant"], initial=0.0) > 0.5):
        return None
    seen = f"The network receives numbers of size {np.nanmax(run['input_size']):.3g}."
    return _finding(run, "input-scale", seen, where=where, weight=0.9, rests_on="behaviour")


def _actor(run: _Run) -> Finding | None:
    if not run.settings.get("actor_moves_critic"):
        return None
    seen = "The optimiser of the actor holds parameters of the critic."
    return _finding(run, "actor-moves-critic", seen, where=np.ones(run.n, bool), weight=0.92, rests_on="setting")


def _limits(run: _Run) -> Finding | None:
    where, limit = run["same_length"] > 0, run.settings.get("time_limit")
    if limit is not None:
        where &= run["episode_length"] == limit
        text = f"Episodes that reach the time limit of {limit} steps are stored as if they had ended."
    else:
        where = run["same_length"] > 0.9
        text = f"Episodes end after exactly {np.nanmax(run['episode_length'], initial=0):.0f} steps, as if for good."
    if not where.any():
        return None
    return _finding(run, "time-limits", text, where=where, weight=0.8 if limit else 0.6, rests_on="both")


def _unexplained(run: _Run) -> Finding:
    k = int(np.argmax(run.alarm))
    q, low, high = (run[name][k] for name in ("max_q", "possible_low", "possible_high"))
    seen = f"Values of size {q:.3g}, where {low:.3g} to {high:.3g} can be earned."
    return _finding(run, "unexplained", seen, where=run.alarm, weight=0.1, rests_on="behaviour")


_RULES: tuple[Callable[[_Run], Finding | None], ...] = (_not_finite, _no_target, _mixed, _inputs, _actor, _limits)
