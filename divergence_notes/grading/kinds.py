"""The kinds of exercises: a class for each, which knows how an answer of its kind is judged and what it is told.

Reading numbers out of an answer is in `comparison`, reading words in `phrases`, running code in `running`.
"""

import inspect
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from divergence_notes import _checks
from divergence_notes.grading.comparison import a_type, close, numbers_of, place, plain, told_apart, tolerance
from divergence_notes.grading.exercise import Complaint, Exercise, Mistake, Result, sentence
from divergence_notes.grading.phrases import number_said, option_named
from divergence_notes.grading.running import Fault, call, named, passes
from divergence_notes.mdp import FiniteMDP


@dataclass(frozen=True, eq=False)
class Compared(Exercise):
    """What `Function` and `Value` have in common: numbers are compared with the right ones, or a judge sees them."""

    _: KW_ONLY
    rtol: float = 1e-6
    """Relative deviation that still counts as right."""
    judge: Callable[..., Complaint | str | None] | None = None
    """For answers that are not unique: takes the answer's value and the instance, and returns what is wrong with it,
    if anything: a sentence, the name of a mistake, or a `Complaint`, which has a detail too."""

    def _complaint(self, value: Any, args: tuple) -> Complaint | None:
        """Return what is wrong with a value, with the first offender, or None."""
        if self.judge is not None:
            return self._judges_complaint(value, args)
        right = np.asarray(self.right(*args))
        found = numbers_of(value, right.shape, args, logical=right.dtype.kind == "b")
        right = right.astype(float)
        bad = np.argwhere(~close(found, right, tolerance(self.rtol, value)))
        if not len(bad):
            return None
        where = tuple(bad[0])
        at = place(where, right.shape, args)
        side = "large" if found[where] > right[where] else "small"
        return Complaint(
            f"{at.removesuffix(': ') or 'your number'} is too {side}",
            "{}{} where {} is right".format(at, *told_apart(found[where], right[where])),
        )

    def _judges_complaint(self, value: Any, args: tuple) -> Complaint | None:
        try:
            with np.errstate(all="ignore"):
                said = self.judge(plain(value), *args)
            return said if isinstance(said, Complaint) or not said else Complaint(said)
        except Fault:
            raise
        except Exception as error:  # a judge works with whatever the student made, and that may be anything
            raise Fault(f"is {a_type(value)} that cannot be judged ({named(error)})") from error

    def _recognised(self, complaint: Complaint, wrong: list["_Wrong"]) -> Mistake | None:
        """Return the foreseen mistake that the judge names, or that all the wrong values are."""
        if self.judge is not None:
            return next((mistake for mistake in self.mistakes if mistake.name == complaint.said), None)
        return next((m for m in self.mistakes if all(self._is(m, one.args, one.value) for one in wrong)), None)

    def _is(self, mistake: Mistake, args: tuple, value: Any) -> bool:
        """Say whether a value is what a foreseen mistake gives."""
        wrong = np.asarray(mistake.wrong(*args), dtype=float)
        try:
            found = numbers_of(value, wrong.shape)
        except Fault:
            return False
        return bool(close(found, wrong, tolerance(self.rtol, value)).all())

    def _passed(self, n: int = 1) -> Result:
        counted = f"Right on {n} random instances." if n > 1 else ""
        text = " ".join(filter(None, (self.insight, counted))) or "Yes."
        return Result(self.name, True, text, share=1.0)


class _Wrong(NamedTuple):
    """An instance on which an answer is wrong."""

    args: tuple
    value: Any
    complaint: Complaint


def _told(complaint: Complaint, mistake: Mistake | None, often: str = "") -> str:
    """Return what a complaint says, in the words of the mistake if that was foreseen."""
    said = f"Not right{often}: {sentence(complaint.said, '')}" if mistake is None else sentence(mistake.text, "")
    return sentence(said + (f": {complaint.detail}" if complaint.detail else ""))


@dataclass(frozen=True, eq=False)
class Function(Compared):
    """A function is asked for, and called on each instance; `right` and each `wrong` are functions of an instance."""

    _: KW_ONLY
    instances: int = 20
    """How many instances it is called on."""

    def __post_init__(self):
        super().__post_init__()
        _checks.integer("instances", self.instances, low=1)

    def _judged(self, answer: Any, instances: list[tuple], *, seed: Any, time_limit: float, tell: bool) -> Result:
        if not callable(answer):
            raise Fault(f"must be a function, and is {a_type(answer)}")
        show = seed is None  # an instance of a hidden test is not shown
        wrong = []
        for args in instances:
            try:
                value = call(answer, args, time_limit=time_limit)
                complaint = self._complaint(value, args)
            except Fault as fault:
                return self._failed(sentence(f"Your answer {fault}"), args, show=show)
            if complaint is not None:
                wrong.append(_Wrong(args, value, complaint))
        if not wrong:
            return self._passed(len(instances))
        args, _, complaint = min(wrong, key=lambda one: _size(one.args))
        mistake = self._recognised(complaint, wrong)
        if self.judge is None and mistake is None:
            complaint = Complaint(complaint.detail)  # which has the number that is right: it is of this instance alone
        often = f" (on {len(wrong)} of {len(instances)} instances)" if len(instances) > 1 else ""
        return self._failed(_told(complaint, mistake, often), args, mistake, show=show)

    def _failed(self, text: str, args: tuple, mistake: Mistake | None = None, *, show: bool) -> Result:
        diagnosis = None if mistake is None else mistake.name
        if not show:
            return Result(self.name, False, text, diagnosis)
        names = inspect.signature(self.right).parameters
        said = ", ".join(f"{name} = {_shown(arg)}" for name, arg in zip(names, args, strict=False))
        text += f" That was with {said}; the result's `arguments` holds it."
        return Result(self.name, False, text, diagnosis, arguments=args)


def _size(args: tuple) -> int:
    """Return how many numbers the arguments hold."""
    return sum(arg.P.size if isinstance(arg, FiniteMDP) else np.size(arg) for arg in args)


def _shown(arg: Any) -> str:
    """Write out what a function was called with, or say what it is if it is long."""
    if isinstance(arg, FiniteMDP):
        return f"a game of {arg.n_states} states, {arg.n_actions} actions and gamma = {arg.gamma:.4g}"
    if isinstance(arg, np.ndarray) and arg.size <= 16:
        return re.sub(r"\s+", " ", np.array2string(arg, precision=4, separator=", "))
    if isinstance(arg, np.ndarray):
        return f"an array of shape {arg.shape}"
    return f"{arg:.6g}" if isinstance(arg, (int, float)) else reprlib.repr(arg)


@dataclass(frozen=True, eq=False)
class Value(Compared):
    """A number, an array, or an example that one builds is asked for; `right` and each `wrong` return one."""

    _: KW_ONLY
    hint: str = ""
    """What a wrong value that nobody foresaw is told instead of the right one, in a sentence that leaves the finding
    to the reader."""
    phrases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Words in which people write numbers, by the digits: ``{"63": ("all", "sixty-three")}``. Where there are some, a
    text is read."""

    def _judged(self, answer: Any, instances: list[tuple], *, seed: Any, time_limit: float, tell: bool) -> Result:
        (args,) = instances
        if self.phrases and isinstance(answer, str):
            answer = number_said(answer, self.phrases)
        complaint = self._complaint(answer, args)
        if complaint is None:
            return self._passed()
        mistake = self._recognised(complaint, [_Wrong(args, answer, complaint)])
        diagnosis = None if mistake is None else mistake.name
        if self.judge is not None:
            return Result(self.name, False, _told(complaint, mistake), diagnosis)
        # How to come nearer; the right number only to who asks for it.
        text = f"Not right: {complaint.said}." if mistake is None else sentence(mistake.text)
        if tell:
            text += f" To tell you: {complaint.detail}."
        elif mistake is None and self.hint:
            text += f" {self.hint} (With `tell=True` the check tells you.)"
        return Result(self.name, False, text, diagnosis)


@dataclass(frozen=True, eq=False)
class Choice(Exercise):
    """One of some options is asked for; `right` is one, or a function of what is given; each `wrong` is another."""

    _: KW_ONLY
    phrases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Other ways to name an option, the words on the page first. ``">1000"`` is any number above it."""

    buttons: ClassVar[int] = 6
    """Among more options than this one types: that many buttons are a wall, and give away what to think of."""

    def options(self, *args: Any) -> dict[str, str]:
        """Return the options in order, each with the words that name it on a page, or with itself.

        Parameters
        ----------
        *args : object
            The instance, for a choice whose right option depends on what is given.

        Returns
        -------
        dict of str to str
            From option to words.
        """
        return {option: next(iter(self.phrases.get(option, ())), option) for option in self.said(*args)[1]}

    def said(self, *args: Any) -> tuple[str, dict[str, str]]:
        """Return the right option, and what each option is told.

        Parameters
        ----------
        *args : object
            As in `options`.

        Returns
        -------
        right : str
            The right option.
        told : dict of str to str
            From option to sentence, in order.
        """
        right = self.right(*args) if callable(self.right) else self.right
        told = {mistake.wrong: sentence(mistake.text) for mistake in reversed(self.mistakes)}  # the first one speaks
        return right, dict(sorted((told | {right: self.insight or "Yes."}).items()))

    def _judged(self, answer: Any, instances: list[tuple], *, seed: Any, time_limit: float, tell: bool) -> Result:
        options, (right, told) = self.options(*instances[0]), self.said(*instances[0])
        given = option_named(answer, list(options), self.phrases)
        if given is None:
            listed = ", ".join(o if words == o else f"{o} ({words})" for o, words in options.items())
            raise Fault(f"must be one of {listed}, and is {reprlib.repr(answer)}")
        if given == right:
            return Result(self.name, True, told[right], share=1.0)
        mistake = next(mistake for mistake in self.mistakes if mistake.wrong == given)
        return Result(self.name, False, told[given] + (f" Right is {right}." if tell else ""), mistake.name)


@dataclass(frozen=True, eq=False)
class FindTheBug(Exercise):
    """A test is asked for: a function that takes an implementation and fails if that is wrong.

    `right` is an implementation that the test has to let pass, and each `wrong` one that it has to expose. The share of
    the wrong ones that it exposes is what it earns.
    """

    def _judged(self, answer: Any, instances: list[tuple], *, seed: Any, time_limit: float, tell: bool) -> Result:
        if not callable(answer):
            raise Fault(f"must be a function that takes an implementation, and is {a_type(answer)}")
        called = []

        def watched(implementation):
            def call(*args, **kwargs):
                called.append(1)
                return implementation(*args, **kwargs)

            return call

        # In an order that a test cannot know, the right one several times: what counts its calls gains nothing.
        handed = [None] * 4 + list(self.mistakes)
        order, passed = list(self.generator(seed).permutation(len(handed))), {}
        while order:
            position = order.pop(0)
            mistake = handed[position]
            implementation = self.right if mistake is None else mistake.wrong
            try:
                passed[position] = passes(answer, watched(implementation), time_limit=time_limit)
            except Fault:
                if mistake is None:
                    raise
                passed[position] = False  # whatever a wrong implementation makes of the test, it does not pass it
                if not any(handed[at] is None for at in passed):
                    # A test that fails by itself fails with a right one too, and then all the others need not be tried.
                    order.insert(0, order.pop(next(i for i, at in enumerate(order) if handed[at] is None)))
        if not all(passed[position] for position in range(4)):
            text = "Your test rejects a right implementation: it tests for something that need not hold"
            return Result(self.name, False, text + ".", "rejects-the-right-one")
        if not called:
            text = "Nothing here yet: your test never calls the implementation that it is given."
            return Result(self.name, False, text, "never-calls", open=True)
        return self._exposed([mistake for at, mistake in enumerate(handed) if mistake is not None and passed[at]])

    def _exposed(self, survivors: list[Mistake]) -> Result:
        total = len(self.mistakes)
        share = 1 - len(survivors) / total
        if not survivors:
            return Result(self.name, True, f"Your test exposes all {total} wrong implementations.", share=1.0)
        text = f"Your test exposes {total - len(survivors)} of {total} wrong implementations. One that it lets through "
        names = tuple(mistake.name for mistake in survivors)
        return Result(self.name, False, text + sentence(survivors[0].text, ""), names[0], share, survivors=names)
