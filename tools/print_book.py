"""Print the book: the site that is built, as one PDF.

    print_book.py [NAME ...]      _build/print/divergence-notes.pdf; with names, such as bellman, of these pages alone

Chromium typesets the document that paper.py makes of the site. The numbers of pages come from the PDF itself: it is
printed, the places of all links are read in it and their pages written into the document, and it is printed again,
until no number changes. Faults are a box on two pages, a link to nowhere, a file that is not found, and what is wider
than a page.
"""

import io
import re
import shutil
import sys
import tomllib
from pathlib import Path

import yaml
from build_book import ROOT, SITE
from paper import COLUMN, KEPT, WIDTH, book
from pypdf import PdfReader

sys.path.insert(0, str(ROOT))  # a tool finds its neighbours by itself, and the browser of the tests so
PLACE = SITE.parent / "print"
TARGET = PLACE / "divergence-notes.pdf"
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
PUBLISHED = CONFIG["html"]["baseurl"]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
LEFT_OUT = re.compile(r"book/(api.*|students|instructors.*|claims|changes|status)|genindex")
"""What only the web needs: the package, the courses, and what the book says about its own making."""
BEHIND = "book/corrections"
"""The first page after the solutions."""
PASSES = 6
MATH = """{
    options: {processHtmlClass: "math", enableAssistiveMml: false, enableMenu: false},
    startup: {pageReady: async () => {
        await Promise.all([...document.fonts].map((font) => font.load()));
        return MathJax.startup.defaultPageReady();
    }},
}"""
"""Formulas are as large as the letters beside them, so that the fonts of these come first."""
PREPARE = (Path(__file__).parent / "paper.js").read_text(encoding="utf-8")


def pages():
    """Return the pages that are printed, in their order, with None where the solutions stand, and which are parts."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    sections = [section["file"] for chapter in chapters for section in chapter.get("sections", ())]
    names = [toc["root"]]
    for chapter in chapters:
        names += [None] * (chapter["file"] == BEHIND)
        names += [chapter["file"], *(section["file"] for section in chapter.get("sections", ()))]
    return [name for name in names if name is None or not LEFT_OUT.fullmatch(name)], sections


def document(names=()):
    """Return the whole book as one document, or these pages of it."""
    printed, parts = pages()
    if names:
        printed = [name for name in printed if name is None or name.rpartition("/")[2] in names]
    styles = "../html/_static/pygments.css", "paper.css"
    head = "".join(f'<link rel="stylesheet" href="{style}">' for style in styles)
    head += f"<title>{CONFIG['title']}</title><meta name='author' content='{CONFIG['author']}'>"
    head += f"<script>MathJax = {MATH}</script>"
    head += '<script defer src="../html/vendor/mathjax/es5/tex-mml-chtml.js"></script>'
    cover = f"""<div class="cover"><h1>{CONFIG["title"]}</h1>
<p class="question">When does Q-learning with a function approximator blow up, when can it not, and how can you
tell?</p>
<img src="portraits.svg" alt="Three portraits of learning two numbers: it settles, it circles for ever, it runs away.">
<p class="foot">{CONFIG["author"]}<br>Version {VERSION}</p></div>
<div class="imprint"><p>This is the book at <a href="{PUBLISHED}">{PUBLISHED}</a>, on paper. There its cells run, its
pictures move and its answers are judged; the code that draws the figures is folded there and is left out here. The
reference of the package and the pages for courses are there alone.</p>
<p>A bet is a question to answer before you read on. The answers to the bets and the solutions of the exercises stand at
the end, each with the page on which it is asked.</p>
<p>The code is under the MIT licence, the prose and the figures under CC BY 4.0.</p></div>"""
    return book(SITE, printed, parts=parts, published=PUBLISHED, before=[cover], head=head)


def lay_out(names=()):
    """Write what the browser prints into its folder."""
    import portraits

    PLACE.mkdir(parents=True, exist_ok=True)
    (PLACE / "book.html").write_text(document(names), encoding="utf-8")
    shutil.copy(ROOT / "tools" / "paper.css", PLACE)
    portraits.drawn().savefig(PLACE / "portraits.svg")


def places(pdf):
    """Return {name of a place: its page, from 1} of a PDF."""
    reader = PdfReader(io.BytesIO(pdf))
    numbers = {page.indirect_reference.idnum: number for number, page in enumerate(reader.pages, start=1)}
    return {name.lstrip("/"): numbers[found.page.idnum] for name, found in reader.named_destinations.items()}


def printed(page):
    """Return the page of the browser as PDF."""
    return page.pdf(prefer_css_page_size=True, print_background=True, outline=True, tagged=True)


def typeset(browser, address):
    """Print the document that is served at an address; return the PDF, and what is wrong with it, one line each."""
    from tests.waiting import PATIENCE

    context = browser.new_context(viewport={"width": round(WIDTH / 25.4 * 96), "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(1000 * PATIENCE)
    page = context.new_page()
    faults = []
    page.on("requestfailed", lambda asked: faults.append(f"not found: {asked.url}"))
    page.on("response", lambda answer: answer.status >= 400 and faults.append(f"not found: {answer.url}"))
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.emulate_media(media="print", color_scheme="light")
    page.goto(address, wait_until="load")
    page.evaluate(PREPARE)
    faults += page.evaluate("([column, width, kept]) => paper.prepare(column, width, kept)", [COLUMN, WIDTH, KEPT])
    known, unknown = None, []
    for _ in range(PASSES):
        page.evaluate("() => paper.mark()")
        found = places(printed(page))
        page.evaluate("() => paper.unmark()")
        if found == known:
            break
        known = found
        unknown = page.evaluate("(found) => paper.number(found)", found)
    else:
        faults.append(f"the numbers of the pages still change after {PASSES} passes")
    faults += unknown + page.evaluate("(found) => paper.split(found)", known)
    pdf = printed(page)
    context.close()
    return pdf, faults


def main(*names):
    """Print the book, or say what is wrong with it."""
    from tests.browser import BROWSERS, launched, served

    if not any(map(shutil.which, BROWSERS)):
        sys.exit("To print the book takes Chromium or Chrome, and there is none on the path.")
    lay_out(names)
    with served(SITE.parent) as home, launched() as browser:
        pdf, faults = typeset(browser, f"{home}/print/book.html")
    TARGET.write_bytes(pdf)
    if faults:
        sys.exit("\n  ".join(["The printed book has faults:", *faults]))
    print(f"The book, {len(PdfReader(io.BytesIO(pdf)).pages)} pages, is in {TARGET.relative_to(ROOT)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
