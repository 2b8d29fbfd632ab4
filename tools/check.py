"""Check what differs from the last commit, in less than a minute: linter, import contracts, and the nearest tests.

    check.py [--seconds N]          in the environment of the book
    check.py PYTHON                 what runs without torch, with another Python, in an environment of its own

The nearest tests: the files of tests that were changed, those named after a changed file, those that import it, and
those of the modules that import it, in this order, with few random instances. What the minute leaves is said at the
end, and so is what asks for the built site: `make test` runs all.
"""

import argparse
import ast
import functools
import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SECONDS = 50
"""Then the test that is running is stopped, and the rest is left."""
FEW = ["-q", "-p", "no:cacheprovider", "--hypothesis-profile=few", "-m", "not nightly and not site"]
BUILT = re.compile(r"\bSITE\b|\bpage_checks\b|\bbrowser\b|import course\b")
"""What a file of tests holds that needs the built site, a browser or a built course: it is not for this minute."""
SOURCES = ("divergence_notes", "tools", "coursework", "tests", "benchmarks")
TABULAR = "The tabular half runs without torch"
"""The contract that says which modules run without torch."""
EXTRAS = ("envs", "widgets")
BESIDE = ["beartype", "hypothesis", "nbformat", "pytest", "pyyaml", "threadpoolctl"]
"""What the tests of these modules need beside the package with these extras."""
ABSENT = {"torch", "stable_baselines3", "mujoco", "playwright"}


def git(*words):
    """Return the lines that git says."""
    return subprocess.check_output(["git", *words], cwd=ROOT, text=True).splitlines()


def changed():
    """Return the files that differ from the last commit, new ones too."""
    return sorted({*git("diff", "--name-only", "HEAD"), *git("ls-files", "--others", "--exclude-standard")})


def sources():
    """Return every Python file of the project: {path: text}."""
    paths = [path for folder in SOURCES for path in sorted((ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def names_of(path):
    """Return what a file of the project is called where it is imported; tools and coursework are on the path."""
    parts = Path(path).with_suffix("").parts
    dotted = {".".join(parts), ".".join(parts[1:])} if parts[0] in ("tools", "coursework") else {".".join(parts)}
    return {name.removesuffix(".__init__") for name in dotted}


@functools.cache
def imports(text):
    """Return the dotted names that a file imports, within functions too."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def is_test(path):
    """Say whether a file holds tests."""
    return path.startswith("tests/") and Path(path).name.startswith("test_")


def named_after(stem, files):
    """Return the files of tests named after a module or a folder."""
    return [path for path in files if re.fullmatch(rf"test_{stem.lstrip('_')}(_\w+)?", Path(path).stem)]


def nearest(changes, files):
    """Return the files of tests that belong to changes, nearest first: {path: how far it is}.

    Parameters
    ----------
    changes : iterable of str
        Paths below the root, as git says them.
    files : dict of str
        The text of every Python file of the project, by its path.
    """
    asked = {path: imports(text) for path, text in files.items()}
    rank = {}

    def put(paths, distance):
        for path in paths:
            if path in files and is_test(path):
                rank[path] = min(distance, rank.get(path, distance))

    for change in changes:
        stem, folder = Path(change).stem, Path(change).parent.name
        put([change], 0)
        put(named_after(stem, files), 1)
        put(named_after(folder, files), 3)
        put([path for path in files if re.fullmatch(rf"test_(questions|claims)_{stem}", Path(path).stem)], 2)
        put([path for path, text in files.items() if Path(change).name in text], 2)
        if change.startswith("book/"):
            put([path for path in files if path.startswith("tests/notebooks/")], 3)
        if change.endswith(".py"):
            users = {path for path in files if asked[path] & names_of(change)}
            put(users, 2)
            for user in users - {path for path in users if is_test(path)}:
                put(named_after(Path(user).stem, files), 3)
                put([path for path in files if asked[path] & names_of(user)], 4)
    return {path: rank[path] for path in sorted(rank, key=lambda path: (rank[path], path))}


class Minute:
    """A plugin of pytest: the tests run in the order of their files until the time is over."""

    def __init__(self, end):
        self.end, self.failed, self.ran, self.all, self.over = end, 0, 0, 0, False

    def stop(self, *_):
        import pytest

        self.over = True
        pytest.exit("the minute is over")

    def pytest_collection_finish(self, session):
        self.all = len(session.items)
        signal.signal(signal.SIGALRM, self.stop)
        if (left := self.end - time.time()) <= 0:
            self.stop()
        signal.setitimer(signal.ITIMER_REAL, left)

    def pytest_runtest_logreport(self, report):
        self.failed += report.failed
        self.ran += report.when == "teardown"

    def pytest_sessionfinish(self, session):
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self.over:
            session.exitstatus = int(self.failed > 0 or not self.ran)

    def pytest_terminal_summary(self, terminalreporter):
        if self.over:
            terminalreporter.write_line(f"{self.ran} of {self.all} tests, the nearest, ran in this minute; make test")


def pytest_configure(config):
    """Let pytest, which is told to load this file as a plugin, stop in time."""
    config.pluginmanager.register(Minute(float(os.environ["CHECK_UNTIL"])))


def tests(paths, end):
    """Run the tests of these files, in this order, until the time `end`; return whether all passed, and some ran."""
    here = str(Path(__file__).resolve().parent)
    env = os.environ | {
        "CHECK_UNTIL": str(end),
        "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "pytest", "-p", "check", *FEW, "--maxfail=10", *paths]
    return subprocess.run(command, cwd=ROOT, env=env).returncode in (0, 5)  # 5: there is none to run


def tabular(files):
    """Return the files of tests of the modules that run without torch, as far as they ask for none themselves."""
    (contract,) = [one for one in PROJECT["tool"]["importlinter"]["contracts"] if one["name"] == TABULAR]
    modules = {module.rpartition(".")[2].strip("_") for module in contract["source_modules"]}
    asked = {path: imports(text) for path, text in files.items()}

    def light(path):
        """Say whether neither a file nor the helpers of tests that it imports ask for what is absent."""
        helpers = [p for p in files if p.startswith("tests/") and p != path and asked[path] & names_of(p)]
        return not {name.split(".")[0] for name in asked[path]} & ABSENT and all(map(light, helpers))

    named = [path for path in files if is_test(path) and Path(path).parent == Path("tests")]
    own = [path for path in named if any(re.match(rf"test_{module}(_|\.)", Path(path).name) for module in modules)]
    return [path for path in own if light(path)]


def version(python):
    """Return which Python this is, as "3.12"."""
    code = "import sys; print('{}.{}'.format(*sys.version_info))"
    return subprocess.check_output([python, "-c", code], text=True).strip()


def asked_for(extras):
    """Return the lines of pyproject.toml for the package with these extras, its own extras opened."""
    lines = list(PROJECT["project"]["dependencies"])
    for extra in extras:
        for line in PROJECT["project"]["optional-dependencies"][extra]:
            inner = re.fullmatch(r"divergence-notes\[(.+)\]", line)
            lines += asked_for(inner[1].split(",")) if inner else [line]
    return lines


def with_another(python, files):
    """Test with another Python what runs without torch; make its environment where there is none. Return the status."""
    place = f".venv-{version(python)}"
    locks = [ROOT / "requirements.txt", ROOT / "requirements-test.txt"]
    lines = [f"# of a lock {hashlib.sha256(b''.join(lock.read_bytes() for lock in locks)).hexdigest()}"]
    lines += [f"--constraint {lock}" for lock in locks]
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as wanted:
        wanted.write("\n".join([*lines, *sorted({*asked_for(EXTRAS), *BESIDE})]) + "\n")
        wanted.flush()
        made = subprocess.run([python, ROOT / "tools" / "environment.py", place, wanted.name], cwd=ROOT)
    if made.returncode:
        return made.returncode
    paths = tabular(files)
    print(f"Python {version(python)}, {len(paths)} files of tests", flush=True)
    options = " ".join(o for o in PROJECT["tool"]["pytest"]["ini_options"]["addopts"] if "nbval" not in o)
    options = options.replace("-m not nightly", "")
    command = [ROOT / place / "bin" / "python", "-m", "pytest", *FEW, "-o", f"addopts={options}"]
    return subprocess.run([*command, *paths], cwd=ROOT).returncode


def main():
    """Check what differs, or with another Python what runs without torch; return 1 at a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("python", nargs="?", metavar="PYTHON")
    options = parser.parse_args()
    end = time.time() + options.seconds
    files = sources()
    if options.python and version(options.python) != version(sys.executable):
        return with_another(options.python, files)
    changes = changed()
    print("These differ:", *changes or ["nothing"], flush=True)
    here = Path(sys.executable).parent
    ruff, folders = [here / "ruff", "--quiet"], ["divergence_notes", "tests", "tools", "coursework"]
    tools = [[*ruff, "check", "."], [*ruff, "format", "--check", *folders], [here / "lint-imports"]]
    pipes = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    running = [subprocess.Popen(command, **pipes) for command in tools]
    near = nearest(changes, files)
    far = [path for path in near if BUILT.search(files[path])]
    good = True
    for ring in ((0, 1), (2,), (3, 4)):  # what is nearer runs before anything else is even read
        paths = [path for path in near if path not in far and near[path] in ring]
        if good and paths and time.time() < end:
            good = tests(paths, end)
    for tool in running:
        said, _ = tool.communicate()
        if tool.returncode:
            print(said)
            good = False
    if far:
        print("These need the built site, a browser or a course, and wait for make test:", *far, sep="\n  ")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
