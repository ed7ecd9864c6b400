"""Views merge forward only: head by (generation, version), rows by version."""

from hypothesis import given
from hypothesis import strategies as st

from lunalog.client.watch import StreamWatch, merge
from lunalog.types import (
    Member,
    Policy,
    SealedSegment,
    SegmentId,
    ServerAddress,
    StreamHead,
    StreamView,
)


def head(version, generation=1, **more):
    return StreamHead("orders", b"s" * 16, Policy(), generation, version, **more)


def row(n, first, end, version=1):
    members = (Member("s1", 1),)
    return SealedSegment(SegmentId(1, n), first, end, 0, members, 1, "p", "size", 0, version)


def test_a_late_message_changes_nothing():
    watch = StreamWatch(StreamView(head(5), (row(1, 0, 10),), ()))
    revision = watch.revision
    assert not watch.merge(StreamView(head(4), (), ()))
    assert watch.revision == revision
    assert watch.head.version == 5
    assert len(watch.view.rows) == 1


def test_rows_add_up_and_the_newer_version_of_one_wins():
    ours = StreamView(head(5), (row(2, 10, 20, version=3),), ())
    theirs = StreamView(head(6), (row(1, 0, 10), row(2, 10, 20, version=2)), ())
    found = merge(ours, theirs)
    assert [(r.id.n, r.version) for r in found.rows] == [(1, 1), (2, 3)]


def test_an_older_head_may_still_bring_a_newer_row():
    found = merge(StreamView(head(5), (), ()), StreamView(head(4), (row(1, 0, 10),), ()))
    assert found.head.version == 5
    assert len(found.rows) == 1


def test_rows_below_the_trim_are_forgotten():
    ours = StreamView(head(5), (row(1, 0, 10), row(2, 10, 20)), ())
    found = merge(ours, StreamView(head(6, truncated_before=10), (), ()))
    assert [r.first for r in found.rows] == [10]


def test_a_new_generation_replaces_the_rows():
    ours = StreamView(head(50), (row(1, 0, 10),), ())
    theirs = StreamView(head(1, generation=2), (row(9, 0, 4),), ())
    assert [r.id.n for r in merge(ours, theirs).rows] == [9]
    assert merge(theirs, ours) == theirs


def test_a_server_is_known_by_its_newest_address():
    old = ServerAddress(Member("s1", 1), "a", 1)
    new = ServerAddress(Member("s1", 2), "b", 2)
    other = ServerAddress(Member("s0", 1), "c", 3)
    found = merge(StreamView(head(1), (), (old,)), StreamView(head(1), (), (new, other)))
    assert found.servers == (other, new)


def test_listeners_hear_of_each_change_until_they_leave():
    watch = StreamWatch(StreamView(head(1), (), ()))
    heard = []
    leave = watch.subscribe(lambda: heard.append(watch.revision))
    watch.note_head(head(2))
    leave()
    leave()
    watch.note_head(head(3))
    assert heard == [2]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_the_head_never_goes_back(versions):
    """Whatever order messages come in, the newest head is kept."""
    watch = StreamWatch(StreamView(head(1), (), ()))
    seen = 0
    for version in versions:
        watch.note_head(head(version))
        seen = max(seen, version)
        assert watch.head.version == seen
