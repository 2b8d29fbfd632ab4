"""One thread for every BLAS: the tests share the cores with each other. Plugins import numpy, so this one comes first.

pyproject.toml names it in `addopts` (``-p tests.one_thread``): pytest imports what stands there before any installed
plugin, however it was started. Workers, subprocesses and the kernels of notebooks inherit it.
"""

import os

for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{library}_NUM_THREADS"] = "1"
