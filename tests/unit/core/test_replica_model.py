"""A replica against a naive model of it, through restarts at every point of its log.

What each segment's leader writes is fixed by the segment (I7); only what arrives, when, and in which
order is drawn.  The log is a list of puts: those below `synced` survive every restart, those behind
it may, as after a kill.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)
from tests.unit.machines import machine_settings

from lunalog.core import chain as chains
from lunalog.core.held import FenceState, SegmentReplica
from lunalog.core.replica import Replica
from lunalog.errors import (
    FencedError,
    GapError,
    GoneError,
    LunalogError,
    NotOpenError,
    ReplicaConflictError,
    SealedError,
    WrongIncarnationError,
)
from lunalog.server import facts
from lunalog.storage.records import (
    BaseRecord,
    CertificateRecord,
    DropRecord,
    EndRecord,
    FrameRecord,
    MarkRecord,
    OpenRecord,
    PromiseRecord,
    Record,
    TombstoneRecord,
    TrimRecord,
)
from lunalog.types import NO_PROMISE, Certificate, Promise, SealedSegment, SegmentId
from lunalog.wire.frames import FrameHead

INCARNATION = 2
STREAMS = (b"s" * 16, b"t" * 16)
FRAMES_MAX = 6
Key = tuple[bytes, SegmentId]

streams = st.sampled_from(STREAMS)
epochs = st.integers(1, 4)
segments = st.builds(SegmentId, epochs, st.integers(0, 1))
versions = st.integers(1, 4)
picks = st.integers(0, 63)


def leader_of(epoch: int, *, twin: bool = False) -> bytes:
    return bytes([epoch + 100 * twin]) * 16


promises = st.builds(
    lambda epoch, twin: Promise(epoch, leader_of(epoch, twin=twin)),
    epochs,
    st.sampled_from([False, False, False, True]),
)


@dataclass(frozen=True)
class Written:
    """What the leader of a segment writes: `FRAMES_MAX` frames."""

    first: int
    chain: int
    heads: tuple[FrameHead, ...]
    chains: tuple[int, ...]
    """Behind each frame."""

    @property
    def bounds(self) -> tuple[int, ...]:
        return (self.first, *(head.end for head in self.heads))


def written_in(stream: bytes, segment: SegmentId) -> Written:
    at = first = 10 * segment.epoch + segment.n
    link = chain = 1000 * segment.epoch + stream[0]
    heads, links = [], []
    for number in range(FRAMES_MAX):
        count = 1 + (at + number) % 3
        head = FrameHead(stream, at, count, segment.epoch, 0, 4 * count, at * 31 + segment.n)
        link = chains.extend(link, at, count, head.crc)
        heads.append(head)
        links.append(link)
        at = head.end
    return Written(first, chain, tuple(heads), tuple(links))


@dataclass
class ModelSegment:
    """`held` frames from the first on, the first `durable` of them synced."""

    written: Written
    leader: bytes = b""
    is_opened: bool = False
    held: int = 0
    durable: int = 0
    comparable_from: int = 0
    """Frames before it can no longer be told from others."""
    committed: int = 0
    certificate: Certificate | None = None
    start_known: bool = True

    @property
    def end(self) -> int:
        return self.written.bounds[self.held]

    @property
    def chain(self) -> int:
        return self.written.chains[self.held - 1] if self.held else self.start_chain

    @property
    def start_chain(self) -> int:
        return self.written.chain if self.start_known else 0

    @property
    def end_frames(self) -> int:
        """How many frames lie below the certificate's end."""
        assert self.certificate is not None
        return self.written.bounds.index(self.certificate.row.end)


@dataclass
class ModelStream:
    promise: Promise = NO_PROMISE
    synced: Promise = NO_PROMISE
    segments: dict[SegmentId, ModelSegment] = field(default_factory=dict)
    dropped: dict[SegmentId, int] = field(default_factory=dict)
    trimmed_before: int = 0
    trim_version: int = 0
    is_deleted: bool = False

    def refusal(self, promise: Promise) -> type[LunalogError] | None:
        """Who may act on this stream: the whole of R3's first guard."""
        if self.is_deleted:
            return GoneError
        if promise.epoch < self.promise.epoch:
            return FencedError
        if promise.epoch == self.promise.epoch and promise.leader != self.promise.leader:
            return FencedError
        return None

    def trimmed(self) -> list[SegmentId]:
        """Sealed segments of which nothing is kept."""
        return [
            segment
            for segment, held in self.segments.items()
            if held.certificate is not None and held.certificate.row.end <= self.trimmed_before
        ]

    def has_trimmed(self) -> bool:
        return bool(self.trimmed())

    def forget_trimmed(self) -> None:
        for segment in self.trimmed():
            del self.segments[segment]


Model = dict[bytes, ModelStream]


@dataclass
class Put:
    """One put of the log: its records, what is synced with it, and the model behind it."""

    records: list[Record]
    promise: Promise | None
    frame: Key | None
    stream: bytes
    after: Model


class ReplicaMachine(RuleBasedStateMachine):
    """Every rule asks the model first, then the replica."""

    def __init__(self) -> None:
        super().__init__()
        self.replica = Replica(INCARNATION)
        self.model: Model = {}
        self.base: list[Record] = []
        """What the last checkpoint holds."""
        self.base_model: Model = {}
        self.puts: list[Put] = []
        self.synced = 0
        self.promised: dict[bytes, Promise] = {}
        """The highest promise that was ever replied."""
        self.acked: dict[Key, int] = {}

    # ------------------------------------------------------------ tools

    def stream(self, stream: bytes) -> ModelStream:
        return self.model.get(stream) or ModelStream()

    def made(self, stream: bytes) -> ModelStream:
        return self.model.setdefault(stream, ModelStream())

    def put(
        self,
        stream: bytes,
        records: list[Record],
        promise: Promise | None = None,
        frame: Key | None = None,
    ) -> None:
        self.puts.append(Put(records, promise, frame, stream, copy.deepcopy(self.model)))

    def refused(self, error: type[LunalogError], call: Any, *arguments: Any) -> LunalogError:
        with pytest.raises(error) as found:
            call(*arguments)
        assert type(found.value) is error
        return found.value

    def pick(self, number: int) -> Key:
        """One of the segments held; one that is not where none is."""
        keys = [
            (stream, segment)
            for stream, state in self.model.items()
            for segment in sorted(state.segments)
        ]
        return keys[number % len(keys)] if keys else (STREAMS[0], SegmentId(1, 0))

    def held(self, stream: bytes, segment: SegmentId) -> tuple[ModelSegment, SegmentReplica] | None:
        known = self.stream(stream).segments.get(segment)
        found = self.replica.find(stream, segment)
        assert (known is None) == (found is None)
        return None if known is None or found is None else (known, found)

    # ------------------------------------------------------------ leaders

    @rule(stream=streams, segment=segments, right=st.integers(0, 9))
    def open(self, stream: bytes, segment: SegmentId, right: int) -> None:
        known = self.stream(stream)
        leader = leader_of(segment.epoch, twin=right == 8)
        if right < 7 and segment.epoch <= known.promise.epoch:  # mostly who may
            segment = SegmentId(known.promise.epoch, segment.n)
            leader = known.promise.leader
        promise = Promise(segment.epoch, leader)
        written = written_in(stream, segment)
        incarnation = INCARNATION + (right == 9)
        arguments = (stream, segment, leader, incarnation, written.first, written.chain, 1)
        held = known.segments.get(segment)
        error: type[LunalogError] | None = WrongIncarnationError if right == 9 else None
        error = error or known.refusal(promise)
        if error is None and held is not None and (held.certificate or not held.is_opened):
            error = SealedError
        if error is None and held is not None and held.leader != leader:
            error = ReplicaConflictError
        if error is None and held is None and segment in known.dropped:
            error = GoneError
        if error is not None:
            self.refused(error, self.replica.open, *arguments)
            return
        state = self.made(stream)
        is_raised = promise > state.promise
        state.promise = max(state.promise, promise)
        found, is_new, was_raised = self.replica.open(*arguments)
        assert (is_new, was_raised) == (held is None, is_raised)
        records: list[Record] = [PromiseRecord(stream, promise)] if is_raised else []
        if held is None:
            state.segments[segment] = ModelSegment(written, leader, is_opened=True)
            records.append(
                OpenRecord(stream, segment, leader, written.first, written.chain, 1)
            )  # fmt: skip
        assert found is self.replica.find(stream, segment)
        self.put(stream, records, promise)

    @rule(number=picks, what=st.sampled_from(["next"] * 6 + ["gap", "other"]))
    def append(self, number: int, what: str) -> None:
        stream, segment = self.pick(number)
        pair = self.held(stream, segment)
        if pair is None or not pair[0].leader:
            return
        known, held = pair
        place = known.held + (what == "gap")
        if what == "other":
            place = max(0, place - 1)
        if place >= FRAMES_MAX:
            return
        head = known.written.heads[place]
        crc = head.crc + (what == "other")
        error = self._append_error(
            known, self.stream(stream), segment, place, is_other=crc != head.crc
        )
        arguments = (self.replica.streams[stream], held, head.first, head.count, crc)
        if error is None and what != "other":
            assert self.replica.append(*arguments)
            known.held += 1
            self.put(stream, [self._frame(stream, segment, known, held)], frame=(stream, segment))
        elif error is None:  # there was none before it: the other one is the first and stays out
            assert known.held == 0
        else:
            refusal = self.refused(error, self.replica.append, *arguments)
            if isinstance(refusal, GapError):
                assert refusal.end == known.end

    def _append_error(
        self,
        known: ModelSegment,
        state: ModelStream,
        segment: SegmentId,
        number: int,
        *,
        is_other: bool = False,
    ) -> type[LunalogError] | None:
        error = state.refusal(Promise(segment.epoch, known.leader))
        if error is None and known.certificate is not None:
            error = SealedError
        if error is None and number > known.held:
            error = GapError
        if error is None and number < known.held and number < known.comparable_from:
            error = GapError
        if error is None and number < known.held and is_other:
            error = ReplicaConflictError
        return error

    def _frame(
        self, stream: bytes, segment: SegmentId, known: ModelSegment, held: SegmentReplica
    ) -> FrameRecord:
        head = known.written.heads[known.held - 1]
        return FrameRecord(stream, segment, held.committed, held.chain, head, b"frame")

    @rule(key=picks, number=st.integers(0, FRAMES_MAX - 1))
    def append_again(self, key: int, number: int) -> None:
        """A duplicate is acknowledged and changes nothing (the invariant compares all)."""
        stream, segment = self.pick(key)
        pair = self.held(stream, segment)
        if pair is None or not pair[0].leader or number >= pair[0].held:
            return
        known, held = pair
        head = known.written.heads[number]
        error = self._append_error(known, self.stream(stream), segment, number)
        arguments = (self.replica.streams[stream], held, head.first, head.count, head.crc)
        if error is None:
            assert not self.replica.append(*arguments)
        else:
            self.refused(error, self.replica.append, *arguments)

    @rule(stream=streams, segment=segments, promise=promises, right=st.integers(0, 9))
    def fence(self, stream: bytes, segment: SegmentId, promise: Promise, right: int) -> None:
        known = self.stream(stream)
        incarnation = INCARNATION - (right == 9)
        arguments = (stream, segment, 77, promise, incarnation)
        held = known.segments.get(segment)
        error: type[LunalogError] | None = WrongIncarnationError if right == 9 else None
        error = error or known.refusal(promise)
        if error is None and held is None and segment in known.dropped:
            error = GoneError
        if error is not None:
            self.refused(error, self.replica.fence, *arguments)
            return
        told, is_new = self.replica.fence(*arguments)
        state = self.made(stream)
        assert is_new == (promise > state.promise)
        state.promise = max(state.promise, promise)
        if held is None:
            assert told == FenceState(77, 0, 0, (), None)
        else:
            assert told == FenceState(held.end, held.chain, held.committed, (), held.certificate)
        self.put(stream, [PromiseRecord(stream, promise)] if is_new else [], promise)

    @rule(stream=streams, segment=segments, promise=promises)
    def check(self, stream: bytes, segment: SegmentId, promise: Promise) -> None:
        known = self.stream(stream)
        held = known.segments.get(segment)
        error = known.refusal(promise)
        if error is None and (held is None or not held.is_opened):
            error = NotOpenError
        if error is None and held is not None and held.certificate is not None:
            error = SealedError
        if error is None:
            self.replica.check(stream, segment, promise, INCARNATION)
        else:
            self.refused(error, self.replica.check, stream, segment, promise, INCARNATION)

    @rule(key=picks, frames=st.integers(0, FRAMES_MAX))
    def mark(self, key: int, frames: int) -> None:
        stream, segment = self.pick(key)
        pair = self.held(stream, segment)
        if pair is None:
            return
        known, held = pair
        committed = known.written.bounds[frames]
        before = held.readable
        assert self.replica.mark(held, committed) == (held.readable > before)
        if committed > known.committed:
            known.committed = committed
            self.put(stream, [MarkRecord(stream, segment, committed)])

    # ------------------------------------------------------------ certificates and space

    @rule(
        key=st.one_of(picks, picks, segments),
        frames=st.sampled_from([3, 3, 3, 4]),
        promise=promises,
        version=versions,
    )
    def certify(self, key: int | SegmentId, frames: int, promise: Promise, version: int) -> None:
        stream, segment = self.pick(key) if isinstance(key, int) else (STREAMS[0], key)
        known = self.stream(stream)
        written = written_in(stream, segment)
        row = SealedSegment(
            segment, written.first, written.bounds[frames], written.chains[frames - 1],
            (), 2, "ann", "takeover", 0, version,
        )  # fmt: skip
        certificate = Certificate(stream, row, promise)
        held = known.segments.get(segment)
        error: type[LunalogError] | None = None
        if known.is_deleted or version < known.dropped.get(segment, 0):
            error = GoneError
        elif held and held.certificate and held.certificate.row.end != row.end:
            error = ReplicaConflictError
        if error is not None:
            self.refused(error, self.replica.certify, certificate)
            return
        state = self.made(stream)
        is_new = promise > state.promise or held is None
        state.promise = max(state.promise, promise)
        state.dropped.pop(segment, None)
        if held is None:
            held = state.segments[segment] = ModelSegment(written, start_known=False)
        if held.certificate is None or held.certificate.row.version < version:
            held.certificate, is_new = certificate, True
        held.held = min(held.held, frames)
        held.durable = min(held.durable, held.held)
        found, was_new = self.replica.certify(certificate)
        assert was_new == is_new
        assert found is self.replica.find(stream, segment)
        records: list[Record] = [
            PromiseRecord(stream, promise), CertificateRecord(certificate),
        ]  # fmt: skip
        self.put(stream, records if is_new else [], promise)

    @rule(key=picks, ahead=st.sampled_from([0, 0, 0, 0, 1, -1, -2]))
    def pull(self, key: int, ahead: int) -> None:
        stream, segment = self.pick(key)
        pair = self.held(stream, segment)
        if pair is None or pair[0].certificate is None:
            return
        known, held = pair
        number = min(max(known.held + ahead, 0), FRAMES_MAX - 1)
        head = known.written.heads[number]
        before = known.written.chains[number - 1] if number else known.written.chain
        if known.held < number and head.first <= self.replica.streams[stream].trimmed_before:
            return  # it would skip what was truncated: no part of this model
        arguments = (stream, held, before, head.first, head.count, head.crc)
        if number < known.held:
            assert not self.replica.pulled(*arguments)
        elif number > known.held or number >= known.end_frames:
            self.refused(GapError, self.replica.pulled, *arguments)
        else:
            assert self.replica.pulled(*arguments)
            records: list[Record] = []
            if number == 0 and not known.is_opened:
                known.start_known = True
                records.append(BaseRecord(stream, segment, head.first, before))
            known.held += 1
            records.append(self._frame(stream, segment, known, held))
            self.put(stream, records, frame=(stream, segment))

    @rule(stream=streams, segment=segments, version=versions)
    def trim(self, stream: bytes, segment: SegmentId, version: int) -> None:
        before = written_in(stream, segment).bounds[3]
        known = self.model.get(stream)
        is_due = known is None or (
            version >= known.trim_version
            and (
                before > known.trimmed_before
                or (before == known.trimmed_before and known.has_trimmed())
            )
        )
        assert self.replica.trim(stream, before, version) == is_due
        if not is_due:
            return
        known = self.made(stream)
        if before > known.trimmed_before:
            known.trimmed_before, known.trim_version = before, version
        known.forget_trimmed()
        self.put(stream, [TrimRecord(stream, before, version)])

    @rule(stream=streams, segment=segments, promise=promises, version=versions)
    def drop(self, stream: bytes, segment: SegmentId, promise: Promise, version: int) -> None:
        known = self.stream(stream)
        held = known.segments.get(segment)
        newest = held.certificate.row.version if held and held.certificate else 0
        is_due = not known.is_deleted and version >= max(newest, known.dropped.get(segment, 0))
        assert self.replica.drop(stream, segment, promise, version) == is_due
        if not is_due:
            return
        state = self.made(stream)
        state.promise = max(state.promise, promise)
        state.segments.pop(segment, None)
        state.dropped[segment] = version
        self.put(
            stream,
            [PromiseRecord(stream, promise), DropRecord(stream, segment, promise, version)],
            promise,
        )

    @rule(stream=streams, promise=promises, luck=st.integers(0, 20))
    def delete(self, stream: bytes, promise: Promise, luck: int) -> None:
        known = self.stream(stream)
        if luck and not known.is_deleted:
            return
        assert self.replica.delete(stream, promise) == (not known.is_deleted)
        if known.is_deleted:
            return
        state = self.made(stream)
        state.promise = max(state.promise, promise)
        state.is_deleted = True
        state.segments.clear()
        state.dropped.clear()
        self.put(stream, [TombstoneRecord(stream, promise)], promise)

    # ------------------------------------------------------------ the log

    @precondition(lambda self: self.synced < len(self.puts))
    @rule(share=st.integers(1, 4))
    def sync(self, share: int) -> None:
        """Some of what is queued becomes durable: now it may be told."""
        until = min(len(self.puts), self.synced + share)
        for put in self.puts[self.synced : until]:
            if put.promise is not None and put.stream in self.model:
                self.replica.promise_synced(put.stream, put.promise)
                state = self.model[put.stream]
                state.synced = max(state.synced, put.promise)
                self.promised[put.stream] = state.synced
            if put.frame is not None:
                self._frame_synced(put)
        self.synced = until

    def _frame_synced(self, put: Put) -> None:
        assert put.frame is not None
        record = put.records[-1]
        assert isinstance(record, FrameRecord)
        pair = self.held(*put.frame)
        if pair is None:
            return  # dropped before it was synced
        known, held = pair
        held.durable = max(held.durable, min(record.head.end, held.end))
        count = known.written.bounds.index(min(record.head.end, known.end))
        known.durable = max(known.durable, count)
        self.acked[put.frame] = held.durable

    @rule(kept=st.floats(0, 1))
    def restart(self, kept: float) -> None:
        """Replay what was synced and a part of the rest: that state, and no other, comes back."""
        cut = self.synced + round(kept * (len(self.puts) - self.synced))
        self.model = copy.deepcopy(self.puts[cut - 1].after if cut else self.base_model)
        del self.puts[cut:]
        self.replica = Replica(INCARNATION)
        for record in self.base:
            facts.replay(self.replica, record, None)
        for put in self.puts:
            for record in put.records:
                facts.replay(self.replica, record, None)
        self.replica.settled()
        self.synced = cut
        for state in self.model.values():
            state.synced = state.promise
            state.forget_trimmed()
            for held in state.segments.values():
                held.durable = held.held
        for put in self.puts:
            put.after = copy.deepcopy(put.after)
        self._promised_is_kept()

    def _promised_is_kept(self) -> None:
        """I9: nothing that was replied is less after a restart."""
        for stream, promise in self.promised.items():
            assert self.replica.streams[stream].promise >= promise
        for (stream, segment), end in self.acked.items():
            held = self.replica.find(stream, segment)
            if held is not None and held.certificate is None:
                assert held.durable >= end

    @precondition(lambda self: self.synced == len(self.puts))
    @rule()
    def checkpoint(self) -> None:
        """What a checkpoint keeps stands for all records before it."""
        self.base = [*facts.snapshot(self.replica)]
        for stream, state in self.model.items():
            for segment, held in state.segments.items():
                self.base.append(
                    EndRecord(
                        stream,
                        segment,
                        held.written.bounds[0],
                        held.end,
                        held.chain,
                        held.committed,
                    )
                )
                held.comparable_from = held.held
        self.base_model = copy.deepcopy(self.model)
        self.puts.clear()
        self.synced = 0
        self.restart(0.0)

    # ------------------------------------------------------------ what must always hold

    @invariant()
    def is_as_the_model(self) -> None:
        assert set(self.replica.streams) == set(self.model)
        for stream, known in self.model.items():
            state = self.replica.streams[stream]
            assert state.promise == known.promise
            assert state.synced_promise == known.synced
            assert (state.trimmed_before, state.trim_version) == (
                known.trimmed_before, known.trim_version,
            )  # fmt: skip
            assert (state.versions or {}) == known.dropped
            assert state.is_deleted == known.is_deleted
            assert set(state.segments) == set(known.segments)
            for segment in known.segments:
                self._compare(known.segments[segment], state.segments[segment])

    def _compare(self, known: ModelSegment, held: SegmentReplica) -> None:
        written = known.written
        assert (held.first, held.start_chain) == (written.first, known.start_chain)
        assert held.end == known.end
        assert held.durable == written.bounds[known.durable]
        assert held.committed == known.committed
        assert held.certificate == known.certificate
        assert (held.leader, held.is_opened) == (known.leader, known.is_opened)
        if known.held or known.is_opened:
            assert held.chain == known.chain
        limit = known.certificate.row.end if known.certificate else held.committed
        assert held.readable == min(held.durable, limit)
        is_whole = known.certificate is not None and known.durable == known.end_frames
        assert held.is_complete == is_whole


TestReplicaModel = ReplicaMachine.TestCase
TestReplicaModel.settings = machine_settings(120, 50)
