"""Bring the planes of Q on a page to life, with one plain script, and without what JupyterLab needs for them.

A plane leaves two forms in a notebook (`widgets.Plane`): HTML, which the page shows, and a widget. MyST-NB loads the
manager of the widgets wherever a notebook has made one, and puts the state of all of them into the page, the script of
the plane among it.
"""

import json

from bs4 import BeautifulSoup

STATE = "script[type='application/vnd.jupyter.widget-state+json']"
VIEW = "script[type='application/vnd.jupyter.widget-view+json']"
MANAGER = ("require.js", "widgets-local.js", "embed-amd.js")


def with_planes(html):
    """Return the page with what its planes need and no more; a page without one stays as it is, letter by letter.

    Parameters
    ----------
    html : str
        A built page.

    Returns
    -------
    str
        The page, in which a plane has its script and its style, from the folder of the style of the book; the state
        holds no plane; and without a view of another widget there is neither state nor manager.
    """
    if "data-plane=" not in html:
        return html
    page = BeautifulSoup(html, "html.parser")
    if not page.select(".dn-plane[data-plane]"):
        return html
    for state in page.select(STATE):
        told = json.loads(state.string)
        told["state"] = {k: model for k, model in told["state"].items() if model["model_module"] != "anywidget"}
        state.string = json.dumps(told)
        if not page.select(VIEW):
            state.decompose()
    if not page.select(VIEW):
        for script in page.select("script[src]"):
            if script["src"].split("?")[0].rpartition("/")[2] in MANAGER:
                script.decompose()
    style = page.select_one("link[href*='/book.css']")
    folder = style["href"].split("book.css")[0]
    if not page.select("script[src*='/plane.js']"):
        style.insert_after(page.new_tag("link", rel="stylesheet", href=f"{folder}plane.css"))
        page.head.append(page.new_tag("script", src=f"{folder}plane.js", defer=""))
    return str(page)
