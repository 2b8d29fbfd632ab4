"""Updates of a whole table: U1, U2, U3 and the key equation, the preconditioned step, and the real linear step.

The operators are those of Achiam, Knight and Abbeel, arXiv:1903.08894. Each takes the table `Q`, the process, and how
the data, the kernel and the step size enter. The real step of a neural network is in `networks`.
"""

import numpy as np
from jaxtyping import Float

from divergence_notes import _checks, _rounding, bellman
from divergence_notes._checks import ArrayLike
from divergence_notes.mdp import FiniteMDP


def value_update(Q: ArrayLike, mdp: FiniteMDP, *, alpha: float | int) -> np.ndarray:
    """Return U1 Q: every pair moves the same fraction of the way to its backup.

    Parameters
    ----------
    Q : ndarray of shape (n_states, n_actions)
        Action values, in units of discounted reward.
    mdp : FiniteMDP
        The process whose optimality operator is applied.
    alpha : float
        Step size, > 0.

    Returns
    -------
    ndarray of shape (n_states, n_actions)
        A new array.

    Raises
    ------
    ValueError
        If a shape disagrees with `mdp` or `alpha` is not positive.

    Notes
    -----
    Label ``eq-u1``; arXiv:1903.08894.
    """
    alpha = _checks.scalar("alpha", alpha, low=0, low_open=True)
    return Q + alpha * (bellman.optimality_backup(Q, mdp) - Q)


def weighted_update(Q: ArrayLike, mdp: FiniteMDP, *, weights: ArrayLike, alpha: float | int) -> np.ndarray:
    """Return U2 Q: a pair moves in proportion to how often it is sampled.

    Parameters
    ----------
    Q : ndarray of shape (n_states, n_actions)
        Action values, in units of discounted reward.
    mdp : FiniteMDP
        The process whose optimality operator is applied.
    weights : ndarray of shape (n_pairs,)
        Sampling distribution rho; non-negative, sums to 1.
    alpha : float
        Step size, > 0.

    Returns
    -------
    ndarray of shape (n_states, n_actions)
        A new array.

    Raises
    ------
    ValueError
        If a shape disagrees with `mdp`, `weights` is not a distribution, or `alpha` is not positive.

    Notes
    -----
    Label ``eq-u2``; arXiv:1903.08894.
    """
    td_error = _td_error(Q, mdp)  # (n_pairs,)
    weights = _checks.distribution("weights", weights, size=mdp.n_pairs, beside=mdp._sizes)
    return Q + mdp.unflatten(_checks.scalar("alpha", alpha, low=0, low_open=True) * (weights * td_error))


def _td_error(Q: ArrayLike, mdp: FiniteMDP) -> Float[np.ndarray, " n"]:
    """Return backup minus value of every pair."""
    return mdp.flatten(bellman.optimality_backup(Q, mdp) - Q)


def kernel_update(
    Q: ArrayLike, mdp: FiniteMDP, *, kernel: ArrayLike, weights: ArrayLike, alpha: float | int
) -> np.ndarray:
    """Return U3 Q: the update seen through a kernel, the key equation without its remainder.

    Parameters
    ----------
    Q : ndarray of shape (n_states, n_actions)
        Action values, in units of discounted reward.
    mdp : FiniteMDP
        The process whose optimality operator is applied.
    kernel : ndarray of shape (n_pairs, n_pairs)
        ``K[i, j]`` moves pair `i` per unit of TD error at pair `j`.
    weights : ndarray of shape (n_pairs,)
        Sampling distribution rho; non-negative, sums to 1.
    alpha : float
        Step size, > 0.

    Returns
    -------
    ndarray of shape (n_states, n_actions)
        A new array.

    Raises
    ------
    ValueError
        If a shape disagrees with `mdp`, `weights` is not a distribution, or `alpha` is not positive.

    Notes
    -----
    Label ``eq-key-equation``; arXiv:1903.08894, Theorem 1 without the remainder.
    """
    td_error = _td_error(Q, mdp)  # (n_pairs,)
    return Q + mdp.unflatten(_change(kernel, weights, td_error, alpha, mdp._sizes))


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
    return _change(kernel, weights, td_error, alpha, beside)


def _change(
    kernel: ArrayLike, weights: ArrayLike, td_error: np.ndarray, alpha: float | int, beside: str
) -> Float[np.ndarray, " n"]:
    """Return what `predicted_change` does; `beside` is where the number of pairs comes from."""
    kernel = _checks.square("kernel", kernel, size=len(td_error), beside=beside)
    weights = _checks.distribution("weights", weights, size=len(td_error), beside=beside)
    return _checks.scalar("alpha", alpha, low=0, low_open=True) * (kernel @ (weights * td_error))


def frozen_target_update(
    Q: ArrayLike, mdp: FiniteMDP, *, kernel: ArrayLike, weights: ArrayLike, alpha: float | int, inner: int
) -> np.ndarray:
    """Return the table after several kernel updates towards targets that stand still, as with a target network.

    Parameters
    ----------
    Q : ndarray of shape (n_states, n_actions)
        Table of action values; the targets are its backup, all the way.
    mdp : FiniteMDP
        The process whose optimality operator is applied.
    kernel : ndarray of shape (n_pairs, n_pairs)
        ``kernel[i, j]`` moves pair ``i`` per unit error at pair ``j``.
    weights : ndarray of shape (n_pairs,)
        Sampling distribution rho; non-negative, sums to 1.
    alpha : float
        Step size, > 0.
    inner : int
        Updates from one copy into the target network to the next, at least 1; with 1 this is `kernel_update`.

    Returns
    -------
    ndarray of shape (n_states, n_actions)
        A new array.

    Raises
    ------
    ValueError
        If a shape disagrees, `weights` is not a distribution, or a number is out of range.

    Notes
    -----
    Label ``eq-frozen-target``.
    """
    td_error = _td_error(Q, mdp)  # (n_pairs,), against the targets that stand still
    moved = np.zeros_like(td_error)
    for _ in range(_checks.integer("inner", inner, low=1)):
        moved = moved + _change(kernel, weights, td_error - moved, alpha, mdp._sizes)
    return Q + mdp.unflatten(moved)


def preconditioned_update(
    Q: ArrayLike, mdp: FiniteMDP, *, kernel: ArrayLike, batch: ArrayLike, alpha: float | int
) -> np.ndarray:
    """Return the update that undoes the kernel on a batch: PreQN in the linear limit.

    Parameters
    ----------
    Q : ndarray of shape (n_states, n_actions)
        Action values, in units of discounted reward.
    mdp : FiniteMDP
        The process whose optimality operator is applied.
    kernel : ndarray of shape (n_pairs, n_pairs)
        The kernel K; its block on the batch must be nonsingular.
    batch : ndarray of int, shape (b,)
        Numbers of the pairs in the batch, each at most once.
    alpha : float
        Step size, > 0.

    Returns
    -------
    ndarray of shape (n_states, n_actions)
        A new array: pairs in the batch move by exactly ``alpha`` times their TD error, the others by what leaks to
        them.

    Raises
    ------
    ValueError
        If a shape disagrees, a pair is listed twice, or the kernel is singular on the batch.

    Notes
    -----
    Label ``eq-preconditioned-update``; arXiv:1903.08894, for a kernel that does not change.
    """
    kernel = _checks.square("kernel", kernel, size=mdp.n_pairs, beside=mdp._sizes)
    batch, block = _batch_block(kernel, batch)
    alpha = _checks.scalar("alpha", alpha, low=0, low_open=True)
    td_error = _td_error(Q, mdp)[batch]  # (b,)
    return Q + alpha * mdp.unflatten(kernel[:, batch] @ np.linalg.solve(block, td_error))


def _batch(batch: ArrayLike, n_pairs: int) -> np.ndarray:
    """Return the checked numbers of the pairs in a batch."""
    batch = _checks.indices("batch", batch, high=n_pairs, shape=(None,))
    if len(np.unique(batch)) != len(batch):
        raise ValueError(f"batch must list each pair once, got {batch.tolist()}")
    return batch


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
    outside = np.setdiff1d(np.arange(len(kernel)), batch)
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
    Label ``eq-loop-gain``. `counterexamples.quiet_loop` diverges under the plain update at a gain of 0.891.
    """
    gamma = _checks.scalar("gamma", gamma, low=0, high=1, high_open=True)
    kernel = _checks.square("kernel", kernel)
    W = spill(kernel, batch=batch)  # (n - b, b)
    if W.size == 0:
        return 0.0
    batch, block = _batch_block(kernel, batch)
    outside, rough = np.setdiff1d(np.arange(len(kernel)), batch), _rounding.slack(len(batch))
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
    td_error = _td_error(Q, mdp)  # (n_pairs,)
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
    td_error = _td_error(Q, mdp)[batch]  # (b,)
    return theta + alpha * np.linalg.lstsq(features[batch], td_error, rcond=None)[0]
