"""The prediction of the appendix on studies and raw results."""

from divergence_notes.grading.kinds import Bet

EXERCISES = (
    Bet(
        "ex-reproduction-prediction",
        hint="The figure below it shows every run, and the text after it compares.",
    ),
)
