"""Who is in the class: rosters as they are written and as the platforms give them out, and what is wrong in one."""

import pytest
import roster

CANVAS = (
    "Student,ID,SIS User ID,SIS Login ID,Section,Problem set 1 (4711)\n"
    "    Points Possible,,,,,30\n"
    '"Müller, Jörg",502,1002,jmueller,A,\n'
    '"Student, Test",599,,,A,\n'
)
MOODLE = "First name,Last name,ID number,Email address,Groups\nJörg,Müller,1002,jm@x.edu,A\nAnn,Lee,1001,ann@x.edu,B\n"


def read(tmp_path, text, encoding="utf-8"):
    place = tmp_path / "roster.csv"
    place.write_bytes(text.encode(encoding))
    return roster.read(place)


class TestRosterForms:
    def test_of_canvas(self, tmp_path):
        (one,) = read(tmp_path, CANVAS)
        assert one == roster.Student("jmueller", "Müller, Jörg", "", "jmueller", "1002", "502", "A")

    def test_of_moodle(self, tmp_path):
        jm, ann = read(tmp_path, MOODLE)
        assert jm == roster.Student("jm", "Jörg Müller", "jm@x.edu", "", "1002", "", "A") and ann.student == "ann"

    @pytest.mark.parametrize("change", [lambda text: text, lambda text: text.replace(",", ";").replace("\n", "\r\n")])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    def test_of_a_spreadsheet(self, tmp_path, change, encoding):
        found = read(tmp_path, change("student,name\nann,Ann Lee\n,\njoerg,Jörg Müller\n"), encoding)
        assert [(one.student, one.name) for one in found] == [("ann", "Ann Lee"), ("joerg", "Jörg Müller")]

    @pytest.mark.parametrize(
        ("text", "wrong"),
        [
            ("", "must have a column student, got no lines"),
            ("name\nAnn\n", r"must have a column student, got \['name'\]"),
            ("student,mail\nann,a@x\n", "'mail' is none of them"),
            ("student\nann\n\nAnn\n", "line 3: Ann is there twice"),
            ("student\nann\n../eve\n", r"line 3: student must be letters.*'\.\./eve'"),
            ("student,name\n,Ann\n", "line 2: student must be letters"),
            ("student,name\n,\n", "a line for each student, got none"),
        ],
    )
    def test_what_is_wrong_is_said(self, tmp_path, text, wrong):
        with pytest.raises(roster.Refused, match=wrong):
            read(tmp_path, text)

    def test_another_encoding(self, tmp_path):
        with pytest.raises(roster.Refused, match="must be CSV in UTF-8"):
            read(tmp_path, "student,name\njoerg,Jörg\n", "latin-1")


class TestWhoseName:
    @pytest.fixture
    def class_list(self):
        students = [
            roster.Student("joerg", "Müller, Jörg Ole"),
            roster.Student("muller", "Jorg Ole Muller"),
            roster.Student("ren", "René Łoś"),
            roster.Student("li", "李 明", email="li@x.edu"),
        ]
        return roster.Roster({one.student: one for one in students})

    @pytest.mark.parametrize(
        ("name", "student"),
        [
            ("Jörg Ole Müller", "joerg"),  # accents tell the two apart
            ("müllerjörgole", "joerg"),
            ("MULLER JORG OLE", "muller"),
            ("rene łoś", "ren"),
            ("李明", "li"),
            ("明李", "li"),
            ("Jörg", None),
            ("", None),
            ("...", None),
        ],
    )
    def test_a_name_stands_for_one(self, class_list, name, student):
        assert class_list.name(name) == student

    def test_a_name_that_could_be_two_is_neither(self, class_list):
        with pytest.raises(roster.Unplaced, match="may be joerg or muller"):
            class_list.name("Jórg Ole Muller")

    def test_an_address_is_one_in_any_case(self, class_list):
        assert class_list.word("LI@X.edu") == "li" and class_list.word("x@x.edu") is None
