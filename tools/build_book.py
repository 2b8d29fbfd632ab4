"""Build the book with Jupyter Book, unless it is built.

    build_book.py              the whole of it, from nothing but the runs of chapters that nothing has changed
    build_book.py --page NAME  one page of it, the others as they are, and serve it: it follows what is edited

What the site is beyond Sphinx, and what makes it no site to publish, is in book_site.py.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
SITE = BUILD / "html"
STAMP = BUILD / "made-from"
INPUTS = (
    "_config.yml",
    "_toc.yml",
    "CHANGELOG.md",
    "genindex.md",
    "CITATION.cff",
    "pyproject.toml",
    "requirements.txt",
    "package-lock.json",
    "book/**/*",
    "coursework/source/**/*",
    "divergence_notes/**/*.py",
    "divergence_notes/plane.*",
    "tools/*.*",
    "tools/kernel/*.*",
)
"""What a page, or a file beside the pages, is made of."""
ERROR_MARKS = ("Traceback (most recent call last)", "output traceback", "application/vnd.jupyter.error")
PREVIEW = "DIVERGENCE_NOTES_PAGE"
"""The variable that tells book_site.py to read one page alone again, such as book/bellman."""


def inputs():
    """Return the files that the site is made of."""
    found = {path for pattern in INPUTS for path in ROOT.glob(pattern) if path.is_file()}
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(ROOT).parts))


def stamp():
    """Return what is true of a site as long as it need not be built again: what it is made of, and its own files."""
    made_from = hashlib.sha256(f"Python {sys.version}, LIVE={os.environ.get('LIVE')}".encode())
    for path in inputs():
        made_from.update(f"{path.relative_to(ROOT)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    made = hashlib.sha256()
    for path in sorted(SITE.rglob("*")):
        state = path.stat()
        made.update(f"{path.relative_to(SITE)}\0{state.st_size}\0{state.st_mtime_ns}\0".encode() * path.is_file())
    return f"{made_from.hexdigest()}\n{made.hexdigest()}\n"


def toc_files(*, numbered=False):
    """Return the names in _toc.yml, in reading order, without endings; if asked, of what has a number alone."""

    def files(entries):
        for entry in entries:
            yield entry["file"]
            yield from files(entry.get("sections", ()))

    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    parts = [part for part in toc["parts"] if part.get("numbered") or not numbered]
    return [toc["root"]] * (not numbered) + [name for part in parts for name in files(part["chapters"])]


def faults(site=SITE):
    """Return what is wrong with the built site, one line each."""
    found = [f"no page for {name} of _toc.yml" for name in toc_files() if not (site / f"{name}.html").is_file()]
    if not (site / "index.html").is_file():
        found.append("no index.html")
    for path in sorted(site.rglob("*")):
        name = path.relative_to(site).as_posix()
        if any(part in name for part in (".venv", "site-packages", "node_modules", "made-from", "esbuild")):
            found.append(f"{name} is no part of the site")
        if path.suffix == ".html":
            text = path.read_text(encoding="utf-8")
            found += [f"{name} holds an error: {mark}" for mark in ERROR_MARKS if mark in text]
    return found


def jupyter_book(page=""):
    """Run Jupyter Book; return whether it found no fault."""
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ".", "--quiet"]
    env = os.environ | {PREVIEW: page}
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8"
    ) as build:
        for line in build.stderr:
            if "Kernel is running over TCP" not in line:  # ipykernel says so at every start, on loopback too
                print(line, end="", file=sys.stderr, flush=True)
    return build.returncode == 0


def alone():
    """Return what lets one build at a time work here."""
    from environment import alone  # not at the top: who reads the table of contents alone finds no neighbour

    return alone(ROOT)


def build():
    """Build the whole book, and leave nothing that the next build would trust where it has a fault."""
    with alone():
        build_alone()
    print(f"The book is at {SITE / 'index.html'}\nSee it in a browser with: make serve")


def build_alone():
    """Build while nobody else does."""
    made_from = stamp().splitlines()[0]
    if not (STAMP.is_file() and STAMP.read_text(encoding="utf-8") == stamp()):
        # Sphinx alone would keep too much: the search forgets the index entries of pages that are not read again
        # (sphinx-doc/sphinx#12599), and a link to a name in the API pages is made when the page is written
        shutil.rmtree(SITE, ignore_errors=True)
        shutil.rmtree(BUILD / ".doctrees", ignore_errors=True)
        print("Building the book. A chapter runs when something behind it has changed.", flush=True)
        if not jupyter_book():
            sys.exit("The book has faults: see above.")
        made = stamp().splitlines()[1]
        STAMP.write_text(f"{made_from}\n{made}\n", encoding="utf-8")


def preview(name, port):
    """Build one page, serve the site, and do both again when something behind the page is edited."""
    page = next((file for file in toc_files() if file.rpartition("/")[2] == name), None)
    if page is None:
        sys.exit(f"NAME must be a page of _toc.yml, without folder and ending, got {name!r}")
    from livereload import Server  # what the other command does not need

    if not (BUILD / ".doctrees" / "environment.pickle").is_file():
        build()

    def again():
        with alone():
            jupyter_book(page)

    again()
    server = Server()
    for pattern in INPUTS:
        server.watch(str(ROOT / pattern), again)
    print(f"The page is at http://127.0.0.1:{port}/{page}.html and follows what you edit; Ctrl+C ends it.", flush=True)
    server.serve(root=str(SITE), port=port)


def main():
    """Build the book, or one page of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", metavar="NAME", help="a page of _toc.yml, without folder and ending")
    parser.add_argument("--port", type=int, default=8000)
    asked = parser.parse_args()
    build() if asked.page is None else preview(asked.page, asked.port)


if __name__ == "__main__":
    main()
