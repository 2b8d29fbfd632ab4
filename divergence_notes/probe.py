"""A probe in a network that learns values: one record after another, from a batch that is given to it now and then.

It needs no library of agents. Here is how a record is made without a trace in the run; its numbers are those of
`diagnostics`, `returns` and `plasticity`, its kernel is `ntk`'s. What an algorithm of stable-baselines3 is asked says
`adapters`, and `monitor` is the callback that does the rest there.
"""

import copy
import logging
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from divergence_notes import _checks, diagnostics, returns
from divergence_notes._checks import ArrayLike
from divergence_notes._extras import needs

with needs("neural"):
    import torch
    from torch import nn

    from divergence_notes import _passes, evidence, ntk, plasticity
    from divergence_notes.linearization import Linearization

if TYPE_CHECKING:
    import pandas

_MEANINGS = """
step: when it was made, in the unit in which its owner counts
row_ratio: mean share of a row of the kernel that lies off its diagonal, see `diagnostics.row_ratio`; >= 0
margin: smallest margin of the sampled rows, see `diagnostics.row_margins`; at most 1 - gamma
certified: share of the rows with a positive margin; 0 to 1
effective_rank: directions in which the kernel moves values, `diagnostics.effective_rank`; 0 to batch size
max_q: largest absolute value in the states of the batch; >= 0, in units of Q
low_q: smallest of these values
high_q: largest of these values
possible_low: the least that a policy can earn, by `returns.bounds` of the rewards and ends met so far
possible_high: the most that a policy can earn, by the same
bound: the larger one of the two in size; nan where it is 0 or infinite
bound_ratio: max_q over bound; above 1 a value is larger than anything that can be earned
earned_low: the least that a stored stretch of an episode earned, see `returns.to_go`
earned_high: the most that one earned
start_q: mean value of the first pairs of stored episodes
start_return: mean of what these episodes earned
overestimation: start_q minus start_return, minus what may come after a time limit, minus what entropy adds
bonus: what entropy adds to the reward of a step in the targets, on average; 0 where it adds nothing
td_error: mean absolute TD error of the batch; >= 0, in units of Q
growth_rate: slope of log max_q per step, over the last 5 records
alignment: cosine of the change of the values that followed with the TD errors; -1 to 1
dormant: share of the hidden units that are dormant, see `plasticity.dormant`; 0 to 1
feature_rank: see `plasticity.feature_rank`; 0 to the batch's size
feature_norm: mean Euclidean length of what the last linear layer receives; >= 0
weight_norm: Euclidean length of all parameters behind the kernel; >= 0
gradient_norm: length of the gradient of half the mean squared TD error in these parameters; >= 0
value_churn: mean absolute change since the record before of the values of the pairs of the first batch; >= 0
action_churn: share of the states of that batch whose greedy action is another now; its mean change if continuous; >= 0
updates: steps of gradient descent that were made so far
renewed: how often the target network was renewed so far, times the share of it that is replaced each time
td_bias: mean TD error of the batch with its sign; below 0 the values lie above their targets, in units of Q
greedy_gap: mean over the batch of the value of the greedy action minus that of the stored one, in units of Q
input_size: largest absolute number that the first layer of weights received; >= 0
reward_low: smallest reward met so far, on the scale on which the network is trained
reward_high: largest reward met so far
batch_dependence: how far a value depends on the others of its batch, see `evidence.batch_dependence`; >= 0
dormant_layer: largest share of dormant units in one hidden layer; 0 to 1
target_coupling: how far the targets move with the network, see `evidence.coupling`; measured once a run; >= 0
episode_length: steps of the longest stored episode
same_length: share of the stored episodes that ended and were as long as that, see `evidence.lengths`; 0 to 1
input_ratio: largest absolute input of the first linear layer over the middle one of those that are not 0; >= 1
after_ends: share of the batch's ends where targets hold what comes after, see `evidence.beyond_ends`; own targets only
reward_change: middle absolute reward of the latest tenth of the stored steps over that of the first tenth; >= 0
start_sum: mean sum of rewards, without the discount, of the episodes of start_return
alarm: whether the verdict is one of `returns.ALARMING`
verdict: a word of `returns.VERDICTS`
status: whether a number is not finite, one of the words of `dynamics.Status`
not_finite: where the first number stands that is not finite: rewards, observations, actions, weights, values, targets
reason: why something could not be measured, or nothing
"""

COLUMNS = dict(line.split(": ", 1) for line in _MEANINGS.strip().splitlines())
"""Columns of a history, and what each means; all numbers but the step stand in a logger as ``divergence/<column>``."""

WORDS = ("verdict", "status", "not_finite", "reason")
"""The columns that are not numbers."""

NUMBERS = [name for name in COLUMNS if name not in ("step", *WORDS)]
"""The columns that are, but for the step."""

_LOGGER = logging.getLogger("divergence_notes.monitor")

_RECENT = 50_000
"""Steps told one by one, the latest ones, that are kept."""

_WINDOW = 5
"""Records that the growth rate looks back on."""


_EARLY = (25, 50, 100, 200, 400, 800)
_EVERY = 1000
"""Steps after the first record at which others follow, and from one to the next later on."""


def due(step: int, *, first: int, every: int | None) -> int:
    """Return at which step the next record is due.

    Parameters
    ----------
    step : int
        At which one is made.
    first : int
        At which the first one of the run was made.
    every : int or None
        A number counts its multiples. None looks early, since many a run that goes wrong does so in its first hundred
        updates: 25, 50, 100, 200, 400 and 800 steps after the first record, and at each multiple of 1000.

    Returns
    -------
    int
        Larger than `step`.
    """
    regular = (step // (every or _EVERY) + 1) * (every or _EVERY)
    early = () if every is not None else (first + gap for gap in _EARLY)
    return min([regular, *(at for at in early if at > step)])


@dataclass(frozen=True, eq=False)
class Asked:
    """What an algorithm that learns values is asked for a record: three functions, and what they look into."""

    net: nn.Module
    """Holds the values; a copy of it is kept as it was at first."""
    values: Callable[..., torch.Tensor]
    """``values(net, observations)``, of all actions, (n, n_actions), if actions are chosen among a few; else
    ``values(net, observations, actions)``, of the pairs, (n, 1)."""
    errors: Callable[[Any], tuple[torch.Tensor, torch.Tensor | None]]
    """``errors(batch)``: target minus value of each pair as the algorithm forms them, (n,), and what entropy adds to
    the reward of the step that follows, (n,), or None."""
    learner: list[nn.Module]
    """The modules whose kernel is meant: the step in their parameters moves these values."""
    discrete: bool
    """Whether actions are chosen among a few, and given by their numbers."""
    policy: Callable[[Any], torch.Tensor] | None = None
    """``policy(observations)``: the greedy actions, (n, d), where they are not among a few."""
    modules: tuple[nn.Module, ...] = ()
    """All that is passed: put into evaluation mode for a record, and back to what it was."""
    ceiling: Callable[[], float] = lambda: 0.0
    """The most that entropy can add to the reward of a step, on average over the actions of a policy."""
    renewals: Callable[[], tuple[int, float]] | None = None
    """How often the target network was renewed so far, and the share of it that is replaced each time."""
    updates: Callable[[], int] | None = None
    """How many steps of gradient descent were made so far."""


@dataclass(frozen=True, eq=False)
class Episodes:
    """Stored steps in order of time, each column an environment of its own."""

    rewards: np.ndarray
    """Shape (n, n_envs), on the scale on which the network is trained."""
    over: np.ndarray
    """Whether the episode was over with this step, by whatever cause, bool."""
    cut: np.ndarray
    """Whether it was a time limit, after which values are bootstrapped, bool."""
    whole: bool
    """Whether an episode began with the first step."""
    pairs: Callable[[np.ndarray, np.ndarray], tuple[Any, torch.Tensor]] | None
    """Observations and actions at some rows and columns; None where they are not known."""
    latest: int = 128
    """Starts of episodes, the latest ones, at which values are asked."""


class _Steps:
    """Steps that were told one by one: the latest ones, and what was seen and done at the starts of episodes."""

    def __init__(self) -> None:
        self.rows: deque[tuple[np.ndarray, np.ndarray, np.ndarray]] = deque(maxlen=_RECENT)
        self.count = 0
        self._starts: dict[tuple[int, int], tuple[Any, Any]] = {}
        self._known = True

    def add(
        self, rewards: np.ndarray, over: np.ndarray, cut: np.ndarray, pair: tuple[Any, Any] | None, *, flat: bool
    ) -> None:
        """Add one step of each environment; the pair has an axis of steps in front, of length 1."""
        if self.rows and self.rows[-1][0].shape != rewards.shape:
            raise ValueError(f"rewards must be of {len(self.rows[-1][0])} environments as before, got {len(rewards)}")
        began = self.rows[-1][1] if self.rows else np.ones(len(rewards), dtype=bool)
        self.rows.append((rewards, over, cut))
        self._known &= pair is not None
        for env in np.flatnonzero(began) if self._known else ():
            where = 0 if flat else (0, env)
            self._starts[self.count, int(env)] = tuple(
                _map(lambda part, where=where: _kept(part[where]), part) for part in pair
            )
        self.count += 1

    def episodes(self, tensor: Callable[[Any], torch.Tensor]) -> Episodes:
        """Return the latest steps."""
        first = self.count - len(self.rows)
        self._starts = {key: pair for key, pair in self._starts.items() if key[0] >= first}
        starts = self._starts

        def pairs(rows: np.ndarray, envs: np.ndarray) -> tuple[Any, torch.Tensor]:
            found = [starts[int(row) + first, int(env)] for row, env in zip(rows, envs, strict=True)]
            return tuple(_map(tensor, _stacked(parts)) for parts in zip(*found, strict=True))

        columns = (np.stack(part) for part in zip(*self.rows, strict=True))
        return Episodes(*columns, whole=first == 0, pairs=pairs if self._known else None)


def _kept(part: Any) -> Any:
    """Return a copy that nobody overwrites."""
    return part.detach().clone() if isinstance(part, torch.Tensor) else np.array(part)


def _stacked(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], Mapping):
        return {name: _stacked([part[name] for part in parts]) for name in parts[0]}
    return torch.stack(list(parts)) if isinstance(parts[0], torch.Tensor) else np.stack(parts)


class Probe:
    """Watch a network that learns values in a loop of one's own, online or offline.

    Parameters
    ----------
    net : torch.nn.Module
        The network whose values and kernel are meant. Called as ``net(observations)`` it gives the values of all
        actions, (n, n_actions), where the actions of a batch are whole numbers; else as ``net(observations, actions)``
        the values of the pairs, (n,) or (n, 1).
    targets : callable
        ``targets(batch)``: what the values of the pairs of a batch are drawn to, (n,) or (n, 1); the lines that the
        loop has anyway. It gets a copy of the batch that the probe is given, as tensors: a mapping or a named tuple
        keeps its form, of another object the five parts are left.
    gamma : float
        Discount factor in [0, 1].
    values : callable, optional
        ``values(net, observations)`` or ``values(net, observations, actions)``, where `net` is not called like that: a
        pair of critics, quantiles, a second output. It must ask the `net` that it is given, for a copy is asked, too;
        and without a mask, for a number in place of an action that is not allowed counts as a value.
    policy : callable, optional
        ``policy(observations)``: the greedy actions, (n, d), where they are not whole numbers; for ``action_churn``.
    others : sequence of torch.nn.Module
        The networks that `targets` and `policy` pass: for a record they are put into evaluation mode as `net` is, and
        back to what they were.
    n_steps : int
        Rewards in a target, >= 1.
    r_max : float, optional
        Largest absolute reward of the task, > 0. By default the rewards count that were met: those of the batches, if
        `n_steps` is 1, and those that `saw` was told.
    pairs : tuple of two arrays, optional
        Observations and actions of pairs that stay the same; their kernel at each record is kept, in `kernels`.

    Raises
    ------
    TypeError
        If `net` or one of `others` is no module, or `targets`, `values` or `policy` cannot be called.
    ValueError
        If a number is out of range.

    Notes
    -----
    Nothing is drawn, and the loop is not changed: the generators that all share, of torch, numpy and Python, and
    gradients, modes, parameters and buffers of `net` and `others` are as they were. A generator of its own from which
    `targets` draws goes on. What cannot be measured is nan, ``reason`` says why, and the loop goes on.

    What the columns of a record are, says `COLUMNS`. Which of them are theorems: ``possible_low`` and ``possible_high``
    bound what any policy can earn *if* no reward is met that was not met before; `r_max` takes the if away. The values
    that spread, ``earned_low`` and ``earned_high``, are facts about the steps that were told, and no bounds. That a
    verdict is an alarm is a judgement from samples, with the slack that `returns.verdict` says.
    """

    def __init__(
        self,
        net: Any,
        targets: Any,
        *,
        gamma: float | int,
        values: Any = None,
        policy: Any = None,
        others: Sequence[Any] = (),
        n_steps: int = 1,
        r_max: float | int | None = None,
        pairs: tuple | None = None,
    ) -> None:
        for name, module in (("net", net), *((f"others[{k}]", other) for k, other in enumerate(others))):
            if not isinstance(module, nn.Module):
                raise TypeError(f"{name} must be a torch.nn.Module, got {type(module).__name__}")
        for name, function in (("targets", targets), ("values", values), ("policy", policy)):
            if not callable(function) and (name == "targets" or function is not None):
                raise TypeError(f"{name} must be a function, got {type(function).__name__}")
        given = _called if values is None else values

        def errors(batch: Any) -> tuple[torch.Tensor, None]:
            taken = _taken(given, net, _batch(batch), _whole_numbers(_batch(batch).actions))
            wanted = torch.as_tensor(targets(batch), device=taken.device).reshape(-1)
            if wanted.shape != taken.shape:
                raise ValueError(f"targets must return one number for each of {len(taken)} pairs, got {len(wanted)}")
            return wanted - taken, None

        self._given = given, (net, *others), policy
        self._begin(None, gamma=gamma, n_steps=n_steps, r_max=r_max, pairs=pairs)
        self._targets = targets
        self._net, self._errors = net, errors

    @classmethod
    def of(
        cls,
        asked: Asked,
        *,
        gamma: float | int,
        n_steps: int = 1,
        r_max: float | int | None = None,
        pairs: tuple | None = None,
    ) -> "Probe":
        """Return a probe for what was made otherwise, as `adapters.asked` makes it for an algorithm.

        Parameters
        ----------
        asked : Asked
            What there is to ask.
        gamma, n_steps, r_max, pairs
            As for the class.

        Returns
        -------
        Probe
            With no record yet.
        """
        made = cls.__new__(cls)
        made._begin(asked, gamma=gamma, n_steps=n_steps, r_max=r_max, pairs=pairs)
        return made

    def _begin(
        self,
        asked: Asked | None,
        *,
        gamma: float | int,
        n_steps: int,
        r_max: float | int | None,
        pairs: tuple | None,
    ) -> None:
        self.asked = asked
        self._targets: Callable[[Any], Any] | None = None
        self.gamma = _checks.scalar("gamma", gamma, low=0, high=1)
        self.n_steps = _checks.integer("n_steps", n_steps, low=1)
        self.r_max = None if r_max is None else _checks.scalar("r_max", r_max, low=0, low_open=True)
        self.pairs = None if pairs is None else two_arrays(pairs)
        self.extremes = np.full(4, np.nan)
        self.records: list[dict[str, Any]] = []
        self.kernels: list[np.ndarray] = []
        """The kernel of `pairs` at each record so far; one that could not be measured is nan throughout."""
        self._layers: list[dict[str, Any]] = []
        self._said: set[str] = set()
        self.pending: tuple[Any, np.ndarray, np.ndarray] | None = None
        self._before: nn.Module | None = None
        self._responds: bool | None = None  # whether `values` ask that copy
        self._start: tuple[np.ndarray, int] | None = None
        self._reference: Any = None
        self._answers: tuple[np.ndarray, np.ndarray | None] | None = None
        self._bonus = np.full(2, np.nan)
        self._told: Episodes | None = None
        self._steps = _Steps()
        self._coupling = float("nan")
        self.faulty = ""
        """Where a stored number was met that is not finite: "rewards", "observations", or nothing."""

    @property
    def history(self) -> "pandas.DataFrame":
        """Return one row for each record so far, with the columns of `COLUMNS`."""
        import pandas

        return pandas.DataFrame(self.records, columns=list(COLUMNS))

    @property
    def layers(self) -> "pandas.DataFrame":
        """Return one row for each record and hidden layer: step, layer, units, and how many of them are dormant."""
        import pandas

        return pandas.DataFrame(self._layers, columns=["step", "layer", "units", "dormant"])

    def saw(
        self,
        rewards: ArrayLike,
        terminated: ArrayLike,
        truncated: ArrayLike | None = None,
        *,
        observations: Any = None,
        actions: ArrayLike | None = None,
    ) -> None:
        """Tell of steps in order of time: of one after another as they are made, or of a data set, or a whole buffer.

        Parameters
        ----------
        rewards : ndarray of shape (n,) or (n, n_envs)
            Rewards on the scale on which the network is trained.
        terminated, truncated : ndarray of the same shape, bool
            Whether the episode ended with this step, or was cut off there; after a cut values are bootstrapped.
        observations, actions : ndarray of shape (n, ...) or (n, n_envs, ...), optional
            What was seen before each step and done: with them values are asked at the starts of episodes.

        Raises
        ------
        ValueError
            If a shape disagrees.

        Notes
        -----
        Environments of `gymnasium.vector` reset themselves, by default in a step of their own that is none of the task:
        ask for ``autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP``, so that each step is one.

        Where a reward or an observation is not finite, ``not_finite`` says so from the next record on; such rewards
        do not count. The smallest and largest rewards count for good. A call with one step adds it to the steps that
        were told one by one before, and the latest 50 000 of these count for what was earned; a call with more steps
        is about all that there is, and what was told before no longer counts for that.
        """
        rewards = np.asarray(rewards, dtype=np.float64)
        if not rewards.size:
            raise ValueError("rewards must hold at least one reward")
        if rewards.ndim not in (1, 2):
            raise ValueError(f"rewards must have the shape (n,) or (n, n_envs), got {rewards.shape}")
        last = _flags("terminated", terminated, rewards.shape)
        cut = _flags("truncated", np.zeros(rewards.shape) if truncated is None else truncated, rewards.shape) & ~last
        observations, actions = _arrays(observations), _arrays(actions)
        _one_each("observations", observations, rewards.shape)
        _one_each("actions", actions, rewards.shape)
        told = [("rewards", rewards), ("observations", _listed(observations))]
        self.faulty = self.faulty or evidence.first_not_finite(told)
        if not np.isfinite(rewards).all():
            return
        self.widen(rewards, last)
        known = observations is not None and actions is not None
        if len(rewards) == 1:
            self._told = None
            row = (part.reshape(-1) for part in (rewards, last | cut, cut))
            self._steps.add(*row, (observations, actions) if known else None, flat=rewards.ndim == 1)
            return
        self._steps = _Steps()
        pairs = None
        if known:
            flat = rewards.ndim == 1

            def pairs(rows: np.ndarray, envs: np.ndarray) -> tuple[Any, torch.Tensor]:
                where = rows if flat else (rows, envs)
                return tuple(_map(lambda part: self._tensor(part[where]), part) for part in (observations, actions))

        columns = [part.reshape(len(rewards), -1) for part in (rewards, last | cut, cut)]
        self._told = Episodes(*columns, whole=True, pairs=pairs)

    def _episodes(self) -> Episodes | None:
        """Return the steps that were told, whichever way."""
        if self._told is None and self._steps.count:
            self._told = self._steps.episodes(self._tensor)
        return self._told

    def __call__(
        self,
        batch: Any,
        *,
        step: int,
        renewals: int | None = None,
        share: float | int = 1.0,
        updates: int | None = None,
    ) -> dict[str, Any]:
        """Make a record, and return it.

        Parameters
        ----------
        batch : mapping, or object with these names as attributes
            ``observations``, ``actions``, ``next_observations``, ``rewards``, ``dones`` (1 where the episode ended and
            nothing is bootstrapped), tensors or arrays of n rows each; what a replay buffer of stable-baselines3 gives
            is such an object. Observations may be dictionaries.
        step : int
            When, in whatever is counted; larger from record to record.
        renewals : int, optional
            How often the target network was renewed so far; without a target network the number of updates. Then
            values that grow faster than that allows are "too fast".
        share : float
            Part of the target network that a renewal replaces, in (0, 1].
        updates : int, optional
            Steps of gradient descent made so far.

        Returns
        -------
        dict
            With the keys of `COLUMNS`. ``alignment`` comes with the next call, or with `after`: it is about all that
            was done to the network in between.

        Raises
        ------
        TypeError, ValueError
            If the batch lacks a part or its parts differ in length, or a number is out of range. Nothing else is
            raised.
        """
        step = _checks.integer("step", step)
        kept = _batch(batch)
        renewals = None if renewals is None else _checks.integer("renewals", renewals, low=0)
        share = _checks.scalar("share", share, low=0, high=1, low_open=True)
        updates = None if updates is None else _checks.integer("updates", updates, low=0)
        values, modules, policy = self._given
        discrete = _whole_numbers(kept.actions)
        self.asked = Asked(
            net=self._net,
            values=values,
            errors=self._errors,
            learner=[self._net],
            discrete=discrete,
            policy=policy,
            modules=modules,
            renewals=None if renewals is None else lambda: (renewals, share),
            updates=None if updates is None else lambda: updates,
        )
        self.after()
        if self.n_steps == 1 and self.r_max is None:
            with self.unharmed("the bound"):
                self.widen(_array(kept.rewards), _array(kept.dones) > 0)
        same = isinstance(batch, Mapping) or hasattr(batch, "_fields")
        self.record(
            step,
            draw=lambda: _map(self._tensor, batch if same else kept),
            known=self.known,
            told=self._episodes,
        )
        return self.records[-1]

    def after(self) -> None:
        """Say that the network was trained: the last record gets its ``alignment``.

        The first call after a record counts; a call of the probe itself is one.
        """
        with self.unharmed("the alignment"):
            self.compare()

    def widen(self, rewards: np.ndarray, last: np.ndarray) -> None:
        """Let rewards count: the smallest and largest of a step that goes on, and of one that ends its episode.

        Parameters
        ----------
        rewards : ndarray
            Any shape; if one is not finite, none counts.
        last : ndarray of the same shape, bool
            Whether the episode ended with the step.
        """
        self.extremes = wider(self.extremes, found(rewards, last))

    def known(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rewards that matter, and whether an episode ended with them.

        Returns
        -------
        rewards : ndarray of shape (k,)
            At most four: the extremes of steps that go on and of steps that end their episode. To the reward of a step
            that goes on belongs what entropy adds to it, discounted.
        ended : ndarray of shape (k,), bool

        Raises
        ------
        ValueError
            If no finite reward is known.
        """
        if self.r_max is not None:
            rewards = self.r_max * np.array([-1.0, 1.0, -1.0, 1.0])
        else:
            rewards = self.extremes.copy()
        if np.isfinite(self._bonus).all():
            rewards[:2] += self.gamma * self._bonus
        known = np.isfinite(rewards)
        if not known.any():
            raise ValueError("the rewards must be finite, none is known")
        return rewards[known], np.array([False, False, True, True])[known]

    @contextmanager
    def unharmed(self, what: str) -> Iterator[None]:
        """Turn what goes wrong into a reason: the run is worth more than what watches it.

        Parameters
        ----------
        what : str
            What is measured inside of the block.

        Yields
        ------
        None
            For the block.
        """
        try:
            yield
        except Exception as error:
            self.note(what, error)

    def note(self, what: str, error: Exception) -> None:
        """Write down why something is missing, and say it once.

        Parameters
        ----------
        what : str
            What is missing.
        error : Exception
            Why.
        """
        reason = f"{what}: {type(error).__name__}: {error}"
        if self.records:
            known = self.records[-1]["reason"]
            self.records[-1]["reason"] = f"{known}; {reason}" if known else reason
        if reason not in self._said:
            self._said.add(reason)
            when = self.records[-1]["step"] if self.records else 0
            _LOGGER.warning("step %d: not measured, %s", when, reason)

    def _attempt(self, what: str, measure: Callable[[], Any]) -> Any:
        """Return what is measured, or None and a reason."""
        with self.unharmed(what):
            return measure()
        return None

    def keep(self) -> None:
        """Keep a copy of the network as it is now, unless there is one: its values are no cause for alarm."""
        if self._before is None:
            net = self._net if self.asked is None else self.asked.net
            self._before = self._attempt("the network before training", lambda: copy.deepcopy(net).eval())

    def record(
        self,
        step: int,
        *,
        draw: Callable[[], Any],
        known: Callable[[], tuple[np.ndarray, np.ndarray]],
        told: Callable[[], Episodes | None],
    ) -> None:
        """Measure everything but the alignment.

        Parameters
        ----------
        step : int
            When.
        draw : callable
            Returns the batch, on the device of the network.
        known : callable
            Returns what `known` does.
        told : callable
            Returns stored steps, or None.
        """
        unknown = dict.fromkeys(NUMBERS, np.nan)
        words = {"alarm": False, "verdict": "unknown", "status": "undecided", "not_finite": "", "reason": ""}
        self.records.append({"step": step, **unknown, **words})
        self.pending = None
        with self.unharmed("the record"), undisturbed(self.asked.modules):
            self._measure(self.records[-1], draw, known, told)

    def _measure(self, record: dict[str, Any], draw: Callable, known: Callable, told: Callable) -> None:
        if self.pairs is not None:
            kept = self._attempt("the kernel of the pairs", self._kernel_of_pairs)
            self.kernels.append(np.full((len(self.pairs[0]),) * 2, np.nan) if kept is None else kept)
        batch = self._attempt("the batch", draw)
        if batch is None:
            return
        self.keep()
        self._attempt("what was done so far", lambda: self._counted(record))
        line, refused = None, None
        try:
            line = self._linear(batch, during=self._observing(record))
        except Exception as error:  # a network without a kernel has values, which may say what is wrong
            refused = error
        seen = self._attempt("the values", lambda: self._values(record, batch, line))
        if seen is None:
            return
        if refused is not None:
            self.note("the kernel", refused)
        q, taken, error = seen
        self._attempt("the evidence", lambda: self._evidence(record, batch, seen))
        finite = all(np.isfinite(array).all() for array in seen)
        self._attempt("the churn", lambda: self._churn(record, batch))
        self._attempt("the norms", lambda: self._weights(record))
        kernel = None if line is None else self._attempt("the kernel", lambda: _array(line.gram()))
        if kernel is None:  # one row stands for all: a kernel that is too large is too large full of nan as well
            kernel, errors = np.full((1, 1), np.nan), np.abs(error[:, None]).mean(axis=0)
        else:
            finite, errors = finite and bool(np.isfinite(kernel).all()), error
            with np.errstate(all="ignore"):  # (J^T d)^2 = d^T K d, with no pass of its own
                square = float(error @ kernel @ error)
            record["gradient_norm"] = max(square, 0.0) ** 0.5 / len(error) if np.isfinite(square) else np.nan
        rewards = self._attempt("the bound", known)
        possible = None
        if np.isfinite(self.extremes).any():
            record["reward_low"], record["reward_high"] = np.nanmin(self.extremes), np.nanmax(self.extremes)
        if rewards is not None:
            possible = self._attempt("the bound", lambda: returns.bounds(*rewards, gamma=self.gamma))
        if possible is not None:
            record.update(self._attempt("what was earned", lambda: self.earned(told(), possible)) or {})
        given = {"q": q, "td_error": errors, "gamma": self.gamma, "possible": possible}
        record.update(self._attempt("the numbers", lambda: diagnostics.summary(kernel, **given)) or {})
        verdict = "not finite"
        if finite:
            verdict = self._attempt("the verdict", lambda: self._verdict(q, batch, possible, rewards))
        record["verdict"] = verdict or "unknown"
        record["alarm"] = record["verdict"] in returns.ALARMING
        record["status"] = "undecided" if finite else "diverged"
        record["growth_rate"] = self._growth()
        self.pending = (batch, taken, error)

    def _values(
        self, record: dict[str, Any], given: Any, line: Linearization | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the values in the states of the batch, those of its pairs, and the TD errors of its pairs."""
        asked, batch = self.asked, _fresh(_batch(given))
        with torch.no_grad():
            if line is not None:
                q = line.outputs
            else:
                with self._observing(record):
                    q = _all(asked, asked.net, batch)
            taken = _array(_picked(q, batch.actions, asked.discrete))
            error, bonus = asked.errors(_fresh(given))
        record["bonus"] = 0.0
        if bonus is not None:
            bonus = _array(bonus)
            record["bonus"] = float(bonus.mean())
            self._bonus = wider(self._bonus, np.array([min(bonus.min(), 0.0), max(asked.ceiling(), 0.0)]))
        return _array(q), taken, _array(error)

    def _counted(self, record: dict[str, Any]) -> None:
        """Write down how much was done to the networks so far."""
        if self.asked.updates is not None:
            record["updates"] = float(self.asked.updates())
        if self.asked.renewals is not None:
            renewals, share = self.asked.renewals()
            record["renewed"] = renewals * share

    def _evidence(self, record: dict[str, Any], given: Any, seen: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        """Ask what points at a cause; each batch is a fresh one, in case a function writes into it."""
        asked, batch, (q, taken, error) = self.asked, _batch(given), seen
        parts = [("rewards", batch.rewards), ("observations", _listed(batch.observations))]
        parts += [("observations", _listed(batch.next_observations)), ("actions", batch.actions)]
        parts += [("weights", [p for module in asked.modules for p in module.parameters()])]
        parts += [("values", q), ("targets", error)]
        record["not_finite"] = self.faulty or evidence.first_not_finite(parts)
        if record["not_finite"]:
            return
        record["td_bias"] = float(error.mean())
        with torch.no_grad():
            if asked.discrete:
                record["greedy_gap"] = float((q.max(axis=1) - taken).mean())
            elif asked.policy is not None:
                greedy = Batch(batch.observations, asked.policy(_fresh(batch).observations), *[None] * 3)
                record["greedy_gap"] = float((_array(_all(asked, asked.net, _fresh(greedy)))[:, 0] - taken).mean())

        def first(k: int) -> torch.Tensor:
            few = _map(lambda part: part[:k], batch)
            return _all(asked, asked.net, _fresh(few))

        record["batch_dependence"] = evidence.batch_dependence(first, n=_length(batch.observations))
        precise = all(p.dtype in (torch.float32, torch.float64) for p in asked.net.parameters())
        if precise and not np.isfinite(self._coupling):  # a half rounds the nudge away, and leaves the rounding
            device = next((p.device for p in asked.net.parameters()), torch.device("cpu"))

            def values() -> torch.Tensor:
                fresh = _fresh(batch)
                return _picked(_all(asked, asked.net, fresh), fresh.actions, asked.discrete)

            def targets() -> torch.Tensor:
                with _generators(device):  # what is drawn is the same each time
                    error = asked.errors(_fresh(given))[0]
                return error + values()

            self._coupling = evidence.coupling(asked.net, values, targets)
        record["target_coupling"] = self._coupling
        if self._targets is not None:
            record["after_ends"] = self._beyond_ends(given)

    def _beyond_ends(self, given: Any) -> float:
        """Return at which share of the ends in a batch targets look beyond them; nan where it holds no certain end."""
        batch, told = _batch(given), self._episodes()
        if told is not None and told.cut.sum() > 0.5 * told.over.sum():  # whoever marks cuts as ends may be right
            return float("nan")
        ends = torch.as_tensor(batch.dones).reshape(-1) > 0
        for names, end in ((_CUTS, False), (_ENDS, True)):
            for name in names:
                mark = given.get(name) if isinstance(given, Mapping) else getattr(given, name, None)
                if mark is not None and _length(mark) == len(ends):
                    ends &= (torch.as_tensor(mark).reshape(-1) > 0).to(ends.device) == end
        if not ends.any() or len(ends) < 2:
            return float("nan")
        device = next((p.device for p in self.asked.net.parameters()), torch.device("cpu"))

        def targets(**parts: Any) -> torch.Tensor:
            with _generators(device):  # what is drawn is the same each time
                return torch.as_tensor(self._targets(_fresh(_with(given, parts))))

        return evidence.beyond_ends(
            targets,
            ends,
            exchanged=_map(lambda part: part.roll(1, 0), batch.next_observations),
            going=torch.zeros_like(torch.as_tensor(batch.dones)),
        )

    @contextmanager
    def _observing(self, record: dict[str, Any]) -> Iterator[None]:
        """Note what the hidden layers did in the pass that is made inside of the block."""
        with plasticity.observe(self.asked.net) as observed:
            yield
        self._attempt("the plasticity", lambda: self._observed(record, observed))

    def _observed(self, record: dict[str, Any], observed: plasticity.Observed) -> None:
        layers = observed.layers()
        units = sum(count for _, count, _ in layers)
        if observed.inputs is not None and np.isfinite(observed.inputs):
            record["input_size"] = observed.inputs
            sizes = observed.columns[observed.columns > 0] if observed.columns is not None else ()
            if len(sizes) >= 3:
                record["input_ratio"] = float(sizes.max() / np.median(sizes))
        while self._layers and self._layers[-1]["step"] == record["step"]:  # of a pass whose kernel was refused
            self._layers.pop()
        if units:
            record["dormant"] = sum(asleep for *_, asleep in layers) / units
            record["dormant_layer"] = max(asleep / count for _, count, asleep in layers if count)
        self._layers += [
            {"step": record["step"], "layer": name, "units": count, "dormant": asleep} for name, count, asleep in layers
        ]
        features = observed.features
        if features is not None and np.isfinite(features).all():
            record["feature_rank"] = float(plasticity.feature_rank(features))
            record["feature_norm"] = float(np.linalg.norm(features, axis=1).mean())

    def _weights(self, record: dict[str, Any]) -> None:
        parts = [p.detach() for module in self.asked.learner for p in module.parameters() if p.requires_grad]
        norm = float(nn.utils.get_total_norm(parts))
        record["weight_norm"] = norm if np.isfinite(norm) else np.nan

    def _churn(self, record: dict[str, Any], given: Any) -> None:
        """Ask the pairs of the first batch again, and say how far the answers have moved since the last time."""
        if self._reference is None:
            self._reference = _fresh(_batch(given))
        asked, batch = self.asked, _fresh(self._reference)
        with torch.no_grad():
            q = _all(asked, asked.net, batch)
            value = _array(_picked(q, batch.actions, asked.discrete))
            if asked.discrete:
                action = q.argmax(dim=1).cpu().numpy()
            else:
                action = None if asked.policy is None else _array(asked.policy(_fresh(self._reference).observations))
        before, self._answers = self._answers, (value, action)
        if before is not None and all(np.isfinite(part).all() for part in (before[0], value)):
            record["value_churn"] = plasticity.churn(before[0], value)
            if action is not None and np.isfinite(action).all() and np.isfinite(before[1]).all():
                record["action_churn"] = plasticity.churn(before[1], action)

    def kernel(self, given: Any) -> np.ndarray:
        """Return the kernel of the pairs of a batch: of the values of the actions taken.

        Parameters
        ----------
        given : batch
            On the device of the network.

        Returns
        -------
        ndarray of shape (n, n)
        """
        return _array(self._linear(given).gram())

    def _linear(self, given: Any, during: AbstractContextManager | None = None) -> Linearization:
        """Return the values of the actions taken to first order, from one pass of the batch."""
        batch = _fresh(_batch(given))
        outputs = batch.actions.long().reshape(-1) if self.asked.discrete else None
        parts = (batch.observations,) if self.asked.discrete else (batch.observations, batch.actions)
        rows, split = _join(parts, next(self.asked.learner[0].parameters()).dtype)
        _checks.memory("the kernel", len(rows), len(rows), itemsize=rows.element_size())
        net = _Rows(self.asked, split)
        return ntk.linearize(net, rows, outputs=outputs, during=during)

    def _kernel_of_pairs(self) -> np.ndarray:
        observations, actions = (_map(self._tensor, part) for part in self.pairs)
        none = torch.zeros(len(actions), 1)
        return self.kernel(Batch(observations, actions, observations, none, none))

    def earned(self, told: Episodes | None, possible: tuple[float, float]) -> dict[str, float]:
        """Return what stored episodes earned, and the values and returns at their starts.

        Parameters
        ----------
        told : Episodes
            Stored steps; None gives nothing.
        possible : tuple of two floats
            What can be earned.

        Returns
        -------
        dict
            Some of the columns of a record.
        """
        if told is None:
            return {}
        over, cut, gamma = told.over, told.cut, self.gamma
        sums, left = returns.to_go(told.rewards, over, gamma=gamma)
        found = {"earned_low": float(sums.min()), "earned_high": float(sums.max())}
        longest, same = evidence.lengths(over, cut, whole=told.whole)
        found |= {"episode_length": float(longest) if longest else np.nan, "same_length": same}
        size, tenth = np.abs(told.rewards), -(-len(told.rewards) // 10)
        if np.median(size[:tenth]) > 0:
            found["reward_change"] = float(np.median(size[-tenth:]) / np.median(size[:tenth]))
        if told.pairs is None:
            return found
        at, env = np.arange(len(over))[:, None], np.arange(over.shape[1])
        last = at + left - 1
        began = np.vstack([np.full((1, over.shape[1]), told.whole), over[:-1]])
        bounded = np.isfinite(possible[1])
        starts, envs = np.nonzero(began & over[last, env] & (bounded | ~cut[last, env]))
        starts, envs = starts[-told.latest :], envs[-told.latest :]  # of the policy as it lately was
        if not len(starts):
            return found
        length, was_cut = left[starts, envs], cut[last, env][starts, envs]
        rest = np.where(was_cut, gamma**length * possible[1], 0.0) if bounded else 0.0
        earned = float(sums[starts, envs].mean())
        plain = returns.to_go(told.rewards, over, gamma=1.0)[0]
        observations, actions = told.pairs(starts, envs)
        batch = Batch(observations, actions, observations, None, None)
        with torch.no_grad():
            q = _all(self.asked, self.asked.net, _fresh(batch))
            value = float(_array(_picked(q, actions, self.asked.discrete)).mean())
        bonus = self.records[-1]["bonus"] if self.records else 0.0
        # a bonus for each step after the first, to the last one or, after a cut, for one more
        paid = gamma * _sums(gamma, length - 1 + was_cut) * bonus if bonus else 0.0
        return found | {
            "start_q": value,
            "start_return": earned,
            "start_sum": float(plain[starts, envs].mean()),
            "overestimation": value - earned - float(np.mean(rest)) - float(np.mean(paid)),
        }

    def _at_first(self, batch: Any) -> np.ndarray | None:
        """Return what the kept network makes of the states of a batch; None if there is none, or another is asked."""
        if self._before is None:
            return None

        def ask() -> np.ndarray:
            return _array(_all(self.asked, self._before, _fresh(_batch(batch))))

        def sizes() -> list[float]:
            return [float(p.double().norm()) for p in self._before.parameters()]

        with torch.no_grad():
            before = ask()
            if self._responds is None:
                at_rest = sizes()
                with evidence.nudged(self._before, size=0.1):
                    self._responds = sizes() == at_rest or not np.array_equal(before, ask())
        if self._responds:
            return before
        self.note("the network before training", ValueError("values must ask the network that they are given"))
        return None

    def _verdict(
        self,
        q: np.ndarray,
        batch: Any,
        possible: tuple[float, float] | None,
        rewards: tuple[np.ndarray, np.ndarray] | None,
    ) -> str:
        """Return what the values look like beside what can be and what was earned."""
        record, asked = self.records[-1], self.asked
        given = {"possible": possible, "before": self._at_first(batch)}
        renewals, share = (None, 1.0) if asked.renewals is None else asked.renewals()
        if self._start is None:
            self._start = (np.array([q.min(), q.max()]), renewals)
        start, earlier = self._start
        if possible is not None and renewals is not None and earlier is not None:
            pace = {"renewals": renewals - earlier, "share": share, "gamma": self.gamma, "n_steps": self.n_steps}
            given["reached"] = returns.reach(*rewards, start=start, **pace)
        if np.isfinite(record["earned_low"]):
            low, high = record["earned_low"], record["earned_high"]
            if record["bonus"] and self.gamma < 1:
                paid = self.gamma * record["bonus"] / (1 - self.gamma)
                if abs(paid) <= max(abs(low), abs(high)):  # a bonus beyond that is no excuse: it has run away itself
                    low, high = low + min(paid, 0.0), high + max(paid, 0.0)
            given["earned"] = (low, high)
        return returns.verdict(q, **given)

    def compare(self) -> None:
        """Add to the last record how the values of its batch have changed since, once."""
        if self.pending is None:
            return
        record, (batch, before, error), self.pending = self.records[-1], self.pending, None
        with undisturbed(self.asked.modules), torch.no_grad(), np.errstate(all="ignore"):
            kept = _fresh(_batch(batch))
            q = _all(self.asked, self.asked.net, kept)
            change = _array(_picked(q, kept.actions, self.asked.discrete)) - before
        if np.isfinite(change).all() and np.isfinite(error).all():
            record["alignment"] = diagnostics.alignment(change, error)
        else:
            record.update(alarm=True, verdict="not finite", status="diverged")

    def _tensor(self, part: Any) -> torch.Tensor:
        """Return an array where the network is, in its precision if it is one of numpy's in another."""
        p = next(self.asked.net.parameters())
        given = torch.as_tensor(part, device=p.device)
        return given.to(p.dtype) if isinstance(part, np.ndarray) and given.is_floating_point() else given

    def _growth(self) -> float:
        last = [record for record in self.records[-_WINDOW:] if record["max_q"] > 0]  # nan is not
        if last[-1:] != self.records[-1:] or len({record["step"] for record in last}) < 2:
            return float("nan")
        return diagnostics.growth_rate([record["max_q"] for record in last], [record["step"] for record in last])


@dataclass(frozen=True, eq=False)
class Batch:
    """Transitions, a part at a time; dones and rewards may be None where only the pairs are meant."""

    observations: Any
    """Tensor of shape (n, ...), or a dictionary of such."""
    actions: Any
    """Tensor of shape (n, ...)."""
    next_observations: Any
    """As the observations."""
    dones: Any
    """Whether nothing is bootstrapped, n numbers."""
    rewards: Any
    """n numbers."""


_PARTS = ("observations", "actions", "next_observations", "dones", "rewards")

_CUTS = ("timeouts", "truncated", "truncations", "truncation", "time_limits", "cut")
_ENDS = ("terminated", "terminations", "terminals", "terminal", "termination")
"""Names under which batches keep what ended an episode, beside the dones."""


def _batch(given: Any) -> Batch:
    """Return the parts of a batch by their names."""
    if isinstance(given, Batch):
        return given
    get = given.get if isinstance(given, Mapping) else lambda name: getattr(given, name, None)
    parts = {name: get(name) for name in _PARTS}
    missing = [name for name, part in parts.items() if part is None]
    if missing:
        raise TypeError(f"batch must have {', '.join(_PARTS)}, this {type(given).__name__} has no {missing[0]}")
    lengths = {name: _length(part) for name, part in parts.items()}
    for name, length in lengths.items():
        if length != lengths["observations"] or not length:
            raise ValueError(f"batch must have as many {name} as observations, {lengths['observations']}, got {length}")
    return Batch(**parts)


def _length(part: Any) -> int:
    return min(map(len, part.values())) if isinstance(part, Mapping) else len(part)


def _listed(part: Any) -> list:
    """Return the arrays of a part."""
    return [] if part is None else list(part.values()) if isinstance(part, Mapping) else [part]


def _map(function: Callable[[Any], Any], part: Any) -> Any:
    """Return what a function makes of each array of a part, a dictionary of parts, or a batch."""
    if part is None:
        return None
    if isinstance(part, Mapping):
        return {name: _map(function, each) for name, each in part.items()}
    if isinstance(part, Batch):
        return Batch(*(_map(function, getattr(part, name)) for name in _PARTS))
    if isinstance(part, tuple) and hasattr(part, "_fields"):
        return type(part)(*(_map(function, each) for each in part))
    return function(part) if isinstance(part, torch.Tensor | np.ndarray) else part


def _with(batch: Any, parts: Mapping[str, Any]) -> Any:
    """Return a batch with some of its parts replaced."""
    if isinstance(batch, Mapping):
        return dict(batch) | dict(parts)
    if isinstance(batch, Batch):
        return replace(batch, **parts)
    return type(batch)(**dict(zip(batch._fields, batch, strict=True)) | dict(parts))


def _arrays(part: Any) -> Any:
    """Return what was given as lists as arrays."""
    if isinstance(part, Mapping):
        return {name: _arrays(each) for name, each in part.items()}
    return part if part is None or isinstance(part, torch.Tensor) else np.asarray(part)


def _fresh(batch: Any) -> Any:
    """Return a copy that a rectifier in place may overwrite."""
    return _map(lambda part: part.clone() if isinstance(part, torch.Tensor) else part.copy(), batch)


def _array(values: Any) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def _whole_numbers(actions: Any) -> bool:
    dtype = actions.dtype
    return not dtype.is_floating_point if isinstance(dtype, torch.dtype) else dtype.kind in "iub"


def _called(net: nn.Module, *given: Any) -> Any:
    """Return what a network makes of observations, or of observations and actions."""
    return net(*given)


def _columns(values: Any, discrete: bool) -> torch.Tensor:
    """Return the values of all actions, (n, n_actions), or of pairs, (n, 1), or say what else was returned."""
    if isinstance(values, torch.Tensor):
        if values.ndim == 1 and not discrete:
            return values[:, None]
        if values.ndim == 2 and (discrete or values.shape[1] == 1):
            return values
    got = f"shape {tuple(values.shape)}" if isinstance(values, torch.Tensor) else type(values).__name__
    want, given = ("(n, n_actions)", "") if discrete else ("(n,) or (n, 1)", ", actions")
    raise TypeError(
        f"the network must return a tensor of shape {want}, got {got}: give values=, a function "
        f"values(net, observations{given}) that takes the values from it"
    )


def _all(asked: Asked, net: nn.Module, batch: Batch) -> torch.Tensor:
    """Return the values in the states of a batch, (n, n_actions), or those of its pairs, (n, 1)."""
    parts = (batch.observations,) if asked.discrete else (batch.observations, batch.actions)
    return _columns(asked.values(net, *parts), asked.discrete)


def _picked(q: torch.Tensor, actions: torch.Tensor, discrete: bool) -> torch.Tensor:
    """Return the values of the pairs, (n,)."""
    return q.gather(1, actions.long().reshape(-1, 1))[:, 0] if discrete else q[:, 0]


def _taken(values: Callable[..., torch.Tensor], net: nn.Module, batch: Batch, discrete: bool) -> torch.Tensor:
    parts = (batch.observations,) if discrete else (batch.observations, batch.actions)
    return _picked(_columns(values(net, *_map(torch.clone, parts)), discrete), batch.actions, discrete)


def _flags(name: str, given: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """Return what ends an episode, as booleans."""
    given = np.asarray(given)
    if given.shape != shape:
        raise ValueError(f"{name} must have the shape of rewards, {shape}, got {given.shape}")
    return given.astype(bool)


def _one_each(name: str, given: Any, shape: tuple[int, ...]) -> None:
    """Refuse arrays that do not have one row for each reward."""
    for part in _listed(given):
        if part.dtype == object:
            raise ValueError(f"{name} must be an array or a dictionary of arrays, got an array of objects")
        if tuple(part.shape[: len(shape)]) != shape:
            raise ValueError(f"{name} must begin with the shape of rewards, {shape}, got {tuple(part.shape)}")


def _sums(gamma: float, count: np.ndarray) -> np.ndarray:
    """Return ``1 + gamma + ...`` with so many terms."""
    return count * 1.0 if gamma == 1 else (1 - gamma**count) / (1 - gamma)


def found(rewards: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return the smallest and largest reward of steps that go on, and of steps that end their episode.

    Parameters
    ----------
    rewards : ndarray
        Any shape.
    last : ndarray of the same shape, bool
        Whether the episode ended with the step.

    Returns
    -------
    ndarray of shape (4,)
        nan where there is none, and throughout if a reward is not finite.
    """
    if not np.isfinite(rewards).all():
        return np.full(4, np.nan)
    parts = [rewards[~last], rewards[last]]
    return np.array([end(part) if part.size else np.nan for part in parts for end in (np.min, np.max)], dtype=float)


def wider(known: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Return intervals that hold two of each kind.

    Parameters
    ----------
    known, more : ndarray of shape (2 k,)
        The lower and the upper end of each of k intervals; nan where it is not known.

    Returns
    -------
    ndarray of shape (2 k,)
    """
    pairs = np.stack([known, more]).reshape(2, -1, 2)
    return np.stack([np.fmin(*pairs[..., 0]), np.fmax(*pairs[..., 1])], axis=1).ravel()


def two_arrays(pairs: tuple) -> tuple[Any, np.ndarray]:
    """Return observations and actions as a replay buffer holds them: floats in single precision, actions in rows.

    Parameters
    ----------
    pairs : tuple of two
        Observations, an array or a dictionary of arrays, and actions.

    Returns
    -------
    observations, actions
        Arrays.

    Raises
    ------
    ValueError
        If there are not two, or not as many of one as of the other.
    """
    if len(pairs) != 2:
        raise ValueError(f"pairs must be observations and actions, got {len(pairs)} arrays")

    def single(part: Any) -> np.ndarray:
        part = np.asarray(part)
        return part.astype(np.float32) if part.dtype.kind == "f" else part

    first, actions = pairs
    observations = {k: single(v) for k, v in first.items()} if isinstance(first, Mapping) else single(first)
    actions = single(actions)
    if _length(observations) != len(actions) or not len(actions):
        raise ValueError(
            f"pairs must hold as many observations as actions, got {_length(observations)}, {len(actions)}"
        )
    return observations, actions.reshape(len(actions), -1)


def _join(parts: tuple, dtype: torch.dtype) -> tuple[torch.Tensor, Callable[[torch.Tensor], tuple]]:
    """Return the parts of pairs as one row of numbers each, and how to take it apart again."""
    shapes: list[tuple[int, torch.Size, torch.dtype]] = []
    columns: list[torch.Tensor] = []

    def lay(part: torch.Tensor) -> int:
        flat = part.reshape(len(part), -1)
        first = sum(column.shape[1] for column in columns)
        columns.append(flat.to(dtype))
        shapes.append((first, part.shape[1:], part.dtype))
        return len(shapes) - 1

    places = _map(lay, parts) if not isinstance(parts, tuple) else tuple(_map(lay, part) for part in parts)
    widths = [column.shape[1] for column in columns]

    def split(rows: torch.Tensor) -> tuple:
        def take(place: int) -> torch.Tensor:
            first, shape, kind = shapes[place]
            part = rows[:, first : first + widths[place]].reshape(len(rows), *shape)
            if kind in (torch.int16, torch.int32, torch.int64, torch.bool):  # what is counted must be whole
                return part.to(kind)
            # an image is what the network knows, and numbers where gradients pass or where it is none
            whole = part if kind.is_floating_point or rows.requires_grad else part.to(kind)
            return whole if torch.equal(whole.to(part.dtype), part) else part

        def walk(place: Any) -> Any:
            return {name: walk(each) for name, each in place.items()} if isinstance(place, Mapping) else take(place)

        return tuple(walk(place) for place in places)

    return torch.cat(columns, dim=1), split


class _Rows(nn.Module):
    """The values of pairs as a network of rows of numbers, which is what a kernel is taken of."""

    def __init__(self, asked: Asked, split: Callable[[torch.Tensor], tuple]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(asked.learner)
        self.value, self.split = (lambda *given: asked.values(asked.net, *given)), split
        self.discrete = asked.discrete

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the values, (n, n_actions) or (n, 1)."""
        return _columns(self.value(*self.split(rows)), self.discrete)


@contextmanager
def undisturbed(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Put every module in evaluation mode; modes, buffers and the shared generators are put back afterwards.

    Parameters
    ----------
    modules : sequence of torch.nn.Module
        All that is passed inside of the block, on one device.

    Yields
    ------
    None
        For the block.
    """
    device = next((p.device for module in modules for p in module.parameters()), torch.device("cpu"))
    with ExitStack() as stack:
        stack.enter_context(_generators(device))
        for module in modules:
            stack.enter_context(_passes.put_back(module))
        for module in modules:
            module.eval()
        yield


@contextmanager
def _generators(device: torch.device) -> Iterator[None]:
    """Put back the generators that all share: those of torch, numpy and Python, and that of an accelerator."""
    module = torch.get_device_module(device.type) if device.type in ("cuda", "xpu", "mps") else None
    there = module is not None and module.is_available()
    where = () if device.type == "mps" else (device,)
    drawn = np.random.get_state(), random.getstate(), module.get_rng_state(*where) if there else None  # noqa: NPY002
    try:
        with torch.random.fork_rng([]):
            yield
    finally:
        np.random.set_state(drawn[0])  # noqa: NPY002
        random.setstate(drawn[1])
        if there:
            module.set_rng_state(drawn[2], *where)
