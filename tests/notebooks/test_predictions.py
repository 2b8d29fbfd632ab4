"""The bets of the first page and of chapters 1 to 3: what counts as right, and each reason, is what was computed."""

import itertools
import math
import re

import numpy as np
import pytest
import torch

from divergence_notes import dynamics, examples, networks, studies
from divergence_notes.grading import check, find
from tests import pages
from tests.pages import printed_by

CHAPTERS = ("index", "bellman", "function_approximation", "key_equation")
BETS = sorted(
    label
    for chapter in CHAPTERS
    for label in pages.labels(pages.BOOK / f"{chapter}.ipynb")
    if label.endswith("-prediction")
)


def number(pattern, text):
    """Return the one number that a pattern finds."""
    (found,) = re.findall(pattern, text, re.M)
    return float(found)


def slower_pair():
    """Count the paths of the first page's third picture that run off with a tenth of the step size."""
    from dataclasses import replace

    example, portrait = examples.cover()[2]
    slow = replace(example.update, alpha=example.update.alpha / 10)
    starts = [path.values[0] for path in portrait.paths]
    return sum(dynamics.iterate(slow, start, max_iter=2000, bound=1e3).status == "diverged" for start in starts)


def ahead_of_the_trained():
    """Return which states of the grid move further than the trained one, by the slopes of autograd: 8 by 8."""
    grid = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij"), -1).reshape(64, 2)
    new = {"generator": torch.Generator().manual_seed(0), "dtype": torch.float64}
    net = networks.MLP([2, 32, 1], activation="relu", **new)
    values = net(grid.double() / 3.5 - 1).ravel()
    slopes = [torch.autograd.grad(value, list(net.parameters()), retain_graph=True) for value in values]
    phi = np.array([np.concatenate([part.ravel().numpy() for part in each]) for each in slopes])
    shares = phi @ phi[27]
    return (shares > shares[27] * (1 + 1e-9)).reshape(8, 8)


def legs_of_what_diverges():
    """Return the legs that are on in each of the forty runs that leaves every bound."""
    cast = [
        *(examples.w_to_2w(), examples.w_to_2w(weights=(0.5, 0.5)), examples.baird_star(), examples.baird_control()),
        examples.full_data_divergence(),
    ]
    always, diverged = {"F", "B", "O"}, 0
    for example, switches in itertools.product(cast, itertools.product((False, True), repeat=3)):
        on = dict(zip(("approximation", "bootstrapping", "off_policy"), switches, strict=True))
        operator = examples.triad_operator(example.update, **on)
        if dynamics.iterate(operator, example.Q0, max_iter=1200, bound=1e6).status == "diverged":
            always &= {letter for letter, is_on in zip("FBO", switches, strict=True) if is_on}
            diverged += 1
    assert diverged == 5
    return always


def rates():
    """Return what the error of the endless game does, in the words of the bet."""
    figure = next(each for each in pages.code_cells(pages.BOOK / "bellman.ipynb") if each.id == "rate-check")
    assert "slack if mdp is endless else rate < gamma - 0.01" in figure.source  # what the chapter itself asserts
    return "the game that never ends"


def lake_settles(gamma):
    """Return the sweep at which the arrows of the lake are right for good, and that at which its numbers are."""
    (found,) = re.findall(rf"^{gamma} +(\d+) +(\d+) ", printed_by("bellman", "watch-numbers"), re.M)
    return tuple(map(int, found))


def pair_paths():
    """Count the starts whose path comes near the star, written out without the package's `iterate`."""
    K, rho = np.array([[9.0, 2.5], [2.5, 1.0]]), np.array([0.2, 0.8])
    ends = []
    for start in [(1, 0), (0, 1), (-1.4, 0.2), (-1.2, -0.6), (-0.6, -1.2)]:
        q = np.array(start, dtype=float)
        for _ in range(4000):
            q = q + 0.1 * K @ (rho * (0.9 * q.max() - q)) if abs(q).max() < 1e6 else q
        ends.append(abs(q).max())
    return sum(end < 0.1 for end in ends)


def soft():
    """Return the largest value in the batches: rows are steps, columns are runs."""
    return studies.load("soft_divergence").pivot_table("max_q", "step", ["target_network", "seed"])


COMPUTED = {
    "ex-index-prediction": slower_pair,
    "ex-bellman-prediction": lambda: number(r"^0\.99 +100 +(\d+) ", printed_by("bellman", "bet-answer")),
    "ex-bellman-rate-prediction": rates,
    "ex-bellman-lake-prediction": lambda: "the arrows" if lake_settles(0.99)[0] < lake_settles(0.99)[1] else "numbers",
    "ex-bellman-cliff-prediction": lambda: (
        "never visited"
        if number(r"can meet +(\S+)$", printed_by("bellman", "cliff-numbers")) == 0
        and number(r"in the other \d+ +(\S+)$", printed_by("bellman", "cliff-numbers")) > 1
        else "in all"
    ),
    "ex-bellman-fates-prediction": lambda: printed_by("bellman", "fates-numbers").count(" converged"),
    "ex-function-approximation-states-prediction": lambda: math.floor(84 * 84 * 4 * math.log10(256)) + 1,
    "ex-function-approximation-leakage-prediction": lambda: number(
        r"^network +(\d+) move,", printed_by("function_approximation", "leakage-counts")
    ),
    "ex-function-approximation-outrun-prediction": lambda: (
        "nearly half" if 0.4 < ahead_of_the_trained().sum() / 63 < 0.5 else "none"
    ),
    "ex-function-approximation-legs-prediction": legs_of_what_diverges,
    "ex-function-approximation-pair-prediction": pair_paths,
    "ex-function-approximation-reward-prediction": lambda: str(
        int(number(r"^all three +(\d+) of 8 leave", printed_by("function_approximation", "network-runs")))
    ),
    "ex-function-approximation-soft-prediction": lambda: str((soft().max() > 100).sum()),
    "ex-function-approximation-soft-end-prediction": lambda: (
        "hundreds" if ((end := soft().iloc[-1]) > 100).all() and (end < 1000).all() else "infinity"
    ),
    "ex-key-equation-prediction": lambda: 0.5 ** number(r"^relu: .* power (\S+)$", printed_by("key_equation", "sweep")),
    "ex-key-equation-buffer-prediction": lambda: number(r"in the buffer: (\d+) ", printed_by("key_equation", "shares")),
    "ex-key-equation-size-prediction": lambda: (
        "it diverges" if "a tenth of it: diverged" in printed_by("key_equation", "scale") else "it converges"
    ),
}


def test_each_bet_has_its_computation():
    assert sorted(COMPUTED) == BETS and len(BETS) >= 16


@pytest.mark.parametrize("name", BETS)
def test_what_is_right_is_what_was_computed(name):
    assert check(name, COMPUTED[name]()).passed


def reason(name, mistake):
    """Return what a wrong option is told."""
    return next(each.text for each in find(name).mistakes if each.name == mistake)


class TestNumbersInReasons:
    """A number in a reason is one that the chapter has computed."""

    def test_of_the_atari_digits(self):
        points = 84 * 84 * 4
        assert f"{points:,}".replace(",", " ") in reason("ex-function-approximation-states-prediction", "ten")
        assert len(str(256**4)) == 10 and 950 < 400 * math.log10(256) < 1000
        assert round(points * math.log10(256), -3) == 68_000 and round(math.log10(256), 1) == 2.4

    def test_of_the_values_that_run_ahead(self):
        ahead = int(number(r"^network +(\d+) move further", printed_by("function_approximation", "leakage-ahead")))
        name = "ex-function-approximation-outrun-prediction"
        found = ahead_of_the_trained()
        near = int(found[2:5, 2:5].sum())
        assert found.sum() == ahead and not found[3, 3]
        assert f"In the network {ahead} others move further" in reason(name, "trained-leads")
        assert f"In the network {ahead} of the 63" in find(name).insight
        assert reason(name, "neighbours").startswith("Four of its eight neighbours do, and 23 values") and near == 4
        assert ahead - near == 23
        said = f"and {ahead} move further than the trained value. The other {63 - ahead} move less far"
        assert said in reason(name, "all-of-them")
        text = printed_by("function_approximation", "leakage-ahead")
        for name, most in (("table", 0), ("bumps", 0), ("tiles", 0)):
            assert number(rf"^{name} +(\d+) move further", text) == most
        assert number(r"^tiles .* most (\S+)$", text) == 1  # as far as the trained one

    def test_of_the_forty_runs(self):
        single = {"F": "shared-alone", "B": "bootstrapping-alone", "O": "off-policy-alone"}
        double = {"FB": "no-off-policy", "FO": "no-bootstrapping", "BO": "no-approximation"}
        mistakes = {each.wrong: each.name for each in find("ex-function-approximation-legs-prediction").mistakes}
        assert mistakes == {**single, **double, "TWO": "two", "ONE": "one", "NONE": "none"}

    def test_of_the_soft_runs(self):
        peaks, ends = soft().max(), soft().iloc[-1]
        name = "ex-function-approximation-soft-end-prediction"
        assert f"largest of all is {peaks.max():.0f}," in reason(name, "runs-off")
        assert (ends[False] < peaks[False]).all()  # those without a target network come down again
        assert f"between {ends.min():.0f} and {ends.max():.0f}" in find(name).insight
        from divergence_notes.studies import soft_divergence

        said = reason("ex-function-approximation-soft-prediction", "those-without")
        assert {100: "a hundred updates old"}[soft_divergence.TARGET_EVERY] in " ".join(said.split())

    def test_of_the_corridor(self):
        printed = printed_by("function_approximation", "network-runs")
        left = int(number(r"^all three +(\d+) of 8 leave", printed))
        bet = find("ex-function-approximation-reward-prediction")
        assert left == 7 and bet.insight.startswith("Seven of the eight leave it")
        assert "only one of the eight stays inside" in reason(bet.name, "few")
        assert number(r"^table +(\d+) of 8 leave", printed) == 0  # it stays inside
        where = printed_by("function_approximation", "network-leaves")
        assert "largest value in cell {6}; never trained: cell 6" in where

    def test_of_the_buffer(self):
        lake = "SFFF FHFH FFFH HFFG"  # FrozenLake-v1: start, frozen, hole, goal
        wrong = {each.name: each.wrong() for each in find("ex-key-equation-buffer-prediction").mistakes}
        pairs = {left: 4 * sum(cell in left for cell in lake) for left in ("SF", "SFHG", "SFH", "SFG")}
        assert pairs["SF"] == find("ex-key-equation-buffer-prediction").right()
        assert (wrong["all"], wrong["goal-alone"], wrong["holes-alone"]) == (pairs["SFHG"], pairs["SFH"], pairs["SFG"])
        assert wrong["cells"] == pairs["SF"] / 4 and lake.count("H") == 4 and pairs["SFHG"] - pairs["SF"] == 20

    def test_of_the_size(self):
        counts = [int(count) for count in re.findall(r"after (\d+) steps", printed_by("key_equation", "scale"))]
        assert 9 < counts[1] / counts[0] < 10.5  # about ten times more slowly

    def test_of_the_sweeps(self):
        text = printed_by("bellman", "bet-answer")
        wrong = {"A": 0.5, "B": 0.9, "D": 0.999}
        for option, gamma in wrong.items():
            sweeps = int(number(rf"^{gamma} +\d+ +(\d+) ", text))
            assert find("ex-bellman-prediction").phrases[option][0] == str(sweeps)

    def test_of_the_lake(self):
        arrows, numbers = lake_settles(0.99)
        assert lake_settles(0.5)[1] < lake_settles(0.5)[0]  # an impatient player
        assert f"the numbers need {numbers} sweeps, and the arrows {arrows}" in reason(
            "ex-bellman-lake-prediction", "numbers-first"
        )
        assert f"right at sweep {arrows}, the numbers at sweep {numbers}" in find("ex-bellman-lake-prediction").insight

    def test_of_the_fates(self):
        fate = dict(re.findall(r"^(.*?)  +\d.* (\w+)$", printed_by("bellman", "fates-numbers"), re.M))
        settled = {name for name, status in fate.items() if status == "converged"}
        assert settled == {"loop, gamma = 0.9", "lake, gamma = 1, from 0", "lake, gamma = 1, from 5"}


# --- nothing before a bet, or beside it, tells


def headings(chapter):
    """Return the titles of a chapter, which stand in the sidebar beside every bet."""
    return re.findall(r"^#+ (.+)$", pages.markdown(pages.BOOK / f"{chapter}.ipynb"), re.M)


def around(label, chapter):
    """Return what a page says up to a bet, captions and prints among it, and where its fold ends again."""
    cells = []
    for cell in pages.notebook(pages.BOOK / f"{chapter}.ipynb").cells:
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        said = [cell.source if cell.cell_type == "markdown" else "", figure.get("caption", "")]
        cells.append("\n".join([*said, *(output.get("text", "") for output in cell.get("outputs", ()))]))
    before, box = "\n\n".join(cells).split(f":label: {label}\n")
    folded = re.split(r"\n```$", box, maxsplit=1, flags=re.M)[1]
    (end, *_) = re.finditer(r"^(?::::\{div\} bet-end|#+ .*|.*-prediction)$", folded, re.M)
    after = folded[end.start() :][:700]  # about a screen
    return before, after.split(":nonumber:")[0]  # where another bet has its own fold


TELLS = {
    "bellman": {
        "cliff": r"never visited",
        "fates": r"does not converge|settles?\b.*lake",
        "": r"\b69\b",
        "lake": r"arrows are (right|done)|long before the numbers|arrows first",
    },
    "function_approximation": {
        "leakage": r"moves? (many|all|every)|\b63 (move|of)",
        "outrun": r"outrun|runs? ahead|move further than the trained one|twice as far\"",
        "legs": r"not enough|each leg matters|needs a combination|only all three|do three legs|what they can be|triad"
        r"|(?<!-)\blegs?\b(?!-)",
        "pair": r"still it diverges|to infinity|two come home|run off|drives it on",
        "reward": r"leaves it\b|watch a network leave|made to mislead",
        "soft": r"soft.divergence`|all ten|same alarm",
    },
    "key_equation": {
        "": r"quarter of|falls by|about four|ReLU network that are not|(^|\. )It is not exact",
        "buffer": r"\b44\b",
        "size": r"traded",
    },
}
CASES = [(chapter, bet, words) for chapter, bets in TELLS.items() for bet, words in bets.items()]


@pytest.mark.parametrize(("chapter", "bet", "words"), CASES)
def test_no_heading_or_objective_tells(chapter, bet, words):
    """Objectives stand in the first cell, headings in the sidebar."""
    first = pages.notebook(pages.BOOK / f"{chapter}.ipynb").cells[0].source
    found = [line for line in [*headings(chapter), *first.split("\n")] if re.search(words, line, re.I)]
    pages.none(found, f"tells {bet or 'the bet'}")


@pytest.mark.parametrize(("chapter", "bet", "words"), CASES)
def test_the_text_around_does_not_tell(chapter, bet, words):
    """Before the bet, and where its fold ends again."""
    slug = "-".join(filter(None, ("ex", chapter.replace("_", "-"), bet, "prediction")))
    for text in around(slug, chapter):
        assert len(text) > 100
        pages.none([line for line in text.split("\n") if re.search(words, line, re.I)], f"tells {slug}")


@pytest.mark.parametrize("label", BETS)
def test_a_fold_ends_in_its_section(label):
    chapter = next(name for name in CHAPTERS if label in pages.labels(pages.BOOK / f"{name}.ipynb"))
    assert all(around(label, chapter)), "there is something before it, and something after it"


@pytest.mark.parametrize(
    ("chapter", "bet", "line"),
    [
        ("function_approximation", "leakage", "## One change moves many"),
        ("function_approximation", "legs", "## Three legs are not enough"),
        ("function_approximation", "legs", "# Function approximation and the deadly triad"),
        ("function_approximation", "legs", "- switch each leg off, and say exactly what off means"),
        ("function_approximation", "outrun", 'and the first column, $(1, 2)$, says "twice as far".'),
        ("function_approximation", "pair", "## Nothing missing, and still it diverges"),
        ("function_approximation", "reward", "## A bound, and a network that leaves it"),
        ("function_approximation", "reward", "- give the bound that a table keeps, and watch a network leave it."),
        ("key_equation", "", "## Half the step, a quarter of the error"),
        ("key_equation", "", "- say why the error falls by about four when a short step is halved;"),
        ("key_equation", "", "It is not exact: it is off by a small error."),
        ("bellman", "cliff", "### What is never visited"),
        ("bellman", "fates", "## When it does not converge"),
        ("bellman", "lake", "With much patience the arrows are right long before the numbers are."),
        ("function_approximation", "legs", "Do three legs always bring a run down?"),
        ("function_approximation", "pair", "The second chases the first and drives it on."),
        ("function_approximation", "soft", "### The same alarm in a deep Q-network"),
        ("function_approximation", "soft", "The study `soft_divergence` trains a small DQN"),
        ("function_approximation", "reward", "The corridor is small, and its data was made to mislead."),
    ],
)
def test_what_told_once_is_found(chapter, bet, line):
    assert re.search(TELLS[chapter][bet], line, re.I)
