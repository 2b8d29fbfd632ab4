"""A callback for stable-baselines3 that watches the kernel and the values of a Q-network while it trains.

Here is what talks to the algorithm: when to look, at which transitions, without changing the run. The numbers
themselves are `diagnostics`, the kernel is `ntk`, what can be earned and what was is `returns`, and the pictures of a
history are `plotting`.
"""

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from divergence_notes import _checks, diagnostics, returns
from divergence_notes._extras import needs

with needs("monitor"):
    import torch
    from gymnasium import spaces
    from stable_baselines3 import DQN, TD3
    from stable_baselines3.common.buffers import ReplayBuffer
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.type_aliases import ReplayBufferSamples
    from torch import nn

    from divergence_notes import _passes, ntk

if TYPE_CHECKING:
    import pandas

COLUMNS = [
    "step",
    "row_ratio",
    "margin",
    "certified",
    "effective_rank",
    "max_q",
    "low_q",
    "high_q",
    "possible_low",
    "possible_high",
    "bound",
    "bound_ratio",
    "earned_low",
    "earned_high",
    "start_q",
    "start_return",
    "overestimation",
    "td_error",
    "growth_rate",
    "alignment",
    "alarm",
    "verdict",
    "status",
    "reason",
]
"""Columns of the history; all numbers but the step stand in the logger too, as ``divergence/<column>``."""

_NUMBERS = [name for name in COLUMNS if name not in ("step", "verdict", "status", "reason")]

_LOGGER = logging.getLogger(__name__)

_WINDOW = 5
"""Records that the growth rate looks back on."""

_RECENT = 50_000
"""Stored steps, the latest ones, whose returns are summed up at a record: that takes a few milliseconds."""


class DivergenceCallback(BaseCallback):
    """Record the row ratio, the margins, the alignment and the size of Q of a DQN, TD3 or DDPG while it trains.

    Parameters
    ----------
    every : int
        Steps in the environment from one record to the next. The first is made before the first training phase, the
        others before the first training phase after each multiple of `every`.
    batch_size : int
        Transitions that are drawn from the replay buffer for each record.
    batch : ReplayBufferSamples, optional
        A fixed batch to look at instead, as ``model.replay_buffer.sample(n)`` gives it; with ``VecNormalize`` it keeps
        the normalisation that it was sampled with.
    pairs : tuple of two arrays, optional
        Observations (n, ...) and actions (n, ...) of pairs that stay the same; their kernel at each record is kept, in
        `kernels`.
    r_max : float, optional
        Largest absolute reward of the task, > 0, on the scale on which the network is trained. By default the smallest
        and the largest rewards count that the replay buffer has held so far, of steps that went on and of steps that
        ended their episode.
    seed : int
        For the batches: the callback has a generator of its own.
    verbose : int
        1 prints a line when the first alarm of a run goes off.

    Raises
    ------
    TypeError
        If a parameter is of the wrong kind; at the start of training, if the algorithm is not DQN, TD3 or DDPG, if
        observations are dictionaries, or if a critic learns the features of its observations.
    ValueError
        If a number is out of range.

    From the first step on nothing is raised.

    Notes
    -----
    A record has the numbers of `diagnostics.summary` for the batch: the network's own kernel (a DQN: of the actions
    taken; TD3 and DDPG: of the first critic), ``max_q`` over all actions in the states of the batch (DQN) or over its
    pairs, and the TD errors against the target networks that the algorithm itself uses. TD3's target is the smaller
    one of its two critics, without the noise that smooths the target action. ``growth_rate`` is the slope of log max|Q|
    per step in the environment over the last 5 records. ``alignment`` is the cosine of the real change of these
    values, in the training phase that follows, with these TD errors; it is nan if the run was cut off in between.

    ``possible_low`` and ``possible_high`` are what a policy can earn at the least and at the most, see
    `returns.bounds`, with the rewards and ends that were met so far. An episode that a time limit cut counts as one
    that goes on, if the algorithm takes it so. ``earned_low`` and ``earned_high`` are what the latest stored episodes
    did earn, see `returns.to_go`: the extremes over all their steps, and over an episode that has not ended yet as
    far as it is stored. ``start_q`` is the mean value of the first pairs of the latest `batch_size` episodes that are
    stored as a whole, ``start_return`` the mean of what these earned, ``overestimation`` the first minus the second,
    and minus the most that an episode which a time limit cut can have earned later. These returns are those of the
    policies that made them, with their exploration: the right values of a policy that has become better since lie
    above them. All this is about 50 000 stored steps, the latest ones, in units of the rewards that the network is
    trained on.

    ``verdict`` is a word of `returns.VERDICTS`, ``alarm`` says whether it is one of `returns.ALARMING`: a number is
    not finite (then ``status`` is "diverged" and the number nan, otherwise it is "undecided"), no policy can earn such
    values, or values have grown more than the rewards can have added since the run began. The last counts how often
    the target network was renewed, see `returns.reach`, and holds without a discount as well. The values that the
    network had on the same pairs before training are no cause for alarm. No alarm does not mean that the values are
    right.

    The alarm is silent where wrong values are possible ones: rewards are possible in every step that were met once, at
    a place where nothing ends, and a discount near 1 makes much possible. Then the verdict is "unearned" if no stored
    episode earned half of it, and ``overestimation`` says by how much. It is silent while only a few states are wrong
    by a little, or are not in the batch. It is silent for values that were wrong before the run began, as those of a
    loaded network may be: "inherited". It can be wrong about a run that is well where a network generalises to
    rewards that are still to come, and knows them from an earlier run; and where an episode was cut off by a new call
    of ``learn``, since that leaves no mark in the buffer: ``start_return`` then takes it for one with the next. Where
    rewards are normalised and the scale has changed, the widest of all scales so far counts.

    Positive margins are no certificate, see `diagnostics.row_margins`.

    What cannot be measured is nan, and ``reason`` says why, in the words of the error: a kernel that `ntk.gram`
    refuses, a buffer that cannot be read. The other numbers of the record stand. Each reason is said once a run, by
    ``logging.getLogger("divergence_notes.monitor")``; the run goes on.

    The logger is written out at each record, so that TensorBoard and CSV hold every one.

    The run is not changed: no random number of numpy or torch is used up, gradients, training flags, parameters and
    buffers stay as they are. A copy of the network is kept as it was before training. The kernel of a network with
    convolutions needs batch_size * n_parameters numbers.

    A record of 128 transitions costs 8 ms of CPU time for the default DQN and 21 ms for the default TD3. That is 1.5 %
    of the time of 1000 steps of a DQN in CartPole, 0.6 s, and 0.2 % of those of a TD3 in Pendulum, 14 s. Where a
    million steps are stored, their rewards and returns take 6 ms more.
    """

    def __init__(
        self,
        *,
        every: int = 1000,
        batch_size: int = 128,
        batch: tuple | None = None,
        pairs: tuple | None = None,
        r_max: float | int | None = None,
        seed: int = 0,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        self.every = _checks.integer("every", every, low=1)
        self.batch_size = _checks.integer("batch_size", batch_size, low=1)
        if batch is not None and not isinstance(batch, ReplayBufferSamples):
            raise TypeError(f"batch must be a ReplayBufferSamples, got {type(batch).__name__}")
        self.batch = batch
        self.pairs = None if pairs is None else _two_arrays(pairs)
        self.r_max = None if r_max is None else _checks.scalar("r_max", r_max, low=0, low_open=True)
        self.seed = _checks.integer("seed", seed, low=0)
        self._restart()

    @property
    def history(self) -> "pandas.DataFrame":
        """Return one row for each record so far, with the columns of `COLUMNS`; a new run begins a new history."""
        import pandas

        return pandas.DataFrame(self._records, columns=COLUMNS)

    @property
    def kernels(self) -> list[np.ndarray]:
        """Return the kernel of `pairs` at each record so far; one that could not be measured is nan throughout."""
        return list(self._kernels)

    def _restart(self) -> None:
        self._kernels: list[np.ndarray] = []
        self._rng = np.random.default_rng(self.seed)
        self._records: list[dict[str, Any]] = []
        self._pending: tuple[ReplayBufferSamples, np.ndarray, np.ndarray] | None = None
        self._logged: dict[str, Any] | None = None
        self._said: set[str] = set()
        self._due = 0
        self._looked = 0
        self._raw = np.full(4, np.nan)
        self._rewards = np.full(4, np.nan)
        self._before: nn.Module | None = None
        self._start: tuple[np.ndarray, int] | None = None

    def _init_callback(self) -> None:
        if not isinstance(self.model, (DQN, TD3)):  # DDPG is a TD3
            raise TypeError(f"model must be a DQN, TD3 or DDPG, got {type(self.model).__name__}")
        if isinstance(self.model.observation_space, spaces.Dict):
            raise TypeError("model must have arrays as observations, its observation space is a Dict")
        if isinstance(self.model, TD3):
            critic = self.model.critic
            if not critic.share_features_extractor and any(True for _ in critic.features_extractor.parameters()):
                raise TypeError("model must not learn the features of its observations together with its critics")

    def _on_training_start(self) -> None:
        self._pending = None
        if self._records and self.num_timesteps < self._records[-1]["step"]:
            self._restart()  # the steps are counted from zero again

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        with self._unharmed("the record"):
            model = self.model
            if self.r_max is None and model.num_timesteps - self._looked >= _half(model.replay_buffer):
                self._look_at_rewards()  # before they leave the buffer
            trains = model.num_timesteps > model.learning_starts and model.gradient_steps != 0
            if not trains or model.num_timesteps < self._due:
                return
            self._due = (model.num_timesteps // self.every + 1) * self.every
            with _evaluating(model.policy):
                self._record()

    def _on_rollout_start(self) -> None:
        with self._unharmed("the record"):
            self._finish()

    def _on_training_end(self) -> None:
        with self._unharmed("the record"):
            self._finish()

    @contextmanager
    def _unharmed(self, what: str) -> Iterator[None]:
        """Turn what goes wrong into a reason: the run is worth more than what watches it."""
        try:
            yield
        except Exception as error:
            self._note(what, error)

    def _note(self, what: str, error: Exception) -> None:
        """Write down why something is missing, and say it once a run."""
        reason = f"{what}: {type(error).__name__}: {error}"
        if self._records:
            known = self._records[-1]["reason"]
            self._records[-1]["reason"] = f"{known}; {reason}" if known else reason
        if reason not in self._said:
            self._said.add(reason)
            _LOGGER.warning("step %d: not measured, %s", self.num_timesteps, reason)

    def _attempt(self, what: str, measure: Callable[[], Any]) -> Any:
        """Return what is measured, or None and a reason."""
        with self._unharmed(what):
            return measure()
        return None

    def _record(self) -> None:
        """Measure everything but the alignment."""
        unknown = dict.fromkeys(_NUMBERS, np.nan)
        words = {"alarm": False, "verdict": "unknown", "status": "undecided", "reason": ""}
        self._records.append({"step": self.model.num_timesteps, **unknown, **words})
        record = self._records[-1]
        if self.pairs is not None:
            kept = self._attempt("the kernel of the pairs", self._kept)
            self._kernels.append(np.full((len(self.pairs[0]),) * 2, np.nan) if kept is None else kept)
        batch = self._attempt("the batch", self._batch)
        if batch is None:
            return
        if self._before is None:
            self._before = self._attempt("the network before training", lambda: copy.deepcopy(_network(self.model)))
        seen = self._attempt("the values", lambda: _values(self.model, batch))
        if seen is None:
            return
        q, taken, error = seen
        finite = all(np.isfinite(array).all() for array in seen)
        kernel = self._attempt("the kernel", lambda: _kernel(self.model, batch))
        if kernel is None:  # one row stands for all: a kernel that is too large is too large full of nan as well
            kernel, errors = np.full((1, 1), np.nan), np.abs(error[:, None]).mean(axis=0)
        else:
            finite, errors = finite and bool(np.isfinite(kernel).all()), error
        possible = self._attempt("the bound", self._possible)
        if possible is not None:
            record.update(self._attempt("what was earned", lambda: self._earned(possible)) or {})
        given = {"q": q, "td_error": errors, "gamma": self.model.gamma, "possible": possible}
        record.update(self._attempt("the numbers", lambda: diagnostics.summary(kernel, **given)) or {})
        verdict = self._attempt("the verdict", lambda: self._verdict(q, batch, possible)) if finite else "not finite"
        record["verdict"] = verdict or "unknown"
        record["alarm"] = record["verdict"] in returns.ALARMING
        record["status"] = "undecided" if finite else "diverged"
        record["growth_rate"] = self._growth()
        self._pending = (batch, taken, error)

    def _finish(self) -> None:
        """Measure what the training phase did to the values, and log the record."""
        record = self._records[-1] if self._records else None
        if record is None or record is self._logged:
            return
        self._logged = record
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._attempt("the alignment", lambda: self._compare(record, *pending))
        for name in _NUMBERS:
            self.logger.record(f"divergence/{name}", float(record[name]))
        self.logger.record("time/total_timesteps", record["step"], exclude="tensorboard")
        self.logger.dump(record["step"])
        if self.verbose and record["alarm"] and not any(other["alarm"] for other in self._records[:-1]):
            ends = f"{record['possible_low']:.3g} to {record['possible_high']:.3g}"
            print(f"step {record['step']}: {record['verdict']}, max|Q| {record['max_q']:.3g}, possible {ends}")

    def _compare(
        self, record: dict[str, Any], batch: ReplayBufferSamples, before: np.ndarray, error: np.ndarray
    ) -> None:
        """Add to a record how the values have changed since."""
        with _evaluating(self.model.policy), np.errstate(all="ignore"):  # infinity minus infinity is said below
            change = _values(self.model, batch)[1] - before
        if np.isfinite(change).all() and np.isfinite(error).all():
            record["alignment"] = diagnostics.alignment(change, error)
        else:
            record.update(alarm=True, verdict="not finite", status="diverged")

    def _growth(self) -> float:
        last = [record for record in self._records[-_WINDOW:] if record["max_q"] > 0]  # nan is not
        if len(last) < 2 or last[-1] is not self._records[-1]:
            return float("nan")
        return diagnostics.growth_rate([record["max_q"] for record in last], [record["step"] for record in last])

    def _batch(self) -> ReplayBufferSamples:
        """Return the batch to look at, on the device of the model."""
        batch = self._sample() if self.batch is None else self.batch
        return ReplayBufferSamples(*(part if part is None else part.to(self.model.device) for part in batch))

    def _kept(self) -> np.ndarray:
        """Return the kernel of the pairs that stay the same."""
        observations, actions = (torch.as_tensor(part, device=self.model.device) for part in self.pairs)
        none = torch.zeros(len(observations), 1)
        return _kernel(self.model, ReplayBufferSamples(observations, actions, observations, none, none))

    def _sample(self) -> ReplayBufferSamples:
        """Draw a batch the way the algorithm does, with other random numbers."""
        buffer = self.model.replay_buffer
        if buffer.full and buffer.optimize_memory_usage:  # the entry at `pos` has lost its next observation
            rows = (self._rng.integers(1, buffer.buffer_size, self.batch_size) + buffer.pos) % buffer.buffer_size
        else:
            rows = self._rng.integers(buffer.size(), size=self.batch_size)
        state = np.random.get_state()  # noqa: NPY002 (the buffer draws environments from numpy's global generator)
        try:
            np.random.seed(self._rng.integers(2**32))  # noqa: NPY002
            return buffer._get_samples(rows, env=self.model.get_vec_normalize_env())
        finally:
            np.random.set_state(state)  # noqa: NPY002

    def _possible(self) -> tuple[float, float]:
        """Return what can be earned, on the scale that the network is trained on."""
        if self.r_max is not None:
            self._rewards = self.r_max * np.array([-1.0, 1.0, -1.0, 1.0])
        else:
            self._look_at_rewards()
            buffer = self.model.replay_buffer
            largest = np.abs(buffer.rewards[: buffer.size()]).max()
            if not np.isfinite(largest):
                raise ValueError(f"the rewards must be finite, the largest is {largest}")
        return returns.bounds(*self._extremes(), gamma=self.model.gamma)

    def _extremes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rewards that matter, and whether an episode ended with them."""
        known = np.isfinite(self._rewards)
        return self._rewards[known], np.array([False, False, True, True])[known]

    def _look_at_rewards(self) -> None:
        """Widen the smallest and largest reward of a step that goes on, and of one that ends its episode."""
        buffer = self.model.replay_buffer
        rewards = buffer.rewards[: buffer.size()]
        self._looked = self.num_timesteps
        if not np.isfinite(rewards).all():
            return
        last = (buffer.dones > buffer.timeouts)[: buffer.size()]
        parts = [rewards[~last], rewards[last]]
        found = [end(part) if part.size else np.nan for part in parts for end in (np.min, np.max)]
        wider = (np.fmin, np.fmax, np.fmin, np.fmax)
        self._raw = np.array([widen(*pair) for widen, *pair in zip(wider, self._raw, found, strict=True)])
        # a reward that was scaled otherwise when it was met may still be in the values
        scaled = buffer._normalize_reward(self._raw, self.model.get_vec_normalize_env()).astype(np.float64)
        self._rewards = np.array([widen(*pair) for widen, *pair in zip(wider, self._rewards, scaled, strict=True)])

    def _earned(self, possible: tuple[float, float]) -> dict[str, float]:
        """Return what stored episodes earned, and the values and returns at their starts."""
        model, buffer = self.model, self.model.replay_buffer
        n, size = buffer.size(), buffer.buffer_size
        kept = min(n, max(_RECENT // buffer.n_envs, 1))
        rows = (buffer.pos - kept + np.arange(kept)) % size  # in order of time
        rewards = buffer._normalize_reward(buffer.rewards[rows], model.get_vec_normalize_env())
        over, cut = buffer.dones[rows] > 0, buffer.timeouts[rows] > 0
        sums, left = returns.to_go(rewards, over, gamma=model.gamma)
        found = {"earned_low": float(sums.min()), "earned_high": float(sums.max())}
        at, env = np.arange(kept)[:, None], np.arange(buffer.n_envs)
        last = at + left - 1
        began = np.vstack([np.full((1, buffer.n_envs), not buffer.full and kept == n), over[:-1]])
        bounded = np.isfinite(possible[1])
        starts, envs = np.nonzero(began & over[last, env] & (bounded | ~cut[last, env]))
        starts, envs = starts[-self.batch_size :], envs[-self.batch_size :]  # of the policy as it lately was
        if not len(starts):
            return found
        rest = np.where(cut[last, env], model.gamma**left * possible[1], 0.0)[starts, envs] if bounded else 0.0
        earned = float(sums[starts, envs].mean())
        where = rows[starts], envs
        observations = buffer._normalize_obs(buffer.observations[where], model.get_vec_normalize_env())
        seen = (buffer.to_torch(part).to(model.device) for part in (observations, buffer.actions[where]))
        value = float(_array(_pairs(_network(model), *seen)[1]).mean())
        return found | {
            "start_q": value,
            "start_return": earned,
            "overestimation": value - earned - float(np.mean(rest)),
        }

    def _verdict(self, q: np.ndarray, batch: ReplayBufferSamples, possible: tuple[float, float] | None) -> str:
        """Return what the values look like beside what can be and what was earned."""
        record = self._records[-1]
        before = None if self._before is None else _array(_pairs(self._before, *_copied(batch)[:2])[0])
        renewals, share = _renewals(self.model)
        if self._start is None:
            self._start = (np.array([q.min(), q.max()]), renewals)
        given = {"possible": possible, "before": before}
        if possible is not None:
            start, earlier = self._start
            pace = {"renewals": renewals - earlier, "share": share, "gamma": self.model.gamma}
            pace["n_steps"] = getattr(self.model.replay_buffer, "n_steps", 1)
            given["reached"] = returns.reach(*self._extremes(), start=start, **pace)
        if np.isfinite(record["earned_low"]):
            given["earned"] = (record["earned_low"], record["earned_high"])
        return returns.verdict(q, **given)


def _two_arrays(pairs: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Return observations and actions as a replay buffer holds them: floats in single precision, actions in rows."""
    if len(pairs) != 2:
        raise ValueError(f"pairs must be observations and actions, got {len(pairs)} arrays")
    observations, actions = (np.asarray(part) for part in pairs)
    if len(observations) != len(actions) or not len(actions):
        raise ValueError(f"pairs must hold as many observations as actions, got {len(observations)}, {len(actions)}")
    single = [part.astype(np.float32) if part.dtype.kind == "f" else part for part in (observations, actions)]
    return single[0], single[1].reshape(len(actions), -1)


@contextmanager
def _evaluating(policy: nn.Module) -> Iterator[None]:
    """Put every module in evaluation mode; modes, buffers and torch's generators are put back afterwards."""
    device = next(policy.parameters()).device
    forked = torch.random.fork_rng([device] if device.type == "cuda" and torch.cuda.is_available() else [])
    with forked, _passes.put_back(policy):
        policy.eval()
        yield


def _half(buffer: ReplayBuffer) -> int:
    """Return the number of steps that fill half of a buffer."""
    return max(buffer.buffer_size * buffer.n_envs // 2, 1)


def _network(model: DQN | TD3) -> nn.Module:
    """Return what holds the values of a model."""
    return model.q_net if isinstance(model, DQN) else model.critic


def _renewals(model: DQN | TD3) -> tuple[int, float]:
    """Return how often the target network was renewed so far, and the share of it that is replaced each time."""
    if isinstance(model, DQN):
        renewals = model.num_timesteps // model.n_envs // max(model.target_update_interval // model.n_envs, 1)
    else:
        renewals = model._n_updates // model.policy_delay
    return (renewals, float(model.tau)) if model.tau else (0, 1.0)


def _pairs(net: nn.Module, observations: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the values in these states that a network has, and those of the pairs, (n, 1)."""
    with torch.no_grad():
        if hasattr(net, "q1_forward"):
            q = taken = net.q1_forward(observations, actions)
        else:
            q = net(observations)  # (n, n_actions)
            taken = q.gather(1, actions.long())
    return q, taken


def _values(model: DQN | TD3, batch: ReplayBufferSamples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the values in the states of the batch, those of its pairs, and the TD errors of its pairs."""
    batch = _copied(batch)
    discount = (1 - batch.dones) * (model.gamma if batch.discounts is None else batch.discounts)  # (n, 1)
    q, taken = _pairs(_network(model), batch.observations, batch.actions)
    with torch.no_grad():
        if isinstance(model, DQN):
            after = model.q_net_target(batch.next_observations).max(dim=1, keepdim=True).values
        else:
            action = model.actor_target(batch.next_observations)
            both = torch.cat(model.critic_target(batch.next_observations, action), dim=1)
            after = both.min(dim=1, keepdim=True).values
        error = batch.rewards + discount * after - taken
    return _array(q), _array(taken)[:, 0], _array(error)[:, 0]


def _kernel(model: DQN | TD3, batch: ReplayBufferSamples) -> np.ndarray:
    """Return the kernel of the batch's pairs: of the output of each action taken, or of the first critic."""
    batch = _copied(batch)
    if isinstance(model, TD3):
        with torch.no_grad():
            features = model.critic.extract_features(batch.observations, model.critic.features_extractor)
        return _array(ntk.gram(model.critic.q_networks[0], torch.cat([features, batch.actions], dim=1)))
    taken = batch.actions.long()[:, 0]
    net = model.q_net
    if any(True for _ in net.features_extractor.parameters()):  # it learns too
        return _array(ntk.gram(net, batch.observations.float(), outputs=taken))
    with torch.no_grad():
        features = net.extract_features(batch.observations, net.features_extractor)
    return _array(ntk.gram(net.q_net, features, outputs=taken))


def _copied(batch: ReplayBufferSamples) -> ReplayBufferSamples:
    """Return a batch that a rectifier in place may overwrite."""
    return ReplayBufferSamples(*(part if part is None else part.clone() for part in batch))


def _array(values: torch.Tensor) -> np.ndarray:
    return values.detach().cpu().double().numpy()
