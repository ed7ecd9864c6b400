"""One open segment: what its leader may call committed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunalog.core.replication import SegmentReplication
from lunalog.errors import PeerError, StorageError
from lunalog.types import Member, OpenSegment, SegmentId

MEMBERS = (Member("a", 1), Member("b", 1), Member("c", 1))


def segment(first: int = 10, ack_quorum: int = 2) -> SegmentReplication:
    return SegmentReplication(OpenSegment(SegmentId(3, 0), first, 77, MEMBERS, ack_quorum))


def test_committed_is_what_an_ack_quorum_holds() -> None:
    found = segment()
    a, b, c = found.replicas
    assert not found.accepted(a, 20, 30)
    assert found.held == 10
    assert found.accepted(b, 15, 30)
    assert found.held == 15
    assert found.accepted(c, 30, 30)
    assert found.held == 20


def test_late_and_repeated_acks_move_nothing() -> None:
    found = segment()
    a, b, _ = found.replicas
    found.accepted(a, 20, 30)
    found.accepted(b, 20, 30)
    assert not found.accepted(a, 12, 30)
    assert not found.accepted(a, 20, 30)
    assert (a.matched, found.held) == (20, 20)


def test_an_ack_of_what_was_never_written_does_not_count() -> None:
    found = segment()
    with pytest.raises(PeerError):
        found.accepted(found.replicas[0], 31, 30)
    assert found.replicas[0].matched == 10


def test_acks_count_up_to_the_boundary_only() -> None:
    found = segment()
    a, b, _ = found.replicas
    found.bind(15)
    found.accepted(a, 30, 30)
    assert found.accepted(b, 30, 30)
    assert found.held == 15


def test_a_failed_member_counts_no_more_and_who_lost_data_not_at_all() -> None:
    found = segment()
    a, b, c = found.replicas
    found.accepted(a, 20, 30)
    found.fail(a, StorageError("an old disk"), lost=True)
    assert not found.accepted(a, 30, 30)
    assert not found.accepted(b, 20, 30)
    assert found.held == 10
    assert found.accepted(c, 18, 30)
    assert found.held == 18


@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 2), st.integers(10, 40)), max_size=40),
    st.integers(10, 40),
)
def test_held_never_moves_back_and_is_on_a_members(
    ack_quorum: int, acks: list[tuple[int, int]], bound: int
) -> None:
    found = segment(ack_quorum=ack_quorum)
    for index, (who, end) in enumerate(acks):
        before = found.held
        if index == len(acks) // 2:
            found.bind(bound)
        found.accepted(found.replicas[who], end, 40)
        assert found.held >= before
        assert sum(r.matched >= found.held for r in found.replicas) >= ack_quorum
