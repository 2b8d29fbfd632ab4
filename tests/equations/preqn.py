"""Chapter 6, first part: What if we undo the kernel?"""

import numpy as np

from divergence_notes import updates
from divergence_notes.mdp import FiniteMDP, random_mdp
from tests.equations import Equation

DEFINITIONS: set[str] = set()


def td_error(Q, mdp):
    """Return T* Q - Q as a vector, by loops."""
    Q = np.asarray(Q)
    best = [max(row) for row in Q]
    ahead = np.array([[sum(p * v for p, v in zip(chances, best, strict=True)) for chances in s] for s in mdp.P])
    return (mdp.R + mdp.gamma * ahead - Q).ravel()


def outside_of(kernel, batch):
    return [i for i in range(len(kernel)) if i not in list(batch)]


# --- the step ---


def step_cases(rng):
    found = []
    for _ in range(4):
        mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
        given = {"theta": rng.standard_normal(9), "phi": rng.standard_normal((6, 9)), "mdp": mdp}
        found.append({**given, "batch": [5, 0, 2], "alpha": 0.3})
    return found


# One state, one action, reward 1, features (1, 2), weights 0: the error is 1, the gradient has length 5 squared.
ONE = {
    "theta": np.zeros(2),
    "phi": np.array([[1.0, 2.0]]),
    "mdp": FiniteMDP(np.ones((1, 1, 1)), np.ones((1, 1)), 0.5),
    "batch": [0],
    "alpha": 0.5,
}


def error_of(theta, phi, mdp, batch):
    return td_error((phi @ theta).reshape(mdp.n_states, mdp.n_actions), mdp)[batch]


def wish(theta, phi, mdp, batch, alpha, *, sign=1.0, scaled=True, mean=False):
    """Transcribe the right side of eq-wish."""
    out = sign * (alpha if scaled else 1.0) * error_of(theta, phi, mdp, batch)
    return out / (2 * len(batch)) if mean else out


def package_change(theta, phi, mdp, batch, alpha):
    return updates.minimum_norm_step(theta, phi, mdp, batch=batch, alpha=alpha) - theta


def shortest(theta, phi, mdp, batch, alpha, *, divide=True, diagonal=False, sign=1.0, whole=False):
    """Transcribe eq-minimum-norm-step."""
    rows = phi[batch]
    K = rows @ rows.T
    if diagonal:
        K = np.diag(np.diag(K))
    delta = error_of(theta, phi, mdp, batch)
    if whole:
        everything = np.zeros(len(phi))
        everything[batch] = delta
        return alpha * phi.T @ np.linalg.pinv(phi @ phi.T) @ everything
    return sign * alpha * rows.T @ ((np.linalg.inv(K) if divide else np.eye(len(K))) @ delta)


# --- the update ---


def table_cases(rng):
    found = []
    for _ in range(4):
        mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
        A = rng.standard_normal((6, 9))
        given = {"Q": rng.standard_normal((3, 2)), "mdp": mdp, "kernel": A @ A.T}
        found.append({**given, "batch": [4, 1, 3], "alpha": 0.6})
    return found


def undone(Q, mdp, kernel, batch, alpha, *, divide=True, outside=True, transpose=False, everything=False, scaled=True):
    """Transcribe eq-preconditioned-update."""
    delta = td_error(Q, mdp)
    columns, block = kernel[:, batch], kernel[np.ix_(batch, batch)]
    change = columns @ ((np.linalg.inv(block) if divide else np.eye(len(block))) @ delta[batch])
    if transpose:
        change = np.linalg.inv(kernel)[:, batch] @ block @ delta[batch]
    if everything:
        change = delta
    if not outside:
        change[outside_of(kernel, batch)] = 0.0
    return np.asarray(Q) + (alpha if scaled else 1.0) * change.reshape(np.shape(Q))


# The pair at (1, 0) with the second action in the batch: its error is 0.9, the first action is dragged by 2.5.
PAIR = {
    "Q": np.array([[1.0, 0.0]]),
    "mdp": FiniteMDP(np.ones((1, 2, 1)), np.zeros((1, 2)), 0.9),
    "kernel": np.array([[9.0, 2.5], [2.5, 1.0]]),
    "batch": [1],
    "alpha": 0.1,
}

# --- the loop gain ---


def gain(kernel, batch, gamma, *, discount=True, absolute=True, columns=False, pick=max, divide=True):
    """Transcribe eq-loop-gain."""
    out = outside_of(kernel, batch)
    inside = kernel[np.ix_(batch, batch)]
    W = kernel[np.ix_(out, batch)] @ (np.linalg.inv(inside) if divide else np.eye(len(batch)))
    if columns:
        W = W.T
    totals = [sum(abs(w) if absolute else w for w in row) for row in W]
    return (gamma if discount else 1.0) * pick(totals)


def gain_cases(rng):
    found = []
    for _ in range(4):
        A = rng.standard_normal((6, 9))
        found.append({"kernel": A @ A.T, "batch": [4, 1, 3], "gamma": 0.8})
    return found


def rate(kernel, alpha, gamma, *, pick=max, square=1.0, scaled=True):
    """Transcribe eq-leaf-rate for two pairs, the first of them in the batch."""
    g = gamma * abs(kernel[1][0] / kernel[0][0])
    return 1 - (alpha if scaled else 1.0) * (1 - square * pick([gamma, g]))


def package_rate(kernel, alpha, gamma):
    """Return what becomes of a distance of 1 between two tables that keep the same Q_o - W Q_B, at worst."""
    spilled = updates.spill(kernel, batch=[0]).item()
    found = []
    for state in (0, 1):
        P = np.zeros((2, 1, 2))
        P[:, :, state] = 1.0
        mdp = FiniteMDP(P, np.ones((2, 1)), gamma)
        update = updates.Update.preconditioned(mdp, kernel=kernel, batch=[0], alpha=alpha)
        here, there = np.array([[1.5], [0.2]]), np.array([[0.5], [0.2 - spilled]])
        found.append(update(here) - update(there))
    return max(abs(difference[0, 0]) for difference in found)


def rate_cases(rng):
    """Return kernels with a spill on both sides of 1; it is positive, so that the bound is reached."""
    spills = (0.3, 0.8, 1.05, 2.0)
    return [
        {"kernel": np.array([[2.0, 2 * w], [2 * w, 2 * w**2 + 1]]), "alpha": alpha, "gamma": rng.uniform(0.3, 0.95)}
        for w in spills
        for alpha in (0.2, 1.0)
    ]


EQUATIONS = {
    "eq-wish": Equation(
        printed=wish,
        package=lambda phi, batch, **k: phi[batch] @ package_change(phi=phi, batch=batch, **k),
        cases=step_cases,
        closed=(ONE, np.array([0.5])),
        wrong={
            "away from the target": lambda **k: wish(**k, sign=-1.0),
            "no alpha": lambda **k: wish(**k, scaled=False),
            "mean over the batch": lambda **k: wish(**k, mean=True),
        },
    ),
    "eq-minimum-norm-step": Equation(
        printed=shortest,
        package=package_change,
        cases=step_cases,
        closed=(ONE, np.array([0.1, 0.2])),
        wrong={
            "not divided": lambda **k: shortest(**k, divide=False),
            "diagonal only": lambda **k: shortest(**k, diagonal=True),
            "away from the target": lambda **k: shortest(**k, sign=-1.0),
            "kernel of all pairs": lambda **k: shortest(**k, whole=True),
        },
    ),
    "eq-preconditioned-update": Equation(
        printed=undone,
        package=lambda Q, mdp, kernel, batch, alpha: updates.Update.preconditioned(
            mdp, kernel=kernel, batch=batch, alpha=alpha
        )(Q),
        cases=table_cases,
        closed=(PAIR, np.array([[1.225, 0.09]])),
        wrong={
            "not divided": lambda **k: undone(**k, divide=False),
            "nothing spills": lambda **k: undone(**k, outside=False),
            "inverse on the wrong side": lambda **k: undone(**k, transpose=True),
            "as if the batch were everything": lambda **k: undone(**k, everything=True),
            "no alpha": lambda **k: undone(**k, scaled=False),
        },
    ),
    "eq-loop-gain": Equation(
        printed=gain,
        package=lambda kernel, batch, gamma: updates.loop_gain(kernel, batch=batch, gamma=gamma),
        cases=gain_cases,
        closed=({"kernel": np.array([[9.0, 2.5], [2.5, 1.0]]), "batch": [1], "gamma": 0.9}, 2.25),
        wrong={
            "no gamma": lambda **k: gain(**k, discount=False),
            "no absolute value": lambda **k: gain(**k, absolute=False),
            "column sums": lambda **k: gain(**k, columns=True),
            "smallest row": lambda **k: gain(**k, pick=min),
            "not divided": lambda **k: gain(**k, divide=False),
        },
    ),
    "eq-leaf-rate": Equation(
        printed=rate,
        package=package_rate,
        cases=rate_cases,
        # A spill of 2 at gamma = 0.49: the full step multiplies the distance by 0.98.
        closed=({"kernel": np.array([[1.0, 2.0], [2.0, 5.0]]), "alpha": 1.0, "gamma": 0.49}, 0.98),
        wrong={
            "smaller of the two": lambda **k: rate(**k, pick=min),
            "sum of the two": lambda **k: rate(**k, pick=sum),
            "gamma twice": lambda kernel, alpha, gamma: rate(kernel, alpha, gamma, square=gamma),
            "no alpha": lambda **k: rate(**k, scaled=False),
        },
    ),
}
