"""One connection to a journal server: slots, appends and acks; everything else goes to its rooms.

An append is parsed, checked, decided and queued where it arrives: one copy, one checksum, nothing per
event.  When the log has synced a batch, each slot that moved gets one cumulative ack.

Source: R3, R4, R5, R12, R14, R16.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from lunalog.errors import (
    CorruptFrameError,
    DiskFullError,
    InvariantError,
    LunalogError,
    NotActiveError,
    OverloadedError,
    PeerError,
    ServerUnavailableError,
)
from lunalog.storage.records import (
    BaseRecord,
    ControlRecord,
    FrameRecord,
    OpenRecord,
    PromiseRecord,
    Record,
)
from lunalog.types import Promise, Sequence, StreamId
from lunalog.wire import codec, frames
from lunalog.wire.connection import Connection, Handler
from lunalog.wire.messages import (
    AppendRefused,
    AskLeader,
    Certified,
    Certify,
    Check,
    CloseSlot,
    DescribeServer,
    Done,
    Fence,
    Fenced,
    LeaderAnswer,
    LeaderAsked,
    Message,
    Opened,
    OpenSlot,
    Ping,
    Read,
    ReadPoint,
)

if TYPE_CHECKING:
    from lunalog.core.held import SegmentReplica, StreamReplica
    from lunalog.server.process import JournalServer


SLOTS_PER_CONNECTION_MAX: Final = 50_000
"""Segments that one connection may append to (H7)."""
QUESTIONS_MAX: Final = 50_000
"""Questions that wait for their leaders' answers."""


class Slot:
    """A segment that one connection appends to."""

    __slots__ = (
        "acked",
        "connection",
        "held",
        "incarnation",
        "is_due",
        "is_refused",
        "number",
        "state",
        "stream",
    )

    def __init__(
        self,
        number: int,
        connection: Connection,
        stream: StreamId,
        state: StreamReplica,
        held: SegmentReplica,
        incarnation: int,
    ) -> None:
        self.incarnation = incarnation
        self.number = number
        self.connection = connection
        self.stream = stream
        self.state = state
        self.held = held
        self.acked: Sequence = held.first
        self.is_due = False
        """Waits in the list of acks to be sent."""
        self.is_refused = False
        """A frame was refused: nothing more is taken before another OpenSlot."""


class ServerHandler(Handler):
    """One connection of one server."""

    def __init__(self, server: JournalServer) -> None:
        self.server = server
        self.slots: dict[int, Slot] = {}
        self._requests: dict[type, Callable[[Connection, int, Any], None]] = {
            OpenSlot: self._open,
            Fence: self._fence,
            Check: self._check,
            Read: self._read,
            Certify: self._certify,
            AskLeader: self._ask_leader,
            DescribeServer: self._describe,
            Ping: self._ping,
        }

    def on_open(self, connection: Connection) -> None:
        """Count it."""
        self.server.came(connection)

    def on_closed(self, connection: Connection, error: LunalogError) -> None:
        """Forget the slots; the segments stay as they are."""
        self.server.went(connection)
        self.server.appenders.discard(connection)
        self.server.leaders.gone(connection)
        self.slots.clear()
        self.server.reads.gone(connection)

    def on_request(self, connection: Connection, request: int, message: Message) -> None:
        """Dispatch by type; what a decision refuses is told."""
        serve = self._requests.get(type(message))
        if serve is None:
            raise PeerError(f"a journal server does not answer {type(message).__name__}")
        try:
            if not self.server.is_registered and type(message) is not Ping:
                raise NotActiveError(
                    "this server has not registered with its master yet: try again"
                )
            serve(connection, request, message)
        except InvariantError:
            raise
        except LunalogError as error:
            connection.fail(request, error)

    def on_push(self, connection: Connection, message: Message) -> None:
        """A slot is closed, or a leader answers."""
        if isinstance(message, CloseSlot):
            self.slots.pop(message.slot, None)
            if not self.slots:
                self.server.appenders.discard(connection)
        elif isinstance(message, LeaderAnswer):
            self.server.leaders.answered(connection, message)
        else:
            raise PeerError(f"a journal server takes no {type(message).__name__}")

    # ------------------------------------------------------------------ appends

    def on_append(
        self, connection: Connection, slot: int, committed: int, frame: memoryview
    ) -> None:
        """Check, decide, queue (R3)."""
        found = self.slots.get(slot)
        if found is None or found.is_refused:
            return
        server, held = self.server, found.held
        data = bytes(frame)
        head = frames.parse(data)
        if head.stream != found.stream:
            raise CorruptFrameError("the frame belongs to another stream than its slot")
        try:
            if found.incarnation != server.replica.incarnation:  # a call less in the common case
                server.replica.check_incarnation(found.incarnation)
            if server.log.is_full:
                raise DiskFullError("this server's disk is nearly full: it takes no appends")
            is_new = server.replica.append(found.state, held, head.first, head.count, head.crc)
        except LunalogError as error:
            self._refuse(found, error)
            return
        if committed > held.committed:
            server.marked(found.stream, held, committed, is_recorded=is_new)
        if is_new:
            record = FrameRecord(found.stream, held.id, held.committed, held.chain, head, data)
            records: list[Record] = [record]
            if held.base is not None and held.base[0] == head.first:
                records = [BaseRecord(found.stream, held.id, *held.base), record]
            is_last = len(server.appenders) == 1 and not connection.has_more
            server.log.put(records, synced=_Accepted(server, found, held.end), is_last=is_last)
            server.appended_bytes += len(data)
            server.throttle(connection)
        elif held.durable > found.acked:
            server.acks.due(found)

    def _refuse(self, slot: Slot, error: LunalogError) -> None:
        slot.is_refused = True
        slot.connection.push(AppendRefused(slot.number, codec.failure_of(error)))

    def on_mark(self, connection: Connection, slot: int, committed: int) -> None:
        """Let readers see more (R12)."""
        found = self.slots.get(slot)
        if found is not None and not found.is_refused and committed > found.held.committed:
            self.server.marked(found.stream, found.held, committed)

    def _open(self, connection: Connection, request: int, message: OpenSlot) -> None:
        server, stream = self.server, message.stream
        if message.slot not in self.slots and len(self.slots) >= SLOTS_PER_CONNECTION_MAX:
            raise OverloadedError("too many slots are open on this connection")
        if server.log.is_full and server.replica.find(stream, message.segment) is None:
            raise DiskFullError("this server's disk is nearly full: it opens no segments")
        held, is_new, is_raised = server.replica.open(
            stream,
            message.segment,
            message.leader,
            message.incarnation,
            message.first,
            message.chain,
            message.generation,
        )
        promise = Promise(message.segment.epoch, message.leader)
        records: list[ControlRecord] = [PromiseRecord(stream, promise)] if is_raised else []
        if is_new:
            records.append(
                OpenRecord(
                    stream,
                    held.id,
                    held.leader,
                    held.first,
                    held.start_chain,
                    held.generation,
                )
            )
        end, chain = held.end, held.chain
        state = server.replica.streams[stream]
        slot = Slot(message.slot, connection, stream, state, held, message.incarnation)
        self.slots[message.slot] = slot
        server.appenders.add(connection)
        server.leaders.came(stream, connection)

        def synced() -> None:
            server.replica.promise_synced(stream, promise)
            server.touched(stream, held.id)
            slot.acked = max(slot.acked, end)
            connection.reply(request, Opened(end, chain))

        # Everything below `end` was queued before this put: when it is synced, so is that (R16).
        server.log.put(list(records), synced)

    # ------------------------------------------------------------------ fences and checks

    def _fence(self, connection: Connection, request: int, message: Fence) -> None:
        server = self.server
        state, is_raised = server.replica.fence(
            message.stream, message.segment, message.first, message.promise, message.incarnation
        )
        records = [PromiseRecord(message.stream, message.promise)] if is_raised else []
        reply = Fenced(state.end, state.chain, state.committed, state.unknown, state.certificate)

        def synced() -> None:
            server.replica.promise_synced(message.stream, message.promise)
            server.touched(message.stream, message.segment)
            connection.reply(request, reply)

        server.log.put(list(records), synced)

    def _check(self, connection: Connection, request: int, message: Check) -> None:
        self.server.replica.check(
            message.stream, message.segment, message.promise, message.incarnation
        )
        connection.reply(request, Done())

    def _certify(self, connection: Connection, request: int, message: Certify) -> None:
        server = self.server

        def synced(is_complete: bool) -> None:
            connection.reply(request, Certified(is_complete))

        server.certify(message.certificate, message.sources, synced)

    # ------------------------------------------------------------------ reads

    def _read(self, connection: Connection, request: int, message: Read) -> None:
        self.server.reads.serve(connection, request, message)

    def _ask_leader(self, connection: Connection, request: int, message: AskLeader) -> None:
        self.server.leaders.ask(connection, request, message)

    def _describe(self, connection: Connection, request: int, message: DescribeServer) -> None:
        connection.reply(request, self.server.report())

    def _ping(self, connection: Connection, request: int, message: Ping) -> None:
        connection.reply(request, Done())


class _Accepted:
    """Runs when a frame is durable."""

    __slots__ = ("_end", "_server", "_slot")

    def __init__(self, server: JournalServer, slot: Slot, end: Sequence) -> None:
        self._server = server
        self._slot = slot
        self._end = end

    def __call__(self) -> None:
        server, slot = self._server, self._slot
        if slot.held.synced(self._end):
            server.reads.moved(slot.held)
        server.acks.moved(slot)


class Acks:
    """Cumulative acks: one a slot and batch of the log, however many frames it made durable."""

    def __init__(self, call_soon: Callable[..., Any]) -> None:
        self._call_soon = call_soon
        self._due: list[Slot] = []

    def moved(self, slot: Slot) -> None:
        """A frame of `slot` is durable: `send` is called when all of its batch are."""
        if not slot.is_due:
            slot.is_due = True
            self._due.append(slot)

    def due(self, slot: Slot) -> None:
        """Tell `slot` again, at the end of this turn, what it should know."""
        self.moved(slot)
        self._call_soon(self.send)

    def send(self) -> None:
        """Tell each slot that is due how far it is durable, in one write a connection."""
        due, self._due = self._due, []
        for slot in due:
            slot.is_due = False
            slot.acked = slot.held.durable
        if len(due) == 1:  # the common case, without a flush at the turn's end
            (slot,) = due
            slot.connection.send_now(codec.ack(slot.number, slot.acked))
            return
        for slot in due:
            slot.connection.send(codec.ack(slot.number, slot.acked))
        for slot in due:
            slot.connection.flush()


class Leaders:
    """Which connection leads which stream, and the questions passed on to it (R14).

    An answer counts only on the connection that was asked, under a token that nobody can have known
    before: else bytes of a dead connection that arrive on a new one (N8) would answer with what was
    committed long ago.

    Args:
        first_token: Drawn by each process; answers to an earlier one mean nothing here.
    """

    def __init__(self, first_token: int) -> None:
        self._connections: dict[StreamId, Connection] = {}
        self._asked: dict[int, tuple[Connection, int, Connection]] = {}
        self._token = first_token

    def came(self, stream: StreamId, connection: Connection) -> None:
        """A connection opened a segment of `stream`."""
        self._connections[stream] = connection

    def gone(self, connection: Connection) -> None:
        """A connection is closed: it leads nothing, and who waits for its answer is told."""
        for stream in [s for s, leader in self._connections.items() if leader is connection]:
            del self._connections[stream]
        for token, (asker, request, leader) in list(self._asked.items()):
            if leader is connection:
                del self._asked[token]
                asker.fail(request, ServerUnavailableError("the leader went away: ask again"))
            elif asker is connection:
                del self._asked[token]

    def ask(self, connection: Connection, request: int, message: AskLeader) -> None:
        """Pass a question on, over the leader's own connection."""
        leader = self._connections.get(message.stream)
        if leader is None or leader.closed_by is not None:
            raise ServerUnavailableError("no leader is connected to this replica: ask another one")
        if len(self._asked) >= QUESTIONS_MAX:
            raise OverloadedError("too many questions wait for leaders: ask another replica")
        self._token += 1
        self._asked[self._token] = connection, request, leader
        leader.push(LeaderAsked(self._token, message.stream, message.segment))

    def answered(self, leader: Connection, message: LeaderAnswer) -> None:
        """Pass the answer back, if it is one of whom was asked."""
        found = self._asked.get(message.token)
        if found is None or found[2] is not leader:
            return
        del self._asked[message.token]
        connection, request, _ = found
        if message.failure is not None:
            connection.fail(request, codec.error_of(message.failure))
        else:
            connection.reply(request, ReadPoint(message.committed))
