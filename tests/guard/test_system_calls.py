"""System calls of a real server: what a lone append, a batch, a flood and a catch-up cost it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from tests.guard.guards import caught, hold
from tests.guard.slowed import SLOWDOWNS
from tests.guard.traced import served

from lunalog import limits
from lunalog.errors import ClosedError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("strace"), pytest.mark.timeout(90)]
SLOW_SYNC_US = 50_000
"""What a sync takes in a flood, so that what gathers behind it does not hang on the disk."""
MIB = limits.MIB


@asynccontextmanager
async def leading(home, slowdown=""):
    """A real server and a writer, warmed up; whatever is read comes from the disk."""
    async with served(home, slowdown, tail_cache_bytes=0) as found:
        await found.journal.create_stream("s", replicas=1, ack_quorum=1)
        async with found.journal.lead("s", timeout=30) as writer:
            for _ in range(20):
                await writer.append(b"x" * 1000)
            yield found, writer


async def lone(found, writer):
    """Calls for an append of 1 KiB."""
    count = 50

    async def work():
        for _ in range(count):
            await writer.append(b"x" * 1000)

    trace = await found.trace(work)
    assert trace.moved("read") > 1000 * count
    kinds = ("read", "disk write", "sync", "answer", "wake")
    return {kind: trace.count(kind) / count for kind in kinds}


async def batch(found, writer):
    """Calls for a batch of 1,000 events of 100 bytes."""
    count, events = 20, [b"x" * 100] * 1000

    async def work():
        for _ in range(count):
            await writer.append_many(events)

    trace = await found.trace(work)
    assert trace.moved("read") > 100_000 * count
    return {kind: trace.count(kind) / count for kind in ("disk write", "sync", "answer")}


async def flood(found, writer):
    """Calls for a MiB, when 8 MiB of events of 1 KiB come in one turn and the disk is slow."""

    async def work():
        for _ in range(8000):
            writer.append_soon(b"x" * 1000)
        await writer.flush()

    trace = await found.trace(work, sync_us=SLOW_SYNC_US)
    size = trace.moved("read") / MIB
    assert size > 7
    return {kind: trace.count(kind) / size for kind in ("sync", "answer", "wake")}


async def catch_up(found, writer):
    """Calls for a MiB that is read back from the disk."""
    for _ in range(160):
        await writer.append_many([b"x" * 100] * 1000)
    await writer.append(b"and all before it is committed")

    async def work():
        async with asyncio.timeout(60):
            async for _ in found.journal.read("s").batches():
                pass

    trace = await found.trace(work)
    size = trace.moved("answer") / MIB
    assert size > 15
    return {kind: trace.count(kind) / size for kind in ("read", "answer", "disk read")}


async def streams(home, slowdown="", count=1000, sync_us=SLOW_SYNC_US):
    """Calls for one event of each stream, all in one turn of their client."""
    async with served(home, slowdown) as found:
        gate, waiting, told = asyncio.Event(), [], []

        async def lead(name):
            await found.journal.create_stream(name, replicas=1, ack_quorum=1)
            async with found.journal.lead(name, timeout=60) as writer:
                waiting.append(name)
                await gate.wait()
                told.append(await writer.append(b"x" * 100))
                await asyncio.Event().wait()

        tasks = [asyncio.create_task(lead(f"s{n}")) for n in range(count)]
        while len(waiting) < count:
            await asyncio.sleep(0.02)

        async def work():
            gate.set()
            while len(told) < count:
                await asyncio.sleep(0.02)

        trace = await found.trace(work, sync_us=sync_us)
        found.journal._end(ClosedError("nobody waits for a thousand of them to resign"))
        await asyncio.gather(*tasks, return_exceptions=True)
        return {kind: trace.count(kind) for kind in ("disk write", "sync", "answer")}


MEASURES = (lone, batch, flood, catch_up)


def names(measure, found):
    """The names of their guards."""
    return {
        f"{measure.__name__}-{kind}".replace("_", "-").replace(" ", "-"): number
        for kind, number in found.items()
    }


async def test_appends_and_reads_cost_a_server_a_known_number_of_system_calls(tmp_path):
    async with leading(tmp_path) as (found, writer):
        for measure in MEASURES:
            for name, number in names(measure, await measure(found, writer)).items():
                hold(name, number)


async def test_a_thousand_streams_that_are_appended_to_at_once_share_a_few_syncs(tmp_path):
    for name, number in names(streams, await streams(tmp_path)).items():
        hold(name, number)


SLOW_SERVERS = (
    {
        "two_syncs": ("lone-sync", "batch-sync"),
        "a_write_for_each_buffer": ("lone-disk-write", "batch-disk-write"),
        "an_answer_told_twice": ("lone-answer", "batch-answer"),
    },
    {
        "every_commit_on_the_writer": ("lone-wake",),
        "reads_of_half_a_kilobyte": ("lone-read",),
        "no_chunks": ("catch-up-disk-read",),
    },
    {
        "a_sync_for_each_put": ("flood-sync", "flood-answer", "flood-wake"),
        "one_frame_an_answer": ("catch-up-read", "catch-up-answer"),
    },
)
"""What each is slowed down by, none of which adds to the counts of another; and what must find it."""


@pytest.mark.parametrize("slowdowns", SLOW_SERVERS, ids="+".join)
async def test_canary_a_server_that_was_slowed_down(tmp_path, slowdowns):
    wanted = {name for finders in slowdowns.values() for name in finders}
    async with leading(tmp_path, ",".join(slowdowns)) as (found, writer):
        done = {}
        for measure in MEASURES:
            if any(name.startswith(names(measure, {"": 0}).popitem()[0]) for name in wanted):
                done |= names(measure, await measure(found, writer))
    missed = {name: done[name] for name in wanted if not caught(name, done[name])}
    assert missed == {}


def test_each_slowdown_is_tried():
    tried = [name for slowdowns in SLOW_SERVERS for name in slowdowns]
    assert sorted(tried) == sorted(SLOWDOWNS)


async def test_canary_streams_that_each_have_a_sync(tmp_path):
    done = names(streams, await streams(tmp_path, "a_sync_for_each_put", count=100, sync_us=0))
    assert all(caught(name, number) for name, number in done.items()), done
