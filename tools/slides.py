"""Make the decks for lectures: each figure of a chapter on a slide, with its number and its first sentence.

    slides.py [NAME ...]      _build/slides/<chapter>.html, one file each; with names, such as bellman, of these alone

What is on a slide is taken from the pages that are built: the picture and its alternative text, its number, and of the
caption the first sentence. The whole caption stands in the notes for the speaker. A file holds all that it shows
(reveal.js, pictures, letters, formulas drawn by MathJax) and asks nobody for anything.
"""

import base64
import json
import re
import subprocess
import sys
from html import escape
from pathlib import Path

from bs4 import BeautifulSoup
from build_book import ROOT, SITE, toc_files
from paper import new
from PIL import Image
from print_book import CONFIG, pages
from vendor import BIN, MODULES, VENDOR

PLACE = SITE.parent / "slides"
WIDTH, HEIGHT = 1280, 720
"""Of a slide, in pixels; it is shown as large as the screen is."""
BELOW, BESIDE = (1200, 530), (830, 620)
"""About what room a figure has with its sentence below it, and beside it (slides.css)."""
END = re.compile(r"[.?!][’”)]*(?=\s|$)")
DRAW = """const modules = process.argv[1], read = require("fs").readFileSync;
const settings = {loader: {load: ["input/tex", "output/svg"]}, svg: {fontCache: "none"}};
require(modules + "/mathjax/es5/node-main.js").init(settings)
  .then((MathJax) => {
    const draw = (tex) => MathJax.startup.adaptor.innerHTML(MathJax.tex2svg(tex, {display: false}));
    console.log(JSON.stringify(JSON.parse(read(0, "utf-8")).map(draw)));
  });"""
"""What Node does: formulas come as a list, and go as pictures."""
SETTINGS = {"width": WIDTH, "height": HEIGHT, "margin": 0, "center": False, "display": "flex", "hash": True}
SETTINGS |= {"transition": "none", "slideNumber": "c/t", "controls": False, "progress": False}


def chapters():
    """Return {name of a chapter: its own page, then those of its parts}, in the order of the book."""
    _, parts = pages()
    found = {}
    for name in toc_files(numbered=True):
        if name not in parts:
            found[name.rpartition("/")[2]] = last = []
        last.append(name)
    return found


def drawn(formulas):
    """Return formulas in TeX as drawings."""
    if not formulas:
        return []
    command = [BIN / "node", "-e", DRAW, MODULES]
    done = subprocess.run(command, input=json.dumps(formulas), capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(f"MathJax must draw the formulas of the captions: {done.stderr.strip()}")
    pictures = json.loads(done.stdout)
    for tex, picture in zip(formulas, pictures, strict=True):
        if "merror" in picture:
            raise ValueError(f"formulas must be ones that MathJax can read, got {tex!r}")
    return pictures


def typeset(soup):
    """Put drawings in the place of the formulas of a document; what they say is their TeX."""
    formulas = soup.select("span.math")
    texts = [formula.get_text().removeprefix("\\(").removesuffix("\\)") for formula in formulas]
    for formula, tex, picture in zip(formulas, texts, drawn(texts), strict=True):
        image = BeautifulSoup(picture, "html.parser").svg
        image["role"], image["aria-label"] = "img", tex
        formula.replace_with(image)


def first_sentence(caption):
    """Return a caption up to the end of its first sentence.

    A stop in a formula, in code or in a link ends none, nor does one after which no blank comes.

    Parameters
    ----------
    caption : Tag

    Returns
    -------
    Tag
        What is left of it; the caption itself stays as it is.
    """
    sentence = BeautifulSoup(str(caption), "html.parser").contents[0]
    strings = list(sentence.find_all(string=True))
    for number, text in enumerate(strings):
        if text.find_parent(["a", "code"]) or text.find_parent(class_="math"):
            continue
        rest = strings[number + 1 :]
        ends = [end.end() for end in END.finditer(text + "".join(rest)[:1]) if end.end() <= len(text)]
        if ends:
            text.replace_with(text[: ends[0]])
            for later in rest:
                later.extract()
            for tag in [tag for tag in sentence.find_all(True) if not tag.get_text()]:
                tag.decompose()
            return sentence
    raise ValueError(f"caption must have a sentence, got {caption.get_text()!r}")


def words(caption):
    """Return the words of a caption as they go on a slide: without the link that only the page has a use for."""
    for link in caption.select("a"):
        link.unwrap()
    return caption


def slide(figure, folder):
    """Return a figure of a page as a slide.

    Parameters
    ----------
    figure : Tag
    folder : Path
        Where the page is, in the built site.

    Returns
    -------
    Tag

    Raises
    ------
    ValueError
        If it has not one picture, or says nothing to those who do not see it.
    """
    images, numbers = figure.select("img"), figure.select(".caption-number")
    if len(images) != 1 or len(numbers) != 1:
        raise ValueError(
            f"figure must have one picture and one number, {figure.get('id')} has {len(images)}, {len(numbers)}"
        )
    if not images[0].get("alt"):
        raise ValueError(f"figure must say what the eye sees, {figure['id']} has no alt")
    path = folder / images[0]["src"]
    with Image.open(path) as picture:
        wide, high = picture.size
    beside = min(BESIDE[0] / wide, BESIDE[1] / high) > min(BELOW[0] / wide, BELOW[1] / high)
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    image = new("img", src=f"data:image/{path.suffix[1:]};base64,{data}", alt=images[0]["alt"])
    image["class"] = [name for name in images[0].get("class", ()) if name == "heat-map"]
    caption = figure.select_one(".caption-text")
    said = new("p")
    said.extend([new("b", numbers[0].get_text().strip()), " ", words(first_sentence(caption))])
    section, box, frame = new("section", id=figure["id"]), new("figure"), new("div", class_="picture")
    box["class"] = "beside" if beside else "below"
    frame.append(image)
    below = new("figcaption")
    below.append(said)
    box.extend([frame, below])
    notes = new("aside", class_="notes")
    notes.append(words(caption))
    section.extend([box, notes])
    return section


def deck(site, names):
    """Return the deck of a chapter as HTML.

    Parameters
    ----------
    site : Path
        The built site.
    names : sequence of str
        The pages of the chapter in their order, such as ``book/preqn``.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        As `slide`, `first_sentence` and `drawn`.
    """
    slides, head = BeautifulSoup('<div class="slides"></div>', "html.parser"), None
    for name in names:
        path = site / f"{name}.html"
        page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").select_one("article")
        title = page.h1.get_text().removesuffix("#").strip()
        head = head or title
        for figure in page.select("figure[id]"):
            made = slide(figure, path.parent)
            made.insert(0, new("h2", title))
            slides.div.append(made)
    typeset(slides)
    reveal = MODULES / "reveal.js" / "dist"
    styles = letters() + "".join(
        file.read_text(encoding="utf-8") for file in (reveal / "reveal.css", Path(__file__).with_suffix(".css"))
    )
    script = (reveal / "reveal.js").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(head)}: {CONFIG["title"]}</title><link rel="icon" href="data:,">
<style>{styles}</style></head>
<body><div class="reveal">{slides}</div>
<script>{script}</script>
<script>Reveal.initialize({json.dumps(SETTINGS)});</script></body>
</html>
"""


def letters():
    """Return the typeface of the book as a style that holds it."""
    faces = ""
    for weight, style in (("400", "normal"), ("400", "italic"), ("600", "normal")):
        file = VENDOR / "fonts" / f"source-serif-4-latin-{weight}-{style}.woff2"
        data = base64.b64encode(file.read_bytes()).decode("ascii")
        faces += f'@font-face {{ font-family: "Source Serif 4"; font-weight: {weight}; font-style: {style}; '
        faces += f"src: url(data:font/woff2;base64,{data}) format('woff2'); }}\n"
    return faces


def main(*names):
    """Make the decks of all chapters, or of those that are named."""
    known = chapters()
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"NAME must be a chapter, one of {', '.join(known)}; got {unknown[0]}")
    PLACE.mkdir(parents=True, exist_ok=True)
    for name in names or known:
        target = PLACE / f"{name}.html"
        html = deck(SITE, known[name])
        target.write_text(html, encoding="utf-8")
        print(f"{html.count('<section')} figures: {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
