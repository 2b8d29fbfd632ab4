"""What an import lacks is said with the extra that brings it, and that extra does."""

import importlib
import pkgutil
import shutil
import subprocess
import sys

import pytest

import divergence_notes
from divergence_notes import studies
from divergence_notes._extras import needs
from tests import lean
from tests.pages import ROOT

MODULES = [
    module.name
    for module in pkgutil.walk_packages(divergence_notes.__path__, "divergence_notes.")
    if not any(part.startswith("_") for part in module.name.split(".")[1:])
]
TRY = """
import importlib, sys
for name in sys.argv[1:]:
    for loaded in [one for one in sys.modules if one.startswith("divergence_notes")]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
        print("")
    except ModuleNotFoundError as missing:
        print(missing)
"""


def said(python, names):
    """Return what is said where these modules are imported, each one by itself: {module: sentence}."""
    command = [python, "-W", "ignore", "-c", TRY, *names]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True)
    return dict(zip(names, done.stdout.split("\n"), strict=False))


def place(folder, extras):
    """Make an environment with the package and these extras; return its Python."""
    return lean.build(folder, lean.asked(extras), paths=[ROOT])


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Return {module: what its import says where no extra is installed}."""
    return said(place(tmp_path_factory.mktemp("bare") / "env", []), MODULES)


def extra(sentence):
    """Return the extra that a sentence names."""
    return sentence.partition('This brings it: pip install "divergence-notes[')[2].removesuffix(']"')


def test_each_says_which_extra_brings_it(bare):
    named = {name.removeprefix("divergence_notes."): extra(sentence) for name, sentence in bare.items() if sentence}
    assert "" not in named.values(), bare
    assert {name: named[name] for name in ("ntk", "training", "preqn", "monitor", "widgets", "plotting")} == {
        "ntk": "neural",
        "training": "preqn",
        "preqn": "preqn",
        "monitor": "monitor",
        "widgets": "widgets",
        "plotting": "plot",
    }
    assert not {"bellman", "contraction", "updates", "norms", "verdicts", "diagnostics", "grading"} & set(named)


@pytest.mark.parametrize("name", ["neural", "preqn", "monitor", "plot", "widgets", "studies"])
def test_the_extra_brings_it(bare, tmp_path, name):
    modules = [module for module, sentence in bare.items() if extra(sentence) == name]
    found = said(place(tmp_path / "env", [name]), modules)
    assert modules and found == dict.fromkeys(modules, "")


def test_every_extra_that_is_named_is_tried(bare):
    assert {extra(sentence) for sentence in bare.values() if sentence} == {
        "neural",
        "preqn",
        "monitor",
        "plot",
        "widgets",
        "studies",
    }


class TestMissingPackage:
    """What is missing is named with the outermost extra; a fault of our own is left as it is."""

    def test_the_module_that_was_asked_for_has_the_last_word(self):
        with pytest.raises(ModuleNotFoundError) as missing, needs("outer"), needs("inner"):
            importlib.import_module("no_such_package.below")
        assert str(missing.value) == (
            'no_such_package is missing. This brings it: pip install "divergence-notes[outer]"'
        )
        assert missing.value.name == "no_such_package" and missing.value.__cause__ is None

    def test_a_module_of_ours_is_not_to_be_installed(self):
        with pytest.raises(ModuleNotFoundError, match=r"No module named 'divergence_notes\.nothing'"), needs("any"):
            importlib.import_module("divergence_notes.nothing")

    def test_another_fault_passes(self):
        with pytest.raises(ImportError, match="cannot import name"), needs("any"):
            from divergence_notes import no_such_name  # noqa: F401


def test_results_are_never_written_beside_an_installed_package(tmp_path):
    """In the repository they are the book's; from a wheel, in the folder where one works."""
    assert studies.RESULTS == ROOT / "book" / "results"
    shutil.copytree(ROOT / "divergence_notes", tmp_path / "site" / "divergence_notes")
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); from divergence_notes import studies; "
    found = subprocess.run([sys.executable, "-c", f"{code}print(studies.RESULTS)"], cwd=tmp_path, capture_output=True)
    assert found.stdout.decode().strip() == "results"
    lost = subprocess.run([sys.executable, "-c", f"{code}studies.load('kernels')"], cwd=tmp_path, capture_output=True)
    assert b"there is none in results (those of the book lie in its repository, book/results)" in lost.stderr
