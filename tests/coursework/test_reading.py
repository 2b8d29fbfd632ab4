"""What a student writes is data wherever a person reads it: in the real formgrader, in Chromium, and elsewhere."""

import html
import json
import urllib.error
import urllib.request

import course
import grade
import nbformat
import pytest
from grader import reading

from tests import pages
from tests.coursework.formgrader import served
from tests.coursework.submissions import (
    ATTACHED,
    BARE,
    HONEST,
    HONEST_ATTACHED,
    INERT,
    PNG,
    SMUGGLED,
    img,
)


class TestReadable:
    @pytest.mark.parametrize("name", SMUGGLED)
    def test_what_is_smuggled_is_text(self, name):
        source = SMUGGLED[name]
        assert (name in INERT) is reading.harmless(source, ATTACHED.get(name), ("derive-answer",))
        shown = reading.readable(source, ATTACHED.get(name), ("derive-answer",))
        assert reading.harmless(shown, ATTACHED.get(name), ("derive-answer",))

    @pytest.mark.parametrize(
        "around", ["{}", "Some *words*.\n\n{}", "- a\n- {}", "> {}", "a | {}\n--|--\n", "$x$ {} $y$"]
    )
    def test_wherever_it_stands(self, around):
        for name, source in SMUGGLED.items():
            shown = reading.readable(around.format(source), ATTACHED.get(name), ("derive-answer",))
            assert reading.harmless(shown, ATTACHED.get(name), ("derive-answer",)), name

    def test_what_is_honest_is_left_alone(self):
        assert reading.readable(HONEST, HONEST_ATTACHED) == HONEST

    @pytest.mark.parametrize("chapter", course.assignments())
    def test_so_is_every_text_of_ours(self, chapter):
        """Solutions, questions and rubrics; the title links to a chapter by a path, and is ours."""
        cells = nbformat.read(course.SOURCE / chapter / f"{chapter}.ipynb", as_version=4).cells
        texts = [cell.source for cell in cells if cell.cell_type == "markdown" and cell.id != "title"]
        assert [text for text in texts if reading.readable(text) != text] == []

    def test_the_rest_of_a_cell_still_shows(self):
        shown = reading.readable("Let $a < b$.\n\n**So** [see](../x.ipynb), for x<y, " + img("rest"))
        assert "Let $a < b$." in shown and "**So**" in shown and "<img" not in shown and "](" not in shown

    def test_a_fence_cannot_be_broken(self):
        for run in range(1, 9):
            source = f"{'`' * run}\n~~~\n{img('x')}\n{'`' * run}\n[a]: javascript:1\n[a]"
            assert reading.harmless(reading.as_text(source))


@pytest.fixture(scope="module")
def formgrader(batch, tmp_path_factory):
    """Serve the course with nbgrader's own extension; yield the address of the formgrader, and the token."""
    with served(batch, tmp_path_factory.mktemp("server")) as server:
        yield server


def sent(formgrader, path):
    """Return what the formgrader sends, before any script has run."""
    address, token = formgrader
    with urllib.request.urlopen(f"{address}/formgrader/{path}{'&' if '?' in path else '?'}token={token}") as answer:
        return answer.read().decode()


def ask(formgrader, path):
    """Return what the formgrader's interface says."""
    return json.loads(sent(formgrader, path))


def submission(formgrader, student):
    """Return the number under which the formgrader knows a notebook."""
    found = ask(formgrader, "api/submitted_notebooks/bellman/bellman")
    return next(one["id"] for one in found if one["student"] == student)


def visit(browser, formgrader, path):
    """Open a page, press and touch all of the student's on it; return what ran, the page's title, text and tags."""
    address, token = formgrader
    context = browser.new_context()
    context.route(lambda url: not url.startswith((address, "data:", "about:")), lambda route: route.abort())
    page = context.new_page()
    page.goto(f"{address}/formgrader/{path}?token={token}", wait_until="load")
    try:
        page.wait_for_timeout(500)
        here = page.url
        box = page.locator("#notebook-container")
        if box.count():
            names = """() => [...document.querySelectorAll("#notebook-container a, #notebook-container button.btn")]
                .filter(one => !one.closest(".panel-heading")).forEach(one => {
                    one.dispatchEvent(new MouseEvent("mouseover", {bubbles: true}));
                    if (!/^(https?|mailto):/.test(one.href || "") && !/^data:/.test(one.href || "")) one.click();
                })"""
            page.evaluate(names)
            over = """() => document.querySelectorAll("#notebook-container *").forEach(
                one => one.dispatchEvent(new MouseEvent("mouseover")))"""
            page.evaluate(over)
            page.wait_for_timeout(300)
        assert page.url.split("#")[0] == here.split("#")[0]
        box = page.locator("body")
        return page.evaluate("() => [...new Set(window.RAN || [])]"), page.title(), box.inner_text(), page.content()
    finally:
        context.close()


class TestFormgrader:
    """Opened in Chromium, with every link pressed."""

    def test_the_smugglers_page_runs_nothing_of_theirs(self, batch, formgrader, browser):
        number = submission(formgrader, "smuggler")
        before = ask(formgrader, f"api/grades?submission_id={number}")
        found, title, text, _ = visit(browser, formgrader, f"submissions/{number}/")
        assert (found, "RAN" in title) == ([], False)
        assert ask(formgrader, f"api/grades?submission_id={number}") == before
        assert "I do not know." in text and "onerror" in text  # shown as it was typed
        assert text.count("Student's answer") == 10  # no box of ours was closed or covered

    def test_control_where_it_is_not_cleaned_it_runs(self, batch, formgrader, browser):
        found, title, _, _ = visit(browser, formgrader, f"submissions/{submission(formgrader, 'control')}/")
        assert title == "RAN" and set(BARE) - set(found) <= {"focus"}  # which one page element has at most

    def test_honest_work_shows(self, batch, formgrader, browser):
        found, _, text, source = visit(browser, formgrader, f"submissions/{submission(formgrader, 'honest')}/")
        formula = "$|\\max_a x_a - \\max_a y_a| \\le \\|x - y\\|_\\infty$"
        raw = sent(formgrader, f"submissions/{submission(formgrader, 'honest')}/")  # before formulas are set
        assert found == [] and formula in html.unescape(raw) and "a<b" in html.unescape(raw)
        assert "<strong>monotonicity</strong>" in source and source.count(f"data:image/png;base64,{PNG}") == 2
        assert "&amp;\\le \\gamma" in raw and "&amp;lt;" not in source and '<a href="https://example.org/' in source
        assert "assert (T(Q) < 1).all()" in text and "<sub>2</sub>" in source

    @pytest.mark.parametrize(
        "path",
        [
            "manage_assignments",
            "manage_submissions/bellman",
            "gradebook",
            "gradebook/bellman",
            "gradebook/bellman/bellman",
            "manage_students",
            "manage_students/smuggler",
            "manage_students/smuggler/bellman",
        ],
    )
    def test_no_list_runs_a_name(self, batch, formgrader, browser, path):
        assert visit(browser, formgrader, path)[:1] == ([],)

    def test_what_else_was_handed_in_is_not_served(self, batch, formgrader):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            ask(formgrader, f"submissions/{submission(formgrader, 'smuggler')}/evil.html")
        assert [path.name for path in (batch / "autograded" / "smuggler" / "bellman").iterdir()] == ["bellman.ipynb"]


class TestFeedbackOfASmuggler:
    def test_runs_nothing(self, batch, browser):
        page = browser.new_page()
        try:
            page.goto((batch / "feedback" / "smuggler" / "bellman" / "bellman.html").as_uri())
            page.wait_for_timeout(300)
            assert page.evaluate("() => window.RAN || []") == [] and page.title() != "RAN"
            assert "I do not know." in page.locator("body").inner_text()
            assert page.locator("script, iframe, form, [onerror], [onload]").count() == 0
        finally:
            page.close()


class TestTableOfMarks:
    def test_has_text_only(self, batch):
        _, rows = grade.write_table(batch, "bellman")
        said = {row["student_id"]: row for row in rows}
        odd = next(name for name in said if name.startswith("<img"))
        assert said[odd]["status"] == "cannot be graded" and "the name of a student" in said[odd]["note"]
        assert said["smuggler"]["status"] == said["honest"]["status"] == "graded"
        pages.none([row["note"] for row in rows if "<" in row["note"]], "these notes hold markup")
