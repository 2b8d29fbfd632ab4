"""What runs Python in a page is what the lock says, wherever it came from, or the build says so."""

import gzip
import hashlib
import json
import re
import shutil
import tarfile
import zipfile

import live_files
import pytest
from build_book import SITE

NAME, OTHER = "numpy-1.0-cp3-wasm.whl", "scipy-1.0-cp3-wasm.whl"
CONTENT = {NAME: b"numpy", OTHER: b"scipy"}
WANTED = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a cache folder that is empty, beside which nothing may be fetched."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(live_files.GIVEN, raising=False)
    monkeypatch.setattr(live_files, "by_wheel", lambda *_: pytest.fail("asks the network"))
    monkeypatch.setattr(live_files, "by_release", lambda *_: pytest.fail("asks the network"))
    return tmp_path / "divergence-notes" / "pyodide"


def write(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return folder


def carry(content, asked=None):
    """Return what fetches, as `by_wheel` and `by_release` do."""

    def fetch(wanted, folder, *version):
        if asked is not None:
            asked.append(version)
        write(folder, content)

    return fetch


class TestSources:
    def test_what_was_fetched_is_not_fetched_again(self, place, monkeypatch):
        asked = []
        monkeypatch.setattr(live_files, "by_wheel", carry(CONTENT, asked))
        assert live_files.wheels(WANTED, "1") == live_files.wheels(WANTED, "1") == CONTENT
        assert asked == [()]

    def test_the_release_where_one_asks_for_it(self, place, monkeypatch):
        asked = []
        monkeypatch.setattr(live_files, "by_release", carry(CONTENT, asked))
        monkeypatch.setenv(live_files.GIVEN, "release")
        assert live_files.wheels(WANTED, "1") == CONTENT and asked == [("1",)]

    def test_a_folder_that_is_named(self, place, monkeypatch, tmp_path):
        monkeypatch.setenv(live_files.GIVEN, str(write(tmp_path / "mine", CONTENT)))
        assert live_files.wheels(WANTED, "1") == CONTENT
        assert not place.exists()

    def test_a_carrier_that_is_named(self, place, monkeypatch, tmp_path):
        with zipfile.ZipFile(tmp_path / "carrier.whl", "w") as archive:
            for name, data in CONTENT.items():
                archive.writestr(f"deep/in/{name}", data)
            archive.writestr("deep/other.whl", b"")
        monkeypatch.setenv(live_files.GIVEN, str(tmp_path / "carrier.whl"))
        assert live_files.wheels(WANTED, "1") == CONTENT

    def test_one_that_is_not_there(self, place, monkeypatch, tmp_path):
        monkeypatch.setenv(live_files.GIVEN, str(tmp_path / "nothing"))
        with pytest.raises(live_files.Missing, match="nothing, which is not there"):
            live_files.wheels(WANTED, "1")

    def test_one_that_lacks_a_file(self, place, monkeypatch, tmp_path):
        monkeypatch.setenv(live_files.GIVEN, str(write(tmp_path / "mine", {NAME: CONTENT[NAME]})))
        with pytest.raises(live_files.Missing, match=f"has no {re.escape(OTHER)}"):
            live_files.wheels(WANTED, "1")


class TestADifferenceEndsTheBuild:
    BAD = CONTENT | {OTHER: b"scipy, and more"}

    def said(self):
        with pytest.raises(SystemExit) as ended:
            live_files.wheels(WANTED, "1")
        return ended.value.code

    def expected(self, text):
        found = hashlib.sha256(self.BAD[OTHER]).hexdigest()
        assert OTHER in text and f"must be {WANTED[OTHER]}" in text and f"found {found}" in text

    def test_in_a_folder(self, place, monkeypatch, tmp_path):
        monkeypatch.setenv(live_files.GIVEN, str(write(tmp_path / "mine", self.BAD)))
        self.expected(self.said())

    @pytest.mark.parametrize(("fetch", "given"), [("by_wheel", ""), ("by_release", "release")])
    def test_in_what_is_fetched_and_nothing_of_it_is_kept(self, place, monkeypatch, fetch, given):
        monkeypatch.setattr(live_files, fetch, carry(self.BAD))
        monkeypatch.setenv(live_files.GIVEN, given)
        self.expected(self.said())
        assert not place.exists() and list(place.parent.iterdir()) == []

    def test_in_what_was_kept(self, place):
        write(place, self.BAD)
        self.expected(self.said())

    def test_in_the_environment(self, monkeypatch):
        found = live_files.distribution("comm")
        file = next(each for each in found.files if each.name == "base_comm.py")
        monkeypatch.setattr(file.hash, "value", "another")
        monkeypatch.setattr(type(found), "files", [file])
        with pytest.raises(SystemExit, match=r"base_comm.py is not what it should be: .* must be another, found "):
            live_files.from_environment("comm")


class TestFill:
    @pytest.fixture
    def live(self, tmp_path, monkeypatch):
        monkeypatch.setattr(live_files, "LIVE", tmp_path / "live")
        monkeypatch.setattr(live_files, "STAMP", tmp_path / "stamp")
        monkeypatch.delenv("LIVE", raising=False)
        return tmp_path / "live"

    def test_once(self, live, monkeypatch, capsys):
        made = []
        monkeypatch.setattr(live_files, "contents", lambda: made.append(1) or {"live.json": b"{}"})
        live_files.fill()
        live_files.fill()
        assert made == [1] and (live / "live.json").is_file() and capsys.readouterr().err == ""
        shutil.rmtree(live)
        live_files.fill()
        assert made == [1, 1]

    def test_without(self, live, monkeypatch, capsys):
        write(live, {"live.json": b"{}"})
        monkeypatch.setenv("LIVE", "0")
        live_files.fill()
        assert not live.exists() and live_files.megabytes(["numpy"]) is None
        assert capsys.readouterr().err.count("\n") == 1

    @pytest.mark.parametrize("error", [live_files.Missing("no network"), FileNotFoundError("no network")])
    def test_where_the_files_cannot_be_had(self, live, monkeypatch, capsys, error):
        def contents():
            raise error

        write(live, {"live.json": b"{}"})
        monkeypatch.setattr(live_files, "contents", contents)
        live_files.fill()
        assert not live.exists()
        assert capsys.readouterr().err == "The pages run no Python: no network.\n"

    def test_a_difference_leaves_nothing_that_the_next_build_would_trust(self, live, monkeypatch):
        monkeypatch.setattr(live_files, "contents", lambda: live_files.expect("a.whl", "1", "2"))
        with pytest.raises(SystemExit):
            live_files.fill()
        assert not live.exists()


def test_pip_that_fails_is_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(live_files, "CARRIER", "no-such-thing-at-all @ file:///nowhere/at-all.whl")
    with pytest.raises(live_files.Missing, match=r"\w"):
        live_files.by_wheel(WANTED, tmp_path)


def test_a_release_is_read_for_what_is_wanted(monkeypatch, tmp_path):
    with tarfile.open(tmp_path / "of-1.tar.bz2", "w:bz2") as archive:
        for name, data in (CONTENT | {"other.whl": b""}).items():
            (tmp_path / name).write_bytes(data)
            archive.add(tmp_path / name, f"pyodide/{name}")
    monkeypatch.setattr(live_files, "RELEASE", tmp_path.as_uri() + "/of-{}.tar.bz2")
    (tmp_path / "to").mkdir()
    live_files.by_release(WANTED, tmp_path / "to", "1")
    assert {path.name: path.read_bytes() for path in (tmp_path / "to").iterdir()} == CONTENT
    with pytest.raises(live_files.Missing, match="of-2"):
        live_files.by_release(WANTED, tmp_path / "to", "2")


def test_a_wheel_is_the_same_whenever_it_is_made():
    (file, data), (again, same) = live_files.own(), live_files.own()
    assert file == again and data == same
    with zipfile.ZipFile(live_files.io.BytesIO(data)) as archive:
        names = archive.namelist()
        record = archive.read(next(name for name in names if name.endswith("RECORD"))).decode()
    assert "divergence_notes/grading/checking.py" in names and not any("pycache" in name for name in names)
    assert sorted(line.partition(",")[0] for line in record.splitlines()) == sorted(names)


@pytest.fixture(scope="module")
def manifest():
    if not (SITE / "live").exists():
        pytest.skip("the site was built without Python")
    return json.loads((SITE / "live" / "live.json").read_text(encoding="utf-8"))


@pytest.mark.site
class TestTheSite:
    def test_has_what_the_lock_says_and_no_more(self, manifest):
        there = {path.name for path in (SITE / "live").iterdir()}
        assert there == {*manifest["files"], "live.json"}
        for name, file in manifest["files"].items():
            data = (SITE / "live" / name).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (file["size"], file["sha256"])
        official = json.loads((live_files.NPM / "pyodide-lock.json").read_text(encoding="utf-8"))["packages"]
        ours = {live_files.OURS, *live_files.PURE}
        for name, package in manifest["packages"].items():
            sums = [official[name]["sha256"]] if name not in ours else [manifest["files"][package["file"]]["sha256"]]
            assert [manifest["files"][package["file"]]["sha256"]] == sums
            assert set(package["depends"]) <= set(manifest["packages"])

    def test_is_light(self, manifest):
        """What the first verdict that needs Python loads, packed as a server packs it."""
        names = live_files.closure(manifest["packages"], manifest["always"])
        files = {*manifest["core"], *(manifest["packages"][name]["file"] for name in names)}
        packed = {
            name: min(manifest["files"][name]["size"], len(gzip.compress((SITE / "live" / name).read_bytes(), 9)))
            for name in files
        }
        assert sum(packed.values()) < 10e6
        assert live_files.megabytes(["numpy"]) < 11
