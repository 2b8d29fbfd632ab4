"""Make .venv from requirements.txt, unless a finished one is there. Standard library only, as it runs before all else.

The stamp is written last and names the lock, the Python and the place, so an interrupted installation is never trusted:
without the right stamp the environment is made again from nothing.
"""

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "made-from"

if sys.hexversion < 0x030B0000:
    sys.exit(f"This needs Python 3.11 or newer, and {sys.executable} is older. Try: make book PYTHON=python3.12")

lock = (ROOT / "requirements.txt").read_bytes()
want = "{}\nPython {}.{}\n{}\n".format(hashlib.sha256(lock).hexdigest(), *sys.version_info[:2], VENV)
python = VENV / "bin" / "python"

if not (python.exists() and STAMP.is_file() and STAMP.read_text(encoding="utf-8") == want):
    print(f"Making {VENV} from requirements.txt, which takes some minutes, once.", flush=True)
    shutil.rmtree(VENV, ignore_errors=True)
    venv.create(VENV, with_pip=True, symlinks=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", ROOT / "requirements.txt"], check=True)
    # The package itself: a path line, so that an edit is seen at once and nothing is ever built.
    site_packages = subprocess.check_output([python, "-c", "import sysconfig as s; print(s.get_path('purelib'))"])
    Path(site_packages.decode().strip(), "divergence_notes.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    STAMP.write_text(want, encoding="utf-8")
