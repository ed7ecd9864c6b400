"""Clients' sessions: heartbeat connections, and the main connections beside them.

Source: design.md section 4 "Sessions"; R2, R15.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lunalog.errors import ClosedError, NotActiveError
from lunalog.types import LeaderIncarnation, Peer
from lunalog.wire.connection import Connection
from lunalog.wire.messages import ClientBeat, ClientBeatReply, Done

if TYPE_CHECKING:
    from lunalog.master.service import Master

BEAT = "beat"


class Sessions:
    """Which connections belong to which client, and the leases they keep up."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._leases = master.leases
        self._mains: dict[LeaderIncarnation, dict[Connection, None]] = {}
        self._beats: dict[LeaderIncarnation, Connection] = {}

    def admit(self, peer: Peer) -> None:
        """Let a client in; raises `ClosedError` for one that was replaced."""
        if self._leases.was_replaced(peer.incarnation):
            raise _replaced(peer)
        self._leases.open(peer)

    def opened(self, connection: Connection, peer: Peer, purpose: str) -> None:
        """Note a connection whose handshake is over."""
        if purpose != BEAT:
            self._mains.setdefault(peer.incarnation, {})[connection] = None
            return
        before = self._beats.get(peer.incarnation)
        self._beats[peer.incarnation] = connection
        if before is not None:
            before.close(NotActiveError("this client beats on a newer connection"))

    def closed(self, connection: Connection, peer: Peer, purpose: str) -> None:
        """Note that a connection is gone; a session is over a grace after its heartbeat's is."""
        incarnation = peer.incarnation
        if purpose != BEAT:
            mains = self._mains.get(incarnation)
            if mains is not None:
                mains.pop(connection, None)
                if not mains:
                    del self._mains[incarnation]
        elif self._beats.get(incarnation) is connection:
            del self._beats[incarnation]
        session = self._leases.get(incarnation)
        if session is None or incarnation in self._beats:
            return
        if purpose == BEAT or (not session.is_beating and incarnation not in self._mains):
            self._leases.closed(session, self._master.now())
            asyncio.get_running_loop().call_later(
                self._master.config.session_grace_ms / 1000 + 0.001, self._master.judge_soon
            )

    def beat(self, connection: Connection, peer: Peer, beat: ClientBeat) -> ClientBeatReply:
        """Renew the one lease of a client; the first beat ends an older incarnation (R2)."""
        session = self._leases.get(peer.incarnation)
        if session is None or self._beats.get(peer.incarnation) is not connection:
            raise NotActiveError("this session is over: connect again")
        if (older := self._leases.claim(session)) is not None:
            self._end(older.peer, _replaced(older.peer))
            if older is session:
                raise _replaced(peer)
        has_begun = self._leases.beat(session, self._master.now())
        if beat.applied:
            self._master.elections.note_applied(peer.incarnation, beat.applied)
        if has_begun:
            self._master.elections.session_began(peer.incarnation)
        config = self._master.config
        return ClientBeatReply(config.lease_ms, config.heartbeat_ms)

    def end(self, peer: Peer) -> Done:
        """The client closes for good; nobody waits for its lease."""
        self._leases.end(peer.incarnation)
        self._master.elections.session_lapsed(peer.incarnation)
        return Done()

    def _end(self, peer: Peer, error: ClosedError) -> None:
        beat = self._beats.get(peer.incarnation)
        for connection in [*self._mains.get(peer.incarnation, ()), *([beat] if beat else [])]:
            connection.close(error)
        self._master.elections.session_lapsed(peer.incarnation)

    def judge(self, now: float) -> None:
        """Find the leases that are over."""
        for session in self._leases.judge(now):
            self._master.elections.session_lapsed(session.peer.incarnation)


def _replaced(peer: Peer) -> ClosedError:
    return ClosedError(
        f"peer {peer.name!r} has connected again as a newer incarnation, which ends this one; two "
        "programs that run at once need peer names of their own"
    )
