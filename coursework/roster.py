"""Who is in the class, and whom a name in an archive stands for.

The roster is a CSV with a line for each student: `student`, the name of the folders here, and any of `name`, `email`,
`login`, `number`, `canvas`, `section` and `also`, other names and addresses between semicolons. The lists that Moodle
(participants, or a grade export) and Canvas (an export of the gradebook) give out are read as they are; `student` is
then the login, or what stands before the @ of the address.
"""

import csv
import functools
import io
import re
import unicodedata
from dataclasses import dataclass, field

STUDENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
OWN = ("student", "name", "email", "login", "number", "canvas", "section", "also")
CANVAS = {"Student": "name", "ID": "canvas", "SIS User ID": "number", "SIS Login ID": "login", "Section": "section"}
MOODLE = {
    "Email address": "email",
    "ID number": "number",
    "Username": "login",
    "Full name": "name",
    "Groups": "section",
}


class Unplaced(Exception):
    """Why a name stands for nobody, as a sentence."""


class Refused(ValueError):
    """Why a file that an instructor wrote or downloaded cannot be used, as a sentence."""


@dataclass(frozen=True)
class Student:
    """A line of the roster; what is not known is empty."""

    student: str
    name: str = ""
    email: str = ""
    login: str = ""
    number: str = ""
    canvas: str = ""
    section: str = ""
    also: str = ""

    def others(self):
        """List the other names."""
        return [word.strip() for word in self.also.split(";") if word.strip()]


def key(text, *, bare=False):
    """Return the letters and digits of a name, large and small alike; with `bare`, without their accents."""
    text = unicodedata.normalize("NFKD" if bare else "NFKC", text.casefold())
    return "".join(c for c in text if c.isalnum())


def spellings(name):
    """Return the ways in which a platform writes a name: whichever part comes first."""
    parts = [part for part in re.split(r"[\s,]+", name) if part]
    return {" ".join(parts[at:] + parts[:at]) for at in range(max(1, len(parts)))}


@dataclass
class Roster:
    """The students of a class, by all that they are called."""

    students: dict = field(default_factory=dict)

    def __post_init__(self):
        self._words, self._names, self._bare, self._canvas = {}, {}, {}, {}
        for one in self.students.values():
            for word in (one.student, one.email, one.login, one.number, *one.others()):
                self._words.setdefault(unicodedata.normalize("NFC", word).casefold(), set()).add(one.student)
            for name in {spelt for known in (one.name, *one.others()) for spelt in spellings(known)}:
                self._names.setdefault(key(name), set()).add(one.student)
                self._bare.setdefault(key(name, bare=True), set()).add(one.student)
            self._canvas.setdefault(one.canvas, set()).add(one.student)
        for known in (self._words, self._names, self._bare, self._canvas):
            known.pop("", None)

    def __iter__(self):
        return iter(self.students.values())

    def number(self, canvas):
        """Return who has a number of Canvas, or None."""
        return _only(self._canvas.get(str(canvas), ()), canvas) if str(canvas) in self._canvas else None

    def word(self, text):
        """Return whom an id, a login or an address stands for, or None."""
        text = unicodedata.normalize("NFC", text).casefold()
        return _only(self._words[text], text) if text in self._words else None

    def named(self, text):
        """Return all for whom a name can stand; accents tell them apart where they can."""
        for known, found in ((self._names, key(text)), (self._bare, key(text, bare=True))):
            if found in known:
                return known[found]
        return set()

    def name(self, text):
        """Return whom a name stands for, or None."""
        found = self.named(text)
        return _only(found, text) if found else None


def _only(found, text):
    if len(found) > 1:
        raise Unplaced(f"{text!r} may be {' or '.join(sorted(found))}")
    return next(iter(found))


def lines(path):
    """Return the lines of a CSV as dicts; its separator may be a semicolon, which spreadsheets write in many places."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Refused(f"{path.name} must be CSV in UTF-8: save it again as such") from None
    head = text.partition("\n")[0]
    separator = ";" if head.count(";") > head.count(",") else ","
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, restkey="", restval=""))


def read(path):
    """Return the roster in a file.

    Raises
    ------
    Refused
        If the file cannot be a roster, with the line that is wrong.
    """
    found, students = lines(path), {}
    heads = {head.strip() for line in found[:1] for head in line if head}
    if {"Student", "ID", "Section"} <= heads:
        names = CANVAS
    elif "Email address" in heads:
        names = MOODLE
    else:
        names = {name: name for name in OWN}
        if "student" not in heads:
            raise Refused(f"{path.name} must have a column student, got {sorted(heads) or 'no lines'}")
        if unknown := sorted(heads - set(OWN)):
            raise Refused(f"{path.name} has the columns {', '.join(OWN)}; {unknown[0]!r} is none of them")
    for at, line in enumerate(found, start=2):
        line = {head.strip(): (value or "").strip() for head, value in line.items() if head}
        given = {name: line.get(head, "") for head, name in names.items()}
        if names is CANVAS and (not given["canvas"] or given["name"] == "Student, Test"):
            continue  # the points that are possible, and the student that Canvas makes for trying things out
        if names is MOODLE:
            given["name"] = given["name"] or f"{line.get('First name', '')} {line.get('Last name', '')}".strip()
        if not any(given.values()):
            continue
        given.setdefault("student", given["login"] or given.get("email", "").partition("@")[0] or given["number"])
        one = Student(**given)
        if not STUDENT.fullmatch(one.student):
            raise Refused(
                f"{path.name}, line {at}: student must be letters, digits, dots, @, _ and -, got {one.student!r}"
            )
        if one.student.casefold() in {known.casefold() for known in students}:
            raise Refused(f"{path.name}, line {at}: {one.student} is there twice")
        students[one.student] = one
    if not students:
        raise Refused(f"{path.name} must have a line for each student, got none")
    return Roster(students)


def of(root):
    """Return the roster of a course, `roster.csv` in its directory, or None."""
    place = root / "roster.csv"
    return _read(place, place.read_bytes()) if place.exists() else None


@functools.lru_cache(maxsize=8)
def _read(place, _text):
    return read(place)  # asked for with each submission, and the same as long as the text is
