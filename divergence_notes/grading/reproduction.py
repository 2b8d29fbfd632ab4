"""The prediction of the appendix on studies and raw results.

No computer judges it, since it is a `Bet` of `kinds`. What is asked in the chapters is in the modules named after them.
"""

from divergence_notes.grading.kinds import Bet

EXERCISES = (
    Bet(
        "ex-reproduction-prediction",
        hint="The figure below it shows every run, and the text after it compares.",
    ),
)
