"""The fixtures of tests/chaos, whose tools these guards share."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from chaos import tools

REQUIRED = "LUNALOG_FAULTS_REQUIRED"


@pytest.fixture(scope="session")
def strace():
    """Skip what needs strace where there is none, or fail where that may not be."""
    why = tools.why_not("strace")
    if why and os.environ.get(REQUIRED):
        pytest.fail(f"not run: {why}")
    if why:
        pytest.skip(f"NOT RUN: {why}")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    """A client that this machine holds up for a moment does not pass for one that pauses (R12)."""
    monkeypatch.setattr("lunalog.client.marks.PACED_S", math.inf)
