"""Sheets for an oral check of five minutes, one for each student, out of what that student was given and handed in.

What would change with another number can be said at once by who understood the answer, and not by who copied it. The
sheets hold what is right: they are for whoever asks.
"""

import html
import importlib
import re

import marking
import nbformat
import numpy as np
import overview
import roster
import whole

from divergence_notes import grading

HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 12pt/1.4 sans-serif; max-width: 45em; margin: 2em auto; padding: 0 1em }}
section {{ break-after: page }}
pre {{ white-space: pre-wrap; background: #f4f4f4; padding: 0.5em }}
li {{ margin: 0.8em 0 }}
.right {{ color: #555 }}
</style></head><body>
"""


def named(source, exercise):
    """Return what an answer is called in the notebook, or None where its numbers are not drawn for each student."""
    asked = rf'mark\("{re.escape(exercise.name)}", (\w+),[^\n]*student=STUDENT'
    found = re.search(asked, "\n".join(cell.source for cell in source.cells))
    return found and found[1]


def changes(made, source, numbers, rows):
    """List what another number would change: the answer, the number, its value and the other, and both answers.

    Parameters
    ----------
    made : module
        The questions of an assignment.
    source : NotebookNode
    numbers : dict
        Those of the student.
    rows : list of list
        What other students have, in the order of the module's `OWN`.

    Returns
    -------
    list of tuple
    """
    found = []
    for exercise in made.EXERCISES:
        answer = named(source, exercise)
        if answer is None or exercise.judge is not None:
            continue
        for place, number in enumerate(made.OWN):
            others = sorted((row[place] for row in rows), key=lambda value: -abs(value - numbers[number]))
            before, after = (_right(exercise, numbers | change) for change in ({}, {number: others[0]}))
            if before != after:
                found.append((answer, number, numbers[number], others[0], before, after))
    return found


def _right(exercise, numbers):
    return exercise.right(*exercise.draw(np.random.default_rng(0), **numbers))


def sheet(made, source, notebook, who, points):
    """Return the sheet of a student.

    Parameters
    ----------
    made : module
    source, notebook : NotebookNode
        Of the course, and of the student.
    who : roster.Student
    points : dict
        What was written down about each graded cell.

    Returns
    -------
    str
        A section of a page.
    """
    text = {cell.metadata.get("nbgrader", {}).get("grade_id"): cell.source for cell in notebook.cells}
    wrote = re.search(r"^STUDENT\s*=\s*[\"'](.+)[\"']", text.get("name-answer", ""), re.M)
    given = marking.handed_out(source)
    numbers = grading.own_numbers(wrote[1] if wrote else ..., given)
    rng = np.random.default_rng(list(f"{who.student}{given['own']['rows']}".encode()))
    own = ", ".join(f"{name} = {numbers[name]:g}" for name in made.OWN)
    lines = [f"<h2>{_safe(who.name or who.student)}</h2>"]
    lines += [f"<p>Name in the notebook: {_safe(wrote and wrote[1])}. Numbers: {own}.</p><ol>"]
    lines += [f"<li>How did you come to this?<pre>{_safe(text.get('predict-answer', ''))}</pre></li>"]
    every = changes(made, source, numbers, given["own"]["rows"])
    for place in rng.permutation(len(every))[:2]:
        answer, number, old, new, before, after = every[place]
        lines.append(
            f"<li>If <code>{number}</code> was {new:g}, and not {old:g}, would <code>{answer}</code> be larger or "
            "smaller? By a little, or by much? "
            f"<span class='right'>Right: {before:.4g} becomes {after:.4g}.</span></li>"
        )
    programs = {name: text.get(name.replace("-test", "-answer"), "") for name in points if points[name]["points"]}
    earned = {name: points[name]["auto"] for name, program in programs.items() if "def " in program}
    if earned:
        name = min(earned, key=lambda name: earned[name] / points[name]["points"])
        lines.append(
            f"<li>Go through this line by line ({earned[name]:g} of {points[name]['points']:g} points by computer)."
            f"<pre>{_safe(programs[name])}</pre></li>"
        )
    if hasattr(made, "spoken"):
        lines += [
            f"<li>{asked} <span class='right'>Right: {right}</span></li>" for asked, right in made.spoken(numbers)
        ]
    return "\n".join(["<section>", *lines, "</ol></section>"])


def _safe(text):
    return html.escape(str(text or "none"))


def written(root, assignment, students, outcome):
    """Write the sheets of an assignment, and return where and for whom.

    Parameters
    ----------
    root : Path
    assignment : str
    students : list of str
    outcome : callable
        Takes the root, the assignment and a student, and returns what was written down when it was graded, or None.
    """
    class_list = roster.of(root)
    known = {} if class_list is None else class_list.students
    source = nbformat.read(root / "source" / assignment / f"{assignment}.ipynb", as_version=4)
    made = importlib.import_module(f"questions.{assignment}")
    found = overview.notebooks(root, assignment, students)
    parts = [
        sheet(
            made,
            source,
            notebook,
            known.get(student, roster.Student(student)),
            (outcome(root, assignment, student) or {}).get("questions", {}),
        )
        for student, notebook in found.items()
    ]
    place = root / f"{assignment}-oral.html"
    whole.write(place, HEAD.format(title=f"{assignment}: five minutes each") + "\n".join(parts) + "\n</body></html>\n")
    return place, list(found)
