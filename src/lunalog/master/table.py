"""All streams that exist, in memory, and the indexes by which nothing ever scans them all.

Pure bookkeeping: `Metadata` fills it from the store and after each transaction.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from lunalog.types import (
    LeaderIncarnation,
    Member,
    Peer,
    Policy,
    SealedSegment,
    SegmentId,
    StreamHead,
    StreamId,
)

if TYPE_CHECKING:
    from lunalog.master.elections import Campaign
    from lunalog.master.publisher import Watchers

K = TypeVar("K")
T = TypeVar("T")


class Stream:
    """One stream: what is durable of it, and who follows it now."""

    __slots__ = (
        "campaign", "head", "lost", "open_leader", "proposed", "rows", "superseded", "version",
        "watchers",
    )  # fmt: skip

    def __init__(
        self, head: StreamHead, open_leader: str, version: int, rows: tuple[SealedSegment, ...]
    ) -> None:
        self.head = head
        self.open_leader = open_leader
        self.superseded: tuple[SegmentId, ...] = ()
        """See `HeadRecord`."""
        self.version = version
        """Of the head's key in the store."""
        self.rows = rows
        """In order of `first`."""
        self.lost = ""
        """Why it is read-only (R25); empty when it is not."""
        self.watchers: Watchers | None = None
        self.proposed: frozenset[str] = frozenset()
        """Servers that were named to the leader since the head named another open segment."""
        self.campaign: Campaign | None = None

    @property
    def id(self) -> StreamId:
        """The stream's id."""
        return self.head.stream

    def row(self, segment: SegmentId) -> SealedSegment | None:
        """Return the row of a segment."""
        for row in reversed(self.rows):
            if row.id == segment:
                return row
        return None

    def kept_rows(self) -> tuple[SealedSegment, ...]:
        """Rows that still hold events that are not truncated."""
        before = self.head.truncated_before
        rows = self.rows
        if not rows or rows[0].end > before:
            return rows
        return tuple(row for row in rows if row.end > before)

    def servers(self) -> set[str]:
        """Names of all servers that the open segment and the kept rows list, or a proposal does."""
        found = {m.server for row in self.kept_rows() for m in row.members}
        found.update(self.proposed)
        if self.head.open is not None:
            found.update(m.server for m in self.head.open.members)
        return found


class Table:
    """Streams by id and name, by leader, and by server."""

    def __init__(self) -> None:
        self._streams: dict[StreamId, Stream] = {}
        self._names: list[str] = []
        self._by_name: dict[str, StreamId] = {}
        self._led: dict[LeaderIncarnation, dict[StreamId, None]] = {}
        self._open_on: dict[str, dict[StreamId, None]] = {}
        self._sealed_on: Counter[str] = Counter()
        self._short: dict[StreamId, None] = {}
        self._shared: dict[Any, Any] = {}
        self.lost: dict[StreamId, str] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[Stream]:
        return iter(self._streams.values())

    def get(self, stream: StreamId) -> Stream | None:
        """Return a stream that exists."""
        return self._streams.get(stream)

    def named(self, name: str) -> Stream | None:
        """Return the stream of that name."""
        stream = self._by_name.get(name)
        return None if stream is None else self._streams[stream]

    def page(self, prefix: str, after: str, most: int) -> list[Stream]:
        """Return up to `most` streams whose names begin with `prefix`, in order, behind `after`."""
        at = bisect_left(self._names, max(prefix, after))
        found: list[Stream] = []
        for name in self._names[at : at + most + 1]:
            if name == after:
                continue
            if not name.startswith(prefix) or len(found) == most:
                break
            found.append(self._streams[self._by_name[name]])
        return found

    def led_by(self, incarnation: LeaderIncarnation) -> list[StreamId]:
        """Streams whose epoch this client holds, oldest grant first."""
        return list(self._led.get(incarnation, ()))

    def count_led(self, incarnation: LeaderIncarnation) -> int:
        """How many streams this client leads."""
        return len(self._led.get(incarnation, ()))

    def open_on(self, server: str) -> list[StreamId]:
        """Streams whose open segment is on this server."""
        return list(self._open_on.get(server, ()))

    def count_open_on(self, server: str) -> int:
        """How many open segments a server has."""
        return len(self._open_on.get(server, ()))

    def count_sealed_on(self, server: str) -> int:
        """How many rows list a server."""
        return self._sealed_on[server]

    def short(self) -> list[StreamId]:
        """Streams whose open segment has fewer members than their policy wants."""
        return list(self._short)

    # ------------------------------------------------------------------ changes

    def add(self, stream: Stream) -> None:
        """Take a stream in; it must not be there."""
        self._streams[stream.id] = stream
        name = stream.head.name
        if name not in self._by_name:
            insort(self._names, name)
        self._by_name[name] = stream.id
        self._index(stream)

    def remove(self, stream: Stream) -> None:
        """Forget a stream that was deleted; its name may be another's by now."""
        self._unindex(stream)
        del self._streams[stream.id]
        name = stream.head.name
        if self._by_name.get(name) == stream.id:
            del self._by_name[name]
            del self._names[bisect_left(self._names, name)]

    def update(
        self,
        stream: Stream,
        head: StreamHead,
        open_leader: str,
        version: int,
        rows: Iterable[SealedSegment],
    ) -> None:
        """Take in what a stream is now."""
        self._unindex(stream)
        if (head.epoch, head.open) != (stream.head.epoch, stream.head.open):
            stream.proposed = frozenset()
        stream.head, stream.open_leader, stream.version = head, open_leader, version
        stream.rows = tuple(rows)
        self._index(stream)

    def _index(self, stream: Stream) -> None:
        head = stream.head
        if head.leader is not None and not head.released:
            self._led.setdefault(head.leader.incarnation, {})[stream.id] = None
        if head.open is not None:
            for member in head.open.members:
                self._open_on.setdefault(member.server, {})[stream.id] = None
            if len(head.open.members) < head.policy.replicas:
                self._short[stream.id] = None
        for row in stream.rows:
            self._sealed_on.update(m.server for m in row.members)

    def _unindex(self, stream: Stream) -> None:
        head = stream.head
        if head.leader is not None and not head.released:
            _discard(self._led, head.leader.incarnation, stream.id)
        if head.open is not None:
            for member in head.open.members:
                _discard(self._open_on, member.server, stream.id)
        self._short.pop(stream.id, None)
        for row in stream.rows:
            self._sealed_on.subtract(m.server for m in row.members)

    # ------------------------------------------------------------------ memory

    def slim_head(self, head: StreamHead) -> StreamHead:
        """Return the head built of parts that other streams share."""
        opened = head.open
        if opened is not None:
            opened = msgspec.structs.replace(opened, members=self.slim_members(opened.members))
        policy: Policy = self._share(head.policy)
        leader: Peer | None = None if head.leader is None else self._share(head.leader)
        return msgspec.structs.replace(head, policy=policy, leader=leader, open=opened)

    def slim_row(self, row: SealedSegment) -> SealedSegment:
        """Return the row built of parts that other rows share."""
        return msgspec.structs.replace(
            row,
            members=self.slim_members(row.members),
            leader=self._share(row.leader),
            reason=self._share(row.reason),
        )

    def slim_members(self, members: tuple[Member, ...]) -> tuple[Member, ...]:
        """Return equal members, the same objects for all sets."""
        shared: tuple[Member, ...] = self._share(tuple(self._share(m) for m in members))
        return shared

    def _share(self, part: T) -> T:
        if len(self._shared) > 100_000:
            self._shared.clear()
        shared: T = self._shared.setdefault(part, part)
        return shared


def _discard(index: dict[K, dict[StreamId, None]], key: K, stream: StreamId) -> None:
    found = index.get(key)
    if found is not None:
        found.pop(stream, None)
        if not found:
            del index[key]
