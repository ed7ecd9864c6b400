"""The example of docs/simulating.md as it stands: the right counter passes, planted bugs are found."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parent.parent.parent


def run(counter: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-q", "examples/test_counter.py", *options],
        cwd=HOME,
        env={**os.environ, "COUNTER": counter},
        capture_output=True,
        text=True,
    )


def test_the_right_counter_passes() -> None:
    done = run("Counter", "--lunalog-seeds=5")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "5 passed" in done.stdout


def shown(done: subprocess.CompletedProcess[str]) -> tuple[int, int, str]:
    """What the replicas counted, what the users were told, and the seed."""
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    values = re.search(r"assert \{?(\d+)\}? (?:==|<=) [{(](\d+)", done.stdout)  # meanwhile or after
    command = re.search(
        r"replay: pytest 'examples/test_counter.py::.*' --lunalog-seed (\d+)", done.stdout
    )
    assert values is not None
    assert command is not None
    return int(values[1]), int(values[2]), command[1]


@pytest.mark.parametrize("counter", ["BlindCounter", "HastyCounter"])
def test_a_planted_bug_is_found_within_ten_seeds_and_replays(counter: str) -> None:
    counted, told, seed = found = shown(run(counter, "--exitfirst"))
    assert counted > told if counter == "BlindCounter" else counted < told
    assert shown(run(counter, f"--lunalog-seed={seed}")) == found
