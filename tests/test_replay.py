"""The buffer against a list."""

import re
from collections import deque

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete

from divergence_notes import replay

OBS = Box(-10, 10, shape=(2,))
BOTH = pytest.mark.parametrize("actions", [Discrete(3), Box(-1, 1, shape=(2,))], ids=["discrete", "box"])


FLATTEN = ": gymnasium.wrappers.FlattenObservation makes vectors of most observations"


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


def fill(buffer, n, start=0):
    """Add transitions numbered `start`, `start` + 1, ..., each with its number all over it."""
    for k in range(start, start + n):
        action = k % 3 if buffer._n_actions else np.array([k / 1000, -k / 1000])
        buffer.add(np.array([k, k + 0.25]), action, k + 0.5, np.array([k + 1, k + 1.25]), k % 2 == 0)


class TestBuffer:
    """The latest `capacity` transitions, uniformly, with replacement, as copies."""

    @BOTH
    def test_a_row_is_a_transition(self, actions, rng):
        buffer = replay.ReplayBuffer(OBS, actions, capacity=20)
        fill(buffer, 10)
        batch = buffer.sample(64, rng=rng)
        assert batch.obs.shape == batch.next_obs.shape == (64, 2)
        assert batch.reward.shape == batch.terminated.shape == (64,)
        assert {batch.obs.dtype, batch.next_obs.dtype, batch.reward.dtype} == {torch.float32}
        assert batch.terminated.dtype == torch.bool
        k = batch.obs[:, 0]
        torch.testing.assert_close(batch.obs[:, 1], k + 0.25)
        torch.testing.assert_close(batch.next_obs, torch.stack([k + 1, k + 1.25], dim=1))
        torch.testing.assert_close(batch.reward, k + 0.5)
        assert torch.equal(batch.terminated, k % 2 == 0)
        if isinstance(actions, Discrete):
            assert batch.action.dtype == torch.int64
            assert torch.equal(batch.action, (k % 3).long())
        else:
            assert batch.action.dtype == torch.float32
            torch.testing.assert_close(batch.action, torch.stack([k / 1000, -k / 1000], dim=1))

    @BOTH
    def test_takes_what_may_not_be_written(self, actions, rng):
        """As an environment may hand out: torch would warn of an array that it shares."""
        given = [np.array([0.5, -0.5]) for _ in range(3)]
        for array in given:
            array.setflags(write=False)
        obs, action, next_obs = given
        torch.set_warn_always(True)
        try:
            buffer = replay.ReplayBuffer(OBS, actions, capacity=1)
            buffer.add(obs, action if isinstance(actions, Box) else 1, 0.5, next_obs, False)
            row, _ = replay.rows("obs", obs, 2)
        finally:
            torch.set_warn_always(False)
        assert row.tolist() == buffer.sample(1, rng=rng).obs.tolist() == [[0.5, -0.5]]

    @BOTH
    @pytest.mark.parametrize("capacity", [1, 3, 7])
    def test_the_newest_takes_the_place_of_the_oldest(self, actions, capacity, rng):
        buffer, kept = replay.ReplayBuffer(OBS, actions, capacity=capacity), deque(maxlen=capacity)
        assert len(buffer) == 0
        for k in range(3 * capacity + 2):
            fill(buffer, 1, start=k)
            kept.append(k)
            assert len(buffer) == len(kept)
            assert set(buffer.sample(50 * capacity, rng=rng).obs[:, 0].tolist()) == set(kept)

    def test_uniform(self, rng):
        """Chi-squared over a buffer that is not yet full; rows never written are never drawn, the newest is."""
        buffer = replay.ReplayBuffer(OBS, Discrete(3), capacity=1000)
        fill(buffer, 10, start=5)

        def statistic(drawn):
            counts = np.bincount(drawn.long().numpy(), minlength=15)[5:]
            return ((counts - 2000) ** 2 / 2000).sum() if counts.sum() == 20_000 else np.inf

        drawn = buffer.sample(20_000, rng=rng).obs[:, 0]
        limit = 27.9  # 9 degrees of freedom: one in a thousand
        assert statistic(drawn) < limit
        for wrong in (rng.integers(1000, size=20_000), rng.integers(9, size=20_000)):  # of all rows; without the newest
            rows = torch.from_numpy(np.concatenate([np.arange(5, 15), np.zeros(990)])[wrong])
            assert statistic(rows) > limit

    def test_with_replacement(self, rng):
        buffer = replay.ReplayBuffer(OBS, Discrete(3), capacity=4)
        fill(buffer, 2)
        assert len(buffer.sample(100, rng=rng).reward) == 100

    def test_the_generator_decides(self):
        buffer = replay.ReplayBuffer(OBS, Discrete(3), capacity=50)
        fill(buffer, 50)
        one, same, other = (buffer.sample(20, rng=np.random.default_rng(seed)).obs for seed in (1, 1, 2))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)

    def test_copies(self, rng):
        """Neither the arrays that went in nor the batch that came out share memory with the buffer."""
        buffer, seen = replay.ReplayBuffer(OBS, Box(-1, 1, shape=(2,)), capacity=1), np.ones(2, dtype=np.float32)
        buffer.add(seen, seen, 1.0, seen, False)
        seen[:] = 7
        batch = buffer.sample(2, rng=rng)
        fill(buffer, 1, start=9)
        for tensor in (batch.obs, batch.action, batch.reward, batch.next_obs):
            assert torch.equal(tensor, torch.ones_like(tensor))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"obs": np.zeros(3)}, "obs must have shape (2,), got (3,)"),
            ({"obs": np.array([0, np.nan])}, "obs must be finite: obs[1] is nan"),
            ({"next_obs": np.zeros((1, 2))}, "next_obs must have shape (2,), got (1, 2)"),
            ({"reward": np.inf}, "reward must be finite, got inf"),
            ({"obs": np.array([0, 1e39])}, "obs must fit into float32: obs[1] is 1e+39"),
            ({"next_obs": np.array([-1e39, 0])}, "next_obs must fit into float32: next_obs[0] is -1e+39"),
            ({"reward": 1e39}, "reward must fit into float32: reward is 1e+39"),
            ({"action": 3}, "action must be in [0, 2], got 3"),
            ({"action": -1}, "action must be in [0, 2], got -1"),
        ],
    )
    def test_refuses_a_transition(self, changes, message):
        buffer = replay.ReplayBuffer(OBS, Discrete(3), capacity=4)
        there = {"obs": np.zeros(2), "action": 0, "reward": 0.0, "next_obs": np.zeros(2), "terminated": False}
        with refuses(ValueError, message):
            buffer.add(**there | {"obs": np.ones(2)} | changes)
        assert len(buffer) == 0 and not buffer._data.obs.any(), "no half of a row is written"

    def test_takes_the_largest_numbers(self, rng):
        most = float(np.finfo(np.float32).max)
        buffer = replay.ReplayBuffer(OBS, Box(-1, 1, shape=(2,)), capacity=4)
        buffer.add(np.full(2, most), np.full(2, -most), -most, np.full(2, most), False)
        batch = buffer.sample(1, rng=rng)
        for found, want in ((batch.obs, most), (batch.action, -most), (batch.reward, -most), (batch.next_obs, most)):
            assert found.unique().tolist() == [want]

    def test_refuses_an_action_of_the_wrong_shape(self):
        buffer = replay.ReplayBuffer(OBS, Box(-1, 1, shape=(2,)), capacity=4)
        with refuses(ValueError, "action must have shape (2,), got (1,)"):
            buffer.add(np.zeros(2), np.zeros(1), 0.0, np.zeros(2), False)
        with refuses(ValueError, "action must fit into float32: action[0] is 1e+39"):
            buffer.add(np.zeros(2), np.array([1e39, 0]), 0.0, np.zeros(2), False)

    @pytest.mark.parametrize(
        ("obs", "actions", "capacity", "error", "message"),
        [
            (Discrete(4), Discrete(3), 5, TypeError, "observation_space must be a Box, got Discrete(4)" + FLATTEN),
            (
                Box(0, 1, shape=(3, 3)),
                Discrete(3),
                5,
                ValueError,
                "observation_space must have shape (any,), got (3, 3)" + FLATTEN,
            ),
            (OBS, Discrete(3, start=1), 5, ValueError, "action_space must start at 0, got Discrete(3, start=1)"),
            (OBS, Dict({"a": Discrete(3)}), 5, TypeError, "action_space must be a Box, got Dict('a': Discrete(3))"),
            (OBS, Discrete(3), 0, ValueError, "capacity must be in [1, inf), got 0"),
        ],
    )
    def test_refuses_a_space(self, obs, actions, capacity, error, message):
        with refuses(error, message):
            replay.ReplayBuffer(obs, actions, capacity=capacity)

    def test_refuses_to_sample(self, rng):
        buffer = replay.ReplayBuffer(OBS, Discrete(3), capacity=4)
        with refuses(ValueError, "the buffer is empty: add a transition before you sample"):
            buffer.sample(1, rng=rng)
        fill(buffer, 1)
        with refuses(ValueError, "batch_size must be in [1, inf), got 0"):
            buffer.sample(0, rng=rng)
