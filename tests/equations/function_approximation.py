"""Chapter 2, Function approximation and divergence."""

import itertools
from dataclasses import replace

import numpy as np
import torch

from divergence_notes import dynamics, examples, features, networks, updates
from divergence_notes.mdp import FiniteMDP, random_mdp
from divergence_notes.updates import KernelUpdate, Update
from tests.equations import Equation

DEFINITIONS = {"eq-linear-q"}

# --- eq-network: a network with one hidden layer ---


def printed_network(x, W_1, b_1, w_2, b_2, bend=lambda z: max(z, 0.0)):
    hidden = [bend(sum(W_1[unit][k] * x[k] for k in range(len(x))) + b_1[unit]) for unit in range(len(b_1))]
    return sum(w_2[unit] * hidden[unit] for unit in range(len(b_1))) + b_2


def package_network(x, W_1, b_1, w_2, b_2):
    net = networks.MLP((len(x), len(b_1), 1), activation="relu", generator=torch.Generator(), dtype=torch.float64)
    flat = np.concatenate([np.ravel(part) for part in (W_1, b_1, w_2, [b_2])])
    torch.nn.utils.vector_to_parameters(torch.tensor(flat), net.parameters())
    return networks.values(net, torch.tensor(x)[None])[0]


def network_cases(rng):
    parts = {"x": 2, "b_1": 5, "w_2": 5}
    return [
        {name: rng.standard_normal(size) for name, size in parts.items()}
        | {"W_1": rng.standard_normal((5, 2)), "b_2": rng.standard_normal()}
        for _ in range(5)
    ]


# --- eq-linear-kernel and eq-leakage ---


def printed_kernel(phi):
    return [[sum(a * b for a, b in zip(row, other, strict=True)) for other in phi] for row in phi]


def printed_leakage(phi, i, j, delta, alpha):
    return alpha * sum(phi[i][k] * phi[j][k] for k in range(len(phi[i]))) * delta


def package_leakage(phi, i, j, delta, alpha):
    """Take a real step that trains one pair only, and look at another."""
    gap = np.zeros(len(phi))
    gap[j] = delta
    process = FiniteMDP(
        np.zeros((len(phi), 1, len(phi))), gap[:, None], 0
    )  # all episodes end: the target is the reward
    theta = updates.linear_step(np.zeros(phi.shape[1]), phi, process, weights=np.eye(len(phi))[j], alpha=alpha)
    return phi[i] @ theta


def leakage_cases(rng):
    sizes = {"alpha": 0.3, "delta": -1.7}
    return [{"phi": rng.standard_normal((5, 3)), "i": i, "j": j, **sizes} for i, j in ((0, 1), (3, 2), (4, 4))]


# --- eq-three-legs ---


def long_run(P, policy):
    """Return the visits of the pairs by following the chain of states for 2^40 steps; a lazy chain has no period."""
    chain = (np.einsum("sa,sat->st", policy, P) + np.eye(len(P))) / 2
    for _ in range(40):
        chain = chain @ chain
        chain /= chain.sum(axis=1, keepdims=True)  # or rounding drives the rows away from 1
    return (chain[0][:, None] * policy).ravel()


def printed_three_legs(update, Q, legs, lift=False, spread=True, swap=False):
    P, R, gamma = np.asarray(update.mdp.P), update.mdp.R, update.mdp.gamma
    n_states, n_actions = R.shape
    K = update.kernel if "F" in legs else np.eye(n_states * n_actions)
    if "B" in legs:
        target = R + (1 if lift else gamma) * np.einsum("sat,t->sa", P, Q.max(axis=1))
    else:
        target = np.zeros_like(Q)  # no example pays a reward
    if ("O" in legs) != swap:
        rho = update.weights
    else:
        greedy = np.eye(n_actions)[Q.argmax(axis=1)]
        rho = long_run(P, 0.9 * greedy + 0.1 / n_actions if spread else greedy)
    q, y = Q.ravel(), target.ravel()
    new = [q[i] + update.alpha * sum(K[i, j] * rho[j] * (y[j] - q[j]) for j in range(len(q))) for i in range(len(q))]
    return np.reshape(new, Q.shape)


def package_three_legs(update, Q, legs):
    on = {"approximation": "F" in legs, "bootstrapping": "B" in legs, "off_policy": "O" in legs}
    return examples.triad_operator(update, **on)(Q)


def three_legs_cases(rng):
    cast = [
        examples.w_to_2w(),
        examples.w_to_2w(weights=(0.5, 0.5)),
        examples.baird_star(),
        examples.baird_control(),
        examples.full_data_divergence(),
    ]
    combinations = ["".join(legs) for n in range(4) for legs in itertools.combinations("FBO", n)]
    return [
        {"update": e.update, "Q": rng.standard_normal(e.Q0.shape), "legs": legs} for e in cast for legs in combinations
    ]


# --- eq-table-average ---


def printed_average(q, R, P, gamma, rho, alpha):
    best = [max(q[s * len(R[0]) + a] for a in range(len(R[0]))) for s in range(len(R))]
    new = []
    for i in range(len(q)):
        s, a = divmod(i, len(R[0]))
        backup = R[s][a] + gamma * sum(P[s][a][t] * best[t] for t in range(len(R)))
        new.append((1 - alpha * rho[i]) * q[i] + alpha * rho[i] * backup)
    return new


def package_average(q, R, P, gamma, rho, alpha):
    process = FiniteMDP(P, R, gamma)
    return process.flatten(Update.shares(process, weights=rho, alpha=alpha)(process.unflatten(q)))


def average_cases(rng):
    found = []
    for gamma in (0.0, 0.5, 0.9):
        process = random_mdp(4, 2, gamma=gamma, branching=2, rng=rng)
        entries = {"q": rng.standard_normal(8), "rho": rng.dirichlet(np.ones(8)), "alpha": 0.7}
        found.append({"R": np.array(process.R), "P": np.array(process.P), "gamma": gamma} | entries)
    return found


# --- eq-drift-w2w and eq-threshold-w2w ---


def printed_drift(w, rho, gamma, alpha):
    d = rho[0] * (2 * gamma - 1) - 4 * rho[1] * (1 - gamma)
    return (1 + alpha * d) * w


def package_drift(w, rho, gamma, alpha):
    example = examples.w_to_2w(gamma, weights=rho)
    return updates.linear_step(np.array([w]), example.features, example.update.mdp, weights=rho, alpha=alpha)[0]


def drift_cases(rng):
    return [
        {"w": rng.standard_normal(), "rho": rng.dirichlet(np.ones(2)), "gamma": gamma, "alpha": 0.2}
        for gamma in (0, 0.3, 0.6, 0.9, 0.99)
    ]


def printed_threshold(rho):
    return (rho[0] + 4 * rho[1]) / (2 * rho[0] + 4 * rho[1])


def package_threshold(rho):
    """Return what the package says, after a look at the real update on both sides of it."""
    critical = examples.w_to_2w_threshold(rho)
    for gamma, grows in ((critical - 1e-6, False), (critical + 1e-6, True)):
        if gamma < 1:
            assert (package_drift(1.0, rho, gamma, 0.1) > 1) == grows
    return critical


# --- eq-pair-threshold ---


def printed_pair(K, rho, gamma):
    return gamma * (K[0][0] * rho[0] + K[0][1] * rho[1]) > K[0][0] * rho[0] + K[1][1] * rho[1]


def package_pair(K, rho, gamma):
    """Say whether the update grows while the first action is greedy, from the eigenvalues at a small step."""
    process = replace(examples.full_data_divergence().update.mdp, gamma=gamma)
    J = KernelUpdate(process, kernel=K, weights=rho, alpha=1e-3).jacobian([0])
    return bool(np.abs(np.linalg.eigvals(J)).max() > 1)


def pair_cases(rng):
    known = examples.full_data_divergence().update
    found = [{"K": known.kernel, "rho": np.array([first, 1 - first]), "gamma": 0.9} for first in (0.2, 0.57, 0.59, 0.8)]
    for _ in range(200):
        phi = rng.standard_normal((2, 2)) * np.array([[3.0], [1.0]])
        case = {"K": phi @ phi.T, "rho": rng.dirichlet(np.ones(2)), "gamma": rng.uniform(0.3, 0.99)}
        left = case["gamma"] * (case["K"][0, 0] * case["rho"][0] + case["K"][0, 1] * case["rho"][1])
        right = case["K"][0, 0] * case["rho"][0] + case["K"][1, 1] * case["rho"][1]
        if abs(left - right) > 0.05 and np.linalg.det(case["K"]) > 0.1:  # away from the border a small step decides
            found.append(case)
    return found


# --- eq-loop-error ---


def package_loop_error(error, gamma, alpha, k):
    loop = examples.self_loop(gamma)
    step = replace(loop.update, alpha=alpha)
    return dynamics.iterate(step, loop.target + error, target=loop.target, max_iter=k, tol=0).errors[k]


EQUATIONS = {
    "eq-network": Equation(
        printed=printed_network,
        package=package_network,
        cases=network_cases,
        closed=(
            {
                "x": np.array([1.0, 2.0]),
                "W_1": np.array([[1.0, 1.0], [1.0, -1.0]]),
                "b_1": np.array([1.0, 0.0]),
                "w_2": np.array([2.0, 5.0]),
                "b_2": -3.0,
            },
            5.0,  # the second unit is off: 2 * (3 + 1) - 3
        ),
        wrong={
            "no output bias": lambda x, W_1, b_1, w_2, b_2: printed_network(x, W_1, b_1, w_2, 0.0),
            "no hidden bias": lambda x, W_1, b_1, w_2, b_2: printed_network(x, W_1, 0 * b_1, w_2, b_2),
            "no bend": lambda **case: printed_network(**case, bend=lambda z: z),
            "absolute value": lambda **case: printed_network(**case, bend=abs),
        },
    ),
    "eq-linear-kernel": Equation(
        printed=printed_kernel,
        package=lambda phi: features.kernel(phi),
        cases=lambda rng: [{"phi": rng.standard_normal((n, p))} for n, p in ((4, 2), (3, 3), (2, 5))],
        closed=({"phi": np.array([[1.0], [2.0]])}, np.array([[1.0, 2.0], [2.0, 4.0]])),
        wrong={
            "the other way round": lambda phi: phi.T @ phi,
            "mean for sum": lambda phi: phi @ phi.T / phi.shape[1],
        },
    ),
    "eq-leakage": Equation(
        printed=printed_leakage,
        package=package_leakage,
        cases=leakage_cases,
        closed=({"phi": np.array([[1.0], [2.0]]), "i": 1, "j": 0, "delta": 0.5, "alpha": 0.1}, 0.1),
        wrong={
            "K_ii": lambda phi, i, j, delta, alpha: printed_leakage(phi, i, i, delta, alpha),
            "K_jj": lambda phi, i, j, delta, alpha: printed_leakage(phi, j, j, delta, alpha),
            "no alpha": lambda phi, i, j, delta, alpha: printed_leakage(phi, i, j, delta, 1.0),
            "other sign": lambda phi, i, j, delta, alpha: -printed_leakage(phi, i, j, delta, alpha),
        },
    ),
    "eq-three-legs": Equation(
        printed=printed_three_legs,
        package=package_three_legs,
        cases=three_legs_cases,
        # w -> 2w at w = 1, first state only: error 0.8, and K_21 = 2 K_11.
        closed=(
            {"update": examples.w_to_2w().update, "Q": np.array([[1.0], [2.0]]), "legs": "FBO"},
            np.array([[1.08], [2.16]]),
        ),
        wrong={
            "no gamma": lambda **case: printed_three_legs(**case, lift=True),
            "greedy visits": lambda **case: printed_three_legs(**case, spread=False),
            "weights swapped": lambda **case: printed_three_legs(**case, swap=True),
            "always a table": lambda update, Q, legs: printed_three_legs(update, Q, legs.replace("F", "")),
            "always bootstrapped": lambda update, Q, legs: printed_three_legs(update, Q, legs + "B"),
        },
    ),
    "eq-table-average": Equation(
        printed=printed_average,
        package=package_average,
        cases=average_cases,
        closed=(
            {
                "q": np.array([2.0]),
                "R": np.ones((1, 1)),
                "P": np.ones((1, 1, 1)),
                "gamma": 0.5,
                "rho": np.ones(1),
                "alpha": 0.5,
            },
            np.array([2.0]),  # the fixed point
        ),
        wrong={
            "no rho": lambda rho, **case: printed_average(**case, rho=np.ones_like(rho)),
            "no gamma": lambda gamma, **case: printed_average(**case, gamma=1.0),
            "full step": lambda alpha, **case: printed_average(**case, alpha=1.0),
            "weights the other way round": lambda rho, alpha, **case: printed_average(
                **case, rho=1 - alpha * rho, alpha=1.0
            ),
        },
    ),
    "eq-drift-w2w": Equation(
        printed=printed_drift,
        package=package_drift,
        cases=drift_cases,
        closed=({"w": 1.0, "rho": np.array([1.0, 0.0]), "gamma": 0.9, "alpha": 0.1}, 1.08),
        wrong={
            "feature forgotten": lambda w, rho, gamma, alpha: (
                w * (1 + alpha * (rho[0] * (2 * gamma - 1) - 2 * rho[1] * (1 - gamma)))
            ),
            "plus": lambda w, rho, gamma, alpha: (
                w * (1 + alpha * (rho[0] * (2 * gamma - 1) + 4 * rho[1] * (1 - gamma)))
            ),
            "gamma - 1": lambda w, rho, gamma, alpha: (
                w * (1 + alpha * (rho[0] * (gamma - 1) - 4 * rho[1] * (1 - gamma)))
            ),
            "no alpha": lambda w, rho, gamma, alpha: printed_drift(w, rho, gamma, 1.0),
        },
    ),
    "eq-threshold-w2w": Equation(
        printed=printed_threshold,
        package=package_threshold,
        cases=lambda rng: [{"rho": rng.dirichlet(np.ones(2))} for _ in range(10)],
        closed=({"rho": np.array([0.5, 0.5])}, 5 / 6),
        wrong={
            "feature forgotten": lambda rho: (rho[0] + 2 * rho[1]) / (2 * rho[0] + 2 * rho[1]),
            "turned over": lambda rho: (2 * rho[0] + 4 * rho[1]) / (rho[0] + 4 * rho[1]),
            "states swapped": lambda rho: printed_threshold(rho[::-1]),
        },
    ),
    "eq-pair-threshold": Equation(
        printed=printed_pair,
        package=package_pair,
        cases=pair_cases,
        closed=({"K": examples.full_data_divergence().update.kernel, "rho": np.array([0.2, 0.8]), "gamma": 0.9}, True),
        wrong={
            "<": lambda **case: not printed_pair(**case),
            "no gamma": lambda gamma, **case: printed_pair(**case, gamma=1.0),
            "K_22 for K_12": lambda K, rho, gamma: (
                gamma * (K[0, 0] * rho[0] + K[1, 1] * rho[1]) > K[0, 0] * rho[0] + K[1, 1] * rho[1]
            ),
            "weights swapped": lambda rho, **case: printed_pair(**case, rho=rho[::-1]),
        },
    ),
    "eq-loop-error": Equation(
        printed=lambda error, gamma, alpha, k: (1 - alpha * (1 - gamma)) ** k * error,
        package=package_loop_error,
        cases=lambda rng: [
            {"error": rng.uniform(1, 100), "gamma": gamma, "alpha": alpha, "k": k}
            for gamma, alpha, k in ((0.9, 0.5, 7), (0.5, 1.0, 3), (0.0, 0.3, 5), (0.99, 0.1, 50))
        ],
        closed=({"error": 100.0, "gamma": 0.9, "alpha": 0.5, "k": 2}, 90.25),
        wrong={
            "gamma^k": lambda error, gamma, alpha, k: gamma**k * error,
            "1 - alpha gamma": lambda error, gamma, alpha, k: (1 - alpha * gamma) ** k * error,
            "one power too many": lambda error, gamma, alpha, k: (1 - alpha * (1 - gamma)) ** (k + 1) * error,
        },
    ),
}
