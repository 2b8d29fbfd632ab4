"""The built site in a real browser: alive with no kernel and no other host, and open to everyone.

From the disk, with no server, everything works but one thing: search names the pages that it found, and cannot show
the lines around what it found, because a browser lets no page from the disk read another.
"""

import io
import re

import pytest
from build_book import SITE, toc_files
from mend import mend
from PIL import Image
from weigh import weighed

from tests import page_checks as check
from tests.browser import look, opened, served, unfold, unfold_bets
from tests.screens import screens

CHAPTER = "book/contraction"
PAGES = check.names(SITE) or toc_files()
LIMIT, WITH_WIDGETS = 1_300_000, 2_300_000  # bytes that the first view of a page may take, packed as servers pack them
SCREENS = 25  # that a page has at most which is read from its start to its end
LOOKED_UP = ("api", "bibliography", "changes", "claims", "corrections", "genindex", "glossary", "search")
"""How the names of pages begin on which one looks something up."""
BY_DAY = (("light", 1280), ("dark", 360))
"""The looks in which axe reads a page by day; both themes and both widths are among them."""
BY_NIGHT = (("light", 1280), ("dark", 1280), ("dark", 360), ("light", 360))


@pytest.fixture(scope="module", params=PAGES)
def visit(request, browser, address):
    """Open a page once for all that is looked at on it; what it asked for until it was quiet comes third."""
    asked = []
    with opened(browser, f"{address}/{request.param}.html", address, asked=asked) as (page, complaints):
        page.wait_for_load_state("networkidle")
        yield page, complaints, tuple(asked)


class TestEveryPage:
    """Asked of each page, in this order, in one visit."""

    def test_first_view_is_light(self, visit):
        found = weighed(visit[2], SITE)
        limit = WITH_WIDGETS if any("embed-amd" in path for path in found) else LIMIT
        assert 0 < sum(found.values()) <= limit, sorted(found.items(), key=lambda item: -item[1])

    def test_math_is_typeset(self, visit):
        assert check.untypeset(visit[0]) == []

    def test_has_an_end(self, visit, request):
        name = request.node.callspec.params["visit"]
        if name.rpartition("/")[2].startswith(LOOKED_UP):
            return
        found = screens(visit[0])
        assert found <= SCREENS, f"{name} has {found:.1f} screens: cut it"

    def test_controls_are_alive(self, visit):
        assert check.dead_controls(visit[0]) == []

    def test_a_folded_box_is_its_title(self, visit):
        assert check.hollow_folds(visit[0]) == []

    def test_fits_a_desk(self, visit):
        unfold(visit[0])
        assert check.wide_boxes(visit[0], 1280) == []

    @pytest.mark.parametrize("width", [1280, 360])
    def test_nothing_is_cut(self, visit, width):
        assert check.cut_formulas(visit[0], width) + check.cut_boxes(visit[0], width) == []

    @pytest.mark.parametrize("width", [1280, 360])
    def test_numbers_stand_apart_and_signs_where_they_belong(self, visit, width):
        assert check.first_signs(visit[0], width) + check.crowded(visit[0]) == []

    def test_fits_a_phone(self, visit):
        assert check.too_wide(visit[0]) + check.shattered(visit[0]) + check.squeezed(visit[0]) == []
        assert check.tiny_pictures(visit[0]) + check.short_sliders(visit[0]) == []

    @pytest.mark.parametrize("looks", [BY_DAY, pytest.param(BY_NIGHT, marks=pytest.mark.nightly)], ids=["day", "night"])
    def test_axe_finds_nothing(self, visit, looks):
        assert check.violations(visit[0], looks) == []

    def test_formulas_are_spoken(self, visit):
        assert check.unspoken(visit[0]) == []

    def test_nothing_complained(self, visit):
        assert visit[1] == []


def test_what_is_unfolded_is_there_at_once(browser):
    """Colours are not asked of what still fades in."""
    page = browser.new_page()
    fade = "@keyframes fade { from { opacity: 0 } to { opacity: 1 } } details[open] > p { animation: fade 60s }"
    page.set_content(f"<style>{fade}</style><details><summary>more</summary><p>text</p></details>")
    unfold(page)
    opacity = page.evaluate("getComputedStyle(document.querySelector('p')).opacity")
    page.close()
    assert opacity == "1"


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
        chapter.wait_for_url("**#main-content")
        chapter.keyboard.press("Tab")
        assert chapter.evaluate("!!document.activeElement.closest('main')")

    def test_search_opens_and_closes(self, chapter):
        chapter.keyboard.press("Control+K")
        assert chapter.evaluate("document.activeElement.closest('dialog[open]')?.id") == "pst-search-dialog"
        assert chapter.evaluate("document.activeElement.name") == "q"
        chapter.keyboard.press("Escape")
        assert chapter.locator("dialog[open]").count() == 0

    @pytest.mark.parametrize("theme", ["light", "dark"])
    def test_axe_finds_nothing_in_what_opens(self, chapter, theme):
        look(chapter, theme, 360)
        for key, dialog in (("Control+K", "#pst-search-dialog"), ("Enter", "#pst-primary-sidebar-modal")):
            if key == "Enter":
                chapter.locator(".primary-toggle:visible").focus()
            chapter.keyboard.press(key)
            assert chapter.locator(f"{dialog}[open]").count() == 1
            assert check.axe(chapter, {"type": "tag", "values": check.TAGS}, include=dialog) == []
            chapter.keyboard.press("Escape")

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

    @pytest.mark.parametrize(
        "name", ["equation-eq-pair-threshold", "over-estimates-and-the-way-they-take-through-the-max"]
    )
    def test_an_address_in_a_folded_box_opens_it(self, name, browser, address):
        """So does a link, and a second click on it when the box was folded again; another box stays folded."""
        page_of = f"{address}/book/function_approximation.html"
        with opened(browser, page_of, address) as (page, _):
            box = page.locator(f".toggle:has([id='{name}'])")
            others = page.locator(".toggle-hidden").count() - 1
            assert "toggle-hidden" in box.get_attribute("class")
            page.evaluate("hash => { location.hash = hash }", name)
            page.wait_for_function("box => !box.matches('.toggle-hidden')", arg=box.element_handle())
            assert page.locator(".toggle-hidden").count() == others
            box.locator(".toggle-button").click()
            assert "toggle-hidden" in box.get_attribute("class")
            page.evaluate(
                """hash => {
                    const link = document.createElement("a");
                    link.href = "#" + hash;
                    document.body.append(link);
                    link.click();
                }""",
                name,
            )
            assert "toggle-hidden" not in box.get_attribute("class")
        with opened(browser, f"{page_of}#{name}", address) as (page, _):
            assert page.locator(f"[id='{name}']").evaluate("target => !target.closest('.toggle-hidden')")

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

    def test_a_page_that_was_found_shows_the_word(self, browser, address):
        with opened(browser, f"{address}/search.html?q=contraction", address) as (page, complaints):
            self.found(page)
            page.locator(f"#search-results li a[href*='{CHAPTER}']").first.click()
            page.wait_for_selector("main .highlighted", state="attached")
            for theme in ("light", "dark"):
                look(page, theme, 1280)
                assert check.axe(page, {"type": "rule", "values": ["color-contrast"]}, include=".highlighted") == []
            page.locator(".highlight-link a").press("Enter")
            page.wait_for_selector(".highlighted", state="detached")  # a link to a script, which runs a little later
            assert complaints == []

    @pytest.mark.parametrize(
        ("word", "shown"),
        [
            ("modulus", ["The smallest β ≥ 0 with this property is the modulus", "^modulus The largest factor"]),
            ("contraction", ["^4. When the update contracts When do two", "^contraction A map that brings"]),
        ],
    )
    def test_excerpts_can_be_read(self, browser, address, word, shown):
        """Formulas are in letters or three dots; what is around the text of a page is no part of it; terms are told."""
        with opened(browser, f"{address}/search.html?q={word}", address) as (page, complaints):
            excerpts = page.locator("#search-results .context")
            for text in shown:
                excerpts.filter(has_text=re.compile(text)).wait_for()
            assert len(self.found(page)) > 5
            page.wait_for_load_state("networkidle")
            assert not any("\\" in text for text in excerpts.all_inner_texts())
            assert complaints == []

    def test_finds_nothing_of_what_is_not_there(self, browser, address):
        with opened(browser, f"{address}/search.html?q=zyzzyva", address) as (page, _):
            page.wait_for_function("/did not match/i.test(document.querySelector('#search-results').textContent)")
            assert page.locator("#search-results li a").count() == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_picture_that_fades_has_the_ground_of_the_page(browser, address, theme):
    """What fades is painted by itself; a picture whose black lets the page through would be left with black."""
    with opened(browser, f"{address}/{CHAPTER}.html", address) as (page, _):
        unfold_bets(page)
        look(page, theme, 360)
        box = page.locator("#fig-contraction-shapes .wide-picture.more-right")
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        with Image.open(io.BytesIO(box.screenshot())) as shot:
            corner = shot.convert("RGB").getpixel((8, 8))  # inside of the picture, which is narrower than its box
        assert ground == f"rgb{corner}"


def test_works_in_a_subfolder(browser):
    """The site may live below any address: nothing is asked from outside of its folder."""
    with served(SITE, below="/some/sub") as home:
        with opened(browser, f"{home}/{CHAPTER}.html", f"{home}/") as (page, complaints):
            assert check.untypeset(page) + check.dead_controls(page) == []
            page.keyboard.press("Control+K")
            page.keyboard.type("contraction")
            page.keyboard.press("Enter")
            page.wait_for_selector("#search-results li a")
            page.locator("#search-results li a").first.click()
            page.wait_for_url(f"{home}/book/*.html*")
            page.goto(f"{home}/")
            page.wait_for_url(f"{home}/book/index.html")
            assert complaints == []


def test_what_is_asked_from_outside_of_a_subfolder_is_found(browser, tmp_path):
    (tmp_path / "one.html").write_text("<link rel='stylesheet' href='/one.css'>")
    (tmp_path / "one.css").write_text("")
    for below, wrong in (("", 0), ("/some/sub", 2)):  # it is asked, and not there
        with served(tmp_path, below=below) as home, opened(browser, f"{home}/one.html", f"{home}/") as (_, complaints):
            assert len([line for line in complaints if "/one.css" in line]) == wrong


def test_opens_from_the_disk(browser):
    """Without a server math is typeset, pictures show, sliders move, and search names the pages that it found."""
    home = SITE.as_uri()
    with opened(browser, f"{home}/{CHAPTER}.html", home) as (page, complaints):
        assert check.untypeset(page) + check.dead_controls(page) == []
        assert page.evaluate("() => [...document.querySelectorAll('main img')].every((img) => img.naturalWidth > 0)")
        assert complaints == []
        page.goto(f"{home}/search.html?q=contraction")
        page.locator("#search-results li a").first.click()
        page.wait_for_url(f"{home}/book/*.html*")


@pytest.fixture(scope="module")
def planted(browser, tmp_path_factory):
    """Return a function that plants a fault in a copy of a page, and opens it as `opened` does."""
    site = tmp_path_factory.mktemp("planted")
    for folder in ("_static", "_images", "vendor"):
        (site / folder).symlink_to(SITE / folder)
    (site / "book").mkdir()
    with served(site) as address:

        def plant(html, name="introduction"):
            text = (SITE / "book" / f"{name}.html").read_text(encoding="utf-8")
            assert text.count("</main>") == 1
            (site / "book" / f"{name}.html").write_text(text.replace("</main>", f"{html}</main>"), encoding="utf-8")
            return opened(browser, f"{address}/book/{name}.html", address)

        yield plant


CONTROL = """<div class="jupyter-widgets widget-tab widget-toggle-buttons">{}
<svg role="img" aria-label="a picture of one planted number"><text y="20">1</text></svg></div>"""
SLIDER = (
    '<div class="noUi-handle" role="slider" tabindex="0" {} '
    'aria-valuemin="0" aria-valuemax="9" aria-valuenow="1"></div>'
)
DRAWS = """ onkeydown="this.parentNode.querySelector('text').textContent += 1" """


class TestPlantedInPages:
    """Each check finds its fault, planted in a page that was right."""

    @pytest.mark.parametrize(
        ("html", "complaint"),
        [
            ('<script src="http://foreign.invalid/a.js"></script>', "asked http://foreign.invalid/a.js"),
            ("<script>console.error('planted')</script>", "console: planted"),
            ("<script>throw new Error('planted')</script>", "error: planted"),
            ('<img src="gone.png" alt="">', "404 {address}/book/gone.png"),
        ],
    )
    def test_complaints(self, planted, html, complaint):
        with planted(html) as (page, complaints):
            page.wait_for_timeout(200)
            assert complaint.format(address=page.url.partition("/book")[0]) in complaints

    def test_crowded_numbers(self, planted):
        table = "<table class='dataframe'><tr><td>0.160</td><td>0.840</td></tr></table>"
        with planted(table) as (page, _):
            assert check.crowded(page) == ["0.160|0.840"]
        with planted(f"<div class='bd-article'>{table}</div>") as (page, _):
            assert check.crowded(page) == []

    def test_a_comma_that_begins_a_line(self, planted):
        text = "<span class='math notranslate nohighlight'>\\(abc\\)</span>, d"
        narrow = f"<p class='bd-article' style='width: min-content; padding-right: 2px'>{text}</p>"
        with planted(narrow) as (page, _):
            assert [fault[-1] for fault in check.first_signs(page, 1280)] == ["d"]
        with planted(mend(narrow)) as (page, _):
            assert check.first_signs(page, 1280) == []

    def test_tiny_picture(self, planted):
        picture = "<svg xmlns='http://www.w3.org/2000/svg' width='900' height='900'></svg>"
        figure = f"""<div class="bd-article"><figure id="planted"><img alt="" src="data:image/svg+xml,{picture}">
            </figure></div>"""
        with planted(f"{figure}<style>#planted img {{ width: 20rem !important }}</style>") as (page, _):
            assert check.tiny_pictures(page) == ["planted: 36 %"]
        with planted(figure) as (page, _):
            assert check.tiny_pictures(page) + check.too_wide(page) + check.unreachable(page) == []

    def test_short_slider(self, planted):
        """As it was: the name of a slider before its track, in the same line."""
        beside = "<style>.bd-content .widget-slider > .slider-container { flex: 0 0 53px !important }</style>"
        with planted(beside, "key_equation") as (page, _):
            page.wait_for_selector(".widget-slider .noUi-target", state="attached")
            assert check.short_sliders(page)
        with planted("", "key_equation") as (page, _):
            page.wait_for_selector(".widget-slider .noUi-target", state="attached")
            assert check.short_sliders(page) == []

    def test_hollow_fold(self, planted):
        inside = "<p class='admonition-title'>One</p><div style='padding: 9px; border: 9px solid'></div>"
        fold = f"<div class='admonition toggle-hidden'>{inside}</div>"
        with planted(fold) as (page, _):
            assert check.hollow_folds(page) == ["One"]
        with planted(f"<div class='bd-article'>{fold}</div>") as (page, _):
            assert check.hollow_folds(page) == []

    def test_dead_slider(self, planted):
        deaf = "<script>addEventListener('keydown', (event) => event.stopImmediatePropagation(), true)</script>"
        with planted(deaf, "key_equation") as (page, _):
            found = check.dead_controls(page, patience=0)
            assert found and all(fault.endswith("changes no picture") for fault in found)

    def test_no_slider(self, planted):
        gone = "<script>addEventListener('load', () => setInterval(() => document.querySelectorAll("
        gone += "'.widget-slider, .widget-toggle-buttons, .widget-dropdown')"
        gone += ".forEach((control) => control.remove()), 10))</script>"
        with planted(gone, "key_equation") as (page, _):
            page.wait_for_selector(".widget-slider", state="detached")
            assert check.dead_controls(page) == ["the widgets of this page have no control"]

    @pytest.mark.parametrize(
        ("control", "name"),
        [
            (SLIDER.format('aria-label="speed" style="width: 1em; height: 1em" {}'), "speed"),
            ("<button{}>once</button>", "once"),
            ('<div role="tab" aria-selected="false" tabindex="0"{}>twice</div>', "twice"),
            ('<select aria-label="which"{}><option>a</option></select>', "which"),
        ],
    )
    def test_dead_control(self, planted, control, name):
        with planted(CONTROL.format(control.format(""))) as (page, _):
            assert check.dead_controls(page, patience=0) == [f"{name!r} changes no picture"]
        with planted(CONTROL.format(control.format(DRAWS))) as (page, _):
            assert check.dead_controls(page) == []

    @pytest.mark.parametrize(
        "state", ['class="mod-active"', 'class="mod-active" aria-pressed="false"', 'aria-pressed="true"']
    )
    def test_silent_switch(self, planted, state):
        with planted(CONTROL.format(f"<button {state}{DRAWS}>once</button>")) as (page, _):
            assert check.dead_controls(page) == ["a switch does not say which half of it is pressed"]

    def test_unnamed_slider(self, planted):
        nameless = SLIDER.format(f'{DRAWS} style="width: 1em; height: 1em"')
        with planted(CONTROL.format(nameless)) as (page, _):
            assert check.dead_controls(page) == ["a control has no name"]

    def test_heat_maps_stay_light_where_the_text_says_light(self, planted):
        frame = '<div class="jupyter-widgets"><svg role="img" aria-label="{0}" id="{0}">{1}</svg></div>'
        html = "".join(f'<figure><img alt="" id="{name}" class="{name}"></figure>' for name in ("heat-map", "curve"))
        html += frame.format("map", '<g><image width="9" height="9"/></g>') + frame.format("path", '<path d="M0 0"/>')
        with planted(f'<div class="bd-content">{html}</div>') as (page, _):
            look = "id => getComputedStyle(document.getElementById(id)).filter"
            for theme, turned in (("light", "none"), ("dark", "invert(1) hue-rotate(180deg)")):
                page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
                assert [page.evaluate(look, name) for name in ("heat-map", "map")] == ["none", "none"]
                assert [page.evaluate(look, name) for name in ("curve", "path")] == [turned, turned]

    def test_math_with_an_error(self, planted):
        with planted(r'<span class="math">\(\frac{1\)</span>', "key_equation") as (page, _):
            assert len(check.untypeset(page)) == 1

    def test_math_left_as_it_was(self, planted):
        with planted('<span class="math">x</span>', "key_equation") as (page, _):
            assert check.untypeset(page) == ["x"]

    @pytest.mark.parametrize(
        "does",
        [
            "querySelector('mjx-assistive-mml').remove()",
            "querySelector('mjx-container').setAttribute('aria-hidden', true)",
        ],
    )
    def test_silent_formula(self, planted, does):
        mute = f"<script>addEventListener('load', () => MathJax.startup.promise.then(() => document.{does}))</script>"
        with planted(mute, "key_equation") as (page, _):
            assert len(check.unspoken(page)) == 2  # by its markup and by the count

    def test_too_wide(self, planted):
        with planted('<p style="width: 500px">wide</p>') as (page, _):
            assert any("wide" in fault for fault in check.too_wide(page))

    @pytest.mark.parametrize(
        ("style", "fault"),
        [
            ("mjx-container[display] { padding-block: 0 !important }", "px above"),
            ("span.math { overflow: hidden !important }", "px above"),
            ("mjx-container { overflow: hidden !important; max-width: 2em }", "cut off at a side"),
            (".more-right { mask-image: none !important }", "goes on to the right without a sign"),
        ],
    )
    def test_formulas_cut_off(self, planted, style, fault):
        with planted("", "contraction") as (page, _):
            assert check.cut_formulas(page, 360) == []
            page.add_style_tag(content=style)
            assert any(fault in found for found in check.cut_formulas(page, 360))

    @pytest.mark.parametrize("scale", [1, 2])
    def test_the_bar_of_a_transpose_is_drawn(self, browser, address, scale):
        """Whatever the boxes say: with room to spare a formula of a page is drawn as it is without any box."""
        with opened(browser, f"{address}/book/function_approximation.html", address, scale=scale) as (page, _):
            formula = page.locator("#equation-eq-linear-kernel")
            as_it_is = formula.screenshot()
            page.add_style_tag(content="div.math, mjx-container { overflow: visible !important }")
            whole = formula.screenshot()
            page.add_style_tag(content="mjx-container { overflow: auto !important; padding-block: 0 !important }")
            assert as_it_is == whole != formula.screenshot()

    def test_what_goes_on_fades_where_it_does(self, planted):
        with planted("", "contraction") as (page, _):
            narrow = "@media (max-width: 500px) { #equation-eq-exact-modulus mjx-container { max-width: 8em } }"
            page.add_style_tag(content=narrow)
            look(page, "light", 360)
            formula = page.locator("#equation-eq-exact-modulus mjx-container")
            says = "box => ['more-left', 'more-right'].filter((side) => box.classList.contains(side))"
            assert formula.evaluate(says) == ["more-right"]
            for far, sides in ((20, ["more-left", "more-right"]), (9999, ["more-left"]), (0, ["more-right"])):
                formula.evaluate("(box, far) => { box.scrollLeft = far; }", far)
                page.wait_for_timeout(100)
                assert formula.evaluate(says) == sides
            formula.focus()
            page.keyboard.press("ArrowRight")
            assert formula.evaluate("box => getComputedStyle(box).maskImage") == "none"
            look(page, "light", 1280)
            assert formula.evaluate(says) == []

    def test_boxes(self, planted):
        """Of each kind of box: what is said of a long line in it, and of a short one."""
        boxes = [
            ("overflow: auto", "", None),
            ("overflow: auto; mask: none", "", "goes on without a sign"),
            ("overflow: hidden", "", "is cut off"),
            ("overflow: visible", "", "sticks out of the text"),
            ("overflow: visible", "overflow: hidden", "is cut off"),
            ("overflow: auto; width: 9000px", "", "sticks out of the text"),
            ("overflow: auto; width: 9000px", "overflow: auto", "goes on without a sign"),
        ]
        long = "a long line " * 200
        html = "".join(
            f'<div style="{around}"><pre style="{style}">{number} {long}</pre><pre>a short line</pre></div>'
            for number, (style, around, _) in enumerate(boxes)
        )
        fold = f"<details open><summary>code</summary><pre>folded {long}</pre></details>"
        with planted(f'<div id="planted">{html}{fold}</div>') as (page, _):
            page.evaluate("document.querySelector('article').append(document.querySelector('#planted'))")
            for width in (1280, 360):
                found = [
                    re.fullmatch("pre: (\\d) a long line .*: (.*)", fault) for fault in check.cut_boxes(page, width)
                ]
                said = {int(fault[1]): fault[2] for fault in found}
                assert said == {number: says for number, (_, _, says) in enumerate(boxes) if says}
                assert {int(name.split()[1]) for name in check.wide_boxes(page, width)} == set(range(len(boxes)))

    def test_shattered(self, planted):
        cell = '<table><tr><td style="display: block; width: 2em"><code><span class="pre" style="{}">{}</span></code>'
        words = cell.format("white-space: nowrap", "long_name") + cell.format("", "one two")
        with planted(words + cell.format("white-space: normal; overflow-wrap: anywhere", "broken")) as (page, _):
            assert check.shattered(page) == ["broken"]

    def test_squeezed(self, planted):
        code = '<div class="highlight" style="overflow: auto">code</div>'
        note = '<aside style="float: right; width: 40%; height: 9em">note</aside>'
        with planted(f"<div>{code}{note}{code.replace('code', 'beside a note')}</div>") as (page, _):
            assert check.squeezed(page) == ["beside a note"]

    def test_unreachable(self, planted):
        box = '<div style="overflow-x: auto; width: 90px"><p style="width: 900px">far</p></div>'
        with planted(box) as (page, _):
            assert len(check.unreachable(page)) == 1

    @pytest.mark.parametrize("outline", ["none", "1px solid black", "3px solid rgb(250 250 250)"])
    def test_unseen_focus(self, planted, outline):
        with planted(f"<style>.bd-links a:focus-visible {{ outline: {outline} !important }}</style>") as (page, _):
            assert check.unseen_focus(page, "light") != []


FAULTS = {
    "image-alt": '<img src="../_static/favicon.svg">',
    "aria-input-field-name": SLIDER.format(""),
    "button-name": "<button></button>",
    "label": '<input type="text">',
    "heading-order": "<h6>too deep</h6>",
    "empty-heading": "<h2></h2>",
    "label-content-name-mismatch": '<button aria-label="Find">Search</button>',
    "scrollable-region-focusable": '<div tabindex="-1" style="overflow: auto; width: 90px; '
    'white-space: pre">a line that runs out of its box</div>',
    "link-in-text-block": '<p style="color: #000">A <a href="#" style="color: #222; text-decoration: none">link</a>'
    " in the text</p>",
    "aria-required-children": '<div role="list"><a href="#">no item</a></div>',
}
SHOWN = {
    ("color-contrast", "light, 1280"): "#light",
    ("color-contrast", "dark, 360"): "#dark",
    ("button-name", "dark, 360"): "#phone",
}
LOOKS = """<p id="light">grey</p><p id="dark">grey</p><button id="phone"></button><style>
    [data-theme=light] #light { color: #bbb } [data-theme=dark] #dark { color: #444 }
    @media (min-width: 500px) { #phone { display: none } }</style>"""


@pytest.fixture(scope="module")
def found(planted):
    """Return what axe finds in a page with all these faults."""
    with planted("".join(FAULTS.values()) + LOOKS) as (page, _):
        return check.violations(page, BY_DAY)


class TestAxeOfPlanted:
    """Axe is asked the rules that matter here: one page with many faults, each found where it shows."""

    @pytest.mark.parametrize("rule", FAULTS)
    def test_finds(self, found, rule):
        assert [fault for fault in found if f"px: {rule}: " in fault]

    @pytest.mark.parametrize(("rule", "where"), SHOWN)
    def test_finds_where_it_shows(self, found, rule, where):
        name = SHOWN[rule, where][1:]
        assert [fault for fault in found if fault.startswith(f"{where} px: {rule}: ") and f'id="{name}"' in fault]
        if rule == "color-contrast":
            assert {fault.split(",")[0] for fault in found if f'id="{name}"' in fault} == {name}


def test_screens_are_counted(browser, tmp_path):
    """What a bet folds counts, what a reader may unfold does not, and a line that breaks on a phone counts there."""
    (tmp_path / "page.html").write_text(
        """<!doctype html><title>A page</title><body style="margin: 0"><div style="height: 1800px"></div>
        <div class="bet-fold" hidden style="height: 900px"></div>
        <details><summary style="height: 0">More</summary><div style="height: 9000px"></div></details>
        <div style="float: left; width: 340px; height: 450px"></div>
        <div style="float: left; width: 340px; height: 450px"></div>"""
    )
    with served(tmp_path) as address, opened(browser, f"{address}/page.html", address) as (page, _):
        assert screens(page) == pytest.approx(3.5, abs=0.1)
        assert screens(page, 360) == pytest.approx(4, abs=0.1)
