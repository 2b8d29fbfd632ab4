"""The API pages: an entry for every public name, a docstring that says what it takes, and links both ways."""

import functools
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace
from urllib.parse import urldefrag

import pytest
from api_links import LABEL, candidates, unique_names, with_references
from bs4 import BeautifulSoup
from build_book import toc_files
from numpydoc.validate import validate
from sphinx.pycode import ModuleAnalyzer

from tests import pages
from tests.page_checks import soup

PACKAGE = "divergence_notes"
API_PAGES = [name for name in toc_files() if name.startswith("book/api")]
CHAPTERS = [f"book/{path.stem}" for path in pages.NOTEBOOKS]
CHECKS = {  # of numpydoc
    "GL08": "has no docstring",
    "PR01": "leaves a parameter out",
    "PR02": "describes a parameter that is not there",
    "PR03": "has the parameters in another order",
    "PR10": "has no space before a colon",
    "RT01": "does not say what it returns",
    "YD01": "does not say what it yields",
}


def modules():
    """Return the public modules. Those of `plotting` and `grading` are read through these."""
    package = importlib.import_module(PACKAGE)
    names = [module.name for module in pkgutil.walk_packages(package.__path__, f"{PACKAGE}.")]
    hidden = re.compile(r"\._|\.(plotting|grading)\.")
    return [importlib.import_module(name) for name in names if not hidden.search(name)]


def public(module):
    """Return the public functions and classes of a module by their full names: __all__, or what it defines."""
    listed = getattr(module, "__all__", None)
    return {
        f"{module.__name__}.{name}": value
        for name, value in vars(module).items()
        if (inspect.isfunction(value) or inspect.isclass(value))
        and (name in listed if listed else name[0] != "_" and value.__module__ == module.__name__)
    }


def methods(cls):
    """Return the public functions and properties that a class defines, by their short names."""
    kinds = (property, functools.cached_property, classmethod, staticmethod)
    return {
        name: value
        for name, value in vars(cls).items()
        if name[0] != "_" and (inspect.isfunction(value) or isinstance(value, kinds))
        if getattr(value, "__name__", name) == name  # the default of a field is no method
    }


def everything():
    """Return every public function, class, method and property by its full name."""
    found = {}
    for module in modules():
        for name, value in public(module).items():
            found[name] = value
            if inspect.isclass(value):
                found |= {f"{name}.{method}": part for method, part in methods(value).items()}
    return found


def commented(module):
    """Return the full names of the public constants and fields that have a docstring of their own."""
    docs = ModuleAnalyzer.for_module(module.__name__).find_attr_docs()
    parts = [[module.__name__, *filter(None, scope.split(".")), name] for scope, name in docs]
    for cls in filter(inspect.isclass, public(module).values()):  # of a class from elsewhere, the fields too
        if cls.__module__ != module.__name__:
            docs = ModuleAnalyzer.for_module(cls.__module__).find_attr_docs()
            parts += [[module.__name__, scope, name] for scope, name in docs if scope == cls.__name__]
    return {".".join(names) for names in parts if not any(name[0] == "_" for name in names)}


def promised():
    """Return the full names of all that must have an entry."""
    names = {module.__name__ for module in modules()} | set(everything())
    for module in modules():
        names |= commented(module) | {f"{module.__name__}.{name}" for name in getattr(module, "__all__", ())}
    return names


def entries(soups):
    """Return the names of the entries of some pages, each as often as it is there."""
    soups = list(soups)
    signatures = Counter(tag["id"] for page in soups for tag in page.select("dt.sig[id]"))
    return signatures + Counter(
        tag["id"].removeprefix("module-") for page in soups for tag in page.select("[id^=module-]")
    )


@functools.cache
def built():
    """Return the entries of the API pages."""
    return entries(map(soup, API_PAGES))


def test_every_public_name_has_an_entry():
    pages.none(sorted(promised() - set(built())), "public names without an entry in the API pages")


def test_no_entry_is_there_twice():
    pages.none([name for name, count in built().items() if count > 1], "entries that are there twice")


def test_no_entry_names_what_is_not_promised():
    """A private name or one that has gone has no entry; fields of classes are entries of their own."""
    pages.none(sorted(set(built()) - promised()), "entries of what is not public")


def test_pages_show_no_path_of_this_machine():
    shown = [name for name in API_PAGES if "PosixPath" in soup(name).text or str(pages.ROOT) in soup(name).text]
    pages.none(shown, "API pages that show a path of the machine that built them")


class TestEntries:
    """What the pages and the package are compared by."""

    HTML = '<span id="module-m"></span><dl><dt class="sig" id="m.f">f</dt></dl>'

    def test_finds_signatures_and_modules(self):
        assert entries([BeautifulSoup(self.HTML, "html.parser")]) == {"m": 1, "m.f": 1}

    def test_finds_what_is_there_twice(self):
        assert entries([BeautifulSoup(self.HTML, "html.parser")] * 2)["m.f"] == 2

    @pytest.mark.parametrize(
        "name",
        [
            "bellman",  # a module
            "bellman.value_iteration",  # a function
            "mdp.FiniteMDP.flatten",  # a method
            "mdp.FiniteMDP.n_pairs",  # a property
            "preqn.PreQNConfig.gamma",  # a field with a docstring below it
            "preqn.TILE",  # a constant with one
            "plotting.plot_kernel",  # imported, and in __all__
            "plotting.BLUE",  # a constant in __all__
            "studies.load",
        ],
    )
    def test_asks_for(self, name):
        assert f"{PACKAGE}.{name}" in promised()

    @pytest.mark.parametrize(
        "name", ["_checks", "bellman._backup", "bellman.np", "plotting.style", "bellman.FiniteMDP"]
    )
    def test_does_not_ask_for(self, name):
        assert f"{PACKAGE}.{name}" not in promised()


def asked(name, value):
    """Say which checks a docstring must pass."""
    if isinstance(value, (property, functools.cached_property)):
        return {"GL08"}
    if getattr(value, "_is_protocol", False):  # nobody makes one
        return {"GL08"}
    if inspect.isclass(value):  # a class that takes what another library's takes, or lists its fields one by one
        fields = {field for field in getattr(value, "__annotations__", ()) if field[0] != "_"}
        own = "__init__" in vars(value) and not (hasattr(value, "__dataclass_fields__") or hasattr(value, "_fields"))
        listed = {f"{value.__module__}.{value.__qualname__}.{field}" for field in fields} <= commented(
            sys.modules[value.__module__]
        )
        return set(CHECKS) if own else {"GL08"} if listed or not fields else {"GL08", "PR01", "PR02"}
    plain = getattr(value, "__func__", value)
    takes = set(inspect.signature(plain).parameters) - {"self", "cls"}
    return set(CHECKS) if takes else set(CHECKS) - {"RT01"}  # what takes nothing says in a line what it returns


def complaints(name, value):
    """Return what a docstring lacks, one line each."""
    wanted = asked(name, value)
    return [f"{name} {CHECKS[code]}: {text}" for code, text in validate(name)["errors"] if code in wanted]


def test_docstrings_say_what_is_taken_and_returned():
    found = [line for name, value in everything().items() for line in complaints(name, value)]
    pages.none(found, "docstrings that say too little")


class TestComplaints:
    """A docstring that says too little is found."""

    GOOD = '''
        def f(x, y):
            """Return the sum.

            Parameters
            ----------
            x : float
                One.
            y : float
                The other.

            Returns
            -------
            float
                The sum.
            """
            return x + y
    '''

    @pytest.fixture
    def complain(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(tmp_path)

        def read(source, name="f"):
            (tmp_path / "planted.py").write_text(inspect.cleandoc(source) + "\n")
            importlib.invalidate_caches()
            monkeypatch.delitem(sys.modules, "planted", raising=False)
            ModuleAnalyzer.cache.clear()
            return complaints(f"planted.{name}", getattr(importlib.import_module("planted"), name))

        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        return read

    def test_accepts_a_whole_docstring(self, complain):
        assert complain(self.GOOD) == []

    @pytest.mark.parametrize(
        "old, new, fault",
        [
            ("y : float", "z : float", CHECKS["PR01"]),
            ("y : float", "z : float", CHECKS["PR02"]),
            ("y : float", "y: float", CHECKS["PR10"]),
            ("(x, y)", "(y, x)", CHECKS["PR03"]),
            ("Returns\n            -------", "Raises\n            ------", CHECKS["RT01"]),
            ("return x + y", "yield x + y", CHECKS["YD01"]),
        ],
    )
    def test_finds(self, complain, old, new, fault):
        source = self.GOOD.replace(old, new)
        assert source != self.GOOD
        assert any(fault in line for line in complain(source))

    def test_finds_no_docstring(self, complain):
        assert any(CHECKS["GL08"] in line for line in complain("\ndef f(x, y):\n    return x + y"))

    def test_a_protocol_takes_nothing(self, complain):
        source = """
            from typing import Protocol

            class Found(Protocol):
                '''What was found.'''
        """
        assert complain(source, "Found") == []
        assert complain(source.replace("'''What was found.'''", "x: int"), "Found") != []

    def test_finds_a_field_that_nothing_describes(self, complain):
        source = '''
            from dataclasses import dataclass

            @dataclass
            class Found:
                """What was found."""

                x: int
                """Where."""
                y: int
        '''
        assert any(CHECKS["PR01"] in line for line in complain(source, "Found"))
        source = source.replace("y: int", 'y: int\n                """How high."""')
        assert complain(source, "Found") == []


def named_labels(value):
    """Return the labels that a docstring names."""
    return {found[2] for found in LABEL.finditer(getattr(value, "__doc__", None) or "")}


def unlinked(name, labels, page):
    """Return the labels that the entry of a name does not link to."""
    entry = page.find("dt", id=name)
    links = [urldefrag(link["href"]).fragment for link in entry.find_next_sibling("dd").select("a[href]")]
    return [f"{name}: {label}" for label in sorted(labels) if not {label, f"equation-{label}"} & set(links)]


def test_every_label_of_a_docstring_is_a_link():
    where = {tag["id"]: soup(name) for name in API_PAGES for tag in soup(name).select("dt.sig[id]")}
    named = {name: named_labels(value) for name, value in everything().items()}
    assert sum(map(len, named.values())) > 30
    found = [line for name, labels in named.items() for line in unlinked(name, labels, where[name])]
    pages.none(found, "labels that are not links")


def test_finds_a_label_that_is_no_link():
    html = '<dl><dt id="m.f">f</dt><dd><a href="a.html#equation-eq-one">(1)</a> eq-two</dd></dl>'
    assert unlinked("m.f", {"eq-one", "eq-two"}, BeautifulSoup(html, "html.parser")) == ["m.f: eq-two"]


class TestReferences:
    """A label in a docstring becomes a reference of its kind, and an unknown one stops the build."""

    @pytest.mark.parametrize(
        "line, want",
        [
            ("Label ``eq-kernel``; old.", "Equation :eq:`eq-kernel`; old."),
            ("Labels ``eq-a`` and ``eq-b-2``: both.", "Equations :eq:`eq-a` and :eq:`eq-b-2`: both."),
            ("Label ``thm-some-norm``.", ":prf:ref:`thm-some-norm`."),
            ("As in ``ch-preqn``.", "As in :ref:`ch-preqn`."),
            ("``alpha``, ``eq``, ``eq-A``", "``alpha``, ``eq``, ``eq-A``"),
        ],
    )
    def test_line(self, line, want):
        assert with_references(line) == want

    @pytest.mark.parametrize("place, known", [("here", True), ("nowhere", False)])
    def test_build(self, place, known, tmp_path):
        labels = [f"{kind}-{place}" for kind in ("eq", "thm", "ch")]
        (tmp_path / "index.rst").write_text(
            ".. _ch-here:\n\nHere\n====\n\n.. math:: x\n   :label: eq-here\n\n"
            ".. prf:theorem:: T\n   :label: thm-here\n\n   True.\n\n.. autofunction:: planted.f\n"
        )
        notes = " ".join(f"``{label}``" for label in labels)
        done = build(tmp_path, f'def f():\n    """Do it.\n\n    Notes\n    -----\n    {notes}\n    """\n')
        assert (done.returncode == 0) == known, done.stderr
        assert [label in done.stderr for label in labels] == [not known] * 3


def build(path, source):
    """Build a small book about a module with this source, warnings as errors."""
    (path / "planted.py").write_text(source)
    (path / "conf.py").write_text(
        f"import sys\nsys.path[:0] = [{str(pages.ROOT / 'tools')!r}, {str(path)!r}]\n"
        "extensions = ['sphinx.ext.autodoc', 'numpydoc', 'myst_parser', 'sphinx_proof', 'api_links']\n"
    )
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-n", "-W", "--keep-going", path, path / "out"]
    return subprocess.run(command, capture_output=True, text=True, cwd=path, check=False)


def test_a_page_that_is_written_again_keeps_its_links(tmp_path):
    """A page can be written and not read: the one with the table of contents is, whenever another one changes."""
    (tmp_path / "index.md").write_text(
        "# Index\n\n```{toctree}\nother\n```\n\n```python\nimport planted\nplanted.f()\n```\n"
    )
    index = tmp_path / "out" / "index.html"
    other = "Other\n=====\n\n.. automodule:: planted\n   :members:\n"
    for text in (other, other + "\nMore.\n"):
        (tmp_path / "other.rst").write_text(text)
        if index.exists():
            index.write_text(index.read_text(encoding="utf-8") + "<!-- old -->", encoding="utf-8")
        done = build(tmp_path, 'def f():\n    """Do it."""\n')
        assert done.returncode == 0, done.stderr
        text = index.read_text(encoding="utf-8")
        assert "<!-- old -->" not in text
        assert (
            dead_links(
                "index", BeautifulSoup(text, "html.parser"), {"planted.f", "module-planted"}, "sphinx-codeautolink-a"
            )
            == []
        )


def dead_links(name, page, known, css):
    """Return the links of a kind that lead to no entry; where there is none at all, say that."""
    links = page.select(f"a.{css}")
    lost = [f"{name}: {link['href']}" for link in links if urldefrag(link["href"]).fragment not in known]
    return lost if links else [f"{name}: no link"]


@functools.cache
def anchors():
    """Return all to which a link may lead."""
    return {tag["id"] for name in API_PAGES for tag in soup(name).select("dt.sig[id], [id^=module-]")}


@pytest.mark.parametrize("name", CHAPTERS)
def test_code_of_a_chapter_leads_to_the_api(name):
    pages.none(dead_links(name, soup(name), anchors(), "sphinx-codeautolink-a"), "code cells")


def test_chapters_are_found():
    assert {f"book/{stem}" for stem in ("bellman", "key_equation", "contraction", "preqn")} <= set(CHAPTERS)


@pytest.mark.parametrize(
    "html, want",
    [
        ("<p>none</p>", ["p: no link"]),
        ('<a class="c" href="api.html#m.g">g</a>', ["p: api.html#m.g"]),
        ('<a class="c" href="api.html#m.f">f</a>', []),
    ],
)
def test_finds_dead_links(html, want):
    assert dead_links("p", BeautifulSoup(html, "html.parser"), {"m.f"}, "c") == want


def test_names_in_the_notation_are_links():
    """Whatever the column "in the code" calls by its module leads to its entry."""
    assert dead_links("notation", soup("book/notation"), anchors(), "api-link") == []
    shorts = {module.__name__.removeprefix(f"{PACKAGE}.") for module in modules()}
    codes = soup("book/notation").select("td code")
    called = [code for code in codes if code.text.partition(".")[0] in shorts and "." in code.text]
    assert len(called) > 30
    pages.none([code.text for code in called if not code.find_parent("a")], "names that are no links")


def test_titles_hold_no_links():
    titles = [title for name in toc_files() for title in soup(name).select("h1, h2, h3, h4")]
    assert [title.text for title in titles if title.select(".api-link")] == []


class TestNames:
    """What a piece of inline code stands for."""

    @pytest.mark.parametrize(
        "code, want",
        [
            ("bellman.value_iteration", "bellman.value_iteration"),
            ("bellman.policy_iteration(mdp).Q", "bellman.policy_iteration"),
            ("trajectory.values[k]", "dynamics.Trajectory.values"),
            ("mdp.flatten(Q)[i]", "mdp.FiniteMDP.flatten"),
            ("mdp.P", "mdp.FiniteMDP.P"),
        ],
    )
    def test_in_prose(self, code, want):
        assert f"{PACKAGE}.{want}" in list(candidates(code))

    @pytest.mark.parametrize("code", ["kernel", "K z = delta", "1 - terminated", "a b.c"])
    def test_not_a_name(self, code):
        assert list(candidates(code)) == []

    def test_in_a_docstring_the_nearest_comes_first(self):
        found = list(candidates("gram", ["p", "ntk", "Linearization"]))
        assert found == ["p.ntk.Linearization.gram", "p.ntk.gram", "p.gram"]

    def test_a_parameter_is_no_entry(self):
        assert list(candidates("kernel", ["p", "features", "f"], {"kernel"})) == []

    def test_alone_only_where_it_means_one_thing(self):
        kinds = {
            "a.Run": "class",
            "a.run": "function",
            "a.go_on": "function",
            "b.go_on": "function",
            "b.go_up": "function",
        }
        objects = {name: SimpleNamespace(objtype=kind) for name, kind in kinds.items()}
        assert unique_names(objects) == {"Run": "a.Run", "go_up": "b.go_up"}
