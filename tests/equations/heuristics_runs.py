"""Chapter 5, second part: Watch a run go wrong."""

import numpy as np

from divergence_notes import diagnostics
from tests.equations import Equation
from tests.equations.heuristics import spd

DEFINITIONS: set[str] = set()


def effective_rank(kernel, *, squared=False, share=True, base=np.e, sign=-1.0):
    """Transcribe eq-effective-rank, for a symmetric positive definite kernel."""
    eigenvalues = np.linalg.eigvalsh(kernel) ** (2 if squared else 1)
    p = eigenvalues / (eigenvalues.sum() if share else 1.0)
    return np.exp(sign * sum(x * np.log(x) / np.log(base) for x in p))


def cosine(dq, td_error, *, both=True, size=2, sign=1.0):
    """Transcribe eq-alignment."""
    inner = sum(a * b for a, b in zip(dq, td_error, strict=True))
    return sign * inner / (np.linalg.norm(dq, size) * (np.linalg.norm(td_error, size) if both else 1.0))


EQUATIONS = {
    "eq-effective-rank": Equation(
        printed=effective_rank,
        package=diagnostics.effective_rank,
        cases=lambda rng: [{"kernel": spd(rng, n)} for n in (2, 4, 7)],
        closed=({"kernel": 3 * np.eye(5)}, 5.0),
        wrong={
            "not made to sum to 1": lambda kernel: effective_rank(kernel, share=False),
            "squares of the eigenvalues": lambda kernel: effective_rank(kernel, squared=True),
            "logarithm to base 2": lambda kernel: effective_rank(kernel, base=2),
            "no minus": lambda kernel: effective_rank(kernel, sign=1.0),
        },
    ),
    "eq-alignment": Equation(
        printed=cosine,
        package=diagnostics.alignment,
        cases=lambda rng: [{"dq": rng.standard_normal(n), "td_error": rng.standard_normal(n)} for n in (2, 5)],
        closed=({"dq": np.array([1.0, 0.0]), "td_error": np.array([-3.0, 3.0])}, -(0.5**0.5)),
        wrong={
            "sign": lambda **k: cosine(**k, sign=-1.0),
            "one length": lambda **k: cosine(**k, both=False),
            "sup norm": lambda **k: cosine(**k, size=np.inf),
        },
    ),
}
