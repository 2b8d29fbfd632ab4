"""Archives as Moodle and Canvas pack them, and nbgrader's exchange, made small: what the tests collect from."""

import zipfile
from pathlib import Path

CLASS = """student,name,email,login,number,canvas,section,also
ann,Ann Lee,ann@x.edu,alee,1001,501,A,
joerg,"Müller, Jörg",jm@x.edu,jmueller,1002,502,A,
zoe,Zoë van der Berg,zoe@x.edu,zberg,1003,503,B,zoevdb;Zoe Berg
bo1,Bo Li,bo1@x.edu,bo1,1004,504,B,
bo2,Bo Li,bo2@x.edu,bo2,1005,505,B,
dan,Dan O'Neil,dan@x.edu,dan,1006,506,B,
"""


def class_of(root):
    """Write the roster of a class of six, two of whom have the same name."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "roster.csv").write_text(CLASS, encoding="utf-8")
    return root


def pack(place, members, *, unmarked=False):
    """Pack members, a list of names and contents; with `unmarked`, no name says that its bytes are UTF-8."""
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name, (2026, 11, 30, 9, 0, 0))
            archive.writestr(info, data)
    if unmarked:  # the flags of a member stand at byte 6 of its head and at byte 8 of its line in the list at the end
        data = bytearray(place.read_bytes())
        for mark, at in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
            start = data.find(mark)
            while start >= 0:
                data[start + at] &= ~0x08
                start = data.find(mark, start + 1)
        place.write_bytes(data)
    return place


def moodle(place, handed, *, top="", flat=False, **options):
    """Pack submissions as Moodle does: a name, a number of this assignment, the student's own file, its contents."""
    joint = "_" if flat else "/"
    members = [
        (f"{top}{person}_{number}_assignsubmission_file{joint}{file}", data) for person, number, file, data in handed
    ]
    return pack(place, members, **options)


def canvas(place, handed, *, top="", **options):
    """Pack submissions as Canvas does: name as it sorts, LATE or not, user, upload, file, contents."""
    members = []
    for person, late, user, upload, file, data in handed:
        name = "".join(c for c in person.lower() if c.isalnum() or c == "_")
        members.append((f"{top}{name}{'_LATE' if late else ''}_{user}_{upload}_{file}", data))
    return pack(place, members, **options)


def exchange(place, handed):
    """Lay out the inbound folder of an exchange: a student, an assignment, a time, files and their contents."""
    for student, assignment, time, files in handed:
        folder = Path(place, f"{student}+{assignment}+{time}+Zx81")
        folder.mkdir(parents=True)
        for name, data in files.items():
            (folder / name).write_text(data, encoding="utf-8")
    return place


WORKSHEET = (
    "\ufeffIdentifier,Full name,Email address,Status,Grade,Maximum grade,"
    "Last modified (submission),Last modified (grade)\n"
)


def worksheet(place, lines, most="10.00"):
    """Write Moodle's grading worksheet: a number, a name, an address, a time as Moodle spells it."""
    rows = [
        f'Participant {number},{name},{address},Submitted,,{most},"{time}",-' for number, name, address, time in lines
    ]
    place.write_text(WORKSHEET + "\n".join(rows) + "\n", encoding="utf-8")
    return place
