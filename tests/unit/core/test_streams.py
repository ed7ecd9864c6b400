"""Decisions on heads: what is granted, sealed, refused, and found applied."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lunalog.core import streams
from lunalog.core.streams import Change, SealRequest
from lunalog.errors import (
    ConflictError,
    FencedError,
    InvariantError,
    MetadataLostError,
    NotLeaderError,
    UsageError,
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

ONE, TWO = Peer("one", b"1" * 16), Peer("two", b"2" * 16)
SET = (Member("s1", 1), Member("s2", 1), Member("s3", 1))
replace = msgspec.structs.replace


def fresh() -> StreamHead:
    return streams.create("orders", b"x" * 16, Policy(), 1)


def led(head: StreamHead | None = None, peer: Peer = ONE) -> StreamHead:
    return streams.grant(head or fresh(), peer).head


def request(head: StreamHead, **more: Any) -> SealRequest:
    fields: dict[str, Any] = {
        "promise": head.promise, "old": head.open.id if head.open else None, "row": None,
        "open": None, "next": head.next, "chain": head.chain, "release": False, "reason": "test",
    }  # fmt: skip
    return SealRequest(**(fields | more))


def opening(head: StreamHead, n: int = 0, end: int | None = None, chain: int = 7) -> SealRequest:
    at = head.next if end is None else end
    chain = head.chain if at == head.next else chain
    segment = OpenSegment(SegmentId(head.epoch, n), at, chain, SET, 2)
    return request(head, open=segment, next=at, chain=chain, row=row_of(head, at, chain))


def row_of(head: StreamHead, end: int, chain: int) -> SealedSegment | None:
    old = head.open
    if old is None or end == old.first:
        return None
    return SealedSegment(old.id, old.first, end, chain, old.members, old.ack_quorum, "", "", 0)


def closing(head: StreamHead, end: int, chain: int = 7) -> SealRequest:
    chain = head.chain if end == head.next else chain
    row = row_of(head, end, chain)
    return request(head, next=end, chain=chain, row=row, release=True)


def seal(head: StreamHead, wanted: SealRequest, rows: Any = ()) -> Change | None:
    return streams.seal(
        head, rows, wanted, sealed_leader="old", is_known=lambda name: name != "nobody", now_us=5
    )


def done(head: StreamHead, wanted: SealRequest, rows: Any = ()) -> StreamHead:
    change = seal(head, wanted, rows)
    assert change is not None
    return change.head


# ---------------------------------------------------------------- create and grant (R1)


def test_a_new_stream_has_nobody_and_nothing_open() -> None:
    head = fresh()
    assert (head.epoch, head.leader, head.released, head.open) == (0, None, True, None)
    with pytest.raises(UsageError):
        streams.create("orders", b"short", Policy(), 1)
    with pytest.raises(UsageError):
        streams.create("orders", b"x" * 16, Policy(3, 1), 1)


def test_a_grant_is_the_next_epoch_and_touches_nothing_else() -> None:
    before = done(led(), opening(led()))
    after = led(before, TWO)
    assert (after.epoch, after.leader, after.released) == (2, TWO, False)
    assert after.version == before.version + 1
    assert after.open == before.open


def test_a_tombstone_changes_no_more() -> None:
    gone = streams.delete(led()).head
    assert (gone.epoch, gone.leader, gone.deleted) == (2, None, True)
    assert gone.promise == Promise(2, b"")
    with pytest.raises(InvariantError):
        streams.grant(gone, ONE)


# ---------------------------------------------------------------- seal and open (R8, R11, R31)


def test_the_first_segment_opens_at_next() -> None:
    head = done(led(), opening(led()))
    assert head.open is not None
    assert (head.open.id, head.open.first, head.next) == (SegmentId(1, 0), 0, 0)


def test_a_roll_seals_and_opens_in_one_step() -> None:
    head = done(led(), opening(led()))
    change = seal(head, opening(head, n=1, end=10))
    assert change is not None
    assert change.row is not None
    assert (change.row.first, change.row.end, change.row.leader, change.row.sealed_us) == (
        0, 10, "old", 5,
    )  # fmt: skip
    assert change.head.next == 10
    assert change.head.chain == 7


def test_a_takeover_closes_the_old_epochs_segment() -> None:
    head = led(done(led(), opening(led())), TWO)
    change = seal(head, opening(head, n=4, end=3))
    assert change is not None
    assert change.head.open is not None
    assert change.head.open.id == SegmentId(2, 4)


def test_an_empty_segment_leaves_no_row() -> None:
    head = done(led(), opening(led()))
    change = seal(head, opening(head, n=1))
    assert change is not None
    assert change.row is None


def test_a_release_leaves_nothing_open() -> None:
    head = done(led(), opening(led()))
    closed = done(head, closing(head, 9))
    assert (closed.open, closed.released, closed.next, closed.leader) == (None, True, 9, ONE)
    assert seal(closed, closing(head, 9)) is None
    after = led(closed, TWO)
    assert done(after, opening(after)).next == 9


def test_identical_repeats_find_themselves_applied() -> None:
    head = led()
    first = opening(head)
    opened = done(head, first)
    assert seal(opened, first) is None
    roll = opening(opened, n=1, end=4)
    rolled = done(opened, roll)
    assert seal(rolled, roll) is None
    with pytest.raises(ConflictError):
        seal(rolled, first)


def test_the_same_id_with_another_set_is_no_repeat() -> None:
    head = led()
    opened = done(head, opening(head))
    other = OpenSegment(SegmentId(1, 0), 0, 0, SET[:2], 2)
    with pytest.raises(ConflictError):
        seal(opened, request(head, open=other))


def test_a_release_with_nothing_open_is_applied_once() -> None:
    head = led()
    wanted = request(head, release=True)
    closed = done(head, wanted)
    assert closed.released
    assert seal(closed, wanted) is None


def test_an_older_epoch_is_fenced_and_a_newer_one_is_proof_of_loss() -> None:
    head = done(led(), opening(led()))
    late = opening(head, n=1, end=5)
    after = led(head, TWO)
    with pytest.raises(FencedError) as caught:
        seal(after, late)
    assert (caught.value.epoch, caught.value.leader) == (2, "two")
    twin = msgspec.structs.replace(late, promise=Promise(1, b"3" * 16))
    with pytest.raises(FencedError):
        seal(head, twin)
    with pytest.raises(MetadataLostError):
        seal(head, msgspec.structs.replace(late, promise=Promise(3, b"1" * 16)))


def test_a_late_roll_behind_a_release_is_fenced() -> None:
    head = done(led(), opening(led()))
    roll = opening(head, n=1, end=5)
    closed = done(head, closing(head, 3))
    with pytest.raises(FencedError):
        seal(closed, roll)


def wrong_rows(head: StreamHead) -> list[SealedSegment]:
    good = row_of(head, 5, 7)
    assert good is not None
    return [
        replace(good, id=SegmentId(1, 9)),
        replace(good, first=1),
        replace(good, end=6),
        replace(good, chain=8),
        replace(good, members=SET[:2]),
        replace(good, ack_quorum=3),
    ]


def test_a_row_that_does_not_fit_the_head_is_refused() -> None:
    head = done(led(), opening(led()))
    for row in wrong_rows(head):
        with pytest.raises(ConflictError):
            seal(head, replace(opening(head, n=1, end=5), row=row))
    with pytest.raises(ConflictError):
        seal(head, replace(opening(head, n=1, end=5), row=None))


def test_bounds_never_go_back() -> None:
    head = done(led(), opening(led()))
    head = done(head, opening(head, n=1, end=5))
    with pytest.raises(ConflictError):
        seal(head, replace(closing(head, 5), next=3, row=None))
    closed = done(head, closing(head, 8))
    after = led(closed)
    with pytest.raises(ConflictError):
        seal(after, request(after, next=9, release=True))
    with pytest.raises(ConflictError):
        seal(after, request(after, chain=1, release=True))


@pytest.mark.parametrize(
    "segment",
    [
        OpenSegment(SegmentId(2, 1), 0, 0, SET, 2),
        OpenSegment(SegmentId(1, 1), 1, 0, SET, 2),
        OpenSegment(SegmentId(1, 1), 0, 1, SET, 2),
        OpenSegment(SegmentId(1, 1), 0, 0, (SET[0], Member("s1", 2)), 2),
        OpenSegment(SegmentId(1, 1), 0, 0, SET[:1], 2),
        OpenSegment(SegmentId(1, 1), 0, 0, SET, 1),
        OpenSegment(SegmentId(1, 1), 0, 0, (*SET, Member("nobody", 1)), 2),
        OpenSegment(SegmentId(1, 1), 0, 0, (), 2),
    ],
)
def test_a_segment_that_cannot_be_is_refused(segment: OpenSegment) -> None:
    head = led()
    with pytest.raises(UsageError):
        seal(head, request(head, open=segment))


def test_every_attempt_takes_a_fresh_id() -> None:
    head = done(led(), opening(led(), n=3))
    with pytest.raises(ConflictError):
        seal(head, opening(head, n=2, end=4))


def test_who_releases_opens_nothing() -> None:
    head = led()
    with pytest.raises(UsageError):
        seal(head, replace(opening(head), release=True))


# ---------------------------------------------------------------- truncate and release


def test_truncation_only_rises_and_only_by_the_leader() -> None:
    head = done(led(), opening(led()))
    change = streams.truncate(head, head.promise, 5)
    assert change is not None
    assert change.head.truncated_before == 5
    assert streams.truncate(change.head, head.promise, 5) is None
    assert streams.truncate(change.head, head.promise, 2) is None
    with pytest.raises(FencedError):
        streams.truncate(led(head, TWO), head.promise, 5)
    with pytest.raises(UsageError):
        streams.truncate(head, head.promise, -1)
    closed = done(head, closing(head, 4))
    with pytest.raises(FencedError):
        streams.truncate(closed, head.promise, 1)
    after = led(closed)
    with pytest.raises(ConflictError):
        streams.truncate(after, after.promise, 5)


def test_release_gives_back_once_and_leaves_what_is_open() -> None:
    head = done(led(), opening(led()))
    change = streams.release(head, head.promise)
    assert change is not None
    assert (change.head.released, change.head.open) == (True, head.open)
    assert streams.release(change.head, head.promise) is None
    with pytest.raises(FencedError):
        streams.release(led(change.head, TWO), head.promise)
    with pytest.raises(NotLeaderError):
        streams.release(fresh(), fresh().promise)


# ---------------------------------------------------------------- garbage (R10)


def test_only_an_unlisted_segment_of_a_past_epoch_is_garbage() -> None:
    head = done(led(), opening(led()))
    rolled = seal(head, opening(head, n=2, end=5))
    assert rolled is not None
    rows = (rolled.row,)
    after = led(rolled.head, TWO)

    def is_garbage(segment: SegmentId, generation: int = 1) -> bool:
        return streams.is_garbage(after, rows, segment=segment, generation=generation)  # type: ignore[arg-type]

    assert is_garbage(SegmentId(1, 1))
    assert not is_garbage(SegmentId(1, 0))  # in a row
    assert not is_garbage(SegmentId(1, 2))  # open
    assert not is_garbage(SegmentId(2, 0))  # of the epoch that may still commit it
    assert not is_garbage(SegmentId(1, 1), generation=2)


def test_r25_what_proves_that_the_metadata_went_back() -> None:
    head = done(led(), opening(led()))
    rolled = seal(head, opening(head, n=2, end=5))
    assert rolled is not None
    rows = (rolled.row,)
    after = led(rolled.head, TWO)  # epoch 2; segment 1.2 is open, 1.0 is in a row

    def proof(segment: SegmentId, *superseded: SegmentId, **more: Any) -> str:
        facts: dict[str, Any] = {
            "generation": 1, "first": 5, "committed": 0, "has_certificate": False,
            "promise_epoch": 2,
        }  # fmt: skip
        found = facts | more
        return streams.proof_of_loss(
            after,
            rows,
            segment=segment,
            superseded=superseded,
            **found,  # type: ignore[arg-type]
        )

    listed, is_open, stranger = SegmentId(1, 0), SegmentId(1, 2), SegmentId(1, 1)
    assert "generation 2" in proof(is_open, generation=2)
    assert "epoch 3 was promised" in proof(is_open, promise_epoch=3)
    assert "was sealed once" in proof(is_open, has_certificate=True)
    assert proof(is_open, committed=9) == ""
    assert "an epoch above 2" in proof(SegmentId(3, 0))
    assert proof(listed, committed=9) == ""
    assert "held committed events" in proof(stranger, committed=9)
    assert proof(stranger, stranger, committed=9) == ""
    assert proof(stranger, committed=5) == ""  # none that it knows of
    after = replace(after, truncated_before=6)
    assert proof(stranger, committed=9) == ""  # it may have had a row


# ---------------------------------------------------------------- any history (I4, I5)

steps = st.lists(
    st.tuples(
        st.sampled_from(["grant", "open", "close", "release", "truncate", "repeat", "late"]),
        st.integers(0, 4),
    ),
    max_size=30,
)


class Life:
    """One stream under any order of requests, with what was ever sent."""

    def __init__(self) -> None:
        self.head = fresh()
        self.rows: list[SealedSegment] = []
        self.sent: list[SealRequest] = []
        self.numbers = iter(range(1000))
        self.leaders: dict[int, Peer] = {}

    def grant(self, amount: int) -> None:
        self.head = led(self.head, (ONE, TWO)[amount % 2])
        assert self.head.leader is not None
        assert self.leaders.setdefault(self.head.epoch, self.head.leader) == self.head.leader

    def wanted(self, step: str, amount: int) -> SealRequest | None:
        head = self.head
        end = head.next + (amount if head.open else 0)
        if step == "open":
            return opening(head, n=next(self.numbers), end=end, chain=head.chain + 1)
        if step == "close":
            return closing(head, end, chain=head.chain + 1)
        if step == "repeat":
            return self.sent[-1] if self.sent else None
        return self.sent[amount % len(self.sent)] if self.sent else None

    def decide(self, step: str, amount: int) -> Change | None:
        if step == "release":
            return streams.release(self.head, self.head.promise)
        if step == "truncate":
            return streams.truncate(self.head, self.head.promise, amount)
        request = self.wanted(step, amount)
        if request is None:
            return None
        change = seal(self.head, request, self.rows)
        self.sent.append(request)
        return change

    def take(self, change: Change) -> None:
        assert change.head.version == self.head.version + 1
        self.head = change.head
        if change.row is not None:
            self.rows.append(change.row)

    def check(self) -> None:
        ends = [0]
        for row in self.rows:
            assert row.first == ends[-1]
            ends.append(row.end)
        assert self.head.next == ends[-1]
        assert self.head.open is None or self.head.open.first == ends[-1]


@settings(max_examples=150, deadline=None)
@given(steps)
def test_rows_join_and_nothing_goes_back_in_any_history(history: list[tuple[str, int]]) -> None:
    life = Life()
    for step, amount in history:
        if step == "grant":
            life.grant(amount)
            continue
        try:
            change = life.decide(step, amount)
        except (UsageError, NotLeaderError):
            continue  # refused, and nothing was changed
        if change is not None:
            life.take(change)
        life.check()


def test_a_stream_has_an_id_of_sixteen_bytes() -> None:
    with pytest.raises(UsageError, match="16 bytes, not 3"):
        streams.create("orders", b"x" * 3, Policy(), 1)


def test_epochs_do_not_begin_again() -> None:
    used_up = replace(fresh(), epoch=streams.EPOCH_MAX)
    with pytest.raises(InvariantError, match="used up"):
        streams.grant(used_up, ONE)
