"""Preconditioned Q-networks: undo the kernel on every minibatch (PreQN of arXiv:1903.08894, after its description).

Its settings, its solver, its line search, its `act` and its `update`. The kernel of a minibatch comes from `ntk`; the
loop that trains it is `training`; the same update of a table is in `updates`.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from divergence_notes import _checks
from divergence_notes._extras import needs

with needs("preqn"):
    import gymnasium
    import torch
    from torch import nn

    from divergence_notes import _passes, _saved, networks, ntk, replay, training
    from divergence_notes.linearization import Linearization

_A_FILE = "a file that `PreQN.save` wrote"

TILE = 128
"""Rows and columns of a minibatch kernel that are worked on at a time: half of a usual batch, so that symmetry pays."""

REMEMBER_EVERY = 10
"""Updates from one copy of an agent that it could go back to, to the next."""

SOLVERS = ("cholesky", "minimum-norm", "none")
"""How K z = delta is solved; "none" leaves the kernel alone: z = delta / n, the mean semi-gradient step."""

OPTIMIZERS = ("none", "adam")
"""What follows the direction of Q: "none" goes along it as far as the line search allows, "adam" is a control."""

INITIALISATIONS = ("pytorch", "glorot")
"""How the first weights are drawn: as `networks.MLP` draws them, or by `networks.glorot_`."""


@dataclass(frozen=True)
class PreQNConfig:
    """The settings of a `PreQN` and of its training. What the paper leaves open is decided here, with the reason."""

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of Q. Open in the paper; these learn Pendulum-v1 in seconds, use (256, 256) on
    robots."""
    activation: str = "sin"
    """Of Q: "relu", "tanh" or "sin". The paper reports the sine as best; its kernel has the smallest row ratio."""
    policy_hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of the policy, if the actions are continuous. Open in the paper; as those of Q."""
    policy_activation: str = "relu"
    """Of the policy. Open in the paper; what TD3 and SAC use."""
    gamma: float | int = 0.99
    """Discount factor in [0, 1). What the baselines use."""
    solver: str = "cholesky"
    """One of `SOLVERS`. The paper says least squares; a minibatch kernel is nearly singular, exactly so if a transition
    was drawn twice, and Cholesky with jitter is the cheapest solver that is not fooled by that."""
    jitter: float | int = 1e-4
    """Added to the diagonal of K before Cholesky, in units of its mean entry. Open in the paper; less of it fits the
    batch more closely with a longer step."""
    alpha: float | int = 0.1
    """Step size before the line search. Open in the paper; 1 asks the batch to become its targets, and .03 to 1 all
    learn Pendulum-v1."""
    eta: float | int = 0.97
    """Cosine that the change on the batch must make with the TD errors; -1 accepts every finite step. Read off a talk
    and not confirmed."""
    shrink: float | int = 0.5
    """What one backtrack multiplies the step size by. The paper says exponentially and not by how much."""
    max_backtracks: int = 10
    """After so many the step is rejected and Q stays. Open in the paper; a thousandth of `alpha` hardly moves Q."""
    optimizer: str = "none"
    """One of `OPTIMIZERS`. The paper has none for Q. "adam" takes steps of size `alpha` on the semi-gradient, and is
    there to tell what the inverse of the kernel does from what Adam does: it needs solver "none" and eta -1."""
    target_rate: float | int = 1
    """Share of the way to Q and to the policy that the networks behind the targets go after each update. At 1 they are
    Q and the policy themselves: the paper has no target network, and one is there for controls only."""
    policy_learning_rate: float | int = 1e-3
    """Step size of Adam on the policy, the usual one of TD3. The paper rules out an adaptive optimiser for Q only."""
    policy_every: int = 1
    """Updates of Q from one step of the policy to the next. Open in the paper; TD3 has 2, DDPG and SAC 1."""
    initialisation: str = "pytorch"
    """One of `INITIALISATIONS`, of Q and of the policy. Open in the paper; that of the library."""
    policy_scale: float | int = 1
    """Factor on the first weights and biases of the policy's last layer. Open in the paper; a small one starts in the
    middle of the range of actions, where DDPG starts."""
    noise: float | int = 0.1
    """While exploring: standard deviation of the noise, in units of half the range of an action; where actions are
    discrete, the chance of a random one. Open in the paper; TD3's."""
    batch_size: int = 256
    """Transitions in an update. Open in the paper; the default of current baselines."""
    held_out: int = 16
    """More transitions, drawn with each batch and only watched: what the update does where it was not asked to. While
    the buffer is small, a few of them are in the batch as well."""
    capacity: int = 1_000_000
    """Transitions in the replay buffer. Open in the paper; everybody's."""
    warmup: int = 1_000
    """Random steps before the first update. Open in the paper."""
    update_every: int = 1
    """Environment steps from one update to the next. Open in the paper; everybody's."""
    bound: float | int = 1e6
    """Values beyond this count as diverged: the agent goes back to its last good state, and the run ends."""
    seed: int = 0
    """Of the initial weights and of the exploration."""

    def __post_init__(self):
        for name in ("hidden", "policy_hidden"):
            object.__setattr__(self, name, _checks.integers(name, getattr(self, name), low=1))
        for name in ("activation", "policy_activation"):
            _checks.choice(name, getattr(self, name), tuple(networks.ACTIVATIONS))
        _checks.choice("solver", self.solver, SOLVERS)
        _checks.choice("optimizer", self.optimizer, OPTIMIZERS)
        _checks.choice("initialisation", self.initialisation, INITIALISATIONS)
        if self.optimizer == "adam" and (self.solver != "none" or self.eta != -1):
            raise ValueError(
                f"optimizer 'adam' needs solver 'none' and eta -1: its steps follow no direction, "
                f"got solver {self.solver!r} and eta {self.eta}"
            )
        _checks.scalar("gamma", self.gamma, low=0, high=1, high_open=True)
        _checks.scalar("jitter", self.jitter, low=0)
        _checks.scalar("eta", self.eta, low=-1, high=1)
        _checks.scalar("shrink", self.shrink, low=0, high=1, low_open=True, high_open=True)
        for name in ("alpha", "policy_learning_rate", "bound"):
            _checks.scalar(name, getattr(self, name), low=0, low_open=True)
        _checks.scalar("target_rate", self.target_rate, low=0, high=1, low_open=True)
        _checks.scalar("policy_scale", self.policy_scale, low=0)
        _checks.scalar("noise", self.noise, low=0)
        _checks.integer("max_backtracks", self.max_backtracks, low=0)
        for name in ("batch_size", "held_out", "capacity", "update_every", "policy_every"):
            _checks.integer(name, getattr(self, name), low=1)
        _checks.integer("warmup", self.warmup, low=1, high=self.capacity)
        _checks.integer("seed", self.seed, low=0)
        _saved.plain(self)


@dataclass(frozen=True, eq=False)
class Direction:
    """The way a preconditioned step goes."""

    slopes: list[torch.Tensor]
    """J^T z, one tensor for each parameter that moves."""
    z: torch.Tensor
    """Weight of each gradient, shape (n,)."""
    residual: float
    """``|K z - delta| / |delta|``, what the solver left undone; 0 if delta is 0."""

    @property
    def length(self) -> float:
        """Euclidean length of the step in parameters for alpha = 1."""
        return float(torch.nn.utils.get_total_norm(self.slopes))


@dataclass(frozen=True, eq=False)
class Step:
    """What a line search did."""

    alpha: float
    """The accepted step size, 0 if every one was rejected."""
    backtracks: int
    """How often it was cut."""
    alignment: float
    """Cosine between change and TD errors of the last trial, 0 if one of them was zero."""
    change: torch.Tensor
    """Of all values, those beyond the batch included, shape (m,); 0 if every step was rejected."""


def solve(kernel: torch.Tensor, td_error: torch.Tensor, *, solver: str, jitter: float | int) -> torch.Tensor:
    """Return z with K z = delta, as nearly as the solver can.

    Parameters
    ----------
    kernel : tensor of shape (n, n)
        Symmetric, positive semidefinite.
    td_error : tensor of shape (n,)
        The right-hand side delta, in the precision of `kernel`.
    solver : {"cholesky", "minimum-norm", "none"}
        "cholesky" solves with `jitter` times the mean diagonal added to the diagonal, and gives way to "minimum-norm"
        where rounding made K indefinite by more than that. "minimum-norm" drops the eigenvalues that are rounding
        errors in the precision of `kernel`: the shortest z among those that come closest. "none" returns delta / n.
    jitter : float
        At least 0; only for "cholesky".

    Returns
    -------
    tensor of shape (n,)
        In that precision; "minimum-norm" works in float64. Not finite where the input is not: `td_error` for "none",
        which does not look at the kernel, and either one for the others.

    Raises
    ------
    ValueError
        If the solver is unknown, or `jitter` is negative or not finite.

    Notes
    -----
    Label ``eq-preqn-solve``. ``torch.linalg.lstsq`` with its default driver is wrong on singular kernels in some
    releases of torch; nothing here calls it.
    """
    solver = _checks.choice("solver", solver, SOLVERS)
    jitter = _checks.scalar("jitter", jitter, low=0)
    if solver == "none":
        return td_error / len(td_error)
    if not all(torch.isfinite(end) for end in torch.aminmax(kernel)):  # in one pass; nan is passed on
        return torch.full_like(td_error, torch.nan)
    if solver == "cholesky":
        ridged = kernel.clone()
        ridged.diagonal().add_(jitter * kernel.diagonal().mean())
        factor, failed = torch.linalg.cholesky_ex(ridged)
        if not failed:
            return torch.cholesky_solve(td_error[:, None], factor)[:, 0]
    eigenvalues, V = torch.linalg.eigh(kernel.double())
    noise = len(kernel) * torch.finfo(kernel.dtype).eps * eigenvalues[-1]
    inverse = torch.where(eigenvalues > noise, 1 / eigenvalues, 0.0)
    return (V @ (inverse * (V.T @ td_error.double()))).to(kernel.dtype)


def direction(
    linear: Linearization, td_error: torch.Tensor, *, solver: str = "cholesky", jitter: float | int = 1e-4
) -> Direction:
    """Return the shortest step in parameters that moves the values of a batch by their TD errors, to first order.

    Parameters
    ----------
    linear : Linearization
        The network at the n inputs of the batch, as `ntk.linearize` returns it.
    td_error : tensor of shape (n,)
        What each value should change by.
    solver, jitter
        As in `solve`.

    Returns
    -------
    Direction
        Its ``slopes`` are J^T z with K z = delta, where K = J J^T is the kernel of the batch.

    Notes
    -----
    Label ``eq-preqn-step``.
    """
    K = linear.gram(tile=TILE)
    z = solve(K, td_error, solver=solver, jitter=jitter)
    asked = float(td_error.norm())
    residual = float((K @ z - td_error).norm()) / asked if asked > 0 else 0.0
    return Direction(linear.pull_back(z), z, residual)


@torch.no_grad()
def line_search(
    net: nn.Module,
    x: torch.Tensor,
    values: torch.Tensor,
    td_error: torch.Tensor,
    slopes: list[torch.Tensor],
    *,
    outputs: torch.Tensor | int | None = None,
    alpha: float | int,
    eta: float | int,
    shrink: float | int,
    max_backtracks: int,
) -> Step:
    """Move a network along a direction, by the first step whose change of the batch points along the TD errors.

    Parameters
    ----------
    net : torch.nn.Module
        Changed in place; as it was, to the last bit, if every step is rejected or an error is raised.
    x : tensor of shape (m, d)
        The batch, in its first n rows; what comes after is only watched.
    values : tensor of shape (m,)
        What the network makes of `x` now.
    td_error : tensor of shape (n,)
        What each value of the batch should change by.
    slopes : list of tensors
        The direction, one tensor for each parameter that requires a gradient.
    outputs : int, or int tensor of shape (m,), optional
        As in `ntk.gram`.
    alpha : float
        The first step size tried.
    eta : float
        The cosine that the change must make with the TD errors, in [-1, 1]; -1 accepts every finite step.
    shrink : float
        Factor from one trial to the next, in (0, 1).
    max_backtracks : int
        Trials after the first.

    Returns
    -------
    Step
        A zero TD error has no direction: its step is rejected, unless `eta` is not positive.

    Raises
    ------
    ValueError
        If `outputs` is missing where there are more than one, or does not fit.

    Notes
    -----
    Label ``eq-preqn-accept``.
    """
    parameters = [p for p in net.parameters() if p.requires_grad]
    start = [p.clone() for p in parameters]
    accepted = False
    try:
        for backtracks in range(max_backtracks + 1):
            size = alpha * shrink**backtracks
            for p, origin, slope in zip(parameters, start, slopes, strict=True):
                torch.add(origin, slope, alpha=size, out=p)
            out = net(x)
            if not backtracks:
                _passes.chosen("outputs", outputs, out, len(out))  # refuses what does not fit; once is enough
            change = _pick(out, outputs) - values
            cosine = _cosine(change[: len(td_error)], td_error)
            accepted = cosine >= eta
            if accepted:
                return Step(size, backtracks, cosine, change)
        return Step(0.0, max_backtracks, cosine, torch.zeros_like(values))
    finally:
        if not accepted:
            for p, origin in zip(parameters, start, strict=True):
                p.copy_(origin)


def _pick(out: torch.Tensor, outputs: torch.Tensor | int | None) -> torch.Tensor:
    """Return the chosen output of each row, shape (n,)."""
    if isinstance(outputs, torch.Tensor):
        return _passes.picked(out, outputs)
    return out[:, outputs or 0]


def _size(x: torch.Tensor) -> float:
    """Return the root mean square."""
    return float(x.square().mean().sqrt())


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the cosine between two vectors, 0 if one is zero, nan if one is not finite."""
    cosine = nn.functional.cosine_similarity(a.double(), b.double(), dim=0, eps=1e-300)
    return float(cosine.clamp(-1.0, 1.0))


def _range(space: gymnasium.spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the largest numbers of single precision in a space, shape (m,) each.

    Raise unless every entry of an action is a number of a finite range.
    """
    if not np.issubdtype(space.dtype, np.floating):
        raise TypeError(f"action_space must hold floating-point numbers, got {space}")
    _checks.finite("action_space", np.stack([space.low, space.high]))
    low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    low = np.where(low < space.low, np.nextafter(low, np.float32(np.inf)), low)  # rounding may leave the space
    high = np.where(high > space.high, np.nextafter(high, np.float32(-np.inf)), high)
    empty = np.argwhere(low >= high)
    if len(empty):
        ends = [f"{_checks.entry(name, empty[0])} = {getattr(space, name)[empty[0][0]]:g}" for name in ("low", "high")]
        raise ValueError(f"action_space must have low < high, got {' and '.join(ends)}")
    return low, high


def _tensors(part: nn.Module | torch.optim.Optimizer) -> list[torch.Tensor]:
    """Return all that an update changes of a network, or of an optimiser."""
    if isinstance(part, nn.Module):
        return list(part.parameters())
    return [moment for state in part.state.values() for moment in state.values()]


class PreQN:
    """One Q-network whose updates undo the kernel of their minibatch, and a policy that climbs it.

    For continuous actions Q takes the observation and the action, and a deterministic policy is trained to maximise it.
    For discrete actions Q has one output for each action, and the policy is greedy. There is no target network, and no
    optimiser for Q, unless the settings ask for a control.

    Parameters
    ----------
    observation_space : gymnasium.spaces.Box
        Vectors, shape (d,).
    action_space : gymnasium.spaces.Box or gymnasium.spaces.Discrete
        Vectors of shape (m,) with finite ends, or integers from 0.
    config : PreQNConfig
        Everything else.
    device : torch.device or str
        Where the networks are and updates are made; the same weights at the start on each.

    Attributes
    ----------
    net : networks.MLP
        Q.
    policy : networks.MLP or None
        Before the hyperbolic tangent that keeps actions in their range; None where actions are discrete.
    updates : int
        Updates made.

    Raises
    ------
    TypeError
        If a space is of another kind, or an action has whole numbers for entries.
    ValueError
        If a range of an action is empty or not finite, or the device is not there.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        config: PreQNConfig,
        *,
        device: torch.device | str = "cpu",
    ):
        self.config, self.updates = config, 0
        self._spaces = observation_space, action_space
        device = self._device = networks.place(device)
        self._d = d = replay.vector_length("observation_space", observation_space)
        generator = torch.Generator().manual_seed(config.seed)
        self._rng = np.random.default_rng(config.seed)
        again = config.initialisation == "glorot"
        if isinstance(action_space, gymnasium.spaces.Discrete):
            sizes = (d, *config.hidden, replay.discrete_size("action_space", action_space))
            self.policy = None
        else:
            m = replay.vector_length("action_space", action_space)
            self._low, self._high = (torch.as_tensor(end, device=device) for end in _range(action_space))
            low, high = action_space.low.astype(np.float64), action_space.high.astype(np.float64)
            ends = (high + low) / 2, (high - low) / 2  # (m,) each; in double precision, as in a file
            self._middle, self._half = (torch.as_tensor(end, dtype=torch.float32, device=device) for end in ends)
            sizes = (d + m, *config.hidden, 1)
            policy_sizes = (d, *config.policy_hidden, m)
            self.policy = networks.MLP(policy_sizes, activation=config.policy_activation, generator=generator)
            self.policy = networks.glorot_(self.policy, generator=generator) if again else self.policy
            with torch.no_grad():
                for p in self.policy[-1].parameters():
                    p.mul_(config.policy_scale)
            self.policy.to(device)
            self._optimizer = torch.optim.Adam(self.policy.parameters(), lr=config.policy_learning_rate, fused=True)
        self.net = networks.MLP(sizes, activation=config.activation, generator=generator)
        self.net = (networks.glorot_(self.net, generator=generator) if again else self.net).to(device)
        self._adam = None
        if config.optimizer == "adam":
            self._adam = torch.optim.Adam(self.net.parameters(), lr=config.alpha, fused=True)
        self._target = self.net, self.policy
        if config.target_rate < 1:
            self._target = copy.deepcopy(self._target)
        self._good: tuple[int, dict[str, list[torch.Tensor]]] = (0, {})
        self._remember()

    @torch.no_grad()
    def act(self, obs: Any, *, explore: bool = False) -> Any:
        """Return the action at an observation, with noise if exploring.

        Parameters
        ----------
        obs : ndarray of shape (d,) or (n, d)
            What it sees; a batch as a vector environment gives it.
        explore : bool
            Whether to add noise, or where actions are discrete now and then a random one, as the settings say.

        Returns
        -------
        int or ndarray
            The number of the action, or the action within its bounds, shape (m,). For a batch an array with one for
            each row, shape (n,) or (n, m), and each row has noise of its own.

        Raises
        ------
        ValueError
            If `obs` has another shape.
        """
        given, single = replay.rows("obs", obs, self._d)
        if self.policy is None:
            return self._choose(given, single, explore)
        action = torch.tanh(self.policy(given.to(self._device)))  # (n, m)
        if explore:
            noise = torch.from_numpy(self._rng.standard_normal(tuple(action.shape), dtype=np.float32))
            action = (action + self.config.noise * noise.to(self._device)).clamp(-1.0, 1.0)
        action = (self._middle + self._half * action).clamp(self._low, self._high)  # by rounding it may lie outside
        action = action.cpu().numpy()
        return action[0] if single else action

    def _choose(self, given: torch.Tensor, single: bool, explore: bool) -> int | np.ndarray:
        """Return the best action of each row, or now and then a random one."""
        n_actions = self.net[-1].out_features
        if single and explore and self._rng.random() < self.config.noise:
            return int(self._rng.integers(n_actions))
        actions = self.net(given.to(self._device)).argmax(dim=1).cpu().numpy()
        if single:
            return int(actions[0])
        if explore:
            random = self._rng.random(len(actions)) < self.config.noise
            actions[random] = self._rng.integers(n_actions, size=int(random.sum()))
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
            Whether to leave the noise away.

        Returns
        -------
        action : ndarray
            As of `act`, and an array of no dimension for the number of one action.
        state : object
            As it was given.
        """
        return np.asarray(self.act(observation, explore=not deterministic)), state

    @torch.no_grad()
    def targets(self, batch: replay.Batch) -> torch.Tensor:
        """Return what the values of a batch are drawn to.

        Parameters
        ----------
        batch : Batch
            On the device of the agent.

        Returns
        -------
        tensor of shape (B,)
            ``r + gamma Q(s', a')`` at the action that the policy takes there, and ``r`` alone at an end; no gradient.
        """
        return batch.reward + self.config.gamma * ~batch.terminated * self._best(batch.next_obs, *self._target)

    def inputs(self, obs: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Return what `net` is given for pairs of which the actions are continuous.

        Parameters
        ----------
        obs : tensor of shape (n, d)
            Observations.
        action : tensor of shape (n, m)
            Actions, within their bounds.

        Returns
        -------
        tensor of shape (n, d + m)
            The actions behind the observations, from -1 to 1.
        """
        return torch.cat([obs, (action - self._middle) / self._half], dim=1)

    def update(self, batch: replay.Batch) -> dict[str, float]:
        """Take one preconditioned step of Q, and, at every so many updates, one of the policy.

        Parameters
        ----------
        batch : Batch
            The last ``config.held_out`` transitions are only watched; at least one more is needed.

        Returns
        -------
        dict
            On the batch: ``alignment`` of change and TD errors, the ``accepted`` step size (0 if rejected),
            ``backtracks``, ``residual`` of the solver, root mean square ``td_error`` before. On what was held out:
            ``off_alignment`` and ``off_change``, root mean square change in units of that on the batch. On both:
            ``max_q``, the largest absolute value before or after.

        Raises
        ------
        ValueError
            If the batch is too short.

        Notes
        -----
        Where a value or TD error is not finite, or beyond ``config.bound``, nothing is learned: the agent goes back to
        its last good state, the latest multiple of `REMEMBER_EVERY` updates at which there was no such value, and
        ``max_q`` says so. `training.learn` then ends the run.
        """
        config, n = self.config, len(batch.reward) - self.config.held_out
        if n < 1:
            raise ValueError(f"batch must be longer than held_out = {config.held_out}, got {len(batch.reward)}")
        batch = batch.to(self._device)
        x, outputs = self._pairs(batch)
        linear = ntk.linearize(self.net, x, outputs=outputs, check=self.updates == 0)
        td_error = self.targets(batch) - linear.values
        max_q = float(linear.values.abs().max())
        if not (max_q <= config.bound and td_error.abs().max() <= config.bound):
            return self._back(max_q)
        if self.updates % REMEMBER_EVERY == 0:
            self._remember()
        way = direction(linear.head(n), td_error[:n], solver=config.solver, jitter=config.jitter)
        step = self._step(x, linear.values, td_error[:n], way.slopes, outputs)
        after = float((linear.values + step.change).abs().max())
        if not after <= config.bound:
            return self._back(after)
        self.updates += 1
        if self.policy is not None and self.updates % config.policy_every == 0:
            self._climb(batch.obs[:n])
        if config.target_rate < 1:
            self._follow()
        on, off = step.change[:n], step.change[n:]
        return {
            "alignment": step.alignment,
            "accepted": step.alpha,
            "backtracks": float(step.backtracks),
            "residual": way.residual,
            "td_error": _size(td_error[:n]),
            "off_alignment": _cosine(off, td_error[n:]),
            "off_change": _size(off) / max(_size(on), torch.finfo(on.dtype).tiny),
            "max_q": max(max_q, after),
        }

    def _pairs(self, batch: replay.Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the inputs of Q for what was done, and which outputs are meant."""
        if self.policy is None:
            return batch.obs, batch.action
        return self.inputs(batch.obs, batch.action), None

    def _best(self, obs: torch.Tensor, net: nn.Module, policy: nn.Module | None) -> torch.Tensor:
        """Return Q at the action that the policy takes, shape (n,)."""
        if policy is None:
            return net(obs).max(dim=1).values
        return net(torch.cat([obs, torch.tanh(policy(obs))], dim=1))[:, 0]

    def _step(
        self,
        x: torch.Tensor,
        values: torch.Tensor,
        td_error: torch.Tensor,
        slopes: list[torch.Tensor],
        outputs: torch.Tensor | None,
    ) -> Step:
        """Move Q: along a direction with a line search, or by Adam."""
        config = self.config
        if self._adam is None:
            search = {name: getattr(config, name) for name in ("alpha", "eta", "shrink", "max_backtracks")}
            return line_search(self.net, x, values, td_error, slopes, outputs=outputs, **search)
        for p, slope in zip(self.net.parameters(), slopes, strict=True):
            p.grad = -slope
        self._adam.step()
        with torch.no_grad():
            change = _pick(self.net(x), outputs) - values
        return Step(float(config.alpha), 0, _cosine(change[: len(td_error)], td_error), change)

    @torch.no_grad()
    def _follow(self) -> None:
        """Let the networks behind the targets go a part of the way."""
        for behind, ahead in zip(self._target, (self.net, self.policy), strict=True):
            if ahead is not None:
                for p, q in zip(behind.parameters(), ahead.parameters(), strict=True):
                    p.lerp_(q, self.config.target_rate)

    def _climb(self, obs: torch.Tensor) -> None:
        """Take one step of Adam that raises the mean of Q at the policy's actions."""
        parameters = list(self.policy.parameters())
        slopes = torch.autograd.grad(-self._best(obs, self.net, self.policy).mean(), parameters)
        if torch.isfinite(nn.utils.get_total_norm(slopes)):
            for p, slope in zip(parameters, slopes, strict=True):
                p.grad = slope
            self._optimizer.step()

    def _back(self, max_q: float) -> dict[str, float]:
        self.updates, good = self._good
        with torch.no_grad():
            for name, part in self._parts().items():
                if len(good[name]) < len(_tensors(part)):  # Adam had no moments yet
                    part.state.clear()
                for held, kept in zip(_tensors(part), good[name], strict=True):
                    held.copy_(kept)
        return {"max_q": max_q if max_q > self.config.bound else float("inf")}

    def _parts(self) -> dict[str, Any]:
        """Return all that learns, by name."""
        parts = {"net": self.net}
        if self.policy is not None:
            parts |= {"policy": self.policy, "optimizer": self._optimizer}
        if self._adam is not None:
            parts["adam"] = self._adam
        if self.config.target_rate < 1:
            behind = zip(("target_net", "target_policy"), self._target, strict=True)
            parts |= {name: part for name, part in behind if part is not None}
        return parts

    def _remember(self) -> None:
        """Keep a copy of all that an update changes, and the count of updates."""
        good = self._good[1]
        with torch.no_grad():
            for name, part in self._parts().items():
                held = _tensors(part)
                if len(good.setdefault(name, [])) != len(held):
                    good[name] = [torch.empty_like(each) for each in held]
                for each, kept in zip(held, good[name], strict=True):
                    kept.copy_(each)
        self._good = (self.updates, good)

    def state_dict(self) -> dict[str, Any]:
        """Return all that the agent is: tensors, numbers and text, nothing else.

        Returns
        -------
        dict
            Networks, optimisers, generator, counts and settings, and the state that it would go back to.
        """
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        rest = {"config": dataclasses.asdict(self.config), "rng": self._rng.bit_generator.state}
        return rest | parts | {"updates": self.updates, "good": self._good}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what `state_dict` returned of an agent with the same settings.

        Parameters
        ----------
        state : mapping
            As `state_dict` returned it; where it lacks a state to go back to, that is the one loaded.

        Raises
        ------
        ValueError
            If the settings are others.
        """
        _saved.same_settings(self.config, state["config"])
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self._rng.bit_generator.state = state["rng"]
        self.updates = state["updates"]
        self._good = (0, {})
        if "good" in state:
            updates, good = state["good"]
            self._good = updates, {name: [each.to(self._device) for each in kept] for name, kept in good.items()}
        else:
            self._remember()

    def save(self, path: str | Path) -> None:
        """Write the agent to a file: networks, optimisers, generator, counts, settings and spaces.

        Fed with the same batches and observations on one thread, an agent that was saved and loaded goes on like one
        that was not, to the last bit, unless values leave the bound before the next multiple of `REMEMBER_EVERY`
        updates: the state to go back to is not in the file, and the one loaded takes its place. Nor are the replay
        buffer and the environment, which are no part of an agent; a checkpoint of `training.learn` has them all.

        Parameters
        ----------
        path : path
            The file; one that is there is replaced, once the new one is whole.
        """
        state = self.state_dict()
        del state["good"]
        _saved.write(path, state | {"spaces": [_saved.from_space(space) for space in self._spaces]})

    @classmethod
    def load(cls, path: str | Path, *, device: torch.device | str = "cpu") -> "PreQN":
        """Return the agent that `save` wrote.

        Parameters
        ----------
        path : path
            The file. It may be from a stranger: it is read as data, and no code that stands in it is run.
        device : torch.device or str
            Where to; it may have been saved on another.

        Returns
        -------
        PreQN
            Equal to the one that was saved; the state that it would go back to is this one.

        Raises
        ------
        ValueError
            If the file is of another kind, has code in it, or does not fit together; or the device is not there.
        """
        saved = _saved.read("path", path, _A_FILE, keys=("config", "spaces", "net", "rng", "updates"))
        device = networks.place(device)
        with _saved.understood("path", path, _A_FILE):
            config = PreQNConfig(**saved["config"])
            _saved.same_widths(config.hidden, saved["net"])
            agent = cls(*map(_saved.to_space, saved["spaces"]), config, device=device)
            agent.load_state_dict(saved | {"config": dataclasses.asdict(config)})  # an older file has fewer settings
        return agent


def train(
    env: training.Environment,
    *,
    config: PreQNConfig,
    steps: int,
    seed: int,
    eval_every: int = 1_000,
    eval_episodes: int = 5,
    keep: str = "last",
    others: Mapping[str, Callable[["PreQN", np.ndarray], Any]] | None = None,
    progress: bool = False,
    callback: training.Callback | Sequence[training.Callback] = (),
    checkpoint: str | Path | None = None,
    log: str | Path | None = None,
    device: torch.device | str = "cpu",
) -> training.Run:
    """Train a `PreQN` from nothing.

    Parameters
    ----------
    env : str, gymnasium.Env, or callable
        As in `training.learn`; with vectors for observations.
    config : PreQNConfig
        The settings; its seed gives way to `seed`.
    steps : int
        Environment steps to take.
    seed : int
        Of everything random: on one thread, two runs with the same seed are the same, bit by bit.
    eval_every, eval_episodes, keep, others, progress, callback, checkpoint, log
        As in `training.learn`.
    device : torch.device or str
        As of `PreQN`.

    Returns
    -------
    Run
        Its ending is "diverged" if values left ``config.bound`` or were not finite; then its agent is in the last good
        state. It is "faulty" if the environment gave something that is no observation or no reward.

    Examples
    --------
    A task of one's own, watched, with a table that survives whatever happens and a file from which the same call goes
    on. Six hundred steps are too few to learn this one, three thousand are enough.

    >>> import gymnasium
    >>> from divergence_notes import preqn, watching
    >>> def make():
    ...     pendulum = gymnasium.make("Pendulum-v1").unwrapped
    ...     return gymnasium.wrappers.TimeLimit(pendulum, 100)
    >>> watch = watching.Watch(every=200)
    >>> run = preqn.train(
    ...     make, config=preqn.PreQNConfig(warmup=200), steps=600, seed=0,
    ...     eval_every=300, eval_episodes=2, callback=watch,
    ...     log="pendulum.csv", checkpoint="pendulum.checkpoint",
    ... )
    >>> run.ending, run.curve["step"].tolist(), watch.history["step"].tolist()
    ('finished', [300, 600], [200, 400, 600])
    >>> run.agent.save("pendulum.agent")
    >>> agent = preqn.PreQN.load("pendulum.agent")
    >>> action, _ = agent.predict(make().reset(seed=1)[0])
    >>> bool(-2 <= action[0] <= 2)
    True
    """
    agent = PreQN(*training.spaces(env), dataclasses.replace(config, seed=seed), device=device)
    return training.learn(
        agent,
        env,
        steps=steps,
        seed=seed,
        warmup=config.warmup,
        batch_size=config.batch_size + config.held_out,
        capacity=config.capacity,
        update_every=config.update_every,
        eval_every=eval_every,
        eval_episodes=eval_episodes,
        keep=keep,
        others=others,
        bound=config.bound,
        progress=progress,
        callback=callback,
        checkpoint=checkpoint,
        log=log,
    )
