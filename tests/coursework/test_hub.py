"""A JupyterHub with real users of this machine, set up by the page's own commands: from release to feedback.

It adds three users and two groups to the system, and removes them: it runs as root alone, and where nobody has these
names. DIVERGENCE_NOTES_HUB names an environment that has what the recipe installs; without it one is made.
"""

import contextlib
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import course
import make_wheel
import nbformat
import pytest
import requests
from grader import sandbox

from tests import pages
from tests.coursework.assignments import graded_cells
from tests.coursework.submissions import FULL, good
from tests.waiting import PATIENCE, until

ANN, BOB, PROF = "dn-ann", "dn-bob", "dn-prof"
HUB = course.COURSEWORK / "hub"
PARTS = ("coursework", "divergence_notes", "tools")
FILES = ("pyproject.toml", "requirements.txt", "requirements-test.txt")
BUILD = """
import os, sys
sys.path.insert(0, "coursework")
import course
root, release, _ = course.places()
course.build(seed=course.salted("word", root), root=root, release=release, only=["bellman"])
"""

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(os.geteuid() != 0, reason="a hub starts the servers of other users: this needs root"),
]


def done(*words, **more):
    """Run a command and return what it said; fail with it where it fails."""
    ended = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **more)
    assert ended.returncode == 0, f"{words}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def pythons():
    """List the Pythons from which another user's could be made."""
    names = [
        sys.executable,
        *(shutil.which(f"python3.{minor}", path="/usr/bin:/usr/local/bin") for minor in (13, 12, 11)),
    ]
    return [os.path.realpath(name) for name in names if name]


def for_everybody(command):
    """Say whether a user without rights of any kind can run a command."""
    # setpriv looks for its command with root's rights still; what env starts has none of them left.
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", *command]
    return subprocess.run(words, cwd="/", capture_output=True).returncode == 0


def recipe(place):
    """Return the page's commands for the machine, with its two folders in `place`."""
    page = (pages.BOOK / "instructors_term.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^    \S.*\n)+", page.partition("\n## On a JupyterHub\n")[2], re.M)
    (block,) = (block for block in blocks if "/opt/hub/bin/pip" in block)
    lines = [" ".join(line.split()) for line in block.replace("\\\n", " ").splitlines()]
    return [line.replace("/opt/hub", str(place / "hub")).replace("/srv", str(place / "srv")) for line in lines]


def environment(place):
    """Make the hub by the commands of the page: all of them, or what is left to do in the environment that is named."""
    lines, known = recipe(place), os.environ.get("DIVERGENCE_NOTES_HUB")
    if known:
        (place / "hub").symlink_to(known)
        lines = [line for line in lines if not re.match(r"python3|npm|\S+/pip ", line)]
    else:
        found = [name for name in pythons() if for_everybody([name, "-c", "import ensurepip"])]
        if not found:
            pytest.skip("no Python here may be run by other users: on Debian, apt install python3-venv")
        make_wheel.build(place)  # without torch: it is large, and this assignment has no use for it
        lines = [line.replace("dist/", f"{place}/").replace("[teach]", "[widgets]") for line in lines]
        lines[0] = re.sub(r"^python3\S*", found[0], lines[0])
    path = os.pathsep.join([os.environ["PATH"], str(Path(sys.executable).parent)])  # where npm is
    for line in lines:
        if not line.startswith(("groupadd", "useradd", "passwd")):  # these people are others, and go again
            done("bash", "-c", line, cwd=pages.ROOT, env=os.environ | {"PATH": path})
    return place / "hub"


def port():
    """Return a port of this machine that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Person:
    """A user of the system: in a terminal, and in a browser without pictures."""

    def __init__(self, name, hub):
        self.name, self.hub, self.password = name, hub, secrets.token_urlsafe(12)
        self.home = Path(pwd.getpwnam(name).pw_dir)
        self.web, self.address = requests.Session(), None
        subprocess.run(["chpasswd"], input=f"{name}:{self.password}", text=True, check=True)

    def types(self, *words, at=".", fails=False):
        """Run a command in this user's terminal."""
        path = f"{self.hub / 'bin'}:/usr/local/bin:/usr/bin:/bin"
        env = {"PATH": path, "HOME": str(self.home), "USER": self.name, "LANG": "C.UTF-8"}
        command = ["runuser", "-u", self.name, "--", "env", "-i", *(f"{k}={v}" for k, v in env.items()), *words]
        ended = subprocess.run(command, cwd=self.home / at, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert (ended.returncode != 0) == fails, f"{self.name}: {words}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout + ended.stderr

    def logs_in(self, address, password=None):
        """Log in to the hub by its form; return where that led."""
        self.address = address
        self.web.get(f"{address}/hub/login", timeout=PATIENCE)
        form = {"username": self.name, "password": password or self.password, "_xsrf": self.web.cookies["_xsrf"]}
        return self.web.post(f"{address}/hub/login", data=form, timeout=PATIENCE, allow_redirects=False)

    def starts(self):
        """Start this user's server and wait for JupyterLab."""
        self.web.get(f"{self.address}/hub/spawn/{self.name}", timeout=PATIENCE)
        mine = {cookie.path: cookie.value for cookie in self.web.cookies if cookie.name == "_xsrf"}
        progress = f"{self.address}/hub/api/users/{self.name}/server/progress"
        told = self.web.get(progress, params={"_xsrf": mine["/hub/"]}, timeout=PATIENCE).text  # to its end
        assert '"ready": true' in told, told
        lab = self.web.get(f"{self.address}/user/{self.name}/lab", timeout=PATIENCE)
        assert lab.ok and "jupyter-config-data" in lab.text

    def asks(self, path, *, of=None, method="get", **more):
        """Ask a server, this user's own or that of another, with this user's cookies."""
        base = f"/user/{of or self.name}"
        mine = [cookie.value for cookie in self.web.cookies if cookie.name == "_xsrf" and cookie.path == f"{base}/"]
        more.setdefault("headers", {})["X-XSRFToken"] = mine[0] if mine else ""
        return self.web.request(method, f"{self.address}{base}{path}", timeout=PATIENCE, **more)

    def presses(self, action):
        """Press a button of the assignment list; return what it then shows."""
        body = {"course_id": "divergence-notes", "assignment_id": "bellman"}
        answer = self.asks(f"/assignments/{action}", method="post", json=body)
        assert answer.ok, answer.text
        shown = answer.json()
        assert shown["success"], shown
        return shown["value"]


@contextlib.contextmanager
def users():
    """Add three people and their groups to the system, and remove them."""
    groups = {"students": [ANN, BOB], "instructors": [PROF]}
    with contextlib.ExitStack() as stack:
        for group, names in groups.items():
            if subprocess.run(["getent", "group", group], capture_output=True).returncode:
                done("groupadd", group)
                stack.callback(subprocess.run, ["groupdel", group], capture_output=True)
            for name in names:
                done("useradd", "--create-home", "--key", "HOME_MODE=0700", "--groups", group, name)
                stack.callback(subprocess.run, ["userdel", "--remove", name], capture_output=True)
        yield


@pytest.fixture(scope="module")
def hub():
    """Set up the hub as the recipe says, and yield its people, all of them logged in."""
    taken = [name for name in (ANN, BOB, PROF) if subprocess.run(["id", name], capture_output=True).returncode == 0]
    if taken:
        pytest.skip(f"there is somebody called {taken[0]} on this machine")
    place = Path(tempfile.mkdtemp(prefix="hub-"))
    place.chmod(0o755)
    try:
        made, exchange = environment(place), place / "srv" / "nbgrader" / "exchange"
        config = made / "etc" / "jupyter" / "nbgrader_config.py"
        text = config.read_text(encoding="utf-8")
        assert '"/srv/nbgrader/exchange"' in text
        config.write_text(text.replace("/srv/nbgrader/exchange", str(exchange)), encoding="utf-8")
        with users():
            people = {name: Person(name, made) for name in (ANN, BOB, PROF)}
            prepare(people[PROF])
            with running(made, place) as address:
                for person in people.values():
                    assert person.logs_in(address).status_code == 302
                    person.starts()
                yield people, exchange
    finally:
        shutil.rmtree(place, ignore_errors=True)


def prepare(prof):
    """Do what the instructor does once, in the own account."""
    repository = prof.home / "divergence-notes"
    repository.mkdir(mode=0o700)
    ignored = shutil.ignore_patterns("__pycache__", "instructor", "release", "student", "student.zip")
    for name in PARTS:
        shutil.copytree(pages.ROOT / name, repository / name, ignore=ignored)
    for name in FILES:
        shutil.copy(pages.ROOT / name, repository)
    done("chown", "-R", f"{prof.name}:{prof.name}", str(repository))
    prof.types("python", "-c", BUILD, at="divergence-notes")
    prof.types("mkdir", "-p", ".jupyter")
    prof.types("ln", "-s", str(repository / "coursework" / "instructor" / "nbgrader_config.py"), ".jupyter/")


@contextlib.contextmanager
def running(made, place):
    """Run the hub on this machine alone, and yield its address."""
    address = f"http://127.0.0.1:{port()}"
    words = [str(made / "bin" / "jupyterhub"), "--config", str(made / "jupyterhub_config.py")]
    words += [f"--JupyterHub.bind_url={address}", f"--JupyterHub.hub_port={port()}"]
    words += [f"--ConfigurableHTTPProxy.api_url=http://127.0.0.1:{port()}", f"--Spawner.http_timeout={PATIENCE}"]
    state = place / "state"
    state.mkdir(mode=0o700)
    env = os.environ | {"PATH": f"{made / 'bin'}:{os.environ['PATH']}", "HUB_OF_THE_TEST": str(place)}
    with (state / "log").open("w") as log:
        process = subprocess.Popen(
            words, cwd=state, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            until(lambda: process.poll() is not None or answers(f"{address}/hub/health"))
            assert process.poll() is None, (state / "log").read_text(encoding="utf-8")
            yield address
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            process.kill()
            left = [pid for name in (ANN, BOB, PROF) for pid in sandbox.of_user(pwd.getpwnam(name).pw_uid)]
            # The hub ends what started its proxy: of a node that pip has installed, that is not the proxy itself.
            for pid in [*left, *sandbox.strays(f"HUB_OF_THE_TEST={place}")]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            log.flush()
            print((state / "log").read_text(encoding="utf-8")[-4000:])


def answers(address):
    """Say whether somebody answers there."""
    with contextlib.suppress(requests.ConnectionError):
        return requests.get(address, timeout=PATIENCE).ok
    return False


def status(listed):
    """Return how an assignment list shows the assignment."""
    return {one["status"] for one in listed if one["assignment_id"] == "bellman"}


def switched_off(person):
    """List what of the formgrader this user's JupyterLab leaves out."""
    lab = person.asks("/lab").text
    told = json.loads(re.search(r'id="jupyter-config-data"[^>]*>(.*?)</script>', lab, re.S)[1])
    return [name for name in told.get("disabledExtensions", []) if "formgrader" in name]


class TestForEverybody:
    @pytest.mark.parametrize("mode", [0o755, 0o700])
    def test_a_program_in_a_closed_folder_is_for_root_alone(self, mode):
        place = Path(tempfile.mkdtemp())
        try:
            program = Path(shutil.copy(shutil.which("true"), place / "true"))
            place.chmod(mode)
            assert for_everybody([str(program)]) == (mode == 0o755)
        finally:
            shutil.rmtree(place)


class TestHub:
    """In this order: each test goes on where the last one ended."""

    def test_a_wrong_password_lets_nobody_in(self, hub):
        people, _ = hub
        stranger = Person.__new__(Person)
        stranger.name, stranger.web = ANN, requests.Session()
        assert stranger.logs_in(people[ANN].address, "not hers").status_code == 403

    def test_the_formgrader_is_there_for_the_instructor_and_for_no_student(self, hub):
        people, _ = hub
        shown = people[PROF].asks("/formgrader/manage_assignments")
        assert shown.ok and "formgrader" in shown.text
        assert "bellman" in people[PROF].asks("/formgrader/api/assignments").text
        for student in (ANN, BOB):
            assert people[student].asks("/formgrader/manage_assignments").status_code == 404
            assert switched_off(people[student]) == ["@jupyter/nbgrader:formgrader"]
        assert switched_off(people[PROF]) == []

    def test_nobody_reaches_the_server_of_another(self, hub):
        people, _ = hub
        for student, other in ((ANN, BOB), (ANN, PROF), (BOB, PROF)):
            answer = people[student].asks("/api/contents", of=other)
            assert answer.status_code in (403, 404), answer.text

    def test_no_student_reads_the_repository_or_the_home_of_another(self, hub):
        people, _ = hub
        assert "Permission denied" in people[BOB].types("ls", str(people[ANN].home), fails=True)
        for path in ("coursework/instructor/seed.txt", "coursework/questions/bellman.py"):
            said = people[ANN].types("cat", str(people[PROF].home / "divergence-notes" / path), fails=True)
            assert "Permission denied" in said

    def test_release_fetch_and_hand_in(self, hub):
        people, _ = hub
        prof = people[PROF]
        prof.types("nbgrader", "release_assignment", "bellman", at="divergence-notes/coursework/instructor")
        for student, text in ((ANN, nbformat.writes(solved(prof))), (BOB, None)):
            person = people[student]
            listed = person.asks("/assignments?course_id=divergence-notes").json()["value"]
            assert status(listed) == {"released"}
            assert status(person.presses("fetch")) == {"fetched"}
            got = person.asks("/api/contents/bellman/bellman.ipynb").json()["content"]
            assert "HIDDEN" not in json.dumps(got) and "SOLUTION" not in json.dumps(got)
            if text:
                body = {"type": "notebook", "format": "json", "content": json.loads(text)}
                assert person.asks("/api/contents/bellman/bellman.ipynb", method="put", json=body).ok
            assert "submitted" in status(person.presses("submit"))

    def test_what_was_handed_in_is_closed_to_the_others(self, hub):
        people, exchange = hub
        inbound = exchange / "divergence-notes" / "inbound"
        (anns,) = [path for path in inbound.iterdir() if path.name.startswith(f"{ANN}+")]
        assert "Permission denied" in people[BOB].types("ls", str(inbound), fails=True)
        course_place = exchange / "divergence-notes"
        said = people[BOB].types("mv", str(course_place), str(exchange / "gone"), fails=True)
        assert "not permitted" in said
        assert anns.is_dir()

    def test_collect_grade_read_and_feedback(self, hub):
        people, _ = hub
        prof, course_place = people[PROF], "divergence-notes/coursework/instructor"
        prof.types("nbgrader", "collect", "bellman", at=course_place)
        said = prof.types("python", "coursework/grade.py", "autograde", "bellman", at="divergence-notes")
        if sandbox.isolation() == "namespaces":  # what root has here, this user must have too
            assert sandbox.STATEMENTS["namespaces"] in said
        assert f"{ANN} " in said and f"{sum(FULL.values()):.2f} of" in said and "0.00 of" in said
        # The derivation is read in the formgrader, over the hub.
        listed = prof.asks("/formgrader/api/submissions/bellman").json()
        assert {one["student"] for one in listed} == {ANN, BOB}
        (notebook,) = prof.asks("/formgrader/api/submitted_notebooks/bellman/bellman").json()[:1]
        page = prof.asks(f"/formgrader/submissions/{notebook['id']}/")
        assert page.ok and "derive-answer" in page.text
        read = [
            grade
            for one in prof.asks("/formgrader/api/submitted_notebooks/bellman/bellman").json()
            if one["student"] == ANN
            for grade in prof.asks(f"/formgrader/api/grades?submission_id={one['id']}").json()
            if grade["name"] in graded_cells("bellman", manual=True)
        ]
        assert {grade["name"] for grade in read} == set(graded_cells("bellman", manual=True))
        for grade in read:
            body = grade | {"manual_score": GIVEN}
            assert prof.asks(f"/formgrader/api/grade/{grade['id']}", method="put", json=body).ok
        table = prof.types("python", "coursework/grade.py", "table", "bellman", at="divergence-notes")
        assert re.search(rf"^{ANN} +{marked():.2f} of \d+  graded$", table, re.M), table
        prof.types("python", "coursework/grade.py", "feedback", "bellman", at="divergence-notes")
        prof.types("nbgrader", "release_feedback", "bellman", at=course_place)

    def test_each_student_gets_the_own_feedback_and_no_other(self, hub):
        people, exchange = hub
        found = {}
        for student in (ANN, BOB):
            people[student].presses("fetch_feedback")
            (page,) = (people[student].home / "bellman" / "feedback").rglob("bellman.html")
            found[student] = page
            shown = people[student].asks(f"/api/contents/{page.relative_to(people[student].home)}").json()["content"]
            assert "default-src 'none'" in shown
        texts = {student: page.read_text(encoding="utf-8") for student, page in found.items()}
        score = f"{marked():.1f}"
        assert score in texts[ANN] and score not in texts[BOB]
        people[BOB].types("cat", str(found[ANN]), fails=True)
        people[BOB].types("ls", str(exchange / "divergence-notes" / "feedback"), fails=True)


GIVEN = 3.0
"""Points for each answer that a person reads."""


def marked():
    """Return the points of the solution: what the computer gives, and what was given in the formgrader."""
    return sum(FULL.values()) + GIVEN * len(graded_cells("bellman", manual=True))


def solved(prof):
    """Return the solution, with the numbers of the instructor's class."""
    return good(prof.home / "divergence-notes" / "coursework" / "instructor")
