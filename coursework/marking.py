"""What the hidden tests call: `mark`, which judges an answer, and `sealed`; and the numbers of a class.

It stays with the instructor, as the questions do. How an answer is judged is in `divergence_notes.grading`; where the
student's code runs meanwhile is in `grader`.
"""

import ast
import hashlib
import importlib
import itertools
import os
import pkgutil
from pathlib import Path

import numpy as np
import questions
import roster
import term

from divergence_notes import grading
from divergence_notes.grading import typed

HERE = Path(__file__).resolve().parent

ROWS = 64
"""Rows of numbers of which each student gets one, by name."""
NOBODY = object()
"""In the place of a name, where all have the same numbers; nothing that stands in a notebook is it."""
notes = []
"""What a table should say about the submission that is being graded."""


def root():
    """Return the course directory."""
    return Path(os.environ.get("COURSE_ROOT", HERE / "instructor"))


def secret():
    """Return the seed that `make course` wrote down for this class, which is also what the tests draw from."""
    return (root() / "seed.txt").read_text(encoding="utf-8").strip()


def handed_out(notebook):
    """Return the numbers that stand in a notebook, in the cell tagged `parameters`."""
    (text,) = (cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    return ast.literal_eval(text.partition("=")[2].strip())


def draw_parameters(chapter, seed):
    """Draw the numbers of a chapter's assignment, such that no foreseen mistake gives the right number."""
    made = importlib.import_module(f"questions.{chapter}")
    digest = hashlib.sha256(f"{chapter}:{seed}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "big"))
    for _ in range(1000):
        given = made.parameters(rng)
        if _apart(made, given, rng):
            return given | {"own": {"of": list(made.OWN), "rows": _rows(made, given, rng)}}
    raise ValueError(f"parameters of {chapter} must keep right and wrong values apart; a thousand draws did not")


def _rows(made, given, rng):
    """Draw the rows of which each student gets one; each keeps right and wrong values apart."""
    rows = []
    for _ in range(1000):
        drawn = made.parameters(rng)
        row = [drawn[name] for name in made.OWN]
        if row not in rows and _apart(made, given | dict(zip(made.OWN, row, strict=True)), rng):
            rows.append(row)
        if len(rows) == ROWS:
            break
    return rows


def apart(chapter, given):
    """Say whether with these numbers, and with those of each student, no foreseen mistake gives the right one."""
    made, rng = importlib.import_module(f"questions.{chapter}"), np.random.default_rng(0)
    of_class, own = grading.own_numbers(..., given), given.get("own", {"rows": []})
    every = [of_class | dict(zip(own["of"], row, strict=True)) for row in own["rows"]]
    return all(_apart(made, numbers, rng) for numbers in (of_class, *every))


def _apart(made, given, rng):
    values = [exercise for exercise in made.EXERCISES if isinstance(exercise, grading.Value) and exercise.judge is None]
    return all(_distinct(exercise, exercise.draw(rng, **given)) for exercise in values)


def _distinct(exercise, args):
    """Say whether the check can tell apart all the values that are foreseen; what is no number it has to judge."""
    made = [make(*args) for make in (exercise.right, *(m.wrong for m in exercise.mistakes))]
    try:
        found = [np.asarray(value, dtype=float) for value in made]
    except (TypeError, ValueError):
        return True
    pairs = itertools.combinations(found, 2)
    return all(np.isfinite(one).all() for one in found) and not any(
        one.shape == two.shape and np.allclose(one, two, rtol=2 * exercise.rtol) for one, two in pairs
    )


def tests(chapter):
    """List the files that decide what a hidden test of a chapter says of an answer."""
    core = [
        path for path in Path(grading.__file__).parent.glob("*.py") if not (HERE / "questions" / path.name).exists()
    ]
    return [
        HERE / "questions" / f"{chapter}.py",
        HERE / "marking.py",
        *sorted((HERE / "grader").glob("*.py")),
        *sorted(core),
    ]


def load():
    """Register the exercises of every graded question."""
    for found in pkgutil.iter_modules(questions.__path__):
        grading.register(*importlib.import_module(f"questions.{found.name}").EXERCISES)


def mark(name, answer, *, points, given=None, student=NOBODY):
    """Judge an answer, print what there is to say, and return the points, which nbgrader reads as the cell's value.

    Parameters
    ----------
    name : str
        Of the exercise.
    answer : object
    points : float
        For a right answer.
    given : mapping, optional
        The numbers of the class.
    student : object, optional
        What stands in the notebook as the student's name, where some of the numbers are drawn for it.
    """
    load()
    if student is not NOBODY and (complaint := stranger(student)):
        print(f"{name}: {complaint}")
        return 0
    if given is not None:
        given = grading.own_numbers(... if student is NOBODY else student, given)
    # The time limit is a long one: the other side has limits of its own.
    result = grading.check(name, answer, seed=secret(), given=given, time_limit=300)
    print(result)
    if isinstance(answer, typed.Computed):
        _note(f"{answer.name} is not typed in, and earns nothing: {answer.source}")
    return round(points * result.share, 2)


def _note(said):
    if said not in notes:
        notes.append(said)


def theirs():
    """Return the names under which the roster knows whoever handed in, in plain letters, or None without a roster."""
    who = os.environ.get("COURSE_STUDENT")
    class_list, dates = _course(root())
    if who is None or class_list is None:
        return None
    return _plain(who, *_called(class_list, dates.members(os.environ["COURSE_ASSIGNMENT"], who)))


def _course(place):
    """Return the roster of a course, or None, and its dates and groups."""
    return roster.of(place), term.of(place) or term.Term()


def _called(class_list, students):
    for student in students:
        one = class_list.students.get(student, roster.Student(student))
        yield from (one.student, *roster.spellings(one.name), one.email, one.login, one.number, one.canvas)
        yield from one.others()


def _plain(*found):
    return {grading.own.plain(name) for name in found if any(c.isalnum() for c in name)}


def stranger(student):
    """Return what is wrong with a name in a notebook, if it is not one of whoever handed it in."""
    if student is None or student is ...:
        return "Nothing here yet: your numbers are drawn from your name, and the cell for it is open."
    if isinstance(student, grading.Fault):
        return f"Not judged: your numbers are drawn from your name, and that {student}."
    try:
        found, names = grading.own.plain(student), theirs()
    except ValueError:
        return "STUDENT must be your name, a text in quotation marks."
    if names is None or found in names:
        return None
    wrote, known = str(student)[:60], os.environ["COURSE_STUDENT"]
    _note(f"the name in the notebook, {wrote!r}, is not in the roster for this student")
    return f"Not judged: you wrote the name {wrote!r}, and your instructor knows you as {known!r}."


SEALED = "sealed.csv"
HEADS = ("assignment", "student", "code")


def _lines(place):
    found = roster.lines(place / SEALED) if (place / SEALED).exists() else []
    if found and not set(HEADS) <= set(found[0]):
        raise roster.Refused(f"{SEALED} must have the columns {', '.join(HEADS)}, got {sorted(found[0])}")
    return [{head: (line[head] or "").strip() for head in HEADS} for line in found]


def codes(place, assignment, who):
    """Return the first code of predictions that a student handed in, in a list; of a group, that of each member.

    Whoever teaches writes them into `sealed.csv`, with the columns assignment, student and code. Without a line for the
    assignment nothing is asked of anybody, and this is None.
    """
    lines = [line for line in _lines(place) if line["assignment"] == assignment]
    if not lines:
        return None
    (class_list, dates), found = _course(place), []
    for one in dict.fromkeys([*dates.members(assignment, who), who]):
        known = _plain(*_called(class_list or roster.Roster(), [one]))
        found += [line["code"] for line in lines if _plain(line["student"]) & known][:1]
    return found


def idle(place, assignments):
    """Return a sentence for each line of `sealed.csv` that counts for nobody: a slip there costs a student points."""
    (class_list, dates), said = _course(place), []
    everybody = None if class_list is None else _plain(*_called(class_list, class_list.students))
    for at, line in enumerate(_lines(place), start=2):
        assignment, who = line["assignment"], line["student"]
        if assignment not in assignments:
            said.append(f"{SEALED}, line {at}: {assignment!r} is no assignment")
        elif everybody is not None and not _plain(who) & (everybody | _plain(*dates.groups.get(assignment, ()))):
            said.append(f"{SEALED}, line {at}: {who!r} is nobody in the roster")
        elif not line["code"]:
            said.append(f"{SEALED}, line {at}: there is no code")
    return said


def sealed(points, student, *answers):
    """Return the points of answers, or none where they are not those that were sealed before, as `codes` has them."""
    who = os.environ.get("COURSE_STUDENT")
    given = None if who is None else codes(root(), os.environ["COURSE_ASSIGNMENT"], who)
    if given is None or not points:
        return points
    if not given:
        print("No code of yours was handed in before the run: the prediction does not count.")
        return 0
    said = [answer.value if isinstance(answer, typed.Computed) else answer for answer in answers]
    sealed_as = grading.seal(student, *said).replace("-", "")
    if sealed_as not in ("".join(filter(str.isalnum, code.upper())) for code in given):
        print(f"This prediction is not the one that you sealed with the code {' or '.join(given)}: it does not count.")
        return 0
    return points
