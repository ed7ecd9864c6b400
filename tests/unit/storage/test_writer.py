"""How what waits is cut into batches."""

from __future__ import annotations

from typing import Any

import pytest

from lunalog.errors import StorageError
from lunalog.runtime import SystemRuntime
from lunalog.storage.writer import BATCH_BYTES_SOFT, Put, Wal, cut


def put(size: int) -> Put:
    return Put([], size)


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ([], []),
        ([0], [[0]]),
        ([0, 0, 5], [[0, 0, 5]]),
        ([BATCH_BYTES_SOFT + 1], [[BATCH_BYTES_SOFT + 1]]),
        ([1, BATCH_BYTES_SOFT, 0, 2], [[1], [BATCH_BYTES_SOFT, 0], [2]]),
    ],
)
def test_nothing_waits_twice_and_nothing_is_left(
    sizes: list[int], batches: list[list[int]]
) -> None:
    """A put of no bytes attests what was synced before: alone, it is a batch too."""
    assert [[p.size for p in batch] for batch in cut([put(s) for s in sizes])] == batches


async def test_a_log_that_is_closed_takes_no_batch() -> None:
    disk: Any = None
    wal = Wal(disk, SystemRuntime(), 16 << 10, 0, 1, 1)
    with pytest.raises(StorageError, match="the log is closed"):
        await wal.commit([put(0)])
