"""Six rules for learning the value of one policy, each as one affine map, and what a target network is sure of.

A rule here is a remedy for divergence, or the plain step beside them. The same question can be put to all: does the map
bring its iterates to rest, and where. What one step of an update does is in `updates`; the sup norm in `contraction`.
"""

from dataclasses import dataclass

import numpy as np

from divergence_notes import _checks
from divergence_notes._checks import ArrayLike
from divergence_notes.mdp import FiniteMDP
from divergence_notes.updates import KernelUpdate, _batch

_RANK = 1e-10
"""Singular values below this part of the largest are rounding."""


@dataclass(frozen=True, eq=False)
class Rule:
    """One rule of learning as an affine map of what it remembers: ``x' = matrix x + shift``, values ``values x``.

    Parameters
    ----------
    matrix : ndarray of shape (m, m)
        What a step makes of the numbers that are remembered.
    shift : ndarray of shape (m,)
        What a step adds.
    values : ndarray of shape (n_pairs, m)
        The values that belong to the numbers.
    """

    matrix: np.ndarray
    shift: np.ndarray
    values: np.ndarray

    def __call__(self, x: ArrayLike) -> np.ndarray:
        """Return what is remembered after one step.

        Parameters
        ----------
        x : ndarray of shape (m,)
            What is remembered before it.

        Returns
        -------
        ndarray of shape (m,)
            A new array.
        """
        return self.matrix @ _checks.array("x", x, shape=self.shift.shape) + self.shift

    def _moving(self) -> np.ndarray:
        """Return an orthonormal basis of all that a difference of two starts can be moved by."""
        left, sizes, _ = np.linalg.svd(self.matrix - np.eye(len(self.matrix)))
        return left[:, sizes > _RANK * max(1.0, float(np.linalg.norm(self.matrix, 2)))]

    @property
    def growth(self) -> float:
        """By how much a step multiplies, in the long run, what it moves: it settles from every start when below 1.

        The spectral radius of the matrix on the range of ``matrix - I``. What lies outside that range never moves, so
        that where the rule settles can depend on the start.
        """
        basis = self._moving()
        return float(np.abs(np.linalg.eigvals(basis.T @ self.matrix @ basis)).max()) if basis.size else 0.0

    def rest(self, x: ArrayLike | None = None) -> np.ndarray:
        """Return the values at which the rule stays, as far as it can move from a start; it need not go there.

        Parameters
        ----------
        x : ndarray of shape (m,), optional
            The start; zeros by default.

        Returns
        -------
        ndarray of shape (n_pairs,)
            The limit from that start where `growth` is below 1.
        """
        x = np.zeros(len(self.shift)) if x is None else _checks.array("x", x, shape=self.shift.shape)
        basis = self._moving()
        system = (self.matrix - np.eye(len(self.matrix))) @ basis
        moved = basis @ np.linalg.lstsq(system, -(self(x) - x), rcond=None)[0]
        return self.values @ (x + moved)


def rules(
    features: ArrayLike,
    mdp: FiniteMDP,
    *,
    policy: ArrayLike,
    weights: ArrayLike,
    alpha: float | int,
    period: int = 10,
    pull: float | int = 0.1,
    pace: float | int = 0.1,
    batch: ArrayLike | None = None,
    jitter: float | int = 0.0,
) -> dict[str, Rule]:
    """Return the plain step for the value of a policy and five remedies for its divergence, all in expectation.

    Parameters
    ----------
    features : ndarray of shape (n_pairs, n_features)
        One row for each pair; the values are ``features @ theta``.
    mdp : FiniteMDP
        The process.
    policy : ndarray of int, shape (n_states,), or ndarray of float, shape (n_states, n_actions)
        The policy whose value is learned.
    weights : ndarray of shape (n_pairs,)
        Sampling distribution rho; non-negative, sums to 1.
    alpha : float
        Step size, > 0.
    period : int
        Steps between two copies into the target network, at least 1.
    pull : float
        How strongly the regularised rule pulls the parameters to 0, at least 0.
    pace : float
        Step size of the second vector of TDC, > 0.
    batch : ndarray of int, shape (b,), optional
        The batch on which PreQN undoes the kernel; every pair with a share by default.
    jitter : float
        What PreQN adds to the diagonal of the kernel of the batch, in units of its mean, at least 0. With 0 it takes
        the pseudoinverse.

    Returns
    -------
    dict of str to Rule
        ``plain``, ``residual gradient``, ``TDC``, ``regularised``, ``target network`` (one step of the rule is all from
        one copy to the next) and ``PreQN``. What they remember are the parameters, up to a rotation and without the
        directions that no feature has; TDC remembers a second vector too.

    Raises
    ------
    ValueError
        If a shape disagrees, `weights` is not a distribution, the policy is none, a number is out of range, or a
        feature is not finite.

    Notes
    -----
    The residual gradient goes down the mean square of the expected TD error. With transitions by chance that is not
    the mean square of the TD errors of single transitions, which can be least elsewhere.

    Labels ``eq-residual-gradient``, ``eq-regularised-step`` and ``eq-tdc``. L. Baird, "Residual
    algorithms", 1995; R. Sutton and others, "Fast gradient-descent methods for temporal-difference learning with linear
    function approximation", 2009.
    """
    features = _checks.array("features", features, shape=(mdp.n_pairs, None), beside=mdp._sizes)
    weights = _checks.distribution("weights", weights, size=mdp.n_pairs, beside=mdp._sizes)
    alpha = _checks.scalar("alpha", alpha, low=0, low_open=True)
    period = _checks.integer("period", period, low=1)
    pull = _checks.scalar("pull", pull, low=0)
    pace = _checks.scalar("pace", pace, low=0, low_open=True)
    jitter = _checks.scalar("jitter", jitter, low=0)
    batch = np.flatnonzero(weights) if batch is None else _batch(batch, mdp.n_pairs)
    chain = mdp.gamma * mdp.pair_transitions(policy)  # (n, n), gamma P_pi
    phi = _without_idle_directions(features)  # (n, r)
    data, eye, reward = phi.T * weights, np.eye(phi.shape[1]), mdp.R.ravel()  # Phi^T D
    error = chain @ phi - phi  # the TD errors are reward + error @ theta
    ahead = (chain @ phi).T * weights  # gamma (P Phi)^T D

    def affine(step: np.ndarray) -> Rule:
        """Return the rule that adds `step` times the TD errors to the parameters."""
        return Rule(eye + step @ error, step @ reward, phi)

    plain = affine(alpha * data)
    left, went = _powers(eye - alpha * data @ phi, period)
    both = np.block([[plain.matrix, -alpha * ahead @ phi], [pace * data @ error, eye - pace * data @ phi]])
    rows = phi[batch]
    block = rows @ rows.T
    undo = np.zeros((phi.shape[1], mdp.n_pairs))
    undo[:, batch] = (
        alpha
        * rows.T
        @ np.linalg.pinv(block + jitter * np.diag(block).mean() * np.eye(len(batch)), rcond=_RANK, hermitian=True)
    )
    return {
        "plain": plain,
        "residual gradient": affine(alpha * (data - ahead)),
        "TDC": Rule(both, np.concatenate([plain.shift, pace * data @ reward]), np.hstack([phi, 0 * phi])),
        "regularised": Rule(plain.matrix - alpha * pull * eye, plain.shift, phi),
        "target network": Rule(left + alpha * went @ data @ chain @ phi, alpha * went @ data @ reward, phi),
        "PreQN": affine(undo),
    }


def _without_idle_directions(features: np.ndarray) -> np.ndarray:
    """Return the features in as many columns as their rank: no step along another direction changes a value."""
    left, sizes, _ = np.linalg.svd(features, full_matrices=False)
    kept = sizes > _RANK * max(float(sizes.max(initial=0.0)), np.finfo(float).tiny)
    return left[:, kept] * sizes[kept]


def _powers(matrix: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a power of a matrix, and the sum of all lower ones."""
    n = len(matrix)
    both = np.linalg.matrix_power(np.block([[matrix, np.eye(n)], [np.zeros((n, n)), np.eye(n)]]), count)
    return both[:n, :n], both[:n, n:]


def target_modulus(update: KernelUpdate, inner: int) -> float:
    """Return how far a target network can part two tables, whatever the process: an upper bound on the modulus.

    Parameters
    ----------
    update : KernelUpdate
        The update between two copies. Of its process the discount is used, and nothing else.
    inner : int
        Updates from one copy to the next, at least 1.

    Returns
    -------
    float
        ``|E| + gamma |I - E|`` in the sup norm, with ``E = (I - alpha K D)^inner``. Below 1, the update with the copy
        converges to the optimal table from every start.

    Raises
    ------
    ValueError
        If `inner` is below 1, or the powers overflow.

    Notes
    -----
    Label ``eq-target-modulus``.
    """
    eye = np.eye(update.mdp.n_pairs)
    left = eye - update.frozen_target(inner).matrix
    return float(np.abs(left).sum(axis=1).max() + update.mdp.gamma * np.abs(eye - left).sum(axis=1).max())


def patience(update: KernelUpdate, *, longest: int = 10_000) -> int | None:
    """Return the shortest period after which a target network is sure to bring any two tables together.

    Parameters
    ----------
    update : KernelUpdate
        The update between two copies.
    longest : int
        Periods beyond this are not tried.

    Returns
    -------
    int or None
        The first `inner` whose `target_modulus` is below 1; None if none up to `longest` is, which says nothing
        about those beyond. With long steps that of a longer period can be above 1 again.

    Raises
    ------
    ValueError
        If `longest` is below 1, or the powers overflow before one is found.

    Notes
    -----
    Theorem ``thm-target-network`` says when there is one.
    """
    longest = _checks.integer("longest", longest, low=1)
    return next((inner for inner in range(1, longest + 1) if target_modulus(update, inner) < 1), None)
