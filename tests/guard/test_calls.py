"""Calls and instructions on the hot paths: bounded, and none per event where there must be none."""

from __future__ import annotations

import asyncio
import math

import pytest
from tests.guard.counting import Calls, Instructions, least, planted
from tests.guard.guards import caught, hold
from tests.guard.rig import (
    HandFedServer,
    feed,
    leading,
    quiet_cluster,
    quiet_journal,
    turns,
)

from lunalog.client.payloads import check_run
from lunalog.client.reader import StreamReader
from lunalog.client.writer import StreamWriter
from lunalog.server.reads import Reads
from lunalog.server.serving import Acks, ServerHandler
from lunalog.wire import frames
from lunalog.wire.connection import Connection

BODY = 16_000
"""Bytes of a frame's body, as one event or as a thousand."""
ONE = [b"x" * (BODY - 4)]
THOUSAND = [b"x" * (BODY // 1000 - 4)] * 1000


@pytest.fixture
async def server(tmp_path):
    async with quiet_cluster(tmp_path) as cluster:
        found = HandFedServer(cluster.servers[0])
        await found.open(0)
        yield found


@pytest.fixture
async def client(tmp_path):
    async with leading(tmp_path) as found:
        yield found


# ------------------------------------------------------------------------------- server


async def of_append(server, kind=Calls, payloads=ONE):
    return await least(kind, server.take, lambda: server.frame(payloads))


async def of_another_frame(server):
    """A frame more in the same turn: its commit and its ack are shared."""

    def some(count):
        return lambda: b"".join(server.frame([b"x" * 20]) for _ in range(count))

    few, many = [await least(Calls, server.take, some(count)) for count in (10, 110)]
    return (many - few) / 100


async def reads_of_flood(server):
    """Reads of the socket for a MiB, when there is always more to be read."""
    pieces = 0
    get_buffer = server.connection.get_buffer

    def counted(sizehint):
        nonlocal pieces
        pieces += 1
        return get_buffer(sizehint)

    for _ in range(2):  # the buffer grows
        await server.take(b"".join(server.frame(ONE) for _ in range(500)))
    data = b"".join(server.frame(ONE) for _ in range(500))
    server.connection.get_buffer = counted
    await server.take(data)
    del server.connection.get_buffer
    return pieces / (len(data) / (1 << 20))


async def growth_of_append(server):
    """Instructions by which a thousand events in the bytes of one are dearer than that one."""
    one, thousand = [await of_append(server, Instructions, p) for p in (ONE, THOUSAND)]
    assert one > 500
    return thousand - one


async def of_read(server, kind=Calls, payloads=ONE):
    """Eight frames in one answer, out of the cache."""
    start = server.tail(0)
    for _ in range(9):
        await server.take(server.frame(payloads))
    request = server.read(start, 8 * (BODY + 64))
    return await least(kind, server.take, lambda: request)


async def growth_of_read(server):
    one, thousand = [await of_read(server, Instructions, p) for p in (ONE, THOUSAND)]
    assert one > 300
    return thousand - one


async def of_disk_read(tmp_path, kind=Calls, payloads=ONE):
    """Eight frames in one answer, out of the log."""
    async with quiet_cluster(tmp_path, tail_cache_bytes=0) as cluster:
        server = HandFedServer(cluster.servers[0])
        await server.open(0)
        return await of_read(server, kind, payloads)


async def test_an_append_costs_a_server_a_bounded_number_of_calls(server):
    hold("server-append", await of_append(server))
    hold("server-frame", await of_another_frame(server))


async def test_an_append_of_the_only_leader_is_answered_before_the_turn_ends(server):
    hold("server-turns", await server.answered(server.frame(ONE)))


async def of_two_leaders(server, *, is_one_turn):
    """Syncs of the log, for an append of each."""
    other = HandFedServer(server.server)
    await other.open(1)
    data = server.frame(ONE), other.frame(ONE, 1)
    before = server.disk.syncs
    feed(server.connection, data[0])
    if not is_one_turn:
        await turns()
    feed(other.connection, data[1])
    await turns()
    return server.disk.syncs - before


async def test_appends_of_two_leaders_in_one_turn_share_a_sync(server):
    hold("leaders-syncs", await of_two_leaders(server, is_one_turn=True))


async def test_canary_two_leaders_that_share_no_turn(server):
    assert caught("leaders-syncs", await of_two_leaders(server, is_one_turn=False))


async def test_canary_an_answer_a_turn_later(server, monkeypatch):
    log, loop = server.server.log, asyncio.get_running_loop()
    synced = log.batch_synced
    monkeypatch.setattr(log, "batch_synced", lambda: loop.call_soon(synced))
    assert caught("server-turns", await server.answered(server.frame(ONE)))


async def test_a_flood_is_read_in_large_pieces(server):
    hold("server-reads", await reads_of_flood(server))


async def test_canary_a_small_receive_buffer(server, monkeypatch):
    monkeypatch.setattr("lunalog.wire.connection.BUFFER_BYTES_MAX", 64 << 10)
    assert caught("server-reads", await reads_of_flood(server))


async def test_the_number_of_events_in_a_frame_costs_a_server_nothing(server):
    hold("server-events", await growth_of_append(server))


async def test_a_read_costs_a_server_a_bounded_number_of_calls(server, tmp_path):
    hold("server-read", await of_read(server))
    hold("server-disk-read", await of_disk_read(tmp_path / "disk"))


async def test_the_number_of_events_that_are_read_costs_a_server_nothing(server, tmp_path):
    hold("server-read-events", await growth_of_read(server))
    one = await of_disk_read(tmp_path / "one", Instructions, ONE)
    thousand = await of_disk_read(tmp_path / "thousand", Instructions, THOUSAND)
    assert one > 1000
    hold("server-disk-read-events", thousand - one)


async def test_canary_a_server_that_checks_a_frame_three_times(server, monkeypatch):
    parse = frames.parse
    monkeypatch.setattr(frames, "parse", lambda data: parse(data) and parse(data) and parse(data))
    assert caught("server-append", await of_append(server))


async def test_canary_a_server_that_acknowledges_each_frame(server, monkeypatch):
    moved = Acks.moved

    def moved_and_sent(self, slot):
        moved(self, slot)
        self.send()

    monkeypatch.setattr(Acks, "moved", moved_and_sent)
    assert caught("server-frame", await of_another_frame(server))


EACH = """
def each(count):
    for _ in range(count):
        pass
"""


async def test_canary_a_server_that_looks_at_each_event(server, monkeypatch):
    """A loop that calls nothing."""
    append, each = ServerHandler.on_append, planted(EACH, "each")

    def on_append(self, connection, slot, committed, frame):
        each(frames.parse(bytes(frame)).count)
        append(self, connection, slot, committed, frame)

    monkeypatch.setattr(ServerHandler, "on_append", on_append)
    assert caught("server-events", await growth_of_append(server))


async def test_canary_a_server_that_decodes_what_it_serves(server, tmp_path, monkeypatch):
    reply = Reads._reply

    def decoded(self, asked, held, found, before):
        for head, frame in found:
            assert len(frames.payloads(head, frame)) == head.count
        reply(self, asked, held, found, before)

    monkeypatch.setattr(Reads, "_reply", decoded)
    assert caught("server-read", await of_read(server))
    assert caught("server-read-events", await growth_of_read(server))
    one = await of_disk_read(tmp_path / "one", Instructions, ONE)
    thousand = await of_disk_read(tmp_path / "thousand", Instructions, THOUSAND)
    assert caught("server-disk-read-events", thousand - one)
    assert caught("server-disk-read", await of_disk_read(tmp_path / "disk"))


async def test_a_thousand_streams_that_are_appended_to_at_once_share_one_sync_and_one_answer(
    server,
):
    hold("turn-syncs", (await of_streams(server))[0])
    hold("turn-answers", (await of_streams(server))[1])


async def of_streams(server):
    """Syncs of the log and writes of acks, when a turn brings an event of each of them."""
    slots = range(1, 1001)
    if 1 not in server._tails:
        await server.open(*slots)
    await server.take(server.frame([b"x" * 200_000]))  # the receive buffer takes them in one piece
    await server.take(server.frame([b"x" * 200_000]))
    data = b"".join(server.frame([b"x" * 10], slot) for slot in slots)
    before = server.disk.syncs, server.sink.writes
    await server.take(data)
    return server.disk.syncs - before[0], server.sink.writes - before[1]


async def test_canary_a_server_that_answers_each_stream(server, monkeypatch):
    moved = Acks.moved

    def moved_and_sent(self, slot):
        moved(self, slot)
        self.send()

    monkeypatch.setattr(Acks, "moved", moved_and_sent)
    assert caught("turn-answers", (await of_streams(server))[1])


async def test_canary_a_server_that_syncs_for_each_stream(server, monkeypatch):
    monkeypatch.setattr("lunalog.storage.writer.BATCH_BYTES_SOFT", 1)
    monkeypatch.setattr("lunalog.storage.log.INLINE_BYTES_MAX", 1)
    assert caught("turn-syncs", (await of_streams(server))[0])


# ------------------------------------------------------------------------------- client


async def of_lone(client):
    payload = b"x" * 1000
    return await least(Calls, lambda a: client.append(payload, a), lambda: client.acks(1))


async def of_batch(client, payloads, kind=Calls):
    count = len(payloads)
    return await least(kind, lambda a: client.append_many(payloads, a), lambda: client.acks(count))


async def growth_of_batch(client):
    one, thousand = [await of_batch(client, p, Instructions) for p in (ONE, THOUSAND)]
    assert one > 500
    return thousand - one


async def of_one_more(kind, few, append, acks):
    """What it costs to append one thing more in a turn that has a few already."""
    found = [
        await least(kind, lambda a, n=count: append(n, a), lambda n=count: acks(n))
        for count in (few, 2 * few)
    ]
    return (found[1] - found[0]) / few


async def of_run(client, payloads, kind=Calls):
    """One `append_many` more."""
    return await of_one_more(
        kind,
        10,
        lambda count, acks: client.append_runs([payloads] * count, acks),
        lambda count: client.acks(count * len(payloads)),
    )


async def growth_of_run(client):
    one, thousand = [await of_run(client, p, Instructions) for p in (ONE, THOUSAND)]
    assert one > 100
    return thousand - one


async def writes_of_runs(client):
    before = client.sinks[0].writes
    await client.append_runs([THOUSAND] * 20, client.acks(20_000))
    return client.sinks[0].writes - before


async def of_future(client, kind=Calls):
    """One event more through `append_soon`."""
    return await of_one_more(
        kind, 300, lambda count, acks: client.append_soon([b"x" * 10] * count, acks), client.acks
    )


async def writes_of_batch(client):
    """Writes to each server for a lone append, a batch, and a thousand futures."""
    before = client.sinks[0].writes
    await client.append(b"x", client.acks(1))
    await client.append_many(THOUSAND, client.acks(1000))
    await client.append_soon(THOUSAND, client.acks(1000))
    return (client.sinks[0].writes - before) / 3


async def test_a_lone_append_costs_a_client_a_bounded_number_of_calls(client):
    hold("client-append", await of_lone(client))


async def test_a_batch_costs_a_client_the_same_whatever_the_number_of_its_events(client):
    hold("client-batch", await of_batch(client, THOUSAND))
    hold("client-batch-events", await growth_of_batch(client))


async def test_a_further_batch_of_a_turn_costs_a_client_little_and_no_write(client):
    hold("client-run", await of_run(client, THOUSAND))
    hold("client-run-events", await growth_of_run(client))
    hold("client-run-writes", await writes_of_runs(client))


async def test_an_event_through_a_future_costs_a_client_six_calls(client):
    hold("client-future", await of_future(client))
    hold("client-future-steps", await of_future(client, Instructions))


async def test_a_batch_is_one_write_to_each_server(client):
    hold("client-writes", await writes_of_batch(client))


async def test_a_client_that_pauses_adds_one_mark(client, monkeypatch):
    monkeypatch.setattr("lunalog.client.marks.PACED_S", -1.0)
    hold("client-paced-writes", await writes_of_batch(client))


async def test_canary_a_client_without_the_short_cut_for_futures(client, monkeypatch):
    def append_soon(self, payload, *, expected=None):
        return self._open_queue().add_soon(payload, expected)

    monkeypatch.setattr(StreamWriter, "append_soon", append_soon)
    assert caught("client-future", await of_future(client))
    assert caught("client-future-steps", await of_future(client, Instructions))


def each_checked(sizes):
    return sum(check_run([size]) for size in sizes)


async def test_canary_a_client_that_checks_each_event_of_a_batch(client, monkeypatch):
    monkeypatch.setattr("lunalog.client.batching.check_run", each_checked)
    assert caught("client-batch", await of_batch(client, THOUSAND))
    assert caught("client-batch-events", await growth_of_batch(client))


async def test_canary_a_client_whose_batches_each_have_a_frame(client, monkeypatch):
    monkeypatch.setattr("lunalog.client.batching.RUNS_FACTOR", 0)
    assert caught("client-run", await of_run(client, THOUSAND))


async def test_canary_a_client_that_checks_each_event_of_a_further_batch(client, monkeypatch):
    monkeypatch.setattr("lunalog.client.batching.check_run", each_checked)
    assert caught("client-run-events", await growth_of_run(client))


async def test_canary_a_client_that_writes_each_buffer(client, monkeypatch):
    send = Connection.send

    def send_each(self, *buffers):
        for buffer in buffers:
            send(self, buffer)
            self.flush()

    def send_pieces(self, buffer):
        send_each(self, *(buffer[at : at + 64] for at in range(0, len(buffer), 64)))

    monkeypatch.setattr(Connection, "send", send_each)
    monkeypatch.setattr(Connection, "send_now", send_pieces)
    assert caught("client-writes", await writes_of_batch(client))
    monkeypatch.setattr("lunalog.client.marks.PACED_S", -1.0)
    assert caught("client-paced-writes", await writes_of_batch(client))
    assert caught("client-run-writes", await writes_of_runs(client))
    monkeypatch.setattr("lunalog.client.marks.PACED_S", math.inf)
    assert caught("client-append", await of_lone(client))


# ------------------------------------------------------------------------------- reader


@pytest.fixture
async def journal(tmp_path):
    """Its streams are named after how many events they have, all in one frame."""
    async with quiet_cluster(tmp_path) as cluster, quiet_journal(cluster) as found:
        for count in (1000, 2000):
            await found.create_stream(str(count))
            async with found.lead(str(count), timeout=10) as writer:
                await writer.append_many([b"x" * 10] * count)
        yield found


async def of_event_read(journal, read):
    """One event more, from the request to the last event."""

    async def whole(name):
        assert await read(journal.read(name, linearizable=True)) == int(name)

    few, many = [await least(Calls, lambda _, n=n: whole(n)) for n in ("1000", "2000")]
    return (many - few) / 1000


async def one_by_one(reader):
    count = 0
    async for _ in reader:
        count += 1
    return count


async def in_batches(reader):
    count = 0
    async for events in reader.batches():
        count += len(events)
    return count


async def test_an_event_costs_a_reader_a_bounded_number_of_calls(journal):
    hold("reader-event", await of_event_read(journal, one_by_one))
    hold("reader-batched-event", await of_event_read(journal, in_batches))


SLOW_READER = """
async def anext_(self):
    return await (self.try_next() if self._events else anext(self))

def events(head, frame, start=0):
    found = []
    for event in decoded(head, frame, start):
        found.append(event)
    return found
"""


async def test_canary_a_reader_that_does_a_little_more_for_each_event(journal, monkeypatch):
    slow = planted(SLOW_READER, "anext_", anext=StreamReader.__anext__)
    monkeypatch.setattr(StreamReader, "__anext__", slow)
    assert caught("reader-event", await of_event_read(journal, one_by_one))
    monkeypatch.undo()
    slow = planted(SLOW_READER, "events", decoded=frames.events)
    monkeypatch.setattr(frames, "events", slow)
    assert caught("reader-batched-event", await of_event_read(journal, in_batches))
