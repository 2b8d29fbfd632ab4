"""What chapter 4 adds: the exact modulus, the images of the unit square, whether some norm shrinks, the phase map."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
from hypothesis import given

from divergence_notes import contraction, dynamics, examples, norms, verdicts
from divergence_notes.mdp import FiniteMDP, random_mdp
from tests import oracles
from tests.strategies import kernel_cases


class TestExactModulus:
    """thm-exact-modulus: the smallest Lipschitz constant is the largest sup norm of a Jacobian."""

    @given(case=kernel_cases(max_states=4))
    def test_equals_the_largest_jacobian_over_all_policies(self, case):
        given_ = {name: case[name] for name in ("kernel", "weights", "alpha")}
        want = oracles.lipschitz(case["mdp"], *given_.values())
        assert contraction.exact_modulus(case["mdp"], **given_) == pytest.approx(want, rel=1e-12, abs=1e-12)

    @given(case=kernel_cases())
    def test_bounds_any_two_tables_and_never_exceeds_the_row_sum_bound(self, case):
        mdp, rng = case["mdp"], case["rng"]
        given_ = {name: case[name] for name in ("kernel", "weights", "alpha")}
        L = contraction.exact_modulus(mdp, **given_)
        assert L <= contraction.row_sum_bound(**given_, gamma=mdp.gamma) * (1 + 1e-12)
        first, second = case["Q"], rng.integers(-2, 3, size=case["Q"].shape).astype(float)
        moved = [oracles.kernel_update(table, mdp, *given_.values()) for table in (first, second)]
        assert np.abs(moved[0] - moved[1]).max() <= L * np.abs(first - second).max() + 1e-9 * max(1.0, L)

    def test_two_tables_attain_it(self, rng):
        for _ in range(50):
            mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
            kernel, weights = rng.standard_normal((6, 6)), rng.dirichlet(np.ones(6))
            L = contraction.exact_modulus(mdp, kernel=kernel, weights=weights, alpha=0.7)
            best = 0.0
            for policy in itertools.product(range(2), repeat=3):
                row = contraction.jacobian(mdp, kernel=kernel, weights=weights, alpha=0.7, policy=np.array(policy))
                worst = row[np.abs(row).sum(axis=1).argmax()]
                Q = np.eye(2)[list(policy)]
                other = Q + 0.1 * np.sign(worst).reshape(3, 2)
                moved = oracles.kernel_update(other, mdp, kernel, weights, 0.7) - oracles.kernel_update(
                    Q, mdp, kernel, weights, 0.7
                )
                best = max(best, np.abs(moved).max() / 0.1)
            assert best == pytest.approx(L, rel=1e-9)

    @pytest.mark.parametrize(("alpha", "want"), [(0.3, 0.97), (1, 0.9), (1.5, 0.5 + 1.35)])
    def test_table(self, alpha, want):
        """U1, written as U2 with uniform weights: |1 - a| + a gamma."""
        mdp = FiniteMDP(np.array([[[0, 1.0]], [[1.0, 0]]]), np.zeros((2, 1)), 0.9)
        found = contraction.exact_modulus(mdp, kernel=np.eye(2), weights=np.full(2, 0.5), alpha=2 * alpha)
        assert found == pytest.approx(want)

    @pytest.mark.parametrize(
        ("name", "bound", "exact"),
        [("dominant", 0.988, 0.988), ("calm", 1.425, 0.975), ("orbit", 4.3625, 4.3625), ("pair", 1.362, 1.362)],
    )
    def test_cast(self, name, bound, exact):
        example = getattr(examples, name)()
        assert contraction.exact_modulus(example.mdp, **example.settings) == pytest.approx(exact)
        assert contraction.row_sum_bound(**example.settings, gamma=example.mdp.gamma) == pytest.approx(bound)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"kernel": np.eye(3)}, "kernel must have shape (2, 2), got (3, 3)"),
            ({"weights": np.array([0.5, 0.6])}, "weights must be a distribution: its entries sum to 1.1, not to 1"),
            ({"alpha": 0}, "alpha must be in (0, inf), got 0"),
        ],
    )
    def test_bad_input(self, change, message):
        example = examples.full_data_divergence()
        with pytest.raises(ValueError, match=re.escape(message)):
            contraction.exact_modulus(example.mdp, **example.settings | change)


class TestBoxImages:
    """The unit square under each Jacobian; its farthest corner lies at the exact modulus."""

    @pytest.mark.parametrize("name", ["dominant", "calm", "weighted_only", "some_norm_only", "orbit", "pair"])
    def test_farthest_corner_is_the_modulus(self, name):
        example = getattr(examples, name)()
        images = contraction.box_images(example.mdp, **example.settings)
        assert images.shape == (example.mdp.n_actions**example.mdp.n_states, 4, 2)
        want = oracles.lipschitz(example.mdp, *example.settings.values())
        assert np.abs(images).max() == pytest.approx(want, rel=1e-12)

    def test_corners_are_images_of_corners(self):
        example = examples.full_data_divergence()
        images = contraction.box_images(example.mdp, **example.settings)
        for policy, image in enumerate(images):
            J = np.eye(2) - 0.1 * example.kernel @ np.diag([0.2, 0.8]) @ (np.eye(2) - 0.9 * np.eye(2)[[policy, policy]])
            for corner, end in zip([(1, 1), (-1, 1), (-1, -1), (1, -1)], image, strict=True):
                np.testing.assert_allclose(end, J @ corner, atol=1e-12)

    def test_needs_two_pairs(self):
        example = examples.self_loop()
        with pytest.raises(ValueError, match=re.escape("mdp must have two state-action pairs, it has 1")):
            contraction.box_images(example.mdp, **example.settings)

    def test_another_shape(self):
        example = examples.sup_norm_only()
        shape = np.array([[2.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
        images = contraction.box_images(example.mdp, **example.settings, shape=shape)
        J = contraction.jacobian(example.mdp, **example.settings, policy=np.zeros(2, dtype=int))
        np.testing.assert_allclose(images, [[J @ corner for corner in shape]], atol=1e-14)


class TestNormBall:
    """thm-some-norm: the ball of the norm that looks ahead fits into itself, shrunk by the rate."""

    @pytest.mark.parametrize(
        ("name", "rate", "depth"), [("some_norm_only", 0.98, 12), ("weighted_only", 0.999, 30), ("calm", 0.99, 2)]
    )
    def test_fits_into_itself(self, name, rate, depth):
        example = getattr(examples, name)()
        ball = norms.norm_ball(example.mdp, **example.settings, rate=rate, depth=depth)
        J = contraction.jacobian(example.mdp, **example.settings, policy=np.zeros(2, dtype=int))

        def norm(point):
            return max(np.abs(np.linalg.matrix_power(J, k) @ point).max() / rate**k for k in range(depth + 1))

        assert max(map(norm, ball)) == pytest.approx(1, abs=1e-9)
        assert min(map(norm, ball)) == pytest.approx(1, abs=1e-9)
        assert max(norm(J @ corner) for corner in ball) <= rate + 1e-9
        np.testing.assert_allclose(np.sort(ball, axis=0), np.sort(-ball, axis=0), atol=1e-9)

    def test_two_policies(self):
        """One state, two actions: not a contraction in the sup norm, but both pieces shrink the same other ball."""
        mdp = examples.full_data_divergence().mdp
        given_ = {"kernel": np.array([[1.0, 0.15], [0.15, 1.0]]), "weights": np.full(2, 0.5), "alpha": 1.0}
        assert contraction.exact_modulus(mdp, **given_) > 1.05
        ball = norms.norm_ball(mdp, **given_, rate=0.999, depth=9)
        images = contraction.box_images(mdp, **given_, shape=ball)
        sides = np.array([[np.cos(t), np.sin(t)] for t in np.linspace(0, np.pi, 500)])
        assert (np.abs(images @ sides.T).max(axis=(0, 1)) <= 0.999 * np.abs(ball @ sides.T).max(axis=0) + 1e-9).all()

    def test_refuses_a_rate_that_is_too_small(self):
        example = examples.some_norm_only()
        with pytest.raises(ValueError, match="rate must exceed the growth of products of 3 Jacobians"):
            norms.norm_ball(example.mdp, **example.settings, rate=0.95, depth=2)

    def test_no_norm_for_the_orbit(self):
        example = examples.closed_orbit()
        with pytest.raises(ValueError, match="rate must exceed"):
            norms.norm_ball(example.mdp, **example.settings, rate=1, depth=8)


class TestSingular:
    """thm-singular: with K D singular every Jacobian has the eigenvalue 1; a missing row stays at 1 or above."""

    def test_missing_pair_and_few_parameters(self, rng):
        for kind in ("missing", "few"):
            for _ in range(20):
                mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
                phi = rng.standard_normal((6, 6 if kind == "missing" else 4))
                weights = rng.dirichlet(np.ones(6))
                if kind == "missing":
                    weights[2] = 0
                    weights /= weights.sum()
                given_ = {"kernel": phi @ phi.T, "weights": weights, "alpha": 0.3}
                policy = rng.integers(2, size=3)
                J = contraction.jacobian(mdp, **given_, policy=policy)
                assert np.abs(np.linalg.eigvals(J) - 1).min() < 1e-9
                assert contraction.exact_modulus(mdp, **given_) >= 1 - 1e-12
                if kind == "missing":
                    least = 1 + 0.3 * 0.1 * np.abs(given_["kernel"][2]) @ weights
                    assert np.abs(J[2]).sum() >= least - 1e-12


class TestRowSumBound:
    """thm-row-sum-bound: sharp when the worst row pulls along only and the step is not too long."""

    def test_reached_when_every_pair_leads_to_the_worst_state(self, rng):
        for _ in range(30):
            kernel, weights = np.abs(rng.standard_normal((6, 6))), rng.dirichlet(np.ones(6))
            given_ = {"kernel": kernel, "weights": weights, "alpha": 1 / (np.diag(kernel) * weights).max()}
            step = given_["alpha"] * kernel * weights
            worst = int((np.abs(np.eye(6) - step) + 0.8 * step).sum(axis=1).argmax())
            P = np.zeros((3, 2, 3))
            P[:, :, worst // 2] = 1.0
            exact = contraction.exact_modulus(FiniteMDP(P, np.zeros((3, 2)), 0.8), **given_)
            assert exact == pytest.approx(contraction.row_sum_bound(**given_, gamma=0.8), rel=1e-12)


def orbit_at(gamma, coupling):
    """Return the orbit without reward, at another discount and coupling."""
    orbit = examples.closed_orbit()
    mdp = dataclasses.replace(orbit.mdp, R=np.zeros((1, 2)), gamma=gamma)
    return dataclasses.replace(orbit, mdp=mdp, kernel=np.array([[8.0, coupling], [coupling, 1.0]]))


class TestSomeNorm:
    """thm-some-norm, decided: a product with an eigenvalue of 1, or pieces that all shrink in one norm."""

    @pytest.mark.parametrize(
        ("name", "want"),
        [
            ("dominant", True),
            ("calm", True),
            ("weighted_only", True),
            ("some_norm_only", True),
            ("orbit", False),
            ("pair", False),
            ("patient", False),
        ],
    )
    def test_cast(self, name, want):
        example = getattr(examples, name)()
        assert norms.some_norm(example.mdp, **example.settings) is want

    def test_two_in_turn_decide(self):
        """Each Jacobian of the patient has its eigenvalues inside the circle: one product alone says nothing."""
        patient = examples.unstable_product_converges()
        assert np.abs(np.linalg.eigvals(contraction.jacobians(patient.mdp, **patient.settings))).max() < 0.97
        assert norms.some_norm(patient.mdp, **patient.settings, products=2) is None

    def test_one_policy_is_the_spectral_radius(self, rng):
        """A pair of complex eigenvalues on top is ordinary input: no vector of LAPACK's is asked for."""
        seen = set()
        for _ in range(60):
            mdp = random_mdp(3, 1, gamma=0.9, branching=2, rng=rng)
            phi = rng.standard_normal((3, 3))
            given_ = {"kernel": phi @ phi.T, "weights": rng.dirichlet(np.ones(3)), "alpha": 1.0}
            J = contraction.jacobian(mdp, **given_, policy=np.zeros(3, dtype=int))
            values = np.linalg.eigvals(J)
            top = values[np.abs(values).argmax()]
            want = bool(np.abs(top) < 1)
            assert norms.some_norm(mdp, **given_) is want
            seen.add((bool(top.imag != 0), want))
        assert {want for _, want in seen} == {True, False} and len(seen) >= 3

    @pytest.mark.parametrize(("gamma", "coupling"), [(0.5, 2.1), (0.5, 2.3), (0.7, 1.4), (0.7, 1.6), (0.9, 1.1)])
    def test_between_the_bounds_of_the_products(self, gamma, coupling):
        """Never against the bounds, and it decides where products of ten leave 1 between them."""
        example = orbit_at(gamma, coupling)
        low, high = norms.joint_spectral_radius(example.mdp, **example.settings, depth=10)
        found = norms.some_norm(example.mdp, **example.settings)
        assert found is not None
        assert high >= 1 or found
        assert low < 1 or not found

    def test_decides_more_than_bounds_on_products(self):
        example = orbit_at(0.7, 1.3)
        low, high = norms.joint_spectral_radius(example.mdp, **example.settings, depth=10)
        assert low < 1 <= high
        assert norms.some_norm(example.mdp, **example.settings) is True

    def test_a_box_will_do_where_products_shrink_slowly(self):
        """No ellipsoid is found in a thousand products, but the square itself fits."""
        example = orbit_at(0.98, -0.3)
        assert contraction.exact_modulus(example.mdp, **example.settings) < 1
        assert norms.some_norm(example.mdp, **example.settings, products=1000) is True

    def test_singular_is_a_contraction_in_no_norm(self):
        """thm-singular: a missing pair leaves the eigenvalue 1."""
        pair = examples.full_data_divergence()
        given_ = {"kernel": pair.kernel, "weights": np.array([1.0, 0.0]), "alpha": 0.1}
        assert norms.some_norm(pair.mdp, **given_) is False

    def test_refuses(self):
        pair = examples.full_data_divergence()
        with pytest.raises(ValueError, match=re.escape("products must be in [1, inf), got 0")):
            norms.some_norm(pair.mdp, **pair.settings, products=0)


class TestPhaseMap:
    """Each cell names the crudest certificate that holds there, or what runs without reward do where none does."""

    COUPLINGS, GAMMAS = np.linspace(-1.2, 2.7, 14), np.array([0.1, 0.5, 0.7, 0.9])

    def test_agrees_with_the_verdicts_and_the_runs(self):
        codes = verdicts.phase_map(examples.closed_orbit(), couplings=self.COUPLINGS, gammas=self.GAMMAS)
        assert set(codes.ravel()) == set(range(6))
        for (row, column), code in np.ndenumerate(codes):
            here = orbit_at(self.GAMMAS[row], self.COUPLINGS[column])
            found = verdicts.verdicts(here, products=500)
            if code < 3:
                assert found.certified_by == verdicts.PHASES[code]
                continue
            assert found.weighted_modulus >= 1
            assert found.joint_spectral_radius[0] < 1 or code > 3
            assert found.joint_spectral_radius[1] >= 1 or code == 3
            fates = {
                dynamics.iterate(here.operator, [start], max_iter=3000, tol=1e-7, bound=1e6).status
                for start in ([0.8, -0.6], [-0.6, 0.8], [-1, 0], [1, 0], [0.6, 0.8])
            }
            assert ("diverged" in fates) == (code == 5), (self.GAMMAS[row], self.COUPLINGS[column])

    def test_a_game_with_one_policy(self):
        """There the fourth certificate is exact, and the map is that of `certificate_map`."""
        dominant = examples.row_dominant()
        couplings = np.linspace(-1.1, 1.1, 7)
        for gamma in (0.3, 0.9):
            here = dataclasses.replace(dominant, mdp=dataclasses.replace(dominant.mdp, gamma=gamma))
            want = verdicts.certificate_map(here, couplings=couplings, alphas=[dominant.alpha])
            found = verdicts.phase_map(dominant, couplings=couplings, gammas=[gamma], max_iter=20_000)
            np.testing.assert_array_equal(found, np.where(want == 4, 5, want))

    def test_reward_does_not_matter(self):
        calls = [
            verdicts.phase_map(example, couplings=[0.2, 2.5], gammas=[0.5, 0.7])
            for example in (examples.closed_orbit(), orbit_at(0.1, 1.0))
        ]
        np.testing.assert_array_equal(*calls)
        assert calls[0].tolist() == [[2, 4], [3, 5]]

    def test_refuses(self):
        with pytest.raises(ValueError, match=re.escape("example must have two state-action pairs, it has 7")):
            verdicts.phase_map(examples.baird_star(), couplings=[0.1], gammas=[0.5])
        with pytest.raises(ValueError, match="gamma"):
            verdicts.phase_map(examples.closed_orbit(), couplings=[0.1], gammas=[1.0])
