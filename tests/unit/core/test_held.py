"""What a sync makes durable of a segment, and what readers may see behind it."""

from __future__ import annotations

import pytest

from lunalog.core.held import SegmentReplica
from lunalog.types import SegmentId


@pytest.fixture
def held() -> SegmentReplica:
    """Three frames of ten events, none of them synced."""
    made = SegmentReplica(SegmentId(1, 0), 0, 0, 1)
    for first in (0, 10, 20):
        made.take(first, 10, first)
    return made


def test_r12_readers_see_more_where_what_is_synced_was_committed_already(
    held: SegmentReplica,
) -> None:
    assert not held.synced(10)
    held.committed = 30
    assert held.synced(20)
    assert (held.durable, held.readable) == (20, 20)
    held.committed = 5
    assert not held.synced(30)
    assert (held.durable, held.readable) == (30, 5)


def test_a_sync_that_brings_nothing_moves_nothing(held: SegmentReplica) -> None:
    held.committed = 30
    assert held.synced(20)
    for end in (10, 20):
        assert not held.synced(end)
    assert held.durable == 20


def test_r21_what_was_cut_while_it_was_written_is_not_held(held: SegmentReplica) -> None:
    held.committed = 30
    held.end = 10
    assert held.synced(20)
    assert held.durable == 10
    assert not held.synced(30)
    assert held.durable == 10
