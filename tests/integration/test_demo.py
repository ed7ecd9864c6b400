"""The demo on a small file: its proof, and what it leaves behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lunalog import limits
from processes import PATIENCE_S, end_by, named, until, until_line

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


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "input.txt"
    path.write_bytes(b"".join(b"\n" if i % 7 == 0 else b"line %d\n" % i for i in range(60_000)))
    return path


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--cluster", "lunalog://127.0.0.1:1"), 5, "e: no master answered at 127.0.0.1:1"),
        (("--cluster", "memory://empty"), 3, "e: no stream is named 'lines'"),
        (("--cluster", "http://x"), 2, "e: 'http://x': unknown scheme"),
    ],
)
def test_an_engine_that_cannot_run_says_in_one_line_what_it_needs(words, code, told, file):
    engine = DEMO.with_name("engine.py")
    done = subprocess.run(
        [sys.executable, str(engine), "e", "lines", str(file), *words],
        env={**os.environ, "PYTHONPATH": str(DEMO.parents[1] / "src")},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(told)
    assert "(`lunalog dev up --detach`)" in line
    assert line.endswith("(`lunalog create lines`)")


@pytest.mark.parametrize("what", ["missing", "directory", "empty", "pipe", "long"])
def test_a_file_that_cannot_be_used_is_told_in_one_line(what, tmp_path):
    path = tmp_path / what
    if what == "directory":
        path.mkdir()
    elif what == "empty":
        path.touch()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "long":
        path.write_bytes(b"short\n" + bytes(limits.PAYLOAD_BYTES_MAX + 1) + b"\n")
    child = start(path, tmp_path)
    out, _ = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 2, out.decode()
    (line,) = out.decode().splitlines()
    assert line.startswith(f"error: cannot replicate {path}: ")
    assert line.endswith("nothing was started; name a file of lines: make demo FILE=/some/file")
    assert "Errno" not in line


def test_the_proof_holds(file, tmp_path):
    child = start(file, tmp_path)
    out, _ = child.communicate(timeout=2 * PATIENCE_S)
    assert child.returncode == 0, out.decode()
    assert out.count(b"equal (") == 3, out.decode()
    assert b"kill -9 of the leader" in out
    assert b"kill -9 of journal server" in out
    assert named(tmp_path) == []
    assert list(tmp_path.glob("lunalog-demo-*")) == []


def test_a_file_that_is_over_before_the_first_kill_is_proven_too(file, tmp_path):
    file.write_bytes(b"a\n\nlast line without an end")
    child = start(file, tmp_path)
    out, _ = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0, out.decode()
    assert out.count(b"equal (") == 3
    assert b"not measured: the file is too short" in out


MOMENTS = {
    "reading": "lines (",
    "up": "journal servers are up",
    "led": "leads epoch 1",
    "leader killed": "kill -9 of the leader",
    "server killed": "kill -9 of journal server",
}


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.parametrize("moment", list(MOMENTS))
def test_whatever_ends_it_leaves_no_process(file, tmp_path, signum, moment):
    file.write_bytes(b"".join(b"line %d of a long file\n" % i for i in range(500_000)))
    child = start(file, tmp_path)
    until_line(child.stdout, MOMENTS[moment])
    end_by(child, signum)
    if signum == signal.SIGKILL:
        until(lambda: not named(tmp_path))
    assert named(tmp_path) == [], "it waits for all others"
