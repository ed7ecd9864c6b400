"""The queue of one epoch's appends against a list: dense frames, bounded bytes, one outcome each.

I17, K4; traps 18, 40, 45.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.unit.machines import machine_settings

from lunalog.client.batching import BUSY_FRAMES, AppendQueue
from lunalog.client.payloads import EVENT_OVERHEAD_BYTES
from lunalog.config import ClientConfig
from lunalog.errors import (
    ConflictError,
    LunalogError,
    NotLeaderError,
    OutcomeUnknownError,
    OverloadedError,
)
from lunalog.wire import frames

ROOM, BATCH, TAIL = 1000, 300, 40
OVER = NotLeaderError("somebody else leads", leader="bob")

sizes = st.sampled_from([0, 1, 1, 20, 20, 20, 150, 299, 600, 990])


@dataclass
class Append:
    """One call: the events that it gave, and what it waits for."""

    first: int
    payloads: list[bytes]
    future: asyncio.Future[Any]
    is_many: bool
    is_cancelled: bool = False

    @property
    def end(self) -> int:
        return self.first + len(self.payloads)


@dataclass
class Frame:
    first: int
    payloads: list[bytes]
    was_handed: bool
    bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.bytes = sum(len(payload) + EVENT_OVERHEAD_BYTES for payload in self.payloads)

    @property
    def end(self) -> int:
        return self.first + len(self.payloads)


class BatchingMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.appends: list[Append] = []
        self.frames: list[Frame] = []
        self.told: list[int] = []
        """First sequences of the calls that were answered, in that order."""
        self.committed = TAIL
        self.has_socket = True
        self.error: LunalogError | None = None
        self.is_over = False
        config = ClientConfig(in_flight_bytes_max=ROOM, batch_bytes_max=BATCH)

        async def make() -> AppendQueue:
            return AppendQueue(b"s" * 16, 3, TAIL, config, self.emit, lambda: 0)

        self.queue = self.loop.run_until_complete(make())

    def teardown(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    def emit(self, first: int, count: int, frame: bytes, is_alone: bool) -> bool:
        head = frames.parse(frame)
        assert (head.first, head.count, head.epoch) == (first, count, 3)
        self.frames.append(Frame(first, frames.payloads(head, frame), self.has_socket))
        return self.has_socket

    # ------------------------------------------------------------ what is under way

    @property
    def tail(self) -> int:
        return self.appends[-1].end if self.appends else TAIL

    @property
    def in_flight(self) -> int:
        events = [(a.first + i, p) for a in self.appends for i, p in enumerate(a.payloads)]
        committed = [frame for frame in self.frames if frame.end <= self.committed]
        done = committed[-1].end if committed else TAIL
        return sum(len(p) + EVENT_OVERHEAD_BYTES for at, p in events if at >= done)

    def has_room(self, size: int) -> bool:
        return self.in_flight + size <= ROOM or self.in_flight == 0

    def _append(self, payloads: list[bytes], expected: int | None, *, is_many: bool) -> None:
        size = sum(len(payload) + EVENT_OVERHEAD_BYTES for payload in payloads)
        first = self.tail
        wanted: type[LunalogError] | None = None
        if self.error is not None:
            wanted = NotLeaderError
        elif expected is not None and expected != first:
            wanted = ConflictError
        elif not self.has_room(size):
            wanted = OverloadedError
        try:
            future: Any = (
                self.queue.add_many(payloads, expected)
                if is_many
                else self.queue.add_soon(payloads[0], expected)
            )
        except LunalogError as refusal:
            found: type[LunalogError] | None = type(refusal)
            assert found is wanted
            return
        assert wanted is None
        self.appends.append(Append(first, payloads, future, is_many))
        future.add_done_callback(lambda _: self.told.append(first))

    # ------------------------------------------------------------ rules

    @rule(size=sizes, expected=st.sampled_from([None, None, 0, 1]))
    def append(self, size: int, expected: int | None) -> None:
        at = None if expected is None else self.tail + expected
        self._append([bytes([size % 251]) * size], at, is_many=False)

    @rule(given=st.lists(sizes, min_size=1, max_size=3))
    def append_many(self, given: list[int]) -> None:
        self._append([b"m" * size for size in given], None, is_many=True)

    @rule(count=st.integers(2, 2 * BUSY_FRAMES), between=st.booleans())
    def append_some(self, count: int, between: bool) -> None:
        for _ in range(count):
            self._append([b"some"], None, is_many=False)
            if between:
                self.turn(1)

    @rule(turns=st.integers(1, 3))
    def turn(self, turns: int) -> None:
        async def wait() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.loop.run_until_complete(wait())

    @precondition(lambda self: not self.is_over)
    @rule(count=st.integers(1, 4))
    def commit(self, count: int) -> None:
        """An ack quorum holds the next frames."""
        open_ends = [frame.end for frame in self.frames if frame.end > self.committed]
        if open_ends:
            self.committed = open_ends[min(count, len(open_ends)) - 1]
            self.queue.commit(self.committed)

    @rule(has_socket=st.booleans())
    def connection(self, has_socket: bool) -> None:
        if not has_socket or all(frame.was_handed for frame in self.frames):
            self.has_socket = has_socket

    @precondition(lambda self: self.appends)
    @rule(pick=st.integers(0, 50))
    def cancel(self, pick: int) -> None:
        """Who waits goes away; the event stays."""
        append = self.appends[pick % len(self.appends)]
        append.is_cancelled |= append.future.cancel()

    @rule(sure=st.integers(0, 3))
    def stop(self, sure: int) -> None:
        if sure == 0 and self.error is None:
            self.error = OVER
            self.queue.stop(OVER)

    @rule(sure=st.integers(0, 3))
    def end(self, sure: int) -> None:
        if sure == 0 and not self.is_over:
            self.error, self.is_over = OVER, True
            self.queue.end(OVER)
            self.turn(1)

    @precondition(lambda self: not self.is_over)
    @rule()
    def everything_leaves_and_is_committed(self) -> None:
        """Without any trouble all is answered in a bounded number of turns and acknowledgements."""
        for _ in range(len(self.appends) + BUSY_FRAMES):
            self.turn(3)
            self.commit(BUSY_FRAMES)
        self.turn(3)
        assert all(append.future.done() for append in self.appends)
        assert self.queue.is_idle

    # ------------------------------------------------------------ what must hold

    @invariant()
    def frames_are_the_events_in_order(self) -> None:
        sent = [payload for frame in self.frames for payload in frame.payloads]
        given = [payload for append in self.appends for payload in append.payloads]
        assert sent == given[: len(sent)]
        at = TAIL
        for frame in self.frames:
            assert frame.first == at
            at = frame.end
        for append in self.appends:
            if append.is_many:
                inside = [f for f in self.frames if f.first < append.end and append.first < f.end]
                assert all(f.first <= append.first and append.end <= f.end for f in inside)

    @invariant()
    def bytes_in_flight_are_counted_and_bounded(self) -> None:
        if not self.is_over:
            assert self.queue.in_flight_bytes == self.in_flight
            lone = len([append for append in self.appends if append.end > self.committed]) == 1
            assert self.in_flight <= ROOM or lone

    @invariant()
    def every_outcome_is_right_and_given_once(self) -> None:
        assert len(self.told) == len(set(self.told))
        order = [first for first in self.told if not self._cancelled(first)]
        assert order == sorted(order)
        for append in self.appends:
            if append.is_cancelled:
                continue
            if append.end <= self.committed:
                wanted: Any = range(append.first, append.end) if append.is_many else append.first
                assert append.future.result() == wanted
            elif self.is_over:
                handed = any(f.was_handed and append.end <= f.end for f in self.frames)
                error = append.future.exception()
                assert type(error) is (OutcomeUnknownError if handed else NotLeaderError)
            else:
                assert not append.future.done()

    def _cancelled(self, first: int) -> bool:
        return any(append.first == first and append.is_cancelled for append in self.appends)


BatchingMachine.TestCase.settings = machine_settings(80, 40)
TestBatchingMachine = BatchingMachine.TestCase
