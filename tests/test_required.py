"""What a test cannot do without: skipped by name, and a failure where that may not be."""

import pytest

from required import REQUIRED, cannot_run


def test_what_cannot_run_is_skipped_by_name(monkeypatch):
    monkeypatch.delenv(REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="NOT RUN: no such tool"):
        cannot_run("no such tool")


def test_what_cannot_run_fails_where_it_must(monkeypatch):
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception, match="not run: no such tool"):
        cannot_run("no such tool")
