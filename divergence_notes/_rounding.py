"""What rounding can have done: a number that certifies something is moved outwards by at least that much.

The inputs are floating-point numbers, which are exact; what is computed from them is not. Each bound here holds for
exact arithmetic on those inputs, whatever the order in which a library adds. What is certified by them is in
`bellman`, `contraction` and `norms`.
"""

import numpy as np

EPS = float(np.finfo(np.float64).eps)
"""Twice the most by which one operation is off, so that every bound below has a factor of two to spare."""
TINY = float(np.finfo(np.float64).tiny)
"""More than what one operation can lose to underflow."""


def slack(terms: int) -> float:
    """Return the most by which a sum of `terms` products of a few numbers is off, per unit of their absolute sum.

    Each product and each addition is off by EPS / 2 at most: this covers a sum of sums, each over `terms` numbers.
    """
    return (terms + 20) * EPS


def root_above(value: float, length: int) -> float:
    """Return an upper bound on ``value ** (1 / length)``."""
    root = value ** (1 / length)
    return root * (1 + _root_error(root))


def root_below(value: float, length: int) -> float:
    """Return a lower bound on ``value ** (1 / length)``."""
    root = value ** (1 / length)
    return root * (1 - _root_error(root))


def _root_error(root: float) -> float:
    """Return the most, in parts of itself, by which a root is off: its exponent ``1 / length`` is rounded too."""
    return EPS * (8 + 2 * abs(np.log(root))) if root > 0 else 0.0


def radius_below(matrix: np.ndarray, error: float) -> float:
    """Return a lower bound on the spectral radius of every matrix that is near to `matrix`.

    The computed eigenvalues of a matrix of order n are off by up to ``EPS ** (1 / n)`` where it is defective, upwards
    as well as downwards. Neither of the two ways here trusts them: discs hold the eigenvalues where there is a basis of
    eigenvectors, and the traces of powers bound them where there is none.

    Parameters
    ----------
    matrix : ndarray of shape (n, n)
        Finite.
    error : float
        Largest distance to the matrices that are meant, in the norm of absolute row sums.

    Returns
    -------
    float
        At least 0.
    """
    norm = float(np.abs(matrix).sum(axis=1).max())
    if not np.isfinite(norm) or not error < norm:
        return 0.0
    scale = int(np.frexp(norm)[1])  # by a power of 2: exact, and nothing below overflows
    matrix, error = np.ldexp(matrix, -scale), float(np.ldexp(error, -scale)) + len(matrix) * TINY
    return float(np.ldexp(max(_from_discs(matrix, error), _from_traces(matrix, error)), scale))


def _from_discs(matrix: np.ndarray, error: float) -> float:
    """Return the least size of an eigenvalue in the best group of Gershgorin discs, in a basis near the eigenvectors.

    The basis X and its approximate inverse Y need not be what they are called. With F = Y X - I small, X^-1 A X is
    (I + F)^-1 Y A X, so that its distance to the computed Y A X is known.
    """
    n = len(matrix)
    try:
        _, X = np.linalg.eig(matrix)
        Y = np.linalg.inv(X)
    except np.linalg.LinAlgError:
        return 0.0
    ones, rough = np.ones(n), 4 * slack(2 * n)  # complex products round a little more
    sizes, X_sums, Y_sums = np.abs(matrix), np.abs(X) @ ones, np.abs(Y) @ ones
    with np.errstate(over="ignore", invalid="ignore"):
        off = float((np.abs(Y @ X - np.eye(n)) @ ones + rough * (np.abs(Y) @ X_sums)).max())
        if not off < 0.5:
            return 0.0
        near = Y @ (matrix @ X)
        radii = rough * (np.abs(Y) @ (sizes @ X_sums)) + Y_sums * (error * X_sums.max())
        radii += 2 * off * float((np.abs(near) @ ones + radii).max())
        radii = (radii + np.abs(near - np.diag(np.diag(near))) @ ones) * (1 + rough)
    if not np.isfinite(radii).all():
        return 0.0
    centres = np.diag(near)
    touch = np.abs(centres[:, None] - centres) <= (radii[:, None] + radii) * (1 + rough)
    from scipy.sparse.csgraph import connected_components

    groups, member = connected_components(touch, directed=False)
    inner = np.abs(centres) * (1 - rough) - radii * (1 + rough)  # a group of m discs holds m eigenvalues
    return max(0.0, *(float(inner[member == group].min()) for group in range(groups)))


def _from_traces(matrix: np.ndarray, error: float) -> float:
    """Return the best of ``(|tr A^k| / n) ** (1 / k)``, for k = 1, 2, 4, ... and three times these."""
    n, best = len(matrix), 0.0
    cube = matrix @ matrix @ matrix
    size = float(np.abs(matrix).sum(axis=1).max()) + error
    for start, power in ((matrix, 1), (cube, 3)):
        B, off, exponent = start, error, 0  # A^power is B * 2^exponent, but for `off`
        if power == 3:
            off = 3 * error * size**2 + 2 * slack(n) * size**3 + n * TINY
        for _ in range(26):
            norm = float(np.abs(B).sum(axis=1).max())
            if not np.isfinite(norm) or not off < norm:
                break
            shift = int(np.frexp(norm)[1])
            B, off, norm = np.ldexp(B, -shift), float(np.ldexp(off, -shift)) + n * TINY, float(np.ldexp(norm, -shift))
            exponent += shift
            diagonal = np.diag(B)
            trace = abs(float(diagonal.sum())) - n * off - slack(n) * float(np.abs(diagonal).sum()) - n * TINY
            if trace > 0:
                size_log = (np.log2(trace / n) + exponent) / power
                best = max(best, float(2.0**size_log) * (1 - EPS * (16 + 4 * abs(size_log))))
            off = off * (2 * norm + off) + slack(n) * norm**2 + n * TINY
            B, exponent, power = B @ B, 2 * exponent, 2 * power
    return best
