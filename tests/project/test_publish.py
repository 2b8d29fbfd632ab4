"""Versions side by side: what is published, by a repository and an origin of this machine."""

import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import publish
import pytest
from bs4 import BeautifulSoup

from tests.pages import ROOT

OWN = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
PAGE = '<!DOCTYPE html><title>{0}</title><script src="a.js?v={1}"></script><p>{0}</p>'


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a project with a built site and an origin that has nothing published."""
    root = tmp_path / "project"
    site = root / "_build" / "html"
    (site / "book").mkdir(parents=True)
    (site / "index.html").write_text('<meta http-equiv="Refresh" content="0; url=book/index.html" />')
    (site / "book" / "index.html").write_text(PAGE.format("first", "0a"))
    (site / "_static").mkdir()
    (site / "_static" / "macros.html").write_text("{% macro %}")
    subprocess.run(["git", "init", "--quiet", "--bare", tmp_path / "origin"], check=True)
    for words in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "-m", "one"]):
        subprocess.run([*OWN, *words], cwd=root, check=True)
    subprocess.run(["git", "remote", "add", "origin", tmp_path / "origin"], cwd=root, check=True)
    for name in ("NAME", "EMAIL"):
        for who in ("AUTHOR", "COMMITTER"):
            monkeypatch.setenv(f"GIT_{who}_{name}", "test@example.org")
    monkeypatch.setattr(publish, "ROOT", root)
    monkeypatch.setattr(publish, "SITE", site)
    monkeypatch.setattr(publish, "PUBLIC", root / "_build" / "public")
    monkeypatch.setattr(publish, "PREVIEW", root / "_build" / "preview")
    monkeypatch.setattr(publish, "INDEX", root / "_build" / "public.index")
    return SimpleNamespace(root=root, site=site, public=root / "_build" / "public", origin=tmp_path / "origin")


def published(place):
    """Return the files of the branch that is published."""
    command = ["git", "ls-tree", "-r", "--name-only", publish.BRANCH]
    return set(subprocess.check_output(command, cwd=place.origin, text=True).split())


FIRST = {
    ".nojekyll",
    "404.html",
    "index.html",
    "sitemap.xml",
    "versions.html",
    "latest/index.html",
    "latest/book/index.html",
    "latest/_static/macros.html",
}


def test_the_first_time(place):
    publish.fetch()
    publish.put()
    publish.push()
    assert published(place) == FIRST


def test_what_is_frozen_stays(place, monkeypatch):
    """A later build replaces the latest one and nothing else, and a version is frozen once."""
    monkeypatch.setattr(publish, "VERSION", "0.1.2")
    publish.fetch()
    publish.put(freeze=True)
    publish.push()
    shutil.rmtree(place.public)
    (place.site / "book" / "index.html").rename(place.site / "book" / "second.html")

    publish.fetch()
    publish.put()
    publish.push()
    assert published(place) == FIRST - {"latest/book/index.html"} | {
        "latest/book/second.html",
        "0.1/index.html",
        "0.1/book/index.html",
        "0.1/_static/macros.html",
    }
    with pytest.raises(SystemExit, match=r"Version 0\.1 is published already"):
        publish.put(freeze=True)
    count = subprocess.check_output(["git", "rev-list", "--count", publish.BRANCH], cwd=place.origin, text=True)
    assert count.strip() == "1", "the branch does not grow"


def test_the_repository_itself_is_left_alone(place):
    """No file, no index and no branch of it changes."""
    (place.root / "mine").write_text("mine")
    before = subprocess.check_output(["git", "status", "--porcelain", "--branch"], cwd=place.root)
    publish.fetch()
    publish.put()
    publish.push()
    assert subprocess.check_output(["git", "status", "--porcelain", "--branch"], cwd=place.root) == before


def test_which_pages_have_changed(place):
    """The stamp of a file that all pages load is no change of the page; an old address that leads on is no page."""
    publish.fetch()
    assert publish.changed() == ["new: book/index.html"]
    publish.put()
    (place.site / "book" / "index.html").write_text(PAGE.format("first", "1b"))
    assert publish.changed() == []
    (place.site / "book" / "index.html").write_text(PAGE.format("second", "1b"))
    (place.site / "book" / "more.html").write_text(PAGE.format("more", "1b"))
    assert publish.changed() == ["changed: book/index.html", "new: book/more.html"]
    (place.site / "book" / "index.html").unlink()
    assert publish.changed() == ["gone: book/index.html", "new: book/more.html"]


def test_a_preview_is_what_has_changed_and_what_it_loads(place):
    """Not the pages that are as they were, nor their pictures, nor Python in the page."""
    picture = PAGE + '<img src="../_images/{0}.png">'
    for name in ("old", "new", "gone"):
        (place.site / "book" / f"{name}.html").write_text(picture.format(name, "1b"))
    for file in ("_images/old.png", "_images/new.png", "live/python.wasm", "vendor/fonts/a.woff2"):
        (place.site / file).parent.mkdir(exist_ok=True, parents=True)
        (place.site / file).write_text(file)
    publish.put()
    (place.site / "book" / "new.html").write_text(picture.format("new", "1b") + "more")
    (place.site / "book" / "gone.html").unlink()
    assert publish.preview() == ["changed: book/new.html", "gone: book/gone.html"]
    files = {path.relative_to(place.root / "_build" / "preview").as_posix() for path in kept(place)}
    shared = {"_static/macros.html", "vendor/fonts/a.woff2"}
    assert files == {"preview.html", "book/new.html", "_images/new.png", *shared}
    page = BeautifulSoup((place.root / "_build" / "preview" / "preview.html").read_text(), "html.parser")
    assert [link["href"] for link in page.select("a")] == ["book/new.html"]


def kept(place):
    """Return the files of the preview."""
    return [path for path in (place.root / "_build" / "preview").rglob("*") if path.is_file()]


def test_what_belongs_to_all_versions(place):
    """The way from the root, the page for a wrong address, whose links are whole, and the list for who searches."""
    for version in ("0.9.0", "0.10.0"):
        publish.VERSION, old = version, publish.VERSION
        publish.put(freeze=True)
        publish.VERSION = old
    root = BeautifulSoup((place.public / "index.html").read_text(), "html.parser")
    assert root.select_one("meta[http-equiv=refresh]")["content"] == "0; url=latest/"
    lost = BeautifulSoup((place.public / "404.html").read_text(), "html.parser")
    links = [link["href"] for link in lost.select("a")]
    assert links[1:] == [f"{publish.ADDRESS}{name}/" for name in ("latest", "0.10", "0.9")]
    menu = BeautifulSoup((place.public / "versions.html").read_text(), "html.parser")
    assert [link["href"] for link in menu.select("a")] == links[1:]
    sitemap = ET.fromstring((place.public / "sitemap.xml").read_text())
    places = [found.text for found in sitemap.iter("{http://www.sitemaps.org/schemas/sitemap/0.9}loc")]
    assert places == [f"{publish.ADDRESS}latest/book/index.html"]
    assert re.fullmatch(r"https://[\w.-]+/[\w-]+/", publish.ADDRESS)


def test_a_page_of_the_book_leads_to_the_versions():
    """A menu in each page would have to ask another host which versions there are: the site asks none."""
    assert f"]({publish.ADDRESS}versions.html)" in (ROOT / "book" / "changes.md").read_text(encoding="utf-8")
