"""What the book claims: make book/claims.md of book/claims.yml, find faults in the latter, and list what it lacks.

`python tools/claims.py` makes the page. `python tools/claims.py scan` lists the readings that say because, only, never,
always, decides, needs, or what stands in the way, and that no entry covers.
"""

import re
import sys

import nbformat
from build_book import toc_files
from ledger import ROOT, badge, block, counts, joined, link, load, test_names

SOURCE = ROOT / "book" / "claims.yml"
PAGE = ROOT / "book" / "claims.md"
FIELDS = {"id", "page", "where", "claim", "scope", "known", "how"}
KNOWN = {
    "proof": ("success", "There is a proof or a counterexample; the test looks for an instance that breaks it."),
    "search": ("info", "Instances were searched that could have refuted it; none did."),
    "experiment": ("warning", "It was seen in runs. The entry says what their control is, or that there is none."),
    "opinion": ("muted", "No test can refute it, and none is named."),
}
ATTACKED = [kind for kind in KNOWN if kind != "opinion"]
STRONG = re.compile(
    r"\b(because|only|never|always|decides?|needs?|st(?:ands|ood) in the way)\b",
    re.IGNORECASE,
)
CLOSED = ("prf:", "exercise", "solution", "index", "literalinclude", "code")  # directives that hold no reading

INTRODUCTION = """\
(ch-claims)=
# What this book claims, and what would refute it

{ref}`ch-corrections` judges the notes from which this book grew. This page judges the book. A book that corrects the
sentences of others should say which of its own sentences it would take back, and on what evidence.

So here are the sentences that the chapters stand on: every line of every summary, and readings that were once wrong and
had to be mended. Each is told as its page tells it. Below it stands *where it holds*: for which kernels, which
processes, which seeds. Then *how it is known*. And then the tests that try to break it. Such a test is an opponent: it
looks for an instance on which the sentence is false, and it fails when it finds one.

A search that finds nothing may be a search that cannot find anything. So most of the searches are also run against
sentences that are false, several of which stood in earlier versions of this book. There they must find the instance
that refutes them.

You can be such an opponent. Run a test with `pytest tests/notebooks/test_claims_contraction.py -k TestEquality`, or
write a better one. Where a notebook is named in the place of a file of tests, it is a cell of that notebook whose
numbers are compared each time. If your test finds something, the sentence goes.
"""


def notebook(entry_page):
    """Return the notebook of a page."""
    return nbformat.read(ROOT / "book" / f"{entry_page}.ipynb", as_version=4)


def chapters():
    """Return the stems of the notebooks of the table of contents, in reading order."""
    files = [ROOT / file for file in toc_files()[1:]]
    return [file.name for file in files if file.with_suffix(".ipynb").exists() and file.name != "instructors"]


def markdown(page):
    """Return the text of a page, cell by cell: (id, Markdown)."""
    return [(cell.id, cell.source) for cell in notebook(page).cells if cell.cell_type == "markdown"]


def captions(page):
    """Return the captions of the figures of a page: (id, text)."""
    cells = [cell for cell in notebook(page).cells if "figure" in cell.metadata.get("mystnb", {})]
    return [(cell.id, cell.metadata["mystnb"]["figure"]["caption"]) for cell in cells]


def title(page):
    """Return the title of a page."""
    return re.search(r"^# (.+)$", markdown(page)[0][1], re.MULTILINE)[1]


def bullets(page):
    """Return what the summary of a page lists, in order, each on one line; nothing where there is no summary."""
    sections = re.findall(r"^##+ Summary\n(.*?)(?=^#|\Z)", joined(text for _, text in markdown(page)), re.M | re.S)
    return [plain(item) for text in sections for item in re.findall(r"^- (.*(?:\n  +\S.*)*)", text, re.MULTILINE)]


def plain(text):
    """Return a text with single blanks and without its links to the glossary."""
    return " ".join(re.sub(r"\{term\}`(?:([^`<]+?)\s*<[^`]*>|([^`<]+))`", r"\1\2", text).split())


def checked_cells():
    """Return the cells that fail the suite when their numbers change: notebook::cell."""
    return {
        f"book/{page}.ipynb::{cell.id}"
        for page in chapters()
        for cell in notebook(page).cells
        if cell.cell_type == "code"
        and (
            "nbval-check-output" in cell.metadata.get("tags", []) or re.search(r"^ *assert ", cell.source, re.MULTILINE)
        )
    }


def readings(page):
    """Return what a page says in its own voice: (id, text), without theorems, proofs, exercises, code and equations."""
    return [*zip(*prose(markdown(page)), strict=True), *captions(page)]


def prose(cells, closed=CLOSED):
    """Return the ids and the texts of cells without what stands in closed directives, gated ones among them."""
    ids, texts, gate, fences = [], [], False, []
    for cell, text in cells:
        kept = []
        for line in re.sub(r"\$\$.*?\$\$(?:[ \t]*\([^)\s]+\))?", "", text, flags=re.DOTALL).split("\n"):
            mark, name = re.fullmatch(r"\s*(`{3,}|:{3,}|)(?:\{([\w:-]+)\})?.*", line).groups()
            if name and name.endswith(("-start", "-end")):
                gate = name.endswith("-start")
                fences.append((mark, True))
            elif mark and fences and not name and line.strip() == fences[-1][0]:
                fences.pop()
            elif mark:
                fences.append((mark, name is None or name.startswith(closed)))
            elif not gate and not any(shut for _, shut in fences):
                kept.append("" if re.match(r"\s*[|#:]|    |\([^)\s]+\)=", line) else line)
        ids.append(cell)
        texts.append("\n".join(kept))
    return ids, texts


def sentences(text):
    """Return the sentences of a text, each on one line."""
    paragraphs = re.split(r"\n\s*\n|\n(?=- |\d+\. )", text)
    return [
        sentence
        for paragraph in paragraphs
        for sentence in re.split(
            r"(?<=[.?!])[*)”]*\s+(?=[A-Z$*{(\\])", plain(re.sub(r"^(- |\d+\. )", "", paragraph.strip()))
        )
        if sentence
    ]


def uncovered(entries, pages=None):
    """Return the readings with a strong word that no entry covers: (page, cell, sentence)."""
    covered = joined(plain(entry["claim"]) for entry in entries)
    return [
        (page, cell, sentence)
        for page in pages or chapters()
        for cell, text in readings(page)
        for sentence in sentences(text)
        if STRONG.search(sentence) and not sentence.endswith(("?", "?**")) and sentence not in covered
    ]


def faults(entries, *, tests, labels):
    """Return what is wrong with the entries, one line each; `labels` holds the labels of each page."""
    found = [
        f"{entry.get('id')}: fields {sorted((set(entry) - {'tests'}) ^ FIELDS)}"
        for entry in entries
        if set(entry) - {"tests"} != FIELDS
    ]
    if found:
        return found
    names = [entry["id"] for entry in entries]
    found += [f"{name}: listed twice" for name in sorted({name for name in names if names.count(name) > 1})]
    for page in labels:
        own = [entry for entry in entries if entry["page"] == page]
        claims, listed = [plain(entry["claim"]) for entry in own], bullets(page)
        found += [f"{page}: no entry for the bullet: {bullet}" for bullet in listed if bullet not in claims]
        text = plain(joined([*(text for _, text in markdown(page)), *(text for _, text in captions(page))]))
        found += [
            f"{entry['id']}: not on {page}: {entry['claim']}"
            for entry, claim in zip(own, claims, strict=True)
            if claim not in text
        ]
        found += [
            f"{entry['id']}: {page} has no label {entry['where']}"
            for entry in own
            if entry["where"] not in labels[page]
        ]
    for entry in entries:
        name, known, named = entry["id"], entry["known"], entry.get("tests", [])
        if entry["page"] not in labels:
            found.append(f"{name}: no page {entry['page']}")
        found += [f"{name}: known by {kind}" for kind in known if kind not in KNOWN]
        if set(known) & set(ATTACKED) and not named:
            found.append(f"{name}: no test attacks it")
        if not known:
            found.append(f"{name}: not said how it is known")
        if "opinion" in known and named:
            found.append(f"{name}: an opinion, and a test attacks it")
        if "opinion" in known and len(known) > 1:
            found.append(f"{name}: an opinion, and known otherwise")
        found += [f"{name}: no test {test}" for test in named if test not in tests]
    return found


def attackers(tests):
    """Return how the page writes tests: those of one file together."""
    files = dict.fromkeys(test.split("::")[0] for test in tests)
    return "; ".join(test_names(file, [test for test in tests if test.startswith(f"{file}::")]) for file in files)


def entry_block(entry):
    """Return one claim: anchor, sentence and badges, then scope, then how it is known, then what attacks it."""
    head = " ".join([entry["claim"], *(badge(KNOWN, kind) for kind in entry["known"])])
    lines = [f"*Where it holds.* {entry['scope']}", f"*How it is known.* {entry['how']}"]
    if entry.get("tests"):
        lines.append(f"*What would refute it.* {attackers(entry['tests'])}")
    lines[-1] += f" ({link(entry['where'])})"
    return block(f"claim-{entry['id']}", head, lines)


def page(entries):
    """Return the text of the page."""
    blocks = [INTRODUCTION, f"There are {len(entries)} entries; one may be known in more than one way."]
    blocks.append(counts("Known by", KNOWN, lambda kind: [entry for entry in entries if kind in entry["known"]]))
    for stem in dict.fromkeys(entry["page"] for entry in entries):
        blocks.append(f"## {title(stem)}")
        blocks += [entry_block(entry) for entry in entries if entry["page"] == stem]
    return joined(blocks)


if __name__ == "__main__":
    if sys.argv[1:] == ["scan"]:
        print("\n".join(f"{page} · {cell}: {sentence}" for page, cell, sentence in uncovered(load(SOURCE))))
    else:
        PAGE.write_text(page(load(SOURCE)), encoding="utf-8")
