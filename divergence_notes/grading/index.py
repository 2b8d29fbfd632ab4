"""The bet of the book's first page.

The exercises of the chapters are in the modules that have their names; how an answer is judged is in `kinds`.
"""

from divergence_notes.grading.exercise import Mistake
from divergence_notes.grading.kinds import Choice

EXERCISES = (
    Choice(
        "ex-index-prediction",
        "C",
        (
            Mistake(
                "safe-when-short",
                "A shorter step keeps closer to the grey lines, and from these two starts the grey lines run off, too",
                "A",
            ),
            Mistake(
                "one",
                "Both starts lie where the grey lines run off, and shorter steps keep closer to these lines",
                "B",
            ),
            Mistake(
                "all",
                "The other two starts lie where the grey lines run home, and shorter steps keep closer to these lines",
                "D",
            ),
        ),
        insight="The same two run off, along the same lines, in about ten times as many updates: to learn more slowly "
        "is no cure here.",
        phrases={
            "A": ("none of them", "none", "0", "no path"),
            "B": ("one of them", "one", "1"),
            "C": ("two of them", "the same two", "two", "2", "both"),
            "D": ("all four", "four", "4", "all", "all of them"),
        },
    ),
)
