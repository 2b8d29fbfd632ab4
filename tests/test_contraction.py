"""When an update contracts in the sup norm: bounds, exact constants, and the other side of each."""

import dataclasses
import itertools
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from divergence_notes import bellman, contraction, examples
from divergence_notes.mdp import FiniteMDP, random_mdp
from divergence_notes.updates import KernelUpdate, Update
from tests import oracles, oracles_exact
from tests.strategies import (
    FORMS,
    KERNELS,
    KINDS,
    WEIGHTS,
    generators,
    kernel_cases,
    make_kernel,
    make_mdp,
    make_update,
    make_weights,
    tables,
    update_cases,
)

few = settings(max_examples=50)
SMALL = {"max_states": 3, "max_actions": 2}


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


def sup(x):
    return float(np.abs(x).max())


def process(P, gamma):
    """Return a process with one action and no reward from the rows of its chain."""
    P = np.asarray(P, dtype=float)
    return FiniteMDP(P[:, None, :], np.zeros((len(P), 1)), gamma)


def all_to(state, gamma, n=2):
    return process(np.tile(np.eye(n)[state], (n, 1)), gamma)


def loops(gamma, n=2):
    return process(np.eye(n), gamma)


def on(mdp, kernel, weights, alpha=1.0):
    return KernelUpdate(mdp, kernel=np.array(kernel, dtype=float), weights=weights, alpha=alpha)


def moved(update, size=1.0):
    """Return c M: the update with steps of another length."""
    return Update(update.mdp, size * update.matrix, update.policy)


def stretch(update, Q1, Q2):
    """Return the distance after one update over the distance before it."""
    return sup(update(Q1) - update(Q2)) / sup(Q1 - Q2)


def bound(update):
    return contraction.row_sum_bound(update.kernel, update.weights, alpha=update.alpha, gamma=update.mdp.gamma)


class TestRowSumBound:
    """max_i sum_j |delta_ij - alpha K_ij rho_j| + gamma alpha |K_ij| rho_j bounds every stretch, for every process."""

    @given(case=kernel_cases())
    @few
    def test_against_loops(self, case):
        update, n = case.update, case.update.mdp.n_pairs
        K, rho, a, g = update.kernel, update.weights, update.alpha, update.mdp.gamma
        rows = [
            sum(abs((i == j) - a * K[i][j] * rho[j]) + g * a * abs(K[i][j]) * rho[j] for j in range(n))
            for i in range(n)
        ]
        assert bound(update) == pytest.approx(max(rows))

    @given(case=kernel_cases())
    @few
    def test_is_above_the_exact_constant(self, case):
        assert contraction.exact_modulus(case.update) <= bound(case.update) * (1 + 1e-12)

    @given(case=kernel_cases(**SMALL), chances=st.booleans())
    @few
    def test_is_above_that_of_any_policy(self, case, chances):
        held = make_update("chances" if chances else "policy", case.update, case.rng)
        assert oracles.lipschitz(held) <= bound(held) + 1e-9

    @given(rng=generators(), n=st.integers(1, 6), gamma=st.sampled_from([0, 0.5, 0.8, 0.9]))
    @few
    def test_no_bound_that_ignores_the_process_is_better(self, rng, n, gamma):
        """thm-sharp: attained when K >= 0, alpha K_ii rho_i <= 1 and every pair leads to the worst row's state."""
        K, rho = rng.random((n, n)), rng.dirichlet(np.ones(n))
        alpha = 1 / (K.diagonal() * rho).max()
        row = int((np.abs(np.eye(n) - alpha * K * rho) + gamma * alpha * K * rho).sum(axis=1).argmax())
        update = on(all_to(row, gamma, n), K, rho, alpha)
        assert contraction.exact_modulus(update) == pytest.approx(bound(update), rel=1e-12)
        assert oracles.lipschitz(update) == pytest.approx(bound(update))

    def test_and_with_two_actions(self, rng):
        for _ in range(30):
            K, rho = np.abs(rng.standard_normal((6, 6))), rng.dirichlet(np.ones(6))
            alpha = 1 / (np.diag(K) * rho).max()
            rows = [
                abs(1 - alpha * K[i, i] * rho[i])
                + alpha * sum(K[i, j] * rho[j] for j in range(6) if j != i)
                + alpha * 0.8 * sum(K[i, j] * rho[j] for j in range(6))
                for i in range(6)
            ]
            P = np.zeros((3, 2, 3))
            P[:, :, int(np.argmax(rows)) // 2] = 1.0
            update = on(FiniteMDP(P, np.zeros((3, 2)), 0.8), K, rho, alpha)
            assert contraction.exact_modulus(update) == pytest.approx(max(rows), rel=1e-12)
            assert bound(update) == pytest.approx(max(rows), rel=1e-12)

    def test_negative_entries_are_a_witness_outside(self):
        """With a negative entry the bound is above the modulus of every process of two states."""
        worst, update = 0.0, on(loops(0.9), [[1.0, -0.3], [-0.3, 1.0]], [0.5, 0.5])
        for p, q in itertools.product(np.linspace(0, 1, 11), repeat=2):
            mdp = process([[p, 1 - p], [q, 1 - q]], 0.9)
            worst = max(worst, contraction.exact_modulus(dataclasses.replace(update, mdp=mdp)))
        assert worst < 1 < bound(update)

    def test_wrong_index_is_no_bound(self):
        """With rho_i for rho_j the number falls below the exact constant."""
        update = on(all_to(0, 0.5), [[1, 0.5], [0.5, 1]], [0.0, 1.0])
        assert printed_with_the_wrong_index(update) == pytest.approx(1.25)
        assert oracles.lipschitz(update) == pytest.approx(1.75)
        assert bound(update) == pytest.approx(1.75)

    def test_wrong_index_certifies_what_expands(self):
        update = on(all_to(0, 0.1), [[1, 0.3], [0.3, 1]], [0.2, 0.8])
        assert printed_with_the_wrong_index(update) == pytest.approx(0.904)
        assert oracles.lipschitz(update) == pytest.approx(1.084)
        assert bound(update) >= 1.084 - 1e-12
        witness = contraction.modulus_witness(update)
        assert stretch(update, witness.Q1, witness.Q2) > 1

    @given(case=kernel_cases(kernels=("identity",)))
    @few
    def test_table(self, case):
        update = case.update
        assume(update.alpha * update.weights.max() <= 1)
        assert bound(update) == pytest.approx(1 - (1 - update.mdp.gamma) * update.alpha * update.weights.min())

    def test_a_large_step_can_still_contract(self):
        update = on(loops(0.5), np.eye(2), [0.5, 0.5], alpha=2.2 / 2)
        assert bound(update) < 1
        over = dataclasses.replace(update, alpha=2.2)  # alpha K_ii rho_i = 1.1 > 1
        assert bound(over) == pytest.approx(0.65)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"kernel": np.ones((2, 3))}, "kernel must have shape (n, n), got (2, 3)"),
            ({"weights": [1.0]}, "weights must have shape (2,), got (1,), while kernel has shape (2, 2)"),
            ({"weights": [0.5, 0.6]}, "weights must be a distribution: its entries sum to 1.1, not to 1"),
            ({"gamma": 1.0}, "gamma must be in [0, 1), got 1.0"),
            ({"alpha": 0}, "alpha must be in (0, inf), got 0"),
            ({"kernel": np.full((2, 2), 1.7e308)},
             "alpha must leave the rows of alpha K D below 2.25e+307, at 1 they are not"),
        ],
    )  # fmt: skip
    def test_refuses(self, changes, message):
        K, rho = changes.get("kernel", np.eye(2)), changes.get("weights", [0.5, 0.5])
        alpha, gamma = changes.get("alpha", 1.0), changes.get("gamma", 0.9)
        with refuses(ValueError, message):
            contraction.row_sum_bound(K, rho, alpha=alpha, gamma=gamma)
        if "alpha" not in message:
            with refuses(ValueError, message):
                contraction.row_dominance(K, rho, gamma=gamma)
            with refuses(ValueError, message):
                contraction.step_size_limit(K, rho, gamma=gamma)


def printed_with_the_wrong_index(update):
    K, rho, a, g = update.kernel, update.weights, update.alpha, update.mdp.gamma
    n = len(K)
    rows = [
        sum(abs((i == j) - a * K[i, j] * rho[i]) + a * g * abs(K[i, j]) * rho[j] for j in range(n)) for i in range(n)
    ]
    return max(rows)


class TestRowMargins:
    """Margins (1-g) K_ii rho_i - (1+g) sum_{j!=i} |K_ij| rho_j: all positive exactly if some step size has beta < 1."""

    @given(case=kernel_cases())
    @few
    def test_against_loops(self, case):
        K, rho, g, n = case.update.kernel, case.update.weights, case.update.mdp.gamma, case.update.mdp.n_pairs
        expected = [
            (1 - g) * K[i][i] * rho[i] - (1 + g) * sum(abs(K[i][j]) * rho[j] for j in range(n) if j != i)
            for i in range(n)
        ]
        np.testing.assert_allclose(contraction.row_dominance(K, rho, gamma=g), expected, atol=1e-12)

    @given(case=kernel_cases(), share=st.sampled_from([0.02, 0.5, 0.99, 1.01, 1.6]))
    @settings(max_examples=100)
    def test_with_the_step_size_limit_it_is_the_bound_below_one(self, case, share):
        K, rho, g = case.update.kernel, case.update.weights, case.update.mdp.gamma
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
        update = on(loops(0.5), np.eye(2), [1.0, 0.0])
        margins = contraction.row_dominance(update.kernel, update.weights, gamma=0.5)
        assert margins == pytest.approx([0.5, 0.0]) and margins.max() <= 0.5 and margins[1] == 0
        assert 1 <= bound(update) == pytest.approx(1.0)
        assert stretch(update, np.zeros((2, 1)), np.array([[0.0], [1.0]])) == 1.0

    def test_at_step_size_zero_both_premises_would_hold(self):
        """And nothing contracts: this is why ch-contraction asks for alpha > 0."""
        calm = examples.sup_norm_only().update
        assert (contraction.row_dominance(np.eye(2), calm.weights, gamma=0.9) > 0).all()
        assert oracles.lipschitz(Update(calm.mdp, 0 * calm.matrix)) == 1 <= contraction.exact_modulus(moved(calm, 0))

    @given(case=kernel_cases(kernels=("dominant",), weights=("uniform",), gammas=(0, 0.3, 0.5)))
    @few
    def test_certified_updates_run_to_the_optimum(self, case):
        K, rho, mdp, Q = case.update.kernel, case.update.weights, case.update.mdp, case.Q
        assume(contraction.row_dominance(K, rho, gamma=mdp.gamma).min() > 1e-3)
        limit = contraction.step_size_limit(K, rho, gamma=mdp.gamma)
        update = dataclasses.replace(case.update, alpha=0.9 * limit)
        beta, best = bound(update), oracles.best_table(mdp)
        assert beta < 1
        for _ in range(4):
            new = update(Q)
            assert sup(new - best) <= beta * sup(Q - best) + 1e-9
            Q = new


class TestOvershoot:
    """Without bootstrapping the update is stable exactly below 2 / lambda_max(K D)."""

    @given(case=kernel_cases(kernels=("identity", "gram"), weights=("uniform", "random")))
    @few
    def test_spectral_radius_crosses_one(self, case):
        KD = case.update.kernel @ np.diag(case.update.weights)
        limit = contraction.overshoot_limit(case.update.kernel, case.update.weights)
        for factor, stable in ((0.99, True), (1.01, False)):
            radius = np.abs(np.linalg.eigvals(np.eye(len(KD)) - factor * limit * KD)).max()
            assert (radius < 1) == stable

    @pytest.mark.parametrize(("factor", "grows"), [(0.9, False), (1.1, True)])
    def test_it_happens_with_gamma_zero(self, factor, grows):
        K, rho, Q = np.array([[2.0, 1.0], [1.0, 1.0]]), np.array([0.3, 0.7]), np.array([[1.0], [2.0]])
        update = on(loops(0), K, rho, factor * contraction.overshoot_limit(K, rho))
        for _ in range(100):
            Q = update(Q)
        assert (sup(Q) > 1e3) == grows and (sup(Q) < 1) != grows

    def test_refuses(self):
        with refuses(ValueError, "kernel must be symmetric positive definite, its lowest eigenvalue is -1"):
            contraction.overshoot_limit([[0.0, 1.0], [1.0, 0.0]], [0.5, 0.5])
        with refuses(ValueError, "kernel must be symmetric: kernel[0, 1] is 1, kernel[1, 0] is 0"):
            contraction.overshoot_limit([[1.0, 1.0], [0.0, 1.0]], [0.5, 0.5])
        with refuses(ValueError, "weights must have shape (2,), got (3,), while kernel has shape (2, 2)"):
            contraction.overshoot_limit(np.eye(2), np.full(3, 1 / 3))

    @pytest.mark.parametrize("units", [(1e-9, 1e-9), (1e9, 1e9), (1.0, 1e-6), (1e-100, 1e100)])
    def test_symmetric_in_any_units(self, units):
        """K[i, j] is in units of both pairs: one triangle alone is refused, and a rounded one is not."""
        scale = np.sqrt(np.outer(units, units))
        for lopsided in ([[1.0, 0.0], [0.9, 1.0]], [[1.0, 0.9], [0.0, 1.0]], [[1.0, 0.5], [0.501, 1.0]]):
            with pytest.raises(ValueError, match=r"^kernel must be symmetric: "):
                contraction.overshoot_limit(scale * lopsided, [0.5, 0.5])
        if units[0] == units[1]:  # elsewhere its lowest eigenvalue is rounding
            rounded = scale * [[1.0, 0.5], [0.5 + 1e-7, 1.0]]
            assert contraction.overshoot_limit(rounded, [0.5, 0.5]) * units[0] == pytest.approx(8 / 3, rel=1e-6)

    def test_neither_triangle_alone_is_the_answer(self):
        """A kernel of float32 is symmetric up to rounding: the limit is that of K D itself, rounded down."""
        K = np.array([[1.0, 0.5], [0.500004, 1.0]])
        highest = 0.5 * (1 + np.sqrt(0.5 * 0.500004))
        found = [contraction.overshoot_limit(kernel, [0.5, 0.5]) for kernel in (K, K.T)]
        assert found[0] == found[1] <= 2 / highest
        assert found[0] == pytest.approx(2 / highest, rel=1e-9)


class TestExactModulus:
    """thm-exact-modulus: the smallest Lipschitz constant is the largest sup norm of a Jacobian, found row by row."""

    @given(case=update_cases(max_states=4))
    @settings(max_examples=150)
    def test_against_every_policy(self, case):
        """Whatever the matrix; with a policy of its own, deterministic or not, that one alone."""
        want = oracles.lipschitz(case.update)
        assert contraction.exact_modulus(case.update) == pytest.approx(want, rel=1e-12, abs=1e-12)

    @pytest.mark.parametrize("kind", KINDS)
    def test_thousands(self, kind, rng):
        """Whatever the process, the kernel, the weights and the form."""
        sorts, worst = itertools.cycle(itertools.product(KERNELS, WEIGHTS)), 0.0
        for turn in range(500):
            (kernel, weights), shape = next(sorts), rng.integers(1, 4, size=2)
            mdp = make_mdp(kind, int(shape[0]), int(shape[1]), float(rng.choice([0.0, 0.5, 0.9, 0.99])), rng)
            K, rho = make_kernel(kernel, mdp.n_pairs, rng), make_weights(weights, mdp.n_pairs, rng)
            update = on(mdp, K, rho, float(rng.choice([0.1, 1.0, 3.0])))
            update = make_update(FORMS[turn // 6 % len(FORMS)], update, rng) if turn % 2 else update
            want, found = oracles.lipschitz(update), contraction.exact_modulus(update)
            worst = max(worst, abs(found - want) / max(1.0, want))
        assert worst <= 1e-12

    @given(case=update_cases(), integers=st.booleans())
    def test_is_never_exceeded(self, case, integers):
        update, exact = case.update, contraction.exact_modulus(case.update)
        for _ in range(5):
            Q1, Q2 = (tables(update.mdp, case.rng, integers=integers) for _ in range(2))
            assert sup(update(Q1) - update(Q2)) <= exact * sup(Q1 - Q2) + 1e-9 * max(1.0, exact)

    @given(case=kernel_cases(weights=("zeros", "point")))
    @few
    def test_never_below_one_without_data(self, case):
        assume(case.update.mdp.n_pairs > 1)
        assert contraction.exact_modulus(case.update) >= 1 - 1e-12

    def test_many_pairs(self, rng):
        """More pairs than fit in one block of rows: one action, so that there is one Jacobian."""
        mdp = random_mdp(600, 1, gamma=0.9, branching=3, rng=rng, sparse=True)
        K, rho = np.eye(600) + rng.standard_normal((600, 600)) / 2000, rng.dirichlet(np.ones(600))
        K[590] *= 3  # the critical row is in the last block
        update, chain = on(mdp, K, rho, 2.0), oracles.chain_of_one_action(mdp)
        expected = np.abs(np.eye(600) - 2.0 * (K * rho) @ (np.eye(600) - 0.9 * chain)).sum(axis=1).max()
        held = dataclasses.replace(update, policy=np.zeros(600, dtype=int))
        for one in (update, held):
            assert contraction.exact_modulus(one) == pytest.approx(expected, rel=1e-12)
            witness = contraction.modulus_witness(one)
            assert witness.row == 590 and stretch(one, witness.Q1, witness.Q2) == pytest.approx(expected)

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
        update = on(mdp, [[1, coupling], [coupling, 1]], weights)
        assert bound(update) == pytest.approx(beta)
        assert contraction.exact_modulus(update) == pytest.approx(exact)

    @pytest.mark.parametrize(
        ("name", "beta", "exact"),
        [
            ("row_dominant", 0.988, 0.988),
            ("sup_norm_only", 1.425, 0.975),
            ("closed_orbit", 4.3625, 4.3625),
            ("full_data_divergence", 1.362, 1.362),
        ],
    )
    def test_cast(self, name, beta, exact):
        update = getattr(examples, name)().update
        assert contraction.exact_modulus(update) == pytest.approx(exact)
        assert bound(update) == pytest.approx(beta)

    @pytest.mark.parametrize(("alpha", "want"), [(0.3, 0.97), (1, 0.9), (1.5, 0.5 + 1.35)])
    def test_table(self, alpha, want):
        """U1 on a swap: |1 - a| + a gamma; the same as U2 with uniform weights at twice the step size."""
        swap = process([[0, 1], [1, 0]], 0.9)
        assert contraction.exact_modulus(Update.table(swap, alpha=alpha)) == pytest.approx(want)
        assert contraction.exact_modulus(on(swap, np.eye(2), np.full(2, 0.5), 2 * alpha)) == pytest.approx(want)

    @given(case=update_cases(forms=("shares", "kernel", "any", "frozen", "preconditioned")))
    def test_the_policy_of_each_row(self, case):
        """The proof, "not more": one policy a row, picked by the sign of the inflow, bounds the difference."""
        update, mdp = case.update, case.update.mdp
        inflow = mdp.gamma * update.matrix @ oracles.dense(mdp).reshape(mdp.n_pairs, mdp.n_states)
        L = contraction.exact_modulus(update)
        for integers in (False, True):  # integers make ties
            first, second = case.Q, tables(mdp, case.rng, integers=integers)
            images = [update(Q).ravel() for Q in (first, second)]
            slack = 1e-9 * max(1, np.abs(images).max())
            for low, high, left, right in ((first, second, *images), (second, first, *images[::-1])):
                for i in range(mdp.n_pairs):
                    greedy = np.where(inflow[i] >= 0, low.argmax(axis=1), high.argmax(axis=1))
                    J = np.eye(mdp.n_pairs) - update.matrix @ (
                        np.eye(mdp.n_pairs) - mdp.gamma * oracles.chain(mdp, greedy)
                    )
                    most = J[i] @ (low - high).ravel()
                    assert left[i] - right[i] <= most + slack
                    assert most <= L * np.abs(first - second).max() + slack

    def test_the_other_choice_is_no_bound(self):
        """The pair: against the sign of the inflow the inequality of the proof fails."""
        pair = examples.full_data_divergence().update
        first, second = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
        left = (pair(first) - pair(second)).ravel()
        bounds = [J @ (first - second).ravel() for J in oracles.jacobians(pair)]
        assert (left <= bounds[0] + 1e-12).all()  # every inflow is positive: the action that is greedy in the first
        assert (left > bounds[1] + 0.1).all()


class TestWitness:
    """Two tables with one greedy policy that part by exactly the modulus."""

    @given(case=update_cases())
    def test_attains_the_modulus(self, case):
        update = case.update
        witness = contraction.modulus_witness(update)
        apart = (oracles.step(update, witness.Q1) - oracles.step(update, witness.Q2)).ravel()
        assert witness.modulus == contraction.exact_modulus(update)
        assert sup(witness.Q1 - witness.Q2) == 0.25
        assert abs(apart[witness.row]) == pytest.approx(0.25 * witness.modulus, rel=1e-9, abs=1e-12)
        assert np.abs(apart).max() == pytest.approx(0.25 * witness.modulus, rel=1e-9, abs=1e-12)
        if update.policy is not None:
            np.testing.assert_array_equal(witness.policy, update.policy)
            return
        for Q in (witness.Q1, witness.Q2):
            assert bellman.greedy_policy(Q).tolist() == witness.policy.tolist()

    def test_rows_in_blocks_give_the_same(self, rng):
        """More pairs than one block of rows holds."""
        mdp = random_mdp(150, 4, gamma=0.9, branching=3, rng=rng)
        update = on(mdp, rng.standard_normal((600, 600)), rng.dirichlet(np.ones(600)))
        witness = contraction.modulus_witness(update)
        J = update.jacobian(witness.policy)
        assert np.abs(J[witness.row]).sum() == pytest.approx(witness.modulus, rel=1e-12)
        others = [update.jacobian(rng.integers(4, size=150)) for _ in range(3)]
        assert all(np.abs(other).sum(axis=1).max() <= witness.modulus for other in others)

    def test_a_modulus_of_zero_has_two_tables_as_well(self):
        """A table with gamma = 0 and alpha = 1 forgets everything at once; the witness is still two tables."""
        mdp = FiniteMDP(np.ones((1, 2, 1)), np.ones((1, 2)), 0)
        for update in (on(mdp, 2 * np.eye(2), np.full(2, 0.5)), Update.table(mdp, alpha=1)):
            found = contraction.modulus_witness(update)
            assert found.modulus == pytest.approx(0, abs=1e-12)
            assert sup(found.Q1 - found.Q2) == 0.25
            np.testing.assert_array_equal(update(found.Q1), update(found.Q2))


def random_two_actions(gamma):
    return random_mdp(2, 2, gamma=gamma, branching=2, rng=np.random.default_rng(8))


class TestMaxScale:
    """thm-largest-step: the modulus of Q + c M (T*Q - Q) is below 1 for c between 0 and an end, or for no c: 0.0."""

    @given(case=update_cases(max_states=3))
    @settings(max_examples=150)
    def test_interval(self, case):
        """Whatever the matrix, and whichever policy its targets follow."""
        update = case.update
        end = contraction.max_scale(update)
        if end == 0:
            pull = max(1e-9, sup(update.matrix))
            for size in (1e-3 / pull, 1e-1 / pull, 1 / pull, 3 / pull):
                assert oracles.lipschitz(moved(update, size)) >= 1 - 1e-9
        else:
            for share in (0.01, 0.5, 0.99, 0.999):
                assert oracles.lipschitz(moved(update, share * end)) < 1
            assert oracles.lipschitz(moved(update, end)) == pytest.approx(1, abs=1e-9)
            assert oracles.lipschitz(moved(update, 1.001 * end)) > 1

    @pytest.mark.parametrize("form", FORMS)
    def test_both_sides_occur(self, form, rng):
        """A matrix of any form with an interval, and one without; but a table always has one."""
        ends = set()
        for turn in range(60):
            mdp = random_mdp(2, 2, gamma=0.5, branching=2, rng=rng)
            kernel = make_kernel(("dominant", "unsymmetric")[turn % 2], 4, rng)
            parts = on(mdp, kernel, (np.full(4, 0.25), np.eye(4)[0])[turn % 4 // 2])
            update = make_update(form, parts, rng)
            if form == "any" and turn % 2:
                update = moved(Update(mdp, np.eye(4) + 0.05 * update.matrix))
            ends.add(contraction.max_scale(update) > 0)
        assert ends == ({True} if form == "table" else {True, False})

    def test_another_length(self, rng):
        """An interval of matrices twice as large is half as long."""
        update = on(loops(0.9), [[1, 0.5], [0.5, 1]], [0.5, 0.5])
        for size in (2.0, 1e-9, 1e12):
            assert contraction.max_scale(moved(update, size)) * size == pytest.approx(80 / 3, rel=1e-12)

    def test_a_table(self):
        """2 / (1 + gamma) on a swap; a policy of its own takes part of the reasons away."""
        swap = process([[0, 1], [1, 0]], 0.9)
        assert contraction.max_scale(Update.table(swap, alpha=1)) == pytest.approx(2 / 1.9)

    def test_one_policy_may_have_an_interval_where_all_have_none(self):
        """The pair: its second action alone runs home, in the sup norm too if the coupling is weak."""
        pair = dataclasses.replace(examples.full_data_divergence().update, kernel=[[1.0, 0.2], [0.0, 1.0]])
        ends = [contraction.max_scale(dataclasses.replace(pair, policy=[action])) for action in (0, 1)]
        assert contraction.max_scale(pair) == 0 == min(ends) < max(ends)


class TestMaxStepSize:
    """The same, of the kernel: in units of alpha, whatever alpha the update has."""

    @given(case=kernel_cases(max_states=3))
    def test_is_the_scale_at_step_size_one(self, case):
        end = contraction.max_step_size(case.update)
        assert end == contraction.max_step_size(dataclasses.replace(case.update, alpha=0.123))
        scale = contraction.max_scale(case.update) * case.update.alpha
        assert end == pytest.approx(scale, rel=1e-12)
        if end > 0:
            assert oracles.lipschitz(dataclasses.replace(case.update, alpha=0.999 * end)) < 1
            assert oracles.lipschitz(dataclasses.replace(case.update, alpha=1.001 * end)) > 1

    def test_closed_forms(self):
        K = np.array([[1, 0.5], [0.5, 1]])
        assert contraction.max_step_size(on(loops(0.9), K, [0.5, 0.5])) == pytest.approx(80 / 3)
        assert contraction.max_step_size(examples.sup_norm_only().update) == pytest.approx(80 / 3)
        assert contraction.max_step_size(on(random_two_actions(0.5), np.eye(4), np.full(4, 0.25))) > 4
        assert contraction.max_step_size(on(loops(0.9), K, [1.0, 0.0])) == 0.0
        assert contraction.max_step_size(on(loops(0.9), np.zeros((2, 2)), [0.5, 0.5])) == 0.0
        swap = process([[0, 1], [1, 0]], 0.9)  # a table with U2: 2 / ((1 + gamma) rho_max)
        assert contraction.max_step_size(on(swap, np.eye(2), [0.2, 0.8])) == pytest.approx(2 / (1.9 * 0.8))
        assert contraction.max_step_size(on(swap, np.eye(2), [1.0, 0.0])) == 0

    def test_both_sides_occur(self, rng):
        mdp = random_two_actions(0.5)
        ends = [
            contraction.max_step_size(on(mdp, make_kernel(kind, 4, rng), np.full(4, 0.25)))
            for kind in ("dominant", "gram", "singular")
        ]
        assert ends[0] > 0 == ends[2]

    def test_coupling_parts_the_sides(self, rng):
        """Random weakly coupled kernels give intervals, strongly coupled ones none."""
        mdp, noise = random_mdp(3, 2, gamma=0.5, branching=2, rng=rng), rng.standard_normal((6, 6))
        found = [contraction.max_step_size(on(mdp, np.eye(6) + c * noise, np.full(6, 1 / 6))) for c in (0.01, 1)]
        assert found[0] > 0 and found[1] == 0

    def test_a_kernel_of_any_size(self):
        """Only the product alpha K counts: a kernel c times as large has an interval 1/c times as long."""
        calm = examples.sup_norm_only().update
        for size in (1e12, 1e-6, 1e-14):
            found = contraction.max_step_size(dataclasses.replace(calm, kernel=size * calm.kernel))
            assert found * size == pytest.approx(80 / 3, rel=1e-12)

    def test_many_pairs(self, rng):
        mdp = random_mdp(300, 1, gamma=0.5, branching=3, rng=rng)
        K = np.eye(300)
        K[290, 290] = 4.0  # the row that ends the interval is in the second block
        update = on(mdp, K, np.full(300, 1 / 300))
        end = contraction.max_step_size(update)
        assert contraction.exact_modulus(dataclasses.replace(update, alpha=end)) == pytest.approx(1)
        K[295, 0] = 9.0
        assert contraction.max_step_size(dataclasses.replace(update, kernel=K)) == 0.0


class TestBoxImages:
    """The corners of the unit square under each Jacobian; how far they stick out is the exact modulus."""

    @pytest.mark.parametrize(
        "name",
        ["row_dominant", "sup_norm_only", "weighted_norm_only", "some_norm_only", "closed_orbit",
         "full_data_divergence"],
    )  # fmt: skip
    def test_farthest_corner_is_the_modulus(self, name):
        update = getattr(examples, name)().update
        images = contraction.box_images(update)
        assert images.shape == (update.mdp.n_actions**update.mdp.n_states, 4, 2)
        assert np.abs(images).max() == pytest.approx(oracles.lipschitz(update), rel=1e-12)

    @pytest.mark.parametrize("form", FORMS)
    def test_corners_are_images_of_corners(self, form, rng):
        update = make_update(form, examples.full_data_divergence().update, rng)
        images, jacobians = contraction.box_images(update), oracles.jacobians(update)
        assert len(images) == len(jacobians) == (1 if form in ("policy", "chances", "residual") else 2)
        for J, image in zip(jacobians, images, strict=True):
            for corner, end in zip([(1, 1), (-1, 1), (-1, -1), (1, -1)], image, strict=True):
                np.testing.assert_allclose(end, J @ corner, atol=1e-12)

    def test_another_shape(self):
        calm = examples.sup_norm_only().update
        shape = np.array([[2.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
        (J,) = oracles.jacobians(calm)
        np.testing.assert_allclose(
            contraction.box_images(calm, shape=shape), [[J @ corner for corner in shape]], atol=1e-14
        )

    @pytest.mark.parametrize("n", [1, 3])
    def test_refuses(self, n):
        with refuses(ValueError, f"update must be on two state-action pairs, its process has {n}"):
            contraction.box_images(Update.table(loops(0.9, n), alpha=1))


def coupled(rng, n, *, signed):
    """Return a kernel whose rows are dominant up to some discount, and a distribution."""
    K = 0.5 * rng.random((n, n)) / n * (rng.choice([-1.0, 1.0], (n, n)) if signed else 1.0)
    np.fill_diagonal(K, 1 + rng.random(n))
    return K, rng.dirichlet(np.full(n, 20.0))


class TestDiscountLimit:
    """eq-discount-limit: row dominance holds below it and not above."""

    @given(rng=generators())
    @few
    def test_parts_the_margins(self, rng):
        K, rho = coupled(rng, 4, signed=True)
        limit = contraction.discount_limit(K, rho)
        assert 0 < limit < 1
        assert contraction.row_dominance(K, rho, gamma=limit * (1 - 1e-9)).min() > 0
        assert contraction.row_dominance(K, rho, gamma=limit + 1e-9).min() < 0

    @given(rng=generators())
    @few
    def test_is_the_limit_of_the_worst_process(self, rng):
        """thm-sharp: below it every process contracts at a short step; above it one does not, at any step."""
        K, rho = coupled(rng, 4, signed=False)
        limit = contraction.discount_limit(K, rho)
        own = np.diag(K) * rho
        row = np.argmin((2 * own - K @ rho) / (K @ rho))
        P = np.zeros((2, 2, 2))
        P[:, :, row // 2] = 1.0  # every pair leads to the state of the critical row
        alpha = 1 / own.max()
        for P_below in (P, random_mdp(2, 2, gamma=0.0, branching=2, rng=rng).P):
            below = FiniteMDP(P_below, np.zeros((2, 2)), limit * (1 - 1e-9))
            assert contraction.exact_modulus(on(below, K, rho, alpha)) < 1
        above = FiniteMDP(P, np.zeros((2, 2)), limit + 1e-6)
        for factor in (1, 0.1, 1e-3):
            assert contraction.exact_modulus(on(above, K, rho, factor * alpha)) > 1

    def test_ends(self):
        assert contraction.discount_limit(np.eye(3), np.full(3, 1 / 3)) == 1
        assert contraction.discount_limit(np.eye(2), [1.0, 0.0]) == 0  # a pair without data
        assert contraction.discount_limit(-np.eye(2), [0.5, 0.5]) == 0
        assert contraction.discount_limit([[1.0, 0.0], [3.0, 1.0]], [0.5, 0.5]) == 0


class TestStableDiscount:
    """The first discount at which a policy's linear update drifts away."""

    @pytest.mark.parametrize("weights", [(1, 0), (0.5, 0.5), (0.2, 0.8)])
    def test_w_to_2w(self, weights):
        found = contraction.stable_discount(examples.w_to_2w(0.9, weights).update, points=999)
        threshold = examples.w_to_2w_threshold(weights)
        assert threshold - 1e-3 - 1e-9 <= found <= threshold + 1e-9

    def test_star(self):
        """Baird: 15/17, worked out by hand in chapter 4."""
        found = contraction.stable_discount(examples.baird_star().update, points=999)
        assert found == pytest.approx(15 / 17, abs=1e-3)

    def test_looks_at_every_policy(self):
        """The pair: its first action is unstable above 26/38, its second never."""
        pair = examples.full_data_divergence().update
        K, rho = pair.kernel, pair.weights
        limit = (K[0, 0] * rho[0] + rho[1]) / (K[0, 0] * rho[0] + K[0, 1] * rho[1])
        for order in ([0, 1], [1, 0]):  # whichever of the two comes first
            other = dataclasses.replace(pair, kernel=K[order][:, order], weights=rho[order])
            assert contraction.stable_discount(other, points=999) == pytest.approx(limit, abs=1e-3)
            held = [
                contraction.stable_discount(dataclasses.replace(other, policy=[action]), points=999)
                for action in order  # the first action of the pair, then its second
            ]
            assert held == pytest.approx([limit, 0.999], abs=1e-3)

    @given(case=update_cases(**SMALL), gamma=st.sampled_from([0.0, 0.9]))
    def test_against_every_policy(self, case, gamma):
        """Neither the length of the steps nor the discount of the process matters."""
        update, points = case.update, 9
        mdp = dataclasses.replace(update.mdp, gamma=gamma)
        want = 0.0
        for discount in np.arange(1, points + 1) / (points + 1):
            drifts = [
                update.matrix @ (discount * oracles.chain(mdp, policy) - np.eye(mdp.n_pairs))
                for policy in oracles.targets_of(update)
            ]
            worst = max(np.linalg.eigvals(drift).real.max() for drift in drifts)
            assume(abs(worst - 1e-9 * sup(update.matrix)) > 2e-10 * max(sup(update.matrix), 1e-3) or worst <= 0)
            if worst > 1e-9 * sup(update.matrix):
                break
            want = float(discount)
        found = contraction.stable_discount(Update(mdp, 0.3 * update.matrix, update.policy), points=points)
        assert found == want

    def test_ends(self):
        calm = examples.sup_norm_only().update
        assert contraction.stable_discount(calm, points=9) == pytest.approx(0.9)
        assert contraction.stable_discount(dataclasses.replace(calm, kernel=-calm.kernel)) == 0


def singular_updates(rng, count):
    """Yield updates with a singular K D: a pair without data, few parameters, or a kernel that is not symmetric."""
    for turn in range(count):
        mdp = random_mdp(3, 2, gamma=(0, 0.5, 0.9)[turn % 3], branching=2, rng=rng)
        weights, kernel = rng.dirichlet(np.ones(6)), rng.standard_normal((6, 6))
        if turn % 2:
            weights[turn % 6] = 0
            weights /= weights.sum()
        else:
            kernel = kernel[:, :3] @ rng.standard_normal((3, 6)) if turn % 4 else kernel[:, :2] @ kernel[:, :2].T
        yield on(mdp, kernel, weights, 0.3)


class TestSingularMatrix:
    """thm-singular: with M singular every Jacobian has the eigenvalue 1, and other tables rest beside the optimum."""

    def test_missing_pair_and_few_parameters(self, rng):
        for kind in ("missing", "few"):
            for _ in range(20):
                mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
                phi = rng.standard_normal((6, 6 if kind == "missing" else 4))
                weights = rng.dirichlet(np.ones(6))
                if kind == "missing":
                    weights[2] = 0
                    weights /= weights.sum()
                update = on(mdp, phi @ phi.T, weights, 0.3)
                J = update.jacobian(rng.integers(2, size=3))
                assert np.abs(np.linalg.eigvals(J) - 1).min() < 1e-9
                assert contraction.exact_modulus(update) >= 1 - 1e-12
                if kind == "missing":
                    least = 1 + 0.3 * 0.1 * np.abs(update.kernel[2]) @ weights
                    assert np.abs(J[2]).sum() >= least - 1e-12

    def test_there_is_a_second_fixed_point(self, rng):
        """The table that is optimal for the rewards r - v, with K D v = 0."""
        for update in singular_updates(rng, 60):
            mdp, still, tables_ = update.mdp, np.linalg.svd(update.kernel * update.weights)[2][-1], []
            for size in (0, 1, -4):
                paid = FiniteMDP(mdp.P, mdp.R - mdp.unflatten(size * still), mdp.gamma)
                tables_.append(bellman.policy_iteration(paid).Q)
                np.testing.assert_allclose(update(tables_[-1]), tables_[-1], atol=1e-9)
                error = mdp.flatten(bellman.optimality_backup(tables_[-1], mdp) - tables_[-1])
                np.testing.assert_allclose(error, size * still, atol=1e-9)  # v can be read off
            np.testing.assert_allclose(tables_[0], bellman.policy_iteration(mdp).Q, atol=1e-12)
            assert min(sup(tables_[0] - other) for other in tables_[1:]) > 0.05

    def test_two_tables_whose_difference_stays(self, rng):
        for update in singular_updates(rng, 60):
            mdp, policy = update.mdp, rng.integers(2, size=3)
            loop = np.eye(6) - mdp.gamma * oracles.chain(mdp, policy)
            x = np.linalg.svd(update.kernel * update.weights @ loop)[2][-1]
            second = mdp.policy_matrix(policy)
            first = second + mdp.unflatten(x) / 4
            np.testing.assert_allclose(update(first) - update(second), first - second, atol=1e-12)

    def test_nonsingular_no_other_table_rests(self, rng):
        for turn in range(60):
            mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
            kernel = make_kernel(("gram", "unsymmetric")[turn % 2], 6, rng)
            update = on(mdp, kernel, rng.dirichlet(np.ones(6)), 0.3)
            best = bellman.policy_iteration(mdp).Q
            np.testing.assert_allclose(update(best), best, atol=1e-9)
            lowest = np.linalg.svd(kernel * update.weights)[1][-1]
            Q = best + rng.standard_normal((3, 2))
            error = np.linalg.norm(bellman.optimality_backup(Q, mdp) - Q)
            step = np.linalg.norm(update(Q) - Q)
            assert error > 0.01 and step >= 0.3 * lowest * error * (1 - 1e-9) > 0


class TestAtTheEndsOfTheNumbers:
    """What underflows is counted as lost: it certifies nothing."""

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
        assert contraction.max_step_size(on(mdp, kernel, weights)) == 0.0  # its rows are equal

    def test_one_pair_of_the_least_size(self):
        mdp, one = FiniteMDP(np.ones((1, 1, 1)), np.zeros((1, 1)), 0.5), np.ones(1)
        for unit in (5e-324, 1e-310, 1e-300):
            kernel = np.array([[unit]])
            for_every_process, for_this = 2 / (Fraction(3, 2) * Fraction(unit)), 2 / (Fraction(1, 2) * Fraction(unit))
            assert Fraction(contraction.step_size_limit(kernel, one, gamma=0.5)) <= for_every_process
            assert Fraction(contraction.max_step_size(on(mdp, kernel, one))) <= for_this
            assert Fraction(contraction.max_scale(Update(mdp, kernel))) <= for_this
            assert contraction.discount_limit(kernel, one) == 1.0
