"""Grade a class: collect, autograde in parallel, feedback, and a table that a learning platform takes.

    grade.py collect ASSIGNMENT FROM     FROM: a folder or zip of <student>.ipynb or <student>/<anything>.ipynb
    grade.py autograde ASSIGNMENT [--workers N] [--again]
    grade.py feedback ASSIGNMENT
    grade.py table ASSIGNMENT

All of it in `coursework/instructor`, which `make course` made; nbgrader's own commands and formgrader work there too.
"""

import argparse
import contextlib
import csv
import hashlib
import json
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import warnings
import zipfile
from pathlib import Path

from course import COURSEWORK, nbgrader_api

STUDENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
LARGEST = 20 * 2**20
LIMIT = 300
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
    else:
        paths = [path for path in sorted(source.rglob("*")) if path.is_file() and not path.is_symlink()]
        found = [(str(p.relative_to(source)), p.stat().st_size, p.read_bytes) for p in paths]
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
            target = root / "submitted" / student / assignment / f"{assignment}.ipynb"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(read())
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
        digest.update(path.read_bytes())
    return digest.hexdigest()


def outcome(root, assignment, student):
    """Return what is written down about the submission as it stands, or None."""
    with contextlib.suppress(OSError, ValueError):
        said = json.loads(record(root, assignment, student).read_text(encoding="utf-8"))
        if said["fingerprint"] == fingerprint(root, assignment, student):
            return said
    return None


def write(root, assignment, student, status, seconds, detail=""):
    """Write down an outcome, whole or not at all."""
    place = record(root, assignment, student)
    place.parent.mkdir(parents=True, exist_ok=True)
    said = {"status": status, "seconds": round(seconds, 1), "detail": detail[-2000:]}
    said["fingerprint"] = fingerprint(root, assignment, student)
    part = place.with_suffix(".part")
    part.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    part.replace(place)


def _with(parent):
    """End this process and what it started when the batch ends, however that ends."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os.killpg(0, signal.SIGKILL)


def _grade_one(root, assignment, student, batch):
    os.setsid()
    threading.Thread(target=_with, args=(batch,), daemon=True).start()
    os.environ["COURSE_ROOT"] = str(root)
    warnings.simplefilter("ignore")  # nbgrader and its database have some; nbgrader takes one in a test for a failure
    start = time.monotonic()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        result = nbgrader_api(root).autograde(assignment, student, force=True)
    detail = "" if result["success"] else f"{result['log']}\n{result.get('error') or ''}"
    status = "graded" if result["success"] else "cannot be graded"
    write(root, assignment, student, status, time.monotonic() - start, detail)


def autograde(root, assignment, *, workers=2, again=False, limit=LIMIT):
    """Grade every submission that has not been graded as it stands, each in a process of its own."""
    import marking
    import nbgrader.apps  # noqa: F401, what every process needs is imported once, here

    os.environ["COURSE_ROOT"] = str(root)
    marking.load()
    waiting = [s for s in students(root, assignment) if again or outcome(root, assignment, s) is None]
    running, context = {}, multiprocessing.get_context("fork")
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                student = waiting.pop(0)
                process = context.Process(
                    target=_grade_one, args=(root, assignment, student, os.getpid()), daemon=False
                )
                process.start()
                running[student] = process, time.monotonic()
            for student, (process, start) in list(running.items()):
                process.join(0.05)
                late = time.monotonic() - start > limit
                if process.is_alive() and not late:
                    continue
                _end(process)
                del running[student]
                if outcome(root, assignment, student) is None or late:
                    why = "out of time" if late else "cannot be graded"
                    write(root, assignment, student, why, time.monotonic() - start)
    finally:
        for process, _ in running.values():
            _end(process)


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


def feedback(root, assignment, *, only=None):
    """Make nbgrader's feedback pages, which ask no other host for anything; return whose."""
    known = students(root, assignment) if only is None else only
    graded = [s for s in known if (outcome(root, assignment, s) or {}).get("status") == "graded"]
    api = nbgrader_api(root)
    for student in graded:
        result = api.generate_feedback(assignment, student, force=True)
        if not result["success"]:
            raise RuntimeError(f"nbgrader could not make the feedback of {student}:\n{result['log']}")
        for page in (root / "feedback" / student / assignment).glob("*.html"):
            page.write_text(alone(page.read_text(encoding="utf-8")), encoding="utf-8")
    return graded


def alone(html):
    """Return a page without scripts, and with a policy under which nothing in it can ask another host."""
    html = re.sub(r"<script\b.*?</script\s*>", "", html, flags=re.S | re.I)
    html = re.sub(r"<link\b[^>]*>", "", html, flags=re.I)
    html = re.sub(r"<meta\b[^>]*http-equiv\s*=\s*[\"']?refresh[^>]*>", "", html, flags=re.I)
    html = re.sub(r"@import[^;]*;", "", html)
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    return re.sub(r"<head\b[^>]*>", lambda found: f"{found[0]}\n{policy}", html, count=1, flags=re.I)


def main():
    """Do one step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["collect", "autograde", "feedback", "table"])
    parser.add_argument("assignment")
    parser.add_argument("source", nargs="?", type=Path, metavar="FROM")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--again", action="store_true", help="grade also what has been graded")
    options = parser.parse_args()
    root = COURSEWORK / "instructor"
    if options.step == "collect":
        if options.source is None:
            parser.error("collect needs FROM, a folder or a zip file")
        for name, why in collect(root, options.assignment, options.source).items():
            print(f"not taken: {name!r}: {why}")
    elif options.step == "autograde":
        from grader import sandbox

        print(sandbox.STATEMENTS[sandbox.isolation()])
        autograde(root, options.assignment, workers=options.workers, again=options.again)
    elif options.step == "feedback":
        print(f"{len(feedback(root, options.assignment))} pages in coursework/instructor/feedback")
    place, rows = write_table(root, options.assignment)
    for row in rows:
        marks = f"{row['score']:6.2f} of {row['max_score']:g}"
        manual = ", to be read" if row["needs_manual_grade"] else ""
        print(f"{row['student_id']:24} {marks}  {row['status']}{manual}")
    print(f"written to {place}")


if __name__ == "__main__":
    sys.exit(main())
