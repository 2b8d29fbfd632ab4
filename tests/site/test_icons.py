"""The icons of the site: cut to those in use, and none of those in use is missing."""

import shutil
from pathlib import Path

import pytest
from build_book import SITE
from fontTools.ttLib import TTFont
from icons import FONTS, SCRIPT, STYLES, cut_icons, names, own_signs, signs

SOLID = FONTS / "fa-solid-900.ttf"
# What the style sheet draws by itself: before notes and warnings, links elsewhere, "Hide Search Matches", and the like.
SIGNS = {0xF058, 0xF05A, 0xF071, 0xF06A, 0xF057, 0xF0EB, 0xF019, 0xF104, 0xF105, 0xF35D, 0xF010, 0xF064, 0xF0F3, 0xF303}


def drawn(path):
    """Return the code points that a font draws."""
    with TTFont(path) as font:
        return set(font.getBestCmap() or ())


def test_every_icon_in_use_is_a_sign_of_the_font():
    """Names without a sign only style others (a size, a family)."""
    style = (SITE / STYLES).read_text(encoding="utf-8")
    used = names(SITE)
    assert {name for name in used if not signs(style, {name})} <= {"solid", "lg", "brands", "regular"}
    assert signs(style, used) | own_signs(style) <= drawn(SITE / SOLID) | drawn(SITE / FONTS / "fa-brands-400.ttf")


class TestCutIcons:
    """A site with two icons, and the whole of the theme's fonts."""

    @pytest.fixture
    def site(self, tmp_path):
        import pydata_sphinx_theme as theme

        static = Path(theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static"
        shutil.copytree(static, tmp_path / "_static")
        (tmp_path / "page.html").write_text(
            '<script defer src="_static/scripts/fontawesome.js?digest=1"></script>\n<i class="fa-solid fa-bars"></i>'
            '<i class="fas fa-file-pdf"></i><p id="claim-fa-house"></p>'
        )
        for script in (tmp_path / "_static" / "scripts").glob("*theme.js"):
            script.write_text("")
        return tmp_path

    def test_keeps_what_is_used_and_nothing_else(self, site):
        before = drawn(site / SOLID)
        cut_icons(site)
        assert drawn(site / SOLID) == {0xF0C9, 0xF1C1} | SIGNS  # bars; file-pdf
        assert len(before) > 1000

    def test_takes_the_script_away(self, site):
        cut_icons(site)
        assert not SCRIPT.search((site / "page.html").read_text())
        assert "fa-bars" in (site / "page.html").read_text()
        assert not (site / "_static" / "scripts" / "fontawesome.js").exists()

    def test_asks_for_no_font_that_is_not_there(self, site):
        cut_icons(site)
        assert "woff2" not in (site / STYLES).read_text()
        assert not list(site.glob(f"{FONTS}/*.woff2"))

    def test_twice_is_as_good_as_once(self, site):
        cut_icons(site)
        once = {path: path.read_bytes() for path in site.rglob("*") if path.is_file() and path.suffix != ".ttf"}
        cut_icons(site)
        assert {path: path.read_bytes() for path in once} == once
        assert drawn(site / SOLID) == {0xF0C9, 0xF1C1} | SIGNS

    def test_an_icon_that_is_added_later_is_kept(self, site):
        """Planted: cut for one page only, and the icon of the other is missing."""
        (site / "other.html").write_text('<i class="fa-solid fa-moon"></i>')
        moon = signs((site / STYLES).read_text(), {"moon"})
        cut_icons(site)
        assert moon and moon <= drawn(site / SOLID)
