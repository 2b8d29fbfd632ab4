"""Updates of a whole table against explicit loops, against each other where they must agree, and where they rest."""

import dataclasses
import itertools
import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divergence_notes import dynamics, examples, features, updates
from divergence_notes.mdp import FiniteMDP, random_mdp
from divergence_notes.updates import KernelUpdate, Update
from tests import oracles
from tests.strategies import kernel_cases, make_update, tables, update_cases

few = settings(max_examples=50)
SMALL = {"max_states": 3, "max_actions": 2}


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


def all_to_second(gamma, rewards=(0.0, 0.0)):
    return FiniteMDP(np.array([[[0.0, 1.0]], [[0.0, 1.0]]]), np.reshape(rewards, (2, 1)).astype(float), gamma)


def equal(mdp, kernel=None, weights=(0.5, 0.5), alpha=0.1):
    """Return a kernel update on two pairs, the first parts of which do not matter."""
    return KernelUpdate(mdp, kernel=np.eye(2) if kernel is None else kernel, weights=weights, alpha=alpha)


def close(found, expected, *, rtol=1e-10):
    """Assert that two arrays agree up to the size of the larger entries."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=rtol * max(1.0, np.abs(expected).max(initial=0)))


def moves(update):
    """Return how much a step can cancel: the size of the matrix."""
    return max(1.0, np.abs(update.matrix).sum(axis=1).max())


class TestAnyMatrix:
    """U(Q) = Q + M (T*Q - Q) with any matrix, and T_pi in place of T* where the update has a policy."""

    @given(case=update_cases())
    def test_against_loops(self, case):
        before = case.Q.copy()
        expected = oracles.step(case.update, case.Q)
        np.testing.assert_allclose(case.update(case.Q), expected, rtol=0, atol=1e-12 * moves(case.update) * 30)
        np.testing.assert_array_equal(case.Q, before)

    @given(case=update_cases())
    @few
    def test_what_comes_back_is_a_new_array(self, case):
        """Whoever writes into a result changes neither the table, nor the process, nor the next result."""
        update, R = case.update, case.update.mdp.R.copy()
        first, before = update(case.Q), case.Q.copy()
        kept = first.copy()
        for array in (first, update._td_error(case.Q), update.jacobian(oracles.targets_of(update)[0])):
            array[...] = np.nan
        np.testing.assert_array_equal(update(case.Q), kept)
        np.testing.assert_array_equal(case.Q, before)
        np.testing.assert_array_equal(update.mdp.R, R)

    @pytest.mark.parametrize(
        ("name", "shape", "value"),
        [("matrix", (2, 2), 1.0), ("policy", (2, 1), 1.0), ("kernel", (2, 2), 1.0), ("weights", (2,), 0.5)],
    )
    def test_holds_read_only_copies(self, name, shape, value):
        mdp, mine = all_to_second(0.9), np.full(shape, value)
        whole = Update(mdp, np.eye(2)) if name == "matrix" else equal(mdp)
        update = dataclasses.replace(whole, **{name: mine})
        held = getattr(update, name)
        assert not np.shares_memory(held, mine)
        mine[...] = 7.0
        assert held.max() <= 1
        with pytest.raises(ValueError, match="read-only"):
            held[...] = 7.0
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(update, name, held)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"matrix": np.eye(3)}, "matrix must have shape (2, 2), got (3, 3)"),
            ({"matrix": np.ones(4)}, "matrix must have 2 dimensions, got shape (4,)"),
            ({"matrix": [[0.0, np.nan], [0.0, 0.0]]}, "matrix must be finite: matrix[0, 1] is nan"),
            ({"matrix": np.full((2, 2), 1.7e308)}, "matrix must have rows whose absolute sums are below 2.25e+307"),
            ({"matrix": [[1.7e308, 0], [0, 1]]}, "matrix must have rows whose absolute sums are below 2.25e+307"),
            ({"policy": [0, 1]}, "policy must hold indices in [0, 0]: policy[1] is 1"),
            ({"policy": [0]}, "policy must have shape (2,), got (1,)"),
            ({"mdp": random_mdp(3, 1, gamma=0.5, branching=1, rng=np.random.default_rng(0))},
             "matrix must have shape (3, 3), got (2, 2)"),
        ],
    )  # fmt: skip
    def test_refuses(self, change, message):
        """Also when a part is changed later."""
        good = Update(all_to_second(0.9), np.eye(2))
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            dataclasses.replace(good, **change)
        now = SimpleNamespace(mdp=good.mdp, matrix=good.matrix, policy=None)
        now.__dict__.update(change)
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            Update(now.mdp, now.matrix, now.policy)

    @pytest.mark.parametrize(
        ("Q", "message"),
        [
            (np.zeros((1, 2)), "Q must have shape (2, 1), got (1, 2), while mdp has n_states = 2 and n_actions = 1"),
            ([[0.0], [np.inf]], "Q must be finite: Q[1, 0] is inf"),
        ],
    )
    def test_refuses_a_table(self, Q, message):
        for update in (Update(all_to_second(0.9), np.eye(2)), Update.table(all_to_second(0.9), alpha=1)):
            with refuses(ValueError, message):
                update(Q)

    def test_largest_matrix(self):
        """Just below what is refused, every number that is made of it is finite."""
        update = Update(all_to_second(0.9), np.full((2, 2), 1.1e307))
        assert np.isfinite(update.jacobians()).all()


class TestKernelUpdate:
    """M = alpha K D: pair i moves by alpha times the sum over j of K_ij rho_j times the TD error at j."""

    @given(case=kernel_cases())
    @few
    def test_against_loops(self, case):
        np.testing.assert_allclose(case.update(case.Q), oracles.kernel_update(case.update, case.Q), atol=1e-10)

    @given(case=kernel_cases(), scale=st.sampled_from([0.5, 4.0]))
    @few
    def test_only_the_product_of_kernel_and_step_size_matters(self, case, scale):
        update = case.update
        other = dataclasses.replace(update, kernel=update.kernel / scale, alpha=update.alpha * scale)
        np.testing.assert_allclose(update(case.Q), other(case.Q), atol=1e-11)

    def test_the_weight_of_the_pair_that_moves_away(self):
        """One step from a unit difference at the second pair: -0.75 at the first, where rho_i would say -0.25."""
        loops = FiniteMDP(np.eye(2)[:, None, :], np.zeros((2, 1)), 0)
        update = KernelUpdate(loops, kernel=np.array([[2.0, 1.0], [1.0, 2.0]]), weights=[0.25, 0.75], alpha=1)
        np.testing.assert_allclose(update([[0.0], [1.0]]), [[-0.75], [-0.5]])

    @given(case=kernel_cases())
    @few
    def test_another_step_size(self, case):
        """The matrix follows its parts; nothing of the first update is kept."""
        twice = dataclasses.replace(case.update, alpha=2 * case.update.alpha)
        np.testing.assert_allclose(twice.matrix, 2 * case.update.matrix, rtol=1e-15)
        close(twice(case.Q) - case.Q, 2 * (case.update(case.Q) - case.Q), rtol=1e-12)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                {"kernel": np.eye(3)},
                "kernel must have shape (2, 2), got (3, 3), while mdp has n_states = 2 and n_actions = 1",
            ),
            ({"kernel": np.ones(4)}, "kernel must have 2 dimensions, got shape (4,)"),
            (
                {"weights": np.full(3, 1 / 3)},
                "weights must have shape (2,), got (3,), while mdp has n_states = 2 and n_actions = 1",
            ),
            ({"weights": [0.9, 0.9]}, "weights must be a distribution: its entries sum to 1.8, not to 1"),
            ({"weights": [1.5, -0.5]}, "weights must be non-negative: weights[1] is -0.5"),
            ({"alpha": 0}, "alpha must be in (0, inf), got 0"),
            ({"alpha": -0.5}, "alpha must be in (0, inf), got -0.5"),
            ({"policy": [[0.5]] * 2}, "policy must be a distribution: policy[0] sums to 0.5, not to 1"),
        ],
    )
    def test_refuses(self, change, message):
        """Whether it is made so or changed; the shares take what they take with the same words."""
        good = equal(all_to_second(0.9))
        with refuses(ValueError, message):
            dataclasses.replace(good, **change)
        now = SimpleNamespace(**{field.name: getattr(good, field.name) for field in dataclasses.fields(good)} | change)
        with refuses(ValueError, message):
            KernelUpdate(now.mdp, kernel=now.kernel, weights=now.weights, alpha=now.alpha, policy=now.policy)
        if not change.keys() & {"kernel", "policy"}:
            with refuses(ValueError, message):
                Update.shares(now.mdp, weights=now.weights, alpha=now.alpha)

    @pytest.mark.parametrize(("size", "alpha"), [(1e10, 1e300), (1.7e308, 1.0), (1.7e308, 1e300), (1.0, 1.7e308)])
    @pytest.mark.parametrize("others", [0.0, 0.5])
    def test_steps_that_overflow(self, size, alpha, others):
        """No certificate is ever asked of them: there is no such update."""
        mdp = FiniteMDP(np.ones((1, 2, 1)), np.zeros((1, 2)), 0.5)
        kernel = size * np.array([[1.0, others], [others, 1.0]])
        with pytest.raises(ValueError, match="alpha must leave the rows of alpha K D below"):
            equal(mdp, kernel, alpha=alpha)
        with pytest.raises(ValueError, match="alpha must leave the rows of alpha K D below"):
            dataclasses.replace(equal(mdp, kernel, alpha=1e-300), alpha=alpha)

    def test_zero_is_no_step_size(self):
        """ch-contraction asks for alpha > 0: at 0 every table is a fixed point, whatever the kernel."""
        calm = examples.sup_norm_only().update
        Q = np.array([[3.0], [-1.0]])
        np.testing.assert_array_equal(Update(calm.mdp, 0 * calm.matrix)(Q), Q)
        with refuses(ValueError, "alpha must be in (0, inf), got 0"):
            dataclasses.replace(calm, alpha=0)


class TestTableUpdate:
    """U1: every pair moves the same fraction of the way to its backup."""

    @given(case=kernel_cases())
    @few
    def test_against_loops(self, case):
        mdp, alpha = case.update.mdp, case.update.alpha
        expected = case.Q + alpha * (oracles.backup(case.Q, mdp) - case.Q)
        np.testing.assert_allclose(Update.table(mdp, alpha=alpha)(case.Q), expected, atol=1e-12)

    def test_the_target_not_the_reward_decides_the_direction(self):
        mdp = FiniteMDP(np.array([[[0.0, 1.0]], [[0.0, 0.0]]]), np.zeros((2, 1)), 0.9)
        found = Update.table(mdp, alpha=0.5)([[1.0], [2.0]])
        np.testing.assert_allclose(found, [[1.4], [1.0]])  # reward 0 < Q = 1, but the target is 1.8

    def test_refuses(self):
        with refuses(ValueError, "alpha must be in (0, inf), got 0"):
            Update.table(all_to_second(0.9), alpha=0)


class TestShares:
    """U2 is U3 with K = I, and U1 at alpha / n where the weights are uniform."""

    @given(case=kernel_cases())
    @few
    def test_against_loops(self, case):
        mdp, rho, alpha = case.update.mdp, case.update.weights, case.update.alpha
        expected = oracles.kernel_update(dataclasses.replace(case.update, kernel=np.eye(mdp.n_pairs)), case.Q)
        np.testing.assert_allclose(Update.shares(mdp, weights=rho, alpha=alpha)(case.Q), expected, atol=1e-12)

    @given(case=kernel_cases(weights=("uniform",)))
    @few
    def test_uniform(self, case):
        one, table = (make_update(form, case.update, case.rng) for form in ("shares", "table"))
        np.testing.assert_allclose(one.matrix * one.mdp.n_pairs, table.matrix, rtol=1e-13)

    @given(seed=st.integers(0, 10_000), part=st.floats(0.05, 1))
    def test_a_table_inside_the_bound_stays_inside(self, seed, part):
        """By thm-table-bound, if alpha rho_i <= 1."""
        rng = np.random.default_rng(seed)
        mdp, rho = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng), rng.dirichlet(np.ones(6))
        bound = np.abs(mdp.R).max() / (1 - 0.9)
        Q = rng.choice([-bound, bound], size=(3, 2))
        after = Update.shares(mdp, weights=rho, alpha=part / rho.max())(Q)
        assert np.abs(after).max() <= bound * (1 + 1e-12)

    def test_a_table_outside_the_bound_may_stay_outside_for_long(self):
        run = dynamics.iterate(examples.self_loop(0.9).update, [[110.0]], max_iter=20)
        assert run.sizes.min() > 10  # the bound

    def test_a_longer_step_leaves_the_bound(self):
        step = Update.shares(examples.self_loop(0.9).update.mdp, weights=[1.0], alpha=11.0)
        assert abs(step([[-10.0]])[0, 0]) > 10


def batches(case):
    """Return a random non-empty batch, in random order."""
    n = case.update.mdp.n_pairs
    return case.rng.permutation(n)[: case.rng.integers(1, n + 1)]


class TestPreconditioned:
    """Pairs in the batch move by exactly alpha times their TD error, those outside by alpha W times it."""

    @given(case=kernel_cases(kernels=("identity", "gram", "dominant", "negative")))
    @few
    def test_inside_and_outside(self, case):
        mdp, K, alpha, batch = case.update.mdp, case.update.kernel, case.update.alpha, batches(case)
        delta = (oracles.backup(case.Q, mdp) - case.Q).ravel()
        found = Update.preconditioned(mdp, kernel=K, batch=batch, alpha=alpha)
        moved = (found(case.Q) - case.Q).ravel()
        outside = [i for i in range(mdp.n_pairs) if i not in batch]
        scale = 1e-9 * max(1.0, np.abs(moved).max())
        np.testing.assert_allclose(moved[batch], alpha * delta[batch], atol=scale)
        W = K[np.ix_(outside, batch)] @ np.linalg.inv(K[np.ix_(batch, batch)])
        np.testing.assert_allclose(moved[outside], alpha * W @ delta[batch], atol=scale)
        np.testing.assert_allclose(updates.spill(K, batch=batch), W, atol=1e-9 * max(1.0, np.abs(W).max(initial=0)))

    @given(case=kernel_cases(kernels=("identity", "gram", "dominant", "negative", "unsymmetric")))
    @few
    def test_inside_nothing_is_lost(self, case):
        """Not up to the condition of the kernel: the rows of the batch are alpha times those of the identity."""
        mdp, batch = case.update.mdp, batches(case)
        alpha = case.update.alpha
        found = Update.preconditioned(mdp, kernel=case.update.kernel, batch=batch, alpha=alpha).matrix
        np.testing.assert_array_equal(found[batch], alpha * np.eye(mdp.n_pairs)[batch])
        np.testing.assert_array_equal(np.delete(found, batch, axis=1), 0)

    @given(case=kernel_cases(kernels=("gram", "dominant")))
    @few
    def test_a_full_batch_is_the_table(self, case):
        mdp, alpha = case.update.mdp, case.update.alpha
        full = Update.preconditioned(mdp, kernel=case.update.kernel, batch=np.arange(mdp.n_pairs), alpha=alpha)
        np.testing.assert_array_equal(full.matrix, Update.table(mdp, alpha=alpha).matrix)

    def test_a_table_has_no_spill(self):
        assert updates.spill(np.eye(3), batch=[1]).tolist() == [[0.0], [0.0]]
        assert updates.spill(np.eye(2), batch=[1, 0]).shape == (0, 2)
        assert updates.loop_gain(np.eye(2), batch=[1, 0], gamma=0.9) == 0

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"kernel": np.eye(3)}, ValueError, "kernel must have shape (2, 2), got (3, 3)"
             ", while mdp has n_states = 2 and n_actions = 1"),
            ({"batch": [0, 2]}, ValueError, "batch must hold indices in [0, 1]: batch[1] is 2"),
            ({"batch": [0.0]}, TypeError, "batch must be an array of integers, got dtype float64"),
            ({"batch": [[0]]}, ValueError, "batch must have shape (any,), got (1, 1)"),
            ({"batch": [1, 1]}, ValueError, "batch must list each pair once, got [1, 1]"),
            ({"kernel": [[1, 2], [2, 4]], "batch": [0, 1]}, ValueError,
             "kernel must be nonsingular on the batch [0, 1]: its rank there is 1"),
            ({"alpha": -1.0}, ValueError, "alpha must be in (0, inf), got -1.0"),
        ],
    )  # fmt: skip
    def test_refuses(self, changes, error, message):
        kernel, batch, alpha = (changes.get("kernel", np.eye(2)), changes.get("batch", [0]), changes.get("alpha", 0.1))
        with refuses(error, message):
            Update.preconditioned(all_to_second(0.9), kernel=kernel, batch=batch, alpha=alpha)
        if "alpha" not in changes and (len(batch) == 2 or "kernel" not in changes):
            with refuses(error, message):
                updates.spill(kernel, batch=batch)


class TestFrozenTarget:
    """N updates towards standing targets: I - (I - M)^N in place of M; many of a kernel's are PreQN's step."""

    @given(case=update_cases(), inner=st.sampled_from([1, 2, 7]))
    def test_is_that_many_steps_towards_targets_that_stand_still(self, case, inner):
        """Also with a policy, which it keeps."""
        update, Q = case.update, case.Q.ravel()
        target = oracles.backup(case.Q, update.mdp, update.policy).ravel()
        x = Q.copy()
        for _ in range(inner):
            x = x + update.matrix @ (target - x)
        found = update.frozen_target(inner)(case.Q).ravel()
        growth = max(1.0, np.abs(np.eye(len(x)) - update.matrix).sum(axis=1).max()) ** inner
        scale = growth * max(1.0, np.abs(target).max(), np.abs(Q).max())
        np.testing.assert_allclose(found, x, rtol=0, atol=1e-12 * scale)

    @given(case=update_cases())
    @few
    def test_one_is_the_update(self, case):
        np.testing.assert_array_equal(case.update.frozen_target(1).matrix, case.update.matrix)

    @given(case=update_cases())
    @few
    def test_frozen_twice(self, case):
        """Two of three are six: the target network of a target network."""
        six = case.update.frozen_target(3).frozen_target(2)
        size = max(1.0, np.abs(np.eye(six.mdp.n_pairs) - case.update.matrix).sum(axis=1).max()) ** 6
        np.testing.assert_allclose(six.matrix, case.update.frozen_target(6).matrix, rtol=0, atol=1e-12 * size)

    @pytest.mark.parametrize("batch", [[0], [1], [0, 1]])
    def test_many_are_the_preconditioned_update(self, batch):
        """With alpha = 1, whatever the weights of the pairs in the batch."""
        mdp, kernel = all_to_second(0.9), np.array([[1.0, 2.0], [2.0, 5.0]])
        weights = np.zeros(2)
        weights[batch] = [0.3, 0.7] if len(batch) == 2 else 1.0
        one = equal(mdp, kernel, weights, alpha=0.3)
        undone = Update.preconditioned(mdp, kernel=kernel, batch=batch, alpha=1).matrix
        np.testing.assert_allclose(one.frozen_target(5000).matrix, undone, atol=1e-10)
        assert np.abs(one.frozen_target(2).matrix - undone).max() > 0.01

    def test_refuses(self):
        update = equal(all_to_second(0.9))
        with refuses(ValueError, "inner must be in [1, inf), got 0"):
            update.frozen_target(0)
        long = dataclasses.replace(update, alpha=100)
        with refuses(ValueError, "inner must leave the powers of I - M finite, at 5000 they are not"):
            long.frozen_target(5000)


class TestResidualGradient:
    """One step down half the weighted square of the expected TD error of a linear Q: the target has a gradient too."""

    @given(case=kernel_cases(weights=("uniform", "random", "zeros")), d=st.integers(1, 4), mixed=st.booleans())
    def test_is_a_step_down_the_squared_expected_td_error(self, case, d, mixed):
        mdp, rng, rho, alpha = case.update.mdp, case.rng, case.update.weights, case.update.alpha
        phi, theta = rng.standard_normal((mdp.n_pairs, d)), rng.standard_normal(d)
        pi = rng.dirichlet(np.ones(mdp.n_actions), mdp.n_states)
        pi = pi if mixed else np.eye(mdp.n_actions)[pi.argmax(axis=1)]

        def loss(parameters):
            Q = (phi @ parameters).reshape(mdp.R.shape)
            return 0.5 * float(rho @ (oracles.backup(Q, mdp, pi) - Q).ravel() ** 2)

        slope = [(loss(theta + 1e-3 * e) - loss(theta - 1e-3 * e)) / 2e-3 for e in np.eye(d)]  # exact for a quadratic
        update = dataclasses.replace(case.update, kernel=phi @ phi.T)
        found = update.residual_gradient(pi if mixed else pi.argmax(axis=1))((phi @ theta).reshape(mdp.R.shape))
        expected = phi @ (theta - alpha * np.array(slope))
        scale = max(1.0, np.abs(expected).max(), alpha * loss(theta))
        np.testing.assert_allclose(found.ravel(), expected, rtol=0, atol=1e-8 * scale)

    def test_it_shrinks_where_the_update_grows(self):
        """Baird's point: short steps down an error cannot run off, where the kernel update on the star does."""
        star = examples.baird_star().update
        policy = np.zeros(7, dtype=int)
        residual = star.residual_gradient(policy)
        assert np.abs(np.linalg.eigvals(star.jacobian(policy))).max() > 1
        assert np.abs(np.linalg.eigvals(residual.jacobian())).max() <= 1 + 1e-12

    def test_refuses(self):
        with pytest.raises(ValueError, match="^" + re.escape("policy must have shape (2,), got (3,)")):
            equal(all_to_second(0.9)).residual_gradient([0, 0, 0])


class TestJacobian:
    """I - M (I - gamma P_pi) moves differences while the greedy policy of both tables is pi."""

    @given(case=update_cases())
    def test_against_loops(self, case):
        update, mdp, n = case.update, case.update.mdp, case.update.mdp.n_pairs
        policy = case.rng.integers(mdp.n_actions, size=mdp.n_states) if update.policy is None else update.policy
        chain, expected = oracles.chain(mdp, policy), np.zeros((n, n))
        for i, j in itertools.product(range(n), repeat=2):
            pull = sum(update.matrix[i][k] * ((k == j) - mdp.gamma * chain[k][j]) for k in range(n))
            expected[i, j] = (i == j) - pull
        np.testing.assert_allclose(update.jacobian(policy), expected, rtol=0, atol=1e-12 * moves(update))

    @given(case=update_cases())
    @few
    def test_differences_inside_a_region(self, case):
        update, mdp, rng = case.update, case.update.mdp, case.rng
        policy = rng.integers(mdp.n_actions, size=mdp.n_states)
        Q1 = tables(mdp, rng)
        Q1[np.arange(mdp.n_states), policy] = Q1.max(axis=1) + 1.0
        Q2 = Q1 + 0.4 * (2 * rng.random(Q1.shape) - 1)
        found = update.jacobian(policy if update.policy is None else None) @ (Q1 - Q2).ravel()
        np.testing.assert_allclose((update(Q1) - update(Q2)).ravel(), found, rtol=0, atol=1e-10 * moves(update))

    @given(case=update_cases(forms=("policy", "chances", "residual")))
    @few
    def test_with_a_policy_there_is_one(self, case):
        """Between any two tables, wherever they are."""
        update, other = case.update, tables(case.update.mdp, case.rng)
        (J,) = update.jacobians()
        np.testing.assert_array_equal(J, update.jacobian())
        np.testing.assert_allclose(
            (update(case.Q) - update(other)).ravel(), J @ (case.Q - other).ravel(), rtol=0, atol=1e-10 * moves(update)
        )
        assert update.n_policies == 1
        assert [policy.tolist() for policy in update.policies()] == [update.policy.tolist()]

    @given(case=update_cases(**SMALL))
    @few
    def test_all_of_them(self, case):
        """One for each deterministic policy, in lexicographic order of the actions."""
        update = case.update
        every = list(oracles.targets_of(update))
        assert update.n_policies == len(every)
        np.testing.assert_array_equal(list(update.policies()), every)
        np.testing.assert_allclose(update.jacobians(), oracles.jacobians(update), rtol=0, atol=1e-12 * moves(update))

    def test_a_random_policy_averages(self):
        mdp = FiniteMDP(np.ones((1, 2, 1)), np.zeros((1, 2)), 0.5)
        update = equal(mdp, alpha=1)
        mixed, pure = update.jacobian([[0.25, 0.75]]), update.jacobians()
        np.testing.assert_allclose(mixed, 0.25 * pure[0] + 0.75 * pure[1])
        np.testing.assert_array_equal(dataclasses.replace(update, policy=[[0.25, 0.75]]).jacobian(), mixed)

    def test_refuses(self):
        update = equal(all_to_second(0.9))
        with refuses(ValueError, "policy must be given: an update with T* has a Jacobian for each policy, got None"):
            update.jacobian()
        with pytest.raises(ValueError, match="^" + re.escape("policy must have shape (2,), got (1,)")):
            update.jacobian([0])
        many = Update.table(random_mdp(17, 2, gamma=0.9, branching=2, rng=np.random.default_rng(0)), alpha=1)
        with refuses(ValueError, "mdp must have at most 100000 deterministic policies here, it has 131072"):
            many.jacobians()
        assert len(dataclasses.replace(many, policy=np.zeros(17, dtype=int)).jacobians()) == 1


class TestFittedUpdate:
    """Backing up and fitting contracts by gamma where the fit is an average; least squares may diverge."""

    AVERAGE = np.array([[0.7, 0.3], [0.3, 0.7]])

    def test_an_average_contracts_by_gamma_and_no_better(self, rng):
        mdp = examples.w_to_2w().update.mdp
        ratios = []
        for _ in range(200):
            Q1, Q2 = rng.standard_normal((2, 2, 1))
            moved = [updates.fitted_update(Q, mdp, fit=self.AVERAGE) for Q in (Q1, Q2)]
            ratios.append(np.abs(moved[0] - moved[1]).max() / np.abs(Q1 - Q2).max())
        assert max(ratios) <= 0.9 + 1e-12
        apart = updates.fitted_update(np.ones((2, 1)), mdp, fit=self.AVERAGE)
        np.testing.assert_allclose(apart, 0.9)

    def test_loops(self, rng):
        mdp, fit = random_mdp(3, 2, gamma=0.7, branching=2, rng=rng), rng.standard_normal((6, 6))
        Q = rng.standard_normal((3, 2))
        backup = [
            mdp.R[s, a] + 0.7 * sum(mdp.P[s, a, t] * max(Q[t]) for t in range(3)) for s in range(3) for a in (0, 1)
        ]
        want = [sum(fit[i, j] * backup[j] for j in range(6)) for i in range(6)]
        np.testing.assert_allclose(updates.fitted_update(Q, mdp, fit=fit).ravel(), want)
        with pytest.raises(ValueError, match=re.escape("fit must have shape (6, 6), got (2, 2)")):
            updates.fitted_update(Q, mdp, fit=np.eye(2))


class TestPredictedChange:
    """alpha K D delta, whatever the TD errors are of."""

    @given(case=kernel_cases())
    @few
    def test_against_loops(self, case):
        K, rho, alpha = case.update.kernel, case.update.weights, case.update.alpha
        n, delta = len(rho), case.rng.standard_normal(len(rho))
        expected = [alpha * sum(K[i][j] * rho[j] * delta[j] for j in range(n)) for i in range(n)]
        np.testing.assert_allclose(updates.predicted_change(K, rho, delta, alpha=alpha), expected, atol=1e-12)

    def test_refuses(self):
        with refuses(ValueError, "td_error must have 1 dimensions, got shape (2, 1)"):
            updates.predicted_change(np.eye(2), [0.5, 0.5], np.zeros((2, 1)), alpha=1)
        with refuses(ValueError, "kernel must have shape (3, 3), got (2, 2), while td_error has shape (3,)"):
            updates.predicted_change(np.eye(2), [0.5, 0.5], np.zeros(3), alpha=1)


class TestLinearStep:
    """One semi-gradient step of a linear Q moves the table by the kernel update with K = Phi Phi^T, exactly."""

    @given(case=kernel_cases(), d=st.integers(1, 8))
    @few
    def test_is_the_kernel_update(self, case, d):
        update, mdp, rng = case.update, case.update.mdp, case.rng
        phi, theta = rng.standard_normal((mdp.n_pairs, d)), rng.standard_normal(d)
        before = phi.copy(), theta.copy()
        stepped = updates.linear_step(theta, phi, mdp, weights=update.weights, alpha=update.alpha)
        Q = (phi @ theta).reshape(mdp.R.shape)
        expected = oracles.kernel_update(dataclasses.replace(update, kernel=phi @ phi.T), Q)
        scale = max(1.0, np.abs(expected).max(), d * np.abs(phi).max() * np.abs(stepped).max())
        np.testing.assert_allclose((phi @ stepped).reshape(mdp.R.shape), expected, rtol=0, atol=1e-13 * scale)
        np.testing.assert_array_equal(phi, before[0])
        np.testing.assert_array_equal(theta, before[1])

    @given(case=kernel_cases(), d=st.integers(1, 4))
    @settings(max_examples=25)
    def test_is_a_step_down_half_the_weighted_squared_error(self, case, d):
        mdp, rng, rho, alpha = case.update.mdp, case.rng, case.update.weights, case.update.alpha
        phi, theta = rng.standard_normal((mdp.n_pairs, d)), rng.standard_normal(d)
        target = oracles.backup((phi @ theta).reshape(mdp.R.shape), mdp).ravel()  # frozen

        def loss(parameters):
            return 0.5 * sum(w * (y - q) ** 2 for w, y, q in zip(rho, target, phi @ parameters, strict=True))

        slope = [(loss(theta + 1e-4 * e) - loss(theta - 1e-4 * e)) / 2e-4 for e in np.eye(d)]  # exact for a quadratic
        found = updates.linear_step(theta, phi, mdp, weights=rho, alpha=alpha)
        scale = max(1.0, np.abs(target).max()) ** 2
        np.testing.assert_allclose(found, theta - alpha * np.array(slope), rtol=0, atol=1e-7 * scale)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"theta": np.zeros((2, 1))}, "theta must have 1 dimensions, got shape (2, 1)"),
            (
                {"features": np.zeros((3, 2))},
                "features must have shape (2, 2), got (3, 2)"
                ", while mdp has n_states = 2 and n_actions = 1 and theta has shape (2,)",
            ),
            (
                {"features": np.zeros((2, 3))},
                "features must have shape (2, 2), got (2, 3)"
                ", while mdp has n_states = 2 and n_actions = 1 and theta has shape (2,)",
            ),
            ({"weights": [0.5, 0.6]}, "weights must be a distribution: its entries sum to 1.1, not to 1"),
            ({"alpha": 0.0}, "alpha must be in (0, inf), got 0.0"),
        ],
    )
    def test_refuses(self, changes, message):
        theta, phi = changes.get("theta", np.zeros(2)), changes.get("features", np.eye(2))
        weights, alpha = changes.get("weights", [0.5, 0.5]), changes.get("alpha", 0.1)
        with refuses(ValueError, message):
            updates.linear_step(theta, phi, all_to_second(0.9), weights=weights, alpha=alpha)


class TestLoopGain:
    """gamma times the largest |W| row sum; below 1 the same batch again and again settles, and beyond it may not."""

    @pytest.mark.parametrize(("gamma", "status"), [(0.45, "converged"), (0.55, "diverged")])
    def test_threshold(self, gamma, status):
        K = np.array([[1.0, 2.0], [2.0, 5.0]])  # W = 2: half is the edge
        update = Update.preconditioned(all_to_second(gamma), kernel=K, batch=[0], alpha=1)
        assert updates.loop_gain(K, batch=[0], gamma=gamma) == pytest.approx(2 * gamma)
        assert dynamics.iterate(update, [[1.0], [1.0]], max_iter=1000, bound=1e6).status == status

    def test_rows_not_columns(self):
        K = np.array([[1.0, 0, 0.1, 3.0], [0, 1.0, 0.2, -4.0], [0.1, 0.2, 1, 0], [3.0, -4.0, 0, 30.0]])
        assert updates.loop_gain(K, batch=[0, 1], gamma=0.5) == pytest.approx(0.5 * 7)
        assert updates.loop_gain(K, batch=[1, 0], gamma=0.5) == pytest.approx(0.5 * 7)

    @given(case=kernel_cases(kernels=("gram", "dominant", "negative"), gammas=(0.3, 0.9)))
    @settings(max_examples=25)
    def test_below_one_settles(self, case):
        K, batch, mdp = case.update.kernel, batches(case), case.update.mdp
        if updates.loop_gain(K, batch=batch, gamma=mdp.gamma) >= 0.95:
            return
        update = Update.preconditioned(mdp, kernel=K, batch=batch, alpha=0.8)
        assert dynamics.iterate(update, case.Q, max_iter=3000, tol=1e-8).status == "converged"

    def test_refuses(self):
        with refuses(ValueError, "gamma must be in [0, 1), got 1"):
            updates.loop_gain(np.eye(2), batch=[0], gamma=1)


class TestMinimumNormStep:
    """The smallest step of the parameters that moves a batch by alpha times its TD errors is the preconditioned one."""

    @given(case=kernel_cases(max_states=3, max_actions=2))
    @few
    def test_is_the_preconditioned_update(self, case):
        mdp, alpha, rng, batch = case.update.mdp, case.update.alpha, case.rng, batches(case)
        phi, theta = rng.standard_normal((mdp.n_pairs, mdp.n_pairs + 3)), rng.standard_normal(mdp.n_pairs + 3)
        stepped = updates.minimum_norm_step(theta, phi, mdp, batch=batch, alpha=alpha)
        undone = Update.preconditioned(mdp, kernel=phi @ phi.T, batch=batch, alpha=alpha)
        close((phi @ stepped).reshape(mdp.R.shape), undone((phi @ theta).reshape(mdp.R.shape)), rtol=1e-7)
        move, rows = stepped - theta, phi[batch]
        close(move, rows.T @ np.linalg.solve(rows @ rows.T, rows @ move), rtol=1e-7)  # nothing orthogonal to the batch

    def test_comes_closest_where_no_step_is_exact(self):
        mdp = FiniteMDP(np.zeros((2, 1, 2)), np.array([[1.0], [4.0]]), 0.9)
        found = updates.minimum_norm_step([0.0], [[1.0], [1.0]], mdp, batch=[0, 1], alpha=0.5)
        np.testing.assert_allclose(found, [0.5 * 2.5])  # towards the mean of the two targets

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"features": np.zeros((3, 2))},
                "features must have shape (2, 2), got (3, 2)"
                ", while mdp has n_states = 2 and n_actions = 1 and theta has shape (2,)",
            ),
            ({"batch": [0, 0]}, "batch must list each pair once, got [0, 0]"),
            ({"batch": [2]}, "batch must hold indices in [0, 1]: batch[0] is 2"),
            ({"alpha": 0}, "alpha must be in (0, inf), got 0"),
        ],
    )
    def test_refuses(self, changes, message):
        phi, batch, alpha = (changes.get("features", np.eye(2)), changes.get("batch", [0]), changes.get("alpha", 0.1))
        with refuses(ValueError, message):
            updates.minimum_norm_step(np.zeros(2), phi, all_to_second(0.9), batch=batch, alpha=alpha)


class TestLinearFixedPoints:
    """Phi^T D (R + gamma P max Phi theta - Phi theta) = 0: none, one, or several solutions."""

    @pytest.mark.parametrize(
        ("gamma", "expected"), [(0.5, [[0.5]]), (5 / 6, []), (0.9, [[-2.5]])], ids=["stable", "none", "unstable"]
    )
    def test_prediction(self, gamma, expected):
        """Phi^T D (Phi - gamma P Phi) = (5 - 6 gamma) / 2 against Phi^T D R = 1/2."""
        assert [(5 - 6 * gamma) * theta for (theta,) in expected] == pytest.approx([1.0] * len(expected))
        mdp = all_to_second(gamma, (1.0, 0.0))
        found = updates.linear_fixed_points([[1.0], [2.0]], mdp, weights=[0.5, 0.5])
        assert found.shape == (len(expected), 1)
        np.testing.assert_allclose(found, np.reshape(expected, (-1, 1)))

    @pytest.mark.parametrize(
        ("reward", "gamma", "want"), [(1, 0.9, []), (-1, 0.9, [-1 / 2.8, 1.25]), (1, 0.25, [2.0]), (0, 0.9, [0.0])]
    )
    def test_one_weight_and_a_max(self, reward, gamma, want):
        """Drift r + 2 gamma |theta| - theta, solved by hand on each side of zero: none, two, one, one."""
        example = examples.no_fixed_point()
        mdp = FiniteMDP(example.update.mdp.P, np.array([[reward, reward], [0.0, 0.0]]), gamma)
        found = updates.linear_fixed_points(example.features, mdp, weights=example.update.weights)
        assert found.shape == (len(want), 1)
        assert found[:, 0] == pytest.approx(want)
        for theta in found[:, 0]:
            assert reward + 2 * gamma * abs(theta) - theta == pytest.approx(0, abs=1e-10)

    @pytest.mark.parametrize("unit", [1e-250, 1e-30, 1e-13, 1e-11, 1e-3, 1e6, 1e15, 1e200])
    @pytest.mark.parametrize(("reward", "gamma", "want"), [(1, 0.9, []), (-1, 0.9, [-1 / 2.8, 1.25]), (1, 0.25, [2.0])])
    def test_any_units(self, reward, gamma, want, unit):
        """Fixed points grow with the rewards and shrink with the features; there are neither more nor fewer."""
        example = examples.no_fixed_point()
        phi, rho, P = example.features, example.update.weights, example.update.mdp.P
        rewards = np.array([[reward, reward], [0.0, 0.0]])
        found = updates.linear_fixed_points(phi, FiniteMDP(P, unit * rewards, gamma), weights=rho)
        assert found.shape == (len(want), 1)
        np.testing.assert_allclose(found[:, 0] / unit, want, rtol=1e-11)
        if 1e-150 < unit < 1e150:  # the square of a feature is a number
            found = updates.linear_fixed_points(unit * phi, FiniteMDP(P, rewards, gamma), weights=rho)
            assert found.shape == (len(want), 1)
            np.testing.assert_allclose(found[:, 0] * unit, want, rtol=1e-11)

    def test_rounded_to_what_a_reader_expects(self):
        """Decimals, not bits: -2.5 and 1.25 come out as such, whatever the scale of ten; a repeat is one."""
        example = examples.no_fixed_point()
        for unit in (1e-4, 1, 1e6):
            mdp = FiniteMDP(example.update.mdp.P, unit * np.array([[1.0, 1.0], [0.0, 0.0]]), 0.25)
            assert updates.linear_fixed_points(
                example.features, mdp, weights=example.update.weights
            ).tolist() == [[2 * unit]]  # fmt: skip

    @given(case=kernel_cases(**SMALL, weights=("uniform", "random")), d=st.integers(1, 3))
    @few
    def test_each_stays_where_it_is(self, case, d):
        mdp, rho = case.update.mdp, case.update.weights
        phi = case.rng.standard_normal((mdp.n_pairs, d))
        for theta in updates.linear_fixed_points(phi, mdp, weights=rho):
            stepped = updates.linear_step(theta, phi, mdp, weights=rho, alpha=0.1)
            np.testing.assert_allclose(stepped, theta, atol=1e-7 * max(1.0, np.abs(theta).max()))

    def test_none_one_and_two_occur(self, rng):
        """Random problems with fewer parameters than pairs; a step leaves each of their fixed points where it is."""
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

    @given(case=kernel_cases(**SMALL, kinds=("dense", "terminating", "sparse"), weights=("uniform",)))
    @settings(max_examples=20)
    def test_a_table_has_the_optimum_alone(self, case):
        mdp = case.update.mdp
        found = updates.linear_fixed_points(np.eye(mdp.n_pairs), mdp, weights=case.update.weights)
        assert len(found) == 1
        np.testing.assert_allclose(found[0], oracles.best_table(mdp).ravel(), atol=1e-8)

    def test_and_so_have_features_that_make_every_table(self, rng):
        mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
        phi, weights = rng.standard_normal((6, 6)), rng.dirichlet(np.ones(6))
        (theta,) = updates.linear_fixed_points(phi, mdp, weights=weights)
        np.testing.assert_allclose((phi @ theta).reshape(3, 2), oracles.best_table(mdp), atol=1e-8)

    def test_a_leaf_is_not_a_point(self):
        """A table with a pair that is never sampled: every value of that pair will do."""
        mdp = FiniteMDP(np.array([[[0, 1.0]], [[0, 1.0]]]), np.ones((2, 1)), 0.5)
        found = updates.linear_fixed_points(features.one_hot(2), mdp, weights=np.array([1.0, 0.0]))
        assert found.shape == (0, 2)

    def test_refuses(self, rng):
        big = random_mdp(17, 2, gamma=0.9, branching=2, rng=rng)
        with refuses(ValueError, "mdp must have at most 100000 deterministic policies here, it has 131072"):
            updates.linear_fixed_points(np.eye(34), big, weights=np.full(34, 1 / 34))
        with refuses(
            ValueError, "features must have shape (2, any), got (3, 1), while mdp has n_states = 2 and n_actions = 1"
        ):
            updates.linear_fixed_points(np.ones((3, 1)), all_to_second(0.9), weights=[0.5, 0.5])
