"""A callback for stable-baselines3 that watches the kernel and the values of a Q-network while it trains.

Here is what talks to the library: when to look, at which transitions, without changing the run. What an algorithm is
asked says `adapters`, the record itself is made by `probe`, which is also for a loop of one's own; what can be earned
and what was is `returns`, the pictures of a history are `plotting`, and the page about a run is `report`.
``python -m divergence_notes.monitor run.csv`` makes that page from a log.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from divergence_notes import _checks
from divergence_notes._extras import needs

with needs("monitor"):
    import torch
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.buffers import ReplayBuffer
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.logger import TensorBoardOutputFormat
    from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples
    from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

    from divergence_notes import adapters, dqn, evidence, preqn, probe, watching
    from divergence_notes.probe import Episodes, Probe

if TYPE_CHECKING:
    import pandas

COLUMNS = list(probe.COLUMNS)
"""Columns of the history, as `probe.COLUMNS` explains them; all numbers but the step stand in the logger too, as
``divergence/<column>``."""

_RECENT = 50_000
"""Stored steps, the latest ones, whose returns are summed up at a record: that takes a few milliseconds."""

_RELABELLED = 1024
"""Transitions that are drawn for their rewards where a buffer makes up rewards that were never paid."""


def watch(model: BaseAlgorithm | dqn.DQN | preqn.PreQN, **settings: Any) -> "DivergenceCallback | watching.Watch":
    """Return a callback that watches a model, or refuse at once, before any step is made.

    Parameters
    ----------
    model : BaseAlgorithm, or DQN or PreQN of this package
        One of `adapters.NAMES`, of stable-baselines3 or sb3-contrib; or an agent of ours.
    **settings
        Those of `DivergenceCallback`; for an agent of ours those of `watching.Watch`, which writes no `report`.

    Returns
    -------
    DivergenceCallback or Watch
        For ``model.learn(steps, callback=watch(model))``; for ``training.learn(agent, ..., callback=watch(agent))``.

    Raises
    ------
    TypeError, ValueError
        What `DivergenceCallback` refuses, or `watching.Watch` and `watching.probe`.
    """
    if isinstance(model, dqn.DQN | preqn.PreQN):
        callback = watching.Watch(**settings)
        watching.probe(model, **{k: v for k, v in settings.items() if k not in ("every", "batch_size", "seed")})
        return callback
    callback = DivergenceCallback(**settings)
    callback.init_callback(model)
    return callback


class DivergenceCallback(BaseCallback):
    """Record the kernel, the size of Q beside what can be earned, and what is left to learn, while a run trains.

    Parameters
    ----------
    every : int, optional
        Steps in the environment from one record to the next. The first is made before the first training phase, the
        others before the first training phase after each multiple of `every`, and one as soon as a stored reward or
        observation is not finite. By default they lie close together at first, as `probe.due` says: 25, 50, 100, 200,
        400 and 800 steps after the first one, and at each multiple of 1000. Inside of a callback that calls others at
        events, such as ``EveryNTimesteps`` or ``EvalCallback``, it does not count: there is a record at each event
        after the first training phase.
    batch_size : int
        Transitions that are drawn from the replay buffer for each record.
    batch : ReplayBufferSamples or DictReplayBufferSamples, optional
        A fixed batch to look at instead, as ``model.replay_buffer.sample(n)`` gives it; with ``VecNormalize`` it keeps
        the normalisation that it was sampled with.
    pairs : tuple of two, optional
        Observations (n, ...), an array or a dictionary of arrays, and actions (n, ...) of pairs that stay the same;
        their kernel at each record is kept, in `kernels`.
    r_max : float, optional
        Largest absolute reward of the task, > 0, on the scale on which the network is trained. By default the smallest
        and the largest rewards count that the replay buffer has held so far, of steps that went on and of steps that
        ended their episode.
    seed : int
        For the batches: the callback has a generator of its own.
    report : path, optional
        Where to write the page of `report` about the run: at the first record with each kind of alarm, since a run that
        goes wrong may not come to its end, and at the end of training.
    verbose : int
        1 prints a line when the first alarm of a run goes off.

    Raises
    ------
    TypeError
        If a parameter is of the wrong kind; at the start of training, if the algorithm is none of `adapters.NAMES`.
    ValueError
        If a number is out of range, or `report` lies in a folder that is not there.

    From the first step on nothing is raised.

    Notes
    -----
    What the columns are says `probe.COLUMNS`; what values, errors and kernel of an algorithm are, `adapters.asked`.
    ``max_q`` is over all actions in the states of the batch where actions are chosen among a few, or else over its
    pairs. ``alignment`` is the cosine of the real change of these values, in the training phase that follows, with the
    TD errors; it is nan if the run was cut off in between. Inside of an event it is about everything up to the next
    one, and the last record has none.

    ``possible_low`` and ``possible_high`` are what a policy can earn at the least and at the most, see
    `returns.bounds`. That is a theorem about rewards and ends that are those met so far or lie between them; that
    there will be no others is a guess, unless `r_max` is given. An episode that a time limit cut counts as one
    that goes on, if the algorithm takes it so. Where goals are made up afterwards (``HerReplayBuffer``), the rewards of
    a sample of such transitions count too. ``earned_low`` and ``earned_high`` are what the latest stored episodes
    did earn, see `returns.to_go`: the extremes over all their steps, and over an episode that has not ended yet as
    far as it is stored. ``start_q`` is the mean value of the first pairs of the latest `batch_size` episodes that are
    stored as a whole, ``start_return`` the mean of what these earned, ``overestimation`` the first minus the second,
    and minus the most that an episode which a time limit cut can have earned later. These returns are those of the
    policies that made them, with their exploration: the right values of a policy that has become better since lie
    above them. All this is about 50 000 stored steps, the latest ones, in units of the rewards that the network is
    trained on.

    SAC, TQC and CrossQ add to the reward of each step but the first what entropy is paid, ``bonus``: their values are
    no returns of rewards. So what can be earned grows: on top by the most entropy that a policy can have at the
    temperature of the records so far, below by the smallest bonus in their batches, which is an estimate. From
    ``overestimation`` the bonus of the steps of an episode is taken off as if each had earned that of the batch, an
    estimate too; and a stored return that is short of a value by no more than that is no reason for "unearned".

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
    loaded network may be: "inherited". A sound run may pass through values that nothing can earn, as a young CrossQ
    does, see `adapters.asked`: an alarm that stops is about that time only. It can be wrong about a run that is well
    where a network generalises to rewards that are still to come, and knows them from an earlier run; and where an
    episode was cut off by a new call of ``learn``, since that leaves no mark in the buffer: ``start_return`` then takes
    it for one with the next. Where rewards are normalised and the scale has changed, the widest of all scales so far
    counts.

    Positive margins are no certificate, see `diagnostics.row_margins`.

    What cannot be measured is nan, and ``reason`` says why, in the words of the error: a kernel that `ntk.gram`
    refuses, a buffer that cannot be read. The other numbers of the record stand. Each reason is said once a run, by
    ``logging.getLogger("divergence_notes.monitor")``; the run goes on.

    The logger is written out at each record, so that TensorBoard and CSV hold every one, the verdict as a word. When
    the page of `report` is due, its text goes to TensorBoard too, as ``divergence/report``, and the page to a run of
    Weights & Biases, if one is going on.

    The run is not changed: no random number of numpy or torch is used up, gradients, training flags, parameters and
    buffers stay as they are. A copy of the network is kept as it was before training. The kernel of a network that uses
    a parameter otherwise than by its own layer, see `ntk.gram`, needs batch_size * n_parameters numbers.

    A record of 128 transitions took 5 ms of CPU time for the default DQN, 12 ms for the default TD3 and 10 ms for SAC,
    with one thread; for the default policy of DQN on images 0.4 s and 190 MB, the first record twice that time. Where a
    million steps are stored, their rewards and returns take some milliseconds more.
    """

    def __init__(
        self,
        *,
        every: int | None = None,
        batch_size: int = 128,
        batch: tuple | None = None,
        pairs: tuple | None = None,
        r_max: float | int | None = None,
        seed: int = 0,
        report: str | Path | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        self.every = None if every is None else _checks.integer("every", every, low=1)
        self.batch_size = _checks.integer("batch_size", batch_size, low=1)
        if batch is not None and not isinstance(batch, ReplayBufferSamples | DictReplayBufferSamples):
            raise TypeError(f"batch must be a ReplayBufferSamples, got {type(batch).__name__}")
        self.batch = batch
        self.pairs = None if pairs is None else probe.two_arrays(pairs)
        self.r_max = None if r_max is None else _checks.scalar("r_max", r_max, low=0, low_open=True)
        self.seed = _checks.integer("seed", seed, low=0)
        self.report = None if report is None else Path(report).absolute()  # a run may change its folder
        if self.report is not None and not self.report.parent.is_dir():
            raise ValueError(f"report must lie in a folder that is there, got {report}")
        self._probe: Probe | None = None
        self._settings: dict[str, Any] = {}
        self._rolled = False

    @property
    def history(self) -> "pandas.DataFrame":
        """Return one row for each record so far, with the columns of `COLUMNS`; a new run begins a new history."""
        if self._probe is None:
            import pandas

            return pandas.DataFrame([], columns=COLUMNS)
        return self._probe.history

    @property
    def settings(self) -> dict[str, Any]:
        """Return what `adapters.settings` said at the first record of the run; empty before that."""
        return dict(self._settings)

    @property
    def layers(self) -> "pandas.DataFrame | None":
        """Return units and dormant units of each hidden layer at each record so far; None before the run began."""
        return None if self._probe is None else self._probe.layers

    @property
    def kernels(self) -> list[np.ndarray]:
        """Return the kernel of `pairs` at each record so far; one that could not be measured is nan throughout."""
        return [] if self._probe is None else list(self._probe.kernels)

    def _restart(self) -> None:
        asked = adapters.asked(self.model)
        self._probe = Probe.of(asked, gamma=self.model.gamma, r_max=self.r_max, pairs=self.pairs)
        self._rng = np.random.default_rng(self.seed)
        self._settings = {}
        self._logged: dict[str, Any] | None = None
        self._told_of: set[str] = set()
        self._due, self._first = 0, None
        self._looked = self._scanned = 0
        self._raw = np.full(4, np.nan)

    def _init_callback(self) -> None:
        asked = adapters.asked(self.model)  # raises what is raised
        self._rolled = False
        if self._probe is None or type(self.model) is not self._kind:
            self._kind = type(self.model)
            self._restart()
        self._probe.asked = asked

    def _on_training_start(self) -> None:
        self._rolled = False
        self._probe.pending = None
        self._begin_again()
        self._probe.keep()

    def _begin_again(self) -> None:
        """Begin a new history where steps are counted from zero again."""
        if self._probe.records and self.num_timesteps < self._probe.records[-1]["step"]:
            self._restart()

    def _on_step(self) -> bool:
        if not self._rolled:  # no one calls at the ends of rollouts: it is one of those who are called at events
            with self._probe.unharmed("the record"):
                self._begin_again()
                self._probe.after()
                if self._trains() and self.model.replay_buffer.size():
                    self._record()
                    self._log()
        return True

    def _on_rollout_end(self) -> None:
        with self._probe.unharmed("the record"):
            model = self.model
            if self.r_max is None and model.num_timesteps - self._looked >= _half(model.replay_buffer):
                self._look_at_rewards()  # before they leave the buffer
            known = self._probe.faulty
            self._scan()
            # what is not finite ends many a run within an update: there may be no later record
            now = self._probe.faulty and not known and model.replay_buffer.size()
            if not now and (not self._trains() or model.num_timesteps < self._due):
                return
            self._first = model.num_timesteps if self._first is None else self._first
            self._due = probe.due(model.num_timesteps, first=self._first, every=self.every)
            self._record()

    def _on_rollout_start(self) -> None:
        self._rolled = True
        self._finish()

    def _on_training_end(self) -> None:
        self._finish()
        self._tell()

    def _trains(self) -> bool:
        return self.model.num_timesteps > self.model.learning_starts and self.model.gradient_steps != 0

    def _finish(self) -> None:
        """Measure what the training phase did to the values, and log the record."""
        with self._probe.unharmed("the record"):
            record = self._probe.records[-1] if self._probe.records else None
            if record is not None and record is not self._logged:
                self._probe.after()
                self._log()

    def _record(self) -> None:
        """Measure everything but the alignment."""
        with self._probe.unharmed("the buffer"):
            self._scan()
            self._settings = self._settings or adapters.settings(self.model)
        self._probe.gamma, self._probe.n_steps = self.model.gamma, getattr(self.model.replay_buffer, "n_steps", 1)
        self._probe.record(self.model.num_timesteps, draw=self._batch, known=self._known, told=self._told)

    def _scan(self) -> None:
        """Look through the steps that were stored since the last look for what is not finite."""
        buffer, model = self.model.replay_buffer, self.model
        new = min(-(-(model.num_timesteps - self._scanned) // buffer.n_envs), buffer.size())
        self._scanned = model.num_timesteps
        rows = (buffer.pos - new + np.arange(new)) % buffer.buffer_size
        parts = [("rewards", buffer.rewards[rows])]
        for seen in (buffer.observations, getattr(buffer, "next_observations", None)):
            of_each = seen.values() if isinstance(seen, dict) else [] if seen is None else [seen]
            parts.append(("observations", [part[rows] for part in of_each]))
        self._probe.faulty = self._probe.faulty or evidence.first_not_finite(parts)

    def _log(self) -> None:
        record = self._logged = self._probe.records[-1]
        for name in probe.NUMBERS:
            self.logger.record(f"divergence/{name}", float(record[name]))
        self.logger.record("divergence/verdict", record["verdict"])
        self.logger.record("time/total_timesteps", record["step"], exclude="tensorboard")
        try:
            self.logger.dump(record["step"])
        except Exception:  # what a writer of somebody else's refuses must not wait for the run's own dump
            for kept in (self.logger.name_to_value, self.logger.name_to_excluded):
                for name in [name for name in kept if name.startswith("divergence/")]:
                    del kept[name]
            raise
        if self.verbose and record["alarm"] and not any(other["alarm"] for other in self._probe.records[:-1]):
            ends = f"{record['possible_low']:.3g} to {record['possible_high']:.3g}"
            print(f"step {record['step']}: {record['verdict']}, max|Q| {record['max_q']:.3g}, possible {ends}")
        if record["alarm"] and record["verdict"] not in self._told_of:
            self._told_of.add(record["verdict"])
            self._tell()

    def _tell(self) -> None:
        """Say what is wrong with the run so far, wherever that is asked for."""
        boards = [part for part in self.logger.output_formats if isinstance(part, TensorBoardOutputFormat)]
        wandb = sys.modules.get("wandb")  # of somebody who logs there
        online = getattr(wandb, "run", None)
        if not self._probe.records or (self.report is None and not boards and online is None):
            return
        with self._probe.unharmed("the report"):
            from divergence_notes import report

            name = f"{type(self.model).__name__}, {self.num_timesteps} steps"
            told = report.summary(self.history, self.settings)
            if self.report is not None or online is not None:  # a board gets the text, and no pictures are drawn for it
                page = report.html(self.history, title=name, settings=self.settings)
            if self.report is not None:
                report.put(self.report, page)
            for board in boards:
                board.write({"divergence/report": report.text(told)}, {"divergence/report": ()}, self.num_timesteps)
            if online is not None:
                online.summary["divergence/verdict"] = told.headline
                online.log({"divergence/report": wandb.Html(page)})

    def _batch(self) -> tuple:
        """Return the batch to look at, on the device of the model."""
        batch = self._sample(self.batch_size) if self.batch is None else self.batch
        return type(batch)(*(_moved(part, self.model.device) for part in batch))

    def _sample(self, n: int) -> tuple:
        """Draw a batch the way the algorithm does, with other random numbers."""
        state = np.random.get_state()  # noqa: NPY002 (the buffer draws from numpy's global generator)
        try:
            np.random.seed(self._rng.integers(2**32))  # noqa: NPY002
            return self.model.replay_buffer.sample(n, env=self.model.get_vec_normalize_env())
        finally:
            np.random.set_state(state)  # noqa: NPY002

    def _known(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rewards that matter, on the scale that the network is trained on, and which ended an episode."""
        if self.r_max is None:
            self._look_at_rewards()
            buffer = self.model.replay_buffer
            largest = np.abs(buffer.rewards[: buffer.size()]).max()
            if not np.isfinite(largest):
                raise ValueError(f"the rewards must be finite, the largest is {largest}")
        return self._probe.known()

    def _look_at_rewards(self) -> None:
        """Widen the smallest and largest reward of a step that goes on, and of one that ends its episode."""
        buffer = self.model.replay_buffer
        self._looked = self.num_timesteps
        size = buffer.size()
        last = (buffer.dones > buffer.timeouts)[:size]
        self._raw = probe.wider(self._raw, probe.found(buffer.rewards[:size], last))
        # a reward that was scaled otherwise when it was met may still be in the values
        scaled = buffer._normalize_reward(self._raw, self.model.get_vec_normalize_env()).astype(np.float64)
        self._probe.extremes = probe.wider(self._probe.extremes, scaled)
        if isinstance(buffer, HerReplayBuffer) and (buffer.ep_length > 0).any():
            drawn = self._sample(_RELABELLED)
            rewards, last = (part.cpu().double().numpy() for part in (drawn.rewards, drawn.dones))
            self._probe.widen(rewards, last > 0)

    def _told(self) -> Episodes | None:
        """Return the latest stored steps in order of time, or None where there is none."""
        model, buffer = self.model, self.model.replay_buffer
        n, size = buffer.size(), buffer.buffer_size
        if not n:
            return None
        kept = min(n, max(_RECENT // buffer.n_envs, 1))
        rows = (buffer.pos - kept + np.arange(kept)) % size
        env = model.get_vec_normalize_env()

        def pairs(starts: np.ndarray, envs: np.ndarray) -> tuple[Any, torch.Tensor]:
            where = rows[starts], envs
            seen = buffer.observations
            seen = {name: part[where] for name, part in seen.items()} if isinstance(seen, dict) else seen[where]
            seen = buffer._normalize_obs(seen, env)
            seen = {k: buffer.to_torch(v) for k, v in seen.items()} if isinstance(seen, dict) else buffer.to_torch(seen)
            return _moved(seen, model.device), buffer.to_torch(buffer.actions[where]).to(model.device)

        return Episodes(
            rewards=buffer._normalize_reward(buffer.rewards[rows], env),
            over=buffer.dones[rows] > 0,
            cut=buffer.timeouts[rows] > 0,
            whole=not buffer.full and kept == n,
            pairs=pairs,
            latest=self.batch_size,
        )


def _half(buffer: ReplayBuffer) -> int:
    """Return the number of steps that fill half of a buffer."""
    return max(buffer.buffer_size * buffer.n_envs // 2, 1)


def _moved(part: Any, device: torch.device) -> Any:
    if isinstance(part, dict):
        return {name: each.to(device) for name, each in part.items()}
    return part if part is None else part.to(device)


if __name__ == "__main__":
    from divergence_notes import report

    sys.exit(report.main())
