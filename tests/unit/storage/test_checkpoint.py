"""Checkpoints: whole or not taken, the last two kept, and extents only let go behind them."""

from __future__ import annotations

import errno
import random

import pytest
from tests.unit.storage.conftest import ANN, OTHER, SEGMENT, STREAM

from lunalog.core.replica import Replica
from lunalog.runtime import drive
from lunalog.server import facts
from lunalog.storage import checkpoint, extents, ledger
from lunalog.storage.checkpoint import Contents, ExtentNote, RunNote, SegmentNote
from lunalog.storage.format import Position
from lunalog.storage.index import Index
from lunalog.storage.ledger import Beginning, Ledger
from lunalog.storage.records import (
    EndRecord,
    FrameRecord,
    MarkRecord,
    OpenRecord,
    PromiseRecord,
    UnknownRecord,
)
from lunalog.testing.disk import SimulatedDisk
from lunalog.types import Promise
from lunalog.wire.frames import FrameHead


def contents(number: int = 3) -> Contents:
    return Contents(
        number, 77, [ExtentNote(1, 4096, 2)], 2, 40, 99, Position(2, 512), False,
        [SegmentNote(STREAM, SEGMENT, 5, 20, 123, 18, [RunNote(1, 5, 12, 4, 112, 48)])],
        [PromiseRecord(STREAM, Promise(4, ANN))],
    )  # fmt: skip


def make(seed: int = 1) -> SimulatedDisk:
    return SimulatedDisk("d", random.Random(seed))


def encoded(found: Contents) -> bytes:
    return b"".join(checkpoint.encode(found))


def test_it_is_read_back() -> None:
    assert checkpoint.decode(encoded(contents()), 3) == contents()
    assert checkpoint.decode(encoded(contents()), 4) is None


def test_every_wrong_bit_is_noticed() -> None:
    data = encoded(contents())
    for offset in range(len(data)):
        flipped = bytearray(data)
        flipped[offset] ^= 1 << offset % 8
        assert checkpoint.decode(bytes(flipped), 3) is None
    for size in range(len(data)):
        assert checkpoint.decode(data[:size], 3) is None
    assert checkpoint.decode(data + b"\0", 3) is None


def test_a_whole_file_of_another_shape_is_damage() -> None:
    body = b"\xc1\xff"
    head = checkpoint.HEAD.pack(b"LLC1", 1, 3, len(body), checkpoint.crc32c(body))
    data = head + checkpoint.CRC.pack(checkpoint.crc32c(head)) + body
    assert checkpoint.decode(data, 3) is None


def test_a_file_whose_name_and_content_disagree_is_damage() -> None:
    body = encoded(contents(3))[checkpoint.HEAD_BYTES :]
    head = checkpoint.HEAD.pack(b"LLC1", 1, 4, len(body), checkpoint.crc32c(body))
    assert checkpoint.decode(head + checkpoint.CRC.pack(checkpoint.crc32c(head)) + body, 4) is None


def test_replay_tells_facts_before_ends() -> None:
    assert contents().replay() == [
        PromiseRecord(STREAM, Promise(4, ANN)), EndRecord(STREAM, SEGMENT, 5, 20, 123, 18),
    ]  # fmt: skip


@pytest.mark.parametrize("is_opened", [True, False])
def test_r18_replay_keeps_what_is_damaged_of_a_segment_whose_open_record_was(
    is_opened: bool,
) -> None:
    made = contents()
    if is_opened:
        made.records.append(OpenRecord(STREAM, SEGMENT, ANN, 5, 1, 1))
    made.records.append(UnknownRecord(STREAM, SEGMENT, 7, 9))
    replica = Replica(1)
    for record in made.replay():
        facts.replay(replica, record, None)
    held = replica.find(STREAM, SEGMENT)
    assert held is not None
    assert (held.first, held.end, held.chain, held.unknown) == (5, 20, 123, ((7, 9),))


def test_the_last_two_are_kept_and_the_newest_whole_one_is_read() -> None:
    disk = make()
    assert drive(checkpoint.load(disk)) == (None, 0, [])
    for number in range(1, 6):
        drive(checkpoint.store(disk, contents(number)))
    assert drive(checkpoint.numbers(disk)) == [4, 5]
    assert drive(checkpoint.load(disk)) == (contents(5), 5, [])
    disk.flip(checkpoint.name_of(5), 40)
    found, highest, damage = drive(checkpoint.load(disk))
    assert (found, highest) == (contents(4), 5)
    assert [(d.file, d.what) for d in damage] == [
        (checkpoint.name_of(5), "checkpoint is damaged"),
    ]  # fmt: skip
    disk.flip(checkpoint.name_of(4), 40)
    found, highest, damage = drive(checkpoint.load(disk))
    assert (found, highest, len(damage)) == (None, 5, 2)


@pytest.mark.parametrize("kind", ["open", "read"])
def test_one_that_cannot_be_read_is_as_good_as_damaged(kind: str) -> None:
    disk = make()
    drive(checkpoint.store(disk, contents(1)))
    drive(checkpoint.store(disk, contents(2)))
    disk.faults.fail_call(1, errno.EIO, kind)
    found, highest, damage = drive(checkpoint.load(disk))
    assert (found, highest, len(damage)) == (contents(1), 2, 1)


def test_a_large_one_is_read_in_pieces() -> None:
    disk = make()
    many = contents(1)
    many.records += [MarkRecord(STREAM, SEGMENT, n) for n in range(60_000)]
    drive(checkpoint.store(disk, many))
    assert len(encoded(many)) > checkpoint.READ_BYTES
    assert drive(checkpoint.load(disk))[0] == many


def test_a_crash_anywhere_leaves_the_old_one_or_the_new() -> None:
    seen = set()
    for seed in range(40):
        for call in range(1, 12):
            disk = make(seed)
            drive(checkpoint.store(disk, contents(1)))
            drive(checkpoint.store(disk, contents(2)))
            disk.faults.trap(call, lambda disk=disk: disk.crash(power=True))
            try:
                drive(checkpoint.store(disk, contents(3)))
            except OSError:  # its process has died
                disk.crash(power=True)
            found, _, _ = drive(checkpoint.load(disk))
            assert found in (contents(2), contents(3))
            seen.add(found.number)
        drive(checkpoint.store(disk, contents(4)))
        disk.crash(power=True)
        assert drive(checkpoint.load(disk))[0] == contents(4)
    assert seen == {2, 3}


# ------------------------------------------------------------ the ledger


class Store:
    """A disk with extents, and the ledger over them."""

    def __init__(self) -> None:
        self.disk = make()
        self.index = Index()
        self.ledger = Ledger(self.index, 77)
        self.current = 0
        self.at = {STREAM: 0, OTHER: 0}

    def fill(self, *streams: bytes, frames: int = 3) -> int:
        """One more extent with frames of these streams, closed."""
        self.current += 1
        file = drive(self.disk.open(extents.name_of(self.current), create=True))
        drive(file.write(0, [b"x" * 100]))
        offset = 112
        for stream in streams:
            for _ in range(frames):
                first = self.at[stream]
                head = FrameHead(stream, first, 1, 1, 0, 4, first)
                self.index.add(FrameRecord(stream, SEGMENT, 0, 1, head, b"f"), self.current, offset)
                self.at[stream] += 1
                offset += 100
        self.ledger.closed(self.current, 4096)
        return self.current

    def checkpoint(self) -> None:
        plan = self.ledger.plan(Beginning(self.current + 1, 1, 1), Position(), [])
        drive(ledger.carry_out(self.disk, plan))
        self.ledger.finished(plan)

    @property
    def extents(self) -> list[int]:
        return drive(extents.numbers(self.disk))


def test_an_extent_goes_when_two_checkpoints_have_done_without_it() -> None:
    """R29: one damaged checkpoint must not need what is gone."""
    store = Store()
    store.fill(STREAM)
    store.fill(STREAM, OTHER)
    store.checkpoint()
    assert store.extents == [1, 2]
    store.index.forget(STREAM, SEGMENT, None)
    assert store.ledger.has_dead
    store.checkpoint()
    assert store.extents == [2]
    assert not store.ledger.has_dead
    store.index.forget(OTHER, SEGMENT, None)
    store.fill(OTHER)
    store.index.forget(OTHER, SEGMENT, None)
    store.checkpoint()
    assert store.extents == [3]  # it died as it was closed: the next checkpoint may let it go
    store.checkpoint()
    assert store.extents == []


def test_a_failed_checkpoint_lets_nothing_go_and_is_made_up_for() -> None:
    store = Store()
    store.fill(STREAM)
    store.checkpoint()
    store.index.forget(STREAM, SEGMENT, None)
    store.fill(OTHER)
    for kind in ("write", "sync", "rename", "sync_directory"):
        store.disk.faults.fail_call(1, errno.ENOSPC, kind)
        with pytest.raises(OSError, match="injected"):
            store.checkpoint()
        assert store.extents == [1, 2]
    store.checkpoint()
    assert store.extents == [2]


def test_arrays_of_full_extents_leave_memory_for_their_sidecar() -> None:
    store = Store()
    store.fill(STREAM, OTHER)
    store.fill(STREAM, frames=1)
    run, single = store.index.find(STREAM, SEGMENT).runs  # type: ignore[union-attr]
    store.checkpoint()
    assert run.block is None
    assert run.place == 0
    assert single.block is not None
    other = store.index.find(OTHER, SEGMENT).runs[0]  # type: ignore[union-attr]
    assert other.place > 0
    names = drive(store.disk.names())
    assert extents.index_name_of(1) in names
    assert extents.index_name_of(2) not in names


def test_the_index_of_full_extents_is_restored_from_a_checkpoint() -> None:
    store = Store()
    store.fill(STREAM, OTHER)
    store.fill(STREAM)
    store.index.forget(STREAM, SEGMENT, 2)
    store.checkpoint()
    found, _, _ = drive(checkpoint.load(store.disk))
    assert found is not None
    back = Index()
    checkpoint.restore(found, back)
    for known in store.index.all():
        again = back.find(known.stream, known.segment)
        assert again is not None
        assert (again.start, again.end, again.chain) == (known.start, known.end, known.chain)
        assert [(r.extent, r.first, r.end, r.count, r.offset, r.place) for r in again.runs] == [
            (r.extent, r.first, r.end, r.count, r.offset, r.place) for r in known.runs
        ]
    assert back.live == store.index.live


# ------------------------------------------------------------ extents


def test_an_extent_grows_by_steps_and_by_what_is_to_be_had() -> None:
    disk = make()
    extent = drive(extents.create(disk, 7, 1 << 30))
    assert drive(disk.names()) == ["extent-0000000007.wal"]
    assert extent.allocated == extents.STEP_BYTES
    assert not drive(extent.grow(100, 1 << 30))
    assert drive(extent.grow(extent.allocated + 1, 1 << 30))
    assert extent.allocated == 2 * extents.STEP_BYTES
    assert drive(extent.grow(extent.allocated + 1, extent.allocated + 1000))
    assert extent.allocated == 2 * extents.STEP_BYTES + 1000  # never past the extent's size
    disk.capacity_bytes = extent.allocated + (100 << 10)
    assert drive(extent.grow(extent.allocated + 1, 1 << 30))
    assert extent.allocated == 2 * extents.STEP_BYTES + 1000 + (64 << 10)
    with pytest.raises(OSError, match="disk full"):
        drive(extent.grow(extent.allocated + (1 << 20), 1 << 30))
    disk.faults.fail_call(1, errno.EIO, "allocate")
    with pytest.raises(OSError, match="injected") as failed:
        drive(extent.grow(extent.allocated + 1, 1 << 30))
    assert not extents.is_full_error(failed.value)


def test_an_extent_that_cannot_be_made_ready_is_not_used() -> None:
    for kind in ("create", "allocate", "sync", "sync_directory"):
        disk = make()
        disk.faults.fail_call(1, errno.EIO, kind)
        with pytest.raises(OSError, match="injected"):
            drive(extents.create(disk, 1, 1 << 20))


def test_only_names_of_extents_are_extents() -> None:
    disk = make()
    for name in ("extent-0000000012.wal", "extent-0000000003.wal", "extent-1.wal", "identity"):
        drive(disk.open(name, create=True))
    drive(disk.open("extent-0000000004.wal.tmp", create=True))
    drive(disk.open(extents.index_name_of(5), create=True))
    assert drive(extents.numbers(disk)) == [3, 12]
