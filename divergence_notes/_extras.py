"""What an import lacks is said with the extra of the package that brings it.

Every module that imports more than numpy and scipy does so under `needs`. What an extra brings stands in
pyproject.toml; what is imported only by a function that needs it, as pandas is by `diagnostics`, is no matter of this.
"""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Run the imports of a module; say which extra brings the package that one of them lacks.

    A module that imports another one of this package within its own block has the last word: the reader hears the extra
    of the module that they asked for.

    Parameters
    ----------
    extra : str
        An extra of pyproject.toml that brings all that the module imports.

    Raises
    ------
    ModuleNotFoundError
        In one sentence, with the command that brings what is missing.
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package in ("", "divergence_notes"):  # no extra brings a module that is not there
            raise
        said = f'{package} is missing. This brings it: pip install "divergence-notes[{extra}]"'
        raise ModuleNotFoundError(said, name=missing.name) from None
