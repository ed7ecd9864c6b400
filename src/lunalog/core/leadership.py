"""One leader's life as a state machine: grant, fence, decide, carry over, commit, roll, close, ended.

Inputs are method calls (answers, losses, wishes, the time), each returns what to do next as effects,
in order.  The driver (client/leader.py) only executes them.  Nothing here waits, reads a clock or
knows a socket.

    TAKEOVER  fence the old open set, decide C0 and T, carry C0..T over into a new segment, one
              transaction closes the old and opens the new one (R5 to R8)
    LEADING   appends count (R9); rolls move to a new set (R11); resigning closes without successor
    ENDED     nothing is acknowledged any more

`committed` is what may be acknowledged: it moves only by acks of the segment that the head names, up
to the boundary while rolling, and not at all from sending a close until it is known (R31).

Source: R1, R2, R4 to R11, R14, R15, R18, R21, R25, R28, R31.
"""

from __future__ import annotations

from collections.abc import Sequence as Run
from collections.abc import Set

from lunalog.core.effects import (
    Certify,
    DropSet,
    Effect,
    Led,
    OpenSet,
    ProposeSet,
    Seal,
)
from lunalog.core.leader_state import PROPOSE_RETRY_S, LeaderState, Phase, not_leader
from lunalog.core.outbox import CopiedFrame, Outbox
from lunalog.core.recovery import FenceAnswer
from lunalog.core.replication import SegmentReplication
from lunalog.core.rolling import RollNeed, answering, unreachable
from lunalog.errors import (
    FencedError,
    InvariantError,
    LunalogError,
    MetadataLostError,
    NotEnoughServersError,
    NotLeaderError,
    PeerError,
    StreamNotFoundError,
    WrongIncarnationError,
)
from lunalog.types import (
    Certificate,
    Chain,
    Member,
    OpenSegment,
    SealedSegment,
    SegmentId,
    Sequence,
    StreamHead,
)

ATTEMPT_S_MAX = 8.0
PROPOSE_RETRY_S_MAX = 2.0
RESIGN_DRAIN_S = 1.0
"""A resigning leader waits this long for its last acks before it closes without them."""
BUSY_TICK_S = 0.25


class LeaderMachine(LeaderState):
    """Decide everything one leader of one stream does under one epoch (R2)."""

    # ------------------------------------------------------------------ takeover: R5 to R8

    def start(self, now: float) -> list[Effect]:
        """Begin, with the grant in hand."""
        self._healthy_at = now
        return self._settle(self._propose((), now) + self._takeover.start(), now)

    def fenced(
        self, member: Member, answer: FenceAnswer, *, has_certificate: bool, now: float
    ) -> list[Effect]:
        """A member of the old set has made its promise durable (R5)."""
        old = self._takeover.segment
        if self.phase is not Phase.TAKEOVER or old is None:
            return []
        if has_certificate:
            return self._settle(self._doubts.suspect(old.id), now)
        if self._takeover.fenced(member, answer):
            self._healthy_at = now
        return self._settle([], now)

    def unfenced(self, member: Member, error: LunalogError, now: float) -> list[Effect]:
        """A member of the old set refused the fence, or cannot be reached now."""
        old = self._takeover.segment
        if self.phase is not Phase.TAKEOVER or old is None:
            return []
        if isinstance(error, WrongIncarnationError):
            self._takeover.refused(member)
        return self._settle(self._doubts.told(old.id, error), now)

    def copied(
        self, member: Member, start: Sequence, before: Chain, found: Run[CopiedFrame], now: float
    ) -> list[Effect]:
        """A recovery read brought frames whose checksums were verified."""
        if self.phase is not Phase.TAKEOVER:
            return []
        try:
            if self._takeover.copied(member, start, before, found):
                self._healthy_at = now
        except PeerError as error:
            return self._conflict(error)
        return self._settle([], now)

    def unread(
        self, member: Member, start: Sequence, error: LunalogError | None, now: float
    ) -> list[Effect]:
        """A recovery read brought nothing: absent, damaged, refused or too late."""
        old = self._takeover.segment
        if self.phase is not Phase.TAKEOVER or old is None:
            return []
        self._takeover.unread(member, start)
        return self._settle(self._doubts.told(old.id, error) if error is not None else [], now)

    def _walk(self, now: float) -> list[Effect]:
        """Ask for the next frames, or take the decision (R6)."""
        takeover = self._takeover
        if self.seal is not None:
            return []
        lost = takeover.lost_evidence
        out = self._alarm("acked_events_missing", committed=lost) if lost is not None else []
        try:
            out += takeover.walk(now)
        except PeerError as error:
            return out + self._conflict(error)
        decision = takeover.decision
        if decision is not None and not self._is_decided:
            self._is_decided = True
            self.committed = decision.end
            self.outbox = Outbox(decision.end, decision.chain, self.settings.in_flight_bytes_max)
            for copy in decision.frames:
                self.outbox.add(copy.first, copy.count, copy.crc, copy.frame)
            InvariantError.check(self.tail == decision.tail, "R6: T is the end of the carry-over")
        return out

    # ------------------------------------------------------------------ the next segment

    def proposed(self, servers: tuple[Member, ...], now: float) -> list[Effect]:
        """The master named live servers, best first."""
        self._is_proposing = False
        self._propose_retry_s = PROPOSE_RETRY_S
        if self.phase is Phase.ENDED or self.seal is not None:
            return []
        if self.phase is Phase.TAKEOVER:
            self._servers = servers
            return self._settle([], now)
        return self._settle(self._roll(servers, now), now)

    def not_proposed(self, error: LunalogError, now: float) -> list[Effect]:
        """The master could not name enough servers, or did not answer."""
        self._is_proposing = False
        self._propose_at = now + self._propose_retry_s
        self._propose_retry_s = min(2 * self._propose_retry_s, PROPOSE_RETRY_S_MAX)
        if isinstance(error, FencedError | StreamNotFoundError):
            return self._settle(self._doubts.reread(), now)
        if not isinstance(error, NotEnoughServersError):
            self._healthy_at = now  # the master is silent: that is not ours to give back for
        elif self.phase is Phase.LEADING and self.current is not None:
            self._rolls.futile(self._need(self.current, now), now)
        return self._settle([], now)

    def _propose(
        self, exclude: tuple[str, ...], now: float, *, is_needed: bool = True
    ) -> list[Effect]:
        if self._is_proposing or now < self._propose_at:
            return []
        self._is_proposing = True
        return [ProposeSet(exclude, is_needed)]

    def _open_next(self, first: Sequence, servers: tuple[Member, ...], now: float) -> list[Effect]:
        """Write ahead into a fresh segment (R7: each attempt takes a fresh sid)."""
        out: list[Effect] = [DropSet(self.next)] if self.next is not None else []
        policy = self.head.policy
        chain = self.outbox.chain_at(first)
        if chain is None:
            raise InvariantError(
                f"R26: {first} lies between no two frames of {self.outbox.start}.."
            )
        segment = OpenSegment(
            SegmentId(self.epoch, self._n),
            first,
            chain,
            servers[: policy.replicas],
            policy.ack_quorum,
            self._clock_us(),
        )
        self._n += 1
        self._bytes = 0
        self.next = SegmentReplication(segment, now)
        self._attempt = (0, first)
        self._attempt_at = now
        out.append(OpenSet(self.next))
        return out

    def _carry_over(self, now: float) -> list[Effect]:
        """Open the first segment of this epoch, or another one if nothing moves on it (R7)."""
        decision = self._takeover.decision
        if decision is None or self.phase is not Phase.TAKEOVER or self.seal is not None:
            return []
        attempt = self.next
        if attempt is not None:
            if attempt.held > self._carried:  # an ack quorum takes it, however slowly (N3)
                self._carried, self._healthy_at = attempt.held, now
            if not self._is_attempt_stuck(attempt, now):
                return []
            if self._servers is None:
                return self._propose(unreachable(attempt, self._rolls.patience), now)
            self._attempt_s = min(2 * self._attempt_s, ATTEMPT_S_MAX)
        elif self._servers is None:
            return self._propose((), now)
        servers, self._servers = self._servers, None
        if len(servers) < self.head.policy.ack_quorum:
            return []
        return self._open_next(decision.end, servers, now)

    def _is_attempt_stuck(self, attempt: SegmentReplication, now: float) -> bool:
        progress = (attempt.working, sum(r.matched for r in attempt.replicas))
        if progress != self._attempt:
            self._attempt = progress
            self._attempt_at = now
            return False
        failed = sum(r.failure is not None for r in attempt.replicas)
        return (
            len(attempt.replicas) - failed < attempt.ack_quorum
            or now - self._attempt_at >= self._attempt_s
        )

    # ------------------------------------------------------------------ rolls: R11

    def _need(self, current: SegmentReplication, now: float) -> RollNeed | None:
        ahead = self.next
        if ahead is None:
            return self._rolls.need(current, self.head.policy, now)
        ticks = self._rolls.patience
        is_short = current.bound is not None and current.held < current.bound
        if is_short and answering(current, ticks) < current.ack_quorum:
            exclude = {*unreachable(current, ticks), *unreachable(ahead, ticks)}
            return RollNeed(True, "server", tuple(sorted(exclude)))
        if answering(ahead, ticks) < ahead.ack_quorum and self._is_attempt_stuck(ahead, now):
            return RollNeed(True, self._reason, unreachable(ahead, ticks))
        return None

    def _consider_roll(self, now: float) -> list[Effect]:
        current = self.current
        if self.phase is not Phase.LEADING or current is None or self.seal or self.is_resigning:
            return []
        need = self._need(current, now)
        return self._propose(need.exclude, now, is_needed=need.is_urgent) if need else []

    def _roll(self, servers: tuple[Member, ...], now: float) -> list[Effect]:
        """Servers were proposed: pick the boundary, if the reason still stands."""
        current = self.current
        need = self._need(current, now) if current is not None else None
        if need is None or current is None or self.is_resigning:
            return []
        fit = tuple(m for m in servers if m.server not in need.exclude)
        policy = self.head.policy
        wanted = policy.ack_quorum if need.is_urgent else policy.replicas
        if len(fit) < wanted:
            self._rolls.futile(need, now)
            self._propose_at = now + self._propose_retry_s
            return []
        is_short = answering(current, self._rolls.patience) < current.ack_quorum
        is_silent = is_short and current.working >= current.ack_quorum
        self._rolls.rolled(need, now, is_silent=is_silent)
        self._reason = need.reason
        boundary = self.committed if need.is_urgent else self.tail
        current.bind(boundary)
        return self._open_next(boundary, fit, now)

    # ------------------------------------------------------------------ the transaction: R8, R28

    def _try_seal(self, now: float) -> list[Effect]:
        """Send the transaction once what it makes true is durable."""
        ahead = self.next
        if ahead is None or self.seal is not None or self.phase is Phase.ENDED:
            return []
        if ahead.working < ahead.ack_quorum:
            return []
        if self.phase is Phase.TAKEOVER:
            if ahead.held < self.tail or self._takeover.lost_evidence is not None:
                return []
            old = self._takeover.segment
        else:
            if self.current is None or self.committed < ahead.first:
                return []
            old = self.current.segment
        return self._send_seal(old, ahead.first, ahead.chain, ahead.segment, now)

    def _send_seal(
        self,
        old: OpenSegment | None,
        end: Sequence,
        chain: Chain,
        opens: OpenSegment | None,
        now: float,
    ) -> list[Effect]:
        row, reason = None, self._reason
        if old is not None and end > old.first:
            who = (old.members, old.ack_quorum, self.peer.name)
            row = SealedSegment(old.id, old.first, end, chain, *who, reason, self._clock_us())
        old_id = old.id if old is not None else None
        self.seal = Seal(old_id, row, opens, end, chain, opens is None, reason)
        self._healthy_at = now
        self._reads.void()
        return [self.seal]

    def seal_refused(self, seal: Seal, error: LunalogError, now: float) -> list[Effect]:
        """The master refused the transaction; silence is no refusal, the driver asks again (R28)."""
        if self.seal is not seal or self.phase is Phase.ENDED:
            return []
        if isinstance(error, FencedError | NotLeaderError):
            return self._end(not_leader(self.head.name, error.leader), is_release_due=False)
        if isinstance(error, StreamNotFoundError | MetadataLostError):
            return self._end(error, is_release_due=False)
        out = self._alarm("seal_refused", why=error.message)
        return out + self._end(not_leader(self.head.name, None, error.message), is_release_due=True)

    def _known(self, seal: Seal, now: float) -> list[Effect]:
        """The transaction is applied: the commit point of a seal (R8)."""
        self.seal = None
        out: list[Effect] = []
        if seal.row is not None:
            out.append(Certify(Certificate(self.head.stream, seal.row, self.promise)))
        if seal.release:
            resigned = not_leader(self.head.name, None, "this leader has resigned")
            return out + self._end(resigned, is_release_due=False)
        previous, self.current, self.next = self.current, self.next, None
        current = self.current
        if current is None:
            raise InvariantError("R8: nothing was opened")
        if previous is not None:
            out.append(DropSet(previous))
        self._opened_at = self._healthy_at = now
        if self.phase is Phase.TAKEOVER:
            InvariantError.check(current.held >= self.tail, "R9: T is durable on A", tail=self.tail)
            self.phase = Phase.LEADING
            self._commit()
            out.append(Led(self.tail))
        else:
            InvariantError.check(
                self.committed == current.first, "R11: committed rests at the boundary"
            )
            self._commit()
        self.trim()
        return out

    # ------------------------------------------------------------------ the head: R25, R28

    def head_seen(self, head: StreamHead, now: float) -> list[Effect]:
        """The head as the master told or pushed it; older ones change nothing."""
        if self.phase is Phase.ENDED:
            return []
        if head.deleted:
            gone = StreamNotFoundError(f"stream {head.name!r} was deleted")
            return self._end(gone, is_release_due=False)
        if head.epoch < self.epoch or head.version < self.head.version:
            return []
        if head.epoch > self.epoch or head.leader != self.peer:
            leader = head.leader.name if head.leader is not None and not head.released else None
            return self._end(not_leader(head.name, leader), is_release_due=False)
        self.head = head
        return self._ours_seen(head, now)

    def _ours_seen(self, head: StreamHead, now: float) -> list[Effect]:
        seal = self.seal
        if seal is not None and self._shows(head, seal):
            return self._settle(self._known(seal, now), now)
        if head.released:
            why = "the epoch was given back"
            return self._end(not_leader(head.name, None, why), is_release_due=False)
        found = head.open.id if head.open is not None else None
        if found != self._expected():
            return self._metadata_lost(f"{found} is open, not {self._expected()}")
        return self._settle([], now)

    @staticmethod
    def _shows(head: StreamHead, seal: Seal) -> bool:
        if seal.open is not None:
            return head.open is not None and head.open.id == seal.open.id
        return head.open is None and head.released

    def _expected(self) -> SegmentId | None:
        if self.current is not None:
            return self.current.id
        old = self._takeover.segment
        return old.id if old is not None else None

    def head_read(self, head: StreamHead, now: float) -> list[Effect]:
        """The head as re-read from the master, after a replica said something that it may explain."""
        out = self.head_seen(head, now)
        proof = self._doubts.judge(head)
        if proof and self.error is None:
            out += self._metadata_lost(proof)
        return out

    def head_unread(self, error: LunalogError, now: float) -> list[Effect]:
        """The head could not be re-read now."""
        self._doubts.unread()
        if isinstance(error, StreamNotFoundError):
            return self._end(error, is_release_due=False)
        return self._settle([], now)

    # ------------------------------------------------------------------ the end

    def resign(self, now: float) -> list[Effect]:
        """Take no more appends, close without successor, release (R31)."""
        if self.phase is Phase.ENDED or self.is_resigning:
            return []
        self.is_resigning = True
        self._resign_at = now + RESIGN_DRAIN_S
        if self.phase is Phase.TAKEOVER and self.seal is None:
            resigned = not_leader(self.head.name, None, "this leader has resigned")
            return self._end(resigned, is_release_due=True)
        return self._settle([], now)

    def _try_close(self, now: float) -> list[Effect]:
        """Close at committed once no roll is pending and the last acks are in, or too late (R31)."""
        current = self.current
        if not self.is_resigning or self.phase is not Phase.LEADING or self.seal is not None:
            return []
        if current is None or (self.committed < self.tail and now < self._resign_at):
            return []
        out: list[Effect] = []
        if self.next is not None:
            # Its transaction was not sent: a boundary that nobody knows may be taken back.
            out.append(DropSet(self.next))
            self.next = None
        chain = self.outbox.chain_at(self.committed)
        if chain is None:
            raise InvariantError(f"R26: committed {self.committed} lies between no two frames")
        old = current.segment
        self._reason = "resign"
        return out + self._send_seal(old, self.committed, chain, None, now)

    # ------------------------------------------------------------------ time

    def tick(self, now: float, silent: Set[str] | None = None) -> list[Effect]:
        """Some time has passed; with `silent`, only these servers' silence counts (`RollWatch.tick`)."""
        if self.phase is Phase.ENDED:
            return []
        for segment in (self.current, self.next):
            if segment is not None:
                self._rolls.tick(segment, self.sent(segment), now, silent)
        self._takeover.tick(now)
        age_s = self.head.policy.segment_age_s
        if self.current is not None and now - self._opened_at >= age_s:
            if self.committed > self.current.first:
                self.want_roll("age")
            self._opened_at = now
        out = self._reads.expire(now)
        out += self._doubts.again()
        return self._settle(out + self._give_back(now), now)

    def _settle(self, out: list[Effect], now: float) -> list[Effect]:
        """Do everything that has become possible, and note when to look again."""
        if self.phase is Phase.TAKEOVER:
            out += self._walk(now)
            out += self._carry_over(now)
        out += self._consider_roll(now)
        out += self._try_close(now)
        out += self._try_seal(now)
        if self.phase is Phase.LEADING and self.seal is None and self.current is not None:
            out += self._reads.begin(self.current.segment, now)
        self.next_tick = self._next_tick(now)
        return out

    def _next_tick(self, now: float) -> float | None:
        if self.phase is Phase.ENDED:
            return None
        current = self.current
        if self.phase is Phase.TAKEOVER or current is None:
            return now + BUSY_TICK_S
        if self.is_waiting:
            return now + self.settings.tick_s
        is_whole = current.working == self.head.policy.replicas
        if not is_whole or self._rolls.wanted or self.is_resigning or self._reads.is_waiting:
            return now + BUSY_TICK_S
        if self._doubts.is_open or current.floor < self.tail:
            return now + BUSY_TICK_S
        return self._opened_at + self.head.policy.segment_age_s
