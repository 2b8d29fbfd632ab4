"""The exercises of the first part of the chapter on PreQN.

They are for practice: their solutions are on the page. Graded questions are in `coursework/questions`, outside of the
package; how an answer is judged is in `kinds`.
"""

import numpy as np

from divergence_notes import updates
from divergence_notes.grading.exercise import Mistake
from divergence_notes.grading.kinds import Choice, Function, Value
from divergence_notes.grading.phrases import combined
from divergence_notes.grading.running import Fault
from divergence_notes.mdp import FiniteMDP

KERNEL = np.array([[1.0, 2.0], [2.0, 5.0]])
LEADS_ON = FiniteMDP(np.array([[[0.0, 1.0]], [[0.0, 1.0]]]), np.ones((2, 1)), gamma=0.9)
Q_STAR = np.full((2, 1), 1 / (1 - LEADS_ON.gamma))


def _growth(schedule: list[int]) -> float:
    """Return by what factor an update of a schedule multiplies the error, on average and in the long run."""
    of_state = [updates.Update.preconditioned(LEADS_ON, kernel=KERNEL, batch=[s], alpha=1) for s in range(2)]
    columns = []
    for error in np.eye(2):
        Q = Q_STAR + error[:, None]
        for state in schedule:
            Q = of_state[state](Q)
        columns.append((Q - Q_STAR)[:, 0])
    return float(np.abs(np.linalg.eigvals(np.transpose(columns))).max() ** (1 / len(schedule)))


def _states(schedule: object) -> list[int]:
    try:
        found = np.asarray(schedule).ravel()
    except ValueError as error:
        raise Fault("must be two lists, each of the states 0 and 1 in the order of a round") from error
    if found.dtype.kind not in "iuf" or not 1 <= len(found) <= 1000 or not np.isin(found, (0, 1)).all():
        raise Fault("must be two lists, each of the states 0 and 1 in the order of a round")
    return [int(state) for state in found]


def _judge_schedules(answer: object) -> str | None:
    if not isinstance(answer, (list, tuple, np.ndarray)) or len(answer) != 2:
        raise Fault("must be two schedules: one that converges to Q*, and one that diverges faster than turns")
    mends, breaks = map(_states, answer)
    if len(set(mends)) < 2 or len(set(breaks)) < 2:
        return "one-state"
    if _growth(mends) >= 1 - 1e-9:
        return "exchanged" if _growth(breaks) < 1 - 1e-9 else "does-not-mend"
    return "no-faster-than-turns" if _growth(breaks) <= _growth([0, 1]) + 1e-9 else None


EXERCISES = (
    Choice(
        "ex-preqn-prediction",
        "A",
        (
            Mistake(
                "the-left-out",
                "In B the action that the batch leaves out moves 2.5 times as far, and feeds the maximum",
                "AB",
            ),
            Mistake(
                "no-room",
                "In C both states share one parameter, in equal shares: there undoing the kernel only rescales the "
                "plain step",
                "AC",
            ),
            Mistake("all", "A batch drags along what it leaves out (B), and may ask for what cannot be had (C)", "ABC"),
            Mistake(
                "none",
                "With all pairs in the batch, and a kernel that has an inverse, you get a table's update",
                "NONE",
            ),
        ),
        insight="With every pair in the batch, and a kernel that has an inverse, it is a table's update; B and C "
        "lack one of the two.",
        phrases={
            "A": ("A alone", "yes, no, no", "cured, not, not", "cured, not cured, not cured", "only the pair"),
            **combined({"A": "A", "B": "B", "C": "C"}, ("AB", "AC")),
            "ABC": ("all three", "all", "A B C", "yes, yes, yes", "cured, cured, cured"),
            "NONE": ("none of them", "neither", "no, no, no", "not, not, not", "not cured, not cured, not cured"),
        },
    ),
    Value(
        "ex-preqn-pencil",
        lambda: np.array([1.0, -1.0, 2.0]),
        (
            Mistake(
                "other-way-round",
                "These are the numbers for the first value: now it is the second that is wrong",
                lambda: np.array([0.5, 1.0, -1.0]),
            ),
            Mistake(
                "alone",
                "You take the gradient of the second pair alone, and the first value would move",
                lambda: np.array([1.0, 0.0, 1.0]),
            ),
            Mistake(
                "own-entry",
                "The change: you divide by the entry of the pair that is outside, and not by that of the batch",
                lambda: np.array([0.5, -1.0, 2.0]),
            ),
        ),
        hint="Two equations: the first value may not change, and the second has to rise by what it is short of.",
        insight="Pull at the pair that is wrong, and push against the other so that the leak is cancelled.",
    ),
    Value(
        "ex-preqn-coupling",
        lambda: 1 / 0.9,
        (
            Mistake(
                "gamma",
                "There the loop gain is still well below its limit: compute it once for the coupling that you found",
                lambda: 0.9,
            ),
            Mistake(
                "no-gamma",
                "There the spill is as large as what is spilled; but the target discounts it before it comes back",
                lambda: 1.0,
            ),
            Mistake(
                "wrong-pull", "The spill divides by the own pull of the action in the batch, the second", lambda: 10.0
            ),
        ),
        rtol=5e-3,  # three digits on paper are enough
        hint="Train the second action: how far does that drag the first along, and how much of it comes back "
        "into the target?",
        insight="What the batch leaves out is dragged along and fed back: gamma times the spill is the gain of "
        "that loop.",
    ),
    Value(
        "ex-preqn-schedule",
        lambda: ([0] + 8 * [1], [0, 0, 0, 1]),
        (
            Mistake(
                "one-state", "In each of the two schedules both states have to come up", lambda: ([1], [0, 0, 0, 1])
            ),
            Mistake(
                "does-not-mend",
                "Your first schedule does not converge to Q*: let state 2 settle after every single update of state 1",
                lambda: ([0, 1], [0, 0, 0, 1]),
            ),
            Mistake(
                "exchanged",
                "First the schedule that mends, then the one that breaks",
                lambda: ([0, 0, 0, 1], [0] + 8 * [1]),
            ),
            Mistake(
                "no-faster-than-turns",
                "Your second schedule does not grow faster than the turns do, counted for each update",
                lambda: ([0] + 8 * [1], [1, 0]),
            ),
        ),
        judge=_judge_schedules,
        insight="The same kernel and the same exact steps: how often each state comes up, and in runs of what "
        "length, makes the fate.",
    ),
    Function(
        "ex-preqn-single",
        lambda kernel, i, alpha: alpha / kernel[i, i],
        (
            Mistake("same", "You take the same step size; the kernel of the pair is 1 only by luck", lambda K, i, a: a),
            Mistake(
                "times", "You multiply by the kernel of the pair where you should divide", lambda K, i, a: a * K[i, i]
            ),
            Mistake(
                "length",
                "You divide by the length of the gradient; it is the squared length that counts",
                lambda K, i, a: a / np.sqrt(K[i, i]),
            ),
            Mistake(
                "whole-row",
                "You divide by the whole row of the kernel; with one pair in the batch only its own entry counts",
                lambda K, i, a: a / np.abs(K[i]).sum(),
            ),
            Mistake(
                "row-sum",
                "You divide by the sum of a row of the kernel; with one pair in the batch the others play no part",
                lambda K, i, a: a / K[i].sum(),
            ),
        ),
        draw=lambda rng: (np.cov(rng.standard_normal((4, 9))) + np.eye(4), int(rng.integers(4)), rng.uniform(0.1, 1)),
        insight="A batch of one is a plain step, divided by the squared length of its own gradient.",
    ),
)
