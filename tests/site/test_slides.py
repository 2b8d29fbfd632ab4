"""The decks for lectures: each figure once, in a file that holds all it shows, and whole on the screen of a lecture."""

import re

import pytest
import slides
from bs4 import BeautifulSoup
from build_book import ROOT, SITE

from tests import pages
from tests.browser import browser as browser  # a fixture
from tests.page_checks import AXE
from tests.waiting import PATIENCE

CHAPTERS = slides.chapters()
SMALLEST = 24
"""Pixels, of the letters on a slide that is 720 high."""
SCREEN = {"width": slides.WIDTH, "height": slides.HEIGHT}
FAULTS = """([smallest, width, height]) => {
    const slide = document.querySelector(".reveal .slides section.present"), faults = [];
    const whole = (name, box) => {
        if (box.left < 0 || box.top < 0 || box.right > width || box.bottom > height) faults.push(`${name} is cut`);
    };
    const image = slide.querySelector("img").getBoundingClientRect();
    whole("the picture", image);
    if (!slide.querySelector("img").complete || image.height < height / 3) faults.push("the picture is small");
    for (const part of slide.querySelectorAll("h2, figcaption p")) {
        const range = document.createRange();
        range.selectNodeContents(part);
        for (const box of range.getClientRects()) {
            whole(part.tagName, box);
            const over = box.left < image.right - 1 && box.right > image.left + 1;
            const level = box.top < image.bottom - 1 && box.bottom > image.top + 1;
            if (over && level) faults.push(`${part.tagName} is over the picture`);
        }
        if (parseFloat(getComputedStyle(part).fontSize) < smallest) faults.push(`${part.tagName} is small`);
    }
    return [...new Set(faults)];
}"""


def figures(names):
    """Return the labels of the figures in the notebooks of these pages."""
    cells = [cell for name in names for cell in pages.code_cells(ROOT / f"{name}.ipynb")]
    found = [cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in cells]
    return [label for label in found if label]


def caption(html):
    """Return a caption as it stands on a page."""
    return BeautifulSoup(f'<span class="caption-text">{html}</span>', "html.parser").span


class TestFirstSentence:
    @pytest.mark.parametrize(
        ("html", "wanted"),
        [
            ("One thing. Another.", "One thing."),
            ("A step of 1.140 is long (left). Next", "A step of 1.140 is long (left)."),
            ("Does it? It does.", "Does it?"),
            ('An error <span class="math">\\(a. b\\)</span>, dotted. Both.', "An error \\(a. b\\), dotted."),
            ('As <a href="#x">Fig. 6. 2</a> says. More.', "As Fig. 6. 2 says."),
            ("Ends with <em>a word</em>. <b>More</b> here.", "Ends with a word."),
            ("Stands alone.", "Stands alone."),
            ("A dot in <em>a.</em>b is none. Two.", "A dot in a.b is none."),
        ],
    )
    def test_ends_where_it_ends(self, html, wanted):
        given = caption(html)
        before = str(given)
        assert slides.first_sentence(given).get_text() == wanted
        assert str(given) == before

    def test_one_without_an_end_is_refused(self):
        with pytest.raises(ValueError, match="caption must have a sentence, got 'no end'"):
            slides.first_sentence(caption("no end"))


class TestSlide:
    """What a figure must have; planted, each fault is named."""

    FIGURE = """<figure id="fig-x"><img src="x.png" alt="A line."/><figcaption><p>
        <span class="caption-number">Fig. 1 </span><span class="caption-text">A line. It rises.</span></p>
        </figcaption></figure>"""

    @pytest.fixture
    def made(self, tmp_path):
        def of(html, size=(1400, 500)):
            slides.Image.new("RGB", size).save(tmp_path / "x.png")
            return slides.slide(BeautifulSoup(html, "html.parser").figure, tmp_path)

        return of

    def test_number_sentence_alt_and_notes(self, made):
        found = made(self.FIGURE)
        assert found["id"] == "fig-x" and found.img["alt"] == "A line."
        assert found.figcaption.get_text() == "Fig. 1 A line." and found.aside.get_text() == "A line. It rises."

    @pytest.mark.parametrize(("size", "kind"), [((1400, 500), "below"), ((1000, 900), "beside")])
    def test_the_sentence_stands_where_the_figure_is_larger(self, made, size, kind):
        assert made(self.FIGURE, size).figure["class"] == kind

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ('alt="A line."', 'alt=""', "fig-x has no alt"),
            ("<figcaption>", '<img src="x.png" alt="x"/><figcaption>', "fig-x has 2, 1"),
            ("caption-number", "other", "fig-x has 1, 0"),
            ("A line. It rises.", "A line", "must have a sentence"),
        ],
    )
    def test_a_fault_is_named(self, made, old, new, said):
        with pytest.raises(ValueError, match=re.escape(said)):
            made(self.FIGURE.replace(old, new))

    def test_a_formula_that_cannot_be_read_is_named(self):
        with pytest.raises(ValueError, match=r"got '\\\\frac"):
            slides.drawn(["x", "\\frac{1"])

    def test_a_chapter_that_is_none_is_named(self):
        with pytest.raises(SystemExit, match=r"one of bellman, .*; got belman"):
            slides.main("belman")


def test_each_chapter_has_a_deck_with_all_its_parts():
    assert [name for names in CHAPTERS.values() for name in names] == [
        path.relative_to(ROOT).with_suffix("").as_posix() for path in pages.NUMBERED
    ]
    assert len(CHAPTERS["preqn"]) == 3 and all(figures(names) for names in CHAPTERS.values())


@pytest.fixture(scope="module", params=CHAPTERS)
def deck(request, tmp_path_factory):
    """Return the pages of a chapter, and its deck."""
    names = CHAPTERS[request.param]
    path = tmp_path_factory.mktemp("slides") / f"{request.param}.html"
    path.write_text(slides.deck(SITE, names), encoding="utf-8")
    return names, path


def addresses(html):
    """Return what a document would ask for, apart from its scripts."""
    page = BeautifulSoup(html, "html.parser")
    asked = [tag[name] for name in ("src", "href", "srcset", "data", "action") for tag in page.select(f"[{name}]")]
    styles = "".join(tag.get_text() for tag in page.select("style")) + "".join(
        tag["style"] for tag in page.select("[style]")
    )
    asked += re.findall(r"url\(\s*[\"']?([^\"')]+)", styles) + re.findall(r"@import[^;]+", styles)
    return [address for address in asked if not address.startswith(("data:", "#"))]


@pytest.mark.site
class TestDeck:
    def test_every_figure_is_on_one_slide(self, deck):
        page = BeautifulSoup(deck[1].read_text(encoding="utf-8"), "html.parser")
        found = page.select(".slides > section")
        assert [section["id"] for section in found] == figures(deck[0])
        on_pages = [
            tag.get_text().strip()
            for name in deck[0]
            for tag in BeautifulSoup((SITE / f"{name}.html").read_text(encoding="utf-8"), "html.parser").select(
                "article figure[id] .caption-number"
            )
        ]
        assert [section.b.get_text() for section in found] == on_pages
        assert len(set(on_pages)) == len(on_pages)

    def test_it_holds_all_that_it_shows(self, deck):
        html = deck[1].read_text(encoding="utf-8")
        assert addresses(html) == []
        assert not re.search(r"\\\(|\\\[|\$\$", BeautifulSoup(html, "html.parser").select_one(".slides").get_text())

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_every_slide_is_whole_and_asks_for_nothing(self, deck, browser, scheme):
        context = browser.new_context(viewport=SCREEN, color_scheme=scheme)
        context.set_default_timeout(1000 * PATIENCE)
        page, asked, errors = context.new_page(), [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(deck[1].as_uri())
        page.wait_for_function("window.Reveal && Reveal.isReady() && document.fonts.status == 'loaded'")
        page.add_script_tag(path=AXE)
        seen = []
        for _ in figures(deck[0]):
            seen.append(page.evaluate("Reveal.getCurrentSlide().id"))
            assert faults(page) == [], seen[-1]
            found = page.evaluate("axe.run('.present', {runOnly: ['color-contrast', 'image-alt', 'role-img-alt']})")
            assert found["violations"] == [], seen[-1]
            page.keyboard.press("PageDown")
        assert seen == figures(deck[0])
        assert page.evaluate("Reveal.isLastSlide()")
        assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [deck[1].as_uri()] and errors == []
        context.close()


def faults(page):
    """Return what is wrong with the slide that is shown."""
    return page.evaluate(FAULTS, [SMALLEST, slides.WIDTH, slides.HEIGHT])


@pytest.mark.site
class TestPlantedInADeck:
    """A deck with a fault is not let through by what looks at the others."""

    @pytest.mark.parametrize(
        ("plant", "said"),
        [
            ("slide.querySelector('p').append(' word'.repeat(400))", "P is cut"),
            ("slide.querySelector('h2').style.fontSize = '12px'", "H2 is small"),
            ("slide.querySelector('figure').style.maxHeight = '150px'", "the picture is small"),
            ("slide.querySelector('figcaption').style.marginTop = '-200px'", "P is over the picture"),
            ("slide.querySelector('img').style.marginLeft = '900px'", "the picture is cut"),
        ],
    )
    def test_is_found(self, browser, tmp_path, plant, said):
        path = tmp_path / "deck.html"
        path.write_text(slides.deck(SITE, CHAPTERS["bellman"]), encoding="utf-8")
        page = browser.new_page(viewport=SCREEN)
        page.goto(path.as_uri())
        page.wait_for_function("window.Reveal && Reveal.isReady()")
        assert faults(page) == []
        page.evaluate(f"const slide = document.querySelector('.present'); {plant}; null")
        assert said in faults(page)
        page.close()

    @pytest.mark.parametrize(
        "plant", ['<img src="//x.org/y.png">', "<style>@import 'z.css';</style>", '<p style="background: url(w.png)">']
    )
    def test_an_address_is_found(self, plant):
        assert len(addresses(plant)) == 1
