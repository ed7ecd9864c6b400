"""What one journal server decides, over all its streams.  No I/O.

Two ends a segment: `end` is what was accepted and queued for the log, `durable` what the log has
synced.  A decision looks at `end`, because decisions and records go through one queue; what leaves
the server as a fact waits for the record, and then `durable` says it (R4, R16).

Source: R3, R5, R6, R12, R14, R18, R19, R21, R22, R30.
"""

from __future__ import annotations

from collections import deque

from lunalog.core import chain as chains
from lunalog.core.held import (
    RECENT_FRAMES_MAX,
    Base,
    FenceState,
    Range,
    SegmentReplica,
    StreamReplica,
)
from lunalog.errors import (
    FencedError,
    GapError,
    GoneError,
    InvariantError,
    NotOpenError,
    ReplicaConflictError,
    SealedError,
    UnknownDataError,
    WrongIncarnationError,
)
from lunalog.types import (
    NO_PROMISE,
    Certificate,
    Chain,
    LeaderIncarnation,
    Promise,
    SegmentId,
    Sequence,
    StreamId,
)


class Replica:
    """All streams of one server.  Every method either decides, or raises and changes nothing."""

    def __init__(self, incarnation: int = 0) -> None:
        self.incarnation = incarnation
        self.streams: dict[StreamId, StreamReplica] = {}

    # ------------------------------------------------------------------ looking up

    def _known(self, stream: StreamId) -> StreamReplica:
        found = self.streams.get(stream)
        return found if found is not None else StreamReplica()

    def _made(self, stream: StreamId) -> StreamReplica:
        found = self.streams.get(stream)
        if found is None:
            found = self.streams[stream] = StreamReplica()
        return found

    def find(self, stream: StreamId, segment: SegmentId) -> SegmentReplica | None:
        """Return a segment that is held here."""
        found = self.streams.get(stream)
        return None if found is None else found.segments.get(segment)

    def check_incarnation(self, incarnation: int) -> None:
        """Raise `WrongIncarnationError` unless this server lives under it (R3, R19)."""
        if incarnation != self.incarnation:
            raise WrongIncarnationError(
                f"this server lives as incarnation {self.incarnation}, not {incarnation}",
                incarnation=self.incarnation,
            )

    def check_promise(self, stream: StreamId, promise: Promise) -> None:
        """Raise `FencedError` or `GoneError` unless `promise` may act on the stream."""
        self._check(self._known(stream), promise)

    @staticmethod
    def _check(state: StreamReplica, promise: Promise) -> None:
        """Refuse lower epochs, and another leader of the same epoch (R3)."""
        if state.is_deleted:
            raise GoneError("the stream was deleted")
        held = state.promise
        if promise.epoch < held.epoch or (
            promise.epoch == held.epoch and held.leader and promise.leader != held.leader
        ):
            raise FencedError(
                f"epoch {held.epoch} is promised here, {promise.epoch} asked",
                epoch=held.epoch,
                incarnation=held.leader,
            )

    # ------------------------------------------------------------------ leaders

    def open(
        self,
        stream: StreamId,
        segment: SegmentId,
        leader: LeaderIncarnation,
        incarnation: int,
        first: Sequence,
        chain: Chain,
        generation: int,
    ) -> tuple[SegmentReplica, bool, bool]:
        """Open a segment, or find it open (R3).

        Returns (segment, whether it is new, whether the promise is raised): what must be recorded.
        """
        self.check_incarnation(incarnation)
        promise = Promise(segment.epoch, leader)
        known = self._known(stream)
        self._check(known, promise)
        held = known.segments.get(segment)
        if held is not None:
            if held.certificate is not None or not held.is_opened:
                raise SealedError(f"segment {segment} is sealed here")
            if (held.first, held.start_chain, held.leader) != (first, chain, leader):
                raise ReplicaConflictError(f"segment {segment} was opened otherwise here")
            if held.unknown:
                raise UnknownDataError(f"segment {segment} is damaged here: {held.unknown}")
            return held, False, self._raise(self._made(stream), promise)
        if known.versions and segment in known.versions:
            raise GoneError(f"segment {segment} was dropped here")
        state = self._made(stream)
        held = state.segments[segment] = SegmentReplica(segment, first, chain, generation)
        held.leader, held.is_opened = leader, True
        return held, True, self._raise(state, promise)

    def _raise(self, state: StreamReplica, promise: Promise) -> bool:
        if promise > state.promise:
            state.promise = promise
            return True
        return False

    def append(
        self, state: StreamReplica, held: SegmentReplica, first: Sequence, count: int, crc: int
    ) -> bool:
        """Accept a frame of the segment's own leader; false: exactly this one is held already (R3)."""
        promise = state.promise
        if promise.epoch != held.id.epoch or promise.leader != held.leader or state.is_deleted:
            self._check(state, Promise(held.id.epoch, held.leader))
        if held.certificate is not None:
            raise SealedError(f"segment {held.id} is sealed here")
        if first == held.end:
            if first <= state.trimmed_before:  # the first frame that is kept may be this one
                self._note_base(state, held, first + count)
            held.take(first, count, crc)
            return True
        if first > held.end:
            raise GapError(f"the frame at {first} does not join {held.end}", end=held.end)
        found = held.holds(first, first + count, crc)
        if found is None:
            raise GapError(f"frames at {first} are long held, up to {held.end}", end=held.end)
        if not found:
            raise ReplicaConflictError(
                f"segment {held.id} holds another frame at {first}: two leaders of one epoch, or "
                "damage at the leader"
            )
        return False

    @staticmethod
    def _note_base(state: StreamReplica, held: SegmentReplica, end: Sequence) -> None:
        """The next frame, up to `end`, is the first that is kept: those before it are trimmed."""
        if held.end <= state.trimmed_before < end and held.first < held.end:
            held.base = held.end, held.chain

    def fence(
        self,
        stream: StreamId,
        segment: SegmentId,
        first: Sequence,
        promise: Promise,
        incarnation: int,
    ) -> tuple[FenceState, bool]:
        """Promise, also for segments never seen (R5); true if the promise must be recorded."""
        self.check_incarnation(incarnation)
        known = self._known(stream)
        self._check(known, promise)
        held = known.segments.get(segment)
        if held is None and known.versions and segment in known.versions:
            raise GoneError(f"segment {segment} was dropped here")
        is_new = self._raise(self._made(stream), promise)
        if held is None:
            return FenceState(first, 0, 0, (), None), is_new
        return (
            FenceState(held.end, held.chain, held.committed, held.unknown, held.certificate),
            is_new,
        )

    def check(
        self, stream: StreamId, segment: SegmentId, promise: Promise, incarnation: int
    ) -> None:
        """Raise unless `promise` is not fenced and the segment open here, not sealed (R14)."""
        self.check_incarnation(incarnation)
        state = self._known(stream)
        self._check(state, promise)
        held = state.segments.get(segment)
        if held is None or not held.is_opened:
            raise NotOpenError(f"segment {segment} was never opened here")
        if held.certificate is not None:
            raise SealedError(f"segment {segment} is sealed here")

    def mark(self, held: SegmentReplica, committed: Sequence) -> bool:
        """Note that a segment is committed up to `committed`; true if readers may see more."""
        before = held.committed
        if committed <= before:
            return False
        held.committed = committed
        return before < held.durable and held.certificate is None

    # ------------------------------------------------------------------ certificates and space

    def certify(self, certificate: Certificate) -> tuple[SegmentReplica, bool]:
        """Take a segment's end (R21): raise the promise, cut what lies behind.

        Returns (segment, whether anything is new): then a record is due.
        """
        row, stream = certificate.row, certificate.stream
        state = self._known(stream)
        if state.is_deleted:
            raise GoneError("the stream was deleted")
        if state.versions and row.version < state.versions.get(row.id, 0):
            raise GoneError(f"segment {row.id} was dropped here by a later command")
        held = state.segments.get(row.id)
        known = held.certificate if held else None
        if known is not None and (known.row.end, known.row.chain) != (row.end, row.chain):
            raise ReplicaConflictError(f"segment {row.id} has another end here: {known.row}")
        if (
            held is not None
            and held.end == row.end
            and not held.unknown
            and held.chain != row.chain
        ):
            raise ReplicaConflictError(
                f"segment {row.id} holds other bytes below {row.end} than its certificate says"
            )
        state = self._made(stream)
        is_new = self._raise(state, certificate.promise)
        if held is None:
            # Never opened here, only listed: everything comes from peers, behind the row's first.
            held = state.segments[row.id] = SegmentReplica(row.id, row.first, 0, 0)
            is_new = True
        if known is None or known.row.version < row.version:
            held.certificate, is_new = certificate, True
        if state.versions:
            state.versions.pop(row.id, None)  # listed again: what follows is held again
        if held.end > row.end:
            held.end = row.end
            held.durable = min(held.durable, row.end)
            held.chain = row.chain
            held.recent = None
        if held.first > row.first:  # damage has taken its OPEN record, and frames behind it (R18)
            held.unknown += ((max(row.first, state.trimmed_before), held.first),)
            held.first = row.first
        cut = tuple((a, min(b, row.end)) for a, b in held.unknown)
        held.unknown = tuple((a, b) for a, b in cut if a < b)
        return held, is_new

    def pulled(
        self,
        stream: StreamId,
        held: SegmentReplica,
        before: Chain,
        first: Sequence,
        count: int,
        crc: int,
    ) -> bool:
        """Take a frame from a peer, below the certificate's end; false: it is held already (R21).

        `before` is the chain before it, as the peer tells; the row's chain proves it at the end.
        What was truncated before it got here is skipped: nobody has it any more.
        """
        if held.certificate is None:
            raise InvariantError(f"R21: segment {held.id} is pulled without a certificate")
        state = self.streams[stream]
        row, trimmed = held.certificate.row, state.trimmed_before
        if first + count <= held.end:
            return False
        if held.end < first <= trimmed:
            held.end, held.chain = first, before
            held.base = first, before
        if first != held.end or first + count > row.end:
            raise GapError(f"the pulled frame at {first} does not join {held.end}", end=held.end)
        if first == held.first and not held.is_opened:
            held.start_chain = held.chain = before
            held.base = first, before
        if first + count == row.end:
            found = chains.extend(held.chain, first, count, crc)
            knows_start = held.is_opened or held.start_chain or not held.first
            if knows_start and found != row.chain:
                raise ReplicaConflictError(
                    f"segment {held.id} would hold other bytes below {row.end} than its "
                    "certificate says: a peer is damaged or lies"
                )
        self._note_base(state, held, first + count)
        held.take(first, count, crc)
        if held.end == row.end:
            held.chain = row.chain
        return True

    def trim(self, stream: StreamId, before: Sequence, version: int) -> bool:
        """Forget events below `before`; false: an older command, or nothing new (R22, R30).

        It counts for a stream that is not here yet, too: what comes of it later begins there (R21).
        """
        state = self._known(stream)
        if before < state.trimmed_before or version < state.trim_version:
            return False
        if before == state.trimmed_before:  # what was sealed since may be due as well
            return self._cut_below(state)
        state = self._made(stream)
        state.trimmed_before, state.trim_version = before, version
        self._cut_below(state)
        return True

    @staticmethod
    def _cut_below(state: StreamReplica) -> bool:
        """Forget sealed segments and damage below what is kept; true if a segment went."""
        before, count = state.trimmed_before, len(state.segments)
        for held in list(state.segments.values()):
            row = held.certificate.row if held.certificate else None
            if row is not None and row.end <= before:
                del state.segments[held.id]
            elif held.unknown:
                held.unknown = tuple((max(a, before), b) for a, b in held.unknown if b > before)
        return len(state.segments) < count

    def drop(self, stream: StreamId, segment: SegmentId, promise: Promise, version: int) -> bool:
        """Forget a segment, and never take it up again (R22, R30); false: an older command."""
        state = self._known(stream)
        held = state.segments.get(segment)
        newest = held.certificate.row.version if held and held.certificate else 0
        if state.is_deleted or version < max(newest, (state.versions or {}).get(segment, 0)):
            return False
        state = self._made(stream)
        self._raise(state, promise)
        if state.versions is None:
            state.versions = {}
        state.versions[segment] = version
        state.segments.pop(segment, None)
        return True

    def delete(self, stream: StreamId, promise: Promise) -> bool:
        """Forget the stream but for its tombstone (R22); false: it is deleted already."""
        state = self._made(stream)
        if state.is_deleted:
            return False
        self.promised(stream, promise)
        state.is_deleted = True
        state.segments.clear()
        state.versions = None
        return True

    # ------------------------------------------------------------------ the log, read back

    def promised(self, stream: StreamId, promise: Promise) -> None:
        """A promise is in the log."""
        self._raise(self._made(stream), promise)

    def opened(
        self,
        stream: StreamId,
        segment: SegmentId,
        leader: LeaderIncarnation,
        first: Sequence,
        chain: Chain,
        generation: int,
    ) -> None:
        """An open is in the log."""
        state = self._made(stream)
        self._raise(state, Promise(segment.epoch, leader))
        if self._is_forgotten(state, segment):
            return
        held = state.segments.get(segment)
        if held is None:
            held = state.segments[segment] = SegmentReplica(segment, first, chain, generation)
        if not held.is_only_listed:  # else it was dropped and listed again since
            held.leader, held.is_opened, held.generation = leader, True, generation

    def held_frame(
        self,
        stream: StreamId,
        segment: SegmentId,
        committed: Sequence,
        chain: Chain,
        span: Range,
        crc: int,
        *,
        is_damaged: bool,
    ) -> None:
        """A frame is in the log; what lies between it and the one before was held and is damaged."""
        state = self._made(stream)
        if self._is_forgotten(state, segment):
            return
        first, end = span
        held = state.segments.get(segment)
        if held is None:
            held = state.segments[segment] = SegmentReplica(segment, first, 0, 0)
        held.committed = max(held.committed, committed)
        if end <= held.end:
            return
        row = held.certificate.row if held.certificate else None
        if row is not None and (first >= row.end or not held.may_come_from_peers(first)):
            return
        if first > max(held.end, state.trimmed_before):
            held.unknown += ((max(held.end, state.trimmed_before), first),)
        if is_damaged:
            held.unknown += ((first, end),)
        held.end = held.durable = end
        held.chain = chain
        if held.recent is None:
            held.recent = deque(maxlen=RECENT_FRAMES_MAX)
        held.recent.append((first, end, crc))

    def held_until(
        self,
        stream: StreamId,
        segment: SegmentId,
        span: Range,
        chain: Chain,
        committed: Sequence,
    ) -> None:
        """A checkpoint says how far a segment reached; damage may have taken its OPEN record."""
        state = self._made(stream)
        first, end = span
        held = state.segments.get(segment)
        if held is None:
            if self._is_forgotten(state, segment) or end <= state.trimmed_before:
                return
            held = state.segments[segment] = SegmentReplica(segment, first, 0, 0)
        held.committed = max(held.committed, committed)
        row = held.certificate.row if held.certificate else None
        if row is not None and end >= row.end:
            end, chain = row.end, row.chain
        if end >= held.end:
            held.end = held.durable = end
            held.chain = chain

    def damaged(self, stream: StreamId, segment: SegmentId, span: Range) -> None:
        """A range that was held turned out to be damaged (R18)."""
        held = self.find(stream, segment)
        if held is None or (held.is_only_listed and span[0] >= held.end):
            return
        span = max(span[0], self.streams[stream].trimmed_before), span[1]
        if held.certificate is not None:
            span = span[0], min(span[1], held.certificate.row.end)
        if span[0] < span[1] and span not in held.unknown:
            held.unknown += (span,)
            held.end = max(held.end, span[1])

    def based(self, stream: StreamId, segment: SegmentId, base: Base) -> None:
        """Note where what is kept of a segment begins; the frames before it go (R22)."""
        held = self.find(stream, segment)
        if held is not None and (held.base is None or held.base[0] < base[0]):
            held.base = base
            if base[0] == held.first and not held.is_opened:
                held.start_chain = base[1]

    def settled(self) -> None:
        """Everything that was read back is durable now (R16)."""
        for state in self.streams.values():
            state.synced_promise = state.promise
            self._cut_below(state)  # a checkpoint tells of a trim before the records it was behind
            for held in state.segments.values():
                held.durable = held.end

    def promise_synced(self, stream: StreamId, promise: Promise) -> None:
        """The log has synced a promise: it may be replied."""
        state = self._made(stream)
        state.synced_promise = max(state.synced_promise, promise)

    def _is_forgotten(self, state: StreamReplica, segment: SegmentId) -> bool:
        return state.is_deleted or (state.versions is not None and segment in state.versions)

    # ------------------------------------------------------------------ for checks and reports

    def promises(self) -> dict[StreamId, Promise]:
        """Every promise that may have been replied."""
        return {
            stream: state.synced_promise
            for stream, state in self.streams.items()
            if state.synced_promise > NO_PROMISE
        }

    def durable_ends(self) -> dict[tuple[StreamId, SegmentId], Sequence]:
        """How far each segment is held durably, where anything is that was not trimmed since."""
        return {
            (stream, held.id): held.durable
            for stream, state in self.streams.items()
            for held in state.segments.values()
            if held.durable > max(held.first, state.trimmed_before)
        }
