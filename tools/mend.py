"""Mend in the built pages what the theme and the extensions leave unusable to some readers.

Each mend says whose fault it is and where that is talked about, so that one knows when it may go: take it out, build,
and `make test` says whether it is still needed. "Not reported" is what a look through the trackers of the project on
2026-11-29 gave. The releases are those of the lock: pydata-sphinx-theme 0.17.1, sphinx-book-theme 1.3.0, MyST-NB 1.4.0,
sphinx-proof 0.4.0, Sphinx 7.4.7, docutils 0.21.

What cannot be mended in a page that is built is mended elsewhere: in the browser by book/_static/*.js and *.css, and by
widgets-local.js (MathJax 3: jupyter-widgets/ipywidgets#3829, open; names of sliders, which leongersen/noUiSlider#1019
leaves to who uses it); the search index by building from nothing (build_book.py); links in cells by api_links.py.
"""

import re
from collections import Counter

from bs4 import BeautifulSoup, NavigableString

USED_BY = {
    "#search-results": "script:is([src*=searchtools], [src*=language_data], [src*=searchindex], [src*='search.js'])",
    ".math, .output:not(:has(> .dn-plane))": "script[src*='/mathjax/']",
}
"""Scripts that the theme and Sphinx load on pages that have nothing for them: what they work on, and they.

The theme has its layout load the search everywhere, for a search as you type that is off by default
(pydata/pydata-sphinx-theme#1977 asked for it). Sphinx loads MathJax on a page whose table of contents leads to a page
with math, for titles with formulas, of which we have none (sphinx-doc/sphinx#9686).
"""


CLOSING, OPENING = re.compile(r"[,.;:!?)\]’”…]+"), re.compile(r"[(\[‘“]+$")
"""What a reader takes to belong to the formula before it, or behind it."""

HOW_HARD = re.compile(r"\s*\(((?:pencil, )?(?:easy|medium|hard))\)\)\s*$")
"""How the title of an exercise ends as sphinx-exercise writes it: in two brackets."""


def mend(html):
    """Return the page with its faults mended; a page that has been mended stays as it is.

    Parameters
    ----------
    html : str
        A built page.

    Returns
    -------
    str
        The page, in which

        - the first page, which only leads on, names the icon of the site,
        - a fold is called what it says, not "Toggle hidden content",
        - the fold of a part of the table of contents is called after the part,
        - a search button is called what it says, the keys too,
        - the switch between light and dark has one name, not one more for each of its icons,
        - the buttons for the sidebars work: the theme's script takes the first of a kind, which is never shown,
        - the sidebar is a landmark, so that nothing of the page lies outside of all landmarks,
        - the bibliography is a list of items, whose special role is deprecated,
        - an empty corner of a table is no heading of anything,
        - an exercise has its title beside its number, how hard it is after it, and no brackets within brackets,
        - a comma or a bracket does not begin a line because a formula ended the one before,
        - that a page has run is said in a word, not by a picture that some machines cannot draw,
        - the frames of the sliders, most of the page's bytes, come after its text and not before it,
        - what a page has no use for is not loaded: the search index where nothing is searched, MathJax without math,
        - the first figure is asked for with the page and painted with the text, not after the scripts,
        - an id is used once: `#proof` for the first proof, `#proof.2` for the second.
    """
    page = BeautifulSoup(html, "html.parser")

    # MyST-NB gives each of its folds the same name (sphinx_.py, HideCodeCellNode). Not reported.
    for fold in page.select("details > summary[aria-label]"):
        del fold["aria-label"]

    # sphinx-external-toc writes the first page, which leads on to the index, and names no icon: a browser that stays on
    # it for a moment asks for one at the root of the server, where no site in a subfolder has any. Not reported.
    if page.select("meta[http-equiv=Refresh]") and not page.select("link[rel=icon]"):
        page.append(page.new_tag("link", attrs={"href": "_static/favicon.svg", "rel": "icon"}))

    # pydata-sphinx-theme folds by a button that holds nothing but an arrow, since pydata/pydata-sphinx-theme#1582,
    # which was for the keyboard. Not reported.
    for mark in page.select("details > summary > .toctree-toggle"):
        mark.parent["aria-label"] = f"Pages of {mark.find_parent('li').a.get_text(strip=True)}"

    # pydata-sphinx-theme writes the keys into the button and not into its name. Not reported.
    for keys in page.select("button[aria-label] > .search-button__kbd-shortcut"):
        keys.parent["aria-label"] = f"Search {keys.get_text(strip=True)}"

    # pydata-sphinx-theme named the icons in pydata/pydata-sphinx-theme#1924; the button has a name of its own by now.
    # In later releases a menu stands in its place (pydata/pydata-sphinx-theme#2340): this goes with the next one.
    for icon in page.select(".theme-switch-button > [title]"):
        del icon["title"]

    # sphinx-book-theme has buttons of its own beside those of pydata-sphinx-theme 0.17, and both scripts take the
    # first they find: executablebooks/sphinx-book-theme#988, pydata/pydata-sphinx-theme#2451, both open, as is
    # executablebooks/sphinx-book-theme#1000, which takes the same buttons away as we do.
    for button in page.select(".bd-header .sidebar-toggle"):
        button.decompose()

    # pydata-sphinx-theme: pydata/pydata-sphinx-theme#1454 ("Fix landmarks") is open.
    for sidebar in page.select("div#pst-primary-sidebar"):
        sidebar.attrs |= {"role": "complementary", "aria-label": "Sidebar"}

    # docutils writes the role (writers/_html_base.py) that w3c/dpub-aria#22 has deprecated. We have not found it in
    # docutils' own tracker, which is not on GitHub and could not be searched.
    for entry in page.select("[role=doc-biblioentry]"):
        entry["role"] = "listitem"

    # pandas and docutils write it; pydata/pydata-sphinx-theme#1480 was closed since the theme has no part in it.
    for corner in page.select("th"):
        if not corner.get_text(strip=True) and not corner.find("img"):
            corner.name = "td"

    # sphinx-exercise puts the title into brackets (directive.py, post_transforms.py), and how hard it is into brackets
    # of ours within. Not reported: others write no second brackets.
    for title in page.select(".exercise > .admonition-title, a[href*='#ex-']"):
        words = [part for part in title.find_all(string=True) if part.strip()]
        if not words or not (hard := HOW_HARD.search(words[-1])):
            continue
        last = words[-1][: hard.start()]
        if title.name == "a":
            words[-1].replace_with(NavigableString(f"{last})"))
            continue
        words[-1].replace_with(last)
        first = next(part for part in title.find_all(string=True) if part.lstrip().startswith("("))
        first.replace_with(NavigableString(first.lstrip().removeprefix("(")))
        mark = page.new_tag("span", attrs={"class": "how-hard"})
        mark.string = hard[1]
        title.extend([" ", mark])

    # A browser may break a line on either side of a formula, which MathJax 3 makes a box of its own. Not reported, as
    # far as we looked; MathJax 4 breaks lines itself.
    for math in page.select("span.math:not(.with-sign > *)"):
        before, after = math.previous_sibling, math.next_sibling
        opening = isinstance(before, NavigableString) and OPENING.search(before)
        closing = isinstance(after, NavigableString) and CLOSING.match(after)
        if not opening and not closing:
            continue
        together = math.wrap(page.new_tag("span", attrs={"class": "with-sign"}))
        if opening:
            before.replace_with(NavigableString(before[: opening.start()]))
            together.insert(0, NavigableString(opening[0]))
        if closing:
            after.replace_with(NavigableString(after[closing.end() :]))
            together.append(NavigableString(closing[0]))

    # MyST-NB says so by an emoji in the table of runs (ext/execution_tables.py). Not reported, and no fault elsewhere.
    for mark in page.find_all("p", string="✅"):
        mark.string = "finished"

    for used_by, scripts in USED_BY.items():
        if not page.select(used_by):
            for script in page.select(scripts):
                script.decompose()

    # MyST-NB puts the state of the widgets into the head (core/render.py): 800 kB of frames stand before the text.
    # Not reported. And livereload, which shows a page anew after an edit, finds the end of the head in the first 64 kB
    # only.
    for state in page.select("head > script[type='application/vnd.jupyter.widget-state+json']"):
        page.body.append(state.extract())

    # Nobody's fault: only we know that the first figure is what a reader sees first.
    # What is folded after a bet comes when it comes.
    for picture in page.select("article figure:not(.bet-fold *) img")[:1]:
        picture["decoding"] = "sync"
        if page.head and not page.head.select("link[rel=preload][as=image]"):
            page.head.insert(0, page.new_tag("link", attrs={"rel": "preload", "as": "image", "href": picture["src"]}))

    # sphinx-proof gives every proof the id "proof" (directive.py). Not reported. Others of the kind are mended with it.
    seen = Counter()
    for tag in page.find_all(id=True):
        name = tag["id"]
        seen[name] += 1
        if seen[name] > 1:
            tag["id"] = f"{name}.{seen[name]}"
    return str(page)
