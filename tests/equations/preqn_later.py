"""Chapter 6, third part: What does an older remedy do to the kernel?"""

import numpy as np
import torch

from divergence_notes import examples, networks, remedies, updates
from divergence_notes.mdp import FiniteMDP, random_mdp
from tests.equations import Equation
from tests.equations.preqn import table_cases, td_error
from tests.equations.preqn_networks import gradients, linear_net

DEFINITIONS: set[str] = set()


def standing(update, Q, inner, *, power=None, outer=True, plain=False):
    """Transcribe eq-frozen-target."""
    n = Q.size
    pull = update.alpha * update.kernel @ np.diag(update.weights)
    bracket = np.eye(n) - np.linalg.matrix_power(np.eye(n) - pull, inner if power is None else power(inner))
    if not outer:
        bracket = np.linalg.matrix_power(np.eye(n) - pull, inner)
    if plain:
        bracket = inner * pull
    return Q + (bracket @ td_error(Q, update.mdp)).reshape(Q.shape)


def standing_cases(rng):
    return [
        {
            "update": updates.KernelUpdate(
                case["mdp"], kernel=case["kernel"], weights=rng.dirichlet(np.ones(6)), alpha=0.1
            ),
            "Q": case["Q"],
            "inner": inner,
        }
        for case, inner in zip(table_cases(rng), (1, 2, 3, 6), strict=True)
    ]


def excited(net, x, following, reward, gamma, alpha, *, sign=1.0, discount=True, mean=True, same=False):
    """Transcribe eq-self-excitation."""
    J, ahead = gradients(net, x), gradients(net, x if same else following)
    with torch.no_grad():
        u = (reward + gamma * net(following)[:, 0] - net(x)[:, 0]).numpy()
    bracket = (gamma if discount else 1.0) * ahead @ J.T - sign * J @ J.T
    return u + alpha / (len(x) if mean else 1) * bracket @ u


def package_excited(net, x, following, reward, gamma, alpha):
    """Take a real step of a network whose first order is exact, and look at the errors after it."""
    target = reward.numpy() + gamma * networks.values(net, following)
    stepped = networks.semi_gradient_step(net, x, target, weights=np.full(len(x), 1 / len(x)), alpha=alpha)
    return reward.numpy() + gamma * networks.values(stepped, following) - networks.values(stepped, x)


def excited_cases(rng):
    return [
        {
            "net": linear_net(rng.standard_normal(4)),
            "x": torch.as_tensor(rng.standard_normal((5, 4))),
            "following": torch.as_tensor(rng.standard_normal((5, 4))),
            "reward": torch.as_tensor(rng.standard_normal(5)),
            "gamma": 0.8,
            "alpha": 0.3,
        }
        for _ in range(3)
    ]


# w -> 2w at w = 1: the error 2 gamma - 1 = 0.8 grows by the factor 1 + alpha (2 gamma - 1).
ONE_TO_TWO = {
    "net": linear_net([1.0]),
    "x": torch.ones(1, 1).double(),
    "following": torch.full((1, 1), 2.0).double(),
    "reward": torch.zeros(1).double(),
    "gamma": 0.9,
    "alpha": 0.5,
}


# --- a target network that waits ---


def factor(update, inner, *, gamma=None, columns=False, entry=False, whole=False, shift=0):
    """Transcribe eq-target-modulus: the factor in front of the distance."""
    n = len(update.kernel)
    E = np.linalg.matrix_power(np.eye(n) - update.alpha * update.kernel @ np.diag(update.weights), inner + shift)
    rest = np.eye(n) if whole else np.eye(n) - E
    gamma = update.mdp.gamma if gamma is None else gamma
    size = (lambda A: max(abs(A).sum(axis=0 if columns else 1))) if not entry else (lambda A: abs(A).max())
    return size(E) + gamma * size(rest)


def factor_cases(rng):
    return [{"update": case["update"], "inner": case["inner"]} for case in standing_cases(rng)]


# --- remedies ---


def remedy_cases(rng):
    """Return problems with parameters, and a second vector for TDC."""
    found = []
    for _ in range(4):
        mdp = random_mdp(3, 2, gamma=0.9, branching=2, rng=rng)
        given = {"phi": rng.standard_normal((6, 3)), "mdp": mdp, "policy": rng.integers(2, size=3)}
        given |= {"weights": rng.dirichlet(np.ones(6)), "alpha": 0.3}
        found.append(given | {"theta": rng.standard_normal(3), "h": rng.standard_normal(3)})
    return found


# w to 2w at gamma = 0.9, state 1 in the data, w = 1: the TD error is 0.8.
ONE_WEIGHT = {
    "phi": np.array([[1.0], [2.0]]),
    "mdp": FiniteMDP(np.array([[[0.0, 1.0]], [[0.0, 1.0]]]), np.zeros((2, 1)), 0.9),
    "policy": np.array([0, 0]),
    "weights": np.array([1.0, 0.0]),
    "alpha": 0.1,
    "theta": np.array([1.0]),
    "h": np.array([0.5]),
}


def ahead(phi, mdp, policy):
    """Return P_pi Phi, by loops."""
    rows = phi.reshape(mdp.n_states, mdp.n_actions, -1)[np.arange(mdp.n_states), policy]
    return np.array([sum(p * row for p, row in zip(chances, rows, strict=True)) for s in mdp.P for chances in s])


def parts(phi, mdp, policy, weights, theta):
    """Return D, P_pi Phi and the TD errors of the policy."""
    after = ahead(phi, mdp, policy)
    return np.diag(weights), after, mdp.R.ravel() + mdp.gamma * after @ theta - phi @ theta


def residual(phi, mdp, policy, weights, alpha, theta, h, *, discount=True, through=True, sign=1.0):
    """Transcribe eq-residual-gradient, in values."""
    D, after, delta = parts(phi, mdp, policy, weights, theta)
    inner = phi - (mdp.gamma if discount else 1.0) * after * through
    return phi @ (theta + sign * alpha * inner.T @ D @ delta)


def pulled(phi, mdp, policy, weights, alpha, theta, h, *, eta=0.4, squared=False, away=False, on_step=False):
    """Transcribe eq-regularised-step, in values."""
    D, _, delta = parts(phi, mdp, policy, weights, theta)
    keep = 1 - eta * (1 if on_step else alpha) * (-1 if away else 1)
    return phi @ ((keep**2 if squared else keep) * theta + alpha * phi.T @ D @ delta)


def corrected(phi, mdp, policy, weights, alpha, theta, h, *, beta=0.2, sign=-1.0, discount=True, plain=False, fit=True):
    """Transcribe eq-tdc, in values."""
    D, after, delta = parts(phi, mdp, policy, weights, theta)
    back = (mdp.gamma if discount else 1.0) * after.T @ D @ phi @ h
    first = theta + alpha * (phi.T @ D @ delta + (0 if plain else sign) * back)
    return np.concatenate([phi @ first, phi @ (h + beta * phi.T @ D @ (delta - fit * phi @ h))])


def package_rule(name, **how):
    """Return the values of one step of a rule of the package, from parameters."""

    def values(phi, mdp, policy, weights, alpha, theta, h):
        rule = remedies.rules(phi, mdp, policy=policy, weights=weights, alpha=alpha, **how)[name]
        width = phi.shape[1]
        basis = rule.values[:, :width]
        vectors = (theta, h) if name == "TDC" else (theta,)
        x = rule(np.concatenate([np.linalg.lstsq(basis, phi @ vector, rcond=None)[0] for vector in vectors]))
        return np.concatenate([basis @ x[k : k + width] for k in range(0, len(x), width)])

    return values


EQUATIONS = {
    "eq-frozen-target": Equation(
        printed=standing,
        package=lambda update, Q, inner: update.frozen_target(inner)(Q),
        cases=standing_cases,
        # A table of one pair, K = 1, error 1: two steps of 1/2 make three quarters of it.
        closed=(
            {"update": examples.self_loop(0.5).update, "Q": np.zeros((1, 1)), "inner": 2},
            np.array([[0.75]]),
        ),
        wrong={
            "one step more": lambda **k: standing(**k, power=lambda n: n + 1),
            "one step for all": lambda **k: standing(**k, power=lambda n: 1),
            "identity forgotten": lambda **k: standing(**k, outer=False),
            "steps simply added": lambda **k: standing(**k, plain=True),
        },
    ),
    "eq-target-modulus": Equation(
        printed=factor,
        package=remedies.target_modulus,
        cases=factor_cases,
        # K = 1, two steps of 1/2 at gamma = 1/2: a quarter is left, and half of three quarters is added.
        closed=({"update": examples.self_loop(0.5).update, "inner": 2}, 0.25 + 0.5 * 0.75),
        wrong={
            "no gamma": lambda **k: factor(**k, gamma=1.0),
            "column sums": lambda **k: factor(**k, columns=True),
            "largest entry": lambda **k: factor(**k, entry=True),
            "identity for the rest": lambda **k: factor(**k, whole=True),
            "one step more": lambda **k: factor(**k, shift=1),
        },
    ),
    "eq-residual-gradient": Equation(
        printed=residual,
        package=package_rule("residual gradient"),
        cases=remedy_cases,
        closed=(ONE_WEIGHT, (1 - 0.1 * 0.8 * 0.8) * np.array([1.0, 2.0])),
        wrong={
            "target held fixed": lambda **k: residual(**k, through=False),
            "no gamma": lambda **k: residual(**k, discount=False),
            "up the squared error": lambda **k: residual(**k, sign=-1.0),
        },
    ),
    "eq-regularised-step": Equation(
        printed=pulled,
        package=package_rule("regularised", pull=0.4),
        cases=remedy_cases,
        closed=(ONE_WEIGHT, (1 - 0.04 + 0.08) * np.array([1.0, 2.0])),
        wrong={
            "no alpha in the pull": lambda **k: pulled(**k, on_step=True),
            "pushes away": lambda **k: pulled(**k, away=True),
            "pulled twice": lambda **k: pulled(**k, squared=True),
        },
    ),
    "eq-tdc": Equation(
        printed=corrected,
        package=package_rule("TDC", pace=0.2),
        cases=remedy_cases,
        # theta = 1 + 0.1 (0.8 - 1.8 / 2), h = 0.5 + 0.2 (0.8 - 0.5).
        closed=(ONE_WEIGHT, np.array([0.99, 1.98, 0.56, 1.12])),
        wrong={
            "correction added": lambda **k: corrected(**k, sign=1.0),
            "no correction": lambda **k: corrected(**k, plain=True),
            "no gamma": lambda **k: corrected(**k, discount=False),
            "second vector sums up": lambda **k: corrected(**k, fit=False),
        },
    ),
    "eq-self-excitation": Equation(
        printed=excited,
        package=package_excited,
        cases=excited_cases,
        closed=(ONE_TO_TWO, np.array([0.8 * 1.4])),
        wrong={
            "own kernel added": lambda **k: excited(**k, sign=-1.0),
            "no gamma": lambda **k: excited(**k, discount=False),
            "sum for mean": lambda **k: excited(**k, mean=False),
            "same inputs twice": lambda **k: excited(**k, same=True),
        },
    ),
}
