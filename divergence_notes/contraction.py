"""When an update brings any two tables closer together in the sup norm, for one process or for every one.

Here lives what is read off the sup norm: the paper's condition, which looks at no process and so takes a kernel, and
the exact modulus of an `updates.Update`. Other norms are in `norms`; the updates themselves in `updates`.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from divergence_notes import _checks, _jacobian_rows, _rounding
from divergence_notes._checks import ArrayLike
from divergence_notes.updates import KernelUpdate, Update, _pulled


def _data(kernel: ArrayLike, weights: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the checked kernel and the checked weights of its pairs."""
    kernel = _checks.square("kernel", kernel)
    return kernel, _checks.distribution("weights", weights, size=len(kernel), beside=f"kernel has shape {kernel.shape}")


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
        that alone says nothing. Rounded up, so that it holds for the numbers as they are stored.

    Raises
    ------
    ValueError
        If a shape disagrees, `weights` is not a distribution, or a number is out of range.

    Notes
    -----
    Label ``eq-row-sum-bound``; arXiv:1903.08894, Theorem 2.
    """
    kernel, weights = _data(kernel, weights)
    gamma = _checks.scalar("gamma", gamma, low=0, high=1, high_open=True)
    step = _pulled(kernel, weights, _checks.scalar("alpha", alpha, low=0, low_open=True))  # (n, n), alpha K D
    sums = (np.abs(np.eye(len(kernel)) - step) + gamma * np.abs(step)).sum(axis=1)
    sums += _rounding.slack(len(kernel)) * (1 + (1 + gamma) * np.abs(step).sum(axis=1))
    return float(sums.max())


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
        ``(1 - gamma) K_ii rho_i - (1 + gamma) sum_{j != i} |K_ij| rho_j``, rounded down. If every margin is positive,
        every small enough step size contracts.

    Raises
    ------
    ValueError
        If a shape disagrees, `weights` is not a distribution, or `gamma` is out of range.

    Notes
    -----
    Label ``eq-row-dominance``; arXiv:1903.08894, Theorem 2, with the strict inequality that its proof needs.
    """
    kernel, weights = _data(kernel, weights)
    gamma = _checks.scalar("gamma", gamma, low=0, high=1, high_open=True)
    own, others, lost = _pulls(kernel, weights)
    own, others = (1 - gamma) * own, (1 + gamma) * others
    return own - others - _rounding.slack(len(kernel)) * (np.abs(own) + others) - lost


def _pulls(kernel: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for each row, K_ii rho_i and the sum of the other |K_ij| rho_j: not as a difference, which cancels.

    The third is the most that was lost to underflow; 0 in a row in which nothing is sampled.
    """
    pulls = np.abs(kernel) * weights
    np.fill_diagonal(pulls, 0.0)
    lost = _rounding.TINY * ((kernel != 0).astype(float) @ (weights > 0))
    return np.diag(kernel) * weights, pulls.sum(axis=1), lost


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
        ``2 / ((1 + gamma) max_i sum_j |K_ij| rho_j)``, rounded down. The row-sum bound is below 1 exactly when every
        margin of `row_dominance` is positive and the step size is below this, up to rounding.

    Raises
    ------
    ValueError
        If a shape disagrees, `weights` is no distribution, `gamma` is out of range, or no sampled pair moves anything.

    Notes
    -----
    Label ``eq-step-size-condition``.
    """
    kernel, weights = _data(kernel, weights)
    gamma = _checks.scalar("gamma", gamma, low=0, high=1, high_open=True)
    if not kernel[:, weights > 0].any():
        raise ValueError("kernel must move some pair: every column of a sampled pair is zero")
    pull = float((np.abs(kernel) @ weights).max()) + len(kernel) * _rounding.TINY  # what underflow can have lost
    return 2 / ((1 + gamma) * pull) * (1 - _rounding.slack(len(kernel)))


def discount_limit(kernel: ArrayLike, weights: ArrayLike) -> float:
    """Return the discount below which every row of the kernel is dominant.

    Parameters
    ----------
    kernel : ndarray of shape (n_pairs, n_pairs)
        Any real matrix K.
    weights : ndarray of shape (n_pairs,)
        Sampling distribution rho; non-negative, sums to 1.

    Returns
    -------
    float
        In [0, 1], rounded down. Every margin of `row_dominance` is positive for the discounts below this, and for no
        others, up to rounding; 0 when there are none. A pair that is never sampled makes it 0.

    Raises
    ------
    ValueError
        If a shape disagrees or `weights` is not a distribution.

    Notes
    -----
    Label ``eq-discount-limit``. Where the kernel has no negative entry, from this discount on some process makes the
    update no contraction in the sup norm (``thm-sharp``); that need not make it diverge.
    """
    kernel, weights = _data(kernel, weights)
    own, others, lost = _pulls(kernel, weights)
    others += np.where((np.diag(kernel) != 0) & (lost <= _rounding.TINY), 0.0, lost)  # alone in its row nothing cancels
    scale = np.abs(own) + others
    limits = (own - others) / np.where(scale > 0, scale, 1.0)
    limits -= np.where(others > 0, _rounding.slack(len(kernel)), 0.0)  # with nothing else in the row it is 1, exactly
    return float(np.clip(limits, 0.0, 1.0).min())


def overshoot_limit(kernel: ArrayLike, weights: ArrayLike) -> float:
    """Return the step size beyond which plain regression, with nothing bootstrapped, overshoots and blows up.

    Parameters
    ----------
    kernel : ndarray of shape (n_pairs, n_pairs)
        A symmetric positive definite K. Of one that is symmetric up to rounding the mean of both triangles counts.
    weights : ndarray of shape (n_pairs,)
        Sampling distribution rho; non-negative, sums to 1.

    Returns
    -------
    float
        ``2 / lambda_max(K D)``, rounded down.

    Raises
    ------
    ValueError
        If a shape disagrees, `weights` is not a distribution, or the kernel is not symmetric (up to 1e-5, in units in
        which its diagonal is 1), or not positive definite by more than rounding.

    Notes
    -----
    Label ``eq-overshoot``.
    """
    kernel, weights = _data(kernel, weights)
    scale = np.sqrt(np.abs(np.diag(kernel)))  # no entry of a positive definite K exceeds scale[i] * scale[j]
    uneven = np.argwhere(np.abs(kernel - kernel.T) > 1e-5 * np.outer(scale, scale))
    if len(uneven):
        i, j = uneven[0]
        raise ValueError(
            f"kernel must be symmetric: kernel[{i}, {j}] is {kernel[i, j]:.6g}, kernel[{j}, {i}] is {kernel[j, i]:.6g}"
        )
    kernel = kernel / 2 + kernel.T / 2  # eigvalsh reads one triangle alone
    found = np.linalg.eigvalsh(kernel)
    if found[0] <= _rounding.slack(len(kernel)) * found[-1]:
        raise ValueError(f"kernel must be symmetric positive definite, its lowest eigenvalue is {found[0]:.6g}")
    root = np.sqrt(weights)
    highest = np.linalg.eigvalsh(root[:, None] * kernel * root)[-1]
    return float(2 / (highest * (1 + 10 * _rounding.slack(len(kernel)))))


def stable_discount(update: Update, *, points: int = 50) -> float:
    """Return the discount up to which short steps are stable in one process, whichever policy the targets follow.

    Parameters
    ----------
    update : updates.Update
        On a process with few deterministic policies, or with a policy of its own. Neither the discount of the process
        nor the length of the steps matters.
    points : int
        How many discounts are tried, evenly spaced inside (0, 1).

    Returns
    -------
    float
        The largest discount tried before the first at which, for some policy pi of its targets,
        ``-M (I - gamma P_pi)`` has an eigenvalue with a positive real part; 0 when that is the first of all.

    Raises
    ------
    ValueError
        If there are too many policies, or the matrices would need more than 2 GB.

    Notes
    -----
    Label ``eq-jacobian``. Each policy is held fixed: an update that switches between them may do otherwise.
    """
    points = _checks.integer("points", points, low=1)
    policies, mdp = update.policies(), update.mdp
    _checks.memory("stable_discount", update.n_policies, mdp.n_pairs, mdp.n_pairs, copies=4)
    chains = np.stack([mdp.pair_transitions(policy) for policy in policies])  # (n_policies, n, n)
    moved, last = update.matrix, 0.0
    for gamma in np.arange(1, points + 1) / (points + 1):
        drift = np.linalg.eigvals(gamma * moved @ chains - moved).real.max()
        if drift > 1e-9 * np.abs(moved).max():
            break
        last = float(gamma)
    return last


def exact_modulus(update: Update) -> float:
    """Return the smallest L with ``|U Q1 - U Q2| <= L |Q1 - Q2|`` in the sup norm, for every two tables.

    Parameters
    ----------
    update : updates.Update
        Its matrix M may be any, and its targets those of T* or of one policy.

    Returns
    -------
    float
        The sup-norm Lipschitz constant of the update, which is the largest sup norm of its Jacobians over all
        deterministic policies, rounded up. If this is below 1 the update is a sup-norm contraction; if it is above by
        more than rounding, it is none.

    Notes
    -----
    Label ``eq-exact-modulus``. The number of policies does not matter: each row chooses the worst action of each next
    state on its own, so that the cost is one product of an (n_pairs, n_pairs) with an (n_pairs, n_states) matrix.
    """
    return _sharpest_row(update)[0]


def _sharpest_row(update: Update) -> tuple[float, int, np.ndarray]:
    """Return the largest absolute row sum of any Jacobian, its row, and the policy that reaches it."""
    mdp = update.mdp
    best, ones = (-np.inf, 0, np.zeros(mdp.n_states, dtype=np.intp)), np.ones(mdp.n_pairs)
    for pairs, pull, own, inflow in _jacobian_rows.blocks(update):
        doubt = _jacobian_rows.doubt(update, pull, ones[: len(pairs)], ones)
        own[np.arange(len(pairs)), pairs] += 1
        growth = _jacobian_rows.growth(own, inflow, mdp.n_actions)
        sums = np.abs(own).sum(axis=1) + growth.max(axis=0).sum(axis=1) + doubt
        row = int(sums.argmax())
        if sums[row] > best[0]:
            best = (float(sums[row]), int(pairs[row]), growth[:, row].argmax(axis=0))
    modulus, row, policy = best
    return modulus, row, policy if update.policy is None else update.policy


@dataclass(frozen=True, eq=False)
class Witness:
    """Two tables that an update drives apart, or together, exactly as far as the exact modulus says."""

    modulus: float
    """The exact modulus."""
    row: int
    """The pair at which it is attained."""
    policy: np.ndarray
    """The greedy policy of both tables, shape (n_states,), or the policy of the update."""
    Q1: np.ndarray
    """The first table, shape (n_states, n_actions)."""
    Q2: np.ndarray
    """The second table, at sup-norm distance 1/4."""


def modulus_witness(update: Update) -> Witness:
    """Return two tables that attain the exact modulus.

    Parameters
    ----------
    update : updates.Update
        Its matrix M may be any, and its targets those of T* or of one policy.

    Returns
    -------
    Witness
        Both tables have the same greedy policy, so that between them the update is linear; with a policy of its own it
        is linear between any two.

    Notes
    -----
    Label ``eq-exact-modulus``.
    """
    modulus, row, policy = _sharpest_row(update)
    worst = update.jacobian(policy)[row]
    Q1 = np.zeros(update.mdp.R.shape) if update.policy is not None else update.mdp.policy_matrix(policy)
    return Witness(modulus, row, policy, Q1, Q1 + update.mdp.unflatten(np.where(worst < 0, -0.25, 0.25)))


def max_scale(update: Update) -> float:
    """Return the end of the interval of c for which ``Q + c M (T*Q - Q)`` is a sup-norm contraction.

    Parameters
    ----------
    update : updates.Update
        Its matrix M may be any, and its targets those of T* or of one policy.

    Returns
    -------
    float
        The exact modulus is below 1 for c between 0 and this, and nowhere else, up to rounding; rounded down, and 0.0
        when no scale contracts by more than rounding.

    Notes
    -----
    Labels ``thm-largest-step``, ``eq-some-step`` and ``eq-largest-step``, with M for K D. Both are read off row by row,
    as the exact modulus is.
    """
    mdp = update.mdp
    largest, n_actions = 0.0, mdp.n_actions
    for pairs, pull, own, inflow in _jacobian_rows.blocks(update):  # own and inflow: the rows of minus G_pi
        rows = np.arange(len(pairs))
        growth = _jacobian_rows.growth(own, inflow, n_actions)
        doubt = _jacobian_rows.doubt(update, pull, np.zeros(len(pairs)), np.ones(mdp.n_pairs))
        doubt += mdp.n_pairs * _rounding.TINY  # no identity is added here that would hide what underflow has lost
        sums = np.abs(own).sum(axis=1) + growth.max(axis=0).sum(axis=1) + doubt
        # the same with the entry on the diagonal itself in place of its absolute value: minus the dominance of the row
        growth[pairs % n_actions, rows, pairs // n_actions] = inflow[rows, pairs // n_actions]
        lack = np.abs(own).sum(axis=1) + growth.max(axis=0).sum(axis=1)
        lack += own[rows, pairs] - np.abs(own[rows, pairs]) + doubt
        if lack.max() >= 0:
            return 0.0
        largest = max(largest, float(sums.max()))
    return 2 / largest * (1 - _rounding.EPS)


def max_step_size(update: KernelUpdate) -> float:
    """Return the end of the interval of step sizes at which a kernel update is a sup-norm contraction.

    Parameters
    ----------
    update : updates.KernelUpdate
        Its own step size does not matter.

    Returns
    -------
    float
        The exact modulus is below 1 for step sizes between 0 and this, and nowhere else, up to rounding; rounded down,
        and 0.0 when no step size contracts by more than rounding.

    Notes
    -----
    Label ``eq-largest-step``. This is `max_scale` at step size 1.
    """
    return max_scale(replace(update, alpha=1.0))


UNIT_SQUARE = np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
"""Corners of the set of all differences of sup norm at most 1, for two pairs."""
UNIT_SQUARE.setflags(write=False)


def box_images(update: Update, *, shape: Float[np.ndarray, "m 2"] = UNIT_SQUARE) -> Float[np.ndarray, "p m 2"]:
    """Return where the corners of the unit square go under each Jacobian of an update on two pairs.

    Parameters
    ----------
    update : updates.Update
        On a process with two state-action pairs.
    shape : ndarray of shape (m, 2)
        Corners of another shape in place of the square.

    Returns
    -------
    ndarray of shape (n_policies, m, 2)
        The images of the corners, for each policy that targets may follow. For the square the largest absolute entry is
        the exact modulus.

    Raises
    ------
    ValueError
        If the process has another number of pairs, or `shape` has not two columns.

    """
    if update.mdp.n_pairs != 2:
        raise ValueError(f"update must be on two state-action pairs, its process has {update.mdp.n_pairs}")
    shape = _checks.array("shape", shape, shape=(None, 2))
    return np.stack([shape @ J.T for J in update.jacobians()])
