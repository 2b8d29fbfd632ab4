"""Attacks on the claims of chapter 1: on its summary, line by line."""

from dataclasses import replace
from functools import partial

import gymnasium
import numpy as np
import pytest

from divergence_notes import bellman, dynamics, examples
from divergence_notes.mdp import FiniteMDP, from_gymnasium, random_mdp
from tests import oracles
from tests.attacks import attack, counterexample, processes, size


def games(count):
    """Return games whose rewards depend on where a step leads, the end among the places: (chances, rewards, gamma)."""
    rng = np.random.default_rng(7)
    drawn = []
    for _ in range(count):
        n_states, n_actions = rng.integers(1, 4), rng.integers(1, 4)
        chances = rng.dirichlet(np.ones(n_states + 1), size=(n_states, n_actions))  # the last place is the end
        drawn.append((chances, 3 * rng.standard_normal(chances.shape), rng.choice([0.3, 0.9])))
    return drawn


def best(game):
    """Return the best worth of each move, by trying every way of playing."""
    chances, rewards, gamma = game
    return oracles.best_table(FiniteMDP(chances[..., :-1], (chances * rewards).sum(axis=2), gamma))


def solves(right_side):
    """Return the claim that the best table solves an equation."""
    return lambda game: np.allclose(best(game), right_side(best(game), *game), rtol=1e-9, atol=1e-9)


def bellman_equation(Q, chances, rewards, gamma):
    """Reward and maximum inside the expectation, nothing after the end."""
    after = np.append(Q.max(axis=1), 0.0)
    return (chances * (rewards + gamma * after)).sum(axis=2)


def reward_outside(Q, chances, rewards, gamma):
    """The reward of the likeliest outcome stands before the expectation."""
    paid = np.take_along_axis(rewards, chances.argmax(axis=2)[..., None], axis=2)[..., 0]
    return paid + gamma * (chances * np.append(Q.max(axis=1), 0.0)).sum(axis=2)


def maximum_outside(Q, chances, rewards, gamma):
    """The next action is chosen before it is known where the step leads."""
    after = np.vstack([Q, np.zeros(Q.shape[1])])
    return ((chances * rewards).sum(axis=2) + gamma * (chances @ after).max(axis=2)).reshape(Q.shape)


def something_after_the_end(Q, chances, rewards, gamma):
    """The end is worth what the first state is worth."""
    after = np.append(Q.max(axis=1), Q[0].max())
    return (chances * (rewards + gamma * after)).sum(axis=2)


def test_the_best_table_solves_the_equation():
    """What a move is worth: reward and maximum inside the expectation, nothing after the end."""
    wrong = {f.__doc__: solves(f) for f in (reward_outside, maximum_outside, something_after_the_end)}
    attack(games(40), solves(bellman_equation), wrong)


def shrinks(factor, distance):
    """Return the claim that a sweep multiplies distances of tables by at most a factor."""

    def claim(mdp):
        rng = np.random.default_rng(0)
        tables = [3 * rng.standard_normal((2, *mdp.R.shape)) for _ in range(10)]
        tables.append(np.stack([np.ones(mdp.R.shape), np.zeros(mdp.R.shape)]))
        return all(
            distance(bellman.optimality_backup(Q1, mdp) - bellman.optimality_backup(Q2, mdp))
            <= factor(mdp.gamma) * distance(Q1 - Q2) + 1e-12
            for Q1, Q2 in tables
        )

    return claim


def test_a_sweep_contracts_by_gamma():
    """Why sweeping works: by gamma in the sup norm, and neither by less nor in the norm that one would try first."""
    wrong = {
        "by gamma squared": shrinks(lambda gamma: gamma**2, size),
        "by gamma in the Euclidean norm": shrinks(lambda gamma: gamma, np.linalg.norm),
        "by gamma in the mean": shrinks(lambda gamma: gamma, lambda d: abs(d).mean()),
    }
    attack(processes(100), shrinks(lambda gamma: gamma, size), wrong)


def swept(mdp, start, sweeps):
    """Return the errors of sweeps from a table."""
    star = bellman.policy_iteration(mdp).Q
    return dynamics.iterate(
        partial(bellman.optimality_backup, mdp=mdp), start, max_iter=sweeps, target=star, tol=0
    ).errors


def one_limit(discount):
    """Return the claim that sweeps lead every start to one table, with a discount in the place of the process's own."""

    def claim(mdp):
        P, gamma = oracles.dense(mdp), discount(mdp)
        starts = [np.zeros(mdp.R.shape), *np.random.default_rng(1).uniform(-9, 9, size=(2, *mdp.R.shape))]
        for _ in range(1500):
            starts = [mdp.R + gamma * (P @ Q.max(axis=1)) for Q in starts]
        return all(np.allclose(Q, starts[0], rtol=1e-9, atol=1e-9) for Q in starts)

    return claim


def test_every_start_leads_to_one_table():
    """Why sweeping works: there is one solution, and every start leads to it; without a discount there need not be."""
    attack(processes(30), one_limit(lambda mdp: mdp.gamma), {"not discounted": one_limit(lambda mdp: 1.0)})


def halves_within(sweeps):
    """Return the claim that at gamma = 0.99 so many sweeps halve the error."""

    def claim(mdp):
        patient = replace(mdp, gamma=0.99)
        starts = (np.zeros(mdp.R.shape), 5 + np.ones(mdp.R.shape))
        return all(errors[-1] <= errors[0] / 2 + 1e-12 for errors in (swept(patient, Q, sweeps) for Q in starts))

    return claim


def test_the_error_halves_within_69_sweeps():
    cases = [examples.self_loop(0.99).update.mdp, *processes(20)]
    attack(cases, halves_within(69), {"within 68": halves_within(68)})


def test_where_games_end_the_error_halves_long_before():
    """From a table of zeros; on the loop, which never ends, it does not."""

    def long_before(mdp):
        errors = swept(mdp, np.zeros(mdp.R.shape), 69)
        return np.argmax(errors <= errors[0] / 2) < 69 / 3

    ending = [from_gymnasium(gymnasium.make(name), gamma=0.99) for name in ("FrozenLake-v1", "Taxi-v4")]
    assert counterexample(long_before, ending) is None
    assert counterexample(long_before, [*ending, examples.self_loop(0.99).update.mdp]) is not None
    errors = swept(ending[0], np.full(ending[0].R.shape, 100.0), 69)
    assert np.argmax(errors <= errors[0] / 2) == 69  # from above the lake takes as long as any game may


def test_policy_iteration_is_exact():
    """How to solve: it ends at the best of all policies; greedy on the values of one policy, once, does not."""

    def exact(mdp):
        return np.allclose(bellman.policy_iteration(mdp).Q, oracles.best_table(mdp), rtol=1e-9, atol=1e-9)

    def after_one_round(mdp):
        first = oracles.policy_table(mdp, np.zeros(mdp.n_states, dtype=int))
        return np.allclose(oracles.policy_table(mdp, first.argmax(axis=1)), oracles.best_table(mdp))

    attack(processes(80), exact, {"after one round": after_one_round})


def knows(bound):
    """Return the claim that at every sweep the error is at most a bound that the run itself can compute."""

    def claim(mdp):
        star, V = oracles.best_table(mdp), np.zeros(mdp.n_states)
        for _ in range(12):
            Q = mdp.R + mdp.gamma * oracles.dense(mdp) @ V
            change = Q.max(axis=1) - V
            guess, allowed = bound(Q, change, mdp)
            if size(guess - star) > allowed + 1e-9:
                return False
            V = Q.max(axis=1)
        return True

    return claim


def by_the_span(Q, change, mdp):
    """The midpoint and half the span of the changes, the end counted as a state at rest."""
    mass = oracles.dense(mdp).sum(axis=2)
    if mass.min() < 1:
        change = np.append(change, 0.0)
    scale = mdp.gamma / (2 * (1 - mdp.gamma))
    return Q + scale * mass * (change.max() + change.min()), scale * (change.max() - change.min())


def by_the_span_without_the_end(Q, change, mdp):
    scale = mdp.gamma / (2 * (1 - mdp.gamma))
    return Q + scale * (change.max() + change.min()), scale * (change.max() - change.min())


def by_the_last_change(Q, change, mdp):
    return Q, size(change)


def test_value_iteration_knows_its_error():
    """How to stop: the span of a sweep bounds the error; the size of the last change does not."""
    wrong = {f.__name__: knows(f) for f in (by_the_span_without_the_end, by_the_last_change)}
    attack(processes(80, gammas=(0.3, 0.9)), knows(by_the_span), wrong)


def hardly_pays(mdp):
    """Say whether a hundred times the patience costs less than twice the sweeps."""
    short, patient = (bellman.value_iteration(replace(mdp, gamma=g), tol=1e-6).iterations for g in (0.9, 0.999))
    return patient < 2 * short


def test_the_span_hardly_pays_for_gamma_where_moves_mix():
    """How to stop: so in random games of 20 states with 5 successors a move. Others pay in full."""
    mixing = [random_mdp(20, 4, gamma=0.9, branching=5, rng=np.random.default_rng(seed)) for seed in range(12)]
    apart = FiniteMDP(np.eye(2)[:, None], np.array([[0.0], [1.0]]), gamma=0.9)
    assert counterexample(hardly_pays, mixing) is None
    swap = FiniteMDP(np.eye(2)[::-1, None], np.array([[1.0], [-1.0]]), gamma=0.9)
    assert not hardly_pays(apart) and not hardly_pays(swap)  # so "in every game" would be wrong


class Coin:
    """One state, two actions: the first pays 0 or 2 with equal chance, the second 0.9; the game is over at once."""

    def __init__(self):
        self.observation_space, self.action_space = gymnasium.spaces.Discrete(1), gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        return 0, {}

    def step(self, action):
        return 0, 0.9 if action else 2.0 * self.rng.integers(2), True, False, {}


def learned(seed, **how):
    """Return how far Q-learning on the coin is from its table."""
    found = bellman.q_learning(Coin(), gamma=0.9, steps=20_000, rng=np.random.default_rng(seed), **how)[-1]
    return size(found - [[1.0, 0.9]])


def finds(**how):
    """Return the claim, for a seed, that Q-learning finds the table."""
    return lambda seed: learned(seed, **how) < 0.1


def averaged_too_fast(seed):
    """Say whether the first move is learned with the steps 1, 1/8, 1/27, ..., whose sum is finite."""
    coin, value = Coin(), 0.0
    coin.reset(seed=seed)
    for n in range(1, 2001):
        value += (coin.step(0)[1] - value) / n**3
    return abs(value - 1) < 0.1


def test_q_learning_finds_the_table():
    """How to learn: it visits everything and lets its steps shrink, but not too fast; leave one out, and it fails."""
    wrong = {
        "steps that stay": finds(epsilon=1.0, step_size=0.5, power=0.0),
        "steps that shrink too fast": averaged_too_fast,
        "a move that is never tried": finds(epsilon=0.0, step_size=1.0, power=0.8),
    }
    attack(range(8), finds(epsilon=1.0, step_size=1.0, power=0.8), wrong)


class Watched(gymnasium.Wrapper):
    """A game that notes which pairs of a state and an action are tried."""

    def reset(self, **how):
        self.state, info = self.env.reset(**how)
        return self.state, info

    def step(self, action):
        self.tried.add((int(self.state), int(action)))
        self.state, *rest = self.env.step(action)
        return self.state, *rest


def after_play(says):
    """Return a claim, for a seed, about the pairs that were tried and the table that was learned from zeros."""

    def claim(seed):
        game = Watched(gymnasium.make("CliffWalking-v1"))
        game.tried = set()
        rng = np.random.default_rng(seed)
        table = bellman.q_learning(game, gamma=0.9, steps=400, step_size=1.0, epsilon=0.5, rng=rng)[-1]
        return says(game.tried, {(int(s), int(a)) for s, a in np.argwhere(table != 0)}, table)

    return claim


def test_what_is_never_visited_is_never_corrected():
    """In a table: whatever has changed was tried. A state that was met, or that it is right, is another thing."""
    star = bellman.policy_iteration(from_gymnasium(gymnasium.make("CliffWalking-v1"), gamma=0.9)).Q
    wrong = {
        "of a state that was met, each action is corrected": after_play(
            lambda tried, moved, table: {(s, a) for s, _ in tried for a in range(4)} <= moved
        ),
        "what was tried is right": after_play(
            lambda tried, moved, table: all(abs(table[pair] - star[pair]) < 1e-6 for pair in tried)
        ),
    }
    attack(range(6), after_play(lambda tried, moved, table: moved <= tried and len(moved) > 20), wrong)


def fate(m, c, start):
    """Return what x -> m x + c does from a start, known on paper: (grows at every step, diverges, converges)."""
    rest = None if m == 1 else c / (1 - m)
    still = start == rest if rest is not None else c == 0
    grows = not still and (m - 1) * start + c > 0 and m > 0
    return {
        "grows": grows,
        "diverges": not still and (abs(m) > 1 or m == 1),
        "converges": still or abs(m) < 1,
    }


def test_three_words():
    """Growing is not diverging, and not converging is not diverging; what diverges does not converge."""
    lines = [fate(m, c, start) for m in (-2, -1, -0.5, 0.5, 0.9, 1, 2) for c in (-1, 0, 1) for start in (-3, 0, 1)]
    attack(
        lines,
        lambda line: not (line["diverges"] and line["converges"]),
        {
            "what grows diverges": lambda line: not line["grows"] or line["diverges"],
            "what grows does not converge": lambda line: not line["grows"] or not line["converges"],
            "what does not converge diverges": lambda line: line["converges"] or line["diverges"],
            "what does not converge grows at every step": lambda line: line["converges"] or line["grows"],
            "what diverges grows at every step": lambda line: not line["diverges"] or line["grows"],
        },
    )


@pytest.mark.parametrize(("m", "c", "start"), [(0.9, 1, 0), (1, 1, 0), (-1, 0, 1)])
def test_the_words_are_those_of_the_runs(m, c, start):
    """What was said on paper is what the package sees."""
    run = dynamics.iterate(lambda x: m * x + c, np.array([[float(start)]]), max_iter=10_000, bound=1e3)
    said = fate(m, c, start)
    assert (run.status == "converged") == said["converges"]
    assert (run.status == "diverged") == said["diverges"]
