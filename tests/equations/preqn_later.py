"""Chapter 6, third part: What does an older remedy do to the kernel?"""

import numpy as np
import torch

from divergence_notes import examples, networks, updates
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
