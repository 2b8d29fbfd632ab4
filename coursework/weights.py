"""The points of a class: those of the source, or what `term.toml` says; everything that mentions points follows.

An instructor writes, in `[points.bellman]`, a line such as `why-test = 0` or `bug-test = 10`, with the name of the
cell that is graded. A question that counts 0 stays where it is, and counts for nobody. The numbers in the hidden tests
stay as they are: they say which part of a question is worth what, and what a test gives is turned into the points of
the class when it is graded.
"""

import re

from roster import Refused

HEADING = re.compile(r"^(?P<head>## (?P<number>\d+)\. .*)\([\d.]+ points?\)\s*$", re.M)
ROW = re.compile(r"^(\| (\d+) \| [^|]+ \| )[\d.]+( \|)", re.M)
TOTAL = re.compile(r"(About \d+ minutes, )[\d.]+( points)")
END = "### END SOLUTION"
OF = "points_of_source"
"""The metadata of a cell that hold the points which it has in the source, where the class has others."""


def graded(notebook):
    """Return the points of each cell that is graded, by its name."""
    metas = [cell.metadata.get("nbgrader", {}) for cell in notebook.cells]
    return {meta["grade_id"]: meta["points"] for meta in metas if meta.get("grade")}


def weigh(notebook, given, name):
    """Return a source notebook with the points of a class, in its cells, its headings and its title.

    Parameters
    ----------
    notebook : NotebookNode
        Of an assignment; it is changed.
    given : dict
        Points, at least 0, by the names of cells.
    name : str
        Of the assignment.
    """
    known = graded(notebook)
    if unknown := [cell for cell in given if cell not in known]:
        raise Refused(f"term.toml: points.{name} has {', '.join(known)}; {unknown[0]!r} is none of them")
    if not given:
        return notebook
    question, sums = None, {}
    for cell in notebook.cells:
        found = HEADING.search(cell.source) if cell.cell_type == "markdown" else None
        question = found["number"] if found else question
        meta = cell.metadata.get("nbgrader", {})
        if not meta.get("grade"):
            continue
        points = given.get(meta["grade_id"], meta["points"])
        if points != meta["points"]:
            cell.metadata[OF] = meta["points"]
            if meta["solution"]:
                said = f"These marks add up to {meta['points']:g}; in this class the question has {points:g} points."
                cell.source = cell.source.replace(END, f"\n{said}\n{END}")
            meta["points"] = points
        sums[question] = sums.get(question, 0) + points
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = HEADING.sub(lambda found: f"{found['head']}({_points(sums[found['number']])})", cell.source)
    title = notebook.cells[0]
    title.source = ROW.sub(lambda found: f"{found[1]}{sums.get(found[2], 0):g}{found[3]}", title.source)
    title.source = TOTAL.sub(rf"\g<1>{sum(sums.values()):g}\g<2>", title.source)
    return notebook


def _points(number):
    return f"{number:g} point" + "s" * (number != 1)


def scaled(outputs, cell):
    """Turn the points that a test gives, its last value, into those of the class."""
    of, points = cell.metadata.get(OF), cell.metadata["nbgrader"]["points"]
    for output in outputs if of else ():
        if output["output_type"] == "execute_result":
            given = float(output["data"]["text/plain"])
            output["data"]["text/plain"] = repr(min(float(points), round(given * points / of, 2)))
    return outputs
