"""The environment, its lock, the import contracts, the linter, the shape hook, and the version."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import environment
import jaxtyping
import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests import lean
from tests.pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BOOK, TEST = ((ROOT / name).read_text(encoding="utf-8") for name in environment.LISTS)
LOCK = BOOK + TEST


RANGE = SpecifierSet(PROJECT["requires-python"])
# Pythons of this machine that will not do, where pyenv has some.
OTHERS = [
    path
    for path in sorted(Path.home().glob(".pyenv/versions/*/bin/python"))
    if not RANGE.contains(path.parent.parent.name)
]


def names():
    """Return the Pythons that will do, as a page says them."""
    found = environment.supported()
    return f"{', '.join(found[:-1])} or {found[-1]}"


def installed():
    """Return {name: which Pythons it takes} of what is installed."""
    found = metadata.distributions()
    return {canonicalize_name(one.name): one.metadata.get("Requires-Python") for one in found}


def refused(lock, version):
    """Return which packages do not take a Python."""
    return [name for name, takes in lock.items() if takes and not SpecifierSet(takes).contains(version)]


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


CUDA = re.compile(r"(cuda|nvidia)-|triton$")
"""What PyTorch's build with CUDA asks for, where pip has brought that one."""


class TestLock:
    """The two lists say the same on every machine, and satisfy pyproject.toml."""

    def test_is_two_lists(self):
        """What the book needs, all of it, and nothing that only a test needs."""
        assert set(pins(BOOK)) & set(pins(TEST)) == set()
        installers = {"pip", "setuptools"}
        earlier = {"overrides"} if sys.version_info >= (3, 12) else set()  # Jupyter asks for it before Python 3.12
        book, every = (
            {name for name in map(canonicalize_name, lean.closure(lean.asked([extra]))) if not CUDA.match(name)}
            for extra in ("book", "test")
        )
        assert book - installers == set(pins(BOOK)) - earlier
        rest = every - installers - book
        assert {"pytest", "ruff", "playwright", "nbgrader"} < rest == set(pins(TEST))

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


class TestPythons:
    """requires-python is the one place that says which Pythons will do; everything else follows, or agrees."""

    @pytest.mark.parametrize("version", ["3.11.0", "3.11.2", "3.12.0", "3.13.0", "3.13.99"])
    def test_every_pin_takes_them_all(self, version):
        """A package that wants a later Python would stop the first command there."""
        assert RANGE.contains(version)
        assert refused(installed(), version) == []

    def test_a_pin_that_does_not_is_found(self):
        """soupsieve 4.1.2 stopped Debian 12, whose Python is 3.11.2."""
        lock = installed() | {"soupsieve": ">=3.11.5", "of no matter": None}
        assert [refused(lock, version) for version in ("3.11.4", "3.11.5")] == [["soupsieve"], []]

    def test_the_lock_is_what_was_looked_at(self):
        missing = set(pins(LOCK)) - set(installed())
        assert missing == set(), "make the environment anew: make env"

    @pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "book/students.md"])
    def test_pages_name_them(self, page):
        words = (ROOT / page).read_text(encoding="utf-8").split()
        assert f"Python {names()}" in " ".join(words)

    def test_binder_has_one_of_them(self):
        python = (ROOT / "binder" / "runtime.txt").read_text(encoding="utf-8").strip()
        assert python.removeprefix("python-") in environment.supported()

    def test_the_first_command_reads_the_same(self):
        minors = [f"3.{minor}" for minor in range(6, 20)]
        assert environment.supported() == [minor for minor in minors if RANGE.contains(f"{minor}.0")]

    @pytest.mark.parametrize("version", [(2, 7), (3, 10), (3, 14)])
    def test_another_is_refused_in_one_sentence(self, monkeypatch, version):
        monkeypatch.setattr(environment, "PYTHON", "{}.{}".format(*version))
        with pytest.raises(SystemExit) as refusal:
            environment.main()
        python = sys.executable
        assert str(refusal.value) == (
            f"This needs Python {names()}, and {python} is Python {version[0]}.{version[1]}. "
            "Try: make book PYTHON=python3.12"
        )

    def test_a_python_without_venv_is_told_where_it_is(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "ensurepip", None)
        with pytest.raises(SystemExit, match=re.escape("has no venv. On Debian and Ubuntu it comes with: apt install")):
            environment.main()

    @pytest.mark.parametrize("version", [(3, 4), (3, 6), (3, 10)])
    def test_old_ones_can_read_it(self, version):
        """Without a look at the grammar, the oldest would end in a traceback."""
        source = (ROOT / "tools" / "environment.py").read_text(encoding="utf-8")
        tree = ast.parse(source, feature_version=version)
        newer = (ast.JoinedStr, ast.NamedExpr, ast.AnnAssign, ast.Starred)
        starred = [node for node in ast.walk(tree) if isinstance(node, ast.Call) for node in node.args]
        assert [n for n in ast.walk(tree) if isinstance(n, newer) and n not in starred] == []

    @pytest.mark.parametrize("python", OTHERS, ids=lambda path: path.parent.parent.name)
    def test_those_at_hand_say_so(self, python):
        done = subprocess.run([python, ROOT / "tools" / "environment.py"], capture_output=True, text=True)
        assert done.stderr.startswith(f"This needs Python {names()}, and ") and done.stderr.count("\n") == 1


def test_interrupted_installation_is_never_trusted(tmp_path):
    """Only the stamp that is written last counts, and it names the lock."""
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "environment.py", tmp_path / "tools")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    lock, stamp, rest = tmp_path / "requirements.txt", tmp_path / ".venv" / "made-from", tmp_path / ".venv" / "rest"

    def make():
        done = subprocess.run([sys.executable, tmp_path / "tools" / "environment.py"], capture_output=True, text=True)
        assert "Traceback" not in done.stderr
        return done.returncode

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


@pytest.mark.parametrize("name", [".venv", ".venv-bench"])
@pytest.mark.parametrize("as_link", [False, True])
def test_an_environment_is_no_part_of_the_project(tmp_path, name, as_link):
    """One that is a link is not either: where it is committed, a merge deletes the one that lies there."""
    shutil.copy(ROOT / ".gitignore", tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "made-from").touch()
    if as_link:
        (tmp_path / name).symlink_to(tmp_path / "there")
    else:
        (tmp_path / "there").rename(tmp_path / name)
    for words in [["init", "--quiet"], ["add", "--all"]]:
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    kept = subprocess.check_output(["git", "ls-files"], cwd=tmp_path, text=True).split()
    assert kept == [".gitignore"] + ["there/made-from"] * as_link


def test_ruff():
    done = tool("ruff", "check", "--quiet", ".")
    assert done.returncode == 0, done.stdout
    done = tool("ruff", "format", "--check", "--quiet", "divergence_notes", "tests", "tools", "coursework")
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
