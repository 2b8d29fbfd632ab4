"""Checks of exercises: one function for the page, the notebook, the autograder and pytest.

`check` draws random instances from the exercise's name, compares the answer with the package on each, and says what is
wrong with it. The exercises of the chapters come with the package, a module a chapter; an instructor registers others.
"""

from divergence_notes.grading.checking import check, try_out
from divergence_notes.grading.exercise import Complaint, Exercise, Mistake, Result
from divergence_notes.grading.kinds import Choice, Compared, FindTheBug, Function, Value
from divergence_notes.grading.own import own_numbers, seal
from divergence_notes.grading.registry import exercises, find, register
from divergence_notes.grading.running import Fault, TimeLimit
from divergence_notes.grading.typed import typed_in

__all__ = [
    "Choice",
    "Compared",
    "Complaint",
    "Exercise",
    "Fault",
    "FindTheBug",
    "Function",
    "Mistake",
    "Result",
    "TimeLimit",
    "Value",
    "check",
    "exercises",
    "find",
    "own_numbers",
    "register",
    "seal",
    "try_out",
    "typed_in",
]
