"""Leases and sessions: until when a leader counts as there, by the master's own clock.

Soft state: nothing here is durable, and nothing here guards data; a lease only decides when to elect.
A master that starts gives everybody one full lease, and its own stalls extend all.

Source: design.md section 4; R15, trap 49.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lunalog.types import LeaderIncarnation, Peer

REMEMBERED_MAX: Final = 10_000
"""Ended incarnations that are remembered, so that one that was replaced cannot come back."""


class StallClock:
    """A clock that does not count the time in which its owner had no turn.

    `now` is called at least every `tick_s` while the owner runs; whatever more has passed was a stall.
    """

    def __init__(self, now: float, tick_s: float) -> None:
        self._tick_s = tick_s
        self._last = now
        self.stalled_s = 0.0

    def now(self, raw: float) -> float:
        """Return `raw` without the stalls so far."""
        gap = raw - self._last
        if gap > 2 * self._tick_s:
            self.stalled_s += gap - self._tick_s
        self._last = max(self._last, raw)
        return self._last - self.stalled_s


class Session:
    """One client incarnation, as its heartbeats show it."""

    __slots__ = ("closed_at", "is_beating", "is_judged", "number", "peer", "renewed_at")

    def __init__(self, peer: Peer, number: int) -> None:
        self.peer = peer
        self.number = number
        """Counts sessions in the order of their first hello."""
        self.renewed_at = 0.0
        self.is_beating = False
        """True once a beat came; one that never beat cannot be granted anything."""
        self.closed_at: float | None = None
        """When its heartbeat connection closed; none while it is open."""
        self.is_judged = False
        """True when it was found lapsed, until it beats again."""


class Leases:
    """All sessions, and which of them hold a lease.

    Times are those of one `StallClock`.
    """

    def __init__(self, now: float, lease_s: float, grace_s: float) -> None:
        self._lease_s = lease_s
        self._grace_s = grace_s
        self.trusted_from = now + lease_s
        """Before this, a leader that is not known here may still hold a lease (R15)."""
        self._opened = 0
        self._sessions: dict[LeaderIncarnation, Session] = {}
        self._by_name: dict[str, LeaderIncarnation] = {}
        self._ended: dict[LeaderIncarnation, bool] = {}
        """Incarnations that are over for good -> whether a newer one took the name."""

    def __len__(self) -> int:
        return len(self._sessions)

    def sessions(self) -> Iterable[Session]:
        """All that are not over, in order of arrival."""
        return self._sessions.values()

    def get(self, incarnation: LeaderIncarnation) -> Session | None:
        """Return the session of an incarnation that is not over."""
        return self._sessions.get(incarnation)

    def was_replaced(self, incarnation: LeaderIncarnation) -> bool:
        """True when a newer incarnation of the same name has come since."""
        return self._ended.get(incarnation, False)

    def open(self, peer: Peer) -> Session:
        """Find or make the session of a client that connects."""
        found = self._sessions.get(peer.incarnation)
        if found is None:
            self._ended.pop(peer.incarnation, None)
            self._opened += 1
            found = self._sessions[peer.incarnation] = Session(peer, self._opened)
        return found

    def claim(self, session: Session) -> Session | None:
        """Give a session its name when it beats; return the older one, which is over now.

        That may be `session` itself.  A hello or a beat of a dead incarnation may come long after
        its successor's (N3); but who beats was welcomed before, and so said hello before its
        successor was started.
        """
        name = session.peer.name
        other = self._sessions.get(self._by_name.get(name, b""), session)
        newer, older = (session, other) if session.number > other.number else (other, session)
        self._by_name[name] = newer.peer.incarnation
        if newer is older:
            return None
        self.end(older.peer.incarnation, was_replaced=True)
        return older

    def beat(self, session: Session, now: float) -> bool:
        """Renew; returns whether the session had no lease before.  A late renewal counts (R2)."""
        was_valid = self.is_valid(session, now)
        session.renewed_at = now
        session.is_beating = True
        session.closed_at = None
        session.is_judged = False
        return not was_valid

    def closed(self, session: Session, now: float) -> None:
        """Note that the heartbeat connection closed; the session is over after the grace."""
        session.closed_at = now

    def end(self, incarnation: LeaderIncarnation, *, was_replaced: bool = False) -> None:
        """End a session for good, at once."""
        session = self._sessions.pop(incarnation, None)
        if session is not None and self._by_name.get(session.peer.name) == incarnation:
            del self._by_name[session.peer.name]
        self._ended.pop(incarnation, None)
        self._ended[incarnation] = was_replaced
        if len(self._ended) > REMEMBERED_MAX:
            del self._ended[next(iter(self._ended))]

    def is_valid(self, session: Session, now: float) -> bool:
        """True while a session holds its lease; a closed one does until its grace is over."""
        if not session.is_beating or now - session.renewed_at >= self._lease_s:
            return False
        return session.closed_at is None or now - session.closed_at < self._grace_s

    def is_eligible(self, incarnation: LeaderIncarnation, now: float) -> bool:
        """True when a grant can go to this client: it beats, on an open connection."""
        session = self._sessions.get(incarnation)
        return session is not None and session.closed_at is None and self.is_valid(session, now)

    def is_void(self, incarnation: LeaderIncarnation, now: float) -> bool:
        """True when a leader's lease is over, so that another may be granted the stream (R1)."""
        session = self._sessions.get(incarnation)
        if session is None or not session.is_beating:
            return incarnation in self._ended or now >= self.trusted_from
        return not self.is_valid(session, now)

    def judge(self, now: float) -> list[Session]:
        """Return the sessions that lost their lease since the last time; closed ones are over."""
        found = []
        for session in list(self._sessions.values()):
            is_over = session.closed_at is not None and now - session.closed_at >= self._grace_s
            has_lapsed = session.is_beating and not self.is_valid(session, now)
            if is_over:
                self.end(session.peer.incarnation)
            if is_over or (has_lapsed and not session.is_judged):
                session.is_judged = True
                found.append(session)
        return found
