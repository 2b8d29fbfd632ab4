"""Answers that are typed in: numbers and letters that stand in a cell as such, and not what a program makes of them.

A question that asks what a long run prints, or for a prediction, asks a person. So what is written after the name
counts, as the parser of Python reads it, and nothing that runs. How an answer is judged is in `checking`; which of them
must be typed in is the coursework's affair.
"""

import ast
import operator
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from divergence_notes.grading.exercise import Result

LONGEST = 10_000
"""Entries of a list, and bits of a number, that are written as an expression."""
ALLOWED = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_handed_in: list[list[str]] = []


@dataclass(frozen=True)
class Computed:
    """In the place of an answer that is not typed in."""

    name: str
    """Of the variable."""
    source: str
    """What stands after its name."""
    value: Any = ...
    """What came of it, where it was run."""

    @property
    def said(self) -> str:
        """What there is to say about it."""
        return (
            f"{self.name} must be typed in, as a number or a letter, and is computed: {self.source}. Type in what came "
            "out: what has a name or a call in it earns nothing"
        )


class _NotTyped(Exception):
    """An expression needs something that has to be run."""


def find(name: str, cells: Iterable[str]) -> Any:
    """Return what cells assign to a name in the end, if it is typed in.

    Parameters
    ----------
    name : str
        Of the variable.
    cells : iterable of str
        The sources, in the order in which they run. One that cannot be parsed assigns nothing.

    Returns
    -------
    object
        The value; a `Computed` where the last assignment is anything but numbers, texts and lists of them, with a sign
        or put together by arithmetic; ``...`` where there is no assignment.

    Examples
    --------
    >>> find("x", ["x = 2 * 10**3  # by hand"])
    2000
    >>> find("x", ["y = 3", "x = y"]).source
    'y'
    """
    found = ...
    for source in cells:
        for statement in _parsed(source):
            found = _after(statement, name, found)
    return found


def answer(name: str, cells: Iterable[str], value: Any) -> Any:
    """Return what counts as an answer: what is typed in, or a `Computed` that holds what came of it.

    Parameters
    ----------
    name : str
        Of the variable.
    cells : iterable of str
        As in `find`.
    value : object
        What it stands for after the cells were run.

    Returns
    -------
    object
        As of `find`.
    """
    found = find(name, cells)
    if found is ... and value is not None and value is not ...:
        found = Computed(name, "what no cell assigns to it")
    return replace(found, value=value) if isinstance(found, Computed) else found


def _after(statement: ast.stmt, name: str, before: Any) -> Any:
    """Return what a name stands for after a statement, of which all parts count, whether they run or not."""
    values = [_read(name, value) for value in _assigned(statement, name)]
    if not values:
        return before
    alternatives = len(list(_inside(statement))) > 1
    if alternatives and any(repr(value) != repr(values[-1]) for value in values):
        return Computed(name, "another answer under another condition")
    return values[-1]


def _read(name: str, node: ast.AST) -> Any:
    try:
        return _value(node)
    except (_NotTyped, ArithmeticError, RecursionError):
        return Computed(name, " ".join(ast.unparse(node).split())[:60])


def _value(node: ast.AST) -> Any:
    """Return the value of an expression of constants."""
    match node:
        case ast.Constant():
            return node.value
        case ast.Tuple() | ast.List() | ast.Set():
            made = {ast.Tuple: tuple, ast.List: list, ast.Set: set}[type(node)]
            try:
                return made([_value(part) for part in node.elts])
            except TypeError:  # a list in a set
                raise _NotTyped from None
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            value = _number(_value(node.operand))
            return -value if isinstance(node.op, ast.USub) else +value
        case ast.BinOp() if type(node.op) in ALLOWED:
            return _arithmetic(node.op, _value(node.left), _value(node.right))
    raise _NotTyped


def _number(value: Any) -> Any:
    if not isinstance(value, (int, float, complex)):
        raise _NotTyped
    return value


def _arithmetic(op: ast.operator, left: Any, right: Any) -> Any:
    """Return what two values make, if that can be had at once."""
    if isinstance(right, (list, tuple)) and isinstance(op, ast.Mult):
        left, right = right, left
    if isinstance(left, (list, tuple)):
        if isinstance(op, ast.Mult) and isinstance(right, int) and len(left) * right <= LONGEST:
            return left * right
        if isinstance(op, ast.Add) and type(left) is type(right) and len(left) + len(right) <= LONGEST:
            return left + right
        raise _NotTyped
    for value in (left, right):
        if isinstance(_number(value), int) and value.bit_length() > LONGEST:
            raise _NotTyped
    if isinstance(op, ast.Pow) and isinstance(left, int) and isinstance(right, int):
        if left.bit_length() * abs(right) > LONGEST:
            raise _NotTyped
    try:
        return ALLOWED[type(op)](left, right)
    except TypeError:  # the remainder of a complex number
        raise _NotTyped from None


def _inside(statement: ast.stmt) -> Iterator[ast.stmt]:
    """List a statement, or those of its blocks, in their order; those of a function are its own affair."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield statement
        return
    blocks = [getattr(statement, field, []) for field in ("body", "orelse", "finalbody")]
    blocks += [part.body for field in ("handlers", "cases") for part in getattr(statement, field, [])]
    yield statement
    for block in blocks:
        for inner in block if isinstance(block, list) else []:
            yield from _inside(inner)


def _assigned(statement: ast.stmt, name: str) -> Iterator[ast.AST]:
    """List what a statement gives to a name; what is given in another way than by ``=`` is no expression."""
    for inner in _inside(statement):
        match inner:
            case ast.Assign():
                for target in inner.targets:
                    yield from _matched(target, inner.value, name)
            case ast.AnnAssign(value=ast.expr()):
                yield from _matched(inner.target, inner.value, name)
            case ast.AugAssign():
                yield from [inner] * (name in _bound(inner.target))
            case ast.For() | ast.AsyncFor():
                yield from [ast.Expr(inner.iter)] * (name in _bound(inner.target))
            case ast.With() | ast.AsyncWith():
                yield from [ast.Expr(item.context_expr) for item in inner.items if name in _bound(item)]
            case ast.Import() | ast.ImportFrom():
                yield from [inner] * any((part.asname or part.name.split(".")[0]) == name for part in inner.names)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield from [ast.Expr(ast.Name(f"a definition of {name}"))] * (inner.name == name)
                continue
        for part in ast.iter_child_nodes(inner):
            walked = ast.walk(part) if isinstance(part, ast.expr) else ()
            yield from (node.value for node in walked if isinstance(node, ast.NamedExpr) and node.target.id == name)


def _matched(target: ast.expr, value: ast.expr, name: str) -> Iterator[ast.AST]:
    """List what of a value goes to a name: the parts of a tuple go to those of another."""
    if isinstance(target, ast.Name):
        yield from [value] * (target.id == name)
    elif isinstance(target, (ast.Tuple, ast.List)) and name in _bound(target):
        parts = value.elts if isinstance(value, (ast.Tuple, ast.List)) else []
        starred = any(isinstance(part, ast.Starred) for part in (*target.elts, *parts))
        if len(parts) == len(target.elts) and not starred:
            for one, other in zip(target.elts, parts, strict=True):
                yield from _matched(one, other, name)
        else:
            yield ast.Expr(value)


def _bound(target: ast.AST) -> set[str]:
    """Return the names that a part of a statement gives a value to."""
    stored = [node for node in ast.walk(target) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    return {node.id for node in stored}


def _parsed(source: str) -> list[ast.stmt]:
    """Return the statements of a cell, those that a magic word times or captures too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of strange code, which is not ours
        try:
            body = ast.parse(source).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            body = _without_magic(source)
    return [inner for statement in body for inner in _timed(statement)]


def _without_magic(source: str) -> list[ast.stmt]:
    """Return the statements of a cell with words for IPython, or none."""
    if "IPython" not in sys.modules:
        return []
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        return ast.parse(TransformerManager().transform_cell(source)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _timed(statement: ast.stmt) -> list[ast.stmt]:
    match statement:
        case ast.Expr(
            ast.Call(
                ast.Attribute(ast.Call(ast.Name("get_ipython")), "run_cell_magic" | "run_line_magic"),
                [ast.Constant("time" | "capture"), *_, ast.Constant(str(source))],
            )
        ):
            return _parsed(source)
    return [statement]


def look_at(cells: Iterable[str] | None) -> None:
    """Say which cells `typed_in` looks at; None stands for those that were run in this notebook.

    Parameters
    ----------
    cells : iterable of str or None
        Their sources.
    """
    _handed_in[:] = [] if cells is None else [list(cells)]


def typed_in(*names: str) -> Result:
    """Say whether answers are typed in, as a question asks for that is about what a person reads or predicts.

    Parameters
    ----------
    *names : str
        Of the variables.

    Returns
    -------
    Result
        With what is computed, if anything is, and with what is still open.
    """
    cells = _handed_in[0] if _handed_in else _history()
    if cells is None:
        return Result("typed in", False, f"{', '.join(names)}: outside a notebook nobody looks.", judged=False)
    found = {name: find(name, cells) for name in names}
    computed = [value.said for value in found.values() if isinstance(value, Computed)]
    if computed:
        return Result("typed in", False, f"No. {'; '.join(computed)}.", judged=False)
    missing = [name for name, value in found.items() if value is ... or value is None]
    if missing:
        return Result("typed in", False, f"Nothing here yet: {', '.join(missing)}.", open=True, judged=False)
    return Result("typed in", True, f"Yes: {', '.join(names)}.", judged=False)


def _history() -> list[str] | None:
    """Return what was run in this notebook, or None outside of one."""
    if "IPython" not in sys.modules:
        return None
    shell = sys.modules["IPython"].get_ipython()
    return None if shell is None else list(shell.user_ns.get("In", ()))


def asked(source: str) -> list[str]:
    """List the names that a test wants typed in.

    Parameters
    ----------
    source : str
        Of a cell that calls `typed_in`.

    Returns
    -------
    list of str
        In their order.
    """
    calls = [node for statement in _parsed(source) for node in ast.walk(statement) if isinstance(node, ast.Call)]
    wanted = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "typed_in"]
    return [arg.value for call in wanted for arg in call.args if isinstance(arg, ast.Constant)]
