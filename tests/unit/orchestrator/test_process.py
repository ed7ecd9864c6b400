"""Pid files, start times, lifelines."""

import os
import subprocess
import sys

import pytest

from lunalog.errors import DirectoryLockedError, StorageError
from lunalog.orchestrator.process import (
    PidFile,
    PidRecord,
    boot_id,
    live_owner,
    read_pid_file,
    spawn,
    start_time,
)


def test_a_pid_file_says_who_holds_it_and_keeps_others_out(tmp_path):
    held = PidFile(tmp_path / "a" / "x.pid")
    held.take(("lunalog://h:1",))
    record = live_owner(tmp_path / "a" / "x.pid")
    assert record is not None
    assert (record.pid, record.arguments) == (os.getpid(), ("lunalog://h:1",))
    with pytest.raises(DirectoryLockedError, match=f"process {os.getpid()}"):
        PidFile(tmp_path / "a" / "x.pid").take()
    held.release()
    held.release()
    assert live_owner(tmp_path / "a" / "x.pid") is None
    again = PidFile(tmp_path / "a" / "x.pid")
    again.take()
    again.release()


def test_a_pid_that_was_given_out_again_is_nobody(tmp_path):
    pid = os.getpid()
    mine = PidRecord(pid=pid, started=start_time(pid), boot=boot_id())
    assert mine.is_alive
    assert not PidRecord(pid=pid, started=mine.started - 1, boot=boot_id()).is_alive
    assert not PidRecord(pid=pid, started=mine.started, boot="another").is_alive
    assert not PidRecord(pid=pid, started=mine.started - 1, boot=boot_id()).send(0)
    assert mine.send(0)


def test_a_zombie_is_dead():
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert start_time(child.pid) is None
    child.wait()


def test_half_a_pid_file_is_none(tmp_path):
    (tmp_path / "x.pid").write_bytes(b'{"pid": 1')
    assert read_pid_file(tmp_path / "x.pid") is None
    assert read_pid_file(tmp_path / "y.pid") is None


def test_what_cannot_be_started_or_written_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="nothing was changed"):
        spawn([str(tmp_path / "no-such-program")], tmp_path / "log")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*/file/log: "):
        spawn([sys.executable, "-c", ""], tmp_path / "file" / "log")
    told = r"x\.pid: File exists; nothing was started; use a directory that can be written"
    with pytest.raises(StorageError, match=told):
        PidFile(tmp_path / "file" / "x.pid").take()


def test_a_process_ends_when_its_lifeline_closes():
    code = (
        "import sys, threading\nfrom lunalog.orchestrator.process import watch_lifeline\n"
        "watch_lifeline(int(sys.argv[1]), lambda: None, 0.0)\nthreading.Event().wait()"
    )
    read_end, write_end = os.pipe()
    child = spawn([sys.executable, "-c", code, str(read_end)], None, pass_fds=(read_end,))
    os.close(read_end)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.3)
    os.close(write_end)
    assert child.wait(60) == 129
