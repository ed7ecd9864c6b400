"""What a test cannot do without: it says so and is skipped, or fails where that may not be."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

REQUIRED = "LUNALOG_FAULTS_REQUIRED"
"""Set where a fault that cannot be inflicted is a failure, not a skip."""


def cannot_run(why: str) -> NoReturn:
    """End the test that runs."""
    if os.environ.get(REQUIRED):
        pytest.fail(f"not run: {why}")
    pytest.skip(f"NOT RUN: {why}")
