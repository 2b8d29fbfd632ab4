"""The corrections to the notes: make book/corrections.md of book/corrections.yml, and find faults in the latter."""

import re

from ledger import ROOT, badge, block, counts, is_test, joined, link, load, test_names

SOURCE = ROOT / "book" / "corrections.yml"
PAGE = ROOT / "book" / "corrections.md"
N_CLAIMS = 98
FIELDS = {"id", "where", "claim", "verdict", "truth"}
ABOUT = ("mathematics", "fact", "wording", "opinion")
VERDICTS = {
    "right": ("success", "It is true as it stands."),
    "right if": ("info", "It is true once a condition is added."),
    "slip": ("muted", "What is meant is true; a letter, an index or a name went wrong."),
    "wrong": ("danger", "It is false, or it does not follow."),
}

INTRODUCTION = """\
(ch-corrections)=
# Corrections to the notes

This book grew out of one reader's notes on the paper {cite}`achiam2019`. They are an honest first draft: the order of
the chapters is theirs, and without them there would be no book. A first draft has slips, and this page goes through it
claim by claim. Each claim is told in our words, with a verdict and with what is true. A verdict is about a sentence of
the notes, and not about the paper.

You need not have read the notes. The chapters argue with no text: where a reader may well think what the notes say, a
box says "You may think", and a link in the margin leads to the claim on this page. Of the sentences of this book
itself, {ref}`ch-claims` gives the same account.

Read it with a pencil. Most of the errors here are errors that everybody makes once: $\\le$ for $<$, the index of the
row for that of the column, an absolute value on the wrong factor, a sufficient condition taken for a necessary one.

You need not believe a verdict. Below a claim stand the chapter, the equation or the theorem that belongs to it, and the
test that shows it. `TestC11` is the beginning of the name of a class in `tests/notebooks/test_corrections.py`. Its
first line is the true statement, and its tests are short: the version of the notes fails, the true one holds. Run them
with `pytest tests/notebooks/test_corrections.py -k TestC11`. Claims of fact, wording and opinion have no test. The
pair, the orbit, the calm and their like are small examples of the book; they live in
`divergence_notes.examples`.
"""


def claims_in(name):
    """Return the claims that the name of a class of tests stands for: TestC11C14... shows C11 and C14."""
    return re.findall(r"C\d+[a-e]?", re.match(r"Test((?:C\d+[a-e]?(?![a-z]))*)", name)[1])


def faults(entries, *, tests, labels):
    """Return what is wrong with the entries, one line each."""
    found = [
        f"{entry.get('id')}: fields {sorted(set(entry) ^ FIELDS)}"
        for entry in entries
        if set(entry) - {"about", "shown_by"} != FIELDS
    ]
    if found:
        return found
    numbers = [int(re.match(r"C(\d+)[a-e]?$", entry["id"])[1]) for entry in entries]
    found += [f"C{n}: no entry" for n in range(1, N_CLAIMS + 1) if n not in numbers]
    found += [f"C{n}: no such claim" for n in numbers if not 1 <= n <= N_CLAIMS]
    ids = [entry["id"] for entry in entries]
    found += [f"{claim}: listed twice" for claim in sorted({claim for claim in ids if ids.count(claim) > 1})]
    if numbers != sorted(numbers):
        found.append("the entries are not in order")
    for entry in entries:
        claim, shown_by = entry["id"], entry.get("shown_by", [])
        if entry["verdict"] not in VERDICTS:
            found.append(f"{claim}: verdict {entry['verdict']!r}")
        if entry.get("about", "mathematics") not in ABOUT:
            found.append(f"{claim}: about {entry['about']!r}")
        mathematical = entry["verdict"] == "right if" and "about" not in entry
        if (entry["verdict"] == "wrong" or mathematical) and not any(map(is_test, shown_by)):
            found.append(f"{claim}: {entry['verdict']}, and no test shows it")
        found += [f"{claim}: no test {name}" for name in shown_by if is_test(name) and name not in tests]
        found += [f"{claim}: no label {name}" for name in shown_by if not is_test(name) and name not in labels]
    named = {
        entry["id"]: {name.split("::")[1] for name in entry.get("shown_by", []) if is_test(name)} for entry in entries
    }
    own = {test.split("::")[1] for test in tests if test.startswith("tests/notebooks/test_corrections.py::TestC")}
    for name in sorted(own):
        for claim in claims_in(name):
            split = [key for key in named if re.fullmatch(rf"{claim}[a-e]?", key)]
            if not any(name in named[key] for key in split):
                found.append(f"{claim}: {name} is not named")
    return found


def shown(entry):
    """Return the line with the labels and the tests of an entry."""
    references = entry.get("shown_by", [])
    labels = [link(name) for name in references if not is_test(name)]
    tests = [short(name) for name in filter(is_test, references)]
    return " · ".join(labels + tests)


def short(test):
    """Return how the page writes a test: TestC11C14 for a class of the corrections, else its name and its file."""
    file, name = test.split("::", 1)
    if file.endswith("/test_corrections.py"):
        return f"`Test{''.join(claims_in(name))}`"
    return test_names(file, [test])


def claim_block(entry):
    """Return one claim: anchor, number, verdict and claim, then what is true, then where it is shown."""
    head = f"**{entry['id']}** {badge(VERDICTS, entry['verdict'])} {entry['claim']}"
    return block(anchor(entry), head, filter(None, [entry["truth"], shown(entry)]))


def anchor(entry):
    """Return the label of a claim on the page."""
    return f"corr-{entry['id'].lower()}"


def page(entries):
    """Return the text of the page."""
    sections = list(dict.fromkeys(entry["where"] for entry in entries))
    total = f"There are {len(entries)} entries: the {N_CLAIMS} claims, some of them split."
    table = counts("Verdict", VERDICTS, lambda verdict: [e for e in entries if e["verdict"] == verdict])
    blocks = [INTRODUCTION, total, table]
    for section in sections:
        blocks.append(f"## {section}")
        blocks += [claim_block(entry) for entry in entries if entry["where"] == section]
    return joined(blocks)


if __name__ == "__main__":
    PAGE.write_text(page(load(SOURCE)), encoding="utf-8")
