"""A Sphinx extension: from a docstring to the equation it names, and from code in prose to its entry in the API pages.

In docstrings, a label of the book in double backticks, such as ``eq-kernel``, becomes a reference; a label that is not
in the book makes a warning, and with it the build fail. On every page, inline code that names something in the API
pages becomes a link: ``bellman.value_iteration`` anywhere but in titles, the bare name within docstrings of its module.
"""

import re

import sphinx_codeautolink.extension
from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode
from sphinx_codeautolink.extension.block import CodeBlockAnalyser

PACKAGE = "divergence_notes"
LABEL = re.compile(r"(?:\b(Labels?) +)?``((eq|thm|alg|ch|sec|fig)-[a-z0-9]+(?:-[a-z0-9]+)*)``")
ROLES = {"eq": "eq", "thm": "prf:ref", "alg": "prf:ref"}
NAME = re.compile(r"(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:\(.*\)|\[.*\])?[\w.\[\]()]*", re.S)
INSTANCES = {"agent": "preqn.PreQN", "mdp": "mdp.FiniteMDP", "trajectory": "dynamics.Trajectory"}


def with_references(text):
    """Return a line of a docstring with its labels turned into references.

    >>> with_references("Label ``eq-kernel``; ``alpha`` is the step size.")
    'Equation :eq:`eq-kernel`; ``alpha`` is the step size.'
    """

    def reference(found):
        word, label, kind = found.groups()
        before = {"Label": "Equation ", "Labels": "Equations "}.get(word, "") if kind == "eq" else ""
        return f"{before}:{ROLES.get(kind, 'ref')}:`{label}`"

    return LABEL.sub(reference, text)


def link_labels(app, what, name, obj, options, lines):
    """Handle autodoc-process-docstring."""
    lines[:] = [with_references(line) for line in lines]


def candidates(code, scope, parameters):
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


class LinkCode(SphinxPostTransform):
    """Link inline code to the API entry that it names."""

    default_priority = 5  # before references are resolved

    def run(self, **kwargs):
        """Handle one page."""
        objects = self.env.domains["py"].objects
        classes = {name.rpartition(".")[2]: name for name, entry in objects.items() if entry.objtype == "class"}
        for literal in list(self.document.findall(nodes.literal)):
            if within(literal, nodes.title, nodes.reference, addnodes.pending_xref, addnodes.desc_signature):
                continue
            code = literal.astext()
            named = candidates(code, *surroundings(literal))
            target = next((name for name in named if name in objects), classes.get(code))
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
    """The reader of code cells, also where a section has no title, as sphinx-proof and sphinx-exercise make them."""

    def depart_section(self, node):
        """Forget the title, if there was one."""
        if any(isinstance(child, nodes.title) for child in node):
            super().depart_section(node)


def setup(app):
    """Register the extension."""
    sphinx_codeautolink.extension.CodeBlockAnalyser = Analyser
    app.connect("autodoc-process-docstring", link_labels)
    app.add_post_transform(LinkCode)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
