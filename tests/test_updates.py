"""Updates of a whole table against explicit loops, and against each other where they must agree."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divergence_notes import dynamics, updates
from divergence_notes.mdp import FiniteMDP
from tests import oracles
from tests.strategies import kernel_cases

few = settings(max_examples=50)


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


def all_to_second(gamma):
    return FiniteMDP(np.array([[[0.0, 1.0]], [[0.0, 1.0]]]), np.zeros((2, 1)), gamma)


def step(case, function, **arguments):
    return function(case["Q"], case["mdp"], alpha=case["alpha"], **arguments)


class TestAgainstLoops:
    """U1, U2 and U3 move pair i by alpha times the sum over j of M_ij times the TD error at j, M = I, D and K D."""

    @given(case=kernel_cases())
    @few
    def test_value_update(self, case):
        Q, mdp, before = case["Q"], case["mdp"], case["Q"].copy()
        expected = Q + case["alpha"] * (oracles.backup(Q, mdp) - Q)
        np.testing.assert_allclose(step(case, updates.value_update), expected, atol=1e-12)
        np.testing.assert_array_equal(Q, before)

    @given(case=kernel_cases())
    @few
    def test_weighted_update(self, case):
        expected = oracles.kernel_update(
            case["Q"], case["mdp"], np.eye(case["mdp"].n_pairs), case["weights"], case["alpha"]
        )
        found = step(case, updates.weighted_update, weights=case["weights"])
        np.testing.assert_allclose(found, expected, atol=1e-12)

    @given(case=kernel_cases())
    @few
    def test_kernel_update(self, case):
        given_there = {"kernel": case["kernel"], "weights": case["weights"]}
        expected = oracles.kernel_update(case["Q"], case["mdp"], **given_there, alpha=case["alpha"])
        np.testing.assert_allclose(step(case, updates.kernel_update, **given_there), expected, atol=1e-10)

    @given(case=kernel_cases())
    @few
    def test_predicted_change(self, case):
        n, delta = case["mdp"].n_pairs, case["rng"].standard_normal(case["mdp"].n_pairs)
        K, rho = case["kernel"], case["weights"]
        expected = [case["alpha"] * sum(K[i][j] * rho[j] * delta[j] for j in range(n)) for i in range(n)]
        np.testing.assert_allclose(updates.predicted_change(K, rho, delta, alpha=case["alpha"]), expected, atol=1e-12)


class TestSpecialCases:
    """U3 with K = I is U2, U2 with uniform weights is U1 at alpha / n, and only the product alpha K D matters."""

    @given(case=kernel_cases(kernels=("identity",)))
    @few
    def test_table(self, case):
        rho = case["weights"]
        one = step(case, updates.kernel_update, kernel=case["kernel"], weights=rho)
        np.testing.assert_allclose(one, step(case, updates.weighted_update, weights=rho), atol=1e-14)

    @given(case=kernel_cases(weights=("uniform",)))
    @few
    def test_uniform(self, case):
        n = case["mdp"].n_pairs
        one = step(case, updates.weighted_update, weights=case["weights"])
        other = updates.value_update(case["Q"], case["mdp"], alpha=case["alpha"] / n)
        np.testing.assert_allclose(one, other, atol=1e-13)

    @given(case=kernel_cases(), scale=st.sampled_from([0.5, 4.0]))
    @few
    def test_scale_of_kernel_and_step_size(self, case, scale):
        given_there = {"weights": case["weights"], "alpha": case["alpha"]}
        one = updates.kernel_update(case["Q"], case["mdp"], kernel=case["kernel"], **given_there)
        given_there["alpha"] *= scale
        other = updates.kernel_update(case["Q"], case["mdp"], kernel=case["kernel"] / scale, **given_there)
        np.testing.assert_allclose(one, other, atol=1e-11)

    def test_the_target_not_the_reward_decides_the_direction(self):
        mdp = FiniteMDP(np.array([[[0.0, 1.0]], [[0.0, 0.0]]]), np.zeros((2, 1)), 0.9)
        found = updates.value_update([[1.0], [2.0]], mdp, alpha=0.5)
        np.testing.assert_allclose(found, [[1.4], [1.0]])  # reward 0 < Q = 1, but the target is 1.8


class TestLinearStep:
    """One semi-gradient step of a linear Q moves the table by the kernel update with K = Phi Phi^T, exactly."""

    @given(case=kernel_cases(), d=st.integers(1, 8))
    @few
    def test_is_the_kernel_update(self, case, d):
        mdp, rng = case["mdp"], case["rng"]
        phi, theta = rng.standard_normal((mdp.n_pairs, d)), rng.standard_normal(d)
        before = phi.copy(), theta.copy()
        stepped = updates.linear_step(theta, phi, mdp, weights=case["weights"], alpha=case["alpha"])
        Q = (phi @ theta).reshape(mdp.R.shape)
        expected = oracles.kernel_update(Q, mdp, phi @ phi.T, case["weights"], case["alpha"])
        scale = max(1.0, np.abs(expected).max(), d * np.abs(phi).max() * np.abs(stepped).max())
        np.testing.assert_allclose((phi @ stepped).reshape(mdp.R.shape), expected, rtol=0, atol=1e-13 * scale)
        np.testing.assert_array_equal(phi, before[0])
        np.testing.assert_array_equal(theta, before[1])

    @given(case=kernel_cases(), d=st.integers(1, 4))
    @settings(max_examples=25)
    def test_is_a_step_down_half_the_weighted_squared_error(self, case, d):
        mdp, rng = case["mdp"], case["rng"]
        phi, theta = rng.standard_normal((mdp.n_pairs, d)), rng.standard_normal(d)
        target = oracles.backup((phi @ theta).reshape(mdp.R.shape), mdp).ravel()  # frozen

        def loss(parameters):
            return 0.5 * sum(
                w * (y - q) ** 2 for w, y, q in zip(case["weights"], target, phi @ parameters, strict=True)
            )

        slope = [(loss(theta + 1e-4 * e) - loss(theta - 1e-4 * e)) / 2e-4 for e in np.eye(d)]  # exact for a quadratic
        found = updates.linear_step(theta, phi, mdp, weights=case["weights"], alpha=case["alpha"])
        scale = max(1.0, np.abs(target).max()) ** 2
        np.testing.assert_allclose(found, theta - case["alpha"] * np.array(slope), rtol=0, atol=1e-7 * scale)

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
        given_there = {"theta": np.zeros(2), "features": np.eye(2), "weights": [0.5, 0.5], "alpha": 0.1} | changes
        with refuses(ValueError, message):
            updates.linear_step(
                given_there.pop("theta"), given_there.pop("features"), all_to_second(0.9), **given_there
            )


def batches(case):
    """Return a random non-empty batch, in random order."""
    n = case["mdp"].n_pairs
    return case["rng"].permutation(n)[: case["rng"].integers(1, n + 1)]


class TestPreconditionedUpdate:
    """Pairs in the batch move by exactly alpha times their TD error, those outside by alpha W times it."""

    @given(case=kernel_cases(kernels=("identity", "gram", "dominant", "negative")))
    @few
    def test_inside_and_outside(self, case):
        mdp, K, batch = case["mdp"], case["kernel"], batches(case)
        delta = (oracles.backup(case["Q"], mdp) - case["Q"]).ravel()
        found = step(case, updates.preconditioned_update, kernel=K, batch=batch)
        moved = (found - case["Q"]).ravel()
        outside = [i for i in range(mdp.n_pairs) if i not in batch]
        scale = 1e-9 * max(1.0, np.abs(moved).max())
        np.testing.assert_allclose(moved[batch], case["alpha"] * delta[batch], atol=scale)
        W = K[np.ix_(outside, batch)] @ np.linalg.inv(K[np.ix_(batch, batch)])
        np.testing.assert_allclose(moved[outside], case["alpha"] * W @ delta[batch], atol=scale)
        np.testing.assert_allclose(updates.spill(K, batch=batch), W, atol=1e-9 * max(1.0, np.abs(W).max(initial=0)))

    @given(case=kernel_cases(kernels=("gram", "dominant")))
    @few
    def test_a_full_batch_is_the_table(self, case):
        found = step(case, updates.preconditioned_update, kernel=case["kernel"], batch=np.arange(case["mdp"].n_pairs))
        np.testing.assert_allclose(found, step(case, updates.value_update), atol=1e-7)

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
        given_there = {"kernel": np.eye(2), "batch": [0], "alpha": 0.1} | changes
        with refuses(error, message):
            updates.preconditioned_update(np.zeros((2, 1)), all_to_second(0.9), **given_there)
        if "alpha" not in changes and given_there["kernel"] is not changes.get("kernel", 0):
            with refuses(error, message):
                updates.spill(given_there["kernel"], batch=given_there["batch"])


class TestFrozenTarget:
    """N kernel updates towards standing targets: I - (I - alpha K D)^N in place of alpha K D; many are PreQN's step."""

    @given(case=kernel_cases())
    @few
    @pytest.mark.parametrize("inner", [1, 2, 7])
    def test_power(self, case, inner):
        delta = (oracles.backup(case["Q"], case["mdp"]) - case["Q"]).ravel()
        one = np.eye(len(delta)) - case["alpha"] * case["kernel"] * case["weights"]
        expected = case["Q"].ravel() + (np.eye(len(delta)) - np.linalg.matrix_power(one, inner)) @ delta
        given_there = {"kernel": case["kernel"], "weights": case["weights"], "inner": inner}
        found = step(case, updates.frozen_target_update, **given_there)
        np.testing.assert_allclose(found.ravel(), expected, rtol=1e-8, atol=1e-9 * max(1.0, np.abs(expected).max()))

    def test_one_is_the_kernel_update(self, rng):
        mdp, A = all_to_second(0.9), rng.standard_normal((2, 3))
        given_there = {"kernel": A @ A.T, "weights": [0.3, 0.7], "alpha": 0.2}
        one = updates.frozen_target_update(np.ones((2, 1)), mdp, inner=1, **given_there)
        np.testing.assert_allclose(one, updates.kernel_update(np.ones((2, 1)), mdp, **given_there), rtol=1e-14)

    @pytest.mark.parametrize("batch", [[0], [1], [0, 1]])
    def test_many_are_the_preconditioned_update(self, batch):
        """With alpha = 1, whatever the weights of the pairs in the batch."""
        mdp, kernel = all_to_second(0.9), np.array([[1.0, 2.0], [2.0, 5.0]])
        weights, Q = np.zeros(2), np.array([[1.0], [-2.0]])
        weights[batch] = [0.3, 0.7] if len(batch) == 2 else 1.0
        many = updates.frozen_target_update(Q, mdp, kernel=kernel, weights=weights, alpha=0.3, inner=5000)
        undone = updates.preconditioned_update(Q, mdp, kernel=kernel, batch=batch, alpha=1)
        np.testing.assert_allclose(many, undone, atol=1e-10)
        few_steps = updates.frozen_target_update(Q, mdp, kernel=kernel, weights=weights, alpha=0.3, inner=2)
        assert np.abs(few_steps - undone).max() > 0.01

    def test_refuses(self):
        given_there = {"kernel": np.eye(2), "weights": [0.5, 0.5], "alpha": 0.1}
        with refuses(ValueError, "inner must be in [1, inf), got 0"):
            updates.frozen_target_update(np.zeros((2, 1)), all_to_second(0.9), inner=0, **given_there)


class TestLoopGain:
    """gamma times the largest |W| row sum; below 1 the same batch again and again settles, and beyond it may not."""

    @pytest.mark.parametrize(("gamma", "status"), [(0.45, "converged"), (0.55, "diverged")])
    def test_threshold(self, gamma, status):
        K = np.array([[1.0, 2.0], [2.0, 5.0]])  # W = 2: half is the edge

        def operator(Q):
            return updates.preconditioned_update(Q, all_to_second(gamma), kernel=K, batch=[0], alpha=1)

        assert updates.loop_gain(K, batch=[0], gamma=gamma) == pytest.approx(2 * gamma)
        assert dynamics.iterate(operator, [[1.0], [1.0]], max_iter=1000, bound=1e6).status == status

    def test_rows_not_columns(self):
        K = np.array([[1.0, 0, 0.1, 3.0], [0, 1.0, 0.2, -4.0], [0.1, 0.2, 1, 0], [3.0, -4.0, 0, 30.0]])
        assert updates.loop_gain(K, batch=[0, 1], gamma=0.5) == pytest.approx(0.5 * 7)
        assert updates.loop_gain(K, batch=[1, 0], gamma=0.5) == pytest.approx(0.5 * 7)

    @given(case=kernel_cases(kernels=("gram", "dominant", "negative"), gammas=(0.3, 0.9)))
    @settings(max_examples=25)
    def test_below_one_settles(self, case):
        K, batch, mdp = case["kernel"], batches(case), case["mdp"]
        if updates.loop_gain(K, batch=batch, gamma=mdp.gamma) >= 0.95:
            return

        def operator(Q):
            return updates.preconditioned_update(Q, mdp, kernel=K, batch=batch, alpha=0.8)

        assert dynamics.iterate(operator, case["Q"], max_iter=3000, tol=1e-8).status == "converged"

    def test_refuses(self):
        with refuses(ValueError, "gamma must be in [0, 1), got 1"):
            updates.loop_gain(np.eye(2), batch=[0], gamma=1)


class TestMinimumNormStep:
    """The smallest step of the parameters that moves a batch by alpha times its TD errors is the preconditioned one."""

    @given(case=kernel_cases(max_states=3, max_actions=2))
    @few
    def test_is_the_preconditioned_update(self, case):
        mdp, rng, batch = case["mdp"], case["rng"], batches(case)
        phi, theta = rng.standard_normal((mdp.n_pairs, mdp.n_pairs + 3)), rng.standard_normal(mdp.n_pairs + 3)
        stepped = updates.minimum_norm_step(theta, phi, mdp, batch=batch, alpha=case["alpha"])
        Q = (phi @ theta).reshape(mdp.R.shape)
        expected = updates.preconditioned_update(Q, mdp, kernel=phi @ phi.T, batch=batch, alpha=case["alpha"])
        np.testing.assert_allclose(
            (phi @ stepped).reshape(mdp.R.shape), expected, atol=1e-7 * max(1, np.abs(expected).max())
        )
        move, rows = stepped - theta, phi[batch]
        inside = rows.T @ np.linalg.solve(rows @ rows.T, rows @ move)
        np.testing.assert_allclose(
            move, inside, atol=1e-7 * max(1, np.abs(move).max())
        )  # nothing orthogonal to the batch

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
        given_there = {"features": np.eye(2), "batch": [0], "alpha": 0.1} | changes
        with refuses(ValueError, message):
            updates.minimum_norm_step(np.zeros(2), given_there.pop("features"), all_to_second(0.9), **given_there)


class TestInputs:
    """A wrong shape, weights that are no distribution or a step size that is none is named before any work."""

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"Q": np.zeros((1, 2))},
                "Q must have shape (2, 1), got (1, 2), while mdp has n_states = 2 and n_actions = 1",
            ),
            ({"Q": [[0.0], [np.inf]]}, "Q must be finite: Q[1, 0] is inf"),
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
        ],
    )
    def test_kernel_update(self, changes, message):
        given_there = {"Q": np.zeros((2, 1)), "kernel": np.eye(2), "weights": [0.5, 0.5], "alpha": 0.1} | changes
        with refuses(ValueError, message):
            updates.kernel_update(given_there.pop("Q"), all_to_second(0.9), **given_there)
        if "kernel" not in changes:
            given_there.pop("kernel")
            Q = changes.get("Q", np.zeros((2, 1)))
            with refuses(ValueError, message):
                updates.weighted_update(Q, all_to_second(0.9), **given_there)

    def test_value_update(self):
        with refuses(ValueError, "alpha must be in (0, inf), got 0"):
            updates.value_update(np.zeros((2, 1)), all_to_second(0.9), alpha=0)

    def test_td_error(self):
        with refuses(ValueError, "td_error must have 1 dimensions, got shape (2, 1)"):
            updates.predicted_change(np.eye(2), [0.5, 0.5], np.zeros((2, 1)), alpha=1)
        with refuses(ValueError, "kernel must have shape (3, 3), got (2, 2), while td_error has shape (3,)"):
            updates.predicted_change(np.eye(2), [0.5, 0.5], np.zeros(3), alpha=1)
