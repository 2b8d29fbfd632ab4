"""The page about a run in a real browser: open to everyone, in both themes and on a phone, and with nothing to load."""

import pytest

from divergence_notes import report
from tests import page_checks
from tests.browser import launched
from tests.test_report import history


@pytest.fixture(scope="module")
def visit(tmp_path_factory):
    """Open the page of a run with an alarm, a long name and long settings; yield it, and what it asked for."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    settings = {"gamma": 0.99, "policy": "MlpPolicy" * 20}
    report.write(path, history(whole=True).assign(batch_dependence=0.5), title="läuft/" * 30, settings=settings)
    with launched() as browser:
        page, asked = browser.new_page(), []
        page.on("request", lambda made: asked.append(made.url))
        page.on("console", lambda said: asked.append(said.text))
        page.goto(path.as_uri())
        page.locator("details summary").click()
        yield page, asked, path.as_uri()


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)])
def test_axe(visit, theme, width):
    page = visit[0]
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 28)"}[theme]
    assert page_checks.axe(page, {"type": "tag", "values": page_checks.TAGS}) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def luminance(color):
    """Return the relative luminance of #rgb or #rrggbb, as WCAG defines it."""
    digits = color.strip().removeprefix("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_lines_can_be_told_from_the_paper(visit, theme):
    """What a curve is drawn in has a contrast of 3 at least: axe reads letters, and no lines."""
    page = visit[0]
    page.emulate_media(color_scheme=theme)
    read = "name => getComputedStyle(document.documentElement).getPropertyValue(name)"
    light = {name: luminance(page.evaluate(read, f"--{name}")) for name in ("paper", "line", "alarm", "calm", "faint")}
    paper = light.pop("paper")
    contrast = {name: (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) for name, ink in light.items()}
    assert min(contrast.values()) >= 3, contrast


def test_nothing_is_asked(visit):
    assert visit[1] == [visit[2]]
