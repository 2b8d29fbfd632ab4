"""How many screens a page has: `python -m tests.screens` lists words, cells and screens of the built pages."""

import sys
from pathlib import Path

import nbformat

from tests.browser import launched, look, opened, served, unfold_bets
from tests.waiting import until

SCREEN = 900
"""Pixels, the height of a screen."""


def screens(page, width=1280):
    """Return the screens of a page at a width: bets answered, folds closed as a reader first finds them."""
    unfold_bets(page)
    look(page, "light", width)
    heights = []

    def settled():
        page.evaluate("document.fonts.ready.then(() => new Promise((done) => setTimeout(done, 200)))")
        heights.append(page.evaluate("document.documentElement.scrollHeight"))
        return len(heights) >= 3 and len(set(heights[-3:])) == 1

    until(settled)
    return heights[-1] / SCREEN


def main(site):
    """List the notebooks of a site, in reading order."""
    import reading_time

    print(f"{'words':>6} {'cells':>6} {'at 1280':>8} {'at 360':>8}")
    with launched() as browser, served(site) as address:
        for path in reading_time.notebooks():
            source = site / "_sources" / "book" / path.name
            if not source.is_file():
                continue
            cells = nbformat.read(source, as_version=4).cells
            cells = [cell for cell in cells if not cell.id.startswith("install-")]  # of the download alone
            url = f"{address}/book/{path.stem}.html"
            with opened(browser, url, address) as (page, _):
                wide, narrow = (screens(page, width) for width in (1280, 360))
            words = reading_time.amount(cells).words
            print(f"{words:6} {len(cells):6} {wide:8.1f} {narrow:8.1f}  {path.stem}")


if __name__ == "__main__":
    sys.path.insert(0, "tools")
    import build_book

    main(Path(sys.argv[1]) if len(sys.argv) > 1 else build_book.SITE)
