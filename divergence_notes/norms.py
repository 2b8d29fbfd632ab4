"""Norms other than the sup norm: in which of them an update contracts, and how far from a centre iterates can stay.

Here live the best weighted sup norm, the joint spectral radius, which decides about all norms at once, and what follows
for a sequence of contractions. The sup norm itself is in `contraction`.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from divergence_notes import _checks, _jacobian_rows, _rounding
from divergence_notes._checks import ArrayLike
from divergence_notes.updates import Update


def weighted_modulus(update: Update, *, max_iter: int = 1000) -> tuple[float, np.ndarray]:
    """Return the best modulus over all weighted sup norms, and the weights that certify it.

    Parameters
    ----------
    update : updates.Update
        Its matrix M may be any, and its targets those of T* or of one policy.
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
        If the matrices would need more than 2 GB, or `max_iter` is below 1.

    Notes
    -----
    Label ``eq-weighted-modulus``. The smallest constant is the largest spectral radius of a matrix each of whose rows
    is a row of some ``abs(J_pi)``; policy iteration finds it. Where that matrix is reducible the infimum may not be
    attained. Therefore w is no eigenvector but solves ``(s I - A) w = 1`` with s just above the spectral radius of the
    matrix A: then ``A w < s w``, and w is positive whatever the zeros of A. What is returned is what this w attains.
    """
    mdp = update.mdp
    _checks.memory("weighted_modulus", mdp.n_pairs, mdp.n_pairs, copies=8)
    pairs, pull, own, inflow = next(_jacobian_rows.blocks(update, size=mdp.n_pairs))
    own[pairs, pairs] += 1
    size, states = np.abs(own), np.arange(mdp.n_states)
    growth = _jacobian_rows.growth(own, inflow, mdp.n_actions)  # (A, n, S)

    def attained(w: np.ndarray) -> tuple[float, np.ndarray]:
        """Return what w attains, rounded up, and the worst action of each next state for each row."""
        gains = growth * w.reshape(mdp.n_states, mdp.n_actions).T[:, None, :]
        sums = size @ w + gains.max(axis=0).sum(axis=1) + _jacobian_rows.doubt(update, pull, w, w)
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
    """Yield positive solutions of ``(s I - A) x = right``, for s from the spectral radius of A upwards.

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


def joint_spectral_radius(update: Update, *, depth: int) -> tuple[float, float]:
    """Return bounds on how fast the worst products of Jacobians can grow, which decides whether any norm contracts.

    Parameters
    ----------
    update : updates.Update
        On a process with few deterministic policies, or with a policy of its own.
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
        If there are more than a million products, or they would need more than 2 GB.

    Notes
    -----
    Label ``eq-joint-spectral-radius``. After G.-C. Rota and G. Strang, "A note on the joint spectral radius", 1960.
    """
    depth = _checks.integer("depth", depth, low=1)
    mdp, count = update.mdp, update.n_policies
    if count**depth > 1_000_000:
        raise ValueError(f"depth must leave at most 1000000 products: {count} policies to the power {depth} are more")
    _checks.memory("joint_spectral_radius", count**depth, mdp.n_pairs, mdp.n_pairs, copies=3)
    _, w = weighted_modulus(update)
    factors = update.jacobians() * w / w[:, None]
    off = float((_jacobian_rows.doubt(update, update.matrix, w, w) / w).max())  # of each factor, in the norm of w
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


def some_norm(update: Update, *, products: int = 30_000) -> bool | None:
    """Return whether an update is a contraction in some norm, as far as products of Jacobians tell.

    Parameters
    ----------
    update : updates.Update
        On a process with few deterministic policies and few pairs, or with a policy of its own.
    products : int
        Most products to look at.

    Returns
    -------
    bool or None
        True is a proof, for the numbers as they are stored and with rounding counted: a weighted sup norm shrinks, or
        there is a norm whose unit ball is an ellipsoid and a finite set of products, all shorter than 1 in it, such
        that every long product splits into members of the set.
        False says that no norm shrinks by more than rounding: some product has an eigenvalue of size 1 - 1e-12 or more,
        by a bound that leans on no computed eigenvalue, or M is singular within rounding, which puts the eigenvalue 1
        (or one that rounding cannot tell from it) into every Jacobian.
        None if neither is seen.

    Raises
    ------
    ValueError
        If there are too many policies, or the work would need too much memory (it takes a matrix of order
        n_pairs^2).

    Notes
    -----
    Label ``thm-some-norm``. Only the products that are not yet shorter than 1 are continued, so that this decides many
    updates for which the bounds of `joint_spectral_radius` have 1 between them.
    """
    left = _checks.integer("products", products, low=1)
    n = update.mdp.n_pairs
    _checks.memory("some_norm", n**2, n**2, copies=4)
    factors = update.jacobians()
    modulus, w = weighted_modulus(update)
    if modulus < 1:
        return True
    if _singular(update.matrix):
        return False
    root = _ellipse(factors, w)
    if root is None:
        return None
    factors, off = _in_the_norm_of(root, factors, _doubts(update))
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


def _doubts(update: Update) -> np.ndarray:
    """Return the most by which each entry of a computed Jacobian is off, whatever policy targets may follow, (n, n)."""
    mdp, pull = update.mdp, np.abs(update.matrix)
    if update.policy is None:
        flow = np.repeat(pull @ mdp.transitions, mdp.n_actions, axis=1)  # to a pair at most what goes to its state
    else:
        flow = pull @ mdp.pair_transitions(update.policy)
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


def norm_ball(update: Update, *, rate: float | int, depth: int) -> Float[np.ndarray, "m 2"]:
    """Return the unit ball of a norm in which every Jacobian of an update on two pairs shrinks by `rate`.

    Parameters
    ----------
    update : updates.Update
        On a process with two state-action pairs.
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
    from scipy.spatial import ConvexHull, HalfspaceIntersection  # slow to import, and asked for by one figure

    if update.mdp.n_pairs != 2:
        raise ValueError(f"update must be on two state-action pairs, its process has {update.mdp.n_pairs}")
    rate = _checks.scalar("rate", rate, low=0, low_open=True)
    depth = _checks.integer("depth", depth, low=1)
    factors = update.jacobians() / rate
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


def ball_norm(ball: ArrayLike, x: ArrayLike) -> float:
    """Return the length of a vector in the norm whose unit ball is a given polygon.

    Parameters
    ----------
    ball : ndarray of shape (m, 2)
        Corners, counter-clockwise, as `norm_ball` returns them; convex, the same turned half round, about the origin.
    x : ndarray of shape (2,)
        Any vector.

    Returns
    -------
    float
        The least t for which x lies in t times the ball.

    Raises
    ------
    ValueError
        If a shape is wrong, or the origin is not inside.

    Notes
    -----
    Label ``thm-some-norm``.
    """
    ball = _checks.array("ball", ball, shape=(None, 2))
    x = _checks.array("x", x, shape=(2,))
    sides = np.roll(ball, -1, axis=0) - ball
    outward = np.column_stack([sides[:, 1], -sides[:, 0]])
    far = (outward * ball).sum(axis=1)  # of each side from the origin, in units of its length
    if not (far > 0).all():
        raise ValueError("ball must hold the origin inside, with its corners counter-clockwise")
    return float((outward @ x / far).max())


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
