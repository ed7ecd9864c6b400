"""Appends between their callers and the wire: batches on the way out, futures on the way back.

Hot path: an event costs one future, two list appends, a sum and a comparison; a frame is joined and
checksummed once.  An idle leader's batch leaves at the end of the loop's turn (a lone awaited append
at once); while frames are under way the batch grows until one of them is acknowledged or it is full.

Source: design.md sections 5, 8 and 10; R4, R26, I2, I17, K4; traps 18, 40, 45.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import chain, count
from typing import Any, Final

import msgspec

from lunalog import limits
from lunalog.client.payloads import EVENT_OVERHEAD_BYTES, check_run, check_size, size_of
from lunalog.config import ClientConfig
from lunalog.errors import (
    ConflictError,
    LunalogError,
    NotLeaderError,
    OutcomeUnknownError,
    OverloadedError,
)
from lunalog.types import Epoch, Frame, Sequence, StreamId
from lunalog.wire import frames

BUSY_FRAMES: Final = 4
"""With so many frames under way a batch that is not full waits for an acknowledgement."""
NO_MEMORY_PAUSE_S: Final = 0.1
"""Before a batch whose frame found no memory is tried again."""
RUNS_FACTOR: Final = 2
"""So many times as large a batch leaves if it is made of runs: they cost a client little, so that what
a frame costs the servers decides."""
Emit = Callable[[Sequence, int, Frame, bool], bool]
"""Sends a frame of so many events from a sequence on, at once if nothing more comes in this turn; tells
whether any socket got it."""


class _NotBytesError(Exception):
    """A payload is not bytes, or not as many as it is long."""


class Unacked(msgspec.Struct, frozen=True):
    """Events of one frame that are not committed yet, and who waits for them."""

    first: Sequence
    end: Sequence
    bytes: int
    futures: list[asyncio.Future[int]] | asyncio.Future[range]


class Part(msgspec.Struct, frozen=True):
    """Events of the batch that are joined already: an `append_many`, or those before it."""

    lengths: array[int]
    body: bytes
    unacked: Unacked


class AppendQueue:
    """All appends of one epoch, in the order of their sequences.

    Invariants: sequences are given in order of arrival; futures resolve in that order; every future
    ends exactly once, at the latest when the epoch does.
    """

    def __init__(
        self,
        stream: StreamId,
        epoch: Epoch,
        tail: Sequence,
        config: ClientConfig,
        emit: Emit,
        clock_us: Callable[[], int],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.create_future: Callable[[], asyncio.Future[Any]] = self.loop.create_future
        self.payloads: list[bytes] = []
        """Single events of the batch being filled, behind its parts."""
        self.futures: list[asyncio.Future[int]] = []
        self.size = 0
        """Bytes of that batch, lengths included."""
        self._parts: list[Part] = []
        of_empty_events = limits.FRAME_EVENTS_MAX * EVENT_OVERHEAD_BYTES
        self._batch_bytes_max = min(config.batch_bytes_max, of_empty_events)
        self._limit_max = min(self._batch_bytes_max, limits.PAYLOAD_BYTES_MAX)
        self.limit = self._limit_max
        """From this size on an append must look closer: the batch or the queue is full, or over."""
        self.is_due = False
        """True while the batch will leave by itself."""
        self.framed = tail
        """First sequence that no frame has."""
        self._joined = tail
        """First sequence that no frame and no part has."""
        self.committed = tail
        self.handed = tail
        """Everything below was handed to some socket at least."""
        self.error: LunalogError | None = None
        """Why nothing more can be appended."""
        self._stream = stream
        self._epoch = epoch
        self._bytes_max = config.in_flight_bytes_max
        self._emit = emit
        self._clock_us = clock_us
        self._unacked: deque[list[Unacked]] = deque()
        """Of each frame."""
        self._unacked_bytes = 0
        self._line = asyncio.Lock()
        self._in_line = 0
        self._room: asyncio.Future[None] | None = None
        """Of the first in line."""
        self._is_over = False
        self._settled: deque[tuple[Sequence, asyncio.Future[None]]] = deque()
        self._is_waiting = False
        """True while the batch waits for an acknowledgement."""

    def __repr__(self) -> str:
        return (
            f"<AppendQueue {self.committed}..{self.framed}..{self.tail}, {self.in_flight_bytes} B>"
        )

    @property
    def tail(self) -> Sequence:
        """The sequence of the next append."""
        return self._joined + len(self.payloads)

    @property
    def in_flight_bytes(self) -> int:
        """Bytes that are not acknowledged."""
        return self._unacked_bytes + self.size

    @property
    def is_idle(self) -> bool:
        """True when nothing is under way and nobody waits."""
        return not (self._unacked or self.size or self._in_line)

    # ------------------------------------------------------------------ in

    def add_soon(self, payload: bytes, expected: Sequence | None = None) -> asyncio.Future[int]:
        """Queue one event with all checks; the writer has a short cut for the common case."""
        self._check(expected)
        check_size(len(payload))
        size = len(payload) + EVENT_OVERHEAD_BYTES
        self._take_room(size)
        self._make_place(1, size)
        self.size += size
        future: asyncio.Future[int] = self.create_future()
        self.payloads.append(payload)
        self.futures.append(future)
        self._leave(self._batch_bytes_max)
        return future

    def add_alone(
        self, payload: bytes, size: int, expected: Sequence | None = None
    ) -> asyncio.Future[int]:
        """Send one event at once, where `is_idle` and its `size` in a frame is below `limit`."""
        if expected is not None:
            self._check(expected)
        future: asyncio.Future[int] = self.create_future()
        unacked = Unacked(self.framed, self.framed + 1, size, [future])
        self._send(self._built([payload], size), [unacked], is_alone=True)
        return future

    def add_now(
        self, payloads: list[bytes], expected: Sequence | None = None
    ) -> asyncio.Future[range] | None:
        """Queue payloads for one frame as they are; none if they must wait, or be copied first.

        Then nothing is queued.  What is not bytes shows when they are joined.
        """
        try:
            sizes = list(map(len, payloads))
        except TypeError:
            return None
        size = check_run(sizes)
        if self.must_wait(size):
            return None
        self._check(expected)
        try:
            return self._add_run(payloads, sizes, size)
        except _NotBytesError:
            return None

    def add_many(
        self, payloads: list[bytes], expected: Sequence | None = None
    ) -> asyncio.Future[range]:
        """Queue payloads for one frame: all or none of them are applied."""
        sizes = list(map(len, payloads))
        size = check_run(sizes)
        self._check(expected)
        self._take_room(size)
        return self._add_run(payloads, sizes, size)

    def _add_run(self, payloads: list[bytes], sizes: list[int], size: int) -> asyncio.Future[range]:
        """Join the batch, or leave at once where none waits or a frame of their own is large enough."""
        future: asyncio.Future[range] = self.create_future()
        if not payloads:
            future.set_result(range(self.tail, self.tail))
        elif size >= self._batch_bytes_max or not (self._unacked or self.size):
            self.flush()
            frame = self._built(payloads, size, sizes)
            self._send(frame, [self._next_unacked(len(payloads), size, future)])
        else:
            try:
                body = b"".join(payloads)
            except TypeError as error:
                raise _NotBytesError from error
            if len(body) + EVENT_OVERHEAD_BYTES * len(sizes) != size:
                raise _NotBytesError
            self._make_place(len(sizes), size)
            self._join_singles()
            self._add_part(body, sizes, size, future)
            self.size += size
            self._leave(RUNS_FACTOR * self._batch_bytes_max)
        return future

    def _make_place(self, count: int, size: int) -> None:
        """Send the batch first if one frame cannot hold so much more."""
        is_large = self.size + size > limits.FRAME_BYTES_MAX - frames.HEAD_BYTES
        if is_large or self.tail + count - self.framed > limits.FRAME_EVENTS_MAX:
            self.flush()

    def _join_singles(self) -> None:
        """Make the single events a part."""
        if self.payloads:
            sizes = list(map(len, self.payloads))
            self._add_part(b"".join(self.payloads), sizes, size_of(sizes), self.futures)
            self.payloads, self.futures = [], []

    def _add_part(
        self,
        body: bytes,
        sizes: list[int],
        size: int,
        futures: list[asyncio.Future[int]] | asyncio.Future[range],
    ) -> None:
        unacked = self._next_unacked(len(sizes), size, futures)
        self._parts.append(Part(frames.column_of(sizes), body, unacked))
        self._joined = unacked.end

    def _next_unacked(
        self, count: int, size: int, futures: list[asyncio.Future[int]] | asyncio.Future[range]
    ) -> Unacked:
        return Unacked(self._joined, self._joined + count, size, futures)

    def _leave(self, full: int) -> None:
        """Send the batch now if it has `full` bytes, else, or if that fails, at the end of this turn."""
        if self.size >= full:
            with suppress(MemoryError):  # what is queued has a future, no other outcome (trap 40)
                self.flush()
        if self.size and not self.is_due:
            self.schedule()

    def schedule(self) -> None:
        """Let the batch leave at the end of this turn."""
        self.is_due = True
        self.loop.call_soon(self._turn_ended)

    def _turn_ended(self) -> None:
        if len(self._unacked) >= BUSY_FRAMES:
            self._is_waiting = True  # the next acknowledgement sends it
            return
        try:
            self.flush()
        except MemoryError:  # what is queued must not wait for the next append (trap 40)
            self.is_due = True
            self.loop.call_later(NO_MEMORY_PAUSE_S, self._turn_ended)

    def _check(self, expected: Sequence | None) -> None:
        if self.error is not None:
            raise type(self.error)(self.error.message, **self.error.fields)
        if expected is not None and expected != self.tail:
            raise ConflictError(
                f"expected sequence {expected}, the tail is {self.tail}; nothing was sent",
                expected=expected,
                found=self.tail,
            )

    def _take_room(self, size: int) -> None:
        if not self.has_room(size):
            raise OverloadedError(
                f"{self.in_flight_bytes} bytes are in flight, the limit is {self._bytes_max}; "
                "nothing was sent: await writer.drain() first"
            )

    def must_wait(self, size: int) -> bool:
        """True if `size` more bytes may not be in flight, or others wait for room already (I17)."""
        return self._in_line > 0 or not self.has_room(size)

    def has_room(self, size: int) -> bool:
        """True if `size` more bytes may be in flight; a lone event always may."""
        held = self.in_flight_bytes
        return held + size <= self._bytes_max or held == 0

    # ------------------------------------------------------------------ out

    def flush(self) -> None:
        """Make a frame of the batch and send it."""
        self.is_due = self._is_waiting = False
        if self._parts:
            self._join_singles()
            parts, now = self._parts, self._clock_us()
            columns, bodies = [part.lengths for part in parts], [part.body for part in parts]
            frame: Frame = frames.build_of_parts(
                self._stream, self.framed, self._epoch, now, columns, bodies
            )
            self._parts, self.size = [], 0
            self._send(frame, [part.unacked for part in parts])
        elif self.payloads:
            frame = self._built(self.payloads, self.size)  # or they stay queued (trap 40)
            unacked = self._next_unacked(len(self.payloads), self.size, self.futures)
            self.payloads, self.futures, self.size = [], [], 0
            self._send(frame, [unacked])

    def _built(self, payloads: list[bytes], size: int, sizes: list[int] | None = None) -> Frame:
        """Make the next frame, of payloads that have that size."""
        now, first = self._clock_us(), self.framed
        try:
            frame = frames.build(self._stream, first, self._epoch, now, payloads, sizes)
        except TypeError as error:
            raise _NotBytesError from error
        if len(frame) != frames.HEAD_BYTES + size:
            raise _NotBytesError
        return frame

    def _send(self, frame: Frame, unacked: list[Unacked], *, is_alone: bool = False) -> None:
        first = self.framed
        self.framed = self._joined = end = unacked[-1].end
        self._unacked.append(unacked)
        self._unacked_bytes += len(frame) - frames.HEAD_BYTES
        self._set_limit()
        if self._emit(first, end - first, frame, is_alone):
            self.handed = end

    def _set_limit(self) -> None:
        if self.error is not None:
            return  # it stays 0: whoever appends shall look closer, and be refused
        room = self._bytes_max - self._unacked_bytes
        self.limit = self._limit_max if room > self._limit_max else max(room, 0)

    # ------------------------------------------------------------------ back

    def commit(self, committed: Sequence) -> None:
        """Everything below `committed` is on an ack quorum: tell who waits, in order."""
        self.committed = committed
        unacked = self._unacked
        while unacked and unacked[0][-1].end <= committed:
            for entry in unacked.popleft():
                self._unacked_bytes -= entry.bytes
                futures = entry.futures
                if isinstance(futures, list):
                    _resolve(futures, entry.first)
                elif not futures.done():
                    futures.set_result(range(entry.first, entry.end))
        self._set_limit()
        if self._is_waiting and len(unacked) < BUSY_FRAMES:
            self._is_waiting = False
            self.loop.call_soon(self._turn_ended)  # behind those who were just told
        self._wake_room()
        while self._settled and self._settled[0][0] <= committed:
            _set(self._settled.popleft()[1])

    async def room(self, size: int) -> None:
        """Wait in line until `size` more bytes may be in flight, or the epoch is over."""
        self._in_line += 1
        try:
            async with self._line:
                while self.error is None and not self.has_room(size):
                    self._room = self.create_future()
                    await self._room
        finally:
            self._in_line -= 1

    def _wake_room(self) -> None:
        if self._room is not None:
            _set(self._room)

    async def settled(self) -> None:
        """Wait until everything that is queued now is committed; raises what it ended with."""
        self.flush()
        target = self.framed
        if not self._is_over and self.committed < target:
            waiter: asyncio.Future[None] = self.create_future()
            self._settled.append((target, waiter))
            await waiter
        if self.committed < target and self.error is not None:
            raise self._outcome(target - 1, self.error)

    def stop(self, error: LunalogError) -> None:
        """Take nothing more; what is queued still leaves."""
        if self.error is None:
            self.flush()
            self.error = error
            self.limit = 0
            self._wake_room()

    def end(self, error: LunalogError) -> None:
        """The epoch is over: every append that is not committed has its final outcome now.

        `NotLeaderError` for what no socket got, `OutcomeUnknownError` for the rest: recovery may keep
        it (trap 17).
        """
        self.error = error
        self.limit = 0
        self._is_over = True
        for entry in [*chain(*self._unacked), *(part.unacked for part in self._parts)]:
            given: Any = entry.futures
            futures = given if isinstance(given, list) else [given]
            for sequence, future in enumerate(futures, entry.first):
                _fail(future, self._outcome(sequence, error))
        for sequence, future in enumerate(self.futures, self._joined):
            _fail(future, self._outcome(sequence, error))
        self._unacked.clear()
        self.payloads, self.futures, self._parts = [], [], []
        self._joined = self.framed
        self.size = self._unacked_bytes = 0
        self._wake_room()
        for _, waiter in self._settled:
            _set(waiter)
        self._settled.clear()

    def _outcome(self, sequence: Sequence, error: LunalogError) -> LunalogError:
        if sequence < self.handed:
            return OutcomeUnknownError(
                f"append {sequence} was sent, but its fate is not known ({error.message}): read the "
                "tail before you repeat it",
                sequence=sequence,
            )
        if isinstance(error, NotLeaderError):
            return NotLeaderError(f"not sent: {error.message}", leader=error.leader)
        return type(error)(error.message, **error.fields)


def _resolve(futures: list[asyncio.Future[int]], first: Sequence) -> None:
    """Set each future to its sequence; those that were cancelled stay so."""
    pairs = zip(futures, count(first), strict=False)
    while True:
        try:
            for future, sequence in pairs:
                future.set_result(sequence)
        except asyncio.InvalidStateError:
            continue
        return


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _fail(future: asyncio.Future[Any], error: LunalogError) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # whoever waits gets it; who does not has `flush` and every later call
