"""Compile the exact locks from pyproject.toml.   lock.py [--upgrade]

requirements.txt is what the book needs, requirements-test.txt what the tests and the coursework need beside it: all is
resolved together, and each release stands in one of the two.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH = "torch==2.13.0"  # the release whose CPU build is at hand wherever the book is built
BOOK, TEST = ROOT / "requirements.txt", ROOT / "requirements-test.txt"
HEAD = "# Made by `make lock` from pyproject.toml: edit that, not this.\n"
OPTIONS = "--strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header --quiet \
    --unsafe-package divergence-notes --unsafe-package pip --unsafe-package setuptools"


def compiled(known, *options):
    """Return what pip-compile makes of pyproject.toml, from a lock that it keeps to where it can."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lock.txt")
        path.write_text(known, encoding="utf-8")
        command = [sys.executable, "-m", "piptools", "compile", *OPTIONS.split(), *options, "pyproject.toml"]
        subprocess.run([*command, "--output-file", path], cwd=ROOT, check=True)
        text = path.read_text(encoding="utf-8")
    shutil.rmtree(ROOT / "divergence_notes.egg-info")  # else Python takes this folder for an installed package
    # The name of a build ("+cpu") is this machine's affair: the lock names releases.
    return re.sub(r"(?m)^(\S+==[^+\s]+)\+\S+", r"\1", text)


def entries(lock):
    """Return {pin: the lines that belong to it}."""
    return {entry.split("\n")[0]: entry for entry in re.findall(r"(?m)^\S+==.*\n(?:[ ].*\n)*", lock)}


def main(*options):
    """Write both locks."""
    known = "".join(path.read_text(encoding="utf-8") for path in (BOOK, TEST) if path.is_file())
    everything = compiled(known, "--all-extras", "--upgrade-package", TORCH, *options)
    book = compiled(everything, "--extra", "book")
    of_book, of_all = entries(book), entries(everything)
    if odd := sorted(of_book.keys() - of_all.keys()):
        sys.exit(f"The book alone would take {odd[0]}, which is not what everything together takes.")
    more = {pin: entry for pin, entry in of_all.items() if pin not in of_book}
    BOOK.write_text(HEAD + book, encoding="utf-8")
    TEST.write_text(HEAD + "".join(more.values()), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
