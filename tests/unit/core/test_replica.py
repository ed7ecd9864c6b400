"""What one replica decides, rule by rule.  Tests are named for the rule that they hold."""

from __future__ import annotations

from typing import Any

import pytest

from lunalog.core import chain as chains
from lunalog.core.replica import RECENT_FRAMES_MAX, FenceState, Replica, SegmentReplica
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
    Certificate,
    Promise,
    SealedSegment,
    SegmentId,
)

STREAM, OTHER = b"s" * 16, b"t" * 16
ANN, BOB = b"a" * 16, b"b" * 16
SEGMENT = SegmentId(2, 0)
FIRST, CHAIN = 100, 7
INCARNATION = 3
NEXT = Promise(3, BOB)


def make() -> Replica:
    return Replica(INCARNATION)


def open_in(
    replica: Replica,
    segment: SegmentId = SEGMENT,
    leader: bytes = ANN,
    *,
    stream: bytes = STREAM,
    first: int = FIRST,
    chain: int = CHAIN,
    incarnation: int = INCARNATION,
) -> SegmentReplica:
    return replica.open(stream, segment, leader, incarnation, first, chain, 1)[0]


def append(replica: Replica, held: SegmentReplica, first: int, count: int = 1) -> bool:
    """Append a frame whose checksum tells its place."""
    return replica.append(replica.streams[STREAM], held, first, count, crc_of(first))


def crc_of(first: int) -> int:
    return first * 7919 % (1 << 32)


def chain_at(end: int, first: int = FIRST, chain: int = CHAIN) -> int:
    """The chain behind frames of one event each."""
    for sequence in range(first, end):
        chain = chains.extend(chain, sequence, 1, crc_of(sequence))
    return chain


def fence(
    replica: Replica,
    promise: Promise,
    segment: SegmentId = SEGMENT,
    *,
    incarnation: int = INCARNATION,
) -> tuple[FenceState, bool]:
    return replica.fence(STREAM, segment, FIRST, promise, incarnation)


def certificate(
    end: int,
    *,
    segment: SegmentId = SEGMENT,
    first: int = FIRST,
    chain: int | None = None,
    promise: Promise = NEXT,
    version: int = 1,
) -> Certificate:
    at_end = chain_at(end, first) if chain is None else chain
    row = SealedSegment(segment, first, end, at_end, (), 2, "ann", "takeover", 0, version)
    return Certificate(STREAM, row, promise)


def filled(replica: Replica, count: int = 5) -> SegmentReplica:
    """A segment with `count` durable frames of one event."""
    held = open_in(replica)
    for sequence in range(FIRST, FIRST + count):
        append(replica, held, sequence)
    held.durable = held.end
    return held


def state_of(replica: Replica) -> dict[Any, Any]:
    """All that a replica knows, to be compared."""
    found: dict[Any, Any] = {}
    for stream, state in replica.streams.items():
        found[stream] = (
            state.promise, state.trimmed_before, state.trim_version, state.versions,
            state.is_deleted,
        )  # fmt: skip
        for held in state.segments.values():
            found[stream, held.id] = (
                held.first, held.end, held.durable, held.chain, held.committed, held.certificate,
                held.unknown, held.leader, held.is_opened, held.generation,
            )  # fmt: skip
    return found


# ------------------------------------------------------------ R3: append


def test_r3_frames_join_without_a_gap() -> None:
    replica = make()
    held = open_in(replica)
    assert append(replica, held, 100, 3)
    assert append(replica, held, 103, 2)
    assert (held.end, held.durable) == (105, 100)
    with pytest.raises(GapError) as gap:
        append(replica, held, 106)
    assert gap.value.end == held.end == 105


def test_r3_a_frame_sent_again_is_acknowledged_again_and_changes_nothing() -> None:
    replica = make()
    held = open_in(replica)
    append(replica, held, 100)
    append(replica, held, 101)
    before = state_of(replica)
    assert not append(replica, held, 100)
    assert not append(replica, held, 101)
    assert state_of(replica) == before


@pytest.mark.parametrize(("first", "count", "crc"), [(100, 1, 1), (100, 2, 7), (101, 1, 7)])
def test_r3_another_frame_at_held_sequences_is_a_conflict(first: int, count: int, crc: int) -> None:
    """Another checksum, another count, or a frame that begins inside one."""
    replica = make()
    held = open_in(replica)
    state = replica.streams[STREAM]
    replica.append(state, held, 100, 3, 7)
    replica.append(state, held, 103, 1, 7)
    before = state_of(replica)
    with pytest.raises(ReplicaConflictError):
        replica.append(state, held, first, count, crc)
    assert state_of(replica) == before


def test_r3_a_frame_held_too_long_ago_to_compare_is_no_conflict() -> None:
    """The server cannot say, so it says where it stands; the leader goes on from there."""
    replica = make()
    held = filled(replica, RECENT_FRAMES_MAX + 2)
    with pytest.raises(GapError) as gap:
        append(replica, held, FIRST)
    assert gap.value.end == held.end
    assert not append(replica, held, FIRST + 2)


def test_r3_lower_epochs_are_refused_for_ever() -> None:
    replica = make()
    held = open_in(replica)
    fence(replica, Promise(3, BOB))
    for refused in (
        lambda: append(replica, held, FIRST),
        lambda: open_in(replica),
        lambda: open_in(replica, SegmentId(2, 1)),
        lambda: fence(replica, Promise(2, ANN)),
        lambda: replica.check(STREAM, SEGMENT, Promise(2, ANN), INCARNATION),
        lambda: replica.check_promise(STREAM, Promise(2, ANN)),
    ):
        with pytest.raises(FencedError) as fenced:
            refused()
        assert (fenced.value.epoch, fenced.value.incarnation) == (3, BOB)
    assert held.end == FIRST


def test_r3_another_leader_of_the_same_epoch_is_refused() -> None:
    replica = make()
    open_in(replica)
    for refused in (
        lambda: open_in(replica, SegmentId(2, 1), BOB),
        lambda: open_in(replica, SEGMENT, BOB),
        lambda: fence(replica, Promise(2, BOB)),
        lambda: replica.check(STREAM, SEGMENT, Promise(2, BOB), INCARNATION),
    ):
        with pytest.raises(FencedError):
            refused()
    assert replica.streams[STREAM].promise == Promise(2, ANN)


def test_r3_an_open_raises_the_promise() -> None:
    replica = make()
    first = replica.open(STREAM, SegmentId(2, 0), ANN, INCARNATION, 0, 0, 1)
    again = replica.open(STREAM, SegmentId(2, 1), ANN, INCARNATION, 0, 0, 1)
    later = replica.open(STREAM, SegmentId(5, 0), BOB, INCARNATION, 0, 0, 1)
    assert [(new, raised) for _, new, raised in (first, again, later)] == [
        (True, True), (True, False), (True, True),
    ]  # fmt: skip
    assert replica.streams[STREAM].promise == Promise(5, BOB)


def test_r3_an_open_is_idempotent_and_finds_what_was_appended() -> None:
    replica = make()
    held = open_in(replica)
    append(replica, held, FIRST)
    before = state_of(replica)
    assert replica.open(STREAM, SEGMENT, ANN, INCARNATION, FIRST, CHAIN, 1) == (held, False, False)
    assert state_of(replica) == before


@pytest.mark.parametrize("other", [{"first": 101}, {"chain": 8}])
def test_r3_an_open_with_other_bounds_is_a_conflict(other: dict[str, int]) -> None:
    replica = make()
    open_in(replica)
    with pytest.raises(ReplicaConflictError):
        open_in(replica, **other)  # type: ignore[arg-type]


def test_r3_no_append_opens_a_segment() -> None:
    """A certificate makes a segment known here, and still nobody may append to it."""
    replica = make()
    replica.open(STREAM, SegmentId(9, 0), ANN, INCARNATION, 0, 0, 1)
    held, _ = replica.certify(certificate(105, segment=SegmentId(9, 1), promise=Promise(9, ANN)))
    held.leader = ANN
    with pytest.raises(SealedError):
        append(replica, held, FIRST)
    with pytest.raises(SealedError):
        open_in(replica, SegmentId(9, 1))


def test_r3_a_damaged_segment_is_not_opened_again() -> None:
    replica = make()
    filled(replica)
    replica.damaged(STREAM, SEGMENT, (101, 103))
    with pytest.raises(UnknownDataError):
        open_in(replica)


def test_r3_streams_do_not_fence_each_other() -> None:
    replica = make()
    held = open_in(replica, stream=OTHER)
    fence(replica, Promise(9, BOB))
    assert replica.append(replica.streams[OTHER], held, FIRST, 1, 1)


def test_r19_another_incarnation_is_refused_before_anything_is_promised() -> None:
    replica = make()
    for incarnation in (INCARNATION - 1, INCARNATION + 1):
        for refused in (
            lambda inc=incarnation: open_in(replica, incarnation=inc),
            lambda inc=incarnation: fence(replica, Promise(9, BOB), incarnation=inc),
            lambda inc=incarnation: replica.check(STREAM, SEGMENT, Promise(9, BOB), inc),
        ):
            with pytest.raises(WrongIncarnationError) as wrong:
                refused()
            assert wrong.value.incarnation == INCARNATION
    assert replica.streams == {}


# ------------------------------------------------------------ R4, R5: durable ends, fences


def test_r4_what_is_queued_is_not_yet_a_fact() -> None:
    """Ends and promises that may leave the server wait for the log."""
    replica = make()
    held = open_in(replica)
    append(replica, held, FIRST)
    assert replica.durable_ends() == {}
    assert replica.promises() == {}
    replica.promise_synced(STREAM, Promise(2, ANN))
    held.durable = held.end
    assert replica.durable_ends() == {(STREAM, SEGMENT): FIRST + 1}
    assert replica.promises() == {STREAM: Promise(2, ANN)}


def test_r5_end_and_fence_are_one_answer() -> None:
    """The end of a fence reply counts what is queued before the promise; nothing comes behind it."""
    replica = make()
    held = open_in(replica)
    append(replica, held, FIRST)
    append(replica, held, FIRST + 1)
    replica.mark(held, FIRST + 1)
    told, is_new = fence(replica, Promise(3, BOB))
    assert is_new
    assert told == FenceState(FIRST + 2, chain_at(FIRST + 2), FIRST + 1, (), None)
    with pytest.raises(FencedError):
        append(replica, held, FIRST + 2)
    assert fence(replica, Promise(3, BOB)) == (told, False)


def test_r5_fences_only_grow() -> None:
    replica = make()
    assert fence(replica, Promise(3, BOB))[1]
    assert not fence(replica, Promise(3, BOB))[1]
    assert fence(replica, Promise(7, ANN))[1]
    with pytest.raises(FencedError):
        fence(replica, Promise(3, BOB))
    assert replica.streams[STREAM].promise == Promise(7, ANN)


def test_r5_a_segment_never_seen_is_fenced_too() -> None:
    replica = make()
    told, is_new = fence(replica, Promise(3, BOB))
    assert (told, is_new) == (FenceState(FIRST, 0, 0, (), None), True)
    with pytest.raises(FencedError):
        open_in(replica)


def test_r5_a_fence_tells_a_certificate_and_damage() -> None:
    replica = make()
    filled(replica)
    sealed = certificate(104)
    replica.certify(sealed)
    replica.damaged(STREAM, SEGMENT, (101, 102))
    told, _ = fence(replica, Promise(4, ANN))
    assert (told.end, told.unknown, told.certificate) == (104, ((101, 102),), sealed)


def test_r5_a_dropped_segment_is_no_absent_one() -> None:
    """Its bytes were here, so no negative may be told of them."""
    replica = make()
    filled(replica)
    assert replica.drop(STREAM, SEGMENT, Promise(3, BOB), 1)
    with pytest.raises(GoneError):
        fence(replica, Promise(4, ANN))


# ------------------------------------------------------------ R6, R18: damage


def test_r18_damage_makes_a_range_unknown_once_and_keeps_the_end() -> None:
    replica = make()
    held = filled(replica)
    replica.damaged(STREAM, SEGMENT, (101, 103))
    replica.damaged(STREAM, SEGMENT, (101, 103))
    replica.damaged(STREAM, SegmentId(8, 8), (101, 103))
    assert (held.unknown, held.end) == (((101, 103),), 105)
    assert fence(replica, Promise(3, BOB))[0].unknown == ((101, 103),)


def test_r18_damage_behind_the_end_was_held() -> None:
    """R6 must not take it for a negative."""
    replica = make()
    held = filled(replica)
    replica.damaged(STREAM, SEGMENT, (105, 108))
    assert held.end == 108
    assert fence(replica, Promise(3, BOB))[0].end == 108


def test_r18_damage_told_late_never_reaches_behind_a_certificate() -> None:
    """What a certificate cut off stays cut off."""
    replica = make()
    held = filled(replica)
    replica.certify(certificate(103))
    replica.damaged(STREAM, SEGMENT, (103, 105))
    assert (held.end, held.unknown, held.is_complete) == (103, (), True)
    replica.damaged(STREAM, SEGMENT, (102, 105))
    assert (held.end, held.unknown, held.is_complete) == (103, ((102, 103),), False)


# ------------------------------------------------------------ R12, R13: what readers see


def test_r12_readers_see_what_is_committed_and_durable() -> None:
    replica = make()
    held = open_in(replica)
    for sequence in range(100, 105):
        append(replica, held, sequence)
    replica.mark(held, 100)
    assert not replica.mark(held, 103)  # nothing of it is durable: readers see no more
    assert held.readable == 100
    held.durable = 102
    assert held.readable == 102
    held.durable = 105
    assert held.readable == 103
    assert replica.mark(held, 104)
    assert not replica.mark(held, 104)
    assert not replica.mark(held, 101)
    assert (held.committed, held.readable) == (104, 104)


def test_r12_a_mark_is_of_one_segment() -> None:
    replica = make()
    old = filled(replica)
    replica.mark(old, 103)
    new = open_in(replica, SegmentId(4, 0), BOB, first=103, chain=chain_at(103))
    assert (new.committed, new.readable) == (0, 0)
    replica.append(replica.streams[STREAM], new, 103, 1, 5)
    new.durable = new.end
    replica.mark(new, 104)
    assert (old.committed, old.readable) == (103, 103)


def test_r13_a_certificate_lets_readers_go_to_its_end_and_no_further() -> None:
    replica = make()
    held = filled(replica)
    replica.certify(certificate(103))
    assert held.readable == 103
    replica.mark(held, 105)
    assert held.readable == 103


# ------------------------------------------------------------ R14: checks


def test_r14_a_check_needs_an_open_unfenced_unsealed_segment() -> None:
    replica = make()
    mine = Promise(2, ANN)
    with pytest.raises(NotOpenError):
        replica.check(STREAM, SEGMENT, mine, INCARNATION)
    assert replica.streams == {}
    filled(replica)
    replica.check(STREAM, SEGMENT, mine, INCARNATION)
    with pytest.raises(NotOpenError):
        replica.check(STREAM, SegmentId(2, 1), mine, INCARNATION)
    replica.certify(certificate(103, promise=mine))
    with pytest.raises(SealedError):
        replica.check(STREAM, SEGMENT, mine, INCARNATION)
    fence(replica, Promise(3, BOB))
    with pytest.raises(FencedError):
        replica.check(STREAM, SEGMENT, mine, INCARNATION)


def test_r14_a_segment_that_is_only_listed_here_is_not_open() -> None:
    replica = make()
    replica.certify(certificate(103))
    with pytest.raises(NotOpenError):
        replica.check(STREAM, SEGMENT, Promise(3, BOB), INCARNATION)


# ------------------------------------------------------------ R20, R21: certificates and pulls


def test_r21_a_certificate_cuts_what_lies_behind_it_and_raises_the_promise() -> None:
    replica = make()
    held = filled(replica)
    found, is_new = replica.certify(certificate(103))
    assert (found, is_new) == (held, True)
    assert (held.end, held.durable, held.chain) == (103, 103, chain_at(103))
    assert held.is_complete
    assert replica.streams[STREAM].promise == Promise(3, BOB)
    with pytest.raises(FencedError):
        append(replica, held, 103)


def test_r21_the_leader_of_a_sealed_segment_appends_no_more_to_it() -> None:
    """Also when the certificate is of the leader's own roll, so that no promise refuses it."""
    replica = make()
    held = filled(replica)
    replica.certify(certificate(105, promise=Promise(2, ANN)))
    with pytest.raises(SealedError):
        append(replica, held, 105)
    with pytest.raises(SealedError):
        open_in(replica)


def test_r21_a_certificate_again_changes_nothing() -> None:
    replica = make()
    filled(replica)
    replica.certify(certificate(103))
    before = state_of(replica)
    assert not replica.certify(certificate(103))[1]
    assert state_of(replica) == before


def test_r21_only_a_newer_row_replaces_a_certificate() -> None:
    replica = make()
    held = filled(replica)
    replica.certify(certificate(103, version=2))
    assert not replica.certify(certificate(103, version=1))[1]
    assert held.certificate == certificate(103, version=2)
    assert replica.certify(certificate(103, version=3))[1]
    assert held.certificate == certificate(103, version=3)


def test_r21_a_newer_promise_in_an_old_certificate_is_kept() -> None:
    replica = make()
    filled(replica)
    replica.certify(certificate(103))
    assert replica.certify(certificate(103, promise=Promise(8, ANN)))[1]
    assert replica.streams[STREAM].promise == Promise(8, ANN)


@pytest.mark.parametrize("other", [{"end": 104}, {"end": 103, "chain": 1}])
def test_r21_two_ends_of_one_segment_are_a_conflict(other: dict[str, int]) -> None:
    replica = make()
    filled(replica)
    replica.certify(certificate(103))
    before = state_of(replica)
    with pytest.raises(ReplicaConflictError):
        replica.certify(certificate(**other, promise=Promise(9, ANN)))  # type: ignore[arg-type]
    assert state_of(replica) == before


def test_r21_a_certificate_of_other_bytes_is_a_conflict() -> None:
    replica = make()
    filled(replica)
    before = state_of(replica)
    with pytest.raises(ReplicaConflictError):
        replica.certify(certificate(105, chain=1))
    assert state_of(replica) == before


def test_r21_a_certificate_cuts_damage_behind_the_end() -> None:
    replica = make()
    held = filled(replica)
    replica.damaged(STREAM, SEGMENT, (101, 102))
    replica.damaged(STREAM, SEGMENT, (102, 105))
    replica.damaged(STREAM, SEGMENT, (104, 105))
    replica.certify(certificate(103))
    assert held.unknown == ((101, 102), (102, 103))
    assert not held.is_complete


def test_r21_a_laggard_takes_the_end_and_then_the_frames() -> None:
    replica = make()
    held = filled(replica, 2)
    replica.certify(certificate(105))
    assert (held.end, held.is_complete) == (102, False)
    for sequence in (102, 103, 104):
        assert replica.pulled(STREAM, held, 0, sequence, 1, crc_of(sequence))
    assert not replica.pulled(STREAM, held, 0, 103, 1, crc_of(103))
    assert (held.end, held.chain, held.is_complete) == (105, chain_at(105), False)
    held.durable = held.end
    assert held.is_complete


def test_r21_a_server_that_is_only_listed_pulls_from_the_first_frame_on() -> None:
    replica = make()
    held, is_new = replica.certify(certificate(103))
    assert is_new
    assert (held.end, held.readable) == (FIRST, FIRST)
    for sequence in (100, 101, 102):
        before = chain_at(sequence)
        assert replica.pulled(STREAM, held, before, sequence, 1, crc_of(sequence))
    assert (held.start_chain, held.chain) == (CHAIN, chain_at(103))


def test_r20_no_pull_without_a_certificate() -> None:
    replica = make()
    held = filled(replica)
    with pytest.raises(InvariantError):
        replica.pulled(STREAM, held, 0, 105, 1, 1)


def test_r21_what_was_truncated_meanwhile_is_skipped() -> None:
    """No peer has it any more: the replica is complete with what is kept."""
    replica = make()
    held = filled(replica, 2)
    replica.certify(certificate(106))
    replica.trim(STREAM, 104, 9)
    with pytest.raises(GapError):
        replica.pulled(STREAM, held, chain_at(105), 105, 1, crc_of(105))
    for sequence in (104, 105):
        assert replica.pulled(STREAM, held, chain_at(sequence), sequence, 1, crc_of(sequence))
    held.durable = held.end
    assert held.is_complete
    again = make()
    filled(again, 2)
    again.certify(certificate(106))
    again.trim(STREAM, 104, 9)
    again.held_frame(STREAM, SEGMENT, 0, chain_at(105), (104, 105), 1, is_damaged=False)
    assert again.streams[STREAM].segments[SEGMENT].unknown == ()


@pytest.mark.parametrize(("first", "count"), [(103, 1), (102, 4), (101, 4)])
def test_r20_pulled_frames_join_and_stay_below_the_end(first: int, count: int) -> None:
    replica = make()
    held = filled(replica, 2)
    replica.certify(certificate(105))
    before = state_of(replica)
    with pytest.raises(GapError):
        replica.pulled(STREAM, held, 0, first, count, 1)
    assert state_of(replica) == before


def test_r20_what_does_not_match_the_rows_chain_never_completes_a_replica() -> None:
    """A peer whose frames pass their checksums and still are not the ones that were sealed."""
    replica = make()
    held = filled(replica, 2)
    replica.certify(certificate(105))
    replica.pulled(STREAM, held, 0, 102, 1, crc_of(102))
    replica.pulled(STREAM, held, 0, 103, 1, 4711)
    before = state_of(replica)
    with pytest.raises(ReplicaConflictError):
        replica.pulled(STREAM, held, 0, 104, 1, crc_of(104))
    assert state_of(replica) == before


# ------------------------------------------------------------ R22, R30: truncation and deletion


def test_r22_a_trim_drops_whole_sealed_segments_only() -> None:
    replica = make()
    sealed = filled(replica)
    replica.certify(certificate(105))
    later = open_in(replica, SegmentId(4, 0), BOB, first=105, chain=chain_at(105))
    assert replica.trim(STREAM, 104, 1)
    assert replica.find(STREAM, SEGMENT) is sealed
    assert replica.trim(STREAM, 107, 2)
    assert replica.find(STREAM, SEGMENT) is None
    assert replica.find(STREAM, SegmentId(4, 0)) is later


def test_r22_a_trim_forgets_damage_below_it() -> None:
    replica = make()
    held = filled(replica)
    replica.damaged(STREAM, SEGMENT, (100, 102))
    replica.damaged(STREAM, SEGMENT, (102, 104))
    replica.trim(STREAM, 103, 1)
    assert held.unknown == ((103, 104),)


def test_r30_an_older_trim_changes_nothing() -> None:
    replica = make()
    assert not replica.trim(STREAM, 103, 5)
    filled(replica)
    assert replica.trim(STREAM, 103, 5)
    before = state_of(replica)
    assert not replica.trim(STREAM, 103, 6)
    assert not replica.trim(STREAM, 101, 7)
    assert not replica.trim(STREAM, 104, 4)
    assert state_of(replica) == before


def test_r22_a_drop_fences_so_that_no_late_append_resurrects() -> None:
    replica = make()
    held = filled(replica)
    assert replica.drop(STREAM, SEGMENT, Promise(3, BOB), 1)
    assert replica.find(STREAM, SEGMENT) is None
    with pytest.raises(FencedError):
        append(replica, held, 105)
    with pytest.raises(FencedError):
        open_in(replica)
    with pytest.raises(GoneError):
        fence(replica, Promise(3, BOB))


def test_r22_a_dropped_segment_is_not_opened_again_by_its_own_epoch() -> None:
    replica = make()
    filled(replica)
    replica.drop(STREAM, SEGMENT, Promise(2, ANN), 1)
    with pytest.raises(GoneError):
        open_in(replica)


def test_r30_an_older_drop_is_refused() -> None:
    replica = make()
    held = filled(replica)
    replica.certify(certificate(105, version=4))
    assert not replica.drop(STREAM, SEGMENT, Promise(9, BOB), 3)
    assert replica.find(STREAM, SEGMENT) is held
    assert replica.streams[STREAM].promise == Promise(3, BOB)
    assert replica.drop(STREAM, SEGMENT, Promise(3, BOB), 4)
    assert not replica.drop(STREAM, SEGMENT, Promise(9, BOB), 3)


def test_r30_a_certificate_older_than_a_drop_is_refused() -> None:
    replica = make()
    filled(replica)
    replica.certify(certificate(105, version=4))
    replica.drop(STREAM, SEGMENT, Promise(3, BOB), 5)
    with pytest.raises(GoneError):
        replica.certify(certificate(105, version=4, promise=Promise(9, ANN)))
    assert replica.find(STREAM, SEGMENT) is None
    assert replica.streams[STREAM].promise == Promise(3, BOB)


def test_r30_a_replica_listed_again_lives_and_outlives_a_late_drop() -> None:
    replica = make()
    filled(replica)
    replica.drop(STREAM, SEGMENT, Promise(3, BOB), 5)
    held, is_new = replica.certify(certificate(105, version=6))
    assert is_new
    assert not replica.drop(STREAM, SEGMENT, Promise(3, BOB), 5)
    assert replica.find(STREAM, SEGMENT) is held


def test_r22_a_deleted_stream_keeps_its_tombstone_and_refuses_all() -> None:
    replica = make()
    held = filled(replica)
    assert replica.delete(STREAM, Promise(3, BOB))
    assert not replica.delete(STREAM, Promise(4, BOB))
    for refused in (
        lambda: append(replica, held, 105),
        lambda: open_in(replica, SegmentId(9, 0), BOB),
        lambda: fence(replica, Promise(9, BOB)),
        lambda: replica.check(STREAM, SEGMENT, Promise(9, BOB), INCARNATION),
        lambda: replica.certify(certificate(105, promise=Promise(9, BOB))),
    ):
        with pytest.raises(GoneError):
            refused()
    assert replica.streams[STREAM].segments == {}
    assert replica.streams[STREAM].promise == Promise(3, BOB)


def test_r22_the_tombstone_of_a_stream_never_seen_is_kept() -> None:
    replica = make()
    assert replica.delete(STREAM, Promise(3, BOB))
    with pytest.raises(GoneError):
        open_in(replica, SegmentId(9, 0))


# ------------------------------------------------------------ R16, R29: the log, read back


def replayed(*, is_damaged: bool = False, frames: int = 5) -> Replica:
    """A replica that read its log back: a promise, an open, frames."""
    replica = make()
    replica.promised(STREAM, Promise(2, ANN))
    replica.opened(STREAM, SEGMENT, ANN, FIRST, CHAIN, 1)
    for sequence in range(FIRST, FIRST + frames):
        end = sequence + 1
        replica.held_frame(
            STREAM, SEGMENT, 101, chain_at(end), (sequence, end), crc_of(sequence),
            is_damaged=is_damaged and sequence == 102,
        )  # fmt: skip
    replica.settled()
    return replica


def test_r16_what_is_read_back_is_what_was_there() -> None:
    live = make()
    held = filled(live)
    live.mark(held, 101)
    live.promise_synced(STREAM, Promise(2, ANN))
    back = replayed()
    assert state_of(back) == state_of(live)
    assert back.promises() == live.promises()
    assert back.durable_ends() == live.durable_ends()


def test_r16_reading_a_record_twice_changes_nothing() -> None:
    replica = replayed()
    before = state_of(replica)
    replica.promised(STREAM, Promise(1, BOB))
    replica.opened(STREAM, SEGMENT, ANN, FIRST, CHAIN, 1)
    for sequence in (100, 104):
        replica.held_frame(
            STREAM, SEGMENT, 100, 1, (sequence, sequence + 1), 1, is_damaged=False
        )  # fmt: skip
    replica.held_until(STREAM, SEGMENT, (FIRST, 103), 1, 100)
    assert state_of(replica) == before


def test_r3_frames_read_back_are_known_when_they_are_sent_again() -> None:
    replica = replayed()
    held = open_in(replica)
    assert not append(replica, held, 104)
    with pytest.raises(ReplicaConflictError):
        replica.append(replica.streams[STREAM], held, 104, 1, 1)
    assert append(replica, held, 105)


def test_r18_a_damaged_frame_read_back_is_unknown_and_held() -> None:
    replica = replayed(is_damaged=True)
    held = replica.find(STREAM, SEGMENT)
    assert held is not None
    assert (held.end, held.unknown) == (105, ((102, 103),))


def test_r18_a_hole_between_frames_read_back_is_unknown() -> None:
    replica = replayed(frames=1)
    replica.held_frame(STREAM, SEGMENT, 0, chain_at(104), (103, 104), 1, is_damaged=False)
    held = replica.find(STREAM, SEGMENT)
    assert held is not None
    assert (held.end, held.unknown, held.chain) == (104, ((101, 103),), chain_at(104))


def test_r18_frames_whose_open_was_lost_are_a_witness_that_takes_no_appends() -> None:
    replica = make()
    replica.held_frame(STREAM, SEGMENT, 101, chain_at(101), (100, 101), 1, is_damaged=False)
    replica.settled()
    held = replica.find(STREAM, SEGMENT)
    assert held is not None
    assert (held.first, held.durable, held.readable) == (100, 101, 101)
    with pytest.raises(SealedError):
        open_in(replica)
    with pytest.raises(NotOpenError):
        replica.check(STREAM, SEGMENT, Promise(2, ANN), INCARNATION)


def test_r29_a_checkpoint_stands_for_the_frames_before_it() -> None:
    replica = make()
    replica.opened(STREAM, SEGMENT, ANN, FIRST, CHAIN, 1)
    replica.held_until(STREAM, SEGMENT, (FIRST, 104), chain_at(104), 102)
    replica.held_frame(
        STREAM, SEGMENT, 102, chain_at(105), (104, 105), crc_of(104), is_damaged=False
    )  # fmt: skip
    replica.settled()
    held = replica.find(STREAM, SEGMENT)
    assert held is not None
    assert (held.end, held.chain, held.committed) == (105, chain_at(105), 102)
    assert (held.unknown, held.readable) == ((), 102)


def test_r29_a_checkpoint_with_damage_at_the_end_tells_the_chain_there() -> None:
    """The damage is told first; the end that it reaches is still the checkpoint's."""
    replica = make()
    replica.opened(STREAM, SEGMENT, ANN, FIRST, CHAIN, 1)
    replica.damaged(STREAM, SEGMENT, (103, 105))
    replica.held_until(STREAM, SEGMENT, (FIRST, 105), chain_at(105), 102)
    held = replica.find(STREAM, SEGMENT)
    assert held is not None
    assert (held.end, held.chain) == (105, chain_at(105))


def test_r29_a_checkpoint_keeps_what_has_lost_its_open_record() -> None:
    """Damage took it: the frames are held none the less, and below what is kept nothing is."""
    replica = make()
    replica.held_until(STREAM, SEGMENT, (FIRST, 104), chain_at(104), 102)
    held = replica.find(STREAM, SEGMENT)
    assert held is not None
    assert (held.first, held.end, held.is_opened) == (FIRST, 104, False)
    replica.trim(STREAM, 110, 5)
    replica.held_until(STREAM, SegmentId(1, 0), (90, 100), 1, 1)
    assert replica.find(STREAM, SegmentId(1, 0)) is None


def test_r29_frames_that_a_certificate_cut_do_not_come_back() -> None:
    """The checkpoint holds the certificate and an end from before the cut."""
    replica = make()
    replica.opened(STREAM, SEGMENT, ANN, FIRST, CHAIN, 1)
    replica.certify(certificate(103))
    replica.held_until(STREAM, SEGMENT, (FIRST, 105), chain_at(105), 105)
    replica.held_frame(STREAM, SEGMENT, 0, chain_at(104), (103, 104), 1, is_damaged=False)
    held = replica.find(STREAM, SEGMENT)
    assert held is not None
    assert (held.end, held.chain, held.unknown) == (103, chain_at(103), ())


def test_r22_what_was_dropped_or_deleted_does_not_come_back() -> None:
    for forget in (
        lambda r: r.drop(STREAM, SEGMENT, Promise(3, BOB), 1),
        lambda r: r.delete(STREAM, Promise(3, BOB)),
    ):
        replica = make()
        forget(replica)
        replica.opened(STREAM, SEGMENT, ANN, FIRST, CHAIN, 1)
        replica.held_frame(STREAM, SEGMENT, 0, 1, (100, 101), 1, is_damaged=False)
        replica.held_until(STREAM, SEGMENT, (FIRST, 104), 1, 1)
        assert replica.streams[STREAM].segments == {}
        assert replica.streams[STREAM].promise == Promise(3, BOB)


def test_r30_frames_of_a_replica_listed_again_are_read_back() -> None:
    """Dropped, listed again by a newer row, pulled: a restart must find it."""
    replica = replayed()
    replica.drop(STREAM, SEGMENT, Promise(3, BOB), 5)
    replica.certify(certificate(105, version=6))
    for sequence in range(100, 105):
        end = sequence + 1
        replica.held_frame(
            STREAM, SEGMENT, 0, chain_at(end), (sequence, end), 1, is_damaged=False
        )  # fmt: skip
    replica.settled()
    held = replica.find(STREAM, SEGMENT)
    assert held is not None
    assert (held.end, held.is_complete) == (105, True)
