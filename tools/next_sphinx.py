"""Build the book on the next Sphinx, without the command of Jupyter Book: the way out stays open.

A conf.py is generated from _config.yml, and Sphinx 8 builds it with the newest extensions that go with it, in a copy of
the project. The runs of the chapters are those of the last `make book`. A warning is an error, and the site must hold
on each page as many formulas, pictures, boxes and outputs as `make book` made of it. What a page is beyond Sphinx is
`book_site`, here too.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_build" / "html"
PLACE = ROOT / "_build" / "next"
TREE = PLACE / "tree"
VENV = ".venv-next"
STACK = re.compile(r"sphinx|myst|mdit|markdown-it|docutils|alabaster|numpydoc|pydata|pygments|jupyter-cache")
"""What Jupyter Book 1 holds back, and what goes with it: taken as new as Sphinx 8 allows."""
COUNTED = {"formulas": ".math", "pictures": "img", "boxes": ".admonition", "outputs": ".cell_output"}


def lists(lock):
    """Return what to install in full, and Jupyter Book, of which one extension is needed, without what it asks for."""
    pins = re.findall(r"(?m)^([\w.-]+)==(\S+)", lock)
    bare = [f"{name}=={version}\n" for name, version in pins if name == "jupyter-book"]
    rest = [(name, version) for name, version in pins if name not in ("jupyter-book", "sphinx")]
    lines = [name if STACK.search(name) else f"{name}=={version}" for name, version in rest]
    return "\n".join(["sphinx>=8,<9", *lines, ""]), "".join(bare)


def counts(site):
    """Return {page: {what: how many}} of a site."""
    found = {}
    for path in sorted(site.rglob("*.html")):
        page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").select_one("article")
        if page is not None:
            name = path.relative_to(site).as_posix()
            found[name] = {what: len(page.select(selector)) for what, selector in COUNTED.items()}
    return found


def differences(old, new):
    """Return where two sites differ, one line each."""
    found = [f"{name} is on one side only" for name in sorted(old.keys() ^ new.keys())]
    for name in sorted(old.keys() & new.keys()):
        pairs = [(what, old[name][what], new[name][what]) for what in COUNTED]
        found += [
            f"{name}: {before} {what}, and {after} on the next Sphinx"
            for what, before, after in pairs
            if before != after
        ]
    return found


def copy():
    """Copy what is in the repository, the runs and what the pages load."""
    shutil.rmtree(TREE, ignore_errors=True)
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    for name in filter(None, names):
        (TREE / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, TREE / name)
    for name in ("_build/.jupyter_cache", "_offline", "node_modules"):
        shutil.copytree(ROOT / name, TREE / name, symlinks=True)


def main():
    """Make the environment, generate conf.py, build and compare."""
    PLACE.mkdir(parents=True, exist_ok=True)
    paths = [PLACE / name for name in ("requirements.txt", "requirements-bare.txt")]
    for path, text in zip(paths, lists((ROOT / "requirements.txt").read_text(encoding="utf-8")), strict=True):
        path.write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, ROOT / "tools" / "environment.py", VENV, *paths], check=True)
    copy()
    command = [Path(sys.executable).with_name("jupyter-book"), "config", "sphinx", "."]
    subprocess.run(command, cwd=TREE, check=True, stdout=subprocess.DEVNULL)
    bin = ROOT / VENV / "bin"
    env = os.environ | {"PYTHONPATH": f"{TREE}:{TREE / 'tools'}", "PATH": f"{bin}:{os.environ['PATH']}"}
    site = TREE / "_build" / "html"
    command = [
        bin / "python",
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-d",
        TREE / "_build" / ".doctrees",
        ".",
        site,
    ]
    if subprocess.run(command, cwd=TREE, env=env).returncode:
        sys.exit("The next Sphinx does not build the book: see above.")
    made = counts(site)
    if found := differences(counts(SITE), made):
        sys.exit("\n".join(found))
    total = ", ".join(f"{sum(page[what] for page in made.values())} {what}" for what in COUNTED)
    print(f"The next Sphinx builds the same {len(made)} pages: {total}.")


if __name__ == "__main__":
    main()
