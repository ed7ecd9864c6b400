"""What clients ask of streams: each request decides on the head as it is, commits, and tells.

Every one is found applied when it is repeated (R28, M1): create by the stream id that the client drew,
seal, truncate and release by what the head shows, delete by its tombstone.

Source: design.md section 4; R1, R8, R11, R22, R31.
"""

from __future__ import annotations

from collections.abc import Callable

from lunalog import limits
from lunalog.core import placement, streams
from lunalog.core.streams import Change, SealRequest
from lunalog.errors import (
    MetadataLostError,
    NotEnoughServersError,
    StreamExistsError,
    StreamNotFoundError,
    UsageError,
)
from lunalog.master.commands import Commands
from lunalog.master.elections import Elections
from lunalog.master.locks import StreamLocks
from lunalog.master.metadata import Metadata
from lunalog.master.publisher import Publisher
from lunalog.master.servers import Servers
from lunalog.master.table import Stream
from lunalog.runtime import Runtime
from lunalog.types import (
    Peer,
    SegmentId,
    ServerAddress,
    StreamHead,
    StreamId,
    StreamView,
    check_stream_name,
)
from lunalog.wire.connection import Connection
from lunalog.wire.messages import (
    CreateStream,
    DeleteStream,
    Done,
    GetStream,
    HeadReply,
    ListStreams,
    Proposal,
    Propose,
    Release,
    SealSegment,
    StreamList,
    Transfer,
    Truncate,
    ViewReply,
    WatchStream,
)

Decide = Callable[[Stream], Change | None]


class Operations:
    """Carries out requests about streams."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        metadata: Metadata,
        servers: Servers,
        publisher: Publisher,
        elections: Elections,
        commands: Commands,
        locks: StreamLocks,
    ) -> None:
        self._runtime = runtime
        self._metadata = metadata
        self._table = metadata.table
        self._servers = servers
        self._publisher = publisher
        self._elections = elections
        self._commands = commands
        self._locks = locks

    # ------------------------------------------------------------------ looking

    def find(self, stream: StreamId) -> Stream:
        """Return a stream that exists."""
        found = self._table.get(stream)
        if found is None:
            raise StreamNotFoundError(f"no stream with id {stream.hex()}: it was deleted")
        return found

    def get(self, request: GetStream) -> ViewReply:
        """Look a stream up by name."""
        name = check_stream_name(request.name)
        found = self._table.named(name)
        if found is None:
            raise StreamNotFoundError(f"no stream is named {name!r}")
        return ViewReply(self._publisher.view(found), self._elections.is_vacant(found))

    def page(self, request: ListStreams) -> StreamList:
        """Return one page of heads in order of name."""
        found = self._table.page(request.prefix, request.after, limits.STREAMS_PER_LIST_MAX)
        return StreamList(tuple(stream.head for stream in found))

    def watch(self, connection: Connection, peer: Peer, request: WatchStream) -> ViewReply:
        """Push changes from now on, and take the candidate in or out."""
        stream = self.find(request.stream)
        if request.is_candidate and not peer.incarnation:
            raise UsageError("only a client with an incarnation can stand for election (R2)")
        self._publisher.watch(connection, stream)
        if request.is_candidate:
            self._elections.stand(stream, peer, connection)
        else:
            self._elections.step_down(stream.id, connection)
        self._elections.remind(stream)
        return ViewReply(self._publisher.view(stream))

    def unwatch(self, connection: Connection, stream: StreamId) -> Done:
        """End the pushes and the candidacy."""
        self._publisher.unwatch(connection, stream)
        self._elections.step_down(stream, connection)
        return Done()

    def propose(self, request: Propose) -> Proposal:
        """Name servers for a new segment, best first."""
        stream = self.find(request.stream)
        self._check_writable(stream)
        streams.check_leader(stream.head, request.promise)
        policy = stream.head.policy
        chosen = placement.pick(
            self._servers.sites(request.exclude),
            policy.replicas,
            policy.ack_quorum,
            chance=self._runtime.random,
        )
        have, need = len(chosen.sites), policy.ack_quorum
        if have < need:
            raise NotEnoughServersError(
                f"{stream.head.name!r} needs {need} live journal servers, {have} can take a segment"
                + (f" besides {', '.join(request.exclude)}" if request.exclude else "")
                + "; it goes on by itself when there are enough: `lunalog health` shows what is wrong",
                have=have,
                need=need,
            )
        found: list[ServerAddress] = []
        for site in chosen.sites:
            address = self._servers.address(site.name)
            if address is not None:
                found.append(address)
        stream.proposed |= {server.member.server for server in found}
        return Proposal(tuple(found))

    # ------------------------------------------------------------------ changing

    async def create(self, request: CreateStream) -> ViewReply:
        """Make a stream; a repeat finds its own by the id that the client drew."""
        name = check_stream_name(request.name)
        head = streams.create(name, request.stream, request.policy, self._runtime.wall_us())
        async with self._locks.hold(name.encode()):
            found = self._table.named(name)
            if found is None:
                if self._table.get(request.stream) is not None:
                    raise UsageError("this stream id is taken: draw a new one for each stream")
                if await self._metadata.find_tombstone(request.stream) is not None:
                    raise StreamNotFoundError(f"stream {name!r} was created and deleted since")
                found = await self._metadata.create(head)
            if found is None:
                raise StreamExistsError(f"stream {name!r} was just made by somebody else")
        if found.id != request.stream and not request.exist_ok:
            raise StreamExistsError(f"stream {name!r} exists already; nothing was changed")
        return ViewReply(self._publisher.view(found))

    async def delete(self, request: DeleteStream) -> Done:
        """Replace a stream by its tombstone; its leader is fenced by an epoch nobody leads (R22)."""
        async with self._locks.hold(request.stream):
            while True:
                stream = self._table.get(request.stream)
                if stream is None:
                    if await self._metadata.find_tombstone(request.stream) is not None:
                        return Done()
                    raise StreamNotFoundError(f"no stream with id {request.stream.hex()}")
                self._check_writable(stream)
                holders = self._commands.holders(stream)
                if await self._metadata.delete(stream, streams.delete(stream.head).head, holders):
                    break
        self._commands.stream_gone(stream, holders)
        self._elections.gone(stream)
        self._publisher.gone(stream)
        return Done()

    async def seal(self, request: SealSegment) -> HeadReply:
        """Seal what is open and open the next, or close without successor."""
        wanted = SealRequest(
            promise=request.promise,
            old=request.old,
            row=request.row,
            open=request.open,
            next=request.next,
            chain=request.chain,
            release=request.release,
            reason=request.reason,
        )

        def decide(stream: Stream) -> Change | None:
            return streams.seal(
                stream.head,
                stream.rows,
                wanted,
                sealed_leader=stream.open_leader,
                is_known=self._servers.is_known,
                now_us=self._runtime.wall_us(),
            )

        return HeadReply(await self._change(request.stream, decide))

    async def truncate(self, request: Truncate) -> HeadReply:
        """Raise `truncated_before`."""

        def decide(stream: Stream) -> Change | None:
            return streams.truncate(stream.head, request.promise, request.before)

        return HeadReply(await self._change(request.stream, decide))

    async def release(self, request: Release) -> Done:
        """Take an epoch back from a leader that cannot work; it queues last (N2)."""

        def decide(stream: Stream) -> Change | None:
            change = streams.release(stream.head, request.promise)
            if change is not None:
                self._elections.gave_up(stream, request.promise.leader)
            return change

        await self._change(request.stream, decide)
        return Done()

    async def transfer(self, request: Transfer) -> Done:
        """Hand over, and answer when the new leader leads."""
        stream = self.find(request.stream)
        self._check_writable(stream)
        if not 0 < request.timeout_ms <= 86_400_000:
            raise UsageError("timeout_ms must be above 0 and at most a day")
        await self._elections.transfer(stream, request.to, request.timeout_ms / 1000)
        return Done()

    async def _change(self, stream_id: StreamId, decide: Decide) -> StreamHead:
        """Decide and commit until the store agrees; then tell everybody."""
        async with self._locks.hold(stream_id):
            while True:
                stream = self.find(stream_id)
                self._check_writable(stream)
                change = decide(stream)
                if change is None:
                    return stream.head
                old = stream.head.open
                if await self._metadata.change(
                    stream, change.head, _open_leader(stream, change.head), change.row
                ):
                    break
                self._publisher.changed(stream, stream.rows)
        self._commands.head_changed(stream, old, change.row)
        self._publisher.changed(stream, () if change.row is None else (change.row,))
        self._elections.changed(stream)
        return stream.head

    @staticmethod
    def _check_writable(stream: Stream) -> None:
        if stream.lost:
            raise MetadataLostError(
                f"{stream.head.name!r} is read-only, its metadata went back ({stream.lost}): "
                "restore the newest metadata, do not raise epochs by hand (R25)"
            )

    def view(self, stream: Stream) -> StreamView:
        """Everything a client needs to know of a stream."""
        return self._publisher.view(stream)


def _open_leader(stream: Stream, after: StreamHead) -> str:
    """Name of the leader whose epoch the segment that is open in `after` belongs to."""
    if after.open is None:
        return ""
    before: SegmentId | None = stream.head.open.id if stream.head.open is not None else None
    if before == after.open.id:
        return stream.open_leader
    return after.leader.name if after.leader is not None else ""
