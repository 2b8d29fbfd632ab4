"""A Sphinx extension: all that making the book asks for beside Sphinx, so that every way of building it does the same.

Before: what the pages load is fetched (vendor.py, live_files.py), and a chapter runs again when something that it
imports or reads has changed (reads.py). After: pictures get small, the notebooks to download say first how to install
what they need (downloads.py), bets are put into the pages (bets.py), planes of Q come to life (planes.py), pages are
mended (mend.py), get what runs Python in them (live.py), and lead old addresses on (moved.py), icons that no page
uses go (icons.py), and our scripts get short (vendor.py). Then the site is read: a page that is missing, a traceback
and a warning are faults, and a build with a fault has failed.
"""

import os
import sys
import time
from pathlib import Path

import downloads
import live
import live_files
import moved
import nbformat
import reads
from bets import bets
from build_book import PREVIEW, faults
from icons import cut_icons
from jupyter_cache import get_cache
from mend import mend
from PIL import Image
from planes import with_planes
from sphinx.util import logging
from vendor import minify, vendor

LOGGER = logging.getLogger(__name__)
KEPT = 100  # runs of notebooks; the oldest go


def fetch(app, config):
    """Handle config-inited: Sphinx looks next whether the folder is there."""
    vendor()
    live_files.fill()


def start(app):
    """Handle builder-inited: remember when the build began."""
    app.began = time.time()


def is_notebook(env, docname):
    """Say whether a page is made from a notebook."""
    return Path(env.doc2path(docname)).suffix == ".ipynb"


def with_other_keys(app, env, added, changed, removed):
    """Handle env-get-outdated: compute the keys of all notebooks; return those that must be read again for theirs."""
    old = getattr(env, "keys_of_notebooks", {})
    notebooks = [name for name in env.found_docs if is_notebook(env, name)]
    new = {name: reads.key(nbformat.read(env.doc2path(name), as_version=4)) for name in notebooks}
    if page := os.environ.get(PREVIEW):  # what else has changed waits for a build of the whole book
        changed &= {page}
        new = {name: key if name == page else old.get(name, key) for name, key in new.items()}
    env.keys_of_notebooks = new
    return [name for name in notebooks if new[name] != old.get(name)]


def put_key(app, docname, source):
    """Handle source-read: write into a notebook what its outputs depend on beside its cells.

    Jupyter Cache looks at the code cells and the kernel only (executablebooks/jupyter-cache#7 has the reasons, and
    jupyter-book/jupyter-book#1633 asks for more). With the key as a property of the kernel it finds the run of these
    cells with this package, these results and this lock, however many others there were meanwhile.
    """
    if not is_notebook(app.env, docname):
        return
    notebook = reads.keyed(nbformat.reads(source[0], as_version=4), app.env.keys_of_notebooks[docname])
    source[0] = nbformat.writes(notebook)
    cache = get_cache(app.env.mystnb_config.execution_cache_path)
    cache.change_cache_limit(KEPT)
    try:
        cache.match_cache_notebook(notebook)
    except KeyError:
        print(f"{docname} runs", file=sys.stderr, flush=True)


def link_download(app, pagename, templatename, context, doctree):
    """Handle html-page-context: Colab opens the download, which installs first, not the notebook of the repository."""
    repository, download = downloads.colab_links()
    for group in context.get("header_buttons", ()):
        for button in group.get("buttons", ()):
            if "url" in button:
                button["url"] = button["url"].replace(repository, download)


def shrink(path):
    """Give a picture a palette of 256 colours: a third of the bytes, and no difference to the eye."""
    with Image.open(path) as picture:
        opaque = picture.mode == "RGB" or (picture.mode == "RGBA" and picture.getextrema()[3] == (255, 255))
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE) if opaque else None
    if small:
        small.save(path, optimize=True)


def finish(app, error):
    """Handle build-finished, after all others: bring the site into its last form, and read it."""
    if error or app.builder.name != "html":
        return
    site = Path(app.outdir)
    for path in site.glob("_images/*.png"):
        shrink(path)
    for path in site.glob("_sources/**/*.ipynb"):
        downloads.write(path, Path(app.srcdir, path.relative_to(site / "_sources")))
    for path in site.rglob("*.html"):
        # of this build, and no template of the theme; what Sphinx copies keeps its time, what it writes has a new one
        if path.stat().st_mtime >= app.began and "_static" not in path.parts:
            path.write_text(mend(with_planes(bets(path.read_text(encoding="utf-8")))), encoding="utf-8")
    live.put_all(site)
    moved.put_all(site)
    cut_icons(site)
    minify(site)
    if os.environ.get(PREVIEW):
        return
    warnings = [f"warnings, {app._warncount} of them: see above"] * bool(app._warncount)
    if found := [*faults(site), *warnings]:
        LOGGER.error("The book has faults:\n  %s", "\n  ".join(found))
        app.statuscode = 1
        # else the next build would not read the pages that warned again
        Path(app.doctreedir, "environment.pickle").unlink(missing_ok=True)


def setup(app):
    """Register the extension."""
    app.connect("config-inited", fetch)
    app.connect("builder-inited", start)
    app.connect("env-get-outdated", with_other_keys)
    app.connect("source-read", put_key)
    app.connect("html-page-context", link_download, priority=900)
    app.connect("build-finished", finish, priority=900)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
