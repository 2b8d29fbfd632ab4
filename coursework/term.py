"""When assignments are due, for whom later, and what it costs to be late: `term.toml` in the course directory.

    zone = "Europe/Berlin"            # of all times that name no offset

    [late]                            # for every assignment
    grace_minutes = 15                # so late costs nothing; later than that, the time from the due date on counts
    percent = 10                      # of all points of the assignment, for each period that has begun
    every_hours = 24
    at_most_percent = 50

    [assignments.bellman]
    due = 2026-11-06T23:59:00
    canvas = "Problem set 1 (4711)"   # what the assignment is called there; also: moodle
    percent = 5                       # what is said here counts before what is said above

    [extensions.bellman]
    ann = 2026-11-13T23:59:00

    [points.bellman]                  # other points than those of the source, by the name of the graded cell
    why-test = 0                      # counts for nobody

    [groups.bellman]                  # hand in once: the last notebook of any of them counts for all
    gauss = ["ann", "bob"]

A group is a student to nbgrader, under its own name; lateness is by each member's own due date. An extension takes the
place of the due date; the grace comes after it. Points are taken off once, from the points of the whole assignment, and
never more than there are. The formgrader keeps the points before that.
"""

import math
import tomllib
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from roster import STUDENT, Refused

COSTS = {"grace_minutes": 0.0, "percent": 0.0, "every_hours": 24.0, "at_most_percent": 100.0}


@dataclass(frozen=True)
class Rule:
    """What holds for an assignment: its due date, or None, and what lateness costs."""

    due: datetime | None = None
    grace_minutes: float = COSTS["grace_minutes"]
    percent: float = COSTS["percent"]
    every_hours: float = COSTS["every_hours"]
    at_most_percent: float = COSTS["at_most_percent"]
    canvas: str = ""
    moodle: str = ""


@dataclass(frozen=True)
class Term:
    """The dates of a term."""

    zone: ZoneInfo | None = None
    rules: dict = field(default_factory=dict)
    later: dict = field(default_factory=dict)
    points: dict = field(default_factory=dict)
    groups: dict = field(default_factory=dict)

    def holder(self, assignment, student):
        """Return under whose name a student's work is kept: that of the group, or the own one."""
        groups = self.groups.get(assignment, {}).items()
        return next((group for group, members in groups if student in members), student)

    def members(self, assignment, name):
        """Return for whom the work under a name counts."""
        return self.groups.get(assignment, {}).get(name, (name,))

    def rule(self, assignment):
        """Return what holds for an assignment."""
        return self.rules.get(assignment, Rule())

    def due(self, assignment, student):
        """Return the time at which a student's work is due, or None."""
        return self.later.get((assignment, student), self.rule(assignment).due)

    def seconds_late(self, assignment, student, handed_in):
        """Return by how many seconds a work came after it was due; 0 within the grace."""
        due = self.due(assignment, student)
        late = (handed_in - due).total_seconds() if due else 0.0
        return late if late > 60 * self.rule(assignment).grace_minutes else 0.0

    def penalty(self, assignment, seconds, *, score, highest):
        """Return the points that are taken off.

        Parameters
        ----------
        assignment : str
        seconds : float
            By which the work was late, as `seconds_late` says.
        score, highest : float
            The points of the work, and those of the assignment.

        Returns
        -------
        float
            From 0 to `score`.
        """
        rule = self.rule(assignment)
        periods = math.ceil(seconds / (3600 * rule.every_hours)) if seconds > 0 else 0
        percent = min(periods * rule.percent, rule.at_most_percent)
        return max(0.0, min(score, round(highest * percent / 100, 2)))

    def instant(self, given, what, *, earlier=False):
        """Return a time of the world from one that a person or a platform wrote down.

        A time without an offset is one on the clocks of the zone. When clocks are put back an hour is there twice, and
        when they are put forward one is missing; such times are refused, or, with `earlier`, the first of two is taken.
        """
        if given.tzinfo is not None:
            return given.astimezone(UTC)
        if self.zone is None:
            raise Refused(f"{what} needs a zone in term.toml, or an offset, as in {given.isoformat()}+01:00")
        first, second = (given.replace(tzinfo=self.zone, fold=fold) for fold in (0, 1))
        if first.utcoffset() != second.utcoffset() and not earlier:
            there = first.astimezone(UTC).astimezone(self.zone).replace(tzinfo=None) == given
            trouble = "there twice" if there else "missing"
            raise Refused(f"{what} must name an offset: {given} is {trouble} on the clocks of {self.zone}")
        return first.astimezone(UTC)


def read(path, *, assignments=None, students=None):
    """Return the dates in a file.

    Parameters
    ----------
    path : Path
    assignments, students : collection of str, optional
        That there are; others are refused.

    Raises
    ------
    Refused
        If something in the file means nothing, with its name.
    """
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refused(f"{path.name} must be TOML: {error}") from None
    _only(path, "", said, ("zone", "late", "assignments", "extensions", "points", "groups"))
    try:
        zone = ZoneInfo(said["zone"]) if "zone" in said else None
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise Refused(f"{path.name}: zone must be a name such as Europe/Berlin, got {said['zone']!r}") from None
    bare = Term(zone)
    general = _costs(path, "late", _table(path, "late", said.get("late", {})))
    _only(path, "late", general, COSTS)
    rules = {}
    for name, given in _table(path, "assignments", said.get("assignments", {})).items():
        where = f"assignments.{name}"
        _known(path, where, name, assignments)
        _only(path, where, _table(path, where, given), (*COSTS, "due", "canvas", "moodle"))
        for title in ("canvas", "moodle"):
            if not isinstance(given.get(title, ""), str):
                raise Refused(f"{path.name}: {where}.{title} must be the name of an assignment in quotation marks")
        due = _time(path, f"{where}.due", given["due"], bare) if "due" in given else None
        rules[name] = Rule(**(general | _costs(path, where, given) | {"due": due}))
    later = {}
    for name, given in _table(path, "extensions", said.get("extensions", {})).items():
        for student, when in _table(path, f"extensions.{name}", given).items():
            where = f"extensions.{name}.{student}"
            if name not in rules or rules[name].due is None:
                raise Refused(f"{path.name}: {where} extends nothing: assignments.{name} has no due date")
            if students is not None and student not in students:
                raise Refused(f"{path.name}: {where} is nobody in the roster")
            later[name, student] = _time(path, where, when, bare)
            if later[name, student] < rules[name].due:
                raise Refused(f"{path.name}: {where} must not be before the due date of the assignment")
    return Term(zone, rules, later, _points(path, said, assignments), _groups(path, said, assignments, students))


def _points(path, said, assignments):
    found = _table(path, "points", said.get("points", {}))
    for name, given in found.items():
        _known(path, f"points.{name}", name, assignments)
        for cell, value in _table(path, f"points.{name}", given).items():
            number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1000
            if not number:
                raise Refused(f"{path.name}: points.{name}.{cell} must be a number from 0 to 1000, got {value!r}")
    return found


def _groups(path, said, assignments, students):
    found = _table(path, "groups", said.get("groups", {}))
    for name, given in found.items():
        _known(path, f"groups.{name}", name, assignments)
        placed = {}
        for group, members in _table(path, f"groups.{name}", given).items():
            where = f"groups.{name}.{group}"
            if not STUDENT.fullmatch(group) or group in (students or ()):
                raise Refused(f"{path.name}: {where} must be a name of its own, of letters, digits, dots, _ and -")
            if not isinstance(members, list) or not members or not all(isinstance(one, str) for one in members):
                raise Refused(f'{path.name}: {where} must be a list of students, such as ["ann", "bob"]')
            for one in members:
                if students is not None and one not in students:
                    raise Refused(f"{path.name}: {where} has {one!r}, who is nobody in the roster")
                if one in placed:
                    raise Refused(f"{path.name}: {where} has {one!r}, who is in {placed[one]} too")
                placed[one] = group
    return found


def _known(path, where, name, assignments):
    if assignments is not None and name not in assignments:
        raise Refused(f"{path.name}: {where} is no assignment; there are {', '.join(assignments)}")


def _only(path, where, given, names):
    for name in given:
        if name not in names:
            place = f"[{where}] has" if where else "there are"
            raise Refused(f"{path.name}: {place} {', '.join(names)}; {name!r} is none of them")


def _table(path, where, given):
    if not isinstance(given, dict):
        raise Refused(f"{path.name}: {where} must be a table, [{where}], got {given!r}")
    return given


def _costs(path, where, given):
    for name, value in given.items():
        if name not in COSTS:
            continue
        highest = 100 if "percent" in name else 24 * 366 if "hours" in name else 60 * 24 * 366
        number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= highest
        if not number or (name == "every_hours" and value == 0):
            raise Refused(f"{path.name}: {where}.{name} must be a number from 0 to {highest}, got {value!r}")
    return given


def _time(path, where, given, term):
    if isinstance(given, date) and not isinstance(given, datetime):
        given = datetime.combine(given, time(23, 59, 59))
    if not isinstance(given, datetime):
        raise Refused(f"{path.name}: {where} must be a time such as 2026-11-06T23:59:00, got {given!r}")
    return term.instant(given, f"{path.name}: {where}")


def of(root, **known):
    """Return the dates of a course, `term.toml` in its directory, or None."""
    place = root / "term.toml"
    return read(place, **known) if place.exists() else None
