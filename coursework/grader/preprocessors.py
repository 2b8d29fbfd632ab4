"""The two steps of nbgrader's autograding that are different here: cells are put back, and answers are run apart.

`nbgrader_config.py` puts them in their places. The process of an answer is in `sandbox` (this side) and `answers` (the
other); a third step, which makes a submission fit to be looked at, is in `reading`.
"""

import ast
import builtins
import copy
import os
import warnings
from pathlib import Path

import marking
import nbformat
import weights
from nbgrader import utils
from nbgrader.preprocessors import GetGrades, NbGraderPreprocessor
from traitlets import Float

from divergence_notes import grading
from divergence_notes.grading import typed
from grader import cells, sandbox

STUB = "*Your answer here.*"
"""What students find where a person will read."""
MISSING = {"markdown": "*This cell was missing.*", "code": "# This cell was missing."}
BELOW = "*Empty. What the student wrote stands in the cell below.*"
ELSEWHERE = "*Empty. The student wrote text into other cells of the notebook.*"


class RestoreCells(NbGraderPreprocessor):
    """Put back the cells that were deleted, and make every other cell that poses as one of ours an ordinary one.

    Code is found by the names that it defines. So a deleted, split or retyped answer cell changes nothing, as long as
    the tests are there and in their order. What a person reads is looked for where it may have gone, and never counts
    as empty while there is text of the student's own; what was found, or not, is noted in the notebook's metadata.
    """

    def preprocess(self, nb, resources):
        """Bring the notebook's nbgrader cells into the order of the source, all of them and nothing else."""
        source = nbformat.read(source_path(resources), as_version=4).cells
        wanted = [cell for cell in source if grade_id(cell)]
        names, theirs, notes = {grade_id(cell) for cell in wanted}, {}, []
        for cell in reversed(nb.cells):  # of several with one id the last one counts
            name = grade_id(cell)
            if name in names and name not in theirs:
                theirs[name] = cell
            else:
                if name in names:
                    notes.append(f"several cells were {name}: the last one counts")
                cell.metadata.pop("nbgrader", None)
        for i, cell in enumerate(source):
            name = grade_id(cell)
            if name and utils.is_solution(cell) and name not in theirs:
                found, how = lost(nb.cells, source, i, theirs)
                notes.append(f"{name} had lost its mark and was found by its {how}" if found else f"{name} is missing")
                if found:
                    theirs[name] = found
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
        notes += point_to_text(nb.cells, source)
        nb.metadata["notes"] = notes
        return nb, resources


def lost(cells, source, i, theirs):
    """Return the answer that belongs at place `i` of the source and has lost its metadata, and how it was found."""
    free = [
        c
        for c in cells
        if not grade_id(c) and c.cell_type == source[i].cell_type and not any(c is t for t in theirs.values())
    ]
    texts = {cell.source for cell in source}
    for cell in free:
        if cell.get("id") == source[i].id:
            return cell, "id"

    def place(other):
        same = [
            k
            for k, cell in enumerate(cells)
            if (grade_id(other) and grade_id(cell) == grade_id(other))
            or cell.source == other.source
            or cell.get("id") == other.id
        ]
        return same[0] if len(same) == 1 else None

    before = place(source[i - 1]) if i else -1
    after = place(source[i + 1]) if i + 1 < len(source) else len(cells)
    if before is None or after is None:
        return None, ""
    between = [cell for cell in cells[before + 1 : after] if any(cell is f for f in free) and cell.source not in texts]
    return (between[0], "place") if len(between) == 1 else (None, "")


def point_to_text(cells, source):
    """Where an answer for a person is empty and the student wrote elsewhere, say so in its place: it will be read."""
    texts = {cell.source.strip() for cell in source} | {STUB, ""} | set(MISSING.values())
    own = [not grade_id(cell) and cell.source.strip() not in texts for cell in cells]
    notes = []
    for i, cell in enumerate(cells):
        if utils.is_grade(cell) and utils.is_solution(cell) and cell.source.strip() in (STUB, ""):
            until = next((k for k in range(i + 1, len(cells)) if not own[k]), len(cells))
            if until > i + 1:
                cell.source = BELOW
                notes.append(f"{grade_id(cell)} is empty, and the cell below it is not: read that")
            elif any(mine and other.cell_type != "code" for mine, other in zip(own, cells, strict=True)):
                cell.source = ELSEWHERE
                notes.append(f"{grade_id(cell)} is empty, and there is text in cells of the student's own: read those")
    return notes


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
    they define; every other name in it is asked of the other side: a value, or a function that runs over there. What
    has to be typed in is read in the student's cells, and nothing that ran counts.
    """

    seconds = Float(150, help="time for the whole notebook").tag(config=True)
    gigabytes = Float(4, help="address space of one process").tag(config=True)

    def preprocess(self, nb, resources):
        """Fill in the outputs of every code cell."""
        source = nbformat.read(source_path(resources), as_version=4)
        ours = {grade_id(cell): cell for cell in source.cells if utils.is_locked(cell)}
        info = resources["nbgrader"]
        os.environ["COURSE_ASSIGNMENT"], os.environ["COURSE_STUDENT"] = info["assignment"], info["student"]
        marking.notes.clear()
        shell, self.written = cells.shell(), []
        shell.reset(new_session=False)
        with sandbox.Session(sandbox.Limits(total=self.seconds, gigabytes=self.gigabytes)) as session:
            for cell in nb.cells:
                if cell.cell_type != "code":
                    continue
                source = ours.get(grade_id(cell))
                cell.outputs, cell.execution_count = [], None
                if source is None:
                    outputs = session.run(cell.source)
                    self.written.append(cell.source)
                elif utils.is_grade(source):
                    outputs = weights.scaled(self.test(source.source, shell, session), source)
                else:
                    session.run(source.source)
                    outputs = cells.run_cell(shell, source.source, time_limit=60)
                if session.trouble:  # of ours: whoever starts the grading may try again
                    raise sandbox.NotStarted(session.trouble)
                cell.outputs = [nbformat.from_dict(output) for output in outputs]
        nb.metadata["notes"] = [*nb.metadata.get("notes", []), *marking.notes]
        return nb, resources

    def test(self, source, shell, session):
        """Run a test here, with the answers from there."""
        names = free_names(source) - set(shell.user_ns) - set(dir(builtins))
        answers = {name: session.get(name) for name in names}
        # What is typed in is read in the cells, whatever became of the process.
        ran = {name: ... if isinstance(found, grading.Fault) else found for name, found in answers.items()}
        answers |= {name: typed.answer(name, self.written, ran[name]) for name in typed.asked(source)}
        shell.user_ns.update(answers)
        typed.look_at(self.written)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # nbgrader takes one for a failure
                return cells.run_cell(shell, source, time_limit=600)
        finally:
            typed.look_at(None)
            for name in answers:
                shell.user_ns.pop(name, None)


class CountedGrades(GetGrades):
    """What feedback says of marks: a question that counts 0 has none, also where a person gave some before."""

    def preprocess(self, nb, resources):
        """Add up the points that count."""
        nb, resources = super().preprocess(nb, resources)
        metas = [cell.metadata.nbgrader for cell in nb.cells if utils.is_grade(cell)]
        for meta in metas:
            meta["score"] = meta["score"] if meta["points"] else 0.0
        resources["nbgrader"]["score"] = sum(meta["score"] for meta in metas)
        return nb, resources


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
