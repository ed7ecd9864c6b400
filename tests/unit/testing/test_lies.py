"""Syncs that lie: what a later header attests stays lost, the tail that nothing attests does not."""

from __future__ import annotations

import random

import pytest

from lunalog.runtime import drive
from lunalog.storage import format as layout
from lunalog.storage.format import Place, Position
from lunalog.storage.records import MarkRecord
from lunalog.testing.disk import SimulatedDisk
from lunalog.testing.diskharm import spare_tail
from lunalog.types import SegmentId

NAME = "extent-0000000007.wal"
BATCHES = 4


def batch(number: int) -> bytes:
    """One of `BATCHES` that follow each other in an extent, each a block long."""
    place = Place(1, 1, 7, layout.BLOCK_BYTES * number, number + 1, 0, Position(7, 0))
    record = MarkRecord(bytes(16), SegmentId(1, 0), number)
    found = b"".join(layout.encode(place, [record]).buffers)
    assert len(found) == layout.BLOCK_BYTES
    return found


def lost_after(lies: set[int], *, strays: bool) -> list[int]:
    """Write all batches, lie about some, cut the power; return those that are gone."""
    disk = SimulatedDisk("d", random.Random(1))
    file = drive(disk.open(NAME, create=True))
    drive(disk.sync_directory())
    drive(file.allocate(1 << 16))
    drive(file.sync())
    for number in range(BATCHES):
        if number in lies:
            (disk.faults.stray_sync if strays else disk.faults.lie_sync)()
        drive(file.write(layout.BLOCK_BYTES * number, [batch(number)]))
        drive(file.sync())
    spare_tail(disk)
    disk.crash(power=True)
    content = disk.directory.find(NAME).read(0, layout.BLOCK_BYTES * BATCHES)
    pieces = [content[layout.BLOCK_BYTES * n :][: layout.BLOCK_BYTES] for n in range(BATCHES)]
    return [n for n, piece in enumerate(pieces) if piece != batch(n)]


@pytest.mark.parametrize(
    ("lies", "lost"),
    [
        (set(), []),
        ({3}, []),
        ({2, 3}, []),
        ({0, 1, 2, 3}, []),
        ({2}, [2]),
        ({1, 3}, [1]),
        ({0, 1}, [0, 1]),
    ],
)
def test_r17_only_what_a_later_header_attests_stays_lost(lies: set[int], lost: list[int]) -> None:
    assert lost_after(lies, strays=False) == lost


def test_a_stray_write_may_harm_what_was_honest() -> None:
    assert 2 in lost_after({2}, strays=True)
    assert 3 not in lost_after({3}, strays=True)
