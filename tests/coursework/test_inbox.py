"""What comes back from a class: whose each notebook is, which one counts, and what is kept that has no place."""

import stat
import unicodedata
import zipfile
from datetime import UTC, datetime

import grade
import inbox
import pytest
import roster
from grader import intake
from hypothesis import given
from hypothesis import strategies as st

from tests.coursework import archives

ZONE = 'zone = "Europe/Berlin"\n'


@pytest.fixture
def root(tmp_path):
    return archives.class_of(tmp_path / "instructor")


def there(root, assignment="bellman"):
    """Return what is collected, by student."""
    found = (root / "submitted").glob(f"*/{assignment}/{assignment}.ipynb")
    return {path.parent.parent.name: path.read_text(encoding="utf-8") for path in found}


def stamps(root):
    """Return the times beside what is collected."""
    return {student: grade.handed_in(root, "bellman", student) for student in there(root)}


def kept(root, assignment="bellman"):
    """Return what is kept without a place: contents, and whose it may be."""
    found = {}
    for known in (root / "unplaced" / assignment).glob("*/list.csv"):
        for line in roster.lines(known):
            file = known.with_name(line["kept"]).read_text(encoding="utf-8") if line["kept"] else None
            found[line["name"]] = line["student"], file
    return found


MOODLE = [
    ("Ann Lee", 71, "bellman.ipynb", "ann's"),
    ("Jörg Müller", 72, "my answers (1).ipynb", "jörg's"),
    ("Berg Zoë van der", 73, "sub/folder/b.ipynb", "zoë's"),
    ("Dan ONeil", 74, "bellman.ipynb", "dan's"),
    ("Eve Stranger", 75, "bellman.ipynb", "eve's"),
    ("Bo Li", 76, "bellman.ipynb", "bo's"),
    ("Ann Lee", 71, "picture.png", "not a notebook"),
]
PLACED = {"ann": "ann's", "joerg": "jörg's", "zoe": "zoë's", "dan": "dan's"}


class TestMoodle:
    @pytest.mark.parametrize(
        "form",
        [
            {},
            {"top": "C1-PS 1-77/"},
            {"top": "a/b/"},
            {"flat": True},
            {"unmarked": True},
            {"top": "Übung/", "flat": True},
        ],
        ids=["folders", "top", "two tops", "flat", "unmarked", "flat top"],
    )
    def test_each_notebook_finds_its_student(self, root, tmp_path, form):
        handed = [one for one in MOODLE if not (form.get("flat") and "/" in one[2])]
        refused = grade.collect(root, "bellman", archives.moodle(tmp_path / "a.zip", handed, **form))
        assert there(root) == {s: d for s, d in PLACED.items() if s != "zoe" or not form.get("flat")}
        assert [why for name, why in refused.items() if "Stranger" in name] == [
            "'Eve Stranger' is nobody in the roster"
        ]
        assert [why for name, why in refused.items() if "Bo Li" in name] == ["'Bo Li' may be bo1 or bo2"]
        assert [why for name, why in refused.items() if "png" in name] == ["it is no notebook"]
        assert sorted(file for _, file in kept(root).values()) == ["bo's", "eve's"]

    def test_names_of_another_system_are_the_same_names(self, root, tmp_path):
        apart = [(unicodedata.normalize("NFD", name), *rest) for name, *rest in MOODLE]
        grade.collect(root, "bellman", archives.moodle(tmp_path / "a.zip", apart))
        assert there(root) == PLACED

    def test_the_worksheet_tells_two_of_one_name_apart_and_says_when(self, root, tmp_path):
        (root / "term.toml").write_text(ZONE, encoding="utf-8")
        sheet = archives.worksheet(
            tmp_path / "w.csv",
            [
                (71, "Ann Lee", "ann@x.edu", "Friday, 6 November 2026, 11:58 PM"),
                (76, "Bo Li", "bo2@x.edu", "Saturday, November 7, 2026, 12:14 AM"),
                (72, "Jörg Müller", "jm@x.edu", "Sunday, 25 October 2026, 2:30 AM"),
                (74, "Dan O'Neil", "dan@x.edu", "-"),
            ],
        )
        grade.collect(root, "bellman", archives.moodle(tmp_path / "a.zip", MOODLE), str(sheet))
        assert there(root) == PLACED | {"bo2": "bo's"}
        assert stamps(root) == {
            "ann": datetime(2026, 11, 6, 22, 58, tzinfo=UTC),
            "bo2": datetime(2026, 11, 6, 23, 14, tzinfo=UTC),
            "joerg": datetime(2026, 10, 25, 0, 30, tzinfo=UTC),  # half past two was there twice: the earlier
            "dan": None,
            "zoe": None,
        }

    def test_the_worksheet_of_another_assignment_is_noticed(self, root, tmp_path):
        people = [(71, "Jörg Müller", "jm@x.edu", "-"), (76, "Ann Lee", "ann@x.edu", "-")]
        sheet = archives.worksheet(tmp_path / "w.csv", people)
        refused = grade.collect(root, "bellman", archives.moodle(tmp_path / "a.zip", MOODLE), str(sheet))
        assert there(root).keys() == {"joerg", "zoe", "dan"}
        assert [why for name, why in refused.items() if "Ann" in name and "ipynb" in name] == [
            "the worksheet's line 71 is joerg's, and the name 'Ann Lee' is not"
        ]
        assert [why for name, why in refused.items() if "Bo Li" in name] == [
            "the worksheet's line 76 is ann's, and the name 'Bo Li' is not"
        ]

    def test_anonymous_marking_needs_the_worksheet(self, root, tmp_path):
        archive = archives.moodle(tmp_path / "a.zip", [("Participant", 71, "b.ipynb", "ann's")])
        (why,) = grade.collect(root, "bellman", archive).values()
        assert "marking was anonymous" in why and there(root) == {}
        sheet = archives.worksheet(tmp_path / "w.csv", [(71, "Ann Lee", "ann@x.edu", "-")])
        assert grade.collect(root, "bellman", archive, str(sheet)) == {} and there(root) == {"ann": "ann's"}
        assert kept(root) == {}

    def test_the_time_of_a_member_is_not_that_of_its_student(self, root, tmp_path):
        (root / "term.toml").write_text(ZONE, encoding="utf-8")
        archive = archives.moodle(tmp_path / "a.zip", MOODLE[:1])
        grade.collect(root, "bellman", archive)
        assert stamps(root) == {"ann": None}
        grade.collect(root, "bellman", archive, "files")  # asked for in words
        assert stamps(root) == {"ann": datetime(2026, 11, 30, 8, 0, tzinfo=UTC)}
        grade.collect(root, "bellman", archive)  # once more, and the time is not lost
        assert stamps(root) == {"ann": datetime(2026, 11, 30, 8, 0, tzinfo=UTC)}


CANVAS = [
    ("Lee, Ann", False, 501, 9001, "bellman.ipynb", "ann's first"),
    ("Lee, Ann", False, 501, 9105, "bellman-1.ipynb", "ann's"),
    ("Müller, Jörg", True, 502, 9102, "a_1_2_b.ipynb", "jörg's"),
    ("Berg, Zoë van der", False, 503, 9103, "b (2).ipynb", "zoë's"),
    ("O'Neil, Dan", False, 506, 9104, "bellman.ipynb", "dan's"),
    ("Li, Bo", False, 505, 9106, "bellman.ipynb", "bo's"),
    ("Stranger, Eve", False, 599, 9107, "bellman.ipynb", "eve's"),
]


class TestCanvas:
    @pytest.mark.parametrize("form", [{}, {"top": "submissions (1)/"}, {"unmarked": True}])
    @pytest.mark.parametrize("numbers", [True, False], ids=["numbers", "names alone"])
    def test_each_notebook_finds_its_student(self, root, tmp_path, form, numbers):
        if not numbers:
            lines = [{**line, "canvas": ""} for line in roster.lines(root / "roster.csv")]
            grade._csv(root / "roster.csv", lines)
        refused = grade.collect(root, "bellman", archives.canvas(tmp_path / "a.zip", CANVAS, **form))
        assert there(root) == PLACED | ({"bo2": "bo's"} if numbers else {})
        assert any("9105" in why for name, why in refused.items() if "9001" in name)
        late = {s: grade.collected(root, "bellman", s)["marked_late"] for s in there(root)}
        assert [student for student, mark in late.items() if mark] == ["joerg"]
        assert {file for _, file in kept(root).values()} == {"eve's"} | (set() if numbers else {"bo's"})

    def test_a_number_that_is_wrong_in_the_roster_is_noticed(self, root, tmp_path):
        handed = [("Lee, Ann", False, 502, 9001, "b.ipynb", "ann's")]
        (why,) = grade.collect(root, "bellman", archives.canvas(tmp_path / "a.zip", handed)).values()
        assert why == "Canvas's number 502 is joerg's, and the name 'leeann' is not" and there(root) == {}

    def test_a_folder_on_top_with_a_student_s_name_is_no_student(self, root, tmp_path):
        grade.collect(root, "bellman", archives.canvas(tmp_path / "a.zip", CANVAS, top="dan/"))
        assert {s: there(root)[s] for s in PLACED} == PLACED

    def test_an_earlier_upload_does_not_come_back(self, root, tmp_path):
        for handed in (CANVAS[1:2], CANVAS[:1]):
            refused = grade.collect(root, "bellman", archives.canvas(tmp_path / "a.zip", handed))
        assert there(root) == {"ann": "ann's"} and "came later" in next(iter(refused.values()))

    def test_hidden_names_are_said_to_be_hidden(self, root, tmp_path):
        archive = archives.pack(tmp_path / "a.zip", [("anon_LATE_xY3k1_9001_bellman.ipynb", "whose")])
        assert "Canvas hid the name" in next(iter(grade.collect(root, "bellman", archive).values()))

    def test_without_a_roster_nobody_is_guessed(self, tmp_path):
        for make, handed in ((archives.canvas, CANVAS[:1]), (archives.moodle, MOODLE[:1])):
            (why,) = grade.collect(tmp_path / "bare", "bellman", make(tmp_path / "a.zip", handed)).values()
            assert "put a roster.csv" in why
        assert there(tmp_path / "bare") == {}

    def test_times_of_a_table(self, root, tmp_path):
        table = tmp_path / "t.csv"
        table.write_text(
            "student,time\n502,2026-11-07T10:00:00Z\nann@x.edu,2026-11-05T10:00:00+01:00\n", encoding="utf-8"
        )
        grade.collect(root, "bellman", archives.canvas(tmp_path / "a.zip", CANVAS[1:3]), str(table))
        assert stamps(root) == {
            "joerg": datetime(2026, 11, 7, 10, tzinfo=UTC),
            "ann": datetime(2026, 11, 5, 9, tzinfo=UTC),
        }


class TestInbound:
    def test_the_last_one_counts_and_keeps_its_secret(self, root, tmp_path):
        files = {"timestamp.txt": "1999-01-01 00:00:00 UTC", intake.SECRET: "s3cret"}
        place = archives.exchange(
            tmp_path / "inbound",
            [
                ("ann", "bellman", "2026-11-06 10:00:00.123456 UTC", {"bellman.ipynb": "second"} | files),
                ("ann", "bellman", "2026-11-05 10:00:00.123456 UTC", {"bellman.ipynb": "first"} | files),
                ("alee", "key_equation", "2026-11-09 10:00:00.000000 UTC", {"key_equation.ipynb": "another"}),
                ("mallory", "bellman", "2026-11-09 10:00:00.000000 UTC", {"bellman.ipynb": "whose"}),
                ("jmueller", "bellman", "2026-11-07 01:00:00.000000 UTC", {"a.ipynb": "x", "Bellman v2.ipynb": "mine"}),
            ],
        )
        refused = grade.collect(root, "bellman", place)
        assert there(root) == {"ann": "second", "joerg": "mine"}
        assert stamps(root)["ann"] == datetime(2026, 11, 6, 10, tzinfo=UTC)
        secret = root / "submitted" / "ann" / "bellman" / intake.SECRET
        assert secret.read_text(encoding="utf-8") == "s3cret"
        assert [file for _, file in kept(root).values()] == ["whose"] and len(refused) == 3
        assert "its folder belongs to" in grade.collected(root, "bellman", "ann")["remark"]

    def test_an_earlier_one_does_not_take_its_place(self, root, tmp_path):
        for day, text in ((6, "second"), (5, "first")):
            time = f"2026-11-0{day} 10:00:00.000000 UTC"
            grade.collect(
                root, "bellman", archives.exchange(tmp_path / str(day), [("ann", "bellman", time, {"b.ipynb": text})])
            )
        assert there(root) == {"ann": "second"}


class TestFolder:
    def test_ids_addresses_logins_names_and_other_names(self, root, tmp_path):
        inbox_of_the_class = tmp_path / "inbox" / "on top"
        for name in ("ann.ipynb", "jm@x.edu/any.ipynb", "ZBERG.ipynb", "1004/x.ipynb", "O'Neil Dan/bellman.ipynb"):
            (inbox_of_the_class / name).parent.mkdir(parents=True, exist_ok=True)
            (inbox_of_the_class / name).write_text(name, encoding="utf-8")
        (inbox_of_the_class / ".DS_Store").write_text("", encoding="utf-8")
        assert grade.collect(root, "bellman", tmp_path / "inbox") == {}
        assert there(root).keys() == {"ann", "joerg", "zoe", "bo1", "dan"}

    def test_nobody_guesses_between_two(self, root, tmp_path):
        place = archives.pack(
            tmp_path / "a.zip", [("ann/one.ipynb", "1"), ("ann/two.ipynb", "2"), ("dan/x.ipynb", "3")]
        )
        refused = grade.collect(root, "bellman", place)
        assert there(root) == {"dan": "3"} and all("nothing says which" in why for why in refused.values())
        assert kept(root) == {"ann/one.ipynb": ("ann", "1"), "ann/two.ipynb": ("ann", "2")}
        grade.collect(root, "bellman", archives.pack(tmp_path / "b.zip", [("ann.ipynb", "2")]))
        assert there(root) == {"dan": "3", "ann": "2"} and kept(root) == {}
        grade.collect(root, "bellman", place)  # the whole archive once more: ann's is settled
        assert there(root) == {"dan": "3", "ann": "2"} and kept(root) == {}

    def test_two_archives_keep_what_each_could_not_place(self, root, tmp_path):
        for name in ("a", "b"):
            grade.collect(root, "bellman", archives.pack(tmp_path / f"{name}.zip", [(f"who-{name}.ipynb", name)]))
        assert {file for _, file in kept(root).values()} == {"a", "b"}


def link(name):
    """Return a member that is a link."""
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


class TestHarm:
    @pytest.mark.parametrize(
        "name",
        ["../../evil.ipynb", "/etc/evil.ipynb", "..\\evil.ipynb", "C:\\evil.ipynb", "ann/../../evil.ipynb"],
    )
    def test_what_leads_out_of_the_archive_is_refused(self, root, tmp_path, name):
        (why,) = grade.collect(root, "bellman", archives.pack(tmp_path / "a.zip", [(name, "x")])).values()
        assert why == "its name leads out of the archive" and there(root) == {}
        assert not list(tmp_path.rglob("*evil*"))

    def test_links_large_members_and_damage(self, root, tmp_path, monkeypatch):
        monkeypatch.setattr(grade, "LARGEST", 100)
        members = [
            (link("ann.ipynb"), "/etc/passwd"),
            ("dan.ipynb", "0" * 101),
            ("bo1.ipynb", "fine"),
            ("bo2.ipynb", "spoilt!"),
        ]
        place = archives.pack(tmp_path / "a.zip", members)
        with zipfile.ZipFile(place) as archive:
            start = archive.getinfo("bo2.ipynb").header_offset
        data = bytearray(place.read_bytes())
        data[start + 30 + len("bo2.ipynb") + 2] ^= 0xFF
        place.write_bytes(data)
        refused = grade.collect(root, "bellman", place)
        assert there(root) == {"bo1": "fine"}
        assert refused["ann.ipynb"] == "it is a link" and refused["dan.ipynb"].startswith("larger than")
        assert refused["bo2.ipynb"].startswith("it cannot be read") and kept(root)["bo2.ipynb"] == ("bo2", None)

    def test_too_many_members(self, root, tmp_path, monkeypatch):
        monkeypatch.setattr(inbox, "MOST", 2)
        place = archives.pack(tmp_path / "a.zip", [(f"{n}.ipynb", "") for n in range(3)])
        with pytest.raises(roster.Refused, match="at most 2 members, got 3"):
            grade.collect(root, "bellman", place)

    @pytest.mark.parametrize("given", ["nothing.zip", "file.txt"])
    def test_what_is_neither_folder_nor_archive(self, root, tmp_path, given):
        (tmp_path / "file.txt").write_text("x", encoding="utf-8")
        with pytest.raises(roster.Refused, match="FROM must be a folder or a zip archive"):
            grade.collect(root, "bellman", tmp_path / given)

    @given(st.text(max_size=40), st.sampled_from(["", "a/", "Ann Lee_71_assignsubmission_file/"]))
    def test_no_name_ends_it_or_leads_anywhere(self, name, top):
        piece = inbox.Piece(f"{top}{name}.ipynb", 1, None, lambda: b"")
        class_list = roster.Roster({"ann": roster.Student("ann", "Ann Lee")})
        try:
            handed = inbox.whose(piece, "bellman", class_list, inbox.Clock())
        except roster.Unplaced:
            return
        assert handed is None or handed.student == "ann"
        assert "/" not in grade._plain(piece.name) and grade._plain(piece.name).strip(".")


class TestTimes:
    @pytest.mark.parametrize(
        ("text", "wrong"),
        [
            ("who,when\na,b\n", "must be Moodle's grading worksheet"),
            ("student,time\nnobody,2026-11-07T10:00:00Z\n", "'nobody' is nobody in the roster"),
            ("student,time\nann,yesterday\n", "time must be one"),
            ("student,time\nann,6/11/2026 10:00\n", "time must be one"),  # in June or in November
            ("student,time\nann,2026-11-07T10:00:00\n", "needs a zone in term.toml"),
        ],
    )
    def test_a_table_that_says_nothing_is_refused(self, root, tmp_path, text, wrong):
        (tmp_path / "t.csv").write_text(text, encoding="utf-8")
        with pytest.raises(roster.Refused, match=wrong):
            grade.collect(root, "bellman", root, str(tmp_path / "t.csv"))

    def test_a_table_that_is_not_there(self, root):
        with pytest.raises(roster.Refused, match="a CSV file or the word files"):
            grade.collect(root, "bellman", root, "none.csv")
