"""The container of the hub does what the page's commands do: what is changed there is changed in both places."""

import re
from pathlib import Path

from tests.coursework.test_hub import HUB, recipe

COMMANDS = [line.replace("/page/hub", "/opt/hub").replace("/page/srv", "/srv") for line in recipe(Path("/page"))]
TEXT = re.sub(r"\\\n\s*", "", (HUB / "Dockerfile").read_text(encoding="utf-8"))


class TestContainer:
    def test_what_is_set_up_is_the_same(self):
        typed = [line for line in COMMANDS if re.match(r"cp|install|groupadd|useradd|passwd", line)]
        assert len(typed) == 7
        for line in typed:
            assert re.search(rf"{re.escape(line)}(?= &&|$)", TEXT, re.M), line

    def test_what_is_installed_is_the_same(self):
        assert "python3.12 -m venv /opt/hub" in COMMANDS
        assert "\nFROM python:3.12-" in TEXT and "python -m venv /opt/hub" in TEXT
        (pip,) = (line for line in COMMANDS if "/pip " in line)
        for words in ('"$(ls -t dist/*.whl | head -n 1)[teach]"', "--requirement coursework/hub/requirements.txt"):
            assert words in pip and words in TEXT
        (npm,) = (line for line in COMMANDS if line.startswith("npm "))
        (proxy,) = re.findall(r"configurable-http-proxy@\d+\.\d+\.\d+$", npm)  # later ones may want a later Node
        assert TEXT.count(proxy) == TEXT.count("configurable-http-proxy") == 1
