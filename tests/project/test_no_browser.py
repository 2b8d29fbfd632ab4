"""Where no browser can be driven the tests of pages say why, in one line."""

import shutil

import playwright
import pytest

from tests import browser

LACKS = "error while loading shared libraries: libatomic.so.1"


@pytest.fixture
def lame(tmp_path, monkeypatch):
    """Give playwright a Node that ends as it does where a library is not there, and the path a browser."""
    node = tmp_path / "driver" / "node"
    node.parent.mkdir()
    node.write_text(f"#!/bin/sh\necho '{LACKS}' >&2\nexit 127\n", encoding="utf-8")
    node.chmod(0o755)
    (tmp_path / "chromium").symlink_to(shutil.which("true"))
    monkeypatch.setattr(playwright, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setenv("PATH", str(tmp_path))
    return node


def test_a_library_that_is_not_there_is_named(lame, monkeypatch):
    monkeypatch.delenv("DIVERGENCE_NOTES_REQUIRE_BROWSER", raising=False)
    with pytest.raises(pytest.skip.Exception, match=LACKS), browser.launched():
        pass


def test_where_browsers_are_required_that_is_a_failure(lame, monkeypatch):
    monkeypatch.setenv("DIVERGENCE_NOTES_REQUIRE_BROWSER", "1")
    with pytest.raises(pytest.fail.Exception, match=LACKS), browser.launched():
        pass


def test_control_a_node_that_starts_is_no_reason(lame):
    lame.write_text("#!/bin/sh\necho v1\n", encoding="utf-8")
    assert browser.missing() == ""


def test_no_browser_on_the_path(lame, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert browser.missing().startswith("no Chromium found")
