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


class TestPaper:
    """The paper about the book says what is there."""

    TEXT = (ROOT / "paper.md").read_text(encoding="utf-8")

    def test_its_sources_are_in_the_bibliography(self):
        head, text = self.TEXT.split("\n---\n", 1)
        bibliography = (ROOT / yaml.safe_load(head)["bibliography"]).read_text(encoding="utf-8")
        cited = set(re.findall(r"@(\w+)", text))
        assert len(cited) > 5 and cited <= set(re.findall(r"(?m)^@\w+\{(\w+),", bibliography))

    def test_it_counts_right(self):
        """Its one number: a chapter and an assignment for each."""
        assert re.findall(r"\d+|\b(?:two|three|four|five|six|seven)\b", self.TEXT.split("# Summary")[1]) == [
            "six",
            *YEARS,
        ]
        (part,) = [one for one in yaml.safe_load((ROOT / "_toc.yml").read_text())["parts"] if one.get("numbered")]
        assert len(part["chapters"]) == len(list((ROOT / "coursework" / "source").glob("*/*.ipynb"))) == 6

    def test_its_author_and_title_are_the_books(self):
        head = yaml.safe_load(self.TEXT.split("\n---\n", 1)[0])
        cff, _ = stated()
        assert head["title"].partition(":")[0] == cff["title"].partition(":")[0]
        assert [author["name"] for author in head["authors"]] == [cff["author"]]


YEARS = ["2019", "1995", "1997", "2018", "1922", "1994", "2009", "2018"]  # of the sources, within their keys
