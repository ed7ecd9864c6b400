"""Write down what the master commits and what servers decide, send and give up.

Everything is seen from outside, at seams that are there anyway: the metadata store's commits, the
connections of a server, the calls of its `Replica`.  The shipped code has no switch for any of it.

Source: docs/protocol.md, invariants I7, I11 to I15, I18.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Run
from typing import Any

from lunalog.config import ServerConfig
from lunalog.core.held import SegmentReplica
from lunalog.core.replica import Replica
from lunalog.errors import CorruptFrameError
from lunalog.master import records
from lunalog.runtime import Address, Runtime
from lunalog.server.process import JournalServer
from lunalog.server.serving import ServerHandler
from lunalog.storage.files import Disk
from lunalog.testing.history import (
    Denial,
    HeadChange,
    HeldFrame,
    History,
    Loss,
    Removal,
    Restart,
    RowChange,
    ServerFact,
    ServerMemory,
)
from lunalog.types import (
    NO_PROMISE,
    Certificate,
    Chain,
    Member,
    Promise,
    SealedSegment,
    SegmentId,
    Sequence,
    StreamHead,
    StreamId,
)
from lunalog.wire import codec, frames
from lunalog.wire.codec import FramesHead, ReadStatus
from lunalog.wire.connection import Connection, Handler
from lunalog.wire.messages import Fence, Fenced, Hello, Message, Opened, OpenSlot, Read, Welcome


class Recorder:
    """The histories of all streams of one run.

    Attributes:
        servers: The `JournalServer` that runs, or ran last, under each name.
        lives: All that ever ran under it: one serves before it counts as started.
        incarnations: Under which incarnation the masters know each server.
        reported: How far the masters know each server's log to reach.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.histories: dict[StreamId, History] = {}
        self.losses: list[Loss] = []
        self.servers: dict[str, JournalServer] = {}
        self.lives: dict[str, list[JournalServer]] = {}
        self.incarnations: dict[str, int] = {}
        self.reported: dict[str, int] = {}
        self._noted: set[HeldFrame] = set()

    def of(self, stream: StreamId) -> History:
        """Return a stream's history, new or known."""
        found = self.histories.get(stream)
        if found is None:
            found = self.histories[stream] = History(stream, losses=self.losses)
        return found

    def named(self, name: str) -> History:
        """Return the history of the newest stream of that name; an empty one if there was none."""
        found = (h for h in reversed(self.histories.values()) if h.name == name)
        return next(found, History(name=name))

    # ------------------------------------------------------------ the master

    def committed(self, puts: Mapping[str, bytes], deletes: Run[str]) -> None:
        """Note a transaction that was applied."""
        at = self.now()
        for key, value in puts.items():
            if key.startswith(records.HEADS):
                head = records.decode(value, records.HeadRecord, key).head
                history = self.of(head.stream)
                history.name = head.name
                history.heads.append(HeadChange(at, head, self._facts(history, head)))
            elif key.startswith(records.ROWS):
                stream = records.stream_of(key)
                row = records.decode(value, SealedSegment, key)
                change = RowChange(at, stream, row, self._copies(stream, row))
                self.of(stream).rows.append(change)
            elif key.startswith(records.GONE):
                history = self.of(records.stream_of(key))
                if history.deleted_at is None:
                    history.deleted_at, history.has_log = at, False
            elif key.startswith(records.SERVERS):
                known = records.decode(value, records.ServerRecord, key)
                self.reported[known.name] = known.synced_position
                self.incarnations[known.name] = known.incarnation

    def _facts(self, history: History, head: StreamHead) -> tuple[ServerFact, ...]:
        """What the servers have of the segments that are open before and after a transaction."""
        last = history.heads[-1].head if history.heads else head
        named = [segment.id for segment in (last.open, head.open) if segment is not None]
        harmed = {loss.member.server for loss in self.losses}
        found = []
        for name, lives in sorted(self.lives.items()):
            promise, ends, member = NO_PROMISE, dict[SegmentId, Sequence](), Member(name, 0)
            for replica in (server.replica for server in lives):
                state = replica.streams.get(head.stream)
                if state is None or not replica.incarnation:
                    continue  # it has not registered yet, and says nothing
                member = Member(name, replica.incarnation)
                promise = max(promise, state.synced_promise)
                for each in named:
                    if each in state.segments:
                        ends[each] = max(ends.get(each, 0), state.segments[each].durable)
            found.append(ServerFact(member, promise, ends, name in harmed))
        return tuple(found)

    def _copies(self, stream: StreamId, row: SealedSegment) -> tuple[Member, ...] | None:
        """Who of a row's members holds all of it durably; none: part of it may be gone already."""
        heads = self.of(stream).heads
        if not heads or heads[-1].head.truncated_before > row.first:
            return None
        return tuple(
            member
            for member in row.members
            if (held := self.held(stream, row.id, member)) is not None
            and held.durable >= row.end
            and not held.unknown
        )

    def held(self, stream: StreamId, segment: SegmentId, member: Member) -> SegmentReplica | None:
        """What a member holds of a segment, or held when it stopped; the master says who it is."""
        server = self.servers.get(member.server)
        if server is None or self.incarnations.get(member.server) != member.incarnation:
            return None
        return server.replica.find(stream, segment)

    # ------------------------------------------------------------ servers

    def harmed(self, name: str) -> None:
        """A server's disk may lose what it had said was durable."""
        known = self.incarnations.get(name, 0)
        self.losses.append(Loss(self.now(), Member(name, known)))
        server = self.servers.get(name)
        if server is None or server.replica.incarnation != known:
            self.losses.append(Loss(self.now(), Member(name, known + 1)))

    def restarted(self, name: str, before: JournalServer, after: JournalServer) -> None:
        """A server is back on a disk that kept everything."""
        was, now = memory_of(before), memory_of(after)
        for stream in dict.fromkeys([*was.promises, *(key[0] for key in was.ends)]):
            self.of(stream).restarts.append(Restart(name, _only(was, stream), _only(now, stream)))

    def frame(self, held: HeldFrame) -> None:
        """Note a frame, once."""
        if held not in self._noted:
            self._noted.add(held)
            self.of(held.stream).held.append(held)

    def acked(self, member: Member, stream: StreamId, segment: SegmentId, end: Sequence) -> None:
        """A member says that it holds a segment up to `end`, durably."""
        acks = self.of(stream).acks
        if end > acks.get((member, segment), 0):
            acks[member, segment] = end


def memory_of(server: JournalServer) -> ServerMemory:
    """What a server has promised and acked, as far as it is durable."""
    return ServerMemory(promises=server.replica.promises(), ends=server.replica.durable_ends())


def _only(memory: ServerMemory, stream: StreamId) -> ServerMemory:
    return ServerMemory(
        {known: promise for known, promise in memory.promises.items() if known == stream},
        {key: end for key, end in memory.ends.items() if key[0] == stream},
    )


class WatchedServer(JournalServer):
    """A journal server whose decisions and answers are written down."""

    def __init__(
        self,
        runtime: Runtime,
        disk: Disk,
        masters: Run[Address],
        config: ServerConfig,
        recorder: Recorder,
    ) -> None:
        super().__init__(runtime, disk, masters, config)
        self.recorder = recorder
        recorder.lives.setdefault(config.name, []).append(self)
        self.replica = WatchedReplica(config.name, recorder)

    @property
    def member(self) -> Member:
        """Who it is now."""
        return Member(self.name, self.replica.incarnation)

    def _welcome(self, hello: Hello) -> tuple[Welcome, Handler]:
        welcome, _ = super()._welcome(hello)
        return welcome, WatchedHandler(self)


class WatchedReplica(Replica):
    """Notes what is given up (I14, I18), and what came from a peer (I7)."""

    def __init__(self, server: str, recorder: Recorder) -> None:
        super().__init__()
        self._server = server
        self._recorder = recorder

    def _gone(
        self,
        stream: StreamId,
        segment: SegmentId,
        span: tuple[Sequence, Sequence],
        kind: str,
        row: SealedSegment | None = None,
    ) -> None:
        first, end = span
        if first >= end or not self.incarnation:
            return  # nothing of it, or read back at the start: it was noted when it was decided
        member = Member(self._server, self.incarnation)
        removal = Removal(self._recorder.now(), member, segment, first, end, kind, row)
        self._recorder.of(stream).removals.append(removal)

    def _spans(self, stream: StreamId) -> dict[SegmentId, tuple[Sequence, Sequence]]:
        state = self.streams.get(stream)
        if state is None:
            return {}
        return {
            held.id: (max(held.first, state.trimmed_before), held.end)
            for held in state.segments.values()
        }

    def certify(self, certificate: Certificate) -> tuple[SegmentReplica, bool]:
        """As `Replica.certify`."""
        stream, row = certificate.stream, certificate.row
        known = self.find(stream, row.id)
        end = known.end if known is not None else 0
        held, is_new = super().certify(certificate)
        self._gone(stream, row.id, (held.end, end), "suffix", row)
        return held, is_new

    def trim(self, stream: StreamId, before: Sequence, version: int) -> bool:
        """As `Replica.trim`."""
        spans = self._spans(stream)
        is_new = super().trim(stream, before, version)
        left = self._spans(stream)
        for segment, (first, end) in spans.items():
            kept = left[segment][0] if segment in left else end
            self._gone(stream, segment, (first, min(kept, end)), "trim")
        return is_new

    def drop(self, stream: StreamId, segment: SegmentId, promise: Promise, version: int) -> bool:
        """As `Replica.drop`."""
        span = self._spans(stream).get(segment)
        is_new = super().drop(stream, segment, promise, version)
        if span is not None and segment not in self._spans(stream):
            self._gone(stream, segment, span, "drop")
        return is_new

    def delete(self, stream: StreamId, promise: Promise) -> bool:
        """As `Replica.delete`."""
        spans = self._spans(stream)
        is_new = super().delete(stream, promise)
        for segment, span in spans.items():
            self._gone(stream, segment, span, "delete")
        return is_new

    def pulled(
        self,
        stream: StreamId,
        held: SegmentReplica,
        before: Chain,
        first: Sequence,
        count: int,
        crc: int,
    ) -> bool:
        """As `Replica.pulled`."""
        is_new = super().pulled(stream, held, before, first, count, crc)
        if is_new:
            member = Member(self._server, self.incarnation)
            self._recorder.frame(HeldFrame(member, stream, held.id, first, count, crc))
        return is_new


class WatchedHandler(ServerHandler):
    """Notes what a server takes and what it answers: acks, denials, frames."""

    def __init__(self, server: WatchedServer) -> None:
        super().__init__(server)
        self._watched = server
        self._recorder = server.recorder
        self._asked: dict[int, Fence | Read | OpenSlot] = {}

    def on_open(self, connection: Connection) -> None:
        """Listen to what will be sent."""
        super().on_open(connection)
        reply, reply_frames = connection.reply, connection.reply_frames
        send, send_now = connection.send, connection.send_now

        def watched_reply(request: int, message: Message) -> None:
            self._replied(self._asked.pop(request, None), message)
            reply(request, message)

        def watched_frames(request: int, head: FramesHead, found: list[Any]) -> None:
            self._served(self._asked.pop(request, None), head, found)
            reply_frames(request, head, found)

        def watched_send(*buffers: codec.Buffer) -> None:
            self._sent(buffers[0])
            send(*buffers)

        def watched_send_now(buffer: codec.Buffer) -> None:
            self._sent(buffer)
            send_now(buffer)

        connection.reply = watched_reply  # type: ignore[method-assign]
        connection.reply_frames = watched_frames  # type: ignore[assignment, method-assign]
        connection.send = watched_send  # type: ignore[method-assign]
        connection.send_now = watched_send_now  # type: ignore[method-assign]

    def on_request(self, connection: Connection, request: int, message: Message) -> None:
        """Keep what an answer will be about."""
        if isinstance(message, Fence | Read | OpenSlot):
            self._asked[request] = message
        super().on_request(connection, request, message)

    def on_append(
        self, connection: Connection, slot: int, committed: int, frame: memoryview
    ) -> None:
        """Note a frame that was accepted."""
        found = self.slots.get(slot)
        before = found.held.end if found is not None else 0
        super().on_append(connection, slot, committed, frame)
        if found is not None and found.held.end > before:
            head = frames.parse_head(frame)
            self._frame(found.stream, found.held.id, head, is_sound=True)

    def _frame(
        self, stream: StreamId, segment: SegmentId, head: frames.FrameHead, *, is_sound: bool
    ) -> None:
        member = self._watched.member
        self._recorder.frame(
            HeldFrame(
                member, stream, segment, head.first, head.count, head.crc, head.epoch, is_sound
            )
        )

    def _sent(self, message: codec.Buffer) -> None:
        if message[4] != codec.Kind.ACK:
            return
        _, _, number, end = codec.DATA_HEAD.unpack(message)
        slot = self.slots.get(number)
        if slot is not None:
            member = Member(self._watched.name, slot.incarnation)
            self._recorder.acked(member, slot.stream, slot.held.id, end)

    def _replied(self, asked: Fence | Read | OpenSlot | None, message: Message) -> None:
        if isinstance(asked, OpenSlot) and isinstance(message, Opened):
            member = Member(self._watched.name, asked.incarnation)
            self._recorder.acked(member, asked.stream, asked.segment, message.end)
        elif (
            isinstance(asked, Fence)
            and isinstance(message, Fenced)
            and message.certificate is None  # else the end is decided, and it denies nothing
        ):
            self._denied(asked.stream, asked.segment, message.end, message.unknown)

    def _served(
        self, asked: Fence | Read | OpenSlot | None, head: FramesHead, found: list[codec.Buffer]
    ) -> None:
        if not isinstance(asked, Read):
            return
        for frame in found:
            self._frame(
                asked.stream, asked.segment, frames.parse_head(frame), is_sound=is_sound(frame)
            )
        if head.status is ReadStatus.ABSENT:
            held = self._watched.replica.find(asked.stream, asked.segment)
            if held is None or held.certificate is None:
                self._denied(asked.stream, asked.segment, asked.start)

    def _denied(
        self,
        stream: StreamId,
        segment: SegmentId,
        first: Sequence,
        unknown: tuple[tuple[Sequence, Sequence], ...] = (),
    ) -> None:
        state = self._watched.replica.streams.get(stream)
        kept = max(first, state.trimmed_before if state is not None else 0)
        denial = Denial(self._recorder.now(), self._watched.member, segment, kept, unknown)
        self._recorder.of(stream).denials.append(denial)


def is_sound(frame: codec.Buffer) -> bool:
    """Whether a frame's bytes match its checksum."""
    try:
        frames.parse(frame)
    except CorruptFrameError:
        return False
    return True
