"""The built site in a real browser: alive with no kernel and no other host, and open to everyone.

From the disk, with no server, a page shows its text, math and pictures (test_opens_from_the_disk says what else).
"""

import pytest
from build_book import SITE, toc_files

from tests import page_checks as check
from tests.browser import look, opened, served, unfold

CHAPTER = "book/contraction"
PAGES = check.names(SITE) or toc_files()


@pytest.fixture(scope="module", params=PAGES)
def visit(request, browser, address):
    """Open a page once for all that is asked of it."""
    with opened(browser, f"{address}/{request.param}.html", address) as visit:
        yield visit


class TestEveryPage:
    """Asked of each page, in this order, in one visit."""

    def test_math_is_typeset(self, visit):
        assert check.untypeset(visit[0]) == []

    def test_controls_are_alive(self, visit):
        assert check.dead_controls(visit[0]) == []

    def test_fits_a_phone(self, visit):
        assert check.too_wide(visit[0]) == []

    def test_formulas_are_spoken(self, visit):
        assert check.unspoken(visit[0]) == []

    def test_axe_finds_nothing(self, visit):
        assert check.violations(visit[0]) == []

    def test_nothing_complained(self, visit):
        assert visit[1] == []


@pytest.fixture(scope="module")
def reading(browser, address):
    """Open a chapter with everything in it: math, folds, a widget."""
    with opened(browser, f"{address}/{CHAPTER}.html", address) as reading:
        yield reading


@pytest.fixture
def chapter(reading):
    """Turn to the start of the chapter, as on a desk, with the focus nowhere; no test leaves a complaint behind."""
    page, complaints = reading
    look(page, "light", 1280)
    check.at_start(page)
    yield page
    assert complaints == []


class TestKeyboard:
    """Everything can be done without a mouse."""

    @pytest.mark.parametrize("theme", ["light", "dark"])
    def test_focus_is_seen(self, chapter, theme):
        assert check.unseen_focus(chapter, theme, stops=30) == []

    def test_skips_to_the_text(self, chapter):
        chapter.keyboard.press("Tab")
        assert chapter.evaluate("document.activeElement.textContent") == "Skip to main content"
        chapter.keyboard.press("Enter")
        assert chapter.url.endswith("#main-content")
        chapter.keyboard.press("Tab")
        assert chapter.evaluate("!!document.activeElement.closest('main')")

    def test_search_opens_and_closes(self, chapter):
        chapter.keyboard.press("Control+K")
        assert chapter.evaluate("document.activeElement.closest('dialog[open]')?.id") == "pst-search-dialog"
        assert chapter.evaluate("document.activeElement.name") == "q"
        chapter.keyboard.press("Escape")
        assert chapter.locator("dialog[open]").count() == 0

    def test_search_button_opens(self, chapter):
        chapter.locator(".search-button__button:visible").first.press("Enter")
        assert chapter.locator("#pst-search-dialog[open]").count() == 1
        chapter.keyboard.press("Escape")
        assert chapter.locator("dialog[open]").count() == 0

    def test_theme_switches_and_says_so(self, chapter):
        switch = chapter.locator(".theme-switch-button:visible")
        themes = set()
        for _ in range(3):
            switch.press("Enter")
            mode = chapter.evaluate("document.documentElement.dataset.mode")
            chapter.wait_for_function(
                "m => document.querySelector('.theme-switch-button').ariaLabel.endsWith(m)", arg=mode
            )
            themes.add((mode, chapter.evaluate("document.documentElement.dataset.theme")))
        assert {("light", "light"), ("dark", "dark")} < themes

    def test_sidebar_hides_and_returns(self, chapter):
        toggle = chapter.locator(".primary-toggle:visible")
        link = chapter.locator("#pst-primary-sidebar a:visible").first
        toggle.press("Enter")
        link.wait_for(state="hidden")
        assert toggle.evaluate("toggle => toggle === document.activeElement")
        chapter.keyboard.press("Enter")
        link.wait_for(state="visible")

    @pytest.mark.parametrize(
        ("which", "dialog"), [("primary", "#pst-primary-sidebar-modal"), ("secondary", "#pst-secondary-sidebar-modal")]
    )
    def test_sidebars_open_on_a_phone(self, chapter, which, dialog):
        chapter.set_viewport_size({"width": 360, "height": 900})
        toggle = chapter.locator(f".{which}-toggle:visible").first
        toggle.press("Enter")
        assert chapter.locator(f"{dialog}[open]").count() == 1
        chapter.keyboard.press("Tab")
        assert chapter.evaluate("dialog => !!document.activeElement.closest(dialog)", dialog)
        chapter.keyboard.press("Escape")
        assert chapter.locator("dialog[open]").count() == 0
        assert toggle.evaluate("toggle => toggle === document.activeElement")

    @pytest.mark.parametrize("kind", ["proof", "solution"])
    @pytest.mark.parametrize("key", ["Enter", "Space"])
    def test_folds_open_and_close(self, chapter, kind, key):
        fold = chapter.locator(f".{kind}.toggle").first
        button, inside = fold.locator(".toggle-button").first, fold.locator(":scope > .admonition-title + *")
        hidden = "element => getComputedStyle(element).visibility"
        assert inside.evaluate(hidden) == "hidden"
        button.press(key)
        assert (inside.evaluate(hidden), button.get_attribute("aria-expanded")) == ("visible", "true")
        button.press(key)
        assert (inside.evaluate(hidden), button.get_attribute("aria-expanded")) == ("hidden", "false")

    @pytest.mark.parametrize("key", ["Enter", "Space"])
    def test_code_opens_and_closes(self, chapter, key):
        fold = chapter.locator("main details").first
        for is_open in (True, False):
            fold.locator("summary").press(key)
            assert fold.evaluate("fold => fold.open") == is_open

    def test_what_scrolls_is_reached(self, chapter):
        unfold(chapter)
        look(chapter, "light", 360)
        assert check.unreachable(chapter) == []

    def test_formulas_are_no_stops(self, chapter):
        assert (
            chapter.evaluate("""() => [...document.querySelectorAll("mjx-container[tabindex='0']")]
            .filter((box) => box.scrollWidth <= box.clientWidth).length""")
            == 0
        )

    def test_menu_of_downloads_opens(self, chapter):
        chapter.locator(".dropdown-download-buttons button.dropdown-toggle").press("Enter")
        link = chapter.locator(".dropdown-download-buttons .dropdown-menu a").first
        assert link.is_visible()
        chapter.keyboard.press("Escape")
        assert not link.is_visible()


class TestSearch:
    """Search finds, on its page and from the dialog of every page."""

    def found(self, page):
        page.wait_for_selector("#search-results li a")
        page.wait_for_function(
            "/finished|complete|found/i.test(document.querySelector('#search-results p').textContent)"
        )
        return [link.get_attribute("href") for link in page.locator("#search-results li a").all()]

    def test_search_page_finds(self, browser, address):
        with opened(browser, f"{address}/search.html?q=contraction", address) as (page, complaints):
            found = self.found(page)
            assert any(link.startswith("book/contraction.html") for link in found)
            links = check.Links(SITE)
            assert [link for link in found if links.fault(SITE / "search.html", link.partition("?")[0])] == []
            assert complaints == []

    def test_search_dialog_finds(self, browser, address):
        with opened(browser, f"{address}/book/introduction.html", address) as (page, complaints):
            page.keyboard.press("Control+K")
            page.keyboard.type("deadly triad")
            page.keyboard.press("Enter")
            page.wait_for_url("**/search.html?q=deadly+triad*")
            assert any("function_approximation" in link for link in self.found(page))
            assert complaints == []

    def test_finds_nothing_of_what_is_not_there(self, browser, address):
        with opened(browser, f"{address}/search.html?q=zyzzyva", address) as (page, _):
            page.wait_for_function("/did not match/i.test(document.querySelector('#search-results').textContent)")
            assert page.locator("#search-results li a").count() == 0


def test_works_in_a_subfolder(browser, tmp_path):
    """The site may live below any address: nothing is asked from outside of its folder."""
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "sub").symlink_to(SITE)
    with served(tmp_path) as address:
        home = f"{address}/some/sub/"
        with opened(browser, f"{home}{CHAPTER}.html", home) as (page, complaints):
            assert check.untypeset(page) + check.dead_controls(page) == []
            page.keyboard.press("Control+K")
            page.keyboard.type("contraction")
            page.keyboard.press("Enter")
            page.wait_for_selector("#search-results li a")
            page.locator("#search-results li a").first.click()
            page.wait_for_load_state()
            assert page.url.startswith(f"{home}book/")
            page.goto(home)
            page.wait_for_url(f"{home}book/index.html")
            assert complaints == []
