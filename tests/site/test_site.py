"""The files of the built site: whole, without faults, linked. `make test` builds it first."""

import gzip
import json
import re
import shutil
import subprocess
import zipfile
import zlib

import downloads
import pytest
from build_book import BUILD, ROOT, SITE, faults, toc_files
from livereload.server import LiveScriptInjector
from sphinx.search.en import SearchEnglish

from tests import page_checks as check
from tests import pages
from tests.page_checks import soup

PAGES = toc_files()
PAGE_BUDGET = 400_000  # bytes that travel for a page, widgets aside: HTML, which servers compress, and pictures
FIRST_CHUNK = 64 * 1024  # bytes of a page that tornado sends first, and livereload looks at
EVERYTHING = check.names(SITE) or PAGES  # with the pages that Sphinx adds
LINKS = check.Links(SITE)


def test_site_is_whole():
    """One page for each file of _toc.yml, no error output, nothing of the environment."""
    assert SITE.is_dir(), "there is no site: run `make book`"
    assert faults() == []


def test_zip_holds_the_site():
    """What `make zip` packs is the site, file by file."""
    subprocess.run(["make", "-o", "book", "zip"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    with zipfile.ZipFile(BUILD / "divergence-notes.zip") as packed:
        found = {item.filename: item.CRC for item in packed.infolist() if not item.is_dir()}
    files = {path.relative_to(SITE).as_posix(): path for path in SITE.rglob("*") if path.is_file()}
    assert "index.html" in files
    assert found == {name: zlib.crc32(path.read_bytes()) for name, path in files.items()}


def test_search_knows_the_index_of_every_page():
    """Sphinx forgets the entries of pages that it does not read again."""
    found = json.loads((SITE / "searchindex.js").read_text(encoding="utf-8").removeprefix("Search.setIndex(")[:-1])
    known = {found["docnames"][entry[0]] for entries in found["indexentries"].values() for entry in entries}
    assert {f"book/{path.stem}" for path in pages.PAGES if "```{index}" in pages.markdown(path)} <= known
    assert "book/glossary" in known


FIRST_COURSE = {
    "MDP": {"glossary", "introduction", "other_books"},
    "Markov decision process": {"glossary", "introduction", "other_books"},
    "Markov property": {"bellman", "glossary", "introduction", "other_books"},
    "episode": {"bellman", "glossary", "introduction"},
    "return": {"bellman", "glossary"},
    "value": {"bellman", "glossary"},
    "discount": {"bellman", "glossary"},
    "Bellman equation": {"bellman", "glossary"},
    "value iteration": {"bellman", "glossary"},
    "policy iteration": {"bellman", "glossary"},
    "Monte Carlo": {"bellman", "glossary", "other_books"},
    "temporal difference": {"glossary"},
    "TD error": {"bellman", "glossary"},
    "Q-learning": {"bellman", "glossary", "introduction"},
    "Sarsa": {"bellman", "glossary", "other_books"},
    "exploration": {"bellman", "glossary", "other_books"},
    "greedy policy": {"bellman", "glossary"},
    "on-policy": {"function_approximation", "glossary"},
    "off-policy": {"function_approximation", "glossary"},
    "bootstrapping": {"function_approximation", "glossary"},
    "function approximation": {"function_approximation", "glossary"},
    "deadly triad": {"function_approximation", "glossary"},
    "semi-gradient": {"key_equation", "glossary"},
    "projection": {"glossary", "other_books"},
    "replay buffer": {"key_equation", "glossary"},
    "experience replay": {"glossary", "other_books"},
    "eligibility trace": {"glossary", "other_books"},
    "target network": {"glossary", "preqn_later"},
    "contraction": {"bellman", "contraction", "glossary"},
    "neural tangent kernel": {"glossary", "key_equation"},
    "Sutton Barto": {"other_books"},
    "TD errors": {"bellman", "glossary"},
    "bootstrap": {"bellman", "glossary"},
    "replay memory": {"glossary"},
    "off policy": {"function_approximation", "glossary"},
    "overestimation": {"glossary"},
    "maximization bias": {"glossary", "other_books"},
    "Double DQN": {"function_approximation", "glossary"},
    "semigradient": {"glossary"},
    "learning rate": {"glossary"},
    "fixed points": {"contraction", "glossary"},
    "spectral radius": {"contraction", "glossary"},
    "Bellman optimality": {"bellman", "glossary"},
    "Baird's counterexample": {"glossary", "other_books"},
    "value function": {"glossary"},
    "action values": {"bellman", "glossary"},
    "Markov chain": {"glossary"},
    "regularization": {"glossary"},
    "generalization": {"glossary"},
    "initialization": {"glossary"},
    "layer normalization": {"glossary"},
    "weight decay": {"glossary"},
    "importance sampling": {"other_books"},
    "advantage": {"other_books"},
    "actor critic": {"other_books"},
    "GTD": {"preqn_later"},
}
"""Words of a first course, and the pages that whoever looks for one expects among those found."""


def searched():
    """Return what the search of the site knows."""
    return json.loads((SITE / "searchindex.js").read_text(encoding="utf-8").removeprefix("Search.setIndex(")[:-1])


def finds(index, words):
    """Return the pages of the book that hold all of the words, in the text or in a title, as the search asks."""
    english = SearchEnglish({})
    pages_of = []
    for word in set(re.findall(r"\w+", words.lower())) - english.stopwords:
        known = [index[part].get(english.stem(word), []) for part in ("terms", "titleterms")]
        pages_of.append({n for found in known for n in ([found] if isinstance(found, int) else found)})
    return {index["docnames"][n].removeprefix("book/") for n in set.intersection(*pages_of)}


@pytest.mark.parametrize("words", FIRST_COURSE)
def test_search_finds_the_words_of_a_first_course(words):
    lacking = FIRST_COURSE[words] - finds(searched(), words)
    assert not lacking, f"{words!r} does not lead to {lacking}"


def test_search_misses_what_is_not_there():
    index = searched()
    assert finds(index, "Sarsa Zanzibar") == set() and finds(index, "Zanzibar") == set()
    assert "status" not in finds(index, "eligibility trace")
    assert "glossary" not in finds(index, "importance sampling")


class TestFaultsOfASite:
    """The reading of the site finds what it looks for."""

    @pytest.fixture
    def site(self, tmp_path):
        for name in [*PAGES, "index"]:
            path = tmp_path / f"{name}.html"
            path.parent.mkdir(exist_ok=True)
            path.write_text("<p>fine</p>")
        return tmp_path

    def test_accepts_a_whole_site(self, site):
        assert faults(site) == []

    def test_finds_a_missing_page(self, site):
        (site / f"{PAGES[1]}.html").unlink()
        assert faults(site) == [f"no page for {PAGES[1]} of _toc.yml"]

    @pytest.mark.parametrize(
        "text", ["<pre>Traceback (most recent call last):</pre>", '<div class="output traceback highlight">']
    )
    def test_finds_an_error_output(self, site, text):
        (site / f"{PAGES[0]}.html").write_text(text)
        assert [fault.split(":")[0] for fault in faults(site)] == [f"{PAGES[0]}.html holds an error"]

    def test_finds_the_environment(self, site):
        (site / ".venv").mkdir()
        assert faults(site) == [".venv is no part of the site"]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_its_lasting_address(name):
    """Whoever finds an old version learns where the newest is."""
    (link,) = soup(name).select("link[rel=canonical]")
    assert link["href"] == f"{downloads.settings()['html']['baseurl']}{name}.html"


@pytest.mark.parametrize("name", EVERYTHING)
class TestPage:
    """What the file of each page says."""

    def test_asks_no_other_host(self, name):
        assert check.foreign(soup(name)) == []

    def test_pictures_have_words(self, name):
        assert check.wordless(soup(name)) == []

    def test_figures_have_captions(self, name):
        assert check.captionless(soup(name)) == []

    def test_uses_an_id_once(self, name):
        assert check.repeated(soup(name)) == []

    def test_links_lead_somewhere(self, name):
        assert LINKS.broken(name) == []

    def test_can_be_shown_anew_after_an_edit(self, name):
        page = (SITE / f"{name}.html").read_bytes()
        first = page[:FIRST_CHUNK]
        injector = LiveScriptInjector(None)
        injector.script = b"<script></script>"
        _, _, sent = injector.transform_first_chunk(200, {"Content-Type": "text/html"}, first, False)
        assert len(sent) == len(first) + len(injector.script)

    def test_keeps_to_its_budget(self, name):
        text = (SITE / f"{name}.html").read_text(encoding="utf-8")
        state = soup(name).find("script", type="application/vnd.jupyter.widget-state+json")
        size = len(gzip.compress(text.replace(state.text if state else "", "").encode()))
        size += sum((SITE / name).parent.joinpath(img["src"]).stat().st_size for img in soup(name).select("main img"))
        assert size <= PAGE_BUDGET


class TestPlantedInFiles:
    """Each check finds its fault, planted in a page that was right."""

    @pytest.fixture
    def plant(self, tmp_path):
        shutil.copytree(SITE / "book", tmp_path / "book")
        for folder in ("_static", "_images", "_sources", "vendor"):
            (tmp_path / folder).symlink_to(SITE / folder)
        for path in SITE.glob("*.*"):
            shutil.copy(path, tmp_path)

        def write(html):
            path = tmp_path / "book" / "introduction.html"
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace("</article>", f"{html}</article>", 1), encoding="utf-8")
            return check.parsed(path), check.Links(tmp_path)

        return write

    def test_nothing_planted(self, plant):
        page, links = plant("<p>fine</p>")
        assert check.foreign(page) + check.wordless(page) + check.captionless(page) + check.repeated(page) == []
        assert links.broken("book/introduction") == []

    @pytest.mark.parametrize("url", ["https://example.org/a.js", "//example.org/a.js"])
    def test_foreign_script(self, plant, url):
        assert check.foreign(plant(f'<script src="{url}"></script>')[0]) == [url]

    @pytest.mark.parametrize("alt", ["", ' alt=""', ' alt="a picture"'])
    def test_missing_words(self, plant, alt):
        assert check.wordless(plant(f'<img src="a.png"{alt}>')[0]) == ["a.png"]

    def test_missing_caption(self, plant):
        html = '<figure id="f"></figure><div class="cell_output"><img src="a.png"></div>'
        assert len(check.captionless(plant(html)[0])) == 2

    def test_repeated_id(self, plant):
        assert check.repeated(plant('<p id="main-content"></p>')[0]) == ["main-content"]

    @pytest.mark.parametrize(
        ("link", "why"),
        [
            ("nowhere.html", "no such file"),
            ("#nowhere", "no such anchor"),
            ("bellman.html#nowhere", "no such anchor"),
            ("/book/bellman.html", "does not work in a subfolder"),
            ("file:///etc/hosts", "not a link for a page"),
        ],
    )
    def test_broken_link(self, plant, link, why):
        _, links = plant(f'<p><a href="{link}">there</a></p>')
        assert links.broken("book/introduction") == [f"{link}: {why}"]

    def test_broken_picture(self, plant):
        assert plant('<img src="gone.png">')[1].broken("book/introduction") == ["gone.png: no such file"]

    def test_redirect_to_nowhere(self, plant):
        html = '<meta http-equiv="Refresh" content="0; url=gone.html">'
        assert plant(html)[1].broken("book/introduction") == ["gone.html: no such file"]
