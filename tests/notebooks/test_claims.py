"""The ledger of our own claims: whole, to the letter, and attacked by tests that exist and run.

The attacks themselves are in test_claims_<chapter>.py, one file for each chapter.
"""

import ast
import copy
import itertools
import re
import subprocess
import sys

import ledger
import pytest

from tests import pages
from tests.attacks import attack, counterexample
from tests.waiting import PATIENCE
from tools import claims

ENTRIES = ledger.load(claims.SOURCE)
LABELS = {stem: set(pages.labels(pages.BOOK / f"{stem}.ipynb")) for stem in claims.chapters()}
TESTS = ledger.tests_in() | claims.checked_cells()
ATTACKS = sorted(path.relative_to(pages.ROOT).as_posix() for path in (pages.ROOT / "tests").rglob("test_claims_*.py"))


def faults(entries, *, tests=TESTS):
    return claims.faults(entries, tests=tests, labels=LABELS)


def spoiled(name, **changes):
    """Return the entries with one of them changed, or, with a field None, without that field."""
    entries = copy.deepcopy(ENTRIES)
    for entry in entries:
        if entry["id"] == name:
            entry.update(changes)
            for field in [field for field, value in changes.items() if value is None]:
                del entry[field]
    return entries


class TestLedgerOfClaims:
    """Every bullet of every summary has an entry, each entry is on its page, and what it names is there."""

    def test_no_faults(self):
        pages.none(faults(ENTRIES), "book/claims.yml")

    def test_page_is_what_the_generator_makes(self):
        assert claims.page(ENTRIES) == claims.PAGE.read_text(encoding="utf-8"), "run: python tools/claims.py"

    def test_every_summary_is_seen(self):
        """The numbered chapters have one, and nothing that looks like a bullet of it is overlooked."""
        for path in pages.NUMBERED:
            text = re.split(r"^#+ ", pages.markdown(path).split("# Summary\n")[1], maxsplit=1, flags=re.M)[0]
            assert len(claims.bullets(path.stem)) == len(re.findall(r"^\s*[-*+] ", text, re.MULTILINE)) >= 3

    def test_the_entries_stand_in_the_order_of_the_book(self):
        order = [claims.chapters().index(entry["page"]) for entry in ENTRIES]
        assert order == sorted(order)

    @pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["id"])
    def test_text(self, entry):
        for field in ("claim", "scope", "how"):
            text = entry[field]
            assert text == text.strip() and "\n" not in text and text.count("$") % 2 == 0
            assert text.endswith((".", ":", ".)"))

    def test_what_has_no_control_says_so(self):
        """An experiment says what its control is, or that there is none."""
        for entry in ENTRIES:
            if "experiment" in entry["known"]:
                assert "control" in entry["how"], entry["id"]


def belongs(item, test):
    """Say whether the id of an item of pytest is of a test as an entry names it."""
    return item.startswith(test) and item[len(test) :][:1] in ("", ":", "[")


KEPT = ("skip", "skipif", "xfail", "nightly")


@pytest.fixture(scope="module")
def collected(request):
    """Return every test that pytest would run of the named ones, with the marks that would keep it from running.

    A run of all the tests knows; a run of fewer asks pytest again.
    """
    named = sorted({test for entry in ENTRIES for test in entry.get("tests", []) if test.startswith("tests/")})
    here = [[item.nodeid, *(m.name for m in item.iter_markers() if m.name in KEPT)] for item in request.session.items]
    if all(any(belongs(item[0], test) for item in here) for test in named):
        return named, here
    program = (
        "import sys, pytest\n"
        "class Seen:\n"
        "    def pytest_collection_modifyitems(self, items):\n"
        "        for item in items:\n"
        f"            kept = [m.name for m in item.iter_markers() if m.name in {KEPT}]\n"
        "            print('SEEN', item.nodeid, *kept)\n"
        "options = ['--collect-only', '-q', '-p', 'no:cacheprovider']\n"
        "sys.exit(pytest.main([*options, *sys.argv[1:]], plugins=[Seen()]))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, *named], cwd=pages.ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    return named, [line.split()[1:] for line in run.stdout.splitlines() if line.startswith("SEEN ")]


class TestAttacks:
    """What is named is collected and run, and every attack belongs to an entry."""

    def test_each_is_collected_and_none_is_skipped(self, collected):
        named, items = collected
        for test in named:
            own = [item for item in items if belongs(item[0], test)]
            assert own, test
            assert [item for item in own if len(item) > 1 or item[0].endswith("[NOTSET]")] == []

    def test_no_attack_is_left_without_an_entry(self):
        named = {test for entry in ENTRIES for test in entry.get("tests", [])}
        own = [test for test in TESTS if test.split("::")[0] in ATTACKS]
        lonely = [
            test
            for test in own
            if not test.endswith("_of_the_package")
            and not any(test == name or test.startswith(name + "::") for name in named)
            and not any(name.startswith(test + "::") for name in named)
        ]
        pages.none(sorted(lonely), "attacks that no entry names")

    def test_an_attack_never_skips(self):
        for file in ATTACKS:
            text = (pages.ROOT / file).read_text(encoding="utf-8")
            assert not re.search(r"pytest\.(skip|xfail|importorskip)|mark\.(skip|xfail)", text), file

    def test_wrong_claims_are_planted(self):
        """The attacks write down more than fifty wrong versions, each of which they must refute."""
        calls = [
            node
            for file in ATTACKS
            for node in ast.walk(ast.parse((pages.ROOT / file).read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "attack"
        ]
        assert len(calls) >= 30
        assert sum(len(call.args[2].keys) for call in calls if isinstance(call.args[2], ast.Dict)) > 50


class TestAttackItself:
    """A claim that a case refutes fails; so does an attack that spares what is wrong, or that has no case."""

    def test_true_and_false(self):
        attack(range(1, 6), lambda n: n < 6, {"below five": lambda n: n < 5})
        with pytest.raises(AssertionError, match="the claim is false: 5"):
            attack(range(1, 6), lambda n: n < 5, {"below four": lambda n: n < 4})

    def test_too_weak(self):
        with pytest.raises(AssertionError, match="nothing refutes 'below six'"):
            attack(range(1, 6), lambda n: n < 7, {"below six": lambda n: n < 6})

    @pytest.mark.parametrize(("cases", "wrong"), [([], {"none": lambda n: False}), ([1], {})])
    def test_nothing_to_attack(self, cases, wrong):
        with pytest.raises(AssertionError, match="an attack needs cases"):
            attack(cases, lambda n: True, wrong)

    def test_counterexample(self):
        assert counterexample(lambda n: n != 3, itertools.count()) == 3
        assert counterexample(lambda n: True, range(3)) is None


class TestFaultsOfClaims:
    """What is checked is caught when it is broken."""

    FIRST = ENTRIES[0]["id"]

    def test_a_bullet_without_an_entry(self):
        bullet = ENTRIES[0]["claim"]
        assert f"bellman: no entry for the bullet: {bullet}" in faults(ENTRIES[1:])

    @pytest.mark.parametrize("old", ["discounted", "{eq}`eq-q-policy`", "$Q^*$"])
    def test_a_text_that_is_not_the_page_s(self, old):
        claim = ENTRIES[0]["claim"].replace(old, "other", 1)
        found = faults(spoiled(self.FIRST, claim=claim))
        assert f"{self.FIRST}: not on bellman: {claim}" in found
        assert any(line.startswith("bellman: no entry for the bullet: ") for line in found)

    @pytest.mark.parametrize(
        ("changes", "fault"),
        [
            ({"scope": None}, "{}: fields ['scope']"),
            ({"verdict": "right"}, "{}: fields ['verdict']"),
            ({"where": "thm-nowhere"}, "{}: bellman has no label thm-nowhere"),
            ({"where": "thm-singular"}, "{}: bellman has no label thm-singular"),
            ({"page": "poetry"}, "{}: no page poetry"),
            ({"known": ["hearsay"]}, "{}: known by hearsay"),
            ({"known": []}, "{}: not said how it is known"),
            ({"tests": None}, "{}: no test attacks it"),
            ({"known": ["opinion"]}, "{}: an opinion, and a test attacks it"),
            ({"known": ["opinion", "proof"]}, "{}: an opinion, and known otherwise"),
            (
                {"tests": ["tests/notebooks/test_claims_bellman.py::test_x"]},
                "{}: no test tests/notebooks/test_claims_bellman.py::test_x",
            ),
            ({"tests": ["book/bellman.ipynb::setup"]}, "{}: no test book/bellman.ipynb::setup"),
            ({"id": ENTRIES[1]["id"]}, f"{ENTRIES[1]['id']}: listed twice"),
        ],
    )
    def test_entry(self, changes, fault):
        assert fault.format(self.FIRST) in faults(spoiled(self.FIRST, **changes))

    def test_a_renamed_test(self):
        test = ENTRIES[0]["tests"][0]
        assert f"{self.FIRST}: no test {test}" in faults(ENTRIES, tests=TESTS - {test})


class TestScan:
    """The list of readings with a strong word and without an entry."""

    def test_words(self):
        said = [
            "It is so because of a.",
            "It never falls.",
            "That decides it.",
            "What stood in the way was a.",
            "It needs a.",
        ]
        unsaid = ["It is so.", "Nevertheless it falls.", "A decided case.", "The needle."]
        assert all(map(claims.STRONG.search, said))
        assert not any(map(claims.STRONG.search, unsaid))

    def test_finds_what_no_entry_covers(self):
        """Take an entry with such a word away, and its sentences are in the list; with it they are not."""
        entry = next(entry for entry in ENTRIES if entry["id"] == "ke-product")
        for entries, listed in ((ENTRIES, False), ([other for other in ENTRIES if other is not entry], True)):
            found = [sentence for _, _, sentence in claims.uncovered(entries, ["key_equation"])]
            assert ("Only the product $\\alpha K D_\\rho$ enters." in found) == listed

    def test_what_is_no_reading(self):
        """Theorems, proofs, exercises, code and equations are left out; admonitions and captions are not."""
        cells = [
            ("a", "It never is.\n\n```{prf:theorem}\n:label: thm-a\nNever.\n```\n\n$$\nonly\n$$ (eq-a)\n"),
            ("b", "```{admonition} The notes\n:class: warning\nAlways so.\n```\n\n    only = 1\n"),
            ("c", "```{exercise-start}\n:label: ex-a\n```\nOnly a task.\n```{exercise-end}\n```\nIt needs air."),
            ("d", "```{solution-start} ex-a\n```\nBecause."),
            ("e", "Only here.\n```{solution-end}\n```\n(If never.)"),
        ]
        found = [line for text in claims.prose(cells)[1] for line in text.split("\n") if line]
        assert found == ["It never is.", "Always so.", "It needs air.", "(If never.)"]

    def test_captions_are_read(self):
        seen = {text for _, text in claims.readings("heuristics")}
        assert any("The pair" in text or "the pair" in text for text in seen)
        assert {text for _, text in claims.captions("heuristics")} <= seen

    def test_sentences(self):
        text = "One is $a$. Two *is.* Three, e.g. b.\n\n- Four\n  goes on.\n- Five (six). Seven?"
        assert claims.sentences(text) == [
            "One is $a$.",
            "Two *is.",
            "Three, e.g. b.",
            "Four goes on.",
            "Five (six).",
            "Seven?",
        ]

    def test_command(self):
        run = subprocess.run(
            [sys.executable, "tools/claims.py", "scan"],
            cwd=pages.ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert run.returncode == 0
        lines = run.stdout.splitlines()
        assert len(lines) == len(claims.uncovered(ENTRIES)) and " · " in lines[0]
