"""Chapter 6, What if we undo the kernel?"""

import numpy as np
import torch

from divergence_notes import examples, networks, ntk, preqn, updates
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


# --- networks ---


def network_cases(rng):
    """Return small networks, a batch with one input twice, and TD errors."""
    found = []
    for seed, kind in enumerate(("tanh", "sin", "relu")):
        generator = torch.Generator().manual_seed(seed)
        net = networks.MLP([3, 10, 1], activation=kind, generator=generator, dtype=torch.float64)
        x = rng.standard_normal((6, 3))
        x[5] = x[0]
        found.append(
            {"net": net, "x": torch.as_tensor(x), "delta": torch.as_tensor(rng.standard_normal(6)), "alpha": 0.4}
        )
    return found


def linear_net(weights):
    """Return a network without a bias and without a hidden layer: its gradients are its inputs."""
    net = torch.nn.Linear(len(weights), 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        net.weight.copy_(torch.as_tensor(np.asarray(weights))[None])
    return net


# One input (1, 2), error 1: the gradient has length 5 squared.
ONE_INPUT = {
    "net": linear_net([0.0, 0.0]),
    "x": torch.tensor([[1.0, 2.0]], dtype=torch.float64),
    "delta": torch.ones(1, dtype=torch.float64),
    "alpha": 0.5,
}


def gradients(net, x):
    """Return J by one backward pass for each input."""
    rows = []
    for row in x:
        net.zero_grad()
        net(row[None]).sum().backward()
        rows.append(torch.cat([p.grad.ravel() for p in net.parameters()]).numpy().copy())
    return np.array(rows)


def network_step(net, x, delta, alpha, *, inverse=np.linalg.pinv, mean=False, sign=1.0, transpose=True):
    """Transcribe eq-preqn-step."""
    J = gradients(net, x)
    z = inverse(J @ J.T) @ delta.numpy()
    step = sign * alpha * (J.T @ z if transpose else J.T @ delta.numpy())
    return step / (2 * len(x)) if mean else step


def package_network_step(net, x, delta, alpha):
    way = preqn.direction(ntk.linearize(net, x), delta, solver="minimum-norm")
    return alpha * torch.cat([slope.ravel() for slope in way.slopes]).numpy()


def ridge(kernel, delta, jitter, *, mean=True, square=False, sign=1.0):
    """Transcribe eq-preqn-solve."""
    n = len(delta)
    scale = np.trace(kernel) / (n if mean else 1)
    return np.linalg.inv(kernel + sign * (jitter**2 if square else jitter) * scale * np.eye(n)) @ delta


def ridge_cases(rng):
    found = []
    for _ in range(4):
        A = rng.standard_normal((5, 7))
        found.append({"kernel": A @ A.T, "delta": rng.standard_normal(5), "jitter": rng.uniform(0.01, 0.3)})
    return found


def package_ridge(kernel, delta, jitter):
    given = {"solver": "cholesky", "jitter": jitter}
    return preqn.solve(torch.as_tensor(kernel), torch.as_tensor(delta), **given).numpy()


def accepted(delta, moved, eta, *, cosine=True, signed=True, at_least=True):
    """Transcribe eq-preqn-accept: 1 where the step passes."""
    product = sum(a * b for a, b in zip(moved, delta, strict=True))
    lengths = np.sqrt(sum(a * a for a in moved)) * np.sqrt(sum(b * b for b in delta))
    value = product / lengths if cosine else product / sum(b * b for b in delta)
    value = value if signed else abs(value)
    return float(value >= eta if at_least else value <= eta)


def package_accepted(delta, moved, eta):
    """Move a network whose parameters are its values, along the direction given."""
    net, n = linear_net(np.zeros(len(delta))), len(delta)
    given = {"alpha": 1, "eta": eta, "shrink": 0.5, "max_backtracks": 0}
    values, delta, slopes = torch.zeros(n).double(), torch.tensor(delta).double(), [torch.tensor([moved]).double()]
    return float(preqn.line_search(net, torch.eye(n).double(), values, delta, slopes, **given).alpha > 0)


def accept_cases(rng):
    """Return directions on both sides of the threshold, and of other sizes than the errors."""
    found = []
    for _ in range(20):
        delta, other = rng.standard_normal(3), rng.standard_normal(3)
        moved = rng.uniform(-1, 1) * other + rng.choice([-3.0, 0.2, 0.5, 3.0]) * delta
        found.append({"delta": delta.tolist(), "moved": moved.tolist(), "eta": 0.7})
    return found


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
    "eq-preqn-step": Equation(
        printed=network_step,
        package=package_network_step,
        cases=network_cases,
        closed=(ONE_INPUT, np.array([0.1, 0.2])),
        wrong={
            "kernel left alone": lambda **k: network_step(**k, transpose=False),
            "diagonal only": lambda **k: network_step(**k, inverse=lambda K: np.diag(1 / np.diag(K))),
            "mean over the batch": lambda **k: network_step(**k, mean=True),
            "away from the target": lambda **k: network_step(**k, sign=-1.0),
        },
    ),
    "eq-preqn-solve": Equation(
        printed=ridge,
        package=package_ridge,
        cases=ridge_cases,
        # K = 2 I, jitter 1/2 of a mean diagonal of 2: each entry is divided by 3.
        closed=({"kernel": 2 * np.eye(2), "delta": np.array([3.0, -6.0]), "jitter": 0.5}, np.array([1.0, -2.0])),
        wrong={
            "trace for mean": lambda **k: ridge(**k, mean=False),
            "jitter squared": lambda **k: ridge(**k, square=True),
            "jitter taken away": lambda **k: ridge(**k, sign=-1.0),
        },
    ),
    "eq-preqn-accept": Equation(
        printed=accepted,
        package=package_accepted,
        cases=accept_cases,
        closed=({"delta": [1.0, 0.0], "moved": [5.0, 5.0], "eta": 0.7}, 1.0),
        wrong={
            "at most": lambda **k: accepted(**k, at_least=False),
            "sign lost": lambda **k: accepted(**k, signed=False),
            "share of the errors": lambda **k: accepted(**k, cosine=False),
        },
    ),
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
