"""What takes long to import is imported where it is used: whoever wants a number does not wait for what draws it."""

import ast
import subprocess
import sys

import pytest

from tests import pages

SOURCES = sorted((pages.ROOT / "divergence_notes").rglob("*.py"))
SLOW = ("pandas", "scipy.stats", "scipy.spatial", "scipy.sparse.linalg", "scipy.sparse.csgraph", "scipy.ndimage")
LIGHT = ("mdp", "dynamics", "bellman", "features", "updates", "contraction", "norms", "examples", "verdicts")
LIGHT += ("diagnostics", "grading", "studies")


def slow(source):
    """Return which slow modules a source imports when it is imported itself; under TYPE_CHECKING it does not."""
    found, waiting = set(), list(ast.parse(source).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
        else:
            names = set()
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                waiting += node.orelse
            elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                waiting += ast.iter_child_nodes(node)
        found |= {each for each in SLOW for name in names if f"{name}.".startswith(f"{each}.")}
    return found


def test_no_module_imports_them_at_its_top():
    found = {path.name: slow(path.read_text(encoding="utf-8")) for path in SOURCES}
    pages.none([(name, *modules) for name, modules in found.items() if modules], "imported before they are needed")


@pytest.mark.parametrize(
    "source",
    [
        "import pandas as pd",
        "from pandas import DataFrame",
        "from scipy import stats",
        "import scipy.stats",
        "from scipy.spatial.distance import cdist",
        "try:\n    from scipy.sparse.linalg import spsolve\nexcept ImportError:\n    pass",
        "class A:\n    import pandas",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import pandas",
    ],
)
def test_it_would_be_seen(source):
    assert slow(source)
    indented = source.replace("\n", "\n    ")
    assert not slow(f"def f():\n    {indented}") and not slow("if TYPE_CHECKING:\n    import pandas")


@pytest.mark.parametrize("name", LIGHT)
def test_they_are_not_there_after_the_import(name):
    """Nor is any other part of scipy: in a fresh process, whoever else it was that imported it."""
    code = f"import sys, divergence_notes.{name}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=pages.ROOT, capture_output=True, text=True, check=True)
    there = {module.partition(".")[0] for module in done.stdout.split()}
    assert "numpy" in there or name == "studies"
    assert not {"pandas", "scipy", "matplotlib", "torch", "gymnasium"} & there


def test_small_processes_need_no_scipy():
    """What a small process is asked is answered by numpy alone, and by a scipy that fails as well as by a good one."""
    code = """
import sys
sys.modules["scipy"] = None  # whoever imports it fails
import numpy as np
from divergence_notes import bellman, diagnostics
from divergence_notes.mdp import from_transitions, random_mdp, reachable, stationary_distribution

mdp = random_mdp(20, 3, gamma=0.9, branching=4, rng=np.random.default_rng(0))
policy = np.zeros(20, dtype=int)
best = bellman.policy_iteration(mdp)
assert best.status == bellman.value_iteration(mdp, tol=1e-8).status == "converged"
mdp.state_transitions(policy), mdp.pair_transitions(policy), bellman.policy_value(mdp, policy)
assert np.isclose(stationary_distribution(mdp, policy).sum(), 1) and reachable(mdp, 0).any()
counted, _ = from_transitions([(0, 0, 1.0, 0, True)], n_states=1, n_actions=1, gamma=0.5)
assert bellman.policy_iteration(counted).Q == 1 and diagnostics.row_ratio(np.eye(2)).sum() == 0
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=pages.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_exercise_needs_numpy_alone():
    """Of what a page may load to judge, nothing but numpy: right answers pass where no other package is there."""
    code = """
import sys
for name in ("scipy", "pandas", "matplotlib", "ipywidgets", "gymnasium", "torch"):
    sys.modules[name] = None  # whoever imports it fails
import divergence_notes.grading as grading

for name, exercise in grading.exercises().items():
    right = exercise.right
    if not isinstance(exercise, (grading.Function, grading.FindTheBug)) and callable(right):
        right = right(*exercise.sample()[0])
    result = grading.check(name, right)
    assert result.passed or isinstance(exercise, grading.FindTheBug), result
    for mistake in exercise.mistakes:  # of some kinds it is no answer; then the check says so
        assert not grading.check(name, mistake.wrong).passed, (name, mistake.name)
print(len(grading.exercises()))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=pages.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30
