"""Serving frames: from memory at once, from the disk beside the loop, or later when more is committed.

A reader gets whole frames below what it may see (R12); a recovery read gets all that is durable, or a
definite "absent" under its promise (R6, I13).  Damage is neither (R18).

Source: design.md section 6; R6, R12, R13, R18.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from lunalog import limits
from lunalog.core.held import Base, SegmentReplica, StreamReplica
from lunalog.errors import (
    GoneError,
    LunalogError,
    NotOpenError,
    OverloadedError,
    UnknownDataError,
)
from lunalog.types import NO_PROMISE, SegmentId, Sequence, StreamId
from lunalog.wire.codec import Buffer, FramesHead, ReadStatus
from lunalog.wire.connection import Connection
from lunalog.wire.frames import FrameHead
from lunalog.wire.messages import Read

if TYPE_CHECKING:
    from lunalog.server.process import JournalServer

logger = logging.getLogger("lunalog.server")
DISK_READS_MAX: Final = 16
"""Reads of old data under way at once."""
READS_PER_CONNECTION_MAX: Final = 10_000
"""Reads of old data that one connection may have queued, and as many of recoveries (H7)."""
WAIT_MS_MAX: Final = 60_000
WAITERS_MAX: Final = 50_000
"""Readers that wait for more at once; a further one is told that there is nothing yet."""

Frames = list[tuple[FrameHead, bytes]]


class _Asked:
    """One read, and who is to be answered; with a timer while it waits for more to be committed."""

    __slots__ = ("connection", "message", "request", "timer")

    def __init__(self, connection: Connection, request: int, message: Read) -> None:
        self.connection = connection
        self.request = request
        self.message = message
        self.timer: asyncio.TimerHandle | None = None

    def answer(self, head: FramesHead, frames: list[Buffer]) -> None:
        self.connection.reply_frames(self.request, head, frames)

    def tell(self, held: SegmentReplica, status: ReadStatus) -> None:
        """Answer without a frame."""
        self.answer(FramesHead(held.durable, held.readable, 0, status), [])

    def fail(self, error: LunalogError) -> None:
        self.connection.fail(self.request, error)


class Reads:
    """All readers of one server."""

    def __init__(self, server: JournalServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[SegmentReplica, list[_Asked]] = {}
        self._moved: list[SegmentReplica] = []
        self._count = 0
        self._disk = asyncio.Semaphore(DISK_READS_MAX)
        self._queues: dict[tuple[Connection, bool], tuple[asyncio.Lock, int]] = {}
        """Whose turn it is among the reads of old data of one connection, and how many wait.

        One of each queue at most waits for the disk, so that connections take turns there (L2).  Those
        of recoveries queue apart: a stream without a leader waits for no follower."""
        self._number = 0

    # ------------------------------------------------------------------ requests

    def serve(self, connection: Connection, request: int, message: Read) -> None:
        """Answer now, or see to it that it is answered; raises what the reader must be told."""
        self._serve(_Asked(connection, request, message))

    def _serve(self, asked: _Asked) -> None:
        message = asked.message
        state, held = self._find(message)
        if message.promise is not None:
            self._recovery(asked, state, held)
            return
        if held is None:
            raise NotOpenError(f"segment {message.segment} is not here")
        row = held.certificate.row if held.certificate else None
        if row is not None and message.start >= row.end:
            asked.tell(held, ReadStatus.END_OF_SEGMENT)
        elif message.start < held.readable:
            self._send(asked, held, held.readable)
        elif message.wait_ms and row is None and self._count < WAITERS_MAX:
            self._wait(asked, held)
        else:
            asked.tell(held, ReadStatus.NOTHING_YET)

    def _find(self, message: Read) -> tuple[StreamReplica | None, SegmentReplica | None]:
        state = self._server.replica.streams.get(message.stream)
        if state is None:
            return None, None
        if state.is_deleted:
            raise GoneError("the stream was deleted")
        if message.start < state.trimmed_before:
            raise GoneError(f"everything below {state.trimmed_before} was truncated")
        held = state.segments.get(message.segment)
        if held is not None and message.start < held.first:
            raise NotOpenError(f"segment {message.segment} begins at {held.first}")
        return state, held

    def _recovery(
        self, asked: _Asked, state: StreamReplica | None, held: SegmentReplica | None
    ) -> None:
        message = asked.message
        promise = message.promise or NO_PROMISE
        if held is not None and message.start < held.durable:
            _check_known(held, message.start)
            self._send(asked, held, held.durable)
            return
        if state is None or state.synced_promise != promise:
            # A copy is a copy under any promise; only who promised may say that there is none.
            self._server.replica.check_promise(message.stream, promise)
            raise NotOpenError("this server has not made that promise: fence it first")
        status = ReadStatus.ABSENT
        is_sealed = held is not None and held.certificate is not None
        if promise.epoch <= message.segment.epoch and not is_sealed:
            status = (
                ReadStatus.NOTHING_YET
            )  # its own leader rolled away from it, and may still append
        if held is None:
            asked.answer(FramesHead(0, 0, 0, status), [])
        else:
            asked.tell(held, status)

    # ------------------------------------------------------------------ answers

    def _send(self, asked: _Asked, held: SegmentReplica, limit: Sequence) -> None:
        connection, message = asked.connection, asked.message
        if message.promise is None and not connection.is_paused:
            bytes_max = self._bytes_max(message)
            found = self._server.log.cached(
                message.stream, held.id, message.start, bytes_max, limit
            )
            if found:
                before = held.start_chain if found[0][0].first == held.first else 0
                self._reply(asked, held, found, before)
                return
        key = _queue_of(asked)
        lock, count = self._queues.get(key) or (asyncio.Lock(), 0)
        if count >= READS_PER_CONNECTION_MAX:
            raise OverloadedError("too many reads of this connection are under way")
        self._queues[key] = lock, count + 1
        self._number += 1
        _ = self._server.tasks.start(self._read_in_turn(asked, held, limit), f"read-{self._number}")

    def _bytes_max(self, message: Read) -> int:
        return max(1, min(message.bytes_max, self._server.config.read_bytes_max))

    async def _read_in_turn(self, asked: _Asked, held: SegmentReplica, limit: Sequence) -> None:
        """Read old data without holding anybody up (N6).

        A slow reader waits for its own socket, one read after another: what is read for it and not
        sent yet is one reply, or two while it recovers streams, and what its socket takes, however
        much it asks for (Z1).
        """
        connection, key = asked.connection, _queue_of(asked)
        lock, _ = self._queues[key]
        try:
            async with lock:
                await connection.drained()
                if connection.closed_by is None:
                    await self._read(asked, held, limit)
                    connection.flush()
        finally:
            _, count = self._queues[key]
            if count > 1:
                self._queues[key] = lock, count - 1
            else:
                del self._queues[key]

    async def _read(self, asked: _Asked, held: SegmentReplica, limit: Sequence) -> None:
        message = asked.message
        try:
            async with self._disk:
                found = await self._server.log.read(
                    message.stream, held.id, message.start, self._bytes_max(message), limit
                )
                if not found:
                    _check_known(held, message.start)
                    raise GoneError(f"{message.start} is not here any more")
                before = held.start_chain
                if message.promise is not None:
                    before = await self.chain_before(message.stream, held, found[0][0].first)
        except LunalogError as error:
            if isinstance(error, UnknownDataError):
                self._server.note_damage()
            asked.fail(error)
        else:
            self._reply(asked, held, found, before)

    async def chain_before(self, stream: StreamId, held: SegmentReplica, first: Sequence) -> int:
        """Return the chain before the frame at `first`."""
        if first == held.first and held.is_opened:  # else nobody has told where it begins
            return held.start_chain
        if held.base is not None and held.base[0] == first:
            return held.base[1]
        found = await self._server.log.chain_at(stream, held.id, first)
        if found is None:
            raise UnknownDataError(f"the frame before {first} of segment {held.id} is damaged here")
        return found

    async def base_at(self, stream: StreamId, segment: SegmentId, before: Sequence) -> Base | None:
        """Find the frame that holds `before`, and the chain before it: what is kept begins there."""
        held = self._server.replica.find(stream, segment)
        if held is None or not held.first < before < held.durable:
            return None
        try:
            found = await self._server.log.read(stream, segment, before, 1)
            if not found:
                return None
            first = found[0][0].first
            return first, await self.chain_before(stream, held, first)
        except LunalogError as error:
            self._server.note_damage()
            logger.warning(
                "no_base", extra={"segment": str(segment), "before": before, "why": str(error)}
            )
            return None

    def _reply(self, asked: _Asked, held: SegmentReplica, found: Frames, before: int) -> None:
        size = 0
        count = 0
        for frame_head, _ in found:  # one reply is one message, whatever the request said
            size += frame_head.size
            if count and size > limits.FRAME_BYTES_MAX:
                break
            count += 1
        head = FramesHead(held.durable, held.readable, before, ReadStatus.HELD)
        asked.answer(head, [frame for _, frame in found[:count]])

    # ------------------------------------------------------------------ long polls

    def _wait(self, asked: _Asked, held: SegmentReplica) -> None:
        delay = min(asked.message.wait_ms, WAIT_MS_MAX) / 1000
        asked.timer = self._loop.call_later(delay, self._expire, asked, held)
        self._waiting.setdefault(held, []).append(asked)
        self._count += 1

    def _expire(self, asked: _Asked, held: SegmentReplica) -> None:
        queue = self._waiting.get(held, [])
        if asked in queue:
            queue.remove(asked)
            self._count -= 1
            if not queue:
                del self._waiting[held]
            asked.tell(held, ReadStatus.NOTHING_YET)

    def moved(self, held: SegmentReplica) -> None:
        """Readers of a segment may see more, once the log has it: `wake_moved` wakes them then."""
        if held in self._waiting:
            self._moved.append(held)

    def wake_moved(self) -> None:
        """Wake all that `moved` named."""
        if self._moved:
            moved, self._moved = self._moved, []
            for held in moved:
                self.wake(held)

    def wake(self, held: SegmentReplica) -> None:
        """What readers of a segment may see has moved, or ended, or is gone."""
        queue = self._waiting.pop(held, None)
        if queue is None:
            return
        self._count -= len(queue)
        for asked in queue:
            if asked.timer is not None:
                asked.timer.cancel()
            try:
                self._serve(asked)
            except LunalogError as error:
                asked.fail(error)

    def gone(self, connection: Connection) -> None:
        """A connection closed: nobody waits on it any more."""
        for held, queue in list(self._waiting.items()):
            left = [asked for asked in queue if asked.connection is not connection]
            if len(left) == len(queue):
                continue
            self._count -= len(queue) - len(left)
            for asked in queue:
                if asked.connection is connection and asked.timer is not None:
                    asked.timer.cancel()
            if left:
                self._waiting[held] = left
            else:
                del self._waiting[held]


def _check_known(held: SegmentReplica, start: Sequence) -> None:
    """Raise `UnknownDataError` where damage is known, which is no answer (R18)."""
    if any(first <= start < end for first, end in held.unknown):
        raise UnknownDataError(f"{start} of segment {held.id} is damaged here")


def _queue_of(asked: _Asked) -> tuple[Connection, bool]:
    return asked.connection, asked.message.promise is not None
