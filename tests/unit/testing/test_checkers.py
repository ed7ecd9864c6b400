"""Each checker accepts a good history and rejects a hand-made bad one."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from lunalog.testing.checkers import CHECKERS
from lunalog.testing.history import (
    Append,
    Delivery,
    HeadChange,
    HeldFrame,
    History,
    LinearRead,
    ReaderSession,
    ReplicaEnd,
    Restart,
    RowChange,
    ServerMemory,
)
from lunalog.types import (
    Member,
    OpenSegment,
    Peer,
    Policy,
    Promise,
    SealedSegment,
    SegmentId,
    StreamHead,
)

STREAM = b"s" * 16
ANN, BOB = b"a" * 16, b"b" * 16
MEMBERS = (Member("one", 1), Member("two", 1), Member("three", 1))


def head(version: int, epoch: int, leader: bytes, first: int) -> StreamHead:
    opened = OpenSegment(SegmentId(epoch, 0), first, 0, MEMBERS, 2)
    return StreamHead(
        "s",
        STREAM,
        Policy(),
        version=version,
        epoch=epoch,
        leader=Peer("p", leader),
        released=False,
        next=first,
        open=opened,
    )


def good() -> History:
    """Epoch 1 acks a, b; epoch 2 takes over at t=10 and acks c; one append stays unknown."""
    row = SealedSegment(SegmentId(1, 0), 0, 2, 77, MEMBERS, 2, "p", "takeover", 0)
    log = [Delivery(0, 1, b"a"), Delivery(1, 1, b"b"), Delivery(2, 2, b"c")]
    promised = ServerMemory({STREAM: Promise(1, ANN)}, {(STREAM, SegmentId(1, 0)): 2})
    return History(
        stream=STREAM,
        appends=[
            Append(b"a", "ann", ANN, 1, 1.0, "acked", 0, 2.0),
            Append(b"b", "ann", ANN, 1, 3.0, "acked", 1, 4.0),
            Append(b"x", "ann", ANN, 1, 5.0, "unknown"),
            Append(b"c", "bob", BOB, 2, 11.0, "acked", 2, 12.0),
            Append(b"y", "ann", ANN, 1, 13.0, "refused"),
        ],
        readers=[ReaderSession("r", 0, list(log))],
        linear_reads=[LinearRead("r", 4.5, 5.0, 2), LinearRead("r", 12.5, 13.0, 3)],
        heads=[HeadChange(0.5, head(2, 1, ANN, 0)), HeadChange(10.0, head(3, 2, BOB, 2))],
        rows=[RowChange(10.0, STREAM, row)],
        held=[HeldFrame(m, STREAM, SegmentId(1, 0), 0, 2, 99) for m in MEMBERS],
        replicas=[ReplicaEnd(m, STREAM, SegmentId(1, 0), 0, 2, 2, 77) for m in MEMBERS],
        restarts=[Restart("one", promised, copy.deepcopy(promised))],
        log=log,
    )


@pytest.mark.parametrize("name", CHECKERS)
def test_a_good_history_passes_and_is_really_looked_at(name: str) -> None:
    finding = CHECKERS[name](good())
    assert finding.violations == []
    assert finding.checked > 0


def other_event_for_one_reader(h: History) -> None:
    h.readers[0].deliveries[1] = Delivery(1, 1, b"x")


def read_beyond_the_log(h: History) -> None:
    h.readers[0].deliveries.append(Delivery(3, 2, b"x"))


def lost_event(h: History) -> None:
    h.log[1] = Delivery(1, 1, b"x")


def event_twice(h: History) -> None:
    h.log.append(Delivery(3, 2, b"c"))


def event_of_nobody(h: History) -> None:
    h.log.append(Delivery(3, 2, b"?"))


def refused_event_kept(h: History) -> None:
    h.log.append(Delivery(3, 2, b"y"))


def epoch_granted_twice(h: History) -> None:
    h.heads.append(HeadChange(11.0, head(4, 2, ANN, 2)))


def ack_of_a_stranger(h: History) -> None:
    h.appends[0].incarnation = BOB


def epoch_falls(h: History) -> None:
    h.heads.append(HeadChange(11.0, head(4, 1, ANN, 2)))


def sealed_twice(h: History) -> None:
    row = h.rows[0].row
    h.rows.append(
        RowChange(11.0, STREAM, SealedSegment(row.id, 0, 3, 78, MEMBERS, 2, "p", "again", 0))
    )


def segments_apart(h: History) -> None:
    row = SealedSegment(SegmentId(2, 0), 3, 4, 78, MEMBERS, 2, "p", "size", 0)
    h.rows.append(RowChange(11.0, STREAM, row))


def ack_after_takeover(h: History) -> None:
    h.appends[1].invoked, h.appends[1].done = 10.5, 10.6


def old_epoch_behind_new(h: History) -> None:
    h.appends[1].sequence, h.appends[3].sequence = 2, 1


def two_contents(h: History) -> None:
    h.held.append(HeldFrame(Member("four", 1), STREAM, SegmentId(1, 0), 0, 2, 98))


def stale_read(h: History) -> None:
    h.linear_reads[1].committed = 2


def read_from_the_future(h: History) -> None:
    h.linear_reads[0].committed = 3


def reads_go_back(h: History) -> None:
    h.linear_reads.append(LinearRead("q", 14.0, 15.0, 2))


def promise_lost(h: History) -> None:
    h.restarts[0].after.promises.clear()


def acked_bytes_lost(h: History) -> None:
    h.restarts[0].after.ends[STREAM, SegmentId(1, 0)] = 1


def told_less(h: History) -> None:
    h.linear_reads.append(LinearRead(h.linear_reads[0].peer, 14.0, 15.0, 0))


def replica_knows_too_much(h: History) -> None:
    h.replicas.append(ReplicaEnd(MEMBERS[0], STREAM, SegmentId(2, 0), 2, 9, 9, 0))


def hole(h: History) -> None:
    del h.readers[0].deliveries[1]


def repeat(h: History) -> None:
    h.log.insert(1, h.log[0])


BAD: list[tuple[str, Callable[[History], None]]] = [
    ("I1", other_event_for_one_reader),
    ("I1", read_beyond_the_log),
    ("I2", lost_event),
    ("I3", event_twice),
    ("I3", event_of_nobody),
    ("I3", refused_event_kept),
    ("I4", epoch_granted_twice),
    ("I4", ack_of_a_stranger),
    ("I5", epoch_falls),
    ("I5", sealed_twice),
    ("I5", segments_apart),
    ("I6", ack_after_takeover),
    ("I6", old_epoch_behind_new),
    ("I7", two_contents),
    ("I8", stale_read),
    ("I8", read_from_the_future),
    ("I8", reads_go_back),
    ("I9", promise_lost),
    ("I9", acked_bytes_lost),
    ("I10", told_less),
    ("I10", replica_knows_too_much),
    ("I16", hole),
    ("I16", repeat),
]


@pytest.mark.parametrize(("name", "spoil"), BAD)
def test_a_bad_history_is_rejected(name: str, spoil: Callable[[History], None]) -> None:
    history = good()
    spoil(history)
    assert CHECKERS[name](history).violations
