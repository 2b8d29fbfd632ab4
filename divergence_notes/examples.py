"""Small problems whose fate under the kernel update is known: the cast of the book, and the three legs of the triad.

Here live the problems, each an `updates.KernelUpdate` with a start, and what is known of it beforehand. Most show how
learning fails, some how it does not. What the certificates say of them is in `verdicts`.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from divergence_notes import _checks, bellman, dynamics, features, updates
from divergence_notes._checks import ArrayLike
from divergence_notes.mdp import FiniteMDP, random_mdp, stationary_distribution


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Example:
    """A kernel update and a start, with the fate of its iterates."""

    name: str
    """What the book calls it."""
    update: updates.KernelUpdate
    """The update; it holds the process, the kernel, the sampling distribution and the step size."""
    Q0: np.ndarray
    """Start, shape (n_states, n_actions); in the range of the features where there are features."""
    status: dynamics.Status
    """What becomes of the iterates from `Q0`; an undecided one stays bounded for ever, except in `random_update`."""
    source: str
    """Where it comes from."""
    features: np.ndarray | None = None
    """Phi, shape (n_pairs, n_features), or None when only the kernel is given."""

    @property
    def target(self) -> np.ndarray:
        """The optimal table, exact."""
        return bellman.policy_iteration(self.update.mdp).Q


def _self_loops(R: ArrayLike, gamma: float | int) -> FiniteMDP:
    R = np.array(R, dtype=float)
    P = np.broadcast_to(np.eye(len(R))[:, None, :], (*R.shape, len(R)))
    return FiniteMDP(P, R, gamma)


def _all_to(state: int, n_states: int, gamma: float | int, n_actions: int = 1) -> FiniteMDP:
    P = np.zeros((n_states, n_actions, n_states))
    P[:, :, state] = 1.0
    return FiniteMDP(P, np.zeros((n_states, n_actions)), gamma)


def _coupled(own: ArrayLike, coupling: float | int) -> np.ndarray:
    return np.diag(np.subtract(own, coupling)) + coupling


def self_loop(gamma: float | int = 0.9) -> Example:
    """Return one state, one action, reward 1: the optimal value is 1 / (1 - gamma).

    Parameters
    ----------
    gamma : float
        Discount factor in [0, 1).

    Returns
    -------
    Example
        It converges.
    """
    mdp = _self_loops([[1.0]], gamma)
    return Example(
        name="the loop",
        update=updates.KernelUpdate(mdp, kernel=np.eye(1), weights=np.ones(1), alpha=0.5),
        Q0=np.zeros((1, 1)),
        status="converged",
        source="the smallest process that never ends",
    )


def row_dominant() -> Example:
    """Return R1: two pairs so weakly coupled that the row-sum bound certifies them."""
    mdp = _all_to(1, 2, 0.9)
    return Example(
        name="the safe pair",
        update=updates.KernelUpdate(mdp, kernel=_coupled([1, 1], 0.04), weights=np.full(2, 0.5), alpha=1.0),
        Q0=np.ones((2, 1)),
        status="converged",
        source="this book, R1",
    )


def sup_norm_only() -> Example:
    """Return R2: two self-loops with strong coupling; every path bends and runs home, yet the row-sum bound fails."""
    mdp = _self_loops([[0.0], [0.0]], 0.9)
    Q0 = np.array([[1.0], [-0.4]])
    return Example(
        name="the calm",
        update=updates.KernelUpdate(mdp, kernel=_coupled([1, 1], 0.5), weights=np.full(2, 0.5), alpha=1.0),
        Q0=Q0,
        status="converged",
        source="this book, R2",
    )


def weighted_norm_only() -> Example:
    """Return R3: a contraction in a weighted sup norm, but not in the sup norm."""
    mdp = _self_loops([[0.0], [0.0]], 0.9)
    weights = np.array([0.8, 0.2])
    return Example(
        name="the rectangle",
        update=updates.KernelUpdate(mdp, kernel=_coupled([1, 1], 0.5), weights=weights, alpha=1.0),
        Q0=np.ones((2, 1)),
        status="converged",
        source="this book, R3",
    )


def some_norm_only() -> Example:
    """Return R4: a contraction in some norm, but in no weighted sup norm."""
    mdp = _all_to(1, 2, 0.9)
    return Example(
        name="the skewed shape",
        update=updates.KernelUpdate(mdp, kernel=_coupled([1, 1], 0.08), weights=np.full(2, 0.5), alpha=1.0),
        Q0=np.ones((2, 1)),
        status="converged",
        source="this book, R4",
    )


def closed_orbit() -> Example:
    """Return R5 with rewards (1, 0): one state, two actions, and a closed path round the optimal table for ever."""
    mdp = _self_loops([[1.0, 0.0]], 0.5)
    kernel = np.array([[8.0, 2.5], [2.5, 1.0]])
    weights = np.array([0.05, 0.95])
    return Example(
        name="the orbit",
        update=updates.KernelUpdate(mdp, kernel=kernel, weights=weights, alpha=1.0),
        Q0=np.array([[2.5, 1.0]]),
        status="undecided",
        source="this book, R5",
    )


def full_data_divergence() -> Example:
    """Return R6: one state, two actions, all of it sampled, a positive definite kernel, and still divergence.

    Notes
    -----
    No reward is ever paid, so the optimal table is 0. It is the corner of two regions: paths that start in the one run
    home, in the other they run off, however small the step size. The diagonal is not their border.
    """
    mdp = _self_loops([[0.0, 0.0]], 0.9)
    kernel = np.array([[9.0, 2.5], [2.5, 1.0]])
    weights = np.array([0.2, 0.8])
    return Example(
        name="the pair",
        update=updates.KernelUpdate(mdp, kernel=kernel, weights=weights, alpha=0.1),
        Q0=np.array([[1.0, 0.0]]),
        status="diverged",
        source="this book, R6",
    )


def unstable_product_converges() -> Example:
    """Return R4b: every Jacobian is stable, two of them in turn are not, and yet every run tried comes home."""
    mdp = _self_loops([[0.0, 0.0]], 0.9)
    kernel = np.array([[1.0, 0.95], [0.95, 3.3]])
    weights = np.array([0.89, 0.11])
    return Example(
        name="the patient",
        update=updates.KernelUpdate(mdp, kernel=kernel, weights=weights, alpha=6.6),
        Q0=np.array([[1.0, 0.0]]),
        status="converged",
        source="this book, R4b",
    )


def low_gain_divergence() -> Example:
    """Return three states of which the third has no data: a loop gain below 1, and still divergence.

    Notes
    -----
    All states lead to the third, so that its value alone sets the targets; it moves 0.99 times as far as the first, and
    not with the second (the spill). The gain ``eq-loop-gain`` is 0.891. With the kernel undone on the first two that
    settles; the plain update, in which the second moves the first by more than itself, diverges at every step size.
    """
    kernel = np.array([[9.0, 2.5, 8.91], [2.5, 1.0, 2.475], [8.91, 2.475, 10.0]])
    weights = np.array([0.2, 0.8, 0.0])
    Q0 = np.array([[1.0], [0.429], [0.99]])
    return Example(
        name="the quiet loop",
        update=updates.KernelUpdate(_all_to(2, 3, 0.9), kernel=kernel, weights=weights, alpha=0.1),
        Q0=Q0,
        status="diverged",
        source="this book",
    )


def stable_pieces_divergence() -> Example:
    """Return one state, two actions and a kernel that is not symmetric: each piece is stable, and the update diverges.

    Notes
    -----
    Like a swing that is pushed at the right moments. At every table (x, y) with x > 0 and 0.8 x <= y <= 0.85 x the
    actions 1, 1, 2 are greedy one after the other; the three updates lead to such a table again, with an x that has
    grown by more than a tenth. Each piece alone multiplies areas by less than 0.84 and turns, so that it runs home.
    """
    mdp = FiniteMDP(np.array([[[0.2], [0.7]]]), np.zeros((1, 2)), 0.53)
    kernel = np.array([[3.0, -2.0], [2.0, 3.8]])
    return Example(
        name="the swing",
        update=updates.KernelUpdate(mdp, kernel=kernel, weights=np.full(2, 0.5), alpha=1.0),
        Q0=np.array([[1.0, 0.8]]),
        status="diverged",
        source="this book",
    )


def switching_divergence() -> tuple[Example, Example]:
    """Return R7: two updates with one fixed point that converge alone and diverge when they take turns."""
    mdp, kernel, Q0 = _all_to(1, 2, 0.9), np.array([[1.0, 0.49], [0.49, 3.6]]), np.ones((2, 1))
    first, second = (
        Example(
            name=name,
            update=updates.KernelUpdate(mdp, kernel=kernel, weights=np.array(weights), alpha=3.7),
            Q0=Q0,
            status="converged",
            source="this book, R7",
        )
        for name, weights in (("the first batch", [0.88, 0.12]), ("the second batch", [0.09, 0.91]))
    )
    return first, second


def w_to_2w_full_rank(gamma: float | int = 0.9, weights: ArrayLike = (1.0, 0.0)) -> Example:
    """Return w to 2w with a weight of its own for the second state: a positive definite kernel that still lifts itself.

    Parameters
    ----------
    gamma : float
        Discount factor in [0, 1).
    weights : ndarray of shape (2,)
        How often each state is trained; only the first one by default.

    Returns
    -------
    Example
        It diverges or converges, as discount and weights decide.

    Notes
    -----
    The steps are short, so that it diverges where its Jacobian has a determinant above 1, and nowhere else.
    """
    mdp, phi = _all_to(1, 2, gamma), np.array([[1.0, 0.0], [2.0, 1.0]])
    rho, alpha = _checks.distribution("weights", weights, size=2), 0.1
    first, second = rho
    trace = first * (2 * gamma - 1) - 5 * second * (1 - gamma)
    growth = trace + alpha * first * second * (1 - gamma)  # det J = 1 + alpha growth; eigenvalues can be double at 1
    fate = "diverged" if growth > 0 else "converged"
    return Example(
        name="the lever",
        update=updates.KernelUpdate(mdp, kernel=features.kernel(phi), weights=rho, alpha=alpha),
        Q0=(phi @ [1.0, 0.0])[:, None],
        status=fate,
        source="this book",
        features=phi,
    )


def cover() -> list[tuple[Example, dynamics.Portrait]]:
    """Return the three portraits of the book: the calm, the orbit and the pair, each with its flow and some paths."""
    chosen = [
        (sup_norm_only(), (-2, 2), [(1.6, -0.6), (-1, 1.7), (1.2, 1.8), (-1.7, -1.2)]),
        (closed_orbit(), (-3, 6), [(2.2, 1.1), (5, 5)]),
        (full_data_divergence(), (-2, 4), [(1, 0), (-1, -1.6), (0, 1), (2.2, 3.4)]),
    ]
    return [
        (example, dynamics.portrait(example.update, starts, shape=example.Q0.shape, limits=limits))
        for example, limits, starts in chosen
    ]


def w_to_2w(gamma: float | int = 0.9, weights: ArrayLike = (1.0, 0.0)) -> Example:
    """Return two states that share one weight: values w and 2w, state 1 leads to state 2, which leads to itself.

    Parameters
    ----------
    gamma : float
        Discount factor in [0, 1).
    weights : ndarray of shape (2,)
        How often each state is trained; only the first one by default.

    Returns
    -------
    Example
        It diverges or converges, as discount and weights decide.

    Notes
    -----
    After J. N. Tsitsiklis and B. Van Roy, "Feature-based methods for large scale dynamic programming", 1996.
    """
    mdp = _all_to(1, 2, gamma)
    phi = np.array([[1.0], [2.0]])
    rho = _checks.distribution("weights", weights, size=2)
    drift = float(phi[:, 0] @ (rho * (gamma * 2 - phi[:, 0])))
    fate = "diverged" if drift > 0 else "converged"
    source = "Tsitsiklis and Van Roy, 1996"
    return Example(
        name="w to 2w",
        update=updates.KernelUpdate(mdp, kernel=features.kernel(phi), weights=rho, alpha=0.1),
        Q0=phi.copy(),
        status=fate,
        source=source,
        features=phi,
    )


def w_to_2w_threshold(weights: ArrayLike) -> float:
    """Return the discount factor above which `w_to_2w` diverges for every step size, and below which it can converge.

    Parameters
    ----------
    weights : ndarray of shape (2,)
        How often each state is trained.

    Returns
    -------
    float
        Between 1/2, when only the first state is trained, and 1, when only the second is.

    Raises
    ------
    ValueError
        If `weights` is not a distribution over two states.

    Notes
    -----
    Label ``eq-threshold-w2w``.
    """
    first, second = _checks.distribution("weights", weights, size=2)
    return float((first + 4 * second) / (2 * first + 4 * second))


def fitted_w_to_2w(gamma: float | int = 0.9) -> Example:
    """Return w to 2w with a step so long that it fits both backups at once, by least squares.

    Parameters
    ----------
    gamma : float
        Discount factor in [0, 1); each step multiplies the weight by ``6 gamma / 5``.

    Returns
    -------
    Example
        It diverges if the discount exceeds 5/6.

    Notes
    -----
    With both states trained, ``alpha K D`` is the projection on the features. After G. Gordon, "Stable function
    approximation in dynamic programming", 1995.
    """
    fitted = w_to_2w(gamma, [0.5, 0.5])
    fate = "diverged" if gamma > 5 / 6 else "converged"
    longer = dataclasses.replace(fitted.update, alpha=0.4)
    return dataclasses.replace(fitted, name="least squares", update=longer, status=fate, source="Gordon, 1995")


def _star_features() -> np.ndarray:
    outer = np.hstack([2 * np.eye(6), np.zeros((6, 1)), np.ones((6, 1))])  # 2 w_i + w_0
    centre = np.array([[0, 0, 0, 0, 0, 0, 1, 2]])  # w_7 + 2 w_0
    return np.vstack([outer, centre]).astype(float)


_STAR_START = np.array([1.0, 1, 1, 1, 1, 1, 10, 1])


def baird_star(gamma: float | int = 0.99) -> Example:
    """Return Baird's star for prediction: seven states that all lead to the seventh, trained equally often.

    Parameters
    ----------
    gamma : float
        Discount factor in [0, 1); the update diverges for every step size if it exceeds 15/17.

    Returns
    -------
    Example
        Its step size is 0.1; it diverges if the discount exceeds 256/291, just below 15/17.

    Notes
    -----
    The six outer values stay alike. One of them and the centre move by a matrix of order two, with the determinant
    ``1 + alpha (17 gamma - 15) / 7 + alpha**2 26 (1 - gamma) / 49``. Where it exceeds 1 the values diverge, for short
    steps nowhere else. After L. Baird, "Residual algorithms", 1995.
    """
    mdp = _all_to(6, 7, gamma)
    phi = _star_features()
    Q0 = (phi @ _STAR_START).reshape(7, 1)
    fate = "diverged" if gamma > 256 / 291 else "converged"  # 15/17 only in the limit of short steps
    return Example(
        name="the star",
        update=updates.KernelUpdate(mdp, kernel=features.kernel(phi), weights=np.full(7, 1 / 7), alpha=0.1),
        Q0=Q0,
        status=fate,
        source="Baird, 1995",
        features=phi,
    )


def baird_control() -> Example:
    """Return Baird's star for control: a solid action to the seventh state, a dashed one to any of the others.

    Notes
    -----
    The solid values share weights as in the star, each dashed value has its own. Data comes from a policy that takes
    the dashed action six times out of seven. After L. Baird, "Residual algorithms", 1995.
    """
    P = np.zeros((7, 2, 7))
    P[:, 0, 6] = 1.0
    P[:, 1, :6] = 1 / 6
    mdp = FiniteMDP(P, np.zeros((7, 2)), 0.99)
    phi = np.zeros((14, 15))
    phi[0::2, :8] = _star_features()
    phi[1::2, 8:] = np.eye(7)
    Q0 = (phi @ np.concatenate([_STAR_START, np.ones(7)])).reshape(7, 2)
    weights = np.tile([1 / 49, 6 / 49], 7)
    return Example(
        name="the star with a choice",
        update=updates.KernelUpdate(mdp, kernel=features.kernel(phi), weights=weights, alpha=0.5),
        Q0=Q0,
        status="diverged",
        source="Baird, 1995",
        features=phi,
    )


def no_fixed_point() -> Example:
    """Return two states, one weight and a max over +2 and -2: no value of the weight solves its own equation.

    Notes
    -----
    State 1 has one action, listed twice; it pays 1 and leads to state 2. Both actions of state 2 end the episode.
    """
    P = np.zeros((2, 2, 2))
    P[0, :, 1] = 1.0
    mdp = FiniteMDP(P, np.array([[1.0, 1.0], [0.0, 0.0]]), 0.9)
    phi = np.array([[1.0], [1.0], [2.0], [-2.0]])
    weights = np.array([0.5, 0.5, 0.0, 0.0])
    return Example(
        name="no fixed point",
        update=updates.KernelUpdate(mdp, kernel=features.kernel(phi), weights=weights, alpha=0.5),
        Q0=np.zeros((2, 2)),
        status="diverged",
        source="this book",
        features=phi,
    )


def random_update(
    n_states: int, n_actions: int, *, gamma: float | int, coupling: float | int, rng: np.random.Generator
) -> Example:
    """Draw a process, a correlation matrix mixed with the identity as its kernel, and the weights of its pairs.

    Parameters
    ----------
    n_states, n_actions : int
        Sizes, at least 1.
    gamma : float
        Discount factor in [0, 1).
    coupling : float
        In [0, 1]: the kernel is the identity plus this much of what a random correlation matrix adds to it.
    rng : numpy.random.Generator
        The source of all randomness.

    Returns
    -------
    Example
        Without reward, so that the optimal table is 0; the step size is the largest with ``alpha K_ii rho_i <= 1``, and
        the stated status is ``"undecided"``: nobody has looked.
    """
    coupling = _checks.scalar("coupling", coupling, low=0, high=1)
    drawn = random_mdp(n_states, n_actions, gamma=gamma, branching=n_states, rng=rng)
    mdp = FiniteMDP(drawn.P, np.zeros_like(drawn.R), gamma)
    loose = rng.standard_normal((mdp.n_pairs, mdp.n_pairs))
    loose /= np.linalg.norm(loose, axis=1, keepdims=True)
    kernel = (1 - coupling) * np.eye(mdp.n_pairs) + coupling * loose @ loose.T
    weights = rng.dirichlet(np.full(mdp.n_pairs, 10.0))
    alpha = float(1 / (np.diag(kernel) * weights).max())
    Q0 = rng.standard_normal(mdp.R.shape)
    return Example(
        name="a random update",
        update=updates.KernelUpdate(mdp, kernel=kernel, weights=weights, alpha=alpha),
        Q0=Q0,
        status="undecided",
        source="drawn at random",
    )


def triad_operator(
    update: updates.KernelUpdate,
    *,
    approximation: bool,
    bootstrapping: bool,
    off_policy: bool,
    epsilon: float | int = 0.1,
) -> Callable[[np.ndarray], np.ndarray]:
    """Return an update with each leg of the deadly triad switched on or off.

    Parameters
    ----------
    update : updates.KernelUpdate
        On a process that never ends.
    approximation : bool
        On: the kernel of the update. Off: a table, K = I.
    bootstrapping : bool
        On: targets are backups of the current table. Off: targets are the true optimal values.
    off_policy : bool
        On: the weights of the update. Off: the pairs visited in the long run by the policy that is greedy in the
        current table but takes a random action with chance `epsilon`.
    epsilon : float
        Chance of a random action on-policy, in (0, 1].

    Returns
    -------
    callable
        Maps a table to a table; all three on is the update itself.

    Raises
    ------
    ValueError
        If `epsilon` is out of range, or, on-policy, at the first step if an episode of the process can end.

    Notes
    -----
    Label ``eq-three-legs``.
    """
    epsilon = _checks.scalar("epsilon", epsilon, low=0, low_open=True, high=1)
    mdp = update.mdp
    kernel = update.kernel if approximation else np.eye(mdp.n_pairs)
    truth = None if bootstrapping else bellman.policy_iteration(mdp).Q

    @functools.cache
    def visited(policy: tuple[int, ...]) -> np.ndarray:
        return _on_policy(np.array(policy), mdp, epsilon)

    def operator(Q: np.ndarray) -> np.ndarray:
        target = bellman.optimality_backup(Q, mdp) if bootstrapping else truth
        weights = update.weights if off_policy else visited(tuple(bellman.greedy_policy(Q).tolist()))
        change = updates.predicted_change(kernel, weights, mdp.flatten(target - Q), alpha=update.alpha)
        return Q + mdp.unflatten(change)

    return operator


def _on_policy(policy: np.ndarray, mdp: FiniteMDP, epsilon: float) -> np.ndarray:
    greedy = mdp.policy_matrix(policy)
    return stationary_distribution(mdp, (1 - epsilon) * greedy + epsilon / mdp.n_actions)
