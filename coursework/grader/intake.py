"""Reading what was handed in, whatever it is: a notebook of nothing but what is graded, or the reason why not.

Encodings, formats of the notebook and odd files end here. Which cell answers which question is found in
`preprocessors`, and what a person may look at is decided in `reading`.
"""

import json
import re
import stat
from pathlib import Path

import nbformat

LARGEST = 20 * 2**20
MOST = 1000
"""Cells of a notebook."""
FORMATS = (3, 4)
SECRET = "submission_secret.txt"
ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Unreadable(Exception):
    """Why a submission cannot be read, as a sentence that goes on after "the notebook"."""


def read(path):
    """Return the notebook in a file, made anew from its cells.

    Parameters
    ----------
    path : Path
        Of what was handed in; it may be anything.

    Returns
    -------
    NotebookNode
        Of format 4, valid, without outputs and without metadata but the names of nbgrader's cells.
    list of str
        What had to be left out.

    Raises
    ------
    Unreadable
        With the reason.
    """
    data = parsed(decoded(contents(path)))
    if not isinstance(data, dict) or "nbformat" not in data:
        raise Unreadable("is no notebook: it names no format")
    if data["nbformat"] not in FORMATS:
        raise Unreadable(
            f"is of format {str(data['nbformat'])[:20]}; formats {' and '.join(map(str, FORMATS))} are read"
        )
    cells = data.get("cells")
    if data["nbformat"] == 3:
        sheets = data.get("worksheets")
        parts = (
            [s.get("cells") if isinstance(s, dict) else None for s in sheets] if isinstance(sheets, list) else [None]
        )
        cells = [c for part in parts for c in part] if all(isinstance(part, list) for part in parts) else None
    if not isinstance(cells, list):
        raise Unreadable("has no list of cells")
    notes = [f"only the first {MOST} of {len(cells)} cells were read"] if len(cells) > MOST else []
    made = [made for made in map(cell, cells[:MOST]) if made is not None]
    if len(made) < len(cells[:MOST]):
        notes.append(f"{len(cells[:MOST]) - len(made)} cells were no cells and were left out")
    used = set()
    for one in made:
        if one.id in used:
            one.id = nbformat.v4.new_raw_cell().id
        used.add(one.id)
    notebook = nbformat.v4.new_notebook(cells=made)
    nbformat.validate(notebook)
    return notebook, notes


def contents(path):
    """Return the bytes of a file."""
    try:
        kind = path.lstat()
        if stat.S_ISLNK(kind.st_mode):
            raise Unreadable("is a link to another file")
        if not stat.S_ISREG(kind.st_mode):
            raise Unreadable("is a folder" if stat.S_ISDIR(kind.st_mode) else "is no file")
        if kind.st_size > LARGEST:
            raise Unreadable(f"is larger than {LARGEST // 2**20} MB")
        found = path.read_bytes()
    except FileNotFoundError:
        raise Unreadable("is not there under its name") from None
    except OSError as error:
        raise Unreadable(f"cannot be opened: {error.strerror}") from None
    if not found.strip():
        raise Unreadable("is empty")
    return found


def decoded(found):
    """Return the text in bytes of UTF-8, 16 or 32, with a byte order mark or without."""
    try:
        return found.decode(json.detect_encoding(found)).lstrip("\ufeff")
    except UnicodeDecodeError:
        raise Unreadable("is not text in UTF-8 or UTF-16") from None


def parsed(text):
    """Return the value of a text in JSON."""
    try:
        value = json.loads(text)
        # JSON can spell halves of characters that no file can hold
        return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except json.JSONDecodeError as error:
        raise Unreadable(f"is no notebook: its JSON stops making sense in line {error.lineno}") from None
    except (ValueError, RecursionError):
        raise Unreadable("is no notebook: its JSON cannot be read") from None


def cell(given):
    """Return a cell made of what can be used of another, or None."""
    if not isinstance(given, dict):
        return None
    kind = given.get("cell_type")
    source = given.get("source", given.get("input", ""))
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str) or not isinstance(kind, str):
        return None
    source = source.replace("\r\n", "\n").replace("\r", "\n").encode("utf-8", "replace").decode()
    if kind == "heading":  # of format 3
        kind, source = "markdown", "# " + source
    make = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell}
    made = make.get(kind, nbformat.v4.new_raw_cell)(source)
    if isinstance(given.get("id"), str) and ID.fullmatch(given["id"]):
        made.id = given["id"]
    meta = given.get("metadata")
    marks = meta.get("nbgrader") if isinstance(meta, dict) else None
    name = marks.get("grade_id") if isinstance(marks, dict) else None
    if isinstance(name, str):
        made.metadata["nbgrader"] = {"grade_id": name}
    attachments = given.get("attachments")
    if kind == "markdown" and isinstance(attachments, dict):
        fine = {
            str(file): {k: d for k, d in parts.items() if isinstance(d, str)}
            for file, parts in attachments.items()
            if isinstance(parts, dict)
        }
        made.attachments = nbformat.from_dict(fine)
    return made


def timestamp(path):
    """Return what nbgrader's collecting wrote down of when a submission came, if that is a time."""
    from nbgrader.utils import parse_utc

    try:
        text = contents(path)[:100].decode().strip()
        parse_utc(text)
    except (Unreadable, ValueError, OverflowError):
        return None
    return text


def take(submitted, target, name):
    """Read a submission and write it to where it is graded from; return the notes.

    Parameters
    ----------
    submitted, target : Path
        The folder of the submission, and the one that nbgrader reads.
    name : str
        Of the notebook, without its ending.
    """
    notebook, notes = read(Path(submitted, f"{name}.ipynb"))
    target.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target / f"{name}.ipynb")
    stamp = timestamp(Path(submitted, "timestamp.txt"))
    if stamp is not None:
        (target / "timestamp.txt").write_text(stamp, encoding="utf-8")
    try:  # under which nbgrader's exchange hands the feedback back
        secret = contents(Path(submitted, SECRET))[:1000]
    except Unreadable:
        return notes
    (target / SECRET).write_bytes(secret)
    return notes
