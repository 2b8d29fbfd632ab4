"""The graded questions of chapter 3: their numbers, their right answers, and the mistakes that are foreseen.

The text of the questions is in `coursework/source`; the exercises for practice come with the package. Nothing that is
here may reach a student: not by the release, not by the site, not by the wheel.
"""

import functools

import numpy as np
from grader import border, runs

from divergence_notes.grading import Choice, FindTheBug, Function, Mistake, Value
from divergence_notes.grading.comparison import numbers_of
from divergence_notes.grading.key_equation import seven_numbers

OWN = ("w", "v", "y", "z", "alpha", "run")
"""The numbers that are drawn for each student."""


def parameters(rng):
    """Draw the numbers of an edition."""
    return {
        "w": round(float(rng.uniform(0.6, 1.2)), 2),
        "v": round(float(rng.uniform(1.1, 2.0)), 2),
        "y": round(float(rng.uniform(-2.0, -0.5)), 2),
        "z": round(float(rng.uniform(2.2, 3.5)), 1),
        "alpha": round(float(rng.uniform(0.004, 0.012)), 4),
        "pieces": int(rng.integers(5, 50)),
        "pace": round(float(rng.uniform(0.02, 0.1)), 3),
        "times": round(float(rng.uniform(0.5, 3.0)), 1),
        "run": int(rng.integers(1, 1_000_000)),
    }


# Question 2: the kernel of a network with a head for each action.


def _heads(states, W, b, V, *, square=True, slope="full", bias=(1, 1), parts=("head", "trunk"), mix=None):
    """Return K[s, a, t, u], right by default; each keyword is something that can go wrong."""
    z = states @ W.T + b
    h = np.tanh(z)
    turn = {"full": 1 - h**2, "no square": 1 - h, "none": np.ones_like(h), "first": 1 - h**2}[slope]
    other = np.ones_like(h) if slope == "first" else turn
    same = np.eye(len(V))
    head = np.einsum("st,au->satu", h @ h.T + bias[0], np.ones_like(same) if mix == "one head" else same)
    left = np.einsum("ak,sk->sak", V**2 if not square else V, turn)
    right = np.einsum("uk,tk->tuk", np.ones_like(V) if not square else V, other)
    trunk = np.einsum("sak,tuk,st->satu", left, right, states @ states.T + bias[1])
    if mix == "apart":
        trunk = trunk * same[None, :, None, :]
    return ("head" in parts) * head + ("trunk" in parts) * trunk


def _network(rng):
    n_states, n_features, n_units, n_actions = (int(rng.integers(2, high)) for high in (5, 4, 5, 4))
    sizes = (n_states, n_features), (n_units, n_features), (n_units,), (n_actions, n_units)
    return tuple(rng.standard_normal(size) for size in sizes)


HEADS = Function(
    "key-equation-heads",
    _heads,
    (
        Mistake(
            "one-head",
            "Your heads share their weights: two actions have no weight of the last layer in common",
            lambda *network: _heads(*network, mix="one head"),
        ),
        Mistake(
            "heads-apart",
            "Your actions do not pull at each other at all, though all of them move the trunk",
            lambda *network: _heads(*network, mix="apart"),
        ),
        Mistake(
            "no-trunk",
            "Only the last layer moves in your kernel: the gradients in W and b are missing",
            lambda *network: _heads(*network, parts=("head",)),
        ),
        Mistake(
            "no-head",
            "Only the trunk moves in your kernel: the gradients in V and c are missing",
            lambda *network: _heads(*network, parts=("trunk",)),
        ),
        Mistake(
            "no-head-bias",
            "The bias c of a head is a parameter too, with the derivative 1",
            lambda *network: _heads(*network, bias=(0, 1)),
        ),
        Mistake(
            "no-trunk-bias",
            "The bias b of the trunk is missing: it acts like one more input that is always 1",
            lambda *network: _heads(*network, bias=(1, 0)),
        ),
        Mistake(
            "no-biases",
            "Both biases are missing: they are parameters and move too",
            lambda *network: _heads(*network, bias=(0, 0)),
        ),
        Mistake(
            "slope-without-square",
            "The slope of tanh is 1 - tanh^2, and not 1 - tanh",
            lambda *network: _heads(*network, slope="no square"),
        ),
        Mistake(
            "no-slope",
            "The slope of tanh is missing in the gradients of W and b",
            lambda *network: _heads(*network, slope="none"),
        ),
        Mistake(
            "one-slope",
            "The slope of tanh is there for one of the two states only, so that your kernel is not symmetric",
            lambda *network: _heads(*network, slope="first"),
        ),
        Mistake(
            "one-weight-squared",
            "You square the weight of one action; each of the two pairs brings the weight of its own action",
            lambda *network: _heads(*network, square=False),
        ),
    ),
    draw=_network,
)


# Question 3: what a step does to the TD errors of its own batch.


def _after(J, q, pairs, rewards, next_pairs, ended, gamma, alpha, *, fault=None):
    goes_on = np.ones(len(pairs)) if fault == "through the end" else 1 - ended.astype(float)
    delta = rewards + gamma * goes_on * q[next_pairs] - q[pairs]
    pull = np.zeros(len(q))
    if fault == "last of a pair":
        pull[pairs] = delta
    else:
        np.add.at(pull, pairs, delta)
    if fault == "residual":
        np.add.at(pull, next_pairs, -gamma * goes_on * delta)
    count = {"sum": 1, "different pairs": len(set(pairs.tolist())), "all pairs": len(q)}.get(fault, len(pairs))
    K = J @ J.T
    if fault == "diagonal":
        K = np.diag(np.diag(K))
    change = (-1 if fault == "sign" else 1) * alpha / count * K @ pull
    if fault == "batch only":
        change = np.where(np.isin(np.arange(len(q)), pairs), change, 0.0)
    if fault == "still":
        return delta - change[pairs]
    if fault == "end once":
        goes_on = 1.0
    return delta + (1 if fault == "no gamma" else gamma) * goes_on * change[next_pairs] - change[pairs]


def _faulty(fault):
    return lambda *args: _after(*args, fault=fault)


def _transitions(rng):
    n, size, width = int(rng.integers(5, 8)), int(rng.integers(6, 9)), int(rng.integers(3, 6))
    pairs = rng.integers(n - 1, size=size)  # never the last one: it moves all the same
    next_pairs, ended = rng.integers(n, size=size), rng.random(size) < 0.3
    pairs[:3], next_pairs[:3], ended[:3] = (1, 1, 0), (n - 1, 0, 2), (False, False, True)
    drawn = rng.standard_normal((n, width)), rng.standard_normal(n), pairs, rng.standard_normal(size)
    return *drawn, next_pairs, ended, float(rng.uniform(0.5, 0.95)), float(rng.uniform(0.05, 0.5))


AFTER = Function(
    "key-equation-errors-after",
    _after,
    (
        Mistake(
            "target-stands-still",
            "Your targets are the old ones; after the step they are made from values that have moved",
            _faulty("still"),
        ),
        Mistake(
            "through-the-end",
            "You bootstrap after a step that ended the episode",
            _faulty("through the end"),
        ),
        Mistake(
            "end-forgotten-afterwards",
            "You respect the end of an episode before the step, but after it you add the change of a value that does "
            "not count",
            _faulty("end once"),
        ),
        Mistake(
            "last-of-a-pair",
            "A pair that was drawn twice pulls once in your step: indexing with repeated numbers keeps the last one",
            _faulty("last of a pair"),
        ),
        Mistake("sum", "You add up over the batch where the loss is a mean", _faulty("sum")),
        Mistake(
            "mean-over-different-pairs",
            "You divide by the number of different pairs; a pair that was drawn twice counts twice",
            _faulty("different pairs"),
        ),
        Mistake(
            "mean-over-all-pairs",
            "You divide by the number of all pairs; a share is a share of the batch",
            _faulty("all pairs"),
        ),
        Mistake(
            "diagonal",
            "In your prediction a pair is moved by its own draws only: the kernel off the diagonal is missing",
            _faulty("diagonal"),
        ),
        Mistake(
            "batch-only",
            "In your prediction a pair that was not drawn does not move; a next pair need not have been drawn",
            _faulty("batch only"),
        ),
        Mistake(
            "through-the-target",
            "Your step differentiates the target as well; that is the residual gradient, and not the semi-gradient",
            _faulty("residual"),
        ),
        Mistake("no-gamma", "The change of the next value is not discounted", _faulty("no gamma")),
        Mistake("sign", "Your step goes away from the targets", _faulty("sign")),
    ),
    draw=_transitions,
)


# Question 4: one ReLU unit, by hand.


def _unit(rng, **given):
    return tuple(given[name] for name in ("w", "v", "y", "z", "alpha"))


def _missed(w, v, y, z, alpha):
    return alpha**2 * (y - v * w) ** 2 * w * v * (z + 1)


MISSED = Value(
    "key-equation-missed",
    _missed,
    (
        Mistake(
            "half",
            "That is half of it: the factor 1/2 of the second order meets two equal mixed derivatives",
            lambda *unit: _missed(*unit) / 2,
        ),
        Mistake(
            "no-bias",
            "The bias of the unit moves too, and moves what the unit gives",
            lambda w, v, y, z, alpha: _missed(w, v, y, z, alpha) * z / (z + 1),
        ),
        Mistake(
            "trained-input",
            "That is missed at the input that was trained; the question is about z",
            lambda w, v, y, z, alpha: _missed(w, v, y, 1, alpha),
        ),
        Mistake(
            "first-order",
            "That is the predicted change itself, and not what it misses",
            lambda w, v, y, z, alpha: alpha * (y - v * w) * (w * w * z + v * v * (z + 1) + 1),
        ),
        Mistake(
            "alpha-once",
            "Both factors move, each in proportion to alpha: it enters squared",
            lambda w, v, y, z, alpha: _missed(w, v, y, z, alpha) / alpha,
        ),
        Mistake(
            "error-once",
            "Both factors move, each in proportion to the TD error: it enters squared",
            lambda w, v, y, z, alpha: _missed(w, v, y, z, alpha) / (y - v * w),
        ),
    ),
    draw=_unit,
    rtol=1e-3,
)


def _breaks(w, v, y, z, alpha):
    return w * z / (-(y - v * w) * v * (z + 1))


BREAKS = Value(
    "key-equation-breaks",
    _breaks,
    (
        Mistake(
            "no-bias",
            "The bias of the unit falls too, so the unit switches off earlier than that",
            lambda w, v, y, z, alpha: w / (-(y - v * w) * v),
        ),
        Mistake(
            "trained-input",
            "That is where the unit switches off at the input that was trained; the question is about z",
            lambda w, v, y, z, alpha: _breaks(w, v, y, 1, alpha),
        ),
        Mistake(
            "weight-that-leaves",
            "That is where the weight v reaches 0; the formula does not mind, it is the unit's own sign that counts",
            lambda w, v, y, z, alpha: v / (-(y - v * w) * w),
        ),
        Mistake(
            "no-outgoing-weight",
            "The gradients in w and b carry the factor v",
            lambda w, v, y, z, alpha: _breaks(w, v, y, z, alpha) * v,
        ),
        Mistake(
            "reaches-the-target",
            "That is where the prediction reaches the target at the trained input, which no unit has to notice",
            lambda w, v, y, z, alpha: 1 / (w * w + 2 * v * v + 1),
        ),
        Mistake(
            "sign",
            "A step size is positive: mind that the TD error is negative",
            lambda *unit: -_breaks(*unit),
        ),
    ),
    draw=_unit,
    rtol=1e-3,
)

PIECES = Choice(
    "key-equation-pieces",
    "D",
    (
        Mistake(
            "slope-one-throughout",
            "Every error would have to be that of a step from the kink; ask where the second short step starts",
            "A",
        ),
        Mistake(
            "slope-two-throughout",
            "That is how much smaller one error is away from the kink; here there are many errors, and the first is "
            "made at the kink",
            "B",
        ),
        Mistake(
            "no-error",
            "The first short step switches the unit on, which its own prediction does not see, however short it is",
            "C",
        ),
    ),
)


# Question 5: a step with a slow copy.


def slow_step(Q, slow, mdp, kernel, rho, alpha, tau):
    """Return the values and the slow copy after one step by the key equation without remainder, in one array."""
    return _slow(Q, slow, mdp, kernel, rho, alpha, tau)


def _goal(Q, mdp):
    return mdp.flatten(mdp.R + mdp.gamma * (mdp.transitions @ Q.max(axis=1)).reshape(mdp.R.shape))


def _slow(Q, slow, mdp, kernel, rho, alpha, tau, *, goal=None, base=None, move=None):
    """Return the right step, but for what is handed in."""
    delta = (_goal(slow, mdp) if goal is None else goal) - mdp.flatten(Q if base is None else base)
    moved = Q + mdp.unflatten(alpha * kernel @ (rho * delta) if move is None else move(delta))
    return np.stack([moved, (1 - tau) * slow + tau * moved])


def _endless(Q, mdp):
    lost = 1 - mdp.transitions.sum(axis=1)
    return _goal(Q, mdp) + mdp.gamma * lost * Q.max(axis=1)[0]


def _lagging(Q, slow, mdp, kernel, rho, alpha, tau):
    moved = slow_step(Q, slow, mdp, kernel, rho, alpha, tau)[0]
    return np.stack([moved, (1 - tau) * slow + tau * Q])


BUG = FindTheBug(
    "key-equation-find-the-bug",
    slow_step,
    (
        Mistake(
            "rho-of-the-row",
            "weights a change by the share of the pair that is moved, and not of the pair that pulls",
            lambda Q, slow, mdp, kernel, rho, alpha, tau: _slow(
                Q, slow, mdp, kernel, rho, alpha, tau, move=lambda delta: alpha * rho * (kernel @ delta)
            ),
        ),
        Mistake(
            "transposed",
            "uses the kernel transposed",
            lambda Q, slow, mdp, kernel, rho, alpha, tau: slow_step(Q, slow, mdp, kernel.T, rho, alpha, tau),
        ),
        Mistake(
            "sign",
            "moves away from the targets",
            lambda Q, slow, mdp, kernel, rho, alpha, tau: slow_step(Q, slow, mdp, -kernel, rho, alpha, tau),
        ),
        Mistake(
            "no-alpha",
            "leaves out the step size",
            lambda Q, slow, mdp, kernel, rho, alpha, tau: slow_step(Q, slow, mdp, kernel, rho, 1.0, tau),
        ),
        Mistake(
            "diagonal",
            "moves a pair by its own TD error only",
            lambda Q, slow, mdp, kernel, rho, alpha, tau: slow_step(
                Q, slow, mdp, np.diag(np.diag(kernel)), rho, alpha, tau
            ),
        ),
        Mistake(
            "uniform",
            "forgets how often a pair is drawn",
            lambda Q, slow, mdp, kernel, rho, alpha, tau: slow_step(
                Q, slow, mdp, kernel, np.full(len(rho), 1 / len(rho)), alpha, tau
            ),
        ),
        Mistake(
            "sum-for-mean",
            "adds up over the pairs where the loss is a mean",
            lambda Q, slow, mdp, kernel, rho, alpha, tau: slow_step(Q, slow, mdp, kernel, rho * len(rho), alpha, tau),
        ),
        Mistake(
            "fast-target",
            "makes its targets from the values themselves, and not from the slow copy",
            lambda Q, slow, mdp, kernel, rho, alpha, tau: _slow(
                Q, slow, mdp, kernel, rho, alpha, tau, goal=_goal(Q, mdp)
            ),
        ),
        Mistake(
            "slow-base",
            "measures the error of the slow copy, and not of the values that it moves",
            lambda Q, slow, mdp, kernel, rho, alpha, tau: _slow(Q, slow, mdp, kernel, rho, alpha, tau, base=slow),
        ),
        Mistake("lagging", "mixes the values of before the step into the slow copy", _lagging),
        Mistake(
            "tau-swapped",
            "keeps the part tau of the slow copy, and takes the rest from the values",
            lambda Q, slow, mdp, kernel, rho, alpha, tau: slow_step(Q, slow, mdp, kernel, rho, alpha, 1 - tau),
        ),
        Mistake(
            "through-the-end",
            "bootstraps after a step that ends the episode",
            lambda Q, slow, mdp, kernel, rho, alpha, tau: _slow(
                Q, slow, mdp, kernel, rho, alpha, tau, goal=_endless(slow, mdp)
            ),
        ),
    ),
)


# Question 6: a step whose prediction has the wrong sign.

SMALLEST, LARGEST = 0.01, 1000


def _against(pace, times, *, turn=0.75, part=0.5, h=1.0, lift=0.0, x=2.0):
    """Return w, b, v, c, both inputs and the target: the unit gives h at both, and falls by turn * h at the first."""
    pull = x * x - 1  # minus the inner product of the inputs, bias included
    v = np.sqrt((h * h + 1 - part / (1 + times)) / pull)
    error = turn * h / (pull * v) / pace
    return np.array([0.0, h, v, lift, -x, x, v * h + lift + error])


def _wrong_way(answer, pace, times):
    """Judge a network of one ReLU unit by the step that it really takes."""
    import torch

    from divergence_notes import networks, ntk, updates

    seven_numbers(answer)  # which says what each of them is
    found = numbers_of(answer, (7,))
    if np.abs(found).max() > LARGEST:
        return f"A number is larger than {LARGEST} in size"
    options = {"activation": "relu", "generator": torch.Generator(), "dtype": torch.float64}
    net = networks.MLP([1, 1, 1], **options)
    torch.nn.utils.vector_to_parameters(torch.tensor(found[:4]), net.parameters())
    x, goal, share = torch.tensor(found[4:6, None]), np.array([0.0, found[6]]), np.array([0.0, 1.0])
    stepped = networks.semi_gradient_step(net, x, goal, weights=share, alpha=pace)
    before, after = (each[0](x).detach().numpy().ravel() for each in (net, stepped))
    q, kernel = networks.values(net, x), ntk.gram(net, x).numpy()
    predicted = updates.predicted_change(kernel, share, goal - q, alpha=pace)[0]
    real = (networks.values(stepped, x) - q)[0]
    if before.min() <= 0:
        return "off"
    if after.min() <= 0:
        return "switches"
    if abs(predicted) < SMALLEST:
        return "nothing-predicted"
    if real * predicted >= 0:
        return "same-direction"
    return None if abs(real) >= times * abs(predicted) * (1 - 1e-9) else "too-little"


AGAINST = Value(
    "key-equation-against",
    _against,
    (
        Mistake(
            "off",
            "The unit is off at one of the inputs before the step, so that nothing there is bent",
            lambda pace, times: np.array([1.0, 0.0, 1.0, 0.0, -1.0, 1.0, 2.0]),
        ),
        Mistake(
            "switches",
            "The unit switches off at one of the inputs during the step; the sign must turn without a kink",
            lambda pace, times: _against(pace, times, turn=1.5),
        ),
        Mistake(
            "nothing-predicted",
            f"The predicted change is smaller than {SMALLEST}; one that is next to nothing is easily turned round",
            lambda pace, times: _against(pace, times, part=0.001),
        ),
        Mistake(
            "same-direction",
            "The first value moves in the direction that was predicted. Which of the terms of the kernel can be "
            "negative, and what must the two inputs be like for that",
            lambda pace, times: np.array([0.5, 1.0, 1.0, 0.0, 1.0, 2.0, 3.0]),
        ),
        Mistake(
            "too-little",
            "The first value moves against the prediction, but not far enough: make the predicted change smaller, or "
            "the step longer",
            lambda pace, times: _against(pace, times, turn=0.55 / (1 + times), part=2.0, h=2.0),
        ),
    ),
    draw=lambda rng, **given: (given["pace"], given["times"]),
    judge=_wrong_way,
)


# Question 7: the kernel of the start.


@functools.lru_cache(maxsize=8)
def trained(run, alpha=0.01, time=1000):
    """Return what the loop in the notebook does: what is learned, what the first kernel promises, what is missed."""
    inputs, weights = np.linspace(-1.5, 1.5, 7), np.random.default_rng(run).standard_normal((3, 8))
    goal, share, left_out = np.sin(3 * inputs), np.full(7, alpha / 6), 4
    share[left_out] = 0.0

    def values():
        h = np.tanh(inputs[:, None] * weights[0] + weights[1])
        slope = weights[2] * (1 - h * h)
        return h @ weights[2], np.concatenate([slope * inputs[:, None], slope, h], axis=1)

    learned, J = values()
    first, promised, missed = J @ J.T, learned, 0.0
    for _ in range(round(time / alpha)):
        step = (share * (goal - learned)) @ J
        predicted = learned[left_out] + J[left_out] @ step
        promised = promised + first @ (share * (goal - promised))
        weights = weights + step.reshape(3, 8)
        learned, J = values()
        missed += abs(learned[left_out] - predicted)
    return float(learned[left_out]), float(promised[left_out]), float(missed)


def spoken(numbers):
    """Return what an oral check may ask about the run of question 7, and what is right."""
    lines = {alpha: trained(numbers["run"], alpha) for alpha in (0.1, 0.01)}
    read = "; ".join(f"alpha = {a}: {q:.4f}, {p:.4f}, missed {m:.5f}" for a, (q, p, m) in lines.items())
    return [
        (
            "Read me the three lines of your run. What stays the same from line to line, and what does not?",
            f"{read}. In the third line the first two are the same to about three places, and what is missed is about "
            f"{lines[0.01][2] / 10:.5f}.",
        ),
    ]


def _read_off(value, run):
    learned, promised, missed = trained(run)
    known = [
        (None, promised - learned),
        ("sign", learned - promised),
        ("promise", promised),
        ("learned", learned),
        ("remainders", missed),
    ]
    other = "That is not what your run shows. Run the cell with your own name in the notebook, and read its second line"
    return runs.nearest(value, known, within=2.5e-4, otherwise=other)


LONG = Value(
    "key-equation-kernel-of-the-start",
    lambda run: round(trained(run)[1] - trained(run)[0], 4),
    (
        Mistake("sign", "Take what is learned from what is promised", lambda run: trained(run)[0] - trained(run)[1]),
        Mistake(
            "promise",
            "That is what the kernel of the start promises, and not how far off it is",
            lambda run: trained(run)[1],
        ),
        Mistake("learned", "That is what is learned, and not how far off the promise is", lambda run: trained(run)[0]),
        Mistake(
            "remainders",
            "That is what is missed with the kernel as it is in each step; the question is about that of the start",
            lambda run: trained(run)[2],
        ),
    ),
    judge=_read_off,
    draw=lambda rng, **given: (given["run"],),
)


def _accept(Q, slow, mdp, kernel, rho, alpha, tau):
    mdp = border.process("mdp", mdp)
    Q, slow = border.numbers("Q", Q, *mdp.R.shape), border.numbers("slow", slow, *mdp.R.shape)
    kernel, rho = border.numbers("kernel", kernel, mdp.n_pairs, mdp.n_pairs), border.numbers("rho", rho, mdp.n_pairs)
    return Q, slow, mdp, kernel, rho, border.number("alpha", alpha), border.number("tau", tau)


BUG = border.bordered(BUG, _accept)

EXERCISES = (HEADS, AFTER, MISSED, BREAKS, PIECES, BUG, AGAINST, LONG)
