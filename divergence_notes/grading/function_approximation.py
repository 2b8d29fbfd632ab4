"""The exercises of the chapter on function approximation and divergence.

They are for practice: their solutions are on the page. Graded questions are in `coursework/questions`, outside of the
package; how an answer is judged is in `kinds`.
"""

import dataclasses
import functools

import numpy as np

from divergence_notes import dynamics, examples, features
from divergence_notes.grading.exercise import Mistake
from divergence_notes.grading.kinds import Choice, Function, Value
from divergence_notes.grading.phrases import combined

_LEGS = {"F": "function approximation", "B": "bootstrapping", "O": "off-policy"}
_STARTS = ((1.0, 0.0), (0.0, 1.0), (-1.4, 0.2), (-1.2, -0.6), (-0.6, -1.2))


def _numbers(value, shape):
    """Return an answer as floats, or None if it does not have the shape; None in a shape fits any length."""
    try:
        found = np.asarray(value.tolist() if hasattr(value, "tolist") else value, dtype=float)
    except (TypeError, ValueError):
        return None
    fits = found.ndim == len(shape) and all(want in (None, n) for want, n in zip(shape, found.shape, strict=True))
    return found if fits and np.isfinite(found).all() else None


@functools.cache
def _come_home():
    """Count the starts of the picture from which the pair does not leave it."""
    pair = examples.full_data_divergence()
    runs = (dynamics.iterate(pair.update, [start], max_iter=600, bound=20) for start in _STARTS)
    return sum(run.status != "diverged" for run in runs)


def _bins(memory, numbers, n_actions, *, bytes_each=8):
    return np.floor(_unrounded(memory / bytes_each, numbers, n_actions))


def _unrounded(entries, numbers, n_actions):
    return (entries / n_actions) ** (1 / numbers)


def _a_table(rng):
    return float(rng.uniform(1e9, 64e9)), int(rng.integers(3, 18)), int(rng.integers(2, 40))


def _silent(value):
    phi = _numbers(value, (3, None))
    if phi is None:
        return "Your features must be numbers: three rows, one for each pair, and as many columns as you like"
    complaint = _silent_kernel(features.kernel(phi))
    if complaint and phi.shape == (3, 3) and np.allclose(phi, phi.T) and _silent_kernel(phi) is None:
        return "the-kernel"
    return complaint


def _silent_kernel(K):
    close = 1e-6 * np.abs(K).max()
    if K[0, 0] <= 1e-6 * close:
        return "nothing-moves"
    if abs(K[1, 0]) > close:
        return "second-moves"
    if abs(K[2, 0] - 2 * K[0, 0]) > close:
        return "not-twice"
    return "third-is-silent-too" if abs(K[1, 2]) <= close else None


def _modes(kernel, weights):
    return np.linalg.eigvals(kernel * weights).real


def _a_kernel(rng):
    n = int(rng.integers(2, 5))
    loose = rng.standard_normal((n, n))
    return loose @ loose.T + 0.1 * np.eye(n), rng.dirichlet(np.full(n, 3.0))


def _cure(K, gamma):
    surplus = gamma * K[0, 1] - K[1, 1]
    return surplus / ((1 - gamma) * K[0, 0] + surplus)


def _turns(K, gamma):
    """Return the share from which on growth below the diagonal turns: trace squared is 4 times the determinant."""
    home, surplus = (1 - gamma) * K[0, 0], gamma * K[0, 1] - K[1, 1]
    c = (1 - gamma) * np.linalg.det(K)
    root = (np.sqrt(c + home * surplus) - np.sqrt(c)) / home  # of the odds
    return root**2 / (1 + root**2)


def _sick_pair(rng):
    own = float(rng.uniform(0.5, 2))
    drag = own * float(rng.uniform(1.5, 3))
    first = drag**2 / own * float(rng.uniform(1.2, 2))
    return np.array([[first, drag], [drag, own]]), float(rng.uniform(0.8, 0.98))


def _fate(size):
    return 0.0 if abs(size - 1) < 1e-9 else float(np.sign(size - 1))


def _sizes(M):
    return np.abs(np.linalg.eigvals(M))


def _a_fate(rng):
    """Draw a matrix that turns two values and shrinks the others, and scale it: slow, round, or off."""
    n = int(rng.integers(2, 5))
    angle = rng.uniform(0.3, 2.8)
    turned = np.diag(rng.uniform(0.1, 0.7, n) * rng.choice([-1, 1], n))
    turned[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    basis = np.eye(n) + 0.4 * rng.uniform(-1, 1, (n, n)) / n
    return (rng.choice([0.5, 0.998, 1.0, 1.002, 1.2]) * basis @ turned @ np.linalg.inv(basis),)


_LEAST_DISCOUNT = 2 * (np.sqrt(2) - 1)
"""The minimum of (1 + c^2) / (c + c^2) over c, above which some c diverges."""


def _wcw(value):
    pair = _numbers(value, (2,))
    if pair is None or not 0 <= pair[1] < 1:
        return "Your answer must be two numbers: c, and then a discount from 0 to 1, 1 excluded"
    c, gamma = pair
    if gamma >= 5 / 6:
        return "discount-too-high"
    known = examples.w_to_2w(float(gamma), (0.5, 0.5)).update
    update = dataclasses.replace(known, kernel=features.kernel([[1.0], [c]]), alpha=0.01 / (1 + c**2))
    J = update.jacobian([0, 0])
    if np.abs(np.linalg.eigvals(J)).max() > 1 + 1e-12:
        return None
    if gamma <= _LEAST_DISCOUNT:
        return "no-c"
    return "second-not-ahead" if c <= 1 else "c-too-small" if c < 1 + np.sqrt(2) else "c-too-large"


EXERCISES = (
    Choice(
        "ex-function-approximation-states-prediction",
        "C",
        (
            Mistake(
                "ten",
                "Ten digits are enough for four points: 256 to the power 4 has ten. The four pictures have "
                "28 224 points",
                "A",
            ),
            Mistake(
                "thousand",
                "A thousand digits are enough for about 400 points, for each adds 2.4 digits. The four pictures have "
                "28 224 points",
                "B",
            ),
        ),
        insight="It has about 68 000 digits: no table has a cell for each state.",
        phrases={
            "A": ("about 10", "10", "ten"),
            "B": ("about 1000", "1000", "a thousand"),
            "C": ("more than 10 000", "over 10 000", "above 10 000", "more than ten thousand", "10 000", ">10000"),
        },
    ),
    Value(
        "ex-function-approximation-leakage-prediction",
        lambda states: states - 1,
        (
            Mistake(
                "table",
                "In a table no other value moves, since each state has a number of its own. Here all states share "
                "their parameters",
                lambda states: 0,
            ),
            Mistake(
                "neighbours",
                "A hidden unit is switched on in half a plane, and not next to the trained state alone",
                lambda states: 8,
            ),
            Mistake(
                "cross",
                "A hidden unit is switched on in half a plane, and not next to the trained state alone",
                lambda states: 4,
            ),
            Mistake(
                "tiles",
                "That would be right for tiles, where the four states of a block share one number",
                lambda states: 3,
            ),
            Mistake(
                "half",
                "A single unit may be switched on for half of them. But there are 32 units, each with a half of its "
                "own, and the last bias moves every value",
                lambda states: states // 2,
            ),
            Mistake("itself", "The trained state is not one of the others", lambda states: states),
        ),
        draw=lambda rng: (64,),
        phrases={
            "0": ("none", "zero", "no other", "none of them"),
            "3": ("three",),
            "4": ("four",),
            "8": ("eight", "the neighbours", "its neighbours"),
            "32": ("half", "half of them", "about half", "thirty-two"),
            "63": (
                *("all", "all of them", "all the others", "all others", "every one", "every other", "the others"),
                *("every value", "all values", "all other values"),
                *("all 63", "all of the other 63", "sixty-three", "all sixty-three"),
            ),
            "64": ("all 64", "sixty-four", "all sixty-four"),
        },
        hint="Ask to how many states a hidden unit answers, and how many of them answer to the state that is trained.",
        insight="All of the others move: in a network the cells of the table are tied together.",
    ),
    Choice(
        "ex-function-approximation-outrun-prediction",
        "C",
        (
            Mistake(
                "trained-leads",
                "That is so in a table, under the tiles, and for the bumps at this state. In the network 27 others "
                "move further: their gradients are longer, and point much the same way",
                "A",
            ),
            Mistake(
                "neighbours",
                "Four of its eight neighbours do, and 23 values further away do as well",
                "B",
            ),
            Mistake(
                "all-of-them",
                "All of them move, and 27 move further than the trained value. The other 36 move less far",
                "D",
            ),
        ),
        insight="In the network 27 of the 63 move further. The step aims at one value, and others run ahead of it.",
        phrases={
            "A": ("none: the trained one moves furthest", "none", "0", "no", "no other"),
            "B": ("a few, all of them next to it", "a few", "some neighbours", "the neighbours"),
            "C": ("nearly half of them", "nearly half", "27", "between 20 and 40"),
            "D": ("all of them", "all", "63", "all 63"),
        },
    ),
    Choice(
        "ex-function-approximation-legs-prediction",
        "FBO",
        (
            Mistake("no-off-policy", "With data of its own policy each of the five stays inside", "FB"),
            Mistake(
                "no-bootstrapping",
                "Targets that stand still make a fixed bowl, and an update that is short enough goes down in it",
                "FO",
            ),
            Mistake("no-approximation", "A table averages each entry with its backup, and averages stay inside", "BO"),
            Mistake(
                "shared-alone",
                "Values that share parameters push each other about. But with true targets, and steps as short as "
                "here, they all stay inside",
                "F",
            ),
            Mistake(
                "bootstrapping-alone",
                "A table that learns from its own values averages each entry with its backup, and averages stay inside",
                "B",
            ),
            Mistake(
                "off-policy-alone",
                "In a table with true targets an entry moves towards its own target, or stays if it is not trained",
                "O",
            ),
            Mistake("two", "Take any two of the three: in each of the five examples the run stays inside", "TWO"),
            Mistake("one", "Take any one of the three: in each of the five examples the run stays inside", "ONE"),
            Mistake(
                "none",
                "The runs that leave every bound have the same switches on, in each of the five examples",
                "NONE",
            ),
        ),
        insight="In these five examples it takes all three. Whether all three are always enough is asked further down.",
        phrases={
            **combined(_LEGS, ("FB", "FO", "BO", "F", "B", "O")),
            "TWO": ("two", "2", "any two", "two of them", "two legs", "any pair", "a pair"),
            "ONE": ("one", "1", "any one", "one of them", "one leg"),
            "NONE": ("none", "no leg", "0", "none of them", "no run"),
            "FBO": (
                *(
                    "all three",
                    "all",
                    "all three legs",
                    "all legs",
                    "three",
                    "3",
                    "no pair",
                    "all of them",
                    "the deadly triad",
                ),
                *combined(_LEGS, ("FBO",))["FBO"],
            ),
        },
    ),
    Value(
        "ex-function-approximation-pair-prediction",
        _come_home,
        (
            Mistake("all", "All is trained and all can be represented, and still some run off", lambda: len(_STARTS)),
            Mistake(
                "none",
                "Above the diagonal the second action is greedy, and a path that stays there is pulled home",
                lambda: 0,
            ),
            Mistake(
                "all-but-one-lost",
                "More of them come home: from the starts that are furthest above the diagonal the path stays above it",
                lambda: 1,
            ),
            Mistake(
                "all-but-one",
                "More of them run off: both starts below the diagonal do, and a path from above it may cross it",
                lambda: len(_STARTS) - 1,
            ),
            Mistake(
                "diagonal",
                "That counts the starts above the diagonal; a path from there may cross it on its way",
                lambda: sum(second > first for first, second in _STARTS),
            ),
        ),
        hint="Follow each start: which action is greedy there, and on which side of the diagonal does its path end?",
        insight="From (0, 1) and (-1.4, 0.2) the path stays above the diagonal, where the update shrinks it. The other "
        "three get below it, one of them from above, and there the update stretches them.",
        phrases={
            "0": ("none", "zero", "none of them"),
            "1": ("one",),
            "2": ("two", "two of them"),
            "3": ("three",),
            "4": ("four",),
            "5": ("five", "all", "all five", "all of them"),
        },
    ),
    Choice(
        "ex-function-approximation-reward-prediction",
        "C",
        (
            Mistake(
                "none",
                "A table that starts inside the bound stays inside. No such theorem holds back a network: it leaks "
                "into the last cell, which no data corrects",
                "A",
            ),
            Mistake(
                "few",
                "More than that: only one of the eight stays inside. In the other seven the values of the last cell, "
                "which no data corrects, run ahead of the others",
                "B",
            ),
            Mistake(
                "all",
                "One of the eight settles near 0: the fate of a network hangs on its start",
                "D",
            ),
        ),
        insight="Seven of the eight leave it without any reward: each value learns from the next one, and the last one "
        "is tied to them and corrected by no data.",
        phrases={
            "A": ("none", "0", "zero", "no network"),
            "B": ("one to four", *"1234", "one", "two", "three", "four", "half", "half of them"),
            "C": ("five to seven", *"567", "five", "six", "seven", "most", "most of them", "all but one"),
            "D": ("all eight", "8", "eight", "all", "all of them"),
        },
    ),
    Choice(
        "ex-function-approximation-soft-prediction",
        "C",
        (
            Mistake(
                "own-data",
                "Its data is its own, and yet all ten leave the bound: function approximation and bootstrapping are "
                "still there, and a replay buffer holds what older policies did",
                "A",
            ),
            Mistake(
                "those-without",
                "The five with a target network leave it, too: the copy holds the network's own estimates, at most a "
                "hundred updates old",
                "B",
            ),
        ),
        insight="All ten hold values that no policy can earn.",
        phrases={
            "A": ("none of them", "none", "0", "no run"),
            "B": ("the five without a target network", "five", "5", "half of them", "half"),
            "C": ("all ten", "ten", "10", "all", "all of them"),
        },
    ),
    Choice(
        "ex-function-approximation-soft-end-prediction",
        "B",
        (
            Mistake(
                "back-inside",
                "Some come down again, but none back below 100: at the end all ten hold values that no policy can earn",
                "A",
            ),
            Mistake(
                "runs-off",
                "In the corridor they did. Here the largest of all is 1320, and those without a target network come "
                "down again from their peak",
                "C",
            ),
        ),
        insight="They leave the bound and do not run off: at the end the largest value lies between 138 and 445.",
        phrases={
            "A": ("below 100", "back below 100", "inside the bound"),
            "B": ("above 100 and below 1000", "a few hundred", "hundreds", "finite"),
            "C": ("beyond a million", "infinity", "a million", "they diverge", ">1000000"),
        },
    ),
    Function(
        "ex-function-approximation-count",
        _bins,
        (
            Mistake(
                "rounds-up",
                "That table is a little too large for the memory: round down",
                lambda memory, numbers, n_actions: _bins(memory, numbers, n_actions) + 1,
            ),
            Mistake(
                "no-rounding",
                "There is no part of a bin: round, so that the table fits into the memory",
                lambda memory, numbers, n_actions: _unrounded(memory / 8, numbers, n_actions),
            ),
            Mistake(
                "no-actions",
                "Each cell has an entry for each action",
                lambda memory, numbers, n_actions: _bins(memory, numbers, 1),
            ),
            Mistake(
                "one-byte",
                "An entry takes eight bytes, not one",
                lambda memory, numbers, n_actions: _bins(memory, numbers, n_actions, bytes_each=1),
            ),
            Mistake(
                "divides",
                "The number of cells is the bins to the power of the numbers: take a root, do not divide",
                lambda memory, numbers, n_actions: np.floor(memory / 8 / n_actions / numbers),
            ),
        ),
        draw=_a_table,
        insight="In 16 GB a robot of 17 numbers and 64 actions gets two bins for each number: here tables end.",
    ),
    Value(
        "ex-function-approximation-silent",
        lambda: np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]]),
        (
            Mistake(
                "nothing-moves", "The first pair has no features: training it moves nothing", lambda: np.zeros((3, 2))
            ),
            Mistake(
                "the-kernel",
                "That is a kernel that does it. Hand in features that have it: a row for each pair",
                lambda: np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0], [2.0, 1.0, 5.0]]),
            ),
            Mistake(
                "second-moves",
                "Training pair 1 moves pair 2: their features must be orthogonal",
                lambda: np.array([[1.0, 0.0], [1.0, 1.0], [2.0, 1.0]]),
            ),
            Mistake(
                "not-twice",
                "Pair 3 does not move twice as far as pair 1: compare their products with the features of pair 1",
                lambda: np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
            ),
            Mistake(
                "third-is-silent-too",
                "Training pair 3 does not move pair 2: the two share nothing",
                lambda: np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]),
            ),
        ),
        judge=_silent,
        insight="Silence is not passed on: 1 moves 3 and 3 moves 2, yet 1 does not move 2.",
    ),
    Function(
        "ex-function-approximation-fate",
        lambda M: _fate(_sizes(M).max()),
        (
            Mistake(
                "real-parts",
                "A complex eigenvalue turns and stretches: its size counts, and not its real part",
                lambda M: _fate(np.linalg.eigvals(M).real.max()),
            ),
            Mistake(
                "two-hundred-steps",
                "Two hundred steps are too few: a run that comes home slowly looks like one that goes round",
                lambda M: float(
                    np.select([(far := np.abs(np.linalg.matrix_power(M, 200)).max()) > 1e3, far < 1e-3], [1, -1], 0)
                ),
            ),
            Mistake(
                "norm",
                "That is how far a single step can stretch; the steps after it may take it back",
                lambda M: _fate(np.linalg.norm(M, 2)),
            ),
        ),
        draw=_a_fate,
        insight="A run of any length leaves slow ones open. The largest size of an eigenvalue does not.",
    ),
    Function(
        "ex-function-approximation-step",
        lambda kernel, weights: 2 / _modes(kernel, weights).max(),
        (
            Mistake(
                "no-weights",
                "You left the weights out: a pair that is rarely trained takes longer steps without harm",
                lambda kernel, weights: 2 / np.linalg.eigvalsh(kernel).max(),
            ),
            Mistake(
                "half",
                "At that step size the fastest mode lands on its target; it may overshoot by as much again",
                lambda kernel, weights: 1 / _modes(kernel, weights).max(),
            ),
            Mistake(
                "smallest-mode",
                "The slowest mode bears that step, the fastest one does not",
                lambda kernel, weights: 2 / _modes(kernel, weights).min(),
            ),
            Mistake(
                "diagonal",
                "That is the limit of each pair by itself; the pairs add to each other's steps",
                lambda kernel, weights: 2 / (np.diag(kernel) * weights).max(),
            ),
        ),
        draw=_a_kernel,
        insight="Above it the update diverges with neither bootstrapping nor a policy: long steps need no triad.",
    ),
    Function(
        "ex-function-approximation-cure",
        _cure,
        (
            Mistake("other-share", "That is the share of the second action", lambda K, gamma: 1 - _cure(K, gamma)),
            Mistake("no-gamma", "Both targets are discounted", lambda K, gamma: _cure(K, 1.0)),
            Mistake(
                "first-stands-still",
                "The first action bootstraps from itself: it pulls home with 1 - gamma of its strength only",
                lambda K, gamma: (gamma * K[0, 1] - K[1, 1]) / (K[0, 0] + gamma * K[0, 1] - K[1, 1]),
            ),
            Mistake(
                "second-does-not-pull",
                "The second action drags the first along, and it also pulls itself home, by its own kernel",
                lambda K, gamma: gamma * K[0, 1] / ((1 - gamma) * K[0, 0] + gamma * K[0, 1]),
            ),
            Mistake(
                "turns",
                "From that share on the growth below the diagonal turns, and no run stays there. But it still grows: "
                "the question is where short steps are stable",
                _turns,
            ),
        ),
        draw=_sick_pair,
        insight="The same kernel, the same discount, and a share of the data that turns growth below the diagonal into "
        "decay.",
    ),
    Value(
        "ex-function-approximation-build",
        lambda: np.array([1 + np.sqrt(2), 0.83]),
        (
            Mistake("discount-too-high", "The discount is to be below 5/6", lambda: np.array([2.0, 0.9])),
            Mistake(
                "no-c", "It converges, and so it does with every c: no c diverges at this discount", lambda: [2.4, 0.8]
            ),
            Mistake(
                "second-not-ahead",
                "It converges: the second state must run ahead of the first, or no target exceeds its value",
                lambda: np.array([1.0, 0.83]),
            ),
            Mistake(
                "c-too-small",
                "It converges: at this discount the second state does not run ahead far enough",
                lambda: np.array([2.0, 0.83]),
            ),
            Mistake(
                "c-too-large",
                "It converges: the second state pulls itself home with the square of c, and here that wins",
                lambda: np.array([4.0, 0.83]),
            ),
        ),
        judge=_wcw,
        insight="The best c lies in the middle: a small one does not run ahead, a large one pulls itself home.",
    ),
)
