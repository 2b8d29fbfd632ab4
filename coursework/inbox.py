"""What comes back from a class: archives of Moodle and Canvas, nbgrader's exchange, a folder; whose is each notebook.

How the two platforms name the members of an archive is read from their sources. Moodle (mod/assign/classes/
downloader.php): `<name>_<number>_assignsubmission_file/<file>`, or `..._file_<file>` in one folder for all; the number
is of this assignment alone. Canvas (lib/content_zipper.rb): `<last name first>_LATE_<user>_<upload>_<file>`, without
`LATE` where the work was in time; the name has neither spaces nor capitals. In both, a member's time is that of the
download: Moodle's writer takes the present time by default (lib/classes/files/local/archive_writer), Canvas's names
none. So a member's time says nothing about when work was handed in, and is asked for in words only.

From practice are: a trailing `_` after `_file`, and `late` in small letters; a folder on top, when somebody unpacked
and packed again; names whose bytes are UTF-8 and not marked as such; that the larger of two uploads on Canvas came
later. Of nbgrader's exchange, `<student>+<assignment>+<time>+<random>` is read from its own `collect`.
"""

import contextlib
import re
import stat
import unicodedata
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import roster
from dateutil import parser
from grader import intake

MOST = 20_000
"""Members of an archive."""
MOODLE = re.compile(r"(?P<person>.*)_(?P<number>\d+)_assignsubmission_(?P<plugin>[a-z]+)_?(?P<file>.*)", re.S)
CANVAS = re.compile(r"(?P<person>.+?)_(?P<late>late_)?(?P<number>\d+)_(?P<upload>\d+)_(?P<file>.+)", re.S | re.I)
ANONYMOUS = re.compile(r"anon_(late_)?[A-Za-z0-9]+_\d+_.+", re.S | re.I)
EXCHANGE = re.compile(r"(?P<person>.+)\+(?P<assignment>[^+]+)\+(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[^+]*)(\+.*)?")
LITTER = re.compile(r"(__MACOSX|\.DS_Store|\.ipynb_checkpoints|Thumbs\.db|desktop\.ini|\._.*)")


@dataclass(frozen=True)
class Piece:
    """A file that came: its name, and how to read it."""

    name: str
    size: int
    time: datetime | None
    read: Callable
    trouble: str = ""
    owner: str = ""
    secret: bytes | None = None


@dataclass(frozen=True)
class Handed:
    """A notebook and what its name and its platform say about it."""

    piece: Piece
    student: str
    time: datetime | None = None
    upload: int | None = None
    marked_late: bool = False
    file: str = ""
    remark: str = ""


def pieces(source):
    """List the files of a folder or a zip archive; what is there by itself, such as a list of thumbnails, is not."""
    source = Path(source)
    if zipfile.is_zipfile(source):
        try:
            archive = zipfile.ZipFile(source)
        except zipfile.BadZipFile as error:
            raise roster.Refused(f"{source.name} is a damaged archive: {error}") from None
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) > MOST:
            raise roster.Refused(f"{source.name} must have at most {MOST} members, got {len(members)}")
        found = [_member(archive, member) for member in members]
    elif source.is_dir():
        found = [piece for path in sorted(source.rglob("*")) if (piece := _file(source, path))]
    else:
        raise roster.Refused(f"FROM must be a folder or a zip archive, got {str(source)!r}")
    return [piece for piece in found if not any(LITTER.fullmatch(part) for part in parts(piece.name))]


def parts(name):
    """Return the folders of a name, and the file."""
    return [part for part in name.replace("\\", "/").split("/") if part]


def _member(archive, member):
    name, trouble = member.filename, ""
    if not member.flag_bits & 0x800:  # no mark that the name is UTF-8; it may be all the same
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    if ".." in parts(name) or name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        trouble = "its name leads out of the archive"
    elif stat.S_ISLNK(member.external_attr >> 16):
        trouble = "it is a link"
    elif member.flag_bits & 0x1:
        trouble = "it is locked with a password"
    time = None
    with contextlib.suppress(ValueError):
        time = datetime(*member.date_time)
    return Piece(name, member.file_size, time, lambda: archive.read(member), trouble)


def _file(source, path):
    name, trouble = path.relative_to(source).as_posix(), ""
    if path.is_symlink():
        return Piece(name, 0, None, path.read_bytes, "it is a link")
    if not path.is_file():
        return Piece(name, 0, None, path.read_bytes, "it is a folder") if path.suffix == ".ipynb" else None
    kind, owner, secret = path.lstat(), "", None
    if any(EXCHANGE.fullmatch(part) for part in parts(name)):
        with contextlib.suppress(KeyError, OSError, NotImplementedError):
            owner = path.owner()
        with contextlib.suppress(intake.Unreadable):
            secret = intake.contents(path.with_name(intake.SECRET))[:1000]
    return Piece(
        name, kind.st_size, datetime.fromtimestamp(kind.st_mtime, UTC), path.read_bytes, trouble, owner, secret
    )


@dataclass(frozen=True)
class Clock:
    """Where the times come from at which work was handed in.

    `numbers` and `students` are lines of a table, by a platform's number and by a student; with `files` the times of
    the files themselves count.
    """

    term: object = None
    files: bool = False
    numbers: tuple = ()
    students: tuple = ()


def clock(given, term, class_list):
    """Return the clock that a word or a file stands for.

    Parameters
    ----------
    given : str or None
        Nothing; `files`; or a CSV: Moodle's grading worksheet, or one with the columns student and time.
    term : term.Term
    class_list : roster.Roster or None
    """
    if given is None or given == "files":
        return Clock(term, files=given == "files")
    path, numbers, students = Path(given), {}, {}
    if not path.is_file():
        raise roster.Refused(f"times must be a CSV file or the word files, got {given!r}")
    found = roster.lines(path)
    heads = set(found[0]) if found else set()
    if "Identifier" in heads:  # Moodle's, in English
        for line in found:
            number = re.sub(r"\D", "", line["Identifier"])
            who = next((line[head] for head in ("Email address", "Full name") if line.get(head)), "")
            text = line.get("Last modified (submission)", "").strip()
            numbers[number] = who, _moment(text, term, f"{path.name}, {line['Identifier']}")
    elif {"student", "time"} <= heads:
        for line in found:
            who = line["student"].strip()
            student = who if class_list is None else (class_list.word(who) or class_list.number(who))
            if student is None:
                raise roster.Refused(f"{path.name}: {who!r} is nobody in the roster")
            students[student] = _moment(line["time"].strip(), term, f"{path.name}, {who}")
    else:
        raise roster.Refused(
            f"{path.name} must be Moodle's grading worksheet, in English, or have the columns student and time, "
            f"got {sorted(heads)}"
        )
    return Clock(term, numbers=tuple(numbers.items()), students=tuple(students.items()))


def _moment(text, term, what):
    if text in ("", "-"):
        return None
    text = unicodedata.normalize("NFKC", text)
    try:
        if not text[:4].isdigit() and not re.search(r"[A-Za-z]{3}", text):
            raise ValueError("6/11 is in June or in November, as one likes")
        given = parser.isoparse(text) if text[:4].isdigit() else parser.parse(text)
    except (ValueError, OverflowError):
        raise roster.Refused(f"{what}: time must be one, such as 2026-11-06T23:59:00, got {text!r}") from None
    return term.instant(given, what, earlier=True)


def whose(piece, assignment, class_list, times):
    """Return what is known about a notebook, or None if it is of another assignment.

    Raises
    ------
    roster.Unplaced
        If nothing says whose it is, with the reason.
    """
    names = parts(piece.name)
    for part in names:
        if found := EXCHANGE.fullmatch(part):
            if found["assignment"] != assignment:
                return None
            student = _known(found["person"], class_list)
            remark = f"its folder belongs to {piece.owner}" if piece.owner not in ("", found["person"]) else ""
            time = parser.parse(found["time"].replace("_", " "))
            time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
            return Handed(piece, student, time, file=names[-1], remark=remark)
    moodle = next(filter(None, map(MOODLE.fullmatch, names)), None)
    canvas = CANVAS.fullmatch(names[-1])
    if moodle:
        _needed(class_list, "Moodle")
        who, time = dict(times.numbers).get(moodle["number"], ("", None))
        sheet = (class_list.word(who) or class_list.name(who)) if who else None
        student = _agreed(class_list, sheet, moodle["person"], f"the worksheet's line {moodle['number']}")
        if not student:
            hidden = "; marking was anonymous: its worksheet with addresses, as --times, says who it is"
            raise roster.Unplaced(
                f"{moodle['person']!r} is nobody in the roster"
                + (hidden if roster.key(moodle["person"]) == "participant" else "")
            )
        return Handed(piece, student, time or _own(piece, student, times), file=moodle["file"] or names[-1])
    if canvas and class_list is not None:
        number = class_list.number(canvas["number"])
        student = _agreed(class_list, number, canvas["person"], f"Canvas's number {canvas['number']}")
        if student:
            mark = bool(canvas["late"])
            return Handed(piece, student, _own(piece, student, times), int(canvas["upload"]), mark, canvas["file"])
        if not _plain(names, class_list) and not ANONYMOUS.fullmatch(names[-1]):
            raise roster.Unplaced(f"{canvas['person']!r}, Canvas's number {canvas['number']}, is nobody in the roster")
    if ANONYMOUS.fullmatch(names[-1]):
        raise roster.Unplaced("Canvas hid the name: show the names, and download again")
    if canvas and class_list is None:
        _needed(class_list, "Canvas")
    if class_list is not None:
        student = _plain(names, class_list)
        if not student:
            raise roster.Unplaced("no part of its name is in the roster")
    else:
        student = names[0] if len(names) == 2 else names[0].removesuffix(".ipynb")
        if len(names) > 2 or not roster.STUDENT.fullmatch(student):
            raise roster.Unplaced("the name must be <student>.ipynb or <student>/<file>.ipynb")
    return Handed(piece, student, _own(piece, student, times), file=names[-1])


def _known(person, class_list):
    student = person if class_list is None else class_list.word(person)
    if student is None or not roster.STUDENT.fullmatch(student):
        raise roster.Unplaced(f"{person!r} is nobody in the roster")
    return student


def _agreed(class_list, known, person, what):
    """Return whom a number and a name stand for; the worksheet of another assignment has other numbers."""
    named = class_list.named(person)
    if known is None:
        return class_list.name(person)
    if named and known not in named:
        raise roster.Unplaced(f"{what} is {known}'s, and the name {person!r} is not")
    return known


def _needed(class_list, platform):
    if class_list is None:
        raise roster.Unplaced(f"it is named as {platform} does: put a roster.csv beside the gradebook")


def _plain(names, class_list):
    """Return who is named by a folder or by the file itself; a file in somebody's folder may have any name."""
    found = {student for name in names[:-1] if (student := class_list.word(name) or class_list.name(name))}
    if not found:
        stem = re.sub(r"\.ipynb$", "", names[-1], flags=re.I)
        found = {student for student in (class_list.word(stem) or class_list.name(stem),) if student}
    if len(found) > 1:
        raise roster.Unplaced(f"its name has {' and '.join(sorted(found))} in it")
    return next(iter(found), None)


def _own(piece, student, times):
    time = dict(times.students).get(student)
    if time is None and times.files and piece.time is not None:
        time = times.term.instant(piece.time, piece.name, earlier=True)
    return time


def last(found, assignment):
    """Return the one of a student's notebooks that was handed in last, or None, and why the others do not count.

    By the times if all have one, then by the uploads of Canvas; among those that came together, the one that bears the
    name of the assignment, if one does. Otherwise none is chosen: a guess could cost a student the right answers.
    """
    left = found
    for order in (lambda one: one.time, lambda one: one.upload):
        values = [order(one) for one in left]
        if None not in values:
            left = [one for one, value in zip(left, values, strict=True) if value == max(values)]
    if len(left) > 1:
        named = [one for one in left if roster.key(one.file).startswith(roster.key(assignment))]
        left = named if len(named) == 1 else left
    if len(left) > 1:
        why = f"one of {len(left)} notebooks of {left[0].student}, and nothing says which came last: collect one alone"
        return None, why
    return left[0], f"of {left[0].student}, {left[0].piece.name!r} counts"
