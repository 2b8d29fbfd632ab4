"""The prediction of the appendix on studies and raw results."""

from divergence_notes.grading.core import Exercise

EXERCISES = (
    Exercise(
        "ex-reproduction-prediction",
        "bet",
        None,
        (),
        hint="The figure below it shows every run, and the text after it compares.",
    ),
)
