"""When the kernel update contracts: bounds, exact constants, and the other side of each."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from divergence_notes import bellman, contraction, norms, updates
from divergence_notes.mdp import FiniteMDP, random_mdp
from tests import oracles
from tests.strategies import generators, kernel_cases, make_kernel, tables

few = settings(max_examples=50)
SMALL = {"max_states": 3, "max_actions": 2}


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


def sup(x):
    return float(np.abs(x).max())


def process(P, gamma, R=None):
    """Return a process with one action from the rows of its chain."""
    P = np.asarray(P, dtype=float)
    return FiniteMDP(P[:, None, :], np.zeros((len(P), 1)) if R is None else R, gamma)


def all_to(state, gamma, n=2):
    return process(np.tile(np.eye(n)[state], (n, 1)), gamma)


def loops(gamma, n=2):
    return process(np.eye(n), gamma)


def only(case, *names):
    return {name: case[name] for name in names}


def stretch(case, Q1, Q2):
    """Return the distance after one kernel update over the distance before it."""
    after = [updates.kernel_update(Q, case["mdp"], **only(case, "kernel", "weights", "alpha")) for Q in (Q1, Q2)]
    return sup(after[0] - after[1]) / sup(Q1 - Q2)


def pair_case(kernel, weights, mdp, alpha=1.0):
    return {"kernel": np.array(kernel, dtype=float), "weights": np.array(weights), "mdp": mdp, "alpha": alpha}


def bound(case):
    return contraction.row_sum_bound(case["kernel"], case["weights"], alpha=case["alpha"], gamma=case["mdp"].gamma)


class TestRowSumBound:
    """max_i sum_j |delta_ij - alpha K_ij rho_j| + gamma alpha |K_ij| rho_j bounds every stretch, for every process."""

    @given(case=kernel_cases())
    @few
    def test_against_loops(self, case):
        K, rho, a, g, n = case["kernel"], case["weights"], case["alpha"], case["mdp"].gamma, case["mdp"].n_pairs
        rows = [
            sum(abs((i == j) - a * K[i][j] * rho[j]) + g * a * abs(K[i][j]) * rho[j] for j in range(n))
            for i in range(n)
        ]
        assert bound(case) == pytest.approx(max(rows))

    @given(case=kernel_cases(), rng=generators())
    @few
    def test_bounds_every_stretch(self, case, rng):
        for _ in range(5):
            Q1, Q2 = tables(case["mdp"], rng), tables(case["mdp"], rng)
            assert stretch(case, Q1, Q2) <= bound(case) + 1e-9

    @given(case=kernel_cases(**SMALL))
    @few
    def test_is_above_the_exact_constant(self, case):
        assert oracles.lipschitz(**only(case, "mdp", "kernel", "weights", "alpha")) <= bound(case) + 1e-9

    @given(rng=generators(), n=st.integers(1, 5), gamma=st.sampled_from([0, 0.5, 0.9]))
    @few
    def test_no_bound_that_ignores_the_process_is_better(self, rng, n, gamma):
        """Attained when K >= 0, alpha K_ii rho_i <= 1 and every pair leads to the state of the critical row."""
        K, rho = rng.random((n, n)), rng.dirichlet(np.ones(n))
        alpha = 1 / (K.diagonal() * rho).max()
        row = int((np.abs(np.eye(n) - alpha * K * rho) + gamma * alpha * K * rho).sum(axis=1).argmax())
        case = pair_case(K, rho, all_to(row, gamma, n), alpha)
        assert oracles.lipschitz(**case) == pytest.approx(bound(case))

    def test_wrong_index_is_no_bound(self):
        """With rho_i for rho_j the number falls below the exact constant."""
        case = pair_case([[1, 0.5], [0.5, 1]], [0.0, 1.0], all_to(0, 0.5))
        assert printed_with_the_wrong_index(case) == pytest.approx(1.25)
        assert oracles.lipschitz(**case) == pytest.approx(1.75)
        assert bound(case) == pytest.approx(1.75)

    def test_wrong_index_certifies_what_expands(self):
        case = pair_case([[1, 0.3], [0.3, 1]], [0.2, 0.8], all_to(0, 0.1))
        assert printed_with_the_wrong_index(case) == pytest.approx(0.904)
        assert oracles.lipschitz(**case) == pytest.approx(1.084)
        assert bound(case) >= 1.084 - 1e-12
        witness = contraction.modulus_witness(**case)
        assert stretch(case, witness.Q1, witness.Q2) > 1

    def test_the_weight_of_the_pair_that_moves_away(self):
        """One step from a unit difference at the second pair: -0.75 at the first, where rho_i would say -0.25."""
        mdp, K, rho = loops(0), np.array([[2.0, 1.0], [1.0, 2.0]]), [0.25, 0.75]
        moved = updates.kernel_update([[0.0], [1.0]], mdp, kernel=K, weights=rho, alpha=1)
        np.testing.assert_allclose(moved, [[-0.75], [-0.5]])

    @given(case=kernel_cases(kernels=("identity",)))
    @few
    def test_table(self, case):
        rho, g = case["weights"], case["mdp"].gamma
        assume(case["alpha"] * rho.max() <= 1)
        assert bound(case) == pytest.approx(1 - (1 - g) * case["alpha"] * rho.min())

    def test_a_large_step_can_still_contract(self):
        case = pair_case(np.eye(2), [0.5, 0.5], loops(0.5), alpha=2.2 / 2)
        assert bound(case) < 1
        over = case | {"alpha": 2.2}  # alpha K_ii rho_i = 1.1 > 1
        assert bound(over) == pytest.approx(0.65)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"kernel": np.ones((2, 3))}, "kernel must have shape (n, n), got (2, 3)"),
            ({"weights": [1.0]}, "weights must have shape (2,), got (1,), while kernel has shape (2, 2)"),
            ({"weights": [0.5, 0.6]}, "weights must be a distribution: its entries sum to 1.1, not to 1"),
            ({"gamma": 1.0}, "gamma must be in [0, 1), got 1.0"),
            ({"alpha": 0}, "alpha must be in (0, inf), got 0"),
        ],
    )
    def test_refuses(self, changes, message):
        there = {"kernel": np.eye(2), "weights": [0.5, 0.5], "gamma": 0.9, "alpha": 1.0} | changes
        K, rho, alpha = there.pop("kernel"), there.pop("weights"), there.pop("alpha")
        with refuses(ValueError, message):
            contraction.row_sum_bound(K, rho, alpha=alpha, **there)
        if "alpha" not in changes:
            with refuses(ValueError, message):
                contraction.row_dominance(K, rho, **there)
            with refuses(ValueError, message):
                contraction.step_size_limit(K, rho, **there)


def printed_with_the_wrong_index(case):
    K, rho, a, g = case["kernel"], case["weights"], case["alpha"], case["mdp"].gamma
    n = len(K)
    rows = [
        sum(abs((i == j) - a * K[i, j] * rho[i]) + a * g * abs(K[i, j]) * rho[j] for j in range(n)) for i in range(n)
    ]
    return max(rows)


class TestRowDominance:
    """Margins (1-g) K_ii rho_i - (1+g) sum_{j!=i} |K_ij| rho_j: all positive exactly if some step size has beta < 1."""

    @given(case=kernel_cases())
    @few
    def test_against_loops(self, case):
        K, rho, g, n = case["kernel"], case["weights"], case["mdp"].gamma, case["mdp"].n_pairs
        expected = [
            (1 - g) * K[i][i] * rho[i] - (1 + g) * sum(abs(K[i][j]) * rho[j] for j in range(n) if j != i)
            for i in range(n)
        ]
        np.testing.assert_allclose(contraction.row_dominance(K, rho, gamma=g), expected, atol=1e-12)

    @given(case=kernel_cases(), share=st.sampled_from([0.02, 0.5, 0.99, 1.01, 1.6]))
    @settings(max_examples=100)
    def test_with_the_step_size_limit_it_is_the_bound_below_one(self, case, share):
        K, rho, g = case["kernel"], case["weights"], case["mdp"].gamma
        assume(np.abs(K @ np.diag(rho)).max() > 1e-6)
        margins, limit = contraction.row_dominance(K, rho, gamma=g), contraction.step_size_limit(K, rho, gamma=g)
        assume(np.abs(margins).min() > 1e-9)
        beta = contraction.row_sum_bound(K, rho, alpha=share * limit, gamma=g)
        assert (beta < 1) == (margins.min() > 0 and share < 1)

    def test_both_sides_occur(self, rng):
        inside = contraction.row_dominance(make_kernel("dominant", 3, rng), np.full(3, 1 / 3), gamma=0.5)
        outside = contraction.row_dominance(make_kernel("gram", 3, rng), np.full(3, 1 / 3), gamma=0.5)
        assert inside.min() > 0 > outside.min()

    def test_step_size_limit(self):
        K = np.array([[1.0, -0.5], [0.25, 2.0]])
        assert contraction.step_size_limit(K, [0.5, 0.5], gamma=0.5) == pytest.approx(2 / (1.5 * 1.125))
        with refuses(ValueError, "kernel must move some pair: every column of a sampled pair is zero"):
            contraction.step_size_limit([[0.0, 1.0], [0.0, 1.0]], [1.0, 0.0], gamma=0.5)

    def test_the_inequality_is_strict(self):
        """A pair that no data shows stays frozen: margin 0, modulus exactly 1."""
        case = pair_case(np.eye(2), [1.0, 0.0], loops(0.5))
        margins = contraction.row_dominance(case["kernel"], case["weights"], gamma=0.5)
        assert margins == pytest.approx([0.5, 0.0]) and margins.max() <= 0.5 and margins[1] == 0
        assert 1 <= bound(case) == pytest.approx(1.0)
        assert stretch(case, np.zeros((2, 1)), np.array([[0.0], [1.0]])) == 1.0

    @given(case=kernel_cases(kernels=("dominant",), weights=("uniform",), gammas=(0, 0.3, 0.5)), rng=generators())
    @few
    def test_certified_updates_run_to_the_optimum(self, case, rng):
        K, rho, mdp = case["kernel"], case["weights"], case["mdp"]
        assume(contraction.row_dominance(K, rho, gamma=mdp.gamma).min() > 1e-3)
        case["alpha"] = 0.9 * contraction.step_size_limit(K, rho, gamma=mdp.gamma)
        beta, best, Q = bound(case), oracles.best_table(mdp), case["Q"]
        assert beta < 1
        for _ in range(4):
            new = updates.kernel_update(Q, mdp, **only(case, "kernel", "weights", "alpha"))
            assert sup(new - best) <= beta * sup(Q - best) + 1e-9
            Q = new


class TestOvershoot:
    """Without bootstrapping the update is stable exactly below 2 / lambda_max(K D)."""

    @given(case=kernel_cases(kernels=("identity", "gram"), weights=("uniform", "random")))
    @few
    def test_spectral_radius_crosses_one(self, case):
        KD = case["kernel"] @ np.diag(case["weights"])
        limit = contraction.overshoot_limit(case["kernel"], case["weights"])
        for factor, stable in ((0.99, True), (1.01, False)):
            radius = np.abs(np.linalg.eigvals(np.eye(len(KD)) - factor * limit * KD)).max()
            assert (radius < 1) == stable

    @pytest.mark.parametrize(("factor", "grows"), [(0.9, False), (1.1, True)])
    def test_it_happens_with_gamma_zero(self, factor, grows):
        K, rho = np.array([[2.0, 1.0], [1.0, 1.0]]), np.array([0.3, 0.7])
        alpha, Q = factor * contraction.overshoot_limit(K, rho), np.array([[1.0], [2.0]])
        for _ in range(100):
            Q = updates.kernel_update(Q, loops(0), kernel=K, weights=rho, alpha=alpha)
        assert (sup(Q) > 1e3) == grows and (sup(Q) < 1) != grows

    def test_refuses(self):
        with refuses(ValueError, "kernel must be symmetric positive definite, its lowest eigenvalue is -1"):
            contraction.overshoot_limit([[0.0, 1.0], [1.0, 0.0]], [0.5, 0.5])
        with refuses(ValueError, "kernel must be symmetric: kernel[0, 1] is 1, kernel[1, 0] is 0"):
            contraction.overshoot_limit([[1.0, 1.0], [0.0, 1.0]], [0.5, 0.5])
        with refuses(ValueError, "weights must have shape (2,), got (3,), while kernel has shape (2, 2)"):
            contraction.overshoot_limit(np.eye(2), np.full(3, 1 / 3))


class TestJacobian:
    """I - alpha K D (I - gamma P_pi) moves differences while the greedy policy of both tables is pi."""

    @given(case=kernel_cases())
    @few
    def test_against_loops(self, case):
        mdp, n = case["mdp"], case["mdp"].n_pairs
        policy = case["rng"].integers(mdp.n_actions, size=mdp.n_states)
        chain, K, rho = oracles.chain(mdp, policy), case["kernel"], case["weights"]
        expected = np.zeros((n, n))
        for i, j in itertools.product(range(n), repeat=2):
            pull = sum(K[i][k] * rho[k] * ((k == j) - mdp.gamma * chain[k][j]) for k in range(n))
            expected[i, j] = (i == j) - case["alpha"] * pull
        found = contraction.jacobian(mdp, **only(case, "kernel", "weights", "alpha"), policy=policy)
        np.testing.assert_allclose(found, expected, atol=1e-11)

    @given(case=kernel_cases(), rng=generators())
    @few
    def test_differences_inside_a_region(self, case, rng):
        mdp = case["mdp"]
        policy = rng.integers(mdp.n_actions, size=mdp.n_states)
        Q1 = tables(mdp, rng)
        Q1[np.arange(mdp.n_states), policy] = Q1.max(axis=1) + 1.0
        Q2 = Q1 + 0.4 * (2 * rng.random(Q1.shape) - 1)
        there = only(case, "kernel", "weights", "alpha")
        found = contraction.jacobian(mdp, **there, policy=policy) @ (Q1 - Q2).ravel()
        after = updates.kernel_update(Q1, mdp, **there) - updates.kernel_update(Q2, mdp, **there)
        np.testing.assert_allclose(after.ravel(), found, atol=1e-10)

    def test_a_random_policy_averages(self):
        mdp = FiniteMDP(np.ones((1, 2, 1)), np.zeros((1, 2)), 0.5)
        there = {"kernel": np.eye(2), "weights": [0.5, 0.5], "alpha": 1.0}
        mixed = contraction.jacobian(mdp, **there, policy=[[0.25, 0.75]])
        pure = [contraction.jacobian(mdp, **there, policy=[a]) for a in (0, 1)]
        np.testing.assert_allclose(mixed, 0.25 * pure[0] + 0.75 * pure[1])

    @pytest.mark.parametrize("function", ["jacobian", "exact_modulus", "max_step_size", "weighted_modulus",
                                          "modulus_witness", "joint_spectral_radius", "box_images"])  # fmt: skip
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"kernel": np.eye(3)},
                "kernel must have shape (2, 2), got (3, 3), while mdp has n_states = 2 and n_actions = 1",
            ),
            ({"weights": [0.5, 0.6]}, "weights must be a distribution: its entries sum to 1.1, not to 1"),
            (
                {"weights": [1.0]},
                "weights must have shape (2,), got (1,), while mdp has n_states = 2 and n_actions = 1",
            ),
            ({"alpha": 0}, "alpha must be in (0, inf), got 0"),
        ],
    )
    def test_refuses(self, function, changes, message):
        there = {"kernel": np.eye(2), "weights": [0.5, 0.5], "alpha": 1.0} | changes
        if function == "max_step_size":
            if "alpha" in changes:
                return
            there.pop("alpha")
        there |= {"jacobian": {"policy": [0, 0]}, "joint_spectral_radius": {"depth": 1}}.get(function, {})
        with refuses(ValueError, message):
            getattr(contraction, function)(loops(0.9), **there)


class TestExactModulus:
    """The smallest Lipschitz constant is the largest sup norm of a Jacobian, found row by row; a pair attains it."""

    @given(case=kernel_cases(**SMALL))
    @settings(max_examples=100)
    def test_against_every_policy(self, case):
        there = only(case, "mdp", "kernel", "weights", "alpha")
        assert contraction.exact_modulus(**there) == pytest.approx(oracles.lipschitz(**there), abs=1e-10)

    @given(case=kernel_cases())
    @few
    def test_is_attained(self, case):
        there = only(case, "mdp", "kernel", "weights", "alpha")
        witness, exact = contraction.modulus_witness(**there), contraction.exact_modulus(**there)
        assert witness.modulus == exact
        assert sup(witness.Q1 - witness.Q2) == 0.25
        for Q in (witness.Q1, witness.Q2):
            assert bellman.greedy_policy(Q).tolist() == witness.policy.tolist()
        after = [updates.kernel_update(Q, case["mdp"], **only(case, "kernel", "weights", "alpha"))
                 for Q in (witness.Q1, witness.Q2)]  # fmt: skip
        gap = np.abs(after[0] - after[1]).ravel()
        assert gap.max() / 0.25 == pytest.approx(exact, rel=1e-9)
        assert gap[witness.row] == pytest.approx(gap.max())

    @given(case=kernel_cases(), rng=generators(), integers=st.booleans())
    @few
    def test_is_never_exceeded(self, case, rng, integers):
        exact = contraction.exact_modulus(**only(case, "mdp", "kernel", "weights", "alpha"))
        Q1, Q2 = tables(case["mdp"], rng, integers=integers), tables(case["mdp"], rng, integers=integers) + 0.5
        assert stretch(case, Q1, Q2) <= exact + 1e-9
        assert exact <= bound(case) + 1e-9

    @given(case=kernel_cases(weights=("zeros", "point")))
    @few
    def test_never_below_one_without_data(self, case):
        assume(case["mdp"].n_pairs > 1)
        assert contraction.exact_modulus(**only(case, "mdp", "kernel", "weights", "alpha")) >= 1 - 1e-12

    def test_many_pairs(self, rng):
        """More pairs than fit in one block of rows: one action, so that there is one Jacobian."""
        mdp = random_mdp(600, 1, gamma=0.9, branching=3, rng=rng, sparse=True)
        K, rho = np.eye(600) + rng.standard_normal((600, 600)) / 2000, rng.dirichlet(np.ones(600))
        K[590] *= 3  # the critical row is in the last block
        chain = oracles.chain_of_one_action(mdp)
        expected = sup_rows(np.eye(600) - 2.0 * (K * rho) @ (np.eye(600) - 0.9 * chain))
        there = {"kernel": K, "weights": rho}
        assert contraction.exact_modulus(mdp, **there, alpha=2.0) == pytest.approx(expected, rel=1e-12)
        witness = contraction.modulus_witness(mdp, **there, alpha=2.0)
        assert stretch({"mdp": mdp, "alpha": 2.0} | there, witness.Q1, witness.Q2) == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("coupling", "weights", "mdp", "beta", "exact"),
        [
            (0.04, (0.5, 0.5), all_to(1, 0.9), 0.988, 0.988),
            (0.5, (0.5, 0.5), loops(0.9), 1.425, 0.975),
            (0.5, (0.8, 0.2), loops(0.9), 1.74, 1.02),
            (0.08, (0.5, 0.5), all_to(1, 0.9), 1.026, 1.026),
            (0.99, (0.5, 0.5), loops(0.99), 1.98005, 0.99995),
        ],
    )
    def test_known_values(self, coupling, weights, mdp, beta, exact):
        case = pair_case([[1, coupling], [coupling, 1]], weights, mdp)
        assert bound(case) == pytest.approx(beta)
        assert contraction.exact_modulus(**case) == pytest.approx(exact)


def sup_rows(matrix):
    return np.abs(matrix).sum(axis=1).max()


class TestMaxStepSize:
    """The modulus is below 1 on an interval of step sizes from 0, and nowhere else; 0.0 says that it is empty."""

    @given(case=kernel_cases(**SMALL))
    @settings(max_examples=100)
    def test_interval(self, case):
        there = only(case, "mdp", "kernel", "weights")
        end = contraction.max_step_size(**there)
        if end == 0:
            pull = max(1e-9, np.abs(there["kernel"] @ np.diag(there["weights"])).max())
            for alpha in (1e-3 / pull, 1e-1 / pull, 1 / pull, 3 / pull):
                assert oracles.lipschitz(**there, alpha=alpha) >= 1 - 1e-9
        else:
            for share in (0.01, 0.5, 0.999):
                assert oracles.lipschitz(**there, alpha=share * end) < 1
            assert oracles.lipschitz(**there, alpha=end) == pytest.approx(1, abs=1e-9)
            assert oracles.lipschitz(**there, alpha=1.001 * end) > 1

    def test_closed_forms(self):
        K = np.array([[1, 0.5], [0.5, 1]])
        assert contraction.max_step_size(loops(0.9), kernel=K, weights=[0.5, 0.5]) == pytest.approx(80 / 3)
        table = random_two_actions(0.5)
        assert contraction.max_step_size(table, kernel=np.eye(4), weights=np.full(4, 0.25)) > 4
        assert contraction.max_step_size(loops(0.9), kernel=K, weights=[1.0, 0.0]) == 0.0
        assert contraction.max_step_size(loops(0.9), kernel=np.zeros((2, 2)), weights=[0.5, 0.5]) == 0.0

    def test_both_sides_occur(self, rng):
        mdp = random_two_actions(0.5)
        ends = [
            contraction.max_step_size(mdp, kernel=make_kernel(kind, 4, rng), weights=np.full(4, 0.25))
            for kind in ("dominant", "gram", "singular")
        ]
        assert ends[0] > 0 == ends[2]

    def test_many_pairs(self, rng):
        mdp = random_mdp(300, 1, gamma=0.5, branching=3, rng=rng)
        K = np.eye(300)
        K[290, 290] = 4.0  # the row that ends the interval is in the second block
        there = {"kernel": K, "weights": np.full(300, 1 / 300)}
        end = contraction.max_step_size(mdp, **there)
        assert contraction.exact_modulus(mdp, **there, alpha=end) == pytest.approx(1)
        K[295, 0] = 9.0
        assert contraction.max_step_size(mdp, **there | {"kernel": K}) == 0.0


def random_two_actions(gamma):
    return random_mdp(2, 2, gamma=gamma, branching=2, rng=np.random.default_rng(8))


class TestWeightedModulus:
    """lambda* is the best constant over all weighted sup norms, and comes with weights that certify it."""

    @given(case=kernel_cases(**SMALL))
    @few
    def test_the_certificate(self, case):
        there = only(case, "mdp", "kernel", "weights", "alpha")
        value, w = norms.weighted_modulus(**there)
        assert w.max() == pytest.approx(1)
        assert w.min() > 0
        for policy in oracles.policies(case["mdp"]):
            J = contraction.jacobian(**there, policy=policy)
            assert (np.abs(J) @ w <= value * w * (1 + 1e-9)).all()
        assert value <= contraction.exact_modulus(**there) + 1e-9

    @given(rng=generators(), kind=st.sampled_from(["gram", "unsymmetric", "dominant"]))
    @few
    def test_against_every_selection_of_rows(self, rng, kind):
        """Nonlinear Perron-Frobenius: the largest spectral radius of a matrix made of rows of the |J_pi|."""
        mdp = random_mdp(2, 2, gamma=0.9, branching=2, rng=rng)
        there = {"mdp": mdp, "kernel": make_kernel(kind, 4, rng), "weights": rng.dirichlet(np.full(4, 3)), "alpha": 0.7}
        rows = np.array([np.abs(contraction.jacobian(**there, policy=policy)) for policy in oracles.policies(mdp)])
        radii = [
            np.abs(np.linalg.eigvals(rows[list(chosen), range(4)])).max()
            for chosen in itertools.product(range(4), repeat=4)
        ]
        assert norms.weighted_modulus(**there)[0] == pytest.approx(max(radii), rel=1e-7)

    def test_known_values(self):
        case = pair_case([[1, 0.5], [0.5, 1]], [0.8, 0.2], loops(0.9))
        value, w = norms.weighted_modulus(**case)
        expected = np.abs(np.linalg.eigvals(np.eye(2) - 0.1 * case["kernel"] @ np.diag([0.8, 0.2]))).max()
        assert value == pytest.approx(expected, abs=1e-4)
        assert 0.98 < value < 1 < contraction.exact_modulus(**case)
        assert w[0] < 0.2

    def test_refuses(self):
        with refuses(ValueError, "max_iter must be in [1, inf), got 0"):
            norms.weighted_modulus(loops(0.9), kernel=np.eye(2), weights=[0.5, 0.5], alpha=1, max_iter=0)


class TestJointSpectralRadius:
    """lower <= joint spectral radius <= upper <= lambda* <= exact modulus <= row-sum bound."""

    @given(case=kernel_cases(**SMALL))
    @few
    def test_order(self, case):
        there = only(case, "mdp", "kernel", "weights", "alpha")
        assume(len(oracles.policies(case["mdp"])) <= 4)
        lower, upper = norms.joint_spectral_radius(**there, depth=3)
        value, _ = norms.weighted_modulus(**there)
        assert lower <= upper * (1 + 1e-9)
        assert (
            upper <= value * (1 + 1e-9) <= contraction.exact_modulus(**there) * (1 + 2e-9) <= bound(case) * (1 + 3e-9)
        )

    @given(case=kernel_cases(max_states=2, max_actions=2))
    @settings(max_examples=20)
    def test_against_products(self, case):
        there = only(case, "mdp", "kernel", "weights", "alpha")
        factors = [contraction.jacobian(**there, policy=policy) for policy in oracles.policies(case["mdp"])]
        singles = [np.abs(np.linalg.eigvals(J)).max() for J in factors]
        doubles = [np.abs(np.linalg.eigvals(A @ B)).max() ** 0.5 for A in factors for B in factors]
        assert norms.joint_spectral_radius(**there, depth=1)[0] == pytest.approx(max(singles), abs=1e-6)
        found = norms.joint_spectral_radius(**there, depth=2)[0]
        assert found == pytest.approx(max(singles + doubles), abs=1e-5)

    def test_one_policy(self):
        case = pair_case([[1, 0.08], [0.08, 1]], [0.5, 0.5], all_to(1, 0.9))
        radius = np.abs(np.linalg.eigvals(contraction.jacobian(**case, policy=[0, 0]))).max()
        lower, upper = norms.joint_spectral_radius(**case, depth=60)
        assert lower == pytest.approx(radius)
        assert radius <= upper < 1 < norms.weighted_modulus(**case)[0]

    def test_no_norm_although_every_policy_is_stable(self):
        mdp = FiniteMDP(np.ones((1, 2, 1)), np.zeros((1, 2)), 0.9)
        there = {"kernel": np.array([[1, 0.95], [0.95, 3.3]]), "weights": np.array([0.89, 0.11]), "alpha": 6.6}
        for action in (0, 1):
            assert np.abs(np.linalg.eigvals(contraction.jacobian(mdp, **there, policy=[action]))).max() < 1
        assert norms.joint_spectral_radius(mdp, **there, depth=2)[0] > 1

    def test_refuses(self):
        many = random_mdp(10, 2, gamma=0.9, branching=2, rng=np.random.default_rng(0))
        there = {"kernel": np.eye(20), "weights": np.full(20, 0.05), "alpha": 1.0}
        message = "depth must leave at most 1000000 products: 1024 policies to the power 2 are more"
        with refuses(ValueError, message):
            norms.joint_spectral_radius(many, **there, depth=2)
        with refuses(ValueError, "depth must be in [1, inf), got 0"):
            norms.joint_spectral_radius(many, **there, depth=0)


class TestBoxImages:
    """The corners of the unit square under each Jacobian; how far they stick out is the exact modulus."""

    def test_corners(self):
        mdp = FiniteMDP(np.ones((1, 2, 1)), np.zeros((1, 2)), 0.9)
        there = {"kernel": np.array([[9.0, 2.5], [2.5, 1.0]]), "weights": np.array([0.2, 0.8]), "alpha": 0.1}
        images = contraction.box_images(mdp, **there)
        assert images.shape == (2, 4, 2)
        for policy, image in enumerate(images):
            J = contraction.jacobian(mdp, **there, policy=[policy])
            for corner, point in zip([(1, 1), (-1, 1), (-1, -1), (1, -1)], image, strict=True):
                np.testing.assert_allclose(point, J @ corner)
        assert sup(images) == pytest.approx(contraction.exact_modulus(mdp, **there))

    def test_refuses(self):
        with refuses(ValueError, "mdp must have two state-action pairs, it has 3"):
            contraction.box_images(loops(0.9, 3), kernel=np.eye(3), weights=np.full(3, 1 / 3), alpha=1)


def two_states_one_weight(reward, gamma):
    """Both actions of the first state lead to the second, whose actions end the episode."""
    P = np.zeros((2, 2, 2))
    P[0, :, 1] = 1
    return FiniteMDP(P, np.array([[reward, reward], [0.0, 0.0]]), gamma), np.array([[1.0], [1.0], [2.0], [-2.0]])


class TestLinearFixedPoints:
    """Every parameter vector that the expected semi-gradient step leaves where it is: none, one or several."""

    @pytest.mark.parametrize(
        ("gamma", "expected"), [(0.5, [[0.5]]), (5 / 6, []), (0.9, [[-2.5]])], ids=["stable", "none", "unstable"]
    )
    def test_prediction(self, gamma, expected):
        mdp = process([[0, 1], [0, 1]], gamma, np.array([[1.0], [0.0]]))
        found = updates.linear_fixed_points([[1.0], [2.0]], mdp, weights=[0.5, 0.5])
        assert found.shape == (len(expected), 1)
        np.testing.assert_allclose(found, np.reshape(expected, (-1, 1)))

    @pytest.mark.parametrize(
        ("reward", "gamma", "expected"), [(1, 0.9, []), (-1, 0.9, [-1 / 2.8, 1.25]), (1, 0.25, [2.0])]
    )
    def test_a_maximum_makes_none_or_two(self, reward, gamma, expected):
        """0 = r + 2 gamma |theta| - theta, solved by hand on each side of zero."""
        mdp, phi = two_states_one_weight(float(reward), gamma)
        found = updates.linear_fixed_points(phi, mdp, weights=[0.5, 0.5, 0, 0])
        np.testing.assert_allclose(found.ravel(), expected, atol=1e-9)

    @given(case=kernel_cases(**SMALL, weights=("uniform", "random")), d=st.integers(1, 3))
    @few
    def test_each_stays_where_it_is(self, case, d):
        mdp, rng = case["mdp"], case["rng"]
        phi = rng.standard_normal((mdp.n_pairs, d))
        for theta in updates.linear_fixed_points(phi, mdp, weights=case["weights"]):
            stepped = updates.linear_step(theta, phi, mdp, weights=case["weights"], alpha=0.1)
            np.testing.assert_allclose(stepped, theta, atol=1e-7 * max(1.0, sup(theta)))

    @given(case=kernel_cases(**SMALL, kinds=("dense", "terminating", "sparse"), weights=("uniform",)))
    @settings(max_examples=20)
    def test_a_table_has_the_optimum_alone(self, case):
        mdp = case["mdp"]
        found = updates.linear_fixed_points(np.eye(mdp.n_pairs), mdp, weights=case["weights"])
        assert len(found) == 1
        np.testing.assert_allclose(found[0], oracles.best_table(mdp).ravel(), atol=1e-8)

    def test_refuses(self):
        big = random_mdp(17, 2, gamma=0.9, branching=2, rng=np.random.default_rng(0))
        with refuses(ValueError, "mdp must have at most 100000 deterministic policies here, it has 131072"):
            updates.linear_fixed_points(np.eye(34), big, weights=np.full(34, 1 / 34))
        with refuses(
            ValueError, "features must have shape (2, any), got (3, 1), while mdp has n_states = 2 and n_actions = 1"
        ):
            updates.linear_fixed_points(np.ones((3, 1)), loops(0.9), weights=[0.5, 0.5])


class TestSequences:
    """Iterates stay within (1+beta) s / (1-beta) of a centre and d / (1-beta) behind a moving one; both tight."""

    @given(rng=generators(), beta=st.sampled_from([0.1, 0.5, 0.9]))
    @settings(max_examples=25)
    def test_tracking(self, rng, beta):
        x, tail = 5.0, []
        for k in range(400):
            centre = rng.uniform(-0.7, 0.7)
            x = centre + rng.uniform(-beta, beta) * (x - centre)
            tail += [abs(x)] if k > 300 else []
        assert max(tail) <= norms.tracking_bound(beta, spread=0.7) + 1e-9

    def test_tracking_is_tight(self):
        x = 0.0
        for k in range(200):
            centre = (-1.0) ** k
            x = centre - 0.5 * (x - centre)
        assert abs(x) == pytest.approx(norms.tracking_bound(0.5, spread=1)) == pytest.approx(3)

    def test_lag_is_tight(self):
        x, centre = 0.0, 0.0
        for _ in range(400):
            x = centre + 0.8 * (x - centre)
            centre += 0.1
        assert abs(x - centre) == pytest.approx(norms.lag_bound(0.8, drift=0.1)) == pytest.approx(0.5)

    def test_refuse(self):
        for function, name in ((norms.tracking_bound, "spread"), (norms.lag_bound, "drift")):
            with refuses(ValueError, "beta must be in [0, 1), got 1"):
                function(1, **{name: 1.0})
            with refuses(ValueError, f"{name} must be in [0, inf), got -1.0"):
                function(0.5, **{name: -1.0})
