"""Two limits on the discount: what a kernel promises for every process, and what it does in one."""

import numpy as np
import pytest
from hypothesis import given, settings

from divergence_notes import contraction, examples
from divergence_notes.mdp import FiniteMDP, random_mdp
from tests.strategies import generators


def coupled(rng, n, *, signed):
    """Return a kernel whose rows are dominant up to some discount, and a distribution."""
    K = 0.5 * rng.random((n, n)) / n * (rng.choice([-1.0, 1.0], (n, n)) if signed else 1.0)
    np.fill_diagonal(K, 1 + rng.random(n))
    return K, rng.dirichlet(np.full(n, 20.0))


class TestDiscountLimit:
    """eq-discount-limit: row dominance holds below it and not above."""

    @given(rng=generators())
    @settings(max_examples=50)
    def test_parts_the_margins(self, rng):
        K, rho = coupled(rng, 4, signed=True)
        limit = contraction.discount_limit(K, rho)
        assert 0 < limit < 1
        assert contraction.row_dominance(K, rho, gamma=limit * (1 - 1e-9)).min() > 0
        assert contraction.row_dominance(K, rho, gamma=limit + 1e-9).min() < 0

    @given(rng=generators())
    @settings(max_examples=50)
    def test_is_the_limit_of_the_worst_process(self, rng):
        """thm-sharp: below it every process contracts at a short step; above it one does not, at any step."""
        K, rho = coupled(rng, 4, signed=False)
        limit = contraction.discount_limit(K, rho)
        own = np.diag(K) * rho
        row = np.argmin((2 * own - K @ rho) / (K @ rho))
        P = np.zeros((2, 2, 2))
        P[:, :, row // 2] = 1.0  # every pair leads to the state of the critical row
        some = [FiniteMDP(P, np.zeros((2, 2)), 0.0), random_mdp(2, 2, gamma=0.0, branching=2, rng=rng)]
        alpha = 1 / own.max()
        for mdp in some:
            below = FiniteMDP(mdp.P, mdp.R, limit * (1 - 1e-9))
            assert contraction.exact_modulus(below, kernel=K, weights=rho, alpha=alpha) < 1
        for factor in (1, 0.1, 1e-3):
            above = FiniteMDP(P, np.zeros((2, 2)), limit + 1e-6)
            assert contraction.exact_modulus(above, kernel=K, weights=rho, alpha=factor * alpha) > 1

    @given(rng=generators())
    @settings(max_examples=50)
    def test_sharpness(self, rng):
        """thm-sharp: the bound is the modulus of the process in which every pair leads to the critical row's state."""
        K, rho = coupled(rng, 4, signed=False)
        alpha, gamma = 1 / (np.diag(K) * rho).max(), 0.95
        rows = [
            abs(1 - alpha * K[i, i] * rho[i])
            + alpha * sum(K[i, j] * rho[j] for j in range(4) if j != i)
            + alpha * gamma * sum(K[i, j] * rho[j] for j in range(4))
            for i in range(4)
        ]
        P = np.zeros((2, 2, 2))
        P[:, :, int(np.argmax(rows)) // 2] = 1.0
        mdp = FiniteMDP(P, np.zeros((2, 2)), gamma)
        exact = contraction.exact_modulus(mdp, kernel=K, weights=rho, alpha=alpha)
        assert exact == pytest.approx(max(rows), rel=1e-12)
        assert exact == pytest.approx(contraction.row_sum_bound(K, rho, alpha=alpha, gamma=gamma), rel=1e-12)

    def test_negative_entries_are_a_witness_outside(self):
        """With a negative entry the bound is above the modulus of every process of two states."""
        K, rho = np.array([[1.0, -0.3], [-0.3, 1.0]]), [0.5, 0.5]
        worst = 0.0
        for p in np.linspace(0, 1, 11):
            for q in np.linspace(0, 1, 11):
                mdp = FiniteMDP([[[p, 1 - p]], [[q, 1 - q]]], np.zeros((2, 1)), 0.9)
                worst = max(worst, contraction.exact_modulus(mdp, kernel=K, weights=rho, alpha=1.0))
        assert worst < 1 < contraction.row_sum_bound(K, rho, alpha=1.0, gamma=0.9)

    def test_ends(self):
        assert contraction.discount_limit(np.eye(3), np.full(3, 1 / 3)) == 1
        assert contraction.discount_limit(np.eye(2), [1.0, 0.0]) == 0  # a pair without data
        assert contraction.discount_limit(-np.eye(2), [0.5, 0.5]) == 0
        assert contraction.discount_limit([[1.0, 0.0], [3.0, 1.0]], [0.5, 0.5]) == 0


class TestStableDiscount:
    """The first discount at which a policy's linear update drifts away."""

    @pytest.mark.parametrize("weights", [(1, 0), (0.5, 0.5), (0.2, 0.8)])
    def test_w_to_2w(self, weights):
        example = examples.w_to_2w(0.9, weights)
        found = contraction.stable_discount(example.mdp, kernel=example.kernel, weights=example.weights, points=999)
        threshold = examples.w_to_2w_threshold(weights)
        assert threshold - 1e-3 - 1e-9 <= found <= threshold + 1e-9

    def test_star(self):
        """Baird: 15/17, worked out by hand in chapter 4."""
        star = examples.baird_star()
        found = contraction.stable_discount(star.mdp, kernel=star.kernel, weights=star.weights, points=999)
        assert found == pytest.approx(15 / 17, abs=1e-3)

    def test_looks_at_every_policy(self):
        """The pair: its first action is unstable above 26/38, its second never."""
        pair = examples.full_data_divergence()
        K, rho = pair.kernel, pair.weights
        limit = (K[0, 0] * rho[0] + rho[1]) / (K[0, 0] * rho[0] + K[0, 1] * rho[1])
        for order in ([0, 1], [1, 0]):  # whichever of the two comes first
            found = contraction.stable_discount(pair.mdp, kernel=K[order][:, order], weights=rho[order], points=999)
            assert found == pytest.approx(limit, abs=1e-3)

    def test_ends(self):
        calm = examples.sup_norm_only()
        stable = contraction.stable_discount(calm.mdp, kernel=calm.kernel, weights=calm.weights, points=9)
        assert stable == pytest.approx(0.9)
        assert contraction.stable_discount(calm.mdp, kernel=-calm.kernel, weights=calm.weights) == 0
