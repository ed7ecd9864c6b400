"""Every transaction of a master has a name, and a crash can be aimed at it."""

from __future__ import annotations

from lunalog.master import records
from lunalog.master.records import HeadRecord, ServerRecord, Tombstone
from lunalog.testing.transitions import OTHER, TRANSITIONS, transition
from lunalog.types import Member, OpenSegment, Peer, Policy, Promise, SegmentId, StreamHead

STREAM = bytes(16)
KEY = records.head_key(STREAM)


def head(epoch: int = 1, **more: object) -> StreamHead:
    return StreamHead("s", STREAM, Policy(), epoch=epoch, leader=Peer("c", b"1" * 16), **more)  # type: ignore[arg-type]


def opened(epoch: int, n: int) -> OpenSegment:
    return OpenSegment(SegmentId(epoch, n), 0, 0, (Member("a", 1),), 1)


def row(segment: SegmentId) -> str:
    return records.row_key(STREAM, segment)


def named(old: StreamHead | None, new: StreamHead, *others: str, gone: tuple[str, ...] = ()) -> str:
    before = None if old is None else records.encode(HeadRecord(old))
    puts = {KEY: records.encode(HeadRecord(new)), **dict.fromkeys(others, b"")}
    return transition({KEY: before}.get, puts, gone)


def server(incarnation: int, boot: int, position: int, **more: bool) -> bytes:
    return records.encode(ServerRecord("a", incarnation, boot, position, "a", 1, **more))


def tombstone(*holders: str) -> bytes:
    return records.encode(Tombstone(STREAM, "s", Promise(2), holders))


def test_what_happens_to_a_head_has_its_name() -> None:
    sealed, first, second = row(SegmentId(1, 0)), opened(1, 0), opened(1, 1)
    assert named(None, head(0)) == "create"
    assert named(head(1), head(2)) == "grant"
    assert named(head(2, open=first), head(3, open=first)) == "grant"
    assert named(head(1, released=False), head(1)) == "release"
    assert named(head(1), head(1, open=first)) == "open"
    assert named(head(2, open=first), head(2, open=opened(2, 0)), sealed) == "takeover"
    assert named(head(2, open=first), head(2, open=opened(2, 0))) == "takeover"
    assert named(head(1, open=first), head(1, open=second), sealed) == "roll"
    assert named(head(1, open=first, released=False), head(1), sealed) == "close"
    assert named(head(1), head(1, truncated_before=5)) == "truncate"
    assert named(head(1), head(1), sealed) == "relist"
    assert named(head(1), head(1), gone=(sealed,)) == "forget rows"


def test_what_happens_to_a_deleted_stream_has_its_name() -> None:
    key, gone = records.gone_key(STREAM), (KEY, records.name_key("s"))
    assert transition({}.get, {key: tombstone("a", "b")}, gone) == "delete"
    for after, name in ((tombstone("a"), "confirm drop"), (tombstone("a", "b", "c"), "hold again")):
        assert transition({key: tombstone("a", "b")}.get, {key: after}, ()) == name


def test_what_happens_to_servers_and_single_keys_has_its_name() -> None:
    key = records.server_key("a")
    before, leaving = server(1, 1, 10), server(1, 1, 10, is_leaving=True)
    for old, new, name in (
        (None, before, "register"),
        (before, server(1, 1, 20), "report"),
        (before, before, "report"),
        (before, server(1, 2, 20), "restart"),
        (before, server(2, 2, 0), "replace"),
        (before, leaving, "leave"),
        (leaving, before, "stay"),
        (leaving, server(1, 1, 10, is_retired=True), "retire"),
    ):
        assert transition({key: old}.get, {key: new}, ()) == name
    for key, name in (
        (records.ACTIVE, "activate"),
        (records.CLUSTER, "found"),
        (records.WANTED, "want"),
        (records.lost_key(STREAM), "lose"),
    ):
        assert transition({}.get, {key: b""}, ()) == name


def test_what_has_no_name_is_told_apart() -> None:
    assert transition({}.get, {"key": b""}, ()) == OTHER
    assert named(head(1), head(1)) == OTHER
    assert named(head(1), head(1, version=2)) == OTHER
    assert OTHER not in TRANSITIONS
    assert len(set(TRANSITIONS)) == len(TRANSITIONS)
