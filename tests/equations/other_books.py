"""The equation of the page on other books, as printed: normal equations, nothing of the package."""

import numpy as np

from tests.equations import Equation

DEFINITIONS = set()


def project(phi, rho, x, *, inner=None, outer=None):
    """Return Phi (Phi^T D Phi)^-1 Phi^T D x, or the same with other shares in one of the two places."""
    inner, outer = (np.diag(rho if given is None else given) for given in (inner, outer))
    return phi @ np.linalg.solve(phi.T @ inner @ phi, phi.T @ outer @ x)


def package(phi, rho, x):
    """Return the same out of the package, imported where it is used, so that the shape hook is in place."""
    from divergence_notes import features

    return features.projection(phi, rho) @ x


def cases(rng):
    """Return features, shares and a table."""
    return [
        {"phi": rng.standard_normal((5, width)), "rho": rng.dirichlet(np.ones(5)), "x": rng.standard_normal(5)}
        for width in (1, 2, 4)
    ]


ONES = np.ones(5)
EQUATIONS = {
    "eq-projection": Equation(
        printed=project,
        package=package,
        cases=cases,
        closed=(
            {"phi": np.array([[1.0], [2.0]]), "rho": np.array([0.5, 0.5]), "x": np.array([1.0, 1.0])},
            np.array([0.6, 1.2]),
        ),
        wrong={
            "without the shares": lambda phi, rho, x: project(phi, ONES[: len(rho)], x),
            "shares on the right alone": lambda phi, rho, x: project(phi, rho, x, inner=ONES[: len(rho)]),
            "shares on the left alone": lambda phi, rho, x: project(phi, rho, x, outer=ONES[: len(rho)]),
            "no inverse: the gradient step": lambda phi, rho, x: phi @ phi.T @ (rho * x),
        },
    ),
}
