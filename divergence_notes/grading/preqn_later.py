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


def _converges(period: int, alpha: float) -> bool:
    """Return whether the pair settles with a target network."""
    pair = examples.full_data_divergence()
    update = dataclasses.replace(pair.update, alpha=alpha).frozen_target(period)
    return dynamics.iterate(update, pair.Q0, max_iter=2000, tol=1e-6).status == "converged"


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
        return "too-patient"
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
    Value(
        "ex-preqn-patience",
        lambda: [8, 4],
        (
            Mistake("too-impatient", "With your first period the pair still runs off", lambda: [5, 3]),
            Mistake("too-patient", "Your first period works, and so does a shorter one", lambda: [12, 6]),
            Mistake(
                "same-again", "The product of step size and period counts: it cannot stay the same", lambda: [8, 8]
            ),
            Mistake("doubled", "A longer step does the same work in fewer updates", lambda: [8, 16]),
        ),
        judge=_judge_periods,
        insight="What counts is the product of step size and period: a longer step buys back updates.",
    ),
)
