"""Waiting for what other processes do, as long as it takes on a busy machine."""

import time


def until(condition, seconds=30):
    """Wait for a condition; fail when it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
