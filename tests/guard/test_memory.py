"""Copies of a payload, what an append leaves behind, and what an idle stream takes: by the allocator."""

from __future__ import annotations

import pytest
from tests.guard.counting import Held, Traced
from tests.guard.guards import caught, hold
from tests.guard.rig import HandFedServer, leading, quiet_cluster, quiet_journal, stream_of, turns

from lunalog import limits
from lunalog.core.outbox import Outbox
from lunalog.core.replica import Replica
from lunalog.master.table import Table
from lunalog.storage.cache import TailCache
from lunalog.storage.files import SystemFile
from lunalog.wire import codec, frames
from lunalog.wire.codec import Kind
from lunalog.wire.connection import Connection
from lunalog.wire.messages import CloseSlot, TrimCommand

MIB = limits.MIB


@pytest.fixture
async def server(tmp_path):
    async with quiet_cluster(tmp_path, tail_cache_bytes=3 * MIB) as cluster:
        found = HandFedServer(cluster.servers[0])
        await found.open(0)
        yield found


@pytest.fixture
async def client(tmp_path):
    async with leading(tmp_path) as found:
        yield found


# ------------------------------------------------------------------------------- copies


async def copies_at_server(server):
    """An event of 1 MiB, received, written and kept in the cache."""
    made = [server.frame([bytes(MIB)]) for _ in range(3)]
    for frame in made[:2]:
        await server.take(frame)  # the buffer grows to its size
    with Traced() as traced:
        await server.take(made[2])
    return traced.peak / MIB


async def copies_of_read(server, *, is_cached):
    """The same, sent to a reader."""
    first = server.tail(0)
    for _ in range(5):
        await server.take(server.frame([bytes(MIB)]))
    start = first + 3 if is_cached else first
    await server.take(server.read(start, 1))
    with Traced() as traced:
        await server.take(server.read(start, 1))
    return traced.peak / MIB


async def copies_at_client(client):
    """An event of 1 MiB, from the call to its acknowledgement; a fourth of a batch of four."""
    payload = bytes(MIB)
    found = []
    for append, what, count in (
        (client.append, payload, 1), (client.append_many, [payload] * 4, 4)
    ):  # fmt: skip
        await append(what, client.acks(count))
        with Traced() as traced:
            await append(what, client.acks(count))
        found.append(traced.peak / MIB / count)
    return max(found)


async def copies_at_reader(journal):
    """All that a process with a server and a reader takes to read one event of 1 MiB."""
    found = []
    for _ in range(2):
        reader = journal.read("s", linearizable=True)
        with Traced() as traced:
            assert [len(event.payload) async for event in reader] == [MIB]
        found.append(traced.peak / MIB)
    return min(found)


@pytest.fixture
async def journal(tmp_path):
    async with quiet_cluster(tmp_path) as cluster, quiet_journal(cluster) as found:
        await found.create_stream("s")
        async with found.lead("s", timeout=10) as writer:
            await writer.append(bytes(MIB))
        yield found


async def test_a_server_copies_a_payload_once(server):
    hold("copies-server", await copies_at_server(server))


async def test_a_server_serves_what_it_keeps_without_a_copy(server):
    hold("copies-read", await copies_of_read(server, is_cached=True))
    hold("copies-disk-read", await copies_of_read(server, is_cached=False))


async def test_a_client_copies_a_payload_once(client):
    hold("copies-client", await copies_at_client(client))


async def test_a_reader_holds_a_bounded_number_of_copies(journal):
    hold("copies-reader", await copies_at_reader(journal))


async def test_canary_a_server_that_copies_once_more(server, monkeypatch):
    parse = frames.parse
    monkeypatch.setattr(frames, "parse", lambda data: parse(bytes(bytearray(data))))
    assert caught("copies-server", await copies_at_server(server))


async def test_canary_a_copy_for_each_reader(server, monkeypatch):
    reply = Connection.reply_frames

    def reply_copies(self, request, head, made):
        reply(self, request, head, [bytes(bytearray(frame)) for frame in made])

    monkeypatch.setattr(Connection, "reply_frames", reply_copies)
    assert caught("copies-read", await copies_of_read(server, is_cached=True))


async def test_canary_a_copy_of_what_is_read_from_the_disk(server, monkeypatch):
    read = SystemFile.read

    async def read_and_copy(self, offset, size):
        found = await read(self, offset, size)
        return bytes(bytearray(found))

    monkeypatch.setattr(SystemFile, "read", read_and_copy)
    assert caught("copies-disk-read", await copies_of_read(server, is_cached=False))


async def test_canary_a_client_that_copies_once_more(client, monkeypatch):
    build = frames.build

    def build_and_copy(*args):
        frame = build(*args)
        return bytes(bytearray(frame))

    monkeypatch.setattr(frames, "build", build_and_copy)
    assert caught("copies-client", await copies_at_client(client))


async def test_canary_a_reader_that_copies_once_more(journal, monkeypatch):
    events = frames.events
    held = []

    def copied(head, frame, start=0):
        held.append(bytes(frame))
        return events(head, frame, start)

    monkeypatch.setattr(frames, "events", copied)
    assert caught("copies-reader", await copies_at_reader(journal))


# ---------------------------------------------------------------- in flight, and afterwards


async def in_flight(client):
    """Blocks and bytes that an event takes from `append_soon` to its acknowledgement."""
    payloads = [b"x" * 10] * 1000
    acks = client.acks(1000)
    for payload in payloads:
        client.writer.append_soon(payload)
    await client.take(acks)
    acks = client.acks(1000)
    with Held() as held:
        for payload in payloads:
            client.writer.append_soon(payload)
        blocks = held.blocks
    await client.take(acks)
    acks = client.acks(1000)
    with Traced() as traced:
        for payload in payloads:
            client.writer.append_soon(payload)
    await client.take(acks)
    return blocks / 1000, traced.held / 1000


async def left_at_client(client):
    """Bytes held for an append that is acknowledged by all."""

    async def appends(count):
        for _ in range(count):
            await client.append(b"x" * 100, client.acks(1))

    await appends(100)
    with Traced() as traced:
        await appends(500)
    return traced.held / 500


async def left_at_server(home):
    """Bytes held for a frame of 1,000 bytes, with a full cache and truncation behind it."""
    async with quiet_cluster(home, tail_cache_bytes=limits.MIB // 8) as cluster:
        server = HandFedServer(cluster.servers[0])
        await server.open(0)
        with Traced() as traced:  # also while the cache fills: what leaves it must have been seen
            for number in (1, 2):
                await _flood(server, number)
            before = traced.now()
            for number in (3, 4, 5):
                await _flood(server, number)
            return (traced.now() - before) / 450


async def _flood(server, number):
    """150 frames, and an order to drop all but the last fifty."""
    for _ in range(150):
        await server.take(server.frame([b"x" * 90] * 10))
    trim = TrimCommand(number, stream_of(0), server.tail(0) - 500, number)
    server.server.registration._commands.carry_out(trim)
    await turns(10)
    assert server.server.replica.streams[stream_of(0)].trim_version == number


async def test_an_event_in_flight_is_one_block(client):
    blocks, size = await in_flight(client)
    hold("flight-blocks", blocks)
    hold("flight-bytes", size)


async def test_an_acknowledged_append_leaves_nothing_at_its_client(client):
    hold("left-client", await left_at_client(client))


async def test_a_flood_with_truncation_behind_it_leaves_its_place_in_the_index(tmp_path):
    hold("left-server", await left_at_server(tmp_path))


async def test_canary_a_note_for_each_event_in_flight(client, monkeypatch):
    queue = client.writer._queue
    create, notes = queue.create_future, []

    def create_future():
        notes.append({"event": len(notes)})
        return create()

    monkeypatch.setattr(queue, "create_future", create_future)
    blocks, size = await in_flight(client)
    assert caught("flight-blocks", blocks)
    assert caught("flight-bytes", size)


async def test_canary_a_client_that_keeps_what_all_replicas_hold(client, monkeypatch):
    monkeypatch.setattr(Outbox, "trim", lambda self, floor, committed: None)
    assert caught("left-client", await left_at_client(client))


async def test_canary_a_server_whose_cache_has_no_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(TailCache, "_drop_oldest", lambda self: setattr(self, "bytes", 0))
    assert caught("left-server", await left_at_server(tmp_path))


# ------------------------------------------------------------------------- idle streams


async def idle_at_server(home):
    """Bytes of a stream with one event and no leader any more; its frame has left the cache."""
    async with quiet_cluster(home, tail_cache_bytes=0) as cluster:
        server = HandFedServer(cluster.servers[0])
        await _idle(server, range(50))
        with Traced() as traced:
            await _idle(server, range(50, 350))
        return traced.held / 300


async def _idle(server, slots):
    await server.open(*slots)
    await server.take(b"".join(server.frame([b"one event"], slot) for slot in slots))
    closed = [codec.control(Kind.PUSH, 0, CloseSlot(slot)) for slot in slots]
    await server.take(b"".join(closed))


async def idle_at_master(home):
    """What is left of such a stream when the client is gone, and then the server."""
    count = 60
    async with quiet_cluster(home) as cluster:
        await _led(cluster, "before", 10)
        with Traced() as traced:
            await _led(cluster, "idle", count)
            before = traced.now()
            await _dropped(cluster)
            held = traced.now()
        assert 0 < held < before
        return held / count


async def _led(cluster, name, count):
    async with quiet_journal(cluster) as journal:
        for n in range(count):
            await journal.create_stream(f"{name}/{n}")
            async with journal.lead(f"{name}/{n}", timeout=10) as writer:
                await writer.append(b"one event")


async def _dropped(cluster):
    server = cluster.servers.pop()
    cluster._started.remove(server)
    await server.stop()


async def test_an_idle_stream_takes_less_than_four_kilobytes_of_each(tmp_path):
    hold("idle-server", await idle_at_server(tmp_path / "server"))
    hold("idle-master", await idle_at_master(tmp_path / "master"))


async def test_canary_a_kilobyte_of_waste_for_each_stream(tmp_path, monkeypatch):
    waste, made, add = [], Replica._made, Table.add

    def made_large(self, stream):
        waste.append(bytes(1024))
        return made(self, stream)

    def add_large(self, stream):
        waste.append(bytes(1024))
        add(self, stream)

    monkeypatch.setattr(Replica, "_made", made_large)
    monkeypatch.setattr(Table, "add", add_large)
    assert caught("idle-server", await idle_at_server(tmp_path / "server"))
    assert caught("idle-master", await idle_at_master(tmp_path / "master"))
