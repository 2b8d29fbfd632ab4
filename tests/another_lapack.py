"""What another LAPACK may return: other eigenvectors and singular vectors, another order, all as right as the first.

A matrix does not say which vector stands for an eigenvalue: not its sign, not its phase, not which of the many where
two eigenvalues are equal; and `eig` promises no order. Libraries and processors differ there. As a plugin of pytest
(``-p tests.another_lapack``) this makes numpy and torch answer otherwise, so that what leans on the usual answer fails.
"""

import functools
import zlib

import numpy as np
import torch

USUAL_QR = np.linalg.qr


def pytest_configure():
    """Answer otherwise from here on; pytest calls this."""
    install()


def install(put=setattr):
    """Put the other answers in the place of the usual ones, once."""
    for library in (np, torch):
        for name, change in CHANGES.items():
            usual = getattr(library.linalg, name)
            if not hasattr(usual, "usual"):
                put(library.linalg, name, otherwise(usual, np.vectorize(change, signature=SIGNATURES[name])))


def otherwise(usual, change):
    """Return a function that answers as `usual` does, with the matrices of the answer changed."""

    @functools.wraps(usual)
    def other(*args, **kwargs):
        found = usual(*args, **kwargs)
        parts = found if isinstance(found, tuple) else (found,)
        asked = change.signature.split("->")[0].count("(")
        if len(parts) != asked or not all(part.size if isinstance(part, np.ndarray) else plain(part) for part in parts):
            return found
        changed = change(*map(np.asarray, parts))
        changed = changed if isinstance(changed, tuple) else (changed,)
        if isinstance(parts[0], torch.Tensor):
            changed = tuple(torch.tensor(new, dtype=old.dtype) for new, old in zip(changed, parts, strict=True))
            return type(found)(changed) if len(parts) > 1 else changed[0]
        return type(found)(*changed) if len(parts) > 1 else changed[0]

    other.usual = usual
    return other


def plain(part):
    """Say whether numpy can read a tensor: it is full, real data on the processor, and not part of a derivative."""
    return type(part) is torch.Tensor and part.numel() > 0 and part.device.type == "cpu" and not part.requires_grad


def rotation(size, drawn_by):
    """Return an orthogonal matrix that mixes everything with everything, the same one for the same numbers."""
    rng = np.random.default_rng(zlib.crc32(np.ascontiguousarray(drawn_by).tobytes()))
    return USUAL_QR(rng.standard_normal((size, size)))[0]


def rounding(values):
    """Return by how much equal eigenvalues of a matrix of this size may differ."""
    return 4 * len(values) * np.finfo(values.dtype).eps * np.abs(values).max()


def equal(values):
    """Return groups of positions whose values agree to rounding."""
    left, found = list(range(len(values))), []
    while left:
        near = [k for k in left if abs(values[k] - values[left[0]]) <= rounding(values)]
        left = [k for k in left if k not in near]
        found.append(near)
    return found


def turned(values, vectors):
    """Return eigenvectors, in columns, that are as good: of opposite sign, and mixed where eigenvalues are equal."""
    vectors = -vectors
    if np.iscomplexobj(values):  # another phase; two that are conjugate stay so
        vectors = vectors * np.where(values.imag > 0, 1j, np.where(values.imag < 0, -1j, 1)).astype(vectors.dtype)
    for group in equal(values):
        several = vectors[:, group]
        # A defective matrix has fewer vectors than eigenvalues: those that are nearly parallel are not mixed.
        if len(group) > 1 and np.linalg.cond(several) < 1e6:
            several = several @ rotation(len(group), values[group]).astype(several.dtype)
            vectors[:, group] = several / np.linalg.norm(several, axis=0)
    return vectors


def eig(values, vectors):
    """Return other eigenvectors, in another order."""
    values, vectors = values[::-1], vectors[:, ::-1]
    return values, turned(values, vectors)


def eigvals(values):
    """Return the eigenvalues in another order."""
    return values[::-1]


def eigh(values, vectors):
    """Return other eigenvectors, in the order that is promised."""
    return values, turned(values, vectors)


def qr(Q, R):
    """Return the factors with other signs."""
    return -Q, -R


def svd(U, sizes, Vh):
    """Return other pairs of singular vectors, and other bases of the two null spaces, which have no pairs."""
    largest = max(len(U), Vh.shape[1])
    null = sizes <= 4 * largest * np.finfo(sizes.dtype).eps * sizes.max()
    sizes_of = [np.append(np.where(null, 0, sizes), np.zeros(k - len(sizes))) for k in (U.shape[1], len(Vh))]
    sizes_of = [part.astype(sizes.dtype) for part in sizes_of]
    U = turned(sizes_of[0], U)
    Vh = turned(sizes_of[1], Vh.conj().T).conj().T
    hidden = sizes_of[1] == 0
    Vh[hidden] = rotation(hidden.sum(), Vh).astype(Vh.dtype) @ Vh[hidden]
    return U, sizes, Vh


CHANGES = {"eig": eig, "eigh": eigh, "eigvals": eigvals, "qr": qr, "svd": svd}
SIGNATURES = {
    "eig": "(n),(n,n)->(n),(n,n)",
    "eigh": "(n),(n,n)->(n),(n,n)",
    "eigvals": "(n)->(n)",
    "qr": "(m,k),(k,n)->(m,k),(k,n)",
    "svd": "(m,p),(k),(q,n)->(m,p),(k),(q,n)",
}
