"""Python in a page, in Chromium: it starts from the site alone, judges as the package does, and can be stopped."""

import contextlib
import json
import re
from types import SimpleNamespace

import pytest
from build_book import SITE

from divergence_notes import grading
from divergence_notes.grading import Exercise, FindTheBug, Function
from tests.browser import opened, served
from tests.waiting import until

pytestmark = pytest.mark.site
POLICY = "default-src 'self'; img-src 'self' data:; script-src 'self' 'wasm-unsafe-eval'"
PAGE = f"""<!doctype html><html lang="en"><meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>A page</title><link rel="icon" href="data:,"><script src="load.js"></script>"""
LOAD = """window.ready = import("./live/kernel.js").then(({ Kernel, supported }) => {
    window.heard = [];
    window.supported = supported;
    window.kernel = new Kernel((message) => heard.push(message));
});"""
RUN = """async ([source, options]) => {
    heard.length = 0;
    const done = await kernel.run(source, options);
    return [done, heard.filter(({ kind }) => kind === "output")];
}"""


@contextlib.contextmanager
def page_with_kernel(browser, site, live):
    """Open a page that has a kernel and nothing else, under a strict policy; yield it, complaints and requests."""
    (site / "page.html").write_text(PAGE)
    (site / "load.js").write_text(LOAD)
    if live is not None:
        (site / "live").symlink_to(live)
    asked = []
    with (
        served(site) as address,
        opened(browser, f"{address}/page.html", address, asked=asked) as (page, complaints),
    ):
        page.evaluate("ready")
        yield page, complaints, asked


@pytest.fixture(scope="module")
def live():
    """Return the folder of the site that has Python."""
    if not (SITE / "live").exists():
        pytest.skip("the site was built without Python")
    return SITE / "live"


@pytest.fixture(scope="module")
def opened_page(browser, live, tmp_path_factory):
    """Open a page; start Python, and stop while a file is waited for; start it again, and keep what both said."""
    with page_with_kernel(browser, tmp_path_factory.mktemp("kernel"), live) as (page, complaints, asked):
        held = []
        page.route("**/numpy*", lambda route: held.append(route))
        page.evaluate("() => { window.hangs = kernel.start(['numpy']); }")
        until(lambda: page.wait_for_timeout(10) or held)
        page.evaluate("() => { kernel.stop(); }")
        stopped = page.evaluate("hangs"), page.evaluate("kernel.state")
        page.unroute("**/numpy*")  # which lets go on what it held
        page.evaluate("() => { heard.length = 0; }")
        done, said = page.evaluate("kernel.start(['numpy'])"), page.evaluate("heard")
        yield SimpleNamespace(page=page, complaints=complaints, asked=asked, stopped=stopped, done=done, said=said)


@pytest.fixture
def started(opened_page):
    """Start Python with numpy alone, unless it runs; return a function that runs a source and says what came of it."""
    page = opened_page.page
    if page.evaluate("kernel.state") == "cold":
        said = page.evaluate("kernel.start(['numpy'])")
        assert said["ok"], said

    def run(source, **options):
        return page.evaluate(RUN, [source, options])

    return run


def test_judges_as_the_package_does(started, opened_page):
    """A right answer, a wrong one, one that raises: the verdict is that of `check` here, and scipy is not asked for."""
    name = "ex-bellman-shift"
    right = "def rise(c, mdp):\n    return mdp.gamma * mdp.continuation.reshape(mdp.R.shape) * c\n"
    wrong = "def rise(c, mdp):\n    return mdp.continuation.reshape(mdp.R.shape) * c\n"
    fault = "def rise(c, mdp):\n    return c / 0\n"
    for answer, passed in ((right, True), (wrong, False), (fault, False)):
        space = {}
        exec(answer, space)
        expected = grading.check(name, space["rise"])
        source = f"{answer}from divergence_notes import grading\ngrading.check({name!r}, rise)"
        done, [output] = started(source, name="answer", fresh=True)
        assert done["ok"] and output["type"] == "verdict" and output["name"] == "answer"
        verdict = output["data"]
        assert verdict["passed"] == expected.passed == passed and verdict["diagnosis"] == expected.diagnosis
        if answer != fault:  # which line it is says the traceback, and here there is no file
            assert verdict["message"] == expected.message
        else:
            assert "ZeroDivisionError" in verdict["message"] and "return c / 0" in verdict["message"]
    assert opened_page.complaints == []
    files = {url.rpartition("/")[2] for url in opened_page.asked}
    assert any(file.startswith("numpy") for file in files)
    assert not any(file.startswith(("scipy", "pandas", "matplotlib")) for file in files)


def test_an_endless_loop_is_stopped_and_the_page_lives(started, opened_page):
    page = opened_page.page
    page.evaluate("() => { heard.length = 0; window.endless = kernel.run('print(1)\\nwhile True: pass'); }")
    page.evaluate("() => { window.waits = kernel.run('1'); }")
    # not by `wait_for_function`: from its second look on it evaluates text, which the policy of this page forbids
    until(lambda: page.wait_for_timeout(10) or page.evaluate("heard.some(({ type }) => type === 'out')"))
    assert page.evaluate("kernel.state") == "running"
    page.evaluate("() => { kernel.stop(); }")
    for waiting in ("endless", "waits"):
        done = page.evaluate(waiting)
        assert done["stopped"] and not done["ok"]
    assert page.evaluate("kernel.state") == "cold"
    until(lambda: page.wait_for_timeout(10) or not page.workers)  # else it would loop on, unseen
    assert not page.evaluate("kernel.run('1')")["ok"], "it runs nothing before it is started again"
    loaded = "() => performance.getEntriesByType('resource').map(({ name }) => name)"
    before = page.evaluate(loaded)
    assert page.evaluate("kernel.start(['numpy'])")["ok"]
    done, [output] = page.evaluate(RUN, ["6 * 7", {}])
    assert done["ok"] and output["data"] == "42"
    again = {url.rpartition("/")[2] for url in page.evaluate(loaded)[len(before) :]}
    assert again <= {"worker.js", "pyodide.mjs", "pyodide.asm.mjs"}, "the page kept the files"
    assert opened_page.complaints == []


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def f():\n    return f()\nf()", "RecursionError"),
        ("import numpy as np\nnp.ones(2**30)", "ValueError: array is too big"),
        ("import threading\nthreading.Thread(target=print).start()", "RuntimeError: can't start new thread"),
        ("input()", "Error"),
        ("raise SystemExit", "SystemExit"),
        ("import torch", "ModuleNotFoundError"),
    ],
)
def test_what_asks_too_much_gets_an_error_and_the_next_cell_runs(started, source, says):
    done, outputs = started(source)
    assert not done["ok"] and says in outputs[-1]["data"]["short"]
    assert started("1 + 1")[1][0]["data"] == "2"


def test_a_fetch_that_hangs_can_be_stopped(opened_page):
    done, state = opened_page.stopped
    assert done["stopped"] and state == "cold" and opened_page.done["ok"]


def test_what_it_says_in_what_order(opened_page, started):
    """progress and done of a start; output and done of a cell, each with the cell's name."""
    said = opened_page.said
    assert {message["kind"] for message in said[:-1]} == {"progress"} and said[-1]["kind"] == "done"
    counts = [(message["loaded"], message["total"]) for message in said if "loaded" in message]
    assert counts == sorted(counts) and counts[-1][0] == counts[-1][1]
    started("print(1)\n2", name="seven")
    kinds = [(message["kind"], message.get("type"), message["name"]) for message in opened_page.page.evaluate("heard")]
    assert kinds[-1] == ("done", None, "seven") and set(kinds[:-1]) == {
        ("output", "out", "seven"),
        ("output", "text", "seven"),
    }


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("numpy-*.whl", lambda data: data[:-1] + bytes([data[-1] ^ 1]), "is not what it should be"),
        ("pyodide-lock.json", lambda data: data + b" ", "is not what it should be"),
        ("numpy-*.whl", None, "could not be fetched"),
        ("worker.js", None, "could not be loaded"),
    ],
)
def test_a_file_that_is_another_or_gone_is_a_sentence(browser, live, tmp_path, file, change, says):
    """Planted in a copy: a byte changed, a file gone. The kernel is done, not ok; then it may be asked again."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in live.iterdir():
        (copy / path.name).symlink_to(path)
    [path] = copy.glob(file)
    data = path.read_bytes()
    path.unlink()
    if change:
        path.write_bytes(change(data))
    (tmp_path / "site").mkdir()
    with page_with_kernel(browser, tmp_path / "site", copy) as (page, _, _):
        done = page.evaluate("kernel.start(['numpy'])")
        assert done["kind"] == "done" and not done["ok"] and says in done["text"]
        assert page.evaluate("kernel.state") == "cold"
        if change is None and "worker" in file:
            path.write_bytes(data)
            assert page.evaluate("kernel.start(['numpy'])")["ok"]


def test_says_what_it_cannot_do(browser, live, tmp_path):
    """Where a page may not run WebAssembly: in a sentence, and before anything is fetched."""
    with page_with_kernel(browser, tmp_path, live) as (page, _, asked):
        assert page.evaluate("supported()") == ""
        assert not any("pyodide" in url for url in asked), "nothing is loaded before it is started"
        page.evaluate("() => { WebAssembly.Module = function () { throw new Error('no'); }; }")
        assert "WebAssembly" in page.evaluate("supported()")


def answers(exercise: Exercise):
    """Return what to hand in for an exercise, as expressions in `e`, the right one first."""
    if isinstance(exercise, Function | FindTheBug):
        return ["e.right"] + [f"e.mistakes[{i}].wrong" for i in range(len(exercise.mistakes))]
    return ["e.right(*e.sample()[0])" if callable(exercise.right) else "e.right"]


@pytest.mark.nightly
def test_every_exercise_is_judged_with_numpy_alone(started, opened_page):
    """Right answers and foreseen mistakes, letter by letter what is said here: integers of 32 bits change nothing."""
    different = []
    for name, exercise in grading.exercises().items():
        if not name.startswith("ex-"):
            continue
        for answer in answers(exercise):
            space = {"e": exercise, "grading": grading}
            here = grading.check(name, eval(answer, space))
            source = (
                f"from divergence_notes import grading\ne = grading.find({name!r})\ngrading.check({name!r}, {answer})"
            )
            done, outputs = started(source, fresh=True)
            there = outputs[-1]["data"] if outputs else done
            if there.get("message") != here.message or there["passed"] != here.passed:
                different.append(f"{name} {answer}: here {here.message!r}, there {json.dumps(there)}")
    assert not different, "\n".join(different)
    files = " ".join(opened_page.asked)
    assert not re.search("scipy-|pandas-|matplotlib-", files)


def test_python_that_ends_says_so(started, opened_page):
    """A function that calls itself through C overflows the stack of the browser, which no Python survives.

    That it starts again says test_live.py. The last of this file: who comes after would start it again.
    """
    done, _ = started("def f(*x):\n    return sorted([1, 2], key=f)\nf()")
    assert not done["ok"] and done["fatal"] and done["text"].startswith("Python has ended: ")
    assert opened_page.page.evaluate("kernel.state") == "cold"
