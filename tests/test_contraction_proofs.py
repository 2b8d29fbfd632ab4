"""What the proofs of chapter 4 construct, step by step: policies, fixed points, directions that never move."""

import re

import numpy as np
import pytest
from hypothesis import given

from divergence_notes import bellman, contraction, dynamics, examples, norms, updates, verdicts
from divergence_notes.mdp import FiniteMDP, random_mdp, stationary_distribution
from tests import oracles
from tests.strategies import kernel_cases, make_kernel, tables


def settings_of(case):
    return {name: case[name] for name in ("kernel", "weights", "alpha")}


def piece(mdp, kernel, weights, alpha, policy):
    """Return I - alpha K D (I - gamma P_pi)."""
    one = np.eye(mdp.n_pairs)
    return one - alpha * kernel @ np.diag(weights) @ (one - mdp.gamma * mdp.pair_transitions(policy))


class TestExactModulus:
    """thm-exact-modulus, "not more": one policy a row, picked by the sign of the inflow, bounds the difference."""

    @given(case=kernel_cases())
    def test_the_policy_of_each_row(self, case):
        mdp, rng = case["mdp"], case["rng"]
        n, n_states = mdp.n_pairs, mdp.n_states
        step = case["alpha"] * case["kernel"] * case["weights"]
        inflow = mdp.gamma * step @ oracles.dense(mdp).reshape(n, n_states)
        L = contraction.exact_modulus(mdp, **settings_of(case))
        for integers in (False, True):  # integers make ties
            first, second = case["Q"], tables(mdp, rng, integers=integers)
            apart = first - second
            moved = [updates.kernel_update(Q, mdp, **settings_of(case)).ravel() for Q in (first, second)]
            slack = 1e-9 * max(1, np.abs(moved).max())
            for low, high, left, right in ((first, second, *moved), (second, first, *moved[::-1])):
                for i in range(n):
                    greedy = np.where(inflow[i] >= 0, low.argmax(axis=1), high.argmax(axis=1))
                    J = piece(mdp, case["kernel"], case["weights"], case["alpha"], greedy)
                    bound = J[i] @ (low - high).ravel()
                    assert left[i] - right[i] <= bound + slack
                    assert bound <= L * np.abs(apart).max() + slack

    def test_the_other_choice_is_no_bound(self):
        """The pair: against the sign of the inflow the inequality of the proof fails."""
        pair = examples.full_data_divergence()
        first, second = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
        left = (pair.operator(first) - pair.operator(second)).ravel()
        bounds = [
            piece(pair.mdp, pair.kernel, pair.weights, pair.alpha, np.array([action])) @ (first - second).ravel()
            for action in (0, 1)
        ]
        assert (left <= bounds[0] + 1e-12).all()  # every inflow is positive: the action that is greedy in the first
        assert (left > bounds[1] + 0.1).all()

    def test_a_modulus_of_zero_has_two_tables_as_well(self):
        """A table with gamma = 0 and alpha = 1 forgets everything at once; the witness is still two tables."""
        mdp = FiniteMDP(np.ones((1, 2, 1)), np.ones((1, 2)), 0)
        given_ = {"kernel": 2 * np.eye(2), "weights": np.full(2, 0.5), "alpha": 1}
        found = contraction.modulus_witness(mdp, **given_)
        assert found.modulus == pytest.approx(0, abs=1e-12)
        assert np.abs(found.Q1 - found.Q2).max() == 0.25
        images = [updates.kernel_update(Q, mdp, **given_) for Q in (found.Q1, found.Q2)]
        np.testing.assert_array_equal(*images)


class TestWeightedNorm:
    """thm-weighted-norm: the same policy bounds a row in units of its own; no walk from piece to piece is needed."""

    @given(case=kernel_cases())
    def test_rows_in_their_own_units(self, case):
        mdp, rng = case["mdp"], case["rng"]
        w = rng.uniform(0.2, 5, mdp.n_pairs)
        size = np.abs(oracles.jacobians(mdp, case["kernel"], case["weights"], case["alpha"]))
        largest = (size @ w / w).max()
        first, second = case["Q"], tables(mdp, rng)
        before = np.abs((first - second).ravel() / w).max()
        images = [updates.kernel_update(Q, mdp, **settings_of(case)) for Q in (first, second)]
        after = np.abs((images[0] - images[1]).ravel() / w).max()
        assert after <= largest * before + 1e-9 * max(1, np.abs(images).max())


class TestPositiveSteps:
    """ch-contraction asks for alpha > 0: at 0 every table is a fixed point, whatever the kernel."""

    def test_zero_is_refused_and_would_be_no_contraction(self):
        calm = examples.sup_norm_only()
        assert (contraction.row_dominance(np.eye(2), calm.weights, gamma=0.9) > 0).all()  # both premises hold
        assert np.abs(oracles.jacobians(calm.mdp, np.eye(2), calm.weights, 0)).sum(axis=2).max() == 1
        Q = np.array([[3.0], [-1.0]])
        np.testing.assert_array_equal(oracles.kernel_update(Q, calm.mdp, np.eye(2), calm.weights, 0), Q)
        for function in (contraction.exact_modulus, contraction.jacobians, norms.weighted_modulus):
            with pytest.raises(ValueError, match=re.escape("alpha must be")):
                function(calm.mdp, kernel=np.eye(2), weights=calm.weights, alpha=0)
        with pytest.raises(ValueError, match=re.escape("alpha must be")):
            contraction.row_sum_bound(np.eye(2), calm.weights, alpha=0, gamma=0.9)


def singular_cases(rng, count):
    """Yield updates with a singular K D: a pair without data, few parameters, or a kernel that is not symmetric."""
    for turn in range(count):
        mdp = random_mdp(3, 2, gamma=(0, 0.5, 0.9)[turn % 3], branching=2, rng=rng)
        weights, kernel = rng.dirichlet(np.ones(6)), rng.standard_normal((6, 6))
        if turn % 2:
            weights[turn % 6] = 0
            weights /= weights.sum()
        else:
            kernel = kernel[:, :3] @ rng.standard_normal((3, 6)) if turn % 4 else kernel[:, :2] @ kernel[:, :2].T
        yield mdp, {"kernel": kernel, "weights": weights, "alpha": 0.3}


class TestSingular:
    """thm-singular: the table that is optimal for the rewards r - v, with K D v = 0, is a fixed point of the update."""

    def test_there_is_a_second_fixed_point(self, rng):
        for mdp, given_ in singular_cases(rng, 60):
            still = np.linalg.svd(given_["kernel"] * given_["weights"])[2][-1]
            tables_ = []
            for size in (0, 1, -4):
                paid = FiniteMDP(mdp.P, mdp.R - mdp.unflatten(size * still), mdp.gamma)
                tables_.append(bellman.policy_iteration(paid).Q)
                np.testing.assert_allclose(updates.kernel_update(tables_[-1], mdp, **given_), tables_[-1], atol=1e-9)
                error = mdp.flatten(bellman.optimality_backup(tables_[-1], mdp) - tables_[-1])
                np.testing.assert_allclose(error, size * still, atol=1e-9)  # v can be read off
            np.testing.assert_allclose(tables_[0], bellman.policy_iteration(mdp).Q, atol=1e-12)
            assert min(np.abs(tables_[0] - other).max() for other in tables_[1:]) > 0.05

    def test_two_tables_whose_difference_stays(self, rng):
        for mdp, given_ in singular_cases(rng, 60):
            policy = rng.integers(2, size=3)
            loop = np.eye(6) - mdp.gamma * oracles.chain(mdp, policy)
            x = np.linalg.svd(given_["kernel"] * given_["weights"] @ loop)[2][-1]
            second = mdp.policy_matrix(policy)
            first = second + mdp.unflatten(x) / 4
            moved = [updates.kernel_update(Q, mdp, **given_) for Q in (first, second)]
            np.testing.assert_allclose(moved[0] - moved[1], first - second, atol=1e-12)

    def test_nonsingular_no_other_table_rests(self, rng):
        for turn in range(60):
            mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
            kernel = make_kernel(("gram", "unsymmetric")[turn % 2], 6, rng)
            given_ = {"kernel": kernel, "weights": rng.dirichlet(np.ones(6)), "alpha": 0.3}
            best = bellman.policy_iteration(mdp).Q
            np.testing.assert_allclose(updates.kernel_update(best, mdp, **given_), best, atol=1e-9)
            lowest = np.linalg.svd(kernel * given_["weights"])[1][-1]
            Q = best + rng.standard_normal((3, 2))
            error = np.linalg.norm(bellman.optimality_backup(Q, mdp) - Q)
            moved = np.linalg.norm(updates.kernel_update(Q, mdp, **given_) - Q)
            assert error > 0.01 and moved >= 0.3 * lowest * error * (1 - 1e-9) > 0


class TestAmongWhichTables:
    """thm-singular speaks of all tables; on those that the features make the same update can contract, to one limit."""

    def test_w_to_2w(self):
        example = examples.w_to_2w(0.4)
        assert np.linalg.matrix_rank(example.kernel * example.weights) == 1
        for w in (-3.0, 0.5, 7.0):
            Q = np.array([[w], [2 * w]])
            np.testing.assert_allclose(example.operator(Q), (1 - 0.1 * (1 - 2 * 0.4)) * Q)
            assert np.abs(dynamics.iterate(example.operator, Q, max_iter=5000).values[-1]).max() < 1e-6
        for off in (1.0, -2.0):  # Q_2 - 2 Q_1 never moves
            end = dynamics.iterate(example.operator, [[0.0], [off]], max_iter=5000, tol=1e-12).values[-1]
            np.testing.assert_allclose(end, [[2 * off], [5 * off]], atol=1e-8)
        assert verdicts.verdicts(example).certified_by is None

    def test_the_limit_is_one_half(self):
        assert examples.w_to_2w(0.6).status == "diverged"
        assert examples.w_to_2w_threshold([1, 0]) == 0.5


def on_policy_case(rng):
    """Draw a process that goes everywhere, one policy, its stationary shares and features of full column rank."""
    mdp = random_mdp(3, 2, gamma=rng.choice([0.0, 0.5, 0.9, 0.99]), branching=3, rng=rng)
    chances = rng.dirichlet(np.ones(2), size=3)
    return mdp, chances, stationary_distribution(mdp, chances), rng.standard_normal((6, rng.integers(1, 7)))


class TestOnPolicy:
    """thm-on-policy: with stationary shares and one policy, short steps contract in the norm of the parameters."""

    def test_each_step_of_the_proof(self, rng):
        for _ in range(200):
            mdp, chances, rho, phi = on_policy_case(rng)
            chain, D = mdp.pair_transitions(chances), np.diag(rho)
            np.testing.assert_allclose(rho @ chain, rho, atol=1e-12)
            x = rng.standard_normal(6)
            length = x @ D @ x
            assert (chain @ x) @ D @ (chain @ x) <= length * (1 + 1e-9)
            assert x @ D @ (np.eye(6) - mdp.gamma * chain) @ x >= (1 - mdp.gamma) * length * (1 - 1e-9)
            B = phi.T @ D @ (np.eye(6) - mdp.gamma * chain) @ phi
            b = np.linalg.eigvalsh((B + B.T) / 2)[0]
            assert b > 0
            for share in (0.1, 0.5, 0.99):
                alpha = share * 2 * b / np.linalg.norm(B, 2) ** 2
                factor = np.linalg.norm(np.eye(len(B)) - alpha * B, 2)
                assert factor <= np.sqrt(1 - 2 * alpha * b + (alpha * np.linalg.norm(B, 2)) ** 2) + 1e-12 < 1 + 1e-11

    def test_off_policy_is_a_witness_outside(self):
        """w to 2w with both states trained equally often: the shares are not stationary, and every short step grows."""
        example = examples.w_to_2w(0.9, [0.5, 0.5])
        chain = oracles.chain(example.mdp, [0, 0])
        assert np.abs(example.weights @ chain - example.weights).max() > 0.4
        B = example.features.T @ np.diag(example.weights) @ (np.eye(2) - 0.9 * chain) @ example.features
        assert B.item() == pytest.approx(-0.2)

    @pytest.mark.parametrize(("alpha", "shares"), [(0.1, 1.140), (0.01, 1.0120), (0.001, 1.00118)])
    def test_the_norm_of_the_shares_is_another(self, alpha, shares):
        """Two states that change places: the step shrinks the parameters and stretches a difference of values."""
        mdp = FiniteMDP(np.array([[[0.0, 1.0]], [[1.0, 0.0]]]), np.zeros((2, 1)), 0.99)
        K, rho = np.array([[9.0, 2.9], [2.9, 1.0]]), np.full(2, 0.5)
        J = contraction.jacobian(mdp, kernel=K, weights=rho, alpha=alpha, policy=np.zeros(2, dtype=int))
        root = np.sqrt(rho)
        assert np.linalg.norm(root[:, None] * J / root, 2) == pytest.approx(shares, rel=1e-3)
        phi = np.linalg.cholesky(K)
        assert np.linalg.norm(np.linalg.solve(phi, J @ phi), 2) < 1

    def test_the_projected_backup_contracts_in_the_norm_of_the_shares(self, rng):
        for _ in range(50):
            mdp, chances, rho, phi = on_policy_case(rng)
            root = np.sqrt(rho)[:, None]
            q = np.linalg.qr(root * phi)[0]
            backup = root * (mdp.gamma * mdp.pair_transitions(chances)) / root.T
            assert np.linalg.norm(q @ q.T @ backup, 2) <= mdp.gamma + 1e-12


class TestModulusOne:
    """ch-contraction: with one policy the size of the largest eigenvalue tells the fate, except at 1 itself."""

    @pytest.mark.parametrize(
        ("kernel", "alpha", "status"),
        [
            (np.diag([1.0, 0.0]), 1.0, "converged"),  # eigenvalue 1: what never moves
            (np.diag([1.0, 0.5]), 4.0, "undecided"),  # eigenvalue -1: to and fro
            (np.array([[1.0, -1.0], [0.0, 0.0]]), 1.0, "converged"),
        ],
    )
    def test_at_one(self, kernel, alpha, status):
        mdp = FiniteMDP(np.zeros((2, 1, 2)), np.zeros((2, 1)), 0.9)
        given_ = {"kernel": kernel, "weights": np.full(2, 0.5), "alpha": alpha}
        J = contraction.jacobian(mdp, **given_, policy=np.zeros(2, dtype=int))
        assert np.abs(np.linalg.eigvals(J)).max() == pytest.approx(1)
        run = dynamics.iterate(lambda Q: updates.kernel_update(Q, mdp, **given_), [[1.0], [2.0]], max_iter=5000)
        assert run.status == status

    def test_a_defective_one_grows(self):
        """K D = [[0, 1], [0, 0]]: the second value pushes the first for ever, by the same amount."""
        mdp = FiniteMDP(np.zeros((2, 1, 2)), np.zeros((2, 1)), 0.9)
        given_ = {"kernel": np.array([[0.0, 2.0], [0.0, 0.0]]), "weights": np.full(2, 0.5), "alpha": 1.0}
        run = dynamics.iterate(lambda Q: updates.kernel_update(Q, mdp, **given_), [[0.0], [-1.0]], max_iter=100)
        np.testing.assert_allclose(np.diff(run.values[:, 0, 0]), 1)


def two_action_updates(rng, count, *, symmetric):
    """Draw go-on chances, discount, kernel and shares of one state with two actions; return G of both actions."""
    gamma, go_on, share = rng.uniform(0, 0.999, (count, 1, 1)), rng.random((count, 2)), rng.random(count)
    kernel = rng.standard_normal((count, 2, 2))
    kernel = kernel @ kernel.transpose(0, 2, 1) if symmetric else kernel
    moved = kernel * np.stack([share, 1 - share], axis=1)[:, None, :]
    G = np.empty((count, 2, 2, 2))
    for action in (0, 1):
        chain = np.zeros((count, 2, 2))
        chain[:, :, action] = go_on
        G[:, action] = moved @ (np.eye(2) - gamma * chain)
    return G


def discriminants(G):
    """Return the discriminant of each 2 x 2 matrix over its squared size: negative where no eigenvalue is real."""
    trace, det = G[..., 0, 0] + G[..., 1, 1], G[..., 0, 0] * G[..., 1, 1] - G[..., 0, 1] * G[..., 1, 0]
    return (trace**2 - 4 * det) / (G**2).sum(axis=(-1, -2))


class TestTwoActions:
    """thm-two-actions: symmetric semidefinite, one state, two actions, short steps: stable pieces run home together."""

    def test_one_piece_has_real_eigenvalues(self, rng):
        of_both = discriminants(two_action_updates(rng, 200_000, symmetric=True))
        assert of_both.max(axis=1).min() > -1e-12
        assert (of_both.min(axis=1) < -1e-3).sum() > 1000  # one of them may well turn

    def test_the_product_of_the_proof(self, rng):
        """R_1 R_2 is b^2 (1 - x y)^2 plus the square of the real part, and that is at least b^2 t u."""
        for _ in range(500):
            (a, d), (x, y) = rng.uniform(0.1, 3, 2), rng.uniform(0.01, 1, 2)
            b = rng.uniform(-1, 1) * np.sqrt(a * d)
            root = np.sqrt(a * d - b**2)
            R = (a * x**2 + d - 2 * x * root) * (a + d * y**2 - 2 * y * root)
            real = x * a + y * d - root * (1 + x * y)
            assert R == pytest.approx(b**2 * (1 - x * y) ** 2 + real**2, rel=1e-6, abs=1e-12)
            assert R >= b**2 * (1 - x**2) * (1 - y**2) - 1e-9

    def test_the_bound_is_close(self):
        """With p_1 = p_2 and the coupling chosen right, the discriminants of both pieces come close to 0."""
        gamma, p, best = 0.9, 0.8, np.inf
        for b in np.linspace(0.05, 0.999, 400):  # a = d = 1, rho = (1/2, 1/2)
            G = np.array([[1.0, b], [b, 1.0]]) @ (np.eye(2) - gamma * np.array([[p, 0.0], [p, 0.0]]))
            best = min(best, discriminants(G[None]).item())
        assert 0 <= best < 1e-3

    def test_without_symmetry_both_may_turn(self, rng):
        of_both = discriminants(two_action_updates(rng, 20_000, symmetric=False))
        assert (of_both.max(axis=1) < -1e-3).sum() > 100
        swing = examples.stable_pieces_divergence()
        pieces = contraction.jacobians(swing.mdp, **swing.settings)
        assert (discriminants(pieces) < 0).all()  # so that no step is too long for the theorem, and K alone is to blame

    def test_short_steps_run_home(self, rng):
        G = two_action_updates(rng, 3000, symmetric=True)
        alpha = rng.uniform(0.1, 0.999, len(G)) / np.abs(np.linalg.eigvals(G)).max(axis=(1, 2))
        J = np.eye(2) - alpha[:, None, None, None] * G
        values = np.linalg.eigvals(J)
        assert ((values.imag != 0) | (values.real > 0)).all()
        J = J[np.abs(values).max(axis=(1, 2)) < 0.98]
        assert len(J) > 500 and (discriminants(J) < -1e-3).any()
        turn = np.arange(16) * np.pi / 8 + 0.1
        Q = np.broadcast_to(np.stack([np.cos(turn), np.sin(turn)], axis=1), (len(J), 16, 2))
        for _ in range(2000):
            Q = np.where(
                (Q[..., 1] > Q[..., 0])[..., None], Q @ J[:, 1].transpose(0, 2, 1), Q @ J[:, 0].transpose(0, 2, 1)
            )
        assert np.abs(Q).max() < 1e-9
