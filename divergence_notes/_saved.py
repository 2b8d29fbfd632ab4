"""What is kept of an agent in a file and read again, as data: no code that stands in a file is run.

A file is made whole or not at all by `_files`. What an agent is says its own `state_dict`, in `preqn` and in `dqn`;
what a run is at a moment, `training`.
"""

import dataclasses
import io
import operator
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from divergence_notes import _files
from divergence_notes._extras import needs

with needs("preqn"):
    import gymnasium
    import torch

_OF_TORCH = 200  # characters of what torch says about a file; the rest of it is advice to run what is in there


def write(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write a state: tensors, numbers and text."""
    _files.write(Path(path), partial(torch.save, dict(state)))


def read(name: str, path: str | Path, kind: str, *, keys: tuple[str, ...]) -> dict[str, Any]:
    """Return the state in a file; whatever else is in it is refused, and never run."""
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the age of a format that is refused anyway
            saved = torch.load(path, weights_only=True, map_location="cpu")
    except OSError:  # no file, or none that may be read
        raise
    except Exception as error:  # what is no file of torch can trip its reader anywhere
        said = " ".join(str(error).split())[:_OF_TORCH].partition("(1)")[0]
        raise ValueError(f"{name} must be {kind}, {path} holds something else; nothing in it was run: {said}") from None
    lacks = [key for key in keys if not isinstance(saved, dict) or key not in saved]
    if lacks:
        raise ValueError(f"{name} must be {kind}, {path} has no {lacks[0]!r}")
    return saved


def readable(state: Mapping[str, Any]) -> str:
    """Return why a state could not be read back from a file, or nothing."""
    kept = io.BytesIO()
    try:
        torch.save(dict(state), kept)
        kept.seek(0)
        torch.load(kept, weights_only=True)
    except Exception as error:  # whatever cannot be written or read
        return str(error).splitlines()[0]
    return ""


@contextmanager
def understood(name: str, path: str | Path, kind: str) -> Iterator[None]:
    """Say of a file that what was read from it makes no sense."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{name} must be {kind}, {path} does not fit together: {said}") from error


def same_widths(hidden: tuple[int, ...], net: Mapping[str, torch.Tensor]) -> None:
    """Raise where the weights of a file have other widths than its settings, before memory is taken for them."""
    found = [len(part) for part in net.values() if part.ndim == 2][:-1]
    if found != list(hidden):
        raise ValueError(f"its hidden layers have widths {found}, its settings say {list(hidden)}")


def plain(settings: Any) -> None:
    """Make settings that were checked of Python's own numbers and text: what is numpy's cannot be read back."""
    for name, value in list(vars(settings).items()):
        object.__setattr__(settings, name, _plain(value))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, tuple):
        return value
    if isinstance(value, str):
        return str(value)
    try:
        return int(operator.index(value))
    except TypeError:
        return float(value)


def same_settings(mine: Any, theirs: Mapping[str, Any]) -> None:
    """Raise where the settings of a state are not those of the agent that is to have it."""
    for name, value in dataclasses.asdict(mine).items():
        found = theirs.get(name)
        if (tuple(found) if isinstance(found, list) else found) != value:  # an older file may have a list of widths
            raise ValueError(f"state must have {name} {value!r}, it has {found!r}")


def from_space(space: gymnasium.Space) -> int | list:
    """Return a space as numbers."""
    return int(space.n) if isinstance(space, gymnasium.spaces.Discrete) else [space.low.tolist(), space.high.tolist()]


def to_space(numbers: int | list) -> gymnasium.Space:
    """Return the space that `from_space` was given, in single precision where that holds the ends as they are."""
    if isinstance(numbers, int):
        return gymnasium.spaces.Discrete(numbers)
    ends = np.asarray(numbers, dtype=np.float64)  # (2, ...)
    with np.errstate(over="ignore"):
        dtype = np.float32 if np.array_equal(ends.astype(np.float32), ends) else np.float64
    return gymnasium.spaces.Box(*ends.astype(dtype), dtype=dtype)
