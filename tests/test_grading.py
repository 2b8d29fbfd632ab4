"""Checks of exercises: right answers pass however they are written, wrong ones are named, faults are reported."""

import dataclasses
import re
import subprocess
import sys
import threading
import time
import tomllib

import grimp
import nbformat
import numpy as np
import pytest
import scipy.sparse as sp

from divergence_notes import bellman, grading
from divergence_notes.grading import (
    Choice,
    Compared,
    Complaint,
    Exercise,
    Fault,
    FindTheBug,
    Function,
    Mistake,
    Value,
    check,
    registry,
    running,
    try_out,
)
from tests import pages
from tests.waiting import PATIENCE, until

EXERCISES = {name: exercise for name, exercise in grading.exercises().items() if name.startswith("ex-")}
FUNCTIONS = [name for name, exercise in EXERCISES.items() if isinstance(exercise, Function) and exercise.judge is None]
NUMBERS = [name for name, exercise in EXERCISES.items() if isinstance(exercise, Compared)]
WRONG = [(name, mistake) for name in NUMBERS for mistake in EXERCISES[name].mistakes]
CONTRACTS = tomllib.loads((pages.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
    "contracts"
]
SHIFT, LOSS = "ex-bellman-shift", "ex-bellman-loss"


def answer_of(name, made, seed=None):
    """Return what a student would hand in: the function, or the value that it gives."""
    exercise = EXERCISES[name]
    return made if isinstance(exercise, Function) else made(*exercise.sample(seed=seed)[0])


def rise(c, mdp):
    """Write out the right answer to SHIFT."""
    return mdp.gamma * mdp.continuation.reshape(mdp.R.shape) * c


class TestEveryExercise:
    def test_has_a_name_of_the_book(self):
        made = [exercise for chapter in registry.CHAPTERS for exercise in registry.of_chapter(chapter)]
        assert made and all(e.name.startswith("ex-") and e.name == e.name.lower() for e in made)

    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_coding_questions_foresee_three_mistakes(self, name):
        assert len(EXERCISES[name].mistakes) >= 3

    @pytest.mark.parametrize("name", NUMBERS)
    @pytest.mark.parametrize("seed", [None, 1, "autumn"])
    def test_right_passes(self, name, seed):
        result = check(name, answer_of(name, EXERCISES[name].right, seed), seed=seed)
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
        result = check(name, answer_of(name, mistake.wrong, seed), seed=seed)
        assert not result.passed and result.share == 0
        assert result.diagnosis == mistake.name and mistake.text.rstrip(".") in result.message

    @pytest.mark.parametrize("name", [n for n, e in EXERCISES.items() if isinstance(e, Choice)])
    def test_choices(self, name):
        exercise = EXERCISES[name]
        assert check(name, exercise.right).passed and check(name, f" {exercise.right.lower()} ").passed
        assert [check(name, m.wrong).diagnosis for m in exercise.mistakes] == [m.name for m in exercise.mistakes]
        assert "must be one of" in check(name, "Z").message


CHAPTERS = [
    chapter
    for chapter in registry.CHAPTERS
    if any(not exercise.name.endswith("-prediction") for exercise in registry.of_chapter(chapter))
]


def in_chapter(text, names):
    """Return what is wrong with the checks that a chapter asks for, given the names of those that it has."""
    labels = re.findall(r"^:label: (ex-\S+)$", text, re.M)
    asked = re.findall(r"""grading\.check\(["']([^"']+)["']""", text)
    wrong = [f"no check {name}" for name in asked if name not in names]
    return wrong + [f"no exercise {name}" for name in names if name not in labels]


class TestInTheBook:
    @pytest.fixture(params=CHAPTERS)
    def chapter(self, request):
        names = [exercise.name for exercise in registry.of_chapter(request.param)]
        return nbformat.read(pages.BOOK / f"{request.param}.ipynb", as_version=4), names

    def test_every_check_is_of_an_exercise_of_its_chapter(self, chapter):
        notebook, names = chapter
        pages.none(in_chapter("\n".join(cell.source for cell in notebook.cells), names), "in the chapter")

    def test_solutions_are_checked_and_right(self, chapter):
        notebook, _ = chapter
        code = [cell for cell in notebook.cells if cell.cell_type == "code" and "grading.check(" in cell.source]
        assert code
        for cell in code:
            name = re.search(r'grading\.check\("([^"]+)"', cell.source)[1]
            right = EXERCISES[name].right
            given = right(*EXERCISES[name].sample()[0]) if isinstance(EXERCISES[name], Value) else right
            assert repr(check(name, given)) in cell.outputs[-1].text and check(name, given).passed

    def test_the_text_says_how_to_check(self, chapter):
        notebook, names = chapter
        prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        told = [name for name in names if f'`grading.check("{name}", ' in prose]
        assert "You can check " in prose and "{ref}`ch-students`" in prose and told
        code = [
            cell.source for cell in notebook.cells if cell.cell_type == "code" and "widgets.bet(" not in cell.source
        ]
        called = {name for source in code for name in names if name in source}
        assert called <= set(told)

    @pytest.mark.parametrize(
        ("text", "wrong"),
        [
            (':label: ex-a\ngrading.check("ex-a", 1)', []),
            (':label: ex-a\ngrading.check("ex-b", 1)', ["no check ex-b"]),
            (":label: ex-ab\n", ["no exercise ex-a"]),
        ],
    )
    def test_a_name_that_is_wrong_is_found(self, text, wrong):
        assert in_chapter(text, ["ex-a"]) == wrong

    def test_the_example_for_students_says_what_it_says(self, capsys):
        page = (pages.BOOK / "students.md").read_text(encoding="utf-8")
        code, said = re.search(r"^```python\n(.*?)^```\n\n^```text\n(.*?)^```", page, re.M | re.S).groups()
        exec(code, {})
        assert capsys.readouterr().out == said and "state" in said

    def test_every_other_page_names_checks_that_there_are(self):
        places = [*pages.BOOK.glob("*.ipynb"), *pages.BOOK.glob("*.md"), pages.ROOT / "coursework" / "course.py"]
        asked = {n for p in places for n in re.findall(r'check\(\\?"(ex-[^"\\]+)', p.read_text(encoding="utf-8"))}
        assert "ex-bellman-shift" in asked and asked <= set(EXERCISES)


class TestKinds:
    """An exercise is of a kind, and a kind takes what it can use."""

    def test_what_all_have_in_common_is_no_exercise(self):
        with pytest.raises(TypeError, match="abstract"):
            Exercise("ex-none", 1)

    @pytest.mark.parametrize("kind", [Choice, FindTheBug, Function, Value])
    def test_two_mistakes_of_one_name_are_refused(self, kind):
        twice = Mistake("twice", "Twice", "B")
        with pytest.raises(ValueError, match="mistakes of ex-own must have names of their own"):
            kind("ex-own", "A", (twice, dataclasses.replace(twice, wrong="C")))

    @pytest.mark.parametrize("n", [0, -1])
    def test_a_function_is_called_at_least_once(self, n):
        with pytest.raises(ValueError, match="instances must be"):
            Function("ex-own", lambda x: x, instances=n)

    def test_a_number_above_an_option_names_it(self):
        own = Choice("ex-own-range", "MANY", (Mistake("few", "More", "FEW"),), phrases={"MANY": ("many", ">1000")})
        grading.register(own)
        assert [check("ex-own-range", number).passed for number in (1000.5, 1001, 10**30)] == [True] * 3
        assert "must be one of FEW, MANY (many), and is 1000" in check("ex-own-range", 1000).message


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
        whole = Function("ex-whole", lambda x: 2 * x, (), draw=lambda rng: (rng.integers(9, size=4),))
        grading.register(whole)
        assert check("ex-whole", lambda x: x + x).passed and check("ex-whole", lambda x: [2 * int(i) for i in x]).passed


class TestWrongForms:
    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda c, mdp: rise(c, mdp).ravel(), "must have shape"),
            (lambda c, mdp: rise(c, mdp) * np.nan, "must be finite: state 0, action 0"),
            (lambda c, mdp: 2 * rise(c, mdp) + 1, "Not right (on 20 of 20 instances): state 0, action 0: "),
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

    def test_an_assertion_of_its_own_is_reported_as_any_error(self):
        def answer(c, mdp):
            assert mdp.gamma > 1, "no discount"

        for result in (check(SHIFT, answer), try_out(answer, 1.0, PAIR)):
            assert not result.passed and "raised AssertionError: no discount" in result.message

    def test_calling_itself_without_end_is_reported(self):
        def answer(c, mdp):
            return answer(c, mdp)

        assert "calls itself without end" in check(SHIFT, answer).message

    def test_changing_an_argument_is_reported(self):
        draw = Function("ex-array", lambda x: 2 * x, (), draw=lambda rng: (rng.standard_normal(3),))
        grading.register(draw)

        def answer(x):
            x *= 2
            return x

        assert "changes its argument number 1 in place" in check("ex-array", answer).message
        assert check("ex-array", lambda x: 2 * x).passed

    def test_a_sparse_argument_is_compared_too(self):
        make = lambda rng: (sp.csr_array(rng.random((2, 2))),)  # noqa: E731
        grading.register(Function("ex-sparse", lambda x: x.toarray(), (), draw=make))

        def answer(x):
            dense = x.toarray()
            x.data[:] = 0
            return dense

        assert "in place" in check("ex-sparse", answer).message
        assert check("ex-sparse", lambda x: x.toarray()).passed

    @pytest.mark.parametrize("argument", [np.array([np.nan, 1]), [np.nan, 1.0], {"x": np.array([np.nan, 1])}, np.nan])
    def test_what_is_nan_before_and_after_has_not_been_changed(self, argument):
        grading.register(Function("ex-nan", lambda x: 1.0, (), draw=lambda rng: (argument,)))
        assert check("ex-nan", lambda x: 1.0).passed

    @pytest.mark.parametrize("argument", [np.array([np.nan, 1]), [np.nan, 1.0], sp.csr_array([[np.nan, 1.0]])])
    def test_a_nan_hides_no_change(self, argument):
        grading.register(Function("ex-nan", lambda x: 1.0, (), draw=lambda rng: (argument,)))

        def answer(x):
            values = x.data if sp.issparse(x) else x
            values[1] = 2
            return 1.0

        assert "in place" in check("ex-nan", answer).message

    @pytest.mark.parametrize("put", ["seven", 7.0, np.zeros(3)])
    def test_another_thing_in_its_place_is_a_change(self, put):
        make = lambda rng: ({"x": np.array([np.nan, 1]), "y": np.nan},)  # noqa: E731
        grading.register(Function("ex-nan", lambda x: 1.0, (), draw=make))
        assert "in place" in check("ex-nan", lambda x: x.__setitem__("x", put) or 1.0).message
        assert "in place" in check("ex-nan", lambda x: x.__setitem__("y", put) or 1.0).message

    def test_a_matrix_that_is_no_table_has_rows_and_columns(self):
        grading.register(Function("ex-matrix", lambda x: x, (), draw=lambda rng: (np.eye(3),)))
        assert "row 0, column 1: 1 where 0 is right" in check("ex-matrix", lambda x: np.ones((3, 3))).message
        assert "must be finite: row 0, column 0" in check("ex-matrix", lambda x: x * np.nan).message

    def test_an_unknown_name_lists_the_chapter(self):
        with pytest.raises(ValueError, match=r"one of ex-bellman-.*ex-bellman-loss, .*got 'ex-bellman-lost'"):
            check("ex-bellman-lost", 1)


class TestForm:
    @pytest.mark.parametrize(("answer", "words"), [(lambda c: 7 * c, "It runs, and"), (7, "It has the form")])
    def test_says_nothing_about_right_or_wrong(self, answer, words):
        text = " ".join(repr(try_out(answer, 2.0) if callable(answer) else try_out(answer)).split())
        assert words in text and "a number" in text and "right" not in text

    def test_names_what_is_missing(self):
        assert "must have shape (2,)" in repr(try_out(lambda: 7, shape=(2,))) and try_out(None).open
        assert "state 0, action 1" in try_out(lambda mdp: mdp.R * [[1, np.nan]], PAIR, shape=(1, 2)).message


PAIR = bellman.FiniteMDP(np.ones((1, 2, 1)), np.ones((1, 2)), 0.9)


class TestJudge:
    """An answer that is not unique is judged by a function, which may say what it likes and must not fail."""

    @pytest.fixture(autouse=True)
    def judged(self):
        def judge(value, *args):
            if isinstance(value, Exception):
                raise value
            return value if value != "fine" else None

        low = Mistake("low", "You went too low.", lambda: "low")
        ask = Mistake("ask", "Did you go too high?", lambda: "ask")
        grading.register(Value("ex-judged", lambda: "fine", (low, ask), judge=judge))

    @pytest.mark.parametrize(
        ("said", "message", "diagnosis"),
        [
            ("low", "You went too low.", "low"),
            (Complaint("low", "entry 3: 1 is below 2"), "You went too low: entry 3: 1 is below 2.", "low"),
            (Complaint("low"), "You went too low.", "low"),
            ("ask", "Did you go too high?", "ask"),
            ("No such luck.", "Not right: No such luck.", None),
            (Complaint("No such luck", "entry 3"), "Not right: No such luck: entry 3.", None),
        ],
    )
    def test_what_it_says_is_said(self, said, message, diagnosis):
        result = check("ex-judged", said)
        assert (result.passed, result.message, result.diagnosis) == (False, message, diagnosis)
        assert check("ex-judged", "fine").passed

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (KeyError("rho"), "cannot be judged (KeyError: 'rho')"),
            (ZeroDivisionError(), "cannot be judged (ZeroDivisionError)"),
            (AssertionError("no"), "cannot be judged (AssertionError: no)"),
            (Fault("must be a pair"), "Your answer must be a pair."),
        ],
    )
    def test_what_it_raises_is_a_message(self, error, words):
        result = check("ex-judged", error)
        assert not result.passed and not result.open and result.share == 0 and words in result.message


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
        before = threading.active_count()
        result = check(SHIFT, getattr(self, answer), time_limit=0.3)
        assert "took longer than 0.3 seconds" in result.message
        until(lambda: threading.active_count() == before)

    def test_seconds_are_those_of_the_processor(self, monkeypatch):
        """What has waited for longer than the limit, and computed for less, goes on: the machine may be busy."""
        monkeypatch.setattr(running, "SLOWER", PATIENCE)
        assert running.run(lambda: time.sleep(1.5) or 7, time_limit=1.0) == 7
        monkeypatch.setattr(running, "SLOWER", 1)
        with pytest.raises(running.Fault, match="took longer than 1 seconds"):
            running.run(lambda: time.sleep(PATIENCE), time_limit=1.0)

    def test_also_outside_the_main_thread(self):
        found = []
        thread = threading.Thread(target=lambda: found.append(check(SHIFT, self.forever, time_limit=0.2)))
        thread.start()
        thread.join(PATIENCE)
        assert "took longer" in found[0].message

    def test_a_call_that_python_cannot_stop_is_left_behind(self):
        free = threading.Event()
        answers = []
        result = check(SHIFT, lambda c, mdp: answers.append(free.wait(PATIENCE)), time_limit=0.2)
        assert "took longer" in result.message and not answers, "it waits still"
        free.set()


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
        grading.register(FindTheBug("ex-bug", bellman.optimality_backup, mutants))

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

    def test_what_a_wrong_implementation_makes_of_a_test_counts_for_that_one_alone(self):
        broken = Mistake("broken", "raises an error", lambda Q, mdp: {}["no such key"])
        grading.register(FindTheBug("ex-bug", bellman.optimality_backup, (broken, *grading.find("ex-bug").mistakes)))
        result = check("ex-bug", lambda backup: backup(np.ones((1, 2)), PAIR) is not None)
        assert (result.share, result.survivors) == (pytest.approx(1 / 3), ("through-the-end", "no-gamma"))

    @pytest.mark.parametrize("seed", range(6))
    def test_what_fails_by_itself_meets_a_right_one_next(self, seed):
        """An endless test would keep whoever grades waiting once for each wrong one that comes before a right one."""
        wrong = tuple(Mistake(str(n), "wrong", lambda Q, mdp, n=n: np.full(Q.shape, n)) for n in range(12))
        grading.register(FindTheBug("ex-bug", bellman.optimality_backup, wrong))
        met = []

        def endless(backup):
            met.append(backup(np.zeros((1, 2)), PAIR))
            while True:
                pass

        assert "took longer than 0.1 seconds" in check("ex-bug", endless, seed=seed, time_limit=0.1).message
        assert len(met) <= 2

    def test_who_waits_for_ever_with_wrong_ones_alone_exposes_them(self, monkeypatch):
        monkeypatch.setattr(running, "SLOWER", PATIENCE)  # a right one is quick by the processor, busy as it may be
        wrong = tuple(Mistake(str(n), "wrong", lambda Q, mdp, n=n: np.full(Q.shape, n + 7)) for n in range(5))
        grading.register(FindTheBug("ex-bug", bellman.optimality_backup, wrong))

        def patient_test(backup):
            while backup(np.zeros((1, 2)), PAIR).max() > 6:
                pass

        assert check("ex-bug", patient_test, time_limit=0.1).passed

    @pytest.mark.parametrize("said", [np.array([True, True]), np.ones((2, 2)), PAIR.R == PAIR.R])
    def test_what_is_neither_true_nor_false_is_named(self, said):
        def forgets_all(backup):
            backup(np.zeros((1, 2)), PAIR)
            return said

        result = check("ex-bug", forgets_all)
        assert not result.passed and result.share == 0
        assert "must return one True or False" in result.message and f"shape {said.shape}" in result.message

    def test_what_answers_no_question_is_named_by_its_type(self):
        class Mute:
            def __getattr__(self, name):
                raise ValueError(name)

            def __bool__(self):
                raise ValueError

        result = check("ex-bug", lambda backup: Mute())
        assert not result.passed and "returned Mute" in result.message

    @pytest.mark.parametrize("form", [bool, int, np.bool_, np.array, lambda fine: [1] if fine else []])
    def test_what_is_true_or_false_in_another_form_counts(self, form):
        mdp = patient(EXERCISES[SHIFT].sample()[0][1])

        def half(backup):
            Q = np.ones(mdp.R.shape)
            return form(np.allclose(backup(Q, mdp), bellman.optimality_backup(Q, mdp)))

        assert check("ex-bug", half).survivors == ("no-gamma",)

    def test_an_error_with_the_right_one_costs_everything(self):
        def wants_a_list(backup):
            return backup(np.ones((1, 2)), PAIR).no_such_method()

        result = check("ex-bug", wants_a_list)
        assert result.share == 0 and "raised AttributeError" in result.message

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


def test_the_contract_names_what_needs_no_torch():
    """Every grading module that reaches torch on no way is under the contract that keeps it so."""
    named = next(c["source_modules"] for c in CONTRACTS if c.get("forbidden_modules") == ["torch"])
    graph = grimp.build_graph("divergence_notes", include_external_packages=True)
    modules = sorted(graph.find_children("divergence_notes.grading"))
    free = [module for module in modules if not graph.chain_exists(module, "torch")]
    assert free == [module for module in modules if module in named] and "divergence_notes.grading.kinds" in free
