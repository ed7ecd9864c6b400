"""One leader, step by step: what it answers to each input in each phase, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.core.leaders import (
    ME,
    OTHER,
    SET,
    SETTINGS,
    A,
    B,
    C,
    D,
    ack,
    append,
    ended,
    kinds,
    leading,
    machine,
    old_segment,
    only,
    open_all,
    replace,
    sealed,
)

from lunalog.core import chain as chains
from lunalog.core import effects as fx
from lunalog.core.leader_state import ATTEMPT_S, Phase
from lunalog.core.leadership import (
    ATTEMPT_S_MAX,
    BUSY_TICK_S,
    PROPOSE_RETRY_S,
    PROPOSE_RETRY_S_MAX,
    RESIGN_DRAIN_S,
    LeaderMachine,
)
from lunalog.core.outbox import CopiedFrame
from lunalog.core.pace import LATE_FRAMES
from lunalog.core.recovery import FenceAnswer
from lunalog.core.rolling import AWAY_S, SLOW_EVERY_S, STALL_TICKS
from lunalog.errors import (
    ConflictError,
    FencedError,
    GoneError,
    InvariantError,
    LunalogError,
    MasterUnavailableError,
    MetadataLostError,
    NotEnoughServersError,
    NotLeaderError,
    PeerError,
    ReplicaConflictError,
    SealedError,
    ServerUnavailableError,
    StreamNotFoundError,
    WrongIncarnationError,
)
from lunalog.types import (
    Member,
    Policy,
    SegmentId,
)

# ------------------------------------------------------------------ its beginning


@pytest.mark.parametrize(
    "wrong", [{"leader": OTHER}, {"released": True}, {"deleted": True}], ids=str
)
def test_r1_nobody_leads_without_a_grant(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvariantError, match="R1"):
        machine(**wrong)


def test_r2_an_epoch_that_has_opened_a_segment_is_led_by_nobody_else() -> None:
    with pytest.raises(InvariantError, match="R2"):
        machine(open=replace(old_segment(), id=SegmentId(3, 0)))


def test_it_says_where_it_stands() -> None:
    m = leading()
    append(m)
    assert "orders epoch 3 leading, committed 0, tail 1" in repr(m)
    assert "a#1:0 open" in repr(m)


# ------------------------------------------------------------------ taking over


def fenced(m: LeaderMachine, member: Member, end: int, chain: int = 0, **more: Any) -> list[Any]:
    return m.fenced(
        member, FenceAnswer(end=end, chain=chain), has_certificate=False, now=0.0, **more
    )


def copy_of(first: int, crc: int = 7) -> CopiedFrame:
    return CopiedFrame(first, 1, crc, b"frame")


def test_answers_of_a_takeover_that_is_over_change_nothing() -> None:
    m = leading()
    answer = FenceAnswer(end=0, chain=0)
    assert m.fenced(A, answer, has_certificate=True, now=0.0) == []
    assert m.unfenced(A, WrongIncarnationError("another life"), 0.0) == []
    assert m.copied(A, 0, 0, [copy_of(0)], 0.0) == []
    assert m.unread(A, 0, None, 0.0) == []


def test_a_certificate_for_what_the_head_calls_open_is_looked_into() -> None:
    m = machine(open=old_segment())
    m.start(0.0)
    answer = FenceAnswer(end=0, chain=0)
    only(fx.RereadHead, m.fenced(A, answer, has_certificate=True, now=0.0))
    out = m.head_read(m.head, 0.0)
    error, is_release_due = ended(m, out)
    assert isinstance(error, MetadataLostError)
    assert not is_release_due
    assert only(fx.Alarm, out).event == "metadata_lost"


def test_r18_a_member_of_another_life_is_asked_for_its_bytes() -> None:
    m = machine(open=old_segment())
    m.start(0.0)
    m.unfenced(A, WrongIncarnationError("another life"), 0.0)
    fenced(m, B, 0)
    m.fenced(C, FenceAnswer(end=2, chain=5, unknown=((0, 2),)), has_certificate=False, now=0.0)
    assert m._takeover.recovery is not None
    assert m._takeover.recovery.witnesses == [A]


def test_i7_a_copy_that_contradicts_a_member_ends_the_leader() -> None:
    m = machine(open=old_segment())
    m.start(0.0)
    fenced(m, A, 1, chain=99)
    read = only(fx.ReadFrom, fenced(m, B, 2, chain=5))  # it says another chain than its frame has
    assert read.start == 1
    out = m.copied(read.member, 1, 99, [copy_of(1)], 0.0)
    error, is_release_due = ended(m, out)
    assert isinstance(error, PeerError)
    assert is_release_due
    assert only(fx.Alarm, out).event == "replica_conflict"


def test_i7_two_chains_at_one_end_end_the_leader() -> None:
    m = machine(open=old_segment())
    m.start(0.0)
    fenced(m, A, 2, chain=1)
    error, _ = ended(m, fenced(m, B, 2, chain=2))
    assert isinstance(error, PeerError)


def test_r6_while_a_transaction_is_out_nothing_is_walked() -> None:
    m = machine(open=old_segment())
    m.start(0.0)
    m.proposed(SET, 0.0)
    for member in (A, B):
        fenced(m, member, 0)
    open_all(m)
    assert m.seal is not None
    assert fenced(m, C, 0) == []
    assert m.proposed((D, A, B), 0.0) == []  # too late
    assert m.tick(0.5) == []


# ------------------------------------------------------------------ servers for the next segment


def test_too_few_servers_open_nothing_and_are_asked_for_again() -> None:
    m = machine()
    m.start(0.0)
    assert m.proposed((A,), 0.0) == []
    only(fx.ProposeSet, m.tick(BUSY_TICK_S))


def test_a_master_that_names_none_is_asked_less_and_less_often() -> None:
    m = machine()
    m.start(0.0)
    now, gap = 0.0, PROPOSE_RETRY_S
    for _ in range(5):
        assert m.not_proposed(NotEnoughServersError("none", have=0, need=2), now) == []
        assert m.tick(now + gap * 0.9) == []
        now += gap
        only(fx.ProposeSet, m.tick(now))
        gap = min(2 * gap, PROPOSE_RETRY_S_MAX)


def test_who_is_told_that_the_stream_is_anothers_looks_at_the_head() -> None:
    m = machine()
    m.start(0.0)
    only(fx.RereadHead, m.not_proposed(FencedError("fenced", epoch=4), 0.0))


def test_r7_a_set_on_which_nothing_moves_gives_way_later_and_later() -> None:
    m = machine()
    m.start(0.0)
    m.proposed(SET, 0.0)
    now, patience, ids = 0.0, ATTEMPT_S, []
    for _ in range(5):
        assert m.next is not None
        ids.append(m.next.id)
        assert "ProposeSet" not in kinds(m.tick(now + patience * 0.9))
        now += patience
        assert only(fx.ProposeSet, m.tick(now)).exclude == ("a", "b", "c")
        out = m.proposed(SET, now)
        assert only(fx.DropSet, out).segment.id == ids[-1]
        patience = min(2 * patience, ATTEMPT_S_MAX)
    assert ids == [SegmentId(3, n) for n in range(5)]


def test_r6_a_copy_that_does_not_fit_is_not_progress() -> None:
    m = machine(open=old_segment())
    m.start(0.0)
    fenced(m, A, 0)
    fenced(m, B, 1, chain=5)
    assert m.copied(B, 0, 99, [copy_of(0)], 4.0) == []
    assert m._healthy_at == 0.0


def test_r26_a_segment_begins_between_frames() -> None:
    m = leading()
    append(m, count=4)
    with pytest.raises(InvariantError, match="R26: 2 lies between no two frames"):
        m._open_next(2, SET, 0.0)


def test_a_proposal_that_nobody_needs_any_more_changes_nothing() -> None:
    m = leading()
    assert m.proposed(SET, 1.0) == []
    assert m.next is None


# ------------------------------------------------------------------ replicas of ours


def test_answers_for_a_segment_that_is_gone_change_nothing() -> None:
    m, other = leading(), leading()
    assert other.current is not None
    stranger = other.current
    replica = stranger.replicas[0]
    assert m.opened(stranger, replica, 0, 0, 0.0) == []
    assert m.away(stranger, replica, 1.0) == []
    assert m.away(stranger, replica, 2.0) == []
    assert not replica.is_open
    assert replica.away_at == 1.0, "it was away already"
    assert m.refused(stranger, replica, ReplicaConflictError("other bytes"), 0.0) == []


def test_r19_who_forgot_what_it_acked_never_counts_again() -> None:
    m = leading()
    append(m)
    ack(m, A, B)
    assert m.current is not None
    replica = m.current.replicas[0]
    out = m.opened(m.current, replica, 0, 0, 0.0)
    assert only(fx.Alarm, out).event == "replica_lost_acked"
    assert replica.failure is not None
    assert replica.matched == 0
    append(m)
    assert m.opened(m.current, replica, m.tail, m.outbox.chain, 0.0) == []
    assert m.current.accepted(replica, m.tail, m.tail) is False
    other = m.current.replicas[1]
    out = m.opened(m.current, other, 0, 0, 0.0)
    assert "Alarm" not in kinds(out), "one alarm is enough"
    assert other.failure is not None


def test_r11_who_lacks_frames_that_are_gone_waits_for_the_next_segment() -> None:
    m = leading()
    m.outbox.bytes_max = 0
    assert m.current is not None
    replica = m.current.replicas[2]
    m.away(m.current, replica, 0.0)
    append(m)
    ack(m, A, B)
    m.trim()
    assert m.outbox.start == 1
    m.opened(m.current, replica, 0, 0, 0.0)
    assert replica.is_behind
    assert not replica.is_open
    assert "c#1:0 behind" in repr(replica)


def test_r11_who_takes_too_little_is_left_as_who_lacks_frames_is() -> None:
    m = leading()
    append(m)
    ack(m, A, B)
    assert m.current is not None
    replica = m.current.replicas[2]
    assert m.overtaken(m.current, replica, 100.0) == []
    assert replica.is_behind
    assert not replica.is_open
    proposal = only(fx.ProposeSet, m.tick(100.0 + AWAY_S))
    assert not proposal.is_needed
    only(fx.OpenSet, m.proposed(SET, 100.0 + AWAY_S))
    ack(m, A, B)
    only(fx.Seal, open_all(m, 101.0))
    assert m.seal is not None
    assert m.seal.reason == "lagging"


def test_r11_members_that_are_silent_are_left_later_each_time() -> None:
    """Trap 50: they may be no slower than those that come next."""
    m, now = leading(), 10.0
    append(m)
    taken = []
    others = (D, Member("e", 1), Member("f", 1))
    for servers in (others, SET, others):
        ticks = 1
        while not (out := [e for e in m.tick(now) if isinstance(e, fx.ProposeSet)]):
            ticks += 1
            now += 0.01
        assert out[0].is_needed
        taken.append(ticks)
        only(fx.OpenSet, m.proposed(servers, now))
        only(fx.Seal, open_all(m, now))
        sealed(m, now)
    assert taken == [4, 8, 16]


def test_r11_a_next_segment_that_cannot_be_opened_costs_no_patience() -> None:
    """Nobody was silent: those who should have opened it were not there."""
    m, now = leading(), 10.0
    append(m)
    ack(m, A, B, C)
    m.want_roll("size")
    only(fx.ProposeSet, m.poke(now))
    only(fx.OpenSet, m.proposed((D, Member("e", 1), Member("f", 1)), now))
    now += ATTEMPT_S
    only(fx.ProposeSet, m.tick(now))
    only(fx.OpenSet, m.proposed(SET, now))
    only(fx.Seal, open_all(m, now))
    sealed(m, now)
    append(m)
    ticks = [n for n in range(20) if "ProposeSet" in kinds(m.tick(now + n / 100))]
    assert ticks == [STALL_TICKS - 1]


@pytest.mark.parametrize(("end", "chain"), [(2, 0), (1, 123)], ids=["too far", "other bytes"])
def test_r3_other_bytes_than_were_sent_end_the_leader(end: int, chain: int) -> None:
    m = leading()
    append(m)
    assert m.current is not None
    error, is_release_due = ended(m, m.opened(m.current, m.current.replicas[0], end, chain, 0.0))
    assert isinstance(error, ReplicaConflictError)
    assert is_release_due


def test_r3_a_member_that_says_conflict_ends_the_leader_once() -> None:
    m = leading()
    assert m.current is not None
    replica = m.current.replicas[0]
    conflict = ReplicaConflictError("other bytes")
    out = m.refused(m.current, replica, conflict, 2.0)
    assert ended(m, out) == (conflict, True)
    assert replica.away_at == 2.0
    assert m.refused(m.current, replica, conflict, 3.0) == []
    assert m.lost(conflict) == []


@pytest.mark.parametrize(
    ("error", "is_final", "looks"),
    [
        (WrongIncarnationError("another life"), True, False),
        (SealedError("sealed"), True, True),
        (GoneError("dropped"), True, True),
        (FencedError("fenced", epoch=3, incarnation=ME.incarnation), True, True),
        (ServerUnavailableError("down"), False, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_refusal_means(error: LunalogError, is_final: bool, looks: bool) -> None:
    m = leading()
    assert m.current is not None
    replica = m.current.replicas[0]
    out = m.refused(m.current, replica, error, 0.0)
    assert (replica.failure is not None) == is_final
    assert ("RereadHead" in kinds(out)) == looks
    assert ("failed" if is_final else "away") in repr(replica)


# ------------------------------------------------------------------ appends and acks


def test_r9_no_frame_is_made_by_who_does_not_lead() -> None:
    m = machine()
    with pytest.raises(InvariantError, match="R9"):
        m.appended(0, 1, 7, b"")
    m = leading()
    m.resign(0.0)
    with pytest.raises(InvariantError, match="R9"):
        m.appended(0, 1, 7, b"")


def test_r9_acks_move_nothing_before_the_transaction_is_known() -> None:
    m = machine()
    m.start(0.0)
    m.proposed(SET, 0.0)
    open_all(m)
    m._commit()
    assert m.committed == 0
    m.trim()  # there is nothing yet that could go
    assert m.current is None


def test_r31_from_sending_the_close_nothing_is_acknowledged() -> None:
    m = leading()
    append(m)
    m.resign(0.0)
    only(fx.Seal, m.tick(RESIGN_DRAIN_S + 0.1))
    ack(m, A, B)
    assert m.committed == 0


def test_a_large_segment_is_left() -> None:
    m = leading()
    m.head = replace(m.head, policy=replace(m.head.policy, segment_bytes_max=15))
    append(m)
    assert m._rolls.wanted == ""
    append(m)
    assert m._rolls.wanted == "size"
    m.want_roll("wish")
    assert m._rolls.wanted == "size"
    assert m.target is m.current


def test_an_old_segment_is_left_unless_it_is_empty() -> None:
    m = leading()
    age_s = m.head.policy.segment_age_s
    m.tick(age_s)
    assert m._rolls.wanted == ""
    append(m)
    ack(m, *SET)
    m.tick(2 * age_s)
    assert m._rolls.wanted == "age"


# ------------------------------------------------------------------ rolls


def rolling() -> LeaderMachine:
    """A leader that has picked a boundary: the old segment is short of it."""
    m = leading()
    append(m)
    m.want_roll("size")
    only(fx.ProposeSet, m.tick(0.1))
    only(fx.OpenSet, m.proposed(SET, 0.1))
    return m


def with_a_slow_member() -> LeaderMachine:
    """Both must answer, and B does so late."""
    m = machine()
    m.head = replace(m.head, policy=Policy(replicas=2, ack_quorum=2))
    m.start(0.0)
    m.proposed((A, B), 0.0)
    open_all(m)
    sealed(m)
    assert m.current is not None
    for n in range(LATE_FRAMES):
        m.tick(n * 0.06)
        append(m)
        m.time_last(n * 0.06)
        for replica, delay in zip(m.current.replicas, (0.001, 0.01), strict=True):
            m.current.accepted(replica, m.tail, m.tail)
            m.current.timed(m.current.pace, replica, n * 0.06 + delay)
    return m


def test_l3_a_slow_member_is_left_for_a_full_set_without_it() -> None:
    m = with_a_slow_member()
    assert only(fx.ProposeSet, m.tick(5.0)) == fx.ProposeSet(("b",), is_needed=False)
    opened = only(fx.OpenSet, m.proposed((A, C), 5.0))
    assert opened.segment.segment.members == (A, C)
    assert opened.segment.first == m.tail
    append(m)
    m.time_last(5.0)
    assert m.current is not None
    assert m.current.pace is not None
    assert m.current.pace.end > m.tail, "what goes ahead says nothing of the old set"
    open_all(m, 5.0)
    assert sealed(m, 5.0)
    assert m._reason == "slow"


def test_l3_a_slow_member_is_borne_where_nobody_takes_its_place() -> None:
    m = with_a_slow_member()
    m.tick(5.0)
    m.not_proposed(NotEnoughServersError("only a", have=1, need=2), 5.0)
    assert kinds(m.tick(5.0 + SLOW_EVERY_S - 1.0)) == []
    assert kinds(m.tick(5.0 + SLOW_EVERY_S)) == ["ProposeSet"]
    assert kinds(m.proposed((A, B), 5.0 + SLOW_EVERY_S)) == [], "the slow one is no better set"


def test_r11_a_planned_roll_gives_way_to_an_urgent_one() -> None:
    m = rolling()
    planned = m.next
    assert m.current is not None
    out: list[Any] = []
    for replica in m.current.replicas[:2]:
        out += m.away(m.current, replica, 0.2)
    assert only(fx.ProposeSet, out).exclude == ("a", "b", "c")
    out = m.proposed((D, Member("e", 1)), 0.4)
    assert only(fx.DropSet, out).segment is planned
    assert m.next is not None
    assert m.next.first == m.committed == 0


def test_r11_a_new_set_that_does_not_answer_is_replaced() -> None:
    m = rolling()
    assert m.next is not None
    first = m.next.id
    ack(m, *SET)
    assert m.seal is None
    only(fx.ProposeSet, m.tick(5.0))
    only(fx.OpenSet, m.proposed((D, Member("e", 1), Member("f", 1)), 5.0))
    assert m.next.id != first


def test_r11_too_few_better_servers_mean_later() -> None:
    m = leading()
    append(m)
    m.want_roll("size")
    only(fx.ProposeSet, m.tick(0.1))
    assert m.proposed((A, B), 0.1) == []
    assert m.next is None
    m.not_proposed(NotEnoughServersError("none", have=0, need=3), 0.2)
    assert m._rolls.planned_at > 0.2


def test_a_proposal_comes_too_late_for_who_resigns() -> None:
    m = leading()
    append(m)
    m.want_roll("size")
    only(fx.ProposeSet, m.tick(0.1))
    m.resign(0.2)
    assert m.proposed(SET, 0.3) == []


def test_r31_a_boundary_that_nobody_knows_is_taken_back() -> None:
    m = rolling()
    ahead = m.next
    m.resign(1.0)
    out = m.tick(1.0 + RESIGN_DRAIN_S)
    assert only(fx.DropSet, out).segment is ahead
    assert only(fx.Seal, out).release
    error, _ = ended(m, sealed(m, 3.0))
    assert "this leader has resigned" in error.message


def test_r26_a_close_lies_between_frames() -> None:
    m = leading()
    append(m, count=4)
    ack(m, A, B, end=2)  # no honest server would
    m.resign(0.0)
    with pytest.raises(InvariantError, match="R26: committed 2"):
        m.tick(RESIGN_DRAIN_S)


# ------------------------------------------------------------------ the transaction and the head


def test_r8_a_transaction_that_opened_nothing_is_noticed() -> None:
    m = machine()
    m.start(0.0)
    m.proposed(SET, 0.0)
    open_all(m)
    m.next = None
    with pytest.raises(InvariantError, match="R8: nothing was opened"):
        sealed(m)


@pytest.mark.parametrize(
    ("error", "kind", "is_release_due"),
    [
        (FencedError("fenced", epoch=4), NotLeaderError, False),
        (NotLeaderError("other", leader="other"), NotLeaderError, False),
        (StreamNotFoundError("deleted"), StreamNotFoundError, False),
        (MetadataLostError("went back"), MetadataLostError, False),
        (ConflictError("no fit"), NotLeaderError, True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_ends_when_the_master_refuses(
    error: LunalogError, kind: type[LunalogError], is_release_due: bool
) -> None:
    m = machine()
    m.start(0.0)
    m.proposed(SET, 0.0)
    seal = only(fx.Seal, open_all(m))
    assert m.seal_refused(replace_seal(seal), error, 0.0) == []  # of another transaction
    found, is_due = ended(m, m.seal_refused(seal, error, 0.0))
    assert type(found) is kind
    assert is_due == is_release_due
    assert m.seal_refused(seal, error, 0.0) == []


def replace_seal(seal: fx.Seal) -> fx.Seal:
    return fx.Seal(seal.old, seal.row, seal.open, seal.next, seal.chain)


def test_the_end_of_the_stream_ends_its_leader() -> None:
    m = leading()
    error, _ = ended(m, m.head_seen(replace(m.head, deleted=True), 0.0))
    assert isinstance(error, StreamNotFoundError)
    assert m.head_seen(m.head, 0.0) == []
    assert m.tick(1.0) == []


def test_an_older_head_changes_nothing() -> None:
    m = leading()
    before = m.head
    assert m.head_seen(replace(before, version=before.version - 1), 0.0) == []
    assert m.head_seen(replace(before, version=9, epoch=2, leader=OTHER), 0.0) == []
    assert m.head is before


@pytest.mark.parametrize(
    ("more", "leader"),
    [
        ({"epoch": 4, "leader": OTHER}, "other"),
        ({"epoch": 4, "leader": OTHER, "released": True}, None),
        ({"epoch": 4, "leader": None}, None),
        ({"leader": OTHER}, "other"),
    ],
    ids=str,
)
def test_another_leader_ends_this_one(more: dict[str, Any], leader: str | None) -> None:
    m = leading()
    error, is_release_due = ended(m, m.head_seen(replace(m.head, version=9, **more), 0.0))
    assert isinstance(error, NotLeaderError)
    assert error.leader == leader
    assert not is_release_due


def test_an_epoch_that_was_released_is_over() -> None:
    m = leading()
    error, _ = ended(m, m.head_seen(replace(m.head, version=9, released=True), 0.0))
    assert "the epoch was given back" in error.message


def test_r25_a_head_that_shows_another_open_segment_went_back() -> None:
    m = leading()
    error, _ = ended(m, m.head_seen(replace(m.head, version=9, open=None), 0.0))
    assert isinstance(error, MetadataLostError)


def test_r25_a_promise_above_the_head_is_proof() -> None:
    m = leading()
    assert m.current is not None
    fence = FencedError("fenced", epoch=9, incarnation=OTHER.incarnation)
    only(fx.RereadHead, m.refused(m.current, m.current.replicas[0], fence, 0.0))
    error, _ = ended(m, m.head_read(m.head, 0.0))
    assert isinstance(error, MetadataLostError)


def test_a_head_that_cannot_be_read_is_asked_for_again_unless_the_stream_is_gone() -> None:
    m = leading()
    assert m.current is not None
    fence = FencedError("fenced", epoch=9, incarnation=OTHER.incarnation)
    only(fx.RereadHead, m.refused(m.current, m.current.replicas[0], fence, 0.0))
    assert "RereadHead" not in kinds(m.head_unread(MasterUnavailableError("silent"), 0.0))
    only(fx.RereadHead, m.tick(0.1))
    error, _ = ended(m, m.head_unread(StreamNotFoundError("deleted"), 0.2))
    assert isinstance(error, StreamNotFoundError)


# ------------------------------------------------------------------ read points


def test_r14_questions_before_and_after_its_reign_are_answered_no() -> None:
    m = machine()
    before = only(fx.AnswerRead, m.asked(1, 0.0))
    assert isinstance(before.error, NotLeaderError)
    assert "recovery is not over" in before.error.message
    m = leading()
    why = ServerUnavailableError("the journal ends")
    m.abandon(why)
    assert only(fx.AnswerRead, m.asked(2, 0.0)).error is why
    m.error = None
    assert isinstance(only(fx.AnswerRead, m.asked(3, 0.0)).error, NotLeaderError)


def test_r14_an_ack_quorum_confirms_and_who_waits_too_long_is_told() -> None:
    m = leading()
    check = only(fx.CheckSet, m.asked(1, 0.0))
    assert m.checked(check.round, A, is_unfenced=True, now=0.0) == []
    answer = only(fx.AnswerRead, m.checked(check.round, B, is_unfenced=True, now=0.0))
    assert (answer.token, answer.committed, answer.error) == (1, 0, None)
    check = only(fx.CheckSet, m.asked(2, 1.0))
    silence = ServerUnavailableError("silent")
    for member in (A, B):
        m.check_failed(check.round, check.segment.id, member, silence, 1.0)
    late = only(fx.AnswerRead, m.tick(60.0))
    assert (late.token, type(late.error).code) == (2, "unavailable")


def test_a_question_that_is_open_ends_with_its_leader() -> None:
    m = leading()
    m.asked(1, 0.0)
    out = m.given_back(0.0)
    error, _ = ended(m, out)
    assert only(fx.AnswerRead, out).error is error


# ------------------------------------------------------------------ giving back, ticks


def test_n2_who_reaches_nobody_for_long_gives_back_once() -> None:
    m = leading()
    assert m.current is not None
    for replica in m.current.replicas:
        m.away(m.current, replica, 0.0)
    stall_s = SETTINGS.leader_stall_ms / 1000
    assert "GiveBack" not in kinds(m.tick(stall_s / 2))
    only(fx.GiveBack, m.tick(stall_s + 1))
    assert "GiveBack" not in kinds(m.tick(stall_s + 2))
    m.kept(stall_s + 3)
    assert "GiveBack" not in kinds(m.tick(stall_s + 4))
    only(fx.GiveBack, m.tick(2 * stall_s + 4))


def test_resigning_twice_or_after_the_end_changes_nothing() -> None:
    m = leading()
    only(fx.Seal, m.resign(0.0))
    assert m.resign(0.1) == []
    m.lost(NotLeaderError("gone"))
    assert m.resign(0.2) == []


def test_resigning_before_anything_is_open_only_gives_back() -> None:
    m = machine()
    m.start(0.0)
    _, is_release_due = ended(m, m.resign(0.0))
    assert is_release_due


def test_who_is_whole_and_idle_looks_again_when_its_segment_is_old() -> None:
    m = leading()
    m.poke(0.0)
    assert m.next_tick == m.head.policy.segment_age_s
    assert not m.is_waiting
    append(m)
    m.poke(0.0)
    assert m.next_tick == SETTINGS.tick_s
    assert m.is_waiting
    assert m.is_steady
    for _ in range(STALL_TICKS):
        m.tick(0.0)
    assert not m.is_steady  # whose acks are due for long is looked at closely
    ack(m, A, B)
    m.poke(0.0)
    assert not m.is_waiting
    assert m.next_tick == BUSY_TICK_S  # one member still lacks it
    ack(m, C)
    m.want_roll("size")
    m.poke(0.0)
    assert m.next_tick == BUSY_TICK_S


def test_the_mark_of_a_segment_that_the_head_does_not_name_is_frozen() -> None:
    m = rolling()
    assert m.current is not None
    assert m.next is not None
    ack(m, *SET)
    assert m.mark(m.current) == 1
    assert m.mark(m.next) == m.next.first == 1


def test_the_chain_of_what_was_carried_over_goes_on() -> None:
    m = machine(open=old_segment())
    m.start(0.0)
    m.proposed(SET, 0.0)
    chain = chains.extend(0, 0, 1, 7)
    fenced(m, A, 0)
    read = only(fx.ReadFrom, fenced(m, B, 1, chain=chain))
    out = m.copied(read.member, 0, 0, [copy_of(0)], 0.0)
    segment = only(fx.OpenSet, out).segment
    assert (segment.first, m.tail, m.outbox.chain) == (0, 1, chain)
    m.unread(A, 0, ServerUnavailableError("late"), 0.0)
    assert m.phase is Phase.TAKEOVER
