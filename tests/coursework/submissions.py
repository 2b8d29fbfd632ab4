"""What a class hands in: solutions and untouched editions, work that means harm, and files that cannot be read."""

import base64
import json
import re
import shutil

import grade
import marking
import nbformat
from grader.preprocessors import STUB, grade_id

from divergence_notes import grading
from tests import pages


def edit(notebook, name, source):
    """Set the source of the cell with the grade id."""
    for cell in notebook.cells:
        if grade_id(cell) == name:
            cell.source = source


def place_of(notebook, name):
    """Return the index of the cell with the grade id."""
    return next(i for i, c in enumerate(notebook.cells) if grade_id(c) == name)


def good(root):
    """Return the instructor's solution, to be spoiled."""
    return nbformat.read(root / "solution" / "bellman" / "bellman.ipynb", as_version=4)


def drop(notebook, *names):
    """Delete cells by grade id."""
    notebook.cells = [c for c in notebook.cells if grade_id(c) not in names]


def first_cell(source):
    """Return a change that puts a cell of the student's own before everything."""
    return lambda nb: nb.cells.insert(0, nbformat.v4.new_code_cell(source))


def instead(name, source):
    """Return a change that replaces an answer."""
    return lambda nb: edit(nb, name, source)


def split(notebook):
    """Split the answer to question 2 into two cells with the same metadata, as the editor does."""
    at = place_of(notebook, "soft-answer")
    cell = notebook.cells[at]
    second = nbformat.v4.new_code_cell("", metadata=dict(cell.metadata))
    first = nbformat.v4.new_code_cell(cell.source, metadata=dict(cell.metadata))
    second.source = "helper = 1"
    notebook.cells[at : at + 1] = [first, second]


def retype(notebook):
    """Make a test a text, and an answer too."""
    for cell in notebook.cells:
        if grade_id(cell) in ("soft-test", "setup"):
            cell.cell_type = "markdown"
            cell.pop("outputs", None)
            cell.pop("execution_count", None)


def retyped(notebook):
    """Type right answers in as other people would."""
    for name, pattern, form in (
        ("predict-answer", r"^(sweeps_for_ever) = (\d+) .*\n^(sweeps_with_an_end) = (\d+) .*$", r"\3, \1 = \4, (+\2)"),
        ("long-answer", r"^(farthest_at) = (\d+) .*$", r"\1: int = \2 * 10 / 10  # read\nprint(\1)"),
        ("why-answer", r"^why = .*$", "why = 'b'"),
    ):
        cell = notebook.cells[place_of(notebook, name)]
        cell.source, count = re.subn(pattern, form, cell.source, flags=re.M)
        assert count, name


def rerun(notebook):
    """Compute in the answers what is right, instead of typing it in; the values are the same."""
    for name, line in (
        ("predict-answer", "sweeps_with_an_end = int(sweeps_with_an_end)"),
        ("why-answer", "letter = why\nwhy = letter"),
        ("bug-where", "where = [*where]"),
        ("long-answer", "globals()['found'] = farthest_at\nfarthest_at = found"),
    ):
        notebook.cells[place_of(notebook, name)].source += f"\n{line}"


def predicted(notebook, student):
    """Return the right predictions of a student, typed in."""
    marking.load()
    numbers = grading.own_numbers(student, marking.handed_out(notebook))
    given = [numbers[name] for name in ("gamma", "end", "factor")]
    right = {name: grading.find(f"bellman-{name.replace('_', '-')}").right(*given) for name in PREDICTIONS}
    return "".join(f"{name} = {value}\n" for name, value in right.items())


PREDICTIONS = ("sweeps_for_ever", "sweeps_with_an_end")

HUNT = """
import os, gc, glob, sys
words = []
for top in ("/", {root!r}, {repo!r}):
    for folder, _, files in os.walk(top):
        if folder.startswith(("/proc", "/sys", "/usr", "/lib")) or "site-packages" in folder:
            continue
        for file in files:
            if file.endswith((".ipynb", ".db", ".txt", ".py", ".csv", ".json")):
                try:
                    text = open(os.path.join(folder, file), errors="replace").read()
                except OSError:
                    continue
                if "bellman-soft" + "-backup" in text or "HIDDEN" + " TESTS" in text:
                    words.append(os.path.join(folder, file))
loaded = [m for m in sys.modules if m in ("marking", "questions", "nbgrader")]
print("FOUND", len(words) + len(loaded), words[:3], loaded)
def soft_backup(Q, mdp, tau):
    return Q
"""

FULL = {
    "soft-test": 6,
    "sweep-test": 5,
    "predict-test": 4,
    "why-test": 2,
    "bug-test": 7,
    "bug-where-test": 4,
    "long-test": 2,
}
NO_SOFT = FULL | {"soft-test": 0}
SOFT = "def soft_backup(Q, mdp, tau):\n    "

ADVERSARIES = {
    "good": (lambda nb: None, FULL),
    "retyped_answers": (retyped, FULL),
    "rerun": (rerun, FULL | {"predict-test": 2, "why-test": 0, "bug-where-test": 0, "long-test": 0}),
    "loop_call": (instead("soft-answer", SOFT + "while True: pass"), NO_SOFT),
    "loop_stubborn": (
        instead(
            "soft-answer",
            SOFT + "while True:\n        try:\n            while True: pass\n        except BaseException: pass",
        ),
        NO_SOFT,
    ),
    "loop_cell": (instead("soft-answer", "while True: pass"), NO_SOFT),
    "fork": (first_cell("import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(1000)"), FULL),
    "thread": (
        first_cell(
            "import threading\ndef spin():\n    while True: pass\nthreading.Thread(target=spin, daemon=True).start()"
        ),
        FULL,
    ),
    "memory": (instead("soft-answer", "hog = []\nwhile True:\n    hog.append(bytearray(10**8))"), NO_SOFT),
    "syntax": (instead("soft-answer", SOFT + "return ]"), NO_SOFT),
    "deleted_test": (lambda nb: drop(nb, "soft-test", "bug-test"), FULL),
    "deleted_setup": (lambda nb: drop(nb, "setup", "parameters"), FULL),
    "deleted_answer": (lambda nb: drop(nb, "soft-answer"), NO_SOFT),
    "split": (split, FULL),
    "retyped": (retype, FULL),
    "tampered": (
        lambda nb: (edit(nb, "soft-answer", SOFT + "return Q"), edit(nb, "soft-test", "6.0")),
        NO_SOFT,
    ),
    "fake_test": (
        lambda nb: (
            edit(nb, "soft-answer", SOFT + "return Q"),
            nb.cells.append(
                nbformat.v4.new_code_cell("6.0", metadata=dict(nb.cells[place_of(nb, "bug-test")].metadata))
            ),
        ),
        NO_SOFT,
    ),
    "hard_coded": (instead("soft-answer", "def soft_backup(Q, mdp, tau):\n    return np.zeros((4, 3))"), NO_SOFT),
    "overwrite_check": (
        lambda nb: edit(
            nb,
            "soft-answer",
            "from types import SimpleNamespace\n"
            "from divergence_notes.grading import checking\n"
            "checking.check = grading.check = lambda *a, **k: SimpleNamespace(share=1.0, passed=True)\n"
            "mark = lambda *a, **k: 6.0\n" + SOFT + "return Q",
        ),
        NO_SOFT,
    ),
    "equal_to_all": (
        instead(
            "soft-answer",
            "class Yes(np.ndarray):\n    def __sub__(self, other): return np.zeros(self.shape)\n"
            + SOFT
            + "return np.zeros(Q.shape).view(Yes)",
        ),
        NO_SOFT,
    ),
    "asserts": (instead("soft-answer", SOFT + "assert tau > 100, 'too cold'"), NO_SOFT),
    "exit": (instead("soft-answer", "import sys\nsys.exit(0)"), NO_SOFT),
    "hard_exit": (instead("soft-answer", "import os\nos._exit(0)"), NO_SOFT),
    "exit_call": (instead("soft-answer", SOFT + "import os; os._exit(0)"), NO_SOFT),
    "output": (first_cell("for _ in range(1000):\n    print('x' * 100_000)"), FULL),
    "raw_output": (first_cell("import os\nfor _ in range(1000):\n    os.write(1, b'x' * 100_000)"), FULL),
    "counts_calls": (
        instead(
            "bug-answer",
            "calls = []\ndef test(implementation):\n"
            "    calls.append(implementation(Q, mdp, 0.5))\n    assert len(calls) <= 4",
        ),
        FULL | {"bug-test": 0},
    ),
    "always_fails": (instead("bug-answer", "def test(implementation):\n    assert False"), FULL | {"bug-test": 0}),
    "widget": (
        lambda nb: nb.metadata.update(widgets={"application/vnd.jupyter.widget-state+json": {"version_major": 2}}),
        FULL,
    ),
    "no_marks": (lambda nb: [cell.metadata.clear() for cell in nb.cells], FULL),
    "below": (
        lambda nb: (
            edit(nb, "derive-answer", STUB),
            nb.cells.insert(place_of(nb, "derive-answer") + 1, nbformat.v4.new_markdown_cell("Let $a < b$ ...")),
        ),
        FULL,
    ),
}


UNREADABLE = {
    "not_json": "its JSON stops making sense in line 1",
    "empty": "is empty",
    "future": "is of format 5",
    "folder": "is a folder",
    "link": "is a link",
}


# --- what would run where a person reads it

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
    answer = notebook.cells[place_of(notebook, "derive-answer")]
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


SMUGGLERS = ("smuggler", "control", "honest", img("student").replace("/", ""))
"""The last one handed in past `collect`, as an exchange would let it: its name is no name."""
OTHERS = ("instructor", "untouched", "hunter", "utf16")


def hand_in(root, release, inbox, names):
    """Hand in the solution and the untouched edition of these assignments."""
    for name in names:
        (inbox / name).mkdir(parents=True)
        shutil.copy(root / "solution" / name / f"{name}.ipynb", inbox / name / "instructor.ipynb")
        shutil.copy(release / name / f"{name}.ipynb", inbox / name / "untouched.ipynb")
        assert grade.collect(root, name, inbox / name) == {}


def hand_in_trouble(root, release, first):
    """Hand in, of the first assignment, what means harm, what cannot be read, and what is honest and odd."""
    first.mkdir()
    for student, (spoil, _) in ADVERSARIES.items():
        notebook = good(root)
        spoil(notebook)
        nbformat.write(notebook, first / f"{student}.ipynb")
    hunter = good(root)
    edit(hunter, "soft-answer", HUNT.format(root=str(root), repo=str(pages.ROOT)))
    nbformat.write(hunter, first / "hunter.ipynb")
    (first / "not_json.ipynb").write_text("{ this is no notebook", encoding="utf-8")
    (first / "empty.ipynb").write_text("", encoding="utf-8")
    (first / "future.ipynb").write_text(json.dumps(good(root) | {"nbformat": 5}), encoding="utf-8")
    (first / "utf16.ipynb").write_text(nbformat.writes(good(root)).replace("\n", "\r\n"), encoding="utf-16")
    trouble = smuggler(nbformat.read(release / "bellman" / "bellman.ipynb", as_version=4))
    for student in ("smuggler", "control"):
        (first / f"{student}.ipynb").write_text(nbformat.writes(trouble), encoding="utf-8")
    honest = good(root)
    answer = honest.cells[place_of(honest, "derive-answer")]
    answer.source, answer.attachments = HONEST, HONEST_ATTACHED
    (first / "honest.ipynb").write_text(nbformat.writes(honest), encoding="utf-8")
    (first / "<img src=x onerror=1>.ipynb").write_text(nbformat.writes(honest), encoding="utf-8")
    assert list(grade.collect(root, "bellman", first)) == ["<img src=x onerror=1>.ipynb"]
    for student in ("folder", "link", SMUGGLERS[-1]):
        (root / "submitted" / student / "bellman").mkdir(parents=True)
    (root / "submitted" / "folder" / "bellman" / "bellman.ipynb").mkdir()
    (root / "submitted" / "link" / "bellman" / "bellman.ipynb").symlink_to(root / "solution/bellman/bellman.ipynb")
    shutil.copy(first / "honest.ipynb", root / "submitted" / SMUGGLERS[-1] / "bellman" / "bellman.ipynb")
    (root / "submitted" / "smuggler" / "bellman" / "evil.html").write_text(SMUGGLED["script"])
