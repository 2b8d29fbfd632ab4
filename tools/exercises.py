"""What a page must know of its exercises to judge answers by itself: the data that `book/_static/judge.js` reads.

A choice, and up to three numbers in a row, are judged without Python, in the words of `grading.check`. The data is
plain: the page has its answers in plain words anyway, folded, for who reads it without scripts.
"""

import numpy as np

from divergence_notes.grading.exercise import Exercise, sentence
from divergence_notes.grading.kinds import Choice, Value
from divergence_notes.grading.registry import exercises

IN_A_ROW = 3
"""That many numbers are typed into one field."""


def of_the_book() -> dict[str, Exercise]:
    """Return the exercises of the pages by name; the questions of a course, where it has been read, are not among them.

    Returns
    -------
    dict
        As `grading.exercises` has them.
    """
    return {name: exercise for name, exercise in exercises().items() if name.startswith("ex-")}


def judged_without_python(exercise: Exercise) -> bool:
    """Say whether a page can judge an exercise by itself.

    Parameters
    ----------
    exercise : Exercise
        One of the package.

    Returns
    -------
    bool
        True for a choice, and for a number or up to three in a row that are compared with the right ones; false for a
        function, a test, and what has a judge of its own.
    """
    if isinstance(exercise, Choice):
        return True
    if not isinstance(exercise, Value) or exercise.judge is not None:
        return False
    right = np.asarray(exercise.right(*exercise.sample()[0]))
    return right.dtype.kind in "iuf" and right.ndim <= 1 and right.size <= IN_A_ROW


def data(exercise: Exercise) -> dict:
    """Return what `judge.js` needs of an exercise.

    Parameters
    ----------
    exercise : Exercise
        One that is judged without Python.

    Returns
    -------
    dict
        Strings, numbers and lists. A ``choice`` has its ``right`` option, and for each of its ``options`` the
        ``words`` that name it and what is ``said`` to it; ``typed`` says that it has too many for buttons. A ``value``
        has the ``right`` numbers with their ``shape`` and ``rtol``, the ``phrases`` that stand for numbers, what is
        said to the foreseen ``mistakes``, to others (``hint``) and to the right ones (``insight``).

    Raises
    ------
    ValueError
        If it takes Python to judge it.
    """
    if not judged_without_python(exercise):
        raise ValueError(f"exercise must be judged without Python, and {exercise.name} is not")
    (args,) = exercise.sample()
    if isinstance(exercise, Choice):
        right, told = exercise.said(*args)
        options = {
            option: {"words": list(exercise.phrases.get(option, ())), "said": said} for option, said in told.items()
        }
        return {"kind": "choice", "right": right, "typed": len(options) > Choice.buttons, "options": options}
    right = np.asarray(exercise.right(*args), dtype=float)
    wrong = [(np.asarray(mistake.wrong(*args), dtype=float), mistake.text) for mistake in exercise.mistakes]
    return {
        "kind": "value",
        "typed": True,
        "shape": list(right.shape),
        "right": right.ravel().tolist(),
        "rtol": exercise.rtol,
        "insight": exercise.insight or "Yes.",
        "hint": exercise.hint,
        "phrases": {number: list(words) for number, words in getattr(exercise, "phrases", {}).items()},
        "mistakes": [
            {"wrong": values.ravel().tolist(), "said": sentence(text)}
            for values, text in wrong
            if values.shape == right.shape  # another shape is named as that, before any mistake is looked for
        ],
    }
