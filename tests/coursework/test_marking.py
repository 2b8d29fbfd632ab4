"""The graded questions: their mistakes are told apart, and the numbers of a class keep them apart."""

import dataclasses
import functools
import importlib

import marking
import numpy as np
import pytest
import roster
from grader import runs
from questions import bellman
from scipy import special

from divergence_notes import grading
from divergence_notes.grading import FindTheBug, Mistake, Value, typed
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
        drawn = marking.draw_parameters(name, seed)
        given = grading.own_numbers("ada", drawn) if isinstance(exercise, Value) else None
        args = exercise.draw(np.random.default_rng(0), **given) if isinstance(exercise, Value) else ()
        answer = mistake.wrong(*args) if isinstance(exercise, Value) else mistake.wrong
        result = marking.grading.check(exercise.name, answer, seed=seed, given=given)
        assert (result.passed, result.diagnosis) == (False, mistake.name)
        assert mistake.text.rstrip(".") in result.message

    @pytest.mark.parametrize("mistakes", [e for _, e in QUESTIONS if isinstance(e, FindTheBug)], ids=label)
    def test_wrong_implementations_differ_from_the_right_one(self, mistakes):
        """By the instructor's solution; the marks that `TestEveryAssignment` finds show that it exposes all of them."""
        assert len(mistakes.mistakes) >= 6 and not {mistakes.right} & {m.wrong for m in mistakes.mistakes}

    @pytest.mark.parametrize("name", NAMES)
    def test_numbers_of_each_student_keep_right_and_wrong_apart(self, name):
        drawn = marking.draw_parameters(name, "any")
        rows, own = drawn["own"]["rows"], [grading.own_numbers(f"student {n}", drawn) for n in range(120)]
        assert len(rows) == marking.ROWS == len({tuple(row) for row in rows}) and marking.apart(name, drawn)
        assert len({tuple(numbers.values()) for numbers in own}) > 40  # of 64 rows; 54 on average
        assert all(numbers.keys() == drawn.keys() - {"own"} for numbers in own)

    def test_control_one_row_that_does_not_is_found(self):
        drawn = marking.draw_parameters("bellman", "any")
        row = [0.0, 100, 1]  # without an end, the game that ends is the one that does not
        assert not marking.apart("bellman", drawn | {"own": drawn["own"] | {"rows": [*drawn["own"]["rows"], row]}})

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


@pytest.fixture
def course(tmp_path, monkeypatch):
    """Return a course directory with a roster, in which the work of ada is being graded."""
    (tmp_path / "seed.txt").write_text("a seed\n")
    (tmp_path / "roster.csv").write_text("student,name,email,also\nada,Ada King Lovelace,ada@x.edu,Byron\nbob,Bob,,\n")
    for name, value in (("ROOT", str(tmp_path)), ("STUDENT", "ada"), ("ASSIGNMENT", "bellman")):
        monkeypatch.setenv(f"COURSE_{name}", value)
    monkeypatch.setattr(marking, "notes", [])
    return tmp_path


class TestNamesThatDraw:
    """The numbers of a question are those of the name in the notebook, if it is one of whoever handed it in."""

    GIVEN = marking.draw_parameters("bellman", "any")

    def judged(self, student, name="ada"):
        """Return the points for what is right with the numbers of a name."""
        numbers = grading.own_numbers(name, self.GIVEN)
        right = grading.find("bellman-sweeps-with-an-end").right(*(numbers[key] for key in ("gamma", "end", "factor")))
        return marking.mark("bellman-sweeps-with-an-end", right, points=2, given=self.GIVEN, student=student)

    @pytest.mark.parametrize("name", ["ada", "Ada ", "Ada King Lovelace", "lovelace, ada king", "ada@x.edu", "byron"])
    def test_any_name_that_the_roster_knows(self, course, name):
        assert self.judged(name, name) == 2 and marking.notes == []

    def test_the_numbers_of_somebody_else(self, course, capsys):
        answers = {grading.own_numbers(name, self.GIVEN)["end"] for name in ("ada", "bob")}
        assert len(answers) == 2 and self.judged("ada", "bob") == 0

    def test_the_name_of_somebody_else(self, course, capsys):
        assert self.judged("bob", "bob") == 0
        assert "your instructor knows you as 'ada'" in capsys.readouterr().out
        assert marking.notes == ["the name in the notebook, 'bob', is not in the roster for this student"]

    @pytest.mark.parametrize(
        ("name", "said"),
        [(..., "Nothing here yet"), (None, "Nothing here yet"), (3, "must be your name"), ("", "must be")],
    )
    def test_no_name(self, course, capsys, name, said):
        assert self.judged(name) == 0 and said in capsys.readouterr().out

    def test_members_of_a_group_and_its_own_name(self, course, monkeypatch):
        (course / "term.toml").write_text('[groups.bellman]\ngauss = ["ada", "bob"]\n')
        monkeypatch.setenv("COURSE_STUDENT", "gauss")
        assert [self.judged(name, name) for name in ("Gauss", "bob", "Byron", "eve")] == [2, 2, 2, 0]

    def test_without_a_roster_any_name(self, course):
        (course / "roster.csv").unlink()
        assert self.judged("eve", "eve") == 2 and marking.notes == []


class TestSealed:
    """A prediction counts if it has the code that was handed in first, where codes were collected."""

    def kept(self, *answers, student="ada"):
        return marking.sealed(4, student, *answers)

    def codes(self, course, *lines):
        text = "".join(f"{line}\n" for line in ("assignment,student,code", *lines))
        (course / "sealed.csv").write_text(text)

    def test_the_one_that_was_sealed(self, course, capsys):
        self.codes(course, f"bellman,ada@x.edu,{grading.seal('ada', 40, 12).lower()}")
        assert self.kept(40, 12) == 4 and self.kept(40, 13) == 0
        assert "not the one that you sealed" in capsys.readouterr().out

    def test_a_second_code_does_not_count(self, course):
        self.codes(course, *(f"bellman,ada,{grading.seal('ada', number)}" for number in (40, 41)))
        assert [self.kept(40), self.kept(41)] == [4, 0]

    def test_who_sealed_nothing_while_others_did(self, course, capsys):
        self.codes(course, f"bellman,bob,{grading.seal('ada', 40)}")
        assert self.kept(40) == 0 and "No code of yours" in capsys.readouterr().out

    @pytest.mark.parametrize("line", [None, "contraction,ada,XXXX-XXXX"])
    def test_where_none_was_collected_nothing_is_asked(self, course, line):
        if line:
            self.codes(course, line)
        assert self.kept(40) == 4

    def test_of_a_group_each_member_may_have_one(self, course, monkeypatch):
        """The numbers, and with them the code, are those of the name in the notebook that the group hands in."""
        (course / "term.toml").write_text('[groups.bellman]\ngauss = ["ada", "bob"]\n')
        sealed = (("ada", 1), ("bob", 2), ("bob", 3))
        self.codes(course, *(f"bellman,{one},{grading.seal(one, n)}" for one, n in sealed))
        monkeypatch.setenv("COURSE_STUDENT", "gauss")
        assert [self.kept(n, student=one) for one, n in sealed] == [4, 4, 0]
        monkeypatch.setenv("COURSE_STUDENT", "carl")
        assert [self.kept(n, student=one) for one, n in sealed] == [0, 0, 0]

    def test_other_columns_are_refused(self, course):
        (course / "sealed.csv").write_text("assignment,who,code\nbellman,ada,AAAA-AAAA\n")
        with pytest.raises(roster.Refused, match="columns assignment, student, code, got"):
            self.kept(40)

    def test_a_line_that_counts_for_nobody_is_said(self, course):
        (course / "term.toml").write_text('[groups.bellman]\ngauss = ["ada", "bob"]\n')
        lines = ("eve,A", ",A", "gauss,A", "bob,")
        self.codes(course, "bellman,Ada@x.edu,A", "belman,ada,A", *(f"bellman,{line}" for line in lines))
        said = marking.idle(course, ["bellman", "contraction"])
        assert [line.partition(": ")[2] for line in said] == [
            "'belman' is no assignment",
            "'eve' is nobody in the roster",
            "'' is nobody in the roster",
            "there is no code",
        ]
        assert said[0].startswith("sealed.csv, line 3")


class TestMarkOfWhatIsComputed:
    """What is computed where it should be typed in earns nothing, and is said in the table."""

    def test_earns_nothing(self, course, capsys):
        computed = typed.Computed("why", "best()", "B")
        assert marking.mark("bellman-why-unlucky", computed, points=2) == 0
        assert marking.mark("bellman-why-unlucky", "B", points=2) == 2
        assert "type in what came out" in " ".join(capsys.readouterr().out.lower().split())
        assert marking.notes == ["why is not typed in, and earns nothing: best()"]

    def test_the_other_answers_are_still_those_that_were_sealed(self, course):
        code = grading.seal("ada", 40, 12)
        (course / "sealed.csv").write_text(f"assignment,student,code\nbellman,ada,{code}\n")
        assert marking.sealed(2, "ada", 40, typed.Computed("b", "2 * six", 12)) == 2
        assert marking.sealed(2, "ada", 40, typed.Computed("b", "2 * six", 13)) == 0


class TestEdge:
    """A program that is handed out is wrong at an edge only; line and example must both be right."""

    @pytest.mark.parametrize("edge", bellman.EDGES)
    def test_is_right_on_most_logs_and_wrong_on_its_example(self, edge):
        rng, off = np.random.default_rng(0), 0
        wrong, right = (bellman._program(code) for code in (bellman.handed_out(edge), bellman.RETURNS))
        assert wrong(*bellman.EDGES[edge][2]) != right(*bellman.EDGES[edge][2])
        for _ in range(300):
            ended = [*(rng.random(9) < 0.2), edge == "cut"]  # only one edge is met by most logs: leave that one out
            log = [*rng.standard_normal(10)], [bool(end) for end in ended], 0.9, 2.0
            off += wrong(*log) != right(*log)
        assert off == 0

    def test_what_is_right_by_hand(self):
        assert bellman._program(bellman.RETURNS)([1.0, 2.0, 4.0], [False, True, False], 0.5, 8.0) == [2.0, 2.0, 8.0]

    @pytest.mark.parametrize("edge", bellman.EDGES)
    @pytest.mark.parametrize("answer", [[5], "5", [5, [], [], 0.5, 1.0], [5, [1.0], [True], 2.0, 1.0], [5, 1, 2, 3, 4]])
    def test_what_cannot_be_looked_at_earns_nothing(self, edge, answer):
        assert not grading.check("bellman-where-it-lies", answer, given={"code": bellman.handed_out(edge)}).passed

    @pytest.mark.parametrize("edge", bellman.EDGES)
    def test_a_line_beside_it_and_what_is_no_number_are_wrong(self, edge):
        line, *example = bellman.WHERE.right(bellman.handed_out(edge))
        rewards, ended, gamma, after = example
        for answer, passed in (
            ([line, *example], True),
            ([float(line), tuple(rewards), np.array(ended), gamma, after], True),
            ([line, rewards, [int(end) for end in ended], gamma, after], True),
            ([line + 0.9, *example], False),
            ([str(line), *example], False),
            ([line, [str(reward) for reward in rewards], ended, gamma, after], False),
            ([line, rewards, ["no" if not end else "yes" for end in ended], gamma, after], False),
            ([line, rewards, ended, str(gamma), after], False),
        ):
            result = grading.check("bellman-where-it-lies", answer, given={"code": bellman.handed_out(edge)})
            assert result.passed is passed

    def test_a_step_in_quotation_marks_is_no_number(self):
        right = bellman.LONG.right(0.95, 0.2, 7)
        for answer, passed in ((right, True), (float(right), True), (str(right), False), ([right], False)):
            result = grading.check("bellman-long-run", answer, given={"gamma": 0.95, "end": 0.2, "run": 7})
            assert result.passed is passed


class TestSmallTau:
    """A soft maximum is another operator than the hard one also where tau is small, in every class."""

    @pytest.mark.parametrize("seed", range(10))
    def test_a_hard_maximum_below_some_tau_is_wrong(self, seed):
        def hard(Q, mdp, tau):
            value = Q.max(axis=1) if tau < 0.01 else tau * np.log(np.exp(Q / tau).sum(axis=1))
            return mdp.R + mdp.gamma * mdp.transitions.reshape(*mdp.R.shape, -1) @ value

        result = grading.check("bellman-soft-backup", hard, seed=seed)
        assert (result.passed, result.diagnosis) == (False, "hard-maximum")
        assert {tau for _, _, tau in bellman.SOFT.sample(seed=seed)} == set(bellman.TAUS)

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("form", [np.asarray, np.float32, list])
    def test_right_ways_to_keep_the_exponential_small_pass(self, seed, form):
        def by_scipy(Q, mdp, tau):
            value = tau * special.logsumexp(Q / tau, axis=1)
            return form(mdp.R + mdp.gamma * mdp.transitions.reshape(*mdp.R.shape, -1) @ value)

        def one_by_one(Q, mdp, tau):
            value = [functools.reduce(np.logaddexp, row / tau) * tau for row in Q]
            return form(mdp.R + mdp.gamma * (mdp.transitions @ value).reshape(mdp.R.shape))

        for answer in (by_scipy, one_by_one):
            assert grading.check("bellman-soft-backup", answer, seed=seed).passed


class TestNearest:
    """Which of the numbers of a run was typed in."""

    KNOWN = ((None, 10.0), ("twice", 20.0), ("half", 5.0))

    @pytest.mark.parametrize(
        ("value", "said"),
        [(10, None), (12, None), (12.5, "other"), (20, "twice"), (7, "half"), (np.float32(10), None), (1e300, "other")],
    )
    def test_by_hand(self, value, said):
        assert runs.nearest(value, self.KNOWN, within=2, otherwise="other") == said

    @pytest.mark.parametrize("value", ["10", float("nan"), [10.0], 10 + 1j, None])
    def test_what_the_visible_cell_refuses(self, value):
        with pytest.raises(grading.Fault, match="must"):
            runs.nearest(value, self.KNOWN, within=2, otherwise="other")
        assert not grading.try_out(value).passed

    def test_nothing_beside_it(self):
        """Where nothing may be off, the number next to the right one is another."""
        assert [runs.nearest(value, self.KNOWN, within=0, otherwise="other") for value in (10, 11)] == [None, "other"]
