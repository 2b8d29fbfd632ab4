"""What the package certifies holds exactly, for the numbers as they are stored; a certificate that lies is caught."""

from fractions import Fraction

import numpy as np
import pytest

from divergence_notes import bellman, contraction, examples, norms, updates, verdicts
from divergence_notes.mdp import FiniteMDP, random_mdp
from tests import judge, oracles, oracles_exact


def test_no_certificate_is_false():
    """A hundred updates; `python -m tests.judge 20000` judges more."""
    claims, wrong = judge.run(102)
    assert not wrong, [(kind, name) for kind, name, _ in wrong]
    for kind, share in zip(judge.KINDS, judge.SHARES, strict=True):
        assert claims[kind]["instances"] == 17 * share
    together = sum(claims.values(), judge.Counter())
    for name in ("row_sum_bound", "exact_modulus", "max_step_size", "weighted_modulus", "upper", "lower", "loop_gain",
                 "some_norm: True", "some_norm: False", "overshoot_limit", "row_dominance"):  # fmt: skip
        assert together[name] >= 3, name


def to_nearest(mdp, *, kernel, weights, alpha):
    return float(oracles.lipschitz(mdp, kernel, weights, alpha))


def step_to_nearest(mdp, *, kernel, weights):
    drift = [np.eye(mdp.n_pairs) - J for J in oracles.jacobians(mdp, kernel, weights, 1.0)]
    own = [2 * np.diag(G) - np.abs(G).sum(axis=1) for G in drift]
    return 0.0 if np.min(own) <= 0 else float(2 / np.abs(drift).sum(axis=2).max())


def eigenvector_of_a_perturbed_matrix(mdp, *, kernel, weights, alpha):
    """Add 1e-12 of the largest entry everywhere, and take what its eigenvector attains."""
    J = np.abs(oracles.jacobians(mdp, kernel, weights, alpha))
    size = J.max(axis=0)
    values, vectors = np.linalg.eig(size + 1e-12 * size.max())
    w = np.abs(vectors[:, values.real.argmax()].real)
    w = np.maximum(w / w.max(), 1e-300)
    return float((J @ w / w).max()), w


def computed_radii(mdp, *, kernel, weights, alpha, depth):
    J = oracles.jacobians(mdp, kernel, weights, alpha)
    size = np.abs(J).sum(axis=2).max()
    return float(np.abs(np.linalg.eigvals(J)).max()), float(size)


def eigenvalues_decide(mdp, *, kernel, weights, alpha, products):
    radius = np.abs(np.linalg.eigvals(oracles.jacobians(mdp, kernel, weights, alpha))).max()
    return bool(radius < 1)


def span_without_the_mass(mdp, *, tol, max_iter):
    """Rows that miss 1 by less than 1e-8 count as 1."""
    Q = np.zeros(mdp.R.shape)
    for _ in range(max_iter):
        V = Q.max(axis=1)
        Q = oracles.backup(Q, mdp)
        change = Q.max(axis=1) - V
        low, high = change.min(), change.max()
        if mdp.continuation.min() < 1 - 1e-8:
            low, high = min(low, 0), max(high, 0)
        error = mdp.gamma * (high - low) / (1 - mdp.gamma) / 2
        if error <= tol:
            break
    Q = Q + mdp.gamma * mdp.continuation.reshape(Q.shape) * (high + low) / (1 - mdp.gamma) / 2
    return bellman.Solution(Q, Q.argmax(axis=1), "converged", max_iter, float(error))


def gain_to_nearest(kernel, *, batch, gamma):
    return float(gamma * np.abs(updates.spill(kernel, batch=batch)).sum(axis=1).max(initial=0.0))


@pytest.mark.parametrize(
    ("module", "name", "fault", "caught"),
    [
        (contraction, "exact_modulus", to_nearest, "exact_modulus"),
        (contraction, "max_step_size", step_to_nearest, "max_step_size"),
        (contraction, "weighted_modulus", eigenvector_of_a_perturbed_matrix, "weighted_modulus"),
        (contraction, "joint_spectral_radius", computed_radii, "lower"),
        (contraction, "some_norm", eigenvalues_decide, "some_norm: True"),
        (bellman, "value_iteration", span_without_the_mass, "value_iteration"),
        (updates, "loop_gain", gain_to_nearest, "loop_gain"),
    ],
)
def test_a_fault_is_caught(monkeypatch, module, name, fault, caught):
    monkeypatch.setattr(module, name, fault)
    _, wrong = judge.run(300, until_false=True)
    assert any(what.startswith(caught) for _, what, _ in wrong)


@pytest.mark.parametrize("fault", ["nothing rounds", "a number that is none is shorter than 1", "no rank"])
def test_a_fault_inside_is_caught(monkeypatch, fault):
    if fault == "nothing rounds":
        monkeypatch.setattr(contraction._rounding, "slack", lambda terms: 0.0)
    elif fault == "no rank":
        monkeypatch.setattr(contraction, "_singular", lambda matrix: False)
        monkeypatch.setattr(contraction._rounding, "radius_below", lambda matrix, error: 0.0)
    else:
        monkeypatch.setattr(contraction, "_in_the_norm_of", lambda root, factors, doubts: (0 * factors, 0.0))
    assert judge.run(300, until_false=True)[1]


class TestAtTheEndsOfTheNumbers:
    """What underflows is counted as lost, and what overflows is refused: neither certifies anything."""

    @pytest.mark.parametrize("unit", [5e-324, 4e-323, 1e-310, 1e-300])
    @pytest.mark.parametrize("share", [0.5, 0.55, 0.6, 0.9])
    @pytest.mark.parametrize("gamma", [0.0, 0.3, 0.7])
    def test_rows_that_underflow(self, unit, share, gamma):
        kernel, weights = np.full((2, 2), unit), np.array([share, 1 - share])
        mdp = FiniteMDP(np.ones((1, 2, 1)), np.zeros((1, 2)), gamma)
        (K, rho), discount = (oracles_exact.exact(kernel), oracles_exact.exact(weights)), Fraction(gamma)
        pulls = [[K[i][j] * rho[j] for j in range(2)] for i in range(2)]
        margins = [(1 - discount) * pulls[i][i] - (1 + discount) * pulls[i][1 - i] for i in range(2)]
        found = contraction.row_dominance(kernel, weights, gamma=gamma)
        assert all(Fraction(float(one)) <= exactly for one, exactly in zip(found, margins, strict=True))
        limit = min((pulls[i][i] - pulls[i][1 - i]) / sum(pulls[i]) for i in range(2))
        assert Fraction(contraction.discount_limit(kernel, weights)) <= max(limit, 0)
        end = Fraction(contraction.step_size_limit(kernel, weights, gamma=gamma))
        assert end <= 2 / ((1 + discount) * max(map(sum, pulls)))
        assert contraction.max_step_size(mdp, kernel=kernel, weights=weights) == 0.0  # its rows are equal

    def test_one_pair_of_the_least_size(self):
        mdp, one = FiniteMDP(np.ones((1, 1, 1)), np.zeros((1, 1)), 0.5), np.ones(1)
        for unit in (5e-324, 1e-310, 1e-300):
            kernel = np.array([[unit]])
            for_every_process, for_this = 2 / (Fraction(3, 2) * Fraction(unit)), 2 / (Fraction(1, 2) * Fraction(unit))
            assert Fraction(contraction.step_size_limit(kernel, one, gamma=0.5)) <= for_every_process
            assert Fraction(contraction.max_step_size(mdp, kernel=kernel, weights=one)) <= for_this
            assert contraction.discount_limit(kernel, one) == 1.0

    @pytest.mark.parametrize(("size", "alpha"), [(1e10, 1e300), (1.7e308, 1.0), (1.7e308, 1e300), (1.0, 1.7e308)])
    @pytest.mark.parametrize("others", [0.0, 0.5])
    def test_steps_that_overflow(self, size, alpha, others):
        mdp = FiniteMDP(np.ones((1, 2, 1)), np.zeros((1, 2)), 0.5)
        given = {"kernel": size * np.array([[1.0, others], [others, 1.0]]), "weights": np.full(2, 0.5), "alpha": alpha}
        calls = [
            lambda: contraction.row_sum_bound(**given, gamma=0.5),
            lambda: contraction.exact_modulus(mdp, **given),
            lambda: norms.weighted_modulus(mdp, **given),
            lambda: norms.joint_spectral_radius(mdp, **given, depth=2),
            lambda: norms.some_norm(mdp, **given),
            lambda: contraction.modulus_witness(mdp, **given),
            lambda: contraction.jacobians(mdp, **given),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="alpha must leave the rows of alpha K D below"):
                call()


class TestSomeNorm:
    """It asks LAPACK for no vector: two eigenvalues that are equal are ordinary input, and so is a singular kernel."""

    @pytest.mark.parametrize("angle", [0.1, 1.0, np.pi / 2, 2 * np.pi / 3])
    @pytest.mark.parametrize("size", [0.99, 1.01])
    def test_a_rotation(self, angle, size):
        """Every vector is as good as every other: there is no eigenvector to take."""
        turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        mdp = FiniteMDP(np.zeros((2, 1, 2)), np.zeros((2, 1)), 0.0)
        found = norms.some_norm(mdp, kernel=2 * (np.eye(2) - turn), weights=[0.5, 0.5], alpha=1.0)
        assert found is (size < 1)

    @pytest.mark.parametrize("nullity", [1, 2, 3])
    @pytest.mark.parametrize("actions", [1, 2])
    def test_singular_is_false(self, nullity, actions, rng):
        mdp = random_mdp(4 // actions, actions, gamma=0.9, branching=1, rng=rng)
        phi = rng.integers(-3, 4, size=(4, 4 - nullity)).astype(float)
        for kernel in (phi @ phi.T, phi @ rng.standard_normal((4 - nullity, 4))):
            given = {"kernel": kernel, "weights": [0.25] * 4, "alpha": 0.01}
            assert norms.some_norm(mdp, **given) is False
            assert contraction.max_step_size(mdp, kernel=kernel, weights=[0.25] * 4) == 0
            assert contraction.exact_modulus(mdp, **given) >= 1
            assert norms.weighted_modulus(mdp, **given)[0] >= 1
            assert norms.joint_spectral_radius(mdp, **given, depth=2)[1] >= 1

    def test_what_overflows_is_no_proof(self):
        """Words whose length is not a number were taken for short ones."""
        powers = 2.0 ** np.array([-40.0, 20, 30, -38])
        mdp = FiniteMDP(np.zeros((4, 1, 4)), np.zeros((4, 1)), 0.0)
        J = np.array([[2.0, 1, 1, 5], [1, 3, 1, 1], [1, 0, 4, 1], [1, 0, 0, 2]]) * 1e7
        kernel = 4 * (np.eye(4) - J) * powers[:, None] / powers
        assert norms.some_norm(mdp, kernel=kernel, weights=[0.25] * 4, alpha=1.0) is not True


class TestWeights:
    """The weights attain what is returned, also where the entries are uneven and the infimum is not attained."""

    @pytest.mark.parametrize("large", [1.0, 1e6, 1e12])
    def test_uneven_entries(self, large):
        """|J| is triangular with 1/2 on its diagonal: the infimum is 1/2 however large the entry beside it is."""
        mdp = FiniteMDP(np.zeros((2, 1, 2)), np.zeros((2, 1)), 0.0)
        given = {"kernel": np.array([[1.0, -2 * large], [0.0, 1.0]]), "weights": [0.5, 0.5], "alpha": 1.0}
        value, w = norms.weighted_modulus(mdp, **given)
        (J,) = oracles_exact.jacobians(mdp, **given)
        assert J == [[Fraction(1, 2), Fraction(large)], [0, Fraction(1, 2)]]
        assert oracles_exact.norm(J, oracles_exact.exact(w)) <= Fraction(value)
        assert 0.5 < value == pytest.approx(0.5, rel=1e-6)

    def test_nilpotent(self):
        """The infimum is 0, which no weights attain."""
        mdp = FiniteMDP(np.zeros((3, 1, 3)), np.zeros((3, 1)), 0.0)
        J = np.array([[0.0, 2.0**20, 1.0], [0, 0, 2.0**20], [0, 0, 0]])
        given = {"kernel": (np.eye(3) - J) / [0.5, 0.25, 0.25], "weights": [0.5, 0.25, 0.25], "alpha": 1.0}
        value, w = norms.weighted_modulus(mdp, **given)
        (exact,) = oracles_exact.jacobians(mdp, **given)
        assert exact == oracles_exact.exact(J)
        assert oracles_exact.norm(exact, oracles_exact.exact(w)) <= Fraction(value)
        assert value < 1e-3


def test_a_missing_pair_is_in_no_region_of_the_map():
    """The last certificate of the map is a proof too: an eigenvalue of 1 that rounds to less is none."""
    example = examples.row_dominant()
    codes = verdicts.certificate_map(example, couplings=[1.0, -1.0, 0.3], alphas=[0.1, 0.3, 1.0, 2.0])
    assert (codes[:, :2] == 4).all()
    assert (codes[:, 2] < 4).all()
