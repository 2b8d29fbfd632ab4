"""The package as an index shows it and as pip installs it."""

import importlib.metadata
import re
import tomllib
import zipfile

import downloads
import environment
import make_wheel
import pytest

from tests.pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """Return where the wheel is unpacked."""
    place = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(make_wheel.build(place)) as archive:
        archive.extractall(place)
    return place


@pytest.fixture(scope="module")
def metadata(unpacked):
    """Return what an index reads."""
    (info,) = unpacked.glob("*.dist-info")
    return importlib.metadata.Distribution.at(info).metadata


def relative(text):
    """Return the links of a description that lead to a neighbour."""
    return re.findall(r"\]\((?!\w+:|#)([^)]*)\)", text)


class TestDescription:
    """It is the README, and its links lead from anywhere to the release that the wheel is."""

    def test_no_link_leads_to_a_neighbour(self, metadata):
        text = metadata.get_payload()
        assert metadata["Description-Content-Type"] == "text/markdown"
        assert relative(text) == [] and relative((ROOT / "README.md").read_text(encoding="utf-8")) != []

    def test_what_it_links_to_is_there(self, metadata):
        start = rf"{re.escape(PROJECT['urls']['Source'])}/(?:raw|blob)/v{re.escape(PROJECT['version'])}/"
        paths = re.findall(rf"\]\({start}([^)]+)\)", metadata.get_payload())
        assert {"CHANGELOG.md", "LICENSE", "book/_static/portraits.png"} <= set(paths)
        assert [path for path in paths if not (ROOT / path).is_file()] == []

    @pytest.mark.parametrize(
        ("text", "made"),
        [
            ("![a](b/c.png)", "![a]({0}/raw/v{1}/b/c.png)"),
            ("[a](b.md), [c](https://d.e)", "[a]({0}/blob/v{1}/b.md), [c](https://d.e)"),
            ("[a](#b)", "[a](#b)"),
        ],
    )
    def test_which_links_change(self, text, made):
        assert make_wheel.description(text) == made.format(PROJECT["urls"]["Source"], PROJECT["version"])


class TestMetadata:
    """What the settings of the project say elsewhere, the package says too."""

    def test_addresses(self, metadata):
        said = dict(line.split(", ", 1) for line in metadata.get_all("Project-URL"))
        config = downloads.settings()
        assert said["Source"] == config["repository"]["url"]
        assert said["Book"] == config["sphinx"]["config"]["ogp_site_url"]
        assert said["Issues"].startswith(said["Source"]) and said["Changelog"].startswith(said["Source"])

    def test_pythons(self, metadata):
        found = re.findall(r"Programming Language :: Python :: (3\.\d+)", " ".join(metadata.get_all("Classifier")))
        assert found == environment.supported()

    def test_types_are_for_others_too(self, unpacked):
        assert (unpacked / "divergence_notes" / "py.typed").is_file()

    def test_what_a_user_does_has_an_extra(self, metadata):
        assert {"preqn", "monitor", "teach", "neural", "plot", "widgets"} <= set(metadata.get_all("Provides-Extra"))
