"""What stands on the web: every version of the site side by side, each in a folder of its own.

    publish.py fetch        what is published, into _build/public
    publish.py put          the built site into it as latest/
    publish.py freeze       and as the folder of its version, such as 0.1/, which is never written again
    publish.py changed      which pages of the built site differ from those that are published as latest/; they lie in
                            _build/preview, with what they load, Python in the page aside
    publish.py push         what is in _build/public, as the one commit of the branch that is published

The branch and the address stand in _config.yml. What a page is, is the business of `book_site`.
"""

import html
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_build" / "html"
PUBLIC = ROOT / "_build" / "public"
PREVIEW = ROOT / "_build" / "preview"
INDEX = ROOT / "_build" / "public.index"
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
BRANCH, LATEST = CONFIG["sphinx"]["config"]["html_context"]["site_branch"].split("/")
ADDRESS = CONFIG["html"]["baseurl"].removesuffix(f"{LATEST}/")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">{head}<title>{title}</title></head>
<body style="font: 1.1rem/1.5 serif; max-width: 34em; margin: 4em auto; padding: 0 1em; color-scheme: light dark">
<main><h1>{title}</h1>
{text}
</main>
</body>
</html>
"""


def git(*words):
    """Run git in the repository, with what is published as its files; return what it says."""
    env = os.environ | {"GIT_INDEX_FILE": str(INDEX), "GIT_WORK_TREE": str(PUBLIC), "GIT_DIR": str(ROOT / ".git")}
    command = ["git", *words]
    return subprocess.run(command, cwd=PUBLIC, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def fetch():
    """Fetch what is published; nothing is there before the first time."""
    shutil.rmtree(PUBLIC, ignore_errors=True)
    PUBLIC.mkdir(parents=True)
    if not git("ls-remote", "origin", f"refs/heads/{BRANCH}"):
        return
    git("fetch", "--quiet", "--depth", "1", "origin", BRANCH)
    git("read-tree", "FETCH_HEAD")
    git("checkout-index", "--all")


def versions():
    """Return the folders of versions that are published, the newest first."""
    found = [path.name for path in PUBLIC.iterdir() if re.fullmatch(r"\d+\.\d+", path.name)]
    return sorted(found, key=lambda name: [*map(int, name.split("."))], reverse=True)


def put(*, freeze=False):
    """Put the built site beside the versions that are there, and what belongs to all of them."""
    PUBLIC.mkdir(parents=True, exist_ok=True)
    folders = [LATEST]
    if freeze:
        folders.append(".".join(VERSION.split(".")[:2]))
        if (PUBLIC / folders[-1]).exists():
            sys.exit(f"Version {folders[-1]} is published already, and what is cited must not change.")
    for folder in folders:
        shutil.rmtree(PUBLIC / folder, ignore_errors=True)
        shutil.copytree(SITE, PUBLIC / folder)
    links = "".join(f'<li><a href="{ADDRESS}{name}/">{name}</a></li>\n' for name in [LATEST, *versions()])
    title = CONFIG["title"]
    other = f"<p>Every version that is published:</p>\n<ul>\n{links}</ul>"
    lost = f'<p>There is no such page in <a href="{ADDRESS}{LATEST}/">{title}</a>.</p>\n<ul>\n{links}</ul>'
    here = f'<p><a href="{LATEST}/">Here</a> it is.</p>'
    onward = f'<meta http-equiv="refresh" content="0; url={LATEST}/"><link rel="canonical" href="{ADDRESS}{LATEST}/">'
    # the host serves 404.html whatever the address was, so its links are whole ones
    write("404.html", PAGE.format(head="", title=f"{title}: no such page", text=lost))
    write("versions.html", PAGE.format(head="", title=f"{title}: versions", text=other))
    write("index.html", PAGE.format(head=onward, title=title, text=here))
    write("sitemap.xml", sitemap())
    write(".nojekyll", "")


def write(name, text):
    """Write a file that belongs to all versions."""
    (PUBLIC / name).write_text(text, encoding="utf-8")


def sitemap():
    """Return the addresses of the newest pages for those who search the web: older versions say the same again."""
    paths = sorted(pages(PUBLIC / LATEST))
    lines = "".join(f"<url><loc>{html.escape(f'{ADDRESS}{LATEST}/{path}')}</loc></url>\n" for path in paths)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
    return f"{head}{lines}</urlset>\n"


def pages(site):
    """Return the pages of a site as a reader sees them: {path: text without what changes with every build}."""
    found = {}
    for path in site.rglob("*.html"):
        if any(part.startswith("_") for part in path.relative_to(site).parts):
            continue  # templates of the theme
        text = path.read_text(encoding="utf-8")
        if "http-equiv" not in text:  # old addresses lead on
            found[path.relative_to(site).as_posix()] = re.sub(r"\?v=[0-9a-f]+", "", text)
    return found


def changed():
    """Return which pages are new, gone or different, one line each."""
    old, new = (pages(site) if site.is_dir() else {} for site in (PUBLIC / LATEST, SITE))
    found = [f"new: {path}" for path in new.keys() - old.keys()] + [f"gone: {path}" for path in old.keys() - new.keys()]
    return sorted(found + [f"changed: {path}" for path in old.keys() & new.keys() if old[path] != new[path]])


def preview():
    """Put the pages that are new or different, with what they load, where one can look at them; say which they are."""
    shutil.rmtree(PREVIEW, ignore_errors=True)
    PREVIEW.mkdir(parents=True)
    lines = changed()
    names = [line.partition(": ")[2] for line in lines if not line.startswith("gone")]
    pictures = set()
    for name in names:
        text = (SITE / name).read_text(encoding="utf-8")
        pictures |= {SITE / found for found in re.findall(r"_images/[\w.-]+", text)}
    folders = [SITE / folder for folder in ("_static", "vendor")]
    shared = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    for path in [*(SITE / name for name in names), *filter(Path.is_file, pictures), *shared]:
        copy = PREVIEW / path.relative_to(SITE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    links = "".join(f'<li><a href="{name}">{name}</a></li>\n' for name in names)
    text = f"<p>Pages that differ from those that are published:</p>\n<ul>\n{links}</ul>"
    (PREVIEW / "preview.html").write_text(PAGE.format(head="", title="Preview", text=text), encoding="utf-8")
    return lines


def push():
    """Publish as a branch of one commit: what is frozen is in it, and the rest can be built again."""
    INDEX.unlink(missing_ok=True)
    git("add", "--force", "--all", ".")
    commit = git("commit-tree", git("write-tree"), "-m", f"Publish {git('rev-parse', 'HEAD')}")
    git("push", "--quiet", "--force", "origin", f"{commit}:refs/heads/{BRANCH}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["fetch"]:
            fetch()
        case ["put"]:
            put()
        case ["freeze"]:
            put(freeze=True)
        case ["changed"]:
            print(*preview() or ["nothing"], sep="\n")
        case ["push"]:
            push()
        case _:
            sys.exit(__doc__)
