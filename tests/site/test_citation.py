"""The ways to cite the book agree with each other and with the package."""

import re
import tomllib

import pytest
import yaml

from tests.pages import BOOK, ROOT


def stated():
    """Return title, author and version as each file has them."""
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {
        "title": cff["title"],
        "author": cff["authors"][0]["name"],
        "version": cff["version"],
    }, {"version": project["version"], "author": project["authors"][0]["name"]}


def bibtex(text):
    """Return the fields of an entry."""
    fields = re.findall(r"^\s*(\w+)\s*=\s*(\{[^=]*\}),$", text, re.M)
    return {name: " ".join(value.strip("{}").split()) for name, value in fields}


def disagreements(text):
    """Return the fields in which an entry differs from the citation file, or that from the package."""
    cff, project = stated()
    entry = bibtex(text)
    found = [name for name in ("title", "author") if entry.get(name) != cff[name]]
    found += ["note"] * (entry.get("note") != f"Version {cff['version']}")
    return found + [name for name in project if project[name] != cff[name]]


def test_they_agree():
    assert disagreements((BOOK / "citation.bib").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [("Version 0", "Version 9", "note"), ("blows up", "fails", "title"), ("The D", "D", "author")],
)
def test_a_disagreement_is_found(old, new, field):
    text = (BOOK / "citation.bib").read_text(encoding="utf-8")
    assert old in text
    assert disagreements(text.replace(old, new)) == [field]
