"""The two steps of nbgrader's autograding that are different here. `nbgrader_config.py` puts them in their places."""

import ast
import builtins
import copy
import warnings
from pathlib import Path

import nbformat
from nbgrader import utils
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Float

from grader import cells, sandbox


class RestoreCells(NbGraderPreprocessor):
    """Put back the cells that were deleted, and make every other cell that poses as one of ours an ordinary one.

    Answers are found by the names that they define. So a deleted, split or retyped answer cell changes nothing, as long
    as the tests are there and in their order.
    """

    def preprocess(self, nb, resources):
        """Bring the notebook's nbgrader cells into the order of the source, all of them and nothing else."""
        wanted = [cell for cell in nbformat.read(source_path(resources), as_version=4).cells if grade_id(cell)]
        names, theirs = {grade_id(cell) for cell in wanted}, {}
        for cell in reversed(nb.cells):  # of several with one id the last one counts
            name = grade_id(cell)
            if name in names and name not in theirs:
                theirs[name] = cell
            else:
                cell.metadata.pop("nbgrader", None)
        at = 0
        for cell in wanted:
            found = theirs.get(grade_id(cell))
            index = next((i for i, other in enumerate(nb.cells) if other is found), None)
            ours = copy.deepcopy(cell)
            if utils.is_solution(cell):
                if found is not None:
                    found.metadata.nbgrader = ours.metadata.nbgrader
                    at = max(at, index + 1)
                    continue
                ours.source = MISSING[cell.cell_type]
            if index is not None:
                del nb.cells[index]
                at = max(index, at - 1) if index < at else index
            nb.cells.insert(at, ours)
            at += 1
        return nb, resources


MISSING = {"markdown": "*This cell was missing.*", "code": "# This cell was missing."}


def grade_id(cell):
    """Return the id under which nbgrader knows a cell, or None."""
    meta = cell.metadata.get("nbgrader")
    return meta.get("grade_id") if isinstance(meta, dict) else None


def source_path(resources):
    """Return the source notebook of the assignment that is being graded."""
    info = resources["nbgrader"]
    root = Path(info["db_url"].split("///", 1)[1].split("?")[0]).parent
    return root / "source" / info["assignment"] / f"{info['notebook']}.ipynb"


class ExecuteApart(NbGraderPreprocessor):
    """Run the student's cells in a process of their own, and the tests in this one.

    The cells that the source locks and does not grade (imports, parameters) run on both sides. A test finds here what
    they define; every other name in it is asked of the other side: a value, or a function that runs over there.
    """

    seconds = Float(150, help="time for the whole notebook").tag(config=True)
    gigabytes = Float(4, help="address space of one process").tag(config=True)

    def preprocess(self, nb, resources):
        """Fill in the outputs of every code cell."""
        source = nbformat.read(source_path(resources), as_version=4)
        ours = {grade_id(cell): cell for cell in source.cells if utils.is_locked(cell)}
        shell = cells.shell()
        shell.reset(new_session=False)
        with sandbox.Session(sandbox.Limits(total=self.seconds, gigabytes=self.gigabytes)) as session:
            for cell in nb.cells:
                if cell.cell_type != "code":
                    continue
                source = ours.get(grade_id(cell))
                cell.outputs, cell.execution_count = [], None
                if source is None:
                    outputs = session.run(cell.source)
                elif utils.is_grade(source):
                    outputs = self.test(source.source, shell, session)
                else:
                    session.run(source.source)
                    outputs = cells.run_cell(shell, source.source, time_limit=60)
                cell.outputs = [nbformat.from_dict(output) for output in outputs]
        return nb, resources

    def test(self, source, shell, session):
        """Run a test here, with the answers from there."""
        names = free_names(source) - set(shell.user_ns) - set(dir(builtins))
        answers = {name: session.get(name) for name in names}
        shell.user_ns.update(answers)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # nbgrader takes one for a failure
                return cells.run_cell(shell, source, time_limit=120)
        finally:
            for name in answers:
                shell.user_ns.pop(name, None)


def free_names(source):
    """List the names that a cell reads and does not make itself."""
    nodes = list(ast.walk(ast.parse(source)))
    made = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    made |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    made |= {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    made |= {
        (a.asname or a.name).split(".")[0]
        for n in nodes
        if isinstance(n, (ast.Import, ast.ImportFrom))
        for a in n.names
    }
    return {node.id for node in nodes if isinstance(node, ast.Name)} - made
