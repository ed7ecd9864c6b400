"""What this client knows of one stream: merged from replies and pushes, never going back.

The head moves by (generation, version), each row by its own version, so that a late or repeated
message changes nothing.  Source: design.md section 4; R12, R13, R30; trap 27.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from lunalog.errors import LunalogError
from lunalog.types import SealedSegment, SegmentId, StreamHead, StreamId, StreamView
from lunalog.wire.messages import ResignWanted, RollWanted


class LeaderPushes(Protocol):
    """What the master asks of the leader of a stream."""

    def on_resign_wanted(self, message: ResignWanted) -> None:
        """Close and release: somebody else shall lead."""
        ...

    def on_roll_wanted(self, message: RollWanted) -> None:
        """Open a new segment when that is possible."""
        ...


class StreamWatch:
    """The merged view of one stream, and who wants to hear of its changes."""

    def __init__(self, view: StreamView, told: Callable[[StreamWatch], None] | None = None) -> None:
        self.stream: StreamId = view.head.stream
        self.name = view.head.name
        self.view = view
        self.revision = 1
        """Grows with every change of `view` or `gone`."""
        self.gone: LunalogError | None = None
        """Why there is nothing more to hear: the stream was deleted, or the journal ended."""
        self.leader: LeaderPushes | None = None
        """Gets what the master asks of the leader; set and cleared by the leadership."""
        self.candidates = 0
        self.users = 0
        self._told = told
        self._listeners: dict[int, Callable[[], None]] = {}
        self._next_listener = 0

    def __repr__(self) -> str:
        head = self.view.head
        return f"<StreamWatch {head.name} epoch {head.epoch}, version {head.version}>"

    @property
    def head(self) -> StreamHead:
        """The newest head that was seen."""
        return self.view.head

    @property
    def is_candidate(self) -> bool:
        """True while somebody here wants to lead."""
        return self.candidates > 0

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener()` after every change; returns what ends that."""
        number = self._next_listener
        self._next_listener += 1
        self._listeners[number] = listener
        return lambda: self._listeners.pop(number, None) and None

    async def changed(self, after: int) -> int:
        """Wait until `revision` is past `after` (or the watch is gone) and return it."""
        while self.revision <= after and self.gone is None:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            unsubscribe = self.subscribe(lambda waiter=waiter: _wake(waiter))  # type: ignore[misc]
            try:
                await waiter
            finally:
                unsubscribe()
        return self.revision

    def merge(self, view: StreamView) -> bool:
        """Take in what a reply or push says; true when something moved."""
        merged = merge(self.view, view)
        if merged == self.view:
            return False
        self.view = merged
        self._moved()
        return True

    def note_head(self, head: StreamHead) -> bool:
        """Take in a head alone, as a leader's own transactions return it."""
        return self.merge(StreamView(head, (), ()))

    def end(self, error: LunalogError) -> None:
        """Nothing more will come: `error` says why."""
        if self.gone is None:
            self.gone = error
            self._moved()

    def stand(self, *, is_candidate: bool) -> None:
        """Count one who wants to lead, or one who does so no more; the master is told."""
        before = self.is_candidate
        self.candidates = max(0, self.candidates + (1 if is_candidate else -1))
        if before != self.is_candidate and self._told is not None:
            self._told(self)

    def withdraw(self) -> None:
        """Nobody here wants to lead any more."""
        if self.is_candidate:
            self.candidates = 1
            self.stand(is_candidate=False)

    def release(self) -> None:
        """Count one user less; after the last one the master sends no more of this stream."""
        self.users -= 1
        if self.users == 0 and self._told is not None:
            self._told(self)

    def push(self, message: ResignWanted | RollWanted) -> None:
        """Hand the master's wish to the leadership, if there is one."""
        if self.leader is None:
            return
        if isinstance(message, ResignWanted):
            self.leader.on_resign_wanted(message)
        else:
            self.leader.on_roll_wanted(message)

    def _moved(self) -> None:
        self.revision += 1
        for listener in list(self._listeners.values()):
            listener()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def merge(ours: StreamView, theirs: StreamView) -> StreamView:
    """Join two views of one stream: each part as new as the newer of both, never older.

    Rows are only ever forgotten when the newest head has trimmed all of them; a view of a newer
    generation replaces the rows whole (M4).
    """
    old, new = ours.head, theirs.head
    if new.generation < old.generation:
        return ours
    head = new if (new.generation, new.version) > (old.generation, old.version) else old
    known = {} if new.generation > old.generation else {row.id: row for row in ours.rows}
    for row in theirs.rows:
        if _is_newer(row, known.get(row.id)):
            known[row.id] = row
    servers = {found.member.server: found for found in ours.servers}
    servers.update((found.member.server, found) for found in theirs.servers)
    rows = _kept(known, head)
    return StreamView(head, rows, tuple(servers[name] for name in sorted(servers)))


def _is_newer(row: SealedSegment, known: SealedSegment | None) -> bool:
    return known is None or row.version > known.version


def _kept(known: dict[SegmentId, SealedSegment], head: StreamHead) -> tuple[SealedSegment, ...]:
    rows = (row for row in known.values() if row.end > head.truncated_before)
    return tuple(sorted(rows, key=lambda row: row.first))
