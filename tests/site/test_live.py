"""Python in the pages: what a page is given, and what it does with it in a browser."""

import json
import re
from types import SimpleNamespace
from urllib.parse import urlsplit

import live
import nbformat
import pytest
from bs4 import BeautifulSoup
from build_book import SITE
from weigh import packed

from divergence_notes import grading
from tests import page_checks as check
from tests.browser import opened, unfold
from tests.pages import NUMBERED, code_cells, tags
from tests.site import needs_python


class TestWhatIsAsked:
    """What the text of an exercise hands to its check."""

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ('grading.check("ex-a", worth) calls worth(reward, cost)', ("worth", "worth(reward, cost)")),
            ('with rise(c, mdp):\n grading.check( "ex-a",\n rise)', ("rise", "rise(c, mdp)")),
            ("grading.check(“ex-a”, [two, five]), with two games", ("[two, five]", "")),
            ('grading.check("ex-a", (f(1, [2]), b)) and f(x)', ("(f(1, [2]), b)", "")),
            ('grading.check("ex-ab", b)', ("", "")),
            ("prove it", ("", "")),
        ],
    )
    def test_asked(self, text, found):
        assert live.asked("ex-a", text) == found

    def test_the_seed_of_a_function(self):
        one = grading.Function("ex-a", lambda c, mdp, *, planned=None: 0)
        assert live.seed(one, 'grading.check("ex-a", rise), rise(c, m)') == ("def rise(c, m):\n    ...\n", "rise")
        assert live.seed(one, "prove it", "import a") == ("import a\n\n\ndef answer(c, mdp):\n    ...\n", "answer")

    def test_the_seed_of_an_example(self):
        one = grading.Value("ex-a", lambda: 0, judge=lambda value: None)
        assert live.seed(one, 'grading.check("ex-a", [two, "x", two, five])') == (
            "two = ...\nfive = ...\n",
            '[two, "x", two, five]',
        )

    def test_a_function_has_a_name(self):
        with pytest.raises(ValueError, match=r"ex-a must name the function that it asks for, got '\[f, g\]'"):
            live.seed(grading.Function("ex-a", lambda c: 0), 'grading.check("ex-a", [f, g])')


CELLS = [
    {"id": "a", "source": "import torch", "hidden": False, "takes": {}, "defines": [], "changes": [], "asks": "torch"},
    {"id": "b", "source": "x = '</script>'", "hidden": True, "takes": {}, "defines": [], "changes": [], "asks": ""},
    {"id": "c", "source": "print(x)", "hidden": False, "takes": {"x": [1]}, "defines": [], "changes": [], "asks": ""},
]
BARE = '<html><head></head><body><main>{}<div class="exercise" id="ex-a">Prove.</div></main></body></html>'
BLOCK = '<div class="cell"></div>'


class TestPut:
    def test_blocks_know_their_cells(self):
        page = BeautifulSoup(live.put(BARE.format(2 * BLOCK), CELLS, {}, kernel={}), "html.parser")
        assert [block["data-cell"] for block in page.select("div.cell")] == ["0", "2"]

    def test_a_page_that_shows_other_cells_is_refused(self):
        with pytest.raises(ValueError, match="page must show 2 cells, has 3"):
            live.put(BARE.format(3 * BLOCK), CELLS, {}, kernel={})

    def test_a_page_without_anything_to_run_stays_as_it_is(self):
        html = BARE.format(BLOCK)
        assert live.put(html, CELLS[:1], {}, kernel={}) == html

    def test_what_it_is_told_cannot_end_the_script(self):
        exercise = SimpleNamespace(name="ex-a")
        html = live.put(BARE.format(2 * BLOCK), CELLS, {}, kernel={"kernel": "</script><b>"}, cells_file="c.json")
        told = json.loads(BeautifulSoup(html, "html.parser").find(id="live-data").string)
        assert exercise and told["kernel"] == "</script><b>" and told["cells"] == "c.json"

    def test_nothing_where_there_is_no_kernel(self, monkeypatch, tmp_path):
        (tmp_path / "book").mkdir()
        page = tmp_path / "book" / "bellman.html"
        page.write_text("as it was")
        monkeypatch.setattr(live, "megabytes", lambda names: None)
        live.put_all(tmp_path)
        assert page.read_text() == "as it was"

    def test_imports_of_a_box_need_no_torch(self):
        path = next(path for path in NUMBERED if path.stem == "key_equation")
        cells = live.live_cells.page(nbformat.read(path, as_version=4))
        lines = live.imports_for("ex-key-equation-loss", cells)
        assert "import numpy as np" in lines and "networks" not in lines

    def test_imports_of_a_box_are_those_of_the_solution_and_the_text(self):
        path = next(path for path in NUMBERED if path.stem == "contraction")
        cells = live.live_cells.page(nbformat.read(path, as_version=4))
        lines = live.imports_for("ex-contraction-overshoot", cells, "such as examples.row_dominant(). Any")
        assert "from dataclasses import replace" in lines and "examples" in lines
        assert "examples" not in live.imports_for("ex-contraction-overshoot", cells, "such as safe. Any")


def told(name):
    """Return what live.js is told on a page."""
    return json.loads(check.soup(f"book/{name}").find(id="live-data").string)


@needs_python
class TestOfThePages:
    def test_every_exercise_that_needs_python_has_a_box(self):
        found = {box: data for path in NUMBERED for box, data in told(path.stem)["boxes"].items()}
        text = "".join(path.read_text(encoding="utf-8") for path in NUMBERED)  # other tests register some of their own
        assert found.keys() == {name for name in live.needing_python() if f":label: {name}\\n" in text}
        assert len(found) > 10
        for name, box in found.items():
            exec(compile(box["code"], name, "exec"), space := {})
            answer = eval(
                box["answer"], space
            )  # as it stands it hands in something of the right form, and nothing right
            said = grading.check(name, answer)
            assert not said.passed and "tell=True" not in said.message  # which a box could not do

    def test_sizes_are_those_of_the_files(self):
        """By another route: what a browser would fetch, from the names in the manifest."""
        manifest = json.loads((SITE / "live" / "live.json").read_text())
        for path in NUMBERED:
            data = told(path.stem)
            for what, packages in data["packages"].items():
                files, todo = set(manifest["core"]), [*packages, *manifest["always"]]
                while todo:
                    package = manifest["packages"][todo.pop()]
                    files.add(package["file"])
                    todo += package["depends"]
                size = sum((SITE / "live" / name).stat().st_size for name in files) / 1e6
                assert data["sizes"][what] == f"{size:.0f} MB"

    def test_a_first_verdict_loads_ten_megabytes(self):
        """Packed as servers pack, with the editor; by the names in the manifest, and what its own scripts load."""
        manifest = json.loads((SITE / "live" / "live.json").read_text())
        files, todo = {"kernel.js", "live.json", "../vendor/editor.js", *manifest["core"]}, {*manifest["always"]}
        todo.add("numpy")
        while todo:
            package = manifest["packages"][todo.pop()]
            files.add(package["file"])
            todo.update(package["depends"])
        sizes = {name: packed((SITE / "live" / name).resolve()) for name in files}
        assert any(name.startswith("numpy") for name in sizes) and sum(sizes.values()) < 10_000_000, sizes


def text_of(page, number):
    """Return what a cell has printed, and what stands in its tables."""
    shown = page.locator(f'div.cell[data-cell="{number}"] .cell_output').locator("pre, th, td")
    return "".join(shown.all_text_contents())


def run(page, number):
    """Press Run on a cell, folded or not, and wait until it has run."""
    block = page.locator(f'div.cell[data-cell="{number}"]')
    block.get_by_text("Run", exact=True).dispatch_event("click")
    note = block.locator(".live-tools .live-note")
    note.filter(has_text=re.compile("^ran in|raised")).wait_for(state="attached")
    return note.text_content()


def write(page, editor, text):
    """Write into an editor, in place of what it has."""
    editor.click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(text)


def opened_cell(live_page):
    """Return the number of a cell that prints and that no fold hides."""
    block = live_page.page.locator
    return next(one for one in live_page.published if block(f'div.cell[data-cell="{one}"] .cell_output').is_visible())


def shown(path):
    """Return the numbers of the cells of a notebook that are shown, and how each is tagged."""
    return {number: tags(cell) for number, cell in enumerate(code_cells(path)) if "remove-cell" not in tags(cell)}


@pytest.fixture(scope="module")
def live_page(browser, address):
    """Open chapter 1 and click once; yield the page, and what its first five cells print as published."""
    asked = []
    with opened(browser, f"{address}/book/bellman.html", address, asked=asked) as (page, complaints):
        assert not [url for url in asked if "/live/" in url or "editor.js" in url]
        numbers = list(shown(NUMBERED[0]))[:5]
        published = {
            number: text_of(page, number)
            for number in numbers
            if page.locator(f'div.cell[data-cell="{number}"] .cell_output').count()
        }
        first = page.get_by_role("button", name=re.compile(r"^Run this page \(\d+ MB, once\)$"))
        said = float(re.search(r"\d+", first.text_content())[0])
        before = len(asked)
        first.click()
        page.get_by_text("Python is here").wait_for()
        fetched = {urlsplit(url).path.lstrip("/") for url in asked[before:]}
        yield SimpleNamespace(
            page=page, complaints=complaints, published=published, numbers=numbers, said=said, fetched=fetched
        )


PRESS_OFTEN = """async (block) => {
    const note = block.querySelector(".live-tools .live-note");
    while (!note.textContent.startsWith("runs")) await new Promise(requestAnimationFrame);
    block.querySelector(".live-button").dispatchEvent(new MouseEvent("click", { detail: 2 }));
    const key = { key: "Enter", keyCode: 13, shiftKey: true, bubbles: true, cancelable: true };
    for (let k = 0; k < 3; k += 1) block.querySelector(".cm-content").dispatchEvent(new KeyboardEvent("keydown", key));
}"""
"""The second click of a double click while the cell runs, and then the keys that run it, three times at once."""


INTO_A_FOLD = """(solution) => [...document.querySelectorAll(".toggle-hidden.admonition")]
    .find((fold) => !fold.contains(solution) && !solution.contains(fold)).append(solution)"""


@needs_python
class TestLivePage:
    """A chapter in which Python runs: one page, used from the first click on."""

    def test_the_button_says_what_a_click_loads(self, live_page):
        """To a megabyte, the editor with it; and nothing comes twice."""
        sizes = {name: (SITE / name).stat().st_size for name in live_page.fetched}
        assert {name.partition("/")[0] for name in sizes if sizes[name] > 50_000} == {"live", "vendor"}
        assert abs(sum(sizes.values()) / 1e6 - live_page.said) < 1

    def test_the_first_five_cells_print_what_is_published(self, live_page):
        for number in live_page.numbers:
            assert run(live_page.page, number).startswith("ran in")
        for number, text in live_page.published.items():
            assert text_of(live_page.page, number) == text
        assert len(live_page.published) >= 3 and live_page.complaints == []

    def test_a_changed_cell_and_as_published(self, live_page):
        page, number = live_page.page, opened_cell(live_page)
        block = page.locator(f'div.cell[data-cell="{number}"]')
        write(
            page,
            block.locator(".cm-content"),
            "print(6 * 7)\nimport pandas as pd\npd.DataFrame({'a': ['<img src=x onerror=alert(1)>']})",
        )
        page.keyboard.press("Shift+Enter")
        block.locator("table").wait_for()
        assert "42" in text_of(page, number) and block.locator(".cell_output img").count() == 0
        block.get_by_role("button", name="As published").click()
        assert text_of(page, number) == live_page.published[number]
        assert "6 * 7" not in block.locator(".cm-content").text_content()

    def test_on_paper_the_code_is_whole(self, live_page):
        """Also lines to which a screen must be scrolled, downwards or to the right, and what a cell prints."""
        page, number = live_page.page, opened_cell(live_page)
        block = page.locator(f'div.cell[data-cell="{number}"]')
        source = "\n".join([f"print({'x' * 200!r} * 4)", *(f"print({k})" for k in range(150))])
        write(page, block.locator(".cm-content"), source)
        page.keyboard.press("Shift+Enter")
        block.locator(".live-out", has_text="149").wait_for()
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 660, "height": 900})  # about a page of paper
        page.wait_for_function("() => !document.querySelector('.cm-gap')")
        assert block.locator(".cm-line").all_text_contents() == source.split("\n")
        cut = page.locator(":is(.cm-scroller, .live-out pre)").evaluate_all(
            "(all) => all.filter((e) => e.scrollWidth > e.clientWidth || e.scrollHeight > e.clientHeight).length"
        )
        assert cut == 0 and page.locator(".live-editor:visible").count() > 3
        page.emulate_media(media="screen")
        page.set_viewport_size({"width": 1280, "height": 900})
        block.get_by_role("button", name="As published").click()

    def test_every_key_reaches_the_editor(self, live_page):
        """One by one, as they are typed: a page listens for some of them."""
        page, number = live_page.page, opened_cell(live_page)
        block = page.locator(f'div.cell[data-cell="{number}"]')
        typed = "".join(map(chr, range(32, 127)))
        write(page, block.locator(".cm-content"), "#")
        page.keyboard.press("Backspace")  # what is chosen may be given up, what is written goes
        page.keyboard.type(f"print({typed!r}, 84 / 2)")
        page.keyboard.press("Shift+Enter")
        block.locator(".live-out", has_text="42.0").wait_for()
        assert text_of(page, number) == f"{typed} 42.0\n"
        block.get_by_role("button", name="As published").click()

    def test_an_error_can_be_read(self, live_page):
        page, number = live_page.page, opened_cell(live_page)
        block = page.locator(f'div.cell[data-cell="{number}"]')
        write(page, block.locator(".cm-content"), "one = 1\nundefined_name")
        page.keyboard.press("Shift+Enter")
        error = block.locator(".live-error")
        error.wait_for()
        assert error.text_content() == "NameError: name 'undefined_name' is not defined\nin line 2"
        block.get_by_role("button", name="As published").click()

    def test_pressed_twice_it_runs_once_and_goes_on(self, live_page):
        """A double click on Run is no Stop, and a cell that waits waits once, however often it is pressed."""
        page, number = live_page.page, opened_cell(live_page)
        block = page.locator(f'div.cell[data-cell="{number}"]')
        source = "import time\ntime.sleep(1)\ntimes = globals().get('times', 0) + 1\nprint(times)"
        write(page, block.locator(".cm-content"), source)
        block.get_by_role("button", name=f"Run cell {number + 1}").click()
        block.evaluate(PRESS_OFTEN)
        block.locator(".cell_output pre", has_text=re.compile(r"^2\s*$")).wait_for()
        block.locator(".live-tools .live-note", has_text="ran in").wait_for()
        block.get_by_role("button", name="As published").click()

    def test_python_that_ends_takes_what_was_computed_with_it(self, live_page):
        """A function that calls itself through C; then a cell that needs others computes them again."""
        page, number = live_page.page, opened_cell(live_page)
        block = page.locator(f'div.cell[data-cell="{number}"]')
        write(page, block.locator(".cm-content"), "def f(*x):\n    return sorted([1, 2], key=f)\nf()")
        page.keyboard.press("Shift+Enter")
        block.locator(".live-error", has_text="Python has ended: ").wait_for()
        expected = re.compile("fatal error|RangeError")  # Pyodide says in the console that it has ended, and of what
        live_page.complaints[:] = [one for one in live_page.complaints if not expected.search(one)]
        block.get_by_role("button", name="As published").click()
        last = live_page.numbers[-1]
        assert run(page, last).startswith("ran in") and run(page, number).startswith("ran in")

    def test_restart_where_nothing_runs(self, live_page):
        """A name of Python that a cell has taken for itself is given back."""
        page, number = live_page.page, opened_cell(live_page)
        block = page.locator(f'div.cell[data-cell="{number}"]')
        write(page, block.locator(".cm-content"), "print = 3")
        assert run(page, number).startswith("ran in")
        block.get_by_role("button", name="As published").click()
        assert run(page, number) == "raised an error"
        page.locator(".live-bar").get_by_role("button", name="Restart Python").click()
        page.get_by_text("Python begins anew").wait_for()
        every = page.get_by_role("button", name="Run all cells")
        every.dblclick()
        assert every.is_disabled()
        page.locator(".live-bar").get_by_role("button", name="Stop", exact=True).click()
        page.get_by_text("Stopped. What the cells had computed is gone").wait_for()
        page.wait_for_function("(button) => !button.disabled", arg=every.element_handle())
        assert run(page, number).startswith("ran in")
        assert text_of(page, number) == live_page.published[number]

    def test_an_endless_loop_is_stopped(self, live_page):
        """One that prints without end, too: the page shows so much of it, and answers meanwhile."""
        page, number = live_page.page, opened_cell(live_page)
        block = page.locator(f'div.cell[data-cell="{number}"]')
        write(page, block.locator(".cm-content"), "while True:\n    print('again ' * 10)")
        page.keyboard.press("Shift+Enter")
        block.locator("pre", has_text="cut after 100,000 characters").wait_for()
        block.get_by_role("button", name=f"Stop cell {number + 1}").click()
        block.locator(".live-note", has_text="stopped").wait_for()
        block.get_by_role("button", name="As published").click()
        assert run(page, number).startswith("ran in")
        assert text_of(page, number) == live_page.published[number]

    def test_a_wrong_answer_and_a_right_one(self, live_page):
        page = live_page.page
        exercise = page.locator("#ex-bellman-loss")
        wrong = "def bound(epsilon, gamma):\n    return epsilon * gamma / (1 - gamma)\n"
        said = grading.check("ex-bellman-loss", lambda epsilon, gamma: epsilon * gamma / (1 - gamma))
        write(page, exercise.locator(".cm-content, textarea"), wrong)
        exercise.get_by_role("button", name="Check").click()
        verdict = exercise.locator(".live-verdict")
        verdict.filter(has_text="Not yet").wait_for()
        exercise.get_by_role("button", name="On which example?").click()
        assert verdict.text_content() == "Not yet. " + said.message.replace("; the result's `arguments` holds it", "")
        offered = exercise.get_by_role("button", name="Show the solution")
        solution = page.locator(".solution", has=page.locator("a[href='#ex-bellman-loss']"))
        for tries in (2, 3):
            assert offered.count() == 0 and solution.locator("[aria-expanded=true]").count() == 0
            write(page, exercise.locator(".cm-content"), wrong.replace("return", f"return {tries} / 7 *"))
            page.keyboard.press("Shift+Enter")
            exercise.locator("[aria-busy]").wait_for(state="detached")
            verdict.filter(has_text="Not yet").wait_for()
        page.evaluate(INTO_A_FOLD, solution.element_handle())
        assert page.locator(".toggle-hidden .solution.toggle-hidden").count() == 1
        offered.click()
        assert solution.locator("[aria-expanded=true]").count() == 1
        assert solution.evaluate("(found) => !found.closest('.toggle-hidden')") and solution.is_visible()
        assert page.evaluate("document.activeElement.getAttribute('href')") == "#ex-bellman-loss"
        write(page, exercise.locator(".cm-content"), wrong.replace("return", "return 2 *"))
        page.keyboard.press("Shift+Enter")
        verdict.filter(has_text="Right. ").wait_for()
        page.reload()
        assert "return 2 * epsilon" in exercise.locator("textarea").input_value()

    def test_a_screen_reader_and_no_complaint(self, live_page):
        page = live_page.page
        page.get_by_role("button", name=re.compile("^Run this page")).click()
        page.get_by_text("Python is here").wait_for()
        run(page, live_page.numbers[-1])
        assert check.violations(page, [("light", 1280), ("dark", 360)]) == []
        wide = "() => [...document.querySelectorAll('.cm-scroller, .live-answer textarea')]"
        wide += ".filter((box) => box.scrollWidth > box.clientWidth + 1).map((box) => box.textContent.slice(0, 80))"
        assert page.evaluate(wide) == []  # on the phone that axe has left
        assert live_page.complaints == []


@needs_python
def test_from_the_disk_it_says_what_it_cannot_do(browser):
    home = SITE.as_uri()
    with opened(browser, f"{home}/book/bellman.html", home) as (page, complaints):
        assert page.locator(".live-bar").text_content().startswith("This page lies on a disk")
        assert page.locator(".live-answer").count() == 0
        assert complaints == []


@needs_python
@pytest.mark.nightly
@pytest.mark.parametrize("name", ["bellman", "contraction"])
def test_a_chapter_runs_whole(browser, address, name):
    """Every checked print is the published one, to the letter; no cell fails; sliders move."""
    path = next(path for path in NUMBERED if path.stem == name)
    cells = shown(path)
    with opened(browser, f"{address}/book/{name}.html", address) as (page, complaints):
        checked = [number for number, tagged in cells.items() if "nbval-check-output" in tagged]
        published = {number: text_of(page, number) for number in checked}
        page.get_by_role("button", name=re.compile("^Run this page")).click()
        page.get_by_text("Python is here").wait_for()
        page.get_by_role("button", name="Run all cells").click()
        page.get_by_text(re.compile("Every cell that runs here has run|raised an error")).first.wait_for(
            state="attached"
        )
        assert {number: text_of(page, number) for number in checked} == published and len(checked) > 5
        assert page.locator(".dn-plane:not(.dn-alive)").count() == 0 < page.locator(".dn-plane").count()
        assert check.dead_controls(page) == []
        assert check.violations(page, [("light", 1280), ("dark", 360)]) == []
        assert complaints == []


@needs_python
@pytest.mark.nightly
@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
def test_every_box_judges(browser, address, path):
    """The right answer of the package and its first foreseen mistake get the verdicts that grading.check gives."""
    with opened(browser, f"{address}/book/{path.stem}.html", address) as (page, complaints):
        unfold(page)  # an exercise of a long page is closed at first
        for name, box in told(path.stem)["boxes"].items():
            exercise, one = page.locator(f"#{name}"), grading.find(name)
            for what, state in (("one.right", "Right. "), ("one.mistakes[0].wrong", "Not yet. ")):
                answer = f"({what})" if isinstance(one, grading.Function) else f"({what})()"
                code = f"from divergence_notes import grading\none = grading.find({name!r})\n{box['answer']} = {answer}"
                write(page, exercise.locator(".cm-content, textarea"), code)
                page.keyboard.press("Shift+Enter")
                verdict = exercise.locator(".live-verdict")
                verdict.filter(has_text=re.compile(f"^({state}|Your code|Python did)")).wait_for()
                wrong = eval(answer, {"one": one})
                said = grading.check(name, wrong).message.split(" That was with ")[0]
                assert verdict.text_content() == state + said
        assert complaints == []
