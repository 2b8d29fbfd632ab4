"""Waiting for what other processes do, as long as it takes on a busy machine."""

import time

PATIENCE = 600
"""Seconds. Who has waited for so long waits for ever: ten times what the slowest of these takes on a busy machine."""


def until(condition, *, seconds=PATIENCE):
    """Wait for a condition; fail when it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
