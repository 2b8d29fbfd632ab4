"""What a student wrote, as something that a person can look at: text, formulas, code, pictures, and nothing that runs.

The formgrader puts Markdown on a page of its own address, with the rights of whoever grades. So each cell is rendered
as nbconvert will render it, and bleach says whether anything in the outcome had to go. If so, it is shown as text.
"""

import re

import nbformat
from bleach import Cleaner, html5lib_shim
from bleach.css_sanitizer import CSSSanitizer
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbgrader.preprocessors import NbGraderPreprocessor

from grader.preprocessors import grade_id, source_path

LONGEST = 100_000
"""Characters of a cell that are shown."""
TAGS = set("a abbr b blockquote br code dd del div dl dt em h1 h2 h3 h4 h5 h6 hr i img kbd li ol p pre s".split())
TAGS |= set("small span strong sub sup table tbody td th thead tr u ul".split())
PICTURE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]*")
KINDS = ("image/png", "image/jpeg", "image/gif", "image/webp")
LINK = re.compile(r"(https?://|mailto:|#)", re.I)
STYLE = re.compile(r"\s*text-align:\s*(left|right|center);?\s*")
WORD = re.compile(
    r"highlight|anchor-link|lang(uage)?-\w+|[a-z]{1,2}\d?|err|cpf|esc"
)  # what nbconvert and pygments write
COMMANDS = re.compile(
    r"\\\s*(href|url|style|class|cssId|data|require|html\w*|bbox|mmlToken|includegraphics|unicode|texttip|toggle)\b"
)
"""Commands of MathJax that make links, load things, or write attributes."""
PAGE = ("notebook", "statusmessage", "nbgrader")
AS_TEXT = "*Shown as it was typed, because it holds links, pictures or commands that are not shown here.*"


def readable(source, attachments=None, taken=()):
    """Return Markdown that shows what there is to read and cannot do anything.

    Parameters
    ----------
    source : str
        What was written.
    attachments : dict, optional
        The pictures of the cell, by name and kind.
    taken : collection of str
        Names that the page needs for itself; no heading may have one, or one that begins with it.

    Returns
    -------
    str
        The same, where that is harmless; else with its tags or its links as text; else all of it as text.
    """
    if len(source) > LONGEST:
        source = source[:LONGEST] + f"\n\n[{len(source) - LONGEST} more characters]"
    tags = re.compile(r"<(?=[A-Za-z/!?])"), "&lt;"
    links = re.compile(r"\]\((?!\s*(https?://|mailto:|#|data:image/(png|jpeg|gif|webp);))"), "]&#40;"
    for spoken in ((), (tags,), (links,), (tags, links)):
        tried = source
        for what, instead in spoken:
            tried = what.sub(instead, tried)
        if harmless(tried, attachments, taken):
            return tried
    return as_text(source)


def as_text(source):
    """Return Markdown that shows the source as it was typed."""
    longest = max(map(len, re.findall(r"[`~]+", source)), default=0)
    fence = "`" * max(longest + 1, 3)
    return f"{AS_TEXT}\n\n{fence}\n{source}\n{fence}"


def harmless(source, attachments=None, taken=()):
    """Say whether bleach would leave everything in the page of a cell as it is."""
    try:
        renderer = IPythonRenderer(escape=False, attachments=attachments or {})
        page = MarkdownWithMath(renderer=renderer).render(source)
        cleaned = _cleaner(tuple(taken)).clean(page)
        # In its box: what closes the box, or leaves it open, differs too.
        trees = [_tree(f"<div>{part}</div><p>after</p>") for part in (page, cleaned)]
    except Exception:  # what cannot be rendered here cannot be rendered for the grader
        return False
    return trees[0] == trees[1] and not COMMANDS.search("".join(_texts(trees[0])))


def _cleaner(taken):
    def allowed(tag, name, value):
        if name == "class":
            return all(map(WORD.fullmatch, value.split()))
        if name == "id":
            return re.fullmatch("h[1-6]", tag) is not None and not value.lower().startswith(taken)
        if name == "style":
            return tag in ("td", "th") and STYLE.fullmatch(value) is not None
        if (tag, name) == ("a", "href"):
            return LINK.match(value) is not None
        if (tag, name) == ("img", "src"):
            return PICTURE.fullmatch(value) is not None
        return name in ("alt", "title")

    css = CSSSanitizer(allowed_css_properties=["text-align"])
    return Cleaner(TAGS, allowed, {"http", "https", "mailto", "data"}, css_sanitizer=css)


def _tree(page):
    """Return what a browser makes of a page, as nested tuples."""

    def tuples(node):
        attributes = {key: re.sub(r"[\s;]", "", v) if key == "style" else v for key, v in node.attrib.items()}
        return (node.tag, tuple(sorted(attributes.items())), node.text, tuple(map(tuples, node)), node.tail)

    return tuples(html5lib_shim.HTMLParser(namespaceHTMLElements=False).parseFragment(page))


def _texts(tree):
    """Yield the texts in which MathJax looks for formulas."""
    tag, _, text, inside, tail = tree
    if tag not in ("pre", "code"):
        yield text or ""
        for node in inside:
            yield from _texts(node)
    yield tail or ""


class ForReading(NbGraderPreprocessor):
    """Make all of a student's cells something to read; outputs are made later, of text and pictures."""

    def preprocess(self, nb, resources):
        """Clean the cells and the metadata."""
        source = nbformat.read(source_path(resources), as_version=4)
        ours = {cell.source for cell in source.cells}
        taken = (*PAGE, *(name.lower() for name in map(grade_id, source.cells) if name))
        for cell in nb.cells:
            given = cell.pop("attachments", None)
            attached = {name: pictures for name, pictures in _pictures(given) if f"attachment:{name}" in cell.source}
            if cell.cell_type == "markdown" and not attached and cell.source in ours:
                pass  # the question; its links lead to the chapter
            elif cell.cell_type == "markdown":
                cell.source = readable(cell.source, attached, taken)
                if attached:
                    cell.attachments = attached
            elif cell.cell_type != "code":
                cell.cell_type, cell.source = "markdown", as_text(cell.source[:LONGEST])
            kept = cell.metadata.get("nbgrader")
            cell.metadata = nbformat.from_dict({} if kept is None else {"nbgrader": kept})
        known = {key: source.metadata[key] for key in ("kernelspec", "language_info") if key in source.metadata}
        notes = nb.metadata.get("notes", [])
        nb.metadata = nbformat.from_dict(known | {"notes": notes})
        return nb, resources


def _pictures(attachments):
    """Yield the attachments that are pictures, by name."""
    for name, parts in attachments.items() if isinstance(attachments, dict) else ():
        kept = {kind: data for kind, data in parts.items() if kind in KINDS} if isinstance(parts, dict) else {}
        if kept and all(PICTURE.fullmatch(f"data:{kind};base64,{data}") for kind, data in kept.items()):
            yield name, kept
