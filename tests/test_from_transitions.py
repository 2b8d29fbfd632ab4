"""The process that stored steps describe: frequencies, averages, and nothing after a terminated step."""

import re
from collections import defaultdict

import gymnasium as gym
import numpy as np
import pytest

from divergence_notes import bellman
from divergence_notes.mdp import from_gymnasium, from_transitions

STEPS = [(0, 0, 1.0, 1, False), (0, 0, 3.0, 0, False), (0, 0, 5.0, 1, True), (1, 1, -1.0, 0, False)]


def test_by_hand():
    mdp, weights = from_transitions(STEPS, n_states=2, n_actions=2, gamma=0.5)
    np.testing.assert_allclose(mdp.P[0, 0], [1 / 3, 1 / 3])  # the third step ended: it leads nowhere
    np.testing.assert_allclose(mdp.P[1, 1], [1, 0])
    np.testing.assert_allclose(mdp.R, [[3, 0], [0, -1]])
    np.testing.assert_allclose(weights, [0.75, 0, 0, 0.25])
    assert not mdp.P[0, 1].any() and not mdp.P[1, 0].any()


def test_its_backup_is_the_average_of_the_sampled_targets(rng):
    """Averages are taken after the max, and a terminated step adds its reward alone."""
    env = gym.make("FrozenLake-v1")
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


def test_more_data_comes_closer_to_the_model(rng):
    env = gym.make("FrozenLake-v1")
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
def test_reads(given):
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
def test_refuses(steps, error, message):
    with pytest.raises(error, match="^" + re.escape(message) + "$"):
        from_transitions(steps, n_states=2, n_actions=2, gamma=0.5)
