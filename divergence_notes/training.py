"""The loop that every agent shares: act, remember, update, and now and then evaluate.

An `Agent` is whatever acts and learns from a batch; an environment is given by its name, as an object, or as a function
that makes one; a callback is told of every step; what comes back is a `Run`. The memory is `replay`; agents and their
settings are `dqn` and `preqn`; `watching` is a callback that looks into their values.
"""

import copy
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from divergence_notes import _checks, _files
from divergence_notes._extras import needs

with needs("preqn"):
    import gymnasium
    import torch

    from divergence_notes import _saved
    from divergence_notes.replay import Batch, ReplayBuffer, Transition

if TYPE_CHECKING:
    import pandas

Ending = Literal["finished", "diverged", "faulty", "stopped"]
"""How a training run can end. "faulty": the environment gave something that is no observation or no reward; "stopped":
a callback asked for it. Each of them is a result, never an exception. Ctrl-C and what else is raised stop a run as
well: then the exception has the `Run` so far as its attribute ``run``. What becomes of the iterates of an operator is a
`dynamics.Status`."""

# the name of a registered environment, an environment, or a function that makes a new one at each call
Environment = str | gymnasium.Env | Callable[[], gymnasium.Env]

CHECKPOINT_EVERY = 300.0
"""Seconds from one checkpoint to the next; an evaluation or the writing of a file may come on top."""

Act = Callable[[np.ndarray], Any]  # a policy: maps an observation to an action

LONG = 100_000
"""Steps of one episode of an evaluation after which a warning asks whether the environment ever ends one."""

_LOGGER = logging.getLogger("divergence_notes.training")


@runtime_checkable
class Agent(Protocol):
    """What `learn` asks of an agent; no base class, any object with these two methods is one."""

    def act(self, obs: np.ndarray, *, explore: bool = False) -> Any:
        """Return the action at an observation.

        Parameters
        ----------
        obs : ndarray of shape (d,)
            What the environment shows.
        explore : bool
            Whether it may try something else than what it holds for best.

        Returns
        -------
        object
            An action of the environment.
        """

    def update(self, batch: Batch) -> dict[str, float]:
        """Learn from a batch.

        Parameters
        ----------
        batch : Batch
            Transitions drawn from the memory.

        Returns
        -------
        dict of str to float
            Metrics of this update; one called ``max_...`` is watched: beyond a bound it ends the run.
        """


class Fault(ValueError):
    """What an environment gave is no observation or no reward; the message says what it was."""


_LARGEST = float(np.finfo(np.float32).max)
"""Rewards and observations are kept in float32."""


def _heard(value: Any) -> float:
    """Return a reward as a float."""
    try:
        if np.ndim(value) != 0:
            raise TypeError("not one number")
        reward = float(value)
    except OverflowError:  # a whole number can be larger than any float
        reward = np.inf
    except (TypeError, ValueError) as error:
        raise Fault(f"the reward must be a number, got {value!r}") from error
    if not np.isfinite(reward):
        raise Fault(f"the reward must be finite, got {reward}")
    if abs(reward) > _LARGEST:
        raise Fault(f"the reward must fit into float32, got {reward:.3g}")
    return reward


def _seen(value: Any, space: gymnasium.Space) -> np.ndarray:
    """Return a copy of an observation, if it is one of the space's shape and finite."""
    try:
        given = _checks.array("the observation", value, shape=space.shape)
    except (TypeError, ValueError) as error:
        raise Fault(str(error)) from error
    if np.abs(given).max(initial=0.0) > _LARGEST:
        raise Fault(f"the observation must fit into float32, it has {np.abs(given).max():.3g}")
    return np.array(value)  # the environment may write the next one into the same array


def transitions(env: gymnasium.Env, act: Act, *, seed: int) -> Iterator[Transition]:
    """Walk through an environment for ever, one episode after another.

    Parameters
    ----------
    env : gymnasium.Env
        The environment; it and its action space are seeded once, at the start.
    act : callable
        Maps an observation to an action.
    seed : int
        Of the environment and of its action space.

    Returns
    -------
    iterator of Transition
        An episode that terminated or was truncated is followed by the next one. Only `terminated` is recorded: where
        a time limit cut the episode, an agent bootstraps from `next_obs` as anywhere else.

    Raises
    ------
    Fault
        If the environment gives an observation of another shape, or a reward that is not a number; a ValueError.
    """
    return _Walk(env, act, seed=seed)


class _Walk:
    """What `transitions` returns: an iterator that can say where it is, and start from there.

    An environment cannot be asked for its state, but an episode can be played again: from the state that the
    environment's generator had when it began, by the same actions.
    """

    def __init__(self, env: gymnasium.Env, act: Act, *, seed: int, remember: bool = False):
        self._env, self._act, self._seed, self._remember = env, act, seed, remember
        self._begun, self._obs = False, None  # without an observation an episode must begin
        self.over = False
        self._rng: dict | None = None  # of the first episode, which begins from the seed
        self._actions: list = []

    def __iter__(self) -> Iterator[Transition]:
        return self

    def __next__(self) -> Transition:
        if self._obs is None:
            self._reset()
        obs, action = self._obs, self._act(self._obs)
        if self._remember:
            self._actions.append(np.array(action))
        done = np.array(action) if isinstance(action, np.ndarray) else action  # it may clip its argument in place
        next_obs, reward, terminated, truncated, _ = self._env.step(action)
        next_obs = _seen(next_obs, self._env.observation_space)
        self.over = bool(terminated or truncated)
        self._obs = None if self.over else next_obs
        return Transition(obs, done, _heard(reward), next_obs, bool(terminated))

    def _reset(self) -> None:
        self._actions = []
        if self._begun:
            self._rng = self._env.unwrapped.np_random.bit_generator.state if self._remember else None
            self._obs = self._env.reset()[0]
        else:
            self._env.action_space.seed(self._seed)
            self._obs = self._env.reset(seed=self._seed)[0]
        self._begun = True
        self._obs = _seen(self._obs, self._env.observation_space)

    def state_dict(self) -> dict[str, Any]:
        """Return where the walk is, after a step."""
        return {
            "rng": self._rng,
            "space": self._env.action_space.np_random.bit_generator.state,
            "actions": torch.from_numpy(np.stack(self._actions)),
            "obs": None if self._obs is None else torch.from_numpy(np.array(self._obs)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Play the episode again in which the walk was."""
        obs, over = self._env.reset(seed=self._seed)[0], False
        if state["rng"] is not None:
            self._env.unwrapped.np_random.bit_generator.state = state["rng"]
            obs = self._env.reset()[0]
        self._actions = list(state["actions"].numpy())
        for action in self._actions:
            obs, _, terminated, truncated, _ = self._env.step(action.copy() if action.ndim else action.item())
            over = terminated or truncated
        kept = state["obs"]
        if over != (kept is None) or not (over or np.array_equal(np.asarray(obs), kept.numpy())):
            raise ValueError("env must play an episode again, given its generator and the actions; it plays another")
        self._begun, self._rng, self._obs = True, state["rng"], None if over else np.array(obs)
        self._env.action_space.np_random.bit_generator.state = state["space"]


def maker(env: Environment) -> Callable[[], gymnasium.Env]:
    """Return a function that makes a new environment at each call.

    Parameters
    ----------
    env : str, gymnasium.Env, or callable
        The name of a registered environment; an environment, which is copied as it is now, and each call copies the
        copy; or a function that makes one.

    Returns
    -------
    callable
        Takes nothing and returns an environment.

    Raises
    ------
    TypeError
        If `env` is none of these, an environment that cannot be copied, or, when called, makes something else.
    """
    if isinstance(env, str):
        return partial(gymnasium.make, env)
    if isinstance(env, gymnasium.Env):
        try:
            return partial(copy.deepcopy, copy.deepcopy(env))
        except Exception as error:  # an environment may hold anything: a window, a lock, a socket
            raise TypeError(f"env must be one that can be copied, or a function that makes one: {error}") from error
    if not callable(env):
        raise TypeError(f"env must be a name, an environment, or a function that makes one, got {env!r}")

    def make() -> gymnasium.Env:
        made = env()
        if not isinstance(made, gymnasium.Env):
            raise TypeError(f"env must make a gymnasium.Env, it makes {made!r}")
        return made

    return make


def evaluate(env: Environment, act: Act, *, episodes: int, seed: int) -> np.ndarray:
    """Play whole episodes in a fresh environment.

    Parameters
    ----------
    env : str, gymnasium.Env, or callable
        As in `maker`: one that is given as an object is not touched.
    act : callable
        Maps an observation to an action.
    episodes : int
        How many episodes, at least 1.
    seed : int
        Of the environment: the same seed and the same policy give the same returns.

    Returns
    -------
    ndarray of shape (episodes,)
        Sum of the rewards of each episode, not discounted.

    Raises
    ------
    ValueError
        If `episodes` is not positive.
    Fault
        If the environment gives an observation of another shape, or a reward that is not a number; a ValueError.
    """
    returns = np.zeros(_checks.integer("episodes", episodes, low=1))
    with maker(env)() as played:
        space = played.observation_space
        obs = _seen(played.reset(seed=seed)[0], space)
        for k in range(len(returns)):
            over, length = False, 0
            while not over:
                obs, reward, terminated, truncated, _ = played.step(act(obs))
                obs, over, length = _seen(obs, space), terminated or truncated, length + 1
                returns[k] += _heard(reward)
                if length == LONG:
                    asked = "does it end? gymnasium.wrappers.TimeLimit cuts it"
                    _LOGGER.warning("an evaluation has been in one episode for %d steps: %s", LONG, asked)
            obs = _seen(played.reset()[0], space)
    return returns


def spaces(env: Environment) -> tuple[gymnasium.Space, gymnasium.Space]:
    """Return the spaces of an environment.

    Parameters
    ----------
    env : str, gymnasium.Env, or callable
        As in `maker`.

    Returns
    -------
    tuple of gymnasium.Space
        The space of observations and that of actions.
    """
    if isinstance(env, gymnasium.Env):
        return env.observation_space, env.action_space
    with maker(env)() as made:
        return made.observation_space, made.action_space


def seeds(rng: np.random.Generator) -> tuple[int, int]:
    """Return the seeds of a run, as `learn` draws them from its own.

    Parameters
    ----------
    rng : numpy.random.Generator
        Seeded with the seed of the run.

    Returns
    -------
    tuple of int
        The seed of the environment, and that of its evaluations.
    """
    env_seed, eval_seed = (int(seed) for seed in rng.integers(2**31, size=2))
    return env_seed, eval_seed


@dataclass(frozen=True, eq=False)
class Run:
    """A trained agent and how its training went."""

    agent: Agent
    """The agent as it was after the last update, or at its best evaluation: as was asked."""
    curve: "pandas.DataFrame"
    """One row for each evaluation: `step`, mean `return`, and the metrics of the agent since the row before."""
    ending: Ending
    """How it ended."""
    reason: str = ""
    """Where the run is "faulty": what the environment gave; where it was "stopped": by what."""


@dataclass(frozen=True, eq=False)
class Moment:
    """What a callback is told after each step, when its update and its evaluation are made."""

    step: int
    """How many steps the run has made, from 1."""
    agent: Agent
    """The agent that learns."""
    env: gymnasium.Env
    """The environment in which it learns. A callback may read it, and must neither step nor reset it."""
    memory: ReplayBuffer
    """What is remembered; draws from it with a generator of one's own change nothing in the run."""
    transition: Transition
    """This step."""
    over: bool
    """Whether the episode ended with it, by whatever cause."""
    metrics: dict[str, float]
    """Of the update of this step, empty where none was made."""
    row: dict[str, Any] | None
    """The new row of the curve, where this step was followed by an evaluation."""


Callback = Callable[[Moment], Any]  # told of each step; the run ends where it returns False


def learn(
    agent: Agent,
    env: Environment,
    *,
    steps: int,
    seed: int,
    warmup: int,
    batch_size: int,
    capacity: int,
    update_every: int = 1,
    eval_every: int,
    eval_episodes: int,
    keep: str = "last",
    others: Mapping[str, Callable[[Any, np.ndarray], Any]] | None = None,
    bound: float | int = 1e6,
    progress: bool = False,
    callback: Callback | Sequence[Callback] = (),
    checkpoint: str | Path | None = None,
    checkpoint_every: float | int = CHECKPOINT_EVERY,
    log: str | Path | None = None,
) -> Run:
    """Let an agent act, remember, and learn from what it remembers.

    Parameters
    ----------
    agent : Agent
        Anything with ``act(obs, *, explore=False)`` and ``update(batch)``.
    env : str, gymnasium.Env, or callable
        The name of a registered environment, or a function that makes a new one at each call: one is made to learn in,
        and one for each evaluation. Or an environment: the agent learns in it, it is left open, and each evaluation is
        played in a copy of it as it is now; what it has become in one run, it is at the start of the next.
    steps : int
        Environment steps to take.
    seed : int
        Of the environment, of the batches and of the evaluations. The agent brings its own.
    warmup : int
        So many steps at the start are random and without updates; at most `capacity`.
    batch_size, capacity : int
        Of the replay buffer.
    update_every : int
        Environment steps from one update to the next.
    eval_every, eval_episodes : int
        After so many steps the agent plays so many episodes without exploring; the same initial states each time.
    keep : {"last", "best"}
        Which agent to return: the one given, after its last update, or a copy of it from the evaluation with the
        highest mean return, the latest of equals. Judge a chosen one on other episodes: it was chosen on these.
    others : mapping of str to callable, optional
        More ways to act, evaluated beside the agent's own in columns of these names: each maps the agent and an
        observation to an action.
    bound : float
        A metric called ``max_...`` beyond this, or any metric that is not finite, ends the run as diverged.
    progress : bool
        Whether to show a progress bar.
    callback : callable, or sequence of callables
        Each is told of every step, by a `Moment`; where one returns False, the run ends as "stopped". Nothing of a
        callback stands in a checkpoint.
    checkpoint : path, optional
        A file for all that the run is at a moment: agent, memory, generators, the episode and the curve. Where it is
        there already, the run goes on from it, and on one thread ends like one that was never interrupted, to the last
        bit. It is written aside and moved, and read as data: no code in it runs. The agent must have `state_dict` and
        `load_state_dict`, and the environment must draw from its `np_random` alone and begin each episode afresh:
        the one that was interrupted is played again, and a difference is an error. The file stays when the run ends,
        and is then that of its last step, if the run is "finished" or "stopped": with larger `steps` it goes on.
    checkpoint_every : float
        Seconds from one writing of it to the next, at least.
    log : path, optional
        A CSV file with the curve so far, written anew at each row, aside and then moved: whatever ends the process,
        the table is whole. One that is there is replaced.

    Returns
    -------
    Run
        In the curve, a metric called ``max_...`` is the largest of all updates since the row before, any other their
        mean; before the first update they are missing. A run that is not "finished" ends with a row without a return,
        unless its last step was followed by an evaluation.

    Raises
    ------
    TypeError
        If `agent` has no such methods, none for a checkpoint where one is asked for, a state that no file can hold as
        data, or as `maker`.
    ValueError
        If an argument is out of range, `env` makes the same environment again or one that learns how to scale what it
        gives, the agent's metrics are no numbers, or the checkpoint is of another run.
    BaseException
        Whatever the environment, the agent or a callback raises, and KeyboardInterrupt: as it is, with the `Run` so far
        as its attribute ``run``. Its agent is as the exception left it.
    """
    if not isinstance(agent, Agent):
        raise TypeError(f"agent must have act(obs, *, explore=False) and update(batch), got {agent!r}")
    steps = _checks.integer("steps", steps, low=1)
    seed = _checks.integer("seed", seed, low=0)
    capacity = _checks.integer("capacity", capacity, low=1)
    warmup = _checks.integer("warmup", warmup, low=1, high=capacity)
    batch_size = _checks.integer("batch_size", batch_size, low=1)
    update_every = _checks.integer("update_every", update_every, low=1)
    eval_every = _checks.integer("eval_every", eval_every, low=1)
    eval_episodes = _checks.integer("eval_episodes", eval_episodes, low=1)
    keep = _checks.choice("keep", keep, ("last", "best"))
    bound = _checks.scalar("bound", bound, low=0, low_open=True)
    checkpoint_every = _checks.scalar("checkpoint_every", checkpoint_every, low=0)
    callbacks = [callback] if callable(callback) else list(callback)
    for each in callbacks:
        if not callable(each):
            raise TypeError(f"callback must be a function, or several, got {each!r}")
    if checkpoint is not None:
        _refuse_stateless(agent)
    asked = {
        "env": env if isinstance(env, str) else None,
        "seed": seed,
        "warmup": warmup,
        "batch_size": batch_size,
        "capacity": capacity,
        "update_every": update_every,
        "eval_every": eval_every,
        "eval_episodes": eval_episodes,
        "keep": keep,
        "others": sorted(others or {}),
        "bound": bound,
    }
    rng = np.random.default_rng(seed)
    env_seed, eval_seed = seeds(rng)
    make = maker(env)
    lent = isinstance(env, gymnasium.Env)
    learned = env if lent else make()
    _refuse_scales_that_move(learned)
    if not lent and not isinstance(env, str):
        other = make()
        if other.unwrapped is learned.unwrapped:  # an evaluation would break off the episode that is being learned from
            raise ValueError(f"env must make a new environment at each call, it gives the same one again: {other}")
        other.close()
    buffer = ReplayBuffer(learned.observation_space, learned.action_space, capacity=capacity)

    def act(obs):
        return learned.action_space.sample() if len(buffer) < warmup else agent.act(obs, explore=True)

    walk = _Walk(learned, act, seed=env_seed, remember=checkpoint is not None)
    curve, recent = [], []
    ending, reason = "finished", ""
    kept, best = agent, -np.inf
    step = done = 0
    if checkpoint is not None and Path(checkpoint).exists():
        saved = _read(Path(checkpoint), asked)
        if saved["step"] > steps:
            raise ValueError(f"steps must be at least {saved['step']}, so many {checkpoint} has made, got {steps}")
        for name, part in (("agent", agent), ("memory", buffer), ("walk", walk)):
            part.load_state_dict(saved[name])
        rng.bit_generator.state = saved["rng"]
        done, curve, recent, best = (saved[name] for name in ("step", "curve", "recent", "best"))
        step = done
        if saved["kept"] is not None:
            kept = copy.deepcopy(agent)
            kept.load_state_dict(saved["kept"])
    written, last_written = time.monotonic(), done

    def save() -> None:
        parts = {"agent": agent.state_dict(), "memory": buffer.state_dict(), "walk": walk.state_dict()}
        rest = {"rng": rng.bit_generator.state, "step": step, "curve": curve, "recent": recent, "best": best}
        whole = parts | rest | {"asked": asked, "kept": None if kept is agent else kept.state_dict()}
        _saved.write(checkpoint, whole)

    def so_far(ending: Ending, reason: str) -> Run:
        if ending != "finished" and not (curve and curve[-1]["step"] == step):
            curve.append({"step": step, "return": np.nan} | _summary(recent))
        return Run(kept, _table(curve), ending, reason)

    _write_log(log, curve)
    bar = _counted(done + 1, steps, progress)
    try:
        try:
            for step in bar:
                transition = next(walk)
                buffer.add(*transition)
                metrics, row = {}, None
                if step >= warmup and step % update_every == 0:
                    metrics = agent.update(buffer.sample(batch_size, rng=rng))
                    recent.append(metrics)
                    if _exploded(metrics, bound):
                        ending = "diverged"
                if ending == "finished" and (step % eval_every == 0 or step == steps):
                    played = {"episodes": eval_episodes, "seed": eval_seed}
                    mean = float(evaluate(make, agent.act, **played).mean())
                    ways = {name: partial(way, agent) for name, way in (others or {}).items()}
                    beside = {name: float(evaluate(make, way, **played).mean()) for name, way in ways.items()}
                    row = {"step": step, "return": mean} | beside | _summary(recent)
                    curve.append(row)
                    recent = []
                    if keep == "best" and mean >= best:
                        kept, best = copy.deepcopy(agent), mean
                    _write_log(log, curve)
                if callbacks:
                    told = dict(metrics), None if row is None else dict(row)
                    moment = Moment(step, agent, learned, buffer, transition, walk.over, *told)
                    stops = [each for each in callbacks if each(moment) is False]
                    if stops and ending == "finished":
                        ending, reason = "stopped", f"step {step}: {stops[0]!r} returned False"
                if ending != "finished":
                    break
                if checkpoint is not None and time.monotonic() - written >= checkpoint_every:
                    save()
                    written, last_written = time.monotonic(), step
        except Fault as fault:
            ending, reason = "faulty", f"step {step}: {fault}"
        if checkpoint is not None and ending in ("finished", "stopped") and last_written < step:
            save()
        found = so_far(ending, reason)
        _write_log(log, curve)
        return found
    except BaseException as error:
        with suppress(Exception):  # what goes wrong in here must not hide what went wrong there
            error.run = so_far("stopped", f"step {step}: {type(error).__name__}: {error}")
            error.add_note(f"step {step} of the run; its curve so far is the attribute `run.curve` of this exception")
            _write_log(log, curve)
        raise
    finally:
        if progress:
            bar.close()
        if not lent:
            learned.close()


def _refuse_stateless(agent: Any) -> None:
    """Raise where no checkpoint of an agent could be written, or read again."""
    if not (hasattr(agent, "state_dict") and hasattr(agent, "load_state_dict")):
        raise TypeError(f"agent must have state_dict() and load_state_dict(state) for a checkpoint, got {agent!r}")
    why = _saved.readable({"agent": agent.state_dict()})
    if why:
        raise TypeError(f"agent.state_dict() must hold tensors, numbers and text for a checkpoint: {why}")


def _refuse_scales_that_move(env: gymnasium.Env) -> None:
    """Raise where an environment learns its scale from what it has seen: in an evaluation it would be another one."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, gymnasium.wrappers.NormalizeObservation | gymnasium.wrappers.NormalizeReward):
            name = type(env).__name__
            raise ValueError(
                f"env must give the same numbers in learning and in an evaluation, {name} learns its scale in each "
                f"anew: divide by fixed numbers, with gymnasium.wrappers.{name.replace('Normalize', 'Transform')}"
            )
        env = env.env


def _table(curve: list[dict[str, Any]]) -> "pandas.DataFrame":
    import pandas

    return pandas.DataFrame(curve)


def _write_log(path: str | Path | None, curve: list[dict[str, Any]]) -> None:
    """Write the curve so far, if there is a file for it."""
    if path is None:
        return
    table = _table(curve)
    text = table.to_csv(index=False, lineterminator="\n") if len(table) else "step,return\n"
    _files.write(Path(path), lambda file: file.write(text.encode()))


def _read(checkpoint: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint holds, if it is one of the run that is asked for."""
    keys = ("agent", "memory", "walk", "rng", "step", "curve", "recent", "best", "asked", "kept")
    saved = _saved.read("checkpoint", checkpoint, "a file that `learn` wrote", keys=keys)
    for name, value in asked.items():
        if saved["asked"][name] != value:
            raise ValueError(f"checkpoint must have {name} {value!r}, {checkpoint} has {saved['asked'][name]!r}")
    return saved


def _counted(first: int, last: int, progress: bool):
    if progress:
        from tqdm.auto import trange

        return trange(first, last + 1, initial=first - 1, total=last, unit="step")
    return range(first, last + 1)


def _exploded(metrics: dict[str, float], bound: float) -> bool:
    return any(not np.isfinite(x) or (name.startswith("max_") and abs(x) > bound) for name, x in metrics.items())


def _summary(metrics: list[dict[str, float]]) -> dict[str, float]:
    """Reduce the metrics of many updates to one row: the largest of each ``max_...``, the mean of any other."""
    names = dict.fromkeys(name for entry in metrics for name in entry)  # an update that diverged may know fewer
    columns = {name: np.array([entry[name] for entry in metrics if name in entry]) for name in names}
    return {name: float(x.max() if name.startswith("max_") else x.mean()) for name, x in columns.items()}
