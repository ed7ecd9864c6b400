"""The queue of one epoch's appends: who waits for room, who is told, and what a resignation refuses."""

import asyncio
from contextlib import suppress

import pytest

from lunalog import limits
from lunalog.client.batching import BUSY_FRAMES, AppendQueue
from lunalog.client.payloads import EVENT_OVERHEAD_BYTES
from lunalog.client.watch import StreamWatch
from lunalog.client.writer import StreamWriter
from lunalog.config import ClientConfig
from lunalog.errors import NotLeaderError, OutcomeUnknownError, UsageError
from lunalog.types import Policy, StreamHead, StreamView
from lunalog.wire import frames

ROOM = 1000
RESIGNING = NotLeaderError("this client is resigning; nothing was sent")


class Bench:
    """One queue, a writer bound to it, and the frames that left."""

    def __init__(self, *, room=ROOM, batch=ROOM):
        self.frames = []
        self.payloads = []
        """Of each frame."""
        self.is_connected = True
        self.config = ClientConfig(in_flight_bytes_max=room, batch_bytes_max=batch)
        self.epoch = 1
        self.queue = AppendQueue(b"s" * 16, 1, 0, self.config, self.emit, lambda: 0)
        head = StreamHead(name="orders", stream=b"s" * 16, policy=Policy())
        watch = StreamWatch(StreamView(head, (), ()))
        self.writer = StreamWriter(None, self.config, watch)
        self.writer.bind(self)

    def emit(self, first, count, frame, is_alone):
        self.frames.append((first, count))
        self.payloads.append(frames.payloads(frames.parse(frame), frame))
        return self.is_connected

    async def fill(self):
        """Leave room for nothing until what is sent now is committed."""
        self.writer.append_soon(bytes(ROOM - EVENT_OVERHEAD_BYTES))
        await turns()


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
async def bench():
    return Bench()


async def test_a_resigning_queue_refuses_also_after_an_ack(bench):
    bench.writer.append_soon(b"a")
    bench.queue.stop(RESIGNING)
    bench.queue.commit(1)
    with pytest.raises(NotLeaderError):
        bench.writer.append_soon(b"b")
    await turns()
    assert bench.frames == [(0, 1)]


async def test_a_flush_while_resigning_waits_for_what_may_still_be_sent(bench):
    bench.is_connected = False
    pending = bench.writer.append_soon(b"a")
    bench.queue.stop(RESIGNING)
    flushing = asyncio.ensure_future(bench.queue.settled())
    await turns()
    assert not flushing.done()  # the frame is kept, and goes to whoever connects
    bench.queue.commit(1)
    await flushing
    assert await pending == 0


async def test_a_flush_ends_with_the_epoch_in_what_became_of_the_last_append(bench):
    bench.writer.append_soon(b"a")
    bench.queue.stop(RESIGNING)
    flushing = asyncio.ensure_future(bench.queue.settled())
    await turns()
    bench.queue.end(NotLeaderError("over"))
    with pytest.raises(OutcomeUnknownError):
        await flushing


async def test_append_waits_also_for_the_last_bytes_of_room(bench):
    bench.writer.append_soon(b"a")
    await turns()
    left = ROOM - bench.queue.in_flight_bytes
    waiting = asyncio.ensure_future(bench.writer.append(bytes(left)))  # but for its length's bytes
    await turns()
    assert not waiting.done()
    bench.queue.commit(1)
    await turns()
    bench.queue.commit(2)
    assert await waiting == 1


async def test_appends_that_wait_for_room_keep_the_order_of_their_calls(bench):
    await bench.fill()
    large = asyncio.ensure_future(bench.writer.append(bytes(ROOM - EVENT_OVERHEAD_BYTES)))
    small = asyncio.ensure_future(bench.writer.append(b"small"))
    await turns()
    bench.queue.commit(1)
    late = asyncio.ensure_future(bench.writer.append_many([b"late"]))
    await turns()
    for committed in (2, 3, 4):
        bench.queue.commit(committed)
        await turns()
    assert (await large, await small, await late) == (1, 2, range(3, 4))


async def test_who_is_cancelled_in_line_holds_nobody_up(bench):
    await bench.fill()
    first, second = (asyncio.ensure_future(bench.writer.append(b"x")) for _ in range(2))
    await turns()
    first.cancel()
    await turns()
    bench.queue.commit(1)
    await turns()
    bench.queue.commit(2)
    assert await second == 1
    assert not bench.queue.must_wait(1)


@pytest.mark.parametrize("how", ["stop", "end"])
async def test_the_end_refuses_all_who_wait_in_line(bench, how):
    await bench.fill()
    waiting = [asyncio.ensure_future(bench.writer.append(b"x")) for _ in range(3)]
    draining = asyncio.ensure_future(bench.writer.drain())
    await turns()
    getattr(bench.queue, how)(RESIGNING)
    await turns(20)
    assert [type(task.exception()) for task in waiting] == [NotLeaderError] * 3
    await draining
    assert len(bench.frames) == 1


def no_memory(*args):
    raise MemoryError


def flush_without_memory(bench, monkeypatch):
    """The frame of what is queued cannot be made now."""

    with monkeypatch.context() as patch:
        patch.setattr(frames, "build", no_memory)
        patch.setattr(frames, "build_of_parts", no_memory)
        with pytest.raises(MemoryError):
            bench.queue.flush()


async def test_a_batch_that_cannot_be_made_now_is_not_forgotten(bench, monkeypatch):
    """Trap 40: every append has one outcome, at the latest when the epoch ends."""
    pending = bench.writer.append_soon(b"a")
    flush_without_memory(bench, monkeypatch)
    assert bench.writer.tail == 1
    again = bench.writer.append_soon(b"b")
    bench.queue.flush()
    assert bench.frames == [(0, 2)]
    bench.queue.commit(2)
    assert (await pending, await again) == (0, 1)


async def test_a_batch_that_is_never_made_ends_with_the_epoch(bench, monkeypatch):
    pending = bench.writer.append_soon(b"a")
    flush_without_memory(bench, monkeypatch)
    bench.queue.end(NotLeaderError("over"))
    assert isinstance(pending.exception(), NotLeaderError)


async def test_a_batch_that_found_no_memory_at_the_turns_end_is_tried_again(bench, monkeypatch):
    """Trap 40: nobody else may come whose append would take it along."""

    def fail(*args):
        raise MemoryError

    monkeypatch.setattr("lunalog.client.batching.NO_MEMORY_PAUSE_S", 0.0)
    pending = bench.writer.append_soon(b"a")
    with monkeypatch.context() as patch:
        patch.setattr(frames, "build", fail)
        await turns()
    assert bench.frames == []
    await turns()
    assert bench.frames == [(0, 1)]
    bench.queue.commit(1)
    assert await pending == 0


# ------------------------------------------------------------------ runs: `append_many`


@pytest.fixture
async def busy():
    """A queue with a frame under way."""
    bench = Bench(room=10 * ROOM)
    bench.first = bench.queue.add_now([b"first"])
    return bench


async def test_runs_share_a_frame_while_another_is_under_way(busy):
    runs = [busy.queue.add_now([b"a", b"b"]) for _ in range(3)]
    assert busy.writer.tail == 7
    await turns()
    assert busy.payloads == [[b"first"], [b"a", b"b"] * 3]
    busy.queue.commit(1)
    assert (busy.first.done(), runs[0].done()) == (True, False)
    busy.queue.commit(7)
    assert await asyncio.gather(*runs) == [range(1, 3), range(3, 5), range(5, 7)]
    assert busy.queue.is_idle


async def test_runs_and_single_events_keep_their_order_in_a_frame(busy):
    before = [busy.writer.append_soon(b"b%d" % n) for n in range(2)]
    runs = [busy.queue.add_now([b"c0", b"c1"]), busy.queue.add_now([b"d0"], 5)]
    behind = busy.writer.append_soon(b"e", expected=6)
    assert busy.writer.tail == 7
    await turns()
    assert busy.payloads == [[b"first"], [b"b0", b"b1", b"c0", b"c1", b"d0", b"e"]]
    busy.queue.commit(7)
    assert await asyncio.gather(*before, behind) == [1, 2, 6]
    assert await asyncio.gather(*runs) == [range(3, 5), range(5, 6)]


async def test_a_lone_append_does_not_overtake_a_run_that_waits(busy):
    run = busy.queue.add_now([b"run"])
    busy.queue.commit(1)  # nothing is under way any more, and the run has not left
    assert not busy.queue.is_idle
    lone = asyncio.ensure_future(busy.writer.append(b"lone"))
    await turns()
    busy.queue.commit(3)
    assert (await run, await lone) == (range(1, 2), 2)
    assert [payload for frame in busy.payloads for payload in frame] == [b"first", b"run", b"lone"]


async def test_many_frames_under_way_hold_runs_back_until_an_ack(busy):
    for _ in range(BUSY_FRAMES):
        busy.queue.add_now([b"x"])
        await turns()
    assert len(busy.frames) == BUSY_FRAMES
    busy.queue.commit(1)
    await turns()
    assert len(busy.frames) == BUSY_FRAMES + 1


async def test_a_batch_of_runs_leaves_within_the_turn_when_it_is_full(busy):
    run = [bytes(96)] * 5
    for _ in range(3):
        busy.queue.add_now(run)
    assert busy.frames == [(0, 1)]
    busy.queue.add_now(run)
    assert busy.frames == [(0, 1), (1, 20)]  # twice 1,000 bytes
    busy.queue.commit(21)


async def test_a_run_as_large_as_a_batch_has_a_frame_of_its_own(busy):
    small = busy.queue.add_now([b"small"])
    large = busy.queue.add_now([bytes(ROOM - EVENT_OVERHEAD_BYTES)])
    assert busy.frames == [(0, 1), (1, 1), (2, 1)]
    busy.queue.commit(3)
    assert (await small, await large) == (range(1, 2), range(2, 3))


async def test_a_run_that_waits_is_what_it_was_when_it_was_given(busy):
    given = [bytearray(b"before"), b"after"]
    run = busy.queue.add_now(given)
    given[0][:] = b"behind"
    given.clear()
    wide = memoryview(bytes(8)).cast("Q")  # its length is not its bytes
    more = asyncio.ensure_future(busy.writer.append_many([wide]))
    with pytest.raises(UsageError, match="an event is bytes"):
        await busy.writer.append_many([b"fine", "wrong"])
    await turns()
    busy.queue.commit(4)
    assert (await run, await more) == (range(1, 3), range(3, 4))
    found = [payload for frame in busy.payloads for payload in frame]
    assert found == [b"first", b"before", b"after", bytes(8)]


async def test_runs_that_wait_end_with_the_epoch_as_not_sent(busy):
    single = busy.writer.append_soon(b"b")
    run = busy.queue.add_now([b"c", b"d"])
    busy.queue.end(NotLeaderError("over"))
    outcomes = [type(future.exception()) for future in (busy.first, single, run)]
    assert outcomes == [OutcomeUnknownError, NotLeaderError, NotLeaderError]
    assert busy.writer.tail == 1
    await turns()
    assert busy.frames == [(0, 1)]


async def test_runs_whose_frame_cannot_be_made_now_are_not_forgotten(busy, monkeypatch):
    """Trap 40."""
    run = busy.queue.add_now([b"a", b"b"])
    single = busy.writer.append_soon(b"c")
    flush_without_memory(busy, monkeypatch)
    assert busy.writer.tail == 4
    busy.queue.flush()
    assert busy.payloads == [[b"first"], [b"a", b"b", b"c"]]
    busy.queue.commit(4)
    assert (await run, await single) == (range(1, 3), 3)


@pytest.mark.parametrize("is_run", [False, True])
async def test_a_frame_never_has_more_events_than_a_server_takes(monkeypatch, is_run):
    monkeypatch.setattr(limits, "FRAME_EVENTS_MAX", 16)
    bench = Bench()
    bench.queue.add_now([b"first"])
    for _ in range(5):
        if is_run:
            bench.queue.add_now([b""] * 7)
        else:
            for _ in range(7):
                bench.writer.append_soon(b"")
    bench.queue.flush()
    assert sum(count for _, count in bench.frames) == 36
    assert max(count for _, count in bench.frames) <= 16
    bench.queue.commit(36)


async def test_a_single_event_behind_runs_does_not_make_a_frame_of_too_many_events(monkeypatch):
    monkeypatch.setattr(limits, "FRAME_EVENTS_MAX", 16)
    bench = Bench(batch=64)
    bench.queue.add_now([b"first"])
    for _ in range(2):
        bench.queue.add_now([b""] * 8)
    last = bench.writer.append_soon(b"")
    await turns()
    assert bench.frames == [(0, 1), (1, 16), (17, 1)]
    bench.queue.commit(18)
    assert await last == 17


async def test_runs_that_could_not_leave_do_not_grow_past_a_frame(monkeypatch):
    bench = Bench(room=limits.SEND_QUEUE_BYTES_MAX, batch=4 * limits.MIB)
    bench.queue.add_now([b"first"])
    large = bytes(3 * limits.MIB)
    with monkeypatch.context() as patch:
        patch.setattr(frames, "build_of_parts", no_memory)
        for _ in range(8):
            with suppress(MemoryError):  # of what is not queued
                bench.queue.add_now([large])
    bench.queue.flush()
    assert bench.payloads == [[b"first"], [large] * 5]
    assert bench.queue.tail == 6
    bench.queue.commit(6)


@pytest.mark.parametrize("is_run", [False, True])
async def test_an_append_that_fills_a_batch_has_no_second_outcome(busy, monkeypatch, is_run):
    """Trap 40: it is queued, so its caller gets a future whether or not the frame can be made now."""
    monkeypatch.setattr(frames, "build", no_memory)
    monkeypatch.setattr(frames, "build_of_parts", no_memory)
    if is_run:
        busy.queue.add_now([bytes(ROOM - 10)])
        busy.queue.add_now([bytes(ROOM - 10)])
        pending = busy.queue.add_now([b"x" * 10])
    else:
        busy.writer.append_soon(bytes(ROOM - 10))
        pending = busy.writer.append_soon(b"x" * 10)
    monkeypatch.undo()
    assert busy.frames == [(0, 1)]
    await turns()
    busy.queue.commit(busy.writer.tail)
    assert await pending in {2, range(3, 4)}
    assert len(busy.frames) == 2


@pytest.mark.parametrize("is_alone", [False, True])
async def test_a_run_is_not_queued_twice_when_sending_fails(busy, monkeypatch, is_alone):
    """What cannot be sent for a bug of ours is not taken for payloads that must be copied."""

    def fail(*args):
        raise TypeError

    for _ in range(2):
        busy.queue.add_now([bytes(ROOM - 10)])
    if is_alone:
        busy.queue.flush()
    monkeypatch.setattr(busy.queue, "_emit", fail)
    with pytest.raises(TypeError):
        busy.queue.add_now([bytes(ROOM if is_alone else 10)])
    assert busy.writer.tail == 4
