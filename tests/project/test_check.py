"""What `make check` runs: the nearest tests of a change, until the minute is over; a fault makes it fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import check
import pytest

from tests.pages import ROOT
from tests.waiting import PATIENCE

FILES = {
    "divergence_notes/low.py": "import numpy",
    "divergence_notes/high.py": "from divergence_notes import low",
    "divergence_notes/far.py": "def f():\n    from divergence_notes.high import g",
    "tools/make.py": "import re",
    "tests/helper.py": "from divergence_notes import far",
    "tests/test_low.py": "from divergence_notes import low",
    "tests/test_low_more.py": "1",
    "tests/test_lower.py": "1",
    "tests/test_high.py": "1",
    "tests/test_far.py": "from tests import helper",
    "tests/notebooks/test_claims_low.py": "1",
    "tests/project/test_other.py": "import make\nfrom divergence_notes.low import f",
    "tests/site/test_lock.py": "read('the.lock')",
}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            "divergence_notes/low.py",
            ["test_low", "test_low_more", "test_claims_low", "test_other", "test_high"],
        ),
        ("divergence_notes/high.py", ["test_high", "test_far"]),
        ("tests/helper.py", ["test_far"]),
        ("tests/test_lower.py", ["test_lower"]),
        ("tools/make.py", ["test_other"]),
        ("the.lock", ["test_lock"]),
        ("book/low.ipynb", ["test_low", "test_low_more", "test_claims_low"]),
        ("LICENSE", []),
    ],
)
def test_the_nearest_come_first(change, found):
    assert [Path(path).stem for path in check.nearest([change], FILES)] == found


def test_every_module_has_tests_that_are_near():
    files = check.sources()
    modules = [path for path in files if path.startswith("divergence_notes/") and not path.endswith("__init__.py")]
    assert [path for path in modules if not check.nearest([path], files)] == []
    for name in ("_checks", "_rounding", "_rowwise"):
        assert next(iter(check.nearest([f"divergence_notes/{name}.py"], files))) == f"tests/test{name}.py"


def test_the_tabular_half_asks_for_no_torch():
    found = check.tabular(check.sources())
    assert {"tests/test_bellman.py", "tests/test_updates.py", "tests/test_mdp.py"} < set(found)
    assert not {"tests/test_ntk.py", "tests/test_preqn.py"} & set(found)


@pytest.fixture
def copy(tmp_path):
    """Return a small copy of the project under git: what a change in `bellman` asks for."""
    place = tmp_path / "copy"
    ignored = shutil.ignore_patterns("__pycache__", "notebooks", "coursework", "project", "site", "results")
    for name in ("divergence_notes", "tests", "tools"):
        shutil.copytree(ROOT / name, place / name, ignore=ignored)
    for name in ("pyproject.toml", "requirements.txt", "requirements-test.txt", "_toc.yml"):
        shutil.copy(ROOT / name, place)
    for path in (place / "tests").glob("test_*.py"):
        if path.name != "test_bellman.py":
            path.unlink()
    (place / "coursework").mkdir()
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "all"]):
        subprocess.run([*git, *words], cwd=place, check=True)
    return place


def checked(place):
    """Run the command there; return what it says and its status."""
    env = os.environ | {"PYTHONPATH": str(place)}
    command = [sys.executable, "tools/check.py", f"--seconds={PATIENCE}"]
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True)
    return done.stdout + done.stderr, done.returncode


def test_a_fault_in_a_module_is_found(copy):
    """Planted: the smallest value of a state is taken for the largest."""
    said, status = checked(copy)
    assert status == 0 and "These differ: nothing" in said, said
    path = copy / "divergence_notes" / "bellman.py"
    text = path.read_text(encoding="utf-8")
    assert ".max(axis=0)" in text
    path.write_text(text.replace(".max(axis=0)", ".min(axis=0)"), encoding="utf-8")
    said, status = checked(copy)
    assert status == 1 and "These differ: divergence_notes/bellman.py" in said
    assert "FAILED tests/test_bellman.py" in said


def test_a_fault_of_layout_is_found_without_a_test(copy):
    (copy / "tools" / "new.py").write_text("import os\n", encoding="utf-8")
    said, status = checked(copy)
    assert status == 1 and "F401" in said


@pytest.mark.parametrize(("seconds", "said", "good"), [(0, "0 of 3", False), (PATIENCE, "1 of 3", True)])
def test_the_minute_ends(tmp_path, seconds, said, good):
    """What is running is stopped, what is left is counted, and that nothing ran is no success.

    The second test takes the hand of the clock forward by itself.
    """
    over = "os.kill(os.getpid(), signal.SIGALRM)"
    slow = f"import os, signal, time\ndef test_a(): pass\ndef test_b():\n    {over}\ndef test_c(): pass\n"
    (tmp_path / "test_slow.py").write_text(slow, encoding="utf-8")
    code = f"import sys, time, check; sys.exit(not check.tests(sys.argv[1:], time.time() + {seconds}))"
    code = code.replace("check; ", "check; check.FEW[:] = []; ")
    env = os.environ | {"PYTHONPATH": str(ROOT / "tools")}
    command = [sys.executable, "-c", code, "-c", "/dev/null", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.returncode == 0) == good and f"{said} tests, the nearest" in done.stdout, done.stdout
