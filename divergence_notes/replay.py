"""The memory of an agent: transitions, the buffer that holds the latest of them, and the batches drawn from it.

What observations and actions look like is read off their spaces here. The loop that fills the memory and lets an agent
learn from it is `training`; what an agent does with a batch is its own module, `dqn` or `preqn`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from divergence_notes import _checks
from divergence_notes._extras import needs

with needs("preqn"):
    import gymnasium
    import torch


_LARGEST = float(np.finfo(np.float32).max)

_FLATTEN = ": gymnasium.wrappers.FlattenObservation makes vectors of most observations"


class Transition(NamedTuple):
    """One step of an environment."""

    obs: np.ndarray
    """What the agent saw, shape (d,)."""
    action: Any
    """What it did: an integer, or an array of shape (m,)."""
    reward: float
    """The reward of this step."""
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
            If a shape disagrees with the spaces, a number is not finite or too large for float32, or the action does
            not exist. Then nothing is stored.
        """
        data, row = self._data, self._added % self.capacity
        obs = _single("obs", _checks.array("obs", obs, shape=tuple(data.obs.shape[1:])))
        next_obs = _single("next_obs", _checks.array("next_obs", next_obs, shape=tuple(data.obs.shape[1:])))
        reward = _checks.scalar("reward", reward)
        _single("reward", np.asarray(reward))
        if self._n_actions is None:
            action = _checks.array("action", action, shape=tuple(data.action.shape[1:]))
            action = torch.tensor(_single("action", action))
        else:
            action = _checks.integer("action", action, low=0, high=self._n_actions - 1)
        data.obs[row] = torch.tensor(obs)
        data.action[row] = action
        data.reward[row] = reward
        data.next_obs[row] = torch.tensor(next_obs)
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
        parts = (data.obs, data.action, data.reward, data.next_obs, data.terminated)
        return Batch(*(part.index_select(0, rows) for part in parts))  # faster than part[rows]

    def state_dict(self) -> dict[str, Any]:
        """Return what the buffer holds, and how much it was ever given.

        Returns
        -------
        dict
            Copies.
        """
        held = {name: part[: len(self)].clone() for name, part in vars(self._data).items()}
        return held | {"added": self._added}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what `state_dict` returned of a buffer with the same spaces and capacity.

        Parameters
        ----------
        state : mapping
            As `state_dict` returned it.
        """
        self._added = state["added"]
        for name, part in vars(self._data).items():
            part[: len(self)] = state[name]


def _single(name: str, value: np.ndarray) -> np.ndarray:
    """Return `value` if float32 can hold it."""
    beyond = np.abs(value) > _LARGEST
    if beyond.any():
        bad = np.argwhere(beyond)[0]
        raise ValueError(f"{name} must fit into float32: {_checks.entry(name, bad)} is {value[tuple(bad)]:.3g}")
    return value


def rows(name: str, obs: Any, d: int) -> tuple[torch.Tensor, bool]:
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
    TypeError
        If it is no array of numbers.
    """
    try:
        given = torch.tensor(np.asarray(obs), dtype=torch.float32)
    except (TypeError, ValueError) as error:  # a dictionary, or rows of different lengths
        raise TypeError(f"{name} must be an array of shape ({d},) or (n, {d}), got {type(obs).__name__}") from error
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
    hint = _FLATTEN if name == "observation_space" else ""
    if not isinstance(space, gymnasium.spaces.Box):
        raise TypeError(f"{name} must be a Box, got {space}{hint}")
    if len(space.shape) != 1:
        raise ValueError(f"{name} must have shape (any,), got {space.shape}{hint}")
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
