"""The exercises of the third part of the chapter on PreQN.

They are for practice: their solutions are on the page. Graded questions are in `coursework/questions`, outside of the
package; how an answer is judged is in `kinds`.
"""

import dataclasses

import numpy as np

from divergence_notes import dynamics, examples
from divergence_notes.grading.exercise import Mistake
from divergence_notes.grading.kinds import Choice, Value
from divergence_notes.grading.running import Fault


def _converges(period: int, alpha: float, *, bound: float = 1e60) -> bool:
    """Return whether the pair settles with a target network; it may go far out on the way."""
    pair = examples.full_data_divergence()
    update = dataclasses.replace(pair.update, alpha=alpha).frozen_target(period)
    return dynamics.iterate(update, pair.Q0, max_iter=9999, tol=1e-6, bound=bound).status == "converged"


def _judge_periods(answer: object) -> str | None:
    try:
        found = np.asarray(answer, dtype=float)
    except (TypeError, ValueError) as error:
        raise Fault("must be two whole numbers: the period at alpha = 0.1, and at 0.2") from error
    if found.shape != (2,) or not np.isin(found, np.arange(1, 101)).all():
        raise Fault("must be two whole numbers from 1 to 100: the period at alpha = 0.1, and at 0.2")
    first, second = (int(period) for period in found)
    if not _converges(first, 0.1):
        return "too-impatient"
    if first > 1 and _converges(first - 1, 0.1):
        return "too-patient" if _converges(first - 1, 0.1, bound=1e10) else "stopped-at-a-bound"
    if second == first:
        return "same-again"
    if second > first:
        return "doubled"
    if not _converges(second, 0.2):
        return f"at alpha = 0.2 the pair still runs off with a period of {second}"
    return f"at alpha = 0.2 a period of {second - 1} works, too" if _converges(second - 1, 0.2) else None


EXERCISES = (
    Choice(
        "ex-preqn-target-prediction",
        "B",
        (
            Mistake(
                "as-many-steps",
                "So it begins; but each update takes a part of the distance that is left, and there is less and less "
                "of it",
                "C",
            ),
            Mistake("the-power", "That is what becomes of the power; the bracket is I minus the power", "A"),
        ),
        insight="The power dies away and I is left: the kernel is undone, as by PreQN with alpha = 1 and every pair in "
        "the batch.",
        phrases={
            "A": ("0, nothing moves", "0", "zero", "nothing"),
            "B": ("I, the identity", "I", "identity", "the identity", "1", "the unit matrix", "eye"),
            "C": ("N α K D, an N times longer step", "N alpha K D", "N times as long", "it grows", "longer"),
        },
    ),
    Choice(
        "ex-preqn-remedies-prediction",
        "B",
        (
            Mistake(
                "corrected",
                "These two see what a step does to the target: the first goes down the squared error, the second takes "
                "it back",
                "A",
            ),
            Mistake("pulled", "A pull to 0 that is stronger than 0.8 brings w home, by short enough steps", "C"),
        ),
        insight="Both make state 1 fit its target. That doubles state 2 and, with it, the target, to 1.8 times w.",
        phrases={
            "A": ("the residual gradient and TDC", "residual gradient and TDC", "TDC and the residual gradient"),
            "B": (
                "the target network and PreQN",
                "target network and PreQN",
                "PreQN and the target network",
                "a target network and PreQN",
            ),
            "C": ("regularisation and PreQN", "PreQN and regularisation", "regularization and PreQN"),
        },
    ),
    Value(
        "ex-preqn-wait",
        lambda: np.array([5.0, 1.0]),
        (
            Mistake(
                "one-early",
                "You stop one update too early: more than a nineteenth is left",
                lambda: np.array([4.0, 1.0]),
            ),
            Mistake(
                "as-long",
                "The condition on E alone is enough, and not more: look at the factor itself",
                lambda: np.array([5.0, 5.0]),
            ),
            Mistake("half", "A half is more than what the condition on E allows", lambda: np.array([1.0, 1.0])),
        ),
        hint="What is left of an error after N halvings?",
        insight="What is left halves with each update. The factor of a table is below 1 from the first update on.",
    ),
    Value(
        "ex-preqn-wrong-place",
        lambda: 5 / 6,
        (
            Mistake("state-1", "That is the border with state 1 alone in the data", lambda: 0.5),
            Mistake("unweighted", "You add the two TD errors; each counts with its own feature, 1 and 2", lambda: 0.75),
        ),
        rtol=5e-3,
        hint="Set the sum of the two TD errors to 0, each multiplied by its feature.",
        insight="Above it TDC rests below 0 where 10 is true. It is the border above which the plain step diverges.",
    ),
    Value(
        "ex-preqn-patience",
        lambda: [7, 4],
        (
            Mistake("too-impatient", "With your first period the pair still runs off", lambda: [5, 3]),
            Mistake("too-patient", "Your first period works, and so does a shorter one", lambda: [12, 6]),
            Mistake(
                "stopped-at-a-bound",
                "A shorter period works as well, though its values go far out before they come home: raise the bound "
                "of the run",
                lambda: [8, 4],
            ),
            Mistake(
                "same-again",
                "With steps as short as these the product of step size and period counts: it cannot stay the same",
                lambda: [7, 7],
            ),
            Mistake("doubled", "The longer step does the same work in fewer updates", lambda: [7, 14]),
        ),
        judge=_judge_periods,
        insight="While steps are short, what counts is the product of step size and period: a longer step buys back "
        "updates.",
    ),
)
