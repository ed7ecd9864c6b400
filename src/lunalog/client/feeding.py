"""Frames to replicas that lack some, as fast as their connections take them.

A replica is fed when its segment was opened behind the tail, and when its connection had more to send
than it likes (`pause_writing`).  What it lacks stays in the outbox meanwhile, so that no more than a
few MiB wait in a connection, whoever is slow: a roll, a check or another stream does not wait behind
everything that was in flight (N3, trap 50).

Source: design.md section 5; R11, R12, R27, N3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lunalog import limits
from lunalog.client.slots import MemberSlot
from lunalog.core.leadership import LeaderMachine
from lunalog.types import Sequence
from lunalog.wire import codec

PORTION_BYTES = limits.MIB
"""To one connection in one turn of the loop, whoever shares it."""


class Feeding:
    """The replicas of one epoch that are behind what was appended.

    Args:
        handed: Called with the end of what was handed to a connection.
        overtaken: Called with a slot whose next frame the outbox has let go.
        fail: Called with what may not happen, which would be lost in a callback (R27).
    """

    def __init__(
        self,
        machine: LeaderMachine,
        handed: Callable[[Sequence], None],
        overtaken: Callable[[MemberSlot], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._machine = machine
        self._handed = handed
        self._overtaken = overtaken
        self._fail = fail
        self._loop = asyncio.get_running_loop()

    def begin(self, slot: MemberSlot, start: Sequence) -> None:
        """Send what follows from `start` on, and then every new frame."""
        slot.lacks = start
        self._go_on(slot)

    def paused(self, slot: MemberSlot) -> None:
        """Its connection has enough: from here on the outbox keeps what is not sent."""
        connection = slot.connection
        if connection is not None and connection in slot.slots.connections:
            slot.slots.connections.remove(connection)
            slot.lacks = self._machine.sent(slot.segment)

    def drained(self, slot: MemberSlot) -> None:
        """Its connection takes more."""
        self._go_on(slot)

    def _go_on(self, slot: MemberSlot) -> None:
        try:
            self._send_portion(slot)
        except Exception as error:  # noqa: BLE001  it must not leave a replica unfed without a word
            self._fail(error)

    def _send_portion(self, slot: MemberSlot) -> None:
        """Send the next portion; the one after it in the next turn, or when there is room again."""
        connection, start, machine = slot.connection, slot.lacks, self._machine
        if connection is None or start is None or connection.is_paused:
            return
        if start < machine.outbox.start:
            slot.lacks = None
            self._overtaken(slot)
            return
        if connection.fed_bytes >= PORTION_BYTES:
            self._loop.call_soon(self._go_on, slot)  # behind the write that tells if it takes more
            return
        number, segment = slot.slots.number, slot.segment
        mark, end = machine.mark(segment), machine.sent(segment)
        for kept in machine.outbox.between(start, end, PORTION_BYTES):
            connection.send(codec.append_head(number, mark, len(kept.frame)), kept.frame)
            connection.fed_bytes += len(kept.frame)
            slot.lacks = start = kept.end
            self._handed(start)
        if start < end:
            self._loop.call_soon(self._go_on, slot)
            return
        slot.lacks = None
        if mark > segment.first:
            connection.send(codec.mark(number, mark))
        slot.slots.connections.append(connection)
