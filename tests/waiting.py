"""Waiting for what other processes do, as long as it takes on a busy machine."""

import fcntl
import shutil
import time

PATIENCE = 600
"""Seconds. Who has waited for so long waits for ever: ten times what the slowest of these takes on a busy machine."""


def until(condition, *, seconds=PATIENCE):
    """Wait for a condition; fail when it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def once(place, make):
    """Return the folder that `make` fills: by whoever comes first, while the others wait."""
    with open(place.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "done").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            make(place)
            (place / "done").touch()
    return place
