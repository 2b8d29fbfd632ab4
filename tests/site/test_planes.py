"""A page with a plane of Q loads its script, and nothing that only JupyterLab needs."""

import json

import pytest
from build_book import SITE
from planes import with_planes

HEAD = '<head><link href="../_static/book.css?v=1" rel="stylesheet"/>{}</head>'
MANAGER = "".join(
    f'<script defer="defer" src="../vendor/{name}?v=2"></script>' for name in ("require.js", "embed-amd.js")
)
STATE = '<script type="application/vnd.jupyter.widget-state+json">{}</script>'
VIEW = '<script type="application/vnd.jupyter.widget-view+json">{"model_id": "box"}</script>'
PLANE = '<div class="dn-plane" data-plane="{}"><svg></svg></div>'


def model(name, **state):
    return {"model_name": f"{name}Model", "model_module": "any", "state": state}


SHOWN = {
    "box": model("VBox", children=["IPY_MODEL_slider", "IPY_MODEL_stack"], layout="IPY_MODEL_layout"),
    "slider": model("SelectionSlider"),
    "stack": model("Stack"),
    "layout": model("Layout"),
    "link": model("Link", source=["IPY_MODEL_slider", "index"], target=["IPY_MODEL_stack", "selected_index"]),
}
HIDDEN = {
    "plane": model("AnyModel"),
    "bet": model("VBox", children=["IPY_MODEL_buttons"]),
    "buttons": model("ToggleButtons"),
    "other": model("DirectionalLink", source=["IPY_MODEL_buttons", "index"], target=["IPY_MODEL_bet", "box_style"]),
}
MODELS = SHOWN | HIDDEN


def page(body, *, told=MODELS):
    return HEAD.format(MANAGER) + f"<body>{body}{STATE.format(json.dumps({'state': told}))}</body>"


class TestWithPlanes:
    """What a page keeps, and what it gets."""

    @pytest.mark.parametrize("html", ["<p>One</p>", f"<P>{VIEW}</P>", "<P>data-planes</P>"])
    def test_a_page_without_one_stays(self, html):
        assert with_planes(html) == html

    def test_script_and_style_are_there_once(self):
        done = with_planes(page(PLANE))
        assert done.count('src="../_static/plane.js"') == done.count('href="../_static/plane.css"') == 1
        assert with_planes(done) == done

    def test_without_another_widget_there_is_no_manager(self):
        done = with_planes(page(PLANE))
        assert "vendor" not in done and "widget-state" not in done

    @pytest.mark.parametrize("plane", ["", PLANE])
    def test_what_no_view_is_made_of_leaves_the_state(self, plane):
        done = with_planes(page(plane + VIEW))
        assert done.count("vendor") == 2
        told = done.split('widget-state+json">')[1].split("</script>")[0]
        assert json.loads(told)["state"] == SHOWN

    def test_a_page_whose_widgets_are_all_hidden_has_no_manager(self):
        done = with_planes(page("<p>One</p>"))
        assert "vendor" not in done and "widget-state" not in done and "plane.js" not in done


@pytest.mark.site
class TestTheBook:
    """The planes of the book."""

    @pytest.mark.parametrize(
        "name", ["index", "bellman", "function_approximation", "key_equation", "contraction", "preqn"]
    )
    def test_is_there(self, name):
        text = (SITE / "book" / f"{name}.html").read_text(encoding="utf-8")
        assert text.count("data-plane=") == 1 and "_static/plane.js" in text
        assert "divergenceNotesPlane" not in text  # the script is no part of the state of the widgets
        assert ("embed-amd" in text) == (name != "index")
