"""Cut the icons of the theme down to those on the pages: of 0.7 MB that every page would load, a few kB are used.

The theme brings Font Awesome twice, as a script and as a font (pydata/pydata-sphinx-theme#2379, open; the script goes
with pydata/pydata-sphinx-theme#2494). The pages need only the font, and of it some forty signs: those that they name,
and those that the style sheet puts before notes, warnings and the like.
"""

import logging
import re
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

logging.getLogger("fontTools").setLevel(logging.WARNING)  # within Sphinx it would tell all that it does
FONTS = Path("_static") / "vendor" / "fontawesome" / "webfonts"
STYLES = Path("_static") / "styles" / "pydata-sphinx-theme.css"
SCRIPT = re.compile(r"<script[^>]*/fontawesome\.js[^>]*></script>\n?")
WOFF2 = re.compile(r"url\([^)]*/webfonts/[^)]*\.woff2\) format\(\"woff2\"\),")


def names(site):
    """Return the names of the icons that the pages and the scripts of the theme use."""
    files = [*site.rglob("*.html"), *(site / "_static" / "scripts").glob("*theme.js")]
    return {
        name for path in files for name in re.findall(r"(?<![\w-])fa-([a-z0-9-]+)", path.read_text(encoding="utf-8"))
    }


def signs(style, wanted):
    """Return the code points that a style sheet gives to the wanted icons."""
    found = set()
    for selectors, code in re.findall(r'([^{}]*):before\{content:"\\([0-9a-f]+)"\}', style):
        if wanted & set(re.findall(r"\.fa-([a-z0-9-]+)", selectors)):
            found.add(int(code, 16))
    return found


def own_signs(style):
    """Return the code points that a style sheet draws by itself, before a warning, say."""
    return {ord(sign) for sign in re.findall(r'--pst-icon-[a-z-]+:"(.)"', style)}


def cut_icons(site):
    """Take the script of the icons off every page, keep of their fonts what is used; twice is as good as once."""
    style = (site / STYLES).read_text(encoding="utf-8")
    wanted = signs(style, names(site)) | own_signs(style)
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        if SCRIPT.search(text):
            path.write_text(SCRIPT.sub("", text), encoding="utf-8")
    (site / "_static" / "scripts" / "fontawesome.js").unlink(missing_ok=True)
    (site / STYLES).write_text(WOFF2.sub("", style), encoding="utf-8")  # a cut font needs no second packing
    for path in (site / FONTS).glob("fa-*.woff2"):
        path.unlink()
    for path in (site / FONTS).glob("fa-*.ttf"):
        with TTFont(path, recalcTimestamp=False) as font:  # the same bytes at every build
            cutter = subset.Subsetter()
            cutter.populate(unicodes=wanted)
            cutter.subset(font)
            font.save(path)
