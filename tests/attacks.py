"""Attacks on the book's claims: a search for an instance on which a sentence is false, and the instances to search.

The same search is run against sentences that are known to be false. It must refute them; an attack that cannot do that
shows nothing when it spares the claim.
"""

import numpy as np

from divergence_notes.updates import KernelUpdate
from tests import strategies


def counterexample(claim, cases):
    """Return the first case on which a claim is false, or None."""
    return next((case for case in cases if not claim(case)), None)


def attack(cases, claim, wrong):
    """Fail if a case refutes the claim, or if the cases spare a version of it that is known to be wrong."""
    cases = list(cases)
    assert cases and wrong, "an attack needs cases, and a wrong claim to show what they can do"
    found = counterexample(claim, cases)
    assert found is None, f"the claim is false: {found}"
    for name, version in wrong.items():
        assert counterexample(version, cases) is not None, f"the attack is too weak: nothing refutes {name!r}"


def processes(count, *, seed=0, kinds=strategies.KINDS, gammas=strategies.GAMMAS, max_states=4, max_actions=3):
    """Return random processes, the awkward ones among them."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, (max_states + 1, max_actions + 1), size=(count, 2))
    return [
        strategies.make_mdp(kinds[k % len(kinds)], *map(int, size), gammas[rng.integers(len(gammas))], rng)
        for k, size in enumerate(sizes)
    ]


def kernel_updates(count, *, seed=0, kernels=strategies.KERNELS, weights=strategies.WEIGHTS, alphas=None, **process):
    """Return random kernel updates."""
    rng = np.random.default_rng([seed, 1])
    return [
        KernelUpdate(
            mdp,
            kernel=strategies.make_kernel(kernels[rng.integers(len(kernels))], mdp.n_pairs, rng),
            weights=strategies.make_weights(weights[rng.integers(len(weights))], mdp.n_pairs, rng),
            alpha=float(rng.choice(alphas or (0.05, 0.7, 1.0, 2.5))),
        )
        for mdp in processes(count, seed=seed, **process)
    ]


def size(x):
    """Return the largest entry in size."""
    return float(np.abs(x).max())


def radius(matrix):
    """Return the spectral radius."""
    return float(np.abs(np.linalg.eigvals(matrix)).max())
