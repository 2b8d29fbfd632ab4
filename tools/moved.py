"""Lead old addresses on: a part that has gone to another page leaves its anchors behind, in a list of links.

What has moved where is in `book/moved.yml`. Without scripts an old address ends at its line of the list, whose link
leads on; with `book/_static/moved.js` the browser goes there by itself.
"""

import re

import yaml
from bs4 import BeautifulSoup
from reads import ROOT

SOURCE = ROOT / "book" / "moved.yml"


def put_all(site, gone=None):
    """Put into the pages of a built site the lists of what has left them.

    Parameters
    ----------
    site : Path
        The site.
    gone : dict, optional
        What `book/moved.yml` says.
    """
    gone = yaml.safe_load(SOURCE.read_text(encoding="utf-8")) if gone is None else gone
    for old, places in gone.items():
        path = site / "book" / f"{old}.html"
        if path.is_file():
            pages = {new: (site / "book" / f"{new}.html").read_text(encoding="utf-8") for new in places}
            path.write_text(put(path.read_text(encoding="utf-8"), places, pages), encoding="utf-8")


def put(html, places, pages):
    """Return a page with the list of what has left it; one that has the list already as it is.

    Parameters
    ----------
    html : str
        The page.
    places : dict of list
        Anchors by the page on which they are now, without folder and ending.
    pages : dict of str
        Those pages.

    Returns
    -------
    str
        The page, with a line for each section in which one of the anchors is now.

    Raises
    ------
    ValueError
        If an anchor is on the page still, or not on the page to which it is said to have gone.
    """
    if 'class="moved"' in html:
        return html
    page = BeautifulSoup(html, "html.parser")
    items = page.new_tag("ul")
    for new, anchors in places.items():
        there, here = BeautifulSoup(pages[new], "html.parser"), None
        for anchor in anchors:
            target = there.find(id=anchor)
            if target is None or page.find(id=anchor):
                raise ValueError(f"{anchor!r} must have left its page, and be on {new}")
            section = target if target.name == "section" else target.find_parent("section")
            if section is not here:
                here = section
                items.append(_line(page, f"{new}.html#{section['id']}", _title(section)))
            items.contents[-1].insert(0, page.new_tag("span", id=anchor))
    summary = page.new_tag("summary")
    summary.string = "What has moved from this page"
    fold = page.new_tag("details", attrs={"class": "moved"})
    fold.extend([summary, items])
    (page.select_one("article") or page).append(fold)
    _load(page)
    return str(page)


def _line(page, address, title):
    line, link = page.new_tag("li"), page.new_tag("a", attrs={"class": "reference internal", "href": address})
    link.string = title
    line.append(link)
    return line


def _title(section):
    """Return the title of a section without the mark of its own link."""
    title = section.find(re.compile("h[1-6]"))
    return "".join(str(text) for text in title.find_all(string=True) if not text.find_parent(class_="headerlink"))


def _load(page):
    beside = page.select_one("script[src*='access.js']")
    folder = beside["src"].partition("access.js")[0] if beside else "_static/"
    page.head.append(page.new_tag("script", src=f"{folder}moved.js", defer=""))
