"""Chapter 3, The key equation."""

import numpy as np
import torch

from divergence_notes import networks, ntk, updates
from divergence_notes.mdp import FiniteMDP, random_mdp
from divergence_notes.updates import KernelUpdate, Update
from tests.equations import Equation
from tests.strategies import make_kernel

DEFINITIONS = {"eq-half-squared-error"}

# --- a network with one hidden layer, by hand ---

BEND = {
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0, lambda z: 0 * z),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2, lambda z: -2 * np.tanh(z) * (1 - np.tanh(z) ** 2)),
}


def forward(parts, x, activation):
    w, b, v, c = parts
    return BEND[activation][0](x @ w.T + b) @ v + c


def gradients(parts, x, activation):
    """Return the gradient of each value in (w, b, v, c), one flat row for each input."""
    w, b, v, _ = parts
    rows = []
    for point in x:
        z = w @ point + b
        into = v * BEND[activation][1](z)
        rows.append(np.concatenate([np.outer(into, point).ravel(), into, BEND[activation][0](z), [1.0]]))
    return np.array(rows)


def split(flat, parts):
    """Cut a flat parameter vector into the shapes of `parts`."""
    ends = np.cumsum([np.size(part) for part in parts])[:-1]
    return [piece.reshape(np.shape(part)) for piece, part in zip(np.split(flat, ends), parts, strict=True)]


def move(parts, x, activation, target, weights, alpha):
    """Return how the parameters move in one semi-gradient step, as parts."""
    J = gradients(parts, x, activation)
    total = sum(weights[j] * (target[j] - forward(parts, x, activation)[j]) * J[j] for j in range(len(x)))
    return split(alpha * total, parts)


def network(parts, activation):
    """Return the same network out of the package."""
    w = np.atleast_2d(parts[0])
    net = networks.MLP((w.shape[1], len(w), 1), activation=activation, generator=torch.Generator(), dtype=torch.float64)
    flat = torch.tensor(np.concatenate([np.ravel(part) for part in parts]))
    torch.nn.utils.vector_to_parameters(flat, net.parameters())
    return net


def case(rng, activation, alpha):
    """Return a random network, inputs, targets and weights; no ReLU unit is near its kink."""
    while True:
        parts = [rng.standard_normal((4, 3)), rng.standard_normal(4), rng.standard_normal(4), rng.standard_normal()]
        x = rng.standard_normal((5, 3))
        if np.abs(x @ parts[0].T + parts[1]).min() > 0.02:
            break
    given = {"target": rng.standard_normal(5), "weights": rng.dirichlet(np.ones(5)), "alpha": alpha}
    return {"parts": parts, "x": x, "activation": activation, **given}


def cases(*activations, alpha=1e-3):
    return lambda rng: [case(rng, activation, alpha) for activation in activations for _ in range(3)]


# One unit at x = 1 with w = v = 1 and b = c = 0: value 1, gradient (1, 1, 1, 1). With target 2 and alpha 0.1 every
# parameter moves by 0.1, and the value goes to 1.1 * 1.2 + 0.1 = 1.42: 0.4 was predicted, 0.02 is left.
ONE_UNIT = {
    "parts": [np.ones((1, 1)), np.zeros(1), np.ones(1), 0.0],
    "x": np.ones((1, 1)),
    "activation": "relu",
    "target": np.array([2.0]),
    "weights": np.ones(1),
    "alpha": 0.1,
}


def left_over(parts, x, activation, target, weights, alpha, *, at_end=False, sign=1.0, slope=1.0):
    """Transcribe eq-taylor, solved for r."""
    step = move(parts, x, activation, target, weights, alpha)
    end = [part + change for part, change in zip(parts, step, strict=True)]
    flat = np.concatenate([np.ravel(change) for change in step])
    line = gradients(end if at_end else parts, x, activation) @ flat
    return sign * (forward(end, x, activation) - forward(parts, x, activation) - slope * line)


def package_remainder(parts, x, activation, target, weights, alpha):
    return ntk.remainder(network(parts, activation), torch.tensor(x), target, weights=weights, alpha=alpha)


def by_layers(parts, x, activation, target, weights, alpha, *, factor=1.0, all_units=False, bias=True):
    """Transcribe eq-relu-remainder."""
    w, b, _, _ = parts
    dw, db, dv, _ = move(parts, x, activation, target, weights, alpha)
    out = []
    for point in x:
        on = (w @ point + b > 0) | all_units
        out.append(factor * sum(dv[k] * (dw[k] @ point + bias * db[k]) for k in range(len(b)) if on[k]))
    return np.array(out)


def half_curvature(parts, x, activation, target, weights, alpha, *, half=0.5, power=2, mixed=True):
    """Transcribe eq-second-order without the higher orders, the Hessian's quadratic form written out."""
    w, b, v, _ = parts
    dw, db, dv, _ = move(parts, x, activation, target, weights, 1.0)  # the direction of the step
    out = []
    for point in x:
        z, dz = w @ point + b, dw @ point + db
        bend = v * BEND[activation][2](z) * dz**2 + 2 * mixed * dv * BEND[activation][1](z) * dz
        out.append(half * alpha**power * bend.sum())
    return np.array(out)


def package_curvature(parts, x, activation, target, weights, alpha):
    net, inputs = network(parts, activation), torch.tensor(x)
    direction = ntk.per_sample_gradients(net, inputs).numpy().T @ (weights * (target - networks.values(net, inputs)))
    forms = [direction @ ntk.hessian(net, row).numpy() @ direction for row in inputs]
    return alpha**2 / 2 * np.array(forms)


def inner_products(parts, x, activation, *, square=False, metric=1.0, of_inputs=False, last=True, **_):
    """Transcribe eq-kernel."""
    J = x if of_inputs else gradients(parts, x, activation)
    J = J if last else J[:, :-1]
    out = np.array([[sum(a * b for a, b in zip(first, second, strict=True)) for second in J] for first in J])
    return metric * (out**2 if square else out)


def package_gram(parts, x, activation, **_):
    return ntk.gram(network(parts, activation), torch.tensor(x)).numpy()


# --- updates of a table ---


def td_errors(Q, mdp, *, discount=True, outside=False, sign=1.0):
    """Write the backup minus the table as plain sums over next states."""
    out = np.zeros(Q.shape)
    for s, a in np.ndindex(Q.shape):
        if outside:
            ahead = max(sum(mdp.P[s, a, t] * Q[t, b] for t in range(len(Q))) for b in range(Q.shape[1]))
        else:
            ahead = sum(mdp.P[s, a, t] * max(Q[t]) for t in range(len(Q)))
        out[s, a] = mdp.R[s, a] + (mdp.gamma if discount else 1.0) * ahead - Q[s, a]
    return sign * out.ravel()


def summed(update, td_error, *, row_weight=False, flipped=False, weighted=True, rate=True):
    """Transcribe the right side of eq-predicted-change."""
    kernel, weights, n = update.kernel, update.weights, len(td_error)
    out = np.zeros(n)
    for i in range(n):
        for j in range(n):
            pull = kernel[j, i] if flipped else kernel[i, j]
            share = (weights[i] if row_weight else weights[j]) if weighted else 1.0
            out[i] += (update.alpha if rate else 1.0) * pull * share * td_error[j]
    return out


def table_after(update, Q, *, backup=None, **spread):
    """Transcribe eq-key-equation without r, which is also eq-u3."""
    delta = td_errors(Q, update.mdp, **(backup or {}))
    return Q + summed(update, delta, **spread).reshape(Q.shape)


def moved(matrix, mdp, Q, *, sign=1.0, minus=True, flipped=False, discount=True):
    """Transcribe eq-update, entry by entry."""
    error, n = td_errors(Q, mdp, discount=discount), Q.size
    error = sign * error if minus else error + Q.ravel()
    change = [sum((matrix[j, i] if flipped else matrix[i, j]) * error[j] for j in range(n)) for i in range(n)]
    return Q + np.reshape(change, Q.shape)


def moved_cases(rng):
    """Return random matrices with random processes and tables."""
    draws = [(random_mdp(3, 2, gamma=0.8, branching=2, rng=rng), rng.standard_normal((3, 2))) for _ in range(4)]
    return [{"matrix": rng.standard_normal((6, 6)), "mdp": mdp, "Q": Q} for mdp, Q in draws]


def table_cases(rng):
    out = []
    for _ in range(4):
        mdp = random_mdp(3, 2, gamma=0.8, branching=2, rng=rng)
        kernel, weights = make_kernel("unsymmetric", 6, rng), rng.dirichlet(np.ones(6))
        update = KernelUpdate(mdp, kernel=kernel, weights=weights, alpha=0.3)
        out.append({"update": update, "Q": rng.standard_normal((3, 2))})
    return out


def parts(*names):
    """Return the table cases with the table and these parts of the update in place of the whole."""
    return lambda rng: [
        {"Q": case["Q"], **{name: getattr(case["update"], name) for name in names}} for case in table_cases(rng)
    ]


def linear_cases(rng):
    """Return features and parameters with the process, the shares and the step of a table case."""
    features = [{"theta": rng.standard_normal(4), "features": rng.standard_normal((6, 4))} for _ in range(4)]
    updates = [case["update"] for case in table_cases(rng)]
    return [
        {**linear, "mdp": update.mdp, "weights": update.weights, "alpha": update.alpha}
        for linear, update in zip(features, updates, strict=True)
    ]


def semi_gradient(theta, features, mdp, weights, alpha, *, factor=1.0, weighted=True, full=False, discount=True):
    """Transcribe eq-semi-gradient for values that are linear in theta."""
    Q = (features @ theta).reshape(mdp.R.shape)
    delta, out = td_errors(Q, mdp, discount=discount), np.array(theta)
    for i in range(len(delta)):
        slope = features[i].copy()
        if full:
            s, a = divmod(i, Q.shape[1])
            for t in range(len(Q)):
                slope -= mdp.gamma * mdp.P[s, a, t] * features[t * Q.shape[1] + int(Q[t].argmax())]
        out = out + factor * alpha * (weights[i] if weighted else 1.0) * delta[i] * slope
    return out


def chain():
    """Return one state that pays 1 and stays, twice the same: backup 1 + 0.5 * max Q."""
    return FiniteMDP(np.ones((1, 2, 1)), np.ones((1, 2)), 0.5)


# Q = (2, 0): backup (2, 2), TD error (0, 2). K = [[1, 3], [0, 1]], rho = (1/4, 3/4), alpha = 1/2.
TWO = KernelUpdate(chain(), kernel=[[1.0, 3.0], [0.0, 1.0]], weights=[0.25, 0.75], alpha=0.5)
TABLE = np.array([[2.0, 0.0]])


EQUATIONS = {
    "eq-semi-gradient": Equation(
        printed=semi_gradient,
        package=lambda theta, features, mdp, weights, alpha: updates.linear_step(
            theta, features, mdp, weights=weights, alpha=alpha
        ),
        cases=linear_cases,
        # features (1, 0) and (0, 1) twice over give Q = theta = (2, 0): only the second entry moves, by 1/2 * 3/4 * 2
        closed=(
            {
                "mdp": TWO.mdp,
                "weights": TWO.weights,
                "alpha": 0.5,
                "theta": np.array([2.0, 0.0]),
                "features": np.eye(2),
            },
            np.array([2.0, 0.75]),
        ),
        wrong={
            "sign": lambda **given: semi_gradient(**given, factor=-1.0),
            "the half forgotten": lambda **given: semi_gradient(**given, factor=2.0),
            "no weights": lambda **given: semi_gradient(**given, weighted=False),
            "full gradient": lambda **given: semi_gradient(**given, full=True),
            "no gamma": lambda **given: semi_gradient(**given, discount=False),
        },
    ),
    "eq-taylor": Equation(
        printed=left_over,
        package=package_remainder,
        cases=cases("relu", "tanh", alpha=0.3),
        closed=(ONE_UNIT, np.array([0.02])),
        wrong={
            "sign": lambda **given: left_over(**given, sign=-1.0),
            "gradient at the end": lambda **given: left_over(**given, at_end=True),
            "half the slope": lambda **given: left_over(**given, slope=0.5),
            "no slope": lambda **given: left_over(**given, slope=0.0),
        },
    ),
    "eq-kernel": Equation(
        printed=inner_products,
        package=package_gram,
        cases=cases("relu", "tanh"),
        closed=(ONE_UNIT, np.array([[4.0]])),
        wrong={
            "squared": lambda **given: inner_products(**given, square=True),
            "mean over parameters": lambda **given: inner_products(**given, metric=1 / 21),
            "gradient in the input": lambda **given: inner_products(**given, of_inputs=True),
            "last bias forgotten": lambda **given: inner_products(**given, last=False),
        },
    ),
    "eq-predicted-change": Equation(
        printed=summed,
        package=lambda update, td_error: updates.predicted_change(
            update.kernel, update.weights, td_error, alpha=update.alpha
        ),
        cases=lambda rng: [{"update": each["update"], "td_error": rng.standard_normal(6)} for each in table_cases(rng)],
        closed=({"update": TWO, "td_error": np.array([0.0, 2.0])}, np.array([2.25, 0.75])),
        wrong={
            "rho_i for rho_j": lambda **given: summed(**given, row_weight=True),
            "K_ji for K_ij": lambda **given: summed(**given, flipped=True),
            "no rho": lambda **given: summed(**given, weighted=False),
            "no alpha": lambda **given: summed(**given, rate=False),
        },
    ),
    "eq-key-equation": Equation(
        printed=table_after,
        package=lambda update, Q: update(Q),
        cases=table_cases,
        closed=({"update": TWO, "Q": TABLE}, np.array([[4.25, 0.75]])),
        wrong={
            "no gamma": lambda **given: table_after(**given, backup={"discount": False}),
            "sign of the TD error": lambda **given: table_after(**given, backup={"sign": -1.0}),
            "max outside the expectation": lambda **given: table_after(**given, backup={"outside": True}),
            "rho_i for rho_j": lambda **given: table_after(**given, row_weight=True),
            "K transposed": lambda **given: table_after(**given, flipped=True),
        },
    ),
    "eq-second-order": Equation(
        printed=half_curvature,
        package=package_curvature,
        cases=cases("relu", "tanh", alpha=0.1),
        closed=(ONE_UNIT, np.array([0.02])),
        wrong={
            "no half": lambda **given: half_curvature(**given, half=1.0),
            "alpha for alpha squared": lambda **given: half_curvature(**given, power=1),
            "nothing between the layers": lambda **given: half_curvature(**given, mixed=False),
        },
    ),
    "eq-relu-remainder": Equation(
        printed=by_layers,
        package=package_remainder,
        cases=cases("relu"),
        closed=(ONE_UNIT, np.array([0.02])),
        wrong={
            "zero": lambda **given: by_layers(**given, factor=0.0),
            "half": lambda **given: by_layers(**given, factor=0.5),
            "units that are off": lambda **given: by_layers(**given, all_units=True),
            "bias forgotten": lambda **given: by_layers(**given, bias=False),
        },
    ),
    "eq-u1": Equation(
        printed=lambda Q, mdp, alpha: Q + alpha * td_errors(Q, mdp).reshape(Q.shape),
        package=lambda Q, mdp, alpha: Update.table(mdp, alpha=alpha)(Q),
        cases=parts("mdp", "alpha"),
        closed=({"Q": TABLE, "mdp": TWO.mdp, "alpha": 0.5}, np.array([[2.0, 1.0]])),
        wrong={
            "sign": lambda Q, mdp, alpha: Q - alpha * td_errors(Q, mdp).reshape(Q.shape),
            "no alpha": lambda Q, mdp, alpha: Q + td_errors(Q, mdp).reshape(Q.shape),
            "no gamma": lambda Q, mdp, alpha: Q + alpha * td_errors(Q, mdp, discount=False).reshape(Q.shape),
        },
    ),
    "eq-u2": Equation(
        printed=lambda Q, mdp, weights, alpha: Q + alpha * (weights * td_errors(Q, mdp)).reshape(Q.shape),
        package=lambda Q, mdp, weights, alpha: Update.shares(mdp, weights=weights, alpha=alpha)(Q),
        cases=parts("mdp", "weights", "alpha"),
        closed=({"Q": TABLE, "mdp": TWO.mdp, "weights": TWO.weights, "alpha": 0.5}, np.array([[2.0, 0.75]])),
        wrong={
            "no rho": lambda Q, mdp, weights, alpha: Q + alpha * td_errors(Q, mdp).reshape(Q.shape),
            "rho times n": lambda Q, mdp, weights, alpha: (
                Q + Q.size * alpha * (weights * td_errors(Q, mdp)).reshape(Q.shape)
            ),
            "no gamma": lambda Q, mdp, weights, alpha: (
                Q + alpha * (weights * td_errors(Q, mdp, discount=False)).reshape(Q.shape)
            ),
        },
    ),
    "eq-u3": Equation(
        printed=table_after,
        package=lambda update, Q: update(Q),
        cases=table_cases,
        closed=({"update": TWO, "Q": TABLE}, np.array([[4.25, 0.75]])),
        wrong={
            "D K for K D": lambda **given: table_after(**given, row_weight=True),
            "K transposed": lambda **given: table_after(**given, flipped=True),
            "no rho": lambda **given: table_after(**given, weighted=False),
            "no gamma": lambda **given: table_after(**given, backup={"discount": False}),
        },
    ),
    "eq-update": Equation(
        printed=moved,
        package=lambda matrix, mdp, Q: Update(mdp, matrix)(Q),
        cases=moved_cases,
        # M = [[1, 2], [0, 3]] on the TD error (0, 2)
        closed=({"matrix": np.array([[1.0, 2.0], [0.0, 3.0]]), "mdp": TWO.mdp, "Q": TABLE}, np.array([[6.0, 6.0]])),
        wrong={
            "Q - T*Q": lambda **given: moved(**given, sign=-1.0),
            "T*Q without minus Q": lambda **given: moved(**given, minus=False),
            "M transposed": lambda **given: moved(**given, flipped=True),
            "the diagonal of M only": lambda matrix, **given: moved(np.diag(np.diag(matrix)), **given),
            "no gamma": lambda **given: moved(**given, discount=False),
        },
    ),
}
