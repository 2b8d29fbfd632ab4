"""Bring the planes of Q on a page to life, with one plain script, and without what JupyterLab needs for them.

A plane leaves two forms in a notebook (`widgets.Plane`): HTML, which the page shows, and a widget; a bet
(`widgets.bet`) leaves one that the page does not show. MyST-NB loads the manager of the widgets wherever a notebook has
made one, and puts the state of all of them into the page, the script of the plane among it.
"""

import json
import re

from bs4 import BeautifulSoup

STATE = "script[type='application/vnd.jupyter.widget-state+json']"
VIEW = "script[type='application/vnd.jupyter.widget-view+json']"
LINKS = ("LinkModel", "DirectionalLinkModel")
MANAGER = ("require.js", "widgets-local.js", "embed-amd.js")


def with_planes(html):
    """Return the page with what its planes and its other widgets need, and no more.

    Parameters
    ----------
    html : str
        A built page; one without a plane and without a widget stays as it is, letter by letter.

    Returns
    -------
    str
        The page, in which a plane has its script and its style, from the folder of the style of the book; the state
        holds what a view on the page is made of, and no plane or other widget that only a notebook shows; and without
        a view there is neither state nor manager.
    """
    if "data-plane=" not in html and "widget-state+json" not in html:
        return html
    page = BeautifulSoup(html, "html.parser")
    views = [json.loads(view.string)["model_id"] for view in page.select(VIEW)]
    for state in page.select(STATE):
        told = json.loads(state.string)
        kept = _made_of(views, told["state"])
        told["state"] = {name: model for name, model in told["state"].items() if name in kept}
        state.string = json.dumps(told)
        if not views:
            state.decompose()
    if not views:
        for script in page.select("script[src]"):
            if script["src"].split("?")[0].rpartition("/")[2] in MANAGER:
                script.decompose()
    if page.select(".dn-plane[data-plane]"):
        _bring_to_life(page)
    return str(page)


def _made_of(views, state):
    """Return the names of the models that these are made of, and of those that are linked to one of them."""
    mentions = {name: set(re.findall(r"IPY_MODEL_(\w+)", json.dumps(model))) for name, model in state.items()}
    links = {name for name, model in state.items() if model["model_name"] in LINKS}
    found, todo = set(), set(views) & set(state)
    while todo:
        found |= todo
        todo = set().union(*(mentions[name] for name in todo))
        todo |= {name for name in links if mentions[name] & found}
        todo -= found
    return found


def _bring_to_life(page):
    style = page.select_one("link[href*='/book.css']")
    folder = style["href"].split("book.css")[0]
    if not page.select("script[src*='/plane.js']"):
        style.insert_after(page.new_tag("link", rel="stylesheet", href=f"{folder}plane.css"))
        page.head.append(page.new_tag("script", src=f"{folder}plane.js", defer=""))
