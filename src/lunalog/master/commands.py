"""Commands to servers, computed from heads, rows and what servers say they hold.

Nothing here is durable but tombstones: a new master finds every duty again from rows and from the
facts that servers register with.  A command repeats with each beat until it is confirmed; it carries
the version of what it was made from, so that a late one is refused (R30).

Source: design.md section 4; R10, R19, R21, R22, R25, R30.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterable
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from lunalog.core import streams
from lunalog.master.locks import StreamLocks
from lunalog.master.metadata import Metadata
from lunalog.master.publisher import Publisher
from lunalog.master.records import Tombstone
from lunalog.master.servers import Server, Servers
from lunalog.master.table import Stream
from lunalog.runtime import Runtime, Tasks
from lunalog.types import (
    Certificate,
    Member,
    OpenSegment,
    SealedSegment,
    SegmentId,
    Sequence,
    StreamId,
)
from lunalog.wire.messages import (
    CertifyCommand,
    Command,
    DropSegment,
    DropStream,
    SegmentFact,
    TrimCommand,
)

logger = logging.getLogger("lunalog.master")

COMMANDS_PER_BEAT: Final = 500
OVERDUE_S: Final = 10.0
"""A command that is not confirmed for so long is worth a warning."""
QUARANTINE_S: Final = 24 * 3600.0
"""A copy that nobody lists is kept this long, counted while this master runs (R10)."""

CERTIFY, TRIM, DROP, GARBAGE = "certify", "trim", "drop", "garbage"
NO_SEGMENT: Final = SegmentId(0, 0)


class Key(NamedTuple):
    """One duty of one server."""

    kind: str
    stream: StreamId
    segment: SegmentId = NO_SEGMENT


class _Sent(NamedTuple):
    key: Key
    version: int
    before: Sequence
    at: float
    """When it was sent first."""


class _Duties:
    """What one server has to do, and what was sent to it."""

    __slots__ = ("ids", "sent", "suspects", "todo", "trimmed")

    def __init__(self) -> None:
        self.todo: dict[Key, None] = {}
        """In the order in which they are sent; what was sent goes to the end."""
        self.ids: dict[Key, int] = {}
        self.sent: dict[int, _Sent] = {}
        self.suspects: dict[tuple[StreamId, SegmentId], tuple[float, int]] = {}
        """Copies that nobody lists -> since when, and the generation they were opened under (R10)."""
        self.trimmed: dict[StreamId, Sequence] = {}
        """What it has confirmed since it registered last: its disk may be another one by then."""

    def drop(self, key: Key) -> None:
        self.todo.pop(key, None)
        number = self.ids.pop(key, None)
        if number is not None:
            self.sent.pop(number, None)


class Commands:
    """Keeps the duties of every server."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        metadata: Metadata,
        servers: Servers,
        publisher: Publisher,
        locks: StreamLocks,
        tasks: Tasks,
        now: Callable[[], float],
    ) -> None:
        self._metadata = metadata
        self._table = metadata.table
        self._servers = servers
        self._publisher = publisher
        self._locks = locks
        self._tasks = tasks
        self._now = now
        self._duties: dict[str, _Duties] = {}
        self._next_id = int.from_bytes(runtime.random_bytes(4), "big") << 24
        """Ids of an earlier master mean nothing here."""
        self._trimmed: dict[StreamId, dict[str, Sequence]] = {}
        self.unknown_streams: dict[StreamId, str] = {}
        """Streams that a server holds and nobody knows -> that server; never dropped."""
        for stream in self._table:
            self._load(stream)
        for tombstone in metadata.tombstones.values():
            self._bury(tombstone.stream, tombstone.holders)

    def _load(self, stream: Stream) -> None:
        for row in stream.rows:
            self._add_row(stream, row)

    def _add_row(self, stream: Stream, row: SealedSegment, only: str | None = None) -> None:
        """Note what the members of a row, or `only` this one, must be told."""
        is_trimmed = row.end <= stream.head.truncated_before
        key = Key(TRIM, stream.id) if is_trimmed else Key(CERTIFY, stream.id, row.id)
        for member in row.members:
            if only in (None, member.server):
                self._of(member.server).todo[key] = None

    def _of(self, server: str) -> _Duties:
        found = self._duties.get(server)
        if found is None:
            found = self._duties[server] = _Duties()
        return found

    def _bury(self, stream: StreamId, holders: Iterable[str]) -> None:
        for server in holders:
            self._of(server).todo[Key(DROP, stream)] = None

    def count(self) -> int:
        """How many duties are not confirmed."""
        return sum(len(duties.todo) for duties in self._duties.values())

    def count_overdue(self) -> int:
        """How many of them were sent long ago."""
        since = self._now() - OVERDUE_S
        return sum(s.at < since for duties in self._duties.values() for s in duties.sent.values())

    def forget_server(self, name: str) -> None:
        """A server was retired: nothing is asked of it, and nobody waits for it."""
        self._duties.pop(name, None)
        for tombstone in list(self._metadata.tombstones.values()):
            if name in tombstone.holders:
                self._start(DROP, tombstone.stream, self._confirm_drop(tombstone.stream, name))
        for stream in self._table:
            if stream.rows and stream.rows[0].end <= stream.head.truncated_before:
                self._forget_trimmed(stream)

    # ------------------------------------------------------------------ occasions

    def head_changed(
        self, stream: Stream, old: OpenSegment | None, row: SealedSegment | None
    ) -> None:
        """A head was sealed or truncated: `old` was open before, `row` was added."""
        if row is not None:
            self._add_row(stream, row)
        before = stream.head.truncated_before
        for found in stream.rows:
            if found.end > before:
                break
            for member in found.members:
                self._of(member.server).drop(Key(CERTIFY, stream.id, found.id))
                self._of(member.server).todo[Key(TRIM, stream.id)] = None
        opened = stream.head.open
        if old is not None and row is None and (opened is None or opened.id != old.id):
            for member in old.members:  # an empty segment is gone without a row (R8)
                self._suspect(member.server, stream.id, old.id, stream.head.generation)

    def _suspect(self, server: str, stream: StreamId, segment: SegmentId, generation: int) -> None:
        suspects = self._of(server).suspects
        suspects.setdefault((stream, segment), (self._now(), generation))

    def holders(self, stream: Stream) -> list[str]:
        """Servers that may hold something of a stream, as far as anybody here knows."""
        found = {m.server for row in stream.rows for m in row.members}
        if stream.head.open is not None:
            found.update(m.server for m in stream.head.open.members)
        found.update(
            name
            for name, duties in self._duties.items()
            if any(suspect[0] == stream.id for suspect in duties.suspects)
        )
        return sorted(name for name in found if name in self._servers)

    def stream_gone(self, stream: Stream, holders: Iterable[str]) -> None:
        """A stream was deleted: everybody who held it drops it (R22)."""
        for duties in self._duties.values():
            for key in [key for key in duties.todo if key.stream == stream.id]:
                duties.drop(key)
        self._trimmed.pop(stream.id, None)
        self._bury(stream.id, holders)

    # ------------------------------------------------------------------ what servers say

    def registered(self, server: Server, facts: Iterable[SegmentFact]) -> None:
        """Take in all that a server holds; a new incarnation is asked for all rows that list it."""
        name = server.member.server
        duties = self._of(name)
        for told in (duties.ids, duties.sent, duties.trimmed):
            told.clear()
        if not server.has_adopted:  # what it had confirmed may be gone, and no fact tells of that
            for stream in self._table:
                for row in stream.rows:
                    self._add_row(stream, row, only=name)
        self.facts(server, facts)

    def facts(self, server: Server, facts: Iterable[SegmentFact]) -> None:
        """Take in what changed at a server."""
        for fact in facts:
            stream = self._table.get(fact.stream)
            if stream is None:
                self._start("buried", fact.stream, self._find_buried(server, fact))
            else:
                self._fact(server, stream, fact)

    def _fact(self, server: Server, stream: Stream, fact: SegmentFact) -> None:
        if _proof(stream, fact) and not stream.lost:
            self._start("lost", stream.id, self._check_lost(server.member.server, stream, fact))
            return
        duties = self._of(server.member.server)
        suspect = (stream.id, fact.segment)
        if fact.state == "dropped":
            duties.suspects.pop(suspect, None)
            duties.drop(Key(GARBAGE, stream.id, fact.segment))
            return
        row = stream.row(fact.segment)
        if row is not None:
            self._row_fact(server, stream, row, fact)
        elif stream.head.open is None or stream.head.open.id != fact.segment:
            self._suspect(server.member.server, stream.id, fact.segment, fact.generation)
            if fact.first < fact.end <= stream.head.truncated_before:
                duties.todo[Key(TRIM, stream.id)] = None

    def _row_fact(
        self, server: Server, stream: Stream, row: SealedSegment, fact: SegmentFact
    ) -> None:
        key = Key(CERTIFY, stream.id, row.id)
        duties = self._of(server.member.server)
        listed = next((m for m in row.members if m.server == server.member.server), None)
        if row.end <= stream.head.truncated_before:
            duties.drop(key)
            duties.todo[Key(TRIM, stream.id)] = None
        elif listed is None:
            self._suspect(server.member.server, stream.id, row.id, fact.generation)
        elif fact.state != "complete":
            duties.todo.setdefault(key)
        elif listed.incarnation == server.member.incarnation:
            duties.drop(key)
        elif server.has_adopted:
            duties.drop(key)
            self._start("relist", stream.id, self._relist(stream, row.id, server.member))
        else:  # listed when a beat confirms its certificate: it may come back without ever knowing it
            duties.todo.setdefault(key)

    def confirmed(self, server: Server, ids: Iterable[int]) -> None:
        """A server has carried these commands out durably."""
        name = server.member.server
        duties = self._of(name)
        for number in ids:
            sent = duties.sent.get(number)
            if sent is None:
                continue
            key = sent.key
            duties.drop(key)
            stream = self._table.get(key.stream)
            if key.kind == DROP:
                self._start(DROP, key.stream, self._confirm_drop(key.stream, name))
            elif key.kind == TRIM and stream is not None:
                trimmed = self._trimmed.setdefault(key.stream, {})
                trimmed[name] = max(sent.before, trimmed.get(name, 0))
                duties.trimmed[key.stream] = sent.before
                if stream.head.truncated_before > sent.before:
                    duties.todo[key] = None
                self._forget_trimmed(stream)
            elif key.kind == CERTIFY and stream is not None:
                row = stream.row(key.segment)
                if row is not None and server.member not in row.members:
                    self._start("relist", stream.id, self._relist(stream, row.id, server.member))
            elif key.kind == GARBAGE:
                duties.suspects.pop((key.stream, key.segment), None)

    # ------------------------------------------------------------------ what servers are told

    def due(self, server: Server) -> tuple[Command, ...]:
        """Commands for the reply to a beat: those that waited longest, up to a bound."""
        duties = self._of(server.member.server)
        self._condemn(duties)
        found: list[Command] = []
        for key in list(islice(duties.todo, COMMANDS_PER_BEAT)):
            del duties.todo[key]
            command = self._make(duties, key, server)
            if command is None:
                duties.drop(key)
                continue
            duties.todo[key] = None
            found.append(command)
        return tuple(found)

    def _condemn(self, duties: _Duties) -> None:
        """Turn suspects whose quarantine is over, and that are garbage, into duties (R10)."""
        now = self._now()
        for (stream_id, segment), (since, generation) in list(duties.suspects.items()):
            if now - since < QUARANTINE_S:
                break  # in order of time
            del duties.suspects[stream_id, segment]
            stream = self._table.get(stream_id)
            if stream is None or stream.lost:
                continue
            if streams.is_garbage(stream.head, stream.rows, segment=segment, generation=generation):
                duties.todo[Key(GARBAGE, stream_id, segment)] = None
            else:
                duties.suspects[stream_id, segment] = (now, generation)

    def _make(self, duties: _Duties, key: Key, server: Server) -> Command | None:
        """Return the command for a duty as things are now; none when it is no duty any more."""
        tombstone = self._metadata.tombstones.get(key.stream)
        if key.kind == DROP and tombstone is not None:
            return DropStream(self._number(duties, key, 0), key.stream, tombstone.promise)
        stream = self._table.get(key.stream)
        if stream is None or stream.lost:
            return None
        if key.kind == CERTIFY:
            return self._certify(duties, key, stream, server)
        head = stream.head
        if key.kind == TRIM:
            number = self._number(duties, key, head.version, head.truncated_before)
            return TrimCommand(number, stream.id, head.truncated_before, head.version)
        is_open = head.open is not None and head.open.id == key.segment
        if is_open or stream.row(key.segment) is not None:
            return None
        number = self._number(duties, key, head.version)
        return DropSegment(number, stream.id, key.segment, head.promise, head.version)

    def _certify(self, duties: _Duties, key: Key, stream: Stream, server: Server) -> Command | None:
        row = stream.row(key.segment)
        if row is None or server.member.server not in {m.server for m in row.members}:
            return None
        before = stream.head.truncated_before
        if row.first < before != duties.trimmed.get(stream.id):
            duties.todo[Key(TRIM, stream.id)] = None  # its peers have nothing below to give
        names = [m.server for m in row.members if m.server != server.member.server]
        certificate = Certificate(stream.id, row, stream.head.promise)
        number = self._number(duties, key, row.version)
        return CertifyCommand(number, certificate, self._servers.addresses(names))

    def _number(self, duties: _Duties, key: Key, version: int, before: Sequence = 0) -> int:
        """Return the id under which this duty, in this version, is sent."""
        number = duties.ids.get(key)
        if number is not None:
            sent = duties.sent[number]
            if (sent.version, sent.before) == (version, before):
                return number
            del duties.sent[number]
        self._next_id += 1
        duties.ids[key] = self._next_id
        duties.sent[self._next_id] = _Sent(key, version, before, self._now())
        return self._next_id

    # ------------------------------------------------------------------ changes of metadata

    def _start(self, kind: str, stream: StreamId, work: Coroutine[Any, Any, None]) -> None:
        """Run what changes the metadata beside the beat that gave rise to it."""
        self._next_id += 1
        _ = self._tasks.start(work, f"{kind}-{stream.hex()}-{self._next_id}")

    async def _find_buried(self, server: Server, fact: SegmentFact) -> None:
        """Find out whether a stream that is not there, but somewhere held, was deleted (R22)."""
        name = server.member.server
        async with self._locks.hold(fact.stream):
            if self._table.get(fact.stream) is not None:
                return
            tombstone = await self._metadata.find_tombstone(fact.stream)
            if tombstone is None:
                if fact.state != "dropped":
                    self.unknown_streams[fact.stream] = name
                return
            if fact.state == "dropped":
                return
            if name not in tombstone.holders:
                holders = (*tombstone.holders, name)
                await self._metadata.put_tombstone(
                    msgspec.structs.replace(tombstone, holders=holders)
                )
            self._bury(fact.stream, (name,))

    async def _confirm_drop(self, stream: StreamId, server: str) -> None:
        async with self._locks.hold(stream):
            tombstone = self._metadata.tombstones.get(stream)
            if tombstone is None or server not in tombstone.holders:
                return
            holders = tuple(name for name in tombstone.holders if name != server)
            await self._metadata.put_tombstone(
                Tombstone(tombstone.stream, tombstone.name, tombstone.promise, holders)
            )
            left = self._metadata.tombstones.get(stream)
            if left is not None and server in left.holders:
                self._bury(stream, (server,))

    def _forget_trimmed(self, stream: Stream) -> None:
        """Drop rows that every server that listed them has dropped."""
        before = stream.head.truncated_before
        if any(row.end <= before for row in stream.rows):
            self._start(TRIM, stream.id, self._forget_rows(stream))

    async def _forget_rows(self, stream: Stream) -> None:
        async with self._locks.hold(stream.id):
            if self._table.get(stream.id) is not stream or stream.lost:
                return
            trimmed = self._trimmed.get(stream.id, {})
            before = stream.head.truncated_before
            done = []
            for row in stream.rows:
                if row.end > before:
                    break
                left = [
                    m.server
                    for m in row.members
                    if m.server in self._servers and trimmed.get(m.server, 0) < row.end
                ]
                if left:
                    break
                done.append(row)
            if not done or not await self._metadata.forget_rows(stream, done):
                return
            if all(row.end > before for row in stream.rows):
                self._trimmed.pop(stream.id, None)

    async def _relist(self, stream: Stream, segment: SegmentId, member: Member) -> None:
        """List a server that was wiped, and is complete again, under its new incarnation (R19)."""
        async with self._locks.hold(stream.id):
            row = stream.row(segment)
            if self._table.get(stream.id) is not stream or row is None or stream.lost:
                return
            members = tuple(member if m.server == member.server else m for m in row.members)
            if members == row.members:
                return
            newer = msgspec.structs.replace(row, members=members, version=row.version + 1)
            if await self._metadata.change_row(stream, newer):
                self._publisher.changed(stream, (newer,))

    async def _check_lost(self, server: str, stream: Stream, fact: SegmentFact) -> None:
        """Read the head again and, if the fact still proves it, make the stream read-only (R25)."""
        async with self._locks.hold(stream.id):
            if self._table.get(stream.id) is not stream or stream.lost:
                return
            await self._metadata.reload(stream)
            if self._table.get(stream.id) is not stream:
                return
            proof = _proof(stream, fact)
            if not proof:
                return
            reason = f"server {server}: {proof}"
            logger.error("metadata_lost", extra={"stream": stream.head.name, "reason": reason})
            await self._metadata.mark_lost(stream, reason)


def _proof(stream: Stream, fact: SegmentFact) -> str:
    return streams.proof_of_loss(
        stream.head,
        stream.rows,
        segment=fact.segment,
        generation=fact.generation,
        first=fact.first,
        committed=fact.committed,
        has_certificate=fact.state in ("sealed", "complete"),
        promise_epoch=fact.promise_epoch,
        superseded=stream.superseded,
    )
