"""Runs the cells of a page in the browser of a reader: what a kernel and a front end do for a notebook, and no more.

It knows nothing of the page: what there is to show goes as JSON to `Runner.send`. It runs in any Python, so that its
tests need no browser.
"""

import ast
import builtins
import dataclasses
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import io
import json
import linecache
import sys
import tokenize
import traceback
import types
import zipfile


class Stream(io.TextIOBase):
    """Where prints go: each becomes a message."""

    def __init__(self, write):
        self._write = write

    def writable(self):
        return True

    def write(self, text):
        if text:
            self._write(text)
        return len(text)


class WithoutAsserts(ast.NodeTransformer):
    """Takes the checks out of a hidden cell.

    They look after what the text says. A reader who changes a number does not see them and should not fail them.
    """

    def visit_Assert(self, node):
        return ast.copy_location(ast.Pass(), node)


def stubs(display):
    """Return the modules that a browser has not, of which other packages use no more than a few names.

    ipywidgets asks IPython for a shell and for `display`; gymnasium imports the locks of multiprocessing and never uses
    them here.
    """

    class InteractiveShell:
        @staticmethod
        def initialized():
            return False

    class HTML:
        def __init__(self, data=""):
            self.data = data

        def _repr_html_(self):
            return self.data

    members = {
        "IPython": {"get_ipython": lambda: None, "version_info": (9, 0), "__version__": "9.0"},
        "IPython.core": {},
        "IPython.core.getipython": {"get_ipython": lambda: None},
        "IPython.core.interactiveshell": {"InteractiveShell": InteractiveShell},
        "IPython.display": {"display": display, "clear_output": lambda wait=False: None, "HTML": HTML},
        "_multiprocessing": {"SemLock": type("SemLock", (), {"SEM_VALUE_MAX": 1}), "sem_unlink": lambda name: None},
    }
    made = {}
    for name, names in members.items():
        made[name] = types.ModuleType(name)
        made[name].__dict__.update(names, __path__=[])
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(made[parent], last, made[name])
    return made


class OnDemand(importlib.abc.MetaPathFinder):
    """Brings a package when it is imported, and what that imports in its turn likewise.

    Parameters
    ----------
    catalogue : mapping
        From what is imported to a wheel and its sha256.
    place : str
        A folder on ``sys.path``.
    fetch : callable
        Takes the name of a wheel and returns its bytes.
    """

    def __init__(self, catalogue, place, fetch):
        self._catalogue, self._place, self._fetch = dict(catalogue), place, fetch

    def find_spec(self, name, path=None, target=None):
        if path is not None or name not in self._catalogue:
            return None
        file, expected = self._catalogue.pop(name)
        data = self._fetch(file)
        found = hashlib.sha256(data).hexdigest()
        if found != expected:
            raise ImportError(f"{file} is not what it should be: its sha256 must be {expected}, found {found}")
        with zipfile.ZipFile(io.BytesIO(data)) as wheel:
            wheel.extractall(self._place)
        importlib.invalidate_caches()
        return importlib.machinery.PathFinder.find_spec(name)


def verdict(value):
    """Return what a `grading.Result` says, or None for anything else."""
    grading = sys.modules.get("divergence_notes.grading.exercise")
    if grading is None or not isinstance(value, grading.Result):
        return None
    said = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    kept = ("name", "passed", "open", "judged", "diagnosis", "share", "message")
    return {name: said[name] for name in kept} | {"text": repr(value)}


class Runner:
    """Runs cells, one after the other, in one namespace.

    Parameters
    ----------
    send : callable
        Takes a JSON text, an object with `type` and `data`: `out` and `err` (a piece of a stream), `text` (what the
        last expression is), `html`, `svg` (a figure), `widget` (state and views), `verdict` (of a check), `error`.
    """

    def __init__(self, send):
        self._send = send
        self.main = types.ModuleType("__main__")
        self.main.__dict__.update(__builtins__=builtins, display=self.display)

    def install(self):
        """Make the namespace the main module, and put stubs where a browser has no module."""
        sys.modules["__main__"] = self.main
        sys.modules.update(stubs(self.display))

    @staticmethod
    def bring(catalogue, place, fetch):
        """Bring packages when they are imported; `catalogue` is a JSON text. See `OnDemand`."""
        sys.meta_path.append(OnDemand(json.loads(catalogue), place, fetch))

    def say(self, kind, data):
        self._send(json.dumps({"type": kind, "data": data}))

    def figures(self):
        """Show the figures that are open, as a notebook does at the end of a cell."""
        if "matplotlib.pyplot" not in sys.modules:
            return
        plt = sys.modules["matplotlib.pyplot"]
        for number in plt.get_fignums():
            self.figure(plt.figure(number))
        plt.close("all")

    def figure(self, figure):
        """Show a figure, without the date, so that the same figure is the same text."""
        text = io.StringIO()
        figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
        self.say("svg", text.getvalue()[text.getvalue().index("<svg") :])

    def display(self, *values, **_):
        """Show values, each in the richest form that it has."""
        for value in values:
            self._display(value)

    def _display(self, value):
        widgets, plt = sys.modules.get("ipywidgets"), sys.modules.get("matplotlib.figure")
        if value is None:
            return
        if said := verdict(value):
            self.say("verdict", said)
        elif widgets and isinstance(value, widgets.Widget):
            from ipywidgets.embed import embed_data

            self.say("widget", embed_data(views=[value]))
        elif plt and isinstance(value, plt.Figure):
            self.figure(value)
            sys.modules["matplotlib.pyplot"].close(value)
        elif html := self._html(value):
            self.say("html", html)
        else:
            self.say("text", repr(value))

    @staticmethod
    def _html(value):
        if isinstance(value, type):
            return None
        if callable(made := getattr(value, "_repr_html_", None)):
            return made()
        if not callable(made := getattr(value, "_repr_mimebundle_", None)):
            return None
        bundle = made()
        return (bundle[0] if isinstance(bundle, tuple) else bundle or {}).get("text/html")

    def run(self, source, name, *, hidden=False, fresh=False):
        """Run one cell.

        Parameters
        ----------
        source : str
            Python.
        name : str
            What tracebacks call the cell.
        hidden : bool
            Whether its checks are taken out.
        fresh : bool
            Whether it sees no name of the cells before it, and leaves none.

        Returns
        -------
        bool
            Whether nothing was raised.
        """
        space = self.main.__dict__
        if fresh:
            space = {"__name__": "__main__", "__builtins__": builtins, "display": self.display}
        file = f"<{name}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        before = sys.stdout, sys.stderr
        sys.stdout = Stream(lambda text: self.say("out", text))
        sys.stderr = Stream(lambda text: self.say("err", text))
        try:
            self._run(source, file, space, hidden)
            self.figures()
        except BaseException as error:  # SystemExit too: there is no process that it could end
            self.say("error", self._told(error, file))
            if "matplotlib.pyplot" in sys.modules:  # else the next cell would show a figure that is half drawn
                sys.modules["matplotlib.pyplot"].close("all")
            return False
        finally:
            sys.stdout, sys.stderr = before
        return True

    def _run(self, source, file, space, hidden):
        tree = ast.parse(source, file)
        if hidden:
            tree = WithoutAsserts().visit(tree)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr) and not ends_with_semicolon(source):
            last = ast.Expression(tree.body.pop().value)
        exec(compile(tree, file, "exec"), space)
        if last is not None:
            value = eval(compile(last, file, "eval"), space)
            if value is not None:
                space["_"] = value
            self.display(value)

    @staticmethod
    def _told(error, file):
        """Return the traceback of an error without the frames of this file, the error in one line, and the line."""
        told = traceback.TracebackException.from_exception(error)
        inner = told
        while inner is not None:
            inner.stack = traceback.StackSummary.from_list([f for f in inner.stack if f.filename != __file__])
            inner = inner.__cause__ or inner.__context__
        lines = [frame.lineno for frame in told.stack if frame.filename == file]
        if isinstance(error, SyntaxError) and error.filename == file:
            lines.append(error.lineno)
        short = "".join(told.format_exception_only()).strip().splitlines()[-1]
        return {"text": "".join(told.format()), "short": short, "line": lines[-1] if lines else None}


def ends_with_semicolon(source):
    """Say whether the last line of code ends with a semicolon, which keeps a notebook from showing it."""
    code = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER, tokenize.INDENT, tokenize.DEDENT)
    found = [each for each in tokenize.generate_tokens(io.StringIO(source).readline) if each.type not in code]
    return bool(found) and found[-1].string == ";"
