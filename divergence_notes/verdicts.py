"""What is said of an update: each certificate, from the crudest to the sharpest, and maps of where each one holds.

Here live the comparisons between certificates; each certificate itself is in `contraction` or `norms`, and the updates
that the book looks at are in `examples`.
"""

from dataclasses import dataclass, replace

import numpy as np

from divergence_notes import _checks, contraction, norms
from divergence_notes._checks import ArrayLike
from divergence_notes.updates import KernelUpdate

CERTIFICATES = ("row_sum_bound", "exact_modulus", "weighted_modulus", "joint_spectral_radius", None)
"""From the crudest certificate to the sharpest, and None where none holds."""


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What each certificate says of an update, from the crudest to the sharpest."""

    row_sum_bound: float
    """The paper's modulus, which never looks at P."""
    exact_modulus: float
    """The Lipschitz constant in the sup norm."""
    weighted_modulus: float
    """The smallest Lipschitz constant in a weighted sup norm."""
    joint_spectral_radius: tuple[float, float]
    """Lower and upper bound on the smallest Lipschitz constant in any norm."""
    spectral_radii: np.ndarray
    """Spectral radius of the Jacobian of each deterministic policy, sorted."""

    @property
    def certified_by(self) -> str | None:
        """The crudest certificate that is below 1, or None when none is."""
        for name in CERTIFICATES[:3]:
            if getattr(self, name) < 1:
                return name
        return "joint_spectral_radius" if self.joint_spectral_radius[1] < 1 else None


def verdicts(update: KernelUpdate, *, products: int = 10_000) -> Verdicts:
    """Return what each certificate says of a kernel update.

    Parameters
    ----------
    update : updates.KernelUpdate
        The update to judge; with a policy of its own it has a single Jacobian.
    products : int
        Most products of one length to look at for the joint spectral radius. The Jacobians themselves are looked at
        in any case, and of a single one the first twelve powers.

    Returns
    -------
    Verdicts
        Up to rounding each number is at most the one before it: each is rounded outwards by itself. The lower bound of
        the joint spectral radius is never above its upper bound.

    Raises
    ------
    ValueError
        If `products` is below 1, or there are too many policies or products for `norms.joint_spectral_radius`.
    """
    products, count = _checks.integer("products", products, low=1), update.n_policies
    depth = 12 if count == 1 else max(1, int(np.log(products) / np.log(count)))
    return Verdicts(
        _row_sum_bound(update),
        contraction.exact_modulus(update),
        norms.weighted_modulus(update)[0],
        norms.joint_spectral_radius(update, depth=depth),
        np.sort(np.abs(np.linalg.eigvals(update.jacobians())).max(axis=1)),
    )


def _row_sum_bound(update: KernelUpdate) -> float:
    """Return the bound that looks at no process, at the discount of the process."""
    return contraction.row_sum_bound(update.kernel, update.weights, alpha=update.alpha, gamma=update.mdp.gamma)


def _with_coupling(kernel: np.ndarray, coupling: float) -> np.ndarray:
    """Return a kernel with the same diagonal and one value everywhere else."""
    return np.diag(np.diag(kernel) - coupling) + coupling


def _sup_norm_certificate(update: KernelUpdate) -> int | None:
    """Return the position in `CERTIFICATES` of the crudest that is a sup norm's, looking no further than needed."""
    if _row_sum_bound(update) < 1:
        return 0
    if contraction.exact_modulus(update) < 1:
        return 1
    return 2 if norms.weighted_modulus(update)[0] < 1 else None


PHASES = (*CERTIFICATES[:4], "none runs off", "some run off")
"""What `phase_map` tells apart: the crudest certificate that holds, else what was seen to happen without reward."""


def phase_map(
    update: KernelUpdate, *, couplings: ArrayLike, gammas: ArrayLike, starts: int = 64, max_iter: int = 3000
) -> np.ndarray:
    """Return which certificate covers an update on two pairs, or what happens without one, over coupling and discount.

    Parameters
    ----------
    update : updates.KernelUpdate
        On one state with two actions or two states with one; its kernel off the diagonal, its discount and its rewards
        are not used.
    couplings : ndarray of shape (n,)
        Values of the kernel's entry off the diagonal.
    gammas : ndarray of shape (m,)
        Discounts in [0, 1).
    starts : int
        How many tables of length 1, evenly spread over the directions of the plane, are run where no norm is found.
    max_iter : int
        Most updates of a run.

    Returns
    -------
    ndarray of int, shape (m, n)
        Positions in `PHASES` of the first that holds. Without reward the update commutes with scaling, so that the
        length of a start does not matter; a run has run off when a value exceeds 1e6.

    Raises
    ------
    ValueError
        If the process has not two pairs, or a number is out of range.
    """
    mdp = update.mdp
    if mdp.n_pairs != 2:
        raise ValueError(f"update must be on two state-action pairs, its process has {mdp.n_pairs}")
    couplings = _checks.array("couplings", couplings, shape=(None,))
    gammas = _checks.array("gammas", gammas, shape=(None,))
    angle = np.arange(_checks.integer("starts", starts, low=1)) * 2 * np.pi / starts
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    max_iter = _checks.integer("max_iter", max_iter, low=1)
    codes = np.zeros((len(gammas), len(couplings)), dtype=int)
    for row, column in np.ndindex(codes.shape):
        here = replace(mdp, R=np.zeros_like(mdp.R), gamma=gammas[row])
        kernel = _with_coupling(update.kernel, couplings[column])
        codes[row, column] = _phase(replace(update, mdp=here, kernel=kernel), circle, max_iter)
    return codes


def _phase(update: KernelUpdate, tables: np.ndarray, max_iter: int) -> int:
    """Return the position in `PHASES` of an update on two pairs without reward, running it on tables (m, 2)."""
    code = _sup_norm_certificate(update)
    if code is not None:
        return code
    if norms.some_norm(update):
        return 3
    pieces = update.jacobians()
    for _ in range(max_iter):
        greedy = tables.argmax(axis=1) if update.mdp.n_actions == 2 else np.zeros(len(tables), dtype=int)
        tables = np.einsum("mij,mj->mi", pieces[greedy], tables)
        size = np.abs(tables).max()
        if size > 1e6:
            return 5
        if size < 1e-6:
            break
    return 4
