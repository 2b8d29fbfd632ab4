"""Deep Q-learning (Mnih et al., 2015), small enough to read in one sitting.

Its settings, its targets, its `act` and its `update`. The loop that trains it is `training`, what it remembers
`replay`; a Q-network that needs no target network is `preqn`.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from divergence_notes import _checks
from divergence_notes._extras import needs

with needs("preqn"):
    import gymnasium
    import torch
    from torch import nn

    from divergence_notes import _saved, networks, replay, training

_A_FILE = "a file that `DQN.save` wrote"

LOSSES = {"huber": nn.functional.smooth_l1_loss, "squared": lambda q, target: 0.5 * ((target - q) ** 2).mean()}


@dataclass(frozen=True)
class DQNConfig:
    """The settings of a `DQN` and of its training; the defaults learn CartPole-v1."""

    hidden: tuple[int, ...] = (128, 128)
    """Widths of the hidden layers."""
    activation: str = "relu"
    """Between the layers: "relu", "tanh" or "sin"."""
    gamma: float | int = 0.98
    """Discount factor in [0, 1)."""
    learning_rate: float = 1e-3
    """Step size of Adam."""
    loss: str = "huber"
    """Of the TD error: "huber", which bounds its slope, or "squared", half the square as in the key equation."""
    target_every: int | None = 64
    """Updates from one copy into the target network to the next; None bootstraps from the learning network itself."""
    epsilon: float | int = 0.05
    """Chance of a random action while exploring, once it has come down."""
    epsilon_steps: int = 5_000
    """Over so many exploring actions the chance comes down from 1, in a straight line."""
    warmup: int = 1_000
    """Random steps before the first update."""
    batch_size: int = 128
    """Transitions in an update."""
    capacity: int = 50_000
    """Transitions in the replay buffer."""
    update_every: int = 2
    """Environment steps from one update to the next."""
    seed: int = 0
    """Of the initial weights and of the exploration."""

    def __post_init__(self):
        object.__setattr__(self, "hidden", _checks.integers("hidden", self.hidden, low=1))
        _checks.choice("activation", self.activation, tuple(networks.ACTIVATIONS))
        _checks.choice("loss", self.loss, tuple(LOSSES))
        _checks.scalar("gamma", self.gamma, low=0, high=1, high_open=True)
        _checks.scalar("learning_rate", self.learning_rate, low=0, low_open=True)
        _checks.scalar("epsilon", self.epsilon, low=0, high=1)
        for name in ("target_every", "epsilon_steps", "batch_size", "capacity", "update_every"):
            if getattr(self, name) is not None or name != "target_every":
                _checks.integer(name, getattr(self, name), low=1)
        _checks.integer("warmup", self.warmup, low=1, high=self.capacity)
        _checks.integer("seed", self.seed, low=0)
        _saved.plain(self)


def td_target(net: nn.Module, batch: replay.Batch, *, gamma: float | int) -> Float[torch.Tensor, " b"]:
    """Return ``r + gamma max_a' Q(s', a')``, and ``r`` alone where the process terminated.

    Parameters
    ----------
    net : torch.nn.Module
        Maps observations (B, d) to values (B, n_actions); no gradient flows into it.
    batch : Batch
        Transitions. One that a time limit cut is like any other: the target bootstraps through it.
    gamma : float
        Discount factor in [0, 1).

    Returns
    -------
    tensor of shape (B,)
        What the value of the action taken should be.
    """
    with torch.no_grad():
        discount = gamma * ~batch.terminated  # (B,)
        return batch.reward + discount * net(batch.next_obs).max(dim=1).values


class DQN:
    """Q-learning with a network, a replay buffer's batches and, if wanted, a target network.

    Parameters
    ----------
    observation_space : gymnasium.spaces.Box
        Vectors, shape (d,).
    action_space : gymnasium.spaces.Discrete
        Actions 0 .. n_actions - 1.
    config : DQNConfig
        Everything else.
    device : torch.device or str
        Where the networks are and updates are made; the same weights at the start on each.

    Attributes
    ----------
    net, target : networks.MLP
        What learns, and what the targets are read from; the same object if ``config.target_every`` is None.
    updates : int
        Updates made.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        config: DQNConfig,
        *,
        device: torch.device | str = "cpu",
    ):
        self._spaces = observation_space, action_space
        device = networks.place(device)
        self._d = d = replay.vector_length("observation_space", observation_space)
        self.n_actions = replay.discrete_size("action_space", action_space)
        self.config = config
        generator = torch.Generator().manual_seed(config.seed)
        sizes = (d, *config.hidden, self.n_actions)
        self.net = networks.MLP(sizes, activation=config.activation, generator=generator).to(device)
        self.target = self.net if config.target_every is None else copy.deepcopy(self.net)
        self.updates = 0
        self._optimizer = torch.optim.Adam(self.net.parameters(), lr=config.learning_rate, fused=True)
        self._rng = np.random.default_rng(config.seed)
        self._explored = 0

    @torch.no_grad()
    def act(self, obs: Any, *, explore: bool = False) -> int | np.ndarray:
        """Return the action of largest value, or now and then a random one.

        Parameters
        ----------
        obs : ndarray of shape (d,) or (n, d)
            What it sees; a batch as a vector environment gives it.
        explore : bool
            Whether a random action is allowed, more often at the start, as the settings say.

        Returns
        -------
        int, or int ndarray of shape (n,)
            The number of the action; for a batch one for each row, and each row explores on its own.

        Raises
        ------
        ValueError
            If `obs` has another shape.
        """
        given, single = replay.rows("obs", obs, self._d)
        if single and explore and self._wanders():
            return int(self._rng.integers(self.n_actions))
        actions = self.net(given.to(self.net[0].weight.device)).argmax(dim=1).cpu().numpy()
        if single:
            return int(actions[0])
        if explore:
            for k in range(len(actions)):
                if self._wanders():
                    actions[k] = self._rng.integers(self.n_actions)
        return actions

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[np.ndarray, Any]:
        """Return what stable-baselines3 asks of an agent, for its ``evaluate_policy`` and what is like it.

        Parameters
        ----------
        observation : ndarray of shape (d,) or (n, d)
            As of `act`.
        state, episode_start
            For agents with a memory of their own; this one has none.
        deterministic : bool
            Whether to leave random actions away. Those that are taken here do not count for their decline.

        Returns
        -------
        action : int ndarray of shape () or (n,)
            The number of the action, or of each row's.
        state : object
            As it was given.
        """
        explored = self._explored
        actions = np.asarray(self.act(observation, explore=not deterministic))
        self._explored = explored
        return actions, state

    def _wanders(self) -> bool:
        """Return whether the next exploring action is a random one."""
        progress = min(self._explored / self.config.epsilon_steps, 1.0)
        self._explored += 1
        return self._rng.random() < 1 + progress * (self.config.epsilon - 1)

    def update(self, batch: replay.Batch) -> dict[str, float]:
        """Take one step of Adam towards the TD targets of a batch.

        Parameters
        ----------
        batch : Batch
            Transitions with discrete actions.

        Returns
        -------
        dict
            ``loss``, and ``max_q``, the largest absolute value of any action in the batch; both from before the step.
        """
        batch = batch.to(self.net[0].weight.device)
        q = self.net(batch.obs)  # (B, n_actions)
        taken = q.gather(1, batch.action[:, None])[:, 0]  # (B,)
        loss = LOSSES[self.config.loss](taken, td_target(self.target, batch, gamma=self.config.gamma))
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self.updates += 1
        if self.config.target_every is not None and self.updates % self.config.target_every == 0:
            self.target.load_state_dict(self.net.state_dict())
        return {"loss": loss.item(), "max_q": q.detach().abs().max().item()}

    def state_dict(self) -> dict[str, Any]:
        """Return all that the agent is: tensors, numbers and text, nothing else.

        Returns
        -------
        dict
            Networks, optimiser, generator, counts and settings.
        """
        target = {} if self.target is self.net else {"target": self.target.state_dict()}
        counts = {"updates": self.updates, "explored": self._explored}
        parts = {"net": self.net.state_dict(), "optimizer": self._optimizer.state_dict()} | target
        return parts | counts | {"config": dataclasses.asdict(self.config), "rng": self._rng.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what `state_dict` returned of an agent with the same settings.

        Parameters
        ----------
        state : mapping
            As `state_dict` returned it.

        Raises
        ------
        ValueError
            If the settings are others.
        """
        _saved.same_settings(self.config, state["config"])
        self.net.load_state_dict(state["net"])
        if self.target is not self.net:
            self.target.load_state_dict(state["target"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._rng.bit_generator.state = state["rng"]
        self.updates, self._explored = state["updates"], state["explored"]

    def save(self, path: str | Path) -> None:
        """Write the agent to a file: networks, optimiser, generator, counts, settings and spaces.

        Parameters
        ----------
        path : path
            The file; one that is there is replaced, once the new one is whole.
        """
        _saved.write(path, self.state_dict() | {"spaces": [_saved.from_space(space) for space in self._spaces]})

    @classmethod
    def load(cls, path: str | Path, *, device: torch.device | str = "cpu") -> "DQN":
        """Return the agent that `save` wrote.

        Parameters
        ----------
        path : path
            The file. It may be from a stranger: it is read as data, and no code that stands in it is run.
        device : torch.device or str
            Where to; it may have been saved on another.

        Returns
        -------
        DQN
            Equal to the one that was saved.

        Raises
        ------
        ValueError
            If the file is of another kind, has code in it, or does not fit together; or the device is not there.
        """
        saved = _saved.read("path", path, _A_FILE, keys=("config", "spaces", "net", "rng", "updates"))
        device = networks.place(device)
        with _saved.understood("path", path, _A_FILE):
            config = DQNConfig(**saved["config"])
            _saved.same_widths(config.hidden, saved["net"])
            agent = cls(*map(_saved.to_space, saved["spaces"]), config, device=device)
            agent.load_state_dict(saved)
        return agent


def train(
    env: training.Environment,
    *,
    config: DQNConfig,
    steps: int,
    seed: int,
    eval_every: int = 1_000,
    eval_episodes: int = 5,
    keep: str = "best",
    others: Mapping[str, Callable[["DQN", np.ndarray], Any]] | None = None,
    progress: bool = False,
    callback: training.Callback | Sequence[training.Callback] = (),
    checkpoint: str | Path | None = None,
    log: str | Path | None = None,
    device: torch.device | str = "cpu",
) -> training.Run:
    """Train a `DQN` from nothing.

    Parameters
    ----------
    env : str, gymnasium.Env, or callable
        As in `training.learn`; with vectors for observations and discrete actions.
    config : DQNConfig
        The settings; its seed gives way to `seed`.
    steps : int
        Environment steps to take.
    seed : int
        Of everything random: two runs with the same seed are the same, bit by bit.
    eval_every, eval_episodes, keep, others, progress, callback, checkpoint, log
        As in `training.learn`.
    device : torch.device or str
        As of `DQN`.

    Returns
    -------
    Run
        With the agent as it was at its best evaluation, unless `keep` is "last".

    Notes
    -----
    CartPole-v1 with the defaults: 30,000 steps and 30 to 32 CPU seconds on one core balance for all 500 steps of each
    of 20 new episodes, for each of the seeds 0 to 4. It is the best evaluated network that does: returns go up and down
    to the end, and the last evaluations of the same runs are 231, 183, 379, 500 and 220.

    Examples
    --------
    With a callback that ends the run once the agent balances for a while, and what was learned judged by the library
    that most agents are judged by.

    >>> from stable_baselines3.common.env_util import make_vec_env
    >>> from stable_baselines3.common.evaluation import evaluate_policy
    >>> from divergence_notes import dqn
    >>> def long_enough(moment):
    ...     return moment.row is None or moment.row["return"] < 60
    >>> config = dqn.DQNConfig(hidden=(64, 64), epsilon_steps=1_000, warmup=500)
    >>> run = dqn.train(
    ...     "CartPole-v1", config=config, steps=5_000, seed=0, eval_every=250,
    ...     callback=long_enough,
    ... )
    >>> run.ending, bool(run.curve["return"].iloc[-1] >= 60)
    ('stopped', True)
    >>> envs = make_vec_env("CartPole-v1", n_envs=4, seed=1)
    >>> mean, spread = evaluate_policy(run.agent, envs, n_eval_episodes=8)
    >>> bool(mean > 30)
    True
    """
    agent = DQN(*training.spaces(env), dataclasses.replace(config, seed=seed), device=device)
    shared = {name: getattr(config, name) for name in ("warmup", "batch_size", "capacity", "update_every")}
    return training.learn(
        agent,
        env,
        steps=steps,
        seed=seed,
        eval_every=eval_every,
        eval_episodes=eval_episodes,
        keep=keep,
        others=others,
        progress=progress,
        callback=callback,
        checkpoint=checkpoint,
        log=log,
        **shared,
    )
