"""A Chromium for the tests, and the built site served on loopback. conftest.py hands the fixtures to every test."""

import contextlib
import functools
import http.server
import os
import shutil
import threading

import pytest
from build_book import SITE

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find():
    """Return the path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextlib.contextmanager
def launch(path):
    """Start the Chromium found at `path`, and end it."""
    from playwright.sync_api import sync_playwright

    flags = ["--disable-background-networking", "--disable-component-update", "--disable-gpu", "--disable-quic"]
    flags += ["--disable-sync", "--no-first-run"] + ["--no-sandbox"] * (os.geteuid() == 0)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address():
    """Serve the site on loopback."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    """Start a Chromium; where none is found, skip, unless DIVERGENCE_NOTES_REQUIRE_BROWSER is set."""
    found = find()
    if not found:
        missing = "no Chromium found: nothing was opened in a browser"
        if os.environ.get("DIVERGENCE_NOTES_REQUIRE_BROWSER"):
            pytest.fail(missing)
        pytest.skip(missing)
    with launch(found) as browser:
        yield browser
