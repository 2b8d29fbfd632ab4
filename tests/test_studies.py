"""The command line of the studies: a real cluster, kills, failures, and what is left on the disk."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from divergence_notes.studies import runner
from tests.pages import ROOT
from tests.waiting import PATIENCE, until

STUDY = '''
"""What is drawn?

A study for tests.
"""

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd

PARAMETERS = {"kind": ("a/b", "none"), "gamma": (0.1 + 0.2,), "seed": tuple(range(5))}
SECONDS = 90.0


def run(*, kind, gamma, seed):
    faults = Path(__file__).parent
    if seed == 3 and (faults / "raise").exists():
        raise RuntimeError("seed 3 is unlucky")
    if (kind, seed) == ("none", 4) and (faults / "die").exists():
        os._exit(1)
    (faults / f"worker-{os.getpid()}").touch()
    while seed == 4 and (faults / "hold").exists():  # two runs do not end before they are let go
        time.sleep(0.02)
    time.sleep(0.3)  # a run lasts long enough to be killed in the middle
    draws = np.random.default_rng([seed, len(kind)]).standard_normal(3)
    return pd.DataFrame({"draw": draws, "third": draws / 3, "k": range(3), "seed": seed})
'''
N_RUNS = 10


@pytest.fixture
def place(tmp_path):
    """Return a directory with a study that can be imported as ``mine.tiny``."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").touch()
    (tmp_path / "mine" / "tiny.py").write_text(STUDY)
    return tmp_path


def command(place, *arguments, name="mine.tiny"):
    """Return the command line that does something with the study."""
    verb, *rest = arguments
    return [sys.executable, "-m", "divergence_notes.studies", verb, name, "--results", str(place / "results"), *rest]


def environment(place):
    """Return an environment in which the study can be imported."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(place), str(ROOT)])}


def cli(place, *arguments, **kw):
    """Run the command line to its end."""
    line = command(place, *arguments, **kw)
    return subprocess.run(line, cwd=place, env=environment(place), capture_output=True, text=True, timeout=PATIENCE)


def finished(place, study="tiny"):
    """Return {name: (identity, text)} of every result."""
    return {path.name: (path.stat().st_ino, path.read_text()) for path in (place / "results").glob(f"{study}/*.csv")}


def worker_pids(place):
    """Return the processes that did a run."""
    return {int(path.name.partition("-")[2]) for path in (place / "mine").glob("worker-*")}


def alive(pid):
    """Whether a process is running, zombies apart."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def expected():
    """Return what the study computes, by another way."""
    rows = []
    for kind, length in (("a/b", 3), ("none", 4)):
        for seed in range(5):
            draws = np.random.default_rng([seed, length]).standard_normal(3)
            rows += [[kind, 0.1 + 0.2, seed, draw, draw / 3, k] for k, draw in enumerate(draws)]
    return pd.DataFrame(rows, columns=["kind", "gamma", "seed", "draw", "third", "k"])


def check_all(place, *, in_flight=0):
    """Every run is present once, to the last bit; a kill may leave some half-written files, which nobody reads."""
    from divergence_notes import studies

    data = studies.load("tiny", results=place / "results")
    pd.testing.assert_frame_equal(data, expected(), check_exact=True)
    assert len(finished(place)) == N_RUNS
    beside = {path.name for path in (place / "results").glob("tiny/.*")} - {".seconds.part"}
    assert len(beside) <= in_flight, "half-written files are left"


def test_kill_in_the_middle_and_restart(place):
    """Kill -9 loses the runs in flight and nothing else; workers do not outlive the command."""
    (place / "mine" / "hold").touch()
    process = subprocess.Popen(
        command(place, "run", "--workers", "2"), cwd=place, env=environment(place), stderr=subprocess.PIPE, text=True
    )
    until(lambda: len(finished(place)) >= 3)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=PATIENCE)
    kept = finished(place)
    assert 3 <= len(kept) < N_RUNS
    workers = worker_pids(place)
    assert len(workers) == 2, "two processes"
    until(lambda: not any(map(alive, workers)))

    (place / "mine" / "hold").unlink()
    said = cli(place, "status").stdout
    left = N_RUNS - len(kept)
    assert f"mine.tiny: {len(kept)} of 10 runs are finished\n{left} missing: about" in said
    assert len(re.findall(r"^  kind=", said, flags=re.M)) == left

    done = cli(place, "run", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert f"{left}/{left}" in done.stderr, "the bar counts what was missing"
    assert {name: finished(place)[name] for name in kept} == kept, "what was there is not written again"
    check_all(place, in_flight=2)

    again = cli(place, "run")
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == "mine.tiny: 10 of 10 runs are finished\n"


def test_a_worker_lives_through_ctrl_c_and_says_no_more():
    told = "import logging, os\n" + runner._QUIET + "\nlogging.error('before')\n"
    told += "signal.raise_signal(signal.SIGINT)\nlogging.error('after')\nprint('alive')"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout == "alive\n"
    assert "before" in done.stderr and "after" not in done.stderr


def test_interrupt(place):
    """Ctrl-C reaches every process; the workers do not hear it, everything ends, and what was finished stays."""
    (place / "mine" / "hold").touch()
    process = subprocess.Popen(
        command(place, "run", "--workers", "1"),
        cwd=place,
        env=environment(place),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # else as of this process
    )
    until(lambda: len(finished(place)) >= 1)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("interrupted: finished runs are kept")
    assert "Traceback" not in said, said
    assert finished(place)
    workers = worker_pids(place)
    until(lambda: not any(map(alive, workers)))


def test_a_failing_run_takes_no_other_down(place, monkeypatch):
    """Two runs raise, one kills its worker: all are reported, the rest is there, a restart mends it."""
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0")  # the first death is enough for us
    for fault in ("raise", "die"):
        (place / "mine" / fault).touch()
    done = cli(place, "run", "--workers", "2")
    assert done.returncode == 1
    runs = [("a%2Fb", 3), ("none", 3), ("none", 4)]
    names = [f"kind={kind},gamma=0.30000000000000004,seed={seed}" for kind, seed in runs]
    failures = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert sorted(line.split(": ")[1] for line in failures) == sorted(names)
    assert sum("RuntimeError: seed 3 is unlucky" in line for line in failures) == 2
    assert sum("KilledWorker" in line for line in failures) == 1
    assert "7 of 10 runs are finished" in done.stdout

    for fault in ("raise", "die"):
        (place / "mine" / fault).unlink()
    assert cli(place, "run", "--workers", "2").returncode == 0
    check_all(place)


COUNTING = '''
"""How far does it count?"""

import os
import time
from pathlib import Path

import pandas as pd

PARAMETERS = {"seed": (0, 1), "kind": ("slow", "quick")}
SECONDS = {"slow": 7200, "quick": 3600}


def run(*, seed, kind, checkpoint):
    start = int(checkpoint.read_text()) if checkpoint.exists() else 0
    for k in range(start, 6):
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write_text(str(k))
        if k == 4 and (Path(__file__).parent / f"die-{seed}-{kind}").exists():
            while not (checkpoint.parent / ".seconds.part").exists():
                time.sleep(0.01)  # the other run is written, or it would be done again
            os._exit(1)
    return pd.DataFrame({"start": [start], "end": [k]})
'''


def test_a_run_that_was_killed_goes_on(place, monkeypatch):
    """From its checkpoint, which is there until the result is; what it costs here is told by the unbroken ones."""
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0")
    (place / "mine" / "counting.py").write_text(COUNTING)
    there, name = place / "results" / "counting", {"name": "mine.counting"}
    fault = place / "mine" / "die-1-quick"
    fault.touch()
    first = cli(place, "run", "--workers", "1", "--without", "seed=0", **name)
    assert first.returncode == 1 and "KilledWorker" in first.stderr
    assert [path.name for path in there.glob("[!.]*")] == ["seed=1,kind=slow.csv"], "seed 0 was left out"
    kept = there / ".seed=1,kind=quick.checkpoint.part"
    assert kept.read_text() == "4"
    assert list(json.loads((there / ".seconds.part").read_text())) == ["seed=1,kind=slow"]
    left = ["seed=0,kind=slow", "seed=0,kind=quick", "seed=1,kind=quick (begun)"]
    assert [line.strip() for line in first.stdout.splitlines()[2:]] == left

    fault.unlink()
    then = time.time() - 24 * 3600
    os.utime(kept, (then, then))  # a machine may stand still for a day
    assert cli(place, "run", "--workers", "1", **name).returncode == 0
    starts = {path.stem: int(pd.read_csv(path)["start"].iloc[0]) for path in there.glob("[!.]*.csv")}
    assert starts.pop("seed=1,kind=quick") == 4
    assert len(starts) == 3 and set(starts.values()) == {0}
    assert set(json.loads((there / ".seconds.part").read_text())) == set(starts)
    assert [path.name for path in there.glob(".*")] == [".seconds.part"]


@pytest.mark.parametrize("wrong", ["seed", "seed=2", "kinds=slow"])
def test_what_is_left_out_must_be_there(place, wrong):
    (place / "mine" / "counting.py").write_text(COUNTING)
    done = cli(place, "run", "--without", wrong, name="mine.counting")
    assert (
        done.returncode == 2
        and f"--without must be KEY=VALUE of mine.counting.PARAMETERS, got '{wrong}'" in done.stderr
    )


def test_what_is_missing_is_priced_by_what_was_done_here(place):
    """Two hours and one in the study, half of it here: 7200, 3600, 3600 seconds are left, in all two hours."""
    (place / "mine" / "counting.py").write_text(COUNTING)
    said = cli(place, "status", name="mine.counting").stdout
    assert "4 missing: about 6.0 h on one core" in said and "as none was done here" in said
    there = place / "results" / "counting"
    there.mkdir(parents=True)
    (there / "seed=0,kind=slow.csv").write_text("seed,kind,start,end\n0,slow,0,5\n")
    spent = {"seed=0,kind=slow": 3600.0, "seed=9,kind=slow": 1.0}  # one of an older grid says nothing
    (there / ".seconds.part").write_text(json.dumps(spent))
    said = cli(place, "status", name="mine.counting").stdout
    assert "3 missing: about 2.0 h on one core" in said and "by 1 run done here" in said


def test_prices_are_of_one_parameter(place, monkeypatch):
    from divergence_notes.studies import runner

    (place / "mine" / "priced.py").write_text(COUNTING.replace('"quick": 3600', '"other": 3600'))
    monkeypatch.syspath_prepend(place)
    why = "mine.priced.SECONDS must have the values of one parameter for keys, got ['other', 'slow']"
    with pytest.raises(ValueError, match=re.escape(why)):
        runner.find("mine.priced")
    sys.modules.pop("mine.priced"), sys.modules.pop("mine", None)


def test_any_other_cluster(place):
    """A scheduler and two workers that somebody else started; both workers take part, all outlive the command."""
    from distributed import Client

    dask, file = Path(sys.executable).with_name("dask"), place / "scheduler.json"
    quiet = {"env": environment(place), "cwd": place, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    common = ["--scheduler-file", file, "--no-dashboard"]
    local = ["--host", "127.0.0.1", "--port", "0"]
    alone = ["--host", "127.0.0.1", "--no-nanny", "--nthreads", "1"]
    scheduler = subprocess.Popen([dask, "scheduler", *common, *local], **quiet)
    workers = [subprocess.Popen([dask, "worker", *common, *alone], **quiet) for _ in range(2)]
    try:
        until(lambda: file.exists() and file.read_text().strip().endswith("}"))
        address = json.loads(file.read_text())["address"]
        with Client(address, timeout=PATIENCE) as client:
            client.wait_for_workers(2, timeout=PATIENCE)
        done = cli(place, "run", "--scheduler", address)
        assert done.returncode == 0, done.stderr
        assert [process.poll() for process in (scheduler, *workers)] == [None] * 3
        assert worker_pids(place) == {worker.pid for worker in workers}
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait(timeout=PATIENCE)
    check_all(place)


SWING = '''
"""The pendulum study, but smaller."""

import os
from pathlib import Path

from divergence_notes.studies import swing_up

FLOAT_FORMAT = swing_up.FLOAT_FORMAT
PARAMETERS = {"agent": ("preqn-sin", "td3"), "seed": (0, 1, 2)}
SECONDS = 2


def run(**parameters):
    (Path(__file__).parent / f"worker-{os.getpid()}").touch()
    return swing_up.run(**parameters, steps=1_100)
'''


def kill_after_one_more(place, line, study, kept):
    """Start the command, kill it when a result more is there; return what is there when all is dead."""
    process = subprocess.Popen(line, cwd=place, env=environment(place), stderr=subprocess.DEVNULL)
    try:
        until(lambda: len(finished(place, study)) > len(kept))
    finally:
        process.kill()
        process.wait(timeout=PATIENCE)
    until(lambda: not any(map(alive, worker_pids(place))))
    found = finished(place, study)
    assert {name: found[name] for name in kept} == kept, "what was there is not written again"
    return found


@pytest.mark.nightly
def test_a_study_of_control_survives_two_kills(place, monkeypatch):
    """What was killed in the middle is done again from the start, and is the same to the last byte."""
    import torch

    from divergence_notes.studies import runner

    (place / "mine" / "swing.py").write_text(SWING)
    line = command(place, "run", "--workers", "2", name="mine.swing")
    first = kill_after_one_more(place, line, "swing", {})
    kept = kill_after_one_more(place, line, "swing", first)
    assert 1 <= len(first) < len(kept) < 6
    done = subprocess.run(line, cwd=place, env=environment(place), capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr.decode()
    found = finished(place, "swing")
    assert {name: found[name] for name in kept} == kept
    hidden = {path.suffix for path in (place / "results").glob("swing/.*")}
    assert hidden <= {".part"}, "a kill in the middle of writing leaves a file that nobody reads, and nothing else"

    monkeypatch.syspath_prepend(place)
    before = torch.get_num_threads()
    try:
        study = runner.find("mine.swing")
        runs = {runner.result_path(study, parameters, place).name: parameters for parameters in runner.grid(study)}
        assert set(found) == set(runs), "every run is there once"
        again = next(name for name in runs if name not in kept)
        for name in (next(iter(kept)), again):
            runner.write(runner.perform("mine.swing", runs[name], "none")[0], study, runs[name], place / "here")
            assert (place / "here" / "swing" / name).read_text() == found[name][1]
    finally:
        torch.set_num_threads(before)
        for name in ("mine.swing", "mine"):
            sys.modules.pop(name, None)


class TestResults:
    """What is written, and what is read."""

    @pytest.fixture
    def study(self, place, monkeypatch):
        from divergence_notes.studies import runner

        monkeypatch.syspath_prepend(place)
        yield runner.find("mine.tiny")
        for name in ("mine.tiny", "mine"):
            sys.modules.pop(name, None)

    @pytest.fixture
    def parameters(self, study):
        from divergence_notes.studies import runner

        return next(runner.grid(study))

    def test_half_written_is_never_read_nor_counted(self, study, parameters, place):
        from divergence_notes import studies
        from divergence_notes.studies import runner

        table = pd.DataFrame({"x": [1.5]})
        runner.write(table, study, parameters, place)
        for name in (".tmp123.part", ".half.csv", "half.csv.part"):
            (place / "tiny" / name).write_text("kind,gam")
        assert len(runner.missing(study, place)) == N_RUNS - 1
        assert studies.load("tiny", results=place)["x"].tolist() == [1.5]

    @pytest.mark.parametrize("hours", [0, 2])
    def test_what_a_killed_process_left_is_cleared_away(self, study, place, monkeypatch, hours):
        """Not what another process may be writing just now, nor a result, nor what is nobody's."""
        from divergence_notes.studies import runner

        monkeypatch.setattr(runner, "missing", lambda *_: [])
        names = [".tmp123.part", ".half.csv", "half.csv.part", "kind=a.csv"]
        (place / "tiny").mkdir()
        for name in names:
            (place / "tiny" / name).write_text("kind,gam")
            then = time.time() - 3600 * hours
            os.utime(place / "tiny" / name, (then, then))
        assert runner.run(study, results=place) == {}
        assert sorted(path.name for path in (place / "tiny").iterdir()) == sorted(names[1:] if hours else names)

    @pytest.mark.parametrize("moment", ["to_csv", "fsync", "replace"])
    def test_a_fault_while_writing_leaves_nothing(self, study, parameters, place, monkeypatch, moment):
        """The disk is full in the middle of the text, at the flush, at the renaming."""
        from divergence_notes.studies import runner

        def fault(*arguments, **_):
            if moment == "to_csv":
                arguments[1].write(b"kind,gam")
            raise OSError("no space left")

        monkeypatch.setattr(pd.DataFrame if moment == "to_csv" else os, moment, fault)
        with pytest.raises(OSError, match="no space left"):
            runner.write(pd.DataFrame({"x": [1.5]}), study, parameters, place)
        assert list((place / "tiny").iterdir()) == []

    def test_the_final_name_appears_with_the_whole_text(self, study, parameters, place, monkeypatch):
        from divergence_notes.studies import runner

        seen, replace = [], os.replace

        def spy(source, target):
            seen.append((Path(source).read_text(), Path(target).exists(), Path(source).parent == Path(target).parent))
            replace(source, target)

        monkeypatch.setattr(os, "replace", spy)
        runner.write(pd.DataFrame({"x": [1.5, 2.5]}), study, parameters, place)
        text = "kind,gamma,seed,x\na/b,0.30000000000000004,0,1.5\na/b,0.30000000000000004,0,2.5\n"
        assert seen == [(text, False, True)]
        assert runner.result_path(study, parameters, place).read_text() == text

    def test_every_bit_returns(self, study, parameters, place, rng):
        from divergence_notes import studies
        from divergence_notes.studies import runner

        x = np.concatenate([rng.standard_normal(1000) * 10.0 ** rng.integers(-300, 300, 1000), [np.inf, -np.inf]])
        runner.write(pd.DataFrame({"x": x, "word": "NA"}), study, parameters, place)
        found = studies.load("tiny", results=place)
        np.testing.assert_array_equal(found["x"], x)
        assert set(found["word"]) == {"NA"}

    def test_fewer_digits_where_the_study_says_so(self, study, parameters, place, monkeypatch):
        from divergence_notes import studies
        from divergence_notes.studies import runner

        monkeypatch.setattr(study, "FLOAT_FORMAT", "%.3g", raising=False)
        runner.write(pd.DataFrame({"x": [1 / 3]}), study, parameters, place)
        found = studies.load("tiny", results=place)
        assert found["x"].tolist() == [0.333]
        assert found["gamma"].tolist() == [0.1 + 0.2], "a parameter keeps its digits"

    @pytest.mark.parametrize("table", [None, pd.DataFrame(), pd.DataFrame({"x": []})])
    def test_a_run_without_rows_is_a_failure(self, study, parameters, place, table):
        from divergence_notes.studies import runner

        with pytest.raises(ValueError, match="run must return a DataFrame with rows"):
            runner.write(table, study, parameters, place)
        assert len(runner.missing(study, place)) == N_RUNS

    def test_ten_comes_after_nine(self, study, place, monkeypatch):
        from divergence_notes import studies
        from divergence_notes.studies import runner

        monkeypatch.setitem(study.PARAMETERS, "seed", (9, 10))
        for parameters in runner.grid(study):
            runner.write(pd.DataFrame({"x": [1]}), study, parameters, place)
        assert studies.load("tiny", results=place)["seed"].tolist() == [9, 10, 9, 10]

    def test_a_run_outside_the_grid_is_named(self, study, place, monkeypatch):
        from divergence_notes.studies import runner

        runner.write(pd.DataFrame({"x": [1]}), study, {"kind": "a", "gamma": 0.5, "seed": 7}, place / "results")
        said = cli(place, "status").stdout
        assert "mine.tiny: 0 of 10 runs are finished\n10 missing: about 15 min on one core" in said
        assert said.endswith("outside the grid, but read: kind=a,gamma=0.5,seed=7.csv\n")

    def test_unknown_results(self, place):
        from divergence_notes import studies

        with pytest.raises(ValueError, match=r"name must be a study with finished runs: there is none in .*, got 'x'"):
            studies.load("x", results=place)
        with pytest.raises(ValueError, match=r"finished runs: .*kernels.*, got 'x'"):
            studies.load("x")

    def test_a_parameter_must_be_text_or_a_number(self, study, monkeypatch):
        from divergence_notes.studies import runner

        monkeypatch.setitem(study.PARAMETERS, "seed", ((1, 2),))
        why = "PARAMETERS['seed'] must hold text and plain numbers, got (1, 2)"
        with pytest.raises(ValueError, match=re.escape(why)):
            runner.find("mine.tiny")


class TestCommandLine:
    """What it says, and what it makes of mistakes."""

    def test_list(self):
        line = [sys.executable, "-m", "divergence_notes.studies", "list"]
        said = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert said.startswith("kernels: How far") or "\nkernels: How far" in said
        assert "runner" not in said

    @pytest.mark.parametrize(
        "name, why",
        [
            ("nothing", "name must be one that `list` knows, or a module, got 'nothing'"),
            ("runner", "divergence_notes.studies.runner has no PARAMETERS"),
            ("mine.nothing", "got 'mine.nothing'"),
        ],
    )
    def test_no_study(self, place, name, why):
        done = cli(place, "run", name=name)
        assert done.returncode == 2
        assert why in done.stderr
        assert "Traceback" not in done.stderr

    def test_what_a_study_cannot_import_is_said(self, place):
        (place / "mine" / "broken.py").write_text("import nowhere_to_be_found")
        assert "No module named 'nowhere_to_be_found'" in cli(place, "status", name="mine.broken").stderr

    @pytest.mark.parametrize("rest", [["--workers", "0"], ["--workers", "2", "--scheduler", "tcp://127.0.0.1:1"]])
    def test_no_sense(self, place, rest):
        assert cli(place, "run", *rest).returncode == 2

    def test_no_cluster(self, place, monkeypatch):
        monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "1s")
        done = cli(place, "run", "--scheduler", "tcp://127.0.0.1:1")
        assert done.returncode == 1
        assert done.stderr.startswith("no cluster: ")
        assert "Traceback" not in done.stderr


def test_reading_needs_only_pandas():
    """The pages read results without torch, dask or gymnasium."""
    heavy = {"torch", "dask", "distributed", "gymnasium", "stable_baselines3", "mujoco", "tqdm", "matplotlib"}
    code = f"""if True:
        import sys
        from divergence_notes import studies
        studies.load("kernels")
        print(*sorted({heavy} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_worker_computes_on_one_thread(tmp_path, monkeypatch):
    import torch

    from divergence_notes.studies import runner

    (tmp_path / "threads.py").write_text(
        "import pandas as pd, torch\ndef run(): return pd.DataFrame({'n': [torch.get_num_threads()]})"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        table, seconds = runner.perform("threads", {}, str(tmp_path / "none"))
        assert table["n"].tolist() == [1] and seconds >= 0
    finally:
        torch.set_num_threads(before)
        sys.modules.pop("threads", None)
