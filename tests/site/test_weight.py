"""What a page makes a reader load is counted whole; how much it may be is asked where each page is opened."""

import shutil

from build_book import SITE
from weigh import weight

from tests.browser import served


def test_what_is_loaded_is_counted(browser, tmp_path, rng):
    """Planted: a script of half a megabyte, and a page that asks twice for a picture."""
    shutil.copy(SITE / "_static" / "favicon.svg", tmp_path / "icon.svg")
    (tmp_path / "heavy.js").write_bytes(b"//" + rng.bytes(500_000).hex().encode())
    (tmp_path / "page.html").write_text(
        '<link rel="icon" href="icon.svg"><script src="heavy.js"></script><img src="icon.svg?1"><img src="icon.svg?2">'
    )
    with served(tmp_path) as address:
        found = weight(browser, address, "page", tmp_path)
    assert set(found) >= {"page.html", "heavy.js", "icon.svg"}
    assert 480_000 < found["heavy.js"] < 700_000
    assert found["icon.svg"] < 1000
