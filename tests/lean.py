"""Environments that hold some packages of this one and no other, made by links: in a second, and with no network."""

import json
import os
import re
import subprocess
import sys
import tomllib
import venv
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.pages import ROOT
from tests.waiting import PATIENCE

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
KERNEL = "ipykernel"  # what every environment needs that runs notebooks


def asked(extras):
    """Return what the project asks for with these extras, its own extras opened."""
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        for line in PROJECT["optional-dependencies"][extra]:
            inner = Requirement(line)
            lines += asked(inner.extras) if inner.name == PROJECT["name"] else [line]
    return lines


def closure(requirements):
    """Return {name: distribution} of what these requirements need, by the metadata of what is installed here."""
    todo, seen = [Requirement(str(line)) for line in requirements], {}
    while todo:
        wanted = todo.pop()
        key = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if key in seen:
            continue
        seen[key] = distribution(wanted.name)
        for inner in map(Requirement, seen[key].requires or ()):
            sides = [{"extra": extra} for extra in wanted.extras or {""}]
            if inner.marker is None or any(map(inner.marker.evaluate, sides)):
                todo.append(inner)
    return {name: found for (name, _), found in seen.items()}


def build(place, requirements, *, paths=()):
    """Make an environment at `place` of what the requirements need, with `paths` to import from; return its Python.

    A path is a line of a .pth file.
    """
    venv.create(place, with_pip=False, symlinks=True)
    site_packages = place / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    for found in closure(requirements).values():
        for file in found.files:
            if "bin" in file.parts and ".." in file.parts:  # scripts, which name another Python
                continue
            link = Path(os.path.normpath(site_packages / file))
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(Path(os.path.normpath(found.locate_file(file))))
    site_packages.joinpath("paths.pth").write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
    return place / "bin" / "python"


def execute(path, python, env=None):
    """Run a notebook file in its place with a Python of another environment; return what it says of an error."""
    spec = {
        "argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "lean",
        "language": "python",
        # nothing from outside is imported, and figures are drawn as in any notebook
        "env": {"PYTHONPATH": "", "PYTHONNOUSERSITE": "1", "MPLBACKEND": "", "IPYTHONDIR": f"{path.parent}/.ipython"},
    }
    kernel = python.parent.parent / "kernels" / "lean"
    kernel.mkdir(parents=True, exist_ok=True)
    kernel.joinpath("kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    command = [
        Path(sys.executable).with_name("jupyter-execute"),
        "--inplace",
        "--kernel_name=lean",
        f"--timeout={PATIENCE}",
    ]
    env = os.environ | {"JUPYTER_PATH": str(kernel.parent.parent)} | (env or {})
    done = subprocess.run([*command, path], cwd=path.parent, env=env, capture_output=True, text=True)
    return re.sub(r"\x1b\[[\d;]*m", "", done.stderr).strip() if done.returncode else ""
