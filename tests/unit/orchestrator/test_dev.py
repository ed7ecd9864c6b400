"""A one-machine cluster, with a stand-in for the master."""

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest

from lunalog.errors import DirectoryLockedError, UsageError
from lunalog.orchestrator import dev
from lunalog.orchestrator.dev import DevCluster, DevDirectory, Lifeline, free_port
from lunalog.orchestrator.process import spawn, start_time
from lunalog.runtime import SystemRuntime

MASTER = """
import sys, threading, signal
from pathlib import Path
from lunalog.orchestrator.process import PidFile, watch_lifeline
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
ended = threading.Event()
watch_lifeline(int(flags["--lifeline"]), ended.set)
signal.signal(signal.SIGTERM, lambda *_: ended.set())
if (Path(flags["--data"]) / "broken").exists():
    sys.exit("error: the metadata are broken")
held = PidFile(Path(flags["--pid-file"]))
held.take()
while not ended.wait(0.02):
    pass
held.release()
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A directory, and a stand-in that is started instead of `python -m lunalog master`."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setattr(dev, "MASTER_BACKOFF_S", 0.01)

    def instead(arguments, log, **more):
        return spawn([sys.executable, "-c", MASTER, *arguments[4:]], log, **more)

    monkeypatch.setattr(dev, "spawn", instead)
    return tmp_path


async def until(holds):
    async with asyncio.timeout(60):
        while not (found := holds()):
            await asyncio.sleep(0.01)
    return found


def test_a_lifeline_knows_whether_somebody_holds_it():
    line = Lifeline()
    held = os.dup(line.fd)
    line.cut()
    assert not line.is_alone
    os.close(held)
    assert line.is_alone
    line.close()


async def test_up_once_status_and_down(home):
    cluster = DevCluster(SystemRuntime(), home, servers=3)
    await cluster.start()
    directory = DevDirectory(home)
    pid = (await until(directory.members))["master"]
    assert directory.url() == cluster.url
    with pytest.raises(DirectoryLockedError, match="in use by process"):
        await DevCluster(SystemRuntime(), home, servers=3).start()
    await cluster.stop()
    await cluster.stop()
    assert start_time(pid) is None
    assert directory.members() == {}
    assert directory.url() is None


async def test_a_killed_master_is_started_again(home):
    cluster = DevCluster(SystemRuntime(), home, servers=3)
    await cluster.start()
    cluster.note_up()
    pid = (await until(cluster.directory.members))["master"]
    assert cluster.directory.kill("nobody") == 0
    assert cluster.directory.kill("master") == pid
    await until(lambda: cluster.directory.members().get("master", pid) != pid)
    await cluster.stop()


async def test_a_master_that_does_not_start_is_told_with_its_last_words(home):
    (home / "master").mkdir()
    (home / "master" / "broken").write_text("")
    cluster = DevCluster(SystemRuntime(), home, servers=3)
    await cluster.start()
    await asyncio.wait_for(cluster.given_up.wait(), 60)
    assert cluster.failed == "the metadata are broken"
    await cluster.stop()


async def test_all_ends_when_the_holder_is_killed(home):
    """The holder is a process of its own, so that it can be killed."""
    code = (
        "import asyncio, sys\nfrom pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_dev\nfrom lunalog.orchestrator import dev\n"
        "dev.spawn = lambda a, log, spawn=dev.spawn, **m: "
        "spawn([sys.executable, '-c', test_dev.MASTER, *a[4:]], log, **m)\n"
        "async def main():\n"
        "    cluster = dev.DevCluster(test_dev.SystemRuntime(), Path(sys.argv[1]), servers=1)\n"
        "    await cluster.start()\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    holder = spawn([sys.executable, "-c", code, str(home)], home / "holder.log")
    directory = DevDirectory(home)
    pid = (await until(directory.members))["master"]
    holder.kill()
    holder.wait()
    await until(lambda: start_time(pid) is None)


def test_a_port_in_use_is_refused_before_anything_is_started():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match="nothing was started"):
            free_port("127.0.0.1", port)
    assert free_port("127.0.0.1", 0) > 0
    with pytest.raises(UsageError):
        free_port("192.0.2.1", 0)
