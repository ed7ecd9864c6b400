"""Completing a sealed replica from its peers, under its certificate (R21).

Frames come in order from the replica's end, each checked by its checksum; at the row's end the chain
must be the row's.  What does not fit is dropped and another peer asked.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from lunalog.core import chain as chains
from lunalog.core.held import SegmentReplica
from lunalog.errors import CorruptFrameError, InvariantError, LunalogError, UnknownDataError
from lunalog.storage.records import BaseRecord, FrameRecord, Record
from lunalog.types import Chain, ServerAddress, StreamId
from lunalog.wire import frames
from lunalog.wire.codec import ReadStatus
from lunalog.wire.connection import Connection, Handler
from lunalog.wire.dialing import dial
from lunalog.wire.messages import Read

if TYPE_CHECKING:
    from lunalog.server.process import JournalServer

logger = logging.getLogger("lunalog.server")
PULL_BYTES: Final = 1 << 20
REQUEST_TIMEOUT_S: Final = 10.0
PULLS_MAX: Final = 2
"""Segments that are completed at once: repair has its own budget."""


class Puller:
    """All pulls of one server."""

    def __init__(self, server: JournalServer) -> None:
        self._server = server
        self._under_way: set[SegmentReplica] = set()
        self._budget = asyncio.Semaphore(PULLS_MAX)
        self._number = 0

    def start(
        self, stream: StreamId, held: SegmentReplica, sources: tuple[ServerAddress, ...]
    ) -> None:
        """Pull what is missing below the certificate's end, unless that is going on already.

        What is damaged in the middle is not mended: peers would be dialled for nothing (R20).
        """
        row = held.certificate.row if held.certificate else None
        if row is None or held.durable >= row.end or held in self._under_way or not sources:
            return
        self._under_way.add(held)
        self._number += 1
        _ = self._server.tasks.start(self._pull(stream, held, sources), f"pull-{self._number}")

    async def _pull(
        self, stream: StreamId, held: SegmentReplica, sources: tuple[ServerAddress, ...]
    ) -> None:
        try:
            async with self._budget:
                for source in sources:
                    if held.is_complete or held.certificate is None:
                        break
                    try:
                        await self._pull_from(stream, held, source)
                    except InvariantError:
                        raise
                    except LunalogError as error:
                        logger.info(
                            "pull_failed",
                            extra={
                                "segment": str(held.id),
                                "source": str(source.member),
                                "why": str(error),
                            },
                        )
        finally:
            self._under_way.discard(held)

    async def _pull_from(
        self, stream: StreamId, held: SegmentReplica, source: ServerAddress
    ) -> None:
        connection = await dial(
            self._server.runtime, source.address, self._server.hello(), Handler()
        )
        try:
            while not held.is_complete:
                moved = await self._pull_some(connection, stream, held)
                if not moved:
                    return
        finally:
            connection.close()

    async def _pull_some(
        self, connection: Connection, stream: StreamId, held: SegmentReplica
    ) -> bool:
        server = self._server
        certificate = held.certificate
        if certificate is None or server.log.is_full:
            return False
        if held.end >= certificate.row.end:
            await server.log.flush()
            return False
        state = server.replica.streams[stream]
        start = max(held.end, state.trimmed_before)
        # Under its promise it is a recovery read: that one tells the chain before the first frame.
        message = Read(stream, held.id, start, PULL_BYTES, promise=certificate.promise)
        head, body = await connection.request(message, timeout=REQUEST_TIMEOUT_S)
        if head.status is not ReadStatus.HELD:
            return False
        await server.log.flush()  # one reply in flight: the queue stays bounded
        moved, chain = False, head.chain
        for frame_head, frame in frames.split(body):
            if frame_head.stream != stream:
                raise CorruptFrameError("the peer sent a frame of another stream")
            if frame_head.end > certificate.row.end:
                break
            moved |= self._take(stream, held, chain, frame_head, bytes(frame))
            chain = chains.extend(chain, frame_head.first, frame_head.count, frame_head.crc)
        server.log.put([], lambda: server.completed(stream, held))
        return moved

    def _take(
        self,
        stream: StreamId,
        held: SegmentReplica,
        before: Chain,
        head: frames.FrameHead,
        frame: bytes,
    ) -> bool:
        server = self._server
        if held is not server.replica.find(stream, held.id):
            raise UnknownDataError(f"segment {held.id} was dropped meanwhile")
        if not server.replica.pulled(stream, held, before, head.first, head.count, head.crc):
            return False
        records: list[Record] = []
        if held.base is not None and held.base[0] == head.first:
            records.append(BaseRecord(stream, held.id, *held.base))
        records.append(FrameRecord(stream, held.id, held.committed, held.chain, head, frame))
        server.log.put(records, lambda: held.synced(head.end))
        return True
