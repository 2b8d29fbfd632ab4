"""The notebooks that the site hands out: each says first how to install what it needs, and Colab opens that one.

In the repository a notebook finds the package beside it. A download does not, so two cells stand before it: the
commands, and a check that says in one sentence what is missing. On Colab the check runs the commands itself. The
repository is cloned, since some chapters read results and agents that lie beside the package.
"""

import functools
import tomllib

import nbformat
import yaml
from packaging.requirements import Requirement
from reads import PACKAGE, ROOT, needs

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

TEXT = """**To run this notebook outside the repository**, install what it needs. Two commands in a terminal do it:

    git clone --depth 1 --branch {branch} {url}
    python -m pip install --editable "./{folder}{extras}"

Restart the kernel afterwards. On Colab the next cell runs the commands."""

CODE = """import importlib.util
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("{package}") is None:
    if "google.colab" not in sys.modules:
        raise ModuleNotFoundError("{package} is missing: run the two commands above, then restart the kernel")
    clone, pip = ["git", "clone", "--depth", "1", "--branch", "{branch}"], [sys.executable, "-m", "pip", "install"]
    subprocess.run([*clone, "{url}"], check=True)
    subprocess.run([*pip, "--quiet", "--editable", "./{folder}{extras}"], check=True)
    sys.path.append(str(Path("{folder}").resolve()))"""


@functools.cache
def settings():
    """Return the _config.yml of the book."""
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


def modules(lines):
    """Return the modules that these lines of pyproject.toml bring, the extras of the project opened."""
    found = set()
    for asked in map(Requirement, lines):
        if asked.name == PROJECT["name"]:
            found = found.union(*(modules(PROJECT["optional-dependencies"][extra]) for extra in asked.extras))
        else:  # gymnasium[mujoco] brings mujoco
            found |= {name.replace("-", "_") for name in (asked.name, *asked.extras)}
    return found


def extras(notebook):
    """Return the extras that bring what a notebook needs, and nothing else."""
    missing = needs(notebook) - modules(PROJECT["dependencies"])
    brought = {name: modules(lines) for name, lines in PROJECT["optional-dependencies"].items()}
    chosen, left = [], missing
    while useful := {name: found for name, found in brought.items() if found & left}:
        # what brings least that nobody asked for, and of those what brings most
        name = min(useful, key=lambda name: (len(useful[name] - missing), -len(useful[name] & left), name))
        chosen.append(name)
        left = left - useful[name]
    if left:
        raise ValueError(f"notebook must import what an extra of pyproject.toml brings, got {sorted(left)[0]!r}")
    for name in [*chosen]:  # one that came early may be a part of one that came late
        if brought[name] <= set().union(*(brought[other] for other in chosen if other != name)):
            chosen.remove(name)
    return sorted(chosen)


def download(notebook, *, url, branch):
    """Return the notebook with the cells before it that say how to install."""
    folder = url.rstrip("/").rpartition("/")[2].removesuffix(".git")
    asked = f"[{','.join(extras(notebook))}]".removesuffix("[]")
    words = {"url": url, "branch": branch, "folder": folder, "extras": asked, "package": PACKAGE}
    cells = [
        nbformat.v4.new_markdown_cell(TEXT.format(**words), id="install-commands"),
        nbformat.v4.new_code_cell(CODE.format(**words), id="install-check"),
    ]
    return nbformat.from_dict(notebook | {"cells": [*cells, *notebook.cells]})


def colab_links():
    """Return the address of the Colab button, and the address of the download, up to the name of a notebook."""
    config = settings()
    repository = config["repository"]
    name = repository["url"].rstrip("/").removesuffix(".git").removeprefix("https://github.com/")
    start = f"{config['launch_buttons']['colab_url']}/github/{name}/blob"
    site_branch = config["sphinx"]["config"]["html_context"]["site_branch"]
    return f"{start}/{repository['branch']}/", f"{start}/{site_branch}/_sources/"


def write(path, source):
    """Write the download of the notebook at `source`."""
    where = {key: settings()["repository"][key] for key in ("url", "branch")}
    nbformat.write(download(nbformat.read(source, as_version=4), **where), path)
