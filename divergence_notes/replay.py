"""The memory of an agent, and the loop with its environment that every agent shares."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pandas as pd
import torch

from divergence_notes import _checks

STATUSES = ("finished", "diverged", "faulty")
"""How a training run can end; "faulty" says that the environment gave something that is no observation or no reward.
Each of them is a result, never an exception."""

Act = Callable[[np.ndarray], Any]


class Transition(NamedTuple):
    """One step of an environment."""

    obs: np.ndarray
    """What the agent saw, shape (d,)."""
    action: Any
    """What it did: an integer, or an array of shape (m,)."""
    reward: float
    """What it was paid."""
    next_obs: np.ndarray
    """What it saw next, shape (d,); the last observation of the old episode where one ended."""
    terminated: bool
    """Whether the process ended here. A time limit is no end: the process would have gone on."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Transitions as tensors, one to a row."""

    obs: torch.Tensor
    """Shape (B, d), float32."""
    action: torch.Tensor
    """Shape (B,), int64, for a discrete action space; shape (B, m), float32, for a box."""
    reward: torch.Tensor
    """Shape (B,), float32."""
    next_obs: torch.Tensor
    """Shape (B, d), float32."""
    terminated: torch.Tensor
    """Shape (B,), bool."""

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch on a device.

        Parameters
        ----------
        device : torch.device or str
            Where to.

        Returns
        -------
        Batch
            This one, if it is there already.
        """
        parts = {name: getattr(self, name) for name in ("obs", "action", "reward", "next_obs", "terminated")}
        moved = {name: part.to(device) for name, part in parts.items()}
        return self if all(moved[name] is part for name, part in parts.items()) else Batch(**moved)


class ReplayBuffer:
    """The latest transitions, sampled uniformly.

    Parameters
    ----------
    observation_space : gymnasium.spaces.Box
        Vectors, shape (d,).
    action_space : gymnasium.spaces.Discrete or gymnasium.spaces.Box
        Integers from 0, or vectors of shape (m,).
    capacity : int
        How many transitions to hold; then each new one takes the place of the oldest.

    Raises
    ------
    TypeError
        If a space is of another kind.
    ValueError
        If a space has another shape, or the capacity is not positive.
    """

    def __init__(self, observation_space: gymnasium.Space, action_space: gymnasium.Space, *, capacity: int):
        d = vector_length("observation_space", observation_space)
        self.capacity = _checks.integer("capacity", capacity, low=1)
        if isinstance(action_space, gymnasium.spaces.Discrete):
            action = torch.zeros(self.capacity, dtype=torch.int64)
            self._n_actions = discrete_size("action_space", action_space)
        else:
            action = torch.zeros(self.capacity, vector_length("action_space", action_space))
            self._n_actions = None
        self._data = Batch(
            torch.zeros(self.capacity, d),
            action,
            torch.zeros(self.capacity),
            torch.zeros(self.capacity, d),
            torch.zeros(self.capacity, dtype=torch.bool),
        )
        self._added = 0

    def __len__(self) -> int:
        return min(self._added, self.capacity)

    def add(
        self, obs: np.ndarray, action: Any, reward: float | int, next_obs: np.ndarray, terminated: bool | np.bool_
    ) -> None:
        """Store a copy of one transition.

        Parameters
        ----------
        obs, action, reward, next_obs, terminated
            As in `Transition`.

        Raises
        ------
        ValueError
            If a shape disagrees with the spaces, a number is not finite, or the action does not exist.
        """
        data, row = self._data, self._added % self.capacity
        obs = _checks.array("obs", obs, shape=tuple(data.obs.shape[1:]))
        next_obs = _checks.array("next_obs", next_obs, shape=tuple(data.obs.shape[1:]))
        reward = _checks.scalar("reward", reward)
        if self._n_actions is None:
            action = torch.from_numpy(_checks.array("action", action, shape=tuple(data.action.shape[1:])))
        else:
            action = _checks.integer("action", action, low=0, high=self._n_actions - 1)
        data.obs[row] = torch.from_numpy(obs)
        data.action[row] = action
        data.reward[row] = reward
        data.next_obs[row] = torch.from_numpy(next_obs)
        data.terminated[row] = bool(terminated)
        self._added += 1

    def sample(self, batch_size: int, *, rng: np.random.Generator) -> Batch:
        """Draw transitions uniformly, with replacement.

        Parameters
        ----------
        batch_size : int
            How many, at least 1; it may exceed the length of the buffer.
        rng : numpy.random.Generator
            Makes the draws.

        Returns
        -------
        Batch
            Copies: what is added later does not change them.

        Raises
        ------
        ValueError
            If the buffer is empty or `batch_size` is not positive.
        """
        batch_size = _checks.integer("batch_size", batch_size, low=1)
        if not len(self):
            raise ValueError("the buffer is empty: add a transition before you sample")
        rows = torch.from_numpy(rng.integers(len(self), size=batch_size))  # (B,)
        data = self._data
        return Batch(data.obs[rows], data.action[rows], data.reward[rows], data.next_obs[rows], data.terminated[rows])


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
    """Return an observation as it came, if it is one of the space's shape and finite."""
    try:
        given = _checks.array("the observation", value, shape=space.shape)
    except (TypeError, ValueError) as error:
        raise Fault(str(error)) from error
    if np.abs(given).max(initial=0.0) > _LARGEST:
        raise Fault(f"the observation must fit into float32, it has {np.abs(given).max():.3g}")
    return value


def rows(name: str, obs: np.ndarray, d: int) -> tuple[torch.Tensor, bool]:
    """Return observations as a matrix, and whether they were one vector.

    Parameters
    ----------
    name : str
        How an error calls them.
    obs : ndarray of shape (d,) or (n, d)
        One observation, or a batch of them as a vector environment gives it.
    d : int
        Length of an observation.

    Returns
    -------
    tensor of shape (n, d)
        In float32.
    single : bool
        Whether `obs` was one observation; then n is 1.

    Raises
    ------
    ValueError
        If the shape is another.
    """
    given = torch.as_tensor(obs, dtype=torch.float32)
    if given.ndim not in (1, 2) or given.shape[-1] != d:
        raise ValueError(f"{name} must have shape ({d},) or (n, {d}), got {tuple(given.shape)}")
    return given.reshape(-1, d), given.ndim == 1


def vector_length(name: str, space: gymnasium.Space) -> int:
    """Return d of a box of shape (d,).

    Parameters
    ----------
    name : str
        How an error calls the space.
    space : gymnasium.spaces.Box
        Any other space is an error.

    Returns
    -------
    int
        The number of entries of a vector.
    """
    if not isinstance(space, gymnasium.spaces.Box):
        raise TypeError(f"{name} must be a Box, got {space}")
    if len(space.shape) != 1:
        raise ValueError(f"{name} must have shape (any,), got {space.shape}")
    return space.shape[0]


def discrete_size(name: str, space: gymnasium.Space) -> int:
    """Return n of a discrete space with the actions 0 .. n - 1.

    Parameters
    ----------
    name : str
        How an error calls the space.
    space : gymnasium.spaces.Discrete
        Any other space is an error.

    Returns
    -------
    int
        The number of actions.
    """
    if not isinstance(space, gymnasium.spaces.Discrete):
        raise TypeError(f"{name} must be Discrete, got {space}")
    if space.start != 0:
        raise ValueError(f"{name} must start at 0, got {space}")
    return int(space.n)


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

    Yields
    ------
    Transition
        An episode that terminated or was truncated is followed by the next one. Only `terminated` is recorded: where
        a time limit cut the episode, an agent bootstraps from `next_obs` as anywhere else.

    Raises
    ------
    Fault
        If the environment gives an observation of another shape, or a reward that is not a number; a ValueError.
    """
    space = env.observation_space
    env.action_space.seed(seed)
    obs = _seen(env.reset(seed=seed)[0], space)
    while True:
        action = act(obs)
        next_obs, reward, terminated, truncated, _ = env.step(action)
        yield Transition(obs, action, _heard(reward), _seen(next_obs, space), bool(terminated))
        obs = _seen(env.reset()[0], space) if terminated or truncated else next_obs


def evaluate(env_id: str, act: Act, *, episodes: int, seed: int) -> np.ndarray:
    """Play whole episodes in a fresh environment.

    Parameters
    ----------
    env_id : str
        Name of a registered environment.
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
    with gymnasium.make(env_id) as env:
        space = env.observation_space
        obs = _seen(env.reset(seed=seed)[0], space)
        for k in range(len(returns)):
            over = False
            while not over:
                obs, reward, terminated, truncated, _ = env.step(act(obs))
                obs, over = _seen(obs, space), terminated or truncated
                returns[k] += _heard(reward)
            obs = _seen(env.reset()[0], space)
    return returns


def spaces(env_id: str) -> tuple[gymnasium.Space, gymnasium.Space]:
    """Return the spaces of a registered environment.

    Parameters
    ----------
    env_id : str
        Name of a registered environment.

    Returns
    -------
    tuple of gymnasium.Space
        The space of observations and that of actions.
    """
    with gymnasium.make(env_id) as env:
        return env.observation_space, env.action_space


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

    agent: Any
    """The agent as it was after the last update, or at its best evaluation: as was asked."""
    curve: pd.DataFrame
    """One row for each evaluation: `step`, mean `return`, and the metrics of the agent since the row before."""
    status: str
    """One of `STATUSES`."""
    reason: str = ""
    """Where the run is "faulty": what the environment gave."""


def learn(
    agent: Any,
    env_id: str,
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
) -> Run:
    """Let an agent act, remember, and learn from what it remembers.

    Parameters
    ----------
    agent : object
        Has ``act(obs, *, explore=False)``, an action, and ``update(batch)``, a dict of numbers.
    env_id : str
        Name of a registered environment.
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

    Returns
    -------
    Run
        In the curve, a metric called ``max_...`` is the largest of all updates since the row before, any other their
        mean; before the first update they are missing. A run that diverged, or whose environment is faulty, ends with a
        row without a return.

    Raises
    ------
    ValueError
        If an argument is out of range or the agent's metrics are no numbers.
    """
    steps = _checks.integer("steps", steps, low=1)
    capacity = _checks.integer("capacity", capacity, low=1)
    warmup = _checks.integer("warmup", warmup, low=1, high=capacity)
    batch_size = _checks.integer("batch_size", batch_size, low=1)
    update_every = _checks.integer("update_every", update_every, low=1)
    eval_every = _checks.integer("eval_every", eval_every, low=1)
    eval_episodes = _checks.integer("eval_episodes", eval_episodes, low=1)
    keep = _checks.choice("keep", keep, ("last", "best"))
    bound = _checks.scalar("bound", bound, low=0, low_open=True)
    rng = np.random.default_rng(seed)
    env_seed, eval_seed = seeds(rng)
    env = gymnasium.make(env_id)
    buffer = ReplayBuffer(env.observation_space, env.action_space, capacity=capacity)

    def act(obs):
        return env.action_space.sample() if len(buffer) < warmup else agent.act(obs, explore=True)

    curve, recent, status, reason = [], [], "finished", ""
    kept, best = agent, -np.inf
    walk = transitions(env, act, seed=env_seed)
    step = 0
    try:
        for step in _counted(steps, progress):
            buffer.add(*next(walk))
            if step >= warmup and step % update_every == 0:
                recent.append(agent.update(buffer.sample(batch_size, rng=rng)))
                if _exploded(recent[-1], bound):
                    status = "diverged"
                    break
            if step % eval_every == 0 or step == steps:
                played = {"episodes": eval_episodes, "seed": eval_seed}
                returns = evaluate(env_id, agent.act, **played)
                ways = {name: partial(way, agent) for name, way in (others or {}).items()}
                beside = {name: evaluate(env_id, way, **played).mean() for name, way in ways.items()}
                curve.append({"step": step, "return": returns.mean()} | beside | _summary(recent))
                recent = []
                if keep == "best" and returns.mean() >= best:
                    kept, best = copy.deepcopy(agent), returns.mean()
    except Fault as fault:
        status, reason = "faulty", f"step {step}: {fault}"
    if status != "finished":
        curve.append({"step": step, "return": np.nan} | _summary(recent))
    env.close()
    return Run(kept, pd.DataFrame(curve), status, reason)


def _counted(steps: int, progress: bool):
    if progress:
        from tqdm.auto import trange

        return trange(1, steps + 1, unit="step")
    return range(1, steps + 1)


def _exploded(metrics: dict[str, float], bound: float) -> bool:
    return any(not np.isfinite(x) or (name.startswith("max_") and abs(x) > bound) for name, x in metrics.items())


def _summary(metrics: list[dict[str, float]]) -> dict[str, float]:
    """Reduce the metrics of many updates to one row: the largest of each ``max_...``, the mean of any other."""
    names = dict.fromkeys(name for entry in metrics for name in entry)  # an update that diverged may know fewer
    columns = {name: np.array([entry[name] for entry in metrics if name in entry]) for name in names}
    return {name: float(x.max() if name.startswith("max_") else x.mean()) for name, x in columns.items()}
