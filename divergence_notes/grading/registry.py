"""The exercises by their names: those that come with the package, a module a chapter, and those that are registered.

What an exercise is, is in `exercise`; asking one about an answer is in `checking`.
"""

import importlib.util

from divergence_notes.grading.exercise import Exercise

CHAPTERS = (
    *("index", "bellman", "function_approximation", "key_equation", "contraction"),
    *("heuristics", "heuristics_runs", "preqn", "preqn_networks", "preqn_later", "reproduction_robots"),
)
"""Pages. Each may have a module here with an `EXERCISES`; it is imported when one of its names is asked for."""

_registered: dict[str, Exercise] = {}


def register(*made: Exercise) -> None:
    """Add exercises, an instructor's own for instance, under their names.

    Parameters
    ----------
    *made : Exercise
        One that has the name of an earlier one takes its place.
    """
    for exercise in made:
        _registered[exercise.name] = exercise


def find(name: str) -> Exercise:
    """Return the exercise of a name.

    Parameters
    ----------
    name : str
        As in `check`.

    Returns
    -------
    Exercise
        One that comes with the package, or was registered.

    Raises
    ------
    ValueError
        If no exercise has it; the message lists the names of its chapter.
    """
    if name not in _registered:
        exercises()
    if name not in _registered:
        near = [known for known in _registered if known.split("-")[1:2] == str(name).split("-")[1:2]] or _registered
        raise ValueError(f"name must be that of an exercise, one of {', '.join(sorted(near))}; got {name!r}")
    return _registered[name]


def exercises() -> dict[str, Exercise]:
    """Return every exercise that is known, by name."""
    for chapter in CHAPTERS:
        for exercise in of_chapter(chapter):
            _registered.setdefault(exercise.name, exercise)
    return dict(_registered)


def of_chapter(chapter: str) -> tuple[Exercise, ...]:
    """Return the exercises that come with the package for a chapter."""
    module = f"{__package__}.{chapter}"
    return importlib.import_module(module).EXERCISES if importlib.util.find_spec(module) else ()
