"""From the log of a run to a cause and a remedy: rules, each with the evidence on which it rests.

The log is what `monitor` or `probe` writes; with it come settings of the run, as far as they are known. A rule reads
behaviour in the log, or a setting, or both, and says which. How often they are right was measured for the twelve
whose faults the study `bestiary` plants, shown in chapter 5; of the other five it counts only what they accuse falsely.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
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
    "entropy": "A bonus for entropy that has run away",
    "after-ends": "Targets that look beyond the end of an episode",
    "too-low": "Values below all that can be earned",
    "weight-decay": "Weights that have shrunk to next to nothing",
    "still": "Values that hardly move",
    "two-scales": "Stored rewards of two sizes",
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
    "weight_decay": "weight decay of the optimiser of the values",
    "actor": "whether there is an actor, which the values are to improve",
    "own_targets": "whether the algorithm has no target network by design",
    "own_steps": "whether the algorithm chooses the length of each step itself",
    "two_modes": "whether values and TD errors come from different modes of the network",
}
"""What can be told of a run beside its log, all of it optional."""

_SIZES = ("gamma", "learning_rate", "time_limit", "weight_decay")
"""Those of which a rule reads the size: a schedule, or its name, is as if it were not known."""

HEADLINE = "weight_norm"
"""The column that warned in most broken runs of the bestiary's parts ``judged`` and ``fresh``, less the sound ones in
which it did."""

_QUICK = 0.004
"""Growth of the logarithm of the length of all weights in an update: with Adam at 1e-3 it is a tenth of that."""

_LATE = 100
"""Updates before which values are not expected to be anything."""

_FIRST = 40
"""Updates that are the first ones, where records lie closer together."""

_MANY = 300
"""Updates in which values that are trained at all move by a tenth of their errors."""

_SECTION = "heuristics_runs#sec-what-went-wrong"


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
    "entropy": (
        "Where the weight of the entropy is learned, it is multiplied by a factor at each update, and with a long step "
        "it runs away. The values are then sums of bonuses, and tell next to nothing of the rewards.",
        "function_approximation#a-bound-on-every-true-value",
        "Give the weight of the entropy a fixed value, such as `ent_coef=0.1`, or a smaller learning rate.",
    ),
    "after-ends": (
        "Nothing is earned after an end, so the target there is the reward. With a value added to it, values no longer "
        "know of ends.",
        "bellman#the-return-and-its-first-step",
        "Look for the factor (1 - dones) in the targets: it is missing, or turned round. Where `dones` also marks time "
        "limits, after which values are rightly added, give the probe one that marks ends alone.",
    ),
    "too-low": (
        "A target is a reward and a part of what comes after: made of these rewards, and of any values that the "
        "network has had, it would be larger. So the targets are made otherwise.",
        "function_approximation#a-bound-on-every-true-value",
        "Look at the line that forms the targets: at the sign of what is added to the reward, and whether the rewards "
        "there are on the scale of those that were recorded.",
    ),
    "weight-decay": (
        "Weights that are short make values small and alike, whatever the rewards are.",
        _SECTION,
        "Look for what shortens the weights: weight decay of the optimiser, or a penalty on them in the loss.",
    ),
    "still": (
        "Values that are trained go to their targets. These stay: the steps are too short for that distance, something "
        "holds the weights, or the optimiser does not have them.",
        "heuristics#third-place-to-look-the-step-size",
        "See that the optimiser of the values holds the parameters of the network that is asked; then take a larger "
        "learning rate.",
    ),
    "two-scales": (
        "Steps that paid so differently are hardly of one task. The network learns the sum of both, and the larger "
        "rewards decide.",
        "function_approximation#a-bound-on-every-true-value",
        "See whether stored steps come from another run or another scale of the rewards: bring them to one scale, or "
        "begin with an empty buffer. If the task does pay like that, multiply the rewards by a constant.",
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
        self._numbers: dict[str, np.ndarray] = {}
        given = {k: _number(v) if k in _SIZES else v for k, v in (settings or {}).items() if v is not None}
        self.settings = {k: v for k, v in given.items() if k not in _SIZES or np.isfinite(v)}
        self.updates = self["updates"] if np.isfinite(self["updates"]).any() else self["step"]
        alarm = np.nan_to_num(self["alarm"]) > 0
        self.alarm = alarm | np.isin(self.words("verdict"), returns.ALARMING)
        self.trouble = self.alarm | self.runaway()

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a column of numbers, nan where it is not known."""
        if name not in self._numbers:  # several rules ask for the same ones
            given = self.columns.get(name, [np.nan] * self.n)
            self._numbers[name] = np.array([_number(each) for each in given], dtype=float)
            self._numbers[name].flags.writeable = False
        return self._numbers[name]

    def words(self, name: str) -> np.ndarray:
        """Return a column of words, empty where it is not known."""
        return np.array([each if isinstance(each, str) else "" for each in self.columns.get(name, [""] * self.n)])

    def first(self, where: np.ndarray) -> int:
        """Return the update of the first record of which something holds."""
        return self.at(int(np.argmax(where)))

    def at(self, k: int) -> int:
        """Return the update of a record."""
        return int(self.updates[k]) if np.isfinite(self.updates[k]) else 0

    def fixed(self) -> bool:
        """Return whether the data have stayed the same through at least five records while the network was trained.

        Within as many steps as two of the longest episodes have, none need have ended.
        """
        parts = [self[name] for name in ("earned_low", "earned_high", "start_return", "episode_length")]
        same = all(np.isfinite(part).all() and np.ptp(part) == 0 for part in parts)
        differ = (self["earned_low"] < self["earned_high"]).all()  # else new episodes may be just like the old ones
        long = np.ptp(self["step"]) > 2 * np.nanmax(self["episode_length"], initial=0.0)
        return bool(same and differ and long and self.n >= 5 and np.ptp(self["updates"]) > 0)

    def offline(self) -> bool:
        """Return whether nothing is added to the data, as is told, or else as the records say."""
        told = self.settings.get("offline")
        return self.fixed() if told is None else bool(told)

    def paid(self) -> np.ndarray:
        """Return the size of the largest reward up to each record."""
        return np.fmax(np.abs(self["reward_low"]), np.abs(self["reward_high"]))

    def huge(self) -> bool:
        """Return whether there was a reward of size 1000 or more."""
        return bool(np.nanmax(self.paid(), initial=0.0) >= 1e3)

    def late_half(self) -> np.ndarray | None:
        """Return the later half of the records with values and TD errors; None if they are few, or rewards are huge."""
        known = np.isfinite(self["td_bias"]) & np.isfinite(self["low_q"] + self["high_q"])
        known = np.flatnonzero(known & (self.updates > _LATE))
        return None if len(known) < 4 or self.huge() else known[len(known) // 2 :]

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
    if "alarm" in columns:
        columns["alarm"] = list(alarms(columns["alarm"]))
    # a file of a logger has rows of others in between
    rows = [k for k in range(len(columns["max_q"])) if _is_record(columns, k)]
    if not rows:
        raise ValueError("log must have at least one record")
    return {name: [column[k] for k in rows] for name, column in columns.items()}, len(rows)


def _is_record(columns: dict[str, list], k: int) -> bool:
    """Return whether a row of a log was written by a probe: it always says whether there is an alarm."""
    return "alarm" not in columns or bool(np.isfinite(_number(columns["alarm"][k])))


def alarms(column: Iterable[Any]) -> np.ndarray:
    """Return the column of a log that says whether there is an alarm, as numbers.

    Parameters
    ----------
    column : iterable
        Truth values or numbers, or what a file has made of them; what is empty is not known.

    Returns
    -------
    ndarray of float
        1, 0, or another number that stood there; nan where nothing is known.

    Raises
    ------
    ValueError
        If a word is none of these: taken for no alarm it would hide one.
    """
    found = []
    for row, value in enumerate(column):
        said = value.strip().lower() if isinstance(value, str) else ""
        number = {"true": 1.0, "false": 0.0}.get(said, _number(value))
        if said not in ("", "nan", "none") and np.isnan(number):
            raise ValueError(f"alarm must be True, False, a number or nothing, row {row} has {str(value)[:40]!r}")
        found.append(number)
    return np.array(found, dtype=float)


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
    k = int(np.argmax(lost))
    part = words[lost][0] or "values"
    earlier = run["max_q"][:k]
    if np.isfinite(earlier).any():
        seen = f"The {part} are no longer finite; the largest value before that was {np.nanmax(earlier):.3g}."
    else:
        seen = f"The {part} are not finite, from the first record on."
    blown = run.trouble[:k].any()
    return _finding(run, "not-finite", seen, where=lost, weight=0.3 if blown else 0.6, rests_on="behaviour")


def _no_target(run: _Run) -> Finding | None:
    """Look for targets that move with the network, or a copy that is renewed at once; but some are made so."""
    if run.settings.get("own_targets"):
        return None
    coupled = run["target_coupling"] > 0.3
    with np.errstate(all="ignore"):
        renewed = np.diff(run["renewed"], prepend=np.nan)
        pace = renewed / np.diff(run["updates"], prepend=np.nan)
    quick = (pace > 0.1) & (renewed > 1)  # one copy soon after a record is no pace
    wrong = run.trouble.any()
    if not (coupled | quick).any():
        return None
    if coupled.any():
        moved = np.nanmax(run["target_coupling"])
        seen = f"When all weights of the network move a little, its targets move {moved:.2f} times as far as its values"
        where, rests_on = coupled, "behaviour"
    else:
        seen = f"An update replaces {np.nanmax(pace):.0%} of the target network on average"
        where, rests_on = quick, "both" if wrong else "setting"
    seen += f"; from update {run.first(run.trouble)} on values are larger than what was earned." if wrong else "."
    return _finding(run, "no-target-network", seen, where=where, weight=0.85 if wrong else 0.5, rests_on=rests_on)


def _steps(run: _Run) -> Finding | None:
    """Look for updates that lengthen the weights by a large part, to what they never were."""
    size, rate = run["weight_norm"], run.settings.get("learning_rate")
    usual = rate is not None and rate < 0.01
    if run.settings.get("own_steps") or (usual and run.huge()):  # such rewards ask for long weights
        return None
    with np.errstate(all="ignore"):
        growth = np.diff(np.log(size), prepend=np.nan) / np.diff(run.updates, prepend=np.nan)
        quick = (growth > _QUICK) & (np.append(np.nan, size[1:] / size[:-1]) > 1.5)
        quick &= size >= np.fmax.accumulate(size)  # what had shrunk may grow back
    if not quick.any():
        return None
    k = int(np.argmax(quick))
    seen = f"All weights together grew from length {size[k - 1]:.3g} to {size[k]:.3g} in the updates up to {run.at(k)}"
    seen += f", at a learning rate of {rate:.3g}." if rate is not None else "."
    first = k <= 1 or run.at(k) <= _FIRST
    large = rate is not None and rate >= 0.01
    rests_on = "both" if large else "behaviour"
    return _finding(run, "step-size", seen, where=quick, weight=0.9 if first or large else 0.4, rests_on=rests_on)


def _discount(run: _Run) -> Finding | None:
    """Look for no discount where nothing ends or values grow, and for one that leaves nothing of a return."""
    gamma, length = run.settings.get("gamma"), run["episode_length"]
    none = np.isposinf(run["possible_high"]) | np.isneginf(run["possible_low"]) | (gamma == 1)
    if none.any():
        endless = np.isfinite(length) & np.isnan(run["same_length"])
        if endless[-1]:
            seen = (
                f"There is no discount, and none of the stored episodes ended by itself, up to {length[-1]:.0f} steps."
            )
            return _finding(run, "discount", seen, where=none & endless, weight=0.8, rests_on="both")
        earned = np.maximum(np.abs(run["earned_low"]), np.abs(run["earned_high"]))
        with np.errstate(invalid="ignore"):
            wrong = run.trouble | (run["max_q"] > 2 * earned)
        if wrong.any():
            seen = f"There is no discount, and values have reached {np.nanmax(run['max_q']):.3g}."
            return _finding(run, "discount", seen, where=wrong, weight=0.7, rests_on="both")
        return None
    with np.errstate(all="ignore"):
        kept = np.abs(run["start_return"]) / np.abs(run["start_sum"])
        lost = kept < 0.01
    if not lost.any():
        return None
    k = int(np.argmax(lost))
    seen = f"Episodes earned {run['start_sum'][k]:.3g} on average, of which the discount leaves "
    seen += f"{run['start_return'][k]:.2g} at their start."
    return _finding(run, "discount", seen, where=lost, weight=0.8, rests_on="behaviour")


def _rewards(run: _Run) -> Finding | None:
    """Look for rewards far from size 1 with values that are far from their returns."""
    size = run.paid()
    largest = np.nanmax(size, initial=0.0)
    start, earned = np.abs(run["start_q"]), np.abs(run["start_return"])
    q, most = run["max_q"], np.fmax(np.abs(run["earned_low"]), np.abs(run["earned_high"]))
    with np.errstate(invalid="ignore"):
        short = np.where(np.isfinite(start), start < 0.2 * earned, q < 0.2 * most)
        over = q > 2 * most
    late = run.updates > _LATE
    if largest >= 1e3:
        where, told = (size >= 1e3) & ((short & late) | run.trouble), "have only reached"
    elif 0 < largest <= 1e-3:
        where, told = (size > 0) & ((over & late) | run.trouble), "are still"
    else:
        return None
    if not where.any():
        return None
    k = int(np.flatnonzero(where)[-1])
    change = run["reward_change"][k]
    if largest >= 1e3 and change < 0.01:
        seen = f"Rewards are of size {largest:.2g}, and those of the latest tenth of the stored steps {change:.1g} "
        seen += f"times as large as those of the first; values {told} {q[k]:.2g}."
        return _finding(run, "two-scales", seen, where=where, weight=0.8, rests_on="behaviour")
    seen = f"Rewards are of size {largest:.2g}; values {told} {q[k]:.2g}, where episodes earned {most[k]:.2g}."
    return _finding(run, "reward-scale", seen, where=where, weight=0.8, rests_on="behaviour")


def _mixed(run: _Run) -> Finding | None:
    where = run["batch_dependence"] > 1e-2
    if not where.any():
        return None
    share = np.nanmax(run["batch_dependence"])
    seen = f"The same states get other values when the rest of their batch is left out, by up to {share:.0%}."
    return _finding(run, "mixed-batch", seen, where=where, weight=0.95, rests_on="behaviour")


def _inputs(run: _Run) -> Finding | None:
    """Look for large inputs where values are wrong or units die, or where one input dwarfs the others."""
    size, share = run["input_size"], run["input_ratio"]
    with np.errstate(invalid="ignore"):
        high = run["high_q"] > run["possible_high"] + 0.1 * np.abs(run["possible_high"])
        low = run["low_q"] < run["possible_low"] - 0.1 * np.abs(run["possible_low"])
        where = size > 1e3
        beyond, alone = where & (high | low) & (run.updates > _LATE), where & (share > 1e3)
    wrong = run.trouble.any() or np.nanmax(run["dormant"], initial=0.0) > 0.5
    if not (where.any() and wrong) and not beyond.any() and not alone.any():
        return None
    seen = f"The network receives numbers of size {np.nanmax(size):.3g}."
    if alone.any():
        seen = f"The network receives numbers of size {np.nanmax(size):.3g}, {np.nanmax(share[alone]):.2g} times as "
        seen += "large as the middle one of its inputs."
    if beyond.any():
        k = int(np.flatnonzero(beyond)[-1])
        seen += f" Values lie between {run['low_q'][k]:.3g} and {run['high_q'][k]:.3g}, where "
        seen += f"{run['possible_low'][k]:.3g} to {run['possible_high'][k]:.3g} can be earned."
    weight = 0.9 if wrong or beyond.any() else 0.45
    return _finding(run, "input-scale", seen, where=where, weight=weight, rests_on="behaviour")


def _shrunk(run: _Run) -> np.ndarray:
    """Return where the weights are less than a fifth as long as they were at first."""
    size = run["weight_norm"]
    known = size[np.isfinite(size)]
    with np.errstate(invalid="ignore"):
        return size < 0.2 * (known[0] if len(known) else np.nan)


def _decay(run: _Run) -> Finding | None:
    """Look for weights that have shrunk, and whether the optimiser is told to shorten them."""
    where = _shrunk(run)
    if not where.any():
        return None
    size, decay = run["weight_norm"], run.settings.get("weight_decay")
    k, first = int(np.nanargmin(size)), size[np.isfinite(size)][0]
    seen = f"All weights together fell from length {first:.3g} to {size[k]:.3g}, at update {run.at(k)}"
    seen += "." if decay is None else f", with a weight decay of {decay:.3g}."
    found = _finding(run, "weight-decay", seen, where=where, weight=0.91, rests_on="both" if decay else "behaviour")
    if decay:
        remedy = "Set the weight decay of the optimiser to 0; if it is wanted, begin with a thousandth of it."
        return replace(found, remedy=remedy)
    if decay == 0:
        remedy = (
            "The optimiser has no weight decay: look for a penalty on the weights in the loss, or code that sets them."
        )
        return replace(found, remedy=remedy)
    return found


def _low(run: _Run) -> Finding | None:
    """Look for targets below the least that can be made of the rewards and of the values that the network has had.

    A target is at least the smallest reward and, where that is below 0, the smallest value that a network behind the
    targets may have had. Values that are on their way have targets above them: the mean of the targets of a batch is
    that of its values and of its TD errors, and no more than the largest value and the mean of the errors.
    """
    lowest = np.fmin.accumulate(run["low_q"])
    least = run["reward_low"] + np.minimum(lowest, 0.0)
    most = run["high_q"] + run["td_bias"]
    with np.errstate(invalid="ignore"):
        where = (least - most > 0.1 * run["reward_low"]) & (run["high_q"] < 0.9 * run["reward_low"])
        where &= (run["reward_low"] > 0) & (run.updates > _LATE)
    where &= np.nan_to_num(run["bonus"]) == 0  # entropy adds to rewards, or takes from them
    late = where[len(where) // 2 :]
    if late.sum() < 3 or late.mean() < 0.75:
        return None
    k = int(np.flatnonzero(where)[-1])
    seen = f"Each reward is at least {run['reward_low'][k]:.3g}, no value of the batch is larger than "
    seen += f"{run['high_q'][k]:.3g}, and its targets are at most {most[k]:.2g} on average."
    return _finding(run, "too-low", seen, where=where, weight=0.93, rests_on="behaviour")


def _after_ends(run: _Run) -> Finding | None:
    """Look for targets that go on at ends, in nearly all batches that have one."""
    share = run["after_ends"]
    known = share[np.isfinite(share)]
    if not len(known) or (known > 0.9).mean() < 0.75:
        return None
    seen = (
        f"At {known.max():.0%} of the transitions that end their episode the target changes with what is stored as the "
    )
    seen += f"next observation, in {int((known > 0.9).sum())} of {len(known)} records."
    return _finding(run, "after-ends", seen, where=share > 0.9, weight=0.97, rests_on="behaviour")


def _actor(run: _Run) -> Finding | None:
    """Look for the critic in the actor's optimiser, or for values that stay above their targets and do not fall."""
    if run.settings.get("actor_moves_critic"):
        seen = "The optimiser of the actor holds parameters of the critic."
        return _finding(run, "actor-moves-critic", seen, where=np.ones(run.n, bool), weight=0.92, rests_on="setting")
    given = run.settings
    if given.get("actor") is False or given.get("two_modes") or given.get("offline") or run.fixed():
        return None
    half = run.late_half()
    if half is None or _held(run, half) or _shrunk(run).any():
        return None
    bias, error, middle = run["td_bias"], run["td_error"], (run["low_q"] + run["high_q"]) / 2
    above = bias[half] < -0.7 * error[half]
    fall = middle[half[0]] - middle[half[-1]]
    if above.mean() < 0.75 or fall > np.median(error[half]) or run.updates[half[-1]] - run.updates[half[0]] < _LATE:
        return None
    told = given.get("actor_moves_critic")
    if told is False and run.trouble[half].any():  # values that diverge lie above their targets too
        return None
    seen = f"From update {run.at(int(half[0]))} on values lie above their targets by {-np.median(bias[half]):.2g} on "
    seen += "average, nearly all of the TD error, and do not fall."
    where = np.isin(np.arange(run.n), half)
    found = _finding(run, "actor-moves-critic", seen, where=where, weight=0.55, rests_on="behaviour")
    if told is False:
        remedy = (
            "The optimiser of the actor holds no parameter of the critic: look for terms in the loss of the critic "
        )
        return replace(found, remedy=remedy + "beside the TD errors, and for code that sets its weights.")
    return found


def _held(run: _Run, half: np.ndarray) -> bool:
    """Return whether values have hardly moved, though their errors have one sign."""
    bias, error, churn = run["td_bias"][half], run["td_error"][half], run["value_churn"][half[1:]]
    aside = (np.abs(bias) > 0.7 * error).mean() >= 0.75
    return bool(aside and churn.sum() < 0.1 * np.median(error))  # a churn that is not known is no evidence


def _still(run: _Run) -> Finding | None:
    """Look for values that have stayed away from their targets for many updates, without moving."""
    half = run.late_half()
    if half is None or not _held(run, half) or _shrunk(run).any() or run.trouble.any():
        return None
    first, last = run.at(int(half[0])), run.at(int(half[-1]))
    if last - first < _MANY:
        return None
    moved, off = run["value_churn"][half[1:]].sum(), np.median(run["td_bias"][half])
    seen = f"From update {first} to {last} values have moved by {moved:.2g} altogether, and lie "
    seen += f"{'below' if off > 0 else 'above'} their targets by {abs(off):.2g}"
    rate = run.settings.get("learning_rate")
    seen += f"; the learning rate is {rate:.3g}." if rate is not None else "."
    where = np.isin(np.arange(run.n), half)
    return _finding(run, "still", seen, where=where, weight=0.6, rests_on="behaviour")


def _asleep(run: _Run) -> Finding | None:
    """Look for a layer of which most units are dormant in half of the records."""
    where = run["dormant_layer"] > 0.8
    if where[len(where) // 2 :].mean() < 0.9:
        return None
    seen = f"In one hidden layer {np.nanmax(run['dormant_layer']):.0%} of the units hardly answer to any input."
    return _finding(run, "dead-units", seen, where=where, weight=0.7, rests_on="behaviour")


def _offline(run: _Run) -> Finding | None:
    """Look for data that stay the same, and values that leave what they hold."""
    if not run.offline() or not run.trouble.any():
        return None
    k = int(np.argmax(run.trouble))
    low, high = run["earned_low"][k], run["earned_high"][k]
    seen = f"Nothing is added to the data, and values have reached {run['max_q'][k]:.3g}"
    seen += f", where the episodes in them earned between {low:.3g} and {high:.3g}." if low <= high else "."
    source = "both" if run.settings.get("offline") else "behaviour"
    return _finding(run, "offline", seen, where=run.trouble, weight=0.75, rests_on=source)


def _replayed(run: _Run) -> Finding | None:
    """Look for many updates a step where features lose their rank, or values are wrong."""
    with np.errstate(all="ignore"):
        ratio = np.diff(run["updates"], prepend=np.nan) / np.diff(run["step"], prepend=np.nan)
    many = ratio >= 8
    rank = run["feature_rank"]
    known = rank[np.isfinite(rank)]
    fallen = len(known) > 1 and known[-1] < 0.5 * known.max()
    if run.offline() or not many.any() or not (fallen or run.trouble.any()):
        return None
    seen = f"There are {np.nanmedian(ratio):.0f} updates for each step in the environment"
    seen += f", and the rank of the features has gone from {known.max():.0f} to {known[-1]:.0f}." if fallen else "."
    return _finding(run, "replay-ratio", seen, where=many, weight=0.6, rests_on="both")


def _limits(run: _Run) -> Finding | None:
    where, limit = run["same_length"] > 0, run.settings.get("time_limit")
    if limit is not None:
        where &= run["episode_length"] == limit
        text = f"Episodes that reach the time limit of {limit:.0f} steps are stored as if they had ended."
    else:
        where = (run["same_length"] > 0.9) & (run["episode_length"] > 1)  # of one step: a task, and no limit
        text = f"Episodes end after exactly {np.nanmax(run['episode_length'], initial=0):.0f} steps, as if for good."
    if not where.any():
        return None
    return _finding(run, "time-limits", text, where=where, weight=0.8 if limit else 0.6, rests_on="both")


def _entropy(run: _Run) -> Finding | None:
    """Look for a bonus that has grown tenfold, to more than ten times the rewards: its coefficient has run away."""
    bonus, rewards = np.abs(run["bonus"]), np.fmax(np.abs(run["reward_low"]), np.abs(run["reward_high"]))
    young = bonus[np.isfinite(bonus)][:1]
    with np.errstate(invalid="ignore"):
        where = (bonus > 10 * rewards) & (bonus > 10 * np.max(young, initial=0.0))
    if not where.any():
        return None
    k = int(np.flatnonzero(where)[-1])
    seen = f"Entropy adds {run['bonus'][k]:.3g} to each step, where rewards are of size {rewards[k]:.3g}; in the first "
    seen += f"record it was {young[0]:.3g}."
    return _finding(run, "entropy", seen, where=where, weight=0.88, rests_on="behaviour")


def _unexplained(run: _Run) -> Finding:
    words = run.words("verdict")
    false = run.alarm & (words == "impossible")
    where = false if false.any() else run.alarm
    k = int(np.argmax(where))
    q, low, high = (run[name][k] for name in ("max_q", "possible_low", "possible_high"))
    seen = f"Values of size {q:.3g}, where {low:.3g} to {high:.3g} can be earned."
    if np.isnan([low, high]).any():
        seen = f"An alarm, at values of size {q:.3g}; what can be earned is not in the log."
    found = _finding(run, "unexplained", seen, where=where, weight=0.1, rests_on="behaviour")
    if false.any():
        return found
    fast = (words[run.alarm] == "too fast").all()
    why = (
        "The values have grown faster than rewards can have added"
        if fast
        else "Whoever wrote the log took them for false"
    )
    why += "; which of the usual causes it is, the log does not say."
    return replace(found, why=why)


_RULES: tuple[Callable[[_Run], Finding | None], ...] = (
    _not_finite,
    _no_target,
    _steps,
    _entropy,
    _discount,
    _inputs,
    _rewards,
    _limits,
    _actor,
    _mixed,
    _asleep,
    _offline,
    _replayed,
    _after_ends,
    _low,
    _decay,
    _still,
)
