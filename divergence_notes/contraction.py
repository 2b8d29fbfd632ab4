"""When the kernel update brings any two Q-functions closer together: conditions on K, D, alpha and gamma."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial import ConvexHull, HalfspaceIntersection

from divergence_notes import _checks, _rounding
from divergence_notes._checks import ArrayLike
from divergence_notes.mdp import FiniteMDP

_LARGEST = float(np.finfo(np.float64).max) / 8
"""Row sums of alpha K D below this leave room for what is added to them."""


def _data(kernel: ArrayLike, weights: ArrayLike, mdp: FiniteMDP | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the checked kernel and the checked weights of its pairs."""
    if mdp is None:
        kernel = _checks.square("kernel", kernel)
        beside = f"kernel has shape {kernel.shape}"
        return kernel, _checks.distribution("weights", weights, size=len(kernel), beside=beside)
    kernel = _checks.square("kernel", kernel, size=mdp.n_pairs, beside=mdp._sizes)
    return kernel, _checks.distribution("weights", weights, size=mdp.n_pairs, beside=mdp._sizes)


def _steps(kernel: np.ndarray, weights: np.ndarray, alpha: float | int) -> np.ndarray:
    """Return alpha rho, checked: sums of the rows of alpha K D must not overflow, where inf - inf decides nothing."""
    alpha = _checks.scalar("alpha", alpha, low=0, low_open=True)
    with np.errstate(over="ignore", invalid="ignore"):
        steps = alpha * weights
        longest = float((np.abs(kernel) @ steps).max())
    if not longest < _LARGEST:
        raise ValueError(f"alpha must leave the rows of alpha K D below {_LARGEST:.3g}, at {alpha:.6g} they are not")
    return steps


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
        nothing follows. Rounded up, so that it holds for the numbers as they are stored.

    Raises
    ------
    ValueError
        If a shape disagrees, `weights` is not a distribution, or a number is out of range.

    Notes
    -----
    Label ``eq-row-sum-bound``; arXiv:1903.08894, Theorem 2.
    """
    kernel, weights = _data(kernel, weights)
    steps = _steps(kernel, weights, alpha)
    gamma = _checks.scalar("gamma", gamma, low=0, high=1, high_open=True)
    step = kernel * steps  # (n, n), entry [i, j] = alpha K_ij rho_j
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
        A symmetric positive definite K.
    weights : ndarray of shape (n_pairs,)
        Sampling distribution rho; non-negative, sums to 1.

    Returns
    -------
    float
        ``2 / lambda_max(K D)``, rounded down.

    Raises
    ------
    ValueError
        If a shape disagrees, `weights` is not a distribution, or the kernel is not symmetric, or not positive definite
        by more than rounding.

    Notes
    -----
    Label ``eq-overshoot``.
    """
    kernel, weights = _data(kernel, weights)
    uneven = np.argwhere(~np.isclose(kernel, kernel.T))
    if len(uneven):
        i, j = uneven[0]
        raise ValueError(
            f"kernel must be symmetric: kernel[{i}, {j}] is {kernel[i, j]:.6g}, kernel[{j}, {i}] is {kernel[j, i]:.6g}"
        )
    found = np.linalg.eigvalsh(kernel)
    if found[0] <= _rounding.slack(len(kernel)) * found[-1]:
        raise ValueError(f"kernel must be symmetric positive definite, its lowest eigenvalue is {found[0]:.6g}")
    root = np.sqrt(weights)
    highest = np.linalg.eigvalsh(root[:, None] * kernel * root)[-1]
    return float(2 / (highest * (1 + 10 * _rounding.slack(len(kernel)))))


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
        If a shape disagrees, `weights` is not a distribution, `alpha` is not positive, or alpha K D overflows.

    Notes
    -----
    Label ``eq-jacobian``.
    """
    kernel, weights = _data(kernel, weights, mdp)
    _steps(kernel, weights, alpha)
    loop = np.eye(mdp.n_pairs) - mdp.gamma * mdp.pair_transitions(policy)
    return np.eye(mdp.n_pairs) - alpha * (kernel * weights) @ loop


def jacobians(mdp: FiniteMDP, *, kernel: ArrayLike, weights: ArrayLike, alpha: float | int) -> np.ndarray:
    """Return the Jacobian of every deterministic policy, for a process that has few of them.

    Parameters
    ----------
    mdp : FiniteMDP
        A process with at most 100000 deterministic policies.
    kernel : ndarray of shape (n_pairs, n_pairs)
        Any real matrix K.
    weights : ndarray of shape (n_pairs,)
        Sampling distribution rho; non-negative, sums to 1.
    alpha : float
        Step size, > 0.

    Returns
    -------
    ndarray of shape (n_policies, n_pairs, n_pairs)
        Policies in lexicographic order of their actions.

    Raises
    ------
    ValueError
        If there are too many policies, the matrices would need more than 2 GB, a shape disagrees, `weights` is not a
        distribution, `alpha` is not positive, or alpha K D overflows.

    Notes
    -----
    Label ``eq-jacobian``.
    """
    given = {"kernel": kernel, "weights": weights, "alpha": alpha}
    policies = _policies(mdp)
    _checks.memory("jacobians", mdp.n_actions**mdp.n_states, mdp.n_pairs, mdp.n_pairs, copies=2)
    return np.stack([jacobian(mdp, **given, policy=policy) for policy in policies])


def _policies(mdp: FiniteMDP) -> Iterator[np.ndarray]:
    """Return every deterministic policy of a process that has few."""
    count = mdp.n_actions**mdp.n_states
    if count > 100_000:
        raise ValueError(f"mdp must have at most 100000 deterministic policies here, it has {count}")
    return map(np.array, itertools.product(range(mdp.n_actions), repeat=mdp.n_states))


def stable_discount(mdp: FiniteMDP, *, kernel: ArrayLike, weights: ArrayLike, points: int = 50) -> float:
    """Return the discount up to which short steps are stable in one process, whichever policy the targets follow.

    Parameters
    ----------
    mdp : FiniteMDP
        A process with at most 100000 deterministic policies; its own discount does not matter.
    kernel : ndarray of shape (n_pairs, n_pairs)
        Any real matrix K.
    weights : ndarray of shape (n_pairs,)
        Sampling distribution rho; non-negative, sums to 1.
    points : int
        How many discounts are tried, evenly spaced inside (0, 1).

    Returns
    -------
    float
        The largest discount tried before the first at which, for some policy pi, ``-K D (I - gamma P_pi)`` has an
        eigenvalue with a positive real part; 0 when that is the first of all.

    Raises
    ------
    ValueError
        If there are too many policies, a shape disagrees, or `weights` is not a distribution.

    Notes
    -----
    Label ``eq-jacobian``. Each policy is held fixed: an update that switches between them may do otherwise.
    """
    kernel, weights = _data(kernel, weights, mdp)
    points = _checks.integer("points", points, low=1)
    policies = _policies(mdp)
    _checks.memory("stable_discount", mdp.n_actions**mdp.n_states, mdp.n_pairs, mdp.n_pairs, copies=4)
    chains = np.stack([mdp.pair_transitions(policy) for policy in policies])  # (n_policies, n, n)
    moved, last = kernel * weights, 0.0
    for gamma in np.arange(1, points + 1) / (points + 1):
        drift = np.linalg.eigvals(gamma * moved @ chains - moved).real.max()
        if drift > 1e-9 * np.abs(moved).max():
            break
        last = float(gamma)
    return last


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
        deterministic policies, rounded up. If this is below 1 the update is a sup-norm contraction; if it is above by
        more than rounding, it is none.

    Raises
    ------
    ValueError
        If a shape disagrees, `weights` is not a distribution, `alpha` is not positive, or alpha K D overflows.

    Notes
    -----
    Label ``eq-exact-modulus``. The number of policies does not matter: each row chooses the worst action of each next
    state on its own, so that the cost is one product of an (n_pairs, n_pairs) with an (n_pairs, n_states) matrix.
    """
    return _sharpest_row(mdp, kernel, weights, alpha)[0]


def _row_blocks(
    mdp: FiniteMDP, kernel: ArrayLike, weights: ArrayLike, alpha: float | int, *, size: int = 256
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield some rows of every J_pi - I at a time: the numbers of their pairs, ``own`` and ``inflow``.

    Under policy pi row i is ``own[i]`` (n_pairs,) plus ``inflow[i, s]`` at column (s, pi(s)), so that a row can choose
    the action of each next state on its own.
    """
    kernel, weights = _data(kernel, weights, mdp)
    steps = _steps(kernel, weights, alpha)
    for first in range(0, mdp.n_pairs, size):
        pull = kernel[first : first + size] * steps  # (b, n)
        yield np.arange(first, first + len(pull)), -pull, mdp.gamma * (pull @ mdp.transitions)


def _doubt(pull: np.ndarray, mdp: FiniteMDP, own: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return the most by which the computed ``|J_pi| @ w`` of some rows is off, whatever the policy pi.

    `own` is what the identity adds to each row: the w of its pair, or 0 where the identity is left out.
    """
    best = w.reshape(mdp.n_states, mdp.n_actions).max(axis=1)
    reach = np.abs(pull) @ (w + mdp.gamma * (mdp.transitions @ best))
    return _rounding.slack(mdp.n_pairs) * (own + reach)


def _growth(own: np.ndarray, inflow: np.ndarray, n_actions: int) -> np.ndarray:
    """Return what each action of each next state adds to the absolute row sum, shape (n_actions, b, n_states)."""
    columns = (own[:, action::n_actions] for action in range(n_actions))
    return np.stack([np.abs(column + inflow) - np.abs(column) for column in columns])


def _sharpest_row(
    mdp: FiniteMDP, kernel: ArrayLike, weights: ArrayLike, alpha: float | int
) -> tuple[float, int, np.ndarray]:
    """Return the largest absolute row sum of any Jacobian, its row, and the policy that reaches it."""
    best, ones = (-np.inf, 0, np.zeros(mdp.n_states, dtype=np.intp)), np.ones(mdp.n_pairs)
    for pairs, own, inflow in _row_blocks(mdp, kernel, weights, alpha):
        doubt = _doubt(own, mdp, ones[: len(pairs)], ones)
        own[np.arange(len(pairs)), pairs] += 1
        growth = _growth(own, inflow, mdp.n_actions)
        sums = np.abs(own).sum(axis=1) + growth.max(axis=0).sum(axis=1) + doubt
        row = int(sums.argmax())
        if sums[row] > best[0]:
            best = (float(sums[row]), int(pairs[row]), growth[:, row].argmax(axis=0))
    return best


@dataclass(frozen=True, eq=False)
class Witness:
    """Two tables that the kernel update drives apart, or together, exactly as far as the exact modulus says."""

    modulus: float
    """The exact modulus."""
    row: int
    """The pair at which it is attained."""
    policy: np.ndarray
    """The greedy policy of both tables, shape (n_states,)."""
    Q1: np.ndarray
    """The first table, shape (n_states, n_actions)."""
    Q2: np.ndarray
    """The second table, at sup-norm distance 1/4."""


def modulus_witness(mdp: FiniteMDP, *, kernel: ArrayLike, weights: ArrayLike, alpha: float | int) -> Witness:
    """Return two tables that attain the exact modulus.

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

    Returns
    -------
    Witness
        Both tables have the same greedy policy, so that between them the update is linear.

    Raises
    ------
    ValueError
        If a shape disagrees, `weights` is not a distribution, `alpha` is not positive, or alpha K D overflows.

    Notes
    -----
    Label ``eq-exact-modulus``.
    """
    modulus, row, policy = _sharpest_row(mdp, kernel, weights, alpha)
    worst = jacobian(mdp, kernel=kernel, weights=weights, alpha=alpha, policy=policy)[row]
    Q1 = mdp.policy_matrix(policy)
    return Witness(modulus, row, policy, Q1, Q1 + mdp.unflatten(np.where(worst < 0, -0.25, 0.25)))


def max_step_size(mdp: FiniteMDP, *, kernel: ArrayLike, weights: ArrayLike) -> float:
    """Return the end of the interval of step sizes at which the kernel update is a sup-norm contraction.

    Parameters
    ----------
    mdp : FiniteMDP
        The process.
    kernel : ndarray of shape (n_pairs, n_pairs)
        Any real matrix K.
    weights : ndarray of shape (n_pairs,)
        Sampling distribution rho; non-negative, sums to 1.

    Returns
    -------
    float
        The exact modulus is below 1 for step sizes between 0 and this, and nowhere else, up to rounding; rounded down,
        and 0.0 when no step size contracts by more than rounding.

    Raises
    ------
    ValueError
        If a shape disagrees or `weights` is not a distribution.

    Notes
    -----
    With G_pi = K D (I - gamma P_pi), some step size contracts exactly if every row of every G_pi is strictly dominated
    by a positive diagonal; then the end is 2 over the largest absolute row sum of a G_pi. Both are read off row by row,
    as the exact modulus is.
    """
    largest, n_actions = 0.0, mdp.n_actions
    for pairs, own, inflow in _row_blocks(mdp, kernel, weights, 1.0):  # the rows of minus G_pi
        rows = np.arange(len(pairs))
        growth = _growth(own, inflow, n_actions)
        doubt = _doubt(own, mdp, np.zeros(len(pairs)), np.ones(mdp.n_pairs))
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


def weighted_modulus(
    mdp: FiniteMDP, *, kernel: ArrayLike, weights: ArrayLike, alpha: float | int, max_iter: int = 1000
) -> tuple[float, np.ndarray]:
    """Return the best modulus over all weighted sup norms, and the weights that certify it.

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
    max_iter : int
        Largest number of selections to try; a handful is enough.

    Returns
    -------
    lambda_star : float
        The Lipschitz constant of the update in the norm ``max_i |Q_i| / w_i``, rounded up. No weights attain less than
        this by more than rounding, which counts for more where the best weights are uneven.
    w : ndarray of shape (n_pairs,)
        Positive, largest entry 1. The certificate: for every policy, ``abs(J_pi) @ w <= lambda_star * w``, in exact
        arithmetic.

    Raises
    ------
    ValueError
        If a shape disagrees, `weights` is not a distribution, `alpha` is not positive, or alpha K D overflows.

    Notes
    -----
    Label ``eq-weighted-modulus``. The smallest constant is the largest spectral radius of a matrix each of whose rows
    is a row of some ``abs(J_pi)``; policy iteration finds it. Where that matrix is reducible the infimum may not be
    attained. Therefore w is no eigenvector but solves ``(s I - M) w = 1`` with s just above the spectral radius of the
    matrix M: then ``M w < s w``, and w is positive whatever the zeros of M. What is returned is what this w attains.
    """
    _checks.memory("weighted_modulus", mdp.n_pairs, mdp.n_pairs, copies=8)
    pairs, own, inflow = next(_row_blocks(mdp, kernel, weights, alpha, size=mdp.n_pairs))
    pull = own.copy()
    own[pairs, pairs] += 1
    size, states = np.abs(own), np.arange(mdp.n_states)
    growth = _growth(own, inflow, mdp.n_actions)  # (A, n, S)

    def attained(w: np.ndarray) -> tuple[float, np.ndarray]:
        """Return what w attains, rounded up, and the worst action of each next state for each row."""
        gains = growth * w.reshape(mdp.n_states, mdp.n_actions).T[:, None, :]
        sums = size @ w + gains.max(axis=0).sum(axis=1) + _doubt(pull, mdp, w, w)
        return float((sums / w).max()) * (1 + _rounding.EPS), gains.argmax(axis=0)

    w, root, best, seen = np.ones(mdp.n_pairs), 0.0, (np.inf, np.ones(mdp.n_pairs)), set()
    for _ in range(_checks.integer("max_iter", max_iter, low=1)):
        ratio, actions = attained(w)
        met = actions.tobytes() in seen and ratio > best[0] * (1 - 1e-13)
        seen.add(actions.tobytes())
        best = min(best, (ratio, w), key=lambda pair: pair[0])
        selected = own.copy()
        np.add.at(selected, (pairs[:, None], states * mdp.n_actions + actions), inflow)
        selected = np.abs(selected) * w / w[:, None]  # in units in which its entries are closer to each other
        root = max(root, float(np.abs(np.linalg.eigvals(selected)).max()))
        if met or best[0] <= root * (1 + 2e-12):
            break
        step = next(_positive_solutions(selected, root, best[0], 1 / w), None)
        if step is None or not (w * step).min() > _rounding.TINY * (w * step).max():
            break
        w = w * step / (w * step).max()
    if best[0] > root * (1 + 1e-9):  # weights near to the infimum may be so uneven that rounding eats what they gain
        for step in _positive_solutions(selected, root, best[0], 1 / w):
            other = w * step / (w * step).max()
            if other.min() > _rounding.TINY:
                best = min(best, (attained(other)[0], other), key=lambda pair: pair[0])
    return best


def _positive_solutions(matrix: np.ndarray, root: float, scale: float, right: np.ndarray) -> Iterator[np.ndarray]:
    """Yield positive solutions of ``(s I - M) x = right``, for s from the spectral radius of M upwards.

    The computed `root` of a defective matrix may be off on both sides; below the spectral radius no solution is
    positive, so that trying tells.
    """
    for gap in (-1e-3, -1e-5, -1e-7, -1e-9, 1e-12, 1e-11, 1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0):
        try:
            x = np.linalg.solve((root + gap * scale) * np.eye(len(matrix)) - matrix, right)
        except np.linalg.LinAlgError:
            continue
        if np.isfinite(x).all() and x.min() > 0:
            yield x / x.max()


def joint_spectral_radius(
    mdp: FiniteMDP, *, kernel: ArrayLike, weights: ArrayLike, alpha: float | int, depth: int
) -> tuple[float, float]:
    """Return bounds on how fast the worst products of Jacobians can grow, which decides whether any norm contracts.

    Parameters
    ----------
    mdp : FiniteMDP
        A process with few deterministic policies.
    kernel : ndarray of shape (n_pairs, n_pairs)
        Any real matrix K.
    weights : ndarray of shape (n_pairs,)
        Sampling distribution rho; non-negative, sums to 1.
    alpha : float
        Step size, > 0.
    depth : int
        Length of the longest product, at least 1.

    Returns
    -------
    lower, upper : float
        The update contracts in some norm if `upper` is below 1; in none if `lower` is at least 1. Both are rounded
        outwards, and `lower` leans on no computed eigenvalue: it never exceeds `upper`. `upper` never exceeds the
        weighted modulus by more than rounding.

    Raises
    ------
    ValueError
        If there are more than a million products, a shape disagrees, or a number is out of range.

    Notes
    -----
    Label ``eq-joint-spectral-radius``. After G.-C. Rota and G. Strang, "A note on the joint spectral radius", 1960.
    """
    depth = _checks.integer("depth", depth, low=1)
    count = mdp.n_actions**mdp.n_states
    if count**depth > 1_000_000:
        raise ValueError(f"depth must leave at most 1000000 products: {count} policies to the power {depth} are more")
    _checks.memory("joint_spectral_radius", count**depth, mdp.n_pairs, mdp.n_pairs, copies=3)
    _, w = weighted_modulus(mdp, kernel=kernel, weights=weights, alpha=alpha)
    factors = jacobians(mdp, kernel=kernel, weights=weights, alpha=alpha) * w / w[:, None]
    pull = np.asarray(kernel) * (alpha * np.asarray(weights))
    off = float((_doubt(pull, mdp, w, w) / w).max())  # of each factor, in the norm of w
    size = float(np.abs(factors).sum(axis=2).max())
    scale = int(np.frexp(size)[1])  # by a power of 2, so that no product overflows, and exactly
    factors = np.ldexp(factors, -scale)
    off, size = float(np.ldexp(off, -scale)), float(np.ldexp(size, -scale))
    lower, upper, longest, error = 0.0, np.inf, 1.0, 0.0
    products = np.eye(mdp.n_pairs)[None]
    for length in range(1, depth + 1):
        products = np.einsum("pij,qjk->pqik", products, factors).reshape(-1, mdp.n_pairs, mdp.n_pairs)
        error = error * (size + off) + longest * (off + _rounding.slack(mdp.n_pairs) * size)
        error += mdp.n_pairs * _rounding.TINY
        longest = float(np.abs(products).sum(axis=2).max())
        upper = min(upper, _rounding.root_above((longest + error) * (1 + _rounding.slack(mdp.n_pairs)), length))
        radii = np.abs(np.linalg.eigvals(products)).max(axis=1)
        for candidate in np.argsort(radii)[-3:]:  # the computed radii only say where to look
            certain = _rounding.radius_below(products[candidate], error)
            lower = max(lower, _rounding.root_below(certain, length))
    return float(np.ldexp(lower, scale)), float(np.ldexp(upper, scale))


def some_norm(
    mdp: FiniteMDP, *, kernel: ArrayLike, weights: ArrayLike, alpha: float | int, products: int = 30_000
) -> bool | None:
    """Return whether the kernel update is a contraction in some norm, as far as products of Jacobians tell.

    Parameters
    ----------
    mdp : FiniteMDP
        A process with few deterministic policies and few pairs.
    kernel : ndarray of shape (n_pairs, n_pairs)
        Any real matrix K.
    weights : ndarray of shape (n_pairs,)
        Sampling distribution rho; non-negative, sums to 1.
    alpha : float
        Step size, > 0.
    products : int
        Most products to look at.

    Returns
    -------
    bool or None
        True is a proof, for the numbers as they are stored and with rounding counted: a weighted sup norm shrinks, or
        there is a norm whose unit ball is an ellipsoid and a finite set of products, all shorter than 1 in it, such
        that every long product splits into members of the set.
        False says that no norm shrinks by more than rounding: some product has an eigenvalue of size 1 - 1e-12 or more,
        by a bound that leans on no computed eigenvalue, or K D is singular within rounding, which puts the eigenvalue 1
        (or one that rounding cannot tell from it) into every Jacobian.
        None if neither is seen.

    Raises
    ------
    ValueError
        If there are too many policies, the work would need too much memory (it takes a matrix of order n_pairs^2), a
        shape disagrees, or a number is out of range.

    Notes
    -----
    Label ``thm-some-norm``. Only the products that are not yet shorter than 1 are continued, so that this decides many
    updates for which the bounds of `joint_spectral_radius` have 1 between them.
    """
    left = _checks.integer("products", products, low=1)
    n, given = mdp.n_pairs, {"kernel": kernel, "weights": weights, "alpha": alpha}
    _checks.memory("some_norm", n**2, n**2, copies=4)
    factors = jacobians(mdp, **given)
    modulus, w = weighted_modulus(mdp, **given)
    if modulus < 1:
        return True
    if _singular(np.asarray(kernel) * np.asarray(weights)):
        return False
    root = _ellipse(factors, w)
    if root is None:
        return None
    factors, off = _in_the_norm_of(root, factors, _doubts(mdp, **given))
    words, error, rough = factors, off, _rounding.slack(n)
    size, spread = (
        float(np.linalg.norm(factors, 2, axis=(1, 2)).max()),
        float(np.linalg.norm(factors, axis=(1, 2)).max()),
    )
    while len(words) <= left:
        left -= len(words)
        lengths = np.linalg.norm(words, 2, axis=(1, 2))
        longest = float(lengths.max())
        if not error + longest * rough < 1:
            return None  # rounding hides what is shorter than 1
        words = words[lengths * (1 + 10 * rough) + error >= 1]
        if len(words) == 0:
            return True
        radii = np.abs(np.linalg.eigvals(words)).max(axis=1)
        for candidate in np.argsort(radii)[-3:]:
            if radii[candidate] < 1 - 1e-9:  # far from 1; the bound would be far from it too
                continue
            if _rounding.radius_below(words[candidate], np.sqrt(n) * error) >= 1 - 1e-12:
                return False
        error = error * (size * (1 + 10 * rough) + off) + longest * (off + n * rough * spread) + n * _rounding.TINY
        words = np.einsum("pij,qjk->pqik", words, factors).reshape(-1, n, n)
    return None


def _singular(matrix: np.ndarray) -> bool:
    """Return whether a matrix is singular within rounding, whatever the units of its rows and columns."""
    for axis in (1, 0):
        largest = np.abs(matrix).max(axis=axis, keepdims=True)
        if not largest.all():
            return True
        matrix = np.ldexp(matrix, -np.frexp(largest)[1])
    sizes = np.linalg.svd(matrix, compute_uv=False)
    return bool(sizes[-1] <= 10 * len(matrix) * _rounding.EPS * sizes[0])


def _ellipse(factors: np.ndarray, w: np.ndarray) -> np.ndarray | None:
    """Return R, such that the norm ``|R x|`` shrinks under the Jacobians about as much as an ellipsoid can.

    It is looked for in units in which the entries of x / w are of one size.

    With L X the mean of ``J^T X J``, the resolvent ``(s I - L) X = I`` has a positive definite solution for every s
    above the spectral radius of L: the series of L^k I / s^(k+1). No eigenvector is asked for: the one on top need not
    be unique, and is not where J has a pair of complex eigenvalues.
    """
    n, factors = factors.shape[1], factors * w / w[:, None]
    scale = int(np.frexp(np.abs(factors).max())[1])
    factors = np.ldexp(factors, -scale)
    mean = np.zeros((n * n, n * n))
    for J in factors:
        mean += np.kron(J.T, J.T) / len(factors)  # of X, row by row
    top = float(np.abs(np.linalg.eigvals(mean)).max())
    for gap in (1e-6, 1e-4, 1e-2, 1.0):
        resolvent = (top + gap * max(top, 1e-6)) * np.eye(n * n) - mean
        try:
            X = np.linalg.solve(resolvent, np.eye(n).ravel()).reshape(n, n)
            return np.linalg.cholesky((X + X.T) / np.trace(X)).T / w
        except np.linalg.LinAlgError:
            continue  # `top` was short of the spectral radius by rounding: X is not positive definite
    return None


def _doubts(mdp: FiniteMDP, kernel: ArrayLike, weights: ArrayLike, alpha: float | int) -> np.ndarray:
    """Return the most by which each entry of a computed Jacobian is off, whatever the policy, shape (n, n)."""
    pull = np.abs(np.asarray(kernel) * (alpha * np.asarray(weights)))
    flow = np.repeat(pull @ mdp.transitions, mdp.n_actions, axis=1)  # to a pair at most what goes to its state
    return _rounding.slack(mdp.n_pairs) * (np.eye(mdp.n_pairs) + pull + mdp.gamma * flow)


def _in_the_norm_of(root: np.ndarray, factors: np.ndarray, doubts: np.ndarray) -> tuple[np.ndarray, float]:
    """Return ``R J R^-1`` of each J, and the most by which one is off in the norm of absolute squares."""
    back = np.linalg.inv(root)
    rough = _rounding.slack(2 * len(root))
    turned = root @ factors @ back
    off = np.abs(root) @ (doubts + rough * np.abs(factors).max(axis=0)) @ np.abs(back)
    residual = np.linalg.norm(np.abs(root @ back - np.eye(len(root))) + rough * (np.abs(root) @ np.abs(back)))
    if not residual < 0.5:
        return turned, np.inf  # then nothing is shorter than 1 for certain
    return turned, float(
        np.linalg.norm(off) + 2 * residual * (np.linalg.norm(turned, axis=(1, 2)).max() + np.linalg.norm(off))
    )


UNIT_SQUARE = np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
"""Corners of the set of all differences of sup norm at most 1, for two pairs."""
UNIT_SQUARE.setflags(write=False)


def _two_pair_jacobians(
    mdp: FiniteMDP, kernel: ArrayLike, weights: ArrayLike, alpha: float | int
) -> Float[np.ndarray, "p 2 2"]:
    if mdp.n_pairs != 2:
        raise ValueError(f"mdp must have two state-action pairs, it has {mdp.n_pairs}")
    return jacobians(mdp, kernel=kernel, weights=weights, alpha=alpha)


def box_images(
    mdp: FiniteMDP,
    *,
    kernel: ArrayLike,
    weights: ArrayLike,
    alpha: float | int,
    shape: Float[np.ndarray, "m 2"] = UNIT_SQUARE,
) -> Float[np.ndarray, "p m 2"]:
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
    shape : ndarray of shape (m, 2)
        Corners of another shape in place of the square.

    Returns
    -------
    ndarray of shape (n_policies, m, 2)
        The images of the corners, for each deterministic policy. For the square the largest absolute entry is the exact
        modulus.

    Raises
    ------
    ValueError
        If the process has another number of pairs, a shape disagrees, `weights` is not a distribution, or `alpha` is
        not positive.
    """
    shape = _checks.array("shape", shape, shape=(None, 2))
    return np.stack([shape @ J.T for J in _two_pair_jacobians(mdp, kernel, weights, alpha)])


def norm_ball(
    mdp: FiniteMDP, *, kernel: ArrayLike, weights: ArrayLike, alpha: float | int, rate: float | int, depth: int
) -> Float[np.ndarray, "m 2"]:
    """Return the unit ball of a norm in which every Jacobian of the kernel update on two pairs shrinks by `rate`.

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
    rate : float
        The factor to shrink by, > 0; above the joint spectral radius.
    depth : int
        Length of the longest product of Jacobians that the norm looks at.

    Returns
    -------
    ndarray of shape (m, 2)
        Corners, counter-clockwise. The norm of x is the largest ``|J_1 ... J_k x| / rate**k`` over products of up to
        `depth` Jacobians, in the sup norm.

    Raises
    ------
    ValueError
        If a product of `depth` + 1 Jacobians is longer than ``rate**(depth + 1)``, so that the norm is not shown to
        shrink, or an argument is out of range.

    Notes
    -----
    Label ``thm-some-norm``.
    """
    rate = _checks.scalar("rate", rate, low=0, low_open=True)
    depth = _checks.integer("depth", depth, low=1)
    factors = _two_pair_jacobians(mdp, kernel, weights, alpha) / rate
    _checks.memory("norm_ball", len(factors) ** (depth + 1), 2, 2, copies=6)
    products, rows = np.eye(2)[None], [np.eye(2)]
    for _ in range(depth):
        products = np.einsum("pij,qjk->pqik", products, factors).reshape(-1, 2, 2)
        rows.append(products.reshape(-1, 2))
    size = np.abs(factors).sum(axis=-1).max()
    longest = np.abs(np.einsum("pij,qjk->pqik", products, factors)).sum(axis=-1).max()
    longest += (depth + 1) * _rounding.slack(4) * max(1.0, size) ** (depth + 1) * (1 + size)
    if longest > 1:
        raise ValueError(
            f"rate must exceed the growth of products of {depth + 1} Jacobians: they are {longest:.6g} times "
            "as long as it allows"
        )
    sides = np.concatenate(rows)
    sides = np.concatenate([sides, -sides])  # side . x <= 1
    corners = HalfspaceIntersection(np.column_stack([sides, -np.ones(len(sides))]), np.zeros(2)).intersections
    return corners[ConvexHull(corners).vertices]


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
        more is left out: then a whole leaf of tables stays where it is.

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
    for policy in _policies(mdp):
        chosen = features[np.arange(mdp.n_states) * mdp.n_actions + policy]  # (n_states, d)
        system = sampled @ (features - mdp.gamma * (mdp.transitions @ chosen))
        if np.linalg.matrix_rank(system, tol=rounding) < features.shape[1]:
            continue
        theta = np.linalg.solve(system, sampled @ mdp.R.ravel())
        Q = (features @ theta).reshape(mdp.n_states, mdp.n_actions)
        slack = Q.max(axis=1) - Q[np.arange(mdp.n_states), policy]
        if slack.max() <= 1e-10 * max(1.0, np.abs(Q).max()):
            found.append(theta)
    return np.unique(np.round(found, 12) + 0.0, axis=0) if found else np.empty((0, features.shape[1]))


def tracking_bound(beta: float | int, *, spread: float | int) -> float:
    """Return how far iterates can stay from a centre when each operator has its own fixed point near it.

    Parameters
    ----------
    beta : float
        Every operator of the sequence contracts by at least this, in one common norm; in [0, 1).
    spread : float
        Largest distance of a fixed point to the centre, in that norm, >= 0.

    Returns
    -------
    float
        An upper bound on the limit superior of the distance to the centre: ``(1 + beta) spread / (1 - beta)``.

    Raises
    ------
    ValueError
        If a number is out of range.

    Notes
    -----
    Label ``eq-tracking``.
    """
    beta = _checks.scalar("beta", beta, low=0, high=1, high_open=True)
    return (1 + beta) * _checks.scalar("spread", spread, low=0) / (1 - beta)


def lag_bound(beta: float | int, *, drift: float | int) -> float:
    """Return how far iterates can lag behind a fixed point that moves a little at every step.

    Parameters
    ----------
    beta : float
        Every operator of the sequence contracts by at least this, in one common norm; in [0, 1).
    drift : float
        Largest distance between the fixed points of two operators in a row, in that norm, >= 0.

    Returns
    -------
    float
        An upper bound on the limit superior of the distance to the fixed point of the next operator:
        ``drift / (1 - beta)``.

    Raises
    ------
    ValueError
        If a number is out of range.

    Notes
    -----
    Label ``eq-lag``.
    """
    beta = _checks.scalar("beta", beta, low=0, high=1, high_open=True)
    return _checks.scalar("drift", drift, low=0) / (1 - beta)
