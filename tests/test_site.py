"""The built site: whole, without faults, and alive with no kernel and no other host. `make test` builds it first."""

import contextlib
import functools
import gzip
import re

import pytest
from bs4 import BeautifulSoup
from build_book import SITE, faults, toc_files

PAGES = toc_files()
PAGE_BUDGET = 400_000  # bytes that travel for a page, widgets aside: HTML, which servers compress, and pictures


@functools.cache
def soup(name):
    """Return the page parsed."""
    return BeautifulSoup((SITE / f"{name}.html").read_text(encoding="utf-8"), "html.parser")


def test_site_is_whole():
    """One page for each file of _toc.yml, no error output, nothing of the environment."""
    assert SITE.is_dir(), "there is no site: run `make book`"
    assert faults() == []


class TestFaults:
    """The reading of the site finds what it looks for."""

    @pytest.fixture
    def site(self, tmp_path):
        for name in [*PAGES, "index"]:
            path = tmp_path / f"{name}.html"
            path.parent.mkdir(exist_ok=True)
            path.write_text("<p>fine</p>")
        return tmp_path

    def test_accepts_a_whole_site(self, site):
        assert faults(site) == []

    def test_finds_a_missing_page(self, site):
        (site / f"{PAGES[1]}.html").unlink()
        assert faults(site) == [f"no page for {PAGES[1]} of _toc.yml"]

    @pytest.mark.parametrize(
        "text", ["<pre>Traceback (most recent call last):</pre>", '<div class="output traceback highlight">']
    )
    def test_finds_an_error_output(self, site, text):
        (site / f"{PAGES[0]}.html").write_text(text)
        assert [fault.split(":")[0] for fault in faults(site)] == [f"{PAGES[0]}.html holds an error"]

    def test_finds_the_environment(self, site):
        (site / ".venv").mkdir()
        assert faults(site) == [".venv is no part of the site"]


@pytest.mark.parametrize("name", PAGES)
class TestPage:
    """What the file of each page says."""

    def test_asks_no_other_host(self, name):
        asked = [tag.get("src") or tag.get("href") for tag in soup(name).select("script[src], link[href], img[src]")]
        assert [url for url in asked if re.match(r"(https?:)?//", url)] == []

    def test_pictures_have_words(self, name):
        assert [img["src"] for img in soup(name).select("main img") if not img.get("alt", "").strip()] == []

    def test_figures_have_captions(self, name):
        figures = soup(name).select("main figure")
        assert [figure.get("id") for figure in figures if not figure.find("figcaption")] == []
        assert [img["src"] for img in soup(name).select("main .cell_output img") if not img.find_parent("figure")] == []

    def test_keeps_to_its_budget(self, name):
        text = (SITE / f"{name}.html").read_text(encoding="utf-8")
        state = soup(name).find("script", type="application/vnd.jupyter.widget-state+json")
        size = len(gzip.compress(text.replace(state.text if state else "", "").encode()))
        size += sum((SITE / name).parent.joinpath(img["src"]).stat().st_size for img in soup(name).select("main img"))
        assert size <= PAGE_BUDGET


@contextlib.contextmanager
def opened(browser, address, name):
    """Open a page; yield it, typeset and with its widgets drawn, and the list of complaints so far."""
    complaints = []
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.on("request", lambda request: complaints.append(f"asked {request.url}") if foreign(request.url) else None)
    page.on(
        "response", lambda answer: complaints.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None
    )
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on(
        "console", lambda message: complaints.append(f"console: {message.text}") if message.type == "error" else None
    )

    def foreign(url):
        return not url.startswith((address, "data:", "blob:"))

    try:
        page.goto(f"{address}/{name}.html", wait_until="load")
        if soup(name).select(".math"):
            page.wait_for_function("window.MathJax && MathJax.startup && MathJax.startup.promise")
            page.evaluate("() => MathJax.startup.promise.then(() => null)")
        views = len(soup(name).find_all("script", type="application/vnd.jupyter.widget-view+json"))
        page.wait_for_function(
            "n => document.querySelectorAll('.widget-subarea, .jupyter-widgets-view, .widget-vbox').length >= n",
            arg=views,
        )
        yield page, complaints
    finally:
        page.close()


def shown(page):
    """Return what the visible pictures of widgets say to a screen reader."""
    pictures = page.locator(".jupyter-widgets svg[role=img]:visible")
    return [picture.get_attribute("aria-label") for picture in pictures.all()]


@pytest.mark.parametrize("name", PAGES)
def test_opens_in_a_browser(browser, address, name):
    """Math is typeset, nothing complains, no other host is asked, and the keys move every slider and its picture."""
    with opened(browser, address, name) as (page, complaints):
        assert page.locator("mjx-merror").count() == 0
        if soup(name).select(".math"):
            assert page.locator("mjx-container").count() > 0
        handles = page.locator(".jupyter-widgets .noUi-handle").all()
        for handle in handles:
            handle.scroll_into_view_if_needed()
            before = shown(page)
            at_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
            handle.press("ArrowLeft" if at_end else "ArrowRight")
            page.wait_for_timeout(100)
            assert shown(page) != before, f"slider {handle.get_attribute('aria-label')!r} changes no picture"
            assert handle.get_attribute("aria-label")
        views = soup(name).find_all("script", type="application/vnd.jupyter.widget-view+json")
        assert bool(handles) == bool(views), "the widgets of this page have no sliders"
        assert complaints == []
