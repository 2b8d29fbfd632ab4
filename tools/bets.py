"""Put the bets, and the boxes that judge without Python, into a built page.

A bet is an exercise whose name ends in ``-prediction``: one chooses, hears the reason, and what follows unfolds. What a
reader does with it is in `book/_static/bets.js`, what is said to an answer in `judge.js`, its data in `exercises`.
Without scripts nothing is folded, and the answer stands in a closed fold after its question; on paper the answers of
all bets stand at the end of the page.
"""

import json
import re

import exercises
from bs4 import BeautifulSoup, Tag

BET = "-prediction"
HEADING = re.compile("h[1-6]|section")
SCRIPTS = ("judge.js", "bets.js")


def bets(html: str) -> str:
    """Return a page with its bets and the boxes of its other exercises that can be judged without Python.

    Parameters
    ----------
    html : str
        A built page.

    Returns
    -------
    str
        The page; one that has no such exercise, or has its boxes already, as it is.
    """
    if 'class="exercise' not in html or 'id="exercise-data"' in html:
        return html
    page, known = BeautifulSoup(html, "html.parser"), exercises.of_the_book()
    boxes = [
        box
        for box in page.select("div.exercise[id]")
        if box["id"] in known and exercises.judged_without_python(known[box["id"]])
    ]
    if not boxes:
        return html
    data = {box["id"]: exercises.data(known[box["id"]]) for box in boxes}
    asked = [box for box in boxes if box["id"].endswith(BET)]
    for box in boxes:
        of = data[box["id"]]
        if box in asked:
            count = f"Bet {asked.index(box) + 1} of {len(asked)}" if len(asked) > 1 else "A bet"
            box.append(_bet(page, box["id"], of, count))
            if not _fold(page, box):
                box.select_one(".bet-gate").contents[0].replace_with("Choose; or ")
        else:
            box.append(_judged(page, box["id"], of))
    article = page.select_one("article") or page
    if asked:
        _end(page, article, asked, data)
    text = json.dumps(data, ensure_ascii=False, sort_keys=True).replace("<", "\\u003c")
    article.append(_tag(page, "script", text, type="application/json", id="exercise-data"))
    _load(page)
    return str(page)


def _tag(page, name, *content, **attributes):
    """Return a new tag; ``class_`` is its class, and an underscore in an attribute a hyphen."""
    tag = page.new_tag(name, attrs={key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()})
    tag.extend([part for part in content if part is not None])
    return tag


def _button(page, words, **attributes):
    """Return a button that is dead until the script comes."""
    return _tag(page, "button", words, type="button", disabled="", **attributes)


def _words(of, option):
    return next(iter(of["options"][option]["words"]), option)


def _ask(page, of, act):
    """Return the options as buttons, or a field with the button that acts."""
    if not of["typed"]:
        buttons = [_tag(page, "li", _button(page, _words(of, option), data_answer=option)) for option in of["options"]]
        return _tag(page, "ul", *buttons, class_="bet-options")
    row = len(of.get("shape", ())) > 0
    label = f"Your {of['shape'][0]} numbers, with commas between" if row else "Your answer"
    field = _tag(page, "input", type="text", disabled="", autocomplete="off", spellcheck="false")
    return _tag(page, "div", _tag(page, "label", f"{label} ", field), _button(page, act), class_="bet-field")


def _bet(page, name, of, count):
    gate = _tag(page, "p", "Choose, and the page goes on; or ", _button(page, "show me", class_="bet-show"))
    gate["class"] = "bet-gate"
    fold = _tag(page, "details", _tag(page, "summary", "The answer, and what the others hear"), class_="bet-answer")
    fold.append(_answers(page, of))
    said = _tag(page, "p", role="status", class_="bet-said")
    legend = _tag(page, "legend", count)
    return _tag(page, "fieldset", legend, _ask(page, of, "Bet"), gate, said, fold, class_="bet", data_exercise=name)


def _judged(page, name, of):
    legend = _tag(page, "legend", "Check your answer here")
    note = _tag(page, "p", "Says whether it is right; is not handed in.", class_="bet-note")
    said = _tag(page, "p", role="status", class_="bet-said")
    tell = _button(page, "Tell me", class_="bet-tell", hidden="") if of["kind"] == "value" else None
    ask = _ask(page, of, "Check")
    return _tag(page, "fieldset", legend, ask, said, tell, note, class_="bet-check", data_exercise=name)


def _answers(page, of):
    """Return what is said to each answer, the right one first."""
    if of["kind"] == "choice":
        others = [option for option in of["options"] if option != of["right"]]
        said = [(_words(of, option), of["options"][option]["said"]) for option in (of["right"], *others)]
    else:
        right = ", ".join(f"{number:.6g}" for number in of["right"])
        wrong = [(", ".join(f"{n:.6g}" for n in m["wrong"]), m["said"]) for m in of["mistakes"]]
        said = [(right, of["insight"]), *wrong]
    (words, why), *others = said
    items = [_tag(page, "li", _tag(page, "strong", f"Right: {words}."), f" {why}")]
    items += [_tag(page, "li", f"{words}: {why}") for words, why in others]
    return _tag(page, "ul", *items)


def _fold(page, box):
    """Put what follows a bet, up to a heading, the next bet or a `bet-end`, into a fold, and say if anything does."""
    following = []
    for part in box.next_siblings:
        if isinstance(part, Tag):
            ends = HEADING.fullmatch(part.name) or "bet-end" in part.get("class", ())
            if ends or (part.get("id", "").endswith(BET) and "exercise" in part.get("class", ())):
                break
        following.append(part)
    follows = any(isinstance(part, Tag) for part in following)
    if follows:
        fold = _tag(page, "div", class_="bet-fold", data_bet=box["id"])
        box.insert_after(fold)
        fold.extend([part.extract() for part in following])
    return follows


def _end(page, article, asked, data):
    """Put after the text the tally, for the screen, and the answers, for paper."""
    tally = _tag(page, "section", _tag(page, "h2", "Your bets"), class_="bet-tally", id="your-bets")
    tally.append(_tag(page, "p", role="status"))
    answers = _tag(page, "section", _tag(page, "h2", "The answers to the bets"), class_="bet-answers")
    entries = _tag(page, "ol")
    for number, box in enumerate(asked, 1):
        heading = box.find_parent("section").find(re.compile("h[1-6]"))
        where = "".join(part.get_text() for part in heading.contents if not _is_headerlink(part))
        link = _tag(page, "a", f"Bet {number}", href=f"#{box['id']}", class_="reference internal")
        entries.append(_tag(page, "li", link, f", {where.strip()}: ", _tag(page, "span", data_bet=box["id"])))
        answers.append(_tag(page, "p", _tag(page, "strong", f"Bet {number}, {where.strip()}")))
        answers.append(_answers(page, data[box["id"]]))
    kept = _tag(page, "p", "They are kept in this browser only. ", _button(page, "Forget my bets", class_="bet-forget"))
    tally.extend([entries, kept])
    last = article.find("section", recursive=False) or article
    last.extend([tally, answers])


def _is_headerlink(part):
    return isinstance(part, Tag) and "headerlink" in part.get("class", ())


def _load(page):
    """Load the scripts in the head, before the text comes: what is folded is never painted open first."""
    beside = page.select_one("script[src*='access.js']")
    folder = beside["src"].partition("access.js")[0] if beside else "_static/"
    for script in SCRIPTS:
        page.head.append(_tag(page, "script", src=f"{folder}{script}"))
