"""A report on the class: which foreseen mistakes were made how often, and whose answers are alike.

Likeness is no proof of anything: a short answer has few forms, and friends may have talked. It says whom to ask.
"""

import ast
import importlib
import itertools
import re

import nbformat
from nbgrader import utils

SHORTEST = 40
"""Nodes of a syntax tree below which two programs may be alike by chance."""
WORDS = 5
"""Words in a row that two texts are compared by."""
FEWEST = 12
"""Such rows below which a text is too short to be compared."""
ALIKE = 0.6
"""Share of the rows of words of both texts that are in both."""


def notebooks(root, assignment, students):
    """Return the graded notebook of each student who has one."""
    places = {s: root / "autograded" / s / assignment / f"{assignment}.ipynb" for s in students}
    return {s: nbformat.read(place, as_version=4) for s, place in places.items() if place.is_file()}


def mistakes(assignment, source, found):
    """Return how often each foreseen mistake was named to a student, most often first.

    Parameters
    ----------
    assignment : str
    source : NotebookNode
        The instructor's source of the assignment, which says where an exercise is marked.
    found : dict
        The graded notebooks, by student.

    Returns
    -------
    list of dict
        With exercise, mistake, times, and the students.
    """
    rows = []
    for exercise in importlib.import_module(f"questions.{assignment}").EXERCISES:
        tests = {cell.metadata.nbgrader.grade_id for cell in source.cells if f'mark("{exercise.name}"' in cell.source}
        said = {student: _said(notebook, tests) for student, notebook in found.items()}
        for mistake in exercise.mistakes:
            who = sorted(student for student, text in said.items() if mistake.text in text)
            rows.append({"exercise": exercise.name, "mistake": mistake.text, "times": len(who), "students": who})
    return sorted((row for row in rows if row["times"]), key=lambda row: -row["times"])


def _said(notebook, tests):
    """Return what some of the tests said in a notebook, as one line."""
    cells = [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade_id") in tests]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    return " ".join(" ".join(output.get("text", "") for output in outputs).split())


def form(source):
    """Return the form of a program, whatever its names, comments and layout, or None if it is too short to tell."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return None
    names = {}
    for node in ast.walk(tree):
        for attribute in ("id", "arg", "name"):
            word = getattr(node, attribute, None)
            if isinstance(word, str):
                setattr(node, attribute, names.setdefault(word, f"v{len(names)}"))
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree) if sum(1 for _ in ast.walk(tree)) >= SHORTEST else None


def rows_of_words(text):
    """Return the rows of words in a text, or None if there are too few."""
    words = re.findall(r"\w+", text.lower())
    found = {tuple(words[at : at + WORDS]) for at in range(len(words) - WORDS + 1)}
    return found if len(found) >= FEWEST else None


def alike(source, found):
    """Return pairs of students whose answers to a question are alike, and differ from what everybody was given.

    Parameters
    ----------
    source : NotebookNode
        The instructor's source of the assignment, with its stubs.
    found : dict
        The graded notebooks, by student.

    Returns
    -------
    list of dict
        With question, the two students, and how alike, a share.
    """
    pairs = []
    for cell in source.cells:
        if not utils.is_solution(cell):
            continue
        name = cell.metadata.nbgrader.grade_id
        answers = {student: _answer(notebook, name) for student, notebook in found.items()}
        take = form if cell.cell_type == "code" else rows_of_words
        known = {student: made for student, text in answers.items() if (made := take(text)) is not None}
        for one, two in itertools.combinations(sorted(known), 2):
            share = _share(known[one], known[two])
            if share >= ALIKE:
                pairs.append({"question": name, "one": one, "two": two, "share": round(share, 2)})
    return sorted(pairs, key=lambda pair: -pair["share"])


def _answer(notebook, name):
    return next((c.source for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == name), "")


def _share(one, two):
    return float(one == two) if isinstance(one, str) else len(one & two) / len(one | two)


def written(root, assignment, students):
    """Write the report, and return its path and its lines."""
    found = notebooks(root, assignment, students)
    source = nbformat.read(root / "source" / assignment / f"{assignment}.ipynb", as_version=4)
    lines = [f"# {assignment}: {len(found)} of {len(students)} could be graded", "", "## Mistakes that were named", ""]
    for row in mistakes(assignment, source, found):
        lines.append(f"- {row['times']} times: {row['mistake']} ({row['exercise']}: {', '.join(row['students'])})")
    lines += ["", "## Answers that are alike", "", __doc__.partition("\n\n")[2].replace("\n", " ").strip(), ""]
    for pair in alike(source, found):
        lines.append(f"- {pair['question']}: {pair['one']} and {pair['two']}, {pair['share']:.0%}")
    place = root / f"{assignment}-class.md"
    place.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return place, lines
