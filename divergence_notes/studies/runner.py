"""Do the runs of a study that are missing, on a Dask cluster, and write down each when it is finished.

A run is finished when its file is there under its final name: it is written under another one, flushed to the disk, and
then renamed. So a kill at any moment loses the runs in flight and nothing else, and the next start skips what is there.
"""

import importlib
import itertools
import os
import pkgutil
import sys
import tempfile
import time
from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.parse import quote

from divergence_notes import studies
from divergence_notes._extras import needs

with needs("studies"):
    import dask
    from distributed import Client, LocalCluster, as_completed
    from tqdm import tqdm

if TYPE_CHECKING:
    import pandas

_HALF = ".part"  # how the name of a file ends that is being written
_FORSAKEN = 3600  # after that many seconds without a change nobody writes it any more; a younger one may be another's

# Ctrl-C reaches every process of the terminal. A worker that dies of it may be started again while its cluster closes;
# one that lives on ends when the cluster tells it to. What it loses meanwhile it need not tell.
_QUIET = "import logging, signal\nsignal.signal(signal.SIGINT, lambda *_: logging.disable())"


def find(name: str) -> ModuleType:
    """Import a study: a module of this package, or any importable module by its dotted name.

    Parameters
    ----------
    name : str
        A name, or the path of a module with dots.

    Returns
    -------
    module
        The study.

    Raises
    ------
    ValueError
        If there is no such module, or it is no study.
    """
    path = name if "." in name else f"{studies.__name__}.{name}"
    try:
        study = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise  # it is there, and what it imports is not
        raise ValueError(f"name must be one that `list` knows, or a module, got {name!r}") from error
    missing = [part for part in ("PARAMETERS", "SECONDS", "run") if not hasattr(study, part)]
    if missing:
        raise ValueError(f"name must be a study, but {path} has no {', no '.join(missing)}")
    for key, values in study.PARAMETERS.items():
        for value in values:
            if not isinstance(value, (str, bool, int, float)):
                raise ValueError(f"{path}.PARAMETERS[{key!r}] must hold text and plain numbers, got {value!r}")
    return study


def names() -> list[str]:
    """Return the names of the studies of this package."""
    modules = [module.name for module in pkgutil.iter_modules(studies.__path__) if module.name != "__main__"]
    return [name for name in modules if hasattr(importlib.import_module(f"{studies.__name__}.{name}"), "PARAMETERS")]


def grid(study: ModuleType) -> Iterator[dict]:
    """Yield the parameters of each run, the last one varying fastest.

    Parameters
    ----------
    study : module
        As the package's docstring says.

    Yields
    ------
    dict
        The value of each parameter.
    """
    for values in itertools.product(*study.PARAMETERS.values()):
        yield dict(zip(study.PARAMETERS, values, strict=True))


def result_path(study: ModuleType, parameters: dict, results: Path) -> Path:
    """Return where the run with these parameters is kept.

    Parameters
    ----------
    study : module
        As the package's docstring says.
    parameters : dict
        Those of the run.
    results : path
        The directory that holds a directory for each study.

    Returns
    -------
    path
        The file, which need not be there yet.
    """
    stem = ",".join(f"{quote(key, safe='')}={quote(str(value), safe='')}" for key, value in parameters.items())
    return directory(study, results) / f"{stem}.csv"


def directory(study: ModuleType, results: Path) -> Path:
    """Return where the runs of a study are kept.

    Parameters
    ----------
    study : module
        As the package's docstring says.
    results : path
        The directory that holds a directory for each study.

    Returns
    -------
    path
        The directory, which need not be there yet.
    """
    return results / study.__name__.rpartition(".")[2]


def missing(study: ModuleType, results: Path) -> list[dict]:
    """Return the parameters of the runs that are not finished.

    Parameters
    ----------
    study : module
        As the package's docstring says.
    results : path
        The directory that holds a directory for each study.

    Returns
    -------
    list of dict
        One for each run.
    """
    return [parameters for parameters in grid(study) if not result_path(study, parameters, results).exists()]


def write(table: object, study: ModuleType, parameters: dict, results: Path) -> None:
    """Write a run under its final name, whole or not at all, with its parameters in the first columns.

    Parameters
    ----------
    table : DataFrame
        What the run returned.
    study : module
        As the package's docstring says.
    parameters : dict
        Those of the run.
    results : path
        The directory that holds a directory for each study.
    """
    import pandas

    if not isinstance(table, pandas.DataFrame) or table.empty:
        raise ValueError(f"run must return a DataFrame with rows, got {type(table).__name__}")
    path = result_path(study, parameters, results)
    path.parent.mkdir(parents=True, exist_ok=True)
    table = table.drop(columns=list(parameters), errors="ignore")
    for k, (key, value) in enumerate(parameters.items()):
        table.insert(k, key, str(value))  # text, so that all its digits are kept
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=_HALF, text=True)
    try:
        with open(handle, "w", encoding="utf-8", newline="") as file:
            table.to_csv(file, index=False, float_format=getattr(study, "FLOAT_FORMAT", None), lineterminator="\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def perform(name: str, parameters: dict) -> "pandas.DataFrame":
    """Do one run, in a worker, on one thread.

    Parameters
    ----------
    name : str
        The path of the study, with dots.
    parameters : dict
        Those of the run.

    Returns
    -------
    DataFrame
        What the run returned.
    """
    study = importlib.import_module(name)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    return study.run(**parameters)


def run(
    study: ModuleType, *, results: Path, workers: int | None = None, scheduler: str | None = None
) -> dict[str, BaseException]:
    """Do the runs that are missing, and clear away what a process that was killed has left half written.

    Parameters
    ----------
    study : module
        As the package's docstring says.
    results : path
        The directory that holds a directory for each study.
    workers : int, optional
        Processes on this machine; as many as it has cores by default.
    scheduler : str, optional
        The address of a Dask cluster to use instead. Its workers must be able to import the study; only this
        process writes files.

    Returns
    -------
    dict
        The exception of each run that failed, by the name of its file. The other runs are finished.
    """
    for left in directory(study, results).glob(f".*{_HALF}"):
        if time.time() - left.stat().st_mtime > _FORSAKEN:
            left.unlink(missing_ok=True)
    todo = missing(study, results)
    failures: dict[str, BaseException] = {}
    if not todo:
        return failures
    with ExitStack() as stack:
        if scheduler is None:
            workers = min(workers or os.cpu_count() or 1, len(todo))
            # one run at a time for each worker: if it dies, no run that only waited there is blamed
            stack.enter_context(dask.config.set({"distributed.scheduler.worker-saturation": 1.0}))
            cluster = LocalCluster(
                n_workers=workers, processes=True, threads_per_worker=1, dashboard_address=None, preload=[_QUIET]
            )
            scheduler = stack.enter_context(cluster).scheduler_address
        client = stack.enter_context(Client(scheduler))
        bar = stack.enter_context(tqdm(total=len(todo), desc=study.__name__.rpartition(".")[2], unit="run"))
        futures = {client.submit(perform, study.__name__, parameters, pure=False): parameters for parameters in todo}
        for future in as_completed(list(futures)):
            parameters = futures.pop(future)
            try:
                write(future.result(), study, parameters, results)
            except (Exception, CancelledError) as error:  # cancelled: the cluster went away
                failures[result_path(study, parameters, results).stem] = error
            future.release()  # or the worker keeps the table
            bar.update()
    return failures
