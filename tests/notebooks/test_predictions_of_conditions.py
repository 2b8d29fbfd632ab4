"""The bets of chapters 4 to 6 and of the appendix: what is right, and each reason, is what was computed."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from divergence_notes import contraction, examples, remedies, studies, updates, verdicts
from divergence_notes.grading import check, find
from divergence_notes.studies import comparison, protocol
from divergence_notes.studies import robots as relatives
from divergence_notes.studies.kernels import trends
from tests import pages
from tests.pages import printed_by

CHAPTERS = (
    *("contraction", "heuristics", "heuristics_runs", "preqn", "preqn_networks", "preqn_later"),
    "reproduction_robots",
)
BETS = {
    label: chapter
    for chapter in CHAPTERS
    for label in pages.labels(pages.BOOK / f"{chapter}.ipynb")
    if label.endswith("-prediction")
}


def numbers(pattern, text):
    """Return the numbers in the one place that a pattern finds."""
    (found,) = re.findall(pattern, text, re.M)
    return [float(number) for number in (found if isinstance(found, tuple) else (found,))]


def ratio_asked(gamma):
    """Find by halving how many times as hard a pair must pull on itself for its margin to be positive."""
    low, high = 1.0, 1e4
    for _ in range(80):
        middle = (low + high) / 2
        margins = contraction.row_dominance([[middle, 1.0], [1.0, middle]], [0.5, 0.5], gamma=gamma)
        low, high = (low, middle) if margins.min() > 0 else (middle, high)
    return high


def fates(*couplings, gamma=0.98):
    """Return for each coupling of the orbit without reward whether some of 64 runs leave."""
    orbit = examples.closed_orbit().update
    quiet = replace(orbit, mdp=replace(orbit.mdp, R=np.zeros((1, 2))))
    codes = verdicts.phase_map(quiet, couplings=list(couplings), gammas=[gamma])[0]
    return [verdicts.PHASES[code] == "some run off" for code in codes]


def dials():
    """Return for each activation the mean row ratio at both ends of width, depth and scale."""
    text = printed_by("heuristics", "study-numbers")
    ends = r" +(\S+) to (\S+)" * 3
    return {kind: np.reshape(numbers(rf"^{kind}{ends}", text), (3, 2)) for kind in ("relu", "tanh", "sin")}


def what_raises():
    """Return the dials that raise the row ratio for every activation."""
    found = dials()
    rises = {
        name: all(ends[row, 1] > ends[row, 0] for ends in found.values())
        for row, name in enumerate(("wider", "deeper", "larger inputs"))
    }
    rises["tanh or sin"] = (np.minimum(found["tanh"], found["sin"]) > found["relu"]).all()
    (name,) = (name for name, up in rises.items() if up)
    return name


def widths(activation):
    """Return the slopes along width of a robot study's row ratios, one for each robot and way to draw weights."""
    slopes = trends(studies.load("kernels"))
    return slopes[(slopes.measure == "row_ratio") & (slopes.axis == "width") & (slopes.activation == activation)]


def rising(slopes):
    """Say what all of some slopes do."""
    return "they rise" if (slopes.low > 0).all() else "they fall" if (slopes.high < 0).all() else "level"


def ranked(column):
    """Return for each activation the mean row ratio, or the discount of the corridor."""
    text = printed_by("heuristics", "rank-run")
    pattern = r"^{} +(\S+) +(\S+) "
    return {kind: numbers(pattern.format(kind), text)[column] for kind in ("relu", "tanh", "sin")}


def hills():
    """Return width, error on the unseen states and safe discount, a row for each width."""
    found = re.findall(r"^width (\S+) +(\S+) +(\S+) ", *(_tension(), re.M))
    return np.array(found, dtype=float)


def _tension():
    return printed_by("heuristics", "tension-numbers")


def rank_of(run):
    """Return the effective rank at the start and at the end of a watched run."""
    return numbers(rf"^{run} .* to \S+ +(\S+) to (\S+) +\d+%$", printed_by("heuristics_runs", "watch-numbers"))


def cured():
    """Return which of the three comes home where the kernel is undone on the batch."""
    partial, fit = printed_by("preqn", "partial-numbers"), printed_by("preqn", "compromise-numbers")
    fate = {
        "A": re.search(r"^batch 1 and 2 .*?([a-z]+ed)\b", partial, re.M)[1],
        "B": re.search(r"^batch 2 .*?([a-z]+ed)\b", partial, re.M)[1],
        "C": re.search(r"^0\.90? .*?([a-z]+ed)\b", fit, re.M)[1],
    }
    return [name for name, status in fate.items() if status == "converged"]


def large_eigenvalues():
    """Return the part of a minibatch's eigenvalues that is above one ten-thousandth, as one of the fractions asked."""
    large, all_of_them = numbers(
        r"^above 1e-4 of the mean +(\d+) of (\d+)$", printed_by("preqn_networks", "minibatch-kernel")
    )
    return min(("a quarter", "three quarters", "all"), key=lambda said: abs(large / all_of_them - PARTS[said]))


PARTS = {"a quarter": 1 / 4, "three quarters": 3 / 4, "all": 1}


def first_above(agent, level=-200):
    """Return for each seed of the study how many updates an agent took to earn so much."""
    runs = studies.load("swing_up")
    returns = runs[runs.agent == agent].pivot(index="step", columns="seed", values="return")
    return (returns >= level).idxmax() - 1000


def updates_needed():
    """Return what the study says; the live run has an assertion of its own in the chapter."""
    (cell,) = [each for each in pages.code_cells(pages.BOOK / "preqn_networks.ipynb") if each.id == "live-check"]
    assert "100 < solved.idxmax() - undoes.warmup < 1000" in cell.source
    return "within a thousand" if first_above("preqn-sin").median() < 1000 else "thousands"


def bracket(N, *, seed=0):
    """Return the bracket of the frozen target and N times the plain one, for a random kernel of four pairs."""
    rng = np.random.default_rng(seed)
    phi, rho, alpha = rng.standard_normal((4, 6)), rng.dirichlet(np.full(4, 3.0)), 0.05
    kernel = phi @ phi.T
    pairs = np.broadcast_to(np.eye(4)[0], (4, 1, 4))
    mdp = updates.FiniteMDP(pairs, np.zeros((4, 1)), 0.9)
    update = updates.KernelUpdate(mdp, kernel=kernel, weights=rho, alpha=alpha)
    return update.frozen_target(N).matrix, N * alpha * kernel * rho


def limit_of_the_bracket():
    """Return what a long period makes of the bracket."""
    found, longer = bracket(200_000)
    names = {"identity": np.eye(4), "zero": np.zeros((4, 4)), "longer": longer}
    (name,) = (name for name, matrix in names.items() if np.allclose(found, matrix, atol=1e-3))
    return name


def two_that_run_off():
    """Return which two rules let w run off with state 1 in the data, for each of some step sizes up to 1."""
    w, fates = examples.w_to_2w(), []
    for alpha, period, pull in itertools.product((0.01, 0.1, 0.5, 1.0), (1, 3, 100), (1, 1.5)):
        how = {"policy": [0, 0], "weights": [1, 0], "alpha": alpha, "period": period, "pull": pull, "pace": alpha}
        found = remedies.rules(w.features, w.update.mdp, **how)
        fates.append({name for name, rule in found.items() if rule.growth >= 1} - {"plain"})
    return " and ".join(sorted(set.intersection(*fates), reverse=True))


def stopped():
    """Return what no longer does its work in the two swimmers that stand still."""
    still = studies.load("swimmers")
    ends = still[still.variant == "as-before"].groupby("seed").last()
    swim = swimmers()
    faults = {
        "the values": swim.max_q.max() >= 100,
        "line search": swim.backtracks.max() >= 1e-3,
        "targets": swim.alignment.min() <= 0.999,
        "the policy": (ends.slope[[1, 2]] == 0).all() and ends.slope[0] > 0,
    }
    (name,) = (name for name, fault in faults.items() if fault)
    return name


def swimmers():
    """Return the second half of the runs of the two swimmers with sines that stand still."""
    robots = studies.load("mujoco")
    mine = (robots.environment == "Swimmer-v5") & (robots.agent == "preqn") & robots.seed.isin([1, 2])
    return robots[mine & (robots.step > 50_000)]


def changed():
    """Return for each variant by how much its three runs on HalfCheetah differ from the default."""
    parts = studies.load("ablation")
    parts = parts[parts.environment == "HalfCheetah-v5"]
    ends = parts[parts.step > 0.6 * parts.step.max()].groupby(["variant", "seed"])["return"].mean().unstack("variant")
    return ends.drop(columns="default").sub(ends.default, axis=0)


def moved_least():
    """Return the kind of change whose largest move of the mean over the seeds is the smallest of all kinds."""
    kinds = {"alpha-": "step size", "jitter-": "jitter", "minimum-norm": "jitter", "no-line-search": "line search"}

    def kind(variant):
        return next((kind for start, kind in kinds.items() if variant.startswith(start)), "activation")

    return changed().mean().abs().groupby(kind).max().idxmin()


def beside_adam():
    """Say what both means say of PreQN beside the same agent under Adam, on three robots together."""
    earned = protocol.late_returns(studies.load("robots"), after=50_000, by="agent")
    before = protocol.late_returns(studies.load("mujoco"), after=50_000, by="agent")
    unit = before[:, "td3"].groupby("environment").mean()
    robots = relatives.PARAMETERS["environment"]
    ours, theirs = ([earned[robot, agent].to_numpy() / unit[robot] for robot in robots] for agent in ("preqn", "adam"))
    gaps = [comparison.difference(ours, theirs, rng=np.random.default_rng(1), trim=trim) for trim in (0.25, 0)]
    said = {"ahead" if gap.low > 0 else "behind" if gap.high < 0 else "level" for gap in gaps}
    return said.pop() if len(said) == 1 else "level"


def where_it_rests(reward=1, gamma=0.9):
    """Say where theta comes to rest by short steps, with the target r + 2 gamma |theta|: found by scanning the line."""
    theta = np.linspace(-10, 10, 200_001)
    gap = reward + 2 * gamma * np.abs(theta) - theta
    homes = theta[:-1][(gap[:-1] > 0) & (gap[1:] <= 0)]
    if not len(homes):
        return "nowhere"
    return "at 1, the true value" if np.allclose(homes, reward, atol=1e-3) else "at another value"


COMPUTED = {
    "ex-contraction-prediction": lambda: round(ratio_asked(0.9), 6),
    "ex-contraction-phases-prediction": lambda: {
        (True, True): "both",
        (True, False): "plus",
        (False, True): "minus",
        (False, False): "neither",
    }[tuple(fates(1.2, -1.2))],
    "ex-contraction-rest-prediction": where_it_rests,
    "ex-heuristics-prediction": what_raises,
    "ex-heuristics-robots-prediction": lambda: rising(widths("relu")),
    "ex-heuristics-margins-prediction": lambda: numbers(
        r"allowed: (\d+) times in the best row", printed_by("heuristics", "margin-numbers")
    )[0],
    "ex-heuristics-rank-prediction": lambda: max(ranked(1), key=ranked(1).get),
    "ex-heuristics-tension-prediction": lambda: hills()[hills()[:, 1] <= 0.5][0, 2],
    "ex-heuristics-watch-prediction": lambda: "it falls" if rank_of("none")[1] < rank_of("none")[0] / 2 else "stays",
    "ex-preqn-prediction": cured,
    "ex-preqn-minibatch-prediction": large_eigenvalues,
    "ex-preqn-pendulum-prediction": updates_needed,
    "ex-preqn-target-prediction": limit_of_the_bracket,
    "ex-preqn-remedies-prediction": two_that_run_off,
    "ex-reproduction-prediction": stopped,
    "ex-reproduction-ablation-prediction": moved_least,
    "ex-reproduction-robots-prediction": beside_adam,
}


def test_each_bet_has_its_computation():
    assert sorted(COMPUTED) == sorted(BETS)


@pytest.mark.parametrize("name", BETS)
def test_what_is_right_is_what_was_computed(name):
    assert check(name, COMPUTED[name]()).passed


@pytest.mark.parametrize("name", BETS)
def test_every_option_has_words_for_its_button_and_a_reason(name):
    exercise = find(name)
    options = {exercise.right, *(mistake.wrong for mistake in exercise.mistakes)}
    assert set(exercise.phrases) == options and 3 <= len(options) <= 6
    words = [ways[0] for ways in exercise.phrases.values()]
    assert len(set(words)) == len(words) and not any(re.search(r"[$\\*`{}]", word) for word in words)
    assert all(mistake.text.count(" ") >= 7 for mistake in exercise.mistakes)


def reason(name, mistake):
    """Return what a wrong option is told."""
    return next(each.text for each in find(name).mistakes if each.name == mistake)


class TestReasons:
    """What a reason says has been computed."""

    def test_of_the_ratio(self):
        calm = examples.sup_norm_only().update
        assert calm.mdp.gamma == 0.9 and calm.weights.tolist() == [0.5, 0.5]
        assert calm.kernel.tolist() == [[1, 0.5], [0.5, 1]]
        for gamma, enough in ((0, 1), (1 / 3, 2), (0.9, 19), (0.99, 199)):
            assert ratio_asked(gamma) == pytest.approx(enough)
        assert "while gamma is below 1/3" in reason("ex-contraction-prediction", "the-calm")
        assert 1 / (1 - 0.9) == pytest.approx(10)

    def test_of_the_v(self):
        """At the true value the target is 2.8; -1.25 solves the wrong branch; with r = -1 there are two crossings."""
        said = {mistake: reason("ex-contraction-rest-prediction", mistake) for mistake in ("true-value", "one-branch")}
        assert 1 + 2 * 0.9 * 1 == pytest.approx(2.8) and "= 2.8," in said["true-value"]
        assert 1 + 1.8 * -1.25 == pytest.approx(-1.25) and "theta = -1.25 does" in said["one-branch"]
        assert 1 + 2 * 0.9 * 1.25 != pytest.approx(-1.25)
        rest = examples.no_fixed_point()
        game = replace(rest.update.mdp, R=np.array([[-1.0, -1.0], [0.0, 0.0]]), gamma=0.9)
        assert len(updates.linear_fixed_points(rest.features, game, weights=rest.update.weights)) == 2
        assert [where_it_rests(*case) for case in ((1, 0.9), (1, 0.0), (1, 0.25))] == [
            "nowhere",
            "at 1, the true value",
            "at another value",
        ]

    def test_of_the_signs(self):
        negative = np.linspace(-1.2, 2.7, 40)
        assert not any(fates(*negative[negative < 0]))
        assert not any(fates(*negative[(negative > 0) & (negative < 1.01)]))

    def test_of_the_dials(self):
        found = dials()
        checks = [each for each in pages.code_cells(pages.BOOK / "heuristics.ipynb") if "study-check" in each.id]
        asserted = "\n".join(each.source for each in checks)
        for said in (
            "by_width[kind][-1].max() < by_width[kind][0].min()",
            "np.ptp(means[2]) > max(np.ptp(means[0]), np.ptp(means[1]))",
            "(np.diff(by_depth[kind], axis=0) > 0).all()",
            '(found["relu"] > np.maximum(found["tanh"], found["sin"])).all()',
        ):
            assert said in asserted  # the chapter asserts it each time it runs
        assert found["relu"][1, 1] > 0.95

    def test_of_the_robots(self):
        assert len(widths("relu")) == 6 and (widths("relu").low > 0).all()
        tanh = widths("tanh")[widths("tanh").initialisation == "pytorch"]
        assert ((tanh.low < 0) & (tanh.high > 0)).sum() == 2

    def test_of_the_best_row(self):
        assert round(199 * 100 * 0.02, -1) == 400 and round(199 * 0.02) == 4
        text = printed_by("heuristics", "margin-numbers")
        assert "336 networks, 33600 rows: 0 positive margins" in text and "13000 in the median row" in text
        assert "336 networks" in reason("ex-heuristics-margins-prediction", "holds")

    def test_of_the_corridor(self):
        ratios, discounts = ranked(0), ranked(1)
        for found in (ratios, discounts):
            assert found["relu"] > found["tanh"] > found["sin"]

    def test_of_the_hills(self):
        rows = {width: (error, safe) for width, error, safe in hills()}
        assert rows[0.3][0] == 0.99 and rows[0.3][1] > 0.9
        assert rows[0.4] == (0.84, 0.46)
        assert "0.99" in reason("ex-heuristics-tension-prediction", "narrow")
        assert "0.84" in reason("ex-heuristics-tension-prediction", "on-the-way")

    def test_of_the_watched_runs(self):
        assert rank_of("none") == [4.0, 1.5] and round(rank_of("target network")[1]) == 3
        for name in ("tells-apart", "frozen"):
            assert "from 4.0 to 1.5" in reason("ex-heuristics-watch-prediction", name)

    def test_of_the_pendulum(self):
        needed = {agent: float(first_above(agent).median()) for agent in ("ddpg", "sac", "td3")}
        assert needed == {"ddpg": 3250, "sac": 5000, "td3": 6000}
        assert "about 3000 to 6000" in reason("ex-preqn-pendulum-prediction", "as-the-others")

    def test_of_the_bracket(self):
        """It begins N times as long, and is I minus a power that goes to 0."""
        first, longer = bracket(2)
        assert np.abs(first - longer).max() < 0.1 * np.abs(longer).max()
        many, longer = bracket(50)
        assert np.linalg.norm(many) < np.linalg.norm(longer)

    def test_of_the_swimmers(self):
        swim = swimmers()
        said = [find("ex-reproduction-prediction").mistakes[k].text for k in range(3)]
        for text, limit, holds in zip(
            said,
            ("below 100", "one halving in a thousand", "above 0.999"),
            (swim.max_q.max() < 100, swim.backtracks.max() < 1e-3, swim.alignment.min() > 0.999),
            strict=True,
        ):
            assert limit in text and holds

    def test_of_the_relatives(self):
        late = protocol.late_returns(studies.load("robots"), after=50_000, by="agent")
        above = {
            robot: (late[robot, "preqn"].to_numpy()[:, None] > late[robot, "adam"].to_numpy()).mean()
            for robot in ("HalfCheetah-v5", "Hopper-v5")
        }
        assert above == {"HalfCheetah-v5": 1, "Hopper-v5": 0}

    def test_of_the_ablation(self):
        change = changed()
        mean = change.mean()
        assert (change["no-line-search"] == 0).sum() == 2
        assert (change["jitter-0.01"] < 0).all()
        assert "less than 50" in reason("ex-reproduction-ablation-prediction", "step-size")
        assert abs(mean["no-line-search"]) < 50 and mean.abs().idxmin() == "no-line-search"
        assert "about 750" in reason("ex-reproduction-ablation-prediction", "step-size")
        assert round(mean["alpha-0.03"], -1) == -750 and (change["alpha-0.03"] < 0).sum() == 2
        assert mean.abs().idxmax() in ("relu", "tanh")
        assert ((change["relu"] + mean_default()) < 0).sum() == 2
        assert (change["tanh"] + mean_default()).min() > mean_default().max()


def mean_default():
    """Return the default's return on HalfCheetah for each seed."""
    parts = studies.load("ablation")
    mine = parts[(parts.environment == "HalfCheetah-v5") & (parts.variant == "default")]
    return mine[mine.step > 0.6 * mine.step.max()].groupby("seed")["return"].mean()


# --- nothing before a bet, or beside it, tells


def headings(chapter):
    """Return the titles of a chapter, which stand in the sidebar beside every bet."""
    return re.findall(r"^#+ (.+)$", pages.markdown(pages.BOOK / f"{chapter}.ipynb"), re.M)


def before(label):
    """Return what a page says up to a bet, line by line: text, captions, what is printed."""
    told = []
    for cell in pages.notebook(pages.BOOK / f"{BETS[label]}.ipynb").cells:
        if f":label: {label}\n" in cell.source:
            return "\n".join([*told, cell.source.split(f":label: {label}\n")[0]]).split("\n")
        caption = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", "")
        text = cell.source if cell.cell_type == "markdown" else ""
        told += [text, caption, *(output.get("text", "") for output in cell.get("outputs", ()))]
    raise LookupError(label)


TELLS = {
    "ex-contraction-prediction": r"\b19\b|\(1 \+ \\gamma\)|199",
    "ex-contraction-phases-prediction": r"has a sign|\b(lift|press)(s|es)\b|negative (one|coupling)|coupling of \$?-1",
    "ex-contraction-rest-prediction": r"\bnowhere|never meet|no fixed point|lies above|grows for ever",
    "ex-heuristics-prediction": r"deeper|depth (raises|is higher)|more layers (raise|mean)|row ratio.*rises",
    "ex-heuristics-robots-prediction": r"wider relu|width raises|relu (networks )?(rise|are higher)|rises with width",
    "ex-heuristics-margins-prediction": r"\b400\b|four hundred|not one row|never met|no row",
    "ex-heuristics-rank-prediction": r"relu .*(most stable|stays stable)|does not rank fates|simpson|less than it s",
    "ex-heuristics-tension-prediction": r"makes it blind|two names|certificate is gone|one dial, two wishes",
    "ex-heuristics-watch-prediction": r"rank (falls|sinks)|one direction left|smaller effective rank",
    "ex-preqn-prediction": r"a cure\b|\bcured\b|cannot be granted|two wishes|leaves? out the wrong",
    "ex-preqn-minibatch-prediction": r"singular for|nearly singular|three quarters",
    "ex-preqn-pendulum-prediction": r"some hundred|swings (it|the pendulum) up",
    "ex-preqn-target-prediction": r"target network.*(undoes|precondition)|bracket becomes",
    "ex-preqn-remedies-prediction": r"PreQN (both )?(run|runs|let)|PreQN (run|let|make)|0\.64|off the plain",
    "ex-reproduction-prediction": r"it is the policy|policy (has stopped|stands)|(policy|torque).*saturat",
    "ex-reproduction-ablation-prediction": r"never cuts? a step|nothing to do at|ablation below had put",
    "ex-reproduction-robots-prediction": r"three times level|level within|both means|under Adam earns|verdict.*level",
}


def test_each_bet_is_looked_at_for_what_tells():
    assert sorted(TELLS) == sorted(BETS)


@pytest.mark.parametrize("label", BETS)
def test_nothing_tells(label):
    first = pages.notebook(pages.BOOK / f"{BETS[label]}.ipynb").cells[0].source.split("\n")
    lines = [
        line for line in [*headings(BETS[label]), *first, *before(label)] if not line.startswith(("(", "```{index}"))
    ]  # unseen
    pages.none([line for line in lines if re.search(TELLS[label], line, re.I)], f"tells {label}")


@pytest.mark.parametrize(
    ("label", "line"),
    [
        ("ex-preqn-prediction", "## The whole batch: a cure"),
        ("ex-preqn-prediction", "## When the wish cannot be granted"),
        (
            "ex-preqn-prediction",
            "- say when undoing the kernel is a cure, with examples on both sides that you have run;",
        ),
        ("ex-preqn-minibatch-prediction", "## A real minibatch is nearly singular"),
        ("ex-reproduction-ablation-prediction", "the ablation below had put it ahead after a quarter of the way."),
        ("ex-reproduction-ablation-prediction", "With two of the seeds it never cut a step"),
        ("ex-reproduction-robots-prediction", "On the hopper each run under Adam earns more than each of PreQN"),
        ("ex-preqn-remedies-prediction", "The residual gradient multiplies it by $1 - 0.64\\,\\alpha$"),
        ("ex-heuristics-margins-prediction", "Not one row of one network satisfies the condition."),
        ("ex-heuristics-rank-prediction", "That is less than it sounds. No contraction in this norm is no divergence."),
    ],
)
def test_what_told_once_is_found(label, line):
    assert re.search(TELLS[label], line, re.I)
