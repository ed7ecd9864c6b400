"""The fixtures of tests/chaos, whose tools these guards share."""

from __future__ import annotations

import math

import pytest

from chaos import tools
from required import cannot_run


@pytest.fixture(scope="session")
def strace():
    """Skip what needs strace where there is none, or fail where that may not be."""
    why = tools.why_not("strace")
    if why:
        cannot_run(why)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    """A client that this machine holds up for a moment does not pass for one that pauses (R12)."""
    monkeypatch.setattr("lunalog.client.marks.PACED_S", math.inf)
