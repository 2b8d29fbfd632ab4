"""What a notebook imports and reads: what must be installed for it, and what its outputs are computed from.

The walk starts at the imports of its cells and goes on through the modules of the package. That it finds what the
chapters really import and open is tested, by running them.
"""

import ast
import functools
import hashlib
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "divergence_notes"
LOCK = "requirements.txt"
WITH_KERNEL = {"IPython"}  # who runs a notebook has it
DATA = ("book/results/*", "book/agents", "book/*.csv", "coursework")
"""Files and folders that a cell may read; it does when it has their name in a piece of text."""
KINDS = (".csv", ".ipynb", ".pt")
"""The endings of what is read there."""
SHIPPED = (".css", ".js")
"""The endings of what a module of the package may read beside itself; it does when it has the name in a text."""
SHOWS_SOURCE = {"__doc__", "getdoc", "getsource", "getsourcelines", "help"}
"""Who uses one of these may print a comment or a docstring, which otherwise change no output."""


@functools.cache
def parsed(source):
    """Return the syntax tree of a piece of code. It is shared: leave it as it is."""
    return ast.parse(source)


def cells(notebook):
    """Return the syntax trees of the code cells."""
    return [parsed(cell.source) for cell in notebook.cells if cell.cell_type == "code"]


def imported(statements):
    """Return the dotted names that these statements import."""
    names = set()
    for node in statements:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@functools.cache
def imported_anywhere(tree):
    """Return the dotted names that a piece of code imports, within functions too."""
    return frozenset(imported(ast.walk(tree)))


def at_import(path):
    """Return what a module imports as soon as it is imported; what a function imports when called is none of it."""
    body = parsed(path.read_text(encoding="utf-8")).body
    blocks = [line for node in body if isinstance(node, ast.With) for line in node.body]  # `_extras.needs`
    return imported(body + blocks)


def ever(path):
    """Return all that a module may import: within functions too, and by a name that is computed, from its folder."""
    tree = parsed(path.read_text(encoding="utf-8"))
    names = imported_anywhere(tree)
    if "import_module" in words(tree):
        folder = path.parent.relative_to(ROOT).parts
        names |= {".".join([*folder, file.stem]) for file in path.parent.glob("[!_]*.py")}
    return names


def walk(notebook, follow):
    """Return the dotted names that a notebook imports, and the files of the package that this leads to.

    Parameters
    ----------
    notebook : NotebookNode
        Any notebook.
    follow : callable
        From the path of a module to the names that it imports: `at_import`, or `ever`.

    Returns
    -------
    names, files : set of str, set of Path
        What is imported, by a cell or by one of the files.
    """
    todo, names, files = set().union(*map(imported_anywhere, cells(notebook))), set(), set()
    while todo:
        name = todo.pop()
        if name in names:
            continue
        names.add(name)
        parts = name.split(".")
        if parts[0] == PACKAGE:
            todo |= {".".join(parts[:-1])} - {""}
            path = ROOT.joinpath(*parts)
            for file in (path.with_suffix(".py"), path / "__init__.py"):
                if file.is_file():
                    files.add(file)
                    todo |= follow(file)
    return names, files


def needs(notebook):
    """Return the modules of others that a notebook imports, itself or through modules of the package."""
    names, _ = walk(notebook, at_import)
    tops = {name.split(".")[0] for name in names}
    return tops - {PACKAGE} - WITH_KERNEL - set(sys.stdlib_module_names)


@functools.cache
def words(tree):
    """Return the names that a piece of code uses, attributes and imports too, each by itself."""
    used = {getattr(node, "id", None) or getattr(node, "attr", None) for node in ast.walk(tree)}
    return used | {name.rpartition(".")[2] for name in imported_anywhere(tree)}


def texts(tree):
    """Return the pieces of text in a piece of code."""
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@functools.cache
def without_docstrings(source):
    """Return a piece of code in a form in which comments, docstrings and layout make no difference."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            # what documents a constant is a statement of its own, too
            node.body = [line for line in node.body if not is_text(line)] or [ast.Pass()]
    return ast.dump(tree)


def is_text(statement):
    """Say whether a statement is nothing but a piece of text."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def data(notebook):
    """Return the files of data that a notebook reads: what a cell names, and all in a folder that it names."""
    named = {part for tree in cells(notebook) for text in texts(tree) for part in text.split("/")}
    there = [path for pattern in DATA for path in ROOT.glob(pattern) if path.name in named]
    return {file for path in there for file in (path, *path.rglob("[!.]*")) if file.suffix in KINDS and file.is_file()}


def beside(path, source):
    """Return the files beside a module of the package that it reads, from its path and its source."""
    named = {text for text in texts(parsed(source)) if text.endswith(SHIPPED)}
    return {path.parent / name for name in named if (path.parent / name).is_file()}


def sources(notebook):
    """Return {path: bytes} of all that the outputs of a notebook are computed from, itself aside.

    Parameters
    ----------
    notebook : NotebookNode
        A notebook of the book.

    Returns
    -------
    dict
        The lock and the data, as they are, those that lie beside a module too; and the modules of the package that it
        imports, without comments and docstrings, unless the notebook or one of them looks at those.
    """
    _, files = walk(notebook, ever)
    text = {path: path.read_text(encoding="utf-8") for path in files}
    shown = any(SHOWS_SOURCE & words(tree) for tree in [*cells(notebook), *map(parsed, text.values())])
    modules = {path: (source if shown else without_docstrings(source)).encode() for path, source in text.items()}
    plain = {ROOT / LOCK, *data(notebook)}.union(*(beside(path, source) for path, source in text.items()))
    return modules | {path: path.read_bytes() for path in plain}


def key(notebook):
    """Return a hash that changes when the outputs of a notebook may change though its cells are the same."""
    digest = hashlib.sha256(f"Python {sys.version_info[:2]}".encode())
    for path, text in sorted(sources(notebook).items()):
        digest.update(f"\0{path.relative_to(ROOT).as_posix()}\0".encode() + hashlib.sha256(text).digest())
    return digest.hexdigest()


def keyed(notebook, made_from=None):
    """Return a notebook with its key, or another, as a property of its kernel: Jupyter Cache tells runs apart by it."""
    metadata = notebook.metadata | {
        "kernelspec": notebook.metadata.kernelspec | {"made_from": made_from or key(notebook)}
    }
    return nbformat.from_dict(notebook | {"metadata": metadata})
