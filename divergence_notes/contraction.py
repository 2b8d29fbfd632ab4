"""When the kernel update brings any two Q-functions closer together: conditions on K, D, alpha and gamma."""

import itertools

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


def step_size_limit(kernel: ArrayLike, weights: ArrayLike, *, gamma: float | int) -> float:
    """Return the step size below which, for a row-dominant kernel, the row-sum bound stays below 1.

    Parameters
    ----------
    kernel : ndarray of shape (n_pairs, n_pairs)
        Any real matrix K that is not zero where it is sampled.
    weights : ndarray of shape (n_pairs,)
        Sampling distribution rho; non-negative, sums to 1.
    gamma : float
        Discount factor in [0, 1).

    Returns
    -------
    float
        ``2 / ((1 + gamma) max_i sum_j |K_ij| rho_j)``. The row-sum bound is below 1 exactly when every margin of
        `row_dominance` is positive and the step size is below this.

    Raises
    ------
    ValueError
        If a shape disagrees, `weights` is no distribution, `gamma` is out of range, or no sampled pair moves anything.

    Notes
    -----
    Label ``eq-step-size-condition``.
    """
    kernel = _checks.square("kernel", kernel)
    weights = _checks.distribution("weights", weights, size=len(kernel))
    gamma = _checks.scalar("gamma", gamma, low=0, high=1, high_open=True)
    pull = float((np.abs(kernel) @ weights).max())
    if pull == 0:
        raise ValueError("kernel must move some pair: every column of a sampled pair is zero")
    return 2 / ((1 + gamma) * pull)


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


def exact_modulus(mdp: FiniteMDP, *, kernel: ArrayLike, weights: ArrayLike, alpha: float | int) -> float:
    """Return the smallest L with ``|U Q1 - U Q2| <= L |Q1 - Q2|`` in the sup norm, for every two tables.

    Parameters
    ----------
    mdp : FiniteMDP
        The process; rows of P may sum to less than 1.
    kernel : ndarray of shape (n_pairs, n_pairs)
        Any real matrix K.
    weights : ndarray of shape (n_pairs,)
        Sampling distribution rho; non-negative, sums to 1.
    alpha : float
        Step size, > 0.

    Returns
    -------
    float
        The sup-norm Lipschitz constant of the kernel update, which is the largest sup norm of its Jacobians over all
        deterministic policies. The update is a sup-norm contraction exactly if this is below 1.

    Raises
    ------
    ValueError
        If a shape disagrees, `weights` is not a distribution, or `alpha` is not positive.

    Notes
    -----
    Label ``eq-exact-modulus``. The number of policies does not matter: each row chooses the worst action of each next
    state on its own, so that the cost is one product of an (n_pairs, n_pairs) with an (n_pairs, n_states) matrix.
    """
    kernel = _checks.square("kernel", kernel, size=mdp.n_pairs)
    weights = _checks.distribution("weights", weights, size=mdp.n_pairs)
    step = _checks.scalar("alpha", alpha, low=0, low_open=True) * kernel * weights  # (n, n)
    own = np.eye(mdp.n_pairs) - step  # (n, n)
    inflow = mdp.gamma * (step @ mdp.transitions)  # (n, n_states)
    worst = np.full(inflow.shape, -np.inf)  # (n, n_states): by how much the worst next action adds to the row
    for action in range(mdp.n_actions):
        column = own[:, action :: mdp.n_actions]  # (n, n_states)
        np.maximum(worst, np.abs(column + inflow) - np.abs(column), out=worst)
    return float((np.abs(own).sum(axis=1) + worst.sum(axis=1)).max())


def box_images(mdp: FiniteMDP, *, kernel: ArrayLike, weights: ArrayLike, alpha: float | int) -> np.ndarray:
    """Return where the corners of the unit square go under each Jacobian of the kernel update on two pairs.

    Parameters
    ----------
    mdp : FiniteMDP
        A process with two state-action pairs.
    kernel : ndarray of shape (2, 2)
        Any real matrix K.
    weights : ndarray of shape (2,)
        Sampling distribution rho; non-negative, sums to 1.
    alpha : float
        Step size, > 0.

    Returns
    -------
    ndarray of shape (n_policies, 4, 2)
        The images of (1, 1), (-1, 1), (-1, -1), (1, -1), for each deterministic policy. The largest absolute entry is
        the exact modulus.

    Raises
    ------
    ValueError
        If the process has another number of pairs, a shape disagrees, `weights` is not a distribution, or `alpha` is
        not positive.
    """
    if mdp.n_pairs != 2:
        raise ValueError(f"mdp must have two state-action pairs, it has {mdp.n_pairs}")
    corners = np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
    policies = np.array(list(itertools.product(range(mdp.n_actions), repeat=mdp.n_states)))
    images = [jacobian(mdp, kernel=kernel, weights=weights, alpha=alpha, policy=policy) for policy in policies]
    return np.stack([corners @ image.T for image in images])
