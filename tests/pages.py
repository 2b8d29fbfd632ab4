"""The sources of the book, read for the tests: pages, notebooks, labels, display equations."""

import functools
import re
from pathlib import Path

import nbformat

from tools.build_book import toc_files

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
NOTEBOOKS = sorted(BOOK.glob("*.ipynb"))
NUMBERED = [ROOT / f"{file}.ipynb" for file in toc_files(numbered=True)]
"""The pages with a number, in reading order: the chapters, and the parts of one that has several pages."""
APPENDIX = sorted(BOOK.glob("reproduction*.ipynb"))
PAGES = [*NOTEBOOKS, *sorted(BOOK.glob("*.md"))]
LABEL = re.compile(r"(ch|sec|eq|thm|alg|fig|ex|sol|corr|claim)-[a-z0-9]+(-[a-z0-9]+)*")
REFUTED = "% refuted"  # in a display equation: it is quoted to be refuted, and carries no label


def none(found, advice):
    """Fail with the advice and one line for each thing found."""
    assert not found, "\n  ".join([f"{advice}:", *map(str, found)])


@functools.cache
def notebook(path):
    """Return a notebook."""
    return nbformat.read(path, as_version=4)


def code_cells(path):
    """Return the code cells of a notebook."""
    return [cell for cell in notebook(path).cells if cell.cell_type == "code"]


def tags(cell):
    """Return the tags of a cell."""
    return cell.metadata.get("tags", [])


def without_code(text):
    """Return MyST Markdown without its blocks and spans of code; directives stay."""
    kept, fences, code = [], [], ""  # open directives; the fence of the code block we are in
    for line in text.splitlines():
        mark, info = re.fullmatch(r"\s*(`{3,}|~{3,}|:{3,}|)(.*)", line).groups()
        closes = mark and not info.strip()
        if code:
            code = "" if closes and mark.startswith(code) else code
            continue
        if closes and fences and mark.startswith(fences[-1]):
            fences.pop()
        elif mark and re.match(r"\{(?!code)", info):
            fences.append(mark)
        elif mark and mark[0] != ":":
            code = mark
            continue
        kept.append(line)
    return re.sub(r"(\{[\w:]+\}`[^`\n]+`)|(?<!`)`[^`\n]+`", r"\1", "\n".join(kept))


@functools.cache
def markdown(path):
    """Return the prose of a page."""
    if path.suffix == ".md":
        return without_code(path.read_text(encoding="utf-8"))
    return "\n\n".join(without_code(cell.source) for cell in notebook(path).cells if cell.cell_type == "markdown")


def equations(path):
    """Return the display equations of a page: (label or None, TeX)."""
    return [
        (found["label"], found["tex"].strip())
        for found in re.finditer(r"\$\$(?P<tex>.+?)\$\$(?:[ \t]*\((?P<label>[^)\s]+)\))?", markdown(path), re.S)
    ]


def without_equations(path):
    """Return the prose of a page without its display equations."""
    return re.sub(r"\$\$.+?\$\$", "", markdown(path), flags=re.S)


def printed():
    """Return the TeX of every labelled equation of the book, white space aside."""
    return {label: " ".join(tex.split()) for path in PAGES for label, tex in equations(path) if label}


def figures(path):
    """Return the figure metadata of the cells of a notebook."""
    return [
        cell.metadata["mystnb"]["figure"] for cell in code_cells(path) if "figure" in cell.metadata.get("mystnb", {})
    ]


def labels(path):
    """Return every label that a page defines, in no order, repeated when it is defined twice."""
    text = markdown(path)
    found = re.findall(r"^\(([^)\s]+)\)=\s*$", text, re.M) + re.findall(r"^\s*:(?:label|name):[ \t]*(\S+)", text, re.M)
    found += [label for label, _ in equations(path) if label]
    return found + ([figure.get("name", "") for figure in figures(path)] if path.suffix == ".ipynb" else [])


def references(path):
    """Return the labels that the text of a page refers to."""
    return set(re.findall(r"\{(?:eq|ref|numref|prf:ref)\}`(?:[^`<]*<)?([^`<>]+)>?`", markdown(path)))


def printed_by(chapter, cell):
    """Return what a checked cell of a chapter has printed."""
    (found,) = [each for each in code_cells(BOOK / f"{chapter}.ipynb") if each.id == cell]
    assert "nbval-check-output" in found.metadata.tags
    return "".join(output.text if "text" in output else output.data["text/plain"] for output in found.outputs)
