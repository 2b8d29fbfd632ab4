"""When the kernel update brings any two Q-functions closer together: conditions on K, D, alpha and gamma."""

import numpy as np
from numpy.typing import ArrayLike

from divergence_notes import _checks
from divergence_notes.mdp import FiniteMDP


def row_sum_bound(kernel: ArrayLike, weights: ArrayLike, *, alpha: float | int, gamma: float | int) -> float:
    """Return beta, an upper bound on the sup-norm Lipschitz constant of the kernel update that never looks at P.

    Parameters
    ----------
    kernel : ndarray of shape (n_pairs, n_pairs)
        Any real matrix K.
    weights : ndarray of shape (n_pairs,)
        Sampling distribution rho; non-negative, sums to 1.
    alpha : float
        Step size, > 0.
    gamma : float
        Discount factor in [0, 1).

    Returns
    -------
    float
        The update is a sup-norm contraction, for every process with these pairs, if this is below 1. If it is not,
        nothing follows.

    Raises
    ------
    ValueError
        If a shape disagrees, `weights` is not a distribution, or a number is out of range.

    Notes
    -----
    Label ``eq-row-sum-bound``; arXiv:1903.08894, Theorem 2.
    """
    kernel = _checks.square("kernel", kernel)
    weights = _checks.distribution("weights", weights, size=len(kernel))
    alpha = _checks.scalar("alpha", alpha, low=0, low_open=True)
    gamma = _checks.scalar("gamma", gamma, low=0, high=1, high_open=True)
    step = alpha * kernel * weights  # (n, n), entry [i, j] = alpha K_ij rho_j
    return float((np.abs(np.eye(len(kernel)) - step) + gamma * np.abs(step)).sum(axis=1).max())


def row_dominance(kernel: ArrayLike, weights: ArrayLike, *, gamma: float | int) -> np.ndarray:
    """Return by how much the diagonal dominates each row, in the sense that the theorem asks for.

    Parameters
    ----------
    kernel : ndarray of shape (n_pairs, n_pairs)
        Any real matrix K.
    weights : ndarray of shape (n_pairs,)
        Sampling distribution rho; non-negative, sums to 1.
    gamma : float
        Discount factor in [0, 1).

    Returns
    -------
    ndarray of shape (n_pairs,)
        ``(1 - gamma) K_ii rho_i - (1 + gamma) sum_{j != i} |K_ij| rho_j``. If every margin is positive, every small
        enough step size contracts.

    Raises
    ------
    ValueError
        If a shape disagrees, `weights` is not a distribution, or `gamma` is out of range.

    Notes
    -----
    Label ``eq-row-dominance``; arXiv:1903.08894, Theorem 2, with the strict inequality that its proof needs.
    """
    kernel = _checks.square("kernel", kernel)
    weights = _checks.distribution("weights", weights, size=len(kernel))
    gamma = _checks.scalar("gamma", gamma, low=0, high=1, high_open=True)
    own = np.diag(kernel) * weights
    others = np.abs(kernel) @ weights - np.abs(own)
    return (1 - gamma) * own - (1 + gamma) * others


def jacobian(
    mdp: FiniteMDP, *, kernel: ArrayLike, weights: ArrayLike, alpha: float | int, policy: ArrayLike
) -> np.ndarray:
    """Return the matrix by which the kernel update moves differences while the greedy policy stays `policy`.

    Parameters
    ----------
    mdp : FiniteMDP
        The process.
    kernel : ndarray of shape (n_pairs, n_pairs)
        Any real matrix K.
    weights : ndarray of shape (n_pairs,)
        Sampling distribution rho; non-negative, sums to 1.
    alpha : float
        Step size, > 0.
    policy : ndarray of int, shape (n_states,), or ndarray of float, shape (n_states, n_actions)
        The policy whose next action is bootstrapped from.

    Returns
    -------
    ndarray of shape (n_pairs, n_pairs)
        ``I - alpha K D (I - gamma P_pi)``.

    Raises
    ------
    ValueError
        If a shape disagrees, `weights` is not a distribution, or `alpha` is not positive.

    Notes
    -----
    Label ``eq-jacobian``.
    """
    kernel = _checks.square("kernel", kernel, size=mdp.n_pairs)
    weights = _checks.distribution("weights", weights, size=mdp.n_pairs)
    alpha = _checks.scalar("alpha", alpha, low=0, low_open=True)
    loop = np.eye(mdp.n_pairs) - mdp.gamma * mdp.pair_transitions(policy)
    return np.eye(mdp.n_pairs) - alpha * (kernel * weights) @ loop
