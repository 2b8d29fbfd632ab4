import re

import gymnasium as gym
import numpy as np
import pytest


class TestReturns:
    """eq-return, eq-return-recursion: the return of an episode, forwards and backwards."""

    def test_recursion_is_the_sum(self, rng):
        from divergence_notes.bellman import discounted_returns

        for gamma in (0, 0.5, 0.9, 1):
            rewards = rng.standard_normal(12)
            sums = [sum(gamma**k * reward for k, reward in enumerate(rewards[t:])) for t in range(12)]
            np.testing.assert_allclose(discounted_returns(rewards, gamma=gamma), sums, atol=1e-12)

    def test_no_steps(self):
        from divergence_notes.bellman import discounted_returns

        assert discounted_returns([], gamma=0.9).shape == (0,)

    @pytest.mark.parametrize("gamma", [-0.1, 1.1])
    def test_gamma(self, gamma):
        from divergence_notes.bellman import discounted_returns

        with pytest.raises(ValueError, match=re.escape(f"gamma must be in [0, 1], got {gamma}")):
            discounted_returns([1.0], gamma=gamma)

    def test_policy_return_discounts(self):
        from divergence_notes.bellman import policy_return

        cliff = gym.make("CliffWalking-v1")
        policy = np.full(48, 1)  # along the top row and down: 17 steps
        policy[36], policy[24], policy[12] = 0, 0, 0
        policy[11], policy[23], policy[35] = 2, 2, 2
        full = policy_return(cliff, policy, episodes=1, seed=0)
        discounted = policy_return(cliff, policy, episodes=1, seed=0, gamma=0.5)
        np.testing.assert_allclose(full, [-17])
        np.testing.assert_allclose(discounted, [-(1 - 0.5**17) / 0.5])


class TestReachable:
    """The states that experience can teach: found by walking."""

    def test_chain(self):
        from divergence_notes.mdp import FiniteMDP, reachable

        P = np.zeros((4, 2, 4))
        P[0, 0, 1] = P[1, 1, 2] = P[3, 0, 0] = 1.0
        mdp = FiniteMDP(P, np.zeros((4, 2)), 0.9)
        assert reachable(mdp, 0).tolist() == [True, True, True, False]
        assert reachable(mdp, 2).tolist() == [False, False, True, False]

    def test_dense_is_sparse(self, rng):
        from dataclasses import replace

        from divergence_notes.mdp import random_mdp, reachable

        sparse = random_mdp(40, 2, gamma=0.9, branching=1, rng=rng, sparse=True)
        dense = replace(sparse, P=sparse.P.toarray().reshape(40, 2, 40))
        for start in range(40):
            assert (reachable(sparse, start) == reachable(dense, start)).all()

    def test_every_state_of_a_walk_is_reachable(self):
        from divergence_notes.mdp import from_gymnasium, reachable

        cliff = gym.make("CliffWalking-v1")
        state, _ = cliff.reset(seed=0)
        cliff.action_space.seed(0)
        met = reachable(from_gymnasium(cliff, 0.9), int(state))
        walked = {int(state)}
        for _ in range(20_000):
            state, _, terminated, _, _ = cliff.step(int(cliff.action_space.sample()))
            walked.add(int(cliff.reset()[0] if terminated else state))
        assert walked == set(np.flatnonzero(met))

    def test_start(self, rng):
        from divergence_notes.mdp import random_mdp, reachable

        with pytest.raises(ValueError, match=re.escape("start must be in [0, 2], got 3")):
            reachable(random_mdp(3, 1, gamma=0.9, branching=1, rng=rng), 3)


class TestDrawing:
    """Squares and learning curves: what is drawn is what was given."""

    def test_boxes(self):
        import matplotlib.pyplot as plt

        from divergence_notes import plotting

        ax = plotting.plot_boxes([[2.0, 1.0]], [3.0, 1.5], ax=plt.subplots()[1])
        assert [patch.get_bbox().bounds for patch in ax.patches] == [(-1, -2, 6, 6), (0.5, -0.5, 3, 3)]
        plt.close("all")

    def test_learning(self):
        import matplotlib.pyplot as plt

        from divergence_notes import plotting

        ax = plotting.plot_learning([1, 10], [0.5, 0.1], label="x", color="k")
        np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[1, 0.5], [10, 0.1]])
        assert ax.get_xscale() == ax.get_yscale() == "log"
        plt.close("all")

    def test_long_table_has_no_numbers(self, rng):
        import matplotlib.pyplot as plt

        from divergence_notes import plotting

        assert len(plotting.plot_table(rng.random((3, 2))).texts) == 6
        assert len(plotting.plot_table(rng.random((3, 2)), digits=None).texts) == 0
        plt.close("all")
