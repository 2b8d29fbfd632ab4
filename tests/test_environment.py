"""The environment, its lock, the import contracts, the linter, the shape hook, and the version."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import build_book
import jaxtyping
import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "requirements.txt").read_text(encoding="utf-8")


def tool(name, *arguments):
    """Run a tool of the environment in the root of the project."""
    command = [Path(sys.executable).with_name(name), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def pins(lock):
    """Return {name: version}; raise ValueError at a line that means something on one machine only."""
    found = {}
    for line in lock.splitlines():
        line = line.split("#")[0].strip()
        if not line:
            continue
        pin = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.]*)(?:\s*;.*)?", line)
        if not pin:
            raise ValueError(f"requirements.txt must hold name==version, got {line!r}")
        found[canonicalize_name(pin[1])] = Version(pin[2])
    return found


def direct():
    """Return what pyproject.toml asks for, extras included."""
    lines = sum(PROJECT["optional-dependencies"].values(), PROJECT["dependencies"])
    asked = [Requirement(line) for line in lines]
    return [requirement for requirement in asked if requirement.name != PROJECT["name"]]


class TestLock:
    """requirements.txt says the same on every machine, and satisfies pyproject.toml."""

    def test_is_exact(self):
        assert pins(LOCK)["torch"] == Version("2.13.0")

    @pytest.mark.parametrize(
        "line",
        [
            "torch==2.13.0+cpu",
            "torch @ file:///wheels/torch-2.13.0-cp311-cp311-linux_x86_64.whl",
            "--find-links /wheels",
            "-e .",
            "numpy>=2",
            "numpy==2.4.6 --hash=sha256:0",
        ],
    )
    def test_a_line_of_one_machine_is_refused(self, line):
        with pytest.raises(ValueError, match=re.escape(repr(line))):
            pins(f"{LOCK}{line}\n")

    @pytest.mark.parametrize("requirement", direct(), ids=lambda requirement: requirement.name)
    def test_satisfies_pyproject(self, requirement):
        version = pins(LOCK)[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True)

    def test_names_no_host(self):
        # npm writes addresses of a registry into its lock, unless .npmrc says not to
        assert '"resolved"' not in (ROOT / "package-lock.json").read_text(encoding="utf-8")
        assert "://" not in LOCK


def test_interrupted_installation_is_never_trusted(tmp_path):
    """Only the stamp that is written last counts, and it names the lock."""
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "environment.py", tmp_path / "tools")
    lock, stamp, rest = tmp_path / "requirements.txt", tmp_path / ".venv" / "made-from", tmp_path / ".venv" / "rest"

    def make():
        return subprocess.run([sys.executable, tmp_path / "tools" / "environment.py"], capture_output=True).returncode

    lock.write_text("# nothing\n")
    assert make() == 0
    first = stamp.read_text()

    rest.touch()
    assert make() == 0
    assert rest.exists(), "a finished environment is kept"

    lock.write_text("./no-such-package\n")
    assert make() != 0
    assert not stamp.exists(), "the lock changed and the installation failed"

    lock.write_text("# nothing\n")
    rest.touch()
    assert make() == 0
    assert not rest.exists(), "what the failed installation left is thrown away"
    assert stamp.read_text() == first


def test_cache_follows_package_results_and_lock(tmp_path, monkeypatch):
    """A change in what the pages are computed from changes the hash, and nothing else does."""
    monkeypatch.setattr(build_book, "ROOT", tmp_path)
    for name in (
        "requirements.txt",
        "_toc.yml",
        "divergence_notes/bellman.py",
        "book/results/fall/run.csv",
        "README.md",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one")
    before = build_book.made_from()
    (tmp_path / "README.md").write_text("two")
    assert build_book.made_from() == before
    for name in ("requirements.txt", "divergence_notes/bellman.py", "book/results/fall/run.csv"):
        (tmp_path / name).write_text("two")
        after = build_book.made_from()
        assert after != before, name
        before = after


def test_site_is_made_anew_when_a_page_is_newer(tmp_path, monkeypatch):
    monkeypatch.setattr(build_book, "ROOT", tmp_path)
    monkeypatch.setattr(build_book, "SITE", tmp_path / "_build" / "html")
    built = tmp_path / "_build" / "html" / "searchindex.js"
    for path in (tmp_path / "_config.yml", tmp_path / "book" / "_static" / "book.css", tmp_path / "README.md", built):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    times = {True: built.stat().st_mtime + 1, False: built.stat().st_mtime - 1}
    for path, newer in (("README.md", False), ("_config.yml", True), ("book/_static/book.css", True)):
        for late in (True, False):
            os.utime(tmp_path / path, 2 * (times[late],))
            assert build_book.outdated() == (late and newer), path
    built.unlink()
    assert not build_book.outdated(), "there is no site"


def test_ruff():
    done = tool("ruff", "check", "--quiet", ".")
    assert done.returncode == 0, done.stdout
    done = tool("ruff", "format", "--check", "--quiet", "divergence_notes", "tests", "tools")
    assert done.returncode == 0, done.stdout + done.stderr


def test_import_contracts():
    done = tool("lint-imports")
    assert done.returncode == 0, done.stdout


def test_the_package_alone_imports_nothing_heavy():
    heavy = {"torch", "matplotlib", "ipywidgets", "gymnasium"}
    code = f"import sys, divergence_notes; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_test_is_a_shape_test(monkeypatch):
    """The package is imported under the hook: an array of the wrong shape inside it raises."""
    from divergence_notes import _checks, updates

    monkeypatch.setattr(_checks, "scalar", lambda *_, **__: np.ones((2, 1)))  # makes the result (2, n)
    with pytest.raises(jaxtyping.TypeCheckError):
        updates.predicted_change(np.eye(2), [0.5, 0.5], [1.0, 0.0], alpha=0.1)


def test_one_version():
    import divergence_notes

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert PROJECT["version"] == divergence_notes.__version__ == citation["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("[", "").replace(
        "]", ""
    )
