"""Build the book, and read the site: one page for each file of _toc.yml, no traceback, nothing of the environment."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import downloads
import yaml
from icons import cut_icons
from PIL import Image
from polish import polish
from vendor import vendor

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
SITE = BUILD / "html"
STAMP = BUILD / "made-from"
ERROR_MARKS = ("Traceback (most recent call last)", "output traceback", "application/vnd.jupyter.error")


def made_from():
    """Return the hash of what the pages are computed from, besides their own cells, which the cache looks at itself."""
    digest = hashlib.sha256()
    files = [
        ROOT / "requirements.txt",
        ROOT / "_toc.yml",
        ROOT / "tools" / "api_links.py",
        *ROOT.glob("divergence_notes/**/*.py"),
        *ROOT.glob("book/results/**/*"),
    ]
    for path in sorted(path for path in files if path.is_file()):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def outdated():
    """Whether something that a page is made of is newer than the site, apart from what `made_from` looks at."""
    built = SITE / "searchindex.js"
    sources = [ROOT / "_config.yml", ROOT / "CHANGELOG.md", *ROOT.glob("tools/*.py"), *ROOT.glob("book/**/*")]
    return built.is_file() and any(p.is_file() and p.stat().st_mtime > built.stat().st_mtime for p in sources)


def toc_files():
    """Return the names in _toc.yml, in reading order, without endings."""

    def files(entries):
        for entry in entries:
            yield entry["file"]
            yield from files(entry.get("sections", ()))

    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(name for part in toc["parts"] for name in files(part["chapters"]))]


def faults(site=SITE):
    """Return what is wrong with the built site, one line each."""
    found = [f"no page for {name} of _toc.yml" for name in toc_files() if not (site / f"{name}.html").is_file()]
    if not (site / "index.html").is_file():
        found.append("no index.html")
    for path in sorted(site.rglob("*")):
        name = path.relative_to(site).as_posix()
        if any(part in name for part in (".venv", "site-packages", "node_modules", "made-from")):
            found.append(f"{name} is no part of the site")
        if path.suffix == ".html":
            text = path.read_text(encoding="utf-8")
            found += [f"{name} holds an error: {mark}" for mark in ERROR_MARKS if mark in text]
    return found


def shrink_pictures():
    """Give the pictures a palette of 256 colours: a third of the bytes, and no difference to the eye."""
    for path in SITE.glob("_images/*.png"):
        with Image.open(path) as picture:
            opaque = picture.mode == "RGB" or (picture.mode == "RGBA" and picture.getextrema()[3] == (255, 255))
            small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE) if opaque else None
        if small:
            small.save(path, optimize=True)


def polish_pages():
    """Mend what the theme leaves (tools/polish.py)."""
    for path in SITE.rglob("*.html"):
        if "_static" in path.parts:
            continue  # templates of the theme
        path.write_text(polish(path.read_text(encoding="utf-8")), encoding="utf-8")


def main():
    """Build; on any fault say it and leave nothing that the next build would trust."""
    vendor()
    stamp = made_from()
    if not (STAMP.is_file() and STAMP.read_text(encoding="utf-8") == stamp):
        shutil.rmtree(BUILD, ignore_errors=True)
        BUILD.mkdir()
        STAMP.write_text(stamp, encoding="utf-8")
        print("Building the book. Every chapter runs, which takes some minutes, once.", flush=True)
    elif outdated():  # read every page again: the search would forget the index entries of the others
        shutil.rmtree(SITE)
        shutil.rmtree(BUILD / ".doctrees", ignore_errors=True)
    jupyter_book = [Path(sys.executable).with_name("jupyter-book"), "build", ".", "--quiet", "-W", "-n", "--keep-going"]
    with subprocess.Popen(
        jupyter_book, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8"
    ) as build:
        for line in build.stderr:
            if "Kernel is running over TCP" not in line:  # ipykernel says so at every start, on loopback too
                print(line, end="", file=sys.stderr, flush=True)
    if build.returncode:
        shutil.rmtree(BUILD / ".doctrees", ignore_errors=True)  # else the next build skips the pages that warned
        sys.exit("The book has faults: see above.")
    shrink_pictures()
    downloads.prepare(SITE)
    polish_pages()
    cut_icons(SITE)
    if found := faults():
        shutil.rmtree(BUILD / ".doctrees", ignore_errors=True)
        sys.exit("The book has faults:\n  " + "\n  ".join(found))
    print(f"The book is at {SITE / 'index.html'}\nSee it in a browser with: make serve")


if __name__ == "__main__":
    main()
