"""How everything here is measured: CPU time of one process on one thread, in turns, and the peak of its memory."""

import gc
import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

ONE_THREAD = {
    **dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"),
        "1",
    ),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "JAX_PLATFORMS": "cpu",
}
"""What `run.py` sets before the measured process starts; a library reads it only once."""


def in_turns(methods: Mapping[str, Callable[[], Any]], repeats: Mapping[str, int]) -> tuple[dict, dict]:
    """Call every method in turn, and return CPU seconds and first results.

    Every second round is the one before in reverse, then another method begins: what a method leaves in the caches
    falls on all the others alike, and so do load and heat. A method leaves the rounds when its repeats are done.
    """
    seconds, first = {name: [] for name in methods}, {}
    gc.collect()
    gc.freeze()
    gc.disable()
    for lap in range(max(repeats[name] for name in methods)):
        names = [name for name in methods if repeats[name] > lap]
        first_one = lap // 2 % len(names)
        for name in (names[first_one:] + names[:first_one])[:: -1 if lap % 2 else 1]:
            start = time.process_time()
            result = methods[name]()
            seconds[name].append(time.process_time() - start)
            first.setdefault(name, result)
            del result
        gc.collect()
    gc.enable()
    return seconds, first


def median_ms(seconds: list[float]) -> float:
    """Return the median in milliseconds."""
    return 1e3 * statistics.median(seconds)


def peak_mb(method: Callable[[], Any]) -> float:
    """Return by how much the memory of this process at its peak exceeds what it holds now, in MB of 10^6 bytes."""
    gc.collect()
    with suppress(OSError):  # Linux: forget the peak so far, which is the imports'
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    start = _peak_kb()
    method()
    return 1024e-6 * (_peak_kb() - start)


def _peak_kb() -> int:
    """Return the peak so far; on Linux without what the process that started this one held, which getrusage counts."""
    with suppress(OSError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM"):
                return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def row(what: str, method: str, case: str, seconds: list[float], **more: Any) -> dict:
    """Return one line of the results."""
    return {"what": what, "method": method, "case": case, "ms": median_ms(seconds), "repeats": len(seconds), **more}


def one_thread() -> None:
    """Raise unless the environment holds `ONE_THREAD`."""
    wrong = [name for name, value in ONE_THREAD.items() if os.environ.get(name) != value]
    if wrong:
        raise RuntimeError(f"run this by `make bench`, which sets {', '.join(wrong)}")
