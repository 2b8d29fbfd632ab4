"""The tabular half without torch: chapters 1 and 4 run where torch, MuJoCo, stable-baselines3 and Dask are not."""

import ast
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest

from tests import lean
from tests.pages import BOOK, ROOT

EXTRAS = ("envs", "widgets")  # what a reader of these chapters installs
HEAVY = ("torch", "mujoco", "stable_baselines3", "dask", "distributed")


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Return the Python of an environment with these extras, a kernel, and the package."""
    place = tmp_path_factory.mktemp("lean") / "env"
    return lean.build(place, [*lean.asked(EXTRAS), lean.KERNEL], paths=[ROOT])


def imported(path):
    """Return the modules of the package that the cells of a notebook import."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    nodes = [node for source in cells for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    parts = [
        f"{node.module}.{alias.name}" if node.module == "divergence_notes" else node.module
        for node in nodes
        for alias in node.names
        if node.module.startswith("divergence_notes")
    ]
    assert parts
    return sorted(set(parts))


def imports(python, name, cwd):
    """Import a module with this Python; return what it says of an error."""
    done = subprocess.run([python, "-I", "-c", f"import {name}"], cwd=cwd, capture_output=True, text=True)
    return done.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize("name", HEAVY)
def test_heavy_packages_are_not_there(python, tmp_path, name):
    assert imports(python, name, tmp_path) == f"ModuleNotFoundError: No module named '{name}'"


def test_what_is_there_is_whole(python, tmp_path):
    """The links lead to all of a package, and the environment imports from itself."""
    for name in (
        "numpy",
        "pandas",
        "scipy.optimize",
        "gymnasium",
        "matplotlib.pyplot",
        "ipywidgets",
        *imported(BOOK / "bellman.ipynb"),
        *imported(BOOK / "contraction.ipynb"),
    ):
        assert imports(python, name, tmp_path) == "", name
    code = "import numpy, sys; assert numpy.__file__.startswith(sys.prefix), numpy.__file__"
    assert subprocess.run([python, "-I", "-c", code], cwd=tmp_path).returncode == 0


def test_an_environment_that_holds_torch_is_told_apart():
    """The fault that the first test looks for: an extra that brings torch along."""
    assert "torch" in lean.closure(lean.asked(["neural"]))
    assert "torch" in lean.closure(lean.asked(["monitor"])), "the extras of the project are opened"
    assert not {"torch", "mujoco", "stable-baselines3", "dask"} & set(lean.closure(lean.asked(EXTRAS)))


@pytest.mark.parametrize("name", ["bellman", pytest.param("contraction", marks=pytest.mark.nightly)])
def test_light_chapter_runs(python, tmp_path, name):
    path = Path(shutil.copy(BOOK / f"{name}.ipynb", tmp_path))
    assert lean.execute(path, python) == ""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert [output.text for cell in cells for output in cell.outputs if output.get("name") == "stderr"] == []


def test_chapter_with_networks_does_not_run(python, tmp_path):
    """The other side: it says at once what is missing."""
    path = Path(shutil.copy(BOOK / "key_equation.ipynb", tmp_path))
    assert lean.execute(path, python).endswith("ModuleNotFoundError: No module named 'torch'")
