"""Run a command as on another processor, where sums are taken in another order and LAPACK answers otherwise.

    another_machine.py pytest tests/test_contraction.py         with no command: only say what is different

Old instructions instead of new ones: OpenBLAS (numpy, scipy), numpy's own loops, MKL and the loops of torch. In a
fresh process each is asked what it really uses, and the command is not run unless all four have obeyed. IPython
starts every kernel with `tests.another_lapack`, and pytest is told to load it.
"""

import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE = {"x86_64": "Sandybridge", "AMD64": "Sandybridge", "aarch64": "ARMV8", "arm64": "ARMV8"}[platform.machine()]
PLUGIN = "tests.another_lapack"
SAY = """
import numpy, scipy.linalg, threadpoolctl, torch
blas = {pool["architecture"] for pool in threadpoolctl.threadpool_info() if pool["internal_api"] == "openblas"}
found = numpy.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
print("openblas=" + ",".join(sorted(blas)), "numpy=" + ",".join(found), sep="\\n")
print("torch=" + torch.backends.cpu.get_cpu_capability(), "mkl=none", sep="\\n", flush=True)
torch.ones(2, 2) @ torch.ones(2, 2)  # MKL_VERBOSE: says the mode, as CNR
"""


def used(environment):
    """Return what each library uses in a process with this environment."""
    command = [sys.executable, "-c", SAY]
    said = subprocess.check_output(command, cwd=ROOT, env=environment | {"MKL_VERBOSE": "1"}, text=True)
    found = dict(re.findall(r"^(openblas|numpy|torch|mkl)=(.*)$", said, re.M))
    mode = re.search(r"\bCNR:(\w+)", said)
    return found | {"mkl": mode[1]} if mode else found


def older(environment, here):
    """Return the environment of an older processor, given what is used on this one."""
    settings = {"OPENBLAS_CORETYPE": CORE, "MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "default"}
    if here["numpy"]:  # of what this build of numpy has, what this processor can: another name would be an error
        settings["NPY_DISABLE_CPU_FEATURES"] = here["numpy"]
    return environment | settings


def disobeyed(there):
    """Return what did not take the older path, in words."""
    want = {"openblas": CORE, "numpy": "", "torch": "DEFAULT", "mkl": "COMPATIBLE"}
    if there["mkl"] == "none":  # torch was built on another BLAS
        del want["mkl"]
    return [
        f"{name} uses {there[name] or 'nothing'}, not {value or 'nothing'}"
        for name, value in want.items()
        if there[name].lower() != value.lower()
    ]


def main():
    """Say what is different, then run the command."""
    plain = {name: value for name, value in os.environ.items() if name != "NPY_DISABLE_CPU_FEATURES"}
    here = used(plain)
    environment = older(plain, here)
    there = used(environment)
    for name, value in here.items():
        print(f"{name}: {value or 'nothing'} -> {there[name] or 'nothing'}", flush=True)
    if wrong := disobeyed(there):
        sys.exit("This is no other path: " + "; ".join(wrong))
    if len(sys.argv) == 1:
        return 0
    with tempfile.TemporaryDirectory() as place:
        start = Path(place, "profile_default", "startup")
        start.mkdir(parents=True)
        start.joinpath("another_lapack.py").write_text(f"import {PLUGIN}\n{PLUGIN}.install()\n", encoding="utf-8")
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment |= {"IPYTHONDIR": place, "PYTHONPATH": path, "PYTEST_PLUGINS": PLUGIN}
        return subprocess.run([sys.executable, "-m", *sys.argv[1:]], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
