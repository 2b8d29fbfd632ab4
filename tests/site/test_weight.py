"""What a page makes a reader load: all that it requests, packed as servers pack it."""

import shutil

import pytest
from build_book import SITE, toc_files
from weigh import weight

from tests.browser import served

LIMIT, WITH_WIDGETS = 1_300_000, 2_300_000  # bytes


@pytest.mark.parametrize("name", toc_files())
def test_first_view_is_light(browser, address, name):
    found = weight(browser, address, name, SITE)
    widgets = any("embed-amd" in path for path in found)
    assert sum(found.values()) <= (WITH_WIDGETS if widgets else LIMIT), sorted(found.items(), key=lambda item: -item[1])


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
