"""Hostile connections against real processes: they live, serve others, and stay small (Z1)."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from tests.fuzz.live import PATIENCE_S, LiveCluster, Raw, hang_up
from tests.fuzz.talk import Talker, Victim

from lunalog import limits
from lunalog.types import Policy, Promise, SegmentId, StreamHead
from lunalog.wire import codec, frames
from lunalog.wire import messages as m
from lunalog.wire.codec import ENVELOPE, Kind

pytestmark = [
    pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")
]  # fmt: skip
GROWTH_BYTES_MAX = 64 * limits.MIB
POLICY = Policy(3, 2)
LINC = b"eve!!!!!!!!!!!!!"
numbers = itertools.count()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def everybody(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveCluster]:
    async with LiveCluster(tmp_path_factory.mktemp("live")) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(everybody: LiveCluster) -> AsyncIterator[LiveCluster]:
    yield everybody
    await hang_up()


def fresh() -> bytes:
    """A stream of the attacker's own."""
    return b"eve%013d" % next(numbers)


async def head_of(cluster: LiveCluster) -> StreamHead:
    return (await cluster.journal.describe("orders")).head


def requests(make: Callable[[int], m.Message], count: int) -> bytes:
    return b"".join(codec.control(Kind.REQUEST, n + 1, make(n)) for n in range(count))


async def test_a_hundred_hostile_conversations(cluster: LiveCluster) -> None:
    """Each gets a word: a welcome, or why it gets none."""
    head = await head_of(cluster)
    assert head.open is not None
    victims = (Victim(head.name, head.stream, head.open.id, head.epoch),)

    async def converse(seed: int) -> None:
        process = cluster.processes[seed % 4]
        role = "master" if process.name == "master" else "server"
        raw = await Raw.dial(process.address)
        for data in Talker(seed, role, 1, victims, ("s1", "s2", "s3")).steps():
            if not await raw.send(data):
                break
            if seed % 3 == 0:
                await asyncio.sleep(0.01)
        await raw.hear_past(0)
        raw.abort()

    async with cluster.bounded(GROWTH_BYTES_MAX):
        for start in range(0, 100, 10):
            await asyncio.gather(*(converse(seed) for seed in range(start, start + 10)))
    assert cluster.epoch == (await head_of(cluster)).epoch


async def filled(raw: Raw, stream: bytes, *payloads: bytes) -> None:
    """A stream of its own, with one committed frame for each payload."""
    count = len(payloads)
    message = m.OpenSlot(1, stream, SegmentId(1, 0), LINC, 1, 0, 0, 1)
    assert await raw.send(codec.control(Kind.REQUEST, 1, message))
    await raw.message(Kind.REPLY, 1)
    for n, payload in enumerate(payloads):
        frame = frames.build(stream, n, 1, 5, [payload])
        assert await raw.send(codec.append_head(1, 0, len(frame)) + frame, PATIENCE_S)
    while codec.decode_u64(memoryview(await raw.message(Kind.ACK, 1))) < count:
        pass
    assert await raw.send(codec.mark(1, count) + codec.control(Kind.REQUEST, 2, m.Ping()))
    await raw.message(Kind.REPLY, 2)


async def test_readers_of_old_events_that_take_nothing(cluster: LiveCluster) -> None:
    """What has left the cache comes from the disk, a copy each time."""
    address, own = cluster.processes[1].address, fresh()
    writer = await Raw.dial(address, role="client")
    await filled(writer, own, *(bytes([n]) * limits.MIB for n in range(12)))
    async with cluster.bounded(GROWTH_BYTES_MAX):
        raws = [await Raw.dial(address, role="client", name=f"eve{n}") for n in range(2)]
        ask = requests(lambda n: m.Read(own, SegmentId(1, 0), n % 4, 1 << 20), 2000)
        await asyncio.gather(*(raw.send(ask) for raw in raws))
        await asyncio.sleep(4)
    await raws[0].hear_past(limits.MIB)


async def test_a_reader_that_asks_for_much_and_takes_nothing(cluster: LiveCluster) -> None:
    """A few bytes ask for a megabyte: what is queued for one peer is bounded within a turn, too."""
    address, own = cluster.processes[1].address, fresh()
    writer = await Raw.dial(address, role="client")
    await filled(writer, own, bytes(limits.MIB))
    async with cluster.bounded(GROWTH_BYTES_MAX):
        raws = [await Raw.dial(address, role="client", name=f"eve{n}") for n in range(4)]
        ask = requests(lambda _: m.Read(own, SegmentId(1, 0), 0, 1 << 20), 2000)
        await asyncio.gather(*(raw.send(ask) for raw in raws))
        await asyncio.sleep(3)
    await raws[0].hear_past(limits.MIB)


FLOODS: dict[str, tuple[int, Callable[[bytes, int], m.Message], int]] = {
    "lists": (0, lambda own, n: m.ListStreams(), 20_000),
    "servers": (0, lambda own, n: m.GetServers(), 20_000),
    "views": (0, lambda own, n: m.GetStream("orders"), 20_000),
    "creations": (0, lambda own, n: m.CreateStream("orders", own, POLICY), 20_000),
    "describes": (1, lambda own, n: m.DescribeServer(), 20_000),
    "slots": (1, lambda own, n: m.OpenSlot(n, own, SegmentId(1, 0), LINC, 1, 0, 0, 1), 50_000),
    "polls": (1, lambda own, n: m.Read(own, SegmentId(1, 0), 1, 1, 60_000), 50_000),
    "questions": (1, lambda own, n: m.AskLeader(own, SegmentId(1, 0)), 50_000),
    "old fences": (1, lambda own, n: m.Fence(own, SegmentId(1, 0), 0, Promise(1, LINC), 1), 20_000),
    "disk reads": (
        1,
        lambda own, n: m.Read(own, SegmentId(1, 0), 0, 1, 0, Promise(1, LINC)),
        20_000,
    ),
}


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_of_requests(cluster: LiveCluster, kind: str) -> None:
    place, make, count = FLOODS[kind]
    address = cluster.processes[place].address
    raw, own = await Raw.dial(address, role="client"), fresh()
    if place:
        await filled(raw, own, bytes(1000))
    async with cluster.bounded(GROWTH_BYTES_MAX):
        for start in range(0, count, 1000):
            part = requests(lambda n, start=start: make(own, start + n), 1000)
            if not await raw.send(part):
                break
        await asyncio.sleep(2)
    if kind != "polls":
        await raw.hear_past(raw.got + 10_000)


async def test_connections_that_say_nothing_are_closed(cluster: LiveCluster) -> None:
    async with cluster.bounded(GROWTH_BYTES_MAX):
        raws: list[Raw] = []
        for process in cluster.processes[:2]:
            for n in range(300):
                raw = await Raw.dial(process.address)
                raws.append(raw)
                await raw.send((codec.MAGIC + b"\x30")[: n % 10])
        await asyncio.gather(*(raw.closed() for raw in raws))


async def test_halves_of_large_messages(cluster: LiveCluster) -> None:
    """What has begun and does not come to its end takes a bounded share of memory, and of time."""
    address = cluster.processes[1].address
    async with cluster.bounded(GROWTH_BYTES_MAX):
        raws = [await Raw.dial(address, role="client", name=f"eve{n}") for n in range(16)]
        size = limits.MESSAGE_BYTES_MAX
        begun = ENVELOPE.pack(size, Kind.APPEND, 0, 0, 1) + bytes(size - 100)
        await asyncio.gather(*(raw.send(begun, 8) for raw in raws))
        await asyncio.sleep(1)


async def test_slow_senders(cluster: LiveCluster) -> None:
    """One byte at a time, on many connections."""
    chance = random.Random(1)

    async def dribble(n: int) -> None:
        process = cluster.processes[n % 4]
        raw = await Raw.dial(process.address, role="client", name=f"eve{n}")
        ping = codec.control(Kind.REQUEST, 1, m.Ping())
        for byte in ping * 2:
            await raw.send(bytes([byte]))
            await asyncio.sleep(chance.random() / 10)
        await raw.message(Kind.REPLY, 1)
        raw.abort()

    async with cluster.bounded(GROWTH_BYTES_MAX):
        await asyncio.gather(*(dribble(n) for n in range(80)))
