"""Build the package as pip does, with a description whose links lead from anywhere.   wheel.py [FOLDER]

The README stands beside the files that it links to. On a package index it stands alone, so in the wheel those links
lead into the repository, to the release that the wheel is.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LINK = re.compile(r"(!?)(\[[^]]*\]\()(?!\w+:|#)([^)\s]+)\)")


def description(text):
    """Return a README with the links to its neighbours made absolute; a picture is the file, not the page about it."""

    def absolute(link):
        picture, words, path = link.groups()
        kind = "raw" if picture else "blob"
        return f"{picture}{words}{PROJECT['urls']['Source']}/{kind}/v{PROJECT['version']}/{path})"

    return LINK.sub(absolute, text)


def build(place):
    """Build the wheel into a folder, from a copy of what it is made of, and return the file."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "divergence_notes", tree / "divergence_notes", ignore=ignored)
        for name in ("pyproject.toml", "LICENSE"):
            shutil.copy(ROOT / name, tree)
        readme = description((ROOT / "README.md").read_text(encoding="utf-8"))
        (tree / "README.md").write_text(readme, encoding="utf-8")
        code = f"from setuptools import build_meta; print(build_meta.build_wheel({str(place)!r}))"
        command = [sys.executable, "-W", "ignore", "-c", code]
        said = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True).stdout
    return Path(place, said.splitlines()[-1])


if __name__ == "__main__":
    target = Path(*sys.argv[1:] or [ROOT / "dist"]).resolve()
    target.mkdir(parents=True, exist_ok=True)
    print(f"The wheel is {build(target)}")
