"""What can be earned, what was, and the word for values beside it: against loops, and on both sides of each border."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divergence_notes import bellman, returns
from divergence_notes.mdp import FiniteMDP
from tests.strategies import generators


def refuses(error, message):
    return pytest.raises(error, match="^" + re.escape(message) + "$")


def earned(rewards, gamma):
    """Return the discounted sum, a reward at a time."""
    return sum(reward * gamma**t for t, reward in enumerate(rewards))


GAMMAS = st.sampled_from([0.0, 0.3, 0.9, 0.99, 1.0])


class TestBounds:
    """No episode of steps that go on and of one that ends earns more, and some earn as much or nearly."""

    @given(rng=generators(), gamma=GAMMAS)
    @settings(max_examples=40)
    def test_no_episode_leaves_them(self, rng, gamma):
        rewards = rng.normal(rng.normal(scale=3), 1, size=8)  # one-sided ones too
        ended = rng.random(8) < 0.4
        ended[0], ended[1] = False, True
        low, high = returns.bounds(rewards, ended, gamma=gamma)
        for length in (1, 2, 3, 10, 60):
            for _ in range(5):
                episode = [*rng.choice(rewards[~ended], size=length - 1), rng.choice(rewards[ended])]
                assert low - 1e-9 <= earned(episode, gamma) <= high + 1e-9

    @given(rng=generators(), gamma=st.sampled_from([0.0, 0.3, 0.9]))
    @settings(max_examples=40)
    def test_no_others_are_closer(self, rng, gamma):
        """The best of all episodes that repeat one reward and end with another is the bound."""
        rewards, ended = rng.normal(rng.normal(scale=3), 1, size=6), np.arange(6) % 3 == 0
        best = [
            [
                choose(
                    [earned([choose(rewards[~ended])] * (n - 1) + [choose(rewards[ended])], gamma) for n in (1, 2, 400)]
                )
            ]
            for choose in (min, max)
        ]
        np.testing.assert_allclose(returns.bounds(rewards, ended, gamma=gamma), np.ravel(best), rtol=1e-9)

    @given(rng=generators(), gamma=st.sampled_from([0.0, 0.5, 0.99]))
    @settings(max_examples=20)
    def test_within_the_reward_bound(self, rng, gamma):
        """eq-reward-bound says less: the same on both sides, and whether or not anything ends."""
        rewards = rng.normal(size=7)
        low, high = returns.bounds(rewards, rng.random(7) < 0.5, gamma=gamma)
        most = np.abs(rewards).max() / (1 - gamma)
        assert -most <= low <= high <= most

    @pytest.mark.parametrize(
        ("rewards", "ended", "gamma", "want"),
        [
            ([0, 0, 1], [0, 0, 1], 0.99, (0, 1)),  # a reward at the goal, where it ends
            ([0, 0, 1], [0, 0, 0], 0.99, (0, 100)),  # it goes on: once in a while, or always
            ([-1, -1], [0, 1], 0.99, (-100, -1)),  # each step costs 1: none is free
            ([-1, -1], [0, 0], 0.99, (-100, -1)),  # no end so far, but any step may be the last
            ([1, 1], [0, 1], 0.99, (1, 100)),
            ([1, -5], [0, 1], 0.99, (-5, 100)),
            ([2, 7], [1, 1], 0.99, (2, 7)),  # one step each
            ([0, 0], [0, 0], 0.9, (0, 0)),
            ([1e-3, -1e-3], [0, 0], 0.9, (-0.01, 0.01)),
            ([1e30, 0], [0, 1], 0.5, (0, 2e30)),
            ([-1, -1], [0, 1], 1.0, (-np.inf, -1)),  # without a discount one side may stay
            ([1, -3], [0, 1], 1.0, (-3, np.inf)),
            ([0, 1], [0, 1], 1.0, (0, 1)),
            ([0, -2, 3], [0, 0, 0], 1.0, (-np.inf, np.inf)),
        ],
    )
    def test_on_paper(self, rewards, ended, gamma, want):
        assert returns.bounds(rewards, np.array(ended, dtype=bool), gamma=gamma) == pytest.approx(want)

    def test_the_order_is_of_no_matter_and_extremes_are_enough(self, rng):
        rewards, ended = rng.normal(size=30), rng.random(30) < 0.5
        ends = [choose(rewards[kind]) for kind in (~ended, ended) for choose in (np.min, np.max)]
        want = returns.bounds(rewards, ended, gamma=0.9)
        assert returns.bounds(ends, [False, False, True, True], gamma=0.9) == want
        assert returns.bounds(rewards[::-1], ended[::-1], gamma=0.9) == want

    def test_refuses(self):
        for message, rewards, ended, gamma in [
            ("rewards must hold at least one reward", [], [], 0.5),
            ("rewards must be finite: rewards[1] is nan", [1.0, np.nan], [False, True], 0.5),
            ("terminated must have the shape of rewards, (2,), got (1,)", [1.0, 2.0], [False], 0.5),
            ("gamma must be in [0, 1], got 2", [1.0], [False], 2),
        ]:
            with refuses(ValueError, message):
                returns.bounds(rewards, ended, gamma=gamma)


def process(rng, gamma):
    """Return rewards, where each pair leads to and whether it ends there, of 5 states with 2 actions."""
    return rng.normal(rng.normal(scale=2), 1, size=(5, 2)), rng.integers(5, size=(5, 2)), rng.random((5, 2)) < 0.3


class TestReach:
    """A table that averages its targets keeps to it, whatever its steps; one process gets there, and spill leaves."""

    @given(rng=generators(), gamma=GAMMAS, share=st.sampled_from([1.0, 0.3]))
    @settings(max_examples=40)
    def test_a_table_keeps_to_it(self, rng, gamma, share):
        R, after, ended = process(rng, gamma)
        ended[0] = [True, False]
        target = Q = start = rng.normal(scale=3, size=(5, 2))
        for renewals in range(30):
            for _ in range(3):
                step = rng.random((5, 2))
                wanted = R + gamma * np.where(ended, 0.0, target.max(axis=1)[after])
                Q = (1 - step) * Q + step * wanted
                low, high = returns.reach(
                    R.ravel(), ended.ravel(), start=start, gamma=gamma, renewals=renewals, share=share
                )
                assert low - 1e-9 <= Q.min() and Q.max() <= high + 1e-9
            target = (1 - share) * target + share * Q

    @pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
    @pytest.mark.parametrize("share", [1.0, 0.25])
    @pytest.mark.parametrize("n_steps", [1, 3])
    @pytest.mark.parametrize("reward", [2.0, -2.0])
    def test_a_state_that_pays_for_ever_gets_there(self, gamma, share, n_steps, reward):
        target = value = start = 0.5 * np.sign(reward)
        for renewals in range(20):
            value = earned([reward] * n_steps, gamma) + gamma**n_steps * target
            low, high = returns.reach(
                [reward, 0.0], [False, True], start=start, gamma=gamma, renewals=renewals, share=share, n_steps=n_steps
            )
            assert (high if reward > 0 else low) == pytest.approx(value)
            target = (1 - share) * target + share * value

    def test_it_ends_at_what_can_be_earned(self):
        for rewards, ended in (([1.0, 0.0], [False, True]), ([0.0, 1.0], [False, True]), ([-1.0], [False])):
            given_ = {"start": [0.0], "gamma": 0.9, "renewals": 10_000}
            low, high = returns.bounds(rewards, ended, gamma=0.9)
            assert returns.reach(rewards, ended, **given_) == pytest.approx((min(low, 0), max(high, 0)))

    def test_values_that_spill_over_leave_it(self):
        """One weight, features 1 and 2, data of the first only: each renewal multiplies by 2 gamma."""
        weight, renewals = 1.0, 4
        for _ in range(renewals):
            weight = 0.99 * 2 * weight  # the fit to the target of the first pair, exactly
        high = returns.reach([0.0], [False], start=[1.0, 2.0], gamma=0.99, renewals=renewals)[1]
        assert high == 2 and 2 * weight > 10 * high

    def test_refuses(self):
        fine = {"start": [0.0], "gamma": 0.9, "renewals": 1}
        for message, wrong in [
            ("start must hold at least one value", {"start": []}),
            ("renewals must be in [0, inf), got -1", {"renewals": -1}),
            ("share must be in (0, 1], got 0", {"share": 0}),
            ("n_steps must be in [1, inf), got 0", {"n_steps": 0}),
            ("gamma must be in [0, 1], got -1", {"gamma": -1}),
        ]:
            with refuses(ValueError, message):
                returns.reach([1.0], [False], **fine | wrong)


class TestToGo:
    """eq-return, for many episodes and environments at once: what the recursion finds for each."""

    @given(rng=generators(), gamma=GAMMAS, envs=st.sampled_from([None, 1, 3]), often=st.sampled_from([0.0, 0.05, 0.5]))
    @settings(max_examples=60)
    def test_against_the_recursion(self, rng, gamma, envs, often):
        shape = (int(rng.integers(1, 70)),) if envs is None else (int(rng.integers(1, 70)), envs)
        rewards, ends = rng.normal(size=shape), rng.random(shape) < often
        sums, left = returns.to_go(rewards, ends, gamma=gamma)
        assert sums.shape == left.shape == shape
        columns = zip(*(x.reshape(shape[0], -1).T for x in (rewards, ends, sums, left)), strict=True)
        for reward, end, found, count in columns:
            for episode in np.split(np.arange(shape[0]), np.flatnonzero(end) + 1):
                np.testing.assert_allclose(found[episode], bellman.discounted_returns(reward[episode], gamma=gamma))
                assert count[episode].tolist() == list(range(len(episode), 0, -1))

    def test_a_large_reward_of_another_episode_takes_no_digits(self):
        sums, _ = returns.to_go([0.1, 0.2, 1e20], [False, True, True], gamma=1.0)
        assert sums[0] == pytest.approx(0.3, rel=1e-15)

    def test_changes_nothing(self):
        rewards = np.ones(3)
        returns.to_go(rewards, np.zeros(3, dtype=bool), gamma=1.0)
        assert rewards.tolist() == [1, 1, 1]

    def test_empty(self):
        assert [x.shape for x in returns.to_go(np.zeros((0, 2)), np.zeros((0, 2)), gamma=0.9)] == [(0, 2)] * 2

    def test_refuses(self):
        with refuses(ValueError, "rewards must have shape (n,) or (n, n_envs), got (1, 1, 1)"):
            returns.to_go([[[1.0]]], [[[False]]], gamma=0.9)
        with refuses(ValueError, "ends must have the shape of rewards, (2,), got (1,)"):
            returns.to_go([1.0, 2.0], [False], gamma=0.9)
        with refuses(ValueError, "rewards must be finite: rewards[0, 1] is inf"):
            returns.to_go([[0.0, np.inf]], [[False, False]], gamma=0.9)


GOAL = {"possible": (0.0, 1.0), "earned": (0.0, 1.0), "before": [0.05, -0.05]}
"""A reward of 1 at the goal, where the episode ends."""

SOUND = {
    "a value at the goal": ([1.0, 0.3], GOAL),
    "a fit that is not exact": ([1.05, 0.3], GOAL),
    "a step costs 0.001": ([0.05, -0.05], {"possible": (-0.01, -0.001), "earned": (-0.01, -0.001), "before": [0.05]}),
    "the same, nothing known of before": ([0.05, -0.05], {"possible": (-0.01, -0.001)}),
    "no reward yet, other states": ([0.09], {"possible": (0.0, 0.0), "earned": (0.0, 0.0), "before": [0.05]}),
    "each step costs 1, at the start": ([0.1, -0.5], {"possible": (-100.0, -1.0), "before": [0.1]}),
    "each step costs 1": ([-99.0, -1.0], {"possible": (-100.0, -1.0), "earned": (-86.0, -1.0), "before": [0.1]}),
    "each step pays 1, at the start": ([0.1, -0.1], {"possible": (1.0, 100.0), "before": [0.1]}),
    "each step pays 1000": ([9e4], {"possible": (1e3, 1e5), "earned": (1e3, 9e4), "before": [0.1]}),
    "no discount": ([480.0], {"possible": (1.0, np.inf), "earned": (1.0, 500.0), "before": [0.1]}),
    "a loaded network": ([80.0], {"possible": (0.0, 0.0), "earned": (0.0, 0.0), "before": [75.0]}),
    "nothing known": ([1e9], {}),
}

WILD = {
    "99 times too large": ([99.0], GOAL, "impossible"),
    "negative, where nothing costs": ([0.5, -5.0], GOAL, "impossible"),
    "positive, where each step costs": ([5.0, -9.0], {"possible": (-100.0, -1.0), "before": [0.1]}, "impossible"),
    "larger than all costs": ([-150.0], {"possible": (-100.0, -1.0), "before": [0.1]}, "impossible"),
    "no reward at all": ([1.0], {"possible": (0.0, 0.0), "before": [0.05]}, "impossible"),
    "tiny rewards": ([0.5], {"possible": (-0.01, 0.01), "before": [0.05]}, "impossible"),
    "no discount, cost only": ([50.0], {"possible": (-np.inf, -1.0), "before": [0.1]}, "impossible"),
    "no discount, five renewals": (
        [90.0],
        {"possible": (1.0, np.inf), "reached": (-0.1, 6.1), "before": [0.1]},
        "too fast",
    ),
    "down, too fast": ([-50.0], {"possible": (-100.0, -1.0), "reached": (-9.0, 0.1), "before": [0.1]}, "too fast"),
    "lost": ([np.nan, 1.0], GOAL, "not finite"),
    "infinite": ([np.inf], {}, "not finite"),
}


class TestVerdict:
    """Values of a run that is well ring no alarm; values that nobody can earn, or not yet, ring one."""

    @pytest.mark.parametrize("kind", SOUND)
    def test_sound(self, kind):
        q, known = SOUND[kind]
        assert returns.verdict(q, **known) not in returns.ALARMING

    @pytest.mark.parametrize("kind", WILD)
    def test_wild(self, kind):
        q, known, word = WILD[kind]
        assert returns.verdict(q, **known) == word in returns.ALARMING

    def test_words(self):
        assert set(returns.ALARMING) < set(returns.VERDICTS)
        here = {"possible": (0.0, 100.0), "before": [0.1]}
        assert returns.verdict([0.15], **here, earned=(0.0, 1.0)) == "inherited"
        assert returns.verdict([1.9], **here, earned=(0.0, 1.0)) == "earned"
        assert returns.verdict([99.0], **here, earned=(0.0, 1.0)) == "unearned"  # the goal does not end the episode
        assert returns.verdict([99.0], **here) == "unknown"
        assert returns.verdict([-0.9], possible=(-5.0, 5.0)) == "inherited"
        assert returns.verdict([-3.0], possible=(-5.0, 5.0), earned=(-1.0, 0.0)) == "unearned"

    @given(rng=generators(), scale=st.sampled_from([1e-20, 1e-3, 7.0, 1e20]))
    @settings(max_examples=60)
    def test_units_are_of_no_matter(self, rng, scale):
        """Values, rewards and networks in other units get the same word."""
        ends = np.sort(rng.normal(size=(3, 2)) * 10 ** rng.uniform(-1, 1, (3, 1)), axis=1)
        q, before = 3 * rng.normal(size=4), 0.3 * rng.normal(size=2)

        def word(factor):
            pairs = [tuple(factor * end) for end in ends]
            known = dict(zip(("possible", "earned", "reached"), pairs, strict=True))
            return returns.verdict(factor * q, before=factor * before, **known)

        assert word(1.0) == word(scale)

    def test_a_few_odd_states(self):
        """Each step pays 1: -18 in one state of 64 is no alarm, beside a value of 63; in seven states it is one."""
        q, known = np.linspace(1, 63, 64), {"possible": (1.0, 100.0), "before": [0.1]}
        for many, odd, word in (
            (1, -18.0, "unknown"),
            (7, -18.0, "impossible"),
            (1, -64.0, "impossible"),
            (1, 120.0, "unknown"),
            (7, 120.0, "impossible"),
            (1, 130.0, "impossible"),  # it is handed on
        ):
            assert returns.verdict(np.r_[np.full(many, odd), q[many:]], **known) == word

    def test_no_process_is_accused(self, rng):
        """The exact values of any policy, in processes whose rewards and ends are all known."""
        for gamma in (0.5, 0.99):
            for _ in range(10):
                R, after, ended = process(rng, gamma)
                P = np.zeros((5, 2, 5))
                np.put_along_axis(P, after[..., None], ~ended[..., None] * 1.0, axis=2)
                mdp = FiniteMDP(P=P, R=R, gamma=gamma)
                Q = bellman.policy_iteration(mdp).Q
                possible = returns.bounds(R.ravel(), ended.ravel(), gamma=gamma)
                assert possible[0] - 1e-9 <= Q.min() and Q.max() <= possible[1] + 1e-9
                assert returns.verdict(Q, possible=possible, before=[0.0]) == "unknown"

    def test_refuses(self):
        with refuses(ValueError, "q must hold at least one value"):
            returns.verdict([])
