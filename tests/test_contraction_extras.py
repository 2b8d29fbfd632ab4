"""What chapter 4 adds to `contraction`: the exact modulus and the images of the unit square."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given

from divergence_notes import contraction, counterexamples
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
        example = getattr(counterexamples, name)()
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
        example = counterexamples.pair()
        with pytest.raises(ValueError, match=re.escape(message)):
            contraction.exact_modulus(example.mdp, **example.settings | change)


class TestBoxImages:
    """The unit square under each Jacobian; its farthest corner lies at the exact modulus."""

    @pytest.mark.parametrize("name", ["dominant", "calm", "weighted_only", "some_norm_only", "orbit", "pair"])
    def test_farthest_corner_is_the_modulus(self, name):
        example = getattr(counterexamples, name)()
        images = contraction.box_images(example.mdp, **example.settings)
        assert images.shape == (example.mdp.n_actions**example.mdp.n_states, 4, 2)
        want = oracles.lipschitz(example.mdp, *example.settings.values())
        assert np.abs(images).max() == pytest.approx(want, rel=1e-12)

    def test_corners_are_images_of_corners(self):
        example = counterexamples.pair()
        images = contraction.box_images(example.mdp, **example.settings)
        for policy, image in enumerate(images):
            J = np.eye(2) - 0.1 * example.kernel @ np.diag([0.2, 0.8]) @ (np.eye(2) - 0.9 * np.eye(2)[[policy, policy]])
            for corner, end in zip([(1, 1), (-1, 1), (-1, -1), (1, -1)], image, strict=True):
                np.testing.assert_allclose(end, J @ corner, atol=1e-12)

    def test_needs_two_pairs(self):
        example = counterexamples.loop()
        with pytest.raises(ValueError, match=re.escape("mdp must have two state-action pairs, it has 1")):
            contraction.box_images(example.mdp, **example.settings)

    def test_another_shape(self):
        example = counterexamples.calm()
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
        example = getattr(counterexamples, name)()
        ball = contraction.norm_ball(example.mdp, **example.settings, rate=rate, depth=depth)
        J = contraction.jacobian(example.mdp, **example.settings, policy=np.zeros(2, dtype=int))

        def norm(point):
            return max(np.abs(np.linalg.matrix_power(J, k) @ point).max() / rate**k for k in range(depth + 1))

        assert max(map(norm, ball)) == pytest.approx(1, abs=1e-9)
        assert min(map(norm, ball)) == pytest.approx(1, abs=1e-9)
        assert max(norm(J @ corner) for corner in ball) <= rate + 1e-9
        np.testing.assert_allclose(np.sort(ball, axis=0), np.sort(-ball, axis=0), atol=1e-9)

    def test_two_policies(self):
        """One state, two actions: not a contraction in the sup norm, but both pieces shrink the same other ball."""
        mdp = counterexamples.pair().mdp
        given_ = {"kernel": np.array([[1.0, 0.15], [0.15, 1.0]]), "weights": np.full(2, 0.5), "alpha": 1.0}
        assert contraction.exact_modulus(mdp, **given_) > 1.05
        ball = contraction.norm_ball(mdp, **given_, rate=0.999, depth=9)
        images = contraction.box_images(mdp, **given_, shape=ball)
        sides = np.array([[np.cos(t), np.sin(t)] for t in np.linspace(0, np.pi, 500)])
        assert (np.abs(images @ sides.T).max(axis=(0, 1)) <= 0.999 * np.abs(ball @ sides.T).max(axis=0) + 1e-9).all()

    def test_refuses_a_rate_that_is_too_small(self):
        example = counterexamples.some_norm_only()
        with pytest.raises(ValueError, match="rate must exceed the growth of products of 3 Jacobians"):
            contraction.norm_ball(example.mdp, **example.settings, rate=0.95, depth=2)

    def test_no_norm_for_the_orbit(self):
        example = counterexamples.orbit()
        with pytest.raises(ValueError, match="rate must exceed"):
            contraction.norm_ball(example.mdp, **example.settings, rate=1, depth=8)


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
