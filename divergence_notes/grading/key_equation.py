"""The exercises of the chapter on the key equation.

They are for practice: their solutions are on the page. Graded questions are in `coursework/questions`, outside of the
package; how an answer is judged is in `kinds`.
"""

import numpy as np

from divergence_notes.grading.exercise import Mistake
from divergence_notes.grading.kinds import Choice, Function, Value
from divergence_notes.grading.running import Fault


def _alphas(learning_rate, batch_size):
    """Return the step sizes of a mean and of a sum of squared errors, neither with the factor one half."""
    return np.array([2 * learning_rate, 2 * learning_rate * batch_size])


def _by_hand(u=2.0, w=1.0, *, reward=0.6, gamma=0.9, share=0.5, crossed=False, inner=True, alpha=5.0, flip=1.0):
    """Return the predicted and the real change of the values u and u w in one step, both towards one target."""
    gradients = np.array([[1.0, 0.0], [u, w] if crossed else [w, u]])
    pulls = flip * alpha * share * (reward + gamma * u * w - np.array([u, u * w]))
    K = gradients @ gradients.T if inner else np.eye(2)
    moved = np.array([u, w]) + gradients.T @ pulls
    return np.array([K @ pulls, [moved[0] - u, moved[0] * moved[1] - u * w]])


def seven_numbers(answer):
    """Return the weights of one ReLU unit, two inputs and the target of the second, or say what they are instead."""
    what = "w, b, v, c, the first input, the second, its target"
    try:
        numbers = np.asarray(answer, dtype=float)
    except (TypeError, ValueError) as error:
        raise Fault(f"must be seven numbers: {what}") from error
    if numbers.shape != (7,):
        raise Fault(f"must be seven numbers: {what}; it has shape {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise Fault(f"must be seven numbers: {what}; not all of them are finite")
    return numbers


def _kink(answer):
    """Judge a network of one ReLU unit by what its step does to the unit at the first input.

    A step of size alpha lifts the unit there by alpha times the error times v (x_1 x_2 + 1) to first order. What comes
    through, v times as much, is missed by the kernel, which takes the unit for one that is off.
    """
    numbers = seven_numbers(answer)
    w, b, v, c, first, second, y = numbers
    if w * first + b != 0:
        return "not-at-the-kink"
    if w * second + b <= 0:
        return "second-off"
    rise = (y - v * (w * second + b) - c) * v * (first * second + 1)
    if rise <= 0:
        return "stays-off" if rise < 0 else "nothing-moves"
    return None


EXERCISES = (
    Choice(
        "ex-key-equation-prediction",
        "B",
        (
            Mistake("as-the-change", "That holds for the change itself; what is missed shrinks faster than that", "A"),
            Mistake(
                "relu-is-exact",
                "A ReLU network is made of straight pieces in its input, but a step moves its parameters",
                "C",
            ),
            Mistake(
                "depends",
                "How large the error is depends on the network. How it shrinks with a short step does not, but for a "
                "start at a kink, or a step along which the second derivative is 0",
                "D",
            ),
        ),
        insight="What a short step misses is a product of two moves, each of them proportional to alpha: it goes with "
        "the square. That holds for ReLU, too, away from kinks.",
        phrases={
            "A": ("a half", "it falls to a half", "1/2", "0.5"),
            "B": ("a quarter", "it falls to a quarter", "1/4", "0.25"),
            "C": (
                "to a quarter with a smooth network; with ReLU there is no error",
                "a quarter if it is smooth, nothing with ReLU",
                "no error with ReLU",
            ),
            "D": ("it depends on the network", "nobody can say", "it depends"),
        },
    ),
    Value(
        "ex-key-equation-buffer-prediction",
        lambda: 44,
        (
            Mistake(
                "all",
                "From a hole and from the goal nobody moves: what ends the game is never the start of a step",
                lambda: 64,
            ),
            Mistake(
                "goal-alone",
                "You left out the goal. Nobody moves from a hole either",
                lambda: 60,
            ),
            Mistake(
                "holes-alone",
                "You left out the holes. Nobody moves from the goal either",
                lambda: 48,
            ),
            Mistake(
                "a-batch",
                "That is how many steps are drawn for a batch; the buffer holds two thousand",
                lambda: 32,
            ),
            Mistake(
                "cells",
                "That is how many cells there are to stand in; in each of them there is a choice of moves",
                lambda: 11,
            ),
        ),
        hint="In which cells does the player never choose a move?",
        insight="From the four holes and the goal nobody moves, so 20 pairs are in no batch from a replay buffer.",
        phrases={"64": ("all", "all of them", "every one", "sixty-four", "all 64"), "44": ("forty-four",)},
    ),
    Choice(
        "ex-key-equation-size-prediction",
        "B",
        (
            Mistake(
                "cured",
                "It still diverges, about ten times more slowly. The kernel and the step size enter as a product, and "
                "from this start the pair diverges at every step size",
                "A",
            ),
            Mistake(
                "neither",
                "A smaller factor in front changes how far each update moves, and not in which direction",
                "C",
            ),
        ),
        insight="It still diverges, in about ten times as many updates: a tenth of the kernel is a tenth of the step.",
        phrases={
            "A": ("yes, it converges", "yes", "cured", "it converges"),
            "B": ("no, it still diverges", "no", "it diverges", "not cured"),
            "C": ("in between: it stays bounded and never settles", "it goes round", "neither"),
        },
    ),
    Value(
        "ex-key-equation-by-hand",
        _by_hand,
        (
            Mistake(
                "no-shares",
                "Half of the data is of each pair: its pull is alpha times one half times the TD error",
                lambda: _by_hand(share=1.0),
            ),
            Mistake(
                "no-reward",
                "Each step pays 0.6 here, and the target begins with what is paid",
                lambda: _by_hand(reward=0.0),
            ),
            Mistake(
                "no-gamma",
                "The value of the second pair counts with the factor gamma in the target",
                lambda: _by_hand(gamma=1.0),
            ),
            Mistake(
                "gradient-crossed",
                "The value u w rises with u as fast as w is large, and with w as fast as u is: its gradient is (w, u)",
                lambda: _by_hand(crossed=True),
            ),
            Mistake(
                "a-table",
                "You let each pair move its own value alone; column j of K says what pair j does to both",
                lambda: [_by_hand(inner=False)[0], _by_hand()[1]],
            ),
            Mistake(
                "no-alpha",
                "You left out the step size",
                lambda: _by_hand(alpha=1.0),
            ),
            Mistake(
                "wrong-way",
                "A TD error is the target minus the value: here both are positive",
                lambda: _by_hand(flip=-1.0),
            ),
            Mistake(
                "no-remainder",
                "Your two changes are the same. For the real one, move u and w first and then multiply them",
                lambda: [_by_hand()[0], _by_hand()[0]],
            ),
            Mistake(
                "exchanged",
                "You have the prediction and the real change in the wrong order",
                lambda: _by_hand()[::-1],
            ),
        ),
        hint="Write down the two TD errors, the two gradients and K before you multiply.",
        insight="The prediction is a matrix times a vector; what it misses is the product of the two moves, 2 times 2.",
    ),
    Function(
        "ex-key-equation-loss",
        _alphas,
        (
            Mistake(
                "no-two",
                "The loss has no factor one half, so that its derivative has a factor 2",
                lambda learning_rate, batch_size: _alphas(learning_rate, batch_size) / 2,
            ),
            Mistake(
                "halved",
                "The factor 2 of the derivative makes the step longer, and not shorter",
                lambda learning_rate, batch_size: _alphas(learning_rate, batch_size) / 4,
            ),
            Mistake(
                "sum-divided",
                "A sum is larger than a mean, by the size of the batch",
                lambda learning_rate, batch_size: np.array([2, 2 / batch_size]) * learning_rate,
            ),
            Mistake(
                "mean-divided",
                "The shares of the pairs add up to 1 already: it is the sum that is out of step, and not the mean",
                lambda learning_rate, batch_size: _alphas(learning_rate, batch_size) / batch_size,
            ),
            Mistake(
                "exchanged",
                "You have the mean and the sum in the wrong order",
                lambda learning_rate, batch_size: _alphas(learning_rate, batch_size)[::-1],
            ),
        ),
        draw=lambda rng: (round(float(rng.uniform(0.001, 0.5)), 4), int(rng.integers(3, 257))),
        insight="A library's loss takes the same step with another alpha: find the factor before you compare "
        "step sizes.",
    ),
    Value(
        "ex-key-equation-order",
        lambda: 2.0**2,
        (
            Mistake(
                "no-gap",
                "The six steps do not see the same table: each starts where the one before it has ended",
                lambda: 1.0,
            ),
            Mistake(
                "slope-one",
                "Each later step starts from a table that is off in proportion to alpha, and is short itself",
                lambda: 2.0,
            ),
            Mistake(
                "slope-three",
                "The gap has a part in alpha squared: two steps, each in proportion to alpha, meet in it",
                lambda: 8.0,
            ),
            Mistake("upside-down", "Say by how much the gap is divided: a number above 1", lambda: 0.25),
        ),
        rtol=0.03,  # who measures it does so at some alpha
        hint="How far does the first of the six steps move the table from which the second starts? And how "
        "long is the second?",
        insight="The gap goes with the square of alpha: to first order both programs take the same step.",
    ),
    Value(
        "ex-key-equation-kink",
        lambda: np.array([-2.0, 1.0, 1.0, 0.0, 0.5, 0.0, 2.0]),
        (
            Mistake(
                "not-at-the-kink",
                "The unit is not exactly at its kink at the first input: w x + b must be 0 there, to the last bit",
                lambda: np.array([-2.0, 1.5, 1.0, 0.0, 0.5, 0.0, 2.0]),
            ),
            Mistake(
                "second-off",
                "The unit is off at the second input, so that training there moves nothing but c",
                lambda: np.array([-2.0, 1.0, 1.0, 0.0, 0.5, 1.0, 2.0]),
            ),
            Mistake(
                "stays-off",
                "The step moves the unit at the first input below 0, where it gives 0 as before: nothing is missed",
                lambda: np.array([-2.0, 1.0, 1.0, 0.0, 0.5, 0.0, -2.0]),
            ),
            Mistake(
                "nothing-moves",
                "The step does not move the unit at the first input: look at v, at the TD error, and at the inputs",
                lambda: np.array([-2.0, 1.0, 1.0, 0.0, 0.5, 0.0, 1.0]),
            ),
        ),
        judge=_kink,
        insight="At the kink the error is of first order: the kernel is blind to a unit that the step itself "
        "switches on.",
    ),
)
