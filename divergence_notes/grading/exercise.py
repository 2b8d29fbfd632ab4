"""What an exercise is, the mistakes that it foresees, and what a check says of an answer.

The kinds of exercises, and how each is judged, are in `kinds`; where an exercise is found by its name is in `registry`.
"""

import abc
import hashlib
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

import numpy as np


@dataclass(frozen=True)
class Mistake:
    """A foreseen wrong answer and what to say about it."""

    name: str
    """A short one, such as ``"no-gamma"``."""
    text: str
    """What the student hears: a sentence without a full stop, about what they did."""
    wrong: Any
    """Takes what the exercise draws and returns what the wrong answer would be. For a choice it is the option; where a
    test is asked for, a wrong implementation that the test has to expose."""


@dataclass(frozen=True)
class Complaint:
    """What is wrong with an answer."""

    said: str
    """A sentence, or the name of a foreseen mistake."""
    detail: str = ""
    """What is said after it, such as the first place that is off."""


@dataclass(frozen=True)
class Result:
    """What `check` found."""

    name: str
    """Of the exercise."""
    passed: bool
    """Whether the answer is right on every instance."""
    message: str
    """What there is to say, in sentences."""
    diagnosis: str | None = None
    """The name of the foreseen mistake that was recognised."""
    share: float = 0.0
    """The part of the credit that is earned, from 0 to 1: for a test the share of wrong implementations it exposes."""
    open: bool = False
    """Whether nothing has been answered yet."""
    survivors: tuple[str, ...] = field(default=(), repr=False)
    """The wrong implementations that a test did not expose."""
    arguments: tuple = field(default=(), repr=False)
    """What a function was called with where it failed, in the smallest such instance. Empty where the instances are
    drawn from a seed of one's own, since that is how tests are hidden."""
    judged: bool = True
    """Whether it says if the answer is right; `try_out` looks at the form alone."""

    def __repr__(self) -> str:
        verdict = f"{'right' if self.passed else 'open' if self.open else 'not yet'}. " if self.judged else ""
        text = f"{self.name}: {verdict}{self.message}"
        return textwrap.fill(text, width=72, break_long_words=False, break_on_hyphens=False)


@dataclass(frozen=True, eq=False)
class Exercise(abc.ABC):
    """A question that a computer can judge, by properties on random instances and by foreseen mistakes.

    This is what all kinds have in common; an exercise is one of `Function`, `Value`, `Choice` and `FindTheBug`.
    """

    name: str
    """The label of the exercise in its chapter, ``"ex-..."``; a graded question's has no ``ex-``."""
    right: Any = None
    """What an answer is compared with: a function of an instance; the right option; the right implementation."""
    mistakes: tuple[Mistake, ...] = ()
    """The wrong answers that are recognised."""
    _: KW_ONLY
    draw: Callable[..., tuple] = lambda rng, **given: tuple(given.values())
    """Takes a generator, and what is `given`, and returns the arguments of one instance."""
    insight: str = ""
    """What a right answer is told: a sentence that says what it is good for."""

    instances: ClassVar[int] = 1
    """How many instances an answer is judged on."""

    def __post_init__(self):
        if len({mistake.name for mistake in self.mistakes}) < len(self.mistakes):
            raise ValueError(f"mistakes of {self.name} must have names of their own")

    def generator(self, seed: Any = None) -> np.random.Generator:
        """Return the generator of a seed.

        Parameters
        ----------
        seed : object, optional
            Anything that prints; the exercise's name alone is the seed that everybody has.

        Returns
        -------
        numpy.random.Generator
            The same for the same name and seed.
        """
        digest = hashlib.sha256(f"{self.name}:{'' if seed is None else seed}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))

    def sample(self, *, seed: Any = None, given: Mapping | None = None) -> list[tuple]:
        """Draw the instances of a seed.

        Parameters
        ----------
        seed : object, optional
            As in `generator`.
        given : mapping, optional
            The numbers of a class, handed to `draw` by name.

        Returns
        -------
        list of tuple
            The arguments of each instance.
        """
        rng = self.generator(seed)
        return [self.draw(rng, **(given or {})) for _ in range(self.instances)]

    @abc.abstractmethod
    def _judged(self, answer: Any, instances: list[tuple], *, seed: Any, time_limit: float, tell: bool) -> Result:
        """Judge an answer that is there; what it does instead of answering is raised as a `Fault` or as `Open`."""


def sentence(text: str, end: str = ".") -> str:
    """Return a text with one full stop, or with another end; a question keeps its mark."""
    return text.rstrip(".") + ("" if text.endswith("?") else end)
