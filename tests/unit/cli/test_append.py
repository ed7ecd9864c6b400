"""Standard input into a writer, and the account of it, with a stand-in for the writer."""

import asyncio
import os

import pytest

from lunalog.cli import append as append_module
from lunalog.cli.append import Appending
from lunalog.cli.records import DelimitedSplitter, LengthSplitter
from lunalog.errors import (
    NotLeaderError,
    OutcomeUnknownError,
    OverloadedError,
    PayloadTooLargeError,
    UsageError,
)


class StandInWriter:
    """Acknowledges everything one loop turn later, up to `acks_max`, with `room` events in flight."""

    def __init__(self, tail=0, acks_max=None, room=1000):
        self.tail = tail
        self.events = []
        self.waiting = []
        self.acks_max = acks_max
        self.room = room
        self.drains = 0

    def append_soon(self, payload):
        if len(self.waiting) >= self.room:
            raise OverloadedError("full")
        future = asyncio.get_running_loop().create_future()
        self.events.append(payload)
        self.waiting.append((self.tail, future))
        self.tail += 1
        asyncio.get_running_loop().call_soon(self.ack)
        return future

    def ack(self):
        while self.waiting and (self.acks_max is None or self.acks_max > 0):
            sequence, future = self.waiting.pop(0)
            if not future.done():
                future.set_result(sequence)
            if self.acks_max is not None:
                self.acks_max -= 1

    def lose(self, unsent=0):
        for i, (_, future) in enumerate(self.waiting):
            is_sent = i < len(self.waiting) - unsent
            future.set_exception(OutcomeUnknownError("?") if is_sent else NotLeaderError("no"))

    async def drain(self):
        self.drains += 1
        while len(self.waiting) >= self.room:
            await asyncio.sleep(0)


def pipe(data, *, is_closed=True):
    read_end, write_end = os.pipe()
    os.write(write_end, data)
    if is_closed:
        os.close(write_end)
        return read_end
    return read_end, write_end


async def until(holds):
    """The input comes by a thread: wait for what is to have happened."""
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.001)


async def test_everything_is_appended_and_told():
    writer = StandInWriter(tail=10)
    appending = Appending(writer, DelimitedSplitter(b"\n"))
    await appending.run(pipe(b"a\n\nb"))
    assert writer.events == [b"a", b"", b"b"]
    assert appending.account() == "appended 10..12, tail 13"


async def test_nothing_in_nothing_appended():
    appending = Appending(StandInWriter(tail=4), DelimitedSplitter(b"\n"))
    await appending.run(pipe(b""))
    assert appending.account() == "appended nothing, tail 4"


async def test_a_full_writer_is_waited_for_and_what_waits_is_bounded(monkeypatch):
    monkeypatch.setattr(append_module, "PENDING_MAX", 20)
    writer = StandInWriter(room=7)
    appending = Appending(writer, DelimitedSplitter(b"\n"))
    await appending.run(pipe(b"x\n" * 100))
    assert appending.account() == "appended 0..99, tail 100"
    assert writer.drains > 5


async def test_the_events_before_a_bad_one_are_appended_and_counted():
    writer = StandInWriter()
    appending = Appending(writer, LengthSplitter())
    with pytest.raises(UsageError, match="middle of event 1"):
        await appending.run(pipe(b"\x01\0\0\0a\x05\0\0\0b"))
    await until(lambda: not writer.waiting)
    assert appending.account() == "appended 0..0; ended early: 1 of 1 acknowledged"
    appending = Appending(StandInWriter(), LengthSplitter())
    with pytest.raises(PayloadTooLargeError):
        await appending.run(pipe(b"\xff\xff\xff\xff"))
    assert appending.account() == "appended nothing; ended early"


async def test_an_early_end_says_exactly_what_is_known():
    writer = StandInWriter(acks_max=3)
    appending = Appending(writer, DelimitedSplitter(b"\n"))
    running = asyncio.ensure_future(appending.run(pipe(b"x\n" * 10)))
    await until(lambda: writer.tail == 10 and len(writer.waiting) == 7)
    writer.lose(unsent=2)
    with pytest.raises(OutcomeUnknownError):
        await running
    assert appending.account() == (
        "appended 0..2; ended early: 3 of 10 acknowledged; "
        "the fate of 5 more is not known: read from 3"
    )


async def test_a_cancelled_one_tells_what_was_acknowledged():
    read_end, write_end = pipe(b"a\nb\n", is_closed=False)
    writer = StandInWriter()
    appending = Appending(writer, DelimitedSplitter(b"\n"))
    running = asyncio.ensure_future(appending.run(read_end))
    await until(lambda: writer.tail == 2 and not writer.waiting)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert appending.account() == "appended 0..1; ended early: 2 of 2 acknowledged"
    os.close(write_end)


async def test_what_is_acknowledged_after_the_end_of_the_waiting_counts():
    writer = StandInWriter(acks_max=1)
    appending = Appending(writer, DelimitedSplitter(b"\n"))
    task = asyncio.get_running_loop().create_task(appending.run(pipe(b"a\nb\nc\n")))
    await until(lambda: appending.acknowledged == 1 and appending.sent == 3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    writer.acks_max = None
    writer.ack()  # as leaving the scope waits for it
    assert appending.account() == "appended 0..2; ended early: 3 of 3 acknowledged"
