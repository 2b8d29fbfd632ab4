"""The model of a process: what it accepts, how it numbers pairs, and where models come from."""

import dataclasses
import math
import re
from collections import defaultdict

import gymnasium
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings

from divergence_notes import bellman
from divergence_notes.mdp import (
    FiniteMDP,
    from_gymnasium,
    from_transitions,
    random_mdp,
    reachable,
    stationary_distribution,
)
from tests import oracles
from tests.strategies import generators, mdps

TOY_TEXT = {
    "frozen lake": ("FrozenLake-v1", {"map_name": "4x4", "is_slippery": True}, 2_000),
    "dry lake": ("FrozenLake-v1", {"map_name": "4x4", "is_slippery": False}, 1),
    "large lake": ("FrozenLake-v1", {"map_name": "8x8", "is_slippery": True}, 400),
    "large dry lake": ("FrozenLake-v1", {"map_name": "8x8", "is_slippery": False}, 1),
    "rare slips": ("FrozenLake-v1", {"map_name": "4x4", "success_rate": 0.8, "reward_schedule": (5, -2, -1)}, 2_000),
    "taxi": ("Taxi-v4", {}, 1),
    "taxi in rain": ("Taxi-v4", {"is_rainy": True}, 30),
    "cliff": ("CliffWalking-v1", {}, 1),
    "icy cliff": ("CliffWalking-v1", {"is_slippery": True}, 600),
}


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


def two_states(**changes):
    P = np.zeros((2, 2, 2))
    P[0, 0], P[0, 1], P[1, 0] = (0.25, 0.75), (1, 0), (0, 0.5)  # [1, 1] ends the episode
    return {"P": P, "R": np.array([[1.0, 2.0], [3.0, 4.0]]), "gamma": 0.9} | changes


def spoiled(index, value):
    P = two_states()["P"]
    P[index] = value
    return P


class TestWhatIsAProcess:
    """P holds distributions over next states, or less; R one reward for each pair; gamma lies in [0, 1)."""

    @pytest.mark.parametrize("convert", [lambda P: P, lambda P: P.tolist(), lambda P: sp.csr_array(P.reshape(4, 2)),
                                         lambda P: sp.coo_matrix(P.reshape(4, 2))])  # fmt: skip
    def test_accepts(self, convert):
        mdp = FiniteMDP(**two_states(P=convert(two_states()["P"])))
        assert (mdp.n_states, mdp.n_actions, mdp.n_pairs) == (2, 2, 4)
        assert oracles.dense(mdp).tolist() == two_states()["P"].tolist()
        assert mdp.continuation.tolist() == [1, 1, 0.5, 0]

    @pytest.mark.parametrize("gamma", [0, 0.0, np.float64(0.5), 1 - 1e-9])
    def test_accepts_gamma(self, gamma):
        assert type(FiniteMDP(**two_states(gamma=gamma)).gamma) is float

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"gamma": 1}, "gamma must be in [0, 1), got 1"),
            ({"gamma": 1.0}, "gamma must be in [0, 1), got 1.0"),
            ({"gamma": -0.1}, "gamma must be in [0, 1), got -0.1"),
            ({"gamma": float("nan")}, "gamma must be in [0, 1), got nan"),
            ({"P": spoiled((0, 1), (0.6, 0.5))},
             "P must be a distribution over next states, or less: P[0, 1] sums to 1.1"),
            ({"P": np.full((2, 2, 2), 1.0)}, "P must be a distribution over next states, or less: P[0, 0] sums to 2"),
            ({"P": spoiled((1, 1), (0.5, 0.50001))},
             "P must be a distribution over next states, or less: P[1, 1] sums to 1.00001"),
            ({"P": spoiled((1, 0), (-0.5, 0.5))}, "P must be non-negative: P[1, 0, 0] is -0.5"),
            ({"P": spoiled((1, 1), (0, np.nan))}, "P must be finite: P[1, 1, 1] is nan"),
            ({"P": np.zeros((2, 3, 2))},
             "P and R must agree in shape: R has shape (2, 2), so that P has (2, 2, 2); got (2, 3, 2)"),
            ({"P": np.zeros((4, 2))}, "P must have 3 dimensions, got shape (4, 2)"),
            ({"R": np.zeros((3, 2))},
             "P and R must agree in shape: R has shape (3, 2), so that P has (3, 2, 3); got (2, 2, 2)"),
            ({"P": np.zeros((2, 2, 3))},
             "P must have shape (n_states, n_actions, n_states), got (2, 2, 3), while R has shape (2, 2)"),
            ({"P": sp.csr_array((3, 2))},
             "P and R must agree in shape: R has shape (2, 2), so that P has (4, 2); got (3, 2)"),
            ({"P": sp.csr_array(spoiled((1, 0), (-0.5, 0.5)).reshape(4, 2))},
             "P must be finite and non-negative: P[2, 0] is -0.5"),
            ({"P": sp.csr_array(spoiled((1, 1), (0, np.nan)).reshape(4, 2))},
             "P must be finite and non-negative: P[3, 1] is nan"),
            ({"P": sp.csr_array(spoiled((1, 0), (0.7, 0.7)).reshape(4, 2))},
             "P must be a distribution over next states, or less: P[1, 0] sums to 1.4"),
            ({"P": sp.coo_array(([0.8, 0.8], ([3, 3], [1, 1])), shape=(4, 2))},
             "P must be a distribution over next states, or less: P[1, 1] sums to 1.6"),
            ({"R": np.zeros(4)}, "R must have 2 dimensions, got shape (4,)"),
            ({"R": np.zeros((2, 0))}, "R must have at least one state and one action, got shape (2, 0)"),
            ({"R": np.array([[0.0, 1.0], [np.inf, 0.0]])}, "R must be finite: R[1, 0] is inf"),
        ],
    )  # fmt: skip
    def test_refuses(self, changes, message):
        with refuses(ValueError, message):
            FiniteMDP(**two_states(**changes))

    def test_refuses_a_bool_for_gamma(self):
        with refuses(TypeError, "gamma must be a number, got True"):
            FiniteMDP(**two_states(gamma=True))

    def test_refuses_text_for_gamma(self):
        with pytest.raises(TypeError, match="gamma"):  # the words are the hook's here; tests/test_checks.py has ours
            FiniteMDP(**two_states(gamma="a"))

    def test_sparse_entries_listed_twice_add_up(self):
        """Two entries for one place are one number, which is all that has to be non-negative."""
        twice = sp.csr_array((np.array([-0.25, 0.75]), np.array([1, 1]), np.array([0, 2, 2, 2, 2])), shape=(4, 2))
        mdp = FiniteMDP(**two_states(P=twice))
        assert mdp.P.nnz == 1
        assert oracles.dense(mdp)[0, 0].tolist() == [0, 0.5]

    def test_rounding_is_no_error(self):
        assert FiniteMDP(**two_states(P=spoiled((0, 1), (0.1 + 0.2, 0.7)))).P[0, 1].sum() >= 1

    @pytest.mark.parametrize("sparse", [False, True])
    @pytest.mark.parametrize("over", [9e-9, 1e-12, 2.0**-52])
    def test_mass_above_one_is_scaled_down(self, sparse, over):
        """Exactly, and once: what comes out is left as it is the second time."""
        P = np.array([[[0.3, 0.7 + over]], [[1 + over, 0]]])
        mdp = FiniteMDP(sp.csr_array(P.reshape(2, 2)) if sparse else P, np.ones((2, 1)), 1 - 2.0**-30)
        rows = oracles.dense(mdp).reshape(2, 2)
        assert [math.fsum(row) for row in rows] == [1, 1]
        np.testing.assert_allclose(rows, P.reshape(2, 2), rtol=2e-8)
        again = dataclasses.replace(mdp, gamma=0.5)
        np.testing.assert_array_equal(oracles.dense(again), oracles.dense(mdp))

    def test_mass_below_one_is_left_alone(self):
        P = np.array([[[1 - 1e-12]]])
        assert FiniteMDP(P, [[1.0]], 0.5).P.tolist() == P.tolist()

    @given(rng=generators())
    @settings(max_examples=40)
    def test_no_row_ever_sums_to_more(self, rng):
        P = rng.dirichlet(np.ones(9), size=(9, 2)) * (1 + rng.choice([0, 1e-16, 3e-16, 1e-9]))
        mdp = FiniteMDP(P, np.zeros((9, 2)), 0.5)
        assert max(math.fsum(row) for row in mdp.transitions) <= 1
        sparse = FiniteMDP(sp.csr_array(P.reshape(18, 9)), np.zeros((9, 2)), 0.5)
        np.testing.assert_array_equal(oracles.dense(sparse), oracles.dense(mdp))

    @pytest.mark.parametrize("sparse", [False, True])
    def test_is_a_read_only_copy(self, sparse):
        given_P, given_R = two_states()["P"].reshape(4, 2) if sparse else two_states()["P"], two_states()["R"]
        given_P = sp.csr_array(given_P) if sparse else given_P
        mdp = FiniteMDP(given_P, given_R, 0.9)
        given_R[0, 0] = 99
        (given_P.data if sparse else given_P)[:] = 0.0
        assert mdp.R[0, 0] == 1
        assert oracles.dense(mdp)[0, 0].tolist() == [0.25, 0.75]
        with pytest.raises(ValueError, match="read-only"):
            mdp.R[0, 0] = 0
        with pytest.raises(ValueError, match="read-only"):
            (mdp.P.data if sparse else mdp.P)[0] = 0
        with pytest.raises(dataclasses.FrozenInstanceError):
            mdp.gamma = 0.5

    def test_replace_changes_the_discount(self):
        mdp = FiniteMDP(**two_states())
        other = dataclasses.replace(mdp, gamma=0.5)
        assert (mdp.gamma, other.gamma) == (0.9, 0.5)
        assert other.P.tolist() == mdp.P.tolist()
        with refuses(ValueError, "gamma must be in [0, 1), got 1.5"):
            dataclasses.replace(mdp, gamma=1.5)


class TestPairNumbers:
    """Pair (s, a) has the number i = s * n_actions + a, in every vector, matrix and table."""

    @given(mdp=mdps())
    @settings(max_examples=40)
    def test_there_and_back(self, mdp):
        table = np.array([[s * mdp.n_actions + a for a in range(mdp.n_actions)] for s in range(mdp.n_states)])
        assert mdp.flatten(table).tolist() == list(range(mdp.n_pairs))
        assert mdp.unflatten(range(mdp.n_pairs)).tolist() == table.tolist()

    def test_are_copies(self):
        mdp = FiniteMDP(**two_states())
        Q, q = np.zeros((2, 2)), np.zeros(4)
        mdp.flatten(Q)[0] = 1
        mdp.unflatten(q)[0, 0] = 1
        assert not Q.any()
        assert not q.any()

    def test_refuse_other_shapes(self):
        mdp = FiniteMDP(**two_states())
        with refuses(ValueError, "Q must have shape (2, 2), got (4,), while mdp has n_states = 2 and n_actions = 2"):
            mdp.flatten(np.zeros(4))
        with refuses(ValueError, "q must have shape (4,), got (2, 2), while mdp has n_states = 2 and n_actions = 2"):
            mdp.unflatten(np.zeros((2, 2)))

    @given(mdp=mdps())
    @settings(max_examples=40)
    def test_rows_of_transitions(self, mdp):
        rows = mdp.transitions.toarray() if sp.issparse(mdp.P) else mdp.transitions
        P = oracles.dense(mdp)
        for i, (s, a) in enumerate(oracles.pairs(mdp)):
            np.testing.assert_array_equal(rows[i], P[s, a])
            assert mdp.continuation[i] == pytest.approx(P[s, a].sum())
        assert sp.issparse(mdp.transitions) == sp.issparse(mdp.P)


class TestPolicies:
    """A policy is an action or a distribution for each state; it turns P into a matrix from pair to pair."""

    @given(mdp=mdps(), rng=generators())
    @settings(max_examples=40)
    def test_pair_transitions(self, mdp, rng):
        pi = rng.dirichlet(np.ones(mdp.n_actions), size=mdp.n_states)
        P, order = oracles.dense(mdp), oracles.pairs(mdp)
        expected = [[P[s, a, t] * pi[t, b] for t, b in order] for s, a in order]
        np.testing.assert_allclose(mdp.pair_transitions(pi), expected, atol=1e-15)
        actions = rng.integers(mdp.n_actions, size=mdp.n_states)
        np.testing.assert_allclose(mdp.pair_transitions(actions), oracles.chain(mdp, actions), atol=1e-15)

    def test_actions_as_rows(self):
        assert FiniteMDP(**two_states()).policy_matrix([1, 0]).tolist() == [[0, 1], [1, 0]]

    @pytest.mark.parametrize(
        ("policy", "error", "message"),
        [
            ([0, 2], ValueError, "policy must hold indices in [0, 1]: policy[1] is 2"),
            ([0, -1], ValueError, "policy must hold indices in [0, 1]: policy[1] is -1"),
            (
                [0, 0, 0],
                ValueError,
                "policy must have shape (2,), got (3,), while mdp has n_states = 2 and n_actions = 2",
            ),
            ([0.0, 1.0], TypeError, "policy must be an array of integers, got dtype float64"),
            ([[1, 0], [0.5, 0.4]], ValueError, "policy must be a distribution: policy[1] sums to 0.9, not to 1"),
            ([[1, 0], [1.5, -0.5]], ValueError, "policy must be non-negative: policy[1, 1] is -0.5"),
            (
                [[1.0, 0.0]],
                ValueError,
                "policy must have shape (2, 2), got (1, 2), while mdp has n_states = 2 and n_actions = 2",
            ),
        ],
    )
    def test_refuses(self, policy, error, message):
        with refuses(error, message):
            FiniteMDP(**two_states()).policy_matrix(policy)


def compare_with_rollouts(mdp, env, samples):
    """Step the running environment from every pair and compare frequencies, mean rewards and endings with the model."""
    env = env.unwrapped
    env.reset(seed=5)
    P, continuation = oracles.dense(mdp), mdp.continuation.reshape(mdp.R.shape)
    for s, a in oracles.pairs(mdp):
        counts, rewards, endings = np.zeros(mdp.n_states), np.zeros(samples), 0
        for k in range(samples):
            env.s = s
            state, rewards[k], terminated, truncated, _ = env.step(a)
            assert not truncated
            endings += terminated
            counts[state] += not terminated
        spread = 6 * np.sqrt(P[s, a] * (1 - P[s, a]) / samples) + 1e-12
        assert (np.abs(counts / samples - P[s, a]) <= spread).all(), (s, a)
        ends = 1 - continuation[s, a]
        assert abs(endings / samples - ends) <= 6 * np.sqrt(max(ends * (1 - ends), 0) / samples) + 1e-12, (s, a)
        assert abs(rewards.mean() - mdp.R[s, a]) <= 6 * rewards.std() / np.sqrt(samples) + 1e-12, (s, a)


class TestFromGymnasium:
    """The model read from an environment is the one that runs in it; an end pays and is not bootstrapped."""

    @pytest.mark.parametrize("name", TOY_TEXT)
    def test_agrees_with_rollouts(self, name):
        env_id, options, samples = TOY_TEXT[name]
        env = gymnasium.make(env_id, **options)
        mdp = from_gymnasium(env, 0.9)
        assert (mdp.n_states, mdp.n_actions, mdp.gamma) == (env.observation_space.n, env.action_space.n, 0.9)
        assert mdp.continuation.min() < 0.9  # it has an end to get wrong
        compare_with_rollouts(mdp, env, samples)

    @pytest.mark.parametrize("name", ["frozen lake", "dry lake", "taxi", "cliff"])
    @pytest.mark.parametrize("fault", ["bootstraps through the end", "loses the last reward", "swaps two actions"])
    def test_a_fault_is_seen(self, name, fault):
        env_id, options, samples = TOY_TEXT[name]
        env = gymnasium.make(env_id, **options)
        mdp = from_gymnasium(env, 0.9)
        P, R = oracles.dense(mdp).copy(), mdp.R.copy()
        for s, a in oracles.pairs(mdp):
            for probability, state, reward, terminated in env.unwrapped.P[s][a]:
                if fault == "bootstraps through the end" and terminated:
                    P[s, a, state] += probability
                if fault == "loses the last reward" and terminated:
                    R[s, a] -= probability * reward
        if fault == "swaps two actions":
            P[:, [0, 1]] = P[:, [1, 0]]
        with pytest.raises(AssertionError):
            compare_with_rollouts(FiniteMDP(P, R, 0.9), env, min(samples, 200))

    def test_outcomes_listed_twice_add_up(self):
        table = {0: {0: [(0.25, 0, 1.0, False), (0.5, 0, 3.0, False), (0.25, 0, 7.0, True)]}}
        mdp = from_gymnasium(_Table(table), 0.5)
        assert mdp.P.tolist() == [[[0.75]]]
        assert mdp.R.tolist() == [[0.25 * 1 + 0.5 * 3 + 0.25 * 7]]

    @pytest.mark.parametrize("name", ["dry lake", "rare slips", "taxi", "icy cliff"])
    def test_reads_other_tables(self, name):
        """Lists, arrays of arrays, generators, arrays of one entry, and outcomes that go on: all one model."""
        env_id, options, _ = TOY_TEXT[name]
        env = gymnasium.make(env_id, **options)
        P, want = env.unwrapped.P, from_gymnasium(env, 0.9)
        S, A = want.R.shape
        lists = [[P[s][a] for a in range(A)] for s in range(S)]
        objects = np.empty((S, A), dtype=object)
        for s, a in np.ndindex(S, A):
            objects[s, a] = P[s][a]
        boxed = {s: {a: [tuple(np.array([x]) for x in row) for row in P[s][a]] for a in range(A)} for s in range(S)}
        longer = [[[(*row, False, {}) for row in P[s][a]] for a in range(A)] for s in range(S)]
        lazy = {s: {a: (row for row in P[s][a]) for a in range(A)} for s in range(S)}
        tables = [lists, objects, boxed, longer, lazy, {np.int64(s): row for s, row in enumerate(lists)}]
        if len({len(P[s][a]) for s in range(S) for a in range(A)}) == 1:
            tables.append(np.array(lists, dtype=float))
        for table in tables:
            found = from_gymnasium(_Table(table), 0.9)
            np.testing.assert_array_equal(found.P, want.P)
            np.testing.assert_array_equal(found.R, want.R)

    def test_refuses_an_env_without_a_model(self):
        env = gymnasium.make("CartPole-v1")
        message = f"env must expose its model as a table `P[s][a]`, as Taxi does; {env} has NoneType"
        with refuses(TypeError, message):
            from_gymnasium(env, 0.9)

    END = ((1.0, 0, 0.0, True),)

    @pytest.mark.parametrize(
        ("table", "error", "message"),
        [
            ("P", TypeError, "env must expose its model as a table `P[s][a]`, as Taxi does; a table env has str"),
            ({}, ValueError, "env.P must have at least one entry, got none"),
            ({0: {}}, ValueError, "env.P[0] must have at least one entry, got none"),
            ({0: 3}, TypeError, "env.P[0] must be a mapping, a sequence or an array, got int"),
            ({1: {0: END}, 2: {0: END}}, ValueError, "env.P must have the keys 0 to 1: 0 is missing, it has 1, 2"),
            ({"a": {0: END}}, ValueError, "env.P must have the keys 0 to 0: 0 is missing, it has 'a'"),
            ({0: {0: END, 2: END}}, ValueError, "env.P[0] must have the keys 0 to 1: 1 is missing, it has 0, 2"),
            ({0: {0: END}, 1: {0: END, 1: END}}, ValueError,
             "env.P must have the same actions in every state: P[1] has 2, P[0] has 1"),
            ({0: {0: END, 1: END}, 1: {0: END}}, ValueError,
             "env.P must have the same actions in every state: P[1] has 1, P[0] has 2"),
            ({0: {0: END, 1: [(0.5, 0, 0.0, False), (0.4, 0, 0.0, True)]}}, ValueError,
             "env.P must hold distributions: P[0][1] sums to 0.9, not to 1"),
            ({0: {0: []}}, ValueError, "env.P must hold distributions: P[0][0] sums to 0, not to 1"),
            ({0: {0: [(1.5, 0, 0.0, False), (-0.5, 0, 0.0, False)]}}, ValueError,
             "env.P[0][0][0] must have a probability in [0, 1], got 1.5"),
            ({0: {0: [(0.5, 0, 0.0, False), (-0.5, 0, 0.0, False), (1.0, 0, 0.0, True)]}}, ValueError,
             "env.P[0][0][1] must have a probability in [0, 1], got -0.5"),
            ({0: {0: [(float("nan"), 0, 0.0, False)]}}, ValueError,
             "env.P[0][0][0] must have a probability that is finite, got nan"),
            ({0: {0: [(1.0, 1, 0.0, False)]}}, ValueError, "env.P[0][0][0] must have a next_state in [0, 0], got 1"),
            ({0: {0: [(1.0, -1, 0.0, False)]}}, ValueError, "env.P[0][0][0] must have a next_state in [0, 0], got -1"),
            ({0: {0: [(1.0, 0.5, 0.0, False)]}}, ValueError,
             "env.P[0][0][0] must have a next_state in [0, 0], got 0.5"),
            ({0: {0: [(1.0, "0", 0.0, False)]}}, TypeError,
             "env.P[0][0][0] must have a next_state that is a number, got '0'"),
            ({0: {0: [(1.0, 0, np.inf, False)]}}, ValueError,
             "env.P[0][0][0] must have a reward that is finite, got inf"),
            ({0: {0: [(1.0, 0, None, False)]}}, TypeError,
             "env.P[0][0][0] must have a reward that is a number, got None"),
            ({0: {0: [(1.0, 0, 0.0, "False")]}}, TypeError,
             "env.P[0][0][0] must have a flag terminated that is True or False, got 'False'"),
            ({0: {0: [(1.0, 0, 0.0, 2)]}}, TypeError,
             "env.P[0][0][0] must have a flag terminated that is True or False, got 2"),
            ({0: {0: [(1.0, 0, 0.0)]}}, ValueError,
             "env.P[0][0][0] must be (probability, next_state, reward, terminated), got 3 fields"),
            ({0: {0: (1.0, 0, 0.0, True)}}, ValueError,
             "env.P[0][0][0] must be (probability, next_state, reward, terminated), got 1.0"),
        ],
    )  # fmt: skip
    def test_loses_nothing_in_silence(self, table, error, message):
        with refuses(error, message):
            from_gymnasium(_Table(table), 0.9)

    def test_refuses_gamma(self):
        with refuses(ValueError, "gamma must be in [0, 1), got 1"):
            from_gymnasium(gymnasium.make("CliffWalking-v1"), 1)


class _Table:
    def __init__(self, P):
        self.P = P

    def __str__(self):
        return "a table env"


STEPS = [(0, 0, 1.0, 1, False), (0, 0, 3.0, 0, False), (0, 0, 5.0, 1, True), (1, 1, -1.0, 0, False)]


class TestFromTransitions:
    """The process that stored steps describe: frequencies, averages, and nothing after a terminated step."""

    def test_by_hand(self):
        mdp, weights = from_transitions(STEPS, n_states=2, n_actions=2, gamma=0.5)
        np.testing.assert_allclose(mdp.P[0, 0], [1 / 3, 1 / 3])  # the third step ended: it leads nowhere
        np.testing.assert_allclose(mdp.P[1, 1], [1, 0])
        np.testing.assert_allclose(mdp.R, [[3, 0], [0, -1]])
        np.testing.assert_allclose(weights, [0.75, 0, 0, 0.25])
        assert not mdp.P[0, 1].any() and not mdp.P[1, 0].any()

    def test_its_backup_is_the_average_of_the_sampled_targets(self, rng):
        """Averages are taken after the max, and a terminated step adds its reward alone."""
        env = gymnasium.make("FrozenLake-v1")
        steps, (state, _) = [], env.reset(seed=0)
        for action in rng.integers(4, size=600):
            after, reward, terminated, truncated, _ = env.step(int(action))
            steps.append((state, int(action), reward, after, terminated))
            state = env.reset()[0] if terminated or truncated else after
        Q, targets = rng.standard_normal((16, 4)), defaultdict(list)
        for s, a, reward, after, terminated in steps:
            targets[s, a].append(reward + (0.0 if terminated else 0.9 * Q[after].max()))
        mdp, weights = from_transitions(steps, n_states=16, n_actions=4, gamma=0.9)
        backup = bellman.optimality_backup(Q, mdp)
        for (s, a), values in targets.items():
            assert backup[s, a] == pytest.approx(np.mean(values))
            assert weights[4 * s + a] == pytest.approx(len(values) / 600)
        assert weights.sum() == pytest.approx(1) and (weights == 0).sum() == 64 - len(targets)

    def test_more_data_comes_closer_to_the_model(self, rng):
        env = gymnasium.make("FrozenLake-v1")
        model, gaps = from_gymnasium(env, 0.9), []
        env.reset(seed=0)
        for size in (50, 5000):
            steps = []
            for _ in range(size):
                env.reset()
                env.unwrapped.s = int(rng.choice([0, 1, 2, 3, 4, 6]))
                state, action = env.unwrapped.s, int(rng.integers(4))
                after, reward, terminated, _, _ = env.step(action)
                steps.append((state, action, reward, after, terminated))
            mdp, weights = from_transitions(steps, n_states=16, n_actions=4, gamma=0.9)
            drawn = (weights > 0).reshape(16, 4)
            gaps.append(np.abs(mdp.P - model.P)[drawn].max())
        assert gaps[1] < 0.1 < gaps[0]

    @pytest.mark.parametrize(
        "given",
        [
            iter(STEPS),
            (step for step in STEPS),
            np.array(STEPS, dtype=float),
            [(*step, False) for step in STEPS],
            [(*step[:4], step[4], True) for step in STEPS],  # a time limit ends nothing
            [tuple(np.array([x]) for x in step) for step in STEPS],
            [list(map(np.asarray, step)) for step in STEPS],
            [(np.int32(s), a, r, t, int(over)) for s, a, r, t, over in STEPS],
        ],
        ids=["iterator", "generator", "array", "truncated", "at the limit", "boxed", "0-d", "mixed"],
    )
    def test_reads(self, given):
        mdp, weights = from_transitions(given, n_states=2, n_actions=2, gamma=0.5)
        want, shares = from_transitions(STEPS, n_states=2, n_actions=2, gamma=0.5)
        np.testing.assert_array_equal(mdp.P, want.P)
        np.testing.assert_array_equal(mdp.R, want.R)
        np.testing.assert_array_equal(weights, shares)

    GOOD = (0, 0, 0.0, 0, False)

    @pytest.mark.parametrize(
        ("steps", "error", "message"),
        [
            ([], ValueError, "transitions must hold at least one step, got none"),
            ([(2, 0, 0.0, 0, False)], ValueError, "transitions[0] must have a state in [0, 1], got 2"),
            ([GOOD, (0, -1, 0.0, 0, False)], ValueError, "transitions[1] must have an action in [0, 1], got -1"),
            ([GOOD, (0, 0, 0.0, 7, False)], ValueError, "transitions[1] must have a next_state in [0, 1], got 7"),
            ([(0.5, 0, 0.0, 0, False)], ValueError, "transitions[0] must have a state in [0, 1], got 0.5"),
            ([(True, 0, 0.0, 0, False)], TypeError, "transitions[0] must have a state that is a number, got True"),
            ([GOOD, (0, 0, np.nan, 0, False)], ValueError, "transitions[1] must have a reward that is finite, got nan"),
            ([(0, 0, "1", 0, False)], TypeError, "transitions[0] must have a reward that is a number, got '1'"),
            ([(0, 0, [1.0, 2.0], 0, False)], TypeError,
             "transitions[0] must have a reward that is a number, got [1.0, 2.0]"),
            ([GOOD, (0, 0, 0.0, 0, "False")], TypeError,
             "transitions[1] must have a flag terminated that is True or False, got 'False'"),
            ([(0, 0, 0.0, 0, 0.5)], TypeError,
             "transitions[0] must have a flag terminated that is True or False, got 0.5"),
            ([(0, 0, 0.0, 0)], ValueError,
             "transitions[0] must be (state, action, reward, next_state, terminated), got 4 fields"),
            ([(*GOOD, False, {})], ValueError,
             "transitions[0] must be (state, action, reward, next_state, terminated), got 7 fields"),
            ([GOOD, 3], ValueError, "transitions[1] must be (state, action, reward, next_state, terminated), got 3"),
        ],
    )  # fmt: skip
    def test_refuses(self, steps, error, message):
        with pytest.raises(error, match="^" + re.escape(message) + "$"):
            from_transitions(steps, n_states=2, n_actions=2, gamma=0.5)


class TestRandomProcess:
    """A Garnet: each pair leads to `branching` different states; the generator decides everything."""

    @pytest.mark.parametrize("sparse", [False, True])
    @pytest.mark.parametrize("branching", [1, 3, 7])
    def test_branching(self, sparse, branching, rng):
        mdp = random_mdp(7, 2, gamma=0.9, branching=branching, rng=rng, sparse=sparse)
        assert sp.issparse(mdp.P) == sparse
        P = oracles.dense(mdp)
        assert P.shape == (7, 2, 7)
        np.testing.assert_array_equal((P > 0).sum(axis=2), branching)
        np.testing.assert_allclose(P.sum(axis=2), 1)
        assert mdp.gamma == 0.9

    def test_draws_are_spread(self, rng):
        mdp = random_mdp(40, 3, gamma=0.9, branching=2, rng=rng)
        assert (mdp.P.sum(axis=(0, 1)) > 0).mean() > 0.9  # 240 draws among 40 states
        assert abs(mdp.R.mean()) < 0.4
        assert mdp.R.std() == pytest.approx(1, abs=0.2)
        larger = mdp.P.max(axis=2)
        assert larger.mean() == pytest.approx(0.75, abs=0.05)  # the longer part of a broken stick

    def test_the_generator_decides(self):
        draws = [random_mdp(4, 2, gamma=0.9, branching=2, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)]
        assert draws[0].P.tolist() == draws[1].P.tolist()
        assert draws[0].R.tolist() == draws[1].R.tolist()
        assert draws[0].P.tolist() != draws[2].P.tolist()

    def test_sparse_is_the_same_process(self):
        dense, sparse = (
            random_mdp(5, 2, gamma=0.9, branching=2, rng=np.random.default_rng(3), sparse=s) for s in (False, True)
        )
        assert oracles.dense(dense).tolist() == oracles.dense(sparse).tolist()
        assert dense.R.tolist() == sparse.R.tolist()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"n_states": 0}, "n_states must be in [1, inf), got 0"),
            ({"n_actions": 0}, "n_actions must be in [1, inf), got 0"),
            ({"branching": 0}, "branching must be in [1, 3], got 0"),
            ({"branching": 4}, "branching must be in [1, 3], got 4"),
            ({"gamma": 1}, "gamma must be in [0, 1), got 1"),
        ],
    )
    def test_refuses(self, changes, message, rng):
        wanted = {"n_states": 3, "n_actions": 2, "gamma": 0.9, "branching": 2} | changes
        sizes = wanted.pop("n_states"), wanted.pop("n_actions")
        with refuses(ValueError, message):
            random_mdp(*sizes, rng=rng, **wanted)


class TestStationaryDistribution:
    """On-policy data: the share of time that a long run spends at each pair."""

    def test_closed_form(self):
        P = np.array([[[0.7, 0.3]], [[0.1, 0.9]]])
        found = stationary_distribution(FiniteMDP(P, np.zeros((2, 1)), 0.9), [0, 0])
        np.testing.assert_allclose(found, [0.25, 0.75], atol=1e-12)  # 0.3 / (0.1 + 0.3) in the second state

    @given(mdp=mdps(kinds=("dense",)), rng=generators())
    @settings(max_examples=40)
    def test_is_reproduced_by_one_more_step(self, mdp, rng):
        pi = rng.dirichlet(np.ones(mdp.n_actions), size=mdp.n_states)
        rho = stationary_distribution(mdp, pi)
        P, order = oracles.dense(mdp), oracles.pairs(mdp)
        flow = [sum(rho[i] * P[s, a, t] * pi[t, b] for i, (s, a) in enumerate(order)) for t, b in order]
        np.testing.assert_allclose(rho, flow, atol=1e-10)
        assert rho.sum() == pytest.approx(1)
        assert rho.min() >= 0

    def test_agrees_with_a_long_run(self, rng):
        mdp = random_mdp(4, 2, gamma=0.9, branching=2, rng=rng)
        pi = np.full((4, 2), 0.5)
        state, counts = 0, np.zeros(8)
        for _ in range(20_000):
            action = rng.integers(2)
            counts[2 * state + action] += 1
            state = rng.choice(4, p=mdp.P[state, action])
        np.testing.assert_allclose(stationary_distribution(mdp, pi), counts / 20_000, atol=0.015)

    def test_a_periodic_chain_has_one_too(self):
        swap = FiniteMDP(np.array([[[0.0, 1.0]], [[1.0, 0.0]]]), np.zeros((2, 1)), 0.9)
        np.testing.assert_allclose(stationary_distribution(swap, [0, 0]), [0.5, 0.5])

    def test_one_state(self):
        loop = FiniteMDP(np.ones((1, 2, 1)), np.zeros((1, 2)), 0.9)
        np.testing.assert_allclose(stationary_distribution(loop, [[0.2, 0.8]]), [0.2, 0.8])
        short = [[0.2, 0.8 - 1e-16]]  # sums to 1 up to rounding alone
        np.testing.assert_allclose(stationary_distribution(loop, short), [0.2, 0.8])

    def test_sparse(self, rng):
        mdp = random_mdp(6, 2, gamma=0.9, branching=3, rng=rng, sparse=True)
        dense = FiniteMDP(oracles.dense(mdp), mdp.R, 0.9)
        pi = np.full((6, 2), 0.5)
        np.testing.assert_allclose(stationary_distribution(mdp, pi), stationary_distribution(dense, pi), atol=1e-12)

    def test_refuses_a_process_that_ends(self):
        with refuses(ValueError, "mdp must never end: P[1, 0] sums to 0.5, not to 1"):
            stationary_distribution(FiniteMDP(**two_states()), [0, 0])

    def test_refuses_two_islands(self):
        islands = FiniteMDP(np.eye(2)[:, None, :], np.zeros((2, 1)), 0.9)
        message = "policy must have one stationary distribution, within 1e-10 it has 2 independent ones"
        with refuses(ValueError, message):
            stationary_distribution(islands, [0, 0])
        short = FiniteMDP((1 - 5e-9) * np.eye(2)[:, None, :], np.zeros((2, 1)), 0.9)
        with refuses(ValueError, message):
            stationary_distribution(short, [0, 0])
        bridge = np.array([[1 - 1e-11, 1e-11], [1e-11, 1 - 1e-11]])  # one, in exact arithmetic
        with refuses(ValueError, message):
            stationary_distribution(FiniteMDP(bridge[:, None, :], np.zeros((2, 1)), 0.9), [0, 0])

    def test_sums_that_are_off_by_what_is_allowed(self):
        """A distribution may miss 1 by 1e-8; the long run forgets by how much."""
        P = np.array([[[0.7, 0.3]], [[0.1, 0.9]]])
        for lost in (1e-12, 5e-9, np.array([[[9e-9]], [[0.0]]])):
            short = FiniteMDP((1 - lost) * P, np.zeros((2, 1)), 0.9)
            np.testing.assert_allclose(stationary_distribution(short, [0, 0]), [0.25, 0.75], atol=1e-8)
        mixed = FiniteMDP(np.full((2, 2, 2), 0.5), np.zeros((2, 2)), 0.9)
        found = stationary_distribution(mixed, [[0.5, 0.5 - 5e-9], [0.5, 0.5 - 5e-9]])
        np.testing.assert_allclose(found, np.full(4, 0.25), atol=1e-8)
        assert found.sum() == pytest.approx(1, abs=1e-8)


class TestReachable:
    """A state is met if some choice of actions leads there from the start, with a chance above zero."""

    @given(mdp=mdps(kinds=("deterministic", "sparse", "terminating")), rng=generators())
    @settings(max_examples=40)
    def test_against_a_search(self, mdp, rng):
        start, P = int(rng.integers(mdp.n_states)), oracles.dense(mdp)
        met, waiting = {start}, [start]
        while waiting:
            s = waiting.pop()
            for t in range(mdp.n_states):
                if t not in met and any(P[s, a, t] > 0 for a in range(mdp.n_actions)):
                    met.add(t)
                    waiting.append(t)
        assert reachable(mdp, start).tolist() == [s in met for s in range(mdp.n_states)]

    def test_against_a_walk(self):
        """Twenty thousand random steps on the cliff meet every state that can be met, and no other."""
        cliff = gymnasium.make("CliffWalking-v1")
        state, _ = cliff.reset(seed=0)
        cliff.action_space.seed(0)
        met = reachable(from_gymnasium(cliff, 0.9), int(state))
        walked = {int(state)}
        for _ in range(20_000):
            state, _, terminated, _, _ = cliff.step(int(cliff.action_space.sample()))
            walked.add(int(cliff.reset()[0] if terminated else state))
        assert walked == set(np.flatnonzero(met))

    def test_dense_is_sparse(self, rng):
        sparse = random_mdp(40, 2, gamma=0.9, branching=1, rng=rng, sparse=True)
        dense = FiniteMDP(oracles.dense(sparse), sparse.R, 0.9)
        for start in range(40):
            assert (reachable(sparse, start) == reachable(dense, start)).all()

    def test_chain(self):
        P = np.zeros((4, 2, 4))
        P[0, 0, 1] = P[1, 1, 2] = P[3, 0, 0] = 1.0
        mdp = FiniteMDP(P, np.zeros((4, 2)), 0.9)
        assert reachable(mdp, 0).tolist() == [True, True, True, False]
        assert reachable(mdp, 2).tolist() == [False, False, True, False]

    def test_cliff(self):
        """The cells of the cliff itself are never entered: a fall leads back to the start."""
        mdp = from_gymnasium(gymnasium.make("CliffWalking-v1"), 0.9)
        met = reachable(mdp, 36)
        assert not met[37:48].any()  # the ten cells of the cliff, and the goal, which ends the episode
        assert met[:37].all()

    @pytest.mark.parametrize("start", [-1, 2])
    def test_refuses(self, start):
        with refuses(ValueError, f"start must be in [0, 1], got {start}"):
            reachable(FiniteMDP(**two_states()), start)


class TestDenseAndSparse:
    """A process is asked the same way however it is stored: numpy alone answers for a dense one, to the last bit."""

    @pytest.mark.parametrize(("n_states", "n_actions"), [(1, 1), (5, 1), (1, 4), (16, 4), (40, 9)])
    def test_the_same_answers(self, n_states, n_actions, rng):
        branching = min(n_states, 5)
        mdp = random_mdp(n_states, n_actions, gamma=0.9, branching=branching, rng=rng)
        sparse = dataclasses.replace(mdp, P=sp.csr_array(mdp.transitions))
        for policy in (rng.integers(n_actions, size=n_states), rng.dirichlet(np.ones(n_actions), size=n_states)):
            chain = sparse.state_transitions(policy)
            assert sp.issparse(chain) and isinstance(mdp.state_transitions(policy), np.ndarray)
            np.testing.assert_array_equal(mdp.state_transitions(policy), chain.toarray())
            np.testing.assert_array_equal(mdp.pair_transitions(policy), sparse.pair_transitions(policy))
        np.testing.assert_array_equal(reachable(mdp, 0), reachable(sparse, 0))
        if n_states > 1:
            policy = np.zeros(n_states, dtype=int)
            found = [ask(stationary_distribution, one, policy) for one in (mdp, sparse)]
            np.testing.assert_array_equal(*found)


def ask(question, *given):
    """Return the answer, or what the error says, as an array."""
    try:
        return question(*given)
    except ValueError as error:
        return np.array(str(error))
