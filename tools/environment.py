"""Make an environment from a list of packages, unless a finished one is there. Standard library only: it runs first.

    environment.py                         .venv from requirements.txt
    environment.py PLACE LIST [BARE]       PLACE from LIST; what stands in BARE is installed without what it asks for

The stamp is written last and names the lists, the Python and the place, so an interrupted installation is never
trusted: without the right stamp the environment is made again from nothing.
"""

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE, *LISTS = (ROOT / name for name in sys.argv[1:] or (".venv", "requirements.txt"))
STAMP = PLACE / "made-from"

if sys.hexversion < 0x030B0000:
    sys.exit(f"This needs Python 3.11 or newer, and {sys.executable} is older. Try: make book PYTHON=python3.12")

lock = b"".join(path.read_bytes() for path in LISTS)
want = "{}\nPython {}.{}\n{}\n".format(hashlib.sha256(lock).hexdigest(), *sys.version_info[:2], PLACE)
python = PLACE / "bin" / "python"

if not (python.exists() and STAMP.is_file() and STAMP.read_text(encoding="utf-8") == want):
    print(f"Making {PLACE} from {LISTS[0].relative_to(ROOT)}, which takes some minutes, once.", flush=True)
    shutil.rmtree(PLACE, ignore_errors=True)
    venv.create(PLACE, with_pip=True, symlinks=True)
    for path, bare in zip(LISTS, ([], ["--no-deps"]), strict=False):
        subprocess.run([python, "-m", "pip", "install", "--quiet", *bare, "--requirement", path], check=True)
    # The package itself: a path line, so that an edit is seen at once and nothing is ever built.
    site_packages = subprocess.check_output([python, "-c", "import sysconfig as s; print(s.get_path('purelib'))"])
    Path(site_packages.decode().strip(), "divergence_notes.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    STAMP.write_text(want, encoding="utf-8")
