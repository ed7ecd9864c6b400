"""What the master orders of a server: certificates, trims, drops, deletions.

Each order decides at once and is confirmed when its record is synced, or, for a certificate, when the
replica is complete.  A crash before leaves the order undone and unconfirmed: the master sends it again.

Source: R21, R22, R30; design.md section 4.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from lunalog.errors import InvariantError, LunalogError
from lunalog.storage.records import (
    BaseRecord,
    ControlRecord,
    DropRecord,
    PromiseRecord,
    TombstoneRecord,
    TrimRecord,
)
from lunalog.types import SegmentId, StreamId
from lunalog.wire.messages import CertifyCommand, Command, DropSegment, DropStream, TrimCommand

if TYPE_CHECKING:
    from lunalog.server.process import JournalServer

logger = logging.getLogger("lunalog.server")


class Commands:
    """The master's orders to one server.

    Attributes:
        confirmed: Numbers of those that are done, until the master has heard of it.
    """

    def __init__(self, server: JournalServer) -> None:
        self._server = server
        self.confirmed: dict[int, None] = {}
        self._incomplete: dict[int, tuple[StreamId, SegmentId]] = {}
        """Certificates taken whose replica is not complete yet (R21)."""
        self._trimming: set[StreamId] = set()
        """Trims decided and not durable yet: the same order under another number must wait."""

    def carry_out(self, command: Command) -> None:
        """Begin with an order; one that comes again changes nothing."""
        try:
            match command:
                case CertifyCommand():
                    self._certify(command)
                case TrimCommand():
                    self._trim(command)
                case DropSegment():
                    self._drop(command)
                case DropStream():
                    self._delete(command)
        except InvariantError:
            raise
        except LunalogError as error:
            logger.warning("command_refused", extra={"id": command.id, "why": str(error)})

    def completed(self, stream: StreamId, segment: SegmentId) -> None:
        """A replica is complete: its certificate's order is done."""
        for number, key in list(self._incomplete.items()):
            if key == (stream, segment):
                del self._incomplete[number]
                self.confirmed[number] = None

    def _known(self, number: int) -> None:
        """Confirm an order that was carried out before, once that is durable."""
        self._server.log.put([], lambda: self.confirmed.setdefault(number))

    # ------------------------------------------------------------------ each order

    def _certify(self, command: CertifyCommand) -> None:
        certificate = command.certificate
        self._server.certify(certificate, command.sources)
        self._incomplete[command.id] = (certificate.stream, certificate.row.id)

    def _trim(self, command: TrimCommand) -> None:
        if command.stream in self._trimming:
            return
        self._trimming.add(command.stream)
        _ = self._server.tasks.start(self._forget_below(command), f"trim-{command.id}")

    async def _forget_below(self, command: TrimCommand) -> None:
        """Find the bases first: a checkpoint must not tell of a trim and not of the chain there."""
        server, stream, before = self._server, command.stream, command.before
        await server.log.flush()  # what is accepted by now can be read
        found = [(s, await server.reads.base_at(stream, s, before)) for s in self._held(stream)]
        segments = self._held(stream)
        if not server.replica.trim(stream, before, command.version):
            self._trimming.discard(stream)
            self._known(command.id)
            return
        records: list[ControlRecord] = [TrimRecord(stream, before, command.version)]
        for segment, base in found:
            if base is not None:
                server.replica.based(stream, segment, base)
                records.append(BaseRecord(stream, segment, *base))

        def synced() -> None:
            for segment in segments:
                server.touched(stream, segment)
                is_held = server.replica.find(stream, segment) is not None
                server.log.forget(stream, segment, before if is_held else None)
            self._trimming.discard(stream)
            self.confirmed[command.id] = None

        server.log.put([*records], synced)

    def _held(self, stream: StreamId) -> list[SegmentId]:
        state = self._server.replica.streams.get(stream)
        return list(state.segments) if state is not None else []

    def _drop(self, command: DropSegment) -> None:
        server, stream, segment = self._server, command.stream, command.segment
        held = server.replica.find(stream, segment)
        if not server.replica.drop(stream, segment, command.promise, command.version):
            self._known(command.id)
            return
        if held is not None:
            server.reads.wake(held)

        def synced() -> None:
            server.replica.promise_synced(stream, command.promise)
            server.log.forget(stream, segment)
            server.touched(stream, segment)
            self.confirmed[command.id] = None

        server.log.put(
            [
                PromiseRecord(stream, command.promise),
                DropRecord(stream, segment, command.promise, command.version),
            ],
            synced,
        )

    def _delete(self, command: DropStream) -> None:
        server, stream = self._server, command.stream
        state = server.replica.streams.get(stream)
        segments = list(state.segments.values()) if state is not None else []
        if not server.replica.delete(stream, command.promise):
            self._known(command.id)
            return
        for held in segments:
            server.reads.wake(held)

        def synced() -> None:
            server.replica.promise_synced(stream, command.promise)
            server.log.forget(stream)
            for held in segments:
                server.touched(stream, held.id)
            self.confirmed[command.id] = None

        server.log.put([TombstoneRecord(stream, command.promise)], synced)
