"""The exercises of the second part of the chapter on PreQN.

They are for practice: their solutions are on the page. Graded questions are in `coursework/questions`, outside of the
package; how an answer is judged is in `kinds`.
"""

import numpy as np

from divergence_notes.grading.exercise import Mistake
from divergence_notes.grading.kinds import Choice, Function


def _jittered(mu, jitter, kappa):
    ridge = jitter * kappa
    return np.array([mu / (mu + ridge), np.sqrt(mu) / (mu + ridge), ridge])


EXERCISES = (
    Choice(
        "ex-preqn-minibatch-prediction",
        "C",
        (
            Mistake(
                "full-rank",
                "The network has far more parameters than the batch has pairs; but it is smooth and has four inputs, "
                "and gradients at similar inputs are similar",
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
                "It swings the rod up without a target network, and its values stay at a few hundred",
                "C",
            ),
            Mistake(
                "as-the-others",
                "Some other agents of the study below take so many, about 3000 to 6000; this agent takes some hundred",
                "B",
            ),
        ),
        insight="Some hundred updates, with one network and nothing that stands still; but one seed proves little, and "
        "the study below has ten.",
        phrases={
            "A": ("within a thousand", "hundreds", "some hundred", "a few hundred", "500", "less than 1000"),
            "B": ("after some thousand", "thousands", "some thousand", "several thousand", "5000"),
            "C": ("never", "it does not", "its values run off", "not at all"),
        },
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
)
