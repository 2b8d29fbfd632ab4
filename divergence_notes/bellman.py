"""The Bellman equation: its two operators, three ways to solve it, and the returns of a policy in an environment.

Values are tables here, and the process is known, or is played one step at a time by `q_learning`. What happens when a
step moves more than one entry is `updates`; iterating any operator is `dynamics`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from divergence_notes import _checks, _rounding
from divergence_notes._checks import ArrayLike
from divergence_notes.dynamics import Status
from divergence_notes.mdp import FiniteMDP

DENSE = 500
"""Up to so many states a sparse process is solved as a dense one: no slower on random processes, and
`scipy.sparse.linalg` need not be imported."""


@dataclass(frozen=True, eq=False)
class Solution:
    """An optimal table, and how far from optimal it can be."""

    Q: np.ndarray
    """Action values, shape (n_states, n_actions), in units of discounted reward."""
    policy: np.ndarray
    """Greedy actions, shape (n_states,)."""
    status: Status
    """``"converged"``, or ``"undecided"`` when the iterations ran out or rounding allows no smaller bound."""
    iterations: int
    """Sweeps, or policies evaluated."""
    error_bound: float
    """A guaranteed upper bound on the sup-norm distance of `Q` to the optimal table of the process as it is stored,
    rounding included; infinite where ``1 - gamma`` is no larger than rounding."""


def optimality_backup(Q: ArrayLike, mdp: FiniteMDP) -> np.ndarray:
    """Return T* Q: expected reward plus the discounted value of the best next action.

    Parameters
    ----------
    Q : ndarray of shape (n_states, n_actions)
        Action values, in units of discounted reward.
    mdp : FiniteMDP
        The process; one matrix-vector product of its transitions, dense or sparse.

    Returns
    -------
    ndarray of shape (n_states, n_actions)
        A new array. A step that ends the episode adds its reward and nothing else.

    Raises
    ------
    ValueError
        If the shape of `Q` disagrees with `mdp` or an entry is not finite.

    Notes
    -----
    Label ``eq-optimality-operator``; Bellman, "Dynamic Programming", 1957.
    """
    Q = _checks.array("Q", Q, shape=mdp.R.shape, beside=mdp._sizes)
    return _backup(_best(Q), mdp)


def expectation_backup(Q: ArrayLike, mdp: FiniteMDP, policy: ArrayLike) -> np.ndarray:
    """Return T_pi Q: expected reward plus the discounted value of what the policy does next.

    Parameters
    ----------
    Q : ndarray of shape (n_states, n_actions)
        Action values, in units of discounted reward.
    mdp : FiniteMDP
        The process.
    policy : ndarray of int, shape (n_states,), or ndarray of float, shape (n_states, n_actions)
        The policy that acts after the first step.

    Returns
    -------
    ndarray of shape (n_states, n_actions)
        A new array.

    Raises
    ------
    ValueError
        If a shape disagrees or the policy is none.

    Notes
    -----
    Label ``eq-expectation-operator``.
    """
    Q = _checks.array("Q", Q, shape=mdp.R.shape, beside=mdp._sizes)
    return _backup((mdp.policy_matrix(policy) * Q).sum(axis=1), mdp)


def _backup(V: np.ndarray, mdp: FiniteMDP) -> np.ndarray:
    return mdp.R + mdp.gamma * (mdp.transitions @ V).reshape(mdp.R.shape)


def _best(Q: np.ndarray) -> np.ndarray:
    return Q.T.copy().max(axis=0)  # Q.max(axis=1), four times as fast: along the short axis numpy goes row by row


def greedy_policy(Q: ArrayLike) -> np.ndarray:
    """Return the best action of each state, the first one on a tie.

    Parameters
    ----------
    Q : ndarray of shape (n_states, n_actions)
        Action values.

    Returns
    -------
    ndarray of int, shape (n_states,)
        A deterministic policy.
    """
    return _checks.array("Q", Q, ndim=2).argmax(axis=1)


def policy_value(mdp: FiniteMDP, policy: ArrayLike) -> np.ndarray:
    """Return Q_pi exactly, by solving the linear Bellman equation of the policy.

    Parameters
    ----------
    mdp : FiniteMDP
        The process.
    policy : ndarray of int, shape (n_states,), or ndarray of float, shape (n_states, n_actions)
        The policy to evaluate.

    Returns
    -------
    ndarray of shape (n_states, n_actions)
        The fixed point of `expectation_backup`, by one n_states by n_states solve.

    Notes
    -----
    Label ``eq-policy-value``.
    """
    pi = mdp.policy_matrix(policy)
    reward = (pi * mdp.R).sum(axis=1)
    chain = mdp.state_transitions(pi)  # (S, S)
    if _checks.is_sparse(chain) and mdp.n_states <= DENSE:
        chain = chain.toarray()
    if _checks.is_sparse(chain):
        from scipy import sparse
        from scipy.sparse.linalg import spsolve

        V = spsolve(sparse.eye_array(mdp.n_states, format="csc") - mdp.gamma * chain.tocsc(), reward)
    else:
        V = np.linalg.solve(np.eye(mdp.n_states) - mdp.gamma * chain, reward)
    return _backup(V, mdp)


def value_iteration(mdp: FiniteMDP, *, tol: float | int, max_iter: int = 100_000) -> Solution:
    r"""Apply the optimality operator until the span of a sweep certifies the answer.

    Parameters
    ----------
    mdp : FiniteMDP
        The process.
    tol : float
        Stop when the guaranteed error is at most this, > 0.
    max_iter : int
        Largest number of sweeps.

    Returns
    -------
    Solution
        Its `error_bound` is at most `tol` when the status is ``"converged"``.

    Notes
    -----
    Label ``eq-span-bounds``. After a sweep with changes :math:`d = \max_a T^*Q - \max_a Q` the optimal state values
    lie between :math:`\max_a Q + \min d / (1 - \gamma)` and :math:`\max_a Q + \max d / (1 - \gamma)`; where episodes
    can end, the end counts as a state with :math:`d = 0`. One more backup and the midpoint give the answer. After J.
    MacQueen, "A modified dynamic programming method for Markovian decision problems", 1966.
    """
    tol = _checks.scalar("tol", tol, low=0, low_open=True)
    max_iter = _checks.integer("max_iter", max_iter, low=1)
    mass = mdp.continuation.reshape(mdp.R.shape)
    least, most = _masses(mdp)
    ends = least < 1 - _checks.TOLERANCE
    if ends:
        most = max(most, 1.0)
    V = np.zeros(mdp.n_states)
    for sweep in range(1, max_iter + 1):  # noqa: B007, the last one is returned
        Q = _backup(V, mdp)
        best = _best(Q)
        change = best - V
        off = _backup_error(V, mdp)
        blur = off + _rounding.EPS * float(np.abs(change).max())
        low, high = float(change.min()) - blur, float(change.max()) + blur
        if ends:
            low, high = min(low, 0.0), max(high, 0.0)
        low = _in_the_long_run(low, mdp.gamma, most if low < 0 else least, away=low < 0)
        high = _in_the_long_run(high, mdp.gamma, least if high < 0 else most, away=high >= 0)
        middle = (high + low) / 2
        error = mdp.gamma * most * (high - low) / 2 + off + _rounding.slack(_fill(mdp)) * mdp.gamma * most * abs(middle)
        error = (error + _rounding.EPS * float(np.abs(Q).max())) * (1 + _rounding.slack(1))
        error = error if np.isfinite(error) else np.inf
        if error <= tol or not change.any():
            break
        V = best
    if np.isfinite(middle):
        Q = Q + mdp.gamma * mass * middle
    return Solution(Q, greedy_policy(Q), "converged" if error <= tol else "undecided", sweep, float(error))


def _fill(mdp: FiniteMDP) -> int:
    """Return the most next states that a pair has; adding a zero rounds nothing."""
    rows = mdp.transitions
    return int((np.diff(rows.indptr) if _checks.is_sparse(rows) else np.count_nonzero(rows, axis=1)).max())


def _masses(mdp: FiniteMDP) -> tuple[float, float]:
    """Return bounds on what the rows of P sum to; FiniteMDP sees to it that, rounded once, none is above 1."""
    mass, rough = mdp.continuation, max(0, _fill(mdp) - 1) * _rounding.EPS
    return float(mass.min()) * (1 - rough), min(float(mass.max()) * (1 + rough), 1 + _rounding.EPS)


def _backup_error(V: np.ndarray, mdp: FiniteMDP) -> float:
    """Return the most by which the computed backup of V is off."""
    largest = float(np.abs(mdp.R).max() + np.abs(V).max())
    return (_fill(mdp) + 4) * _rounding.EPS * largest + mdp.n_states * _rounding.TINY


def _in_the_long_run(change: float, gamma: float, mass: float, *, away: bool) -> float:
    """Return the c with ``c = change + gamma * mass * c``, rounded away from 0 or towards it; infinite if unknown."""
    side = 1 if away else -1
    left = (1 - gamma * mass) - side * _rounding.EPS
    return change / left * (1 + side * 4 * _rounding.EPS) if left > 0 else float(np.copysign(np.inf, change))


def policy_iteration(mdp: FiniteMDP, *, max_iter: int = 1_000) -> Solution:
    """Evaluate a policy exactly, act greedily on the result, and repeat until nothing changes.

    Parameters
    ----------
    mdp : FiniteMDP
        The process.
    max_iter : int
        Largest number of policies to evaluate.

    Returns
    -------
    Solution
        The optimal table, up to rounding. Its `error_bound` counts all that is left: it is the residual of the table
        over ``1 - gamma``, with the rounding of the residual, so that near gamma = 1 it says how little is known.

    Notes
    -----
    An action is changed for every gain above the rounding of one backup. In exact arithmetic no policy comes twice;
    when one does, the gains that are left are due to the rounding of the solves, and the run ends as converged. After
    R. Howard, "Dynamic Programming and Markov Processes", 1960.
    """
    max_iter = _checks.integer("max_iter", max_iter, low=1)
    states = np.arange(mdp.n_states)
    policy, status, seen = greedy_policy(mdp.R), "undecided", set()
    for iteration in range(1, max_iter + 1):  # noqa: B007, the last one is returned
        seen.add(policy.tobytes())
        Q = policy_value(mdp, policy)
        better = Q.max(axis=1) > Q[states, policy] + 2 * _backup_error(Q[states, policy], mdp)
        after = np.where(better, greedy_policy(Q), policy)
        if after.tobytes() in seen:
            status = "converged"
            break
        policy = after
    off = _backup_error(_best(Q), mdp)
    residual = float(np.abs(_backup(_best(Q), mdp) - Q).max()) * (1 + 2 * _rounding.EPS) + off
    return Solution(Q, policy, status, iteration, _in_the_long_run(residual, mdp.gamma, _masses(mdp)[1], away=True))


def discounted_returns(rewards: ArrayLike, *, gamma: float | int) -> np.ndarray:
    """Return what follows each step of an episode: its reward, plus the discounted return of the rest.

    Parameters
    ----------
    rewards : ndarray of shape (n_steps,)
        Rewards of one episode that has ended, in order.
    gamma : float
        Discount factor in [0, 1]; an episode that ends may count every reward in full.

    Returns
    -------
    ndarray of shape (n_steps,)
        The return from each step on.

    Notes
    -----
    Labels ``eq-return`` and ``eq-return-recursion``: the second computes the first, from the last step to the first.
    """
    rewards = _checks.array("rewards", rewards, ndim=1)
    gamma = _checks.scalar("gamma", gamma, low=0, high=1)
    returns, rest = np.zeros(len(rewards)), 0.0
    for t in reversed(range(len(rewards))):
        returns[t] = rest = rewards[t] + gamma * rest
    return returns


def reward_bound(mdp: FiniteMDP) -> float:
    """Return r_max / (1 - gamma), which no true action value can exceed in size.

    Parameters
    ----------
    mdp : FiniteMDP
        The process.

    Returns
    -------
    float
        In units of discounted reward.

    Notes
    -----
    Label ``eq-reward-bound``.
    """
    return float(np.abs(mdp.R).max() / (1 - mdp.gamma))


def q_learning(
    env: Any,
    *,
    gamma: float | int,
    steps: int,
    step_size: float | int,
    power: float | int = 0.0,
    epsilon: float | int,
    rng: np.random.Generator,
    snapshots: int = 1,
) -> np.ndarray:
    """Learn a table by Q-learning from single steps in a running environment.

    Parameters
    ----------
    env : gymnasium.Env
        Discrete states and actions, numbered from 0. A truncated episode still bootstraps; a terminated one does not.
    gamma : float
        Discount factor in [0, 1).
    steps : int
        Environment steps to take.
    step_size : float
        In (0, 1]. The n-th update of a pair uses ``step_size / n ** power``.
    power : float
        0 keeps the step size; a value in (0.5, 1] averages the noise of a random environment away.
    epsilon : float
        Chance of a random action, in [0, 1]; ties are broken at random.
    rng : numpy.random.Generator
        Seeds the environment once and makes every choice.
    snapshots : int
        How many tables to return, evenly spaced over the run; the last one is the result.

    Returns
    -------
    ndarray of shape (snapshots, n_states, n_actions)
        The table on the way, starting from zero.

    Raises
    ------
    TypeError
        If the environment's states or actions are not discrete.
    ValueError
        If they are not numbered from 0, or an argument is out of range.

    Notes
    -----
    Label ``eq-q-learning``. After C. Watkins, "Learning from delayed rewards", 1989.
    """
    gamma = _checks.scalar("gamma", gamma, low=0, high=1, high_open=True)
    step_size = _checks.scalar("step_size", step_size, low=0, high=1, low_open=True)
    power = _checks.scalar("power", power, low=0, high=1)
    epsilon = _checks.scalar("epsilon", epsilon, low=0, high=1)
    steps = _checks.integer("steps", steps, low=1)
    snapshots = _checks.integer("snapshots", snapshots, low=1, high=steps)
    n_states, n_actions = _sizes(env)
    _checks.memory("q_learning", snapshots, n_states, n_actions, copies=2)
    Q, visits = np.zeros((n_states, n_actions)), np.zeros((n_states, n_actions))
    kept, due = [], set(np.linspace(0, steps, snapshots + 1).astype(int)[1:].tolist())
    explore, pick = rng.random(steps) < epsilon, rng.integers(n_actions, size=steps)
    state, _ = env.reset(seed=int(rng.integers(2**31)))
    for t in range(steps):
        action = int(pick[t]) if explore[t] else _random_argmax(Q[state], rng)
        next_state, reward, terminated, truncated, _ = env.step(action)
        target = reward + (0.0 if terminated else gamma * Q[next_state].max())
        visits[state, action] += 1
        Q[state, action] += step_size / visits[state, action] ** power * (target - Q[state, action])
        state = env.reset()[0] if terminated or truncated else next_state
        if t + 1 in due:
            kept.append(Q.copy())
    return np.array(kept)


def _sizes(env: Any) -> tuple[int, int]:
    for name in ("observation_space", "action_space"):
        space = getattr(env, name, None)
        if not hasattr(space, "n") or getattr(space, "shape", ()) != ():  # n switches at once have an n too
            raise TypeError(f"env must have a discrete {name}, got {space}")
        if getattr(space, "start", 0) != 0:
            raise ValueError(f"env must have an {name} that starts at 0, got {space}")
    return int(env.observation_space.n), int(env.action_space.n)


def _random_argmax(values: np.ndarray, rng: np.random.Generator) -> int:
    best = np.flatnonzero(values == values.max())
    return int(best[0]) if len(best) == 1 else int(rng.choice(best))


def policy_return(
    env: Any, policy: ArrayLike, *, episodes: int, seed: int, gamma: float | int = 1.0, max_steps: int = 10_000
) -> np.ndarray:
    """Play a deterministic policy in the running environment.

    Parameters
    ----------
    env : gymnasium.Env
        Discrete states and actions, numbered from 0; an episode ends when it terminates or is truncated.
    policy : ndarray of int, shape (n_states,)
        The action of each state.
    episodes : int
        How many episodes to play.
    seed : int
        Episode `k` is reset with ``seed + k``.
    gamma : float
        Discount factor in [0, 1]; 1 adds the rewards up as they are.
    max_steps : int
        An episode is cut here, since a bad policy may never end one where there is no time limit.

    Returns
    -------
    ndarray of shape (episodes,)
        The return of each episode from its first step.

    Raises
    ------
    TypeError
        If the environment's states or actions are not discrete.
    ValueError
        If they are not numbered from 0, or an argument is out of range.
    """
    n_states, n_actions = _sizes(env)
    beside = f"env has {n_states} states"
    actions = _checks.indices("policy", policy, high=n_actions, shape=(n_states,), beside=beside)
    gamma = _checks.scalar("gamma", gamma, low=0, high=1)
    max_steps = _checks.integer("max_steps", max_steps, low=1)
    returns = np.zeros(_checks.integer("episodes", episodes, low=1))
    for k in range(len(returns)):
        state, _ = env.reset(seed=seed + k)
        weight = 1.0
        for _ in range(max_steps):
            state, reward, terminated, truncated, _ = env.step(int(actions[state]))
            returns[k] += weight * reward
            weight *= gamma
            if terminated or truncated:
                break
    return returns
