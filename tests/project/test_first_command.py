"""The first command: which PyTorch it takes, its two stages, and where and how it is called."""

import http.server
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import environment
import pytest

from tests.pages import ROOT
from tests.waiting import PATIENCE

TAG = f"cp3{sys.version_info[1]}"
HERE = os.uname().machine
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere pip's own torch has no CUDA")
HOSTS = ("pypi.org", "files.pythonhosted.org", "registry.npmjs.org", "download.pytorch.org", "deb.debian.org")


def wheel(folder, name, version, tag, size=0):
    """Write a package that is empty, and as large as it is told to be; return its file."""
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", "")
        file.writestr(f"{name}.txt", b"x" * size)
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        file.writestr(f"{info}/RECORD", "".join(f"{one}/{file},,\n" for one, file in [(info, "METADATA")]))
    return path


@pytest.fixture(scope="module")
def indexes(tmp_path_factory):
    """Serve two indexes from this machine: PyTorch's own, with a CPU build, and the one that pip is set up with."""
    root = tmp_path_factory.mktemp("indexes")

    def put(index, name, path):
        page = root / index / name / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, page.parent / path.name)
        quoted = path.name.replace("+", "%2B")
        known = page.read_text() if page.exists() else "<!DOCTYPE html>\n"
        page.write_text(f'{known}<a href="{quoted}#sha256=">{path.name}</a><br/>\n')

    put("cpu", "torch", wheel(root, "torch", "2.13.0+cpu", f"{TAG}-{TAG}-manylinux_2_28_{HERE}", 3_000_000))
    put("cpu", "torch", wheel(root, "torch", "2.13.1+cpu", f"{TAG}-{TAG}-manylinux_2_28_{HERE}"))
    put("cpu", "torch", wheel(root, "torch", "2.13.0+cpu", f"cp39-cp39-manylinux_2_28_{HERE}"))
    put("cpu", "other", wheel(root, "other", "9.0", "py3-none-any"))
    put("usual", "torch", wheel(root, "torch", "2.13.0", "py3-none-any"))
    put("usual", "other", wheel(root, "other", "1.0", "py3-none-any"))
    put("usual", "more", wheel(root, "more", "1.0", "py3-none-any"))
    (root / "broken" / "torch").mkdir(parents=True)
    page = (root / "cpu" / "torch" / "index.html").read_text()
    (root / "broken" / "torch" / "index.html").write_text(page)
    for path in (root / "cpu" / "torch").glob("*2.13.0+cpu*"):
        (root / "broken" / "torch" / path.name).write_bytes(b"no wheel")
    (root / "old" / "torch").mkdir(parents=True)
    (root / "old" / "torch" / "index.html").write_text("<!DOCTYPE html>\n" + page.replace(TAG, "cp39"))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=root)

        def do_GET(self):
            if self.path.startswith("/silent"):
                waiting.wait(PATIENCE)
            else:
                super().do_GET()

        def log_message(self, *_):
            pass

    waiting = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        waiting.set()
        server.shutdown()


@pytest.fixture
def place(tmp_path, indexes):
    """Return a copy of the first command with lists of made-up packages, in a folder with a blank and an umlaut."""
    root = tmp_path / "a bücher"
    (root / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "tools" / "environment.py", root / "tools")
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / "divergence_notes").mkdir()
    (root / "divergence_notes" / "__init__.py").touch()
    (root / "requirements.txt").write_text("torch==2.13.0\nother==1.0\n")
    (root / "requirements-test.txt").write_text("more==1.0\n")
    settings = {
        "DIVERGENCE_NOTES_TORCH": "",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": f"{indexes}/usual/",
        "PIP_NO_CACHE_DIR": "1",
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    return SimpleNamespace(root=root, python=root / ".venv" / "bin" / "python", env=kept | settings)


def start(place, *words, **env):
    """Start the first command there."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"}
    command = [sys.executable, place.root / "tools" / "environment.py", *words]
    return subprocess.Popen(command, env=place.env | env, **pipes)


def said(running):
    """Return what a command has said at its end, which must be a good one."""
    text = running.communicate(timeout=PATIENCE)[0]
    assert running.returncode == 0, text
    return text


def versions(place):
    """Return {package: version} in the environment, but pip itself."""
    code = "from importlib.metadata import distributions as d; print(*(f'{x.name}={x.version}' for x in d()))"
    done = subprocess.run(
        [place.python, "-c", code], env=place.env, cwd="/", capture_output=True, text=True, check=True
    )
    return {
        name: version
        for name, _, version in (word.partition("=") for word in done.stdout.split())
        if name not in NOT_OURS
    }


NOT_OURS = ("pip", "setuptools")
USUAL = {"torch": "2.13.0", "other": "1.0"}


@pytest.fixture
def no_card(monkeypatch):
    """Take this machine for one without a card."""
    monkeypatch.setattr(environment, "graphics_card", lambda: False)


@LINUX
class TestTorch:
    """A machine without a card takes the CPU build if PyTorch's own index has it, and says how large it is."""

    @pytest.fixture(autouse=True)
    def asked(self, no_card, monkeypatch, tmp_path):
        """Keep what pip is asked for, in place of asking it."""
        self.list, self.words = str(tmp_path / "list.txt"), []
        Path(self.list).write_text("other==1.0\ntorch==2.13.0\n    # via a\n")
        monkeypatch.setattr(environment, "pip", lambda python, *words: bool(self.words.append(words)) or True)

    @pytest.mark.skipif(os.path.exists("/proc/driver/nvidia/version"), reason="this machine has a card")
    def test_the_cpu_build_is_installed(self, place, indexes, tmp_path):
        """The real pip: of this release and this Python, and nothing else from there, and only once."""
        place.env |= {"PATH": str(tmp_path)}  # without an nvidia-smi
        text = said(start(place, DIVERGENCE_NOTES_TORCH=f"{indexes}/cpu/"))
        assert f"torch 2.13.0 is the build without CUDA of {indexes[7:]}, 3 MB.\n" in text
        assert versions(place) == USUAL | {"torch": "2.13.0+cpu"}
        assert said(start(place, DIVERGENCE_NOTES_TORCH=f"{indexes}/cpu/")) == ""

    @pytest.mark.skipif(os.path.exists("/proc/driver/nvidia/version"), reason="this machine has a card")
    def test_a_download_that_breaks_is_made_up_for(self, place, indexes, tmp_path):
        place.env |= {"PATH": str(tmp_path)}
        text = said(start(place, DIVERGENCE_NOTES_TORCH=f"{indexes}/broken/"))
        assert "That failed, see above, so pip takes torch from where it is set up to look." in text
        assert versions(place) == USUAL

    @pytest.mark.parametrize(
        ("index", "why"),
        [
            ("/old/", f"has no torch 2.13.0 for Python {environment.PYTHON}"),
            ("/nothing/", "cannot be reached (File not found)"),
        ],
    )
    def test_else_the_usual_one(self, monkeypatch, capsys, indexes, index, why):
        monkeypatch.setattr(environment, "TORCH", indexes + index)
        environment.install_torch([self.list], "python")
        assert capsys.readouterr().out == (
            f"{indexes[7:]} {why}, so pip takes torch from where it is set up to look; "
            "if that is a build for CUDA, it is about 2.7 GB.\n"
        )
        assert self.words == []

    def test_no_server_at_all(self, monkeypatch, capsys):
        monkeypatch.setattr(environment, "TORCH", "http://127.0.0.1:9/")
        environment.install_torch([self.list], "python")
        assert capsys.readouterr().out.startswith("127.0.0.1:9 cannot be reached (") and self.words == []

    def test_a_server_that_never_answers(self, monkeypatch, indexes):
        """It costs its seconds and no more: the server would wait for longer than a test may."""
        monkeypatch.setattr(environment, "TORCH", f"{indexes}/silent/")
        monkeypatch.setattr(environment, "SECONDS", 0.2)
        assert environment.cpu_build("2.13.0") == (None, "did not answer in 0.2 seconds")

    def test_the_right_file(self, monkeypatch, capsys, indexes):
        """With its local name, without what it asks for, and from this index alone."""
        monkeypatch.setattr(environment, "TORCH", f"{indexes}/cpu/")
        environment.install_torch([self.list], "python")
        assert self.words == [("--no-deps", "--index-url", f"{indexes}/cpu/", "torch==2.13.0+cpu")]

    @pytest.mark.parametrize("what", ["no torch", "forgone", "a card", "macOS"])
    def test_nobody_is_asked(self, monkeypatch, capsys, what):
        """Where there is nothing to gain, or a reader has said so."""
        monkeypatch.setattr(environment, "TORCH", "" if what == "forgone" else "http://127.0.0.1:9/")
        monkeypatch.setattr(environment, "cpu_build", lambda version: pytest.fail("an index was asked"))
        if what == "no torch":
            Path(self.list).write_text("# torch==2.13.0 would be too much\nother==1.0\n")
        if what == "a card":
            monkeypatch.setattr(environment, "graphics_card", lambda: True)
        if what == "macOS":
            monkeypatch.setattr(environment.sys, "platform", "darwin")
        environment.install_torch([self.list], "python")
        where = "pip takes torch from where it is set up to look"
        said = f"There is an NVIDIA card: {where}; with CUDA that is about 2.7 GB.\n"
        assert capsys.readouterr().out == (said if what == "a card" else "") and self.words == []

    def test_a_card_shows(self, monkeypatch, tmp_path):
        monkeypatch.undo()
        monkeypatch.setenv("PATH", str(tmp_path))
        there = os.path.exists
        monkeypatch.setattr(environment.os.path, "exists", lambda path: "driver" not in str(path) and there(path))
        assert not environment.graphics_card()
        (tmp_path / "nvidia-smi").touch(mode=0o755)
        assert environment.graphics_card()


class TestStages:
    """A reader waits for what the book needs; the tests bring the rest."""

    def test_the_second_goes_on_from_the_first(self, place):
        assert "Making" in said(start(place)) and versions(place) == USUAL
        (rest := place.root / ".venv" / "rest").touch()
        assert "Adding requirements-test.txt" in said(start(place, "test"))
        assert versions(place) == USUAL | {"more": "1.0"} and rest.exists()
        assert said(start(place)) == said(start(place, "test")) == ""

        (place.root / "requirements-test.txt").write_text("# nothing\n")
        assert said(start(place)) == "" and rest.exists(), "a reader does not care for the list of the tests"
        assert "Making" in said(start(place, "test"))
        assert versions(place) == USUAL and not rest.exists()

    def test_a_second_stage_that_failed_is_not_trusted(self, place):
        said(start(place))
        (place.root / "requirements-test.txt").write_text("nowhere==1.0\n")
        (rest := place.root / ".venv" / "rest").touch()
        running = start(place, "test")
        assert "What is wrong with requirements-test.txt?" in running.communicate(timeout=PATIENCE)[0]
        assert running.returncode != 0
        assert "Making" in said(start(place)) and not rest.exists()

    def test_what_is_bare_brings_nothing(self, monkeypatch, tmp_path):
        """As for the peers that are measured, which ask for releases that do not go together."""
        asked = []
        monkeypatch.setattr(environment, "pip", lambda python, *words: bool(asked.append(words)) or True)
        lists = [str(tmp_path / name) for name in ("one.txt", "two.txt", "three-bare.txt")]
        for path in lists:
            Path(path).touch()
        environment.install(lists, 1, "python")
        one, two, three = (("--requirement", path) for path in lists)
        assert asked == [one + two, ("--no-deps", *three)]


class TestWhereAndHow:
    """In any folder, beside another make, without a home: what may differ from machine to machine."""

    def test_an_umlaut_in_the_path(self, place):
        """The package is found through the path line, whatever the locale says."""
        (place.root / "requirements.txt").write_text("# nothing\n")
        place.env |= {"LC_ALL": "C"}
        assert str(place.root) in said(start(place))
        look = [place.python, "-c", "import divergence_notes; print(ascii(divergence_notes.__file__))"]
        found = subprocess.run(look, env=place.env, capture_output=True, text=True, check=True, cwd="/").stdout
        assert found.strip() == ascii(str(place.root / "divergence_notes" / "__init__.py"))

    def test_a_link(self, place, tmp_path):
        """Nothing is installed through it into what may be the environment of another folder."""
        said(start(place))
        shutil.move(place.root / ".venv", other := tmp_path / "other")
        (place.root / ".venv").symlink_to(other)
        assert said(start(place)) == "", "a folder that was moved to a larger disk is followed"
        (place.root / "requirements.txt").write_text("more==1.0\n")
        running = start(place)
        text = f"{place.root / '.venv'} is a link, and no environment is made through one. Remove the link.\n"
        assert running.communicate(timeout=PATIENCE)[0] == text and running.returncode == 1
        assert versions(place) == USUAL

    def test_two_at_once(self, place):
        """One makes it, the other waits, says so, and finds it made."""
        with environment.alone(place.root):
            running = [start(place), start(place)]
            for one in running:
                assert (
                    one.stdout.readline() == "Another make is at work here. This one goes on when that one has ended.\n"
                )
        texts = [said(one) for one in running]
        assert sorted(text.count("Making") for text in texts) == [0, 1]
        assert versions(place) == USUAL

    def test_a_file_system_without_locks(self, place, monkeypatch):
        import fcntl

        def refuse(*_):
            raise OSError("no locks")

        monkeypatch.setattr(fcntl, "flock", refuse)
        with environment.alone(place.root):
            pass

    @pytest.mark.parametrize("kind", ["read-only", "missing", "unset", "good"])
    def test_a_home_that_nobody_may_write(self, kind):
        """Jupyter, matplotlib and npm get another one. Root may write everywhere, so another user asks."""
        with tempfile.TemporaryDirectory() as folder:
            place, home = Path(folder), Path(folder, "home")
            shutil.copy(ROOT / "Makefile", place)
            if kind != "missing":
                home.mkdir(mode=0o777 if kind == "good" else 0o555)
                home.chmod(0o777 if kind == "good" else 0o555)
            place.chmod(0o777)
            env = {name: value for name, value in os.environ.items() if name != "HOME"}
            env |= {} if kind == "unset" else {"HOME": str(home)}
            command = ["make", "--no-print-directory", "--eval=say-home: ; @echo $$HOME", "say-home"]
            user = {"user": 65534} if os.geteuid() == 0 else {}
            done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=True, **user)
            want = home if kind == "good" else place / "_build" / "home"
            assert done.stdout.strip() == str(want) and want.is_dir()


def test_which_command_takes_which_stage():
    """Those of a reader take the first, and nothing that tests."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    needs = dict(re.findall(r"(?m)^([a-z]+):(.*)$", makefile))
    reader = {name for name, line in needs.items() if "env-test" not in line}
    assert {"book", "page", "serve", "zip", "lab", "study"} <= reader
    assert {"test", "check", "elsewhere", "nightly", "lock", "course", "student"} <= set(needs) - reader


def named(text):
    """Return the hosts of packages that a text names."""
    return [host for host in HOSTS if host in text]


def test_one_host_is_named_once():
    """Whoever has a mirror sets up pip and npm for it. The index of PyTorch itself is the exception."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    texts = {name: (ROOT / name).read_bytes().decode("utf-8", "replace") for name in files if (ROOT / name).is_file()}
    texts.pop("tests/project/test_first_command.py", None)
    assert {name: found for name, text in texts.items() if (found := named(text))} == {
        "tools/environment.py": ["download.pytorch.org"]
    }
    assert texts["tools/environment.py"].count("://") == 1
    assert named("index-url = https://pypi.org/simple") == ["pypi.org"]
