"""How what waits is cut into batches."""

from __future__ import annotations

import pytest

from lunalog.storage.writer import BATCH_BYTES_SOFT, Put, cut


def put(size: int) -> Put:
    return Put([], None, size)


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
