"""Attacks on the claims of chapter 3: on its summary, line by line."""

import itertools
from dataclasses import replace

import numpy as np
import torch

from divergence_notes import bellman, dynamics, examples, networks, ntk
from divergence_notes.grading import find
from divergence_notes.mdp import random_mdp
from tests.attacks import attack, kernel_updates, size
from tests.pages import printed_by

KINDS = ("relu", "tanh", "sin")


def network(activation, seed, *, hidden=(8,), inputs=6):
    """Return a fresh network."""
    generator = torch.Generator().manual_seed(seed)
    return networks.MLP([inputs, *hidden, 1], activation=activation, generator=generator, dtype=torch.float64)


class Product(torch.nn.Module):
    """The two values of the example by hand: u for the first pair, u w for the second."""

    def __init__(self, u, w):
        super().__init__()
        self.u, self.w = (torch.nn.Parameter(torch.tensor(value, dtype=torch.float64)) for value in (u, w))

    def forward(self, x):
        return (x @ torch.stack([self.u, self.u * self.w]))[:, None]


def by_autograd(u, w, *, reward):
    """Return kernel, predicted and real change of one step with alpha = 5 and equal shares, by autograd."""
    net, x = Product(u, w), torch.eye(2, dtype=torch.float64)
    q, target = networks.values(net, x), np.full(2, reward + 0.9 * u * w)
    K = ntk.gram(net, x).numpy()
    moved = networks.semi_gradient_step(net, x, target, weights=[0.5, 0.5], alpha=5)
    return K, 5 * K @ (0.5 * (target - q)), networks.values(moved, x) - q


def test_the_step_by_hand():
    """The numbers that the chapter does with a pencil, and those of its exercise."""
    K, predicted, real = by_autograd(1.0, 2.0, reward=0.0)
    assert K.tolist() == [[1, 2], [2, 5]]
    np.testing.assert_allclose(predicted, [1, 1.5])
    np.testing.assert_allclose(real, [1, 1])
    assert "predicted: [1.  1.5]  real: [1. 1.]" in printed_by("key_equation", "hand-check")
    _, predicted, real = by_autograd(2.0, 1.0, reward=0.6)
    np.testing.assert_allclose(find("ex-key-equation-by-hand").right(), [predicted, real])


def learners(count):
    """Return networks that hold the values of a random process, with the targets and the shares of a batch."""
    drawn = []
    for seed, activation in zip(range(count), itertools.cycle(KINDS), strict=False):
        rng = np.random.default_rng(seed)
        mdp, net = random_mdp(4, 3, gamma=0.9, branching=2, rng=rng), network(activation, seed)
        x = torch.tensor(rng.standard_normal((mdp.n_pairs, 6)))
        q = networks.values(net, x)
        target = mdp.flatten(bellman.optimality_backup(mdp.unflatten(q), mdp))
        drawn.append({"net": net, "x": x, "q": q, "target": target, "rho": rng.dirichlet(np.ones(mdp.n_pairs))})
    return drawn


def quartered(predict):
    """Return the claim that what a prediction misses falls to a quarter when a short step is halved."""

    def missed(case, alpha):
        moved = networks.semi_gradient_step(case["net"], case["x"], case["target"], weights=case["rho"], alpha=alpha)
        K = ntk.gram(case["net"], case["x"]).numpy()
        error = case["target"] - case["q"]
        return size(networks.values(moved, case["x"]) - case["q"] - alpha * predict(K, case["rho"], error))

    return lambda case: 3.8 < missed(case, 2e-5) / missed(case, 1e-5) < 4.2


def test_a_step_is_the_key_equation():
    """One step is alpha K D (T*Q - Q) and a remainder that falls to a quarter; with one out of place, to a half."""
    attack(
        learners(12),
        quartered(lambda K, rho, error: K @ (rho * error)),
        {
            "the share of the pair that moves": quartered(lambda K, rho, error: rho * (K @ error)),
            "no shares": quartered(lambda K, rho, error: K @ error / len(error)),
            "no kernel": quartered(lambda K, rho, error: rho * error),
            "the loss without the half": quartered(lambda K, rho, error: 2 * K @ (rho * error)),
            "nothing is missed to first order": quartered(lambda K, rho, error: 0 * error),
        },
    )


def lake_inputs():
    """Return the 64 inputs of the chapter: row, column and move."""
    place = np.stack(np.divmod(np.arange(16), 4), axis=1) / 1.5 - 1
    return torch.tensor(np.hstack([place.repeat(4, axis=0), np.tile(np.eye(4), (16, 1))]))


def test_no_entry_of_the_kernel_is_zero():
    """On the lake, in networks with 16 hidden units and biases, of 20 seeds each; not in every network of any size."""
    x = lake_inputs()

    def kernel(case):
        return ntk.gram(network(*case, hidden=(16,)), x).numpy()

    def without_biases(case):
        net = network(*case, hidden=(2,))
        for name, parameter in net.named_parameters():
            if "bias" in name:
                torch.nn.init.zeros_(parameter).requires_grad_(False)
        return ntk.gram(net, x).numpy()

    attack(
        list(itertools.product(KINDS, range(20))),
        lambda case: (kernel(case) != 0).all(),
        {
            "none is negative": lambda case: (kernel(case) > 0).all(),
            "so it is in every network": lambda case: (without_biases(case) != 0).all(),
        },
    )


def remainder(case, trained):
    """Return the remainder of a short step of a ReLU network that trains these layers only."""
    net = network("relu", case)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(any(name.startswith(layer) for layer in trained))
    rng = np.random.default_rng(case)
    x, target = torch.tensor(rng.standard_normal((12, 6))), 3 * rng.standard_normal(12)
    return size(ntk.remainder(net, x, target, weights=np.full(12, 1 / 12), alpha=1e-4))


def test_two_layers_that_both_move_are_the_reason():
    """For ReLU: hold either layer still and the remainder is gone, as long as no unit switches."""
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in network("relu", 0).named_parameters()))
    first, last = layers
    attack(
        range(20),
        lambda seed: remainder(seed, [first]) < 1e-14 and remainder(seed, [last]) < 1e-14,
        {"with both it is gone as well": lambda seed: remainder(seed, layers) < 1e-12},
    )


def power(case, *, first):
    """Return how fast the remainder of one parameter t at 0 falls, or what is left of it after the second order."""
    value, second = case
    h = np.array([1e-2, 1e-3])
    left = np.abs(value(h) - value(0.0) - h * first - h**2 / 2 * second)
    return np.log10(left[0] / left[1]) if left.min() > 0 else np.inf


def test_the_third_order_asks_for_a_hessian_that_turns_at_a_finite_rate():
    """What is left after the second order: h^3 for t^3 and sin, and h^2.5 for |t|^2.5, whose Hessian is continuous."""
    rough = (lambda t: np.abs(t) ** 2.5, 0.0)
    cases = [(lambda t: t**3, 0.0), (lambda t: np.cos(t), -1.0), (lambda t: t**2 + t**4, 2.0), rough]
    attack(
        cases,
        lambda case: case is rough or power(case, first=0.0) > 2.9,
        {
            "O(alpha^3) for every smooth network": lambda case: power(case, first=0.0) > 2.9,
            "no more than the square is ever left": lambda case: power(case, first=0.0) < 2.1,
        },
    )
    assert 2.4 < power(rough, first=0.0) < 2.6  # smaller than the square, and no more


def same(**other):
    """Return the claim that an update is the same with some of its factors changed."""

    def claim(update):
        Q = np.random.default_rng(0).standard_normal(update.mdp.R.shape)
        changed = {name: change(getattr(update, name)) for name, change in other.items()}
        return np.allclose(replace(update, **changed)(Q), update(Q), rtol=1e-9, atol=1e-9)

    return claim


def test_only_the_product_enters():
    """Ten times the kernel with a tenth of the step is the same update; one of the two alone is another."""
    attack(
        kernel_updates(60),
        same(kernel=lambda K: 10 * K, alpha=lambda alpha: alpha / 10),
        {
            "only K and D": same(alpha=lambda alpha: alpha / 10),
            "only alpha and D": same(kernel=lambda K: 10 * K),
            "only alpha and K": same(weights=lambda rho: rho[::-1]),
        },
    )


def test_to_make_one_factor_small_is_no_cure():
    """From (1, 0) the pair diverges with a tenth of the kernel, of the step, of the values.

    With another mixture it does not, nor from (0, 1).
    """
    pair = examples.full_data_divergence()
    update = pair.update

    def diverges(factors, *, weights=update.weights, Q0=pair.Q0):
        kernel, alpha, start = factors
        step = replace(update, kernel=kernel * update.kernel, weights=weights, alpha=alpha * update.alpha)
        run = dynamics.iterate(step, start * Q0, max_iter=4000, bound=30 * start, tol=1e-6 * start)
        return run.status == "diverged"

    attack(
        [(0.1, 1, 1), (1, 0.1, 1), (1, 1, 1e-3), (10, 0.01, 1)],
        diverges,
        {
            "nor is another mixture": lambda factors: diverges(factors, weights=[0.9, 0.1]),
            "nor is another start": lambda factors: diverges(factors, Q0=pair.Q0[:, ::-1]),
        },
    )
