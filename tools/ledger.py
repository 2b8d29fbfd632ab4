"""What the two ledgers of the book share: entries, the tests and labels that they name, and the page made of them."""

import ast
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent


def load(path):
    """Return the entries."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def tests_in(folder=ROOT / "tests"):
    """Return every test of a folder: file::class, file::class::function and file::function."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("test_*.py"))}
    return {test for name, path in files.items() for test in tests_of(name, path.read_text("utf-8"))}


def tests_of(name, text):
    """Return the tests in the text of one file."""
    found, file = set(), f"tests/{name}"
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            found.add(f"{file}::{node.name}")
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            inside = [f for f in node.body if isinstance(f, ast.FunctionDef) and f.name.startswith("test")]
            found |= {f"{file}::{node.name}::{f.name}" for f in inside}
            found |= {f"{file}::{node.name}"} if inside else set()
    return found


def is_test(reference):
    """Say whether a reference is a test; otherwise it is a label."""
    return "::" in reference


def link(label):
    """Return how a page writes a label."""
    if label.startswith("eq-"):
        return f"equation {{eq}}`{label}`"
    if label.startswith("fig-"):
        return f"{{numref}}`{label}`"
    return f"{{prf:ref}}`{label}`" if label.startswith("thm-") else f"{{ref}}`{label}`"


def test_names(file, tests):
    """Return how a page writes tests of one file: their names and the file."""
    names = ", ".join(f"`{test.split('::', 1)[1]}`" for test in tests)
    return f"{names} in `{Path(file).name if file.startswith('tests/') else file}`"


def block(anchor, head, lines):
    """Return one entry: an anchor, what is said, and indented below it the paragraphs about it."""
    first, *others = lines
    return f"({anchor})=\n{head}\n" + "\n\n".join([f": {first}", *(f"  {line}" for line in others)])


def counts(title, kinds, entries_of):
    """Return the table that says what each badge means and how many entries carry it."""
    rows = [f"| {badge(kinds, kind)} | {len(entries_of(kind))} | {meaning} |" for kind, (_, meaning) in kinds.items()]
    return "\n".join([f"| {title} | Claims | What it means |", "|---|---:|---|", *rows])


def badge(kinds, kind):
    """Return the coloured word for a kind."""
    return f"{{bdg-{kinds[kind][0]}}}`{kind}`"


def joined(blocks):
    """Return the text of a page."""
    return "\n\n".join(block.strip("\n") for block in blocks) + "\n"
