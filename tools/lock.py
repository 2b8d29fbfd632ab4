"""Compile requirements.txt, the exact lock of everything, from pyproject.toml.   lock.py [--upgrade]"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH = "torch==2.13.0"  # the release whose CPU build is at hand wherever the book is built

command = f"-m piptools compile --all-extras --strip-extras --no-emit-index-url --no-emit-find-links \
    --no-emit-trusted-host --no-header --quiet --unsafe-package divergence-notes --unsafe-package pip \
    --unsafe-package setuptools --upgrade-package {TORCH} --output-file requirements.txt pyproject.toml"
subprocess.run([sys.executable, *command.split(), *sys.argv[1:]], cwd=ROOT, check=True)

# The name of a build ("+cpu") is this machine's affair: the lock names releases.
lock = ROOT / "requirements.txt"
text = re.sub(r"(?m)^(\S+==[^+\s]+)\+\S+", r"\1", lock.read_text(encoding="utf-8"))
lock.write_text("# Made by `make lock` from pyproject.toml: edit that, not this.\n" + text, encoding="utf-8")
