"""The process of an answer: what it sends is made ordinary, and its limits hold without namespaces too."""

import contextlib
import re
import time

import course
import marking
import pytest
from grader import cells, sandbox

from divergence_notes.grading import running
from tests.coursework.submissions import HUNT
from tests.waiting import PATIENCE, until


class TestTheOtherSide:
    """The process of an answer can send what it likes; the grader takes what it knows."""

    FORGE = "from grader import wire\nsend = wire.send\nwire.send = lambda connection, message: send(connection, {!r})"

    def test_forged_outputs_are_made_ordinary(self):
        forged = {"outputs": [{"output_type": "execute_result", "data": {"text/html": "<script>", "text/plain": 7}}, 3]}
        with sandbox.Session() as session:
            outputs = session.run(self.FORGE.format(forged))
        assert outputs == [{"output_type": "display_data", "data": {"text/plain": "7"}, "metadata": {}}]

    def test_too_many_and_too_long_outputs_are_cut(self):
        many = [{"output_type": "stream", "name": "stdout", "text": "x" * 100_000}] * 100
        made = cells.tidy(many)
        assert len(made) == cells.MOST and all(len(one["text"]) < cells.LONGEST + 100 for one in made)

    @pytest.mark.parametrize(
        "forged", [{"value": {"is": "array"}}, {"value": 3}, {"nothing": 1}, {"value": {"is": "list", "items": 3}}]
    )
    def test_forged_values_are_no_answer(self, forged):
        with sandbox.Session() as session:
            session.run("def answer(x):\n    return x")
            answer = session.get("answer")
            session.run(self.FORGE.format({"outputs": []}).replace(repr({"outputs": []}), repr(forged)))
            with pytest.raises(marking.grading.Fault, match="cannot be read"):
                answer(1.0)

    def test_pictures_come_over(self):
        with sandbox.Session() as session:
            outputs = session.run("import matplotlib.pyplot as plt\nplt.plot([1, 2]);")
        assert any("image/png" in one.get("data", {}) for one in outputs)

    def test_the_seconds_of_a_cell_are_those_of_the_processor(self, monkeypatch):
        monkeypatch.setattr(running, "SLOWER", PATIENCE)
        (output,) = cells.run_cell(cells.shell(), "import time\ntime.sleep(1.5)\n1 + 1", time_limit=1)
        assert output["data"]["text/plain"] == "2"
        (output,) = cells.run_cell(cells.shell(), "while True: pass", time_limit=1)
        assert output["evalue"] == "took longer than 1 seconds"
        monkeypatch.setattr(running, "SLOWER", 1)
        (output,) = cells.run_cell(cells.shell(), f"import time\ntime.sleep({PATIENCE})", time_limit=1)
        assert output["evalue"] == "took longer than 1 seconds"

    def test_torch_fits_into_the_limits(self):
        with sandbox.Session(
            sandbox.Limits(cell=200, total=400)
        ) as session:  # of memory; a busy machine takes its time
            assert session.run("import torch\nfloat(torch.ones(3).sum())")[-1]["data"]["text/plain"] == "3.0"


class TestStarting:
    """What goes wrong before anything of the student's runs costs the student nothing, and what comes later may."""

    def test_waiting_for_a_busy_machine_is_not_the_students_time(self, monkeypatch):
        late, clock = [], time.monotonic
        wait = sandbox.Session._await

        def slowly(session, end, hear):
            return wait(session, end, lambda: late.append(100_000.0) or hear())

        monkeypatch.setattr(sandbox.Session, "_await", slowly)
        monkeypatch.setattr(sandbox.time, "monotonic", lambda: clock() + sum(late))
        with sandbox.Session() as session:
            assert session.run("1 + 1")[0]["data"]["text/plain"] == "2" and session.trouble == ""
        assert len(late) == 2  # once for the process that starts the others, and once for the answer's

    def test_what_does_not_start_is_our_trouble(self, monkeypatch):
        sandbox.isolation()
        monkeypatch.setattr(sandbox.sys, "executable", "/bin/false")
        with sandbox.Session() as session:
            assert session.run("1 + 1")[0]["ename"] == "Ended"
            assert "did not start" in str(session.get("answer")) and "could not be started" in session.trouble

    def test_a_system_that_gives_no_process_is_our_trouble(self, monkeypatch):
        def refuse(*_, **__):
            raise BlockingIOError(11, "Resource temporarily unavailable")

        sandbox.isolation()
        monkeypatch.setattr(sandbox.subprocess, "Popen", refuse)
        with sandbox.Session() as session:
            assert "did not start" in str(session.get("answer")) and "temporarily unavailable" in session.trouble

    def test_a_system_that_gives_no_process_says_so_instead_of_open(self, monkeypatch):
        marking.load()
        sandbox.isolation()
        monkeypatch.setattr(sandbox.sys, "executable", "/bin/false")
        with sandbox.Session() as session:
            result = marking.grading.check("bellman-soft-backup", session.get("answer"), seed="any")
        assert not result.open and "did not start" in result.message

    def test_control_what_a_student_ends_is_not(self):
        with sandbox.Session() as session:
            assert session.run("import os\nos._exit(0)")[0]["ename"] == "Ended" and session.trouble == ""
            session.run("import os\nos.setpriority(os.PRIO_PROCESS, os.getppid(), 15)")
            with contextlib.suppress(marking.grading.Fault):
                session._afresh()  # in a room of its own, the process that starts the others has noticed
            assert session.trouble == ""


class TestWhatComesAfter:
    """What ends or takes too long costs its own answer; the others are there afterwards, or it is said why not."""

    ENDLESS = "def endless(implementation):\n    while True:\n        pass"

    @pytest.fixture(autouse=True)
    def loaded(self):
        marking.load()

    def test_however_often_a_process_ends_the_next_answer_is_there(self):
        with sandbox.Session(sandbox.Limits(starts=2)) as session:
            session.run("import os\ndef ends():\n    os._exit(0)\nanswer = 7")
            for _ in range(4):
                with pytest.raises(marking.grading.Fault, match="ended its process"):
                    session.get("ends")()
            assert session.get("answer") == 7 and session.get("nobody") is ...

    def test_an_endless_test_is_tried_twice_and_hears_of_its_loop(self):
        """It meets the first implementation and a right one, not one after the other of sixteen."""
        bug = marking.grading.find("key-equation-find-the-bug")
        late = next(n for n in range(999) if bug.generator(n).permutation(4 + len(bug.mistakes))[:4].min() >= 4)
        with sandbox.Session(sandbox.Limits(call=0.3)) as session:
            session.run("answer = 7")
            session.run(self.ENDLESS)
            result = marking.grading.check(bug.name, session.get("endless"), seed=late)
            assert "took longer than 0.3 seconds; is there a loop" in result.message
            assert session.starts <= 3 and session.get("answer") == 7

    def test_many_starts_are_no_way_to_more_time(self, monkeypatch):
        late, clock = [], time.monotonic
        wait = sandbox.Session._await

        def slowly(session, end, hear):
            return wait(session, end, lambda: late.append(50.0) or hear())

        monkeypatch.setattr(sandbox.Session, "_await", slowly)
        monkeypatch.setattr(sandbox.time, "monotonic", lambda: clock() + sum(late))
        with sandbox.Session(sandbox.Limits(starts=1)) as session:
            session.run("import os")
            for _ in range(9):
                said = session.run("os._exit(0)")[0]["evalue"]
            assert said == "comes after the time for the whole notebook was up" and session.starts < 5

    def test_what_is_too_late_is_told_so_and_not_that_it_is_open(self, capsys, monkeypatch):
        monkeypatch.setattr(marking, "secret", lambda: "any")
        with sandbox.Session(sandbox.Limits(total=-1)) as session:
            found = session.get("answer")
        given = marking.draw_parameters("bellman", "any")
        for name, student in (("bellman-soft-backup", marking.NOBODY), ("bellman-long-run", found)):
            assert marking.mark(name, found, points=2, given=given, student=student) == 0
            said = " ".join(capsys.readouterr().out.split())
            assert "after the time for the whole notebook was up" in said and "Nothing here" not in said
        assert marking.mark("bellman-soft-backup", ..., points=2) == 0
        assert "open. Nothing here yet" in capsys.readouterr().out

    def test_what_stood_in_a_slow_cell_is_said_to_be_gone(self):
        with sandbox.Session(sandbox.Limits(quick=0.0)) as session:
            session.run("answer = 7")
            assert session.get("answer") == 7 and session.get("nobody") is ...
            session.run("import os\nos._exit(0)")
            assert "took longer than 0 seconds" in str(session.get("answer")) and session.get("nobody") is ...


def test_the_room_does_not_depend_on_the_path_of_who_grades(monkeypatch):
    """An ordinary user of Debian has no /usr/sbin in the path, and chroot is there."""
    found = sandbox.isolation()
    monkeypatch.setenv("PATH", "/usr/local/bin:/usr/bin:/bin")
    sandbox.isolation.cache_clear()
    assert sandbox.isolation() == found


class TestWithoutNamespaces:
    """The fallback keeps the limits and ends what was left behind."""

    @pytest.fixture(autouse=True)
    def plain(self, monkeypatch):
        monkeypatch.setattr(sandbox, "isolation", lambda: "process")

    def test_children_that_were_left_behind_end(self):
        with sandbox.Session() as session:
            session.run("import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(1000)")
            assert len(sandbox.strays(session.mark)) == 3  # what starts the others, the answer's process, and its child
            mark = session.mark
        until(lambda: sandbox.strays(mark) == [])

    def test_what_lies_about_can_be_read(self, made):
        """The control of `test_nothing_is_there_to_be_read`: without a room of its own, the same search finds a lot."""
        with sandbox.Session() as session:
            shown = session.run(HUNT.replace('"/", ', "").format(root=str(made[0]), repo=str(course.COURSEWORK)))
        assert int(re.search(r"FOUND (\d+)", shown[0]["text"])[1]) > 3

    def test_limits_hold(self):
        with sandbox.Session(sandbox.Limits(gigabytes=2)) as session:
            shown = session.run("hog = bytearray(3 * 10**9)")
            assert shown[0]["ename"] == "MemoryError"
            assert session.run("1 + 1")[0]["data"]["text/plain"] == "2"

    def test_what_ran_out_of_memory_is_let_go(self):
        """Its process would keep what it took; the next answers have all of it, and what went before."""
        with sandbox.Session(sandbox.Limits(gigabytes=2)) as session:
            session.run("x = 3")
            shown = session.run("hog = []\nwhile True:\n    hog.append(bytearray(10**8))")
            assert shown[0]["ename"] == "MemoryError"
            assert session.run("len(bytearray(10**9)) * x")[0]["data"]["text/plain"] == "3000000000"
