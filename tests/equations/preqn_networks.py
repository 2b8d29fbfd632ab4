"""Chapter 6, second part: Does it work with a network, too?"""

import numpy as np
import torch

from divergence_notes import networks, ntk, preqn
from tests.equations import Equation

DEFINITIONS: set[str] = set()


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


EQUATIONS = {
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
}
