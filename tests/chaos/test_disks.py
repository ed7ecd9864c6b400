"""Real servers whose disk fails, fills or crawls: nothing that was acknowledged is lost."""

import asyncio
import contextlib
import json
import resource
import subprocess

import pytest

from chaos.injection import Injection
from chaos.nodes import address_space_bytes
from lunalog import LunalogError

pytestmark = pytest.mark.slow
WRITES = "pwritev2,pwritev,pwrite64"


class Appender:
    """Appends numbered events for as long as it leads, a few in flight, and notes what is acked."""

    def __init__(self, padding=100):
        self.acked = []
        self.padding = b"." * padding

    async def run(self, writer):
        number = 0
        pending = []
        while True:
            while len(pending) < 8:
                payload = b"%d/%s" % (number, self.padding)
                pending.append((payload, writer.append_soon(payload)))
                number += 1
            payload, future = pending.pop(0)
            self.acked.append((await future, payload))


@contextlib.asynccontextmanager
async def appending(journal, appender):
    """Lead the stream and append all the while; an epoch that ends meanwhile is no failure."""
    with contextlib.suppress(LunalogError):
        async with journal.lead("s", timeout=60) as writer:
            task = asyncio.create_task(appender.run(writer))
            try:
                yield writer
            finally:
                task.cancel()
                await asyncio.wait([task])


async def holds_all(journal, appender):
    """Everything that was acknowledged is there, where it was said to be."""
    async with asyncio.timeout(60):
        events = [event async for event in journal.read("s", linearizable=True)]
    assert [event.sequence for event in events] == list(range(len(events)))
    assert appender.acked
    for sequence, payload in appender.acked:
        assert events[sequence].payload == payload, sequence


@pytest.mark.parametrize(
    ("call", "what"),
    [
        ("fdatasync", "error=EIO:when=5"),
        (WRITES, "error=EIO:when=7"),
        (WRITES, "error=ENOSPC:when=6"),
    ],
    ids=["eio-on-fdatasync", "eio-on-write", "enospc-on-write"],
)
async def test_d1_d2_a_disk_error_ends_the_server_at_once(small, need, wait, call, what):
    """Both of two servers hold every ack, so that what the failed one lost would be missed."""
    need("strace")
    await small.up(2)
    appender = Appender()
    async with small.connect() as journal:
        await small.alive(journal, 2)
        await journal.create_stream("s", replicas=2, ack_quorum=2)
        async with appending(journal, appender):
            await wait(lambda: len(appender.acked) > 20)
            node = small["s1"]
            paths = [node.data / "extent-0000000001.wal"]
            story = small.home / "strace"
            async with Injection(node.pid, call, what, story, paths) as injection:
                await wait(lambda: not node.is_running)
            assert injection.bites == 1
            assert node.wait() == 70
            last = json.loads(node.text().splitlines()[-1])
            assert (last["level"], last["event"]) == ("critical", "node_failed")
            before = len(appender.acked)
            node.start()
            await wait(lambda: len(appender.acked) > before + 20)
        await holds_all(journal, appender)


@pytest.mark.parametrize("call", ["fdatasync", WRITES, "sendto,sendmsg,write,writev"])
async def test_p1_a_server_killed_at_a_system_call_comes_back_with_all_it_acked(
    small, need, wait, call
):
    need("strace")
    await small.up(2)
    appender = Appender()
    async with small.connect() as journal:
        await small.alive(journal, 2)
        await journal.create_stream("s", replicas=2, ack_quorum=2)
        async with appending(journal, appender):
            node = small["s1"]
            for n in (1, 2, 5):
                await wait(lambda: len(appender.acked) > 20)
                before = len(appender.acked)
                story = small.home / "strace"
                async with Injection(node.pid, call, f"signal=KILL:when={n}", story):
                    await wait(lambda: not node.is_running)
                assert node.wait() == -9
                node.start()
                await wait(lambda before=before: len(appender.acked) > before + 20)
        await holds_all(journal, appender)
        found = await journal.servers()
        assert {row.address.member.incarnation for row in found.servers} == {1}, (
            "a kill loses no disk"
        )


async def test_d3_a_server_whose_disk_runs_full_stays_readable(small, need, wait):
    """A disk of 44 MiB: appends are refused below the reserve, reads go on, no process ends."""
    need("mount")
    small.add_master()
    disk = small.home / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=44m", "none", str(disk)], check=True)
    small.undo.append(lambda: subprocess.run(["umount", "-l", str(disk)], check=True))
    node = small.add_server("s1")
    node.disk = disk
    pid = node.start().pid
    appender = Appender(padding=200_000)
    async with small.connect() as journal:
        await small.alive(journal, 1)
        await journal.create_stream("s", replicas=1, ack_quorum=1)

        async def is_full():
            return any("disk_full" in text for text in (await journal.health()).warnings)

        async with appending(journal, appender):
            await wait(is_full)
        assert len(appender.acked) > 20
        async with asyncio.timeout(60):
            events = [e async for e in journal.read("s", start=0)]
        held = {event.sequence: event.payload for event in events}
        assert all(held.get(sequence) == payload for sequence, payload in appender.acked)
    assert node.pid == pid, node.text()


async def test_d11_appends_go_on_without_a_server_whose_disk_crawls(small, need, wait):
    need("strace")
    await small.up(3)
    appender = Appender()
    async with small.connect() as journal:
        await small.alive(journal, 3)
        await journal.create_stream("s", replicas=2, ack_quorum=2)
        async with appending(journal, appender):
            await wait(lambda: len(appender.acked) > 20)
            head = (await journal.describe("s")).head
            slow = head.open.members[0].server
            story = small.home / "strace"
            pid = small[slow].pid
            async with Injection(pid, "fdatasync", "delay_enter=2000000", story) as injection:

                async def is_rolled_out():
                    opened = (await journal.describe("s")).head.open
                    return opened and slow not in {m.server for m in opened.members}

                await wait(is_rolled_out)
                before = len(appender.acked)
                await wait(lambda: len(appender.acked) > before + 20)
                await wait(lambda: injection.bites)
        await holds_all(journal, appender)


async def test_p5_a_server_without_memory_ends_and_comes_back_with_all_it_acked(small, wait):
    """A MemoryError is nothing to go on after; it must not pass for a refusal."""
    await small.up(2)
    appender = Appender(padding=1_000_000)
    async with small.connect() as journal:
        await small.alive(journal, 2)
        await journal.create_stream("s", replicas=2, ack_quorum=2)
        node = small["s1"]
        async with appending(journal, appender):
            await wait(lambda: len(appender.acked) > 5)
            room = address_space_bytes(node.pid) + (256 << 10)
            resource.prlimit(node.pid, resource.RLIMIT_AS, (room, room))
            await wait(lambda: not node.is_running)
            assert node.wait() in (70, -6, -9, -11), node.text()[-2000:]
            node.start()
            before = len(appender.acked)
            await wait(lambda: len(appender.acked) > before + 20)
        await holds_all(journal, appender)
