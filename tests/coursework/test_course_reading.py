"""What a student writes is data wherever a person reads it: in the real formgrader, in Chromium, and elsewhere."""

import base64
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import course
import grade
import nbformat
import pytest
from grader import reading

from tests import pages
from tests.notebooks.test_lab import answers
from tests.waiting import until

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAH/iZk9HQAAAABJRU5ErkJggg=="


def ran(name):
    """Return a script that leaves its name where the test looks, and one in the title."""
    return f"top.document.title='RAN';(top.RAN=top.RAN||[]).push('{name}')"


def img(name):
    """Return the shortest of them."""
    return f'<img src="x" onerror="{ran(name)}">'


IN_DATA = base64.b64encode(f"<script>{ran('data')}</script>".encode()).decode()
LINES = "\n".join
SMUGGLED = {
    "image": img("image"),
    "image-quoteless": f"<img/src=x/onerror={ran('image-quoteless')}>",
    "svg": f'<svg onload="{ran("svg")}"><circle r="3"/></svg>',
    "script": f"<script>{ran('script')}</script>",
    "script-in-a-line": f"so <b>then</b> <script>{ran('script-in-a-line')}</script>",
    "frame": f'<iframe srcdoc="<script>{ran("frame")}</script>"></iframe>',
    "frame-data": f'<iframe src="data:text/html;base64,{IN_DATA}"></iframe>',
    "link": f"[press](javascript:{ran('link').replace(' ', '')})",
    "link-tag": f'<a href="javascript:{ran("link-tag")}">press</a>',
    "link-entity": f'<a href="java&#115;cript:{ran("link-entity")}">press</a>',
    "link-broken": f'<a href="java\tscr\nipt:{ran("link-broken")}">press</a>',
    "link-automatic": "<javascript:top.RAN=['link-automatic']>",
    "link-by-name": "[press][there]\n\n[there]: javascript:top.RAN=['link-by-name']",
    "link-data": f"[press](data:text/html;base64,{IN_DATA})",
    "link-own": "[press](evil.html)",
    "picture-own": "![away](/logout)",
    "math-link": "$\\href{javascript:top.RAN=['math-link']}{x}$",
    "math-link-hidden": "\\\\\\(\\hre&#102;{javascript:top.RAN=['math-link-hidden']}{x}\\\\\\)",
    "math-display": f"$$ a {img('math-display')} $$",
    "math-environment": f"\\begin{{align}}{img('math-environment')}\\end{{align}}",
    "math-brackets": f"\\\\[ {img('math-brackets')} \\\\]",
    "math-style": "$\\style{background:url(https://x.invalid)}{x}\\require{html}\\unicode{x3c}$",
    "comment": f"<!--> {img('comment')} -->",
    "comment-bang": f"<!-- --!> {img('comment-bang')} -->",
    "fence-mermaid": f"```mermaid\n{img('fence-mermaid')}\n```",
    "fence-word": f"```{img('fence-word')}\nx\n```",
    "fence-broken": f"````\n```\n````\n{img('fence-broken')}\n```",
    "attachment-name": f'![a](attachment:x"onerror="{ran("attachment-name")})',
    "attachment-svg": "![a](attachment:b.svg)",
    "attachment-kind": "![a](attachment:kind)",
    "attachment-missing": "![a](attachment:nowhere.png)",
    "title": f'![a](x "t&quot; onerror=&quot;{ran("title")}")',
    "details": f'<details open ontoggle="{ran("details")}">a</details>',
    "refresh": f'<meta http-equiv="refresh" content="0;url=javascript:{ran("refresh")}">',
    "style": "<style>body { display: none } @import 'https://x.invalid/x.css';</style>",
    "sheet": '<link rel="stylesheet" href="https://x.invalid/x.css">',
    "base": '<base href="https://x.invalid/">',
    "form": f'<form action="javascript:{ran("form")}"><button>press</button></form>',
    "button": f'<button onclick="{ran("button")}" class="btn full-credit">press</button>',
    "hover": f'<p onmouseover="{ran("hover")}">over</p>',
    "focus": f'<input autofocus onfocus="{ran("focus")}">',
    "mutation-math": '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror='
    f'{ran("mutation-math")}&gt;">',
    "mutation-noscript": f'<noscript><p title="</noscript>{img("mutation-noscript").replace(chr(34), chr(39))}">',
    "mutation-svg": f'<svg></p><style><a id="</style>{img("mutation-svg").replace(chr(34), chr(39))}">',
    "closes-the-box": f"</div></div></div></div><script>{ran('closes-the-box')}</script>",
    "closes-in-silence": "</div></div></div></div></div>",
    "raw-text": f"<xmp></xmp>{img('raw-text')}<textarea></textarea>",
    "heading": f"# {img('heading')}",
    "table": f"| a | b |\n|---|---|\n| {img('table')} | 2 |",
    "clobber": '<img name="getElementById"><a id="derive-answer"></a>',
    "clobber-heading": "# derive-answer",
    "long": "x" * 200_000 + img("long"),
}
ATTACHED = {
    "attachment-name": {f'x"onerror="{ran("attachment-name")}': {"image/png": PNG}},
    "attachment-svg": {"b.svg": {"image/svg+xml": base64.b64encode(b'<svg onload="alert(1)"/>').decode()}},
    "attachment-kind": {"kind": {f'image/png" onerror="{ran("attachment-kind")}" x="': PNG}},
}
BARE = "image svg script frame link link-tag link-entity details hover focus heading table fence-mermaid".split()
"""What runs in the formgrader as nbgrader comes, each by itself."""
INERT = {"image-quoteless", "math-display", "math-environment", "math-brackets"}
"""What nbconvert writes as text in any case."""
CODE = {
    "html": f"from IPython.display import HTML, SVG, Javascript, Markdown, display\nHTML('''{img('html')}''')",
    "svg-output": f"SVG('''<svg xmlns='http://www.w3.org/2000/svg' onload=\"{ran('svg-output')}\"></svg>''')",
    "javascript": f'Javascript("""{ran("javascript")}""")',
    "markdown": f"Markdown('''{img('markdown')}''')",
    "magic": f"%%html\n<script>{ran('magic')}</script>",
    "printed": f"print('''{img('printed')}''')",
    "escaped": f"print('''\\x1b]8;;javascript:{ran('escaped')}\\x07press\\x1b]8;;\\x07 \\x1b[31m{img('escaped')}''')",
    "error": f"raise ValueError('''{img('error')}''')",
    "name": f"class X: pass\nX.__name__ = '''{img('name')}'''\nX()",
    "widget": "import ipywidgets\nipywidgets.HTML('''" + img("widget") + "''')",
}
HONEST = LINES(
    [
        "## A proof",
        "",
        "By **monotonicity**, $|\\max_a x_a - \\max_a y_a| \\le \\|x - y\\|_\\infty$",
        "where $a<b$ and `if x < y:`, hence",
        "",
        "$$\\begin{aligned} \\|TQ - TQ'\\| &\\le \\gamma \\|Q - Q'\\| \\\\ &< \\|Q - Q'\\| \\end{aligned}$$",
        "",
        "```python\nassert (T(Q) < 1).all()  # <b>\n```",
        "",
        "| step | why |\n|---:|---|\n| 1 | [a book](https://example.org/?a=1&b=2) |\n",
        f"![mine](data:image/png;base64,{PNG})",
        "",
        "![theirs](attachment:plot.png) H<sub>2</sub>",
    ]
)
HONEST_ATTACHED = {"plot.png": {"image/png": PNG}}


class TestReadable:
    @pytest.mark.parametrize("name", SMUGGLED)
    def test_what_is_smuggled_is_text(self, name):
        source = SMUGGLED[name]
        assert (name in INERT) is reading.harmless(source, ATTACHED.get(name), ("derive-answer",))
        shown = reading.readable(source, ATTACHED.get(name), ("derive-answer",))
        assert reading.harmless(shown, ATTACHED.get(name), ("derive-answer",))

    @pytest.mark.parametrize(
        "around", ["{}", "Some *words*.\n\n{}", "- a\n- {}", "> {}", "a | {}\n--|--\n", "$x$ {} $y$"]
    )
    def test_wherever_it_stands(self, around):
        for name, source in SMUGGLED.items():
            shown = reading.readable(around.format(source), ATTACHED.get(name), ("derive-answer",))
            assert reading.harmless(shown, ATTACHED.get(name), ("derive-answer",)), name

    def test_what_is_honest_is_left_alone(self):
        assert reading.readable(HONEST, HONEST_ATTACHED) == HONEST

    @pytest.mark.parametrize("chapter", course.assignments())
    def test_so_is_every_text_of_ours(self, chapter):
        """Solutions, questions and rubrics; the title links to a chapter by a path, and is ours."""
        cells = nbformat.read(course.SOURCE / chapter / f"{chapter}.ipynb", as_version=4).cells
        texts = [cell.source for cell in cells if cell.cell_type == "markdown" and cell.id != "title"]
        assert [text for text in texts if reading.readable(text) != text] == []

    def test_the_rest_of_a_cell_still_shows(self):
        shown = reading.readable("Let $a < b$.\n\n**So** [see](../x.ipynb), for x<y, " + img("rest"))
        assert "Let $a < b$." in shown and "**So**" in shown and "<img" not in shown and "](" not in shown

    def test_a_fence_cannot_be_broken(self):
        for run in range(1, 9):
            source = f"{'`' * run}\n~~~\n{img('x')}\n{'`' * run}\n[a]: javascript:1\n[a]"
            assert reading.harmless(reading.as_text(source))


def smuggler(notebook):
    """Return a submission that tries everything."""
    for name, source in SMUGGLED.items():
        cell = nbformat.v4.new_markdown_cell(source)
        if name in ATTACHED:
            cell.attachments = ATTACHED[name]
        cell.metadata = nbformat.from_dict({"tags": ['x" onmouseover="' + ran("tag")]})
        notebook.cells.append(cell)
    raw = nbformat.v4.new_raw_cell(img("raw") + f"<script>{ran('raw')}</script>")
    raw.metadata = nbformat.from_dict({"raw_mimetype": "text/html", "format": "text/html"})
    notebook.cells.append(raw)
    for source in CODE.values():
        cell = nbformat.v4.new_code_cell(source)
        cell.metadata = nbformat.from_dict({"magics_language": img("language")})
        cell.outputs = [
            nbformat.v4.new_output("display_data", {"text/html": img("old-html"), "image/svg+xml": SMUGGLED["svg"]}),
            nbformat.v4.new_output("display_data", {"application/javascript": ran("old-javascript")}),
            nbformat.v4.new_output(
                "display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "</script>"}}
            ),
            nbformat.v4.new_output("display_data", {"image/png": f'x" onerror="{ran("old-png")}'}),
        ]
        notebook.cells.append(cell)
    answer = next(c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == "derive-answer")
    answer.source = "I do not know. " + img("answer")
    breakout = f"</script><script>{ran('state')}</script>"
    notebook.metadata = nbformat.from_dict(
        {
            "title": img("notebook-title"),
            "celltoolbar": img("toolbar"),
            "kernelspec": {"name": img("kernel"), "display_name": img("kernel"), "language": img("kernel")},
            "language_info": {"name": img("language"), "pygments_lexer": img("lexer")},
            "widgets": {"application/vnd.jupyter.widget-state+json": {"state": {breakout: {"state": breakout}}}},
            "authors": [{"name": img("author")}],
        }
    )
    return notebook


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Return a course in which one student smuggles and one is honest; a third is as the first, but not cleaned."""
    place = tmp_path_factory.mktemp("reading")
    root = place / "instructor"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PYTHONPATH", "PATH", "COURSE_ROOT"):
            patch.setenv(name, os.environ.get(name, ""))
        course.build(seed="read", root=root, release=place / "release", only=["bellman"])
        inbox = place / "inbox"
        inbox.mkdir()
        fresh = nbformat.read(place / "release" / "bellman" / "bellman.ipynb", as_version=4)
        trouble = smuggler(fresh)
        for student in ("smuggler", "control"):
            (inbox / f"{student}.ipynb").write_text(nbformat.writes(trouble), encoding="utf-8")
        honest = nbformat.read(root / "solution" / "bellman" / "bellman.ipynb", as_version=4)
        answer = next(c for c in honest.cells if c.metadata.get("nbgrader", {}).get("grade_id") == "derive-answer")
        answer.source, answer.attachments = HONEST, HONEST_ATTACHED
        (inbox / "honest.ipynb").write_text(nbformat.writes(honest), encoding="utf-8")
        (inbox / "<img src=x onerror=1>.ipynb").write_text(nbformat.writes(honest), encoding="utf-8")
        assert list(grade.collect(root, "bellman", inbox)) == ["<img src=x onerror=1>.ipynb"]
        # Handed in past `collect`, as an exchange would let it.
        (root / "submitted" / "smuggler" / "bellman" / "evil.html").write_text(SMUGGLED["script"])
        odd = root / "submitted" / img("student").replace("/", "") / "bellman"
        odd.mkdir(parents=True)
        shutil.copy(inbox / "honest.ipynb", odd / "bellman.ipynb")
        grade.autograde(root, "bellman")
        assert grade.feedback(root, "bellman") == ["control", "honest", "smuggler"]
        bare = root / "autograded" / "control" / "bellman" / "bellman.ipynb"
        shown = nbformat.read(bare, as_version=4)
        shown.cells += [nbformat.v4.new_markdown_cell(SMUGGLED[name]) for name in BARE]
        bare.write_text(nbformat.writes(shown), encoding="utf-8")
        yield root


@pytest.fixture(scope="module")
def formgrader(graded, tmp_path_factory):
    """Serve the course with nbgrader's own extension; yield the address of the formgrader, and the token."""
    place = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex()
    own = {f"JUPYTER_{kind}_DIR": str(place / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    command = [sys.executable, "-m", "jupyter_server", f"--port={port}", "--ServerApp.ip=127.0.0.1"]
    command += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={graded}", f"--IdentityProvider.token={token}"]
    command += ["--ServerApp.open_browser=False"] + ["--allow-root"] * (os.geteuid() == 0)
    address = f"http://127.0.0.1:{port}"
    with open(place / "log", "wb") as out:
        env = os.environ | own | {"IPYTHONDIR": str(place / "ipython")}
        server = subprocess.Popen(command, cwd=graded, env=env, stdout=out, stderr=out)
    try:
        until(lambda: server.poll() is not None or answers(f"{address}/api/status?token={token}"))
        assert server.poll() is None, (place / "log").read_text()
        yield address, token
    finally:
        server.terminate()
        server.wait()


def ask(formgrader, path):
    """Return what the formgrader's interface says."""
    address, token = formgrader
    with urllib.request.urlopen(f"{address}/formgrader/{path}{'&' if '?' in path else '?'}token={token}") as answer:
        return json.loads(answer.read())


def submission(formgrader, student):
    """Return the number under which the formgrader knows a notebook."""
    found = ask(formgrader, "api/submitted_notebooks/bellman/bellman")
    return next(one["id"] for one in found if one["student"] == student)


def visit(browser, formgrader, path):
    """Open a page, press and touch all of the student's on it; return what ran, the page's title, text and tags."""
    address, token = formgrader
    context = browser.new_context()
    context.route(lambda url: not url.startswith((address, "data:", "about:")), lambda route: route.abort())
    page = context.new_page()
    page.goto(f"{address}/formgrader/{path}?token={token}", wait_until="load")
    try:
        page.wait_for_timeout(500)
        here = page.url
        box = page.locator("#notebook-container")
        if box.count():
            names = """() => [...document.querySelectorAll("#notebook-container a, #notebook-container button.btn")]
                .filter(one => !one.closest(".panel-heading")).forEach(one => {
                    one.dispatchEvent(new MouseEvent("mouseover", {bubbles: true}));
                    if (!/^(https?|mailto):/.test(one.href || "") && !/^data:/.test(one.href || "")) one.click();
                })"""
            page.evaluate(names)
            over = """() => document.querySelectorAll("#notebook-container *").forEach(
                one => one.dispatchEvent(new MouseEvent("mouseover")))"""
            page.evaluate(over)
            page.wait_for_timeout(300)
        assert page.url.split("#")[0] == here.split("#")[0]
        box = page.locator("body")
        return page.evaluate("() => [...new Set(window.RAN || [])]"), page.title(), box.inner_text(), page.content()
    finally:
        context.close()


class TestFormgrader:
    """Opened in Chromium, with every link pressed."""

    def test_the_smugglers_page_runs_nothing_of_theirs(self, graded, formgrader, browser):
        number = submission(formgrader, "smuggler")
        before = ask(formgrader, f"api/grades?submission_id={number}")
        found, title, text, _ = visit(browser, formgrader, f"submissions/{number}/")
        assert (found, "RAN" in title) == ([], False)
        assert ask(formgrader, f"api/grades?submission_id={number}") == before
        assert "I do not know." in text and "onerror" in text  # shown as it was typed
        assert text.count("Student's answer") == 6  # no box of ours was closed or covered

    def test_control_where_it_is_not_cleaned_it_runs(self, graded, formgrader, browser):
        found, title, _, _ = visit(browser, formgrader, f"submissions/{submission(formgrader, 'control')}/")
        assert title == "RAN" and set(BARE) - set(found) <= {"focus"}  # which one page element has at most

    def test_honest_work_shows(self, graded, formgrader, browser):
        found, _, text, source = visit(browser, formgrader, f"submissions/{submission(formgrader, 'honest')}/")
        assert found == [] and "$|\\max_a x_a - \\max_a y_a| \\le \\|x - y\\|_\\infty$" in text and "a<b" in text
        assert "<strong>monotonicity</strong>" in source and source.count(f"data:image/png;base64,{PNG}") == 2
        assert "&amp;\\le \\gamma" in source and "&amp;lt;" not in source and '<a href="https://example.org/' in source
        assert "assert (T(Q) < 1).all()" in text and "<sub>2</sub>" in source

    @pytest.mark.parametrize(
        "path",
        [
            "manage_assignments",
            "manage_submissions/bellman",
            "gradebook",
            "gradebook/bellman",
            "gradebook/bellman/bellman",
            "manage_students",
            "manage_students/smuggler",
            "manage_students/smuggler/bellman",
        ],
    )
    def test_no_list_runs_a_name(self, graded, formgrader, browser, path):
        assert visit(browser, formgrader, path)[:1] == ([],)

    def test_what_else_was_handed_in_is_not_served(self, graded, formgrader):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            ask(formgrader, f"submissions/{submission(formgrader, 'smuggler')}/evil.html")
        assert [path.name for path in (graded / "autograded" / "smuggler" / "bellman").iterdir()] == ["bellman.ipynb"]


class TestFeedback:
    def test_runs_nothing(self, graded, browser):
        page = browser.new_page()
        try:
            page.goto((graded / "feedback" / "smuggler" / "bellman" / "bellman.html").as_uri())
            page.wait_for_timeout(300)
            assert page.evaluate("() => window.RAN || []") == [] and page.title() != "RAN"
            assert "I do not know." in page.locator("body").inner_text()
            assert page.locator("script, iframe, form, [onerror], [onload]").count() == 0
        finally:
            page.close()


class TestTableOfMarks:
    def test_has_text_only(self, graded):
        _, rows = grade.write_table(graded, "bellman")
        said = {row["student_id"]: row for row in rows}
        odd = next(name for name in said if name.startswith("<img"))
        assert said[odd]["status"] == "cannot be graded" and "the name of a student" in said[odd]["note"]
        assert said["smuggler"]["status"] == said["honest"]["status"] == "graded"
        pages.none([row["note"] for row in rows if "<" in row["note"]], "these notes hold markup")
