"""A real browser, and folders served on loopback for it to read."""

import contextlib
import functools
import http.server
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# What the console may say: name -> the message. Nothing so far.
ALLOWED = {}


SUBFOLDER = os.environ.get("DIVERGENCE_NOTES_SUBFOLDER", "")
"""Where below the root of the server every folder is served, such as /a/b: a site that is published lies in one."""


@contextlib.contextmanager
def served(directory, below=SUBFOLDER):
    """Serve a folder on loopback, below some path; yield its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def translate_path(self, path):
            inside = path.startswith(f"{below}/")
            return super().translate_path(path.removeprefix(below)) if inside else f"{directory}/outside/of/it"

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=directory)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}{below}"
        server.shutdown()


@pytest.fixture(scope="module")
def address():
    """Serve the site."""
    from build_book import SITE

    with served(SITE) as address:
        yield address


def missing():
    """Say what keeps a browser from being driven here: there is none, or playwright's own Node does not start."""
    import playwright

    if not any(map(shutil.which, BROWSERS)):
        return "no Chromium found: the pages were not opened in a browser"
    node = Path(playwright.__file__).parent / "driver" / "node"
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"playwright does not start, so the pages were not opened in a browser: {done.stderr.strip()}"
    return ""


@contextlib.contextmanager
def launched():
    """Start a Chromium; where none can be driven, skip, unless DIVERGENCE_NOTES_REQUIRE_BROWSER is set."""
    if reason := missing():
        (pytest.fail if os.environ.get("DIVERGENCE_NOTES_REQUIRE_BROWSER") else pytest.skip)(reason)
    found = next(filter(None, map(shutil.which, BROWSERS)))
    from playwright.sync_api import sync_playwright

    flags = ["--disable-background-networking", "--disable-component-update", "--disable-gpu", "--disable-quic"]
    flags += ["--disable-sync", "--no-first-run"] + ["--no-sandbox"] * (os.geteuid() == 0)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser():
    """Start a Chromium for the tests of a file."""
    with launched() as browser:
        yield browser


@contextlib.contextmanager
def opened(browser, url, home, *, scale=1, asked=None):
    """Open a page; yield it, typeset and with its widgets drawn, and the list of complaints so far.

    A pixel of the page is `scale` pixels of the screen.

    A complaint is an error in the console that is not in `ALLOWED`, an answer of 400 or more, or a request to anything
    that is not below `home`. What the page asks for is added to the list `asked`, each without `home`.
    """
    complaints = []
    view = {"viewport": {"width": 1280, "height": 900}, "device_scale_factor": scale}
    context = browser.new_context(**view, reduced_motion="reduce")
    context.set_default_timeout(1000 * PATIENCE)
    page = context.new_page()

    def complain(wrong, text):
        if wrong:
            complaints.append(text)

    page.on("request", lambda made: complain(not made.url.startswith((home, "data:", "blob:")), f"asked {made.url}"))
    page.on("request", lambda made: asked is None or asked.append(made.url.removeprefix(home)))
    page.on("response", lambda answer: complain(answer.status >= 400, f"{answer.status} {answer.url}"))
    page.on("pageerror", lambda error: complain(True, f"error: {error}"))
    page.on(
        "console",
        lambda said: complain(
            said.type == "error" and not any(re.search(message, said.text) for message in ALLOWED.values()),
            f"console: {said.text}",
        ),
    )
    try:
        page.goto(url, wait_until="load")
        settle(page)
        yield page, complaints
    finally:
        context.close()


def settle(page):
    """Wait until the math of a page is typeset and its widgets are drawn."""
    if page.locator(".math").count():
        page.wait_for_function("window.MathJax && MathJax.startup && MathJax.startup.promise")
        page.evaluate("() => MathJax.startup.promise.then(() => null)")
    page.wait_for_function(
        """() => document.querySelectorAll(".widget-subarea, .jupyter-widgets-view, .widget-vbox").length >=
                 document.querySelectorAll("script[type='application/vnd.jupyter.widget-view+json']").length"""
    )


def unfold_bets(page):
    """Open what is folded after the bets of a page, and make none of them."""
    page.evaluate(
        """() => document.querySelectorAll(".bet-fold:not(.open)").forEach((fold) => {
            fold.classList.add("open");
            fold.removeAttribute("hidden");
        })"""
    )


def unfold(page):
    """Open every fold of a page, and have what fades in there at once."""
    unfold_bets(page)
    page.evaluate(
        """() => {
            document.querySelectorAll("details").forEach((fold) => { fold.open = true; });
            document.querySelectorAll(".toggle-hidden .toggle-button").forEach((button) => button.click());
            document.getAnimations().forEach((animation) => {
                if (animation.effect.getComputedTiming().endTime < Infinity) animation.finish();
            });
        }"""
    )


def look(page, theme, width):
    """Show the page in a theme and a width, and wait until it has changed; what it shows already is not waited for."""
    shown = page.evaluate(
        "[window.innerWidth, ...['theme', 'mode'].map((key) => document.documentElement.dataset[key])]"
    )
    if shown == [width, theme, theme] and page.viewport_size == {"width": width, "height": 900}:
        return
    page.set_viewport_size({"width": width, "height": 900})
    page.evaluate(
        """async (theme) => {
            for (const [key, value] of [["theme", theme], ["mode", theme]]) {
                document.documentElement.dataset[key] = value;
                localStorage.setItem(key, value);
            }
            await new Promise((drawn) => setTimeout(drawn, 50));
            document.getAnimations().forEach((animation) => {
                if (animation instanceof CSSTransition) animation.finish();
            });
            await new Promise((done) => setTimeout(done, 350)); // the theme looks for what scrolls after 300 ms
        }""",
        theme,
    )
