"""`lunalog dev`: a cluster on this machine, up and down, killed and brought back."""

import json
import os
import signal
import socket
import time

import pytest
from command import Command

from lunalog.orchestrator.dev import DevDirectory
from lunalog.orchestrator.process import start_time
from ports import free_port
from processes import PATIENCE_S, end_by, until

pytestmark = pytest.mark.slow


@pytest.fixture
def dev(tmp_path):
    """A command with a directory of its own; whatever lives there is ended."""
    command = Command()
    home = DevDirectory(tmp_path / "dev")
    yield command, home
    command.run("dev", "down", "--dir", str(home.path))
    assert home.members() == {}
    assert home.holder() is None


def up(command, home, *more):
    port = str(free_port())
    done = command.run("dev", "up", "--detach", "--port", port, "--dir", str(home.path), *more)
    assert done.code == 0, done
    command.url = home.url()
    return done


def status(command, home):
    done = command.run("dev", "status", "--dir", str(home.path), "-o", "json")
    assert done.code == 0, done
    return {row["name"]: row for row in json.loads(done.out)}


def test_up_status_kill_down_and_up_again(dev):
    """Acknowledged events outlive kills of servers and master, and the end of the cluster."""
    command, home = dev
    assert "master and 3 servers" in up(command, home).err
    assert set(status(command, home)) == {"master", "s1", "s2", "s3"}
    again = command.run("dev", "up", "--detach", "--dir", str(home.path))
    assert again.code == 4
    assert "up already" in again.err
    command.ok("create", "orders")
    command.ok("append", "orders", given=b"one\n\ntwo\n")

    before = home.members()
    assert "killed s2" in command.run("dev", "kill", "s2", "--dir", str(home.path)).err
    until(lambda: home.members().get("s2", before["s2"]) != before["s2"])
    command.ok("append", "orders", given=b"three\n")

    assert command.run("dev", "kill", "master", "--dir", str(home.path)).code == 0
    until(lambda: home.members().get("master", before["master"]) != before["master"])
    command.ok("append", "orders", given=b"four\n")
    after = home.members()
    assert {n: p for n, p in after.items() if n in ("s1", "s3")} == {
        n: p for n, p in before.items() if n in ("s1", "s3")
    }
    assert command.run("dev", "kill", "s9", "--dir", str(home.path)).code == 3

    assert command.run("dev", "down", "--dir", str(home.path)).code == 0
    assert home.members() == {}
    assert command.run("dev", "status", "--dir", str(home.path)).code == 5
    up(command, home)
    assert command.ok("read", "orders") == b"one\n\ntwo\nthree\nfour\n"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_whatever_ends_the_foreground_ends_all(dev, signum):
    command, home = dev
    child = command.start("dev", "up", "--port", "0", "--servers", "1", "--dir", str(home.path))
    until(lambda: "s1" in home.members())
    pids = list(home.members().values())
    time.sleep(0.3 * (signum == signal.SIGINT))
    end_by(child, signum)
    until(lambda: all(start_time(pid) is None for pid in pids))


@pytest.mark.parametrize("delay", [0.05, 0.2, 0.4, 0.8])
def test_ctrl_c_at_any_moment_of_the_start_leaves_nothing(dev, delay):
    command, home = dev
    child = command.start(
        "dev", "up", "--detach", "--port", "0", "--dir", str(home.path), start_new_session=True
    )
    time.sleep(delay)
    os.killpg(child.pid, signal.SIGINT)
    child.communicate(timeout=PATIENCE_S)
    if child.returncode != 0:  # it may have been ready already
        until(lambda: not home.members() and home.holder() is None)


def test_a_port_in_use_is_told(dev):
    command, home = dev
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for more in ((), ("--detach",)):
            done = command.run("dev", "up", *more, "--port", port, "--dir", str(home.path))
            assert done.code == 2, done
            assert "in use" in done.err
            assert "--port" in done.err


def test_a_directory_that_cannot_be_used_is_told(dev, tmp_path):
    command, _ = dev
    (tmp_path / "file").write_text("")
    done = command.run("dev", "up", "--port", "0", "--dir", str(tmp_path / "file"))
    assert done.code in (1, 2), done
    assert done.err.startswith("error: ")
    assert "Traceback" not in done.err


def test_scale_up_and_down(dev):
    command, home = dev
    up(command, home, "--servers", "1")
    command.ok("servers", "scale", "2")
    until(lambda: "s2" in home.members())
    command.ok("servers", "scale", "1")
    until(lambda: len(home.members()) == 2)
