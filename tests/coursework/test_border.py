"""What a *find the bug* test can learn of an implementation other than by its answers: nothing, in all assignments."""

import importlib
import inspect
import json

import course
import marking
import nbformat
import numpy as np
import pytest
import scipy.sparse as sp
from grader import border, sandbox, wire
from hypothesis import given, settings
from hypothesis import strategies as st

from divergence_notes.grading import FindTheBug, Mistake
from divergence_notes.mdp import FiniteMDP, random_mdp
from tests.coursework.assignments import DAILY

marking.load()
BUGS = {
    name: exercise
    for name in course.assignments()
    for exercise in importlib.import_module(f"questions.{name}").EXERCISES
    if isinstance(exercise, FindTheBug)
}


def solved(name):
    """Return the instructor's test, with what its notebook defines."""
    notebook = nbformat.read(course.SOURCE / name / f"{name}.ipynb", as_version=4)
    space = {"np": np, "FiniteMDP": FiniteMDP}
    exec(next(cell.source for cell in notebook.cells if cell.id == "bug-answer"), space)
    return space["test"]


def calls_of(name):
    """Return the arguments with which the instructor's test calls the right implementation."""
    seen = []

    def spy(*args):
        seen.append(args)
        return BUGS[name].right(*args)

    solved(name)(spy)
    return seen


def everyone(name):
    """Return the right implementation and all the wrong ones."""
    return [BUGS[name].right, *(mistake.wrong for mistake in BUGS[name].mistakes)]


def seen_of(implementation, args, kwargs=None):
    """Return all that a caller in the same process sees of a call that fails, or None if it has an answer."""
    try:
        implementation(*args, **(kwargs or {}))
    except Exception as error:
        return type(error).__name__, str(error), error.__cause__ is None and error.__context__ is None
    return None


class Counts(np.ndarray):
    """Counts who looks at it."""

    looks = 0

    def __array__(self, *args, **kwargs):
        Counts.looks += 1
        return np.zeros(self.shape)

    def __deepcopy__(self, memo):
        Counts.looks += 1
        return self


class Nosy:
    """Raises on every look, and writes down what looked."""

    def __getattribute__(self, name):
        raise KeyError(name)

    def __array__(self, *args, **kwargs):
        raise ZeroDivisionError("looked at")


def ways_to_spoil(value):
    """Return other things for one argument: of no use, of the wrong form, or just odd."""
    odd = [None, "a", b"a", "1", [], {}, object(), Nosy(), lambda: 1, ..., 1j, True, 10**400, 1e308]
    odd += [float("nan"), float("inf"), -1.0, 0.0, np.array(1.0), np.array(["a"]), np.array([None]), np.float32(0.5)]
    odd += [np.zeros((0, 3)), np.zeros((2, 2, 2, 2)), [[1.0], [1.0, 2.0]], np.ma.masked_array([1.0], [True]), range(3)]
    odd += [sp.csr_array(np.eye(3)), random_mdp(2, 2, gamma=0.5, branching=1, rng=np.random.default_rng(0))]
    if isinstance(value, np.ndarray):
        odd += [value.T, value[..., :-1], -value, value * 0, value.tolist(), value.astype(np.float32), value + 1j]
        odd += [value.astype(object), value * np.nan, value * 1e300, value.view(Counts), np.asfortranarray(value)]
        odd += [np.zeros((600, 600)), np.broadcast_to(1.0, (10**5, 10**5))]
    if isinstance(value, dict):
        odd += [{key: part for key, part in value.items() if key != gone} for gone in value]
        odd += [
            value | {key: bad} for key in value for bad in (None, np.zeros(1), value[key][:-1], "a", -3.5 - value[key])
        ]
        odd += [value | {"more": 1}, {key.encode(): part for key, part in value.items()}]
    if isinstance(value, FiniteMDP):
        odd += [FiniteMDP(sp.csr_array(value.P.reshape(value.n_pairs, -1)), value.R, value.gamma), value.P]
    return odd


@pytest.mark.parametrize("name", BUGS)
class TestOneBorder:
    def test_is_right_for_the_honest(self, name):
        result = marking.grading.check(BUGS[name].name, solved(name))
        assert result.share == 1 and result.passed

    @pytest.mark.parametrize("args", [(), (1,), (None,) * 3, (np.zeros((2, 2)),) * 9])
    @pytest.mark.parametrize("kwargs", [{}, {"nobody": 1}])
    def test_a_call_of_the_wrong_form_tells_how_to_call(self, name, args, kwargs):
        (said,) = {seen_of(one, args, kwargs) for one in everyone(name)}
        assert said[0] == "Refused" and said[2]

    def test_each_spoiled_argument_is_refused_in_one_voice_or_by_none(self, name):
        refused = tried = 0
        for args in calls_of(name)[:2]:
            for place, value in enumerate(args):
                for odd in ways_to_spoil(value):
                    spoiled = (*args[:place], odd, *args[place + 1 :])
                    right = seen_of(BUGS[name].right, spoiled)
                    tried += 1
                    if right is not None:
                        refused += 1
                        assert {seen_of(one, spoiled) for one in everyone(name)} == {right}
                        assert not any(word in right[1] for word in ("lambda", "<locals>", "line ", ".py"))
        assert 0 < refused < tried

    def test_a_refusal_runs_none_of_them(self, name):
        ran = []
        accept = importlib.import_module(f"questions.{name}")._accept
        hidden = tuple(Mistake(str(i), "x", lambda *args, i=i: ran.append(i)) for i in range(2))
        made = border.bordered(FindTheBug("any", lambda *args: ran.append("right"), hidden), accept)
        args = calls_of(name)[0]
        for implementation in (made.right, *(mistake.wrong for mistake in made.mistakes)):
            assert seen_of(implementation, (Nosy(), *args[1:])) and seen_of(implementation, args[:-1])
        assert ran == []

    def test_nothing_is_changed_kept_or_printed(self, name, capsys):
        for args in calls_of(name)[:1]:
            before = json.dumps([wire.encode(arg) for arg in args])
            for one in everyone(name):
                first, second = one(*args), one(*args)
                assert json.dumps([wire.encode(arg) for arg in args]) == before
                assert first is not second or isinstance(first, bool)
                assert type(first) is type(BUGS[name].right(*args))
                if isinstance(first, np.ndarray):
                    assert first.base is None and not any(
                        np.shares_memory(first, a) for a in args if isinstance(a, np.ndarray)
                    )
                    assert (first.dtype, first.flags.c_contiguous) == (np.float64, True)
        assert capsys.readouterr() == ("", "")

    def test_an_implementation_that_changes_its_arguments_changes_copies(self, name):
        def spoils(*args):
            for arg in args:
                for part in arg.values() if isinstance(arg, dict) else [arg]:
                    if isinstance(part, np.ndarray):
                        part[...] = 7
            return 1.0

        args = calls_of(name)[0]
        before = json.dumps([wire.encode(arg) for arg in args])
        made = border.bordered(
            FindTheBug("any", spoils, (Mistake("a", "x", spoils),)),
            importlib.import_module(f"questions.{name}")._accept,
        )
        assert made.right(*args) == made.mistakes[0].wrong(*args) == 1.0
        assert json.dumps([wire.encode(arg) for arg in args]) == before

    def test_one_that_changes_its_arguments_does_not_show_in_the_next(self, name):
        """The right one goes first; what it does to its copies is not what the others get."""

        def total(*args):
            parts = [part for arg in args for part in (arg.values() if isinstance(arg, dict) else [arg])]
            return float(sum(np.sum(part) for part in parts if isinstance(part, np.ndarray)))

        def spoils(*args):
            value = total(*args)
            for arg in args:
                for part in arg.values() if isinstance(arg, dict) else [arg]:
                    if isinstance(part, np.ndarray):
                        part[...] = 7
            return value

        args = calls_of(name)[0]
        accept = importlib.import_module(f"questions.{name}")._accept
        made = border.bordered(FindTheBug("any", spoils, (Mistake("a", "x", total),)), accept)
        assert made.right(*args) == made.mistakes[0].wrong(*args) == total(*accept(*args))

    def test_objects_are_looked_at_equally_often(self, name):
        args = calls_of(name)[0]
        place = next(i for i, arg in enumerate(args) if isinstance(arg, (np.ndarray, dict)))
        value = args[place]
        odd = {k: v.view(Counts) for k, v in value.items()} if isinstance(value, dict) else value.view(Counts)
        looks = set()
        for one in everyone(name):
            Counts.looks = 0
            seen_of(one, (*args[:place], odd, *args[place + 1 :]))
            looks.add(Counts.looks)
        assert len(looks) == 1

    def test_the_shape_of_a_function_says_nothing(self, name):
        seen = {(one.__name__, one.__qualname__, one.__doc__, str(inspect.signature(one))) for one in everyone(name)}
        assert len(seen) == 1


def test_numbers_are_new_and_plain():
    given = np.asfortranarray(np.eye(3)).view(Counts)
    found = border.numbers("x", given, None, 3)
    assert type(found) is np.ndarray and found.flags.c_contiguous and not np.shares_memory(found, np.asarray(given))
    assert border.numbers("x", plain := np.eye(3), 3, 3) is not plain and not np.shares_memory(plain, found)
    assert not np.shares_memory(border.numbers("x", plain, 3, 3), plain)


@settings(max_examples=60)
@given(data=st.data())
def test_random_numbers_in_random_places(data):
    """Whatever one argument is filled with, all implementations refuse alike or the right one has an answer."""
    name = data.draw(st.sampled_from(sorted(BUGS)))
    args = list(FIRST_CALLS.setdefault(name, calls_of(name)[0]))
    place = data.draw(st.integers(0, len(args) - 1))
    shape = data.draw(st.sampled_from([(), (1,), (2,), (4,), (2, 2), (4, 4), (6, 9), np.shape(args[place])]))
    entries = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1.0, -1.0, 1e-320, 1e200])
    flat = data.draw(st.lists(entries, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    args[place] = np.array(flat).reshape(shape)
    right = seen_of(BUGS[name].right, args)
    if right is not None:
        assert {seen_of(one, args) for one in everyone(name)} == {right}


FIRST_CALLS = {}


class TestOverTheWire:
    """What the student's side is told of an error on the grader's."""

    def told(self, function, *args, **kwargs):
        sent = {"args": [wire.encode(a) for a in args], "kwargs": {k: wire.encode(v) for k, v in kwargs.items()}}
        return sandbox._here({"callback": 0} | sent, [function])

    def test_an_error_behind_the_border_has_one_sentence(self):
        def _right(x):
            raise KeyError("a name, a value and a line")

        def wrong(x):
            return 1 / 0

        told = [self.told(f, 1.0) for f in (_right, wrong, lambda: 0)] + [sandbox._here({"callback": 7}, [])]
        assert {json.dumps(one) for one in told} == {json.dumps({"error": border.REFUSED})}

    @pytest.mark.parametrize("name", BUGS)
    def test_a_complaint_about_the_arguments_is_passed_on(self, name):
        (said,) = {json.dumps(self.told(one)) for one in everyone(name)}
        assert "call it as implementation(" in said and "def" not in said


def test_control_without_a_border_names_are_told():
    """The planted fault: the same wrong calls of bare implementations tell them apart."""
    import questions.bellman as asked

    bare = [asked.cautious_backup, asked._outside, lambda Q, mdp, epsilon: Q]
    assert len({seen_of(one, ()) for one in bare}) == 3


# A student who tells nothing right from wrong, and remembers: the answer that comes up again is that of the right one.
REMEMBERS = """
import json, mmap, os, pickle, subprocess, sys, tempfile, threading, time
from collections import Counter
from pathlib import Path
from grader import wire
ARGS = [wire.decode(arg) for arg in json.loads({args!r})]
HOME = Path.home() / "notes"
shared = mmap.mmap(-1, 2**16)
pipe = os.pipe()
os.set_blocking(pipe[0], False)
kept = []

def by_list(new):
    kept.append(new)
    return kept

def by_attribute(new):
    by_attribute.kept = [*getattr(by_attribute, "kept", []), new]
    return by_attribute.kept

def by_environment(new):
    os.environ["KEPT"] = json.dumps(json.loads(os.environ.get("KEPT", "[]")) + [new])
    return json.loads(os.environ["KEPT"])

def by_module(new):
    sys.kept = [*getattr(sys, "kept", []), new]
    return sys.kept

def by_file(new):
    HOME.write_text(json.dumps((json.loads(HOME.read_text()) if HOME.exists() else []) + [new]))
    return json.loads(HOME.read_text())

def by_name_of_a_file(new):
    (Path.home() / f"kept-{{time.monotonic_ns()}}-{{hash(new) % 10**6}}").mkdir()
    names = sorted(path.name for path in Path.home().glob("kept-*"))
    return [name.split("-")[2] for name in names]

def by_shared_memory(new):
    shared.seek(0)
    old = json.loads(shared.read().rstrip(b"\\0") or b"[]") + [new]
    shared.seek(0)
    shared.write(json.dumps(old).encode())
    return old

def by_pipe(new):
    try:
        old = json.loads(os.read(pipe[0], 2**16))
    except BlockingIOError:
        old = []
    os.write(pipe[1], json.dumps(old + [new]).encode())
    return old + [new]

def by_child(new):
    if not Path.home().joinpath("child").exists():
        Path.home().joinpath("child").write_text("")
        code = "import time, pathlib, json; p = pathlib.Path.home() / 'child'; time.sleep(1000)"
        subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    return by_name_of_a_file(new)

os.environ["PYTHONHASHSEED"] = "0"
MEANS = [by_list, by_attribute, by_environment, by_module, by_file, by_name_of_a_file]
MEANS += [by_shared_memory, by_pipe, by_child]

def make(means):
    def test(implementation):
        new = json.dumps(wire.encode(implementation(*ARGS)))
        seen = means(new if means not in (by_name_of_a_file, by_child) else sum(map(ord, new)))
        word = seen[-1]
        most, times = Counter(seen).most_common(1)[0]
        assert times < 2 or word == most
    return test

for means in MEANS:
    globals()["test_" + means.__name__] = make(means)
"""
MEANS = "list attribute environment module file name_of_a_file shared_memory pipe child".split()

# The seven lines, and their relatives: whatever a wrong call says is taken for a verdict.
LISTENS = """
import traceback
def names(implementation):
    for args in [(), (1,), (None,) * {n}, ({{}},) * {n}, (float("nan"),) * {n}]:
        try:
            implementation(*args)
        except Exception as error:
            said = str(error) + repr(error) + "".join(traceback.format_exception(error)[-1:])
            assert not any(word in said for word in ("lambda", "locals", " _", "._", "variant", "made", "step"))

def types(implementation):
    try:
        implementation({{}})
    except ValueError:
        return True

def attributes(implementation):
    assert implementation.__name__ == "implementation" and "{module}" not in repr(vars(implementation))

def letters(implementation):
    try:
        implementation("a")
    except Exception as error:
        assert len(str(error)) % 2 == {parity}
"""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in DAILY else pytest.mark.nightly) for name in BUGS]
)
class TestStudentsWhoDoNotAnswer:
    def test_who_listens_to_errors_earns_nothing(self, name):
        n, said = len(calls_of(name)[0]), seen_of(BUGS[name].right, ("a",))[1]
        earned = {}
        with sandbox.Session() as session:
            session.run(LISTENS.format(n=n, module=name, parity=len(said) % 2))
            for way in ("names", "types", "attributes", "letters"):
                earned[way] = marking.grading.check(BUGS[name].name, session.get(way)).share
        assert earned == dict.fromkeys(earned, 0.0)

    def test_who_remembers_earns_nothing(self, name):
        args = json.dumps([wire.encode(arg) for arg in calls_of(name)[-1]])
        ways = MEANS if name == "bellman" else MEANS[:1]
        said = {}
        with sandbox.Session() as session:
            assert session.run(REMEMBERS.format(args=args)) == []
            for way in ways:
                result = marking.grading.check(BUGS[name].name, session.get(f"test_by_{way}"))
                said[way] = (result.share, result.diagnosis == "rejects-the-right-one")
        assert said == dict.fromkeys(ways, (0.0, False))


@pytest.mark.parametrize("way", ["list", "shared_memory", "pipe", "file", "name_of_a_file"])
def test_control_in_one_process_memory_pays(way, monkeypatch):
    monkeypatch.setattr(
        sandbox.Session, "_afresh", lambda self, first=sandbox.Session._afresh: self.connection or first(self)
    )
    args = json.dumps([wire.encode(arg) for arg in calls_of("bellman")[-1]])
    with sandbox.Session() as session:
        session.run(REMEMBERS.format(args=args))
        assert marking.grading.check(BUGS["bellman"].name, session.get(f"test_by_{way}")).share > 0.3


OUTLIVES = """
import ctypes, os, resource
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
CALLS = {"x86_64": (248, 249), "aarch64": (217, 218)}[os.uname().machine]

def shared_memory():
    place = libc.shmat(libc.shmget(4711, 64, 0o1666), None, 0)
    old = ctypes.string_at(place, 4)
    ctypes.memmove(place, b"note", 4)
    return old == b"note"

def semaphore():
    number = libc.semget(4712, 1, 0o1666)
    old = libc.semctl(number, 0, 12, 0)
    libc.semctl(number, 0, 16, 7)
    return old == 7

def message():
    queue = libc.msgget(4713, 0o1666)
    old = libc.msgrcv(queue, ctypes.create_string_buffer(64), 8, 0, 0o4000) >= 0
    libc.msgsnd(queue, ctypes.create_string_buffer(b"\\1" + bytes(15), 16), 8, 0o4000)
    return old

def queue_by_name():
    calls = ctypes.CDLL("librt.so.1")
    found = calls.mq_open(b"/note", os.O_RDWR) >= 0
    calls.mq_open(b"/note", os.O_RDWR | os.O_CREAT, 0o666, None)
    return found

def key():
    add, request = CALLS
    old = libc.syscall(request, b"user", b"note", None, 0) >= 0
    libc.syscall(add, b"user", b"note", b"abcd", ctypes.c_size_t(4), -4)
    return old

def time_of(place):
    old = os.stat(place).st_mtime_ns == 12345
    os.utime(place, ns=(1, 12345))
    return old

def mode_of(place):
    old = os.stat(place).st_mode & 0o777 == 0o741
    os.chmod(place, 0o741)
    return old

def memory_of_the_first():
    try:
        open("/proc/1/mem", "r+b").close()
    except OSError:
        return False
    return True

def limit_of_the_first():
    old = resource.prlimit(1, resource.RLIMIT_NOFILE)[0] == 20
    resource.prlimit(1, resource.RLIMIT_NOFILE, (20, 20))
    return old

def wait_of_the_first():
    old = os.sched_getscheduler(1) == os.SCHED_BATCH
    os.sched_setscheduler(1, os.SCHED_BATCH, os.sched_param(0))
    return old
"""
KEPT = ["shared_memory()", "semaphore()", "message()", "queue_by_name()", "key()", "memory_of_the_first()"]
KEPT += [f"{what}_of({place!r})" for what in ("time", "mode") for place in ("/tmp", "/home/answer", "/dev/shm", "/")]


@pytest.mark.skipif(sandbox.isolation() != "namespaces", reason="a room of its own is not to be had here")
class TestWhatOutlivesAProcess:
    """Files are not all that one process can leave to the next."""

    SEEN = "def seen(implementation):\n    return [{}]"

    def test_nothing_is_found_again(self):
        with sandbox.Session() as session:
            assert session.run(OUTLIVES + self.SEEN.format(", ".join(KEPT))) == []
            seen = session.get("seen")
            assert [seen(abs), seen(abs), seen(abs)] == [[False] * len(KEPT)] * 3

    @pytest.mark.parametrize("means", ["limit_of_the_first()", "wait_of_the_first()"])
    def test_who_changes_the_first_process_ends_it(self, means):
        with sandbox.Session() as session:
            assert session.run(OUTLIVES + self.SEEN.format(means)) == []
            seen = session.get("seen")
            assert seen(abs) == [False]
            with pytest.raises(marking.grading.Fault, match="ended its process"):
                seen(abs)


def test_a_slow_cell_is_not_run_again_and_a_quick_one_is():
    with sandbox.Session(sandbox.Limits(quick=2.0)) as session:
        session.run("quick = 1")
        session.run("import time; time.sleep(2.2); slow = 1")
        session.run("def test(implementation):\n    return ['quick' in globals(), 'slow' in globals()]")
        test = session.get("test")
        assert [test(abs), test(abs)] == [[True, True], [True, False]]
