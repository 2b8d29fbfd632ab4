"""The pages of the site as one document for paper: what is read by clicking becomes what is read by turning pages.

Links lead to places of the same document, and to what is published where the book has no such page. Solutions and the
answers to the bets go to the end, a slider becomes its most telling frames, and folded code is left out: it is for the
screen, where it runs. What shows the number of a page is empty: the element names the place (`data-at`), and whoever
prints knows the page.
"""

import json
import re
from pathlib import PurePosixPath
from urllib.parse import unquote, urldefrag, urljoin

from bs4 import BeautifulSoup
from PIL import Image

STATE = re.compile(r'(?s)<script type="application/vnd\.jupyter\.widget-state\+json">(.*?)</script>')
VIEW = "script[type='application/vnd.jupyter.widget-view+json']"
DPI = 200
"""Pixels of a picture to an inch of paper."""
COLUMN, WIDTH = 128, 170
"""Millimetres: the text, and the text with its margin (paper.css has the same)."""
SHRUNK = 0.65
"""Frames are drawn as large as pictures are: these have 130 pixels to an inch on the screen."""
SCREEN = """.headerlink, .bet-tally, .bet-check, .bet-gate, .bet-said, .bet-note, .bet-end, .toctree-wrapper, .moved,
    .sd-row, .sd-summary-state-marker, summary .collapsed, summary .expanded, style, .sidebar-title:empty"""
"""What a page has for the screen alone."""
KEPT = "figure, .admonition, .bet, .answer, .highlight, table, aside"
"""What stays whole on one page, unless it is higher than one."""

FRAMES = {
    "bellman": [["γ = 0.99, sweeps = 4", "γ = 0.99, sweeps = 16", "γ = 0.99, sweeps = 256", "γ = 0.5, sweeps = 256"]],
    "function_approximation": [
        ["γ = 0.9, second state = 0", "γ = 0.85, second state = 0.75", "γ = 0.99, second state = 0.75"]
    ],
    "key_equation": [
        [
            "activation = relu, alpha up to = 300",
            "activation = tanh, alpha up to = 300",
            "activation = tanh, alpha up to = 30",
            "activation = tanh, alpha up to = 10",
        ]
    ],
    "contraction": [
        ["γ = 0.5, coupling = -1.2", "γ = 0.5, coupling = 1.2", "γ = 0.5, coupling = 2.5", "γ = 0.7, coupling = 2.5"],
        ["step = 1", "step = 2", "step = 3", "step = 4"],
    ],
    "heuristics": [
        [
            "activation = relu, hidden layers = 4, input scale = 0.5",
            "activation = relu, hidden layers = 4, input scale = 8",
            "activation = sin, hidden layers = 4, input scale = 1",
            "activation = sin, hidden layers = 4, input scale = 8",
        ]
    ],
    "heuristics_runs": [["step = 501", "step = 660", "step = 1100"]],
    "preqn": [
        [
            "batch = both actions, coupling = 2.5, γ = 0.9",
            "batch = action 1, coupling = 2.5, γ = 0.9",
            "batch = action 2, coupling = 1, γ = 0.9",
            "batch = action 2, coupling = 1.5, γ = 0.9",
        ]
    ],
    "preqn_later": [["period = 1", "period = 8", "period = 12", "period = 156"]],
}
"""Which frames say on paper what the page says with its sliders, by page, one list for each slider in its order: those
of which the text beside them speaks."""


class Pages:
    """The pages of the site that are printed, and where their links lead."""

    def __init__(self, site, names, published):
        self.site, self.published = site, published
        self.soups, self.states = {}, {}
        for name in names:
            html = (site / f"{name}.html").read_text(encoding="utf-8")
            state = STATE.search(html)
            self.states[name] = json.loads(state[1])["state"] if state else {}
            page = BeautifulSoup(STATE.sub("", html), "html.parser").select_one("article")
            self.soups[name] = page.select_one("section")

    def target(self, name, href):
        """Return where a link of a page leads: (page, id) in the book, or an address elsewhere."""
        address, fragment = urldefrag(href)
        if re.match(r"\w+:", address):
            return href
        path = PurePosixPath(urljoin(f"/{name}.html", address)).relative_to("/")
        page = path.with_suffix("").as_posix()
        if path.suffix == ".html" and page in self.soups:
            return page, unquote(fragment)
        return urljoin(self.published, path.as_posix()) + f"#{fragment}" * bool(fragment)


def new(kind, text="", /, **attributes):
    """Return an element of its own."""
    tag = BeautifulSoup("", "html.parser").new_tag(kind)
    for key, value in attributes.items():
        tag[key.strip("_").replace("_", "-")] = value
    if text:
        tag.append(text)
    return tag


def at(place):
    """Return a link that shows the page of a place, which is named as `place_of` names it."""
    link = new("a", href=f"#{place}", class_="at")
    link.append(new("span", data_at=place))
    return link


def place_of(name, fragment=""):
    """Return what the place of an id of a page is called in the book."""
    return re.sub(r"[^\w.-]", "-", f"{PurePosixPath(name).name}.{fragment}".rstrip("."))


def frames(state, view, label):
    """Return the frames of a widget that have these words, such as "γ = 0.5, sweeps = 4", and how many there are."""
    found, todo = {}, [json.loads(view.string)["model_id"]]
    while todo:
        model = state[todo.pop()]["state"]
        todo += [child.removeprefix("IPY_MODEL_") for child in model.get("children", ())]
        if "<svg" in str(model.get("value")):
            picture = BeautifulSoup(model["value"], "html.parser")
            said = picture.select_one("svg")["aria-label"]
            found[said[said.rindex("(") + 1 : -1]] = picture.select_one("svg")
    if missing := [words for words in label if words not in found]:
        raise ValueError(f"no frame {missing[0]!r} among those of this slider, such as {min(found)!r}")
    return [(words, found[words]) for words in label], len(found)


def explorer(pages, name, view, words):
    """Return a widget as the frames that have these words, with what each shows, and the words for all of them."""
    chosen, total = frames(pages.states[name], view, words)
    box = new("div", class_="explorer")
    for label, picture in chosen:
        figure = new("figure", figure_of(picture))
        figure.append(new("figcaption", label))
        box.append(figure)
    which = f"{len(chosen)} of the {total}" if len(chosen) < total else f"The {total}"
    box.append(new("p", f"{which} pictures through which the controls lead on the web.", class_="says"))
    return box


def figure_of(picture):
    """Return a drawing with its width on paper."""
    points = float(re.match(r"[\d.]+", picture["width"])[0])
    picture["style"] = f"width: {min(points / 72 * 25.4 * SHRUNK, WIDTH):.1f}mm; height: auto"
    for size in ("width", "height"):
        del picture[size]
    return picture


def plane(box):
    """Return a plane of Q as its portrait, with what it says of itself."""
    picture = box.select_one("svg")
    figure = new("figure", figure_of(picture), class_="plane")
    said = picture["aria-label"].removeprefix("The plane of Q. ")
    figure.append(new("figcaption", f"{said[:1].upper()}{said[1:]} On the web the start can be moved."))
    return figure


def bet(box, answer):
    """Return a bet as a question with its options, which says on what page its answer is."""
    asked = new("div", class_="bet")
    if options := box.select(".bet-options button"):
        listed = new("ol", type="A")
        for option in options:
            line = new("li")
            line.extend(list(option.contents))
            listed.append(line)
        asked.append(listed)
    else:
        asked.append(new("p", f"{box.label.get_text().strip()}:", class_="blank"))
    asked.append(see(f"{box.legend.get_text()}. Choose before you read on. The answers: page ", answer))
    return asked


def see(words, place):
    """Return a line that names a page."""
    line = new("p", words, class_="see")
    line.append(at(place))
    return line


def clean(pages, name):
    """Bring a page into the form that it has on paper; return its solutions and its answers to bets, for the end."""
    page = pages.soups[name]
    sliders, told = page.select(VIEW), FRAMES.get(PurePosixPath(name).name, [])
    if len(sliders) != len(told):
        raise ValueError(
            f"FRAMES must name the frames of each slider: {name} has {len(sliders)}, and it names {len(told)}"
        )
    for view, words in zip(sliders, told, strict=True):
        view.replace_with(explorer(pages, name, view, words))
    for box in page.select(".dn-plane"):
        box.replace_with(plane(box))
    answers = taken_answers(page, name)
    for part in page.select(f"script, {SCREEN}"):
        part.decompose()
    for fold in page.select("details.hide"):
        for code in fold.select(".cell_input") if "above-input" in fold["class"] else ():
            code.decompose()
        fold.summary.decompose()
        fold.unwrap()
    for fold in page.select("details"):
        fold.name, fold["class"] = "div", "fold"
        fold.summary["class"] = "fold-title"
        fold.summary.name = "p"
    for box in page.select(".dropdown:not(.exercise, .misconception, .solution, .proof)"):
        box["class"], box.p["class"] = "fold", "fold-title"
    for cell in page.select(".cell"):
        if not cell.get_text(strip=True) and not cell.select("img, svg"):
            cell.decompose()
    for section in page.select("section > section"):  # of which nothing is left but the title
        if not section.find_all(lambda part: part.name not in ("h2", "h3", "a"), recursive=False):
            section.decompose()
    for part in page.select("pre a, .pst-scrollable-table-container, .bet-fold"):
        part.unwrap()
    return taken_solutions(pages, page, name), answers


def taken_answers(page, name):
    """Take the answers to the bets out of a page, each with a link back, and make questions of the bets."""
    asked, said, answers = page.select("fieldset.bet"), page.parent.select_one(".bet-answers"), []
    if asked:
        said.extract()
        parts = said.select(":scope > p"), said.select(":scope > ul")
        for box, title, reasons in zip(asked, *parts, strict=True):
            place = f"answer.{box['data-exercise']}"
            answer = new("div", class_="answer", id=place)
            title.extend([", page ", at(place_of(name, box["data-exercise"]))])
            answer.extend([title, reasons])
            answers.append(answer)
            box.replace_with(bet(box, place))
    return answers


def taken_solutions(pages, page, name):
    """Take the solutions out of a page, each with a link back."""
    solutions = page.select(".solution")
    for solution in solutions:
        title = solution.select_one(".admonition-title")
        exercise = page.find(id=unquote(title.a["href"][1:]))
        exercise.append(see("Solution: page ", place_of(name, solution["id"])))
        title.extend([", page ", at(place_of(name, exercise["id"]))])
        solution.extract()
        solution["class"] = "solution"
    return solutions


def settle(pages, name, parts):
    """Give the places in parts of a page their names in the book, and its links and pictures their addresses there."""
    for part in parts:
        for tag in [part, *part.select("[id]:not(svg *)")]:
            if tag.get("id") and not tag["id"].startswith("answer."):
                tag["id"] = place_of(name, tag["id"])
        for link in part.select("a[href]:not(.at)"):
            target = pages.target(name, link["href"])
            link["href"] = target if isinstance(target, str) else f"#{place_of(*target)}"
            del link["title"]
        for image in part.select("img[src]"):
            path = PurePosixPath(urljoin(f"/{name}.html", image["src"])).relative_to("/")
            with Image.open(pages.site / path) as picture:
                width = min(picture.width / DPI * 25.4, WIDTH)
            image["src"], image["style"] = f"../html/{path}", f"width: {width:.1f}mm"
            del image["decoding"]


def level(heading):
    """Return how deep a heading is: 1 for a page, 2 for what stands one below, and so on."""
    return int(heading.name[1])


def contents(sections):
    """Return the table of contents: the titles of the pages, and of their sections where these have numbers."""
    listed = new("nav", class_="contents", id="contents")
    listed.append(new("h1", "Contents"))
    parted = {heading.get_text().split(".")[0] for section in sections for heading in section.select("h2.part-title")}
    for section in sections:
        for heading in section.select("h1, h2, h3"):
            number = heading.select_one(".section-number")
            deep = level(heading)
            wanted = deep == 1 or (number and (deep == 2 or number.get_text().split(".")[0] in parted))
            if not wanted:
                continue
            place = heading.find_parent("section")["id"]
            line = new("p", class_=f"level-{deep}")
            words = new("a", href=f"#{place}", class_="words")
            words.append(BeautifulSoup(heading.decode_contents(), "html.parser"))
            for inner in words.select("a, [id]"):
                inner.unwrap()
            line.extend([words, new("span", class_="dots"), at(place)])
            listed.append(line)
    return listed


def index(pages):
    """Return the index with page numbers; what leads to pages that are not printed is left out."""
    found = BeautifulSoup((pages.site / "genindex.html").read_text(encoding="utf-8"), "html.parser").select_one(
        "article"
    )
    listed = new("section", id="end.index", class_="page", data_title="Index")
    listed.append(new("h1", "Index"))
    columns = new("div", class_="index")

    def entries(items, box):
        for item in items:
            links = item.find_all("a", recursive=False)
            words = links[0].get_text() if links else str(item.contents[0]).strip()
            line = new("p")
            line.append(f"{words}")
            targets = [pages.target("genindex", link["href"]) for link in links]
            places = dict.fromkeys(place_of(*target) for target in targets if not isinstance(target, str))
            for place in places:
                line.extend([" ", at(place)])
            below = new("div", class_="below")
            entries(item.select(":scope > ul > li"), below)
            if places or below.contents:
                box.append(line)
                if below.contents:
                    box.append(below)

    for title in found.select("h2"):
        group = new("div")
        entries(title.find_next_sibling("table").select("td > ul > li"), group)
        if group.contents:
            group.insert(0, new("h2", title.get_text()))
            columns.append(group)
    listed.append(columns)
    return listed


def of_end(title, place, parts):
    """Return a chapter of what was taken to the end: {title of a page: what it had}."""
    section = new("section", id=place, class_="page", data_title=title)
    section.append(new("h1", title))
    for heading, taken in parts.items():
        if taken:
            section.append(new("h2", heading))
            section.extend(taken)
    return section


def book(site, names, *, parts=(), published, before=(), head=""):
    """Return the book as one document.

    Parameters
    ----------
    site : Path
        The built site.
    names : sequence of str or None
        The pages in their order, such as ``book/bellman``. What comes after ``None`` follows the solutions.
    parts : sequence of str
        The pages that are parts of the chapter before them.
    published : str
        Where the site is on the web: there lead the links to what is not printed.
    before : sequence of str
        HTML that stands before the contents.
    head : str
        What belongs into the head of the document.

    Returns
    -------
    str
        HTML, which lies in a folder beside that of the site.

    Raises
    ------
    ValueError
        If a link names a place that the book does not have, or two places have one name.
    """
    pages = Pages(site, [name for name in names if name], published)
    solutions, answers, sections = {}, {}, []
    for name, section in pages.soups.items():
        if name in parts:
            for heading in section.select("h1, h2, h3, h4"):
                heading.name = f"h{level(heading) + 1}"
            section.select_one("h2")["class"] = "part-title"
        title = section.select_one("h1, h2").get_text().removesuffix("#")
        solutions[title], answers[title] = clean(pages, name)
        settle(pages, name, [section, *solutions[title], *answers[title]])
        section["id"], old = place_of(name), section["id"]
        section.insert(1, new("span", id=old))
        section["class"], section["data-title"] = "page", title
    order = list(names)
    after = order.index(None) if None in order else len(order)
    sections = [pages.soups[name] for name in order[:after]]
    sections += [of_end("Solutions", "end.solutions", solutions), of_end("Answers to the bets", "end.answers", answers)]
    sections += [pages.soups[name] for name in order[after + 1 :]]
    sections += [section for section in [index(pages)] if section.select(".at")]
    for number, section in enumerate(sections):
        section["style"] = f"page: page-{number}"
        head += f"<style>@page page-{number} {{ @top-left {{ content: {json.dumps(section['data-title'])} }} }}</style>"
    main = new("main", class_="mathjax_ignore")
    main.extend([contents(sections), *sections])
    checked(main)
    return f"""<!DOCTYPE html>
<html lang="en" data-theme="light">
<head><meta charset="utf-8">{head}</head>
<body>{"".join(before)}{main}</body>
</html>
"""


def checked(main):
    """Leave the names of those places alone to which a link leads; complain where a link leads to none."""
    for section in main.select("section[id]"):  # it may begin at the foot of a page, and its title on the next
        title = section.find(["h1", "h2", "h3", "h4"], recursive=False)
        if title and not title.get("id"):
            title["id"] = section["id"]
            del section["id"]
    wanted = {link["href"][1:] for link in main.select("a[href^='#']")}
    there = [tag["id"] for tag in main.select("[id]:not(svg *)")]
    if missing := sorted(wanted - set(there)):
        raise ValueError(f"links lead to places that the book does not have: {', '.join(missing)}")
    if twice := sorted({name for name in wanted if there.count(name) > 1}):
        raise ValueError(f"places with one name: {', '.join(twice)}")
    for tag in main.select("[id]:not(svg *)"):
        if tag["id"] not in wanted:
            del tag["id"]
