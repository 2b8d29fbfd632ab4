"""Which names a code cell of a notebook defines, takes from the cells before it, and changes.

A page that runs its cells in the browser runs before a cell only those of the earlier ones that it needs. What a cell
needs is read off its code, and where that leaves a choice too much is said to be needed and not too little: what may be
bound only on one path counts as taken from before, a function takes what its body may ask for when it is called. Not
seen is a change that a function makes to its argument, beside those of a short list, and one under a second name.
"""

import ast
import builtins
import functools
from dataclasses import dataclass, field
from types import SimpleNamespace

import nbformat
from reads import data, needs, parsed

BROWSER = frozenset(
    {"gymnasium", "ipywidgets", "jaxtyping", "matplotlib", "numpy", "pandas", "PIL", "scipy", "wadler_lindig"}
)
"""What others wrote and a page can import when its cells run in the browser, beside the standard library."""
CHANGES_ITS_ARGUMENT = frozenset(
    {"at", "copyto", "delattr", "fill_diagonal", "heapify", "heappush", "place", "put", "putmask", "setattr", "shuffle"}
)
"""Functions that change the first thing that they are given."""
DRAWS = frozenset({"default_rng", "Generator", "RandomState"})
"""Who makes a generator of random numbers: each use of one leaves it changed."""
HIDDEN = "remove-cell"
"""The tag of a cell that runs and is not shown."""


@dataclass
class Names:
    """What a cell does with names of the page."""

    defines: set[str] = field(default_factory=set)
    """Bound by the cell, or by a function of it that declares them global."""
    takes: set[str] = field(default_factory=set)
    """Used by it where a cell before it may have bound them."""
    changes: set[str] = field(default_factory=set)
    """Left bound to the same thing, which is another afterwards; all of them are taken, too."""
    later: set[str] = field(default_factory=set)
    """Asked for by its functions when they are called, perhaps by a later cell."""
    acts: set[str] = field(default_factory=set)
    """Bound or changed by its functions when they are called."""
    imports: set[str] = field(default_factory=set)
    """Those of the defined that are modules, or come out of one."""


class _Reader(ast.NodeVisitor):
    """Goes through a cell in the order in which it runs; `bound` is what is bound for sure by now."""

    def __init__(self):
        self.found, self.bound = Names(), set()

    def take(self, name):
        if name not in self.bound:
            self.found.takes.add(name)

    def bind(self, name):
        self.bound.add(name)
        self.found.defines.add(name)

    def change(self, node):
        """Note that what a name stands for is changed, through attributes and entries of it."""
        while isinstance(node, (ast.Attribute, ast.Subscript, ast.Starred, ast.Call)):
            node = node.func if isinstance(node, ast.Call) else node.value
        if isinstance(node, ast.Name):
            self.take(node.id)
            self.found.changes.add(node.id)

    def all(self, nodes):
        for node in nodes:
            if node is not None:
                self.visit(node)

    def branches(self, *parts):
        """Visit parts of which one runs, or none: bound for sure is afterwards what each of them binds."""
        before, after = set(self.bound), []
        for part in parts:
            self.bound = set(before)
            self.all(part)
            after.append(self.bound)
        self.bound = set.intersection(*after) if after else before

    def visit_Name(self, node):
        if isinstance(node.ctx, ast.Store):
            self.bind(node.id)
        elif isinstance(node.ctx, ast.Del):
            self.take(node.id)
            self.found.changes.add(node.id)
            self.bound.discard(node.id)
        else:
            self.take(node.id)

    def visit_Attribute(self, node):
        self.visit(node.value)
        if not isinstance(node.ctx, ast.Load):
            self.change(node)

    def visit_Subscript(self, node):
        self.all([node.value, node.slice])
        if not isinstance(node.ctx, ast.Load):
            self.change(node)

    def visit_Assign(self, node):
        self.all([node.value, *node.targets])

    def visit_AnnAssign(self, node):
        self.all([node.annotation, node.value])
        if node.value is not None or not isinstance(node.target, ast.Name):
            self.visit(node.target)

    def visit_AugAssign(self, node):
        if isinstance(node.target, ast.Name):
            self.take(node.target.id)
        self.all([node.value, node.target])

    def visit_NamedExpr(self, node):
        self.all([node.value, node.target])

    def visit_Import(self, node):
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            self.bind(name)
            self.found.imports.add(name)

    visit_ImportFrom = visit_Import

    def visit_Expr(self, node):
        self.visit(node.value)
        call = node.value.value if isinstance(node.value, ast.Await) else node.value
        if isinstance(call, ast.Call):  # a call for what it does, since what it returns is not kept
            if isinstance(call.func, ast.Attribute):
                self.change(call.func)

    def visit_Call(self, node):
        self.generic_visit(node)
        last = getattr(node.func, "attr", getattr(node.func, "id", None))
        if last in CHANGES_ITS_ARGUMENT and node.args:
            self.change(node.args[0])
        for keyword in node.keywords:
            if keyword.arg == "out":
                self.change(keyword.value)

    def visit_If(self, node):
        self.visit(node.test)
        self.branches(node.body, node.orelse)

    def visit_IfExp(self, node):
        self.visit(node.test)
        self.branches([node.body], [node.orelse])

    def visit_BoolOp(self, node):
        self.visit(node.values[0])
        self.branches(node.values[1:], [])

    def visit_While(self, node):
        self.visit(node.test)
        self.branches([*node.body, *node.orelse], [])

    def visit_For(self, node):  # what it goes through is taken for not empty
        self.all([node.iter, node.target, *node.body, *node.orelse])

    visit_AsyncFor = visit_For

    def visit_Try(self, node):
        self.branches([*node.body, *node.orelse], *([handler] for handler in node.handlers), [])
        self.all(node.finalbody)

    visit_TryStar = visit_Try

    def visit_ExceptHandler(self, node):
        if node.type is not None:
            self.visit(node.type)
        if node.name:
            self.bound.add(node.name)
        self.all(node.body)
        if node.name:
            self.bound.discard(node.name)

    def visit_With(self, node):
        for item in node.items:
            self.all([item.context_expr, item.optional_vars])
        self.all(node.body)

    visit_AsyncWith = visit_With

    def visit_Match(self, node):
        self.visit(node.subject)
        self.branches(*([case] for case in node.cases), [])

    def visit_match_case(self, node):
        self.all([node.pattern, node.guard, *node.body])

    def visit_MatchAs(self, node):
        self.all([node.pattern])
        if node.name:
            self.bind(node.name)

    def visit_MatchStar(self, node):
        if node.name:
            self.bind(node.name)

    def visit_MatchMapping(self, node):
        self.all([*node.keys, *node.patterns])
        if node.rest:
            self.bind(node.rest)

    def comprehension(self, node):
        first, *others = node.generators
        self.visit(first.iter)
        inner = _Reader()
        inner.visit(first.target)
        inner.all(first.ifs)
        for generator in others:
            inner.all([generator.iter, generator.target, *generator.ifs])
        own = {name.id for part in node.generators for name in ast.walk(part.target) if isinstance(name, ast.Name)}
        inner.all([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt])
        for name in inner.found.takes - own:
            self.take(name)
        self.found.changes |= inner.found.changes - own
        self.found.later |= inner.found.later - own
        self.found.defines |= inner.found.defines - own  # by := it binds outside, if it comes to it

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = comprehension

    def visit_FunctionDef(self, node):
        arguments = node.args
        self.all([*getattr(node, "decorator_list", ()), *arguments.defaults, *arguments.kw_defaults])
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        self.all([argument.annotation for argument in every if argument is not None])
        body = node.body
        if isinstance(node, ast.Lambda):
            body = [node.body]
        else:
            self.all([node.returns])
            self.bind(node.name)
        asked, written, changed = _outside(body, {argument.arg for argument in every if argument is not None})
        for name in asked:
            self.take(name)
        self.found.later |= asked
        self.found.defines |= written  # by "global"
        self.found.acts |= written | changed

    visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef

    def visit_ClassDef(self, node):
        self.all([*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords)])
        inner = _Reader()
        inner.all(node.body)
        for name in inner.found.takes:
            self.take(name)
        self.found.later |= inner.found.later
        self.bind(node.name)


def _outside(body, arguments):
    """Return the names that a body of a function asks of outside, those that it binds there, and that it changes."""
    inner = _Reader()
    inner.all(body)
    declared = {name for node in _own(body) if isinstance(node, ast.Global) for name in node.names}
    beyond = {name for node in _own(body) if isinstance(node, ast.Nonlocal) for name in node.names}
    own = (inner.found.defines | arguments) - declared - beyond
    asked = (inner.found.takes | inner.found.later | inner.found.changes) - own
    return asked, inner.found.defines & declared, (inner.found.changes | inner.found.acts) - own


def _own(body):
    """Go through the statements of a function, and not through those of the functions in it."""
    todo = list(body)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            todo += ast.iter_child_nodes(node)


@functools.cache
def names(source):
    """Return the `Names` of a cell.

    Parameters
    ----------
    source : str
        Its code.

    Returns
    -------
    Names
        Without the names that Python itself has, unless the cell binds them.
    """
    reader = _Reader()
    tree = parsed(source)
    reader.all(tree.body)
    found = reader.found
    found.takes |= found.defines - reader.bound  # bound on some path only: on the others it is what it was
    known = set(dir(builtins)) - found.defines
    for kind in (found.takes, found.changes, found.later):
        kind -= known
    return found


def _generators(sources):
    """Return the names that some cell binds to a generator of random numbers."""
    found = set()
    for tree in map(parsed, sources):
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                made = node.value.func
                if getattr(made, "attr", getattr(made, "id", None)) in DRAWS:
                    found |= {
                        name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)
                    }
    return found


def changes(all_sources):
    """Return for each cell the names whose things it changes, generators of random numbers that it uses among them."""
    read = [names(source) for source in all_sources]
    drawn = _generators(all_sources)
    modules = set().union(*(one.imports for one in read))  # plt.show() changes no plt
    found = []
    for at, one in enumerate(read):
        called = [other.acts for other in read[: at + 1] if other.defines & one.takes]
        found.append((one.changes | (one.takes & drawn) | set().union(*called)) - modules)
    return found


def sources_of(all_sources):
    """Return for each cell where the names that it takes come from.

    Parameters
    ----------
    all_sources : list of str
        The code of the cells, in the order of the page.

    Returns
    -------
    list of dict
        For each cell, from a name to the numbers of the cells before it that make what it finds under that name: the
        last that binds it, and after that those that change it. A name that no cell before it binds is left out.
    """
    read = [names(source) for source in all_sources]
    changed = changes(all_sources)

    def makers(name, at):
        last = next((i for i in range(at - 1, -1, -1) if name in read[i].defines), None)
        return [] if last is None else [last, *(i for i in range(last + 1, at) if name in changed[i])]

    found = []
    for at, one in enumerate(read):
        here, todo = {}, sorted(one.takes)
        while todo:
            name = todo.pop()
            if name in here or not (made_by := makers(name, at)):
                continue
            here[name] = made_by
            # a function that is taken asks, when it is called here, for names as they are here
            todo += sorted(name for i in made_by for name in read[i].later - read[i].imports)
        found.append(here)
    return found


@functools.cache
def others(source):
    """Return the modules of others that a piece of code imports, itself or through modules of the package."""
    return frozenset(needs(SimpleNamespace(cells=[_cell(source)])))


def _cell(source):
    return SimpleNamespace(cell_type="code", source=source)


def page(notebook):
    """Return what a page must know of its code cells to run them in the browser.

    Parameters
    ----------
    notebook : NotebookNode
        A notebook of the book.

    Returns
    -------
    list of dict
        For each code cell, in order: ``id``; ``source``; ``hidden``, whether it is not shown; ``takes``, as in
        `sources_of`; ``defines`` and ``changes``, the names that it binds, and those that it changes; and ``asks``,
        what keeps it from running in a browser: a module, ``"data"`` for files that lie beside the package, ``""`` for
        nothing. A cell that takes a name from one that cannot run cannot run either.
    """
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    texts = [cell.source for cell in code]
    found = []
    for cell, taken, written in zip(code, sources_of(texts), changes(texts), strict=True):
        one = names(cell.source)
        foreign = others(cell.source) - BROWSER
        reads_data = data(SimpleNamespace(cells=[_cell(cell.source)]))
        asks = "torch" if "torch" in foreign else min(foreign, default="data" if reads_data else "")
        before = sorted({maker for makers in taken.values() for maker in makers})
        asks = asks or next((found[maker]["asks"] for maker in before if found[maker]["asks"]), "")
        found.append(
            {
                "id": cell.id,
                "source": cell.source,
                "hidden": HIDDEN in cell.metadata.get("tags", ()),
                "takes": taken,
                "defines": sorted(one.defines),
                "changes": sorted(written),
                "asks": asks,
            }
        )
    return found


if __name__ == "__main__":
    import sys

    for path in sys.argv[1:]:
        for number, cell in enumerate(page(nbformat.read(path, as_version=4))):
            print(number, cell["id"], cell["asks"] or "-", {n: m for n, m in cell["takes"].items()})
