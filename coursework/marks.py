"""The marks of a submission, question by question: what counts, what a regrading changed, and what a person gave.

Marks, extra points and comments that a person gave in the formgrader are never written over. nbgrader asks for each of
them to be looked at again after every grading; here only for those where something changed under them: what the student
wrote, the question with its rubric, its points, or what the computer says of it.
"""

import csv
import hashlib
import json
from datetime import UTC, datetime

import nbformat
import whole


def gradebook(root, course="divergence-notes"):
    """Return the gradebook of a course; several commands may write to it."""
    from nbgrader.api import Gradebook

    return Gradebook(f"sqlite:///{root / 'gradebook.db'}?timeout=60", course)


def prepare(root):
    """Make the gradebook ready for several processes at once.

    Steps of nbgrader open it under the name of a default course, and write that down where it is missing: of several
    that do so at the same time, one would succeed.
    """
    for course in ("divergence-notes", "default_course"):
        gradebook(root, course).close()


def _grades(submission):
    return [grade for notebook in submission.notebooks for grade in notebook.grades]


def counted(submission):
    """Return the points of a submission, and whether somebody has to read it: of the questions that count."""
    grades = [grade for grade in _grades(submission) if grade.max_score]
    return sum(grade.score for grade in grades), any(grade.needs_manual_grade for grade in grades)


def questions(root, assignment, student):
    """Return what there is to say about each graded cell of a submission, as the gradebook has it now."""
    with gradebook(root) as book:
        grades = _grades(book.find_submission(assignment, student))
        return {
            grade.name: {
                "auto": grade.auto_score,
                "score": grade.score,
                "points": grade.max_score,
                "needs": grade.needs_manual_grade,
                "digest": _digest(root, assignment, student, grade.name, grade.max_score),
            }
            for grade in grades
        }


def _digest(root, assignment, student, name, points):
    """Return what changes when a person would have to read again."""
    read, source = (
        nbformat.read(place / assignment / f"{assignment}.ipynb", as_version=4).cells
        for place in (root / "read" / student, root / "source")
    )
    texts = [cell.source for cell in read if cell.cell_type != "code"]
    texts += [cell.source for cell in source if cell.metadata.get("nbgrader", {}).get("grade_id") == name]
    return hashlib.sha256(json.dumps([texts, points]).encode()).hexdigest()


def _place(root, assignment, student):
    return root / "graded" / assignment / f"{student}.before"


def before(root, assignment, student):
    """Return what was remembered of a submission that is graded again, or None."""
    try:
        return json.loads(_place(root, assignment, student).read_text(encoding="utf-8"))
    except OSError:
        return None


def remember(root, assignment, student, known):
    """Keep the marks of a submission before it is graded again, until the change is reported.

    Parameters
    ----------
    root : Path
    assignment, student : str
    known : dict or None
        What was written down when it was graded.
    """
    from nbgrader.api import MissingEntry

    place = _place(root, assignment, student)
    if known is None or place.exists():  # of a batch that was stopped; what it remembered is from before that
        return
    kept = {name: dict(said) for name, said in known.get("questions", {}).items()}
    with gradebook(root) as book:
        try:
            grades = _grades(book.find_submission(assignment, student))
        except MissingEntry:
            grades = []
        for grade in grades:
            if grade.name in kept:
                kept[grade.name] |= {"score": grade.score, "needs": grade.needs_manual_grade}
    whole.write(place, json.dumps({"questions": kept}) + "\n")


def keep_read(root, assignment, student, known):
    """Say again of the marks that a person gave that they are done, where nothing changed under them."""
    kept = known["questions"] if known else {}
    with gradebook(root) as book:
        for grade in _grades(book.find_submission(assignment, student)):
            said = kept.get(grade.name)
            if said and grade.manual_score is not None and said["auto"] == grade.auto_score:
                if said["digest"] == _digest(root, assignment, student, grade.name, grade.max_score):
                    grade.needs_manual_grade = said["needs"]
        book.db.commit()


def _total(said):
    return round(sum(one["score"] for one in said.values() if one["points"]), 2)


def _of(said, name):
    one = said.get(name)
    return f"{one['score']:g} of {one['points']:g}" if one else "none"


def report(root, assignments):
    """Return a line for each submission whose marks a regrading changed, and add them to `changes.csv`.

    Parameters
    ----------
    root : Path
    assignments : collection of str

    Returns
    -------
    list of dict
        With when, assignment, student, the points before and after, and the questions that differ.
    """
    rows, now = [], datetime.now(UTC).isoformat(timespec="seconds")
    for assignment in assignments:
        for place in sorted((root / "graded" / assignment).glob("*.before")):
            try:
                new = json.loads(place.with_suffix(".json").read_text(encoding="utf-8")).get("questions", {})
            except OSError:  # not graded yet
                continue
            old = before(root, assignment, place.stem)["questions"]
            differ = [name for name in [*old, *(new.keys() - old.keys())] if _of(old, name) != _of(new, name)]
            if differ:
                said = "; ".join(f"{name}: {_of(old, name)}, now {_of(new, name)}" for name in differ)
                row = {"when": now, "assignment": assignment, "student": place.stem}
                rows.append(row | {"before": _total(old), "after": _total(new), "questions": said})
            place.unlink()
    log = root / "changes.csv"
    fresh = not log.exists()
    if rows:
        with log.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            if fresh:
                writer.writeheader()
            writer.writerows(rows)
    return rows
