"""The graded questions: their mistakes are told apart, and the numbers of a class keep them apart."""

import dataclasses
import importlib

import marking
import numpy as np
import pytest

from divergence_notes.grading import FindTheBug, Mistake, Value
from tests.coursework.assignments import NAMES


def questions():
    """Return every graded exercise with its chapter."""
    marking.load()
    return [(name, exercise) for name in NAMES for exercise in importlib.import_module(f"questions.{name}").EXERCISES]


QUESTIONS = questions()
MISTAKES = [(n, e, m) for n, e in QUESTIONS if not isinstance(e, FindTheBug) for m in e.mistakes]


def label(value):
    """Name a parameter of a test."""
    return getattr(value, "name", value)


class TestQuestions:
    @pytest.mark.parametrize(("name", "exercise"), QUESTIONS, ids=label)
    def test_three_mistakes_are_foreseen(self, name, exercise):
        assert exercise.name.startswith(f"{name.replace('_', '-')}-") and len(exercise.mistakes) >= 3

    @pytest.mark.parametrize(("name", "exercise", "mistake"), MISTAKES, ids=label)
    @pytest.mark.parametrize("seed", ["one", "two"])
    def test_each_is_recognised(self, name, exercise, mistake, seed):
        given = marking.draw_parameters(name, seed) if isinstance(exercise, Value) else None
        args = exercise.draw(np.random.default_rng(0), **given) if isinstance(exercise, Value) else ()
        answer = mistake.wrong(*args) if isinstance(exercise, Value) else mistake.wrong
        result = marking.grading.check(exercise.name, answer, seed=seed, given=given)
        assert (result.passed, result.diagnosis) == (False, mistake.name)
        assert mistake.text.rstrip(".") in result.message

    @pytest.mark.parametrize("mistakes", [e for _, e in QUESTIONS if isinstance(e, FindTheBug)], ids=label)
    def test_wrong_implementations_differ_from_the_right_one(self, mistakes):
        """By the instructor's solution; the marks that `TestEveryAssignment` finds show that it exposes all of them."""
        assert len(mistakes.mistakes) >= 6 and not {mistakes.right} & {m.wrong for m in mistakes.mistakes}

    def test_numbers_that_do_not_tell_a_mistake_apart_are_drawn_again(self, monkeypatch):
        import questions.bellman as made

        monkeypatch.setattr(made, "parameters", lambda rng: {"gamma": 0.9, "end": 0.0, "factor": 100})
        with pytest.raises(ValueError, match="keep right and wrong values apart"):
            marking.draw_parameters("bellman", "any")

    @pytest.mark.parametrize(("off", "rtol", "apart"), [(1e-4, 1e-6, True), (1e-4, 1e-3, False), (1e-2, 1e-3, True)])
    def test_apart_is_what_the_check_can_tell_apart(self, off, rtol, apart):
        near = Mistake("near", "Near", lambda x: x * (1 + off))
        exercise = Value("near-by", lambda x: x, (near,), rtol=rtol)
        assert marking._distinct(exercise, (2.0,)) is apart
        marking.grading.register(exercise)
        assert marking.grading.check("near-by", 2.0 * (1 + off), given={"x": 2.0}).passed is not apart

    def test_what_is_judged_or_no_number_need_not_be_kept_apart(self, monkeypatch):
        import questions.bellman as made

        same = (Mistake("same", "The same", lambda *args: 1.0),)
        one = Value("bellman-one", lambda *args: 1.0, same)
        monkeypatch.setattr(made, "EXERCISES", (one,))
        with pytest.raises(ValueError, match="keep right and wrong values apart"):
            marking.draw_parameters("bellman", "any")
        monkeypatch.setattr(made, "EXERCISES", (dataclasses.replace(one, judge=lambda value, *args: None),))
        assert marking.draw_parameters("bellman", "any")
        monkeypatch.setattr(made, "EXERCISES", (dataclasses.replace(one, right=lambda *args: ["a", [1.0]]),))
        assert marking.draw_parameters("bellman", "any")
