"""The glossary: in order, each definition with the place where it is treated, each word linked at its first use."""

import itertools
import re

import nbformat
import pytest
from build_book import toc_files

from divergence_notes import probe
from tests import pages

GLOSSARY = pages.BOOK / "glossary.md"
LINKING = [path for path in pages.PAGES if path != GLOSSARY]
TERM = re.compile(r"\{term\}`(?:(?P<shown>[^`<]+?)\s*<(?P<target>[^`>]+)>|(?P<name>[^`<]+))`")
NO_PROSE = re.compile(
    "|".join(
        [
            r"\$\$.*?\$\$(?:[ \t]*\([^)\s]+\))?",  # display equations
            r"^:[\w-]+:[^\n]*$",  # options of a directive
            r"^#{1,6} [^\n]*$",  # headings
            r"^\|[^\n]*$",  # tables
            r"^\([^)\s]+\)=[ \t]*$",  # labels
            r"^ {4,}[^\n]*$",  # code that is set in
            r"\{[\w:-]+\}`[^`]+`",  # roles
            r"`[^`\n]+`",  # code in a line
            r"\$[^$]+\$",  # formulas
            r"\[[^\]\n]*\]\([^)\n]*\)",  # links
        ]
    ),
    re.MULTILINE | re.DOTALL,
)


def source(path):
    """Return the Markdown of a page; of a notebook without its first cell, the head, which announces what follows."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = pages.notebook(path).cells[1:]
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def prose(text):
    """Return the text with blanks for all that is not prose: every letter keeps its place."""
    lines, fences = [], []  # the fences of the directives and of the block of code that are open
    for line in text.split("\n"):
        mark, info = re.fullmatch(r"\s*(`{3,}|:{3,}|)(.*)", line).groups()
        closes = bool(mark and fences and not info.strip() and mark.startswith(fences[-1][0]))
        code = bool(fences and fences[-1][1])
        if closes:
            fences.pop()
        elif mark and not code:
            fences.append((mark, not re.match(r"\{(?!code|literalinclude|bibliography)", info)))
        lines.append(" " * len(line) if mark or code else line)
    return NO_PROSE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), "\n".join(lines))


def word(words, flags=0):
    """Return the pattern of a word, or words, or their plural."""
    spaced = r"\s+".join(map(re.escape, words.split()))
    return re.compile(rf"(?<![\w-]){spaced}s?(?![\w-])", flags)


def links(text):
    """Return the terms that a text links: (place, what the reader sees, the term)."""
    return [
        (found.start(), found["shown"] or found["name"], found["target"] or found["name"])
        for found in TERM.finditer(text)
    ]


def terms(text):
    """Return the glossary as pairs of a term and its definition."""
    body = re.search(r"^:::\{glossary\}\n(.*?)^:::$", text, re.MULTILINE | re.DOTALL)[1]
    return [
        (name, " ".join(line.strip() for line in lines.splitlines()))
        for name, lines in re.findall(r"^(\S[^\n]*)\n((?:[ \t]+\S[^\n]*\n)+)", body, re.MULTILINE)
    ]


def faults_of_glossary(entries):
    """Return what is wrong with the entries, one line each."""
    names = [name for name, _ in entries]
    found = [
        f"{after} stands after {before}"
        for before, after in itertools.pairwise(names)
        if before.casefold() >= after.casefold()
    ]
    for name, definition in entries:
        if not re.search(r"\{(?:ref|eq|numref|prf:ref)\}`[^`]+`", definition):
            found.append(f"{name}: no link to where it is treated")
        if "$$" in definition:
            found.append(f"{name}: a definition has no display equation")
        if re.search(r"\d[.,]?\d", NO_PROSE.sub("", definition)):
            found.append(f"{name}: a definition has no number of an experiment")
    return found


def faults_of_links(text):
    """Return what is wrong with the links of one page, one line each."""
    found, seen, plain = [], set(), prose(text)
    for place, shown, target in links(text):
        if target in seen:
            found.append(f"{target} is linked twice")
        seen.add(target)
        earlier = word(shown).search(plain, 0, place) or word(target, re.IGNORECASE).search(plain, 0, place)
        if earlier:
            around = " ".join(text[max(0, earlier.start() - 30) : earlier.end() + 30].split())
            found.append(f"{target} is linked after its first use: ...{around}...")
    return found


def unlinked(names, texts):
    """Return the names that no text links, and the links that name nothing."""
    linked = {target for text in texts for _, _, target in links(text)}
    return sorted(set(names) - linked), sorted(linked - set(names))


def not_indexed(text):
    """Return the titles of theorems, lemmas and algorithms that have no entry in the index right above them."""
    above = (
        r"^```\{index\} single: (?:theorems|algorithms); (?P=title)\n```\n\n`{3,}\{prf:(?:theorem|lemma|algorithm)\} "
    )
    titles = re.findall(r"^`{3,}\{prf:(?:theorem|lemma|algorithm)\} *(.*)$", text, re.MULTILINE)
    return [
        title for title in titles if not re.search(above.replace("(?P=title)", re.escape(title)), text, re.MULTILINE)
    ]


def test_glossary():
    entries = terms(GLOSSARY.read_text(encoding="utf-8"))
    assert len(entries) == len(re.findall(r"^\S", GLOSSARY.read_text("utf-8").split(":::{glossary}\n")[1], re.M)) - 1
    pages.none(faults_of_glossary(entries), "the glossary")


@pytest.mark.parametrize("path", LINKING, ids=lambda path: path.stem)
def test_links_stand_at_first_use(path):
    pages.none(faults_of_links(source(path)), path.name)


def test_every_term_is_linked():
    names = [name for name, _ in terms(GLOSSARY.read_text(encoding="utf-8"))]
    lonely, unknown = unlinked(names, map(source, LINKING))
    pages.none(lonely, "terms that no page links")
    pages.none(unknown, "links to no term")


WORDS_OF_COLUMNS = {
    "alarm": "alarm",
    "alignment": "alignment",
    "certificate": "certified",
    "churn": "value_churn action_churn",
    "divergence": "growth_rate",
    "dormant unit": "dormant dormant_layer",
    "effective rank": "effective_rank",
    "entropy bonus": "bonus",
    "feature": "feature_norm",
    "feature rank": "feature_rank",
    "greedy": "greedy_gap",
    "margin": "margin",
    "minibatch": "batch_dependence",
    "over-estimate": "overestimation",
    "return": "earned_low earned_high start_return start_sum",
    "reward": "reward_low reward_high reward_change",
    "reward bound": "possible_low possible_high bound bound_ratio",
    "row ratio": "row_ratio",
    "semi-gradient": "gradient_norm updates",
    "state": "input_size input_ratio",
    "target": "target_coupling",
    "target network": "renewed",
    "TD error": "td_error td_bias",
    "truncated": "episode_length same_length after_ends",
    "value": "max_q low_q high_q start_q",
    "weight": "weight_norm",
}
"""Under which word of the glossary each number of a record is explained."""


def test_every_number_of_a_record_has_its_word():
    names = [name for name, _ in terms(GLOSSARY.read_text(encoding="utf-8"))]
    columns = [column for columns in WORDS_OF_COLUMNS.values() for column in columns.split()]
    assert sorted(columns) == sorted(probe.NUMBERS)
    assert set(WORDS_OF_COLUMNS) <= set(names)


def test_heads_link_nothing():
    """The head of a chapter is not looked at above, so it must hold no link."""
    heads = [pages.notebook(path).cells[0].source for path in pages.NOTEBOOKS]
    assert [found for head in heads for found in links(head)] == []


@pytest.mark.parametrize("path", LINKING, ids=lambda path: path.stem)
def test_theorems_are_in_the_index(path):
    pages.none(not_indexed(source(path)), "give these an entry in the index, right above them")


def test_the_index_is_in_the_table_of_contents():
    """Sphinx writes genindex.html in the place of a page of that name, which must be there to be listed."""
    assert toc_files()[-1] == "genindex"
    assert (pages.ROOT / "genindex.md").read_text(encoding="utf-8").startswith("# Index\n")


class TestFaultsOfTheGlossary:
    """Each check finds what it is for."""

    GOOD = """# Glossary

:::{glossary}
agent
  Who acts.
  See {ref}`ch-a`.

Value
  Worth, {eq}`eq-a`.
:::
"""

    def test_reads_entries(self):
        assert terms(self.GOOD) == [("agent", "Who acts. See {ref}`ch-a`."), ("Value", "Worth, {eq}`eq-a`.")]
        assert faults_of_glossary(terms(self.GOOD)) == []

    @pytest.mark.parametrize(
        ("old", "new", "fault"),
        [
            ("Value", "action", "action stands after agent"),
            ("Value", "Agent", "Agent stands after agent"),
            ("See {ref}`ch-a`.", "See above.", "agent: no link to where it is treated"),
            ("Who", "Who $$a$$", "agent: a definition has no display equation"),
            ("Who", "0.25 of those who", "agent: a definition has no number of an experiment"),
        ],
    )
    def test_finds_faults_of_the_glossary(self, old, new, fault):
        assert faults_of_glossary(terms(self.GOOD.replace(old, new))) == [fault]

    @pytest.mark.parametrize(
        ("text", "faults"),
        [
            ("An {term}`agent` acts. The agent waits.", []),
            ("# The agent\n\n$agent$ `agent` {ref}`agent <a>` [agent](a)\n\n| agent |\n\nAn {term}`agent`", []),
            ("```{note} The agent\n:name: agent\nAn {term}`agent`\n```", []),
            ("```{note}\n```\n```\nagent\n```\n\n$$\nagent\n$$ (eq-agent)\n\n    agent\n\nAn {term}`agent`", []),
            ("reagent, multi-agent: an {term}`agent`", []),
            ("A {term}`TD error` and an {term}`error in time <TD error>`", ["TD error is linked twice"]),
            (
                "The agents act. {term}`agent`",
                ["agent is linked after its first use: ...The agents act. {term}`agent`..."],
            ),
            (
                "*TD\nerror*: {term}`TD error`",
                ["TD error is linked after its first use: ...*TD error*: {term}`TD error`..."],
            ),
            (
                "Acts, acts: it {term}`acts <action>`",
                ["action is linked after its first use: ...Acts, acts: it {term}`acts <action>`..."],
            ),
            (
                "```{note}\nAgent\n```\n{term}`It <agent>`",
                ["agent is linked after its first use: ...```{note} Agent ``` {term}`It <agent>`..."],
            ),
        ],
    )
    def test_finds_links_that_stand_too_late(self, text, faults):
        assert faults_of_links(text) == faults

    def test_finds_terms_without_links_and_links_without_terms(self):
        assert unlinked(["agent", "state"], ["{term}`agent`", "{term}`it <action>`"]) == (["state"], ["action"])

    @pytest.mark.parametrize(
        ("text", "missing"),
        [
            ("```{index} single: theorems; Some norm\n```\n\n````{prf:theorem} Some norm\n", []),
            ("```{prf:theorem} Some norm\n", ["Some norm"]),
            ("```{index} single: theorems; Banach\n```\n\n```{prf:theorem} Some norm\n", ["Some norm"]),
            ("```{prf:lemma}\n", [""]),
        ],
    )
    def test_finds_theorems_that_the_index_lacks(self, text, missing):
        assert not_indexed(text) == missing

    def test_skips_the_head_of_a_notebook(self, tmp_path):
        cells = [nbformat.v4.new_markdown_cell(text) for text in ("# Agents\n\nThe agent.", "An {term}`agent`.")]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
        assert faults_of_links(source(tmp_path / "a.ipynb")) == []
