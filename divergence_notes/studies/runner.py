"""Do the runs of a study that are missing, on a Dask cluster, and write down each when it is finished.

A run is finished when its file is there under its final name: it is written under another one, flushed to the disk, and
then renamed. A kill at any moment loses of the runs in flight what came after their last checkpoint, or all of a run
that writes none, and nothing else; the next start skips what is finished. Checkpoints lie beside the results: a cluster
whose workers share no disk with each other loses a run that another worker takes up.
"""

import importlib
import inspect
import itertools
import json
import os
import pkgutil
import statistics
import sys
import time
from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.parse import quote

from divergence_notes import _files, studies
from divergence_notes._extras import needs

with needs("studies"):
    import dask
    from distributed import Client, LocalCluster, as_completed
    from tqdm import tqdm

if TYPE_CHECKING:
    import pandas

_KEPT = ".checkpoint.part"  # how the name of a file ends in which a run keeps where it is
_SPENT = ".seconds.part"  # the name of the file with the CPU seconds of the runs that were done here
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
    told = study.SECONDS
    if isinstance(told, dict) and sum(set(values) == set(told) for values in study.PARAMETERS.values()) != 1:
        raise ValueError(f"{path}.SECONDS must have the values of one parameter for keys, got {sorted(told, key=str)}")
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
    table = table.drop(columns=list(parameters), errors="ignore")
    for k, (key, value) in enumerate(parameters.items()):
        table.insert(k, key, str(value))  # text, so that all its digits are kept
    form = {"index": False, "float_format": getattr(study, "FLOAT_FORMAT", None), "lineterminator": "\n"}
    _files.write(path, lambda file: table.to_csv(file, mode="wb", encoding="utf-8", **form))


def checkpoint_path(study: ModuleType, parameters: dict, results: Path) -> Path:
    """Return where the run with these parameters keeps where it is.

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
        The file, which is there only while the run is not finished.
    """
    path = result_path(study, parameters, results)
    return path.with_name(f".{path.stem}{_KEPT}")


def seconds(study: ModuleType, parameters: dict) -> float:
    """Return what a run costs according to its study.

    Parameters
    ----------
    study : module
        As the package's docstring says.
    parameters : dict
        Those of the run.

    Returns
    -------
    float
        CPU seconds.
    """
    if not isinstance(study.SECONDS, dict):
        return study.SECONDS
    (key,) = (key for key, values in study.PARAMETERS.items() if set(values) == set(study.SECONDS))
    return study.SECONDS[parameters[key]]


def pace(study: ModuleType, results: Path) -> tuple[float, int]:
    """Return what a run costs here, in units of what its study says.

    Parameters
    ----------
    study : module
        As the package's docstring says.
    results : path
        The directory that holds a directory for each study.

    Returns
    -------
    factor : float
        The median over the runs that were done here from start to end without a break; 1 if there is none.
    runs : int
        How many there are.
    """
    spent = _spent(study, results)
    told = {result_path(study, parameters, results).stem: seconds(study, parameters) for parameters in grid(study)}
    factors = [each / told[stem] for stem, each in spent.items() if stem in told]
    return (statistics.median(factors) if factors else 1.0), len(factors)


def _spent(study: ModuleType, results: Path) -> dict[str, float]:
    """Return the CPU seconds of the runs that were done here, by the names of their files."""
    path = directory(study, results) / _SPENT
    return json.loads(path.read_text()) if path.exists() else {}


def perform(name: str, parameters: dict, checkpoint: str) -> "tuple[pandas.DataFrame, float | None]":
    """Do one run, in a worker, on one thread.

    Parameters
    ----------
    name : str
        The path of the study, with dots.
    parameters : dict
        Those of the run.
    checkpoint : str
        Where it keeps where it is, if the study can.

    Returns
    -------
    table : DataFrame
        What the run returned.
    seconds : float or None
        The CPU time it took; None if it went on from a checkpoint.
    """
    study = importlib.import_module(name)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if "checkpoint" not in inspect.signature(study.run).parameters:
        start = time.process_time()
        return study.run(**parameters), time.process_time() - start
    fresh, start = not os.path.exists(checkpoint), time.process_time()
    table = study.run(**parameters, checkpoint=Path(checkpoint))
    return table, time.process_time() - start if fresh else None


def run(
    study: ModuleType,
    *,
    results: Path,
    workers: int | None = None,
    scheduler: str | None = None,
    without: dict[str, list[str]] | None = None,
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
        The address of a Dask cluster to use instead. Its workers must be able to import the study, and to write
        where the results are if a run that is killed shall go on; results are written by this process only.
    without : dict of str to list of str, optional
        Leave out, for now, the runs whose parameters have one of these values.

    Returns
    -------
    dict
        The exception of each run that failed, by the name of its file. The other runs are finished.
    """
    for left in directory(study, results).glob(f".*{_files.HALF}"):
        if left.name.endswith((_KEPT, _SPENT)):
            continue
        if time.time() - left.stat().st_mtime > _FORSAKEN:
            left.unlink(missing_ok=True)
    left_out = without or {}
    todo = [
        parameters
        for parameters in missing(study, results)
        if not any(str(parameters[key]) in values for key, values in left_out.items())
    ]
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
        futures = {}
        for parameters in todo:
            kept = str(checkpoint_path(study, parameters, results).absolute())
            futures[client.submit(perform, study.__name__, parameters, kept, pure=False)] = parameters
        for future in as_completed(list(futures)):
            parameters = futures.pop(future)
            try:
                table, spent = future.result()
                write(table, study, parameters, results)
                checkpoint_path(study, parameters, results).unlink(missing_ok=True)
                if spent is not None:
                    spent = _spent(study, results) | {result_path(study, parameters, results).stem: round(spent, 1)}
                    text = json.dumps(spent, indent=1)
                    _files.write(directory(study, results) / _SPENT, lambda file, text=text: file.write(text.encode()))
            except (Exception, CancelledError) as error:  # cancelled: the cluster went away
                failures[result_path(study, parameters, results).stem] = error
            future.release()  # or the worker keeps the table
            bar.update()
    return failures
