"""Checks of exercises: one function for the page, the notebook, the autograder and pytest.

`check` draws random instances from the exercise's name, compares the answer with the package on each, and says what is
wrong with it. The exercises of the chapters come with the package, a module a chapter; an instructor registers others.
"""

from divergence_notes.grading.core import (
    Exercise,
    Mistake,
    Result,
    check,
    exercises,
    find,
    register,
    try_out,
)
from divergence_notes.grading.running import Fault, TimeLimit

__all__ = ["Exercise", "Fault", "Mistake", "Result", "TimeLimit", "check", "exercises", "find", "register", "try_out"]
