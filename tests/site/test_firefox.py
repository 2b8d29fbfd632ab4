"""A chapter in Firefox, by keys: a bet, an answer that is judged, cells that run and are stopped, the plane."""

import json

import pytest
from build_book import SITE

from divergence_notes import grading
from tests.browser import served
from tests.firefox import firefox
from tests.pages import NUMBERED, code_cells, tags
from tests.site import needs_python
from tests.waiting import PATIENCE

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.site,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # sockets that the driver leaves
]
NAME = "bellman"
BET, EXERCISE = "ex-bellman-prediction", "ex-bellman-loss"
WRONG = "def bound(epsilon, gamma): return epsilon * gamma / (1 - gamma)"


@pytest.fixture(scope="module")
def started():
    with firefox() as found:
        yield found


@pytest.fixture(scope="module")
def home():
    with served(SITE) as address:
        yield address


class Reader:
    """Does with a page what one does by keys, and reads what it says."""

    def __init__(self, driver):
        from marionette_driver import By, keys

        self.driver, self.css, self.keys = driver, By.CSS_SELECTOR, keys.Keys

    def find(self, selector):
        return self.driver.find_element(self.css, selector)

    def text(self, selector):
        script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent).join('')"
        return self.driver.execute_script(script, [selector])

    def press(self, selector, words, key=None):
        """Press Enter on the button with these words, whether or not a fold hides it."""
        script = """return [...document.querySelectorAll(arguments[0])]
            .find((one) => one.textContent.startsWith(arguments[1]))"""
        button = self.driver.execute_script(script, [f"{selector} button", words])
        assert button is not None, f"no button {words!r} in {selector}"
        button.send_keys(key or self.keys.ENTER)

    def write(self, selector, text):
        """Write into an editor, in place of what it has."""
        field = self.find(f"{selector} :is(.cm-content, textarea)")
        field.click()
        field.send_keys(self.keys.CONTROL + "a")
        field.send_keys(self.keys.BACK_SPACE)
        field.send_keys(text.replace("\n", self.keys.ENTER))

    def wait(self, selector, words):
        """Wait until a part of the page begins with one of these words; return what it says."""
        from marionette_driver import Wait

        Wait(self.driver, timeout=PATIENCE).until(lambda _: self.text(selector).strip().startswith(words))
        return self.text(selector)


@pytest.fixture(scope="module")
def reader(started, home):
    driver, _ = started
    driver.navigate(f"{home}/book/{NAME}.html")
    return Reader(driver)


@needs_python
class TestChapterInFirefox:
    """One visit, in this order."""

    def test_a_bet(self, reader):
        box = f'[data-exercise="{BET}"]'
        fold = f'.bet-fold[data-bet="{BET}"]'
        assert reader.find(fold).get_attribute("class") == "bet-fold"
        reader.press(f"{box} .bet-options", "69")
        assert reader.text(f"{box} .bet-said") == f"You bet “69”: right. {grading.check(BET, 'C').message}"
        assert "open" in reader.find(fold).get_attribute("class")

    def test_a_wrong_answer_and_a_right_one(self, reader):
        box = f"#{EXERCISE}"
        space = {}
        exec(WRONG, space)
        reader.write(box, WRONG)
        reader.press(box, "Check")
        verdict = reader.wait(f"{box} .live-verdict", ("Not yet.", "Your code", "Python did"))
        diagnosis = grading.check(EXERCISE, space["bound"]).message.split(" That was with ")[0]
        assert verdict == f"Not yet. {diagnosis}"
        reader.write(box, WRONG.replace("return", "return 2 *"))
        reader.press(box, "Check")
        assert reader.wait(f"{box} .live-verdict", ("Right.", "Not yet.", "Your code")).startswith("Right.")

    def test_the_first_cells_print_what_is_published(self, reader):
        shown = [number for number in self.cells(reader) if reader.find(f'[data-cell="{number}"]').is_displayed()][:4]
        printed = {number: reader.text(f'[data-cell="{number}"] .cell_output pre') for number in shown}
        assert any(printed.values())
        reader.press(".live-bar", "Run this page")
        reader.wait(".live-bar [role=status]", ("Python is here", "Python did not"))
        for number in shown:
            block = f'[data-cell="{number}"]'
            reader.press(block, "Run")
            assert reader.wait(f"{block} .live-tools .live-note", ("ran in", "raised", "not run")).startswith("ran in")
        assert printed == {number: reader.text(f'[data-cell="{number}"] .cell_output pre') for number in shown}

    def cells(self, reader):
        cells = json.loads((SITE / "book" / f"{NAME}.cells.json").read_text(encoding="utf-8"))
        path = next(path for path in NUMBERED if path.stem == NAME)
        assert [cell["id"] for cell in cells] == [cell.id for cell in code_cells(path)]
        return [number for number, cell in enumerate(cells) if not cell["hidden"] and not cell["asks"]]

    def unfolded(self, reader):
        """Return the first cell that prints and whose code no fold hides."""
        cells = code_cells(next(path for path in NUMBERED if path.stem == NAME))
        return next(
            number
            for number in self.cells(reader)
            if "print(" in cells[number].source and not any(tag.startswith("hide-") for tag in tags(cells[number]))
        )

    def test_a_loop_is_stopped_and_the_cell_runs_again(self, reader):
        block = f'[data-cell="{self.unfolded(reader)}"]'
        assert reader.find(f"{block} .cm-content").is_displayed()
        before = reader.text(f"{block} .cell_output pre")
        reader.write(block, "print(6 * 7)\nwhile True: pass")
        reader.press(block, "Run")
        reader.wait(f"{block} .cell_output pre", "42")
        reader.press(block, "Stop")
        reader.wait(f"{block} .live-tools .live-note", "stopped")
        reader.press(block, "As published")
        reader.press(block, "Run")
        reader.wait(f"{block} .live-tools .live-note", "ran in")
        assert reader.text(f"{block} .cell_output pre") == before

    def test_the_plane(self, reader):
        ring = reader.find(".dn-plane .dn-start")
        before, said = ring.get_attribute("aria-label"), reader.text(".dn-plane .dn-words")
        for _ in range(4):
            ring.send_keys(reader.keys.ARROW_UP)
        assert ring.get_attribute("aria-label") != before and reader.text(".dn-plane .dn-words") != said

    def test_away_and_back(self, reader, home):
        reader.driver.navigate(f"{home}/book/glossary.html")
        reader.driver.go_back()
        reader.wait(f'[data-exercise="{BET}"] .bet-said', "You bet “69”")
        block = f'[data-cell="{self.unfolded(reader)}"]'
        if not reader.text(f"{block} .live-tools button"):  # the page was loaded anew
            reader.press(".live-bar", "Run this page")
            reader.wait(".live-bar [role=status]", ("Python is here", "Python did not"))
        reader.press(block, "Run")
        reader.wait(f"{block} .live-tools .live-note", "ran in")
        assert "return 2 *" in reader.text(f"#{EXERCISE} :is(.cm-content, textarea)") or "return 2 *" in reader.find(
            f"#{EXERCISE} textarea"
        ).get_property("value")

    def test_nothing_complained(self, reader, started, home):
        assert started[1](home) == []


def test_planted(started, tmp_path):
    """A script that fails, one that complains, a file that is gone and another host are heard."""
    (tmp_path / "page.html").write_text(
        """<!doctype html><title>planted</title><script>console.error("one")</script><script>undefined_name</script>
        <img src="gone.png" alt=""><script src="http://foreign.invalid/a.js"></script><h1>here</h1>"""
    )
    driver, complaints = started
    with served(tmp_path) as address:
        driver.navigate(f"{address}/page.html")
        found = complaints(address)
    for part in ("console: one", "undefined_name is not defined", "404 ", "asked http://foreign.invalid/a.js"):
        assert any(part in complaint for complaint in found), (part, found)
