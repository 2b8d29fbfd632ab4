"""Finite Markov decision processes: the model, where it comes from, and the one way to number its pairs.

A model is given, drawn at random, read off an environment of gymnasium, or counted from stored transitions; what a
policy makes of it is a matrix. Values and policies that are good in it are `bellman`.
"""

import dataclasses
import itertools
import math
import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from divergence_notes import _checks
from divergence_notes._checks import ArrayLike

if TYPE_CHECKING:
    import scipy.sparse


@dataclasses.dataclass(frozen=True, eq=False)
class FiniteMDP:
    """A Markov decision process with finitely many states and actions.

    Parameters
    ----------
    P : ndarray of shape (n_states, n_actions, n_states), or scipy.sparse of shape (n_states * n_actions, n_states)
        ``P[s, a, s2]`` is the probability that action `a` in state `s` leads on to state `s2`. A row sums to 1, or to
        less: the missing mass ends the episode, and nothing is bootstrapped from it. A row that sums to more than 1 by
        at most 1e-8 is scaled down to 1, since a loop with the mass 1 + 1e-8 would pay for ever more.
    R : ndarray of shape (n_states, n_actions)
        Expected immediate reward, in units of reward.
    gamma : float
        Discount factor in [0, 1).

    Raises
    ------
    ValueError
        If the shapes of `P` and `R` disagree, an entry is negative or not finite, a row sums to more than 1 + 1e-8, or
        `gamma` is outside [0, 1).

    Notes
    -----
    The arrays are copied and made read-only. A pair ``(s, a)`` has the number ``i = s * n_actions + a``; `flatten` and
    `unflatten` are the only converters. Change the discount with ``dataclasses.replace(mdp, gamma=0.5)``.
    """

    P: Any
    R: Any
    gamma: float | int

    def __post_init__(self):
        R = _checks.array("R", self.R, ndim=2).copy()
        if R.size == 0:
            raise ValueError(f"R must have at least one state and one action, got shape {R.shape}")
        P = _sparse_rows(self.P, R.shape) if _checks.is_sparse(self.P) else _dense_rows(self.P, R.shape)
        gamma = _checks.scalar("gamma", self.gamma, low=0, high=1, high_open=True)
        R.setflags(write=False)
        for name, value in (("P", P), ("R", R), ("gamma", gamma)):
            object.__setattr__(self, name, value)

    @property
    def n_states(self) -> int:
        """Number of states."""
        return self.R.shape[0]

    @property
    def n_actions(self) -> int:
        """Number of actions, the same in every state."""
        return self.R.shape[1]

    @property
    def n_pairs(self) -> int:
        """Number of state-action pairs."""
        return self.R.size

    @property
    def transitions(self) -> Any:
        """The rows of P, one for each pair: (n_pairs, n_states), dense view or csr array."""
        return self.P if _checks.is_sparse(self.P) else self.P.reshape(self.n_pairs, self.n_states)

    @property
    def continuation(self) -> np.ndarray:
        """Probability that the episode goes on after each pair, shape (n_pairs,)."""
        return np.asarray(self.transitions.sum(axis=1)).ravel()

    @property
    def _sizes(self) -> str:
        """What an error says of the process beside an argument that does not fit it."""
        return f"mdp has n_states = {self.n_states} and n_actions = {self.n_actions}"

    def flatten(self, Q: ArrayLike) -> np.ndarray:
        """Turn a table into a vector.

        Parameters
        ----------
        Q : ndarray of shape (n_states, n_actions)
            A number for each pair.

        Returns
        -------
        ndarray of shape (n_pairs,)
            A new array, state by state.
        """
        return _checks.array("Q", Q, shape=self.R.shape, beside=self._sizes).ravel().copy()

    def unflatten(self, q: ArrayLike) -> np.ndarray:
        """Turn a vector into a table.

        Parameters
        ----------
        q : ndarray of shape (n_pairs,)
            A number for each pair, state by state.

        Returns
        -------
        ndarray of shape (n_states, n_actions)
            A new array.
        """
        return _checks.array("q", q, shape=(self.n_pairs,), beside=self._sizes).reshape(self.R.shape).copy()

    def policy_matrix(self, policy: ArrayLike) -> np.ndarray:
        """Return the action probabilities of a policy.

        Parameters
        ----------
        policy : ndarray of int, shape (n_states,), or ndarray of float, shape (n_states, n_actions)
            The action of each state, or a distribution over actions in each state.

        Returns
        -------
        ndarray of shape (n_states, n_actions)
            Each row sums to 1.

        Raises
        ------
        ValueError
            If an action does not exist or a row is no distribution.
        """
        given = np.asarray(policy)
        if given.ndim == 1:
            shape = (self.n_states,)
            chosen = _checks.indices("policy", given, high=self.n_actions, shape=shape, beside=self._sizes)
            out = np.zeros((self.n_states, self.n_actions))
            out[np.arange(self.n_states), chosen] = 1.0
            return out
        out = _checks.array("policy", policy, shape=self.R.shape, beside=self._sizes)
        _checks.non_negative("policy", out)
        sums = out.sum(axis=1)
        bad = np.argwhere(np.abs(sums - 1) > _checks.TOLERANCE)
        if len(bad):
            raise ValueError(
                f"policy must be a distribution: policy[{bad[0][0]}] sums to {sums[bad[0][0]]:.6g}, not to 1"
            )
        return out

    def pair_transitions(self, policy: ArrayLike) -> np.ndarray:
        """Return P_pi, the matrix from pair to pair when `policy` acts.

        Parameters
        ----------
        policy : ndarray of int, shape (n_states,), or ndarray of float, shape (n_states, n_actions)
            As in `policy_matrix`.

        Returns
        -------
        ndarray of shape (n_pairs, n_pairs)
            Dense, also where P is sparse.
        """
        _checks.memory("pair_transitions", self.n_pairs, self.n_pairs, hint=", one row for each pair")
        rows = self.transitions.toarray() if _checks.is_sparse(self.P) else self.transitions
        return (rows[:, :, None] * self.policy_matrix(policy)).reshape(self.n_pairs, self.n_pairs)

    def state_transitions(self, policy: ArrayLike) -> Any:
        """Return the matrix from state to state when `policy` acts.

        Parameters
        ----------
        policy : ndarray of int, shape (n_states,), or ndarray of float, shape (n_states, n_actions)
            As in `policy_matrix`.

        Returns
        -------
        ndarray or scipy.sparse.csr_array, shape (n_states, n_states)
            Dense or sparse, as P is.
        """
        pi = self.policy_matrix(policy)
        if not _checks.is_sparse(self.P):
            chain = np.zeros((self.n_states, self.n_states))
            for action in range(self.n_actions):  # in the order in which the product below adds, to the last bit
                chain += pi[:, action, None] * self.P[:, action]
            return chain
        import scipy.sparse as sp

        starts = np.arange(0, self.n_pairs + 1, self.n_actions)
        average = sp.csr_array((pi.ravel(), np.arange(self.n_pairs), starts), shape=(self.n_states, self.n_pairs))
        return average @ self.transitions

    def policies(self) -> Iterator[np.ndarray]:
        """Return every deterministic policy, for a process that has few of them.

        Returns
        -------
        iterator of ndarray of int, shape (n_states,)
            In lexicographic order of their actions.

        Raises
        ------
        ValueError
            If there are more than 100000.
        """
        count = self.n_actions**self.n_states
        if count > 100_000:
            raise ValueError(f"mdp must have at most 100000 deterministic policies here, it has {count}")
        return map(np.array, itertools.product(range(self.n_actions), repeat=self.n_states))


def _dense_rows(P: ArrayLike, shape: tuple[int, int]) -> np.ndarray:
    out = _checks.array("P", P, ndim=3).copy()
    n_states, n_actions = shape
    if out.shape[0] != out.shape[2]:
        raise ValueError(
            f"P must have shape (n_states, n_actions, n_states), got {out.shape}, while R has shape {shape}"
        )
    _agree(out.shape, (n_states, n_actions, n_states), shape)
    _checks.non_negative("P", out)
    _check_mass(out.sum(axis=2))
    _scale_down(out.reshape(-1, n_states), out.sum(axis=2).ravel())
    out.setflags(write=False)
    return out


def _agree(found: tuple[int, ...], wanted: tuple[int, ...], shape: tuple[int, int]) -> None:
    """Raise where P and R are not of one process; neither of them is to blame."""
    if found != wanted:
        raise ValueError(f"P and R must agree in shape: R has shape {shape}, so that P has {wanted}; got {found}")


def _sparse_rows(P: Any, shape: tuple[int, int]) -> "scipy.sparse.csr_array":
    import scipy.sparse as sp

    n_states, n_actions = shape
    out = sp.csr_array(P, dtype=np.float64, copy=True)
    _agree(out.shape, (n_states * n_actions, n_states), shape)
    out.sum_duplicates()
    wrong = np.flatnonzero(~(np.isfinite(out.data) & (out.data >= 0)))
    if len(wrong):
        row, column = (int(index[wrong[0]]) for index in out.tocoo().coords)
        raise ValueError(f"P must be finite and non-negative: P[{row}, {column}] is {out.data[wrong[0]]:.6g}")
    total = np.asarray(out.sum(axis=1)).ravel()
    _check_mass(total.reshape(shape))
    _scale_down([out.data[i:j] for i, j in itertools.pairwise(out.indptr)], total)
    for part in (out.data, out.indices, out.indptr):
        part.setflags(write=False)
    return out


def _check_mass(total: np.ndarray) -> None:
    bad = np.argwhere(total > 1 + _checks.TOLERANCE)
    if len(bad):
        s, a = bad[0]
        raise ValueError(f"P must be a distribution over next states, or less: P[{s}, {a}] sums to {total[s, a]:.12g}")


def _scale_down(rows: Sequence[np.ndarray] | np.ndarray, total: np.ndarray) -> None:
    """Scale down, in place, the rows that sum to more than 1. The sums are rounded once, whatever order and zeros."""
    for i in np.flatnonzero(total > 1 - 1e-9):
        row = rows[i]
        mass = math.fsum(row[row > 0])
        if mass > 1:
            row /= mass
        while mass > 1 and math.fsum(row) > 1:
            row *= 1 - np.finfo(np.float64).epsneg  # one step down in each entry


def from_gymnasium(env: Any, gamma: float | int) -> FiniteMDP:
    """Read the model that a toy-text environment exposes as ``env.unwrapped.P``.

    Parameters
    ----------
    env : gymnasium.Env
        FrozenLake, Taxi, CliffWalking, or any environment with the same table: ``P[s][a]`` lists outcomes
        ``(probability, next_state, reward, terminated)``, which may be followed by more. Mappings with the keys 0, 1,
        ... and sequences or arrays are read alike, and so are outcomes that come from a generator.
    gamma : float
        Discount factor in [0, 1).

    Returns
    -------
    FiniteMDP
        A transition flagged `terminated` counts its reward and adds nothing to P: the episode ends there. A time limit
        is no part of the model: truncation is not termination.

    Raises
    ------
    TypeError
        If the environment has no such table, or what should be a number or a flag is none.
    ValueError
        If a key is missing, the states differ in their actions, a number is no probability, the probabilities of a pair
        do not sum to 1, a next state does not exist, or the table would need more than 2 GB.
    """
    table = getattr(getattr(env, "unwrapped", env), "P", None)
    if not isinstance(table, (Mapping, Sequence, np.ndarray)) or isinstance(table, str):
        raise TypeError(f"env must expose its model as a table `P[s][a]`, as Taxi does; {env} has {_kind(table)}")
    states = [_listed(f"P[{s}]", actions) for s, actions in enumerate(_listed("P", table))]
    n_states, n_actions = len(states), len(states[0])
    for s, actions in enumerate(states):
        if len(actions) != n_actions:
            raise ValueError(
                f"env.P must have the same actions in every state: P[{s}] has {len(actions)}, P[0] has {n_actions}"
            )
    _checks.memory("from_gymnasium", n_states, n_actions, n_states, copies=2)
    P, R = np.zeros((n_states, n_actions, n_states)), np.zeros((n_states, n_actions))
    for s, a in np.ndindex(R.shape):
        total = 0.0
        for k, outcome in enumerate(states[s][a]):
            where = f"env.P[{s}][{a}][{k}]"
            probability, next_state, reward, terminated = _fields(
                where, outcome, ("probability", "next_state", "reward", "terminated"), more=None
            )
            probability = _number(where, "a probability", probability)
            if not 0 <= probability <= 1:
                raise ValueError(f"{where} must have a probability in [0, 1], got {probability:g}")
            next_state = _whole(where, "a next_state", next_state, n_states)
            R[s, a] += probability * _number(where, "a reward", reward)
            total += probability
            if not _flag(where, "terminated", terminated):
                P[s, a, next_state] += probability
        if abs(total - 1) > _checks.TOLERANCE:
            raise ValueError(f"env.P must hold distributions: P[{s}][{a}] sums to {total:.6g}, not to 1")
    return FiniteMDP(P, R, gamma)


def _kind(value: Any) -> str:
    return type(value).__name__


def _listed(name: str, table: Any) -> list:
    """Return the entries of a mapping with the keys 0, 1, ..., of a sequence or of an array."""
    if isinstance(table, Mapping):
        missing = next((key for key in range(len(table)) if key not in table), None)
        if missing is not None:
            keys = ", ".join(repr(key) for key in list(table)[:5])
            raise ValueError(
                f"env.{name} must have the keys 0 to {len(table) - 1}: {missing} is missing, it has {keys}"
            )
        table = [table[key] for key in range(len(table))]
    elif isinstance(table, str) or not isinstance(table, Iterable):
        raise TypeError(f"env.{name} must be a mapping, a sequence or an array, got {_kind(table)}")
    entries = list(table)
    if not entries:
        raise ValueError(f"env.{name} must have at least one entry, got none")
    return entries


def _fields(where: str, row: Any, names: tuple[str, ...], *, more: int | None) -> list:
    """Return the named fields of a row that may go on for `more` fields, or for any number."""
    found = None if isinstance(row, (str, Mapping)) or not isinstance(row, Iterable) else list(row)
    if found is None or len(found) < len(names) or (more is not None and len(found) > len(names) + more):
        got = repr(row) if found is None else f"{len(found)} fields"
        raise ValueError(f"{where} must be ({', '.join(names)}), got {got}")
    return [_alone(value) for value in found[: len(names)]]


def _alone(value: Any) -> Any:
    """Return the one entry of an array that has one, and everything else as it is."""
    return value.item() if hasattr(value, "item") and math.prod(np.shape(value)) == 1 else value


def _number(where: str, what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{where} must have {what} that is a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{where} must have {what} that is finite, got {value!r}")
    return float(value)


def _whole(where: str, what: str, value: Any, high: int) -> int:
    number = _number(where, what, value)
    if not number.is_integer() or not 0 <= number < high:
        raise ValueError(f"{where} must have {what} in [0, {high - 1}], got {value!r}")
    return int(number)


def _flag(where: str, what: str, value: Any) -> bool:
    """Return a flag; text is none, since 'False' counts as true, and neither is a number but 0 and 1."""
    if not isinstance(value, (bool, numbers.Real)) or value not in (0, 1):
        raise TypeError(f"{where} must have a flag {what} that is True or False, got {value!r}")
    return bool(value)


def random_mdp(
    n_states: int,
    n_actions: int,
    *,
    gamma: float | int,
    branching: int,
    rng: np.random.Generator,
    sparse: bool = False,
) -> FiniteMDP:
    """Draw a random process in which every pair leads to a few random states (a Garnet).

    Parameters
    ----------
    n_states, n_actions : int
        Sizes, at least 1.
    gamma : float
        Discount factor in [0, 1).
    branching : int
        Number of different next states of each pair, from 1 to `n_states`.
    rng : numpy.random.Generator
        The source of all randomness.
    sparse : bool
        Keep P as a sparse matrix. A dense one that would need more than 2 GB is refused.

    Returns
    -------
    FiniteMDP
        Probabilities are uniform on the simplex, rewards standard normal.

    Notes
    -----
    After T. W. Archibald, K. I. M. McKinnon and L. C. Thomas, "On the generation of Markov decision processes", 1995.
    """
    n_states = _checks.integer("n_states", n_states, low=1)
    n_actions = _checks.integer("n_actions", n_actions, low=1)
    branching = _checks.integer("branching", branching, low=1, high=n_states)
    n_pairs = n_states * n_actions
    if not sparse:
        _checks.memory("random_mdp", n_pairs, n_states, copies=2, hint="; sparse=True needs less")
    _checks.memory("random_mdp", n_pairs, branching, copies=6)
    columns = np.array([rng.choice(n_states, size=branching, replace=False) for _ in range(n_pairs)])
    mass = rng.dirichlet(np.ones(branching), size=n_pairs)
    R = rng.standard_normal((n_states, n_actions))
    if sparse:
        import scipy.sparse as sp

        rows = np.repeat(np.arange(n_pairs), branching)
        return FiniteMDP(sp.csr_array((mass.ravel(), (rows, columns.ravel())), shape=(n_pairs, n_states)), R, gamma)
    P = np.zeros((n_pairs, n_states))
    np.put_along_axis(P, columns, mass, axis=1)
    return FiniteMDP(P.reshape(n_states, n_actions, n_states), R, gamma)


def stationary_distribution(mdp: FiniteMDP, policy: ArrayLike) -> np.ndarray:
    """Return how often each pair is visited in the long run when `policy` acts: on-policy data.

    Parameters
    ----------
    mdp : FiniteMDP
        A process that never ends: every row of P sums to 1.
    policy : ndarray of int, shape (n_states,), or ndarray of float, shape (n_states, n_actions)
        The policy that acts.

    Returns
    -------
    ndarray of shape (n_pairs,)
        A distribution over pairs.

    Raises
    ------
    ValueError
        If an episode can end, or if the policy has more than one stationary distribution, or nearly so: where chances
        of some 1e-10 alone lead from one part of the process to another, rounding would decide how the parts share.
    """
    ends = np.flatnonzero(np.abs(mdp.continuation - 1) > _checks.TOLERANCE)
    if len(ends):
        s, a = divmod(int(ends[0]), mdp.n_actions)
        raise ValueError(f"mdp must never end: P[{s}, {a}] sums to {mdp.continuation[ends[0]]:.6g}, not to 1")
    pi = mdp.policy_matrix(policy)
    _checks.memory("stationary_distribution", mdp.n_states, mdp.n_states, copies=5)
    chain = mdp.state_transitions(pi)
    chain = chain.toarray() if _checks.is_sparse(chain) else chain
    total = chain.sum(axis=1, keepdims=True)  # off by up to 2e-8, more than is looked for below; rounding may stay
    chain = chain / np.where(np.abs(total - 1) > 1e-12, total, 1.0)
    _, sizes, directions = np.linalg.svd(chain.T - np.eye(mdp.n_states))
    basis = directions[sizes <= 1e-10]  # absolute: with one state the whole matrix is rounding
    if len(basis) != 1:
        raise ValueError(
            f"policy must have one stationary distribution, within 1e-10 it has {len(basis)} independent ones"
        )
    states = basis[0] / basis[0].sum()
    return (np.abs(states)[:, None] * pi).ravel()


def reachable(mdp: FiniteMDP, start: int) -> np.ndarray:
    """Return which states can ever be met after `start`, whatever the policy.

    Parameters
    ----------
    mdp : FiniteMDP
        The process.
    start : int
        The first state, met by definition.

    Returns
    -------
    ndarray of bool, shape (n_states,)
        A table can be learned from experience in these states alone.
    """
    start = _checks.integer("start", start, low=0, high=mdp.n_states - 1)
    links = mdp.transitions > 0
    met = np.arange(mdp.n_states) == start
    fresh = met
    while fresh.any():
        rows = np.repeat(fresh, mdp.n_actions)
        fresh = (np.asarray(links[np.flatnonzero(rows)].sum(axis=0)).ravel() > 0) & ~met
        met = met | fresh
    return met


def from_transitions(
    transitions: Iterable,
    *,
    n_states: int,
    n_actions: int,
    gamma: float | int,
) -> tuple[FiniteMDP, np.ndarray]:
    """Return the process that a set of stored steps describes, and the share of each pair among them.

    Parameters
    ----------
    transitions : iterable of (state, action, reward, next_state, terminated), or array of shape (n_steps, 5)
        Steps as an environment returned them, from a replay buffer or a minibatch of one. A terminated step leads
        nowhere; a truncated one leads on, so that a sixth field `truncated` changes nothing. A state, an action or a
        reward may be an array of one entry.
    n_states, n_actions : int
        Sizes, at least 1.
    gamma : float
        Discount factor in [0, 1).

    Returns
    -------
    mdp : FiniteMDP
        Frequencies in place of probabilities, averages in place of expected rewards. A pair without data has the
        reward 0 and ends the episode; its weight is 0.
    weights : ndarray of shape (n_pairs,)
        The share of each pair.

    Raises
    ------
    TypeError
        If what should be a number or a flag is none.
    ValueError
        If there are no transitions, a row has other fields, a state or an action is out of range, a reward is not
        finite, or the table would need more than 2 GB.
    """
    n_states, n_actions = _checks.integer("n_states", n_states, low=1), _checks.integer("n_actions", n_actions, low=1)
    _checks.memory("from_transitions", n_states, n_actions, n_states, copies=2)
    names, steps = ("state", "action", "reward", "next_state", "terminated"), []
    for k, row in enumerate(transitions):
        where = f"transitions[{k}]"
        state, action, reward, after, over = _fields(where, row, names, more=1)
        state, action = _whole(where, "a state", state, n_states), _whole(where, "an action", action, n_actions)
        after, over = _whole(where, "a next_state", after, n_states), _flag(where, "terminated", over)
        steps.append((state * n_actions + action, _number(where, "a reward", reward), after, not over))
    if not steps:
        raise ValueError("transitions must hold at least one step, got none")
    pairs, rewards, after, goes_on = map(np.array, zip(*steps, strict=True))
    counts = np.bincount(pairs, minlength=n_states * n_actions)
    seen = np.maximum(counts, 1)
    R = np.bincount(pairs, weights=rewards, minlength=len(counts)) / seen
    P = np.zeros((len(counts), n_states))
    np.add.at(P, (pairs[goes_on], after[goes_on]), 1.0)
    P /= seen[:, None]
    mdp = FiniteMDP(P.reshape(n_states, n_actions, n_states), R.reshape(n_states, n_actions), gamma)
    return mdp, counts / counts.sum()
