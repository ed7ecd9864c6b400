"""Elections: who stands for which stream, and the grant of the next epoch.

All of it is soft but the grant itself, which is committed in the head before anybody is told (R1).  A
crash before the commit leaves the old head; after it, the next master finds the leader in the head,
gives it a full lease, and tells it by the view that its watch is answered with.

Source: design.md section 4 "Election"; R1, R2, R15, N2.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from lunalog.core import streams
from lunalog.core.election import Candidate, choose
from lunalog.core.lease import Leases
from lunalog.errors import DeadlineExceededError, StreamNotFoundError, UsageError
from lunalog.master.locks import StreamLocks
from lunalog.master.metadata import Metadata
from lunalog.master.publisher import Publisher
from lunalog.master.table import Stream
from lunalog.runtime import Tasks
from lunalog.types import LeaderIncarnation, Peer, Sequence, StreamId
from lunalog.wire.connection import Connection
from lunalog.wire.messages import Message, ResignWanted

logger = logging.getLogger("lunalog.master")

RESIGNED_S: Final = 0.25
"""Who has just resigned and is alone gets the stream back after this: it may be about to leave."""
APPLIED_MAX: Final = 100_000
"""Streams of which one client's replay position is remembered."""


class Campaign:
    """Who would lead one stream, and what was asked about its next leader."""

    __slots__ = ("asked", "candidates", "gave_up", "is_electing", "resigned", "target", "waiters")

    def __init__(self) -> None:
        self.candidates: dict[LeaderIncarnation, tuple[Peer, int, Connection]] = {}
        self.gave_up: dict[LeaderIncarnation, int] = {}
        self.is_electing = False
        self.resigned: tuple[LeaderIncarnation, float] | None = None
        """Who released the epoch last, and when."""
        self.target: str | None = None
        """Who shall lead next, empty for anybody else; None: no transfer is under way."""
        self.asked = 0
        """The epoch whose leader is to go for that: whoever came since has won by the rules."""
        self.waiters: list[asyncio.Future[None]] = []

    @property
    def is_idle(self) -> bool:
        """True when nothing is worth keeping."""
        return not (self.candidates or self.waiters or self.is_electing)


class Elections:
    """Grants epochs when leases allow."""

    def __init__(
        self,
        *,
        metadata: Metadata,
        leases: Leases,
        publisher: Publisher,
        locks: StreamLocks,
        tasks: Tasks,
        now: Callable[[], float],
    ) -> None:
        self._metadata = metadata
        self._table = metadata.table
        self._leases = leases
        self._publisher = publisher
        self._locks = locks
        self._tasks = tasks
        self._now = now
        self._contested: dict[StreamId, None] = {}
        self._standing: dict[LeaderIncarnation, dict[StreamId, None]] = {}
        self._applied: dict[LeaderIncarnation, dict[StreamId, Sequence]] = {}
        self._number = 0
        self.granted = 0
        """Epochs granted since the start."""

    # ------------------------------------------------------------------ candidates

    def stand(self, stream: Stream, peer: Peer, connection: Connection) -> None:
        """Take a candidate in, or note its new connection."""
        campaign = self._campaign(stream)
        self._number += 1
        found = campaign.candidates.get(peer.incarnation)
        number = found[1] if found is not None else self._number
        campaign.candidates[peer.incarnation] = (peer, number, connection)
        self._standing.setdefault(peer.incarnation, {})[stream.id] = None
        self.consider(stream.id)

    def step_down(self, stream_id: StreamId, connection: Connection) -> None:
        """Forget the candidate that stands over this connection, if there is one."""
        stream = self._table.get(stream_id)
        if stream is None or stream.campaign is None:
            return
        for incarnation, (_, _, over) in list(stream.campaign.candidates.items()):
            if over is connection:
                del stream.campaign.candidates[incarnation]
                self._forget_standing(incarnation, stream_id)
        self._tidy(stream)

    def _forget_standing(self, incarnation: LeaderIncarnation, stream_id: StreamId) -> None:
        standing = self._standing.get(incarnation)
        if standing is not None:
            standing.pop(stream_id, None)
            if not standing:
                del self._standing[incarnation]

    def _campaign(self, stream: Stream) -> Campaign:
        if stream.campaign is None:
            stream.campaign = Campaign()
            self._contested[stream.id] = None
        return stream.campaign

    def _tidy(self, stream: Stream) -> None:
        if stream.campaign is not None and stream.campaign.is_idle:
            stream.campaign = None
            self._contested.pop(stream.id, None)

    def gave_up(self, stream: Stream, incarnation: LeaderIncarnation) -> None:
        """Queue who could not work behind all others, until it has opened a segment again (R15, N2)."""
        self._number += 1
        campaign = self._campaign(stream)
        campaign.gave_up[incarnation] = self._number
        for known in [known for known in campaign.gave_up if self._leases.get(known) is None]:
            del campaign.gave_up[known]

    def note_applied(
        self, incarnation: LeaderIncarnation, applied: tuple[tuple[StreamId, Sequence], ...]
    ) -> None:
        """Note how far a client has replayed streams."""
        found = self._applied.setdefault(incarnation, {})
        for stream, sequence in applied:
            if stream in found or (len(found) < APPLIED_MAX and self._table.get(stream)):
                found[stream] = sequence

    # ------------------------------------------------------------------ occasions

    def session_began(self, incarnation: LeaderIncarnation) -> None:
        """A client can be granted streams (again)."""
        for stream in list(self._standing.get(incarnation, ())):
            self.consider(stream)

    def session_lapsed(self, incarnation: LeaderIncarnation) -> None:
        """A client lost its lease: all it leads may go to others."""
        for stream in self._table.led_by(incarnation):
            self.consider(stream)
        if self._leases.get(incarnation) is None:
            self._applied.pop(incarnation, None)

    def consider_all(self) -> None:
        """Leaders that have not come back since the start are judged from now on (R15)."""
        for stream in list(self._contested):
            self.consider(stream)

    def changed(self, stream: Stream) -> None:
        """A head changed: somebody may be waiting for that, or be free to lead."""
        campaign = stream.campaign
        if campaign is None:
            return
        head = stream.head
        has_opened = head.open is not None and head.open.id.epoch == head.epoch
        if has_opened and head.leader is not None and not head.released:
            campaign.gave_up.pop(head.leader.incarnation, None)
        if head.released and head.leader is not None and campaign.resigned is None:
            campaign.resigned = (head.leader.incarnation, self._now())
            asyncio.get_running_loop().call_later(RESIGNED_S + 0.01, self.consider, stream.id)
        elif not head.released:
            campaign.resigned = None
        for waiter in campaign.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.consider(stream.id)

    def gone(self, stream: Stream) -> None:
        """A stream was deleted."""
        campaign, stream.campaign = stream.campaign, None
        self._contested.pop(stream.id, None)
        if campaign is None:
            return
        for incarnation in campaign.candidates:
            self._forget_standing(incarnation, stream.id)
        for waiter in campaign.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def consider(self, stream_id: StreamId) -> None:
        """Start an election if the stream has no leader (any more) and somebody can have it."""
        stream = self._table.get(stream_id)
        if stream is None or stream.campaign is None or stream.campaign.is_electing:
            return
        if self._choose(stream) is not None:
            stream.campaign.is_electing = True
            _ = self._tasks.start(self._elect(stream), f"elect-{stream_id.hex()}")

    # ------------------------------------------------------------------ the grant

    def is_vacant(self, stream: Stream) -> bool:
        """True when nobody leads, or whose lease is void (R1)."""
        head = stream.head
        if head.released or head.leader is None:
            return True
        return self._leases.is_void(head.leader.incarnation, self._now())

    def _choose(self, stream: Stream) -> Peer | None:
        campaign = stream.campaign
        if campaign is None or not campaign.candidates or stream.lost:
            return None
        if not self.is_vacant(stream):
            return None
        now = self._now()
        candidates = [
            Candidate(
                peer=peer,
                applied=self._applied.get(incarnation, {}).get(stream.id, 0),
                leads=self._table.count_led(incarnation),
                stood=number,
                gave_up=campaign.gave_up.get(incarnation, 0),
            )
            for incarnation, (peer, number, _) in campaign.candidates.items()
            if self._leases.is_eligible(incarnation, now)
            and not (campaign.resigned and _has_just(campaign.resigned, incarnation, now))
        ]
        head = stream.head
        return choose(
            candidates, last=head.leader, has_resigned=head.released, target=campaign.target
        )

    async def _elect(self, stream: Stream) -> None:
        async with self._locks.hold(stream.id):
            while self._table.get(stream.id) is stream:
                peer = self._choose(stream)
                if peer is None:
                    break
                change = streams.grant(stream.head, peer)
                if await self._metadata.change(stream, change.head, stream.open_leader):
                    self.granted += 1
                    logger.info(
                        "epoch_granted",
                        extra={
                            "stream": stream.head.name,
                            "epoch": stream.head.epoch,
                            "leader": peer.name,
                        },
                    )
                    break
        if stream.campaign is not None:
            stream.campaign.is_electing = False
            self._publisher.changed(stream)
            self.changed(stream)
            self._tidy(stream)

    # ------------------------------------------------------------------ hand-over

    def tell_leader(self, stream: Stream, message: Message) -> bool:
        """Push to the leader, over the connections by which it watches the stream."""
        leader = stream.head.leader
        if leader is None or stream.head.released or stream.watchers is None:
            return False
        told = False
        for connection in stream.watchers:
            peer = connection.peer
            if getattr(peer, "incarnation", b"") == leader.incarnation:
                connection.push(message)
                told = True
        return told

    def remind(self, stream: Stream) -> None:
        """Tell a leader that came back that somebody else shall lead, if that is so."""
        campaign = stream.campaign
        if campaign is None or campaign.target is None or stream.head.epoch != campaign.asked:
            return
        self.tell_leader(stream, ResignWanted(stream.id, stream.head.epoch))

    async def transfer(self, stream: Stream, to: str, timeout_s: float) -> None:
        """Hand leadership over to the candidate `to` (empty: any other) and wait until it leads.

        Raises:
            UsageError: No such candidate.
            DeadlineExceededError: It does not lead yet; it may come to do so.
        """
        head = stream.head
        before = head.epoch
        leader = None if head.released else head.leader
        if leader is not None and to == leader.name and self._leads(stream, to, before - 1):
            return
        others = sorted(
            peer.name
            for peer, _, _ in (stream.campaign.candidates if stream.campaign else {}).values()
            if leader is None or peer.incarnation != leader.incarnation
        )
        if not others or (to and to not in others):
            raise UsageError(
                f"{to!r} does not stand for {head.name!r}; "
                f"candidates: {', '.join(others) or 'nobody else'}; nothing was changed"
                if to
                else f"nobody else stands for {head.name!r}; nothing was changed"
            )
        campaign = self._campaign(stream)
        campaign.target, campaign.asked = to, head.epoch
        self.tell_leader(stream, ResignWanted(stream.id, head.epoch))
        self.consider(stream.id)
        try:
            async with asyncio.timeout(timeout_s):
                while not self._leads(stream, to, before):
                    await self._next_change(stream, campaign)
        except TimeoutError:
            raise DeadlineExceededError(
                f"{head.name!r} was not handed over to {to or 'anybody else'} within {timeout_s:g} s; "
                "it may still be: look who leads before you repeat it"
            ) from None
        finally:
            campaign.target = None
            self._tidy(stream)

    def _leads(self, stream: Stream, to: str, after: int) -> bool:
        if self._table.get(stream.id) is not stream:
            raise StreamNotFoundError(f"stream {stream.head.name!r} was deleted")
        head = stream.head
        return (
            head.epoch > after
            and not head.released
            and head.leader is not None
            and (not to or head.leader.name == to)
            and head.open is not None
            and head.open.id.epoch == head.epoch
        )

    async def _next_change(self, stream: Stream, campaign: Campaign) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        campaign.waiters.append(waiter)
        try:
            await waiter
        finally:
            campaign.waiters.remove(waiter)


def _has_just(
    resigned: tuple[LeaderIncarnation, float], incarnation: LeaderIncarnation, now: float
) -> bool:
    return resigned[0] == incarnation and now - resigned[1] < RESIGNED_S
