"""What a page makes a reader load is counted whole; how much it may be is asked where each page is opened.

And what lets a page answer adds little to it: bets, boxes, cells that run and the plane of Q, before the first click.
"""

import gzip
import shutil
import subprocess
from urllib.parse import urlsplit

import pytest
from bs4 import BeautifulSoup
from build_book import SITE
from vendor import ESBUILD, OURS, minify
from weigh import packed, weight

from tests.browser import served
from tests.pages import NUMBERED

PAGES = [*(path.stem for path in NUMBERED), "index", "reproduction_robots"]
SCRIPTS = ("bets.js", "judge.js", "live.js", "live.css", "plane.js", "plane.css")
PARTS = "#live-data, #exercise-data, .bet, .bet-check, .bet-tally, .bet-answers, script[src], link[rel=stylesheet]"
LITTLE = 30_000  # bytes, packed as servers pack them


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


def answering(html, folder):
    """Return the bytes by which a page is heavier because it answers: scripts, styles, and what stands in it for them.

    The picture that a plane of Q shows without them stood there before.
    """
    page = BeautifulSoup(html, "html.parser")
    whole, asked = str(page), [tag.get("src") or tag["href"] for tag in page.select("script[src], link[href]")]
    files = {urlsplit(url).path for url in asked if urlsplit(url).path.rpartition("/")[2] in SCRIPTS}
    for part in page.select(PARTS):
        part.decompose()
    for plane in page.select("[data-plane]"):
        del plane["data-plane"]
    size = [len(gzip.compress(text.encode(), 9)) for text in (whole, str(page))]
    return size[0] - size[1] + sum(packed((folder / file).resolve()) for file in files)


@pytest.mark.site
class TestAnswering:
    @pytest.mark.parametrize("name", PAGES)
    def test_adds_little(self, name):
        path = SITE / "book" / f"{name}.html"
        assert 3000 < answering(path.read_text(encoding="utf-8"), path.parent) < LITTLE

    def test_is_counted_whole(self, rng):
        """Planted: five thousand bytes that nothing packs, in the data of a page and in an exercise."""
        path = SITE / "book" / "bellman.html"
        html, noise = path.read_text(encoding="utf-8"), rng.bytes(2500).hex()
        found = answering(html, path.parent)
        for start in ('<script id="exercise-data" type="application/json">', '<p class="bet-said" role="status">'):
            assert html.count(start)
            assert answering(html.replace(start, start + noise, 1), path.parent) - found > 2400

    def test_what_makes_them_short_needs_nothing_beside_it(self, tmp_path):
        """A copy of the project with what was fetched for an earlier build, and without npm, builds too."""
        alone = shutil.copy(ESBUILD, tmp_path)
        command = {"args": [alone, "--minify"], "input": b"let a  =  1", "env": {}}
        assert subprocess.run(**command, capture_output=True, check=True).stdout == b"let a=1;\n"
        assert not ESBUILD.is_symlink()

    def test_our_scripts_are_short(self, tmp_path):
        """Those of the site are made from the sources, each a good deal shorter, and no file of others is touched."""
        sources = {path.name: path for folder in OURS for path in folder.glob("*.*s") if path.suffix in (".js", ".css")}
        shutil.copytree(SITE / "_static", tmp_path / "_static")
        for name, path in sources.items():
            shutil.copy(path, tmp_path / "_static" / name)
        minify(tmp_path)
        made = {path: tmp_path / "_static" / path.name for path in (SITE / "_static").glob("*.*s")}
        assert [path.name for path, again in made.items() if path.read_bytes() != again.read_bytes()] == []
        assert {*SCRIPTS} < sources.keys() and len(made) > len(sources)
        for name in SCRIPTS:
            assert (SITE / "_static" / name).stat().st_size < 0.97 * sources[name].stat().st_size
