"""Chapter 5, first part: Reading the conditions."""

import numpy as np

from divergence_notes import contraction, diagnostics, updates
from divergence_notes.mdp import FiniteMDP, random_mdp
from divergence_notes.updates import KernelUpdate
from tests.equations import Equation
from tests.equations.contraction import anywhere, package_bound

DEFINITIONS: set[str] = set()

HALF = np.full(2, 0.5)


def spd(rng, n, coupling=1.0):
    """Return a random symmetric positive definite matrix; a small coupling makes its diagonal dominant."""
    A = rng.standard_normal((n, 2 * n))
    full = A @ A.T / (2 * n)
    own = np.diag(np.diag(full))
    return own + coupling * (full - own)


# --- both conditions ---


def step_cases(rng):
    """Return kernels with and without row dominance, step sizes on both sides of the limit."""
    found = []
    for coupling in (0.01, 0.02, 0.02, 1.0):
        for factor in (0.6, 0.97, 1.03, 1.7):
            kernel, weights = spd(rng, 3, coupling), rng.dirichlet(np.full(3, 30.0))
            limit = 2 / (1.5 * max(sum(abs(kernel[i, j]) * weights[j] for j in range(3)) for i in range(3)))
            found.append({"update": anywhere(kernel, weights, gamma=0.5, alpha=factor * limit)})
    return found


def both(update, *, sign=1, own=True, column=True, pick=max, dominance=True, bound=2):
    """Transcribe row dominance and eq-step-size-condition: the largest step size, and whether both hold."""
    kernel, weights, gamma, n = update.kernel, update.weights, update.mdp.gamma, len(update.kernel)
    front = 1 + sign * gamma
    pulls, rows = [], []
    for i in range(n):
        pulls.append(sum(abs(kernel[i, j]) * weights[j if column else i] for j in range(n) if own or j != i))
        others = sum(abs(kernel[i, j]) * weights[j] for j in range(n) if j != i)
        rows.append((1 + gamma) * others < (1 - gamma) * kernel[i, i] * weights[i])
    limit = bound / (front * pick(pulls))
    return np.array([limit, (all(rows) or not dominance) and update.alpha < limit])


def package_both(update):
    limit = contraction.step_size_limit(update.kernel, update.weights, gamma=update.mdp.gamma)
    return np.array([limit, package_bound(update) < 1])


# --- the row ratio ---


def ratio(kernel, *, absolute=True, diagonal=False, front=True, column=False):
    """Transcribe eq-row-ratio."""
    n = len(kernel)
    out = []
    for i in range(n):
        others = [j for j in range(n) if diagonal or j != i]
        parts = [kernel[i, j] / (kernel[j, j] if column else kernel[i, i]) for j in others]
        out.append(sum(abs(part) if absolute else part for part in parts) / (n if front else 1))
    return np.array(out)


def rows_hold(kernel, gamma, *, price=lambda g: (1 - g) / (1 + g), pairs=True):
    """Transcribe eq-ratio-condition, row by row."""
    n = len(kernel)
    own = [sum(abs(kernel[i, j]) / kernel[i, i] for j in range(n) if j != i) / n for i in range(n)]
    return np.array([(n if pairs else 1) * ratio < price(gamma) for ratio in own])


def ratio_cases(rng):
    """Return kernels whose rows lie on both sides of the condition."""
    found = []
    for gamma in (0.5, 0.9):
        for spread in (0.3, 0.8, 1.2, 3.0):
            n = 4
            kernel = np.eye(n) * rng.uniform(0.5, 2, n)
            signs = rng.choice([-1.0, 1.0], (n, n))
            share = (
                rng.dirichlet(np.ones(n - 1), n) * spread * (1 - gamma) / (1 + gamma) * rng.uniform(0.7, 1.3, (n, 1))
            )
            for i in range(n):
                kernel[i, np.arange(n) != i] = share[i] * kernel[i, i] * signs[i, np.arange(n) != i]
            found.append({"kernel": kernel, "gamma": gamma})
    return found


# --- the largest discount ---


def discount(update, *, absolute=True, column=True, pick=min, swap=False, diagonal=False):
    """Transcribe eq-discount-limit."""
    kernel, weights, n, found = update.kernel, update.weights, len(update.kernel), []
    for i in range(n):
        own = kernel[i, i] * weights[i]
        parts = [kernel[i, j] * weights[j if column else i] for j in range(n) if diagonal or j != i]
        others = sum(abs(part) if absolute else part for part in parts)
        found.append((own + others) / (own - others) if swap else (own - others) / (own + others))
    return max(pick(found), 0.0)


def discount_cases(rng):
    return [
        {"update": anywhere(spd(rng, n, coupling), rng.dirichlet(np.full(n, 20.0)), gamma=0)}
        for n in (2, 3, 5)
        for coupling in (0.05, 0.2, 1.0)
    ]


# --- missing data ---


def blocks(kernel, batch):
    outside = [i for i in range(len(kernel)) if i not in list(batch)]
    return kernel[np.ix_(batch, batch)], kernel[np.ix_(outside, batch)], outside


def spill(kernel, batch, *, divide=True, left=False, transpose=False):
    """Transcribe eq-spill."""
    inside, across, _ = blocks(kernel, batch)
    inverse = np.linalg.inv(inside) if divide else np.eye(len(batch))
    if left:
        return np.linalg.inv(np.delete(np.delete(kernel, batch, 0), batch, 1)) @ across
    return inverse.T @ across.T if transpose else across @ inverse


def spill_cases(rng):
    return [{"kernel": rng.standard_normal((5, 5)) + 4 * np.eye(5), "batch": [3, 0, 2]} for _ in range(4)]


def conserved(update, Q, batch, *, sign=-1.0, divide=True, keep=True):
    """Transcribe the right side of eq-conserved."""
    inside, across, outside = blocks(update.kernel, batch)
    q = np.asarray(Q).ravel()
    return q[outside] * keep + sign * across @ (np.linalg.inv(inside) if divide else np.eye(len(batch))) @ q[batch]


def package_conserved(update, Q, batch):
    after = update(Q).ravel()
    outside = [i for i in range(len(after)) if i not in list(batch)]
    return after[outside] - updates.spill(update.kernel, batch=batch) @ after[batch]


def conserved_cases(rng):
    found = []
    for _ in range(4):
        mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
        weights, batch = np.zeros(6), [4, 1, 5]
        weights[batch] = rng.dirichlet(np.ones(3))
        Q, update = rng.standard_normal((3, 2)), KernelUpdate(mdp, kernel=spd(rng, 6), weights=weights, alpha=0.7)
        found.append({"update": update, "Q": Q, "batch": batch})
    return found


# Two states that lead to state 2 and pay 1, spill 2: (1, 1) has 1 - 2 * 1 = -1, and keeps it.
TO_SECOND = FiniteMDP(np.array([[[0.0, 1.0]], [[0.0, 1.0]]]), np.ones((2, 1)), 0.9)
KEPT = KernelUpdate(TO_SECOND, kernel=[[1.0, 2.0], [2.0, 5.0]], weights=[1.0, 0.0], alpha=0.1)

# --- overshoot ---


def overshoot(update, *, bound=2.0, data=True, pick=max):
    """Transcribe eq-overshoot, the largest step size."""
    eigenvalues = np.linalg.eigvals(update.kernel * (update.weights if data else 1.0)).real
    return bound / pick(eigenvalues)


def overshoot_cases(rng):
    return [{"update": anywhere(spd(rng, 4), rng.dirichlet(np.ones(4)), gamma=0)} for _ in range(5)]


EQUATIONS = {
    "eq-step-size-condition": Equation(
        printed=both,
        package=package_both,
        cases=step_cases,
        # A table, two pairs, half the data each: 2 / (1.9 / 2), and 2.2 is too long.
        closed=({"update": anywhere(np.eye(2), HALF, gamma=0.9, alpha=2.2)}, np.array([2 / 0.95, 0.0])),
        wrong={
            "no gamma": lambda update: both(update, sign=0),
            "one minus gamma": lambda update: both(update, sign=-1),
            "own pull left out": lambda update: both(update, own=False),
            "rho_i for rho_j": lambda update: both(update, column=False),
            "some pair for every pair": lambda update: both(update, pick=min),
            "1 for 2": lambda update: both(update, bound=1),
            "or for and": lambda update: both(update, dominance=False),
        },
    ),
    "eq-row-ratio": Equation(
        printed=ratio,
        package=diagnostics.row_ratio,
        cases=lambda rng: [{"kernel": spd(rng, n)} for n in (2, 3, 6)],
        closed=({"kernel": np.array([[9.0, -2.5], [2.5, 1.0]])}, np.array([2.5 / 18, 1.25])),
        wrong={
            "no absolute value": lambda kernel: ratio(kernel, absolute=False),
            "diagonal counted": lambda kernel: ratio(kernel, diagonal=True),
            "no 1/N": lambda kernel: ratio(kernel, front=False),
            "K_jj for K_ii": lambda kernel: ratio(kernel, column=True),
        },
    ),
    "eq-ratio-condition": Equation(
        printed=rows_hold,
        package=lambda kernel, gamma: (
            contraction.row_dominance(kernel, np.full(len(kernel), 1 / len(kernel)), gamma=gamma) > 0
        ),
        cases=ratio_cases,
        # At 0.99 the others together may have 1/199 of the own pull: 1/200 will do, 1/198 will not.
        closed=({"kernel": np.array([[198.0, 1.0], [1.0, 200.0]]), "gamma": 0.99}, np.array([False, True])),
        wrong={
            "no N": lambda **k: rows_hold(**k, pairs=False),
            "no 1 + gamma": lambda **k: rows_hold(**k, price=lambda g: 1 - g),
            "upside down": lambda **k: rows_hold(**k, price=lambda g: (1 + g) / (1 - g)),
            "gamma for its complement": lambda **k: rows_hold(**k, price=lambda g: g / (1 + g)),
        },
    ),
    "eq-discount-limit": Equation(
        printed=discount,
        package=lambda update: contraction.discount_limit(update.kernel, update.weights),
        cases=discount_cases,
        # One part in 199: 0.99.
        closed=({"update": anywhere(np.array([[199.0, 1.0], [1.0, 300.0]]), HALF, gamma=0)}, 0.99),
        wrong={
            "no absolute value": lambda **k: discount(**k, absolute=False),
            "rho_i for rho_j": lambda **k: discount(**k, column=False),
            "best row": lambda **k: discount(**k, pick=max),
            "upside down": lambda **k: discount(**k, swap=True),
            "diagonal counted": lambda **k: discount(**k, diagonal=True),
        },
    ),
    "eq-spill": Equation(
        printed=spill,
        package=lambda kernel, batch: updates.spill(kernel, batch=batch),
        cases=spill_cases,
        closed=({"kernel": np.array([[1.0, 2.0], [2.0, 5.0]]), "batch": [1]}, np.array([[0.4]])),
        wrong={
            "not divided": lambda **k: spill(**k, divide=False),
            "block of the others": lambda kernel, batch: spill(kernel, batch, left=True),
            "transposed": lambda **k: spill(**k, transpose=True),
        },
    ),
    "eq-conserved": Equation(
        printed=conserved,
        package=package_conserved,
        cases=conserved_cases,
        closed=({"update": KEPT, "Q": np.ones((2, 1)), "batch": [0]}, np.array([-1.0])),
        wrong={
            "plus": lambda **k: conserved(**k, sign=1.0),
            "not divided": lambda **k: conserved(**k, divide=False),
            "only what spills": lambda **k: conserved(**k, keep=False),
        },
    ),
    "eq-overshoot": Equation(
        printed=overshoot,
        package=lambda update: contraction.overshoot_limit(update.kernel, update.weights),
        cases=overshoot_cases,
        closed=({"update": anywhere(np.array([[1.0, 0.5], [0.5, 1.0]]), HALF, gamma=0)}, 8 / 3),
        wrong={
            "1 for 2": lambda **k: overshoot(**k, bound=1.0),
            "no rho": lambda **k: overshoot(**k, data=False),
            "smallest eigenvalue": lambda **k: overshoot(**k, pick=min),
            "trace": lambda **k: overshoot(**k, pick=sum),
        },
    ),
}
