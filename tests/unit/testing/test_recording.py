"""What servers accept, answer and give up is noted, once and truly."""

from __future__ import annotations

import asyncio

import pytest

from lunalog.client.journal import SingleWriteJournal
from lunalog.master import records
from lunalog.testing.cluster import Shape, SimulatedCluster, StreamShape
from lunalog.testing.history import HeldFrame, History, Loss
from lunalog.testing.recording import Recorder, WatchedReplica, is_sound
from lunalog.testing.simulation import Simulation
from lunalog.types import (
    Certificate,
    Member,
    OpenSegment,
    Policy,
    Promise,
    SealedSegment,
    SegmentId,
    StreamHead,
)
from lunalog.wire import frames

STREAM = b"s" * 16
ANN = b"a" * 16
FIRST = SegmentId(1, 0)
MEMBER = Member("one", 1)
ROW = SealedSegment(FIRST, 0, 2, 0, (MEMBER,), 1, "p", "size", 0)


class Clock:
    """A time that a test sets."""

    at = 1.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(Clock())


@pytest.fixture
def replica(recorder: Recorder) -> WatchedReplica:
    """Three events in one open segment: frames of one event and of two."""
    made = WatchedReplica("one", recorder)
    made.incarnation = 1
    held, _, _ = made.open(STREAM, FIRST, ANN, 1, 0, 0, 1)
    state = made.streams[STREAM]
    assert made.append(state, held, 0, 1, 7)
    assert made.append(state, held, 1, 2, 8)
    return made


def certificate(chain: int, end: int) -> Certificate:
    row = SealedSegment(FIRST, 0, end, chain, (MEMBER,), 1, "p", "takeover", 0)
    return Certificate(STREAM, row, Promise(2, ANN))


def test_a_suffix_cut_is_noted_with_its_certificate(
    recorder: Recorder, replica: WatchedReplica
) -> None:
    shown = certificate(5, 1)
    replica.certify(shown)
    (removal,) = recorder.of(STREAM).removals
    assert (removal.kind, removal.first, removal.end) == ("suffix", 1, 3)
    assert removal.member == MEMBER
    assert removal.certificate == shown.row


def test_a_certificate_that_cuts_nothing_leaves_no_note(
    recorder: Recorder, replica: WatchedReplica
) -> None:
    held = replica.streams[STREAM].segments[FIRST]
    replica.certify(certificate(held.chain, 3))
    assert recorder.of(STREAM).removals == []


def test_a_trim_is_noted_as_far_as_it_took_something(
    recorder: Recorder, replica: WatchedReplica
) -> None:
    assert replica.trim(STREAM, 1, 2)
    assert not replica.trim(STREAM, 1, 3)
    assert replica.trim(STREAM, 9, 4)
    spans = [(r.kind, r.first, r.end) for r in recorder.of(STREAM).removals]
    assert spans == [("trim", 0, 1), ("trim", 1, 3)]


def test_a_drop_and_a_deletion_are_noted(recorder: Recorder, replica: WatchedReplica) -> None:
    assert replica.drop(STREAM, FIRST, Promise(2, ANN), 3)
    assert [(r.kind, r.first, r.end) for r in recorder.of(STREAM).removals] == [("drop", 0, 3)]
    held, _, _ = replica.open(STREAM, SegmentId(2, 0), ANN, 1, 5, 0, 1)
    replica.append(replica.streams[STREAM], held, 5, 1, 9)
    assert replica.delete(STREAM, Promise(3, ANN))
    last = recorder.of(STREAM).removals[-1]
    assert (last.kind, last.segment, last.first, last.end) == ("delete", SegmentId(2, 0), 5, 6)


def test_what_is_read_back_at_a_start_is_not_noted_again(
    recorder: Recorder, replica: WatchedReplica
) -> None:
    replica.incarnation = 0
    replica.certify(certificate(5, 1))
    assert recorder.of(STREAM).removals == []


def test_a_frame_is_noted_once(recorder: Recorder) -> None:
    frame = HeldFrame(MEMBER, STREAM, FIRST, 0, 1, 7, 1)
    recorder.frame(frame)
    recorder.frame(frame)
    assert recorder.of(STREAM).held == [frame]


def test_acks_only_grow(recorder: Recorder) -> None:
    for end in (3, 2):
        recorder.acked(MEMBER, STREAM, FIRST, end)
    assert recorder.of(STREAM).acks == {(MEMBER, FIRST): 3}


def test_a_loss_is_noted_for_all_streams_and_for_who_comes_next(recorder: Recorder) -> None:
    history = recorder.of(STREAM)
    known = records.ServerRecord("one", 2, 1, 50, "one", 1)
    recorder.committed({records.server_key("one"): records.encode(known)}, ())
    recorder.harmed("one")
    assert history.losses == [Loss(1.0, Member("one", 2)), Loss(1.0, Member("one", 3))]
    assert recorder.reported == {"one": 50}


def test_commits_become_heads_rows_and_the_end_of_a_stream(recorder: Recorder) -> None:
    opened = OpenSegment(FIRST, 0, 0, (MEMBER,), 1)
    head = StreamHead("orders", STREAM, Policy(1, 1), epoch=1, open=opened)
    recorder.committed({records.head_key(STREAM): records.encode(records.HeadRecord(head))}, ())
    recorder.committed({records.row_key(STREAM, FIRST): records.encode(ROW)}, ())
    history = recorder.named("orders")
    assert [change.head for change in history.heads] == [head]
    assert [(change.row, change.copies) for change in history.rows] == [(ROW, ())]
    assert history.deleted_at is None
    gone = records.Tombstone(STREAM, "orders", Promise(2), ("one",))
    recorder.committed({records.gone_key(STREAM): records.encode(gone)}, [records.head_key(STREAM)])
    assert (history.deleted_at, history.has_log) == (1.0, False)
    assert recorder.named("others") == History(name="others")


def test_damaged_bytes_are_not_sound() -> None:
    frame = bytearray(frames.build(STREAM, 0, 1, 0, [b"x"]))
    assert is_sound(frame)
    frame[-1] ^= 1
    assert not is_sound(frame)


def test_a_cluster_without_faults_notes_acks_frames_and_copies() -> None:
    """Every acknowledged event was accepted by A members, who acked it and hold it when it is sealed."""
    simulation = Simulation(1)
    cluster = SimulatedCluster(simulation, Shape((StreamShape("orders", 2, 2),), 0, 1))
    history = cluster.recorder.of(cluster.streams["orders"])
    done: list[int] = []

    async def work(journal: SingleWriteJournal, _: str) -> None:
        async with journal.lead("orders") as writer:
            done.extend([await writer.append(b"x") for _ in range(3)])
        done.append(-1)
        await asyncio.get_running_loop().create_future()

    async def until_done() -> None:
        while not done or done[-1] != -1:
            await asyncio.sleep(0.1)

    with simulation:
        cluster.start(work)
        simulation.run(until_done(), timeout_s=30.0)
    assert done == [0, 1, 2, -1]
    (row,) = [change for change in history.rows if change.row.end == 3]
    assert set(row.copies or ()) == set(row.row.members)
    assert sorted(history.acks.items()) == [((m, row.row.id), 3) for m in sorted(row.row.members)]
    assert sorted((f.member, f.first, f.epoch, f.is_sound) for f in history.held) == [
        (member, first, 1, True) for member in sorted(row.row.members) for first in range(3)
    ]
