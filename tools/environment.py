"""Make an environment from lists of packages, unless a finished one is there. Standard library only: it runs first.

    environment.py                         .venv from requirements.txt: what the book needs
    environment.py test                    and what stands in requirements-test.txt: the tests, the coursework
    environment.py PLACE LIST [LIST]       PLACE from these lists
    environment.py here                    requirements.txt into the environment of this Python, which has no stamp

What stands in a list whose name ends in "-bare.txt" is installed without what it asks for.

The stamp is written last and names the Python, the place and each list that is installed, so an interrupted
installation is never trusted: a longer stamp is good enough, a shorter one is gone on from, and without the right
beginning the environment is made again from nothing.

Every Python since 2.7 can read this file: one that will not do hears it in a sentence and not by a traceback.
"""

import contextlib
import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PYTHON = "{}.{}".format(*sys.version_info)
LISTS = ["requirements.txt", "requirements-test.txt"]
TORCH = os.environ.get("DIVERGENCE_NOTES_TORCH", "https://download.pytorch.org/whl/cpu/")
"""Where PyTorch itself keeps its builds for machines without a graphics card; empty for what pip is set up with."""
SECONDS = 5
"""How long that index has to answer."""


@contextlib.contextmanager
def alone(folder=ROOT):
    """Let one command at a time make something in a folder; the next one says that it waits."""
    import fcntl

    held = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another make is at work here. This one goes on when that one has ended.")
            fcntl.flock(held, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system that knows no locks
        yield
    finally:
        os.close(held)


def say(text):
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def read(path):
    """Return the bytes of a file."""
    with io.open(path, "rb") as file:
        return file.read()


def supported():
    """Return the Pythons that pyproject.toml admits, as "3.11"."""
    text = read(os.path.join(ROOT, "pyproject.toml")).decode("utf-8")
    low, high = re.search(r'(?m)^requires-python = ">=3\.(\d+),<3\.(\d+)"', text).groups()
    return ["3.{}".format(minor) for minor in range(int(low), int(high))]


def check():
    """End with one sentence where this Python will not do."""
    names = supported()
    if PYTHON not in names:
        text = "This needs Python {} or {}, and {} is Python {}. Try: make book PYTHON=python{}"
        sys.exit(text.format(", ".join(names[:-1]), names[-1], sys.executable, PYTHON, names[-2]))
    try:
        import ensurepip  # noqa: F401  (Debian leaves it out, and venv says so by a traceback)
    except ImportError:
        text = "{} has no venv. On Debian and Ubuntu it comes with: apt install python{}-venv"
        sys.exit(text.format(sys.executable, PYTHON))


def pip(python, *words):
    """Install with pip, and say whether it went well."""
    return subprocess.call([python, "-m", "pip", "install", "--quiet"] + list(words)) == 0


def graphics_card():
    """Say whether this machine has a card that PyTorch's usual Linux build is for."""
    return os.path.exists("/proc/driver/nvidia/version") or shutil.which("nvidia-smi") is not None


def cpu_build(version):
    """Return the size in bytes of the CPU build of this release for this Python, and "", or None and why not."""
    import threading
    from urllib.error import URLError
    from urllib.parse import unquote, urljoin
    from urllib.request import Request, urlopen

    build = r"torch-{}\+cpu-cp{}-cp\d+-(many)?linux\w*_{}\.whl".format(
        re.escape(version), PYTHON.replace(".", ""), platform.machine()
    )
    said = []

    def ask():
        try:
            page = urljoin(TORCH, "torch/")
            text = urlopen(page, timeout=2 * SECONDS).read().decode("utf-8")
            links = [link.partition("#")[0] for link in re.findall(r'href="([^"]+)"', text)]
            fits = [link for link in links if re.match(build, unquote(link.rpartition("/")[2]))]
            if not fits:
                return said.append((None, "has no torch {} for Python {}".format(version, PYTHON)))
            head = urlopen(Request(urljoin(page, fits[-1]), method="HEAD"), timeout=2 * SECONDS)
            said.append((int(head.headers["Content-Length"] or 0), ""))
        except (URLError, OSError, ValueError) as fault:
            said.append((None, "cannot be reached ({})".format(getattr(fault, "reason", fault))))

    thread = threading.Thread(target=ask)
    thread.daemon = True
    thread.start()
    thread.join(SECONDS)
    return said[0] if said else (None, "did not answer in {} seconds".format(SECONDS))


def install_torch(lists, python):
    """Install the CPU build where a list asks for torch and this machine has no use for CUDA."""
    found = [re.search(r"(?m)^torch==(\S+)", read(path).decode("utf-8")) for path in lists]
    versions = [match.group(1) for match in found if match]
    if not versions or not TORCH or not sys.platform.startswith("linux"):
        return
    usual = "pip takes torch from where it is set up to look"
    if graphics_card():
        return say("There is an NVIDIA card: {}; with CUDA that is about 2.7 GB.".format(usual))
    host = TORCH.split("/")[2]
    size, fault = cpu_build(versions[0])
    if size is None:
        return say("{} {}, so {}; if that is a build for CUDA, it is about 2.7 GB.".format(host, fault, usual))
    say("torch {} is the build without CUDA of {}, {:.0f} MB.".format(versions[0], host, size / 1e6))
    # With its local name, so that no other index can offer a higher one, and alone: the rest comes from where it did.
    if not pip(python, "--no-deps", "--index-url", TORCH, "torch=={}+cpu".format(versions[0])):
        say("That failed, see above, so {}.".format(usual))


def install(lists, done, python):
    """Install the lists that are not done yet."""
    for number, path in list(enumerate(lists))[done:]:
        bare = path.endswith("-bare.txt")
        words = ["--no-deps"] if bare else []
        for asked in [path] if bare else lists[: number + 1]:
            words += ["--requirement", asked]
        install_torch([path], python)
        if not pip(python, *words):
            sys.exit("The installation failed, see above. What is wrong with {}?".format(os.path.relpath(path, ROOT)))


def add_package(python):
    """Add the package itself: a path line, so that an edit is seen at once and nothing is ever built."""
    site_packages = subprocess.check_output([python, "-c", "import sysconfig as s; print(s.get_path('purelib'))"])
    with io.open(os.path.join(site_packages.decode().strip(), "divergence_notes.pth"), "w", encoding="utf-8") as file:
        # Python 3.11 and 3.12 read these lines in the encoding of the locale, and end at an umlaut where that is ASCII.
        plain = all(ord(letter) < 128 for letter in ROOT)
        file.write((ROOT if plain else "import sys; sys.path.append({})".format(ascii(ROOT))) + "\n")


def make(place, lists):
    """Make the environment, go on from where it has the first lists, or leave it."""
    stamp, python = os.path.join(place, "made-from"), os.path.join(place, "bin", "python")
    want = ["Python {} in {}".format(PYTHON, place)]
    want += [hashlib.sha256(read(path)).hexdigest() for path in lists]
    have = read(stamp).decode("utf-8").splitlines() if os.path.exists(python) and os.path.isfile(stamp) else []
    if have[: len(want)] == want:
        return
    if os.path.islink(place):
        sys.exit("{} is a link, and no environment is made through one. Remove the link.".format(place))
    done = max(len(have) - 1, 0) if have == want[: len(have)] else 0
    text = "Adding {1} to {0}, which takes a minute, once." if done else "Making {} from {}, which takes minutes, once."
    say(text.format(place, os.path.relpath(lists[done], ROOT)))
    if done:
        os.remove(stamp)
    else:
        import venv

        shutil.rmtree(place, ignore_errors=True)
        venv.create(place, with_pip=True, symlinks=True)
    install(lists, done, python)
    add_package(python)
    with io.open(stamp, "w", encoding="utf-8") as file:
        file.write("\n".join(want) + "\n")


def main(place=".venv", *lists):
    """Make the environment, or leave it."""
    check()
    if place == "here":
        install([os.path.join(ROOT, LISTS[0])], 0, sys.executable)
        return add_package(sys.executable)
    if place == "test":
        place, lists = ".venv", LISTS
    with alone():
        make(os.path.join(ROOT, place), [os.path.join(ROOT, path) for path in lists or LISTS[:1]])


if __name__ == "__main__":
    main(*sys.argv[1:])
