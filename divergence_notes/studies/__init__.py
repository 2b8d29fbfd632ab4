"""Long experiments, their command line, and their committed results.

A study is a module of this package, or any other importable module, with

- a docstring: the question and the protocol;
- ``PARAMETERS``, a dict from each parameter to the tuple of its values; the runs are their product;
- ``SECONDS``, the CPU seconds that one run takes, roughly: a number, or a dict from the values of one parameter to
  numbers;
- ``run(**parameters)``, which returns a DataFrame and depends on nothing but its arguments; if it takes a
  ``checkpoint`` as well, that is the path of a file from which a run that was killed goes on;
- if fewer digits than all are to be kept, ``FLOAT_FORMAT``, such as ``"%.7g"``.

``python -m divergence_notes.studies run NAME`` does the runs that are missing, one file each, and ``status NAME`` says
which they are and what they cost here; `load` reads what is there, with nothing but pandas.
"""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    import pandas


_COMMITTED = Path(__file__).resolve().parents[2] / "book" / "results"

RESULTS = _COMMITTED if _COMMITTED.is_dir() else Path("results")
"""Where the raw results are kept, ``<study>/<parameters>.csv``: in the book, or, where the package is installed without
it, in the folder ``results`` of where one works."""


def load(name: str, *, results: str | Path = RESULTS) -> "pandas.DataFrame":
    """Return the finished runs of a study in one table.

    Parameters
    ----------
    name : str
        The study.
    results : path
        The directory that holds a directory for each study.

    Returns
    -------
    DataFrame
        The rows of all runs, the parameters in the first columns, sorted by them.

    Raises
    ------
    ValueError
        If no run of the study is finished.
    """
    files = sorted(Path(results, name).glob("[!.]*.csv"))
    if not files:
        there = sorted(path.name for path in Path(results).glob("*/") if any(path.glob("[!.]*.csv")))
        lost = f"there is none in {results} (those of the book lie in its repository, book/results)"
        known = ", ".join(there) or lost
        raise ValueError(f"name must be a study with finished runs: {known}, got {name!r}")
    keys = [unquote(part.partition("=")[0]) for part in files[0].stem.split(",")]
    import pandas

    # only an empty field is missing: a parameter may well be called "none" or "NA"
    runs = [pandas.read_csv(path, keep_default_na=False, na_values=[""]) for path in files]
    return pandas.concat(runs, ignore_index=True).sort_values(keys, kind="stable", ignore_index=True)
