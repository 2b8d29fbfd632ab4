"""Each module's head: in one line what lives there, and then where to look for what does not."""

import ast
import re

import pytest

from tests import pages

PACKAGE = pages.ROOT / "divergence_notes"
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def known():
    """Return what a head can point to: modules by their names, and what is in them."""
    names = {path.stem for path in SOURCES} | {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return names


def wanting(source, name, names):
    """Say what the head of a module lacks, or None; that of a study is its question and its protocol."""
    first, _, rest = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")
    if "\n" in first or not first.endswith((".", "?")):
        return "its first line is no sentence"
    if not rest:
        return "it does not say more"
    if name.startswith("studies/"):
        return None
    pointers = set(re.findall(r"(?<!`)`([\w.]+)`(?!`)", rest))
    unknown = {pointer for pointer in pointers if not set(pointer.split(".")) <= names}
    if unknown:
        return f"it points to {unknown}, which is nowhere"
    elsewhere = {path.stem for path in SOURCES} | {"grading", "plotting"}
    return (
        None if {pointer.split(".")[0] for pointer in pointers} & elsewhere else "it does not say what lives elsewhere"
    )


def test_each_head_says_what_lives_there_and_what_does_not():
    names, found = known(), []
    for path in SOURCES:
        name = path.relative_to(PACKAGE).as_posix().removesuffix(".py")
        lack = wanting(path.read_text(encoding="utf-8"), name, names)
        if lack:
            found.append(f"{name}: {lack}")
    pages.none(found, "heads that say too little")


@pytest.mark.parametrize(
    ("source", "lack"),
    [
        ("x = 1", "its first line is no sentence"),
        ('"""Numbers"""', "its first line is no sentence"),
        ('"""Numbers."""', "it does not say more"),
        ('"""Numbers.\n\nOf all kinds."""', "it does not say what lives elsewhere"),
        ('"""Numbers.\n\nPictures are `pictures`."""', "it points to {'pictures'}, which is nowhere"),
        ('"""Numbers.\n\nPictures are `plotting`; a ``word`` is none."""', None),
    ],
)
def test_a_head_that_says_too_little_is_found(source, lack):
    assert wanting(source, "numbers", known()) == lack
