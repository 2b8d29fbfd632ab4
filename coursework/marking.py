"""What the hidden tests call: `mark`, which judges an answer and gives points; and the numbers of a class.

It stays with the instructor, as the questions do. How an answer is judged is in `divergence_notes.grading`; where the
student's code runs meanwhile is in `grader`.
"""

import hashlib
import importlib
import itertools
import os
import pkgutil
from pathlib import Path

import numpy as np
import questions

from divergence_notes import grading

HERE = Path(__file__).resolve().parent


def secret():
    """Return the seed that `make course` wrote down for this class, which is also what the tests draw from."""
    place = Path(os.environ.get("COURSE_ROOT", HERE / "instructor"), "seed.txt")
    return place.read_text(encoding="utf-8").strip()


def draw_parameters(chapter, seed):
    """Draw the numbers of a chapter's assignment, such that no foreseen mistake gives the right number."""
    made = importlib.import_module(f"questions.{chapter}")
    digest = hashlib.sha256(f"{chapter}:{seed}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "big"))
    for _ in range(1000):
        given = made.parameters(rng)
        if _apart(made, given, rng):
            return given
    raise ValueError(f"parameters of {chapter} must keep right and wrong values apart; a thousand draws did not")


def apart(chapter, given):
    """Say whether with these numbers no foreseen mistake gives the right one."""
    return _apart(importlib.import_module(f"questions.{chapter}"), given, np.random.default_rng(0))


def _apart(made, given, rng):
    values = [exercise for exercise in made.EXERCISES if isinstance(exercise, grading.Value) and exercise.judge is None]
    return all(_distinct(exercise, exercise.draw(rng, **given)) for exercise in values)


def _distinct(exercise, args):
    """Say whether the check can tell apart all the values that are foreseen; what is no number it has to judge."""
    made = [make(*args) for make in (exercise.right, *(m.wrong for m in exercise.mistakes))]
    try:
        found = [np.asarray(value, dtype=float) for value in made]
    except (TypeError, ValueError):
        return True
    pairs = itertools.combinations(found, 2)
    return all(np.isfinite(one).all() for one in found) and not any(
        one.shape == two.shape and np.allclose(one, two, rtol=2 * exercise.rtol) for one, two in pairs
    )


def tests(chapter):
    """List the files that decide what a hidden test of a chapter says of an answer."""
    core = [
        path for path in Path(grading.__file__).parent.glob("*.py") if not (HERE / "questions" / path.name).exists()
    ]
    return [
        HERE / "questions" / f"{chapter}.py",
        HERE / "marking.py",
        *sorted((HERE / "grader").glob("*.py")),
        *sorted(core),
    ]


def load():
    """Register the exercises of every graded question."""
    for found in pkgutil.iter_modules(questions.__path__):
        grading.register(*importlib.import_module(f"questions.{found.name}").EXERCISES)


def mark(name, answer, *, points, given=None):
    """Judge an answer, print what there is to say, and return the points, which nbgrader reads as the cell's value."""
    load()
    # The time limit is a long one: the other side has limits of its own.
    result = grading.check(name, answer, seed=secret(), given=given, time_limit=300)
    print(result)
    return round(points * result.share, 2)
