"""Make an environment from a list of packages, unless a finished one is there. Standard library only: it runs first.

    environment.py                         .venv from requirements.txt
    environment.py PLACE LIST [BARE]       PLACE from LIST; what stands in BARE is installed without what it asks for

The stamp is written last and names the lists, the Python and the place, so an interrupted installation is never
trusted: without the right stamp the environment is made again from nothing.

Every Python since 2.7 can read this file: one that will not do hears it in a sentence and not by a traceback.
"""

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PYTHON = "{}.{}".format(*sys.version_info)


def read(path):
    """Return the bytes of a file."""
    with io.open(path, "rb") as file:
        return file.read()


def supported():
    """Return the Pythons that pyproject.toml admits, as "3.11"."""
    text = read(os.path.join(ROOT, "pyproject.toml")).decode("utf-8")
    low, high = re.search(r'(?m)^requires-python = ">=3\.(\d+),<3\.(\d+)"', text).groups()
    return ["3.{}".format(minor) for minor in range(int(low), int(high))]


def check():
    """End with one sentence where this Python will not do."""
    names = supported()
    if PYTHON not in names:
        text = "This needs Python {} or {}, and {} is Python {}. Try: make book PYTHON=python{}"
        sys.exit(text.format(", ".join(names[:-1]), names[-1], sys.executable, PYTHON, names[-2]))
    try:
        import ensurepip  # noqa: F401  (Debian leaves it out, and venv says so by a traceback)
    except ImportError:
        text = "{} has no venv. On Debian and Ubuntu it comes with: apt install python{}-venv"
        sys.exit(text.format(sys.executable, PYTHON))


def make(place, lists, python):
    """Install the lists, the second bare, and the package itself, from nothing."""
    import venv

    shutil.rmtree(place, ignore_errors=True)
    venv.create(place, with_pip=True, symlinks=True)
    for path, bare in zip(lists, ([], ["--no-deps"])):
        if subprocess.call([python, "-m", "pip", "install", "--quiet", "--requirement", path] + bare):
            sys.exit("The installation failed, see above. What is wrong with {}?".format(os.path.relpath(path, ROOT)))
    # The package itself: a path line, so that an edit is seen at once and nothing is ever built.
    site_packages = subprocess.check_output([python, "-c", "import sysconfig as s; print(s.get_path('purelib'))"])
    with io.open(os.path.join(site_packages.decode().strip(), "divergence_notes.pth"), "w", encoding="utf-8") as file:
        file.write(ROOT + "\n")


def main(place=".venv", *lists):
    """Make the environment, or leave it."""
    check()
    place, lists = os.path.join(ROOT, place), [os.path.join(ROOT, path) for path in lists or ["requirements.txt"]]
    stamp, python = os.path.join(place, "made-from"), os.path.join(place, "bin", "python")
    lock = b"".join(read(path) for path in lists)
    want = "{}\nPython {}\n{}\n".format(hashlib.sha256(lock).hexdigest(), PYTHON, place)
    if os.path.exists(python) and os.path.isfile(stamp) and read(stamp) == want.encode("utf-8"):
        return
    text = "Making {} from {}, which takes some minutes, once.\n"
    sys.stdout.write(text.format(place, os.path.relpath(lists[0], ROOT)))
    sys.stdout.flush()
    make(place, lists, python)
    with io.open(stamp, "w", encoding="utf-8") as file:
        file.write(want)


if __name__ == "__main__":
    main(*sys.argv[1:])
