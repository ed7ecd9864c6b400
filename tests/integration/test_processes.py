"""Masters and servers as processes: how they end, what outlives a kill, and why one does not start."""

import asyncio
import contextlib
import ctypes
import itertools
import json
import os
import signal
import subprocess
import sys

import pytest
from clusters import Cluster, append_for, follow, grown, next_leads, read_all, refused
from command import environment

from lunalog import LunalogError, SingleWriteJournal
from ports import free_port
from processes import PATIENCE_S, until

pytestmark = pytest.mark.slow


LIBC = ctypes.CDLL(None, use_errno=True)
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1


@pytest.fixture
def cluster(tmp_path):
    found = Cluster(tmp_path)
    yield found
    found.end()


# --------------------------------------------------------------------------------- ends


async def test_sigterm_finishes_what_is_queued_and_ends_with_0(cluster):
    """Two servers of two are needed for every ack; both are told to end while appends are under way."""
    cluster.up(2)
    async with cluster.connect("a") as journal:
        await journal.create_stream("s", replicas=2, ack_quorum=2)
        acknowledged = []
        try:
            async with journal.lead("s", timeout=PATIENCE_S) as writer:
                await append_for(writer, acknowledged, 2000)
                appending = asyncio.create_task(append_for(writer, acknowledged, 1_000_000))
                await grown(acknowledged, 2100)
                for name in ("s1", "s2"):
                    cluster.processes[name].send_signal(signal.SIGTERM)
                codes = [
                    await asyncio.to_thread(cluster.processes[n].wait, PATIENCE_S)
                    for n in ("s1", "s2")
                ]
                assert codes == [0, 0], cluster.log("s1")
                for name in ("s1", "s2"):
                    cluster.start(name)
                await grown(acknowledged, len(acknowledged) + 1000)  # the same leader goes on
                assert not appending.done(), appending
                appending.cancel()
        finally:
            assert len(acknowledged) > 3000
        kept = await read_all(journal, "s")
        assert kept[: len(acknowledged)] == acknowledged
    for name in ("s1", "s2"):
        assert "server_stopped" in cluster.log(name)
        assert "damage" not in cluster.log(name)
        assert "critical" not in cluster.log(name)


async def test_kills_of_every_server_in_turn_lose_nothing(cluster):
    """Each of three servers is killed -9 in the middle of appends, and comes back."""
    cluster.up(3)
    acknowledged = []
    async with cluster.connect("a") as journal:
        await journal.create_stream("s", replicas=3, ack_quorum=2)
        async with journal.lead("s", timeout=PATIENCE_S) as writer:
            for name in ("s1", "s2", "s3"):
                appending = asyncio.create_task(append_for(writer, acknowledged, 3000))
                await grown(acknowledged, len(acknowledged) + 100)
                cluster.kill(name)
                await appending
                cluster.start(name)
                await asyncio.to_thread(cluster.until_alive, 3)
            await append_for(writer, acknowledged, 100)
        assert await read_all(journal, "s") == acknowledged
    with_master = {row["name"]: row for row in cluster.servers()}
    assert {row["incarnation"] for row in with_master.values()} == {1}, "a kill loses no disk"


async def test_kill_of_all_processes_at_once_loses_nothing(cluster):
    cluster.up(3)
    acknowledged = []
    async with cluster.connect("a") as journal:
        await journal.create_stream("s", replicas=3, ack_quorum=2)
        writer = await journal.open_stream_writer("s")
        async with journal.observe_state("s") as states:
            async for state in states:
                if state.role.name == "LEADER":
                    break
            appending = asyncio.create_task(append_for(writer, acknowledged, 1_000_000))
            await grown(acknowledged, 1000)
            for child in cluster.processes.values():
                child.kill()
            await asyncio.sleep(0.2)
            appending.cancel()
            await asyncio.wait([appending])
    cluster.end()
    cluster.up(3)
    async with cluster.connect("b") as journal:
        async with journal.lead("s", timeout=PATIENCE_S) as writer:
            await writer.append(b"last")
        kept = await read_all(journal, "s")
    assert kept[: len(acknowledged)] == acknowledged
    assert kept[-1] == b"last"


async def test_kill_of_the_leader_loses_nothing_and_the_next_goes_on(cluster):
    """A leader process dies by -9; a candidate that waits takes over what was acknowledged."""
    cluster.up(3)
    cluster.command.ok("create", "s")
    first = cluster.command.start("append", "s", "--peer", "first")

    def feed():
        with contextlib.suppress(BrokenPipeError):
            for n in itertools.count():
                first.stdin.write(b"%d\n" % n)

    feeding = asyncio.create_task(asyncio.to_thread(feed))
    async with cluster.connect("second") as journal:
        seen = await follow(journal, {5000: first.kill})  # what was read is committed, so it stays
        await feeding
        first.communicate()
        assert first.returncode == -signal.SIGKILL
        await next_leads(journal, seen)


async def test_servers_outlive_their_master_and_appends_go_on_without_it(cluster):
    """The data path needs no master; the next one on its directory knows all there was."""
    cluster.up(3)
    acknowledged = []
    async with cluster.connect("a") as journal:
        await journal.create_stream("s", replicas=3, ack_quorum=2)
        async with journal.lead("s", timeout=PATIENCE_S) as writer:
            await append_for(writer, acknowledged, 100)
            epoch = writer.epoch
            cluster.kill("master")
            await append_for(writer, acknowledged, 2000)
            cluster.start("master")
            await asyncio.to_thread(cluster.until_alive, 3)
            await append_for(writer, acknowledged, 100)
            assert writer.epoch == epoch
        assert await read_all(journal, "s") == acknowledged
    assert all(cluster.processes[f"s{n}"].poll() is None for n in (1, 2, 3))


# ------------------------------------------------------------------------------- refusals


def test_what_keeps_a_node_from_starting_is_told(cluster, tmp_path):
    cluster.up(1)
    server = ("server", "--masters", cluster.masters, "--data")
    taken = str(cluster.ports["s1"])

    code, why = refused(cluster, *server, str(tmp_path / "new"), "--port", taken)
    assert code == 2
    assert f"127.0.0.1:{taken}" in why
    assert "in use" in why
    code, why = refused(cluster, "master", "--data", str(tmp_path / "m2"), "--port", taken)
    assert code == 2
    assert f"127.0.0.1:{taken}" in why

    code, why = refused(cluster, *server, str(tmp_path / "s1"))
    assert code == 1
    assert "in use by another process" in why
    code, why = refused(cluster, "master", "--data", str(tmp_path / "master"), "--port", "0")
    assert code == 1
    assert "in use by another process" in why

    (tmp_path / "file").write_text("")
    code, why = refused(cluster, *server, str(tmp_path / "file" / "below"))
    assert code == 1
    assert "Not a directory" in why
    code, why = refused(cluster, "master", "--data", str(tmp_path / "file" / "b"), "--port", "0")
    assert code == 1
    assert "Not a directory" in why

    cluster.kill("s1")
    code, why = refused(cluster, *server, str(tmp_path / "s1"), "--name", "other")
    assert code == 2
    assert "belongs to server s1" in why
    assert cluster.start("s1").poll() is None
    cluster.until_alive(1)


def test_p5_a_bug_in_a_callback_of_its_loop_ends_a_node(tmp_path):
    """The loop would go on without it: a master, say, that judges no lease any more."""
    careless = (
        "import sys\n"
        "from lunalog.__main__ import run\n"
        "from lunalog.master.service import Master\n"
        "Master._judge = lambda self: 1 / 0\n"
        "sys.exit(run())\n"
    )
    command = [sys.executable, "-c", careless, "master", "--data", str(tmp_path), "--port", "0"]
    done = subprocess.run(command, env=environment(), capture_output=True, timeout=PATIENCE_S)
    assert done.returncode == 70
    last = json.loads(done.stderr.splitlines()[-1])
    assert (last["level"], last["event"]) == ("critical", "node_failed")
    assert "ZeroDivisionError" in str(last)


def like_anybody():
    """Take from root, in the child, the right to write where the mode of a directory forbids it."""
    if os.geteuid() == 0 and LIBC.prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot give up CAP_DAC_OVERRIDE")


def test_a_directory_that_cannot_be_written_is_told(cluster, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    data = str(tmp_path / "closed" / "data")
    code, why = refused(
        cluster, "server", "--masters", "127.0.0.1:1", "--data", data, preexec_fn=like_anybody
    )
    assert (code, "Permission denied" in why) == (1, True)


def test_a_server_of_another_cluster_ends_and_touches_nothing(cluster, tmp_path):
    cluster.up(1)
    cluster.command.ok("create", "s", "--replicas", "1", "--ack-quorum", "1")
    cluster.command.ok("append", "s", given=b"mine\n")
    cluster.stop("s1")
    other = Cluster(tmp_path / "other")
    other.home.mkdir()
    try:
        other.start("master")
        child = cluster.command.start(
            *("server", "--name", "s1", "--data", str(tmp_path / "s1")),
            *("--masters", other.masters),
        )
        _, err = child.communicate(timeout=PATIENCE_S)
        assert child.returncode == 70
        last = json.loads(err.splitlines()[-1])
        assert (last["level"], last["event"]) == ("critical", "node_failed")
        assert "this is cluster" in last["why"]
        assert b"Traceback" not in err
    finally:
        other.end()
    cluster.start("s1")
    cluster.until_alive(1)
    assert cluster.command.ok("read", "s") == b"mine\n"


def test_a_server_waits_for_its_master(cluster):
    """It says that nobody answers, keeps trying, and registers as soon as somebody does."""
    cluster.ports["master"] = free_port()
    cluster.start("s1")
    until(lambda: (cluster.home / "s1.log").exists() and "unreachable" in cluster.log("s1"))
    assert cluster.processes["s1"].poll() is None
    cluster.start("master")
    cluster.command.url = cluster.url
    cluster.until_alive(1)
    cluster.stop("s1")


async def test_a_client_of_the_wrong_cluster_or_none_is_told(cluster):
    nobody = free_port()
    with pytest.raises(LunalogError) as caught:
        await SingleWriteJournal.connect(f"lunalog://127.0.0.1:{nobody}", timeout=0.5)
    assert caught.value.code == "master_unavailable"
    assert f"127.0.0.1:{nobody}" in str(caught.value)
    cluster.up(1)
    port = cluster.ports["s1"]
    with pytest.raises(LunalogError) as caught:  # a server is no master
        await SingleWriteJournal.connect(f"lunalog://127.0.0.1:{port}", timeout=2)
    assert f"127.0.0.1:{port}" in str(caught.value)
