"""The process of an answer: runs the student's cells and calls the student's functions, on demand, under limits.

Nothing that a test knows is ever here: it gets cells and arguments, and gives back outputs and values. The first
process runs nothing of the student's: at each request it ends what the last answer left behind and starts a fresh one.
"""

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import socket
import sys
from pathlib import Path

GIGABYTE = 2**30


def limits(seconds, gigabytes):
    """Bound what this process and its children may use; without privileges none of it can be raised again."""
    bounds = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: int(gigabytes * GIGABYTE),
        resource.RLIMIT_FSIZE: 50 * 2**20,
        resource.RLIMIT_NPROC: 2048,
        resource.RLIMIT_NOFILE: 256,
        resource.RLIMIT_CORE: 0,
    }
    if hasattr(resource, "RLIMIT_MSGQUEUE"):
        bounds[resource.RLIMIT_MSGQUEUE] = 0  # a queue outlives who made it
    for what, bound in bounds.items():
        with contextlib.suppress(ValueError, OSError):  # a lower one is in force already
            resource.setrlimit(what, (bound, bound))


def serve(connection, shell, *, cell_limit, call_limit):
    """Say that it is ready, and answer requests until the other side hangs up."""
    from divergence_notes.grading.running import Fault, describe, run
    from grader import cells, wire

    wire.send(connection, {"ready": True})

    def elsewhere(number, name):
        """Return a function that lives in the grader."""

        def implementation(*args, **kwargs):
            sent = {"args": [wire.encode(a) for a in args], "kwargs": {k: wire.encode(v) for k, v in kwargs.items()}}
            wire.send(connection, {"callback": number, **sent})
            reply = wire.receive(connection)
            if "error" in reply:
                raise ValueError(reply["error"])
            return wire.decode(reply["value"])

        implementation.__name__ = "implementation"
        return implementation

    while True:
        try:
            asked = wire.receive(connection)
        except EOFError:
            return
        if "cell" in asked:
            reply = {"outputs": cells.run_cell(shell, asked["cell"], time_limit=cell_limit)}
        elif "get" in asked:
            known = asked["get"] in shell.user_ns
            reply = {"value": wire.encode(shell.user_ns[asked["get"]])} if known else {"missing": True}
        else:
            tests = any(said.get("is") == "function" for said in asked["args"])  # it is handed an implementation
            try:
                args = [wire.decode(said, elsewhere) for said in asked["args"]]
                value = run(shell.user_ns[asked["call"]], *args, time_limit=call_limit)
                reply = {"value": wire.encode(value), "args": [] if tests else [wire.encode(arg) for arg in args]}
            except AssertionError as error:
                reply = {"assertion": str(error)[:500]} if tests else {"fault": describe(error)[:2000]}
            except Fault as fault:
                reply = {"fault": str(fault)[:2000]}
            except Exception as error:  # what the student called by that name may be anything
                reply = {"fault": f"cannot be called: {type(error).__name__}"}
        wire.send(connection, reply)


def supervise(control, answer):
    """Start a process that runs `answer` on each connection that comes in, one at a time and each as if the first."""
    alone = os.getpid() == 1  # in namespaces of its own
    room = Path("/" if alone else os.environ["HOME"])
    kept = set(_written(room))
    looks = {path: os.lstat(path) for path in (room, *kept)}
    if alone:
        _closed(True)
    own = _own_state() if alone else None
    child = None
    control.send(b"r")
    while True:
        message, handles, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        with contextlib.suppress(ProcessLookupError):
            if alone:
                os.kill(-1, signal.SIGKILL)
            elif child is not None:
                os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while child is not None:
                os.waitpid(-1, 0)
        for path in set(_written(room)) - kept:
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if alone:
            _forget(looks)
            if _own_state() != own:  # the last answer has changed this process: that, too, is a note to the next
                return
        if message == b"t":
            import torch  # noqa: F401
        child = os.fork()
        if child == 0:
            control.close()
            if alone:
                _closed(False)
            answer(socket.socket(fileno=handles[0]))
            os._exit(0)
        os.close(handles[0])


def _written(room):
    """List what lies in a folder, on the same device."""
    device = room.stat().st_dev
    for folder, inside, files in os.walk(room):
        inside[:] = [name for name in inside if os.lstat(os.path.join(folder, name)).st_dev == device]
        yield from (Path(folder, name) for name in (*inside, *files))


def _closed(closed):
    """Keep other processes out of the memory of this one, or let them in again."""
    ctypes.CDLL(None).prctl(4, 0 if closed else 1, 0, 0, 0)  # PR_SET_DUMPABLE


def _own_state():
    """Return what another process of the same user can change of this one."""
    bounds = [resource.getrlimit(what) for name, what in vars(resource).items() if name.startswith("RLIMIT_")]
    spared = Path("/proc/self/oom_score_adj").read_text()
    return bounds, os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), spared


def _forget(looks):
    """Undo what else outlives a process: times, modes and attributes of folders, shared memory, semaphores, keys."""
    for path, look in looks.items():
        with contextlib.suppress(OSError):
            os.utime(path, ns=(look.st_atime_ns, look.st_mtime_ns), follow_symlinks=False)
            os.chmod(path, look.st_mode & 0o7777) if not path.is_symlink() else None
            for name in os.listxattr(path, follow_symlinks=False):
                os.removexattr(path, name, follow_symlinks=False)
    libc = ctypes.CDLL(None)
    remove = {"shm": lambda i: libc.shmctl(i, 0, None), "sem": lambda i: libc.semctl(i, 0, 0)}
    remove["msg"] = lambda i: libc.msgctl(i, 0, None)
    for kind, end in remove.items():
        with contextlib.suppress(OSError):
            for line in Path("/proc/sysvipc", kind).read_text().splitlines()[1:]:
                end(int(line.split()[1]))
    keyctl = {"x86_64": 250, "aarch64": 219}.get(os.uname().machine)
    for ring in (-3, -4, -5) if keyctl else ():  # of the session, the user, and the user's session
        libc.syscall(keyctl, 7, ring)


def main():
    """Import what every answer needs, and wait."""
    number, seconds, gigabytes, cell_limit, call_limit = sys.argv[1:]
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    from grader import cells

    shell = cells.shell()

    def answer(connection):
        limits(int(seconds), float(gigabytes))
        serve(connection, shell, cell_limit=float(cell_limit), call_limit=float(call_limit))

    supervise(socket.socket(fileno=int(number)), answer)


if __name__ == "__main__":
    main()
