"""Every transaction of a master has a name, and a crash can be aimed at it."""

from __future__ import annotations

from lunalog.master import records
from lunalog.master.records import HeadRecord, ServerRecord
from lunalog.testing.transitions import TRANSITIONS, transition
from lunalog.types import Member, OpenSegment, Peer, Policy, SegmentId, StreamHead

STREAM = bytes(16)
KEY = records.head_key(STREAM)


def head(epoch: int = 1, **more: object) -> StreamHead:
    return StreamHead("s", STREAM, Policy(), epoch=epoch, leader=Peer("c", b"1" * 16), **more)  # type: ignore[arg-type]


def opened(epoch: int, n: int) -> OpenSegment:
    return OpenSegment(SegmentId(epoch, n), 0, 0, (Member("a", 1),), 1)


def named(old: StreamHead | None, new: StreamHead, *others: str) -> str:
    before = None if old is None else records.encode(HeadRecord(old))
    puts = {KEY: records.encode(HeadRecord(new)), **dict.fromkeys(others, b"")}
    return transition({KEY: before}.get, puts, ())


def server(incarnation: int, boot: int, position: int) -> bytes:
    return records.encode(ServerRecord("a", incarnation, boot, position, "a", 1))


def test_what_happens_to_a_head_has_its_name() -> None:
    row = records.row_key(STREAM, SegmentId(1, 0))
    assert named(None, head(0)) == "create"
    assert named(head(1), head(2)) == "grant"
    assert named(head(1, released=False), head(1)) == "release"
    assert named(head(1), head(1, open=opened(1, 0))) == "open"
    assert named(head(2, open=opened(1, 0)), head(2, open=opened(2, 0)), row) == "takeover"
    assert named(head(1, open=opened(1, 0)), head(1, open=opened(1, 1)), row) == "roll"
    assert named(head(1, open=opened(1, 0)), head(1), row) == "close"
    assert named(head(1), head(1, truncated_before=5)) == "truncate"
    assert named(head(1), head(1, deleted=True)) == "delete"
    assert named(head(1), head(1, version=2), row) == "row"


def test_what_happens_to_servers_and_single_keys_has_its_name() -> None:
    key = records.server_key("a")
    before = server(1, 1, 10)
    for after, name in (
        (server(1, 1, 20), "report"),
        (server(1, 2, 20), "restart"),
        (server(2, 2, 0), "replace"),
    ):
        assert transition({key: before}.get, {key: after}, ()) == name
    assert transition({}.get, {key: before}, ()) == "register"
    assert transition({}.get, {records.ACTIVE: b""}, ()) == "activate"
    assert transition({}.get, {records.CLUSTER: b""}, ()) == "found"
    assert transition({}.get, {}, (records.gone_key(STREAM),)) == "forget"
    assert transition({}.get, {"key": b""}, ()) == "other"
    assert len(set(TRANSITIONS)) == len(TRANSITIONS)
