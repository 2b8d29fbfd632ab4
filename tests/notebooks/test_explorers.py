"""The explorable figures of the chapters: the question before, the words for the ear, and what each position shows."""

import ast
import functools
import itertools
import re
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np
import pytest

from divergence_notes import contraction, dynamics, examples, norms, verdicts, widgets
from tests import pages

CHAPTERS = pages.NUMBERED
ASKS = re.compile(r"\?|guess|find|predict", re.I)
TELLS = re.compile(r"\*\*Try this:\*\*|^Try: |Move the sliders|Start far out", re.M)


def calls_of_explore(cell):
    """Return the calls of `explore` in a code cell."""
    nodes = ast.walk(ast.parse(cell.source)) if cell.cell_type == "code" else ()
    return [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("explore")]


def faults(cells):
    """Return what is missing around the explorers of a notebook: question, advice, words that follow the sliders."""
    found, functions = [], set()
    for place, cell in enumerate(cells):
        if cell.cell_type != "code":
            continue
        functions |= {node.name for node in ast.parse(cell.source).body if isinstance(node, ast.FunctionDef)}
        for call in calls_of_explore(cell):
            before = next(c.source for c in cells[place::-1] if c.cell_type == "markdown")
            after = next(c for c in cells[place + 1 :] if "remove-cell" not in pages.tags(c))
            alt = next((ast.unparse(word.value) for word in call.keywords if word.arg == "alt"), None)
            checks = {
                "asks nothing before": ASKS.search(before),
                "does not say what to try": TELLS.search(before),
                "has one alt for all positions": alt in functions,
                "has no answer after it": after.cell_type == "markdown" or "nbval-check-output" in pages.tags(after),
            }
            found += [f"{cell.id} {fault}" for fault, good in checks.items() if not good]
    return found


@functools.cache
def explorer(stem, *ids):
    """Run cells of a chapter up to the one that calls `explore`, and return what it was given and the namespace."""
    cells = {cell.id: cell.source for cell in pages.code_cells(pages.BOOK / f"{stem}.ipynb")}
    given, namespace = [], {}
    with mock.patch.object(widgets, "explore", lambda draw, **words: given.append((draw, words))):
        for name in ids:
            exec(cells[name], namespace)
    ((draw, words),) = given
    start, alt, _ = words.pop("start", {}), words.pop("alt"), words.pop("play", None)
    options = {name: list(values.values() if isinstance(values, dict) else values) for name, values in words.items()}
    return SimpleNamespace(draw=draw, alt=alt, start=start, options=options, names=words, namespace=namespace)


def positions(explorer, *, ends=False):
    """Return the values of every combination, or of those at both ends of every slider."""
    values = [[options[0], options[-1]] if ends else options for options in explorer.options.values()]
    return [dict(zip(explorer.options, combination, strict=True)) for combination in itertools.product(*values)]


def drawn(explorer, **position):
    """Return the Axes of a frame."""
    result = explorer.draw(**position)
    figure = getattr(result, "figure", result)
    plt.close(figure)
    return figure.axes


def test_every_chapter_has_an_explorer():
    """One on any of its pages: the name of a part begins with that of its chapter."""
    stems = [path.stem for path in CHAPTERS]
    with_one = [path.stem for path in CHAPTERS if any(map(calls_of_explore, pages.notebook(path).cells))]
    chapters = [stem for stem in stems if not any(stem.startswith(f"{other}_") for other in stems)]
    assert len(chapters) == 6
    pages.none([name for name in chapters if not any(f"{s}_".startswith(f"{name}_") for s in with_one)], "no explorer")


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
class TestEveryChapter:
    """A figure that answers answers a question, and speaks."""

    def test_asks_tells_speaks_and_answers(self, path):
        pages.none(faults(pages.notebook(path).cells), "explorers that want a word")


class TestFaultsOfExplorers:
    """Each fault is found when it is planted."""

    TEXT = "**Try this:** where does it turn?"
    CODE = "def seen(a):\n    return str(a)\n\nexplore(print, alt=seen, a=[1, 2])"

    def cells(self, *, before=TEXT, code=CODE, after="There."):
        cells = [("markdown", before), ("code", code), ("markdown" if after else "code", after or "1 + 1")]
        return [SimpleNamespace(cell_type=kind, source=text, id="x", metadata={}) for kind, text in cells]

    def test_none(self):
        assert faults(self.cells()) == []

    @pytest.mark.parametrize(
        ("change", "fault"),
        [
            ({"before": "**Try this:** look."}, "asks nothing before"),
            ({"before": "Where does it turn?"}, "does not say what to try"),
            ({"code": 'explore(print, alt="a picture", a=[1, 2])'}, "has one alt for all positions"),
            ({"code": "explore(print, a=[1, 2])"}, "has one alt for all positions"),
            ({"after": ""}, "has no answer after it"),
        ],
    )
    def test_planted(self, change, fault):
        assert faults(self.cells(**change)) == [f"x {fault}"]


class TestLegs:
    """Chapter 2: each of the forty runs in the grid has the legs that its row names."""

    def wrong(self, change=lambda source: source):
        """Return the rows of the pair whose run is not that of `triad_operator`, called anew."""
        cells = {cell.id: cell.source for cell in pages.code_cells(pages.BOOK / "function_approximation.ipynb")}
        namespace = {}
        for name in ("imports", "examples", "eight-runs", "forty-runs"):
            exec(change(cells[name]), namespace)
        pair, found = examples.full_data_divergence(), []
        for switches in itertools.product((False, True), repeat=3):
            keys = ("approximation", "bootstrapping", "off_policy")
            operator = examples.triad_operator(pair.update, **dict(zip(keys, switches, strict=True)))
            want = dynamics.iterate(operator, pair.Q0, max_iter=4000)
            legs = "".join(letter for letter, on in zip("FBO", switches, strict=True) if on)
            found += [] if np.array_equal(namespace["runs"]["pair"][legs].sizes, want.sizes) else [legs]
        return found

    def test_the_run_is_that_of_the_switches(self):
        assert self.wrong() == []

    def test_two_crossed_switches_are_found(self):
        crossed = {'"B" in legs': '"O" in legs', '"O" in legs': '"B" in legs'}
        turn = functools.partial(re.sub, "|".join(crossed), lambda match: crossed[match[0]])
        assert self.wrong(turn) == ["O", "B", "FO", "FB"]


class TestWords:
    """Chapter 2: what its explorer says agrees with what is computed directly."""

    def test_w_to_2w(self):
        ids = ("imports", "threshold-numbers", "explore-w2w", "explore-w2w-show")
        share = explorer("function_approximation", *ids)
        for position in positions(share):
            gamma, second = position.values()
            drift = (1 - second) * (2 * gamma - 1) - 4 * second * (1 - gamma)
            words = share.alt(**position)
            assert ("above" in words and "diverged" in words) if drift > 0 else "below" in words and "conv" in words


class TestPhases:
    """Chapter 4: the dot stands in the region that is named, and the runs beside it do what the region says."""

    @pytest.fixture
    def phases(self):
        ids = ("setup", "fig-boxes", "verdict", "orbit-home", "phases", "explore-phases", "explore-phases-show")
        return explorer("contraction", *ids)

    def wrong(self, phases):
        """Return the positions whose dot stands in another region than the words and the certificates name."""
        map_, couplings, gammas = (phases.namespace[name] for name in ("phases", "couplings", "gammas"))
        orbit, found = examples.closed_orbit().update, []
        for position in positions(phases):
            gamma, coupling = position["gamma"], position["coupling"]
            row, column = np.abs(gammas - gamma).argmin(), np.abs(couplings - coupling).argmin()
            assert (gammas[row], couplings[column]) == pytest.approx((gamma, coupling), abs=1e-9)
            code, words = map_[row, column], phases.alt(**position)
            mdp, kernel = replace(orbit.mdp, R=np.zeros((1, 2)), gamma=gamma), [[8, coupling], [coupling, 1]]
            update = replace(orbit, mdp=mdp, kernel=kernel)
            holds = [
                contraction.row_sum_bound(kernel, orbit.weights, alpha=orbit.alpha, gamma=gamma) < 1,
                contraction.exact_modulus(update) < 1,
                norms.weighted_modulus(update)[0] < 1,
                norms.some_norm(update) is True,
                not words.endswith(" 0 of six runs run off"),
            ]
            named = f"the dot in region {code + 1}, {verdicts.PHASES[code].replace('_', ' ')};" in words
            good = holds == [*(bool(code <= k) for k in range(4)), bool(code == 5)]
            found += [] if named and good else [(gamma, coupling)]
        return found

    def test_region_and_certificate(self, phases):
        assert self.wrong(phases) == []

    def test_a_map_of_another_game_is_found(self, phases):
        with mock.patch.dict(phases.namespace, phases=np.roll(phases.namespace["phases"], 1, axis=1)):
            assert (0.5, 0.2) in self.wrong(phases)

    def test_every_region_is_visited(self, phases):
        named = {re.search(r"region (\d)", phases.alt(**position))[1] for position in positions(phases)}
        assert named == set("123456")

    def test_ends(self, phases):
        for position in positions(phases, ends=True):
            curves, picture = drawn(phases, **position)
            off = sum(line.get_linestyle() == "--" for line in curves.lines)
            assert f"; {off} of six runs run off" in phases.alt(**position)
            assert f"{off} of 6 starts run off" in curves.get_xlabel()
            assert picture.lines[-1].get_xydata().tolist() == [[position["coupling"], position["gamma"]]]
            numbers = [text.get_text() for text in picture.texts]
            assert numbers == ["1", "2", "3", "4", "5", "6"]
            assert picture.images[0].get_array().shape == (25, 40)


class TestTurns:
    """Chapter 4: each step ends inside the ball of the update that makes it, and what is said of it is its length."""

    @pytest.fixture
    def turns(self):
        return explorer("contraction", "setup", "fig-balls", "turns", "turns-show")

    def test_inside_its_own_ball(self, turns):
        matrices = [each.update.jacobians()[0] for each in examples.switching_divergence()]
        at = np.array([0.5, -0.15])
        for position in positions(turns):
            step = position["step"]
            (ax,) = drawn(turns, **position)
            (own,) = [patch for patch in ax.patches if patch.get_fill()]
            to = matrices[(step - 1) % 2] @ at
            (arrow,) = ax.texts
            np.testing.assert_allclose([*arrow.xyann, *arrow.xy], [*at, *to], atol=1e-9)
            assert own.get_path().contains_point(to)
            assert not own.get_path().contains_point(1.01 * at)  # where it starts, on the edge
            share = float(re.search(r"([\d.]+) times", turns.alt(**position))[1])
            assert share <= 0.9
            at = to
