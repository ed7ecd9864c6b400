"""What one replica decides, rule by rule.  Tests are named for the rule that they hold."""

from __future__ import annotations

import pytest
from tests.unit.core.replicas import (
    ANN,
    BOB,
    CHAIN,
    FIRST,
    INCARNATION,
    OTHER,
    SEGMENT,
    STREAM,
    append,
    certificate,
    chain_at,
    fence,
    filled,
    make,
    open_in,
    state_of,
)

from lunalog.core.held import RECENT_FRAMES_MAX, FenceState
from lunalog.errors import (
    FencedError,
    GapError,
    GoneError,
    NotOpenError,
    ReplicaConflictError,
    SealedError,
    UnknownDataError,
    WrongIncarnationError,
)
from lunalog.types import (
    Promise,
    SegmentId,
)

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


def test_r18_damage_told_late_never_reaches_below_what_is_kept() -> None:
    replica = make()
    held = filled(replica)
    replica.trim(STREAM, 103, 1)
    replica.damaged(STREAM, SEGMENT, (101, 103))
    assert held.unknown == ()
    replica.damaged(STREAM, SEGMENT, (101, 104))
    assert held.unknown == ((103, 104),)


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


def test_a_segment_says_what_is_held_of_it() -> None:
    held = filled(make())
    assert repr(held).startswith("<SegmentReplica 2.0 [100, 105) durable=105 committed=0")
    assert "row=None" in repr(held)
    held.certificate = certificate(105)
    assert "row=SealedSegment" in repr(held)
