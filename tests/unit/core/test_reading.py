"""A reader finds its place by sequence, and only sealed metadata ends a segment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lunalog.core.reading import (
    AtTail,
    InSegment,
    NotKnown,
    ReplicaChoice,
    check_run,
    locate,
    resolve_start,
)
from lunalog.errors import PeerError, TruncatedError
from lunalog.types import (
    Member,
    OpenSegment,
    Policy,
    SealedSegment,
    SegmentId,
    ServerAddress,
    StreamHead,
    StreamView,
)

MEMBERS = tuple(Member(f"s{n}", 1) for n in range(3))


def view(*bounds, open_first=None, after=None, trim=0):
    rows = tuple(
        SealedSegment(SegmentId(1, n), first, end, 0, MEMBERS, 2, "p", "size", 0)
        for n, (first, end) in enumerate(bounds)
    )
    opened = None if open_first is None else OpenSegment(SegmentId(2, 0), open_first, 0, MEMBERS, 2)
    end = after if after is not None else rows[-1].end if rows else 0
    head = StreamHead("orders", b"s" * 16, Policy(), truncated_before=trim, next=end, open=opened)
    return StreamView(head, rows, ())


def test_a_sealed_segment_has_an_end_and_an_open_one_has_none():
    found = view((0, 10), (10, 30), open_first=30)
    assert locate(found, 9) == InSegment(SegmentId(1, 0), MEMBERS, 10)
    assert locate(found, 10) == InSegment(SegmentId(1, 1), MEMBERS, 30)
    assert locate(found, 30) == InSegment(SegmentId(2, 0), MEMBERS, None)
    assert locate(found, 10**9) == InSegment(SegmentId(2, 0), MEMBERS, None)


def test_with_nothing_open_the_end_is_known():
    assert locate(view((0, 10)), 10) == AtTail()
    assert locate(view((0, 10)), 11) == AtTail()
    assert locate(view(), 0) == AtTail()


def test_a_row_that_is_not_here_yet_is_no_end():
    """The head of a leader's own transaction may be ahead of the rows (R13)."""
    assert locate(view((0, 10), open_first=30), 20) == NotKnown()
    assert locate(view(after=5), 2) == NotKnown()


def test_below_the_first_kept_event_the_error_says_where_to_start():
    with pytest.raises(TruncatedError, match="from sequence 7 on") as caught:
        locate(view((0, 10), trim=7), 6)
    assert caught.value.start == 7
    assert isinstance(locate(view((0, 10), trim=7), 7), InSegment)


@pytest.mark.parametrize(
    ("start", "expected"), [(None, 4), (0, 0), (7, 7), (-1, 19), (-3, 17), (-100, 4)]
)
def test_starts(start, expected):
    assert resolve_start(start, 4, 20) == expected


def test_a_run_may_begin_inside_its_first_frame():
    assert check_run(7, [(5, 10), (10, 11)]) == 11
    assert check_run(7, []) == 7


@pytest.mark.parametrize(
    "bounds", [[(8, 10)], [(5, 7)], [(5, 10), (11, 12)], [(5, 10), (9, 12)], [(5, 10), (5, 10)]]
)
def test_a_hole_or_a_repeat_is_the_peers_error(bounds):
    with pytest.raises(PeerError):
        check_run(7, bounds)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.data())
def test_every_position_below_the_end_lies_in_exactly_one_segment(sizes, data):
    bounds, at = [], 0
    for size in sizes:
        bounds.append((at, at + size))
        at += size
    position = data.draw(st.integers(0, at - 1))
    place = locate(view(*bounds, open_first=at), position)
    assert isinstance(place, InSegment)
    first, end = bounds[place.segment.n]
    assert first <= position < end == place.end


def addresses(**alive):
    return [ServerAddress(m, "h", n, alive.get(m.server, True)) for n, m in enumerate(MEMBERS)]


def names(order):
    return [a.member.server for a in order]


def test_readers_spread_over_the_replicas():
    firsts = {
        names(ReplicaChoice(spread).order(MEMBERS, addresses(), 0.0))[0] for spread in range(3)
    }
    assert firsts == {"s0", "s1", "s2"}


def test_the_dead_come_behind_the_living_and_strangers_not_at_all():
    found = ReplicaChoice(0).order(MEMBERS, addresses(s0=False), 0.0)
    assert names(found) == ["s1", "s2", "s0"]
    assert names(ReplicaChoice(0).order(MEMBERS, addresses()[:1], 0.0)) == ["s0"]


def test_who_serves_stays_and_who_fails_is_asked_last_for_a_while():
    choice = ReplicaChoice(0)
    choice.served("s2")
    assert names(choice.order(MEMBERS, addresses(), 0.0)) == ["s2", "s0", "s1"]
    choice.failed("s2", 0.0)
    choice.failed("s2", 0.0)
    assert names(choice.order(MEMBERS, addresses(), 0.1)) == ["s0", "s1", "s2"]
    choice.served("s1")
    assert names(choice.order(MEMBERS, addresses(), 0.3)) == ["s1", "s0", "s2"]


def test_an_idle_replica_is_not_asked_twice_in_a_row():
    choice = ReplicaChoice(0)
    seen = []
    for _ in range(3):
        first = choice.order(MEMBERS, addresses(), 0.0)[0].member.server
        seen.append(first)
        choice.served(first)
        choice.was_idle(first)
    assert sorted(seen) == ["s0", "s1", "s2"]


def test_what_others_do_does_not_move_the_favourite():
    choice = ReplicaChoice(0)
    choice.served("s1")
    choice.failed("s2", 0.0)
    choice.was_idle("s2")
    assert names(choice.order(MEMBERS, addresses(), 0.0)) == ["s1", "s0", "s2"]
