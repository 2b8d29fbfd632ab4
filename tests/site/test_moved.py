"""Old addresses lead on: what has left a page is listed there, and a browser that asks for it goes where it is now."""

import pytest
import yaml
from bs4 import BeautifulSoup
from build_book import SITE
from moved import SOURCE, put, put_all

from tests.page_checks import soup

NEW = """<article><section id="one"><h2>One<a class="headerlink" href="#one">#</a></h2><p id="a"></p>
<section id="two"><h3>Two</h3><p id="b"></p><p id="c"></p></section></section></article>"""
OLD = '<html><head></head><body><article><section id="rest"><h1>Rest</h1></section></article></body></html>'
GONE = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
ANCHORS = [(old, new, anchor) for old, places in GONE.items() for new, names in places.items() for anchor in names]


def lines(html):
    """Return the list: what each line holds of old anchors, its text and its link."""
    items = BeautifulSoup(html, "html.parser").select("article > details.moved li")
    return [({mark["id"] for mark in item.select("[id]")}, item.a.get_text(), item.a["href"]) for item in items]


class TestListOfWhatMoved:
    def test_a_line_for_each_section(self):
        made = put(OLD, {"new": ["one", "a", "b", "c"]}, {"new": NEW})
        assert lines(made) == [({"one", "a"}, "One", "new.html#one"), ({"b", "c"}, "Two", "new.html#two")]
        assert '<script defer="" src="_static/moved.js">' in made

    def test_twice_is_once(self):
        once = put(OLD, {"new": ["a"]}, {"new": NEW})
        assert put(once, {"new": ["a"]}, {"new": NEW}) == once

    @pytest.mark.parametrize(("anchor", "old"), [("nowhere", OLD), ("b", OLD.replace("<h1>", '<p id="b"></p><h1>'))])
    def test_what_is_here_still_or_nowhere_is_refused(self, anchor, old):
        with pytest.raises(ValueError, match=f"'{anchor}' must have left its page, and be on new"):
            put(old, {"new": ["a", anchor]}, {"new": NEW})

    def test_a_site_without_the_page_is_left_alone(self, tmp_path):
        put_all(tmp_path, {"old": {"new": ["a"]}})
        assert list(tmp_path.iterdir()) == []


@pytest.mark.site
class TestOldAddresses:
    """In the built site; that the links of the lists lead somewhere is asked of every page in test_site.py."""

    def test_every_anchor_is_listed_and_on_its_new_page(self):
        assert ANCHORS
        for old, new, anchor in ANCHORS:
            (line,) = soup(f"book/{old}").select(f"details.moved li:has([id='{anchor}'])")
            assert line.a["href"].startswith(f"{new}.html#")
            assert soup(f"book/{new}").find(id=anchor).find_parent("article")

    def test_pages_that_nothing_has_left_have_no_list(self):
        with_one = {path.stem for path in (SITE / "book").glob("*.html") if soup(f"book/{path.stem}").select(".moved")}
        assert with_one == {*GONE}

    @pytest.mark.parametrize(
        "anchor",
        [
            "sec-preqn-target",
            "fig-preqn-pendulum",
            "equation-eq-preqn-solve",
            "watch-a-run-go-wrong",
            "fig-heuristics-watch",
        ],
    )
    def test_a_browser_goes_there(self, browser, address, anchor):
        ((old, new),) = [(old, new) for old, new, name in ANCHORS if name == anchor]
        page = browser.new_page()
        page.goto(f"{address}/book/{old}.html#{anchor}")
        page.wait_for_url(f"**/book/{new}.html#{anchor}")
        page.close()

    def test_an_anchor_of_the_page_itself_stays(self, browser, address):
        page = browser.new_page()
        page.goto(f"{address}/book/preqn.html#thm-loop-gain")
        page.wait_for_load_state("load")
        page.evaluate("location.hash = '#what-came-after'")
        page.wait_for_url("**/book/preqn_later.html#what-came-after")
        page.go_back()
        page.wait_for_url("**/book/preqn.html#thm-loop-gain")
        page.close()

    def test_without_scripts_the_old_address_ends_at_the_link(self, browser, address):
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        page.goto(f"{address}/book/preqn.html#the-algorithm")
        link = page.locator(".moved li:has([id='the-algorithm']) a")
        link.wait_for(state="visible")
        link.click()
        page.wait_for_url("**/book/preqn_networks.html#the-algorithm")
        context.close()
