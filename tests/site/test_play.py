"""The button that plays an explorer, in a page and without a kernel: real widgets, the script of the book."""

import json

import matplotlib.pyplot as plt
import pytest
from build_book import SITE
from ipywidgets.embed import embed_data

from divergence_notes import widgets
from tests.browser import opened, served
from tests.pages import BOOK

pytestmark = pytest.mark.site

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Play</title>
<link rel="icon" href="data:,">
<script src="access.js"></script><script defer src="vendor/require.js"></script>
<script defer data-jupyter-widgets-cdn="vendor/" src="vendor/embed-amd.js"></script></head>
<body><main id="main-content">
<script type="application/vnd.jupyter.widget-state+json">{}</script>
<script type="application/vnd.jupyter.widget-view+json">{}</script></main></body></html>"""


def draw(step):
    fig, ax = plt.subplots(figsize=(3, 2))
    ax.plot([0, step])
    return fig


@pytest.fixture
def played(browser, tmp_path):
    """Return a page with an explorer of four frames that has a button."""
    told = embed_data(views=[widgets.explore(draw, alt=lambda step: f"frame {step}", play="step", step=range(4))])
    (view,) = told["view_specs"]
    (tmp_path / "index.html").write_text(PAGE.format(json.dumps(told["manager_state"]), json.dumps(view)))
    (tmp_path / "access.js").symlink_to(BOOK / "_static" / "access.js")
    (tmp_path / "vendor").symlink_to(SITE / "vendor")
    with served(tmp_path) as address, opened(browser, f"{address}/index.html", address) as (page, complaints):
        page.get_by_label("frame 0").wait_for()
        yield page, page.get_by_role("button", name="Play", exact=True), complaints


def test_plays_to_the_end_and_again_from_the_start(played):
    page, button, complaints = played
    button.click()
    for step in (1, 2, 3):
        page.get_by_label(f"frame {step}").wait_for()
    button.wait_for()  # it says Play again
    button.click()
    page.get_by_label("frame 0").wait_for()
    page.get_by_label("frame 1").wait_for()
    assert complaints == []


def test_pauses(played):
    """A second click stops it where it is: the slider is the reader's again."""
    page, button, complaints = played
    button.click()
    page.get_by_label("frame 1").wait_for()
    page.get_by_role("button", name="Pause", exact=True).click()
    button.wait_for()
    page.locator(".noUi-handle").press("ArrowLeft")
    page.get_by_label("frame 0").wait_for()
    assert page.evaluate("document.querySelector('button.dn-play').timer") == 0 and complaints == []


def test_by_the_keyboard(played):
    page, button, _ = played
    button.press("Enter")
    page.get_by_label("frame 1").wait_for()
