"""The first milliseconds of the command: nobody is there yet who could tell of a Ctrl-C."""

import signal
import subprocess
import sys

import pytest

from lunalog import __main__ as entry

WHILE_IMPORTED = """
import os, signal, sys, time

loading = sys.argv[1]

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == loading:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)  # a handler of Python's would run now

sys.meta_path.insert(0, Interrupting())
from lunalog.__main__ import run
sys.argv[1:] = ["--cluster", "memory://early", "ls"]
sys.exit(run())
"""


def outside(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=100
    )


def test_the_way_to_the_first_line_of_the_command_loads_nothing():
    """What is loaded before it can be interrupted with a traceback."""
    code = (
        "import sys; before = set(sys.modules); import lunalog.__main__\n"
        "print(*sorted(set(sys.modules) - before - {'_signal'}))"
    )
    done = outside(code)
    ours = {"lunalog", "lunalog.__main__"}
    assert ours <= set(done.stdout.split()) <= ours | {"__future__"}, done.stderr


@pytest.mark.parametrize("loading", ["lunalog.cli.main", "lunalog.cli.streams", "uvloop"])
def test_ctrl_c_while_the_command_is_loaded_ends_it_without_a_word(loading):
    done = outside(WHILE_IMPORTED, loading)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (signal.default_int_handler, signal.SIG_DFL),
        (signal.SIG_IGN, signal.SIG_IGN),
    ],
)
def test_a_signal_that_is_ignored_stays_so(before, after, monkeypatch):
    """As it is for what a shell runs in the background."""
    kept = signal.signal(signal.SIGINT, before)
    try:
        monkeypatch.setattr("lunalog.cli.main.main", lambda: signal.getsignal(signal.SIGINT))
        assert entry.run() is after
    finally:
        signal.signal(signal.SIGINT, kept)
