"""Which option an answer names: by its letter, by its words, or by both; and which number, in digits or in words.

What a right or wrong option is told is in `kinds`.
"""

import itertools
import numbers
import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from divergence_notes.grading.comparison import as_float
from divergence_notes.grading.running import Fault

# What people write around an option, and which names none of them.
_FILLERS = {"and", "answer", "i", "is", "it", "letter", "of", "only", "option", "the", "them", "think"}


def combined(names: Mapping[str, str], options: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return other ways to name options that are made of letters: by what each letter stands for, in any order.

    Parameters
    ----------
    names : mapping
        What each letter stands for.
    options : iterable of str
        Such as ``"AB"``.

    Returns
    -------
    dict
        The `phrases` of a choice.
    """
    return {
        option: (
            " and ".join(names[letter] for letter in option),
            " ".join(option),
            *map("".join, itertools.permutations(option)),
        )
        for option in options
    }


def option_named(answer: Any, options: list[str], phrases: Mapping[str, tuple[str, ...]]) -> str | None:
    """Return the option that an answer names, by its letter, by its words, or by both; None if it names none."""
    if isinstance(answer, np.ndarray):
        answer = answer.tolist()
    if isinstance(answer, (list, tuple, set, frozenset)) and all(isinstance(part, str) for part in answer):
        answer = " ".join(answer)
    number = as_float(answer) if isinstance(answer, numbers.Real) and not isinstance(answer, bool) else np.nan
    if not np.isfinite(number) and not isinstance(answer, str):
        return None
    said = _words(answer)
    for option in options:
        for way in (option, *phrases.get(option, ())):
            words = _words(way)
            alike = said == words or (len(set(said)) == len(said) == len(words) and set(said) == set(words))
            if alike or said == (*_words(option), *words) or (way[0] == ">" and number > float(way[1:])):
                return option
    return None


def number_said(text: str, phrases: Mapping[str, tuple[str, ...]]) -> float:
    """Return the number that a text is, in digits or in the words that `phrases` has for some; else raise a `Fault`."""
    said = option_named(text, list(phrases), phrases) or text.strip().replace("\u2212", "-")
    if not re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?", said):
        raise Fault(f"must be a number, and is {reprlib.repr(text)}")
    return float(said)


def _words(text: Any) -> tuple[str, ...]:
    """Return the words and numbers of a phrase, in small letters, without what carries nothing."""
    if isinstance(text, numbers.Real) and not isinstance(text, numbers.Rational):
        text = f"{text + 0.0:.15g}"
    text = re.sub(r"(?<=\d)[\s,_'](?=\d{3}(?!\d))", "", str(text).casefold())  # 10 000 and 10,000 are 10000
    text = re.sub(r"\bminus +(?=\d)", "-", text.replace("\u2212", "-"))
    text = re.sub(r"\bplus +(?=\d)", "+", text)
    text = text.replace(">", " more than ").replace("<", " less than ")
    found = re.findall(r"(?:(?<![\w)\]])-)?\d+(?:\.\d+)?|[^\W\d_]+", text)  # 1-2 are two numbers
    kept = [word for word in found if word not in _FILLERS] or found
    followed = zip(kept, [*kept, ""][1:], strict=True)
    return tuple(word for word, after in followed if word != "a" or not after[1:].isalpha())  # a quarter is a quarter
