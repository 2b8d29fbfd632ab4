"""The exercises of the chapter on PreQN.

They are for practice: their solutions are on the page. Graded questions are in `coursework/questions`, outside of the
package; how an answer is judged is in `kinds`.
"""

import dataclasses

import numpy as np

from divergence_notes import dynamics, examples, updates
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


def _jittered(mu, jitter, kappa):
    ridge = jitter * kappa
    return np.array([mu / (mu + ridge), np.sqrt(mu) / (mu + ridge), ridge])


EXERCISES = (
    Choice(
        "ex-preqn-prediction",
        "A",
        (
            Mistake("the-left-out", "In B the action that the batch leaves out moves too, and feeds the maximum", "AB"),
            Mistake("no-room", "In C two wishes stand against one parameter: nobody can grant both", "AC"),
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
    Choice(
        "ex-preqn-minibatch-prediction",
        "C",
        (
            Mistake(
                "full-rank",
                "The network has far more parameters than the batch has pairs; but states of one episode are "
                "neighbours, and it can hardly tell them apart",
                "A",
            ),
            Mistake("the-others", "It is the other way round: nearly three quarters are smaller", "B"),
        ),
        insight="Nearly three quarters are smaller: for every practical purpose the matrix is singular.",
        phrases={
            "A": ("nearly all", "all", "256", "about 250", "250"),
            "B": ("about three quarters", "three quarters", "3/4", "about 190", "190", "192"),
            "C": ("about a quarter", "a quarter", "one quarter", "1/4", "about 70", "70", "71", "64"),
        },
    ),
    Choice(
        "ex-preqn-pendulum-prediction",
        "A",
        (
            Mistake(
                "needs-a-target-network",
                "It swings the rod up without one, and its values stay at a few hundred",
                "C",
            ),
            Mistake(
                "as-the-others",
                "That is what TD3 and SAC take in the study below: about 5000; this agent takes some hundred",
                "B",
            ),
        ),
        insight="Some hundred updates, with one network and nothing that stands still; but one seed proves little, and "
        "the study below has five.",
        phrases={
            "A": ("within a thousand", "hundreds", "some hundred", "a few hundred", "500", "less than 1000"),
            "B": ("after some thousand", "thousands", "some thousand", "several thousand", "5000"),
            "C": ("never", "it does not", "its values run off", "not at all"),
        },
    ),
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
                "Your first schedule does not converge to Q*: let state 2 settle before state 1 passes its error on",
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
        insight="The same kernel and the same exact steps: how often each state comes up makes the fate.",
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
    Function(
        "ex-preqn-jitter",
        _jittered,
        (
            Mistake(
                "no-scale",
                "The jitter counts in units of the mean diagonal kappa",
                lambda mu, jitter, kappa: _jittered(mu, jitter, 1.0),
            ),
            Mistake(
                "unsolved",
                "The first number is what is left unsolved, and not what the batch gets",
                lambda mu, jitter, kappa: _jittered(mu, jitter, kappa) * [-1, 1, 1] + [1, 0, 0],
            ),
            Mistake(
                "length-of-z",
                "The second number is the length of z; the step is the sum of gradients with these weights",
                lambda mu, jitter, kappa: _jittered(mu, jitter, kappa) * [1, 1 / np.sqrt(mu), 1],
            ),
            Mistake(
                "no-jitter-in-length",
                "The length of the step is that without jitter",
                lambda mu, jitter, kappa: np.array([mu / (mu + jitter * kappa), 1 / np.sqrt(mu), jitter * kappa]),
            ),
            Mistake(
                "squared-length",
                "Your second number is the square of the length of the step",
                lambda mu, jitter, kappa: _jittered(mu, jitter, kappa) ** [1, 2, 1],
            ),
        ),
        draw=lambda rng: (float(rng.uniform(0.01, 2)), float(rng.uniform(0.001, 0.1)), float(rng.uniform(2, 20))),
        insight="The jitter gives up what the batch gets by long steps only: small eigenvalues, and half at "
        "jitter times kappa.",
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
