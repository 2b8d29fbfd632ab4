"""What is mended in the built pages."""

import pytest
from mend import mend

MENDED = {
    "a fold is called what it says": (
        '<details><summary aria-label="Toggle hidden content"><p>Show</p></summary></details>',
        "<details><summary><p>Show</p></summary></details>",
    ),
    "the fold of a part of the table of contents has a name": (
        '<li><a>API</a><details><summary><span class="toctree-toggle"></span></summary></details></li>',
        '<li><a>API</a><details><summary aria-label="Pages of API"><span class="toctree-toggle"></span></summary>'
        "</details></li>",
    ),
    "the first figure is painted with the text": (
        '<head></head><article><figure><img src="a.png"/></figure><figure><img src="b.png"/></figure></article>',
        '<head><link as="image" href="a.png" rel="preload"/></head><article><figure><img decoding="sync" src="a.png"/>'
        '</figure><figure><img src="b.png"/></figure></article>',
    ),
    "the frames come after the text": (
        '<head><script type="application/vnd.jupyter.widget-state+json">{}</script></head><body><p>One</p></body>',
        '<head></head><body><p>One</p><script type="application/vnd.jupyter.widget-state+json">{}</script></body>',
    ),
    "a figure that is folded after a bet is not": (
        '<head></head><article><div class="bet-fold"><figure><img src="a.png"/></figure></div>'
        '<figure><img src="b.png"/></figure></article>',
        '<head><link as="image" href="b.png" rel="preload"/></head><article><div class="bet-fold"><figure>'
        '<img src="a.png"/></figure></div><figure><img decoding="sync" src="b.png"/></figure></article>',
    ),
    "the search index is not loaded where nothing is searched": (
        '<head><script src="a/searchtools.js"></script><script src="language_data.js"></script>'
        '<script src="../searchindex.js"></script><script src="search.js?v=1"></script>'
        '<script src="doctools.js"></script></head>',
        '<head><script src="doctools.js"></script></head>',
    ),
    "MathJax is not loaded where there is no math": (
        '<script defer="defer" src="../_static/../vendor/mathjax/es5/tex-mml-chtml.js?v=1"></script><p>One</p>',
        "<p>One</p>",
    ),
    "nor for a plane of Q, which writes its own letters": (
        '<script src="../vendor/mathjax/es5/tex-mml-chtml.js"></script>'
        '<div class="output"><div class="dn-plane"></div></div>',
        '<div class="output"><div class="dn-plane"></div></div>',
    ),
    "a comma and a bracket stay with their formula": (
        '<p>Let <span class="math">a</span>, or (<span class="math">b</span>). Or <span class="math">c</span> or '
        '<span class="math">d</span><em>, e</em></p><div class="math">f</div>, g<script src="mathjax/a.js"></script>',
        '<p>Let <span class="with-sign"><span class="math">a</span>,</span> or <span class="with-sign">('
        '<span class="math">b</span>).</span> Or <span class="math">c</span> or '
        '<span class="math">d</span><em>, e</em></p><div class="math">f</div>, g<script src="mathjax/a.js"></script>',
    ),
    "a search button is called what it says": (
        '<button aria-label="Search">Search <span class="search-button__kbd-shortcut">Ctrl+K</span></button>',
        '<button aria-label="Search Ctrl+K">Search <span class="search-button__kbd-shortcut">Ctrl+K</span></button>',
    ),
    "the theme switch has one name": (
        '<button aria-label="Color mode" class="theme-switch-button"><i data-mode="dark" title="Dark"></i></button>',
        '<button aria-label="Color mode" class="theme-switch-button"><i data-mode="dark"></i></button>',
    ),
    "the buttons that are never shown are gone": (
        '<header class="bd-header"><button class="sidebar-toggle"></button></header>'
        '<button class="sidebar-toggle"></button>',
        '<header class="bd-header"></header><button class="sidebar-toggle"></button>',
    ),
    "the sidebar is a landmark": (
        '<div id="pst-primary-sidebar"></div>',
        '<div aria-label="Sidebar" id="pst-primary-sidebar" role="complementary"></div>',
    ),
    "a page that leads on has the icon": (
        '<meta content="0; url=book/index.html" http-equiv="Refresh"/>',
        '<meta content="0; url=book/index.html" http-equiv="Refresh"/><link href="_static/favicon.svg" rel="icon"/>',
    ),
    "the bibliography is a list of items": (
        '<div role="list"><div role="doc-biblioentry">[1]</div></div>',
        '<div role="list"><div role="listitem">[1]</div></div>',
    ),
    "an empty corner is no heading": (
        "<tr><th><p></p></th><th>a</th></tr>",
        "<tr><td><p></p></td><th>a</th></tr>",
    ),
    "how hard an exercise is stands after its title": (
        '<div class="exercise"><p class="admonition-title"><span class="caption-number">Exercise 2.1 </span>'
        " (How long is <b>a</b> step (at most)? (pencil, easy))</p></div>",
        '<div class="exercise"><p class="admonition-title"><span class="caption-number">Exercise 2.1 </span>'
        'How long is <b>a</b> step (at most)? <span class="how-hard">pencil, easy</span></p></div>',
    ),
    "and its title may be one word": (
        '<div class="exercise"><p class="admonition-title"><span>Exercise 1 </span> (Build (hard))</p></div>',
        '<div class="exercise"><p class="admonition-title"><span>Exercise 1 </span>Build '
        '<span class="how-hard">hard</span></p></div>',
    ),
    "a link to an exercise says its title": (
        '<a href="#ex-a">Exercise 2.1 (How long (at most)? (hard))</a><a href="#fig-a">One (Two (hard))</a>',
        '<a href="#ex-a">Exercise 2.1 (How long (at most)?)</a><a href="#fig-a">One (Two (hard))</a>',
    ),
    "a page that has run says so": ("<td><p>✅</p></td>", "<td><p>finished</p></td>"),
    "an id is used once": (
        '<p id="proof">1</p><p id="proof">2</p><p id="proof">3</p>',
        '<p id="proof">1</p><p id="proof.2">2</p><p id="proof.3">3</p>',
    ),
}


def attributes_in_order(html):
    from bs4 import BeautifulSoup

    page = BeautifulSoup(html, "html.parser")
    for tag in page.find_all(True):
        tag.attrs = dict(sorted(tag.attrs.items()))
    return str(page)


@pytest.mark.parametrize(("before", "after"), MENDED.values(), ids=MENDED)
def test_mends(before, after):
    mended = mend(before)
    assert attributes_in_order(mended) == after
    assert mend(mended) == mended


@pytest.mark.parametrize(
    "page",
    [
        '<script src="searchtools.js"></script><script src="searchindex.js"></script><div id="search-results"></div>',
        '<script src="vendor/mathjax/es5/tex-mml-chtml.js"></script><span class="math notranslate">x</span>',
        '<script src="vendor/mathjax/es5/tex-mml-chtml.js"></script><div class="output text_html">$x$</div>',
        '<div class="exercise"><p class="admonition-title"><span>Exercise 1 </span> (How hard (easily)?)</p></div>',
    ],
    ids=["search", "formula", "output", "title"],
)
def test_leaves_the_scripts_that_a_page_needs(page):
    assert mend(page) == page


def test_leaves_the_rest_as_it_is():
    page = (
        '<!DOCTYPE html>\n\n<html lang="en"><head><script>if (1 < 2 && "<p>") {}</script>\n'
        '<script type="application/json">{"svg": "<svg viewBox=\\"0 0\\"> &lt; <\\/svg>"}</script></head>\n'
        '<body><p id="a">x &lt; y &amp; z — ½<br/></p><th>a</th><pre>  two\n lines </pre></body></html>\n'
    )
    assert mend(page) == page
