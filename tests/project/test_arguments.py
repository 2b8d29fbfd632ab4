"""One object in place of its parts: nothing hands a kernel and its weights on in a dictionary, and few take both.

Read off the syntax of every Python file and every code cell, without running any.
"""

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TREES = ("divergence_notes", "tests", "tools", "coursework", "benchmarks", "book")
MODULES = {"updates", "contraction", "norms", "verdicts"}
CLASSES = {"Update", "KernelUpdate"}
PARTS = {"kernel", "weights"}
TAKE_ALL_THREE = {
    "contraction.row_sum_bound",  # these two look at no process
    "updates.predicted_change",
    "updates._pulled",  # what the constructor and row_sum_bound have in common
}


def words(node):
    """Return the texts in a tuple, list or set that is written out."""
    return {item.value for item in getattr(node, "elts", []) if isinstance(item, ast.Constant)}


def keys(node):
    """Return the keys of a dictionary that is written out: a literal, `dict(...)`, or one over a list of names."""
    if isinstance(node, ast.Dict):
        return {key.value for key in node.keys if isinstance(key, ast.Constant)}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        named = {keyword.arg for keyword in node.keywords}
        listed = (words(pair) for argument in node.args for pair in getattr(argument, "elts", []))
        return named.union(*listed)
    if isinstance(node, ast.DictComp):
        return set().union(*(words(loop.iter) for loop in node.generators))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return keys(node.left) | keys(node.right)
    return set()


def of_an_update(function):
    """Return whether what is called is one of the names that take an update, or that make one."""
    if isinstance(function, ast.Call) and isinstance(function.func, ast.Name) and function.func.id == "getattr":
        function = ast.Attribute(function.args[0], "")
    if isinstance(function, ast.Name):
        return function.id in CLASSES
    while isinstance(function, ast.Attribute):
        function = function.value
        if isinstance(function, ast.Name):
            return function.id in MODULES | CLASSES
    return False


def written_out(tree):
    """Return the names that hold dictionaries of which every key is written out, and never anything else."""
    known, unknown = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            plain = isinstance(node.value, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.value.keys)
            for target in node.targets:
                names = {item.id for item in ast.walk(target) if isinstance(item, ast.Name)}
                (known if plain else unknown).update(names)
        elif isinstance(node, ast.arguments):
            unknown.update(argument.arg for argument in (node.vararg, node.kwarg) if argument)
            without = node.args[: len(node.args) - len(node.defaults)]
            without += [name for name, default in zip(node.kwonlyargs, node.kw_defaults, strict=True) if not default]
            unknown.update(argument.arg for argument in without)
    return known - unknown


def handed_on(source):
    """Return the lines at which parts of an update stand in a dictionary, or may be splatted into a call."""
    tree, found = ast.parse(source), set()
    harmless = written_out(tree)  # if one of these holds both parts, it is found where it is written
    for node in ast.walk(tree):
        if keys(node) >= PARTS:
            found.add(node.lineno)
        if isinstance(node, ast.Call):
            held = isinstance(node.func, ast.Name) and node.func.id == "partial" and node.args
            splatted = [keyword.value for keyword in node.keywords if keyword.arg is None]
            if of_an_update(node.args[0] if held else node.func) and any(
                not (isinstance(value, ast.Name) and value.id in harmless) for value in splatted
            ):
                found.add(node.lineno)
    return sorted(found)


def take_all_three(source):
    """Return the functions with parameters kernel, weights and alpha, and the classes with such fields."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            every = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            names = {argument.arg for argument in every}
        elif isinstance(node, ast.ClassDef):
            names = {item.target.id for item in node.body if isinstance(item, ast.AnnAssign)}
        else:
            continue
        if names >= PARTS | {"alpha"}:
            found.append(node.name)
    return found


def cells(path):
    """Return the Python of a file: all of it, or the code cells of a notebook without what only IPython reads."""
    if path.suffix == ".py":
        return path.read_text("utf-8")
    read = json.loads(path.read_text("utf-8"))
    code = ("".join(cell["source"]) for cell in read["cells"] if cell["cell_type"] == "code")
    lines = (line for cell in code for line in [*cell.splitlines(), ""])
    return "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in lines)


def files():
    """Return every file that holds Python; this one holds the faults that it looks for."""
    found = [path for tree in TREES for kind in ("*.py", "*.ipynb") for path in (ROOT / tree).rglob(kind)]
    left_out = {"node_modules", "_build", ".ipynb_checkpoints", "__pycache__"}
    return sorted(path for path in found if not left_out & set(path.parts) and path != Path(__file__).resolve())


def test_nothing_hands_the_parts_on():
    found = {path.relative_to(ROOT).as_posix(): handed_on(cells(path)) for path in files()}
    assert len(found) > 100 and sum(name.endswith(".ipynb") for name in found) > 10
    wrong = [f"{name}:{line}" for name, lines in found.items() for line in lines]
    assert not wrong, f"an update in place of its parts, at {len(wrong)} places: {wrong}"


def test_few_take_all_three():
    found = {
        f"{path.stem}.{name}"
        for path in (ROOT / "divergence_notes").rglob("*.py")
        for name in take_all_three(path.read_text("utf-8"))
    }
    assert found == TAKE_ALL_THREE | {"updates.KernelUpdate"}


@pytest.mark.parametrize(
    "fault",
    [
        'given = {"kernel": K, "weights": rho, "alpha": 0.1}',
        'given = {"weights": rho, **more, "kernel": K}',
        "given = dict(kernel=K, weights=rho)",
        'given = dict([("kernel", K), ("weights", rho)])',
        'given = {name: case[name] for name in ("kernel", "weights", "alpha")}',
        'given = {"kernel": K} | {"weights": rho}',
        "def f():\n    return [{'mdp': mdp, 'kernel': K, 'weights': rho}]",
        "contraction.exact_modulus(mdp, **given)",
        "norms.some_norm(update, **example.settings)",
        "updates.Update.preconditioned(mdp, **given)",
        "KernelUpdate(mdp, **given)",
        "Update.shares(mdp, **given)",
        "verdicts.verdicts(**given)",
        "getattr(contraction, name)(mdp, **given)",
        "partial(updates.KernelUpdate, mdp, **given)",
        'grid = {"couplings": c}\ngrid = grid | more\nverdicts.phase_map(update, **grid)',
        'grid = {"couplings": c, **more}\nverdicts.phase_map(update, **grid)',
        'grid = {"couplings": c}\ndef f(grid):\n    return verdicts.phase_map(update, **grid)',
        "def f(**grid):\n    return verdicts.phase_map(update, **grid)",
        'verdicts.phase_map(update, **{"gammas": a, name: c})',
    ],
)
def test_a_fault_is_seen(fault):
    assert handed_on(f"pass\n{fault}")


@pytest.mark.parametrize(
    "fine",
    [
        "KernelUpdate(mdp, kernel=K, weights=rho, alpha=0.1)",
        "contraction.row_sum_bound(u.kernel, u.weights, alpha=u.alpha, gamma=u.mdp.gamma)",
        'changes = {"kernel": K}',
        'changes = [{"kernel": K}, {"weights": rho}]',
        'names = ("kernel", "weights")',
        "replace(update, **{name: value})",
        "plotting.plane(axes, **style)",
        "contraction.exact_modulus(update)",
        'grid = {"couplings": c, "gammas": a}\nverdicts.phase_map(update, **grid)',
        'fit = {"batch": [0]}\nrun(lambda theta, fit=fit: updates.minimum_norm_step(theta, **fit))',
    ],
)
def test_nothing_else_is(fine):
    assert not handed_on(fine)


def test_a_function_that_takes_all_three_is_seen():
    assert take_all_three("def f(kernel, weights, *, alpha): ...\nclass A:\n    kernel: int\n    def g(self): ...") == [
        "f"
    ]
    assert take_all_three("class A:\n    kernel: int\n    weights: int\n    alpha: int = 1") == ["A"]
    assert take_all_three("class A:\n    def f(self, mdp, *, alpha, weights, kernel, more=1): ...") == ["f"]
    assert not take_all_three("def f(kernel, weights, gamma): ...\ndef g(kernel, alpha, batch): ...")
