"""One segment on the connections to its members: opened, sent to, lost and opened again.

Source: R3, R4, R11, R19, N4, N8.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from lunalog import limits
from lunalog.client.servers import ServerLinks
from lunalog.core.replication import Replica, SegmentReplication
from lunalog.errors import AvailabilityError, LunalogError, ServerUnavailableError
from lunalog.runtime import Tasks
from lunalog.types import Frame, Sequence
from lunalog.wire import codec
from lunalog.wire.connection import Connection
from lunalog.wire.messages import CloseSlot, Opened, OpenSlot

OPEN_TIMEOUT_S = 5.0
QUEUED_BYTES_MAX = 512 * limits.KIB
"""After so many bytes of frames `send` flushes, and does not wait for the turn's end."""
JOINED_BYTES_MAX = 16 * limits.KIB
"""A frame up to this size is copied behind its envelope: one buffer costs less than two."""
REFUSED_PAUSE_S = 0.2
"""Before a member that refused for a passing reason (disk full, overload) is asked again."""


class SlotEvents(Protocol):
    """Who is told what happens to the members of a segment."""

    def slot_opened(self, slot: MemberSlot, opened: Opened) -> None:
        """A member has the segment open, durably."""
        ...

    def slot_lost(self, slot: MemberSlot) -> None:
        """The connection to a member is gone."""
        ...

    def slot_refused(self, slot: MemberSlot, error: LunalogError) -> None:
        """A member will not take this segment, at least not now."""
        ...

    def slot_acked(self, slot: MemberSlot, end: Sequence) -> None:
        """A member holds everything below `end`."""
        ...

    def slot_paused(self, slot: MemberSlot) -> None:
        """The connection to a member has more to send than it likes."""
        ...

    def slot_drained(self, slot: MemberSlot) -> None:
        """The connection to a member takes more again."""
        ...


class MemberSlot:
    """One member of one segment."""

    def __init__(self, slots: SegmentSlots, replica: Replica) -> None:
        self.slots = slots
        self.segment = slots.segment
        self.replica = replica
        self.connection: Connection | None = None
        """The one that the slot is open on."""
        self.lacks: Sequence | None = None
        """What its connection gets next, while it gets older frames than the new ones."""
        self.is_dropped = False
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<MemberSlot {self.segment.id} at {self.replica}>"

    def start(self) -> None:
        """Open the slot, and try until it is open, final, or dropped."""
        if self._task is None and not self.is_dropped:
            name = f"open-{self.segment.id}-{self.replica.member.server}"
            self._task = self.slots.tasks.start(self._open(), name)

    async def _open(self) -> None:
        links, name = self.slots.links, self.replica.member.server
        while not self.is_dropped and self.replica.failure is None:
            try:
                connection = await links.connection_to(name)
                opened = await self._ask(connection)
            except AvailabilityError as error:
                self.slots.events.slot_refused(self, error)
                await asyncio.sleep(max(links.pause_s(name), REFUSED_PAUSE_S / 10))
            except LunalogError as error:
                self.slots.events.slot_refused(self, error)
                if self.replica.failure is None:
                    await asyncio.sleep(REFUSED_PAUSE_S)
            else:
                self._task = None
                self.connection = connection
                self.slots.events.slot_opened(self, opened)
                return
        self._task = None

    async def _ask(self, connection: Connection) -> Opened:
        link = self.slots.links.link(self.replica.member.server)
        if link is None or link.connection is not connection:
            raise ServerUnavailableError("the connection is gone again")
        link.slots[self.slots.number] = self
        try:
            opened: Opened = await connection.request(
                self.slots.open_message(self.replica), timeout=OPEN_TIMEOUT_S
            )
        except BaseException:
            if link.slots.get(self.slots.number) is self:
                del link.slots[self.slots.number]
            raise
        if link.slots.get(self.slots.number) is not self:
            raise ServerUnavailableError("the slot was lost while it was opened")
        return opened

    def on_ack(self, end: Sequence) -> None:
        """The member holds everything below `end`."""
        if self.connection is not None:
            self.slots.events.slot_acked(self, end)

    def on_paused(self) -> None:
        """The connection has more to send than it likes."""
        if self.connection is not None:
            self.slots.events.slot_paused(self)

    def on_drained(self) -> None:
        """The connection takes more again."""
        if self.connection is not None:
            self.slots.events.slot_drained(self)

    def on_refused(self, error: LunalogError) -> None:
        """The member takes no more frames before the slot is opened again."""
        self._close()
        self.slots.events.slot_refused(self, error)
        if self.replica.failure is None:
            self.start()

    def on_lost(self, error: LunalogError) -> None:
        """The connection is gone: open the slot on the next one."""
        self._close()
        self.slots.events.slot_lost(self)
        self.start()

    def _close(self) -> None:
        connection, self.connection = self.connection, None
        self.lacks = None
        if connection is not None and connection in self.slots.connections:
            self.slots.connections.remove(connection)

    def drop(self) -> None:
        """This segment is of no more interest."""
        self.is_dropped = True
        if self._task is not None:
            self._task.cancel()
            self._task = None
        link = self.slots.links.link(self.replica.member.server)
        if link is not None and link.slots.get(self.slots.number) is self:
            del link.slots[self.slots.number]
            if link.connection is not None:
                link.connection.push(CloseSlot(self.slots.number))
        self._close()


class SegmentSlots:
    """All members of one segment."""

    def __init__(
        self,
        links: ServerLinks,
        tasks: Tasks,
        events: SlotEvents,
        segment: SegmentReplication,
        message: OpenSlot,
    ) -> None:
        self.links = links
        self.tasks = tasks
        self.events = events
        self.segment = segment
        self.number = message.slot
        """The same on every connection, so that a frame's envelope is made once."""
        self.connections: list[Connection] = []
        """Those that every new frame goes to."""
        self.told = segment.first
        """The committed sequence that went out last."""
        self._message = message
        self.members = [MemberSlot(self, replica) for replica in segment.replicas]

    def start(self) -> None:
        """Open the segment on every member."""
        for member in self.members:
            member.start()

    def send(self, frame: Frame, mark: Sequence, *, at_once: bool) -> bool:
        """Send a new frame, and `mark` as committed, to those that get new ones; true if any does.

        It leaves at the turn's end, or now if it must go `at_once` or much is queued: servers work
        while the next frames are made.
        """
        if not self.connections:
            return False
        self.told = mark
        size = len(frame)
        head = codec.append_head(self.number, mark, size)
        if at_once and size <= JOINED_BYTES_MAX:
            message = head + frame
            for connection in tuple(self.connections):  # one that has enough now is taken out
                connection.send_now(message)
            return True
        for connection in self.connections:
            connection.send(head, frame)
        self.links.queued_bytes += size
        if at_once or self.links.queued_bytes >= QUEUED_BYTES_MAX:
            self.links.queued_bytes = 0
            for connection in tuple(self.connections):
                connection.flush()
        return True

    def open_message(self, replica: Replica) -> OpenSlot:
        """What to ask one member."""
        found = self._message
        return OpenSlot(
            found.slot,
            found.stream,
            found.segment,
            found.leader,
            replica.member.incarnation,
            found.first,
            found.chain,
            found.generation,
        )

    def slot_of(self, replica: Replica) -> MemberSlot:
        """The slot of one member."""
        return next(member for member in self.members if member.replica is replica)

    def drop(self) -> None:
        """Close every slot."""
        for member in self.members:
            member.drop()
