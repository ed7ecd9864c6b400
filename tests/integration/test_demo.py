"""The demo on a small file: its proof, and what it leaves behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"
pytestmark = pytest.mark.slow


def start(file, tmp_path):
    env = {
        **os.environ,
        "PYTHONPATH": str(DEMO.parents[1] / "src"),
        "TMPDIR": str(tmp_path),
        "FILE": str(file),
    }
    return subprocess.Popen(
        [sys.executable, str(DEMO)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def left_behind(tmp_path):
    """Processes whose command line names the directory of the demo."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if str(tmp_path).encode() in (entry / "cmdline").read_bytes():
                    found.append(entry.name)
            except OSError:
                continue
    return found


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "input.txt"
    path.write_bytes(b"".join(b"\n" if i % 7 == 0 else b"line %d\n" % i for i in range(60_000)))
    return path


def test_the_proof_holds(file, tmp_path):
    child = start(file, tmp_path)
    out, _ = child.communicate(timeout=110)
    assert child.returncode == 0, out.decode()
    assert out.count(b"equal (") == 3, out.decode()
    assert b"kill -9 of the leader" in out
    assert b"kill -9 of journal server" in out
    assert left_behind(tmp_path) == []
    assert list(tmp_path.glob("lunalog-demo-*")) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.parametrize("delay", [0.3, 2.5])
def test_whatever_ends_it_leaves_no_process(file, tmp_path, signum, delay):
    child = start(file, tmp_path)
    time.sleep(delay)
    child.send_signal(signum)
    child.communicate(timeout=30)
    assert child.returncode != 0
    deadline = time.monotonic() + 15
    while left_behind(tmp_path):
        assert time.monotonic() < deadline, left_behind(tmp_path)
        time.sleep(0.1)


def test_a_file_that_is_not_there_or_empty_is_told(tmp_path):
    child = start(tmp_path / "nothing", tmp_path)
    out, _ = child.communicate(timeout=30)
    assert child.returncode == 1
    assert b"error: " in out
    assert b"Traceback" not in out
