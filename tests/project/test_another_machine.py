"""How the tests are run: with one thread, however they are started, and once more as on another processor."""

import os
import re
import subprocess
import sys
import tomllib

import another_machine
import nbformat
import pytest
import threadpoolctl
import torch

from tests.pages import ROOT

THREADS = """
import numpy, scipy.linalg, threadpoolctl, torch
found = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()] + [torch.get_num_threads()]
"""
ELSEWHERE = """
import numpy, scipy.linalg, threadpoolctl, torch
pools = threadpoolctl.threadpool_info()
found = [hasattr(numpy.linalg.eigh, "usual"), numpy.show_config(mode="dicts")["SIMD Extensions"].get("found", [])]
found += [torch.backends.cpu.get_cpu_capability()]
found += {pool["architecture"] for pool in pools if pool["internal_api"] == "openblas"}
"""


def plant(place, code, want):
    """Write a test and a notebook that hold if the code finds what is wanted, and a notebook that never holds."""
    lines = [*code.strip().splitlines(), f"assert found == {want}, found"]
    place.joinpath("test_planted.py").write_text("def test_planted():\n    " + "\n    ".join(lines))
    for name, last in (("planted", ""), ("wrong", "\nassert not found")):
        cell = nbformat.v4.new_code_cell("\n".join(lines) + last, id="planted")
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(metadata=kernel, cells=[cell]), place / f"{name}.ipynb")


def outcome(place, command):
    """Run the planted tests, with no number of threads said beforehand; return what passed and failed."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command = [*command, "-c", ROOT / "pyproject.toml", "-p", "no:cacheprovider", place]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    said = re.sub(r"\x1b\[[\d;]*m", "", done.stdout)
    counts = dict(reversed(pair.split()) for pair in re.findall(r"\d+ (?:passed|failed|error)", said))
    return counts, said + done.stderr


class TestOneThread:
    """numpy, scipy and torch compute with one thread each."""

    def test_here(self):
        assert {pool["num_threads"] for pool in threadpoolctl.threadpool_info()} == {1}
        assert torch.get_num_threads() == 1

    @pytest.mark.parametrize("workers", [pytest.param("0", marks=pytest.mark.nightly), "2"])
    def test_on_each_way(self, tmp_path, workers):
        """In the process of pytest, in its workers, and in the kernels of notebooks."""
        plant(tmp_path, THREADS, "[1] * len(found)")
        counts, said = outcome(tmp_path, [sys.executable, "-m", "pytest", "-n", workers])
        assert counts == {"passed": "2", "failed": "1"}, said

    @pytest.mark.skipif(os.cpu_count() == 1, reason="one core: there is one thread in any case")
    def test_else_there_were_more(self):
        environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
        said = subprocess.check_output(
            [sys.executable, "-c", THREADS + "print(max(found))"], env=environment, text=True
        )
        assert int(said) > 1


HERE = {"openblas": "Zen", "numpy": "X86_V3,X86_V4", "torch": "AVX2", "mkl": "OFF"}
THERE = {"openblas": another_machine.CORE, "numpy": "", "torch": "DEFAULT", "mkl": "COMPATIBLE"}


class TestAnotherMachine:
    """A command runs on the older path, in every process, or not at all."""

    @pytest.mark.nightly
    def test_workers_and_kernels_take_it(self, tmp_path):
        plant(tmp_path, ELSEWHERE, [True, [], "DEFAULT", another_machine.CORE])
        counts, said = outcome(tmp_path, [sys.executable, "tools/another_machine.py", "pytest", "-n", "2"])
        assert counts == {"passed": "2", "failed": "1"}, said
        assert f"-> {another_machine.CORE}" in said

    def test_what_this_numpy_does_not_know_is_not_disabled(self):
        """Another name than those it found would stop numpy, and none at all says so by an empty value."""
        assert another_machine.older({}, HERE)["NPY_DISABLE_CPU_FEATURES"] == HERE["numpy"]
        assert "NPY_DISABLE_CPU_FEATURES" not in another_machine.older({}, THERE)

    @pytest.mark.parametrize("name", THERE)
    def test_what_does_not_obey_is_named(self, name):
        assert another_machine.disobeyed(THERE) == []
        assert another_machine.disobeyed(THERE | {name: HERE[name]}) == [
            f"{name} uses {HERE[name]}, not {THERE[name] or 'nothing'}"
        ]

    def test_a_torch_without_mkl_has_no_mode(self):
        assert another_machine.disobeyed(THERE | {"mkl": "none"}) == []

    def test_a_path_that_is_no_other_runs_nothing(self, monkeypatch):
        monkeypatch.setattr(another_machine, "used", lambda environment: HERE)
        monkeypatch.setattr(another_machine.subprocess, "run", lambda *_, **__: pytest.fail("the command ran"))
        with pytest.raises(SystemExit, match="This is no other path: openblas uses Zen"):
            another_machine.main()

    def test_the_core_is_every_floor_up_to_the_kernel(self):
        """`make elsewhere` runs the tests of each module from mdp to the kernels and the norms."""
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        core = re.search(r"^CORE := (.*)$", makefile, re.M)[1].split()
        settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        floors = settings["tool"]["importlinter"]["contracts"][0]["layers"]
        below = [name.lstrip("_") for floor in floors[floors.index("norms") : -1] for name in floor.split(" | ")]
        assert {"ntk", "norms", "rowwise"} <= set(below)
        # a private module without a file of its own is tested through the modules above it
        assert sorted(core) == sorted(name for name in below if (ROOT / "tests" / f"test_{name}.py").is_file())
