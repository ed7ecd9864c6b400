"""Each checker accepts a good history and rejects every hand-made bad one."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import pytest

from lunalog.core import chain as chains
from lunalog.testing.checkers import CHECKERS, lacking
from lunalog.testing.history import (
    Append,
    Call,
    Campaign,
    Delivery,
    Denial,
    GraySpell,
    HeadChange,
    HeldFrame,
    History,
    LinearRead,
    Loss,
    ReaderSession,
    Removal,
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
FOUR = Member("four", 1)
FIRST, SECOND = SegmentId(1, 0), SegmentId(2, 0)
CHAIN = chains.extend(0, 0, 2, 99)
ROW = SealedSegment(FIRST, 0, 2, CHAIN, MEMBERS, 2, "p", "takeover", 0)
SLOW_S, QUICK_S = 0.015, 0.01


def head(version: int, epoch: int, leader: bytes, first: int, truncated: int = 0) -> StreamHead:
    return StreamHead(
        "s",
        STREAM,
        Policy(),
        version=version,
        epoch=epoch,
        leader=Peer("p", leader),
        released=False,
        truncated_before=truncated,
        next=first,
        open=OpenSegment(SegmentId(epoch, 0), first, 0, MEMBERS, 2),
    )


def held(member: Member, segment: SegmentId, first: int, epoch: int) -> HeldFrame:
    count, crc = (2, 99) if first == 0 else (1, 55)
    return HeldFrame(member, STREAM, segment, first, count, crc, epoch)


def good() -> History:
    """Epoch 1 acks a, b; epoch 2 takes over at t=10 and acks c; one append stays unknown.

    Member three held a frame more in epoch 1, which nobody recovered: its certificate cut it.
    """
    log = [Delivery(0, 1, b"a"), Delivery(1, 1, b"b"), Delivery(2, 2, b"c")]
    promised = ServerMemory({STREAM: Promise(1, ANN)}, {(STREAM, FIRST): 2})
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
        calls=[
            Call("ann", ANN, "committed", 1.0, 2.0),
            Call("bob", BOB, "committed", 12.5, 2.0, 13.0),
        ],
        heads=[HeadChange(0.5, head(2, 1, ANN, 0)), HeadChange(10.0, head(3, 2, BOB, 2))],
        rows=[RowChange(10.0, STREAM, ROW, MEMBERS[:2])],
        held=[held(m, FIRST, 0, 1) for m in MEMBERS] + [held(m, SECOND, 2, 2) for m in MEMBERS],
        replicas=[ReplicaEnd(m, STREAM, FIRST, 0, 2, 2, CHAIN, True) for m in MEMBERS],
        restarts=[Restart("one", promised, copy.deepcopy(promised))],
        acks={(MEMBERS[0], FIRST): 2, (MEMBERS[1], FIRST): 2},
        denials=[Denial(9.0, MEMBERS[0], FIRST, 2), Denial(9.0, MEMBERS[2], FIRST, 0)],
        removals=[Removal(10.5, MEMBERS[2], FIRST, 2, 3, "suffix", ROW)],
        campaigns=[Campaign(10.0, 12.0, 2.0, 0.1)],
        log=log,
        over_at=20.0,
        alive=frozenset([BOB]),
    )


def with_gray_spell() -> History:
    """A thousand appends a spell, one in fifty of them slower while a server is gray."""
    history = History(gray_spells=[GraySpell("one", 10.0, 30.0)])
    for number in range(3000):
        invoked = number * 0.01
        took = SLOW_S if number % 50 == 0 and invoked > 10.0 else QUICK_S
        history.appends.append(
            Append(b"%d" % number, "p", ANN, 1, invoked, "acked", number, invoked + took)
        )
    return history


GOOD = {"L3": with_gray_spell}


@pytest.mark.parametrize("name", CHECKERS)
def test_a_good_history_passes_and_is_really_looked_at(name: str) -> None:
    finding = CHECKERS[name](GOOD.get(name, good)())
    assert finding.violations == []
    assert finding.checked > 0


@pytest.mark.parametrize("name", CHECKERS)
def test_an_empty_history_passes_and_counts_nothing(name: str) -> None:
    finding = CHECKERS[name](History())
    assert finding.violations == []
    assert finding.checked == 0


# ---------------------------------------------------------------------- events


def other_event_for_one_reader(h: History) -> None:
    h.readers[0].deliveries[1] = Delivery(1, 1, b"x")


def read_beyond_the_log(h: History) -> None:
    h.readers[0].deliveries.append(Delivery(3, 2, b"x"))


def readers_of_a_deleted_stream_differ(h: History) -> None:
    h.has_log, h.log = False, []
    h.readers.append(ReaderSession("q", 0, [Delivery(0, 1, b"x")]))


def lost_event(h: History) -> None:
    h.log[1] = Delivery(1, 1, b"x")


def lost_end(h: History) -> None:
    h.log.pop()


def event_twice(h: History) -> None:
    h.log.append(Delivery(3, 2, b"c"))


def event_of_nobody(h: History) -> None:
    h.log.append(Delivery(3, 2, b"?"))


def refused_event_kept(h: History) -> None:
    h.log.append(Delivery(3, 2, b"y"))


def acked_at_another_place(h: History) -> None:
    h.appends[3].sequence = 5


def hole(h: History) -> None:
    del h.readers[0].deliveries[1]


def repeat(h: History) -> None:
    h.log.insert(1, h.log[0])


def late_beginning(h: History) -> None:
    h.readers[0].start = 1


def reader_goes_back(h: History) -> None:
    h.readers[0].deliveries.append(h.readers[0].deliveries[0])


def reader_stands_still(h: History) -> None:
    h.readers[0].deliveries.append(h.readers[0].deliveries[-1])


def writer_out_of_order(h: History) -> None:
    h.appends[0].sequence, h.appends[1].sequence = 1, 0


def before_what_was_acked(h: History) -> None:
    """Another writer's append is called after b was acked, and lies before it."""
    h.appends[1].sequence, h.appends[3].sequence = 2, 1


# ---------------------------------------------------------------------- leadership


def epoch_granted_twice(h: History) -> None:
    h.heads.append(HeadChange(11.0, head(4, 2, ANN, 2)))


def ack_of_a_stranger(h: History) -> None:
    h.appends[0].incarnation = BOB


def ack_without_a_grant(h: History) -> None:
    h.appends[3].epoch = 7


def epoch_falls(h: History) -> None:
    h.heads.append(HeadChange(11.0, head(4, 1, ANN, 2)))


def version_stays(h: History) -> None:
    h.heads.append(HeadChange(11.0, head(3, 3, ANN, 2)))


def truncation_falls(h: History) -> None:
    h.heads += [HeadChange(11.0, head(4, 2, BOB, 2, 1)), HeadChange(12.0, head(5, 2, BOB, 2))]


def sealed_twice(h: History) -> None:
    again = SealedSegment(FIRST, 0, 3, 78, MEMBERS, 2, "p", "again", 0)
    h.rows.append(RowChange(11.0, STREAM, again))


def segments_apart(h: History) -> None:
    row = SealedSegment(SECOND, 3, 4, 78, MEMBERS, 2, "p", "size", 0)
    h.rows.append(RowChange(11.0, STREAM, row))


def never_opened(h: History) -> None:
    row = SealedSegment(SegmentId(1, 7), 0, 2, CHAIN, MEMBERS, 2, "p", "size", 0)
    h.rows = [RowChange(10.0, STREAM, row)]


def head_behind_its_rows(h: History) -> None:
    h.heads.append(HeadChange(11.0, head(4, 2, BOB, 4)))


def ack_after_takeover(h: History) -> None:
    h.appends[1].invoked, h.appends[1].done = 10.5, 10.6


def old_epoch_behind_new(h: History) -> None:
    h.appends[1].sequence, h.appends[3].sequence = 2, 1


def epochs_mixed_in_the_log(h: History) -> None:
    h.log[1] = Delivery(1, 3, b"b")


# ---------------------------------------------------------------------- reads


def stale_read(h: History) -> None:
    h.linear_reads[1].committed = 2


def read_from_the_future(h: History) -> None:
    h.linear_reads[0].committed = 3


def read_covers_a_later_append(h: History) -> None:
    """The last event it covers is old, one before it is not."""
    h.appends[0].invoked = 5.5


def reads_go_back(h: History) -> None:
    h.linear_reads.append(LinearRead("q", 14.0, 15.0, 2))


def told_less(h: History) -> None:
    h.linear_reads.append(LinearRead(h.linear_reads[0].peer, 14.0, 15.0, 0))


def replica_knows_too_much(h: History) -> None:
    h.replicas.append(ReplicaEnd(MEMBERS[0], STREAM, SECOND, 2, 9, 9, 0))


# ---------------------------------------------------------------------- copies


def two_contents(h: History) -> None:
    h.held.append(dataclasses.replace(h.held[0], member=FOUR, crc=98))


def two_sizes(h: History) -> None:
    h.held.append(dataclasses.replace(h.held[0], member=FOUR, count=1))


def promise_lost(h: History) -> None:
    h.restarts[0].after.promises.clear()


def promise_of_another(h: History) -> None:
    h.restarts[0].after.promises[STREAM] = Promise(0, BOB)


def acked_bytes_lost(h: History) -> None:
    h.restarts[0].after.ends[STREAM, FIRST] = 1


def acked_segment_lost(h: History) -> None:
    h.restarts[0].after.ends.clear()


def sealed_on_too_few(h: History) -> None:
    h.rows[0].copies = MEMBERS[:1]


def same_copy_counted_twice(h: History) -> None:
    h.rows[0].copies = (MEMBERS[0], MEMBERS[0])


def a_later_loss_excuses_nothing(h: History) -> None:
    h.rows[0].copies = MEMBERS[:1]
    h.losses.append(Loss(11.0, MEMBERS[1]))


def replica_never_completed(h: History) -> None:
    h.replicas[2].is_complete = False


def replica_gone(h: History) -> None:
    h.replicas.pop()


def wiped_and_not_repaired(h: History) -> None:
    h.losses.append(Loss(9.5, MEMBERS[1]))
    del h.replicas[1]


def repaired_and_not_listed(h: History) -> None:
    h.losses.append(Loss(9.5, MEMBERS[1]))
    h.replicas[1] = dataclasses.replace(h.replicas[1], member=Member("two", 2))


def damage_served(h: History) -> None:
    h.held.append(dataclasses.replace(h.held[0], is_sound=False))


def damage_delivered(h: History) -> None:
    h.readers[0].deliveries[2] = Delivery(2, 2, b"\xff")


def other_bytes_after_carry_over(h: History) -> None:
    """The same origin's frame, in the next segment."""
    h.held.append(HeldFrame(MEMBERS[0], STREAM, SECOND, 0, 2, 98, 1))


def other_epoch_after_carry_over(h: History) -> None:
    h.log[1] = Delivery(1, 2, b"b")


def complete_with_other_bytes(h: History) -> None:
    h.replicas[1].chain = 5


def copy_does_not_hash_to_its_row(h: History) -> None:
    """Every replica claims the row's hash, and the frames of all of them say otherwise."""
    frames = [f for f in h.held if f.segment == FIRST]
    for frame in frames:
        h.held.remove(frame)
        h.held.append(dataclasses.replace(frame, crc=98))


# ---------------------------------------------------------------------- truth


def denied_what_it_acked(h: History) -> None:
    h.denials.append(Denial(9.0, MEMBERS[1], FIRST, 1))


def acked_what_it_denied(h: History) -> None:
    h.acks[MEMBERS[2], FIRST] = 1


def doubts_only_a_part(h: History) -> None:
    h.denials.append(Denial(9.0, MEMBERS[1], FIRST, 0, ((0, 1),)))


def trimmed_unasked(h: History) -> None:
    h.removals.append(Removal(11.0, MEMBERS[0], FIRST, 0, 2, "trim"))


def trimmed_too_early(h: History) -> None:
    h.removals.append(Removal(11.0, MEMBERS[0], FIRST, 0, 2, "trim"))
    h.heads.append(HeadChange(11.5, head(4, 2, BOB, 2, 2)))


def trimmed_too_far(h: History) -> None:
    h.heads.append(HeadChange(10.5, head(4, 2, BOB, 2, 1)))
    h.removals.append(Removal(11.0, MEMBERS[0], FIRST, 0, 2, "trim"))


def listed_copy_dropped(h: History) -> None:
    h.removals.append(Removal(11.0, MEMBERS[0], FIRST, 0, 2, "drop"))


def open_segment_dropped(h: History) -> None:
    h.removals.append(Removal(11.0, MEMBERS[0], SECOND, 2, 3, "drop"))


def current_epoch_dropped(h: History) -> None:
    h.removals.append(Removal(11.0, MEMBERS[0], SegmentId(2, 9), 2, 3, "drop"))


def live_stream_deleted(h: History) -> None:
    h.removals.append(Removal(11.0, MEMBERS[0], FIRST, 0, 2, "delete"))


def deleted_too_early(h: History) -> None:
    h.removals.append(Removal(11.0, MEMBERS[0], FIRST, 0, 2, "delete"))
    h.deleted_at = 11.5


def suffix_of_an_open_segment(h: History) -> None:
    h.removals.append(Removal(11.0, MEMBERS[0], SECOND, 2, 3, "suffix"))


def suffix_below_the_end(h: History) -> None:
    h.removals.append(Removal(11.0, MEMBERS[0], FIRST, 1, 2, "suffix", ROW))


def cut_without_a_certificate(h: History) -> None:
    h.removals.append(Removal(11.0, MEMBERS[0], FIRST, 2, 3, "suffix"))


def cut_before_it_was_sealed(h: History) -> None:
    h.removals.append(Removal(9.0, MEMBERS[0], FIRST, 2, 3, "suffix", ROW))


def cut_by_another_certificate(h: History) -> None:
    h.removals.append(Removal(11.0, MEMBERS[0], SECOND, 2, 3, "suffix", ROW))


# ---------------------------------------------------------------------- liveness


def campaign_for_ever(h: History) -> None:
    h.campaigns.append(Campaign(10.0, 40.0, 2.0, 0.1))


def call_without_end(h: History) -> None:
    h.calls.append(Call("bob", BOB, "transfer", 12.5, 2.0))


def call_past_its_limit(h: History) -> None:
    h.calls.append(Call("bob", BOB, "transfer", 12.5, 2.0, 17.0))


def append_without_end(h: History) -> None:
    h.appends.append(Append(b"z", "bob", BOB, 2, 13.0))


def slow_for_long(h: History) -> None:
    for append in h.appends[1600:]:
        append.done = append.invoked + 2.1 * QUICK_S


def stuck_in_one_of_fifty(h: History) -> None:
    for append in h.appends[1600::50]:
        append.outcome, append.sequence = "pending", None


def too_few_to_judge(h: History) -> None:
    del h.appends[1550:]


BAD: list[tuple[str, Callable[[History], None]]] = [
    ("I1", other_event_for_one_reader),
    ("I1", read_beyond_the_log),
    ("I1", readers_of_a_deleted_stream_differ),
    ("I2", lost_event),
    ("I2", lost_end),
    ("I3", event_twice),
    ("I3", event_of_nobody),
    ("I3", refused_event_kept),
    ("I3", acked_at_another_place),
    ("I4", epoch_granted_twice),
    ("I4", ack_of_a_stranger),
    ("I4", ack_without_a_grant),
    ("I5", epoch_falls),
    ("I5", version_stays),
    ("I5", truncation_falls),
    ("I5", sealed_twice),
    ("I5", segments_apart),
    ("I5", never_opened),
    ("I5", head_behind_its_rows),
    ("I6", ack_after_takeover),
    ("I6", old_epoch_behind_new),
    ("I6", epochs_mixed_in_the_log),
    ("I7", two_contents),
    ("I7", two_sizes),
    ("I8", stale_read),
    ("I8", read_from_the_future),
    ("I8", read_covers_a_later_append),
    ("I8", reads_go_back),
    ("I9", promise_lost),
    ("I9", promise_of_another),
    ("I9", acked_bytes_lost),
    ("I9", acked_segment_lost),
    ("I10", told_less),
    ("I10", replica_knows_too_much),
    ("I11", sealed_on_too_few),
    ("I11", same_copy_counted_twice),
    ("I11", a_later_loss_excuses_nothing),
    ("I11", replica_never_completed),
    ("I11", replica_gone),
    ("I11", wiped_and_not_repaired),
    ("I11", repaired_and_not_listed),
    ("I12", damage_served),
    ("I12", damage_delivered),
    ("I13", denied_what_it_acked),
    ("I13", acked_what_it_denied),
    ("I13", doubts_only_a_part),
    ("I14", trimmed_unasked),
    ("I14", trimmed_too_early),
    ("I14", trimmed_too_far),
    ("I14", listed_copy_dropped),
    ("I14", open_segment_dropped),
    ("I14", current_epoch_dropped),
    ("I14", live_stream_deleted),
    ("I14", deleted_too_early),
    ("I14", suffix_of_an_open_segment),
    ("I14", suffix_below_the_end),
    ("I15", other_bytes_after_carry_over),
    ("I15", other_epoch_after_carry_over),
    ("I15", complete_with_other_bytes),
    ("I15", copy_does_not_hash_to_its_row),
    ("I16", hole),
    ("I16", repeat),
    ("I16", late_beginning),
    ("I17", reader_goes_back),
    ("I17", reader_stands_still),
    ("I17", writer_out_of_order),
    ("I17", before_what_was_acked),
    ("I18", cut_without_a_certificate),
    ("I18", cut_before_it_was_sealed),
    ("I18", cut_by_another_certificate),
    ("I18", suffix_below_the_end),
    ("L1", campaign_for_ever),
    ("L2", call_without_end),
    ("L2", call_past_its_limit),
    ("L2", append_without_end),
    ("L3", slow_for_long),
    ("L3", stuck_in_one_of_fifty),
    ("L3", too_few_to_judge),
]


@pytest.mark.parametrize(("name", "spoil"), BAD)
def test_a_bad_history_is_rejected(name: str, spoil: Callable[[History], None]) -> None:
    history = GOOD.get(name, good)()
    spoil(history)
    assert CHECKERS[name](history).violations


def test_every_checker_has_bad_histories() -> None:
    assert {name for name, _ in BAD} == set(CHECKERS)


# ---------------------------------------------------------------------- what is no violation


def truncated_and_trimmed(h: History) -> None:
    h.heads.append(HeadChange(10.5, head(4, 2, BOB, 2, 2)))
    h.removals.append(Removal(11.0, MEMBERS[0], FIRST, 0, 2, "trim"))
    h.log, h.log_start = h.log[2:], 2
    h.replicas.clear()


def deleted(h: History) -> None:
    h.deleted_at, h.has_log, h.log = 15.0, False, []
    h.removals.append(Removal(16.0, MEMBERS[0], FIRST, 0, 2, "delete"))
    h.replicas.clear()


def a_disk_that_lost_something(h: History) -> None:
    """Two had it when it was sealed; one of them was wiped before, and has it again as another one."""
    again = Member("two", 2)
    h.losses.append(Loss(9.5, MEMBERS[1]))
    h.rows[0].copies = MEMBERS[:1]
    h.rows.append(
        RowChange(10.7, STREAM, row_again(members=(MEMBERS[0], again, MEMBERS[2]), version=2))
    )
    h.replicas[1] = dataclasses.replace(h.replicas[1], member=again)
    h.denials.append(Denial(9.9, MEMBERS[1], FIRST, 0))


def a_copy_with_a_hole(h: History) -> None:
    h.losses.append(Loss(9.5, MEMBERS[1]))
    h.replicas[1] = dataclasses.replace(h.replicas[1], is_complete=False, is_damaged=True)


def garbage_of_an_older_epoch(h: History) -> None:
    h.removals.append(Removal(11.0, MEMBERS[0], SegmentId(1, 5), 0, 1, "drop"))


def listed_elsewhere_since(h: History) -> None:
    moved = row_again(members=(FOUR, *MEMBERS[1:]), version=2)
    h.rows.append(RowChange(10.7, STREAM, moved))
    h.removals.append(Removal(11.0, MEMBERS[0], FIRST, 0, 2, "drop"))
    h.replicas.append(ReplicaEnd(FOUR, STREAM, FIRST, 0, 2, 2, CHAIN, True))


def unknown_is_no_denial(h: History) -> None:
    h.denials.append(Denial(9.0, MEMBERS[1], FIRST, 0, ((0, 1), (1, 2))))


def a_dead_client_waits(h: History) -> None:
    h.appends.append(Append(b"z", "ann", ANN, 1, 5.0))


def row_again(members: tuple[Member, ...], version: int) -> SealedSegment:
    return SealedSegment(FIRST, 0, 2, CHAIN, members, 2, "p", "takeover", 0, version)


@pytest.mark.parametrize(
    "change",
    [
        truncated_and_trimmed,
        deleted,
        a_disk_that_lost_something,
        a_copy_with_a_hole,
        garbage_of_an_older_epoch,
        listed_elsewhere_since,
        unknown_is_no_denial,
        a_dead_client_waits,
    ],
)
def test_what_is_allowed_is_accepted_by_all(change: Callable[[History], None]) -> None:
    history = good()
    change(history)
    found = [v for name in CHECKERS for v in CHECKERS[name](history).violations]
    assert found == []


def test_lacking_names_row_and_member() -> None:
    complete = {(member, FIRST) for member in MEMBERS[:2]}
    assert lacking(good(), complete, set(), 0) == [(ROW, MEMBERS[2])]
    assert lacking(good(), complete, {(MEMBERS[2].server, FIRST)}, 0) == []
    assert lacking(good(), complete, set(), 2) == []
    assert lacking(good(), complete, set(), 0, until=9.0) == []


@pytest.mark.parametrize("name", ["I1", "I2", "I3", "I6", "I8", "I10", "I16", "I17", "L2"])
def test_the_work_grows_with_the_history_and_no_faster(name: str) -> None:
    """Counted in facts: a checker that compares pairs would count quadratically."""

    def facts(events: int) -> int:
        log = [Delivery(n, 1, b"%d" % n) for n in range(events)]
        history = History(
            appends=[
                Append(event.payload, "p", ANN, 1, n + 0.1, "acked", n, n + 0.2)
                for n, event in enumerate(log)
            ],
            readers=[ReaderSession("r", 0, log)],
            linear_reads=[LinearRead("r", n + 0.3, n + 0.4, n + 1) for n in range(events)],
            log=log,
            over_at=events + 1.0,
            alive=frozenset([ANN]),
        )
        finding = CHECKERS[name](history)
        assert finding.violations == []
        return finding.checked

    few, many = facts(100), facts(1000)
    assert 0 < many <= 10 * few + 100
