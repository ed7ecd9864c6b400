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
from lunalog.wire.codec import FramesHead, ReadStatus
from lunalog.wire.connection import Connection
from lunalog.wire.frames import FrameHead
from lunalog.wire.messages import Read

if TYPE_CHECKING:
    from lunalog.server.process import JournalServer

logger = logging.getLogger("lunalog.server")
DISK_READS_MAX: Final = 16
"""Reads of old data under way at once."""
READS_PER_CONNECTION_MAX: Final = 10_000
"""Reads of old data that one connection may have queued (H7)."""
WAIT_MS_MAX: Final = 60_000
WAITERS_MAX: Final = 50_000
"""Readers that wait for more at once; a further one is told that there is nothing yet."""

Frames = list[tuple[FrameHead, bytes]]


class _Waiting:
    """A long poll: one reader at the end of what it may see."""

    __slots__ = ("connection", "held", "message", "request", "timer")

    def __init__(
        self, connection: Connection, request: int, message: Read, held: SegmentReplica
    ) -> None:
        self.connection = connection
        self.request = request
        self.message = message
        self.held = held
        self.timer: asyncio.TimerHandle | None = None


class Reads:
    """All readers of one server."""

    def __init__(self, server: JournalServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[SegmentReplica, list[_Waiting]] = {}
        self._count = 0
        self._disk = asyncio.Semaphore(DISK_READS_MAX)
        self._queues: dict[Connection, tuple[asyncio.Lock, int]] = {}
        """Whose turn it is among the reads of old data of one connection, and how many wait."""
        self._number = 0

    # ------------------------------------------------------------------ requests

    def serve(self, connection: Connection, request: int, message: Read) -> None:
        """Answer now, or see to it that it is answered; raises what the reader must be told."""
        state, held = self._find(message)
        if message.promise is not None:
            self._recovery(connection, request, message, state, held)
            return
        if held is None:
            raise NotOpenError(f"segment {message.segment} is not here")
        row = held.certificate.row if held.certificate else None
        if row is not None and message.start >= row.end:
            self._tell(connection, request, held, ReadStatus.END_OF_SEGMENT)
        elif message.start < held.readable:
            self._send(connection, request, message, held, held.readable)
        elif message.wait_ms and row is None and self._count < WAITERS_MAX:
            self._wait(connection, request, message, held)
        else:
            self._tell(connection, request, held, ReadStatus.NOTHING_YET)

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
        self,
        connection: Connection,
        request: int,
        message: Read,
        state: StreamReplica | None,
        held: SegmentReplica | None,
    ) -> None:
        promise = message.promise or NO_PROMISE
        if held is not None and message.start < held.durable:
            if any(first <= message.start < end for first, end in held.unknown):
                raise UnknownDataError(f"{message.start} of segment {held.id} is damaged here")
            self._send(connection, request, message, held, held.durable)
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
            connection.reply_frames(request, FramesHead(0, 0, 0, status), [])
        else:
            self._tell(connection, request, held, status)

    # ------------------------------------------------------------------ answers

    def _tell(
        self, connection: Connection, request: int, held: SegmentReplica, status: ReadStatus
    ) -> None:
        head = FramesHead(held.durable, held.readable, 0, status)
        connection.reply_frames(request, head, [])

    def _send(
        self,
        connection: Connection,
        request: int,
        message: Read,
        held: SegmentReplica,
        limit: Sequence,
    ) -> None:
        if message.promise is None and not connection.is_paused:
            bytes_max = self._bytes_max(message)
            found = self._server.log.cached(
                message.stream, held.id, message.start, bytes_max, limit
            )
            if found:
                before = held.start_chain if found[0][0].first == held.first else 0
                self._reply(connection, request, held, found, before)
                return
        lock, count = self._queues.get(connection) or (asyncio.Lock(), 0)
        if count >= READS_PER_CONNECTION_MAX:
            raise OverloadedError("too many reads of this connection are under way")
        self._queues[connection] = lock, count + 1
        self._number += 1
        _ = self._server.tasks.start(
            self._read_in_turn(connection, request, message, held, limit), f"read-{self._number}"
        )

    def _bytes_max(self, message: Read) -> int:
        return max(1, min(message.bytes_max, self._server.config.read_bytes_max))

    async def _read_in_turn(
        self,
        connection: Connection,
        request: int,
        message: Read,
        held: SegmentReplica,
        limit: Sequence,
    ) -> None:
        """Read old data without holding anybody up (N6).

        A slow reader waits for its own socket, one read after another: what is read for it and not
        sent yet is one reply and what its socket takes, however much it asks for (Z1).
        """
        lock, _ = self._queues[connection]
        try:
            async with lock:
                await connection.drained()
                if connection.closed_by is None:
                    await self._read(connection, request, message, held, limit)
                    connection.flush()
        finally:
            _, count = self._queues[connection]
            if count > 1:
                self._queues[connection] = lock, count - 1
            else:
                del self._queues[connection]

    async def _read(
        self,
        connection: Connection,
        request: int,
        message: Read,
        held: SegmentReplica,
        limit: Sequence,
    ) -> None:
        try:
            async with self._disk:
                found = await self._server.log.read(
                    message.stream, held.id, message.start, self._bytes_max(message), limit
                )
                before = held.start_chain
                if found and message.promise is not None:
                    before = await self.chain_before(message.stream, held, found[0][0].first)
        except LunalogError as error:
            if isinstance(error, UnknownDataError):
                self._server.note_damage()
            connection.fail(request, error)
            return
        if not found:
            connection.fail(request, GoneError(f"{message.start} is not here any more"))
        else:
            self._reply(connection, request, held, found, before)

    async def chain_before(self, stream: StreamId, held: SegmentReplica, first: Sequence) -> int:
        """Return the chain before the frame at `first`."""
        if first == held.first:
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
            logger.warning(
                "no_base", extra={"segment": str(segment), "before": before, "why": str(error)}
            )
            return None

    def _reply(
        self,
        connection: Connection,
        request: int,
        held: SegmentReplica,
        found: Frames,
        before: int,
    ) -> None:
        size = 0
        count = 0
        for frame_head, _ in found:  # one reply is one message, whatever the request said
            size += frame_head.size
            if count and size > limits.FRAME_BYTES_MAX:
                break
            count += 1
        head = FramesHead(held.durable, held.readable, before, ReadStatus.HELD)
        connection.reply_frames(request, head, [frame for _, frame in found[:count]])

    # ------------------------------------------------------------------ long polls

    def _wait(
        self, connection: Connection, request: int, message: Read, held: SegmentReplica
    ) -> None:
        waiting = _Waiting(connection, request, message, held)
        delay = min(message.wait_ms, WAIT_MS_MAX) / 1000
        waiting.timer = self._loop.call_later(delay, self._expire, waiting)
        self._waiting.setdefault(held, []).append(waiting)
        self._count += 1

    def _expire(self, waiting: _Waiting) -> None:
        queue = self._waiting.get(waiting.held, [])
        if waiting in queue:
            queue.remove(waiting)
            self._count -= 1
            if not queue:
                del self._waiting[waiting.held]
            self._tell(waiting.connection, waiting.request, waiting.held, ReadStatus.NOTHING_YET)

    def wake(self, held: SegmentReplica) -> None:
        """What readers of a segment may see has moved, or ended, or is gone."""
        queue = self._waiting.pop(held, None)
        if queue is None:
            return
        self._count -= len(queue)
        for waiting in queue:
            if waiting.timer is not None:
                waiting.timer.cancel()
            try:
                self.serve(waiting.connection, waiting.request, waiting.message)
            except LunalogError as error:
                waiting.connection.fail(waiting.request, error)

    def gone(self, connection: Connection) -> None:
        """A connection closed: nobody waits on it any more."""
        for held, queue in list(self._waiting.items()):
            left = [waiting for waiting in queue if waiting.connection is not connection]
            if len(left) == len(queue):
                continue
            self._count -= len(queue) - len(left)
            for waiting in queue:
                if waiting.connection is connection and waiting.timer is not None:
                    waiting.timer.cancel()
            if left:
                self._waiting[held] = left
            else:
                del self._waiting[held]
