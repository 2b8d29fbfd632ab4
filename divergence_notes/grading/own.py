"""Numbers that are drawn for a name, and a code that fixes an answer before a run is looked at.

How an answer is judged is in `checking`. Whether a name is that of whoever hands in, and whether a code came in time,
is the coursework's affair.
"""

import contextlib
import hashlib
import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np

LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Those of a code, without I, O, 0 and 1."""


def plain(name: Any) -> str:
    """Return the letters and digits of a name, large and small alike.

    Parameters
    ----------
    name : str
        As somebody writes it.

    Returns
    -------
    str
        The same for ``"Ada Lovelace"`` and ``"ada lovelace "``.

    Raises
    ------
    ValueError
        If there is no letter and no digit in it.
    """
    found = "".join(c for c in unicodedata.normalize("NFKC", str(name).casefold()) if c.isalnum())
    if not isinstance(name, str) or not found:
        raise ValueError(f"name must be a string with letters or digits, got {name!r}")
    return found


def own_numbers(name: Any, given: Mapping) -> dict:
    """Return the numbers of a class, some of them drawn for a name.

    Parameters
    ----------
    name : str or Ellipsis
        A name, in any spelling that `plain` makes the same; where there is none, the numbers are those of the class.
    given : mapping
        Numbers by name. Under ``"own"`` it has ``"of"``, the names of those that are drawn, and ``"rows"``, a list of
        values for them.

    Returns
    -------
    dict
        All numbers but ``"own"``, those that are drawn from the row that the name and the rows together pick.

    Raises
    ------
    ValueError
        If the name has no letter and no digit.

    Examples
    --------
    >>> given = {"gamma": 0.9, "end": 0.1, "own": {"of": ["end"], "rows": [[0.2]]}}
    >>> own_numbers("Ada", given)["end"]
    0.2
    """
    numbers = {key: value for key, value in given.items() if key != "own"}
    if name is None or name is ... or "own" not in given:
        return numbers
    rows = given["own"]["rows"]
    row = rows[_digest(plain(name), rows) % len(rows)]
    return numbers | dict(zip(given["own"]["of"], row, strict=True))


def seal(name: Any, *answers: Any) -> str:
    """Return a code for answers, which says nothing about them and changes when one of them does.

    Parameters
    ----------
    name : str or Ellipsis
        Of whoever answers.
    *answers : object
        Numbers, arrays or texts; numbers count with six digits, and what is open counts as such.

    Returns
    -------
    str
        Eight letters and digits, or a word that something is open.

    Raises
    ------
    ValueError
        If the name has no letter and no digit.
    """
    if name is None or name is ... or all(answer is None or answer is ... for answer in answers):
        return "open: there is nothing to seal yet"
    number = _digest(plain(name), [_written(answer) for answer in answers])
    code = "".join(LETTERS[number // len(LETTERS) ** place % len(LETTERS)] for place in range(8))
    return f"{code[:4]}-{code[4:]}"


def _written(answer: Any) -> Any:
    """Return an answer in a form that is the same on every machine."""
    if answer is None or answer is ...:
        return None
    if not isinstance(answer, str):
        with contextlib.suppress(TypeError, ValueError):  # it may be anything that somebody typed
            return [f"{number:.6g}" for number in np.ravel(np.asarray(answer, dtype=float) + 0.0)]
    return str(answer).strip().casefold()


def _digest(name: str, more: Any) -> int:
    return int.from_bytes(hashlib.sha256(f"{name}:{more!r}".encode()).digest(), "big")
