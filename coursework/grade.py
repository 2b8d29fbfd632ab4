"""Grade a class: collect, autograde in parallel, feedback, and a table that a learning platform takes.

    grade.py collect ASSIGNMENT FROM [--times TIMES]
    grade.py autograde ASSIGNMENT... [--workers N] [--again]
    grade.py feedback ASSIGNMENT...
    grade.py table ASSIGNMENT... [--worksheet FILE]
    grade.py term ASSIGNMENT...
    grade.py solutions ASSIGNMENT... [--early]
    grade.py report ASSIGNMENT...
    grade.py oral ASSIGNMENT...

FROM is an archive of Moodle or Canvas, the inbound folder of nbgrader's exchange, or a folder or zip of
<student>.ipynb or <student>/<anything>.ipynb; TIMES is Moodle's grading worksheet, a CSV with the columns student and
time, or the word files. Who is in the class stands in `roster.csv`, and when work is due in `term.toml`.

All of it in `coursework/instructor`, which `make course` made, or in the directory of --root; nbgrader's own commands
and formgrader work there too. How one submission is read, run and cleaned is in `grader`; how an answer is judged is in
`divergence_notes.grading`; what a regrading changed, in `marks`.
"""

import argparse
import contextlib
import csv
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import change
import inbox
import marking
import marks
import oral
import overview
import roster
import solutions
import tables
import term
import whole
from course import assignments, nbgrader_api, places
from grader import intake, sandbox

LARGEST = intake.LARGEST
LIMIT = 900
"""Seconds after which the grading of one submission is ended from outside; its own limits are tighter."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; form-action 'none'"


def collect(root, assignment, source, times=None):
    """Copy submissions to where nbgrader looks for them; return the names that were not taken, and why.

    What is a notebook and has no place is kept in `unplaced`, with a list. What is there already stays if it came
    later.

    Parameters
    ----------
    root : Path
    assignment : str
    source : path-like
        A folder or a zip archive, of one of the forms of `inbox`.
    times : str, optional
        Where to read when work was handed in, as `inbox.clock` says.
    """
    class_list, dates = roster.of(root), term.of(root) or term.Term()
    clock, refused, found, lost = inbox.clock(times, dates, class_list), {}, {}, []
    for piece in inbox.pieces(source):
        try:
            if piece.trouble:
                raise roster.Unplaced(piece.trouble)
            if not piece.name.lower().endswith(".ipynb"):
                if inbox.parts(piece.name)[-1] not in ("timestamp.txt", intake.SECRET):
                    refused[piece.name] = "it is no notebook"
                continue
            if piece.size > LARGEST:
                raise roster.Unplaced(f"larger than {LARGEST // 2**20} MB")
            handed = inbox.whose(piece, assignment, class_list, clock)
            if handed is not None:
                handed = replace(handed, student=dates.holder(assignment, handed.student))
                found.setdefault(handed.student, []).append(handed)
        except roster.Unplaced as reason:
            lost.append((piece, "", str(reason)))
    for student, several in found.items():
        chosen, why = inbox.last(several, assignment)
        if chosen is None and _settled(root, assignment, several):
            why = f"of {student}, the one that is there counts"
        elif chosen is None:
            lost += [(handed.piece, student, why) for handed in several]
        refused |= {handed.piece.name: why for handed in several if handed is not chosen}
        if chosen is None:
            continue
        try:
            if why := _place(root, assignment, chosen):
                refused[chosen.piece.name] = why
        except Exception as error:  # of the system, of zipfile, or of one of the ways to compress
            lost.append((chosen.piece, student, f"it cannot be read: {error}"))
    return refused | _keep(root, assignment, Path(source).name, lost)


def _settled(root, assignment, several):
    """Say whether one of several notebooks is there already, because it was collected alone."""
    place = root / "submitted" / several[0].student / assignment / f"{assignment}.ipynb"
    return place.is_file() and any(_bytes(handed.piece) == place.read_bytes() for handed in several)


def _bytes(piece):
    """Return what is in a file, or None; it fails as the system, zipfile or one of the ways to compress has it."""
    try:
        return piece.read()
    except Exception:
        return None


def _place(root, assignment, handed):
    """Write a submission down, unless the one that is there came later; return why not."""
    place = root / "submitted" / handed.student / assignment
    before, stamp = collected(root, assignment, handed.student), place / "timestamp.txt"
    at, notebook = handed_in(root, assignment, handed.student), place / f"{assignment}.ipynb"
    for known, new in ((at, handed.time), (before.get("upload"), handed.upload)):
        if known is not None and new is not None and new < known:
            return f"of {handed.student}, the one that is there came later"
    data = handed.piece.read()
    time = handed.time
    if time is None and notebook.is_file() and notebook.read_bytes() == data:
        time = at  # collected once more, without the table of times
    place.mkdir(parents=True, exist_ok=True)
    for old in (stamp, place / intake.SECRET):
        old.unlink(missing_ok=True)
    notebook.write_bytes(data)
    if time is not None:
        stamp.write_text(f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC", encoding="utf-8")
    if handed.piece.secret is not None:
        (place / intake.SECRET).write_bytes(handed.piece.secret)
    said = {"from": handed.piece.name, "upload": handed.upload, "marked_late": handed.marked_late}
    (place / COLLECTED).write_text(json.dumps(said | {"remark": handed.remark}) + "\n", encoding="utf-8")
    for known in (root / "unplaced" / assignment).glob("*/list.csv"):
        _csv(known, [line for line in roster.lines(known) if line["student"] != handed.student])
    return None


def _keep(root, assignment, source, lost):
    """Keep what has no place, under names that lead nowhere, beside a list of it; return the names, and why."""
    place = root / "unplaced" / assignment / _plain(source)
    shutil.rmtree(place, ignore_errors=True)
    lines = []
    for number, (piece, student, why) in enumerate(lost, start=1):
        data = None if piece.trouble or piece.size > LARGEST else _bytes(piece)
        kept = "" if data is None else f"{number:03}-{_plain(inbox.parts(piece.name)[-1])}"
        place.mkdir(parents=True, exist_ok=True)
        if kept:
            (place / kept).write_bytes(data)
        lines.append({"student": student, "name": piece.name, "why": why, "kept": kept})
    if lines:
        _csv(place / "list.csv", lines)
    return {line["name"]: line["why"] for line in lines}


def _plain(name):
    """Return a name under which a file can be kept anywhere."""
    return re.sub(r"[^A-Za-z0-9_@+-]+", "_", name.removesuffix(".ipynb"))[-80:] + ".ipynb" * name.endswith(".ipynb")


COLLECTED = "collected.json"


def collected(root, assignment, student):
    """Return what was written down when a submission was collected."""
    with contextlib.suppress(OSError, ValueError):
        said = json.loads((root / "submitted" / student / assignment / COLLECTED).read_text(encoding="utf-8"))
        return said if isinstance(said, dict) else {}
    return {}


def handed_in(root, assignment, student):
    """Return the time at which a submission was handed in, by the stamp beside it, or None."""
    text = intake.timestamp(root / "submitted" / student / assignment / "timestamp.txt")
    if text is None:
        return None
    from nbgrader.utils import parse_utc

    return parse_utc(text).replace(tzinfo=UTC)


def students(root, assignment):
    """List who has handed in."""
    return sorted(path.parent.name for path in (root / "submitted").glob(f"*/{assignment}"))


def record(root, assignment, student):
    """Return where the outcome of grading one submission is written down."""
    return root / "graded" / assignment / f"{student}.json"


def fingerprint(root, assignment, student):
    """Return what changes when a submission, its questions and their points, its tests or its sealed code change."""
    said = {
        "submission": _digest(sorted((root / "submitted" / student / assignment).glob("*.ipynb"))),
        "questions": _digest(sorted((root / "source" / assignment).glob("*.ipynb"))),
        "tests": _digest([root / "seed.txt", *marking.tests(assignment)]),
    }
    codes = marking.codes(root, assignment, student)
    return said if codes is None else said | {"sealed": codes}


def _digest(places):
    digest = hashlib.sha256()
    for path in places:
        try:
            digest.update(intake.contents(path))
        except intake.Unreadable as reason:
            digest.update(str(reason).encode())
    return digest.hexdigest()


def _known(root, assignment, student):
    """Return what is written down about a submission, as it stands or as it stood, or None."""
    with contextlib.suppress(OSError, ValueError):
        said = json.loads(record(root, assignment, student).read_text(encoding="utf-8"))
        return said if isinstance(said, dict) else None
    return None


def outcome(root, assignment, student):
    """Return what is written down about the submission as it stands, or None."""
    said = _known(root, assignment, student)
    return said if said and said.get("fingerprint") == fingerprint(root, assignment, student) else None


def standing(root, assignment, student):
    """Return the status of a submission: that of its outcome, or that there is none, or none of how things are now."""
    said = outcome(root, assignment, student)
    if said:
        return said["status"]
    return "not graded yet" if _known(root, assignment, student) is None else "out of date"


def write(root, assignment, student, status, seconds, detail="", notes=(), questions=None, ours=False):
    """Write down an outcome; `ours` says that what went wrong need not be the submission's fault."""
    said = {"status": status, "seconds": round(seconds, 1), "notes": list(notes), "detail": detail[-2000:]}
    said |= {"questions": questions or {}, "ours": ours}
    _put(root, assignment, student, said | {"fingerprint": fingerprint(root, assignment, student)})


def _put(root, assignment, student, said):
    """Write a record, whole or not at all."""
    place = record(root, assignment, student)
    place.parent.mkdir(parents=True, exist_ok=True)
    whole.write(place, json.dumps(said, indent=1) + "\n")


def _with(parent):
    """End this process and what it started when the batch ends, however that ends."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os.killpg(0, signal.SIGKILL)


def _grade_one(root, assignment, student):
    start = time.monotonic()

    def say(status, *what, **more):
        write(root, assignment, student, status, time.monotonic() - start, *what, **more)

    submitted, read = (root / place / student / assignment for place in ("submitted", "read"))
    before = marks.before(root, assignment, student)
    shutil.rmtree(read, ignore_errors=True)
    shutil.rmtree(root / "autograded" / student / assignment, ignore_errors=True)  # of an earlier time
    if not roster.STUDENT.fullmatch(student):
        return say("cannot be graded", notes=["the name of a student has letters, digits, dots, @, _ and - only"])
    try:
        notes = intake.take(submitted, read, assignment)
    except intake.Unreadable as reason:
        return say("cannot be graded", notes=[f"the notebook {reason}"])
    api = nbgrader_api(root)
    api.coursedir.submitted_directory = "read"
    try:
        result = api.autograde(assignment, student, force=True)
    except Exception:  # one that nbgrader cannot take must not cost the others their grades
        result = {"success": False, "log": traceback.format_exc()}
    if not result["success"]:
        why = ["nbgrader stopped at this one: see its record"]
        return say("cannot be graded", f"{result['log']}\n{result.get('error') or ''}", notes + why, ours=True)
    marks.keep_read(root, assignment, student, before)
    graded = root / "autograded" / student / assignment / f"{assignment}.ipynb"
    notes += json.loads(graded.read_text(encoding="utf-8"))["metadata"].get("notes", [])
    say("graded", notes=notes, questions=marks.questions(root, assignment, student))


def autograde(root, *assignments, workers=2, again=False, limit=LIMIT):
    """Grade every submission that has not been graded as it stands, each in a process of its own, all in one batch.

    What fails by something that need not be the submission's fault is graded once more, when nothing else is.

    Returns a line for each that was graded before and has other marks now, as `marks.report` does.
    """
    import nbgrader.apps  # noqa: F401, what every process needs is imported once, here

    os.environ["COURSE_ROOT"] = str(root)
    marking.load()
    handed_in = [(assignment, student) for assignment in assignments for student in students(root, assignment)]
    waiting = [one for one in handed_in if again or (outcome(root, *one) or {"ours": True}).get("ours")]
    if waiting:
        marks.prepare(root)
    for one in waiting:
        marks.remember(root, *one, _known(root, *one))
        record(root, *one).unlink(missing_ok=True)
    for attempt in (workers, 1):
        for one, seconds, trouble in _each(_grade_one, root, waiting, workers=attempt, limit=limit):
            if outcome(root, *one) is None:
                status = "out of time" if trouble == OUT_OF_TIME else "cannot be graded"
                write(root, *one, status, seconds, trouble, ours=True)
        waiting = [one for one in waiting if (outcome(root, *one) or {}).get("ours")]
    return marks.report(root, assignments)


OUT_OF_TIME = "its process was ended from outside, when its time was up"


def _each(work, root, waiting, *, workers, limit):
    """Do `work` for each assignment and student of a list, in a process of its own.

    Yields who is done, after how many seconds, and what went wrong with its process, if anything.
    """
    waiting, running, context = list(waiting), {}, multiprocessing.get_context("fork")
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                one = waiting.pop(0)
                told = tempfile.TemporaryFile("w+", encoding="utf-8")
                process = context.Process(target=_apart, args=(work, root, *one, os.getpid(), told))
                process.start()
                running[one] = process, time.monotonic(), told
            for one, (process, start, told) in list(running.items()):
                process.join(0.05)
                seconds = time.monotonic() - start
                if process.is_alive() and seconds <= limit:
                    continue
                late = process.is_alive()
                _end(process)
                with running.pop(one)[2]:
                    told.seek(0)
                    said = told.read() or (
                        f"its process ended with code {process.exitcode}" if process.exitcode else ""
                    )
                yield one, seconds, OUT_OF_TIME if late else said
    finally:
        for process, _, told in running.values():
            _end(process)
            told.close()


def _apart(work, root, assignment, student, batch, told):
    os.setsid()
    threading.Thread(target=_with, args=(batch,), daemon=True).start()
    os.environ["COURSE_ROOT"] = str(root)
    warnings.simplefilter("ignore")  # nbgrader and its database have some; nbgrader takes one in a test for a failure
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        try:
            work(root, assignment, student)
        except Exception:
            told.write(traceback.format_exc())
            told.close()
            raise SystemExit(1) from None


def _end(process):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


def table(root, assignment, now=None):
    """Return a row for each student of the roster and for each submission."""
    from nbgrader.api import MissingEntry

    class_list, dates = roster.of(root), term.of(root) or term.Term()
    now, waiting = now or datetime.now(UTC), _waiting(root, assignment)
    names = students(root, assignment)
    known = {} if class_list is None else class_list.students
    groups = dates.groups.get(assignment, {})
    everybody = {*names, *known, *(one for members in groups.values() for one in members)} - groups.keys()
    rows = []
    with marks.gradebook(root) as gradebook:
        highest = gradebook.find_assignment(assignment).max_score
        for student in sorted(everybody):
            one, due = known.get(student, roster.Student(student)), dates.due(assignment, student)
            group = dates.holder(assignment, student)
            holder = group if group in names else student
            row = {"student_id": student, "assignment": assignment, "score": 0.0, "max_score": highest}
            row |= {"late_seconds": 0, "needs_manual_grade": False, "status": "nothing handed in", "note": ""}
            row |= {"penalty": 0.0, "points": 0.0, "name": one.name, "section": one.section, "handed_in": ""}
            row |= {"due": due.isoformat() if due else "", "final": due is not None and due < now}
            notes, open_ = [waiting[who] for who in {student, holder, group} if who in waiting], False
            if holder in names:
                row["status"], said = standing(root, assignment, holder), outcome(root, assignment, holder)
                notes += map(str, said.get("notes", ()) if said else ())
                with contextlib.suppress(MissingEntry):
                    submission = gradebook.find_submission(assignment, holder)
                    if row["status"] == "graded":
                        row["score"], row["needs_manual_grade"] = marks.counted(submission)
                    row["late_seconds"] = round(submission.total_seconds_late or 0)
                row["final"] = row["status"] == "graded" and not row["needs_manual_grade"]
                notes += _lateness(root, dates, row, holder)
                if class_list is not None and student not in known:
                    notes.append("not in the roster")
            alone = [mate for mate in groups.get(group, ()) if mate in names]
            if group not in names and alone:
                notes.append(f"of group {group}, {alone[0]} handed in alone: collect again, for the group")
                open_ = True
            elif group != student and holder == group:
                notes.append(f"of group {group}")
            row["final"] = row["final"] and not open_ and not {student, holder, group} & waiting.keys()
            row["points"] = round(row["score"] - row["penalty"], 2)
            row["note"] = "; ".join(notes)
            rows.append(row)
    return rows


def _lateness(root, dates, row, holder):
    """Write into a row when its work came and what that costs; return what there is to say about it."""
    assignment, student = row["assignment"], row["student_id"]
    at, said = handed_in(root, assignment, holder), collected(root, assignment, holder)
    notes = [said["remark"]] if said.get("remark") else []
    row["handed_in"] = at.isoformat() if at else ""
    if dates.due(assignment, student) is None:
        return notes
    row["late_seconds"] = round(dates.seconds_late(assignment, student, at)) if at else 0
    late = row["late_seconds"]
    row["penalty"] = dates.penalty(assignment, late, score=row["score"], highest=row["max_score"])
    if at is None and said.get("marked_late"):
        notes.append("Canvas marked it late, and by how much is not known: nothing was taken off")
    elif at is None and said.get("upload") is None:
        notes.append("when it came is not known: nothing was taken off")
    return notes


def _waiting(root, assignment):
    """Return of whom there are notebooks that have no place, and why."""
    lists = (root / "unplaced" / assignment).glob("*/list.csv")
    return {line["student"]: line["why"] for known in lists for line in roster.lines(known) if line["student"]}


def write_table(root, assignment):
    """Write the table as CSV, with a roster also the forms that Moodle and Canvas import; return its path and rows."""
    rows, place = table(root, assignment), root / f"{assignment}.csv"
    _csv(place, rows)
    write_forms(root, assignment, {assignment: rows})
    return place, rows


def write_worksheet(root, assignment, given):
    """Write the points into a copy of Moodle's grading worksheet, and return its path."""
    class_list, place = roster.of(root), root / f"{assignment}-worksheet.csv"
    if class_list is None or not Path(given).is_file():
        raise roster.Refused(f"worksheet needs a roster.csv, and a file that is there, got {given!r}")
    try:
        _csv(place, tables.worksheet(roster.lines(Path(given)), class_list, table(root, assignment)))
    except roster.Unplaced as error:
        raise roster.Refused(f"the worksheet's {error}") from None
    return place


def write_term(root, names):
    """Write the tables of a term: a line for each student, with the points of all assignments; return its path."""
    rows = {name: table(root, name) for name in names}
    _csv(root / "term.csv", tables.term(rows))
    write_forms(root, "term", rows)
    return root / "term.csv", rows


def write_forms(root, name, rows):
    """Write what Moodle and Canvas import, for those in the roster."""
    class_list, dates = roster.of(root), term.of(root) or term.Term()
    if class_list is not None:
        for platform, make in (("moodle", tables.moodle), ("canvas", tables.canvas)):
            with (root / f"{name}-{platform}.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(make(class_list, dates, rows))


def _csv(place, rows):
    with place.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["student_id"])
        writer.writeheader()
        writer.writerows(rows)


def feedback(root, assignment, *, only=None, workers=2, limit=LIMIT):
    """Make nbgrader's feedback pages, which ask no other host for anything; return whose.

    The members of a group get a copy each.
    """
    import nbgrader.apps  # noqa: F401

    dates = term.of(root) or term.Term()
    known = students(root, assignment) if only is None else only
    graded = [(assignment, s) for s in known if (outcome(root, assignment, s) or {}).get("status") == "graded"]
    made = []
    for attempt in (workers, 1):  # what failed once is tried again, when nothing else is being made
        waiting = [one for one in graded if one[1] not in made]
        for (_, student), _, trouble in _each(_feedback_one, root, waiting, workers=attempt, limit=limit):
            page = root / "feedback" / student / assignment / f"{assignment}.html"
            missing = trouble == OUT_OF_TIME or not page.exists()
            said = outcome(root, assignment, student)
            said["notes"] = [note for note in said["notes"] if note != NO_PAGE] + [NO_PAGE] * missing
            _put(root, assignment, student, said)
            if not missing:
                made.append(student)
                for member in dates.members(assignment, student):
                    if member != student:
                        place = root / "feedback" / member / assignment / page.name
                        place.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy(page, place)
    return sorted(made)


NO_PAGE = "no feedback page could be made"


def _feedback_one(root, assignment, student):
    place = root / "feedback" / student / assignment
    shutil.rmtree(place, ignore_errors=True)
    result = nbgrader_api(root).generate_feedback(assignment, student, force=True)
    for page in place.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        page.unlink()  # what is not finished is not there
        if result["success"]:
            whole.write(page, alone(text))


def alone(html):
    """Return a page without scripts, and with a policy under which nothing in it can ask another host."""
    html = re.sub(r"<script\b.*?</script\s*>", "", html, flags=re.S | re.I)
    html = re.sub(r"<link\b[^>]*>", "", html, flags=re.I)
    html = re.sub(r"<meta\b[^>]*http-equiv\s*=\s*[\"']?refresh[^>]*>", "", html, flags=re.I)
    html = re.sub(r"@import[^;]*;", "", html)
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    return re.sub(r"<head\b[^>]*>", lambda found: f"{found[0]}\n{policy}", html, count=1, flags=re.I)


def main(words=None):
    """Do one step, as the command line says it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "step", choices=["collect", "autograde", "feedback", "table", "term", "solutions", "report", "oral"]
    )
    parser.add_argument("assignment")
    parser.add_argument("more", nargs="*", metavar="MORE", help="FROM where to collect, else further assignments")
    parser.add_argument("--root", help="the course directory, if it is not coursework/instructor")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--again", action="store_true", help="grade also what has been graded")
    parser.add_argument("--times", help="where to read when work was handed in: a CSV file, or the word files")
    parser.add_argument("--worksheet", help="Moodle's grading worksheet, to be filled in by table")
    parser.add_argument("--early", action="store_true", help="release a solution before all have handed in")
    options = parser.parse_args(words)
    if options.step == "collect" and len(options.more) != 1:
        parser.error("collect needs FROM, a folder or a zip file")
    root, release, _ = places(options.root)
    try:
        change.settle(root)
        if not (root / "gradebook.db").exists():
            raise roster.Refused(f"{root} is no course: make course writes one")
        names = [options.assignment, *([] if options.step == "collect" else options.more)]
        if unknown := [name for name in names if name not in assignments()]:
            raise roster.Refused(f"{unknown[0]!r} is no assignment; there are {', '.join(assignments())}")
        class_list = roster.of(root)
        term.of(root, assignments=assignments(), students=None if class_list is None else class_list.students)
        _step(root, release, names, options)
    except roster.Refused as error:  # the roster, the dates, the times or the archive
        parser.error(str(error))


def _step(root, release, names, options):
    if options.step == "collect":
        for name, why in collect(root, options.assignment, options.more[0], options.times).items():
            print(f"not taken: {name!r}: {why}")
    elif options.step == "solutions":
        for name in names:
            print(f"written to {solutions.released(root, name, release, early=options.early)}")
        return
    elif options.step == "report":
        for name in names:
            place, lines = overview.written(root, name, students(root, name))
            print("\n".join([*lines, "", f"written to {place}"]))
        return
    elif options.step == "oral":
        for name in names:
            place, asked = oral.written(root, name, students(root, name), outcome)
            print(f"{len(asked)} sheets, with what is right, written to {place}")
        return
    elif options.step == "autograde":
        print(*marking.idle(root, assignments()), sandbox.STATEMENTS[sandbox.isolation()], sep="\n")
        _say_changes(root, autograde(root, *names, workers=options.workers, again=options.again))
    elif options.step == "feedback":
        made = [page for name in names for page in feedback(root, name, workers=options.workers)]
        print(f"{len(made)} pages in {root / 'feedback'}")
    elif options.step == "term":
        place, rows = write_term(root, names)
        blank = sum(not row["final"] for part in rows.values() for row in part)
        print(f"written to {place}" + (f"; {blank} places are open, and blank for Moodle and Canvas" if blank else ""))
        return
    for name in names:
        place, rows = write_table(root, name)
        for row in rows:
            points = f"{row['score']:6.2f} of {row['max_score']:g}"
            points += f", {row['points']:.2f} after lateness" if row["penalty"] else ""
            manual = ", to be read" if row["needs_manual_grade"] else ""
            print(f"{row['student_id']:24} {points}  {row['status']}{manual}{': ' if row['note'] else ''}{row['note']}")
        print(f"written to {place}")
    if options.step == "table" and options.worksheet:
        print(f"written to {write_worksheet(root, options.assignment, options.worksheet)}")


def _say_changes(root, rows):
    for row in rows:
        print(f"changed: {row['student']}, {row['before']:g} to {row['after']:g} points: {row['questions']}")
    if rows:
        gained, lost = (sum(sign * (row["after"] - row["before"]) > 0 for row in rows) for sign in (1, -1))
        print(f"{gained} gained and {lost} lost points by being graded again; all of it is in {root / 'changes.csv'}")


if __name__ == "__main__":
    sys.exit(main())
