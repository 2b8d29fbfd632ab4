"""Numbers that are drawn for a name, and codes of answers: the same for the same, and others for others."""

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from divergence_notes import grading
from divergence_notes.grading.own import LETTERS, plain

GIVEN = {"gamma": 0.9, "end": 0.1, "fold": 7, "own": {"of": ["end", "fold"], "rows": [[0.2, 8], [0.3, 9], [0.4, 10]]}}


class TestOwnNumbers:
    def test_a_row_for_a_name_and_the_rest_of_the_class(self):
        found = grading.own_numbers("Ada Lovelace", GIVEN)
        assert found.keys() == {"gamma", "end", "fold"} and found["gamma"] == 0.9
        assert [found["end"], found["fold"]] in GIVEN["own"]["rows"]

    @pytest.mark.parametrize("spelt", ["ada lovelace", " Ada  LOVELACE\n", "Ada-Lovelace", "\uff21da Lovelace"])
    def test_spellings_are_one_name(self, spelt):
        assert grading.own_numbers(spelt, GIVEN) == grading.own_numbers("Ada Lovelace", GIVEN)

    @pytest.mark.parametrize("name", [..., None])
    def test_without_a_name_those_of_the_class(self, name):
        assert grading.own_numbers(name, GIVEN) == {"gamma": 0.9, "end": 0.1, "fold": 7}

    def test_where_nothing_is_drawn_a_name_changes_nothing(self):
        assert grading.own_numbers("ada", {"gamma": 0.9}) == {"gamma": 0.9}

    def test_every_row_is_somebodys(self):
        """Of 300 names a third gets each row, up to four standard deviations; other rows are given to others."""
        rows = collections.Counter(grading.own_numbers(f"student {n}", GIVEN)["fold"] for n in range(300))
        assert rows.keys() == {8, 9, 10} and all(abs(count - 100) < 4 * np.sqrt(300 * 2 / 9) for count in rows.values())
        other = GIVEN | {"own": {"of": ["end", "fold"], "rows": [[0.2, 8], [0.3, 9], [0.45, 10]]}}
        names = [f"student {n}" for n in range(30)]
        picks = [[grading.own_numbers(name, numbers)["fold"] for name in names] for numbers in (GIVEN, other)]
        assert picks[0] != picks[1]

    @pytest.mark.parametrize("name", ["", " - ", 3, ["ada"]])
    def test_what_is_no_name(self, name):
        with pytest.raises(ValueError, match="name must be a string with letters or digits, got"):
            grading.own_numbers(name, GIVEN)


class TestSeal:
    def test_the_same_on_every_machine(self):
        """By hand: SHA-256 of the name and the written answers, in base 32 from the end."""
        import hashlib

        number = int(hashlib.sha256(b"ada:[['3', '0.333333'], 'b']").hexdigest(), 16)
        code = ""
        for _ in range(8):
            number, rest = divmod(number, 32)
            code += LETTERS[rest]
        assert grading.seal("Ada", [3, 1 / 3], " B ") == f"{code[:4]}-{code[4:]}"

    @pytest.mark.parametrize("same", [3, 3.0, np.float32(3), np.int64(3), 3 + 1e-9])
    def test_of_one_answer(self, same):
        assert grading.seal("ada", same, 0.0) == grading.seal("ADA", 3.0, -0.0)

    @pytest.mark.parametrize("other", [("ada", 3.0001), ("bob", 3), ("ada", 3, 3), ("ada", "3")])
    def test_of_another_one(self, other):
        assert grading.seal(*other) != grading.seal("ada", 3)

    @pytest.mark.parametrize("opened", [(..., 3), ("ada", ...), ("ada", ..., None)])
    def test_of_nothing(self, opened):
        assert grading.seal(*opened).startswith("open")

    def test_what_is_open_is_sealed_as_open(self):
        codes = [grading.seal("ada", 3, one) for one in (..., None, 0, "x", [1, "x"], {"a": 1})]
        assert codes[0] == codes[1] and len(set(codes)) == 5

    @given(st.floats(allow_nan=False, allow_infinity=False))
    def test_any_number_has_one(self, number):
        code = grading.seal("ada", number)
        assert len(code) == 9 and set(code) <= {*LETTERS, "-"}


@given(st.text(max_size=20))
def test_a_plain_name_is_plain(text):
    try:
        assert plain(plain(text)) == plain(text)
    except ValueError:
        assert not any(c.isalnum() for c in text.casefold())
