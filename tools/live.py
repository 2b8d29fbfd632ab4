"""Let Python answer on the page: cells that run, and boxes in which an answer to an exercise is judged.

A page gets book/_static/live.js, and what that must know: where the kernel is, how much a click loads, and for each
exercise what its box begins with. The cells stand in a file beside the page, which is read at the first click.
"""

import ast
import functools
import hashlib
import inspect
import itertools
import json
import re
import sys
from types import SimpleNamespace

import live_cells
import nbformat
import reads
from bs4 import BeautifulSoup
from build_book import toc_files
from downloads import colab_links
from exercises import judged_without_python, of_the_book
from live_files import megabytes
from reads import ROOT

from divergence_notes import grading

STATIC = ROOT / "book" / "_static"
FOR_A_BOX = ["numpy"]
"""What is loaded to judge an answer, beside the package."""


@functools.cache
def _release(name):
    """Return what makes the address of a file of ours another when the file is."""
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:8]


def asked(name, text):
    """Return what the text of an exercise hands to its check, and how the function is called in it, if one is.

    Parameters
    ----------
    name : str
        Of the exercise.
    text : str
        The text of its box.

    Returns
    -------
    answer, signature : str
        Such as ``"worth"`` and ``"worth(reward, cost, gamma)"``; ``""`` where the text has none.
    """
    text = " ".join(text.replace("’", "'").replace("“", '"').replace("”", '"').split())
    start = re.search(rf'grading\.check\(\s*"{re.escape(name)}"\s*,\s*', text)
    if not start:
        return "", ""
    rest = text[start.end() :]
    depths = itertools.accumulate((letter in "([") - (letter in ")]") for letter in rest)
    at = next((at for at, depth in enumerate(depths) if depth < 0), len(rest))
    answer = rest[:at].strip()
    called = re.search(rf"\b{re.escape(answer)}\([^()]*\)", text[: start.start()] + rest[at:])
    return answer, called[0] if called and answer.isidentifier() else ""


def seed(exercise, text, imports=""):
    """Return with what the box of an exercise begins, and what of it is handed to the check.

    Parameters
    ----------
    exercise : Exercise
        One that a computer judges.
    text : str
        The text of its box on the page.
    imports : str
        Lines that stand before it.

    Returns
    -------
    code, answer : str
        Python, and an expression of its names.
    """
    answer, signature = asked(exercise.name, text)
    answer = answer or "answer"
    if isinstance(exercise, grading.Function):
        if not answer.isidentifier():
            raise ValueError(f"{exercise.name} must name the function that it asks for, got {answer!r}")
        parameters = inspect.signature(exercise.right).parameters.values()
        own = ", ".join(one.name for one in parameters if one.default is one.empty and one.kind is not one.KEYWORD_ONLY)
        body = f"def {signature or f'{answer}({own})'}:\n    ...\n"
    else:
        names = list(dict.fromkeys(re.findall(r"(?<![\w.])[A-Za-z_]\w*", re.sub(r"\"[^\"]*\"", "", answer))))
        body = "".join(f"{name} = ...\n" for name in names)
    gap = "\n\n\n" if isinstance(exercise, grading.Function) else "\n\n"
    return f"{imports}{gap}{body}".lstrip("\n"), answer


def imports_for(name, cells, text=""):
    """Return the lines that import what the published solution of an exercise uses, or its text calls.

    Parameters
    ----------
    name : str
        Of the exercise.
    cells : list of dict
        Of `live_cells.page`.
    text : str
        What the exercise says.

    Returns
    -------
    str
        Lines of Python, of its own library, numpy and the package only; numpy is always there.
    """
    comes = {*FOR_A_BOX, reads.PACKAGE, *sys.stdlib_module_names}
    solved = next((cell for cell in cells if f'check("{name}"' in cell["source"]), None)
    used = {*solved["takes"]} | live_cells.names(solved["source"]).defines if solved else set()
    used |= set(re.findall(r"\b(\w+)\.\w+\(", text))
    lines = {}
    for cell in cells:
        for node in ast.parse(cell["source"]).body:
            if not isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            module = getattr(node, "module", None)
            for alias in node.names:
                local = alias.asname or alias.name.partition(".")[0]
                top = (module or alias.name).partition(".")[0]
                if local not in used | {"np"} or local == "grading" or top not in comes:
                    continue
                if (
                    not live_cells.others(f"from {module} import {alias.name}" if module else f"import {alias.name}")
                    <= live_cells.BROWSER
                ):
                    continue
                as_name = alias.name + (f" as {alias.asname}" if alias.asname else "")
                lines.setdefault(module, {})[as_name] = None
    plain = [f"import {name}" for name in lines.pop(None, ())]
    return "\n".join([*plain, *(f"from {module} import {', '.join(found)}" for module, found in sorted(lines.items()))])


def put(html, cells, exercises, *, kernel, cells_file="", colab=""):
    """Return a page with what runs Python in it.

    Parameters
    ----------
    html : str
        A built page, made from a notebook.
    cells : list of dict
        What `live_cells.page` says of the notebook.
    exercises : mapping of str to Exercise
        Those that need Python: where one of them stands on the page it gets a box.
    kernel : dict
        What live.js is told of the kernel.
    cells_file : str
        Where the page finds the cells, from itself.
    colab : str
        Where the notebook runs, for the cells that cannot run in a browser.

    Returns
    -------
    str
        The page. Each block of code knows the number of its cell.

    Raises
    ------
    ValueError
        If the page does not show the cells that are not hidden.
    """
    page = BeautifulSoup(html, "html.parser")
    blocks = page.select("main div.cell")
    shown = [number for number, cell in enumerate(cells) if not cell["hidden"]]
    if len(blocks) != len(shown):
        raise ValueError(f"page must show {len(shown)} cells, has {len(blocks)}")
    for block, number in zip(blocks, shown, strict=True):
        block["data-cell"] = str(number)
    boxes = {}
    for box in page.select("main div.exercise[id]"):
        if exercise := exercises.get(box["id"]):
            code, answer = seed(exercise, box.get_text(), imports_for(box["id"], cells, box.get_text()))
            boxes[box["id"]] = {"code": code, "answer": answer}
    runs = any(not cells[number]["asks"] for number in shown)
    if not (boxes or runs):
        return html
    told = kernel | {"colab": colab, "cells": cells_file if runs else "", "boxes": boxes}
    head = page.head
    href = {name: f"../_static/{name}?v={_release(name)}" for name in ("live.css", "live.js")}
    head.append(page.new_tag("link", rel="stylesheet", href=href["live.css"]))
    data = page.new_tag("script", attrs={"type": "application/json", "id": "live-data"})
    data.string = json.dumps(told, ensure_ascii=False).replace("</", "<\\/")
    page.body.append(data)
    page.body.append(page.new_tag("script", attrs={"src": href["live.js"], "defer": ""}))
    return str(page)


def packages(cells):
    """Return what of `live_cells.BROWSER` the cells that run in the browser may import, now or later."""
    runs = SimpleNamespace(
        cells=[SimpleNamespace(cell_type="code", source=c["source"]) for c in cells if not c["asks"]]
    )
    names, _ = reads.walk(runs, reads.ever)
    return sorted({name.partition(".")[0] for name in names} & live_cells.BROWSER)


def put_all(site):
    """Put into the pages of the chapters of a built site what runs Python in them, if the site has a kernel.

    Parameters
    ----------
    site : Path
        The site.
    """
    if megabytes(FOR_A_BOX) is None:
        return
    exercises = needing_python()
    for path in chapters():
        page = site / "book" / f"{path.stem}.html"
        if not page.is_file():
            continue
        html = page.read_text(encoding="utf-8")
        if 'id="live-data"' in html:
            continue
        cells = live_cells.page(nbformat.read(path, as_version=4))
        colab = f"{colab_links()[1]}book/{path.name}"
        loads = {"page": packages(cells), "check": FOR_A_BOX}
        sizes = {what: f"{megabytes(names):.0f} MB" for what, names in loads.items()}
        kernel = {"kernel": "../live/", "packages": loads, "sizes": sizes}
        cells_file = page.with_suffix(".cells.json")
        made = put(html, cells, exercises, kernel=kernel, cells_file=cells_file.name, colab=colab)
        if made != html:
            page.write_text(made, encoding="utf-8")
            cells_file.write_text(json.dumps(cells, ensure_ascii=False), encoding="utf-8")


def chapters():
    """Return the notebooks that have a number: the chapters, and the parts of one that has several pages."""
    return [ROOT / f"{file}.ipynb" for file in toc_files(numbered=True)]


def needing_python():
    """Return the exercises that are judged by running code: functions, tests, and examples that one builds."""
    return {name: one for name, one in of_the_book().items() if not judged_without_python(one)}
