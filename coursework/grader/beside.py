"""What the formgrader shows a person who reads: the rubric beside the answer, comments to choose from, formulas.

It is added when a page is made, from the assignment's source and the gradebook as they are then, and stands in no file
that a student gets. The page itself is nbgrader's; what it is shown with is in `templates`.
"""

import json
import re
from collections import Counter
from pathlib import Path

import nbformat
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbgrader import utils
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Unicode

TEMPLATES = Path(__file__).resolve().parent / "templates"
MATHJAX = Path(__file__).resolve().parents[2] / "node_modules" / "mathjax" / "es5" / "tex-svg.js"
"""The book's, which `make book` fetches; it holds its fonts, and asks for nothing."""
SOLUTION = ("### BEGIN SOLUTION", "### END SOLUTION")
MARKS, WRONG = "**Marks**", "Common wrong answers:"
PRINTED = re.compile(r"^the numbers of .*: \{(?='\w+': )", re.M)
"""What the cell below a name prints; that cell is an ordinary one, which bears no mark."""
MOST = 8
"""Comments of one's own that are offered again, those first that were given most often."""


def rubric(source):
    """Return what stands in a *derive* question's solution.

    Parameters
    ----------
    source : str
        Of the cell, in the instructor's edition.

    Returns
    -------
    dict
        `solution` and `marks`, as Markdown, and `wrong`, the common wrong answers, a list of texts.
    """
    for line in SOLUTION:
        source = source.replace(line, "")
    solution, _, rest = source.partition(MARKS)
    marks, _, wrong = rest.partition(WRONG)
    wrong, _, more = wrong.partition("\n")
    return {"solution": solution.strip(), "marks": f"{MARKS}{marks}{more}".strip(), "wrong": _parts(wrong)}


def _parts(text):
    """Split a list at its semicolons, those in brackets and quotation marks left alone."""
    parts, depth, quoted = [""], 0, False
    for letter in text.strip().removesuffix("."):
        depth += (letter == "(") - (letter == ")")
        quoted ^= letter == '"'
        if letter == ";" and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def nameless(cells):
    """Take out of a page what a student wrote as the own name, and what the assignment's next cell prints of it.

    Parameters
    ----------
    cells : list
        Of a notebook; they are changed.
    """
    for cell in cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") == "name-answer":
            cell.source = "STUDENT = ...  # press the eye to see who it is"
        for output in cell.get("outputs", []):
            if "text" in output:
                output.text = PRINTED.sub("the numbers of this name: {", output.text)


def shown(markdown):
    """Return Markdown of ours as HTML."""
    return MarkdownWithMath(renderer=IPythonRenderer(escape=False)).render(markdown)


class BesideTheAnswer(NbGraderPreprocessor):
    """Give a page of the formgrader what it needs to be read, in a last cell that is not seen."""

    mathjax = Unicode(str(MATHJAX), help="the file of MathJax; without it formulas are shown as TeX").tag(config=True)

    def preprocess(self, nb, resources):
        """Add the cell, if this is a page of the formgrader and no feedback."""
        if "submission_id" not in resources:
            return nb, resources
        from nbgrader.api import Gradebook

        root = Path(self.parent.config.CourseDirectory.root)
        with Gradebook(self.parent.config.CourseDirectory.db_url) as gradebook:
            said = beside(root, resources["assignment_id"], gradebook)
            notebook = gradebook.find_submission_notebook_by_id(resources["submission_id"])
            everybody = sorted(one.id for one in notebook.notebook.submissions)
        # nbgrader counts in the order in which they were graded, which is that of the names.
        resources["index"], resources["total"] = everybody.index(notebook.id), len(everybody)
        nameless(nb.cells)
        text = json.dumps(said).replace("<", "\\u003c")
        made = f'<script type="application/json" id="beside">{text}</script>'
        if Path(self.mathjax).is_file():
            code = Path(self.mathjax).read_text(encoding="utf-8").replace("</script", r"<\/script")
            made += f"<script>{code}</script>"
        output = nbformat.v4.new_output("display_data", {"text/html": made})
        nb.cells.append(nbformat.v4.new_code_cell("", outputs=[output]))
        return nb, resources


def beside(root, assignment, gradebook):
    """Return, for each answer that a person reads, its rubric as HTML and the comments to choose from."""
    found = {}
    for cell in nbformat.read(root / "source" / assignment / f"{assignment}.ipynb", as_version=4).cells:
        if not (utils.is_grade(cell) and utils.is_solution(cell)):
            continue
        name = cell.metadata.nbgrader.grade_id
        said = rubric(cell.source)
        given = Counter(
            comment.manual_comment.strip()
            for submission in gradebook.notebook_submissions(assignment, assignment)
            for comment in submission.comments
            if comment.name == name and (comment.manual_comment or "").strip()
        )
        bank = said["wrong"] + [text for text, _ in given.most_common() if text not in said["wrong"]][:MOST]
        found[name] = {"solution": shown(said["solution"]), "marks": shown(said["marks"]), "bank": bank}
    return found
