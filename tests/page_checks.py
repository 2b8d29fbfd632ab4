"""What a page must be: each check returns what is wrong with a page, one line each, and nothing when it is right.

The first half reads the files, the second half asks a page that is open in a browser.
"""

import contextlib
import functools
import re
import time
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup
from build_book import SITE
from playwright.sync_api import TimeoutError as PageTimeout

from tests.browser import look, unfold, unfold_bets
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parent.parent
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
# What depends on the theme and the width; everything else is asked once, and once more of what a phone shows.
LOOKS = ["color-contrast", "link-in-text-block", "scrollable-region-focusable"]
# Rules that a page may break, with the reason. None so far.
TOLERATED = {}


def names(site):
    """Return the names of the pages of a site, those that only lead on to another aside."""
    pages = (path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts)
    leads_on = re.compile('http-equiv="?refresh', re.IGNORECASE)
    return [
        path.relative_to(site).with_suffix("").as_posix()
        for path in pages
        if not leads_on.search(path.read_text(encoding="utf-8")[:2000])
    ]


def soup(name):
    """Return a page of the built site parsed."""
    return parsed(SITE / f"{name}.html")


def parsed(path):
    """Return a page parsed; a file that has not changed is parsed once."""
    return _parsed(path, path.stat().st_mtime_ns)


@functools.cache
def _parsed(path, _changed):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


ASKING = "script[src], link[href]:not([rel=canonical]), img[src], iframe[src]"
"""What a browser asks for by itself; which address of a page is the lasting one, it does not ask."""


def foreign(page):
    """Find what asks another host."""
    asked = [tag.get("src") or tag.get("href") for tag in page.select(ASKING)]
    return [url for url in asked if re.match(r"(https?:)?//", url)]


def wordless(page):
    """Find pictures in the text without a text of at least five words that says what is seen; buttons are none."""
    found = page.select("article img:not(.toggler)")
    return [img["src"] for img in found if len(img.get("alt", "").split()) < 5]


def captionless(page):
    """Find figures without a caption, and pictures of cells outside of a figure."""
    figures = [figure for figure in page.select("main figure") if not figure.find("figcaption")]
    loose = [img for img in page.select("main .cell_output img") if not img.find_parent("figure")]
    return [*map(str, figures), *map(str, loose)]


def repeated(page):
    """Find ids that occur twice."""
    ids = Counter(tag["id"] for tag in page.find_all(id=True))
    return sorted(name for name, times in ids.items() if times > 1)


class Links:
    """The links of a site: each file is read once."""

    def __init__(self, site):
        self.site, self.known = Path(site).resolve(), {}

    def anchors(self, path):
        """Return the names on a page that a link may point to."""
        if path not in self.known:
            page = parsed(path)
            self.known[path] = {tag["id"] for tag in page.find_all(id=True)} | {
                tag["name"] for tag in page.select("a[name]")
            }
        return self.known[path]

    def broken(self, name):
        """Find links of a page, its scripts, styles and pictures too, that lead to no file or no anchor of the site."""
        here = self.site / f"{name}.html"
        return sorted({found for link in self.of(parsed(here)) if (found := self.fault(here, link))})

    @staticmethod
    def of(page):
        """Return what a page points to."""
        links = [tag.get(key) for tag in page.find_all(True) for key in ("href", "src") if tag.get(key)]
        return links + [
            tag["content"].partition("url=")[2] for tag in page.select("meta[http-equiv]") if "url=" in tag["content"]
        ]

    def fault(self, here, link):
        """Return what is wrong with a link, or None."""
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            return None if parts.scheme in ("http", "https", "mailto", "data") else f"{link}: not a link for a page"
        if parts.path.startswith("/"):
            return f"{link}: does not work in a subfolder"
        target = (here.parent / unquote(parts.path)).resolve() if parts.path else here
        if not target.is_file():
            return f"{link}: no such file"
        if parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in self.anchors(target):
            return f"{link}: no such anchor"
        return None


def untypeset(page):
    """Find formulas that MathJax did not typeset, or could not."""
    found = page.locator("mjx-merror").all_text_contents()
    left = page.evaluate("""() => [...document.querySelectorAll("main .math")]
        .filter((math) => !math.querySelector("mjx-container")).map((math) => math.textContent.slice(0, 80))""")
    return found + left


def unspoken(page):
    """Find formulas that a screen reader is not given as MathML, by the accessibility tree of the browser.

    To be asked last: Chromium 150, once it has been asked for the tree, may crash when the page is resized.
    """
    unfold(page)
    silent = page.evaluate("""() => [...document.querySelectorAll("mjx-container")]
        .filter((box) => !box.querySelector(":scope > mjx-assistive-mml > math > *")
                         || box.closest("[aria-hidden=true]")
                         || box.querySelector(":scope > mjx-math")?.getAttribute("aria-hidden") !== "true")
        .map((box) => box.outerHTML.slice(0, 120))""")
    shown = page.evaluate("""() => [...document.querySelectorAll("mjx-container")]
        .filter((box) => box.checkVisibility({ visibilityProperty: true })).length""")
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    spoken = sum(node.get("role", {}).get("value") == "MathMLMath" and not node["ignored"] for node in nodes)
    return silent + [f"{shown} formulas are shown, {spoken} are in the accessibility tree"] * (shown != spoken)


def too_wide(page, width=360):
    """Find what makes a page scroll sideways on a phone, or is cut off at its edge."""
    look(page, "light", width)
    return page.evaluate("""() => {
        const room = window.innerWidth, root = document.documentElement;
        const found = root.scrollWidth > room ? [`the page is ${root.scrollWidth} px wide, the screen ${room}`] : [];
        const scrolls = (tag) => tag && tag !== document.body
            && (["auto", "scroll"].includes(getComputedStyle(tag).overflowX) || scrolls(tag.parentElement));
        const wide = [...document.querySelectorAll("main *")].filter((tag) => tag.checkVisibility()
            && tag.getBoundingClientRect().right > room + 1 && !tag.closest("mjx-assistive-mml") && !scrolls(tag));
        return [...found, ...wide.slice(0, 5).map((tag) => `cut off: ${tag.outerHTML.slice(0, 120)}`)];
    }""")


def cut_formulas(page, width, *, room=1.5):
    """Find formulas whose glyphs come nearer than `room` to where something above or below cuts them off.

    A glyph may be larger than its box by a fraction of a pixel, which is how a transpose loses its bar. To the sides a
    formula fits, by whole pixels, or what it scrolls in shows that it goes on there.
    """
    look(page, "light", width)
    for _ in range(10):  # a fold may still be opening, and the page still fitting its formulas to the new width
        found = _cut_formulas(page, room)
        if not found:
            break
        page.wait_for_timeout(200)
    return found


def _cut_formulas(page, room):
    return page.evaluate(
        """(room) => {
            const found = [];
            for (const formula of document.querySelectorAll("main mjx-container")) {
                if (!formula.checkVisibility({ visibilityProperty: true })) continue;
                const glyphs = [...formula.querySelectorAll("mjx-math :is(mjx-c, mjx-line, mjx-stretchy-v *)")]
                    .map((glyph) => glyph.getBoundingClientRect()).filter(({ width, height }) => width && height);
                const [top, left] = ["top", "left"].map((side) => Math.min(...glyphs.map((glyph) => glyph[side])));
                const [bottom, right] =
                    ["bottom", "right"].map((side) => Math.max(...glyphs.map((glyph) => glyph[side])));
                const name = formula.closest("div.math[id]")?.id ?? formula.textContent.slice(0, 40);
                for (let box = formula; box.localName !== "main"; box = box.parentElement) {
                    const look = getComputedStyle(box), edge = box.getBoundingClientRect();
                    if (look.overflowY === "visible" && look.overflowX === "visible") continue;
                    const [above, below] = [top - edge.top, edge.bottom - bottom];
                    if (above < room || below < room)
                        found.push(`${name}: ${above.toFixed(1)} px above, ${below.toFixed(1)} below`);
                    const wide = box.scrollWidth > box.clientWidth + 1;
                    const scrolls = wide && ["auto", "scroll"].includes(look.overflowX);
                    if (scrolls && (!box.classList.contains("more-right") || look.maskImage === "none"))
                        found.push(`${name}: goes on to the right without a sign`);
                    if (scrolls) break;
                    if (left < edge.left - room || right > edge.right + room) found.push(`${name}: cut off at a side`);
                }
            }
            return found;
        }""",
        room,
    )


BOXES = "main :is(pre, table, div.math, mjx-container[display='true'], .output, figure, .jupyter-widgets, fieldset)"


def cut_boxes(page, width):
    """Find code, outputs, tables and display formulas that do not fit and show no sign that they go on.

    What is wider than its box scrolls, in the box or in one around it, and fades at the edge behind which it goes on.
    """
    look(page, "light", width)
    for _ in range(10):  # a fold may still be opening, and the page still looking for what scrolls
        found = _wide_boxes(page)["cut"]
        if not found:
            break
        page.wait_for_timeout(200)
    return found


def wide_boxes(page, width):
    """Find code, outputs, tables and display formulas in no fold for code that do not fit, with or without a sign."""
    look(page, "light", width)
    return _wide_boxes(page)["wide"]


def _wide_boxes(page):
    return page.evaluate(
        """(boxes) => {
            const cut = [], wide = new Set();
            const text = document.querySelector("main :is(article, #search-results)").getBoundingClientRect();
            for (const box of document.querySelectorAll(boxes)) {
                if (!box.checkVisibility({ visibilityProperty: true })) continue;
                const name = `${box.localName}: ${box.textContent.trim().split("\\n")[0].slice(0, 60)}`;
                const found = [];
                let right = box.getBoundingClientRect().left + Math.max(box.offsetWidth, box.scrollWidth);
                for (let frame = box; frame.localName !== "main"; frame = frame.parentElement) {
                    const edge = frame.getBoundingClientRect(), { overflowX, maskImage } = getComputedStyle(frame);
                    if (overflowX === "visible") continue;
                    if (frame === box ? box.scrollWidth > box.clientWidth + 1 : right > edge.right + 1) {
                        const scrolls = ["auto", "scroll"].includes(overflowX);
                        const signed = frame.matches(".more-left, .more-right") && maskImage !== "none";
                        found.push(!scrolls ? "is cut off" : signed ? "" : "goes on without a sign");
                    }
                    right = edge.right;
                }
                if (right > text.right + 1) found.push("sticks out of the text");
                if (found.length && !box.closest("details")) wide.add(name);
                cut.push(...found.filter(Boolean).map((fault) => `${name}: ${fault}`));
            }
            return { cut, wide: [...wide] };
        }""",
        BOXES,
    )


def shattered(page, width=360):
    """Find names in tables and in lists of parameters that a phone breaks within a word."""
    look(page, "light", width)
    return page.evaluate("""() => {
        const lines = (tag) => {
            const text = document.createRange();
            text.selectNodeContents(tag);
            return new Set([...text.getClientRects()].map(({ top }) => Math.round(top))).size;
        };
        return [...document.querySelectorAll("main :is(table code .pre, dl.simple > dt > strong)")]
            .filter((name) => lines(name) > name.textContent.trim().split(/\\s+/).length)
            .map((name) => name.textContent);
    }""")


def squeezed(page, width=360):
    """Find code that something beside it leaves less than two thirds of a phone."""
    look(page, "light", width)
    return page.evaluate("""() => [...document.querySelectorAll("main div.highlight")]
        .filter((code) => code.checkVisibility() && code.clientWidth < 2 / 3 * window.innerWidth)
        .map((code) => code.textContent.trim().slice(0, 80))""")


def crowded(page, room=8):
    """Find cells of a printed table whose text comes nearer than `room` pixels to that of the next one."""
    return page.evaluate(
        """(room) => {
            const found = [];
            const edges = (cell) => {
                const text = document.createRange();
                text.selectNodeContents(cell);
                return text.getBoundingClientRect();
            };
            for (const row of document.querySelectorAll("main table.dataframe tr")) {
                const cells = [...row.cells].filter((cell) => cell.textContent.trim() && cell.checkVisibility());
                for (const [k, cell] of cells.slice(1).entries())
                    if (edges(cell).left - edges(cells[k]).right < room)
                        found.push(`${cells[k].textContent.trim()}|${cell.textContent.trim()}`);
            }
            return found;
        }""",
        room,
    )


def first_signs(page, width):
    """Find commas, full stops and brackets that begin a line, because a formula ended the one before."""
    look(page, "light", width)
    return page.evaluate("""() => [...document.querySelectorAll("main mjx-container:not([display], .wide)")]
        .filter((formula) => formula.checkVisibility({ visibilityProperty: true }))
        .flatMap((formula) => {
            const math = formula.closest("span.math"), text = math?.nextSibling;
            if (text?.nodeType !== Node.TEXT_NODE || !/^[,.;:!?)]/.test(text.data)) return [];
            const sign = document.createRange();
            sign.setStart(text, 0);
            sign.setEnd(text, 1);
            const [box, mark] = [math.getBoundingClientRect(), sign.getBoundingClientRect()];
            return mark.left < box.right - 2 ? [`${math.parentElement.textContent.trim().slice(0, 60)}`] : [];
        })""")


def tiny_pictures(page, width=360):
    """Find pictures that a phone shows at less than half of the size that they were drawn for."""
    look(page, "light", width)
    return page.evaluate("""() => [
            ...document.querySelectorAll("main :is(figure img, .jupyter-widgets svg[role='img'])")]
        .filter((picture) => picture.checkVisibility())
        .map((picture) => {
            const drawn = picture.naturalWidth ?? picture.viewBox.baseVal.width * 4 / 3;
            return [picture.getBoundingClientRect().width / drawn, picture];
        })
        .filter(([share]) => share < 0.48)
        .map(([share, picture]) => `${picture.closest("figure")?.id ?? "a widget"}: ${(100 * share).toFixed(0)} %`)""")


def short_sliders(page, width=360):
    """Find sliders whose track a phone shows shorter than half of the page: a finger needs room from step to step."""
    look(page, "light", width)
    return page.evaluate("""() => [...document.querySelectorAll("main .noUi-target")]
        .filter((track) => track.checkVisibility())
        .map((track) => [track.getBoundingClientRect().width / innerWidth, track])
        .filter(([share]) => share < 0.5)
        .map(([share, track]) => `${track.querySelector("[role=slider]").ariaLabel}: ${(100 * share).toFixed(0)} %`)""")


def hollow_folds(page):
    """Find folded boxes that show more than their title: an empty strip below it."""
    for _ in range(10):  # a fold may still be closing
        found = _hollow_folds(page)
        if not found:
            break
        page.wait_for_timeout(200)
    return found


def _hollow_folds(page):
    return page.evaluate("""() => [...document.querySelectorAll("main .admonition.toggle-hidden")]
        .filter((box) => box.checkVisibility({ visibilityProperty: true }))
        .filter((box) => {
            const title = box.querySelector(":scope > .admonition-title");
            return box.getBoundingClientRect().bottom - title.getBoundingClientRect().bottom > 8;
        })
        .map((box) => box.querySelector(".admonition-title").textContent.trim().slice(0, 60))""")


def unreachable(page):
    """Find what scrolls sideways, is shown, and cannot be reached by the Tab key."""
    return page.evaluate("""() => [...document.querySelectorAll("main *")]
        .filter((box) => box.scrollWidth > box.clientWidth + 1 && box.clientWidth > 0
                         && ["auto", "scroll"].includes(getComputedStyle(box).overflowX)
                         && box.checkVisibility({ visibilityProperty: true })
                         && box.tabIndex !== 0 && !box.querySelector("a[href], button, [tabindex='0']"))
        .map((box) => box.outerHTML.slice(0, 160))""")


# The controls of widgets: what to find, and the keys that must change the picture.
CONTROLS = [
    (".widget-tab [role=tab]:not([aria-selected=true])", ("Enter",)),
    (".noUi-handle, .jupyter-widgets input[type=range]", ("ArrowRight", "ArrowLeft")),
    (".widget-toggle-buttons button:not(.mod-active), button.widget-button", ("Enter",)),
    ("button.widget-toggle-button:not(.widget-toggle-buttons *)", ("Enter",)),
    (".jupyter-widgets :is(select, input[type=checkbox], input[type=radio])", ("ArrowDown", "ArrowUp", " ")),
]
PICTURES = """() => [...document.querySelectorAll(".jupyter-widgets :is(svg, img, canvas)")]
    .filter((picture) => picture.checkVisibility()).map((picture) => picture.outerHTML).join()"""


def dead_controls(page, *, patience=PATIENCE):
    """Find controls of widgets that have no name, or that no key moves to another picture, in so many seconds."""
    unfold_bets(page)
    found = []
    for selector, keys in CONTROLS:
        for control in page.locator(selector).element_handles():
            if not control.is_visible():
                continue
            name = control.get_attribute("aria-label") or control.inner_text().strip()
            if not name:
                found.append("a control has no name")
            value = control.get_attribute("aria-valuenow")
            at_end = value is not None and value == control.get_attribute("aria-valuemax")
            if not moves(page, control, keys[::-1] if at_end else keys, patience):
                found.append(f"{name!r} changes no picture")
            if control.inner_text() == "Pause":  # what plays on would move the picture for the next control
                control.press("Enter")
    wrong = ".mod-active:not([aria-pressed=true]), [aria-pressed=true]:not(.mod-active)"
    silent = page.locator(f".widget-toggle-buttons :is({wrong})")
    found += ["a switch does not say which half of it is pressed"] * silent.count()
    views = page.locator("script[type='application/vnd.jupyter.widget-view+json']").count()
    drawn = page.locator(".jupyter-widgets :is(.noUi-handle, button, input, select)").count()
    return found + ["the widgets of this page have no control"] * bool(views and not drawn)


def moves(page, control, keys, patience):
    """Press the keys on a control, one after the other, again and again; return whether the picture changes."""
    control.scroll_into_view_if_needed()
    before, end = page.evaluate(PICTURES), time.monotonic() + patience
    while True:
        for key in keys:
            control.focus()
            page.keyboard.press(key)
            with contextlib.suppress(PageTimeout):
                page.wait_for_function(f"before => ({PICTURES})() !== before", arg=before, timeout=2_000)
                return True
        if time.monotonic() > end:
            return False


def at_start(page):
    """Take the focus to the start of a page."""
    page.evaluate("""() => {
        document.body.tabIndex = -1;
        document.body.focus();
        document.body.removeAttribute("tabindex");
        window.scrollTo(0, 0);
    }""")


def unseen_focus(page, theme, stops=15):
    """Walk by the Tab key from the start of a page; find stops that do not show that they have the focus."""
    look(page, theme, 1280)
    at_start(page)
    found = []
    for _ in range(stops):
        page.keyboard.press("Tab")
        found += page.evaluate("""() => {
            document.getAnimations().forEach((animation) => {
                if (animation instanceof CSSTransition) animation.finish();
            });
            const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
            const light = (colour) => {
                paint.fillStyle = colour;
                paint.fillRect(0, 0, 1, 1);
                const [r, g, b] = [...paint.getImageData(0, 0, 1, 1).data].map((part) => {
                    part /= 255;
                    return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
                });
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const tag = document.activeElement, style = getComputedStyle(tag);
            const [low, high] = [style.outlineColor, getComputedStyle(document.body).backgroundColor]
                .map(light).sort((a, b) => a - b);
            const seen = tag.checkVisibility({ opacityProperty: true, visibilityProperty: true })
                && style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
            const contrast = (high + 0.05) / (low + 0.05);
            if (tag === document.body || (seen && contrast >= 3)) return [];
            return [`${tag.outerHTML.slice(0, 120)}: ${style.outline}, contrast ${contrast.toFixed(1)}`];
        }""")
    return found


def violations(page, looks):
    """Ask axe of a page, everything unfolded, in some looks: pairs of a theme and a width, the first of them wide.

    All rules of WCAG 2.1 A and AA and the best practices are asked in the first, and again in the last, on a phone,
    outside of the article, where other buttons are shown; those that depend on the looks are asked in all.
    """
    unfold(page)
    found = []
    for theme, width in looks:
        look(page, theme, width)
        if (theme, width) == looks[0]:
            asked = axe(page, {"type": "tag", "values": TAGS})
        else:
            asked = axe(page, {"type": "rule", "values": LOOKS})
        if (theme, width) == looks[-1]:
            asked += axe(page, {"type": "tag", "values": TAGS}, exclude=["article"])
        found += [f"{theme}, {width} px: {fault}" for fault in asked]
    return found


def axe(page, rules, include="html", exclude=()):
    """Ask rules of axe of a part of a page as it is shown now.

    The glyphs of MathJax are left out: they are hidden from a screen reader, which gets the MathML beside them. While
    axe reads they are no part of the page, of which they are a third, and each formula keeps its size without them.
    """
    if not page.evaluate("() => !!window.axe"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    answer = page.evaluate(
        """async ([rules, include, leftOut]) => {
            const exclude = leftOut.filter((part) => document.querySelector(part));
            const options = { runOnly: rules, resultTypes: ["violations"] };
            const formulas = [...document.querySelectorAll("mjx-math")].map((formula) => {
                const { width, height } = formula.getBoundingClientRect();
                const [style, glyphs] = [formula.getAttribute("style"), [...formula.childNodes]];
                return { formula, style, glyphs, width, height };
            });
            for (const { formula, width, height } of formulas) {
                formula.replaceChildren();
                Object.assign(formula.style, { display: "inline-block", width: `${width}px`, height: `${height}px` });
            }
            const answer = await axe.run({ include: [include], exclude }, options).finally(() => {
                for (const { formula, style, glyphs } of formulas) {
                    formula.replaceChildren(...glyphs);
                    style === null ? formula.removeAttribute("style") : formula.setAttribute("style", style);
                }
            });
            return answer.violations.flatMap(({ id, nodes }) => nodes.map(({ html, any, all, none }) =>
                [id, html.slice(0, 160), [...any, ...all, ...none].map(({ message }) => message).join("; ")]));
        }""",
        [rules, include, ["mjx-math", *exclude]],
    )
    return [f"{rule}: {html} ({why})" for rule, html, why in answer if rule not in TOLERATED]
