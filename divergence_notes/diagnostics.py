"""Numbers about a kernel that say how far it is from a table's."""

import numpy as np

from divergence_notes import _checks
from divergence_notes._checks import ArrayLike


def row_ratio(kernel: ArrayLike) -> np.ndarray:
    """Return how much of each row of the kernel lies off its diagonal.

    Parameters
    ----------
    kernel : ndarray of shape (n, n)
        A kernel with a positive diagonal.

    Returns
    -------
    ndarray of shape (n,)
        ``(1 / n) sum_{j != i} |K_ij| / K_ii``; 0 for a table, near 1 when every pair moves with every other.

    Raises
    ------
    ValueError
        If the kernel is not square or an entry of its diagonal is not positive.

    Notes
    -----
    Label ``eq-row-ratio``; arXiv:1903.08894, section on the kernels of networks.
    """
    kernel = _checks.square("kernel", kernel)
    own = np.diag(kernel)
    bad = np.flatnonzero(own <= 0)
    if len(bad):
        raise ValueError(f"kernel must have a positive diagonal: kernel[{bad[0]}, {bad[0]}] is {own[bad[0]]:.6g}")
    return (np.abs(kernel).sum(axis=1) - own) / own / len(kernel)
