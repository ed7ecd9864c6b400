"""A run whose transactions are steps of the models passes; each bad one is refused for its reason."""

from dataclasses import replace

import msgspec
import pytest

from lunalog.testing.history import Append, HeadChange, History, ServerFact
from lunalog.testing.model.trace import trace_check
from lunalog.types import (
    Member,
    OpenSegment,
    Peer,
    Policy,
    Promise,
    SegmentId,
    StreamHead,
)

STREAM = b"s" * 16
A, B = Peer("a", b"a" * 16), Peer("b", b"b" * 16)
MEMBERS = tuple(Member(f"server-{n}", 1) for n in (1, 2, 3))
EMPTY = StreamHead("orders", STREAM, Policy())


def head(before: StreamHead, **fields: object) -> StreamHead:
    return msgspec.structs.replace(before, version=before.version + 1, **fields)


def segment(epoch: int, n: int, first: int) -> OpenSegment:
    return OpenSegment(SegmentId(epoch, n), first, 0, MEMBERS, 2)


def facts(*ends: dict[tuple[int, int], int], promise: int = 0, harmed: tuple[int, ...] = ()):
    """What the servers held; `promise` of all of them, who was harmed by number."""
    return tuple(
        ServerFact(
            member,
            Promise(promise, b"x"),
            {SegmentId(*key): end for key, end in held.items()},
            number in harmed,
        )
        for number, (member, held) in enumerate(zip(MEMBERS, ends, strict=True), 1)
    )


def ack(epoch: int, sequence: int, at: float) -> Append:
    return Append(b"%d" % sequence, "a", b"a" * 16, epoch, at - 0.1, "acked", sequence, at)


def story() -> History:
    """a leads, rolls at 4; b takes over, keeps event 5 and not event 6, resigns at 7; b again."""
    heads = [EMPTY]
    heads.append(head(EMPTY, epoch=1, leader=A, released=False))
    heads.append(head(heads[-1], open=segment(1, 0, 0)))
    heads.append(head(heads[-1], next=4, open=segment(1, 1, 4)))
    heads.append(head(heads[-1], truncated_before=2))
    heads.append(head(heads[-1], epoch=2, leader=B))
    heads.append(head(heads[-1], next=5, open=segment(2, 0, 5)))
    heads.append(head(heads[-1], next=7, open=None, released=True))
    heads.append(head(heads[-1], epoch=3, leader=B, released=False))
    heads.append(head(heads[-1], open=segment(3, 0, 7)))
    history = History(STREAM, heads=[HeadChange(float(at), h) for at, h in enumerate(heads)])
    history.heads[3].servers = facts({(1, 0): 4, (1, 1): 4}, {(1, 0): 4, (1, 1): 4}, {(1, 0): 3})
    history.heads[4].servers = facts({(1, 1): 5}, {(1, 1): 6}, {(1, 1): 4}, promise=1)
    history.heads[6].servers = facts(
        {(1, 1): 5, (2, 0): 6}, {(1, 1): 7, (2, 0): 5}, {(1, 1): 6, (2, 0): 6}, promise=2
    )
    history.heads[6].servers = (
        history.heads[6].servers[0],
        replace(history.heads[6].servers[1], promise=Promise(1, b"x")),
        history.heads[6].servers[2],
    )
    history.heads[7].servers = facts({(2, 0): 7}, {(2, 0): 7}, {(2, 0): 6}, promise=2)
    history.appends = [ack(1, 3, 2.5), ack(1, 4, 3.5), ack(1, 5, 6.5), ack(2, 6, 6.6)]
    return history


def test_a_run_by_the_rules_is_a_path_of_the_models():
    finding = trace_check(story())
    assert finding.violations == []
    assert finding.checked == 9 + 4


def test_other_streams_are_not_looked_at():
    history = story()
    history.heads.insert(3, HeadChange(2.5, msgspec.structs.replace(EMPTY, stream=b"t" * 16)))
    assert trace_check(history).violations == []


def change(history: History, at: int, **fields: object) -> None:
    history.heads[at].head = msgspec.structs.replace(history.heads[at].head, **fields)


def refused(history: History) -> str:
    found = trace_check(history).violations
    assert found
    return found[0]


def test_an_epoch_that_is_skipped_is_refused():
    history = story()
    del history.heads[6:]
    change(history, 5, epoch=3)
    assert "no grant leads here (R1)" in refused(history)


def test_a_version_that_is_lost_is_refused():
    history = story()
    del history.heads[4]
    assert "version 4 is followed by 6" in refused(history)


def test_another_leader_in_the_same_epoch_is_refused():
    history = story()
    history.heads.insert(2, HeadChange(1.5, head(history.heads[1].head, leader=B)))
    for later in history.heads[3:]:
        later.head = msgspec.structs.replace(later.head, version=later.head.version + 1)
    assert "another leader in the same epoch" in refused(history)


def test_a_grant_that_opens_a_segment_is_refused():
    history = story()
    change(history, 5, open=segment(2, 0, 5), next=5)
    assert "more than the leader" in refused(history)


def test_a_segment_that_does_not_begin_at_next_is_refused():
    history = story()
    history.heads[9].head = msgspec.structs.replace(
        history.heads[9].head, next=8, open=segment(3, 0, 8)
    )
    assert "does not begin at `next`" in refused(history)


def test_a_seal_by_an_epoch_that_is_over_is_refused():
    history = story()
    change(history, 6, open=segment(1, 2, 5))
    assert "another epoch" in refused(history)


def test_a_roll_before_its_boundary_is_acknowledged_is_refused():
    history = story()
    history.heads[3].servers = facts({(1, 0): 4, (1, 1): 4}, {(1, 0): 3, (1, 1): 4}, {(1, 0): 3})
    assert "before A members were ready (R11)" in refused(history)


def test_a_roll_to_a_set_that_has_not_opened_is_refused():
    history = story()
    history.heads[3].servers = facts({(1, 0): 4, (1, 1): 4}, {(1, 0): 4}, {(1, 0): 4})
    assert "before A members were ready (R11)" in refused(history)


@pytest.mark.parametrize("promised", [0, 1])
def test_a_takeover_with_fewer_than_s_fences_is_refused(promised):
    history = story()
    history.heads[6].servers = tuple(
        replace(fact, promise=Promise(2 if number < promised else 1, b"x"))
        for number, fact in enumerate(history.heads[6].servers)
    )
    assert "no S answers" in refused(history)


def test_a_takeover_whose_tail_is_below_what_a_fenced_member_holds_is_refused():
    history = story()
    history.heads[6].servers = facts(
        {(1, 1): 5, (2, 0): 5}, {(1, 1): 5, (2, 0): 5}, {(1, 1): 6, (2, 0): 5}, promise=2
    )
    history.appends = history.appends[:2]
    three = history.heads[6].servers
    history.heads[6].servers = (three[0], replace(three[1], promise=Promise(1, b"x")), three[2])
    assert "no S answers" in refused(history)


def test_a_takeover_before_its_carry_over_is_durable_is_refused():
    history = story()
    history.heads[6].servers = facts(
        {(1, 1): 5, (2, 0): 6}, {(1, 1): 6}, {(1, 1): 6, (2, 0): 5}, promise=2
    )
    assert "is not on A members of 2.0 (R7)" in refused(history)


def test_a_row_that_ends_above_what_a_members_hold_is_refused():
    history = story()
    history.heads[6].servers = facts(
        {(1, 1): 4, (2, 0): 6}, {(1, 1): 4, (2, 0): 5}, {(1, 1): 6, (2, 0): 6}, promise=2
    )
    assert "i11_rows_are_on_a_members" in refused(history)


def test_an_earlier_leaders_ack_behind_the_tail_is_refused():
    history = story()
    history.appends.append(ack(1, 6, 9.0))
    assert "T is 6 (R6)" in refused(history)


def test_a_close_at_the_tail_instead_of_the_commit_is_refused():
    history = story()
    history.heads[7].servers = facts({(2, 0): 7}, {(2, 0): 6}, {(2, 0): 6}, promise=2)
    assert "i11_rows_are_on_a_members (close)" in refused(history)


def test_an_ack_behind_the_end_of_a_close_is_refused():
    history = story()
    history.appends.append(ack(2, 7, 6.9))
    assert "i8_the_head_answers_reads (close)" in refused(history)


def test_a_trim_beyond_the_commit_is_refused():
    history = story()
    for later in history.heads[4:]:
        later.head = msgspec.structs.replace(later.head, truncated_before=6)
    assert "i14_deletion_is_safe (close)" in refused(history)


def test_an_ack_before_the_roll_is_known_is_refused():
    history = story()
    history.appends[1] = ack(1, 4, 2.9)
    assert "acked before its segment was known to be open" in refused(history)


def test_an_ack_before_the_takeover_is_known_is_refused():
    history = story()
    history.appends[3] = ack(2, 6, 5.5)
    assert "acked before its segment was known to be open" in refused(history)


def test_a_harmed_server_has_the_benefit_of_the_doubt():
    history = story()
    history.heads[3].servers = facts(
        {(1, 0): 4, (1, 1): 4}, {}, {(1, 0): 3, (1, 1): 4}, harmed=(2,)
    )
    assert trace_check(history).violations == []
    other = replace(history.heads[3].servers[1], member=Member("server-2", 2))
    history.heads[3].servers = (history.heads[3].servers[0], other, history.heads[3].servers[2])
    assert trace_check(history).violations == []


def test_a_tombstone_is_a_step():
    history = story()
    last = history.heads[-1].head
    gone = head(last, epoch=4, leader=None, released=True, deleted=True)
    history.heads.append(HeadChange(10.0, gone))
    assert trace_check(history).violations == []
