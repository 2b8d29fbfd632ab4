"""Beyond the sup norm: the witness, the interval of step sizes, the best weights, and products of Jacobians."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import assume, given

from divergence_notes import contraction, examples, norms, updates
from divergence_notes.mdp import FiniteMDP, random_mdp
from tests import oracles
from tests.strategies import KERNELS, KINDS, WEIGHTS, kernel_cases, make_kernel, make_mdp, make_weights


class TestWitness:
    """The two tables share their greedy policy and part by exactly the modulus."""

    @given(case=kernel_cases())
    def test_attains_the_modulus(self, case):
        settings = {name: case[name] for name in ("kernel", "weights", "alpha")}
        witness = contraction.modulus_witness(case["mdp"], **settings)
        moved = [oracles.kernel_update(Q, case["mdp"], *settings.values()) for Q in (witness.Q1, witness.Q2)]
        apart = (moved[0] - moved[1]).ravel()
        assert np.abs(witness.Q1 - witness.Q2).max() == 0.25
        assert abs(apart[witness.row]) == pytest.approx(0.25 * witness.modulus, rel=1e-9, abs=1e-12)
        assert np.abs(apart).max() == pytest.approx(0.25 * witness.modulus, rel=1e-9, abs=1e-12)
        for Q in (witness.Q1, witness.Q2):
            np.testing.assert_array_equal(Q.argmax(axis=1), witness.policy)

    def test_rows_in_blocks_give_the_same(self, rng):
        """More pairs than one block of rows holds."""
        mdp = random_mdp(150, 4, gamma=0.9, branching=3, rng=rng)
        settings = {"kernel": rng.standard_normal((600, 600)), "weights": rng.dirichlet(np.ones(600)), "alpha": 1.0}
        witness = contraction.modulus_witness(mdp, **settings)
        J = contraction.jacobian(mdp, **settings, policy=witness.policy)
        assert np.abs(J[witness.row]).sum() == pytest.approx(witness.modulus, rel=1e-12)
        assert contraction.exact_modulus(mdp, **settings) == witness.modulus
        others = [contraction.jacobian(mdp, **settings, policy=rng.integers(4, size=150)) for _ in range(3)]
        assert all(np.abs(other).sum(axis=1).max() <= witness.modulus for other in others)


class TestThousands:
    """The formula is the maximum over all deterministic policies, whatever the process, the kernel and the weights."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_brute_force(self, kind, rng):
        sorts, worst = itertools.cycle(itertools.product(KERNELS, WEIGHTS)), 0.0
        for _ in range(500):
            (kernel, weights), shape = next(sorts), rng.integers(1, 4, size=2)
            gamma = float(rng.choice([0.0, 0.5, 0.9, 0.99]))
            mdp = make_mdp(kind, int(shape[0]), int(shape[1]), gamma, rng)
            settings = {
                "kernel": make_kernel(kernel, mdp.n_pairs, rng),
                "weights": make_weights(weights, mdp.n_pairs, rng),
                "alpha": float(rng.choice([0.1, 1.0, 3.0])),
            }
            want = np.abs(oracles.jacobians(mdp, **settings)).sum(axis=2).max()
            found = contraction.exact_modulus(mdp, **settings)
            worst = max(worst, abs(found - want) / max(1.0, want))
            assert found <= contraction.row_sum_bound(**settings, gamma=gamma) * (1 + 1e-12)
        assert worst <= 1e-12


class TestMaxStepSize:
    """The exact modulus is below 1 on (0, a_max) and nowhere else."""

    @given(case=kernel_cases(max_states=3))
    def test_interval(self, case):
        mdp, kernel, weights = case["mdp"], case["kernel"], case["weights"]
        limit = contraction.max_step_size(mdp, kernel=kernel, weights=weights)
        if limit > 0:
            assert oracles.lipschitz(mdp, kernel, weights, limit) == pytest.approx(1, abs=1e-9)
            assert oracles.lipschitz(mdp, kernel, weights, limit * 1.01) > 1
            for part in (0.01, 0.5, 0.99):
                assert oracles.lipschitz(mdp, kernel, weights, limit * part) < 1
        else:
            for alpha in (1e-3, 0.1, 1.0, 10.0):
                assert oracles.lipschitz(mdp, kernel, weights, alpha) >= 1 - 1e-12

    def test_both_sides_are_met(self, rng):
        """Random weakly coupled kernels give intervals, strongly coupled ones none."""
        mdp, weights = random_mdp(3, 2, gamma=0.5, branching=2, rng=rng), np.full(6, 1 / 6)
        noise = rng.standard_normal((6, 6))
        found = [contraction.max_step_size(mdp, kernel=np.eye(6) + c * noise, weights=weights) for c in (0.01, 1)]
        assert found[0] > 0 and found[1] == 0

    def test_table(self):
        """A table with U2: 2 / ((1 + gamma) rho_max) on a swap."""
        mdp = FiniteMDP(np.array([[[0, 1.0]], [[1.0, 0]]]), np.zeros((2, 1)), 0.9)
        found = contraction.max_step_size(mdp, kernel=np.eye(2), weights=np.array([0.2, 0.8]))
        assert found == pytest.approx(2 / (1.9 * 0.8))

    def test_a_pair_that_is_never_sampled_leaves_none(self):
        mdp = FiniteMDP(np.array([[[0, 1.0]], [[1.0, 0]]]), np.zeros((2, 1)), 0.9)
        assert contraction.max_step_size(mdp, kernel=np.eye(2), weights=np.array([1.0, 0.0])) == 0

    def test_a_kernel_of_any_size(self):
        """Only the product alpha K counts: a kernel c times as large has an interval 1/c times as long."""
        example = examples.sup_norm_only()
        for size in (1e12, 1e-6, 1e-14):
            found = contraction.max_step_size(example.mdp, kernel=size * example.kernel, weights=example.weights)
            assert found * size == pytest.approx(80 / 3, rel=1e-12)

    def test_calm(self):
        example = examples.sup_norm_only()
        limit = contraction.max_step_size(example.mdp, kernel=example.kernel, weights=example.weights)
        assert limit == pytest.approx(80 / 3)


class TestWeightedModulus:
    """lambda* is the smallest constant over weighted sup norms, and w proves it."""

    @given(case=kernel_cases(max_states=3))
    def test_certificate(self, case):
        settings = {name: case[name] for name in ("kernel", "weights", "alpha")}
        value, w = norms.weighted_modulus(case["mdp"], **settings)
        assert (w > 0).all() and w.max() == 1
        for J in oracles.jacobians(case["mdp"], **settings):
            assert (np.abs(J) @ w <= value * w * (1 + 1e-12)).all()
        assert value <= oracles.lipschitz(case["mdp"], *settings.values()) * (1 + 1e-12)

    @given(case=kernel_cases(max_states=2, max_actions=2))
    def test_no_weights_do_better(self, case):
        """The largest spectral radius over all selections of rows, one by one."""
        assume(case["mdp"].n_pairs <= 4)
        settings = {name: case[name] for name in ("kernel", "weights", "alpha")}
        rows = np.abs(oracles.jacobians(case["mdp"], **settings))  # (policies, n, n)
        n = case["mdp"].n_pairs
        roots = [
            np.abs(np.linalg.eigvals(rows[list(selection), np.arange(n)])).max()
            for selection in itertools.product(range(len(rows)), repeat=n)
        ]
        value, _ = norms.weighted_modulus(case["mdp"], **settings)
        assert max(roots) <= value * (1 + 1e-9) + 1e-12
        assert value == pytest.approx(max(roots), rel=1e-5, abs=1e-5)

    @pytest.mark.parametrize(
        ("name", "want"), [("dominant", 0.9864), ("calm", 0.975), ("some_norm_only", 1.0203), ("pair", 1.2174)]
    )
    def test_cast(self, name, want):
        example = getattr(examples, name)()
        assert norms.weighted_modulus(example.mdp, **example.settings)[0] == pytest.approx(want, abs=5e-5)

    def test_only_weights_certify_the_rectangle(self):
        example = examples.weighted_norm_only()
        value, w = norms.weighted_modulus(example.mdp, **example.settings)
        assert contraction.exact_modulus(example.mdp, **example.settings) > 1 > value
        assert w == pytest.approx([0.151, 1], abs=5e-4)


class TestJointSpectralRadius:
    """Lower bound <= upper bound <= weighted modulus <= exact modulus <= row-sum bound."""

    @given(case=kernel_cases(max_states=2, max_actions=2))
    def test_chain(self, case):
        settings = {name: case[name] for name in ("kernel", "weights", "alpha")}
        lower, upper = norms.joint_spectral_radius(case["mdp"], **settings, depth=3)
        weighted = norms.weighted_modulus(case["mdp"], **settings)[0]
        exact = contraction.exact_modulus(case["mdp"], **settings)
        bound = contraction.row_sum_bound(**settings, gamma=case["mdp"].gamma)
        chain = [lower, upper, weighted, exact, bound]
        assert all(a <= b * (1 + 1e-9) + 1e-12 for a, b in itertools.pairwise(chain)), chain

    def test_one_policy_is_its_spectral_radius(self, rng):
        """With one action the lower bound is exact, and the upper one comes down to it."""
        mdp = random_mdp(4, 1, gamma=0.9, branching=2, rng=rng)
        settings = {"kernel": np.eye(4) + 0.2 * rng.standard_normal((4, 4)), "weights": np.full(4, 0.25), "alpha": 1.0}
        root = np.abs(np.linalg.eigvals(oracles.jacobians(mdp, **settings)[0])).max()
        lower, upper = norms.joint_spectral_radius(mdp, **settings, depth=60)
        assert lower == pytest.approx(root, rel=1e-6)
        assert root <= upper <= 1.05 * root

    def test_some_norm_only(self):
        """R4: no weights certify it, a product of two does."""
        example = examples.some_norm_only()
        lower, upper = norms.joint_spectral_radius(example.mdp, **example.settings, depth=6)
        assert norms.weighted_modulus(example.mdp, **example.settings)[0] > 1 > upper >= lower

    @pytest.mark.parametrize("name", ["orbit", "pair"])
    def test_no_norm_at_all(self, name):
        example = getattr(examples, name)()
        assert norms.joint_spectral_radius(example.mdp, **example.settings, depth=1)[0] > 1

    def test_too_many_products(self):
        example = examples.baird_control()
        message = "depth must leave at most 1000000 products: 128 policies to the power 3 are more"
        with pytest.raises(ValueError, match=re.escape(message)):
            norms.joint_spectral_radius(example.mdp, **example.settings, depth=3)


def test_the_update_itself_shrinks_in_the_weighted_norm():
    """One line for the reader: distances in the norm max |Q_i| / w_i shrink by lambda* at least, on R3."""
    example, rng = examples.weighted_norm_only(), np.random.default_rng(0)
    value, w = norms.weighted_modulus(example.mdp, **example.settings)
    for _ in range(200):
        Q1, Q2 = rng.standard_normal((2, 2, 1))
        moved = [updates.kernel_update(Q, example.mdp, **example.settings) for Q in (Q1, Q2)]
        assert np.abs((moved[0] - moved[1]).ravel() / w).max() <= value * np.abs((Q1 - Q2).ravel() / w).max() + 1e-12
