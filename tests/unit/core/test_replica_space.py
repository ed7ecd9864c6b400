"""What one replica decides when segments end, are copied, truncated and read back, rule by rule."""

from __future__ import annotations

import pytest
from tests.unit.core.replicas import (
    ANN,
    BOB,
    CHAIN,
    FIRST,
    INCARNATION,
    NEXT,
    SEGMENT,
    STREAM,
    append,
    certificate,
    chain_at,
    crc_of,
    fence,
    filled,
    make,
    open_in,
    state_of,
)

from lunalog.core.replica import Replica
from lunalog.errors import (
    FencedError,
    GapError,
    GoneError,
    InvariantError,
    NotOpenError,
    ReplicaConflictError,
    SealedError,
)
from lunalog.types import (
    Promise,
    SegmentId,
)

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


@pytest.mark.parametrize(
    ("trimmed", "unknown"), [(0, ((100, 102),)), (101, ((101, 102),)), (103, ())]
)
def test_r21_a_replica_that_lost_where_its_segment_begins_is_not_complete(
    trimmed: int, unknown: tuple[tuple[int, int], ...]
) -> None:
    """R18: its OPEN record and the first frames were damaged; what the chain proves is the end only."""
    replica = make()
    for sequence in (102, 103, 104):
        span, chain = (sequence, sequence + 1), chain_at(sequence + 1)
        replica.held_frame(STREAM, SEGMENT, 0, chain, span, crc_of(sequence), is_damaged=False)
    replica.settled()
    if trimmed:
        replica.trim(STREAM, trimmed, 1)
    held, _ = replica.certify(certificate(105))
    assert (held.first, held.end, held.unknown) == (FIRST, 105, unknown)
    assert held.is_complete == (not unknown)
    replica.certify(certificate(105, version=2))
    assert held.unknown == unknown


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


def test_r22_a_segment_sealed_below_the_trim_goes_with_the_next_trim_or_restart() -> None:
    """A checkpoint tells of a trim before the records that were put before it."""
    for again in (lambda r: r.trim(STREAM, 105, 1), lambda r: r.settled()):
        replica = make()
        filled(replica)
        replica.trim(STREAM, 105, 1)
        replica.certify(certificate(105))
        assert not replica.trim(STREAM, 105, 0)
        assert replica.find(STREAM, SEGMENT) is not None
        again(replica)
        assert replica.find(STREAM, SEGMENT) is None


def test_r22_a_trim_forgets_damage_below_it() -> None:
    replica = make()
    held = filled(replica)
    replica.damaged(STREAM, SEGMENT, (100, 102))
    replica.damaged(STREAM, SEGMENT, (102, 104))
    replica.trim(STREAM, 103, 1)
    assert held.unknown == ((103, 104),)


def test_r22_what_is_kept_of_a_segment_begins_where_it_was_told_last() -> None:
    replica = make()
    replica.based(STREAM, SEGMENT, (101, 5))  # nothing of it is held
    assert replica.find(STREAM, SEGMENT) is None
    held = filled(replica)
    replica.based(STREAM, SEGMENT, (103, 9))
    replica.based(STREAM, SEGMENT, (102, 8))
    assert held.base == (103, 9)
    assert held.start_chain == CHAIN


def test_r22_a_segment_that_is_only_listed_takes_the_chain_where_it_begins_from_its_base() -> None:
    """Its row tells the chain at the end only; frames that are pulled have to join from there."""
    replica = make()
    replica.certify(certificate(105))
    held = replica.find(STREAM, SEGMENT)
    assert held is not None
    assert not held.is_opened
    replica.based(STREAM, SEGMENT, (FIRST, CHAIN))
    assert (held.base, held.start_chain) == ((FIRST, CHAIN), CHAIN)
    replica.based(STREAM, SEGMENT, (103, 9))
    assert (held.base, held.start_chain) == ((103, 9), CHAIN), "that is not where it begins"


def test_r30_an_older_trim_changes_nothing() -> None:
    replica = make()
    filled(replica)
    assert replica.trim(STREAM, 103, 5)
    before = state_of(replica)
    assert not replica.trim(STREAM, 103, 6)
    assert not replica.trim(STREAM, 101, 7)
    assert not replica.trim(STREAM, 104, 4)
    assert state_of(replica) == before


def test_r21_a_trim_counts_for_what_comes_later() -> None:
    """A server that lost its disk may hear of it before it knows the stream: peers have no more."""
    replica = make()
    assert not replica.trim(STREAM, 0, 5)
    assert not replica.streams
    assert replica.trim(STREAM, 103, 5)
    assert not replica.trim(STREAM, 103, 5)
    assert replica.streams[STREAM].trimmed_before == 103


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


def test_r30_each_dropped_segment_has_a_version_of_its_own() -> None:
    replica = make()
    filled(replica)
    other = SegmentId(2, 1)
    assert replica.drop(STREAM, SEGMENT, NEXT, 4)
    assert replica.drop(STREAM, other, NEXT, 2)
    assert replica.streams[STREAM].versions == {SEGMENT: 4, other: 2}
    assert not replica.drop(STREAM, SEGMENT, NEXT, 3)
    assert replica.drop(STREAM, other, NEXT, 3)


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
    replica.based(STREAM, SEGMENT, (100, CHAIN))
    for sequence in range(100, 105):
        end = sequence + 1
        replica.held_frame(
            STREAM, SEGMENT, 0, chain_at(end), (sequence, end), 1, is_damaged=False
        )  # fmt: skip
    replica.settled()
    held = replica.find(STREAM, SEGMENT)
    assert held is not None
    assert (held.end, held.is_complete) == (105, True)


@pytest.mark.parametrize("old", [range(100, 105), range(102, 105)], ids=["all", "the last"])
def test_r30_what_was_held_before_a_drop_is_not_told_behind_the_new_listing(old: range) -> None:
    """A checkpoint knows the new listing, and the log behind it begins before the drop.

    It would be unknown data in a sound replica, without a chain to begin with, that no peer mends.
    """
    replica = Replica(1)
    replica.certify(certificate(105, version=6))  # all that the checkpoint tells
    replica.opened(STREAM, SEGMENT, ANN, FIRST, CHAIN, 1)
    for sequence in old:
        span = sequence, sequence + 1
        replica.held_frame(STREAM, SEGMENT, 0, chain_at(span[1]), span, 1, is_damaged=False)
    replica.drop(STREAM, SEGMENT, Promise(3, BOB), 5)
    replica.certify(certificate(105, version=6))
    replica.damaged(STREAM, SEGMENT, (FIRST, old[0]))  # what the index says of these frames
    held = replica.find(STREAM, SEGMENT)
    assert held is not None
    assert (held.end, held.unknown, held.is_opened) == (FIRST, (), False)
    replica.based(STREAM, SEGMENT, (100, CHAIN))
    assert held.start_chain == CHAIN
    for sequence in range(100, 105):
        span = sequence, sequence + 1
        replica.held_frame(STREAM, SEGMENT, 0, chain_at(span[1]), span, 1, is_damaged=False)
    replica.settled()
    assert held.is_complete
