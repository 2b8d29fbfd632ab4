"""Reading derivations: the rubric beside the answer, formulas, comments to choose from, the next unread one."""

import json
import shutil
import warnings

import nbformat
import pytest
from grader import beside
from nbgrader.server_extensions.formgrader.handlers import template_path

from tests.coursework.assignments import NAMES, graded_cells, source_of
from tests.coursework.formgrader import served
from tests.coursework.submissions import edit
from tests.waiting import PATIENCE

CLASS = [f"student{number:02}" for number in range(20)]
TEXT = r"""Let $c = \|Q_1 - Q_2\|_\infty$. Then $\href{javascript:top.RAN=1}{x} \require{html}$

$$\mathcal S Q_1 \le \mathcal S Q_2 + \gamma c,$$

and $\max x \le \operatorname{soft}(x)$, which is work """
READY = (
    "window.formgrader && formgrader.loaded && formgrader.grades.loaded && window.MathJax && MathJax.loaded === true"
)


class TestRubric:
    @pytest.mark.parametrize("name", NAMES)
    def test_is_taken_apart(self, name):
        cells = {cell.id: cell.source for cell in source_of(name).cells}
        for answer in graded_cells(name, manual=True):
            said = beside.rubric(cells[answer])
            assert said["marks"].startswith("**Marks**\n\n- ") and "Common wrong" not in said["marks"]
            assert len(said["solution"]) > 100
            assert 2 <= len(said["wrong"]) <= 4 and all(text[-1] in ')"' for text in said["wrong"])
            assert "".join(said["wrong"]).count("(") == "".join(said["wrong"]).count(")")
            assert "###" not in json.dumps(said)
            assert "grade.py" not in json.dumps(said["wrong"])  # a comment is for a student, who has no such file

    def test_a_list_is_split_outside_of_brackets_and_quotes(self):
        assert beside._parts('"a; b" (0; none); c (1).') == ['"a; b" (0; none)', "c (1)"]


class TestNameless:
    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("student", ["Ann Lee", "of: {all}"])
    def test_the_name_is_out_of_both_cells(self, name, student):
        cells = {cell.id: cell for cell in source_of(name).cells}
        assert 'print(f"the numbers of {whose}:", {name: ' in cells["name-numbers"].source
        cells["name-answer"].source = f"STUDENT = {student!r}"
        printed = f"the numbers of {student}: {{'end': 0.9, 'run': 3}}\n"
        cells["name-numbers"].outputs = [nbformat.v4.new_output("stream", text=printed)]
        beside.nameless(cells.values())
        assert cells["name-numbers"].outputs[0].text == "the numbers of this name: {'end': 0.9, 'run': 3}\n"
        assert student not in json.dumps(cells)


class TestPages:
    def test_feedback_has_none_of_it(self):
        notebook = nbformat.v4.new_notebook()
        given = nbformat.v4.new_notebook(metadata=dict(notebook.metadata))
        assert beside.BesideTheAnswer().preprocess(notebook, {"nbgrader": {}})[0] == given

    def test_ours_come_before_those_that_ask_another_host(self):
        from nbconvert import HTMLExporter
        from traitlets.config import Config

        def page(*places):
            config = Config()
            config.HTMLExporter = Config(template_name="formgrade", extra_template_basedirs=list(places))
            resources = dict.fromkeys(("index", "total"), 0)
            return HTMLExporter(config=config).from_notebook_node(nbformat.v4.new_notebook(), resources=resources)[0]

        assert "cdnjs" in page(template_path)  # what nbgrader does
        ours = page(str(beside.TEMPLATES), template_path)
        assert "cdnjs" not in ours and "nextUnread" in ours


@pytest.fixture(scope="module", params=[3, pytest.param(20, marks=pytest.mark.nightly)])
def reading(request, made, tmp_path_factory):
    """Serve a course in which twenty derivations wait, of which some have been read; return how many have not."""
    from nbgrader.api import Gradebook

    root = shutil.copytree(made[0], tmp_path_factory.mktemp("reading") / "instructor")
    notebook = nbformat.read(root / "solution" / "bellman" / "bellman.ipynb", as_version=4)
    with warnings.catch_warnings(), Gradebook(f"sqlite:///{root / 'gradebook.db'}", "divergence-notes") as gradebook:
        warnings.simplefilter("ignore")  # nbgrader's database has some
        for number, student in enumerate(CLASS):
            place = root / "autograded" / student / "bellman"
            place.mkdir(parents=True)
            edit(notebook, "derive-answer", f"{TEXT}{number}.")
            edit(notebook, "name-answer", f'STUDENT = "{student}"')
            (numbers,) = (cell for cell in notebook.cells if cell.id == "name-numbers")
            numbers.outputs = [nbformat.v4.new_output("stream", text=f"the numbers of {student}: {{'gamma': 0.9}}\n")]
            nbformat.write(notebook, place / "bellman.ipynb")
            gradebook.add_student(student)
            gradebook.add_submission("bellman", student)
            for grade in gradebook.find_submission_notebook("bellman", "bellman", student).grades:
                derived = grade.name == "derive-answer"
                waits = number < request.param
                grade.needs_manual_grade = derived and waits
                grade.auto_score, grade.manual_score = None if derived else 1, 2 if derived and not waits else None
        given = gradebook.find_comment("derive-answer", "bellman", "bellman", CLASS[-1])
        given.manual_comment = "The series <b>is</b> missing."
        gradebook.db.commit()
    with served(root, tmp_path_factory.mktemp("server")) as (address, token):
        yield root, address, token, request.param


class TestInABrowser:
    """Twenty derivations in Chromium: nothing is asked of another host, and each key does what the page says."""

    def test_all_are_read(self, reading, browser):
        from nbgrader.api import Gradebook

        root, address, token, unread = reading
        context = browser.new_context(extra_http_headers={"Authorization": f"token {token}"})
        context.set_default_timeout(1000 * PATIENCE)
        page, asked = context.new_page(), []
        page.on("request", lambda request: asked.append(request.url))
        with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as gradebook:
            known = {one.id: one.student.id for one in gradebook.notebook_submissions("bellman", "bellman")}
        order = [number for number in sorted(known) if CLASS.index(known[number]) < unread]
        page.goto(f"{address}/formgrader/submissions/{order[0]}/")
        seen = []
        while True:
            page.wait_for_function(READY)
            seen.append(page.evaluate("submission_id"))
            if len(seen) == 1:
                self.look(page, known[order[0]])
            page.locator("#derive-answer").fill("4")
            page.keyboard.press("Control+Enter")
            page.wait_for_function("before => window.submission_id !== before", arg=seen[-1])
            if "/gradebook/bellman/bellman" in page.url:
                break
            assert len(seen) <= unread
        context.close()
        assert seen == order
        assert [url for url in asked if not url.startswith((address, "data:"))] == []
        with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as gradebook:
            for number, student in enumerate(CLASS):
                grade = gradebook.find_grade("derive-answer", "bellman", "bellman", student)
                assert (grade.manual_score, grade.needs_manual_grade) == (4 if number < unread else 2, False)
            comment = gradebook.find_comment("derive-answer", "bellman", "bellman", known[order[0]])
            assert (
                comment.comment
                == "the bound tau log n without the series (1 of the last 3)\n\nThe series <b>is</b> missing."
            )

    def look(self, page, student):
        """Look at a page, and choose comments."""
        cell = page.locator(".nbgrader_cell.with-rubric").filter(has=page.locator("#derive-answer"))
        answer, rubric = cell.locator(".text_cell_render").bounding_box(), cell.locator(".rubric").bounding_box()
        assert rubric["x"] >= answer["x"] + answer["width"] and abs(rubric["y"] - answer["y"]) < 40
        assert cell.locator(".text_cell_render mjx-container svg").count() == 4
        assert "2 points: soft keeps order" in cell.inner_text()
        assert page.locator("a[href^=javascript]").count() == 0 and page.evaluate("window.RAN") is None
        assert not page.locator(".rubric b").count() and cell.locator(".bank button").count() == 3
        text = page.locator("body").inner_text()
        assert student not in text and "the numbers of this name: {'gamma': 0.9}" in text  # until one asks for it
        for at in (1, 2, 1):  # the same one twice is there once
            cell.locator(".bank button").nth(at).click()
