"""The bets of a page: by mouse, by keyboard, without scripts, on paper, from the disk; and the boxes that judge."""

import json
import re
import shutil

import pytest
from bets import bets
from bs4 import BeautifulSoup

from divergence_notes.grading import check
from tests import page_checks
from tests.browser import look, opened, served
from tests.pages import BOOK
from tests.waiting import until

CHOICE, TYPED, LAST = (
    "ex-bellman-prediction",
    "ex-function-approximation-leakage-prediction",
    "ex-bellman-rate-prediction",
)
NUMBER, LETTER, CODE = "ex-contraction-last-norm", "ex-heuristics-raw", "ex-bellman-loss"


def box(name):
    return (
        f'<div class="exercise admonition" id="{name}"><p class="admonition-title">Exercise</p>'
        f'<section id="of-{name}"><p>The question of {name}?</p></section></div>'
    )


PLAIN = f"""<!DOCTYPE html>
<html lang="en" data-theme="light"><head><meta charset="utf-8"/><title>Planted</title>
<link rel="icon" href="_static/favicon.svg"/><link rel="stylesheet" href="_static/book.css"/>
<style>[hidden] {{ display: none !important; }}</style><script src="_static/access.js?v=1"></script></head>
<body><main><article class="bd-article"><section id="all"><h1>Planted<a class="headerlink" href="#all">#</a></h1>
<p><a id="there" href="#eq-1">to the formula</a></p>
<section id="one"><h2>First</h2>{box(CHOICE)}
<p id="eq-1">Sixty-nine sweeps, said the fold.</p><p>More of it.</p><div class="bet-end docutils container"></div>
<p id="after">After the fold.</p>{box(TYPED)}<p id="typed">All of them.</p>{box(LAST)}<p>Endless.</p>
<section id="two"><h3>Within</h3><p>Free.</p></section></section>
<section id="exercises"><h2>Exercises</h2>{box(NUMBER)}{box(LETTER)}{box(CODE)}<p>No fold.</p></section>
</section></article></main></body></html>
"""
PAGE = bets(PLAIN)
OF = f'.bet[data-exercise="{CHOICE}"]'


class TestPageWithBets:
    """What is put into a page, read as it is without scripts."""

    @pytest.fixture
    def page(self):
        return BeautifulSoup(PAGE, "html.parser")

    def test_is_put_in_once(self):
        assert PAGE != PLAIN and bets(PAGE) == PAGE

    @pytest.mark.parametrize("text", ["<p>No exercise.</p>", box(CODE), box("ex-nowhere-prediction")])
    def test_leaves_a_page_without_any_as_it_is(self, text):
        assert bets(text) == text

    def test_folds_up_to_the_end_the_next_bet_or_a_heading(self, page):
        folds = {fold["data-bet"]: fold.get_text(" ", strip=True) for fold in page.select(".bet-fold")}
        assert folds == {
            CHOICE: "Sixty-nine sweeps, said the fold. More of it.",
            TYPED: "All of them.",
            LAST: "Endless.",
        }

    def test_promises_that_the_page_goes_on_where_it_does(self, page):
        gates = {gate.parent["data-exercise"]: gate.get_text() for gate in page.select(".bet-gate")}
        assert gates == dict.fromkeys((CHOICE, TYPED, LAST), "Choose, and the page goes on; or show me")
        bare = BeautifulSoup(bets(PLAIN.replace("<p>Endless.</p>", "")), "html.parser")
        gates = {gate.parent["data-exercise"]: gate.get_text() for gate in bare.select(".bet-gate")}
        assert gates[TYPED] != gates[LAST] == "Choose; or show me"

    def test_other_exercises_fold_nothing_and_code_gets_no_box(self, page):
        names = [box["data-exercise"] for box in page.select(".bet-check")]
        assert names == [NUMBER, LETTER]
        assert not page.select_one(f"#{CODE} fieldset")

    def test_loses_no_word(self, page):
        for added in page.select("fieldset, .bet-tally, .bet-answers, #exercise-data"):
            added.decompose()
        assert page.get_text() == BeautifulSoup(PLAIN, "html.parser").get_text()

    def test_has_each_answer_in_a_closed_fold_and_at_the_end(self, page):
        reasons = [check(CHOICE, option).message for option in "ABCD"]
        for place in page.select(f"{OF} > details:not([open])") + page.select(".bet-answers"):
            assert all(reason in place.get_text() for reason in reasons)
        assert len(page.select(f"{OF} > details:not([open])")) == len(page.select(".bet-answers")) == 1
        assert [strong.text for strong in page.select(f"{OF} > details strong")] == ["Right: 69."]

    def test_nothing_can_be_operated_before_the_script_comes(self, page):
        controls = page.select("fieldset :is(button, input), .bet-tally button")
        assert len(controls) > 12 and all(control.has_attr("disabled") for control in controls)
        assert not page.select("[onclick], [onkeydown], script:not([src]):not([type='application/json'])")

    def test_data_closes_no_tag(self, page):
        text = page.select_one("#exercise-data").string
        assert "<" not in text and set(json.loads(text)) == {CHOICE, TYPED, LAST, NUMBER, LETTER}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Return a folder with the page and what it loads."""
    folder = tmp_path_factory.mktemp("bets")
    (folder / "_static").mkdir()
    for name in ("book.css", "access.js", "judge.js", "bets.js", "favicon.svg"):
        shutil.copy(BOOK / "_static" / name, folder / "_static" / name)
    style = folder / "_static" / "book.css"
    style.write_text(re.sub(r"@font-face \{[^}]*\}", "", style.read_text(encoding="utf-8")), encoding="utf-8")
    (folder / "page.html").write_text(PAGE, encoding="utf-8")
    (folder / "broken.html").write_text(PAGE.replace("_static/judge.js", "_static/nowhere.js"), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def home(planted):
    with served(planted) as address:
        yield address


@pytest.fixture
def reading(browser, home):
    """Open the page as a new reader; nothing may complain."""
    with opened(browser, f"{home}/page.html", home) as (page, complaints):
        yield page
        assert complaints == []


def folded(page):
    """Return the bets whose folds show nothing."""
    return page.evaluate("""() => [...document.querySelectorAll(".bet-fold")]
        .filter((fold) => !fold.firstElementChild.checkVisibility({ contentVisibilityAuto: true })
                          || fold.getBoundingClientRect().height < 5)
        .map((fold) => fold.dataset.bet)""")


def said(page, name):
    return page.locator(f'[data-exercise="{name}"] .bet-said').inner_text()


def choose(page, name, words):
    page.locator(f'[data-exercise="{name}"]').get_by_role("button", name=words, exact=True).click()


def again(page, name, words):
    """Click on an option that says that it is disabled, which a test would wait for otherwise."""
    page.locator(f'[data-exercise="{name}"]').get_by_role("button", name=words, exact=True).click(force=True)


ALL = [CHOICE, TYPED, LAST]


class TestBet:
    """One chooses, hears the reason for that choice, and what follows unfolds; it is kept, and it can be forgotten."""

    @pytest.mark.parametrize(("words", "option"), [("1", "A"), ("7", "B"), ("69", "C"), ("693", "D")])
    def test_by_mouse(self, reading, words, option):
        assert folded(reading) == ALL and reading.locator("#after").is_visible()
        choose(reading, CHOICE, words)
        result = check(CHOICE, option)
        assert said(reading, CHOICE) == f"You bet “{words}”: {'right' if result.passed else 'not so'}. {result.message}"
        assert folded(reading) == ALL[1:]
        pressed = reading.locator(f"{OF} [aria-pressed=true]").all_inner_texts()
        assert pressed == [words] and reading.locator(f"{OF} [aria-disabled=true]").count() == 4
        again(reading, CHOICE, "69")  # a bet is made once
        assert f"“{words}”" in said(reading, CHOICE)

    def test_by_keyboard(self, reading):
        page_checks.at_start(reading)
        for _ in range(40):
            reading.keyboard.press("Tab")
            if reading.evaluate("document.activeElement.textContent") == "7":
                break
        reading.keyboard.press("Enter")
        assert said(reading, CHOICE).startswith("You bet “7”: not so.") and folded(reading) == ALL[1:]
        assert reading.evaluate("document.activeElement.textContent") == "7"
        field = reading.locator(f'[data-exercise="{TYPED}"] input')
        for _ in range(40):
            reading.keyboard.press("Tab")
            if reading.evaluate("document.activeElement.localName") == "input":
                break
        reading.keyboard.type("all of them")
        reading.keyboard.press("Enter")
        assert field.input_value() == "all of them" and folded(reading) == [LAST]
        assert said(reading, TYPED) == f"You bet “all of them”: right. {check(TYPED, 63).message}"

    def test_what_is_no_answer_opens_nothing(self, reading):
        field = reading.locator(f'[data-exercise="{TYPED}"] input')
        for text, message in (("", "Nothing here yet."), ("<b>many</b>", check(TYPED, "<b>many</b>").message)):
            field.fill(text)
            choose(reading, TYPED, "Bet")
            assert said(reading, TYPED) == f"Not yet. {message}" and folded(reading) == ALL

    def test_show_me(self, reading):
        choose(reading, CHOICE, "show me")
        assert folded(reading) == ALL[1:] and said(reading, CHOICE) == ""
        assert reading.locator(f"{OF} > details[open]").is_visible()
        assert reading.evaluate("document.activeElement.localName") == "summary"
        again(reading, CHOICE, "69")
        assert reading.locator(".bet-tally li").first.inner_text() == "Bet 1, First: shown"

    def test_is_announced_and_named(self, reading):
        group = reading.get_by_role("group", name="Bet 1 of 3")
        assert group.get_by_role("button").count() == 5 and group.get_by_role("status").count() == 1

    def test_is_counted_kept_and_forgotten(self, reading):
        tally = reading.locator(".bet-tally")
        assert "0 of 3 right, 3 still open." in tally.inner_text()
        choose(reading, CHOICE, "69")
        choose(reading, LAST, "both")
        assert "1 of 3 right, 1 still open." in tally.inner_text()
        reading.reload()
        assert folded(reading) == [TYPED] and "“69”" in said(reading, CHOICE)
        lines = tally.locator("li").all_inner_texts()
        assert lines == [
            "Bet 1, First: you bet “69”, right",
            "Bet 2, First: open",
            "Bet 3, First: you bet “both”, not so",
        ]
        tally.get_by_role("button").click()
        assert folded(reading) == ALL and said(reading, CHOICE) == "" and "3 still open" in tally.inner_text()
        reading.reload()
        assert folded(reading) == ALL

    def test_two_tabs_keep_what_either_bets(self, reading):
        """Each shows what was bet in the other; one that was open before takes nothing back, and both forget."""
        other = reading.context.new_page()
        other.goto(reading.url)
        choose(reading, CHOICE, "69")
        other.locator(f"{OF} .bet-said", has_text="69").wait_for()
        choose(other, LAST, "both")
        reading.locator(f'[data-exercise="{LAST}"] .bet-said', has_text="both").wait_for()
        assert folded(reading) == folded(other) == [TYPED]
        assert set(json.loads(reading.evaluate("localStorage.getItem('bets')"))) == {CHOICE, LAST}
        reading.locator(".bet-forget").click()
        other.locator(".bet-tally", has_text="3 still open").wait_for()
        assert folded(reading) == folded(other) == ALL
        other.close()

    def test_a_bet_takes_nothing_back_that_another_page_has_kept(self, reading):
        """Planted: bets of another chapter, kept since this page was opened, and not told to it."""
        reading.evaluate("localStorage.setItem('bets', JSON.stringify({ elsewhere: 'A' }))")
        choose(reading, CHOICE, "69")
        assert json.loads(reading.evaluate("localStorage.getItem('bets')")) == {"elsewhere": "A", CHOICE: "C"}

    def test_a_page_that_wakes_up_knows_what_was_bet_meanwhile(self, reading):
        """As one in the browser's cache of pages that were left, which hears nothing."""
        reading.evaluate("(text) => localStorage.setItem('bets', text)", json.dumps({CHOICE: "C"}))
        assert folded(reading) == ALL
        reading.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
        until(lambda: folded(reading) == ALL[1:])  # what is shown again is drawn with the next frame
        assert "“69”" in said(reading, CHOICE)

    @pytest.mark.parametrize(
        "stored",
        [
            *("[", "null", "7", '"x"', "[1]", '{"__proto__": "C"}'),
            *(json.dumps({CHOICE: answer}) for answer in (7, {"a": 1}, "<img src=x onerror=alert(1)>", "C " * 9999)),
        ],
        ids=range(10),
    )
    def test_what_somebody_else_has_stored_is_left_aside(self, reading, stored):
        reading.evaluate("(text) => localStorage.setItem('bets', text)", stored)
        reading.reload()
        assert folded(reading) == ALL and "0 of 3" in reading.locator(".bet-tally").inner_text()
        choose(reading, CHOICE, "69")
        reading.reload()
        assert folded(reading) == ALL[1:]

    def test_without_storage_it_lasts_as_long_as_the_page(self, browser, home):
        context = browser.new_context()
        context.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('none'); } })")
        page, errors = context.new_page(), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{home}/page.html")
        choose(page, CHOICE, "69")
        assert folded(page) == ALL[1:] and errors == []
        context.close()


class TestFold:
    """Nothing that somebody looks for stays in a fold, and without scripts there is none."""

    def test_a_link_from_elsewhere_opens_it(self, browser, home):
        with opened(browser, f"{home}/page.html#eq-1", home) as (page, _):
            assert folded(page) == ALL[1:] and page.locator(f"{OF} .bet-show").is_visible()

    def test_a_link_on_the_page_opens_it(self, reading):
        for _ in range(2):  # the second time the address has led there already
            reading.locator("#there").click()
            assert folded(reading) == ALL[1:]
            choose(reading, CHOICE, "69")
            reading.locator(".bet-forget").click()
            assert folded(reading) == ALL

    def test_what_the_browser_finds_opens_it(self, reading):
        """The browser looks into what is hidden until it is found, if it has a box, and says so before it shows it."""
        fold = reading.locator(f'.bet-fold[data-bet="{TYPED}"]')
        assert fold.get_attribute("hidden") == "until-found"
        look_of = fold.evaluate("(fold) => [getComputedStyle(fold).display, getComputedStyle(fold).contentVisibility]")
        assert look_of == ["block", "hidden"]

        def found():
            fold.evaluate("(fold) => fold.dispatchEvent(new Event('beforematch', { bubbles: true }))")
            return folded(reading) == [CHOICE, LAST]

        until(found)  # the script may still be at work on a busy machine

    def test_a_link_to_a_text_opens_it(self, planted, browser, home):
        """Chromium looks for the text while the page loads; a closed fold of code lies beside it, as in a chapter."""
        code = "<details><summary>Show code</summary><p>a = 1</p></details>"
        far = PAGE.replace("<h1>", f"{'<p>Before.</p>' * 99}<h1>").replace("<p>More of it.", f"{code}<p>More of it.")
        (planted / "linked.html").write_text(far, encoding="utf-8")
        with opened(browser, f"{home}/linked.html#:~:text=More%20of%20it", home) as (page, _):
            page.wait_for_function("() => document.querySelector('.bet-fold.open')")
            assert folded(page) == ALL[1:]
            page.wait_for_function("() => scrollY > 1000")

    def test_what_a_search_has_marked_opens_it(self, planted, browser, home):
        marked = PAGE.replace("Endless.", '<span class="highlighted">Endless</span>.')
        (planted / "marked.html").write_text(marked, encoding="utf-8")
        with opened(browser, f"{home}/marked.html", home) as (page, _):
            assert folded(page) == ALL[:2]

    @pytest.mark.parametrize(("name", "scripts"), [("page", False), ("broken", True)])
    def test_without_scripts_all_is_there(self, browser, home, name, scripts):
        context = browser.new_context(java_script_enabled=scripts)
        page = context.new_page()
        page.goto(f"{home}/{name}.html")
        assert page.locator("#eq-1").is_visible() and page.locator("#typed").is_visible()
        answer = page.locator(f"{OF} > details")
        assert answer.is_visible() and not answer.locator("li").first.is_visible()
        answer.locator("summary").click()
        assert answer.locator("li").first.inner_text().startswith("Right: 69.")
        assert page.locator(f"{OF} li button").all_inner_texts() == ["1", "7", "69", "693"]
        for dead in (".bet-tally", ".bet-answers", ".bet-gate", ".bet-check", ".bet-field"):
            assert not any(part.is_visible() for part in page.locator(dead).all())
        context.close()

    @pytest.mark.parametrize("scripts", [True, False])
    def test_on_paper_the_answers_stand_at_the_end(self, browser, home, scripts):
        context = browser.new_context(java_script_enabled=scripts)
        page = context.new_page()
        page.goto(f"{home}/page.html")
        page.emulate_media(media="print")
        answers = page.locator(".bet-answers")
        assert answers.is_visible() and "Right: 69." in answers.inner_text()
        top = {
            place: page.locator(place).bounding_box()["y"]
            for place in ("#eq-1", "#after", f"{OF} .bet-options", ".bet-answers")
        }
        assert top[f"{OF} .bet-options"] < top["#eq-1"] < top["#after"] < top[".bet-answers"]
        assert page.locator("#eq-1").bounding_box()["height"] > 5
        assert page.locator("#two").bounding_box()["y"] < top[".bet-answers"]
        for gone in (".bet-gate", ".bet-tally", f"{OF} details"):
            assert not page.locator(gone).first.is_visible()
        context.close()

    def test_from_the_disk(self, browser, planted):
        address = (planted / "page.html").as_uri()
        with opened(browser, address, planted.as_uri()) as (page, complaints):
            choose(page, CHOICE, "7")
            assert folded(page) == ALL[1:]
            page.reload()
            assert folded(page) == ALL[1:] and complaints == []

    def test_under_a_strict_policy(self, planted, browser, home):
        policy = """<head><meta http-equiv="Content-Security-Policy" content="script-src 'self'"/>"""
        (planted / "strict.html").write_text(PAGE.replace("<head>", policy), encoding="utf-8")
        page, errors = browser.new_page(), []
        page.on("console", lambda said: errors.append(said.text))
        page.goto(f"{home}/strict.html")
        choose(page, CHOICE, "7")
        assert folded(page) == ALL[1:] and errors == []
        page.close()


class TestCheckHere:
    """A number or a choice that is no bet is judged where it is asked, as often as one likes, and nothing is kept."""

    def test_a_number(self, reading):
        field = reading.locator(f'[data-exercise="{NUMBER}"] input')
        tell = reading.locator(f'[data-exercise="{NUMBER}"] .bet-tell')
        for text, value in (("0.9", 0.9), ("1/19", 1 / 19), ("9 - sqrt(80)", 9 - 80**0.5), ("0.5", 0.5), ("1", 1)):
            field.fill(text)
            field.press("Enter")
            result = check(NUMBER, value)
            message = result.message.replace(" (With `tell=True` the check tells you.)", "")
            assert said(reading, NUMBER) == f"{'Right.' if result.passed else 'Not yet.'} {message}"
            assert tell.is_visible() == (not result.passed)
        field.fill("0.5")
        choose(reading, NUMBER, "Check")
        tell.click()
        assert said(reading, NUMBER) == f"Not yet. {check(NUMBER, 0.5, tell=True).message}"
        assert reading.evaluate("localStorage.getItem('bets')") is None
        assert "is not handed in" in reading.locator(f"#{NUMBER}").inner_text()

    def test_a_choice(self, reading):
        for words, option in (("it goes down", "DOWN"), ("it goes up", "UP"), ("it stays", "STAYS")):
            choose(reading, LETTER, words)
            assert said(reading, LETTER).endswith(check(LETTER, option).message)
            assert reading.locator(f"#{LETTER} [aria-pressed=true]").all_inner_texts() == [words]


@pytest.fixture(scope="module")
def played(browser, address):
    with opened(browser, f"{address}/book/key_equation.html", address) as (page, complaints):
        assert folded(page) != []
        for ask in page.locator(".bet, .bet-check").all():
            if ask.locator(".bet-options").count():
                ask.locator(".bet-options button").first.click()
            else:
                ask.locator("input").fill("2")
                ask.locator("input").press("Enter")
        yield page, complaints


@pytest.mark.site
class TestChapterWithBets:
    """A chapter of the book, with every bet made and every number checked."""

    def test_is_open_and_has_answered(self, played):
        page, complaints = played
        assert page.locator(".bet").count() >= 1 and page.locator(".bet-check").count() >= 1
        assert folded(page) == [] and "still open" not in page.locator(".bet-tally").inner_text()
        assert all(text.strip() for text in page.locator(".bet-said").all_inner_texts())
        assert page_checks.untypeset(page) + page_checks.cut_formulas(page, 1280) + complaints == []

    @pytest.mark.parametrize("theme", ["light", pytest.param("dark", marks=pytest.mark.nightly)])
    def test_axe_finds_nothing(self, played, theme):
        page, _ = played
        look(page, theme, 360)
        rules = {"type": "tag", "values": page_checks.TAGS}
        assert page_checks.axe(page, rules, include="article") == [] and page_checks.too_wide(page) == []
