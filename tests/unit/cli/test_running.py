"""Signals end a command, until what it did stands."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, os, signal, sys
from lunalog.cli.exits import TerminatedError
from lunalog.cli.options import Settings
from lunalog.cli.running import past_return, run

signum, when = int(sys.argv[1]), sys.argv[2]

async def work():
    if when == "before":
        os.kill(os.getpid(), signum)
        await asyncio.sleep(600)
    await past_return()
    os.kill(os.getpid(), signum)
    return 0

try:
    code = run(Settings("lunalog://127.0.0.1:1", "table", None, False), work())
    os.kill(os.getpid(), signum)
except TerminatedError as error:
    sys.exit(100 + error.signum)
sys.exit(code)
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_signal_ends_a_command_before_the_point_of_no_return_and_not_after(signum, when):
    """A cluster that was left running must not be told of as one whose start was cancelled."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(int(signum)), when],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stderr == ""
    assert done.returncode == (0 if when == "after" else 100 + signum)
