"""The exercises of the chapter on the Bellman equation.

They are for practice: their solutions are on the page. Graded questions are in `coursework/questions`, outside of the
package; how an answer is judged is in `kinds`.
"""

import dataclasses

import numpy as np

from divergence_notes import bellman
from divergence_notes.grading.exercise import Complaint, Mistake
from divergence_notes.grading.kinds import Choice, Function, Value
from divergence_notes.mdp import FiniteMDP, random_mdp


def ending_mdp(rng: np.random.Generator) -> FiniteMDP:
    """Return a small random process in which some steps end the episode, some may, and some cannot."""
    n_states, n_actions = int(rng.integers(2, 6)), int(rng.integers(2, 4))
    whole = random_mdp(n_states, n_actions, gamma=float(rng.uniform(0.3, 0.95)), branching=n_states, rng=rng)
    goes_on = rng.choice([0.0, 0.4, 1.0], size=(n_states, n_actions))
    goes_on[:2, 0] = 0.0, 1.0  # one that ends for sure and one that cannot: no mistake stays hidden
    return FiniteMDP(whole.P * goes_on[:, :, None], whole.R, whole.gamma)


def _rise(c, mdp):
    zero = np.zeros(mdp.R.shape)
    return bellman.optimality_backup(zero + c, mdp) - bellman.optimality_backup(zero, mdp)


def _rooms(n, doors=None):
    """Return the MDP of n rooms; `doors` says which action pays in each, by default another one in each."""
    P, R = np.zeros((n + 1, n, n + 1)), np.zeros((n + 1, n))
    P[0, :, 1:] = 1 / n
    R[np.arange(1, n + 1), np.arange(n) if doors is None else doors] = 1.0
    return FiniteMDP(P, R, 0.9)


def _factor(game):
    """Return by how much the worst cell is off when the maximum is outside the expectation."""
    Q = bellman.policy_iteration(game).Q
    blind = game.R + game.gamma * (game.transitions @ Q).max(axis=1).reshape(Q.shape)
    large, small = np.maximum(np.abs(Q), np.abs(blind)), np.minimum(np.abs(Q), np.abs(blind))
    small = np.where(Q * blind < 0, 0.0, small)  # no factor leads from one sign to the other
    return float(np.divide(large, small, out=np.full(Q.shape, np.inf), where=small > 1e-9)[large > 1e-9].max(initial=1))


def _two_games(value):
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not all(isinstance(g, FiniteMDP) for g in value):
        return "Your answer must be two games, each a FiniteMDP: the one with the factor 2, and the one with 5"
    if min(game.R.min() for game in value) < 0:
        return "negative-rewards"
    factors = [_factor(game) for game in value]
    if np.allclose(factors, (2, 5), rtol=0.01):
        return None
    detail = f"the factors of yours are {factors[0]:.3g} and {factors[1]:.3g}"
    if np.allclose(factors, (5, 2), rtol=0.01):
        return "exchanged"
    return Complaint("no-difference" if min(factors) < 1.01 else "another-factor", detail)


EXERCISES = (
    Choice(
        "ex-bellman-prediction",
        "C",
        (
            Mistake(
                "gamma-half",
                "One sweep would do if each step counted half as much as the one before it; here a sweep takes one "
                "hundredth of the error away",
                "A",
            ),
            Mistake(
                "gamma-nine",
                "That is right at gamma = 0.9, where a sweep takes a tenth of the error away; here it is a hundredth",
                "B",
            ),
            Mistake(
                "gamma-three-nines",
                "That is right at gamma = 0.999, where a sweep takes a thousandth of the error away; here it is a "
                "hundredth",
                "D",
            ),
        ),
        insight="A sweep multiplies the error by 0.99, and the 69th such power is the first below one half. Each nine "
        "that you add to gamma costs about ten times as many sweeps.",
        phrases={
            "A": ("1", "one"),
            "B": ("7", "seven"),
            "C": ("69", "sixty-nine"),
            "D": ("693", "six hundred and ninety-three"),
        },
    ),
    Choice(
        "ex-bellman-rate-prediction",
        "A",
        (
            Mistake(
                "the-lake",
                "From zeros it falls faster on the lake. Some of the chance leaves the game there, into a hole or "
                "into the goal, and brings no error back",
                "B",
            ),
            Mistake(
                "both",
                "A proof says how slow it can be at worst, and a game may do better: from zeros the lake does, since "
                "games end there",
                "C",
            ),
            Mistake(
                "neither",
                "The rate may be reached: where no game ends, an error that is the same in every cell shrinks by gamma "
                "exactly",
                "D",
            ),
        ),
        insight="Without an end nothing but the discount shrinks an error that is the same in every cell, and here "
        "that part is the last to go. On the lake the end shrinks the error from zeros, too.",
        phrases={
            "A": ("the endless game", "the game that never ends", "endless", "the first", "random"),
            "B": ("the lake", "the frozen lake", "lake", "the second"),
            "C": ("both", "in both"),
            "D": ("neither", "in neither", "none"),
        },
    ),
    Choice(
        "ex-bellman-lake-prediction",
        "A",
        (
            Mistake(
                "numbers-first",
                "So it is for an impatient player, at gamma = 0.5. At 0.99 the numbers need 140 sweeps, and the arrows "
                "46",
                "B",
            ),
            Mistake(
                "together",
                "An arrow asks which number of a row is the largest. That can be right while all of them are too low",
                "C",
            ),
        ),
        insight="The arrows are right at sweep 46, the numbers at sweep 140. An arrow compares the numbers of one row, "
        "and they rise together.",
        phrases={
            "A": ("the arrows", "arrows", "the arrows first"),
            "B": ("the numbers", "numbers", "the numbers first"),
            "C": ("both at the same sweep", "both", "together", "at the same time"),
        },
    ),
    Choice(
        "ex-bellman-cliff-prediction",
        "C",
        (
            Mistake(
                "all-cells",
                "Every state from which a player moves is right. But nobody moves from the cells of the cliff, and "
                "their rows stay at 0",
                "A",
            ),
            Mistake(
                "careful-walk",
                "How the player explores does not enter: the target takes the best next action, whatever the player "
                "does next",
                "B",
            ),
        ),
        insight="What the player can meet is right to the last digit. What nobody visits, nobody corrects.",
        phrases={
            "A": ("yes, in all of them", "yes", "in all", "all"),
            "B": ("no, since half of the moves are random", "it learns a careful walk"),
            "C": ("no, since some cells are never visited", "never visited", "some are never visited"),
        },
    ),
    Value(
        "ex-bellman-fates-prediction",
        lambda: 3,
        (
            Mistake(
                "none", "A discount below 1 makes a sweep a contraction, so at least one of them settles", lambda: 0
            ),
            Mistake(
                "discounted-alone",
                "Without a discount a table may settle, too: on the lake both tables do",
                lambda: 1,
            ),
            Mistake(
                "one-of-the-lake",
                "Both tables on the lake settle, the one that starts from fives too, though it does not settle at the "
                "truth",
                lambda: 2,
            ),
            Mistake(
                "one-too-many",
                "The loop without a discount grows by 1 at each sweep, and the two states that lead to each other "
                "go to and fro for ever",
                lambda: 4,
            ),
            Mistake("all", "The loop without a discount adds 1 at each sweep and never subtracts any", lambda: 5),
        ),
        hint="Write down the first values of each, and ask of each whether there is a table that it approaches.",
        insight="The discounted loop settles, and so do both tables on the lake, at two different ends.",
        phrases={
            "0": ("none", "zero", "no one"),
            "1": ("one",),
            "2": ("two",),
            "3": ("three",),
            "4": ("four",),
            "5": ("five", "all", "all of them", "all five"),
        },
    ),
    Value(
        "ex-bellman-pencil",
        lambda: [1.5, 3.0, 6.0],
        (
            Mistake(
                "one-sweep",
                "That is after one sweep: in the second, what comes next counts",
                lambda: [1.0, 0.0, 6.0],
            ),
            Mistake(
                "new-numbers",
                "That is one sweep more, or new numbers have been used in the sweep that made them: a sweep reads the "
                "old table",
                lambda: [2.5, 3.0, 6.0],
            ),
            Mistake(
                "after-the-end",
                "Nothing comes after the end: finish has the value of its reward",
                lambda: [1.5, 3.0, 9.0],
            ),
            Mistake(
                "not-discounted",
                "What comes after the step counts half",
                lambda: [2.0, 6.0, 6.0],
            ),
        ),
        hint="Write down the table after one sweep first; the second sweep reads that table.",
        insight="Each sweep reads the old table alone, and the reward of the end travels back by one step a sweep.",
    ),
    Function(
        "ex-bellman-end",
        lambda reward, cost, gamma: (reward - gamma * cost) / (1 - gamma**2),
        (
            Mistake(
                "every-step",
                "The reward is there at every other step only",
                lambda reward, cost, gamma: reward / (1 - gamma),
            ),
            Mistake(
                "no-cost",
                "Between two rewards there is a cost",
                lambda reward, cost, gamma: reward / (1 - gamma**2),
            ),
            Mistake(
                "cost-not-discounted",
                "The first cost comes one step after the first reward, so it counts gamma times",
                lambda reward, cost, gamma: (reward - cost) / (1 - gamma**2),
            ),
            Mistake(
                "one-discount-a-round",
                "A round takes two steps: from one round to the next the discount is gamma squared",
                lambda reward, cost, gamma: (reward - gamma * cost) / (1 - gamma),
            ),
            Mistake(
                "cost-first",
                "You begin with the cost; the best move is the one that is paid now",
                lambda reward, cost, gamma: (gamma * reward - cost) / (1 - gamma**2),
            ),
            Mistake(
                "average-step",
                "You take the average of a step; but what is paid first counts more than what is paid next",
                lambda reward, cost, gamma: (reward - cost) / 2 / (1 - gamma),
            ),
        ),
        draw=lambda rng: (float(rng.uniform(5, 40)), float(rng.uniform(0.5, 3)), float(rng.uniform(0.5, 0.99))),
        insight="With 20, 1 and 0.99 that is 955, where no delivery is worth more than 20: a forgotten end pays "
        "for ever.",
    ),
    Value(
        "ex-bellman-build",
        lambda: (_rooms(2), _rooms(5)),
        (
            Mistake(
                "no-difference",
                "In a game of yours both orders agree: the best action must depend on where a move leads",
                lambda: (_rooms(2, doors=[0, 0]), _rooms(5)),
            ),
            Mistake("exchanged", "First the game with the factor 2, then the other", lambda: (_rooms(5), _rooms(2))),
            Mistake(
                "negative-rewards",
                "A game of yours has a negative reward; the exercise asks for games without any",
                lambda: (_rooms(2), dataclasses.replace(_rooms(5), R=_rooms(5).R - 0.1)),
            ),
            Mistake(
                "another-factor",
                "Your games are wrong by other factors",
                lambda: (_rooms(2), _rooms(4)),
            ),
        ),
        judge=_two_games,
        insight="The average of maxima is never below the maximum of averages: who looks first and then chooses "
        "never does worse.",
    ),
    Function(
        "ex-bellman-shift",
        _rise,
        (
            Mistake(
                "through-the-end",
                "Your rise goes through the end of the game: where a step may end it, less comes after it",
                lambda c, mdp: np.full(mdp.R.shape, mdp.gamma * c),
            ),
            Mistake(
                "no-gamma",
                "Your rise is not discounted: what comes after the step counts gamma times",
                lambda c, mdp: mdp.continuation.reshape(mdp.R.shape) * c,
            ),
            Mistake(
                "shifts-itself",
                "Your rise is c itself: that is how much Q rises, and not its backup",
                lambda c, mdp: np.full(mdp.R.shape, float(c)),
            ),
            Mistake(
                "no-difference",
                "That is the backup of the shifted table, and not how far it is above the backup of the table",
                lambda c, mdp: mdp.R + _rise(c, mdp),
            ),
            Mistake(
                "all-or-nothing",
                "There are cells in between: steps that may end the game, and may not",
                lambda c, mdp: np.where(mdp.continuation.reshape(mdp.R.shape) > 0, mdp.gamma * c, 0.0),
            ),
            Mistake(
                "nothing-or-all",
                "A step that may end the game may also not end it: it rises, too, if by less",
                lambda c, mdp: np.where(mdp.continuation.reshape(mdp.R.shape) > 1 - 1e-9, mdp.gamma * c, 0.0),
            ),
        ),
        draw=lambda rng: (float(rng.uniform(0.5, 3)), ending_mdp(rng)),
        insight="A rise of c comes back as gamma c at most: that, and that the backup keeps order, is the "
        "contraction theorem.",
    ),
    Function(
        "ex-bellman-loss",
        lambda epsilon, gamma: 2 * epsilon * gamma / (1 - gamma),
        (
            Mistake(
                "one-side",
                "The table may be too high for your action and too low for the best one: the error counts twice",
                lambda epsilon, gamma: epsilon * gamma / (1 - gamma),
            ),
            Mistake(
                "no-gamma",
                "That is what play can cost from the first move on, the bound on V* - V^pi, and for it you are right. "
                "But the question is about a cell: there the first action is given, and the loss begins one step later",
                lambda epsilon, gamma: 2 * epsilon / (1 - gamma),
            ),
            Mistake(
                "one-step",
                "That is the loss of one wrong choice; you may choose wrongly at every step",
                lambda epsilon, gamma: 2 * epsilon * gamma,
            ),
            Mistake(
                "summed-twice",
                "You add up over all steps twice: the loss of each step is discounted by one power of gamma only",
                lambda epsilon, gamma: 2 * epsilon * gamma / (1 - gamma) ** 2,
            ),
        ),
        draw=lambda rng: (float(rng.uniform(0.01, 1)), float(rng.uniform(0.1, 0.99))),
        insight="At gamma = 0.99 that is 198 times the error, and 200 times if the first move is yours, too: a table "
        "that is nearly right may still be played badly.",
    ),
)
