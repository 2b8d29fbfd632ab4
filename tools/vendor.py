"""Put what the pages load in the browser into _offline/vendor, so that the site asks no other host for anything.

Prose needs a typeface, math MathJax; a slider on a page without a kernel needs require.js and the html-manager of
ipywidgets; code that is edited in a page needs CodeMirror. They come out of package-lock.json by `npm ci`, with the npm
of the environment, and only the files in use are kept. CodeMirror is many small ones: esbuild makes one of them; it is
kept too, since every build makes our own scripts short with it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES, VENDOR = ROOT / "node_modules", ROOT / "_offline" / "vendor"
BIN, ESBUILD = Path(sys.executable).parent, VENDOR.parent / "esbuild"
STAMP = VENDOR.parent / "made-from"
SHIM = ROOT / "tools" / "widgets-local.js"
EDITOR = ROOT / "tools" / "live-editor.js"
OURS = (ROOT / "book" / "_static", ROOT / "divergence_notes")
"""Where scripts and styles of ours are, of which Sphinx makes copies."""
BUNDLE = ["--bundle", "--minify", "--format=iife", "--global-name=liveEditor", "--log-level=warning"]
BUNDLE += ["--target=chrome95,firefox100,safari16.4"]
"""How esbuild makes one script of the editor, for the oldest browsers that run Python in a page."""
# From, to. MathJax without the speech rules and the other formats; of the widgets' fonts the icons only.
FILES = [
    ("@fontsource/source-serif-4/files/source-serif-4-latin-400-*.woff2", "fonts"),
    (
        "@fontsource/source-serif-4/files/source-serif-4-latin-600-normal.woff2",
        "fonts/source-serif-4-latin-600-normal.woff2",
    ),
    ("requirejs/require.js", "require.js"),
    ("@jupyter-widgets/html-manager/dist/embed-amd.js", "embed-amd.js"),
    ("@jupyter-widgets/html-manager/dist/*.woff2", "@jupyter-widgets/html-manager/dist"),
    ("@jupyter-widgets/html-manager/dist/*.woff2", "@jupyter-widgets"),  # which one is asked for is a race of its parts
    ("mathjax/es5/tex-mml-chtml.js", "mathjax/es5/tex-mml-chtml.js"),
    ("mathjax/es5/output/chtml/fonts/woff-v2/*.woff", "mathjax/es5/output/chtml/fonts/woff-v2"),
    ("mathjax/es5/input/tex/extensions/*.js", "mathjax/es5/input/tex/extensions"),
    ("mathjax/es5/a11y/assistive-mml.js", "mathjax/es5/a11y/assistive-mml.js"),
]


def run(command):
    """Run a command with the Node of the environment."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"PATH": path})


def vendor():
    """Fill _offline/vendor, unless it was made from this very lock."""
    made_from = hashlib.sha256()
    for path in (ROOT / "package-lock.json", SHIM, EDITOR, Path(__file__)):
        made_from.update(path.read_bytes())
    if STAMP.is_file() and STAMP.read_text(encoding="utf-8") == made_from.hexdigest():
        return
    shutil.rmtree(VENDOR.parent, ignore_errors=True)
    quiet = ["--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
    run([BIN / "npm", "ci", "--ignore-scripts", *quiet])
    for source, target in FILES:
        found = sorted(MODULES.glob(source))
        if not found:
            raise FileNotFoundError(f"npm ci brought no {source}")
        for path in found:
            to = VENDOR / target / path.name if "*" in source else VENDOR / target
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)
    shutil.copyfile(SHIM, VENDOR / SHIM.name)
    (program,) = MODULES.glob("@esbuild/*/bin/esbuild")  # npm brings the one for this machine
    shutil.copy(program, ESBUILD)
    run([ESBUILD, *BUNDLE, f"--outfile={VENDOR / 'editor.js'}", EDITOR])
    STAMP.write_text(made_from.hexdigest(), encoding="utf-8")


def minify(site):
    """Make shorter what we wrote for the browser, where Sphinx has copied it: comments are for who reads the source.

    Parameters
    ----------
    site : Path
        The site that is built.
    """
    written = {path.name for folder in OURS for path in folder.glob("*.*s")}  # .js and .css
    copies = sorted(site / "_static" / name for name in written if (site / "_static" / name).is_file())
    options = ["--minify", "--charset=utf8", "--allow-overwrite", "--log-level=warning"]
    if copies:
        run([ESBUILD, *options, f"--outdir={site / '_static'}", *copies])


if __name__ == "__main__":
    vendor()
