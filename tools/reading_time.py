"""How long a page takes: by one rule, section by section; heads and plans say it in numbers that this file writes.

`python tools/reading_time.py` lists words, cells, exercises and minutes of each page, `python tools/reading_time.py
bellman` those of each section of one, and `python tools/reading_time.py write` brings the numbers in the heads, and in
the tables with a column "minutes to read", up to date. How many screens a page has is counted by `tests/screens.py`.
"""

import math
import re
import sys
from dataclasses import dataclass, fields

import clean_notebooks
import nbformat
from build_book import ROOT, toc_files
from claims import CLOSED, prose

WORDS_A_MINUTE = 150
MINUTES = {"open": 1.0, "shown": 0.5, "bets": 2.0}
"""An open code cell; a figure, a table of a cell or an equation with a number; a bet."""
MARKS = {"easy": 10, "medium": 20, "hard": 40}
"""The minutes of an exercise by the mark at the end of its title; one without a mark is medium."""
PROOFS = ("prf:", "index")  # what is closed for a claim and read all the same, and what nobody reads
HEAD = re.compile(r"^(?P<minutes>[^\n;]*\bto read\b[^\n;]*);(?P<rest>[^\n]*)$", re.MULTILINE)
SECTION = re.compile(r"^(?=\([^)\s]+\)=\n###? )|^(?<!\)=\n)(?=###? )", re.MULTILINE)
"""Where a section starts: at its label, or at its heading where it has none."""
STEP = 5
"""Minutes of pages are written to the nearest five, and are brought up to date when they are off by more than that."""
TABLE = re.compile(r"^(?P<head>\|.*\|)\n\|[-:| ]+\|\n(?:\|.*\|(?:\n|\Z))+", re.MULTILINE)
COLUMNS = {"minutes to read": "reading", "minutes of exercises": "work"}
"""What the heads of columns with minutes say: those of the chapters and sections to which a row links."""


@dataclass
class Amount:
    """What a reader meets in a section or on a page."""

    words: int = 0
    open: int = 0
    shown: int = 0
    bets: int = 0
    exercises: int = 0
    work: int = 0
    """The minutes that the exercises take."""

    def __add__(self, other):
        return Amount(*(getattr(self, name.name) + getattr(other, name.name) for name in fields(self)))

    @property
    def reading(self):
        """Return the minutes without the exercises."""
        return self.words / WORDS_A_MINUTE + sum(MINUTES[name] * getattr(self, name) for name in MINUTES)


def notebooks():
    """Return the notebooks of the table of contents, in reading order."""
    return [path for name in toc_files() if (path := ROOT / f"{name}.ipynb").is_file()]


def timed():
    """Return the notebooks whose heads say how long they take."""
    return [path for path in notebooks() if HEAD.search(nbformat.read(path, as_version=4).cells[0].source)]


def shown(cell):
    """Return what of a code cell a reader sees: "open" for its code, "shown" for what it has made, or nothing."""
    tags = set(cell.metadata.get("tags", []))
    if "remove-cell" in tags:
        return None
    return "shown" if tags & {"hide-input", "remove-input", "hide-cell"} else "open"


def exercises(text):
    """Return the exercises in a text: (title, label)."""
    found = re.finditer(
        r"^(?P<mark>`{3,}|:{3,})\{exercise(?:-start)?\}(?P<title>.*)\n(?P<options>(?::.*\n)*)",
        text + "\n",
        re.MULTILINE,
    )
    return [(each["title"].strip(), re.search(r"^:label: *(\S*)|$", each["options"], re.M)[1]) for each in found]


def minutes_of(title):
    """Return the minutes of an exercise by the mark that ends its title: easy, medium or hard."""
    mark = re.search(rf"\((?:[^()]*, *)?({'|'.join(MARKS)})\)$", title)
    return MARKS[mark[1] if mark else "medium"]


def amount(cells):
    """Return what a reader meets in a run of cells.

    What stands within an exercise or its solution is part of the minutes of the exercise.
    """
    closed = tuple(name for name in CLOSED if name not in PROOFS)
    texts = [(cell.id, cell.source if cell.cell_type == "markdown" else "code") for cell in cells]
    total = Amount()
    for cell, text in zip(cells, prose(texts, closed)[1], strict=True):
        if cell.cell_type == "code":
            kind = shown(cell) if text else None
            if kind:
                setattr(total, kind, getattr(total, kind) + 1)
            total.words += len(cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", "").split()) * bool(
                kind
            )
            continue
        total.words += len(text.split())
        total.shown += len(re.findall(r"\$\$[ \t]*\(eq-", cell.source))
        for title, label in exercises(cell.source):
            if (label or "").endswith("-prediction"):
                total.bets += 1
            else:
                total.exercises += 1
                total.work += minutes_of(title)
    return total


def sections(notebook):
    """Return the sections of a notebook in order, with what stands before the first: (label, title, amount)."""
    parts = [("", "", [])]
    for cell in notebook.cells:
        prose = cell.cell_type == "markdown"
        for text in SECTION.split(cell.source) if prose else [cell.source]:
            start = re.match(r"(?:\(([^)\s]+)\)=\n)?###? (.*)", text) if prose else None
            if start:
                parts.append((start[1] or "", re.sub(r"\[\]\{[^}]*\}", "", start[2]).strip(), []))
            parts[-1][2].append(nbformat.from_dict(dict(cell) | {"source": text}))
    return [(label, title, amount(cells)) for label, title, cells in parts]


def rounded(minutes):
    """Return minutes to the nearest five, and at least five."""
    return max(STEP, STEP * round(minutes / STEP))


def said(found):
    """Return how a head says the minutes of a page."""
    work = f", and {rounded(found.work)} for the exercises" if found.work else ""
    return f"About {rounded(found.reading)} minutes to read{work}"


def stale(head, found):
    """Return whether the minutes that a head says are off by more than a step, or are not said as a number."""
    numbers = re.fullmatch(
        r"About (\d+) minutes to read(?:, and (\d+) for the exercises)?", HEAD.search(head)["minutes"]
    )
    if numbers is None or bool(numbers[2]) != bool(found.work):
        return True
    return abs(int(numbers[1]) - found.reading) > STEP or abs(int(numbers[2] or 0) - found.work) > STEP


def amounts():
    """Return what a reader meets behind each label of a page or a section, and behind the address of a section."""
    found = {}
    for name in toc_files():
        for path in (ROOT / f"{name}.ipynb", ROOT / f"{name}.md"):
            if path.is_file() and (label := re.search(r"\((ch-[a-z0-9-]+)\)=", path.read_text(encoding="utf-8"))):
                parts = sections(source(path))
                found[label[1]] = sum((part for _, _, part in parts), Amount())
                found |= {own: part for own, _, part in parts if own}
                found |= {f"{path.name}#{slug(title)}": part for _, title, part in parts if title}
    return found


def slug(title):
    """Return the end of the address of a section."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def source(path):
    """Return a page as a notebook."""
    if path.suffix == ".ipynb":
        return nbformat.read(path, as_version=4)
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(path.read_text(encoding="utf-8"))])


def of_row(row, kind, known):
    """Return the minutes of a row of a table, exact, and as they are written: those of sections to the minute."""
    links = re.findall(r"(half of )?(?:\{ref\}`(?:[^`<]*<)?|\]\()((?:ch|sec)-[^`<>]+|\w+\.ipynb#[^)]+)", row)
    exact = sum(getattr(known[label], kind) / (2 if half else 1) for half, label in links)
    if exact and not any(label.startswith("ch-") for _, label in links):
        return exact, max(1, round(exact))
    return exact, rounded(exact) if exact else 0


def timetables(text, known):
    """Return a text with the minutes of its tables as they are now, and how far off the worst of the old ones was."""
    worst = 0.0

    def written(table):
        nonlocal worst
        lines = table[0].rstrip("\n").split("\n")
        heads = [head.strip() for head in lines[0].strip("|").split("|")]
        for at, line in enumerate(lines[2:], 2):
            cells = line.strip("|").split("|")
            for column, head in enumerate(heads):
                if head in COLUMNS:
                    exact, minutes = of_row(line, COLUMNS[head], known)
                    old = re.fullmatch(r" *(\d+) *", cells[column])
                    worst = max(worst, abs(int(old[1]) - exact) if old else math.inf)
                    cells[column] = f" {minutes} "
            lines[at] = f"|{'|'.join(cells)}|"
        return "\n".join(lines) + "\n" * table[0].endswith("\n")

    return TABLE.sub(lambda table: written(table) if set(COLUMNS) & columns(table) else table[0], text), worst


def columns(table):
    """Return the heads of the columns of a table."""
    return {head.strip() for head in table["head"].split("|")}


def write():
    """Write the minutes into the heads and tables that say other ones, and return the pages that changed."""
    changed, known = [], amounts()
    for name in toc_files():
        for path in (ROOT / f"{name}.ipynb", ROOT / f"{name}.md"):
            if path.is_file() and _write(path, known):
                changed.append(path.stem)
    return changed


def _write(path, known):
    notebook = source(path)
    before = [cell.source for cell in notebook.cells]
    if path in timed():
        found = amount(notebook.cells)
        notebook.cells[0].source = HEAD.sub(lambda old: f"{said(found)};{old['rest']}", before[0], count=1)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = timetables(cell.source, known)[0]
    if before == [cell.source for cell in notebook.cells]:
        return False
    notebook_text = nbformat.writes(clean_notebooks.normal_form(notebook)) + "\n" if path.suffix == ".ipynb" else None
    path.write_text(notebook_text or notebook.cells[0].source, encoding="utf-8")
    return True


def table(rows):
    """Return rows of (name, amount) as lines under a head."""
    head = f"{'words':>6} {'open':>5} {'shown':>6} {'bets':>5} {'exercises':>10} {'to read':>8} {'to do':>6}"
    lines = [
        f"{a.words:6} {a.open:5} {a.shown:6} {a.bets:5} {a.exercises:10} {a.reading:8.0f} {a.work:6}  {name}"
        for name, a in rows
    ]
    return "\n".join([head, *lines])


def main(asked):
    """Do what the command line asks for."""
    if asked == ["write"]:
        print("changed:", ", ".join(write()) or "nothing")
        return
    if asked:
        found = sections(source(ROOT / "book" / f"{asked[0]}.ipynb"))
        print(table([(f"{title} ({label})" if label else title or "(head)", each) for label, title, each in found]))
        return
    print(table([(path.stem, amount(source(path).cells)) for path in notebooks()]))


if __name__ == "__main__":
    main(sys.argv[1:])
