"""The forms in which Moodle and Canvas import points.

From their sources: Canvas (lib/gradebook_importer.rb) wants the first two heads to have Student and ID in them, the
last head before the assignments to be Section, and finds a student by ID, then by SIS User ID or SIS Login ID, then by
name; an assignment by `title (number)` or by its title; a line Points Possible holds the highest points. Moodle
(grade/import/csv) lets the person who imports say which column is which; a student is found by address, login or ID
number, each as it is spelt there; `-` is no grade. In both a blank place is no grade, also where there was one before.
Moodle's grading worksheet (mod/assign/feedback/offline) comes back as it was downloaded, in English, with the column
Grade filled in; unlike the gradebook's import it leaves the grades open to change in the assignment.
"""

from roster import Refused


def number(points):
    """Write points with at most two digits after the point."""
    return f"{points:.2f}".rstrip("0").rstrip(".")


def term(rows):
    """Return a line for each student from the rows of several assignments: points, before and after lateness."""
    students = {}
    for name, part in rows.items():
        for row in part:
            line = students.setdefault(
                row["student_id"], {"student_id": row["student_id"], "name": row["name"], "section": row["section"]}
            )
            line |= {f"{name} before": row["score"], name: row["points"], f"{name} status": _open(row)}
    for line in students.values():
        line["points"] = round(sum(line.get(name, 0.0) for name in rows), 2)
        line["max_points"] = sum(part[0]["max_score"] for part in rows.values() if part)
        line["open"] = sum(line.get(f"{name} status", "open") == "open" for name in rows)
    heads = dict.fromkeys(head for line in students.values() for head in line)
    return [{head: line.get(head, "") for head in heads} for _, line in sorted(students.items())]


def _open(row):
    if row["status"] == "graded":
        return "graded" if row["final"] else "open"
    return row["status"] if row["final"] else "open"


def canvas(class_list, dates, rows):
    """Return the lines of a gradebook of Canvas; what is not final is blank."""
    titles = [dates.rule(name).canvas or name for name in rows]
    highest = [number(part[0]["max_score"]) if part else "" for part in rows.values()]
    lines = [["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *titles]]
    lines.append(["    Points Possible", "", "", "", "", *highest])
    for one in class_list:
        lines.append([one.name, one.canvas, one.number, one.login, one.section, *_points(one, rows, "")])
    return lines


def moodle(class_list, dates, rows):
    """Return the lines of a table for Moodle's gradebook; what is not final has a dash."""
    titles = [dates.rule(name).moodle or name for name in rows]
    lines = [["Username", "ID number", "Email address", "Full name", *titles]]
    for one in class_list:
        lines.append([one.login, one.number, one.email, one.name, *_points(one, rows, "-")])
    return lines


def worksheet(lines, class_list, rows):
    """Return the lines of Moodle's grading worksheet with the points that are final; the others stay as they are."""
    points, filled = {row["student_id"]: row for row in rows if row["final"]}, []
    if not lines or not {"Identifier", "Grade", "Last modified (grade)"} <= set(lines[0]):
        raise Refused(
            "a grading worksheet must have Identifier, Grade and Last modified (grade): download it in English"
        )
    for line in lines:
        who = line.get("Email address") or line.get("Full name") or ""
        student = class_list.word(who) or class_list.name(who)
        row, most = points.get(student), line.get("Maximum grade") or line.get("Maximum Grade")
        if row and most and most.replace(",", ".") not in (number(row["max_score"]), f"{row['max_score']:.2f}"):
            raise Refused(f"the assignment must have {number(row['max_score'])} points in Moodle too, it has {most}")
        filled.append(line | {"Grade": number(row["points"])} if row else line)
    return filled


def _points(one, rows, blank):
    for part in rows.values():
        row = next((row for row in part if row["student_id"] == one.student), None)
        yield number(row["points"]) if row and row["final"] else blank
