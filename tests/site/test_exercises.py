"""What a page knows of its exercises, and that it judges them as the package does, letter by letter."""

import dataclasses
import json

import exercises
import numpy as np
import pytest

from divergence_notes.grading import registry
from divergence_notes.grading.exercise import Mistake
from divergence_notes.grading.kinds import Choice, FindTheBug, Function, Value

KNOWN = registry.exercises()
JUDGED = [name for name, exercise in KNOWN.items() if exercises.judged_without_python(exercise)]


class TestJudgedWithoutPython:
    """A choice, and up to three numbers that are compared; nothing that has to be run or looked at otherwise."""

    def test_of_the_book(self):
        assert len(JUDGED) >= 17
        for name, exercise in KNOWN.items():
            if isinstance(exercise, (Function, FindTheBug)) or getattr(exercise, "judge", None):
                assert name not in JUDGED
            if isinstance(exercise, Choice):
                assert name in JUDGED

    @pytest.mark.parametrize(
        ("right", "few"), [(0.5, True), ([1, 2, 3], True), (np.ones(4), False), ([[1.0]], False), (True, False)]
    )
    def test_up_to_three_numbers_in_a_row(self, right, few):
        assert exercises.judged_without_python(Value("ex-x-y", lambda: right)) is few

    def test_others_have_no_data(self):
        (name, *_) = set(KNOWN) - set(JUDGED)
        with pytest.raises(ValueError, match=f"{name} is not"):
            exercises.data(KNOWN[name])


class TestData:
    """Plain JSON, which holds what the exercise holds."""

    @pytest.mark.parametrize("name", JUDGED)
    def test_numbers_come_back_to_the_last_bit(self, name):
        data = exercises.data(KNOWN[name])
        assert json.loads(json.dumps(data, allow_nan=False)) == data

    def test_the_first_of_two_mistakes_with_one_option_speaks(self):
        twice = Choice("ex-x-y", "A", (Mistake("one", "First", "B"), Mistake("two", "Second", "B")))
        assert exercises.data(twice)["options"]["B"]["said"] == "First."

    def test_many_options_are_typed(self):
        def choice(n):
            return Choice("ex-x-y", "A", tuple(Mistake(letter, "No", letter) for letter in "BCDEFGH"[: n - 1]))

        assert not exercises.data(choice(exercises.FEW))["typed"] and exercises.data(choice(exercises.FEW + 1))["typed"]

    def test_a_right_option_may_depend_on_what_is_drawn(self):
        fixed = Choice("ex-x-y", "A", (Mistake("b", "No", "B"),))
        drawn = dataclasses.replace(fixed, right=lambda n: "A", draw=lambda rng: (1,))
        assert exercises.data(drawn) == exercises.data(fixed)
