"""A Firefox, driven by what Mozilla drives it with; a test that asks for it skips where one of the two is not there."""

import contextlib
import re
import shutil
import tempfile
import warnings

import pytest

from tests.waiting import PATIENCE

GET = "apt-get install firefox-esr; .venv/bin/pip install marionette-driver"
LISTEN = """
globalThis.asked = [];
globalThis.listener = {
    observe(request, topic) {
        request.QueryInterface(Ci.nsIHttpChannel);
        if (request.loadInfo.triggeringPrincipal.isSystemPrincipal) return; // what Firefox itself wants
        asked.push([request.URI.spec, topic.endsWith("response") ? request.responseStatus : 0]);
    },
};
["http-on-modify-request", "http-on-examine-response"].forEach((topic) => Services.obs.addObserver(listener, topic));
"""
ERRORS = """
return Services.console.getMessageArray().filter((one) => one instanceof Ci.nsIScriptError
    && !one.isFromChromeContext && !(one.flags & Ci.nsIScriptError.warningFlag)).map((one) => one.message);
"""
SAID = """
return Cc["@mozilla.org/consoleAPI-storage;1"].getService(Ci.nsIConsoleAPIStorage).getEvents()
    .filter((one) => one.level === "error").map((one) => `console: ${[...one.arguments].map(String)}`);
"""
AT_REST = {"ui.prefersReducedMotion": 1, "browser.aboutwelcome.enabled": False}


@contextlib.contextmanager
def firefox():
    """Start a Firefox; yield its driver, and a function of an address that returns the complaints.

    A complaint is an error in the console, an answer of 400 or more, or a request of a page to anything that is not
    below the address.
    """
    found = next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of the driver's own packages
        try:
            from marionette_driver.marionette import Marionette
        except ImportError:
            found = None
    if not found:
        pytest.skip(f"no Firefox with a driver found: the pages were not opened in it ({GET})")
    import mozlog

    mozlog.commandline.setup_logging("marionette", {}, {})  # it would talk about itself
    log = tempfile.mkdtemp()  # the driver removes a file that it is given: for root /dev/null is one
    driver = Marionette(
        bin=found, headless=True, prefs=AT_REST, gecko_log=log, app_args=["-remote-allow-system-access"]
    )
    driver.start_session()
    driver.timeout.script = driver.timeout.page_load = PATIENCE

    def inside(script):
        with driver.using_context("chrome"):
            return driver.execute_script(script, sandbox="system", new_sandbox=False)

    def complaints(home):
        asked, errors = inside("return asked"), inside(ERRORS)
        errors += driver.execute_script(SAID, sandbox="system")  # in the process of the page
        foreign = [f"asked {url}" for url, _ in asked if not re.match(f"{re.escape(home)}|data:|blob:", url)]
        return errors + foreign + [f"{status} {url}" for url, status in asked if status >= 400]

    try:
        inside(LISTEN)
        yield driver, complaints
    finally:
        driver.quit()
        driver.instance = None  # else it cleans up once more, after Python
        shutil.rmtree(log)
