"""Where updates can come to rest, and how close a changing update stays to a resting place that moves."""

import re

import numpy as np
import pytest

from divergence_notes import dynamics, examples, features, norms, updates
from divergence_notes.mdp import FiniteMDP, random_mdp


class TestLinearFixedPoints:
    """Phi^T D (R + gamma P max Phi theta - Phi theta) = 0: none, one, or several solutions."""

    @pytest.mark.parametrize(
        ("reward", "gamma", "want"), [(1, 0.9, []), (-1, 0.9, [-1 / 2.8, 1.25]), (1, 0.25, [2.0]), (0, 0.9, [0.0])]
    )
    def test_one_weight_and_a_max(self, reward, gamma, want):
        """Drift r + 2 gamma |theta| - theta: none, two, one, one."""
        example = examples.no_fixed_point()
        mdp = FiniteMDP(example.mdp.P, np.array([[reward, reward], [0.0, 0.0]]), gamma)
        found = updates.linear_fixed_points(example.features, mdp, weights=example.weights)
        assert found.shape == (len(want), 1)
        assert found[:, 0] == pytest.approx(want)
        for theta in found[:, 0]:
            assert reward + 2 * gamma * abs(theta) - theta == pytest.approx(0, abs=1e-10)

    @pytest.mark.parametrize(("gamma", "want"), [(0.5, 0.5), (0.9, -2.5)])
    def test_w_to_2w_with_a_reward(self, gamma, want):
        """Phi^T D (Phi - gamma P Phi) = (5 - 6 gamma) / 2 against Phi^T D R = 1/2."""
        example = examples.w_to_2w(gamma, [0.5, 0.5])
        mdp = FiniteMDP(example.mdp.P, np.array([[1.0], [0.0]]), gamma)
        assert 0.5 / ((5 - 6 * gamma) / 2) == pytest.approx(want)
        found = updates.linear_fixed_points(example.features, mdp, weights=example.weights)
        assert found[:, 0] == pytest.approx([want])

    def test_a_full_table_rests_only_at_the_optimum(self, rng):
        mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
        phi, weights = rng.standard_normal((6, 6)), rng.dirichlet(np.ones(6))
        found = updates.linear_fixed_points(phi, mdp, weights=weights)
        assert len(found) == 1
        Q = (phi @ found[0]).reshape(3, 2)
        np.testing.assert_allclose(Q, mdp.R + 0.9 * np.einsum("sat,t->sa", mdp.P, Q.max(axis=1)), atol=1e-8)

    def test_a_step_leaves_each_where_it_is(self, rng):
        """Random problems with fewer parameters than pairs; both many and no fixed points occur."""
        counts = set()
        for _ in range(200):
            mdp = random_mdp(3, 2, gamma=0.95, branching=1, rng=rng)
            phi, weights = rng.standard_normal((6, 2)), rng.dirichlet(np.ones(6))
            found = updates.linear_fixed_points(phi, mdp, weights=weights)
            counts.add(len(found))
            for theta in found:
                stepped = updates.linear_step(theta, phi, mdp, weights=weights, alpha=0.1)
                np.testing.assert_allclose(stepped, theta, atol=1e-7 * max(1, np.abs(theta).max()))
        assert {0, 1, 2} <= counts

    def test_a_leaf_is_not_a_point(self):
        """A table with a pair that is never sampled: every value of that pair will do."""
        mdp = FiniteMDP(np.array([[[0, 1.0]], [[0, 1.0]]]), np.ones((2, 1)), 0.5)
        found = updates.linear_fixed_points(features.one_hot(2), mdp, weights=np.array([1.0, 0.0]))
        assert found.shape == (0, 2)

    def test_too_many_policies(self, rng):
        mdp = random_mdp(17, 2, gamma=0.9, branching=2, rng=rng)
        message = "mdp must have at most 100000 deterministic policies here, it has 131072"
        with pytest.raises(ValueError, match=re.escape(message)):
            updates.linear_fixed_points(np.eye(34), mdp, weights=np.full(34, 1 / 34))


class TestTracking:
    """limsup |Q_k - c| <= (1 + beta) spread / (1 - beta), and no smaller bound will do."""

    def test_attained(self):
        """Slope -beta and fixed points that alternate between +1 and -1."""
        beta, x, sign, far = 0.5, 0.0, 1.0, []
        for _ in range(200):
            x, sign = sign - beta * (x - sign), -sign
            far.append(abs(x))
        assert max(far[100:]) == pytest.approx(norms.tracking_bound(beta, spread=1))

    def test_never_exceeded(self, rng):
        for _ in range(200):
            beta, spread = rng.uniform(0, 0.95), rng.uniform(0.1, 2)
            x, far = rng.standard_normal(2), []
            for _ in range(400):
                fixed, slope = rng.uniform(-spread, spread, 2), rng.choice([-1, 1]) * beta
                x = fixed + slope * (x - fixed)
                far.append(np.abs(x).max())
            assert max(far[300:]) <= norms.tracking_bound(beta, spread=spread) + 1e-6


class TestLag:
    """limsup |Q_k - fixed point of the next step| <= drift / (1 - beta), and no smaller bound will do."""

    def test_attained(self):
        beta, x, fixed = 0.8, 0.0, 0.0
        for _ in range(400):
            x, fixed = fixed + beta * (x - fixed), fixed + 0.1
        assert fixed - x == pytest.approx(norms.lag_bound(beta, drift=0.1))

    def test_never_exceeded(self, rng):
        for _ in range(100):
            beta, x, fixed, lags = rng.uniform(0, 0.9), 0.0, 0.0, []
            for _ in range(400):
                x, fixed = fixed + rng.uniform(-beta, beta) * (x - fixed), fixed + rng.uniform(-0.1, 0.1)
                lags.append(abs(x - fixed))
            assert max(lags[300:]) <= norms.lag_bound(beta, drift=0.1) + 1e-9


@pytest.mark.parametrize("bound", [norms.tracking_bound, norms.lag_bound])
def test_bounds_want_a_contraction(bound):
    keyword = {"tracking_bound": "spread", "lag_bound": "drift"}[bound.__name__]
    with pytest.raises(ValueError, match=re.escape("beta must be in [0, 1), got 1")):
        bound(1, **{keyword: 0.1})
    with pytest.raises(ValueError, match=re.escape(f"{keyword} must be in [0, inf), got -1")):
        bound(0.5, **{keyword: -1})


def test_every_factor_below_one_is_not_enough():
    """Moduli 1 - 1/(k + 2)^2: each contracts, yet the iterates keep half of where they began."""
    x = 1.0
    for k in range(100_000):
        x *= 1 - 1 / (k + 2) ** 2
    assert x == pytest.approx(0.5, abs=1e-4)


def test_different_norms_do_not_add_up():
    """Each matrix shrinks in its own weighted sup norm, the two in turn grow."""
    A = np.array([[0.5, 2.0], [0.0, 0.5]])
    for matrix, w in ((A, np.array([8.0, 1.0])), (A.T, np.array([1.0, 8.0]))):
        assert ((np.abs(matrix) @ w) / w).max() == pytest.approx(0.75)
    run = dynamics.iterate(lambda x: A @ (A.T @ x), np.ones(2), max_iter=50)
    assert run.status == "diverged"
