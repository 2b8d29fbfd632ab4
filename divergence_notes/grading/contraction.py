"""The exercises of the chapter on when the update contracts.

They are for practice: their solutions are on the page. Graded questions are in `coursework/questions`, outside of the
package; how an answer is judged is in `kinds`.
"""

import dataclasses

import numpy as np

from divergence_notes import contraction, dynamics, examples
from divergence_notes.grading.exercise import Mistake
from divergence_notes.grading.kinds import Choice, Function, Value
from divergence_notes.mdp import FiniteMDP


def _sums(which, *, shares=(0.2, 0.8), gamma=0.9, own=1.0):
    """Return the absolute sum of a row of the Jacobian of the pair, for each greedy action, by hand."""
    pair = examples.full_data_divergence().update
    moved = pair.alpha * pair.kernel[which] * shares
    stays = own * np.eye(2)[which] - moved
    return tuple(float(np.abs(stays + gamma * moved.sum() * np.eye(2)[action]).sum()) for action in (0, 1))


def _safe_steps():
    safe = examples.row_dominant().update
    own = (np.diag(safe.kernel) * safe.weights).max()
    return 1 / own, contraction.max_step_size(safe)


def _second_step(limit, **given):
    """Return the pair of steps with another limit in the second place."""
    safe = examples.row_dominant().update
    return _safe_steps()[0], limit(safe.kernel, safe.weights, **given)


def _kernel_and_shares(value):
    """Read a kernel and shares, or say in a sentence what they are not."""
    try:
        kernel, shares = (np.asarray(part, dtype=float) for part in value)
    except (TypeError, ValueError):
        return "your answer must be a kernel and shares: two arrays, (kernel, weights)"
    if kernel.ndim != 2 or not kernel.size or shares.shape != kernel.shape[:1] or kernel.shape[0] != kernel.shape[1]:
        return f"your kernel must be square, with one share for each row; the shapes are {kernel.shape}, {shares.shape}"
    if not (np.isfinite(kernel).all() and shares.min() >= 0 and abs(shares.sum() - 1) < 1e-6):
        return "your shares must be chances that add up to 1, and the kernel must be finite"
    return kernel, shares / shares.sum()


def _on_the_edge(value):
    read = _kernel_and_shares(value)
    if isinstance(read, str):
        return read
    kernel, shares = read
    margins = contraction.row_dominance(kernel, shares, gamma=0.9)
    scale = max(np.abs(kernel * shares).max(), 1e-300)
    if margins.min() < -1e-9 * scale:
        return "not-even-equal"
    if margins.min() > 1e-9 * scale:
        return "strict"
    if np.linalg.matrix_rank(kernel * shares) == len(kernel):
        return "one-fixed-point"
    return None


def _fate(example, starts):
    """Say what becomes of an update: by the eigenvalues if it is linear, by its modulus, else by runs from many starts.

    A modulus below 1 is a proof, however slow the runs are.
    """
    update, mdp = example.update, example.update.mdp
    radius = np.abs(np.linalg.eigvals(update.jacobian(np.zeros(mdp.n_states, dtype=int)))).max()
    if mdp.n_actions == 1 and abs(radius - 1) > 1e-9:
        return "diverged" if radius > 1 else "converged"
    if contraction.exact_modulus(update) < 1:
        return "converged"
    rng = np.random.default_rng(0)
    starts = [*starts, *(example.target + rng.standard_normal(mdp.R.shape) for _ in range(8))]
    fates = {dynamics.iterate(update, start, max_iter=5000).status for start in starts}
    return next(fate for fate in ("diverged", "undecided", "converged") if fate in fates)


def _overshoot_and_repair(value):
    try:
        long, short = value
        before, after = long.update, short.update
        margin = contraction.row_dominance(before.kernel, before.weights, gamma=before.mdp.gamma).min()
        fates = [_fate(each, (long.Q0, short.Q0)) for each in (long, short)]
        data = [
            (each.kernel, each.weights, each.mdp.transitions, each.mdp.R, each.mdp.gamma) for each in (before, after)
        ]
    except (AttributeError, TypeError, ValueError):
        what = "two examples such as `examples.row_dominant()`"
        return f"your answer must be {what}, the one that diverges and the repaired one"
    if margin <= 0:
        return "not-dominant"
    if fates[0] != "diverged":
        return "exchanged" if fates[1] == "diverged" else "no-divergence"
    if any(np.shape(one) != np.shape(two) or not np.array_equal(one, two) for one, two in zip(*data, strict=True)):
        return "other-data"
    return None if fates[1] == "converged" else "not-repaired"


def _changed(alpha, kernel=((1.0, 0.0), (0.0, 1.0))):
    """Return the safe pair with its pairs leading to each other, and another step and kernel."""
    safe = examples.row_dominant()
    swap = FiniteMDP(np.eye(2)[::-1].reshape(2, 1, 2), np.zeros((2, 1)), 0.9)
    update = dataclasses.replace(safe.update, mdp=swap, alpha=alpha, kernel=kernel)
    return dataclasses.replace(safe, update=update, Q0=np.array([[1.0], [-1.0]]))


def _edge(condition):
    """Return the largest coupling at which a polynomial in trace and determinant of G_1 is 0.

    It is the orbit without reward, at gamma = 0.98; the kernel stays positive definite.
    """
    orbit, gamma = examples.closed_orbit().update, 0.98
    (own, other), (first, second) = np.diag(orbit.kernel), orbit.weights
    trace = np.poly1d([-gamma * second, (1 - gamma) * own * first + other * second])
    determinant = (1 - gamma) * first * second * np.poly1d([-1.0, 0.0, own * other])
    return max(float(root.real) for root in condition(trace, determinant).roots if root.real**2 < own * other)


EXERCISES = (
    Choice(
        "ex-contraction-prediction",
        "D",
        (
            Mistake(
                "no-future",
                "That is enough at gamma = 0; with a future, what leaks in comes back through the targets, too",
                "A",
            ),
            Mistake(
                "the-calm",
                "Twice is what the calm has, and it is enough while gamma is below 1/3; here gamma is 0.9",
                "B",
            ),
            Mistake(
                "horizon",
                "That is 1 / (1 - gamma); but what leaks in counts twice, by the other value and, discounted, by its "
                "target: 1 + gamma stands above",
                "C",
            ),
            Mistake("further-ahead", "So it is at gamma = 0.99; at 0.9 the condition asks for less", "E"),
        ),
        insight="It is (1 + gamma) / (1 - gamma). The calm has 2 and comes home all the same: a condition that fails "
        "is no threat, it is silence.",
        phrases={
            "A": ("more than once", "1", "one", "once", "more than 1", "it must be larger", "larger"),
            "B": ("more than twice", "2", "two", "twice", "more than 2", "2 times", "two times"),
            "C": ("more than 10 times", "10", "ten", "10 times", "ten times", "more than 10", "1/(1 - gamma)"),
            "D": ("more than 19 times", "19", "nineteen", "19 times", "more than 19", "(1 + gamma)/(1 - gamma)"),
            "E": ("more than 199 times", "199", "199 times", "more than 199"),
        },
    ),
    Choice(
        "ex-contraction-phases-prediction",
        "PLUS",
        (
            Mistake(
                "alike",
                "To the paper's condition they are alike, since it takes absolute values; to the update they are not: "
                "from (1, 0.9) leakage lifts the first value at 1.2, to 1.083, and presses it down at -1.2, to 0.901",
                "BOTH",
            ),
            Mistake(
                "minus",
                "It is the other way round: from (1, 0.9) leakage presses the first value down to 0.901 at -1.2; at "
                "1.2 it lifts it to 1.083, and with it both targets",
                "MINUS",
            ),
            Mistake(
                "neither",
                "Up to a coupling of 1 that is so; at 1.2 one step leads from (1, 0.9) to (1.083, 0.975), the same "
                "table but larger, and so on",
                "NEITHER",
            ),
        ),
        insight="From (1, 0.9) the second value catches up, and its leakage has the sign of the coupling: at 1.2 it "
        "lifts the first value, and with it both targets; at -1.2 it presses it down.",
        phrases={
            "BOTH": ("at both", "both", "at both alike", "at both of them"),
            "PLUS": ("at plus 1.2 alone", "plus 1.2", "at plus 1.2", "plus", "the positive one", "positive"),
            "MINUS": ("at minus 1.2 alone", "minus 1.2", "at minus 1.2", "minus", "the negative one", "negative"),
            "NEITHER": ("at neither", "neither", "none", "nowhere", "at none of them"),
        },
    ),
    Choice(
        "ex-contraction-rest-prediction",
        "NOWHERE",
        (
            Mistake(
                "true-value",
                "At 1 the target is 1 + 0.9 * 2 = 2.8, not 1: with one parameter, state 2 has the values 2 and -2, "
                "and not its true ones",
                "ONE",
            ),
            Mistake(
                "one-branch",
                "You solved 1 + 1.8 theta = theta, which theta = -1.25 does; but where theta is negative the other "
                "action is greedy, and the target is 1 - 1.8 theta",
                "OTHER",
            ),
            Mistake(
                "two",
                "So it is with r = -1: the V then lies below the line in its middle, and crosses it twice",
                "TWO",
            ),
        ),
        insight="The V lies above the line everywhere: each target is larger than its value, and there is no table to "
        "rest at.",
        phrases={
            "ONE": ("at 1, the true value", "at 1", "1", "one", "at the true value", "the true value"),
            "OTHER": ("at another value", "another value", "-1.25", "at -1.25", "at a wrong value"),
            "TWO": ("at one of two values", "two values", "one of two", "at one of two"),
            "NOWHERE": ("nowhere", "at none", "none", "it grows for ever", "never", "it diverges"),
        },
    ),
    Value(
        "ex-contraction-row",
        lambda: _sums(1),
        (
            Mistake("first-row", "These are the sums of the first row", lambda: _sums(0)),
            Mistake(
                "step-alone",
                "That is how far the value moves; the value itself is still to be added",
                lambda: _sums(1, own=0.0),
            ),
            Mistake(
                "share-of-the-row",
                "Each TD error counts with the share of its own pair, so the two have different shares",
                lambda: _sums(1, shares=(0.8, 0.8)),
            ),
            Mistake("no-gamma", "The target is the largest value, times gamma", lambda: _sums(1, gamma=1.0)),
            Mistake(
                "exchanged",
                "The sum for the first action comes first, then the one for the second",
                lambda: _sums(1)[::-1],
            ),
        ),
        rtol=1e-3,
        hint="The second value moves by alpha K_21 rho_1 delta_1 + alpha K_22 rho_2 delta_2; write both TD errors in "
        "Q_1 and Q_2, and mind the signs.",
        insight="Each action stretches in another row: whichever is greedy, some difference grows.",
    ),
    Value(
        "ex-contraction-largest-step",
        _safe_steps,
        (
            Mistake(
                "share-forgotten",
                "In the theorem's condition on the step the share counts too: a pair moves with alpha K_ii rho_i",
                lambda: (1 / np.diag(examples.row_dominant().update.kernel).max(), _safe_steps()[1]),
            ),
            Mistake(
                "theorem-twice",
                "The theorem's step is enough, and not necessary: the modulus stays below 1 a little further",
                lambda: (_safe_steps()[0],) * 2,
            ),
            Mistake(
                "regression",
                "That is where regression overshoots; with a target that moves, the sup norm gives up earlier",
                lambda: _second_step(contraction.overshoot_limit),
            ),
            Mistake(
                "row-sum-bound",
                "Your second step is where the bound that knows no transitions reaches 1; the modulus knows them",
                lambda: _second_step(contraction.step_size_limit, gamma=0.9),
            ),
            Mistake("exchanged", "First the step of the theorem, then the real one", lambda: _safe_steps()[::-1]),
        ),
        rtol=1e-3,
        hint="For the first, read the theorem's condition on the step. For the second, raise alpha and watch "
        "the exact modulus.",
        insight="The theorem's step is enough, and not necessary: the modulus stays below 1 a little further.",
    ),
    Value(
        "ex-contraction-boundary",
        lambda: (np.eye(2), np.array([1.0, 0.0])),
        (
            Mistake(
                "strict",
                "All your margins are positive: with a short enough step that contracts, to one fixed point",
                lambda: (np.eye(2), np.array([0.5, 0.5])),
            ),
            Mistake(
                "one-fixed-point",
                "A margin is 0, but the kernel times the shares is not singular: then Q* is the only fixed point",
                lambda: (np.array([[19.0, 1.0], [1.0, 19.0]]), np.array([0.5, 0.5])),
            ),
            Mistake(
                "not-even-equal",
                "A row of yours fails at gamma = 0.9 even with <= in the place of <: its margin is negative",
                lambda: (np.array([[1.0, 0.2], [0.2, 1.0]]) / 2.8, np.array([0.5, 0.5])),
            ),
        ),
        judge=_on_the_edge,
        insight="With equality a difference may stay as it is, and then more than one table stays where it is.",
    ),
    Value(
        "ex-contraction-overshoot",
        lambda: (_changed(10.0), _changed(2.0)),
        (
            Mistake(
                "not-dominant",
                "A row of your kernel is not dominant, so that nothing is promised in the first place",
                lambda: (_changed(10.0, ((1.0, 0.5), (0.5, 1.0))), _changed(2.0)),
            ),
            Mistake(
                "no-divergence", "Your first update does not diverge, from any start", lambda: (_changed(2.0),) * 2
            ),
            Mistake(
                "exchanged", "First the update that diverges, then the repair", lambda: (_changed(2.0), _changed(10.0))
            ),
            Mistake(
                "other-data",
                "Your repair changes the kernel, the shares or the game; change the step",
                lambda: (_changed(10.0), _changed(10.0, ((0.1, 0.0), (0.0, 0.1)))),
            ),
            Mistake("not-repaired", "Your second update does not converge either", lambda: (_changed(10.0),) * 2),
        ),
        judge=_overshoot_and_repair,
        insight="Dominance speaks about directions, and not about the step: the best of kernels overshoots if it "
        "is too long.",
    ),
    Value(
        "ex-contraction-last-norm",
        lambda: 1.0,
        (
            Mistake(
                "sup-norm",
                "That is as far as the sup norm goes where the coupling is positive",
                lambda: (1 - 0.9) / (1 + 0.9),
            ),
            Mistake("gamma", "The discount has no part in it: follow the largest eigenvalue", lambda: 0.9),
            Mistake(
                "weights",
                "That is as far as the best weights go with a positive coupling: they still take the absolute value of "
                "every entry",
                lambda: 9 - np.sqrt(80),
            ),
        ),
        rtol=1e-3,
        hint="There is one policy, so one Jacobian: write it down, and follow its eigenvalues while the "
        "coupling rises.",
        insight="Of the positive couplings that are safe the sup norm sees a nineteenth, and another norm sees all.",
    ),
    Value(
        "ex-contraction-edge",
        lambda: _edge(lambda trace, determinant: trace * trace - 4 * determinant),
        (
            Mistake(
                "no-norm",
                "There an eigenvalue passes 1 in size, so that no norm contracts; but it is complex, and turns every "
                "path into the half-plane of the other action",
                lambda: _edge(lambda trace, determinant: trace - determinant),
            ),
            Mistake(
                "trace",
                "There the trace of G_1 is 0; for a negative real eigenvalue the discriminant counts, too",
                lambda: _edge(lambda trace, determinant: trace),
            ),
            Mistake(
                "definite",
                "That is where the kernel is no longer positive definite; runs leave long before",
                lambda: np.sqrt(np.linalg.det(np.diag(np.diag(examples.closed_orbit().update.kernel)))),
            ),
        ),
        rtol=4e-4,  # four digits may be 1.199
        hint="A path leaves along a ray that the update maps into itself. Write trace and determinant of G for each "
        "action, and ask when an eigenvalue is real, and on which side of 0.",
        insight="What grows has to stay in its half-plane while it does; a complex eigenvalue turns it out of there.",
    ),
    Function(
        "ex-contraction-fit",
        lambda fit, gamma: gamma * np.abs(fit).sum(axis=1).max(),
        (
            Mistake(
                "signs",
                "You add up the entries of a row with their signs; a negative entry stretches a difference as well",
                lambda fit, gamma: gamma * fit.sum(axis=1).max(),
            ),
            Mistake(
                "columns",
                "You add up columns; an entry of the fit is a row times the backups",
                lambda fit, gamma: gamma * np.abs(fit).sum(axis=0).max(),
            ),
            Mistake(
                "no-gamma",
                "That is the fit alone; the backup before it brings the tables closer by gamma",
                lambda fit, gamma: np.abs(fit).sum(axis=1).max(),
            ),
            Mistake(
                "eigenvalue",
                "That is the largest eigenvalue; in the sup norm a fit can stretch by more",
                lambda fit, gamma: gamma * np.abs(np.linalg.eigvals(fit)).max(),
            ),
            Mistake(
                "spectral-norm",
                "That is the largest singular value: how far a fit stretches lengths, and not the largest entry",
                lambda fit, gamma: gamma * np.linalg.norm(fit, ord=2),
            ),
        ),
        draw=lambda rng: (rng.standard_normal((4, 4)) / 2, float(rng.uniform(0.5, 0.99))),
        insight="An average passes the contraction of the backup on; least squares may stretch by more than the "
        "backup shrinks.",
    ),
)
