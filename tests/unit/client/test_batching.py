"""The queue of one epoch's appends: who waits for room, who is told, and what a resignation refuses."""

import asyncio

import pytest

from lunalog.client.batching import EVENT_OVERHEAD_BYTES, AppendQueue
from lunalog.client.watch import StreamWatch
from lunalog.client.writer import StreamWriter
from lunalog.config import ClientConfig
from lunalog.errors import NotLeaderError, OutcomeUnknownError
from lunalog.types import Policy, StreamHead, StreamView
from lunalog.wire import frames

ROOM = 1000
RESIGNING = NotLeaderError("this client is resigning; nothing was sent")


class Bench:
    """One queue, a writer bound to it, and the frames that left."""

    def __init__(self):
        self.frames = []
        self.is_connected = True
        self.config = ClientConfig(in_flight_bytes_max=ROOM, batch_bytes_max=ROOM)
        self.epoch = 1
        self.queue = AppendQueue(b"s" * 16, 1, 0, self.config, self.emit, lambda: 0)
        head = StreamHead(name="orders", stream=b"s" * 16, policy=Policy())
        watch = StreamWatch(StreamView(head, (), ()))
        self.writer = StreamWriter(None, self.config, watch)
        self.writer.bind(self)

    def emit(self, first, count, frame, is_alone):
        self.frames.append((first, count))
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


def flush_without_memory(bench, monkeypatch):
    """The frame of what is queued cannot be made now."""

    def fail(*args):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(frames, "build", fail)
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
