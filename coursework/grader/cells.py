"""Running one notebook cell in this process, and its outputs in the notebook's format: text and pictures only.

Both sides use it: the process of an answer for the student's cells, the grader for the tests. Which process a cell runs
in is decided in `preprocessors`.
"""

import io
import re
import signal
import sys
import time

from divergence_notes.grading import TimeLimit
from divergence_notes.grading.running import describe, too_long

LONGEST, MOST, LARGEST_PICTURE = 20_000, 50, 2_000_000


class Capped(io.TextIOBase):
    """A stream that keeps the first characters and forgets the rest."""

    def __init__(self):
        self.kept, self.size, self.lost = [], 0, 0

    def write(self, text):
        """Keep what fits."""
        room = max(LONGEST - self.size, 0)
        self.kept.append(text[:room])
        self.size += min(len(text), room)
        self.lost += max(len(text) - room, 0)
        return len(text)

    def text(self):
        """Return what was kept, and how much was not."""
        return "".join(self.kept) + (f"\n[{self.lost} more characters]\n" if self.lost else "")


def shell():
    """Return an interactive shell of IPython, without history and without a terminal."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    # Several start at once, and would want the same file.
    made = InteractiveShell.instance(config=Config({"HistoryAccessor": {"hist_file": ":memory:"}}))
    made.history_manager.enabled = False
    made.showtraceback = made.showsyntaxerror = made.showindentationerror = lambda *args, **kwargs: None
    return made


def run_cell(shell, source, *, time_limit):
    """Run a cell; return its outputs."""
    from IPython.core.displaypub import CapturingDisplayPublisher

    streams, shown = {"stdout": Capped(), "stderr": Capped()}, CapturingDisplayPublisher()
    start, used = time.monotonic(), time.process_time()

    def stop(*_):
        if too_long(time_limit, start, used):
            raise TimeLimit

    before = sys.stdout, sys.stderr, shell.display_pub, signal.signal(signal.SIGALRM, stop)
    sys.stdout, sys.stderr, shell.display_pub = streams["stdout"], streams["stderr"], shown
    error, values = None, []
    shell.display_trap.hook = values.append
    try:
        signal.setitimer(signal.ITIMER_REAL, time_limit, 0.5)  # again and again: a bare ``except:`` swallows some
        done = shell.run_cell(source, store_history=False, silent=False)
        error = done.error_before_exec or done.error_in_exec
    except TimeLimit as limit:
        error = limit
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout, sys.stderr, shell.display_pub = before[:3]
        signal.signal(signal.SIGALRM, before[3])
    outputs = [
        {"output_type": "stream", "name": name, "text": stream.text()}
        for name, stream in streams.items()
        if stream.size
    ]
    outputs += [_display(item["data"]) for item in shown.outputs]
    if error is not None:
        text = f"took longer than {time_limit:g} seconds" if isinstance(error, TimeLimit) else describe(error)
        outputs.append(failure(type(error).__name__, text))
    elif values and values[-1] is not None:
        data = {"text/plain": repr(values[-1])[:LONGEST]}
        outputs.append({"output_type": "execute_result", "data": data, "metadata": {}, "execution_count": None})
    return outputs


def failure(name, text):
    """Return the output of a cell that failed."""
    return {"output_type": "error", "ename": name, "evalue": text, "traceback": [f"This cell {text}"]}


def tidy(outputs):
    """Return outputs that came from elsewhere in forms that are known, and no more of them than a page bears."""
    kept = []
    for output in outputs[:MOST] if isinstance(outputs, list) else []:
        if not isinstance(output, dict):
            continue
        kind, data = output.get("output_type"), output.get("data")
        if kind == "stream":
            name = "stderr" if output.get("name") == "stderr" else "stdout"
            kept.append({"output_type": "stream", "name": name, "text": str(output.get("text"))[: LONGEST + 50]})
        elif kind == "error":
            kept.append(failure(str(output.get("ename"))[:80], str(output.get("evalue"))[:2000]))
        elif isinstance(data, dict):
            kept.append(_display(data))
    return kept


def _display(data):
    kept = {}
    if "text/plain" in data:
        kept["text/plain"] = str(data["text/plain"])[:LONGEST]
    picture = data.get("image/png")
    if isinstance(picture, str) and len(picture) < LARGEST_PICTURE and re.fullmatch(r"[A-Za-z0-9+/=\s]*", picture):
        kept["image/png"] = picture
    return {"output_type": "display_data", "data": kept, "metadata": {}}
