"""A Sphinx extension: from a docstring to the equation it names, and from code in prose to its entry in the API pages.

In docstrings, a label of the book in double backticks, such as ``eq-kernel``, becomes a reference; a label that is not
in the book makes a warning, and with it the build fail. On every page, inline code that names something in the API
pages becomes a link: ``bellman.value_iteration`` anywhere but in titles, a bare name where it can mean one thing only
(a class, or a name with an underscore) and within docstrings of its own module. Code cells are sphinx-codeautolink's.
"""

import dataclasses
import json
import re

import sphinx_codeautolink.extension
from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode
from sphinx_codeautolink.extension import SphinxCodeAutoLink
from sphinx_codeautolink.extension.backref import CodeExample
from sphinx_codeautolink.extension.block import CodeBlockAnalyser, SourceTransform
from sphinx_codeautolink.extension.cache import DataCache
from sphinx_codeautolink.parse import Name

PACKAGE = "divergence_notes"
LABEL = re.compile(r"(?:\b(Labels?) +)?``((eq|thm|alg|ch|sec|fig)-[a-z0-9]+(?:-[a-z0-9]+)*)``")
ROLES = {"eq": "eq", "thm": "prf:ref", "alg": "prf:ref"}
NAME = re.compile(r"(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:\(.*\)|\[.*\])?[\w.\[\]()]*", re.S)
INSTANCES = {"agent": "preqn.PreQN", "mdp": "mdp.FiniteMDP", "trajectory": "dynamics.Trajectory"}


def with_references(text):
    """Return a line of a docstring with its labels turned into references."""

    def reference(found):
        word, label, kind = found.groups()
        before = {"Label": "Equation ", "Labels": "Equations "}.get(word, "") if kind == "eq" else ""
        return f"{before}:{ROLES.get(kind, 'ref')}:`{label}`"

    return LABEL.sub(reference, text)


def link_labels(app, what, name, obj, options, lines):
    """Handle autodoc-process-docstring."""
    lines[:] = [with_references(line) for line in lines]


def short_signature(app, what, name, obj, options, signature, returns):
    """Handle autodoc-process-signature: where the fields of a class are listed below it, do not list them twice."""
    fields = dataclasses.is_dataclass(obj) or hasattr(obj, "_fields")
    return ("", None) if what == "class" and fields and "Parameters\n" not in (obj.__doc__ or "") else None


def unique_names(objects):
    """Return the full names of the entries that prose may call by their last part alone, by that part."""
    found = {}
    for name, entry in objects.items():
        short = name.rpartition(".")[2]
        if entry.objtype == "class" or ("_" in short and entry.objtype in ("function", "module")):
            found.setdefault(short, []).append(name)
    return {short: names[0] for short, names in found.items() if len(names) == 1}


def candidates(code, scope=(), parameters=()):
    """Yield the full names that a piece of inline code may stand for, the most likely first."""
    found = NAME.fullmatch(code)
    if not found:
        return
    name = found["name"]
    first, _, rest = name.partition(".")
    if first not in parameters:
        for depth in range(len(scope), 0, -1):
            yield ".".join([*scope[:depth], name])
    if first in INSTANCES and rest:
        yield f"{PACKAGE}.{INSTANCES[first]}.{rest}"
    if rest:
        yield f"{PACKAGE}.{name}"
        yield name
    if first in INSTANCES and rest:
        yield f"{PACKAGE}.{INSTANCES[first]}"


class LinkCode(SphinxPostTransform):
    """Link inline code to the API entry that it names."""

    default_priority = 5  # before references are resolved

    def run(self, **kwargs):
        """Handle one page."""
        objects = self.env.domains["py"].objects
        unique = unique_names(objects)
        for literal in list(self.document.findall(nodes.literal)):
            if within(literal, nodes.title, nodes.reference, addnodes.pending_xref, addnodes.desc_signature):
                continue
            code = literal.astext()
            scope, parameters = surroundings(literal)
            target = next((name for name in candidates(code, scope, parameters) if name in objects), None)
            if not target and code not in parameters:
                target = unique.get(code)
            if target:
                entry = objects[target]
                anchor = make_refnode(self.app.builder, self.env.docname, entry.docname, entry.node_id, [], target)
                anchor["classes"].append("api-link")
                literal.replace_self(anchor)
                anchor += literal


def within(node, *kinds):
    """Say whether a node stands in one of these kinds."""
    while node := node.parent:
        if isinstance(node, kinds):
            return True
    return False


def surroundings(node):
    """Return the dotted scope of the docstring in which a node stands, and the parameters of all around it."""
    scope, parameters = [], set()
    while node := node.parent:
        if isinstance(node, addnodes.desc) and isinstance(node[0], addnodes.desc_signature):
            signature = node[0]
            scope = scope or [*signature["module"].split("."), *signature["fullname"].split(".")]
            for parameter in signature.findall(addnodes.desc_parameter):
                parameters.add(re.sub(r"\W.*", "", parameter.astext().lstrip("*"), flags=re.S))
    return scope, parameters


class Analyser(CodeBlockAnalyser):
    """The reader of code cells, also where a section has no title, as sphinx-proof and sphinx-exercise make them.

    Not reported to sphinx-codeautolink, as far as we looked on 2026-11-29.
    """

    def depart_section(self, node):
        """Forget the title, if there was one."""
        if any(isinstance(child, nodes.title) for child in node):
            super().depart_section(node)


class Cache(DataCache):
    """What is known of pages that are not read again, whatever the ending of their source."""

    def read(self):
        """Read what the last build wrote."""
        path = self.cache_dir / self.cache_filename
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        for page, cells in known.items():
            self.transforms[page] = [
                SourceTransform(
                    cell["source"],
                    [Name(**name) for name in cell["names"]],
                    CodeExample(**cell["example"]),
                    cell["doc_lineno"],
                )
                for cell in cells
            ]


class LinkCells(SphinxCodeAutoLink):
    """Link the cells of every page that was written, also of one that was read in an earlier build.

    sphinx-codeautolink links those that were read: felix-hilden/sphinx-codeautolink#181, open.
    """

    def build_inited(self, app):
        """Start with no page written."""
        super().build_inited(app)
        self.outdated_docs = set()
        app.connect("html-page-context", self.note_page)

    def note_page(self, app, pagename, templatename, context, doctree):
        """Remember a page that is written."""
        if doctree is not None:
            self.outdated_docs.add(pagename)


def setup(app):
    """Register the extension, and sphinx-codeautolink with it."""
    sphinx_codeautolink.extension.CodeBlockAnalyser = Analyser
    sphinx_codeautolink.extension.DataCache = Cache
    sphinx_codeautolink.SphinxCodeAutoLink = LinkCells
    app.setup_extension("sphinx_codeautolink")
    app.connect("autodoc-process-docstring", link_labels)
    app.connect("autodoc-process-signature", short_signature)
    app.add_post_transform(LinkCode)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
