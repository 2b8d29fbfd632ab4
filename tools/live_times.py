"""Say how long Python in a page takes, beside Python here: to a first verdict, to a first print, and after a stop.

Chromium on loopback, a fresh profile each time, so that all is fetched and compiled; of some runs the median. CPU is
that of all processes of the browser, in the meantime. Here, the same is done by a fresh Python of the environment.
Nothing else should run meanwhile.

    live_times.py [NAME]      of a chapter, "bellman" unless another is named
"""

import contextlib
import json
import statistics
import subprocess
import sys
import time

import nbformat
import psutil
from build_book import ROOT, SITE
from live import needing_python
from live_cells import page as cells_of
from weigh import packed

RUNS = 3
RIGHT = "from divergence_notes import grading\n{answer} = grading.find({name!r}).right\n"
JUDGE = "grading.check({name!r}, {answer})\n"
FIRST, PRINTS = "first verdict", "its first cell has printed"


class Clock:
    """Seconds, and those of the processors, since it was made."""

    def __init__(self):
        self.began, self.cpu = time.perf_counter(), self.used()

    @staticmethod
    def used():
        found = 0.0
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                found += times.user + times.system
        return found

    def read(self):
        return time.perf_counter() - self.began, self.used() - self.cpu


def write(page, editor, text):
    """Write into an editor, in place of what it has."""
    editor.click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(text)


def verdicts(page, asked, name):
    """Yield what is measured in a box: the first verdict, the next, and the first after Stop."""
    box = page.locator(f"#{name}")
    verdict, go = box.locator(".live-verdict"), box.locator(".live-tools button").first
    answer = json.loads(page.locator("#live-data").text_content())["boxes"][name]["answer"]
    right = RIGHT.format(name=name, answer=answer)
    write(page, box.locator("textarea"), right)

    def judged():
        clock = Clock()
        go.click()
        verdict.filter(has_text="Right.").wait_for()
        return clock.read()

    before = len(asked)
    yield FIRST, judged()
    files = {url.lstrip("/") for url in asked[before:]}
    yield "MB gz to it", (sum(packed(SITE / file) for file in files) / 1e6,)
    yield "the next verdict", judged()
    write(page, box.locator(".cm-content"), "while True: pass")
    go.click()
    verdict.filter(has_text="Python looks at it").wait_for()
    go.click()
    verdict.filter(has_text="Stopped.").wait_for()
    write(page, box.locator(".cm-content"), right)
    yield "a verdict after Stop", judged()


def cells(page, number):
    """Yield what is measured of a page that runs: Python is there, and a cell has shown something."""
    clock = Clock()
    page.get_by_role("button", name="Run this page").click()
    page.get_by_text("Python is here").wait_for()
    yield "the page can run", clock.read()
    block = page.locator(f'[data-cell="{number}"]')
    for what in (PRINTS, "the same after a restart"):
        block.get_by_role("button", name=f"Run cell {number + 1}").click()
        block.locator(".live-note", has_text="ran in").wait_for()
        yield what, clock.read()
        page.locator(".live-bar").get_by_role("button", name="Restart Python").click()
        clock = Clock()


def here(code):
    """Return the seconds that a fresh Python here takes for some code."""
    clock = Clock()
    environment = {"MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, env=environment, cwd=ROOT)
    return clock.read()[0]


def needed(told, number):
    """Return the cells that a cell needs, and itself, in order."""
    todo, found = [number], set()
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            todo += [maker for makers in told[one]["takes"].values() for maker in makers]
    return sorted(found)


def main(chapter="bellman"):
    from tests.browser import launched, opened, served, unfold_bets

    path = ROOT / "book" / f"{chapter}.ipynb"
    told, text = cells_of(nbformat.read(path, as_version=4)), path.read_text(encoding="utf-8")
    name = next(name for name in needing_python() if f":label: {name}\\n" in text)
    runs = [number for number, cell in enumerate(told) if not cell["hidden"] and not cell["asks"]]
    printing = next(number for number in runs if "print(" in told[number]["source"])
    found = {}
    with served(SITE) as home:
        for _ in range(RUNS):
            for in_box in (True, False):
                asked = []
                page_at = f"{home}/book/{chapter}.html"
                with launched() as browser, opened(browser, page_at, home, asked=asked) as (page, _):
                    unfold_bets(page)
                    for what, value in verdicts(page, asked, name) if in_box else cells(page, printing):
                        found.setdefault(what, []).append(value)
    alone = {
        FIRST: (RIGHT + JUDGE).format(name=name, answer="it"),
        PRINTS: "\n".join(told[number]["source"] for number in needed(told, printing)),
    }
    print(f"{chapter}, {name}, cell {printing + 1}: seconds, median of {RUNS}\n")
    print(f"{'':28} {'page':>6} {'CPU':>6} {'here':>6}")
    for what, values in found.items():
        row = [f"{statistics.median(column):6.2f}" for column in zip(*values, strict=True)]
        native = [f"{statistics.median(here(alone[what]) for _ in range(RUNS)):6.2f}"] if what in alone else []
        print(f"{what:28}", *row, *native)


if __name__ == "__main__":
    main(*sys.argv[1:])
