"""A reader yields committed events in order, without gap or repeat, whichever replica serves."""

import asyncio
import contextlib
from dataclasses import replace

import msgspec
import pytest
from tests.unit.misfits import misfit

from lunalog import limits
from lunalog.client.fetch import Fetcher
from lunalog.client.reader import EndState, ReadOptions, StreamReader
from lunalog.errors import (
    ClosedError,
    CorruptFrameError,
    DeadlineExceededError,
    GoneError,
    NotOpenError,
    OverloadedError,
    ServerUnavailableError,
    StreamNotFoundError,
    TruncatedError,
    UnknownDataError,
)
from lunalog.types import (
    Member,
    OpenSegment,
    Policy,
    SealedSegment,
    SegmentId,
    StreamHead,
    StreamView,
)
from lunalog.wire import frames
from lunalog.wire.codec import FramesHead, ReadStatus
from lunalog.wire.messages import GetStream, ViewReply

ONE, TWO, THREE = SegmentId(1, 0), SegmentId(1, 1), SegmentId(2, 0)
MEMBERS = tuple(Member(f"s{n}", 1) for n in range(3))
STREAM = b"s" * 16


def row(segment, first, end):
    return SealedSegment(segment, first, end, 0, MEMBERS, 2, "p", "size", 0)


class Story:
    """One stream over three replicas, and readers of it."""

    def __init__(self, link, links, servers, master, config):
        self.link, self.links, self.servers, self.master = link, links, servers, master
        self.config = config
        self.version = 1
        self.applied = []
        self.released = 0
        self.point = None
        self.show(rows=(), opened=None)
        self.watch = link.watch(self.view)

    def show(self, *, rows, opened=None, first=0, trim=0):
        """Put this metadata at the master."""
        self.version += 1
        open_segment = None if opened is None else OpenSegment(opened, first, 0, MEMBERS, 2)
        end = first if opened is not None else rows[-1].end if rows else 0
        head = StreamHead(
            "orders",
            STREAM,
            Policy(),
            version=self.version,
            truncated_before=trim,
            next=end,
            open=open_segment,
        )
        self.view = StreamView(head, tuple(rows), tuple(s.address for s in self.servers))
        self.master.views[STREAM] = self.view

    def tell(self):
        """Let the client see it."""
        self.watch.merge(self.view)

    def fill(self, segment, first, end, *, on=(0, 1, 2), size=3, committed=None):
        for n in on:
            server = self.servers[n]
            for at in range(first, end, size):
                last = min(at + size, end)
                server.put(segment, at, [b"e%d" % i for i in range(at, last)])
            server.commit(segment, end if committed is None else committed)

    # what a reader asks of its journal
    @property
    def head(self):
        return self.watch.head

    async def read_point(self, timeout):
        if isinstance(self.point, Exception):
            raise self.point
        return self.point

    def note_applied(self, sequence):
        self.applied.append(sequence)

    def release(self):
        self.released += 1

    def reader(self, start=0, *, follow=False, linearizable=False, config=None):
        from lunalog.runtime import Tasks

        tasks = Tasks(self.link.runtime)
        self.fetcher = Fetcher(self.link, self.links, self.watch, tasks, 0)

        async def source():
            return self

        return StreamReader(
            source,
            ReadOptions(start, follow, linearizable),
            config or self.config,
            tasks,
            name="orders",
        )


@pytest.fixture
async def story(link, links, servers, master, config):
    return Story(link, links, servers, master, config)


async def sequences(reader):
    found = []
    async for event in reader:
        assert event.payload == b"e%d" % event.sequence
        found.append(event.sequence)
    return found


async def test_a_read_goes_through_all_segments_up_to_committed(story):
    story.fill(ONE, 0, 10)
    story.fill(TWO, 10, 20)
    story.fill(THREE, 20, 29, committed=26)
    story.show(rows=[row(ONE, 0, 10), row(TWO, 10, 20)], opened=THREE, first=20)
    story.tell()
    reader = story.reader()
    assert await sequences(reader) == list(range(26))
    assert reader.position == 26
    assert not reader.is_complete  # something is open, and nobody was asked
    assert await sequences(reader) == []


async def test_a_frame_that_nobody_can_decode_is_an_error_each_time_and_no_gap(story):
    """Its checksum is right, so every replica has these bytes (R26): only its leader is to blame."""
    story.fill(ONE, 0, 9)
    for server in story.servers:
        server.frames[ONE][1] = misfit(server.frames[ONE][1])
    story.show(rows=[row(ONE, 0, 9)])
    story.tell()
    reader = story.reader()
    assert [event.sequence for event in await reader.next_batch()] == [0, 1, 2]
    asked = sum(len(server.reads) for server in story.servers)
    for ask in (reader.next_batch, reader.try_next, reader.wait_next, reader.__anext__):
        with pytest.raises(CorruptFrameError, match="sequences 3 to 5 of 'orders'"):
            await ask()
        assert reader.position == 3
    assert sum(len(server.reads) for server in story.servers) == asked
    reader.seek(6)
    assert await sequences(reader) == [6, 7, 8]


async def test_with_nothing_open_a_read_is_complete(story):
    story.fill(ONE, 0, 10)
    story.show(rows=[row(ONE, 0, 10)])
    story.tell()
    reader = story.reader()
    assert await sequences(reader) == list(range(10))
    assert reader.is_complete


async def test_an_empty_stream(story):
    reader = story.reader()
    assert await sequences(reader) == []
    assert reader.is_complete


@pytest.mark.parametrize(
    ("start", "first"), [(None, 3), (4, 4), (9, 9), (10, 10), (50, 50), (-1, 9), (-4, 6), (-99, 3)]
)
async def test_starts(story, start, first):
    """Inside a frame, at the end, behind it, from the end, below what is kept."""
    story.fill(ONE, 0, 10)
    story.show(rows=[row(ONE, 0, 10)], trim=3)
    story.tell()
    assert await sequences(story.reader(start)) == list(range(first, 10))


async def test_a_negative_start_in_an_open_segment_asks_the_replicas(story):
    story.fill(ONE, 0, 10, on=(0,), committed=4)
    story.fill(ONE, 0, 10, on=(1, 2))
    story.show(rows=[], opened=ONE)
    story.tell()
    assert await sequences(story.reader(-2)) == [8, 9]


async def test_a_negative_start_counts_from_what_the_living_replicas_know(story):
    story.fill(ONE, 0, 9)
    story.show(rows=[], opened=ONE)
    story.tell()
    story.links.cut("s1")
    assert await sequences(story.reader(-2)) == [7, 8]


async def test_below_the_first_kept_event(story):
    story.fill(ONE, 0, 10)
    story.show(rows=[row(ONE, 0, 10)], trim=3)
    story.tell()
    with pytest.raises(TruncatedError) as caught:
        await sequences(story.reader(2))
    assert caught.value.start == 3


async def test_truncated_while_reading(story):
    story.fill(ONE, 0, 10)
    story.show(rows=[], opened=ONE)
    story.tell()
    for server in story.servers:
        server.fault = lambda c, r, m: c.fail(r, GoneError("truncated")) or True
    story.show(rows=[], opened=ONE, trim=10)  # the client has not heard of it
    with pytest.raises(TruncatedError) as caught:
        await sequences(story.reader(0))
    assert caught.value.start == 10


async def test_a_follower_waits_for_more_and_gets_it(story):
    story.fill(ONE, 0, 3)
    story.show(rows=[], opened=ONE)
    story.tell()
    reader = story.reader(follow=True)
    assert [(await anext(reader)).sequence for _ in range(3)] == [0, 1, 2]
    waiting = asyncio.create_task(anext(reader))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    story.fill(ONE, 3, 6)
    assert (await waiting).sequence == 3
    await reader.aclose()


async def test_a_follower_that_reached_the_end_goes_on_in_the_next_epoch(story):
    story.fill(ONE, 0, 3)
    story.show(rows=[row(ONE, 0, 3)])
    story.tell()
    reader = story.reader(follow=True)
    for _ in range(3):
        await anext(reader)
    waiting = asyncio.create_task(anext(reader))
    await asyncio.sleep(0.01)
    story.fill(THREE, 3, 4)
    story.show(rows=[row(ONE, 0, 3)], opened=THREE, first=3)
    story.tell()
    assert (await waiting).sequence == 3
    await reader.aclose()


async def test_a_seal_ends_a_long_poll_and_the_reader_finds_its_place_by_sequence(story):
    """It read up to 5 in the old segment; the new one begins at 3, with the same events (R13)."""
    story.fill(ONE, 0, 3)
    story.fill(ONE, 3, 5)
    story.show(rows=[], opened=ONE)
    story.tell()
    reader = story.reader(follow=True, config=replace(story.config, read_wait_ms=60_000))
    for _ in range(5):
        await anext(reader)
    waiting = asyncio.create_task(anext(reader))
    await asyncio.sleep(0.01)
    story.fill(THREE, 3, 5)
    story.fill(THREE, 5, 8)
    story.show(rows=[row(ONE, 0, 3)], opened=THREE, first=3)
    story.tell()
    assert (await waiting).sequence == 5
    await reader.aclose()


async def test_no_answer_of_a_server_ends_a_segment(story):
    """A hint that the segment is over only makes the client look at the metadata (R13)."""
    story.fill(ONE, 0, 3)
    story.show(rows=[], opened=ONE)
    story.tell()
    for server in story.servers:
        server.fault = lambda c, r, m, server=server: (
            m.start >= 3
            and m.segment == ONE
            and (server.nothing(c, r, ReadStatus.END_OF_SEGMENT, 3) or True)
        )
    reader = story.reader(follow=True)
    for _ in range(3):
        await anext(reader)
    waiting = asyncio.create_task(anext(reader))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    story.fill(TWO, 3, 6)
    story.show(rows=[row(ONE, 0, 3)], opened=TWO, first=3)  # only the master knows
    assert (await waiting).sequence == 3
    await reader.aclose()


async def test_a_short_replica_of_a_sealed_segment_is_swapped(story):
    story.fill(ONE, 0, 3, on=(0,))
    story.fill(ONE, 0, 9, on=(1, 2))
    story.show(rows=[row(ONE, 0, 9)])
    story.tell()
    assert await sequences(story.reader()) == list(range(9))


async def test_a_damaged_replica_is_swapped(story):
    story.fill(ONE, 0, 9)
    damaged = story.servers[0].frames[ONE]
    damaged[1] = damaged[1][:-1] + b"X"
    story.show(rows=[row(ONE, 0, 9)])
    story.tell()
    assert await sequences(story.reader()) == list(range(9))


async def test_a_replica_with_a_hole_is_swapped(story):
    story.fill(ONE, 0, 9)
    del story.servers[0].frames[ONE][1]
    story.show(rows=[row(ONE, 0, 9)])
    story.tell()
    assert await sequences(story.reader()) == list(range(9))


async def test_unknown_data_is_never_taken_for_an_end(story):
    story.fill(ONE, 0, 9)
    story.show(rows=[], opened=ONE)
    story.tell()
    story.servers[0].fault = lambda c, r, m: c.fail(r, UnknownDataError("damaged")) or True
    assert await sequences(story.reader()) == list(range(9))


async def test_dead_replicas_are_swapped_and_all_dead_is_told(story):
    story.fill(ONE, 0, 9)
    story.show(rows=[row(ONE, 0, 9)])
    story.tell()
    story.links.cut("s0")
    story.links.cut("s1")
    assert await sequences(story.reader()) == list(range(9))
    story.links.cut("s2")
    with pytest.raises(ServerUnavailableError, match=r"from sequence 0 on.*s0#1, s1#1, s2#1"):
        await sequences(story.reader())


async def test_a_silent_replica_gets_company(story, runtime):
    story.fill(ONE, 0, 9)
    story.show(rows=[row(ONE, 0, 9)])
    story.tell()
    story.servers[0].fault = lambda c, r, m: True
    started = runtime.now()
    assert await sequences(story.reader()) == list(range(9))
    assert runtime.now() - started < 1.5


async def test_a_replica_without_the_segment_ends_no_slow_answer_of_another(story):
    """Two replicas answer slowly, the third was wiped: its "not here" must not start all anew."""
    story.fill(ONE, 0, 9)
    story.show(rows=[row(ONE, 0, 9)])
    story.tell()
    loop = asyncio.get_running_loop()
    for server in story.servers[:2]:
        server.fault = lambda c, r, m, server=server: (
            loop.call_later(1.0, server.on_read, c, r, m) is not None
        )
    story.servers[2].fault = lambda c, r, m: c.fail(r, NotOpenError("not here")) or True
    assert await sequences(story.reader()) == list(range(9))
    assert [len(s.reads) for s in story.servers] == [1, 1, 1]


async def test_a_wiped_replica_of_an_open_segment_does_not_hide_its_end(story):
    """Its hint is looked into once a fetch; then what the others say counts."""
    story.fill(ONE, 0, 9)
    story.show(rows=[], opened=ONE)
    story.tell()
    story.servers[0].fault = lambda c, r, m: c.fail(r, NotOpenError("not here")) or True
    assert await sequences(story.reader()) == list(range(9))
    reader = story.reader(9)
    assert await reader.try_next() is None
    assert len(story.master.asked_for(GetStream)) <= 3


async def test_a_slow_answer_makes_the_next_portion_smaller_and_a_fast_one_larger(story):
    """On a slow link a reader asks for what comes in time (N3)."""
    story.fill(ONE, 0, 90)
    story.show(rows=[row(ONE, 0, 90)])
    story.tell()
    reader = story.reader(config=replace(story.config, read_ahead_bytes=2 * limits.FRAME_BYTES_MAX))
    loop = asyncio.get_running_loop()
    for server in story.servers:
        server.fault = lambda c, r, m, server=server: (
            loop.call_later(0.3, server.on_read, c, r, replace_bytes(m)) is not None
        )
    await anext(reader)
    story.servers[0].fault = story.servers[1].fault = story.servers[2].fault = None
    await sequences(reader)
    sizes = [read.bytes_max for server in story.servers for read in server.reads]
    assert max(sizes) == limits.FRAME_BYTES_MAX
    assert limits.FRAME_BYTES_MAX // 2 in sizes


def replace_bytes(read):
    """One frame of it."""
    return msgspec.structs.replace(read, bytes_max=1)


async def test_a_replica_cut_off_from_the_leader_hides_nothing_for_long(story):
    """An idle long poll is followed by one at another replica (R12)."""
    story.fill(ONE, 0, 3)
    story.show(rows=[], opened=ONE)
    story.tell()
    reader = story.reader(follow=True)
    for _ in range(3):
        await anext(reader)
    waiting = asyncio.create_task(anext(reader))
    await asyncio.sleep(0.01)
    story.fill(ONE, 3, 6, on=(1, 2))
    polled = (
        next(s for s in story.servers if s.waiting)
        if any(s.waiting for s in story.servers)
        else None
    )
    assert polled is None or polled.name == "s0"
    assert (await waiting).sequence == 3
    await reader.aclose()


async def test_a_linearizable_read_ends_at_its_point(story):
    story.fill(ONE, 0, 9, size=3)
    story.show(rows=[], opened=ONE)
    story.tell()
    story.point = 6
    reader = story.reader(linearizable=True)
    assert await sequences(reader) == list(range(6))
    assert reader.is_complete


async def test_a_linearizable_read_waits_until_a_replica_knows_that_much(story):
    story.fill(ONE, 0, 9, committed=3)
    story.show(rows=[], opened=ONE)
    story.tell()
    story.point = 9
    reading = asyncio.create_task(sequences(story.reader(linearizable=True)))
    await asyncio.sleep(0.02)
    for server in story.servers:
        server.commit(ONE, 9)
    assert await reading == list(range(9))


async def test_what_lies_behind_the_end(story):
    story.fill(ONE, 0, 3)
    story.show(rows=[], opened=ONE)
    story.tell()
    reader = story.reader()
    await sequences(reader)
    story.point = 3
    assert await reader.end_state() is EndState.COMPLETE
    story.point = 5
    assert await reader.end_state() is EndState.LED
    story.point = DeadlineExceededError("nobody leads")
    assert await reader.end_state() is EndState.LEADERLESS


async def test_try_next_and_wait_next(story):
    story.fill(ONE, 0, 2)
    story.show(rows=[], opened=ONE)
    story.tell()
    reader = story.reader(follow=True)
    assert (await reader.try_next()).sequence == 0
    assert (await reader.wait_next()).sequence == 1
    assert await reader.try_next() is None
    with pytest.raises(DeadlineExceededError, match="no event at 2"):
        await reader.wait_next(timeout=0.02)
    story.fill(ONE, 2, 3)
    assert (await reader.try_next()).sequence == 2
    await reader.aclose()


async def test_seek_goes_anywhere(story):
    story.fill(ONE, 0, 9)
    story.show(rows=[row(ONE, 0, 9)])
    story.tell()
    reader = story.reader()
    assert (await reader.try_next()).sequence == 0
    reader.seek(7)
    assert await sequences(reader) == [7, 8]
    reader.seek(-1)
    assert await sequences(reader) == [8]
    reader.seek(None)
    assert len(await sequences(reader)) == 9


async def test_batches_are_lists_of_the_same_events(story):
    story.fill(ONE, 0, 10, size=4)
    story.show(rows=[row(ONE, 0, 10)])
    story.tell()
    found = [[e.sequence for e in batch] async for batch in story.reader(1).batches()]
    assert found == [[1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_a_cancelled_wait_loses_nothing(story):
    story.fill(ONE, 0, 2)
    story.show(rows=[], opened=ONE)
    story.tell()
    reader = story.reader(follow=True)
    found = []
    for n in range(2, 12):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.004):
                while True:
                    found.append((await anext(reader)).sequence)
        story.fill(ONE, n, n + 1)
    while len(found) < 12:
        found.append((await anext(reader)).sequence)
    assert found == list(range(12))
    await reader.aclose()


async def test_reading_ahead_is_bounded_and_gives_the_same_events(story):
    story.fill(ONE, 0, 300, size=3)
    story.show(rows=[row(ONE, 0, 300)])
    story.tell()
    reader = story.reader(config=replace(story.config, read_ahead_bytes=512))
    assert await sequences(reader) == list(range(300))
    assert all(read.bytes_max == 256 for server in story.servers for read in server.reads)


async def test_what_ended_the_reading_ahead_is_told_when_its_events_are_wanted(story):
    story.fill(ONE, 0, 300, size=3)
    story.show(rows=[row(ONE, 0, 300)])
    story.tell()
    reader = story.reader(config=replace(story.config, read_ahead_bytes=512))
    await anext(reader)
    story.watch.end(StreamNotFoundError("deleted"))
    with pytest.raises(StreamNotFoundError):
        await sequences(reader)


async def test_a_deletion_that_only_the_master_knows_ends_a_reader(story):
    story.show(rows=[row(ONE, 0, 9)])
    story.tell()

    def deleted(message):
        raise StreamNotFoundError("deleted")

    story.master.answers[GetStream] = deleted
    with pytest.raises(StreamNotFoundError):
        await sequences(story.reader())


@pytest.mark.parametrize("what", ["refuses", "shows a namesake"])
async def test_a_master_that_does_not_help_leaves_the_replicas_to_be_asked(story, what):
    """No replica has it, and the metadata cannot be read again: the position is served later."""
    story.show(rows=[row(ONE, 0, 9)])
    story.tell()
    asked = []

    def answer(message):
        asked.append(message)
        if len(asked) == 2:
            story.fill(ONE, 0, 9)
        if what == "refuses":
            raise OverloadedError("later")
        namesake = msgspec.structs.replace(story.view.head, stream=b"t" * 16)
        return ViewReply(StreamView(namesake, (), ()))

    story.master.answers[GetStream] = answer
    assert await sequences(story.reader()) == list(range(9))
    assert len(asked) >= 2


async def test_who_says_that_it_has_events_and_sends_none_is_swapped(story):
    story.fill(ONE, 0, 9)
    story.show(rows=[row(ONE, 0, 9)])
    story.tell()

    def empty(connection, request, read):
        connection.reply_frames(request, FramesHead(9, 9, 0, ReadStatus.HELD), [])
        return True

    story.servers[0].fault = empty
    assert await sequences(story.reader()) == list(range(9))


async def test_frames_of_another_stream_are_not_taken(story):
    story.fill(ONE, 0, 9)
    story.show(rows=[row(ONE, 0, 9)])
    story.tell()
    foreign = frames.build(b"t" * 16, 0, 1, 1, [b"e%d" % i for i in range(9)])

    def strange(connection, request, read):
        connection.reply_frames(request, FramesHead(9, 9, 0, ReadStatus.HELD), [foreign])
        return True

    for server in story.servers[:2]:
        server.fault = strange
    assert await sequences(story.reader()) == list(range(9))


async def test_what_a_replica_holds_behind_the_end_is_not_read(story):
    """An old leader's frames behind the certificate's end, on a replica that has not heard of it."""
    story.fill(ONE, 0, 9)
    story.show(rows=[row(ONE, 0, 6)])
    story.tell()
    assert await sequences(story.reader()) == list(range(6))


async def test_a_deleted_stream_ends_its_reader(story):
    story.fill(ONE, 0, 2)
    story.show(rows=[], opened=ONE)
    story.tell()
    reader = story.reader(2, follow=True)
    waiting = asyncio.create_task(anext(reader))
    await asyncio.sleep(0.01)
    story.watch.end(StreamNotFoundError("deleted"))
    with pytest.raises(StreamNotFoundError):
        await waiting


async def test_a_closed_reader_says_so_and_lets_go(story):
    story.fill(ONE, 0, 2)
    story.show(rows=[], opened=ONE)
    story.tell()
    async with story.reader(follow=True) as reader:
        await anext(reader)
    with pytest.raises(ClosedError, match="open another"):
        await anext(reader)
    with pytest.raises(ClosedError):
        reader.seek(0)
    assert story.released == 1
    await reader.aclose()
    assert story.released == 1
    assert "closed" in repr(reader)


async def test_a_dropped_reader_lets_go(story):
    reader = story.reader()
    await sequences(reader)
    del reader
    assert story.released == 1


async def test_what_was_handed_out_is_noted_as_applied(story):
    story.fill(ONE, 0, 6)
    story.show(rows=[row(ONE, 0, 6)])
    story.tell()
    await sequences(story.reader())
    assert story.applied == [0, 3, 6]
