"""Grade a class: collect, autograde in parallel, feedback, and a table that a learning platform takes.

    grade.py collect ASSIGNMENT FROM     FROM: a folder or zip of <student>.ipynb or <student>/<anything>.ipynb
    grade.py autograde ASSIGNMENT... [--workers N] [--again]
    grade.py feedback ASSIGNMENT...
    grade.py table ASSIGNMENT...

All of it in `coursework/instructor`, which `make course` made; nbgrader's own commands and formgrader work there too.
How one submission is read, run and cleaned is in `grader`; how an answer is judged is in `divergence_notes.grading`.
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
import threading
import time
import traceback
import warnings
import zipfile
from pathlib import Path

import marking
from course import COURSEWORK, nbgrader_api
from grader import intake, sandbox

STUDENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
LARGEST = intake.LARGEST
LIMIT = 900
"""Seconds after which the grading of one submission is ended from outside; its own limits are tighter."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; form-action 'none'"


def student_of(name):
    """Return the student that a file name stands for, or None if it is not of the forms that are collected."""
    parts = name.replace("\\", "/").split("/")
    if not 1 <= len(parts) <= 2 or not name.endswith(".ipynb"):
        return None
    student = parts[0] if len(parts) == 2 else parts[0].removesuffix(".ipynb")
    return student if STUDENT.fullmatch(student) else None


def collect(root, assignment, source):
    """Copy submissions to where nbgrader looks for them; return the names that were not taken, and why."""
    source, refused = Path(source), {}
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            found = [
                (i.filename, i.file_size, lambda i=i: archive.read(i)) for i in archive.infolist() if not i.is_dir()
            ]
            _take(root, assignment, found, refused)
        return refused
    found = []
    for path in sorted(source.rglob("*")):
        name = str(path.relative_to(source))
        if path.is_symlink():
            refused[name] = "it is a link"
        elif path.is_file():
            found.append((name, path.lstat().st_size, path.read_bytes))
        elif path.suffix == ".ipynb":
            refused[name] = "it is a folder"
    _take(root, assignment, found, refused)
    return refused


def _take(root, assignment, found, refused):
    taken = set()
    for name, size, read in found:
        student = student_of(name)
        if student is None:
            refused[name] = "the name must be <student>.ipynb or <student>/<file>.ipynb"
        elif size > LARGEST:
            refused[name] = f"larger than {LARGEST // 2**20} MB"
        elif student in taken:
            refused[name] = f"a second notebook of {student}"
        else:
            try:
                data = read()
                target = root / "submitted" / student / assignment / f"{assignment}.ipynb"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
            except Exception as error:  # of the system, of zipfile, or of one of the ways to compress
                refused[name] = f"it cannot be read: {error}"
            else:
                taken.add(student)


def students(root, assignment):
    """List who has handed in."""
    return sorted(path.parent.name for path in (root / "submitted").glob(f"*/{assignment}"))


def record(root, assignment, student):
    """Return where the outcome of grading one submission is written down."""
    return root / "graded" / assignment / f"{student}.json"


def fingerprint(root, assignment, student):
    """Return what changes when a submission or its test changes."""
    places = [root / "source" / assignment, root / "submitted" / student / assignment]
    digest = hashlib.sha256()
    for path in sorted(path for place in places for path in place.glob("*.ipynb")):
        try:
            digest.update(intake.contents(path))
        except intake.Unreadable as reason:
            digest.update(str(reason).encode())
    return digest.hexdigest()


def outcome(root, assignment, student):
    """Return what is written down about the submission as it stands, or None."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        said = json.loads(record(root, assignment, student).read_text(encoding="utf-8"))
        if said["fingerprint"] == fingerprint(root, assignment, student):
            return said
    return None


def write(root, assignment, student, status, seconds, detail="", notes=()):
    """Write down an outcome."""
    said = {"status": status, "seconds": round(seconds, 1), "notes": list(notes), "detail": detail[-2000:]}
    _put(root, assignment, student, said | {"fingerprint": fingerprint(root, assignment, student)})


def _put(root, assignment, student, said):
    """Write a record, whole or not at all."""
    place = record(root, assignment, student)
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(".part")
    part.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    part.replace(place)


def _with(parent):
    """End this process and what it started when the batch ends, however that ends."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os.killpg(0, signal.SIGKILL)


def _grade_one(root, assignment, student):
    start = time.monotonic()

    def say(status, detail="", notes=()):
        write(root, assignment, student, status, time.monotonic() - start, detail, notes)

    submitted, read = (root / place / student / assignment for place in ("submitted", "read"))
    shutil.rmtree(read, ignore_errors=True)
    shutil.rmtree(root / "autograded" / student / assignment, ignore_errors=True)  # of an earlier time
    if not STUDENT.fullmatch(student):
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
        return say("cannot be graded", f"{result['log']}\n{result.get('error') or ''}", notes + why)
    graded = root / "autograded" / student / assignment / f"{assignment}.ipynb"
    say("graded", notes=notes + json.loads(graded.read_text(encoding="utf-8"))["metadata"].get("notes", []))


def autograde(root, *assignments, workers=2, again=False, limit=LIMIT):
    """Grade every submission that has not been graded as it stands, each in a process of its own, all in one batch."""
    import nbgrader.apps  # noqa: F401, what every process needs is imported once, here

    os.environ["COURSE_ROOT"] = str(root)
    marking.load()
    handed_in = [(assignment, student) for assignment in assignments for student in students(root, assignment)]
    waiting = [one for one in handed_in if again or outcome(root, *one) is None]
    for one in waiting:
        record(root, *one).unlink(missing_ok=True)
    for one, seconds, late in _each(_grade_one, root, waiting, workers=workers, limit=limit):
        if late or outcome(root, *one) is None:
            write(root, *one, "out of time" if late else "cannot be graded", seconds)


def _each(work, root, waiting, *, workers, limit):
    """Do `work` for each assignment and student of a list, in a process of its own.

    Yields who is done, after how many seconds, and whether it had to be ended.
    """
    waiting, running, context = list(waiting), {}, multiprocessing.get_context("fork")
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                one = waiting.pop(0)
                process = context.Process(target=_apart, args=(work, root, *one, os.getpid()))
                process.start()
                running[one] = process, time.monotonic()
            for one, (process, start) in list(running.items()):
                process.join(0.05)
                seconds = time.monotonic() - start
                if process.is_alive() and seconds <= limit:
                    continue
                late = process.is_alive()
                _end(process)
                del running[one]
                yield one, seconds, late
    finally:
        for process, _ in running.values():
            _end(process)


def _apart(work, root, assignment, student, batch):
    os.setsid()
    threading.Thread(target=_with, args=(batch,), daemon=True).start()
    os.environ["COURSE_ROOT"] = str(root)
    warnings.simplefilter("ignore")  # nbgrader and its database have some; nbgrader takes one in a test for a failure
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        work(root, assignment, student)


def _end(process):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


def table(root, assignment):
    """Return a row for each submission."""
    from nbgrader.api import Gradebook, MissingEntry

    rows = []
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}?timeout=60") as gradebook:
        highest = gradebook.find_assignment(assignment).max_score
        for student in students(root, assignment):
            said = outcome(root, assignment, student) or {"status": "not graded yet"}
            row = {"student_id": student, "assignment": assignment, "score": 0.0, "max_score": highest}
            row |= {"late_seconds": 0, "needs_manual_grade": False, "status": said["status"]}
            row["note"] = "; ".join(map(str, said.get("notes", ())))
            with contextlib.suppress(MissingEntry):
                submission = gradebook.find_submission(assignment, student)
                if said["status"] == "graded":
                    row["score"], row["needs_manual_grade"] = submission.score, submission.needs_manual_grade
                row["late_seconds"] = round(submission.total_seconds_late or 0)
            rows.append(row)
    return rows


def write_table(root, assignment):
    """Write the table as CSV and return its path and rows."""
    rows, place = table(root, assignment), root / f"{assignment}.csv"
    with place.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["student_id"])
        writer.writeheader()
        writer.writerows(rows)
    return place, rows


def feedback(root, assignment, *, only=None, workers=2, limit=LIMIT):
    """Make nbgrader's feedback pages, which ask no other host for anything; return whose."""
    import nbgrader.apps  # noqa: F401

    known = students(root, assignment) if only is None else only
    graded = [(assignment, s) for s in known if (outcome(root, assignment, s) or {}).get("status") == "graded"]
    made = []
    for (_, student), _, late in _each(_feedback_one, root, graded, workers=workers, limit=limit):
        page = root / "feedback" / student / assignment / f"{assignment}.html"
        trouble = NO_PAGE if late or not page.exists() else ""
        said = outcome(root, assignment, student)
        said["notes"] = [note for note in said["notes"] if note != NO_PAGE] + [trouble] * bool(trouble)
        _put(root, assignment, student, said)
        if not trouble:
            made.append(student)
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
            part = page.with_suffix(".part")
            part.write_text(alone(text), encoding="utf-8")
            part.replace(page)


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
    parser.add_argument("step", choices=["collect", "autograde", "feedback", "table"])
    parser.add_argument("assignment")
    parser.add_argument("more", nargs="*", metavar="MORE", help="FROM where to collect, else further assignments")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--again", action="store_true", help="grade also what has been graded")
    options = parser.parse_args(words)
    root, names = COURSEWORK / "instructor", [options.assignment, *options.more]
    if options.step == "collect":
        if len(options.more) != 1:
            parser.error("collect needs FROM, a folder or a zip file")
        names.pop()
        for name, why in collect(root, options.assignment, options.more[0]).items():
            print(f"not taken: {name!r}: {why}")
    elif options.step == "autograde":
        print(sandbox.STATEMENTS[sandbox.isolation()])
        autograde(root, *names, workers=options.workers, again=options.again)
    elif options.step == "feedback":
        made = [page for name in names for page in feedback(root, name, workers=options.workers)]
        print(f"{len(made)} pages in coursework/instructor/feedback")
    for name in names:
        place, rows = write_table(root, name)
        for row in rows:
            marks = f"{row['score']:6.2f} of {row['max_score']:g}"
            manual = ", to be read" if row["needs_manual_grade"] else ""
            print(f"{row['student_id']:24} {marks}  {row['status']}{manual}{': ' if row['note'] else ''}{row['note']}")
        print(f"written to {place}")


if __name__ == "__main__":
    sys.exit(main())
