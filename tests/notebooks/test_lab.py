"""JupyterLab itself: notebooks are opened there, run from top to bottom, and their sliders are moved by the keys.

One chapter shows what JupyterLab could get wrong: a kernel, the widgets, the pictures. The others run in the build, and
here by night.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from types import SimpleNamespace

import nbformat
import pytest
from playwright.sync_api import TimeoutError as PageTimeout

from tests import pages
from tests.waiting import PATIENCE, until

SETTINGS = {  # every cell of a notebook is in the page, and the page asks for no news
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"checkForUpdates": False, "fetchNews": "false"},
}
OPEN = """async path => {
    const notebook = await jupyterapp.commands.execute("docmanager:open", {path});
    await notebook.context.ready;
    await notebook.sessionContext.ready;
    await notebook.revealed;
    window.opened = notebook;
}"""
RUN = """async () => { await jupyterapp.commands.execute("notebook:run-all-cells"); }"""
READ = """() => [...window.opened.content.model.cells]
    .filter(cell => cell.type === "code")
    .map(cell => ({id: cell.id, count: cell.executionCount, outputs: cell.outputs.toJSON()}))"""
CLOSE = """async () => {
    await window.opened.sessionContext.shutdown();
    window.opened.dispose();
}"""
PICTURES = """() => [...window.opened.node.querySelectorAll(".jupyter-widgets svg[role=img]")]
    .filter(picture => picture.checkVisibility()).map(picture => picture.ariaLabel)"""

KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
EXPLORER = """
import ipywidgets
frame = '<svg role="img" aria-label="frame {}" width="9" height="9"><rect width="9" height="9"/></svg>'
frames = ipywidgets.Stack([ipywidgets.HTML(frame.format(k)) for k in (1, 2)], selected_index=0)
slider = ipywidgets.SelectionSlider(options=["1", "2"], description="size")
"""
SHOW = "ipywidgets.VBox([slider, frames])"
PLANE = """
from divergence_notes import examples, widgets
widgets.plane(examples.full_data_divergence(), sliders=["gamma"], limits=[(-2, 4)])
"""
PLANTED = {
    "plane": [PLANE, "1 + 1"],
    "alive": [EXPLORER, 'ipywidgets.jslink((slider, "index"), (frames, "selected_index"))', SHOW],
    "dead": [EXPLORER, SHOW],
    "error": ["1 + 1", "1 / 0", "2 + 2"],
}


@contextlib.contextmanager
def served(root, place):
    """Serve the notebooks of `root` in a JupyterLab whose files all lie in `place`; yield its address."""
    for plugin, settings in SETTINGS.items():
        path = place / "config" / "lab" / "user-settings" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex()
    own = {f"JUPYTER_{kind}_DIR": str(place / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser", f"--port={port}"]
    command += ["--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={root}"]
    command += [f"--IdentityProvider.token={token}"] + ["--allow-root"] * (os.geteuid() == 0)
    address, log = f"http://127.0.0.1:{port}", place / "log"
    with open(log, "wb") as out:
        env = os.environ | own | {"IPYTHONDIR": str(place / "ipython")}
        server = subprocess.Popen(command, cwd=root, env=env, stdout=out, stderr=out)
    try:
        until(lambda: server.poll() is not None or answers(f"{address}/api/status?token={token}"))
        assert server.poll() is None, f"JupyterLab does not start:\n{log.read_text()}"
        yield f"{address}/lab?token={token}&reset"
    finally:
        server.terminate()  # and with it its kernels
        server.wait(timeout=PATIENCE)


def answers(url):
    """Say whether something answers there."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    """Open JupyterLab on a copy of the book, with two faulty notebooks beside the chapters; return its page."""
    place = tmp_path_factory.mktemp("lab")
    root = shutil.copytree(pages.BOOK, place / "book", ignore=shutil.ignore_patterns("results", ".ipynb_checkpoints"))
    for name, cells in PLANTED.items():
        codes = [nbformat.v4.new_code_cell(source, id=f"cell-{k}") for k, source in enumerate(cells)]
        nbformat.write(nbformat.v4.new_notebook(metadata=KERNEL, cells=codes), root / f"{name}.ipynb")
    with served(root, place) as address:
        page = browser.new_page(viewport={"width": 1280, "height": 1600})
        page.set_default_timeout(1000 * PATIENCE)
        page.goto(address)
        page.wait_for_function("window.jupyterapp")
        act(page, "async () => { await jupyterapp.restored; }")
        yield page
        page.close()


@contextlib.contextmanager
def run(page, name):
    """Open a notebook and run it all; yield what is wrong with its code cells, while it is on the screen."""
    act(page, OPEN, f"{name}.ipynb")
    try:
        act(page, RUN)
        yield SimpleNamespace(cells=(cells := page.evaluate(READ)), faults=faults(cells))
    finally:
        act(page, CLOSE)


def act(page, script, argument=None, *, timeout=1000 * PATIENCE):
    """Run an asynchronous script in the page until it is done; fail when it throws or takes too long, in ms."""
    end = "() => { window.done = 'well'; }, error => { window.done = String(error); }"
    page.evaluate(f"argument => {{ window.done = ''; ({script})(argument).then({end}); }}", argument)
    page.wait_for_function("window.done", timeout=timeout)
    assert (done := page.evaluate("window.done")) == "well", f"JupyterLab: {done}"


def faults(cells):
    """Return the errors of the cells that ran, and the cells that did not run in their turn."""
    found = []
    for turn, cell in enumerate(cells, start=1):
        errors = [output for output in cell["outputs"] if output["output_type"] == "error"]
        found += [f"{cell['id']}: {error['ename']}: {error['evalue']}" for error in errors]
        if cell["count"] != turn:
            found.append(f"{cell['id']} ran as number {cell['count']}, not {turn}")
    return found


def sliders(page, *, patience=PATIENCE):
    """Move every slider by one key; return {its name: whether a picture changed within so many seconds}."""
    moved = {}
    for handle in page.locator(".jp-NotebookPanel .noUi-handle:visible").all():
        row = handle.locator("xpath=ancestor::*[contains(@class, 'widget-inline-hbox')][1]")
        name = f"{row.locator('.widget-label').first.inner_text()} ({len(moved) + 1})"
        handle.scroll_into_view_if_needed()
        before = page.evaluate(PICTURES)
        at_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
        handle.press("ArrowLeft" if at_end else "ArrowRight")
        end = time.monotonic() + patience
        while not (changed := page.evaluate(PICTURES) != before) and before and time.monotonic() < end:
            page.wait_for_timeout(50)
        moved[name] = changed and bool(before)
    return moved


ONE = "contraction"
PATHS = [
    pytest.param(path, id=path.stem, marks=() if path.stem == ONE else pytest.mark.nightly) for path in pages.NOTEBOOKS
]


@pytest.mark.parametrize("path", PATHS)
def test_notebook_runs_in_jupyterlab(lab, path):
    """Run All ends, every code cell has run in its turn and without an error, every slider changes its picture."""
    with run(lab, path.stem) as ran:
        assert [cell["id"] for cell in ran.cells] == [cell.id for cell in pages.code_cells(path)]
        pages.none(ran.faults, "faults in JupyterLab")
        moved = sliders(lab)
        pages.none([name for name, changed in moved.items() if not changed], "these sliders change no picture")
        explorers = [cell.id for cell in pages.code_cells(path) if "explore(" in cell.source]
        assert bool(moved) == bool(explorers), f"{explorers} should show sliders, found {list(moved)}"


def test_the_one_has_what_there_is_to_see():
    """Sliders, figures, math, and cells whose numbers are compared."""
    path = pages.BOOK / f"{ONE}.ipynb"
    codes = "".join(cell.source for cell in pages.code_cells(path))
    assert codes.count("explore(") >= 2 and pages.figures(path) and pages.equations(path)


def test_keys_on_a_plane_are_no_commands(lab):
    """Arrow keys move what has the focus and not to another cell, and a letter does nothing to the notebook."""
    where = "() => [window.opened.content.activeCellIndex, window.opened.content.widgets.length]"
    stands = "(control) => control.value || control.ariaLabel"
    with run(lab, "plane") as ran:
        assert ran.faults == []
        plane = lab.locator(".dn-plane")
        plane.get_by_role("button", name="Play").focus()
        before = lab.evaluate(where)
        assert before == [0, 2]
        for control in (plane.locator("input[type=range]"), plane.locator(".dn-start")):
            stood = control.evaluate(stands)
            control.press("ArrowUp")
            assert control.evaluate(stands) != stood and lab.evaluate(where) == before
        for control in plane.locator("button:enabled, input[type=range]").all():
            for key in "axb":  # a cell above, this one cut, a cell below
                control.press(key)
            assert lab.evaluate(where) == before


class TestFaultsInJupyterLab:
    """What the test of the notebooks would say of a faulty one."""

    def test_an_error_is_found(self, lab):
        with run(lab, "error") as ran:
            assert "cell-1: ZeroDivisionError: division by zero" in ran.faults
            assert "cell-2 ran as number None, not 3" in ran.faults
            assert len(ran.faults) == 2

    def test_a_cell_that_did_not_run_is_found(self):
        ran = [{"id": "first", "count": 1, "outputs": []}, {"id": "second", "count": 1, "outputs": []}]
        assert faults(ran) == ["second ran as number 1, not 2"]

    def test_a_script_that_fails_or_hangs_is_found(self, lab):
        with pytest.raises(AssertionError, match="JupyterLab: Error: no"):
            act(lab, "async () => { throw new Error('no'); }")
        with pytest.raises(PageTimeout, match="100ms"):
            act(lab, "() => new Promise(() => {})", timeout=100)

    @pytest.mark.parametrize("name", ["alive", "dead"])
    def test_a_dead_slider_is_found(self, lab, name):
        with run(lab, name) as ran:
            assert ran.faults == []
            assert sliders(lab, patience=PATIENCE if name == "alive" else 2) == {"size (1)": name == "alive"}
