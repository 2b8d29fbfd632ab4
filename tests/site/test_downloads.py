"""The downloads of the site run where the repository is not, Binder installs the lock, and the buttons lead there."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import downloads
import nbformat
import pytest
from bs4 import BeautifulSoup
from build_book import SITE
from packaging.specifiers import SpecifierSet

from tests import lean, pages
from tests.pages import ROOT

CONFIG = downloads.settings()
URL, BRANCH = CONFIG["repository"]["url"], CONFIG["repository"]["branch"]
SITE_BRANCH = CONFIG["sphinx"]["config"]["html_context"]["site_branch"]
BINDER = ROOT / "binder"
OWN = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org")
OFFLINE = {  # pip takes what the environment has, and asks nobody
    "PIP_NO_INDEX": "1",
    "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this one the other way round: no isolation
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PYTHONPATH": "",
}


def new(*sources):
    """Return a notebook of these code cells."""
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


def handed_out(name):
    """Return the download of the built site."""
    return nbformat.read(SITE / "_sources" / "book" / f"{name}.ipynb", as_version=4)


def commands(notebook):
    """Return the commands that the first cell of a download shows."""
    return re.findall(r"(?m)^    (\S.*)$", notebook.cells[0].source)


def html(name):
    """Return the text of a page of the site."""
    return (SITE / "book" / f"{name}.html").read_text(encoding="utf-8")


def button_faults(text, name):
    """Return what is wrong with the launch buttons of the page of this name."""
    box = BeautifulSoup(text, "html.parser").select_one(".dropdown-launch-buttons")
    if not (ROOT / "book" / f"{name}.ipynb").is_file():
        return ["launch buttons on a page that is no notebook"] if box else []
    if not box:
        return ["no launch buttons"]
    repository = URL.removeprefix("https://github.com/")
    download = f"_sources/book/{name}.ipynb"
    wanted = [
        f"https://mybinder.org/v2/gh/{repository}/{BRANCH}?urlpath=lab/tree/book/{name}.ipynb",
        f"https://colab.research.google.com/github/{repository}/blob/{SITE_BRANCH}/{download}",
    ]
    links = [link["href"] for link in box.select("a[href]")]
    found = [f"no link to {address}" for address in wanted if address not in links]
    found += [f"{download} is no part of the site"] * (not (SITE / download).is_file())
    icons = [image["src"] for image in box.select("img")]
    return found + [f"{icon} is no icon of the site" for icon in icons if not (SITE / "book" / icon).is_file()]


class TestNeeds:
    """What a notebook needs is read off its imports, and off those of the modules that it imports."""

    @pytest.mark.parametrize(
        ("source", "extras"),
        [
            ("from divergence_notes import bellman", []),
            ("import matplotlib.pyplot as plt", ["plot"]),
            ("import matplotlib, ipywidgets", ["widgets"]),
            ("from divergence_notes import ntk", ["neural"]),
            ("from divergence_notes.monitor import DivergenceCallback\nimport gymnasium", ["monitor"]),
            ("def later():\n    import torch", ["neural"]),
        ],
    )
    def test_extras(self, source, extras):
        assert downloads.extras(new("1 + 1", source)) == extras

    def test_refuses_what_no_extra_brings(self):
        with pytest.raises(ValueError, match=r"what an extra of pyproject\.toml brings, got 'tensorflow'"):
            downloads.extras(new("import tensorflow"))

    @pytest.mark.parametrize("name", ["bellman", "contraction", "preqn"])
    def test_light_chapters_ask_for_nothing_heavy(self, name):
        asked = downloads.extras(pages.notebook(pages.BOOK / f"{name}.ipynb"))
        assert not {"torch", "mujoco", "stable-baselines3", "dask"} & set(lean.closure(lean.asked(asked)))


@pytest.mark.parametrize("path", pages.NOTEBOOKS, ids=lambda path: path.stem)
class TestSite:
    """What the built site hands out for each notebook."""

    def test_download_says_first_how_to_install(self, path):
        notebook, source = handed_out(path.stem), pages.notebook(path)
        text, check, *rest = notebook.cells
        assert (text.id, check.id) == ("install-commands", "install-check")
        assert [cell.source for cell in rest] == [cell.source for cell in source.cells]
        clone, install = commands(notebook)
        assert clone == f"git clone --depth 1 --branch {BRANCH} {URL}"
        found = re.search(r'"\./[\w-]+(?:\[(.+)\])?"$', install)
        assert set(filter(None, (found[1] or "").split(","))) == set(downloads.extras(source))
        compile(check.source, path.name, "exec")

    def test_launch_buttons(self, path):
        assert button_faults(html(path.stem), path.stem) == []

    def test_download_button_leads_to_the_download(self, path):
        (link,) = BeautifulSoup(html(path.stem), "html.parser").select("a.btn-download-source-button")
        assert (SITE / "book" / link["href"]).resolve() == SITE / "_sources" / "book" / path.name


class TestButtonFaults:
    """The reading of the launch buttons finds what it looks for, on a page that has none of it."""

    @pytest.mark.parametrize(
        ("true", "false", "fault"),
        [
            ("lab/tree/book/index.ipynb", "lab/tree/index.ipynb", "no link to https://mybinder.org/v2/gh/"),
            (f"/blob/{SITE_BRANCH}/_sources/", "/blob/main/", "no link to https://colab.research.google.com/github/"),
            (
                "../_static/images/logo_binder.svg",
                "https://mybinder.org/logo.svg",
                "https://mybinder.org/logo.svg is no",
            ),
            ("dropdown-launch-buttons", "dropdown", "no launch buttons"),
        ],
    )
    def test_on_a_notebook(self, true, false, fault):
        text = html("index")
        assert true in text
        assert [found[: len(fault)] for found in button_faults(text.replace(true, false), "index")] == [fault]

    def test_on_a_page_that_is_none(self):
        assert button_faults(html("index"), "notation") == ["launch buttons on a page that is no notebook"]


@pytest.mark.parametrize("path", [path for path in pages.PAGES if path.suffix == ".md"], ids=lambda path: path.stem)
def test_pages_that_are_no_notebooks_have_no_launch_buttons(path):
    assert button_faults(html(path.stem), path.stem) == []


def test_write_says_the_same_twice(tmp_path):
    """The source is read each time, so a download that is written again gets no second cells."""
    source, path = ROOT / "book" / "index.ipynb", tmp_path / "index.ipynb"
    downloads.write(path, source)
    once = path.read_bytes()
    assert [cell.id for cell in nbformat.read(path, as_version=4).cells[:2]] == ["install-commands", "install-check"]
    downloads.write(path, source)
    assert path.read_bytes() == once


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Return the address of a repository with the files of this one."""
    place = tmp_path_factory.mktemp("host") / URL.rpartition("/")[2]
    place.mkdir()
    for name in ("divergence_notes", "book"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    for command in (
        ["init", "--quiet", "--initial-branch", BRANCH],
        ["add", "."],
        ["commit", "--quiet", "-m", "all"],
    ):
        subprocess.run([*OWN, *command], cwd=place, check=True)
    return place.as_uri()


def environment(place, name, *paths):
    """Make an environment that holds what the download asks for, but the package; return its Python."""
    asked = lean.asked(downloads.extras(handed_out(name)))
    return lean.build(place, [*asked, lean.KERNEL, "pip", "setuptools"], paths=paths)


def empty_directory(place, name, repository):
    """Put the download into a directory of its own; return its path."""
    text = (SITE / "_sources" / "book" / f"{name}.ipynb").read_text(encoding="utf-8")
    assert text.count(URL) == 2
    path = place / "here" / f"{name}.ipynb"
    path.parent.mkdir()
    path.write_text(text.replace(URL, repository), encoding="utf-8")
    return path


ADVICE = "divergence_notes is missing: run the two commands above, then restart the kernel"


class TestElsewhere:
    """A download, in an empty directory, with an environment that never heard of the package."""

    @pytest.mark.nightly
    def test_runs_after_its_commands_and_says_so_before(self, tmp_path, repository):
        """The appendix, which reads every result, the table of published returns and an agent."""
        python = environment(tmp_path / "env", "reproduction")
        path = empty_directory(tmp_path, "reproduction", repository)
        said = lean.execute(path, python, OFFLINE).splitlines()[-1]
        assert said == f"ModuleNotFoundError: {ADVICE}"

        env = os.environ | OFFLINE | {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
        for command in commands(nbformat.read(path, as_version=4)):
            done = subprocess.run(command, shell=True, cwd=path.parent, env=env, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
        assert lean.execute(path, python, OFFLINE) == ""
        counts = [cell.execution_count for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        assert counts == list(range(1, len(counts) + 1))

    def test_says_before_what_is_missing(self, tmp_path, repository):
        """The advice is what a reader needs first; that it then runs is seen by night, and on Colab below."""
        path = empty_directory(tmp_path, "index", repository)
        python = environment(tmp_path / "env", "index")
        assert lean.execute(path, python, OFFLINE).splitlines()[-1] == f"ModuleNotFoundError: {ADVICE}"

    def test_installs_itself_on_colab(self, tmp_path, repository):
        """The module that tells Colab is planted; the package is then found without a restart."""
        colab = "import sys, types; sys.modules['google.colab'] = types.ModuleType('google.colab')"
        python = environment(tmp_path / "env", "index", colab)
        path = empty_directory(tmp_path, "index", repository)
        assert lean.execute(path, python, OFFLINE) == ""
        assert (path.parent / URL.rpartition("/")[2] / "divergence_notes").is_dir()


def faults(binder):
    """Return what is wrong with the directory that Binder reads."""
    found = []
    if not re.search(r"(?m)^python tools/environment\.py here$", (binder / "postBuild").read_text()):
        found.append("postBuild must install the lock")
    version = (binder / "runtime.txt").read_text().strip().removeprefix("python-")
    if version not in SpecifierSet(lean.PROJECT["requires-python"]):
        found.append(f"Python {version} is not what the project asks for")
    if not os.access(binder / "postBuild", os.X_OK):
        found.append("postBuild cannot be executed")
    return found


class TestBinder:
    """Binder gets the reader's lock, a Python that the project takes, and the package."""

    def test_installs_the_lock(self):
        assert faults(BINDER) == []

    @pytest.mark.parametrize(
        ("file", "text", "fault"),
        [
            ("postBuild", "pip install numpy\n", "postBuild must install the lock"),
            ("runtime.txt", "python-3.9\n", "Python 3.9 is not what the project asks for"),
        ],
    )
    def test_faults_are_found(self, tmp_path, file, text, fault):
        shutil.copytree(BINDER, tmp_path / "binder")
        (tmp_path / "binder" / file).write_text(text)
        assert faults(tmp_path / "binder") == [fault]

    def test_finds_the_package(self, tmp_path):
        """The step is run in an environment of its own, with a lock that asks for nothing."""
        for name in ("tools/environment.py", "divergence_notes/__init__.py", "pyproject.toml", "binder/postBuild"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
        (tmp_path / "requirements.txt").write_text("# nothing\n")
        python = lean.build(tmp_path / "env", ["pip"])
        look = [python, "-c", "import divergence_notes, sys; print(divergence_notes.__file__)"]
        env = os.environ | {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": ""}
        before = subprocess.run(look, cwd="/", env=env, capture_output=True, text=True)
        assert before.returncode != 0, "the environment knows the package already"
        subprocess.run([tmp_path / "binder" / "postBuild"], cwd=tmp_path, env=env, check=True)
        after = subprocess.run(look, cwd="/", env=env, capture_output=True, text=True, check=True)
        assert Path(after.stdout.strip()).parent == tmp_path / "divergence_notes"
