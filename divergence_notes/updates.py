"""The update that the book studies, ``U(Q) = Q + M (T*Q - Q)``, with the matrix M of each way to learn.

Here live the updates themselves, what they do in one step, and the real step of a linear Q-function. What is said of
an update, whether it contracts and in which norm, is in `contraction` and `norms`; the step of a network in `networks`.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from divergence_notes import _checks, _rounding, bellman
from divergence_notes._checks import ArrayLike
from divergence_notes.mdp import FiniteMDP

_LARGEST = float(np.finfo(np.float64).max) / 8
"""Row sums of M below this leave room for what is added to them: inf - inf decides nothing."""


@dataclasses.dataclass(frozen=True, eq=False)
class Update:
    """One update of a whole table: ``U(Q) = Q + M (T*Q - Q)``. Call it with a table, and it returns the next one.

    Parameters
    ----------
    mdp : FiniteMDP
        The process whose optimality operator T* gives the targets.
    matrix : ndarray of shape (n_pairs, n_pairs)
        M: ``M[i, j]`` moves pair `i` per unit of TD error at pair `j`. Copied and made read-only.
    policy : ndarray of int, shape (n_states,), or ndarray of float, shape (n_states, n_actions), optional
        With a policy the targets are its own, T_pi in place of T*, and the update is affine.

    Raises
    ------
    ValueError
        If a shape disagrees with `mdp`, an entry is not finite, a sum over a row of M overflows, or the policy is none.

    Notes
    -----
    Label ``eq-update``. Everything is checked here, once, and nothing again at a step. The constructors give the M of
    each way to learn: `table`, `shares`, `preconditioned`, `frozen_target`, and for a kernel `KernelUpdate` and its
    `residual_gradient`. Change a part with ``dataclasses.replace``.
    """

    mdp: FiniteMDP
    matrix: Any
    policy: Any = None

    def __post_init__(self):
        matrix = _checks.square("matrix", self.matrix, size=self.mdp.n_pairs, beside=self.mdp._sizes)
        if not _longest_row(matrix) < _LARGEST:
            raise ValueError(f"matrix must have rows whose absolute sums are below {_LARGEST:.3g}")
        self._hold("matrix", matrix)
        self._hold_policy()

    def _hold(self, name: str, value: np.ndarray) -> None:
        """Store a read-only copy, since whoever holds an update may count on what was checked."""
        value = value.copy()
        value.setflags(write=False)
        object.__setattr__(self, name, value)

    def _hold_policy(self) -> None:
        if self.policy is not None:
            self._hold("policy", self.mdp.policy_matrix(self.policy))

    def __call__(self, Q: ArrayLike) -> np.ndarray:
        """Return the table after one update.

        Parameters
        ----------
        Q : ndarray of shape (n_states, n_actions)
            Action values, in units of discounted reward.

        Returns
        -------
        ndarray of shape (n_states, n_actions)
            A new array.

        Raises
        ------
        ValueError
            If the shape of `Q` disagrees with the process or an entry is not finite.
        """
        Q = _checks.array("Q", Q, shape=self.mdp.R.shape, beside=self.mdp._sizes)
        return Q + (self.matrix @ self._td_error(Q)).reshape(Q.shape)

    def _td_error(self, Q: np.ndarray) -> Float[np.ndarray, " n"]:
        """Return backup minus value of every pair."""
        best = bellman._best(Q) if self.policy is None else (self.policy * Q).sum(axis=1)
        return (bellman._backup(best, self.mdp) - Q).ravel()

    @classmethod
    def table(cls, mdp: FiniteMDP, *, alpha: float | int) -> "Update":
        """Return U1, in which every pair moves the same fraction of the way to its backup: M = alpha I.

        Parameters
        ----------
        mdp : FiniteMDP
            The process.
        alpha : float
            Step size, > 0.

        Returns
        -------
        Update
            ``Q + alpha (T*Q - Q)``.

        Raises
        ------
        ValueError
            If `alpha` is not positive, or M would need more than 2 GB.

        Notes
        -----
        Label ``eq-u1``; arXiv:1903.08894.
        """
        alpha = _checks.scalar("alpha", alpha, low=0, low_open=True)
        _checks.memory("table", mdp.n_pairs, mdp.n_pairs, copies=2)
        return Update(mdp, alpha * np.eye(mdp.n_pairs))

    @classmethod
    def shares(cls, mdp: FiniteMDP, *, weights: ArrayLike, alpha: float | int) -> "Update":
        """Return U2, in which a pair moves in proportion to how often it is sampled: M = alpha D.

        Parameters
        ----------
        mdp : FiniteMDP
            The process.
        weights : ndarray of shape (n_pairs,)
            Sampling distribution rho; non-negative, sums to 1.
        alpha : float
            Step size, > 0.

        Returns
        -------
        Update
            ``Q + alpha D (T*Q - Q)``.

        Raises
        ------
        ValueError
            If `weights` is no distribution over the pairs, `alpha` is not positive, or M would need more than 2 GB.

        Notes
        -----
        Label ``eq-u2``; arXiv:1903.08894.
        """
        weights = _checks.distribution("weights", weights, size=mdp.n_pairs, beside=mdp._sizes)
        alpha = _checks.scalar("alpha", alpha, low=0, low_open=True)
        _checks.memory("shares", mdp.n_pairs, mdp.n_pairs, copies=2)
        return Update(mdp, np.diag(alpha * weights))

    @classmethod
    def preconditioned(cls, mdp: FiniteMDP, *, kernel: ArrayLike, batch: ArrayLike, alpha: float | int) -> "Update":
        """Return the update that undoes the kernel on a batch: PreQN in the linear limit.

        Parameters
        ----------
        mdp : FiniteMDP
            The process.
        kernel : ndarray of shape (n_pairs, n_pairs)
            The kernel K; its block on the batch must be nonsingular.
        batch : ndarray of int, shape (b,)
            Numbers of the pairs in the batch, each at most once.
        alpha : float
            Step size, > 0.

        Returns
        -------
        Update
            ``M = alpha K_:B K_BB^-1 E_B``: pairs in the batch move by exactly ``alpha`` times their TD error, the
            others by what leaks to them.

        Raises
        ------
        ValueError
            If a shape disagrees, a pair is listed twice, the kernel is singular on the batch, or `alpha` is not
            positive.

        Notes
        -----
        Label ``eq-preconditioned-update``; arXiv:1903.08894, for a kernel that does not change.
        """
        kernel = _checks.square("kernel", kernel, size=mdp.n_pairs, beside=mdp._sizes)
        batch = _batch(batch, mdp.n_pairs)
        alpha = _checks.scalar("alpha", alpha, low=0, low_open=True)
        matrix = np.zeros_like(kernel)
        matrix[batch, batch] = alpha
        matrix[np.ix_(_outside(batch, mdp.n_pairs), batch)] = alpha * spill(kernel, batch=batch)
        return Update(mdp, matrix)

    def frozen_target(self, inner: int) -> "Update":
        """Return several of these updates towards targets that stand still, as with a target network, taken as one.

        Parameters
        ----------
        inner : int
            Updates from one copy into the target network to the next, at least 1; with 1 nothing changes.

        Returns
        -------
        Update
            ``I - (I - M)^inner`` in place of M; the targets are the backup of the table at the last copy.

        Raises
        ------
        ValueError
            If `inner` is below 1, or the powers of ``I - M`` overflow.

        Notes
        -----
        Label ``eq-frozen-target``.
        """
        inner = _checks.integer("inner", inner, low=1)
        eye = np.eye(self.mdp.n_pairs)
        with np.errstate(over="ignore", invalid="ignore"):
            moved = eye - np.linalg.matrix_power(eye - self.matrix, inner) if inner > 1 else self.matrix
        if not _longest_row(moved) < _LARGEST:
            raise ValueError(f"inner must leave the powers of I - M finite, at {inner} they are not")
        return Update(self.mdp, moved, self.policy)

    @property
    def n_policies(self) -> int:
        """Number of deterministic policies that targets may follow, one linear piece of the update for each."""
        return 1 if self.policy is not None else self.mdp.n_actions**self.mdp.n_states

    def policies(self) -> Iterator[np.ndarray]:
        """Return the policies that targets may follow: its own if it has one, else every deterministic one.

        Returns
        -------
        iterator of ndarray
            As `mdp.FiniteMDP.policies` gives them.

        Raises
        ------
        ValueError
            If the process has more than 100000 deterministic policies.
        """
        return iter([self.policy]) if self.policy is not None else self.mdp.policies()

    def jacobian(self, policy: ArrayLike | None = None) -> np.ndarray:
        """Return the matrix by which the update moves differences while the greedy policy stays `policy`.

        Parameters
        ----------
        policy : ndarray of int, shape (n_states,), or ndarray of float, shape (n_states, n_actions), optional
            The policy whose next action is bootstrapped from. May be left out where the update has a policy of its own.

        Returns
        -------
        ndarray of shape (n_pairs, n_pairs)
            ``I - M (I - gamma P_pi)``.

        Raises
        ------
        ValueError
            If a shape disagrees, or no policy is given and the update has none.

        Notes
        -----
        Label ``eq-jacobian``.
        """
        policy = self.policy if policy is None else policy
        if policy is None:
            raise ValueError("policy must be given: an update with T* has a Jacobian for each policy, got None")
        eye = np.eye(self.mdp.n_pairs)
        return eye - self.matrix @ (eye - self.mdp.gamma * self.mdp.pair_transitions(policy))

    def jacobians(self) -> np.ndarray:
        """Return the Jacobian of every policy that targets may follow, for a process that has few of them.

        Returns
        -------
        ndarray of shape (n_policies, n_pairs, n_pairs)
            Deterministic policies in lexicographic order of their actions; a single one where the update has a policy.

        Raises
        ------
        ValueError
            If there are more than 100000 policies, or the matrices would need more than 2 GB.

        Notes
        -----
        Label ``eq-jacobian``.
        """
        policies = self.policies()
        _checks.memory("jacobians", self.n_policies, self.mdp.n_pairs, self.mdp.n_pairs, copies=2)
        return np.stack([self.jacobian(policy) for policy in policies])


def _longest_row(matrix: np.ndarray) -> float:
    """Return the largest absolute row sum; inf or nan where it overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.abs(matrix).sum(axis=1).max())


@dataclasses.dataclass(frozen=True, eq=False)
class KernelUpdate(Update):
    """The update seen through a kernel, the key equation without its remainder: M = alpha K D.

    Parameters
    ----------
    mdp : FiniteMDP
        The process whose optimality operator gives the targets.
    kernel : ndarray of shape (n_pairs, n_pairs)
        ``K[i, j]`` moves pair `i` per unit of TD error at pair `j`. Any real matrix; copied and made read-only.
    weights : ndarray of shape (n_pairs,)
        Sampling distribution rho; non-negative, sums to 1. Copied and made read-only.
    alpha : float
        Step size, > 0.
    policy : ndarray of int, shape (n_states,), or ndarray of float, shape (n_states, n_actions), optional
        As in `Update`.

    Raises
    ------
    ValueError
        If a shape disagrees with `mdp`, `weights` is not a distribution, `alpha` is not positive, alpha K D overflows,
        or the policy is none.

    Notes
    -----
    Label ``eq-key-equation``; arXiv:1903.08894, Theorem 1 without the remainder.
    ``dataclasses.replace(update, alpha=0.1)`` is the same with another step size.
    """

    matrix: np.ndarray = dataclasses.field(init=False)
    policy: Any = dataclasses.field(default=None, kw_only=True)
    kernel: Any = dataclasses.field(kw_only=True)
    weights: Any = dataclasses.field(kw_only=True)
    alpha: float | int = dataclasses.field(kw_only=True)

    def __post_init__(self):
        mdp = self.mdp
        kernel = _checks.square("kernel", self.kernel, size=mdp.n_pairs, beside=mdp._sizes)
        weights = _checks.distribution("weights", self.weights, size=mdp.n_pairs, beside=mdp._sizes)
        alpha = _checks.scalar("alpha", self.alpha, low=0, low_open=True)
        for name, value in (("kernel", kernel), ("weights", weights), ("matrix", _pulled(kernel, weights, alpha))):
            self._hold(name, value)
        object.__setattr__(self, "alpha", alpha)
        self._hold_policy()

    def residual_gradient(self, policy: ArrayLike) -> Update:
        """Return the update whose gradient goes through the target too: M = alpha K (I - gamma P_pi)^T D.

        Parameters
        ----------
        policy : ndarray of int, shape (n_states,), or ndarray of float, shape (n_states, n_actions)
            The policy that is evaluated.

        Returns
        -------
        Update
            For T_pi; one Jacobian.

        Raises
        ------
        ValueError
            If the policy is none.

        Notes
        -----
        For a linear Q a step down half the mean square of the expected TD error; with transitions by chance that is not
        the mean square of the TD errors of single transitions.

        After L. Baird, "Residual algorithms: reinforcement learning with function approximation", 1995.
        """
        loop = np.eye(self.mdp.n_pairs) - self.mdp.gamma * self.mdp.pair_transitions(policy)
        return Update(self.mdp, self.alpha * self.kernel @ (loop.T * self.weights), policy)


def _pulled(kernel: np.ndarray, weights: np.ndarray, alpha: float) -> np.ndarray:
    """Return alpha K D, unless a sum over one of its rows overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        matrix = kernel * (alpha * weights)
    if not _longest_row(matrix) < _LARGEST:
        raise ValueError(f"alpha must leave the rows of alpha K D below {_LARGEST:.3g}, at {alpha:.6g} they are not")
    return matrix


def fitted_update(Q: ArrayLike, mdp: FiniteMDP, *, fit: ArrayLike) -> np.ndarray:
    """Return the table after one fitted iteration: back up every pair, then fit the backups.

    Parameters
    ----------
    Q : ndarray of shape (n_states, n_actions)
        Action values, in units of discounted reward.
    mdp : FiniteMDP
        The process whose optimality operator is applied.
    fit : ndarray of shape (n_pairs, n_pairs)
        Maps the backups to the values of the fit. Where no row has absolute values that add up to more than 1, as in
        an average, the update contracts by `gamma`; a least-squares fit need not be like that.

    Returns
    -------
    ndarray of shape (n_states, n_actions)
        A new array.

    Raises
    ------
    ValueError
        If a shape disagrees with `mdp`.

    Notes
    -----
    After G. Gordon, "Stable function approximation in dynamic programming", 1995.
    """
    fit = _checks.square("fit", fit, size=mdp.n_pairs, beside=mdp._sizes)
    return mdp.unflatten(fit @ mdp.flatten(bellman.optimality_backup(Q, mdp)))


def predicted_change(
    kernel: ArrayLike, weights: ArrayLike, td_error: ArrayLike, *, alpha: float | int
) -> Float[np.ndarray, " n"]:
    """Return alpha K D delta, the change of every pair to leading order in the step size.

    Parameters
    ----------
    kernel : ndarray of shape (n_pairs, n_pairs)
        The kernel K.
    weights : ndarray of shape (n_pairs,)
        Sampling distribution rho; non-negative, sums to 1.
    td_error : ndarray of shape (n_pairs,)
        Target minus value of every pair.
    alpha : float
        Step size, > 0.

    Returns
    -------
    ndarray of shape (n_pairs,)
        The predicted change, in units of Q.

    Raises
    ------
    ValueError
        If a shape disagrees, `weights` is not a distribution, or `alpha` is not positive.

    Notes
    -----
    Label ``eq-predicted-change``.
    """
    td_error = _checks.array("td_error", td_error, ndim=1)
    beside = f"td_error has shape {td_error.shape}"
    kernel = _checks.square("kernel", kernel, size=len(td_error), beside=beside)
    weights = _checks.distribution("weights", weights, size=len(td_error), beside=beside)
    return _checks.scalar("alpha", alpha, low=0, low_open=True) * (kernel @ (weights * td_error))


def _batch(batch: ArrayLike, n_pairs: int) -> np.ndarray:
    """Return the checked numbers of the pairs in a batch."""
    batch = _checks.indices("batch", batch, high=n_pairs, shape=(None,))
    if len(np.unique(batch)) != len(batch):
        raise ValueError(f"batch must list each pair once, got {batch.tolist()}")
    return batch


def _outside(batch: np.ndarray, n_pairs: int) -> np.ndarray:
    """Return the pairs that a batch leaves out, in increasing order."""
    return np.setdiff1d(np.arange(n_pairs), batch)


def _batch_block(kernel: np.ndarray, batch: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the checked numbers of a batch and the nonsingular block of the kernel on it."""
    batch = _batch(batch, len(kernel))
    block = kernel[np.ix_(batch, batch)]
    rank = np.linalg.matrix_rank(block)
    if rank < len(batch):
        raise ValueError(f"kernel must be nonsingular on the batch {batch.tolist()}: its rank there is {rank}")
    return batch, block


def spill(kernel: ArrayLike, *, batch: ArrayLike) -> np.ndarray:
    """Return W, by how much the pairs outside a batch move when the pairs inside are moved by the smallest step.

    Parameters
    ----------
    kernel : ndarray of shape (n_pairs, n_pairs)
        The kernel K; its block on the batch must be nonsingular.
    batch : ndarray of int, shape (b,)
        Numbers of the pairs in the batch, each at most once.

    Returns
    -------
    ndarray of shape (n_pairs - b, b)
        ``K_oB K_BB^{-1}``: a row for each pair outside, in increasing order, a column for each pair of the batch, as
        listed.

    Raises
    ------
    ValueError
        If the kernel is not square, a pair is listed twice, or the kernel is singular on the batch.

    Notes
    -----
    Label ``eq-spill``.
    """
    kernel = _checks.square("kernel", kernel)
    batch, block = _batch_block(kernel, batch)
    outside = _outside(batch, len(kernel))
    return np.linalg.solve(block.T, kernel[np.ix_(outside, batch)].T).T


def loop_gain(kernel: ArrayLike, *, batch: ArrayLike, gamma: float | int) -> float:
    """Return how strongly a batch can feed itself through the pairs that it leaves out.

    Parameters
    ----------
    kernel : ndarray of shape (n_pairs, n_pairs)
        The kernel K; its block on the batch must be nonsingular.
    batch : ndarray of int, shape (b,)
        Numbers of the pairs in the batch, each at most once.
    gamma : float
        Discount factor in [0, 1).

    Returns
    -------
    float
        ``gamma`` times the largest row sum of ``|W|``, 0 when nothing is left out. Below 1, the preconditioned update
        with this batch again and again settles, for every process with these pairs and every step size up to 1. The
        plain update settles then if the batch is a single pair and ``alpha K_jj rho_j`` at most 1; with more pairs it
        may diverge all the same. The gain is rounded up, by what the solve for W can have lost; it is infinite where
        the kernel is too near to a singular one on the batch for anything to be known.

    Raises
    ------
    ValueError
        If the kernel is not square or singular on the batch, a pair is listed twice, or `gamma` is out of range.

    Notes
    -----
    Label ``eq-loop-gain``. `examples.low_gain_divergence` diverges under the plain update at a gain of 0.891.
    """
    gamma = _checks.scalar("gamma", gamma, low=0, high=1, high_open=True)
    kernel = _checks.square("kernel", kernel)
    W = spill(kernel, batch=batch)  # (n - b, b)
    if W.size == 0:
        return 0.0
    batch, block = _batch_block(kernel, batch)
    outside, rough = _outside(batch, len(kernel)), _rounding.slack(len(batch))
    back, size = np.linalg.inv(block), np.abs(block)
    # with F = I - K_BB back the true W is W + (K_oB - W K_BB) back (I - F)^-1
    off = np.abs(np.eye(len(batch)) - block @ back) + rough * (size @ np.abs(back))
    off = float(off.sum(axis=1).max()) * (1 + rough)
    if not off < 0.5:
        return np.inf
    target = kernel[np.ix_(outside, batch)]
    missing = np.abs(target - W @ block) + rough * (np.abs(target) + np.abs(W) @ size)
    sums = np.abs(W).sum(axis=1) + (missing @ np.abs(back)).sum(axis=1) * (1 + rough) / (1 - off)
    return float(gamma * sums.max() * (1 + rough))


def linear_step(
    theta: ArrayLike, features: ArrayLike, mdp: FiniteMDP, *, weights: ArrayLike, alpha: float | int
) -> np.ndarray:
    """Return the parameters after one semi-gradient step of a linear Q-function.

    Parameters
    ----------
    theta : ndarray of shape (n_features,)
        Parameters; the table is ``features @ theta``.
    features : ndarray of shape (n_pairs, n_features)
        One row for each pair.
    mdp : FiniteMDP
        The process whose optimality operator gives the targets.
    weights : ndarray of shape (n_pairs,)
        Sampling distribution rho; non-negative, sums to 1.
    alpha : float
        Step size, > 0.

    Returns
    -------
    ndarray of shape (n_features,)
        One plain gradient step on half the weighted squared error, with the targets held fixed.

    Raises
    ------
    ValueError
        If a shape disagrees, `weights` is not a distribution, or `alpha` is not positive.

    Notes
    -----
    Label ``eq-semi-gradient``.
    """
    theta = _checks.array("theta", theta, ndim=1)
    beside = f"{mdp._sizes} and theta has shape {theta.shape}"
    features = _checks.array("features", features, shape=(mdp.n_pairs, len(theta)), beside=beside)
    weights = _checks.distribution("weights", weights, size=mdp.n_pairs, beside=mdp._sizes)
    alpha = _checks.scalar("alpha", alpha, low=0, low_open=True)
    Q = mdp.unflatten(features @ theta)
    td_error = mdp.flatten(bellman.optimality_backup(Q, mdp) - Q)  # (n_pairs,)
    return theta + alpha * features.T @ (weights * td_error)


def minimum_norm_step(
    theta: ArrayLike, features: ArrayLike, mdp: FiniteMDP, *, batch: ArrayLike, alpha: float | int
) -> np.ndarray:
    """Return the parameters after the smallest step that moves the values of a batch by alpha times their TD errors.

    Parameters
    ----------
    theta : ndarray of shape (n_features,)
        Parameters; the table is ``features @ theta``.
    features : ndarray of shape (n_pairs, n_features)
        One row for each pair.
    mdp : FiniteMDP
        The process whose optimality operator gives the targets.
    batch : ndarray of int, shape (b,)
        Numbers of the pairs in the batch, each at most once.
    alpha : float
        Step size, > 0.

    Returns
    -------
    ndarray of shape (n_features,)
        ``theta`` plus the minimum-norm solution of the least-squares problem; where no step moves the batch exactly,
        the one that comes closest.

    Raises
    ------
    ValueError
        If a shape disagrees, a pair is listed twice, or `alpha` is not positive.

    Notes
    -----
    Label ``eq-minimum-norm-step``.
    """
    theta = _checks.array("theta", theta, ndim=1)
    beside = f"{mdp._sizes} and theta has shape {theta.shape}"
    features = _checks.array("features", features, shape=(mdp.n_pairs, len(theta)), beside=beside)
    batch = _batch(batch, mdp.n_pairs)
    alpha = _checks.scalar("alpha", alpha, low=0, low_open=True)
    Q = mdp.unflatten(features @ theta)
    td_error = mdp.flatten(bellman.optimality_backup(Q, mdp) - Q)[batch]  # (b,)
    return theta + alpha * np.linalg.lstsq(features[batch], td_error, rcond=None)[0]


def linear_fixed_points(features: ArrayLike, mdp: FiniteMDP, *, weights: ArrayLike) -> np.ndarray:
    """Return every parameter vector that one expected semi-gradient step leaves where it is.

    Parameters
    ----------
    features : ndarray of shape (n_pairs, n_features)
        One row for each pair.
    mdp : FiniteMDP
        A process with at most 100000 deterministic policies; each is tried.
    weights : ndarray of shape (n_pairs,)
        Sampling distribution rho; non-negative, sums to 1.

    Returns
    -------
    ndarray of shape (n_found, n_features)
        Sorted, without repeats; there may be none, one, or several. A policy for which the fixed points form a line or
        more is left out: then a whole leaf of tables stays where it is. An action counts as greedy if it is so up to
        1e-10 of the largest value, and each parameter is rounded to 13 digits, counted in the largest that was found.

    Raises
    ------
    ValueError
        If there are too many policies, a shape disagrees, or `weights` is not a distribution.

    Notes
    -----
    Label ``eq-rest``.
    """
    features = _checks.array("features", features, shape=(mdp.n_pairs, None), beside=mdp._sizes)
    weights = _checks.distribution("weights", weights, size=mdp.n_pairs, beside=mdp._sizes)
    sampled, found = features.T * weights, []  # Phi^T D, (d, n)
    rounding = 1e-12 * np.abs(sampled).sum(axis=1).max() * np.abs(features).max()  # the terms of the system can cancel
    for policy in mdp.policies():
        chosen = features[np.arange(mdp.n_states) * mdp.n_actions + policy]  # (n_states, d)
        system = sampled @ (features - mdp.gamma * (mdp.transitions @ chosen))
        if np.linalg.matrix_rank(system, tol=rounding) < features.shape[1]:
            continue
        theta = np.linalg.solve(system, sampled @ mdp.R.ravel())
        Q = (features @ theta).reshape(mdp.n_states, mdp.n_actions)
        slack = Q.max(axis=1) - Q[np.arange(mdp.n_states), policy]
        if slack.max() <= 1e-10 * np.abs(Q).max():  # relative, as rewards may be in any units
            found.append(theta)
    if not found:
        return np.empty((0, features.shape[1]))
    largest = np.abs(found).max(axis=0)  # of each parameter, as features may be in any units, too
    decimals = 12 - np.floor(np.log10(np.where(largest > 0, largest, 1.0)))
    grid = 10.0 ** np.minimum(decimals, 300)
    return np.unique(np.round(found * grid) / grid + 0.0, axis=0)
