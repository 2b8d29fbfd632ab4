"""Due dates, extensions and what lateness costs: by hand, in every zone, and what is wrong in the file."""

from datetime import UTC, datetime, timedelta

import pytest
import roster
import term
from hypothesis import given
from hypothesis import strategies as st

TERM = """
zone = "Europe/Berlin"

[late]
grace_minutes = 15
percent = 10
at_most_percent = 50

[assignments.bellman]
due = 2026-11-06T23:59:00
canvas = "Problem set 1 (4711)"

[assignments.key_equation]
due = 2026-12-04
percent = 5
every_hours = 1

[assignments.contraction]

[extensions.bellman]
ann = 2026-11-13T23:59:00
zoe = 2026-11-08T12:00:00-05:00
"""


def read(tmp_path, text, **known):
    place = tmp_path / "term.toml"
    place.write_text(text, encoding="utf-8")
    return term.read(place, **known)


@pytest.fixture
def dates(tmp_path):
    return read(tmp_path, TERM)


def at(text):
    return datetime.fromisoformat(text)


class TestDates:
    def test_a_zone_an_offset_and_a_day(self, dates):
        assert dates.due("bellman", "bob") == at("2026-11-06T22:59:00Z")
        assert dates.due("bellman", "ann") == at("2026-11-13T22:59:00Z")
        assert dates.due("bellman", "zoe") == at("2026-11-08T17:00:00Z")
        assert dates.due("key_equation", "bob") == at("2026-12-04T22:59:59Z")  # the end of the day
        assert dates.due("contraction", "bob") is None and dates.due("preqn", "bob") is None

    def test_what_is_said_of_one_assignment_counts_first(self, dates):
        assert dates.rule("bellman") == term.Rule(at("2026-11-06T22:59:00Z"), 15, 10, 24, 50, "Problem set 1 (4711)")
        assert dates.rule("key_equation") == term.Rule(at("2026-12-04T22:59:59Z"), 15, 5, 1, 50)

    @pytest.mark.parametrize(
        ("student", "came", "seconds", "percent"),
        [
            ("bob", "2026-11-06T22:59:00Z", 0, 0),
            ("bob", "2026-11-06T23:14:00Z", 0, 0),  # within the grace
            ("bob", "2026-11-06T23:14:01Z", 901, 10),  # after it, from the due date
            ("bob", "2026-11-07T22:59:00Z", 86400, 10),  # a day
            ("bob", "2026-11-07T22:59:01Z", 86401, 20),  # the second has begun
            ("bob", "2027-02-01T00:00:00Z", 7434060, 50),  # no more than that
            ("ann", "2026-11-13T23:00:00Z", 0, 0),  # an extension, and the grace after it
            ("ann", "2026-11-14T22:00:00Z", 82860, 10),
            ("zoe", "2026-11-08T18:00:00+01:00", 0, 0),
        ],
    )
    def test_lateness_by_hand(self, dates, student, came, seconds, percent):
        assert dates.seconds_late("bellman", student, at(came)) == seconds
        assert dates.penalty("bellman", seconds, score=30, highest=30) == pytest.approx(0.3 * percent)

    @given(
        st.floats(0, 30),
        st.floats(0, 1e9),
        st.floats(0, 100),
        st.floats(0, 100),
        st.floats(0, 1e4),
        st.floats(0.1, 8784),
    )
    def test_points_are_never_negative_and_never_grow(self, score, seconds, percent, most, more, every):
        rule = term.Rule(None, 0, percent, every, most)
        dates = term.Term(None, {"bellman": rule})
        taken, later = (dates.penalty("bellman", s, score=score, highest=30) for s in (seconds, seconds + more))
        assert 0 <= taken <= later <= score and (seconds or not taken)

    def test_nothing_is_taken_without_dates(self):
        assert term.Term().seconds_late("bellman", "ann", datetime.now(UTC)) == 0

    def test_work_without_points_loses_none(self, dates):
        assert dates.penalty("bellman", 1e6, score=0, highest=30) == 0


class TestClocks:
    def test_an_hour_that_is_there_twice(self, tmp_path):
        for hour, wrong in (("10-25T02:30:00", "there twice"), ("03-29T02:30:00", "missing")):
            with pytest.raises(roster.Refused, match=f"assignments.bellman.due must name an offset: .* is {wrong}"):
                read(tmp_path, f'zone = "Europe/Berlin"\n[assignments.bellman]\ndue = 2026-{hour}\n')
        dates = read(tmp_path, 'zone = "Europe/Berlin"\n[assignments.bellman]\ndue = 2026-10-25T02:30:00+01:00\n')
        assert dates.due("bellman", "ann") == at("2026-10-25T01:30:00Z")

    def test_what_a_platform_wrote_is_taken_as_the_earlier(self, dates):
        twice = datetime(2026, 10, 25, 2, 30)
        assert dates.instant(twice, "x", earlier=True) == at("2026-10-25T00:30:00Z")

    def test_a_due_date_over_the_change_of_clocks(self, tmp_path):
        dates = read(tmp_path, 'zone = "Europe/Berlin"\n[assignments.bellman]\ndue = 2026-10-24T23:59:00\n')
        assert dates.due("bellman", "ann") + timedelta(hours=25) == at("2026-10-25T23:59:00+01:00")


class TestRefused:
    @pytest.mark.parametrize(
        ("text", "wrong"),
        [
            ("zone = ", "must be TOML"),
            ("zone = 'Berlin'", "zone must be a name such as Europe/Berlin, got 'Berlin'"),
            ("zone = '../../etc/passwd'", "zone must be a name"),
            ("zone = 1", "zone must be a name"),
            ("colour = 1", "'colour' is none of them"),
            ("late = 5", r"late must be a table, \[late\], got 5"),
            ("[late]\ngrace = 5", "'grace' is none of them"),
            ("[late]\npercent = -5", "late.percent must be a number from 0 to 100, got -5"),
            ("[late]\npercent = nan", "late.percent must be a number from 0 to 100, got nan"),
            ("[late]\npercent = true", "late.percent must be a number"),
            ("[late]\npercent = '5'", "late.percent must be a number"),
            ("[late]\nevery_hours = 0", "late.every_hours must be a number"),
            ("[assignments]\nbellman = 2026-11-06T23:59:00Z", r"must be a table, \[assignments.bellman\]"),
            ("[assignments.belman]", "assignments.belman is no assignment; there are bellman"),
            ("[assignments.bellman]\ndue = '6 November'", "assignments.bellman.due must be a time such as"),
            ("[assignments.bellman]\ndue = 2026-11-06T23:59:00", "needs a zone in term.toml"),
            ("[assignments.bellman]\ncanvas = 5", "assignments.bellman.canvas must be the name"),
            ("[extensions.bellman]\nann = 2026-11-13", "extends nothing"),
            ("[assignments.bellman]\n[extensions.bellman]\nann = 2026-11-13", "extends nothing"),
            (
                "zone = 'UTC'\n[assignments.bellman]\ndue = 2026-11-06\n[extensions.bellman]\neve = 2026-11-13",
                "extensions.bellman.eve is nobody in the roster",
            ),
            (
                "zone = 'UTC'\n[assignments.bellman]\ndue = 2026-11-06\n[extensions.bellman]\nann = 2026-11-03",
                "extensions.bellman.ann must not be before the due date",
            ),
        ],
    )
    def test_what_means_nothing_is_refused(self, tmp_path, text, wrong):
        with pytest.raises(roster.Refused, match=wrong):
            read(tmp_path, text, assignments=["bellman"], students=["ann"])


class TestPointsAndGroups:
    def test_are_read(self, tmp_path):
        found = read(tmp_path, '[points.bellman]\nwhy-test = 0\n[groups.bellman]\ngauss = ["ann", "bob"]\n')
        assert found.points == {"bellman": {"why-test": 0}}
        assert [found.holder("bellman", one) for one in ("ann", "bob", "zoe")] == ["gauss", "gauss", "zoe"]
        assert found.holder("preqn", "ann") == "ann" and found.members("bellman", "gauss") == ["ann", "bob"]
        assert tuple(found.members("bellman", "zoe")) == ("zoe",)

    @pytest.mark.parametrize(
        ("text", "wrong"),
        [
            ("[points.belman]\na = 1", "points.belman is no assignment"),
            ("[points.bellman]\na = -1", "points.bellman.a must be a number from 0 to 1000, got -1"),
            ("[points.bellman]\na = true", "must be a number"),
            ("[points]\nbellman = 1", "points.bellman must be a table"),
            ('[groups.bellman]\ngauss = ["ann", "eve"]', "groups.bellman.gauss has 'eve', who is nobody"),
            ('[groups.bellman]\na1 = ["ann"]\na2 = ["ann"]', "groups.bellman.a2 has 'ann', who is in a1 too"),
            ('[groups.bellman]\nann = ["bob"]', "groups.bellman.ann must be a name of its own"),
            ('[groups.bellman]\n"a/b" = ["bob"]', "must be a name of its own"),
            ('[groups.bellman]\ngauss = "ann"', "must be a list of students"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path, text, wrong):
        with pytest.raises(roster.Refused, match=wrong):
            read(tmp_path, text, assignments=["bellman"], students=["ann", "bob"])
