"""How long a page takes: the rule of CONTRIBUTING, counted on small notebooks, and what the heads say of themselves."""

from typing import ClassVar

import nbformat
import pytest
import reading_time
from reading_time import Amount

from tests import pages

new = nbformat.v4


def code(*tags, **metadata):
    """Return a code cell."""
    return new.new_code_cell("x = 1", metadata={"tags": list(tags)} | metadata)


def text(*lines):
    """Return a cell of Markdown."""
    return new.new_markdown_cell("\n".join(lines))


CASES = {
    "words": ([text("# Five words", "", "or so, with $x$.")], Amount(words=4)),
    "a proof is read": ([text("```{prf:proof}", "Two words.", "```")], Amount(words=2)),
    "a misconception too": (
        [text("````{admonition} You may think", ":class: a", "Two words.", "````")],
        Amount(words=2),
    ),
    "a fold as well": ([text("```{admonition} More", ":class: dropdown", "Two words.", "```")], Amount(words=2)),
    "and what follows a bet": (
        [
            text("```{exercise} A", ":label: ex-a-prediction", "", "Which?", "```"),
            text("Two words."),
            text(":::{div} bet-end", ":::"),
        ],
        Amount(words=2, bets=1),
    ),
    "code in a fence is not": ([text("```python", "x = 1", "```")], Amount()),
    "an equation with a number": ([text("$$", "x = 1", "$$ (eq-x)")], Amount(shown=1)),
    "one without": ([text("$$", "x = 1", "$$")], Amount()),
    "open code": ([code()], Amount(open=1)),
    "checked code is open": ([code("nbval-check-output")], Amount(open=1)),
    "folded code": ([code("hide-input")], Amount(shown=1)),
    "code of ours": ([code("remove-cell")], Amount()),
    "a caption": (
        [code("hide-input", mystnb={"figure": {"name": "fig-x", "caption": "Three little words."}})],
        Amount(words=3, shown=1),
    ),
    "a bet": ([text("```{exercise} Your prediction", ":label: ex-a-prediction", "", "Which?", "```")], Amount(bets=1)),
    "an exercise": (
        [text("```{exercise} Do it (easy)", ":label: ex-a", "", "Do it.", "```")],
        Amount(exercises=1, work=10),
    ),
    "an exercise with cells and its solution": (
        [
            text(
                "```{exercise-start} Do it (pencil, hard)", ":label: ex-a", "```", "Do it.", "```{exercise-end}", "```"
            ),
            text("```{solution-start} ex-a", "```", "So."),
            code(),
            text("```{solution-end}", "```", "After."),
        ],
        Amount(words=1, exercises=1, work=40),
    ),
}


@pytest.mark.parametrize(("cells", "want"), CASES.values(), ids=CASES)
def test_what_a_reader_meets(cells, want):
    assert reading_time.amount(cells) == want


@pytest.mark.parametrize(
    ("title", "minutes"),
    [
        ("Shift (easy)", 10),
        ("Shift (medium)", 20),
        ("Shift (hard)", 40),
        ("Shift (pencil, easy)", 10),
        ("Build (an example) (hard)", 40),
        ("", 20),
        ("Not so easy", 20),
        ("(easy) to say", 20),
    ],
)
def test_the_mark_of_an_exercise(title, minutes):
    assert reading_time.minutes_of(title) == minutes


def test_the_rule():
    assert Amount(words=300, open=3, shown=4, bets=1).reading == 300 / 150 + 3 + 4 / 2 + 2


def test_contributing_says_the_rule():
    text = " ".join((pages.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
    rule = (
        f"a minute for {reading_time.WORDS_A_MINUTE} words, one for an open code cell, half of one for a figure, "
        "for what a folded cell shows, and for an equation with a number, and two for a bet"
    )
    assert rule in text
    assert reading_time.MINUTES == {"open": 1, "shown": 0.5, "bets": 2}
    easy, medium, hard = reading_time.MARKS.values()
    assert f"an exercise {easy}, {medium} or {hard} minutes by its mark, easy, medium or hard" in text


def test_sections_add_up():
    cells = [
        text("(ch-a)=", "# A", "", "Head."),
        text("One.", "", "(sec-b)=", "## []{#old}B", "", "Two words."),
        code(),
        text("### C", "", "```{exercise} Do it", ":label: ex-a", "```"),
    ]
    found = reading_time.sections(new.new_notebook(cells=cells))
    assert [(label, title) for label, title, _ in found] == [("", ""), ("sec-b", "B"), ("", "C")]
    assert [each.words for _, _, each in found] == [2, 2, 0]
    assert sum((each for _, _, each in found), Amount()) == reading_time.amount(cells)


@pytest.mark.parametrize("path", reading_time.timed(), ids=lambda path: path.stem)
def test_sections_of_a_chapter_add_up(path):
    notebook = pages.notebook(path)
    parts = sum((each for _, _, each in reading_time.sections(notebook)), Amount())
    assert parts == reading_time.amount(notebook.cells)


class TestHeads:
    """What a head says of the minutes, and how it is brought up to date."""

    FOUND = Amount(words=9000, exercises=2, work=40)  # 60 minutes to read

    @pytest.mark.parametrize(
        ("head", "stale"),
        [
            ("About 60 minutes to read, and 40 for the exercises; a minute to run.", False),
            ("About 65 minutes to read, and 35 for the exercises; a minute to run.", False),
            ("About 70 minutes to read, and 40 for the exercises; a minute to run.", True),
            ("About 60 minutes to read, and 30 for the exercises; a minute to run.", True),
            ("About 60 minutes to read; a minute to run.", True),
            ("An hour to read with the exercises; a minute to run.", True),
        ],
    )
    def test_stale(self, head, stale):
        assert reading_time.stale(f"# A\n\n{head}", self.FOUND) is stale

    def test_is_written_as_it_is_read(self):
        for found in (self.FOUND, Amount(words=3), Amount(words=700)):
            assert not reading_time.stale(f"# A\n\n{reading_time.said(found)}; a minute to run.", found)

    def test_write(self, tmp_path, monkeypatch):
        (tmp_path / "book").mkdir()
        names = ["book/old", "book/none", "book/plan"]
        heads = ["(ch-a)=\n# A\n\nAn hour to read with the exercises; a minute to run.", "# A\n\nNothing."]
        plan = f"# Plan\n\n{self.PLAN}\nAfter."
        for name, head in zip(names, heads, strict=False):
            nbformat.write(new.new_notebook(cells=[text(head), text(*["word"] * 3000)]), tmp_path / f"{name}.ipynb")
        (tmp_path / "book" / "plan.md").write_text(plan)
        monkeypatch.setattr(reading_time, "ROOT", tmp_path)
        monkeypatch.setattr(reading_time, "toc_files", lambda: names)
        assert reading_time.write() == ["old", "plan"]
        assert reading_time.write() == []
        old, none = (nbformat.read(tmp_path / f"{name}.ipynb", 4).cells[0].source for name in names[:2])
        assert old == "(ch-a)=\n# A\n\nAbout 20 minutes to read; a minute to run."
        assert none == heads[1]
        assert "| {ref}`ch-a` | 20 | x |\n" in (tmp_path / "book" / "plan.md").read_text()

    PLAN = """| read | minutes to read | why |
|---|---|---|
| {ref}`ch-a` | ? | x |
"""
    KNOWN: ClassVar = {"ch-a": Amount(words=3000), "ch-b": Amount(words=7500, work=30), "sec-c": Amount(words=450)}
    KNOWN["b.ipynb#the-end"] = Amount(words=600)

    @pytest.mark.parametrize(
        ("read", "minutes"),
        [
            ("{ref}`ch-a`", 20),
            ("{ref}`ch-a`, {ref}`ch-b`", 70),
            ("first half of {ref}`ch-b`", 25),
            ("{ref}`the end <sec-c>`", 3),
            ("[the end](b.ipynb#the-end), {ref}`sec-c`", 7),
            ("{ref}`corr-c1`", 0),
        ],
    )
    def test_a_row_of_a_plan(self, read, minutes):
        plan = self.PLAN.replace("{ref}`ch-a`", read)
        done, worst = reading_time.timetables(plan, self.KNOWN)
        assert done == plan.replace("?", str(minutes))
        assert worst == float("inf")
        assert reading_time.timetables(done, self.KNOWN) == (done, 0)
        assert reading_time.timetables(plan.replace("?", str(minutes + 9)), self.KNOWN) == (done, 9)

    def test_a_link_to_no_section(self):
        with pytest.raises(KeyError, match="the-start"):
            reading_time.timetables(self.PLAN.replace("{ref}`ch-a`", "[x](b.ipynb#the-start)"), self.KNOWN)

    def test_a_table_without_minutes_is_left_alone(self):
        plan = self.PLAN.replace("minutes to read", "minutes")
        assert reading_time.timetables(plan, self.KNOWN) == (plan, 0)


def test_the_chapters_say_how_long_they_take():
    assert {*pages.NUMBERED, *pages.APPENDIX} <= set(reading_time.timed())


@pytest.mark.parametrize("path", reading_time.timed(), ids=lambda path: path.stem)
def test_heads_are_up_to_date(path):
    notebook = pages.notebook(path)
    found = reading_time.amount(notebook.cells)
    advice = f"it is: {reading_time.said(found)}. Run tools/reading_time.py write"
    assert not reading_time.stale(notebook.cells[0].source, found), advice


def test_plans_are_up_to_date():
    known, seen = reading_time.amounts(), set()
    for path in pages.PAGES:
        for cell in reading_time.source(path).cells:
            tables = [table for table in reading_time.TABLE.finditer(cell.source) if reading_time.columns(table)]
            if any(set(reading_time.COLUMNS) & reading_time.columns(table) for table in tables):
                _, off = reading_time.timetables(cell.source, known)
                assert off <= reading_time.STEP, f"{path.stem}: run tools/reading_time.py write"
                seen.add(path.stem)
    assert seen == {"index", "instructors", "students"}


def test_the_way_of_thirty_minutes():
    """Six stops, as the first page says, and about half an hour by the rule."""
    text = pages.markdown(pages.BOOK / "index.ipynb").split("## Thirty minutes\n")[1].split("\n## ")[0]
    (table,) = reading_time.TABLE.finditer(text)
    stops = table[0].strip().split("\n")[2:]
    minutes = [reading_time.of_row(stop, "reading", reading_time.amounts())[0] for stop in stops]
    assert len(stops) == 6 and 25 <= sum(minutes) <= 35
