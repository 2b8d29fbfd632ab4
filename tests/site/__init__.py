"""Tests of the built site."""

import pytest
from build_book import SITE

needs_python = pytest.mark.skipif(
    not (SITE / "live" / "live.json").is_file(), reason="the site was built without Python"
)
