"""What a public host runs, which are commands of this project, and asks: the label of what is wrong."""

import re

import environment
import pytest
import yaml

from tests.pages import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = [path for path in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")) if path.stem != "config"]
TARGETS = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
ELSEWHERE = ["gh release create"]
"""The one command that has no meaning on this machine."""


def read(path):
    """Return a file of settings; `on` is no truth value there."""
    return yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)


def jobs(path):
    """Return the jobs of a workflow that have steps."""
    return {name: job for name, job in read(path)["jobs"].items() if "steps" in job}


def strange(text):
    """Return the lines of a step that are no command of the Makefile."""
    lines = [line.strip() for line in text.strip().split("\n")]
    found = [re.fullmatch(r"make (?:--silent )?([a-z-]+)( [A-Z]+=\S+)*( >> \S+)?", line) for line in lines]
    return [
        line
        for line, command in zip(lines, found, strict=True)
        if not (command and command[1] in TARGETS) and not line.startswith(tuple(ELSEWHERE))
    ]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_step_is_a_command_of_ours(path):
    for job in jobs(path).values():
        texts = [step["run"] for step in job["steps"] if "run" in step]
        assert texts and [line for text in texts for line in strange(text)] == []
        assert int(job["timeout-minutes"]) <= 120


@pytest.mark.parametrize("text", ["make nothing", "pip install numpy", "make book\ncurl x", "make book; ls"])
def test_another_step_is_found(text):
    assert strange(text) != []


def test_each_python_is_tested_and_two_kernels_of_the_linear_algebra():
    matrix = jobs(ROOT / ".github" / "workflows" / "test.yml")["test"]["strategy"]["matrix"]
    assert matrix["python"] == environment.supported()
    assert len(set(matrix["kernel"])) == 2


def test_only_who_publishes_may_write():
    """A pull request of a stranger runs with the right to read."""
    assert len(WORKFLOWS) == 4
    for path in WORKFLOWS:
        workflow = read(path)
        assert workflow["permissions"] == {"contents": "read"}
        writers = [name for name, job in workflow["jobs"].items() if "write" in job.get("permissions", {}).values()]
        assert writers == {"publish": ["publish"], "release": ["files", "site"]}.get(path.stem, [])
        assert not writers or "pull_request" not in workflow["on"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_report_asks_for_the_label(path):
    fields = {field["id"]: field for field in read(path)["body"]}
    assert fields["label"]["validations"]["required"] == "true"
    assert {name for name, field in fields.items() if field["validations"]["required"] == "true"} == {
        "label",
        "says",
        "case",
    }
    (example,) = re.findall(r"such as ([a-z-]+)", fields["label"]["attributes"]["description"])
    texts = [page.read_text(encoding="utf-8") for page in sorted((ROOT / "book").glob("*.ipynb"))]
    assert any(f"({example})" in text for text in texts), f"{example} is no label of the book"


def test_there_is_a_form_for_a_formula_and_one_for_a_sentence():
    assert [path.stem for path in FORMS] == ["formula", "sentence"]
