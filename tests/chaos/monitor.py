"""The simulator's checkers, applied to a history that has no end: a window at a time.

What clients tell is kept until it is settled *and* two windows old; the log itself goes to disk.  A cut
hands the last two windows to the checkers, so that whatever lies across a border is seen as well, and
each fact twice.  What comes late (an acknowledgement that a stopped process tells after minutes) is
checked by itself, against the event that the log had at that place.

Nothing is dropped unchecked: an attempt is forgotten when it is settled (or its process has died) and
either its event lies behind the windows or its epoch does, after which it cannot come any more.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from chaos.events import EventFile
from chaos.workload import payload_of, squeezed
from lunalog.testing import checkers
from lunalog.testing.history import (
    Append,
    Delivery,
    Finding,
    HeadChange,
    History,
    LinearRead,
    ReaderSession,
    RowChange,
)
from lunalog.types import Peer, StreamDescription

Checker = Callable[[History], Finding]
WINDOWED: Final[dict[str, Checker]] = {
    "I1": checkers.prefix_agreement,
    "I2": checkers.no_acked_loss,
    "I3": checkers.at_most_once,
    "I6": checkers.fencing_holds,
    "I8": checkers.linearizable_reads,
    "I10": checkers.committed_is_monotone,
    "I16": checkers.density,
    "I17": checkers.session_order,
}
VIOLATIONS_MAX: Final = 20
STRAY_S: Final = 30.0
"""How long the log may show an event whose attempt nobody has told of yet."""
SLICE: Final = 2000


@dataclass(slots=True)
class Attempt:
    """One append, and where the log has it."""

    append: Append
    owner: str
    number: int
    place: Delivery | None = None


@dataclass(slots=True)
class Life:
    """One process of a client, from its first line to the end of its pipe."""

    name: str
    incarnation: bytes = b""
    is_over: bool = False
    attempts: dict[int, Attempt] = field(default_factory=dict)
    """Those that are not settled."""
    sessions: dict[int, ReaderSession] = field(default_factory=dict)

    @property
    def short(self) -> str:
        """What its payloads call it."""
        return self.incarnation.hex()[:12]


class Monitor:
    """Takes lines of clients, events of the reference reader and samples of the metadata.

    Attributes:
        violations: What is wrong, the first of it.
        counts: What was seen: attempts, acks, unknown, refused, delivered, points, heads.
        checked: Facts looked at, by invariant.
        leader, epoch: Who led last, as far as clients have told; empty once it has left.
        left: The last epoch that each client has told the end of.
    """

    def __init__(self, log: EventFile) -> None:
        self.log = log
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self.checked: Counter[str] = Counter()
        self.leader = ""
        self.epoch = 0
        self.left: Counter[str] = Counter()
        self._attempts: dict[bytes, Attempt] = {}
        self._recent: list[Delivery] = []
        self._borders = deque([log.start, log.start], maxlen=2)
        """Where the window before the last one began, and where the last one did."""
        self._points: list[LinearRead] = []
        self._old_point: LinearRead | None = None
        self._champion: Append | None = None
        self._late: list[Attempt] = []
        self._sessions: dict[str, ReaderSession] = {}
        self._heads: deque[HeadChange] = deque(maxlen=600)
        self._rows: list[RowChange] = []
        self._owners: dict[int, Peer] = {}
        self._stray_since: dict[bytes, float] = {}

    def violate(self, what: str) -> None:
        """Note what may not be."""
        if len(self.violations) < VIOLATIONS_MAX and what not in self.violations:
            self.violations.append(what)

    @property
    def epochs(self) -> int:
        """How many epochs a client has led in."""
        return self.counts["lead"]

    @property
    def held(self) -> int:
        """How much is in memory: attempts, events, read points."""
        sessions = sum(len(s.deliveries) for s in self._sessions.values())
        return len(self._attempts) + len(self._recent) + len(self._points) + sessions

    # ------------------------------------------------------------------ what clients tell

    def line(self, life: Life, raw: bytes) -> None:
        """Take one line of one process."""
        try:
            kind, *rest = msgspec.json.decode(raw)
        except msgspec.DecodeError:
            return  # it died in the middle of a line, before it did what that said
        getattr(self, f"_on_{kind}")(life, *rest)

    def over(self, life: Life) -> None:
        """The process has ended, and all that it told was taken."""
        life.is_over = True
        for attempt in life.attempts.values():
            self.counts["pending for ever"] += 1
            attempt.append.outcome = "unknown"
        life.attempts.clear()
        if self.leader == life.name:
            self.leader = ""

    def _on_start(self, life: Life, incarnation: str, _: float) -> None:
        life.incarnation = bytes.fromhex(incarnation)
        self.counts["started"] += 1

    def _on_lead(self, life: Life, epoch: int, _: float) -> None:
        self.counts["lead"] += 1
        if epoch >= self.epoch:
            self.leader, self.epoch = life.name, epoch
        self._own(epoch, Peer(life.name, life.incarnation))

    def _on_left(self, life: Life, epoch: int, _: float) -> None:
        self.left[life.name] = epoch
        if epoch == self.epoch:
            self.leader = ""

    def _on_try(self, life: Life, at: float, epoch: int, first: int, paddings: list[int]) -> None:
        for number, padding in enumerate(paddings, first):
            payload = squeezed(payload_of(life.name, life.short, number, padding))
            append = Append(payload, life.name, life.incarnation, epoch, at)
            attempt = life.attempts[number] = Attempt(append, life.name, number)
            self._attempts[payload] = attempt
        self.counts["attempts"] += len(paddings)

    def _on_ack(self, life: Life, at: float, pairs: list[tuple[int, int]]) -> None:
        for number, sequence in pairs:
            attempt = self._settle(life, number, "acked", at)
            attempt.append.sequence = sequence
            if sequence < self._borders[0]:
                self._late.append(attempt)

    def _on_unknown(self, life: Life, at: float, numbers: list[int]) -> None:
        for number in numbers:
            self._settle(life, number, "unknown", at)

    def _on_refused(self, life: Life, at: float, numbers: list[int]) -> None:
        for number in numbers:
            self._settle(life, number, "refused", at)

    def _settle(self, life: Life, number: int, outcome: str, at: float) -> Attempt:
        attempt = life.attempts.pop(number)  # a second outcome is a KeyError: one event, one fate
        attempt.append.outcome, attempt.append.done = outcome, at
        self.counts[outcome] += 1
        return attempt

    def _on_point(self, life: Life, asked: float, answered: float, committed: int) -> None:
        self.counts["points"] += 1
        self._points.append(LinearRead(f"{life.name}/{life.short}", asked, answered, committed))

    def _on_open(self, life: Life, session: int, start: int) -> None:
        found = ReaderSession(f"{life.name}/{life.short}/{session}", start)
        life.sessions = {session: found}  # one at a time

    def _on_got(self, life: Life, session: int, events: list[tuple[int, int, str]]) -> None:
        found = life.sessions[session]
        found.deliveries += [Delivery(s, e, payload.encode()) for s, e, payload in events]
        self._sessions[found.name] = found
        self.counts["delivered"] += len(events)

    def _on_broken(self, life: Life, what: str) -> None:
        self.violate(f"{life.name} broke: {what}")

    # ------------------------------------------------------------------ the log and the metadata

    def events(self, events: list[Delivery]) -> None:
        """Take what the reference reader got next."""
        for event in events:
            if event.sequence != self.log.end:
                self.violate(f"I16: the log goes on with {event}, {self.log.end} was due")
                return
            self.log.append([event])
            self._recent.append(event)
            attempt = self._attempts.get(event.payload)
            if attempt is not None:
                attempt.place = attempt.place or event

    def described(self, at: float, description: StreamDescription) -> None:
        """Take a sample of the stream's metadata, complete when it was answered at `at`."""
        head = description.head
        self.counts["heads"] += 1
        self._heads.append(HeadChange(at, head))
        rows = [RowChange(at, head.stream, row) for row in description.rows]
        if head.leader is not None:
            self._own(head.epoch, head.leader)
        self._check("I5", checkers.metadata_is_monotone, History(heads=list(self._heads)[-2:]))
        # The head is sampled, so most openings go unseen: rows are checked by a head without one.
        kept = [r for r in self._rows if r.row.end > head.truncated_before]
        closed = HeadChange(at, msgspec.structs.replace(head, open=None))
        joined = History(heads=[closed], rows=kept + rows)
        self._check("I5", checkers.metadata_is_monotone, joined)
        opened = {c.head.open.id: c.head.open.first for c in self._heads if c.head.open}
        for change in rows:
            first = opened.get(change.row.id, change.row.first)
            if first != change.row.first:
                self.violate(f"I5: {change.row} was opened at {first}")
        self._rows = rows

    def _own(self, epoch: int, peer: Peer) -> None:
        """I4: an epoch is one incarnation's, whoever tells so."""
        held = self._owners.setdefault(epoch, peer)
        self.checked["I4"] += 1
        if held.incarnation != peer.incarnation:
            self.violate(f"I4: epoch {epoch} is {held}'s and {peer}'s")

    # ------------------------------------------------------------------ the windows

    def cut(self, *, is_last: bool = False) -> None:
        """Check the last two windows, and forget what is older."""
        border, end = self._borders[0], self._end(is_last)
        log = [event for event in self._recent if border <= event.sequence < end]
        history = History(log=log, log_start=border)
        history.appends = [a.append for a in self._attempts.values() if self._is_due(a, end)]
        self._check("I4", self._one_owner, history)
        if self._champion is not None:
            history.appends.insert(0, self._champion)
        points = [p for p in self._points if p.committed <= end]
        history.linear_reads = [self._old_point, *points] if self._old_point else points
        history.heads = list(self._heads)
        for name, checker in WINDOWED.items():
            self._check(name, checker, history)
        self._check_late()
        self._check_sessions(end)
        self._forget(end)

    def _end(self, is_last: bool) -> int:
        """Up to where the log is explained; an event that nobody told of stays in the way a while."""
        end, now = self.log.end, time.monotonic()
        strays = {
            e.payload: e.sequence
            for e in self._recent
            if e.sequence >= self._borders[1] and e.payload not in self._attempts
        }
        since = self._stray_since
        self._stray_since = {payload: since.get(payload, now) for payload in strays}
        for payload, sequence in strays.items():
            if not is_last and now - self._stray_since[payload] < STRAY_S:
                end = min(end, sequence)
        return end

    def _is_due(self, attempt: Attempt, end: int) -> bool:
        append = attempt.append
        if append.outcome == "acked":
            return append.sequence is None or self._borders[0] <= append.sequence < end
        return attempt.place is None or attempt.place.sequence < end

    def _one_owner(self, history: History) -> Finding:
        """I4 for acks: by who owned each epoch, as heads that say so."""
        head = self._heads[-1].head if self._heads else None
        if head is None:
            return Finding()
        acked = {append.epoch for append in history.acked}
        owned = [
            HeadChange(0.0, msgspec.structs.replace(head, epoch=epoch, leader=peer))
            for epoch, peer in self._owners.items()
            if epoch in acked
        ]
        return checkers.one_leader_per_epoch(History(heads=owned, appends=history.appends))

    def _check(self, name: str, checker: Checker, history: History) -> None:
        finding = checker(history)
        self.checked[name] += finding.checked
        for violation in finding.violations[:5]:
            self.violate(violation)

    def _check_late(self) -> None:
        for attempt in self._late:
            self.counts["late acks"] += 1
            log = [attempt.place] if attempt.place else []
            history = History(log=log, log_start=0, appends=[attempt.append])
            self._check("I2", checkers.no_acked_loss, history)
            if self._champion is not None:
                both = sorted([self._champion, attempt.append], key=lambda append: append.invoked)
                self._check("I17", checkers.session_order, History(appends=both))
        self._late.clear()

    def _check_sessions(self, end: int) -> None:
        """Compare what readers got with the log on disk, as far as that is explained."""
        for session in self._sessions.values():
            while session.deliveries and session.deliveries[0].sequence < end:
                part = [e for e in session.deliveries[:SLICE] if e.sequence < end]
                log = self.log.read(session.start, part[-1].sequence + 1)
                seen = ReaderSession(session.name, session.start, part)
                history = History(log=log, log_start=session.start, readers=[seen])
                self._check("I1", checkers.prefix_agreement, history)
                self._check("I16", checkers.density, history)
                session.start = part[-1].sequence + 1
                del session.deliveries[: len(part)]
        self._sessions = {name: s for name, s in self._sessions.items() if s.deliveries}

    def _forget(self, end: int) -> None:
        old, self._borders = self._borders[1], deque([self._borders[1], end], maxlen=2)
        self._recent = [event for event in self._recent if event.sequence >= old]
        past = self._recent[0].epoch if self._recent else 0
        for payload, attempt in list(self._attempts.items()):
            append = attempt.append
            if append.outcome == "pending":
                continue
            if append.outcome == "acked":
                is_old = (append.sequence or 0) < old
            elif attempt.place is not None:
                is_old = attempt.place.sequence < old
            else:
                is_old = append.epoch < past
            if is_old:
                del self._attempts[payload]
                best = self._champion
                if append.outcome == "acked" and (
                    best is None or (append.sequence or 0) > (best.sequence or 0)
                ):
                    self._champion = append
        keeps = max(0, len(self._points) - 2000)
        if keeps:
            dropped = self._points[:keeps]
            done = [p for p in dropped if p.committed <= end]
            self._points = [p for p in dropped if p.committed > end] + self._points[keeps:]
            candidates = [*done, *([self._old_point] if self._old_point else [])]
            self._old_point = max(candidates, key=lambda p: p.committed, default=None)

    # ------------------------------------------------------------------ the end

    def read_back(self, events: list[Delivery]) -> None:
        """Compare a part of the whole log, read again once all is healed, with what it was."""
        first = events[0].sequence
        history = History(log=self.log.read(first, events[-1].sequence + 1), log_start=first)
        history.readers = [ReaderSession("the reading back", first, events)]
        self.counts["read back"] += len(events)
        self._check("I1", checkers.prefix_agreement, history)
        self._check("I16", checkers.density, history)
