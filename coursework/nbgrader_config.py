"""nbgrader for this course. `make course` puts a copy into the course directory, coursework/instructor/.

It puts the steps of `grader` in their places among nbgrader's own, and sets limits. It does nothing itself.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
COURSEWORK = Path("{COURSEWORK}")
sys.path.insert(0, str(COURSEWORK))

from grader.beside import TEMPLATES, BesideTheAnswer  # noqa: E402
from grader.preprocessors import STUB, CountedGrades, ExecuteApart, RestoreCells  # noqa: E402
from grader.reading import ForReading  # noqa: E402
from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor  # noqa: E402
from nbgrader.preprocessors import (  # noqa: E402
    AssignLatePenalties,
    CheckCellMetadata,
    ClearOutput,
    DeduplicateIds,
    Execute,
    LockCells,
    OverwriteCells,
    OverwriteKernelspec,
    SaveAutoGrades,
)
from nbgrader.server_extensions.formgrader.handlers import template_path  # noqa: E402

c = get_config()  # noqa: F821, nbgrader puts it here
c.CourseDirectory.course_id = "divergence-notes"
c.CourseDirectory.root = str(ROOT)
c.CourseDirectory.db_url = f"sqlite:///{ROOT / 'gradebook.db'}?timeout=60"  # several graders write at once
# What else is handed in is not copied to where the formgrader would serve it: a page among it would run there.
c.CourseDirectory.ignore = [".ipynb_checkpoints", "__pycache__", "feedback", "*.[!it]*"]
c.ClearSolutions.code_stub = {"python": "...  # your code here"}
c.ClearSolutions.text_stub = STUB
c.GenerateSolution.preprocessors = [LockCells, ClearOutput, Execute]  # with the hidden tests and the marking notes
c.Execute.timeout = 120
c.Autograde.sanitize_preprocessors = [
    ClearOutput,
    RestoreCells,
    DeduplicateIds,
    OverwriteKernelspec,
    OverwriteCells,
    ForReading,
    CheckCellMetadata,
]
c.Autograde.autograde_preprocessors = [ExecuteApart, SaveAutoGrades, AssignLatePenalties, CheckCellMetadata]
c.GenerateFeedback.preprocessors = [CountedGrades, CSSHTMLHeaderPreprocessor]
# Pages of the formgrader, and of feedback: our templates come before nbgrader's.
c.HTMLExporter.extra_template_basedirs = [str(TEMPLATES), template_path]
c.HTMLExporter.preprocessors = [BesideTheAnswer]
