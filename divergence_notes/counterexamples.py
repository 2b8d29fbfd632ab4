"""The cast of the book: small problems whose fate under the kernel update is known, and the three legs of the triad."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from divergence_notes import _checks, bellman, contraction, dynamics, features, updates
from divergence_notes._checks import ArrayLike
from divergence_notes.mdp import FiniteMDP, random_mdp, stationary_distribution


@dataclass(frozen=True, eq=False)
class Counterexample:
    """A process, a kernel, a sampling distribution, a step size and a start, with the fate of the update."""

    name: str
    """What the book calls it."""
    mdp: FiniteMDP
    """The process."""
    kernel: np.ndarray
    """K, shape (n_pairs, n_pairs); the features' inner products where there are features."""
    weights: np.ndarray
    """Sampling distribution rho, shape (n_pairs,)."""
    alpha: float
    """Step size."""
    Q0: np.ndarray
    """Start, shape (n_states, n_actions); in the range of the features where there are features."""
    status: str
    """What becomes of the update from `Q0`: a status of `dynamics`; ``"undecided"`` stays bounded and never settles."""
    source: str
    """Where it comes from."""
    features: np.ndarray | None = None
    """Phi, shape (n_pairs, n_features), or None when only the kernel is given."""

    def operator(self, Q: np.ndarray) -> np.ndarray:
        """Apply one kernel update.

        Parameters
        ----------
        Q : ndarray of shape (n_states, n_actions)
            The table before it.

        Returns
        -------
        ndarray of shape (n_states, n_actions)
            The table after it, a new array.
        """
        return updates.kernel_update(Q, self.mdp, **self.settings)

    @property
    def settings(self) -> dict:
        """What an update or a judgement of it takes besides the process: kernel, weights and alpha, by name."""
        return {"kernel": self.kernel, "weights": self.weights, "alpha": self.alpha}

    @property
    def target(self) -> np.ndarray:
        """The optimal table, exact."""
        return bellman.policy_iteration(self.mdp).Q


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


def loop(gamma: float | int = 0.9) -> Counterexample:
    """Return one state, one action, reward 1: the optimal value is 1 / (1 - gamma).

    Parameters
    ----------
    gamma : float
        Discount factor in [0, 1).

    Returns
    -------
    Counterexample
        It converges.
    """
    mdp = _self_loops([[1.0]], gamma)
    return Counterexample(
        "the loop",
        mdp,
        np.eye(1),
        np.ones(1),
        0.5,
        np.zeros((1, 1)),
        "converged",
        "the smallest process that never ends",
    )


def dominant() -> Counterexample:
    """Return R1: two pairs so weakly coupled that the row-sum bound certifies them."""
    mdp = _all_to(1, 2, 0.9)
    return Counterexample(
        "the safe pair",
        mdp,
        _coupled([1, 1], 0.04),
        np.full(2, 0.5),
        1.0,
        np.ones((2, 1)),
        "converged",
        "this book, R1",
    )


def calm() -> Counterexample:
    """Return R2: two self-loops with strong coupling; every path bends and runs home, yet the row-sum bound fails."""
    mdp = _self_loops([[0.0], [0.0]], 0.9)
    Q0 = np.array([[1.0], [-0.4]])
    return Counterexample(
        "the calm", mdp, _coupled([1, 1], 0.5), np.full(2, 0.5), 1.0, Q0, "converged", "this book, R2"
    )


def weighted_only() -> Counterexample:
    """Return R3: a contraction in a weighted sup norm, but not in the sup norm."""
    mdp = _self_loops([[0.0], [0.0]], 0.9)
    weights = np.array([0.8, 0.2])
    return Counterexample(
        "the rectangle", mdp, _coupled([1, 1], 0.5), weights, 1.0, np.ones((2, 1)), "converged", "this book, R3"
    )


def some_norm_only() -> Counterexample:
    """Return R4: a contraction in some norm, but in no weighted sup norm."""
    mdp = _all_to(1, 2, 0.9)
    return Counterexample(
        "the skewed shape",
        mdp,
        _coupled([1, 1], 0.08),
        np.full(2, 0.5),
        1.0,
        np.ones((2, 1)),
        "converged",
        "this book, R4",
    )


def orbit() -> Counterexample:
    """Return R5 with rewards (1, 0): one state, two actions, and a closed path round the optimal table for ever."""
    mdp = _self_loops([[1.0, 0.0]], 0.5)
    kernel = np.array([[8.0, 2.5], [2.5, 1.0]])
    weights = np.array([0.05, 0.95])
    return Counterexample("the orbit", mdp, kernel, weights, 1.0, np.array([[2.5, 1.0]]), "undecided", "this book, R5")


def pair() -> Counterexample:
    """Return R6: one state, two actions, all of it sampled, a positive definite kernel, and still divergence.

    Notes
    -----
    No reward is ever paid, so the optimal table is 0. It is the corner of two regions: paths that start in the one run
    home, in the other they run off, however small the step size. The diagonal is not their border.
    """
    mdp = _self_loops([[0.0, 0.0]], 0.9)
    kernel = np.array([[9.0, 2.5], [2.5, 1.0]])
    weights = np.array([0.2, 0.8])
    return Counterexample("the pair", mdp, kernel, weights, 0.1, np.array([[1.0, 0.0]]), "diverged", "this book, R6")


def patient() -> Counterexample:
    """Return R4b: every Jacobian is stable, two of them in turn are not, and yet every run tried comes home."""
    mdp = _self_loops([[0.0, 0.0]], 0.9)
    kernel = np.array([[1.0, 0.95], [0.95, 3.3]])
    weights = np.array([0.89, 0.11])
    return Counterexample(
        "the patient", mdp, kernel, weights, 6.6, np.array([[1.0, 0.0]]), "converged", "this book, R4b"
    )


def quiet_loop() -> Counterexample:
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
    return Counterexample("the quiet loop", _all_to(2, 3, 0.9), kernel, weights, 0.1, Q0, "diverged", "this book")


def swing() -> Counterexample:
    """Return one state, two actions and a kernel that is not symmetric: each piece is stable, and the update diverges.

    Notes
    -----
    Like a swing that is pushed at the right moments. At every table (x, y) with x > 0 and 0.8 x <= y <= 0.85 x the
    actions 1, 1, 2 are greedy one after the other; the three updates lead to such a table again, with an x that has
    grown by more than a tenth. Each piece alone multiplies areas by less than 0.84 and turns, so that it runs home.
    """
    mdp = FiniteMDP(np.array([[[0.2], [0.7]]]), np.zeros((1, 2)), 0.53)
    kernel = np.array([[3.0, -2.0], [2.0, 3.8]])
    return Counterexample(
        "the swing", mdp, kernel, np.full(2, 0.5), 1.0, np.array([[1.0, 0.8]]), "diverged", "this book"
    )


def switching() -> tuple[Counterexample, Counterexample]:
    """Return R7: two updates with one fixed point that converge alone and diverge when they take turns."""
    mdp, kernel, Q0 = _all_to(1, 2, 0.9), np.array([[1.0, 0.49], [0.49, 3.6]]), np.ones((2, 1))
    first, second = (
        Counterexample(name, mdp, kernel, np.array(weights), 3.7, Q0, "converged", "this book, R7")
        for name, weights in (("the first batch", [0.88, 0.12]), ("the second batch", [0.09, 0.91]))
    )
    return first, second


def lever(gamma: float | int = 0.9, weights: ArrayLike = (1.0, 0.0)) -> Counterexample:
    """Return w to 2w with a weight of its own for the second state: a positive definite kernel that still lifts itself.

    Parameters
    ----------
    gamma : float
        Discount factor in [0, 1).
    weights : ndarray of shape (2,)
        How often each state is trained; only the first one by default.

    Returns
    -------
    Counterexample
        It diverges or converges, as the weights decide.
    """
    mdp, phi = _all_to(1, 2, gamma), np.array([[1.0, 0.0], [2.0, 1.0]])
    kernel, rho = features.kernel(phi), _checks.distribution("weights", weights, size=2)
    given = {"kernel": kernel, "weights": rho, "alpha": 0.1}
    growth = np.abs(np.linalg.eigvals(contraction.jacobian(mdp, **given, policy=np.zeros(2, dtype=int)))).max()
    fate = "diverged" if growth > 1 + 1e-12 else "converged"
    return Counterexample("the lever", mdp, kernel, rho, 0.1, (phi @ [1.0, 0.0])[:, None], fate, "this book", phi)


def cover() -> list[tuple[Counterexample, dynamics.Portrait]]:
    """Return the three portraits of the book: the calm, the orbit and the pair, each with its flow and some paths."""
    chosen = [
        (calm(), (-2, 2), [(1.6, -0.6), (-1, 1.7), (1.2, 1.8), (-1.7, -1.2)]),
        (orbit(), (-3, 6), [(2.2, 1.1), (5, 5)]),
        (pair(), (-2, 4), [(1, 0), (-1, -1.6), (0, 1), (2.2, 3.4)]),
    ]
    return [
        (example, dynamics.portrait(example.operator, starts, shape=example.Q0.shape, limits=limits))
        for example, limits, starts in chosen
    ]


def w_to_2w(gamma: float | int = 0.9, weights: ArrayLike = (1.0, 0.0)) -> Counterexample:
    """Return two states that share one weight: values w and 2w, state 1 leads to state 2, which leads to itself.

    Parameters
    ----------
    gamma : float
        Discount factor in [0, 1).
    weights : ndarray of shape (2,)
        How often each state is trained; only the first one by default.

    Returns
    -------
    Counterexample
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
    return Counterexample("w to 2w", mdp, features.kernel(phi), rho, 0.1, phi.copy(), fate, source, phi)


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


def least_squares(gamma: float | int = 0.9) -> Counterexample:
    """Return w to 2w with a step so long that it fits both backups at once, by least squares.

    Parameters
    ----------
    gamma : float
        Discount factor in [0, 1); each step multiplies the weight by ``6 gamma / 5``.

    Returns
    -------
    Counterexample
        It diverges if the discount exceeds 5/6.

    Notes
    -----
    With both states trained, ``alpha K D`` is the projection on the features. After G. Gordon, "Stable function
    approximation in dynamic programming", 1995.
    """
    fitted = w_to_2w(gamma, [0.5, 0.5])
    fate = "diverged" if gamma > 5 / 6 else "converged"
    return replace(fitted, name="least squares", alpha=0.4, status=fate, source="Gordon, 1995")


def _star_features() -> np.ndarray:
    outer = np.hstack([2 * np.eye(6), np.zeros((6, 1)), np.ones((6, 1))])  # 2 w_i + w_0
    centre = np.array([[0, 0, 0, 0, 0, 0, 1, 2]])  # w_7 + 2 w_0
    return np.vstack([outer, centre]).astype(float)


_STAR_START = np.array([1.0, 1, 1, 1, 1, 1, 10, 1])


def baird_star(gamma: float | int = 0.99) -> Counterexample:
    """Return Baird's star for prediction: seven states that all lead to the seventh, trained equally often.

    Parameters
    ----------
    gamma : float
        Discount factor in [0, 1); the update diverges for every small step size if it exceeds 15/17.

    Returns
    -------
    Counterexample
        It diverges if the discount exceeds 15/17.

    Notes
    -----
    After L. Baird, "Residual algorithms", 1995.
    """
    mdp = _all_to(6, 7, gamma)
    phi = _star_features()
    Q0 = (phi @ _STAR_START).reshape(7, 1)
    fate = "diverged" if gamma > 15 / 17 else "converged"
    return Counterexample("the star", mdp, features.kernel(phi), np.full(7, 1 / 7), 0.1, Q0, fate, "Baird, 1995", phi)


def baird_control() -> Counterexample:
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
    return Counterexample(
        "the star with a choice", mdp, features.kernel(phi), weights, 0.5, Q0, "diverged", "Baird, 1995", phi
    )


def no_fixed_point() -> Counterexample:
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
    return Counterexample(
        "no fixed point", mdp, features.kernel(phi), weights, 0.5, np.zeros((2, 2)), "diverged", "this book", phi
    )


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


def verdicts(example: Counterexample, *, products: int = 10_000) -> Verdicts:
    """Return what each certificate says of an example.

    Parameters
    ----------
    example : Counterexample
        The update to judge.
    products : int
        Most products of Jacobians to look at for the joint spectral radius.

    Returns
    -------
    Verdicts
        Each number at most the one before it, with the lower bound of the joint spectral radius below its upper bound.
    """
    mdp, given = example.mdp, example.settings
    count = mdp.n_actions**mdp.n_states
    depth = 12 if count == 1 else max(1, int(np.log(products) / np.log(count)))
    return Verdicts(
        contraction.row_sum_bound(**given, gamma=mdp.gamma),
        contraction.exact_modulus(mdp, **given),
        contraction.weighted_modulus(mdp, **given)[0],
        contraction.joint_spectral_radius(mdp, **given, depth=depth),
        np.sort(np.abs(np.linalg.eigvals(contraction.jacobians(mdp, **given))).max(axis=1)),
    )


def certificate_map(example: Counterexample, *, couplings: ArrayLike, alphas: ArrayLike) -> np.ndarray:
    """Return which certificate covers an example of two states as its coupling and its step size vary.

    Parameters
    ----------
    example : Counterexample
        Two states with one action each; its own kernel off the diagonal and its own step size are not used.
    couplings : ndarray of shape (n,)
        Values of the kernel's entry off the diagonal.
    alphas : ndarray of shape (m,)
        Step sizes, > 0.

    Returns
    -------
    ndarray of int, shape (m, n)
        Positions in `CERTIFICATES` of the crudest one that holds. With one policy the spectral radius of its Jacobian
        is the joint spectral radius, so that the last position means that the update does not converge from almost
        any start.

    Raises
    ------
    ValueError
        If the example has not two states with one action each.
    """
    mdp = example.mdp
    if (mdp.n_states, mdp.n_actions) != (2, 1):
        raise ValueError(f"example must have two states with one action, it has {mdp.n_states} with {mdp.n_actions}")
    couplings = _checks.array("couplings", couplings, shape=(None,))
    alphas = _checks.array("alphas", alphas, shape=(None,))
    codes = np.zeros((len(alphas), len(couplings)), dtype=int)
    for row, column in np.ndindex(codes.shape):
        kernel = _coupled(np.diag(example.kernel), couplings[column])
        codes[row, column] = _crudest(mdp, {"kernel": kernel, "weights": example.weights, "alpha": alphas[row]})
    return codes


def _sup_norm_certificate(mdp: FiniteMDP, given: dict) -> int | None:
    """Return the position in `CERTIFICATES` of the crudest that is a sup norm's, looking no further than needed."""
    if contraction.row_sum_bound(**given, gamma=mdp.gamma) < 1:
        return 0
    if contraction.exact_modulus(mdp, **given) < 1:
        return 1
    return 2 if contraction.weighted_modulus(mdp, **given)[0] < 1 else None


def _crudest(mdp: FiniteMDP, given: dict) -> int:
    """Return the position in `CERTIFICATES` for an update with one policy."""
    code = _sup_norm_certificate(mdp, given)
    if code is not None:
        return code
    return 3 if contraction.some_norm(mdp, **given) else 4


PHASES = (*CERTIFICATES[:4], "none runs off", "some run off")
"""What `phase_map` tells apart: the crudest certificate that holds, else what was seen to happen without reward."""


def phase_map(
    example: Counterexample, *, couplings: ArrayLike, gammas: ArrayLike, starts: int = 64, max_iter: int = 3000
) -> np.ndarray:
    """Return which certificate covers an example of two pairs, or what happens without one, over coupling and discount.

    Parameters
    ----------
    example : Counterexample
        One state with two actions or two states with one; its kernel off the diagonal, its discount and its rewards
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
        If the example has not two pairs, or a number is out of range.
    """
    mdp = example.mdp
    if mdp.n_pairs != 2:
        raise ValueError(f"example must have two state-action pairs, it has {mdp.n_pairs}")
    couplings = _checks.array("couplings", couplings, shape=(None,))
    gammas = _checks.array("gammas", gammas, shape=(None,))
    angle = np.arange(_checks.integer("starts", starts, low=1)) * 2 * np.pi / starts
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    max_iter = _checks.integer("max_iter", max_iter, low=1)
    codes = np.zeros((len(gammas), len(couplings)), dtype=int)
    for row, column in np.ndindex(codes.shape):
        here = replace(mdp, R=np.zeros_like(mdp.R), gamma=gammas[row])
        kernel = _coupled(np.diag(example.kernel), couplings[column])
        given = {"kernel": kernel, "weights": example.weights, "alpha": example.alpha}
        codes[row, column] = _phase(here, given, circle, max_iter)
    return codes


def _phase(mdp: FiniteMDP, given: dict, tables: np.ndarray, max_iter: int) -> int:
    """Return the position in `PHASES` of an update on two pairs without reward, running it on tables (m, 2)."""
    code = _sup_norm_certificate(mdp, given)
    if code is not None:
        return code
    if contraction.some_norm(mdp, **given):
        return 3
    pieces = contraction.jacobians(mdp, **given)
    for _ in range(max_iter):
        greedy = tables.argmax(axis=1) if mdp.n_actions == 2 else np.zeros(len(tables), dtype=int)
        tables = np.einsum("mij,mj->mi", pieces[greedy], tables)
        size = np.abs(tables).max()
        if size > 1e6:
            return 5
        if size < 1e-6:
            break
    return 4


def random_update(
    n_states: int, n_actions: int, *, gamma: float | int, coupling: float | int, rng: np.random.Generator
) -> Counterexample:
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
    Counterexample
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
    return Counterexample("a random update", mdp, kernel, weights, alpha, Q0, "undecided", "drawn at random")


def triad_operator(
    example: Counterexample, *, approximation: bool, bootstrapping: bool, off_policy: bool, epsilon: float | int = 0.1
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the update of an example with each leg of the deadly triad switched on or off.

    Parameters
    ----------
    example : Counterexample
        A process that never ends.
    approximation : bool
        On: the example's kernel. Off: a table, K = I.
    bootstrapping : bool
        On: targets are backups of the current table. Off: targets are the true optimal values.
    off_policy : bool
        On: the example's weights. Off: the pairs visited in the long run by the policy that is greedy in the current
        table but takes a random action with chance `epsilon`.
    epsilon : float
        Chance of a random action on-policy, in (0, 1].

    Returns
    -------
    callable
        Maps a table to a table; all three on is the example's own operator.

    Raises
    ------
    ValueError
        If `epsilon` is out of range, or, on-policy, at the first step if an episode of the process can end.

    Notes
    -----
    Label ``eq-three-legs``.
    """
    epsilon = _checks.scalar("epsilon", epsilon, low=0, low_open=True, high=1)
    mdp = example.mdp
    kernel = example.kernel if approximation else np.eye(mdp.n_pairs)
    truth = None if bootstrapping else example.target

    @functools.cache
    def visited(policy: tuple[int, ...]) -> np.ndarray:
        return _on_policy(np.array(policy), mdp, epsilon)

    def operator(Q: np.ndarray) -> np.ndarray:
        target = bellman.optimality_backup(Q, mdp) if bootstrapping else truth
        weights = example.weights if off_policy else visited(tuple(bellman.greedy_policy(Q).tolist()))
        change = updates.predicted_change(kernel, weights, mdp.flatten(target - Q), alpha=example.alpha)
        return Q + mdp.unflatten(change)

    return operator


def _on_policy(policy: np.ndarray, mdp: FiniteMDP, epsilon: float) -> np.ndarray:
    greedy = mdp.policy_matrix(policy)
    return stationary_distribution(mdp, (1 - epsilon) * greedy + epsilon / mdp.n_actions)
