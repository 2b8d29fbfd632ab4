"""Starting the process of an answer with as little around it as the platform allows, talking to it, and ending it.

This is the grader's side; the other is `answers`, and what crosses between them is in `wire`. Whether an answer is
right is not asked here.
"""

import contextlib
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import divergence_notes
from divergence_notes.grading import Fault
from divergence_notes.grading.running import SLOWER
from grader import border, cells, wire

HERE = Path(__file__).resolve().parent

ROOM = r"""
set -e
root=$1; shift
mount -t tmpfs -o size=64m,mode=755 tmpfs "$root"
for place in $READABLE; do
    if [ -L "$place" ]; then
        mkdir -p "$root$(dirname "$place")"; cp -d "$place" "$root$place"
    elif [ -d "$place" ]; then
        mkdir -p "$root$place"; mount --rbind "$place" "$root$place"; mount -o remount,bind,ro "$root$place"
    elif [ -e "$place" ]; then
        mkdir -p "$root$(dirname "$place")"; touch "$root$place"; mount --bind "$place" "$root$place"
        mount -o remount,bind,ro "$root$place"
    fi
done
mkdir -p "$root/proc" "$root/dev" "$root/tmp" "$root/home/answer"
mount -t proc proc "$root/proc"
for device in null zero random urandom; do
    touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm"
echo 400 > /proc/sys/kernel/pid_max 2>/dev/null || true
exec chroot "$root" env -i PATH=/usr/bin:/bin HOME=/tmp TMPDIR=/tmp LANG=C.UTF-8 OMP_NUM_THREADS=1 \
    PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$PYTHONPATH" GRADER_MARK="$GRADER_MARK" IPYTHONDIR=/tmp/ipython \
    MPLCONFIGDIR=/tmp MPLBACKEND=module://matplotlib_inline.backend_inline \
    setpriv --bounding-set=-all --inh-caps=-all --no-new-privs sh -c 'cd /home/answer; exec "$@"' sh "$@"
"""
"""A room of its own: what is readable is bound into an empty root, read-only; privileges go before Python starts."""

PATIENCE = 120.0
"""Seconds for a process of ours to be ready; where nobody else wants the machine it takes two."""

PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
"""Where the tools for a room are; on Debian the path of an ordinary user leaves out the half in which chroot is."""

UNSHARE = "unshare --user --map-root-user --mount --pid --fork --kill-child --net --ipc --uts".split()
SETPRIV = "setpriv --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs".split()


@dataclass(frozen=True)
class Limits:
    """What one submission may use."""

    cell: float = 20.0
    """Seconds of the processor for one cell; on the clock it may be three times as many."""
    call: float = 5.0
    """Seconds for one call of an answer, likewise."""
    total: float = 150.0
    """Seconds on the clock for the whole notebook; what comes later counts as not answered."""
    gigabytes: float = 4.0
    """Address space of one process."""
    starts: int = 4
    """How often a process is started in time that is not the student's; every later start counts as the student's."""
    quick: float = 8.0
    """Seconds up to which a cell is repeated where a process starts afresh."""


def readable():
    """List the places that the answer's process may read: the system, Python, the package, and its own side of this."""
    package = Path(divergence_notes.__file__).resolve().parent
    own = [HERE / name for name in ("__init__.py", "answers.py", "cells.py", "wire.py")]
    system = ["/bin", "/sbin", "/lib", "/lib64", "/usr", "/etc/ld.so.cache", "/etc/localtime", "/etc/passwd"]
    python = [found for prefix in (sys.prefix, sys.base_prefix) for found in (prefix, os.path.realpath(prefix))]
    return [*system, *dict.fromkeys(python), str(package), *map(str, own)]


def _environment(mark):
    package = Path(divergence_notes.__file__).resolve().parent.parent
    return {"PATH": PATH, "PYTHONPATH": f"{package}:{HERE.parent}", "GRADER_MARK": mark}


@functools.cache
def isolation():
    """Say what an answer can have: a room of its own, a user of its own, or a process and no more."""
    if all(shutil.which(tool, path=PATH) for tool in ("unshare", "setpriv", "chroot")):
        with tempfile.TemporaryDirectory() as root:
            room = [*UNSHARE, "sh", "-c", ROOM, "sh", root, sys.executable, "-c", "pass"]
            if _works(room, {"READABLE": " ".join(readable())}):
                return "namespaces"
    # Of a Python, or a package, that only root may read, another user could do nothing with it.
    if os.geteuid() == 0 and shutil.which("setpriv", path=PATH):
        if _works([*_as(_nobody()), sys.executable, "-c", "import grader.answers, grader.cells, grader.wire"], {}):
            return "user"
    return "process"


def _works(command, more):
    made = subprocess.run(command, env=_environment("probe") | more, cwd="/", capture_output=True, timeout=PATIENCE)
    return made.returncode == 0


def _as(user):
    """Return how a command is run as another user, who has no name, no groups and no privileges."""
    return [*SETPRIV, f"--reuid={user}", f"--regid={user}"]


def _nobody():
    """Return the number of a user who has nothing here: of each process that grades, another one."""
    return 20_000 + os.getpid() % 40_000


STATEMENTS = {
    "namespaces": "Each submission runs in namespaces of its own: no network, no other process, no files but Python "
    "and the package.",
    "user": "Namespaces are not available, and you are root: each submission runs as a user of its own, without "
    "privileges. It can reach the network, and read what everybody on this machine can read (coursework/README.md).",
    "process": "Namespaces are not available: a submission runs in a process with limits and a bare environment, but "
    "it can reach the network and read what you can read. Grade inside a container (coursework/README.md).",
}


class NotStarted(Exception):
    """A process could not be started, before anything of the student's ran in it: no answer has been judged."""


class Session:
    """The conversation with the process of one submission; when that dies, it starts again and repeats the cells.

    A test takes what goes wrong for a fault of the answer. So what went wrong on this side stands in `trouble` too.
    """

    def __init__(self, limits=Limits()):
        self.limits = limits
        # Who starts a batch may mark it, and so tell its processes from those of another.
        self.mark = os.environ.get("GRADER_MARK", "") + uuid.uuid4().hex
        self.deadline = time.monotonic() + limits.total
        self.process = self.control = self.connection = self.room = None
        self.cells, self.starts = [], 0
        self.slow, self.lost = [], []
        self.met, self.grace = False, limits.total
        self.touched, self.trouble = False, ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        """Start the process and repeat the cells that went well before it died."""
        self.starts += 1
        self.touched = False  # nothing of the student's has run in what is started here
        try:
            self._open()
            self._await(self.control, lambda: self.control.recv(1))
            self._afresh()
        except (OSError, EOFError, Fault) as error:
            self.stop()
            if not self.touched:
                self.trouble = f"the process of an answer could not be started: {error}"
            raise error if isinstance(error, Fault) else Fault("cannot be run: its process did not start") from error

    def _await(self, end, hear):
        """Wait until a process says that it is ready; that is not the student's time, unless there were many starts."""
        start = time.monotonic()
        end.settimeout(PATIENCE)
        if not hear():
            raise EOFError("it ended before it was ready")
        end.settimeout(None)
        if self.starts <= self.limits.starts:  # a process that ends again and again buys no time
            self.deadline += time.monotonic() - start

    def _open(self):
        """Make the room, and in it the process that starts the others."""
        self.control, theirs = socket.socketpair()
        self.room = tempfile.mkdtemp(prefix="answer-")
        limit = self.limits
        command = [sys.executable, "-m", "grader.answers", str(theirs.fileno())]
        command += [str(int(limit.total) + 10), str(limit.gigabytes), str(limit.cell), str(limit.call)]
        env, cwd = _environment(self.mark), None
        if isolation() == "namespaces":
            command = [*UNSHARE, "sh", "-c", ROOM, "sh", self.room, *command]
            env["READABLE"] = " ".join(readable())
        else:
            env |= dict.fromkeys(["HOME", "TMPDIR", "IPYTHONDIR", "MPLCONFIGDIR"], self.room) | {"OMP_NUM_THREADS": "1"}
            cwd = self.room
            if isolation() == "user":
                os.chown(self.room, _nobody(), _nobody())
                command = [*_as(_nobody()), *command]
        with theirs:
            self.process = subprocess.Popen(
                command,
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=isolation() != "namespaces",
            )

    def _afresh(self):
        """Start over with a process that has seen nothing but the student's cells, as far as they are quick."""
        if self.connection is not None:
            self.connection.close()
        if isolation() != "namespaces":
            _kill(pid for pid in self._others() if pid != self.process.pid)
        self.connection, theirs = socket.socketpair()
        self.met = False
        self.lost, self.slow = self.lost + self.slow, []
        with theirs:
            try:
                # What takes seconds to import is imported once, by the process that starts the others.
                word = b"t" if any("torch" in source for source in self.cells) else b"n"
                socket.send_fds(self.control, [word], [theirs.fileno()])
                theirs.close()
                self._await(self.connection, lambda: wire.receive(self.connection))
                start = time.monotonic()
            except (OSError, EOFError) as error:
                self.stop()
                raise Fault("ended its process, or was ended for using too much memory or time") from error
        for source in self.cells:
            self._talk({"cell": source}, self.limits.cell)
        # Its own cells are not what the time for the notebook is meant for, up to as much again.
        spent = min(time.monotonic() - start, self.grace)
        self.deadline, self.grace = self.deadline + spent, self.grace - spent

    def stop(self):
        """End the process and everything that it has started."""
        for end in (self.connection, self.control):
            if end is not None:
                end.close()
        self.connection = self.control = None
        if self.process is not None:
            if isolation() != "namespaces":
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                _kill(self._others())
            self.process.kill()  # in namespaces: the end of the first process is the end of all
            self.process.wait()
            self.process = None
        if self.room is not None:
            shutil.rmtree(self.room, ignore_errors=True)
            self.room = None

    def _others(self):
        """List what the submission has started: where it is a user's, whatever it made of its environment."""
        return strays(self.mark) if isolation() == "process" else {*strays(self.mark), *of_user(_nobody())}

    def run(self, source):
        """Run a cell of the student; return its outputs."""
        try:
            self._ready()  # which is not the cell's time
            start = time.monotonic()
            said = self._ask({"cell": source}, self.limits.cell)
        except Fault as fault:
            return [cells.failure("Ended", str(fault))]
        outputs = cells.tidy(said.get("outputs"))
        if any(output.get("ename") == "MemoryError" for output in outputs):
            self.stop()  # else what it holds of the memory is missing for the next answers
        elif time.monotonic() - start < self.limits.quick:
            self.cells.append(source)
        else:
            self.slow.append(source)
        return outputs

    def get(self, name):
        """Return what the student's code calls `name`: a value, a function that runs over there, or why there is none.

        What was never made is `...`. What was made and cannot be had any more is the `Fault` that says so.
        """
        try:
            said = self._ask({"get": name}, self.limits.call)
            if "value" in said:
                return wire.decode(said["value"], lambda number, shown: functools.partial(self.call, name))
        except Fault as fault:
            return fault
        except Exception:  # it cannot be read, whatever the other side made of it
            return ...
        if any(re.search(rf"\b{re.escape(name)}\b", source) for source in self.lost):
            quick = f"{self.limits.quick:g} seconds"
            return Fault(f"is gone: its cell took longer than {quick}, and is not run again in a new process")
        return ...  # not there: not answered

    def call(self, name, *args):
        """Call the student's function `name`; a change that it makes to an array is made to `args` too."""
        functions = []
        asked = {"call": name, "args": [wire.encode(arg, functions) for arg in args]}
        if functions:
            # A test that remembers what it was handed before would know the right one by its being there more often.
            if self.met and self.process is not None and time.monotonic() < self.deadline:
                self._afresh()
            self.met = True
        said = self._ask(asked, self.limits.call, functions)
        if "assertion" in said:
            raise AssertionError(str(said["assertion"]))
        if "fault" in said:
            if str(said["fault"]).startswith("took longer"):
                self.stop()  # it may still be running over there
            raise Fault(str(said["fault"]))
        try:
            for arg, after in zip(args, said.get("args", ()), strict=False):
                repeat(arg, wire.decode(after))
            return wire.decode(said["value"])
        except Exception as error:  # whatever the other side made of it
            raise Fault("gave back something that cannot be read") from error

    def _ask(self, message, limit, functions=()):
        self._ready()
        return self._talk(message, limit, functions)

    def _ready(self):
        """See to it that there is a process, as long as there is time."""
        if time.monotonic() > self.deadline:
            raise Fault("comes after the time for the whole notebook was up")
        if self.process is None:
            self.start()

    def _talk(self, message, limit, functions=()):
        self.touched = True
        until = min(time.monotonic() + SLOWER * limit * (1 + len(functions)) + 10, self.deadline + 5)
        try:
            self.connection.settimeout(max(until - time.monotonic(), 0.1))
            wire.send(self.connection, message)
            while True:
                self.connection.settimeout(max(until - time.monotonic(), 0.1))
                said = wire.receive(self.connection)
                if "callback" not in said:
                    return said
                wire.send(self.connection, _here(said, functions))
        except TimeoutError as error:
            self.stop()
            raise Fault(f"took longer than {limit:g} seconds, and could not be interrupted") from error
        except (EOFError, OSError) as error:
            self.stop()
            raise Fault("ended its process, or was ended for using too much memory or time") from error


def _here(said, functions):
    """Run one of the grader's functions for the student's code; of an error behind the border nothing is told."""
    try:
        args = [wire.decode(arg) for arg in said["args"]]
        kwargs = {str(key): wire.decode(arg) for key, arg in said["kwargs"].items()}
        return {"value": wire.encode(functions[said["callback"]](*args, **kwargs))}
    except border.Refused as refusal:
        return {"error": str(refusal)}
    except Exception:
        return {"error": border.REFUSED}


def _kill(pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def repeat(arg, after):
    """Do to an argument what was done to its copy over there, so that the check sees it."""
    import numpy as np

    if (
        isinstance(arg, np.ndarray)
        and isinstance(after, np.ndarray)
        and arg.shape == after.shape
        and arg.flags.writeable
    ):
        arg[...] = after


def strays(mark):
    """List the processes that carry the mark in their environment."""
    found = []
    for place in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in place.read_bytes():
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


def of_user(user):
    """List the processes of a user, given by number."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if place.stat().st_uid == user or f"\nUid:\t{user}\t" in (place / "status").read_text():
                found.append(int(place.name))
    return found
