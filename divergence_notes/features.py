"""Features: the numbers that a linear Q-function sees of a pair, and how much two pairs share of them.

Their inner products are a kernel; the step that a linear Q-function takes is `updates.linear_step`. A network learns
its features: `networks`, and its kernel is `ntk`.
"""

import numpy as np

from divergence_notes import _checks
from divergence_notes._checks import ArrayLike


def one_hot(n_pairs: int) -> np.ndarray:
    """Return one feature for each pair: a table written as a linear function.

    Parameters
    ----------
    n_pairs : int
        At least 1.

    Returns
    -------
    ndarray of shape (n_pairs, n_pairs)
        The identity matrix.
    """
    n_pairs = _checks.integer("n_pairs", n_pairs, low=1)
    _checks.memory("one_hot", n_pairs, n_pairs)
    return np.eye(n_pairs)


def aggregation(groups: ArrayLike) -> np.ndarray:
    """Return one feature for each group of pairs.

    Parameters
    ----------
    groups : ndarray of int, shape (n_pairs,)
        The group of each pair, numbered from 0.

    Returns
    -------
    ndarray of shape (n_pairs, n_groups)
        Entry 1 where the pair belongs to the group, else 0.
    """
    members = _checks.indices("groups", groups, high=np.iinfo(np.intp).max, shape=(None,))
    if len(members) == 0:
        raise ValueError("groups must hold at least one pair, got none")
    shape = (len(members), int(members.max()) + 1)
    _checks.memory("aggregation", *shape)
    out = np.zeros(shape)
    out[np.arange(len(members)), members] = 1.0
    return out


def radial_basis(points: ArrayLike, centers: ArrayLike, *, width: float | int) -> np.ndarray:
    r"""Return Gaussian bumps that overlap: :math:`\exp(-|x - c|^2 / (2 w^2))`.

    Parameters
    ----------
    points : ndarray of shape (n_pairs, d)
        Where each pair lies.
    centers : ndarray of shape (m, d)
        Where each bump lies.
    width : float
        Standard deviation of a bump, > 0, in units of `points`.

    Returns
    -------
    ndarray of shape (n_pairs, m)
        Values in [0, 1].
    """
    points, centers = _checks.array("points", points, ndim=2), _checks.array("centers", centers, ndim=2)
    width = _checks.scalar("width", width, low=0, low_open=True)
    if points.shape[1] != centers.shape[1]:
        raise ValueError(f"centers must have {points.shape[1]} columns as points has, got {centers.shape[1]}")
    _checks.memory("radial_basis", len(points), len(centers), copies=2)
    from scipy.spatial.distance import cdist

    return np.exp(-cdist(points, centers, "sqeuclidean") / (2 * width**2))


def kernel(features: ArrayLike) -> np.ndarray:
    """Return K = Phi Phi^T, the inner products of the features of every two pairs.

    Parameters
    ----------
    features : ndarray of shape (n_pairs, n_features)
        One row for each pair.

    Returns
    -------
    ndarray of shape (n_pairs, n_pairs)
        Symmetric, positive semi-definite, of rank at most ``n_features``.

    Notes
    -----
    Label ``eq-linear-kernel``.
    """
    features = _checks.array("features", features, ndim=2)
    _checks.memory("kernel", len(features), len(features))
    return features @ features.T


def projection(features: ArrayLike, weights: ArrayLike) -> np.ndarray:
    """Return Pi, which maps a table to the nearest one that the features can make.

    Parameters
    ----------
    features : ndarray of shape (n_pairs, n_features)
        One row for each pair.
    weights : ndarray of shape (n_pairs,)
        The share of each pair: near means a small sum of squared differences, each counted with its share.

    Returns
    -------
    ndarray of shape (n_pairs, n_pairs)
        Where the nearest tables are several, since some shares are 0 or features repeat, the one that the shortest
        parameters make.

    Notes
    -----
    Label ``eq-projection``. `updates.fitted_update` applies it to the backups.
    """
    features = _checks.array("features", features, ndim=2)
    root = np.sqrt(_checks.distribution("weights", weights, size=len(features)))
    _checks.memory("projection", len(features), len(features))
    return features @ (np.linalg.pinv(root[:, None] * features) * root)
