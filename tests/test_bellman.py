"""The Bellman operators, and every way to solve them, against other ways to solve them."""

import dataclasses
import re

import gymnasium
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from divergence_notes import bellman, dynamics
from divergence_notes.mdp import FiniteMDP, from_gymnasium, random_mdp
from tests import oracles
from tests.strategies import generators, mdps, tables

few = settings(max_examples=50)


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


def loop(gamma=0.9, reward=1.0):
    return FiniteMDP(np.ones((1, 1, 1)), np.array([[reward]]), gamma)


def sup(x):
    return np.abs(x).max()


class TestOptimalityOperator:
    """T* Q is the expected reward plus gamma times the expected best next value, and nothing after the end."""

    @given(mdp=mdps(), rng=generators(), integers=st.booleans())
    @few
    def test_against_loops(self, mdp, rng, integers):
        Q = tables(mdp, rng, integers=integers)
        before = Q.copy()
        np.testing.assert_allclose(bellman.optimality_backup(Q, mdp), oracles.backup(Q, mdp), atol=1e-12)
        np.testing.assert_array_equal(Q, before)

    def test_the_reward_is_inside_the_expectation(self):
        coin = {0: {0: [(0.5, 0, 0.0, True), (0.5, 0, 10.0, True)]}}
        mdp = from_gymnasium(_Model(coin), 0.9)
        assert bellman.policy_iteration(mdp).Q.tolist() == [[5.0]]  # not 0, not 10

    def test_nothing_after_the_end(self):
        P = np.zeros((2, 2, 2))
        P[0, 0, 1], P[0, 1, 1] = 1.0, 0.5  # (0, 1) ends half of the time, state 1 ends at once
        mdp = FiniteMDP(P, np.array([[1.0, 1.0], [2.0, 2.0]]), 0.9)
        Q = np.array([[100.0, 100.0], [4.0, 8.0]])
        assert bellman.optimality_backup(Q, mdp).tolist() == [[1 + 0.9 * 8, 1 + 0.45 * 8], [2.0, 2.0]]

    def test_dense_and_sparse_agree_and_sparse_stays_sparse(self, rng):
        sparse = random_mdp(30, 3, gamma=0.9, branching=2, rng=rng, sparse=True)
        dense = FiniteMDP(oracles.dense(sparse), sparse.R, 0.9)
        Q = tables(sparse, rng)
        assert sp.issparse(sparse.transitions)
        np.testing.assert_allclose(
            bellman.optimality_backup(Q, sparse), bellman.optimality_backup(Q, dense), atol=1e-14
        )

    @pytest.mark.parametrize(
        ("Q", "message"),
        [
            (np.zeros((2, 1)), "Q must have shape (1, 1), got (2, 1), while mdp has n_states = 1 and n_actions = 1"),
            (np.zeros(1), "Q must have shape (1, 1), got (1,), while mdp has n_states = 1 and n_actions = 1"),
            (np.array([[np.nan]]), "Q must be finite: Q[0, 0] is nan"),
        ],
    )
    def test_refuses(self, Q, message):
        with refuses(ValueError, message):
            bellman.optimality_backup(Q, loop())
        with refuses(ValueError, message):
            bellman.expectation_backup(Q, loop(), [0])


class TestContraction:
    """Both operators shrink sup-norm distances by gamma, keep the order of tables, and some pair attains gamma."""

    @given(mdp=mdps(), rng=generators(), integers=st.booleans())
    @few
    def test_contracts(self, mdp, rng, integers):
        pi = rng.dirichlet(np.ones(mdp.n_actions), size=mdp.n_states)
        Q1, Q2 = tables(mdp, rng, integers=integers), tables(mdp, rng, integers=integers)
        limit = mdp.gamma * sup(Q1 - Q2) + 1e-12
        assert sup(bellman.optimality_backup(Q1, mdp) - bellman.optimality_backup(Q2, mdp)) <= limit
        assert sup(bellman.expectation_backup(Q1, mdp, pi) - bellman.expectation_backup(Q2, mdp, pi)) <= limit

    @given(mdp=mdps(kinds=("dense",)), rng=generators())
    @few
    def test_gamma_is_attained(self, mdp, rng):
        Q = tables(mdp, rng)
        moved = bellman.optimality_backup(Q + 2.0, mdp) - bellman.optimality_backup(Q, mdp)
        np.testing.assert_allclose(moved, 2.0 * mdp.gamma, atol=1e-12)

    @given(mdp=mdps(), rng=generators())
    @few
    def test_monotone(self, mdp, rng):
        Q, pi = tables(mdp, rng), rng.dirichlet(np.ones(mdp.n_actions), size=mdp.n_states)
        above = Q + rng.random(Q.shape) * rng.integers(2, size=Q.shape)
        assert (bellman.optimality_backup(above, mdp) >= bellman.optimality_backup(Q, mdp) - 1e-12).all()
        assert (bellman.expectation_backup(above, mdp, pi) >= bellman.expectation_backup(Q, mdp, pi) - 1e-12).all()


class TestExpectationOperator:
    """T_pi Q averages the next values by the policy; it is never above T* Q, and equals it at the greedy policy."""

    @given(mdp=mdps(), rng=generators())
    @few
    def test_against_loops(self, mdp, rng):
        Q, pi = tables(mdp, rng), rng.dirichlet(np.ones(mdp.n_actions), size=mdp.n_states)
        found = bellman.expectation_backup(Q, mdp, pi)
        np.testing.assert_allclose(found, oracles.backup(Q, mdp, pi), atol=1e-12)
        best = bellman.optimality_backup(Q, mdp)
        assert (found <= best + 1e-12).all()
        np.testing.assert_allclose(bellman.expectation_backup(Q, mdp, Q.argmax(axis=1)), best, atol=1e-12)

    def test_refuses_a_policy_that_is_none(self):
        with refuses(ValueError, "policy must be a distribution: policy[0] sums to 0.5, not to 1"):
            bellman.expectation_backup([[0.0]], loop(), [[0.5]])


class TestGreedyPolicy:
    """The best action of each state; the first one on a tie."""

    def test_both_sides(self):
        policy = bellman.greedy_policy([[1.0, 3.0, 2.0], [5.0, 5.0, 1.0], [-1.0, -1.0, 0.0]])
        assert policy.tolist() == [1, 0, 2]
        assert np.issubdtype(policy.dtype, np.integer)

    def test_refuses(self):
        with refuses(ValueError, "Q must have 2 dimensions, got shape (3,)"):
            bellman.greedy_policy(np.zeros(3))
        with refuses(ValueError, "Q must be finite: Q[0, 1] is nan"):
            bellman.greedy_policy([[0.0, np.nan]])


class TestPolicyValue:
    """Q_pi is the fixed point of T_pi, found by one solve."""

    def test_closed_forms(self):
        assert bellman.policy_value(loop(0.9), [0])[0, 0] == pytest.approx(10)
        swap = FiniteMDP(np.array([[[0.0, 1.0]], [[1.0, 0.0]]]), np.array([[1.0], [0.0]]), 0.5)
        np.testing.assert_allclose(
            bellman.policy_value(swap, [0, 0]), [[4 / 3], [2 / 3]]
        )  # 1 / (1 - gamma^2), gamma of it

    @given(mdp=mdps(), rng=generators())
    @few
    def test_is_the_fixed_point(self, mdp, rng):
        pi = rng.dirichlet(np.ones(mdp.n_actions), size=mdp.n_states)
        Q = bellman.policy_value(mdp, pi)
        assert Q.shape == mdp.R.shape
        np.testing.assert_allclose(oracles.backup(Q, mdp, pi), Q, atol=1e-9)
        actions = rng.integers(mdp.n_actions, size=mdp.n_states)
        np.testing.assert_allclose(bellman.policy_value(mdp, actions), oracles.policy_table(mdp, actions), atol=1e-9)

    def test_is_the_mean_return(self, rng):
        mdp = FiniteMDP(np.array([[[0.3, 0.4]], [[0.5, 0.0]]]), np.array([[1.0], [-2.0]]), 0.8)
        returns = np.zeros(4000)
        for k in range(len(returns)):
            state, weight = 0, 1.0
            while state is not None:
                returns[k] += weight * mdp.R[state, 0]
                weight *= 0.8
                chance = rng.random()
                state = 0 if chance < mdp.P[state, 0, 0] else 1 if chance < mdp.P[state, 0].sum() else None
        assert returns.mean() == pytest.approx(
            bellman.policy_value(mdp, [0, 0])[0, 0], abs=4 * returns.std() / 4000**0.5
        )


class TestPolicyIteration:
    """Policy iteration ends at the optimal table, also with ties, and its error bound holds."""

    @given(mdp=mdps())
    @few
    def test_against_every_policy(self, mdp):
        found, best = bellman.policy_iteration(mdp), oracles.best_table(mdp)
        assert found.status == "converged"
        np.testing.assert_allclose(found.Q, best, atol=1e-9)
        np.testing.assert_allclose(oracles.policy_table(mdp, found.policy), best, atol=1e-9)
        assert sup(found.Q - best) <= found.error_bound + 1e-10
        assert found.error_bound <= 1e-9

    @pytest.mark.parametrize("sparse", [False, True])
    def test_against_a_linear_programme(self, rng, sparse):
        mdp = random_mdp(60, 4, gamma=0.95, branching=4, rng=rng, sparse=sparse)
        np.testing.assert_allclose(bellman.policy_iteration(mdp).Q, oracles.linear_programme(mdp), atol=1e-9, rtol=0)

    @pytest.mark.parametrize("gamma", [0.9, 0.99])
    def test_taxi_against_loops_over_its_own_table(self, gamma):
        env = gymnasium.make("Taxi-v4")
        reference = oracles.table_iteration(env.unwrapped.P, gamma)
        found = bellman.policy_iteration(from_gymnasium(env, gamma))
        assert found.status == "converged"
        assert sup(found.Q - reference) <= 1e-9
        assert found.error_bound <= 1e-9

    @pytest.mark.parametrize("env_id", ["Taxi-v4", "CliffWalking-v1", "FrozenLake-v1", "FrozenLake8x8-v1"])
    def test_environments_against_a_linear_programme(self, env_id):
        mdp = from_gymnasium(gymnasium.make(env_id), 0.95)
        assert sup(bellman.policy_iteration(mdp).Q - oracles.linear_programme(mdp)) <= 1e-9

    def test_rounding_ties_end(self):
        """Four names of one action differ by rounding alone; a switch at every rounding error would never end."""
        for seed in range(40):
            mdp = twins(np.random.default_rng(seed))
            found = bellman.policy_iteration(mdp, max_iter=60)
            assert found.status == "converged"
            assert found.iterations < 20

    def test_a_small_gain_is_still_taken(self):
        mdp = FiniteMDP(np.ones((1, 2, 1)), np.array([[1.0, 1.0 + 1e-9]]), 0.9)
        assert bellman.policy_iteration(mdp).policy.tolist() == [1]

    def test_out_of_iterations(self):
        P = np.zeros((2, 2, 2))
        P[0, 0, 0] = P[0, 1, 1] = P[1, :, 1] = 1.0
        patience = FiniteMDP(P, np.array([[1.0, 0.0], [5.0, 5.0]]), 0.9)  # greed for the first reward is wrong
        first = bellman.policy_iteration(patience, max_iter=1)
        assert first.status == "undecided"
        assert first.iterations == 1
        best = oracles.best_table(patience)
        assert 1 < sup(first.Q - best) <= first.error_bound
        whole = bellman.policy_iteration(patience)
        assert (whole.status, whole.iterations) == ("converged", 2)
        assert whole.policy[0] == 1

    def test_refuses(self):
        with refuses(ValueError, "max_iter must be in [1, inf), got 0"):
            bellman.policy_iteration(loop(), max_iter=0)


def twins(rng):
    """Return a process whose actions are the same action, written with rounding errors."""
    P = np.repeat(rng.dirichlet(np.ones(12), size=(12, 1)), 4, axis=1)
    P *= 1 + 1e-16 * rng.integers(-4, 5, size=P.shape)
    P /= P.sum(axis=2, keepdims=True)
    return FiniteMDP(P, np.repeat(rng.standard_normal((12, 1)), 4, axis=1), 0.99)


class TestValueIteration:
    """Value iteration stops when the span of a sweep certifies the answer, and the certificate is true."""

    @given(mdp=mdps(), tol=st.sampled_from([1.0, 1e-3, 1e-8]))
    @few
    def test_the_bound_holds(self, mdp, tol):
        found, best = bellman.value_iteration(mdp, tol=tol), oracles.best_table(mdp)
        assert found.status == "converged"
        assert found.error_bound <= tol
        assert sup(found.Q - best) <= found.error_bound + 1e-10
        assert found.policy.tolist() == found.Q.argmax(axis=1).tolist()

    @given(mdp=mdps(), sweeps=st.integers(1, 6))
    @few
    def test_the_bound_holds_at_every_sweep(self, mdp, sweeps):
        found = bellman.value_iteration(mdp, tol=1e-12, max_iter=sweeps)
        assert found.iterations <= sweeps
        assert (found.status == "converged") == (found.error_bound <= 1e-12)
        assert sup(found.Q - oracles.best_table(mdp)) <= found.error_bound + 1e-10

    def test_the_bound_is_attained(self):
        islands = FiniteMDP(np.eye(2)[:, None, :], np.array([[0.0], [1.0]]), 0.9)
        found = bellman.value_iteration(islands, tol=1e-3, max_iter=1)
        np.testing.assert_allclose(found.Q, [[4.5], [5.5]])  # where the truth is 0 and 10
        assert found.error_bound == pytest.approx(4.5)

    def test_an_end_counts_as_a_state_at_rest(self):
        mdp = FiniteMDP(np.full((1, 1, 1), 0.5), np.array([[1.0]]), 0.9)
        first = bellman.value_iteration(mdp, tol=1e-6, max_iter=1)
        assert first.status == "undecided"  # the change is the same everywhere, but not at the end
        assert sup(first.Q - 1 / 0.55) <= first.error_bound
        assert bellman.value_iteration(mdp, tol=1e-6).Q[0, 0] == pytest.approx(1 / 0.55, abs=1e-6)

    def test_a_loop_is_solved_in_one_sweep(self):
        found = bellman.value_iteration(loop(0.999), tol=1e-9)
        assert found.iterations == 1
        assert found.Q[0, 0] == pytest.approx(1000)

    @pytest.mark.parametrize("env_id", ["Taxi-v4", "CliffWalking-v1", "FrozenLake-v1", "FrozenLake8x8-v1"])
    def test_environments(self, env_id):
        env = gymnasium.make(env_id)
        reference = oracles.table_iteration(env.unwrapped.P, 0.95, tol=1e-13)
        found = bellman.value_iteration(from_gymnasium(env, 0.95), tol=1e-7)
        assert sup(found.Q - reference) <= found.error_bound + 1e-10 <= 1e-7 + 1e-10

    def test_the_span_saves_sweeps(self, rng):
        mdp = random_mdp(50, 4, gamma=0.99, branching=5, rng=rng)
        found = bellman.value_iteration(mdp, tol=1e-6)
        V, plain, change = np.zeros(50), 0, np.inf
        while 0.99 * change / (1 - 0.99) > 1e-6:  # the sup-norm certificate of the same quality
            new = (mdp.R + 0.99 * np.einsum("sat,t->sa", mdp.P, V)).max(axis=1)
            V, plain, change = new, plain + 1, sup(new - V)
        assert plain > 20 * found.iterations
        assert sup(found.Q - oracles.linear_programme(mdp)) <= 1e-6

    def test_sparse_is_the_same(self, rng):
        sparse = random_mdp(30, 3, gamma=0.9, branching=2, rng=rng, sparse=True)
        dense = FiniteMDP(oracles.dense(sparse), sparse.R, 0.9)
        one, other = bellman.value_iteration(sparse, tol=1e-6), bellman.value_iteration(dense, tol=1e-6)
        np.testing.assert_allclose(one.Q, other.Q, atol=1e-12)
        assert one.iterations == other.iterations

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"tol": 0}, "tol must be in (0, inf), got 0"),
            ({"tol": -1.0}, "tol must be in (0, inf), got -1.0"),
            ({"tol": float("nan")}, "tol must be in (0, inf), got nan"),
            ({"max_iter": 0}, "max_iter must be in [1, inf), got 0"),
        ],
    )
    def test_refuses(self, changes, message):
        with refuses(ValueError, message):
            bellman.value_iteration(loop(), **({"tol": 1e-3} | changes))


class TestRewardBound:
    """No true action value is larger in size than r_max / (1 - gamma), and a loop attains it."""

    @given(mdp=mdps())
    @few
    def test_bounds_every_policy(self, mdp):
        bound = bellman.reward_bound(mdp)
        assert sup(oracles.best_table(mdp)) <= bound + 1e-9
        assert sup(oracles.policy_table(mdp, np.zeros(mdp.n_states, dtype=int))) <= bound + 1e-9

    @pytest.mark.parametrize("reward", [1.0, -1.0])
    def test_is_attained(self, reward):
        assert bellman.reward_bound(loop(0.9, reward)) == pytest.approx(10)


class TestOverEstimates:
    """A new over-estimate in every target adds up to gamma b / (1 - gamma) in a table, and to no more."""

    def test_on_the_loop(self):
        mdp = loop(0.9, 0.0)
        run = dynamics.iterate(
            lambda Q: Q + 0.5 * (bellman.optimality_backup(Q + 1.54, mdp) - Q), [[0.0]], max_iter=2000
        )
        assert run.status == "converged"
        assert run.values[-1, 0, 0] == pytest.approx(0.9 * 1.54 / 0.1, abs=1e-4)
        assert (np.diff(run.sizes) >= 0).all()


class _Model:
    def __init__(self, P):
        self.P = P


class _Space:
    def __init__(self, n):
        self.n = n


class Scripted:
    """An environment scripted by (state, action, count) -> (state, reward, terminated, truncated)."""

    def __init__(self, step, *, n_states=1, n_actions=1):
        self.observation_space, self.action_space, self.rule = _Space(n_states), _Space(n_actions), step
        self.seeds, self.actions = [], []

    def reset(self, *, seed=None):
        self.seeds.append(seed)
        self.state = 0
        return 0, {}

    def step(self, action):
        self.actions.append(action)
        self.state, reward, terminated, truncated = self.rule(self.state, action, len(self.actions))
        return self.state, reward, terminated, truncated, {}


class Sampled(Scripted):
    """The environment that runs a model."""

    def __init__(self, mdp, rng):
        def rule(state, action, count):
            chances = np.append(mdp.P[state, action], 1 - mdp.P[state, action].sum())
            target = int(rng.choice(mdp.n_states + 1, p=chances / chances.sum()))
            return target % mdp.n_states, float(mdp.R[state, action]), target == mdp.n_states, False

        super().__init__(rule, n_states=mdp.n_states, n_actions=mdp.n_actions)


def learn(env, **changes):
    options = {"gamma": 0.9, "steps": 50, "step_size": 1.0, "epsilon": 0.0, "rng": np.random.default_rng(0)} | changes
    return bellman.q_learning(env, **options)


class TestQLearning:
    """Q-learning moves the pair it saw towards reward plus gamma times the best next value, or the reward at an end."""

    def test_an_end_is_not_bootstrapped(self):
        assert learn(Scripted(lambda s, a, k: (0, 1.0, True, False)))[-1].tolist() == [[1.0]]

    def test_a_time_limit_is_bootstrapped(self):
        Q = learn(Scripted(lambda s, a, k: (0, 1.0, False, True)), steps=400)[-1]
        assert Q[0, 0] == pytest.approx(10)

    def test_a_time_limit_bootstraps_from_where_it_stopped(self):
        env = Scripted(lambda s, a, k: (1, float(s), False, s == 1), n_states=2)
        np.testing.assert_allclose(
            learn(env, steps=1000)[-1], [[9.0], [10.0]]
        )  # not from where the next episode starts

    def test_an_end_at_the_time_limit_is_an_end(self):
        assert learn(Scripted(lambda s, a, k: (0, 1.0, True, True)))[-1].tolist() == [[1.0]]

    @pytest.mark.parametrize("power", [0.0, 0.6, 1.0])
    def test_step_sizes(self, power):
        Q, expected = (
            learn(Scripted(lambda s, a, k: (0, float(k), True, False)), steps=9, power=power, step_size=0.5),
            0.0,
        )
        for n in range(1, 10):
            expected += 0.5 / n**power * (n - expected)
        assert Q[-1][0, 0] == pytest.approx(expected)

    def test_each_pair_counts_its_own_visits(self):
        env = Scripted(lambda s, a, k: (0, float(k), True, False), n_actions=2)
        Q = learn(env, steps=40, power=1.0, epsilon=1.0)[-1]
        for action in range(2):
            seen = [k + 1 for k, taken in enumerate(env.actions) if taken == action]
            assert Q[0, action] == pytest.approx(np.mean(seen))  # step sizes 1/n make a mean

    def test_the_best_next_value(self):
        """Two states: the first leads to the second, whose second action pays 1 and whose first pays nothing."""
        env = Scripted(lambda s, a, k: (1, 0.0, False, False) if s == 0 else (0, float(a), True, False), n_states=2,
                       n_actions=2)  # fmt: skip
        np.testing.assert_allclose(learn(env, steps=400, epsilon=1.0)[-1], [[0.9, 0.9], [0.0, 1.0]])

    @pytest.mark.parametrize("epsilon", [0.0, 0.4, 1.0])
    def test_exploration(self, epsilon):
        env = Scripted(lambda s, a, k: (0, (1.0, 0.0, 0.0, -1.0)[a], True, False), n_actions=4)
        learn(env, steps=4000, epsilon=epsilon)
        shares = np.bincount(env.actions[100:], minlength=4) / 3900
        np.testing.assert_allclose(shares, [1 - 0.75 * epsilon] + [epsilon / 4] * 3, atol=0.03)

    def test_ties_are_broken_at_random(self):
        env = Scripted(lambda s, a, k: (0, 0.0, True, False), n_actions=3)
        learn(env, steps=3000)
        np.testing.assert_allclose(np.bincount(env.actions) / 3000, 1 / 3, atol=0.03)

    def test_the_generator_decides_and_seeds_the_environment_once(self):
        def run(seed):
            env = Scripted(lambda s, a, k: (0, float(a), True, False), n_actions=3)
            return learn(env, rng=np.random.default_rng(seed), epsilon=0.5, step_size=0.3), env

        (one, env), (same, again), (other, _) = run(1), run(1), run(2)
        assert one.tolist() == same.tolist()
        assert one.tolist() != other.tolist()
        assert env.seeds == again.seeds
        assert isinstance(env.seeds[0], int)
        assert env.seeds[1:] == [None] * 50

    def test_snapshots(self):
        def run(snapshots):
            return learn(
                Scripted(lambda s, a, k: (0, float(k), True, False)), steps=12, step_size=0.5, snapshots=snapshots
            )

        every = run(12)
        assert every.shape == (12, 1, 1)
        assert every[0] == 0.5
        for snapshots in (1, 3, 4):
            found = run(snapshots)
            assert found.tolist() == every[12 // snapshots - 1 :: 12 // snapshots].tolist()

    def test_a_deterministic_environment_is_learned_exactly(self):
        env = gymnasium.make("FrozenLake-v1", is_slippery=False)
        best = bellman.policy_iteration(from_gymnasium(env, 0.9)).Q
        found = learn(env, steps=40_000, epsilon=1.0, rng=np.random.default_rng(3))[-1]
        np.testing.assert_allclose(found, best, atol=1e-12)

    def test_a_random_environment_is_learned_to_the_table(self, rng):
        mdp = FiniteMDP(0.95 * random_mdp(3, 2, gamma=0.7, branching=2, rng=rng).P, rng.standard_normal((3, 2)), 0.7)
        best = oracles.best_table(mdp)
        found = learn(Sampled(mdp, rng), gamma=0.7, steps=40_000, power=0.7, epsilon=1.0, snapshots=10)
        errors = [sup(Q - best) for Q in found]
        assert errors[-1] < 0.05 < 0.5 < sup(best)
        assert errors[-1] < errors[0]

    @pytest.mark.parametrize(
        ("env_id", "steps"), [pytest.param("Taxi-v4", 200_000, marks=pytest.mark.nightly), ("CliffWalking-v1", 30_000)]
    )
    def test_solves_the_running_environment(self, env_id, steps):
        env = gymnasium.make(env_id)
        Q = bellman.q_learning(env, gamma=0.99, steps=steps, step_size=1.0, epsilon=0.3, rng=np.random.default_rng(0))[
            -1
        ]
        returns = bellman.policy_return(
            gymnasium.make(env_id, max_episode_steps=200), bellman.greedy_policy(Q), episodes=100, seed=1000
        )
        best = undiscounted_optimum(env.unwrapped.P)
        starts = [env.reset(seed=1000 + k)[0] for k in range(100)]
        assert returns.mean() == pytest.approx(np.mean([best[s] for s in starts]), abs=1e-12)
        if env_id == "CliffWalking-v1":
            assert returns.mean() == -13

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"gamma": 1.0}, "gamma must be in [0, 1), got 1.0"),
            ({"step_size": 0}, "step_size must be in (0, 1], got 0"),
            ({"step_size": 1.5}, "step_size must be in (0, 1], got 1.5"),
            ({"power": -0.5}, "power must be in [0, 1], got -0.5"),
            ({"epsilon": 1.1}, "epsilon must be in [0, 1], got 1.1"),
            ({"epsilon": -0.1}, "epsilon must be in [0, 1], got -0.1"),
            ({"steps": 0}, "steps must be in [1, inf), got 0"),
            ({"snapshots": 51}, "snapshots must be in [1, 50], got 51"),
            ({"snapshots": 0}, "snapshots must be in [1, 50], got 0"),
        ],
    )
    def test_refuses(self, changes, message):
        env = Scripted(lambda s, a, k: (0, 0.0, True, False))
        with refuses(ValueError, message):
            learn(env, **changes)
        assert not env.actions


class TestDiscreteEnvironments:
    """A table needs finitely many states and actions."""

    @pytest.mark.parametrize("env_id", ["CartPole-v1", "MountainCarContinuous-v0"])
    def test_refuses(self, env_id):
        env = gymnasium.make(env_id)
        message = f"env must have a discrete observation_space, got {env.observation_space}"
        with refuses(TypeError, message):
            learn(env)
        with refuses(TypeError, message):
            bellman.policy_return(env, [0], episodes=1, seed=0)

    def test_refuses_continuous_actions(self):
        env = Scripted(lambda s, a, k: (0, 0.0, True, False))
        env.action_space = gymnasium.spaces.Box(0, 1)
        with refuses(TypeError, f"env must have a discrete action_space, got {env.action_space}"):
            learn(env)

    @pytest.mark.parametrize(
        ("space", "error", "message"),
        [
            (gymnasium.spaces.MultiBinary(4), TypeError, "env must have a discrete {0}, got MultiBinary(4)"),
            (gymnasium.spaces.Discrete(2, start=1), ValueError, "env must have an {0} that starts at 0, got {1}"),
            (gymnasium.spaces.Discrete(2, start=-1), ValueError, "env must have an {0} that starts at 0, got {1}"),
        ],
    )
    @pytest.mark.parametrize("name", ["observation_space", "action_space"])
    def test_refuses_what_is_numbered_otherwise(self, name, space, error, message):
        """Of 1 and 2 a table from 0 would try a 0 that is none, and never the 2."""
        env = Scripted(lambda s, a, k: (0, 0.0, True, False))
        setattr(env, name, space)
        with refuses(error, message.format(name, space)):
            learn(env)
        with refuses(error, message.format(name, space)):
            bellman.policy_return(env, [0], episodes=1, seed=0)
        assert not env.actions and not env.seeds

    def test_takes_those_of_gymnasium(self):
        env = Scripted(lambda s, a, k: (0, float(a), False, False))
        env.observation_space, env.action_space = gymnasium.spaces.Discrete(1), gymnasium.spaces.Discrete(2)
        assert learn(env, gamma=0.0, epsilon=1.0)[-1].tolist() == [[0.0, 1.0]]


def undiscounted_optimum(table, horizon=200):
    """Return the best total reward of each state within a horizon, by loops over the environment's own table."""
    V = dict.fromkeys(table, 0.0)
    for _ in range(horizon):
        V = {
            s: max(
                sum(p * (r + (0.0 if over else V[t])) for p, t, r, over in outcomes) for outcomes in actions.values()
            )
            for s, actions in table.items()
        }
    return V


class TestPolicyReturn:
    """The undiscounted return of each episode, until it terminates or is truncated."""

    @pytest.mark.parametrize("flags", [(True, False), (False, True)])
    def test_adds_rewards_until_the_episode_is_over(self, flags):
        env = Scripted(lambda s, a, k: (1 - s, 10.0 * s + a, *(flags if k % 3 == 0 else (False, False))), n_states=2,
                       n_actions=2)  # fmt: skip
        returns = bellman.policy_return(env, [1, 0], episodes=2, seed=7)
        assert returns.tolist() == [1 + 10 + 1, 1 + 10 + 1]  # state 0 pays 1, state 1 pays 10, state 0 pays 1
        assert env.seeds == [7, 8]
        assert env.actions == [1, 0, 1] * 2
        halved = bellman.policy_return(env, [1, 0], episodes=1, seed=7, gamma=0.5)
        assert halved.tolist() == [1 + 10 / 2 + 1 / 4]

    def test_along_the_cliff(self):
        cliff, policy = gymnasium.make("CliffWalking-v1"), np.full(48, 1)  # along the top row and down: 17 steps
        policy[[36, 24, 12]], policy[[11, 23, 35]] = 0, 2
        np.testing.assert_allclose(bellman.policy_return(cliff, policy, episodes=1, seed=0), [-17])
        discounted = bellman.policy_return(cliff, policy, episodes=1, seed=0, gamma=0.5)
        np.testing.assert_allclose(discounted, [-(1 - 0.5**17) / 0.5])

    def test_agrees_with_the_model(self):
        env = gymnasium.make("FrozenLake-v1")
        mdp = from_gymnasium(env, 0.9999)
        found = bellman.policy_iteration(mdp)
        returns = bellman.policy_return(env, found.policy, episodes=300, seed=0)
        assert set(returns) <= {0.0, 1.0}
        share = 0.74  # the chance to reach the goal in 100 steps with the best policy, about
        assert abs(returns.mean() - share) < 4 * np.sqrt(share * (1 - share) / 300)

    @pytest.mark.parametrize(
        ("policy", "error", "message"),
        [
            ([0], ValueError, "policy must have shape (2,), got (1,), while env has 2 states"),
            ([0, 1], ValueError, "policy must hold indices in [0, 0]: policy[1] is 1"),
            ([0.0, 0.0], TypeError, "policy must be an array of integers, got dtype float64"),
        ],
    )
    def test_refuses(self, policy, error, message):
        env = Scripted(lambda s, a, k: (0, 0.0, True, False), n_states=2)
        with refuses(error, message):
            bellman.policy_return(env, policy, episodes=1, seed=0)
        with refuses(ValueError, "episodes must be in [1, inf), got 0"):
            bellman.policy_return(env, [0, 0], episodes=0, seed=0)
        with refuses(ValueError, "gamma must be in [0, 1], got 1.5"):
            bellman.policy_return(env, [0, 0], episodes=1, seed=0, gamma=1.5)


class TestDiscountedReturns:
    """The return after each step is a sum over what follows, and equals the reward plus gamma times the next return."""

    @given(rng=generators(), gamma=st.sampled_from([0, 0.5, 0.9, 1]), length=st.integers(0, 12))
    @few
    def test_against_the_sum(self, rng, gamma, length):
        rewards = rng.standard_normal(length)
        expected = [sum(gamma ** (k - t) * rewards[k] for k in range(t, length)) for t in range(length)]
        found = bellman.discounted_returns(rewards, gamma=gamma)
        assert found.shape == (length,)
        np.testing.assert_allclose(found, expected, atol=1e-12)

    def test_closed_form(self):
        assert bellman.discounted_returns([1.0, 2.0, 4.0], gamma=0.5).tolist() == [3.0, 4.0, 4.0]

    def test_refuses(self):
        for gamma in (-0.1, 1.1):
            with refuses(ValueError, f"gamma must be in [0, 1], got {gamma}"):
                bellman.discounted_returns([1.0], gamma=gamma)
        with refuses(ValueError, "rewards must have 1 dimensions, got shape (1, 1)"):
            bellman.discounted_returns([[1.0]], gamma=1)


class TestInputsStayAsTheyAre:
    """No solver changes its process."""

    def test_replacing_gamma_moves_the_answer(self):
        mdp = loop(0.9)
        assert bellman.policy_iteration(dataclasses.replace(mdp, gamma=0)).Q[0, 0] == 1
        assert bellman.policy_iteration(mdp).Q[0, 0] == pytest.approx(10)


def test_a_policy_that_never_ends_is_cut():
    """Walking up from the start of the cliff stays in the first column for ever, at -1 a step."""
    env = gymnasium.make("CliffWalking-v1")
    found = bellman.policy_return(env, np.zeros(48, dtype=int), episodes=2, seed=0, max_steps=50)
    np.testing.assert_array_equal(found, [-50, -50])


class TestSparseAndDense:
    """Up to `DENSE` states a sparse process is solved as a dense one, beyond by spsolve: the same table to rounding."""

    @pytest.mark.parametrize("n_states", [1, 2, 30, 120])
    def test_the_same_table(self, n_states, rng, monkeypatch):
        for gamma in (0.0, 0.5, 0.99, 0.9999):
            branching = min(n_states, 4)
            mdp = random_mdp(n_states, 3, gamma=gamma, branching=branching, rng=rng, sparse=True)
            dense = dataclasses.replace(mdp, P=mdp.P.toarray().reshape(n_states, 3, n_states))
            policy = rng.dirichlet(np.ones(3), size=n_states)
            with monkeypatch.context() as patch:
                patch.setattr(bellman, "DENSE", 0)
                if n_states > 1:  # spsolve gives one number for one state
                    apart = bellman.policy_value(mdp, policy)
                else:
                    apart = mdp.R + gamma * (policy * mdp.R).sum() / (1 - gamma)
            for found in (bellman.policy_value(mdp, policy), bellman.policy_value(dense, policy)):
                scale = np.abs(apart).max() / (1 - gamma)  # the condition of the system
                np.testing.assert_allclose(found, apart, rtol=0, atol=1e-14 * scale)
            one, other = bellman.policy_iteration(mdp), bellman.policy_iteration(dense)
            np.testing.assert_array_equal(one.policy, other.policy)
            np.testing.assert_allclose(one.Q, other.Q, rtol=0, atol=1e-14 * max(1, np.abs(one.Q).max()) / (1 - gamma))

    def test_which_one_is_asked(self, rng, monkeypatch):
        """On each side of the limit."""
        import scipy.sparse.linalg

        asked, spsolve = [], scipy.sparse.linalg.spsolve
        monkeypatch.setattr(scipy.sparse.linalg, "spsolve", lambda *given: asked.append(given) or spsolve(*given))
        monkeypatch.setattr(bellman, "DENSE", 20)
        for n_states in (19, 20, 21, 22):
            mdp = random_mdp(n_states, 2, gamma=0.9, branching=2, rng=rng, sparse=True)
            bellman.policy_value(mdp, np.zeros(n_states, dtype=int))
            assert len(asked) == max(0, n_states - 20)
