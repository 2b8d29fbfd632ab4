"""Files that are there whole or not at all.

What is in them is somebody else's: the table of a run is written by `studies.runner`, its checkpoint by `training`.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

HALF = ".part"
"""How the name of a file ends that is being written."""


def write(path: Path, save: Callable[[IO[bytes]], object]) -> None:
    """Write a file aside, flush it to the disk, and move it to its name: a kill at any moment leaves old or new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=HALF)
    try:
        with open(handle, "wb") as file:
            save(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
