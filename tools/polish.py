"""Mend in the built pages what the theme and the extensions leave unusable to some readers."""

from collections import Counter

from bs4 import BeautifulSoup

USED_BY = {
    "#search-results": "script:is([src*=searchtools], [src*=language_data], [src*=searchindex], [src*='search.js'])",
    ".math, .output": "script[src*='/mathjax/']",
}
"""Scripts that the theme and Sphinx load on pages that have nothing for them: what they work on, and they."""


def polish(html):
    """Return the page with its faults mended; a page that has been mended stays as it is.

    Parameters
    ----------
    html : str
        A built page.

    Returns
    -------
    str
        The page, in which

        - a fold is called what it says, not "Toggle hidden content",
        - the fold of a part of the table of contents is called after the part,
        - a search button is called what it says, the keys too,
        - the switch between light and dark has one name, not one more for each of its icons,
        - the buttons for the sidebars work: the theme's script takes the first of a kind, which is never shown,
        - the sidebar is a landmark, so that nothing of the page lies outside of all landmarks,
        - the bibliography is a list of items, whose special role is deprecated,
        - an empty corner of a table is no heading of anything,
        - that a page has run is said in a word, not by a picture that some machines cannot draw,
        - what a page has no use for is not loaded: the search index where nothing is searched, MathJax without math,
        - the first figure is asked for with the page and painted with the text, not after the scripts,
        - an id is used once: `#proof` for the first proof, `#proof.2` for the second.
    """
    page = BeautifulSoup(html, "html.parser")
    for fold in page.select("details > summary[aria-label]"):
        del fold["aria-label"]
    for mark in page.select("details > summary > .toctree-toggle"):
        mark.parent["aria-label"] = f"Pages of {mark.find_parent('li').a.get_text(strip=True)}"
    for keys in page.select("button[aria-label] > .search-button__kbd-shortcut"):
        keys.parent["aria-label"] = f"Search {keys.get_text(strip=True)}"
    for icon in page.select(".theme-switch-button > [title]"):
        del icon["title"]
    for button in page.select(".bd-header .sidebar-toggle"):
        button.decompose()
    for sidebar in page.select("div#pst-primary-sidebar"):
        sidebar.attrs |= {"role": "complementary", "aria-label": "Sidebar"}
    for entry in page.select("[role=doc-biblioentry]"):
        entry["role"] = "listitem"
    for corner in page.select("th"):
        if not corner.get_text(strip=True) and not corner.find("img"):
            corner.name = "td"
    for mark in page.find_all("p", string="✅"):
        mark.string = "finished"
    for used_by, scripts in USED_BY.items():
        if not page.select(used_by):
            for script in page.select(scripts):
                script.decompose()
    for picture in page.select("article figure img")[:1]:
        picture["decoding"] = "sync"
        if page.head and not page.head.select("link[rel=preload][as=image]"):
            page.head.insert(0, page.new_tag("link", attrs={"rel": "preload", "as": "image", "href": picture["src"]}))
    seen = Counter()
    for tag in page.find_all(id=True):
        name = tag["id"]
        seen[name] += 1
        if seen[name] > 1:
            tag["id"] = f"{name}.{seen[name]}"
    return str(page)
