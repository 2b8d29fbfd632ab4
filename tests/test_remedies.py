"""Remedies for divergence: each rule against a loop that does what its paper says, and its growth against runs."""

import re
from dataclasses import replace

import numpy as np
import pytest

from divergence_notes import bellman, contraction, examples, features, remedies
from divergence_notes.mdp import FiniteMDP, random_mdp
from divergence_notes.remedies import Rule
from divergence_notes.updates import KernelUpdate, Update

NAMES = ("plain", "residual gradient", "TDC", "regularised", "target network", "PreQN")


def problem(seed, *, n_features=3):
    """Return a process of 3 states and 2 actions, features, a policy that draws lots, and shares."""
    rng = np.random.default_rng(seed)
    return {
        "features": rng.standard_normal((6, n_features)),
        "mdp": random_mdp(3, 2, gamma=0.9, branching=2, rng=rng),
        "policy": rng.dirichlet(np.ones(2), size=3),
        "weights": rng.dirichlet(np.ones(6)),
        "alpha": 0.05,
    }


def remembered(rule, features, *vectors):
    """Return the numbers of a rule that belong to parameters in the row space of the features."""
    width = len(rule.shift) // len(vectors)
    parts = [np.linalg.lstsq(rule.values[:, :width], features @ vector, rcond=None)[0] for vector in vectors]
    return np.concatenate(parts)


def looped(given, theta, *, held=None):
    """Return, pair by pair, the TD error, the features and the mean features of what follows, by loops."""
    phi, mdp = given["features"], given["mdp"]
    for s in range(mdp.n_states):
        for a in range(mdp.n_actions):
            i = s * mdp.n_actions + a
            after = np.zeros(phi.shape[1])
            for t in range(mdp.n_states):
                for b in range(mdp.n_actions):
                    after += mdp.P[s, a, t] * given["policy"][t][b] * phi[t * mdp.n_actions + b]
            target = mdp.R[s, a] + mdp.gamma * after @ (theta if held is None else held)
            yield given["weights"][i], target - phi[i] @ theta, phi[i], mdp.gamma * after


class TestRulesAgainstLoops:
    """One step of each rule, in parameters, as its paper writes it."""

    @pytest.fixture(params=range(4))
    def case(self, request):
        given = problem(request.param)
        return given, np.random.default_rng(request.param).standard_normal(3)

    def moved(self, name, given, theta, **how):
        rule = remedies.rules(**given, **how)[name]
        return rule.values @ rule(remembered(rule, given["features"], theta))

    def test_plain(self, case):
        given, theta = case
        step = sum(share * delta * phi for share, delta, phi, _ in looped(given, theta))
        np.testing.assert_allclose(self.moved("plain", given, theta), given["features"] @ (theta + 0.05 * step))

    def test_residual_gradient_is_that_of_the_squared_expected_error(self, case):
        given, theta = case

        def loss(theta):
            return 0.5 * sum(share * delta**2 for share, delta, _, _ in looped(given, theta))

        slope = [(loss(theta + 1e-5 * e) - loss(theta - 1e-5 * e)) / 2e-5 for e in np.eye(3)]
        found = self.moved("residual gradient", given, theta)
        np.testing.assert_allclose(found, given["features"] @ (theta - 0.05 * np.array(slope)), atol=1e-7)

    def test_regularised(self, case):
        given, theta = case
        step = sum(share * delta * phi for share, delta, phi, _ in looped(given, theta)) - 0.3 * theta
        found = self.moved("regularised", given, theta, pull=0.3)
        np.testing.assert_allclose(found, given["features"] @ (theta + 0.05 * step))

    def test_target_network(self, case):
        given, theta = case
        end = theta
        for _ in range(7):
            end = end + 0.05 * sum(w * delta * phi for w, delta, phi, _ in looped(given, end, held=theta))
        found = self.moved("target network", given, theta, period=7)
        np.testing.assert_allclose(found, given["features"] @ end)

    def test_tdc(self, case):
        given, theta = case
        h = np.array([0.3, -1.0, 0.5])
        rule = remedies.rules(**given, pace=0.2)["TDC"]
        seen = list(looped(given, theta))
        step = sum(w * (delta * phi - after * (phi @ h)) for w, delta, phi, after in seen)
        second = sum(w * (delta - phi @ h) * phi for w, delta, phi, _ in seen)
        x = rule(remembered(rule, given["features"], theta, h))
        np.testing.assert_allclose(rule.values @ x, given["features"] @ (theta + 0.05 * step))
        np.testing.assert_allclose(rule.values[:, :3] @ x[3:], given["features"] @ (h + 0.2 * second))

    @pytest.mark.parametrize("jitter", [0.0, 0.5])
    def test_preqn(self, case, jitter):
        given, theta = case
        rows = given["features"][[4, 1]]
        delta = np.array([delta for _, delta, _, _ in looped(given, theta)])[[4, 1]]
        block = rows @ rows.T
        z = np.linalg.solve(block + jitter * np.trace(block) / 2 * np.eye(2), delta)
        found = self.moved("PreQN", given, theta, batch=[4, 1], jitter=jitter)
        np.testing.assert_allclose(found, given["features"] @ (theta + 0.05 * rows.T @ z))


class TestRulesAgainstUpdates:
    """With as many features as pairs, the values move as the updates of a whole table say."""

    @pytest.mark.parametrize("seed", range(3))
    def test_one_step(self, seed):
        given = problem(seed, n_features=8)  # two directions that no feature has
        K, Q = features.kernel(given["features"]), np.random.default_rng(seed).standard_normal((3, 2))
        plain = KernelUpdate(
            given["mdp"], kernel=K, weights=given["weights"], alpha=given["alpha"], policy=given["policy"]
        )
        undone = Update.preconditioned(given["mdp"], kernel=K, batch=[0, 3], alpha=0.05)
        expected = {
            "plain": plain,
            "residual gradient": plain.residual_gradient(given["policy"]),
            "target network": plain.frozen_target(4),
            "PreQN": replace(undone, policy=given["policy"]),
        }
        found = remedies.rules(**given, period=4, batch=[0, 3])
        for name, update in expected.items():
            x = np.linalg.lstsq(found[name].values, Q.ravel(), rcond=None)[0]
            np.testing.assert_allclose(found[name].values @ found[name](x), update(Q).ravel(), atol=1e-9)


class TestGrowth:
    """Below 1, every start comes to rest at `rest`; above, some start runs off."""

    def far(self, rule, steps=60_000):
        """Return where the numbers of a rule are after many steps, by squaring a matrix."""
        n = len(rule.shift)
        both = np.block([[rule.matrix, rule.shift[:, None]], [np.zeros((1, n)), np.ones((1, 1))]])
        start = np.append(np.linspace(-1, 1, n), 1.0)
        with np.errstate(over="ignore", invalid="ignore"):
            return (np.linalg.matrix_power(both, steps) @ start)[:n], start[:n]

    def test_is_what_runs_do(self):
        fates = set()
        for seed in range(12):
            for name, rule in remedies.rules(
                **problem(seed) | {"alpha": (0.3, 3.0)[seed % 2]}, period=3, pull=0.5
            ).items():
                end, start = self.far(rule)
                if abs(rule.growth - 1) > 1e-3:
                    fates.add(rule.growth < 1)
                    assert (np.abs(end).max() < 1e4) == (rule.growth < 1), (seed, name)
                if rule.growth < 1 - 1e-3:
                    np.testing.assert_allclose(rule.values @ end, rule.rest(start), atol=1e-6)
        assert fates == {True, False}

    def test_what_never_moves_is_no_growth(self):
        """The lever, state 1 in the data: the second weight is never trained, and where it ends depends on it."""
        lever = examples.w_to_2w_full_rank(gamma=0.4)
        given = {"policy": [0, 0], "weights": [1, 0], "alpha": 0.5}
        rule = remedies.rules(lever.features, lever.update.mdp, **given)["plain"]
        assert rule.growth == pytest.approx(1 + 0.5 * (0.4 * 2 - 1))
        end, start = self.far(rule)
        np.testing.assert_allclose(rule.values @ end, rule.rest(start), atol=1e-8)
        assert np.abs(rule.rest(start) - rule.rest()).max() > 0.1

    def test_a_double_one_is_not_below_one(self):
        """A matrix whose eigenvalue 1 has too few eigenvectors: the numbers grow, step by step."""
        rule = Rule(np.array([[1.0, 1.0], [0.0, 1.0]]), np.zeros(2), np.eye(2))
        assert rule.growth == pytest.approx(1.0) and np.abs(self.far(rule)[0]).max() > 1e4

    def test_a_rule_that_does_nothing(self):
        rule = Rule(np.eye(2), np.zeros(2), np.eye(2))
        assert rule.growth == 0.0
        np.testing.assert_array_equal(rule.rest([1.0, 2.0]), [1.0, 2.0])


class TestOnPaper:
    """w to 2w at gamma = 0.9, state 1 in the data: one weight, so that each growth is a number of a line."""

    @pytest.fixture
    def one(self):
        w = examples.w_to_2w()
        given = {"policy": [0, 0], "weights": [1, 0], "alpha": 0.1, "period": 10, "pull": 1}
        return remedies.rules(w.features, w.update.mdp, **given)

    @pytest.mark.parametrize(
        ("name", "growth"),
        [
            ("plain", 1 + 0.1 * 0.8),
            ("residual gradient", 1 - 0.1 * 0.8**2),
            ("regularised", 1 + 0.1 * (0.8 - 1)),
            ("target network", 0.9**10 + (1 - 0.9**10) * 1.8),
            ("PreQN", 1 + 0.1 * 0.8),
        ],
    )
    def test_growth(self, one, name, growth):
        assert one[name].growth == pytest.approx(growth, rel=1e-12)

    def test_tdc(self, one):
        """x' = x + a (0.8 x - 1.8 h), h' = h + b (0.8 x - h), a = b = 0.1."""
        by_hand = np.array([[1.08, -0.18], [0.08, 0.9]])
        np.testing.assert_allclose(np.linalg.eigvals(one["TDC"].matrix), np.linalg.eigvals(by_hand))
        assert one["TDC"].growth < 1

    def test_where_they_end(self):
        """The true values, wherever the features can hold them and the rule is not pulled away."""
        lever = examples.w_to_2w_full_rank()
        mdp = replace(lever.update.mdp, R=np.ones((2, 1)))
        found = remedies.rules(lever.features, mdp, policy=[0, 0], weights=[0.5, 0.5], alpha=0.1)
        truth = bellman.policy_value(mdp, np.array([0, 0])).ravel()
        np.testing.assert_allclose(truth, [10, 10])
        for name in NAMES:
            assert np.allclose(found[name].rest(), truth) == (name != "regularised")


class TestResidualGradientWithChance:
    """A is followed by B or C, by a coin; B pays 1 and ends, C pays 0 and ends: a table of three values."""

    def rest(self, coin):
        """Return where the rule rests, with shares of a third."""
        P = np.zeros((4, 1, 4))
        P[0, 0, 1:3] = coin
        P[1:, 0, 3] = 1
        mdp = FiniteMDP(P, np.array([[0.0], [1.0], [0.0], [0.0]]), 0.9)
        given = {"policy": np.zeros(4, int), "weights": [1 / 3, 1 / 3, 1 / 3, 0], "alpha": 0.1}
        return remedies.rules(np.eye(4)[:, :3], mdp, **given)["residual gradient"].rest()[:3]

    def least(self, coin):
        """Return where the mean squared TD error of single transitions is least."""
        rows = np.array([[1, -0.9, 0], [1, 0, -0.9], [0, 1, 0], [0, 0, 1]])
        root = np.sqrt([*coin, 1, 1])
        return np.linalg.lstsq(rows * root[:, None], root * [0, 0, 1, 0], rcond=None)[0]

    def test_rests_at_the_truth_and_single_transitions_do_not(self):
        np.testing.assert_allclose(self.rest([0.5, 0.5]), [0.45, 1, 0], atol=1e-12)
        np.testing.assert_allclose(self.least([0.5, 0.5]), [0.45, 0.856, 0.144], atol=1e-3)

    def test_without_chance_they_agree(self):
        np.testing.assert_allclose(self.rest([1, 0]), [0.9, 1, 0], atol=1e-12)
        np.testing.assert_allclose(self.least([1, 0]), [0.9, 1, 0], atol=1e-12)


class TestTargetModulus:
    """The bound holds for all tables and processes, and has the numbers of the page."""

    @pytest.mark.parametrize("seed", range(20))
    def test_bounds_every_difference(self, seed):
        given, rng = problem(seed, n_features=8), np.random.default_rng(seed)
        K = features.kernel(given["features"])
        update = KernelUpdate(given["mdp"], kernel=K, weights=given["weights"], alpha=0.05)
        inner = int(rng.integers(1, 40))
        left = np.linalg.matrix_power(np.eye(6) - 0.05 * K * given["weights"], inner)
        bound = np.linalg.norm(left, np.inf) + 0.9 * np.linalg.norm(np.eye(6) - left, np.inf)
        assert remedies.target_modulus(update, inner) == pytest.approx(bound)
        assert contraction.exact_modulus(update.frozen_target(inner)) <= bound * (1 + 1e-12)

    @pytest.mark.parametrize(("alpha", "period"), [(0.1, 156), (0.2, 77)])
    def test_the_pair(self, alpha, period):
        update = replace(examples.full_data_divergence().update, alpha=alpha)
        assert remedies.patience(update) == period
        exact = [contraction.exact_modulus(update.frozen_target(n)) < 1 for n in (period - 1, period)]
        assert exact == [False, True]

    def test_by_long_steps_a_longer_one_buys_nothing(self):
        """Up to 0.83, the border of the theorem; and after the first period below 1 there is one above it again."""
        pair = examples.full_data_divergence().update
        assert [remedies.patience(replace(pair, alpha=alpha)) for alpha in (0.4, 0.8)] == [38, 44]
        assert remedies.target_modulus(replace(pair, alpha=0.8), 45) > 1.04

    def test_without_data_no_period_is_long_enough(self):
        update = replace(examples.full_data_divergence().update, weights=[0, 1])
        assert remedies.patience(update, longest=2000) is None

    def test_of_a_table(self):
        """K = 1, one pair: the factor is (1 - a)^N + gamma (1 - (1 - a)^N), below 1 from the first step."""
        update = KernelUpdate(FiniteMDP(np.ones((1, 1, 1)), np.ones((1, 1)), 0.5), kernel=[[1]], weights=[1], alpha=0.5)
        assert remedies.target_modulus(update, 2) == pytest.approx(0.25 + 0.5 * 0.75)
        assert remedies.patience(update) == 1


class TestWhatRemediesRefuse:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"alpha": 0}, "alpha must be in (0, inf), got 0"),
            ({"period": 0}, "period must be in [1, inf), got 0"),
            ({"pull": -1}, "pull must be in [0, inf), got -1"),
            ({"pace": 0}, "pace must be in (0, inf), got 0"),
            ({"jitter": -1}, "jitter must be in [0, inf), got -1"),
            ({"batch": [0, 0]}, "batch must list each pair once"),
            ({"weights": [1, 1]}, "weights"),
            ({"features": np.ones((2, 2))}, "features must have shape"),
        ],
    )
    def test_of_rules(self, change, message):
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            remedies.rules(**problem(0) | change)

    def test_of_patience(self):
        with pytest.raises(ValueError, match=r"^longest must be in \[1, inf\), got 0"):
            remedies.patience(examples.self_loop().update, longest=0)

    def test_of_a_start(self):
        rule = remedies.rules(**problem(0))["plain"]
        with pytest.raises(ValueError, match=r"^x must have shape"):
            rule(np.zeros(7))
