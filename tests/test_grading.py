"""Checks of exercises: right answers pass however they are written, wrong ones are named, faults are reported."""

import dataclasses
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import scipy.sparse as sp

from divergence_notes import bellman, grading
from divergence_notes.grading import Exercise, Mistake, check, core

EXERCISES = {name: exercise for name, exercise in grading.exercises().items() if name.startswith("ex-")}
FUNCTIONS = [name for name, exercise in EXERCISES.items() if exercise.kind == "function" and exercise.judge is None]
WRONG = [(name, mistake) for name in FUNCTIONS for mistake in EXERCISES[name].mistakes]
SHIFT, LOSS = "ex-bellman-shift", "ex-bellman-loss"


def rise(c, mdp):
    """Write out the right answer to SHIFT."""
    return mdp.gamma * mdp.continuation.reshape(mdp.R.shape) * c


class TestEveryExercise:
    def test_has_a_name_of_the_book(self):
        made = [exercise for chapter in core.CHAPTERS for exercise in core.of_chapter(chapter)]
        assert made and all(e.name.startswith("ex-") and e.name == e.name.lower() for e in made)

    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_coding_questions_foresee_three_mistakes(self, name):
        assert len(EXERCISES[name].mistakes) >= 3

    @pytest.mark.parametrize("name", FUNCTIONS)
    @pytest.mark.parametrize("seed", [None, 1, "autumn"])
    def test_right_passes(self, name, seed):
        result = check(name, EXERCISES[name].right, seed=seed)
        assert result.passed and result.share == 1 and result.diagnosis is None

    @pytest.mark.parametrize("name", FUNCTIONS)
    @pytest.mark.parametrize(
        "form", [lambda v: np.float32(v), lambda v: np.asarray(v).tolist()], ids=["single", "list"]
    )
    def test_right_passes_in_other_forms(self, name, form):
        assert check(name, lambda *args: form(EXERCISES[name].right(*args))).passed

    @pytest.mark.parametrize(("name", "mistake"), WRONG, ids=lambda value: getattr(value, "name", value))
    @pytest.mark.parametrize("seed", [None, 1])
    def test_a_foreseen_mistake_is_recognised(self, name, mistake, seed):
        result = check(name, mistake.wrong, seed=seed)
        assert not result.passed and result.share == 0
        assert result.diagnosis == mistake.name and mistake.text.rstrip(".") in result.message

    @pytest.mark.parametrize("name", [n for n, e in EXERCISES.items() if e.kind == "choice"])
    def test_choices(self, name):
        exercise = EXERCISES[name]
        assert check(name, exercise.right).passed and check(name, f" {exercise.right.lower()} ").passed
        assert [check(name, m.wrong).diagnosis for m in exercise.mistakes] == [m.name for m in exercise.mistakes]
        assert "must be one of" in check(name, "Z").message


class TestUnusualRightAnswers:
    def test_loops_integers_and_changing_a_copy_in_place(self):
        def loops(c, mdp):
            out = np.zeros((mdp.n_states, mdp.n_actions))
            for s in range(mdp.n_states):
                for a in range(mdp.n_actions):
                    for t in range(mdp.n_states):
                        out[s, a] += mdp.gamma * mdp.transitions[s * mdp.n_actions + a, t] * c
            return out

        def in_place(c, mdp):
            out = mdp.continuation.copy().reshape(mdp.R.shape)
            out *= mdp.gamma * c
            return out

        assert check(SHIFT, loops).passed and check(SHIFT, in_place).passed
        whole = Exercise("ex-whole", "function", lambda x: 2 * x, (), draw=lambda rng: (rng.integers(9, size=4),))
        grading.register(whole)
        assert check("ex-whole", lambda x: x + x).passed and check("ex-whole", lambda x: [2 * int(i) for i in x]).passed


class TestWrongForms:
    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda c, mdp: rise(c, mdp).ravel(), "must have shape"),
            (lambda c, mdp: rise(c, mdp) * np.nan, "must be finite: state 0, action 0"),
            (lambda c, mdp: rise(c, mdp).astype(str), "must be real numbers"),
            (lambda c, mdp: rise(c, mdp) * 1j, "must be real numbers"),
            (lambda c, mdp: {"rise": 1}, "must be real numbers, and is a dict"),
            (lambda c, mdp: [[1], [1, 2]], "makes no array"),
            (lambda c, mdp: 1 / 0, "raised ZeroDivisionError: division by zero"),
            (lambda c: c, "raised TypeError"),
            (lambda c, mdp: sys.exit(), "raised SystemExit"),
            (lambda c, mdp: mdp.R.fill(0), "changes its argument number 2 in place"),
            (rise(1.0, EXERCISES[SHIFT].sample()[0][1]), "must be a function, and is a ndarray"),
        ],
    )
    def test_are_named(self, answer, words):
        result = check(SHIFT, answer)
        assert not result.passed and not result.open and words in result.message

    @pytest.mark.parametrize("answer", [None, ..., lambda c, mdp: None, lambda c, mdp: ...])
    def test_a_stub_is_open(self, answer):
        result = check(SHIFT, answer)
        assert result.open and not result.passed and "Nothing here yet" in result.message and "open" in repr(result)

    def test_an_exception_is_reported_with_its_line(self):
        def answer(c, mdp):
            return mdp.no_such_field

        line = answer.__code__.co_firstlineno + 1
        assert f"line {line} of answer: return mdp.no_such_field" in check(SHIFT, answer).message

    def test_calling_itself_without_end_is_reported(self):
        def answer(c, mdp):
            return answer(c, mdp)

        assert "calls itself without end" in check(SHIFT, answer).message

    def test_changing_an_argument_is_reported(self):
        draw = Exercise("ex-array", "function", lambda x: 2 * x, (), draw=lambda rng: (rng.standard_normal(3),))
        grading.register(draw)

        def answer(x):
            x *= 2
            return x

        assert "changes its argument number 1 in place" in check("ex-array", answer).message
        assert check("ex-array", lambda x: 2 * x).passed

    def test_a_sparse_argument_is_compared_too(self):
        make = lambda rng: (sp.csr_array(rng.random((2, 2))),)  # noqa: E731
        grading.register(Exercise("ex-sparse", "function", lambda x: x.toarray(), (), draw=make))

        def answer(x):
            dense = x.toarray()
            x.data[:] = 0
            return dense

        assert "in place" in check("ex-sparse", answer).message
        assert check("ex-sparse", lambda x: x.toarray()).passed

    def test_an_unknown_name_lists_the_chapter(self):
        with pytest.raises(ValueError, match=r"one of ex-bellman-loss.*got 'ex-bellman-lost'"):
            check("ex-bellman-lost", 1)


class TestTime:
    def forever(self, c, mdp):
        while True:
            pass

    def stubborn(self, c, mdp):
        while True:
            try:
                while True:
                    pass
            except Exception:
                continue

    @pytest.mark.parametrize("answer", ["forever", "stubborn"])
    def test_an_infinite_loop_is_stopped(self, answer):
        before, start = threading.active_count(), time.monotonic()
        result = check(SHIFT, getattr(self, answer), time_limit=0.3)
        assert "took longer than 0.3 seconds" in result.message and time.monotonic() - start < 5
        assert threading.active_count() == before

    def test_also_outside_the_main_thread(self):
        found = []
        thread = threading.Thread(target=lambda: found.append(check(SHIFT, self.forever, time_limit=0.2)))
        thread.start()
        thread.join(5)
        assert "took longer" in found[0].message

    def test_a_call_that_python_cannot_stop_is_left_behind(self):
        start = time.monotonic()
        assert "took longer" in check(SHIFT, lambda c, mdp: time.sleep(4), time_limit=0.2).message
        assert time.monotonic() - start < 3


def backup_without_end(Q, mdp):
    """Bootstrap after a step that ends the episode."""
    P = mdp.transitions.reshape(*mdp.R.shape, -1)
    lost = 1 - P.sum(axis=2, keepdims=True)
    P = P + lost * np.eye(mdp.n_states)[0]
    return mdp.R + mdp.gamma * P @ Q.max(axis=1)


def patient(mdp):
    """Return the process with next to no discount."""
    return dataclasses.replace(mdp, gamma=0.999)


class TestFindTheBug:
    @pytest.fixture(autouse=True)
    def bug(self):
        mutants = (
            Mistake("through-the-end", "goes on after the end", backup_without_end),
            Mistake("no-gamma", "does not discount", lambda Q, mdp: bellman.optimality_backup(Q, patient(mdp))),
        )
        grading.register(Exercise("ex-bug", "test", bellman.optimality_backup, mutants))

    def test_a_good_test_earns_all(self):
        mdps = [args[1] for args in EXERCISES[SHIFT].sample()]

        def good(backup):
            for mdp in mdps:
                Q = np.arange(mdp.n_pairs, dtype=float).reshape(mdp.R.shape)
                assert np.allclose(backup(Q, mdp), bellman.optimality_backup(Q, mdp))

        assert check("ex-bug", good).passed

    def test_the_share_counts_the_exposed(self):
        mdp = patient(EXERCISES[SHIFT].sample()[0][1])

        def half(backup):
            Q = np.ones(mdp.R.shape)
            return np.allclose(backup(Q, mdp), bellman.optimality_backup(Q, mdp))

        result = check("ex-bug", half)
        assert (result.share, result.survivors, result.passed) == (0.5, ("no-gamma",), False)
        assert "exposes 1 of 2" in result.message

    @pytest.mark.parametrize("right_calls", [1, 2, 3, 4])
    @pytest.mark.parametrize("seed", range(5))
    def test_counting_the_calls_gains_nothing(self, right_calls, seed):
        calls = []

        def counts(backup):
            mdp = EXERCISES[SHIFT].sample()[0][1]
            calls.append(backup(np.zeros(mdp.R.shape), mdp))
            assert len(calls) <= right_calls

        assert check("ex-bug", counts, seed=seed).share == 0

    def test_false_alarms_and_idle_tests_earn_nothing(self):
        def always(backup):
            raise AssertionError

        assert check("ex-bug", always).diagnosis == "rejects-the-right-one" and check("ex-bug", always).share == 0
        assert check("ex-bug", lambda backup: True).diagnosis == "never-calls"
        assert check("ex-bug", lambda backup: ...).open
        assert "raised NameError" in check("ex-bug", lambda backup: missing).message  # noqa: F821


def test_no_torch_and_no_drawing_come_with_it():
    code = "import sys; from divergence_notes import grading; grading.exercises(); "
    code += "print([m for m in ('torch', 'matplotlib', 'ipywidgets') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
