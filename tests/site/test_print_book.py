"""The book on paper: one chapter by day, the whole by night; and what is wrong with a page is found."""

import io
import re
import shutil
from collections import Counter

import paper
import print_book
import pytest
from bs4 import BeautifulSoup
from build_book import ROOT, SITE
from pypdf import PdfReader

from tests.browser import browser as browser  # a fixture
from tests.browser import served

pytestmark = pytest.mark.site
CHAPTER = "heuristics_runs"
WHOLE = pytest.mark.nightly
MILLIMETRE = 72 / 25.4


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return a folder in which the site lies as in the folder of the build, and the printed book can lie beside it."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "html").symlink_to(SITE)
    return folder


@pytest.fixture(
    scope="module", params=[pytest.param((CHAPTER,), id=CHAPTER), pytest.param((), id="whole", marks=WHOLE)]
)
def printed(request, browser, built):
    """Print the book; return the document and the PDF."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(print_book, "PLACE", built / "print")
        print_book.lay_out(request.param)
    with served(built) as home:
        pdf, faults = print_book.typeset(browser, f"{home}/print/book.html")
    (built / "print" / "book.pdf").write_bytes(pdf)
    assert faults == []
    document = (built / "print" / "book.html").read_text(encoding="utf-8")
    return BeautifulSoup(document, "html.parser"), PdfReader(io.BytesIO(pdf))


@pytest.fixture(scope="module")
def texts(printed):
    """Return the text of each page, with one blank between two words."""
    return [" ".join(page.extract_text().split()) for page in printed[1].pages]


def placed(page):
    """Return the pieces of text of a page: (points from the left, points from the bottom, size, text)."""
    found = []

    def see(text, outer, inner, font, size):
        if text.strip():
            x, y = (inner[4] * outer[i] + inner[5] * outer[i + 2] + outer[i + 4] for i in (0, 1))
            found.append((x, y, size * abs(outer[0] * inner[0]), text.strip()))

    page.extract_text(visitor_text=see)
    return found


def close(text):
    """Return a text without blanks: what is said of them differs where a line ends."""
    return "".join(text.split()).replace("\u02bc", "\u2019")  # pypdf takes the apostrophe of the font for a letter


def test_the_numbers_of_the_pages_run_through_and_no_page_is_blank(printed, texts):
    assert len(texts) > 10
    feet = [
        "".join(text for _, high, _, text in placed(page) if high < 20 * MILLIMETRE and text.isdecimal())
        for page in printed[1].pages
    ]
    assert feet == ["", *map(str, range(2, len(texts) + 1))]  # the cover has none
    assert [number for number, text in enumerate(texts, start=1) if len(text) < 40] == []


def test_the_contents_name_the_page_of_each_title(printed, texts):
    document, _ = printed
    titles = [line.select_one(".words").get_text() for line in document.select(".contents p")]
    listed, words = [], ""
    for page in printed[1].pages[2:5]:
        for _, high, _, text in placed(page):
            if high > 20 * MILLIMETRE and text.isdecimal():
                listed, words = [*listed, (words, int(text))], ""
            elif high > 20 * MILLIMETRE:
                words += close(text)
    plain = [title for title in titles if "\\(" not in title]
    assert len(plain) > 0.9 * len(titles) >= 4
    for title in plain:
        number = next(number for words, number in listed if words.endswith(close(title)))
        assert close(title) in close(texts[number - 1]), f"{title} is not on page {number}"


def test_every_link_leads_to_a_place_in_the_book_or_to_the_web(printed):
    _, pdf = printed
    inside = outside = 0
    for page in pdf.pages:
        for note in page.get("/Annots") or ():
            note = note.get_object()
            if note["/Subtype"] != "/Link":
                continue
            if "/Dest" in note:
                assert str(note["/Dest"]).lstrip("/") in {name.lstrip("/") for name in pdf.named_destinations}
                inside += 1
            else:
                assert re.match(r"https://(?!127\.|localhost)", note["/A"]["/URI"]), note["/A"]
                outside += 1
    assert inside > 40 and outside > 5


def test_every_font_is_in_the_file(printed):
    _, pdf = printed
    names = set()
    for page in pdf.pages:
        for font in page["/Resources"].get("/Font", {}).values():
            font = font.get_object()
            for inner in font.get("/DescendantFonts", [font]):
                inner = inner.get_object()
                if inner["/Subtype"] != "/Type3":  # drawn in the file itself
                    assert any(key.startswith("/FontFile") for key in inner["/FontDescriptor"]), inner["/BaseFont"]
                    names.add(inner["/BaseFont"].split("+")[-1])
    assert {"SourceSerif4-Regular", "SourceSerif4-Italic", "SourceSerif4-SemiBold"} <= names


def test_no_line_begins_outside_of_the_page(printed):
    """Chromium makes all smaller where one thing is wider than the page: so the size of the text is asked, too."""
    _, pdf = printed
    found = placed(pdf.pages[6])
    letters = Counter()
    for _, _, size, text in found:
        letters[round(size, 1)] += len(text)
    assert letters.most_common(1)[0][0] == 10.5
    assert 19 * MILLIMETRE <= min(found)[0] and max(found)[0] <= 190 * MILLIMETRE


def test_the_outline_leads_to_the_titles(printed, texts):
    _, pdf = printed
    first = [entry for entry in pdf.outline if not isinstance(entry, list)]
    assert "Solutions" in {entry.title for entry in first}
    for entry in first:
        assert close(entry.title) in close(texts[pdf.get_destination_page_number(entry)])


def test_what_is_asked_has_its_answer_at_the_end(printed, texts):
    document, _ = printed
    asked, answers = document.select(".bet"), document.select(".answer")
    exercises, solutions = document.select(".exercise:not(:has(.bet))"), document.select(".solution")
    assert len(asked) == len(answers) >= 1 and len(exercises) >= len(solutions) >= 3
    order = [*document.select(".bet, .exercise, .solution, .answer")]
    ends = [number for number, part in enumerate(order) if {"solution", "answer"} & set(part["class"])]
    assert ends == [*range(len(order) - len(ends), len(order))]
    for solution in solutions:
        place = solution.select_one("[data-at]")["data-at"]
        assert document.find(id=place).select_one(f".see [data-at='{solution['id']}']")


def test_what_is_folded_code_on_the_screen_is_left_out(printed):
    document, _ = printed
    page = BeautifulSoup((SITE / "book" / f"{CHAPTER}.html").read_text(encoding="utf-8"), "html.parser")
    (found,) = [part for part in document.select("section.page") if part["data-title"].startswith("5.2. ")]
    inputs = page.select(".cell_input")
    shown = [cell.get_text().strip() for cell in inputs if not cell.find_parent(class_="above-input")]
    assert 0 < len(shown) < len(inputs)
    printed_code = [cell.get_text().strip() for cell in document.select(".cell_input")]
    assert set(shown) <= set(printed_code)
    assert not [cell for cell in found.select(".cell_input") if cell.get_text().strip() not in shown]


def test_a_slider_is_its_frames_and_each_says_what_it_shows(printed):
    document, _ = printed
    wanted = [
        words for name, told in paper.FRAMES.items() if document.find(id=name) or name == CHAPTER for words in told
    ]
    found = [[said.get_text() for said in box.select("figcaption")] for box in document.select(".explorer")]
    assert found and set(map(tuple, found)) <= set(map(tuple, wanted))
    for box in document.select(".explorer"):
        said = [int(number) for number in re.findall(r"\d+", box.select_one(".says").get_text())]
        assert len(box.select("svg")) == said[0] <= said[-1] and len(said) <= 2


def test_every_slider_of_the_book_has_its_frames():
    """By day too, when one chapter is printed: each page has as many sliders as FRAMES says, and those frames."""
    names = [name for name in filter(None, print_book.pages()[0])]
    pages = paper.Pages(SITE, names, print_book.PUBLISHED)
    sliders = {name: views for name in names if (views := pages.soups[name].select(paper.VIEW))}
    assert {name.rpartition("/")[2] for name in sliders} == set(paper.FRAMES)
    for name, views in sliders.items():
        for view, words in zip(views, paper.FRAMES[name.rpartition("/")[2]], strict=True):
            box = paper.explorer(pages, name, view, words)
            assert [said.get_text() for said in box.select("figcaption")] == words


LOW = "<div style='height: 150mm; break-before: page'></div>"  # what comes next must stand whole on the next page
BOX = f"<figure style='break-inside: {{}}'>{'<p>x</p>' * 20}</figure>"
PLANTED = {
    "on two pages": LOW + BOX.format("auto !important"),
    "wider than the page": "<p style='width: 200mm'>x</p>",
    "not found": "<img src='missing.png' alt=''>",
    "no page for": "<p><span data-at='nowhere'>x</span></p>",
}


@pytest.mark.parametrize("fault", [*PLANTED, None])
def test_what_is_wrong_on_paper_is_found(browser, built, fault):
    head = "<!DOCTYPE html><link rel='stylesheet' href='paper.css'>"
    link = "<h1 id='a'>A</h1><p><a href='#a'><span data-at='a'></span></a></p>"
    text = f"<main>{link}{LOW}{BOX.format('')}{PLANTED.get(fault, '')}</main>"
    (built / "print").mkdir(exist_ok=True)
    shutil.copy(ROOT / "tools" / "paper.css", built / "print")
    (built / "print" / "planted.html").write_text(head + text, encoding="utf-8")
    with served(built) as home:
        _, faults = print_book.typeset(browser, f"{home}/print/planted.html")
    assert len(faults) == bool(fault) and all(line.startswith(fault) for line in faults)


def test_a_link_to_nowhere_is_found():
    main = BeautifulSoup("<main><a href='#a'>x</a><a href='#b'>y</a><p id='a'></p></main>", "html.parser").main
    with pytest.raises(ValueError, match="does not have: b"):
        paper.checked(main)
    with pytest.raises(ValueError, match="one name: a"):
        paper.checked(BeautifulSoup("<main><a href='#a'>x</a><p id='a'></p><p id='a'></p></main>", "html.parser").main)


def test_a_frame_that_is_not_there_is_found(monkeypatch):
    monkeypatch.setitem(paper.FRAMES, CHAPTER, [["step = 500"]])
    with pytest.raises(ValueError, match="no frame 'step = 500'"):
        print_book.document([CHAPTER])
    monkeypatch.delitem(paper.FRAMES, CHAPTER)
    with pytest.raises(ValueError, match=f"book/{CHAPTER} has 1, and it names 0"):
        print_book.document([CHAPTER])
