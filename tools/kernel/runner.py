"""Runs the cells of a page in the browser of a reader: what a kernel and a front end do for a notebook, and no more.

It knows nothing of the page: what there is to show goes as JSON to `Runner.send`. It runs in any Python, so that its
tests need no browser.
"""

import ast
import base64
import builtins
import dataclasses
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import io
import json
import linecache
import struct
import sys
import time
import tokenize
import traceback
import types
import zipfile

LONGEST = 100_000
"""Characters that a cell may print: nobody reads more, and a page that must show more stands still."""
AT_ONCE, PAUSE = 100, 0.1
"""So many pieces of what a cell prints are sent as they come; the others together, after so many seconds."""
CUT = f"\n… cut after {LONGEST:,} characters; what is printed after that is not shown\n"
LARGEST, WIDEST = 5_000_000, 2000
"""The letters that a figure may have; one of more, as of a million points, is sent as pixels, so many to a side."""


class Printed:
    """What a cell prints, in the order in which it comes, in pieces that a page can follow."""

    def __init__(self, tell):
        self._tell = tell
        self._kind, self._waiting = "out", []
        self._left, self._sent, self._last = LONGEST, 0, 0.0

    def write(self, kind, text):
        if not text or self._left < 0:
            return
        if kind != self._kind:
            self.send()
        self._kind = kind
        self._waiting.append(text[: self._left] + (CUT if len(text) > self._left else ""))
        self._left -= len(text)
        if self._sent < AT_ONCE or self._left < 0 or time.monotonic() - self._last > PAUSE:
            self.send()

    def send(self):
        if self._waiting:
            self._tell(self._kind, "".join(self._waiting))
            self._waiting.clear()
            self._sent += 1
            self._last = time.monotonic()


class Stream(io.TextIOBase):
    """Where prints go."""

    def __init__(self, write):
        self._write = write

    def writable(self):
        return True

    def write(self, text):
        self._write(text)
        return len(text)


def no_input(prompt=""):
    """Say why nobody answers, in place of `input`."""
    raise RuntimeError("a page has no line to type into: write the value into the code, in place of input()")


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


def pixels(figure):
    """Return a figure as an SVG that holds nothing but a PNG."""
    data, sides = io.BytesIO(), figure.get_size_inches()
    figure.savefig(data, format="png", bbox_inches="tight", dpi=min(200, WIDEST / max(sides)))
    width, height = struct.unpack(">II", data.getvalue()[16:24])  # where a PNG says how large it is
    scale = 72 * max(sides) / max(width, height)
    size = f'width="{scale * width:.0f}pt" height="{scale * height:.0f}pt"'
    image = f'<image {size} href="data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{image}</svg>'


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
        self._printed = Printed(self._tell)
        self._given = {"__builtins__": builtins, "display": self.display, "input": no_input}
        self.main = types.ModuleType("__main__")
        self.main.__dict__.update(self._given)

    def install(self):
        """Make the namespace the main module, and put stubs where a browser has no module."""
        sys.modules["__main__"] = self.main
        sys.modules.update(stubs(self.display))

    @staticmethod
    def bring(catalogue, place, fetch):
        """Bring packages when they are imported; `catalogue` is a JSON text. See `OnDemand`."""
        sys.meta_path.append(OnDemand(json.loads(catalogue), place, fetch))

    def say(self, kind, data):
        """Tell the page something, after what was printed before."""
        self._printed.send()
        self._tell(kind, data)

    def _tell(self, kind, data):
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
        drawn = text.getvalue()
        self.say("svg", drawn[drawn.index("<svg") :] if len(drawn) <= LARGEST else pixels(figure))

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
            text = repr(value)
            self.say("text", text if len(text) <= LONGEST else text[:LONGEST] + CUT)

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
            space = {"__name__": "__main__", **self._given}
        file = f"<{name}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        before = sys.stdout, sys.stderr
        printed = self._printed = Printed(self._tell)
        sys.stdout = Stream(lambda text: printed.write("out", text))
        sys.stderr = Stream(lambda text: printed.write("err", text))
        try:
            self._run(source, file, space, hidden)
            self.figures()
        except BaseException as error:  # SystemExit too: there is no process that it could end
            self.say("error", self._told(error, file))
            if "matplotlib.pyplot" in sys.modules:  # else the next cell would show a figure that is half drawn
                sys.modules["matplotlib.pyplot"].close("all")
            return False
        finally:
            printed.send()
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
        if isinstance(error, ModuleNotFoundError):
            error.msg = f"No module named {error.name!r} here. What a page cannot import runs in JupyterLab or Colab"
        if isinstance(error, SystemExit):
            error = SystemExit("the cell ended here, and Python runs on").with_traceback(error.__traceback__)
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
